"""The config of a run as TOML for `flwr run`, with each key as the run will have it.

docker/run.sh runs this in the SuperExec's container, in the folder whose runs/ holds the results. It refuses, before
anything is submitted, what the ServerApp would refuse later: a wrong key or value, a name that is taken.

usage: run_config.py [--resume] NAME [RUN-CONFIG]
"""

import sys
from pathlib import Path

import tomli_w

APP = Path(__file__).parent.parent
sys.path.insert(0, str(APP))

from fedkd_flwr.errors import FedKDError  # noqa: E402
from fedkd_flwr.run_arguments import gather, parse_overrides  # noqa: E402


def config_of(name: str, overrides: str, *, resume: bool) -> str:
    """The config of run `name`, new or continued, as TOML; `overrides` as `key=value key2=value2`."""
    folder = Path("runs", name)
    if fixed := {"run-name", "runs-dir", "resume"}.intersection(parse_overrides(overrides)):
        raise FedKDError(f"run-config key {min(fixed)!r} is set by docker/run.sh: leave it out")
    if resume and not (folder / "config.json").exists():
        there = ", ".join(sorted(path.parent.name for path in Path("runs").glob("*/config.json"))) or "none"
        raise FedKDError(f"there is no run {name!r} to continue on the server; runs there: {there}")
    if not resume and folder.exists():
        raise FedKDError(f"name {name!r} is taken: choose another, or continue that run: docker/run.sh --resume {name}")
    arguments = gather(APP, [overrides, 'runs-dir="runs"', f'run-name="{name}"'], folder if resume else None)
    return tomli_w.dumps(arguments.config.as_run_config())


def main() -> None:
    arguments = sys.argv[1:]
    resume = arguments[:1] == ["--resume"]
    name, *overrides = arguments[resume:]
    try:
        print(config_of(name, " ".join(overrides), resume=resume), end="")
    except FedKDError as error:
        sys.exit(f"docker/run.sh: {error}")


if __name__ == "__main__":
    main()
