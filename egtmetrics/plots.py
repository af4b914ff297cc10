"""Figures: precision against recall of every group, scores side by side, disparities with their intervals.

Every ``plot_*`` function takes ``ax=``, matplotlib axes to draw on, and returns the axes; without it, it makes new ones
that are free of pyplot: save them with :func:`save_figure`, or show ``ax.figure`` in a notebook, after ``%matplotlib
inline``. Labels, units and percent signs are those that the scores declare. What cannot be relied on
(``frame.caveats``) is grey.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._atomic import write_whole
from egtmetrics._text import shown
from egtmetrics.labels import group_text
from egtmetrics.results import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, distinct for every common kind of colour vision, without its yellow, which is too
light."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""One more than the colours, so that a pair of colour and marker repeats only after 56 groups."""

UNRELIABLE_COLOR = "0.68"
"""The grey of what cannot be relied on."""
_UNRELIABLE_NOTE = "cannot be relied on"

_LONGEST_NAME = 44
_LONGEST_IN_LEGEND = 28
"""Characters; longer names would leave the axes no room."""

_AXES = ("precision", "recall")
_SHARES = {name: Score(label=name, better="higher", bounds=(0.0, 1.0), percent=True) for name in _AXES}
"""How the columns of a plain DataFrame are described."""


class Tabled(Protocol):
    """A :class:`~egtmetrics.GenerativeMetricFrame`.

    Its tables hold ``values`` by group with scores ``described``, and the ``caveats`` of groups.
    """

    @property
    def tables(self) -> Mapping[str, Any]: ...


def plot_precision_recall(
    models: Tabled | pd.DataFrame | Mapping[str, Tabled | pd.DataFrame],
    *,
    metric: str | None = None,
    title: str | None = None,
    hollow: Collection[tuple[str, Hashable]] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw each group of each model at its precision (x) and recall (y), with a line that joins the groups of a model.

    A model with a short line treats its groups alike; where the line lies says how good the model is for them (the
    paper's Figure 2).

    Parameters
    ----------
    models
        A frame, or one frame per model under the name to print. In place of a frame, a DataFrame with one row per
        group and the columns ``precision`` and ``recall``, in [0, 1].
    metric
        Which metric of the frames; None takes the first with scores named ``precision`` and ``recall``.
    title
        Printed above the axes.
    hollow
        Pairs of model and group to draw as hollow points: those that may differ from the first model by chance only.
        The legend explains it, as it explains the grey of points that cannot be relied on.
    ax
        Axes to draw on, instead of new ones.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        matplotlib is missing.
    ValueError
        A model has no precision and recall, or no finite ones.

    Examples
    --------
    >>> import pandas as pd
    >>> by_group = pd.DataFrame({"precision": [0.95, 0.97], "recall": [0.92, 0.88]}, index=["male", "female"])
    >>> ax = plot_precision_recall({"EDM": by_group})
    >>> ax.get_xlabel()
    'precision (%)'
    """
    named: Mapping[str, Any] = models if isinstance(models, Mapping) else {"": models}
    found = {name: _precision_recall(model, metric, name) for name, model in named.items()}
    if not found:
        raise ValueError("models is empty, expected at least one frame to draw")
    points = {name: scores for name, (scores, _, _) in found.items()}
    described = next(iter(found.values()))[1]
    grey = {(name, group) for name, (_, _, doubtful) in found.items() for group in doubtful}
    white = set(hollow) - grey
    groups = list(dict.fromkeys(group for scores in points.values() for group in scores.index))

    axes = new_axes((5.6, 4.4)) if ax is None else ax
    axes.set_xlabel(axis_label(described["precision"]), parse_math=False)
    axes.set_ylabel(axis_label(described["recall"]), parse_math=False)
    tidy(axes, grid="both")
    if title is not None:
        axes.set_title(title, parse_math=False)
    for scores in points.values():
        axes.plot(scores["precision"], scores["recall"], linestyle="--", color="0.6", linewidth=1.2, zorder=2)
    handles: list[Any] = []
    for rank, group in enumerate(groups):
        here = {name: scores.loc[group] for name, scores in points.items() if group in scores.index}
        color, marker = COLORS[rank % len(COLORS)], _MARKERS[rank % len(_MARKERS)]
        colors = [UNRELIABLE_COLOR if (name, group) in grey else color for name in here]
        is_hollow = [(name, group) in white for name in here]
        axes.scatter(
            [point["precision"] for point in here.values()],
            [point["recall"] for point in here.values()],
            s=56,
            marker=marker,
            facecolors=["white" if inside else own for own, inside in zip(colors, is_hollow, strict=True)],
            edgecolors=[own if inside else "white" for own, inside in zip(colors, is_hollow, strict=True)],
            linewidths=[1.6 if inside else 0.8 for inside in is_hollow],
            zorder=3,
        )
        handles.append(_legend_point(marker, color, "white"))
    _zoom(axes, pd.concat(list(points.values())), described)
    feature_names = [str(name) for name in next(iter(points.values())).index.names if name is not None]
    labels = [short(group_text(group), _LONGEST_IN_LEGEND) for group in groups]
    if any((name, group) in white for name, scores in points.items() for group in scores.index):
        handles.append(_legend_point("o", "white", "0.4"))
        labels.append(textwrap.fill(f"may differ from {short(next(iter(points)))} by chance only", width=18))
    if any((name, group) in grey for name, scores in points.items() for group in scores.index):
        handles.append(_legend_point("o", UNRELIABLE_COLOR, "white"))
        labels.append(_UNRELIABLE_NOTE)
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0.0}
    add_legend(axes, handles, labels, title=", ".join(feature_names), **beside)
    if isinstance(models, Mapping):
        _label_models(axes, {name: scores.to_numpy() for name, scores in points.items()})
    return axes


def plot_scores(
    values: pd.Series[float],
    score: Score,
    *,
    overall: float,
    bounds: pd.DataFrame | None = None,
    unreliable: Collection[Hashable | None] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw the score of every group as a dot, one row per group, with a dashed line for the score of all samples.

    Parameters
    ----------
    values
        One score per group; a group with NaN has a row without a dot.
    score
        What the scores are: it gives the label, the unit and whether they are in percent.
    overall
        The score of all samples.
    bounds
        ``low`` and ``high`` of an interval, one row per group in the order of ``values``, to draw as a bar.
    unreliable
        Groups whose score cannot be relied on; None among them stands for all samples.
    ax
        Axes to draw on, instead of new ones.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> ax = plot_scores(pd.Series({"f": 0.9, "m": 0.7}), Score(label="recall", percent=True), overall=0.8)
    >>> ax.get_xlabel(), [label.get_text() for label in ax.get_yticklabels()]
    ('recall (%)', ['f', 'm'])
    """
    axes = new_axes((5.6, 1.0 + 0.35 * len(values))) if ax is None else ax
    scale = printed_scale(score)
    intervals = None if bounds is None else scale * bounds[["low", "high"]].to_numpy(dtype=float)
    axes.axvline(scale * overall, color="0.35", linestyle="--", linewidth=1, zorder=1)
    axes.annotate(
        f"overall ({_UNRELIABLE_NOTE})" if None in unreliable else "overall",
        (scale * overall, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize="small",
        color="0.35",
    )
    names = [group_text(group) for group in values.index]
    doubtful = [group in unreliable for group in values.index]
    _draw_marked_rows(axes, names, scale * values.to_numpy(dtype=float), intervals, doubtful)
    axes.set_xlabel(axis_label(score), parse_math=False)
    return axes


def plot_disparities(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw every disparity as a dot with its interval as a bar, one row each: does the bar start at 0?

    The disparities of different metrics have different units, so every metric has a scale of its own, and the numbers
    are printed at the right.

    Parameters
    ----------
    table
        Indexed by ``(metric, disparity)``, with the columns ``value``, ``low``, ``high`` and, if some cannot be relied
        on, ``reliable``: ``disparities`` of what
        :meth:`GenerativeMetricFrame.interval <egtmetrics.GenerativeMetricFrame.interval>` returned.
    ax
        Axes to draw on, instead of new ones.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> rows = pd.MultiIndex.from_tuples([("ipr", "delta_p"), ("fid", "delta_fid")], names=["metric", "disparity"])
    >>> table = pd.DataFrame({"value": [0.2, 31.0], "low": [0.1, 0.0], "high": [0.3, 50.0]}, index=rows)
    >>> [label.get_text() for label in plot_disparities(table).get_yticklabels()]
    ['ipr: delta_p', 'fid: delta_fid']
    """
    axes = new_axes((6.4, 0.9 + 0.35 * len(table))) if ax is None else ax
    numbers = table[["value", "low", "high"]].astype(float)
    largest = numbers.abs().max(axis=1).groupby(level="metric").transform("max")
    scaled = numbers.div(largest.where(largest > 0, 1.0), axis=0)
    names = [f"{metric}: {disparity}" for metric, disparity in table.index]
    doubtful = [not reliable for reliable in table.get("reliable", [True] * len(table))]
    _draw_marked_rows(axes, names, scaled["value"].to_numpy(), scaled[["low", "high"]].to_numpy(), doubtful)
    axes.axvline(0, color="0.35", linewidth=1, zorder=1)
    for y, (value, low, high) in enumerate(numbers.itertuples(index=False)):
        text = f"{value:.3g}" if math.isnan(low + high) else f"{value:.3g}  [{low:.3g}, {high:.3g}]"
        axes.annotate(text, (1.03, y), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    axes.set_xticks([0.0], ["0"])
    axes.set(xlim=(-0.04, 1.06), xlabel="largest difference between two groups, each metric on its own scale")
    return axes


def plot_views(gaps: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw gaps of the same samples under several encoders or options, in their standard errors, one row each.

    The colour is that of the group that the gap is against. A hollow point is within noise.

    Parameters
    ----------
    gaps
        Indexed by ``(metric, view)``, with the columns ``in_errors``, ``against``, ``beyond_noise`` and ``reliable``:
        ``gaps`` of what :func:`~egtmetrics.groups.compare_views` returned. A gap of NaN has a row without a point.
    ax
        Axes to draw on, instead of new ones.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["fid"], ["dinov2", "clip"]], names=["metric", "encoder"])
    >>> gaps = pd.DataFrame({"in_errors": [6.1, 0.4], "against": ["f", "m"], "beyond_noise": [True, False],
    ...                      "reliable": [True, True]}, index=index)
    >>> ax = plot_views(gaps)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['fid: dinov2', 'fid: clip']
    """
    axes = new_axes((6.4, 1.1 + 0.35 * len(gaps))) if ax is None else ax
    groups = list(dict.fromkeys(group for group in gaps["against"] if group is not None))
    color_of = {group: COLORS[rank % len(COLORS)] for rank, group in enumerate(groups)}
    colors = [
        color_of.get(group, UNRELIABLE_COLOR) if reliable else UNRELIABLE_COLOR
        for group, reliable in zip(gaps["against"], gaps["reliable"], strict=True)
    ]
    names = [f"{metric}: {view}" for metric, view in gaps.index]
    hollow = (~gaps["beyond_noise"].astype(bool)).tolist()
    draw_rows(axes, names, gaps["in_errors"].to_numpy(dtype=float), colors=colors, hollow=hollow)
    axes.axvline(0, color="0.35", linewidth=1, zorder=1)
    axes.set_xlabel("largest gap between two groups, in its standard errors")
    entries = [(_legend_point("o", color_of[group], "white"), group_text(group)) for group in groups]
    if any(hollow):
        entries.append((_legend_point("o", "white", "0.35"), "within noise"))
    if not gaps["reliable"].all():
        entries.append((_legend_point("o", UNRELIABLE_COLOR, "white"), _UNRELIABLE_NOTE))
    labels = [short(label, _LONGEST_IN_LEGEND) for _, label in entries]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0.0}
    add_legend(axes, [handle for handle, _ in entries], labels, title="against", **place)
    return axes


def plot_dose_response(
    curves: Mapping[Hashable, pd.Series[float]],
    scores: Mapping[Hashable, pd.Series[float]],
    read: pd.DataFrame,
    *,
    score: Score,
    dose: Score,
    ax: Axes | None = None,
) -> Axes:
    """Draw a score against the dose of known damage, a curve for each group, and what the model's score reads there.

    A large mark is the model: at its score, and at the dose at which the curve of its group has that score. A bar is
    the interval of the dose; where it has no upper end, it ends in an arrow. A hollow mark at the edge has no dose.

    Parameters
    ----------
    curves
        By group, the fitted score, indexed by dose.
    scores
        By group, the scores that the curve was fitted to, indexed by dose; they are drawn as small dots.
    read
        One row per group in the same order: ``score``, ``dose``, ``low`` and ``high``. Infinity is no upper end, a dose
        of NaN no reading.
    score, dose
        What the two axes are.
    ax
        Axes to draw on, instead of new ones.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> curve = pd.Series([0.9, 0.7, 0.5], index=[0.0, 0.2, 0.4])
    >>> read = pd.DataFrame({"score": [0.8], "dose": [0.1], "low": [0.05], "high": [0.15]}, index=["f"])
    >>> precision, off = (Score(label=label, percent=True) for label in ("precision", "samples off the data"))
    >>> ax = plot_dose_response({"f": curve}, {"f": curve}, read, score=precision, dose=off)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('samples off the data (%)', 'precision (%)')
    """
    axes = new_axes((6.4, 4.0)) if ax is None else ax
    along, up = printed_scale(dose), printed_scale(score)
    end = along * max(float(curve.index.max()) for curve in curves.values())
    handles = []
    for rank, (group, curve) in enumerate(curves.items()):
        color, marker = COLORS[rank % len(COLORS)], _MARKERS[rank % len(_MARKERS)]
        axes.plot(along * curve.index.to_numpy(), up * curve.to_numpy(), color=color, linewidth=1.2)
        dots = scores[group]
        axes.plot(along * dots.index.to_numpy(), up * dots.to_numpy(), ".", color=color, markersize=4)
        row = read.iloc[rank]
        y, low, high = up * row["score"], along * row["low"], along * row["high"]
        known = math.isfinite(row["dose"])
        if math.isfinite(low):
            axes.plot([low, min(high, end)], [y, y], color=color, linewidth=3, alpha=0.5, solid_capstyle="butt")
        if not high <= end:
            axes.plot(end, y, ">", color=color, markersize=5, alpha=0.5, clip_on=False)
        axes.plot(
            along * row["dose"] if known else end, y, marker, markersize=8, color=color, clip_on=False,
            markerfacecolor=color if known else "white", markeredgecolor="white" if known else color,
        )  # fmt: skip
        handles.append(_legend_point(marker, color, "white"))
    tidy(axes, grid="both")
    axes.set_xlim(-0.02 * end, 1.02 * end)
    axes.set_xlabel(axis_label(dose), parse_math=False)
    axes.set_ylabel(axis_label(score), parse_math=False)
    names = [short(group_text(group), _LONGEST_IN_LEGEND) for group in curves]
    add_legend(
        axes, handles, names, title="the model, for", loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0
    )
    return axes


def draw_rows(
    axes: Axes,
    names: Sequence[str],
    values: NDArray[Any],
    intervals: NDArray[Any] | None = None,
    *,
    colors: Sequence[str] | None = None,
    hollow: Sequence[bool] | None = None,
) -> None:
    """Draw a dot for each value, one row each from the top, with its interval ``(n, 2)`` as a bar; NaN is left out."""
    for y, value in enumerate(values):
        color = COLORS[0] if colors is None else colors[y]
        if intervals is not None and np.isfinite(intervals[y]).all():
            axes.plot(intervals[y], [y, y], color=color, linewidth=2, solid_capstyle="butt")
        face = "white" if hollow is not None and hollow[y] else color
        axes.plot(value, y, "o", markersize=7, color=color, markerfacecolor=face)
    tidy(axes, grid="x")
    axes.set_yticks(range(len(names)), list(map(short, names)), parse_math=False)
    axes.set(ylim=(len(names) - 0.4, -0.6))


def _draw_marked_rows(
    axes: Axes, names: Sequence[str], values: NDArray[Any], intervals: NDArray[Any] | None, doubtful: Sequence[bool]
) -> None:
    """Draw rows, those in doubt in grey, which the legend explains."""
    colors = [UNRELIABLE_COLOR if doubt else COLORS[0] for doubt in doubtful]
    draw_rows(axes, names, values, intervals, colors=colors)
    if any(doubtful):
        from matplotlib.transforms import offset_copy

        below = offset_copy(axes.transAxes, root_figure(axes), y=-36, units="points")  # the label of the x axis
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.0, 0.0), "bbox_transform": below}
        add_legend(axes, [_legend_point("o", UNRELIABLE_COLOR, "white")], [_UNRELIABLE_NOTE], title="", **place)


def printed_scale(score: Score) -> float:
    """Return what a score is multiplied by where it is printed or drawn."""
    return 100.0 if score.percent else 1.0


def axis_label(score: Score) -> str:
    """Return the label of a score with its unit: ``"recall (%)"``."""
    return shown(f"{score.label} ({score.printed_unit})" if score.printed_unit else score.label)


def short(name: str, most: int = _LONGEST_NAME) -> str:
    """Return a name as a figure has room for it: in one line, without the middle if it is long."""
    name = shown(name)
    return name if len(name) <= most else f"{name[: most - 11]}…{name[-10:]}"


def tidy(axes: Axes, *, grid: str) -> None:
    """Draw a light grid along ``"x"``, ``"y"`` or ``"both"`` axes, and no frame at the top and at the right."""
    axes.grid(axis=grid, color="0.92", linewidth=0.8)  # type: ignore[arg-type]  # the stubs want literals
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def add_legend(
    owner: Axes | Figure, handles: Sequence[Any], labels: Sequence[str], *, title: str, **options: Any
) -> None:
    """Add a legend that shows names as they are, even with dollar signs or a leading underscore."""
    title = short(title, _LONGEST_IN_LEGEND)
    legend = owner.legend(handles, ["-"] * len(labels), title=title or None, frameon=False, **options)
    legend.get_title().set_parse_math(False)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)


def _legend_point(marker: str, face: str, edge: str) -> Any:
    from matplotlib.lines import Line2D

    width = 0.8 if edge == "white" else 1.6
    return Line2D(
        [], [], linestyle="", marker=marker, markersize=7.5, markerfacecolor=face, markeredgecolor=edge,
        markeredgewidth=width,
    )  # fmt: skip


def save_figure(figure: Figure | Axes, path: str | Path, *, dpi: float = 200) -> None:
    """Write a figure, or the one that axes belong to, in the format of the suffix: one of ``FIGURE_SUFFIXES``.

    The file is written whole or not at all.

    Raises
    ------
    ValueError
        The suffix names no such format.
    OSError
        The file cannot be written.
    """
    suffix = check_figure_suffix(path)
    whole = root_figure(figure)
    buffer = io.BytesIO()
    whole.savefig(buffer, format=suffix.removeprefix("."), dpi=dpi)
    write_whole(path, buffer.getvalue())


def root_figure(artist: Any) -> Figure:
    """Return the figure that holds an artist, a figure or a subfigure."""
    figure: Figure = artist.figure.figure  # get_figure(root=True) came with matplotlib 3.10
    return figure


def check_figure_suffix(path: str | Path) -> str:
    """Return the suffix of a figure's file; raise ValueError if it is unknown. Call it before a long computation."""
    suffix = Path(path).suffix.lower()
    if suffix not in FIGURE_SUFFIXES:
        raise ValueError(f"{path}: figures are written as {', '.join(FIGURE_SUFFIXES)}; choose one of these suffixes")
    return suffix


def figure_class() -> type[Figure]:
    """Import matplotlib's Figure, without pyplot and its global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib; pip install 'egtmetrics[figures]'") from error
    return Figure


def new_axes(size: tuple[float, float]) -> Axes:
    """Return the axes of a new figure of ``size`` inches."""
    return figure_class()(figsize=size, layout="constrained").add_subplot()


def _precision_recall(
    model: Tabled | pd.DataFrame, metric: str | None, name: str
) -> tuple[pd.DataFrame, Mapping[str, Score], Collection[Hashable]]:
    """Return precision and recall of one model.

    They are as they are printed, one row per group with finite scores; with them come what they are, and the groups
    whose scores cannot be relied on.
    """
    who = f"model {name!r}" if name else "the frame"
    if isinstance(model, pd.DataFrame):
        tables = {name: (model, _SHARES, ())} if set(_AXES) <= set(model) else {}
        known = list(map(str, model))
    else:
        known = [table.column(score) for table in model.tables.values() for score in table.described]
        tables = {
            key: (table.values, table.described, table.caveats)
            for key, table in model.tables.items()
            if set(_AXES) <= set(table.described) and metric in (None, key)
        }
    if not tables:
        of_metric = "" if metric is None else f" of metric {metric!r}"
        raise ValueError(f"{who} has the scores {', '.join(known)}; expected a precision and a recall{of_metric}")
    values, described, doubtful = next(iter(tables.values()))
    scores = values[list(_AXES)].dropna().astype(float)
    if scores.empty:
        raise ValueError(f"{who} has no group with finite precision and recall, so there is nothing to draw")
    return scores * [printed_scale(described[score]) for score in _AXES], described, doubtful


def _zoom(axes: Axes, scores: pd.DataFrame, described: Mapping[str, Score]) -> None:
    """Show the points with room for their names, at least four percentage points, and little beyond the bounds."""
    from matplotlib.ticker import MaxNLocator

    for column, axis in zip(_AXES, (axes.xaxis, axes.yaxis), strict=True):
        score = described[column]
        lowest, highest = float(scores[column].min()), float(scores[column].max())
        least = 2.0 if score.percent else 0.02 * max(abs(lowest), abs(highest)) or 1.0
        room = max(least - (highest - lowest) / 2, 0.15 * (highest - lowest))
        lower, upper = (printed_scale(score) * bound for bound in score.bounds)
        low, high = max(lowest - room, lower), min(highest + room, upper)
        edge = 0.04 * (high - low)  # half a marker
        axis.set_view_interval(low - edge, high + edge, ignore=True)
        axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))


def _label_models(axes: Axes, models: Mapping[str, NDArray[np.float64]]) -> None:
    """Write each model's name beside one of its points, where it covers the fewest points, names and lines."""
    from matplotlib.patheffects import withStroke

    figure = root_figure(axes)
    figure.draw_without_rendering()  # settles the layout, so that data can be turned into pixels
    point = figure.dpi / 72
    paths = {name: axes.transData.transform(points) for name, points in models.items()}
    markers = np.concatenate(list(paths.values()))
    lines = np.concatenate([_along(path, step=2 * point) for path in paths.values()])
    frame = np.asarray(axes.get_window_extent().get_points())
    boxes: list[NDArray[np.float64]] = []

    def cost(box: NDArray[np.float64], own: NDArray[np.float64]) -> float:
        gaps = _gaps(markers, box) / point
        own_gap = _gaps(own, box).min() / point
        others = gaps[~(markers[:, np.newaxis] == own).all(axis=2).any(axis=1)]
        ambiguity = max(0.0, 2.0 - others.min() / (own_gap + 1)) if len(others) else 0.0
        outside = (np.maximum(frame[0] - box[0], 0).sum() + np.maximum(box[1] - frame[1], 0).sum()) / point
        covered = (gaps < 5).sum() + sum(_overlap(box, other) for other in boxes) + (outside > 0)
        return float(100 * covered + 10 * outside + 20 * ambiguity + 2 * (_gaps(lines, box) < point).sum() + own_gap)

    for name, path in paths.items():
        style: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 9,
            "color": "0.2",
            "zorder": 4,
            "parse_math": False,
        }
        text = axes.annotate(short(name), models[name][0], **style)
        half = np.array(text.get_window_extent().size) / 2
        text.remove()
        candidates = []
        for anchor, distance, angle in itertools.product(
            path, (8 * point, 14 * point, 24 * point), np.linspace(0, 2 * math.pi, 24, endpoint=False)
        ):
            offset = (half + distance) * np.array([math.cos(angle), math.sin(angle)])
            box = np.array([anchor + offset - half, anchor + offset + half])
            candidates.append((cost(box, path), anchor, offset, box))
        _, anchor, offset, box = min(candidates, key=lambda candidate: candidate[0])
        boxes.append(box)
        axes.annotate(
            short(name),
            tuple(axes.transData.inverted().transform(anchor)),
            xytext=tuple(offset / point),
            textcoords="offset points",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            **style,
        )


def _along(path: NDArray[np.float64], *, step: float) -> NDArray[np.float64]:
    """Return points on the line through ``path``, about ``step`` pixels apart."""
    pieces = [path[:1]]
    for start, end in itertools.pairwise(path):
        n = max(2, int(np.linalg.norm(end - start) / step))
        pieces.append(start + np.linspace(0, 1, n)[:, np.newaxis] * (end - start))
    return np.concatenate(pieces)


def _gaps(points: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each point to the box, 0 inside it."""
    outside: NDArray[np.float64] = np.maximum(np.maximum(box[0] - points, points - box[1]), 0)
    return np.hypot(outside[:, 0], outside[:, 1])


def _overlap(box: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool((box[0] < other[1]).all() and (other[0] < box[1]).all())
