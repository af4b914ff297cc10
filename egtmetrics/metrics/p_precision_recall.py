"""P-precision and P-recall: precision and recall with soft balls of one radius."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from egtmetrics._validation import check_n_neighbors, check_real_fake
from egtmetrics.ops import Backend, BackendName, Features, select_backend
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, share


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPrecisionRecallResult(MetricResult):
    """What :func:`p_precision_recall` returns."""

    precision: float = share(
        label="P-precision",
        help="The mean probability that a generated sample lies where real ones do.",
        per_sample="number",
    )
    recall: float = share(
        label="P-recall", help="The mean probability that a real sample lies where generated ones do."
    )
    real_radius: float
    """Radius of the soft balls around the real points, in units of the features."""
    fake_radius: float
    """Radius of the soft balls around the fake points."""


@metric("p-pr", title="P-precision and P-recall")
def p_precision_recall(
    real: Any,
    fake: Any,
    *,
    n_neighbors: int = 4,
    radius_factor: float = 1.2,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> PPrecisionRecallResult:
    r"""Mean probability that a point lies in the support of the other set, whose balls fade with distance.

    A real point x covers y with probability ``max(0, 1 - |x - y| / R_X)``, independently of the other real points,
    where R_X is ``radius_factor`` times the mean distance of a real point to its ``n_neighbors``-th nearest other one:

    .. math::

        \text{P-precision} = \frac1m \sum_j \Bigl[1 - \prod_i \min(1, |x_i - y_j| / R_X)\Bigr], \quad
        \text{P-recall}    = \frac1n \sum_i \Bigl[1 - \prod_j \min(1, |x_i - y_j| / R_Y)\Bigr].

    Both lie in [0, 1].

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_neighbors
        k, of the nearest neighbour whose mean distance the balls depend on; less than n and m. Park and Kim take 4.
    radius_factor
        The radius of the balls, in mean distances to the k-th nearest neighbour. Park and Kim take 1.2.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, too few rows for ``n_neighbors``, an unknown option.

    Notes
    -----
    The score is continuous in the data, so it needs no tie rule. If every point of a set has ``n_neighbors`` exact
    copies, its radius is 0 and its balls shrink to points. The score is then the share of the other set that has an
    exact copy in this one, which is the limit of the formula as R goes to 0.
    Time O((n + m)^2 d), memory O((n + m) d).

    References
    ----------
    Park, Kim: Probabilistic Precision and Recall Towards Reliable Evaluation of Generative Models, ICCV 2023.

    Examples
    --------
    Real points lie 1 apart, so with k = 1 and a factor of 1 the radius is 1. The first fake point is half a radius from
    two of them and scores 1 - 1/2 * 1/2; the second is out of reach.

    >>> result = p_precision_recall(
    ...     [[0.0], [1.0], [2.0]], [[0.5], [9.0]], n_neighbors=1, radius_factor=1.0)
    >>> round(result.precision, 6), result.real_radius
    (0.375, 1.0)
    """
    if not isinstance(radius_factor, int | float | np.number) or not 0 < radius_factor < math.inf:
        raise ValueError(f"radius_factor={radius_factor!r} is not a positive number; pass one, for example 1.2")
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    k = check_n_neighbors(n_neighbors, len(real), "real")
    check_n_neighbors(k, len(fake), "fake")
    real_radius = radius_factor * _mean_radius(kernels, real, k)
    fake_radius = radius_factor * _mean_radius(kernels, fake, k)
    return PPrecisionRecallResult(
        precision=float(np.mean(1.0 - kernels.soft_ball_product(fake, real, radius=real_radius))),
        recall=float(np.mean(1.0 - kernels.soft_ball_product(real, fake, radius=fake_radius))),
        real_radius=real_radius,
        fake_radius=fake_radius,
        backend=kernels.name,
        n_real=len(real),
        n_fake=len(fake),
    )


def _mean_radius(kernels: Backend, x: Features, k: int) -> float:
    return float(np.mean(np.sqrt(kernels.kth_neighbor(x, n_neighbors=k))))
