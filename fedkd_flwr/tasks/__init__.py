"""What differs between tasks: how examples become batches, the two losses, the scores."""

from fedkd_flwr.config import RunConfig
from fedkd_flwr.tasks.base import Scores, Task

__all__ = ["Scores", "Task", "build_task"]


def build_task(config: RunConfig, labels: tuple[str, ...]) -> Task:
    """The task of a run, with its teacher's tokenizer or image processor.

    Raises:
        ModelError: that cannot be loaded.
    """
    from fedkd_flwr.image_models import load_image_processor
    from fedkd_flwr.models import load_tokenizer
    from fedkd_flwr.tasks.image_classification import ImageClassification
    from fedkd_flwr.tasks.multi_label import MultiLabel
    from fedkd_flwr.tasks.regression import Regression
    from fedkd_flwr.tasks.text_classification import TextClassification
    from fedkd_flwr.tasks.token_classification import TokenClassification

    if config.task == "token-classification":
        return TokenClassification(load_tokenizer(config.teacher, words=True), labels, config.max_length)
    if config.task == "image-classification":
        return ImageClassification(load_image_processor(config.teacher), labels)
    kinds: dict[str, type[TextClassification | MultiLabel | Regression]]
    kinds = {"multi-label": MultiLabel, "regression": Regression}
    return kinds.get(config.task, TextClassification)(load_tokenizer(config.teacher), labels, config.max_length)
