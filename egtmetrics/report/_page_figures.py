"""The figures of a page: inline SVG with real text, narrow enough for a phone."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import re
import warnings
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from egtmetrics.groups import DoseResponse, GenerativeMetricFrame, ScoreTable, ViewComparison
from egtmetrics.labels import group_text
from egtmetrics.plots import (
    COLORS,
    UNRELIABLE_COLOR,
    add_legend,
    draw_rows,
    figure_class,
    new_axes,
    plot_precision_recall,
    printed_scale,
    root_figure,
    short,
    tidy,
)
from egtmetrics.report._page_parts import Gap, Inference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (4.7, 4.4)
"""Inches: 338 pixels in a browser, the width of a phone."""
_NAMES = re.compile(r'\bid="|\bhref="#|url\(#')
"""What stands before a name in a tag of SVG; a label may hold the same outside of tags."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure for the page; ``svg`` is markup."""

    svg: Any
    caption: str


@contextlib.contextmanager
def plain_text_figures() -> Iterator[None]:
    """Take names literally, dollars included; let the reader's browser choose the fonts; draw the same each time."""
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
    svg = re.sub(r"<[^>]*>", lambda tag: _NAMES.sub(rf"\g<0>{name}-", tag[0]), svg)  # unique in the page
    label = escape(f"{caption} The numbers are in the tables.")
    return Drawing(svg=Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)), caption=caption)


def draw_precision_recall(frame: GenerativeMetricFrame, inference: Inference) -> Drawing | None:
    """Draw the first metric that has both scores, the groups joined by a line as in the paper's Figure 2."""
    both = ["precision", "recall"]
    for metric in frame.settings["metrics"]:
        table = frame.tables[metric]
        if set(both) <= set(table.described) and table.values[both].notna().all(axis=1).any():
            break
    else:
        return None
    axes = plot_precision_recall(frame, metric=metric, ax=new_axes(_SIZE))
    groups: list[Hashable] = table.values[both].dropna().index.tolist()
    handles = list(axes.collections)
    legend: Any = axes.get_legend()
    title = legend.get_title().get_text()
    legend.remove()  # beside the axes it takes too much of a phone's width
    labels = [short(group_text(group)) for group in groups]
    columns = max(1, min(len(labels), 48 // (4 + max(map(len, labels)))))
    figure = root_figure(axes)
    add_legend(figure, handles, labels, title=title, loc="outside lower center", ncols=columns)
    best = " Up and to the right is better." if all(table.described[name].better == "higher" for name in both) else ""
    caption = (
        f"{frame.title(metric)}: precision against recall of each group. A dashed line joins the groups: the shorter "
        f"it is, the more alike they are.{best}"
    )
    doubtful = ", ".join(group_text(group) for group in groups if group in table.caveats)
    if doubtful:
        caption += f" The grey points, of {doubtful}, cannot be relied on."
    if inference.intervals is not None:
        _add_crosses(axes, table, groups, handles, inference)
        caption += f" The bars are {inference.level:.0%} intervals of each score."
    return _drawing(figure, "pr", caption)


def _add_crosses(
    axes: Axes, table: ScoreTable, groups: Sequence[Hashable], handles: Sequence[Any], inference: Inference
) -> None:
    limits = [list(axes.get_xlim()), list(axes.get_ylim())]
    scales = [printed_scale(table.described[name]) for name in ("precision", "recall")]
    for group, handle in zip(groups, handles, strict=True):
        errors: list[Any] = [None, None]
        point = []
        for axis, (name, scale) in enumerate(zip(("precision", "recall"), scales, strict=True)):
            value = scale * table.values[name].to_dict()[group]
            point.append(value)
            bounds = inference.score_bounds(table.column(name), group)
            if bounds is None:
                continue
            low, high = (scale * bound for bound in bounds)
            errors[axis] = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
            room = 0.03 * (limits[axis][1] - limits[axis][0])
            limits[axis] = [min(limits[axis][0], low - room), max(limits[axis][1], high + room)]
        x, y = point
        color = handle.get_facecolor()[0]
        axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], color=color, linewidth=1.3, zorder=2.5)
    axes.set(xlim=limits[0], ylim=limits[1])


def draw_gaps(gaps: Sequence[Gap], inference: Inference, name: str = "gaps") -> Drawing | None:
    """Draw the gaps with their intervals: one panel for those in points, and one for each with a unit of its own."""
    drawn = [gap for gap in gaps if math.isfinite(gap.pair.value)]
    shares = [gap for gap in drawn if gap.disparity.score.percent]
    panels = [*([shares] if shares else []), *([gap] for gap in drawn if not gap.disparity.score.percent)]
    if not panels:
        return None
    heights = [0.72 + 0.3 * len(panel) for panel in panels]
    figure = figure_class()(figsize=(_SIZE[0], sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(grid[i])
        score = panel[0].disparity.score
        scale = printed_scale(score)
        draw_rows(
            axes,
            [f"{gap.table.metric}: {gap.disparity.label}" for gap in panel],
            scale * np.array([gap.pair.value for gap in panel]),
            scale * np.array([gap.interval or (math.nan, math.nan) for gap in panel]),
            colors=[
                COLORS[1] if gap.beyond_noise else COLORS[0] if gap.reliable else UNRELIABLE_COLOR for gap in panel
            ],
            hollow=[gap.beyond_noise is False or not gap.reliable for gap in panel],
        )
        axes.axvline(0, color="0.35", linewidth=1, zorder=1)
        axes.locator_params(axis="x", nbins=5)  # numbers such as 0.0005 are wide
        axes.set_xlabel(f"gap in {score.difference_unit}" if score.difference_unit else "gap, in its own unit")
    caption = f"The largest {'gaps' if name == 'gaps' else 'differences of the excess'} between two groups"
    doubt = "" if all(gap.reliable for gap in drawn) else " Grey dots cannot be relied on."
    if inference.intervals is None:
        return _drawing(figure, name, f"{caption}. There are no intervals.{doubt}")
    caption += f", with {inference.level:.0%} intervals."
    if inference.tests is not None:
        caption += " Filled dots: more than noise. Hollow dots: not distinguishable from noise."
    return _drawing(figure, name, caption + doubt)


def draw_doses(response: DoseResponse, frame: GenerativeMetricFrame) -> Drawing:
    """Draw the curves of the damage that explains the scores, one panel for each metric: its first score with doses."""
    tables = response.tables()
    figure = figure_class()(figsize=(_SIZE[0], 0.5 + 2.6 * len(tables)), layout="constrained")
    for i, table in enumerate(tables.values()):
        axes = figure.add_subplot(len(tables), 1, i + 1)
        response.plot(table.column(str(table.disparities[0].column)), ax=axes)
        axes.set_title(frame.title(table.metric), loc="left", fontsize="medium", parse_math=False)
        legend: Any = axes.get_legend()
        legend.remove()  # one for all panels; beside the axes it takes too much of a phone's width
    _add_below(figure, legend)
    caption = (
        "Curves: scores of damaged real samples. Large marks: the model, at the dose at which the curve of its group "
        "has its score. Bars: 95% intervals of the dose; an arrow says that there is no upper end, a hollow mark that "
        "no dose is read."
    )
    return _drawing(figure, "dose", caption)


def _add_below(figure: Figure, legend: Any) -> None:
    """Add what a legend says below all axes."""
    labels = [text.get_text() for text in legend.get_texts()]
    title = legend.get_title().get_text()
    columns = max(1, min(len(labels), 48 // (4 + max(map(len, labels)))))
    add_legend(figure, legend.legend_handles, labels, title=title, loc="outside lower center", ncols=columns)


def draw_views(views: ViewComparison) -> Drawing:
    """Draw the gaps under several encoders."""
    axes = views.plot(ax=new_axes((_SIZE[0], 1.4 + 0.3 * len(views.gaps))))
    axes.set_xlabel("largest gap, in its standard errors")
    legend: Any = axes.get_legend()
    legend.remove()
    _add_below(root_figure(axes), legend)
    caption = (
        f"The largest gap between two groups under each {views.of}, in its standard errors, in the colour of the group "
        "that it is against. Hollow: within noise."
    )
    return _drawing(root_figure(axes), "views", caption)


def draw_proportions(names: Sequence[str], counts: pd.DataFrame) -> Drawing:
    figure = figure_class()(figsize=(_SIZE[0], 1.0 + 0.5 * len(names)), layout="constrained")
    axes = figure.add_subplot()
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
    tidy(axes, grid="x")
    axes.set_yticks(y, list(map(short, names)), parse_math=False)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="share of the samples (%)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _drawing(figure, "shares", "Proportions of the groups among the real and the generated samples.")
