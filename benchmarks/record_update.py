"""Record real updates of a student: the first layers of MiniLM, trained on the tweets as one node would.

    python -m benchmarks.record_update update.safetensors --steps 10 --rounds 2

The file holds, for each round r and trained tensor NAME, "r/NAME": weights after minus weights before, float32.
"""

import argparse
import tomllib
from pathlib import Path

import torch
from safetensors.torch import save_file

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_node_data
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.models.text import build_classifier

ROOT = Path(__file__).parent.parent


def record(steps: int, rounds: int, layers: int, learning_rate: float) -> dict[str, torch.Tensor]:
    """The updates of `rounds` rounds of `steps` steps of AdamW, batches of 16."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        config = RunConfig.parse(tomllib.load(file)["tool"]["flwr"]["app"]["config"])
    data = load_node_data(DataSettings.of(config), {"partition-id": 0, "num-partitions": 4})
    task = build_task(config, data.labels)
    examples = task.encode(data.train)
    model = build_classifier(
        config.model.teacher, num_layers=layers, labels=data.labels, pooling="mean", attentions=False, seed=config.seed
    )
    torch.manual_seed(config.seed)
    order = torch.randint(len(data.train), (16 * steps * rounds,)).tolist()
    batches = task.batches(examples, 16, order)
    shared = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(shared.values(), lr=learning_rate)
    updates: dict[str, torch.Tensor] = {}
    for round in range(rounds):
        before = {name: parameter.detach().clone() for name, parameter in shared.items()}
        for _ in range(steps):
            batch = next(batches)
            labels = batch.pop("labels")
            loss = task.task_loss(model(**batch).logits, labels)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        updates |= {f"{round}/{name}": parameter.detach() - before[name] for name, parameter in shared.items()}
        print(f"round {round}: loss of the last batch {loss:.3f}")
    return updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--steps", type=int, default=10, help="optimiser steps of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    arguments = parser.parse_args()
    updates = record(arguments.steps, arguments.rounds, arguments.layers, arguments.learning_rate)
    save_file(updates, arguments.path)
    print(f"{arguments.path}: {len(updates)} tensors, {sum(t.numel() for t in updates.values()) * 4 / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
