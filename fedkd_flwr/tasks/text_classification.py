"""One label per text."""

from fedkd_flwr.tasks.labelled_texts import LabelledTexts
from fedkd_flwr.tasks.single_label import SingleLabel


class TextClassification(SingleLabel, LabelledTexts):
    """Single-label classification: cross-entropy, KL divergence, accuracy and macro F1; labels are int64 [batch]."""

    kind = "text-classification"
