"""Precision cover and recall cover: whether the neighbourhoods of one set are populated by the other too."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from egtmetrics._errors import TooFewSamplesError
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.metrics.subsampling import (
    ClustersOfBoth,
    Floats,
    Subsamples,
    mean_by_part,
    n_units,
    own_sq_radii,
    split_memberships,
)
from egtmetrics.metrics.variance import PartsOfBoth, ScoreCovariance, ScoresOfParts, covariance_of_shares
from egtmetrics.ops import BackendName, HostBackend, select_backend, select_host_backend
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, setting, share


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionRecallCoverResult(MetricResult):
    """What :func:`precision_recall_cover` returns."""

    precision: float = share(
        label="precision cover",
        help="The share of the generated samples whose neighbourhood holds enough real ones.",
    )
    recall: float = share(
        label="recall cover",
        help="The share of the real samples whose neighbourhood holds enough generated ones.",
    )
    n_neighbors: int = setting()
    cover_factor: int = setting()


def cover_variance(
    result: PrecisionRecallCoverResult,
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

    None if quarters are too small for the neighbours.
    """
    if min(len(side.points) for side in parts) // 4 <= result.n_neighbors * result.cover_factor:
        return None
    kernels = select_host_backend(backend, n_threads=n_threads)
    scores = cover_scores_of_parts(kernels, *parts, result.n_neighbors, result.cover_factor)
    halves, quarters = (of_size[None] for of_size in scores)
    shares = [result.precision, result.recall]
    n_clusters = [n_units(len(fake), clusters[1]), n_units(len(real), clusters[0])]
    source = ScoresOfParts(halves=halves, quarters=quarters)
    return covariance_of_shares(source, shares, [len(fake), len(real)], n_clusters)


def cover_scores_of_parts(
    kernels: HostBackend, real: Subsamples, fake: Subsamples, k: int, cover_factor: int
) -> list[Floats]:
    """Precision and recall of halves ``(2, 3 Q, 2)`` and quarters ``(4, Q, 2)``, in two passes over the pairs."""

    def covered(own: Subsamples, other: Subsamples) -> list[Floats]:
        (sq_radii,) = own_sq_radii(kernels, own, cover_factor * k)
        ((ball_sizes, _),) = split_memberships(kernels, own, other, sq_radii, closed=True)
        return mean_by_part(ball_sizes >= k, own)

    return [np.stack(both, axis=-1) for both in zip(covered(fake, real), covered(real, fake), strict=True)]


@metric("cover", title="Precision and recall cover", variance=cover_variance)
def precision_recall_cover(
    real: Any,
    fake: Any,
    *,
    n_neighbors: int = 3,
    cover_factor: int = 3,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> PrecisionRecallCoverResult:
    r"""Share of the points of one set whose neighbourhood holds at least k points of the other.

    The neighbourhood of a point is the closed ball up to its k'-th nearest neighbour in its own set, itself not
    counted, with k = ``n_neighbors`` and k' = C k, C = ``cover_factor``. With s_j that radius of y_j among the fake,
    and r_i that of x_i among the real:

    .. math::

        \text{precision} = \frac1m \sum_j [\#\{i: |x_i - y_j| \le s_j\} \ge k], \quad
        \text{recall}    = \frac1n \sum_i [\#\{j: |x_i - y_j| \le r_i\} \ge k].

    So for n = m, fake points are precise where the real set is at least about 1 / C times as dense, and real points are
    recalled where the fake set is. Both scores lie in [0, 1].

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_neighbors
        k, the points of the other set that a ball must hold. Cheema and Urner take 3.
    cover_factor
        C: the ball around a point reaches to the neighbour number C k; that is less than n and m. Cheema and Urner
        take 3.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, too few rows for C k neighbours, an unknown option.

    Notes
    -----
    A point exactly on the sphere lies in the ball (``<=``), decided on float64 sums of squared differences. A fake ball
    holds about C k n / m real points where the laws agree, so compare scores only at the same ratio n : m.
    Time O((n + m)^2 d), memory O((n + m) d).

    References
    ----------
    Cheema, Urner: Precision Recall Cover: A Method For Assessing Generative Models, AISTATS 2023, algorithm in
    appendix A.3, P the real and Q the fake. (A script the authors published exchanges the two names.)

    Examples
    --------
    The generator covers one of two modes: every fake point has real points around it, but half of the real points have
    no fake ones.

    >>> real = [[0.0], [1.0], [2.0], [100.0], [101.0], [102.0]]
    >>> fake = [[0.5], [1.5], [2.5]]
    >>> precision_recall_cover(real, fake, n_neighbors=1, cover_factor=2).scores()
    {'precision': 1.0, 'recall': 0.5}
    """
    k = check_positive_int(n_neighbors, "n_neighbors")
    radius_neighbors = k * check_positive_int(cover_factor, "cover_factor")
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    for name, points in (("real", real), ("fake", fake)):
        if len(points) <= radius_neighbors:
            raise TooFewSamplesError(
                f"{name} has {len(points)} rows, but n_neighbors * cover_factor = {radius_neighbors} needs at least "
                f"{radius_neighbors + 1}; add samples or lower n_neighbors",
                needed=radius_neighbors + 1,
            )
    counts = kernels.ball_counts(
        real,
        fake,
        x_sq_radii=kernels.kth_neighbor(real, n_neighbors=radius_neighbors),
        y_sq_radii=kernels.kth_neighbor(fake, n_neighbors=radius_neighbors),
        closed=True,
    )
    return PrecisionRecallCoverResult(
        precision=float(np.mean(counts.y_ball_sizes >= k)),
        recall=float(np.mean(counts.x_ball_sizes >= k)),
        n_neighbors=k,
        cover_factor=radius_neighbors // k,
        backend=kernels.name,
        n_real=len(real),
        n_fake=len(fake),
    )
