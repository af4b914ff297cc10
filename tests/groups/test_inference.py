"""Intervals, tests and sample sizes, against closed forms, against brute force, and by simulation.

Statistical tests have fixed seeds. Each says how likely a correct program is to fail it, over all seeds.
"""

from __future__ import annotations

import dataclasses
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
    mauve,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics.groups import MissingScoreWarning
from egtmetrics.groups.disparity import EGO, MGO, ScoreTable, proportion_table, score_table
from egtmetrics.groups.inference import (
    Inference,
    Largest,
    proportion_uncertainty,
    score_uncertainty,
)
from egtmetrics.metrics import ScoreCovariance
from egtmetrics.results import MetricResult, Score, share
from egtmetrics.samples import GroupedSamples


def mean_difference(real: NDArray[Any], fake: NDArray[Any]) -> float:
    return float(real[:, 0].mean() - fake[:, 0].mean())


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllOrNothing(MetricResult):
    found: float = share(label="found")


def all_or_nothing(real: NDArray[Any], fake: NDArray[Any]) -> AllOrNothing:
    found = float(real[:, 0].mean() > fake[:, 0].mean())
    return AllOrNothing(found=found, backend="numpy", n_real=len(real), n_fake=len(fake))


def table_of(scores: pd.DataFrame) -> ScoreTable:
    return score_table("m", scores, {str(name): Score(label=str(name)) for name in scores})


def known_of(scores: pd.DataFrame, covariances: dict[Any, ScoreCovariance], disparity: str = "delta_s") -> Largest:
    uncertainty = score_uncertainty(scores, covariances)
    inference = Inference(tables={"m": table_of(scores)}, uncertainties={"m": uncertainty})
    return inference.largest["m", disparity]


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


def test_the_interval_of_a_single_distance_has_its_own_larger_variance() -> None:
    """Between equal laws, the interval of a difference is shorter than the intervals of both groups imply."""
    result = frame({"fid": frechet_distance}, n=100)
    by_group = result.interval().by_group.loc["fid"]
    low, high = result.difference_interval("fid", "g0", "g1")
    assert (high - low) < 0.9 * np.sqrt(((by_group["high"] - by_group["low"]) ** 2).sum())


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
    """The largest of many differences is large by chance: 66 pairs against one, with the same variance."""
    widths, p_values = [], []
    for n_groups in (2, 12):
        labels = [f"g{g}" for g in range(n_groups)]
        scores = pd.DataFrame({"s": [3.0, *([0.0] * (n_groups - 1))]}, index=labels)
        covariances = {label: ScoreCovariance(data=np.eye(1)) for label in labels}
        largest = known_of(scores, covariances)
        widths.append(3.0 - largest.interval(0.95)[0])
        p_values.append(largest.p_value())
    assert widths[0] == pytest.approx(min(3.0, 1.96 * np.sqrt(2)), abs=1e-2)
    assert p_values[0] == pytest.approx(2 * norm.sf(3 / np.sqrt(2)))
    assert widths[1] > widths[0]
    assert p_values[1] > 5 * p_values[0]


@pytest.mark.parametrize(("n_groups", "floor"), [(2, 1.1284), (3, 1.6926), (6, 2.5344), (12, 3.2585)])
def test_equal_groups_differ_by_the_mean_range_of_as_many_draws(n_groups: int, floor: float) -> None:
    """Means of the range of normal variables, from tables; 20,000 draws: within 5 standard errors."""
    labels = [f"g{g}" for g in range(n_groups)]
    scores = pd.DataFrame({"precision": np.arange(n_groups), "recall": 0.0}, index=labels)
    covariances = {label: ScoreCovariance(data=np.diag([0.01, 0.04])) for label in labels}
    for disparity, scale in (("delta_p", 0.1), ("delta_r", 0.2), ("delta_p_plus_delta_r", 0.3)):
        found = known_of(scores, covariances, disparity)
        assert found.expected_if_equal == pytest.approx(scale * floor, rel=0.03)


def test_the_simultaneous_bound_equals_that_of_the_studentised_range() -> None:
    from scipy.stats import studentized_range

    labels = list("abcde")
    scores = pd.DataFrame({"s": [4.0, 0.0, 0.0, 0.0, 0.0]}, index=labels)
    covariances = {label: ScoreCovariance(data=np.eye(1)) for label in labels}
    largest = known_of(scores, covariances)
    exact = studentized_range.sf(4.0, 5, np.inf)
    assert largest.p_value() == pytest.approx(exact, rel=0.2)  # 20,000 draws: 6 standard errors
    bound = 4.0 - studentized_range.ppf(0.95, 5, np.inf)
    assert largest.interval(0.95)[0] == pytest.approx(bound, abs=0.1)  # 4 standard errors of the drawn quantile
    beyond_all_draws = known_of(100.0 * scores, covariances)
    assert beyond_all_draws.p_value() == 1 / 20_001


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
def test_the_order_of_groups_changes_only_the_drawn_maxima(small: Any, order: list[int]) -> None:
    names = [f"n{position}" for position in order]
    scores = small.scores("prdc")
    covariances = {
        label: ScoreCovariance(data=np.diag([1.0 + g, 2.0, 3.0, 4.0]) * 1e-4) for g, label in enumerate(scores.index)
    }
    renamed = dict(zip(scores.index, names, strict=True))
    again = scores.rename(index=renamed).sort_index()
    moved = {renamed[label]: covariance for label, covariance in covariances.items()}
    for disparity in table_of(scores).disparities:
        one, other = known_of(scores, covariances, disparity.name), known_of(again, moved, disparity.name)
        assert other.interval(0.9)[1] == pytest.approx(one.interval(0.9)[1])
        assert other.interval(0.9)[0] == pytest.approx(one.interval(0.9)[0], abs=0.05 * np.max(one.errors))  # drawn
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
    """400 pairs of means: 5 % of the p-values are below 0.05, within 4 standard errors; 1 seed in 10^4 fails."""
    rng = np.random.default_rng(8)
    labels = ["a", "b"]
    p_values = []
    for _ in range(400):
        means = rng.normal(size=2) / np.sqrt(200)
        covariances = {label: ScoreCovariance(data=np.eye(1) / 200) for label in labels}
        scores = pd.DataFrame({"s": means}, index=labels)
        p_values.append(known_of(scores, covariances).p_value())
    share = np.mean(np.array(p_values) < 0.05)
    assert 0.05 - 4 * np.sqrt(0.05 * 0.95 / 400) < share < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)


def test_a_clear_difference_is_found() -> None:
    tests = frame({"gap": mean_difference, "fid": frechet_distance}, n=100, shift=3.0).test()
    assert tests.loc[("gap", "delta_gap"), "p_value"] < 1e-6
    assert tests.loc[("fid", "delta_fid"), "p_value"] < 1e-6
    assert tests.loc[("proportions", "mgo"), "p_value"] == 1.0  # the groups have equal numbers by construction


def test_a_missing_group_has_no_interval_and_is_left_out_of_tests() -> None:
    rng = np.random.default_rng(9)
    real, fake = rng.normal(size=(180, 2)), rng.normal(size=(120, 2))
    result, others = (
        GenerativeMetricFrame(
            metrics={"fid": frechet_distance, "prdc": precision_recall_density_coverage},
            real=real[:n],
            fake=fake,
            real_sensitive_features=np.repeat(["a", "b", "c"], 60)[:n],
            fake_sensitive_features=np.repeat(["a", "b"], 60),
            missing_groups="nan",
            random_state=0,
        )
        for n in (180, 120)
    )
    intervals = result.interval()
    assert intervals.by_group.loc["fid"].loc["c", ["value", "low", "high"]].isna().all()
    assert intervals.by_group.loc["fid"].loc[["a", "b"]].notna().to_numpy().all()
    low, high = result.difference_interval("fid", "a", "b")
    assert low < high
    assert np.isnan(result.difference_interval("fid", "a", "c")).all()
    of_metrics = ["fid", "prdc"]
    for table, expected in ((intervals.disparities, others.interval().disparities), (result.test(), others.test())):
        assert set(table.loc[of_metrics, "without"]) == {("c",)}
        numbers = table.loc[of_metrics].drop(columns="without")
        pd.testing.assert_frame_equal(numbers, expected.loc[of_metrics].drop(columns="without"), rtol=0.05)


def with_a_small_group(metrics: Any, n_small: int, *, strict: bool = False) -> Any:
    rng = np.random.default_rng(14)
    groups = np.repeat(["a", "b", "c"], [90, 90, n_small])
    real, fake = rng.normal(size=(2, len(groups), 2))
    return GenerativeMetricFrame(
        metrics=metrics,
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        strict=strict,
        random_state=0,
    )


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_a_group_too_small_for_an_interval_leaves_those_of_the_others() -> None:
    metrics = {"prdc": precision_recall_density_coverage, "gap": mean_difference}
    result = with_a_small_group(metrics, 30)
    with pytest.warns(MissingScoreWarning) as caught:
        intervals = result.interval()
    assert [str(one.message) for one in caught] == [
        "no interval for group 'c': group 'c' has 30 samples on one side, and an interval needs at least 50 real and "
        "50 fake ones in every group; add samples, or merge groups"
    ]
    assert caught[0].filename == __file__
    assert result.by_group.notna().all(axis=None)
    by_group = intervals.by_group[["low", "high"]].isna().all(axis=1).groupby("group").agg(["all", "any"])
    assert by_group.to_numpy().tolist() == [[False, False], [False, False], [True, True]]
    assert set(intervals.disparities.loc[["prdc", "gap"], "without"]) == {("c",)}
    assert intervals.disparities[["low", "high"]].notna().all(axis=None)
    a, b, _ = result.by_group["gap"]
    assert intervals.disparities.loc[("gap", "delta_gap"), "value"] == pytest.approx(abs(a - b))
    assert np.isnan(result.difference_interval("gap", "a", "c")).all()
    assert result.test()["p_value"].notna().all()
    with pytest.raises(ValueError, match="group 'c' has 30 samples on one side"):
        with_a_small_group(metrics, 30, strict=True).interval()


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_a_group_too_small_for_the_halves_of_a_metric_has_intervals_of_the_others() -> None:
    metrics = {"prdc": functools.partial(precision_recall_density_coverage, n_neighbors=18), "fid": frechet_distance}
    result = with_a_small_group(metrics, 60)
    with pytest.warns(MissingScoreWarning, match=r"no interval for group 'c': .*\(60 real, 60 fake\), metric 'prdc': "):
        disparities = result.interval().disparities
    assert set(disparities.loc[["prdc"], "without"]) == {("c",)}
    assert set(disparities.loc[["fid"], "without"]) == {()}
    metrics["prdc"] = functools.partial(precision_recall_density_coverage, n_neighbors=40)
    result = with_a_small_group(metrics, 60)
    with pytest.warns(
        MissingScoreWarning, match=r"no interval for group 'a', group 'b', group 'c': .* real has 88 rows"
    ):
        disparities = result.interval().disparities
    assert disparities.loc[["prdc"], "low"].isna().all()
    assert disparities.loc[["fid"], "low"].notna().all()
    assert result.test().loc[["prdc"], "p_value"].isna().all()
    with pytest.raises(ValueError, match="metric 'prdc': real has 88 rows"):
        with_a_small_group({"prdc": metrics["prdc"]}, 60).interval()


@pytest.mark.parametrize("n_groups", [2, 4])
def test_intervals_stay_within_what_the_scores_can_be(n_groups: int) -> None:
    """However large the variances are."""
    labels = [f"g{g}" for g in range(n_groups)]
    described = {
        "precision": Score(label="p", bounds=(0.0, 1.0)),
        "recall": Score(label="r", bounds=(0.0, 1.0)),
        "density": Score(label="d", bounds=(0.0, np.inf)),
        "loss": Score(label="l"),
    }
    scores = pd.DataFrame(np.random.default_rng(15).random((n_groups, 4)), index=labels, columns=list(described))
    uncertainty = score_uncertainty(scores, {label: ScoreCovariance(data=100.0 * np.eye(4)) for label in labels})
    inference = Inference(tables={"m": score_table("m", scores, described)}, uncertainties={"m": uncertainty})
    intervals = inference.intervals(0.95)
    shares = intervals.by_group.loc[["m_precision", "m_recall"]]
    assert (shares["low"] == 0.0).all()
    assert (shares["high"] == 1.0).all()
    assert (intervals.by_group.loc["m_density"]["low"] == 0.0).all()
    assert (intervals.by_group.loc["m_loss"]["low"] < -10.0).all()
    found = intervals.disparities.loc["m"]
    limits = {"delta_p": 1.0, "delta_r": 1.0, "delta_pr": 2.0, "delta_p_plus_delta_r": 2.0}
    assert found.loc[list(limits), "high"].to_dict() == limits
    assert (found["low"] == 0.0).all()
    assert (found.loc[["delta_density", "delta_loss"], "high"] > 10.0).all()


def test_proportions_differ_by_at_most_1() -> None:
    counts = pd.DataFrame({"n_real": [1, 1], "n_fake": [1, 1]}, index=["a", "b"])
    counts["real_proportion"] = counts["fake_proportion"] = [0.99, 0.01]
    table = proportion_table(counts)
    assert [disparity.limit(table.described) for disparity in table.disparities] == [1.0, 1.0]


def test_a_signed_difference_of_shares_is_within_minus_1_and_1() -> None:
    result = frame({"found": all_or_nothing}, n=60)
    assert result.difference_interval("found", "g0", "g1", 1 - 1e-15) == (-1.0, 1.0)


def test_what_is_left_of_one_group_is_nothing() -> None:
    scores = pd.DataFrame({"precision": [0.5, np.nan, 0.7], "recall": [0.5, np.nan, np.nan]}, index=["a", "b", "c"])
    covariances = {label: ScoreCovariance(data=0.01 * np.eye(2)) for label in "abc"}
    found = known_of(scores, covariances, "delta_p")
    assert found.without == ("b",)
    assert found.value == pytest.approx(0.2)
    assert found.p_value() == pytest.approx(2 * norm.sf(0.2 / np.sqrt(0.02)))
    for disparity in ("delta_r", "delta_pr", "delta_p_plus_delta_r"):
        alone = known_of(scores, covariances, disparity)
        assert alone.without == ("b", "c")
        numbers = [alone.value, *alone.interval(0.9), alone.p_value(), alone.expected_if_equal, *alone.attained()]
        assert np.isnan(numbers).all()


def test_a_score_without_a_variance_takes_part_with_either_sign() -> None:
    scores = pd.DataFrame({"s": [1.0, 2.0, 3.0]}, index=["a", "b", "c"])
    one = ScoreCovariance(data=np.ones((1, 1)))
    found = score_uncertainty(scores, {"a": one, "b": one})
    signs = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 1.0], [1.0, 0.0, -1.0], [1.0, -1.0, 0.0]])
    np.testing.assert_array_equal(found.estimates(signs), [np.nan, np.nan, np.nan, np.nan, -1.0])
    np.testing.assert_array_equal(found.parts(signs)["total"], [np.nan, np.nan, np.nan, np.nan, 2.0])


def test_bad_arguments_and_small_groups_are_refused(small: Any) -> None:
    few = frame(mean_difference, n=49)
    with pytest.raises(ValueError, match="group 'g0' has 49 samples on one side, and an interval needs at least 50"):
        few.interval()
    for level in (0.0, 1.0, 95, "0.95"):
        with pytest.raises(ValueError, match=r"level=.* is not a number strictly between 0 and 1"):
            small.interval(level)
        with pytest.raises(ValueError, match=r"level=.* is not a number strictly between 0 and 1"):
            small.difference_interval("fid", "g0", "g1", level)
    with pytest.raises(ValueError, match="score='prdc' is not a column of by_group; choose one of"):
        small.difference_interval("prdc", "g0", "g1")
    with pytest.raises(ValueError, match=r"'g9' is not a group of this frame; choose two of"):
        small.difference_interval("fid", "g0", "g9")
    with pytest.raises(ValueError, match="real has 60 rows, but quarters with 40 neighbours need at least 164"):
        frame(functools.partial(precision_recall_density_coverage, n_neighbors=40), n=60).interval()


def test_noise_of_shared_projections_cancels_from_differences_even_if_a_group_is_missing() -> None:
    """Scores under 50 projections: a common term with deviation 2, an individual one with 0.1, and no other noise."""
    rng = np.random.default_rng(11)
    common, nothing = 2.0 * rng.normal(size=(50, 1)), np.zeros((1, 1))
    scores = pd.DataFrame({"s": [1.0, 2.0, np.nan]}, index=["a", "b", "c"])
    covariances = {
        label: ScoreCovariance(
            data=nothing, interaction=nothing, per_projection=common + 0.1 * rng.normal(size=(50, 1))
        )
        for label in "ab"
    }
    found = score_uncertainty(scores, covariances)
    parts = found.parts(np.array([[1.0, 0.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]))
    own = covariances["a"].per_projection - covariances["b"].per_projection
    assert parts["projections"][0] == pytest.approx(covariances["a"].per_projection.var(ddof=1) / 50)
    assert parts["projections"][1] == pytest.approx(own.var(ddof=1) / 50)
    assert np.isnan(parts["total"][2])


def test_sources_of_the_variance_of_a_mean_over_projections() -> None:
    """Two scores, averaged over 4 projections in one group and without projections in the other."""
    rng = np.random.default_rng(24)
    names = ("s", "t")
    scores = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], index=["a", "b"], columns=names)
    data, interaction, threshold = (np.diag(values) for values in ([0.5, 0.6], [0.02, 0.03], [0.04, 0.05]))
    per_projection = rng.normal(size=(4, 2))
    found = score_uncertainty(
        scores,
        {
            "a": ScoreCovariance(
                data=data, interaction=interaction, threshold=threshold, per_projection=per_projection
            ),
            "b": ScoreCovariance(data=2 * data, threshold=3 * threshold),
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


def test_proportions_have_the_multinomial_covariance() -> None:
    samples = GroupedSamples(
        real=np.zeros((100, 1)),
        fake=np.zeros((200, 1)),
        real_sensitive_features=np.repeat(["a", "b", "c"], [30, 50, 20]),
        fake_sensitive_features=np.repeat(["a", "b", "c"], [100, 60, 40]),
    )
    p, q = ([0.3, 0.5, 0.2], [0.5, 0.3, 0.2])
    found = proportion_uncertainty(samples.counts(), samples.proportion_covariances())
    contrasts = {one.name: one.contrasts(found.table)[0] for one in (MGO, EGO)}
    excess = np.subtract(q, p)
    np.testing.assert_allclose(found.estimates(contrasts["mgo"]), [*excess, *-excess])
    variances = [p[a] * (1 - p[a]) / 100 + q[a] * (1 - q[a]) / 200 for a in range(3)]
    np.testing.assert_allclose(found.parts(contrasts["mgo"])["total"], variances * 2)
    pairs = list(itertools.permutations(range(3), 2))
    np.testing.assert_allclose(found.estimates(contrasts["ego"]), [q[a] - q[b] for a, b in pairs])
    variances = [(q[a] + q[b] - (q[a] - q[b]) ** 2) / 200 for a, b in pairs]
    np.testing.assert_allclose(found.parts(contrasts["ego"])["total"], variances)
