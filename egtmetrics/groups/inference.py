"""Intervals and tests for the scores of groups and for the disparities between them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from egtmetrics._validation import check_level
from egtmetrics.groups._evaluation import MetricSet, Refused, Results, one_refusal, warn_of_refusals
from egtmetrics.groups.disparity import ScoreTable, proportion_table
from egtmetrics.metrics.variance import Advance, ScoreCovariance, covariance_between
from egtmetrics.results import MetricResult
from egtmetrics.samples import GroupedSamples

Floats = NDArray[np.float64]

MIN_SAMPLES = 50
"""An interval needs this many real and fake samples of every group."""
MIN_CLUSTERS = 8
"""And, where samples come in clusters, this many of them."""
_DRAWS = 20_000
_TEST_LEVEL = 0.05
_BLOCKS = 20
_MOST_SUMS = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameIntervals:
    """Confidence intervals for everything that a :class:`~egtmetrics.GenerativeMetricFrame` compares."""

    level: float
    by_group: pd.DataFrame
    """Indexed by ``(score, group)``: ``value``, ``low``, ``high``, and ``reliable``, which is False if the score has
    caveats. Scores have the names of the frame's columns."""
    disparities: pd.DataFrame
    """Indexed by ``(metric, disparity)``: ``value``, ``low``, ``high``, ``expected_if_equal``,
    ``without`` and ``reliable`` as in the frame's own.

    ``expected_if_equal`` is what noise alone makes of the value, on average, if all groups have equal expected scores.
    A disparity is never negative, and the largest difference of many groups is large by chance. ``without`` names the
    groups that have no score, or no variance, and are left out of everything in the row.
    """
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
            name: np.where(touched, math.nan, np.maximum(((contrasts @ known) * contrasts).sum(axis=1), 0.0))
            for name, part in (("data", self.data), ("projections", self.projections), ("threshold", self.threshold))
            for known in [np.nan_to_num(part)]
        }
        return pd.DataFrame({"total": sum(variances.values()), **variances})

    @property
    def missing(self) -> pd.DataFrame:
        """Where a score or its variance is missing, as the table."""
        covariance = self.data + self.projections + self.threshold
        missing = np.isnan(self.values) | np.isnan(np.diag(covariance))
        return pd.DataFrame(missing.reshape(self.table.shape), index=self.table.index, columns=self.table.columns)

    def _touched(self, contrasts: Floats) -> NDArray[np.bool_]:
        touched: NDArray[np.bool_] = (contrasts[:, self.missing.to_numpy().ravel()] != 0).any(axis=1)
        return touched

    def linear(self, weights: Floats, table: pd.DataFrame) -> Uncertainty:
        """Return the uncertainty of ``weights @ values``, which are those of ``table``.

        Missing if a missing score takes part, or none. No weight is negative, and a score takes part in one sum only.
        """

        def both(part: Floats) -> Floats:
            found: Floats = weights @ np.nan_to_num(part) @ weights.T
            return found

        data = both(self.data)
        lost = self._touched(weights) | ~weights.any(axis=1)
        data[lost, :] = data[:, lost] = math.nan
        alone = np.maximum(self.alone, np.diag(np.nan_to_num(self.data)))
        return Uncertainty(
            table=table,
            data=data,
            projections=both(self.projections),
            threshold=both(self.threshold),
            alone=weights**2 @ alone,
        )

    @functools.cached_property
    def root(self) -> Floats:
        """``(n, n)``: times standard normal draws, it gives errors with this covariance, 0 where that is missing."""
        values, vectors = np.linalg.eigh(np.nan_to_num(self.data + self.projections + self.threshold))
        root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
        return root


@dataclasses.dataclass(frozen=True, kw_only=True)
class Largest:
    """What is known about the sum over families of the largest of ``contrasts @ expectations``: about a disparity.

    With several families no sum of their contrasts is listed: what is largest over all of them is found family by
    family, so that it costs no more for many groups.
    """

    uncertainty: Uncertainty
    families: Sequence[Floats]
    """``(K, n)`` each: contrasts as rows. With a contrast, a family has its opposite."""
    without: tuple[Hashable, ...] = ()
    """The groups that take no part."""

    @functools.cached_property
    def estimates(self) -> list[Floats]:
        return [self.uncertainty.estimates(contrasts) for contrasts in self.families]

    @functools.cached_property
    def errors(self) -> list[Floats]:
        """Standard errors of the estimates."""
        return [np.sqrt(self.uncertainty.parts(contrasts)["total"].to_numpy()) for contrasts in self.families]

    @property
    def value(self) -> float:
        return float(sum(estimates.max() for estimates in self.estimates)) if self._any else math.nan

    @property
    def known(self) -> bool:
        """Whether there are two groups or more, and no score is infinite."""
        return self._any and bool(np.isfinite(np.concatenate([*self.estimates, *self.errors])).all())

    @property
    def _any(self) -> bool:
        return all(map(len, self.families))

    @property
    def maxima(self) -> Floats:
        """Draws of the largest studentised error, with the same random numbers for every disparity of a table."""
        return self._drawn[0]

    @property
    def expected_if_equal(self) -> float:
        """The mean of the largest error: what the value is on average if all expectations are equal."""
        return self._drawn[1] if self.known else math.nan

    @functools.cached_property
    def _drawn(self) -> tuple[Floats, float]:
        loadings = []
        for contrasts in self.families:
            loading = contrasts @ self.uncertainty.root
            lengths = np.linalg.norm(loading, axis=1, keepdims=True)
            loadings.append(np.divide(loading, lengths, out=np.zeros_like(loading), where=lengths > 0))
        rng = np.random.default_rng(0)
        studentised, means = [], []
        for _ in range(_BLOCKS):
            normal = rng.standard_normal((_DRAWS // _BLOCKS, len(self.uncertainty.root)))
            errors = [normal @ loading.T * error for loading, error in zip(loadings, self.errors, strict=True)]
            studentised.append(_largest_ratio(errors, self.errors))
            means.append(sum(error.max(axis=1).mean() for error in errors))
        return np.concatenate(studentised), float(np.mean(means))

    def attained(self) -> pd.Series[float]:
        """Return the variance of the sum of the largest estimates, in total and by source; NaN without any."""
        if not self._any:
            return self.uncertainty.parts(np.zeros((1, len(self.uncertainty.values)))).iloc[0] * math.nan
        chosen = [int(np.nan_to_num(estimates, nan=-math.inf).argmax()) for estimates in self.estimates]
        total = sum(contrasts[i] for contrasts, i in zip(self.families, chosen, strict=True))
        return self.uncertainty.parts(np.atleast_2d(total)).iloc[0]

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval from the largest simultaneous lower bound to the largest single upper bound.

        The upper bounds need not be simultaneous: the largest expectation need only be below its own one. For a single
        difference the result has the sizes of the differences in its usual interval.
        """
        if not self.known:
            return math.nan, math.nan
        single, simultaneous = normal_quantile(level), self.simultaneous(level)
        pairs = list(zip(self.estimates, self.errors, strict=True))
        low = float(sum((estimates - simultaneous * errors).max() for estimates, errors in pairs))
        return max(0.0, low), max(float((estimates + single * errors).max()) for estimates, errors in self._sums())

    def simultaneous(self, level: float) -> float:
        """Return how many standard errors below their estimates all expectations lie at most, with this probability."""
        return normal_quantile(level) if self._is_one_difference else float(np.quantile(self.maxima, level))

    def p_value(self) -> float:
        """Return the probability of a largest studentised difference of this size if all expectations are equal."""
        if not self.known:
            return math.nan
        observed = _largest_ratio([estimates[None] for estimates in self.estimates], self.errors)
        return float(self._p_values(observed)[0])

    def p_value_of_attained(self) -> float:
        """Return the p-value of the difference that attains the value, corrected for all that might have attained it.

        It is above ``p_value`` where another difference is smaller and more certain. NaN for a sum over families.
        """
        if not self.known or len(self.families) > 1:
            return math.nan
        widest = [int(self.estimates[0].argmax())]
        studentised = _largest_ratio([self.estimates[0][None, widest]], [self.errors[0][widest]])
        return float(self._p_values(studentised)[0])

    def detectable(self, level: float, power: float = 0.8) -> float:
        """Return the true difference of two groups that a test at 1 - ``level`` finds with probability ``power``.

        It is that of the pair whose difference is least certain. NaN for a sum over families, whose largest value
        several pairs may make up.
        """
        if not self.known or len(self.families) > 1:
            return math.nan
        critical = normal_quantile(level) if self._is_one_difference else float(np.quantile(self.maxima, level))
        return float((critical + ndtri(power)) * self.errors[0].max())

    def drawn_p_values(self) -> Floats:
        """Return the p-values of the drawn errors."""
        return self._p_values(self.maxima)

    def _p_values(self, statistics: Floats) -> Floats:
        if self._is_one_difference:
            p_values: Floats = 2.0 * ndtr(-statistics)
            return p_values
        below = np.searchsorted(np.sort(self.maxima), statistics)
        return (1 + len(self.maxima) - below) / (1 + len(self.maxima))

    @property
    def _is_one_difference(self) -> bool:
        return len(self.families) == 1 and len(self.families[0]) == 2  # with either sign

    def _sums(self) -> Iterator[tuple[Floats, Floats]]:
        """Yield estimates and standard errors of all sums of one contrast of each family, some at a time."""
        *others, last = self.families
        first = np.zeros((1, last.shape[1]))
        for other in others:
            first = (first[:, None] + other[None]).reshape(-1, last.shape[1])
        sources = [self.uncertainty.data, self.uncertainty.projections, self.uncertainty.threshold]
        for rows in np.array_split(first, math.ceil(len(first) * len(last) / _MOST_SUMS)):
            variances = np.zeros((len(rows), len(last)))
            for source in map(np.nan_to_num, sources):
                own, of_last = (((each @ source) * each).sum(axis=1) for each in (rows, last))
                variances += np.maximum(own[:, None] + of_last + 2.0 * (rows @ source @ last.T), 0.0)
            yield self.uncertainty.estimates(rows)[:, None] + self.estimates[-1], np.sqrt(variances)


def _largest_ratio(values: Sequence[Floats], scales: Sequence[Floats]) -> Floats:
    """Return the largest of ``(x_i + y_j + ...) / (s_i + t_j + ...)`` for every row of x, y, ...; 0 / 0 is 0.

    ``values`` are ``(B, K)``, ``scales`` ``(K,)``, for every family. A ratio q is the largest one if the largest
    ``x_i - q s_i``, ``y_j - q t_j``, ... sum to 0. If they sum to more, those that attain them have a larger ratio; a
    few such steps lead to the largest (Dinkelbach 1967).
    """
    largest = np.zeros(len(values[0]))
    while True:
        above, below = np.zeros_like(largest), np.zeros_like(largest)
        for value, scale in zip(values, scales, strict=True):
            chosen = (value - largest[:, None] * scale).argmax(axis=1)
            above += np.take_along_axis(value, chosen[:, None], axis=1)[:, 0]
            below += scale[chosen]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.nan_to_num(above / below, nan=0.0, posinf=math.inf)
        if (ratios <= largest * (1.0 + 1e-12)).all():
            return largest
        largest = np.maximum(ratios, largest)
        if np.isinf(largest).any():
            return largest


def score_uncertainty(
    scores: pd.DataFrame, covariances: Mapping[Hashable, ScoreCovariance], *, in_common: bool = False
) -> Uncertainty:
    """Combine the covariances of the groups; a group without one gets NaN.

    ``in_common`` says whether groups have clusters in common, so that their scores vary together.
    """
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
    if in_common:
        known = [(g, covariances[label]) for g, label in enumerate(scores.index) if label in covariances]
        for (g, first), (h, second) in itertools.combinations(known, 2):
            rows, columns = (slice(i * n_scores, (i + 1) * n_scores) for i in (g, h))
            data[rows, columns] = covariance_between(first, second)
            data[columns, rows] = data[rows, columns].T
    projections = np.zeros((size, size))
    if by_projection:
        together = np.concatenate(by_projection, axis=1)  # all groups see the same projections
        projections[np.ix_(projected, projected)] = np.cov(together.T) / len(together)
        projections -= own
    return Uncertainty(table=scores, data=data, projections=projections, threshold=threshold, alone=alone)


def proportion_uncertainty(counts: pd.DataFrame, covariances: Sequence[Floats]) -> Uncertainty:
    """Return the proportions of the groups with their covariance, from that of each side."""
    table = proportion_table(counts).values
    n_groups = len(table)
    data = np.zeros((n_groups, 2, n_groups, 2))
    for side, covariance in enumerate(covariances):
        data[:, side, :, side] = covariance
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
    """Estimate the covariance of every metric in every group, once, and that of the proportions in ``counts``.

    A group that is too small has no covariance, with a warning; if ``metrics.strict`` it is an error.
    """
    small = small_groups(metrics, samples, results)
    refused: Refused = {}
    uncertainties, n_known = {}, 0
    large = [result for label, by_metric in results.items() if label not in small for result in by_metric.items()]
    with metrics.counting("intervals", large, progress=metrics.progress) as bar:
        for name in metrics.bound:
            covariances = {}
            for label in (label for label, by_metric in results.items() if name in by_metric):
                try:
                    if label in small:
                        raise small[label]
                    covariances[label] = group_covariance(
                        metrics, samples, label, name, results[label][name], bar.update
                    )
                except ValueError as error:
                    if metrics.strict:
                        raise
                    refused.setdefault(name, {})[label] = error
            n_known += len(covariances)
            uncertainties[name] = score_uncertainty(
                tables[name].values, covariances, in_common=samples.share_clusters()
            )
    if not n_known:
        raise one_refusal(refused)
    warn_of_refusals(refused, "interval", stacklevel=4)
    return Inference(
        tables={**tables, "proportions": proportion_table(counts)},
        uncertainties={
            **uncertainties,
            "proportions": proportion_uncertainty(samples.counts(), samples.proportion_covariances()),
        },
    )


def small_groups(metrics: MetricSet, samples: GroupedSamples, results: Results) -> dict[Hashable, ValueError]:
    """Return why groups are too small for an interval; raise if that is an error, before anything is computed."""
    counts = samples.groups.counts()[["n_real", "n_fake"]]  # of the rows that are held; a stream may have seen more
    sizes = counts.loc[list(results)].min(axis=1).sort_values(kind="stable")
    small: dict[Hashable, ValueError] = {
        label: ValueError(
            f"group {samples.groups.name(label)!r} has {size} samples on one side, and an interval needs at least "
            f"{MIN_SAMPLES} real and {MIN_SAMPLES} fake ones in every group; add samples, or merge groups"
        )
        for label, size in sizes.items()
        if size < MIN_SAMPLES
    }
    for label in (label for label in results if label not in small):
        few = {side: n for side, n in samples.group(label).n_clusters().items() if n < MIN_CLUSTERS}
        for side, n in few.items():
            small[label] = ValueError(
                f"the {side} samples of group {samples.groups.name(label)!r} are in {n} clusters, and an interval "
                f"needs at least {MIN_CLUSTERS} in every group; add clusters, or merge groups"
            )
    if small and (metrics.strict or len(small) == len(results)):
        raise next(iter(small.values()))
    return small


def group_covariance(
    metrics: MetricSet,
    samples: GroupedSamples,
    label: Hashable,
    name: str,
    result: MetricResult,
    advance: Advance = lambda _: None,
) -> ScoreCovariance:
    """Return the covariance of a metric's scores of one group."""
    group, where = samples.group(label), f"group {samples.groups.name(label)!r}"
    return metrics.covariance(name, result, group.real, group.fake, where, clusters=group.clusters, advance=advance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
    """Intervals and tests for tables of scores by group, from the uncertainty of each table."""

    tables: Mapping[str, ScoreTable]
    uncertainties: Mapping[str, Uncertainty]
    """By the same names."""

    @functools.cached_property
    def largest(self) -> dict[tuple[str, str], Largest]:
        """What is known about every disparity, by metric and disparity, over the groups whose scores are known."""
        found = {}
        for metric, table in self.tables.items():
            uncertainty = self.uncertainties[metric]
            missing = uncertainty.missing
            for disparity in table.disparities:
                left_out = disparity.lacks(missing)
                found[metric, disparity.name] = Largest(
                    uncertainty=uncertainty,
                    families=disparity.contrasts(table.values, left_out),
                    without=tuple(table.values.index[left_out].tolist()),
                )
        return found

    def intervals(self, level: float) -> FrameIntervals:
        """Return all intervals."""
        z = normal_quantile(level)
        disparities = {}
        limits = {
            (metric, disparity.name): disparity.limit(table.described)
            for metric, table in self.tables.items()
            for disparity in table.disparities
        }
        for key, largest in self.largest.items():
            low, high = np.minimum(largest.interval(level), limits[key]).tolist()  # NaN stays
            disparities[key] = {
                "value": largest.value,
                "low": low,
                "high": high,
                "expected_if_equal": largest.expected_if_equal,
                "without": largest.without,
                "reliable": self.tables[key[0]].reliable(largest.without),
            }
        variance = [largest.attained() for largest in self.largest.values()]
        by_group = []
        for metric, table in self.tables.items():
            uncertainty = self.uncertainties[metric]
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
            variance=pd.DataFrame([row.to_dict() for row in variance], index=index),
        )

    def difference(self, metric: str, score: str, a: Hashable, b: Hashable) -> tuple[float, float]:
        """Return the difference in one score between two groups, a - b, and its standard error."""
        uncertainty = self.uncertainties[metric]
        contrast = self._of_group(metric, score, a) - self._of_group(metric, score, b)
        return float(uncertainty.estimates(contrast)[0]), math.sqrt(uncertainty.parts(contrast)["total"].iloc[0])

    def variances(self, metric: str, score: str, a: Hashable, b: Hashable) -> tuple[float, float, float]:
        """Return the variances of one score of two groups over other samples, and what else their difference has."""
        of_a, of_b = (self._of_group(metric, score, label) for label in (a, b))
        parts = self.uncertainties[metric].parts(np.concatenate([of_a, of_b, of_a - of_b]))
        first, second, _ = parts["data"]
        return float(first), float(second), float((parts["projections"] + parts["threshold"]).iloc[-1])

    def _of_group(self, metric: str, score: str, label: Hashable) -> Floats:
        table = self.uncertainties[metric].table
        contrast = np.zeros(table.shape)
        contrast[table.index.get_loc(label), table.columns.get_loc(score)] = 1.0
        return contrast.reshape(1, -1)

    def tests(self) -> pd.DataFrame:
        """Test whether each disparity is 0; see ``GenerativeMetricFrame.test``."""
        tables = {}
        n_metrics = sum(metric != "proportions" for metric in self.tables)
        for metric, table in self.tables.items():
            level = 1.0 - _TEST_LEVEL / (1 if metric == "proportions" else n_metrics)
            found = [self.largest[metric, disparity.name] for disparity in table.disparities]
            p_values = np.array([one.p_value() for one in found])
            drawn = [one.drawn_p_values() if one.known else np.ones(_DRAWS) for one in found]
            tables[metric] = pd.DataFrame(
                {
                    "value": [one.value for one in found],
                    "p_value": p_values,
                    "adjusted_p_value": step_down(p_values, np.stack(drawn, axis=1)),
                    "detectable": [one.detectable(level) for one in found],
                    "primary": [disparity is table.primary for disparity in table.disparities],
                    "without": [one.without for one in found],
                    "reliable": [table.reliable(one.without) for one in found],
                },
                index=[disparity.name for disparity in table.disparities],
            )
        metrics = [metric for metric in tables if metric != "proportions"]  # which are a family of their own
        adjusted = holm_of_families([tables[metric]["adjusted_p_value"].to_numpy() for metric in metrics])
        for metric, p_values in zip(metrics, adjusted, strict=True):
            tables[metric]["adjusted_p_value"] = p_values
        return pd.concat(tables, names=["metric", "disparity"])


def step_down(p_values: Floats, drawn: Floats) -> Floats:
    """Adjust p-values by the step-down min-p procedure, which knows how the tests depend on each other.

    The smallest of k p-values becomes the probability that the smallest of k p-values is as small if all hypotheses
    hold, the second smallest the same for the other k - 1, and so on; no adjusted value is below that of a smaller
    p-value. The probability of any false rejection stays below the level, whichever hypotheses hold. NaN stays NaN and
    does not count as a test.

    Parameters
    ----------
    p_values
        ``(k,)``.
    drawn
        ``(D, k)``: p-values of D joint draws under all hypotheses. A probability too small for so few draws is at most
        k times the p-value.

    Notes
    -----
    Source: Westfall and Young, Resampling-Based Multiple Testing, 1993, algorithm 2.8.

    >>> step_down(np.array([0.5, 0.25]), np.array([[0.1, 0.1], [0.6, 0.6], [0.9, 0.9]])).tolist()
    [0.5, 0.5]
    """
    adjusted = np.full(len(p_values), math.nan)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]
    smallest = 0.0
    for step, test in enumerate(order):
        together = (1 + np.count_nonzero(drawn[:, order[step:]].min(axis=1) <= p_values[test])) / (1 + len(drawn))
        own = max(float(p_values[test]), min(together, (len(order) - step) * float(p_values[test])))
        smallest = max(smallest, own)
        adjusted[test] = min(smallest, 1.0)
    return adjusted


def holm_of_families(adjusted: Sequence[Floats]) -> list[Floats]:
    """Adjust p-values that are adjusted within families so that they hold over all families together.

    With n families, every p-value is multiplied by n. A family whose p-values are then all rejected is done, and the
    others are multiplied by n - 1; and so on. For families of one p-value this is :func:`holm`.

    Let t families hold true hypotheses. Unless one of them makes a false rejection at its 1 / t of the level, none of
    them is ever done, so none is ever multiplied by less than t: the probability of any false rejection stays below
    the level. This needs families to be done with all of their p-values; the smallest one would not do.

    >>> [values.tolist() for values in holm_of_families([np.array([0.01, 0.25]), np.array([0.03])])]
    [[0.02, 0.25], [0.06]]
    """
    results = [np.full(len(values), math.nan) for values in adjusted]
    tested = [i for i, values in enumerate(adjusted) if not np.isnan(values).all()]
    order = sorted(tested, key=lambda i: float(np.nanmax(adjusted[i])))
    done = 0.0  # the level at which the families before are rejected whole
    for step, family in enumerate(order):
        n_left = len(order) - step
        for i in order[step:]:
            results[i] = np.fmin(results[i], np.minimum(np.maximum(n_left * adjusted[i], done), 1.0))
        done = max(done, n_left * float(np.nanmax(adjusted[family])))
    return results


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


def normal_quantile(level: float) -> float:
    """Return half the width of a two-sided interval of ``level``, in standard errors.

    >>> round(normal_quantile(0.95), 2)
    1.96
    """
    return float(ndtri(0.5 + check_level(level) / 2))
