"""From what a user types to the validated config of a run: defaults, overrides, a run to resume, paths."""

import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedkd_flwr.config.methods import fixed_otherwise
from fedkd_flwr.config.schema import RunConfig, flat
from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.tracking.past_run import PastRun
from fedkd_flwr.tracking.run_names import fresh_run_name

_PAIR = re.compile(r"""\s*(\S+?)=('[^']*'|"[^"]*"|\S+)""")
_FOLDERS = ("run.runs-dir", "run.state-dir", "run.resume")
_DATA_FILES = ("data.dataset", "data.server-test-data")
_MODELS = ("model.teacher", "model.student")
NODES = 6
"""How many share a data set where nobody says."""


@dataclass(frozen=True)
class Arguments:
    """A run as it will be launched: its config, with absolute paths, the folder of its results, how many nodes."""

    config: RunConfig
    folder: Path
    nodes: int


def gather(
    app: Path | None, overrides: Iterable[str], resume: Path | None = None, nodes: int | None = None
) -> Arguments:
    """The run that `fedkd run` was asked for; relative paths are the user's, from the current folder.

    Args:
        app: folder of the app whose pyproject.toml holds the defaults; None: those of the installed package.
        overrides: `key=value key2=value2` texts or the paths of TOML files, as `flwr run` takes them.
        resume: folder of a run to continue, as the key `run.resume` may name it, too; its config then takes the
            place of the defaults.
        nodes: how many; None: those of the resumed run, or else 6.

    Raises:
        ConfigError: one line with what is wrong.
        StateError: the run cannot be resumed; says why.
    """
    changes = {key: value for text in overrides for key, value in parse_overrides(text).items()}
    if resume is not None or changes.get("run.resume"):
        return _resumed(Path(_absolute_path(str(resume or changes["run.resume"]))), changes, nodes)
    config = RunConfig.parse(_absolute({**_defaults(app), **changes}))
    if clashes := fixed_otherwise(config.method, changes):  # also where it is set to what it is in other methods
        raise ConfigError("run-config: " + "; ".join(clashes))
    config = config if config.run.name else config.changed(run={"name": fresh_run_name()})
    folder = Path(config.run.runs_dir, config.run.name)
    if folder.exists():
        raise ConfigError(f"run.name {config.run.name!r} is taken: choose another{_or_continue(app, folder)}")
    return Arguments(config, folder, nodes or NODES)


def _resumed(folder: Path, changes: Mapping[str, Any], nodes: int | None) -> Arguments:
    """The run in a folder, going on with these changes; what would change nothing, or all, is refused."""
    run = PastRun.read(folder)
    before = _absolute(run.parsed().as_run_config())
    after = _absolute({**before, **changes, "run.resume": str(folder)})
    if changes.get("run.resume") and _absolute_path(changes["run.resume"]) != str(folder):
        raise ConfigError(
            f"--resume is {folder} but run-config key 'run.resume' is {changes['run.resume']!r}: leave one out"
        )
    for key in ("run.name", "run.runs-dir"):
        if after[key] != before[key]:
            raise ConfigError(
                f"{key} changes nothing where a run is resumed, its results stay in {folder}: leave it out"
            )
    config = RunConfig.parse(after)
    replace(run, config=before).require(config)
    if nodes and run.partitions and nodes != run.partitions:
        raise ConfigError(
            f"--nodes is {nodes} but {folder} was started with {run.partitions}: each node would have other data. "
            "Leave it out"
        )
    states = Path(config.run.state_dir, run.lineage)
    if run.taken and not any((states / node).is_dir() for node in run.taken):
        raise ConfigError(
            f"run.state-dir {config.run.state_dir} has nothing of {folder} (lineage {run.lineage}): every teacher "
            "would start "
            "afresh. Set run.state-dir to where the nodes' states are, or start a new run"
        )
    return Arguments(config, folder, nodes or run.partitions or NODES)


def _or_continue(app: Path | None, folder: Path) -> str:
    """How to go on with a run, where that is possible."""
    try:
        over = PastRun.read(folder).finished
    except StateError:
        over = True
    return "" if over else f", or continue that run with: {resume_command(app, folder)}"


def resume_command(app: Path | None, folder: Path, *options: str) -> str:
    """What to type, anywhere, to go on with the run in `folder`."""
    named = [str(app.resolve())] if app else []
    return shlex.join(["fedkd", "run", *named, "--resume", str(folder), *options])


def gather_for_check(app: Path | None, overrides: Iterable[str]) -> tuple[RunConfig | None, list[str]]:
    """The config of a run and all that is wrong with it; keys that are wrong are left as the app has them.

    Returns:
        The config, None where its keys do not fit together; and each mistake in a line.

    Raises:
        ConfigError: the folder is no app, or an override cannot be read.
    """
    defaults = _defaults(app)
    raw = _absolute({**defaults, **{key: value for text in overrides for key, value in parse_overrides(text).items()}})
    mistakes = RunConfig.mistakes(raw)
    mended = (
        raw
        if not mistakes
        else _absolute(defaults) | {key: value for key, value in raw.items() if key in defaults and key not in mistakes}
    )
    return None if RunConfig.mistakes(mended) else RunConfig.parse(mended), list(mistakes.values())


def parse_overrides(text: str, what: str = "run-config override") -> dict[str, Any]:
    """The mapping of a `key=value key2=value2` text with TOML values, or of a TOML file.

    Raises:
        ConfigError: a part of the text is no pair, or a value is no TOML; says `what` it is.
    """
    try:
        if text.endswith(".toml"):
            return flat(tomllib.loads(Path(text).expanduser().read_text(encoding="utf-8")))
        if rest := _PAIR.sub("", text).strip():
            raise ConfigError(f"{what} {text!r}: {rest!r} is not key=value")
        return flat(tomllib.loads("\n".join(f"{key} = {value}" for key, value in _PAIR.findall(text))))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}: file {text} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{what} {text!r} is not TOML ({error}): strings need double quotes, key="value"') from None


def _defaults(app: Path | None) -> dict[str, Any]:
    """The run-config of an app; of the installed package without one."""
    if app is None:
        return dict(RunConfig.defaults())
    path = app / "pyproject.toml"
    try:
        with path.open("rb") as file:
            config = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    except OSError as error:
        raise ConfigError(f"{app} is no Flower app: {path} cannot be read ({error.strerror})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except KeyError:
        raise ConfigError(f"{path} has no [tool.flwr.app.config]: it is not the app of fedkd-flwr") from None
    return flat(config)


def _absolute(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with absolute paths: Flower's processes run in folders of their own."""
    return {key: _absolute_value(key, value) if isinstance(value, str) else value for key, value in config.items()}


def _absolute_value(key: str, value: str) -> str:
    if key in _FOLDERS and value:
        return _absolute_path(value)
    if key in _DATA_FILES and ":" in value:
        kind, _, path = value.partition(":")
        if kind == "hf" and not Path(path).expanduser().is_dir():
            return value
        return f"{kind}:{_absolute_path(path)}" if path else value
    if key == "model.teachers":
        return ",".join(_absolute_value("model.teacher", name.strip()) for name in value.split(","))
    if key in _MODELS and value and Path(value).expanduser().is_dir():
        return _absolute_path(value)
    return value


def _absolute_path(path: str) -> str:
    return str(Path.cwd() / Path(path).expanduser())
