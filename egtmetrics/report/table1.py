"""The paper's Table 1 as text and figure, from the scores and losses of all runs (``egtmetrics.training.table1``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate

from egtmetrics.report.figures import COLORS, figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PRECISION_RECALL = {"topp": "TopP&R", "ipr": "k-nearest-neighbour precision and recall, k = 5"}
_GAPS = {"P": "delta_p", "R": "delta_r", "PR": "delta_pr"}
_LEVEL = 0.95
_PROPORTIONS = {
    "mgo": "δ-MGO",
    "ego": "δ-EGO",
    "mgo_generated": "δ-MGO before rejection",
    "ego_generated": "δ-EGO before rejection",
}


def describe_table1(
    runs: pd.DataFrame, losses: pd.DataFrame, facts: Mapping[str, Any], *, markdown: bool = False
) -> str:
    """Return Tables 1, 7, 6 and 3 of the paper for these runs, and which gaps are more than noise over the seeds.

    Cells are means and standard deviations (ddof 1) over seeds; precision, recall and their disparities are in percent,
    FID in squared units of the features. A disparity is never negative, so its mean exceeds 0 where there is no gap at
    all; the statements on noise therefore test the *signed* gap.

    Parameters
    ----------
    runs, losses, facts
        The fields of ``egtmetrics.training.table1.Table1``.
    markdown
        Pipe tables instead of those for a terminal.
    """
    groups = list(losses["group"].unique())
    style = "pipe" if markdown else "simple"
    worst = _worst_losses(losses)
    models = runs[runs["mgo"].notna()]
    sections: list[tuple[str, str]] = []
    for metric, name in _PRECISION_RECALL.items():
        table = _table1(runs[runs["generation"] == "MGO"], metric, worst)
        sections.append((f"Table 1: disparities between groups at MGO, {name}", _tabulate(table, style)))
    for metric, name in _PRECISION_RECALL.items():
        sections.append((f"Table 7: {name}", _tabulate(_table7(runs, metric, groups), style)))
    sections += [
        ("Table 7: FID", _tabulate(_table7_fid(runs, groups), style)),
        ("Table 6: denoising loss, of the group with the lowest = 1", _tabulate(_table6(losses, groups), style)),
        (f"Table 3: correlations over {len(models)} runs of models", _tabulate(_table3(models), style)),
    ]
    lines = [text for title, table in sections for text in (f"### {title}" if markdown else title, table)]
    lines += _noise(runs, groups)
    lines.append("\n".join([("- " if markdown else "") + note for note in _notes(facts, groups)]))
    return "\n\n".join(lines) + "\n"


def plot_losses(losses: pd.DataFrame) -> Figure:
    """Draw the denoising loss of each group against the noise level, a panel a method (the paper's Figures 3 and 5).

    Solid lines are held-out samples, with a band of one standard deviation over seeds; dashed lines are training ones.
    """
    methods, groups = losses["method"].unique(), losses["group"].unique()
    columns = 2 if len(methods) > 1 else 1
    rows = -(-len(methods) // columns)
    figure = figure_class()(figsize=(4.6 * columns, 3.2 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, method in zip(panels, methods, strict=False):
        for color, group in zip(COLORS, groups, strict=False):
            for split, line in (("held-out", "-"), ("training", "--")):
                chosen = losses.query("method == @method and group == @group and split == @split")
                by_sigma = chosen.groupby("sigma")["loss"]
                mean, spread = by_sigma.mean(), by_sigma.std().fillna(0.0)
                panel.plot(mean.index, mean, linestyle=line, color=color, label=f"digits {group}, {split}")
                if split == "held-out":
                    panel.fill_between(mean.index, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
        panel.set(title=method, xscale="log")
        panel.grid(color="0.92", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(r"noise level $\sigma$", fontsize=10)
    figure.supylabel("weighted denoising loss", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8)
    return figure


def _table1(runs: pd.DataFrame, metric: str, worst: Mapping[str, pd.Series[float]]) -> list[dict[str, str]]:
    """The paper's columns, and beside the gaps what min-max is to lower: the loss of the worst group."""
    rows = []
    for method, chosen in runs.groupby("method", sort=False):
        scores = {f"δ-{name}": _cell(100 * chosen[f"{metric}.{gap}"]) for name, gap in _GAPS.items()}
        rows.append(
            {
                "method": str(method),
                **scores,
                "δ-FID": _cell(chosen["fid.delta_fid"], 3),
                "worst group's loss": _cell(worst.get(str(method), pd.Series(dtype=float)), 3),
                **{
                    f"worst {name}": _cell(100 * _worst(chosen, f"{metric}.{score}"))
                    for name, score in (("P", "precision"), ("R", "recall"))
                },
                "worst FID": _cell(-_worst(-chosen.filter(like="fid.fid/"), "fid.fid"), 3),
            }
        )
    return rows


def _table7(runs: pd.DataFrame, metric: str, groups: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for (generation, method), chosen in runs.groupby(["generation", "method"], sort=False):
        row = {"generation": str(generation), "method": str(method)}
        for name, score in (("P", "precision"), ("R", "recall")):
            for who in ("all", *groups):
                row[f"{name} {who}"] = _cell(100 * chosen[f"{metric}.{score}/{who}"])
            row[f"δ-{name}"] = _cell(100 * chosen[f"{metric}.delta_{name.lower()}"])
        rows.append({**row, "δ-PR": _cell(100 * chosen[f"{metric}.delta_pr"])})
    return sorted(rows, key=lambda row: row["generation"] != "MGO")


def _table7_fid(runs: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for (generation, method), chosen in runs.groupby(["generation", "method"], sort=False):
        row = {"generation": str(generation), "method": str(method)}
        row |= {f"FID {who}": _cell(chosen[f"fid.fid/{who}"], 3) for who in ("all", *groups)}
        row |= {"δ-FID": _cell(chosen["fid.delta_fid"], 3), "draws per sample": _cell(chosen["draws_per_sample"], 2)}
        rows.append(row)
    return sorted(rows, key=lambda row: row["generation"] != "MGO")


def _table6(losses: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, str]]:
    """Averaged over noise levels, and within each seed divided by the loss of its better group."""
    means = losses.groupby(["split", "method", "seed", "group"])["loss"].mean().unstack("group")
    rows = []
    for split, method in losses[["split", "method"]].drop_duplicates().sort_values("split", kind="stable").to_numpy():
        of_seeds = means.loc[(split, method)]
        lowest = of_seeds.min(axis=1)
        row = {"data": str(split), "method": str(method), "all": _cell(of_seeds.mean(axis=1) / lowest, 3)}
        row |= {group: _cell(of_seeds[group] / lowest, 3) for group in groups}
        rows.append({**row, "worst group's loss": _cell(of_seeds.max(axis=1), 4)})
    return rows


def _table3(runs: pd.DataFrame) -> list[dict[str, str]]:
    """Over the models, without real data in their place."""
    gaps = {f"δ-{name}": runs[f"topp.{gap}"] for name, gap in _GAPS.items()} | {"δ-FID": runs["fid.delta_fid"]}
    rows = []
    for column, name in _PROPORTIONS.items():
        others = {"δ-MGO": runs["mgo"], "δ-EGO": runs["ego"], **gaps}
        rows.append(
            {"": name} | {other: f"{_correlation(runs[column], values):.2f}" for other, values in others.items()}
        )
    return rows


def _noise(runs: pd.DataFrame, groups: Sequence[str]) -> list[str]:
    """State which signed gaps, and which changes of a disparity against the baseline, are more than noise."""
    n_seeds = runs["seed"].nunique()
    if n_seeds < 2:
        return ["One seed says nothing about noise: no gap can be told from it."]
    baseline = runs["method"].iloc[0]
    gaps: dict[str, NDArray[np.float64]] = {}
    changes: dict[str, NDArray[np.float64]] = {}
    for (generation, method), chosen in runs.groupby(["generation", "method"], sort=False):
        before = runs[(runs["generation"] == generation) & (runs["method"] == baseline)].set_index("seed")
        after = chosen.set_index("seed")
        for name, (signed, disparity, scale) in _compared(groups).items():
            gaps[f"{method} at {generation}, {name}"] = scale * signed(after).to_numpy()
            if method != baseline:
                change = scale * (after[disparity] - before[disparity]).to_numpy()
                changes[f"{method} at {generation}, δ of {name}"] = change
    titles = {
        f"Gaps ({groups[0]} minus {groups[1]}) beyond their noise": gaps,
        f"Changes of a disparity against {baseline}, paired by seed, beyond their noise": changes,
    }
    return [_beyond(title, values, n_seeds) for title, values in titles.items()]


def _compared(groups: Sequence[str]) -> dict[str, tuple[Callable[[pd.DataFrame], Any], str, float]]:
    """By name: signed gap of the first two groups as a function of runs, column of the disparity, scale."""

    def gap(*scores: str) -> Callable[[pd.DataFrame], Any]:
        first, second = ([f"{score}/{group}" for score in scores] for group in groups[:2])
        return lambda runs: runs[first].sum(axis=1) - runs[second].sum(axis=1)

    compared = {"FID": (gap("fid.fid"), "fid.delta_fid", 1.0)}
    for metric, name in (("topp", "TopP&R"), ("ipr", "k-NN")):
        p, r = f"{metric}.precision", f"{metric}.recall"
        compared |= {
            f"{name} P": (gap(p), f"{metric}.delta_p", 100.0),
            f"{name} R": (gap(r), f"{metric}.delta_r", 100.0),
            f"{name} P + R": (gap(p, r), f"{metric}.delta_pr", 100.0),
        }
    return compared


def _beyond(title: str, values: Mapping[str, NDArray[np.float64]], n_seeds: int) -> str:
    quantile = float(stats.t.ppf(0.5 + _LEVEL / 2, n_seeds - 1))
    found = []
    for name, of_seeds in values.items():
        mean, error = of_seeds.mean(), of_seeds.std(ddof=1) / np.sqrt(n_seeds)
        if abs(mean) > quantile * error:
            found.append(f"{name}: {mean:+.3g} ± {quantile * error:.2g}")
    by_chance = (1 - _LEVEL) * len(values)
    head = (
        f"{title} ({_LEVEL:.0%} t-interval over {n_seeds} seeds excludes 0): {len(found)} of {len(values)}, where "
        f"{by_chance:.1f} would by chance."
    )
    return "\n".join([head, *(f"  {line}" for line in found)])


def _notes(facts: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
    errors = np.array([oracle["error_by_group"] for oracle in facts["oracles"]]).mean(axis=0)
    listed = ", ".join(f"{100 * error:.1f} % of {group}" for group, error in zip(groups, errors, strict=True))
    plain = [f"{name}: {fact}" for name, fact in facts.items() if isinstance(fact, str)]
    return [
        f"oracle: mislabels {listed} (cross-validated on real digits; on generated ones it may be more)",
        *plain,
        "Real: other real data in the place of generated ones, the scores of a perfect model.",
        "Rejection leaves the law within a group as it is: by group a model's MGO and EGO rows differ by noise alone "
        "(nearly so for Conditional, whose samples can miss the group asked for).",
        "The mean of a disparity is above 0 even without a gap; min-max may close one by making the better group "
        "worse: read it beside the worst group.",
    ]


def _worst_losses(losses: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Held-out loss of the worse group by method, for each seed."""
    held_out = losses[losses["split"] == "held-out"]
    return {
        str(method): chosen.groupby(["seed", "group"])["loss"].mean().groupby("seed").max()
        for method, chosen in held_out.groupby("method")
    }


def _worst(runs: pd.DataFrame, score: str) -> pd.Series[float]:
    columns = [name for name in runs if str(name).startswith(f"{score}/") and name != f"{score}/all"]
    return runs[columns].min(axis=1)


def _correlation(first: pd.Series[float], second: pd.Series[float]) -> float:
    """Pearson's, NaN where one does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(first, second)[0, 1])


def _cell(values: pd.Series[float], digits: int = 1) -> str:
    if values.isna().all():  # what real data have not: a loss, a cost
        return ""
    text = f"{values.mean():.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {values.std():.{digits}f}"


def _tabulate(rows: Sequence[Mapping[str, str]], style: str) -> str:
    return tabulate([list(row.values()) for row in rows], headers=list(rows[0]), tablefmt=style, disable_numparse=True)
