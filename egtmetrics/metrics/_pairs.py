"""All distances between two sets, for what is no primitive: float64, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from egtmetrics.metrics.subsampling import Floats

Rows = NDArray[np.int64]

_BLOCK_BYTES = 1 << 26
ROUNDING = 1e-10
"""Of a squared distance from a product, relative to the squared norms: generous for a million features."""


def sq_distance_blocks(y: Floats, x: Floats) -> Iterator[tuple[Rows, Floats, Floats]]:
    """Yield rows of y, their squared distances to all x ``(b, n)``, and how far these may be off.

    They come from a product around the mean of x. Those that could be 0 are computed from differences.
    """
    centre = x.mean(axis=0)
    near_x, near_y = x - centre, y - centre
    x_norms, y_norms = (np.einsum("nd,nd->n", points, points) for points in (near_x, near_y))
    step = max(1, _BLOCK_BYTES // (8 * len(x)))
    for first in range(0, len(y), step):
        rows = np.arange(first, min(first + step, len(y)))
        errors = ROUNDING * (y_norms[rows, None] + x_norms)
        distances = y_norms[rows, None] + x_norms - 2.0 * (near_y[rows] @ near_x.T)
        equal = np.nonzero(distances <= errors)
        distances[equal] = sq_distances(y, rows[equal[0]], x, equal[1])
        yield rows, distances, errors


def sq_distances(y: Floats, j: Rows, x: Floats, i: Rows) -> Floats:
    """Return the squared distances of the pairs ``(y[j], x[i])`` from differences, as the primitives have them."""
    found = np.empty(len(j))
    step = max(1, _BLOCK_BYTES // (8 * x.shape[1]))
    for start in range(0, len(j), step):
        pairs = slice(start, start + step)
        difference = y[j[pairs]] - x[i[pairs]]
        found[pairs] = np.einsum("nd,nd->n", difference, difference)
    return found


def nearest_rows(y: Floats, x: Floats) -> tuple[Rows, Floats]:
    """Return the nearest x of every y, the first where the distances are equal, and the squared distance to it."""
    nearest = np.empty(len(y), dtype=np.int64)
    for rows, distances, errors in sq_distance_blocks(y, x):
        in_block, candidates = np.nonzero(distances <= (distances.min(axis=1) + 2.0 * errors.max(axis=1))[:, None])
        exact = sq_distances(y, rows[in_block], x, candidates)
        order = np.lexsort((candidates, exact, in_block))
        first = order[np.searchsorted(in_block[order], np.arange(len(rows)))]
        nearest[rows] = candidates[first]
    return nearest, sq_distances(y, np.arange(len(y)), x, nearest)
