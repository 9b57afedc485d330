"""A node's data as its task reads them: from its disk where they lie there, or else read and encoded anew."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd_flwr.client.caches import Caches
from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.node_config import is_owned
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import (
    DataReport,
    DataSettings,
    EncodedData,
    EncodedStore,
    NodeData,
    data_fingerprint,
    in_words,
    load_node_data,
    node_name,
)
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.privacy.scores import HeldOut, bounded_shares
from fedkd_flwr.tasks.base import Task
from fedkd_flwr.tasks.class_weights import class_weights
from fedkd_flwr.tasks.label_priors import adjustment, label_counts
from fedkd_flwr.tasks.text import cuts

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from torch import Tensor

_log = logging.getLogger(__name__)


class Prepared:
    """Data of a node, encoded once and kept on its disk.

    Attributes:
        name: under which the node keeps its state.
        title: whose examples they are; the same as `name` where they are the node's own.
        labels: the names of all classes.
        train_examples: how many there are to train on.
        label_shares: of these; empty where the run neither adjusts logits to them nor balances classes by them.
    """

    def __init__(self, config: RunConfig, node_config: Mapping[str, Value], caches: Caches) -> None:
        """Find the data, and what the node's disk holds of them.

        Raises:
            DataError: as `load_node_data`.
        """
        self._config, self._node_config, self._caches = config, node_config, caches
        self._settings = DataSettings.of(config)
        self.name = node_name(self._settings, node_config)
        self._store = EncodedStore(Path(config.run.state_dir).absolute(), self.name)
        self._fingerprint = data_fingerprint(self._settings, node_config)
        self._stored = self._store.load(self._fingerprint)
        data = self._stored or self._data
        self.title = self.name if is_owned(node_config) else data.name
        self.labels, self.train_examples = data.labels, len(data.train)
        adjusts = config.adjusts_logits and self.task.link is not None
        self._counts = self._label_counts(data.train) if adjusts or config.train.class_weights == "balanced" else ()
        self.label_shares = self.shares_in_steps(1)

    @cached_property
    def _data(self) -> NodeData:
        return load_node_data(self._settings, self._node_config, self._caches.data)

    @cached_property
    def task(self) -> Task:
        """The node's, with these labels."""
        config = self._config
        key = (config.method, config.task, config.model, config.data.text_pair_column, self.labels)
        return self._caches.tasks.get(key, lambda: build_task(config, self.labels))

    @cached_property
    def examples(self) -> EncodedData:
        """Those of this data as this task encodes them."""
        task, stored = self.task, self._stored
        if stored is None or stored.encoding != task.encoding:
            train, test = (task.encode(part) for part in (self._data.train, self._data.test))
            cut, longest = cuts(train, test)
            report = replace(self._data.report, cut=cut, longest=longest)
            for sentence in in_words(report, self._config.model.max_length):
                _log.warning("%s: %s", self.name, sentence)
            stored = EncodedData(self.title, self.labels, task.encoding, train, test, report)
            self._store.save(self._fingerprint, stored)
        return stored

    @property
    def held_out(self) -> HeldOut:
        """What scores are over; encodes the examples where that is not done yet."""
        test = self.examples.test
        return HeldOut(len(test), self.labels, self._label_counts(test) if self.task.link is not None else ())

    def shares_in_steps(self, cell: int) -> tuple[float, ...]:
        """`label_shares`, of counts that are told in steps of so many examples."""
        if not self._counts:
            return ()
        return bounded_shares(
            self._counts, self.train_examples if self._config.task_spec.labels == "several" else None, cell
        )

    @property
    def report(self) -> DataReport:
        """What was counted while the data were read and encoded; encodes them where that is not done yet."""
        return self.examples.report

    def adjustment(self, all_nodes: Sequence[float]) -> "Tensor | None":
        """What logits that hold for the shares of all nodes lack to hold for these, [classes]; None: nothing."""
        if self.task.link is None or not (self._config.adjusts_logits and all_nodes and self.label_shares):
            return None
        return adjustment(self.label_shares, all_nodes, self.task.link)

    def class_weights(self, all_nodes: Sequence[float]) -> "Tensor | None":
        """What each class weighs in the task loss, [classes]: by the shares of all nodes where they are known."""
        return class_weights(self._config.train.class_weights, all_nodes or self.label_shares, self.task.link)

    def _label_counts(self, examples: "Dataset | pa.Table") -> tuple[int, ...]:
        column = examples.with_format("arrow")["label"][:] if hasattr(examples, "with_format") else examples["label"]
        return label_counts(column, len(self.labels))
