"""Names of labels: which of them are so alike that they must be one, and that there are enough."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

from fedkd_flwr.config.name_lists import LONGEST, MOST
from fedkd_flwr.errors import DataError

_MISSING = {"nan", "NaN", "NAN", "<NA>", "\\N"}
"""How programs write that there is no value; "none" and "NA" may be labels."""

_FEW = 10
"""So many labels are few whatever the rows, of which each label otherwise has so many at least."""


def alike(one: str, other: str) -> str:
    """How alike two labels are that differ, for messages: "in case"; empty: not at all."""
    if one == other:
        return ""
    return next((kind for kind, form in _FORMS.items() if form(one) == form(other)), "")


def require_different(names: Sequence[str], where: str) -> None:
    """No two labels that the data decide on differ only in case, white space, or in how a number is written.

    Raises:
        DataError: some do, or one says that there is no label; they are not quoted.
    """
    for kind, form in _FORMS.items():
        groups: dict[str, list[str]] = defaultdict(list)
        for name in names:
            groups[form(name)].append(name)
        if close := [group for group in groups.values() if len(group) > 1]:
            raise DataError(
                f"{where}: {sum(map(len, close))} of its {len(names)} labels differ from another only {kind}: "
                "correct them, or name all labels in run-config key 'data.labels'",
                "; ".join(" / ".join(map(repr, group)) for group in close),
            )
    if _MISSING.intersection(names):
        raise DataError(
            f"{where}: one of its labels says that there is no label, as programs write it (NaN): empty these cells "
            "and set run-config key 'data.skip-unlabelled' to true, or name all labels in run-config key 'data.labels'"
        )


def require_few(labels: Sequence[str], rows: int, where: str) -> None:
    """The labels that a table decides on are few beside its rows: otherwise they may be texts.

    Raises:
        DataError: they are more than ten, and more than a tenth of the rows.
    """
    if len(labels) > max(_FEW, rows // _FEW):
        raise DataError(
            f"{where}: {len(labels)} different labels in {rows} rows: is run-config key 'data.label-column' right? "
            "If it is, name all labels in run-config key 'data.labels'"
        )


def checked_labels(labels: tuple[str, ...], where: str) -> tuple[str, ...]:
    """`labels`.

    Raises:
        DataError: they are fewer than two, not all different, too many or too long.
    """
    if len(labels) > MOST or max(map(len, labels), default=0) > LONGEST:
        raise DataError(
            f"{where}: it has {len(labels)} labels, of which the longest has {max(map(len, labels))} characters, "
            f"expected at most {MOST} of {LONGEST}: is run-config key 'data.label-column' right?"
        )
    if len(set(labels)) < max(2, len(labels)):
        raise DataError(f"{where}: expected at least two different labels, found {len(set(labels))}", ", ".join(labels))
    return labels


def _number(name: str) -> str:
    try:
        return repr(float(name) + 0.0)
    except ValueError:
        return name


def _spaced(name: str) -> str:
    return " ".join(name.split())


def _composed(name: str) -> str:
    return _spaced(unicodedata.normalize("NFKC", name))


def _caseless(name: str) -> str:
    return _composed(name).casefold()


_FORMS: dict[str, Callable[[str], str]] = {
    "in white space": _spaced,
    "in how their characters are encoded": _composed,
    "in case": _caseless,
    "in how a number is written": _number,
}
"""By how labels of one form differ, narrow ones first."""
