"""Intervals and tests for the scores of groups and for the disparities between them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from egtmetrics._validation import check_level, check_positive_int
from egtmetrics.groups._evaluation import MetricSet, Results, naming_metric
from egtmetrics.groups.disparity import ScoreTable, proportion_table
from egtmetrics.metrics.variance import ScoreCovariance, score_covariance
from egtmetrics.samples import GroupedSamples

Floats = NDArray[np.float64]

MIN_SAMPLES = 50
"""An interval needs this many real and fake samples of every group."""
_DRAWS = 20_000
_BLOCKS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameIntervals:
    """Confidence intervals for everything that a :class:`~egtmetrics.GenerativeMetricFrame` compares."""

    level: float
    by_group: pd.DataFrame
    """Indexed by ``(score, group)``: ``value``, ``low``, ``high``, and ``reliable``, which is False if the score has
    caveats. Scores have the names of the frame's columns."""
    disparities: pd.DataFrame
    """Indexed by ``(metric, disparity)``: ``value``, ``low``, ``high``, and ``reliable`` as in the frame's own."""
    variance: pd.DataFrame
    """Indexed by ``(metric, disparity)``: the variance of the difference that attains it, ``total``, and its sources.

    ``data`` is due to the samples, ``projections`` to the random projections, ``threshold`` to the bootstrap of the
    confidence bands. The last two fall with more projections and replicates, the first only with more samples.
    """

    def __repr__(self) -> str:
        parts = [f"{title}\n{table}" for title, table in self._tables().items()]
        return "\n\n".join([f"{self.level:.0%} confidence intervals", *parts])

    def _repr_html_(self) -> str:
        """Return what notebooks show: both tables."""
        parts = [
            f"<h4>{title}</h4>{table.to_html(border=0, float_format='{:.4g}'.format, na_rep='nan')}"
            for title, table in self._tables().items()
        ]
        return "".join([f"<h3>{self.level:.0%} confidence intervals</h3>", *parts])

    def _tables(self) -> dict[str, pd.DataFrame]:
        return {"Scores by group": self.by_group, "Disparities between groups": self.disparities}

    def plot(self, *, ax: Any = None) -> Any:
        """Draw every disparity with its interval, in one row each; return the axes. Needs matplotlib."""
        from egtmetrics.plots import plot_disparities

        return plot_disparities(self.disparities, ax=ax)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Scores by group, flattened from a table, and their covariance, split by source."""

    table: pd.DataFrame
    data: Floats
    projections: Floats
    """An unbiased estimate, so it may be negative."""
    threshold: Floats
    alone: Floats
    """``(n,)``: variances for the interval of a single score, used where they exceed the sum of the sources."""

    @property
    def values(self) -> Floats:
        values: Floats = self.table.to_numpy(dtype=float).ravel()
        return values

    def estimates(self, contrasts: Floats) -> Floats:
        """Return ``contrasts @ values``; NaN if a missing score takes part."""
        return np.where(self._touched(contrasts), math.nan, contrasts @ np.nan_to_num(self.values))

    def parts(self, contrasts: Floats) -> pd.DataFrame:
        """Return the variance of each of ``contrasts @ values``, in total and by source; NaN as in ``estimates``."""
        touched = self._touched(contrasts)
        variances = {
            name: np.where(touched, math.nan, np.maximum(np.einsum("kn,nm,km->k", contrasts, known, contrasts), 0.0))
            for name, part in (("data", self.data), ("projections", self.projections), ("threshold", self.threshold))
            for known in [np.nan_to_num(part)]
        }
        return pd.DataFrame({"total": sum(variances.values()), **variances})

    def _touched(self, contrasts: Floats) -> NDArray[np.bool_]:
        covariance = self.data + self.projections + self.threshold
        missing = np.isnan(self.values) | np.isnan(np.diag(covariance))
        touched: NDArray[np.bool_] = (contrasts[:, missing] != 0).any(axis=1)
        return touched

    def largest(self, contrasts: Floats) -> Largest:
        """Return what is known about the largest of ``contrasts @ expectations``."""
        errors = np.sqrt(self.parts(contrasts)["total"].to_numpy())
        estimates = self.estimates(contrasts)
        if not np.isfinite(errors).all() or not np.isfinite(estimates).all():
            return Largest(estimates=estimates, errors=errors, maxima=None)
        if len(contrasts) == 2:  # the two signs of one difference
            return Largest(estimates=estimates, errors=errors, maxima=np.empty(0))
        values, vectors = np.linalg.eigh(self.data + self.projections + self.threshold)
        loadings = contrasts @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        lengths = np.linalg.norm(loadings, axis=1, keepdims=True)
        loadings = np.divide(loadings, lengths, out=np.zeros_like(loadings), where=lengths > 0)
        rng = np.random.default_rng(0)
        blocks = [
            (rng.standard_normal((_DRAWS // _BLOCKS, len(values))) @ loadings.T).max(axis=1) for _ in range(_BLOCKS)
        ]
        return Largest(estimates=estimates, errors=errors, maxima=np.concatenate(blocks))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Largest:
    """Estimates whose largest is a disparity, their standard errors, and draws of the largest studentised error."""

    estimates: Floats
    errors: Floats
    maxima: Floats | None
    """Empty if there is only one difference, with either sign; None if a score is missing."""

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval from the largest simultaneous lower bound to the largest single upper bound.

        The upper bounds need not be simultaneous: the largest expectation need only be below its own one. For a single
        difference the result has the sizes of the differences in its usual interval.
        """
        if self.maxima is None:
            return math.nan, math.nan
        single = normal_quantile(level)
        simultaneous = float(np.quantile(self.maxima, level)) if self.maxima.size else single
        low = float((self.estimates - simultaneous * self.errors).max())
        return max(0.0, low), float((self.estimates + single * self.errors).max())

    def p_value(self) -> float:
        """Return the probability of a largest studentised difference of this size if all expectations are equal."""
        if self.maxima is None:
            return math.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = float(np.nan_to_num(self.estimates / self.errors, nan=0.0).max())  # 0 / 0: no difference
        if not self.maxima.size:
            return float(2.0 * ndtr(-observed))
        return float((1 + np.count_nonzero(self.maxima >= observed)) / (1 + self.maxima.size))


def score_uncertainty(scores: pd.DataFrame, covariances: Mapping[Hashable, ScoreCovariance]) -> Uncertainty:
    """Combine the covariances of the groups; a group without one gets NaN."""
    n_groups, n_scores = scores.shape
    size = n_groups * n_scores
    alone = np.zeros(size)
    data, threshold, own = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    by_projection: list[Floats] = []
    projected: list[int] = []
    for g, label in enumerate(scores.index):
        block = slice(g * n_scores, (g + 1) * n_scores)
        found = covariances.get(label)
        if found is None:
            data[block, block] = np.nan
            continue
        n_projections = 1 if found.per_projection is None else len(found.per_projection)
        data[block, block] = found.data
        if found.alone is not None:
            alone[block] = found.alone
        if found.threshold is not None:
            threshold[block, block] = found.threshold / n_projections
        if found.per_projection is not None and found.interaction is not None:
            own[block, block] = found.interaction / n_projections + threshold[block, block]
            by_projection.append(found.per_projection)
            projected.extend(range(size)[block])
    projections = np.zeros((size, size))
    if by_projection:
        together = np.concatenate(by_projection, axis=1)  # all groups see the same projections
        projections[np.ix_(projected, projected)] = np.cov(together.T) / len(together)
        projections -= own
    return Uncertainty(table=scores, data=data, projections=projections, threshold=threshold, alone=alone)


def proportion_uncertainty(counts: pd.DataFrame) -> Uncertainty:
    """Return the proportions of the groups with their multinomial covariance."""
    table = proportion_table(counts).values
    n_groups = len(counts)
    data = np.zeros((n_groups, 2, n_groups, 2))
    for side, name in enumerate(("real", "fake")):
        p = counts[f"{name}_proportion"].to_numpy()
        data[:, side, :, side] = (np.diag(p) - np.outer(p, p)) / counts[f"n_{name}"].sum()
    nothing = np.zeros((2 * n_groups, 2 * n_groups))
    return Uncertainty(
        table=table,
        data=data.reshape(nothing.shape),
        projections=nothing,
        threshold=nothing,
        alone=np.zeros(len(nothing)),
    )


def frame_inference(
    metrics: MetricSet,
    samples: GroupedSamples,
    results: Results,
    tables: Mapping[str, ScoreTable],
    counts: pd.DataFrame,
) -> Inference:
    """Estimate the covariance of every metric in every group, once, and that of the proportions in ``counts``."""
    groups = samples.groups
    sizes = groups.counts()[["n_real", "n_fake"]]  # the rows that are held; ``counts`` has all that a stream saw
    few = sizes[(sizes > 0).all(axis=1)].min(axis=1)
    if (few < MIN_SAMPLES).any():
        raise ValueError(
            f"group {groups.name(few.idxmin())!r} has {few.min()} samples on one side, and an interval needs at "
            f"least {MIN_SAMPLES} real and {MIN_SAMPLES} fake ones in every group; add samples, or merge groups"
        )
    uncertainties = {
        name: score_uncertainty(tables[name].values, _covariances(metrics, samples, results, name))
        for name in metrics.bound
    }
    return Inference(
        tables={**tables, "proportions": proportion_table(counts)},
        uncertainties={**uncertainties, "proportions": proportion_uncertainty(counts)},
    )


def _covariances(
    metrics: MetricSet, samples: GroupedSamples, results: Results, name: str
) -> dict[Hashable, ScoreCovariance]:
    found = {}
    for label, by_metric in results.items():
        group = samples.group(label)
        sizes = f"({len(group.real)} real, {len(group.fake)} fake)"
        where = f"an interval needs scores of random halves of group {samples.groups.name(label)!r} {sizes}"
        with naming_metric(name, where):
            found[label] = score_covariance(
                metrics.bound[name],
                by_metric[name],
                group.real,
                group.fake,
                rng=np.random.default_rng([metrics.seed, 1]),  # the same for every group, whatever its name
                backend=metrics.backend,
                n_threads=metrics.n_threads,
            )
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
    """Intervals and tests for tables of scores by group, from the uncertainty of each table."""

    tables: Mapping[str, ScoreTable]
    uncertainties: Mapping[str, Uncertainty]
    """By the same names."""

    def intervals(self, level: float) -> FrameIntervals:
        """Return all intervals."""
        z = normal_quantile(level)
        by_group, disparities, variance = [], {}, {}
        for metric, table in self.tables.items():
            uncertainty = self.uncertainties[metric]
            for disparity in table.disparities:
                contrasts = disparity.contrasts(table.values)
                if contrasts is None:
                    continue
                largest = uncertainty.largest(contrasts)
                low, high = largest.interval(level)
                key = metric, disparity.name
                value = float(largest.estimates.max())
                disparities[key] = {"value": value, "low": low, "high": high, "reliable": table.reliable}
                attained = contrasts[[int(np.nan_to_num(largest.estimates, nan=-math.inf).argmax())]]
                variance[key] = uncertainty.parts(attained).iloc[0].to_dict()
            if metric == "proportions":
                continue
            variances = uncertainty.parts(np.eye(len(uncertainty.values)))["total"].to_numpy()
            variances = np.maximum(variances, uncertainty.alone)  # NaN stays
            margins = z * np.sqrt(variances).reshape(table.values.shape)
            reliable = [label not in table.caveats for label in table.values.index]
            for column, (name, score) in enumerate(table.described.items()):
                values, margin = table.values[name], margins[:, column]
                low, high = ((values + sign * margin).clip(*score.bounds) for sign in (-1.0, 1.0))
                columns = {"value": values, "low": low, "high": high, "reliable": reliable}
                by_group.append(pd.concat({table.column(name): pd.DataFrame(columns)}))
        index = pd.MultiIndex.from_tuples(disparities, names=["metric", "disparity"])
        groups = next(iter(self.tables.values())).values.index.names
        return FrameIntervals(
            level=level,
            by_group=pd.concat(by_group).rename_axis(["score", *groups]),
            disparities=pd.DataFrame(list(disparities.values()), index=index),
            variance=pd.DataFrame(list(variance.values()), index=index),
        )

    def difference(self, metric: str, score: str, a: Hashable, b: Hashable) -> tuple[float, float]:
        """Return the difference in one score between two groups, a - b, and its standard error."""
        uncertainty = self.uncertainties[metric]
        contrast = np.zeros(uncertainty.table.shape)
        column = uncertainty.table.columns.get_loc(score)
        contrast[uncertainty.table.index.get_loc(a), column] += 1.0
        contrast[uncertainty.table.index.get_loc(b), column] -= 1.0
        variance = float(uncertainty.parts(contrast.reshape(1, -1))["total"].iloc[0])
        return float(uncertainty.estimates(contrast.reshape(1, -1))[0]), math.sqrt(variance)

    def tests(self) -> pd.DataFrame:
        """Test whether each disparity is 0; see ``GenerativeMetricFrame.test``."""
        rows = {}
        for metric, table in self.tables.items():
            for disparity in table.disparities:
                contrasts = disparity.contrasts(table.values)
                if contrasts is not None:
                    largest = self.uncertainties[metric].largest(contrasts)
                    rows[metric, disparity.name] = {
                        "value": float(largest.estimates.max()),
                        "p_value": largest.p_value(),
                        "reliable": table.reliable,
                    }
        index = pd.MultiIndex.from_tuples(rows, names=["metric", "disparity"])
        tests = pd.DataFrame(list(rows.values()), index=index)
        tests.insert(2, "adjusted_p_value", holm(tests["p_value"].to_numpy()))
        return tests


def holm(p_values: Floats) -> Floats:
    """Adjust p-values so that the probability of any false rejection stays below the level (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and no adjusted value is below that of a smaller p-value. NaN
    stays NaN and does not count as a test.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    adjusted = np.full(len(p_values), math.nan)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


def samples_needed(
    standard_error: float, n_samples: int, *, delta: float, power: float = 0.8, level: float = 0.95
) -> int:
    r"""Return the samples per group that detect a true difference ``delta`` of two groups with probability ``power``.

    A difference with standard error s at n samples per group has standard error s sqrt(n / n') at n' samples, so

    .. math:: n' = n \bigl(s (z_{(1 + level) / 2} + z_{power}) / delta\bigr)^2.

    Errors due to projections and bootstrap fall only with more projections and replicates, not with n. So the formula
    holds if the samples cause most of the variance (see ``FrameIntervals.variance``).

    >>> samples_needed(0.02, 1000, delta=0.05)
    1256
    """
    for name, value in (("standard_error", standard_error), ("delta", delta)):
        if not 0.0 < value < math.inf:
            raise ValueError(
                f"{name}={value!r} is not a positive number; pass a difference of scores, for example 0.01 for a point"
            )
    if not 0.0 < power < 1.0:
        raise ValueError(f"power={power!r} is not a number strictly between 0 and 1; pass one, for example 0.8")
    factor = standard_error * (normal_quantile(level) + float(ndtri(power))) / delta
    return math.ceil(check_positive_int(n_samples, "n_samples") * factor**2)


def normal_quantile(level: float) -> float:
    """Return half the width of a two-sided interval of ``level``, in standard errors.

    >>> round(normal_quantile(0.95), 2)
    1.96
    """
    return float(ndtri(0.5 + check_level(level) / 2))
