"""f-divergences between kernel density estimates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.special import logsumexp
from threadpoolctl import ThreadpoolController

from egtmetrics._order import canonical_order
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_real_fake
from egtmetrics.divergences.estimates import DivergenceEstimate, block_pairs, block_uncertainty, check_target
from egtmetrics.divergences.families import GeneratorLike
from egtmetrics.divergences.generators import Values
from egtmetrics.divergences.ratios import clipped_ratios, mean_over_both, separation_notes

_THREADS = ThreadpoolController()
"""One thread is best for products as small as these: on a busy machine two threads take ten times as long."""
_BLOCK_BYTES = 1 << 22


def kde_f_divergence(
    real: Any,
    fake: Any,
    *,
    f: GeneratorLike = "kl",
    base: float | None = None,
    level: float = 0.95,
    random_state: RandomState = None,
) -> DivergenceEstimate:
    r"""f-divergence between Gaussian kernel density estimates of real and fake.

    .. math::

        \frac1n \sum_i h(r(x_i)) + \frac1m \sum_j h(r(y_j)), \qquad h(r) = \frac{g(r)}{1 + r},

    with r the ratio of the densities and g(t) = f(t) - f'(1) (t - 1), which gives the same divergence as f and is not
    negative. Each density leaves out the point where it is evaluated. The kernel of a set of n rows has n^(-2/(d + 4))
    times the covariance of the set (Scott's rule), so any affine coordinates give the same estimate. Ratios are clipped
    to n + m and its inverse.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder, each with more rows than columns and full rank.
    f
        A name or generator: see :func:`~egtmetrics.divergences.get_generator`.
    base
        2 for bits, None for nats; only for divergences with a logarithm.
    level
        Coverage of the interval.
    random_state
        Draws the blocks for the standard error. The value does not depend on it.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, or a set that lies in a subspace.

    Warns
    -----
    DivergenceEstimateWarning
        2^d exceeds the number of rows, so that kernels hold a point or two. The ratio separates the sets (AUC above
        0.999), so that their supports may be disjoint. One of the sets has fewer than 20 rows.

    Notes
    -----
    Smoothing makes both laws more alike, which lowers the value. Noise in the densities raises it, and wins in more
    than a few dimensions. Interval: Student's, from ten disjoint blocks of both sets, each with its own bandwidth and
    the covariance of the whole set; see :func:`~egtmetrics.divergences.estimates.block_uncertainty`. It covers noise,
    not bias. Time O((n + m)^2 d), memory O((n + m) d), with one block of distances at a time.

    References
    ----------
    Scott: Multivariate Density Estimation, 1992, section 6.3. Joe: Estimation of entropy and other functionals of a
    multivariate density, Annals of the Institute of Statistical Mathematics 41 (1989) (means over the sample).

    Examples
    --------
    Two normal laws with variance 1 and means 0 and 1, whose KL divergence is 1/2.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> estimate = kde_f_divergence(rng.normal(size=(500, 1)), rng.normal(size=(500, 1)) + 1.0, random_state=0)
    >>> abs(estimate.value - 0.5) < 0.1
    True
    """
    target = check_target(f, base, level)
    rng = check_random_state(random_state)
    real, fake = (x[canonical_order(x)].astype(np.float64) for x in check_real_fake(real, fake))
    factors = _covariance_factor(real, "real"), _covariance_factor(fake, "fake")

    def evaluate(real_log_ratios: Values, fake_log_ratios: Values) -> float:
        return target.unit * mean_over_both(target.generator, *clipped_ratios(real_log_ratios, fake_log_ratios))

    log_ratios = _kernel_log_ratios(real, fake, *factors)
    value = evaluate(*log_ratios)
    notes = separation_notes(*log_ratios)
    n_rows, d = min(len(real), len(fake)), real.shape[1]
    if 2.0**d > n_rows:
        notes.append(
            f"{n_rows} rows in {d} dimensions: a kernel holds few points, and the bias is large; reduce the dimension, "
            "for example with PCA, or use classifier_f_divergence"
        )
    blocks = block_pairs(len(real), len(fake), rng, min_rows=2)
    block_values = [evaluate(*_kernel_log_ratios(real[x], fake[y], *factors)) for x, y in blocks]
    uncertainty = block_uncertainty(value, block_values, target.level)
    return target.estimate(
        value, uncertainty, method="kernel densities", notes=notes, real=real, fake=fake, never_negative=True
    )


def _covariance_factor(x: Values, name: str) -> Values:
    """Cholesky factor L of the covariance L L'."""
    n, d = x.shape
    if n > d:
        covariance = np.atleast_2d(np.cov(x, rowvar=False))
        try:
            factor = np.asarray(cholesky(covariance, lower=True))
        except LinAlgError:
            pass
        else:
            if (np.square(np.diag(factor)) > 1e-12 * np.diag(covariance)).all():  # a rounded rank can pass cholesky
                return factor
    raise ValueError(
        f"{name} has {n} rows in {d} dimensions, which lie in a subspace, so it has no density; reduce the dimension, "
        "for example with PCA, or add samples"
    )


def _kernel_log_ratios(real: Values, fake: Values, real_factor: Values, fake_factor: Values) -> tuple[Values, Values]:
    """log p - log q at the real and at the fake points, each density without the point itself."""
    d = real.shape[1]
    real_log, fake_log = np.zeros(len(real)), np.zeros(len(fake))
    for points, factor, sign in ((real, real_factor, 1.0), (fake, fake_factor, -1.0)):
        bandwidth = len(points) ** (-1.0 / (d + 4.0))
        log_norm = d * math.log(bandwidth) + float(np.log(np.diag(factor)).sum())  # without (2 pi)^(d/2), which cancels
        with _THREADS.limit(limits=1):
            white = [solve_triangular(factor, x.T, lower=True).T / bandwidth for x in (real, fake, points)]
        real_log += sign * (_log_kernel_means(white[0], white[2], itself=sign > 0) - log_norm)
        fake_log += sign * (_log_kernel_means(white[1], white[2], itself=sign < 0) - log_norm)
    return real_log, fake_log


def _log_kernel_means(x: Values, y: Values, *, itself: bool) -> Values:
    """log mean_j exp(-|x_i - y_j|^2 / 2). With ``itself``, x is y, and the mean is over j != i."""
    from scipy.spatial.distance import cdist  # takes long to import

    means = np.empty(len(x))
    step = max(1, _BLOCK_BYTES // (8 * len(y)))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        exponents = -0.5 * cdist(x[rows], y, "sqeuclidean")
        if itself:
            exponents[np.arange(len(exponents)), np.arange(start, start + len(exponents))] = -np.inf
        means[rows] = logsumexp(exponents, axis=1)
    return means - math.log(len(y) - itself)
