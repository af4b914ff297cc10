"""Features whose rows are spread over processes, and the primitives on them: shards go round a ring, results to all.

Nothing here uses torch. An :class:`Exchange` carries the bytes; ``egtmetrics.distributed`` has the one for torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops._backend import ANY_RADIUS, BallCounts, Features, HostBackend, LocalBackend, SqRange
from egtmetrics.ops._device import join_rows, take_rows, to_host

_BLOCK_BYTES = 1 << 25
_BAND_BYTES = 1 << 28
"""Bound on the sums of bootstrap replicates that a rank holds at a time; more replicates mean more rounds."""


class Exchange(Protocol):
    """Communication of the ranks of a group. All ranks must make the same calls, but for ``rank`` and ``size``."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def step(self, what: str, *arguments: Any) -> AbstractContextManager[None]:
        """Enter a computation with equal arguments on all ranks, and leave it together.

        ValueError where arguments differ. If a rank fails or ends inside, all others raise an error that names it.
        """
        ...

    def tiles(self, local: Any, counts: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
        """Yield every rank and its rows, this rank first; ``counts[r]`` is how many rows rank r has.

        The rows of another rank are valid until the next step of the iteration.
        """
        ...

    def gather(self, part: NDArray[Any], counts: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Bring the parts of all ranks, of ``counts[r]`` rows each, to every rank."""
        ...

    def total(self, part: NDArray[Any]) -> NDArray[Any]:
        """Sum over the ranks, the same bits on all."""
        ...


class ShardedFeatures:
    """The rows of all ranks as one ``(n, d)`` set, of which this rank holds ``local``.

    ``owners[i]`` is the rank that holds row i; a rank holds its rows in ascending order. So rows are taken, reordered
    and joined without communication and without moving them. Indexing is the exception: it brings the selected rows (or
    columns) to every rank, as a NumPy array, and all ranks must make the same selection.
    """

    ndim = 2

    def __init__(self, local: Any, owners: NDArray[np.int32], exchange: Exchange) -> None:
        self.local = local
        self.owners = owners
        self.exchange = exchange
        self.counts = np.bincount(owners, minlength=exchange.size)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.owners), int(self.local.shape[1])

    @property
    def dtype(self) -> Any:
        return self.local.dtype

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        wanted = np.arange(len(self))[rows]
        numbers = np.atleast_1d(wanted)
        with self.exchange.step("rows of features", numbers, str(columns)):
            fetched = self._pick(numbers)
            found = fetched.collect(to_host(fetched.local)[:, columns])
        return cast("NDArray[Any]", found[0] if np.ndim(wanted) == 0 else found)

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise TypeError(
            "these features are spread over ranks, and this call needs all rows in one process; use a metric that "
            "takes `backend`, frechet_distance or kernel_distance, or gather the features if they fit into memory"
        )

    def astype(self, *_: Any, **__: Any) -> Any:
        return self.__array__()

    def double(self) -> ShardedFeatures:
        """Return the same rows in float64."""
        local = self.local.astype(np.float64) if isinstance(self.local, np.ndarray) else self.local.double()
        return ShardedFeatures(local, self.owners, self.exchange)

    def take_rows(self, rows: NDArray[Any]) -> ShardedFeatures:
        """Return some rows, by number or by a mask, in that order; each stays on its rank."""
        return self._pick(np.flatnonzero(rows) if rows.dtype == bool else rows)

    def join_rows(self, other: ShardedFeatures) -> ShardedFeatures:
        """Return these rows and then those of ``other``."""
        owners = np.concatenate([self.owners, other.owners])
        return ShardedFeatures(join_rows(self.local, other.local), owners, self.exchange)

    def of(self, rank: int) -> NDArray[np.int64]:
        """Return the numbers of the rows that a rank holds, ascending."""
        return np.flatnonzero(self.owners == rank)

    def collect(self, part: NDArray[Any]) -> NDArray[Any]:
        """Bring one value (or row) for each row of this set to every rank, in the order of the set; within a step."""
        values = np.empty((len(self), *part.shape[1:]), dtype=part.dtype)
        for rank, of_rank in enumerate(self.exchange.gather(part, self.counts)):
            values[self.of(rank)] = of_rank
        return values

    def sum_blocks(
        self, function: Callable[[NDArray[Any]], NDArray[np.float64]], block_rows: int
    ) -> NDArray[np.float64]:
        """Sum ``function`` over blocks of rows, and over the ranks."""
        with self.exchange.step("a sum over rows"):
            total = function(to_host(self.local[:0]))
            for start in range(0, len(self.local), block_rows):
                total = total + function(to_host(self.local[start : start + block_rows]))
            return self.exchange.total(total)

    def backend(self, kernels: LocalBackend, on_host: HostBackend) -> RingBackend:
        """Return the primitives on such features from those for the rows of one rank."""
        return RingBackend(kernels, on_host, self.exchange.size)

    def _pick(self, numbers: NDArray[Any]) -> ShardedFeatures:
        owners = self.owners[numbers]
        local_numbers = np.cumsum(self.owners == self.exchange.rank) - 1
        mine = local_numbers[numbers[owners == self.exchange.rank]]
        return ShardedFeatures(take_rows(self.local, mine), owners, self.exchange)


class RingBackend:
    """:class:`egtmetrics.ops.Backend` on :class:`ShardedFeatures`: the rows stay, O(n) results come to every rank.

    For each primitive the shards of one set go round the ring of ranks, and every rank combines the shard it has
    received with its own rows of the other set: n^2 / size pairs for each rank, and two shards in memory besides its
    own. Squared distances and counts are exact, the same bits as from one process. Kernel sums are added shard by
    shard, so they agree within the rounding of one process (about 1e-5 relative or 2e-7 absolute).
    """

    device = None

    def __init__(self, kernels: LocalBackend, on_host: HostBackend, size: int) -> None:
        self._kernels = kernels
        self._on_host = on_host
        # What does not depend on the rows is the same on all ranks. Counts are shared out on the host.
        self.divergence_bootstrap = kernels.divergence_bootstrap
        self.bootstrap_counts = on_host.bootstrap_counts
        self.name = f"{kernels.name} on {size} ranks"

    def kth_neighbor(
        self, x: Any, y: Any = None, *, n_neighbors: int, sq_range: SqRange = ANY_RADIUS
    ) -> NDArray[np.float64]:
        with x.exchange.step("kth_neighbor", len(x), len(x if y is None else y), n_neighbors, sq_range):
            radii: NDArray[np.float64] = x.collect(self._nearest(x, y, n_neighbors)[:, -1])
        radii[radii <= sq_range[0]] = 0.0
        radii[radii > sq_range[1]] = np.inf
        return radii

    def grouped_kth_neighbor(
        self,
        x: Any,
        y: Any = None,
        *,
        x_offsets: NDArray[np.int64],
        y_offsets: NDArray[np.int64] | None = None,
        n_neighbors: int,
    ) -> NDArray[np.float64]:
        radii = np.empty(len(x))
        for g in range(len(x_offsets) - 1):
            rows = np.arange(x_offsets[g], x_offsets[g + 1])
            others = None if y is None or y_offsets is None else y.take_rows(np.arange(y_offsets[g], y_offsets[g + 1]))
            radii[rows] = self.kth_neighbor(x.take_rows(rows), others, n_neighbors=n_neighbors)
        return radii

    def ball_counts(
        self,
        x: Any,
        y: Any = None,
        *,
        x_sq_radii: NDArray[np.float64] | None = None,
        y_sq_radii: NDArray[np.float64] | None = None,
        closed: bool,
    ) -> BallCounts:
        others = x if y is None else y
        exchange, mine = x.exchange, x.of(x.exchange.rank)
        of_x_balls = (len(x), len(others)) if x_sq_radii is not None else (0, 0)
        of_y_balls = (len(others), len(x)) if y_sq_radii is not None else (0, 0)
        totals = BallCounts(*(np.zeros(length, dtype=np.int64) for length in (*of_x_balls, *of_y_balls)))
        with exchange.step("ball_counts", len(x), len(others), closed, x_sq_radii, y_sq_radii):
            for owner, tile in exchange.tiles(others.local, others.counts):
                itself = y is None and owner == exchange.rank
                if not len(mine) or not len(tile):
                    continue
                theirs = others.of(owner)
                found = self._kernels.ball_counts(
                    x.local,
                    None if itself else tile,
                    x_sq_radii=None if x_sq_radii is None else x_sq_radii[mine],
                    y_sq_radii=None if y_sq_radii is None else y_sq_radii[theirs],
                    closed=closed,
                )
                for total, counts, rows in zip(totals, found, (mine, theirs, theirs, mine), strict=True):
                    if len(counts):
                        total[rows] += counts
            return BallCounts(*(exchange.total(total) if len(total) else total for total in totals))

    def kernel_density(self, x: Any, y: Any, *, bandwidth: float) -> NDArray[np.float64]:
        with x.exchange.step("kernel_density", len(x), len(y), bandwidth):
            return cast("NDArray[np.float64]", x.collect(self._density(x, y, bandwidth)))

    def kernel_density_band(
        self, x: Any, counts: NDArray[np.uint16], *, bandwidth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        n, exchange = len(x), x.exchange
        deviation = np.zeros(counts.shape[1])
        step = max(1, _BAND_BYTES // (8 * int(x.counts.max())))  # from the largest shard: all ranks make as many rounds
        with exchange.step("kernel_density_band", n, bandwidth, counts):
            density = x.collect(self._density(x, x, bandwidth))
            for start in range(0, counts.shape[1], step):
                block = counts[:, start : start + step]
                sums = np.zeros((len(x.local), block.shape[1]))
                for owner, tile in exchange.tiles(x.local, x.counts):
                    if len(sums) and len(tile):
                        draws = np.ascontiguousarray(block[x.of(owner)])
                        _, shares = self._on_host.resampled_density(
                            to_host(x.local), to_host(tile), draws, bandwidth=bandwidth
                        )
                        sums += len(tile) * shares
                largest = np.abs(sums).max(axis=0, initial=0.0) / n
                ones = np.ones(exchange.size, dtype=np.int64)
                deviation[start : start + step] = np.max(exchange.gather(largest[None], ones), axis=0)[0]
        return density, deviation

    def soft_ball_product(self, x: Any, y: Any, *, radius: float) -> NDArray[np.float64]:
        with x.exchange.step("soft_ball_product", len(x), len(y), radius):
            product = np.ones(len(x.local))
            for _, tile in x.exchange.tiles(y.local, y.counts):
                if len(product) and len(tile):
                    product *= self._kernels.soft_ball_product(x.local, tile, radius=radius)
            return cast("NDArray[np.float64]", x.collect(product))

    def project(self, x: Any, matrix: NDArray[np.float64]) -> Features:
        with x.exchange.step("project", len(x), matrix):
            projected = self._kernels.project(x.local, matrix)
        return cast("Features", ShardedFeatures(projected, x.owners, x.exchange))

    def _nearest(self, x: Any, y: Any, k: int) -> NDArray[np.float64]:
        """Squared distances of the k nearest to each row of this rank, merged from all shards; the k-th comes last."""
        others = x if y is None else y
        n = len(x.local)
        best = np.full((n, k), np.inf)
        step = max(1, _BLOCK_BYTES // (32 * k))
        for owner, tile in x.exchange.tiles(others.local, others.counts):
            itself = y is None and owner == x.exchange.rank
            reach = min(k, len(tile) - itself)
            if n == 0 or reach < 1:
                continue
            for start in range(0, n, n if itself else step):  # all at once where a row leaves itself out
                rows = slice(start, n if itself else start + step)
                found, _ = self._kernels.neighbors(x.local[rows], None if itself else tile, n_neighbors=reach)
                merged = np.concatenate([best[rows], found], axis=1)
                merged.partition(k - 1, axis=1)
                best[rows] = merged[:, :k]
        return best

    def _density(self, x: Any, y: Any, bandwidth: float) -> NDArray[np.float64]:
        """Densities at the rows of this rank; shards in order of ranks, so that every rank adds in the same order."""
        means = np.zeros((len(x.local), x.exchange.size))
        for owner, tile in x.exchange.tiles(y.local, y.counts):
            if len(means) and len(tile):
                means[:, owner] = self._kernels.kernel_density(x.local, tile, bandwidth=bandwidth)
        density = np.zeros(len(means))
        for rank, share in enumerate(y.counts / len(y)):  # not by a BLAS product, which rounds a row by its place
            density += share * means[:, rank]
        return density


def digest(argument: Any) -> int | str:
    """Return a value to compare arguments by: the checksum of an array, else the text of the argument."""
    if isinstance(argument, np.ndarray):
        return zlib.crc32(np.ascontiguousarray(argument).data)
    return repr(argument)
