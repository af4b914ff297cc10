"""A verdict in words, in three steps: what was measured, what a perfect generator would show, and what follows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import pandas as pd

from egtmetrics.groups import Baseline, Disparity, FrameIntervals, GenerativeMetricFrame, PairDifference, Verdict
from egtmetrics.labels import group_text


def in_words(
    frame: GenerativeMetricFrame,
    *,
    baseline: Baseline | None = None,
    intervals: FrameIntervals | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
) -> dict[str, str]:
    """Say for the primary disparity of every metric what was measured, what a perfect generator would show, and whether
    the rest is more than noise and more than the tolerance.

    Parameters
    ----------
    frame
        What was measured.
    baseline
        What ``frame.baseline()`` returned.
    intervals
        What ``frame.interval(...)`` returned: they say what is more than noise, as verdicts do.
    verdicts
        By metric, what ``frame.certify(...)`` returned.

    Examples
    --------
    >>> frame = GenerativeMetricFrame(
    ...     metrics="fid", real=[[0.0], [2.0], [0.0], [2.0]], fake=[[1.0], [3.0], [0.0], [2.0]],
    ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    >>> print(in_words(frame)["fid"])  # doctest: +NORMALIZE_WHITESPACE
    FID is 1 for f and 0 for m, a gap of 1 squared feature units. What a perfect generator would show was not measured:
    the groups may differ in how hard they are to imitate. Whether the gap is more than noise was not tested.
    """
    found = {}
    for metric in frame.settings["metrics"]:
        table = frame.tables[metric]
        disparity, verdict = table.primary, (verdicts or {}).get(metric)
        pair = disparity.of(table.values)
        what = disparity.label if len(table.described) == 1 else f"{frame.title(metric)}: {disparity.label}"
        if pair.larger is None or pair.smaller is None:
            equal = "is equal in all groups" if pair.value == 0.0 else "has no gap, because a group has no score"
            found[metric] = f"{what} {equal}." + (f" The gap is {verdict.text}." if verdict else "")
            continue
        gap = f"{'a' if len(table.values) == 2 else 'the largest'} gap of {disparity.score.difference_text(pair.value)}"
        sentences = [f"{what} is {_of_pair(disparity, table.values, pair)}, {gap}"]
        compared, the_gap = disparity, "the gap"
        if baseline is None:
            sentences.append(
                "What a perfect generator would show was not measured: the groups may differ in how hard they are to "
                "imitate"
            )
        else:
            compared, the_gap = baseline.tables()[metric].primary, "this"
            sentences += _of_excess(baseline, metric, disparity)
        sentences.append(_judged(the_gap, _low(metric, compared, baseline, intervals, verdict), verdict))
        found[metric] = " ".join(f"{sentence}." for sentence in sentences)
    return found


def _of_excess(baseline: Baseline, metric: str, disparity: Disparity) -> list[str]:
    excess = baseline.tables()[metric]
    model, placebo = baseline.scored(metric)
    pair = excess.primary.of(excess.values)
    if pair.larger is None or pair.smaller is None:
        return ["The excess over other real samples is equal in all groups"]
    size = baseline.sizes["n_samples"].to_dict()[pair.larger]
    by_group = excess.primary.families[0].combined(excess.values).to_dict()
    signed = " and ".join(
        f"{'+' if by_group[group] > 0 else ''}{excess.primary.score.text(by_group[group])} for {group_text(group)}"
        for group in (pair.larger, pair.smaller)
    )
    return [
        f"In sets of {size} samples, it is {_of_pair(disparity, model, pair)}; a perfect generator would show about "
        f"{_of_pair(disparity, placebo, pair)}, as other real samples do in the place of the generated ones",
        f"The excess is {signed}, a difference of {disparity.score.difference_text(pair.value)}",
    ]


def _of_pair(disparity: Disparity, table: pd.DataFrame, pair: PairDifference) -> str:
    """``"76.86 % for f and 55.68 % for m"``"""
    by_group, unit = disparity.families[0].combined(table).to_dict(), " %" if disparity.score.percent else ""
    groups: Sequence[Hashable | None] = (pair.larger, pair.smaller)
    return " and ".join(f"{disparity.score.text(by_group[group])}{unit} for {group_text(group)}" for group in groups)


def _low(
    metric: str,
    disparity: Disparity,
    baseline: Baseline | None,
    intervals: FrameIntervals | None,
    verdict: Verdict | None,
) -> float | None:
    """Return the lower bound of what is compared; None if it was not asked for."""
    if verdict is not None:
        return verdict.low
    if intervals is None:
        return None
    of = intervals if baseline is None else baseline.interval(intervals.level)
    return float(of.disparities["low"].to_dict()[metric, disparity.name])


def _judged(the_gap: str, low: float | None, verdict: Verdict | None) -> str:
    if verdict is not None and verdict.reason:
        return f"{the_gap.capitalize()} is {verdict.text}"
    if low is None or math.isnan(low):
        return f"Whether {the_gap} is more than noise was not tested"
    noise = "more than noise" if low > 0.0 else "not distinguishable from noise at this size"
    noise = f"{the_gap.capitalize()} is {noise}"
    if verdict is None:
        return noise
    return f"{noise}, {'but' if low > 0.0 and verdict.outcome == 'within' else 'and'} {verdict.text}"
