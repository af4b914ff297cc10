"""A frame as text: for the terminal, for Markdown, for LaTeX, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from tabulate import tabulate

from egtmetrics import __version__
from egtmetrics.groups import FrameIntervals, GenerativeMetricFrame
from egtmetrics.results import MetricResult

Format = Literal["table", "markdown", "latex", "json"]

_TABLE_STYLES = {"table": "simple", "markdown": "pipe", "latex": "latex_booktabs"}
SHARES = ("precision", "recall", "f1", "coverage", "clipped_density", "clipped_coverage")
"""Scores in [0, 1], which are printed in percent as in the paper; others are printed as they are."""
SHARE_DISPARITIES = ("delta_p", "delta_r", "delta_pr", "delta_p_plus_delta_r", *(f"delta_{name}" for name in SHARES))
_OPTIONS = (
    *("alpha", "n_bootstrap", "n_projections", "n_neighbors", "ties", "cover_factor", "n_subsets", "subset_size"),
    *("real_index", "fake_index", "n_probes", "n_real_checked", "n_fake_checked", "level"),
    *("precision_error", "recall_error", "density_error", "coverage_error"),
)
"""Fields of results that say how a score was computed, and how well."""


def render(
    frame: GenerativeMetricFrame,
    *,
    format: Format = "table",
    intervals: FrameIntervals | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Return scores, disparities and group sizes of a frame as text, with the settings that gave them.

    In tables, precision, recall and other shares are in percent, their differences in points of percentage, everything
    else in its own unit; ``nan`` is a score that could not be computed. JSON keeps fractions and has null for NaN.

    Parameters
    ----------
    frame
        What to show.
    format
        ``"table"`` for a terminal, ``"markdown"``, ``"latex"`` (needs the booktabs package) or ``"json"``.
    intervals
        What ``frame.interval(...)`` returned, to be printed as ``[low, high]`` beside every score of a group and every
        disparity, and under ``"intervals"`` in JSON.
    provenance
        Facts to print beneath, such as the names of files: values that JSON takes.

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
    check_format(format)
    if format == "json":
        content = {"egtmetrics": __version__, **(provenance or {}), **frame.to_dict(intervals)}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    sections = {
        "Scores": _scores(frame, "\n" if format == "table" else " ", intervals),
        "Disparities between groups": _disparities(frame, intervals),
        "Groups": _groups(frame),
    }
    notes = [*_interval_notes(intervals), *method_notes(frame, provenance or {})]
    parts = [section(title, table, format) for title, table in sections.items()]
    mark = {"table": "", "markdown": "- ", "latex": "% "}[format]
    return "\n\n".join([*parts, "\n".join(f"{mark}{note}" for note in notes)]) + "\n"


def check_format(format: Format) -> None:
    """Raise ValueError unless it is one."""
    if format not in get_args(Format):
        raise ValueError(f"format={format!r} is unknown; choose one of {', '.join(map(repr, get_args(Format)))}")


def group_text(label: Hashable) -> str:
    """Return the label of a group, or the labels of an intersection, as text."""
    return ", ".join(map(str, label)) if isinstance(label, tuple) else str(label)


def section(title: str, columns: Mapping[str, Sequence[str]], format: Format) -> str:
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    if format == "markdown":
        rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    text = tabulate(
        rows,
        headers=list(columns),
        tablefmt=_TABLE_STYLES[format],
        disable_numparse=True,
        colalign=["right" if all(map(_is_number, cells)) else "left" for cells in columns.values()],
    )
    return {"table": f"{title}\n\n{text}", "markdown": f"### {title}\n\n{text}", "latex": f"% {title}\n{text}"}[format]


def _scores(frame: GenerativeMetricFrame, separator: str, intervals: FrameIntervals | None) -> dict[str, list[str]]:
    """Overall and one row per group; the parts of a column's name are joined by ``separator``."""
    names = [(metric, score) for metric in frame.settings["metrics"] for score in frame.scores(metric)]
    overall = frame.overall.to_dict()
    columns = {groups_title(frame): ["overall", *map(group_text, frame.by_group.index)]}
    for (metric, score), column in zip(names, frame.by_group, strict=True):
        share = score in SHARES
        parts = [metric, *([score] if score != metric else []), *(["(%)"] if share else [])]
        bounds = [""] * len(frame.by_group)
        if intervals is not None:
            table = intervals.by_group.loc[str(column)]
            bounds = [f" {text}" if text else "" for text in _bounds_text(table["low"], table["high"], share=share)]
        cells = [number(value, share=share) + text for value, text in zip(frame.by_group[column], bounds, strict=True)]
        columns[separator.join(parts)] = [number(overall[column], share=share), *cells]
    return columns


def _disparities(frame: GenerativeMetricFrame, intervals: FrameIntervals | None) -> dict[str, list[str]]:
    beside = [] if intervals is None else ["[low, high]"]
    columns: dict[str, list[str]] = {
        name: [] for name in ("metric", "disparity", "value", *beside, "unit", "larger in", "smaller in")
    }
    for row in frame.disparities().reset_index().to_dict("records"):
        share = row["metric"] == "proportions" or row["disparity"] in SHARE_DISPARITIES
        cells = [
            row["metric"],
            row["disparity"],
            number(row["value"], share=share),
            *([] if intervals is None else [_disparity_bounds(intervals, row, share=share)]),
            "points" if share else "",
            *("" if row[side] is None else group_text(row[side]) for side in ("larger", "smaller")),
        ]
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return columns


def _disparity_bounds(intervals: FrameIntervals, row: Mapping[Hashable, Any], *, share: bool) -> str:
    found = intervals.disparities
    if (row["metric"], row["disparity"]) not in found.index:  # a sum of two of very many groups
        return ""
    bounds = found.loc[[(row["metric"], row["disparity"])]]
    return _bounds_text(bounds["low"], bounds["high"], share=share)[0]


def _bounds_text(low: Iterable[float], high: Iterable[float], *, share: bool) -> list[str]:
    """``[low, high]`` for each, empty where they are unknown."""
    return [
        "" if math.isnan(a + b) else f"[{number(a, share=share)}, {number(b, share=share)}]"
        for a, b in zip(low, high, strict=True)
    ]


def _interval_notes(intervals: FrameIntervals | None) -> list[str]:
    if intervals is None:
        return []
    return [
        f"[low, high]: {100 * intervals.level:g} % intervals of what the number would be on average over samples of "
        "this size, projections and bootstraps; a disparity whose interval starts at 0 may be chance. Approximate: it "
        "is not yet shown that they hold as often as their level says (benchmarks/results/calibration.md)"
    ]


def _groups(frame: GenerativeMetricFrame) -> dict[str, list[str]]:
    counts, unassigned = frame.group_counts, frame.unassigned
    return {
        groups_title(frame): [*map(group_text, counts.index), "in no group"],
        "real": [*map(str, counts["n_real"]), str(unassigned["real"])],
        "fake": [*map(str, counts["n_fake"]), str(unassigned["fake"])],
        "real (%)": [*(number(value, share=True) for value in counts["real_proportion"]), ""],
        "fake (%)": [*(number(value, share=True) for value in counts["fake_proportion"]), ""],
    }


def method_notes(frame: GenerativeMetricFrame, provenance: Mapping[str, Any]) -> list[str]:
    notes = []
    for metric, description in frame.settings["metrics"].items():
        result = frame.overall_results[metric]
        fields = result.to_dict() if isinstance(result, MetricResult) else {}
        options = [f"{name}={fields[name]!r}" for name in _OPTIONS if name in fields and f"{name}=" not in description]
        backend = [f"backend={fields['backend']!r}"] if fields else []
        notes.append(f"{metric}: " + ", ".join([description, *options, *backend]))
    notes += [f"{name}: {fact(value)}" for name, value in provenance.items()]
    return [*notes, f"random_state={frame.settings['random_state']}, egtmetrics {__version__}"]


def fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={fact(item)}" for name, item in value.items() if item is not None)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def groups_title(frame: GenerativeMetricFrame) -> str:
    return ", ".join(map(str, frame.by_group.index.names))


def number(value: float, *, share: bool) -> str:
    return f"{100 * value:.2f}" if share else f"{value:.4g}"


def _is_number(cell: str) -> bool:
    try:
        float(cell.partition(" [")[0].rstrip("*†") or "nan")
    except ValueError:
        return False
    return True
