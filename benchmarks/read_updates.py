"""What an attacker reads off one update of a silo, by run config: the table of docs/results/privacy.md.

    PYTHONPATH=tests python benchmarks/read_updates.py

Two silos of 350 tweets each train MiniLM-L6's student for one round. `tests/support/reading.py` is the attack.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import ROOT
from support.federation import silo
from support.reading import CORNER, ISSUE, Vocabulary, attack, read, tokens_of, write_silo

from fedkd_flwr.cli.run_arguments import gather
from fedkd_flwr.config.schema import RunConfig

PAGE = ROOT / "docs" / "results" / "privacy.md"
RUNS: dict[str, Mapping[str, Any]] = {
    "4 texts, dense, `train.max-grad-norm` 1e-9, `train.learning-rate` 1e4": ISSUE,
    "64 texts in one step, 8x, 64 tokens": CORNER
    | {"train.batch-size": 64, "codec.budget": "8x", "model.max-length": 64},
    "64 texts in one step, 384x, 32 tokens": CORNER | {"train.batch-size": 64, "codec.budget": "384x"},
    "256 texts in one step, 128x, 6 tokens": CORNER | {"model.max-length": 6},
    "256 texts in one step, 128x, 32 tokens: the most that the default policy allows": CORNER,
    "the same in 8 steps": CORNER | {"train.batch-size": 32, "train.local-steps": 8},
    "the same with a class that counts 10 times": CORNER | {"train.class-weights": "10,1,1"},
    "the same with gradients below AdamW's epsilon": CORNER | {"train.class-weights": ",".join(["0.000000001"] * 3)},
    "the default run: 8 steps of 32 texts, 384x": {},
}

HEAD = """# What can be read off an update

`PYTHONPATH=tests python benchmarks/read_updates.py`, {day}, MiniLM-L6, one silo of 350 tweets, one update, no
policy at the node.

The attack is the span check of `tests/support/reading.py`.
It tries each token against the span of the first layer's gradient.
It needs no seed. The silo's secret, which hides order and dropout, is in force in all rows and does not hinder it.

*Read* is a share of the tokens that were in this silo's batch and not in the other's: those that the attack names when
it also names a hundredth of the tokens that were not in the batch. *Chance* is the same share with the update of the
other silo. *Ranked* is the probability that it ranks a token of the batch before one that was not in it.

| run | read | chance | ranked | chance |
|---|---:|---:|---:|---:|
"""

TAIL = """
The default policy refuses the first four rows, by `training.min-examples`, `training.min-length`,
`update.min-compression`, `training.max-learning-rate` and `training.min-grad-norm`. It once asked for 64 examples and
8x: the second row shows what that told. The others tell little more than chance which words were in a batch. That is no
proof of privacy: an update of any size tells something of who took part.
"""


def main() -> None:
    """Print the rows, then write the page."""
    base = gather(ROOT, []).config.as_run_config() | {"run.threads": 1, "data.labels": "negative,neutral,positive"}
    vocabulary, lines = Vocabulary(), []
    with TemporaryDirectory() as place:
        paths = [Path(place) / f"{name}.csv" for name in ("east", "west")]
        for first, path in enumerate(paths):
            write_silo(path, RunConfig.parse(base), 350, first)
        for number, (name, changes) in enumerate(RUNS.items()):
            states = Path(place) / str(number)
            own, other = (attack(base, silo(p.stem, p, states, policy="off"), changes) for p in paths)
            there, others = own.tokens - other.tokens, tokens_of(paths[1]) - tokens_of(paths[0])
            ours, chance = (read(vocabulary, update, there, others) for update in (own, other))
            shares = f"{ours.recovered:.3f} | {chance.recovered:.3f} | {ours.ranked:.2f} | {chance.ranked:.2f}"
            lines.append(f"| {name} | {shares} |\n")
            print(lines[-1], end="", flush=True)
    PAGE.write_text(HEAD.format(day=date.today().isoformat()) + "".join(lines) + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
