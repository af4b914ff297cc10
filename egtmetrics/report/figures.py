"""Precision against recall of every group, one dashed line a model."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._atomic import write_whole
from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.report.tables import group_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, told apart by every common kind of colour vision, without its too light yellow."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""One more than the colours, so that the pair of the two repeats only after 56 groups."""


def plot_precision_recall(
    models: GenerativeMetricFrame | Mapping[str, GenerativeMetricFrame | pd.DataFrame],
    *,
    metric: str | None = None,
    title: str | None = None,
    hollow: Collection[tuple[str, Hashable]] = (),
) -> Figure:
    """Draw each group of each model at its precision (x) and recall (y), the groups of one model joined by a line.

    A short line is an even model; its position says how good the model is for its groups (the paper's Figure 2).

    Parameters
    ----------
    models
        A frame, or one frame a model under the name to print; a DataFrame with one row per group stands for a frame.
        Groups need columns ``precision`` and ``recall``, or ``<metric>_precision`` and ``<metric>_recall``, in [0, 1].
        A group whose score is NaN is left out.
    metric
        Which metric of the frames; None takes the first that has both scores.
    title
        Printed above the axes.
    hollow
        Model and group of points to draw hollow, as those that may differ from the first model by chance only. The
        legend says that this is what it means.

    Returns
    -------
    matplotlib.figure.Figure
        Free of pyplot: save it with ``figure.savefig(path)``, or show it by returning it from a notebook cell.

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
    >>> figure = plot_precision_recall({"EDM": by_group})
    >>> figure.axes[0].get_xlabel()
    'precision (%)'
    """
    named: Mapping[str, Any] = models if isinstance(models, Mapping) else {"": models}
    points = {name: _precision_recall(model, metric, name) for name, model in named.items()}
    if not points:
        raise ValueError("models is empty, expected at least one frame to draw")
    groups = list(dict.fromkeys(group for scores in points.values() for group in scores.index))

    figure = figure_class()(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.add_subplot(xlabel="precision (%)", ylabel="recall (%)")
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axes.set_title(title, parse_math=False)
    for scores in points.values():
        axes.plot(scores["precision"], scores["recall"], linestyle="--", color="0.6", linewidth=1.2, zorder=2)
    handles: list[Any] = []
    for rank, group in enumerate(groups):
        here = {name: scores.loc[group] for name, scores in points.items() if group in scores.index}
        color, marker = COLORS[rank % len(COLORS)], _MARKERS[rank % len(_MARKERS)]
        is_hollow = [(name, group) in hollow for name in here]
        axes.scatter(
            [point["precision"] for point in here.values()],
            [point["recall"] for point in here.values()],
            s=56,
            marker=marker,
            facecolors=["white" if inside else color for inside in is_hollow],
            edgecolors=[color if inside else "white" for inside in is_hollow],
            linewidths=[1.6 if inside else 0.8 for inside in is_hollow],
            zorder=3,
        )
        handles.append(_legend_point(marker, color, "white"))
    _zoom(axes, pd.concat(list(points.values())))
    feature_names = [str(name) for name in next(iter(points.values())).index.names if name is not None]
    labels = [group_text(group) for group in groups]
    add_legend(figure, handles, labels, title=", ".join(feature_names), loc="outside right upper")
    if any((name, group) in hollow for name, scores in points.items() for group in scores.index):
        meaning = f"hollow: may differ from {next(iter(points))} by chance only"
        add_legend(figure, [_legend_point("o", "white", "0.4")], [meaning], title="", loc="outside lower center")
    if isinstance(models, Mapping):
        _label_models(axes, {name: scores.to_numpy() for name, scores in points.items()})
    return figure


def add_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], *, title: str, **options: Any) -> None:
    """Add a legend that shows names as they are: dollars are no formula, and a leading underscore hides nothing."""
    legend = figure.legend(handles, ["-"] * len(labels), title=title or None, frameon=False, **options)
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


def save_figure(figure: Figure, path: str | Path, *, dpi: float = 200) -> None:
    """Write a figure, whole or not at all, in the format of the suffix: one of ``FIGURE_SUFFIXES``.

    Raises
    ------
    ValueError
        The suffix names no such format.
    OSError
        The file cannot be written.
    """
    suffix = check_figure_suffix(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix.removeprefix("."), dpi=dpi)
    write_whole(path, buffer.getvalue())


def check_figure_suffix(path: str | Path) -> str:
    """Return the suffix of a figure's file, or raise ValueError; for those who want to know before they compute."""
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


def _precision_recall(model: GenerativeMetricFrame | pd.DataFrame, metric: str | None, name: str) -> pd.DataFrame:
    """Return the columns precision and recall in percent, one row per group with finite scores."""
    by_group = model if isinstance(model, pd.DataFrame) else model.by_group
    prefixes = [str(column).removesuffix("precision") for column in by_group if str(column).endswith("precision")]
    pairs = [prefix for prefix in prefixes if f"{prefix}recall" in by_group and metric in (None, prefix.rstrip("_"))]
    who = f"model {name!r}" if name else "the frame"
    if not pairs:
        wanted = "a precision and a recall" if metric is None else f"{metric}_precision and {metric}_recall"
        raise ValueError(f"{who} has the scores {', '.join(map(str, by_group))}; expected {wanted}")
    scores = 100 * by_group[[f"{pairs[0]}precision", f"{pairs[0]}recall"]].dropna().astype(float)
    if scores.empty:
        raise ValueError(f"{who} has no group with finite precision and recall, so there is nothing to draw")
    scores.columns = pd.Index(["precision", "recall"])
    return scores


def _zoom(axes: Axes, scores: pd.DataFrame) -> None:
    """Show the points with room for their names, at least four percentage points, and little beyond 0 and 100."""
    from matplotlib.ticker import MaxNLocator

    for column, axis in (("precision", axes.xaxis), ("recall", axes.yaxis)):
        lowest, highest = float(scores[column].min()), float(scores[column].max())
        room = max(2 - (highest - lowest) / 2, 0.15 * (highest - lowest))
        low, high = max(lowest - room, 0.0), min(highest + room, 100.0)
        edge = 0.04 * (high - low)  # half a marker
        axis.set_view_interval(low - edge, high + edge, ignore=True)
        axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))


def _label_models(axes: Axes, models: Mapping[str, NDArray[np.float64]]) -> None:
    """Write each model's name beside one of its points, where it covers the fewest points, names and lines."""
    from matplotlib.patheffects import withStroke

    figure = axes.get_figure(root=True)
    assert figure is not None
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
        covered = (gaps < 5).sum() + sum(_overlap(box, other) for other in boxes)
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
        text = axes.annotate(name, models[name][0], **style)
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
            name,
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
