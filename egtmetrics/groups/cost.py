"""What long work with a frame will take, told from what its evaluation took.

The number of calls of each metric is exact; their time is taken to grow with the rows that they read, from the fastest
call of the frame. So the time of a metric that compares all pairs of rows is overestimated where sets are small.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Self

from egtmetrics.groups._evaluation import MissingScoreWarning
from egtmetrics.groups.baseline import (
    HALVES,
    HELD_OUT,
    N_SPLITS,
    clusters_of_groups,
    counted_sides,
    large_enough,
    set_sizes,
)
from egtmetrics.groups.budget import calls_of_models
from egtmetrics.groups.controlled import groups_lacking
from egtmetrics.groups.damage import Damages, name_damages
from egtmetrics.groups.dose import n_pairs
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.groups.inference import MIN_SAMPLES
from egtmetrics.groups.label_errors import correctable
from egtmetrics.labels import assign_groups
from egtmetrics.metrics.mixtures import CountsPairs
from egtmetrics.metrics.variance import Calls, calls_of_covariance
from egtmetrics.registry import metric_of
from egtmetrics.samples import GroupedSamples


@dataclasses.dataclass(frozen=True)
class Cost:
    """Calls of metrics that are to be made, and their seconds, by metric."""

    n_calls: dict[str, int]
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Seconds of all metrics."""
        return sum(self.seconds.values())

    @classmethod
    def of_calls(cls, frame: GenerativeMetricFrame, calls: Iterable[tuple[str, Calls]]) -> Self:
        n_calls: defaultdict[str, int] = defaultdict(int)
        seconds: defaultdict[str, float] = defaultdict(float)
        for metric, one in calls:
            n_calls[metric] += one.n
            seconds[metric] += one.n_rows * frame._metrics.seconds_per_row[metric]
        return cls(n_calls, seconds)

    def __add__(self, other: Cost) -> Cost:
        metrics = self.n_calls | other.n_calls
        return Cost(
            {metric: self.n_calls.get(metric, 0) + other.n_calls.get(metric, 0) for metric in metrics},
            {metric: self.seconds.get(metric, 0.0) + other.seconds.get(metric, 0.0) for metric in metrics},
        )


NOTHING = Cost({}, {})


def cost_of_intervals(frame: GenerativeMetricFrame) -> Cost:
    """Return what ``frame.interval`` costs; nothing if it has been paid."""
    if frame._inference is not None:
        return NOTHING
    rows = _rows(frame)
    return Cost.of_calls(
        frame,
        (
            (metric, calls_of_covariance(frame._metrics.bound[metric], result, sum(rows[label])))
            for label, by_metric in frame.results.items()
            if min(rows[label]) >= MIN_SAMPLES
            for metric, result in by_metric.items()
        ),
    )


def cost_of_baseline(
    frame: GenerativeMetricFrame,
    held_out_sensitive_features: Any = None,
    *,
    n_splits: int = N_SPLITS,
    n_samples: int | None = None,
    intervals: bool,
) -> Cost:
    """Return what ``frame.baseline`` costs, with the ``intervals`` of the excess or without."""
    samples = frame._of_samples("a baseline")
    design, sides = HALVES, counted_sides(samples)
    if held_out_sensitive_features is not None:
        design = HELD_OUT
        held_out = assign_groups(samples.real_sensitive_features, held_out_sensitive_features).counts()["n_fake"]
        for label, of_group in sides.items():
            of_group.append(range(held_out.get(label, 0)))
    per_side = len(design.model)
    if min(len(side) for of_group in sides.values() for side in of_group) < per_side:
        return NOTHING  # the evaluation refuses it
    if not frame._metrics.strict and n_samples is None:
        with warnings.catch_warnings():  # the evaluation says so
            warnings.simplefilter("ignore", MissingScoreWarning)
            sides = large_enough(sides, samples, per_side)
    n_rounds = n_splits if design is HALVES else 1
    return _cost_of_sets(frame, sides, samples, per_side, len(design.pairs), n_rounds, n_samples, intervals)


def cost_of_doses(frame: GenerativeMetricFrame, damages: Damages | None = None) -> Cost:
    """Return what ``frame.dose_response`` costs."""
    samples = frame._of_samples("a dose")
    if min(map(min, _rows(frame).values())) < 2:
        return NOTHING  # the evaluation refuses it
    n_scored = n_pairs(name_damages(damages, spread=1.0))
    return _cost_of_sets(frame, counted_sides(samples), samples, 2, n_scored, N_SPLITS, None, True)


def cost_of_strata(frame: GenerativeMetricFrame, *, intervals: bool) -> Cost:
    """Return what ``frame.controlled`` costs, with the ``intervals`` of the averages or without."""
    samples = frame._of_samples("a comparison within strata")
    sizes, calls = samples.cell_sizes(), []
    for stratum in (stratum for stratum, lacking in groups_lacking(samples).items() if not lacking):
        large = min(min(sizes[stratum, label]) for label in frame.results) >= MIN_SAMPLES
        for label, by_metric in frame.results.items():
            n_rows = sum(sizes[stratum, label])
            for metric, result in by_metric.items():
                calls.append((metric, Calls(1, n_rows)))
                if intervals and large:
                    calls.append((metric, calls_of_covariance(frame._metrics.bound[metric], result, n_rows)))
    return Cost.of_calls(frame, calls)


def cost_of_label_errors(frame: GenerativeMetricFrame, *, intervals: bool) -> Cost:
    """Return what ``frame.correct_labels`` costs, with ``intervals`` or without.

    ``frame.label_sensitivity`` for all metrics costs as much as with intervals, and if both are asked for it is paid
    once.
    """
    samples = frame._of_samples("a correction")
    if samples.n_clusters():
        return NOTHING  # the correction refuses them
    rows, labels = _rows(frame), samples.groups.index.tolist()
    large = min(map(min, rows.values())) >= MIN_SAMPLES
    calls = []
    for metric, given in frame._metrics.given.items():
        known = metric_of(given)
        results = {label: found[metric] for label, found in frame.results.items() if metric in found}
        if len(results) < len(labels) or not correctable(known, frame.tables[metric].described):
            continue
        overall: Any = frame.overall_results.get(metric)
        if known is not None and known.mixtures is not None and isinstance(overall, CountsPairs):
            # Intervals compare the rows of both halves of every set, too.
            n_pairs = _pairs_of_rows([rows[label] for label in labels]) * (1.5 if intervals and large else 1.0)
            n_evaluations = overall.evaluations(n_pairs)
            calls.append((metric, Calls(max(1, round(n_evaluations)), round(n_evaluations * sum(rows[None])))))
            continue
        for (a, result), c in itertools.product(results.items(), labels):
            n_rows = rows[a][0] + rows[c][1]
            if a != c:
                calls.append((metric, Calls(1, n_rows)))
            if intervals and large:
                calls.append((metric, calls_of_covariance(frame._metrics.bound[metric], result, n_rows)))
    return Cost.of_calls(frame, calls)


def _pairs_of_rows(sizes: Sequence[tuple[int, int]]) -> int:
    """Return how many pairs of rows there are: real with real ones of their group, fake with all, real with fake."""
    real, fake = zip(*sizes, strict=True)
    of_fake = sum(n * m for n, m in itertools.combinations_with_replacement(fake, 2))
    return int(sum(n * n for n in real) + of_fake + sum(real) * sum(fake))


def cost_of_comparison(
    frame: GenerativeMetricFrame, other: GenerativeMetricFrame, n_permutations: int | None = None
) -> Cost:
    """Return what ``compare_frames`` costs; with ``n_permutations``, what ``permutation_test_frames`` does."""
    total = NOTHING
    for one in (frame, other):
        rows = _rows(one)
        results = {None: one.overall_results, **one.results}
        total += Cost.of_calls(
            one,
            (
                (
                    metric,
                    calls_of_covariance(one._metrics.bound[metric], result, sum(rows[label]))
                    if n_permutations is None
                    else Calls(n_permutations, n_permutations * sum(rows[label])),
                )
                for label, by_metric in results.items()
                for metric, result in by_metric.items()
            ),
        )
    return total


def cost_of_plan(frame: GenerativeMetricFrame) -> Cost:
    """Return what ``frame.plan`` costs for all metrics, with the intervals that it needs."""
    rows = _rows(frame)
    models = (
        (metric, calls_of_models(sum(rows[label])))
        for label, by_metric in frame.results.items()
        if min(rows[label]) >= MIN_SAMPLES
        for metric in by_metric
    )
    return cost_of_intervals(frame) + Cost.of_calls(frame, models)


def _cost_of_sets(
    frame: GenerativeMetricFrame,
    sides: Mapping[Hashable, list[Any]],
    samples: GroupedSamples,
    per_side: int,
    n_scored: int,
    n_rounds: int,
    n_samples: int | None,
    intervals: bool,
) -> Cost:
    """Return what it costs to score ``n_scored`` pairs of equal sets, in each of many splits of every group."""
    size, n_disjoint = set_sizes(sides, clusters_of_groups(samples), samples, per_side, n_samples)
    calls = []
    for label, n in n_disjoint.items():
        for metric, result in frame.results[label].items():
            n_calls = n_scored * n_rounds * n
            calls.append((metric, Calls(n_calls, n_calls * 2 * size)))
            if intervals and size >= MIN_SAMPLES:
                one = calls_of_covariance(frame._metrics.bound[metric], result, 2 * size)
                calls.append((metric, Calls(n_scored * one.n, n_scored * one.n_rows)))
    return Cost.of_calls(frame, calls)


def _rows(frame: GenerativeMetricFrame) -> dict[Hashable | None, tuple[int, int]]:
    """Return the numbers of real and fake rows of every group, and of all samples under None."""
    samples = frame._of_samples("an interval or a test")
    sizes = samples.groups.counts()[["n_real", "n_fake"]]
    by_group = zip(sizes.index.tolist(), sizes.to_numpy().tolist(), strict=True)
    return {None: (len(samples.real), len(samples.fake)), **{label: (n, m) for label, (n, m) in by_group}}
