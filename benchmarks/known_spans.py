"""What is known of an update before it is decomposed, and what that saves: a mean's span, the basis of the last round.

    python -m benchmarks.record_update update.safetensors --steps 8 --rounds 4 --layers 3 --learning-rate 5e-4
    python -m benchmarks.known_spans update.safetensors

Mean: encoded at the server, without and with what spans it (`UpdateCodec.encode`); the rounds of the file stand for
nodes. Warm start, which the codec leaves out: one pass from the basis of the factors sent last (PowerSGD, Vogels et al.
2019), to the energy that the codec keeps of each matrix; where the pass misses it ("missed") the cold start's time is
added. One thread, seconds of the processor, the least of several repeats.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.codec import ENERGY, Update, fastest
from fedkd_flwr.aggregation import WeightedMean
from fedkd_flwr.codec import Budget, EncodedUpdate, ErrorFeedback, UpdateCodec
from fedkd_flwr.codec.factorize import Spectrum, to_ranks
from fedkd_flwr.codec.krylov import LeadingSpectrum
from fedkd_flwr.device import set_threads

_WIDE = 256  # smaller side: of smaller matrices any way is fast


def sent(update: Mapping[str, Tensor], encoded: EncodedUpdate) -> dict[str, tuple[Tensor, Tensor]]:
    """The matrices of an update that travel as factors, [m, n] with m >= n, and the rows that span them, [r, n]."""
    spans = {name: rows for name, rows in encoded.spans().items() if len(rows) and rows.shape[1] >= _WIDE}
    matrices = {name: update[name] for name in spans}
    return {name: (m if m.shape[0] >= m.shape[1] else m.T, spans[name]) for name, m in matrices.items()}


def cold(matrix: Tensor, rank: int) -> Spectrum:
    """The codec's own way to the leading components."""
    spectrum = LeadingSpectrum(matrix).first(rank)
    to_ranks([(spectrum, rank)])
    return spectrum


def warm(matrix: Tensor, start: Tensor, energy: float) -> int | None:
    """One pass: the rank within the span of A `start` that holds `energy` of A; None where the span does not.

    Rayleigh and Ritz on Q, the orthonormal basis of Y = A start, by B = Q^T A; Cholesky makes Q of Y. The factors are
    made, as they would be sent.

    Args:
        matrix: A, [m, n].
        start: [n, k].
    """
    image = matrix @ start
    triangle = torch.linalg.cholesky((image.T @ image).double()).float()
    rows = torch.linalg.solve_triangular(triangle, image.T @ matrix, upper=False)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    shares = values.double().flip(0).cumsum(0) / matrix.double().square().sum()
    if shares[-1] < energy:
        return None
    rank = int((shares < energy).sum()) + 1
    leading = vectors.flip(1)[:, :rank]
    root = values.flip(0)[:rank].sqrt().sqrt()
    _ = leading.T @ rows / root[:, None]
    _ = image @ torch.linalg.solve_triangular(triangle.T, leading, upper=True) * root
    return rank


def warm_starts(rounds: Sequence[Update], codec: UpdateCodec, feedback: bool, wider: float, repeats: int) -> str:
    """One row: from each round's basis, `wider` times as many columns, to the next round's matrices."""
    residual: Update = {}
    last: dict[str, tuple[Tensor, Tensor]] = {}
    matrices = missed = 0
    numbers, seconds = [0, 0], [0.0, 0.0]
    for update in rounds:
        owed = {name: tensor + residual[name] for name, tensor in update.items()} if residual else update
        encoded, left = ErrorFeedback(codec).encode(update, residual)
        residual = left if feedback else {}
        now = sent(owed, encoded)
        for name in now.keys() & last.keys():
            (matrix, rows), (_, before) = now[name], last[name]
            matrix, rank = matrix.contiguous(), len(rows)
            taken, spectrum = fastest(partial(cold, matrix, rank), repeats)
            columns = min(matrix.shape[1], int(wider * len(before)))
            generator = torch.Generator().manual_seed(0)
            more = torch.randn(matrix.shape[1], max(0, columns - len(before)), generator=generator)
            start = torch.linalg.qr(torch.cat([before.T, more], dim=1)).Q
            passed, found = fastest(partial(warm, matrix, start, float(spectrum.shares[rank - 1])), repeats)
            matrices, missed = matrices + 1, missed + (found is None)
            numbers = [numbers[0] + rank * sum(matrix.shape), numbers[1] + (found or rank) * sum(matrix.shape)]
            seconds = [seconds[0] + taken, seconds[1] + passed + (taken if found is None else 0)]
        last = now
    return (
        f"{matrices:9}{missed:8}{100 * (numbers[1] / numbers[0] - 1):14.1f} %{seconds[0]:9.3f}{seconds[1]:9.3f}"
        f"{seconds[0] / seconds[1]:7.1f}"
    )


def means(rounds: Sequence[Update], codec: UpdateCodec, repeats: int) -> str:
    """One row: the mean of all rounds, as they arrive, encoded again."""
    mean = WeightedMean()
    for update in rounds:
        encoded = codec.encode(update)
        mean.add("node", encoded.decode(), 1.0, encoded.spans())
    averaged, spans = mean.compute(), mean.spans()
    shares = sorted(len(rows) / rows.shape[1] for rows in spans.values() if len(rows) and rows.shape[1] >= _WIDE)
    without, _ = fastest(partial(codec.encode, averaged), repeats)
    within, _ = fastest(partial(codec.encode, averaged, spans=spans), repeats)
    middle = shares[len(shares) // 2] if shares else math.nan
    return f"{len(shares):9}{middle:14.2f}{without:12.3f}{within:9.3f}{without / within:7.1f}"


def codecs(dense: int) -> Iterator[tuple[str, UpdateCodec]]:
    """What is compared."""
    yield f"energy {ENERGY}", UpdateCodec(ENERGY)
    for ratio in (32, 128, 192):
        yield f"budget {ratio}x", UpdateCodec(allocation=Budget(dense // ratio))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recorded", type=Path, help="what benchmarks.record_update wrote, two rounds or more")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    set_threads(1)
    tensors = load_file(arguments.recorded)
    count = 1 + max(int(name.partition("/")[0]) for name in tensors)
    rounds = [{n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(f"{i}/")} for i in range(count)]
    dense = 4 * sum(tensor.numel() for tensor in rounds[0].values())

    print(f"\n{'mean':42}{'matrices':>9}{'ranks / side':>14}{'no spans s':>12}{'spans s':>9}{'times':>7}")
    for nodes in sorted({min(2, count), count}):
        for label, codec in codecs(dense):
            print(f"{f'{label}, {nodes} updates':42}{means(rounds[:nodes], codec, arguments.repeats)}")

    print(f"\n{'warm start':42}{'matrices':>9}{'missed':>8}{'more numbers':>16}{'cold s':>9}{'warm s':>9}{'times':>7}")
    for label, codec in codecs(dense):
        for feedback in (False, True):
            for wider in (1.0, 1.5, 2.0):
                head = f"{label}{', feedback' if feedback else ''}, basis x {wider}"
                print(f"{head:42}{warm_starts(rounds, codec, feedback, wider, arguments.repeats)}")


if __name__ == "__main__":
    main()
