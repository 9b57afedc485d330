"""The tasks by the value of run-config key `task`: what each says about itself. Importing this imports none of them."""

from fedkd_flwr.runtime.registry import Registry
from fedkd_flwr.tasks.spec import OF_TEXTS, Metrics, TaskSpec

_ONE_LABEL = Metrics(
    names=("accuracy", "macro-f1", "f1", "average-precision", "loss"),
    shown=("accuracy", "macro-f1"),
    title="Accuracy and macro-F1",
    headings=("acc", "F1"),
)
_WHOLE_TEXTS = OF_TEXTS | {"data.text-pair-column", "model.pooling"}

TASKS = Registry(
    "task",
    {
        "text-classification": TaskSpec(
            place="fedkd_flwr.tasks.text_classification:TextClassification",
            inputs="texts",
            labels="one",
            metrics=_ONE_LABEL,
            keys=_WHOLE_TEXTS | {"data.skip-unlabelled"},
            partitions=frozenset({"dirichlet", "shard"}),
            adjusts=True,
            pipeline="text-classification",
        ),
        "token-classification": TaskSpec(
            place="fedkd_flwr.tasks.token_classification:TokenClassification",
            inputs="words",
            labels="tags",
            metrics=Metrics(
                names=("span-f1", "precision", "recall", "accuracy", "loss"),
                shown=("accuracy", "span-f1"),
                title="Accuracy of words and F1 of spans",
                headings=("acc", "F1"),
            ),
            keys=OF_TEXTS,
            pooling="none",
            auto_class="AutoModelForTokenClassification",
            pipeline="token-classification",
        ),
        "image-classification": TaskSpec(
            place="fedkd_flwr.tasks.image_classification:ImageClassification",
            inputs="images",
            labels="one",
            metrics=_ONE_LABEL,
            keys=frozenset({"data.labels"}),
            partitions=frozenset({"dirichlet", "shard"}),
            adjusts=True,
            auto_class="AutoModelForImageClassification",
            pipeline="image-classification",
        ),
        "multi-label": TaskSpec(
            place="fedkd_flwr.tasks.multi_label:MultiLabel",
            inputs="texts",
            labels="several",
            metrics=Metrics(
                names=("micro-f1", "macro-f1", "mean-average-precision", "loss"),
                shown=("micro-f1", "mean-average-precision"),
                title="Micro-F1 and mean average precision",
                headings=("F1", "mAP"),
            ),
            keys=_WHOLE_TEXTS | {"data.label-separator"},
            adjusts=True,
            problem_type="multi_label_classification",
            pipeline="text-classification",
        ),
        "regression": TaskSpec(
            place="fedkd_flwr.tasks.regression:Regression",
            inputs="texts",
            labels="number",
            metrics=Metrics(
                names=("mae", "rmse", "r2", "spearman", "loss"),
                shown=("mae", "spearman"),
                title="Mean absolute error and rank correlation",
                headings=("MAE", "rho"),
            ),
            keys=_WHOLE_TEXTS | {"data.skip-unlabelled"},
            partitions=frozenset({"shard"}),
            problem_type="regression",
            pipeline="text-classification",
        ),
        "news-recommendation": TaskSpec(
            place="fedkd_flwr.tasks.news_recommendation:NewsRecommendation",
            inputs="news",
            labels="none",
            metrics=Metrics(
                names=("auc", "mrr", "ndcg@5", "ndcg@10", "loss"),
                shown=("auc", "ndcg@10"),
                title="AUC and nDCG@10",
                headings=("AUC", "nDCG"),
            ),
            keys=frozenset({"model.max-history"}),
            linear_head=False,
            pooling="news",
            auto_class="AutoModel",
        ),
    },
)
"""By name."""
