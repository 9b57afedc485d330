"""The proximal term against its laws."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import Classification
from test_trainer import CPU, LinearPair, batches, optimizer_of
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW

from fedkd_flwr.distillation import LocalTraining, Weights
from fedkd_flwr.distillation.proximal import pull_back


@given(mu=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e6]), seed=st.integers(0, 2**31))
@settings(max_examples=15)
def test_training_comes_to_rest_where_loss_and_term_together_are_least(mu: float, seed: int) -> None:
    """Of |w - target|^2 / 2 + mu |w - origin|^2 / 2, whatever AdamW scales the gradient by."""
    origin, target = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))
    w = Parameter(origin.clone())
    optimizer = AdamW([w], lr=0.05, weight_decay=0.0)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 600)
        w.grad = w.detach() - target
        optimizer.step()
        pull_back(optimizer, {w: origin}, mu)
    assert torch.allclose(w.detach(), (target + mu * origin) / (1 + mu), atol=0.01)


def trained(mu: float) -> dict[str, Tensor]:
    """How far each parameter has gone, without distillation."""
    pair = LinearPair()
    before = {name: tensor.clone() for name, tensor in pair.state_dict().items()}
    training = LocalTraining(Classification(), Weights(0.0, 0.0, 0.0, 0.0), proximal=mu)
    training.run(pair, optimizer_of(pair), batches(8), CPU)
    return {name: tensor - before[name] for name, tensor in pair.state_dict().items()}


def test_the_stronger_the_term_the_smaller_the_update_and_private_parameters_are_free() -> None:
    free, lengths = trained(0.0), []
    for mu in (0.0, 0.1, 1.0, 10.0, 1e12):
        gone = trained(mu)
        assert all(torch.equal(gone[name], free[name]) for name in gone if name.startswith("teacher."))
        lengths.append(sum(float(gone[name].square().sum()) for name in gone if name.startswith("student.")))
    assert all(stronger < weaker for weaker, stronger in pairwise(lengths)) and lengths[-1] == 0.0
