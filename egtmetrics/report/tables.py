"""A frame as text: for the terminal, for Markdown, for LaTeX, and as JSON."""

from __future__ import annotations

import itertools
import json
import math
import re
import textwrap
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import pandas as pd
from tabulate import tabulate

from egtmetrics import __version__
from egtmetrics._text import shown
from egtmetrics.groups import (
    Baseline,
    DoseResponse,
    FrameIntervals,
    GenerativeMetricFrame,
    LabelCorrection,
    ScoreTable,
    Verdict,
    ViewComparison,
)
from egtmetrics.groups.baseline import Comparison
from egtmetrics.groups.controlled import ControlledScores
from egtmetrics.labels import group_text
from egtmetrics.plots import axis_label
from egtmetrics.report._page_parts import TrueGroups, WithinStrata
from egtmetrics.report.card import front_matter, left_out
from egtmetrics.report.words import in_words
from egtmetrics.results import UNRELIABLE, MetricResult, Score

Format = Literal["table", "markdown", "latex", "json"]

WIDTH = 100
"""Of sentences where no terminal says another."""
_TABLE_STYLES = {"table": "simple", "markdown": "pipe", "latex": "latex_booktabs"}


def render(
    frame: GenerativeMetricFrame,
    *,
    format: Format | Literal["card"] = "table",
    intervals: FrameIntervals | None = None,
    baseline: Baseline | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
    dose: DoseResponse | None = None,
    views: ViewComparison | None = None,
    controlled: ControlledScores | None = None,
    correction: LabelCorrection | None = None,
    provenance: Mapping[str, Any] | None = None,
    width: int = WIDTH,
) -> str:
    """Return scores, disparities and group sizes of a frame as text, with the settings that gave them.

    In tables, scores that declare to be shares are in percent and their differences in percentage points; all others
    are as they are, in their own unit. ``nan`` is a score that could not be computed; notes say why
    (``frame.refusals``). ``?`` stands behind a score that cannot be relied on (``frame.caveats``), and behind
    disparities that are built on it or compare groups of very unequal sizes. JSON keeps fractions, and has null for
    NaN. A disparity of groups of which one has no score is that of the others.

    Parameters
    ----------
    frame
        What to show.
    format
        ``"table"`` for a terminal, ``"markdown"``, ``"latex"`` (needs the booktabs package), ``"json"``, or ``"card"``:
        the Markdown as a section of a model card, with the metadata of the Hugging Face hub (``model-index``) in front
        and the samples that are in no score counted below.
    intervals
        What ``frame.interval(...)`` returned: printed as ``[low, high]`` beside every score of a group and every
        disparity, with what a disparity would be on average if all groups were equal, and under ``"intervals"`` in
        JSON.
    baseline
        What ``frame.baseline()`` returned: tables of the model's scores beside those of other real samples, of the
        excess and, for shares, the ratio, with intervals of the same level, and the disparities of the excess.
    verdicts
        By metric, what ``frame.certify(...)`` returned. With a baseline or verdicts, the result is also said in words
        (:func:`~egtmetrics.report.words.in_words`).
    dose
        What ``frame.dose_response()`` returned: a table of the damages that were tried, with the dose of every group
        and its 95 % interval, and the disparities of the doses; under ``"dose"`` in JSON.
    views
        What ``compare_views(...)`` returned, for the same samples under several encoders or options: a table of the
        gaps under each, and what follows in words; under ``"views"`` in JSON.
    controlled
        What ``frame.controlled()`` returned: tables of the strata with the scores of every group in them and their
        averages, and the disparities of the averages; under ``"controlled"`` in JSON.
    correction
        What ``frame.correct_labels(...)`` returned: tables of the scores by true group beside those of the called ones,
        of their disparities, and of the share of every called group that is not of it; under ``"label_correction"`` in
        JSON.
    provenance
        Facts to print below the tables, such as the names of files. JSON must be able to hold them.
    width
        Of sentences, for a terminal.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> frame = GenerativeMetricFrame(
    ...     metrics=mean_gap, real=[[0.0], [0.0], [1.0], [1.0]], fake=[[0.5], [0.5], [1.0], [1.0]],
    ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"], random_state=0)
    >>> print(*render(frame).splitlines()[2:7], sep="\\n")
    group      mean_gap
    -------  ----------
    overall        0.25
    f               0.5
    m                 0
    """
    if format == "card":
        parts: Any = {"intervals": intervals, "baseline": baseline, "verdicts": verdicts, "provenance": provenance}
        body = render(
            frame, format="markdown", dose=dose, controlled=controlled, views=views, correction=correction, **parts
        )
        title = "## Is the model equally good for every group?"
        below = title_line("Not in these numbers", "markdown") + note_lines(
            left_out(frame, provenance or {}), "markdown"
        )
        return f"{front_matter(frame, **parts)}\n\n{title}\n\n{body}\n{below}\n"
    check_format(format)
    level = None if intervals is None else intervals.level
    strata = None if controlled is None else WithinStrata.of(controlled, level)
    true = None if correction is None else TrueGroups.of(correction, level, verdicts)
    if format == "json":
        content = {
            "egtmetrics": __version__,
            **(provenance or {}),
            **content_of(frame, intervals=intervals, baseline=baseline, verdicts=verdicts),
            **({} if dose is None else {"dose": dose.to_dict()}),
            **({} if views is None else {"views": views.to_dict()}),
            **({} if strata is None else {"controlled": strata.to_dict()}),
            **({} if true is None else {"label_correction": true.to_dict()}),
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    sections = {"Scores": _scores(frame, "\n" if format == "table" else " ", intervals)}
    if baseline is not None:
        sections["Scores beside those of other real samples"] = _excess(frame, baseline, intervals)
    sections["Disparities between groups"] = _disparities(frame.tables, intervals)
    if baseline is not None:
        of_excess = None if intervals is None else baseline.interval(intervals.level)
        sections["Disparities of the excess between groups"] = _disparities(baseline.tables(), of_excess)
    if dose is not None:
        sections["Doses of known damage that give the scores"] = _doses(dose)
        if dose.explanation is not None:
            of_dose = None if intervals is None else dose.interval(intervals.level)
            sections["Disparities of the doses between groups"] = _disparities(dose.tables(), of_dose)
    if views is not None:
        sections[views_title(views)] = view_columns(views)
    if strata is not None:
        for metric in strata.scores.tables():
            name = f"Scores within strata: {frame.title(metric)}"
            sections[name] = strata_columns(frame, strata, metric, "\n" if format == "table" else " ")
        sections["Disparities of the averages over strata"] = _disparities(
            strata.scores.tables(), strata.inference.intervals
        )
    if true is not None:
        sections["Scores by true group"] = true_score_columns(frame, true)
        sections["Disparities between true groups"] = _disparities(true.correction.tables, true.inference.intervals)
        sections["Labels of the generated samples"] = label_columns(frame, true)
    if verdicts:
        sections["Verdicts"] = verdict_columns(verdicts.values())
    if true is not None and true.verdicts:
        sections["Verdicts on true groups"] = verdict_columns(true.verdicts.values())
    sections["Groups"] = _groups(frame)
    notes = [
        *caveat_notes(frame),
        *frame._refusal_notes(),
        *_missing_notes(frame, intervals),
        _names_note(frame, baseline),
        *_interval_notes(intervals),
        *_baseline_notes(baseline),
        *([] if dose is None else [f"doses: {dose.summary()}"]),
        *([] if views is None else [views_note(views)]),
        *([] if strata is None else strata.sentences()),
        *([] if true is None else true.sentences()),
        *method_notes(frame, provenance or {}),
    ]
    texts = [section(title, table, format) for title, table in sections.items()]
    if baseline is not None or verdicts:
        words = in_words(frame, baseline=baseline, intervals=intervals, verdicts=verdicts)
        texts.append(title_line("In words", format) + note_lines(itertools.chain(*words.values()), format, width))
    if views is not None:
        texts.append(title_line(f"{views_title(views)}, in words", format) + note_lines(views.sentences, format, width))
    return "\n\n".join([*texts, note_lines(notes, format, width)]) + "\n"


def content_of(
    frame: GenerativeMetricFrame,
    *,
    intervals: FrameIntervals | None,
    baseline: Baseline | None,
    verdicts: Mapping[str, Verdict] | None,
) -> dict[str, Any]:
    """Return what JSON says of a frame; with a baseline or verdicts also in words."""
    content = frame.to_dict(intervals, baseline=baseline, verdicts=verdicts)
    if baseline is not None or verdicts:
        content["in_words"] = in_words(frame, baseline=baseline, intervals=intervals, verdicts=verdicts)
    return content


def check_format(format: Format) -> None:
    """Raise ValueError for an unknown format."""
    if format not in get_args(Format):
        raise ValueError(f"format={format!r} is unknown; choose one of {', '.join(map(repr, get_args(Format)))}")


Columns = Sequence[tuple[str, Sequence[str]]]
"""Header and cells of each column; two headers may be the same."""


def section(title: str, columns: Columns, format: Format) -> str:
    """Return a table under a title; names that hold markup or line breaks stay names."""
    escape = _markdown if format == "markdown" else shown
    headers = [header for header, _ in columns]
    text = tabulate(
        [[escape(cell) for cell in row] for row in zip(*(cells for _, cells in columns), strict=True)],
        headers=["\n".join(map(escape, header.split("\n") if format == "table" else [header])) for header in headers],
        tablefmt=_TABLE_STYLES[format],  # which escapes what LaTeX takes for markup
        disable_numparse=True,
        colalign=["right" if all(map(is_number, cells)) else "left" for _, cells in columns],
    )
    if format == "latex":
        text = re.sub(r"^( *)(?=[*\[])", r"\1{}", text, flags=re.MULTILINE)  # or it belongs to the \\ before it
        for character, command in _LATEX_COMMANDS.items():
            text = text.replace(character, command)
    return title_line(title, format) + text


def title_line(title: str, format: Format) -> str:
    """Return what stands above a table."""
    if format == "latex":
        return f"% {shown(title)}\n"
    return f"### {_markdown(title)}\n\n" if format == "markdown" else f"{shown(title)}\n\n"


def note_lines(notes: Iterable[str], format: Format, width: int = WIDTH) -> str:
    """Return one line for each note, or for a terminal several of this width; the first stands out."""
    mark, escape = {"table": ("", shown), "markdown": ("- ", _markdown), "latex": ("% ", shown)}[format]
    lines = [f"{mark}{escape(note)}" for note in notes]
    if format == "table":
        wrapper = textwrap.TextWrapper(width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        lines = [wrapper.fill(line) for line in lines]
    return "\n".join(lines)


def _markdown(text: str) -> str:
    """Escape what Markdown, or HTML in it, would take for markup where it stands; numbers and most names stay plain."""
    markup = r"[\\`|$]|\*(?=\S)|~(?=[~\w])|<(?=[A-Za-z/!?])|&(?=#?\w+;)|\[(?=[^\]]*\][\[(])|(?<!\w)_|_(?!\w)"
    return re.sub(markup, r"\\\g<0>", shown(text))


_LATEX_COMMANDS = {"δ": r"\ensuremath{\delta}", "†": r"\textdagger{}"}
"""Of our own characters, those that LaTeX with its usual fonts does not know."""


def _scores(frame: GenerativeMetricFrame, separator: str, intervals: FrameIntervals | None) -> Columns:
    """Overall and one row per group; the parts of a column's name are joined by ``separator``."""
    overall = frame.overall.to_dict()
    columns = [(groups_title(frame), ["overall", *map(group_text, frame.by_group.index)])]
    for metric in frame.settings["metrics"]:
        table = frame.tables[metric]
        for name, score in table.described.items():
            column = table.column(name)
            parts = [metric, *([name] if name != metric else []), *([_unit(score)] if score.printed_unit else [])]
            bounds = [""] * len(frame.by_group)
            if intervals is not None:
                found = intervals.by_group.loc[column]
                bounds = [f" {text}" if text else "" for text in _bounds_text(found["low"], found["high"], score)]
            cells = [
                score.text(value) + mark(frame, metric, group) + text
                for group, value, text in zip(frame.by_group.index, frame.by_group[column], bounds, strict=True)
            ]
            columns.append((separator.join(parts), [score.text(overall[column]) + mark(frame, metric, None), *cells]))
    return columns


def mark(frame: GenerativeMetricFrame, metric: str, group: Hashable | None) -> str:
    """Return what to print behind the scores of a group, or overall: a mark if they cannot be relied on."""
    return UNRELIABLE if group in frame.caveats().get(metric, {}) else ""


def caveat_notes(frame: GenerativeMetricFrame) -> list[str]:
    """Say what the mark means, and why it is there."""
    notes = frame._caveat_notes()
    return [f"{UNRELIABLE}: a score or a disparity that cannot be relied on", *notes] if notes else []


def _missing_notes(frame: GenerativeMetricFrame, intervals: FrameIntervals | None) -> list[str]:
    if not (frame.disparities() if intervals is None else intervals.disparities)["without"].map(len).any():
        return []
    few = "" if intervals is None else ", or too few samples for an interval"
    return [f"without: groups that have no score{few}; the disparity is that of the others, and these may be worse"]


def _names_note(frame: GenerativeMetricFrame, baseline: Baseline | None) -> str:
    """Say what the names of disparities mean."""
    labels = {one.name: one.label for table in frame.tables.values() for one in table.disparities}
    seen = "a baseline shows how much" if baseline is None else "that is left out of the excess"
    return (
        "disparity: the largest difference between two groups in "
        f"{'; '.join(f'{label} ({name})' for name, label in labels.items())}. A perfect generator may have some, too, "
        f"since groups differ in how hard they are to imitate: {seen}"
    )


def _unit(score: Score) -> str:
    return f"({score.printed_unit})"


def _excess(frame: GenerativeMetricFrame, baseline: Baseline, intervals: FrameIntervals | None) -> Columns:
    """One row for every score and group."""
    columns: dict[str, list[str]] = {"score": [], groups_title(frame): [], "model": [], "other real": []}
    beside: dict[Comparison, Mapping[str, ScoreTable]] = {"excess": baseline.tables()}
    if len(baseline.ratio.columns):
        beside["ratio"] = baseline.tables("ratio")
    columns |= {of: [] for of in beside}
    for metric, table in baseline.tables().items():
        model, placebo = baseline.scored(metric)
        for name, score in frame.tables[metric].described.items():
            column = table.column(name)
            label = f"{metric} {name}" if name != metric else metric
            columns["score"] += [f"{label} {_unit(score)}" if score.printed_unit else label]
            columns["score"] += [""] * (len(table.values) - 1)
            columns[groups_title(frame)] += map(group_text, table.values.index)
            doubt = [mark(frame, metric, group) for group in table.values.index]
            for key, values in (("model", model[name]), ("other real", placebo[name])):
                columns[key] += [score.text(value) + text for value, text in zip(values, doubt, strict=True)]
            for of, tables in beside.items():
                if metric not in tables or name not in tables[metric].described:
                    columns[of] += [""] * len(table.values)
                    continue
                printed = score if of == "excess" else Score(label=name)  # a ratio is not in percent
                bounds = [""] * len(table.values)
                if intervals is not None:
                    found = baseline.interval(intervals.level, of).by_group.loc[column]
                    bounds = [f" {text}" if text else "" for text in _bounds_text(found["low"], found["high"], printed)]
                for value, text, interval in zip(tables[metric].values[name], doubt, bounds, strict=True):
                    columns[of].append(printed.text(value) + text + interval)
    return list(columns.items())


def true_score_columns(frame: GenerativeMetricFrame, true: TrueGroups) -> Columns:
    """Return a row for every group of every score that can be corrected: of the called group and of the true one."""
    columns: dict[str, list[str]] = {"score": [], groups_title(frame): [], "called group": [], "true group": []}
    for metric, table in true.tables.items():
        for name, score in table.described.items():
            column = table.column(name)
            label = f"{metric} {name}" if name != metric else metric
            columns["score"] += [f"{label} {_unit(score)}" if score.printed_unit else label]
            columns["score"] += [""] * (len(table.values) - 1)
            columns[groups_title(frame)] += map(group_text, table.values.index)
            for group, called, value in zip(
                table.values.index, frame.by_group[column], table.values[name], strict=True
            ):
                bounds = true.inference.score_bounds(column, group)
                columns["called group"].append(score.text(called) + mark(frame, metric, group))
                columns["true group"].append(score.text(value) + bounds_text(bounds, score))
    return list(columns.items())


def label_columns(frame: GenerativeMetricFrame, true: TrueGroups) -> Columns:
    """Return a row for every group: its share by the labels and in truth, and how much of what is called it is not."""
    score = frame.tables["proportions"].described["fake_proportion"]
    shares, wrong = true.correction.proportions, true.correction.contamination

    def with_bounds(table: pd.DataFrame) -> list[str]:
        rows = table[["value", "low", "high"]].to_numpy().tolist()
        return [score.text(value) + bounds_text((low, high), score) for value, low, high in rows]

    return [
        (groups_title(frame), [*map(group_text, shares.index)]),
        ("called (%)", [*map(score.text, shares["called"])]),
        ("true (%)", with_bounds(shares)),
        ("of the called, not of it (%)", with_bounds(wrong)),
    ]


def bounds_text(bounds: tuple[float, float] | None, score: Score) -> str:
    """Return ``" [low, high]"``, to stand behind a number; empty where they are unknown."""
    return "" if bounds is None else " [{}, {}]".format(*map(score.text, bounds))


def _doses(dose: DoseResponse) -> Columns:
    """One row for every damage that was tried."""
    rows = []
    for name, damage in dose.damages.items():
        score, found = damage.describe(), dose.agreement.loc[name]
        known = _bounds_text(found["low"], found["high"], score)
        rows.append(
            [
                f"{damage.label} ({score.printed_unit})" if score.printed_unit else damage.label,
                name,
                "yes" if dose.explains(name) else "no",
                *(
                    f"{score.text(value)} {text}" if text else ""
                    for value, text in zip(found["dose"], known, strict=True)
                ),
            ]
        )
    groups = map(group_text, dose.agreement.loc[name].index)
    return list(zip(["damage", "name", "explains the scores", *groups], zip(*rows, strict=True), strict=True))


def strata_columns(frame: GenerativeMetricFrame, strata: WithinStrata, metric: str, separator: str) -> Columns:
    """Return a row for every group of every stratum, and of the averages, which have intervals if there are any.

    ``separator`` stands between an average and its interval.
    """
    scores, of_metric = strata.scores, strata.scores.tables()[metric]
    names: list[list[str]] = [[], [], []]
    columns: dict[str, list[str]] = {}
    weights = scores.strata["weight"][scores.strata["weight"] > 0.0]
    n_levels = len(scores.strata.index.names)
    levels: Any = list(range(n_levels)) if n_levels > 1 else 0
    rows = [(group_text(label), f"{100 * weight:.1f}") for label, weight in weights.items()]
    tables = [table.droplevel(levels) for _, table in scores.by_stratum.groupby(level=levels, sort=False)]
    for (stratum, weight), table in zip([*rows, ("average", "")], [*tables, scores.by_group], strict=True):
        groups = table.index.tolist()
        rest = [""] * (len(groups) - 1)
        for cells, more in zip(names, ([stratum, *rest], [weight, *rest], map(group_text, groups)), strict=True):
            cells.extend(more)
        for name, score in of_metric.described.items():
            column = of_metric.column(name)
            texts = [*map(score.text, table[column])]
            if table is scores.by_group:
                texts = [
                    text
                    + (UNRELIABLE if group in of_metric.caveats else "")
                    + bounds_text(strata.inference.score_bounds(column, group), score).replace(" ", separator, 1)
                    for text, group in zip(texts, groups, strict=True)
                ]
            columns.setdefault(axis_label(score), []).extend(texts)
    headers = [strata.features, "weight (%)", groups_title(frame)]
    return [*zip(headers, names, strict=True), *columns.items()]


def verdict_columns(verdicts: Iterable[Verdict]) -> Columns:
    """Return a row for each verdict, which is on the largest gap of its metric."""
    names = ("metric", "largest gap", "of", "value", "at least", "at most", "tolerance", "unit", "verdict")
    columns: dict[str, list[str]] = {name: [] for name in names}
    for verdict in verdicts:
        numbers = (verdict.value, verdict.low, verdict.high, verdict.tolerance)
        texts = [*map(verdict.score.text, numbers), verdict.score.difference_unit, verdict.outcome]
        for column, cell in zip(columns.values(), [verdict.metric, verdict.disparity, verdict.of, *texts], strict=True):
            column.append(cell)
    return list(columns.items())


def views_title(views: ViewComparison) -> str:
    return f"Gaps under several {views.of}s"


def views_note(views: ViewComparison) -> str:
    """Say what the columns of ``view_columns`` are."""
    return (
        f"in its errors: the gap over its standard error, since the scores of different {views.of}s have no scale in "
        f"common; it says how sure the gap is, not how large. p: that of no gap, corrected over all {views.of}s and "
        "metrics by Holm's method, which holds though all see the same samples. against: the group that is worse off, "
        "or whose score is larger if none is better"
    )


def view_columns(views: ViewComparison) -> Columns:
    """Return a row for the largest gap of every metric under every encoder."""
    names = ("metric", views.of, "largest gap", "value", "unit", "in its errors", "p", "against")
    columns: dict[str, list[str]] = {name: [] for name in names}
    for (metric, view), (_, row) in zip(views.gaps.index, views.gaps.iterrows(), strict=True):
        score = views.labels[metric]
        cells = [
            metric,
            view,
            row["disparity"],
            score.text(row["value"]) + ("" if row["reliable"] else UNRELIABLE),
            score.difference_unit,
            f"{row['in_errors']:.1f}",
            f"{row['adjusted_p_value']:.2g}",
            "" if row["against"] is None else group_text(row["against"]),
        ]
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return list(columns.items())


def _disparities(tables: Mapping[str, ScoreTable], intervals: FrameIntervals | None) -> Columns:
    beside = [] if intervals is None else ["[low, high]", "if equal"]
    columns: dict[str, list[str]] = {
        name: [] for name in ("metric", "disparity", "value", *beside, "unit", "larger in", "smaller in", "without")
    }
    for table in tables.values():
        for disparity in table.disparities:
            known = None if intervals is None else intervals.disparities.loc[[(table.metric, disparity.name)]]
            # Of the groups that the interval is about: a group with a score may be too small for one.
            pair = table.gap(disparity, () if known is None else known["without"].iloc[0])
            score = disparity.score
            cells = [
                table.metric,
                disparity.name,
                score.text(pair.value) + ("" if table.reliable(pair.without) else UNRELIABLE),
                *([] if known is None else _beside(known, score)),
                score.difference_unit,
                *("" if group is None else group_text(group) for group in (pair.larger, pair.smaller)),
                names_text(pair.without),
            ]
            for column, cell in zip(columns.values(), cells, strict=True):
                column.append(cell)
    if not any(columns["without"]):
        del columns["without"]
    return list(columns.items())


def names_text(groups: Iterable[Hashable]) -> str:
    """Return the names of groups as they are listed; a name of several features holds commas."""
    return "; ".join(map(group_text, groups))


def _beside(known: pd.DataFrame, score: Score) -> list[str]:
    expected = float(known["expected_if_equal"].iloc[0])
    return [*_bounds_text(known["low"], known["high"], score), "" if math.isnan(expected) else score.text(expected)]


def _bounds_text(low: Iterable[float], high: Iterable[float], score: Score) -> list[str]:
    """``[low, high]`` for each, empty where they are unknown."""
    return ["" if math.isnan(a + b) else f"[{score.text(a)}, {score.text(b)}]" for a, b in zip(low, high, strict=True)]


def _interval_notes(intervals: FrameIntervals | None) -> list[str]:
    if intervals is None:
        return []
    return [
        f"[low, high]: {100 * intervals.level:g} % intervals of the number's average over other samples of this size, "
        "projections and bootstraps. A disparity whose interval starts at 0 is not distinguishable from noise at this "
        "size. The intervals are approximate: see benchmarks/results/calibration.md for how often they held",
        "if equal: the disparity that noise alone gives on average to groups with equal expected scores",
    ]


def _baseline_notes(baseline: Baseline | None) -> list[str]:
    if baseline is None:
        return []
    ratio = "; ratio: of the two, for shares" if len(baseline.ratio.columns) else ""
    return [
        f"other real: what other real samples score in the place of the generated ones ({baseline_source(baseline)}); "
        "a perfect generator would score about the same",
        *baseline._refusal_notes(),
        f"excess: the model's score less that of other real samples{ratio}",
    ]


def baseline_source(baseline: Baseline) -> str:
    """Say what the other real samples are, and how many."""
    sizes = baseline.sizes["n_samples"]
    which = "held-out ones" if baseline.settings["held_out"] else "halves of REAL at random"
    return f"{which}, {sizes[sizes > 0].min()} samples in each set"


def _groups(frame: GenerativeMetricFrame) -> Columns:
    counts, unassigned = frame.group_counts, frame.unassigned
    columns = [
        (groups_title(frame), [*map(group_text, counts.index), "in no group"]),
        ("real", [*map(str, counts["n_real"]), str(unassigned["real"])]),
        ("fake", [*map(str, counts["n_fake"]), str(unassigned["fake"])]),
    ]
    if not frame.scored_counts.equals(counts[["n_real", "n_fake"]]):
        columns += [(f"{side}, scored", [*map(str, frame.scored_counts[f"n_{side}"]), ""]) for side in ("real", "fake")]
    described = frame.tables["proportions"].described
    for side in ("real", "fake"):
        score = described[f"{side}_proportion"]
        columns.append((f"{side} {_unit(score)}", [*map(score.text, counts[f"{side}_proportion"]), ""]))
    return columns


def method_notes(frame: GenerativeMetricFrame, provenance: Mapping[str, Any]) -> list[str]:
    notes = []
    for metric, description in frame.settings["metrics"].items():
        of_groups = {label: results[metric] for label, results in frame.results.items() if metric in results}
        result = frame.overall_results.get(metric, next(iter(of_groups.values()), None))
        if result is None:
            notes.append(f"{metric}: {description}")
            continue
        options = [
            f"{key}={value!r}{_elsewhere(key, value, of_groups)}"
            for key, value in result.settings().items()
            if f"{key}=" not in description
        ]
        backend = [] if result.backend == "unknown" else [f"backend={result.backend!r}"]
        notes.append(f"{metric}: " + ", ".join([description, *options, *backend]))
    if clusters := frame.settings.get("clusters"):
        counted = " and ".join(f"the {side} samples are in {n}" for side, n in clusters.items())
        notes.append(f"clusters: {counted}, which intervals and tests divide whole")
    notes += [f"{name}: {fact(value)}" for name, value in provenance.items()]
    return [*notes, f"random_state={frame.settings['random_state']}, egtmetrics {__version__}"]


def _elsewhere(key: str, value: Any, of_groups: Mapping[Hashable, MetricResult]) -> str:
    """Say where a setting that follows from the number of samples differs: ``" (200 for x)"``."""
    others: dict[Any, list[Hashable]] = {}
    for label, result in of_groups.items():
        other = result.settings()[key]
        if isinstance(other, int) and other != value:
            others.setdefault(other, []).append(label)
    texts = [f"{other} for {names_text(labels)}" for other, labels in sorted(others.items())]
    return f" ({'; '.join(texts)})" if texts else ""


def fact(value: Any, *, inside: bool = False) -> str:
    if isinstance(value, Mapping):
        parts = ", ".join(f"{name}={fact(item, inside=True)}" for name, item in value.items() if item is not None)
        return f"({parts})" if inside else parts
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def groups_title(frame: GenerativeMetricFrame) -> str:
    return shown(", ".join(map(str, frame.by_group.index.names)))


def is_number(cell: str) -> bool:
    try:
        float(re.split(r"\s\[", cell, maxsplit=1)[0].rstrip(f"*†{UNRELIABLE}") or "nan")
    except ValueError:
        return False
    return True
