"""Permutation tests: exact under the null hypothesis, powerful against it, and equal to brute force for few samples."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from egtmetrics import precision_recall_density_coverage
from egtmetrics.groups import GroupSizeWarning, permutation_test, permutation_test_models


def mean_gap(real: NDArray[Any], fake: NDArray[Any]) -> float:
    return float(fake[:, 0].mean() - real[:, 0].mean())


def test_p_values_between_groups_of_one_law_are_uniform() -> None:
    """300 tests with 19 permutations: P(p <= k / 20) = k / 20, within 4 standard errors; 1 seed in 10^4 fails."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c"], [8, 5, 7])
    p_values = []
    for _ in range(300):
        real, fake = rng.exponential(size=(2, 20, 1))
        test = permutation_test(
            real,
            fake,
            metric=mean_gap,
            real_sensitive_features=groups,
            fake_sensitive_features=groups,
            n_permutations=19,
            random_state=rng,
        )
        p_values.append(test.p_value)
    for level in (0.05, 0.1, 0.2, 0.5):
        error = np.sqrt(level * (1 - level) / 300)
        assert abs(np.mean(np.array(p_values) <= level + 1e-9) - level) < 4 * error


def test_groups_of_unequal_sizes_cause_a_warning() -> None:
    groups = np.repeat(["a", "b"], [20, 5])
    real, fake = np.random.default_rng(2).normal(size=(2, 25, 1))
    with pytest.warns(GroupSizeWarning) as caught:
        permutation_test(
            real,
            fake,
            metric=mean_gap,
            real_sensitive_features=groups,
            fake_sensitive_features=groups,
            n_permutations=5,
        )
    assert [warning.filename for warning in caught] == [__file__]


def test_p_values_between_models_of_one_law_are_uniform() -> None:
    """300 tests as above."""
    rng = np.random.default_rng(1)
    real = rng.normal(size=(15, 1))
    p_values = [
        permutation_test_models(
            real,
            rng.normal(size=(9, 1)),
            rng.normal(size=(14, 1)),
            metric=mean_gap,
            n_permutations=19,
            random_state=rng,
        ).p_value
        for _ in range(300)
    ]
    for level in (0.05, 0.1, 0.5):
        error = np.sqrt(level * (1 - level) / 300)
        assert abs(np.mean(np.array(p_values) <= level + 1e-9) - level) < 4 * error


def test_the_null_distribution_is_that_of_all_permutations() -> None:
    """3 and 3 samples have 20 splits. Exactly their statistics occur, each about equally often."""
    real = np.zeros((2, 1))
    fake, other = np.array([[0.0], [1.0], [3.0]]), np.array([[7.0], [12.0], [20.0]])
    both = np.concatenate([fake, other])[:, 0]
    exact = sorted(2 * both[list(rows)].sum() / 3 - both.sum() / 3 for rows in itertools.combinations(range(6), 3))
    test = permutation_test_models(real, fake, other, metric=mean_gap, n_permutations=4000, random_state=0)
    assert test.statistic == pytest.approx(4 / 3 - 13)
    values, counts = np.unique(np.round(test.null_distribution, 9), return_counts=True)
    np.testing.assert_allclose(values, exact)
    assert (np.abs(counts / 4000 - 1 / 20) < 4.5 * np.sqrt(0.05 * 0.95 / 4000)).all()  # 1 seed in 7000 fails
    assert test.p_value == (1 + np.count_nonzero(np.abs(test.null_distribution) > 13 - 4 / 3 - 1e-6)) / 4001


def test_groups_keep_their_numbers_of_samples_on_both_sides() -> None:
    seen = []

    def sizes(real: NDArray[Any], fake: NDArray[Any]) -> float:
        seen.append((len(real), len(fake)))
        return float(fake.sum())

    permutation_test(
        np.arange(9.0)[:, None],
        np.arange(7.0)[:, None],
        metric=sizes,
        real_sensitive_features=["a"] * 4 + ["b"] * 3 + [None] * 2,
        fake_sensitive_features=["a"] * 2 + ["b"] * 4 + [None],
        n_permutations=5,
        random_state=0,
    )
    assert seen == [(4, 2), (3, 4)] * 6


def test_rows_in_no_group_are_never_moved_into_one() -> None:
    sums = []

    def total(real: NDArray[Any], fake: NDArray[Any]) -> float:
        sums.append(float(real.sum()))
        return float(fake.mean())

    permutation_test(
        [[1.0], [2.0], [3.0], [4.0], [1000.0]],
        [[1.0], [2.0], [3.0], [4.0]],
        metric=total,
        real_sensitive_features=["a", "a", "b", "b", None],
        fake_sensitive_features=["a", "a", "b", "b"],
        n_permutations=20,
    )
    assert max(sums) < 10.0


def test_a_difference_is_detected_and_a_seed_repeats_the_test() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(["a", "b"], 40)
    real, fake = rng.normal(size=(2, 80, 3))
    fake[groups == "a"] *= 0.1
    run = functools.partial(
        permutation_test,
        real,
        fake,
        metric=precision_recall_density_coverage,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        score="recall",
        n_permutations=39,
        n_threads=1,
    )
    test = run(random_state=3)
    assert test.p_value == 1 / 40
    np.testing.assert_array_equal(run(random_state=3).null_distribution, test.null_distribution)
    assert not np.array_equal(run(random_state=4).null_distribution, test.null_distribution)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_permutations": 0}, "n_permutations"),
        ({"score": "fidelity"}, "score='fidelity' is not one of the metric's scores .*'precision'"),
        ({"score": None}, "choose one, for example score='precision'"),
        ({"metric": lambda real, fake: float("nan"), "score": None}, "metric is NaN for the samples"),
        ({"real_sensitive_features": ["a"] * 20}, "group"),
    ],
)
def test_permutation_test_refuses_bad_arguments(options: dict[str, Any], message: str) -> None:
    real, fake = np.random.default_rng(5).normal(size=(2, 20, 2))
    given = {
        "metric": functools.partial(precision_recall_density_coverage, n_neighbors=2),
        "score": "precision",
        "real_sensitive_features": ["a", "b"] * 10,
        "fake_sensitive_features": ["a", "b"] * 10,
        "n_permutations": 3,
    }
    with pytest.raises(ValueError, match=message):
        permutation_test(real, fake, **{**given, **options})


def test_compare_models_refuses_bad_arguments() -> None:
    real, fake, other = np.random.default_rng(6).normal(size=(3, 20, 2))
    prdc = functools.partial(precision_recall_density_coverage, n_neighbors=2)
    with pytest.raises(ValueError, match="choose one, for example score='precision'"):
        permutation_test_models(real, fake, other, metric=prdc)
    with pytest.raises(ValueError, match="score='fid' is not one of the metric's scores"):
        permutation_test_models(real, fake, other, metric=prdc, score="fid")
    with pytest.raises(ValueError, match="n_permutations"):
        permutation_test_models(real, fake, other, metric=mean_gap, n_permutations=-1)
    with pytest.raises(ValueError, match="fake"):
        permutation_test_models(real, fake, other[:, :1], metric=mean_gap)
    with pytest.raises(ValueError, match="metric is NaN"):
        permutation_test_models(real, fake, other, metric=lambda real, fake: float("nan"), n_permutations=2)


def test_a_permutation_without_a_score_is_no_rank() -> None:
    """Only the samples as they are, and permutations that keep them together, have a score."""
    real, fake = np.random.default_rng(6).normal(size=(2, 20, 2))
    real[:10] += 100.0
    labels = ["a"] * 10 + ["b"] * 10

    def of_near_rows(real: NDArray[Any], fake: NDArray[Any]) -> float:
        return float("nan") if np.ptp(real[:, 0]) > 50.0 else float(real.mean())

    with pytest.raises(ValueError, match="NaN for the samples or for a permutation"):
        permutation_test(
            real,
            fake,
            metric=of_near_rows,
            real_sensitive_features=labels,
            fake_sensitive_features=labels,
            n_permutations=3,
            random_state=0,
        )
