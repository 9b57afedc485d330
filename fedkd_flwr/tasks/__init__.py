"""What differs between tasks: how examples become batches, the two losses, the scores."""

from fedkd_flwr.config import RunConfig
from fedkd_flwr.tasks.base import Scores, Task

__all__ = ["Scores", "Task", "build_task"]


def build_task(config: RunConfig, labels: tuple[str, ...]) -> Task:
    """The task of a run, with its teacher's tokenizer.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    from fedkd_flwr.models import load_tokenizer
    from fedkd_flwr.tasks.news_recommendation import NewsRecommendation
    from fedkd_flwr.tasks.text_classification import TextClassification
    from fedkd_flwr.tasks.token_classification import TokenClassification

    if config.task == "token-classification":
        return TokenClassification(load_tokenizer(config.teacher, words=True), labels, config.max_length)
    if config.task == "news-recommendation":
        return NewsRecommendation(load_tokenizer(config.teacher), labels, config.max_length, config.max_history)
    return TextClassification(load_tokenizer(config.teacher), labels, config.max_length)
