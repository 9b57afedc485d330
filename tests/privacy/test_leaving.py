"""The table of what leaves a node is complete, and the page shows it."""

from pathlib import Path

import pytest

from fedkd_flwr.privacy.leaving import MODELS, REPLIES, as_markdown, fields_of

PAGE = Path(__file__).parent.parent.parent / "docs/privacy.md"


@pytest.mark.parametrize("reply", MODELS)
def test_every_field_of_a_reply_is_in_the_table_and_no_other(reply: str) -> None:
    assert list(REPLIES[reply]) == list(fields_of(MODELS[reply]))


def test_fields_of_fields_are_told() -> None:
    assert {"data.rows", "label_shares"} <= set(fields_of(MODELS["join"]))
    assert {"evaluation.student", "update"} <= set(fields_of(MODELS["train"]))


def test_the_page_has_the_table() -> None:
    """To write it anew: python -c 'from fedkd_flwr.privacy.leaving import as_markdown; print(as_markdown())'"""
    assert as_markdown() in PAGE.read_text()
