"""Plans for all groups: against closed forms of means, whose variances are known."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from egtmetrics import GenerativeMetricFrame
from egtmetrics.groups import budget
from egtmetrics.groups.budget import SampleBudget, variance_components

Array = NDArray[Any]
Z = float(norm.ppf(0.975))


def difference(real: Array, fake: Array) -> float:
    return float(fake.mean() - real.mean())


def frame(
    metric: Any = difference, sizes: Any = ((300, 150), (300, 150)), shifts: Any = (1.0, 0.0), seed: int = 0
) -> GenerativeMetricFrame:
    """Real and generated samples with deviations of 0.2 and 0.4, and of group b of 0.2 and 0.2."""
    rng = np.random.default_rng(seed)
    sides: tuple[list[Array], list[Array]] = ([], [])
    labels: tuple[list[str], list[str]] = ([], [])
    for (n, m), shift, name in zip(sizes, shifts, "abcdef", strict=False):
        for side, (size, spread) in enumerate(((n, 0.2), (m, 0.2 if name == "b" else 0.4))):
            points = rng.normal(size=(size, 1))
            points = (points - points.mean()) / points.std()  # so that the pilot has the moments of its law
            sides[side].append(spread * points + (shift if side else 0.0))
            labels[side].extend([name] * size)
    return GenerativeMetricFrame(
        metrics={"m": metric},
        real=np.concatenate(sides[0]),
        fake=np.concatenate(sides[1]),
        real_sensitive_features=labels[0],
        fake_sensitive_features=labels[1],
        random_state=seed,
    )


def error(plan: SampleBudget) -> float:
    """The standard error of a - b with the planned samples, from the known law."""
    total = plan.samples.to_numpy() @ np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    return math.sqrt(float((np.array([[0.04, 0.16], [0.04, 0.04]]) / total).sum()))


def test_components_of_variance_are_those_of_the_model() -> None:
    """Rows of variance 3, columns of 2, the rest of 1; P, P and P^2 times less at full size. 2000 tables."""
    rng = np.random.default_rng(0)
    for n_parts in (2, 4):
        tables = (
            math.sqrt(3.0) * rng.normal(size=(2000, n_parts, 1))
            + math.sqrt(2.0) * rng.normal(size=(2000, 1, n_parts))
            + rng.normal(size=(2000, n_parts, n_parts))
        )
        expected = np.array([3.0 / n_parts, 2.0 / n_parts, 1.0 / n_parts**2])
        np.testing.assert_allclose(variance_components(tables), expected, rtol=0.15)


def test_the_parts_of_a_difference_of_means_are_found() -> None:
    plan = frame().plan(width=1.0)
    np.testing.assert_allclose(plan.variances.loc["a", ["real", "fake"]], [0.04 / 300, 0.16 / 150], rtol=0.35)
    np.testing.assert_allclose(plan.variances.loc["b", ["real", "fake"]], [0.04 / 300, 0.04 / 150], rtol=0.35)
    assert (plan.variances["both"] < 0.1 * plan.variances["fake"]).all()
    exponents = plan.variances[["real_exponent", "fake_exponent"]]
    np.testing.assert_allclose(exponents, 1.0, atol=0.35)
    assert plan.reached
    assert plan.samples[["more_real", "more_fake"]].to_numpy().sum() == 0
    assert "the samples at hand are enough" in plan.text


def test_a_width_is_reached_by_the_samples_that_help_most() -> None:
    pilot = frame()
    now = pilot.plan(width=1.0).now
    low, high = pilot.interval().disparities.loc[("m", "delta_m"), ["low", "high"]]
    assert now == pytest.approx(high - low)
    plan = pilot.plan(width=0.85 * now)
    assert plan.reached
    assert plan.planned <= 0.85 * now
    more = plan.samples[["more_real", "more_fake"]]
    assert (more["more_real"] == 0).all()
    assert more.loc["a", "more_fake"] > 5 * more.loc["b", "more_fake"]
    assert 2 * Z * error(plan) == pytest.approx(0.85 * now, rel=0.1)
    assert "add " in plan.text
    assert "more generated samples of a" in plan.text
    both = pilot.plan(width=0.75 * now, more_real=True)
    assert both.reached
    assert both.samples["more_real"].sum() > 0
    assert 2 * Z * error(both) == pytest.approx(0.75 * now, rel=0.1)


def test_where_the_real_samples_are_the_limit_the_plan_says_so() -> None:
    pilot = frame()
    plan = pilot.plan(width=0.02)
    assert not plan.reached
    assert plan.limit == "real samples"
    assert plan.unlimited == pytest.approx(2 * Z * math.sqrt(2 * 0.04 / 300), rel=0.3)
    assert plan.samples[["more_real", "more_fake"]].to_numpy().sum() == 0
    assert "no number of generated samples is enough for an interval of 0.02" in plan.text
    assert f"about {plan.unlimited:.4g} wide, because of the real samples" in plan.text
    beyond = pilot.plan(width=0.02, more_real=True)
    assert beyond.limit == "samples"
    assert not beyond.reached
    assert beyond.samples["more_fake"].tolist() == [150, 150]
    assert "takes more than 2 times the samples" in beyond.text
    assert "and plan again" in beyond.text
    stuck = dataclasses.replace(beyond, limit="projections").text
    assert "random projections and bootstraps alone" in stuck


def test_a_verdict_is_as_probable_as_stated_once_samples_are_added() -> None:
    """100 samples have a mean of 1; 80 more of their law come, which may have any mean."""
    rng = np.random.default_rng(0)
    n, more, spread, tolerance = 100, 80, 2.0, 1.3
    truth = 1.0 + spread / math.sqrt(n) * rng.normal(size=200_000)
    means = (n * 1.0 + more * (truth + spread / math.sqrt(more) * rng.normal(size=len(truth)))) / (n + more)
    now, then = spread / math.sqrt(n), spread / math.sqrt(n + more)
    verdict = budget._Verdict(
        estimates=np.array([1.0, -1.0]), now=np.full(2, now), lower=1.0, upper=np.full(2, 1.6), tolerance=tolerance
    )
    came = (means + 1.6 * then < tolerance) | (means - then > tolerance)
    assert 0.1 < came.mean() < 0.9
    assert verdict.probability(np.full(2, then)) == pytest.approx(came.mean(), abs=0.005)
    assert verdict.probability(np.full(2, now)) == 0.0
    assert verdict.probability(np.zeros(2)) == 1.0


@pytest.mark.parametrize(("tolerance", "quantile"), [(1.075, float(norm.ppf(0.95))), (0.912, Z)])
def test_a_tolerance_is_decided_with_the_power_that_was_asked_for(tolerance: float, quantile: float) -> None:
    """The gap is 1. How probable a verdict is with more samples follows from the known law."""
    pilot = frame(sizes=((300, 90), (300, 90)))
    assert pilot.certify(tolerance).value == pytest.approx(1.0)
    assert pilot.certify(tolerance).outcome == "undecided"
    plan = pilot.plan(tolerance=tolerance, power=0.6)
    assert plan.reached
    assert plan.samples["more_fake"].sum() > 0
    assert plan.power is not None
    assert 0.6 <= plan.power < 0.65
    assert f"which gives it with a probability of about {100 * plan.power:.0f} %" in plan.text
    now, then = error(pilot.plan(width=9.0)), error(plan)
    moves = math.sqrt(now**2 - then**2)
    assert norm.cdf((abs(tolerance - 1.0) - quantile * then) / moves) == pytest.approx(plan.power, abs=0.07)
    surer = pilot.plan(tolerance=tolerance, power=0.8)
    assert surer.limit == "samples"
    assert surer.power is not None
    assert surer.unlimited_power is not None
    assert plan.power < surer.power < 0.8 < surer.unlimited_power < 1.0
    assert "and plan again" in surer.text


def test_a_verdict_that_is_there_needs_nothing_more() -> None:
    plan = frame().plan(tolerance=3.0)
    assert (plan.power, plan.reached, plan.samples["more_fake"].sum()) == (1.0, True, 0)
    assert "for a verdict for a tolerance of 3, the samples at hand are enough" in plan.text


def test_real_samples_may_be_the_limit_of_a_verdict() -> None:
    plan = frame(sizes=((60, 400), (60, 400))).plan(tolerance=1.05)
    assert plan.limit == "real samples"
    assert plan.unlimited_power is not None
    assert plan.unlimited_power < 0.8
    assert f"with unlimited ones, it would come with a probability of about {100 * plan.unlimited_power:.0f} %" in (
        plan.text
    )


def test_a_tolerance_is_planned_for_every_score_that_it_bounds() -> None:
    """The gap of the first score, the primary one, is small. The verdict waits for the other."""

    def two(real: Array, fake: Array) -> dict[str, float]:
        return {"small": 0.1 * difference(real, fake), "large": -difference(real, fake)}

    sizes = ((300, 90), (300, 90))
    both, alone = frame(two, sizes), frame(sizes=sizes)
    plan = both.plan(tolerance=1.075, power=0.6)
    assert plan.disparity == "delta_large" == both.certify(1.075).disparity
    assert plan.now == pytest.approx(alone.plan(width=9.0).now, rel=0.02)
    expected = alone.plan(tolerance=1.075, power=0.6).samples
    assert expected["more_fake"].sum() > 0
    assert plan.samples["more_fake"].to_numpy() == pytest.approx(expected["more_fake"].to_numpy(), abs=20)
    assert both.plan(width=9.0).disparity == "delta_small"


def test_the_gap_of_several_groups_needs_samples_of_all_that_may_attain_it() -> None:
    """Groups a and c are alike and far from b; only these pairs can be the largest gap."""
    pilot = frame(sizes=((300, 150),) * 4, shifts=(1.0, 0.0, 1.0, 0.5))
    plan = pilot.plan(width=0.85 * pilot.plan(width=9.0).now)
    more = plan.samples["more_fake"].to_dict()
    assert plan.reached
    assert more["a"] > 0
    assert more["c"] > 0
    assert more["d"] == 0


def test_the_plan_adds_hardly_more_samples_than_the_best_one() -> None:
    """One pair, exponents of 1: the fewest samples go by the square root of the variance of one."""
    sizes = np.array([[400.0, 100.0], [400.0, 100.0]])
    spread = np.array([[1.0, 4.0], [1.0, 2.0]])
    model = budget.VarianceModel(
        sizes=sizes,
        variances=np.concatenate([spread / sizes, np.zeros((2, 1))], axis=1),
        exponents=np.ones((2, 2)),
        members=np.array([[0, 1]]),
        constant=np.zeros(1),
    )
    target = 0.21

    def goal(errors: Array) -> tuple[float, Array]:
        return float(errors[0] - target), np.ones(1)

    found, reached = budget._grow([model], goal, np.array([False, True]))
    assert reached
    left = target**2 - (spread / sizes)[:, 0].sum()
    best = np.sqrt(spread[:, 1]) * np.sqrt(spread[:, 1]).sum() / left
    assert (found >= sizes).all()
    assert found[:, 1].sum() == pytest.approx(best.sum(), rel=0.03)
    assert found[:, 1] == pytest.approx(best, rel=0.07)


def test_plans_are_written_as_json() -> None:
    content = json.loads(json.dumps(frame().plan(width=0.2).to_dict(), allow_nan=False))
    assert content["samples"]["a"] == {"n_real": 300, "n_fake": 150, "more_real": 0, "more_fake": 0}
    assert set(content["variances"]["b"]) == {"real", "fake", "both", "real_exponent", "fake_exponent"}
    assert content["text"].startswith("for an interval of 0.2")


def test_what_cannot_be_planned_for_is_refused() -> None:
    pilot = frame()
    for options, message in (
        ({}, "neither of width and tolerance was given"),
        ({"width": 0.1, "tolerance": 0.1}, "both of width and tolerance were given"),
        ({"width": -1.0}, r"width=-1\.0 is not a positive number"),
        ({"tolerance": math.nan}, "tolerance=nan is not a positive number"),
        ({"tolerance": 0.1, "power": 1.0}, r"power=1\.0 is not a number strictly between 0 and 1"),
        ({"width": 0.1, "metric": "x"}, "metric='x' is not one of the metrics"),
    ):
        with pytest.raises(ValueError, match=message):
            pilot.plan(**options)  # type: ignore[arg-type]

    def of_many(real: Array, fake: Array) -> float:
        if len(fake) < 60:
            raise ValueError("too few")
        return difference(real, fake)

    with pytest.raises(ValueError, match=r"quarters of group 'a' \(300 real, 150 fake\), metric 'm': too few"):
        frame(of_many).plan(width=0.1)
