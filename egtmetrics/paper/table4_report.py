"""The paper's Table 4 and Figure 4 as text and figure, from the scores of ``egtmetrics.paper.table4``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics.paper._report_parts import METRICS, cell, document
from egtmetrics.plots import figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAPS = {"δ-P": "delta_p", "δ-R": "delta_r", "δ-PR": "delta_pr"}
_COLUMNS = 10


def describe_table4(scores: pd.DataFrame, facts: Mapping[str, Any], *, markdown: bool = False) -> str:
    """Return Table 4 for these scores, the disparities, and how far the two examples differ.

    Cells are means and standard deviations (ddof 1) over splits, all scores in percent. Splits divide the same images
    again, so they are not independent, and their spread is not a standard error.

    Parameters
    ----------
    scores, facts
        The fields of ``egtmetrics.paper.table4.Table4``.
    markdown
        Pipe tables instead of those for a terminal.
    """
    groups = list(facts["groups"])
    sections = {f"Table 4: {name}": _rows(scores, metric, groups) for metric, name in METRICS.items()}
    sections["Disparities between the groups"] = _disparities(scores)
    comparison = "\n".join(_comparison(scores, metric, groups) for metric in METRICS)
    return document(sections, [comparison], _notes(scores, facts), markdown=markdown)


def draw_samples(samples: Mapping[str, NDArray[np.float32]], group_names: Sequence[str]) -> Figure:
    """Draw the samples of each example, a block of rows for each group (the paper's Figure 4).

    Parameters
    ----------
    samples
        By example, images in [0, 1] of each group, ``(groups, k, channels, height, width)``.
    group_names
        One for each group.
    """
    figure = figure_class()(figsize=(5.2 * len(samples), 1.1 * len(group_names) + 0.3), layout="constrained")
    panels = figure.subplots(len(group_names), len(samples), squeeze=False)
    for column, (example, by_group) in enumerate(samples.items()):
        for row, (group, images) in enumerate(zip(group_names, by_group, strict=True)):
            panel = panels[row, column]
            panel.imshow(_tiled(images), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if row == 0:
                panel.set_title(example, fontsize=10)
            if column == 0:
                panel.set_ylabel(group, fontsize=10)
    return figure


def _tiled(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images in rows of ten, separated by white, ``(height, width)`` or ``(height, width, 3)``."""
    k, channels, height, width = images.shape
    edge = max(1, height // 16)
    rows = -(-k // _COLUMNS)
    canvas = np.ones((rows * (height + edge) - edge, _COLUMNS * (width + edge) - edge, channels), dtype=np.float32)
    for i, image in enumerate(images):
        top, left = (i // _COLUMNS) * (height + edge), (i % _COLUMNS) * (width + edge)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas[..., 0] if channels == 1 else canvas


def _rows(scores: pd.DataFrame, metric: str, groups: Sequence[str]) -> list[dict[str, str]]:
    """The paper's columns in the paper's order."""
    rows = []
    for example, chosen in scores.groupby("example", sort=False):
        columns = {"Precision": "precision/all", "Recall": "recall/all"}
        columns |= {f"{group} Recall": f"recall/{group}" for group in groups}
        columns |= {f"{group} Precision": f"precision/{group}" for group in groups}
        cells = {title: cell(100 * chosen[f"{metric}.{column}"]) for title, column in columns.items()}
        rows.append({"Subset": str(example), **cells})
    return rows


def _disparities(scores: pd.DataFrame) -> list[dict[str, str]]:
    rows = []
    for example, chosen in scores.groupby("example", sort=False):
        row = {"Subset": str(example), "δ-MGO": cell(100 * chosen["mgo"]), "δ-EGO": cell(100 * chosen["ego"])}
        for metric, name in (("topp", "TopP&R"), ("ipr", "k-NN")):
            row |= {f"{gap} {name}": cell(100 * chosen[f"{metric}.{column}"]) for gap, column in _GAPS.items()}
        rows.append(row)
    return rows


def _comparison(scores: pd.DataFrame, metric: str, groups: Sequence[str]) -> str:
    """Say how far the examples differ over all groups, and in each."""
    first, second = (scores[scores["example"] == example].set_index("split") for example in ("Example 1", "Example 2"))
    parts = []
    for who in ("all", *groups):
        differences = (
            cell(100 * (second[f"{metric}.{score}/{who}"] - first[f"{metric}.{score}/{who}"]))
            for score in ("precision", "recall")
        )
        parts.append(f"{who} {' and '.join(differences)}")
    return f"{METRICS[metric]}, Example 2 minus Example 1, in precision and recall: {'; '.join(parts)}."


def _notes(scores: pd.DataFrame, facts: Mapping[str, Any]) -> list[str]:
    search, settings = facts["search"], facts["settings"]
    flipped = "half of them flipped" if settings["flip"] else "not flipped, since a flipped digit is another shape"
    agree = search["distance"] <= settings["tolerance"]
    return [
        f"Example 1: noise of standard deviation {search['mild_noise']:.3f} of the range of levels on all, and "
        f"{settings['mild_share']:.0%} copies, {flipped}.",
        f"Example 2: noise of {search['noise']:.3f} on {facts['degraded']} alone, of which "
        f"{search['distinct']} different samples are left, copied in place of the others.",
        f"The search, on {settings['n_search_splits']} further splits, took the fewest different samples with "
        f"which the overall TopP&R scores of both examples agree within {100 * settings['tolerance']:.1f} points. "
        f"{'They do there' if agree else 'NONE DO: these are the closest'} (difference "
        f"{100 * search['distance']:.1f} points). Nothing was fitted to the k-NN scores, nor to any group.",
        "Groups have equal proportions in all rows, those of the real images (MGO): δ-MGO and δ-EGO cannot tell the "
        "examples apart.",
        "Strong noise spreads the samples and so widens what they seem to cover: recall can rise with it.",
        f"The spread is over {scores['split'].nunique()} splits, which share their images and so are not independent.",
        *(f"{name}: {fact}" for name, fact in facts["notes"].items()),
    ]
