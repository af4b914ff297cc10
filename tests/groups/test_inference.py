"""Intervals, tests and sample sizes, against closed forms, against metrics called on parts, and by simulation.

Statistical tests have fixed seeds; the chance that a right program fails one, over seeds, is given with each.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from egtmetrics import (
    GenerativeMetricFrame,
    frechet_distance,
    improved_precision_recall,
    kernel_distance,
    mauve,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics.groups import samples_needed
from egtmetrics.groups.inference import (
    holm,
    normal_quantile,
    proportion_uncertainty,
    score_contrasts,
    score_uncertainty,
)
from egtmetrics.metrics import _spread, _spread_closed, _spread_topp
from egtmetrics.metrics._parts import Divided, Spread, covariance_of_parts, divide, full_size_covariance, grouped
from egtmetrics.metrics._spread import spread
from egtmetrics.ops import select_host_backend

CPU = select_host_backend("cpu", n_threads=1)


def mean_difference(real: NDArray[Any], fake: NDArray[Any]) -> float:
    return float(real[:, 0].mean() - fake[:, 0].mean())


def frame(metrics: Any, n: int = 200, shift: float = 0.0, d: int = 4, seed: int = 0, n_groups: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"g{g}" for g in range(n_groups)], n)
    real, fake = rng.normal(size=(2, n * n_groups, d))
    fake[groups == "g0", 0] += shift
    return GenerativeMetricFrame(
        metrics=metrics,
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
        n_threads=1,
    )


@pytest.mark.parametrize("n", [12, 15])
def test_quarters_are_equal_and_make_three_pairs_of_halves(n: int) -> None:
    points = np.arange(n, dtype=float)[:, None]
    divided = divide(points, 400, np.random.default_rng(0))
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


def test_rows_are_grouped_by_their_part() -> None:
    parts = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=np.uint8)
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    expected = [[[2.0, 10.0], [4.0, 20.0]], [[1.0, 30.0], [3.0, 40.0]]]
    np.testing.assert_array_equal(grouped(values, parts, 2), expected)


@given(st.integers(0, 2**32 - 1))
def test_for_a_mean_the_three_pairs_of_halves_know_what_the_quarters_know(seed: int) -> None:
    rng = np.random.default_rng(seed)
    divided = divide(rng.normal(size=(40, 2)), 5, rng)
    halves, quarters = (
        covariance_of_parts(
            np.stack(
                [
                    grouped(divided.points[:, [i]].repeat(5 * (3 if n_parts == 2 else 1), axis=1), parts, n_parts).mean(
                        1
                    )
                    for i in range(2)
                ],
                axis=-1,
            )
        )
        for n_parts, columns in divided.by_size()
        for parts in [divided.parts[:, columns]]
    )
    np.testing.assert_allclose(halves, quarters)
    np.testing.assert_allclose(full_size_covariance(halves, quarters), halves)


def test_variances_are_followed_to_the_full_size_and_correlations_kept() -> None:
    halves, quarters = np.array([[4.0, 1.0], [1.0, 9.0]]), np.diag([8.0, 9.0])
    found = full_size_covariance(halves, quarters)
    assert found[0, 0] == pytest.approx(4.0 * 0.5**0.7)
    assert found[1, 1] == 9.0
    assert found[0, 1] / np.sqrt(found[0, 0] * found[1, 1]) == pytest.approx(1.0 / 6.0)
    np.testing.assert_array_equal(full_size_covariance(np.diag([0.0, 1.0]), np.diag([1.0, 0.0])), np.diag([0.0, 1.0]))
    assert np.isnan(full_size_covariance(np.full((1, 1), np.nan), np.ones((1, 1)))).all()


def test_the_spread_of_a_mean_is_its_standard_error() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(400, 1)), 2.0 * rng.normal(size=(300, 1))
    found = spread(mean_difference, 0.0, real, fake, n_quarterings=1000, rng=rng).data[0, 0]
    exact = real.var(ddof=1) / 400 + fake.var(ddof=1) / 300
    assert found == pytest.approx(exact, rel=0.12)  # relative error sqrt(2 / 3000): 4.5 of them


def test_a_metric_that_refuses_quarters_is_asked_for_halves_only() -> None:
    def picky(real: NDArray[Any], fake: NDArray[Any]) -> float:
        if len(real) < 50:
            raise ValueError("too few")
        return mean_difference(real, fake)

    real, fake = np.random.default_rng(2).normal(size=(2, 100, 1))
    found, expected = (
        spread(metric, 0.0, real, fake, n_quarterings=10, rng=np.random.default_rng(3)).data
        for metric in (picky, mean_difference)
    )
    np.testing.assert_allclose(found, expected)  # of a mean, quarters tell what halves tell
    with pytest.raises(ValueError, match="too few"):
        spread(picky, 0.0, real[:98], fake, n_quarterings=10, rng=np.random.default_rng(3))


@pytest.mark.parametrize("n", [120, 123])
@pytest.mark.parametrize("closed", [False, True])
def test_neighbour_scores_are_the_metric_on_the_parts(n: int, closed: bool) -> None:
    rng = np.random.default_rng(2)
    real, fake = rng.integers(0, 3, size=(n, 4)).astype(float), rng.integers(0, 3, size=(90, 4)).astype(float)
    divided = divide(real, 3, rng), divide(fake, 3, rng)
    metric = functools.partial(
        precision_recall_density_coverage, n_neighbors=3, ties="include" if closed else "exclude"
    )
    _, expected = _spread.called_scores(metric, *divided)
    for kernels in (CPU, select_host_backend("reference")):
        found = _spread.neighbor_scores(kernels, *divided, 3, closed=closed)
        assert [scores.shape for scores in found] == [(2, 9, 4), (4, 3, 4)]
        for scores, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(scores, wanted, atol=1e-12)


def variance_on_halves(metric: Any, real: NDArray[Any], fake: NDArray[Any], rng: np.random.Generator) -> float:
    """From 999 pairs of halves, each called."""
    _, scores = _spread.called_scores(metric, divide(real, 333, rng), divide(fake, 333, rng))
    return float(covariance_of_parts(scores[0])[0, 0])


def test_frechet_variance_is_that_of_the_distance_on_halves() -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(800, 3)), rng.normal(size=(700, 3)) * [1.0, 2.0, 0.5] + [1.0, 0.0, 0.0]
    exact = variance_on_halves(frechet_distance, real, fake, rng)
    for variance in _spread_closed.frechet_variances(real, fake, rng):
        assert variance == pytest.approx(exact, rel=0.2)  # 4.5 standard errors of the exact one


def test_variances_of_the_frechet_distance_between_equal_laws() -> None:
    """Of 400 draws: the followed one is that of the distance, the one for the distance alone twice as large.

    Standard errors are about 7 % for the variance over the draws and 4 % for the mean of the estimates.
    """
    rng = np.random.default_rng(30)
    found = []
    for _ in range(400):
        real, fake = rng.normal(size=(2, 120, 5))
        found.append([frechet_distance(real, fake).fid, *_spread_closed.frechet_variances(real, fake, rng)])
    distances, followed, alone = np.array(found).T
    assert followed.mean() / distances.var() == pytest.approx(1.0, abs=0.36)
    assert alone.mean() / distances.var() == pytest.approx(2.0, abs=0.72)


@pytest.mark.parametrize(("size", "n_subsets"), [(5, 1), (4, 3)])
def test_kernel_variance_tuple_by_tuple(size: int, n_subsets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every moment as the mean of products over tuples of different rows, in which it is unbiased."""
    rng = np.random.default_rng(21)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2)) + 0.5
    metric = functools.partial(kernel_distance, degree=2, gamma=0.7, coef0=0.3, subset_size=size, n_subsets=n_subsets)

    def k(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float((0.7 * a @ b + 0.3) ** 2)

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
        told = 4 * first(x, y) / n + 4 * first(y, x) / m + 2 * second
        return np.array([told**2 / (told + 2 * second), told])

    expected = variances(7, 5) + (variances(size, size) - variances(7, 5)) / n_subsets
    monkeypatch.setattr(_spread_closed, "_TILE_BYTES", 2 * 8 * 7)  # tiles of two rows and a rest
    found = spread(metric, metric(x, y, random_state=0), x, y, n_quarterings=1, rng=rng)
    assert [found.data.item(), found.alone.item()] == pytest.approx(expected, rel=1e-9)
    assert first(x, y) > 0.0


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_kernel_variance_is_that_of_the_distance(shift: float) -> None:
    """One feature and k(x, y) = x y: the squared difference of two means, less what they vary by.

    Of 300 draws: 4.5 standard errors of their mean. For the distance alone the second part counts twice.
    """
    n = 60
    rng = np.random.default_rng(22)
    metric = functools.partial(kernel_distance, degree=1, gamma=1.0, coef0=0.0, subset_size=60, n_subsets=1)
    found = []
    for _ in range(300):
        real, fake = rng.normal(size=(n, 1)), 2.0 * rng.normal(size=(n, 1)) + shift
        variances = spread(metric, metric(real, fake, random_state=0), real, fake, n_quarterings=1, rng=rng)
        found.append([variances.data.item(), variances.alone.item()])
    exact = 4 * shift**2 * (1 + 4) / n + 2 * (1 + 4) ** 2 / n**2
    errors = 4.5 * np.std(found, axis=0) / np.sqrt(300)
    followed, alone = np.mean(found, axis=0)
    assert alone == pytest.approx(exact + 2 * (1 + 4) ** 2 / n**2, abs=errors[1])
    # (L + 2 D)^2 / (L + 4 D) is less than L + D by what it is at the truth, and more than that by its curvature.
    second = 2 * (1 + 4) ** 2 / n**2
    first = exact - second
    assert (first + 2 * second) ** 2 / (first + 4 * second) - errors[0] < followed < 1.5 * exact + errors[0]


def test_kernel_variance_is_that_of_the_halves() -> None:
    rng = np.random.default_rng(23)
    real, fake = rng.normal(size=(400, 3)), rng.normal(size=(400, 3)) + 0.7
    halved = functools.partial(kernel_distance, subset_size=200, n_subsets=1, random_state=0)
    exact = variance_on_halves(halved, real, fake, rng)
    whole = functools.partial(kernel_distance, subset_size=400, n_subsets=1)
    found = spread(whole, whole(real, fake, random_state=0), real, fake, n_quarterings=1, rng=rng)
    for variance in (found.data, found.alone):
        assert variance.item() == pytest.approx(exact, rel=0.2)  # 4.5 standard errors


def test_an_interval_of_a_distance_alone_takes_the_variance_for_it() -> None:
    """Between equal laws: that of the difference is the shorter one, relative to both intervals of the groups."""
    result = frame({"fid": frechet_distance}, n=100)
    by_group = result.interval().by_group.loc["fid"]
    low, high = result.difference_interval("fid", "g0", "g1")
    assert (high - low) < 0.9 * np.sqrt(((by_group["high"] - by_group["low"]) ** 2).sum())


def test_topp_projections_are_those_of_the_result() -> None:
    real, fake = np.random.default_rng(5).normal(size=(2, 200, 40))
    result = topp_precision_recall(real, fake, random_state=7, n_projections=3, n_bootstrap=20, n_threads=1)
    matrices = _spread_topp._projections(result, {"random_state": 7}, 40)
    again = topp_precision_recall(real, fake, projections=matrices, n_bootstrap=20, n_threads=1)
    for one, other in zip(result.per_projection, again.per_projection, strict=True):
        assert one.real_bandwidth == other.real_bandwidth


def test_topp_scores_follow_the_metric_on_the_parts() -> None:
    """With k / 2 and k / 4 neighbours and the threshold of the full sample, without interpolation over bandwidths.

    Over 12 other seeds the correlations were 0.98 +- 0.004 and the ratios of spreads 0.98 to 1.005 +- 0.019: the bounds
    are four of these deviations away, and a wrong bandwidth, threshold or part is far beyond them.
    """
    rng = np.random.default_rng(12)
    d, n, k = 4, 400, 20
    real, fake = rng.normal(size=(n, d)), 0.8 * rng.normal(size=(n, d)) + 0.3
    result = topp_precision_recall(real, fake, random_state=0, n_threads=1)
    (evaluation,) = result.per_projection
    x, y = divide(real, 50, rng), divide(fake, 50, rng)
    found, _ = _spread_topp.topp_scores(CPU, x, y, evaluation, result, rng)
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


def test_topp_spread_over_projections_is_made_of_that_of_each() -> None:
    rng = np.random.default_rng(25)
    real, fake = rng.normal(size=(220, 6)), rng.normal(size=(200, 6)) + 0.2
    matrices = rng.normal(size=(3, 2, 6))
    metric = functools.partial(topp_precision_recall, projections=matrices, n_bootstrap=50, n_threads=1)
    result = metric(real, fake, random_state=0)
    found = spread(metric, result, real, fake, n_quarterings=20, rng=np.random.default_rng(26), n_threads=1)

    rng = np.random.default_rng(26)
    divided = [divide(points, 20, rng) for points in (real, fake)]
    by_size, thresholds = [], []
    for matrix, evaluation in zip(matrices, result.per_projection, strict=True):
        x, y = (Divided(side.points @ matrix.T, side.parts) for side in divided)
        scores, shifted = _spread_topp.topp_scores(CPU, x, y, evaluation, result, rng)
        by_size.append(scores)
        thresholds.append(np.cov(shifted.T))
    halves, quarters = (np.array(scores) for scores in zip(*by_size, strict=True))
    expected = full_size_covariance(*(covariance_of_parts(scores.mean(axis=0)) for scores in (halves, quarters)))
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
    monkeypatch.setattr(_spread_topp, "_band_error", lambda *_: np.log([1.0, 1.3]))
    divided = divide(real, 20, rng), divide(fake, 20, rng)
    _, (same, stricter) = _spread_topp.topp_scores(CPU, *divided, evaluation, result, rng)
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


def test_the_error_of_a_band_is_that_of_other_bootstraps() -> None:
    """Deviations of 150 bands and of 200 replicates, each known to some 10 %."""
    points = np.random.default_rng(27).normal(size=(150, 2))
    metric = functools.partial(topp_precision_recall, n_bootstrap=20, n_threads=1)
    results = [metric(points, points, random_state=seed) for seed in range(150)]
    bands = np.log([result.per_projection[0].real_confidence_band for result in results])
    bandwidth = results[0].per_projection[0].real_bandwidth
    found = _spread_topp._band_error(CPU, points, bandwidth, results[0], np.random.default_rng(28))
    assert 0.7 < found.std() / bands.std() < 1.4
    assert found.mean() == pytest.approx(0.0, abs=1e-12)


def test_interval_of_a_mean_is_the_textbook_one() -> None:
    result = frame(mean_difference, n=300, shift=0.5)
    intervals = result.interval(0.9)
    low, high = result.difference_interval("mean_difference", "g0", "g1", 0.9)
    assert low < -0.5 < high
    width = 2 * norm.ppf(0.95) * np.sqrt(4 / 300)
    assert high - low == pytest.approx(width, rel=0.15)
    assert result.difference_interval("mean_difference", "g1", "g0", 0.9) == pytest.approx((-high, -low))
    row = intervals.disparities.loc[("mean_difference", "delta_mean_difference")]
    assert (row["low"], row["high"]) == pytest.approx((-high, -low))  # the size of the difference
    assert row["value"] == pytest.approx(result.disparities()["value"].iloc[0])


def test_every_score_and_disparity_has_an_interval_around_it() -> None:
    result = frame(
        {"topp": topp_precision_recall, "fid": frechet_distance, "ipr": improved_precision_recall}, n_groups=3
    )
    intervals = result.interval()
    assert set(intervals.disparities.index) == set(result.disparities().index)
    assert len(intervals.by_group) == result.by_group.size
    for table in (intervals.by_group, intervals.disparities):
        assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    np.testing.assert_allclose(
        intervals.disparities["value"], result.disparities()["value"].loc[intervals.disparities.index]
    )
    np.testing.assert_allclose(
        intervals.variance[["data", "projections", "threshold"]].sum(axis=1), intervals.variance["total"]
    )
    assert intervals.by_group.loc["topp_precision"]["high"].max() <= 1.0
    assert (intervals.disparities["low"] >= 0.0).all()


def test_mauve_keeps_to_its_range() -> None:
    by_group = frame({"mauve": mauve}, n=60, shift=6.0).interval().by_group  # g0 near 0, g1 near 1
    assert ((by_group["low"] >= 0.0) & (by_group["high"] <= 1.0)).all()
    assert {by_group["low"].min(), by_group["high"].max()} == {0.0, 1.0}


def test_more_groups_need_more_evidence() -> None:
    """The largest of many differences is large by chance: 66 pairs against one, at the same variance."""
    widths, p_values = [], []
    for n_groups in (2, 12):
        labels = [f"g{g}" for g in range(n_groups)]
        scores = pd.DataFrame({"s": [3.0, *([0.0] * (n_groups - 1))]}, index=labels)
        spreads = {label: Spread(names=("s",), data=np.eye(1)) for label in labels}
        largest = score_uncertainty(scores, spreads).largest(score_contrasts(scores)["delta_s"])
        widths.append(3.0 - largest.interval(0.95)[0])
        p_values.append(largest.p_value())
    assert widths[0] == pytest.approx(min(3.0, 1.96 * np.sqrt(2)), abs=1e-2)
    assert p_values[0] == pytest.approx(2 * norm.sf(3 / np.sqrt(2)))
    assert widths[1] > widths[0]
    assert p_values[1] > 5 * p_values[0]


def test_simultaneous_bound_against_the_studentised_range() -> None:
    from scipy.stats import studentized_range

    labels = list("abcde")
    scores = pd.DataFrame({"s": [4.0, 0.0, 0.0, 0.0, 0.0]}, index=labels)
    spreads = {label: Spread(names=("s",), data=np.eye(1)) for label in labels}
    largest = score_uncertainty(scores, spreads).largest(score_contrasts(scores)["delta_s"])
    exact = studentized_range.sf(4.0, 5, np.inf)
    assert largest.p_value() == pytest.approx(exact, rel=0.2)  # 20,000 draws: 6 standard errors
    bound = 4.0 - studentized_range.ppf(0.95, 5, np.inf)
    assert largest.interval(0.95)[0] == pytest.approx(bound, abs=0.1)  # 4 standard errors of the drawn quantile
    beyond_all_draws = score_uncertainty(100.0 * scores, spreads).largest(score_contrasts(scores)["delta_s"])
    assert beyond_all_draws.p_value() == 1 / 20_001


P_VALUES = st.lists(st.floats(0.0, 1.0) | st.just(float("nan")), min_size=1, max_size=12)


@given(P_VALUES)
def test_holm_against_its_step_down_procedure(p_values: list[float]) -> None:
    """The adjusted p-value is the smallest level at which the procedure rejects."""
    adjusted = holm(np.array(p_values))
    tested = [i for i, p in enumerate(p_values) if not np.isnan(p)]
    running, order = 0.0, sorted(tested, key=lambda i: p_values[i])
    for step, i in enumerate(order):
        running = max(running, min(1.0, p_values[i] * (len(order) - step)))
        assert adjusted[i] == running
    assert np.isnan(np.delete(adjusted, tested)).all()


@pytest.fixture(scope="module")
def small() -> Any:
    return frame({"prdc": precision_recall_density_coverage, "fid": frechet_distance}, n=80, n_groups=3)


COLUMNS = ("prdc_precision", "prdc_recall", "prdc_density", "prdc_coverage", "fid")


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(COLUMNS), st.permutations(["g0", "g1", "g2"]), st.floats(0.01, 0.98), st.floats(0.001, 0.01))
def test_a_difference_changes_its_sign_with_the_groups_and_widens_with_the_level(
    small: Any, column: str, groups: list[str], level: float, more: float
) -> None:
    a, b, _ = groups
    low, high = small.difference_interval(column, a, b, level)
    assert small.difference_interval(column, b, a, level) == (-high, -low)
    difference = small.by_group.loc[a, column] - small.by_group.loc[b, column]
    assert (low + high) / 2 == pytest.approx(difference, abs=1e-9)
    wider = small.difference_interval(column, a, b, level + more)
    assert wider[0] < low < high < wider[1]
    narrow, wide = small.interval(level), small.interval(level + more)
    for one, other in ((narrow.by_group, wide.by_group), (narrow.disparities, wide.disparities)):
        assert (other["low"] <= one["low"]).all()
        assert (one["high"] <= other["high"]).all()


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(3)))
def test_the_order_of_groups_moves_disparities_by_the_drawn_maxima_only(small: Any, order: list[int]) -> None:
    names = [f"n{position}" for position in order]
    scores = small.scores("prdc")
    spreads = {
        label: Spread(names=tuple(scores), data=np.diag([1.0 + g, 2.0, 3.0, 4.0]) * 1e-4)
        for g, label in enumerate(scores.index)
    }
    renamed = dict(zip(scores.index, names, strict=True))
    again = scores.rename(index=renamed).sort_index()
    found = score_uncertainty(scores, spreads)
    moved = score_uncertainty(again, {renamed[label]: spread for label, spread in spreads.items()})
    for name, contrasts in score_contrasts(scores).items():
        one, other = found.largest(contrasts), moved.largest(score_contrasts(again)[name])
        assert other.interval(0.9)[1] == pytest.approx(one.interval(0.9)[1])
        assert other.interval(0.9)[0] == pytest.approx(one.interval(0.9)[0], abs=0.05 * one.errors.max())  # drawn
        assert other.p_value() == pytest.approx(one.p_value(), abs=0.02)


@settings(deadline=None, max_examples=10)
@given(st.permutations(["x", "y", "z"]), st.randoms(use_true_random=False), st.sampled_from([0, 1, 2]))
def test_names_of_groups_and_order_of_rows_do_not_matter(names: list[str], random: Any, which: int) -> None:
    topp = functools.partial(topp_precision_recall, n_bootstrap=50)
    metric = (precision_recall_density_coverage, frechet_distance, topp)[which]
    rng = np.random.default_rng(7)
    groups = np.repeat([0, 1, 2], [70, 60, 50])
    samples = {side: rng.normal(size=(180, 2)) for side in ("real", "fake")}

    def intervals(names: list[str], orders: dict[str, list[int]]) -> Any:
        return GenerativeMetricFrame(
            metrics={"m": metric},
            **{side: samples[side][orders[side]] for side in samples},
            **{f"{side}_sensitive_features": np.array(names)[groups[orders[side]]] for side in samples},
            random_state=0,
            n_threads=1,
        ).interval()

    rows = {side: list(range(180)) for side in samples}
    before = intervals(["x", "y", "z"], rows).by_group
    for order in rows.values():
        random.shuffle(order)
    after = intervals(names, rows).by_group
    for old, new in zip("xyz", names, strict=True):
        expected = before.xs(old, level="group")
        pd.testing.assert_frame_equal(after.xs(new, level="group"), expected, rtol=1e-9)


def test_p_values_are_uniform_between_groups_of_one_law() -> None:
    """A mean of 200: 400 frames, at most 5 % + 4 standard errors below 0.05. A right program fails 1 seed in 10^4."""
    rng = np.random.default_rng(8)
    labels = ["a", "b"]
    p_values = []
    for _ in range(400):
        means = rng.normal(size=2) / np.sqrt(200)
        spreads = {label: Spread(names=("s",), data=np.eye(1) / 200) for label in labels}
        scores = pd.DataFrame({"s": means}, index=labels)
        p_values.append(score_uncertainty(scores, spreads).largest(score_contrasts(scores)["delta_s"]).p_value())
    share = np.mean(np.array(p_values) < 0.05)
    assert 0.05 - 4 * np.sqrt(0.05 * 0.95 / 400) < share < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)


def test_a_clear_difference_is_found_and_adjusted_for_all_rows() -> None:
    tests = frame({"gap": mean_difference, "fid": frechet_distance}, n=100, shift=3.0).test()
    assert tests.loc[("gap", "delta_gap"), "p_value"] < 1e-6
    assert tests.loc[("fid", "delta_fid"), "p_value"] < 1e-6
    assert tests.loc[("proportions", "mgo"), "p_value"] == 1.0  # the numbers are equal by design
    np.testing.assert_array_equal(tests["adjusted_p_value"], holm(tests["p_value"].to_numpy()))


def test_a_missing_group_has_no_interval_and_no_test() -> None:
    rng = np.random.default_rng(9)
    real, fake = rng.normal(size=(180, 2)), rng.normal(size=(120, 2))
    result = GenerativeMetricFrame(
        metrics=frechet_distance,
        real=real,
        fake=fake,
        real_sensitive_features=np.repeat(["a", "b", "c"], 60),
        fake_sensitive_features=np.repeat(["a", "b"], 60),
        missing_groups="nan",
        random_state=0,
    )
    intervals = result.interval()
    assert intervals.by_group.loc["frechet_distance"].loc["c"].isna().all()
    assert intervals.by_group.loc["frechet_distance"].loc[["a", "b"]].notna().to_numpy().all()
    low, high = result.difference_interval("frechet_distance", "a", "b")
    assert low < high
    assert np.isnan(result.difference_interval("frechet_distance", "a", "c")).all()
    assert np.isnan(result.test().loc[("frechet_distance", "delta_fid"), "p_value"])


def test_samples_needed_finds_the_difference_with_the_power_asked_for() -> None:
    """A mean of n has the error 1 / sqrt(n): 4000 draws of the difference at the size that is returned."""
    n = samples_needed(np.sqrt(2 / 100), 100, delta=0.1, power=0.7)
    error = np.sqrt(2 / n)
    draws = 0.1 + error * np.random.default_rng(10).normal(size=4000)
    power = np.mean(np.abs(draws) > normal_quantile(0.95) * error)
    assert power == pytest.approx(0.7, abs=4 * np.sqrt(0.7 * 0.3 / 4000))  # 1 seed in 10^4 fails
    assert samples_needed(0.1, 100, delta=0.05) == pytest.approx(4 * samples_needed(0.1, 100, delta=0.1), abs=3)


def test_a_frame_extrapolates_from_its_own_error(small: Any) -> None:
    low, high = small.difference_interval("fid", "g0", "g1")
    error = (high - low) / 2 / normal_quantile(0.95)
    assert small.samples_needed("fid", "g0", "g1", delta=0.1) == samples_needed(error, 80, delta=0.1)


def test_what_cannot_be_answered_is_refused(small: Any) -> None:
    few = frame(mean_difference, n=49)
    with pytest.raises(ValueError, match="group 'g0' has 49 samples on one side, and an interval needs at least 50"):
        few.interval()
    for level in (0.0, 1.0, 95, "0.95"):
        with pytest.raises(ValueError, match=r"level=.* is no number strictly between 0 and 1"):
            small.interval(level)
        with pytest.raises(ValueError, match=r"level=.* is no number strictly between 0 and 1"):
            small.difference_interval("fid", "g0", "g1", level)
    with pytest.raises(ValueError, match="metric='prdc' is no column of by_group; choose one of"):
        small.difference_interval("prdc", "g0", "g1")
    with pytest.raises(ValueError, match=r"'g9' is no group of this frame; choose two of"):
        small.difference_interval("fid", "g0", "g9")
    with pytest.raises(ValueError, match=r"delta=0\.0 is no positive number"):
        small.samples_needed("fid", "g0", "g1", delta=0.0)
    with pytest.raises(ValueError, match=r"power=1\.0 is no chance"):
        samples_needed(0.1, 10, delta=0.1, power=1.0)
    with pytest.raises(ValueError, match="standard_error=nan is no positive number"):
        samples_needed(float("nan"), 10, delta=0.1)
    with pytest.raises(ValueError, match="real has less than the 164 rows that quarters with 40 neighbours need"):
        frame(functools.partial(precision_recall_density_coverage, n_neighbors=40), n=60).interval()


def test_projections_that_groups_share_cancel_from_their_difference_whoever_is_missing() -> None:
    """Scores under 50 projections: a common part of deviation 2, an own one of 0.1, and no noise of other kinds."""
    rng = np.random.default_rng(11)
    common, nothing = 2.0 * rng.normal(size=(50, 1)), np.zeros((1, 1))
    scores = pd.DataFrame({"s": [1.0, 2.0, np.nan]}, index=["a", "b", "c"])
    spreads = {
        label: Spread(
            names=("s",), data=nothing, interaction=nothing, per_projection=common + 0.1 * rng.normal(size=(50, 1))
        )
        for label in "ab"
    }
    found = score_uncertainty(scores, spreads)
    parts = found.parts(np.array([[1.0, 0.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]))
    own = spreads["a"].per_projection - spreads["b"].per_projection
    assert parts["projections"][0] == pytest.approx(spreads["a"].per_projection.var(ddof=1) / 50)
    assert parts["projections"][1] == pytest.approx(own.var(ddof=1) / 50)
    assert np.isnan(parts["total"][2])


def test_parts_of_the_variance_of_a_mean_over_projections() -> None:
    """Of two scores under 4 projections in one group and without projections in the other."""
    rng = np.random.default_rng(24)
    names = ("s", "t")
    scores = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], index=["a", "b"], columns=names)
    data, interaction, threshold = (np.diag(values) for values in ([0.5, 0.6], [0.02, 0.03], [0.04, 0.05]))
    per_projection = rng.normal(size=(4, 2))
    found = score_uncertainty(
        scores,
        {
            "a": Spread(
                names=names, data=data, interaction=interaction, threshold=threshold, per_projection=per_projection
            ),
            "b": Spread(names=names, data=2 * data, threshold=3 * threshold),
        },
    )
    parts = found.parts(np.eye(4))
    assert parts["data"].tolist() == pytest.approx([0.5, 0.6, 1.0, 1.2])
    assert parts["threshold"].tolist() == pytest.approx([0.04 / 4, 0.05 / 4, 0.12, 0.15])
    own = per_projection.var(axis=0, ddof=1) / 4 - np.array([0.02 + 0.04, 0.03 + 0.05]) / 4
    assert parts["projections"].tolist() == pytest.approx([*own, 0.0, 0.0])
    assert (own > 0).all()
    together = found.parts(np.array([[1.0, 1.0, 0.0, 0.0]]))
    sum_of_scores = per_projection.sum(axis=1).var(ddof=1) / 4 - (0.05 + 0.09) / 4
    assert together["projections"].tolist() == pytest.approx([sum_of_scores])


def test_proportions_vary_as_multinomial_ones() -> None:
    counts = pd.DataFrame({"n_real": [30, 50, 20], "n_fake": [100, 60, 40]}, index=["a", "b", "c"])
    p, q = ([0.3, 0.5, 0.2], [0.5, 0.3, 0.2])
    counts["real_proportion"], counts["fake_proportion"] = p, q
    found, contrasts = proportion_uncertainty(counts)
    excess = np.subtract(q, p)
    np.testing.assert_allclose(found.estimates(contrasts["mgo"]), [*excess, *-excess])
    variances = [p[a] * (1 - p[a]) / 100 + q[a] * (1 - q[a]) / 200 for a in range(3)]
    np.testing.assert_allclose(found.parts(contrasts["mgo"])["total"], variances * 2)
    pairs = list(itertools.permutations(range(3), 2))
    np.testing.assert_allclose(found.estimates(contrasts["ego"]), [q[a] - q[b] for a, b in pairs])
    variances = [(q[a] + q[b] - (q[a] - q[b]) ** 2) / 200 for a, b in pairs]
    np.testing.assert_allclose(found.parts(contrasts["ego"])["total"], variances)
