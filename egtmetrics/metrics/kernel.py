"""Kernel distance (KID): squared maximum mean discrepancy under a polynomial kernel."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.results import MetricResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelDistanceResult(MetricResult):
    """What :func:`kernel_distance` returns."""

    score_names: ClassVar[tuple[str, ...]] = ("kid",)
    depends_on_size: ClassVar[bool] = False
    """The estimate is unbiased, so groups of any sizes can be compared."""

    kid: float
    """Mean over the subsets."""
    kid_std: float
    """Standard deviation over the subsets (ddof 0): their spread, not the standard error of ``kid``."""
    n_subsets: int
    subset_size: int


def kernel_distance(
    real: Any,
    fake: Any,
    *,
    n_subsets: int = 100,
    subset_size: int = 1000,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    random_state: RandomState = None,
) -> KernelDistanceResult:
    r"""Unbiased estimate of the squared maximum mean discrepancy, averaged over random subsets.

    With k(x, y) = (``gamma`` x.y + ``coef0``)^``degree`` and s rows of each set, drawn without replacement:

    .. math::

        \text{MMD}^2 = \frac{1}{s(s-1)} \sum_{i \ne j} \bigl[k(x_i, x_j) + k(y_i, y_j)\bigr]
            - \frac{2}{s^2} \sum_{i, j} k(x_i, y_j).

    Its expectation is 0 where the first ``degree`` moments agree, so an estimate can be negative.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_subsets
        How many subsets are drawn.
    subset_size
        s, from 2 to the smaller of n and m. The expectation does not depend on it.
    degree, gamma, coef0
        Of the kernel; ``gamma=None`` is 1 / d.
    random_state
        Seed or Generator of the draws; an integer makes the result repeatable.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, a set smaller than ``subset_size``, an option out of its range,
        or features so large that the kernel overflows.

    Notes
    -----
    Unlike a Fréchet distance it is unbiased at any number of rows, but it does depend on where the origin is and on the
    unit: features far from zero cost digits. Time O(n_subsets * s^2 d), memory O(s^2 + s d) beyond the features.

    References
    ----------
    Binkowski, Sutherland, Arbel, Gretton: Demystifying MMD GANs, ICLR 2018, sections 2.1 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(500, 8)), rng.normal(size=(400, 8)) + 0.5
    >>> result = kernel_distance(real, fake, n_subsets=10, subset_size=300, random_state=0)
    >>> result.kid > 5 * result.kid_std > 0
    True
    """
    n_subsets = check_positive_int(n_subsets, "n_subsets")
    size = check_positive_int(subset_size, "subset_size", minimum=2)
    degree = check_positive_int(degree, "degree")
    if gamma is not None and (not isinstance(gamma, int | float | np.number) or not 0 < gamma < math.inf):
        raise ValueError(f"gamma={gamma!r} is no positive number; pass one, or None for 1 / n_features")
    if not isinstance(coef0, int | float | np.number) or not 0 <= coef0 < math.inf:
        raise ValueError(f"coef0={coef0!r} is no number of at least 0; pass one, for example 1.0")
    real, fake = check_real_fake(real, fake)
    for name, points in (("real", real), ("fake", fake)):
        if len(points) < size:
            raise ValueError(
                f"{name} has {len(points)} rows, but subset_size={size} rows are drawn without replacement; pass "
                f"subset_size={min(len(real), len(fake))} or less, one size for everything you compare"
            )
    if gamma is None:
        gamma = 1.0 / real.shape[1]
    rng = check_random_state(random_state)
    estimates = np.empty(n_subsets)
    with np.errstate(over="ignore", invalid="ignore"):
        for subset in range(n_subsets):
            x = real[rng.choice(len(real), size, replace=False)].astype(np.float64)
            y = fake[rng.choice(len(fake), size, replace=False)].astype(np.float64)
            within = _off_diagonal_mean(polynomial_kernel(x, x, degree, gamma, coef0))
            within += _off_diagonal_mean(polynomial_kernel(y, y, degree, gamma, coef0))
            estimates[subset] = within - 2.0 * polynomial_kernel(x, y, degree, gamma, coef0).mean()
    if not np.isfinite(estimates).all():
        raise ValueError("the kernel of real and fake overflows float64; rescale the features or lower degree or gamma")
    return KernelDistanceResult(
        kid=float(estimates.mean()),
        kid_std=float(estimates.std()),
        n_subsets=n_subsets,
        subset_size=size,
        backend="numpy",
        n_real=len(real),
        n_fake=len(fake),
    )


def polynomial_kernel(
    x: NDArray[np.float64], y: NDArray[np.float64], degree: int, gamma: float, coef0: float
) -> NDArray[np.float64]:
    """``(gamma x.y + coef0) ** degree`` of all pairs of rows, ``(n, m)``."""
    base = x @ y.T
    base *= gamma
    base += coef0
    power = base.copy()
    for _ in range(degree - 1):  # an order of magnitude faster than base**degree
        power *= base
    return power


def _off_diagonal_mean(kernel: NDArray[np.float64]) -> float:
    size = len(kernel)
    return float((kernel.sum() - kernel.trace()) / (size * (size - 1)))
