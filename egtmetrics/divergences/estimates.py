"""What an estimate of an f-divergence from samples is, and how far to trust it."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from egtmetrics.divergences.generators import FGenerator, Values
from egtmetrics.results import MetricResult

Interval: TypeAlias = tuple[float, float]

N_BLOCKS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class DivergenceEstimate(MetricResult):
    """D_f(P||Q) estimated from samples: P is the law of the real ones, Q that of the fake ones."""

    score_names: ClassVar[tuple[str, ...]] = ("value",)

    value: float
    """In nats, or units of ``base``; a divergence that is no logarithm has no unit."""
    standard_error: float | None
    """Of ``value``, by the rule that the estimator's docstring names; None where ``notes`` say why."""
    interval: Interval | None
    """Confidence interval ``(low, high)``. It is not cut at 0, so it may tell that the noise exceeds the value."""
    level: float
    """Nominal coverage of ``interval``. Bias of the estimator is not part of it unless its docstring says so."""
    f: str
    """Name of the generator."""
    base: float | None
    method: str
    notes: tuple[str, ...]
    """Why the estimate may be wrong; the same texts as were warned of."""


class BlockErrors(NamedTuple):
    """What :func:`block_errors` returns."""

    standard_error: float | None
    interval: Interval | None
    notes: list[str]
    """Why there are none."""


class DivergenceEstimateWarning(UserWarning):
    """The samples are of a kind for which the estimator is known to fail."""


def check_level(level: float) -> float:
    """Check a confidence level."""
    if not isinstance(level, float | np.floating) or not 0.0 < level < 1.0:
        raise ValueError(f"level={level!r} is no number strictly between 0 and 1; pass one, for example 0.95")
    return float(level)


def warn_of(notes: Sequence[str]) -> tuple[str, ...]:
    """Warn of every note, on behalf of the function that calls the estimator."""
    for note in notes:
        warnings.warn(note, DivergenceEstimateWarning, stacklevel=3)
    return tuple(notes)


def mean_over_both(generator: FGenerator, real_ratios: Values, fake_ratios: Values) -> float:
    r"""Average a divergence over the points of both sets, given the ratio r = p/q at each; in nats.

    .. math::

        D_f(P \| Q) = \int \frac{p + q}{2} \cdot \frac{2 g(r)}{1 + r} \approx
            \frac1n \sum_i \frac{g(r(x_i))}{1 + r(x_i)} + \frac1m \sum_j \frac{g(r(y_j))}{1 + r(y_j)},

    where g(t) = f(t) - f'(1) (t - 1) gives the same divergence as f and is not negative; at a kink, f'(1) is the mean
    of the slopes on both sides. Next to the mean of f(r) over the fake points alone, this sees real mass where there is
    no fake one, hangs less on the largest ratios, and gives the divergence of the partner when the sets are swapped.
    Ratios may be 0 or inf.
    """
    one = np.ones(1)  # the partner's left derivative is minus the right one of f
    slope = 0.5 * float(generator.derivative(one)[0] - generator.partner().derivative(one)[0])

    def mean(ratios: Values) -> float:
        finite = np.isfinite(ratios)
        t = np.where(finite, ratios, 1.0)
        terms = (generator.f(t) - slope * (t - 1.0)) / (1.0 + t)
        return float(np.where(finite, terms, generator.slope_at_infinity - slope).mean())

    return mean(real_ratios) + mean(fake_ratios)


def random_blocks(n_rows: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Split the numbers of rows at random into ``N_BLOCKS`` sets of nearly equal size."""
    return np.array_split(rng.permutation(n_rows), N_BLOCKS)


def block_errors(value: float, block_values: list[float], level: float) -> BlockErrors:
    """Judge an estimate by its values on ``N_BLOCKS`` disjoint blocks, or none where the sets are too small for blocks.

    Where the variance of an estimator falls like 1/n, it is that of a block divided by the number of blocks:
    subsampling without overlap. Unlike a bootstrap it repeats no row, which would be its own nearest neighbour, and it
    costs a tenth of the estimate. The interval is Student's, with 9 degrees of freedom. Source: Carlstein: The Use of
    Subseries Values for Estimating the Variance of a General Statistic, Annals of Statistics 14 (1986); Politis,
    Romano, Wolf: Subsampling, 1999, section 2.
    """
    if not block_values:
        return BlockErrors(None, None, ["the sets are too small for an interval, which needs ten blocks of either"])
    with np.errstate(over="ignore", invalid="ignore"):
        standard_error = float(np.std(block_values, ddof=1)) / math.sqrt(N_BLOCKS)
    half_width = float(stdtrit(N_BLOCKS - 1, 0.5 + 0.5 * level)) * standard_error
    if not math.isfinite(value + half_width):
        return BlockErrors(None, None, ["the estimate overflows on some of ten blocks, so there is no interval"])
    return BlockErrors(standard_error, (value - half_width, value + half_width), [])
