"""A node's encoded examples on its disk: no later message reads, splits and encodes its data again.

STATE_DIR/examples/NODE.arrow is one Arrow file with a record batch each to train and to test on, read by memory map.
It is written beside the old one, flushed and renamed into place: whole or not there at all.
"""

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from fedkd_flwr.data.node_data import DataReport
from fedkd_flwr.runtime.disk import flush

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)

_REPORT = TypeAdapter(DataReport)


@dataclass(frozen=True)
class EncodedData:
    """What a node learns from.

    Attributes:
        name: whose examples they are.
        labels: the names of all classes.
        encoding: what `Task.encoding` was when they were encoded.
        train, test: what `Task.encode` returned, one chunk a column.
        report: what was counted while they were read and encoded.
    """

    name: str
    labels: tuple[str, ...]
    encoding: str
    train: "pa.Table"
    test: "pa.Table"
    report: DataReport = field(default_factory=DataReport)


class EncodedStore:
    """The place of one node's encoded examples."""

    def __init__(self, state_dir: Path, node: str) -> None:
        self._folder = state_dir / "examples"
        self._path = self._folder / f"{node}.arrow"

    def load(self, data: str) -> EncodedData | None:
        """The examples of the data with this fingerprint; None where there are none that can be read."""
        import pyarrow as pa

        try:
            reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
            about = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
            if about["data"] != data:
                return None
            train, test = (pa.Table.from_batches([reader.get_batch(number)]) for number in range(2))
            return EncodedData(
                about["name"],
                tuple(json.loads(about["labels"])),
                about["encoding"],
                train.replace_schema_metadata(),
                test.replace_schema_metadata(),
                _REPORT.validate_json(about["report"]),
            )
        except (OSError, KeyError, ValueError, pa.ArrowException):
            return None

    def save(self, data: str, examples: EncodedData) -> None:
        """Keep examples of the data with this fingerprint in place of older ones; a disk that refuses is no error."""
        import pyarrow as pa

        about = {
            "data": data,
            "name": examples.name,
            "labels": json.dumps(examples.labels),
            "encoding": examples.encoding,
            "report": _REPORT.dump_json(examples.report).decode(),
        }
        schema = examples.train.schema.with_metadata(about)
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                with pa.OSFile(str(fresh), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                    for table in (examples.train, examples.test):
                        (batch,) = table.combine_chunks().to_batches()
                        writer.write_batch(batch)
                flush(fresh)
                fresh.replace(self._path)
        except OSError as error:
            _log.warning("encoded examples are not kept, every message encodes them again: %s", error)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process writes; a lock that goes with its process."""
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
