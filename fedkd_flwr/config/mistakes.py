"""What is wrong with a run-config, in words."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo


def mistakes_in(error: ValidationError, fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    """Every mistake of a run-config by its key; those of keys that do not fit together by the empty key.

    Args:
        error: what pydantic found.
        fields: of the model, by their names there.
    """
    found: dict[str, str] = {}
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        found[key] = f"{found[key]}; {_line(key, problem, fields)}" if key in found else _line(key, problem, fields)
    return found


def _line(key: str, problem: Any, fields: Mapping[str, FieldInfo]) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return f"run-config key {key!r} is unknown: pyproject.toml lists all under [tool.flwr.app.config]"
        case "value_error":
            return f"run-config: {problem['ctx']['error']}"
        case "string_pattern_mismatch":
            field = fields[key.replace("-", "_")]
            return f"run-config key {key!r} is {problem['input']!r} but should be {field.description}"
        case _:
            message = str(problem["msg"]).removeprefix("Input ")
            return f"run-config key {key!r} is {problem['input']!r} but {message}"
