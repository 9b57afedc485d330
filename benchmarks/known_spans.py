"""What is known of an update before it is decomposed, and what that saves: a mean's span, the basis of the last round.

    python -m benchmarks.record_update update.safetensors --steps 8 --rounds 8 --layers 3 --learning-rate 5e-4
    python -m benchmarks.known_spans update.safetensors

Mean: encoded at the server, without and with what spans it (`UpdateCodec.encode`); the rounds of the file stand for
nodes. Warm start: all rounds but the first, each encoded from where the encoding of the last one led; what is lost is a
share of the energy of what was to be sent, with feedback what earlier rounds lost as well. One thread, seconds of the
processor, the least of several repeats.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from benchmarks.codec import ENERGY, Update, fastest, recorded_rounds
from fedkd_flwr.aggregation import WeightedMean
from fedkd_flwr.codec import Budget, UpdateCodec
from fedkd_flwr.device import set_threads

_WIDE = 256  # smaller side: of smaller matrices any way is fast


def warm_starts(rounds: Sequence[Update], codec: UpdateCodec, feedback: bool, repeats: int) -> str:
    """One row: all rounds but the first, each encoded afresh and from where the last one led."""
    seconds, nbytes, lost, due = ([0.0, 0.0] for _ in range(4))
    for warm in (False, True):
        residual: Update = {}
        bases: Mapping[str, Tensor] = {}
        for round, update in enumerate(rounds):
            owed = {name: tensor + residual[name] for name, tensor in update.items()} if residual else update
            taken, encoded = fastest(partial(codec.encode, owed, bases=bases if warm else {}), repeats)
            bases, decoded = encoded.bases, encoded.decode()
            left = {name: tensor - decoded[name] for name, tensor in owed.items()}
            residual = left if feedback else {}
            if round:
                seconds[warm] += taken
                nbytes[warm] += encoded.nbytes
                lost[warm] += squared(left)
                due[warm] += squared(owed)
    return (
        f"{seconds[0]:9.3f}{seconds[1]:9.3f}{seconds[0] / seconds[1]:7.1f}{100 * (nbytes[1] / nbytes[0] - 1):12.2f} %"
        f"{lost[0] / due[0]:12.4f}{lost[1] / due[1]:9.4f}"
    )


def squared(update: Update) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in update.values())


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
    rounds = recorded_rounds(arguments.recorded)
    dense = 4 * sum(tensor.numel() for tensor in rounds[0].values())

    print(f"\n{'mean':42}{'matrices':>9}{'ranks / side':>14}{'no spans s':>12}{'spans s':>9}{'times':>7}")
    for nodes in sorted({min(2, len(rounds)), min(4, len(rounds))}):
        for label, codec in codecs(dense):
            print(f"{f'{label}, {nodes} updates':42}{means(rounds[:nodes], codec, arguments.repeats)}")

    print(f"\n{'warm start':42}{'afresh s':>9}{'warm s':>9}{'times':>7}{'more bytes':>14}{'lost':>12}{'warm':>9}")
    for label, codec in codecs(dense):
        for feedback in (False, True):
            head = f"{label}{', feedback' if feedback else ''}"
            print(f"{head:42}{warm_starts(rounds, codec, feedback, arguments.repeats)}")


if __name__ == "__main__":
    main()
