"""What differs between tasks: how examples become batches, the two losses, the scores."""

from fedkd_flwr.config import RunConfig
from fedkd_flwr.tasks.base import Scores, Task

__all__ = ["Scores", "Task", "build_task"]


def build_task(config: RunConfig, labels: tuple[str, ...]) -> Task:
    """The task of a run, with the tokenizer of its student and that of its teacher where this reads other tokens.

    Raises:
        ModelError: a tokenizer cannot be loaded.
    """
    from fedkd_flwr.models import load_tokenizer
    from fedkd_flwr.tasks.text import read_alike
    from fedkd_flwr.tasks.text_classification import TextClassification
    from fedkd_flwr.tasks.token_classification import TokenClassification

    words = config.task == "token-classification"
    reference = config.teacher if config.parts.trains == {"teacher"} else config.student or config.teacher
    tokenizer, teacher = load_tokenizer(reference, words), None
    if "teacher" in config.parts.trains and config.teacher != reference:
        other = load_tokenizer(config.teacher, words)
        teacher = None if read_alike(tokenizer, other) else other
    return (TokenClassification if words else TextClassification)(tokenizer, labels, config.max_length, teacher)
