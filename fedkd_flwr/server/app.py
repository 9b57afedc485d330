"""What the server does with a run: run config -> strategy -> rounds -> what a run leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import fedkd_flwr.runtime.libraries  # noqa: F401
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.live.channel import warnings_told
from fedkd_flwr.models.compatibility import check_models
from fedkd_flwr.runtime.flower_log import log_in_single_lines
from fedkd_flwr.server.grid import ReliableGrid
from fedkd_flwr.server.run_folder import open_run
from fedkd_flwr.server.strategy import FedKD
from fedkd_flwr.tracking.environment import start_of

app = ServerApp()
log_in_single_lines()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or go on with, one federated training."""
    run(grid, context.run_config)


def run(grid: Grid, run_config: Mapping[str, Any]) -> Path:
    """Run, or go on with, one federated training.

    Args:
        grid: leads to the nodes.
        run_config: flat mapping of run-config keys.

    Returns:
        The run's folder.

    Raises:
        FedKDError: the run cannot be finished; says why and how it may go on.
    """
    config = RunConfig.parse(run_config)
    folder, state = open_run(config)
    check_models(config)
    state.history.environment.append(start_of(state.round + 1))
    strategy = FedKD(config, folder, state)
    with warnings_told():
        try:
            strategy.run(ReliableGrid(grid, strategy.heard))
        finally:
            folder.close()
    return folder.path
