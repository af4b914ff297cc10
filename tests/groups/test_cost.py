"""The calls that are foretold are those that are made."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.confusion import Confusion
from egtmetrics.groups import compare_frames, permutation_test_frames
from egtmetrics.groups.cost import (
    Cost,
    cost_of_baseline,
    cost_of_comparison,
    cost_of_doses,
    cost_of_intervals,
    cost_of_label_errors,
    cost_of_plan,
    cost_of_strata,
)
from egtmetrics.metrics import kernel
from egtmetrics.metrics.mixtures import CountsPairs
from egtmetrics.results import MetricResult, share

RNG = np.random.default_rng(0)
SIZES = {"a": 128, "b": 256}  # whose halves and quarters are of one size
LABELS = np.repeat([*SIZES], [*SIZES.values()])
STRATA = np.concatenate([np.repeat(["x", "y"], size // 2) for size in SIZES.values()])
REAL, FAKE, OTHER, HELD_OUT = RNG.normal(size=(4, len(LABELS), 2))


class Counted:
    """A metric that counts its calls, and the rows that it reads."""

    def __init__(self) -> None:
        self.n_calls = self.n_rows = 0

    def __call__(self, real: Any, fake: Any) -> float:
        self.n_calls += 1
        self.n_rows += len(real) + len(fake)
        return float(abs(real.mean() - fake.mean()))


def frame_of(metric: Any, fake: Any = FAKE) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(
        metrics={"counted": metric},
        real=REAL,
        fake=fake,
        real_sensitive_features=LABELS,
        fake_sensitive_features=LABELS,
        real_control_features=STRATA,
        fake_control_features=STRATA,
        random_state=0,
    )


def with_intervals(frame: GenerativeMetricFrame) -> None:
    frame.baseline().interval()


WORK: dict[str, tuple[Callable[..., Cost], Callable[..., object]]] = {
    "intervals": (cost_of_intervals, lambda frame: frame.interval()),
    "baseline": (lambda frame: cost_of_baseline(frame, intervals=False), lambda frame: frame.baseline()),
    "baseline with intervals": (lambda frame: cost_of_baseline(frame, intervals=True), with_intervals),
    "held-out baseline": (
        lambda frame: cost_of_baseline(frame, LABELS, intervals=False),
        lambda frame: frame.baseline(HELD_OUT, LABELS),
    ),
    "small baseline": (
        lambda frame: cost_of_baseline(frame, n_splits=2, n_samples=20, intervals=True),  # too few for intervals
        lambda frame: frame.baseline(n_splits=2, n_samples=20),
    ),
    "plan": (cost_of_plan, lambda frame: frame.plan(metric="counted", width=0.1)),
    "strata": (lambda frame: cost_of_strata(frame, intervals=False), lambda frame: frame.controlled()),
    "strata with intervals": (
        lambda frame: cost_of_strata(frame, intervals=True),
        lambda frame: frame.controlled().interval(),
    ),
    "dose": (lambda frame: cost_of_doses(frame, "noise"), lambda frame: frame.dose_response("noise")),
}


@pytest.mark.parametrize("work", WORK)
def test_the_cost_is_what_is_called(work: str) -> None:
    cost_of, run = WORK[work]
    metric = Counted()
    frame = frame_of(metric)
    cost = cost_of(frame)
    before = metric.n_calls, metric.n_rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(frame)
    assert cost.n_calls == {"counted": metric.n_calls - before[0]}
    rows = cost.seconds["counted"] / frame._metrics.seconds_per_row["counted"]
    assert rows == pytest.approx(metric.n_rows - before[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hits(MetricResult):
    hits: float = share(label="hits", per_sample="fake")


class CountedHits(Counted):
    """A share of the generated samples, which can be corrected for labels that err."""

    def __call__(self, real: Any, fake: Any) -> Any:
        super().__call__(real, fake)
        return Hits(hits=float((fake[:, 0] > 0.0).mean()), backend="numpy", n_real=len(real), n_fake=len(fake))


@pytest.mark.parametrize("intervals", [False, True])
def test_the_cost_of_errors_of_labels_is_that_of_every_pair_of_groups(intervals: bool) -> None:
    metric = CountedHits()
    frame = frame_of(metric)
    cost, before = cost_of_label_errors(frame, intervals=intervals), (metric.n_calls, metric.n_rows)
    correction = frame.correct_labels(Confusion.symmetric([*SIZES], 0.1))
    if intervals:
        correction.interval()
    assert cost.n_calls == {"counted": metric.n_calls - before[0]}
    rows = cost.seconds["counted"] / frame._metrics.seconds_per_row["counted"]
    assert rows == pytest.approx(metric.n_rows - before[1])
    frame.label_sensitivity()
    assert intervals == (metric.n_calls - before[0] == cost.n_calls["counted"])  # paid once


@pytest.mark.parametrize("intervals", [False, True])
def test_the_cost_of_kernel_mixtures_is_all_pairs_of_rows(intervals: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    n_pairs = 0
    sums = kernel._sums

    def counted(of_kernel: Any, rows: Any, columns: Any) -> Any:
        nonlocal n_pairs
        n_pairs += len(rows) * len(columns)
        return sums(of_kernel, rows, columns)

    monkeypatch.setattr(kernel, "_sums", counted)
    frame = GenerativeMetricFrame(metrics="kid", samples=frame_of(Counted()).samples, random_state=0)
    cost = cost_of_label_errors(frame, intervals=intervals)
    correction = frame.correct_labels(Confusion.symmetric([*SIZES], 0.1))
    if intervals:
        correction.interval()
    overall = frame.overall_results["kid"]
    seconds = n_pairs / (3 * 100 * len(LABELS) ** 2) * 2 * len(LABELS) * frame._metrics.seconds_per_row["kid"]
    assert cost.total == pytest.approx(seconds, rel=0.2)  # a whole number of rows
    assert isinstance(overall, CountsPairs)


def test_errors_of_labels_cost_nothing_where_they_cannot_be_corrected() -> None:
    assert cost_of_label_errors(frame_of(Counted()), intervals=True).total == 0.0
    given = {"real": REAL, "fake": FAKE, "real_sensitive_features": LABELS, "fake_sensitive_features": LABELS}
    clustered = GenerativeMetricFrame(metrics="kid", **given, fake_clusters=np.arange(len(LABELS)) // 2, random_state=0)
    assert cost_of_label_errors(clustered, intervals=True).total == 0.0


@pytest.mark.parametrize("n_permutations", [None, 3])
def test_the_cost_of_a_comparison_is_that_of_both_models(n_permutations: int | None) -> None:
    metric = Counted()
    frame, other = frame_of(metric), frame_of(metric, OTHER)
    cost = cost_of_comparison(frame, other, n_permutations)
    before = metric.n_calls
    if n_permutations is None:
        compare_frames(frame, other)
    else:
        permutation_test_frames(frame, other, n_permutations=n_permutations, random_state=0)
    assert cost.n_calls == {"counted": metric.n_calls - before}


def test_intervals_cost_nothing_once_they_are_known() -> None:
    frame = frame_of(Counted())
    assert cost_of_intervals(frame).total > 0.0
    frame.interval()
    assert cost_of_intervals(frame).total == 0.0


def test_a_metric_with_its_own_variance_costs_a_few_evaluations() -> None:
    frame = frame_of(Counted())
    own = GenerativeMetricFrame(metrics="fid", samples=frame.samples, random_state=0)
    assert cost_of_intervals(own).n_calls["fid"] < cost_of_intervals(frame).n_calls["counted"] / 100


def test_the_first_call_does_not_set_the_rate() -> None:
    """It also loads modules: of calls that take equally long for each row, the fastest one counts."""
    waits = iter([0.3, *[0.0] * 10])

    def slow_at_first(real: Any, fake: Any) -> float:
        time.sleep(next(waits))
        return 0.0

    frame = frame_of(slow_at_first)
    assert frame._metrics.seconds_per_row["counted"] < 0.1 / (2 * SIZES["a"])
