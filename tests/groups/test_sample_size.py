"""Metrics at a fixed sample size and in the limit, against closed forms and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from egtmetrics import GenerativeMetricFrame, frechet_distance, precision_recall_density_coverage
from egtmetrics.groups import at_sample_size, extrapolate


def biased(real: NDArray[Any], fake: NDArray[Any]) -> float:
    """A score that is exactly linear in 1 / n."""
    return 3.0 + 40.0 / len(real)


def sizes(real: NDArray[Any], fake: NDArray[Any]) -> float:
    return float(len(np.unique(real)) + 1000 * len(np.unique(fake)))


def test_every_call_sees_the_same_number_of_rows_and_no_row_twice() -> None:
    real, fake = np.arange(50.0)[:, None], np.arange(40.0)[:, None]
    result = at_sample_size(sizes, 30, n_repeats=4)(real, fake, random_state=0)
    assert result.scores() == {"sizes": 30030.0}
    assert result.standard_errors == {"sizes": 0.0}
    assert result.sizes == ((30, 30),) * 4
    assert (result.n_real, result.n_fake) == (50, 40)


def test_the_average_and_its_standard_error_come_from_the_subsets() -> None:
    seen = []

    def mean(real: NDArray[Any], fake: NDArray[Any]) -> float:
        seen.append(float(fake.mean() - real.mean()))
        return seen[-1]

    real, fake = np.random.default_rng(0).normal(size=(2, 60, 1))
    result = at_sample_size(mean, 20, n_repeats=7)(real, fake, random_state=1)
    assert result.scores()["mean"] == pytest.approx(np.mean(seen))
    assert result.standard_errors["mean"] == pytest.approx(np.std(seen, ddof=1) / np.sqrt(7))
    assert len(set(seen)) == 7


def test_a_seed_repeats_the_scores() -> None:
    real, fake = np.random.default_rng(1).normal(size=(2, 100, 3))
    metric = at_sample_size(frechet_distance, 40, n_repeats=3)
    one, same, other = (metric(real, fake, random_state=seed).scores() for seed in (0, 0, 1))
    assert one == same != other


def test_extrapolation_is_exact_for_a_line_in_one_over_n() -> None:
    result = extrapolate(biased)(np.zeros((100, 1)), np.zeros((100, 1)), random_state=0)
    assert result.scores()["biased"] == pytest.approx(3.0, abs=1e-9)
    assert result.standard_errors["biased"] == pytest.approx(0.0, abs=1e-9)
    assert [n for n, _ in result.sizes] == [100, *np.repeat([80, 65, 50, 40, 33], 4)]


def test_extrapolation_removes_the_bias_of_the_frechet_distance() -> None:
    """Between equal laws, 20 limits are 0 on average, within 4 standard errors; 1 seed in 10^4 fails."""
    rng = np.random.default_rng(2)
    limits, plain = [], []
    for _ in range(20):
        real, fake = rng.normal(size=(2, 300, 6))
        limits.append(extrapolate(frechet_distance)(real, fake, random_state=0).scores()["fid"])
        plain.append(frechet_distance(real, fake).fid)
    rest = 0.1 * np.mean(plain)  # a bias in 1 / n^2 is left
    assert abs(np.mean(limits)) < 4 * np.std(limits, ddof=1) / np.sqrt(20) + rest
    assert np.mean(plain) > 5 * abs(np.mean(limits))


def test_groups_of_different_sizes_are_comparable_in_a_frame() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(["large", "small"], [150, 80])
    real, fake = rng.normal(size=(2, 230, 2))
    samples = {"real": real, "fake": fake, "real_sensitive_features": groups, "fake_sensitive_features": groups}
    frame = GenerativeMetricFrame(
        metrics={"matched": at_sample_size(biased, 80), "limit": extrapolate(biased), "plain": biased},
        random_state=0,
        **samples,
    )
    assert frame.difference().to_dict() == pytest.approx(
        {"matched": 0.0, "limit": 0.0, "plain": 40 / 80 - 40 / 150}, abs=1e-9
    )
    assert frame.settings["metrics"]["matched"].startswith("biased.at_sample_size(80)")


def test_scores_keep_the_names_of_the_metric() -> None:
    real, fake = np.random.default_rng(4).normal(size=(2, 60, 2))
    result = at_sample_size(precision_recall_density_coverage, 30)(real, fake, random_state=0, n_threads=1)
    assert list(result.scores()) == ["precision", "recall", "density", "coverage"]
    assert result.describe()["precision"].percent
    assert not result.describe()["precision"].depends_on_size


def test_bad_arguments_are_refused() -> None:
    real, fake = np.zeros((50, 1)), np.zeros((40, 1))
    with pytest.raises(ValueError, match=r"but there are 50 real and 40 fake ones; pass n_samples=40 or less"):
        at_sample_size(biased, 45)(real, fake)
    with pytest.raises(ValueError, match="n_samples"):
        at_sample_size(biased, 0)
    with pytest.raises(ValueError, match="n_repeats"):
        at_sample_size(biased, 10, n_repeats=0)
    with pytest.raises(ValueError, match="n_repeats"):
        extrapolate(biased, n_repeats=-1)
