from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import betabinom

from egtmetrics.metrics.cover import precision_recall_cover
from tests import _golden
from tests.strategies import invalid_features, lattice_pairs

Pair = tuple[NDArray[Any], NDArray[Any]]


def oracle(real: NDArray[Any], fake: NDArray[Any], k: int = 3, factor: int = 3) -> dict[str, float]:
    """Is the k-th nearest real point of a fake point within its (C k)-th nearest fake point? And the reverse."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)

    def covered(points: NDArray[Any], others: NDArray[Any]) -> float:
        radii = np.sort(cdist(points, points), axis=1)[:, factor * k]
        return float(np.mean(np.sort(cdist(points, others), axis=1)[:, k - 1] <= radii))

    return {"precision": covered(fake, real), "recall": covered(real, fake)}


def hard_pairs() -> dict[str, Pair]:
    rng = np.random.default_rng(5)
    repeated = np.repeat(rng.normal(size=(15, 3)), 8, axis=0)
    return {
        "one feature": (rng.normal(size=(150, 1)), rng.normal(size=(90, 1))),
        "two features": (rng.normal(size=(90, 2)), rng.normal(size=(150, 2)) + 0.7),
        "more features than rows": (rng.normal(size=(20, 50)), rng.normal(size=(30, 50))),
        "C k + 1 rows": (rng.normal(size=(10, 2)), rng.normal(size=(11, 2))),
        "far from the origin": (rng.normal(size=(100, 4)) + 1e6, rng.normal(size=(80, 4)) + 1e6),
        "large unit": (rng.normal(size=(100, 4)) * 1e10, rng.normal(size=(100, 4)) * 1e10),
        "small unit": (rng.normal(size=(100, 4)) * 1e-5, rng.normal(size=(100, 4)) * 1e-5),
        "duplicates": (repeated, np.concatenate([repeated[::7], rng.normal(size=(60, 3))])),
        "integers": (rng.integers(0, 3, (120, 4)), rng.integers(0, 3, (90, 4))),
    }


HARD_PAIRS = hard_pairs()


@pytest.mark.parametrize("case", HARD_PAIRS)
def test_hard_data_against_the_definition(case: str) -> None:
    real, fake = HARD_PAIRS[case]
    assert precision_recall_cover(real, fake).scores() == pytest.approx(oracle(real, fake), rel=1e-13)


@pytest.mark.parametrize("name", _golden.GOLDEN_NAMES)
def test_golden_sets_against_the_definition(name: str) -> None:
    golden = _golden.load(name)
    expected = oracle(golden.real, golden.fake)
    assert precision_recall_cover(golden.real, golden.fake).scores() == pytest.approx(expected, rel=1e-13)


def test_dropped_modes_lower_only_recall() -> None:
    """This pins the order of arguments and the names of scores: fake points in 2 of 4 modes are precise."""
    rng = np.random.default_rng(0)
    centres = 100.0 * np.arange(4)
    real = rng.normal(size=(400, 2)) + np.repeat(centres, 100)[:, None]
    fake = rng.normal(size=(200, 2)) + np.repeat(centres[:2], 100)[:, None]
    dropped = precision_recall_cover(real, fake)
    assert dropped.precision > 0.95
    assert 0.45 < dropped.recall <= 0.5

    invented = precision_recall_cover(fake, real)
    assert (invented.precision, invented.recall) == (dropped.recall, dropped.precision)


def test_equal_laws_follow_the_beta_binomial() -> None:
    """A ball up to the C k-th of n - 1 neighbours has a mass distributed as Beta(C k, n - C k), for any law.

    |z| > 4.9 has a false-alarm rate of 1e-6 per score.
    """
    rng = np.random.default_rng(2)
    n, m, k, factor, rounds = 40, 30, 3, 2, 300
    scores = np.array(
        [
            list(
                precision_recall_cover(
                    rng.exponential(size=(n, 2)), rng.exponential(size=(m, 2)), n_neighbors=k, cover_factor=factor
                )
                .scores()
                .values()
            )
            for _ in range(rounds)
        ]
    )
    wide = factor * k
    expected = [betabinom.sf(k - 1, n, wide, m - wide), betabinom.sf(k - 1, m, wide, n - wide)]
    z = (scores.mean(axis=0) - expected) / (scores.std(axis=0, ddof=1) / np.sqrt(rounds))
    assert np.abs(z).max() < 4.9


def test_points_on_the_sphere_count() -> None:
    real, fake = np.ones((12, 2)), np.ones((11, 2))
    assert precision_recall_cover(real, fake).scores() == {"precision": 1.0, "recall": 1.0}
    line = np.arange(5.0)[:, None]
    # Radius 1 at every point (C k = 1): 5.0 is exactly on the sphere of 4.0.
    assert precision_recall_cover(line, line + 5.0, n_neighbors=1, cover_factor=1).recall == 1 / 5


@given(lattice_pairs(min_rows=7), st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 3), (3, 2)]), st.randoms())
def test_laws_that_hold_exactly(pair: Pair, options: tuple[int, int], random: Any) -> None:
    real, fake = pair
    k, factor = options

    def scores(x: NDArray[Any], y: NDArray[Any], cover_factor: int = factor) -> dict[str, float]:
        return precision_recall_cover(x, y, n_neighbors=k, cover_factor=cover_factor).scores()

    result = scores(real, fake)
    assert result == pytest.approx(oracle(real, fake, k, factor), rel=1e-13)
    assert all(0.0 <= score <= 1.0 for score in result.values())

    rows = random.sample(range(len(real)), len(real))
    assert scores(real[rows], fake[::-1]) == result
    assert scores(real + 1e6, fake + 1e6) == result  # float32 holds these integers exactly
    assert scores(real * 2.0**-30, fake * 2.0**-30) == result
    swapped = scores(fake, real)
    assert (swapped["precision"], swapped["recall"]) == (result["recall"], result["precision"])
    assert scores(real, real) == {"precision": 1.0, "recall": 1.0}
    if factor > 1:  # wider balls hold more
        narrow = scores(real, fake, 1)
        assert all(narrow[name] <= result[name] for name in result)


def test_result_records_what_ran() -> None:
    result = precision_recall_cover(np.eye(9), np.eye(9)[:7], n_neighbors=2, cover_factor=3, backend="reference")
    assert all(type(value) in (float, int, str) for key, value in result.to_dict().items() if key != "caveats")
    assert (result.backend, result.n_real, result.n_fake) == ("reference", 9, 7)
    assert (result.n_neighbors, result.cover_factor) == (2, 3)


@settings(max_examples=40)
@given(bad=invalid_features(n_features=3))
def test_bad_features_are_named(bad: Any) -> None:
    good = np.zeros((12, 3))
    with pytest.raises((ValueError, TypeError), match="real"):
        precision_recall_cover(bad, good)
    with pytest.raises((ValueError, TypeError), match="fake"):
        precision_recall_cover(good, bad)


def test_bad_options() -> None:
    nine, ten = np.zeros((9, 2)), np.zeros((10, 2))
    with pytest.raises(ValueError, match=r"real has 9 rows, but n_neighbors \* cover_factor = 9 needs at least 10"):
        precision_recall_cover(nine, ten)
    with pytest.raises(ValueError, match="fake has 9 rows"):
        precision_recall_cover(ten, nine)
    bad: tuple[Any, ...] = (0, -3, 1.5, True, None)
    for value in bad:
        with pytest.raises(ValueError, match="n_neighbors"):
            precision_recall_cover(ten, ten, n_neighbors=value)
        with pytest.raises(ValueError, match="cover_factor"):
            precision_recall_cover(ten, ten, cover_factor=value)
