"""Where examples come from and how they are split."""

from fedkd_flwr.data.examples import distinct_labels, load_examples, with_labels
from fedkd_flwr.data.nodes import NodeData, label_names, load_node_data

__all__ = ["NodeData", "distinct_labels", "label_names", "load_examples", "load_node_data", "with_labels"]
