"""The paper's Table 4 and Figure 4 as text and figure, from the scores of ``egtmetrics.paper.table4``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics.paper._report_parts import METRICS, cell, document, explain_changes, gap_cells, gaps_of
from egtmetrics.plots import figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = ("Example 1", "Example 2")
_COLUMNS = 10


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
    sections["Proportions of the groups"] = _proportions(scores)
    sections |= {
        f"Disparities between the groups, {name}": _disparities(scores, metric) for metric, name in METRICS.items()
    }
    comparison = "\n".join(_comparison(scores, metric, groups) for metric in METRICS)
    notes = [explain_changes(EXAMPLES[0], unit="split"), *_notes(scores, facts)]
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


def _proportions(scores: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {"Subset": str(example), "δ-MGO": cell(100 * chosen["mgo"]), "δ-EGO": cell(100 * chosen["ego"])}
        for example, chosen in scores.groupby("example", sort=False)
    ]


def _disparities(scores: pd.DataFrame, metric: str) -> list[dict[str, str]]:
    first = scores[scores["example"] == EXAMPLES[0]]
    return [
        {
            "Subset": str(example),
            **gap_cells(gaps_of(metric), chosen, first if example == EXAMPLES[1] else None, unit="split"),
        }
        for example, chosen in scores.groupby("example", sort=False)
    ]


def _verdict(scores: pd.DataFrame, groups: Sequence[str]) -> list[str]:
    """Say what the examples are for, and whether overall scores tell them apart as the scores of the groups do."""
    first, second = (scores[scores["example"] == example].mean(numeric_only=True) for example in EXAMPLES)

    def difference(metric: str, score: str, who: str) -> float:
        column = f"{metric}.{score}/{who}"
        return 100 * abs(float(second[column]) - float(first[column]))

    def points(metric: str) -> str:
        parts = []
        for score in ("precision", "recall"):
            largest = max(difference(metric, score, group) for group in groups)
            parts.append(f"{score} {difference(metric, score, 'all'):.0f} overall and {largest:.0f} in a group")
        return " and ".join(parts)

    return [
        "The examples are made, not found: they show what overall scores can hide, and nothing of how often a model "
        "does so.",
        f"They differ by these points: TopP&R, whose overall scores were made to agree, {points('topp')}; k-nearest "
        f"neighbours, to which nothing was fitted, {points('ipr')}.",
    ]


def _comparison(scores: pd.DataFrame, metric: str, groups: Sequence[str]) -> str:
    """Say how far the examples differ over all groups, and in each."""
    first, second = (scores[scores["example"] == example].set_index("split") for example in EXAMPLES)
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
