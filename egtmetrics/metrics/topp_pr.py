"""TopP&R: precision and recall between supports that are estimated with a bootstrap confidence band."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import TooFewSamplesError
from egtmetrics._order import order_where_it_lies
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_extremes, check_positive_int, check_real_fake
from egtmetrics.metrics._topp_result import (
    NEIGHBORS_PER_DIM,
    NO_F1_BELOW,
    Compatibility,
    KRule,
    TopPREvaluation,
    TopPRResult,
    find_caveats,
    neighbor_rank,
)
from egtmetrics.metrics._topp_variance import topp_variance
from egtmetrics.ops import (
    ANY_RADIUS,
    Backend,
    BackendName,
    Features,
    ShardedFeatures,
    column_ranges,
    n_true,
    of_one_set,
    select_backend,
    smallest_at,
    take_rows,
    to_host,
)
from egtmetrics.registry import metric
from egtmetrics.results import warn_of_caveats

_PROJECTED_DIM = 32
_RADIUS_SAMPLE = 256
_KEPT_DIGITS = 2.0**-36
"""Where projected rows differ by less than this share of their size, rounding is seen in their distances."""
_COMPARED_BYTES = 1 << 24
_BLOCK_REPLICATES = 32
_REFERENCE_PROJECTION_SEED = 99
_REFERENCE_BOOTSTRAP_SEED = 42

_IndexBlocks: TypeAlias = Iterable[NDArray[np.integer[Any]]]
"""The rows that the bootstrap draws, a few replicates at a time: blocks ``(b, n)`` whose b add up to n_bootstrap."""


@dataclasses.dataclass(frozen=True)
class _SeededDraws:
    """Bootstrap replicates that an integer gives, drawn when they are asked for."""

    kernels: Backend
    seed: int
    n_rows: int
    n_bootstrap: int

    @functools.cached_property
    def counts(self) -> NDArray[np.uint16]:
        """How often each replicate draws each row, ``(n_rows, n_bootstrap)``."""
        return self.kernels.bootstrap_counts(n_rows=self.n_rows, n_replicates=self.n_bootstrap, seed=self.seed)


_Draws: TypeAlias = _SeededDraws | _IndexBlocks


@metric("topp", title="TopP&R", variance=topp_variance)
def topp_precision_recall(
    real: Any,
    fake: Any,
    *,
    alpha: float = 0.1,
    k_rule: KRule = "paper",
    n_bootstrap: int | None = None,
    n_projections: int | None = None,
    projections: Sequence[Any] | None = None,
    bootstrap_indices: tuple[Any, Any] | None = None,
    compatibility: Compatibility | None = None,
    random_state: RandomState = None,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> TopPRResult:
    """TopP&R: the share of each set's support points that lie in the support of the other set.

    The support of a set is where its kernel density exceeds the half width c of a uniform confidence band, so that
    isolated points (outliers) belong to no support. With p the density of real, q that of fake::

        p(z)      = mean_i K(|z - x_i| / h),  K(u) = cos(pi u / 2) for u <= 1, else 0
        c         = (1 - alpha)-quantile over bootstrap replicates b of  max_i |p(x_i) - p_b(x_i)|
        precision = #{y : q(y) > c_fake and p(y) > c_real} / #{y : q(y) > c_fake}
        recall    = #{x : p(x) > c_real and q(x) > c_fake} / #{x : p(x) > c_real}

    and f1 is their harmonic mean, 0 where either is at most 1e-4. The bandwidth h of a set is the median distance
    from its points to their k-th nearest neighbour in it, k = 5 d' in d' dimensions.

    Few features need ``k_rule="sample-size"``. In one or two dimensions a ball of 5 d' points is so small that nearly
    all points are noise to the band, and two samples of one law score near 0. The result says so in its ``caveats``:
    where less than a quarter of a set lies in its own support, and where k is more than half of a set, so that its
    support holds nearly everything.

    Above 32 features, both sets are first projected to d' = 32 by a matrix with entries N(0, 2 / (d + 32)). The scores
    depend on the matrix, so several are drawn and the scores (f1 too) are averaged.

    By default the result does not depend on the order of the rows, and a set compared with itself scores exactly 1.
    To this end the rows are sorted and both bands draw from one stream, so sets of equal size draw the same positions.
    The draws are independent of the data, so each band keeps its distribution. One integer ``random_state`` gives the
    same projections for every pair of sets with d features, so that groups are compared in one space.

    Parameters
    ----------
    real, fake : array-like of shape (n, d) and (m, d)
        Features from one encoder, NumPy or torch. Only distances matter: a common rotation (of projections too, where
        d > 32), shift or scale changes a score by no more than another draw of the bootstrap does.
    alpha : float
        One minus the confidence of the band, in (0, 1). A larger alpha narrows the band and keeps more points.
    k_rule : {"paper", "sample-size"}
        How many neighbours k make the bandwidth. ``"paper"`` takes 5 d'. ``"sample-size"`` takes the larger of 5 d' and
        ceil(n^0.8 / 2): 126 of 1000 points. In d' = 1 the error of a nearest-neighbour density falls fastest for k
        that grow as n^0.8; half of it, in any dimension, did best in simulations (docs/adr/0019).
    n_bootstrap : int, optional
        Bootstrap replicates B of each band. None means 1000, or 10 under ``compatibility``. With 10, the scores of one
        pair of sets vary by several points from seed to seed; with 1000, by about half a point.
    n_projections : int, optional
        Random projections to average over where d > 32; no effect otherwise. None means 10, or 1 under
        ``compatibility``.
    projections : sequence of array-like of shape (d', d), optional
        Matrices to project by instead of random ones, for any d; ``n_projections`` is then their number.
    bootstrap_indices : pair of integer array-likes of shape (B, n) and (B, m), optional
        Rows that each replicate draws from real and from fake, in place of random ones and for every projection;
        ``n_bootstrap`` is then B.
    compatibility : {"top-pr"}, optional
        Reproduce the numbers of the top-pr package 0.2.1: its bandwidth rule, its projection and its random draws. Its
        rule counts only the neighbours in later rows, so it depends on their order: with b the ascending list of the
        k-th smallest distance from row i < n - k to rows i + 1, ..., n - 1, h = b[int(len(b) / 2) - 1]. That h is
        larger (by 6 % for 1000 Gaussian points in 32 dimensions), and so are the scores, by 10 points and more: never
        compare scores of the two rules. Above 32 features the package ignores the seed, and so does this. Projections
        after the first continue its random streams.
    random_state : int, numpy.random.Generator or None
        Under ``compatibility``, an integer s has the effect of ``numpy.random.seed(s)`` before a call of the package; a
        Generator or None draws such an s.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Returns
    -------
    TopPRResult

    Raises
    ------
    ValueError
        If an argument is malformed, or a set has no more than k = 5 d' rows (160 at d' = 32).

    Warns
    -----
    UnreliableScoreWarning
        For every entry of the result's ``caveats``. In a frame, the warning names the groups.
    RuntimeWarning
        If no fake (real) point exceeds its own band: precision (recall) is then 0/0 and NaN, and so are f1 and the
        means over projections. This happens in small, scattered sets; one such group must not stop the evaluation of
        the others, and neither 0 nor 1 would be an answer.

    Notes
    -----
    Scores depend on n and m, because h and c do: two samples of one distribution, of 41 and 400 points in 8 dimensions,
    score a precision near 0.45 and a recall of 1 where the fake set is the small one. Compare groups at equal sizes.

    Ties: a density equal to c is outside (strict ``>``). Where half of a set coincides, h = 0 and K(u) is [u = 0].

    The package scales K by (pi / 4h)^d', which cancels in every comparison and overflows for badly scaled features.
    It is left out here, and bands are reported without it.

    Simulations of one law and of two laws well apart gave the limits of the caveats (docs/adr/0019). A score without a
    caveat can still say little: a shift in one of very many features hardly changes a distance.

    Cost for each projection: O((n^2 + m^2) (d' + B) + n m d') time. Memory: 2 B max(n, m) bytes for the bootstrap, and
    a sorted copy of each set after projection; no matrix of distances is held. The result keeps the projections, 256 d
    bytes each, for its variance estimator. Above 32 features, memory-mapped arrays may be larger than memory if both
    sets are float32 or both float64: each projection reads them once, in place.

    References
    ----------
    Kim, Jang, Kim, Yoo: TopP&R: Robust Support Estimation Approach for Evaluating Fidelity and Diversity in
    Generative Models. NeurIPS 2023, arXiv:2306.08013.

    Mack, Rosenblatt: Multivariate k-Nearest Neighbor Density Estimates. Journal of Multivariate Analysis 9 (1979).

    Examples
    --------
    >>> import numpy as np
    >>> real = np.random.default_rng(0).normal(size=(200, 2))
    >>> result = topp_precision_recall(real, real[::-1], k_rule="sample-size", random_state=0, backend="reference")
    >>> result.precision, result.recall, result.caveats
    (1.0, 1.0, ())
    >>> topp_precision_recall(real, real + 100.0, k_rule="sample-size", random_state=0, backend="reference").scores()
    {'precision': 0.0, 'recall': 0.0, 'f1': 0.0}
    """
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake), results_stay=True)
    real, fake = check_real_fake(real, fake, device=kernels.device)
    (n, d), m = real.shape, fake.shape[0]
    if not isinstance(alpha, float | np.floating) or not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha={alpha!r} is not a number strictly between 0 and 1; pass one, for example 0.1")
    if compatibility not in (None, "top-pr"):
        raise ValueError(f"compatibility={compatibility!r} is unknown; pass 'top-pr' or None")
    if k_rule not in ("paper", "sample-size"):
        raise ValueError(f"k_rule={k_rule!r} is unknown; pass 'paper' or 'sample-size'")
    if k_rule != "paper" and compatibility is not None:
        raise ValueError(
            f"k_rule={k_rule!r} does not go with compatibility={compatibility!r}, whose package takes k = 5 d'; leave "
            "out one of them"
        )
    alpha = float(alpha)
    rng = check_random_state(random_state)
    default_bootstrap, default_projections = (1000, 10) if compatibility is None else (10, 1)
    n_bootstrap = default_bootstrap if n_bootstrap is None else check_positive_int(n_bootstrap, "n_bootstrap")
    n_projections = default_projections if n_projections is None else check_positive_int(n_projections, "n_projections")
    given_indices = None if bootstrap_indices is None else _check_bootstrap_indices(bootstrap_indices, n, m)

    real_order = fake_order = None
    if compatibility is None:
        real_order, fake_order = order_where_it_lies(real), order_where_it_lies(fake)
        if given_indices is not None:  # they number the rows as they were passed
            places = [np.argsort(to_host(order)) for order in (real_order, fake_order)]
            given_indices = places[0][given_indices[0]], places[1][given_indices[1]]

    matrices: Iterable[NDArray[np.float64] | None]
    if projections is not None:
        matrices = _check_projections(projections, d)
    elif d <= _PROJECTED_DIM:
        matrices = [None]
    else:
        normal: Callable[[tuple[int, int]], NDArray[np.float64]] = rng.standard_normal
        if compatibility is not None:
            normal = functools.partial(_torch_normal, np.random.RandomState(_REFERENCE_PROJECTION_SEED))
        scale = math.sqrt(2.0 / (d + _PROJECTED_DIM))
        matrices = (_read_only(scale * normal((_PROJECTED_DIM, d))) for _ in range(n_projections))

    draws: Iterator[_Draws]  # of real and of fake in turn, without end
    if given_indices is not None:
        n_bootstrap = given_indices[0].shape[0]
        real_blocks, fake_blocks = (np.array_split(i, -(-n_bootstrap // _BLOCK_REPLICATES)) for i in given_indices)
        draws = itertools.cycle((real_blocks, fake_blocks))
    elif compatibility is None:
        draws = _common_draws(kernels, rng, n, m, n_bootstrap)
    else:
        seed = _REFERENCE_BOOTSTRAP_SEED if d > _PROJECTED_DIM else _legacy_seed(random_state)
        draws = _reference_draws(seed, n, m, n_bootstrap)

    evaluations, used = [], []
    for matrix in matrices:
        x = _points(kernels, real, matrix, real_order, "real")
        y = _points(kernels, fake, matrix, fake_order, "fake")
        used.append(matrix)
        evaluations.append(_evaluate(kernels, x, y, draws, n_bootstrap, alpha, k_rule, compatibility))

    for score, name, n_kept in (
        ("precision", "fake", min(e.n_fake_kept for e in evaluations)),
        ("recall", "real", min(e.n_real_kept for e in evaluations)),
    ):
        if n_kept == 0:
            warnings.warn(
                f"{score} is undefined (0/0) and NaN: no {name} point lies above the confidence band of {name} "
                f"({len(real) if name == 'real' else len(fake)} rows); add samples or raise alpha={alpha}",
                RuntimeWarning,
                stacklevel=2,
            )
    caveats = find_caveats(evaluations, k_rule, compatibility, real=n, fake=m)
    warn_of_caveats(caveats)
    precision, precision_std = _mean_and_std([e.precision for e in evaluations])
    recall, recall_std = _mean_and_std([e.recall for e in evaluations])
    f1, f1_std = _mean_and_std([e.f1 for e in evaluations])
    return TopPRResult(
        backend=kernels.name,
        n_real=n,
        n_fake=m,
        caveats=caveats,
        precision=precision,
        recall=recall,
        f1=f1,
        precision_std=precision_std,
        recall_std=recall_std,
        f1_std=f1_std,
        alpha=alpha,
        n_bootstrap=n_bootstrap,
        n_projections=len(evaluations),
        k_rule=k_rule,
        compatibility=compatibility,
        per_projection=tuple(evaluations),
        projections=tuple(used),
        own_draws=given_indices is None,
    )


def _evaluate(
    kernels: Backend,
    real: Features,
    fake: Features,
    draws: Iterator[_Draws],
    n_bootstrap: int,
    alpha: float,
    k_rule: KRule,
    compatibility: Compatibility | None,
) -> TopPREvaluation:
    real_k, fake_k = (neighbor_rank(k_rule, *points.shape) for points in (real, fake))
    real_bandwidth = _bandwidth(kernels, real, "real", real_k, compatibility)
    fake_bandwidth = _bandwidth(kernels, fake, "fake", fake_k, compatibility)
    # real before fake: the draws may come from one stream
    real_density, real_band = _density_and_band(kernels, real, real_bandwidth, next(draws), n_bootstrap, alpha)
    fake_density, fake_band = _density_and_band(kernels, fake, fake_bandwidth, next(draws), n_bootstrap, alpha)
    real_kept = real_density > real_band
    fake_kept = fake_density > fake_band
    real_covered = kernels.kernel_density(real, fake, bandwidth=fake_bandwidth) > fake_band
    fake_covered = kernels.kernel_density(fake, real, bandwidth=real_bandwidth) > real_band
    n_real_kept, n_real_covered, n_fake_kept, n_fake_covered = n_true(
        real_kept, real_kept & real_covered, fake_kept, fake_kept & fake_covered
    )
    precision, recall = _share(n_fake_covered, n_fake_kept), _share(n_real_covered, n_real_kept)
    return TopPREvaluation(
        precision=precision,
        recall=recall,
        f1=_harmonic_mean(precision, recall),
        real_bandwidth=real_bandwidth,
        fake_bandwidth=fake_bandwidth,
        real_confidence_band=real_band,
        fake_confidence_band=fake_band,
        n_real_kept=n_real_kept,
        n_fake_kept=n_fake_kept,
        real_n_neighbors=real_k,
        fake_n_neighbors=fake_k,
    )


@of_one_set
def _density_and_band(
    kernels: Backend, points: Features, bandwidth: float, draws: _Draws, n_bootstrap: int, alpha: float
) -> tuple[NDArray[np.float64], float]:
    counts = draws.counts if isinstance(draws, _SeededDraws) else _count_draws(draws, points.shape[0], n_bootstrap)
    density, deviations = kernels.kernel_density_band(points, counts, bandwidth=bandwidth)
    return density, float(np.quantile(to_host(deviations), 1.0 - alpha))


def _share(n_covered: int, n_kept: int) -> float:
    return n_covered / n_kept if n_kept else math.nan


def _harmonic_mean(precision: float, recall: float) -> float:
    if math.isnan(precision) or math.isnan(recall):
        return math.nan
    if min(precision, recall) <= NO_F1_BELOW:
        return 0.0
    return 2.0 * precision * recall / (precision + recall)


def _mean_and_std(values: list[float]) -> tuple[float, float | None]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


@of_one_set
def _points(
    kernels: Backend,
    features: Features,
    matrix: NDArray[np.float64] | None,
    order: NDArray[np.int64] | None,
    name: str,
) -> Features:
    """Project, then sort, so that features in a file are never copied at full width.

    The projection of a row does not depend on its position. Equal rows stay equal, as they must: at h = 0 only equal
    points count.
    """
    if matrix is not None:
        projected = kernels.project(features, matrix)
        _check_projected(features, projected, name)
        features = projected
    return features if order is None else take_rows(features, order)


def _check_projected(features: Any, projected: Features, name: str) -> None:
    """Raise ValueError if a projection overflows, or rounds away how rows differ, as one huge column makes it do."""
    if isinstance(features, ShardedFeatures):
        return
    low, high = column_ranges(projected)
    check_extremes(projected, f"{name} after projection", float(low.min()), float(high.max()))
    if (high - low).max() > _KEPT_DIGITS * max(-low.min(), high.max()):
        return
    step = max(1, _COMPARED_BYTES // (8 * features.shape[1]))
    first = to_host(features[:1])
    if any((to_host(features[start : start + step]) != first).any() for start in range(0, len(features), step)):
        raise ValueError(
            f"{name} lies so far from zero that a projection rounds its rows to nearly one point; subtract the mean of "
            "real from both sets, or leave out constant columns"
        )


@of_one_set
def _bandwidth(kernels: Backend, points: Features, name: str, k: int, compatibility: Compatibility | None) -> float:
    n, d = points.shape
    if n <= k:
        raise TooFewSamplesError(
            f"{name} has {n} rows; its bandwidth, a distance to the {k}-th neighbour ({NEIGHBORS_PER_DIM} for each of "
            f"{d} dimensions), needs at least {k + 1}: add samples, merge small groups, or project to fewer dimensions "
            "with projections=...",
            needed=k + 1,
        )
    if compatibility is None:
        return _median_radius(kernels, points, k)
    points64 = to_host(points).astype(np.float64)
    sq_radii = np.empty(n - k)
    for i in range(n - k):
        difference = points64[i + 1 :] - points64[i]
        sq_radii[i] = np.partition(np.einsum("nd,nd->n", difference, difference), k - 1)[k - 1]
    return math.sqrt(np.sort(sq_radii)[int(0.5 * len(sq_radii)) - 1])  # n = k + 1: index -1 of one element


def _median_radius(kernels: Backend, points: Features, k: int) -> float:
    """Median over all rows of the distance to the k-th neighbour.

    Most radii need not be computed: those of a few rows give a range that contains the median, except with probability
    6e-5. Where it does not, all radii are computed.
    """
    n = points.shape[0]
    sample = take_rows(points, slice(0, n, max(1, n // _RADIUS_SAMPLE)))
    some = kernels.kth_neighbor(sample, points, n_neighbors=k + 1)  # the first neighbour is the row itself
    ranks = 0.5 * len(some) + 4.0 * 0.5 * math.sqrt(len(some)) * np.array([-1.0, 1.0])
    floor, limit = smallest_at(some, np.clip(ranks.astype(int), 0, len(some) - 1).tolist())
    middle = [(n - 1) // 2, n // 2]
    for sq_range in ((float(floor), float(limit)), ANY_RADIUS):
        radii = smallest_at(kernels.kth_neighbor(points, n_neighbors=k, sq_range=sq_range), middle)
        if radii[0] > 0.0 and radii[1] < math.inf:
            break
    return float(np.sqrt(radii).mean())


def _common_draws(kernels: Backend, rng: np.random.Generator, n: int, m: int, n_bootstrap: int) -> Iterator[_Draws]:
    """Bootstraps of real and fake in turn, without end; sets of equal size share one."""
    while True:
        draws = _SeededDraws(kernels, int(rng.integers(2**63)), n, n_bootstrap)
        yield draws
        if m != n:
            draws = dataclasses.replace(draws, n_rows=m)  # the counts of real are not held any longer
        yield draws


def _reference_draws(seed: int, n: int, m: int, n_bootstrap: int) -> Iterator[_Draws]:
    """Bootstraps of real and fake in turn, without end, from one legacy stream."""
    stream = np.random.RandomState(seed)
    for n_rows in itertools.cycle((n, m)):
        yield _draw_blocks(stream, n_rows, n_bootstrap)


def _draw_blocks(stream: np.random.RandomState, n_rows: int, n_bootstrap: int) -> Iterator[NDArray[np.integer[Any]]]:
    for start in range(0, n_bootstrap, _BLOCK_REPLICATES):
        yield stream.randint(n_rows, size=(min(_BLOCK_REPLICATES, n_bootstrap - start), n_rows))


def _count_draws(blocks: _IndexBlocks, n_rows: int, n_bootstrap: int) -> NDArray[np.uint16]:
    """Count how often each replicate drew each row, ``(n_rows, n_bootstrap)``."""
    counts = np.empty((n_rows, n_bootstrap), dtype=np.uint16)
    start = 0
    for block in blocks:
        stop = start + block.shape[0]
        cells = block + n_rows * np.arange(stop - start)[:, None]
        times = np.bincount(cells.ravel(), minlength=cells.size)
        if times.max() > np.iinfo(np.uint16).max:
            raise ValueError(
                f"bootstrap_indices draws one row {times.max()} times in a replicate, more than 65535 times; draw the "
                "rows at random with replacement"
            )
        counts[:, start:stop] = times.reshape(-1, n_rows).T
        start = stop
    return counts


def _torch_normal(stream: np.random.RandomState, shape: tuple[int, int]) -> NDArray[np.float64]:
    """What ``torch.randn(shape)`` draws on the CPU from the same Mersenne Twister, for sizes that 16 divides.

    Sixteen uniforms make sixteen normals: Box-Muller, with the radii from the first eight and the angles from the rest.
    """
    bits = stream.randint(0, 2**32, size=math.prod(shape), dtype=np.uint32)
    uniform = (bits & 0xFFFFFF).astype(np.float64).reshape(-1, 2, 8) * 2.0**-24
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, 0]))
    angle = 2.0 * np.pi * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(shape)


def _legacy_seed(random_state: RandomState) -> int:
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(check_random_state(random_state).integers(2**32))
    if random_state >= 2**32:
        raise ValueError(f"random_state={random_state} is too large for compatibility='top-pr'; pass one below 2**32")
    return int(random_state)


def _check_projections(projections: Any, d: int) -> list[NDArray[np.float64]]:
    matrices = [_read_only(np.array(matrix, dtype=np.float64)) for matrix in projections]
    if not matrices:
        raise ValueError("projections is empty; pass at least one (d', d) matrix, or None for random ones")
    for i, matrix in enumerate(matrices):
        if matrix.ndim != 2 or matrix.shape[0] == 0 or matrix.shape[1] != d:
            raise ValueError(
                f"projections[{i}] has shape {matrix.shape}, expected (d', {d}) for features with {d} columns; pass a "
                "sequence of matrices, one for each projection"
            )
        if not np.isfinite(matrix).all():
            raise ValueError(f"projections[{i}] holds NaN or infinity; pass finite matrices")
    return matrices


def _read_only(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mark an array of our own, so that a device takes it once for both sets."""
    matrix.flags.writeable = False
    return matrix


def _check_bootstrap_indices(indices: Any, n: int, m: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not isinstance(indices, Sequence) or len(indices) != 2:
        raise ValueError(
            f"bootstrap_indices must be a pair of arrays (of real, of fake) of shape (B, {n}) and (B, {m})"
        )
    checked = []
    for i, n_rows in enumerate((n, m)):
        array = np.asarray(indices[i])
        if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] != n_rows or array.dtype.kind not in "iu":
            raise ValueError(
                f"bootstrap_indices[{i}] has shape {array.shape} and dtype {array.dtype}, expected integers of shape "
                f"(B, {n_rows}): each of B replicates draws as many rows as the set has"
            )
        if array.min() < 0 or array.max() >= n_rows:
            raise ValueError(
                f"bootstrap_indices[{i}] reaches from {array.min()} to {array.max()}, expected 0 to {n_rows - 1}"
            )
        checked.append(array.astype(np.int64, copy=False))
    if len(checked[0]) != len(checked[1]):
        raise ValueError(
            f"bootstrap_indices has {len(checked[0])} replicates of real and {len(checked[1])} of fake; pass as many"
        )
    return checked[0], checked[1]
