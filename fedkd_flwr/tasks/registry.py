"""What differs between tasks: how examples become batches, the two losses, the scores."""

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.tasks.base import Scores, Task

__all__ = ["Scores", "Task", "build_task"]


def build_task(config: RunConfig, labels: tuple[str, ...]) -> Task:
    """The task of a run, with an image processor, or the student's tokenizer and the teacher's if that reads otherwise.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    from fedkd_flwr.models.hub import load_tokenizer
    from fedkd_flwr.models.image import load_image_processor
    from fedkd_flwr.tasks.image_classification import ImageClassification
    from fedkd_flwr.tasks.multi_label import MultiLabel
    from fedkd_flwr.tasks.news_recommendation import NewsRecommendation
    from fedkd_flwr.tasks.regression import Regression
    from fedkd_flwr.tasks.text import marks_segments, read_alike
    from fedkd_flwr.tasks.text_classification import TextClassification
    from fedkd_flwr.tasks.token_classification import TokenClassification

    if config.task == "image-classification":
        return ImageClassification(load_image_processor(config.model.teacher), labels)
    if config.task == "news-recommendation":
        return NewsRecommendation(
            load_tokenizer(config.model.teacher), labels, config.model.max_length, config.model.max_history
        )
    kinds: dict[str, type[TextClassification | MultiLabel | Regression | TokenClassification]] = {
        "text-classification": TextClassification,
        "multi-label": MultiLabel,
        "regression": Regression,
        "token-classification": TokenClassification,
    }
    words = config.task == "token-classification"
    reference = (
        config.model.teacher if config.parts.trains == {"teacher"} else config.model.student or config.model.teacher
    )
    tokenizer, teacher = load_tokenizer(reference, words), None
    if "teacher" in config.parts.trains and config.model.teacher != reference:
        other = load_tokenizer(config.model.teacher, words)
        segments = bool(config.data.text_pair_column) and marks_segments(tokenizer) != marks_segments(other)
        teacher = None if read_alike(tokenizer, other) and not segments else other
    return kinds[config.task](tokenizer, labels, config.model.max_length, teacher)
