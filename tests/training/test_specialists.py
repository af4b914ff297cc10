"""Specialists: a branch for each group, which is what training on that group alone gives."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from egtmetrics.training import (
    Denoiser,
    EDMPreconditioning,
    GroupBranches,
    MeanLoss,
    NoiseLevels,
    ResidualMLP,
    held_out_losses,
    heun_sample,
    train_specialists,
    train_until_best,
)

GENERATOR = torch.Generator().manual_seed(0)
GROUPS = torch.arange(90) % 3 // 2
DATA = 0.2 * torch.randn(90, 2, generator=GENERATOR) + GROUPS[:, None] - 0.5
KNOWN, HELD_OUT = slice(0, 60), slice(60, 90)
OPTIONS: dict[str, Any] = {"n_steps": 20, "look_every": 10, "batch_size": 32, "learning_rate": 1e-2, "random_state": 3}


def build(seed: int = 0) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResidualMLP(2, width=8, n_blocks=1)
        torch.nn.init.normal_(network.last.weight)
        return Denoiser(network, EDMPreconditioning())


LEVELS = NoiseLevels(build().preconditioning.law, n_bins=2)


def test_every_branch_is_trained_on_its_group_alone(tmp_path: Path) -> None:
    base = build()
    before = copy.deepcopy(base.state_dict())
    arguments = (DATA[KNOWN], GROUPS[KNOWN], DATA[HELD_OUT], GROUPS[HELD_OUT], LEVELS)
    found = train_specialists(base, *arguments, folder=tmp_path / "new", **OPTIONS)
    torch.testing.assert_close(base.state_dict(), before, rtol=0, atol=0)
    own = held_out_losses(found.denoiser, *arguments[2:], labels=GROUPS[HELD_OUT])
    for group in range(2):
        rows, held_out = DATA[KNOWN][GROUPS[KNOWN] == group], DATA[HELD_OUT][GROUPS[HELD_OUT] == group]
        zeros = [torch.zeros(len(x), dtype=torch.long) for x in (rows, held_out)]
        alone = train_until_best(build(), rows, zeros[0], lambda _: MeanLoss(1), LEVELS, held_out, zeros[1], **OPTIONS)
        assert alone.losses == found.stops[group].losses
        model = build().eval()
        model.load_state_dict(alone.weights)
        x, sigma = torch.randn(5, 2, generator=GENERATOR), torch.rand(5, generator=GENERATOR) + 0.1
        labels = torch.full((5,), group)
        torch.testing.assert_close(found.denoiser(x, sigma, labels), model(x, sigma), rtol=0, atol=0)
        assert found.stops[group].step in (10, 20)
        assert own.means[group].mean() < held_out_losses(base, *arguments[2:]).means[group].mean()
    assert not found.denoiser.training
    resumed = train_specialists(base, *arguments, folder=tmp_path / "new", **OPTIONS)
    torch.testing.assert_close(resumed.denoiser.state_dict(), found.denoiser.state_dict(), rtol=0, atol=0)
    samples = heun_sample(found.denoiser, torch.randn(6, 2, generator=GENERATOR), labels=torch.arange(6) % 2, n_steps=4)
    assert samples.shape == (6, 2)


def test_rows_go_through_the_network_of_their_label() -> None:
    networks = [build(seed).network for seed in range(3)]
    branches = GroupBranches(networks)
    x, noise = torch.randn(12, 2, generator=GENERATOR), torch.rand(12, generator=GENERATOR)
    labels = torch.tensor([2, 0, 0, 2] * 3)
    output = branches(x, noise, labels)
    for group in (0, 2):
        torch.testing.assert_close(output[labels == group], networks[group](x, noise)[labels == group])
    output[labels == 2].sum().backward()
    assert networks[2].last.weight.grad is not None
    assert networks[1].last.weight.grad is None
    touched = networks[0].last.weight.grad
    assert touched is None or not touched.any()
    with pytest.raises(ValueError, match="labels are missing"):
        branches(x, noise)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match="expected integers from 0 to 2"):
            branches(x, noise, torch.full((12,), wrong))


@pytest.mark.parametrize(
    ("groups", "held_out", "message"),
    [
        ([0, 0, 1], [0, 0], r"groups has \[2, 1\] samples .*, held_out_groups \[2\]; expected some of every group"),
        ([0, 0], [0, 1], "expected some of every group in both"),
        ([0, 2], [0, 2], r"\[1, 0, 1\]"),
    ],
)
def test_every_group_needs_samples(groups: list[int], held_out: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_specialists(
            build(),
            torch.zeros(len(groups), 2),
            torch.tensor(groups),
            torch.zeros(len(held_out), 2),
            torch.tensor(held_out),
            LEVELS,
            n_steps=1,
        )
