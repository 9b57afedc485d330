"""What reads a run's examples for its models: the tokenizers of student and teacher, or an image processor."""

from typing import TYPE_CHECKING, cast

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.models.image import load_image_processor
from fedkd_flwr.tasks.base import Readers, Task
from fedkd_flwr.tasks.text import marks_segments, read_alike

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_task(config: RunConfig, labels: tuple[str, ...]) -> Task:
    """The task of a run, on these labels.

    Raises:
        ModelError: a tokenizer or an image processor cannot be loaded.
    """
    return cast(Task, config.task_spec.build(load_readers(config), labels, config.model))


def load_readers(config: RunConfig) -> Readers:
    """An image processor, or the student's tokenizer and the teacher's if that reads otherwise.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    inputs, trains = config.task_spec.inputs, config.parts.trains
    if inputs == "images":
        return Readers(load_image_processor(config.model.teacher))
    if inputs == "news":
        return Readers(load_tokenizer(config.model.teacher))
    words = inputs == "words"
    reference = config.model.teacher if trains == {"teacher"} else config.student_checkpoint
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(reference, words)
    if "teacher" not in trains or config.model.teacher == reference:
        return Readers(tokenizer)
    teacher = load_tokenizer(config.model.teacher, words)
    segments = bool(config.data.text_pair_column) and marks_segments(tokenizer) != marks_segments(teacher)
    return Readers(tokenizer, None if read_alike(tokenizer, teacher) and not segments else teacher)
