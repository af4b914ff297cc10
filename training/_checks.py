"""Checks of arguments that several modules share; a message names the argument, what came, what to pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import listed

if TYPE_CHECKING:
    from torch import Tensor

_SUM_TOLERANCE = 1e-6
"""Proportions stored in float32, or typed with six digits, pass; percentages and counts do not."""


def check_proportions(values: Any, name: str, *, groups: Sequence[Any] | None = None) -> NDArray[np.float64]:
    """Return proportions of groups, ``(n_groups,)`` or one column per noise level, each column of sum 1.

    ``values`` is an array in the order of ``groups``, a mapping from groups to proportions (missing groups have 0), or
    ``"ego"`` for equal ones. A mapping and ``"ego"`` need ``groups``.
    """
    if isinstance(values, str):
        if values != "ego":
            raise ValueError(f"{name}={values!r} is unknown; pass proportions, or 'ego' for equal ones")
        if groups is None:
            raise ValueError(f"{name}='ego' does not say how many groups there are; pass an array of proportions")
        return np.full(len(groups), 1.0 / len(groups))
    if isinstance(values, Mapping):
        values = _from_mapping(values, name, groups)
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be read as proportions ({error}); pass one number per group") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}, expected one proportion per group, (n_groups,)")
    if groups is not None and len(array) != len(groups):
        raise ValueError(f"{name} has {len(array)} proportions for {len(groups)} groups; pass one per group")
    sums = array.sum(axis=0)
    if not (np.all(array >= 0.0) and np.all(np.abs(sums - 1.0) <= _SUM_TOLERANCE)):
        raise ValueError(
            f"{name}={array.tolist()} is not non-negative with sum 1 (it is {sums}); pass proportions, for example "
            "counts / counts.sum()"
        )
    normalised: NDArray[np.float64] = array / sums
    return normalised


def _from_mapping(values: Mapping[Any, float], name: str, groups: Sequence[Any] | None) -> NDArray[np.float64]:
    if groups is None:
        raise ValueError(f"{name} is a mapping, which does not say how many groups there are; pass an array")
    unknown = [group for group in values if group not in groups]
    if unknown:
        raise ValueError(
            f"{name} has the groups {listed(map(repr, unknown))}, expected {listed(map(repr, groups))}; rename them"
        )
    return np.array([values.get(group, 0.0) for group in groups], dtype=np.float64)


def check_classes(labels: Tensor | None, n_classes: int) -> Tensor:
    """Return the labels given to a network that is conditioned on classes."""
    if labels is None:
        raise ValueError(f"labels are missing, but the model is conditioned on {n_classes} classes; pass (n,) labels")
    if ((labels < 0) | (labels >= n_classes)).any():
        raise ValueError(f"labels hold values out of range, expected integers from 0 to {n_classes - 1}")
    return labels
