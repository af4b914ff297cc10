"""What an estimate of an f-divergence from samples is, and how far to trust it."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence, Sized
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from egtmetrics._validation import check_level
from egtmetrics.divergences.families import GeneratorLike, generator_and_unit
from egtmetrics.divergences.generators import FGenerator
from egtmetrics.results import MetricResult, Score, internal, score, setting

Interval: TypeAlias = tuple[float, float]
Rows: TypeAlias = NDArray[np.int64]

N_BLOCKS = 10
_HELP = "How far the distribution of the generated samples is from that of the real ones; 0 for equal distributions."


@dataclasses.dataclass(frozen=True, kw_only=True)
class DivergenceEstimate(MetricResult):
    """D_f(P||Q) estimated from samples: P is the law of the real ones, Q that of the fake ones."""

    value: float = score(label="f-divergence", help=_HELP, better="lower")
    """In nats, or units of ``base``. A divergence without a logarithm has no unit."""
    standard_error: float | None
    """Of ``value``, by the rule that the estimator's docstring names. None where ``notes`` say why."""
    interval: Interval | None
    """Confidence interval ``(low, high)``. It is not cut at 0: below 0 it says that the noise exceeds the value."""
    level: float = setting()
    """Nominal coverage of ``interval``. It ignores the estimator's bias unless its docstring says otherwise."""
    f: str = setting()
    """Name of the generator."""
    base: float | None = setting()
    method: str = setting()
    notes: tuple[str, ...]
    """Why the estimate may be wrong. The same texts were given as warnings."""
    value_score: Score = internal()
    """What is known about ``value``: its unit and bounds depend on f."""

    def describe(self) -> dict[str, Score]:
        return {"value": self.value_score}


class DivergenceEstimateWarning(UserWarning):
    """The estimator is known to fail on samples like these."""


class Uncertainty(NamedTuple):
    """How far an estimate may be off, or notes that say why this is not known."""

    standard_error: float | None
    interval: Interval | None
    notes: Sequence[str] = ()


class Target(NamedTuple):
    """What a caller asks of an estimator: which divergence, in which unit, with an interval at which level."""

    generator: FGenerator
    base: float | None
    unit: float
    """What to multiply a divergence in nats by."""
    level: float

    def estimate(
        self,
        value: float,
        uncertainty: Uncertainty,
        *,
        method: str,
        notes: Sequence[str],
        real: Sized,
        fake: Sized,
        backend: str = "numpy",
        never_negative: bool = False,
    ) -> DivergenceEstimate:
        """Build the result of an estimator, and give its notes as warnings in the name of the estimator's caller."""
        all_notes = (*notes, *uncertainty.notes)
        for note in all_notes:
            warnings.warn(note, DivergenceEstimateWarning, stacklevel=3)
        return DivergenceEstimate(
            value=value,
            standard_error=uncertainty.standard_error,
            interval=uncertainty.interval,
            level=self.level,
            f=self.generator.name,
            base=self.base,
            method=method,
            notes=all_notes,
            value_score=self._score(0.0 if never_negative else -math.inf),
            backend=backend,
            n_real=len(real),
            n_fake=len(fake),
        )

    def _score(self, smallest: float) -> Score:
        unit = "nats" if self.base is None else "bits" if self.base == 2 else f"units of base {self.base:g}"
        return Score(
            label=f"{self.generator.name} divergence",
            help=_HELP,
            better="lower",
            bounds=(smallest, self.unit * self.generator.maximum),
            unit=unit if self.generator.logarithmic else "",
        )


def check_target(f: GeneratorLike, base: float | None, level: float) -> Target:
    generator, unit = generator_and_unit(f, base)
    return Target(generator, base, unit, check_level(level))


def block_pairs(n_real: int, n_fake: int, rng: np.random.Generator, *, min_rows: int) -> list[tuple[Rows, Rows]]:
    """Split the rows of both sets at random into ``N_BLOCKS`` blocks of nearly equal size.

    The list is empty if a block would have fewer than ``min_rows`` rows.
    """
    if min(n_real, n_fake) < N_BLOCKS * min_rows:
        return []
    real_blocks, fake_blocks = (np.array_split(rng.permutation(n), N_BLOCKS) for n in (n_real, n_fake))
    return list(zip(real_blocks, fake_blocks, strict=True))


def block_uncertainty(value: float, block_values: Sequence[float], level: float) -> Uncertainty:
    """Judge an estimate by its values on ``N_BLOCKS`` disjoint blocks; no values mean that the sets are too small.

    Where the variance of an estimator falls like 1/n, it is that of a block divided by the number of blocks
    (subsampling without overlap). A bootstrap would repeat rows, and a repeated row is its own nearest neighbour.
    The blocks cost a tenth of the estimate. The interval is Student's, with 9 degrees of freedom.

    Source: Carlstein: The Use of Subseries Values for Estimating the Variance of a General Statistic, Annals of
    Statistics 14 (1986); Politis, Romano, Wolf: Subsampling, 1999, section 2.
    """
    if not block_values:
        return Uncertainty(
            None, None, ["the sets are too small for an interval, which needs ten blocks from each of them"]
        )
    with np.errstate(over="ignore", invalid="ignore"):
        standard_error = float(np.std(block_values, ddof=1)) / math.sqrt(N_BLOCKS)
    half_width = float(stdtrit(N_BLOCKS - 1, 0.5 + 0.5 * level)) * standard_error
    if not math.isfinite(value + half_width):
        return Uncertainty(None, None, ["the estimate overflows on some of ten blocks, so there is no interval"])
    return Uncertainty(standard_error, (value - half_width, value + half_width))
