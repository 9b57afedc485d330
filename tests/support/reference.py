"""FedKD in plain loops, after the paper's text: the oracle of the real system. No Flower, no codec, no state on disk.

It takes from the project only what is not under test here: initial models, examples, batches, and the order in which
a node visits its examples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_node_data
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.models.text import build_classifier, head_parameter_names


class ReferenceNode:
    """Data, teacher, W and optimiser of one node; its student is set at the start of each round."""

    def __init__(self, config: RunConfig, partition: int, partitions: int) -> None:
        self.config, self.partition = config, partition
        data = load_node_data(DataSettings.of(config), {"partition-id": partition, "num-partitions": partitions})
        self.task: Any = build_task(config, data.labels)
        self.examples = self.task.encode(data.train)
        self.teacher = model(config, data.labels, None)
        self.student = model(config, data.labels, config.model.student_layers)
        width = self.teacher.config.hidden_size
        self.maps = [torch.eye(width, requires_grad=True) for _ in range(config.model.student_layers)]
        groups = []
        for network in (self.teacher, self.student):
            heads = head_parameter_names(network)
            for name, parameter in network.named_parameters():
                if parameter.requires_grad:
                    own = config.train.teacher_learning_rate if network is self.teacher else config.train.learning_rate
                    rate = own * (config.train.head_learning_rate_factor if name in heads else 1)
                    decay = config.train.weight_decay if parameter.ndim > 1 else 0.0
                    groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
        groups.append(
            {"params": self.maps, "lr": config.train.learning_rate, "weight_decay": config.train.weight_decay}
        )
        self.optimizer = torch.optim.AdamW(groups)

    def train(self, round: int, student: dict[str, Tensor]) -> dict[str, Tensor]:
        """One round from the given student; the student's update."""
        config = self.config
        set_student(self.student, student)
        seed = np.random.SeedSequence([config.seed, round, self.partition])
        order = np.random.default_rng(seed).permutation(len(self.examples))
        rows = [int(row) for row in order[: config.train.local_steps * config.train.batch_size]]
        for batch in self.task.batches(self.examples, config.train.batch_size, rows):
            self.optimizer.zero_grad()
            self.backward(batch)
            for parameters in (trainable(self.student), {**trainable(self.teacher), **dict(enumerate(self.maps))}):
                norm = sum((p.grad**2).sum() for p in parameters.values()) ** 0.5
                for parameter in parameters.values():
                    parameter.grad *= min(1.0, config.train.max_grad_norm / (float(norm) + 1e-6))
            self.optimizer.step()
        return {name: p.detach() - student[name] for name, p in trainable(self.student).items()}

    def backward(self, batch: dict[str, Tensor]) -> None:
        """Eqs 1-7: each model's own total loss, differentiated with respect to that model alone."""
        labels, mask = batch.pop("labels"), batch["attention_mask"].bool()
        t = self.teacher(**batch, output_hidden_states=True, output_attentions=True)
        s = self.student(**batch, output_hidden_states=True, output_attentions=True)
        log_t, log_s = t.logits.log_softmax(-1), s.logits.log_softmax(-1)
        count = len(labels)
        task_t = -sum(log_t[i, labels[i]] for i in range(count)) / count  # Eq 1
        task_s = -sum(log_s[i, labels[i]] for i in range(count)) / count  # Eq 2
        z = (task_t + task_s).detach().clamp(min=1.0)
        kl_t = (log_s.exp() * (log_s - log_t)).sum(-1).mean() / z  # Eq 3
        kl_s = (log_t.exp() * (log_t - log_s)).sum(-1).mean() / z  # Eq 4
        depth_t, depth_s = len(t.attentions), len(s.attentions)
        matched = 0
        for j in range(1, depth_s + 1):
            layer = j * depth_t // depth_s
            errors = t.hidden_states[layer] - s.hidden_states[j] @ self.maps[j - 1].T
            matched = matched + (errors[mask] ** 2).mean() / depth_s
            pairs = mask[:, None, :, None] & mask[:, None, None, :]
            errors = t.attentions[layer - 1] - s.attentions[j - 1]
            matched = matched + (errors[pairs.expand_as(errors)] ** 2).mean() / depth_s
        hidden = matched / z  # Eq 5
        for total, own in (
            (task_t + kl_t + hidden, list(trainable(self.teacher).values())),  # Eq 6
            (task_s + kl_s + hidden, [*trainable(self.student).values(), *self.maps]),  # Eq 7
        ):
            for parameter, gradient in zip(own, torch.autograd.grad(total, own, retain_graph=True), strict=True):
                parameter.grad = gradient


def reference_run(config: RunConfig, partitions: int) -> tuple[dict[str, Tensor], list[ReferenceNode]]:
    """All rounds: the shared student and the nodes at the end."""
    nodes = [ReferenceNode(config, partition, partitions) for partition in range(partitions)]
    student = {name: p.detach().clone() for name, p in trainable(nodes[0].student).items()}
    total = sum(len(node.examples) for node in nodes)
    for round in range(1, config.num_rounds + 1):
        share = (round - 1) / max(1, config.num_rounds - 1)
        energy = config.codec.energy_start + (config.codec.energy_end - config.codec.energy_start) * share  # Eq 9
        mean = {name: torch.zeros_like(tensor) for name, tensor in student.items()}
        for node in nodes:
            for name, update in node.train(round, student).items():
                mean[name] += len(node.examples) / total * truncated(update, energy)
        student = {name: tensor + truncated(mean[name], energy) for name, tensor in student.items()}
    return student, nodes


def truncated(update: Tensor, energy: float) -> Tensor:
    """Eq 8: the update after it went over the wire."""
    if update.ndim < 2:
        return update
    u, s, vt = np.linalg.svd(update.double().numpy(), full_matrices=False)
    kept = np.cumsum(s**2) / np.sum(s**2)
    rank = int(np.argmax(kept > energy)) + 1
    if rank * sum(update.shape) >= update.numel():
        return update
    return torch.tensor((u[:, :rank] * s[:rank]) @ vt[:rank], dtype=torch.float32)


def model(config: RunConfig, labels: Sequence[str], layers: int | None) -> Any:
    """An initial model."""
    return build_classifier(
        config.model.teacher,
        num_layers=layers,
        labels=labels,
        pooling=config.model.pooling,
        attentions=True,
        seed=config.seed,
    )


def trainable(network: torch.nn.Module) -> dict[Any, Tensor]:
    """Parameters that are trained."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def set_student(network: torch.nn.Module, values: dict[str, Tensor]) -> None:
    """Put values into the trained parameters."""
    with torch.no_grad():
        for name, parameter in trainable(network).items():
            parameter.copy_(values[name])
