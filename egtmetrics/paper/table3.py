"""The paper's Table 3: whether gaps in proportions go with gaps in quality, over runs of Tables 1 and 2 together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from egtmetrics._errors import listed
from egtmetrics.paper._report_parts import LEVEL, document

_COMPARED = {"mgo": "δ-MGO", "ego": "δ-EGO"}
_GENERATED = {"mgo_generated": "δ-MGO before rejection", "ego_generated": "δ-EGO before rejection"}
_GAPS = {"topp.delta_p": "δ-P", "topp.delta_r": "δ-R", "topp.delta_pr": "δ-PR", "fid.delta_fid": "δ-FID"}
_ROWS = _COMPARED | _GENERATED
_COLUMNS = _COMPARED | _GAPS
_UNIT = ["experiment", "seed"]
_FEWEST_UNITS = 5
"""Fewest independent seeds for an interval."""
_DECIMALS = 3
"""Of disparities of proportions: groups of whole samples meet proportions only up to rounding."""
_CONSTANT, _DIGITS = 1e-12, 9
"""Largest standard deviation of what is constant; digits after which a correlation is 1."""


def load_runs(folders: Sequence[str | Path]) -> pd.DataFrame:
    """Read the runs of models from finished folders of ``egtmetrics reproduce table1`` and ``table2``.

    Returns
    -------
    pandas.DataFrame
        A row per run that has scores, without the rows of real data: ``experiment`` (the folder), ``seed``, ``method``,
        ``generation`` and the disparities. ``mgo`` and ``ego`` are those of the samples that were compared,
        ``mgo_generated`` and ``ego_generated`` those before rejection.

    Raises
    ------
    ValueError
        A folder holds no such runs, is given twice, or has no run with scores.
    """
    given = [str(folder) for folder in folders]
    if len({Path(folder).resolve() for folder in given}) < len(given) or not given:
        raise ValueError(f"folders={given}; pass at least one folder, and each only once")
    parts = []
    for folder in given:
        path = Path(folder) / "runs.csv"
        if not path.is_file():
            raise ValueError(f"{folder} has no runs.csv; pass folders of finished runs of reproduce table1 or table2")
        try:
            runs = pd.read_csv(path)
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read ({error}); run its command again to write it anew") from error
        if missing := [name for name in ("seed", "method", *_ROWS, *_GAPS) if name not in runs]:
            raise ValueError(f"{path} lacks {listed(missing)}; pass folders of reproduce table1 or table2")
        runs = runs.dropna(subset=[*_ROWS, *_GAPS])  # real data have no proportions, models without samples no scores
        if runs.empty:
            raise ValueError(f"{path} has no run with scores; leave {folder} out")
        if "generation" not in runs:
            runs["generation"] = "MGO"
        runs[[*_ROWS]] = runs[[*_ROWS]].round(_DECIMALS)
        parts.append(runs.assign(experiment=folder)[[*_UNIT, "method", "generation", *_ROWS, *_GAPS]])
    return pd.concat(parts, ignore_index=True)


def correlate(runs: pd.DataFrame, *, within: bool = False) -> pd.DataFrame:
    r"""Correlate disparities of proportions with all disparities, with intervals that respect the seeds.

    Pearson's correlation over all runs. With ``within``, every disparity is first standardised in its experiment (less
    its mean, over its standard deviation), so that differences between experiments do not count; an experiment in which
    one of the two disparities is constant is then left out.

    Runs of one seed share their split, and some their model; only seeds are independent. So the interval comes from
    leaving out one of the :math:`k` seeds of all experiments at a time: with :math:`z = \operatorname{artanh} r` and
    :math:`z_{(i)}` without seed i,

    .. math:: z \pm t_{k-1} \sqrt{\tfrac{k-1}{k} \sum_i (z_{(i)} - \bar z)^2}.

    In simulations with 5 to 20 seeds of four runs it missed the correlation in 3.5 to 8 % of the cases instead of 5 %
    (benchmarks/results/correlations.md).

    Parameters
    ----------
    runs
        Of :func:`load_runs`.
    within
        Whether to standardise within each experiment.

    Returns
    -------
    pandas.DataFrame
        A row per pair: ``row``, ``column``, ``r``, ``low``, ``high``, ``runs`` and ``seeds`` that count. r is NaN where
        a disparity is constant. The interval is NaN with fewer than 5 seeds, and where r is 1 or -1.

    References
    ----------
    The paper, section 5, Table 3. Efron: The Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 3.

    Examples
    --------
    >>> import pandas as pd
    >>> runs = pd.DataFrame({"experiment": "a", "seed": [0, 0, 1, 1], "mgo": [0.0, 0.1, 0.0, 0.1]})
    >>> runs["ego"] = runs["mgo_generated"] = runs["ego_generated"] = 0.5 - runs["mgo"]
    >>> for gap in ("topp.delta_p", "topp.delta_r", "topp.delta_pr", "fid.delta_fid"):
    ...     runs[gap] = [0.1, 0.3, 0.2, 0.2]
    >>> correlate(runs).iloc[1:3][["row", "column", "r"]].round(2).values.tolist()
    [['mgo', 'ego', -1.0], ['mgo', 'topp.delta_p', 0.71]]
    """
    return pd.DataFrame([correlate_pair(runs, row, column, within=within) for row in _ROWS for column in _COLUMNS])


def describe_table3(runs: pd.DataFrame, *, markdown: bool = False) -> str:
    """Return Table 3 for these runs, pooled and within the experiments, and what it does not show.

    Parameters
    ----------
    runs
        Of :func:`load_runs`.
    markdown
        Pipe tables instead of those for a terminal.
    """
    pooled = correlate(runs)
    sections = {f"Table 3: correlations over all {len(runs)} runs ({LEVEL:.0%} interval)": _table(pooled)}
    lines = [_beyond_zero("over all runs", pooled)]
    several = runs["experiment"].nunique() > 1
    if several:
        within = correlate(runs, within=True)
        title = "The same within the experiments: each disparity less its mean in the experiment, over its spread"
        sections[title] = _table(within)
        lines.append(_beyond_zero("within the experiments", within))
    sections["Runs"] = _experiments(runs)
    notes = [
        "δ-MGO and δ-EGO describe the samples that were compared. Where these were made to have given proportions, "
        "they take at most two values in an experiment: their rows compare MGO with EGO, not fair with unfair models. "
        "The rows before rejection use the proportions that each model generated (for Conditional and "
        "Prompted, mostly those that were asked for).",
        *(
            [
                "Over all runs, a correlation can come from differences between the experiments alone: their data, "
                "features and sizes differ, δ-FID even in its unit. The second table leaves these out."
            ]
            if several
            else []
        ),
        "Only seeds are independent, not the runs of a seed; the interval leaves out one seed at a time. It speaks of "
        "other seeds of these experiments, not of other models or data. The seeds of an experiment split the same "
        "data, which makes it too narrow rather than too wide. "
        f"With fewer than {_FEWEST_UNITS} seeds there is none.",
        "A correlation near 0 does not show that proportions and quality are unrelated: the interval says which "
        "correlations remain possible, and disparities of a few seeds are mostly noise, which weakens any correlation.",
        "A correlation is no cause: the ways to train change proportions and quality at once.",
        "Blank: a disparity is constant there.",
    ]
    return document(sections, lines, notes, markdown=markdown)


def _table(correlations: pd.DataFrame) -> list[dict[str, str]]:
    rows = []
    for row, of_row in correlations.groupby("row", sort=False):
        cells = {_COLUMNS[pair["column"]]: _text(pair) for pair in of_row.to_dict("records")}
        rows.append({"": _ROWS[str(row)], **cells})
    return rows


def _text(pair: Mapping[Any, Any]) -> str:
    if np.isnan(pair["r"]):
        return ""
    text = f"{pair['r']:.2f}"
    return text if np.isnan(pair["low"]) else f"{text} ({pair['low']:.2f} to {pair['high']:.2f})"


def _experiments(runs: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "experiment": str(experiment),
            "runs": str(len(chosen)),
            "seeds": str(chosen["seed"].nunique()),
            "proportions": ", ".join(chosen["generation"].unique()),
            "methods": ", ".join(chosen["method"].unique()),
            **{f"mean {name}": f"{chosen[column].mean():.3g}" for column, name in (_COMPARED | _GAPS).items()},
        }
        for experiment, chosen in runs.groupby("experiment", sort=False)
    ]


def _beyond_zero(which: str, correlations: pd.DataFrame) -> str:
    """Count the correlations with a gap in quality whose interval excludes 0."""
    tested = correlations[correlations["column"].isin(_GAPS) & correlations["low"].notna()]
    if tested.empty:
        return f"Correlations {which}: no interval, for lack of seeds or because a disparity is constant."
    found = tested[(tested["low"] > 0.0) | (tested["high"] < 0.0)]
    lines = [
        f"  {_ROWS[pair['row']]} and {_COLUMNS[pair['column']]}: {_text(pair)}" for pair in found.to_dict("records")
    ]
    head = (
        f"Correlations with a gap in quality {which} whose interval excludes 0: {len(found)} of {len(tested)}, where "
        f"{(1 - LEVEL) * len(tested):.1f} would by chance."
    )
    return "\n".join([head, *lines])


def correlate_pair(runs: pd.DataFrame, row: str, column: str, *, within: bool = False) -> dict[str, Any]:
    """Return a row of :func:`correlate`."""
    values = runs[[row, column]].to_numpy(dtype=float)
    experiments = pd.factorize(runs["experiment"])[0] if within else None
    units = runs.groupby(_UNIT, sort=False).ngroup().to_numpy()
    r, used = _correlation(values, experiments)
    counted = np.unique(units[used])
    rest = [used & (units != unit) for unit in counted]
    without = [_correlation(values[kept], None if experiments is None else experiments[kept])[0] for kept in rest]
    low, high = _jackknife(r, np.array(without))
    return {"row": row, "column": column, "r": r, "low": low, "high": high, "runs": used.sum(), "seeds": len(counted)}


def _correlation(values: NDArray[np.float64], experiments: NDArray[np.int64] | None) -> tuple[float, NDArray[np.bool_]]:
    """Return Pearson's correlation of two columns, NaN if it is not defined, and the rows that it counts.

    If their experiments are given, the columns are first standardised in each.
    """
    used = np.ones(len(values), dtype=np.bool_)
    if experiments is not None:
        values = values.copy()
        for experiment in np.unique(experiments):
            rows = experiments == experiment
            spread = values[rows].std(axis=0)
            if spread.min() > _CONSTANT:
                values[rows] = (values[rows] - values[rows].mean(axis=0)) / spread
            else:
                used[rows] = False
    counted = values[used]
    if len(counted) < 2 or counted.std(axis=0).min() <= _CONSTANT:
        return np.nan, used
    standard = (counted - counted.mean(axis=0)) / counted.std(axis=0)
    return float((standard[:, 0] * standard[:, 1]).mean()), used


def _jackknife(r: float, without: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval of r from the correlations without one unit each."""
    k = len(without)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.arctanh(np.append(without.round(_DIGITS), round(r, _DIGITS)))
    if k < _FEWEST_UNITS or not np.isfinite(z).all():
        return np.nan, np.nan
    error = np.sqrt((k - 1) / k * ((z[:-1] - z[:-1].mean()) ** 2).sum())
    half = float(stats.t.ppf(0.5 + LEVEL / 2, k - 1)) * error
    return float(np.tanh(z[-1] - half)), float(np.tanh(z[-1] + half))
