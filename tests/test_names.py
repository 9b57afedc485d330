"""Names that become parts of paths."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.config.node_config import config_at_node
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.names import fitting, is_lineage, is_node

EVIL = [
    "../../evil",
    "ward/1",
    "..",
    ".",
    ".hidden",
    "-f",
    "a b",
    "a\nb",
    "north\n",
    "a\0b",
    "K\u00f6ln",
    "n" * 65,
    "a\\b",
]


@given(st.text())
def test_any_text_gives_a_name_that_fits(text: str) -> None:
    assert is_node(fitting(text))
    if is_node(text) and not text.endswith("-"):
        assert fitting(text) == text


@given(st.text())
def test_a_name_is_one_part_of_a_path_and_no_hidden_one(text: str) -> None:
    if is_node(text) or is_lineage(text):
        assert Path("state", text).resolve().parent == Path("state").resolve()
        assert text.isascii() and text.isprintable() and not text.startswith(".")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("K\u00f6ln \u00e0 1", "Koln-a-1"),
        ("../../evil", "evil"),
        ("north.v2", "north.v2"),
        ("n" * 99, "n" * 64),
        ("a b!", "a-b"),
    ],
)
def test_names_made_of_texts(text: str, name: str) -> None:
    assert fitting(text) == name


def test_texts_without_a_letter_of_ours_keep_names_apart() -> None:
    names = {fitting(text) for text in ("", "..", "\u5317", "\u5357", "\ud800")}
    assert len(names) == 5 and all(map(is_node, names))


@pytest.mark.parametrize("name", EVIL)
def test_a_node_config_with_another_name_is_refused(name: str, defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^node-config key 'name' is .* but should be [^\n]*$"):
        config_at_node(RunConfig.parse(defaults), {"name": name})


@pytest.mark.parametrize("key", ["partition-id", "num-partitions"])
@pytest.mark.parametrize("value", ["../evil", -1, 1.5, True])
def test_partitions_are_whole_numbers(key: str, value: object, defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^node-config key '{key}' is .* a whole number"):
        config_at_node(RunConfig.parse(defaults), {"partition-id": 0, "num-partitions": 2, key: value})
