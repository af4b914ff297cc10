"""The variance of TopP&R, from its scores on random halves and quarters of real and fake.

A half or quarter has to estimate the same supports as the full sample. So each of P parts uses 1 / P of the neighbours
for its bandwidth, and the confidence band of the full sample, corrected for the density of the part. All parts are
scored in a few passes over the pairs of points.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from egtmetrics.metrics._topp_result import NO_F1_BELOW, TopPREvaluation, TopPRResult
from egtmetrics.metrics.subsampling import ClustersOfBoth, Floats, Subsamples, n_units, split_by_part
from egtmetrics.metrics.variance import PartsOfBoth, ScoreCovariance, ScoresOfParts, covariance_of_shares
from egtmetrics.ops import BackendName, Features, HostBackend, of_one_set, select_host_backend

_BAND_REPLICATES = 200
_THRESHOLD_DRAWS = 200
_DENSE_SHARE = 0.2
_BAND_EXPONENT = 0.4
"""The width of a band is proportional to this power of the density where that is highest.

A bootstrap deviates most where the density is highest. The deviation of a mean of K is proportional to the root of
E K^2 - p^2, which for small p is about the root of p. On bands of 60 to 200 samples in 8 and 24 dimensions we measured
powers of .34 to .45, and correlations of .82 to .95 with the mean density of the densest fifth. Most of the rest is the
noise of the bootstrap itself.
"""


def topp_variance(
    result: TopPRResult,
    real: Any,
    fake: Any,
    rng: np.random.Generator,
    *,
    parts: PartsOfBoth,
    clusters: ClustersOfBoth = (None, None),
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> ScoreCovariance | None:
    """Covariances of precision, recall and f1 over other samples, projections and bootstraps.

    None if the estimate would not match the metric: under ``compatibility``, and for given ``bootstrap_indices``.
    """
    if result.compatibility is not None or not result.own_draws or not result.projections:
        return None
    kernels = select_host_backend(backend, n_threads=n_threads)
    halves_and_quarters: list[list[Floats]] = []
    thresholds = []
    n_real, n_fake = 0.0, 0.0
    of_bands = rng.spawn(1)[0]  # the parts took more or fewer draws from the other one, by the sizes of both sets
    for matrix, evaluation in zip(result.projections, result.per_projection, strict=True):
        x, y = (
            sample if matrix is None else Subsamples(kernels.project(sample.points, matrix), sample.parts)
            for sample in parts
        )
        scores, under_other_thresholds, blocks = topp_scores(kernels, x, y, evaluation, result, of_bands)
        halves_and_quarters.append(scores)
        thresholds.append(under_other_thresholds)
        n_real += evaluation.n_real_kept / blocks[0]
        n_fake += evaluation.n_fake_kept / blocks[1]
    halves, quarters = (np.stack(scores) for scores in zip(*halves_and_quarters, strict=True))
    source = ScoresOfParts(
        halves=halves,
        quarters=quarters,
        per_projection=np.array([[e.precision, e.recall, e.f1] for e in result.per_projection]),
        thresholds=np.stack(thresholds),
    )
    shares, n_points = [result.precision, result.recall, result.f1], [n_fake, n_real, n_real + n_fake]
    real_units, fake_units = n_units(len(real), clusters[0]), n_units(len(fake), clusters[1])
    return covariance_of_shares(source, shares, n_points, [fake_units, real_units, real_units + fake_units])


def topp_scores(
    kernels: HostBackend,
    x: Subsamples,
    y: Subsamples,
    evaluation: TopPREvaluation,
    result: TopPRResult,
    rng: np.random.Generator,
) -> tuple[list[Floats], Floats, tuple[float, float]]:
    """Score the halves ``(2, 3 Q, 3)`` and quarters ``(4, Q, 3)``, and all rows under T other bands ``(T, 3)``.

    The last two numbers say how many real and how many fake points enter and leave a support together.
    """
    h_x, h_y = evaluation.real_bandwidth, evaluation.fake_bandwidth
    c_x, c_y = evaluation.real_confidence_band, evaluation.fake_confidence_band
    x_bandwidths = _bandwidths(kernels, x, h_x, evaluation.real_n_neighbors)
    y_bandwidths = _bandwidths(kernels, y, h_y, evaluation.fake_n_neighbors)
    own_x, own_y = _own_densities(kernels, x, x_bandwidths), _own_densities(kernels, y, y_bandwidths)
    at_x, at_y = _densities(kernels, x, y, y_bandwidths), _densities(kernels, y, x, x_bandwidths)
    halves_and_quarters, bands_by_size = [], []
    for n_parts, columns in x.by_size():
        x_parts, y_parts = x.parts[:, columns], y.parts[:, columns]
        density_x, density_y, fake_at_x, real_at_y = (
            split_by_part(values[:, columns], parts, n_parts)
            for values, parts in ((own_x, x_parts), (own_y, y_parts), (at_x, x_parts), (at_y, y_parts))
        )
        bands = c_x * _band_factors(density_x), c_y * _band_factors(density_y)
        halves_and_quarters.append(_scores(density_x, fake_at_x, density_y, real_at_y, *bands))
        bands_by_size.append(bands)
    factors = np.exp(
        np.stack(
            [
                _band_error(kernels, points, h, result.alpha, result.n_bootstrap, rng)
                for points, h in ((x.points, h_x), (y.points, h_y))
            ],
            axis=1,
        )
    )
    full_x, full_at_x, full_y, full_at_y = (
        kernels.kernel_density(at.points, of.points, bandwidth=h)[None, :, None]
        for at, of, h in ((x, x, h_x), (x, y, h_y), (y, y, h_y), (y, x, h_x))
    )
    others = [
        _scores(full_x, full_at_x, full_y, full_at_y, np.array([[c_x * a]]), np.array([[c_y * b]]))[0, 0]
        for a, b in factors
    ]
    x_bands, y_bands = bands_by_size[0]  # of the halves
    blocks = (
        max(_block_size(x, own_x, x_bands), _block_size(x, at_x, y_bands)),
        max(_block_size(y, own_y, y_bands), _block_size(y, at_y, x_bands)),
    )
    return halves_and_quarters, np.array(others), blocks


def _block_size(points: Subsamples, densities: Floats, bands: Floats) -> float:
    """How many points enter and leave a support together: the design effect of their number, 1 at least.

    That is its variance over splits into halves, in units of that of independent points. A small cluster of points
    falls out of a support as a whole, so it counts as one point where points are too few to show that in every split.
    """
    columns = points.pairs_of_halves
    own_bands = np.take_along_axis(bands, points.parts[:, columns].astype(np.intp), axis=0)
    inside = densities[:, columns] > own_bands
    often = inside.mean(axis=1)
    independent = float((often * (1.0 - often)).sum())
    return max(1.0, float(inside.sum(axis=0).var(ddof=1)) / independent) if independent > 0.0 else 1.0


def _scores(own_x: Floats, at_x: Floats, own_y: Floats, at_y: Floats, x_band: Floats, y_band: Floats) -> Floats:
    """Precision, recall and f1 ``(P, C, 3)`` from densities ``(P, n, C)`` and bands ``(P, C)``."""

    def share(own: Floats, own_band: Floats, other: Floats, other_band: Floats) -> Floats:
        kept = own > own_band[:, None]
        covered: Floats = (kept & (other > other_band[:, None])).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
        return covered

    precision, recall = share(own_y, y_band, at_y, x_band), share(own_x, x_band, at_x, y_band)
    low = np.minimum(precision, recall) <= NO_F1_BELOW
    f1 = np.where(low, 0.0, 2.0 * precision * recall / np.where(low, 1.0, precision + recall))
    return np.stack([precision, recall, f1], axis=-1)


def _band_factors(densities: Floats) -> Floats:
    """Ratio of the confidence band of a full sample like each part to that of all parts, ``(P, C)``."""
    n_dense = max(1, round(_DENSE_SHARE * densities.shape[1]))
    dense = np.log(np.partition(densities, -n_dense, axis=1)[:, -n_dense:].mean(axis=1))
    factors: Floats = np.exp(_BAND_EXPONENT * (dense - dense.mean()))
    return factors


@of_one_set
def _band_error(
    kernels: HostBackend, points: Features, bandwidth: float, alpha: float, n_bootstrap: int, rng: np.random.Generator
) -> Floats:
    """Logarithms of factors by which T other bootstraps would change the confidence band, ``(T,)``.

    The error of the quantile falls with the root of the number of replicates. So it is measured at few replicates and
    scaled to many.
    """
    seed = int(rng.integers(2**63))
    counts = kernels.bootstrap_counts(n_rows=points.shape[0], n_replicates=_BAND_REPLICATES, seed=seed)
    _, deviations = kernels.kernel_density_band(points, counts, bandwidth=bandwidth)
    drawn = rng.choice(deviations, size=(_THRESHOLD_DRAWS, _BAND_REPLICATES))
    quantiles = np.quantile(drawn, 1.0 - alpha, axis=1)
    errors: Floats = np.log(np.maximum(quantiles, 1e-300))
    scaled: Floats = (errors - errors.mean()) * math.sqrt(_BAND_REPLICATES / n_bootstrap)
    return scaled


@of_one_set
def _bandwidths(kernels: HostBackend, sample: Subsamples, bandwidth: float, n_neighbors: int) -> Floats:
    """Bandwidth of every part ``(4, C)``; NaN for parts 2 and 3 where the parts are halves."""
    n = sample.points.shape[0]
    bandwidths = np.full((4, sample.parts.shape[1]), math.nan)
    if bandwidth == 0.0:
        return np.zeros_like(bandwidths)
    k = np.minimum(-(-n_neighbors // sample.n_parts), n // sample.n_parts - 1)
    radii = np.sqrt(kernels.split_kth_neighbor(sample.points, sample.parts, n_neighbors=k))
    for n_parts, columns in sample.by_size():
        by_part = split_by_part(radii[:, columns], sample.parts[:, columns], n_parts)
        bandwidths[:n_parts, columns] = np.median(by_part, axis=1)
    return bandwidths


@of_one_set
def _own_densities(kernels: HostBackend, x: Subsamples, bandwidths: Floats) -> Floats:
    return _densities(kernels, x, x, bandwidths)


def _densities(kernels: HostBackend, x: Subsamples, y: Subsamples, bandwidths: Floats) -> Floats:
    """Density at each x of those y that are in its part, with the bandwidth of that part, ``(n, C)``.

    It is computed at the smallest and the largest bandwidth and interpolated between them on logarithmic scales, where
    it is nearly linear.
    """
    n_pairs = x.pairs_of_halves.stop
    x_signs, y_signs = (1 - 2 * side.parts[:, :n_pairs].astype(np.int8) for side in (x, y))
    counts = (y_signs + 1).astype(np.uint16)

    def logarithms(node: float) -> Floats:
        density, deviation = kernels.resampled_density(x.points, y.points, counts, bandwidth=node)
        deviation = deviation * x_signs
        of_quarters = deviation.reshape(len(density), 3, -1).sum(axis=1)
        own: Floats = density[:, None] + np.concatenate([deviation, of_quarters], axis=1)
        return np.log(np.maximum(own, 1e-12))

    low, high = (float(limit) for limit in (np.nanmin(bandwidths), np.nanmax(bandwidths)))
    at_low = logarithms(low)
    if low == high:
        return np.exp(at_low)
    place = np.log(np.take_along_axis(bandwidths, x.parts.astype(np.intp), axis=0) / low) / math.log(high / low)
    return np.exp(at_low + place * (logarithms(high) - at_low))
