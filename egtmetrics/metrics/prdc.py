"""Precision, recall, density and coverage from k-nearest-neighbour balls, under either published tie rule."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from egtmetrics._validation import check_n_neighbors, check_real_fake
from egtmetrics.ops import Backend, BackendName, Features, select_backend
from egtmetrics.results import MetricResult

Ties = Literal["exclude", "include"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImprovedPrecisionRecallResult(MetricResult):
    """What :func:`improved_precision_recall` returns."""

    score_names: ClassVar[tuple[str, ...]] = ("precision", "recall")

    precision: float
    recall: float
    n_neighbors: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PRDCResult(MetricResult):
    """What :func:`precision_recall_density_coverage` returns."""

    score_names: ClassVar[tuple[str, ...]] = ("precision", "recall", "density", "coverage")

    precision: float
    recall: float
    density: float
    coverage: float
    n_neighbors: int
    ties: Ties


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
        k, less than n and m. Naeem et al. take 5.
    ties
        Whether a point exactly on the sphere lies in the ball: ``"exclude"`` is the ``<`` of Naeem et al.,
        ``"include"`` the ``<=`` of Kynkäänniemi et al. It matters for integer-valued or duplicated data: where all
        points are equal, every score is 0 under the one and precision, recall and coverage are 1 under the other.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, too few rows for ``n_neighbors``, an unknown option.

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
    A generator collapsed to one place within the data: precise, and without diversity.

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
        k, less than n and m. Kynkäänniemi et al. take 3.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, too few rows for ``n_neighbors``, an unknown option.

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
    """How many fake lie in each real ball, in how many real balls each fake lies, in how many fake balls each real."""
    counts = kernels.ball_counts(
        real,
        fake,
        x_sq_radii=kernels.kth_neighbor(real, n_neighbors=k),
        y_sq_radii=kernels.kth_neighbor(fake, n_neighbors=k),
        closed=closed,
    )
    return counts.x_ball_sizes, counts.y_in_x_balls, counts.x_in_y_balls
