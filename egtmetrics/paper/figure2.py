"""The paper's Figure 2: precision against recall of every group, for models under several settings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from egtmetrics.plots import COLORS, plot_precision_recall

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCORES = ("precision", "recall")


def figure2_points(runs: pd.DataFrame, groups: Sequence[str], *, model: str = "", metric: str = "topp") -> pd.DataFrame:
    """Return the points of Figure 2 for the runs of one model.

    Parameters
    ----------
    runs
        One row per repetition and setting: the setting under ``method``, scores in [0, 1] under names such as
        ``topp.precision/male``. A setting without scores is left out.
    groups
        Names of the groups, in the order of their colours.
    model
        Its name, "" where there is only one.
    metric
        Which precision and recall.

    Returns
    -------
    pandas.DataFrame
        A row per setting and group: ``model``, ``setting``, ``group``, the means ``precision`` and ``recall`` and their
        standard deviations (ddof 1) ``precision_spread`` and ``recall_spread``, NaN for one repetition.

    Examples
    --------
    >>> import pandas as pd
    >>> scores = {"topp.precision/f": [0.8, 0.6], "topp.recall/f": [0.5, 0.5]}
    >>> runs = pd.DataFrame({"method": ["Pretrained", "Pretrained"], **scores})
    >>> figure2_points(runs, ["f"]).round(2).to_dict("records")[0]["precision_spread"]
    0.14
    """
    rows = []
    for setting, chosen in runs.groupby("method", sort=False):
        for group in groups:
            row: dict[str, str | float] = {"model": model, "setting": str(setting), "group": group}
            for score in _SCORES:
                values = chosen[f"{metric}.{score}/{group}"]
                row |= {score: values.mean(), f"{score}_spread": values.std()}
            rows.append(row)
    return pd.DataFrame(rows).dropna(subset=list(_SCORES)).reset_index(drop=True)


def draw_figure2(points: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw each group at its precision and recall, with its spread as bars; a dashed line joins the groups of a model.

    Parameters
    ----------
    points
        Of :func:`figure2_points`, or several of these joined. The columns of spreads may be missing.
    ax
        Axes to draw on, instead of new ones.

    Raises
    ------
    ImportError
        matplotlib is missing.
    ValueError
        There is no point.

    References
    ----------
    The paper, section 3.2, Figure 2.

    Examples
    --------
    >>> import pandas as pd
    >>> values = [("pretrained", "male", 0.55, 0.77), ("pretrained", "female", 0.77, 0.66)]
    >>> points = pd.DataFrame(values, columns=["setting", "group", "precision", "recall"]).assign(model="LLaMA 1B")
    >>> draw_figure2(points).texts[0].get_text()
    'LLaMA 1B, pretrained'
    """
    models = {
        ", ".join(str(name) for name in names if name): chosen.set_index("group")[list(_SCORES)].rename_axis(None)
        for names, chosen in points.groupby(["model", "setting"], sort=False)
    }
    axes = plot_precision_recall(models, ax=ax)
    spreads = [f"{score}_spread" for score in _SCORES]
    if not set(spreads) <= set(points):
        return axes
    view = np.array([axes.get_xlim(), axes.get_ylim()])
    groups = dict.fromkeys(group for scores in models.values() for group in scores.index)
    for group, color in zip(groups, itertools.cycle(COLORS), strict=False):
        chosen = points[points["group"] == group]
        center, spread = (100 * chosen[columns].to_numpy(dtype=float).T for columns in (list(_SCORES), spreads))
        spread = np.nan_to_num(spread)
        x, y = center
        axes.errorbar(x, y, xerr=spread[0], yerr=spread[1], fmt="none", ecolor=color, elinewidth=1, alpha=0.6)
        ends = np.concatenate([center - spread, center + spread], axis=1).clip(0.0, 100.0)
        view = np.stack([np.minimum(view[:, 0], ends.min(axis=1)), np.maximum(view[:, 1], ends.max(axis=1))], axis=1)
    axes.set(xlim=view[0], ylim=view[1])
    return axes
