"""Where examples come from and how they are split."""

from fedkd_flwr.data.examples import distinct_labels, load_examples, with_labels
from fedkd_flwr.data.node_data import DataReport, NodeData, in_words
from fedkd_flwr.data.nodes import data_fingerprint, load_node_data, load_test_data, node_name
from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.data.store import EncodedData, EncodedStore

__all__ = [
    "DataReport",
    "DataSettings",
    "EncodedData",
    "EncodedStore",
    "NodeData",
    "data_fingerprint",
    "distinct_labels",
    "in_words",
    "load_examples",
    "load_node_data",
    "load_test_data",
    "node_name",
    "with_labels",
]
