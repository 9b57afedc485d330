"""The models that a finished run leaves at a client, as `from_pretrained` folders."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fedkd_flwr.client.round import LocalRound, Workplace
from fedkd_flwr.distillation import batch_norms
from fedkd_flwr.messages import EvaluateRequest, Evaluation
from fedkd_flwr.models.export import export
from fedkd_flwr.models.lora import merged
from fedkd_flwr.models.model_card import About


def export_own(
    place: Workplace,
    local: LocalRound,
    tied: Mapping[str, Tensor],
    folder: Path,
    request: EvaluateRequest,
    found: Evaluation,
) -> None:
    """Write the client's teacher, and its student where that is another one than the server's.

    Args:
        place: what the client computes with.
        local: its filled models.
        tied: the values that its teacher uses for tied parameters.
        folder: where to; they are called `teacher` and `student`.
        request: says which round the models are of.
        found: their scores.

    Raises:
        StateError: the disk refuses.
    """
    config, task, models = place.config, place.prepared.task, local.models
    titles, shares = (place.prepared.title,), place.prepared.label_shares if config.adjusts_logits else ()
    round, added = request.best if request.use_best else request.round, local.adjustment
    if models.teacher is not None:
        scores = {"here": found.teacher_own_labels or found.teacher or {}}
        about = About(config, "teacher", round, titles, scores, shares)
        processor = task.teacher_processor or task.processor
        with merged(models.teacher):
            of_head = added if models.pair.teacher_is_shared else None
            export(models.teacher, processor, folder / "teacher", about, of_head, tied)
    student = models.student
    if student is not None and (added is not None or not request.shared_head or batch_norms(student)):
        scores = {"here": found.student_own_labels or found.student or {}}
        about = About(config, "student", round, titles, scores, shares)
        with merged(student):
            export(student, task.processor, folder / "student", about, added)
