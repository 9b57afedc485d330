"""What differs between tasks: how examples become batches, the two losses, the scores."""

from fedkd_flwr.config import RunConfig
from fedkd_flwr.tasks.base import Scores, Task

__all__ = ["Scores", "Task", "build_task"]


def build_task(config: RunConfig, labels: tuple[str, ...]) -> Task:
    """The task of a run, with its student's tokenizer.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    from fedkd_flwr.models import load_tokenizer
    from fedkd_flwr.tasks.text_classification import TextClassification
    from fedkd_flwr.tasks.token_classification import TokenClassification

    reference = config.student or config.teacher
    if config.task == "token-classification":
        return TokenClassification(load_tokenizer(reference, words=True), labels, config.max_length)
    return TextClassification(load_tokenizer(reference), labels, config.max_length)
