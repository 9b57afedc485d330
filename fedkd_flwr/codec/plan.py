"""One update on its way to bytes: what each tensor may become, and the choice that meets a budget or an energy."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.codec.allocate import Choice, Menu, Offer, reach, spend
from fedkd_flwr.codec.costs import Known
from fedkd_flwr.codec.encoded import EncodedUpdate
from fedkd_flwr.codec.factored import Factored
from fedkd_flwr.codec.factorize import Factors, spectra
from fedkd_flwr.codec.krylov import LeadingSpectrum
from fedkd_flwr.codec.quantize import WIDTHS
from fedkd_flwr.codec.records import Dense, Empty, Record, matrix_shape, scaled_rows, squared_norm
from fedkd_flwr.codec.rotated import ROTATED_WIDTHS, Rotated
from fedkd_flwr.codec.rule import VECTOR_BITS, Rule
from fedkd_flwr.codec.wire import packed_nbytes
from fedkd_flwr.errors import CodecError

_TRIES = 8
_LARGE = 256  # smaller side
_FIRST_RANK = 32
_CLOSE = 0.003  # of a budget: so much may stay unspent


class Plan:
    """The tensors of one update, decomposed once, encoded as often as it takes.

    Args:
        tensors: float32, finite.
        generator: see `UpdateCodec.encode`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], generator: torch.Generator | None) -> None:
        self._tensors = tensors
        self._energies = {name: squared_norm(tensor) for name, tensor in tensors.items()}
        self._generator = generator
        matrices = {name: t.reshape(matrix_shape(tuple(t.shape))) for name, t in tensors.items() if may_shrink(t)}
        self._leading = {
            name: LeadingSpectrum(matrix) for name, matrix in matrices.items() if self._is_large(name, matrix)
        }
        small = {name: matrix for name, matrix in matrices.items() if name not in self._leading}
        self._spectra = dict(zip(small, spectra(list(small.values())), strict=True))
        self._factors: dict[str, Factors] = {}
        self._crests: dict[str, tuple[int, float]] = {}
        self._made: dict[tuple[str, Choice], Record] = {}

    def per_matrix(self, energy: float, bits: int) -> EncodedUpdate:
        """Each matrix at the smallest rank that keeps more than `energy` of it."""
        for name, leading in self._leading.items():
            self._spectra[name] = leading.until(energy)
        self._factors = {name: spectrum.to_energy(energy) for name, spectrum in self._spectra.items()}
        ranks = {name: factors.rank for name, factors in self._factors.items()}
        return self._measured(self._records(self._ruled(ranks, bits)))

    def within(self, nbytes: int, widths: Sequence[int]) -> EncodedUpdate:
        """The most energy that at most `nbytes` carry.

        What Huffman codes take is known only once they are made: choices are made for a budget of expected bytes,
        which is corrected until the real ones fit and little is left.

        Raises:
            CodecError: `nbytes` is too small for the names and shapes.
        """
        best = self._records(dict.fromkeys(self._tensors, Choice("empty")))
        header = packed_nbytes(best)
        if header > nbytes:
            raise CodecError(
                f"a budget of {nbytes} bytes is too small: the names and shapes of the update take {header}"
            )
        menus = self._menus(widths)
        most, fitting, failing = 0.0, 0.0, np.inf
        expected = float(nbytes - header)
        for _ in range(_TRIES):
            offers = self._settled(menus, widths, partial(spend, nbytes=expected))
            records, kept = self._offered(offers), sum(offer.kept for offer in offers)
            taken = packed_nbytes(records)
            if taken > nbytes:
                failing = expected
            else:
                fitting = expected
                if kept > most:
                    best, most = records, kept
                complete = all(offer.kept >= menu.kept[-1] for offer, menu in zip(offers, menus, strict=True))
                if complete or taken >= (1 - _CLOSE) * nbytes:
                    break
            expected *= (1 - _CLOSE / 2) * (nbytes - header) / max(1, taken - header)
            if not fitting < expected < failing:
                expected = (fitting + min(failing, 2 * nbytes)) / 2
        planned = self._measured(best)
        rivals = (self._rival(nbytes, bits, planned) for bits in (widths if len(widths) == 1 else WIDTHS))
        return self._no_more_than_dense(max(planned, *rivals, key=self._kept))

    def keeping(self, energy: float, widths: Sequence[int]) -> EncodedUpdate:
        """More than `energy` of the whole update in as few bytes as that takes.

        What rounding loses is known only once it is done: what may be dropped is corrected until enough is kept.
        """
        menus = self._menus(widths)
        total = sum(self._energies.values())
        dropped = 1 - energy
        for _ in range(_TRIES):
            offers = self._settled(menus, widths, partial(reach, energy=total * (1 - dropped)))
            encoded = self._measured(self._offered(offers))
            lost = total - self._kept(encoded)
            if lost < (1 - energy) * total:
                return self._no_more_than_dense(encoded)
            dropped *= (1 - _CLOSE) * (1 - energy) * total / lost if lost else 0.0
        return EncodedUpdate.dense(self._tensors)

    def _rival(self, nbytes: int, bits: int, planned: EncodedUpdate) -> EncodedUpdate:
        """The paper's rule within `nbytes`, or `planned` where the rule cannot keep more.

        A plan takes the best steps a byte. Where a whole matrix no longer fits, the rule may have a better use for the
        bytes that are left.
        """
        rule = Rule(self._all_known(), bits)
        if rule.keeps(nbytes) <= self._kept(planned):
            return planned
        finest = float(rule.thresholds[rule.states(nbytes).stop - 1])
        for name, leading in self._leading.items():
            if finest >= self._known(name).shares[-1]:
                self._spectra[name] = leading.until(finest)
                self._factors.pop(name, None)
        shares = {name: self._known(name).shares for name in self._spectra}
        rule = Rule(self._all_known(), bits)

        def at(state: int) -> dict[str, Record]:
            ranks = {n: int(np.searchsorted(s, rule.thresholds[state], side="right")) + 1 for n, s in shares.items()}
            return self._records(self._ruled(ranks, bits))

        states = rule.states(nbytes)
        over = states.start + bisect_right(states, nbytes, key=lambda state: packed_nbytes(at(state)))
        for state in range(min(over + 1, len(rule.thresholds) - 1), -1, -1):
            if packed_nbytes(at(state)) <= nbytes:
                return self._measured(at(state))
        return planned

    def _ruled(self, ranks: Mapping[str, int], bits: int) -> dict[str, Choice]:
        """Factors where they are smaller than the numbers, zeros for nothing; vectors in no less than VECTOR_BITS."""
        choices = {}
        for name, tensor in self._tensors.items():
            sides = sum(matrix_shape(tuple(tensor.shape)))
            if not self._energies[name]:
                choices[name] = Choice("empty")
            elif name in ranks and ranks[name] * sides < tensor.numel():
                choices[name] = Choice("factored", ((bits, ranks[name]),))
            else:
                choices[name] = Choice("dense", ((bits if name in ranks else max(bits, VECTOR_BITS), 1),))
        return choices

    def _all_known(self) -> list[Known]:
        return [self._known(name) for name in self._tensors]

    def _known(self, name: str) -> Known:
        tensor, spectrum = self._tensors[name], self._spectra.get(name)
        shares = np.zeros(0) if spectrum is None else spectrum.shares.cpu().numpy()
        sides = sum(matrix_shape(tuple(tensor.shape)))
        return Known(tensor.numel(), sides, self._energies[name], shares, *self._peaks(name))

    def _peaks(self, name: str) -> tuple[int, float]:
        """Scales of the tensor number by number, and its crest; see `Known`."""
        if name not in self._crests:
            rows = self._tensors[name].reshape(scaled_rows(tuple(self._tensors[name].shape)))
            peaks = rows.abs().amax(dim=1) if rows.numel() else rows.new_zeros(len(rows))
            square = float(torch.linalg.vector_norm(peaks, dtype=torch.float64)) ** 2 * rows.shape[1]
            self._crests[name] = len(rows), square / self._energies[name] if self._energies[name] else 0.0
        return self._crests[name]

    def _kept(self, encoded: EncodedUpdate) -> float:
        return sum(row.energy * self._energies[row.name] for row in encoded.rows())

    def _is_large(self, name: str, matrix: Tensor) -> bool:
        """Whether leading singular values come faster than all; on a GPU all matrices are decomposed in one batch."""
        return min(matrix.shape) >= _LARGE and not matrix.is_cuda and self._energies[name] > 0

    def _offered(self, offers: Sequence[Offer]) -> dict[str, Record]:
        return self._records({name: offer.choice for name, offer in zip(self._tensors, offers, strict=True)})

    def _menus(self, widths: Sequence[int]) -> list[Menu]:
        for name, leading in self._leading.items():
            self._spectra[name] = leading.first(_FIRST_RANK)
        return [self._menu(name, widths) for name in self._tensors]

    def _menu(self, name: str, widths: Sequence[int]) -> Menu:
        rotated = [bits for bits in reversed(ROTATED_WIDTHS) if len(widths) > 1 or bits in widths]
        return Menu(self._known(name), widths, rotated)

    def _settled(
        self, menus: list[Menu], widths: Sequence[int], solve: Callable[[Sequence[Menu]], list[Offer]]
    ) -> list[Offer]:
        """Solve, with more singular values for every matrix that takes all that are known, until none does."""
        while True:
            offers, short = solve(menus), False
            for index, (name, offer) in enumerate(zip(self._tensors, offers, strict=True)):
                known = len(self._spectra[name].values) if name in self._leading else 0
                takes_all = (
                    offer.choice.kind in ("dense", "rotated") or sum(count for _, count in offer.choice.widths) == known
                )
                if 0 < known < min(matrix_shape(tuple(self._tensors[name].shape))) and takes_all:
                    short = True
                    self._spectra[name] = self._leading[name].first(2 * known)
                    self._factors.pop(name, None)
                    menus[index] = self._menu(name, widths)
            if not short:
                return offers

    def _measured(self, records: Mapping[str, Record]) -> EncodedUpdate:
        """With the energy that each really keeps."""
        return EncodedUpdate.of(
            {
                name: record.measured(self._tensors[name], self._energies[name]) if self._energies[name] else record
                for name, record in records.items()
            }
        )

    def _records(self, choices: Mapping[str, Choice]) -> dict[str, Record]:
        return {name: self._record(name, choice) for name, choice in choices.items()}

    def _record(self, name: str, choice: Choice) -> Record:
        if (name, choice) not in self._made:
            self._made[name, choice] = self._make(name, choice)
        return self._made[name, choice]

    def _make(self, name: str, choice: Choice) -> Record:
        tensor = self._tensors[name]
        match choice.kind:
            case "empty":
                return Empty(tuple(tensor.shape), 0.0 if self._energies[name] else 1.0)
            case "dense":
                return Dense.of(tensor, choice.widths[0][0], self._generator)
            case "rotated":
                return Rotated.of(tensor, choice.widths[0][0], self._generator)
            case _:
                rank = sum(count for _, count in choice.widths)
                factors = self._factors.get(name)
                if factors is None or factors.rank < rank:
                    factors = self._factors[name] = self._spectra[name].to_rank(rank)
                return Factored.of(tuple(tensor.shape), factors.leading(rank), choice.widths, self._generator)

    def _no_more_than_dense(self, encoded: EncodedUpdate) -> EncodedUpdate:
        if encoded.nbytes <= sum(4 * tensor.numel() for tensor in self._tensors.values()):
            return encoded
        return min(encoded, EncodedUpdate.dense(self._tensors), key=lambda candidate: candidate.nbytes)


def uniform(
    tensors: Mapping[str, Tensor], bits: int, rotated: bool, generator: torch.Generator | None
) -> EncodedUpdate:
    """Every number of float32 tensors in `bits`, vectors in no less than VECTOR_BITS."""
    records: dict[str, Record] = {}
    for name, tensor in tensors.items():
        if not tensor.any():
            records[name] = Empty(tuple(tensor.shape), 1.0)
        elif rotated and may_shrink(tensor):
            records[name] = Rotated.of(tensor, bits, generator)
        else:
            width = bits if may_shrink(tensor) else max(bits, VECTOR_BITS)
            total = squared_norm(tensor) if width < 32 else 1.0
            records[name] = Dense.of(tensor, width, generator).measured(tensor, total)
    return EncodedUpdate.of(records)


def may_shrink(tensor: Tensor) -> bool:
    """Whether factors of rank 1 are smaller."""
    return tensor.numel() > sum(matrix_shape(tuple(tensor.shape)))
