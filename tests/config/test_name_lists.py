"""Lists of names in one string of a run-config."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.config.name_lists import listed, names
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError

NAME = st.text(st.sampled_from(list("ab ,\"';\n\u00e9")), min_size=1).map(str.strip).filter(bool)
NAMES = st.lists(NAME)


@given(NAMES)
def test_any_names_can_be_listed_and_read_back(all_names: list[str]) -> None:
    assert names(listed(all_names)) == tuple(all_names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" a , b,,", ("a", "b")),
        ('"yes, sure", no', ("yes, sure", "no")),
        ('a,"b ""c"""', ("a", 'b "c"')),
        ('5" wide,b', ('5" wide', "b")),
        ('"  a,b "', ("a,b",)),
    ],
)
def test_commas_part_names_but_in_quotes(text: str, expected: tuple[str, ...]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize("key", ["data.labels", "model.teachers"])
@pytest.mark.parametrize("text", ['"a, b', '"a" b,c'])
def test_a_list_that_is_none_is_one_line_that_names_the_key(key: str, text: str, defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^run-config: {key} .* is no list of names: double the quotes") as caught:
        RunConfig.parse(defaults | {key: text})
    assert "\n" not in str(caught.value)


def test_a_run_knows_labels_with_commas(defaults: dict[str, Any]) -> None:
    config = RunConfig.parse(defaults | {"data.labels": '"yes, sure",no'})
    assert config.data.label_names == ("yes, sure", "no")
    assert RunConfig.parse(config.as_run_config()).data.label_names == config.data.label_names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.labels": "a,b,a"}, "data.labels names a label twice"),
        ({"data.encoding": "utf-9"}, "data.encoding 'utf-9' is unknown"),
        ({"data.encoding": "base64"}, "data.encoding 'base64' is unknown"),
        ({"data.separator": ";;"}, "'data.separator' is ';;' but should be csv: .* one character"),
        ({"data.separator": '"'}, "'data.separator'"),
        (
            {"task": "multi-label", "data.skip-unlabelled": True},
            "skip-unlabelled is True but task 'multi-label' does not",
        ),
    ],
)
def test_keys_of_readers_are_checked(changes: dict[str, Any], message: str, defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.parse(defaults | changes)
