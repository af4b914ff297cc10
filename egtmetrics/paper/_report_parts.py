"""What the reports share: a document of tables, cells with their spread, and which differences exceed noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate

LEVEL = 0.95
"""Confidence of the intervals that decide whether a difference exceeds noise."""


METRICS = {"topp": "TopP&R", "ipr": "k-nearest-neighbour precision and recall, k = 5"}
"""Metrics that have a precision and a recall."""
SCORES = {"P": "precision", "R": "recall"}
MEAN_OF_A_GAP = (
    "The mean of a disparity is above 0 even without a gap; min-max may close one by making the better group worse: "
    "read it beside the worst group."
)


def document(
    sections: Mapping[str, Sequence[Mapping[str, str]]],
    paragraphs: Sequence[str],
    notes: Sequence[str],
    *,
    markdown: bool,
) -> str:
    """Join tables under their titles, paragraphs, and a list of notes."""
    parts = []
    for title, rows in sections.items():
        parts.append(f"### {title}" if markdown else title)
        style = "pipe" if markdown else "simple"
        cells = [list(row.values()) for row in rows]
        parts.append(tabulate(cells, headers=list(rows[0]), tablefmt=style, disable_numparse=True))
    listed = "\n".join(("- " if markdown else "") + note for note in notes)
    return "\n\n".join([*parts, *paragraphs, listed]) + "\n"


def cell(values: pd.Series[float], digits: int = 1) -> str:
    """Mean and standard deviation (ddof 1) over seeds; empty where nothing was measured."""
    if values.isna().all():  # real data have no loss and no cost
        return ""
    text = f"{values.mean():.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {values.std():.{digits}f}"


def score_cells(runs: pd.DataFrame, metric: str, groups: Sequence[str]) -> dict[str, str]:
    """Precision and recall of a metric, of all and of each group, and their disparities, in percent."""
    cells: dict[str, str] = {}
    for name, score in SCORES.items():
        cells |= {f"{name} {who}": cell(100 * runs[f"{metric}.{score}/{who}"]) for who in ("all", *groups)}
        cells[f"δ-{name}"] = cell(100 * runs[f"{metric}.delta_{name.lower()}"])
    return cells


def worst_cells(runs: pd.DataFrame, metric: str) -> dict[str, str]:
    """Precision and recall of the worst group, in percent."""
    return {f"worst {name}": cell(100 * worst(runs, f"{metric}.{score}")) for name, score in SCORES.items()}


def worst(runs: pd.DataFrame, score: str) -> pd.Series[float]:
    """Return the lowest score among the groups, for each run."""
    columns = [name for name in runs if str(name).startswith(f"{score}/") and name != f"{score}/all"]
    return runs[columns].min(axis=1, skipna=False)


def worst_losses(losses: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Return by method the held-out loss of the worst group, for each seed."""
    held_out = losses[losses["split"] == "held-out"]
    return {
        str(method): chosen.groupby(["seed", "group"])["loss"].mean().groupby("seed").max()
        for method, chosen in held_out.groupby("method")
    }


def beyond_noise(title: str, values: Mapping[str, NDArray[np.float64]], n_seeds: int) -> str:
    """List the differences, one value per seed each, whose mean exceeds noise; those with a NaN are left out."""
    quantile = float(stats.t.ppf(0.5 + LEVEL / 2, n_seeds - 1))
    tested = {name: of_seeds for name, of_seeds in values.items() if np.isfinite(of_seeds).all()}
    found = []
    for name, of_seeds in tested.items():
        mean, error = of_seeds.mean(), of_seeds.std(ddof=1) / np.sqrt(n_seeds)
        if abs(mean) > quantile * error:
            found.append(f"{name}: {mean:+.3g} ± {quantile * error:.2g}")
    head = (
        f"{title} ({LEVEL:.0%} t-interval over {n_seeds} seeds excludes 0): {len(found)} of {len(tested)}, where "
        f"{(1 - LEVEL) * len(tested):.1f} would by chance."
    )
    return "\n".join([head, *(f"  {line}" for line in found)])


def signed_gaps(groups: Sequence[str]) -> dict[str, tuple[Callable[[pd.DataFrame], Any], str, float]]:
    """Return by name: the signed gap of the first two groups as a function of runs, the disparity's column, a scale."""

    def gap(*scores: str) -> Callable[[pd.DataFrame], Any]:
        def total(runs: pd.DataFrame, group: str) -> Any:
            return sum(runs[f"{score}/{group}"] for score in scores)

        return lambda runs: total(runs, groups[0]) - total(runs, groups[1])

    compared = {"FID": (gap("fid.fid"), "fid.delta_fid", 1.0)}
    for metric, name in (("topp", "TopP&R"), ("ipr", "k-NN")):
        p, r = f"{metric}.precision", f"{metric}.recall"
        compared |= {
            f"{name} P": (gap(p), f"{metric}.delta_p", 100.0),
            f"{name} R": (gap(r), f"{metric}.delta_r", 100.0),
            f"{name} P + R": (gap(p, r), f"{metric}.delta_pr", 100.0),
        }
    return compared
