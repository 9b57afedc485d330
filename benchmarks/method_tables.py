"""The tables of methods.jsonl: what learning.py and traffic.py gave, by page."""

from collections.abc import Sequence

from tables import Column, Row, Table, read

SCENARIOS = {"tweets": "tweets", "adr-dirichlet": "ADE Dirichlet", "adr-iid": "ADE IID"}
BOTH = ("student", "teachers")
ENDS = [
    Column("seeds", "", "seeds"),
    Column("MB a node", "", "mb", digits=1),
    *(
        Column(f"{title}: {who}", scenario, "accuracy", who, beside="loss")
        for scenario, title in SCENARIOS.items()
        for who in BOTH
    ),
]
"""Accuracy (loss) after the last round."""

SHOWN = [
    Column("MB a node", "tweets", "mb", digits=1),
    Column("tweets by source", "tweets", "accuracy", digits=2, error=False),
    Column("drug effects, even", "adr-iid", "accuracy", digits=2, error=False),
    Column("drug effects, skewed", "adr-dirichlet", "accuracy", digits=2, error=False),
]
ADJUSTED = "FedAvg on the teacher, adjusted, same start"
SMALL = "FedAvg on the student, 3 layers, adjusted, same start"


def _rows(*pairs: tuple[str, str]) -> list[Row]:
    return [Row(label, variant) for label, variant in pairs]


def _long(end: str) -> list[Row]:
    """The runs of rounds of many steps that have results."""
    return _rows(
        ("FedAvg on the teacher", f"FedAvg on the teacher, {end}"),
        ("same, logits adjusted, start of fedkd", f"{ADJUSTED}, {end}"),
        ("FedAvg on the student, two layers", f"FedAvg on the student, {end}"),
        *([("same, three layers, adjusted, start of fedkd", f"{SMALL}, {end}")] if end.startswith("6") else []),
        ("teachers alone", f"teachers alone, {end}"),
        ("teachers alone, start of fedkd", f"teachers alone, same start, {end}"),
        ("**fedkd**", f"fedkd, {end}"),
        *([("fedkd, half the rate", f"fedkd, half the rate of what travels, {end}")] if end.startswith("6") else []),
        ("fedkd, no KL", f"fedkd, no KL, {end}"),
        ("fedkd, teachers with the mean of shared layers alone", f"fedkd, mean layers, {end}"),
    )


def _all_scores(scenario: str, metrics: Sequence[str]) -> Table:
    """Every run of a scenario, in the order of its name."""
    lines = read("methods.jsonl")
    names = dict.fromkeys(line["variant"] for line in lines if line["scenario"] == scenario)
    columns = [Column("seeds", scenario, "seeds"), Column("MB a node", scenario, "mb", digits=2)]
    columns += [Column(f"{who} {metric}", scenario, metric, who) for who in BOTH for metric in metrics]
    return Table("methods.jsonl", "run", [Row(name, name) for name in names], columns)


TABLES = {
    "readme": Table(
        "methods.jsonl",
        "model",
        [
            Row("teachers, each node alone", "teachers alone, same start", "teachers"),
            Row("one teacher for all, FedAvg as it is", "FedAvg on the teacher", "student"),
            Row("one teacher for all, FedAvg with our start", ADJUSTED, "student"),
            Row("one teacher for all, the same through our codec", f"{ADJUSTED}, 55 kB", "student"),
            Row("**fedkd: teachers**", "fedkd", "teachers"),
            Row("**fedkd: student**, half the layers", "fedkd", "student"),
        ],
        SHOWN,
    ),
    "methods": Table(
        "methods.jsonl",
        "after round 6",
        _rows(
            ("FedAvg on the teacher", "FedAvg on the teacher"),
            ("same, logits adjusted", "FedAvg on the teacher, adjusted"),
            ("same, and the start of fedkd", ADJUSTED),
            ("FedAvg on the student, two layers", "FedAvg on the student"),
            ("same, three layers, adjusted, start of fedkd", SMALL),
            ("teachers alone", "teachers alone"),
            ("teachers alone, start and rates of fedkd", "teachers alone, same start"),
            ("the paper, literally", "the paper"),
            ("**fedkd**", "fedkd"),
            ("fedkd, five layers of the teacher travel", "fedkd, five layers travel"),
            ("fedkd, all layers of the teacher travel", "fedkd, all layers travel"),
            ("fedkd, separate models", "fedkd, separate"),
            ("fedkd, 111 kB, constant rates", "fedkd, 111 kB, constant rates"),
        ),
        ENDS,
    ),
    "first-rounds": Table(
        "methods.jsonl",
        "ADE IID, average precision",
        [
            Row("fedkd: student", "fedkd", "student"),
            Row("fedkd: teachers", "fedkd", "teachers"),
            Row("the same from random heads: student", "nested, 3 layers", "student"),
            Row("the same from random heads: teachers", "nested, 3 layers", "teachers"),
            Row("FedAvg on the teacher", "FedAvg on the teacher", "student"),
        ],
        [Column(f"round {number}", "adr-iid", "average-precision", at=number, beside="loss") for number in (2, 4, 6)],
    ),
    "start": Table(
        "methods.jsonl",
        "after round 6",
        _rows(
            ("random heads, constant rates", "nested, 3 layers"),
            ("fitted heads, constant rates", "nested, 3 layers, probed"),
            ("fitted heads, warm-up, constant rates", "fedkd, 111 kB, constant rates"),
            ("**fitted heads, warm-up, falling rates**", "fedkd, 111 kB"),
        ),
        ENDS,
    ),
    "falling": Table(
        "methods.jsonl",
        "after round 6",
        _rows(
            ("fedkd, constant rates", "fedkd, 111 kB, constant rates"),
            ("**fedkd, rates of private parameters fall**", "fedkd, 111 kB"),
            ("teachers alone, constant rates", "teachers alone, same start, constant rates"),
            ("teachers alone, rates fall", "teachers alone, same start"),
        ),
        ENDS,
    ),
    "own-share": Table(
        "methods.jsonl",
        "teachers",
        [
            Row(f"{end}, {label}", f"fedkd{variant}, {end}", "teachers")
            for end in ("6 x 32 steps", "2 x 128 steps")
            for label, variant in (("the mean alone", ", mean layers"), ("**half of their own**", ""))
        ],
        [
            Column(f"{SCENARIOS[scenario]}: {metric}", scenario, metric)
            for scenario in ("adr-iid", "adr-dirichlet")
            for metric in ("accuracy", "average-precision", "loss")
        ],
    ),
    "student": Table(
        "methods.jsonl",
        "after round 6, seed 0",
        [
            Row("nested, two layers", "nested", seed=0),
            Row("nested, two layers, logits not adjusted", "nested, not adjusted", seed=0),
            Row("nested, three layers", "nested, 3 layers", seed=0),
        ],
        ENDS,
    ),
    "traffic": Table(
        "methods.jsonl",
        "after round 6",
        _rows(
            ("FedAvg on the teacher, dense", "FedAvg on the teacher"),
            ("FedAvg on the teacher, adjusted, start of fedkd, dense", ADJUSTED),
            ("same, 111 kB an update", f"{ADJUSTED}, 111 kB"),
            ("same, 55 kB an update", f"{ADJUSTED}, 55 kB"),
            ("same, 28 kB an update", f"{ADJUSTED}, 28 kB"),
            ("FedAvg on the student, three layers, adjusted, start of fedkd, dense", SMALL),
            ("the paper, literally", "the paper"),
            ("fedkd, 222 kB", "fedkd, 222 kB"),
            ("fedkd, 111 kB", "fedkd, 111 kB"),
            ("**fedkd, 55 kB**", "fedkd"),
            ("fedkd, 28 kB", "fedkd, 28 kB"),
            ("fedkd, rotated to 1 bit", "fedkd, rotated to 1 bit"),
            ("fedkd, no error feedback downwards", "fedkd, no feedback downwards"),
        ),
        ENDS,
    ),
    "long-32": Table("methods.jsonl", "6 rounds of 32 steps", _long("6 x 32 steps"), ENDS),
    "long-128": Table("methods.jsonl", "2 rounds of 128 steps", _long("2 x 128 steps"), ENDS),
    "constant": Table(
        "methods.jsonl",
        "teachers with the mean of shared layers alone",
        _rows(
            ("6 x 32, rates fall", "fedkd, mean layers, 6 x 32 steps"),
            ("6 x 32, constant", "fedkd, mean layers, constant rates of what travels, 6 x 32 steps"),
            ("2 x 128, rates fall", "fedkd, mean layers, 2 x 128 steps"),
            ("2 x 128, constant", "fedkd, mean layers, constant rates of what travels, 2 x 128 steps"),
        ),
        [
            Column("seeds", "adr-iid", "seeds"),
            *(Column(f"ADE IID: {who}", "adr-iid", "accuracy", who, beside="loss") for who in BOTH),
        ],
    ),
    "half-rate": Table(
        "methods.jsonl",
        "6 x 32 steps",
        _rows(
            ("learning rate 5e-4", "fedkd, 6 x 32 steps"),
            ("learning rate 2.5e-4", "fedkd, half the rate of what travels, 6 x 32 steps"),
            ("teachers alone, start of fedkd", "teachers alone, same start, 6 x 32 steps"),
        ),
        [
            Column(f"{SCENARIOS[scenario]}, round {number}: {who}", scenario, "accuracy", who, "loss", at=number)
            for scenario in ("tweets", "adr-iid")
            for number in (3, 6)
            for who in BOTH
        ],
    ),
    "kl": Table(
        "methods.jsonl",
        "run",
        _rows(
            *(
                (f"{label}{', no KL' if no else ''}", f"fedkd{model}{', no KL' if no else ''}{end}")
                for label, model, end in (
                    ("6 x 8 steps", "", ""),
                    ("6 x 8 steps, separate", ", separate", ""),
                    ("6 x 32 steps", "", ", 6 x 32 steps"),
                    ("2 x 128 steps", "", ", 2 x 128 steps"),
                )
                for no in (False, True)
            )
        ),
        [
            Column(f"{SCENARIOS[scenario]}: {who} {metric}", scenario, metric, who)
            for scenario in ("adr-iid", "adr-dirichlet")
            for who in BOTH
            for metric in ("f1", "loss")
        ],
    ),
    "adr": Table(
        "methods.jsonl",
        "model",
        [
            Row("teachers, local only, start of fedkd", "teachers alone, same start", "teachers"),
            Row("**fedkd: teachers**", "fedkd", "teachers"),
            Row("**fedkd: student**", "fedkd", "student"),
            Row("one teacher for all, FedAvg as it is", "FedAvg on the teacher", "student"),
            Row("one teacher for all, adjusted, start of fedkd", ADJUSTED, "student"),
        ],
        [
            Column("MB a node", "adr-iid", "mb", digits=1),
            *(
                Column(f"{SCENARIOS[scenario]}: {metric}", scenario, metric)
                for scenario in ("adr-iid", "adr-dirichlet")
                for metric in ("f1", "average-precision")
            ),
        ],
    ),
    "scores-tweets": _all_scores("tweets", ("accuracy", "macro-f1", "loss")),
    "scores-adr-iid": _all_scores("adr-iid", ("average-precision", "f1", "accuracy", "loss")),
    "scores-adr-dirichlet": _all_scores("adr-dirichlet", ("average-precision", "f1", "accuracy", "loss")),
}
