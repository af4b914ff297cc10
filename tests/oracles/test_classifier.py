from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from egtmetrics.oracles import ClassifierOracle, LabelOracle, OracleErrorWarning, classifier


def two_normals(distance: float, n: int = 600, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    groups = np.arange(n) % 2
    return rng.normal(size=(n, 3)) + distance * groups[:, None] * np.array([1.0, 0.0, 0.0]), groups


def test_error_of_two_normals_is_that_of_the_best_classifier() -> None:
    """Phi(-distance / 2) in either group; 4.9 binomial standard errors plus 0.01 for the fit."""
    features, groups = two_normals(2.0, n=2000)
    with pytest.warns(OracleErrorWarning, match=r"15\.\d% in group 0, .* above max_error=5.0%|in group 0"):
        oracle = ClassifierOracle(features, groups)
    expected = ndtr(-1.0)
    tolerance = 4.9 * math.sqrt(expected * (1 - expected) / 1000) + 0.01
    assert oracle.error_by_group == pytest.approx([expected] * 2, abs=tolerance)
    assert oracle.abstention_by_group.tolist() == [0.0, 0.0]
    assert oracle.confusion.sum(axis=1).tolist() == [1000, 1000]
    fresh, truth = two_normals(2.0, n=2000, seed=1)
    assert float(np.mean(oracle(fresh) != truth)) == pytest.approx(expected, abs=tolerance)


def test_abstention_lowers_the_error_and_is_measured() -> None:
    features, groups = two_normals(2.0, n=2000)
    with pytest.warns(OracleErrorWarning):
        sure = ClassifierOracle(features, groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        careful = ClassifierOracle(features, groups, min_confidence=0.9, max_error=0.08)
    assert careful.warning is None
    assert (careful.error_by_group < sure.error_by_group).all()
    assert (careful.abstention_by_group > 0.2).all()
    labels = careful(features)
    assert set(labels) == {-1, 0, 1}
    assert np.mean(labels == -1) == pytest.approx(careful.abstention_by_group.mean(), abs=0.03)


def test_confidence_is_calibrated() -> None:
    """Of the samples labelled with a probability of at least .8, no more than a fifth is wrong."""
    features, groups = two_normals(1.5, n=2000)
    oracle = ClassifierOracle(features, groups, min_confidence=0.8, max_error=1.0)
    assert (oracle.error_by_group < 0.2).all()


def test_an_oracle_that_never_labels_a_group_has_a_warning() -> None:
    features, groups = two_normals(0.1, n=400)
    with pytest.warns(OracleErrorWarning, match="nan% in group 0"):
        oracle = ClassifierOracle(features, groups, min_confidence=0.99)
    assert np.isnan(oracle.error_by_group).all()
    assert oracle.abstention_by_group.tolist() == [1.0, 1.0]


def test_encoder_tensors_and_several_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 50)
    features = rng.normal(size=(150, 2)) + 8.0 * np.eye(3)[groups][:, :2]
    oracle = ClassifierOracle(
        torch.as_tensor(features), torch.as_tensor(groups), encode=lambda texts: [[float(len(t)), 0.0] for t in texts]
    )
    assert oracle.n_groups == 3
    assert oracle(["x" * 8, ""]).tolist() == [0, 2]


def test_same_seed_same_folds() -> None:
    features, groups = two_normals(4.0)
    first, second = (ClassifierOracle(features, groups, random_state=1, max_error=0.5) for _ in range(2))
    assert np.array_equal(first.confusion, second.confusion)


def duplicates() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Thirty points that say nothing of their group, and ten samples close to each."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), 10)
    features = rng.normal(size=(30, 60))[clusters] + 0.01 * rng.normal(size=(300, 60))
    return features, clusters % 2, clusters


def test_duplicates_hide_the_error_unless_clusters_are_kept_together() -> None:
    """Of 30 fair guesses 20 % or less are wrong with probability 7e-4; calibrated so, few are sure."""
    features, groups, clusters = duplicates()
    assert ClassifierOracle(features, groups).error_by_group.tolist() == [0.0, 0.0]
    with pytest.warns(OracleErrorWarning):
        honest = ClassifierOracle(features, groups, clusters=torch.as_tensor(clusters))
    assert honest.error_by_group.mean() > 0.2
    assert honest.confusion.sum() == 300
    with pytest.warns(OracleErrorWarning):
        unsure = ClassifierOracle(features, groups, clusters=clusters, min_confidence=0.9)
    assert (unsure.abstention_by_group > 0.8).all()
    assert np.mean(unsure(features) == -1) > 0.8


def test_every_division_keeps_clusters_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the error's five folds, of the calibration within each, and of the calibration in the end."""
    features, groups, clusters = duplicates()
    divide, sizes = classifier._folds, []

    def spy(a: Any, c: Any, *rest: Any) -> Any:
        folds = divide(a, c, *rest)
        sizes.append(len(a))
        assert np.concatenate([test for _, test in folds]).sum() == len(a) * (len(a) - 1) // 2
        assert not any(set(c[train]) & set(c[test]) for train, test in folds)
        return folds

    monkeypatch.setattr(classifier, "_folds", spy)
    ClassifierOracle(features, groups, clusters=clusters, max_error=1.0)
    assert sizes == [300, *[240] * 5, 300]


def test_known_labels() -> None:
    oracle = LabelOracle(3)
    assert oracle.warning is None
    assert oracle([0, 2, -1]).tolist() == [0, 2, -1]
    assert LabelOracle(2, lambda batch: batch["group"])({"group": torch.tensor([1, 0])}).tolist() == [1, 0]
    with pytest.raises(ValueError, match="n_groups=0"):
        LabelOracle(0)


FEATURES, GROUPS = two_normals(6.0, n=40)


@pytest.mark.parametrize(
    ("features", "groups", "options", "message"),
    [
        (FEATURES[:, 0], GROUPS, {}, r"features has shape \(40,\), expected finite numbers \(n, d\)"),
        (np.where(FEATURES > 2, np.nan, FEATURES), GROUPS, {}, "features"),
        (FEATURES, GROUPS[:-1], {}, "groups has 39 labels for 40 rows"),
        (FEATURES, GROUPS.astype(float), {}, "groups has shape .* dtype float64"),
        (FEATURES, GROUPS - 1, {}, "leave out samples whose group is unknown"),
        (FEATURES, np.zeros(40, int), {}, r"groups has \[40\] samples .* two groups or more"),
        (FEATURES, 2 * GROUPS, {}, r"groups has \[20, 0, 20\] samples .* without gaps"),
        (FEATURES[:12], GROUPS[:12], {}, r"groups has \[6, 6\] samples .* at least 7 for n_folds=5"),
        (FEATURES, GROUPS, {"clusters": GROUPS[:-1]}, r"clusters has shape \(39,\) .* \(40,\)"),
        (FEATURES, GROUPS, {"clusters": GROUPS.astype(float)}, "clusters has shape .* dtype float64"),
        (FEATURES, GROUPS, {"clusters": GROUPS}, "clusters are too few or too large to divide into n_folds=5"),
        (FEATURES, GROUPS, {"n_folds": 1}, "n_folds=1"),
        (FEATURES, GROUPS, {"min_confidence": 1.0}, "min_confidence=1.0"),
        (FEATURES, GROUPS, {"max_error": -0.1}, "max_error=-0.1"),
    ],
)
def test_bad_arguments(features: Any, groups: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierOracle(features, groups, **options)


def test_the_fewest_samples_that_are_enough() -> None:
    oracle = ClassifierOracle(FEATURES[:14], GROUPS[:14], max_error=1.0)
    assert oracle.confusion.sum() == 14
