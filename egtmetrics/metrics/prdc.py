"""Precision, recall, density and coverage from k-nearest-neighbour balls, under either published tie rule."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from egtmetrics._validation import check_n_neighbors, check_real_fake
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
from egtmetrics.ops import Backend, BackendName, Features, HostBackend, select_backend, select_host_backend
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, score, setting, share

Ties = Literal["exclude", "include"]

precision_share = functools.partial(
    share, label="precision", help="The share of the generated samples that lie where real ones do."
)
recall_share = functools.partial(
    share, label="recall", help="The share of the real samples that lie where generated ones do."
)
density_score = functools.partial(
    score,
    label="density",
    help="How densely real samples lie around the generated ones, about 1 for equal laws.",
    better=1.0,
    bounds=(0.0, math.inf),
)
coverage_share = functools.partial(
    share, label="coverage", help="The share of the real samples that have a generated one near."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImprovedPrecisionRecallResult(MetricResult):
    """What :func:`improved_precision_recall` returns."""

    precision: float = precision_share(per_sample="indicator")
    recall: float = recall_share()
    n_neighbors: int = setting()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PRDCResult(MetricResult):
    """What :func:`precision_recall_density_coverage` returns."""

    precision: float = precision_share(per_sample="indicator")
    recall: float = recall_share()
    density: float = density_score(per_sample="number")
    coverage: float = coverage_share()
    n_neighbors: int = setting()
    ties: Ties = setting()


def neighbor_variance(
    result: PRDCResult | ImprovedPrecisionRecallResult,
    real: Any,
    fake: Any,
    rng: np.random.Generator,
    *,
    parts: PartsOfBoth,
    clusters: ClustersOfBoth = (None, None),
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> ScoreCovariance:
    """Covariance from the scores of random halves and quarters, see :mod:`egtmetrics.metrics.subsampling`."""
    kernels = select_host_backend(backend, n_threads=n_threads)
    k = result.n_neighbors
    closed = not isinstance(result, PRDCResult) or result.ties == "include"
    with_density = isinstance(result, PRDCResult)
    scores = neighbor_scores_of_parts(kernels, *parts, k, closed=closed, with_density=with_density)
    real_units, fake_units = n_units(len(real), clusters[0]), n_units(len(fake), clusters[1])
    shares, n_points, n_clusters = [result.precision, result.recall], [len(fake), len(real)], [fake_units, real_units]
    if isinstance(result, PRDCResult):
        shares, n_points = [*shares, math.nan, result.coverage], [*n_points, len(fake), len(real)]
        n_clusters = [*n_clusters, fake_units, real_units]
    halves, quarters = (by_part[None, ..., : len(shares)] for by_part in scores)
    return covariance_of_shares(ScoresOfParts(halves=halves, quarters=quarters), shares, n_points, n_clusters)


def neighbor_scores_of_parts(
    kernels: HostBackend, real: Subsamples, fake: Subsamples, k: int, *, closed: bool, with_density: bool
) -> list[Floats]:
    """Precision, recall, density if it is wanted, and coverage of halves ``(2, 3 Q, S)`` and quarters ``(4, Q, S)``.

    All parts are scored in two passes over the pairs of points.

    The density is that for a half and a quarter of the neighbours, rounded up, so that the balls are as large as those
    of all rows. With k neighbours, the balls of a part of a small cluster would reach into other clusters, and the
    parts would vary less than the whole.
    """
    for name, side in (("real", real), ("fake", fake)):
        if len(side.points) // 4 <= k:
            raise ValueError(
                f"{name} has {len(side.points)} rows, but quarters with {k} neighbours need at least {4 * k + 4}; add "
                "samples, or take fewer neighbours"
            )

    fewer = -(-k // real.n_parts)
    radii = own_sq_radii(kernels, real, k, *([fewer] if with_density else []))
    (real_ball_sizes, fake_memberships), *small = split_memberships(kernels, real, fake, *radii, closed=closed)
    ((_, real_memberships),) = split_memberships(kernels, fake, real, *own_sq_radii(kernels, fake, k), closed=closed)
    by_score = (
        mean_by_part(fake_memberships > 0, fake),
        mean_by_part(real_memberships > 0, real),
        *(mean_by_part(memberships / fewer, fake) for _, memberships in small),
        mean_by_part(real_ball_sizes > 0, real),
    )
    return [np.stack(of_size, axis=-1) for of_size in zip(*by_score, strict=True)]


@metric("prdc", title="Precision, recall, density, coverage", variance=neighbor_variance)
def precision_recall_density_coverage(
    real: Any,
    fake: Any,
    *,
    n_neighbors: int = 5,
    ties: Ties = "exclude",
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> PRDCResult:
    r"""Count which points lie in the k-nearest-neighbour balls of the other set.

    The ball of a point ends at its ``n_neighbors``-th nearest neighbour in its own set, the point itself not counted.
    With r_i the radius of x_i among the real, s_j that of y_j among the fake, and [.] 1 if true and 0 if not:

    .. math::

        \text{precision} = \frac1m \sum_j [\exists i: |x_i - y_j| < r_i], \quad
        \text{recall}    = \frac1n \sum_i [\exists j: |x_i - y_j| < s_j],

        \text{density}   = \frac1{km} \sum_j \#\{i: |x_i - y_j| < r_i\}, \quad
        \text{coverage}  = \frac1n \sum_i [\exists j: |x_i - y_j| < r_i].

    All lie in [0, 1] except density, which has expectation 1 for equal laws without ties and can exceed it.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_neighbors
        k: the ball around a point reaches to its k-th nearest neighbour; less than n and m. Naeem et al. take 5.
    ties
        Whether a point exactly on the sphere lies in the ball: ``"exclude"`` is ``<`` (Naeem et al.), ``"include"`` is
        ``<=`` (Kynkäänniemi et al.). It matters for integer-valued or duplicated data: where all points are equal,
        every score is 0 under the one and precision, recall and coverage are 1 under the other.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, too few rows for ``n_neighbors``, an unknown option.

    Notes
    -----
    Memberships are decided on float64 sums of squared differences, so ties count as such.
    Time O((n + m)^2 d), memory O((n + m) d).

    References
    ----------
    Naeem, Oh, Uh, Choi, Yoo: Reliable Fidelity and Diversity Metrics for Generative Models, ICML 2020,
    sections 2 and 3.

    Examples
    --------
    A generator that has collapsed to one point within the data is precise, but has no diversity.

    >>> real = [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0]]
    >>> fake = [[0.4], [0.5], [0.6]]
    >>> precision_recall_density_coverage(real, fake, n_neighbors=1).scores()
    {'precision': 1.0, 'recall': 0.0, 'density': 2.0, 'coverage': 0.25}
    """
    if ties not in get_args(Ties):
        raise ValueError(f"ties={ties!r} is unknown; choose one of {', '.join(map(repr, get_args(Ties)))}")
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    k = check_n_neighbors(n_neighbors, len(real), "real")
    check_n_neighbors(k, len(fake), "fake")
    real_ball_sizes, fake_memberships, real_memberships = _memberships(kernels, real, fake, k, closed=ties == "include")
    n, m = len(real), len(fake)
    return PRDCResult(
        precision=float(np.mean(fake_memberships > 0)),
        recall=float(np.mean(real_memberships > 0)),
        density=int(fake_memberships.sum()) / (k * m),
        coverage=float(np.mean(real_ball_sizes > 0)),
        n_neighbors=k,
        ties=ties,
        backend=kernels.name,
        n_real=n,
        n_fake=m,
    )


@metric("ipr", title="Improved precision and recall", variance=neighbor_variance)
def improved_precision_recall(
    real: Any,
    fake: Any,
    *,
    n_neighbors: int = 3,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> ImprovedPrecisionRecallResult:
    r"""Share of each set that lies in the union of the closed k-nearest-neighbour balls of the other.

    With r_i the distance of x_i to its ``n_neighbors``-th nearest other real point and s_j the same among the fake:

    .. math::

        \text{precision} = \frac1m \sum_j [\exists i: |x_i - y_j| \le r_i], \quad
        \text{recall}    = \frac1n \sum_i [\exists j: |x_i - y_j| \le s_j].

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_neighbors
        k: the ball around a point reaches to its k-th nearest neighbour; less than n and m. Kynkäänniemi et al. take 3.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, too few rows for ``n_neighbors``, an unknown option.

    Notes
    -----
    A point exactly on the sphere lies in the ball (``<=``); for the strict rule see
    :func:`precision_recall_density_coverage`. Time O((n + m)^2 d), memory O((n + m) d).

    References
    ----------
    Kynkäänniemi, Karras, Laine, Lehtinen, Aila: Improved Precision and Recall Metric for Assessing Generative Models,
    NeurIPS 2019, equations 1 and 2.

    Examples
    --------
    >>> real = [[0.0], [1.0], [2.0], [3.0]]
    >>> fake = [[3.0], [4.0], [9.0]]
    >>> improved_precision_recall(real, fake, n_neighbors=1).scores()
    {'precision': 0.6666666666666666, 'recall': 0.5}
    """
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    k = check_n_neighbors(n_neighbors, len(real), "real")
    check_n_neighbors(k, len(fake), "fake")
    _, fake_memberships, real_memberships = _memberships(kernels, real, fake, k, closed=True)
    return ImprovedPrecisionRecallResult(
        precision=float(np.mean(fake_memberships > 0)),
        recall=float(np.mean(real_memberships > 0)),
        n_neighbors=k,
        backend=kernels.name,
        n_real=len(real),
        n_fake=len(fake),
    )


def _memberships(
    kernels: Backend, real: Features, fake: Features, k: int, *, closed: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count fake points in each real ball, real balls around each fake point, and fake balls around each real point."""
    counts = kernels.ball_counts(
        real,
        fake,
        x_sq_radii=kernels.kth_neighbor(real, n_neighbors=k),
        y_sq_radii=kernels.kth_neighbor(fake, n_neighbors=k),
        closed=closed,
    )
    return counts.x_ball_sizes, counts.y_in_x_balls, counts.x_in_y_balls
