"""The primitives every metric is built from: each is declared once, here, and every backend implements these protocols.

A signature is the whole declaration. Annotations give the dtype of every array, its lengths by name, and what a length
of a result depends on; ``egtmetrics.ops._primitives`` reads them, and the CPU kernels, the CUDA kernels and the torch
operators take their arguments from there.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32] | NDArray[np.float64]
"""C-contiguous ``(n, d)`` array, float32 or float64, finite; two arrays in one call share the dtype.

For a backend with a device it is a torch tensor of that kind instead. Type checkers see the NumPy one; after the
check of the arguments, metrics use its length and shape only, and ``take_rows``, ``join_rows`` and ``to_host``.
"""


class Shape:
    """Lengths of an array: ``n``, ``m`` and ``d`` are those of x and y, others are named where they first occur."""

    def __init__(
        self, *lengths: str, on_host: bool = False, stays: bool = False, empty_without: str | None = None
    ) -> None:
        self.lengths = lengths
        self.on_host = on_host
        """The kernels read it on the host, even if everything else is on a device."""
        self.stays = stays
        """A result for another primitive: a backend with a device leaves it there, as it does features."""
        self.empty_without = empty_without
        """A result has length 0 where this argument is not given."""


SqRange: TypeAlias = tuple[float, float]
ANY_RADIUS: SqRange = (-1.0, math.inf)


class BallCounts(NamedTuple):
    """Integer counts of one pass over all pairs ``(x_i, y_j)``; of length 0 where the radii were not given.

    ``x_ball_sizes[i]`` is how many y lie in the ball of ``x_i``; ``y_in_x_balls[j]`` in how many x balls
    ``y_j`` lies; the other two are the same with the roles exchanged.
    """

    x_ball_sizes: Annotated[NDArray[np.int64], Shape("n", empty_without="x_sq_radii")]
    y_in_x_balls: Annotated[NDArray[np.int64], Shape("m", empty_without="x_sq_radii")]
    y_ball_sizes: Annotated[NDArray[np.int64], Shape("m", empty_without="y_sq_radii")]
    x_in_y_balls: Annotated[NDArray[np.int64], Shape("n", empty_without="y_sq_radii")]


class Divergences(NamedTuple):
    """Which f-divergences to compute: ``(F,)`` codes as in csrc/include/egt/divergence.hpp, and their parameters."""

    codes: Annotated[NDArray[np.int32], Shape("F", on_host=True)]
    parameters: Annotated[NDArray[np.float64], Shape("F", on_host=True)]


class SplitCounts(NamedTuple):
    """Integer counts ``(n, R)`` and ``(m, R)`` of one pass over all pairs ``(x_i, y_j)`` under R splits."""

    x_ball_sizes: Annotated[NDArray[np.int32], Shape("n", "R")]
    y_in_x_balls: Annotated[NDArray[np.int32], Shape("m", "R")]


class Backend(Protocol):
    """What a metric may call. Every distance is Euclidean, and every distance that decides something is exact.

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
        """Where features must lie, as torch names it (``"cuda:0"``); None for NumPy arrays. All else is NumPy.

        Results that are declared to stay are the exception: they are for primitives of the same backend.
        """
        ...

    def kth_neighbor(
        self,
        x: Features,
        y: Features | None = None,
        *,
        n_neighbors: int,
        sq_range: SqRange = ANY_RADIUS,
    ) -> Annotated[NDArray[np.float64], Shape("n")]:
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
        x_offsets: Annotated[NDArray[np.int64], Shape("G + 1", on_host=True)],
        y_offsets: Annotated[NDArray[np.int64], Shape("G + 1", on_host=True)] | None = None,
        n_neighbors: int,
    ) -> Annotated[NDArray[np.float64], Shape("n")]:
        """``kth_neighbor`` for G groups in one call, rows sorted by group.

        Rows ``x_offsets[g]:x_offsets[g + 1]`` of x have their neighbours among rows ``y_offsets[g]:y_offsets[g + 1]``
        of y; where y is None, among their own group without themselves.
        """
        ...

    def ball_counts(
        self,
        x: Features,
        y: Features | None = None,
        *,
        x_sq_radii: Annotated[NDArray[np.float64], Shape("n")] | None = None,
        y_sq_radii: Annotated[NDArray[np.float64], Shape("m")] | None = None,
        closed: bool,
    ) -> BallCounts:
        """Memberships of every point in every ball; ``closed`` takes ``<=`` for ``<``. At least one radius array."""
        ...

    def kernel_density(
        self, x: Features, y: Features, *, bandwidth: float
    ) -> Annotated[NDArray[np.float64], Shape("n")]:
        """``mean_j K(|x_i - y_j| / h)``, ``K(u) = cos(pi u / 2)`` for ``u <= 1`` else 0; at h = 0, K is [u = 0]."""
        ...

    def kernel_density_band(
        self, x: Features, counts: Annotated[NDArray[np.uint16], Shape("n", "B")], *, bandwidth: float
    ) -> tuple[Annotated[NDArray[np.float64], Shape("n")], Annotated[NDArray[np.float64], Shape("B")]]:
        """Density p of x at its own points, and ``max_i |p_i - p_b,i|`` for each bootstrap replicate b.

        ``counts`` is ``(n, B)``: how often replicate b drew row j; ``p_b,i = sum_j counts[j, b] K_ij / n``. The density
        has the same bits as ``kernel_density(x, x, bandwidth=h)``, or a set compared with itself would not score 1.
        """
        ...

    def bootstrap_counts(
        self, *, n_rows: int, n_replicates: int, seed: int
    ) -> Annotated[NDArray[np.uint16], Shape("n_rows", "n_replicates", stays=True)]:
        """How often each bootstrap replicate draws each of ``n_rows`` rows, ``(n_rows, n_replicates)``.

        A replicate makes ``n_rows`` draws with replacement. They are the same on every backend, and replicate b is the
        same among any number of replicates: integer arithmetic on Philox words, see csrc/include/egt/bootstrap.hpp.
        """
        ...

    def soft_ball_product(
        self, x: Features, y: Features, *, radius: float
    ) -> Annotated[NDArray[np.float64], Shape("n")]:
        """``prod_j min(1, |x_i - y_j| / R)``: the chance that no soft ball of radius R around a y covers ``x_i``."""
        ...

    def project(
        self, x: Features, matrix: Annotated[NDArray[np.float64], Shape("k", "d")]
    ) -> Annotated[Features, Shape("n", "k")]:
        """``x @ matrix.T`` in float64, ``(n, k)`` features for a matrix ``(k, d)``: equal rows of x stay equal."""
        ...

    def divergence_bootstrap(
        self,
        p_counts: Annotated[NDArray[np.int64], Shape("G", "K")],
        q_counts: Annotated[NDArray[np.int64], Shape("G", "K")],
        divergences: Divergences,
        *,
        smoothing: float = 0.0,
        n_replicates: int = 0,
        seed: int = 0,
    ) -> tuple[
        Annotated[NDArray[np.float64], Shape("G", "F")], Annotated[NDArray[np.float64], Shape("G", "F", "n_replicates")]
    ]:
        """f-divergences ``(G, F)`` of histograms ``(G, K)``, in nats, and their bootstrap ``(G, F, n_replicates)``.

        A replicate redraws both histograms of a group, as many draws as counts. The draws are exactly multinomial and
        the same on every backend: integer arithmetic on Philox words, see csrc/include/egt/divergence.hpp.
        """
        ...


class LocalBackend(Backend, Protocol):
    """For all rows in one process. Where a set is spread over processes, each of them has one of these."""

    def neighbors(
        self, x: Features, y: Features | None = None, *, n_neighbors: int
    ) -> tuple[
        Annotated[NDArray[np.float64], Shape("n", "n_neighbors")],
        Annotated[NDArray[np.int64], Shape("n", "n_neighbors")],
    ]:
        """Squared distances ``(n, k)``, ascending, and the rows of y they belong to (ties: lower row first)."""
        ...


class HostBackend(LocalBackend, Protocol):
    """In host memory, with what resampling needs in addition: features on a device are copied for it."""

    def resampled_density(
        self, x: Features, y: Features, counts: Annotated[NDArray[np.uint16], Shape("m", "R")], *, bandwidth: float
    ) -> tuple[Annotated[NDArray[np.float64], Shape("n")], Annotated[NDArray[np.float64], Shape("n", "R")]]:
        """Density p of y at every x, and ``p_b - p`` for each resampling b of y, shape ``(n, R)``.

        ``counts`` is ``(m, R)``: how often resampling b holds row j of y; ``p_b,i = sum_j counts[j, b] K_ij / m``.
        """
        ...

    def split_kth_neighbor(
        self,
        x: Features,
        parts: Annotated[NDArray[np.uint8], Shape("n", "R")],
        *,
        n_neighbors: Annotated[NDArray[np.int64], Shape("R")],
    ) -> Annotated[NDArray[np.float64], Shape("n", "R")]:
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
        x_sq_radii: Annotated[NDArray[np.float64], Shape("n", "R")],
        x_sides: Annotated[NDArray[np.uint8], Shape("n", "R")],
        y_sides: Annotated[NDArray[np.uint8], Shape("m", "R")],
        closed: bool,
    ) -> SplitCounts:
        """``ball_counts`` of R splits: those pairs count which split b puts on one side, with the radii of split b.

        ``x_sq_radii`` and ``x_sides`` are ``(n, R)``, ``y_sides`` is ``(m, R)``. A negative radius holds nothing.
        """
        ...
