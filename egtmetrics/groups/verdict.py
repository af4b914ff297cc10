"""Is the largest gap between two groups within a tolerance, beyond it, or is that undecided?

A gap that may be chance is not yet a small one. So both claims need proof: "within" an upper bound of the largest gap
below the tolerance, "beyond" a lower bound above it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from egtmetrics._errors import listed
from egtmetrics._validation import check_level
from egtmetrics.groups._saved import numbers
from egtmetrics.groups.disparity import ScoreTable
from egtmetrics.groups.inference import Inference, Largest, Uncertainty
from egtmetrics.groups.planning import VARIANCE_OF_VARIANCE
from egtmetrics.labels import group_text
from egtmetrics.results import Score

Floats: TypeAlias = NDArray[np.float64]
Outcome = Literal["within", "beyond", "undecided"]

_POWER = 0.8
_MOST_TIMES = 10
"""Extrapolations to more samples than this many times those at hand are not stated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the largest gap in the scores of a metric is within a tolerance.

    ``GenerativeMetricFrame.certify`` and ``Baseline.certify`` make it.
    """

    metric: str
    disparities: tuple[str, ...]
    """All that are compared with the tolerance, such as ``("delta_p", "delta_r")`` for precision and recall."""
    disparity: str
    """The largest of them."""
    of: Literal["scores", "excess"]
    """Whether the groups' scores are compared, or their excess over other real samples."""
    outcome: Outcome
    tolerance: float
    value: float
    """The largest gap as measured."""
    low: float
    high: float
    """Bounds of the expected largest gap. Each of the two holds with probability ``level``."""
    level: float
    larger: Hashable | None
    smaller: Hashable | None
    """The groups that attain ``value``."""
    more_samples: Mapping[Hashable, int] | None = None
    """If undecided, how many more real and as many more generated samples of which groups would decide with probability
    0.8, if the gap is as measured. None if that is decided or cannot be said."""
    reason: str = ""
    """If undecided for another reason than noise, that reason."""
    score: Score
    """The score of the largest gap, which says how the numbers are printed."""

    @property
    def text(self) -> str:
        """What is known of the largest gap, as a sentence of which it is the subject, without a full stop."""
        level, tolerance = (
            f"at {100.0 * self.level:g} % confidence",
            f"the tolerance of {self.score.difference_text(self.tolerance)}",
        )
        if self.outcome == "within":
            return f"within {tolerance}: {level}, it is at most {self.score.difference_text(self.high)}"
        if self.outcome == "beyond":
            return f"beyond {tolerance}: {level}, it is at least {self.score.difference_text(self.low)}"
        undecided = f"undecided for {tolerance}"
        if self.reason:
            return f"{undecided}: {self.reason}"
        low, high = map(self.score.difference_text, (self.low, self.high))
        bounds = f" each, it is at least {low} and at most {high}" if self.low > 0.0 else f", it is at most {high}"
        undecided += f": {level}{bounds}. "
        if self.more_samples is None:
            return f"{undecided}It is too near the tolerance to say how many more samples would decide"
        more = " and ".join(f"{number} more of {group_text(group)}" for group, number in self.more_samples.items())
        return f"{undecided}If it is as measured, about {more} would decide, both real and generated ones"

    def to_dict(self, names: Mapping[Hashable, str]) -> dict[str, Any]:
        """Return all but the description of the score, and the groups under their names."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "score"}
        content["disparities"] = list(self.disparities)
        for key in ("larger", "smaller"):
            content[key] = None if content[key] is None else names[content[key]]
        if self.more_samples is not None:
            content["more_samples"] = {names[label]: number for label, number in self.more_samples.items()}
        return {**content, "text": self.text}

    @classmethod
    def restored(cls, content: Mapping[str, Any], table: ScoreTable) -> Self:
        """Return a verdict from what ``to_dict`` returned and the scores that it is on."""
        fields = {name: value for name, value in content.items() if name != "text"}
        fields["disparities"] = tuple(fields["disparities"])
        fields |= numbers(fields, ("tolerance", "value", "low", "high", "level"))
        return cls(**fields, score=next(one.score for one in table.judged if one.name == fields["disparity"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """What the scores of a table were computed from."""

    sizes: Mapping[Hashable, int]
    """By group, the number of samples, on the side that has fewer."""
    scores: Sequence[pd.DataFrame]
    """The scores, or those of the model and of other real samples, whose difference is compared."""
    described: Mapping[str, Score]
    """What the scores are."""
    units: Mapping[Hashable, int] | None = None
    """By group, how many of the samples, or clusters of them, are independent; None for all samples."""


def certify(
    inference: Inference,
    metric: str,
    tolerance: float,
    *,
    of: Literal["scores", "excess"],
    samples: Samples,
    level: float = 0.95,
) -> Verdict:
    r"""Compare the largest gap in the scores of a metric with a tolerance.

    Every score in the unit of the first one counts: precision and recall, each by itself. With contrasts c between two
    groups in one of them, scores s and their standard errors, the bounds are

    .. math::

        \text{low} = \max_c (c^T s - q\,e_c), \qquad \text{high} = \max_c (c^T s + z\,e_c^+).

    q is simultaneous over all contrasts, z the one-sided normal quantile. For "within", every contrast has to be below
    the tolerance. Each is tested at the full level: the one with the largest expectation is found too small with
    probability 1 - level at most, so the claim is wrong no more often, however many groups there are.

    Shares vary less the nearer they are to 0 or 1, distances the nearer they are to 0. So a precision that came out
    near 1 by chance comes with a small standard error, and a distance that came out small as well. The upper bound
    takes its errors :math:`e_c^+` from intervals of the scores that allow for it. Of shares, Wilson's interval, for the
    number of samples that gives the estimated variance. Of distances, an interval for a variance proportional to the
    expectation, as far as the variance is of the first order. An excess of distances tells less of its variance, so it
    gets the quantile of Student's t, for as many samples as there are. The errors of several scores join with the
    estimated correlations (the method of variance estimates recovery).

    Parameters
    ----------
    inference
        Of the scores or their excess.
    metric
        One of ``inference.tables``.
    tolerance
        A gap in the unit of the score; shares are fractions, 0.05 for five points.
    of
        What the scores are.
    samples
        What they were computed from.
    level
        The confidence of each bound.

    Notes
    -----
    ``more_samples`` follows from variances that fall with 1 / n. Those of scores with thresholds or neighbours may fall
    more slowly, and the gap itself may move, so the numbers are a rough guide. ``frame.plan(tolerance=...)`` measures
    how they fall.

    Source: intersection-union test, Berger 1982; Wilson 1927; Zou and Donner 2008; ``docs/adr/0025-verdicts.md``.
    """
    table = inference.tables[metric]
    judged = table.judged
    uncertainty = inference.uncertainties[metric]
    contrasts = np.concatenate([disparity.contrasts(table.values)[0] for disparity in judged])
    largest = Largest(uncertainty=uncertainty, families=[contrasts])
    tolerance, level = check_tolerance(tolerance), check_confidence(level)
    z = float(ndtri(level))
    pairs = [disparity.of(table.values) for disparity in judged]
    position = int(np.nan_to_num([pair.value for pair in pairs], nan=math.inf).argmax())
    disparity, pair = judged[position], pairs[position]
    reason = table.doubt()
    variances = pd.DataFrame(_variances(uncertainty).reshape(table.values.shape), columns=table.values.columns)
    compared = [one.column for one in judged]
    known = largest.known and bool(np.isfinite([table.values[compared], variances[compared]]).all())
    if not known:
        reason = "a group has no score, or its error is not known"
    low, high, more = math.nan, math.nan, None
    outcome: Outcome = "undecided"
    if known:
        (estimates,) = largest.estimates
        to_bound, skewed = _skewed(uncertainty, contrasts, samples, z)
        low, _ = largest.interval(level)
        high = float((estimates + z * np.sqrt(skewed.parts(to_bound)["total"].to_numpy())).max())
        outcome = "within" if high < tolerance else "beyond" if low > tolerance else "undecided"
        if outcome == "undecided" and estimates.max() < tolerance:  # every contrast has to be below it
            more = _more_samples(to_bound, skewed, tolerance - estimates, z, samples.sizes)
        elif outcome == "undecided":
            widest = [estimates.argmax()]
            distance, quantile = estimates[widest] - tolerance, largest.simultaneous(level)
            more = _more_samples(contrasts[widest], uncertainty, distance, quantile, samples.sizes)
    if reason:
        outcome, more = "undecided", None
    return Verdict(
        metric=metric,
        disparities=tuple(one.name for one in judged),
        disparity=disparity.name,
        of=of,
        outcome=outcome,
        tolerance=tolerance,
        value=pair.value,
        low=low,
        high=high,
        level=level,
        larger=pair.larger,
        smaller=pair.smaller,
        more_samples=more,
        reason=reason,
        score=disparity.score,
    )


def check_metric(metric: str | None, metrics: Sequence[str]) -> str:
    """Return the metric, or with None the only one there is."""
    if metric is None and len(metrics) == 1:
        return metrics[0]
    if metric is None or metric not in metrics:
        names = listed(map(repr, metrics))
        raise ValueError(f"metric={metric!r} is not one of the metrics; a verdict is on one of {names}")
    return metric


def check_confidence(level: Any) -> float:
    """Return the level of a verdict; ValueError unless it is between 0.5 and 1."""
    if check_level(level) <= 0.5:
        raise ValueError(f"level={level!r} certifies nothing; pass a confidence above 0.5, for example 0.95")
    return float(level)


def check_tolerance(tolerance: Any) -> float:
    """Return a tolerance as a number; ValueError unless it is finite and above 0."""
    if (
        isinstance(tolerance, bool)
        or not isinstance(tolerance, int | float | np.number)
        or not 0 < tolerance < math.inf
    ):
        raise ValueError(
            f"tolerance={tolerance!r} is not a positive number; pass a gap in the unit of the score, for example 0.05 "
            "for five points of a share"
        )
    return float(tolerance)


def upper_errors(largest: Largest, samples: Samples, z: float) -> Floats:
    """Return the errors of the upper bounds of every contrast of a disparity; see :func:`certify`."""
    to_bound, uncertainty = _skewed(largest.uncertainty, largest.families[0], samples, z)
    errors: Floats = np.sqrt(uncertainty.parts(to_bound)["total"].to_numpy())
    return errors


def _skewed(uncertainty: Uncertainty, contrasts: Floats, samples: Samples, z: float) -> tuple[Floats, Uncertainty]:
    """Return contrasts and an uncertainty that give the errors of upper bounds: a score's margin is z of its errors."""
    below, above = _margins(uncertainty, samples, z)
    errors = np.sqrt(np.nan_to_num(_variances(uncertainty)))
    still = errors == 0.0  # the margin of a score without any variance joins with no other
    lifted = dataclasses.replace(uncertainty, data=uncertainty.data + np.diag(still.astype(float)))
    reach = np.where(contrasts > 0, contrasts * above, contrasts * below)
    return reach / (z * np.where(still, 1.0, errors)), lifted


def _variances(uncertainty: Uncertainty) -> Floats:
    """Return the variance of every score; NaN where it is not known."""
    variances: Floats = np.diag(uncertainty.data + uncertainty.projections + uncertainty.threshold).clip(0.0)
    return variances


def _margins(uncertainty: Uncertainty, samples: Samples, z: float) -> tuple[Floats, Floats]:
    """Return how far the expectation of every score may lie below and above it, each at z standard errors."""
    variances = np.nan_to_num(_variances(uncertainty))
    units = samples.sizes if samples.units is None else samples.units
    sizes = np.repeat([units[label] for label in uncertainty.table.index], len(samples.described)).astype(float)
    # Distances: the variance of a single score is known apart, and it is twice as large where it is of second order.
    ratio = np.divide(uncertainty.alone, variances, out=np.full(len(variances), 2.0), where=uncertainty.alone > 0)
    first_order = (2.0 - ratio).clip(0.0, 1.0) * variances
    of_excess = len(samples.scores) > 1
    quantile = np.full(len(variances), z)
    if of_excess:
        quantile = np.where(uncertainty.alone > 0, stdtrit(2.0 * sizes / VARIANCE_OF_VARIANCE, ndtr(z)), z)
    values = np.maximum(np.nan_to_num(uncertainty.values), np.sqrt(variances))
    shift = quantile**2 / 2.0 * np.divide(first_order, values, out=np.zeros(len(variances)), where=variances > 0)
    half = np.sqrt(quantile**2 * variances + shift**2)

    is_share = np.array([score.bounds == (0.0, 1.0) for score in samples.described.values()])
    shares = [np.where(is_share, table[list(samples.described)], math.nan).ravel() for table in samples.scores]
    # One sample more or less keeps the ratio finite where nothing varies.
    effective = (sum(share * (1.0 - share) for share in shares) + 1.0 / sizes) / (variances + 1.0 / sizes**2)
    (below, above), *others = (_wilson(share, effective, z) for share in shares)
    for other_below, other_above in others:  # what is subtracted
        below, above = np.hypot(below, other_above), np.hypot(above, other_below)
    return np.where(np.isnan(below), half - shift, below), np.where(np.isnan(above), half + shift, above)


def _wilson(shares: Floats, sizes: Floats, z: float) -> tuple[Floats, Floats]:
    """Return how far Wilson's interval reaches below and above each share.

    >>> [part.round(4).tolist() for part in _wilson(np.array([0.5, 1.0]), np.array([100.0, 100.0]), 1.645)]
    [[0.0812, 0.0263], [0.0812, 0.0]]
    """
    centre = (shares + z**2 / (2.0 * sizes)) / (1.0 + z**2 / sizes)
    half = z * np.sqrt(shares * (1.0 - shares) / sizes + (z / (2.0 * sizes)) ** 2) / (1.0 + z**2 / sizes)
    return (shares - centre + half).clip(0.0), (centre + half - shares).clip(0.0)


def _more_samples(
    contrasts: Floats, uncertainty: Uncertainty, distances: Floats, quantile: float, sizes: Mapping[Hashable, int]
) -> dict[Hashable, int] | None:
    """Return how many more samples of each group tell all contrasts from the tolerance with probability 0.8.

    ``distances`` are those from the tolerance, as measured.
    """
    table = uncertainty.table
    now = np.array([sizes[label] for label in table.index], dtype=float)
    needed = now.copy()
    totals = uncertainty.parts(contrasts)["total"].to_numpy()
    targets = (distances / (quantile + float(ndtri(_POWER)))) ** 2
    for contrast, total, target in zip(contrasts, totals, targets, strict=True):
        by_group = np.einsum("ab,as->abs", np.eye(len(table)), contrast.reshape(table.shape)).reshape(len(table), -1)
        data = np.einsum("gi,ij,gj->g", by_group, np.nan_to_num(uncertainty.data), by_group)
        needed = np.maximum(needed, _allocate(data, total - data.sum(), target, now))
    if not (needed <= _MOST_TIMES * now).all():
        return None
    return {label: math.ceil(n - m) for label, n, m in zip(table.index, needed, now, strict=True) if n > m}


def _allocate(variances: Floats, fixed: float, target: float, sizes: Floats) -> Floats:
    """Return the fewest samples in total, none fewer than ``sizes``, with which the variance falls to ``target``.

    ``variances`` fall with 1 / n; ``fixed`` does not fall. Infinite where nothing helps.

    >>> _allocate(np.array([4.0, 1.0]), 0.0, 2.5, np.array([100.0, 100.0])).round(1).tolist()
    [240.0, 120.0]
    >>> _allocate(np.array([1.0, 1.0]), 0.5, 1.0, np.array([100.0, 100.0])).tolist()
    [400.0, 400.0]
    """
    needed, growing = sizes.copy(), variances > 0
    if fixed + variances.sum() <= target:
        return needed
    while growing.any():
        left = target - fixed - variances[~growing].sum()
        if left <= 0.0:
            break
        roots = np.sqrt(variances[growing] * sizes[growing])
        found = roots * roots.sum() / left
        if (found >= sizes[growing]).all():
            needed[growing] = found
            return needed
        growing[np.flatnonzero(growing)[found < sizes[growing]]] = False
    return np.full(len(sizes), math.inf)
