"""How much the scores of a metric vary from sample to sample, from complementary halves of the one sample there is.

Real and fake are split at random into halves S and S', many times. With T(S) the scores of a half,
D = (T(S) - T(S')) / 2 has the variance of T at full size: S and S' are independent samples of half the size, and
variances go with 1 / n. The difference takes out what the scores of halves are too high or too low by. Unlike a
bootstrap, no point is drawn twice: duplicates would shrink the nearest-neighbour radii and raise the densities at the
points themselves.

A half keeps the meaning of the metric's tuning: TopP&R takes k / 2 neighbours for its bandwidth and the threshold of
the full sample, so that it estimates the same supports.

For TopP&R and the k-nearest-neighbour metrics all halves come from one pass over the pairs of points each
(``resampled_density``, ``split_ball_counts``). The Fréchet distance has its derivative instead, the kernel distance the
variance of a U-statistic. Every other metric is called on the halves.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from egtmetrics._order import canonical_order
from egtmetrics._validation import check_real_fake
from egtmetrics.metrics.frechet import frechet_distance
from egtmetrics.metrics.kernel import KernelDistanceResult, kernel_distance, polynomial_kernel
from egtmetrics.metrics.prdc import improved_precision_recall, precision_recall_density_coverage
from egtmetrics.metrics.topp_pr import TopPREvaluation, TopPRResult, topp_precision_recall
from egtmetrics.ops import BackendName, Features, HostBackend, select_host_backend, take_rows, to_host
from egtmetrics.results import MetricResult

Floats: TypeAlias = NDArray[np.float64]
Signs: TypeAlias = NDArray[np.int8]
"""``(n, R)``: +1 and -1 for the two halves of each split, 0 for the one row that an odd number leaves over."""

_NEIGHBORS_PER_DIM = 5
_PROJECTED_DIM = 32
_BAND_REPLICATES = 200
_THRESHOLD_DRAWS = 200
_LIST_BYTES = 1 << 26
_NO_F1_BELOW = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Covariances of the scores of one real and one fake set, by where the randomness comes from."""

    names: tuple[str, ...]
    data: Floats
    """``(S, S)``: of another sample of the same size, with the projections that were drawn."""
    per_projection: Floats | None = None
    """``(M, S)``: the scores under each projection, where there are several."""
    interaction: Floats | None = None
    """``(S, S)``: what one projection's share in ``data`` exceeds that of their mean by."""
    threshold: Floats | None = None
    """``(S, S)``: of another draw of the confidence bands' bootstrap, for one projection."""


def half_splits(n: int, n_splits: int, rng: np.random.Generator) -> Signs:
    """Random halves of n rows, ``(n, n_splits)``."""
    half = n // 2
    signs = np.zeros((n, n_splits), dtype=np.int8)
    signs[:half], signs[half : 2 * half] = 1, -1
    return rng.permuted(signs, axis=0)


def _splits_of(points: Features, n_splits: int, rng: np.random.Generator) -> Signs:
    """Random halves that do not depend on the order of the rows."""
    signs = half_splits(len(points), n_splits, rng)
    return signs[np.argsort(canonical_order(points))]


def spread(
    metric: Callable[..., Any],
    result: Any,
    real: Any,
    fake: Any,
    *,
    n_splits: int,
    rng: np.random.Generator,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> Spread:
    """Return how the scores vary around ``result``, which ``metric(real, fake)`` has returned.

    ``metric`` may be a ``functools.partial`` that fixes the options; those of the library are known by their function.
    """
    function, options = (metric.func, metric.keywords) if isinstance(metric, functools.partial) else (metric, {})
    real, fake = (points[:] for points in check_real_fake(to_host(real), to_host(fake)))  # fetched from other ranks
    splits = _splits_of(real, n_splits, rng), _splits_of(fake, n_splits, rng)
    kernels = select_host_backend(backend, n_threads=n_threads)
    own_draws = options.get("compatibility") is None and options.get("bootstrap_indices") is None
    known = real.shape[1] <= _PROJECTED_DIM or options.get("projections") is not None
    known |= isinstance(options.get("random_state"), int)
    if function is topp_precision_recall and own_draws and known:
        return _topp_spread(kernels, result, options, real, fake, *splits, rng)
    if function is precision_recall_density_coverage:
        closed = result.ties == "include"
        differences = _neighbor_halves(kernels, real, fake, result.n_neighbors, *splits, closed=closed)
        return Spread(names=result.score_names, data=_second_moments(differences))
    if function is improved_precision_recall:
        differences = _neighbor_halves(kernels, real, fake, result.n_neighbors, *splits, closed=True)[:, :2]
        return Spread(names=result.score_names, data=_second_moments(differences))
    if function is frechet_distance:
        return Spread(names=result.score_names, data=_frechet_variance(real, fake))
    if function is kernel_distance:
        return Spread(names=result.score_names, data=_kernel_variance(result, options, real, fake))
    names, differences = _called_halves(metric, real, fake, *splits)
    return Spread(names=names, data=_second_moments(differences))


def _second_moments(differences: Floats) -> Floats:
    moments: Floats = differences.T @ differences / len(differences)
    return moments


def _called_halves(
    metric: Callable[..., Any], real: Features, fake: Features, real_splits: Signs, fake_splits: Signs
) -> tuple[tuple[str, ...], Floats]:
    names: tuple[str, ...] = ()
    differences = []
    for real_signs, fake_signs in zip(real_splits.T, fake_splits.T, strict=True):
        scores = []
        for side in (1, -1):
            result = metric(take_rows(real, real_signs == side), take_rows(fake, fake_signs == side))
            by_name = result.scores() if isinstance(result, MetricResult) else {"": float(result)}
            names = tuple(by_name)
            scores.append(list(by_name.values()))
        differences.append((np.array(scores[0]) - scores[1]) / 2)
    return names, np.array(differences)


def _neighbor_halves(
    kernels: HostBackend,
    real: Features,
    fake: Features,
    k: int,
    real_splits: Signs,
    fake_splits: Signs,
    *,
    closed: bool,
) -> Floats:
    """Half differences of precision, recall, density and coverage, ``(R, 4)``."""
    for name, points in (("real", real), ("fake", fake)):
        if len(points) // 2 <= k:
            raise ValueError(f"{name} has {len(points)} rows, but halves with {k} neighbours need at least {2 * k + 2}")
    sides = [(signs + 1).astype(np.uint8) for signs in (real_splits, fake_splits)]
    of_real, fake_in_real = kernels.split_ball_counts(
        real,
        fake,
        x_sq_radii=_radii_within_halves(kernels, real, k, real_splits),
        x_sides=sides[0],
        y_sides=sides[1],
        closed=closed,
    )
    _, real_in_fake = kernels.split_ball_counts(
        fake,
        real,
        x_sq_radii=_radii_within_halves(kernels, fake, k, fake_splits),
        x_sides=sides[1],
        y_sides=sides[0],
        closed=closed,
    )
    scores = (
        (fake_splits, fake_in_real > 0),
        (real_splits, real_in_fake > 0),
        (fake_splits, fake_in_real / k),
        (real_splits, of_real > 0),
    )
    return np.stack([_half_difference(signs, values) for signs, values in scores], axis=1)


def _half_difference(signs: Signs, values: NDArray[Any]) -> Floats:
    """``(mean over one half - mean over the other) / 2`` by split, of values ``(n, R)``."""
    half = signs.shape[0] // 2
    difference: Floats = np.einsum("nr,nr->r", signs, values, dtype=np.float64) / (2 * half)
    return difference


def _radii_within_halves(kernels: HostBackend, points: Features, k: int, signs: Signs) -> Floats:
    """Squared distance of every row to its k-th neighbour in its own half, ``(n, R)``; -1 for a row in neither."""
    n, n_splits = signs.shape
    radii = np.full((n, n_splits), -1.0)
    # The k-th neighbour of a half is about the 2k-th of all, with a standard deviation of sqrt(2k).
    depth = min(n - 1, 2 * k + math.ceil(7.0 * math.sqrt(2 * k)))
    while True:
        sq_distances, neighbors = kernels.neighbors(points, n_neighbors=depth)
        missed = False
        step = max(1, _LIST_BYTES // (2 * depth * n_splits))
        for start in range(0, n, step):
            rows = slice(start, start + step)
            own_half = signs[neighbors[rows]] == signs[rows, None, :]
            reached = np.cumsum(own_half, axis=1, dtype=np.int16) >= k
            at = reached.argmax(axis=1)
            inside = signs[rows] != 0
            missed |= bool((inside & ~reached[:, -1]).any())
            radii[rows] = np.where(inside, np.take_along_axis(sq_distances[rows], at, axis=1), -1.0)
        if not missed:
            return radii
        depth = min(n - 1, 2 * depth)


def _frechet_variance(real: Features, fake: Features) -> Floats:
    """Variance of the Fréchet distance from its derivative with respect to the two laws, ``(1, 1)``.

    With A the linear map that carries N(0, Sigma_r) to N(0, Sigma_f) optimally, a real point x moves the distance by
    ``2 (mu_r - mu_f).(x - mu_r) + (x - mu_r)^T (I - A) (x - mu_r)``, less the mean of that; a fake point by the same
    with the roles exchanged and the inverse of A.

    Between equal laws the derivative is 0, and its estimate from samples is not: the variance is then about twice that
    of the distance.
    """
    x, y = real.astype(np.float64), fake.astype(np.float64)
    shift = x.mean(axis=0) - y.mean(axis=0)
    x -= x.mean(axis=0)
    y -= y.mean(axis=0)
    x_covariance, y_covariance = x.T @ x / (len(x) - 1), y.T @ y / (len(y) - 1)
    variance = 0.0
    for points, own, other, towards in (
        (x, x_covariance, y_covariance, shift),
        (y, y_covariance, x_covariance, -shift),
    ):
        root = _matrix_power(other, 0.5)
        carries = root @ _matrix_power(root @ own @ root, -0.5) @ root
        moves = 2.0 * points @ towards + np.einsum("nd,nd->n", points - points @ carries, points)
        variance += float(moves.var()) / len(points)
    return np.array([[variance]])


def _matrix_power(symmetric: Floats, power: float) -> Floats:
    """Power of a positive semidefinite matrix on its range."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > 1e-12 * max(values[-1], 0.0)
    powers = np.where(kept, np.where(kept, values, 1.0) ** power, 0.0)
    result: Floats = (vectors * powers) @ vectors.T
    return result


def _kernel_variance(
    result: KernelDistanceResult, options: Mapping[str, Any], real: Features, fake: Features
) -> Floats:
    """Variance of the kernel distance as a U-statistic, ``(1, 1)``.

    With ``a(x) = E k(x, x') - E k(x, y)``, ``b(y)`` alike, and the kernel's second moments v after centring both of its
    arguments::

        Var(n, m) = 4 Var a / n + 4 Var b / m + 2 v_xx / n(n - 1) + 2 v_yy / m(m - 1) + 4 v_xy / nm

    The last three count where the laws are nearly equal. Row means vary by more than ``a`` does, by v_xx / (n - 1) +
    v_xy / m, which is taken off. The mean of B subsets of s rows adds (Var(s, s) - Var(n, m)) / B to that of all rows.
    """
    degree, coef0 = options.get("degree", 3), options.get("coef0", 1.0)
    gamma = options.get("gamma") or 1.0 / real.shape[1]
    x, y = real.astype(np.float64), fake.astype(np.float64)
    n, m = len(x), len(y)

    def sums(rows: Floats, columns: Floats) -> tuple[Floats, Floats, float]:
        """Of the kernel by row, by column, and of its squares; a row against itself is left out."""
        by_row, by_column, squares = np.empty(len(rows)), np.zeros(len(columns)), 0.0
        step = max(1, _LIST_BYTES // (8 * len(columns)))
        for start in range(0, len(rows), step):
            tile = polynomial_kernel(rows[start : start + step], columns, degree, gamma, coef0)
            if rows is columns:
                tile[np.arange(len(tile)), start + np.arange(len(tile))] = 0.0
            by_row[start : start + step] = tile.sum(axis=1)
            by_column += tile.sum(axis=0)
            squares += float(np.vdot(tile, tile))
        return by_row, by_column, squares

    def centred_within(by_row: Floats, squares: float) -> float:
        k = len(by_row)
        moments = squares - 2.0 * by_row @ by_row / (k - 2) + by_row.sum() ** 2 / ((k - 1) * (k - 2))
        return float(moments / (k * (k - 3)))

    (in_x, _, xx), (in_y, _, yy) = sums(x, x), sums(y, y)
    at_x, at_y, xy = sums(x, y)
    v_xx, v_yy = centred_within(in_x, xx), centred_within(in_y, yy)
    v_xy = float(xy - at_x @ at_x / m - at_y @ at_y / n + at_x.sum() ** 2 / (n * m)) / ((n - 1) * (m - 1))
    of_a = max(0.0, float((in_x / (n - 1) - at_x / m).var(ddof=1)) - v_xx / (n - 1) - v_xy / m)
    of_b = max(0.0, float((in_y / (m - 1) - at_y / n).var(ddof=1)) - v_yy / (m - 1) - v_xy / n)

    def variance(n: int, m: int) -> float:
        first = 4.0 * of_a / n + 4.0 * of_b / m
        return first + 2.0 * v_xx / (n * (n - 1)) + 2.0 * v_yy / (m * (m - 1)) + 4.0 * v_xy / (n * m)

    whole, subset = variance(n, m), variance(result.subset_size, result.subset_size)
    return np.array([[whole + (subset - whole) / result.n_subsets]])


def _topp_spread(
    kernels: HostBackend,
    result: TopPRResult,
    options: Mapping[str, Any],
    real: Features,
    fake: Features,
    real_splits: Signs,
    fake_splits: Signs,
    rng: np.random.Generator,
) -> Spread:
    real_order, fake_order = canonical_order(real), canonical_order(fake)  # as the metric does
    real, real_splits = real[real_order], real_splits[real_order]
    fake, fake_splits = fake[fake_order], fake_splits[fake_order]
    matrices = _projections(result, options, real.shape[1])
    differences, thresholds, per_projection = [], [], []
    for matrix, evaluation in zip(matrices, result.per_projection, strict=True):
        x, y = (points if matrix is None else kernels.project(points, matrix) for points in (real, fake))
        halves, at_thresholds = _topp_halves(kernels, x, y, evaluation, real_splits, fake_splits, result, rng)
        differences.append(halves)
        thresholds.append(at_thresholds)
        per_projection.append([evaluation.precision, evaluation.recall, evaluation.f1])
    by_projection = np.array(differences)  # (M, R, 3)
    centred = by_projection - by_projection.mean(axis=0)
    n_projections, n_splits = by_projection.shape[:2]
    threshold = np.mean([np.cov(scores.T) for scores in thresholds], axis=0)
    several = n_projections > 1
    return Spread(
        names=result.score_names,
        data=_second_moments(by_projection.mean(axis=0)),
        per_projection=np.array(per_projection) if several else None,
        interaction=np.einsum("mri,mrj->ij", centred, centred) / ((n_projections - 1) * n_splits) if several else None,
        threshold=threshold,
    )


def _projections(result: TopPRResult, options: Mapping[str, Any], d: int) -> list[Floats | None]:
    """The matrices that gave ``result``: as ``topp_precision_recall`` draws them from an integer ``random_state``."""
    if options.get("projections") is not None:
        return [np.asarray(matrix, dtype=np.float64) for matrix in options["projections"]]
    if d <= _PROJECTED_DIM:
        return [None]
    rng = np.random.default_rng(options["random_state"])
    matrices: list[Floats | None] = []
    for _ in range(result.n_projections):
        matrices.append(math.sqrt(2.0 / (d + _PROJECTED_DIM)) * rng.standard_normal((_PROJECTED_DIM, d)))
        rng.integers(2**63)  # the seed of the bootstraps
    return matrices


def _topp_halves(
    kernels: HostBackend,
    x: Features,
    y: Features,
    evaluation: TopPREvaluation,
    x_splits: Signs,
    y_splits: Signs,
    result: TopPRResult,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Half differences of precision, recall and f1 ``(R, 3)``, and these scores under other thresholds ``(Q, 3)``."""
    bands = evaluation.real_confidence_band, evaluation.fake_confidence_band
    bandwidths = evaluation.real_bandwidth, evaluation.fake_bandwidth
    x_halves = _bandwidths_of_halves(kernels, x, bandwidths[0], x_splits)
    y_halves = _bandwidths_of_halves(kernels, y, bandwidths[1], y_splits)
    own_y, full_own_y = _densities_of_halves(kernels, y, y, y_splits, y_splits, y_halves, bandwidths[1])
    real_at_y, full_real_at_y = _densities_of_halves(kernels, y, x, y_splits, x_splits, x_halves, bandwidths[0])
    own_x, full_own_x = _densities_of_halves(kernels, x, x, x_splits, x_splits, x_halves, bandwidths[0])
    fake_at_x, full_fake_at_x = _densities_of_halves(kernels, x, y, x_splits, y_splits, y_halves, bandwidths[1])

    def scores(real_band: float, fake_band: float, x_rows: NDArray[Any], y_rows: NDArray[Any], full: bool) -> Floats:
        at_y = (full_own_y, full_real_at_y) if full else (own_y, real_at_y)
        at_x = (full_own_x, full_fake_at_x) if full else (own_x, fake_at_x)
        precision = _shares(at_y[0] > fake_band, at_y[1] > real_band, y_rows)
        recall = _shares(at_x[0] > real_band, at_x[1] > fake_band, x_rows)
        low = np.minimum(precision, recall) <= _NO_F1_BELOW
        f1 = np.where(low, 0.0, 2.0 * precision * recall / np.where(low, 1.0, precision + recall))
        return np.stack([precision, recall, f1], axis=1)

    one, other = (scores(*bands, x_splits == side, y_splits == side, False) for side in (1, -1))
    factors = np.exp(
        np.stack([_band_error(kernels, p, h, result, rng) for p, h in ((x, bandwidths[0]), (y, bandwidths[1]))], axis=1)
    )
    every = np.ones((1, 1), dtype=bool)
    shifted = [scores(bands[0] * a, bands[1] * b, every, every, True)[0] for a, b in factors]
    return (one - other) / 2, np.array(shifted)


def _shares(kept: NDArray[np.bool_], covered: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Floats:
    kept = kept & rows
    shares: Floats = (kept & covered).sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    return shares


def _band_error(
    kernels: HostBackend, points: Features, bandwidth: float, result: TopPRResult, rng: np.random.Generator
) -> Floats:
    """Logarithms of factors by which another bootstrap would change the confidence band, ``(Q,)``.

    The quantile's error falls with the root of the number of replicates, so a few replicates tell that of many.
    """
    n = points.shape[0]
    counts = rng.multinomial(n, np.full(n, 1.0 / n), size=_BAND_REPLICATES).T
    _, deviations = kernels.kernel_density_band(points, np.ascontiguousarray(counts, np.uint16), bandwidth=bandwidth)
    drawn = rng.choice(deviations, size=(_THRESHOLD_DRAWS, _BAND_REPLICATES))
    quantiles = np.quantile(drawn, 1.0 - result.alpha, axis=1)
    errors: Floats = np.log(np.maximum(quantiles, 1e-300))
    scaled: Floats = (errors - errors.mean()) * math.sqrt(_BAND_REPLICATES / result.n_bootstrap)
    return scaled


def _bandwidths_of_halves(kernels: HostBackend, points: Features, bandwidth: float, signs: Signs) -> Floats:
    """Median distance to the (k/2)-th neighbour of the same half, ``(2, R)`` for the halves +1 and -1.

    It is where half of a half's points have k/2 of their half within that distance. The share of such points is worked
    out at two distances near the bandwidth, and interpolated.
    """
    n, n_splits = signs.shape
    k = _NEIGHBORS_PER_DIM * points.shape[1]
    constant = np.full((2, n_splits), bandwidth)
    if bandwidth == 0.0:
        return constant
    sample = take_rows(points, np.arange(0, n, max(1, n // 256)))
    radii = np.sqrt(kernels.kth_neighbor(sample, points, n_neighbors=k + 1))
    # The medians of halves lie within about 2 / sqrt(n) of the median of all, as shares of the points.
    width = float(np.quantile(radii, 0.65) - np.quantile(radii, 0.35)) / 0.3 * min(0.15, 2.0 / math.sqrt(n))
    if not 0.0 < width < bandwidth:
        return constant
    counts = (signs + 1).astype(np.uint16)
    scores = []
    for at in (bandwidth - width, bandwidth + width):
        density, deviation = kernels.resampled_density(points, points, counts, bandwidth=at, ball=True)
        in_half = (n * (density[:, None] + signs * deviation) - 1.0 - (signs != 0)) / 2.0  # itself left out
        reached = in_half > (k - 1.0) / 2.0  # sums in float32 are no whole numbers: stay between two of them
        shares = np.stack([(reached * (signs == side)).sum(axis=0) / (n // 2) for side in (1, -1)])
        scores.append(ndtri(np.clip(shares, 0.5 / n, 1.0 - 0.5 / n)))
    slope = np.maximum(scores[1] - scores[0], 0.05)
    place = np.clip(-scores[0] / slope, -1.0, 2.0)
    bandwidths: Floats = bandwidth - width + 2.0 * width * place
    return bandwidths


def _densities_of_halves(
    kernels: HostBackend,
    x: Features,
    y: Features,
    x_signs: Signs,
    y_signs: Signs,
    bandwidths: Floats,
    full_bandwidth: float,
) -> tuple[Floats, Floats]:
    """Density at each x of those y that share its half, under that half's bandwidth ``(n, R)``, and of all ``(n, 1)``.

    The logarithm is interpolated between two bandwidths in theirs; in it a density is nearly linear.
    """
    counts = (y_signs + 1).astype(np.uint16)
    nodes = float(bandwidths.min()), float(bandwidths.max())
    if nodes[0] == nodes[1]:
        density, deviation = kernels.resampled_density(x, y, counts, bandwidth=full_bandwidth)
        return density[:, None] + x_signs * deviation, density[:, None]
    own, full = [], []
    for node in nodes:
        density, deviation = kernels.resampled_density(x, y, counts, bandwidth=node)
        own.append(np.log(np.maximum(density[:, None] + x_signs * deviation, 1e-12)))
        full.append(np.log(np.maximum(density, 1e-12)))
    length = math.log(nodes[1] / nodes[0])
    place = np.log(np.where(x_signs >= 0, bandwidths[0], bandwidths[1]) / nodes[0]) / length
    at_full = math.log(full_bandwidth / nodes[0]) / length
    return (
        np.exp((1.0 - place) * own[0] + place * own[1]),
        np.exp((1.0 - at_full) * full[0] + at_full * full[1])[:, None],
    )
