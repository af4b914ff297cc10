from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import betabinom

from egtmetrics.metrics.clipped import clipped_density_coverage
from egtmetrics.metrics.prdc import precision_recall_density_coverage
from tests import _golden
from tests.strategies import invalid_features, lattice_pairs

Pair = tuple[NDArray[Any], NDArray[Any]]


def raw_coverage(real: NDArray[Any], fake: NDArray[Any], k: int) -> float:
    """Mean over real points of min(1, fake points within the k-th neighbour / k)."""
    radii = np.sort(cdist(real, real), axis=1)[:, k]
    return float(np.minimum((cdist(real, fake) <= radii[:, None]).sum(axis=1) / k, 1.0).mean())


def expected_coverage(n: int, m: int, k: int) -> NDArray[np.float64]:
    """E min(B, k) / k for t = 0..m fake points of the real law, summed term by term."""
    values = np.arange(m + 1)
    return np.array([betabinom.pmf(values, t, k, n - k) @ np.minimum(values / k, 1.0) for t in range(m + 1)])


def oracle(real: NDArray[Any], fake: NDArray[Any], k: int = 5) -> dict[str, float]:
    """The definition on full float64 matrices; the expectation is inverted by a search, interval by interval."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    n, m = len(real), len(fake)
    among_real, among_both = cdist(real, real), cdist(real, fake)
    radii = np.sort(among_real, axis=1)[:, k]
    clipped = np.minimum(radii, np.median(radii))[:, None]
    others = (among_real <= clipped) & ~np.eye(n, dtype=bool)
    density = np.minimum((among_both <= clipped).sum(axis=0) / k, 1.0).mean()
    density /= np.minimum(others.sum(axis=0) / k, 1.0).mean()

    raw, expected = raw_coverage(real, fake, k), expected_coverage(n, m, k)
    equivalent = float(m)
    for t in range(m):
        if expected[t] <= raw < expected[t + 1]:
            equivalent = t + (raw - expected[t]) / (expected[t + 1] - expected[t])
            break
    return {"clipped_density": min(1.0, density), "clipped_coverage": equivalent / m}


def hard_pairs() -> dict[str, Pair]:
    rng = np.random.default_rng(13)
    repeated = np.repeat(rng.normal(size=(15, 3)), 7, axis=0)
    return {
        "one feature": (rng.normal(size=(151, 1)), rng.normal(size=(90, 1))),
        "two features": (rng.normal(size=(90, 2)), rng.normal(size=(150, 2)) + 0.7),
        "more features than rows": (rng.normal(size=(20, 50)), rng.normal(size=(30, 50))),
        "k + 1 real rows": (rng.normal(size=(6, 2)), rng.normal(size=(40, 2))),
        "fewer fakes than k": (rng.normal(size=(60, 2)), rng.normal(size=(3, 2))),
        "one fake": (rng.normal(size=(60, 2)), rng.normal(size=(1, 2))),
        "far from the origin": (rng.normal(size=(100, 4)) + 1e6, rng.normal(size=(80, 4)) + 1e6),
        "large unit": (rng.normal(size=(100, 4)) * 1e10, rng.normal(size=(100, 4)) * 1e10),
        "small unit": (rng.normal(size=(100, 4)) * 1e-5, rng.normal(size=(100, 4)) * 1e-5),
        "duplicates": (repeated, np.concatenate([repeated[::9], rng.normal(size=(60, 3))])),
        "integers": (rng.integers(0, 3, (121, 4)), rng.integers(0, 3, (90, 4))),
        "float32": (rng.normal(size=(100, 8)).astype(np.float32), rng.normal(size=(90, 8)).astype(np.float32)),
    }


HARD_PAIRS = hard_pairs()


@pytest.mark.parametrize("case", HARD_PAIRS)
def test_hard_data_against_the_definition(case: str) -> None:
    real, fake = HARD_PAIRS[case]
    assert clipped_density_coverage(real, fake).scores() == pytest.approx(oracle(real, fake), abs=1e-9)


@pytest.mark.parametrize("name", ["duplicates", "digits"])
def test_golden_sets_against_the_definition(name: str) -> None:
    golden = _golden.load(name)
    result = clipped_density_coverage(golden.real, golden.fake)
    assert result.scores() == pytest.approx(oracle(golden.real, golden.fake), abs=1e-8)


@pytest.mark.parametrize("good", [0.0, 0.25, 0.5, 0.75])
def test_scores_are_the_proportion_of_good_fakes(good: float) -> None:
    """The calibration: over 60 rounds the means are within 0.02 of the proportion of good fake points.

    Coverage c has exactly the expectation f(good m). f is concave, which costs less than 0.01 at these sizes. The
    standard error is below 0.003, so the other 0.01 is more than 3 of them. The false-alarm rate is below 1e-3 per
    case, and the seed is fixed.
    """
    rng = np.random.default_rng(17)
    n = m = 200
    scores = []
    for _ in range(60):
        real, fake = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
        fake[int(good * m) :] += 1e3
        scores.append(list(clipped_density_coverage(real, fake).scores().values()))
    assert np.abs(np.mean(scores, axis=0) - good).max() < 0.02


def test_raw_coverage_has_the_expectation_used_to_calibrate_it() -> None:
    """It holds for any law and dimension. |z| > 4.9 has a false-alarm rate of 1e-6."""
    rng = np.random.default_rng(19)
    n, m, k, rounds = 40, 25, 5, 400
    raw = [raw_coverage(rng.exponential(size=(n, 3)), rng.exponential(size=(m, 3)), k) for _ in range(rounds)]
    z = (np.mean(raw) - expected_coverage(n, m, k)[m]) / (np.std(raw, ddof=1) / np.sqrt(rounds))
    assert abs(z) < 4.9


def test_the_authors_step_function_differs_by_at_most_k_plus_1_in_m() -> None:
    rng = np.random.default_rng(23)
    n, m, k = 80, 70, 5
    steps = expected_coverage(n, m, k)
    steps[:k] = 0.0
    for shift in (0.0, 0.5, 1.5, 3.0, 4.0):
        real, fake = rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + shift
        authors = np.searchsorted(steps, raw_coverage(real, fake, k)) / (m + 1)
        assert clipped_density_coverage(real, fake).clipped_coverage == pytest.approx(authors, abs=(k + 1) / m)


def test_the_balls_of_real_outliers_count_for_nothing() -> None:
    """Real outliers have huge balls. Density counts far fake points as faithful; clipped density does not."""
    rng = np.random.default_rng(29)
    outliers = rng.normal(size=(20, 2)) * 1e3
    real = np.concatenate([rng.normal(size=(200, 2)), outliers])
    far = 100.0 + 50.0 * rng.normal(size=(150, 2))
    assert precision_recall_density_coverage(real, far).density > 0.3
    assert clipped_density_coverage(real, far).clipped_density < 0.02


def test_concentrated_fake_points_do_not_make_up_for_bad_ones() -> None:
    """The centre is in many balls, so density exceeds 1 although half of the fake points are far away."""
    rng = np.random.default_rng(31)
    real = rng.normal(size=(300, 8))
    fake = np.concatenate([0.01 * rng.normal(size=(100, 8)), rng.normal(size=(100, 8)) + 1e3])
    assert precision_recall_density_coverage(real, fake).density > 1.0
    assert clipped_density_coverage(real, fake).clipped_density < 1.0


def test_collapsed_generator_is_faithful_without_coverage() -> None:
    rng = np.random.default_rng(0)
    result = clipped_density_coverage(rng.normal(size=(300, 2)), 0.01 * rng.normal(size=(300, 2)))
    assert result.clipped_density > 0.95
    assert result.clipped_coverage < 0.05


def test_disjoint_sets_score_zero() -> None:
    rng = np.random.default_rng(0)
    result = clipped_density_coverage(rng.normal(size=(50, 2)), rng.normal(size=(40, 2)) + 1e3)
    assert result.scores() == {"clipped_density": 0.0, "clipped_coverage": 0.0}


def test_equal_points_score_one() -> None:
    result = clipped_density_coverage(np.ones((20, 3)), np.ones((30, 3)))
    assert result.scores() == {"clipped_density": 1.0, "clipped_coverage": 1.0}


@given(lattice_pairs(min_rows=4), st.integers(1, 3), st.randoms())
def test_laws_that_hold_exactly(pair: Pair, k: int, random: Any) -> None:
    real, fake = pair

    def scores(x: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        return clipped_density_coverage(x, y, n_neighbors=k).scores()

    result = scores(real, fake)
    assert result == pytest.approx(oracle(real, fake, k), abs=1e-9)
    assert all(0.0 <= score <= 1.0 for score in result.values())
    rows = random.sample(range(len(real)), len(real))
    assert scores(real[rows], fake[::-1]) == result
    assert scores(real + 1e6, fake + 1e6) == result  # float32 holds these integers exactly
    assert scores(real * 2.0**-30, fake * 2.0**-30) == result
    assert scores(real, real) == {"clipped_density": 1.0, "clipped_coverage": 1.0}


def test_many_fake_points_and_many_neighbours_stay_in_range() -> None:
    """The expectation saturates near 1 and its terms span hundreds of orders of magnitude."""
    rng = np.random.default_rng(37)
    real, fake = rng.normal(size=(60, 1)), rng.normal(size=(5000, 1))
    for k in (1, 30, 59):
        scores = clipped_density_coverage(real, fake, n_neighbors=k).scores()
        assert all(0.0 <= score <= 1.0 for score in scores.values())
        assert clipped_density_coverage(real, fake + 1e3, n_neighbors=k).clipped_coverage == 0.0


def test_result_records_what_ran() -> None:
    result = clipped_density_coverage(np.eye(9), np.eye(9)[:7], n_neighbors=2, backend="reference")
    assert all(type(value) in (float, int, str) for key, value in result.to_dict().items() if key != "caveats")
    assert (result.backend, result.n_real, result.n_fake, result.n_neighbors) == ("reference", 9, 7, 2)


@settings(max_examples=40)
@given(bad=invalid_features(n_features=3))
def test_bad_features_are_named(bad: Any) -> None:
    good = np.zeros((12, 3))
    with pytest.raises((ValueError, TypeError), match="real"):
        clipped_density_coverage(bad, good)
    with pytest.raises((ValueError, TypeError), match="fake"):
        clipped_density_coverage(good, bad)


def test_bad_options() -> None:
    five = np.zeros((5, 2))
    with pytest.raises(ValueError, match="real has 5 rows, but n_neighbors=5 needs at least 6"):
        clipped_density_coverage(five, five)
    bad: tuple[Any, ...] = (0, -1, 2.5, True, None)
    for value in bad:
        with pytest.raises(ValueError, match="n_neighbors"):
            clipped_density_coverage(five, five, n_neighbors=value)
