"""The only importer of the compiled modules: loads each once, hands out raw calls, says how it was built."""

from __future__ import annotations

import importlib
import math
import os
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops._backend import ANY_RADIUS, BallCounts, Divergences, Features, SplitCounts, SqRange
from egtmetrics.ops.reference import project


@cache
def native_module() -> ModuleType:
    """Import the compiled CPU kernels; ImportError says why they cannot load."""
    return importlib.import_module("egtmetrics.ops._cpu")


@cache
def cuda_module() -> ModuleType:
    """Import the compiled CUDA kernels, which needs no device; ImportError says why they cannot load."""
    return importlib.import_module("egtmetrics.ops._cuda")


class CpuBackend:
    """The compiled CPU kernels behind :class:`egtmetrics.ops.HostBackend`."""

    name = "cpu"
    device = None

    def __init__(self, module: Any, n_threads: int | None) -> None:
        self._module = module
        self._n_threads = len(os.sched_getaffinity(0)) if n_threads is None else n_threads

    def kth_neighbor(
        self,
        x: Features,
        y: Features | None = None,
        *,
        n_neighbors: int,
        sq_range: SqRange = ANY_RADIUS,
    ) -> NDArray[np.float64]:
        radii: NDArray[np.float64] = self._module.kth_neighbor(x, y, n_neighbors, *sq_range, self._n_threads)
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
        radii: NDArray[np.float64] = self._module.grouped_kth_neighbor(
            x, y, x_offsets, y_offsets, n_neighbors, self._n_threads
        )
        return radii

    def neighbors(
        self, x: Features, y: Features | None = None, *, n_neighbors: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        distances, indices = self._module.neighbors(x, y, n_neighbors, self._n_threads)
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
        return BallCounts(*self._module.ball_counts(x, y, x_sq_radii, y_sq_radii, closed, self._n_threads))

    def kernel_density(self, x: Features, y: Features, *, bandwidth: float) -> NDArray[np.float64]:
        density: NDArray[np.float64] = self._module.kernel_density(x, y, bandwidth, self._n_threads)
        return density

    def kernel_density_band(
        self, x: Features, counts: NDArray[np.uint16], *, bandwidth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        density, deviation = self._module.kernel_density_band(x, counts, bandwidth, self._n_threads)
        return density, deviation

    def soft_ball_product(self, x: Features, y: Features, *, radius: float) -> NDArray[np.float64]:
        product: NDArray[np.float64] = self._module.soft_ball_product(x, y, radius, self._n_threads)
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
        values, replicates = self._module.divergence_bootstrap(
            p_counts, q_counts, *divergences, smoothing, n_replicates, seed, self._n_threads
        )
        return values, replicates

    def resampled_density(
        self, x: Features, y: Features, counts: NDArray[np.uint16], *, bandwidth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        density, deviation = self._module.resampled_density(x, y, counts, bandwidth, self._n_threads)
        return density, deviation

    def split_kth_neighbor(
        self, x: Features, parts: NDArray[np.uint8], *, n_neighbors: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        # The k-th neighbour in one of P equal parts is about the Pk-th of all, with a variance of k P (P - 1).
        n_parts = parts.max(axis=0, initial=0).astype(np.int64) + 1
        places = n_neighbors * n_parts
        depth = math.ceil(float((places + 7.0 * np.sqrt(places * (n_parts - 1))).max(initial=1.0)))
        while True:
            depth = min(depth, len(x) - 1)
            radii: NDArray[np.float64] = self._module.split_kth_neighbor(x, parts, n_neighbors, depth, self._n_threads)
            if depth == len(x) - 1 or np.isfinite(radii).all():
                return radii
            depth *= 2

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
        return SplitCounts(*self._module.split_ball_counts(x, y, x_sq_radii, x_sides, y_sides, closed, self._n_threads))
