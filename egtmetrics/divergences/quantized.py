"""Divergences between histograms on a codebook which both sets share.

Every score of this file is a function of two histograms: of how many real and how many fake points lie nearest to each
of K centres, found by k-means on both sets together. The distinct rows are clustered, in an order that depends on
nothing but the set of rows: swapping real and fake, or shuffling either, changes nothing, and equal rows share a code.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

from egtmetrics._order import canonical_order
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.divergences.estimates import DivergenceEstimate, check_level, warn_of
from egtmetrics.divergences.exact import f_divergence
from egtmetrics.divergences.generators import (
    FGenerator,
    GeneratorLike,
    Values,
    get_generator,
    unit_scale,
    user_generator,
)
from egtmetrics.ops import Backend, BackendName, Divergences, Features, select_backend
from egtmetrics.results import MetricResult

KMeansLibrary: TypeAlias = Literal["sklearn", "faiss"]
Counts: TypeAlias = NDArray[np.int64]

_THREADS = ThreadpoolController()
_MAX_ROUNDS = 300
_ROWS_PER_CLUSTER = 5
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
    source="Liu et al.: Divergence Frontiers for Generative Models, NeurIPS 2021",
)
"""f(t) = (t + 1)/2 - t log t / (t - 1), whose divergence is the frontier integral, from 0 to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Codebook:
    """Centres of k-means on two sets together, and which of them each row lies nearest to."""

    centers: Values
    """``(K, d)``"""
    real_codes: NDArray[np.int64]
    """``(n,)``, from 0 to K - 1."""
    fake_codes: NDArray[np.int64]

    @property
    def real_counts(self) -> Counts:
        """Histogram ``(K,)`` of the real set."""
        return np.bincount(self.real_codes, minlength=len(self.centers))

    @property
    def fake_counts(self) -> Counts:
        """Histogram ``(K,)`` of the fake set."""
        return np.bincount(self.fake_codes, minlength=len(self.centers))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _HistogramResult(MetricResult):
    n_clusters: int
    n_clusterings: int
    kmeans: KMeansLibrary


@dataclasses.dataclass(frozen=True, kw_only=True)
class MauveResult(_HistogramResult):
    """What :func:`mauve` returns: means over the clusterings, and their standard deviations."""

    score_names: ClassVar[tuple[str, ...]] = ("mauve", "mauve_star")

    mauve: float
    mauve_star: float
    """With half a count added to every bin."""
    mauve_std: float | None
    """Over the clusterings (ddof = 1), so the spread of one of them; None for one clustering."""
    mauve_star_std: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontierIntegralResult(_HistogramResult):
    """What :func:`frontier_integral` returns: means over the clusterings, and their standard deviations."""

    score_names: ClassVar[tuple[str, ...]] = ("frontier_integral", "frontier_integral_star")

    frontier_integral: float
    frontier_integral_star: float
    """With half a count added to every bin."""
    frontier_integral_std: float | None
    """Over the clusterings (ddof = 1); None for one clustering."""
    frontier_integral_star_std: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PRDResult(_HistogramResult):
    """What :func:`precision_recall_distributions` returns: a curve, and two scores that sum it up."""

    score_names: ClassVar[tuple[str, ...]] = ("f_8", "f_1_8")

    f_8: float
    """Maximum along the curve of F_8, which weighs recall."""
    f_1_8: float
    """Maximum along the curve of F_1/8, which weighs precision."""
    precision: tuple[float, ...]
    """At 1001 slopes, from 0 to infinity; mean over the clusterings."""
    recall: tuple[float, ...]


def quantize(
    real: Any,
    fake: Any,
    *,
    n_clusters: int,
    kmeans: KMeansLibrary = "sklearn",
    random_state: RandomState = None,
) -> Codebook:
    """Cluster both sets together by k-means.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_clusters
        K, at most the number of distinct rows.
    kmeans
        ``"sklearn"`` or ``"faiss"``, which must be installed and is many times faster for a thousand clusters. They
        find different codebooks, so the choice does not depend on what happens to be installed. scikit-learn runs on
        one thread here, since its sums depend on how many there are.
    random_state
        Seeds k-means. One integer gives one codebook for one pair of sets, in either order of the arguments and of the
        rows.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, more clusters than distinct rows, an unknown option.
    ImportError
        If faiss is asked for and not installed.

    Notes
    -----
    Lloyd's algorithm from one k-means++ (faiss: random) start, at most 300 rounds. Time O((n + m) K d) a round, memory
    a sorted copy of the features.

    Examples
    --------
    >>> codebook = quantize([[0.0], [0.1], [5.0]], [[5.1], [0.2]], n_clusters=2, random_state=0)
    >>> sorted(codebook.centers.round(6).ravel().tolist())
    [0.1, 5.05]
    >>> bool(codebook.real_codes[2] == codebook.fake_codes[0] != codebook.real_codes[0])
    True
    """
    union = _distinct_union(*check_real_fake(real, fake))
    n_clusters = _check_clusters(n_clusters, union)
    return _codebook(union, union.rows, n_clusters, kmeans, check_random_state(random_state))


def quantized_f_divergence(
    real: Any,
    fake: Any,
    *,
    f: GeneratorLike = "kl",
    n_clusters: int | None = None,
    smoothing: float = 0.0,
    miller_madow: bool = False,
    base: float | None = None,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    kmeans: KMeansLibrary = "sklearn",
    random_state: RandomState = None,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> DivergenceEstimate:
    r"""f-divergence between the histograms of real and fake on a codebook found on both.

    With c_k and e_k the number of real and fake points of cluster k, and s the ``smoothing``:

    .. math::

        \hat p_k = \frac{c_k + s}{n + s K}, \quad \hat q_k = \frac{e_k + s}{m + s K}, \quad
        \text{value} = D_f(\hat p \| \hat q).

    Merging points into clusters lowers a divergence, noise in the histograms raises the estimate: more clusters see
    more and err more.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    f
        A name or generator: see :func:`~egtmetrics.divergences.get_generator`.
    n_clusters
        K. None means the cube root of the smaller of n and m, rounded: with it the errors of quantisation and of
        sampling fall at one rate in the bound of Liu et al.
    smoothing
        Added to every count. 0 is the plug-in estimate; 1/2 is adding half, the estimator of Krichevsky and Trofimov;
        1 is Laplace's. Without it one cluster that lacks fake points makes a KL divergence infinite.
    miller_madow
        Subtract from a KL divergence the bias of the plug-in estimate, to first order
        :math:`(K_+ - 1) / 2n + (\sum_k \hat p_k / \hat q_k - 1) / 2m`, K_+ being the clusters with real points.
    base
        Base of the logarithm where the divergence is one, 2 for bits; None for nats.
    n_bootstrap
        How often both histograms are drawn again.
    level
        Coverage of the interval.
    kmeans
        As for :func:`quantize`.
    random_state
        Seeds k-means and the bootstrap.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`; they serve the bootstrap.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, more clusters than distinct rows, an option out of its range or a
        ``miller_madow`` correction of anything but an unsmoothed KL divergence.

    Warns
    -----
    DivergenceEstimateWarning
        If there are fewer than 5 rows per cluster; if no cluster holds points of both sets, so that the value is the
        maximum of the divergence whatever the distance; if the value or a bootstrap replicate is infinite.

    Notes
    -----
    Interval: the basic bootstrap, (2 v - b_high, 2 v - b_low) with v the value before a correction and b the quantiles
    of the replicates. Replicates exceed v by as much as v exceeds the truth, to first order, so the interval lies where
    the bias is taken out, and for many clusters v itself may lie outside of it. It holds for the divergence between the
    quantised laws, with the codebook as given. Where a replicate is infinite there is none. It misses 0 too often for
    a total variation between equal laws: f has a kink there, for which the bootstrap is not made.

    Cost: k-means, O((n + m) K d) a round, and O(K n_bootstrap).

    References
    ----------
    Liu, Pillutla, Welleck, Oh, Choi, Harchaoui: Divergence Frontiers for Generative Models, NeurIPS 2021, section 4.
    Krichevsky, Trofimov: The performance of universal encoding, IEEE Transactions on Information Theory 27 (1981).
    Miller: Note on the bias of information estimates, 1955; the second term is its like for the mean of log q.
    Davison, Hinkley: Bootstrap Methods and their Application, 1997, section 5.2.

    Examples
    --------
    >>> real, fake = [[0.0]] * 30 + [[1.0]] * 10, [[0.0]] * 20 + [[1.0]] * 20
    >>> estimate = quantized_f_divergence(real, fake, f="tv", n_clusters=2, random_state=0)
    >>> estimate.value
    0.25
    """
    generator = get_generator(f)
    unit = unit_scale(generator, base)
    if (
        isinstance(smoothing, bool)
        or not isinstance(smoothing, int | float | np.number)
        or not 0 <= smoothing < math.inf
    ):
        raise ValueError(f"smoothing={smoothing!r} is no number of at least 0; pass 0, or 0.5 to add half a count")
    if miller_madow and (generator.name != "kl" or smoothing > 0):
        raise ValueError(
            f"miller_madow corrects the plug-in estimate of 'kl', not {generator.name!r} with smoothing={smoothing:g}; "
            "pass f='kl' and smoothing=0, or leave it out: the interval takes out the bias for every f"
        )
    n_bootstrap = check_positive_int(n_bootstrap, "n_bootstrap", minimum=2)
    level = check_level(level)
    rng = check_random_state(random_state)
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake)
    union = _distinct_union(real, fake)
    n_rows = min(len(real), len(fake))
    n_clusters = _check_clusters(n_clusters, union, default=round(n_rows ** (1 / 3)))
    codebook = _codebook(union, union.rows, n_clusters, kmeans, rng)
    counts = codebook.real_counts, codebook.fake_counts
    p, q = (_pmf(c, smoothing) for c in counts)

    plug_in = float(f_divergence(p, q, f=generator)) * unit
    replicates = _replicates(kernels, *counts, generator, smoothing, n_bootstrap, rng) * unit
    notes = []
    if n_rows < _ROWS_PER_CLUSTER * n_clusters:
        notes.append(
            f"{n_rows} rows for {n_clusters} clusters: with fewer than {_ROWS_PER_CLUSTER} rows per cluster the value "
            "is mostly noise, and too high; lower n_clusters or add samples"
        )
    if not np.minimum(*counts).any():
        notes.append(
            "no cluster holds points of both sets, so the value is the maximum of the divergence whatever the distance "
            "of the sets; compare means or a Fréchet distance"
        )
    standard_error, interval = None, None
    if np.isfinite(replicates).all() and math.isfinite(plug_in):
        low, high = np.quantile(replicates, (0.5 - 0.5 * level, 0.5 + 0.5 * level))
        standard_error = float(replicates.std(ddof=1))
        interval = 2.0 * plug_in - float(high), 2.0 * plug_in - float(low)
    else:
        notes.append(
            f"{'the value' if math.isinf(plug_in) else 'a bootstrap replicate'} is infinite, for a cluster that lacks "
            "points of one set, so there is no interval; pass smoothing=0.5 or fewer clusters"
        )
    value = plug_in
    if miller_madow and math.isfinite(plug_in):
        seen = q > 0.0
        value -= unit * 0.5 * ((np.count_nonzero(p) - 1) / len(real) + (np.sum(p[seen] / q[seen]) - 1.0) / len(fake))
    return DivergenceEstimate(
        value=float(value),
        standard_error=standard_error,
        interval=interval,
        level=level,
        f=generator.name,
        base=base,
        method=f"histograms on {n_clusters} clusters",
        notes=warn_of(notes),
        backend="numpy" if generator.kernel_code is None else kernels.name,
        n_real=len(real),
        n_fake=len(fake),
    )


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
    r"""MAUVE: the area under the curve of the two kinds of error against mixtures of real and fake.

    On histograms p and q over a shared codebook, with r_w = w p + (1 - w) q for 25 weights w from 1e-6 to 1 - 1e-6 and
    c the ``scaling``, it is the area under the polygon through (1, 0), the points

    .. math::

        \bigl( e^{-c \, \text{KL}(q \| r_w)}, \; e^{-c \, \text{KL}(p \| r_w)} \bigr)

    and (0, 1): 1 for p = q, and smaller the less they share. MAUVE* adds half a count to every bin first.

    Rows are scaled to length 1 and projected on the principal components that keep 90 % of the variance of both sets
    together, before k-means. Scores are means over several clusterings, since one clustering alone varies by as much as
    models differ. Swapping real and fake changes nothing.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_clusters
        None means a tenth of the smaller of n and m, rounded, and at least 2, as Pillutla et al. take it. Scores
        depend on it, and so on n and m: compare groups at equal sizes.
    n_clusterings
        Over how many seeds of k-means to average.
    scaling
        c > 0; it only spreads the scores over (0, 1).
    kmeans
        As for :func:`quantize`.
    random_state
        Seeds k-means.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, more clusters than distinct rows, an option out of its range.

    Notes
    -----
    A row of zeros has no direction and is left at zero. Two sets with equal rows in equal proportions score exactly 1;
    with unlike sizes, half a count weighs more in the smaller and MAUVE* is a little less.
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
    if not isinstance(scaling, int | float | np.number) or not 0 < scaling < math.inf:
        raise ValueError(f"scaling={scaling!r} is no positive number; pass one, for example 5.0")
    histograms = _mauve_histograms(real, fake, n_clusters, n_clusterings, kmeans, random_state)
    plain, star = (
        np.array([frontier_area(p, q, scaling) for p, q in histograms.pmfs(smoothing)]) for smoothing in (0.0, 0.5)
    )
    return MauveResult(
        mauve=float(plain.mean()),
        mauve_star=float(star.mean()),
        mauve_std=_std(plain),
        mauve_star_std=_std(star),
        n_clusters=histograms.n_clusters,
        n_clusterings=len(histograms.real_counts),
        kmeans=kmeans,
        backend="numpy",
        n_real=histograms.n_real,
        n_fake=histograms.n_fake,
    )


def frontier_integral(
    real: Any,
    fake: Any,
    *,
    n_clusters: int | None = None,
    n_clusterings: int = 5,
    kmeans: KMeansLibrary = "sklearn",
    random_state: RandomState = None,
) -> FrontierIntegralResult:
    r"""Frontier integral: the error against mixtures of real and fake, averaged along the curve of :func:`mauve`.

    .. math::

        2 \sum_k \Bigl[ \frac{p_k + q_k}{4} - \frac{p_k q_k (\ln p_k - \ln q_k)}{2 (p_k - q_k)} \Bigr],

    0 where p_k = q_k; from 0 for p = q to 1 for disjoint histograms. It is the f-divergence with
    f(t) = (t + 1)/2 - t log t / (t - 1). Features, histograms and the starred form are those of :func:`mauve`.

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
    plain, star = (
        np.array([f_divergence(p, q, f=FRONTIER_INTEGRAL) for p, q in histograms.pmfs(smoothing)])
        for smoothing in (0.0, 0.5)
    )
    return FrontierIntegralResult(
        frontier_integral=float(plain.mean()),
        frontier_integral_star=float(star.mean()),
        frontier_integral_std=_std(plain),
        frontier_integral_star_std=_std(star),
        n_clusters=histograms.n_clusters,
        n_clusterings=len(histograms.real_counts),
        kmeans=kmeans,
        backend="numpy",
        n_real=histograms.n_real,
        n_fake=histograms.n_fake,
    )


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

    On histograms p of real and q of fake, for 1001 slopes lambda, the tangents of equidistant angles from 0 to pi/2:

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
        Sajjadi et al. take 20 and 10.
    kmeans, random_state
        As for :func:`mauve`.

    Raises
    ------
    TypeError, ValueError
        Features that are no finite ``(n, d)`` array, more clusters than distinct rows, an option out of its range.

    Notes
    -----
    1 - precision(1) is the total variation between p and q. Features are clustered as they are; a collapse within a
    cluster is not seen. Time O(n_clusterings (n + m) K d) a round of k-means.

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
    union = _distinct_union(*check_real_fake(real, fake))
    n_clusters = _check_clusters(n_clusters, union)
    histograms = _histograms(union, union.rows, n_clusters, n_clusterings, kmeans, rng)
    curves = [np.minimum(_SLOPES[:, None] * p, q).sum(axis=1) for p, q in histograms.pmfs(0.0)]
    # rounding may carry a sum over 1
    precision = np.minimum(np.mean(curves, axis=0), 1.0)
    recall = np.minimum(np.mean([curve / _SLOPES for curve in curves], axis=0), 1.0)
    return PRDResult(
        f_8=_max_f_beta(precision, recall, _BETA),
        f_1_8=_max_f_beta(precision, recall, 1.0 / _BETA),
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
        n_clusters=n_clusters,
        n_clusterings=n_clusterings,
        kmeans=kmeans,
        backend="numpy",
        n_real=histograms.n_real,
        n_fake=histograms.n_fake,
    )


def frontier_area(p: Values, q: Values, scaling: float) -> float:
    """Area under the curve of :func:`mauve` between two histograms ``(K,)``."""
    mixtures = q + _MIXTURE_WEIGHTS[:, None] * (p - q)  # exactly q where p = q
    x = np.concatenate([[1.0], np.exp(-scaling * f_divergence(q, mixtures)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-scaling * f_divergence(p, mixtures)), [1.0]])
    return float(0.5 * np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:])))


class _Union(NamedTuple):
    """The distinct rows of two sets, in canonical order."""

    rows: Features
    """``(U, d)``"""
    weights: Values
    """How often each row occurs in both sets together."""
    real_ids: NDArray[np.int64]
    """Which of the rows each real row is, ``(n,)``."""
    fake_ids: NDArray[np.int64]


class _Histograms(NamedTuple):
    """Counts of both sets on one codebook per clustering, ``(S, K)``."""

    real_counts: Counts
    fake_counts: Counts

    @property
    def n_real(self) -> int:
        return int(self.real_counts[0].sum())

    @property
    def n_fake(self) -> int:
        return int(self.fake_counts[0].sum())

    @property
    def n_clusters(self) -> int:
        return int(self.real_counts.shape[1])

    def pmfs(self, smoothing: float) -> zip[tuple[Values, Values]]:
        return zip(_pmf(self.real_counts, smoothing), _pmf(self.fake_counts, smoothing), strict=True)


def _distinct_union(real: Features, fake: Features) -> _Union:
    union = np.concatenate([real, fake])
    order = canonical_order(union)
    union = union[order]
    starts = np.concatenate([[True], (union[1:] != union[:-1]).any(axis=1)])
    ids = np.empty(len(union), dtype=np.int64)
    ids[order] = np.cumsum(starts) - 1
    return _Union(union[starts], np.bincount(ids).astype(np.float64), ids[: len(real)], ids[len(real) :])


def _check_clusters(n_clusters: Any, union: _Union, *, default: int | None = None) -> int:
    if n_clusters is None and default is not None:
        return min(max(2, default), len(union.rows))
    checked = check_positive_int(n_clusters, "n_clusters")
    if checked > len(union.rows):
        raise ValueError(
            f"n_clusters={checked}, but real and fake have {len(union.rows)} distinct rows together; pass at most as "
            "many"
        )
    return checked


def _codebook(
    union: _Union, points: Features, n_clusters: int, kmeans: KMeansLibrary, rng: np.random.Generator
) -> Codebook:
    """Cluster ``points``, which stand for the rows of ``union``."""
    if kmeans not in get_args(KMeansLibrary):
        raise ValueError(f"kmeans={kmeans!r} is unknown; choose one of {', '.join(map(repr, get_args(KMeansLibrary)))}")
    seed = int(rng.integers(2**31))
    run = _run_sklearn if kmeans == "sklearn" else _run_faiss
    codes, centers = run(points, union.weights, n_clusters, seed)
    return Codebook(centers=centers, real_codes=codes[union.real_ids], fake_codes=codes[union.fake_ids])


def _run_sklearn(points: Features, weights: Values, n_clusters: int, seed: int) -> tuple[NDArray[np.int64], Values]:
    model = KMeans(n_clusters, n_init=1, max_iter=_MAX_ROUNDS, random_state=seed)
    with warnings.catch_warnings(), _THREADS.limit(limits=1, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # points may coincide after a projection: empty clusters
        model.fit(points, sample_weight=weights)
    return model.labels_.astype(np.int64), model.cluster_centers_.astype(np.float64)


def _run_faiss(points: Features, weights: Values, n_clusters: int, seed: int) -> tuple[NDArray[np.int64], Values]:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("kmeans='faiss' needs faiss; install faiss-cpu, or pass kmeans='sklearn'") from error
    points = np.ascontiguousarray(points, dtype=np.float32)
    model = faiss.Kmeans(
        points.shape[1],
        n_clusters,
        niter=_MAX_ROUNDS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    model.train(points, weights=weights.astype(np.float32))
    _, codes = model.index.search(points, 1)
    return codes[:, 0].astype(np.int64), np.asarray(model.centroids, dtype=np.float64)


def _histograms(
    union: _Union,
    points: Features,
    n_clusters: int,
    n_clusterings: int,
    kmeans: KMeansLibrary,
    rng: np.random.Generator,
) -> _Histograms:
    n_clusterings = check_positive_int(n_clusterings, "n_clusterings")
    codebooks = [_codebook(union, points, n_clusters, kmeans, rng) for _ in range(n_clusterings)]
    return _Histograms(np.stack([c.real_counts for c in codebooks]), np.stack([c.fake_counts for c in codebooks]))


def _mauve_histograms(
    real: Any, fake: Any, n_clusters: int | None, n_clusterings: int, kmeans: KMeansLibrary, random_state: RandomState
) -> _Histograms:
    rng = check_random_state(random_state)
    real, fake = check_real_fake(real, fake)
    union = _distinct_union(real, fake)
    n_clusters = _check_clusters(n_clusters, union, default=round(min(len(real), len(fake)) / 10))
    return _histograms(union, _principal_directions(union), n_clusters, n_clusterings, kmeans, rng)


def _principal_directions(union: _Union) -> Values:
    """Scale the rows to length 1 and project them on the components that keep 90 % of their variance."""
    rows = union.rows.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0.0, lengths, 1.0)
    rows -= np.average(rows, axis=0, weights=union.weights)
    variances, directions = eigh(rows.T @ (union.weights[:, None] * rows))
    kept = np.cumsum(variances[::-1]) >= _KEPT_VARIANCE * variances.sum()
    return rows @ directions[:, ::-1][:, : int(np.argmax(kept)) + 1]


def _pmf(counts: Counts, smoothing: float) -> Values:
    smoothed = counts + smoothing
    return np.asarray(smoothed / smoothed.sum(axis=-1, keepdims=True))


def _replicates(
    kernels: Backend,
    real_counts: Counts,
    fake_counts: Counts,
    generator: FGenerator,
    smoothing: float,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> Values:
    """Divergences in nats of histograms drawn again from either one, ``(n_bootstrap,)``."""
    if generator.kernel_code is not None:
        divergences = Divergences(np.array([generator.kernel_code], np.int32), np.array([generator.parameter]))
        _, replicates = kernels.divergence_bootstrap(
            real_counts[None],
            fake_counts[None],
            divergences,
            smoothing=smoothing,
            n_replicates=n_bootstrap,
            seed=int(rng.integers(2**63)),
        )
        return np.asarray(replicates[0, 0])
    drawn = (
        rng.multinomial(counts.sum(), _pmf(counts, 0.0), size=n_bootstrap) for counts in (real_counts, fake_counts)
    )
    return np.asarray(f_divergence(*(_pmf(counts, smoothing) for counts in drawn), f=generator))


def _max_f_beta(precision: Values, recall: Values, beta: float) -> float:
    denominator = beta**2 * precision + recall
    scores = np.divide(precision * recall, denominator, out=np.zeros_like(precision), where=denominator > 0.0)
    return float((1.0 + beta**2) * scores.max())


def _std(values: Values) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
