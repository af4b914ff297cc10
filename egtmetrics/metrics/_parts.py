"""Random halves and quarters of one sample, and the variance at full size that their scores tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from egtmetrics._order import canonical_order
from egtmetrics.ops import Features, take_rows

Floats: TypeAlias = NDArray[np.float64]
Parts: TypeAlias = NDArray[np.uint8]
"""``(n, C)``: the part, 0 or 1, or 0 to 3, that every row has in each of C divisions."""

_GROWTH = 0.7
"""g of :func:`full_size_covariance`.

Where n Var T(n) tends to its limit as 1 / sqrt(n), 0.71 is right to first order, where as 1 / n, 0.5. Where Var T goes
with another power of n than -1, 1 is.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Covariances of the scores of one real and one fake set, by where the randomness comes from."""

    names: tuple[str, ...]
    data: Floats
    """``(S, S)``: of another sample of the same size, with the projections that were drawn."""
    alone: Floats | None = None
    """``(S,)``: variances for the interval of a score by itself, where those of ``data`` vary with the score."""
    per_projection: Floats | None = None
    """``(M, S)``: the scores under each projection, where there are several."""
    interaction: Floats | None = None
    """``(S, S)``: what one projection's share in ``data`` exceeds that of their mean by."""
    threshold: Floats | None = None
    """``(S, S)``: of another draw of the confidence bands' bootstrap, for one projection."""


@dataclasses.dataclass(frozen=True)
class Divided:
    """A sample, less up to three random rows, and Q random divisions into quarters.

    With the quarters of one division numbered 0 to 3, they make halves as {0, 1} and {2, 3}, {0, 2} and {1, 3}, {0, 3}
    and {1, 2}: for any linear score the three pairs know what the quarters know.
    """

    points: Features
    """In canonical order, so that nothing depends on the order in which rows came."""
    parts: Parts
    """``(n, 4 Q)``: Q first pairs of halves, Q second ones, Q third ones, and the quarters they are made of."""

    @property
    def pairs_of_halves(self) -> slice:
        return slice(0, self.parts.shape[1] // 4 * 3)

    @property
    def n_parts(self) -> NDArray[np.int64]:
        """2 or 4, by division."""
        return np.repeat([2, 4], [self.parts.shape[1] // 4 * 3, self.parts.shape[1] // 4])

    def by_size(self) -> Iterator[tuple[int, slice]]:
        """Divisions into 2 parts, and those into 4, as columns of ``parts``."""
        yield 2, self.pairs_of_halves
        yield 4, slice(self.pairs_of_halves.stop, None)


def divide(points: Features, n_quarterings: int, rng: np.random.Generator) -> Divided:
    n = len(points) // 4 * 4
    kept = np.sort(rng.permutation(len(points))[:n])
    quarters = np.repeat(np.arange(4, dtype=np.uint8), n // 4)[:, None].repeat(n_quarterings, axis=1)
    quarters = rng.permuted(quarters, axis=0)
    first, second = quarters >> 1, quarters & 1
    return Divided(
        take_rows(points, canonical_order(points)[kept]), np.concatenate([first, second, first ^ second, quarters], 1)
    )


def grouped(values: NDArray[Any], parts: Parts, n_parts: int) -> NDArray[Any]:
    """Values ``(n, C)`` by the part they are in: ``(n_parts, n / n_parts, C)``."""
    order = np.argsort(parts, axis=0, kind="stable")
    by_part: NDArray[Any] = np.take_along_axis(values, order, axis=0).reshape(n_parts, -1, parts.shape[1])
    return by_part


def covariance_of_parts(scores: Floats) -> Floats:
    """Covariance that scores ``(P, C, S)`` of P parts tell for the full size where variances go with 1 / n."""
    n_parts, n_divisions = scores.shape[:2]
    deviations = scores - scores.mean(axis=0)
    moments: Floats = np.einsum("pci,pcj->ij", deviations, deviations) / (n_divisions * n_parts * (n_parts - 1))
    return moments


def full_size_covariance(halves: Floats, quarters: Floats) -> Floats:
    """Follow the variances from quarters to halves one step further, by ``V_2 (V_2 / V_4)^g``, and keep correlations.

    ``halves`` and ``quarters`` are covariances ``(S, S)``, each as if variances went with 1 / n.
    """
    variances = np.stack([np.diag(halves), np.diag(quarters)])
    known = (variances > 0).all(axis=0)
    ratio = np.divide(variances[0], variances[1], out=np.ones(len(halves)), where=known)
    growth = ratio ** (_GROWTH / 2.0)
    covariance: Floats = growth[:, None] * halves * growth
    return covariance
