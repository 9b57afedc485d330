"""The tables of examples.jsonl: what examples.py gave, by page."""

from collections.abc import Sequence

from tables import Column, Row, Table


def _example(name: str, rows: Sequence[Row], metrics: Sequence[str], nodes: int, mb: int = 2) -> Table:
    """A table of examples/NAME: the scores of all nodes, and the first score of each."""
    columns = [Column("seeds", name, "seeds"), Column("MB a node", name, "mb", digits=mb)]
    columns += [Column(metric, name, metric) for metric in metrics]
    columns += [Column(f"{metrics[0]}, node {n}", name, metrics[0], node=n, error=False) for n in range(nodes)]
    return Table("examples.jsonl", "model", rows, columns)


TABLES = {
    "ner": _example(
        "ner",
        [
            Row("teachers, local only, start of fedkd", "local, same start", "teachers"),
            Row("**fedkd: teachers**", "fedkd", "teachers"),
            Row("**fedkd: student**, each node's own head", "fedkd", "student"),
        ],
        ("span-f1", "loss"),
        3,
    ),
    "ner-rounds": Table(
        "examples.jsonl",
        "mean span F1 after round",
        [
            Row("teachers, local only, start of fedkd", "local, same start", "teachers"),
            Row("fedkd: teachers", "fedkd", "teachers"),
            Row("fedkd: student", "fedkd", "student"),
        ],
        [Column(str(number), "ner", "span-f1", at=number, error=False) for number in range(3, 19, 3)],
    ),
    "images": _example(
        "images",
        [
            Row("**fedkd: teachers**", "fedkd", "teachers"),
            Row("**fedkd: student**, two of six layers", "fedkd", "student"),
            Row("fedkd, logits not adjusted: teachers", "fedkd, not adjusted", "teachers"),
            Row("fedkd, logits not adjusted: student", "fedkd, not adjusted", "student"),
            Row("teachers, local only", "local", "teachers"),
            Row("teachers, local only, start of fedkd", "local, same start", "teachers"),
            Row("one ViT for all, FedAvg as it is", "fedavg", "student"),
            Row("same, adjusted, rate 2e-3", "fedavg, adjusted, 2e-3", "student"),
            Row("same, and the start of fedkd", "fedavg, adjusted, 2e-3, same start", "student"),
            Row("a ConvNeXt as student, separate: student", "fedkd, separate", "student"),
            Row("a ConvNeXt as student, separate: teachers", "fedkd, separate", "teachers"),
        ],
        ("accuracy", "macro-f1"),
        4,
    ),
    "news": _example(
        "news",
        [
            Row("**fedkd: student**", "fedkd", "student"),
            Row("fedkd: teachers", "fedkd", "teachers"),
            Row("teachers, local only", "local", "teachers"),
            Row("fedkd, all layers travel, 192x: student", "fedkd, all layers travel", "student"),
            Row("fedkd, all layers travel, 192x: teachers", "fedkd, all layers travel", "teachers"),
            Row("FedAvg on the student, dense", "fedavg-student", "student"),
            Row("one teacher for all, FedAvg, dense", "fedavg", "student"),
        ],
        ("auc", "mrr", "ndcg@5", "ndcg@10"),
        0,
        1,
    ),
    "teachers": _example(
        "teachers",
        [
            Row("teachers, local only", "local", "teachers"),
            Row("teachers, local only, start of fedkd", "local, same start", "teachers"),
            Row("**fedkd: teachers**", "fedkd", "teachers"),
            Row("fedkd: student", "fedkd", "student"),
        ],
        ("accuracy", "macro-f1", "loss"),
        3,
    ),
}
