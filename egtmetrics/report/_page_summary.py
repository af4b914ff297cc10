"""The words of a page: the headline, what each gap says, and what to beware of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from egtmetrics.groups import Baseline, GenerativeMetricFrame, LabelSensitivity
from egtmetrics.groups._evaluation import size_notes
from egtmetrics.labels import group_text
from egtmetrics.report._page_parts import (
    Doses,
    Excess,
    Gap,
    Inference,
    TrueGroups,
    WithinStrata,
    gap_text,
    interval_text,
    signed_text,
)
from egtmetrics.report._page_tables import p_text
from egtmetrics.report.tables import groups_title, names_text


def lead(frame: GenerativeMetricFrame) -> str:
    counts = frame.scored_counts
    names = ", ".join(map(group_text, counts.index))
    return (
        f"{counts['n_fake'].sum()} generated samples against {counts['n_real'].sum()} real ones, in {len(counts)} "
        f"groups ({groups_title(frame)}): {names}."
    )


def headline(gaps: Sequence[Gap], inference: Inference, excess: Excess | None, doses: Doses | None) -> dict[str, str]:
    """Return the verdict that says most of the model: on doses, on the excess, or on the scores."""
    if doses is not None and any(gap.beyond_noise is not None for gap in doses.gaps):
        return _verdict_of_doses(doses, excess)
    return _verdict(gaps, inference) if excess is None else _verdict_of_excess(excess)


def _verdict(gaps: Sequence[Gap], inference: Inference) -> dict[str, str]:
    judged = [gap for gap in gaps if gap.beyond_noise is not None]
    if gaps and not any(gap.reliable for gap in gaps):
        return {
            "kind": "open",
            "text": "Whether the groups are treated equally is not known, because no gap here can be relied on; see "
            "below for the reasons.",
        }
    alpha = f"{1 - inference.level:.2g}"
    if not judged:
        against = _against([gap.worse for gap in gaps if gap.worse is not None and gap.reliable])
        return {
            "kind": "open",
            "text": "Whether the groups differ by more than noise is not known, because there are no tests: "
            f"{inference.reason or 'no score has one'}.{f' As measured, {against}.' if against else ''}",
        }
    beyond = [gap for gap in judged if gap.beyond_noise]
    if not beyond:
        return {
            "kind": "calm",
            "text": f"None of the {len(judged)} gaps between the groups is distinguishable from noise with these "
            f"samples, at the {alpha} level. That does not prove that the groups are treated equally: smaller gaps may "
            f"be there.{_unjudged(gaps)}",
        }
    against = _against([gap.worse for gap in beyond if gap.worse is not None])
    return {
        "kind": "open",
        "text": f"The groups score unequally: {len(beyond)} of {len(judged)} gaps "
        f"{'is' if len(beyond) == 1 else 'are'} more than noise, at the {alpha} level corrected for their number."
        f"{f' Among these, {against}.' if against else ''} Whether the model is the cause is not known here: a perfect "
        "generator may score unequally too, because the groups differ. To find out, compare with other real samples: "
        f"egtmetrics report --baseline split.{_unjudged(gaps)}",
    }


def _verdict_of_excess(excess: Excess) -> dict[str, str]:
    single = [gap for gap in excess.gaps if gap.column is not None]
    judged = [gap for gap in single if gap.beyond_noise is not None]
    if not judged:
        why = "no metric here can be relied on for all groups" if excess.inference.tests is not None else None
        return {
            "kind": "open",
            "text": "Whether the model is equally good for every group is not known: "
            f"{why or excess.inference.reason or 'no score has a test'}.",
        }
    alpha = f"{1 - excess.inference.level:.2g}"
    beyond = [gap for gap in judged if gap.beyond_noise]
    if not beyond:
        return {
            "kind": "calm",
            "text": "No gap between the groups is shown to be the model's. Compared with other real samples of the "
            f"same group, it does about as well for every group: the differences in {len(judged)} "
            f"{'score' if len(judged) == 1 else 'scores'} are not distinguishable from noise with these samples, at "
            f"the {alpha} level. Smaller ones may be there: see which would have been "
            f"found.{_unjudged(single)}",
        }
    against = _against([gap.worse for gap in beyond if gap.worse is not None])
    return {
        "kind": "alarm",
        "text": "The model is not equally good for every group. How far it is from other real samples of the same "
        f"group differs between groups in {len(beyond)} of {len(judged)} "
        f"{'score' if len(judged) == 1 else 'scores'}, by more than noise, at the {alpha} level corrected for "
        f"their number.{f' Among these, {against}.' if against else ''}{_unjudged(single)}",
    }


def _verdict_of_doses(doses: Doses, excess: Excess | None) -> dict[str, str]:
    judged = [gap for gap in doses.gaps if gap.beyond_noise is not None]
    beyond = [gap for gap in judged if gap.beyond_noise]
    alpha = f"{1 - doses.inference.level:.2g}"
    of_scores = f"{len(judged)} {'score' if len(judged) == 1 else 'scores'}"
    summary = f"{sentence(doses.response.summary())} Doses are equal for equal damage, however unlike the groups are."
    if beyond:
        against = _against([gap.worse for gap in beyond if gap.worse is not None])
        return {
            "kind": "alarm",
            "text": f"The model is not equally good for every group. {summary} They differ by more than noise in "
            f"{len(beyond)} of {of_scores} that read them, at the {alpha} level corrected for their number."
            f"{f' Among these, {against}.' if against else ''}{doses.unread}",
        }
    text = (
        f"No group is shown to be damaged more than another. {summary} Their differences, read by {of_scores}, are not "
        f"distinguishable from noise with these samples, at the {alpha} level. Smaller ones may be there.{doses.unread}"
    )
    unequal = [] if excess is None else [gap for gap in excess.gaps if gap.column is not None and gap.beyond_noise]
    if unequal:
        text += (
            " The excess over other real samples does differ by more than noise, in "
            f"{len(unequal)} {'score' if len(unequal) == 1 else 'scores'}: equal damage can cost unlike groups "
            "unequally."
        )
    return {"kind": "calm", "text": text}


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _unjudged(gaps: Sequence[Gap]) -> str:
    unscored = list(dict.fromkeys(group for gap in gaps for group in gap.pair.without))
    return f" Not judged in every metric, for want of samples: {names_text(unscored)}." if unscored else ""


def _against(worse: Sequence[Hashable]) -> str:
    """Say which groups are worse off, and in how many scores."""
    times = pd.Series([group_text(group) for group in worse], dtype=object).value_counts()
    parts = [f"{name} is worse off in {n} {'score' if n == 1 else 'scores'}" for name, n in times.items()]
    return ", ".join([*parts[:-2], " and ".join(parts[-2:])])


def finding(gap: Gap, frame: GenerativeMetricFrame, inference: Inference, excess: Excess | None) -> dict[str, str]:
    """Say what was measured, what other real samples show, and whether the excess is more than noise."""
    measured: dict[str, Any] = _measured(gap, frame, inference)
    if excess is None:
        return measured
    of_excess = excess.gap(gap)
    pair = of_excess.pair
    if not of_excess.reliable or pair.larger is None or pair.smaller is None:
        return measured
    first = pair.larger if of_excess.worse is None else of_excess.worse
    second = pair.smaller if first == pair.larger else pair.larger
    score, column, baseline = of_excess.disparity.score, str(gap.column), excess.baseline
    percent = " %" if score.percent else ""
    placebo, model, of_both = (
        [table[column].to_dict()[group] for group in (first, second)]
        for table in (baseline.placebo, baseline.model, baseline.excess)
    )
    names = group_text(first), group_text(second)

    def pair_text(values: Sequence[float]) -> str:
        return " and ".join(f"{score.text(x)}{percent} for {name}" for x, name in zip(values, names, strict=True))

    sizes = baseline.sizes["n_samples"].to_dict()
    more = [
        f"With {sizes[first]} samples in each set, the model scores {pair_text(model)}. A perfect generator would "
        f"score about {pair_text(placebo)}: that is what other real samples score in the place of the generated ones.",
    ]
    bounds = interval_text(of_excess.interval, score)
    known = [f"{excess.inference.level:.0%} interval {bounds}"] if bounds else []
    if of_excess.p_value is not None:
        known.append(f"corrected p {p_text(of_excess.p_value)}")
    differences = " and ".join(
        f"{signed_text(score, value)} for {name}" for value, name in zip(of_both, names, strict=True)
    )
    text = f"The excess of the model is {differences}, a difference of {gap_text(score, pair.value)}"
    text += f" ({', '.join(known)})" if known else ""
    kind, tag = "open", "not tested"
    if of_excess.beyond_noise:
        kind, tag = "alarm", "more than noise"
    elif of_excess.beyond_noise is not None:
        kind, tag = "calm", "not distinguishable"
        text += ". That is not distinguishable from noise at this size"
        if of_excess.detectable is not None:
            text += f"; {gap_text(score, of_excess.detectable)} would have been found with 80 % probability"
    # What noise alone may do to the scores themselves is no matter here, and stands in the tables.
    measured |= _measured(dataclasses.replace(gap, interval=None, p_value=None), frame, inference)
    return {**measured, "kind": kind, "tag": tag, "more": [*more, f"{text}."]}


def _measured(gap: Gap, frame: GenerativeMetricFrame, inference: Inference) -> dict[str, str]:
    table, pair, score = gap.table, gap.pair, gap.disparity.score
    title = frame.title(table.metric)
    what = title if len(table.described) == 1 else f"{title}: {gap.disparity.label}"
    if math.isnan(pair.value):
        return {"text": f"{what} has no gap, because fewer than two groups have a score.", "kind": "open", "tag": ""}
    if not gap.reliable:
        why = "the scores of a group cannot be relied on" if gap.table.caveats else "the groups differ too much in size"
        text = f"{what} says nothing about a gap, because {why}."
        return {"text": text, "kind": "open", "tag": "unreliable"}
    if pair.larger is None:
        others = f" with a score, without {names_text(pair.without)}" if pair.without else ""
        return {"text": f"{what} is equal in all groups{others}.", "kind": "calm", "tag": ""}
    first = pair.larger if gap.worse is None else gap.worse
    second = pair.smaller if first == pair.larger else pair.larger
    values = frame.by_group[gap.column].to_dict()
    percent = " %" if score.percent else ""
    mine, theirs = (score.text(values[group]) + percent for group in (first, second))
    text = (
        f"{what} is {'larger' if gap.worse is None else 'worse'} for {group_text(first)}: {mine} against {theirs} for "
        f"{group_text(second)}, a gap of {gap_text(score, pair.value)}"
        f"{f', without {names_text(pair.without)}' if pair.without else ''}"
    )
    bounds = interval_text(gap.interval, score)
    known = [f"{inference.level:.0%} interval {bounds}"] if bounds else []
    if gap.p_value is None:
        return {"text": f"{text}{f' ({known[0]})' if known else ''}.", "kind": "open", "tag": "not tested"}
    kind, tag = ("open", "more than noise") if gap.beyond_noise else ("calm", "not distinguishable")
    known.append(f"corrected p {p_text(gap.p_value)}")
    return {"text": f"{text} ({', '.join(known)}).", "kind": kind, "tag": tag}


def cautions(
    frame: GenerativeMetricFrame,
    inference: Inference,
    baseline: Baseline | None,
    sensitivity: Mapping[str, LabelSensitivity],
    strata: WithinStrata | None,
    true: TrueGroups | None,
) -> list[str]:
    cautions = [f"{note}." for note in frame._caveat_notes()]
    for metric in frame.settings["metrics"]:
        table = frame.tables[metric]
        missing = list(dict.fromkeys(group for one in table.disparities for group in table.gap(one).without))
        refusals = frame.refusals.get(metric, {})
        few = dict.fromkeys(group for one in table.disparities for group in inference.without((metric, one.name)))
        for groups, what in ((missing, "score"), ([group for group in few if group not in missing], "interval")):
            if groups:
                known = [group for group in groups if what == "score" and group in refusals]
                why = f" {group_text(known[0])}: {refusals[known[0]]}." if known else ""
                cautions.append(
                    f"{frame.title(metric)} has no {what} for {names_text(groups)}. Its gaps are those between the "
                    f"other groups; what is left out may be worse.{why}"
                )
        if None in refusals:
            cautions.append(f"{frame.title(metric)} has no score for all samples: {refusals[None]}.")
    if baseline is not None:
        cautions += [f"{note}." for note in baseline._refusal_notes()]
    if inference.intervals is None:
        cautions.append(
            "There are no intervals here. Other samples of the same model would give other scores and gaps."
        )
    if any(table.sizes for table in frame.tables.values()) and not size_notes(frame.tables):
        for side, words in (("n_real", "real"), ("n_fake", "generated")):
            sizes = frame.scored_counts[side]
            sizes = sizes[sizes > 0]
            if sizes.min() < sizes.max():
                cautions.append(
                    f"The groups differ in their number of {words} samples, from {sizes.min()} in "
                    f"{group_text(sizes.idxmin())} to {sizes.max()} in {group_text(sizes.idxmax())}. Most metrics "
                    "depend on it, so part of a gap may come from the sizes alone. Intervals do not cover this; "
                    "matching the sizes removes it."
                )
    cautions += [f"{frame.title(metric)}: {one.text}" for metric, one in sensitivity.items()]
    if strata is not None:
        cautions.append(
            f"The summary compares whole groups, which may also differ in {strata.features}. The gaps within strata do "
            "not."
        )
    if true is not None:
        cautions.append(f"{sentence(true.sentences()[0])} See the scores by true group.")
    if any(frame.unassigned.values()):
        cautions.append(
            f"{frame.unassigned['real']} real and {frame.unassigned['fake']} generated samples are in no group. They "
            "count in the overall scores only."
        )
    return cautions
