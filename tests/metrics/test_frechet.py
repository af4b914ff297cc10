from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics.metrics import frechet
from egtmetrics.metrics.frechet import frechet_distance
from egtmetrics.results import UnreliableScoreWarning
from tests import _golden
from tests.strategies import invalid_features, lattice_pairs, similarities

pytestmark = pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")  # of few rows


def oracle(real: NDArray[Any], fake: NDArray[Any]) -> float:
    """The formula, with the square root of the product of covariances by scipy.linalg.sqrtm."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    real_cov, fake_cov = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, fake))
    root = np.real(scipy.linalg.sqrtm(real_cov @ fake_cov))
    shift = real.mean(axis=0) - fake.mean(axis=0)
    return float(shift @ shift + np.trace(real_cov + fake_cov - 2 * root))


def sample_with_moments(
    rng: np.random.Generator, n: int, mean: NDArray[np.float64], factor: NDArray[np.float64]
) -> NDArray[np.float64]:
    """n points whose sample mean is ``mean`` and whose sample covariance is ``factor @ factor.T``, exactly."""
    d = len(mean)
    columns = rng.normal(size=(n, d))
    white, _ = np.linalg.qr(columns - columns.mean(axis=0))
    sample: NDArray[np.float64] = np.sqrt(n - 1) * white @ factor.T + mean
    return sample


def test_a_set_with_no_more_rows_than_features_is_a_caveat() -> None:
    real, fake = np.random.default_rng(0).normal(size=(2, 6, 5))
    assert frechet_distance(real, fake).caveats == ()
    with pytest.warns(UnreliableScoreWarning, match="fake has 5 rows for 5 features, so its covariance is singular"):
        (caveat,) = frechet_distance(real, fake[:5]).caveats
    assert caveat.startswith("fake has 5 rows")


@pytest.mark.parametrize("name", _golden.GOLDEN_NAMES)
def test_golden_data(name: str) -> None:
    golden = _golden.load(name)
    result = frechet_distance(golden.real, golden.fake)
    assert result.fid == pytest.approx(golden.expected["fid"]["numpy64"], rel=1e-6)
    assert result.fid == pytest.approx(golden.expected["fid"]["sqrtm"], rel=1e-6)
    assert result.fid == result.mean_term + result.covariance_term


@pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 1), (60, 30, 3), (400, 300, 24)])
def test_against_the_formula(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(d)
    real = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    fake = rng.normal(size=(m, d)) @ rng.normal(size=(d, d)) + 1.0
    assert frechet_distance(real, fake).fid == pytest.approx(oracle(real, fake), rel=1e-9)


def test_gaussians_with_commuting_covariances() -> None:
    """FID = |mu_r - mu_f|^2 + sum (sigma_i - tau_i)^2 if both covariances have the same axes."""
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    sigma, tau = rng.uniform(0.1, 3.0, size=(2, 6))
    real = sample_with_moments(rng, 40, np.full(6, 2.0), axes * sigma)
    fake = sample_with_moments(rng, 70, np.full(6, -1.0), axes * tau)
    result = frechet_distance(real, fake)
    assert result.mean_term == pytest.approx(6 * 3.0**2, rel=1e-12)
    assert result.covariance_term == pytest.approx(np.sum((sigma - tau) ** 2), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 300), (300, 5), (10, 40), (40, 41), (41, 40)])
def test_fewer_rows_than_features_or_about_as_many(n: int, m: int) -> None:
    """The product of singular covariances has no sqrtm, but its eigenvalues are real and non-negative."""
    rng = np.random.default_rng(n + m)
    d = 40
    real, fake = rng.normal(size=(n, d)), 2.0 * rng.normal(size=(m, d)) + 0.5
    real_cov, fake_cov = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    eigenvalues = np.linalg.eigvals(real_cov @ fake_cov).real.clip(0.0)
    shift = real.mean(axis=0) - fake.mean(axis=0)
    expected = shift @ shift + np.trace(real_cov + fake_cov) - 2 * np.sqrt(eigenvalues).sum()
    assert frechet_distance(real, fake).fid == pytest.approx(expected, rel=1e-6)


def test_padding_with_constant_features_changes_nothing() -> None:
    """The same data go through every branch: few or many rows for the number of features, singular covariances."""
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(30, 4)), 1.5 * rng.normal(size=(20, 4)) + 1.0
    expected = frechet_distance(real, fake).fid
    for padding in (1, 10, 20, 22, 26, 40):
        wide_real, wide_fake = (np.concatenate([x, np.full((len(x), padding), 3.0)], axis=1) for x in (real, fake))
        assert frechet_distance(wide_real, wide_fake).fid == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("shape", [(60, 5), (5, 60), (60, 60)])
def test_equal_sets_and_shifts(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=shape)
    assert frechet_distance(x, x).fid == pytest.approx(0.0, abs=1e-10 * shape[1])
    assert frechet_distance(x, x[::-1]).fid == pytest.approx(0.0, abs=1e-10 * shape[1])
    v = rng.normal(size=shape[1])
    result = frechet_distance(x, x + v)
    assert result.mean_term == pytest.approx(v @ v, rel=1e-12)
    assert result.covariance_term == pytest.approx(0.0, abs=1e-10 * shape[1])


@settings(max_examples=50)
@given(similarities(dimension=3), st.integers(0, 2**32 - 1))
def test_a_similarity_scales_the_distance(similarity: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(30, 3)), 1.5 * rng.normal(size=(20, 3)) + 1.0
    unit = np.ptp(similarity(np.array([[0.0] * 3, [1.0, 0.0, 0.0]])), axis=0)
    expected = frechet_distance(real, fake).fid * float(unit @ unit)
    assert frechet_distance(similarity(real), similarity(fake)).fid == pytest.approx(expected, rel=1e-6)


@given(lattice_pairs(min_rows=2, max_features=5), st.randoms())
def test_laws(pair: tuple[NDArray[Any], NDArray[Any]], random: Any) -> None:
    real, fake = pair
    result = frechet_distance(real, fake)
    assert result.mean_term >= 0.0
    assert result.covariance_term >= 0.0
    # Roots of eigenvalues that should be 0 limit the accuracy of the formula itself to about sqrt(eps).
    assert result.fid == pytest.approx(oracle_by_eigenvalues(real, fake), abs=1e-5)
    assert frechet_distance(fake, real).fid == pytest.approx(result.fid, abs=1e-6)
    rows = random.sample(range(len(real)), len(real))
    assert frechet_distance(real[rows], fake[::-1]).fid == pytest.approx(result.fid, abs=1e-6)
    assert frechet_distance(real + 1e6, fake + 1e6).fid == pytest.approx(result.fid, abs=1e-6)


def oracle_by_eigenvalues(real: NDArray[Any], fake: NDArray[Any]) -> float:
    """Like :func:`oracle`, but for covariances that may be singular, for which sqrtm is not defined."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    real_cov, fake_cov = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, fake))
    values, axes = np.linalg.eigh(real_cov)
    root = axes @ np.diag(np.sqrt(values.clip(0.0))) @ axes.T
    product = np.linalg.eigvalsh(root @ fake_cov @ root).clip(0.0)
    shift = real.mean(axis=0) - fake.mean(axis=0)
    return float(shift @ shift + np.trace(real_cov + fake_cov) - 2 * np.sqrt(product).sum())


@pytest.mark.parametrize("unit", [1e10, 1e-5, 1e70])
def test_units(unit: float) -> None:
    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(30, 4)), rng.normal(size=(40, 4)) + 1.0
    expected = frechet_distance(real, fake).fid * unit**2
    assert frechet_distance(real * unit, fake * unit).fid == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, 2.0**20), (np.float64, 2.0**46)])
def test_distance_from_the_origin_costs_no_digits(dtype: type[np.floating[Any]], offset: float) -> None:
    """The integers are exact with the offset, but a sum of 200 of them is not."""
    rng = np.random.default_rng(6)
    real, fake = (rng.integers(-8, 9, size=(n, 5)).astype(dtype) for n in (200, 150))
    result = frechet_distance(real + dtype(offset), fake + dtype(offset))
    assert result.fid == pytest.approx(oracle(real, fake), rel=1e-9)


def test_blocks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    real, fake = rng.normal(size=(101, 6)), rng.normal(size=(64, 6)) + 0.3
    whole = frechet_distance(real, fake).fid
    for rows in (1, 7, 100, 101):
        monkeypatch.setattr(frechet, "_BLOCK_BYTES", 8 * 6 * rows)
        assert frechet_distance(real, fake).fid == pytest.approx(whole, rel=1e-12)


def test_memory_mapped_features_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "_BLOCK_BYTES", 1 << 16)
    rng = np.random.default_rng(8)
    np.save(tmp_path / "real.npy", rng.normal(size=(40_000, 16)).astype(np.float32))
    real = np.load(tmp_path / "real.npy", mmap_mode="r")
    fake = rng.normal(size=(100, 16)).astype(np.float32)
    tracemalloc.start()
    try:
        frechet_distance(real, fake)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < real.nbytes / 4


def test_bias_of_equal_laws() -> None:
    """The docstring's v d (d + 5) / 4 (1/n + 1/m), to first order: within 10 % at n = m = 100 d.

    Terms of second order are about d / n = 1 %, and the standard error of the mean of 40 rounds is below 2 %.
    """
    rng = np.random.default_rng(9)
    n, d = 2000, 20
    fids = [frechet_distance(3 * rng.normal(size=(n, d)), 3 * rng.normal(size=(n, d))).fid for _ in range(40)]
    assert np.mean(fids) == pytest.approx(9 * d * (d + 5) / 4 * (2 / n), rel=0.1)


def test_result_and_scores() -> None:
    result = frechet_distance(np.eye(5), 2 * np.eye(5)[:4])
    assert result.scores() == {"fid": result.fid}
    assert all(type(value) in (float, int, str) for key, value in result.to_dict().items() if key != "caveats")
    assert (result.backend, result.n_real, result.n_fake) == ("numpy", 5, 4)


@settings(max_examples=40)
@given(bad=invalid_features(n_features=3))
def test_bad_features_are_named(bad: Any) -> None:
    good = np.zeros((12, 3))
    with pytest.raises((ValueError, TypeError), match="real"):
        frechet_distance(bad, good)
    with pytest.raises((ValueError, TypeError), match="fake"):
        frechet_distance(good, bad)


def test_one_row_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="real has 1 row, but a covariance needs at least 2"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="fake has 1 row"):
        frechet_distance(np.zeros((5, 3)), np.zeros((1, 3)))
