"""f-divergences from an estimated density ratio: of two kernel densities, or of a classifier that tells real from fake.

The ratio at the points of both sets gives the divergence as a mean over them
(:func:`~egtmetrics.divergences.estimates.mean_over_both`), or a lower bound of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, ndtri
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import ThreadpoolController

from egtmetrics._order import canonical_order
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.divergences.estimates import (
    N_BLOCKS,
    DivergenceEstimate,
    Interval,
    block_errors,
    check_level,
    mean_over_both,
    random_blocks,
    warn_of,
)
from egtmetrics.divergences.families import GeneratorLike, get_generator
from egtmetrics.divergences.generators import FGenerator, Values, unit_scale

_THREADS = ThreadpoolController()
"""Products as small as these are best not shared out: on a busy machine two threads take ten times as long as one."""
_BLOCK_BYTES = 1 << 22
_SEPARATE_AUC = 0.999
_ROWS_PER_COEFFICIENT = 10


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
    negative. Each density is taken without the point at which it is evaluated. The kernel of a set of n rows has
    n^(-2/(d + 4)) times the covariance of the set (Scott's rule), so any affine coordinates give the same estimate.
    Ratios are cut off at n + m and its inverse.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder, each with more rows than columns and full rank.
    f
        A name or generator: see :func:`~egtmetrics.divergences.get_generator`.
    base
        Base of the logarithm where the divergence is one, 2 for bits; None for nats.
    level
        Coverage of the interval.
    random_state
        Draws the blocks for the standard error; the value does not depend on it.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, or a set that lies in a subspace.

    Warns
    -----
    DivergenceEstimateWarning
        If 2^d exceeds the number of rows, where kernels hold a point or two; if the ratio tells the sets apart (AUC
        above 0.999), where their supports may be disjoint; if there are fewer than 20 rows on either side.

    Notes
    -----
    Smoothing makes both laws more alike, and lowers the value; noise in the densities raises it, and prevails in more
    than a few dimensions. Interval: Student's, from ten disjoint blocks of both sets, each with its own bandwidth and
    the covariance of the whole set; see :func:`~egtmetrics.divergences.estimates.block_errors`. It tells of
    noise, not of bias. Time O((n + m)^2 d), memory O((n + m) d); distances are held a block at a time.

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
    generator = get_generator(f)
    unit = unit_scale(generator, base)
    level = check_level(level)
    rng = check_random_state(random_state)
    real, fake = (x[canonical_order(x)].astype(np.float64) for x in check_real_fake(real, fake))
    factors = _covariance_factor(real, "real"), _covariance_factor(fake, "fake")

    log_ratios = _kernel_log_ratios(real, fake, *factors)
    value = unit * mean_over_both(generator, *_cut_off(*log_ratios))
    notes = _separation_notes(*log_ratios)
    n_rows, d = min(len(real), len(fake)), real.shape[1]
    if 2.0**d > n_rows:
        notes.append(
            f"{n_rows} rows in {d} dimensions: a kernel holds few points, and the bias is large; reduce the dimension, "
            "for example with PCA, or use classifier_f_divergence"
        )
    block_values = []
    if n_rows >= 2 * N_BLOCKS:
        blocks = zip(random_blocks(len(real), rng), random_blocks(len(fake), rng), strict=True)
        block_values = [
            unit * mean_over_both(generator, *_cut_off(*_kernel_log_ratios(real[x], fake[y], *factors)))
            for x, y in blocks
        ]
    errors = block_errors(value, block_values, level)
    return DivergenceEstimate(
        value=value,
        standard_error=errors.standard_error,
        interval=errors.interval,
        level=level,
        f=generator.name,
        base=base,
        method="kernel densities",
        notes=warn_of([*notes, *errors.notes]),
        backend="numpy",
        n_real=len(real),
        n_fake=len(fake),
    )


def classifier_f_divergence(
    real: Any,
    fake: Any,
    *,
    f: GeneratorLike = "kl",
    n_folds: int = 5,
    base: float | None = None,
    level: float = 0.95,
    random_state: RandomState = None,
) -> DivergenceEstimate:
    r"""f-divergence from a classifier's odds for real against fake, on rows that it was not fitted to.

    Logistic regression on the standardised features and their squares; without the squares it would not see that a
    generator has collapsed to the mean. Its odds on the held-out fold, divided by n/m of the folds it was fitted to and
    cut off at n + m and its inverse, are the density ratio r, and the value is

    .. math::

        \frac1n \sum_i h(r(x_i)) + \frac1m \sum_j h(r(y_j)), \qquad h(r) = \frac{g(r)}{1 + r},

    with g(t) = f(t) - f'(1) (t - 1), which gives the same divergence as f and is not negative.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    f
        A name or generator: see :func:`~egtmetrics.divergences.get_generator`.
    n_folds
        How many parts are held out in turn, from 2 to the smaller of n and m.
    base
        Base of the logarithm where the divergence is one, 2 for bits; None for nats.
    level
        Coverage of the interval.
    random_state
        Draws the folds.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, fewer rows than folds.

    Warns
    -----
    DivergenceEstimateWarning
        If there are fewer than 10 rows per coefficient (2 d); if the classifier tells the sets apart (AUC above 0.999),
        where odds mean nothing.

    Notes
    -----
    Consistent where log p/q is a sum of quadratic functions of single features, as it is for normal laws with diagonal
    covariances. Elsewhere the classifier misses part of the difference: :func:`f_divergence_lower_bound` is then the
    number to trust. The rows must be independent: copies of a row in several folds leak. The regression has the penalty
    which is scikit-learn's default, C = 1.

    Interval: normal, with the variance of an efficient estimator at the estimated ratio,
    Var f'(r(x)) / n + Var f*(f'(r(y))) / m. It tells of noise, not of bias.
    Cost: n_folds fits of n + m rows and 2 d columns.

    References
    ----------
    Sugiyama, Suzuki, Kanamori: Density Ratio Estimation in Machine Learning, 2012, chapter 4 (the ratio).
    Chernozhukov et al.: Double/debiased machine learning, Econometrics Journal 21 (2018) (cross-fitting).
    Kandasamy, Krishnamurthy, Póczos, Wasserman, Robins: Nonparametric von Mises Estimators for Entropies, Divergences
    and Mutual Informations, NeurIPS 2015 (the variance).

    Examples
    --------
    Two normal laws with variance 1 and means 0 and 1, whose KL divergence is 1/2.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(500, 1)), rng.normal(size=(500, 1)) + 1.0
    >>> estimate = classifier_f_divergence(real, fake, random_state=0)
    >>> abs(estimate.value - 0.5) < 0.15
    True
    """
    generator = get_generator(f)
    unit = unit_scale(generator, base)
    level = check_level(level)
    real, fake, n_folds, rng = _check_classifier(real, fake, n_folds, random_state)
    log_ratios = _classifier_log_ratios(real, fake, n_folds, rng)
    ratios = _cut_off(*log_ratios)
    value = unit * mean_over_both(generator, *ratios)
    notes = _classifier_notes(real, fake, *log_ratios)
    standard_error = unit * _standard_error(*_influences(generator, *ratios))
    return DivergenceEstimate(
        value=value,
        standard_error=standard_error,
        interval=_interval(value, standard_error, level),
        level=level,
        f=generator.name,
        base=base,
        method="cross-fitted logistic regression",
        notes=warn_of(notes),
        backend="numpy",
        n_real=len(real),
        n_fake=len(fake),
    )


def f_divergence_lower_bound(
    real: Any,
    fake: Any,
    *,
    f: GeneratorLike = "kl",
    n_folds: int = 5,
    base: float | None = None,
    level: float = 0.95,
    random_state: RandomState = None,
) -> DivergenceEstimate:
    r"""Lower bound of an f-divergence: the variational formula at a classifier, on rows that it was not fitted to.

    For every function T the divergence is at least E_P[T] - E_Q[f*(T)], with f* the convex conjugate of f. Here

    .. math::

        \frac1n \sum_i T(x_i) - \frac1m \sum_j f^*(T(y_j)), \qquad T = f'(r),

    with r the density ratio of :func:`classifier_f_divergence`, for each point from the folds without it. Whatever the
    classifier, the expectation is at most D_f(P||Q).

    Parameters
    ----------
    real, fake, f, n_folds, base, random_state
        As for :func:`classifier_f_divergence`.
    level
        Coverage of the interval for the bound. Its lower end is a lower confidence limit for the divergence at the
        level (1 + level) / 2.

    Raises
    ------
    TypeError, ValueError
        As for :func:`classifier_f_divergence`.

    Warns
    -----
    DivergenceEstimateWarning
        As for :func:`classifier_f_divergence`.

    Notes
    -----
    The value can be negative: a poor bound of something that is not. A bound from n rows cannot certify much more than
    log n nats of a KL divergence (McAllester and Stratos 2020), so cutting the ratio off there loses little.
    Interval: normal, from the variances of T(x_i) and f*(T(y_j)) around their means, for the classifiers as fitted.
    Cost: n_folds fits of n + m rows and 2 d columns.

    References
    ----------
    Nguyen, Wainwright, Jordan: Estimating divergence functionals and the likelihood ratio by convex risk minimization,
    IEEE Transactions on Information Theory 56 (2010), lemma 1.
    McAllester, Stratos: Formal Limitations on the Measurement of Mutual Information, AISTATS 2020.

    Examples
    --------
    Two normal laws with variance 1 and means 0 and 1, whose KL divergence is 1/2.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(500, 1)), rng.normal(size=(500, 1)) + 1.0
    >>> low, high = f_divergence_lower_bound(real, fake, random_state=0).interval
    >>> 0.2 < low < 0.5 < high
    True
    """
    generator = get_generator(f)
    unit = unit_scale(generator, base)
    level = check_level(level)
    real, fake, n_folds, rng = _check_classifier(real, fake, n_folds, random_state)
    log_ratios = _classifier_log_ratios(real, fake, n_folds, rng)
    at_real, at_fake = _influences(generator, *_cut_off(*log_ratios))
    value = unit * float(at_real.mean() + at_fake.mean())
    standard_error = unit * _standard_error(at_real, at_fake)
    return DivergenceEstimate(
        value=value,
        standard_error=standard_error,
        interval=_interval(value, standard_error, level),
        level=level,
        f=generator.name,
        base=base,
        method="variational lower bound at a cross-fitted logistic regression",
        notes=warn_of(_classifier_notes(real, fake, *log_ratios)),
        backend="numpy",
        n_real=len(real),
        n_fake=len(fake),
    )


def _cut_off(real_log_ratios: Values, fake_log_ratios: Values) -> tuple[Values, Values]:
    """Ratios from n + m, above which a sample of as many rows tells nothing, to its inverse."""
    largest = math.log(len(real_log_ratios) + len(fake_log_ratios))
    return np.exp(np.clip(real_log_ratios, -largest, largest)), np.exp(np.clip(fake_log_ratios, -largest, largest))


def _influences(generator: FGenerator, real_ratios: Values, fake_ratios: Values) -> tuple[Values, Values]:
    """f'(r) at the real and -f*(f'(r)) at the fake points; the latter is the derivative of the partner at 1/r."""
    return generator.derivative(real_ratios), generator.partner().derivative(1.0 / fake_ratios)


def _standard_error(at_real: Values, at_fake: Values) -> float:
    """Standard error of the sum of two means."""
    return math.sqrt(at_real.var(ddof=1) / len(at_real) + at_fake.var(ddof=1) / len(at_fake))


def _interval(value: float, standard_error: float, level: float) -> Interval:
    half_width = float(ndtri(0.5 + 0.5 * level)) * standard_error
    return value - half_width, value + half_width


def _separation_notes(real_log_ratios: Values, fake_log_ratios: Values) -> list[str]:
    labels = np.repeat([1, 0], [len(real_log_ratios), len(fake_log_ratios)])
    auc = float(roc_auc_score(labels, np.concatenate([real_log_ratios, fake_log_ratios])))
    if auc <= _SEPARATE_AUC:
        return []
    return [
        f"the estimated ratio tells real from fake (AUC {auc:.4f}): the supports may be disjoint, and the estimate "
        "then tells how the ratio is extrapolated, not the divergence"
    ]


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
        f"{name} has {n} rows in {d} dimensions that lie in a subspace, so it has no density; reduce the dimension, "
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
    """log mean_j exp(-|x_i - y_j|^2 / 2); ``itself``: x is y, and the mean is over j != i."""
    means = np.empty(len(x))
    step = max(1, _BLOCK_BYTES // (8 * len(y)))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        exponents = -0.5 * cdist(x[rows], y, "sqeuclidean")
        if itself:
            exponents[np.arange(len(exponents)), np.arange(start, start + len(exponents))] = -np.inf
        means[rows] = logsumexp(exponents, axis=1)
    return means - math.log(len(y) - itself)


def _check_classifier(
    real: Any, fake: Any, n_folds: int, random_state: RandomState
) -> tuple[Values, Values, int, np.random.Generator]:
    n_folds = check_positive_int(n_folds, "n_folds", minimum=2)
    rng = check_random_state(random_state)
    real, fake = (x[canonical_order(x)].astype(np.float64) for x in check_real_fake(real, fake))
    for name, points in (("real", real), ("fake", fake)):
        if len(points) < n_folds:
            raise ValueError(
                f"{name} has {len(points)} rows, but n_folds={n_folds} needs at least as many; add samples or lower "
                "n_folds"
            )
    return real, fake, n_folds, rng


def _classifier() -> Pipeline:
    with_squares = FunctionTransformer(lambda x: np.hstack([x, np.square(x)]))
    return make_pipeline(StandardScaler(), with_squares, StandardScaler(), LogisticRegression(max_iter=1000))


def _classifier_log_ratios(real: Values, fake: Values, n_folds: int, rng: np.random.Generator) -> tuple[Values, Values]:
    """log p/q at the real and at the fake points, for each fold from a classifier fitted to the others."""
    real_folds, fake_folds = (rng.permutation(len(x)) % n_folds for x in (real, fake))
    real_log, fake_log = np.empty(len(real)), np.empty(len(fake))
    for fold in range(n_folds):
        real_out, fake_out = real_folds == fold, fake_folds == fold
        x, y = real[~real_out], fake[~fake_out]
        with _THREADS.limit(limits=1):
            model = _classifier().fit(np.concatenate([x, y]), np.repeat([1, 0], [len(x), len(y)]))
        log_prior = math.log(len(x) / len(y))
        real_log[real_out] = model.decision_function(real[real_out]) - log_prior
        fake_log[fake_out] = model.decision_function(fake[fake_out]) - log_prior
    return real_log, fake_log


def _classifier_notes(real: Values, fake: Values, real_log_ratios: Values, fake_log_ratios: Values) -> list[str]:
    notes = _separation_notes(real_log_ratios, fake_log_ratios)
    n_rows, n_coefficients = min(len(real), len(fake)), 2 * real.shape[1]
    if n_rows < _ROWS_PER_COEFFICIENT * n_coefficients:
        notes.append(
            f"{n_rows} rows for {n_coefficients} coefficients: with fewer than {_ROWS_PER_COEFFICIENT} rows for each "
            "the classifier fits noise; add samples or reduce the dimension, for example with PCA"
        )
    return notes
