"""The comparison of strategies as text and a figure (``egtmetrics.paper.strategies``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from egtmetrics.paper._report_parts import LEVEL, MEAN_OF_A_GAP, cell, document
from egtmetrics.plots import COLORS, figure_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUM = "P + R"
_DIGITS = 3


class Change(NamedTuple):
    """A paired difference from plain training: its mean over seeds, and half the length of its t-interval."""

    mean: float
    half: float

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes 0, otherwise 0."""
        return int(np.sign(self.mean)) if abs(self.mean) > self.half else 0

    def __str__(self) -> str:
        return f"{self.mean:+.{_DIGITS}f} ± {self.half:.{_DIGITS}f}"


def describe_strategies(runs: pd.DataFrame, facts: Mapping[str, str], *, markdown: bool = False) -> str:
    """Return a verdict of two sentences, the scores, their changes against plain training, and notes.

    A caution stands before all if most trainings were still improving at their last step: then the changes are about
    who learns faster.

    Cells of scores are means and standard deviations (ddof 1) over seeds. Changes are paired by seed and have a
    t-interval. The better group is the one with the higher precision + recall under plain training.

    Parameters
    ----------
    runs, facts
        The fields of ``egtmetrics.paper.strategies.Strategies``.
    markdown
        Pipe tables instead of those for a terminal.
    """
    better, worse = _groups(runs)
    columns = _columns(runs)
    n_seeds = runs["seed"].nunique()
    scores = [
        {"method": method, **{str(name): cell(chosen[name], _DIGITS) for name in columns}}
        for method, chosen in _by_method(columns.assign(method=runs["method"]))
    ]
    sections: dict[str, Sequence[Mapping[str, str]]] = {
        f"Scores: better group {better}, worse group {worse}": scores,
        "Precision and recall": _by_score(runs, (better, worse)),
    }
    if n_seeds < 2:
        paragraphs = ["One seed says nothing about noise: no strategy can be distinguished from plain training."]
        return document(sections, paragraphs, _notes(runs, facts), markdown=markdown)
    changes = changes_from_plain(runs)
    marked = [
        {"method": method, **{name: f"{change}{' *' if change.sign else ''}" for name, change in row.items()}}
        for method, row in changes.items()
    ]
    sections["Changes against plain training, paired by seed (* beyond noise)"] = marked
    found = sum(change.sign != 0 for row in changes.values() for change in row.values())
    tested = sum(len(row) for row in changes.values())
    count = (
        f"A change is beyond noise where its {LEVEL:.0%} t-interval over {n_seeds} seeds excludes 0: {found} of "
        f"{tested} are, where {(1 - LEVEL) * tested:.1f} would by chance. All are compared with the same plain "
        "trainings, so chance finds come together."
    )
    body = document(sections, [count], _notes(runs, facts), markdown=markdown)
    return "\n\n".join([*_caution(runs), _verdict(changes, _methods(runs, "strategy"), better, worse), body])


def changes_from_plain(runs: pd.DataFrame) -> dict[str, dict[str, Change]]:
    """Return by method, and by column of the table, the change against plain training over the same seeds."""
    of_seed = _columns(runs).set_axis(runs["seed"])
    plain = of_seed[(runs["kind"] == "plain").to_numpy()]
    changes = {}
    for method in _methods(runs, "strategy", "yardstick"):
        difference = of_seed[(runs["method"] == method).to_numpy()] - plain
        n = len(difference)
        half = stats.t.ppf(0.5 + LEVEL / 2, n - 1) * difference.std() / np.sqrt(n)
        changes[method] = {str(name): Change(float(difference[name].mean()), float(half[name])) for name in difference}
    return changes


def draw_trade_off(runs: pd.DataFrame) -> Figure:
    """Draw the worse group against the better one: arrows from plain training to every method, better is up and right.

    Left precision + recall, right the held-out loss, with both axes turned around. Crosses are the t-intervals of the
    changes, paired by seed; on the dotted line both groups score alike.
    """
    better, worse = _groups(runs)
    figure = figure_class()(figsize=(11.5, 5.2), layout="constrained")
    axes = figure.subplots(1, 2)
    changes = changes_from_plain(runs) if runs["seed"].nunique() > 1 else {}
    for panel, what in zip(axes, (_SUM, "loss"), strict=True):
        _draw_changes(panel, _columns(runs)[runs["kind"] == "plain"].mean(), changes, what)
        panel.set(xlabel=f"{what}, better group ({better})", ylabel=f"{what}, worse group ({worse})")
        panel.grid(color="0.92", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
        if what == "loss":
            panel.invert_xaxis()
            panel.invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw_changes(panel: Axes, plain: pd.Series[float], changes: Mapping[str, Mapping[str, Change]], what: str) -> None:
    x, y = (float(plain[f"{what}, {which}"]) for which in ("better", "worse"))
    for rank, (method, row) in enumerate(changes.items()):
        dx, dy = row[f"{what}, better"], row[f"{what}, worse"]
        color = COLORS[rank % len(COLORS)]
        line = "-" if rank < len(COLORS) else "--"
        style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.2, "linestyle": line, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", (x + dx.mean, y + dy.mean), (x, y), arrowprops=style)
        panel.errorbar(
            x + dx.mean,
            y + dy.mean,
            xerr=dx.half,
            yerr=dy.half,
            color=color,
            marker="o" if rank < len(COLORS) else "s",
            markersize=4,
            linewidth=0.8,
            alpha=0.8,
            label=method,
            linestyle="none",
        )
    panel.plot(x, y, marker="*", markersize=13, color="black", linestyle="none", label="plain training")
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    ends = max(left, low), min(right, high)
    if ends[0] < ends[1]:
        panel.plot(ends, ends, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    panel.set(xlim=(left, right), ylim=(low, high))


def _names(runs: pd.DataFrame) -> list[str]:
    return [str(name).removeprefix("loss/") for name in runs if str(name).startswith("loss/")]


def _sum(runs: pd.DataFrame, who: str) -> pd.Series[float]:
    total: pd.Series[float] = runs[f"ipr.precision/{who}"] + runs[f"ipr.recall/{who}"]
    return total


def _groups(runs: pd.DataFrame) -> tuple[str, str]:
    """Return the group with the higher precision + recall under plain training, and the other one."""
    plain = runs[runs["kind"] == "plain"]
    better, worse = sorted(_names(runs), key=lambda name: -float(_sum(plain, name).mean()))
    return better, worse


def _columns(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that matter, for every run: the groups, all together, the gap, and the losses."""
    better, worse = _groups(runs)
    return pd.DataFrame(
        {
            f"{_SUM}, better": _sum(runs, better),
            f"{_SUM}, worse": _sum(runs, worse),
            f"{_SUM}, overall": _sum(runs, "all"),
            "δ-PR": runs["ipr.delta_pr"],
            "loss, better": runs[f"loss/{better}"],
            "loss, worse": runs[f"loss/{worse}"],
        }
    )


def _methods(runs: pd.DataFrame, *kinds: str) -> list[str]:
    return [str(method) for method in runs.loc[runs["kind"].isin(kinds), "method"].unique()]


def _by_method(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(method), chosen) for method, chosen in table.groupby("method", sort=False)]


def _by_score(runs: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, str]]:
    return [
        {
            "method": method,
            **{
                f"{score} {group}": cell(chosen[f"ipr.{score}/{group}"], _DIGITS)
                for group in groups
                for score in ("precision", "recall")
            },
        }
        for method, chosen in _by_method(runs)
    ]


def _verdict(changes: Mapping[str, Mapping[str, Change]], strategies: Sequence[str], better: str, worse: str) -> str:
    """Say in two sentences which strategies raise the worse group, and what happens to the better one."""
    of_worse = {method: row[f"{_SUM}, worse"] for method, row in changes.items()}
    of_better = {method: row[f"{_SUM}, better"] for method, row in changes.items()}
    raised = [method for method in strategies if of_worse[method].sign > 0]
    first = (
        f"Worse group ({worse}): {len(raised) or 'none'} of {len(strategies)} strategies raise its precision + recall "
        f"beyond noise ({(1 - LEVEL) / 2 * len(strategies):.1f} would by chance)"
    )
    if raised:
        first += ": " + "; ".join(f"{method} {of_worse[method]}" for method in raised)
    first += "".join(f" (to compare, {method}: {of_worse[method]})" for method in changes if method not in strategies)
    if raised:
        told = "; ".join(f"{method} {of_better[method]}{_remark(of_better[method])}" for method in raised)
        return f"{first}.\n\nThe better group ({better}) then changes by: {told}."
    lowered = [f"{method} {of_better[method]}" for method in strategies if of_better[method].sign < 0]
    return f"{first}.\n\nThe better group ({better}) falls beyond noise under: {'; '.join(lowered) or 'none'}."


def _caution(runs: pd.DataFrame) -> list[str]:
    early = runs.loc[runs["kind"] != "real", "stopped_early"]
    if early.mean() >= 0.5:
        return []
    return [
        f"Caution: {int((1 - early).sum())} of {len(early)} trainings were still improving at their last step. So this "
        "compares how fast groups are learnt, not what can be reached; with more steps it can turn around."
    ]


def _remark(change: Change) -> str:
    if change.sign < 0:
        return " (a cost)"
    lowest = change.mean - change.half
    return "" if lowest >= 0 else f" (a cost of up to {-lowest:.{_DIGITS}f} is not excluded)"


def _notes(runs: pd.DataFrame, facts: Mapping[str, Any]) -> list[str]:
    models, real = (runs[(runs["kind"] == "real") == is_real] for is_real in (False, True))
    return [
        f"quality: precision + recall of all groups together is {_sum(models, 'all').mean():.2f} on average over the "
        f"models, {_sum(real, 'all').mean():.2f} for other real samples",
        *(f"{name}: {fact}" for name, fact in facts.items()),
        "Real: other real samples in place of generated ones, the scores of a perfect model.",
        MEAN_OF_A_GAP,
    ]
