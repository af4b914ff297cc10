"""Checks of arguments that several modules share; a message names the argument, what came, what to pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SUM_TOLERANCE = 1e-6
"""Proportions stored in float32, or typed with six digits, pass; percentages and counts do not."""


def check_proportions(values: Any, name: str, *, n_groups: int | None = None) -> NDArray[np.float64]:
    """Return proportions of groups, ``(n_groups,)`` or one column per noise level, each column of sum 1.

    ``values`` is an array, a mapping from group to proportion (missing groups have 0), or ``"ego"`` for equal ones. A
    mapping and ``"ego"`` need ``n_groups``.
    """
    if isinstance(values, str):
        if values != "ego":
            raise ValueError(f"{name}={values!r} is unknown; pass proportions, or 'ego' for equal ones")
        if n_groups is None:
            raise ValueError(f"{name}='ego' does not say how many groups there are; pass an array of proportions")
        return np.full(n_groups, 1.0 / n_groups)
    if isinstance(values, Mapping):
        values = _from_mapping(values, name, n_groups)
    if hasattr(values, "detach"):
        values = values.detach().double().cpu().numpy()
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be read as proportions ({error}); pass one number per group") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}, expected one proportion per group, (n_groups,)")
    if n_groups is not None and len(array) != n_groups:
        raise ValueError(f"{name} has {len(array)} proportions for {n_groups} groups; pass one per group")
    sums = array.sum(axis=0)
    if not (np.all(array >= 0.0) and np.all(np.abs(sums - 1.0) <= _SUM_TOLERANCE)):
        raise ValueError(
            f"{name}={array.tolist()} is not non-negative with sum 1 (it is {sums}); pass proportions, for example "
            "counts / counts.sum()"
        )
    normalised: NDArray[np.float64] = array / sums
    return normalised


def _from_mapping(values: Mapping[Any, float], name: str, n_groups: int | None) -> NDArray[np.float64]:
    if n_groups is None:
        raise ValueError(f"{name} is a mapping, which does not say how many groups there are; pass an array")
    unknown = [group for group in values if group not in range(n_groups)]
    if unknown:
        raise ValueError(f"{name} has the groups {unknown}, expected integers from 0 to {n_groups - 1}; rename them")
    return np.array([values.get(group, 0.0) for group in range(n_groups)], dtype=np.float64)
