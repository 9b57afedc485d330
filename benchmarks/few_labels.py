"""What a federation gives each node's teacher where labels are few.

    python benchmarks/few_labels.py --out OUT --adr FOLDER --ner FOLDER --images FOLDER [--labels 100] [--seeds 0 1 2]

Every node has so many labelled examples, 200 more to be scored on, and passes over its own at least ten times. The
places: ADE sentences on four nodes, shared out evenly and by Dirichlet (0.5); three corpora of medical entities, each
with labels of its own; the bundled tweets, one source a node; images of clothes on four nodes, by Dirichlet. FOLDER of
--adr holds train.csv, of --ner a folder with train.tsv and test.tsv for each corpus, of --images what
examples/images/fashion_mnist.py and models.py wrote (train, test, vit).

Results: benchmarks/results/few-labels.jsonl. A run whose line stands there is not run again. `--estimate` says what the
missing runs will take and runs nothing; `--quick` is one seed of the six methods that tell the story.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np
from common import RESULTS, Results, Run, Scenario, Settings, mean_and_error, run_missing

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.random import Generator

HELD_OUT = 200
"""Examples of a node to be scored on."""
BATCH, ROUNDS, PASSES = 16, 8, 10

COMMON = {
    "num-rounds": ROUNDS,
    "federation.evaluate-every": 2,
    "train.batch-size": BATCH,
    "data.max-test-examples": HELD_OUT,
    "codec.budget": "384x",
    "run.precision": "bf16",
}
FEDKD = {"method": "fedkd"}
SEPARATE = FEDKD | {"model.architecture": "separate"}
NO_KL = {"distillation.student-kl": 0.0, "distillation.teacher-kl": 0.0}
TO_STUDENT = {"distillation.student-kl": 1.0, "distillation.teacher-kl": 0.0}
TO_TEACHER = {"distillation.student-kl": 0.0, "distillation.teacher-kl": 1.0}
FEDAVG = {"method": "fedavg", "codec.kind": "budget", "codec.budget": "768x"}
"""The teacher has twice the student's layers: 768 times less of it are as many bytes."""

VARIANTS: dict[str, Settings] = {
    "local": {"method": "local"},
    "fedkd": FEDKD,
    "fedkd, no KL": FEDKD | NO_KL,
    "fedkd, KL into the student only": FEDKD | TO_STUDENT,
    "fedkd, KL into the teacher only": FEDKD | TO_TEACHER,
    "fedkd, five layers": FEDKD | {"model.shared-layers": 5, "codec.budget": "640x"},
    "separate": SEPARATE,
    "separate, no KL": SEPARATE | NO_KL,
    "separate, KL into the student only": SEPARATE | TO_STUDENT,
    "FedAvg": FEDAVG,
    "FedAvg of LoRA": FEDAVG | {"method": "fedavg-lora", "codec.budget": "55kB"},
    "FedProx": FEDAVG | {"method": "fedprox"},
}
QUICK = ("local", "fedkd", "fedkd, no KL", "separate", "separate, no KL", "FedAvg")


@dataclass(frozen=True)
class Place:
    """Data of a task on several nodes.

    Attributes:
        nodes: how many there are.
        metrics: the scores that are printed.
        settings: run-config of the task.
        write: writes the data with so many labels a node into a folder, and returns the run-config that names them.
    """

    nodes: int
    metrics: tuple[str, ...]
    settings: Settings
    write: Callable[[Path, int, "Generator"], Settings]


def places(arguments: argparse.Namespace) -> dict[str, Place]:
    """The places whose data are at hand, by name."""
    adr, ner, images = arguments.adr, arguments.ner, arguments.images
    found = {"tweets": Place(6, ("macro-f1", "loss"), {}, _tweets)}
    if adr is not None:
        for name, alpha in (("ade", None), ("ade-dirichlet", 0.5)):
            found[name] = Place(4, ("average-precision", "f1", "loss"), {}, _Sentences(adr.resolve(), alpha))
    if ner is not None:
        settings = {"task": "token-classification", "train.learning-rate": 2e-4}
        found["ner"] = Place(3, ("span-f1", "loss"), settings, _Corpora(ner.resolve()))
    if images is not None:
        clothes = {
            "task": "image-classification",
            "data.partition": "dirichlet",
            "train.learning-rate": 2e-3,
            "train.teacher-learning-rate": 1e-3,
            "train.head-learning-rate-factor": 1.0,
        }
        found["images"] = Place(4, ("macro-f1", "loss"), clothes, _Images(images.resolve()))
    return found


@dataclass(frozen=True)
class _Sentences:
    """Sentences of one table on four nodes, evenly, or each node with its own share of each label."""

    folder: Path
    alpha: float | None

    def __call__(self, out: Path, labels: int, random: "Generator") -> Settings:
        from datasets import load_dataset

        table = load_dataset("csv", data_files=str(self.folder / "train.csv"), split="train")
        classes = np.asarray(table["label"])
        pools = [list(random.permutation(np.flatnonzero(classes == label))) for label in sorted(set(classes))]
        shares = [len(pool) / len(table) for pool in pools]
        for node in range(4):
            own = shares if self.alpha is None else random.dirichlet([self.alpha] * len(pools))
            wanted = random.multinomial(labels + HELD_OUT, own)
            taken = [pool.pop() for pool, count in zip(pools, wanted, strict=True) for _ in range(count)]
            _write(table.select(random.permutation(taken)), out / f"client-{node}", labels)
        return {"data.dataset": f"hf:{out}"}


def _tweets(out: Path, labels: int, random: "Generator") -> Settings:
    """One source of tweets a node."""
    from datasets import Dataset

    from fedkd_flwr.data.tweets import SOURCES, tweets

    table = Dataset(tweets())
    owners = np.asarray(table["source"])
    for node, source in enumerate(SOURCES):
        rows = random.permutation(np.flatnonzero(owners == source))[: labels + HELD_OUT]
        _write(table.select(rows), out / f"client-{node}", labels)
    return {"data.dataset": f"hf:{out}"}


def _write(rows: "Dataset", folder: Path, labels: int) -> None:
    """A node's data: the first so many rows are learnt from, the others held out."""
    from datasets import DatasetDict

    parts = {"train": rows.select(range(labels)), "test": rows.select(range(labels, len(rows)))}
    DatasetDict(parts).save_to_disk(str(folder))


@dataclass(frozen=True)
class _Corpora:
    """A corpus of tagged sentences a node."""

    folder: Path

    def __call__(self, out: Path, labels: int, random: "Generator") -> Settings:
        for corpus in sorted(path for path in self.folder.iterdir() if path.is_dir()):
            (out / corpus.name).mkdir(parents=True)
            for part, count in (("train", labels), ("test", HELD_OUT)):
                sentences = (corpus / f"{part}.tsv").read_text().strip().split("\n\n")
                chosen = random.permutation(len(sentences))[:count]
                (out / corpus.name / f"{part}.tsv").write_text("\n\n".join(sentences[i] for i in chosen) + "\n")
        return {"data.dataset": f"iob:{out}"}


@dataclass(frozen=True)
class _Images:
    """Images of classes, which the run shares out."""

    folder: Path

    def __call__(self, out: Path, labels: int, random: "Generator") -> Settings:
        for part, count in (("train", 4 * labels), ("test", 4 * HELD_OUT)):
            files = sorted((self.folder / part).glob("*/*.png"))
            for index in random.permutation(len(files))[:count]:
                place = out / part / files[index].parent.name / files[index].name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(files[index])
        return {"data.dataset": f"imagefolder:{out}", "model.teacher": str(self.folder / "vit")}


def steps(labels: int) -> int:
    """Local steps of a round: at least ten passes in all, and never fewer than eight."""
    return max(8, -(-PASSES * labels // (BATCH * ROUNDS)))


def main() -> None:
    """Run what is missing, print a table for each place and number of labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data and the runs")
    parser.add_argument("--adr", type=Path)
    parser.add_argument("--ner", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--labels", type=int, nargs="*", default=[100])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--places", nargs="*", help="default: all whose data are given")
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--estimate", action="store_true", help="print what the missing runs will take")
    parser.add_argument("--quick", action="store_true", help=f"seed 0, {', '.join(QUICK)}")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.variants = [0], list(QUICK)
    known = places(arguments)
    results = Results(RESULTS / "few-labels.jsonl")
    for labels in arguments.labels:
        for name in arguments.places or known:
            place = known[name]
            scenario = f"{name}-{labels}"
            common = {**COMMON, **place.settings, "train.local-steps": steps(labels)}
            settings = {variant: {**common, **VARIANTS[variant]} for variant in arguments.variants}
            for seed in arguments.seeds:
                wanted = [Run(scenario, variant, seed, settings[variant]) for variant in settings]
                missing = [run for run in wanted if not results.has(run)]
                if arguments.estimate:
                    count = len(missing) * place.nodes * ROUNDS * steps(labels)
                    print(f"{scenario}, seed {seed}: {len(missing)} runs, {count} local steps")
                elif missing and not arguments.table:
                    run_missing(missing, results, {scenario: _scenario(place, arguments.out, scenario, labels, seed)},
                                arguments.out / "runs", arguments.jobs)  # fmt: skip
            if not arguments.estimate:
                print("\n".join(table(results, scenario, place.metrics, settings)))


def _scenario(place: Place, out: Path, name: str, labels: int, seed: int) -> Scenario:
    """The place with its data of one seed, which are written where they are not there yet."""
    folder = out.resolve() / "data" / f"{name}-{seed}"
    mark = folder / "data.json"
    if not mark.exists():
        mark.write_text(json.dumps(place.write(folder / "nodes", labels, np.random.default_rng(seed))))
    return Scenario(place.nodes, json.loads(mark.read_text()), place.metrics)


def table(results: Results, scenario: str, metrics: tuple[str, ...], variants: Mapping[str, Settings]) -> Iterator[str]:
    """A Markdown table: mean and standard error over the seeds, after the last round."""
    yield f"\n## {scenario}\n"
    columns = [f"{who} {metric}" for who in ("teachers", "student") for metric in metrics]
    yield f"| run | seeds | MB a node | {' | '.join(columns)} |"
    yield f"|{'---|' * (3 + len(columns))}"
    for variant, settings in variants.items():
        ends = [result.rounds[-1] for result in results.of(scenario, variant, settings)]
        if not ends:
            continue
        cells = [variant, str(len(ends)), f"{mean(end['mb'] for end in ends):.2f}"]
        for who in ("teachers", "student"):
            for metric in metrics:
                values = [end[who][metric] for end in ends if end[who] and metric in end[who]]
                cells.append(mean_and_error(values) if values else "")
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
