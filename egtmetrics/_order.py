"""An order of rows that depends only on the set of rows, so that results do not depend on the order of the input."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops import Features, device_order, of_one_set, to_host

_FIRST_COLUMNS = 2
_BLOCK_BYTES = 1 << 25


@of_one_set
def canonical_order(x: Any) -> NDArray[np.int64]:
    """Order the rows by their bytes; equal rows keep their order.

    A few columns are read at a time, and further columns only for rows that are equal so far. So features may be in a
    file, on a device or on other ranks: besides them, this takes O(n) memory.
    """
    if hasattr(x, "detach"):
        return cast("NDArray[np.int64]", to_host(_order_on_device(x)))
    n, d = x.shape
    places = np.zeros(n, dtype=np.int64)  # the number of rows before the class of rows that equal this one so far
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
        # Double the width, so that many long equal rows need few rounds, within one block but at least two columns.
        width = max(_FIRST_COLUMNS, min(2 * width, _BLOCK_BYTES // (8 * max(1, len(tied)))))
    return np.argsort(places, kind="stable")


def order_where_it_lies(x: Any) -> NDArray[np.int64]:
    """Return :func:`canonical_order`, of features on a device as a tensor there."""
    return _order_on_device(x) if hasattr(x, "detach") else canonical_order(x)


@of_one_set
def _order_on_device(x: Any) -> NDArray[np.int64]:
    return cast("NDArray[np.int64]", device_order(x))


def _row_bytes(x: Features) -> NDArray[np.void]:
    # Adding 0.0 turns -0.0 into 0.0.
    return (x + 0.0).view(np.dtype((np.void, x.itemsize * x.shape[1]))).ravel()
