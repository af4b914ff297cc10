from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from egtmetrics.metrics.p_precision_recall import p_precision_recall
from tests import _golden
from tests.strategies import invalid_features, lattice_pairs

TOLERANCE = 1e-5
"""The accuracy that the kernels promise for sums and products of distances."""


def oracle(real: NDArray[Any], fake: NDArray[Any], k: int = 4, a: float = 1.2) -> dict[str, float]:
    """The formula on full float64 matrices; a radius of 0 means the limit."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)

    def score(support: NDArray[Any], points: NDArray[Any]) -> float:
        radius = a * np.sort(cdist(support, support), axis=1)[:, k].mean()
        distances = cdist(points, support)
        covered = 1.0 - distances / radius if radius > 0 else (distances == 0).astype(np.float64)
        return float(np.mean(1.0 - np.prod(1.0 - np.maximum(covered, 0.0), axis=1)))

    return {"precision": score(real, fake), "recall": score(fake, real)}


def hard_pairs() -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    rng = np.random.default_rng(11)
    return {
        "one feature": (rng.normal(size=(150, 1)), rng.normal(size=(90, 1))),
        "two features": (rng.normal(size=(70, 2)), rng.normal(size=(120, 2)) + 0.5),
        "more features than rows": (rng.normal(size=(20, 50)), rng.normal(size=(30, 50))),
        "k + 1 rows": (rng.normal(size=(5, 2)), rng.normal(size=(6, 2))),
        "far from the origin": (rng.normal(size=(100, 4)) + 1e6, rng.normal(size=(100, 4)) + 1e6),
        "large unit": (rng.normal(size=(100, 4)) * 1e10, rng.normal(size=(80, 4)) * 1e10),
        "small unit": (rng.normal(size=(100, 4)) * 1e-5, rng.normal(size=(80, 4)) * 1e-5),
        "integers": (rng.integers(0, 4, (120, 3)), rng.integers(0, 4, (90, 3))),
        "float32": (rng.normal(size=(100, 8)).astype(np.float32), rng.normal(size=(90, 8)).astype(np.float32)),
        "apart": (rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) + 1e3),
    }


HARD_PAIRS = hard_pairs()


@pytest.mark.parametrize("case", HARD_PAIRS)
def test_hard_data_against_the_definition(case: str) -> None:
    real, fake = HARD_PAIRS[case]
    assert p_precision_recall(real, fake).scores() == pytest.approx(oracle(real, fake), abs=TOLERANCE)


@pytest.mark.parametrize("name", _golden.GOLDEN_NAMES)
def test_golden_sets_against_the_definition(name: str) -> None:
    golden = _golden.load(name)
    result = p_precision_recall(golden.real, golden.fake)
    assert result.scores() == pytest.approx(oracle(golden.real, golden.fake), abs=TOLERANCE)


def test_points_on_a_line_in_closed_form() -> None:
    """Real points 0..9 with k = 2: the second neighbour is at 2 for both ends and at 1 elsewhere, so R = a * 1.2."""
    real = np.arange(10.0)[:, None]
    fake = np.array([[4.0], [4.5], [9.6], [-50.0], [30.0]])
    result = p_precision_recall(real, fake, n_neighbors=2, radius_factor=1.0)
    assert result.real_radius == pytest.approx(1.2)
    on_a_point, between, beyond = 1.0, 1.0 - (0.5 / 1.2) ** 2, 1.0 - 0.6 / 1.2
    assert result.precision == pytest.approx((on_a_point + between + beyond) / 5, abs=TOLERANCE)


def test_radius_zero_counts_exact_copies() -> None:
    real = np.repeat([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]], 5, axis=0)
    fake = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0 + 1e-6], [5.0, 5.0], [2.0, 0.0]])
    result = p_precision_recall(real, fake)
    assert result.real_radius == 0.0
    assert result.precision == 3 / 5
    assert result.fake_radius > 0.0

    # One more point makes the radius small instead of zero and changes no score: 0 is treated as the limit.
    small = p_precision_recall(np.concatenate([real, [[2.0, 1e-7]]]), fake)
    assert 0.0 < small.real_radius < 1e-8
    assert small.precision == pytest.approx(result.precision, abs=TOLERANCE)


def test_all_points_equal_score_one() -> None:
    assert p_precision_recall(np.ones((9, 2)), np.ones((7, 2))).scores() == {"precision": 1.0, "recall": 1.0}


def test_collapsed_generator_is_precise_without_recall() -> None:
    rng = np.random.default_rng(0)
    result = p_precision_recall(rng.normal(size=(300, 2)), 0.01 * rng.normal(size=(300, 2)))
    assert result.precision > 0.95
    assert result.recall < 0.05


@given(lattice_pairs(min_rows=5), st.floats(0.5, 3.0), st.randoms())
def test_laws(pair: tuple[NDArray[Any], NDArray[Any]], factor: float, random: Any) -> None:
    real, fake = pair
    result = p_precision_recall(real, fake, radius_factor=factor)
    scores = result.scores()
    assert scores == pytest.approx(oracle(real, fake, a=factor), abs=TOLERANCE)
    assert all(0.0 <= score <= 1.0 for score in scores.values())

    swapped = p_precision_recall(fake, real, radius_factor=factor)
    assert (swapped.precision, swapped.recall) == (result.recall, result.precision)
    assert (swapped.real_radius, swapped.fake_radius) == (result.fake_radius, result.real_radius)

    rows = random.sample(range(len(real)), len(real))
    for x, y in ((real[rows], fake[::-1]), (real + 1e6, fake + 1e6), (real * 2.0**-30, fake * 2.0**-30)):
        assert p_precision_recall(x, y, radius_factor=factor).scores() == pytest.approx(scores, abs=TOLERANCE)

    wider = p_precision_recall(real, fake, radius_factor=2 * factor).scores()
    assert all(wider[name] >= scores[name] - TOLERANCE for name in scores)


def test_result_records_what_ran() -> None:
    result = p_precision_recall(np.eye(9), 2 * np.eye(9)[:7], backend="reference")
    assert all(type(value) in (float, int, str) for key, value in result.to_dict().items() if key != "caveats")
    assert (result.backend, result.n_real, result.n_fake) == ("reference", 9, 7)
    assert result.real_radius == pytest.approx(1.2 * np.sqrt(2))
    assert result.fake_radius == pytest.approx(1.2 * np.sqrt(8))


@settings(max_examples=40)
@given(bad=invalid_features(n_features=3))
def test_bad_features_are_named(bad: Any) -> None:
    good = np.zeros((12, 3))
    with pytest.raises((ValueError, TypeError), match="real"):
        p_precision_recall(bad, good)
    with pytest.raises((ValueError, TypeError), match="fake"):
        p_precision_recall(good, bad)


def test_bad_options() -> None:
    four, five = np.zeros((4, 2)), np.zeros((5, 2))
    with pytest.raises(ValueError, match="real has 4 rows, but n_neighbors=4 needs at least 5"):
        p_precision_recall(four, five)
    with pytest.raises(ValueError, match="fake has 4 rows"):
        p_precision_recall(five, four)
    bad: tuple[Any, ...] = (0.0, -1.2, np.nan, np.inf, None, "1.2")
    for value in bad:
        with pytest.raises(ValueError, match="radius_factor"):
            p_precision_recall(five, five, radius_factor=value)
