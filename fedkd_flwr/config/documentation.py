"""The run-config keys as text: TOML tables with a comment each, and a page of documentation."""

import json
from collections.abc import Iterator

from fedkd_flwr.config.groups import Group, Value, kebab
from fedkd_flwr.config.schema import RunConfig, documentation


def as_toml(prefix: str = "") -> str:
    """All keys with their defaults, as TOML; each has its meaning as a comment.

    Args:
        prefix: table in which they stand, such as `tool.flwr.app.config`; empty: the top level of a file.
    """
    lines = [f"[{prefix}]"] if prefix else []
    for group, about, keys in _groups():
        if group:
            lines += ["", f"# {about}", f"[{prefix}.{group}]" if prefix else f"[{group}]"]
        width = max(len(f"{key} = {toml_value(value)}") for key, value, _ in keys)
        lines += [f"{f'{key} = {toml_value(value)}':{width}}  # {meaning}" for key, value, meaning in keys]
    return "\n".join(lines) + "\n"


def as_markdown() -> str:
    """A page with a table of keys for each group."""
    lines = [
        "# Configuration",
        "",
        "`make config` writes this page from the code. `fedkd config` prints the same keys as a TOML file.",
        "A key is `GROUP.KEY` on the command line: `fedkd run . -c train.local-steps=8`.",
        'In Python a group is an argument: `RunConfig(train={"local_steps": 8})`.',
    ]
    for group, about, keys in _groups():
        lines += ["", f"## {group or 'The run'}", "", about, "", "| key | default | meaning |", "|---|---|---|"]
        for key, value, meaning in keys:
            name = f"{group}.{key}" if group else key
            lines.append(f"| `{name}` | `{toml_value(value)}` | {_cell(meaning)} |")
    return "\n".join(lines) + "\n"


def _groups() -> Iterator[tuple[str, str, list[tuple[str, Value, str]]]]:
    """Each group: its name ("": the top level), what it is about, its keys with default and meaning."""
    meanings, defaults = documentation(), RunConfig.defaults()
    top = [(key, defaults[key], meaning) for key, meaning in meanings.items() if "." not in key]
    yield "", "Keys of no group.", top
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.default, Group):
            start = f"{kebab(name)}."
            keys = [
                (key.removeprefix(start), defaults[key], meanings[key]) for key in meanings if key.startswith(start)
            ]
            yield kebab(name), (type(field.default).__doc__ or "").strip(), keys


def toml_value(value: Value) -> str:
    """JSON's spelling of booleans, numbers and strings is TOML's, too."""
    return json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
