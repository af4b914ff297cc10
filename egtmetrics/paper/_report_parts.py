"""What the reports share: a document that opens with its verdict, cells with their spread, what exceeds noise."""

from __future__ import annotations

import dataclasses
import functools
import operator
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
_ENDS = ("better", "worse")


@dataclasses.dataclass(frozen=True)
class Gap:
    """A disparity: the score, or the sum of scores, of the best group less that of the worst."""

    scores: tuple[str, ...]
    """Columns of runs, without the group: ``"topp.precision"``."""
    disparity: str
    """The column of runs that holds it."""
    scale: float = 100.0
    """To percent."""
    lower_is_better: bool = False

    def ends(self, runs: pd.DataFrame, *, unit: str = "seed") -> pd.DataFrame:
        """Return the disparity ``δ`` and the scores of the ``better`` and the ``worse`` group, by ``unit``.

        Every run has a better group of its own. If it were chosen by the runs of one method, the others would seem to
        level the groups: what was chosen because it is high falls by chance.
        """
        by_group = self.scale * functools.reduce(operator.add, (group_scores(runs, score) for score in self.scores))
        lowest, highest = by_group.min(axis=1, skipna=False), by_group.max(axis=1, skipna=False)
        better, worse = (lowest, highest) if self.lower_is_better else (highest, lowest)
        ends = pd.DataFrame({"δ": self.scale * runs[self.disparity], "better": better, "worse": worse})
        return ends.set_index(pd.Index(runs[unit]))


FID = Gap(("fid.fid",), "fid.delta_fid", scale=1.0, lower_is_better=True)


def gaps_of(metric: str) -> dict[str, Gap]:
    """Return the gaps in precision, in recall and in their sum, of one of :data:`METRICS`."""
    p, r = (f"{metric}.{score}" for score in SCORES.values())
    return {
        "P": Gap((p,), f"{metric}.delta_p"),
        "R": Gap((r,), f"{metric}.delta_r"),
        "PR": Gap((p, r), f"{metric}.delta_pr"),
    }


def document(
    sections: Mapping[str, Sequence[Mapping[str, str]]],
    paragraphs: Sequence[str],
    notes: Sequence[str],
    *,
    markdown: bool,
    verdict: Sequence[str] = (),
) -> str:
    """Join the verdict, tables under their titles, paragraphs, and a list of notes.

    The verdict has two sentences: what limits all that follows, and what came out.
    """
    parts = [f"{'**Verdict.**' if markdown else 'Verdict:'} {' '.join(verdict)}"] if verdict else []
    for title, rows in sections.items():
        parts.append(f"### {title}" if markdown else title)
        style = "pipe" if markdown else "simple"
        cells = [list(row.values()) for row in rows]
        parts.append(tabulate(cells, headers=list(rows[0]), tablefmt=style, disable_numparse=True))
    listed = "\n".join(("- " if markdown else "") + note for note in notes)
    return "\n\n".join([*parts, *paragraphs, listed]) + "\n"


def cell(values: pd.Series[float], digits: int = 1, *, sign: str = "") -> str:
    """Mean and standard deviation (ddof 1) over seeds; empty where nothing was measured."""
    if values.isna().all():  # real data have no loss and no cost
        return ""
    text = f"{values.mean():{sign}.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {values.std():.{digits}f}"


def score_cells(runs: pd.DataFrame, metric: str, groups: Sequence[str]) -> dict[str, str]:
    """Precision and recall of a metric, of all and of each group, and their disparities, in percent."""
    cells: dict[str, str] = {}
    for name, score in SCORES.items():
        cells |= {f"{name} {who}": cell(100 * runs[f"{metric}.{score}/{who}"]) for who in ("all", *groups)}
        cells[f"δ-{name}"] = cell(100 * runs[f"{metric}.delta_{name.lower()}"])
    return cells


def gap_cells(
    gaps: Mapping[str, Gap], runs: pd.DataFrame, before: pd.DataFrame | None, *, digits: int = 1, unit: str = "seed"
) -> dict[str, str]:
    """Each gap, and how the scores of its better and of its worse group differ from those in the runs ``before``.

    The gap changes by the difference of the two, see :func:`explain_changes`. Without runs ``before`` they are empty.
    """
    cells: dict[str, str] = {}
    for name, gap in gaps.items():
        ends = gap.ends(runs, unit=unit)
        changes = ends * np.nan if before is None else (ends - gap.ends(before, unit=unit)).dropna()
        cells[f"δ-{name}"] = cell(ends["δ"], digits)
        cells |= {f"Δ{name} {end}": cell(changes[end], digits, sign="+") for end in _ENDS}
    return cells


def explain_changes(baseline: str, *, unit: str = "seed") -> str:
    """Return the note that a table with :func:`gap_cells` needs."""
    return (
        "ΔP better, ΔP worse and so on: by how much the score of the better and of the worse group, whichever these "
        f"are, differs from that of {baseline} in the same {unit}. δ changes by the difference of the two. Where both "
        "fall (FID: rise), a gap was closed by making the groups worse."
    )


def verdict_on_changes(models: pd.DataFrame, baseline: str, gap: Gap, described: str) -> str:
    """Say in a sentence which methods change a gap, in percent, and what their better and worse groups do.

    Differences from the method ``baseline`` are paired by seed. The t-intervals hold at :data:`LEVEL` for all methods
    together (Bonferroni). ``models`` has one run per method and seed, and no real data; ``described`` is how to call
    the gap, for example "TopP&R precision + recall at MGO".
    """
    before = gap.ends(models[models["method"] == baseline])
    changes = {
        str(method): (gap.ends(chosen) - before).dropna()
        for method, chosen in models[models["method"] != baseline].groupby("method", sort=False)
    }
    changes = {method: of_seeds for method, of_seeds in changes.items() if len(of_seeds) > 1}
    if not changes:
        return f"No difference from {baseline} in {described} can be told from noise: that takes two seeds or more."
    found, widths = [], []
    for method, of_seeds in changes.items():
        quantile = stats.t.ppf(1.0 - (1.0 - LEVEL) / (2 * len(changes)), len(of_seeds) - 1)
        width = float(quantile * of_seeds["δ"].std() / np.sqrt(len(of_seeds)))
        mean = of_seeds.mean()
        if abs(mean["δ"]) > width:
            found.append(
                f"{method} {'narrows' if mean['δ'] < 0 else 'widens'} it by {abs(mean['δ']):.1f} ± {width:.1f} points "
                f"(better group {mean['better']:+.1f}, worse group {mean['worse']:+.1f})"
            )
        widths.append(width)
    seeds = f"{before.index.nunique()} seeds, {LEVEL:.0%} for all methods together"
    described = f"{described}, {before['δ'].mean():.1f} points,"
    if not found:
        return (
            f"Against {baseline}, none of {len(changes)} methods changes the gap in {described} by more than its "
            f"noise, up to ± {max(widths):.1f} points ({seeds}); smaller changes can have gone unseen."
        )
    return (
        f"Against {baseline}, {len(found)} of {len(changes)} methods {'changes' if len(found) == 1 else 'change'} the "
        f"gap in {described} by more than noise ({seeds}): {'; '.join(found)}."
    )


def group_scores(runs: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return a score with one row per run and one column per group."""
    prefix = f"{score}/"
    columns = [name for name in runs if str(name).startswith(prefix) and name != f"{prefix}all"]
    return runs[columns].rename(columns=lambda name: str(name).removeprefix(prefix))


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

    def signed(gap: Gap) -> Callable[[pd.DataFrame], Any]:
        def total(runs: pd.DataFrame, group: str) -> Any:
            return sum(runs[f"{score}/{group}"] for score in gap.scores)

        return lambda runs: total(runs, groups[0]) - total(runs, groups[1])

    gaps = {"FID": FID}
    for metric, short in (("topp", "TopP&R"), ("ipr", "k-NN")):
        of_metric = gaps_of(metric)
        gaps |= {f"{short} P": of_metric["P"], f"{short} R": of_metric["R"], f"{short} P + R": of_metric["PR"]}
    return {name: (signed(gap), gap.disparity, gap.scale) for name, gap in gaps.items()}
