"""A frame as one HTML page that needs nothing else: for readers, on paper, on a phone, with a screen reader."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import math
import platform
import re
from collections.abc import Hashable, Mapping, Sequence
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics import __version__
from egtmetrics._extras import extra
from egtmetrics._text import shown
from egtmetrics.groups import (
    Baseline,
    DoseResponse,
    GenerativeMetricFrame,
    LabelCorrection,
    LabelSensitivity,
    ScoreTable,
    Verdict,
    ViewComparison,
)
from egtmetrics.groups._evaluation import size_notes
from egtmetrics.groups.controlled import ControlledScores
from egtmetrics.groups.disparity import EGO, MGO
from egtmetrics.labels import group_text
from egtmetrics.plots import axis_label
from egtmetrics.report._page_figures import (
    draw_doses,
    draw_gaps,
    draw_precision_recall,
    draw_proportions,
    draw_views,
    plain_text_figures,
)
from egtmetrics.report._page_parts import (
    Gap,
    Inference,
    TrueGroups,
    WithinStrata,
    find_gaps,
    gap_text,
    gaps_of,
    infer,
    interval_text,
    signed_text,
)
from egtmetrics.report.explanations import DecomposedSamples
from egtmetrics.report.tables import (
    Columns,
    groups_title,
    is_number,
    label_columns,
    mark,
    method_notes,
    names_text,
    strata_columns,
    true_score_columns,
    view_columns,
    views_note,
    views_title,
)
from egtmetrics.report.words import verdict_sentence
from egtmetrics.results import Score

if TYPE_CHECKING:
    import jinja2

_THUMBNAIL = 192
"""Pixels: twice what a phone shows."""
_LONGEST_TEXT = 600
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that HTML does not allow."""
_PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankedSamples:
    """Samples for :func:`render_page` to show."""

    ranking: pd.DataFrame
    """As :func:`~egtmetrics.report.explanations.rank_samples` returns it."""
    contents: Mapping[int, str | NDArray[np.uint8]]
    """What each row of the ranking is: a text, or levels ``(channels, height, width)`` with 1 or 3 channels."""
    n_neighbors: int = 5
    """As it was given to ``rank_samples``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuspectedCopies:
    """Generated samples for :func:`render_page` to show beside the nearest training samples."""

    pairs: pd.DataFrame
    """As :func:`~egtmetrics.groups.suspected_copies` returns it."""
    contents: Mapping[int, str | NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    """What each generated row is, as in :class:`RankedSamples`; empty where that is not known."""
    training_contents: Mapping[int, str | NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    """The same of the training rows."""
    training_names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Of the training rows, such as those of files."""
    test: pd.DataFrame | None = None
    """As :func:`~egtmetrics.groups.copying_test` returns it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cell:
    text: str
    interval: str = ""
    worse: bool = False
    unreliable: bool = False
    number: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Table:
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[_Cell]]


def render_page(
    frame: GenerativeMetricFrame,
    *,
    baseline: Baseline | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
    dose: DoseResponse | None = None,
    views: ViewComparison | None = None,
    sensitivity: Mapping[str, LabelSensitivity] | None = None,
    controlled: ControlledScores | None = None,
    correction: LabelCorrection | None = None,
    title: str = "Is the model equally good for every group?",
    level: float | None = 0.95,
    divergence: DecomposedSamples | str | None = None,
    samples: RankedSamples | None = None,
    copies: SuspectedCopies | None = None,
    provenance: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> str:
    """Return one self-contained HTML page: what the frame says in plain words, tables, figures, and the method.

    The page loads nothing and runs no script. Figures are inline SVG, images are data URIs; names of groups and texts
    are escaped. The same arguments give the same page.

    Parameters
    ----------
    frame
        What to show.
    baseline
        What ``frame.baseline()`` returned. The summary then speaks of the excess over other real samples. Without it,
        it says that a gap may not be the model's.
    verdicts
        By metric, what ``certify`` returned: whether its largest gap is within a tolerance.
    dose
        What ``frame.dose_response()`` returned. If a damage explains the scores, the summary speaks of its doses, which
        are equal for equal damage; a section shows the curves and all that was tried.
    views
        What ``compare_views(...)`` returned, for the same samples under several encoders or options: a section says
        which gaps survive.
    sensitivity
        By metric, what ``frame.label_sensitivity()`` returned: which rate of wrong labels would change the finding.
    controlled
        What ``frame.controlled()`` returned: a section shows the gaps within strata beside those over all samples, the
        scores and weights of the strata, and what was left out.
    correction
        What ``frame.correct_labels(...)`` returned: a section shows scores and gaps by true group, and how much of
        every called group is not of it.
    title
        Heading of the page.
    level
        Confidence level of the intervals. A gap counts as more than noise if its p-value from ``frame.test``, corrected
        for the number of gaps, is at most ``1 - level``. If the frame has no intervals, the page says why. None leaves
        them out.
    divergence
        From :func:`~egtmetrics.report.explanations.decompose_samples`, or the reason why it is missing.
    samples
        Generated samples to show, by group.
    copies
        Generated samples to show beside the nearest training samples, by group.
    provenance
        Facts for the method, as for :func:`~egtmetrics.report.render`.
    command
        The command line that makes this page again.

    Raises
    ------
    ImportError
        jinja2 or matplotlib is missing.
    ValueError
        ``level`` is not in (0, 1).

    Notes
    -----
    Cost: that of ``frame.interval``, and a second for the figures.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> frame = GenerativeMetricFrame(
    ...     metrics={"gap": mean_gap}, real=[[0.0], [0.0], [1.0], [1.0]], fake=[[0.5], [0.5], [1.0], [1.0]],
    ...     real_sensitive_features=["f", "f", "<m>", "<m>"], fake_sensitive_features=["f", "f", "<m>", "<m>"])
    >>> page = render_page(frame)
    >>> "<m>" in page, "&lt;m&gt;" in page
    (False, True)
    """
    template = load_template()
    inference = infer(frame, level)
    gaps = find_gaps(frame, inference)
    single = [gap for gap in gaps if gap.column is not None]
    excess = None if baseline is None else _Excess.of(baseline, level)
    doses = None if dose is None else _Doses.of(dose, frame, level)
    strata = None if controlled is None else WithinStrata.of(controlled, level)
    true = None if correction is None else TrueGroups.of(correction, level, verdicts)
    sections = {
        "summary": "Summary",
        "groups": "Scores by group",
        "gaps": "Gaps",
        "strata": None if strata is None else "Within strata",
        "excess": None if baseline is None else "Against other real samples",
        "dose": None if dose is None else "As how much damage",
        "views": None if views is None else views_title(views),
        "labels": None if true is None else "By true group",
        "proportions": "Proportions",
        "divergence": None if divergence is None else "Divergence",
        "samples": None if samples is None else "Samples",
        "copies": None if copies is None else "Copies",
        "method": "Method",
    }
    with plain_text_figures():
        proportions = _proportions(frame)
        page: str = template.render(
            title=title,
            lead=_lead(frame),
            contents=[(anchor, name) for anchor, name in sections.items() if name is not None],
            verdict=_headline(single, inference, excess, doses),
            findings=[
                *(_finding(gap, frame, inference, excess) for gap in single),
                {"text": proportions["sentences"][0], "kind": "open", "tag": ""},
            ],
            verdicts=[
                {
                    "text": verdict_sentence(frame, one),
                    "kind": {"within": "calm", "beyond": "alarm", "undecided": "open"}[one.outcome],
                    "tag": one.outcome,
                }
                for one in (verdicts or {}).values()
            ],
            cautions=_cautions(frame, inference, baseline, sensitivity or {}, strata, true),
            scores=[
                _score_table(frame.tables[metric], gaps if excess is None else excess.gaps, frame, inference)
                for metric in frame.settings["metrics"]
            ],
            glossary=_glossary(frame),
            precision_recall=draw_precision_recall(frame, inference),
            forest=draw_gaps([gap for gap in gaps if len(gap.disparity.families) == 1], inference),
            gaps=_gap_table(gaps, inference),
            has_sums=len(single) < len(gaps),
            strata=None if strata is None else _strata_section(strata, gaps, frame),
            excess=None if excess is None else _excess_section(excess, frame),
            dose=None if doses is None else _dose_section(doses, frame),
            views=None if views is None else _views_section(views),
            labels=None if true is None else _labels_section(true, frame),
            proportions=proportions,
            divergence=None if divergence is None else _divergence(divergence),
            samples=None if samples is None else _samples(samples),
            copies=None if copies is None else _copies(copies),
            method=_method(frame, inference, provenance or {}),
            command=command,
            versions=_versions(),
            version=__version__,
        )
    return _UNSEEN.sub(lambda match: shown(match[0]), page)


def load_template() -> jinja2.Template:
    """Return what :func:`render_page` fills in; raise ImportError where a package is missing that it takes."""
    with extra("report", "the page needs jinja2 and matplotlib"):
        import jinja2
        import matplotlib.figure  # noqa: F401  that the figures can be drawn
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    source = resources.files("egtmetrics.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def _lead(frame: GenerativeMetricFrame) -> str:
    counts = frame.scored_counts
    names = ", ".join(map(group_text, counts.index))
    return (
        f"{counts['n_fake'].sum()} generated samples against {counts['n_real'].sum()} real ones, in {len(counts)} "
        f"groups ({groups_title(frame)}): {names}."
    )


# Words


def _headline(
    gaps: Sequence[Gap], inference: Inference, excess: _Excess | None, doses: _Doses | None
) -> dict[str, str]:
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


def _verdict_of_excess(excess: _Excess) -> dict[str, str]:
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


def _verdict_of_doses(doses: _Doses, excess: _Excess | None) -> dict[str, str]:
    judged = [gap for gap in doses.gaps if gap.beyond_noise is not None]
    beyond = [gap for gap in judged if gap.beyond_noise]
    alpha = f"{1 - doses.inference.level:.2g}"
    of_scores = f"{len(judged)} {'score' if len(judged) == 1 else 'scores'}"
    summary = f"{_sentence(doses.response.summary())} Doses are equal for equal damage, however unlike the groups are."
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


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _unjudged(gaps: Sequence[Gap]) -> str:
    unscored = list(dict.fromkeys(group for gap in gaps for group in gap.pair.without))
    return f" Not judged in every metric, for want of samples: {names_text(unscored)}." if unscored else ""


def _against(worse: Sequence[Hashable]) -> str:
    """Say which groups are worse off, and in how many scores."""
    times = pd.Series([group_text(group) for group in worse], dtype=object).value_counts()
    parts = [f"{name} is worse off in {n} {'score' if n == 1 else 'scores'}" for name, n in times.items()]
    return ", ".join([*parts[:-2], " and ".join(parts[-2:])])


def _finding(gap: Gap, frame: GenerativeMetricFrame, inference: Inference, excess: _Excess | None) -> dict[str, str]:
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
        known.append(f"corrected p {_p_text(of_excess.p_value)}")
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
    known.append(f"corrected p {_p_text(gap.p_value)}")
    return {"text": f"{text} ({', '.join(known)}).", "kind": kind, "tag": tag}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Excess:
    """The excess over other real samples, and what is known of its gaps."""

    baseline: Baseline
    inference: Inference
    gaps: Sequence[Gap]

    @classmethod
    def of(cls, baseline: Baseline, level: float | None) -> _Excess:
        inference = infer(baseline, level)
        return cls(baseline=baseline, inference=inference, gaps=gaps_of(baseline.tables(), inference))

    def gap(self, gap: Gap) -> Gap:
        """Return the gap in the excess for a gap in the scores."""
        return next(
            one for one in self.gaps if (one.table.metric, one.disparity.name) == (gap.table.metric, gap.disparity.name)
        )


def _excess_section(excess: _Excess, frame: GenerativeMetricFrame) -> dict[str, Any]:
    baseline = excess.baseline
    sizes = baseline.sizes["n_samples"]
    held_out = baseline.settings["held_out"]
    sentences = [
        "What would a perfect generator score? To see it, "
        f"{'held-out real samples' if held_out else 'other real samples'} of each group took the place of the "
        f"generated ones, {sizes[sizes > 0].min()} in each set"
        f"{'' if held_out else ', by splitting the real samples at random, and averaging over splits'}. The excess is "
        "the model's score less theirs. A perfect generator has an excess of 0 in every group, up to noise.",
    ]
    shares = list(baseline.ratio)
    if shares:
        sentences.append(
            "For shares there is also the ratio of the two. If a tenth of a group's generated samples is bad, its "
            "precision is nine tenths of what other real samples score, in every group."
        )
    return {
        "sentences": sentences,
        "tables": [
            _excess_table(table, excess, frame)
            for table in baseline.tables().values()
            if table.values.notna().any(axis=None)
        ],
        "forest": draw_gaps(
            [gap for gap in excess.gaps if len(gap.disparity.families) == 1], excess.inference, "excess"
        ),
        "gaps": _gap_table(excess.gaps, excess.inference, "Largest difference δ of the excess between two groups"),
    }


def _excess_table(table: ScoreTable, excess: _Excess, frame: GenerativeMetricFrame) -> _Table:
    baseline, inference = excess.baseline, excess.inference
    header, columns = [groups_title(frame)], []
    for name, score in frame.tables[table.metric].described.items():
        column = table.column(name)
        kinds = {"model": baseline.model, "other real": baseline.placebo, "excess": baseline.excess}
        if column in baseline.ratio:
            kinds["ratio"] = baseline.ratio
        for kind, values in kinds.items():
            unit = f" ({score.printed_unit})" if score.printed_unit and kind != "ratio" else ""
            header.append(f"{score.label}: {kind}{unit}")
            columns.append((kind, column, score, values[column].tolist()))

    def cell(kind: str, column: str, score: Score, value: float, group: Hashable) -> _Cell:
        if kind == "ratio":
            return _Cell(text=f"{value:.3f}", unreliable=group in table.caveats)
        bounds = interval_text(inference.score_bounds(column, group), score) if kind == "excess" else ""
        text = ("+" if kind == "excess" and value > 0 else "") + score.text(value)
        return _Cell(text=text, interval=bounds, unreliable=group in table.caveats)

    return _Table(
        caption=f"{frame.title(table.metric)}: model, other real samples, and excess{_with_intervals(inference)}",
        header=header,
        rows=[
            [
                _Cell(text=group_text(group)),
                *(cell(kind, column, score, values[i], group) for kind, column, score, values in columns),
            ]
            for i, group in enumerate(table.values.index.tolist())
        ],
    )


def _views_section(views: ViewComparison) -> dict[str, Any]:
    return {
        "title": views_title(views),
        "sentences": [
            f"Is it the {views.of}? The same samples were seen under {len(views.gaps.index.unique(views.of))} "
            f"{views.of}s. All else on this page is of the first.",
            *views.sentences,
        ],
        "note": _sentence(views_note(views)),
        "figure": draw_views(views),
        "table": _table(f"The largest gap between two groups, under each {views.of}", view_columns(views)),
    }


def _strata_section(strata: WithinStrata, gaps: Sequence[Gap], frame: GenerativeMetricFrame) -> dict[str, Any]:
    table = strata.scores.strata
    columns = [
        (strata.features, [*map(group_text, table.index)]),
        ("real", [*map(str, table["n_real"])]),
        ("generated", [*map(str, table["n_fake"])]),
        ("weight (%)", [f"{100 * weight:.1f}" for weight in table["weight"]]),
    ]
    if any(table["left_out"]):
        columns.append(("left out, because", [*table["left_out"]]))
    return {
        "sentences": [
            f"Two groups may score unequally because they differ in {strata.features}. So every group was also scored "
            f"within each stratum of {strata.features}, and the scores were averaged with the same weights for all "
            "groups: the strata's shares of the real samples, unless others were given. All else on this page is of "
            "all samples.",
            *(f"{note}." for note in strata.doubts()),
        ],
        "tables": [
            _gaps_beside(gaps, strata),
            _table(f"Strata of {strata.features}, and what they count in the averages", columns),
            *(
                _table(
                    f"{frame.title(metric)}: scores within strata{_with_intervals(strata.inference)}",
                    strata_columns(frame, strata, metric, "\n"),
                )
                for metric in strata.scores.tables()
            ),
        ],
    }


def _gaps_beside(gaps: Sequence[Gap], strata: WithinStrata) -> _Table:
    """Every gap over all samples, and beside it the one within strata."""
    plain = {(gap.table.metric, gap.disparity.name): gap for gap in gaps}
    within = gaps_of(strata.scores.tables(), strata.inference)
    tested = strata.inference.tests is not None
    rows = []
    for gap in within:
        both = (plain[gap.table.metric, gap.disparity.name], gap)
        rows.append(
            [
                _Cell(text=_gap_name(gap)),
                *(cell for one in both for cell in (_gap_cell(one), *([_p_cell(one)] if tested else []))),
                *_pair_cells(gap),
            ]
        )
    p = ["corrected p"] if tested else []
    return _Table(
        caption="Largest difference δ between two groups, over all samples and within strata"
        + _with_intervals(strata.inference),
        header=["gap in", "δ over all samples", *p, "δ within strata", *p, "larger in", "smaller in"],
        rows=rows,
    )


def _labels_section(true: TrueGroups, frame: GenerativeMetricFrame) -> dict[str, Any]:
    return {
        "sentences": [
            "The labels of the generated samples err, so that every called group also holds samples of others. That "
            "alone can make gaps, and hide some. With the confusion, which says how often, scores that are means over "
            "generated samples can be given by true group. All else on this page is by the labels as called.",
            *map(_sentence, true.sentences()),
        ],
        "verdicts": [verdict_sentence(frame, one) for one in true.verdicts.values()],
        "tables": [
            _table("Scores of called and of true groups", true_score_columns(frame, true)),
            _gap_table(
                gaps_of(true.tables, true.inference), true.inference, "Largest difference δ between true groups"
            ),
            _table("Labels of the generated samples", label_columns(frame, true)),
        ],
    }


def _table(caption: str, columns: Columns) -> _Table:
    """Return a table of the page as one in a terminal, where an interval stands below its number."""
    header = [name for name, _ in columns]
    of_numbers = [all(map(is_number, cells)) for _, cells in columns]

    def cell(text: str, number: bool) -> _Cell:
        text, _, interval = text.partition("\n")
        return _Cell(text=text, interval=interval, number=number)

    rows = zip(*(cells for _, cells in columns), strict=True)
    return _Table(caption=caption, header=header, rows=[[*map(cell, row, of_numbers)] for row in rows])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Doses:
    """Doses of known damage, and what is known of their gaps; there are none where no damage explains the scores."""

    response: DoseResponse
    inference: Inference
    gaps: Sequence[Gap]

    @classmethod
    def of(cls, response: DoseResponse, frame: GenerativeMetricFrame, level: float | None) -> _Doses:
        inference = infer(response, level)
        if response.explanation is None:
            return cls(response=response, inference=inference, gaps=[])
        gaps = [
            dataclasses.replace(
                gap,
                disparity=dataclasses.replace(
                    gap.disparity, label=frame.tables[gap.table.metric].described[str(gap.disparity.column)].label
                ),
            )
            for gap in gaps_of(response.tables(), inference)  # whose labels say the damage in every row
        ]
        return cls(response=response, inference=inference, gaps=gaps)

    @property
    def unread(self) -> str:
        """Say which scores cannot be judged, because a group reads no dose by them."""
        scores = dict.fromkeys(gap.disparity.label for gap in self.gaps if gap.pair.without)
        return f" Not judged, for want of a dose in some group: {', '.join(scores)}." if scores else ""


def _dose_section(doses: _Doses, frame: GenerativeMetricFrame) -> dict[str, Any]:
    response = doses.response
    sentences = [
        "What would known damage do? Real samples of each group were damaged, at several doses, and scored against "
        "other real samples. The model is read against the curve of its own group. The same damage then gives the same "
        "dose in every group, however unlike the groups are.",
        _sentence(response.summary()),
    ]
    if response.explanation is None:
        sentences.append(
            "At no dose up to the largest that was tried are all scores those of the model. The damage may be of "
            "another kind, of several kinds at once, or larger."
        )
        return {"sentences": sentences, "tables": [_damage_table(response, frame)], "figure": None}
    others = [name for name in response.damages if name != response.explanation and response.explains(name)]
    sentences.append(
        "A dose shows which damage would give these scores, not that this damage was done."
        + (f" These explain the scores too, but fit less well: {names_text(others)}." if others else "")
    )
    return {
        "sentences": sentences,
        "tables": [
            _damage_table(response, frame),
            _dose_table(doses, frame),
            _gap_table(doses.gaps, doses.inference, "Largest difference δ of the doses between two groups"),
        ],
        "figure": draw_doses(response, frame),
    }


def _damage_table(response: DoseResponse, frame: GenerativeMetricFrame) -> _Table:
    """In words: every damage that was tried, whether it explains the scores, and the dose of every group."""
    groups = frame.by_group.index.tolist()
    rows = []
    for name, damage in response.damages.items():
        shown, found = damage.describe(), response.agreement.loc[name]
        cells = []
        for dose, low, high in found[["dose", "low", "high"]].itertuples(index=False):
            unit = f" {shown.printed_unit}" if shown.printed_unit else ""
            if math.isnan(low):
                cells.append(_Cell(text="no dose fits"))
            elif low == 0.0 and high == shown.bounds[1]:
                cells.append(_Cell(text="every dose fits"))
            else:
                cells.append(_Cell(text=shown.text(dose) + unit, interval=interval_text((low, high), shown) + unit))
        explains = "yes, best" if name == response.explanation else "yes" if response.explains(name) else "no"
        rows.append([_Cell(text=f"{damage.label} ({name})"), _Cell(text=explains, number=False), *cells])
    return _Table(
        caption="What was tried, and at which dose all scores of a group are those of the model, with 95% intervals",
        header=["damage", "explains the scores", *map(group_text, groups)],
        rows=rows,
    )


def _dose_table(doses: _Doses, frame: GenerativeMetricFrame) -> _Table:
    """The doses that every score reads."""
    tables, inference = doses.response.tables(), doses.inference
    columns = [(table, name, score) for table in tables.values() for name, score in table.described.items()]
    damage = doses.response.damages[str(doses.response.explanation)].describe()
    unit = f" ({damage.printed_unit})" if damage.printed_unit else ""

    def cell(table: ScoreTable, name: str, score: Score, group: Hashable) -> _Cell:
        value = table.values[name].to_dict()[group]
        return _Cell(
            text="none" if math.isnan(value) else score.text(value),
            interval=interval_text(inference.score_bounds(table.column(name), group), score),
            unreliable=group in table.caveats,
        )

    return _Table(
        caption=f"Dose read by each score: {damage.label}{unit}{_with_intervals(inference)}",
        header=[
            groups_title(frame),
            *(frame.tables[table.metric].described[name].label for table, name, _ in columns),
        ],
        rows=[
            [_Cell(text=group_text(group)), *(cell(*column, group) for column in columns)]
            for group in frame.by_group.index.tolist()
        ],
    )


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def _cautions(
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
        cautions.append(f"{_sentence(true.sentences()[0])} See the scores by true group.")
    if any(frame.unassigned.values()):
        cautions.append(
            f"{frame.unassigned['real']} real and {frame.unassigned['fake']} generated samples are in no group. They "
            "count in the overall scores only."
        )
    return cautions


def _glossary(frame: GenerativeMetricFrame) -> list[tuple[str, str]]:
    """Label and explanation of every score that has one."""
    entries = [(score.label, f"{score.help} {score.direction}".strip()) for score in frame.describe().values()]
    return [(label, text) for label, text in dict.fromkeys(entries) if text]


def _method(frame: GenerativeMetricFrame, inference: Inference, provenance: Mapping[str, Any]) -> list[str]:
    notes = method_notes(frame, provenance)
    if inference.intervals is not None:
        notes.append(
            f"intervals ({inference.level:.0%}): of the average of the scores over other samples of this size, "
            "estimated from random parts of the samples (frame.interval). The interval of a gap starts at 0 where the "
            "groups may be equal. δ if equal: the gap that noise alone gives on average to groups with equal expected "
            "scores. It grows with the number of groups."
        )
    if inference.tests is not None:
        notes.append(
            "corrected p: the chance of a gap like this or a larger one between groups with equal expected scores. It "
            "is a normal approximation that accounts for the number of pairs of groups, corrected for the number of "
            "gaps of all metrics (frame.test)."
        )
    return notes if inference.tests is not None else [*notes, f"intervals and tests: {inference.reason}"]


# Tables


def _score_table(table: ScoreTable, gaps: Sequence[Gap], frame: GenerativeMetricFrame, inference: Inference) -> _Table:
    worse = {
        gap.disparity.column: gap.worse
        for gap in gaps
        if gap.table.metric == table.metric and gap.disparity.column is not None and gap.beyond_noise
    }
    overall = frame.overall.to_dict()

    def cell(name: str, score: Score, group: Hashable, value: float) -> _Cell:
        return _Cell(
            text=score.text(value),
            interval=interval_text(inference.score_bounds(table.column(name), group), score),
            worse=name in worse and group == worse[name],
            unreliable=bool(mark(frame, table.metric, group)),
        )

    title = frame.title(table.metric)
    return _Table(
        caption=title + (f" ({table.metric})" if title != table.metric else "") + _with_intervals(inference),
        header=[groups_title(frame), *map(axis_label, table.described.values())],
        rows=[
            [
                _Cell(text="overall"),
                *(
                    _Cell(
                        text=score.text(overall[table.column(name)]),
                        unreliable=bool(mark(frame, table.metric, None)),
                    )
                    for name, score in table.described.items()
                ),
            ],
            *(
                [
                    _Cell(text=group_text(group)),
                    *(cell(name, score, group, row[name]) for name, score in table.described.items()),
                ]
                for group, row in zip(table.values.index, table.values.to_dict("records"), strict=True)
            ),
        ],
    )


def _gap_table(
    gaps: Sequence[Gap], inference: Inference, what: str = "Largest difference δ between two groups, as measured"
) -> _Table:
    expected = [] if inference.intervals is None else ["δ if equal"]
    tested = [] if inference.tests is None else ["corrected p"]
    rows = [
        [
            _Cell(text=_gap_name(gap)),
            _gap_cell(gap),
            *(
                _Cell(
                    text="" if gap.expected_if_equal is None else gap.disparity.score.text(gap.expected_if_equal),
                    unreliable=not gap.reliable,
                )
                for _ in expected
            ),
            *(_p_cell(gap) for _ in tested),
            *_pair_cells(gap),
        ]
        for gap in gaps
    ]
    return _Table(
        caption=f"{what}{_with_intervals(inference)}",
        header=["gap in", "δ", *expected, *tested, "larger in", "smaller in"],
        rows=rows,
    )


def _gap_cell(gap: Gap) -> _Cell:
    """How large it is."""
    score, value = gap.disparity.score, gap.pair.value
    return _Cell(
        text="none" if math.isnan(value) else score.text(value) + (" points" if score.percent else ""),
        interval=interval_text(gap.interval, score),
        unreliable=not gap.reliable,
    )


def _p_cell(gap: Gap) -> _Cell:
    text = "" if gap.p_value is None else _p_text(gap.p_value).removeprefix("= ")
    return _Cell(text=text, unreliable=not gap.reliable)


def _pair_cells(gap: Gap) -> list[_Cell]:
    """Which groups attain it."""
    groups = (gap.pair.larger, gap.pair.smaller)
    return [_Cell(text="" if group is None else group_text(group), number=False) for group in groups]


def _gap_name(gap: Gap) -> str:
    """``"ipr: precision"``, with the unit, which may be too long to stand beside the number."""
    score = gap.disparity.score
    unit = "" if score.percent or not score.unit else f" ({score.unit})"
    others = f", without {names_text(gap.pair.without)}" if gap.pair.without else ""
    return f"{gap.table.metric}: {gap.disparity.label}{unit}{others}"


def _with_intervals(inference: Inference) -> str:
    return "" if inference.intervals is None else f", with {inference.level:.0%} intervals"


def _versions() -> _Table:
    rows = [("egtmetrics", __version__), ("Python", platform.python_version())]
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            rows.append((package, metadata.version(package)))
    cells = [[_Cell(text=text) for text in row] for row in rows]
    return _Table(caption="Versions", header=["package", "version"], rows=cells)


def _proportions(frame: GenerativeMetricFrame) -> dict[str, Any]:
    counts, table = frame.group_counts, frame.tables["proportions"]
    mgo, ego = (disparity.of(table.values) for disparity in (MGO, EGO))
    described = table.described
    sentences = ["The generated samples hold every group in the proportion of the real ones (MGO is 0)."]
    if mgo.value > 0:
        group = mgo.smaller if mgo.larger is None else mgo.larger
        real, fake = (
            described[column].text(table.values[column].to_dict()[group])
            for column in ("real_proportion", "fake_proportion")
        )
        sentences = [
            f"{fake} % of the generated samples are {group_text(group)}, and {real} % of the real ones: the largest "
            f"deviation of a proportion, MGO (matching generative odds), is {gap_text(MGO.score, mgo.value)}."
        ]
    sentences.append(
        f"Between the groups, the generated proportions differ by up to {gap_text(EGO.score, ego.value)}: EGO "
        "(equalized generative odds), which is 0 if all groups are equally frequent."
    )
    if not frame.scored_counts.equals(counts[["n_real", "n_fake"]]):
        sentences.append("The proportions are those of all samples, before some were left out for the scores.")
    names = [group_text(group) for group in counts.index]
    rows = [
        [
            _Cell(text=name),
            *(_Cell(text=str(row[f"n_{side}"])) for side in ("real", "fake")),
            *(_Cell(text=score.text(row[column])) for column, score in described.items()),
        ]
        for name, row in zip(names, counts.astype(object).to_dict("records"), strict=True)
    ]
    return {
        "sentences": sentences,
        "figure": draw_proportions(names, counts),
        "table": _Table(
            caption="Samples in each group",
            header=[groups_title(frame), "real", "generated", "real (%)", "generated (%)"],
            rows=rows,
        ),
    }


def _divergence(divergence: DecomposedSamples | str) -> dict[str, Any]:
    if isinstance(divergence, str):
        return {"sentences": [f"This could not be computed: {divergence}."], "table": None}
    parts = divergence.decomposition
    assert parts.weights is not None  # the squared Hellinger distance has a chain rule
    rows = []
    for group, weight in parts.weights.items():
        distance, chance = parts.by_group[group], divergence.chance.get(group)
        added = 0.0 if distance is None else weight * distance
        texts = [f"{value:.4f}" if value is not None else "" for value in (distance, chance, weight, added)]
        rows.append([group_text(group), *texts, _of(added, parts.total)])
    rows.append(
        ["wrong proportions", "", "", "", f"{parts.proportion_term:.4f}", _of(parts.proportion_term, parts.total)]
    )
    rows.append(["total", "", "", "", f"{parts.total:.4f}", _of(parts.total, parts.total)])
    above = [
        group_text(group) for group, chance in divergence.chance.items() if (parts.by_group[group] or 0.0) > chance
    ]
    return {
        "sentences": [
            "The squared Hellinger distance between the real and the generated samples, on "
            f"{divergence.n_clusters} clusters of their features, is {parts.total:.4f}, where 0 is equal and 2 is "
            "nothing in common. It is a sum: what wrong proportions of the groups add, and for each group its own "
            "distance times its weight. So few clusters show coarse differences only.",
            "A group whose real and generated samples come from one distribution stays below “chance” with probability "
            f"{divergence.level:.0%} ({divergence.n_permutations} random exchanges of its samples). Above it: "
            f"{', '.join(above) or 'none'}.",
        ],
        "table": _Table(
            caption="The divergence, split over groups",
            header=["group", "within the group", "chance", "weight", "adds", "of the total"],
            rows=[[_Cell(text=text) for text in row] for row in rows],
        ),
    }


def _of(part: float, total: float) -> str:
    return f"{part / total:.1%}" if total > 0 else ""


# Samples


def _samples(samples: RankedSamples) -> dict[str, Any]:
    words = {"farthest": "farthest from the real samples", "nearest": "nearest to the real samples"}
    strips = []
    for key, rows in samples.ranking.groupby(["group", "end"], sort=False):
        group, end = key[0], str(key[1])
        name = group_text(group)
        items = [
            _sample(
                samples.contents[row],
                f"{score:.2f} · row {row}",
                f"Generated sample {row} of group {name}, {words[end]}",
            )
            for row, score in zip(rows["row"].tolist(), rows["score"].tolist(), strict=True)
        ]
        texts = any(item["text"] is not None for item in items)
        strips.append({"title": f"{name}: {words[end]}", "samples": items, "texts": texts})
    k = samples.n_neighbors
    return {
        "note": f"The number is the distance to the {f'{k}th ' if k > 3 else ['', 'second ', 'third '][k - 1]}nearest "
        "real sample of the same group, divided by the usual such distance among the real samples. It is about 1 for a "
        "sample like the real ones, and more for one that lies apart. A number far below 1 may also mean a copy. Rows "
        "are counted from 0.",
        "strips": strips,
    }


def _copies(copies: SuspectedCopies) -> dict[str, Any]:
    sentences = [
        "For each group, the generated samples that are most likely copies, each beside the training sample that is "
        "nearest to it. The ratio is their distance divided by that of this training sample to its nearest other one. "
        "0 is a copy, 1 or less a near-copy, as the metric authenticity counts them. A perfect generator makes some, "
        "too, by chance: look at the pairs. Rows are counted from 0."
    ]
    tables = []
    if copies.test is None:
        sentences.append(
            "Whether the model copies more than chance was not tested: that needs held-out real samples, which it was "
            "not trained on (--baseline FILE)."
        )
    else:
        sentences.append(
            "Nearer is the chance that a generated sample lies nearer to the training set than a held-out real one of "
            "its group: 50 % for a perfect generator. A small p, corrected for the number of groups, means that the "
            "model copies, or that it makes too few of the samples that lie far from all others."
        )
        score = Score(label="nearer", percent=True)
        tested = copies.test.to_dict("records")
        columns = {
            "group": [*map(group_text, copies.test.index)],
            "generated": [str(row["n_fake"]) for row in tested],
            "held out": [str(row["n_held_out"]) for row in tested],
            "nearer (%)": [score.text(row["nearer"]) for row in tested],
            "corrected p": [_p_text(row["adjusted_p_value"]).removeprefix("= ") for row in tested],
        }
        tables.append(_table("Nearer to the training set than held-out samples?", [*columns.items()]))
    groups = []
    for group, rows in copies.pairs.groupby("group", sort=False):
        name = group_text(group)
        pairs = []
        for pair in rows.to_dict("records"):
            row, of_training = int(pair["row"]), int(pair["training_row"])
            file = copies.training_names.get(of_training)
            sides = [
                _sample(copies.contents.get(row), f"generated · row {row}", f"Generated sample {row} of group {name}"),
                _sample(
                    copies.training_contents.get(of_training),
                    f"training · row {of_training}{f' · {file}' if file else ''}",
                    f"Training sample {of_training}, the nearest to generated sample {row}",
                ),
            ]
            texts = any(side["text"] is not None for side in sides)
            title = f"distance {pair['distance']:.4g}, ratio {pair['ratio']:.2f}"
            pairs.append({"title": title, "samples": sides, "texts": texts})
        groups.append({"title": name, "pairs": pairs})
    return {"sentences": sentences, "tables": tables, "groups": groups}


def _sample(content: str | NDArray[np.uint8] | None, caption: str, what: str) -> dict[str, Any]:
    """Return a sample to show; one whose content is not known has a caption alone."""
    item: dict[str, Any] = {"text": None, "image": None, "small": False, "alt": what, "caption": caption}
    if content is None:
        return item
    if isinstance(content, str):
        item["text"] = content if len(content) <= _LONGEST_TEXT else content[:_LONGEST_TEXT].rstrip() + " …"
    else:
        item["small"] = max(content.shape[1:]) <= _THUMBNAIL // 3
        item["image"] = "data:image/png;base64," + base64.b64encode(_png(content)).decode()
    return item


def _png(levels: NDArray[np.uint8]) -> bytes:
    import PIL.Image  # matplotlib needs it

    image = PIL.Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
