"""What a GPU makes of a node's round, and how often its encoder waits for the host.

    python benchmarks/gpu.py OUT [--device cpu] [--steps 0]

First two nodes share the bundled tweets for two rounds of a whole epoch (`--steps`: of so many steps) with the defaults
of pyproject.toml: seconds of a node by part. Then updates of 4 layers, 768 wide, and 2 layers, 1024 wide, are encoded:
the least seconds of several times, and in how many places the host waited for the GPU.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from common import in_one_process

from benchmarks.codec import ENERGY, student
from fedkd_flwr.codec import Budget, UpdateCodec
from fedkd_flwr.runtime.device import choose_device

ROUNDS = 2
PARTS = ("setup", "state", "train", "codec", "evaluate")


def federate(out: Path, device: str, steps: int) -> list[dict[str, float]]:
    """Seconds of each round by part, the mean over both nodes."""
    from fedkd_flwr.simulation import run_federation

    settings = {
        "data.partition": "iid",
        "num-rounds": ROUNDS,
        "federation.evaluate-every": 1,
        "train.local-steps": steps,
        "run.device": device,
    }
    places = {"run.runs-dir": str(out / "runs"), "run.name": "gpu", "run.state-dir": str(out / "state")}
    run_federation(in_one_process(settings | places, nodes=2))
    rounds = json.loads((out / "runs" / "gpu" / "history.json").read_text())["rounds"]
    return [{part: entry["seconds"].get(part, 0.0) / 2 for part in PARTS} for entry in rounds]


def timed(run: Callable[[], object], device: torch.device, repeats: int = 5) -> tuple[float, int]:
    """The least seconds of `repeats` calls after a first one, and the places in which a call waited for the GPU."""
    run()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    if device.type == "cpu":
        return best, 0
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        run()
    torch.cuda.set_sync_debug_mode("default")
    return best, sum("synchronizing" in str(wait.message) for wait in waits)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--steps", type=int, default=0)
    arguments = parser.parse_args()
    chosen = choose_device(arguments.device, "auto")
    device = chosen.device
    print(chosen.name)
    print(f"{'round':>6}" + "".join(f"{part:>12}" for part in (*PARTS, "codec/train")))
    for number, seconds in enumerate(federate(arguments.out, arguments.device, arguments.steps), start=1):
        cells = "".join(f"{seconds[part]:12.2f}" for part in PARTS)
        print(f"{number:6}{cells}{seconds['codec'] / seconds['train']:12.1%}")
    print(f"\n{'':24}{'encode s':>10}{'waits':>7}{'tensors':>9}")
    for layers, width in ((4, 768), (2, 1024)):
        update = {name: tensor.to(device) for name, tensor in student(layers, width).items()}
        dense = 4 * sum(tensor.numel() for tensor in update.values())
        for label, codec in (
            (f"energy {ENERGY}", UpdateCodec(ENERGY)),
            ("budget 128x", UpdateCodec(allocation=Budget(dense // 128))),
        ):
            seconds, waits = timed(lambda codec=codec, update=update: codec.encode(update), device)
            print(f"{f'{layers} x {width}, {label}':24}{seconds:10.3f}{waits:7}{len(update):9}")


if __name__ == "__main__":
    main()
