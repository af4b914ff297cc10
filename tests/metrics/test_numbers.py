"""Means of a number for each sample: closed forms, also of errors, and where samples come in clusters."""

from __future__ import annotations

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.metrics import mean_of_numbers


def test_intervals_are_those_of_means() -> None:
    """The error of a difference of two means is the root of the sum of s^2 / n."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["f", "m"], [300, 500])
    real, fake = rng.exponential(size=(2, 800, 1))
    frame = GenerativeMetricFrame(
        metrics="numbers",
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
    )
    half = 1.959964
    own = frame.interval(0.95).by_group
    for label in ("f", "m"):
        numbers = fake[groups == label]
        row = own.loc[("numbers_mean", label)]
        assert frame.by_group.loc[label, "numbers_mean"] == pytest.approx(numbers.mean())
        assert row["high"] - row["low"] == pytest.approx(2 * half * numbers.std() / np.sqrt(len(numbers)), rel=0.01)


def test_one_number_per_sample() -> None:
    with pytest.raises(ValueError, match="have 2 features, expected one number for each sample"):
        mean_of_numbers(np.zeros((3, 2)), np.zeros((3, 2)))
