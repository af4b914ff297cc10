"""The result in words: what was measured, what a perfect generator would show, and what follows."""

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
) -> dict[str, list[str]]:
    """Say for every metric what was measured, what a perfect generator would show, and whether the rest is more than
    noise and more than the tolerance.

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

    Returns
    -------
    dict
        By metric, a paragraph for every score that a tolerance bounds, and one for what follows.

    Examples
    --------
    >>> frame = GenerativeMetricFrame(
    ...     metrics="fid", real=[[0.0], [2.0], [0.0], [2.0]], fake=[[1.0], [3.0], [0.0], [2.0]],
    ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    >>> print(*in_words(frame)["fid"], sep="\\n")  # doctest: +NORMALIZE_WHITESPACE
    FID is 1 for f and 0 for m, a gap of 1 squared feature units. Whether this is more than noise was not tested.
    Fréchet distance: without a baseline it is not known what a perfect generator would show. It may have gaps as well,
    since groups may differ in how hard they are to imitate.
    """
    return {
        metric: [
            *(_score(frame, metric, one, baseline, intervals, verdicts) for one in frame.tables[metric].judged),
            *_conclusion(frame, metric, baseline, (verdicts or {}).get(metric)),
        ]
        for metric in frame.settings["metrics"]
    }


def verdict_sentence(frame: GenerativeMetricFrame, verdict: Verdict) -> str:
    """Return what a verdict says, with the scores that it is about."""
    table = frame.tables[verdict.metric]
    labels = [one.label for one in table.disparities if one.name in verdict.disparities]
    any_of = ", ".join([*labels[:-2], " or ".join(labels[-2:])])
    what = f"the largest gap in {'the excess of ' if verdict.of == 'excess' else ''}{any_of}"
    value = "" if math.isnan(verdict.value) else f", {verdict.score.difference_text(verdict.value)},"
    noise = ""
    if not verdict.reason:
        noise = "more than noise, " if verdict.low > 0.0 else "not distinguishable from noise at this size, "
        noise += "but " if verdict.low > 0.0 and verdict.outcome == "within" else "and "
    return f"{frame.title(verdict.metric)}: {what}{value} is {noise}{verdict.text}."


def _score(
    frame: GenerativeMetricFrame,
    metric: str,
    disparity: Disparity,
    baseline: Baseline | None,
    intervals: FrameIntervals | None,
    verdicts: Mapping[str, Verdict] | None,
) -> str:
    table = frame.tables[metric]
    pair = table.gap(disparity)
    what = disparity.label if len(table.described) == 1 else f"{frame.title(metric)}: {disparity.label}"
    if math.isnan(pair.value):
        return f"{what} has no gap, because fewer than two groups have a score."
    number = "a" if len(table.values) == 2 else "the largest"
    sentences = [
        f"{what} is equal in all groups"
        if pair.larger is None
        else f"{what} is {_of_pair(disparity, table.values, pair)}, {number} gap of "
        f"{disparity.score.difference_text(pair.value)}"
    ]
    compared = table
    if baseline is not None:
        compared = baseline.tables()[metric]
        sentences += _of_excess(baseline, metric, disparity)
    judged = metric in (verdicts or {})  # which also says why if it cannot
    if doubt := compared.doubt(pair.without):
        sentences += [] if judged else [f"This says nothing of the model, because {doubt}"]
    elif intervals is not None:
        of = intervals if baseline is None else baseline.interval(intervals.level)
        low = float(of.disparities["low"].to_dict()[metric, disparity.name])
        known = "more than noise" if low > 0.0 else "not distinguishable from noise at this size"
        sentences.append("Whether this is more than noise is not known" if math.isnan(low) else f"This is {known}")
    elif not judged:
        sentences.append("Whether this is more than noise was not tested")
    return " ".join(f"{sentence}." for sentence in sentences)


def _conclusion(
    frame: GenerativeMetricFrame, metric: str, baseline: Baseline | None, verdict: Verdict | None
) -> list[str]:
    found = []
    if baseline is None:
        found.append(
            f"{frame.title(metric)}: without a baseline it is not known what a perfect generator would show. It may "
            "have gaps as well, since groups may differ in how hard they are to imitate."
        )
    return found if verdict is None else [*found, verdict_sentence(frame, verdict)]


def _of_excess(baseline: Baseline, metric: str, disparity: Disparity) -> list[str]:
    """Say what other real samples score, and what the model scores beyond that."""
    table = baseline.tables()[metric]
    of_excess = next(one for one in table.judged if one.name == disparity.name)
    model, placebo = baseline.scored(metric)
    pair = table.gap(of_excess)
    if math.isnan(pair.value):
        return ["There is no baseline for two groups"]
    if pair.larger is None:
        return ["The excess over other real samples is equal in all groups"]
    size = baseline.sizes["n_samples"].to_dict()[pair.larger]
    signed = " and ".join(
        f"{'+' if value > 0 else ''}{of_excess.score.difference_text(value)} for {group_text(group)}"
        for group in (pair.larger, pair.smaller)
        for value in [float(of_excess.families[0].combined(table.values).to_dict()[group])]
    )
    return [
        f"In sets of {size} samples, the model scores {_of_pair(disparity, model, pair)}; other real samples in the "
        f"place of the generated ones score {_of_pair(disparity, placebo, pair)}, about what a perfect generator would",
        f"So the excess is {signed}, a difference of {disparity.score.difference_text(pair.value)}",
    ]


def _of_pair(disparity: Disparity, table: pd.DataFrame, pair: PairDifference) -> str:
    """``"76.86 % for f and 55.68 % for m"``"""
    by_group, unit = disparity.families[0].combined(table).to_dict(), " %" if disparity.score.percent else ""
    groups: Sequence[Hashable | None] = (pair.larger, pair.smaller)
    return " and ".join(f"{disparity.score.text(by_group[group])}{unit} for {group_text(group)}" for group in groups)
