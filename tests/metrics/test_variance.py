"""Variances of scores against closed forms, against metrics called on subsamples, and by simulation; which one is used.

Statistical tests have fixed seeds. Each says how likely a correct program is to fail it, over all seeds.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import registry
from egtmetrics.metrics import (
    FrechetResult,
    ScoreCovariance,
    _topp_variance,
    clipped_density_coverage,
    frechet_distance,
    improved_precision_recall,
    kernel_distance,
    p_precision_recall,
    precision_recall_cover,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics.metrics import kernel as kernel_module
from egtmetrics.metrics.clipped import _calibrated, _expected_saturation, unclipped_scores_of_parts
from egtmetrics.metrics.cover import cover_scores_of_parts
from egtmetrics.metrics.prdc import neighbor_scores_of_parts
from egtmetrics.metrics.subsampling import (
    Subsamples,
    covariance_of_parts,
    draw_subsamples,
    extrapolated_covariance,
    share_variance,
    split_by_part,
)
from egtmetrics.metrics.variance import (
    Moves,
    PartsOfBoth,
    ScoresOfParts,
    covariance_of_shares,
    joint_scores,
    score_covariance,
    scores_of_parts,
    variance_from_parts,
)
from egtmetrics.ops import select_host_backend

CPU = select_host_backend("cpu", n_threads=1)


def mean_difference(real: NDArray[Any], fake: NDArray[Any]) -> float:
    return float(real[:, 0].mean() - fake[:, 0].mean())


@pytest.mark.parametrize("n", [12, 15])
def test_quarters_are_equal_and_make_three_pairs_of_halves(n: int) -> None:
    points = np.arange(n, dtype=float)[:, None]
    divided = draw_subsamples(points, np.random.default_rng(0), 400)
    assert len(divided.points) == 12
    assert set(divided.points.ravel()) <= set(points.ravel())
    (two, pairs), (four, columns) = divided.by_size()
    halves, quarters = divided.parts[:, pairs], divided.parts[:, columns]
    assert (two, four, halves.shape, quarters.shape) == (2, 4, (12, 1200), (12, 400))
    assert divided.n_parts.tolist() == [2] * 1200 + [4] * 400
    for part in range(4):
        assert ((quarters == part).sum(axis=0) == 3).all()
        assert (np.abs((quarters == part).mean(axis=1) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 400)).all()
    for first, with_it in enumerate((1, 2, 3)):
        own = halves[:, 400 * first : 400 * (first + 1)] == 0
        np.testing.assert_array_equal(own, (quarters == 0) | (quarters == with_it))


def test_rows_are_split_by_their_part() -> None:
    parts = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=np.uint8)
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    expected = [[[2.0, 10.0], [4.0, 20.0]], [[1.0, 30.0], [3.0, 40.0]]]
    np.testing.assert_array_equal(split_by_part(values, parts, 2), expected)


@given(st.integers(0, 2**32 - 1))
def test_for_a_mean_the_three_pairs_of_halves_and_the_quarters_give_the_same_variance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    divided = draw_subsamples(rng.normal(size=(40, 2)), rng, 5)
    halves, quarters = (
        covariance_of_parts(
            np.stack(
                [
                    split_by_part(
                        divided.points[:, [i]].repeat(5 * (3 if n_parts == 2 else 1), axis=1), parts, n_parts
                    ).mean(1)
                    for i in range(2)
                ],
                axis=-1,
            )
        )
        for n_parts, columns in divided.by_size()
        for parts in [divided.parts[:, columns]]
    )
    np.testing.assert_allclose(halves, quarters)
    np.testing.assert_allclose(extrapolated_covariance(halves, quarters), halves)


def test_variances_are_extrapolated_to_the_full_size_and_correlations_kept() -> None:
    halves, quarters = np.array([[4.0, 1.0], [1.0, 9.0]]), np.diag([8.0, 9.0])
    found = extrapolated_covariance(halves, quarters)
    assert found[0, 0] == pytest.approx(4.0 * 0.5**0.7)
    assert found[1, 1] == 9.0
    assert found[0, 1] / np.sqrt(found[0, 0] * found[1, 1]) == pytest.approx(1.0 / 6.0)
    np.testing.assert_array_equal(
        extrapolated_covariance(np.diag([0.0, 1.0]), np.diag([1.0, 0.0])), np.diag([0.0, 1.0])
    )
    assert np.isnan(extrapolated_covariance(np.full((1, 1), np.nan), np.ones((1, 1)))).all()


def test_the_variance_of_a_mean_is_its_squared_standard_error() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(400, 1)), 2.0 * rng.normal(size=(300, 1))
    found = variance_from_parts(mean_difference, real, fake, rng, n_quarterings=1000).data[0, 0]
    exact = real.var(ddof=1) / 400 + fake.var(ddof=1) / 300
    assert found == pytest.approx(exact, rel=0.12)  # 4.5 relative standard errors of sqrt(2 / 3000)


def test_a_metric_that_refuses_quarters_is_called_on_halves_only() -> None:
    def picky(real: NDArray[Any], fake: NDArray[Any]) -> float:
        if len(real) < 50:
            raise ValueError("too few")
        return mean_difference(real, fake)

    real, fake = np.random.default_rng(2).normal(size=(2, 100, 1))
    found, expected = (
        variance_from_parts(metric, real, fake, np.random.default_rng(3), n_quarterings=10).data
        for metric in (picky, mean_difference)
    )
    np.testing.assert_allclose(found, expected)  # for a mean, quarters add nothing to halves
    with pytest.raises(ValueError, match="too few"):
        variance_from_parts(picky, real[:98], fake, np.random.default_rng(3), n_quarterings=10)


def clipped_scores_of_parts(*arguments: Any, **options: Any) -> list[NDArray[Any]]:
    return [np.minimum(scores, 1.0) for scores in unclipped_scores_of_parts(*arguments, **options)]


def precision_recall_coverage(*arguments: Any, **options: Any) -> dict[str, float]:
    scores = precision_recall_density_coverage(*arguments, **options).scores()
    return {name: scores[name] for name in ("precision", "recall", "coverage")}


@pytest.mark.parametrize("n", [120, 123])
@pytest.mark.parametrize(
    ("metric", "scores_of_all_parts"),
    [
        (
            functools.partial(precision_recall_coverage, n_neighbors=3, ties="exclude"),
            functools.partial(neighbor_scores_of_parts, k=3, closed=False, with_density=False),
        ),
        (
            functools.partial(precision_recall_coverage, n_neighbors=3, ties="include"),
            functools.partial(neighbor_scores_of_parts, k=3, closed=True, with_density=False),
        ),
        (
            functools.partial(clipped_density_coverage, n_neighbors=3),
            functools.partial(clipped_scores_of_parts, k=3),
        ),
        (
            functools.partial(precision_recall_cover, n_neighbors=2, cover_factor=3),
            functools.partial(cover_scores_of_parts, k=2, cover_factor=3),
        ),
    ],
)
def test_neighbour_scores_equal_the_metric_on_the_subsamples(
    n: int, metric: Callable[..., Any], scores_of_all_parts: Callable[..., list[NDArray[Any]]]
) -> None:
    """On a lattice with many ties, and with two sets of different sizes."""
    rng = np.random.default_rng(2)
    real, fake = rng.integers(0, 3, size=(n, 4)).astype(float), rng.integers(0, 3, size=(90, 4)).astype(float)
    parts = draw_subsamples(real, rng, 3), draw_subsamples(fake, rng, 3)
    expected = scores_of_parts(metric, *parts)
    for kernels in (CPU, select_host_backend("reference")):
        found = scores_of_all_parts(kernels, *parts)
        assert [scores.shape[:2] for scores in found] == [(2, 9), (4, 3)]
        for scores, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(scores, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ties", ["exclude", "include"])
def test_densities_of_parts_take_a_part_of_the_neighbours(ties: Literal["exclude", "include"]) -> None:
    """Of 5 neighbours a half takes 3 and a quarter 2."""
    rng = np.random.default_rng(8)
    real, fake = rng.integers(0, 3, size=(120, 4)).astype(float), rng.integers(0, 3, size=(92, 4)).astype(float)
    parts = draw_subsamples(real, rng, 3), draw_subsamples(fake, rng, 3)
    found = neighbor_scores_of_parts(CPU, *parts, 5, closed=ties == "include", with_density=True)
    for size, (k, scores) in enumerate(zip((3, 2), found, strict=True)):
        metric = functools.partial(precision_recall_density_coverage, n_neighbors=k, ties=ties)
        expected = scores_of_parts(lambda x, y, metric=metric: metric(x, y).density, *parts)[size]
        np.testing.assert_allclose(scores[..., 2], expected[..., 0], rtol=1e-12)


def test_the_variance_of_density_on_clusters() -> None:
    """Ten clusters of about ten points each, k = 5. The variance over 300 draws has an error of 8 %; the bound is four.

    With five neighbours also in parts, it was 0.6 of the true one.
    """
    rng = np.random.default_rng(53)
    centres = 4.0 * rng.normal(size=(10, 16))
    values, variances = [], []
    for _ in range(300):
        real, fake = (centres[rng.integers(10, size=100)] + rng.normal(size=(100, 16)) for _ in range(2))
        values.append(precision_recall_density_coverage(real, fake, n_threads=1).density)
        parts = draw_subsamples(real, rng, 8), draw_subsamples(fake, rng, 8)
        scores = neighbor_scores_of_parts(CPU, *parts, 5, closed=False, with_density=True)
        halves, quarters = (one[None, ..., 2:3] for one in scores)
        variances.append(ScoresOfParts(halves=halves, quarters=quarters).covariance().data.item())
    assert np.mean(variances) / np.var(values, ddof=1) == pytest.approx(1.0, abs=0.33)


@pytest.mark.parametrize("metric", [clipped_density_coverage, precision_recall_cover])
def test_where_quarters_are_too_small_the_metric_is_called_on_halves(metric: Callable[..., Any]) -> None:
    real, fake = np.random.default_rng(3).normal(size=(2, 20, 2))
    found = score_covariance(metric, metric(real, fake), real, fake, rng=np.random.default_rng(4))
    called = variance_from_parts(metric, real, fake, np.random.default_rng(4))
    assert isinstance(found.source, ScoresOfParts)
    assert isinstance(called.source, ScoresOfParts)
    np.testing.assert_array_equal(found.source.halves, called.source.halves)
    assert found.source.quarters is None


# Shares near 0 and 1, and scores that are clipped


def test_the_variance_of_a_share_counts_two_points_more_of_either_kind() -> None:
    shares, n = np.array([0.0, 0.25, 0.5, 1.0]), np.full(4, 96.0)
    expected = np.array([2 * 98, 26 * 74, 50 * 50, 98 * 2]) / 100.0**3
    np.testing.assert_allclose(share_variance(shares, n), expected)
    # With no miss in n points, a share of 1 - 3 / n would have shown one in 95 % of cases.
    assert 1.96 * np.sqrt(share_variance(np.ones(1), np.full(1, 1000.0))).item() == pytest.approx(3 / 1000, rel=0.1)


def test_variances_that_parts_do_not_show_are_added_and_add_up_by_the_squares_of_weights() -> None:
    rng = np.random.default_rng(5)
    varying = np.concatenate([rng.normal(size=(1, 2, 30, 1)), np.ones((1, 2, 30, 1))], axis=-1)
    source = ScoresOfParts(halves=varying, quarters=None)
    seen = source.covariance().data[0, 0]
    found = source.at_least(np.array([seen / 2, 0.25]))
    np.testing.assert_allclose(found.covariance().data, np.diag([seen, 0.25]))
    weights = [np.array([1.0, 2.0]), np.array([1.0, -1.0])]
    total = ScoresOfParts.of_sum(weights, [found, found]).covariance()
    np.testing.assert_allclose(total.data, np.diag([4.0 * seen, (4.0 + 1.0) * 0.25]))


@given(st.floats(0.0, 1.0), st.integers(50, 10_000), st.floats(0.0, 0.1), st.floats(0.0, 0.1))
def test_laws_of_the_variance_of_shares(share: float, n: int, of_halves: float, of_quarters: float) -> None:
    """One score is a share, the other is not. All halves, and all quarters, deviate by one number up or down."""
    halves = of_halves * np.array([1.0, -1.0])[None, :, None, None] + np.zeros((1, 2, 3, 2))
    quarters = of_quarters * np.array([1.0, -1.0, 1.0, -1.0])[None, :, None, None] + np.zeros((1, 4, 1, 2))
    source = ScoresOfParts(halves=halves, quarters=quarters)
    extrapolated = source.covariance().data[0, 0]
    found = covariance_of_shares(source, [share, np.nan], [n, n])
    assert found.alone is not None
    with_two, least = share_variance(np.array([share, 0.0]), np.full(2, float(n)))
    binomial = share * (1.0 - share) / n
    np.testing.assert_allclose(np.diag(found.data), [max(binomial, least, extrapolated), max(least, extrapolated)])
    assert found.alone[1] == found.data[1, 1]
    larger = max(found.data[0, 0], of_halves**2)
    if larger <= with_two:
        assert found.alone[0] == pytest.approx(with_two)
    else:
        n_effective = n * with_two / larger
        assert found.alone[0] == pytest.approx(
            max(larger, (share * n_effective + 2) * ((1 - share) * n_effective + 2) / (n_effective + 4) ** 3)
        )


@pytest.mark.parametrize("metric", [precision_recall_density_coverage, improved_precision_recall])
def test_a_share_of_one_still_has_an_error(metric: Callable[..., Any]) -> None:
    """Fakes close to the centre of the real set are precise in all parts; its law may still have rare outliers."""
    rng = np.random.default_rng(6)
    real, fake = rng.normal(size=(400, 2)), 0.3 * rng.normal(size=(300, 2))
    metric = functools.partial(metric, n_neighbors=20)
    result = metric(real, fake)
    assert result.precision == 1.0
    found = score_covariance(metric, result, real, fake, rng=rng)
    for variance in (found.alone[0], found.data[0, 0]):
        assert 1.96 * np.sqrt(variance) == pytest.approx(3 / 300, rel=0.1)
    far = score_covariance(metric, metric(real, fake + 99.0), real, fake + 99.0, rng=rng)
    least = share_variance(np.zeros(2), np.array([300.0, 400.0]))
    np.testing.assert_allclose(np.diag(far.data), np.tile(least, len(far.data) // 2))


def test_intervals_of_shares_near_one_hold() -> None:
    """Precision is 0.997 on average, mostly 1. From the variance of parts alone, 12 of the 150 intervals miss.

    A correct program misses at most 4 times with probability 0.999 if its intervals hold 99.5 % of the time.
    """
    rng = np.random.default_rng(9)
    scores, errors = [], []
    for _ in range(150):
        real, fake = rng.normal(size=(100, 4)), 0.7 * rng.normal(size=(100, 4))
        result = improved_precision_recall(real, fake, n_neighbors=5, n_threads=1)
        metric = functools.partial(improved_precision_recall, n_neighbors=5)
        found = score_covariance(metric, result, real, fake, rng=rng, n_threads=1)
        scores.append(result.precision)
        errors.append(1.96 * np.sqrt(found.alone[0]))
    assert np.mean(scores) > 0.99
    assert (np.abs(scores - np.mean(scores)) <= errors).sum() >= 146


def test_a_precision_of_one_of_topp_still_has_an_error() -> None:
    rng = np.random.default_rng(10)
    real, fake = rng.normal(size=(400, 2)), 0.1 * rng.normal(size=(300, 2))
    metric = functools.partial(topp_precision_recall, k_rule="sample-size", random_state=0, n_bootstrap=50)
    result = metric(real, fake)
    assert result.precision == 1.0
    found = score_covariance(metric, result, real, fake, rng=rng, n_threads=1)
    n_kept = result.per_projection[0].n_fake_kept
    assert 1.96 * np.sqrt(found.data[0, 0]) == pytest.approx(3 / n_kept, rel=0.1)


@pytest.mark.parametrize("size", [1, 8, 32])
def test_points_that_enter_and_leave_a_support_together_are_counted_as_blocks(size: int) -> None:
    """Of a block, (size + 1) / 2 points are in the same half, on average over points. Fails once in 10,000 seeds."""
    rng = np.random.default_rng(33)
    n, n_splits = 1024, 200
    sample = draw_subsamples(rng.normal(size=(n, 1)), rng, n_splits)
    halves = sample.parts[:, sample.pairs_of_halves]
    by_block = rng.random(size=(n // size, 2, halves.shape[1]))
    densities = np.take_along_axis(by_block.repeat(size, axis=0), halves[:, None].astype(np.intp), axis=1)[:, 0]
    found = _topp_variance._block_size(sample, densities, np.full((2, halves.shape[1]), 0.5))
    error = np.sqrt(2.0 / halves.shape[1])  # of a variance, relative
    assert found == pytest.approx((size + 1) / 2, rel=4.0 * error)


def test_a_small_cluster_counts_as_one_point_where_topp_scores_one() -> None:
    """Ten clusters, the smallest of about seven points, which fall out of a support together or not at all."""
    rng = np.random.default_rng(3)
    centres, shares = 4.0 * rng.normal(size=(10, 32)), np.arange(1, 11) / 55
    metric = functools.partial(topp_precision_recall, n_bootstrap=50, n_threads=1)
    errors = []
    while len(errors) < 5:
        real, fake = centres[rng.choice(10, size=(2, 400), p=shares)] + rng.normal(size=(2, 400, 32))
        result = metric(real, fake, random_state=0)
        if result.precision == 1.0:
            errors.append(np.sqrt(score_covariance(metric, result, real, fake, rng=rng, n_threads=1).alone[0]))
    assert 1.96 * min(errors) > 2.0 * 3 / 400  # twice the error of independent points


def test_a_declared_share_that_all_parts_have_in_common_still_has_an_error() -> None:
    real, fake = np.random.default_rng(11).normal(size=(2, 60, 2))
    result = p_precision_recall(real, fake + 99.0)
    assert result.scores() == {"precision": 0.0, "recall": 0.0}
    found = score_covariance(p_precision_recall, result, real, fake + 99.0, rng=np.random.default_rng(12))
    np.testing.assert_allclose(np.diag(found.data), share_variance(np.zeros(2), np.full(2, 60.0)))
    undeclared = score_covariance(lambda *_: 0.0, 0.0, real, fake, rng=np.random.default_rng(12))
    assert undeclared.data.item() == 0.0


def test_the_variance_of_clipped_scores_of_equal_laws() -> None:
    """Half of the scores are 1. The error of one is that before clipping; that of a difference is smaller.

    Over 150 draws a deviation has an error of 6 %; estimates are within 4 of it.
    """
    rng = np.random.default_rng(7)
    scores, alone, data = [], [], []
    for _ in range(150):
        real, fake = rng.normal(size=(2, 100, 2))
        result = clipped_density_coverage(real, fake, n_threads=1)
        found = score_covariance(clipped_density_coverage, result, real, fake, rng=rng, n_threads=1)
        scores.append(list(result.scores().values()))
        alone.append(found.alone)
        data.append(np.diag(found.data))
    assert (np.equal(scores, 1.0).mean(axis=0) > 0.3).all()
    errors = 1.96 * np.sqrt(alone)
    assert (np.abs(scores - np.mean(scores, axis=0)) <= errors).mean() > 0.93
    np.testing.assert_allclose(np.sqrt(np.mean(data, axis=0)) / np.std(scores, axis=0), 1.0, atol=0.24)
    # A normal variable cut off at its mean has (1 / 2 - 1 / (2 pi)) of its variance.
    expected = np.var(scores, axis=0) / (0.5 - 0.5 / np.pi)
    np.testing.assert_allclose(np.sqrt(np.mean(alone, axis=0) / expected), 1.0, atol=0.24)


def test_the_error_of_clipped_scores_far_from_one_is_that_of_the_score() -> None:
    rng = np.random.default_rng(8)
    real, fake = rng.normal(size=(2, 300, 2))
    least = share_variance(np.zeros(1), np.full(1, 300.0)).item()

    def variances(others: NDArray[Any]) -> ScoreCovariance:
        result = clipped_density_coverage(real, others)
        return score_covariance(clipped_density_coverage, result, real, others, rng=rng)

    half = variances(np.concatenate([fake[:150], fake[150:] + 99.0]))
    np.testing.assert_array_equal(np.diag(half.data), half.alone)
    assert (half.alone > 10.0 * least).all()
    above = variances(0.3 * fake)  # so dense that all parts score 1
    assert above.data[0, 0] == pytest.approx(least)
    assert above.alone[0] > 10.0 * least
    np.testing.assert_allclose(np.diag(variances(fake + 99.0).data), least)


def test_clipped_coverage_goes_on_linearly_beyond_one() -> None:
    n, m, k = 40, 30, 5
    expected = _expected_saturation(n, m + 1, k)
    last = expected[m] - expected[m - 1]
    raw = np.array([expected[m - 1], expected[m], expected[m] + last, expected[m] + 2.5 * last, expected[m + 1]])
    found = _calibrated(raw, n, m, k) * m
    np.testing.assert_allclose(found[:4], [m - 1, m, m + 1, m + 2.5])
    assert m < found[4] < m + 1  # the calibration flattens, so its line lies above it
    saturated = _calibrated(np.array([0.5, 1.0]), 10, 500, 9)
    assert np.isfinite(saturated).all()


def variance_on_halves(metric: Any, real: NDArray[Any], fake: NDArray[Any], rng: np.random.Generator) -> float:
    """The variance from 999 pairs of halves, with a call for each half."""
    scores = scores_of_parts(metric, draw_subsamples(real, rng, 333), draw_subsamples(fake, rng, 333))
    return float(covariance_of_parts(scores[0])[0, 0])


def divide(real: NDArray[Any], fake: NDArray[Any], rng: np.random.Generator, n_quarterings: int) -> PartsOfBoth:
    return draw_subsamples(real, rng, n_quarterings), draw_subsamples(fake, rng, n_quarterings)


def frechet_variances(real: NDArray[Any], fake: NDArray[Any], rng: np.random.Generator) -> tuple[float, float]:
    """The variances for differences, and for a single distance."""
    found = score_covariance(frechet_distance, frechet_distance(real, fake), real, fake, rng=rng)
    assert found.alone is not None
    return found.data.item(), found.alone.item()


def test_frechet_variance_equals_that_from_halves() -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(800, 3)), rng.normal(size=(700, 3)) * [1.0, 2.0, 0.5] + [1.0, 0.0, 0.0]
    exact = variance_on_halves(frechet_distance, real, fake, rng)
    for variance in frechet_variances(real, fake, rng):
        assert variance == pytest.approx(exact, rel=0.2)  # 4.5 standard errors of ``exact``


@pytest.mark.parametrize(("first", "second"), [(3.0, 1.0), (1.0, 0.0), (0.0, 2.0), (1.0, 5.0)])
def test_the_terms_of_a_distances_variance_are_told_apart(first: float, second: float) -> None:
    """L + 2 D from all rows, and 2 (L + 4 D) from halves, give L + D."""

    def moves(n: int, variance: float) -> tuple[Any, Any]:
        return np.tile([[-1.0], [1.0]], (n // 2, 1)) * np.sqrt(n * variance), np.zeros((n, 1))

    found = Moves(
        whole=moves(8, first + 2 * second),
        halves=(moves(4, 2 * (first + 4 * second)),) * 2,
        drawn=np.zeros((1, 1)),
    ).covariance()
    assert found.data.item() == pytest.approx(first + second)
    assert found.alone is not None
    assert found.alone.item() == pytest.approx(first + 2 * second)


def test_variances_of_the_frechet_distance_between_equal_laws() -> None:
    """Over 400 draws the extrapolated variance is right, and the one for a single distance is twice as large.

    Standard errors are about 7 % for the variance over the draws and 4 % for the mean of the estimates.
    """
    rng = np.random.default_rng(30)
    found = []
    for _ in range(400):
        real, fake = rng.normal(size=(2, 120, 5))
        found.append([frechet_distance(real, fake).fid, *frechet_variances(real, fake, rng)])
    distances, extrapolated, alone = np.array(found).T
    assert extrapolated.mean() / distances.var() == pytest.approx(1.0, abs=0.36)
    assert alone.mean() / distances.var() == pytest.approx(2.0, abs=0.72)


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 1e6))
def test_an_outlier_does_not_blow_up_the_variance_of_the_frechet_distance(seed: int, outlier: float) -> None:
    """One half has the outlier, the other has not. The variance stays within the limits of equal and unequal laws."""
    rng = np.random.default_rng(seed)
    real, fake = rng.standard_t(5, size=(2, 40, 2))
    real[0] *= outlier
    data, alone = frechet_variances(real, fake, rng)
    assert alone / 2 * (1 - 1e-9) <= data <= alone * (1 + 1e-9)


def test_the_variance_of_the_frechet_distance_of_heavy_tails() -> None:
    """Student's t5, 200 draws: a heavy tail decides the deviation, so the mean variance is only known to a third."""
    rng = np.random.default_rng(31)
    found = []
    for _ in range(200):
        real, fake = rng.standard_t(5, size=(2, 200, 4))
        fake[:, 0] += 1.0
        found.append([frechet_distance(real, fake).fid, frechet_variances(real, fake, rng)[0]])
    distances, variances = np.array(found).T
    assert 0.7 < np.sqrt(variances.mean()) / distances.std() < 1.4


@pytest.mark.parametrize(("size", "n_subsets"), [(5, 1), (4, 3)])
def test_kernel_variance_equals_that_from_tuples(size: int, n_subsets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every moment is the mean of products over tuples of different rows, which is unbiased."""
    rng = np.random.default_rng(21)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2)) + 0.5
    metric = functools.partial(kernel_distance, degree=2, gamma=0.7, coef0=0.3, subset_size=size, n_subsets=n_subsets)

    origin = (x.mean(axis=0) + y.mean(axis=0)) / 2

    def k(a: NDArray[Any], b: NDArray[Any]) -> float:
        of_one = (0.7 * a @ origin + 0.3) ** 2 + (0.7 * origin @ b + 0.3) ** 2 - (0.7 * origin @ origin + 0.3) ** 2
        return float((0.7 * a @ b + 0.3) ** 2 - of_one)

    def within(z: NDArray[Any]) -> float:
        products = [
            k(z[i], z[j]) * (k(z[i], z[j]) - 2.0 * k(z[i], z[p]) + k(z[p], z[q]))
            for i, j, p, q in itertools.permutations(range(len(z)), 4)
        ]
        return float(np.mean(products))

    def first(u: NDArray[Any], v: NDArray[Any]) -> float:
        rows = range(len(u))
        own = [np.mean([k(u[i], u[j]) for j in rows if j != i]) - np.mean([k(u[i], z) for z in v]) for i in rows]
        return float(np.var(own, ddof=1)) - within(u) / (len(u) - 1) - between / len(v)

    pairs = itertools.product(itertools.permutations(range(7), 2), itertools.permutations(range(5), 2))
    centred = [
        k(x[i], y[p]) * (k(x[i], y[p]) - k(x[j], y[p]) - k(x[i], y[q]) + k(x[j], y[q])) for (i, j), (p, q) in pairs
    ]
    between = float(np.mean(centred))

    def variances(n: int, m: int) -> NDArray[Any]:
        second = 2 * within(x) / (n * (n - 1)) + 2 * within(y) / (m * (m - 1)) + 4 * between / (n * m)
        estimated = 4 * first(x, y) / n + 4 * first(y, x) / m + 2 * second
        return np.array([estimated**2 / (estimated + 2 * second), estimated])

    expected = variances(7, 5) + (variances(size, size) - variances(7, 5)) / n_subsets
    monkeypatch.setattr(kernel_module, "_TILE_BYTES", 2 * 8 * 7)  # tiles of two rows, and a smaller last one
    found = score_covariance(metric, metric(x, y, random_state=0), x, y, rng=rng)
    assert [found.data.item(), found.alone.item()] == pytest.approx(expected, rel=1e-9)
    assert first(x, y) > 0.0


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_kernel_variance_in_closed_form(shift: float) -> None:
    """One feature and k(x, y) = x y: the distance is the squared difference of two means, less their variances.

    300 draws, 4.5 standard errors of their mean. For a single distance the second-order term counts twice.
    """
    n = 60
    rng = np.random.default_rng(22)
    metric = functools.partial(kernel_distance, degree=1, gamma=1.0, coef0=0.0, subset_size=60, n_subsets=1)
    found = []
    for _ in range(300):
        real, fake = rng.normal(size=(n, 1)), 2.0 * rng.normal(size=(n, 1)) + shift
        variances = score_covariance(metric, metric(real, fake, random_state=0), real, fake, rng=rng)
        found.append([variances.data.item(), variances.alone.item()])
    exact = 4 * shift**2 * (1 + 4) / n + 2 * (1 + 4) ** 2 / n**2
    errors = 4.5 * np.std(found, axis=0) / np.sqrt(300)
    extrapolated, alone = np.mean(found, axis=0)
    assert alone == pytest.approx(exact + 2 * (1 + 4) ** 2 / n**2, abs=errors[1])
    # By convexity the mean of (L + 2 D)^2 / (L + 4 D) is at least its value at the true L and D, which is below L + D.
    second = 2 * (1 + 4) ** 2 / n**2
    first = exact - second
    assert (first + 2 * second) ** 2 / (first + 4 * second) - errors[0] < extrapolated < 1.5 * exact + errors[0]


def test_kernel_variance_equals_that_from_halves() -> None:
    rng = np.random.default_rng(23)
    real, fake = rng.normal(size=(400, 3)), rng.normal(size=(400, 3)) + 0.7
    halved = functools.partial(kernel_distance, subset_size=200, n_subsets=1, random_state=0)
    exact = variance_on_halves(halved, real, fake, rng)
    whole = functools.partial(kernel_distance, subset_size=400, n_subsets=1)
    found = score_covariance(whole, whole(real, fake, random_state=0), real, fake, rng=rng)
    for variance in (found.data, found.alone):
        assert variance.item() == pytest.approx(exact, rel=0.2)  # 4.5 standard errors


@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
@pytest.mark.parametrize("random_state", [7, np.random.default_rng(7)])
def test_the_result_of_topp_keeps_its_projections(random_state: Any) -> None:
    real, fake = np.random.default_rng(5).normal(size=(2, 200, 40))
    metric = functools.partial(topp_precision_recall, n_projections=3, n_bootstrap=20, n_threads=1)
    result = metric(real, fake, random_state=random_state)
    again = metric(real, fake, projections=result.projections)
    for one, other in zip(result.per_projection, again.per_projection, strict=True):
        assert one.real_bandwidth == other.real_bandwidth
    assert metric(real[:, :3], fake[:, :3], random_state=7).projections == (None,)


def test_the_variance_of_topp_does_not_depend_on_how_its_seed_was_given() -> None:
    real, fake = np.random.default_rng(31).normal(size=(2, 700, 33))
    found = []
    for random_state in (7, np.random.default_rng(7)):
        metric = functools.partial(
            topp_precision_recall, random_state=random_state, n_projections=2, n_bootstrap=20, n_threads=1
        )
        result = metric(real, fake)
        rng = np.random.default_rng(32)
        found.append(_topp_variance.topp_variance(result, real, fake, rng, parts=divide(real, fake, rng, 2)))
    for name in ("data", "interaction", "threshold", "per_projection"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


def test_topp_scores_agree_with_the_metric_on_the_subsamples() -> None:
    """With k / 2 and k / 4 neighbours and the threshold of the full sample, without interpolation over bandwidths.

    Over 12 other seeds the correlations were 0.98 +- 0.004 and the ratios of deviations 0.98 to 1.005 +- 0.019. The
    bounds are four of these errors away; a wrong bandwidth, threshold or subsample is far beyond them.
    """
    rng = np.random.default_rng(12)
    d, n, k = 4, 400, 20
    real, fake = rng.normal(size=(n, d)), 0.8 * rng.normal(size=(n, d)) + 0.3
    result = topp_precision_recall(real, fake, random_state=0, n_threads=1)
    (evaluation,) = result.per_projection
    x, y = draw_subsamples(real, rng, 50), draw_subsamples(fake, rng, 50)
    found, _, _ = _topp_variance.topp_scores(CPU, x, y, evaluation, result, rng)
    for (n_parts, columns), scores in zip(x.by_size(), found, strict=True):
        parts = [
            [[side.points[row == part] for part in range(n_parts)] for row in side.parts[:, columns].T]
            for side in (x, y)
        ]
        h = [
            [
                [float(np.median(np.sqrt(CPU.kth_neighbor(one, n_neighbors=k // n_parts)))) for one in row]
                for row in side
            ]
            for side in parts
        ]

        def densities(at: int, of: int) -> NDArray[Any]:
            return np.array(
                [
                    [CPU.kernel_density(a, b, bandwidth=w) for a, b, w in zip(*row, strict=True)]
                    for row in zip(parts[at], parts[of], h[of], strict=True)  # noqa: B023
                ]
            ).transpose(1, 2, 0)  # (P, n, C)

        own, bands = [densities(side, side) for side in (0, 1)], []
        for side, band in enumerate((evaluation.real_confidence_band, evaluation.fake_confidence_band)):
            n_dense = round(0.2 * n / n_parts)
            dense = np.log(np.sort(own[side], axis=1)[:, -n_dense:].mean(axis=1))
            bands.append(band * np.exp(0.4 * (dense - dense.mean()))[:, None])
        for score, (at, of) in enumerate(((1, 0), (0, 1))):
            kept = own[at] > bands[at]
            covered = kept & (densities(at, of) > bands[of])
            expected = covered.sum(axis=1) / kept.sum(axis=1)
            one, other = (values - values.mean(axis=0) for values in (scores[..., score], expected))
            assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.96
            assert 0.9 < np.sqrt((one**2).mean() / (other**2).mean()) < 1.09


def test_topp_variance_over_projections_combines_those_of_each_projection() -> None:
    rng = np.random.default_rng(25)
    real, fake = rng.normal(size=(220, 6)), rng.normal(size=(200, 6)) + 0.2
    matrices = rng.normal(size=(3, 2, 6))
    metric = functools.partial(topp_precision_recall, projections=matrices, n_bootstrap=50, n_threads=1)
    result = metric(real, fake, random_state=0)
    rng = np.random.default_rng(26)
    divided = divide(real, fake, rng, 20)
    found = _topp_variance.topp_variance(result, real, fake, rng, n_threads=1, parts=divided)
    assert found is not None

    rng = np.random.default_rng(26).spawn(1)[0]  # the bands have a stream of their own
    by_size, thresholds = [], []
    for matrix, evaluation in zip(matrices, result.per_projection, strict=True):
        x, y = (Subsamples(side.points @ matrix.T, side.parts) for side in divided)
        scores, shifted, _ = _topp_variance.topp_scores(CPU, x, y, evaluation, result, rng)
        by_size.append(scores)
        thresholds.append(np.cov(shifted.T))
    halves, quarters = (np.array(scores) for scores in zip(*by_size, strict=True))
    expected = extrapolated_covariance(*(covariance_of_parts(scores.mean(axis=0)) for scores in (halves, quarters)))
    np.testing.assert_allclose(found.data, expected, atol=1e-12)
    np.testing.assert_allclose(found.threshold, np.mean(thresholds, axis=0), atol=1e-12)
    differences = (halves[:, 0] - halves[:, 1]).swapaxes(0, 1) / 2  # (3 Q, M, 3)
    over_projections = np.mean([np.cov(of_one_pair.T) for of_one_pair in differences], axis=0)
    growth = np.sqrt(np.diag(found.interaction) / np.diag(over_projections))
    np.testing.assert_allclose(found.interaction, growth[:, None] * over_projections * growth, atol=1e-12)
    scores = [[getattr(one, name) for name in ("precision", "recall", "f1")] for one in result.per_projection]
    np.testing.assert_allclose(found.per_projection, scores)


def test_topp_scores_under_other_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(29)
    real, fake = rng.normal(size=(300, 3)), 0.8 * rng.normal(size=(300, 3)) + 0.4
    result = topp_precision_recall(real, fake, random_state=0, n_bootstrap=50, n_threads=1)
    (evaluation,) = result.per_projection
    monkeypatch.setattr(_topp_variance, "_band_error", lambda *_: np.log([1.0, 1.3]))
    divided = draw_subsamples(real, rng, 20), draw_subsamples(fake, rng, 20)
    _, (same, stricter), _ = _topp_variance.topp_scores(CPU, *divided, evaluation, result, rng)
    np.testing.assert_allclose(same, [result.precision, result.recall, result.f1], rtol=1e-12)
    h = {"real": evaluation.real_bandwidth, "fake": evaluation.fake_bandwidth}
    c = {"real": 1.3 * evaluation.real_confidence_band, "fake": 1.3 * evaluation.fake_confidence_band}
    points = {"real": real, "fake": fake}
    expected = []
    for own, other in (("fake", "real"), ("real", "fake")):
        kept, covered = (
            CPU.kernel_density(points[own], points[side], bandwidth=h[side]) > c[side] for side in (own, other)
        )
        expected.append(covered[kept].mean())
    np.testing.assert_allclose(stricter[:2], expected, rtol=1e-12)
    assert np.abs(np.subtract(expected, [result.precision, result.recall])).max() > 0.03


@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
def test_the_estimated_error_of_a_band_equals_its_deviation_over_bootstraps() -> None:
    """Deviations of 150 bands and of 200 replicates, each with an error of some 10 %."""
    points = np.random.default_rng(27).normal(size=(150, 2))
    metric = functools.partial(topp_precision_recall, n_bootstrap=20, n_threads=1)
    results = [metric(points, points, random_state=seed) for seed in range(150)]
    bands = np.log([result.per_projection[0].real_confidence_band for result in results])
    bandwidth = results[0].per_projection[0].real_bandwidth
    found = _topp_variance._band_error(CPU, points, bandwidth, results[0].alpha, 20, np.random.default_rng(28))
    assert 0.7 < found.std() / bands.std() < 1.4
    assert found.mean() == pytest.approx(0.0, abs=1e-12)


def test_topp_has_no_variance_estimate_under_other_rules() -> None:
    real, fake = np.random.default_rng(33).normal(size=(2, 60, 2))
    rng = np.random.default_rng(0)
    draws = rng.integers(60, size=(2, 20, 60))
    for options in ({"compatibility": "top-pr"}, {"bootstrap_indices": (draws[0], draws[1])}):
        result = topp_precision_recall(real, fake, random_state=0, n_threads=1, **options)
        assert _topp_variance.topp_variance(result, real, fake, rng, parts=divide(real, fake, rng, 1)) is None
    before = rng.bit_generator.state
    metric = functools.partial(topp_precision_recall, compatibility="top-pr", random_state=0, n_threads=1)
    found = score_covariance(metric, metric(real, fake), real, fake, rng=np.random.default_rng(34))
    called = variance_from_parts(metric, real, fake, np.random.default_rng(34))
    np.testing.assert_array_equal(found.data, called.data)
    assert rng.bit_generator.state == before


# --- which estimator is used --------------------------------------------------------------------------------------

SMALL = tuple(np.random.default_rng(40).normal(size=(2, 60, 3)))


class Counter:
    """A metric that counts its calls."""

    def __init__(self, metric: Callable[..., Any]) -> None:
        self.metric = metric
        self.n_calls = 0
        functools.update_wrapper(self, metric)

    def __call__(self, real: Any, fake: Any, **options: Any) -> Any:
        self.n_calls += 1
        return self.metric(real, fake, **options)


def covariance(metric: Callable[..., Any], result: Any, **options: Any) -> ScoreCovariance:
    return score_covariance(metric, result, *SMALL, rng=np.random.default_rng(41), **options)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the metrics that a test registers when it ends."""
    registry.registered_metrics()
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


@pytest.mark.parametrize(
    "metric",
    [
        frechet_distance,
        functools.partial(kernel_distance, subset_size=20, random_state=0),
        functools.partial(precision_recall_density_coverage, n_neighbors=3),
        improved_precision_recall,
        clipped_density_coverage,
        precision_recall_cover,
        functools.partial(topp_precision_recall, n_bootstrap=20, random_state=0),
    ],
)
def test_a_metric_with_an_estimator_is_not_called_again(metric: Callable[..., Any]) -> None:
    """This includes ``functools.wraps`` and partials of partials."""
    expected = covariance(metric, metric(*SMALL), n_threads=1)
    inner = metric.func if isinstance(metric, functools.partial) else metric
    counter = Counter(inner)
    wrapped = functools.partial(functools.partial(counter, **getattr(metric, "keywords", {})))
    found = covariance(wrapped, wrapped(*SMALL), n_threads=1)
    assert counter.n_calls == 1
    np.testing.assert_array_equal(found.data, expected.data)


@pytest.mark.parametrize(
    ("metric", "size"),
    [
        (lambda real, fake: np.float32(mean_difference(real, fake)), 1),
        (lambda real, fake: np.array(mean_difference(real, fake)), 1),
        (lambda real, fake: {"a": mean_difference(real, fake), "b": float(real.std() / fake.std())}, 2),
        (p_precision_recall, 2),
    ],
)
def test_a_metric_without_an_estimator_is_called_on_halves_and_quarters(metric: Callable[..., Any], size: int) -> None:
    counter = Counter(metric)
    found = covariance(counter, metric(*SMALL))
    assert counter.n_calls == 33 * (3 * 2 + 4)
    assert found.data.shape == (size, size)
    assert (np.diag(found.data) > 0.0).all()


def test_a_plain_function_around_a_metric_causes_a_warning_and_is_called() -> None:
    """It may have changed the samples; here it changes their unit."""

    def in_other_units(real: Any, fake: Any) -> FrechetResult:
        return frechet_distance(10.0 * real, 10.0 * fake)

    with pytest.warns(UserWarning, match=r"in_other_units returns a FrechetResult.*some 330 times") as caught:
        found = covariance(in_other_units, in_other_units(*SMALL))
    message = str(caught[0].message)
    for remedy in ("functools.partial(frechet_distance", "functools.wraps(frechet_distance)", "metric(..., variance="):
        assert remedy in message
    called = variance_from_parts(frechet_distance, *SMALL, np.random.default_rng(41))
    np.testing.assert_allclose(found.data, 1e4 * called.data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        covariance(lambda real, fake: frechet_distance(real, fake).fid, 0.0)
        covariance(lambda real, fake: p_precision_recall(real, fake), p_precision_recall(*SMALL))


def test_an_estimator_is_not_used_for_other_scores() -> None:
    @functools.wraps(precision_recall_density_coverage)
    def only_density(real: Any, fake: Any) -> float:
        return precision_recall_density_coverage(real, fake).density

    with pytest.warns(UserWarning, match=r"returns other scores than precision_recall_density_coverage.*330 times"):
        found = covariance(only_density, only_density(*SMALL))
    called = variance_from_parts(precision_recall_density_coverage, *SMALL, np.random.default_rng(41))
    np.testing.assert_allclose(found.data, called.data[2:3, 2:3])


@pytest.mark.usefixtures("metrics")
def test_a_users_metric_may_have_its_own_estimator() -> None:
    seen: dict[str, Any] = {}

    def of_mean(result: Any, real: Any, fake: Any, rng: np.random.Generator, *, n_threads: Any) -> ScoreCovariance:
        seen.update(scores=result.scores(), n_threads=n_threads)
        return ScoreCovariance(data=np.array([[real[:, 0].var() / len(real) + fake[:, 0].var() / len(fake)]]))

    gap = registry.metric("test-gap", title="Gap", variance=of_mean)(Counter(mean_difference))
    found = covariance(functools.partial(gap), gap(*SMALL), n_threads=3)
    assert gap.n_calls == 1
    assert seen == {"scores": {"mean_difference": gap(*SMALL)}, "n_threads": 3}
    assert found.data.item() == pytest.approx(2 / 60, rel=0.5)


@pytest.mark.usefixtures("metrics")
def test_a_covariance_of_the_wrong_shape_is_refused() -> None:
    def two(result: Any, real: Any, fake: Any, rng: np.random.Generator) -> ScoreCovariance:
        return ScoreCovariance(data=np.eye(2))

    gap = registry.metric("test-gap", title="Gap", variance=two)(lambda real, fake: mean_difference(real, fake))
    with pytest.raises(TypeError, match=r"shape \(2, 2\) for 1 scores; expected \(1, 1\)"):
        covariance(gap, 0.0)


def test_subsamples_with_different_scores_are_refused() -> None:
    names = itertools.cycle("ab")
    with pytest.raises(TypeError, match="returned the scores a for one part of the samples and b for another"):
        covariance(lambda real, fake: {next(names): 0.0}, 0.0)


def test_identical_rows_have_no_variance() -> None:
    points = np.full((8, 2), 3.0)
    metric = functools.partial(kernel_distance, subset_size=8)
    found = score_covariance(metric, metric(points, points), points, points, rng=np.random.default_rng(0))
    assert found.data.item() == found.alone.item() == 0.0


# Scores that have samples in common

EXCHANGED = [(0, 2), (1, 3), (0, 1), (1, 0)]
"""The pairs of sets whose scores a perfect generator is compared by: real with fake halves, and real halves."""
EXCESS = [0.5, 0.5, -0.5, -0.5]


def test_the_variance_of_a_sum_of_scores_in_closed_form() -> None:
    """For T = mean(x) - 2 mean(y) the excess is mean(A) / 2 + mean(B) / 2 + mean(A) / 2 ... with known variances."""
    rng = np.random.default_rng(50)
    sets = [scale * rng.normal(size=(400, 1)) for scale in (1.0, 2.0, 3.0, 4.0)]

    def linear(real: Any, fake: Any) -> float:
        return float(real.mean() - 2.0 * fake.mean())

    results = [linear(sets[real], sets[fake]) for real, fake in EXCHANGED]
    joint = joint_scores(linear, sets, EXCHANGED, results, rng=np.random.default_rng(51))
    variances = [points.var(ddof=1) / len(points) for points in sets]
    # A and B: 1/2 from the first two scores, -1/2 + 1 from the others; C and D: -1 from the first two.
    expected = np.dot([1.0, 1.0, 1.0, 1.0], variances)
    # 99 pairs of halves of 33 splits: a relative error of about sqrt(2 / 99)
    assert joint.covariance(EXCESS).data.item() == pytest.approx(expected, rel=0.45)
    of_one = joint.covariance([1.0, 0.0, 0.0, 0.0]).data.item()
    assert of_one == pytest.approx(variances[0] + 4.0 * variances[2], rel=0.45)


def many_excesses(metric: Callable[..., Any], draw: Callable[[], list[NDArray[Any]]], repeats: int) -> Any:
    """The variance over draws of every score's excess, and the mean of its estimates."""
    values, estimates = [], []
    for seed in range(repeats):
        sets = draw()
        results = [metric(sets[real], sets[fake]) for real, fake in EXCHANGED]
        scores = np.array([list(result.scores().values()) for result in results])
        values.append(np.dot(EXCESS, scores))
        joint = joint_scores(metric, sets, EXCHANGED, results, rng=np.random.default_rng(seed), n_threads=1)
        estimates.append(np.diag(joint.covariance(EXCESS).data))
    return np.var(values, axis=0, ddof=1), np.mean(estimates, axis=0)


@pytest.mark.parametrize("shift", [0.0, 0.7])
@pytest.mark.parametrize(
    "metric",
    [
        frechet_distance,
        functools.partial(precision_recall_density_coverage, n_threads=1),
        functools.partial(kernel_distance, n_subsets=1, subset_size=120, degree=2, random_state=0),
    ],
)
def test_the_variance_of_an_excess(metric: Callable[..., Any], shift: float) -> None:
    """The variance over 150 draws has an error of 12 %, more for distances of equal laws; the bounds are four of it."""
    rng = np.random.default_rng(52)

    def draw() -> list[NDArray[Any]]:
        return [rng.normal(size=(120, 4)) + (shift if side > 1 else 0.0) for side in range(4)]

    variances, estimates = many_excesses(metric, draw, 150)
    np.testing.assert_allclose(estimates / variances, 1.0, atol=0.48)
