"""The tables of few-labels.jsonl: what few_labels.py gave, a table for each place."""

from tables import Column, Row, Table

_ROWS = (
    Row("local: teachers", "local", "teachers"),
    Row("**fedkd, nested: teachers**", "fedkd", "teachers"),
    Row("fedkd, nested: student", "fedkd", "student"),
    Row("nested, no KL: teachers", "fedkd, no KL", "teachers"),
    Row("nested, no KL: student", "fedkd, no KL", "student"),
    Row("**fedkd, separate: teachers**", "separate", "teachers"),
    Row("fedkd, separate: student", "separate", "student"),
    Row("separate, no KL: teachers", "separate, no KL", "teachers"),
    Row("separate, no KL: student", "separate, no KL", "student"),
    Row("FedAvg on the teacher, 768x", "FedAvg", "student"),
    Row("FedAvg of its adapters", "FedAvg of LoRA", "student"),
)


def _place(scenario: str, *metrics: str) -> Table:
    columns = [Column("seeds", scenario, "seeds"), Column("MB a node", scenario, "mb", digits=2)]
    return Table("few-labels.jsonl", "after round 8", _ROWS, columns + [Column(m, scenario, m) for m in metrics])


TABLES = {
    "few-ade": _place("ade-100", "average-precision", "f1", "accuracy", "loss"),
    "few-ner": _place("ner-100", "span-f1", "loss"),
}
