"""Group losses in the loop of accelerate, which divides the loss of every part of a step."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from egtmetrics.training import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss

accelerate = pytest.importorskip("accelerate")

STRATEGIES: dict[str, Callable[[], GroupLoss]] = {
    "mean": lambda: MeanLoss(2),
    "min-max": lambda: MinMaxLoss(2),
    "group DRO": lambda: GroupDROLoss(2, step_size=0.5),
}
N_PARTS, N_STEPS = 4, 3
X = torch.randn(N_STEPS, 16, 3, generator=torch.Generator().manual_seed(0))
Y = 5.0 * torch.randn(N_STEPS, 16, generator=torch.Generator().manual_seed(1))
GROUPS = torch.arange(16) % 3 // 2


@pytest.fixture
def accelerator() -> Iterator[Any]:
    yield accelerate.Accelerator(cpu=True, gradient_accumulation_steps=N_PARTS)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def model() -> nn.Linear:
    made = nn.Linear(3, 1)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)
    return made


def losses(network: Any, x: Tensor, y: Tensor) -> Tensor:
    squares: Tensor = (network(x).squeeze(1) - y).square()
    return squares


def plain(loss: GroupLoss) -> Tensor:
    """SGD with clipped gradients, one backward pass for each step."""
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for x, y in zip(X, Y, strict=True):
        optimizer.zero_grad()
        with loss.accumulate(GROUPS):
            loss(losses(network, x, y), GROUPS).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
    return network.weight.detach()


def with_accelerate(accelerator: Any, loss: GroupLoss, **options: Any) -> Tensor:
    network = model()
    network, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), lr=0.1))
    for x, y in zip(X, Y, strict=True):
        with loss.accumulate(GROUPS, **options):
            for rows in torch.arange(16).chunk(N_PARTS):
                with accelerator.accumulate(network):
                    accelerator.backward(loss(losses(network, x[rows], y[rows]), GROUPS[rows]))
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(network.parameters(), 2.0)
                    optimizer.step()
                    optimizer.zero_grad()
    weight: Tensor = accelerator.unwrap_model(network).weight.detach()
    return weight


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_trains_as_the_plain_loop(accelerator: Any, strategy: str) -> None:
    """With SGD and clipping, which a gradient of another size would change."""
    loss, expected_loss = STRATEGIES[strategy](), STRATEGIES[strategy]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight = with_accelerate(accelerator, loss, divided_by=accelerator.gradient_accumulation_steps)
    expected = plain(expected_loss)
    assert float(expected.abs().max()) > 0.05
    torch.testing.assert_close(weight, expected)
    torch.testing.assert_close(loss.state_dict(), expected_loss.state_dict(), rtol=1e-5, atol=1e-6)


def test_a_division_that_nobody_announced_is_noticed(accelerator: Any) -> None:
    with pytest.warns(UserWarning, match="all 4 parts of a step were divided by 4.* pass divided_by=4") as caught:
        with_accelerate(accelerator, MinMaxLoss(2))
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("factor", [1.0, 0.25, 0.5])
def test_other_factors_are_no_division_by_the_number_of_parts(factor: float) -> None:
    """0.25 for two parts: a loss may well be one of several, with a weight."""
    loss, theta = MeanLoss(2), torch.ones((), requires_grad=True)
    divided = pytest.warns(UserWarning, match="divided by 2") if factor == 0.5 else contextlib.nullcontext()
    with divided, loss.accumulate(GROUPS):  # any other warning is an error
        for rows in torch.arange(16).chunk(2):
            (factor * loss(theta * Y[0, rows].abs(), GROUPS[rows])).backward()


def test_the_number_has_to_be_one() -> None:
    with pytest.raises(ValueError, match="divided_by=0"), MeanLoss(2).accumulate(GROUPS, divided_by=0):
        pass
