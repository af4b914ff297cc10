"""The figures of a page: inline SVG whose text is text, drawn narrow, so that a phone need not shrink them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.report._page_parts import Gap, Inference, gap_name, metric_name
from egtmetrics.report.figures import COLORS, add_legend, figure_class, plot_precision_recall
from egtmetrics.report.tables import group_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (4.7, 4.4)
"""Inches: 338 pixels of a browser are as wide as a phone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure for the page; ``svg`` is markup."""

    svg: Any
    caption: str


@contextlib.contextmanager
def plain_text_figures() -> Iterator[None]:
    """Take names as they are, dollars included; leave text to the fonts of the reader; draw the same each time."""
    import matplotlib as mpl

    settings: Any = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "egtmetrics"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _drawing(figure: Figure, name: str, caption: str) -> Drawing:
    from markupsafe import Markup, escape

    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), transparent=True
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(\bid="|(?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", svg
    )  # names are unique in a page, not a figure
    label = escape(f"{caption} The numbers are in the tables.")
    return Drawing(svg=Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)), caption=caption)


def _axes(figure: Figure, position: Any) -> Axes:
    axes = figure.add_subplot(position)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return axes


def draw_precision_recall(frame: GenerativeMetricFrame, inference: Inference) -> Drawing | None:
    """Draw the first metric that has both, the groups joined by a line as in the paper's Figure 2."""
    for metric in frame.settings["metrics"]:
        scores = frame.scores(metric)
        if {"precision", "recall"} <= set(scores) and scores[["precision", "recall"]].notna().all(axis=1).any():
            break
    else:
        return None
    figure = plot_precision_recall(frame, metric=metric)
    figure.set_size_inches(*_SIZE)
    (axes,) = figure.axes
    groups = frame.scores(metric)[["precision", "recall"]].dropna().index
    handles = list(axes.collections)
    title = figure.legends[0].get_title().get_text()
    figure.legends[0].remove()  # beside the axes it would leave them no room on a phone
    labels = [group_text(group) for group in groups]
    columns = max(1, min(len(labels), 48 // (4 + max(map(len, labels)))))
    add_legend(figure, handles, labels, title=title, loc="outside lower center", ncols=columns)
    caption = (
        f"{metric_name(frame, metric)}: precision against recall of each group. The dashed line joins the groups: the "
        "shorter it is, the more alike they are treated; up and to the right is better."
    )
    if inference.intervals is not None:
        _add_crosses(axes, frame.by_group[[f"{metric}_precision", f"{metric}_recall"]].loc[groups], handles, inference)
        caption += f" Crosses are {inference.level:.0%} intervals of each score."
    return _drawing(figure, "pr", caption)


def _add_crosses(axes: Axes, scores: pd.DataFrame, handles: Sequence[Any], inference: Inference) -> None:
    limits = [list(axes.get_xlim()), list(axes.get_ylim())]
    for (group, values), handle in zip(scores.iterrows(), handles, strict=True):
        errors: list[Any] = [None, None]
        for axis, (column, value) in enumerate(values.items()):
            bounds = inference.score_bounds(str(column), group)
            if bounds is None:
                continue
            low, high = (100 * bound for bound in bounds)
            errors[axis] = [[max(100 * value - low, 0.0)], [max(high - 100 * value, 0.0)]]
            room = 0.03 * (limits[axis][1] - limits[axis][0])
            limits[axis] = [min(limits[axis][0], low - room), max(limits[axis][1], high + room)]
        color = handle.get_facecolor()[0]
        x, y = 100 * values
        axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], color=color, linewidth=1.3, zorder=2.5)
    axes.set(xlim=limits[0], ylim=limits[1])


def draw_gaps(gaps: Sequence[Gap], inference: Inference) -> Drawing | None:
    """Draw a forest plot: one panel for gaps in points, and one for each score with a unit of its own."""
    drawn = [gap for gap in gaps if math.isfinite(gap.value)]
    panels = [[gap for gap in drawn if gap.share], *([gap] for gap in drawn if not gap.share)]
    panels = [panel for panel in panels if panel]
    if not panels:
        return None
    heights = [0.72 + 0.3 * len(panel) for panel in panels]
    figure = figure_class()(figsize=(_SIZE[0], sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for i, panel in enumerate(panels):
        axes = _axes(figure, grid[i])
        scale = 100 if panel[0].share else 1
        for y, gap in enumerate(panel):
            color = COLORS[1] if gap.beyond_noise else COLORS[0]
            if gap.interval is not None:
                axes.plot([scale * bound for bound in gap.interval], [y, y], color=color, linewidth=2)
            face = "white" if gap.beyond_noise is False else color
            axes.plot(scale * gap.value, y, "o", markersize=7, color=color, markerfacecolor=face)
        axes.axvline(0, color="0.35", linewidth=1, zorder=1)
        axes.grid(axis="x", color="0.9", linewidth=0.8)
        axes.set_yticks(range(len(panel)), [f"{gap.metric}: {gap_name(gap)}" for gap in panel])
        axes.set(ylim=(len(panel) - 0.4, -0.6), xlabel="gap in points" if panel[0].share else "gap, in its own unit")
    if inference.intervals is None:
        return _drawing(figure, "gaps", "The largest gaps between two groups. There are no intervals.")
    return _drawing(
        figure,
        "gaps",
        f"The largest gaps between two groups, with {inference.level:.0%} intervals. Filled: more than noise. Hollow: "
        "may be chance.",
    )


def draw_proportions(names: Sequence[str], counts: pd.DataFrame) -> Drawing:
    figure = figure_class()(figsize=(_SIZE[0], 1.0 + 0.5 * len(names)), layout="constrained")
    axes = _axes(figure, 111)
    y = np.arange(len(names))
    for side, offset, color, hatch in (("real", -0.18, "0.55", "///"), ("fake", 0.18, COLORS[0], None)):
        label = {"real": "real", "fake": "generated"}[side]
        axes.barh(
            y + offset,
            100 * counts[f"{side}_proportion"],
            0.34,
            color=color,
            hatch=hatch,
            edgecolor="white",
            label=label,
        )
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_yticks(y, names)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="share of the samples (%)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _drawing(figure, "shares", "Proportions of the groups among the real and the generated samples.")
