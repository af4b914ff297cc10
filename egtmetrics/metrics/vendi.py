"""Vendi score: the effective number of different generated samples, without a reference."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from egtmetrics._validation import check_number, check_real_fake
from egtmetrics.metrics.subsampling import ClustersOfBoth, Floats
from egtmetrics.metrics.variance import Moves, PartsOfBoth, ScoreCovariance
from egtmetrics.ops import to_host
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, score, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class VendiResult(MetricResult):
    """What :func:`vendi_score` returns."""

    vendi: float = score(
        label="Vendi score",
        help="The effective number of different generated samples: so many wholly unlike ones, equally often, would "
        "score the same. It knows no real samples, so that noise scores high.",
        better="higher",
        bounds=(1.0, math.inf),
    )
    order: float = setting()


def vendi_variance(
    result: VendiResult,
    real: Any,
    fake: Any,
    rng: np.random.Generator,
    *,
    parts: PartsOfBoth,
    clusters: ClustersOfBoth = (None, None),
) -> ScoreCovariance:
    """Variance of the score from its derivative; see :class:`~egtmetrics.metrics.variance.Moves`."""
    moves = functools.partial(_moves, order=result.order)
    return Moves.of(moves, real, fake, clusters, parts, n_splits=1, drawn=np.zeros((1, 1))).covariance()


@metric("vendi", title="Vendi score", variance=vendi_variance)
def vendi_score(real: Any, fake: Any, *, order: float = 1.0) -> VendiResult:
    r"""Effective number of different generated samples; the real ones are not used.

    With K the cosines of all pairs of the m generated samples, and :math:`\lambda_i` the eigenvalues of K / m, which
    sum to 1, the score of order q is the exponential of their Rényi entropy, for q = 1 Shannon's:

    .. math::

        VS_1 = \exp\Bigl(-\sum_i \lambda_i \log \lambda_i\Bigr), \qquad
        VS_q = \Bigl(\sum_i \lambda_i^q\Bigr)^{1 / (1 - q)}, \qquad VS_\infty = 1 / \max_i \lambda_i.

    It lies between 1 (all samples in one direction) and the smaller of m and d.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    order
        Order q of the entropy, above 0, also infinity. A large one counts what is common, a small one also what is
        rare.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite array, or an order that is not above 0.

    Notes
    -----
    It grows with m, so compare groups at equal numbers of samples only (``GroupedSamples.matched(across_groups=True)``,
    ``--match-groups``); gaps between groups of very unequal sizes have a caveat. Whether a group is less varied than
    the real one says ``frame.baseline()``: it scores as many other real samples in the place of the generated ones.

    The cosine has an origin: features far from zero, in one direction, are all alike. A row of zeros has no direction;
    it counts as like other rows of zeros, and unlike all others. Eigenvalues are those of the smaller of K and the
    matrix of second moments, in float64. Time O(m d min(m, d)), memory O(m d + min(m, d)^2).

    References
    ----------
    Friedman, Dieng: The Vendi Score: A Diversity Evaluation Metric for Machine Learning, TMLR 2023. Other orders:
    Pasarkar, Dieng: Cousins of the Vendi Score, AISTATS 2024.

    Examples
    --------
    Half of the samples in one direction, the others in two more:

    >>> fake = [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]]
    >>> round(vendi_score(fake, fake).vendi, 4), round(vendi_score(fake, fake, order=float("inf")).vendi, 4)
    (2.8284, 2.0)
    """
    order = order if order == math.inf else check_number(order, "order", above=0.0)
    real, fake = check_real_fake(real, fake)
    values = np.asarray(np.linalg.eigvalsh(_smaller_product(_directions(fake))), dtype=np.float64)
    return VendiResult(
        vendi=max(1.0, math.exp(_entropy(values[values > _cutoff(values)], order))),
        order=order,
        backend="numpy",
        n_real=len(real),
        n_fake=len(fake),
    )


def _moves(real: Any, fake: Any, order: float) -> tuple[Floats, Floats]:
    """How much every row moves the score; with z the direction of a row and R the matrix of second moments, the
    entropy moves by the derivative of its sum over eigenvalues along z z^T - R."""
    z = _directions(fake)
    values, vectors = np.linalg.eigh(_smaller_product(z))
    shares = len(z) * values * vectors**2 if len(z) < z.shape[1] else (z @ vectors) ** 2
    kept = values > _cutoff(values)
    values, shares = values[kept], shares[:, kept]
    entropy = _entropy(values, order)
    if order == 1.0:
        moves = shares @ -np.log(values) - entropy
    elif order == math.inf:
        moves = 1.0 - shares[:, -1] / values[-1]
    else:
        moves = order / (1.0 - order) * (shares @ values ** (order - 1.0) / np.sum(values**order) - 1.0)
    return np.zeros((len(real), 1)), math.exp(entropy) * moves[:, None]


def _directions(points: Any) -> Floats:
    """Return rows of length 1; rows of zeros have an axis of their own."""
    rows = np.asarray(to_host(points), dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    zero = lengths == 0.0
    directions: Floats = rows / np.where(zero, 1.0, lengths)[:, None]
    return np.column_stack([directions, zero]) if zero.any() else directions


def _smaller_product(z: Floats) -> Floats:
    """Return the matrix of cosines, or that of second moments, which has the same eigenvalues but zeros."""
    product: Floats = z @ z.T if len(z) < z.shape[1] else z.T @ z
    return product / len(z)


def _cutoff(values: Floats) -> float:
    """Return what rounding makes of an eigenvalue of 0."""
    return float(len(values) * np.finfo(np.float64).eps)


def _entropy(values: Floats, order: float) -> float:
    if order == 1.0:
        return float(-np.sum(values * np.log(values)))
    if order == math.inf:
        return float(-np.log(values[-1]))
    return float(np.log(np.sum(values**order)) / (1.0 - order))
