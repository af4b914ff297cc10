"""Authenticity and the copying test: by definition, on ties, and their rates of false and true alarms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from egtmetrics import GroupedSamples
from egtmetrics.groups import copying_test, suspected_copies
from egtmetrics.metrics import authenticity
from tests.strategies import tied_points


@given(tied_points(dimension=2), tied_points(dimension=2))
def test_authenticity_is_its_definition_and_ties_are_copies(training: NDArray[Any], fake: NDArray[Any]) -> None:
    own = ((training[:, None] - training) ** 2).sum(axis=2)
    np.fill_diagonal(own, np.inf)
    distances = ((fake[:, None] - training) ** 2).sum(axis=2)
    nearest = distances.argmin(axis=1)
    expected = np.mean(distances.min(axis=1) > own.min(axis=1)[nearest])
    assert authenticity(training, fake, n_threads=1).authenticity == expected


@given(tied_points(dimension=2), tied_points(dimension=2))
def test_suspects_are_those_of_a_search_over_all_pairs(training: NDArray[Any], fake: NDArray[Any]) -> None:
    labels = np.array(["f", "m"])[np.arange(len(fake)) % 2]
    samples = GroupedSamples(
        real=training, fake=fake, real_sensitive_features=["f"] * len(training), fake_sensitive_features=labels
    )
    found = suspected_copies(training, samples, n_samples=2, n_threads=1)
    training, fake = training.astype(np.float64), fake.astype(np.float64)
    own = np.sqrt(((training[:, None] - training) ** 2).sum(axis=2))
    np.fill_diagonal(own, np.inf)
    distances = np.sqrt(((fake[:, None] - training) ** 2).sum(axis=2))
    nearest = distances.argmin(axis=1)
    radii, least = own.min(axis=1)[nearest], distances.min(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(least == 0.0, 0.0, least / radii)
    for label, part in found.groupby("group"):
        rows = sorted(np.flatnonzero(labels == label).tolist(), key=lambda row: (ratios[row], least[row], row))[:2]
        assert part["row"].tolist() == rows
        assert part["training_row"].tolist() == nearest[rows].tolist()
        np.testing.assert_array_equal(part["ratio"], ratios[rows])
        np.testing.assert_array_equal(part[["distance", "training_distance"]], np.stack([least, radii], 1)[rows])


@pytest.mark.parametrize(("d", "expected"), [(1, 0.34), (64, 0.81)])
def test_samples_of_the_same_law_score_more_in_many_dimensions(d: int, expected: float) -> None:
    training, fake = np.random.default_rng(0).normal(size=(2, 2000, d))
    assert authenticity(training, fake).authenticity == pytest.approx(expected, abs=0.04)  # 3.5 standard errors


def test_rates_of_alarms() -> None:
    """200 models that do not copy, 50 that copy a fifth for one of two groups; four features, unequal groups.

    At 5 % the adjusted p-values of a model reject at most 5 % of the time, so at most 19 of 200 with probability
    0.997.
    """
    rng = np.random.default_rng(0)
    groups = np.repeat(["f", "m"], [100, 300])
    wide = np.where(groups == "f", 1.0, 3.0)[:, None]

    def rejected(copied: int) -> list[str]:
        training, fake, held_out = (rng.standard_t(3, size=(400, 4)) * wide for _ in range(3))
        fake[100 : 100 + copied] = training[100 : 100 + copied]
        found = copying_test(
            training, fake, held_out, fake_sensitive_features=groups, held_out_sensitive_features=groups, n_threads=1
        )
        return found.index[found["adjusted_p_value"] <= 0.05].tolist()

    assert sum(bool(rejected(0)) for _ in range(200)) <= 19
    found = [rejected(60) for _ in range(50)]
    assert sum("m" in labels for labels in found) >= 40
    assert sum("f" in labels for labels in found) <= 8


def test_other_dtypes_other_groups_and_other_encoders() -> None:
    rng = np.random.default_rng(1)
    training = rng.normal(size=(30, 3))
    fake, held_out = rng.normal(size=(2, 20, 3)).astype(np.float32)
    found = copying_test(
        training, fake, held_out, fake_sensitive_features=["a", "b"] * 10, held_out_sensitive_features=["a", "c"] * 10
    )
    assert found[["n_fake", "n_held_out"]].to_dict("index") == {"a": {"n_fake": 10, "n_held_out": 10}}
    with pytest.raises(ValueError, match="real has 1 row, and each is compared with the nearest other one; add"):
        authenticity(training[:1], fake)
    with pytest.raises(ValueError, match="no group of 'a', 'c' has both fake and held_out samples"):
        copying_test(
            training, fake, held_out, fake_sensitive_features=["a"] * 20, held_out_sensitive_features=["c"] * 20
        )
    with pytest.raises(ValueError, match="training has 2 features and fake has 3"):
        copying_test(
            training[:, :2], fake, held_out, fake_sensitive_features=["a"] * 20, held_out_sensitive_features=["a"] * 20
        )
