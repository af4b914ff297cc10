"""Intervals and tests for the scores of groups and for the disparities between them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from egtmetrics._validation import check_positive_int
from egtmetrics.divergences.estimates import check_level
from egtmetrics.groups._evaluation import GroupEvaluation, Score
from egtmetrics.metrics._parts import Spread
from egtmetrics.metrics._spread import spread
from egtmetrics.ops import BackendName, take_rows

Floats = NDArray[np.float64]

MIN_SAMPLES = 50
"""Fewest real and fake samples of a group that an interval is given for."""
UNIT_SCORES = ("precision", "recall", "f1", "coverage", "clipped_density", "clipped_coverage", "mauve", "mauve_star")
"""Scores in [0, 1], to which their intervals are cut."""
_N_QUARTERINGS = 33
_DRAWS = 20_000
_BLOCKS = 20
_LARGEST_SUM_OF_GROUPS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameIntervals:
    """Confidence intervals of everything a :class:`~egtmetrics.GenerativeMetricFrame` compares."""

    level: float
    by_group: pd.DataFrame
    """Indexed by ``(score, group)``: ``value``, ``low``, ``high``; scores are named as the columns of ``by_group``."""
    disparities: pd.DataFrame
    """Indexed by ``(metric, disparity)``: ``value``, ``low``, ``high``."""
    variance: pd.DataFrame
    """Indexed by ``(metric, disparity)``: the variance of the difference that attains it, ``total``, and its parts.

    ``data``: of other samples. ``projections``: of other random projections. ``threshold``: of another bootstrap of the
    confidence bands. The last two fall with more projections and replicates, the first with more samples only.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Numbers by group, flattened from a table, and their covariance by where it comes from."""

    table: pd.DataFrame
    data: Floats
    projections: Floats
    """An unbiased estimate, which need not be positive."""
    threshold: Floats
    alone: Floats
    """``(n,)``: variances for the interval of a number by itself, where larger than the sum of those parts."""

    @property
    def values(self) -> Floats:
        values: Floats = self.table.to_numpy(dtype=float).ravel()
        return values

    def estimates(self, contrasts: Floats) -> Floats:
        """``contrasts @ values``; NaN where a missing number takes part."""
        return np.where(self._touched(contrasts), math.nan, contrasts @ np.nan_to_num(self.values))

    def parts(self, contrasts: Floats) -> pd.DataFrame:
        """Variance of every row of ``contrasts @ values``, in total and by part; NaN as in ``estimates``."""
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
        """What is known of the largest of ``contrasts @ expectations``."""
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
    """Empty where there is one difference only, with either sign; None where a number is missing."""

    def interval(self, level: float) -> tuple[float, float]:
        """The lower end is the largest of the simultaneous lower bounds, the upper end that of the single upper ones.

        The largest expectation need only be below its own upper bound. For one difference this is the image of its
        usual interval: the sizes of the differences in it.
        """
        if self.maxima is None:
            return math.nan, math.nan
        single = normal_quantile(level)
        simultaneous = float(np.quantile(self.maxima, level)) if self.maxima.size else single
        low = float((self.estimates - simultaneous * self.errors).max())
        return max(0.0, low), float((self.estimates + single * self.errors).max())

    def p_value(self) -> float:
        """Chance of a largest studentised difference like this where all expectations are equal."""
        if self.maxima is None:
            return math.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = float(np.nan_to_num(self.estimates / self.errors, nan=0.0).max())  # 0 / 0: no difference
        if not self.maxima.size:
            return float(2.0 * ndtr(-observed))
        return float((1 + np.count_nonzero(self.maxima >= observed)) / (1 + self.maxima.size))


def score_uncertainty(scores: pd.DataFrame, spreads: Mapping[Hashable, Spread]) -> Uncertainty:
    """Put the spreads of the groups together; a group without one gets NaN."""
    n_groups, n_scores = scores.shape
    size = n_groups * n_scores
    alone = np.zeros(size)
    data, threshold, own = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    by_projection: list[Floats] = []
    projected: list[int] = []
    for g, label in enumerate(scores.index):
        block = slice(g * n_scores, (g + 1) * n_scores)
        found = spreads.get(label)
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


def proportion_uncertainty(counts: pd.DataFrame) -> tuple[Uncertainty, dict[str, Floats]]:
    """The proportions of the groups as multinomial ones, and the contrasts of ``mgo`` and ``ego``."""
    n_groups = len(counts)
    table = counts[["real_proportion", "fake_proportion"]]
    data = np.zeros((n_groups, 2, n_groups, 2))
    for side, name in enumerate(("real", "fake")):
        p = counts[f"{name}_proportion"].to_numpy()
        data[:, side, :, side] = (np.diag(p) - np.outer(p, p)) / counts[f"n_{name}"].sum()
    nothing = np.zeros((2 * n_groups, 2 * n_groups))
    excess = np.stack([-np.eye(n_groups), np.eye(n_groups)], axis=2).reshape(n_groups, -1)
    contrasts = {
        "mgo": np.concatenate([excess, -excess]),
        "ego": _pairwise(table, ["fake_proportion"]),
    }
    covariance = data.reshape(nothing.shape)
    found = Uncertainty(
        table=table, data=covariance, projections=nothing, threshold=nothing, alone=np.zeros(2 * n_groups)
    )
    return found, contrasts


def _pairwise(table: pd.DataFrame, members: Sequence[str]) -> Floats:
    """Contrasts ``sum of members of a - sum of members of b`` of all ordered pairs of groups."""
    pairs = list(itertools.permutations(range(len(table)), 2))
    rows = np.zeros((len(pairs), *table.shape))
    for row, (a, b) in zip(rows, pairs, strict=True):
        for name in members:
            row[a, table.columns.get_loc(name)], row[b, table.columns.get_loc(name)] = 1.0, -1.0
    contrasts: Floats = rows.reshape(len(pairs), -1)
    return contrasts


def score_contrasts(scores: pd.DataFrame) -> dict[str, Floats]:
    """Every disparity of a table of scores is the largest of ``contrasts @ scores``: return these, by disparity.

    ``delta_p_plus_delta_r``, whose contrasts are all pairs of pairs, is left out with more than 8 groups.
    """
    contrasts: dict[str, Floats] = {}
    others = list(scores)
    if "precision" in scores and "recall" in scores:
        others = [name for name in scores if name not in ("precision", "recall")]
        contrasts = {
            "delta_p": _pairwise(scores, ["precision"]),
            "delta_r": _pairwise(scores, ["recall"]),
            "delta_pr": _pairwise(scores, ["precision", "recall"]),
        }
        if len(scores) <= _LARGEST_SUM_OF_GROUPS:
            sums = contrasts["delta_p"][:, None] + contrasts["delta_r"][None]
            contrasts["delta_p_plus_delta_r"] = sums.reshape(-1, sums.shape[-1])
    return contrasts | {f"delta_{name}": _pairwise(scores, [str(name)]) for name in others}


class FrameInference:
    """Uncertainty of all scores of one frame; the spread of every metric in every group is worked out once."""

    def __init__(
        self,
        evaluation: GroupEvaluation,
        results: Mapping[Hashable, Mapping[str, Score]],
        scores: Mapping[str, pd.DataFrame],
        counts: pd.DataFrame,
        *,
        n_quarterings: int = _N_QUARTERINGS,
        backend: BackendName = "auto",
        n_threads: int | None = None,
    ) -> None:
        groups = evaluation.groups
        sizes = groups.counts()[["n_real", "n_fake"]]  # of a stream's sample, where ``counts`` are of all rows
        few = sizes[(sizes > 0).all(axis=1)].min(axis=1)
        if (few < MIN_SAMPLES).any():
            raise ValueError(
                f"group {groups.name(few.idxmin())!r} has {few.min()} samples on one side, and an interval needs at "
                f"least {MIN_SAMPLES} real and {MIN_SAMPLES} fake ones in every group; add samples, or merge groups"
            )
        self.uncertainties: dict[str, Uncertainty] = {}
        for name, metric in evaluation.metrics.items():
            spreads = {}
            for position, label in enumerate(groups.index):
                if label not in results:
                    continue
                real = take_rows(evaluation.real, groups.real_ids == position)
                fake = take_rows(evaluation.fake, groups.fake_ids == position)
                rng = np.random.default_rng([evaluation.seed, 1])  # the same for every group, whatever its name
                try:
                    spreads[label] = spread(
                        metric,
                        results[label][name],
                        real,
                        fake,
                        n_quarterings=n_quarterings,
                        rng=rng,
                        backend=backend,
                        n_threads=n_threads,
                    )
                except ValueError as error:
                    raise ValueError(
                        f"an interval needs scores of random parts of every group, and metric {name!r} has refused "
                        f"those of group {groups.name(label)!r} ({len(real)} real, {len(fake)} fake): {error}"
                    ) from error
            self.uncertainties[name] = score_uncertainty(scores[name], spreads)
        self.contrasts = {name: score_contrasts(scores[name]) for name in self.uncertainties}
        self.uncertainties["proportions"], self.contrasts["proportions"] = proportion_uncertainty(counts)

    def intervals(self, level: float, columns: Mapping[str, Sequence[str]]) -> FrameIntervals:
        """Return all intervals; ``columns`` names the scores of every metric as the frame does."""
        z = normal_quantile(level)
        by_group, disparities, variance = [], {}, {}
        for metric, names in columns.items():
            uncertainty = self.uncertainties[metric]
            variances = uncertainty.parts(np.eye(len(uncertainty.values)))["total"].to_numpy()
            variances = np.maximum(variances, uncertainty.alone)  # NaN stays
            margins = z * np.sqrt(variances).reshape(uncertainty.table.shape)
            for s, name in enumerate(names):
                values, margin = uncertainty.table.iloc[:, s], margins[:, s]
                limits = (0.0, 1.0) if uncertainty.table.columns[s] in UNIT_SCORES else (-math.inf, math.inf)
                low, high = (values - margin).clip(*limits), (values + margin).clip(*limits)
                by_group.append(pd.concat({name: pd.DataFrame({"value": values, "low": low, "high": high})}))
        for metric, families in self.contrasts.items():
            for name, contrasts in families.items():
                largest = self.uncertainties[metric].largest(contrasts)
                low, high = largest.interval(level)
                disparities[metric, name] = {"value": float(largest.estimates.max()), "low": low, "high": high}
                attained = contrasts[[int(np.nan_to_num(largest.estimates, nan=-math.inf).argmax())]]
                variance[metric, name] = self.uncertainties[metric].parts(attained).iloc[0].to_dict()
        index = pd.MultiIndex.from_tuples(disparities, names=["metric", "disparity"])
        table = pd.concat(by_group)
        return FrameIntervals(
            level=level,
            by_group=table.rename_axis(["score", *self.uncertainties["proportions"].table.index.names]),
            disparities=pd.DataFrame(list(disparities.values()), index=index),
            variance=pd.DataFrame(list(variance.values()), index=index),
        )

    def difference(self, metric: str, score: str, a: Hashable, b: Hashable) -> tuple[float, float]:
        """Difference of one score between two groups, a - b, and its standard error."""
        uncertainty = self.uncertainties[metric]
        contrast = np.zeros(uncertainty.table.shape)
        column = uncertainty.table.columns.get_loc(score)
        contrast[uncertainty.table.index.get_loc(a), column] += 1.0
        contrast[uncertainty.table.index.get_loc(b), column] -= 1.0
        variance = float(uncertainty.parts(contrast.reshape(1, -1))["total"].iloc[0])
        return float(uncertainty.estimates(contrast.reshape(1, -1))[0]), math.sqrt(variance)

    def tests(self) -> pd.DataFrame:
        """Test every disparity for being 0; see ``GenerativeMetricFrame.test``."""
        rows = {}
        for metric, families in self.contrasts.items():
            for name, contrasts in families.items():
                largest = self.uncertainties[metric].largest(contrasts)
                rows[metric, name] = {"value": float(largest.estimates.max()), "p_value": largest.p_value()}
        index = pd.MultiIndex.from_tuples(rows, names=["metric", "disparity"])
        table = pd.DataFrame(list(rows.values()), index=index)
        table["adjusted_p_value"] = holm(table["p_value"].to_numpy())
        return table


def holm(p_values: Floats) -> Floats:
    """Adjust p-values so that the chance of any false rejection among them stays below the level (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and no adjusted value is below one of a smaller p-value. NaN is
    left alone and counts as no test.

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
    r"""Samples per group at which a true difference ``delta`` of two groups is found with chance ``power``.

    A difference measured with standard error s at n samples per group has s sqrt(n / n') at n', so that

    .. math:: n' = n \bigl(s (z_{(1 + level) / 2} + z_{power}) / delta\bigr)^2.

    The part of the error that projections and bootstrap bring falls with n no more than they are redrawn, so this holds
    where the data's part is the largest (see ``FrameIntervals.variance``).

    >>> samples_needed(0.02, 1000, delta=0.05)
    1256
    """
    for name, value in (("standard_error", standard_error), ("delta", delta)):
        if not 0.0 < value < math.inf:
            raise ValueError(
                f"{name}={value!r} is no positive number; pass a difference of scores, as 0.01 for a point"
            )
    if not 0.0 < power < 1.0:
        raise ValueError(f"power={power!r} is no chance strictly between 0 and 1; pass one, for example 0.8")
    factor = standard_error * (normal_quantile(level) + float(ndtri(power))) / delta
    return math.ceil(check_positive_int(n_samples, "n_samples") * factor**2)


def normal_quantile(level: float) -> float:
    """Half the width of a two-sided interval of ``level``, in standard errors.

    >>> round(normal_quantile(0.95), 2)
    1.96
    """
    return float(ndtri(0.5 + check_level(level) / 2))
