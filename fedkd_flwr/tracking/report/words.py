"""Numbers and names as a report writes them."""

from collections.abc import Iterable

MODELS = {
    "student": "student",
    "student-own-labels": "student, own labels",
    "teachers": "teachers",
    "teachers-own-labels": "teachers, own labels",
}
"""The models that are scored, by their names in history.json."""

_ACRONYMS = {
    "f1": "F1", "auc": "AUC", "mrr": "MRR", "mae": "MAE", "rmse": "RMSE", "ndcg@5": "nDCG@5", "ndcg@10": "nDCG@10",
}  # fmt: skip
_LONGEST_NAME = 22


def metric_name(metric: str) -> str:
    """A score's name, such as `macro-F1`."""
    return "-".join(_ACRONYMS.get(part, part) for part in metric.split("-"))


def capital(text: str) -> str:
    """The same with a capital first letter."""
    return text[:1].upper() + text[1:]


def short(name: str) -> str:
    """A name that fits beside a line of a plot."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def score(value: float | None) -> str:
    """A score to three decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def megabytes(value: float) -> str:
    """MB to three digits, such as 0.055, 1.33 or 511."""
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def bytes_in_words(value: float) -> str:
    """Bytes with a unit, such as 812 B, 5.9 kB or 1.2 MB."""
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def times(value: float) -> str:
    """How many times, such as 3.4× or 1,203×."""
    return f"{value:,.0f}×" if value >= 10 else f"{value:.1f}×"


def duration(seconds: float) -> str:
    """Seconds as people say them, such as 42 s, 5 min 12 s, 34 min or 2 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def listed(parts: Iterable[str]) -> str:
    """Parts as in a sentence: a, b and c."""
    *first, last = list(parts) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def plural(count: int, thing: str) -> str:
    """A count of things, such as 1 node or 6 nodes."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
