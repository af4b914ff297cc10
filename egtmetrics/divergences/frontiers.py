"""Scores of the frontier of precision and recall between two histograms: MAUVE, frontier integral, PRD."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import eigh, svd

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_number
from egtmetrics.divergences.codebook import (
    DistinctRows,
    Histograms,
    KMeansLibrary,
    check_clusters,
    distinct_union,
    histograms_of,
)
from egtmetrics.divergences.exact import f_divergence
from egtmetrics.divergences.generators import Values, user_generator
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, score, setting

_KEPT_VARIANCE = 0.9
_MIXTURE_WEIGHTS = np.linspace(1e-6, 1.0 - 1e-6, 25)
_SLOPES = np.tan(np.linspace(1e-10, 0.5 * math.pi - 1e-10, 1001))
_BETA = 8.0


def _frontier_integrand(t: Values) -> Values:
    h = t - 1.0
    off = h != 0.0
    return np.where(off, 0.5 * (t + 1.0) - t * np.log(t) / np.where(off, h, 1.0), 0.0)


FRONTIER_INTEGRAL = user_generator(
    _frontier_integrand,
    name="frontier_integral",
    at_zero=0.5,
    slope_at_infinity=0.5,
)
"""f(t) = (t + 1)/2 - t log t / (t - 1). Its divergence is the frontier integral, from 0 to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _HistogramResult(MetricResult):
    n_clusters: int = setting()
    n_clusterings: int = setting()
    kmeans: str = setting()


@dataclasses.dataclass(frozen=True, kw_only=True)
class MauveResult(_HistogramResult):
    """What :func:`mauve` returns: means over the clusterings, and their standard deviations."""

    mauve: float = score(
        label="MAUVE",
        help="Area under the curve of two divergences, to mixtures of real and generated data; 1 for equal laws.",
        better="higher",
        bounds=(0.0, 1.0),
    )
    mauve_star: float = score(
        label="MAUVE*",
        help="MAUVE with half a count added to every bin, for fewer samples per bin.",
        better="higher",
        bounds=(0.0, 1.0),
    )
    mauve_std: float | None
    """Over the clusterings (ddof = 1), so the spread of a single one. None for one clustering."""
    mauve_star_std: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontierIntegralResult(_HistogramResult):
    """What :func:`frontier_integral` returns: means over the clusterings, and their standard deviations."""

    frontier_integral: float = score(
        label="frontier integral",
        help="Mean divergence along the curve of MAUVE; 0 for equal laws, 1 for laws that share nothing.",
        better="lower",
        bounds=(0.0, 1.0),
    )
    frontier_integral_star: float = score(
        label="frontier integral*",
        help="The frontier integral with half a count added to every bin, for fewer samples per bin.",
        better="lower",
        bounds=(0.0, 1.0),
    )
    frontier_integral_std: float | None
    """Over the clusterings (ddof = 1). None for one clustering."""
    frontier_integral_star_std: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PRDResult(_HistogramResult):
    """What :func:`precision_recall_distributions` returns: a curve, and two scores that sum it up."""

    f_8: float = score(
        label="F8 (recall)",
        help="Largest F8 along the curve of precision against recall; it weighs recall 8 times as much as precision.",
        better="higher",
        bounds=(0.0, 1.0),
    )
    f_1_8: float = score(
        label="F1/8 (precision)",
        help="Largest F1/8 along that curve; it weighs precision 8 times as much as recall.",
        better="higher",
        bounds=(0.0, 1.0),
    )
    precision: tuple[float, ...]
    """At 1001 slopes, from 0 to infinity; mean over the clusterings."""
    recall: tuple[float, ...]


@metric("mauve", title="MAUVE")
def mauve(
    real: Any,
    fake: Any,
    *,
    n_clusters: int | None = None,
    n_clusterings: int = 5,
    scaling: float = 5.0,
    kmeans: KMeansLibrary = "sklearn",
    random_state: RandomState = None,
) -> MauveResult:
    r"""MAUVE: the area under the curve of two divergences, from real and from fake to mixtures of both.

    Let p and q be histograms on a shared codebook, r_w = w p + (1 - w) q for 25 weights w from 1e-6 to 1 - 1e-6, and c
    the ``scaling``. MAUVE is the area under the polygon through (1, 0), the points

    .. math::

        \bigl( e^{-c \, \text{KL}(q \| r_w)}, \; e^{-c \, \text{KL}(p \| r_w)} \bigr)

    and (0, 1). It is 1 for p = q, and smaller the less they share. MAUVE* adds half a count to every bin first.

    Before k-means, rows are scaled to length 1 and projected on the principal components that keep 90 % of the variance
    of both sets together. Scores are means over several clusterings, since a single one varies as much as models
    differ. Swapping real and fake changes nothing.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_clusters
        Clusters of both sets together. None means a tenth of the smaller of n and m, and at least 2 (Pillutla et al.).
        Scores depend on it, and so on n and m: compare groups at equal sizes.
    n_clusterings
        How many seeds of k-means to average over.
    scaling
        c > 0, which spreads the scores over (0, 1) and changes nothing else.
    kmeans
        ``"sklearn"``, or ``"faiss"``, which must be installed and is much faster for many clusters. See
        :func:`quantize`.
    random_state
        Seeds k-means.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, more clusters than distinct rows, an option out of its range.

    Notes
    -----
    A row of zeros has no direction and stays zero. Two sets with equal rows in equal proportions score exactly 1. If
    their sizes differ, half a count weighs more in the smaller set, and MAUVE* is a little less.
    Time O(n_clusterings (n + m) K d) a round of k-means, and O((n + m) d^2 + d^3) for the components.

    References
    ----------
    Pillutla, Swayamdipta, Zellers, Thickstun, Welleck, Choi, Harchaoui: MAUVE: Measuring the Gap Between Neural Text
    and Human Text using Divergence Frontiers, NeurIPS 2021. MAUVE*: Pillutla et al.: MAUVE Scores for Generative
    Models: Theory and Practice, JMLR 24 (2023).

    Examples
    --------
    >>> import numpy as np
    >>> real = np.random.default_rng(0).normal(size=(60, 3))
    >>> mauve(real, real[::-1], random_state=0).scores()
    {'mauve': 1.0, 'mauve_star': 1.0}
    """
    scaling = check_number(scaling, "scaling", above=0.0)
    histograms = _mauve_histograms(real, fake, n_clusters, n_clusterings, kmeans, random_state)
    plain, star = _plain_and_star(histograms, functools.partial(frontier_area, scaling=scaling))
    return MauveResult(
        mauve=float(plain.mean()),
        mauve_star=float(star.mean()),
        mauve_std=_std(plain),
        mauve_star_std=_std(star),
        **histograms.facts(),
    )


@metric("frontier", title="Frontier integral")
def frontier_integral(
    real: Any,
    fake: Any,
    *,
    n_clusters: int | None = None,
    n_clusterings: int = 5,
    kmeans: KMeansLibrary = "sklearn",
    random_state: RandomState = None,
) -> FrontierIntegralResult:
    r"""Frontier integral: the mean divergence to mixtures of real and fake, along the curve of :func:`mauve`.

    .. math::

        2 \sum_k \Bigl[ \frac{p_k + q_k}{4} - \frac{p_k q_k (\ln p_k - \ln q_k)}{2 (p_k - q_k)} \Bigr],

    where terms with p_k = q_k are 0. It goes from 0 for p = q to 1 for disjoint histograms, and is the f-divergence
    with f(t) = (t + 1)/2 - t log t / (t - 1). Features, histograms and the starred form are those of :func:`mauve`.

    Parameters
    ----------
    real, fake, n_clusters, n_clusterings, kmeans, random_state
        As for :func:`mauve`.

    Raises
    ------
    TypeError, ValueError
        As for :func:`mauve`.

    Notes
    -----
    Cost as for :func:`mauve`.

    References
    ----------
    Liu, Pillutla, Welleck, Oh, Choi, Harchaoui: Divergence Frontiers for Generative Models: Sample Complexity,
    Quantization Effects, and Frontier Integrals, NeurIPS 2021, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> real = np.random.default_rng(0).normal(size=(60, 3))
    >>> frontier_integral(real, real[::-1], random_state=0).scores()
    {'frontier_integral': 0.0, 'frontier_integral_star': 0.0}
    """
    histograms = _mauve_histograms(real, fake, n_clusters, n_clusterings, kmeans, random_state)
    plain, star = _plain_and_star(histograms, functools.partial(f_divergence, f=FRONTIER_INTEGRAL))
    return FrontierIntegralResult(
        frontier_integral=float(plain.mean()),
        frontier_integral_star=float(star.mean()),
        frontier_integral_std=_std(plain),
        frontier_integral_star_std=_std(star),
        **histograms.facts(),
    )


@metric("prd", title="Precision and recall of distributions")
def precision_recall_distributions(
    real: Any,
    fake: Any,
    *,
    n_clusters: int = 20,
    n_clusterings: int = 10,
    kmeans: KMeansLibrary = "sklearn",
    random_state: RandomState = None,
) -> PRDResult:
    r"""PRD: the curve of precision against recall between two histograms.

    With histograms p of real and q of fake, and 1001 slopes lambda, the tangents of equally spaced angles from 0 to
    pi/2:

    .. math::

        \text{precision}(\lambda) = \sum_k \min(\lambda p_k, q_k), \quad
        \text{recall}(\lambda) = \text{precision}(\lambda) / \lambda,

    averaged over the clusterings. With :math:`F_\beta = (1 + \beta^2) P R / (\beta^2 P + R)`, the scores are the
    maxima of F_8 and F_1/8 along the mean curve.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_clusters, n_clusterings
        Sajjadi et al. use 20 and 10.
    kmeans, random_state
        As for :func:`mauve`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, more clusters than distinct rows, an option out of its range.

    Notes
    -----
    1 - precision(1) is the total variation between p and q. Features are clustered without scaling. A collapse within
    a cluster is not seen. Time O(n_clusterings (n + m) K d) a round of k-means.

    References
    ----------
    Sajjadi, Bachem, Lucic, Bousquet, Gelly: Assessing Generative Models via Precision and Recall, NeurIPS 2018,
    section 4 and equation 8.

    Examples
    --------
    A generator that covers half of the data, and nothing else.

    >>> result = precision_recall_distributions([[0.0], [9.0]] * 5, [[0.0]] * 10, n_clusters=2, random_state=0)
    >>> round(result.f_8, 2), round(result.f_1_8, 2)
    (0.5, 0.98)
    """
    rng = check_random_state(random_state)
    union = distinct_union(real, fake)
    n_clusters = check_clusters(n_clusters, union)
    histograms = histograms_of(union, union.rows, n_clusters, n_clusterings, kmeans, rng)
    curves = [np.minimum(_SLOPES[:, None] * p, q).sum(axis=1) for p, q in histograms.pmfs(0.0)]
    # rounding may lift a sum above 1
    precision = np.minimum(np.mean(curves, axis=0), 1.0)
    recall = np.minimum(np.mean([curve / _SLOPES for curve in curves], axis=0), 1.0)
    return PRDResult(
        f_8=_max_f_beta(precision, recall, _BETA),
        f_1_8=_max_f_beta(precision, recall, 1.0 / _BETA),
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
        **histograms.facts(),
    )


def frontier_area(p: Values, q: Values, scaling: float) -> float:
    """Area under the curve of :func:`mauve` between two histograms ``(K,)``."""
    mixtures = q + _MIXTURE_WEIGHTS[:, None] * (p - q)  # exactly q where p = q
    x = np.concatenate([[1.0], np.exp(-scaling * f_divergence(q, mixtures)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-scaling * f_divergence(p, mixtures)), [1.0]])
    return float(0.5 * np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:])))


def _mauve_histograms(
    real: Any, fake: Any, n_clusters: int | None, n_clusterings: int, kmeans: KMeansLibrary, random_state: RandomState
) -> Histograms:
    rng = check_random_state(random_state)
    union = distinct_union(real, fake)
    n_clusters = check_clusters(n_clusters, union, default=round(union.smaller_size / 10))
    return histograms_of(union, _principal_directions(union), n_clusters, n_clusterings, kmeans, rng)


def _principal_directions(union: DistinctRows) -> Values:
    """Scale the rows to length 1 and project them on the components that keep 90 % of their variance."""
    rows = union.rows.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0.0, lengths, 1.0)
    rows -= np.average(rows, axis=0, weights=union.weights)
    if len(rows) >= rows.shape[1]:
        variances, directions = eigh(rows.T @ (union.weights[:, None] * rows))
        variances, directions = variances[::-1], directions[:, ::-1]
    else:  # as many directions as rows at most, and d^2 numbers would be far more
        _, singular_values, axes = svd(np.sqrt(union.weights)[:, None] * rows, full_matrices=False)
        variances, directions = singular_values**2, axes.T
    kept = np.cumsum(variances) >= _KEPT_VARIANCE * variances.sum()
    return rows @ directions[:, : int(np.argmax(kept)) + 1]


def _plain_and_star(histograms: Histograms, distance: Callable[[Values, Values], Any]) -> list[Values]:
    """A number for each clustering, from the histograms as they are, and with half a count added to every bin."""
    return [np.array([distance(p, q) for p, q in histograms.pmfs(smoothing)]) for smoothing in (0.0, 0.5)]


def _max_f_beta(precision: Values, recall: Values, beta: float) -> float:
    denominator = beta**2 * precision + recall
    scores = np.divide(precision * recall, denominator, out=np.zeros_like(precision), where=denominator > 0.0)
    return float((1.0 + beta**2) * scores.max())


def _std(values: Values) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
