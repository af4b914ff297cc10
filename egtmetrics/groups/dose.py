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
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtr, ndtri
from sklearn.isotonic import IsotonicRegression
from tqdm.auto import tqdm

from egtmetrics._errors import listed
from egtmetrics._validation import check_positive_int, take_checked
from egtmetrics.groups._evaluation import MetricSet, groups_on_both_sides, naming_metric, warn_of_caveats
from egtmetrics.groups._saved import plain
from egtmetrics.groups.baseline import N_SPLITS, draw_splits, set_sizes
from egtmetrics.groups.damage import Damage, Damages, mean_variance, name_damages
from egtmetrics.groups.disparity import ScoreTable, disparity_table, score_table
from egtmetrics.groups.inference import MIN_SAMPLES, FrameIntervals, Inference, normal_quantile, score_uncertainty
from egtmetrics.metrics.variance import JointScores, ScoreCovariance, joint_scores
from egtmetrics.ops import Features, to_host
from egtmetrics.results import MetricResult, Score
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
        return np.linspace(0.0, self.doses[-1], _STEPS + 1)

    @functools.cached_property
    def fitted(self) -> Floats:
        """The curve on the grid."""
        if not np.isfinite(self.scores).all():
            return np.full(len(self.grid), math.nan)
        knots = IsotonicRegression(increasing=self.sign > 0).fit_transform(self.doses, self.scores)
        return np.asarray(PchipInterpolator(self.doses, knots)(self.grid), dtype=float)

    @functools.cached_property
    def misfits(self) -> Floats:
        """How many standard errors the model is worse than damaged real samples, on the grid; falls with the dose."""
        return self._in_errors(self.model)

    @functools.cached_property
    def _read(self) -> Floats:
        """``misfits``, but of a model that is not better than other real samples."""
        start = self.fitted[0]
        return self._in_errors(self.sign * max(self.sign * self.model, self.sign * start))

    def _in_errors(self, score: float) -> Floats:
        worse = self.sign * (score - self.fitted)
        errors = np.interp(self.grid, self.doses, self.errors)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(worse == 0.0, 0.0, worse / errors)

    def ends(self, z: float) -> tuple[float | None, float | None]:
        """Return the smallest and the largest dose from which the model differs by at most ``z`` standard errors.

        None if there is no such end: if no dose, or the largest one, differs by more.
        """
        above, below = self._read > z, self._read < -z
        low = None if not above[0] else float(self.grid[min(int(np.flatnonzero(above)[-1]) + 1, _STEPS)])
        high = None if not below[-1] else float(self.grid[max(int(np.flatnonzero(below)[0]) - 1, 0)])
        return low, high

    @functools.cached_property
    def dose(self) -> float:
        """The smallest dose whose score is that of the model, 0 if the model is better than other real samples.

        NaN if the largest dose is not enough, or if the score cannot tell 0 from the largest dose.
        """
        reached = np.flatnonzero(self._read <= 0.0)
        if self.ends(_Z) == (None, None) or not len(reached):
            return math.nan
        last = int(reached[0])
        if last == 0:
            return 0.0
        worse = self._read[last - 1 : last + 1]
        return float(np.interp(0.0, worse[::-1], self.grid[last - 1 : last + 1][::-1]))

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
        if not np.isfinite(self.misfits).any():
            return math.nan, math.nan
        low, high = self.ends(normal_quantile(level))
        return 0.0 if low is None else low, most if high is None else high


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


class DoseResponse:
    """By group, which dose of known damage gives real samples the scores of the model.

    ``GenerativeMetricFrame.dose_response`` makes it.

    Attributes
    ----------
    doses : DataFrame
        The doses that the scores read, indexed by damage and group, one column per score, as in ``frame.by_group``. NaN
        if the score is worse than at the largest dose, or cannot tell the largest dose from 0.
    agreement : DataFrame
        By damage and group, whether there is a dose at which *all* scores are those of the model: ``dose``, at which
        the worst of them fits best; ``low`` and ``high``, the 95 % interval of the doses at which none misfits;
        ``misfit``, the largest distance of a score from the model's at ``dose``, in standard errors; ``p_value``, of so
        large a misfit if the damage were that of the model.
    explanation : str or None
        The damage under which the scores agree best, if they agree in every group (``p_value``, corrected for the
        number of groups, above 0.05). None if no known damage explains the scores.
    curves : DataFrame
        Indexed by damage, group and dose: the scores of other real samples damaged by each dose.
    model : DataFrame
        By damage and group, the scores of the model at the same numbers of samples.
    settings : dict
        ``damages``: by name, ``label``, ``doses`` and ``share`` of each; ``n_samples``; ``n_splits``.
    """

    doses: pd.DataFrame
    agreement: pd.DataFrame
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
    ) -> None:
        self._damages, self._described, self._measured = damages, described, measured
        self._index, self._names, self._caveats = index, names, caveats
        self.settings = settings
        self._columns = {
            table.column(score): (metric, score) for metric, table in described.items() for score in table.described
        }
        self._curves = {
            (name, label): self._curves_of(name, found)
            for name, by_group in measured.items()
            for label, found in by_group.items()
        }
        self.doses = self._table(lambda curve: curve.dose)
        self.model = self._table(lambda curve: curve.model)
        self.agreement = pd.concat({name: self._agreement(name) for name in damages}, names=["damage"])
        self.explanation = self._explanation()
        by_dose = {
            (name, label, dose): [curve.scores[k] for curve in self._curves[name, label].values()]
            for name, damage in damages.items()
            for label in measured[name]
            for k, dose in enumerate(damage.doses)
        }
        self.curves = pd.DataFrame(
            list(by_dose.values()),
            index=pd.MultiIndex.from_tuples(by_dose, names=["damage", "group", "dose"]),
            columns=list(self._columns),
        )

    def _curves_of(self, name: str, found: _Measured) -> dict[str, Curve]:
        doses = np.asarray(self._damages[name].doses, dtype=float)
        errors = {metric: self._errors(found, metric) for metric in self._described}
        return {
            column: Curve(
                doses=doses,
                scores=found.scores[metric][1:, position],
                errors=errors[metric][:, position],
                model=float(found.scores[metric][0, position]),
            )
            for column, (metric, score) in self._columns.items()
            for position in [list(self._described[metric].described).index(score)]
        }

    def _errors(self, found: _Measured, metric: str) -> Floats:
        """Return the standard errors at every dose ``(K, S)``."""
        n_doses, n_scores = len(found.scores[metric]) - 1, found.scores[metric].shape[1]
        return np.sqrt([_variances(found.covariance(metric, np.full(n_scores, k))) for k in range(n_doses)])

    def _table(self, value: Callable[[Curve], float]) -> pd.DataFrame:
        nothing = dict.fromkeys(self._columns, math.nan)
        return pd.concat(
            {
                name: pd.DataFrame(
                    [
                        {column: value(curve) for column, curve in self._curves[name, label].items()}
                        if (name, label) in self._curves
                        else nothing
                        for label in self._index
                    ],
                    index=self._index,
                    columns=list(self._columns),
                    dtype=float,
                )
                for name in self._damages
            },
            names=["damage"],
        )

    def _most(self, name: str) -> float:
        return 1.0 if self._damages[name].share else math.inf

    def _agreement(self, name: str) -> pd.DataFrame:
        rows = [
            _common_dose(list(self._curves[name, label].values()), self._most(name))
            if (name, label) in self._curves
            else dict.fromkeys(_OF_AGREEMENT, math.nan)
            for label in self._index
        ]
        return pd.DataFrame(rows, index=self._index, columns=list(_OF_AGREEMENT), dtype=float)

    def _explanation(self) -> str | None:
        found = {}
        for name, by_group in self._measured.items():
            here = self.agreement.loc[name].dropna(subset="misfit")
            if len(here) and here["p_value"].min() * len(by_group) > 1.0 - _LEVEL:
                read = self.doses.loc[name].loc[here.index].notna().any(axis=1)
                found[name] = not read.all(), float(here["misfit"].max())
        return min(found, key=found.__getitem__) if found else None

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
            return f"no known damage explains the scores ({listed(self._damages)} were tried)"
        damage = self._damages[self.explanation]
        shown = self._score(damage, damage.label)
        found = self.agreement.loc[self.explanation].dropna(subset="dose")
        parts = []
        for label, row in found.iterrows():
            dose, low, high = (shown.text(row[name]) for name in ("dose", "low", "high"))
            parts.append(f"{dose} [{low}, {high}] {shown.printed_unit}".rstrip() + f" for {self._names[label]}")
        text = f"the scores are as if the {damage.label} were {', '.join(parts)}"
        unseen = "; all groups may be undamaged" if (found["low"] == 0.0).all() else ""
        return text + unseen

    def tables(self, damage: str | None = None) -> dict[str, ScoreTable]:
        """Return the doses by metric, with their descriptions and disparities: first of the scores that read a dose.

        ``damage`` is one of those given; None takes ``explanation``.
        """
        name = self._name(damage)
        tables = {}
        for metric, table in self._described.items():
            values = self.doses.loc[name][[table.column(score) for score in table.described]]
            values = values.set_axis(list(table.described), axis=1)
            scores = {score: self._score(self._damages[name], known.label) for score, known in table.described.items()}
            caveats = {label: found[metric] for label, found in self._caveats.items()}
            found = score_table(metric, values, scores, caveats)
            disparities = sorted(
                (one for one in found.disparities if one.column is not None),
                key=lambda one: bool(values[one.column].isna().any()),
            )
            tables[metric] = dataclasses.replace(found, disparities=tuple(disparities))
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
        most = self._score(self._damages[name], "").bounds[1]
        tables, intervals = self.tables(name), self._infer(name).intervals(level)
        by_group, disparities = intervals.by_group.copy(), intervals.disparities.copy()
        for metric, table in tables.items():
            for disparity in table.disparities:
                column = table.column(str(disparity.column))
                ends = {label: curves[column].interval(level, most) for label, curves in self._by_group(name).items()}
                for label, pair in ends.items():
                    key = (column, *label) if isinstance(label, tuple) else (column, label)
                    by_group.loc[key, ["low", "high"]] = pair
                if (
                    any(high == most for _, high in ends.values())
                    and disparities.loc[(metric, disparity.name)].notna().all()
                ):
                    disparities.loc[(metric, disparity.name), "high"] = most
        return dataclasses.replace(intervals, by_group=by_group, disparities=disparities)

    def _by_group(self, name: str) -> dict[Hashable, dict[str, Curve]]:
        return {label: self._curves[name, label] for label in self._measured[name]}

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
        column = str(self.doses.loc[name].isna().sum().idxmin()) if score is None else score
        if column not in self._columns:
            raise ValueError(f"score={score!r} is not a column of doses; choose one of {listed(self._columns)}")
        metric, of_metric = self._columns[column]
        curves = {label: self._curves[name, label][column] for label in self._index if (name, label) in self._curves}
        return plot_dose_response(
            {
                self._names[label]: pd.DataFrame({"dose": curve.grid, "score": curve.fitted})
                for label, curve in curves.items()
            },
            pd.DataFrame(
                [
                    {"score": curve.model, "dose": curve.dose}
                    | dict(zip(("low", "high"), curve.interval(_LEVEL, self._most(name)), strict=True))
                    for curve in curves.values()
                ],
                index=[self._names[label] for label in curves],
            ),
            score=self._described[metric].described[of_metric],
            dose=self._score(self._damages[name], self._damages[name].label),
            ax=ax,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a nested dict of plain values: by damage and group; groups have their names."""
        rows = {
            key: {
                name: {self._names[label]: row.to_dict() for label, row in table.loc[name].astype(object).iterrows()}
                for name in self._damages
            }
            for key, table in {"doses": self.doses, "agreement": self.agreement, "model": self.model}.items()
        }
        curves = {
            name: {
                self._names[label]: {
                    column: curve.scores.tolist() for column, curve in self._curves[name, label].items()
                }
                for label in by_group
            }
            for name, by_group in self._measured.items()
        }
        content = {"settings": self.settings, "explanation": self.explanation, **rows, "curves": curves}
        return {key: plain(value) for key, value in content.items()}

    def _name(self, damage: str | None) -> str:
        if damage is None:
            if self.explanation is None:
                raise ValueError(
                    f"{self.summary()}; see agreement, and pass damage={next(iter(self._damages))!r} to read it anyway"
                )
            return self.explanation
        if damage not in self._damages:
            raise ValueError(f"damage={damage!r} was not tried; choose one of {listed(map(repr, self._damages))}")
        return damage

    def _score(self, damage: Damage, label: str) -> Score:
        return Score(
            label=label if label == damage.label else f"{label}: {damage.label}",
            help=f"The dose at which damaged real samples of the group have this score: {damage.label}.",
            better="lower",
            bounds=(0.0, 1.0 if damage.share else math.inf),
            percent=damage.share,
            depends_on_size=False,
        )

    def _infer(self, name: str) -> Inference:
        tables = self.tables(name)
        return Inference(
            tables=tables,
            uncertainties={
                metric: score_uncertainty(
                    table.values,
                    {label: self._covariance(name, label, table) for label in self._measured[name]},
                )
                for metric, table in tables.items()
            },
        )

    def _covariance(self, name: str, label: Hashable, table: ScoreTable) -> ScoreCovariance:
        """Return the covariance of a group's doses: of its scores, times doses per score."""
        known = list(self._described[table.metric].described)
        curves = [self._curves[name, label][self._described[table.metric].column(score)] for score in known]
        nearest = np.array([np.abs(curve.doses - np.nan_to_num(curve.dose)).argmin() for curve in curves])
        found = self._measured[name][label].covariance(table.metric, nearest)
        errors = np.sqrt(_variances(found))
        wanted = np.array([curve.sign * np.nan_to_num(curve.error) for curve in curves])  # NaN values stay NaN
        factors = np.divide(wanted, errors, out=np.zeros(len(errors)), where=errors > 0)
        return found.linear(np.diag(factors)[[known.index(score) for score in table.described]])


_OF_AGREEMENT = ("dose", "low", "high", "misfit", "p_value")


def _common_dose(curves: Sequence[Curve], most: float) -> dict[str, float]:
    """Return the dose at which the worst of several scores fits the model best, as ``DoseResponse.agreement`` does.

    A misfit of J scores has a p-value of at most J times that of one score, whatever their correlations.
    """
    misfits = np.array([curve.misfits for curve in curves if np.isfinite(curve.misfits).any()])
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
    groups = {label: samples.group(label) for label in groups_on_both_sides(samples)}
    spread = math.sqrt(np.mean([mean_variance(to_host(group.real)) for group in groups.values()]))
    named = name_damages(damages, spread)
    sides = {label: [group.real, group.fake] for label, group in groups.items()}
    rows_needed = 1 + max(_rows(group, np.arange(len(group.real))).max() for group in groups.values())
    for name, damage in named.items():
        if damage.samples is not None and len(damage.samples) < rows_needed:
            raise ValueError(
                f"damage {name!r} has {len(damage.samples)} samples, but the frame has {rows_needed} real rows; pass "
                "one sample for each real row, in the same order"
            )
    size, n_disjoint = set_sizes(sides, samples, 2, n_samples)
    n_pairs = sum(2 + 2 * len(damage.doses) for damage in named.values())
    n_calls = n_pairs * len(metrics.bound) * n_splits * sum(n_disjoint.values())
    measured: dict[str, dict[Hashable, _Measured]] = {name: {} for name in named}
    first: dict[Hashable, dict[str, MetricResult]] = {}
    with tqdm(total=n_calls, desc="doses", unit="call", disable=not progress) as bar:
        for label, group in groups.items():
            splits = draw_splits(sides[label], size, 2, n_disjoint[label], n_splits, metrics.seed)
            of_splits = [
                (
                    [take_checked(group.real, rows) for rows in real],
                    [take_checked(group.fake, rows) for rows in fake],
                    [_rows(group, rows) for rows in real],
                )
                for real, fake in splits
            ]
            for name, damage in named.items():
                where = f"group {samples.groups.name(label)!r}, damage {name!r}"
                scores: list[dict[str, Floats]] = []
                for position, (real, fake, rows) in enumerate(of_splits):
                    pairs = _pairs(damage, real, fake, rows, [metrics.seed, _SEED_OF_DAMAGE, position])
                    results = [metrics.call(*pair, where, bar.update) for pair in pairs]
                    scores.append({metric: _means(results, metric) for metric in metrics.bound})
                    if position == 0:
                        joint = _joint_scores(metrics, pairs, results, where)
                        first.setdefault(label, results[0])
                measured[name][label] = _Measured(
                    scores={metric: np.mean([one[metric] for one in scores], axis=0) for metric in metrics.bound},
                    joint=joint,
                    n_rounds=n_splits,
                    n_disjoint=n_disjoint[label],
                )
    response = DoseResponse(
        named,
        described,
        measured,
        {label: {metric: result.caveats for metric, result in results.items()} for label, results in first.items()},
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
    )
    warn_of_caveats(first, stacklevel=3)
    return response


def _rows(group: GroupedSamples, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the original real samples."""
    return rows if group.real_rows is None else group.real_rows[rows]


def _pairs(
    damage: Damage,
    real: Sequence[Features],
    fake: Sequence[Features],
    rows: Sequence[NDArray[np.int64]],
    seed: Sequence[int],
) -> list[tuple[Features, Features]]:
    """Return what is scored: both halves with generated ones, then at every dose with the other half, damaged.

    All second sets have as many rows as the damage leaves at its largest dose; the rows are in random order.
    """
    damaged = [
        [damage.apply(real[side], rows[side], dose, np.random.default_rng([*seed, side])) for dose in damage.doses]
        for side in range(2)
    ]
    size = min(len(one) for of_side in damaged for one in of_side)
    pairs = [(real[side], fake[side]) for side in range(2)]
    pairs += [(real[side], damaged[1 - side][k]) for k in range(len(damage.doses)) for side in range(2)]
    return [(x, y if len(y) == size else take_checked(y, np.arange(size))) for x, y in pairs]


def _means(results: Sequence[Mapping[str, MetricResult]], metric: str) -> Floats:
    """Return the scores ``(1 + K, S)``, averaged over the two pairs of every dose."""
    scores = np.array([list(one[metric].scores().values()) for one in results])
    return scores.reshape(-1, 2, scores.shape[1]).mean(axis=1)


def _joint_scores(
    metrics: MetricSet,
    pairs: Sequence[tuple[Features, Features]],
    results: Sequence[Mapping[str, MetricResult]],
    where: str,
) -> dict[str, JointScores]:
    smallest = min(len(one) for pair in pairs for one in pair)
    if smallest < MIN_SAMPLES:
        raise ValueError(
            f"{where}: sets of {smallest} samples are compared, and the error of a dose needs at least {MIN_SAMPLES}; "
            "add samples, merge groups, or leave out the damage or its largest doses"
        )
    sets: list[Features] = []
    for one in (one for pair in pairs for one in pair):
        if not any(one is other for other in sets):
            sets.append(one)
    positions = [(_position(x, sets), _position(y, sets)) for x, y in pairs]
    joint = {}
    for name, metric in metrics.bound.items():
        with naming_metric(name, f"the error of a dose needs scores of random halves of {where}"):
            joint[name] = joint_scores(
                metric,
                sets,
                positions,
                [one[name] for one in results],
                rng=np.random.default_rng([metrics.seed, _SEED_OF_PARTS]),
                backend=metrics.backend,
                n_threads=metrics.n_threads,
            )
    return joint


def _position(one: Features, sets: Sequence[Features]) -> int:
    return next(position for position, other in enumerate(sets) if other is one)
