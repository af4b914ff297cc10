"""How much known damage to real samples would give the scores of the model: a dose, by group.

A gap in a score is in the unit of the score, and what it means depends on the group: the same damage lowers precision
by more where the data are of high dimension. A dose is in the unit of the damage. Every group is read against its own
curve, so that equal damage is equal treatment.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from egtmetrics._errors import listed
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_positive_int, take_checked
from egtmetrics.groups._evaluation import (
    MetricSet,
    Refused,
    naming_metric,
    one_refusal,
    refusing,
    warn_of_caveats,
    warn_of_refusals,
)
from egtmetrics.groups._saved import plain
from egtmetrics.groups.baseline import N_SPLITS, draw_splits, set_sizes
from egtmetrics.groups.damage import Damage, Damages, mean_variance, name_damages
from egtmetrics.groups.disparity import ScoreTable, disparity_table, score_table
from egtmetrics.groups.inference import (
    MIN_CLUSTERS,
    MIN_SAMPLES,
    FrameIntervals,
    Inference,
    normal_quantile,
    score_uncertainty,
)
from egtmetrics.metrics.subsampling import Clusters, n_units
from egtmetrics.metrics.variance import JointScores, ScoreCovariance, joint_scores
from egtmetrics.ops import Features, to_host
from egtmetrics.registry import callable_name
from egtmetrics.results import MetricResult
from egtmetrics.samples import GroupedSamples

Floats: TypeAlias = NDArray[np.float64]

_LEVEL = 0.95
_Z = normal_quantile(_LEVEL)
_STEPS = 1000
_SEED_OF_DAMAGE = 4
_SEED_OF_PARTS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One score of one group: at every dose, and of the model.

    The curve is the monotone fit (isotonic regression) to the scores at the doses, interpolated by monotone cubics.
    """

    doses: Floats
    """``(K,)``."""
    scores: Floats
    """``(K,)``: of other real samples damaged by each dose."""
    errors: Floats
    """``(K,)``: the standard errors of the differences between the model's score and each of these."""
    model: float

    @functools.cached_property
    def sign(self) -> float:
        """1 if the score grows with the dose, else -1."""
        return 1.0 if np.dot(self.doses - self.doses.mean(), self.scores) > 0 else -1.0

    @functools.cached_property
    def grid(self) -> Floats:
        """Doses, near to each other."""
        return np.linspace(0.0, float(self.doses[-1]), _STEPS + 1)

    @functools.cached_property
    def _knots(self) -> Floats:
        """The monotone fit at the doses."""
        if not np.isfinite(self.scores).all():
            return np.full(len(self.doses), math.nan)
        from sklearn.isotonic import IsotonicRegression  # longer to import than all of this package

        fit = IsotonicRegression(increasing=self.sign > 0).fit_transform(self.doses, self.scores)
        return np.asarray(fit, dtype=float)

    @functools.cached_property
    def fitted(self) -> Floats:
        """The curve on the grid."""
        return self._between(self._knots)

    @functools.cached_property
    def misfits(self) -> Floats:
        """How many standard errors the model is from damaged real samples, on the grid; no curve need be monotone."""
        return self._in_errors(self.model - self._between(self.scores))

    @functools.cached_property
    def _beyond(self) -> Floats:
        """By how much the model's score is beyond the curve, in its direction; never short of where it starts."""
        curve = self.sign * self.fitted
        return np.asarray(np.maximum(self.sign * self.model, curve[0]) - curve)

    def _between(self, scores: Floats) -> Floats:
        if not np.isfinite(scores).all():
            return np.full(len(self.grid), math.nan)
        return _interpolated(self.doses, scores, self.grid)

    @functools.cached_property
    def _unresolved(self) -> Floats:
        """By how much the curve may be wrong between the doses, on the grid.

        A curve through the other doses misses one that is left out by some distance. With that dose, the gaps are half
        as long, and the error is half as large at most, in the middle.
        """
        missed = np.zeros(len(self.doses))
        for k in range(1, len(self.doses) - 1):
            others = np.delete(self.doses, k), np.delete(self._knots, k)
            missed[k] = abs(float(_interpolated(*others, self.doses[k])) - self._knots[k])
        gap = np.searchsorted(self.doses[1:-1], self.grid, side="right")
        share = (self.grid - self.doses[gap]) / np.diff(self.doses)[gap]
        return np.asarray(np.maximum(missed[:-1], missed[1:])[gap] * 2.0 * share * (1.0 - share))

    def _in_errors(self, differences: Floats) -> Floats:
        errors = np.hypot(np.interp(self.grid, self.doses, self.errors), self._unresolved)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(differences == 0.0, 0.0, differences / errors))

    def ends(self, z: float) -> tuple[float | None, float | None]:
        """Return the smallest and the largest dose from which the model differs by at most ``z`` standard errors.

        None if there is no such end: if no dose, or the largest one, differs by more. A score that turns back by more
        than 1.96 standard errors as the dose grows has neither.
        """
        if not (np.abs(self.scores - self._knots) <= _Z * self.errors).all():
            return None, None
        beyond = self._in_errors(self._beyond)
        above, below = beyond > z, beyond < -z
        low = None if not above[0] else float(self.grid[min(int(np.flatnonzero(above)[-1]) + 1, _STEPS)])
        high = None if not below[-1] else float(self.grid[max(int(np.flatnonzero(below)[0]) - 1, 0)])
        return low, high

    @functools.cached_property
    def dose(self) -> float:
        """The smallest dose whose score is that of the model, 0 if the damage moves the score the other way.

        NaN if the largest dose is not enough, or if the score has neither of the ``ends``.
        """
        reached = np.flatnonzero(self._beyond <= 0.0)
        if self.ends(_Z) == (None, None) or not len(reached):
            return math.nan
        around = slice(max(int(reached[0]) - 1, 0), int(reached[0]) + 1)
        return float(np.interp(0.0, self._beyond[around][::-1], self.grid[around][::-1]))

    @functools.cached_property
    def error(self) -> float:
        """The standard error of the dose: the longer side of its 95 % interval within the doses, in normal quantiles.

        Not the derivative: a curve may be flat at the dose and steep beside it.
        """
        low, high = self.ends(_Z)
        below = self.dose - (0.0 if low is None else low)
        above = (self.doses[-1] if high is None else high) - self.dose
        return max(below, above) / _Z

    def interval(self, level: float, most: float) -> tuple[float, float]:
        """Return the interval of the dose; ``most`` is its upper end where even the largest dose may be too small."""
        if np.isnan(self.misfits).any():
            return math.nan, math.nan
        low, high = self.ends(normal_quantile(level))
        return 0.0 if low is None else low, most if high is None else high


def _interpolated(doses: Floats, scores: Floats, at: Any) -> Floats:
    """Interpolate between points by cubics that rise and fall only where the points do."""
    from scipy.interpolate import PchipInterpolator

    return np.asarray(PchipInterpolator(doses, scores)(at), dtype=float)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measured:
    """What was measured of one group under one damage, by metric."""

    scores: dict[str, Floats]
    """``(1 + K, S)``: of the model, then at every dose."""
    joint: dict[str, JointScores]
    """Of two pairs of sets for the model, then two for every dose."""
    n_rounds: int
    n_disjoint: int

    def covariance(self, metric: str, doses: NDArray[np.int64]) -> ScoreCovariance:
        """Return the covariance of the differences of the model's scores from those at a dose for each score."""
        needed = np.unique(doses)
        weights = [np.full(len(doses), 0.5)] * 2 + [-0.5 * (doses == dose) for dose in needed for _ in range(2)]
        pairs = [0, 1, *(2 + 2 * dose + side for dose in needed for side in range(2))]
        joint = self.joint[metric].among(pairs)
        return joint.covariance_of_mean(weights, n_rounds=self.n_rounds, n_disjoint=self.n_disjoint)


class _Set(NamedTuple):
    """Features, and the clusters of their rows."""

    features: Features
    clusters: Clusters


class DoseResponse:
    """By group, which dose of known damage gives real samples the scores of the model.

    ``GenerativeMetricFrame.dose_response`` makes it.

    Attributes
    ----------
    doses : DataFrame
        The doses that the scores read, indexed by damage and group, one column per score, as in ``frame.by_group``. NaN
        if the largest dose is not enough, the score cannot tell it from 0, or the score turns back as the dose grows.
    agreement : DataFrame
        By damage and group, whether there is a dose at which *all* scores are those of the model: ``dose``, at which
        the worst of them fits best; ``low`` and ``high``, the 95 % interval of the doses at which none misfits;
        ``misfit``, the largest distance of a score from the model's at ``dose``, in standard errors; ``p_value``, of so
        large a misfit if the damage were that of the model.
    damages : dict
        What was done, by name: each :class:`Damage`.
    explanation : str or None
        The damage under which the scores agree best, if they agree in every group (``p_value``, corrected for the
        number of groups, above 0.05). None if no known damage explains the scores. It need not be what was done: of two
        damages at once, the stronger one alone often explains the scores.
    curves : DataFrame
        Indexed by damage, group and dose: the scores of other real samples damaged by each dose.
    model : DataFrame
        By damage and group, the scores of the model at the same numbers of samples.
    settings : dict
        ``damages``: by name, ``label``, ``doses`` and ``share`` of each; ``n_samples``; ``n_splits``.
    """

    doses: pd.DataFrame
    agreement: pd.DataFrame
    damages: dict[str, Damage]
    explanation: str | None
    curves: pd.DataFrame
    model: pd.DataFrame
    settings: dict[str, Any]

    def __init__(
        self,
        damages: Mapping[str, Damage],
        described: Mapping[str, ScoreTable],
        measured: Mapping[str, Mapping[Hashable, _Measured]],
        caveats: Mapping[Hashable, Mapping[str, tuple[str, ...]]],
        *,
        index: pd.Index[Any],
        names: Mapping[Hashable, str],
        settings: dict[str, Any],
        share_clusters: bool = False,
    ) -> None:
        self._share_clusters = share_clusters
        self.damages = dict(damages)
        self._described, self._measured = described, measured
        self._index, self._names, self._caveats = index, names, caveats
        self.settings = settings
        self._columns = {
            table.column(score): (metric, score) for metric, table in described.items() for score in table.described
        }
        self._curves = {
            name: {label: self._curves_of(damages[name], found) for label, found in by_group.items()}
            for name, by_group in measured.items()
        }
        self._doses = {name: self._table(name, lambda curve: curve.dose) for name in damages}
        self._agreement = {name: self._agreement_of(name) for name in damages}
        self._model = {name: self._table(name, lambda curve: curve.model) for name in damages}
        self.doses, self.agreement, self.model = (
            pd.concat(tables, names=["damage"]) for tables in (self._doses, self._agreement, self._model)
        )
        self.explanation = self._explanation()
        scores = {
            (name, *_levels(label), dose): [curve.scores[k] for curve in curves.values()]
            for name, by_group in self._curves.items()
            for label, curves in by_group.items()
            for k, dose in enumerate(damages[name].doses)
        }
        self.curves = pd.DataFrame(
            list(scores.values()),
            index=pd.MultiIndex.from_tuples(scores, names=["damage", *index.names, "dose"]),
            columns=list(self._columns),
        )

    def _curves_of(self, damage: Damage, found: _Measured) -> dict[str, Curve]:
        curves = {}
        for metric, table in self._described.items():
            scores, n_scores = found.scores[metric], len(table.described)
            variances = [_variances(found.covariance(metric, np.full(n_scores, k))) for k in range(len(damage.doses))]
            for position, score in enumerate(table.described):
                curves[table.column(score)] = Curve(
                    doses=np.asarray(damage.doses),
                    scores=scores[1:, position],
                    errors=np.sqrt(variances)[:, position],
                    model=float(scores[0, position]),
                )
        return curves

    def _table(self, name: str, value: Callable[[Curve], float]) -> pd.DataFrame:
        nothing = dict.fromkeys(self._columns, math.nan)
        rows = {
            label: {column: value(curve) for column, curve in curves.items()}
            for label, curves in self._curves[name].items()
        }
        values = [rows.get(label, nothing) for label in self._index]
        return pd.DataFrame(values, index=self._index, columns=list(self._columns), dtype=float)

    def _agreement_of(self, name: str) -> pd.DataFrame:
        most = self.damages[name].describe().bounds[1]
        rows = {label: _common_dose(list(curves.values()), most) for label, curves in self._curves[name].items()}
        values = [rows.get(label, {}) for label in self._index]
        return pd.DataFrame(values, index=self._index, columns=list(_OF_AGREEMENT), dtype=float)

    def _explanation(self) -> str | None:
        found = {}
        for name, table in self._agreement.items():
            known = table[table["misfit"].notna()]
            if self.explains(name):
                silent = bool(self._doses[name].loc[known.index].isna().all(axis=1).any())
                found[name] = silent, float(known["misfit"].max())
        return min(found, key=found.__getitem__) if found else None

    def explains(self, damage: str) -> bool:
        """Return whether the scores agree under a damage in every group, each at a dose of its own.

        Several damages may explain the same scores; ``explanation`` is the one that fits best.
        """
        p_values = self._agreement[self._name(damage)]["p_value"].dropna()
        return len(p_values) > 0 and float(p_values.min()) * len(p_values) > 1.0 - _LEVEL

    def __repr__(self) -> str:
        tables = {"doses that the scores read": self.doses, "agreement of the scores": self.agreement}
        parts = [f"{title}\n{table}" for title, table in tables.items()]
        return "\n\n".join([f"{type(self).__name__}: {self.summary()}", *parts])

    def _repr_html_(self) -> str:
        """Return what notebooks show."""
        tables = {"Doses that the scores read": self.doses, "Agreement of the scores": self.agreement}
        return f"<p>{self.summary()}</p>" + "".join(
            f"<h4>{title}</h4>{table.to_html(border=0, float_format='{:.4g}'.format, na_rep='nan')}"
            for title, table in tables.items()
        )

    def summary(self) -> str:
        """Return in a sentence which damage explains the scores, and its dose for every group."""
        if self.explanation is None:
            return f"no known damage explains the scores ({listed(self.damages)} were tried)"
        damage, found = self.damages[self.explanation], self._agreement[self.explanation]
        shown, parts = damage.describe(), []
        for label, row in found[found["dose"].notna()].iterrows():
            dose, low, high = (shown.text(row[name]) for name in ("dose", "low", "high"))
            parts.append(f"{dose} [{low}, {high}] {shown.printed_unit}".rstrip() + f" for {self._names[label]}")
        unseen = "; all groups may be undamaged" if (found["low"].dropna() == 0.0).all() else ""
        return f"the scores are as if the {damage.label} were {'; '.join(parts)}{unseen}"

    def tables(self, damage: str | None = None) -> dict[str, ScoreTable]:
        """Return the doses by metric, with their descriptions and disparities: first of the scores that read a dose.

        ``damage`` is one of those given; None takes ``explanation``.
        """
        name = self._name(damage)
        tables = {}
        for metric, known in self._described.items():
            values = self._doses[name][[known.column(score) for score in known.described]]
            values = values.set_axis(list(known.described), axis=1)
            unread = values.isna().any()
            scores = {score: self.damages[name].describe(one.label) for score, one in known.described.items()}
            caveats = {label: found[metric] for label, found in self._caveats.items()}
            table = score_table(metric, values, scores, caveats)
            disparities = [one for one in table.disparities if one.column is not None]
            disparities.sort(key=lambda one: bool(unread[str(one.column)]))
            tables[metric] = dataclasses.replace(table, disparities=tuple(disparities))
        return tables

    def disparities(self, damage: str | None = None) -> pd.DataFrame:
        """Return the largest difference of doses between two groups by each score; see ``frame.disparities``.

        0 means equal damage. ``damage`` is one of those given; None takes ``explanation``.
        """
        return disparity_table(self.tables(damage))

    def interval(self, level: float = 0.95, damage: str | None = None) -> FrameIntervals:
        """Return confidence intervals for the dose of every group by each score, and for their disparities.

        The interval of a dose holds all doses at which damaged real samples have a score that is not distinguishable
        from the model's. The difference of two doses is taken for normal, with errors from these intervals.

        Parameters
        ----------
        level
            In (0, 1).
        damage
            One of those given; None takes ``explanation``.
        """
        name = self._name(damage)
        most = self.damages[name].describe().bounds[1]
        ends = {
            (column, *_levels(label)): curve.interval(level, most)
            for label, curves in self._curves[name].items()
            for column, curve in curves.items()
        }
        no_end = {column for (column, *_), (_, high) in ends.items() if high == most}
        unlimited = [
            (metric, disparity.name)
            for metric, table in self.tables(name).items()
            for disparity in table.disparities
            if table.column(str(disparity.column)) in no_end
        ]
        intervals = self._infer(name).intervals(level)
        by_group = intervals.by_group.copy()
        by_group[["low", "high"]] = [ends.get(key, (math.nan, math.nan)) for key in by_group.index]
        high = intervals.disparities["high"]
        high = high.mask(high.notna() & high.index.isin(unlimited), most)
        return dataclasses.replace(intervals, by_group=by_group, disparities=intervals.disparities.assign(high=high))

    def test(self, damage: str | None = None) -> pd.DataFrame:
        """Test every disparity of the doses: could all groups have equal damage?

        The columns are those of ``GenerativeMetricFrame.test``. ``damage`` is one of those given; None takes
        ``explanation``.
        """
        return self._infer(self._name(damage)).tests()

    def plot(self, score: str | None = None, damage: str | None = None, *, ax: Any = None) -> Any:
        """Draw one score against the dose, a curve for each group, with what is read off it; return the axes.

        Parameters
        ----------
        score
            A column of ``doses``; None draws the first that reads a dose in most groups.
        damage
            One of those given; None takes ``explanation``.
        ax
            Matplotlib axes to draw on; None makes new ones. Needs matplotlib.
        """
        from egtmetrics.plots import plot_dose_response

        name = self._name(damage)
        n_read = self._doses[name].notna().sum()
        column = str(n_read.idxmax()) if score is None else score
        if column not in self._columns:
            raise ValueError(f"score={score!r} is not a column of doses; choose one of {listed(self._columns)}")
        metric, of_metric = self._columns[column]
        curves = {self._names[label]: found[column] for label, found in self._curves[name].items()}
        rows = [
            {"score": curve.model, "dose": curve.dose}
            | dict(zip(("low", "high"), curve.interval(_LEVEL, math.inf), strict=True))
            for curve in curves.values()
        ]
        return plot_dose_response(
            {group: pd.Series(curve.fitted, index=curve.grid) for group, curve in curves.items()},
            {group: pd.Series(curve.scores, index=curve.doses) for group, curve in curves.items()},
            pd.DataFrame(rows, index=list(curves)),
            score=self._described[metric].described[of_metric],
            dose=self.damages[name].describe(),
            ax=ax,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a nested dict of plain values: by damage and group; groups have their names."""

        def rows(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
            return {
                name: {self._names[label]: row.to_dict() for label, row in table.astype(object).iterrows()}
                for name, table in tables.items()
            }

        curves = {
            name: {
                self._names[label]: {column: curve.scores.tolist() for column, curve in found.items()}
                for label, found in by_group.items()
            }
            for name, by_group in self._curves.items()
        }
        content = {
            "settings": self.settings,
            "explanation": self.explanation,
            "doses": rows(self._doses),
            "agreement": rows(self._agreement),
            "model": rows(self._model),
            "curves": curves,
        }
        return {key: plain(value) for key, value in content.items()}

    def _name(self, damage: str | None) -> str:
        if damage is None:
            if self.explanation is None:
                raise ValueError(
                    f"{self.summary()}; see agreement, and pass damage={next(iter(self.damages))!r} to read it anyway"
                )
            return self.explanation
        if damage not in self.damages:
            raise ValueError(f"damage={damage!r} was not tried; choose one of {listed(map(repr, self.damages))}")
        return damage

    def _infer(self, name: str) -> Inference:
        tables = self.tables(name)
        return Inference(
            tables=tables,
            uncertainties={
                metric: score_uncertainty(
                    table.values,
                    {label: self._covariance(name, label, table) for label in self._measured[name]},
                    in_common=self._share_clusters,
                )
                for metric, table in tables.items()
            },
        )

    def _covariance(self, name: str, label: Hashable, table: ScoreTable) -> ScoreCovariance:
        """Return the covariance of a group's doses: of its scores, times doses per score."""
        curves = [self._curves[name][label][table.column(score)] for score in table.described]
        nearest = np.array([np.abs(curve.doses - np.nan_to_num(curve.dose)).argmin() for curve in curves])
        found = self._measured[name][label].covariance(table.metric, nearest)
        errors = np.sqrt(_variances(found))
        wanted = np.array([curve.sign * np.nan_to_num(curve.error) for curve in curves])  # NaN doses stay NaN
        return found.linear(np.diag(np.divide(wanted, errors, out=np.zeros(len(errors)), where=errors > 0)))


def _levels(label: Hashable) -> tuple[Hashable, ...]:
    """Return the entries of a group in an index of rows."""
    return label if isinstance(label, tuple) else (label,)


_OF_AGREEMENT = ("dose", "low", "high", "misfit", "p_value")


def _common_dose(curves: Sequence[Curve], most: float) -> dict[str, float]:
    """Return the dose at which the worst of several scores fits the model best, as ``DoseResponse.agreement`` does.

    A misfit of J scores has a p-value of at most J times that of one score, whatever their correlations.
    """
    misfits = np.array([curve.misfits for curve in curves if not np.isnan(curve.misfits).any()])
    if not len(misfits):
        return dict.fromkeys(_OF_AGREEMENT, math.nan)
    worst = np.abs(misfits).max(axis=0)
    best = int(worst.argmin())
    grid = curves[0].grid
    within = np.flatnonzero(worst <= -ndtri((1.0 - _LEVEL) / 2 / len(misfits)))
    low, high = (
        (grid[within[0]], most if within[-1] == _STEPS else grid[within[-1]]) if len(within) else (math.nan,) * 2
    )
    p_value = min(1.0, 2.0 * len(misfits) * float(ndtr(-worst[best])))
    return dict(zip(_OF_AGREEMENT, (float(grid[best]), low, high, float(worst[best]), p_value), strict=True))


def _variances(covariance: ScoreCovariance) -> Floats:
    """Return the variance of every score, from all sources."""
    n_scores = len(covariance.data)
    found = score_uncertainty(pd.DataFrame(np.zeros((1, n_scores))), {0: covariance})
    return found.parts(np.eye(n_scores))["total"].to_numpy()


def evaluate_dose_response(
    metrics: MetricSet,
    samples: GroupedSamples,
    described: Mapping[str, ScoreTable],
    damages: Damages | None,
    *,
    n_splits: int = N_SPLITS,
    n_samples: int | None = None,
    progress: bool = False,
) -> DoseResponse:
    """Score damaged real samples and the model against other real samples; see ``GenerativeMetricFrame``."""
    n_splits = check_positive_int(n_splits, "n_splits")
    groups = {label: samples.group(label) for label in samples.groups.on_both_sides()}
    spread = math.sqrt(np.mean([mean_variance(to_host(group.real)) for group in groups.values()]))
    named = name_damages(damages, spread)
    sides = {label: [group.real, group.fake] for label, group in groups.items()}
    clusters = {label: [*group.clusters] for label, group in groups.items()}
    rows_needed = 1 + max(_rows(group, np.arange(len(group.real))).max() for group in groups.values())
    for name, damage in named.items():
        if damage.samples is not None and len(damage.samples) < rows_needed:
            raise ValueError(
                f"damage {name!r} has {len(damage.samples)} samples, but the frame has {rows_needed} real rows; pass "
                "one sample for each real row, in the same order"
            )
    size, n_disjoint = set_sizes(sides, clusters, samples, 2, n_samples)
    n_calls = n_pairs(named) * len(metrics.bound) * n_splits * sum(n_disjoint.values())
    measured: dict[str, dict[Hashable, _Measured]] = {name: {} for name in named}
    first: dict[Hashable, dict[str, MetricResult]] = {}
    refused: Refused = {}
    with tqdm(total=n_calls, desc="doses", unit="call", disable=not progress) as bar:
        for label, group in groups.items():
            splits = draw_splits(sides[label], clusters[label], size, 2, n_disjoint[label], n_splits, metrics.seed)
            of_splits = [
                (
                    [_taken(group.real, group.clusters[0], rows) for rows in real],
                    [_taken(group.fake, group.clusters[1], rows) for rows in fake],
                    [_rows(group, rows) for rows in real],
                )
                for real, fake in splits
            ]
            for name, damage in named.items():
                where = f"group {samples.groups.name(label)!r}, damage {name!r}"
                refuse = refusing(None if metrics.strict else refused, label)
                scores: list[dict[str, Floats]] = []
                for position, (real, fake, rows) in enumerate(of_splits):
                    pairs = _pairs(damage, real, fake, rows, [metrics.seed, _SEED_OF_DAMAGE, position])
                    results = [metrics.call(x.features, y.features, where, bar.update, refuse) for x, y in pairs]
                    able = metrics.without(refused)
                    if not able.bound:
                        raise one_refusal(refused)
                    scores.append({metric: _means(results, metric) for metric in able.bound})
                    if position == 0:
                        joint = _joint_scores(able, pairs, results, where)
                        first.setdefault(label, results[0])
                measured[name][label] = _Measured(
                    scores={metric: np.mean([one[metric] for one in scores], axis=0) for metric in able.bound},
                    joint=joint,
                    n_rounds=n_splits,
                    n_disjoint=n_disjoint[label],
                )
    warn_of_refusals(refused, "dose", stacklevel=3)
    response = DoseResponse(
        named,
        {metric: table for metric, table in described.items() if metric not in refused},
        measured,
        {
            label: {metric: (*result.caveats, *groups[label].cluster_caveats()) for metric, result in results.items()}
            for label, results in first.items()
        },
        index=samples.groups.index,
        names={label: samples.groups.name(label) for label in samples.groups.index},
        settings={
            "damages": {
                name: {"label": damage.label, "doses": list(damage.doses), "share": damage.share}
                for name, damage in named.items()
            },
            "n_samples": n_samples,
            "n_splits": n_splits,
        },
        share_clusters=samples.share_clusters(),
    )
    warn_of_caveats(first, stacklevel=3)
    return response


def n_pairs(damages: Mapping[str, Damage]) -> int:
    """Return how many pairs of sets are scored in one split of a group: two of the model, and two at every dose."""
    return sum(2 + 2 * len(damage.doses) for damage in damages.values())


def _rows(group: GroupedSamples, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the original real samples."""
    return rows if group.real_rows is None else group.real_rows[rows]


def _taken(features: Features, clusters: Clusters, rows: NDArray[np.int64]) -> _Set:
    return _Set(take_checked(features, rows), None if clusters is None else clusters[rows])


def _pairs(
    damage: Damage,
    real: Sequence[_Set],
    fake: Sequence[_Set],
    rows: Sequence[NDArray[np.int64]],
    seed: Sequence[int],
) -> list[tuple[_Set, _Set]]:
    """Return what is scored: both halves with generated ones, then at every dose with the other half, damaged.

    All second sets have as many rows as the damage leaves at its largest dose; the rows are in random order.
    """
    damaged = [
        [_damaged(damage, real[side], rows[side], dose, np.random.default_rng([*seed, side])) for dose in damage.doses]
        for side in range(2)
    ]
    size = min(len(one.features) for of_side in damaged for one in of_side)
    pairs = [(real[side], fake[side]) for side in range(2)]
    pairs += [(real[side], damaged[1 - side][k]) for k in range(len(damage.doses)) for side in range(2)]
    first = np.arange(size)
    return [(x, y if len(y.features) == size else _taken(*y, first)) for x, y in pairs]


def _damaged(damage: Damage, real: _Set, rows: NDArray[np.int64], dose: float, rng: np.random.Generator) -> _Set:
    """Return a set at a dose; a damaged sample stays in its cluster."""
    features = damage.apply(real.features, rows, dose, rng)
    if real.clusters is None or len(features) == len(real.features):
        return _Set(features, real.clusters)
    where: dict[bytes, list[int]] = {}
    for position, row in enumerate(np.ascontiguousarray(to_host(real.features)[:])):
        where.setdefault(row.tobytes(), []).insert(0, position)
    try:
        kept = [where[row.tobytes()].pop() for row in np.ascontiguousarray(to_host(features)[:])]
    except (KeyError, IndexError):
        raise ValueError(
            f"the damage {callable_name(damage.function)!r} leaves fewer samples and changes them, so it is not known "
            "which clusters they are in; return as many samples, or leave out rows only"
        ) from None
    return _Set(features, real.clusters[kept])


def _means(results: Sequence[Mapping[str, MetricResult]], metric: str) -> Floats:
    """Return the scores ``(1 + K, S)``, averaged over the two pairs of every dose."""
    scores = np.array([list(one[metric].scores().values()) for one in results])
    return np.asarray(scores.reshape(-1, 2, scores.shape[1]).mean(axis=1))


def _joint_scores(
    metrics: MetricSet,
    pairs: Sequence[tuple[_Set, _Set]],
    results: Sequence[Mapping[str, MetricResult]],
    where: str,
) -> dict[str, JointScores]:
    smallest = min(len(one.features) for pair in pairs for one in pair)
    if smallest < MIN_SAMPLES:
        raise ValueError(
            f"{where}: sets of {smallest} samples are compared, and the error of a dose needs at least {MIN_SAMPLES}; "
            "add samples, merge groups, or leave out the damage or its largest doses"
        )
    fewest = min(n_units(MIN_CLUSTERS, one.clusters) for pair in pairs for one in pair)
    if fewest < MIN_CLUSTERS:
        raise ValueError(
            f"{where}: sets of {fewest} clusters are compared, and the error of a dose needs at least {MIN_CLUSTERS}; "
            "add clusters, or merge groups"
        )
    sets: list[_Set] = []
    for one in (one for pair in pairs for one in pair):
        if not any(one.features is other.features for other in sets):
            sets.append(one)
    positions = [(_position(x, sets), _position(y, sets)) for x, y in pairs]
    joint = {}
    for name, metric in metrics.bound.items():
        scored = [(name, one[name]) for one in results]
        needs = f"the error of a dose needs scores of random halves of {where}"
        with naming_metric(name, needs), metrics.counting("errors of doses", scored, progress=metrics.progress) as bar:
            joint[name] = joint_scores(
                metric,
                [one.features for one in sets],
                positions,
                [one[name] for one in results],
                rng=np.random.default_rng([metrics.seed, _SEED_OF_PARTS]),
                backend=metrics.backend,
                n_threads=metrics.n_threads,
                clusters=[one.clusters for one in sets],
                advance=bar.update,
            )
    return joint


def _position(one: _Set, sets: Sequence[_Set]) -> int:
    return next(position for position, other in enumerate(sets) if other.features is one.features)
