"""Clipped Density and Clipped Coverage: fidelity and coverage that outliers cannot inflate, read as proportions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from egtmetrics._validation import check_n_neighbors, check_real_fake
from egtmetrics.metrics.subsampling import (
    ClustersOfBoth,
    Floats,
    Subsamples,
    mean_by_part,
    n_units,
    own_sq_radii,
    share_variance,
    split_by_part,
    split_memberships,
)
from egtmetrics.metrics.variance import PartsOfBoth, ScoreCovariance, ScoresOfParts
from egtmetrics.ops import Backend, BackendName, Features, HostBackend, select_backend, select_host_backend
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, setting, share


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedDensityCoverageResult(MetricResult):
    """What :func:`clipped_density_coverage` returns."""

    clipped_density: float = share(
        label="clipped density", help="Density in which no sample counts for more than a good one."
    )
    clipped_coverage: float = share(
        label="clipped coverage", help="Coverage, calibrated so that it falls in proportion to the bad samples."
    )
    n_neighbors: int = setting()


def clipped_variance(
    result: ClippedDensityCoverageResult,
    real: Any,
    fake: Any,
    rng: np.random.Generator,
    *,
    parts: PartsOfBoth,
    clusters: ClustersOfBoth = (None, None),
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> ScoreCovariance | None:
    """Covariance from the scores of random halves and quarters, see :mod:`egtmetrics.metrics.subsampling`.

    Where all parts score 1, they show no variance. So a single score has the error of the score before it is clipped.
    None if quarters are too small for the neighbours.
    """
    k = result.n_neighbors
    if len(parts[0].points) // 4 <= k:
        return None
    kernels = select_host_backend(backend, n_threads=n_threads)
    halves, quarters = (scores[None] for scores in unclipped_scores_of_parts(kernels, *parts, k))
    least = share_variance(np.zeros(2), np.full(2, float(n_units(len(fake), clusters[1]))))
    unclipped = ScoresOfParts(halves=halves, quarters=quarters).at_least(least).covariance()
    clipped = ScoresOfParts(halves=np.minimum(halves, 1.0), quarters=np.minimum(quarters, 1.0)).at_least(least)
    return dataclasses.replace(clipped.covariance(), alone=np.diag(unclipped.data))


def unclipped_scores_of_parts(kernels: HostBackend, real: Subsamples, fake: Subsamples, k: int) -> list[Floats]:
    """Both scores of halves ``(2, 3 Q, 2)`` and quarters ``(4, Q, 2)``, before they are clipped to at most 1."""
    (sq_radii,) = own_sq_radii(kernels, real, k)
    clipped = np.empty_like(sq_radii)
    for n_parts, columns in real.by_size():
        medians = _squared_median(split_by_part(sq_radii[:, columns], real.parts[:, columns], n_parts).swapaxes(0, 1))
        own = np.take_along_axis(medians, real.parts[:, columns].astype(np.intp), axis=0)
        clipped[:, columns] = np.minimum(sq_radii[:, columns], own)
    (_, fake_memberships), (ball_sizes, _) = split_memberships(kernels, real, fake, clipped, sq_radii, closed=True)
    ((_, real_memberships),) = split_memberships(kernels, real, real, clipped, closed=True)
    of_fake, of_real, covered = (
        mean_by_part(np.minimum(counts, k) / k, sample)
        for counts, sample in ((fake_memberships, fake), (real_memberships - 1, real), (ball_sizes, real))
    )
    return [
        np.stack([f / r, _calibrated(c, len(real.points) // len(c), len(fake.points) // len(c), k)], axis=-1)
        for f, r, c in zip(of_fake, of_real, covered, strict=True)
    ]


@metric("clipped", title="Clipped density and coverage", variance=clipped_variance)
def clipped_density_coverage(
    real: Any,
    fake: Any,
    *,
    n_neighbors: int = 5,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> ClippedDensityCoverageResult:
    r"""Density and coverage with clipped contributions, calibrated to the proportion of good fakes.

    With R_i the distance of x_i to its k-th nearest other real point, rho_i = min(R_i, median R), and [.] 1 if true:

    .. math::

        \text{clipped density} = \min\Bigl(1, \frac{\frac1m \sum_j \min(1, \frac1k \#\{i: |x_i - y_j| \le \rho_i\})}
            {\frac1n \sum_l \min(1, \frac1k \#\{i \ne l: |x_i - x_l| \le \rho_i\})}\Bigr),

        c = \frac1n \sum_i \min(1, \frac1k \#\{j: |x_i - y_j| \le R_i\}), \quad
        \text{clipped coverage} = \min(1, f^{-1}(c) / m).

    f(t) is the expectation of c for t fake points that follow the real law. The mass of a k-nearest-neighbour ball then
    has the distribution Beta(k, n - k), so f(t) = E min(B, k) / k with B distributed as Beta-binomial(t, k, n - k), for
    any law and dimension; f is linear between integers. A score of 0.7 therefore means: as if 70 % of the fake points
    were good and the others far away. Both scores lie in [0, 1].

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder. Only ``real`` needs ``n_neighbors`` neighbours.
    n_neighbors
        k: the ball around a point reaches to its k-th nearest neighbour; less than n. Salvy et al. take 5.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, too few real rows for ``n_neighbors``, an unknown option.

    Notes
    -----
    A point exactly on the sphere lies in the ball (``<=``) in both scores, decided on float64 sums of squared
    differences. So a copy of the real set scores 1, whatever its ties, and the denominator of the density is never 0.
    The authors' program uses ``<`` for coverage, which differs only on tied data. It reads f^{-1} off a step function
    that is 0 below t = k, which differs by at most about k / m. If the real law has atoms, f is a lower bound.
    Time O((n^2 + n m) d), memory O((n + m) d + m k).

    References
    ----------
    Salvy, Talbot, Thirion: Enhanced Generative Model Evaluation with Clipped Density and Coverage (2025).

    Examples
    --------
    Three in ten fakes are far from the data.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(400, 2)), rng.normal(size=(400, 2))
    >>> fake[:120] += 50.0
    >>> result = clipped_density_coverage(real, fake)
    >>> round(result.clipped_density, 1), round(result.clipped_coverage, 1)
    (0.7, 0.7)
    """
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    k = check_n_neighbors(n_neighbors, len(real), "real")
    n, m = len(real), len(fake)
    sq_radii = kernels.kth_neighbor(real, n_neighbors=k)
    clipped = np.minimum(sq_radii, _squared_median(sq_radii))

    _, fake_memberships = _memberships(kernels, real, fake, clipped)
    _, real_memberships = _memberships(kernels, real, None, clipped)
    density = _saturation(fake_memberships, k) / _saturation(real_memberships, k)

    ball_sizes, _ = _memberships(kernels, real, fake, sq_radii)
    coverage = float(_calibrated(_saturation(ball_sizes, k), n, m, k))
    return ClippedDensityCoverageResult(
        clipped_density=min(1.0, density),
        clipped_coverage=min(1.0, coverage),
        n_neighbors=k,
        backend=kernels.name,
        n_real=n,
        n_fake=m,
    )


def _memberships(
    kernels: Backend, x: Features, y: Features | None, sq_radii: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many y lie in the closed ball of each x, and in how many such balls each y lies."""
    counts = kernels.ball_counts(x, y, x_sq_radii=sq_radii, closed=True)
    return counts.x_ball_sizes, counts.y_in_x_balls


def _saturation(counts: NDArray[np.int64], k: int) -> float:
    """Mean of min(1, count / k)."""
    return int(np.minimum(counts, k).sum()) / (k * len(counts))


def _squared_median(sq_radii: Floats) -> Floats:
    """Square of the median radius over the first axis, equal to the last bit to a radius where the median is one.

    Taking the root and squaring it again would move points that lie exactly on that sphere to either side of it.
    """
    n = len(sq_radii)
    middle = [(n - 1) // 2, n // 2]
    lower, upper = np.partition(sq_radii, middle, axis=0)[middle]
    median: Floats = np.where(lower == upper, lower, ((np.sqrt(lower) + np.sqrt(upper)) / 2) ** 2)
    return median


def _calibrated(raw: Any, n: int, m: int, k: int) -> Floats:
    """Invert :func:`_expected_saturation` and divide by m; linear beyond t = m, where the score is clipped."""
    expected = _expected_saturation(n, m, k)
    slope = expected[-1] - expected[-2]
    beyond = np.maximum(raw - expected[-1], 0.0)
    equivalent: Floats = np.interp(raw, expected, np.arange(m + 1)) + np.divide(
        beyond, slope, out=np.zeros_like(beyond), where=slope > 0
    )
    return equivalent / m


def _expected_saturation(n: int, m: int, k: int) -> NDArray[np.float64]:
    """E min(B, k) / k with B ~ Beta-binomial(t, k, n - k), for t = 0..m: shape ``(m + 1,)``, not decreasing."""
    inside = np.arange(k)
    outside = np.arange(1, m + 1)[:, None] - inside
    # P(B = b): of the n - 1 other real and t fakes, ordered by distance, b fakes come before the k-th real point.
    log_chance = (
        _log_binomial(k - 1 + inside, inside)
        + _log_binomial(n - 1 - k + outside.clip(0), outside.clip(0))
        - _log_binomial(n - 1 + inside + outside, inside + outside)
    )
    chance = np.where(outside < 0, 0.0, np.exp(log_chance))
    # It will be inverted, so it must be 0 at t = 0 and rounding must not make it fall where it saturates.
    return np.maximum.accumulate(np.concatenate([[0.0], 1.0 - chance @ (k - inside) / k]))


def _log_binomial(total: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    logarithm: NDArray[np.float64] = -np.log1p(total) - betaln(total - chosen + 1, chosen + 1)
    return logarithm
