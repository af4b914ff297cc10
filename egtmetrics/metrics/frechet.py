"""Fréchet distance between the Gaussians fitted to two sets of features (FID)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import TooFewSamplesError
from egtmetrics._validation import check_real_fake
from egtmetrics.metrics.subsampling import ClustersOfBoth, Floats
from egtmetrics.metrics.variance import Moves, PartsOfBoth, ScoreCovariance
from egtmetrics.ops import Features, ShardedFeatures, merged_by, summary_of_one_set
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, score, warn_of_caveats

_BLOCK_BYTES = 1 << 25
_N_SPLITS = 1
"""Splits into halves for the variance. Both halves count: one alone may miss the outliers. More splits gain nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrechetResult(MetricResult):
    """What :func:`frechet_distance` returns."""

    fid: float = score(
        label="FID",
        help="Squared distance between Gaussians fitted to the real and to the generated features. Values of papers "
        "are for features of Inception v3; those of another encoder cannot be compared with them.",
        better="lower",
        bounds=(0.0, math.inf),
        unit="squared feature units",
    )
    """``mean_term + covariance_term``, in squared units of the features."""
    mean_term: float
    covariance_term: float


def frechet_variance(
    result: FrechetResult,
    real: Any,
    fake: Any,
    rng: np.random.Generator,
    *,
    parts: PartsOfBoth,
    clusters: ClustersOfBoth = (None, None),
) -> ScoreCovariance:
    """Variance of the Fréchet distance from its derivative; see :class:`~egtmetrics.metrics.variance.Moves`."""
    return Moves.of(_moves, real, fake, clusters, parts, n_splits=_N_SPLITS, drawn=np.zeros((1, 1))).covariance()


def _moves(real: Features, fake: Features) -> tuple[Floats, Floats]:
    """How much every real and every fake row moves the Fréchet distance: its derivative with respect to the two laws.

    With A the linear map that carries N(0, Sigma_r) to N(0, Sigma_f) optimally, a real point x moves the distance by
    ``2 (mu_r - mu_f).(x - mu_r) + (x - mu_r)^T (I - A) (x - mu_r)``, less the mean of that; a fake point by the same
    with the roles exchanged and the inverse of A.
    """
    x, y = real - real[0].astype(np.float64), fake - real[0].astype(np.float64)
    shift = x.mean(axis=0) - y.mean(axis=0)
    x -= x.mean(axis=0)
    y -= y.mean(axis=0)
    if len(x) + len(y) < x.shape[1]:  # the moves depend on the space that the rows span, which has fewer dimensions
        basis = np.linalg.qr(np.concatenate([x, y]).T)[0]
        x, y, shift = x @ basis, y @ basis, shift @ basis
    x_covariance, y_covariance = x.T @ x / (len(x) - 1), y.T @ y / (len(y) - 1)
    moves = []
    for points, own, other, towards in (
        (x, x_covariance, y_covariance, shift),
        (y, y_covariance, x_covariance, -shift),
    ):
        root = _matrix_power(other, 0.5)
        transport = root @ _matrix_power(root @ own @ root, -0.5) @ root
        moves.append(2.0 * points @ towards + np.einsum("nd,nd->n", points - points @ transport, points))
    return moves[0][:, None], moves[1][:, None]


def row_influences(real: Floats, fake: Floats) -> tuple[Floats, Floats]:
    """By how much the distance falls, to first order, if a row is left out: the derivative at a law with less of it."""
    found = [(moves - moves.mean()) / (len(moves) - 1) for (moves,) in map(np.transpose, _moves(real, fake))]
    return found[0], found[1]


def _matrix_power(symmetric: Floats, power: float) -> Floats:
    """Power of a positive semidefinite matrix on its range."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > 1e-12 * max(values[-1], 0.0)
    powers = np.where(kept, np.where(kept, values, 1.0) ** power, 0.0)
    result: Floats = (vectors * powers) @ vectors.T
    return result


@metric("fid", title="Fréchet distance", variance=frechet_variance)
def frechet_distance(real: Any, fake: Any) -> FrechetResult:
    r"""Squared 2-Wasserstein distance between the Gaussians with the means and covariances of the two sets.

    .. math::

        \text{FID} = |\mu_r - \mu_f|^2
            + \operatorname{tr}\bigl(\Sigma_r + \Sigma_f - 2 (\Sigma_r \Sigma_f)^{1/2}\bigr)

    0 for equal first two moments, unbounded above; ``mean_term`` and ``covariance_term`` are its two summands.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder, at least two rows each.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, or a set with one row.

    Notes
    -----
    Float64 throughout, covariances with ddof 1. The estimate is biased upward: for equal isotropic laws of variance v
    by about v d (d + 5) / 4 * (1/n + 1/m) at large n and m, and most where a set has fewer rows than features and its
    covariance is singular; the result has a caveat then. Compare groups or models at equal numbers of rows only.

    With Sigma_r = A^T A and Sigma_f = B^T B, tr (Sigma_r Sigma_f)^{1/2} is the sum of the singular values of B A^T,
    real and defined for singular covariances too. A set with at most d rows is its own factor.
    Time O((n + m) d^2 + d^3), less for few rows; memory O(d^2) beyond the features.

    References
    ----------
    Dowson, Landau: The Fréchet distance between multivariate normal distributions, 1982. Heusel, Ramsauer,
    Unterthiner, Nessler, Hochreiter: GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017, equation 6.

    Examples
    --------
    >>> result = frechet_distance([[0.0], [2.0]], [[3.0], [3.0]])  # means 1 and 3, variances 2 and 0
    >>> result.mean_term, round(result.covariance_term, 9), round(result.fid, 9)
    (4.0, 2.0, 6.0)
    """
    real, fake = check_real_fake(real, fake)
    for name, points in (("real", real), ("fake", fake)):
        if len(points) < 2:
            raise TooFewSamplesError(f"{name} has 1 row, but a covariance needs at least 2; add samples", needed=2)
    origin = mean_of_rows(real)
    real_mean, real_factor = _mean_and_factor(real, origin)
    fake_mean, fake_factor = _mean_and_factor(fake, origin)
    mean_term = float(np.sum((real_mean - fake_mean) ** 2))
    traces = np.linalg.norm(real_factor) ** 2 + np.linalg.norm(fake_factor) ** 2
    covariance_term = max(0.0, float(traces - 2.0 * np.linalg.norm(fake_factor @ real_factor.T, ord="nuc")))
    caveats = tuple(
        f"{name} has {len(points)} rows for {points.shape[1]} features, so its covariance is singular and even samples "
        "of one law are far apart; add samples, or take fewer features"
        for name, points in (("real", real), ("fake", fake))
        if len(points) <= points.shape[1]
    )
    warn_of_caveats(caveats)
    return FrechetResult(
        fid=mean_term + covariance_term,
        caveats=caveats,
        mean_term=mean_term,
        covariance_term=covariance_term,
        backend="numpy",
        n_real=len(real),
        n_fake=len(fake),
    )


@summary_of_one_set
def mean_of_rows(x: Features) -> NDArray[np.float64]:
    """Mean ``(d,)``, as far as rounding allows: far from zero it has fewer digits than differences from it."""
    return sum_over_rows(x, lambda block: block.sum(axis=0, dtype=np.float64)) / len(x)


@summary_of_one_set
def _mean_and_factor(x: Features, origin: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of ``x - origin``, and A with min(n, d) rows such that A^T A is the covariance of x.

    The origin is a point amid the data, so that features far from zero lose no digits.
    """
    n, d = x.shape
    if n <= d:
        mean = _mean_from(x, origin)
        return mean, (x[:] - origin - mean) / np.sqrt(n - 1)
    moments = _moments(x, origin)
    variances, axes = np.linalg.eigh(moments.scatter / (n - 1))
    return moments.mean, np.sqrt(variances.clip(0.0))[:, None] * axes.T


class _Moments(NamedTuple):
    n: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]
    """Sum of the outer products of differences from the mean, ``(d, d)``."""

    def joined(self, other: _Moments) -> _Moments:
        """Return the moments of both sets of rows together; no digits are lost where their means are far apart."""
        n, shift = self.n + other.n, other.mean - self.mean
        between = np.outer(shift, shift) * (self.n * other.n / n)
        return _Moments(n, self.mean + shift * (other.n / n), self.scatter + other.scatter + between)


@merged_by(_Moments.joined)
def _moments(x: Features, origin: NDArray[np.float64]) -> _Moments:
    mean = _mean_from(x, origin)

    def scatter(block: NDArray[Any]) -> NDArray[np.float64]:
        difference = block - origin - mean
        product: NDArray[np.float64] = difference.T @ difference
        return product

    return _Moments(len(x), mean, sum_over_rows(x, scatter))


def _mean_from(x: Features, origin: NDArray[np.float64]) -> NDArray[np.float64]:
    return sum_over_rows(x, lambda block: (block - origin).sum(axis=0)) / len(x)


def sum_over_rows(
    x: Features | ShardedFeatures, function: Callable[[NDArray[Any]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Sum over blocks of rows: neither a memory-mapped array nor a float64 copy is ever held whole."""
    step = max(1, _BLOCK_BYTES // (8 * x.shape[1]))
    if isinstance(x, ShardedFeatures):
        return x.sum_blocks(function, step)
    return sum((function(x[start : start + step]) for start in range(0, len(x), step)), start=function(x[:0]))
