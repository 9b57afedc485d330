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

from fedkd_flwr.cli.run_arguments import gather, parse_overrides  # noqa: E402
from fedkd_flwr.config.schema import RunConfig  # noqa: E402
from fedkd_flwr.errors import ConfigError, FedKDError  # noqa: E402
from fedkd_flwr.tracking.past_run import PastRun  # noqa: E402


def config_of(name: str, overrides: str, *, resume: bool) -> RunConfig:
    """The config of run `name`, new or continued, with `overrides` as `key=value key2=value2`."""
    folder = Path("runs", name).absolute()
    changes = parse_overrides(overrides)
    if fixed := {"run.name", "run.runs-dir", "run.resume"}.intersection(changes):
        raise ConfigError(f"run-config key {min(fixed)!r} is set by docker/run.sh: leave it out")
    if resume:
        run = PastRun.read(folder)
        config = RunConfig.parse({**run.config, **changes, "run.resume": str(folder)})
        run.require(config)
        return config
    if folder.exists():
        raise ConfigError(f"{name!r} is taken: choose another name, or continue it: docker/run.sh --resume {name}")
    return gather(APP, [overrides, 'run.runs-dir="runs"', f'run.name="{name}"']).config


def main() -> None:
    arguments = sys.argv[1:]
    resume = arguments[:1] == ["--resume"]
    name, *overrides = arguments[resume:]
    try:
        print(tomli_w.dumps(config_of(name, " ".join(overrides), resume=resume).as_run_config()), end="")
    except FedKDError as error:
        sys.exit(f"docker/run.sh: {error}")


if __name__ == "__main__":
    main()
