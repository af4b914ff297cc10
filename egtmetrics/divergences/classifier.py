"""f-divergences from a classifier that tells real from fake: the density ratio, or a lower bound, from its odds."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri
from threadpoolctl import ThreadpoolController

from egtmetrics._order import canonical_order
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.divergences.estimates import DivergenceEstimate, Target, Uncertainty, check_target
from egtmetrics.divergences.families import GeneratorLike
from egtmetrics.divergences.generators import FGenerator, Values
from egtmetrics.divergences.ratios import clipped_ratios, mean_over_both, separation_notes

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_ROWS_PER_COEFFICIENT = 10


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

    The classifier is a logistic regression on the standardised features and their squares. Without the squares it would
    not see a generator that has collapsed to the mean. Its odds on the held-out fold, divided by n/m of the folds it
    was fitted to and clipped to n + m and its inverse, are the density ratio r, and the value is

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
        2 for bits, None for nats; only for divergences with a logarithm.
    level
        Coverage of the interval.
    random_state
        Draws the folds.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, fewer rows than folds.

    Warns
    -----
    DivergenceEstimateWarning
        There are fewer than 10 rows for each of the 2 d coefficients. The classifier separates the sets (AUC above
        0.999), so that its odds mean nothing.

    Notes
    -----
    Consistent where log p/q is a sum of quadratic functions of single features, as it is for normal laws with diagonal
    covariances. Elsewhere the classifier misses part of the difference, and :func:`f_divergence_lower_bound` is the
    number to trust. The rows must be independent: copies of a row in several folds leak. The regression has
    scikit-learn's default penalty, C = 1.

    Interval: normal, with the variance of an efficient estimator at the estimated ratio,
    Var f'(r(x)) / n + Var f*(f'(r(y))) / m. It covers noise, not bias.
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
    target = check_target(f, base, level)
    real, fake, log_ratios = _cross_fit(real, fake, n_folds, random_state)
    ratios = clipped_ratios(*log_ratios)
    value = target.unit * mean_over_both(target.generator, *ratios)
    return target.estimate(
        value,
        _normal(value, target, *_influences(target.generator, *ratios)),
        method="cross-fitted logistic regression",
        notes=_notes(real, *log_ratios),
        real=real,
        fake=fake,
        never_negative=True,
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

    with r the density ratio of :func:`classifier_f_divergence`, fitted for each point to the folds without it. Whatever
    the classifier, the expectation is at most D_f(P||Q).

    Parameters
    ----------
    real, fake, f, n_folds, base, random_state
        As for :func:`classifier_f_divergence`.
    level
        Coverage of the interval for the bound. Its lower end is a lower confidence limit for the divergence, at level
        (1 + level) / 2.

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
    The value can be negative, which is a poor bound of something that is not. A bound from n rows cannot certify much
    more than log n nats of a KL divergence (McAllester and Stratos 2020), so clipping the ratio there loses little.
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
    target = check_target(f, base, level)
    real, fake, log_ratios = _cross_fit(real, fake, n_folds, random_state)
    at_real, at_fake = _influences(target.generator, *clipped_ratios(*log_ratios))
    value = target.unit * float(at_real.mean() + at_fake.mean())
    return target.estimate(
        value,
        _normal(value, target, at_real, at_fake),
        method="variational lower bound at a cross-fitted logistic regression",
        notes=_notes(real, *log_ratios),
        real=real,
        fake=fake,
    )


def _influences(generator: FGenerator, real_ratios: Values, fake_ratios: Values) -> tuple[Values, Values]:
    """f'(r) at the real points, and at the fake ones -f*(f'(r)), which is the derivative of the partner at 1/r."""
    return generator.derivative(real_ratios), generator.partner().derivative(1.0 / fake_ratios)


def _normal(value: float, target: Target, at_real: Values, at_fake: Values) -> Uncertainty:
    """The error of a sum of two means, and a normal interval."""
    variance = at_real.var(ddof=1) / len(at_real) + at_fake.var(ddof=1) / len(at_fake)
    standard_error = target.unit * math.sqrt(variance)
    half_width = float(ndtri(0.5 + 0.5 * target.level)) * standard_error
    return Uncertainty(standard_error, (value - half_width, value + half_width))


def _cross_fit(
    real: Any, fake: Any, n_folds: int, random_state: RandomState
) -> tuple[Values, Values, tuple[Values, Values]]:
    """Check both sets; return them, and log p/q at their points, for each fold from a classifier fitted to the others.

    The rows are put in canonical order first.
    """
    n_folds = check_positive_int(n_folds, "n_folds", minimum=2)
    rng = check_random_state(random_state)
    real, fake = (x[canonical_order(x)].astype(np.float64) for x in check_real_fake(real, fake))
    for name, points in (("real", real), ("fake", fake)):
        if len(points) < n_folds:
            raise ValueError(
                f"{name} has {len(points)} rows, but n_folds={n_folds} needs at least as many; add samples or lower "
                "n_folds"
            )
    real_folds, fake_folds = (rng.permutation(len(x)) % n_folds for x in (real, fake))
    real_log, fake_log = np.empty(len(real)), np.empty(len(fake))
    for fold in range(n_folds):
        real_out, fake_out = real_folds == fold, fake_folds == fold
        x, y = real[~real_out], fake[~fake_out]
        classifier = _classifier()
        with _threads().limit(limits=1):
            model = classifier.fit(np.concatenate([x, y]), np.repeat([1, 0], [len(x), len(y)]))
        log_prior = math.log(len(x) / len(y))
        real_log[real_out] = model.decision_function(real[real_out]) - log_prior
        fake_log[fake_out] = model.decision_function(fake[fake_out]) - log_prior
    return real, fake, (real_log, fake_log)


@functools.cache
def _threads() -> ThreadpoolController:
    """Return what limits the thread pools that are loaded at the first call, those of scikit-learn among them.

    One thread is best for fits as small as these: on a busy machine two threads take ten times as long.
    """
    return ThreadpoolController()


def _classifier() -> Pipeline:
    from sklearn.linear_model import LogisticRegression  # takes seconds, which other metrics need not wait
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    with_squares = FunctionTransformer(lambda x: np.hstack([x, np.square(x)]))
    return make_pipeline(StandardScaler(), with_squares, StandardScaler(), LogisticRegression(max_iter=1000))


def _notes(real: Values, real_log_ratios: Values, fake_log_ratios: Values) -> list[str]:
    notes = separation_notes(real_log_ratios, fake_log_ratios)
    n_rows, n_coefficients = min(len(real_log_ratios), len(fake_log_ratios)), 2 * real.shape[1]
    if n_rows < _ROWS_PER_COEFFICIENT * n_coefficients:
        notes.append(
            f"{n_rows} rows for {n_coefficients} coefficients: with fewer than {_ROWS_PER_COEFFICIENT} rows for each "
            "the classifier fits noise; add samples or reduce the dimension, for example with PCA"
        )
    return notes
