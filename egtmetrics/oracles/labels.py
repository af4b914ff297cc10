"""What an oracle is, labels that are known, and the step from names of groups to their indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import listed


class OracleErrorWarning(UserWarning):
    """An oracle is wrong about a group more often than its user allows."""


class GroupOracle(Protocol):
    """psi: samples -> names of groups ``(n,)``, each one of ``group_names``, or None where the oracle abstains."""

    @property
    def group_names(self) -> Sequence[str]:
        """Names of the groups it tells apart."""

    @property
    def warning(self) -> str | None:
        """What users of its labels must know about their error; None if nothing. Passed on wherever it is used."""

    def __call__(self, samples: Any, /) -> Sequence[str | None] | NDArray[np.object_]:
        """Label samples."""


class LabelOracle:
    """Groups that are known: read from the samples instead of predicted.

    Parameters
    ----------
    group_names
        Names of the groups.
    read
        Function from samples to names ``(n,)``, None where there is none. By default the samples are the names
        themselves.

    Raises
    ------
    ValueError
        Names that are not different texts; from a call: a name that is not one of them.

    Examples
    --------
    Biographies by their pronoun, if they have one:

    >>> from egtmetrics.oracles import LabelOracle
    >>> def read(texts):
    ...     return ["female" if "she " in text else "male" if "he " in text else None for text in texts]
    >>> oracle = LabelOracle(["female", "male"], read)
    >>> oracle(["she wrote", "he wrote", "wrote"])
    array(['female', 'male', None], dtype=object)
    """

    warning: str | None = None
    """Nothing is predicted, so there is no error to know."""

    def __init__(self, group_names: Sequence[str], read: Callable[[Any], Any] = lambda samples: samples) -> None:
        self.group_names = check_group_names(group_names)
        self.read = read

    def __call__(self, samples: Any, /) -> NDArray[np.object_]:
        return names_of(group_indices(self.read(samples), self.group_names), self.group_names)


def group_indices(
    groups: Any, group_names: Sequence[str], *, n: int | None = None, name: str = "the oracle's answer"
) -> NDArray[np.int64]:
    """Return the index of every sample's group in ``group_names``, ``(n,)``; -1 where it is missing.

    Raises
    ------
    ValueError
        ``groups`` (called ``name`` in the message) is not ``(n,)``, or holds something that is not in ``group_names``.

    Examples
    --------
    >>> group_indices(["male", None, "female"], ["female", "male"])
    array([ 1, -1,  0])
    """
    from egtmetrics.labels import label_columns  # which needs pandas

    _, columns = label_columns(groups, name, known=group_names)
    array = columns[0].astype(object)
    if len(columns) > 1 or array.ndim != 1 or (n is not None and len(array) != n):
        expected = f"({'n' if n is None else n},)"
        raise ValueError(
            f"{name} has shape {np.shape(groups)}, expected one name per sample, {expected}; give the name of each "
            "sample's group, or None"
        )
    index_of = {group: index for index, group in enumerate(group_names)}
    unknown = sorted({repr(group) for group in array if group is not None and group not in group_names})
    if unknown:
        expected = listed(map(repr, group_names)) or "names of groups"
        raise ValueError(
            f"{name} holds {listed(unknown)}, expected {expected}, or None for a sample in no group; correct it, or "
            "group_names"
        )
    return np.array([index_of.get(group, -1) for group in array], dtype=np.int64)


def names_of(indices: NDArray[np.int64], group_names: Sequence[str]) -> NDArray[np.object_]:
    """Return the names of groups with these indices; None for -1."""
    return np.array([*group_names, None], dtype=object)[indices]


def check_group_names(values: Any) -> tuple[str, ...]:
    """Return names of groups as a tuple; they must be different texts, one at least."""
    names = () if isinstance(values, str) else tuple(values)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(
            f"group_names holds {listed(map(repr, names)) or repr(values)}, expected different texts, one for each "
            "group, such as ['female', 'male']"
        )
    return tuple(map(str, names))
