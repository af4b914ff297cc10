"""Verdicts on gaps: false claims at the boundary, the samples that would decide, and what leaves a gap undecided."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm
from scipy.stats import t as student

from egtmetrics import GenerativeMetricFrame, frechet_distance, kernel_distance
from egtmetrics.groups import Verdict
from egtmetrics.groups.disparity import score_table
from egtmetrics.groups.inference import Inference, score_uncertainty
from egtmetrics.groups.verdict import Samples, certify
from egtmetrics.metrics import ScoreCovariance
from egtmetrics.report import render
from egtmetrics.report.compare import compare_with_first, render_comparison
from egtmetrics.report.page import render_page
from egtmetrics.report.words import in_words
from egtmetrics.results import MetricResult, Score, share

KID = functools.partial(kernel_distance, subset_size=50)
ANY = Score(label="s", better="lower")
SHARE = Score(label="s", better="higher", bounds=(0.0, 1.0), percent=True)


def verdict_on(
    scores: dict[str, list[float]],
    variances: list[Any],
    tolerance: float,
    *,
    kind: Score = ANY,
    sizes: list[int] | None = None,
    second_order: bool = False,
    excess: bool = False,
    **options: Any,
) -> Verdict:
    """Certify scores by group with known covariances; distances of equal laws have ones of the second order."""
    n_groups = len(next(iter(scores.values())))
    values = pd.DataFrame(scores, index=[f"g{group}" for group in range(n_groups)])
    table = score_table("m", values, dict.fromkeys(scores, kind))
    covariances = {
        label: ScoreCovariance(
            data=np.atleast_2d(variance), alone=2.0 * np.atleast_1d(variance) if second_order else None
        )
        for label, variance in zip(values.index, variances, strict=True)
    }
    inference = Inference(tables={"m": table}, uncertainties={"m": score_uncertainty(values, covariances)})
    samples = Samples(
        sizes=dict(zip(values.index, sizes or [100] * n_groups, strict=True)),
        scores=[values, values] if excess else [values],
        described=table.described,
    )
    return certify(inference, "m", tolerance, of="scores", samples=samples, **options)


@pytest.mark.parametrize("share_of_the_worse", [0.8, 0.9, 0.95, 0.97, 0.99])
def test_false_claims_on_shares_of_one_and_less_are_one_in_twenty(share_of_the_worse: float) -> None:
    """Exact rates at the boundary, over all counts of 300; group g1 is perfect. Normal errors give up to 12 %."""
    n = 300
    counts = np.arange(n + 1)
    weights = binom.pmf(counts, n, share_of_the_worse)
    false = dict.fromkeys(("within", "beyond", "undecided"), 0.0)
    for count, weight in zip(counts, weights, strict=True):
        if weight > 1e-5:
            p = count / n
            found = verdict_on(
                {"s": [p, 1.0]}, [p * (1 - p) / n, 0.0], 1 - share_of_the_worse, kind=SHARE, sizes=[n, n]
            )
            false[found.outcome] += weight
    assert 0.03 < false["within"] < 0.055
    assert false["beyond"] < 0.05


@pytest.mark.parametrize("n_groups", [2, 3, 6])
def test_false_claims_are_one_in_twenty_for_any_number_of_groups(n_groups: int) -> None:
    """60 draws at the boundary; a rate of 5 % fails this twice in 10,000."""
    rng = np.random.default_rng(n_groups)
    tolerance, errors = 1.0, np.linspace(0.2, 0.4, n_groups)
    false = dict.fromkeys(("within", "beyond", "undecided"), 0)
    for _ in range(60):
        scores = np.append(np.zeros(n_groups - 1), tolerance) + errors * rng.standard_normal(n_groups)
        false[verdict_on({"s": scores.tolist()}, (errors**2).tolist(), tolerance).outcome] += 1
    assert false["within"] <= 10
    assert false["beyond"] <= 10


def test_without_bounds_of_the_score_the_upper_bound_is_that_of_the_worst_contrast() -> None:
    rng = np.random.default_rng(0)
    scores = {"precision": rng.random(4).tolist(), "recall": rng.random(4).tolist()}
    covariances = [
        [[a, -0.5 * math.sqrt(a * b)], [-0.5 * math.sqrt(a * b), b]] for a, b in rng.uniform(0.01, 0.1, (4, 2))
    ]
    found = verdict_on(scores, covariances, 0.1, level=0.9)
    bounds = [
        values[a] - values[b] + norm.ppf(0.9) * math.sqrt(covariances[a][i][i] + covariances[b][i][i])
        for i, values in enumerate(scores.values())
        for a, b in itertools.permutations(range(4), 2)
    ]
    assert found.high == pytest.approx(max(bounds))
    spreads = {name: float(np.ptp(values)) for name, values in scores.items()}
    assert found.value == pytest.approx(max(spreads.values()))
    assert found.disparity == {"precision": "delta_p", "recall": "delta_r"}[max(spreads, key=spreads.__getitem__)]


def test_opposite_gaps_do_not_cancel() -> None:
    """One group gets few good samples, the other many bad ones: precision + recall is equal, and nothing else is."""
    scores = {"precision": [0.9, 0.6], "recall": [0.5, 0.8]}
    covariances = [np.diag([1e-4, 1e-4])] * 2
    found = verdict_on(scores, covariances, 0.1, kind=SHARE)
    assert (found.outcome, found.disparities) == ("beyond", ("delta_p", "delta_r"))
    assert found.value == pytest.approx(0.3)
    # "Within" asks each score by itself, "beyond" both together.
    alone = [verdict_on({name: values}, [1e-4, 1e-4], 0.1, kind=SHARE) for name, values in scores.items()]
    assert found.high == pytest.approx(max(one.high for one in alone))
    assert alone[0].low - 0.01 < found.low < alone[0].low


def test_a_tolerance_is_for_all_scores_in_its_unit() -> None:
    """Coverage is judged with precision and recall, all in points; density, which is no share, is not."""
    values = pd.DataFrame({name: [0.5, 0.5] for name in ("precision", "recall", "density", "coverage")})
    described = {name: ANY if name == "density" else SHARE for name in values}
    table = score_table("prdc", values, described)
    assert [one.name for one in table.judged] == ["delta_p", "delta_r", "delta_coverage"]


def test_groups_without_any_variation_are_still_uncertain() -> None:
    """Of 100 samples none failed, in both groups: each share may be as low as Wilson's bound says."""
    found = verdict_on({"s": [1.0, 1.0]}, [0.0, 0.0], 0.03, kind=SHARE)
    z = norm.ppf(0.95)
    assert found.high == pytest.approx(z**2 / (100 + z**2))
    assert (found.low, found.outcome) == (0.0, "within")


@pytest.mark.parametrize("n", [50, 300])
def test_an_excess_of_distances_knows_its_error_from_few_samples(n: int) -> None:
    """Its variance has about the relative variance 35 / n, as if there were 2 n / 35 degrees of freedom."""
    scores, variances, options = {"s": [0.2, 0.5]}, [0.01, 0.02], {"sizes": [n, n], "second_order": True}
    alone, excess = (verdict_on(scores, variances, 1.0, excess=excess, **options).high for excess in (False, True))
    assert alone == pytest.approx(0.3 + norm.ppf(0.95) * math.sqrt(0.03))
    assert excess == pytest.approx(0.3 + student.ppf(0.95, 2 * n / 35) * math.sqrt(0.03))


@settings(deadline=None, max_examples=40)
@given(
    scores=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2),
    tolerance=st.floats(0.01, 1.0),
    n=st.tuples(st.integers(50, 500), st.integers(50, 500)),
    spread=st.floats(0.3, 3.0),
)
def test_the_samples_that_are_named_decide_four_times_in_five(
    scores: list[float], tolerance: float, n: tuple[int, int], spread: float
) -> None:
    """Their number, all in all, is the smallest with which the gap as measured is decided so often."""
    variances = np.array([1.0, spread]) / n
    found = verdict_on({"s": scores}, variances.tolist(), tolerance, sizes=list(n))
    if found.more_samples is None:
        return
    assert found.outcome == "undecided"
    assert all(more > 0 for more in found.more_samples.values())
    more = [found.more_samples.get(group, 0) for group in ("g0", "g1")]
    distance = abs(tolerance - abs(scores[0] - scores[1]))
    quantile = norm.ppf(0.95) if abs(scores[0] - scores[1]) < tolerance else norm.ppf(0.975)

    def power(a: Any, b: Any) -> Any:
        return norm.cdf(distance / np.sqrt(1.0 / (n[0] + a) + spread / (n[1] + b)) - quantile)

    assert power(*more) >= 0.8
    a = np.arange(sum(more) - 1)
    assert (power(a, a[::-1]) < 0.8).all()


def test_within_asks_every_pair_for_samples_and_beyond_only_the_widest() -> None:
    scores, variances = {"s": [0.0, 0.3, 0.7]}, [0.04, 0.01, 0.01]
    within, beyond = (verdict_on(scores, variances, tolerance).more_samples for tolerance in (1.0, 0.3))
    assert within is not None
    assert beyond is not None
    assert set(within) == {"g0", "g2"}  # g1 and g2 are decided already
    assert set(beyond) == {"g0", "g2"}
    assert within["g0"] > within["g2"]
    three = verdict_on({"s": [0.0, 0.0, 0.7]}, [0.04, 0.04, 0.01], 1.0).more_samples
    assert three is not None
    assert three["g0"] == three["g1"] == within["g0"]


def test_no_number_of_samples_is_stated_where_the_gap_is_near_the_tolerance() -> None:
    found = verdict_on({"s": [0.0, 1.0]}, [0.01, 0.01], 1.0001)
    assert (found.outcome, found.more_samples) == ("undecided", None)
    assert "too near the tolerance" in found.text


def frame(metrics: Any, n: tuple[int, int] = (150, 150), scale: float = 1.0, shift: float = 0.0, d: int = 2) -> Any:
    rng = np.random.default_rng(0)
    groups = np.repeat(["f", "m"], n)
    real, fake = rng.normal(size=(2, sum(n), d)) * np.where(groups == "f", 1.0, scale)[:, None]
    fake[groups == "f"] += shift
    return GenerativeMetricFrame(
        metrics=metrics,
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
        n_threads=1,
    )


def test_a_perfect_generator_of_unlike_groups_is_within_by_its_excess_only() -> None:
    """The wide group has a distance of its own that no generator can avoid."""
    evaluated = frame("fid", scale=10.0, d=16)
    baseline = evaluated.baseline()
    raw, excess = evaluated.certify(50.0), evaluated.certify(50.0, baseline=baseline)
    assert raw.outcome == "beyond"
    assert (raw.of, excess.of) == ("scores", "excess")
    assert raw.text.startswith("beyond the tolerance of 50 squared feature units: at 95 % confidence, it is at least ")
    assert excess.outcome == "within"
    assert excess == baseline.certify(50.0)
    assert excess.value == pytest.approx(baseline.disparities()["value"].iloc[0])
    assert excess.low <= excess.value <= excess.high
    damaged = frame("fid", shift=3.0)
    assert damaged.certify(1.0, baseline=damaged.baseline()).outcome == "beyond"


def test_false_certification_of_a_distance_is_rare() -> None:
    """100 draws at the boundary, small samples; a rate of 5 % fails this once in 10,000."""
    gaps, highs = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        groups = np.repeat(["f", "m"], 60)
        real, fake = rng.normal(size=(2, 120, 2))
        fake[:60, 0] += 1.0
        evaluated = GenerativeMetricFrame(
            metrics={"fid": frechet_distance},
            real=real,
            fake=fake,
            real_sensitive_features=groups,
            fake_sensitive_features=groups,
            random_state=0,
            n_threads=1,
        )
        found = evaluated.certify(1e-6)
        gaps.append(found.value)
        highs.append(found.high)
    assert np.count_nonzero(np.array(highs) < np.mean(gaps)) <= 14


def test_what_cannot_be_relied_on_is_not_certified() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Found(MetricResult):
        found: float = share(label="found")

    def doubtful(real: Any, fake: Any) -> Any:
        caveats = ("of too few samples",) if len(real) == 150 else ()
        return Found(found=0.5, backend="numpy", n_real=len(real), n_fake=len(fake), caveats=caveats)

    with pytest.warns(UserWarning, match="cannot be relied on"):
        evaluated = frame(doubtful)
    found = evaluated.certify(0.5)
    assert (found.outcome, found.more_samples) == ("undecided", None)
    assert found.reason == "the scores of f, m cannot be relied on"
    assert found.text == f"undecided for the tolerance of 50.00 points: {found.reason}"


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_groups_of_one_law_and_unequal_sizes_are_nowhere_called_different() -> None:
    """100 samples against 2000: the distance of the small group is larger, and no text says that the groups are."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["f", "m"], (100, 2000))
    real, fake = rng.normal(size=(2, 2100, 8))
    evaluated = GenerativeMetricFrame(
        metrics="fid",
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
    )
    tests, intervals = evaluated.test(), evaluated.interval()
    assert tests.loc[("fid", "delta_fid"), "p_value"] < 0.01  # which is true of the expected scores at these sizes
    assert not tests.loc[("fid", "delta_fid"), "reliable"]
    assert not evaluated.disparities().loc[("fid", "delta_fid"), "reliable"]
    assert not intervals.disparities.loc[("fid", "delta_fid"), "reliable"]
    why = "groups differ in their number of real samples, from 100 in group 'f' to 2000 in 'm'"
    assert why in repr(evaluated)
    verdict = evaluated.certify(0.01)
    assert verdict.outcome == "undecided"
    assert verdict.reason.startswith(f"the {why}")
    text = render(evaluated, intervals=intervals, verdicts={"fid": verdict})
    assert f"{intervals.disparities['value'].iloc[0]:.4g}?" in text
    words = " ".join(in_words(evaluated, intervals=intervals)["fid"])
    assert f"This says nothing of the model, because the {why}" in words
    assert "more than noise" not in " ".join(in_words(evaluated, intervals=intervals, verdicts={"fid": verdict})["fid"])
    saved = GenerativeMetricFrame.from_json(evaluated.to_json(intervals))
    assert not saved.interval().disparities.loc[("fid", "delta_fid"), "reliable"]
    pytest.importorskip("jinja2")
    page = render_page(evaluated)
    assert "no gap here can be relied on" in page
    for claim in ("unequally", ">more than noise<", "worse"):
        assert claim not in page
    both = compare_with_first({"a": evaluated, "b": evaluated})
    table = render_comparison({"a": evaluated, "b": evaluated}, tests=both)
    assert "†" not in next(line for line in table.splitlines() if line.startswith("δ fid"))
    baseline = evaluated.baseline()  # of equal sizes
    assert baseline.test().loc[("fid", "delta_fid"), "p_value"] > 0.01
    assert baseline.certify(1.0).outcome == "within"


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_groups_of_very_different_sizes_are_compared_by_their_excess_only() -> None:
    evaluated = frame("fid", n=(120, 300))
    found = evaluated.certify(5.0)
    assert found.outcome == "undecided"
    assert "from 120 in group 'f' to 300 in 'm'" in found.reason
    assert evaluated.certify(5.0, baseline=evaluated.baseline()).outcome == "within"
    assert frame({"kid": KID}, n=(120, 300)).certify(5.0).outcome == "within"  # which does not depend on the size


def test_a_group_without_a_score_leaves_the_gap_undecided() -> None:
    found = verdict_on({"s": [0.0, math.nan]}, [0.01, 0.01], 1.0)
    assert (found.outcome, found.reason) == ("undecided", "a group has no score, or its error is not known")
    assert math.isnan(found.value)


@pytest.mark.parametrize("tolerance", [0.0, -0.1, math.nan, math.inf, "5pp", True])
def test_tolerances_are_positive_numbers(tolerance: Any) -> None:
    with pytest.raises(ValueError, match=r"tolerance=.* is not a positive number; pass a gap"):
        frame("fid").certify(tolerance)


def test_one_metric_is_judged_at_a_time() -> None:
    evaluated = frame({"fid": frechet_distance, "kid": KID})
    with pytest.raises(ValueError, match="metric=None is not one of the metrics; a verdict is on one of 'fid', 'kid'"):
        evaluated.certify(1.0)
    with pytest.raises(ValueError, match="metric='proportions' is not one of the metrics"):
        evaluated.certify(1.0, metric="proportions")
    assert evaluated.certify(1.0, metric="kid").metric == "kid"
