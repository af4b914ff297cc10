"""The paper's Table 4 and Figure 4 as text and figure, from the scores of ``egtmetrics.paper.table4``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics.paper._report_parts import METRICS, SCORES, cell, document, explain_changes, gap_cells, gaps_of
from egtmetrics.plots import figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 10
_DIGITS_NOTE = "A flipped digit is rarely a digit: flipped duplicates lower precision as well."


def describe_table4(scores: pd.DataFrame, facts: Mapping[str, Any], *, markdown: bool = False) -> str:
    """Return Table 4 for these scores after a verdict, the disparities, and how far the two examples differ.

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
    sections |= {f"Disparities between the groups, {name}": _gaps(scores, metric) for metric, name in METRICS.items()}
    comparison = "\n".join(_comparison(scores, metric, groups) for metric in METRICS)
    notes = [explain_changes(str(scores["example"].iloc[0]), unit="split"), *_notes(scores, facts)]
    return document(sections, [comparison], notes, markdown=markdown, verdict=_verdict(scores, groups))


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


def _gaps(scores: pd.DataFrame, metric: str) -> list[dict[str, str]]:
    """Disparities, and how the groups' scores differ from those of the first row."""
    before = scores[scores["example"] == scores["example"].iloc[0]]
    rows = []
    for example, chosen in scores.groupby("example", sort=False):
        row = {"Subset": str(example), "δ-MGO": cell(100 * chosen["mgo"]), "δ-EGO": cell(100 * chosen["ego"])}
        is_first = example == before["example"].iloc[0]
        rows.append(row | gap_cells(gaps_of(metric), chosen, None if is_first else before, unit="split"))
    return rows


def _verdict(scores: pd.DataFrame, groups: Sequence[str]) -> list[str]:
    """Say what the table can show, and how far the examples differ in all groups together and in one."""
    first, second = (scores[scores["example"] == example] for example in ("Example 1", "Example 2"))

    def difference(score: str, who: str) -> float:
        column = f"topp.{score}/{who}"
        return 100 * (second[column].mean() - first[column].mean())

    overall = " and ".join(f"{difference(score, 'all'):+.1f} in {score}" for score in SCORES.values())
    by_group = {f"{score} of {group}": difference(score, group) for score in SCORES.values() for group in groups}
    where = max(by_group, key=lambda name: abs(by_group[name]))
    return [
        "The samples of both examples were degraded on purpose, so this shows what overall scores can hide, and "
        "nothing about how often they do.",
        f"Example 2 differs from Example 1 by {overall} (points of TopP&R) in all groups together, and by "
        f"{by_group[where]:+.1f} in the {where}.",
    ]


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
    search, settings, groups = facts["search"], facts["settings"], facts["groups"]
    return [
        f"Example 1: noise of standard deviation {search['mild_noise']:.3f} of the range of levels on all, and "
        f"{settings['mild_share']:.0%} duplicates, half of them flipped.",
        f"Example 2: noise of {search['noise']:.3f} and {search['share']:.0%} duplicates on {groups[0]} alone.",
        f"The noise of Example 1 brings TopP&R precision to {settings['mild_precision']:.0%} of that of real images; "
        "noise and share of Example 2 were searched for the TopP&R precision and recall of Example 1, on other splits "
        f"({settings['n_search_splits']}) of the same images. Nothing was fitted to the k-NN scores, nor to any group.",
        "Real: other real images in place of degraded ones, the scores of a perfect model. All images are real "
        "ones, some degraded: this shows what global scores can hide, and nothing about any model.",
        "Groups have equal proportions in all rows, those of the real images: δ-MGO and δ-EGO are 0 throughout.",
        *([_DIGITS_NOTE] if facts["name"] == "digits" else []),
        "Strong noise spreads the samples and so widens their k-nearest-neighbour balls: k-NN recall can rise with it.",
        f"The spread is over {scores['split'].nunique()} splits of the same images, which are not independent.",
        *(f"{name}: {fact}" for name, fact in facts["notes"].items()),
    ]
