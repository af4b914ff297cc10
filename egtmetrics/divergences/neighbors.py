"""f-divergences from nearest neighbours: no density is estimated, only the ratio of two densities at each point.

Wang, Kulkarni and Verdú (KL) and Póczos and Schneider (alpha) compare, around each real point, the radius that holds k
real points with the one that holds k fake points. k stays fixed: the noise of so few neighbours is known, and the
estimate is corrected for it. Noshad et al. (any f) count the real and the fake points around each point, and k must
grow with the sample.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp

from egtmetrics._order import canonical_order
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_n_neighbors, check_real_fake
from egtmetrics.divergences.estimates import (
    N_BLOCKS,
    DivergenceEstimate,
    block_pairs,
    block_uncertainty,
    check_target,
)
from egtmetrics.divergences.families import GeneratorLike
from egtmetrics.divergences.generators import FGenerator, Values
from egtmetrics.divergences.ratios import mean_over_both
from egtmetrics.ops import Backend, BackendName, Features, join_rows, select_backend, take_rows

_LARGEST_SHARE_ALONE = 0.05


def knn_f_divergence(
    real: Any,
    fake: Any,
    *,
    f: GeneratorLike = "kl",
    n_neighbors: int = 5,
    base: float | None = None,
    level: float = 0.95,
    random_state: RandomState = None,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> DivergenceEstimate:
    r"""KL or alpha divergence between the densities of real and fake, from k-nearest-neighbour distances.

    With :math:`\rho_i` the distance of x_i to its k-th nearest other real point and :math:`\nu_i` to its k-th nearest
    fake point, the ratio of the densities at x_i is about :math:`r_i = m \nu_i^d / ((n - 1) \rho_i^d)`, and

    .. math::

        \text{KL}(P \| Q) \approx \frac1n \sum_i \log r_i, \qquad
        \int p^a q^{1 - a} \approx \frac{\Gamma(k)^2}{\Gamma(k - a + 1) \Gamma(k + a - 1)}
            \cdot \frac1n \sum_i r_i^{a - 1}.

    The logarithms of both densities have the same bias, which cancels; for powers the Gamma functions remove it. So
    both converge for every fixed k. Either can be negative.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder. Their laws must have densities.
    f
        ``"kl"``, ``"reverse_kl"`` (KL with the sets swapped), or a generator made of a power t^a: ``"hellinger"`` (a =
        1/2), ``"pearson"`` (2), ``"neyman"`` (-1), :func:`~egtmetrics.divergences.alpha_divergence`. For a far outside
        of [0, 1] the sum has heavy tails, and an average of n terms says little.
    n_neighbors
        k, less than n and at most m, and above abs(a - 1). Fewer neighbours mean less bias where the densities are
        steep, and more noise.
    base
        2 for bits, None for nats; only for KL divergences.
    level
        Coverage of the interval.
    random_state
        Draws the blocks for the standard error. The value does not depend on it.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, too few rows for ``n_neighbors``, an f that is not a power, a
        distance of 0: a row with k copies in its own or in the other set is an atom, where there is no density.

    Warns
    -----
    DivergenceEstimateWarning
        2^d exceeds the number of rows: no neighbour is near then, and the bias, which falls like n^(-1/d), is large.
        The k-th fake point is farther than the k-th real one from every real point: the supports may be disjoint, the
        true value infinite, and the estimate only shows how wide the gap is. The sets are too small for an interval.

    Notes
    -----
    Interval: Student's, from ten disjoint blocks of both sets; see
    :func:`~egtmetrics.divergences.estimates.block_uncertainty`. It covers noise, not bias, and is too narrow where a
    block is too small to show the tails: by a quarter for normal laws and 300 rows, by a tenth for 1500.
    Ties between distances change nothing. Time O(n (n + m) d), memory O((n + m) d).

    References
    ----------
    Wang, Kulkarni, Verdú: Divergence Estimation for Multidimensional Densities Via k-Nearest-Neighbor Distances,
    IEEE Transactions on Information Theory 55 (2009), equation 5.
    Póczos, Schneider: On the Estimation of alpha-Divergences, AISTATS 2011, section 3.

    Examples
    --------
    Two normal laws with variance 1 and means 0 and 1, whose KL divergence is 1/2.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> estimate = knn_f_divergence(rng.normal(size=(2000, 1)), rng.normal(size=(2000, 1)) + 1.0, random_state=0)
    >>> low, high = estimate.interval
    >>> bool(low < 0.5 < high and high - low < 0.3)
    True
    """
    target = check_target(f, base, level)
    generator, a = target.generator, target.generator.power
    if a is None:
        raise ValueError(
            f"f={generator.name!r} is neither KL nor a power, so the noise of k neighbours cannot be corrected; use "
            "knn_ratio_f_divergence"
        )
    rng = check_random_state(random_state)
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    if a == 0.0:
        from_points, to_points, names = fake, real, ("fake", "real")
    else:
        from_points, to_points, names = real, fake, ("real", "fake")
    k = check_n_neighbors(n_neighbors, len(from_points), names[0])
    check_n_neighbors(k, len(to_points), names[1], itself=False)
    if a not in (0.0, 1.0) and not abs(a - 1.0) < k:
        raise ValueError(
            f"n_neighbors={k} is too small for {generator.name!r}, whose sum has a mean only with more than "
            f"{abs(a - 1.0):g} neighbours; pass a larger number"
        )
    from_points, to_points = (take_rows(points, canonical_order(points)) for points in (from_points, to_points))

    own = kernels.kth_neighbor(from_points, n_neighbors=k)
    other = kernels.kth_neighbor(from_points, to_points, n_neighbors=k)
    for sq_radii, name in zip((own, other), names, strict=True):
        n_atoms = int(np.count_nonzero(sq_radii == 0.0))
        if n_atoms:
            raise ValueError(
                f"{n_atoms} rows of {names[0]} have {k} or more copies in {name}, at distance 0, where there is no "
                "density; raise n_neighbors above the number of copies, remove them, or use quantized_f_divergence"
            )

    def evaluate(own: Values, other: Values, n_to: int) -> float:
        n_from, d = len(own), from_points.shape[1]
        log_ratios = 0.5 * d * (np.log(other) - np.log(own)) + math.log(n_to / (n_from - 1))
        return target.unit * _divergence_of_ratios(log_ratios, generator, k)

    value = evaluate(own, other, len(to_points))
    block_values = []
    if pairs := block_pairs(len(from_points), len(to_points), rng, min_rows=k + 1):
        from_blocks, to_blocks = zip(*pairs, strict=True)
        from_offsets, to_offsets = (np.cumsum([0, *map(len, blocks)]) for blocks in (from_blocks, to_blocks))
        x, y = take_rows(from_points, np.concatenate(from_blocks)), take_rows(to_points, np.concatenate(to_blocks))
        radii = (
            kernels.grouped_kth_neighbor(x, x_offsets=from_offsets, n_neighbors=k),
            kernels.grouped_kth_neighbor(x, y, x_offsets=from_offsets, y_offsets=to_offsets, n_neighbors=k),
        )
        by_block = (np.split(sq_radii, from_offsets[1:-1]) for sq_radii in radii)
        block_values = list(map(evaluate, *by_block, map(len, to_blocks)))
    return target.estimate(
        value,
        block_uncertainty(value, block_values, target.level),
        method=f"radii of {k} nearest neighbours",
        notes=_notes(from_points, to_points, separate=bool((other > own).all())),
        real=real,
        fake=fake,
        backend=kernels.name,
    )


def knn_ratio_f_divergence(
    real: Any,
    fake: Any,
    *,
    f: GeneratorLike = "kl",
    n_neighbors: int | None = None,
    base: float | None = None,
    level: float = 0.95,
    random_state: RandomState = None,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> DivergenceEstimate:
    r"""Any f-divergence between the laws of real and fake, from the numbers of real and fake points around each point.

    Take the ball around a point that ends at its k-th nearest neighbour in both sets together. It holds N real and M
    fake points, counting the point itself. Their ratio :math:`r = m N / (n M)` estimates p/q there, and

    .. math::

        D_f(P \| Q) \approx \frac1n \sum_i h(r(x_i)) + \frac1m \sum_j h(r(y_j)), \qquad h(r) = \frac{g(r)}{1 + r},

    with g(t) = f(t) - f'(1) (t - 1), which gives the same divergence as f and is not negative.

    Noshad et al. take the mean of f(r) over the fake points alone. That misses the term fbar(inf) P(q = 0), real data
    that the generator never comes near: for two uniform laws that share half of their supports it gives half of the
    squared Hellinger distance.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    f
        A name or generator: see :func:`~egtmetrics.divergences.get_generator`. Where f(0) or fbar(inf) is infinite, a
        count of 0 is replaced by half a point.
    n_neighbors
        k, less than n + m. None means the square root of n + m, rounded. The bias is of the order 1/k + (k/n)^(1/d), so
        k must grow with n. For equal laws and n = m it is about 2 f''(1) / k, upwards, and for a total variation, whose
        f has a kink at 1, 0.8 / sqrt(k).
    base
        2 for bits, None for nats; only for divergences with a logarithm.
    level, random_state, backend, n_threads
        As for :func:`knn_f_divergence`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, too few rows for ``n_neighbors``, an unknown f.

    Warns
    -----
    DivergenceEstimateWarning
        As for :func:`knn_f_divergence`; and if more than 5 % of a set needs half points.

    Notes
    -----
    All points on the sphere count, so ties and duplicates are treated alike on both sides.
    Interval as for :func:`knn_f_divergence`, with k in a block in proportion to the square root of its size.
    Time O((n + m)^2 d), memory O((n + m) d).

    References
    ----------
    Noshad, Moon, Yasaei Sekeh, Hero: Direct Estimation of Information Divergence Using Nearest Neighbor Ratios,
    ISIT 2017, arXiv:1702.05222, section II.

    Examples
    --------
    Two uniform laws that share half of their supports, whose squared Hellinger distance is 1.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.uniform(size=(2000, 1)), rng.uniform(size=(2000, 1)) + 0.5
    >>> estimate = knn_ratio_f_divergence(real, fake, f="hellinger", random_state=0)
    >>> abs(estimate.value - 1.0) < 0.05
    True
    """
    target = check_target(f, base, level)
    generator = target.generator
    rng = check_random_state(random_state)
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    n_rows = len(real) + len(fake)
    k = check_n_neighbors(round(math.sqrt(n_rows)) if n_neighbors is None else n_neighbors, n_rows, "real and fake")
    real, fake = take_rows(real, canonical_order(real)), take_rows(fake, canonical_order(fake))

    in_nats, real_alone, fake_alone = _divergence_of_kinds(kernels, generator, real, fake, k)
    value = target.unit * in_nats
    notes = _notes(real, fake, separate=real_alone == fake_alone == 1.0)
    for alone, limit, name in (
        (real_alone, generator.slope_at_infinity, "real"),
        (fake_alone, generator.at_zero, "fake"),
    ):
        if alone > _LARGEST_SHARE_ALONE and math.isinf(limit):
            notes.append(
                f"{alone:.0%} of the {name} points have none of the other set among {k} neighbours, where "
                f"{generator.name!r} may be infinite: the value depends on the half point that stands there; raise "
                "n_neighbors, or choose a divergence with a maximum"
            )
    block_k = max(1, round(k / math.sqrt(N_BLOCKS)))
    block_values = [
        target.unit * _divergence_of_kinds(kernels, generator, take_rows(real, x), take_rows(fake, y), block_k)[0]
        for x, y in block_pairs(len(real), len(fake), rng, min_rows=block_k + 1)
    ]
    return target.estimate(
        value,
        block_uncertainty(value, block_values, target.level),
        method=f"kinds of {k} nearest neighbours",
        notes=notes,
        real=real,
        fake=fake,
        backend=kernels.name,
        never_negative=True,
    )


def _divergence_of_ratios(log_ratios: Values, generator: FGenerator, k: int) -> float:
    """The divergence as a mean over real points of a function of the density ratio, corrected for the noise of k."""
    a = generator.power
    if a is None or a in (0.0, 1.0):
        return float(log_ratios.mean())
    log_mean = float(logsumexp((a - 1.0) * log_ratios)) - math.log(len(log_ratios))
    log_bias = float(gammaln(k - a + 1.0) + gammaln(k + a - 1.0) - 2.0 * gammaln(k))
    factor = float(generator.f(np.array([2.0]))[0] / (2.0**a - a - 1.0))  # c in f(t) = c (t^a - a t - (1 - a))
    with np.errstate(over="ignore"):
        return float(factor * np.expm1(log_mean - log_bias))


def _divergence_of_kinds(
    kernels: Backend, generator: FGenerator, real: Features, fake: Features, k: int
) -> tuple[float, float, float]:
    """The divergence in nats; the share of real points, and of fake ones, with no neighbour from the other set."""
    n, m = len(real), len(fake)
    both = join_rows(real, fake)
    sq_radii = kernels.kth_neighbor(both, n_neighbors=k)
    in_ball = kernels.ball_counts(both, x_sq_radii=sq_radii, closed=True).x_ball_sizes + 1  # with the point itself
    across = kernels.ball_counts(real, fake, x_sq_radii=sq_radii[:n], y_sq_radii=sq_radii[n:], closed=True)
    n_fake, n_real = across.x_ball_sizes, across.y_ball_sizes  # fake around real points, real around fake points
    with np.errstate(divide="ignore"):
        at_real = (in_ball[:n] - n_fake) / np.maximum(n_fake, 0.5 if math.isinf(generator.slope_at_infinity) else 0.0)
    at_fake = np.maximum(n_real, 0.5 if math.isinf(generator.at_zero) else 0.0) / (in_ball[n:] - n_real)
    value = mean_over_both(generator, m / n * at_real, m / n * at_fake)
    return value, float(np.mean(n_fake == 0)), float(np.mean(n_real == 0))


def _notes(x: Features, y: Features, *, separate: bool) -> list[str]:
    notes = []
    d, n_rows = x.shape[1], min(len(x), len(y))
    if 2.0**d > n_rows:
        notes.append(
            f"{n_rows} rows in {d} dimensions: neighbours are too far away for the densities to be equal there, and "
            "the bias is large; reduce the dimension, for example with PCA, or compare only estimates at one size"
        )
    if separate:
        notes.append(
            "every point has nearer neighbours in its own set than in the other: the supports may be disjoint, and the "
            "estimate then shows the gap between the sets, not the divergence"
        )
    return notes
