"""The paper's Table 2 as text and figure, from the scores and losses of all runs (``egtmetrics.paper.table2``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from egtmetrics.paper._report_parts import (
    LEVEL,
    MEAN_OF_A_GAP,
    METRICS,
    beyond_noise,
    cell,
    document,
    explain_changes,
    gap_cells,
    gaps_of,
    score_cells,
    signed_gaps,
    verdict_on_changes,
    worst_cells,
    worst_losses,
)
from egtmetrics.plots import plot_precision_recall

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUPS = ("male", "female")
"""In the order of the paper's columns."""
_BASELINE, _REAL = "Unconditional", "Real"
_GAPS = {
    "δ-P": "delta_p",
    "δ-R": "delta_r",
    "δ-PR (Definition 4.1)": "delta_pr",
    "δ-P + δ-R (as printed)": "delta_p_plus_delta_r",
}
"""The paper's Tables 2 and 8 print the sum of the first two as delta-PR; its Definition 4.1 is the third."""


def describe_table2(
    runs: pd.DataFrame, losses: pd.DataFrame, facts: Mapping[str, Any], *, markdown: bool = False
) -> str:
    """Return Tables 2 and 8 of the paper for these runs after a verdict, what the models wrote, and what exceeds noise.

    Cells are means over seeds, with standard deviations (ddof 1) if there are several; precision, recall and their
    disparities are in percent, losses in nats per token, FID in squared units of the features. A disparity is never
    negative, so its mean exceeds 0 even without a gap; therefore the statements on noise test the *signed* gap, against
    that of real texts in place of generated ones. Cells of a model that did not write enough texts of each group are
    empty.

    Parameters
    ----------
    runs, losses, facts
        The fields of ``egtmetrics.paper.table2.Table2``.
    markdown
        Pipe tables instead of those for a terminal.
    """
    sections = {
        **{
            f"Table 2: disparities between groups, {name}": _table2(runs, metric, worst_losses(losses))
            for metric, name in METRICS.items()
        },
        **{f"Table 8: {name}": _table8(runs, metric) for metric, name in METRICS.items()},
        "Overall (at the proportions of the data) and FID": _overall(runs),
        "Loss of held-out texts, nats per token": _losses(losses),
        "What the models wrote": _written(runs[runs["method"] != _REAL]),
    }
    findings = _noise(runs)
    scored = runs[(runs["method"] != _REAL) & runs["topp.precision/all"].notna()]
    of_changes = verdict_on_changes(scored, _BASELINE, gaps_of("topp")["PR"], "TopP&R precision + recall")
    notes = [explain_changes(_BASELINE), *_notes(runs, facts)]
    return document(sections, findings, notes, markdown=markdown, verdict=[findings[0].splitlines()[0], of_changes])


def describe_samples(samples: pd.DataFrame) -> str:
    """Return texts of every method and group, as Markdown."""
    lines = [
        "# Texts",
        "",
        "The first texts of every group that the oracle named, and of those on which it abstained; unedited.",
    ]
    for method, seed in samples[["method", "seed"]].drop_duplicates().itertuples(index=False):
        of_method = samples[(samples["method"] == method) & (samples["seed"] == seed)]
        lines += ["", f"## {method}, seed {seed}"]
        for group, texts in of_method.groupby("group", sort=False):
            lines += ["", f"### {'no group' if group == 'none' else group}", ""]
            lines += [f"- {' '.join(text.split()) or '(empty)'}" for text in texts["text"].fillna("").astype(str)]
    return "\n".join(lines) + "\n"


def plot_table2(runs: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw each group of each method at its TopP&R precision and recall, means over seeds (the paper's Figure 2)."""
    scores = {}
    for method, chosen in runs.groupby("method", sort=False):
        columns = {
            score: [chosen[f"topp.{score}/{group}"].mean() for group in _GROUPS] for score in ("precision", "recall")
        }
        by_group = pd.DataFrame(columns, index=list(_GROUPS)).dropna()
        if not by_group.empty:
            scores[str(method)] = by_group
    return plot_precision_recall(scores, ax=ax)


def _table2(runs: pd.DataFrame, metric: str, losses: Mapping[str, pd.Series[float]]) -> list[dict[str, str]]:
    """The paper's columns, what min-max should improve (the worst group), and the changes from the baseline."""
    before = runs[runs["method"] == _BASELINE]
    rows = []
    for method, chosen in runs.groupby("method", sort=False):
        changes = gap_cells(gaps_of(metric), chosen, None if method in (_BASELINE, _REAL) else before)
        rows.append(
            {
                "method": str(method),
                **{name: cell(100 * chosen[f"{metric}.{gap}"]) for name, gap in _GAPS.items()},
                "worst group's loss": cell(losses.get(str(method), pd.Series(dtype=float)), 3),
                **worst_cells(chosen, metric),
                **{name: text for name, text in changes.items() if name.startswith("Δ")},
            }
        )
    return rows


def _table8(runs: pd.DataFrame, metric: str) -> list[dict[str, str]]:
    rows = []
    for method, chosen in runs.groupby("method", sort=False):
        row = {"method": str(method), **score_cells(chosen, metric, _GROUPS)}
        sums = ("δ-PR (Definition 4.1)", "δ-P + δ-R (as printed)")
        rows.append({**row, **{name: cell(100 * chosen[f"{metric}.{_GAPS[name]}"]) for name in sums}})
    return rows


def _overall(runs: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "method": str(method),
            "MAUVE": cell(chosen["mauve.mauve/all"], 3),
            **{f"FID {who}": cell(chosen[f"fid.fid/{who}"], 3) for who in ("all", *_GROUPS)},
            "δ-FID": cell(chosen["fid.delta_fid"], 3),
        }
        for method, chosen in runs.groupby("method", sort=False)
    ]


def _losses(losses: pd.DataFrame) -> list[dict[str, str]]:
    by_group = losses.set_index(["method", "seed", "group"])["loss"].unstack("group")
    before = by_group.loc[losses["method"].iloc[0]]
    rows = []
    for method in losses["method"].unique():
        now = by_group.loc[method]
        row = {"method": str(method), **{group: cell(now[group], 3) for group in _GROUPS}}
        row["female - male"] = cell(now["female"] - now["male"], 3)
        rows.append(row | {f"change, {group}": cell(now[group] - before[group], 3) for group in _GROUPS})
    return rows


def _written(models: pd.DataFrame) -> list[dict[str, str]]:
    """Counts are sums over seeds; shares are of all texts."""
    rows = []
    for method, chosen in models.groupby("method", sort=False):
        n = int(chosen["n_drawn"].sum())

        def share(column: str, chosen: pd.DataFrame = chosen, n: int = n) -> str:
            return f"{100 * chosen[column].sum() / n:.1f} %"

        obeyed = chosen.get("obeyed", pd.Series(dtype=float))
        rows.append(
            {
                "method": str(method),
                "trained on": "" if chosen["n_seen"].isna().all() else f"{chosen['n_seen'].sum():.0f}",
                "written": str(n),
                **{group: share(f"n_{group}") for group in _GROUPS},
                "no group": share("n_abstained"),
                "empty": share("n_empty"),
                "cut off": share("n_unfinished"),
                "no heading": share("n_without_heading"),
                "δ-MGO": cell(100 * chosen["mgo"]),
                "δ-EGO": cell(100 * chosen["ego"]),
                "as asked": cell(100 * obeyed),
            }
        )
    return rows


def _noise(runs: pd.DataFrame) -> list[str]:
    """State which signed gaps differ from a perfect model's, and which changes from the baseline exceed noise."""
    real = runs[runs["method"] == _REAL]
    models = runs[runs["method"] != _REAL]
    lines = []
    if len(real) < 3:
        lines.append("Too few splits of real texts to say how large the gaps of a perfect model are.")
    else:
        lines.append(_beyond_real(models, real))
    n_seeds = models["seed"].nunique()
    if n_seeds < 2:
        return [*lines, "One seed of each model: a difference between two methods cannot be distinguished from noise."]
    before = models[models["method"] == _BASELINE].set_index("seed")
    changes: dict[str, NDArray[np.float64]] = {}
    for method, chosen in models[models["method"] != _BASELINE].groupby("method", sort=False):
        after = chosen.set_index("seed")
        for name, (_, disparity, scale) in signed_gaps(_GROUPS).items():
            changes[f"{method}, δ of {name}"] = scale * (after[disparity] - before[disparity]).to_numpy()
    return [*lines, beyond_noise(f"Changes of a disparity against {_BASELINE}, paired by seed", changes, n_seeds)]


def _beyond_real(models: pd.DataFrame, real: pd.DataFrame) -> str:
    """Compare gaps with a prediction interval from the splits of real texts: Student's t, for Gaussian gaps."""
    quantile = float(stats.t.ppf(0.5 + LEVEL / 2, len(real) - 1))
    tested, found = 0, []
    spread = []
    for name, (signed, _, scale) in signed_gaps(_GROUPS).items():
        of_real = scale * signed(real)
        spread.append(f"{name} {of_real.mean():+.3g} ± {of_real.std():.2g}")
        for method, chosen in models.groupby("method", sort=False):
            gaps = (scale * signed(chosen)).dropna()
            if gaps.empty:
                continue
            tested += 1
            width = quantile * of_real.std() * np.sqrt(1 / len(gaps) + 1 / len(of_real))
            if abs(gaps.mean() - of_real.mean()) > width:
                found.append(
                    f"{method}, {name}: {gaps.mean():+.3g}, outside {of_real.mean() - width:.3g} to "
                    f"{of_real.mean() + width:.3g}"
                )
    head = (
        f"Gaps (male minus female) beyond those of real texts in place of generated ones ({LEVEL:.0%} prediction "
        f"interval from {len(real)} splits of the same texts): {len(found)} of {tested}, where "
        f"{(1 - LEVEL) * tested:.1f} would by chance."
    )
    return "\n".join([head, *(f"  {line}" for line in found), f"  Real texts: {', '.join(spread)}"])


def _notes(runs: pd.DataFrame, facts: Mapping[str, Any]) -> list[str]:
    models = runs[runs["method"] != _REAL]
    missing = models[models["topp.precision/all"].isna()].groupby("method", sort=False).size()
    lacking = ", ".join(f"{method} ({n} of {models['seed'].nunique()} seeds)" for method, n in missing.items())
    return [
        *(f"{name}: {fact}" for name, fact in facts.items() if isinstance(fact, str)),
        *([f"Too few texts of a group, so no scores: {lacking}."] if lacking else []),
        "Pretrained: the model as it was loaded. Unconditional: fine-tuned without groups, the baseline of the other "
        "ways to fine-tune; the paper does not say which of the two its row Pretrained is.",
        "Real: training texts in place of generated ones, the scores of a perfect model.",
        "Overall scores compare sets with the groups in the proportions of the data (MGO), as the paper enforces for "
        "texts; scores by group do not depend on it.",
        "Groups are what the oracle reads from first names and pronouns; its error on generated texts is unknown.",
        MEAN_OF_A_GAP,
    ]
