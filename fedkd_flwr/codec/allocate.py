"""Who gets how many bytes: the energy of each matrix (the paper), the energy of the whole update, or a byte budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedkd_flwr.errors import CodecError

Floats = NDArray[np.float64]

# Bits that a number takes on the wire, and squared error relative to the square, by width; measured on real updates
# (benchmarks/codec.py). Only the shares depend on them: what is sent is counted and corrected in the end.
_FACTORED_RATE = {32: 32.0, 16: 16.0, 8: 7.3, 6: 5.25, 5: 4.2, 4: 3.1, 3: 2.0}
FACTORED_LOST = {32: 0.0, 16: 1e-7, 8: 7e-5, 6: 1.2e-3, 5: 5e-3, 4: 2.3e-2, 3: 0.13}  # of both sides together
_DENSE_RATE = {32: 32.0, 16: 16.0, 8: 7.9, 6: 5.85, 5: 4.8, 4: 3.75, 3: 2.7}
DENSE_LOST = {32: 0.0, 16: 1e-7, 8: 2.5e-5, 6: 4e-4, 5: 1.6e-3, 4: 7.5e-3, 3: 4e-2}

_FACTORED_OVERHEAD = 40  # bytes: a header, the code table of the Huffman coder
_DENSE_OVERHEAD = 6
_FINEST = (16, 32)  # where a budget is larger than all codes


def component_nbytes(sides: int, bits: int) -> float:
    """Expected bytes of a component of a matrix whose sides sum to `sides`: its numbers and its scale."""
    return sides * _FACTORED_RATE[bits] / 8 + (2 if bits < 32 else 0)


def dense_nbytes(numel: int, bits: int) -> float:
    """Expected bytes of a tensor sent number by number."""
    return numel * _DENSE_RATE[bits] / 8 + _DENSE_OVERHEAD


@dataclass(frozen=True)
class Energy:
    """Every matrix keeps more than `share` of its own energy, its squared norm (FedKD, Eq 8)."""

    share: float

    def __post_init__(self) -> None:
        check_share(self.share)


@dataclass(frozen=True)
class TotalEnergy:
    """The whole update keeps more than `share` of its energy, after quantisation, in as few bytes as that takes."""

    share: float

    def __post_init__(self) -> None:
        check_share(self.share)


@dataclass(frozen=True)
class Budget:
    """The whole encoded update, header and checksum included, takes at most `nbytes` and keeps what these can keep."""

    nbytes: int

    def __post_init__(self) -> None:
        if self.nbytes < 1:
            raise CodecError(f"a budget must be positive, got {self.nbytes} bytes")


Allocation = Energy | TotalEnergy | Budget


@dataclass(frozen=True)
class Choice:
    """What a tensor is sent as.

    Attributes:
        kind: "empty", "dense" or "factored".
        widths: (bits, components) of a factored tensor, widest first; ((bits, 1),) of a dense one.
    """

    kind: str
    widths: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Offer:
    """A choice with its expected bytes and energy."""

    choice: Choice
    nbytes: float
    kept: float


class Menu:
    """What one tensor may be sent as, on the upper concave hull of energy over bytes; the first point is nothing.

    A component of energy e at one width is worth e (1 - lost) and may be widened step by step. Each step is worth
    less a byte than the one before, so steps in the order of their worth give every component the width
    that pays: large ones are sent precisely, small ones coarsely (reverse water-filling).

    Args:
        numel: numbers of the tensor.
        sides: out + rest of the matrix that it is flattened to.
        total: its squared norm.
        energies: float64 [k], squared singular values, largest first, all or the leading ones; empty: no factors.
        widths: bits that components and numbers may have, ascending.

    Attributes:
        nbytes, kept: float64 [points], both ascending from 0: expected bytes, expected energy.
    """

    def __init__(self, numel: int, sides: int, total: float, energies: Floats, widths: Sequence[int]) -> None:
        self._widths = tuple(widths)
        rates = np.diff([0.0, *(component_nbytes(sides, bits) for bits in widths)])
        worths = np.diff([0.0, *(1 - FACTORED_LOST[bits] for bits in widths)])
        gains = np.outer(energies, worths).ravel()
        costs = np.tile(rates, len(energies))
        order = np.argsort(-gains / costs, kind="stable")
        self._steps = order % len(widths)
        self._chain_nbytes = np.concatenate([[0.0], _FACTORED_OVERHEAD + np.cumsum(costs[order])])
        self._chain_kept = np.concatenate([[0.0], np.cumsum(gains[order])])
        first = 1 + int(np.argmax(self._chain_kept[1:] / self._chain_nbytes[1:])) if len(order) else 1
        self._codes = np.r_[0, first : len(order) + 1]
        self.nbytes, self.kept = self._chain_nbytes[self._codes], self._chain_kept[self._codes]
        for bits in (*widths, *(bits for bits in _FINEST if bits > widths[-1])):
            self._add(-bits, dense_nbytes(numel, bits), total * (1 - DENSE_LOST[bits]))

    def at(self, point: int) -> Offer:
        """What the tensor is sent as at a point."""
        return Offer(self._choice(int(self._codes[point])), float(self.nbytes[point]), float(self.kept[point]))

    def off_hull(self, point: int, nbytes: float) -> Offer:
        """The most factors within `nbytes`, where the step after `point` is too long; or what `point` is."""
        code = int(np.searchsorted(self._chain_nbytes, nbytes, side="right")) - 1
        return self._factors(code) if self._chain_kept[code] > self.kept[point] else self.at(point)

    def reaching(self, point: int, kept: float) -> Offer:
        """The cheapest that keeps `kept`: factors, or the step to `point`."""
        code = int(np.searchsorted(self._chain_kept, kept))
        fits = code < len(self._chain_kept) and self._chain_nbytes[code] < self.nbytes[point]
        return self._factors(code) if fits else self.at(point)

    def _factors(self, code: int) -> Offer:
        return Offer(self._choice(code), float(self._chain_nbytes[code]), float(self._chain_kept[code]))

    def _add(self, code: int, nbytes: float, kept: float) -> None:
        left = self.nbytes < nbytes
        slopes = (kept - self.kept[left]) / (nbytes - self.nbytes[left])
        last = int(np.argmin(slopes))
        if slopes[last] > 0:
            self.nbytes = np.append(self.nbytes[: last + 1], nbytes)
            self.kept = np.append(self.kept[: last + 1], kept)
            self._codes = np.append(self._codes[: last + 1], code)

    def _choice(self, code: int) -> Choice:
        if code < 0:
            return Choice("dense", ((-code, 1),))
        if code == 0:
            return Choice("empty")
        at_least = [*np.bincount(self._steps[:code], minlength=len(self._widths)).tolist(), 0]
        counts = [(bits, at_least[i] - at_least[i + 1]) for i, bits in enumerate(self._widths)]
        return Choice("factored", tuple((bits, count) for bits, count in reversed(counts) if count))


def spend(menus: Sequence[Menu], nbytes: float) -> list[Offer]:
    """The most energy that `nbytes` buy: the best steps a byte first, over all tensors.

    A tensor whose next step no longer fits goes as far as its factors can, the others go on. No choice of points
    within the bytes keeps more than this one, but for the energy that the bytes left over would buy at the
    rate of the first step that did not fit.
    """
    owners, costs, _ = _steps(menus)
    taken = int(np.searchsorted(np.cumsum(costs), nbytes, side="right"))
    points = np.bincount(owners[:taken], minlength=len(menus))
    offers = [menu.at(int(point)) for menu, point in zip(menus, points, strict=True)]
    rest = nbytes - sum(offer.nbytes for offer in offers)
    going = set(range(len(menus)))
    for owner, cost in zip(owners[taken:].tolist(), costs[taken:].tolist(), strict=True):
        if owner in going:
            rest += offers[owner].nbytes
            if cost > rest - offers[owner].nbytes:
                going.remove(owner)
                offers[owner] = menus[owner].off_hull(int(points[owner]), rest)
            else:
                points[owner] += 1
                offers[owner] = menus[owner].at(int(points[owner]))
            rest -= offers[owner].nbytes
        if not going:
            break
    return offers


def reach(menus: Sequence[Menu], energy: float) -> list[Offer]:
    """At least `energy`, or all there is, for the fewest bytes: the best steps a byte first, over all tensors."""
    owners, _, gains = _steps(menus)
    kept = np.cumsum(gains)
    taken = int(np.searchsorted(kept, energy))
    points = np.bincount(owners[:taken], minlength=len(menus))
    offers = [menu.at(int(point)) for menu, point in zip(menus, points, strict=True)]
    if taken < len(owners):
        last = int(owners[taken])
        missing = energy - sum(offer.kept for offer in offers)
        offers[last] = menus[last].reaching(int(points[last]) + 1, offers[last].kept + missing)
    return offers


def _steps(menus: Sequence[Menu]) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Owner, bytes and energy of every step of every menu, best energy a byte first."""
    owners = np.repeat(np.arange(len(menus)), [len(menu.nbytes) - 1 for menu in menus])
    costs = np.concatenate([np.zeros(0), *(np.diff(menu.nbytes) for menu in menus)])
    gains = np.concatenate([np.zeros(0), *(np.diff(menu.kept) for menu in menus)])
    order = np.argsort(-gains / costs, kind="stable")
    return owners[order], costs[order], gains[order]


def check_share(share: float) -> None:
    """Raise CodecError unless `share`, of an energy to keep, is in (0, 1]."""
    if not 0 < share <= 1:
        raise CodecError(f"the energy to keep must be in (0, 1], got {share}")
