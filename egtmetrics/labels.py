"""Sensitive features: which groups there are, which group each row is in, and how many rows each group has."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._text import shown
from egtmetrics._validation import as_array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of both sides in sorted order, and the position of every row's group in ``index`` (-1: no group)."""

    index: pd.Index[Any]
    real_ids: NDArray[np.int64]
    fake_ids: NDArray[np.int64]

    def counts(self) -> pd.DataFrame:
        """Count the samples of every group and add the proportions; rows in no group are left out."""
        n_groups = len(self.index)
        return self.table(*(np.bincount(ids[ids >= 0], minlength=n_groups) for ids in (self.real_ids, self.fake_ids)))

    def table(self, n_real: NDArray[np.int64], n_fake: NDArray[np.int64]) -> pd.DataFrame:
        """Return the numbers of samples by group with their proportions: n_real, n_fake, real_proportion, ..."""
        columns = {
            "n_real": n_real,
            "n_fake": n_fake,
            "real_proportion": n_real / n_real.sum(),
            "fake_proportion": n_fake / n_fake.sum(),
        }
        return pd.DataFrame(columns, index=self.index)

    def unassigned(self) -> dict[str, int]:
        """Count the rows with a None or NaN label on each side."""
        return {"real": int(np.sum(self.real_ids < 0)), "fake": int(np.sum(self.fake_ids < 0))}

    def name(self, label: Hashable) -> str:
        """Return a group's label as text, for messages and JSON: ``"female"``, or ``"gender=female, age=old"``."""
        if isinstance(self.index, pd.MultiIndex) and isinstance(label, tuple):
            return ", ".join(f"{feature}={value}" for feature, value in zip(self.index.names, label, strict=True))
        return str(label)

    def position(self, label: Hashable) -> int:
        """Return the position of a group in ``index``."""
        labels = self.index.tolist()
        if label not in labels:
            raise ValueError(f"{label!r} is not a group of these samples; choose one of {listed(map(repr, labels))}")
        return labels.index(label)

    def labels(self, ids: NDArray[np.int64]) -> pd.DataFrame:
        """Return the labels of rows as a table, one column per sensitive feature; None in a row without a group."""
        table = self.index.to_frame(index=False)
        if (ids < 0).any():
            table = table.astype(object)
            table.loc[len(table)] = [None] * table.shape[1]  # the last row, which index -1 takes
        return table.iloc[ids].reset_index(drop=True)

    def check_two(self) -> None:
        """Raise ValueError unless there are at least two groups."""
        if len(self.index) < 2:
            raise ValueError(
                f"real_sensitive_features and fake_sensitive_features hold only one group, "
                f"{self.name(self.index[0])!r}, but a disparity needs at least two; check the labels"
            )

    def check_present(self, remedy: str) -> None:
        """Raise ValueError if a group has samples on only one side; the message ends with ``remedy``."""
        counts = self.counts()
        for side, other in (("real", "fake"), ("fake", "real")):
            missing = [self.name(label) for label in self.index[counts[f"n_{side}"] == 0]]
            if missing:
                raise ValueError(
                    f"{side}_sensitive_features holds no sample of group {listed(map(repr, missing))}, which "
                    f"{other}_sensitive_features has; check the spelling of the labels, add {side} samples of it, or "
                    f"{remedy}"
                )


def assign_groups(
    real_sensitive_features: Any, fake_sensitive_features: Any, *, n_real: int | None = None, n_fake: int | None = None
) -> Groups:
    """Check the labels of both sides and give them a common index.

    ``n_real`` and ``n_fake`` say how many labels there must be; None if no samples do.
    """
    real_ids, real_index = check_group_labels(real_sensitive_features, n_real, "real_sensitive_features")
    fake_ids, fake_index = check_group_labels(fake_sensitive_features, n_fake, "fake_sensitive_features")
    if isinstance(real_index, pd.MultiIndex) and isinstance(fake_index, pd.MultiIndex):
        if set(real_index.names) != set(fake_index.names):
            raise ValueError(
                f"real_sensitive_features has the features {list(real_index.names)}, but fake_sensitive_features has "
                f"{list(fake_index.names)}; pass the same features, under the same names, on both sides"
            )
        fake_index = fake_index.reorder_levels(real_index.names)
    elif real_index.nlevels != fake_index.nlevels:
        raise ValueError(
            f"real_sensitive_features has {real_index.nlevels} features, but fake_sensitive_features has "
            f"{fake_index.nlevels}; pass the same features on both sides"
        )
    try:
        labels = sorted({*real_index, *fake_index})
    except TypeError as error:
        raise TypeError(
            f"real_sensitive_features and fake_sensitive_features have labels of different types ({error}); convert "
            "one of them"
        ) from error
    if isinstance(real_index, pd.MultiIndex):
        index: pd.Index[Any] = pd.MultiIndex.from_tuples(labels, names=real_index.names)
    else:
        index = pd.Index(labels, name=real_index.name, tupleize_cols=False)
    position = {label: i for i, label in enumerate(labels)}

    def relocate(ids: NDArray[np.int64], own: pd.Index[Any]) -> NDArray[np.int64]:
        return np.array([*(position[label] for label in own), -1], dtype=np.int64)[ids]  # index -1 takes the last: -1

    return Groups(index=index, real_ids=relocate(real_ids, real_index), fake_ids=relocate(fake_ids, fake_index))


def check_group_labels(labels: Any, n: int | None, name: str) -> tuple[NDArray[np.int64], pd.Index[Any]]:
    """Return ``group_ids (n,)``, -1 for unassigned rows, and the sorted index of group labels that they point into.

    ``labels`` is one sequence or several: a DataFrame, a mapping of names to sequences, or an (n, s) array. The groups
    of several are their intersections, with a MultiIndex. A row with a None or NaN label in any feature is unassigned.
    ``n`` says how many labels there must be; None if no samples do.
    """
    names, columns = label_columns(labels, name)
    if columns[0].ndim != 1 or len({column.shape for column in columns}) > 1:
        shapes = ", ".join(f"{key}: {column.shape}" for key, column in zip(names, columns, strict=True))
        raise ValueError(
            f"{name} has features of wrong or unequal shapes ({shapes}); pass one label per sample in each"
        )
    n_labels = len(columns[0])
    if n is not None and n_labels != n:
        raise ValueError(f"{name} has {n_labels} labels for {n} samples; pass one label per sample, in the same order")
    frame = pd.DataFrame(dict(enumerate(columns)))
    assigned = frame.notna().all(axis=1).to_numpy()
    if not assigned.any():
        raise ValueError(f"{name} assigns none of {n_labels} samples to a group (all None or NaN); check the labels")
    kept = frame[assigned]
    try:
        for key in kept:
            sorted(kept[key].unique())  # pandas would silently order 1 before "a"
        if len(names) == 1:
            codes, unique = pd.factorize(kept[0], sort=True)
            group_index: pd.Index[Any] = pd.Index(unique, name=names[0], tupleize_cols=False)
        else:
            codes, combinations = pd.MultiIndex.from_frame(kept).factorize(sort=True)
            group_index = pd.MultiIndex.from_tuples(list(combinations), names=names)
    except TypeError as error:
        raise TypeError(f"{name} mixes labels that cannot be ordered ({error}); use labels of one type") from error
    if len(group_index) == np.count_nonzero(assigned) > 1:
        raise ValueError(
            f"{name} has {len(group_index)} different labels for as many samples, so every group has one sample; pass "
            "group labels, not a continuous feature or an identifier"
        )
    group_ids = np.full(n_labels, -1, dtype=np.int64)
    group_ids[assigned] = codes
    return group_ids, group_index


def label_columns(labels: Any, name: str) -> tuple[list[str], list[NDArray[Any]]]:
    """Split labels into features; return their names and columns."""
    if isinstance(labels, pd.DataFrame | Mapping):
        names = [str(key) for key, _ in labels.items()]
        columns = [_label_array(column, name) for _, column in labels.items()]
    else:
        array = _label_array(labels, name)
        if array.ndim == 1:
            given = labels.name if isinstance(labels, pd.Series | pd.Index) else None
            return ["group" if given is None else str(given)], [array]
        if array.ndim != 2:
            raise ValueError(f"{name} has shape {array.shape}, expected one label per sample, (n,) or (n, features)")
        names = [f"sensitive_feature_{i}" for i in range(array.shape[1])]
        columns = list(array.T)
    if not columns:
        raise ValueError(f"{name} has no columns; pass one label per sample")
    if len(set(names)) < len(names):
        raise ValueError(f"{name} names a feature twice ({', '.join(names)}); rename or drop one")
    return names, columns


def _label_array(labels: Any, name: str) -> NDArray[Any]:
    if hasattr(labels, "detach"):
        return as_array(labels, name)
    if isinstance(labels, str | bytes) or not (isinstance(labels, Sequence) or hasattr(labels, "__array__")):
        raise TypeError(f"{name} is {type(labels).__name__}, expected a sequence with one label per sample; pass one")
    # As objects: NumPy would make floats of pandas' Int64, and strings of the NaN in ["a", nan] and the 1 in ["a", 1].
    if isinstance(labels, pd.Series | pd.Index):
        return labels.to_numpy(dtype=object)
    return np.asarray(labels) if hasattr(labels, "__array__") else np.asarray(labels, dtype=object)


def group_text(label: Hashable) -> str:
    """Return the label of a group, or the labels of an intersection, for tables and figures: ``"female, old"``."""
    return ", ".join(shown(str(part)) for part in (label if isinstance(label, tuple) else (label,)))
