from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from egtmetrics.confusion import Confusion
from egtmetrics.oracles import ClassifierOracle, OracleErrorWarning, classifier

NAMES = np.array(["day", "night"])


def two_normals(distance: float, n: int = 600, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    rng = np.random.default_rng(seed)
    groups = np.arange(n) % 2
    return rng.normal(size=(n, 3)) + distance * groups[:, None] * np.array([1.0, 0.0, 0.0]), NAMES[groups]


def values(by_group: dict[str, float]) -> NDArray[np.float64]:
    assert list(by_group) == NAMES.tolist()
    return np.array(list(by_group.values()))


def table_of(oracle: ClassifierOracle) -> NDArray[np.int64]:
    assert oracle.confusion.counts is not None
    return oracle.confusion.counts.to_numpy()


def test_error_of_two_normals_is_that_of_the_best_classifier() -> None:
    """Phi(-distance / 2) in either group; 4.9 binomial standard errors plus 0.01 for the fit."""
    features, groups = two_normals(2.0, n=2000)
    with pytest.warns(OracleErrorWarning, match=r"labels err: 1\d\.\d% .* 'day' is not, 1\d\.\d% .* 'night' is not"):
        oracle = ClassifierOracle(features, groups)
    expected = ndtr(-1.0)
    tolerance = 4.9 * math.sqrt(expected * (1 - expected) / 1000) + 0.01
    assert values(oracle.error_by_group) == pytest.approx([expected] * 2, abs=tolerance)
    assert oracle.abstention_by_group == {"day": 0.0, "night": 0.0}
    assert table_of(oracle).sum(axis=1).tolist() == [1000, 1000]
    fresh, truth = two_normals(2.0, n=2000, seed=1)
    assert float(np.mean(oracle(fresh) != truth)) == pytest.approx(expected, abs=tolerance)


def test_abstention_lowers_the_error_and_is_measured() -> None:
    features, groups = two_normals(2.0, n=2000)
    with pytest.warns(OracleErrorWarning):
        sure = ClassifierOracle(features, groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        careful = ClassifierOracle(features, groups, min_confidence=0.9, max_contamination=0.08)
    assert careful.warning is None
    assert (values(careful.error_by_group) < values(sure.error_by_group)).all()
    abstentions = values(careful.abstention_by_group)
    assert (abstentions > 0.2).all()
    labels = careful(features).tolist()
    assert set(labels) == {None, "day", "night"}
    assert labels.count(None) / len(labels) == pytest.approx(abstentions.mean(), abs=0.03)


def test_confidence_is_calibrated() -> None:
    """Of the samples labelled with a probability of at least .8, no more than a fifth is wrong."""
    features, groups = two_normals(1.5, n=2000)
    oracle = ClassifierOracle(features, groups, min_confidence=0.8, max_contamination=1.0)
    assert (values(oracle.error_by_group) < 0.2).all()


def test_an_oracle_that_never_labels_a_group_has_a_warning() -> None:
    features, groups = two_normals(0.1, n=400)
    with pytest.warns(OracleErrorWarning, match="the group 'day' is never called, the group 'night' is never called"):
        oracle = ClassifierOracle(features, groups, min_confidence=0.99)
    assert np.isnan(values(oracle.error_by_group)).all()
    assert values(oracle.abstention_by_group).tolist() == [1.0, 1.0]


def test_encoder_tensors_and_several_groups_in_their_order() -> None:
    rng = np.random.default_rng(0)
    names, groups = np.array(["small", "medium", "large"]), np.repeat([0, 1, 2], 50)
    features = torch.as_tensor(rng.normal(size=(150, 2)) + 8.0 * np.eye(3)[groups][:, :2])

    def encode(texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 0.0] for text in texts]

    oracle = ClassifierOracle(features, names[groups], group_names=names, encode=encode)
    assert oracle.group_names == ("small", "medium", "large")
    assert list(oracle.error_by_group) == list(oracle.abstention_by_group) == names.tolist()
    assert table_of(oracle)[:, :-1].diagonal().tolist() == [50, 50, 50]
    assert oracle(["x" * 8, ""]).tolist() == ["small", "large"]
    assert ClassifierOracle(features, names[groups]).group_names == ("large", "medium", "small")


def test_samples_without_a_group_are_left_out() -> None:
    features, groups = two_normals(6.0, n=150)
    known = np.arange(len(groups)) % 3 > 0
    some = np.where(known, groups, None)
    clusters = np.arange(len(groups)) // 2
    for options in ({}, {"clusters": clusters}):
        oracle = ClassifierOracle(features, some, **options)
        left = ClassifierOracle(features[known], groups[known], **{k: v[known] for k, v in options.items()})
        np.testing.assert_array_equal(table_of(oracle), table_of(left))
        assert table_of(oracle).sum() == known.sum()


def test_held_out_labels_err_as_the_confusion_says() -> None:
    features, groups = two_normals(2.0)
    known = np.arange(len(groups)) % 3 > 0
    oracle = ClassifierOracle(features, np.where(known, groups, None), min_confidence=0.7, max_contamination=1.0)
    called = Confusion.of_labels(groups[known], oracle.held_out_labels[known], group_names=NAMES.tolist())
    np.testing.assert_array_equal(called.rates, oracle.confusion.rates)
    assert oracle.held_out_labels[~known].tolist() == oracle(features[~known]).tolist()
    assert (oracle.held_out_labels[known] != oracle(features[known])).any()
    assert oracle.warning_of({"day": 10, "night": 590}) is None
    oracle.max_contamination = 0.05
    message = oracle.warning_of({"day": 90, "night": 510})
    assert message is not None
    assert "of what is called 'day' is not" in message


def test_same_seed_same_folds() -> None:
    features, groups = two_normals(4.0)
    first, second = (ClassifierOracle(features, groups, random_state=1, max_contamination=0.5) for _ in range(2))
    assert np.array_equal(table_of(first), table_of(second))


def duplicates() -> tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.int64]]:
    """Thirty points that say nothing of their group, and ten samples close to each."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), 10)
    features = rng.normal(size=(30, 60))[clusters] + 0.01 * rng.normal(size=(300, 60))
    return features, NAMES[clusters % 2], clusters


def test_duplicates_hide_the_error_unless_clusters_are_kept_together() -> None:
    """Of 30 fair guesses 20 % or less are wrong with probability 7e-4; calibrated so, few are sure."""
    features, groups, clusters = duplicates()
    assert ClassifierOracle(features, groups).error_by_group == {"day": 0.0, "night": 0.0}
    with pytest.warns(OracleErrorWarning):
        honest = ClassifierOracle(features, groups, clusters=torch.as_tensor(clusters))
    assert values(honest.error_by_group).mean() > 0.2
    assert table_of(honest).sum() == 300
    with pytest.warns(OracleErrorWarning):
        unsure = ClassifierOracle(features, groups, clusters=clusters, min_confidence=0.9)
    assert (values(unsure.abstention_by_group) > 0.8).all()
    assert unsure(features).tolist().count(None) > 0.8 * len(features)


def test_every_division_keeps_clusters_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the error's five folds, of the calibration within each, and of the calibration in the end."""
    features, groups, clusters = duplicates()
    divide, sizes = classifier.divide, []

    def spy(a: Any, c: Any, *rest: Any) -> Any:
        folds = divide(a, c, *rest)
        sizes.append(len(a))
        assert np.concatenate([test for _, test in folds]).sum() == len(a) * (len(a) - 1) // 2
        assert not any(set(c[train]) & set(c[test]) for train, test in folds)
        return folds

    monkeypatch.setattr(classifier, "divide", spy)
    ClassifierOracle(features, groups, clusters=clusters, max_contamination=1.0)
    assert sizes == [300, *[240] * 5, 300]


FEATURES, GROUPS = two_normals(6.0, n=40)
CODES = np.arange(40) % 2


@pytest.mark.parametrize(
    ("features", "groups", "options", "message"),
    [
        (FEATURES[:, 0], GROUPS, {}, r"features has shape \(40,\), expected two dimensions"),
        (np.where(FEATURES > 2, np.nan, FEATURES), GROUPS, {}, "features holds NaN"),
        (FEATURES, GROUPS[:-1], {}, r"groups has shape \(39,\), expected one name per sample, \(40,\)"),
        (FEATURES, CODES, {}, "groups holds 0, 1, expected names of groups, or None for a sample in no group"),
        (FEATURES, GROUPS, {"group_names": ["day", "noon"]}, "groups holds 'night', expected 'day', 'noon', or None"),
        (FEATURES, GROUPS, {"group_names": ["day", "night", "day"]}, "group_names holds 'day', 'night', 'day'"),
        (FEATURES, np.repeat("day", 40), {}, "groups has 40 of 'day', expected two groups or more"),
        (FEATURES, GROUPS, {"group_names": ["day", "noon", "night"]}, "groups has 20 of 'day', 0 of 'noon', 20 of 'ni"),
        (
            FEATURES[:12],
            GROUPS[:12],
            {},
            r"groups has 6 of 'day', 6 of 'night', .* at least 7 samples each for n_fol",
        ),
        (FEATURES, GROUPS, {"clusters": CODES[:-1]}, r"clusters has shape \(39,\) .* \(40,\)"),
        (FEATURES, GROUPS, {"clusters": CODES.astype(float)}, "clusters has shape .* dtype float64"),
        (FEATURES, GROUPS, {"clusters": CODES}, "clusters are too few or too large to divide into n_folds=5"),
        (FEATURES, GROUPS, {"n_folds": 1}, "n_folds=1"),
        (FEATURES, GROUPS, {"min_confidence": 1.0}, "min_confidence=1.0"),
        (FEATURES, GROUPS, {"max_contamination": -0.1}, "max_contamination=-0.1"),
    ],
)
def test_bad_arguments(features: Any, groups: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierOracle(features, groups, **options)


def test_the_fewest_samples_that_are_enough() -> None:
    oracle = ClassifierOracle(FEATURES[:14], GROUPS[:14], max_contamination=1.0)
    assert table_of(oracle).sum() == 14
