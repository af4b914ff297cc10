"""Intervals, tests and sample sizes, against closed forms, against metrics called on halves, and by simulation.

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
from egtmetrics._order import canonical_order
from egtmetrics.groups import samples_needed
from egtmetrics.groups.inference import (
    holm,
    normal_quantile,
    proportion_uncertainty,
    score_contrasts,
    score_uncertainty,
)
from egtmetrics.metrics import _halves
from egtmetrics.metrics._halves import half_splits, spread
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


@pytest.mark.parametrize("n", [10, 11])
def test_halves_are_disjoint_and_equal(n: int) -> None:
    signs = half_splits(n, 300, np.random.default_rng(0))
    assert (np.abs(signs).sum(axis=0) == n // 2 * 2).all()
    assert not signs.sum(axis=0, dtype=int).any()
    assert (np.abs(signs.mean(axis=1, dtype=float)) < 5 / np.sqrt(300)).all()


def test_the_spread_of_a_mean_is_its_standard_error() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(400, 1)), 2.0 * rng.normal(size=(300, 1))
    found = spread(mean_difference, 0.0, real, fake, n_splits=4000, rng=rng).data[0, 0]
    exact = real.var(ddof=1) / 400 + fake.var(ddof=1) / 300
    assert found == pytest.approx(exact, rel=0.1)  # relative error sqrt(2 / 4000): 4.5 of them


@pytest.mark.parametrize("n", [120, 121])
@pytest.mark.parametrize("closed", [False, True])
def test_neighbour_halves_are_the_metric_on_the_halves(n: int, closed: bool) -> None:
    rng = np.random.default_rng(2)
    real, fake = rng.integers(0, 3, size=(n, 4)).astype(float), rng.integers(0, 3, size=(90, 4)).astype(float)
    splits = half_splits(n, 4, rng), half_splits(90, 4, rng)
    metric = functools.partial(
        precision_recall_density_coverage, n_neighbors=3, ties="include" if closed else "exclude"
    )
    _, expected = _halves._called_halves(metric, real, fake, *splits)
    for kernels in (CPU, select_host_backend("reference")):
        found = _halves._neighbor_halves(kernels, real, fake, 3, *splits, closed=closed)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_neighbour_halves_deepen_their_lists_where_a_half_is_far_away() -> None:
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 100.0])
    signs = np.repeat(np.array([[1], [-1]], dtype=np.int8), 60, axis=0)
    signs[0], signs[60] = -1, 1  # the neighbours of these two are all in the other half
    radii = _halves._radii_within_halves(CPU, points, 3, signs)
    for side in (1, -1):
        rows = signs[:, 0] == side
        np.testing.assert_allclose(radii[rows, 0], CPU.kth_neighbor(points[rows], n_neighbors=3), rtol=1e-12)


def test_frechet_variance_is_that_of_the_distance_on_halves() -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(800, 3)), rng.normal(size=(700, 3)) * [1.0, 2.0, 0.5] + [1.0, 0.0, 0.0]
    splits = half_splits(800, 1000, rng), half_splits(700, 1000, rng)
    _, differences = _halves._called_halves(frechet_distance, real, fake, *splits)
    exact = (differences**2).mean()
    assert _halves._frechet_variance(real, fake)[0, 0] == pytest.approx(exact, rel=0.2)  # 4.5 standard errors


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
        return max(0.0, float(np.var(own, ddof=1)) - within(u) / (len(u) - 1) - between / len(v))

    pairs = itertools.product(itertools.permutations(range(7), 2), itertools.permutations(range(5), 2))
    centred = [
        k(x[i], y[p]) * (k(x[i], y[p]) - k(x[j], y[p]) - k(x[i], y[q]) + k(x[j], y[q])) for (i, j), (p, q) in pairs
    ]
    between = float(np.mean(centred))

    def variance(n: int, m: int) -> float:
        second = 2 * within(x) / (n * (n - 1)) + 2 * within(y) / (m * (m - 1)) + 4 * between / (n * m)
        return 4 * first(x, y) / n + 4 * first(y, x) / m + second

    expected = variance(7, 5) + (variance(size, size) - variance(7, 5)) / n_subsets
    monkeypatch.setattr(_halves, "_LIST_BYTES", 2 * 8 * 7)  # tiles of two rows and a rest
    found = spread(metric, metric(x, y, random_state=0), x, y, n_splits=1, rng=rng).data
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(expected, rel=1e-9)
    assert first(x, y) > 0.0


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_kernel_variance_is_that_of_the_distance(shift: float) -> None:
    """One feature and k(x, y) = x y: the squared difference of two means, less what they vary by.

    Of 300 draws: 4.5 standard errors of their mean. Between equal laws the first part, which is 0, is estimated from
    above, by up to half of the other ones.
    """
    n = 60
    rng = np.random.default_rng(22)
    metric = functools.partial(kernel_distance, degree=1, gamma=1.0, coef0=0.0, subset_size=60, n_subsets=1)
    found = []
    for _ in range(300):
        real, fake = rng.normal(size=(n, 1)), 2.0 * rng.normal(size=(n, 1)) + shift
        result = metric(real, fake, random_state=0)
        found.append(spread(metric, result, real, fake, n_splits=1, rng=rng).data[0, 0])
    exact = 4 * shift**2 * (1 + 4) / n + 2 * (1 + 4) ** 2 / n**2
    error = 4.5 * np.std(found) / np.sqrt(300)
    assert exact - error < np.mean(found) < exact * (1.0 if shift else 1.5) + error


def test_kernel_variance_is_that_of_the_halves() -> None:
    rng = np.random.default_rng(23)
    real, fake = rng.normal(size=(400, 3)), rng.normal(size=(400, 3)) + 0.7
    splits = half_splits(400, 1000, rng), half_splits(400, 1000, rng)
    halved = functools.partial(kernel_distance, subset_size=200, n_subsets=1, random_state=0)
    _, differences = _halves._called_halves(halved, real, fake, *splits)
    whole = functools.partial(kernel_distance, subset_size=400, n_subsets=1)
    found = spread(whole, whole(real, fake, random_state=0), real, fake, n_splits=1, rng=rng).data[0, 0]
    assert found == pytest.approx((differences**2).mean(), rel=0.2)  # 4.5 standard errors


def test_topp_projections_are_those_of_the_result() -> None:
    real, fake = np.random.default_rng(5).normal(size=(2, 200, 40))
    result = topp_precision_recall(real, fake, random_state=7, n_projections=3, n_bootstrap=20, n_threads=1)
    matrices = _halves._projections(result, {"random_state": 7}, 40)
    again = topp_precision_recall(real, fake, projections=matrices, n_bootstrap=20, n_threads=1)
    for one, other in zip(result.per_projection, again.per_projection, strict=True):
        assert one.real_bandwidth == other.real_bandwidth


def test_topp_halves_follow_the_metric_on_the_halves() -> None:
    """With k / 2 neighbours and the threshold of the full sample, worked out without any of the shortcuts.

    The shortcuts smooth the bandwidth of a half, so single halves scatter and the spread is a few percent short. Over
    11 other seeds the correlation was 0.951 +- 0.012 and the ratio of spreads 0.96 +- 0.04: the bounds are four of
    these deviations away, and a wrong bandwidth, threshold or half is far beyond them.
    """
    rng = np.random.default_rng(12)
    d, n, k = 4, 400, 20
    real, fake = rng.normal(size=(n, d)), 0.8 * rng.normal(size=(n, d)) + 0.3
    result = topp_precision_recall(real, fake, random_state=0, n_threads=1)
    (evaluation,) = result.per_projection
    splits = half_splits(n, 150, rng), half_splits(n, 150, rng)
    found, _ = _halves._topp_halves(CPU, real, fake, evaluation, *splits, result, rng)
    expected = []
    for x_signs, y_signs in zip(splits[0].T, splits[1].T, strict=True):
        scores = []
        for side in (1, -1):
            x, y = real[x_signs == side], fake[y_signs == side]
            h = [float(np.median(np.sqrt(CPU.kth_neighbor(points, n_neighbors=k // 2)))) for points in (x, y)]
            at_y = CPU.kernel_density(y, x, bandwidth=h[0]) > evaluation.real_confidence_band
            at_x = CPU.kernel_density(x, y, bandwidth=h[1]) > evaluation.fake_confidence_band
            kept_y = CPU.kernel_density(y, y, bandwidth=h[1]) > evaluation.fake_confidence_band
            kept_x = CPU.kernel_density(x, x, bandwidth=h[0]) > evaluation.real_confidence_band
            scores.append([at_y[kept_y].mean(), at_x[kept_x].mean()])
        expected.append((np.array(scores[0]) - scores[1]) / 2)
    for column in range(2):
        exact = np.array(expected)[:, column]
        assert np.corrcoef(found[:, column], exact)[0, 1] > 0.9
        assert 0.8 < np.sqrt((found[:, column] ** 2).mean() / (exact**2).mean()) < 1.13


def test_topp_spread_over_projections_is_made_of_that_of_each() -> None:
    rng = np.random.default_rng(25)
    real, fake = rng.normal(size=(220, 6)), rng.normal(size=(200, 6)) + 0.2
    matrices = rng.normal(size=(3, 2, 6))
    metric = functools.partial(topp_precision_recall, projections=matrices, n_bootstrap=50, n_threads=1)
    result = metric(real, fake, random_state=0)
    found = spread(metric, result, real, fake, n_splits=20, rng=np.random.default_rng(26), n_threads=1)

    rng = np.random.default_rng(26)
    splits = _halves._splits_of(real, 20, rng), _halves._splits_of(fake, 20, rng)
    orders = canonical_order(real), canonical_order(fake)
    differences, thresholds = [], []
    for matrix, evaluation in zip(matrices, result.per_projection, strict=True):
        x, y = (points[order] @ matrix.T for points, order in zip((real, fake), orders, strict=True))
        sorted_splits = [signs[order] for signs, order in zip(splits, orders, strict=True)]
        halves, shifted = _halves._topp_halves(CPU, x, y, evaluation, *sorted_splits, result, rng)
        differences.append(halves)
        thresholds.append(np.cov(shifted.T))
    mean = np.mean(differences, axis=0)
    np.testing.assert_allclose(found.data, mean.T @ mean / 20, atol=1e-12)
    np.testing.assert_allclose(found.threshold, np.mean(thresholds, axis=0), atol=1e-12)
    over_projections = [np.cov(np.array(differences)[:, split].T) for split in range(20)]
    np.testing.assert_allclose(found.interaction, np.mean(over_projections, axis=0), atol=1e-12)
    scores = [[getattr(one, name) for name in ("precision", "recall", "f1")] for one in result.per_projection]
    np.testing.assert_allclose(found.per_projection, scores)


def test_topp_scores_under_other_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Densities are interpolated between two bandwidths, which moves a few of 300 points over a threshold."""
    rng = np.random.default_rng(29)
    real, fake = rng.normal(size=(300, 3)), 0.8 * rng.normal(size=(300, 3)) + 0.4
    result = topp_precision_recall(real, fake, random_state=0, n_bootstrap=50, n_threads=1)
    (evaluation,) = result.per_projection
    monkeypatch.setattr(_halves, "_band_error", lambda *_: np.log([1.0, 1.3]))
    splits = half_splits(300, 20, rng), half_splits(300, 20, rng)
    _, (same, stricter) = _halves._topp_halves(CPU, real, fake, evaluation, *splits, result, rng)
    np.testing.assert_allclose(same, [result.precision, result.recall, result.f1], atol=0.01)
    h = {"real": evaluation.real_bandwidth, "fake": evaluation.fake_bandwidth}
    c = {"real": 1.3 * evaluation.real_confidence_band, "fake": 1.3 * evaluation.fake_confidence_band}
    points = {"real": real, "fake": fake}
    expected = []
    for own, other in (("fake", "real"), ("real", "fake")):
        kept, covered = (
            CPU.kernel_density(points[own], points[side], bandwidth=h[side]) > c[side] for side in (own, other)
        )
        expected.append(covered[kept].mean())
    np.testing.assert_allclose(stricter[:2], expected, atol=0.01)
    assert np.abs(np.subtract(expected, [result.precision, result.recall])).max() > 0.03


def test_the_error_of_a_band_is_that_of_other_bootstraps() -> None:
    """Deviations of 150 bands and of 200 replicates, each known to some 10 %."""
    points = np.random.default_rng(27).normal(size=(150, 2))
    metric = functools.partial(topp_precision_recall, n_bootstrap=20, n_threads=1)
    results = [metric(points, points, random_state=seed) for seed in range(150)]
    bands = np.log([result.per_projection[0].real_confidence_band for result in results])
    bandwidth = results[0].per_projection[0].real_bandwidth
    found = _halves._band_error(CPU, points, bandwidth, results[0], np.random.default_rng(28))
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
        spreads = {label: _halves.Spread(names=("s",), data=np.eye(1)) for label in labels}
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
    spreads = {label: _halves.Spread(names=("s",), data=np.eye(1)) for label in labels}
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
        label: _halves.Spread(names=tuple(scores), data=np.diag([1.0 + g, 2.0, 3.0, 4.0]) * 1e-4)
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
        spreads = {label: _halves.Spread(names=("s",), data=np.eye(1) / 200) for label in labels}
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
    with pytest.raises(ValueError, match="halves with 40 neighbours need at least 82"):
        frame(functools.partial(precision_recall_density_coverage, n_neighbors=40), n=60).interval()


def test_projections_that_groups_share_cancel_from_their_difference_whoever_is_missing() -> None:
    """Scores under 50 projections: a common part of deviation 2, an own one of 0.1, and no noise of other kinds."""
    rng = np.random.default_rng(11)
    common, nothing = 2.0 * rng.normal(size=(50, 1)), np.zeros((1, 1))
    scores = pd.DataFrame({"s": [1.0, 2.0, np.nan]}, index=["a", "b", "c"])
    spreads = {
        label: _halves.Spread(
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
            "a": _halves.Spread(
                names=names, data=data, interaction=interaction, threshold=threshold, per_projection=per_projection
            ),
            "b": _halves.Spread(names=names, data=2 * data, threshold=3 * threshold),
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
