"""How many samples a difference takes: against closed forms, and by simulation.

Statistical tests have fixed seeds. Each says how likely a correct program is to fail it, over all seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from egtmetrics import GenerativeMetricFrame, precision_recall_density_coverage
from egtmetrics.groups import SamplePlan, samples_needed
from egtmetrics.groups.inference import normal_quantile

Z = float(norm.ppf(0.975) + norm.ppf(0.8))
Array = NDArray[Any]


def mean(real: Array, fake: Array) -> float:
    return float(fake.mean())


def biased(real: Array, fake: Array) -> float:
    """A mean whose bias, 0.03 / sqrt(n), only the group around 1 has."""
    return float(fake.mean() + 0.03 * (fake.mean() > 0.5) / math.sqrt(len(fake)))


def slow(real: Array, fake: Array) -> float:
    """A mean whose standard deviation falls as 1 / sqrt(n) - 3.5 / n: n times its variance grows to its limit."""
    centre = np.rint(fake.mean())
    return float(centre + (fake.mean() - centre) * (1.0 - 3.5 / math.sqrt(len(fake))))


def frame(metric: Callable[..., Any], n: int, seed: int = 0, centre: float = 1.0) -> GenerativeMetricFrame:
    """Two groups with means of 0 and ``centre``, and deviations of 0.1 and 0.2."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(["a", "b"], n)
    return GenerativeMetricFrame(
        metrics={"m": metric},
        real=np.zeros((2 * n, 1)),
        fake=np.concatenate([0.1 * rng.normal(size=(n, 1)), centre + 0.2 * rng.normal(size=(n, 1))]),
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=seed,
    )


def test_samples_needed_gives_the_requested_power() -> None:
    """A mean of n has the standard error 1 / sqrt(n); 4000 differences are drawn at the size that is returned."""
    n = samples_needed(np.sqrt(2 / 100), 100, delta=0.1, power=0.7)
    error = np.sqrt(2 / n)
    draws = 0.1 + error * np.random.default_rng(10).normal(size=4000)
    power = np.mean(np.abs(draws) > normal_quantile(0.95) * error)
    assert power == pytest.approx(0.7, abs=4 * np.sqrt(0.7 * 0.3 / 4000))  # 1 seed in 10^4 fails
    assert samples_needed(0.1, 100, delta=0.05) == pytest.approx(4 * samples_needed(0.1, 100, delta=0.1), abs=3)


@pytest.mark.parametrize("exponent", [0.1, 0.25, 0.5, 1.0])
def test_the_error_at_the_returned_size_is_what_the_difference_takes(exponent: float) -> None:
    n = samples_needed(0.02, 1000, delta=0.053, exponent=exponent)
    errors = [0.02 * (1000 / size) ** exponent for size in (n - 1, n)]
    assert Z * errors[1] <= 0.053 < Z * errors[0]


def test_a_mean_is_planned_for_as_in_textbooks() -> None:
    pilot = frame(mean, 200)
    plan = pilot.samples_needed("m", "a", "b", delta=0.05)
    low, high = pilot.difference_interval("m", "a", "b")
    error = (high - low) / 2 / normal_quantile(0.95)
    assert plan.n_samples == samples_needed(error, 200, delta=0.05)
    assert plan.exponent == pytest.approx(0.5)
    assert plan.difference == pytest.approx(0.05)
    assert plan.standard_error == pytest.approx(0.05 / Z, rel=0.01)
    assert plan.interval[0] < plan.n_samples < plan.interval[1]
    assert pilot.samples_needed("m", "b", "a", delta=0.05).n_samples == plan.n_samples
    assert pilot.samples_needed("m", "a", "b", delta=100.0).n_samples == 50  # a quarter of the pilot
    larger = frame(mean, 2000).samples_needed("m", "a", "b", delta=0.05 / math.sqrt(10.0))
    widths = [math.log(one.interval[1] / one.interval[0]) for one in (plan, larger)]
    assert widths[1] < 0.6 * widths[0]


@pytest.mark.parametrize("centre", [1.0, -1.0])
def test_a_difference_that_moves_with_the_number_of_samples_is_followed(centre: float) -> None:
    """With more samples the bias of 0.03 / sqrt(n) of one group goes, and the difference with it."""
    metric = biased if centre > 0.0 else lambda real, fake: -biased(real, -fake)
    plan = frame(metric, 240, centre=centre).samples_needed("m", "a", "b", delta=0.045)
    assert plan.difference == pytest.approx(0.045 + 0.03 / math.sqrt(plan.n_samples) - 0.03 / math.sqrt(240))
    assert plan.difference == pytest.approx(Z * plan.standard_error, rel=0.01)
    unmoved = frame(mean, 240, centre=centre).samples_needed("m", "a", "b", delta=0.045)
    assert (plan.n_samples > unmoved.n_samples) == (plan.difference < 0.045)


def test_a_plan_beyond_twice_the_pilot_is_refused_with_one_that_is_not() -> None:
    pilot = frame(slow, 200)
    with pytest.raises(
        ValueError, match=r"^m, a against b: a difference of 0\.02 takes about .* there are 200; "
    ) as caught:
        pilot.samples_needed("m", "a", "b", delta=0.02)
    found = float(str(caught.value).partition("400 samples find a difference of ")[2].partition(";")[0])
    assert pilot.samples_needed("m", "a", "b", delta=1.001 * found).n_samples == pytest.approx(400, rel=0.01)
    with pytest.raises(ValueError, match="takes more than 100 times as many samples per group and side"):
        pilot.samples_needed("m", "a", "b", delta=1e-6)


def test_plans_for_scores_whose_noise_falls_slowly_have_the_requested_power() -> None:
    """20 pilots of 200; the power at their sizes, from the known law, is .84 on average.

    Its standard deviation over pilots is .07, so the mean is outside of .78 to .9 for 1 seed in 10,000. A plan as for a
    mean, from the known error of the pilot, has a power of .75.
    """
    n = 200

    def error(size: Any) -> Any:
        return math.sqrt(0.05) * (1.0 / np.sqrt(size) - 3.5 / size)

    def power(size: Any) -> Any:
        return norm.cdf(delta / error(size) - norm.ppf(0.975))

    delta = Z * error(350)
    sizes, covered = [], []
    for seed in range(20):
        try:
            plan = frame(slow, n, seed).samples_needed("m", "a", "b", delta=delta)
        except ValueError as refused:
            sizes.append(float(str(refused).partition("takes about ")[2].split()[0]))
            continue
        sizes.append(plan.n_samples)
        covered.append(plan.interval[0] <= 350 <= plan.interval[1])
        assert isinstance(plan, SamplePlan)
        assert plan.exponent < 0.5
    assert 0.78 < np.mean(power(np.array(sizes))) < 0.9
    assert np.mean(covered) > 0.7
    assert power(samples_needed(error(n), n, delta=delta)) < 0.76


def test_what_cannot_be_planned_for_is_refused() -> None:
    pilot = frame(mean, 60)
    with pytest.raises(ValueError, match=r"delta=0\.0 is not a positive number"):
        pilot.samples_needed("m", "a", "b", delta=0.0)
    with pytest.raises(ValueError, match=r"power=1\.0 is not a number strictly between 0 and 1"):
        pilot.samples_needed("m", "a", "b", delta=0.1, power=1.0)
    with pytest.raises(ValueError, match=r"power=1\.0 is not a number strictly between 0 and 1"):
        samples_needed(0.1, 10, delta=0.1, power=1.0)
    with pytest.raises(ValueError, match="standard_error=nan is not a positive number"):
        samples_needed(float("nan"), 10, delta=0.1)
    with pytest.raises(ValueError, match=r"exponent=0\.0 is not above 0 and at most 1"):
        samples_needed(0.1, 10, delta=0.1, exponent=0.0)
    halves_only = frame(lambda real, fake: halves(fake), 60)
    with pytest.raises(ValueError, match=r"group 'a' \(60 real, 60 fake\), metric 'm': quarters have too few"):
        halves_only.samples_needed("m", "a", "b", delta=1.0)


def halves(fake: Array) -> float:
    if len(fake) < 20:
        raise ValueError("too few")
    return float(fake.mean())


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
@pytest.mark.filterwarnings("ignore::egtmetrics.groups.MissingScoreWarning")
def test_groups_of_other_sizes_are_planned_for_by_the_smaller_one() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(["a", "b", "c"], [400, 100, 20])
    pilot = GenerativeMetricFrame(
        metrics={"m": mean, "prdc": functools.partial(precision_recall_density_coverage, n_neighbors=3)},
        real=rng.normal(size=(520, 1)),
        fake=rng.normal(size=(520, 1)),
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        missing_groups="nan",
        random_state=0,
    )
    plan = pilot.samples_needed("m", "a", "b", delta=0.4)
    variances = [((high - low) / 2 / normal_quantile(0.95)) ** 2 for low, high in (of_group(pilot, g) for g in "ab")]
    assert plan.standard_error**2 == pytest.approx((400 * variances[0] + 100 * variances[1]) / plan.n_samples)
    with pytest.raises(ValueError, match="group 'c' has no variance of 'm'"):
        pilot.samples_needed("m", "a", "c", delta=0.4)


def of_group(pilot: GenerativeMetricFrame, group: str) -> tuple[float, float]:
    row = pilot.interval().by_group.loc[("m", group)]
    return float(row["low"]), float(row["high"])
