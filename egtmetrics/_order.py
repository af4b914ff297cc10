"""An order of rows that depends on nothing but the set of rows, so that results do not depend on how they came."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops import Features, take_rows, to_host

_HEAD_COLUMNS = 2


def canonical_order(x: Any) -> NDArray[np.int64]:
    """Order the rows by their bytes, equal rows by their place.

    Of features that lie elsewhere (on a device, on other ranks) a few columns come to the host at a time, and only of
    rows that are equal in all columns before.
    """
    if isinstance(x, np.ndarray):
        return np.argsort(_row_bytes(x), kind="stable")
    n, d = x.shape
    places = np.zeros(n, dtype=np.int64)  # how many rows come before all those that are equal to this one so far
    tied = np.arange(n)
    for start in range(0, d, _HEAD_COLUMNS):
        rest = x if start == 0 else take_rows(x, tied)
        head = np.unique(_row_bytes(to_host(rest[:, start : start + _HEAD_COLUMNS])), return_inverse=True)[1]
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
        if not len(tied):
            break
    return np.argsort(places, kind="stable")


def _row_bytes(x: Features) -> NDArray[np.void]:
    # + 0.0 turns -0.0 into 0.0
    return (x + 0.0).view(np.dtype((np.void, x.itemsize * x.shape[1]))).ravel()
