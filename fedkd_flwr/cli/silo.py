"""`fedkd silo`: what the owner of a node's data does with a run before their node takes part."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from fedkd_flwr.cli.run_arguments import gather_for_check, parse_overrides
from fedkd_flwr.cli.terminal import BAD_INPUT, err, one_line_errors, out, say
from fedkd_flwr.config.node_config import config_at_node
from fedkd_flwr.config.policy import Policy, policy_of
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.privacy import approved

silo = typer.Typer(name="silo", no_args_is_help=True, help="For the owner of a node's data: what may leave the node.")

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's TOML file, or overrides 'key=value', as for `fedkd check -c`.")
]
AppOption = Annotated[Path, typer.Option("--app", help="Folder of the app, whose pyproject.toml has the other keys.")]


@silo.command()
def check(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="The policy, a TOML file.")],
    run: RunArgument,
    app: AppOption = Path(),
) -> None:
    """Say all that the policy in file POLICY does not allow of run RUN; no data are opened.

    Exit code: 0 the run is allowed; 2 it is not, or an input is wrong.
    """
    from fedkd_flwr.privacy.enforcement import violations

    with one_line_errors(BAD_INPUT):
        allowed = Policy.read(policy)
        config, mistakes = gather_for_check(app, [run])
        found = [*mistakes, *([] if config is None else map(str, violations(allowed, config)))]
        for line in found:
            err.print(f"fedkd: {line}")
        if found:
            raise typer.Exit(BAD_INPUT)
        say("allowed")


@silo.command()
def preview(
    run: RunArgument,
    node_config: Annotated[str, typer.Option(help="Node config of the node, as its SuperNode takes it.")],
    app: AppOption = Path(),
) -> None:
    """Join run RUN into a folder that is then removed, and print every field that would leave the node.

    Nothing is sent, and nothing in the node's own folders is read or written but its data.
    Exit code: 0 the node can join; 2 it cannot, or an input is wrong.
    """
    from fedkd_flwr.client.client import Client
    from fedkd_flwr.messages import JoinRequest
    from fedkd_flwr.privacy.leaving import EVALUATE, JOIN, TRAIN
    from fedkd_flwr.runtime.device import set_threads

    with one_line_errors(BAD_INPUT), TemporaryDirectory(prefix="fedkd-") as folder:
        config, mistakes = gather_for_check(app, [run])
        if config is None or mistakes:
            raise ConfigError("; ".join(mistakes))
        owned = parse_overrides(node_config, "node config")
        if "data-path" not in owned:
            raise ConfigError("the node config has no data-path: what a simulated node tells is not bounded")
        client = Client(config, owned | {"state-dir": folder})
        set_threads(client.threads)
        joined = client.join(JoinRequest(lineage=_NO_LINEAGE))
        values = json.loads(joined.model_dump_json())
        say("the answer to join:")
        for field in JOIN:
            out.print(f"  {field} = {json.dumps(_value(values, field), ensure_ascii=False)}")
        bound = _update_bound(config, owned, joined.labels)
        for title, fields in (("to train, each round", TRAIN), ("to evaluate", EVALUATE)):
            say(f"the answer {title}:")
            for field, leaving in fields.items():
                out.print(f"  {field}: {leaving.says}; {bound if field == 'update' else leaving.bound}")


_NO_LINEAGE = 16 * "0"


def _value(values: dict[str, Any], field: str) -> Any:
    found: Any = values
    for name in field.split("."):
        found = found[name]
    return found


def _update_bound(config: RunConfig, node_config: dict[str, Any], labels: tuple[str, ...]) -> str:
    """How many bytes an update has at most, in words."""
    from fedkd_flwr import tensors
    from fedkd_flwr.codec.settings import codec_settings
    from fedkd_flwr.models.build import build_pair

    own, policy = config_at_node(config, node_config), policy_of(node_config)
    dense = tensors.dense_bytes(build_pair(own, labels, own.model.shared_head != "never").initial_shared)
    budgets = [codec_settings(own, round, dense).budget for round in range(1, own.num_rounds + 1)] if dense else [0]
    if None not in budgets:
        return f"{max(filter(None, budgets), default=0):,} bytes at most, of {dense:,} as float32"
    most = dense if policy is None else int(dense / policy.update.min_compression)
    return f"{most:,} bytes at most, of {dense:,} as float32, besides names and shapes"


@silo.command("install-wrapper")
def install_wrapper(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of its own, such as /etc/fedkd/bin.")],
) -> None:
    """Write the commands that let a SuperNode run approved apps only, and of those the code installed here.

    They count where DIR is first on the PATH of the SuperNode. What is approved in DIR stays.
    """
    with one_line_errors(BAD_INPUT):
        approved.install(folder)
        say(f"put it first on the PATH of the SuperNode, and of no SuperLink: export PATH={folder.absolute()}:$PATH")


@silo.command("hash")
def hash_app(app: Annotated[Path, typer.Argument(metavar="APP")] = Path()) -> None:
    """Print the hash of the Flower app in folder APP, by which it is approved."""
    with one_line_errors(BAD_INPUT):
        out.print(approved.app_hash(app))


@silo.command()
def approve(
    app: Annotated[str, typer.Argument(metavar="HASH", help="As `fedkd silo hash APP` and a node's refusal give it.")],
) -> None:
    """Let the SuperNodes that have the wrapper first on their PATH, as here, take part in runs of this app."""
    with one_line_errors(BAD_INPUT):
        folder = approved.installed()
        approved.approve(folder, app)
        say(f"approved in {folder / approved.APPROVED}; to withdraw it, delete its line there")
