"""One update on its way to bytes: what each tensor may become, and the choice that meets a budget or an energy."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.codec.allocation import Choice, Menu, Offer, spend
from fedkd_flwr.codec.factored import Factored
from fedkd_flwr.codec.factorize import resolved, spectra, to_ranks
from fedkd_flwr.codec.krylov import LeadingSpectrum
from fedkd_flwr.codec.rate_model import Known, component_nbytes
from fedkd_flwr.codec.records import Dense, Empty, Record, matrix_shape, scaled_rows, squared_norm
from fedkd_flwr.codec.rotated import Rotated
from fedkd_flwr.codec.update import EncodedUpdate
from fedkd_flwr.codec.wire_format import packed_nbytes
from fedkd_flwr.errors import CodecError

_TRIES = 8
_LARGE = 256  # smaller side
_FIRST_RANK = 32
_AHEAD = 1.2  # singular values asked for at first, over those that the bytes carry where all matrices have as many
_GROWTH = 1.5
_CLOSE = 0.003  # of a budget: so much may stay unspent
_VECTOR_BITS = 8  # at least, of what is no matrix


class Plan:
    """The tensors of one update, decomposed once, encoded as often as it takes.

    Args:
        update: what is to be encoded, wherever it is.
        tensors: the same in float32 on the CPU, finite.
    """

    def __init__(self, update: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._energies = {name: squared_norm(tensor) for name, tensor in tensors.items()}
        matrices = {
            name: (update[name].detach().float() if update[name].is_cuda else tensor).reshape(
                matrix_shape(tensor.shape)
            )
            for name, tensor in tensors.items()
            if may_shrink(tensor)
        }
        self._large = {name: matrix for name, matrix in matrices.items() if self._is_large(name, matrix)}
        self._leading: dict[str, LeadingSpectrum] = {}
        small = {name: matrix for name, matrix in matrices.items() if name not in self._large}
        self._spectra = dict(zip(small, spectra(list(small.values())), strict=True))
        self._crests: dict[str, tuple[int, float]] = {}
        self._made: dict[tuple[str, Choice], Record] = {}

    def per_matrix(self, energy: float, bits: int) -> EncodedUpdate:
        """Each matrix at the smallest rank that keeps more than `energy` of it."""
        for name in self._large:
            self._spectra[name] = self._lanczos(name).until(energy)
        self._spectra = dict(zip(self._spectra, resolved(list(self._spectra.values()), energy), strict=True))
        ranks = {name: spectrum.rank(energy) for name, spectrum in self._spectra.items()}
        return self._measured(self._records(self._choices(ranks, bits)))

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
        sides = sum(sum(matrix_shape(tuple(self._tensors[name].shape))) for name in self._large)
        rank = int(_AHEAD * nbytes / component_nbytes(sides, widths[0])) if sides else 0
        menus = self._menus(widths, max(_FIRST_RANK, rank))
        most, fitting, failing = 0.0, 0.0, np.inf
        expected = float(nbytes - header)
        for _ in range(_TRIES):
            offers = self._settled(menus, widths, expected)
            records, kept = self._offered(offers), sum(offer.kept for offer in offers)
            taken = packed_nbytes(records)
            if taken > nbytes:
                failing = expected = sum(offer.nbytes for offer in offers)  # more than that buys the same again
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
        return self._no_more_than_dense(self._measured(best))

    def _choices(self, ranks: Mapping[str, int], bits: int) -> dict[str, Choice]:
        """Factors where they are smaller than the numbers, zeros for nothing; vectors in no less than _VECTOR_BITS."""
        choices = {}
        for name, tensor in self._tensors.items():
            sides = sum(matrix_shape(tuple(tensor.shape)))
            if not self._energies[name]:
                choices[name] = Choice("empty")
            elif name in ranks and ranks[name] * sides < tensor.numel():
                choices[name] = Choice("factored", ((bits, ranks[name]),))
            else:
                choices[name] = Choice("dense", ((bits if name in ranks else max(bits, _VECTOR_BITS), 1),))
        return choices

    def _known(self, name: str) -> Known:
        tensor, spectrum = self._tensors[name], self._spectra.get(name)
        shares = np.zeros(0) if spectrum is None else spectrum.shares
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

    def _is_large(self, name: str, matrix: Tensor) -> bool:
        """Whether leading singular values come faster than all; on a GPU all matrices are decomposed in one batch."""
        return min(matrix.shape) >= _LARGE and not matrix.is_cuda and self._energies[name] > 0

    def _offered(self, offers: Sequence[Offer]) -> dict[str, Record]:
        return self._records({name: offer.choice for name, offer in zip(self._tensors, offers, strict=True)})

    def _menus(self, widths: Sequence[int], rank: int) -> list[Menu]:
        """With `rank` singular values of each large matrix."""
        for name in self._large:
            self._spectra[name] = self._lanczos(name).first(rank)
        return [self._menu(name, widths) for name in self._tensors]

    def _menu(self, name: str, widths: Sequence[int]) -> Menu:
        return Menu(self._known(name), widths)

    def _settled(self, menus: list[Menu], widths: Sequence[int], nbytes: float) -> list[Offer]:
        """Spend, with more singular values for every matrix that takes all that are known, until none does."""
        while True:
            offers, short = spend(menus, nbytes), False
            for index, (name, offer) in enumerate(zip(self._tensors, offers, strict=True)):
                known = len(self._spectra[name].values) if name in self._large else 0
                takes_all = offer.choice.kind == "dense" or offer.choice.rank == known
                if 0 < known < min(matrix_shape(tuple(self._tensors[name].shape))) and takes_all:
                    short = True
                    self._spectra[name] = self._lanczos(name).first(max(_FIRST_RANK, int(_GROWTH * known)))
                    menus[index] = self._menu(name, widths)
            if not short:
                return offers

    def _lanczos(self, name: str) -> LeadingSpectrum:
        if name not in self._leading:
            self._leading[name] = LeadingSpectrum(self._large[name])
        return self._leading[name]

    def _measured(self, records: Mapping[str, Record]) -> EncodedUpdate:
        """With the energy that each really keeps."""
        return EncodedUpdate.of(
            {
                name: record.measured(self._tensors[name], self._energies[name]) if self._energies[name] else record
                for name, record in records.items()
            }
        )

    def _records(self, choices: Mapping[str, Choice]) -> dict[str, Record]:
        missing = [(name, choice) for name, choice in choices.items() if (name, choice) not in self._made]
        self._made |= {(name, choice): self._numbers(name, choice) for name, choice in missing if not choice.rank}
        factored = [(name, choice) for name, choice in missing if choice.rank]
        factors = to_ranks([(self._spectra[name], choice.rank) for name, choice in factored])
        for (name, choice), found in zip(factored, factors, strict=True):
            shape = tuple(self._tensors[name].shape)
            self._made[name, choice] = Factored.of(shape, found, choice.widths)
        return {name: self._made[name, choice] for name, choice in choices.items()}

    def _numbers(self, name: str, choice: Choice) -> Record:
        """All of them, or none."""
        tensor = self._tensors[name]
        match choice.kind:
            case "empty":
                return Empty(tuple(tensor.shape), 0.0 if self._energies[name] else 1.0)
            case _:
                return Dense.of(tensor, choice.widths[0][0])

    def _no_more_than_dense(self, encoded: EncodedUpdate) -> EncodedUpdate:
        if encoded.nbytes <= sum(4 * tensor.numel() for tensor in self._tensors.values()):
            return encoded
        return min(encoded, EncodedUpdate.dense(self._tensors), key=lambda candidate: candidate.nbytes)


def uniform(tensors: Mapping[str, Tensor], bits: int, rotated: bool) -> EncodedUpdate:
    """Every number of float32 tensors in `bits`, vectors in no less than _VECTOR_BITS."""
    records: dict[str, Record] = {}
    for name, tensor in tensors.items():
        if not tensor.any():
            records[name] = Empty(tuple(tensor.shape), 1.0)
        elif rotated and may_shrink(tensor):
            records[name] = Rotated.of(tensor, bits)
        else:
            width = bits if may_shrink(tensor) else max(bits, _VECTOR_BITS)
            total = squared_norm(tensor) if width < 32 else 1.0
            records[name] = Dense.of(tensor, width).measured(tensor, total)
    return EncodedUpdate.of(records)


def may_shrink(tensor: Tensor) -> bool:
    """Whether factors of rank 1 are smaller."""
    return tensor.numel() > sum(matrix_shape(tuple(tensor.shape)))
