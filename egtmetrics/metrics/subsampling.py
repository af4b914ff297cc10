"""Random halves and quarters of a sample, and the variance of scores at full size, estimated from theirs.

Real and fake are split at random into quarters, many times; two quarters make a half, in three ways. The parts of one
split are independent samples of a fraction of the size. With T their scores::

    V_2 = mean of (T(half) - T(other half))^2 / 4,    V_4 = mean over splits of the variance of T(quarter), / 4

If variances fell with 1 / n, both V_2 and V_4 would be the variance of T at full size. Their ratio shows how variances
really change with n, and is extrapolated one step further: V = V_2 (V_2 / V_4)^g. Parts score higher or lower than the
full sample, but differences between parts do not. Unlike in a bootstrap, no row is drawn twice: duplicates would shrink
the nearest-neighbour radii and raise the densities at the points themselves.

Rows of one cluster vary together, so they go into the same part: the clusters are put in random order and their rows
are cut into parts of equal size. At most one cluster is cut at each of the three cuts. The order of a cluster is the
same in every set that is split together with others, so sets that have clusters in common vary together as their parts
do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from egtmetrics._order import canonical_order
from egtmetrics.ops import Features, HostBackend, of_one_set, take_rows

Floats: TypeAlias = NDArray[np.float64]
Parts: TypeAlias = NDArray[np.uint8]
"""``(n, C)``: the part of every row in each of C splits: 0 or 1 for halves, 0 to 3 for quarters."""

Clusters: TypeAlias = NDArray[np.int64] | None
"""``(n,)``: the cluster of every row, the same number for the same cluster in all sets; None for independent rows."""
ClustersOfBoth: TypeAlias = tuple[Clusters, Clusters]
"""Those of a real and of a fake set."""

N_QUARTERINGS = 33
"""Q of :class:`Subsamples`. A metric that is called on all parts is called 10 Q times."""
_GROWTH = 0.7
"""g of :func:`extrapolated_covariance`.

To first order, 0.71 is right where n Var T(n) approaches its limit as 1 / sqrt(n), and 0.5 where it does as 1 / n. 1 is
right where Var T falls with another power of n than -1.
"""


@dataclasses.dataclass(frozen=True)
class Subsamples:
    """A sample, less up to three random rows so that quarters are equal, and Q random splits of it into quarters.

    The quarters 0 to 3 of one split make three pairs of halves: {0, 1} and {2, 3}, {0, 2} and {1, 3}, {0, 3} and
    {1, 2}. For a linear score the three pairs carry the same information as the quarters.
    """

    points: Features
    """In canonical order, so that nothing depends on the order in which rows came."""
    parts: Parts
    """``(n, 4 Q)``: the first pair of halves of all Q splits, then the second, then the third, then the quarters."""
    clusters: Clusters = None
    """Those of ``points``."""

    @property
    def pairs_of_halves(self) -> slice:
        """The columns of ``parts`` that hold halves."""
        return slice(0, self.parts.shape[1] // 4 * 3)

    @property
    def n_parts(self) -> NDArray[np.int64]:
        """2 or 4, by column of ``parts``."""
        return np.repeat([2, 4], [self.parts.shape[1] // 4 * 3, self.parts.shape[1] // 4])

    def by_size(self) -> Iterator[tuple[int, slice]]:
        """The number of parts, 2 and then 4, each with its columns of ``parts``."""
        yield 2, self.pairs_of_halves
        yield 4, slice(self.pairs_of_halves.stop, None)

    def of_part(self, column: int, part: int) -> tuple[Any, Clusters]:
        """Return the rows of one part, and their clusters."""
        rows = self.parts[:, column] == part
        return take_rows(self.points, rows), None if self.clusters is None else self.clusters[rows]


def draw_subsamples(points: Features, rng: np.random.Generator, n_quarterings: int = N_QUARTERINGS) -> Subsamples:
    """Split a sample of independent rows at random into quarters, ``n_quarterings`` times."""
    return Subsamples(*_drawn(points, rng, n_quarterings))


def draw_all(
    sets: Sequence[Features],
    clusters: Sequence[Clusters],
    rng: np.random.Generator,
    n_quarterings: int = N_QUARTERINGS,
) -> list[Subsamples]:
    """Split several sets: whole clusters where they have any, and a cluster that several sets have alike in all."""
    # First of all, so that it does not depend on how many rows the sets have: groups draw alike then.
    seed = int(rng.integers(2**63)) if any(ids is not None for ids in clusters) else 0
    return [
        draw_subsamples(points, rng, n_quarterings)
        if ids is None
        else _draw_clusters(points, ids, np.random.default_rng(seed), n_quarterings)
        for points, ids in zip(sets, clusters, strict=True)
    ]


def _draw_clusters(
    points: Features, clusters: NDArray[np.int64], rng: np.random.Generator, n_quarterings: int
) -> Subsamples:
    keys = rng.random((int(clusters.max()) + 1, n_quarterings))  # row by row: more clusters leave the first as they are
    n = len(points) // 4 * 4
    kept = canonical_order(points)[np.sort(rng.permutation(len(points))[:n])]
    own = clusters[kept]
    quarters = np.empty((n, n_quarterings), dtype=np.uint8)
    for column in range(n_quarterings):
        order = np.lexsort((rng.permutation(n), keys[own, column]))
        quarters[order, column] = np.repeat(np.arange(4, dtype=np.uint8), n // 4)
    return Subsamples(take_rows(points, kept), _with_halves(quarters), own)


def _with_halves(quarters: Parts) -> Parts:
    first, second = quarters >> 1, quarters & 1
    return np.concatenate([first, second, first ^ second, quarters], 1)


def n_units(n_rows: int, clusters: Clusters) -> int:
    """Return how many units of a set vary independently: its rows, or its clusters."""
    return n_rows if clusters is None else len(np.unique(clusters))


@of_one_set
def _drawn(points: Features, rng: np.random.Generator, n_quarterings: int) -> tuple[Features, Parts]:
    n = len(points) // 4 * 4
    kept = np.sort(rng.permutation(len(points))[:n])
    quarters = np.repeat(np.arange(4, dtype=np.uint8), n // 4)[:, None].repeat(n_quarterings, axis=1)
    quarters = rng.permuted(quarters, axis=0)
    return take_rows(points, canonical_order(points)[kept]), _with_halves(quarters)


def split_by_part(values: NDArray[Any], parts: Parts, n_parts: int) -> NDArray[Any]:
    """Sort values ``(n, C)`` by the part of their row: ``(n_parts, n / n_parts, C)``."""
    order = np.argsort(parts, axis=0, kind="stable")
    by_part: NDArray[Any] = np.take_along_axis(values, order, axis=0).reshape(n_parts, -1, parts.shape[1])
    return by_part


def mean_by_part(values: NDArray[Any], sample: Subsamples) -> list[Floats]:
    """Mean of values ``(n, 4 Q)`` over the rows of every half ``(2, 3 Q)`` and of every quarter ``(4, Q)``."""
    return [
        split_by_part(values[:, columns], sample.parts[:, columns], n_parts).mean(axis=1, dtype=np.float64)
        for n_parts, columns in sample.by_size()
    ]


def own_sq_radii(kernels: HostBackend, sample: Subsamples, *ks: int | NDArray[np.int64]) -> list[Floats]:
    """For each k squared distances of every row to its k-th nearest neighbour in its own part, ``(n, 4 Q)``.

    A k is by column or one for all. All distances are found in one search.
    """
    n_columns = sample.parts.shape[1]
    wanted = np.concatenate([np.full(n_columns, k) for k in ks])
    radii = kernels.split_kth_neighbor(sample.points, np.tile(sample.parts, len(ks)), n_neighbors=wanted)
    return np.split(radii, len(ks), axis=1)


def split_memberships(
    kernels: HostBackend, x: Subsamples, y: Subsamples, *x_sq_radii: Floats, closed: bool
) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """For each set of radii how many y of its own part lie in the ball of each x, and in how many balls each y lies.

    All are counted in one pass over the pairs.
    """
    n_sets = len(x_sq_radii)
    counts = kernels.split_ball_counts(
        x.points,
        y.points,
        x_sq_radii=np.concatenate(x_sq_radii, axis=1),
        x_sides=np.tile(x.parts, n_sets),
        y_sides=np.tile(y.parts, n_sets),
        closed=closed,
    )
    sizes, memberships = (np.split(found, n_sets, axis=1) for found in (counts.x_ball_sizes, counts.y_in_x_balls))
    return list(zip(sizes, memberships, strict=True))


def share_variance(share: Floats, n: Floats) -> Floats:
    """Variance of a share of n independent points, with two points more of either kind (Agresti and Coull 1998).

    So it is not 0 where all points or none count: 1.96 of its roots are 2.8 / n there, near the 3 / n of the rule of
    three.
    """
    share = (share * n + 2.0) / (n + 4.0)
    return share * (1.0 - share) / (n + 4.0)


def covariance_of_parts(scores: Floats) -> Floats:
    """Covariance ``(S, S)`` at full size if variances fell with 1 / n, from scores ``(P, C, S)`` of P parts."""
    n_parts, n_splits = scores.shape[:2]
    deviations = scores - scores.mean(axis=0)
    moments: Floats = np.einsum("pci,pcj->ij", deviations, deviations) / (n_splits * n_parts * (n_parts - 1))
    return moments


def extrapolated_covariance(halves: Floats, quarters: Floats) -> Floats:
    """Covariance at full size: variances ``V_2 (V_2 / V_4)^g``, with the correlations of the halves.

    ``halves`` and ``quarters`` are what :func:`covariance_of_parts` returns for them.
    """
    variances = np.stack([np.diag(halves), np.diag(quarters)])
    known = (variances > 0).all(axis=0)
    ratio = np.divide(variances[0], variances[1], out=np.ones(len(halves)), where=known)
    growth = ratio ** (_GROWTH / 2.0)
    covariance: Floats = growth[:, None] * halves * growth
    return covariance
