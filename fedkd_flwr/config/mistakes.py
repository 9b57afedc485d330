"""Mistakes of a run-config, in words."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError


def mistakes_in(error: ValidationError, meanings: Mapping[str, str]) -> dict[str, str]:
    """Every mistake of a run-config by its key; those of keys that do not fit together by the empty key.

    Args:
        error: of pydantic.
        meanings: of each key that there is.
    """
    found: dict[str, str] = {}
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden" and isinstance(problem["input"], Mapping):
            key = f"{key}.{next(iter(problem['input']), '')}"
        line = _line(key, problem, meanings)
        found[key] = f"{found[key]}; {line}" if key in found else line
    return found


def _line(key: str, problem: Any, meanings: Mapping[str, str]) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return f"run-config key {key!r} is unknown: {_instead_of(key, meanings)}"
        case "model_type":
            keys = ", ".join(each for each in meanings if each.startswith(f"{key}."))
            return f"run-config key {key!r} is {problem['input']!r} but should be a group of keys: {keys}"
        case "value_error":
            return f"run-config: {problem['ctx']['error']}"
        case "string_pattern_mismatch":
            return f"run-config key {key!r} is {problem['input']!r} but should be {meanings[key]}"
        case _:
            message = str(problem["msg"]).removeprefix("Input ")
            return f"run-config key {key!r} is {problem['input']!r} but {message}"


def _instead_of(key: str, meanings: Mapping[str, str]) -> str:
    leaf = key.rpartition(".")[2]
    alike = [each for each in meanings if each.rpartition(".")[2] == leaf]
    return f"it is {' or '.join(map(repr, alike))}" if alike else "`fedkd config` prints all keys"
