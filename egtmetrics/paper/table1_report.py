"""The paper's Table 1 as text and figures, from the scores and losses of all runs (``egtmetrics.paper.table1``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics.paper._report_parts import (
    FID,
    MEAN_OF_A_GAP,
    METRICS,
    beyond_noise,
    cell,
    document,
    explain_changes,
    gap_cells,
    gaps_of,
    group_scores,
    score_cells,
    signed_gaps,
    verdict_on_changes,
    worst_losses,
)
from egtmetrics.paper.figure2 import draw_figure2, figure2_points
from egtmetrics.plots import COLORS, figure_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OF_FIGURE_2 = ("Pretrain", "Conditional", "Real")
_POOR = 3.0
"""Times the FID of other real data."""


def describe_table1(
    runs: pd.DataFrame, losses: pd.DataFrame, facts: Mapping[str, Any], *, markdown: bool = False
) -> str:
    """Return Tables 1, 7 and 6 of the paper for these runs after a verdict, and which gaps exceed noise over seeds.

    The verdict is on the paper's main number, the gap in TopP&R precision + recall at MGO. Cells are means and
    standard deviations (ddof 1) over seeds; precision, recall and their disparities are in percent, FID in squared
    units of the features. A disparity is never negative, so its mean exceeds 0 even without a gap; therefore the
    statements on noise test the *signed* gap.

    Parameters
    ----------
    runs, losses, facts
        The fields of ``egtmetrics.paper.table1.Table1``.
    markdown
        Pipe tables instead of those for a terminal.
    """
    groups = list(losses["group"].unique())
    at_mgo, models = runs[runs["generation"] == "MGO"], runs[runs["mgo"].notna()]
    baseline = str(runs["method"].iloc[0])
    sections = {
        **{
            f"Table 1: disparities between groups at MGO, {name}": _table1(at_mgo, baseline, metric)
            for metric, name in METRICS.items()
        },
        "Table 1: disparities between groups at MGO, FID; losses": _table1_fid(at_mgo, baseline, worst_losses(losses)),
        **{f"Table 7: {name}": _table7(runs, metric, groups) for metric, name in METRICS.items()},
        "Table 7: FID": _table7_fid(runs, groups),
        "Table 6: denoising loss, of the group with the lowest = 1": _table6(losses, groups),
    }
    of_changes = verdict_on_changes(
        models[models["generation"] == "MGO"], baseline, gaps_of("topp")["PR"], "TopP&R precision + recall at MGO"
    )
    notes = [
        explain_changes(baseline),
        *_precision_of_real(at_mgo),
        *_notes(facts, groups),
    ]
    return document(sections, _noise(runs, groups), notes, markdown=markdown, verdict=[_quality(at_mgo), of_changes])


def draw_losses(losses: pd.DataFrame) -> Figure:
    """Draw each group's denoising loss against the noise level, one panel per method (the paper's Figures 3 and 5).

    Solid lines are held-out samples, with a band of one standard deviation over seeds; dashed lines are training ones.
    """
    methods, groups = losses["method"].unique(), losses["group"].unique()
    columns = min(len(methods), 2 if len(methods) < 5 else 3)
    rows = -(-len(methods) // columns)
    figure = figure_class()(figsize=(4.6 * columns, 3.2 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, method in zip(panels, methods, strict=False):
        for color, group in zip(COLORS, groups, strict=False):
            for split, line in (("held-out", "-"), ("training", "--")):
                chosen = losses.query("method == @method and group == @group and split == @split")
                by_sigma = chosen.groupby("sigma")["loss"]
                mean, spread = by_sigma.mean(), by_sigma.std().fillna(0.0)
                panel.plot(mean.index, mean, linestyle=line, color=color, label=f"{group}, {split}")
                if split == "held-out":
                    panel.fill_between(mean.index, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
        panel.set(title=method, xscale="log")
        panel.grid(color="0.92", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    for above, panel in zip(panels[len(methods) - columns :], panels[len(methods) :], strict=False):
        panel.set_visible(False)
        above.tick_params(labelbottom=True)
    figure.supxlabel(r"noise level $\sigma$", fontsize=10)
    figure.supylabel("weighted denoising loss", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8)
    return figure


def plot_figure2(runs: pd.DataFrame, groups: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw the groups of the pretrained and of the conditional model at MGO and EGO (the paper's Figure 2a).

    Real data stand beside them, where a perfect model would be, at MGO: their groups do not depend on proportions.
    """
    chosen = runs[runs["method"].isin(_OF_FIGURE_2) & (runs["mgo"].notna() | (runs["generation"] == "MGO"))]
    settings = chosen["method"].where(chosen["mgo"].isna(), chosen["method"] + ", " + chosen["generation"])
    return draw_figure2(figure2_points(chosen.assign(method=settings), groups), ax=ax)


def draw_samples(samples: Mapping[str, NDArray[np.float64]], groups: Sequence[str]) -> Figure:
    """Draw samples: a column for each group, a row for each method and for real images.

    Parameters
    ----------
    samples
        By method, ``(groups, k, channels, height, width)`` in [0, 1], with 1 or 3 channels.
    groups
        Their names.
    """
    width = max(images.shape[1] for images in samples.values())
    figure = figure_class()(figsize=(0.55 * width * len(groups) + 1.2, 0.75 * len(samples) + 0.5), layout="constrained")
    panels = figure.subplots(len(samples), len(groups), squeeze=False)
    for row, (method, images) in zip(panels, samples.items(), strict=True):
        for panel, group, of_group in zip(row, groups, images, strict=True):
            grey = of_group.shape[1] == 1  # drawn as ink on paper: 0 is white
            frame = [np.pad(i, ((0, 0), (1, 1), (1, 1)), constant_values=0.0 if grey else 1.0) for i in of_group]
            strip = np.concatenate(frame, axis=2).transpose(1, 2, 0)
            panel.imshow(strip.squeeze(), cmap="gray_r" if grey else None, vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if panel in panels[0]:
                panel.set_title(group, fontsize=10)
        row[0].set_ylabel(method, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def _table1(runs: pd.DataFrame, baseline: str, metric: str) -> list[dict[str, str]]:
    """The paper's columns, and what the groups' scores have to do with them."""
    return [
        {"method": str(method), **gap_cells(gaps_of(metric), chosen, _before(runs, baseline, method))}
        for method, chosen in runs.groupby("method", sort=False)
    ]


def _table1_fid(runs: pd.DataFrame, baseline: str, of_worst: Mapping[str, pd.Series[float]]) -> list[dict[str, str]]:
    """The paper's column, and what min-max should lower: the loss of the worst group."""
    return [
        {
            "method": str(method),
            **gap_cells({"FID": FID}, chosen, _before(runs, baseline, method), digits=3),
            "worst group's loss": cell(of_worst.get(str(method), pd.Series(dtype=float)), 3),
        }
        for method, chosen in runs.groupby("method", sort=False)
    ]


def _before(runs: pd.DataFrame, baseline: str, method: Any) -> pd.DataFrame | None:
    """The runs to compare those of a method with; real data are no way to train, so nothing changed them."""
    is_model = runs.loc[runs["method"] == method, "mgo"].notna().all()
    return runs[runs["method"] == baseline] if is_model and method != baseline else None


def _table7(runs: pd.DataFrame, metric: str, groups: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for (generation, method), chosen in runs.groupby(["generation", "method"], sort=False):
        row = {"generation": str(generation), "method": str(method), **score_cells(chosen, metric, groups)}
        rows.append({**row, "δ-PR": cell(100 * chosen[f"{metric}.delta_pr"])})
    return sorted(rows, key=lambda row: row["generation"] != "MGO")


def _table7_fid(runs: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for (generation, method), chosen in runs.groupby(["generation", "method"], sort=False):
        row = {"generation": str(generation), "method": str(method)}
        row |= {f"FID {who}": cell(chosen[f"fid.fid/{who}"], 3) for who in ("all", *groups)}
        row |= {"δ-FID": cell(chosen["fid.delta_fid"], 3), "draws per sample": cell(chosen["draws_per_sample"], 2)}
        rows.append(row)
    return sorted(rows, key=lambda row: row["generation"] != "MGO")


def _table6(losses: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, str]]:
    """Means over noise levels, divided within each seed by the loss of the better group."""
    means = losses.groupby(["split", "method", "seed", "group"])["loss"].mean().unstack("group")
    rows = []
    for split, method in losses[["split", "method"]].drop_duplicates().sort_values("split", kind="stable").to_numpy():
        of_seeds = means.loc[(split, method)]
        lowest = of_seeds.min(axis=1)
        row = {"data": str(split), "method": str(method), "all": cell(of_seeds.mean(axis=1) / lowest, 3)}
        row |= {group: cell(of_seeds[group] / lowest, 3) for group in groups}
        rows.append({**row, "worst group's loss": cell(of_seeds.max(axis=1), 4)})
    return rows


def _quality(at_mgo: pd.DataFrame) -> str:
    """Say how far the samples are from real ones: gaps between bad samples mean little."""
    is_model = at_mgo["mgo"].notna()
    if is_model.all():
        return "Without the row Real, nothing here says how good samples score, nor which gaps they have."
    fid = at_mgo["fid.fid/all"].groupby(at_mgo["method"]).mean() / at_mgo.loc[~is_model, "fid.fid/all"].mean()
    models = fid[at_mgo.loc[is_model, "method"].unique()]
    precision, recall = (
        [100 * at_mgo.loc[chosen, f"ipr.{score}/all"].mean() for chosen in (is_model, ~is_model)]
        for score in ("precision", "recall")
    )
    text = (
        f"The models' FID at MGO is {models.min():.1f} to {models.max():.1f} times that of other real data "
        f"(k-nearest-neighbour precision {precision[0]:.0f} %, real {precision[1]:.0f} %; recall {recall[0]:.0f} %, "
        f"real {recall[1]:.0f} %)"
    )
    if models.min() > _POOR:
        text += "; such samples are poor, see samples.png, and differences between the ways to train say little"
    return f"{text}."


def _precision_of_real(at_mgo: pd.DataFrame) -> list[str]:
    """Explain why real data may have a lower TopP&R precision than models; measured in ADR 45."""
    is_model = at_mgo["mgo"].notna()
    if is_model.all():
        return []
    precision, recall, variance = (
        [100 * group_scores(at_mgo[chosen], score).to_numpy().mean() for chosen in (is_model, ~is_model)]
        for score in ("topp.precision", "topp.recall", "variance")
    )
    if precision[0] <= precision[1] or variance[0] >= variance[1]:
        return []
    return [
        f"Why the models' TopP&R precision by group ({precision[0]:.0f} % on average) is above that of Real "
        f"({precision[1]:.0f} %): their samples vary less. The variance of their features is {variance[0]:.0f} % of "
        f"that of held-out data, for Real {variance[1]:.0f} %. Samples nearer to the centre of a group lie more often "
        f"in its support, and cover less of it: recall is {recall[0]:.0f} %, of Real {recall[1]:.0f} %. Real digits "
        "that are pulled together as much score alike (ADR 45). So the highest precision is not the best",
    ]


def _noise(runs: pd.DataFrame, groups: Sequence[str]) -> list[str]:
    """State which signed gaps, and which changes of a disparity from the baseline, exceed noise.

    The row of real data is no way to train: its gaps are counted by themselves, and it changes nothing.
    """
    n_seeds = runs["seed"].nunique()
    if n_seeds < 2:
        return ["One seed says nothing about noise: no gap can be distinguished from it."]
    baseline = runs["method"].iloc[0]
    gaps: dict[str, NDArray[np.float64]] = {}
    real_gaps: dict[str, NDArray[np.float64]] = {}
    changes: dict[str, NDArray[np.float64]] = {}
    for (generation, method), chosen in runs.groupby(["generation", "method"], sort=False):
        before = runs[(runs["generation"] == generation) & (runs["method"] == baseline)].set_index("seed")
        after = chosen.set_index("seed")
        is_model = chosen["mgo"].notna().all()
        for name, (signed, disparity, scale) in signed_gaps(groups).items():
            of_row = gaps if is_model else real_gaps
            of_row[f"{method} at {generation}, {name}"] = scale * signed(after).to_numpy()
            if is_model and method != baseline:
                change = scale * (after[disparity] - before[disparity]).to_numpy()
                changes[f"{method} at {generation}, δ of {name}"] = change
    compared = f"({groups[0]} minus {groups[1]})"
    titles = {
        f"Gaps of the models {compared} beyond their noise": gaps,
        f"Gaps of other real data {compared} beyond their noise": real_gaps,
        f"Changes of a model's disparity against {baseline}, paired by seed, beyond their noise": changes,
    }
    return [beyond_noise(title, values, n_seeds) for title, values in titles.items() if values]


def _notes(facts: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
    errors = np.array([oracle["error_by_group"] for oracle in facts["oracles"]]).mean(axis=0)
    listed = ", ".join(f"{100 * error:.1f} % of {group}" for group, error in zip(groups, errors, strict=True))
    plain = [f"{name}: {fact}" for name, fact in facts.items() if isinstance(fact, str)]
    fits = pd.DataFrame(facts["ratios"]).mean()
    warned = sorted({oracle["warning"] for oracle in facts["oracles"] if oracle.get("warning")})
    return [
        f"oracle: mislabels {listed} (cross-validated on real images; on generated ones it may be more)",
        *(f"oracle warns: {warning}" for warning in warned),
        f"Density-Ratio: on noisy held-out data the cross-entropy of the classifier is {fits['cross_entropy']:.3f} "
        f"nats, that of the proportions alone {fits['of_proportions']:.3f}; the mean ratio is "
        f"{fits['mean_ratio']:.3f}, where 1 is exact",
        *plain,
        "Correlations of disparities, the paper's Table 3: egtmetrics reproduce table3, of this folder and others",
        "Real: other real data in place of generated data, the scores of a perfect model.",
        "Rejection does not change the distribution within a group: by group, a model's MGO and EGO rows differ by "
        "noise only (nearly so for Conditional, whose samples can miss the group asked for).",
        MEAN_OF_A_GAP,
    ]
