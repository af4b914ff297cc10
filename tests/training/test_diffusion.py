"""Against Gaussian data, whose optimal denoiser, loss and flow are known in closed form.

For x ~ N(mu, Sigma) and noise of deviation s: D(x; s) = mu + Sigma (Sigma + s^2 I)^-1 (x - mu), its squared error is
the trace of s^2 Sigma (Sigma + s^2 I)^-1, and the flow moves (x - mu) along an eigenvector of value v as sqrt(v + s^2).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from egtmetrics.training import (
    Denoiser,
    EDMPreconditioning,
    MinMaxLoss,
    NoiseLevels,
    Preconditioning,
    ResidualMLP,
    VEPreconditioning,
    VPPreconditioning,
    WeightEMA,
    denoising_losses,
    heun_sample,
)

PRECONDITIONINGS: dict[str, Preconditioning] = {
    "EDM": EDMPreconditioning(),
    "VP": VPPreconditioning(),
    "VE": VEPreconditioning(),
}
every_preconditioning = pytest.mark.parametrize("name", PRECONDITIONINGS)
sigmas = st.floats(0.002, 80.0)


class Gaussian(nn.Module):
    """The network F whose Denoiser is optimal for N(mean, covariance): F = (D - c_skip x) / c_out."""

    def __init__(self, mean: Tensor, covariance: Tensor, preconditioning: Preconditioning, sigma: Tensor) -> None:
        super().__init__()
        self.mean, self.preconditioning, self.sigma = mean, preconditioning, sigma
        self.values, self.vectors = torch.linalg.eigh(covariance)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        shrink = self.values / (self.values + sigma[:, None] ** 2)
        return self.mean + (shrink * ((x - self.mean) @ self.vectors)) @ self.vectors.T

    def forward(self, scaled: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        c = self.preconditioning.scalings(self.sigma[:, None])
        x = scaled / c.in_
        return (self.denoise(x, self.sigma) - c.skip * x) / c.out


MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.2]], dtype=torch.float64)


def gaussian(sigma: Tensor, preconditioning: Preconditioning) -> Denoiser:
    return Denoiser(Gaussian(MEAN, COVARIANCE, preconditioning, sigma), preconditioning)


@given(sigmas)
def test_identities_of_edm(s: float) -> None:
    """Unit variance of inputs and targets, weights that cancel c_out, and the smallest c_out of all c_skip."""
    sigma, d = torch.tensor(s, dtype=torch.float64), 0.5
    edm = EDMPreconditioning()
    c = edm.scalings(sigma)
    variances = [
        c.in_**2 * (d**2 + sigma**2),
        ((1 - c.skip) ** 2 * d**2 + c.skip**2 * sigma**2) / c.out**2,
        edm.weight(sigma) * c.out**2,
    ]
    assert [float(v) for v in variances] == pytest.approx([1.0] * 3, rel=1e-12)
    assert float(c.skip) == pytest.approx(d**2 / (s**2 + d**2))
    assert float(c.noise) == pytest.approx(math.log(s) / 4)
    for skip in (float(c.skip) - 1e-3, float(c.skip) + 1e-3):
        assert (1 - skip) ** 2 * d**2 + skip**2 * s**2 > float(c.out) ** 2


@given(sigmas)
def test_identities_of_vp_and_ve(s: float) -> None:
    """Both predict the noise (VE minus it), of unit variance; VP's input has unit variance for unit data."""
    sigma = torch.tensor(s, dtype=torch.float64)
    for name, sign in (("VP", -1.0), ("VE", 1.0)):
        preconditioning = PRECONDITIONINGS[name]
        c = preconditioning.scalings(sigma)
        assert (float(c.skip), float(c.out)) == (1.0, sign * s)
        assert float(preconditioning.weight(sigma) * c.out**2) == pytest.approx(1.0)
    vp, ve = (PRECONDITIONINGS[name].scalings(sigma) for name in ("VP", "VE"))
    assert float(vp.in_) ** 2 * (1 + s**2) == pytest.approx(1.0)
    inverse = (math.sqrt(0.01 + 39.8 * math.log(1 + s**2)) - 0.1) / 19.9
    assert float(vp.noise) == pytest.approx(999 * inverse, rel=1e-6)
    assert (float(ve.in_), float(ve.noise)) == (1.0, pytest.approx(math.log(s / 2)))


@every_preconditioning
@settings(max_examples=30)
@given(st.integers(0, 1000), sigmas)
def test_a_network_of_the_closed_form_gives_the_closed_form(name: str, seed: int, s: float) -> None:
    """Any preconditioning turns the right F into the optimal denoiser."""
    x = 3.0 * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sigma = torch.full((4,), s, dtype=torch.float64)
    denoiser = gaussian(sigma, PRECONDITIONINGS[name])
    expected = MEAN + (x - MEAN) @ torch.linalg.inv(COVARIANCE + s**2 * torch.eye(3).double()) @ COVARIANCE
    torch.testing.assert_close(denoiser(x, sigma), expected, rtol=1e-7, atol=1e-7)


@every_preconditioning
def test_loss_of_the_optimal_denoiser(name: str) -> None:
    """w(s) tr(s^2 Sigma (Sigma + s^2)^-1) / d at every level; |z| > 4.9 has a false-alarm rate of 1e-6 per level."""
    generator = torch.Generator().manual_seed(1)
    values, preconditioning = torch.linalg.eigvalsh(COVARIANCE), PRECONDITIONINGS[name]
    x = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)
    torch.manual_seed(2)
    for s in (0.05, 0.5, 5.0):
        sigma = torch.full((20_000,), s, dtype=torch.float64)
        losses = denoising_losses(gaussian(sigma, preconditioning), x.sample((20_000,)), sigma, generator=generator)
        error = float((s**2 * values / (values + s**2)).mean())
        expected = float(preconditioning.weight(torch.tensor(s))) * error
        assert losses.shape == (20_000,)
        assert abs(float(losses.mean()) - expected) < 4.9 * float(losses.std()) / math.sqrt(20_000)


def test_loss_of_edm_on_data_of_its_deviation_is_one_at_every_sigma() -> None:
    """With Sigma = d^2 I and mean 0 the optimal F is 0: w s^2 d^2 / (s^2 + d^2) = 1."""

    class Zero(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return torch.zeros_like(x)

    generator = torch.Generator().manual_seed(0)
    denoiser = Denoiser(Zero(), EDMPreconditioning())
    sigma = denoiser.preconditioning.law.sample(40_000, generator=generator)
    losses = denoising_losses(denoiser, 0.5 * torch.randn(40_000, 4, generator=generator), sigma, generator=generator)
    levels = NoiseLevels(denoiser.preconditioning.law, n_bins=4).bin_of(sigma)
    for level in range(4):
        part = losses[levels == level]
        assert abs(float(part.mean()) - 1.0) < 4.9 * float(part.std()) / math.sqrt(len(part))


def test_loss_by_hand() -> None:
    """A denoiser that returns its input has the noise as its error."""

    class Zero(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return torch.zeros_like(x)

    noise = torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])
    losses = denoising_losses(
        Denoiser(Zero(), VEPreconditioning()), torch.ones(2, 1, 2), torch.tensor([2.0, 0.1]), noise=noise
    )
    torch.testing.assert_close(losses, torch.tensor([2.5, 4.5]))


@every_preconditioning
def test_noise_comes_from_the_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    sigma, x = torch.tensor([0.1, 1.0]), torch.ones(2, 3)
    denoiser = Denoiser(nn.Identity(), PRECONDITIONINGS[name])
    denoiser.network.forward = lambda x, c_noise, labels: 0.1 * x  # type: ignore[method-assign]
    first, second = (denoising_losses(denoiser, x, sigma, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def optimal(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
    values, vectors = torch.linalg.eigh(COVARIANCE)
    shrink = values / (values + sigma.double()[:, None] ** 2)
    return (MEAN + (shrink * ((x.double() - MEAN) @ vectors)) @ vectors.T).to(x.dtype)


def flow(latents: Tensor, sigma_max: float = 80.0) -> Tensor:
    values, vectors = torch.linalg.eigh(COVARIANCE)
    shrink = torch.sqrt(values / (values + sigma_max**2))
    return MEAN + (shrink * ((sigma_max * latents - MEAN) @ vectors)) @ vectors.T


def test_heun_follows_the_closed_flow() -> None:
    """Path by path, and at second order: half the step, a quarter of the error."""
    latents = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = [
        float((heun_sample(optimal, latents, n_steps=n, sigma_min=1e-4) - flow(latents)).abs().max())
        for n in (40, 80, 160)
    ]
    assert errors[0] < 0.03
    assert 3.0 < errors[0] / errors[1] < 5.0
    assert 3.0 < errors[1] / errors[2] < 5.0


def test_heun_samples_have_the_mean_and_covariance_of_the_data() -> None:
    """4000 samples; |z| > 4.9 has a false-alarm rate of 1e-6 per entry, plus 0.002 for the steps."""
    n = 4000
    samples = heun_sample(optimal, torch.randn(n, 3, generator=torch.Generator().manual_seed(1)).double(), n_steps=40)
    variances = COVARIANCE.diagonal()
    assert ((samples.mean(0) - MEAN).abs() < 4.9 * torch.sqrt(variances / n) + 0.02).all()
    deviation = torch.sqrt((COVARIANCE**2 + variances[:, None] * variances) / n)
    assert ((samples.T.cov() - COVARIANCE).abs() < 4.9 * deviation + 0.002).all()


def test_heun_evaluations_labels_and_dtypes() -> None:
    calls: list[tuple[torch.dtype, float]] = []

    def denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        calls.append((x.dtype, float(sigma[0])))
        return labels[:, None].to(x.dtype).expand_as(x)

    labels = torch.tensor([1, 5])
    samples = heun_sample(denoiser, torch.randn(2, 3), labels=labels, n_steps=40)
    torch.testing.assert_close(samples, labels[:, None].float().expand(2, 3))
    assert len(calls) == 79
    assert {dtype for dtype, _ in calls} == {torch.float32}
    assert (calls[0][1], calls[-1][1]) == (pytest.approx(80.0), pytest.approx(0.002))
    weight = torch.ones(1, requires_grad=True)
    assert not heun_sample(lambda x, sigma, labels: weight * x, torch.randn(2, 3)).requires_grad


def test_denoiser_on_images_and_under_autocast() -> None:
    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            assert c_noise.shape == (len(x),)
            return self.layer(x)

    denoiser = Denoiser(Convolution(), EDMPreconditioning())
    x, sigma = torch.randn(5, 1, 8, 8), torch.rand(5) + 0.1
    assert denoiser(x, sigma).shape == x.shape
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = denoising_losses(denoiser, x, sigma)
    assert losses.dtype == torch.float32
    assert losses.shape == (5,)


def test_weight_average_with_a_half_life() -> None:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightEMA(model, half_life=300, ramp_up=None)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(3):
        average.update(model, n_samples=100)
    assert average.model.weight.item() == pytest.approx(0.5)
    assert average(torch.zeros(1, 1)).item() == pytest.approx(model.bias.item())
    assert not any(weight.requires_grad for weight in average.parameters())


def test_weight_average_ramps_up() -> None:
    """After the first step a share 2^(-1/0.05) of the first weights is left; later the half-life holds."""
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightEMA(model, half_life=1000, ramp_up=0.05)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average.update(model, n_samples=100)
    assert average.model.weight.item() == pytest.approx(1.0 - 2.0**-20)
    average.n_seen.fill_(10**6)
    with torch.no_grad():
        model.weight.fill_(3.0)
    average.update(model, n_samples=1000)
    assert average.model.weight.item() == pytest.approx(2.0, rel=1e-5)


def test_weight_average_resumes_copies_buffers_and_is_never_trained() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    average = WeightEMA(model, half_life=100)
    model(torch.randn(8, 2))
    average.update(model, n_samples=8)
    assert torch.equal(average.model[1].running_mean, model[1].running_mean)
    assert int(average.model[1].num_batches_tracked) == 1
    resumed = WeightEMA(model, half_life=100)
    resumed.load_state_dict(average.state_dict())
    for each in (average, resumed):
        each.train()
        each.update(model, n_samples=8)
        assert not each.model.training
    torch.testing.assert_close(resumed.state_dict(), average.state_dict(), rtol=0, atol=0)


def test_weight_average_keeps_its_own_dtype_and_is_copied_into_a_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightEMA(model, half_life=100).double()
    before = copy.deepcopy(model)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    model(torch.randn(8, 2))
    average.update(model, n_samples=8)
    assert average.model[0].weight.dtype == torch.float64
    average.copy_to(before)
    assert before[0].weight.dtype == torch.float32
    for name, value in average.model.state_dict().items():
        assert torch.equal(before.state_dict()[name], value.to(before.state_dict()[name].dtype)), name
    assert before[0].weight.requires_grad
    assert before.training


def test_conditional_denoiser_learns_what_differs_between_groups() -> None:
    """Two groups at +1 and -1: their mean is the best without labels at large sigma; with labels each its own."""
    torch.manual_seed(0)
    groups = torch.arange(128) % 2
    x = (2.0 * groups - 1.0)[:, None].expand(-1, 4) * torch.ones(128, 4)
    denoiser = Denoiser(ResidualMLP(4, n_classes=2, width=32, n_blocks=1), EDMPreconditioning(sigma_data=1.0))
    loss, levels = MinMaxLoss(2, n_bins=2), NoiseLevels(denoiser.preconditioning.law, n_bins=2)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    for _ in range(150):
        sigma = denoiser.preconditioning.law.sample(128)
        optimizer.zero_grad()
        loss(denoising_losses(denoiser, x, sigma, labels=groups), groups, levels.bin_of(sigma)).backward()
        optimizer.step()
    samples = heun_sample(denoiser, torch.randn(20, 4), labels=torch.arange(20) % 2)
    assert ((samples.mean(1) > 0) == (torch.arange(20) % 2 == 1)).all()
    assert float((samples.abs() - 1.0).abs().mean()) < 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDMPreconditioning(sigma_data=0.0), "sigma_data=0.0"),
        (lambda: heun_sample(optimal, torch.zeros(1, 3), n_steps=1), "n_steps=1"),
        (lambda: heun_sample(optimal, torch.zeros(1, 3), sigma_min=0.0), "sigma_min=0.0"),
        (lambda: heun_sample(optimal, torch.zeros(1, 3), sigma_max=0.001), "sigma_max=0.001"),
        (lambda: heun_sample(optimal, torch.zeros(1, 3), rho=-1.0), "rho=-1.0"),
        (lambda: heun_sample(optimal, torch.zeros(3)), r"latents has shape \(3,\)"),
        (lambda: WeightEMA(nn.Linear(1, 1), half_life=0.0), "half_life=0.0"),
        (lambda: WeightEMA(nn.Linear(1, 1), ramp_up=0.0), "ramp_up=0.0"),
        (lambda: WeightEMA(nn.Linear(1, 1)).update(nn.Linear(1, 1), n_samples=0), "n_samples=0"),
    ],
)
def test_bad_options(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_shapes() -> None:
    denoiser = Denoiser(ResidualMLP(3, width=4, n_blocks=1), EDMPreconditioning())
    x, sigma = torch.zeros(2, 3), torch.ones(2)
    with pytest.raises(ValueError, match=r"sigma has shape \(3,\), expected one per sample of x, \(2,\)"):
        denoiser(x, torch.ones(3))
    with pytest.raises(ValueError, match=r"sigma has shape \(\)"):
        denoising_losses(denoiser, x, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"x has shape \(2,\)"):
        denoising_losses(denoiser, x[:, 0], sigma)
    with pytest.raises(ValueError, match=r"dtype torch\.float16"):
        denoising_losses(denoiser, x.half(), sigma)
    with pytest.raises(ValueError, match=r"noise has shape \(1, 3\), expected that of x, \(2, 3\)"):
        denoising_losses(denoiser, x, sigma, noise=x[:1])
