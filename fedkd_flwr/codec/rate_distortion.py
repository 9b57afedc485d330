"""Energy over bytes for each tensor, and the split of a budget that keeps most energy over all of them.

Energy kept is the total less the squared error: a curve of energy over bytes is a rate-distortion curve, upside down.
On the concave hull of each curve the best split for a budget is found step by step, steepest first (Shoham and Gersho
1988): every split so found minimises error + lambda * bytes, where lambda is the slope of the last step taken.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedkd_flwr.codec.rate_model import (
    FACTORED_LOST,
    FACTORED_OVERHEAD,
    Floats,
    TensorStatistics,
    component_nbytes,
    dense_lost,
    dense_nbytes,
)

_FINEST = (16, 32)  # bits that a dense tensor may have, too, where a budget is larger than all codes
_NOTHING = 0  # the position before the first component of a factor chain


@dataclass(frozen=True)
class CodingMode:
    """The form in which a tensor is sent.

    Attributes:
        kind: "empty", "dense" or "factored".
        widths: (bits, components) of a factored tensor, widest first; ((bits, 1),) of a dense one.
    """

    kind: str
    widths: tuple[tuple[int, int], ...] = ()

    @property
    def rank(self) -> int:
        """Components of a factored tensor; 0 of any other."""
        return sum(count for _, count in self.widths) if self.kind == "factored" else 0


EMPTY = CodingMode("empty")


@dataclass(frozen=True)
class OperatingPoint:
    """A coding mode with its expected cost and gain.

    Attributes:
        mode: how the tensor is sent.
        nbytes: expected bytes.
        energy: expected part of the squared norm that is kept, in its unit.
    """

    mode: CodingMode
    nbytes: float
    energy: float


class FactorChain:
    """Factors of one tensor from none to all in full width, in the order in which steps of them pay.

    A component of energy e is worth e (1 - lost) at a width, and may be widened step by step. Each step is worth less
    a byte than the one before. So in the order of their worth the steps of a component come in the order of its
    widths, and large components are precise, small ones coarse or left out. This is reverse water-filling, where
    the slope is the water level (Cover and Thomas, Elements of Information Theory, 10.3).

    Args:
        tensor: its statistics.
        widths: bits that components may have, ascending.

    Attributes:
        nbytes, energy: float64 [1 + steps], expected of the first 0, 1, 2, ... steps.
    """

    def __init__(self, tensor: TensorStatistics, widths: Sequence[int]) -> None:
        self._widths = tuple(widths)
        energies = tensor.energy * np.diff(tensor.shares, prepend=0.0)
        # What a component costs and keeps more than at the width before; the first width comes after nothing.
        rates = np.diff([0.0, *(component_nbytes(tensor.sides, bits) for bits in widths)])
        worths = np.diff([0.0, *(1 - FACTORED_LOST[bits] for bits in widths)])
        gains, costs = np.outer(energies, worths).ravel(), np.tile(rates, len(energies))
        order = np.argsort(-gains / costs, kind="stable")
        self._width_indices = order % len(widths)
        self.nbytes = np.concatenate([[0.0], FACTORED_OVERHEAD + np.cumsum(costs[order])])
        self.energy = np.concatenate([[0.0], np.cumsum(gains[order])])

    def on_hull(self) -> NDArray[np.int64]:
        """The numbers of steps that are on the concave hull, ascending from 0.

        Slopes fall from the second step on. But the first pays the overhead, too, so that the hull leaps from nothing
        to the point that is seen at the steepest angle.
        """
        steps = len(self.nbytes) - 1
        first = 1 + int(np.argmax(self.energy[1:] / self.nbytes[1:])) if steps else 1
        return np.concatenate([[_NOTHING], np.arange(first, steps + 1)])

    def at(self, steps: int) -> OperatingPoint:
        """The point after so many steps."""
        return OperatingPoint(self._mode(steps), float(self.nbytes[steps]), float(self.energy[steps]))

    def within(self, nbytes: float) -> OperatingPoint:
        """The last point of at most `nbytes`, on the hull or below."""
        return self.at(int(np.searchsorted(self.nbytes, nbytes, side="right")) - 1)

    def _mode(self, steps: int) -> CodingMode:
        if steps == _NOTHING:
            return EMPTY
        # A component at a width has taken the steps to all smaller widths: differences count those that stop there.
        at_least = [*np.bincount(self._width_indices[:steps], minlength=len(self._widths)).tolist(), 0]
        counts = [(bits, at_least[i] - at_least[i + 1]) for i, bits in enumerate(self._widths)]
        return CodingMode("factored", tuple((bits, count) for bits, count in reversed(counts) if count))


class RateDistortionCurve:
    """The upper concave hull of energy over bytes of what one tensor may be sent as; it begins with nothing.

    Args:
        tensor: its statistics.
        widths: bits that components and numbers may have, ascending.

    Attributes:
        nbytes, energy: float64 [points], both ascending from 0: expected bytes, expected energy kept.
    """

    def __init__(self, tensor: TensorStatistics, widths: Sequence[int]) -> None:
        self._chain = FactorChain(tensor, widths)
        self._dense = _dense_points(tensor, widths)
        # A point's source: n >= 0 is the chain after n steps, -1 - i is the i-th dense point.
        self._sources = self._chain.on_hull()
        self.nbytes, self.energy = self._chain.nbytes[self._sources], self._chain.energy[self._sources]
        for index, point in enumerate(self._dense):
            self._add(-1 - index, point)

    def at(self, position: int) -> OperatingPoint:
        """The point at a position on the hull."""
        source = int(self._sources[position])
        mode = self._dense[-1 - source].mode if source < 0 else self._chain.at(source).mode
        return OperatingPoint(mode, float(self.nbytes[position]), float(self.energy[position]))

    def best_within(self, position: int, nbytes: float) -> OperatingPoint:
        """The point that keeps most within `nbytes`, on the hull or below: the step after `position` is too long."""
        fitting = [point for point in self._dense if point.nbytes <= nbytes]
        return max(self.at(position), self._chain.within(nbytes), *fitting, key=lambda point: point.energy)

    def _add(self, source: int, point: OperatingPoint) -> None:
        """Put a point above the hull between its tangents to the hull; what is below these leaves it."""
        if point.energy <= np.interp(point.nbytes, self.nbytes, self.energy):
            return
        cheaper = int(np.searchsorted(self.nbytes, point.nbytes))
        last = int(np.argmin((point.energy - self.energy[:cheaper]) / (point.nbytes - self.nbytes[:cheaper])))
        after = np.flatnonzero(self.energy > point.energy)
        if len(after):
            slopes = (self.energy[after] - point.energy) / (self.nbytes[after] - point.nbytes)
            after = after[int(np.argmax(slopes)) :]
        self.nbytes, self.energy, self._sources = (
            np.concatenate([column[: last + 1], [value], column[after]])
            for column, value in ((self.nbytes, point.nbytes), (self.energy, point.energy), (self._sources, source))
        )


def allocate(curves: Sequence[RateDistortionCurve], nbytes: float) -> list[OperatingPoint]:
    """Split `nbytes` of expected bytes over tensors: the most energy, the steepest steps of all curves first.

    No points within the bytes keep more than these together, but for the energy that the bytes left over would buy at
    the rate of the first step that did not fit.

    Args:
        curves: one a tensor.
        nbytes: to be split, 0 or more.

    Returns:
        A point a tensor, in the order of the curves.
    """
    owners, costs = _steepest_first(curves)
    taken = int(np.searchsorted(np.cumsum(costs), nbytes, side="right"))
    positions = np.bincount(owners[:taken], minlength=len(curves))
    return _fill(curves, positions, zip(owners[taken:].tolist(), costs[taken:].tolist(), strict=True), nbytes)


def _fill(
    curves: Sequence[RateDistortionCurve],
    positions: NDArray[np.int64],
    steps: Iterable[tuple[int, float]],
    nbytes: float,
) -> list[OperatingPoint]:
    """Take from the steps beyond the first that is too long those that fit.

    A tensor whose next step does not fit leaves its hull for the best point that does, and stops there: its later
    steps begin where it never was. The others go on.
    """
    rest = nbytes - sum(float(curve.nbytes[position]) for curve, position in zip(curves, positions, strict=True))
    stopped: dict[int, OperatingPoint] = {}
    for owner, cost in steps:
        if len(stopped) == len(curves):
            break
        if owner in stopped:
            continue
        if cost <= rest:
            positions[owner] += 1
            rest -= cost
        else:
            spent = float(curves[owner].nbytes[positions[owner]])
            stopped[owner] = curves[owner].best_within(int(positions[owner]), spent + rest)
            rest -= stopped[owner].nbytes - spent
    return [stopped.get(index) or curve.at(int(positions[index])) for index, curve in enumerate(curves)]


def _steepest_first(curves: Sequence[RateDistortionCurve]) -> tuple[NDArray[np.int64], Floats]:
    """Owner and bytes of every step of every curve, most energy a byte first."""
    owners = np.repeat(np.arange(len(curves)), [len(curve.nbytes) - 1 for curve in curves])
    costs = np.concatenate([np.zeros(0), *(np.diff(curve.nbytes) for curve in curves)])
    gains = np.concatenate([np.zeros(0), *(np.diff(curve.energy) for curve in curves)])
    # Stable, so that the steps of a curve with equal slopes stay in their order.
    order = np.argsort(-gains / costs, kind="stable")
    return owners[order], costs[order]


def _dense_points(tensor: TensorStatistics, widths: Sequence[int]) -> list[OperatingPoint]:
    """The tensor number by number, at each width that it may have."""
    finest = [bits for bits in _FINEST if bits > widths[-1]]
    return [
        OperatingPoint(
            CodingMode("dense", ((bits, 1),)),
            dense_nbytes(tensor, bits),
            tensor.energy * (1 - dense_lost(tensor, bits)),
        )
        for bits in (*widths, *finest)
    ]
