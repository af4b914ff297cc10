from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, norm

from egtmetrics.training import EDMNoise, NoiseLaw, NoiseLevels, ThinCellWarning, VENoise, VPNoise, heun_sample

LAWS: dict[str, NoiseLaw] = {"EDM": EDMNoise(), "VP": VPNoise(), "VE": VENoise()}
every_law = pytest.mark.parametrize("name", LAWS)


def test_edges_of_edm() -> None:
    edges = NoiseLevels(EDMNoise(), n_bins=8).edges
    assert [round(float(edge), 3) for edge in edges] == [0.076, 0.134, 0.205, 0.301, 0.441, 0.677, 1.198]


def test_edges_of_the_other_laws() -> None:
    """sigma(t) of VP at t = 1e-5 + (1 - 1e-5) k/4, and 0.02 * 5000^(k/4) of VE."""
    times = [1e-5 + (1 - 1e-5) * k / 4 for k in (1, 2, 3)]
    expected = [math.sqrt(math.exp(19.9 * t**2 / 2 + 0.1 * t) - 1) for t in times]
    assert NoiseLevels(VPNoise(), n_bins=4).edges.tolist() == pytest.approx(expected, rel=1e-12)
    expected = [0.02 * 5000 ** (k / 4) for k in (1, 2, 3)]
    assert NoiseLevels(VENoise(), n_bins=4).edges.tolist() == pytest.approx(expected, rel=1e-12)


@given(st.floats(1e-12, 1.0 - 1e-12))
def test_quantiles_invert_the_distribution_functions(u: float) -> None:
    x = torch.tensor(u, dtype=torch.float64)
    assert norm.cdf((math.log(float(EDMNoise().quantile(x))) + 1.2) / 1.2) == pytest.approx(u, rel=1e-8)
    assert math.log(float(VENoise().quantile(x)) / 0.02) / math.log(5000) == pytest.approx(u, abs=1e-12)
    law = VPNoise()
    assert float(law.time(law.quantile(x))) == pytest.approx(1e-5 + (1 - 1e-5) * u, rel=1e-10)


@given(st.floats(1e-6, 1e3))
def test_time_of_vp_inverts_sigma(sigma: float) -> None:
    """Without the cancellation of the usual form of the root, which has no correct digit at 1e-6."""
    law = VPNoise()
    assert float(law.sigma(law.time(torch.tensor(sigma, dtype=torch.float64)))) == pytest.approx(sigma, rel=1e-12)


@every_law
def test_levels_are_equally_probable(name: str) -> None:
    """Chi-square of 80,000 draws over 8 levels; rejects with probability 1e-6 (and at a fixed seed never)."""
    levels = NoiseLevels(LAWS[name], n_bins=8)
    sigma = LAWS[name].sample(80_000, generator=torch.Generator().manual_seed(0))
    assert sigma.dtype == torch.float32
    assert chisquare(torch.bincount(levels.bin_of(sigma), minlength=8).numpy()).pvalue > 1e-6


@every_law
def test_an_edge_lies_in_the_upper_level(name: str) -> None:
    levels = NoiseLevels(LAWS[name], n_bins=5)
    assert levels.bin_of(levels.edges).tolist() == [1, 2, 3, 4]
    below = torch.nextafter(levels.edges, torch.zeros(()).double())
    assert levels.bin_of(below).tolist() == [0, 1, 2, 3]
    assert levels.bin_of(levels.edges.reshape(2, 2)).shape == (2, 2)


@every_law
def test_one_level_holds_all(name: str) -> None:
    levels = NoiseLevels(LAWS[name], n_bins=1)
    assert levels.edges.tolist() == []
    assert levels.bin_of(torch.tensor([1e-9, 1.0, 1e9])).tolist() == [0, 0, 0]


@every_law
def test_draws_come_from_the_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second = (LAWS[name].sample(50, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert LAWS[name].sample(3, dtype=torch.float64).dtype == torch.float64


def test_a_uniform_number_of_zero_gives_no_sigma_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda n, **options: torch.zeros(n, dtype=options["dtype"]))
    for law in LAWS.values():
        assert (law.sample(2) > 0).all()


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_invalid_sigma(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma holds values that are not positive"):
        NoiseLevels(EDMNoise()).bin_of(torch.tensor([1.0, sigma]))


def test_thin_cells() -> None:
    levels = NoiseLevels(EDMNoise(), n_bins=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert levels.check_batch(128, [0.75, 0.25]) == 4.0
    with pytest.warns(ThinCellWarning, match=r"batch of 64 has 2 samples .*\(proportion 0.25\).*take n_bins=4,"):
        levels.check_batch(64, [0.75, 0.25])
    with pytest.warns(ThinCellWarning, match="take n_bins=1,"):
        levels.check_batch(8, torch.tensor([0.9, 0.1]))


@every_law
def test_a_device_without_float64_has_the_same_noise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU in the place of MPS, with its float32."""
    law = LAWS[name]
    levels, u = NoiseLevels(law, n_bins=4), torch.rand(1000, generator=torch.Generator().manual_seed(0))
    sigma = law.quantile(u)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    samples = heun_sample(lambda x, sigma, labels: x / (1.0 + sigma[:, None] ** 2), x)
    monkeypatch.setattr("egtmetrics.training._precision.exact_dtype", lambda device: torch.float32)
    monkeypatch.setattr("egtmetrics.training.noise.exact_dtype", lambda device: torch.float32)
    assert law.quantile(u).dtype == torch.float32
    torch.testing.assert_close(law.quantile(u).double(), sigma, rtol=1e-3, atol=0)
    assert torch.equal(levels.bin_of(sigma), (4 * u).long())
    drawn = law.sample(1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.double(), sigma, rtol=1e-3, atol=0)  # rand in float32 draws u
    again = heun_sample(lambda x, sigma, labels: x / (1.0 + sigma[:, None] ** 2), x)
    torch.testing.assert_close(again, samples, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDMNoise(std=0.0), "std=0.0"),
        (lambda: VENoise(sigma_max=0.01), "sigma_max=0.01"),
        (lambda: VENoise(sigma_min=0.0), "sigma_min=0.0"),
        (lambda: VPNoise(beta_d=-1.0), "beta_d=-1.0"),
        (lambda: VPNoise(beta_min=0.0), "beta_min=0.0"),
        (lambda: VPNoise(epsilon=1.0), "epsilon=1.0"),
        (lambda: NoiseLevels(EDMNoise(), n_bins=0), "n_bins=0"),
        (lambda: EDMNoise().sample(0), "n=0"),
        (lambda: NoiseLevels(EDMNoise()).check_batch(0, [1.0]), "batch_size=0"),
        (lambda: NoiseLevels(EDMNoise()).check_batch(8, [3, 1]), "proportions"),
    ],
)
def test_bad_options(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
