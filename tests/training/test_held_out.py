"""Held-out losses by group: against closed forms, paired across models, and nothing else touched."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from egtmetrics.training import (
    Denoiser,
    EDMPreconditioning,
    HeldOutLosses,
    NoiseLevels,
    ResidualMLP,
    group_means,
    held_out_losses,
)

EDM = EDMPreconditioning()
LEVELS = NoiseLevels(EDM.law, n_bins=3)


class OfNormals(Denoiser):
    """The best denoiser of group a, which is normal around 0 with standard deviation ``spreads[a]``."""

    def __init__(self, spreads: Tensor) -> None:
        super().__init__(nn.Identity(), EDM)
        self.spreads = spreads

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        variance = self.spreads[labels] ** 2
        return x * (variance / (variance + sigma**2))[:, None]


class Recording(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor]] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        self.calls.append((x, c_noise))
        self.modes.append(self.training)
        return torch.zeros_like(x)


def test_losses_of_the_best_denoiser_of_normals() -> None:
    """w s^2 sigma^2 / (s^2 + sigma^2), averaged over a level by quadrature.

    Six means, each within 5 of its standard errors: a false alarm in 4 of a million runs, none at a fixed seed.
    """
    spreads, n = torch.tensor([0.2, 0.8]), 3000
    groups = torch.arange(2 * n) % 2
    data = spreads[groups, None] * torch.randn(2 * n, 4, generator=torch.Generator().manual_seed(0))
    losses = held_out_losses(OfNormals(spreads), data, groups, LEVELS, labels=groups, n_draws=2)
    sigma = EDM.law.quantile((torch.arange(3000, dtype=torch.float64) + 0.5) / 3000)
    variances = spreads.double()[:, None] ** 2
    expected = (EDM.weight(sigma) * variances * sigma**2 / (variances + sigma**2)).view(2, 3, 1000).mean(2)
    assert losses.counts.tolist() == [n, n]
    assert bool(((losses.means - expected).abs() < 5 * losses.errors).all())
    assert bool((losses.errors < 0.02 * expected).all())


def test_errors_are_those_of_repetitions() -> None:
    """Over 200 draws of 50 samples the deviation of a mean is known to 5 %, and the mean of the errors to 1 %."""
    spreads = torch.tensor([0.5])
    generator = torch.Generator().manual_seed(0)
    means, errors = [], []
    for seed in range(200):
        data = 0.5 * torch.randn(50, 2, generator=generator)
        labels = torch.zeros(50, dtype=torch.long)
        found = held_out_losses(OfNormals(spreads), data, labels, LEVELS, labels=labels, n_draws=3, random_state=seed)
        means.append(found.means)
        errors.append(found.errors)
    ratio = torch.stack(errors).mean(0) / torch.stack(means).std(0)
    assert bool(((ratio > 0.75) & (ratio < 1.3)).all())


def test_noise_is_that_of_the_levels_and_the_same_for_every_model() -> None:
    first, second = Denoiser(Recording(), EDM), Denoiser(Recording(), EDM)
    data, groups = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    state = torch.get_rng_state()
    found = [held_out_losses(model.train(), data, groups, LEVELS, n_draws=2) for model in (first, second)]
    assert torch.equal(torch.get_rng_state(), state)
    assert first.training
    for a, b in zip(first.network.calls, second.network.calls, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert first.network.modes == [False] * 6
    for call, (_, c_noise) in enumerate(first.network.calls):
        place = torch.stack([EDM.law.quantile(torch.tensor((call + end) / 6)) for end in (1e-9, 1 - 1e-9)])
        sigma = (4.0 * c_noise).exp()
        assert bool(((sigma > 0.999 * place[0]) & (sigma < 1.001 * place[1])).all())  # two strata in each level
        assert LEVELS.bin_of(sigma).unique().tolist() == [call // 2]
    torch.testing.assert_close(found[0].means, found[1].means, rtol=0, atol=0)
    other = held_out_losses(second, data, groups, LEVELS, n_draws=2, random_state=1)
    assert not torch.equal(other.means, found[0].means)


def test_batches_do_not_matter() -> None:
    model = Denoiser(ResidualMLP(2, width=8, n_blocks=1), EDM)
    data, groups = torch.randn(31, 2, generator=torch.Generator().manual_seed(0)), torch.arange(31) % 3
    whole, parts = (held_out_losses(model, data, groups, LEVELS, batch_size=size) for size in (1024, 7))
    torch.testing.assert_close(whole.means, parts.means)
    torch.testing.assert_close(whole.errors, parts.errors)


def test_means_of_groups() -> None:
    rng = np.random.default_rng(0)
    losses, groups = rng.random((30, 2)), rng.permutation(np.repeat([0, 1, 3], 10))
    found = group_means(torch.as_tensor(losses), torch.as_tensor(groups), 5)
    assert found.counts.tolist() == [10, 10, 0, 10, 0]
    for group in (0, 1, 3):
        own = losses[groups == group]
        np.testing.assert_allclose(found.means[group], own.mean(axis=0))
        np.testing.assert_allclose(found.errors[group], own.std(axis=0, ddof=1) / math.sqrt(10))
    assert bool(found.means[[2, 4]].isnan().all())
    assert bool(found.errors[[2, 4]].isnan().all())
    one = group_means(torch.tensor([2.0, 4.0], dtype=torch.bfloat16, requires_grad=True), torch.tensor([0, 0]))
    assert (one.means.tolist(), one.errors.tolist(), one.means.dtype) == ([[3.0]], [[1.0]], torch.float64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3), torch.zeros(2)), r"per_sample has shape \(3,\) and groups \(2,\)"),
        ((torch.ones(0), torch.zeros(0)), "with one sample at least"),
        ((torch.ones(2, 2, 2), torch.zeros(2)), r"expected \(n,\) or \(n, n_bins\)"),
        ((torch.ones(2), torch.tensor([0, -1])), "groups holds values from -1 to 0, expected 0 to 0"),
        ((torch.ones(2), torch.tensor([0, 2]), 2), "from 0 to 2, expected 0 to 1"),
    ],
)
def test_bad_groups(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_means(*arguments)


@pytest.mark.parametrize("name", ["groups", "labels"])
def test_shapes_that_do_not_fit(name: str) -> None:
    arguments: dict[str, Any] = {"groups": torch.zeros(4, dtype=torch.long), name: torch.zeros(3, dtype=torch.long)}
    with pytest.raises(ValueError, match=rf"{name} has shape \(3,\), expected one per sample of data, \(4,\)"):
        held_out_losses(Denoiser(Recording(), EDM), torch.zeros(4, 2), noise=LEVELS, **arguments)


def test_a_group_without_samples_is_no_reference() -> None:
    found = held_out_losses(
        Denoiser(Recording(), EDM), torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), LEVELS, n_groups=2
    )
    assert isinstance(found, HeldOutLosses)
    assert found.means[1].isnan().all()
