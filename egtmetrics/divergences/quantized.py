"""f-divergences between histograms on a codebook."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_number, check_positive_int
from egtmetrics.divergences.codebook import Counts, KMeansLibrary, check_clusters, cluster, distinct_union, pmf
from egtmetrics.divergences.estimates import DivergenceEstimate, Uncertainty, check_target
from egtmetrics.divergences.exact import f_divergence
from egtmetrics.divergences.families import GeneratorLike
from egtmetrics.divergences.generators import FGenerator, Values
from egtmetrics.ops import Backend, BackendName, Divergences, select_backend

_ROWS_PER_CLUSTER = 5


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
    r"""f-divergence between the histograms of real and fake, on a codebook found on both together.

    With c_k and e_k the number of real and fake points of cluster k, and s the ``smoothing``:

    .. math::

        \hat p_k = \frac{c_k + s}{n + s K}, \quad \hat q_k = \frac{e_k + s}{m + s K}, \quad
        \text{value} = D_f(\hat p \| \hat q).

    Merging points into clusters lowers a divergence, and noise in the histograms raises the estimate. So more clusters
    show more differences, with larger errors.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    f
        A name or generator: see :func:`~egtmetrics.divergences.get_generator`.
    n_clusters
        K. None means the cube root of the smaller of n and m, rounded. In the bound of Liu et al. the errors of
        quantisation and of sampling then fall at the same rate.
    smoothing
        Added to every count. 0 is the plug-in estimate, 1/2 the estimator of Krichevsky and Trofimov, 1 Laplace's.
        Without smoothing, one cluster that lacks fake points makes a KL divergence infinite.
    miller_madow
        Subtract from a KL divergence the bias of the plug-in estimate, to first order
        :math:`(K_+ - 1) / 2n + (\sum_k \hat p_k / \hat q_k - 1) / 2m`, with K_+ the number of clusters that have real
        points.
    base
        2 for bits, None for nats; only for divergences with a logarithm.
    n_bootstrap
        How many times both histograms are redrawn.
    level
        Coverage of the interval.
    kmeans
        As for :func:`quantize`.
    random_state
        Seeds k-means and the bootstrap.
    backend, n_threads
        Of the bootstrap; see :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, more clusters than distinct rows, an option out of its range,
        ``miller_madow`` for anything but an unsmoothed KL divergence.

    Warns
    -----
    DivergenceEstimateWarning
        There are fewer than 5 rows per cluster. No cluster holds points of both sets, so that the value is the maximum
        of the divergence, however far the sets are apart. The value or a bootstrap replicate is infinite.

    Notes
    -----
    Interval: the basic bootstrap, (2 v - b_high, 2 v - b_low) with v the uncorrected value and b the quantiles of the
    replicates. To first order, replicates exceed v by as much as v exceeds the truth, so the interval is corrected for
    the bias, and for many clusters v itself may lie outside of it. It is an interval for the divergence between the
    quantised laws, with the codebook as given. If a replicate is infinite there is none. For a total variation between
    equal laws it misses 0 too often, since f has a kink there and the bootstrap needs a smooth f.

    Cost: k-means, O((n + m) K d) a round, and O(K n_bootstrap).

    References
    ----------
    Liu, Pillutla, Welleck, Oh, Choi, Harchaoui: Divergence Frontiers for Generative Models, NeurIPS 2021, section 4.
    Krichevsky, Trofimov: The performance of universal encoding, IEEE Transactions on Information Theory 27 (1981).
    Miller: Note on the bias of information estimates, 1955; the second term is the same for the mean of log q.
    Davison, Hinkley: Bootstrap Methods and their Application, 1997, section 5.2.

    Examples
    --------
    >>> real, fake = [[0.0]] * 30 + [[1.0]] * 10, [[0.0]] * 20 + [[1.0]] * 20
    >>> estimate = quantized_f_divergence(real, fake, f="tv", n_clusters=2, random_state=0)
    >>> estimate.value
    0.25
    """
    target = check_target(f, base, level)
    generator, unit = target.generator, target.unit
    smoothing = check_number(smoothing, "smoothing", minimum=0.0)
    if miller_madow and (generator.name != "kl" or smoothing > 0):
        raise ValueError(
            f"miller_madow corrects the plug-in estimate of 'kl', not {generator.name!r} with smoothing={smoothing:g}; "
            "pass f='kl' and smoothing=0, or leave it out: the interval is corrected for the bias for every f"
        )
    n_bootstrap = check_positive_int(n_bootstrap, "n_bootstrap", minimum=2)
    rng = check_random_state(random_state)
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    union = distinct_union(real, fake)
    n_rows = union.smaller_size
    n_clusters = check_clusters(n_clusters, union, default=round(n_rows ** (1 / 3)))
    codebook = cluster(union, union.rows, n_clusters, kmeans, rng)
    counts = codebook.real_counts, codebook.fake_counts
    p, q = (pmf(c, smoothing) for c in counts)

    plug_in = float(f_divergence(p, q, f=generator)) * unit
    replicates = _replicates(kernels, *counts, generator, smoothing, n_bootstrap, rng) * unit
    notes = []
    if n_rows < _ROWS_PER_CLUSTER * n_clusters:
        notes.append(
            f"{n_rows} rows for {n_clusters} clusters: with fewer than {_ROWS_PER_CLUSTER} rows per cluster the value "
            "is mostly noise, and too large; lower n_clusters or add samples"
        )
    if not np.minimum(*counts).any():
        notes.append(
            "no cluster holds points of both sets, so the value is the maximum of the divergence, however far the sets "
            "are apart; compare means or a Fréchet distance"
        )
    value = plug_in
    if miller_madow and math.isfinite(plug_in):
        seen = q > 0.0
        value -= unit * 0.5 * ((np.count_nonzero(p) - 1) / len(real) + (np.sum(p[seen] / q[seen]) - 1.0) / len(fake))
    return target.estimate(
        float(value),
        _basic_bootstrap(plug_in, replicates, target.level),
        method=f"histograms on {n_clusters} clusters",
        notes=notes,
        real=real,
        fake=fake,
        backend="numpy" if generator.kernel_code is None else kernels.name,
        never_negative=not miller_madow,
    )


def _basic_bootstrap(plug_in: float, replicates: Values, level: float) -> Uncertainty:
    if math.isinf(plug_in) or not np.isfinite(replicates).all():
        infinite = "the value" if math.isinf(plug_in) else "a bootstrap replicate"
        note = (
            f"{infinite} is infinite, for a cluster that lacks points of one set, so there is no interval; pass "
            "smoothing=0.5 or fewer clusters"
        )
        return Uncertainty(None, None, [note])
    low, high = np.quantile(replicates, (0.5 - 0.5 * level, 0.5 + 0.5 * level))
    return Uncertainty(float(replicates.std(ddof=1)), (2.0 * plug_in - float(high), 2.0 * plug_in - float(low)))


def _replicates(
    kernels: Backend,
    real_counts: Counts,
    fake_counts: Counts,
    generator: FGenerator,
    smoothing: float,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> Values:
    """Divergences in nats between redrawn histograms, ``(n_bootstrap,)``."""
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
    drawn = (rng.multinomial(counts.sum(), pmf(counts, 0.0), size=n_bootstrap) for counts in (real_counts, fake_counts))
    return np.asarray(f_divergence(*(pmf(counts, smoothing) for counts in drawn), f=generator))
