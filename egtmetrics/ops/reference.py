"""The primitives in NumPy and float64: the oracle of every kernel, and the fallback where none can be loaded.

Squared distances come from differences, never from the expanded square, so nothing cancels; memory is bounded by
handling a block of rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops._backend import ANY_RADIUS, BallCounts, Divergences, Features, SplitCounts, SqRange
from egtmetrics.ops._multinomial import bootstrap_counts, multinomial_bootstrap

_BLOCK_BYTES = 1 << 25


def _sq_distance_blocks(x: Features, y: Features | None) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Blocks of rows of the matrix ``|x_i - y_j|^2``; with ``y=None`` its diagonal is infinite."""
    points = x if y is None else y
    n, d = x.shape
    step = max(1, _BLOCK_BYTES // (8 * points.shape[0] * d))
    points64 = points.astype(np.float64)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        difference = x[rows, None, :].astype(np.float64) - points64[None, :, :]
        block = np.einsum("ijk,ijk->ij", difference, difference)
        if y is None:
            block[np.arange(block.shape[0]), np.arange(rows.start, rows.stop)] = np.inf
        yield rows, block


def _cosine_kernel(sq_distances: NDArray[np.float64], bandwidth: float) -> NDArray[np.float64]:
    values: NDArray[np.float64]
    if bandwidth == 0.0:
        values = (sq_distances == 0.0).astype(np.float64)
        return values
    u = np.sqrt(sq_distances) / bandwidth
    values = np.cos(0.5 * np.pi * np.minimum(u, 1.0))
    values[u >= 1.0] = 0.0
    return values


def project(x: Features, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """``x @ matrix.T`` in float64, a block of rows at a time.

    Not by a BLAS product, which rounds a row by its place in the block.
    """
    # einsum sums a single product in pieces, so one of one row and one direction would round differently
    directions = matrix if len(matrix) > 1 else np.repeat(matrix, 2, axis=0)
    projected = np.empty((len(x), len(directions)))
    step = max(1, _BLOCK_BYTES // (8 * x.shape[1]))
    for start in range(0, x.shape[0], step):
        rows = slice(start, start + step)
        np.einsum("nd,kd->nk", x[rows].astype(np.float64), directions, out=projected[rows], optimize=False)
    return np.ascontiguousarray(projected[:, : len(matrix)])


class ReferenceBackend:
    """NumPy implementation of :class:`egtmetrics.ops.HostBackend`."""

    name = "reference"
    device = None

    def kth_neighbor(
        self,
        x: Features,
        y: Features | None = None,
        *,
        n_neighbors: int,
        sq_range: SqRange = ANY_RADIUS,
    ) -> NDArray[np.float64]:
        radii = np.empty(x.shape[0])
        for rows, block in _sq_distance_blocks(x, y):
            radii[rows] = np.partition(block, n_neighbors - 1, axis=1)[:, n_neighbors - 1]
        radii[radii <= sq_range[0]] = 0.0
        radii[radii > sq_range[1]] = np.inf
        return radii

    def grouped_kth_neighbor(
        self,
        x: Features,
        y: Features | None = None,
        *,
        x_offsets: NDArray[np.int64],
        y_offsets: NDArray[np.int64] | None = None,
        n_neighbors: int,
    ) -> NDArray[np.float64]:
        radii = np.empty(x.shape[0])
        for g in range(len(x_offsets) - 1):
            rows = slice(x_offsets[g], x_offsets[g + 1])
            others = None if y is None or y_offsets is None else y[y_offsets[g] : y_offsets[g + 1]]
            radii[rows] = self.kth_neighbor(x[rows], others, n_neighbors=n_neighbors)
        return radii

    def neighbors(
        self, x: Features, y: Features | None = None, *, n_neighbors: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        distances = np.empty((x.shape[0], n_neighbors))
        indices = np.empty((x.shape[0], n_neighbors), dtype=np.int64)
        for rows, block in _sq_distance_blocks(x, y):
            order = np.argsort(block, axis=1, kind="stable")[:, :n_neighbors]
            indices[rows] = order
            distances[rows] = np.take_along_axis(block, order, axis=1)
        return distances, indices

    def ball_counts(
        self,
        x: Features,
        y: Features | None = None,
        *,
        x_sq_radii: NDArray[np.float64] | None = None,
        y_sq_radii: NDArray[np.float64] | None = None,
        closed: bool,
    ) -> BallCounts:
        n, m = x.shape[0], (x if y is None else y).shape[0]

        def inside(sq_distances: NDArray[np.float64], sq_radii: NDArray[np.float64]) -> NDArray[np.bool_]:
            member = sq_distances <= sq_radii if closed else sq_distances < sq_radii
            return member & (sq_distances < np.inf)  # a point itself, where the radius is infinite too

        x_sizes, y_in_x = np.zeros(n, dtype=np.int64), np.zeros(m, dtype=np.int64)
        y_sizes, x_in_y = np.zeros(m, dtype=np.int64), np.zeros(n, dtype=np.int64)
        for rows, block in _sq_distance_blocks(x, y):
            if x_sq_radii is not None:
                member = inside(block, x_sq_radii[rows, None])
                x_sizes[rows] = member.sum(axis=1)
                y_in_x += member.sum(axis=0)
            if y_sq_radii is not None:
                member = inside(block, y_sq_radii[None, :])
                x_in_y[rows] = member.sum(axis=1)
                y_sizes += member.sum(axis=0)
        nothing = np.empty(0, dtype=np.int64)
        return BallCounts(
            *((nothing, nothing) if x_sq_radii is None else (x_sizes, y_in_x)),
            *((nothing, nothing) if y_sq_radii is None else (y_sizes, x_in_y)),
        )

    def kernel_density(self, x: Features, y: Features, *, bandwidth: float) -> NDArray[np.float64]:
        density = np.empty(x.shape[0])
        for rows, block in _sq_distance_blocks(x, y):
            density[rows] = _cosine_kernel(block, bandwidth).mean(axis=1)
        return density

    def kernel_density_band(
        self, x: Features, counts: NDArray[np.uint16], *, bandwidth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        n = x.shape[0]
        density = np.empty(n)
        deviation = np.zeros(counts.shape[1])
        weights = counts.astype(np.float64)
        for rows, block in _sq_distance_blocks(x, x):
            kernel = _cosine_kernel(block, bandwidth)
            density[rows] = kernel.mean(axis=1)
            replicates = kernel @ weights / n
            np.maximum(deviation, np.abs(replicates - density[rows, None]).max(axis=0), out=deviation)
        return density, deviation

    def bootstrap_counts(self, *, n_rows: int, n_replicates: int, seed: int) -> NDArray[np.uint16]:
        return bootstrap_counts(n_rows, n_replicates, seed)

    def soft_ball_product(self, x: Features, y: Features, *, radius: float) -> NDArray[np.float64]:
        product = np.empty(x.shape[0])
        for rows, block in _sq_distance_blocks(x, y):
            if radius == 0.0:
                product[rows] = (block > 0.0).all(axis=1)
            else:
                product[rows] = np.minimum(np.sqrt(block) / radius, 1.0).prod(axis=1)
        return product

    def project(self, x: Features, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return project(x, matrix)

    def divergence_bootstrap(
        self,
        p_counts: NDArray[np.int64],
        q_counts: NDArray[np.int64],
        divergences: Divergences,
        *,
        smoothing: float = 0.0,
        n_replicates: int = 0,
        seed: int = 0,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        n_groups, n_divergences = len(p_counts), len(divergences.codes)
        values = np.empty((n_groups, n_divergences))
        replicates = np.empty((n_groups, n_divergences, n_replicates))
        for group, sides in enumerate(zip(p_counts, q_counts, strict=True)):
            drawn = [
                multinomial_bootstrap(counts, n_replicates, group=group, side=side, seed=seed)
                for side, counts in enumerate(sides)
            ]
            for f, (code, parameter) in enumerate(zip(*divergences, strict=True)):
                values[group, f] = _divergence(code, parameter, *(_pmf(counts, smoothing) for counts in sides))
                replicates[group, f] = _divergence(code, parameter, *(_pmf(counts, smoothing) for counts in drawn))
        return values, replicates

    def resampled_density(
        self, x: Features, y: Features, counts: NDArray[np.uint16], *, bandwidth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        density, deviation = np.empty(x.shape[0]), np.empty((x.shape[0], counts.shape[1]))
        excess = counts.astype(np.float64) - 1.0
        for rows, block in _sq_distance_blocks(x, y):
            kernel = _cosine_kernel(block, bandwidth)
            density[rows] = kernel.mean(axis=1)
            deviation[rows] = kernel @ excess / y.shape[0]
        return density, deviation

    def split_kth_neighbor(
        self, x: Features, parts: NDArray[np.uint8], *, n_neighbors: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        radii = np.empty(parts.shape)
        for rows, block in _sq_distance_blocks(x, None):
            for b, k in enumerate(n_neighbors):
                others = np.where(parts[rows, b, None] == parts[:, b], block, np.inf)
                radii[rows, b] = np.partition(others, k - 1, axis=1)[:, k - 1]
        return radii

    def split_ball_counts(
        self,
        x: Features,
        y: Features,
        *,
        x_sq_radii: NDArray[np.float64],
        x_sides: NDArray[np.uint8],
        y_sides: NDArray[np.uint8],
        closed: bool,
    ) -> SplitCounts:
        sizes, memberships = np.zeros(x_sides.shape, dtype=np.int32), np.zeros(y_sides.shape, dtype=np.int32)
        for rows, block in _sq_distance_blocks(x, y):
            for b in range(x_sides.shape[1]):
                radii = x_sq_radii[rows, b, None]
                member = block <= radii if closed else block < radii
                member &= x_sides[rows, b, None] == y_sides[:, b]
                sizes[rows, b] = member.sum(axis=1)
                memberships[:, b] += member.sum(axis=0, dtype=np.int32)
        return SplitCounts(sizes, memberships)


def _pmf(counts: NDArray[np.int64], smoothing: float) -> NDArray[np.float64]:
    smoothed = counts + smoothing
    pmf: NDArray[np.float64] = smoothed / smoothed.sum(axis=-1, keepdims=True)
    return pmf


def _divergence(code: int, a: float, p: NDArray[np.float64], q: NDArray[np.float64]) -> Any:
    """``sum q f(p / q)`` over the last axis: q f(0) where p = 0 < q, p times the slope at infinity where q = 0 < p."""
    shared = (p > 0) & (q > 0)
    t = np.divide(p, q, out=np.ones(shared.shape), where=shared)
    with np.errstate(divide="ignore", invalid="ignore"):  # a = 0 and a = 1 are other codes
        f, at_zero, slope = {
            0: (t * np.log(t), 0.0, math.inf),
            1: (-np.log(t), math.inf, 0.0),
            2: (t * np.log(t) - (t + 1) * np.log((t + 1) / 2), math.log(2), math.log(2)),
            3: ((t - 1) * np.log(t), math.inf, math.inf),
            4: (np.abs(t - 1) / 2, 0.5, 0.5),
            5: ((t - 1) ** 2, 1.0, math.inf),
            6: ((1 - t) ** 2 / t, math.inf, 1.0),
            7: ((np.sqrt(t) - 1) ** 2, 1.0, 1.0),
            8: ((t - 1) ** 2 / (2 * (t + 1)), 0.5, 0.5),
            9: (
                (t**a - a * t - (1 - a)) / np.float64(a * (a - 1)),
                1 / np.float64(a) if a > 0 else math.inf,
                1 / np.float64(1 - a) if a < 1 else math.inf,
            ),
            10: (np.maximum(t - a, 0) - max(1 - a, 0), -max(1 - a, 0), 1.0),
            11: (np.maximum(a * t, 1) - max(a, 1), 1 - max(a, 1), a),
        }[int(code)]
    total = np.where(shared, q * f, 0.0).sum(axis=-1)
    for mass, factor in (np.where(p > 0, 0.0, q), at_zero), (np.where(q > 0, 0.0, p), slope):
        alone = mass.sum(axis=-1)
        total = total + np.multiply(alone, factor, out=np.zeros(alone.shape), where=alone > 0)
    return total
