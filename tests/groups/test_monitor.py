"""The alarm that one may look at often: its limits, its bets, and what it claims."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from egtmetrics import GenerativeMetricFrame
from egtmetrics.groups import DisparityMonitor
from egtmetrics.groups import monitor as monitor_module
from egtmetrics.groups.disparity import score_table
from egtmetrics.groups.inference import Largest, Uncertainty
from egtmetrics.results import MetricResult, Score, score

GROUPS = np.repeat(["f", "m"], 60)
REAL = np.random.default_rng(0).normal(size=(120, 2))


def frame(seed: int = 0, *, shift: float = 0.0, metric: Any = "fid", groups: Any = GROUPS) -> GenerativeMetricFrame:
    fake = np.random.default_rng([1, seed]).normal(size=(len(groups), 2)) + shift * (groups == "m")[:, None]
    return GenerativeMetricFrame(
        metrics=metric,
        real=REAL[: len(groups)],
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
    )


def test_the_limits_spend_alpha_and_no_more() -> None:
    unlimited = DisparityMonitor(alpha=0.1)
    assert math.fsum(unlimited._limit(t) for t in range(1, 10_000)) == pytest.approx(0.1 * (1.0 - 1e-4))
    planned = DisparityMonitor(n_looks=4)
    assert [planned._limit(t) for t in range(1, 7)] == [0.0125] * 4 + [0.0] * 2


@settings(max_examples=60, deadline=None)
@given(
    m=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    share=st.floats(0.01, 0.99),
    tolerance=st.sampled_from([0.0, 0.03, 0.3]),
    p_b=st.floats(0.0, 1.0),
    gap=st.floats(-1.0, 0.0),
)
def test_a_bet_on_groups_within_the_tolerance_is_not_expected_to_win(
    m: tuple[int, int], share: float, tolerance: float, p_b: float, gap: float
) -> None:
    """By summation over all outcomes; c and the stakes may be anything that does not depend on the outcome."""
    m_a, m_b = m
    p_a = min(max(p_b + tolerance + gap, 0.0), min(1.0, p_b + tolerance))
    capital = [
        [np.exp(monitor_module._log_capital((x_a, m_a), (x_b, m_b), share, tolerance)) for x_b in range(m_b + 1)]
        for x_a in range(m_a + 1)
    ]
    of_a, of_b = (  # not SciPy's law, whose older releases overflow for p near 0
        [math.comb(size, x) * p**x * (1.0 - p) ** (size - x) for x in range(size + 1)]
        for size, p in ((m_a, p_a), (m_b, p_b))
    )
    expected = np.einsum("a,b,abg->g", of_a, of_b, np.array(capital))
    assert (expected <= 1.0 + 1e-9).all()


def test_bets_win_beyond_the_tolerance() -> None:
    bets = [monitor_module._log_capital((round(p * 500), 500), (450, 500), 0.9, 0.05).max() for p in (0.93, 0.96, 0.99)]
    assert bets[0] < 0.1 < bets[1] < bets[2]


def test_evidence_over_many_looks_is_rarely_false() -> None:
    """100 looks at three equal groups, also of unequal sizes: at most 5 % of runs, plus 3 standard errors of 400."""
    rng = np.random.default_rng(5)
    groups, sizes = ["a", "b", "c"], [30, 100, 400]
    monitor = DisparityMonitor(given_real=True)
    false = 0
    for _ in range(400):
        shares = rng.uniform(0.5, 0.95, size=20)  # checkpoints differ, groups do not
        looks = [{group: (int(rng.binomial(m, p)), m) for group, m in zip(groups, sizes, strict=True)} for p in shares]
        false += monitor._evidence(looks, groups) <= 0.05
    assert false / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    unequal = [{"a": (27, 30), "b": (70, 100), "c": (360, 400)}] * 10
    assert monitor._evidence(unequal, groups) < 1e-6


def largest(values: list[float], variances: list[float], constant: float = 0.0) -> tuple[Largest, Any]:
    scores = pd.DataFrame({"gap": values}, index=list("abcd")[: len(values)])
    table = score_table("m", scores, {"gap": Score(label="gap")})
    nothing = np.zeros((len(values),) * 2)
    uncertainty = Uncertainty(
        table=scores, data=np.diag(variances), projections=constant * np.eye(len(values)), threshold=nothing,
        alone=np.zeros(len(values)),
    )  # fmt: skip
    return Largest(uncertainty=uncertainty, families=table.disparities[0].contrasts(scores)), table


def test_the_test_of_a_look_is_a_t_test() -> None:
    found, table = largest([1.0, 0.4], [0.03, 0.06])
    freedom = (0.03 + 0.06) ** 2 / (0.03**2 / (2 * 100 / 35) + 0.06**2 / (2 * 350 / 35))
    for tolerance, distance in ((0.0, 0.6), (0.25, 0.35)):
        p_value = monitor_module._p_value(found, table, {"a": 100, "b": 350}, tolerance)
        assert p_value == pytest.approx(2.0 * stats.t.sf(distance / 0.3, freedom))
    assert monitor_module._p_value(found, table, {"a": 100, "b": 350}, 0.7) == 1.0
    # The part of the variance that is no sample's is known, so it only adds to the error.
    found, table = largest([1.0, 0.4], [0.03, 0.06], constant=0.01)
    freedom *= 0.11**2 / 0.09**2
    assert monitor_module._p_value(found, table, {"a": 100, "b": 350}, 0.0) == pytest.approx(
        2.0 * stats.t.sf(0.6 / math.sqrt(0.11), freedom)
    )


def test_more_groups_are_corrected_for_their_number() -> None:
    found, table = largest([1.0, 0.4, 0.4, 0.4], [0.03] * 4)
    freedom = 2 * 2 * 200 / 35
    p_value = monitor_module._p_value(found, table, dict.fromkeys("abcd", 200), 0.0)
    assert p_value == pytest.approx(12 * stats.t.sf(0.6 / math.sqrt(0.06), freedom))
    assert monitor_module._p_value(*largest([1.0, 0.4], [0.0, 0.0]), {"a": 9, "b": 9}, 0.0) == 1.0


def test_looks_are_recorded_and_a_run_continues_where_it_stopped() -> None:
    monitor = DisparityMonitor(tolerance=0.1)
    calm = monitor.update(frame(0), step=10)
    assert (calm.number, calm.step, calm.alarm, calm.limit) == (1, 10, False, 0.025)
    assert calm.value == frame(0).disparities().loc[("fid", "delta_fid"), "value"]
    assert not monitor.alarm
    assert monitor.text.startswith("no alarm in 1 looks at fid delta_fid")
    resumed = DisparityMonitor(tolerance=0.1)
    resumed.load_state_dict(json.loads(json.dumps(monitor.state_dict(), allow_nan=False)))
    loud = frame(1, shift=2.0)
    assert monitor.update(loud, step=20) == resumed.update(loud, step=20)
    assert resumed.alarm
    assert resumed.looks[1].larger == "m"
    assert "alarm in fid delta_fid: at step 20, the gap was above 0.1; false in at most 5 %" in repr(resumed)
    pd.testing.assert_frame_equal(monitor.table(), resumed.table())
    assert resumed.table()["alarm"].tolist() == [False, True]
    for other in (DisparityMonitor(), DisparityMonitor("kid", tolerance=0.1)):
        with pytest.raises(ValueError, match=r"state comes from a monitor with other settings: (tolerance|metric) is"):
            other.load_state_dict(monitor.state_dict())
    with pytest.raises(ValueError, match=r"state is not what DisparityMonitor\.state_dict returned"):
        resumed.load_state_dict({"looks": []})


def test_what_cannot_be_watched_is_refused_and_not_recorded() -> None:
    monitor = DisparityMonitor()
    monitor.update(frame(0))
    three = np.repeat(["f", "m", "x"], 20)
    with pytest.raises(ValueError, match="this look has the groups f, m, x, and those before had f, m"):
        monitor.update(frame(0, groups=three))
    with pytest.raises(ValueError, match="metric='fid' is not one of the metrics"):
        monitor.update(frame(0, metric="ipr"))
    with pytest.raises(TypeError, match="source is dict"):
        monitor.update({})  # type: ignore[arg-type]
    assert len(monitor.looks) == 1
    with pytest.raises(ValueError, match="'delta_x' is not one of ipr; choose one of delta_p, delta_r"):
        DisparityMonitor(disparity="delta_x").update(frame(0, metric="ipr"))
    with pytest.raises(ValueError, match="delta_p_plus_delta_r of ipr is not the largest difference of two groups"):
        DisparityMonitor(disparity="delta_p_plus_delta_r").update(frame(0, metric="ipr"))
    with pytest.raises(ValueError, match="no score of fid is not the mean of a 0 or 1 for each generated sample"):
        DisparityMonitor(given_real=True).update(frame(0))
    with pytest.raises(ValueError, match="delta_r of ipr is not the mean of a 0 or 1"):
        DisparityMonitor(disparity="delta_r", given_real=True).update(frame(0, metric="ipr"))
    with pytest.raises(ValueError, match="tolerance=-1 is not a number of at least 0"):
        DisparityMonitor(tolerance=-1)


def test_evidence_given_the_real_samples_counts_the_hits_of_a_frame() -> None:
    monitor = DisparityMonitor(given_real=True, tolerance=0.02)
    looks = [frame(i, metric="prdc", shift=3.0) for i in range(3)]
    alarms = [monitor.update(look).alarm for look in looks]
    assert monitor.disparity == "delta_p"
    hits = [
        {group: (round(row["precision"] * 60), 60) for group, row in look.scores("prdc").iterrows()} for look in looks
    ]
    assert monitor._hits == hits
    assert alarms == [False, True, True]  # the first look only sets the level
    assert monitor.looks[-1].p_value == monitor._evidence(hits, ["f", "m"]) < monitor.looks[1].p_value
    assert "at some look up to look 2, the gap against these real samples was above 0.02" in monitor.text
    resumed = DisparityMonitor(given_real=True, tolerance=0.02)
    resumed.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert resumed.update(looks[0]) == monitor.update(looks[0])


def test_the_excess_over_other_real_samples_can_be_watched() -> None:
    evaluated = frame(0, shift=0.5)
    baseline = evaluated.baseline(np.random.default_rng(4).normal(size=(120, 2)), GROUPS)
    look = DisparityMonitor().update(baseline)
    assert look.value == baseline.disparities().loc[("fid", "delta_fid"), "value"] != frame(0).difference()["fid"]
    normal = baseline.test().loc[("fid", "delta_fid"), "p_value"]
    deviations = stats.norm.isf(normal / 2)
    assert look.p_value == pytest.approx(2 * stats.t.sf(deviations, 2 * 2 * 60 / 35), rel=0.5)  # of unequal variances
    assert look.p_value > normal
    with pytest.raises(ValueError, match="the excess is not the mean of a 0 or 1"):
        DisparityMonitor(given_real=True).update(baseline)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapResult(MetricResult):
    gap: float = score(label="gap")


def test_a_look_without_a_test_spends_its_share() -> None:
    def doubtful(real: Any, fake: Any) -> GapResult:
        return GapResult(gap=0.0, caveats=("too few",), backend="numpy", n_real=len(real), n_fake=len(fake))

    monitor = DisparityMonitor("m")
    with pytest.warns(UserWarning, match="cannot be relied on"):
        evaluated = frame(metric={"m": doubtful})
    look = monitor.update(evaluated)
    assert math.isnan(look.p_value)
    assert not look.alarm
    assert look.reason == "the scores of f, m cannot be relied on"
    assert monitor._limit(len(monitor.looks) + 1) == 0.05 / 6
    assert "in 1 looks at m delta_gap (1 without a test: the scores of f, m cannot be relied on)" in monitor.text
    few = DisparityMonitor()
    look = few.update(frame(groups=np.repeat(["f", "m"], 20)))
    assert "20 samples on one side, and an interval needs at least 50" in look.reason
    assert not look.alarm
    assert json.loads(json.dumps(monitor.state_dict(), allow_nan=False))["looks"][0]["p_value"] is None
