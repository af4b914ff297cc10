"""Against mixtures of two Gaussians, whose density ratio and best denoisers are known in closed form.

Group a is N(m_a, v I). Under noise of deviation s it is N(m_a, (v + s^2) I), so everything else follows by Bayes' rule.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from egtmetrics.training import (
    Denoiser,
    DensityRatio,
    EDMNoise,
    EDMPreconditioning,
    MeanLoss,
    MinMaxLoss,
    NoiseLevels,
    ResidualMLP,
    ReweightedLoss,
    VPNoise,
    denoising_losses,
    fit_density_ratio,
    heun_sample,
    train,
)

MEANS = torch.tensor([[-0.5, 0.1], [0.6, -0.2]], dtype=torch.float64)
VARIANCE = 0.04
SOURCE = torch.tensor([0.8, 0.2], dtype=torch.float64)
TARGET = torch.tensor([0.5, 0.5], dtype=torch.float64)
sigmas = st.floats(0.002, 80.0)


def log_densities(x: Tensor, sigma: Tensor) -> Tensor:
    """Of each group under noise, ``(n, 2)``, up to a number that is the same for both."""
    squares = ((x[:, None] - MEANS.to(x.dtype)) ** 2).sum(2)
    return -squares / (2 * (VARIANCE + sigma[:, None].to(x.dtype) ** 2))


def denoise(x: Tensor, sigma: Tensor, proportions: Tensor) -> Tensor:
    """E[x_0 | x]: the groups' own, m + v / (v + s^2) (x - m), weighted by their probabilities."""
    posterior = torch.softmax(log_densities(x, sigma) + proportions.log().to(x.dtype), dim=1)
    shrink = (VARIANCE / (VARIANCE + sigma**2)).to(x.dtype)[:, None, None]
    means = MEANS.to(x.dtype)
    return (posterior[:, :, None] * (means + shrink * (x[:, None] - means))).sum(1)


def ratio_of_densities(x: Tensor, sigma: Tensor) -> Tensor:
    of_groups = log_densities(x, sigma)
    mixtures = [torch.logsumexp(of_groups + shares.log().to(x.dtype), dim=1) for shares in (TARGET, SOURCE)]
    return (mixtures[0] - mixtures[1]).exp()


class Exact(nn.Module):
    """The network of a DensityRatio that is exact for these Gaussians."""

    def forward(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        sigma = (4.0 * c_noise).exp()
        c = EDMPreconditioning().scalings(sigma)
        return log_densities(scaled / c.in_[:, None], sigma) / c.skip.sqrt()[:, None]


def exact_ratio(dtype: torch.dtype = torch.float64) -> DensityRatio:
    return DensityRatio(Exact(), target=TARGET, source=SOURCE).to(dtype)


def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clean samples in float64 and their groups, exactly in the proportions of the source."""
    groups = torch.arange(n) % 5 // 4
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return MEANS[groups] + math.sqrt(VARIANCE) * noise, groups


@settings(max_examples=50)
@given(st.integers(0, 1000), sigmas)
def test_closed_form(seed: int, s: float) -> None:
    """The weight is the ratio of the densities, and the shift leads from one best denoiser to the other."""
    sigma = torch.full((6,), s, dtype=torch.float64)
    x = draw(6, seed)[0] + s * torch.randn(6, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight, shift = exact_ratio()(x, sigma)
    torch.testing.assert_close(weight, ratio_of_densities(x, sigma), rtol=1e-6, atol=1e-9)
    expected = denoise(x, sigma, TARGET) - denoise(x, sigma, SOURCE)
    torch.testing.assert_close(shift, expected, rtol=1e-6, atol=1e-7)
    assert not weight.requires_grad
    assert not shift.requires_grad


@pytest.mark.parametrize("s", [0.5, 3.0])
def test_which_denoiser_each_loss_has_as_its_best(s: float) -> None:
    """The expected gradient is zero at the target's with the ratio and with weights of groups alike.

    Without the shift it is zero at that of the training data: the weight alone changes nothing. Gradients are summed
    over noisy samples, plain and times their coordinates: at most 6 means, |z| < 5.5 each, false alarms below 1e-6.
    """
    n = 40_000
    x, groups = draw(n, seed=1)
    sigma = torch.full((n,), s, dtype=torch.float64)
    noisy = x + s * torch.randn(n, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ratio, shift = exact_ratio()(noisy, sigma)
    ratio, of_group = ratio[:, None], (TARGET / SOURCE)[groups][:, None]
    of_target, of_source = (denoise(noisy, sigma, shares) for shares in (TARGET, SOURCE))
    tests = torch.cat([torch.ones(n, 1, dtype=torch.float64), noisy], dim=1)

    def z(gradients: Tensor) -> float:
        products = gradients[:, :, None] * tests[:, None, :]
        return float((products.mean(0) / products.std(0) * math.sqrt(n)).abs().max())

    assert z(ratio * (of_target - x - shift)) < 5.5
    assert z(of_group * (of_target - x)) < 5.5
    assert z(ratio * (of_source - x)) < 5.5
    assert z(ratio * (of_target - x)) > 20.0
    assert z(of_group - ratio) < 5.5  # the ratio is the mean of the weights, given the noisy sample,
    assert ratio.var() < of_group.var() * (0.7 if s == 0.5 else 0.1)  # and varies less


def test_losses_with_a_ratio_by_hand() -> None:
    """F = 0 returns c_skip times the noisy sample; the target is the clean one plus the shift."""

    class Zero(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return torch.zeros_like(x)

    denoiser = Denoiser(Zero(), EDMPreconditioning())
    x, noise, sigma = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -1.0]]), torch.tensor([0.5])
    shift = torch.tensor([[0.5, -0.25]])
    # c_skip = 1/2, w = 8: noisy (1.5, 1.5) to (.75, .75); target (1.5, 1.75); squares .5625 and 1.
    (loss,) = denoising_losses(denoiser, x, sigma, noise=noise, ratio=lambda *_: (torch.tensor([3.0]), shift))
    assert float(loss) == pytest.approx(3.0 * 8.0 * (0.5625 + 1.0) / 2)


def error_of(shift: Tensor, expected: Tensor) -> float:
    return float((shift - expected).square().sum(1).mean().sqrt())


def test_fitted_ratio_is_close_to_the_exact_one() -> None:
    x, groups = draw(4000, seed=3)
    before = torch.get_rng_state()
    ratio = fit_density_ratio(
        x.float(), groups, EDMNoise(mean=-0.5), n_steps=300, target=TARGET, learning_rate=2e-3, random_state=1
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert ratio.log_source.exp().tolist() == pytest.approx([0.8, 0.2])
    generator = torch.Generator().manual_seed(5)
    for s in (0.05, 0.3, 1.0, 5.0, 80.0):
        sigma = torch.full((4000,), s)
        noisy = draw(4000, seed=4)[0].float() + s * torch.randn(4000, 2, generator=generator)
        weight, shift = ratio(noisy, sigma)
        expected = denoise(noisy, sigma, TARGET) - denoise(noisy, sigma, SOURCE)
        assert weight.dtype == shift.dtype == torch.float32
        assert float((weight - ratio_of_densities(noisy, sigma)).abs().mean()) < 0.06
        assert abs(float(weight.mean()) - 1.0) < 0.03
        assert error_of(shift, expected) < 0.5 * error_of(torch.zeros_like(shift), expected)
    assert float((weight - 1.0).abs().max()) < 0.02  # at the last sigma


def test_training_with_a_ratio_reaches_the_denoiser_of_the_target() -> None:
    x, groups = draw(4000, seed=6)
    errors = {}
    for name, loss, ratio in (
        ("ratio", MeanLoss(2), exact_ratio(torch.float32)),
        ("groups", ReweightedLoss(target=TARGET, source=SOURCE), None),
    ):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            denoiser = Denoiser(ResidualMLP(2, width=48, n_blocks=1), EDMPreconditioning(law=EDMNoise(mean=-0.3)))
        noise = NoiseLevels(denoiser.preconditioning.law)
        run = train(
            denoiser, x.float(), groups, loss, noise, ratio=ratio, n_steps=300, batch_size=128, learning_rate=3e-3
        )
        sigma = torch.ones(2000)
        noisy = draw(2000, seed=7)[0].float() + torch.randn(2000, 2, generator=torch.Generator().manual_seed(8))
        denoised = run.ema(noisy, sigma).detach()
        errors[name] = [error_of(denoised, denoise(noisy, sigma, shares)) for shares in (TARGET, SOURCE)]
    for of_target, of_source in errors.values():
        assert of_target < 0.1 < 0.25 < of_source


def test_shift_alone_turns_a_denoiser_of_the_training_data_into_one_of_the_target() -> None:
    """Sampling draws the groups half and half; 4000 samples, 5 standard errors, false alarms below 1e-6."""
    ratio = exact_ratio()
    latents = torch.randn(4000, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    shares = []
    for shifted in (False, True):

        def denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None, shifted: bool = shifted) -> Tensor:
            plain = denoise(x, sigma, SOURCE)
            return plain + ratio(x, sigma).shift if shifted else plain

        samples = heun_sample(denoiser, latents, n_steps=24)
        shares.append(float((samples[:, 0] > MEANS[:, 0].mean()).double().mean()))
    assert abs(shares[0] - 0.2) < 5 * math.sqrt(0.16 / 4000)
    assert abs(shares[1] - 0.5) < 5 * math.sqrt(0.25 / 4000)


def random_ratio(seed: int, **options: Any) -> DensityRatio:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResidualMLP(2, n_outputs=2, width=16, n_blocks=1)
        nn.init.normal_(network.last.weight)
    return DensityRatio(network, **{"target": TARGET, "source": SOURCE, **options})


@settings(max_examples=50)
@given(st.integers(0, 1000), sigmas)
def test_any_network_in_float32(seed: int, s: float) -> None:
    """r lies between the weights of the groups, and near 1 at much noise; the shift does not grow with the noise."""
    x = (1.0 + s) * torch.randn(5, 2, generator=torch.Generator().manual_seed(seed))
    sigma = torch.full((5,), s)
    weight, shift = random_ratio(seed)(x, sigma)
    assert weight.dtype == shift.dtype == torch.float32
    assert ((weight > 0.625 - 1e-5) & (weight < 2.5 + 1e-5)).all()
    logits = random_ratio(seed).network(x / math.sqrt(s**2 + 0.25), sigma.log() / 4)
    # |d r / d logits| < r_max, and the logits count d / sqrt(s^2 + d^2) times.
    assert (weight - 1.0).abs().max() <= 2.5 * logits.abs().max() * 0.5 / math.sqrt(s**2 + 0.25) + 1e-5
    assert shift.isfinite().all()


def test_mixed_precision_is_switched_off() -> None:
    ratio, (x, _), sigma = random_ratio(0), draw(8, seed=0), torch.full((8,), 0.7)
    expected = ratio(x.float(), sigma)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        mixed = ratio(x.float(), sigma)
    for first, second in zip(expected, mixed, strict=True):
        assert torch.equal(first, second)


def test_a_target_without_a_group() -> None:
    """The samples of that group count next to nothing; no NaN comes of the logarithm of 0."""
    weight, shift = DensityRatio(Exact(), target=[1.0, 0.0], source=SOURCE)(MEANS, torch.full((2,), 0.1).double())
    assert weight.tolist() == pytest.approx([1.25, 0.0], abs=1e-4)
    assert shift.isfinite().all()


def fit(**options: Any) -> DensityRatio:
    x, groups = draw(50, seed=0)
    return fit_density_ratio(x.float(), groups, EDMNoise(), **{"batch_size": 8, **options})


class Dropout(nn.Module):
    """A classifier that draws random numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def dropout() -> Dropout:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dropout()


def test_resumed_fit_equals_uninterrupted(tmp_path: Path) -> None:
    path = tmp_path / "ratio.pt"
    whole = fit(n_steps=7, network=dropout())
    fit(n_steps=3, network=dropout(), checkpoint=path)
    resumed = fit(n_steps=7, network=dropout(), checkpoint=path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    noisy, sigma = draw(4, seed=1)[0].float(), torch.ones(4)
    assert torch.equal(resumed(noisy, sigma).weight, resumed.train()(noisy, sigma).weight)  # never any dropout
    x, groups = draw(50, seed=0)
    with pytest.raises(ValueError, match="comes from another training: law was"):
        fit_density_ratio(x.float(), groups, VPNoise(), n_steps=7, batch_size=8, network=dropout(), checkpoint=path)


def test_training_resumes_with_the_same_ratio_only(tmp_path: Path) -> None:
    x, groups = draw(50, seed=0)

    def run(ratio: DensityRatio, n_steps: int, checkpoint: Path | None = None, **options: Any) -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            denoiser = Denoiser(ResidualMLP(2, width=8, n_blocks=1), EDMPreconditioning())
        options = {"loss": MeanLoss(2), "noise": NoiseLevels(denoiser.preconditioning.law), **options}
        train(denoiser, x.float(), groups, n_steps=n_steps, batch_size=8, ratio=ratio, checkpoint=checkpoint, **options)
        return denoiser.state_dict()

    path = tmp_path / "denoiser.pt"
    whole = run(random_ratio(0), 5)
    run(random_ratio(0), 2, path)
    for name, value in run(random_ratio(0), 5, path).items():
        assert torch.equal(value, whole[name]), name
    with pytest.raises(ValueError, match="comes from another training: ratio was"):
        run(random_ratio(1), 5, path)
    with pytest.raises(ValueError, match="loss is a MinMaxLoss, but ratio has weights of its own; pass a MeanLoss"):
        run(random_ratio(0), 5, loss=MinMaxLoss(2))
    with pytest.raises(ValueError, match="labels and ratio exclude each other"):
        run(random_ratio(0), 5, labels=groups)


def test_refuses() -> None:
    network = ResidualMLP(2, width=8, n_blocks=1)
    with pytest.raises(ValueError, match="source has 2 columns, expected"):
        DensityRatio(network, target="ego", source=[[0.5, 0.4], [0.5, 0.6]])
    with pytest.raises(ValueError, match=r"source has no samples of group \[1\]"):
        DensityRatio(network, target="ego", source=[1.0, 0.0])
    with pytest.raises(ValueError, match=r"network returned the shape \(4, 2\), expected one number for each of 4"):
        DensityRatio(network, target="ego", source=[0.5, 0.3, 0.2])(torch.zeros(4, 2), torch.ones(4))
    x, groups = draw(50, seed=0)
    with pytest.raises(ValueError, match=r"network is missing, but data has shape \(50, 1, 2\)"):
        fit_density_ratio(x[:, None], groups, EDMNoise(), n_steps=1)
    with pytest.raises(ValueError, match=r"groups has shape \(49,\)"):
        fit_density_ratio(x, groups[1:], EDMNoise(), n_steps=1)
    with pytest.raises(ValueError, match="-1 as its lowest value"):
        fit_density_ratio(x, groups - 1, EDMNoise(), n_steps=1)
    with pytest.raises(ValueError, match=r"data has shape \(50,\)"):
        fit_density_ratio(x[:, 0], groups, EDMNoise(), n_steps=1)
    with pytest.raises(ValueError, match="n_steps=0"):
        fit(n_steps=0)
