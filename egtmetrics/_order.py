"""An order of rows that depends on nothing but the set of rows, so that results do not depend on how they came."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops import Features


def canonical_order(x: Features) -> NDArray[np.int64]:
    """Order the rows by their bytes."""
    rows = (x + 0.0).view(np.dtype((np.void, x.itemsize * x.shape[1])))  # + 0.0 turns -0.0 into 0.0
    return np.argsort(rows.ravel(), kind="stable")
