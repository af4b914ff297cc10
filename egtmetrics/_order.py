"""An order of rows that depends on nothing but the set of rows, so that results do not depend on how they came."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops import Features, to_host

_FIRST_COLUMNS = 2
_BLOCK_BYTES = 1 << 25


def canonical_order(x: Any) -> NDArray[np.int64]:
    """Order the rows by their bytes, equal rows by their place.

    A few columns are read at a time, and more of them only of rows that are equal in all columns before. So features
    may lie in a file, on a device or on other ranks: beyond them this takes O(n) memory.
    """
    n, d = x.shape
    places = np.zeros(n, dtype=np.int64)  # how many rows come before all those that are equal to this one so far
    tied = np.arange(n)
    start, width = 0, _FIRST_COLUMNS
    while start < d and len(tied):
        rows = slice(None) if len(tied) == n else tied
        head = np.unique(_row_bytes(to_host(x[rows, start : start + width])), return_inverse=True)[1]
        order = np.lexsort((head, places[tied]))
        place, head = places[tied][order], head[order]
        new_class = np.concatenate([[True], place[1:] != place[:-1]])
        new_place = new_class | np.concatenate([[True], head[1:] != head[:-1]])
        number = np.arange(len(tied))
        before = np.maximum.accumulate(np.where(new_place, number, 0)) - np.maximum.accumulate(
            np.where(new_class, number, 0)
        )
        places[tied[order]] = place + before
        alone = new_place & np.concatenate([new_place[1:], [True]])
        tied = np.sort(tied[order][~alone])
        start += width
        # wider and wider, so that many long equal rows need few rounds, but never more than a block or two columns
        width = max(_FIRST_COLUMNS, min(2 * width, _BLOCK_BYTES // (8 * max(1, len(tied)))))
    return np.argsort(places, kind="stable")


def _row_bytes(x: Features) -> NDArray[np.void]:
    # + 0.0 turns -0.0 into 0.0
    return (x + 0.0).view(np.dtype((np.void, x.itemsize * x.shape[1]))).ravel()
