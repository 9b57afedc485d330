"""The encoding of an update that keeps the most energy within a number of bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from fedkd_flwr.codec.decomposed_update import DecomposedUpdate
from fedkd_flwr.codec.rate_distortion import EMPTY, OperatingPoint, RateDistortionCurve, allocate
from fedkd_flwr.codec.rate_model import component_nbytes
from fedkd_flwr.codec.update import EncodedUpdate
from fedkd_flwr.codec.wire_format import serialized_nbytes
from fedkd_flwr.errors import CodecError

_TRIES = 8
_CLOSE = 0.003  # of a budget: so much may stay unspent
_AHEAD = 1.2  # singular values asked for at first, over those that the bytes carry where all matrices have as many


def within_budget(update: DecomposedUpdate, nbytes: int, widths: Sequence[int]) -> EncodedUpdate:
    """Encode an update in at most `nbytes`, header and checksum included, with the most energy that these carry.

    The bytes of Huffman codes are known only once the codes are made. So the split is made for a number of expected
    bytes, and this number is corrected until the real ones fit and little is left.

    Args:
        update: decomposed.
        nbytes: the budget.
        widths: bits that components and numbers may have, ascending.

    Raises:
        CodecError: `nbytes` is too small for the names and shapes.
    """
    best, most = update.encoded(dict.fromkeys(update.tensors, EMPTY)), 0.0
    header = serialized_nbytes(best)
    if header > nbytes:
        raise CodecError(f"a budget of {nbytes} bytes is too small: the names and shapes of the update take {header}")
    split = _Split(update, nbytes, widths)
    aim = _Aim(nbytes, header)
    for _ in range(_TRIES):
        points = split.points(aim.expected)
        encoded = update.encoded({name: point.mode for name, point in points.items()})
        taken = serialized_nbytes(encoded)
        energy = sum(point.energy for point in points.values())
        if taken <= nbytes and energy > most:
            best, most = encoded, energy
        if taken <= nbytes and (split.is_complete(points) or taken >= (1 - _CLOSE) * nbytes):
            break
        aim.correct(sum(point.nbytes for point in points.values()), taken)
    return _no_more_than_dense(update, update.measured(best))


@dataclass
class _Aim:
    """Expected bytes that are to give the real bytes of a budget: secant steps, kept within a bracket by halving it.

    Attributes:
        nbytes: the budget.
        header: bytes of an update of zeros, which no split changes.
        expected: to be tried next; all that the header leaves at first.
        fitting, failing: the most that was within the budget, the least that was beyond.
    """

    nbytes: int
    header: int
    expected: float = 0.0
    fitting: float = 0.0
    failing: float = inf

    def __post_init__(self) -> None:
        self.expected = float(self.nbytes - self.header)

    def correct(self, allocated: float, taken: int) -> None:
        """Learn that `expected`, of which the split used `allocated`, took `taken` real bytes."""
        if taken > self.nbytes:
            self.failing = self.expected = allocated  # anything between this and `expected` gives the same split
        else:
            self.fitting = self.expected
        # The ratio of real to expected bytes changes slowly; a little less, as beyond the budget is of no use.
        self.expected *= (1 - _CLOSE / 2) * (self.nbytes - self.header) / max(1, taken - self.header)
        if not self.fitting < self.expected < self.failing:
            self.expected = (self.fitting + min(self.failing, 2 * self.nbytes)) / 2


class _Split:
    """Splits bytes over the tensors of an update, and finds more singular values where the known ones do not do.

    Args:
        update: decomposed.
        nbytes: the budget.
        widths: bits that components and numbers may have, ascending.
    """

    def __init__(self, update: DecomposedUpdate, nbytes: int, widths: Sequence[int]) -> None:
        self._update, self._widths = update, widths
        sides = update.spectra.large_sides
        update.spectra.find_leading(int(_AHEAD * nbytes / component_nbytes(sides, widths[0])) if sides else 0)
        self._curves = {name: self._curve(name) for name in update.tensors}

    def points(self, expected: float) -> dict[str, OperatingPoint]:
        """The point of each tensor that `expected` bytes are best split into.

        A curve ends where the known singular values do. A tensor at such an end might go on: its curve is made longer
        and all is split again, until none is at an end.
        """
        while True:
            points = dict(zip(self._curves, allocate(list(self._curves.values()), expected), strict=True))
            ending = [name for name, point in points.items() if self._is_at_end(name, point)]
            if not ending:
                return points
            for name in ending:
                self._update.spectra.find_more(name)
                self._curves[name] = self._curve(name)

    def is_complete(self, points: dict[str, OperatingPoint]) -> bool:
        """Tell whether every tensor keeps all that it can."""
        return all(point.energy >= self._curves[name].energy[-1] for name, point in points.items())

    def _is_at_end(self, name: str, point: OperatingPoint) -> bool:
        # A dense tensor is beyond all known factors: more of them may be better than all numbers.
        rank = self._update.tensors[name].numel() if point.mode.kind == "dense" else point.mode.rank
        return self._update.spectra.may_find_more(name, rank)

    def _curve(self, name: str) -> RateDistortionCurve:
        return RateDistortionCurve(self._update.statistics(name), self._widths)


def _no_more_than_dense(update: DecomposedUpdate, encoded: EncodedUpdate) -> EncodedUpdate:
    """The update as it is, where that takes fewer bytes than an encoding with its overheads."""
    if encoded.nbytes <= sum(4 * tensor.numel() for tensor in update.tensors.values()):
        return encoded
    return min(encoded, EncodedUpdate.dense(update.tensors), key=lambda candidate: candidate.nbytes)
