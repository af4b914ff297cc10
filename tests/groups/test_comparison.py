"""Two models with equal scores are rarely told apart, whatever else they differ in; a real difference is found."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import (
    GenerativeMetricFrame,
    compare_frames,
    compare_models,
    frechet_distance,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics.groups import GroupSizeWarning, permutation_test_models
from egtmetrics.groups.comparison import Spread, spread_of_largest
from egtmetrics.groups.inference import Uncertainty, holm, normal_quantile

Law = Callable[[np.random.Generator], NDArray[Any]]


def mean_gap(real: Any, fake: Any) -> float:
    return float(fake[:, 0].mean() - real[:, 0].mean())


def shifted(by: float, n: int = 200) -> Law:
    return lambda rng: rng.normal([by, 0.0, 0.0], size=(n, 3))


def clusters(*kept: int, n: int = 150) -> Law:
    """Equally likely clusters at the corners of a hexagon."""
    corners = 10.0 * np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)], axis=1)
    return lambda rng: corners[rng.choice(kept, size=n)] + rng.normal(size=(n, 2))


COVERAGE = {"metric": functools.partial(precision_recall_density_coverage, n_neighbors=2), "score": "coverage"}
FID = {"metric": "fid"}


def rejected(real: Law, fake: Law, other_fake: Law, repeats: int, **options: Any) -> int:
    found = 0
    for seed in range(repeats):
        rng = np.random.default_rng([16, seed])
        samples = (law(rng) for law in (real, fake, other_fake))
        found += compare_models(*samples, random_state=seed, n_threads=1, **options).p_value <= 0.05
    return found


@pytest.mark.parametrize(
    ("laws", "options"),
    [
        ((clusters(0, 1, 2, 3, 4, 5), clusters(0, 1, 2, 3), clusters(2, 3, 4, 5)), COVERAGE),
        ((shifted(0.0), shifted(0.8), shifted(-0.8)), FID),
        ((shifted(0.0), shifted(0.8), shifted(0.8)), FID),
    ],
    ids=["other clusters missing", "opposite shifts", "equal laws"],
)
def test_models_that_score_alike_are_seldom_told_apart(laws: tuple[Law, Law, Law], options: dict[str, Any]) -> None:
    """If a test rejects with probability 0.06, more than 18 of 150 rejections occur with probability 0.002."""
    assert rejected(*laws, repeats=150, **options) <= 18


def test_a_permutation_test_tells_models_apart_that_score_alike() -> None:
    """Its null hypothesis is equal laws, which is false here."""
    found = 0
    for seed in range(20):
        rng = np.random.default_rng([16, seed])
        samples = (shifted(by)(rng) for by in (0.0, 0.8, -0.8))
        test = permutation_test_models(*samples, metric="fid", n_permutations=19, random_state=seed)
        found += test.p_value <= 0.05
    assert found >= 10


@pytest.mark.parametrize(
    ("laws", "options"),
    [
        ((clusters(0, 1, 2, 3, 4, 5), clusters(0, 1), clusters(1, 2, 3, 4)), COVERAGE),
        ((shifted(0.0), shifted(0.4), shifted(-1.2)), FID),
    ],
    ids=["more clusters missing", "a larger shift"],
)
def test_a_difference_is_found(laws: tuple[Law, Law, Law], options: dict[str, Any]) -> None:
    assert rejected(*laws, repeats=20, **options) >= 18


def test_what_the_models_have_in_common_cancels() -> None:
    """The difference of ``mean(fake) - mean(real)`` does not depend on real, nor does its error.

    The error is estimated from 99 pairs of halves, with a standard deviation of 7 %; the tolerance is four of these.
    """
    rng = np.random.default_rng(0)
    fake, other_fake = rng.normal(size=(400, 1)), rng.normal(0.1, 2.0, size=(200, 1))
    compare = functools.partial(compare_models, metric=mean_gap, random_state=0)
    with pytest.warns(GroupSizeWarning, match=r"\(400 and 200\)"):
        found = [compare(scale * rng.normal(size=(300, 1)), fake, other_fake) for scale in (1e-3, 1.0, 100.0)]
    for one in found:
        assert one.difference == pytest.approx(fake.mean() - other_fake.mean())
        assert one.standard_error == pytest.approx(found[0].standard_error, rel=1e-6)
    expected = math.sqrt(fake.var() / 400 + other_fake.var() / 200)
    assert found[0].standard_error == pytest.approx(expected, rel=0.28)
    margin = normal_quantile(0.95) * found[0].standard_error
    assert found[0].interval == pytest.approx((found[0].difference - margin, found[0].difference + margin))


def test_a_seed_repeats_the_comparison_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(3, 120, 3))
    metric = functools.partial(topp_precision_recall, n_bootstrap=20)
    compare = functools.partial(compare_models, *samples, metric=metric, score="recall")
    found = [compare(random_state=3, n_threads=n) for n in (1, 2)]
    assert found[0] == found[1]
    assert compare(random_state=4).standard_error != found[0].standard_error


def test_models_that_are_the_same_do_not_differ() -> None:
    real, fake = np.random.default_rng(0).normal(size=(2, 100, 2))
    found = compare_models(real, fake, fake, metric="fid", random_state=0)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.interval[0] <= 0.0 <= found.interval[1]


def test_compare_models_refuses_bad_arguments() -> None:
    real, fake, other = np.random.default_rng(6).normal(size=(3, 60, 2))
    with pytest.raises(ValueError, match="choose one, for example score='precision'"):
        compare_models(real, fake, other, metric="prdc")
    with pytest.raises(ValueError, match="score='fid' is not one of the metric's scores"):
        compare_models(real, fake, other, metric="prdc", score="fid")
    with pytest.raises(ValueError, match=r"level=1\.5"):
        compare_models(real, fake, other, metric="fid", level=1.5)
    with pytest.raises(ValueError, match="fake"):
        compare_models(real, fake, other[:, :1], metric="fid")
    with pytest.raises(ValueError, match=r"other_fake has 49 samples of one kind, but .* at least 50"):
        compare_models(real, fake, other[:49], metric="fid")

    def of_whole(real: Any, fake: Any) -> float:
        if len(fake) < 60:
            raise ValueError("too few")
        return 1.0

    with pytest.raises(ValueError, match=r"needs scores of random halves of all samples.*'of_whole': too few"):
        compare_models(real, fake, other, metric=of_whole)


GROUPS = np.repeat(["f", "m", "x"], 80)
REAL = np.random.default_rng(1).normal(size=(240, 2))


def make_frame(seed: int, *, shift: Any = 0.0, metrics: Any = "fid", **options: Any) -> GenerativeMetricFrame:
    fake = np.random.default_rng([2, seed]).normal(size=(240, 2)) + np.reshape(shift, (-1, 1))
    arguments = {"real": REAL, "real_sensitive_features": GROUPS, "fake_sensitive_features": GROUPS} | options
    return GenerativeMetricFrame(metrics=metrics, fake=fake, random_state=5, **arguments)


def test_rows_of_frames_are_comparisons_of_their_samples() -> None:
    frames = [make_frame(seed, metrics="ipr,fid", shift=seed * (GROUPS == "m")) for seed in range(2)]
    table = compare_frames(*frames, level=0.9)
    assert table["adjusted_p_value"].tolist() == holm(table["p_value"].to_numpy()).tolist()
    rows = table.set_index(["metric", "score", "group"])
    for metric, score, group in (("fid", "fid", "m"), ("ipr", "recall", "x"), ("ipr", "precision", None)):
        kept = slice(None) if group is None else group == GROUPS
        assert frames[0].samples is not None
        assert frames[1].samples is not None
        alone = compare_models(
            REAL[kept],
            frames[0].samples.fake[kept],
            frames[1].samples.fake[kept],
            metric=metric,
            score=score,
            level=0.9,
            random_state=5,
        )
        found = rows.loc[[(metric, score, group)]].iloc[0]
        expected = alone.difference, *alone.interval, alone.p_value
        np.testing.assert_allclose(found[["difference", "low", "high", "p_value"]].astype(float), expected)
    disparities = [frame.disparities()["value"] for frame in frames]
    for name in ("delta_r", "delta_p_plus_delta_r"):
        difference = disparities[0]["ipr", name] - disparities[1]["ipr", name]
        assert rows.loc[[("ipr", name, None)], "difference"].iloc[0] == difference
    assert rows.loc[[("fid", "delta_fid", None)], "adjusted_p_value"].iloc[0] < 0.05
    excludes = (table["low"] > 0) | (table["high"] < 0)
    assert (excludes == (table["p_value"] < 0.1)).all()


def test_disparities_of_equal_size_in_opposite_directions_do_not_differ() -> None:
    """Group f is worse off by as much in one model as group m in the other. 1 in 50 pairs of samples fails."""
    sides = [make_frame(seed, shift=1.0 * (group == GROUPS)) for seed, group in enumerate("fm")]
    p_values = {(row.score, row.group): row.p_value for row in compare_frames(*sides).itertuples()}
    assert p_values["fid", "f"] < 0.001
    assert p_values["fid", "m"] < 0.001
    assert p_values["delta_fid", None] > 0.02


def test_a_missing_group_has_no_p_value() -> None:
    labels = np.where(GROUPS == "x", "m", GROUPS)
    whole = make_frame(0, missing_groups="nan")
    lacking = make_frame(1, missing_groups="nan", fake_sensitive_features=labels)
    with pytest.warns(GroupSizeWarning, match=r"in group 'm' \(80 and 160\); 'fid' may depend"):
        table = compare_frames(whole, lacking)
    numbers = table[["difference", "low", "high", "p_value", "adjusted_p_value"]].isna()
    assert table[["score", "group"]].to_numpy().tolist() == [
        ["fid", None], ["fid", "f"], ["fid", "m"], ["fid", "x"], ["delta_fid", None]
    ]  # fmt: skip
    assert numbers.all(axis=1).tolist() == numbers.any(axis=1).tolist() == [False, False, False, True, True]


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.MissingScoreWarning")
def test_a_group_that_a_metric_refuses_has_no_p_value() -> None:
    def picky(real: Any, fake: Any) -> float:
        if len(real) == 55:
            raise ValueError("an unlucky number")
        return float(real.mean() - fake.mean())

    rng = np.random.default_rng(8)
    groups = np.repeat(["f", "m", "x"], [60, 60, 55])
    real = rng.normal(size=(175, 1))
    frames = [
        GenerativeMetricFrame(
            metrics=picky,
            real=real,
            fake=rng.normal(size=(175, 1)),
            real_sensitive_features=groups,
            fake_sensitive_features=groups,
            missing_groups="nan",
        )
        for _ in range(2)
    ]
    p_values = compare_frames(*frames).set_index("group")["p_value"]
    assert np.isnan(p_values["x"])
    assert p_values[["f", "m"]].notna().all()


def test_models_without_a_group_in_common_are_compared_overall() -> None:
    frames = [
        make_frame(i, missing_groups="nan", fake_sensitive_features=[group] * 240) for i, group in enumerate("fm")
    ]
    assert np.isfinite(compare_frames(*frames)["p_value"]).tolist() == [True, False, False, False, False]


def test_frames_that_cannot_be_compared_are_refused() -> None:
    frame = make_frame(0)
    with pytest.raises(ValueError, match="other has ipr_precision"):
        compare_frames(frame, make_frame(1, metrics="ipr"))
    names = [functools.partial(frechet_distance), lambda real, fake: frechet_distance(real, fake)]
    with pytest.raises(ValueError, match=r"scored by frechet_distance\(\), but other by <lambda>\(\)"):
        compare_frames(*(make_frame(1, metrics={"fid": metric}) for metric in names))
    with pytest.raises(ValueError, match="different real samples"):
        compare_frames(frame, make_frame(1, real=REAL + 1.0))
    with pytest.raises(ValueError, match="different real samples"):
        compare_frames(frame, make_frame(1, real_sensitive_features=GROUPS[::-1]))
    with pytest.raises(ValueError, match="was read from JSON"):
        compare_frames(frame, GenerativeMetricFrame.from_json(frame.to_json()))
    few = np.repeat(["f", "m", "x"], [49, 96, 95])
    frames = [make_frame(seed, real_sensitive_features=few, fake_sensitive_features=few) for seed in range(2)]
    with pytest.raises(ValueError, match="group 'f' has 49 samples of one kind"):
        compare_frames(*frames)


@given(st.floats(-5, 5), st.floats(0.01, 10), st.integers(1, 9), st.integers(1, 9), st.floats(0.5, 0.999))
def test_an_interval_excludes_0_where_the_test_rejects(
    difference: float, error: float, n_first: int, n_other: int, level: float
) -> None:
    spread = Spread(error=error, n_first=n_first, n_other=n_other)
    low, high = spread.interval(difference, level)
    p_value = spread.p_value(difference)
    if abs(p_value - (1 - level)) > 1e-9:
        assert (low > 0 or high < 0) == (p_value < 1 - level)


def test_without_an_error_any_difference_is_one() -> None:
    assert Spread(error=0.0).p_value(0.1) == 0.0
    assert Spread(error=0.0).p_value(0.0) == 1.0
    assert math.isnan(Spread(error=1.0).p_value(math.inf))
    assert math.isnan(Spread(error=math.nan).p_value(1.0))


def of_normals(means: list[list[float]], deviations: tuple[float, float], repeats: int) -> float:
    """How often the largest differences between groups are told apart, if scores are normal with known covariances.

    The scores of the models have these means by group, these standard deviations, and a correlation of 0.3.
    """
    n_groups = len(means[0])
    contrasts = np.array(
        [np.eye(n_groups)[a] - np.eye(n_groups)[b] for a, b in itertools.permutations(range(n_groups), 2)]
    )
    of_group = np.outer(deviations, deviations) * [[1.0, 0.3], [0.3, 1.0]]
    covariance = np.kron(np.eye(n_groups), of_group)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(repeats):
        table = np.transpose(means) + rng.multivariate_normal(np.zeros(2), of_group, size=n_groups)
        nothing = np.zeros_like(covariance)
        uncertainty = Uncertainty(
            table=pd.DataFrame(table),
            data=covariance,
            projections=nothing,
            threshold=nothing,
            alone=np.zeros(len(covariance)),
        )
        largest = (contrasts @ table).max(axis=0)
        found += spread_of_largest(uncertainty, [contrasts]).p_value(largest[0] - largest[1]) <= 0.05
    return found / repeats


@pytest.mark.parametrize(
    ("means", "deviations"),
    [
        ([[5.0, 0.0], [0.0, 5.0]], (1.5, 0.5)),
        ([[5.0, 5.0, 0.0], [5.0, 2.5, 0.0]], (1.0, 1.0)),
        ([[6.0, 6.0, 6.0, 0.0, 0.0, 0.0], [6.0, 3.0, 3.0, 3.0, 3.0, 0.0]], (1.5, 0.5)),
    ],
)
def test_equal_largest_differences_are_seldom_told_apart(
    means: list[list[float]], deviations: tuple[float, float]
) -> None:
    """Without the correction for what else may be the largest, the last ones would be told apart 15 times of 100.

    If a test rejects with probability 0.05, more than 33 of 400 rejections occur with probability 0.002.
    """
    assert of_normals(means, deviations, 400) <= 33 / 400


def test_a_larger_disparity_is_found() -> None:
    """The difference of 5 is 3 standard errors in the first case and 2.8 in the second."""
    assert of_normals([[8.0, 0.0], [3.0, 0.0]], (1.0, 1.0), 100) > 0.7
    assert of_normals([[9.0, 4.0, 4.0, 4.0, 4.0, 0.0], [4.0, 2.0, 2.0, 2.0, 2.0, 0.0]], (1.0, 1.0), 100) > 0.6
