"""Who gets how many bytes: by each matrix's energy (the paper), a byte budget, or all alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedkd_flwr.codec.rate_model import (
    FACTORED_LOST,
    FACTORED_OVERHEAD,
    Floats,
    Known,
    component_nbytes,
    dense_lost,
    dense_nbytes,
)
from fedkd_flwr.errors import CodecError

_FINEST = (16, 32)  # where a budget is larger than all codes


@dataclass(frozen=True)
class Energy:
    """Every matrix keeps more than `share` of its own energy, its squared norm (FedKD, Eq 8)."""

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


@dataclass(frozen=True)
class Uniform:
    """Every number is sent, in the same bits: as it is, or rotated."""

    rotated: bool = False


Allocation = Energy | Budget | Uniform


@dataclass(frozen=True)
class Choice:
    """What a tensor is sent as.

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
        tensor: what is known of it.
        widths: bits that components and numbers may have, ascending.

    Attributes:
        nbytes, kept: float64 [points], both ascending from 0: expected bytes, expected energy.
    """

    def __init__(self, tensor: Known, widths: Sequence[int]) -> None:
        self._widths = tuple(widths)
        energies = tensor.total * np.diff(tensor.shares, prepend=0.0)
        rates = np.diff([0.0, *(component_nbytes(tensor.sides, bits) for bits in widths)])
        worths = np.diff([0.0, *(1 - FACTORED_LOST[bits] for bits in widths)])
        gains = np.outer(energies, worths).ravel()
        costs = np.tile(rates, len(energies))
        order = np.argsort(-gains / costs, kind="stable")
        self._steps = order % len(widths)
        self._chain_nbytes = np.concatenate([[0.0], FACTORED_OVERHEAD + np.cumsum(costs[order])])
        self._chain_kept = np.concatenate([[0.0], np.cumsum(gains[order])])
        first = 1 + int(np.argmax(self._chain_kept[1:] / self._chain_nbytes[1:])) if len(order) else 1
        self._codes = np.r_[0, first : len(order) + 1]
        self.nbytes, self.kept = self._chain_nbytes[self._codes], self._chain_kept[self._codes]
        finest = [bits for bits in _FINEST if bits > widths[-1]]
        self._wholes = [
            Offer(
                Choice("dense", ((bits, 1),)), dense_nbytes(tensor, bits), tensor.total * (1 - dense_lost(tensor, bits))
            )
            for bits in (*widths, *finest)
        ]
        for index, whole in enumerate(self._wholes):
            self._add(-1 - index, whole)

    def at(self, point: int) -> Offer:
        """What the tensor is sent as at a point."""
        return Offer(self._choice(int(self._codes[point])), float(self.nbytes[point]), float(self.kept[point]))

    def off_hull(self, point: int, nbytes: float) -> Offer:
        """What keeps most within `nbytes`, where the step after `point` is too long."""
        code = int(np.searchsorted(self._chain_nbytes, nbytes, side="right")) - 1
        fitting = [offer for offer in self._wholes if offer.nbytes <= nbytes]
        return max(self.at(point), self._factors(code), *fitting, key=lambda offer: offer.kept)

    def _factors(self, code: int) -> Offer:
        return Offer(self._choice(code), float(self._chain_nbytes[code]), float(self._chain_kept[code]))

    def _add(self, code: int, offer: Offer) -> None:
        """Put a point between its tangents to the hull, where it is above."""
        if offer.kept <= np.interp(offer.nbytes, self.nbytes, self.kept):
            return
        left = int(np.searchsorted(self.nbytes, offer.nbytes))
        last = int(np.argmin((offer.kept - self.kept[:left]) / (offer.nbytes - self.nbytes[:left])))
        right = np.flatnonzero(self.kept > offer.kept)
        if len(right):
            right = right[int(np.argmax((self.kept[right] - offer.kept) / (self.nbytes[right] - offer.nbytes))) :]
        self.nbytes, self.kept, self._codes = (
            np.concatenate([column[: last + 1], [value], column[right]])
            for column, value in ((self.nbytes, offer.nbytes), (self.kept, offer.kept), (self._codes, code))
        )

    def _choice(self, code: int) -> Choice:
        if code < 0:
            return self._wholes[-1 - code].choice
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
