"""A frame as text: for the terminal, for Markdown, for LaTeX, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

from tabulate import tabulate

from egtmetrics import __version__
from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.results import MetricResult

Format = Literal["table", "markdown", "latex", "json"]

_TABLE_STYLES = {"table": "simple", "markdown": "pipe", "latex": "latex_booktabs"}
_SHARES = ("precision", "recall", "f1", "coverage", "clipped_density", "clipped_coverage")
"""Scores in [0, 1], which are printed in percent as in the paper; others are printed as they are."""
_SHARE_DISPARITIES = ("delta_p", "delta_r", "delta_pr", "delta_p_plus_delta_r", *(f"delta_{name}" for name in _SHARES))
_OPTIONS = ("alpha", "n_bootstrap", "n_projections", "n_neighbors", "ties", "cover_factor", "n_subsets", "subset_size")
"""Fields of results that say how a score was computed."""


def render(
    frame: GenerativeMetricFrame, *, format: Format = "table", provenance: Mapping[str, Any] | None = None
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
    if format not in get_args(Format):
        raise ValueError(f"format={format!r} is unknown; choose one of {', '.join(map(repr, get_args(Format)))}")
    if format == "json":
        content = {"egtmetrics": __version__, **(provenance or {}), **frame.to_dict()}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    sections = {
        "Scores": _scores(frame, "\n" if format == "table" else " "),
        "Disparities between groups": _disparities(frame),
        "Groups": _groups(frame),
    }
    notes = _notes(frame, provenance or {})
    parts = [_section(title, table, format) for title, table in sections.items()]
    mark = {"table": "", "markdown": "- ", "latex": "% "}[format]
    return "\n\n".join([*parts, "\n".join(f"{mark}{note}" for note in notes)]) + "\n"


def group_text(label: Hashable) -> str:
    """Return the label of a group, or the labels of an intersection, as text."""
    return ", ".join(map(str, label)) if isinstance(label, tuple) else str(label)


def _section(title: str, columns: Mapping[str, Sequence[str]], format: Format) -> str:
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


def _scores(frame: GenerativeMetricFrame, separator: str) -> dict[str, list[str]]:
    """Overall and one row per group; the parts of a column's name are joined by ``separator``."""
    names = [(metric, score) for metric in frame.settings["metrics"] for score in frame.scores(metric)]
    overall = frame.overall.to_dict()
    columns = {_groups_title(frame): ["overall", *map(group_text, frame.by_group.index)]}
    for (metric, score), column in zip(names, frame.by_group, strict=True):
        share = score in _SHARES
        parts = [metric, *([score] if score != metric else []), *(["(%)"] if share else [])]
        values = [overall[column], *frame.by_group[column]]
        columns[separator.join(parts)] = [_number(value, share=share) for value in values]
    return columns


def _disparities(frame: GenerativeMetricFrame) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {
        name: [] for name in ("metric", "disparity", "value", "unit", "larger in", "smaller in")
    }
    for row in frame.disparities().reset_index().to_dict("records"):
        share = row["metric"] == "proportions" or row["disparity"] in _SHARE_DISPARITIES
        cells = [
            row["metric"],
            row["disparity"],
            _number(row["value"], share=share),
            "points" if share else "",
            *("" if row[side] is None else group_text(row[side]) for side in ("larger", "smaller")),
        ]
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return columns


def _groups(frame: GenerativeMetricFrame) -> dict[str, list[str]]:
    counts, unassigned = frame.group_counts, frame.unassigned
    return {
        _groups_title(frame): [*map(group_text, counts.index), "in no group"],
        "real": [*map(str, counts["n_real"]), str(unassigned["real"])],
        "fake": [*map(str, counts["n_fake"]), str(unassigned["fake"])],
        "real (%)": [*(_number(value, share=True) for value in counts["real_proportion"]), ""],
        "fake (%)": [*(_number(value, share=True) for value in counts["fake_proportion"]), ""],
    }


def _notes(frame: GenerativeMetricFrame, provenance: Mapping[str, Any]) -> list[str]:
    notes = []
    for metric, description in frame.settings["metrics"].items():
        result = frame.overall_results[metric]
        fields = result.to_dict() if isinstance(result, MetricResult) else {}
        options = [f"{name}={fields[name]!r}" for name in _OPTIONS if name in fields and f"{name}=" not in description]
        backend = [f"backend={fields['backend']!r}"] if fields else []
        notes.append(f"{metric}: " + ", ".join([description, *options, *backend]))
    notes += [f"{name}: {_fact(value)}" for name, value in provenance.items()]
    return [*notes, f"random_state={frame.settings['random_state']}, egtmetrics {__version__}"]


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_fact(item)}" for name, item in value.items() if item is not None)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _groups_title(frame: GenerativeMetricFrame) -> str:
    return ", ".join(map(str, frame.by_group.index.names))


def _number(value: float, *, share: bool) -> str:
    return f"{100 * value:.2f}" if share else f"{value:.4g}"


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
