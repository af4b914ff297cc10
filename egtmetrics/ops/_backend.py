"""The primitives every metric is built from, as one protocol that each backend implements."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32] | NDArray[np.float64]
"""C-contiguous ``(n, d)`` array, float32 or float64, finite; two arrays in one call share the dtype.

For a backend with a device it is a torch tensor of that kind instead. Type checkers see the NumPy one; what lies
between the check of the arguments and a backend asks for its length and shape only, and leaves the rest to
``take_rows``, ``join_rows`` and ``to_host``.
"""


SqRange: TypeAlias = tuple[float, float]
ANY_RADIUS: SqRange = (-1.0, math.inf)


class BallCounts(NamedTuple):
    """Integer counts of one pass over all pairs ``(x_i, y_j)``; of length 0 where the radii were not given.

    ``x_ball_sizes[i]`` is how many y lie in the ball of ``x_i``; ``y_in_x_balls[j]`` in how many x balls
    ``y_j`` lies; the other two are the same with the roles exchanged.
    """

    x_ball_sizes: NDArray[np.int64]
    y_in_x_balls: NDArray[np.int64]
    y_ball_sizes: NDArray[np.int64]
    x_in_y_balls: NDArray[np.int64]


class Divergences(NamedTuple):
    """Which f-divergences to compute: ``(F,)`` codes as in csrc/include/egt/divergence.hpp, and their parameters."""

    codes: NDArray[np.int32]
    parameters: NDArray[np.float64]


class SplitCounts(NamedTuple):
    """Integer counts ``(n, R)`` and ``(m, R)`` of one pass over all pairs ``(x_i, y_j)`` under R splits."""

    x_ball_sizes: NDArray[np.int32]
    y_in_x_balls: NDArray[np.int32]


class Backend(Protocol):
    """Array-to-array primitives. Every distance is Euclidean, and every distance that decides something is exact.

    ``y=None`` stands for x itself with the pair ``(i, i)`` left out. Squared distances are returned as the float64
    sum of squared differences of the inputs, so that a comparison of two of them is a comparison of float64 numbers
    and never of rounded float32 products.
    """

    @property
    def name(self) -> str:
        """``"cpu"``, ``"cuda"`` or ``"reference"``: what a result records."""
        ...

    @property
    def device(self) -> str | None:
        """Where features must lie, in torch's words (``"cuda:0"``); None for NumPy arrays. All else is NumPy."""
        ...

    def kth_neighbor(
        self,
        x: Features,
        y: Features | None = None,
        *,
        n_neighbors: int,
        sq_range: SqRange = ANY_RADIUS,
    ) -> NDArray[np.float64]:
        """Squared distance of each x to its ``n_neighbors``-th nearest y, shape ``(n,)``.

        With ``sq_range = (floor, limit)`` it is 0 where it is not above floor, and infinity where it is above limit: a
        narrow range saves most of the work for large ``n_neighbors``.
        """
        ...

    def grouped_kth_neighbor(
        self,
        x: Features,
        y: Features | None = None,
        *,
        x_offsets: NDArray[np.int64],
        y_offsets: NDArray[np.int64] | None = None,
        n_neighbors: int,
    ) -> NDArray[np.float64]:
        """``kth_neighbor`` for G groups in one call, rows sorted by group.

        Rows ``x_offsets[g]:x_offsets[g + 1]`` of x look among rows ``y_offsets[g]:y_offsets[g + 1]`` of y, or among
        their own group without themselves where y is None.
        """
        ...

    def neighbors(
        self, x: Features, y: Features | None = None, *, n_neighbors: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Squared distances ``(n, k)``, ascending, and the rows of y they belong to (ties: lower row first)."""
        ...

    def ball_counts(
        self,
        x: Features,
        y: Features | None = None,
        *,
        x_sq_radii: NDArray[np.float64] | None = None,
        y_sq_radii: NDArray[np.float64] | None = None,
        closed: bool,
    ) -> BallCounts:
        """Memberships of every point in every ball; ``closed`` takes ``<=`` for ``<``. At least one radius array."""
        ...

    def kernel_density(self, x: Features, y: Features, *, bandwidth: float) -> NDArray[np.float64]:
        """``mean_j K(|x_i - y_j| / h)``, ``K(u) = cos(pi u / 2)`` for ``u <= 1`` else 0; at h = 0, K is [u = 0]."""
        ...

    def kernel_density_band(
        self, x: Features, counts: NDArray[np.uint16], *, bandwidth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Density p of x at its own points, and ``max_i |p_i - p_b,i|`` for each bootstrap replicate b.

        ``counts`` is ``(n, B)``: how often replicate b drew row j; ``p_b,i = sum_j counts[j, b] K_ij / n``. The density
        has the same bits as ``kernel_density(x, x, bandwidth=h)``, or a set compared with itself would not score 1.
        """
        ...

    def soft_ball_product(self, x: Features, y: Features, *, radius: float) -> NDArray[np.float64]:
        """``prod_j min(1, |x_i - y_j| / R)``: the chance that no soft ball of radius R around a y covers ``x_i``."""
        ...

    def project(self, x: Features, matrix: NDArray[np.float64]) -> Features:
        """``x @ matrix.T`` in float64, ``(n, k)`` features for a matrix ``(k, d)``: equal rows of x stay equal."""
        ...

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
        """f-divergences ``(G, F)`` of histograms ``(G, K)``, in nats, and their bootstrap ``(G, F, n_replicates)``.

        A replicate redraws both histograms of a group, as many draws as counts. The draws are exactly multinomial and
        the same on every backend: integer arithmetic on Philox words, see csrc/include/egt/divergence.hpp.
        """
        ...


class HostBackend(Backend, Protocol):
    """What resampling needs besides, on the host only: a CUDA backend hands its features to one of these."""

    def resampled_density(
        self, x: Features, y: Features, counts: NDArray[np.uint16], *, bandwidth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Density p of y at every x, and ``p_b - p`` for each resampling b of y, shape ``(n, R)``.

        ``counts`` is ``(m, R)``: how often resampling b holds row j of y; ``p_b,i = sum_j counts[j, b] K_ij / m``.
        """
        ...

    def split_kth_neighbor(
        self, x: Features, parts: NDArray[np.uint8], *, n_neighbors: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Squared distance of every row to the k-th nearest other row of its own part, for R splits into parts.

        ``parts`` ``(n, R)`` numbers the parts from 0, n at least 2; ``n_neighbors`` ``(R,)`` has the k of every split.
        Infinity where a part has too few rows. Fast where the parts of a split are about equally large.
        """
        ...

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
        """``ball_counts`` of R splits: those pairs count which split b puts on one side, with the radii of split b.

        ``x_sq_radii`` and ``x_sides`` are ``(n, R)``, ``y_sides`` is ``(m, R)``. A negative radius holds nothing.
        """
        ...
