"""Samples that come in clusters: they are divided and permuted whole, and variances are those of clusters.

Statistical tests have fixed seeds, and say how likely a correct program is to fail them, over all seeds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import GenerativeMetricFrame, registry
from egtmetrics.groups import (
    DisparityMonitor,
    MissingScoreWarning,
    compare_frames,
    compare_models,
    permutation_test,
    permutation_test_frames,
    permutation_test_models,
)
from egtmetrics.groups.baseline import draw_splits, set_sizes
from egtmetrics.metrics import (
    ScoreCovariance,
    clipped_density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall_cover,
    precision_recall_density_coverage,
)
from egtmetrics.metrics.subsampling import draw_all, n_units, share_variance
from egtmetrics.metrics.variance import ScoresOfParts, covariance_of_shares, score_covariance
from egtmetrics.results import MetricResult, UnreliableScoreWarning, share
from egtmetrics.samples import GroupedSamples

pytestmark = pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perfect(MetricResult):
    precision: float = share(label="precision")


def clustered(rng: np.random.Generator, n_clusters: int, size: int, rho: float, d: int = 2) -> Array:
    """Rows of ``n_clusters`` clusters, one after the other; ``rho`` is the correlation within a cluster."""
    common = rng.normal(size=(n_clusters, 1, d)).repeat(size, axis=1).reshape(-1, d)
    return np.sqrt(rho) * common + np.sqrt(1.0 - rho) * rng.normal(size=(n_clusters * size, d))


def mean_difference(real: Array, fake: Array) -> float:
    return float(fake.mean() - real.mean())


def variance(metric: Callable[..., Any], real: Array, fake: Array, ids: Array | None) -> Array:
    found = score_covariance(metric, metric(real, fake), real, fake, rng=np.random.default_rng(1), clusters=(None, ids))
    return np.diag(found.data)


# Halves and quarters


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=12, max_size=30), st.integers(0, 99))
def test_parts_are_equal_and_cut_three_clusters_at_most(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = rng.normal(size=(len(ids), 2))
    (sample,) = draw_all([points], [ids], np.random.default_rng(seed), 4)
    assert sample.clusters is not None
    row = {point.tobytes(): cluster for point, cluster in zip(points, ids, strict=True)}
    assert [row[point.tobytes()] for point in np.asarray(sample.points)] == sample.clusters.tolist()
    for n_parts, columns in sample.by_size():
        for parts in sample.parts[:, columns].T:
            assert np.bincount(parts, minlength=n_parts).tolist() == [len(parts) // n_parts] * n_parts
            n_cut = sum(len(np.unique(parts[sample.clusters == one])) > 1 for one in np.unique(sample.clusters))
            assert n_cut <= 3


def test_a_cluster_of_several_sets_is_in_the_same_part_of_all() -> None:
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(12), 4)
    first, second, alone = draw_all([rng.normal(size=(48, 1)) for _ in range(3)], [ids, ids, None], rng, 5)
    for one in range(12):
        np.testing.assert_array_equal(
            np.unique(first.parts[first.clusters == one], axis=0),
            np.unique(second.parts[second.clusters == one], axis=0),
        )
    assert alone.clusters is None
    assert n_units(48, ids) == 12


# Variances


@pytest.mark.parametrize(
    "metric",
    [
        mean_difference,
        frechet_distance,
        functools.partial(kernel_distance, n_subsets=1, subset_size=320, random_state=0),
        functools.partial(precision_recall_cover, n_threads=1),
        functools.partial(clipped_density_coverage, n_threads=1),
        functools.partial(precision_recall_density_coverage, n_threads=1),
    ],
    ids=["mean", "fid", "kid", "cover", "clipped", "prdc"],
)
def test_the_variance_of_clusters_in_simulations(metric: Callable[..., Any]) -> None:
    """The ratio of the mean estimate and the variance over 80 draws has an error of 16 % and more where the law is not
    normal; the bounds are three of it. Without clusters the ratio is below .5 for the mean."""
    rng = np.random.default_rng(2)
    ids = np.repeat(np.arange(40), 8)
    values, estimates, ignoring = [], [], []
    for _ in range(80):
        real, fake = rng.normal(size=(320, 8)), clustered(rng, 40, 8, 0.5, d=8) + 0.5
        result = metric(real, fake)
        values.append(list(result.scores().values()) if hasattr(result, "scores") else [result])
        if len(estimates) < 20:
            estimates.append(variance(metric, real, fake, ids))
            ignoring.append(variance(metric, real, fake, None))
    ratio = np.mean(estimates, axis=0) / np.var(values, axis=0, ddof=1)
    assert (ratio > 0.55).all()
    assert (ratio < 1.9).all()
    if metric is mean_difference:
        assert np.mean(ignoring) < 0.5 * np.mean(estimates)


def test_rows_that_are_each_other_s_copies_count_once() -> None:
    """The moves of clusters of four copies are those of single rows, but for factors of n - 1 over n."""
    rng = np.random.default_rng(3)
    real, once = rng.normal(size=(200, 3)), rng.normal(0.5, size=(100, 3))
    ids = np.repeat(np.arange(100), 4)
    single = score_covariance(frechet_distance, frechet_distance(real, once), real, once, rng=rng).alone
    copies = once.repeat(4, axis=0)
    found = score_covariance(
        frechet_distance, frechet_distance(real, copies), real, copies, rng=rng, clusters=(None, ids)
    ).alone
    assert single is not None
    np.testing.assert_allclose(found, single, rtol=0.05)


def test_an_estimator_that_does_not_take_clusters_is_not_used_for_them() -> None:
    def of_rows(result: Any, real: Any, fake: Any, rng: np.random.Generator) -> ScoreCovariance:
        return ScoreCovariance(data=np.full((1, 1), 7.0))

    try:
        gap = registry.metric("test-rows", title="Gap", variance=of_rows)(lambda x, y: mean_difference(x, y))
        rng = np.random.default_rng(4)
        real, fake = rng.normal(size=(80, 2)), clustered(rng, 20, 4, 0.5)
        assert variance(gap, real, fake, None).item() == 7.0
        assert variance(gap, real, fake, np.repeat(np.arange(20), 4)).item() < 1.0
    finally:
        registry._REGISTERED.pop("test-rows")


def test_a_share_of_one_has_the_error_of_its_clusters() -> None:
    nothing_varies = ScoresOfParts(halves=np.ones((1, 2, 6, 1)), quarters=np.ones((1, 4, 2, 1)))
    for n_clusters, expected in ((None, 400), ([20], 20)):
        found = covariance_of_shares(nothing_varies, [1.0], [400], n_clusters)
        assert found.data.item() == pytest.approx(share_variance(np.zeros(1), np.full(1, expected)).item())


# Groups


def spanning(rng: np.random.Generator, rho: float) -> dict[str, Any]:
    """Two groups in every prompt, four images each."""
    fake = clustered(rng, 50, 8, rho, d=1)
    labels = np.tile(["a", "b"], 200)
    return {
        "real": rng.normal(size=(400, 1)),
        "fake": fake,
        "real_sensitive_features": labels,
        "fake_sensitive_features": labels,
        "fake_clusters": np.repeat(np.arange(50), 8),
    }


def test_what_groups_have_in_common_cancels_from_their_difference() -> None:
    """A prompt moves both groups alike. 33 divisions know the variance to 15 %; the bounds are three of these."""
    rng = np.random.default_rng(6)
    data = spanning(rng, 0.8)
    frame = GenerativeMetricFrame(metrics=mean_difference, random_state=0, **data)
    low, high = frame.interval().by_group.loc[("mean_difference", "a"), ["low", "high"]]
    single = ((high - low) / 2 / 1.96) ** 2
    assert single == pytest.approx(1 / 200 + 0.8 / 50 + 0.2 / 200, rel=0.5)
    variance = frame.interval().variance["total"].iloc[0]
    assert variance == pytest.approx(2 * (1 / 200 + 0.2 / 200), rel=0.5)
    assert variance < single
    fid = GenerativeMetricFrame(metrics="fid", random_state=0, **{**data, "fake": data["fake"] + 2.0})
    single = np.diff(fid.interval().by_group.loc[("fid", "a"), ["low", "high"]].to_numpy(dtype=float)).item() ** 2 / 16
    assert fid.interval().variance["total"].iloc[0] < single


def test_few_clusters_are_a_caveat_and_very_few_have_no_interval() -> None:
    rng = np.random.default_rng(7)
    data = spanning(rng, 0.1)
    for n_clusters, reliable in ((10, False), (25, True)):
        data["fake_clusters"] = np.arange(400) // (400 // n_clusters)
        if reliable:
            frame = GenerativeMetricFrame(metrics="fid", **data)
        else:
            with pytest.warns(UnreliableScoreWarning, match="fake samples are in 10 clusters"):
                frame = GenerativeMetricFrame(metrics="fid", **data)
        assert frame.disparities()["reliable"].iloc[0] == reliable
        assert frame.interval().by_group["reliable"].tolist() == [reliable] * 2
        assert frame.settings["clusters"] == {"fake": n_clusters}
    data["fake_clusters"] = np.where(data["fake_sensitive_features"] == "a", np.arange(400) // 80, np.arange(400))
    with pytest.warns(UnreliableScoreWarning, match="5 clusters"):
        frame = GenerativeMetricFrame(metrics="fid", **data)
    with pytest.warns(MissingScoreWarning, match="'a' are in 5 clusters, and an interval needs at least 8"):
        assert np.isnan(frame.interval().by_group.loc[("fid", "a"), "low"])


def test_a_verdict_on_perfect_shares_is_one_on_clusters() -> None:
    """All 400 samples of both groups count, in 25 clusters each: of 25, 3 may have been missed, and of 400 as well."""

    def all_count(real: Array, fake: Array) -> MetricResult:
        return Perfect(precision=1.0, backend="numpy", n_real=len(real), n_fake=len(fake))

    data = spanning(np.random.default_rng(15), 0.0)
    frames = {
        name: GenerativeMetricFrame(metrics=all_count, random_state=0, **{**data, "fake_clusters": clusters})
        for name, clusters in (("clusters", np.arange(400) // 16), ("rows", None))
    }
    for tolerance, expected in ((0.05, "undecided"), (0.3, "within")):
        assert frames["clusters"].certify(tolerance).outcome == expected
        assert frames["rows"].certify(tolerance).outcome == "within"


def test_clusters_that_are_no_labels_of_rows_are_refused() -> None:
    data = spanning(np.random.default_rng(8), 0.1)
    for clusters, message in (
        (np.arange(399), r"fake_clusters has shape \(399,\) for 400 samples"),
        ([None, *range(399)], "no label for 1 of 400"),
        (["x"] * 400, "one label for all 400 samples"),
    ):
        with pytest.raises(ValueError, match=message):
            GroupedSamples(**{**data, "fake_clusters": clusters})


def test_proportions_of_whole_clusters_vary_as_clusters() -> None:
    labels = np.array(["a", "b"] * 10 + ["a"] * 5)
    samples = GroupedSamples(
        real=np.zeros((25, 1)),
        fake=np.zeros((100, 1)),
        real_sensitive_features=labels,
        fake_sensitive_features=labels.repeat(4),
        fake_clusters=np.arange(25).repeat(4),
    )
    real, fake = samples.proportion_covariances()
    np.testing.assert_allclose(fake, real * 25 / 24)
    np.testing.assert_array_equal(samples.matched(random_state=0).proportion_covariances()[1], fake)


# Permutations


def test_whole_clusters_exchange_their_groups() -> None:
    ids = np.repeat(np.arange(10), [1, 2, 3, 4, 5] * 2)
    labels = np.where(ids % 2 == 0, "a", "b")
    samples = GroupedSamples(
        real=np.zeros((30, 1)),
        fake=np.zeros((30, 1)),
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        real_clusters=ids,
        fake_clusters=ids,
    )
    moved = samples.permuted(np.random.default_rng(0))
    assert (moved.groups.fake_ids != samples.groups.fake_ids).any()
    np.testing.assert_array_equal(moved.groups.real_ids, moved.groups.fake_ids)  # the same clusters on both sides
    by_cluster = [set(moved.groups.fake_ids[ids == one]) for one in range(10)]
    assert all(len(groups) == 1 for groups in by_cluster)
    assert sum(groups == {0} for groups in by_cluster) == 5


def test_clusters_of_several_groups_exchange_those_of_all_their_rows() -> None:
    ids = np.repeat(np.arange(9), [4] * 6 + [2] * 3)
    labels = np.array(list("aaab" + "abbb" + "aabb" * 3 + "aaaa" + "ab" * 3))
    samples = GroupedSamples(
        real=np.zeros((4, 1)),
        fake=np.zeros((30, 1)),
        real_sensitive_features=["a", "b"] * 2,
        fake_sensitive_features=labels,
        fake_clusters=ids,
    )
    seen = set()
    for seed in range(20):
        moved = samples.permuted(np.random.default_rng(seed)).groups.fake_ids
        in_large = sorted(int(moved[ids == one].sum()) for one in range(6))
        assert in_large == sorted([1, 3, 2, 2, 2, 0])
        assert [int(moved[ids == one].sum()) for one in range(6, 9)] == [1] * 3
        seen.add(tuple(moved))
    assert len(seen) > 15


def test_a_permutation_test_holds_its_level_where_clusters_are_ignored_it_does_not() -> None:
    """60 tests at 10 %: a correct one rejects 6 +- 2.3, with 1 seed in 500 more than 13; rows alone reject 26 +- 4."""
    rng = np.random.default_rng(9)
    ids = np.repeat(np.arange(20), 5)
    labels = np.where(ids < 10, "a", "b")
    rejected = {"clusters": 0, "rows": 0}
    for seed in range(60):
        real, fake = np.zeros((100, 1)), clustered(rng, 20, 5, 0.9, d=1)
        for name, clusters in (("clusters", ids), ("rows", None)):
            test = permutation_test(
                real,
                fake,
                metric=mean_difference,
                real_sensitive_features=labels,
                fake_sensitive_features=labels,
                fake_clusters=clusters,
                n_permutations=19,
                random_state=seed,
            )
            rejected[name] += test.p_value <= 0.1
    assert rejected["clusters"] <= 13
    assert rejected["rows"] > 13


# Other real samples, and doses


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=10, max_size=20), st.integers(1, 3))
def test_no_two_sets_of_a_split_have_a_cluster_in_common(sizes: list[int], per_side: int) -> None:
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = rng.normal(size=(len(ids), 1))
    n_samples = max(1, len(ids) // 8)
    samples = GroupedSamples(
        real=points, fake=points, real_sensitive_features=["x"] * len(ids), fake_sensitive_features=["x"] * len(ids)
    )
    clusters = [ids, None]
    size, n_disjoint = set_sizes({"x": [points, points]}, {"x": clusters}, samples, per_side, n_samples)
    for split in draw_splits([points, points], clusters, size, per_side, n_disjoint["x"], 2, seed=1):
        of_real, of_fake = split
        assert [len(rows) for rows in (*of_real, *of_fake)] == [size] * 2 * per_side
        in_sets = [set(ids[rows]) for rows in of_real]
        assert sum(map(len, in_sets)) == len(set.union(*in_sets))


def test_a_person_in_both_halves_would_flatter_a_perfect_generator() -> None:
    """Real samples that are copies of each other in fours: split by rows, halves have copies of each other's rows."""
    rng = np.random.default_rng(10)
    labels = np.repeat(["a", "b"], 400)
    data = {
        "real": rng.normal(size=(200, 6)).repeat(4, axis=0),
        "fake": rng.normal(size=(800, 6)),
        "real_sensitive_features": labels,
        "fake_sensitive_features": labels,
        "random_state": 0,
    }
    ids = np.arange(200).repeat(4)
    placebo = {
        name: GenerativeMetricFrame(metrics="ipr", real_clusters=clusters, **data).baseline(n_splits=2).placebo
        for name, clusters in (("rows", None), ("clusters", ids))
    }
    assert placebo["rows"]["ipr_precision"].min() > 0.85
    assert placebo["clusters"]["ipr_precision"].max() < 0.5


def test_a_baseline_and_doses_of_clusters() -> None:
    rng = np.random.default_rng(11)
    ids = np.repeat(np.arange(40), 10)
    labels = np.where(ids < 20, "a", "b")
    frame = GenerativeMetricFrame(
        metrics="fid",
        real=clustered(rng, 40, 10, 0.3),
        fake=clustered(rng, 40, 10, 0.3) + 0.3,
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        real_clusters=ids,
        fake_clusters=[f"prompt {one}" for one in ids],
        random_state=0,
    )
    baseline = frame.baseline(n_splits=2)
    assert baseline.sizes["n_samples"].tolist() == [95, 95]  # what is left of a cluster that is cut is left out
    errors = baseline.interval().variance["total"]
    assert errors.iloc[0] > 0.0
    held_out = {
        name: frame.baseline(
            clustered(rng, 40, 10, 0.9),
            labels,
            held_out_clusters=clusters,
        )
        for name, clusters in (("clusters", [f"other {one}" for one in ids]), ("rows", None))
    }
    widths = {name: one.interval().variance["total"].iloc[0] for name, one in held_out.items()}
    assert widths["clusters"] > 1.2 * widths["rows"]
    response = frame.dose_response("missing_mass,noise", n_splits=1)
    assert response.curves.notna().all(axis=None)


# Models


def test_models_with_the_same_prompts_are_paired() -> None:
    """A prompt moves both models alike; what is left is 2 * .2 / 400, known to 15 %; the bounds are three of these."""
    rng = np.random.default_rng(12)
    real, common = rng.normal(size=(400, 1)), np.sqrt(0.8) * rng.normal(size=(400, 1))
    first, second = (common + np.sqrt(0.2) * rng.normal(size=(400, 1)) for _ in range(2))
    prompts = np.arange(400)

    def compare(theirs: Any) -> Any:
        return compare_models(
            real,
            first,
            second,
            metric=mean_difference,
            fake_clusters=prompts,
            other_fake_clusters=theirs,
            random_state=0,
        )

    assert compare(prompts).standard_error ** 2 == pytest.approx(2 * 0.2 / 400, rel=0.5)
    assert compare(prompts + 400).standard_error ** 2 == pytest.approx(2 * 1.0 / 400, rel=0.5)
    of_distances = [
        compare_models(
            real,
            first + 1.0,
            second + 1.0,
            metric="fid",
            fake_clusters=prompts,
            other_fake_clusters=theirs,
            random_state=0,
        ).standard_error
        for theirs in (prompts, prompts + 400)
    ]
    assert of_distances[0] < 0.7 * of_distances[1]


def test_paired_models_are_permuted_within_prompts() -> None:
    rng = np.random.default_rng(13)
    prompts = np.arange(60)
    common = 5.0 * rng.normal(size=(60, 1))
    first, second = common + rng.normal(size=(60, 1)), common + 0.7 + rng.normal(size=(60, 1))
    run = functools.partial(
        permutation_test_models, np.zeros((60, 1)), first, second, metric=mean_difference, random_state=0
    )
    assert run(fake_clusters=prompts, other_fake_clusters=prompts).p_value < 0.02
    assert run().p_value > 0.2
    with pytest.raises(TypeError, match="other_fake_clusters is missing"):
        run(fake_clusters=prompts)


def test_frames_are_compared_prompt_by_prompt() -> None:
    rng = np.random.default_rng(14)
    data = spanning(rng, 0.0)
    common = clustered(rng, 50, 8, 0.9, d=1)
    fakes = [np.sqrt(0.8) * common + np.sqrt(0.2) * rng.normal(size=(400, 1)) for _ in range(2)]

    def widths(theirs: Any) -> Array:
        frames = [
            GenerativeMetricFrame(
                metrics=mean_difference, random_state=0, **{**data, "fake": fake, "fake_clusters": prompts}
            )
            for fake, prompts in zip(fakes, (data["fake_clusters"], theirs), strict=True)
        ]
        table = compare_frames(*frames)
        return (table["high"] - table["low"]).to_numpy()

    assert (widths(data["fake_clusters"])[:3] < 0.7 * widths(data["fake_clusters"] + 50)[:3]).all()
    frame = GenerativeMetricFrame(metrics=mean_difference, random_state=0, **data)
    other = GenerativeMetricFrame(
        metrics=mean_difference, random_state=0, **{**data, "real_clusters": np.arange(400) // 2}
    )
    with pytest.raises(ValueError, match="different clusters of the same real samples"):
        compare_frames(frame, other)
    with pytest.raises(ValueError, match="come in clusters, and permutations of two frames move single rows"):
        permutation_test_frames(frame, frame)


def test_a_monitor_of_single_samples_refuses_clusters() -> None:
    frame = GenerativeMetricFrame(metrics="ipr", random_state=0, **spanning(np.random.default_rng(16), 0.0))
    with pytest.raises(ValueError, match="every sample is evidence of its own"):
        DisparityMonitor(metric="ipr", tolerance=0.1, given_real=True).update(frame)
    assert DisparityMonitor(metric="ipr", tolerance=0.1).update(frame).p_value > 0.05
