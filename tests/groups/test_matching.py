"""match_sizes: equal counts, a subset in its order, and no dependence on the names of groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics.groups import GenerativeMetricFrame, match_sizes
from egtmetrics.metrics.frechet import frechet_distance
from tests.strategies import GroupedSamples, grouped_samples

LAW = settings(max_examples=30, deadline=None)


def match(data: GroupedSamples, **options: Any) -> Any:
    return match_sizes(
        data.real,
        data.fake,
        real_sensitive_features=data.real_groups,
        fake_sensitive_features=data.fake_groups,
        **options,
    )


@LAW
@given(grouped_samples(), st.booleans())
def test_counts_are_equal_and_as_large_as_they_can_be(data: GroupedSamples, across_groups: bool) -> None:
    matched = match(data, random_state=0, across_groups=across_groups)
    possible = np.minimum(np.bincount(data.real_groups), np.bincount(data.fake_groups))
    expected = np.full_like(possible, possible.min()) if across_groups else possible
    for labels in (matched.real_sensitive_features, matched.fake_sensitive_features):
        np.testing.assert_array_equal(np.bincount(labels["group"]), expected)


@LAW
@given(grouped_samples())
def test_keeps_a_subset_in_its_order(data: GroupedSamples) -> None:
    matched = match(data, random_state=0)
    for side in ("real", "fake"):
        rows = getattr(matched, f"{side}_rows")
        assert np.all(np.diff(rows) > 0)  # ascending, so no row twice
        np.testing.assert_array_equal(getattr(matched, side), getattr(data, side)[rows])
        labels = getattr(matched, f"{side}_sensitive_features")
        np.testing.assert_array_equal(labels["group"], getattr(data, f"{side}_groups")[rows])


@LAW
@given(grouped_samples(), st.permutations([3, 2.5, 11, -7]), st.integers(0, 99))
def test_the_draw_does_not_depend_on_names(data: GroupedSamples, names: list[float], seed: int) -> None:
    first = match(data, random_state=seed)
    for alias in (names, [f"group {name}" for name in names]):
        renamed = data._replace(
            real_groups=np.array([alias[g] for g in data.real_groups]),
            fake_groups=np.array([alias[g] for g in data.fake_groups]),
        )
        second = match(renamed, random_state=seed)
        np.testing.assert_array_equal(second.real_rows, first.real_rows)
        np.testing.assert_array_equal(second.fake_rows, first.fake_rows)


def test_every_row_of_the_larger_side_is_as_likely() -> None:
    """3 of 6 rows, 300 times: every row is kept 150 times +- 8.7; 5 deviations fail falsely once in 3e5 runs."""
    labels = ["f"] * 6 + ["m"] * 3
    kept = np.zeros(9)
    for seed in range(300):
        matched = match_sizes(
            np.zeros((9, 1)),
            np.zeros((6, 1)),
            real_sensitive_features=labels,
            fake_sensitive_features=labels[3:],
            random_state=seed,
        )
        kept[matched.real_rows] += 1
    assert np.all(np.abs(kept[:6] - 150) < 5 * np.sqrt(300 / 4))
    assert np.all(kept[6:] == 300)


def test_unassigned_rows_are_dropped_and_counted() -> None:
    matched = match_sizes(
        np.arange(6.0)[:, None],
        np.arange(5.0)[:, None],
        real_sensitive_features=["f", None, "m", "f", float("nan"), "m"],
        fake_sensitive_features=["f", "m", None, "f", "m"],
    )
    assert matched.unassigned == {"real": 2, "fake": 1}
    assert matched.real_rows.tolist() == [0, 2, 3, 5]
    assert matched.fake_rows.tolist() == [0, 1, 3, 4]


def test_intersections_go_straight_into_a_frame() -> None:
    rng = np.random.default_rng(0)
    real_labels = pd.DataFrame({"gender": list("ffmmffmm") * 5, "age": list("oyoyoyoy") * 5})
    fake_labels = real_labels.iloc[:-7][["age", "gender"]]
    matched = match_sizes(
        rng.normal(size=(40, 2)),
        rng.normal(size=(33, 2)),
        real_sensitive_features=real_labels,
        fake_sensitive_features=fake_labels,
        random_state=0,
    )
    frame = GenerativeMetricFrame(
        metrics=frechet_distance,
        real=matched.real,
        fake=matched.fake,
        real_sensitive_features=matched.real_sensitive_features,
        fake_sensitive_features=matched.fake_sensitive_features,
    )
    assert frame.by_group.index.names == ["gender", "age"]
    assert frame.group_counts["n_real"].tolist() == frame.group_counts["n_fake"].tolist()
    assert frame.group_counts["n_fake"].sum() == 33


def test_none_draws_afresh() -> None:
    data = GroupedSamples(np.zeros((400, 1)), np.zeros((4, 1)), np.arange(400) % 2, np.arange(4) % 2)
    assert match(data).real_rows.tolist() != match(data).real_rows.tolist()  # equal once in 4e8 pairs of draws


def test_a_group_on_one_side_only_is_no_match() -> None:
    with pytest.raises(ValueError, match=r"fake_sensitive_features holds no sample of group 'x'.*None to leave it out"):
        match_sizes(
            np.zeros((5, 1)),
            np.zeros((3, 1)),
            real_sensitive_features=["f", "x", "m", "f", "x"],
            fake_sensitive_features=["f", "m", "m"],
        )
