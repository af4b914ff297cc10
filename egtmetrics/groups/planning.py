"""How many samples it takes to detect a difference between two groups."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from egtmetrics._validation import check_positive_int
from egtmetrics.groups._evaluation import MetricSet, naming_metric
from egtmetrics.groups.inference import normal_quantile
from egtmetrics.metrics.subsampling import covariance_of_parts, draw_all
from egtmetrics.metrics.variance import scores_of_parts
from egtmetrics.ops import to_host
from egtmetrics.samples import GroupedSamples

Floats = NDArray[np.float64]

_GROWTH = 0.5
"""How much of the growth of n Var T from quarters to halves is left from n to 2 n if it fades as 1 / sqrt(n)."""
VARIANCE_OF_VARIANCE = 35.0
"""A variance estimated from n rows has about this relative variance, over n, beside that of the random division.

Measured for TopP&R, k-nearest neighbours and FID: docs/adr/0022-tests-of-disparities.md.
"""
_MOVING = 0.5
"""The standard error of how far a score lies from those of its quarters, in standard errors of the score. Measured."""
MOST = 2
"""A plan for more than this many times the samples that there are is refused."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplePlan:
    """How many samples a difference between two groups takes, as far as the samples that there are tell."""

    n_samples: int
    """Real and generated samples of each of the two groups."""
    interval: tuple[float, float]
    """Of ``n_samples``, at the level of the test. It is wide, since one sample says little of how scores vary."""
    standard_error: float
    """Of the difference, with ``n_samples`` samples."""
    difference: float
    """What a difference of ``delta`` becomes on average with ``n_samples`` samples."""
    exponent: float
    """How the standard error falls from here on: as n to the power of minus this. It is 0.5 for a mean."""


def samples_needed(
    standard_error: float,
    n_samples: int,
    *,
    delta: float,
    power: float = 0.8,
    level: float = 0.95,
    exponent: float = 0.5,
) -> int:
    r"""Return the samples per group that detect a true difference ``delta`` of two groups with probability ``power``.

    A difference with standard error s at n samples per group has standard error :math:`s (n / n')^\beta` at n', so

    .. math:: n' = n \bigl(s (z_{(1 + level) / 2} + z_{power}) / delta\bigr)^{1 / \beta}.

    :math:`\beta`, the ``exponent``, is 0.5 for a mean. For scores with neighbours or thresholds it is smaller, 0.2 to
    0.4 for TopP&R, and ``GenerativeMetricFrame.samples_needed`` measures it. Errors due to projections and bootstrap
    fall only with more projections and replicates, not with n. So the formula holds if the samples cause most of the
    variance (see ``FrameIntervals.variance``).

    >>> samples_needed(0.02, 1000, delta=0.05)
    1256
    >>> samples_needed(0.02, 1000, delta=0.05, exponent=0.25)
    1578
    """
    _check_positive(standard_error, "standard_error")
    if not 0.0 < exponent <= 1.0:
        raise ValueError(f"exponent={exponent!r} is not above 0 and at most 1; pass 0.5 for a mean, less for TopP&R")
    factor = standard_error * _errors_to_detect(delta, power, level) / delta
    return math.ceil(check_positive_int(n_samples, "n_samples") * math.pow(factor, 1.0 / exponent))


def variance_exponent(of_halves: float, of_quarters: float) -> float:
    """Return e, where the variance falls as n to the power of minus e, from what halves and quarters make of it."""
    if of_halves <= 0.0 or of_quarters <= 0.0:
        return 1.0
    return 1.0 - _GROWTH * math.log2(of_halves / of_quarters)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The scores of random halves and quarters of a group's samples."""

    n_samples: int
    """The smaller number of real and of generated samples."""
    halves: Floats
    """``(2, 3 Q, S)``, from Q divisions into quarters."""
    quarters: Floats
    """``(4, Q, S)``"""


def score_parts(metrics: MetricSet, metric: str, samples: GroupedSamples, label: Hashable) -> Parts:
    """Call a metric on random halves and quarters of one group; ValueError if it refuses them."""
    group = samples.group(label)
    rng = np.random.default_rng([metrics.seed, 1])  # the parts that most variances are estimated from
    subsamples = draw_all([to_host(side)[:] for side in (group.real, group.fake)], group.clusters, rng)
    sizes = f"({len(group.real)} real, {len(group.fake)} fake)"
    where = f"a plan needs scores of random halves and quarters of group {samples.groups.name(label)!r} {sizes}"
    with naming_metric(metric, where):
        halves, *quarters = scores_of_parts(metrics.bound[metric], *subsamples)
        if not quarters:
            raise ValueError("quarters have too few samples for it; add samples")
    return Parts(n_samples=min(len(group.real), len(group.fake)), halves=halves, quarters=quarters[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pilot:
    """One score of one of the two groups, and of random halves and quarters of its samples."""

    n_samples: int
    score: float
    variance: float
    """Over other samples of this size."""
    halves: Floats
    """``(2, 3 Q)``"""
    quarters: Floats
    """``(4, Q)``"""

    @classmethod
    def of(cls, parts: Parts, column: int, *, score: float, variance: float) -> Pilot:
        """Choose one of the scores."""
        return cls(
            n_samples=parts.n_samples,
            score=score,
            variance=variance,
            halves=parts.halves[:, :, column],
            quarters=parts.quarters[:, :, column],
        )

    def without(self, division: int) -> Pilot:
        """Leave out one of the divisions."""
        n = self.quarters.shape[1]
        halves = np.delete(self.halves, [division, division + n, division + 2 * n], axis=1)
        return dataclasses.replace(self, halves=halves, quarters=np.delete(self.quarters, division, axis=1))

    @property
    def exponent(self) -> float:
        """Of the variance: it falls as n to the power of minus this."""
        return variance_exponent(*(covariance_of_parts(x[:, :, None]).item() for x in (self.halves, self.quarters)))

    @property
    def move(self) -> float:
        """How far the score is from those of quarters, and from its limit if its bias falls as 1 / sqrt(n)."""
        return self.score - float(self.quarters.mean())


def plan_samples(
    first: Pilot, second: Pilot, *, constant: float, delta: float, power: float, level: float, what: str
) -> SamplePlan:
    """Extrapolate to the samples that detect ``delta``; see ``GenerativeMetricFrame.samples_needed``.

    ``constant`` is the variance of the difference that does not fall with n. ``what`` names it in errors.
    """
    errors = _errors_to_detect(delta, power, level)
    pilots = (first, second)
    n_pilot = min(first.n_samples, second.n_samples)
    plan = _Curve.of(pilots, constant)
    n_needed = plan.samples(delta, errors, n_pilot)
    if n_needed > MOST * n_pilot:
        most = MOST * n_pilot
        about = f"about {n_needed:.3g}" if math.isfinite(n_needed) else "more than 100 times as many"
        raise ValueError(
            f"{what}: a difference of {delta:.4g} takes {about} samples per group and side, and there are {n_pilot}; "
            f"more than {most} cannot be foreseen from so few. {most} samples find a difference of "
            f"{errors * plan.error(most) - plan.move(most):.4g}; pass this as delta, or evaluate more samples and ask "
            "again"
        )
    divisions = range(first.quarters.shape[1])
    jackknife = [_Curve.of([pilot.without(i) for pilot in pilots], constant) for i in divisions]
    other = [math.log(curve.samples(delta, errors, n_pilot) / n_needed) for curve in jackknife]
    variance = (len(divisions) - 1) * float(np.var(other)) if np.isfinite(other).all() else math.inf
    for i in range(len(pilots)):
        for curve in plan.uncertain(i):
            variance += math.log(curve.samples(delta, errors, n_pilot) / n_needed) ** 2
    margin = normal_quantile(level) * math.sqrt(variance)
    low, high = n_needed * math.exp(-margin), n_needed * math.exp(margin)
    n_samples = math.ceil(n_needed)
    return SamplePlan(
        n_samples=n_samples,
        interval=(math.floor(low), math.ceil(high) if math.isfinite(high) else high),
        standard_error=plan.error(n_samples),
        difference=delta + plan.move(n_samples),
        exponent=math.log2(plan.error(n_pilot) / plan.error(2 * n_pilot)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Curve:
    """The standard error of a difference and its move, by the number of samples."""

    sizes: Floats
    variances: Floats
    exponents: Floats
    moves: Floats
    """Of both groups, towards a larger difference."""
    constant: float

    @classmethod
    def of(cls, pilots: Sequence[Pilot], constant: float) -> _Curve:
        sign = math.copysign(1.0, pilots[0].score - pilots[1].score)
        return cls(
            sizes=np.array([float(pilot.n_samples) for pilot in pilots]),
            variances=np.array([pilot.variance for pilot in pilots]),
            exponents=np.array([pilot.exponent for pilot in pilots]),
            moves=np.array([sign * pilots[0].move, -sign * pilots[1].move]),
            constant=constant,
        )

    def error(self, n: float) -> float:
        return math.sqrt(float((self.variances * (self.sizes / n) ** self.exponents).sum()) + self.constant)

    def move(self, n: float) -> float:
        """Return how much larger the difference is with n samples."""
        return float((self.moves * (1.0 - np.sqrt(self.sizes / n))).sum())

    def samples(self, delta: float, errors: float, n_pilot: int) -> float:
        """Return where the difference is so many standard errors, from a quarter of the pilot on; else infinity."""
        from scipy.optimize import brentq  # takes long to import

        def beyond(log_n: float) -> float:
            n = math.exp(log_n)
            return delta + self.move(n) - errors * self.error(n)

        low, high = math.log(n_pilot / 4.0), math.log(100.0 * n_pilot)
        if beyond(low) >= 0.0:
            return math.exp(low)
        return math.exp(brentq(beyond, low, high)) if beyond(high) > 0.0 else math.inf

    def uncertain(self, group: int) -> list[_Curve]:
        """Return the curves with the variance, and with the move, of one group larger by a standard error."""
        at = np.arange(len(self.sizes)) == group
        factor = math.exp(math.sqrt(VARIANCE_OF_VARIANCE / self.sizes[group]))
        larger = dataclasses.replace(self, variances=np.where(at, factor * self.variances, self.variances))
        moved = dataclasses.replace(self, moves=self.moves - np.where(at, _MOVING * np.sqrt(self.variances), 0.0))
        return [larger, moved]


def _errors_to_detect(delta: float, power: float, level: float) -> float:
    """Return how many standard errors a difference must have."""
    _check_positive(delta, "delta")
    check_power(power)
    return normal_quantile(level) + float(ndtri(power))


def check_power(power: Any) -> float:
    """Return the power of a test or verdict; ValueError unless it is a number strictly between 0 and 1."""
    if not isinstance(power, float | np.floating) or not 0.0 < power < 1.0:
        raise ValueError(f"power={power!r} is not a number strictly between 0 and 1; pass one, for example 0.8")
    return float(power)


def _check_positive(value: float, name: str) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(
            f"{name}={value!r} is not a positive number; pass a difference of scores, for example 0.01 for a point"
        )
