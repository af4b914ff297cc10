from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from egtmetrics.metrics.prdc import improved_precision_recall, precision_recall_density_coverage
from tests import _golden
from tests.strategies import invalid_features, lattice_pairs

Pair = tuple[NDArray[Any], NDArray[Any]]
TIES: tuple[Literal["exclude", "include"], ...] = ("exclude", "include")


def oracle(real: NDArray[Any], fake: NDArray[Any], k: int, ties: str) -> dict[str, float]:
    """The definition on full float64 matrices of distances."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    inside = np.less_equal if ties == "include" else np.less
    real_radii, fake_radii = (np.sort(cdist(x, x), axis=1)[:, k] for x in (real, fake))
    distances = cdist(real, fake)
    in_real_balls = inside(distances, real_radii[:, None])
    in_fake_balls = inside(distances, fake_radii[None, :])
    return {
        "precision": in_real_balls.any(axis=0).mean(),
        "recall": in_fake_balls.any(axis=1).mean(),
        "density": in_real_balls.sum(axis=0).mean() / k,
        "coverage": in_real_balls.any(axis=1).mean(),
    }


def hard_pairs() -> dict[str, Pair]:
    rng = np.random.default_rng(7)

    def normal(n: int, d: int) -> NDArray[np.float32]:
        return rng.normal(size=(n, d)).astype(np.float32)

    repeated = np.repeat(normal(20, 3), 6, axis=0)
    return {
        "one feature": (normal(150, 1), normal(90, 1)),
        "two features": (normal(90, 2), normal(150, 2)),
        "three features, float64": (rng.normal(size=(120, 3)), rng.normal(size=(110, 3))),
        "more features than rows": (normal(20, 50), normal(30, 50)),
        "k + 1 rows": (normal(6, 2), normal(7, 2)),
        "far from the origin": (rng.normal(size=(100, 4)) + 1e6, rng.normal(size=(100, 4)) + 1e6),
        "far, float32": (normal(100, 4) + np.float32(1e6), normal(80, 4) + np.float32(1e6)),
        "large unit": (normal(100, 4) * np.float32(1e10), normal(100, 4) * np.float32(1e10)),
        "small unit": (normal(100, 4) * np.float32(1e-5), normal(100, 4) * np.float32(1e-5)),
        "duplicates": (repeated, np.concatenate([repeated[::7], normal(60, 3)])),
        "integers": (rng.integers(0, 3, (120, 4)), rng.integers(0, 3, (90, 4))),
        "one outlier": (np.concatenate([normal(99, 3), np.full((1, 3), 1e4, np.float32)]), normal(100, 3)),
    }


HARD_PAIRS = hard_pairs()


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("name", _golden.GOLDEN_NAMES)
def test_golden_data(name: str, k: int, ties: Literal["exclude", "include"]) -> None:
    golden = _golden.load(name)
    result = precision_recall_density_coverage(golden.real, golden.fake, n_neighbors=k, ties=ties)
    rule = "strict" if ties == "exclude" else "leq"
    assert result.scores() == pytest.approx(golden.expected[f"prdc_f64_{rule}_k{k}"], rel=0, abs=1e-12)
    if ties == "exclude":  # recorded from the prdc package itself
        assert result.scores() == pytest.approx(golden.expected[f"prdc_k{k}"], rel=0, abs=1e-12)


@pytest.mark.parametrize("name", _golden.GOLDEN_NAMES)
def test_improved_precision_recall_golden_data(name: str) -> None:
    golden = _golden.load(name)
    scores = improved_precision_recall(golden.real, golden.fake).scores()
    exact = golden.expected["prdc_f64_leq_k3"]
    assert scores == pytest.approx({s: exact[s] for s in ("precision", "recall")}, rel=0, abs=1e-12)
    assert scores == pytest.approx(golden.expected["torch_fidelity_prc_k3"], abs=1e-7)  # recorded in float32


def test_tie_rules_differ_on_the_digits() -> None:
    expected = _golden.load("digits").expected
    assert expected["prdc_f64_strict_k3"] != expected["prdc_f64_leq_k3"]


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("case", HARD_PAIRS)
def test_hard_data_against_the_definition(case: str, ties: Literal["exclude", "include"]) -> None:
    real, fake = HARD_PAIRS[case]
    result = precision_recall_density_coverage(real, fake, ties=ties)
    assert result.scores() == pytest.approx(oracle(real, fake, 5, ties), rel=1e-13)
    if ties == "include":
        improved = improved_precision_recall(real, fake, n_neighbors=5)
        assert (improved.precision, improved.recall) == (result.precision, result.recall)


def test_equal_points_are_all_or_nothing() -> None:
    real, fake = np.ones((30, 4)), np.ones((20, 4))
    strict = precision_recall_density_coverage(real, fake, ties="exclude")
    assert strict.scores() == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}
    closed = precision_recall_density_coverage(real, fake, ties="include")
    assert closed.scores() == {"precision": 1.0, "recall": 1.0, "density": 30 / 5, "coverage": 1.0}
    assert improved_precision_recall(real, fake).scores() == {"precision": 1.0, "recall": 1.0}


@pytest.mark.parametrize("metric", [precision_recall_density_coverage, improved_precision_recall])
def test_collapsed_generator_is_precise_without_recall(metric: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(300, 2)), 0.01 * rng.normal(size=(300, 2))
    result = metric(real, fake)
    assert result.precision > 0.95
    assert result.recall < 0.05


def test_coverage_and_density_of_equal_laws() -> None:
    """Distance ranks are exchangeable, so both expectations are known for any law.

    With probability prod_{t<k} (n-1-t) / (n+m-1-t), no fake point is within the k-th nearest of the n - 1 other real
    points. |z| > 4.9 has a false-alarm rate of 1e-6 per score.
    """
    rng = np.random.default_rng(3)
    n, m, k, rounds = 40, 60, 5, 300
    scores = np.array(
        [
            [result.coverage, result.density]
            for result in (
                precision_recall_density_coverage(
                    rng.exponential(size=(n, 3)), rng.exponential(size=(m, 3)), n_neighbors=k
                )
                for _ in range(rounds)
            )
        ]
    )
    t = np.arange(k)
    expected = [1.0 - np.prod((n - 1 - t) / (n + m - 1 - t)), 1.0]
    z = (scores.mean(axis=0) - expected) / (scores.std(axis=0, ddof=1) / np.sqrt(rounds))
    assert np.abs(z).max() < 4.9


@given(lattice_pairs(min_rows=4), st.integers(1, 3), st.sampled_from(TIES), st.randoms())
def test_laws_that_hold_exactly(pair: Pair, k: int, ties: Literal["exclude", "include"], random: Any) -> None:
    real, fake = pair

    def scores(x: NDArray[Any], y: NDArray[Any], n_neighbors: int = k) -> dict[str, float]:
        return precision_recall_density_coverage(x, y, n_neighbors=n_neighbors, ties=ties).scores()

    result = scores(real, fake)
    assert result == pytest.approx(oracle(real, fake, k, ties), rel=1e-13)
    assert all(0.0 <= result[name] <= 1.0 for name in ("precision", "recall", "coverage"))
    assert 0.0 <= result["density"] <= len(real) / k

    rows = random.sample(range(len(real)), len(real))
    assert scores(real[rows], fake[::-1]) == result
    assert scores(real + 1e6, fake + 1e6) == result  # float32 holds these integers exactly
    assert scores(real * 2.0**-30, fake * 2.0**-30) == result

    swapped = scores(fake, real)
    assert (swapped["precision"], swapped["recall"]) == (result["recall"], result["precision"])
    if k > 1:  # balls only grow with k
        smaller = scores(real, fake, k - 1)
        assert all(smaller[name] <= result[name] for name in ("precision", "recall", "coverage"))


@given(lattice_pairs(min_rows=4))
def test_closed_balls_hold_at_least_what_open_balls_do(pair: Pair) -> None:
    strict, closed = (precision_recall_density_coverage(*pair, n_neighbors=3, ties=ties).scores() for ties in TIES)
    assert all(strict[name] <= closed[name] for name in strict)


def test_backends_agree() -> None:
    real, fake = HARD_PAIRS["integers"]
    auto = precision_recall_density_coverage(real, fake)
    reference = precision_recall_density_coverage(real, fake, backend="reference", n_threads=1)
    assert auto.scores() == reference.scores()
    assert reference.backend == "reference"


def test_result_records_what_ran_and_is_frozen() -> None:
    result = precision_recall_density_coverage(np.eye(9), 2 * np.eye(9)[:7], n_neighbors=2, ties="include")
    assert (result.n_real, result.n_fake, result.n_neighbors, result.ties) == (9, 7, 2, "include")
    assert all(type(value) in (float, int, str) for key, value in result.to_dict().items() if key != "caveats")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.precision = 1.0  # type: ignore[misc]


def test_arguments_are_not_changed() -> None:
    real, fake = (np.random.default_rng(1).normal(size=(20, 3)) for _ in range(2))
    copies = real.copy(), fake.copy()
    precision_recall_density_coverage(real, fake)
    assert np.array_equal(real, copies[0])
    assert np.array_equal(fake, copies[1])


@pytest.mark.parametrize("metric", [precision_recall_density_coverage, improved_precision_recall])
@settings(max_examples=40)
@given(bad=invalid_features(n_features=3))
def test_bad_features_are_named(metric: Callable[..., Any], bad: Any) -> None:
    good = np.zeros((12, 3))
    with pytest.raises((ValueError, TypeError), match="real"):
        metric(bad, good)
    with pytest.raises((ValueError, TypeError), match="fake"):
        metric(good, bad)


@pytest.mark.parametrize("metric", [precision_recall_density_coverage, improved_precision_recall])
def test_bad_options(metric: Callable[..., Any]) -> None:
    five, six = np.zeros((5, 2)), np.zeros((6, 2))
    with pytest.raises(ValueError, match="real has 5 rows, but n_neighbors=5 needs at least 6"):
        metric(five, six, n_neighbors=5)
    with pytest.raises(ValueError, match="fake has 5 rows"):
        metric(six, five, n_neighbors=5)
    for value in (0, -1, 2.0, True, None):
        with pytest.raises(ValueError, match="n_neighbors"):
            metric(six, six, n_neighbors=value)
    with pytest.raises(ValueError, match="backend"):
        metric(six, six, backend="gpu")


def test_unknown_ties() -> None:
    with pytest.raises(ValueError, match="ties='open' is unknown; choose one of 'exclude', 'include'"):
        precision_recall_density_coverage(np.eye(9), np.eye(9), ties="open")  # type: ignore[arg-type]
