"""Sensitive features: which groups there are, which group each row is in, and how many rows each group has."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
import warnings
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._arrays import as_array
from egtmetrics._errors import listed, outer_stacklevel
from egtmetrics._text import MISSING_WORDS, shown


class MissingLabelWarning(UserWarning):
    """Texts such as ``"NA"`` or ``"nan"`` were taken for missing labels, so their rows are in no group."""


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
        """Count the rows without a label on each side."""
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

    def on_both_sides(self) -> list[Hashable]:
        """Return the groups that have both real and fake samples."""
        # Without pandas, which would take most of the time of a cheap metric's permutations.
        real, fake = (
            np.bincount(ids[ids >= 0], minlength=len(self.index)) > 0 for ids in (self.real_ids, self.fake_ids)
        )
        return [label for label, both in zip(self.index.tolist(), real & fake, strict=True) if both]

    def check_present(self, remedy: str) -> None:
        """Raise ValueError if a group has samples on only one side; ``remedy`` is for those, if others have both."""
        counts = self.counts()
        for side, other in (("real", "fake"), ("fake", "real")):
            missing = self.index[counts[f"n_{side}"] == 0].tolist()
            if missing:
                alike = _written_otherwise(self.index[counts[f"n_{side}"] > 0].tolist(), missing)
                spelling = f"write {alike} alike" if alike else "check the spelling of the labels"
                found = (
                    f"{side}_sensitive_features holds no sample of group "
                    f"{listed(repr(self.name(label)) for label in missing)}, which {other}_sensitive_features has"
                )
                if not self.on_both_sides():
                    raise ValueError(f"{found}, and no group is on both sides; {spelling}")
                raise ValueError(f"{found}; {spelling}, add {side} samples of it, or {remedy}")


def assign_groups(
    real_sensitive_features: Any,
    fake_sensitive_features: Any,
    *,
    n_real: int | None = None,
    n_fake: int | None = None,
    what: str = "sensitive_features",
) -> Groups:
    """Check the labels of both sides and give them a common index.

    ``n_real`` and ``n_fake`` say how many labels there must be; None if no samples do. ``what`` they are, for errors.
    """
    real_ids, real_index = check_group_labels(real_sensitive_features, n_real, f"real_{what}")
    fake_ids, fake_index = check_group_labels(fake_sensitive_features, n_fake, f"fake_{what}")
    if isinstance(real_index, pd.MultiIndex) and isinstance(fake_index, pd.MultiIndex):
        if set(real_index.names) != set(fake_index.names):
            raise ValueError(
                f"real_{what} has the features {listed(real_index.names)}, but fake_{what} has "
                f"{listed(fake_index.names)}; pass the same features, under the same names, on both sides"
            )
        fake_index = fake_index.reorder_levels(real_index.names)
    elif real_index.nlevels != fake_index.nlevels:
        raise ValueError(
            f"real_{what} has {real_index.nlevels} features, but fake_{what} has "
            f"{fake_index.nlevels}; pass the same features on both sides"
        )
    try:
        labels = sorted({*real_index, *fake_index})
    except TypeError as error:
        sides = [f"{listed(map(repr, index.tolist()), most=3)}" for index in (real_index, fake_index)]
        alike = _written_otherwise(real_index.tolist(), fake_index.tolist())
        raise TypeError(
            f"real_{what} has the labels {sides[0]} and fake_{what} {sides[1]}, which are of "
            f"different types; convert those of one side{f', so that {alike} are written alike' if alike else ''}"
        ) from error
    if isinstance(real_index, pd.MultiIndex):
        index: pd.Index[Any] = pd.MultiIndex.from_tuples(labels, names=real_index.names)
    else:
        index = pd.Index(labels, name=real_index.name, tupleize_cols=False)
    position = {label: i for i, label in enumerate(labels)}

    def relocate(ids: NDArray[np.int64], own: pd.Index[Any]) -> NDArray[np.int64]:
        return np.array([*(position[label] for label in own), -1], dtype=np.int64)[ids]  # index -1 takes the last: -1

    return Groups(index=index, real_ids=relocate(real_ids, real_index), fake_ids=relocate(fake_ids, fake_index))


def number_clusters(
    sets: Mapping[str, tuple[Any, int]],
) -> tuple[list[NDArray[np.int64] | None], tuple[Hashable, ...]]:
    """Return the cluster of every row of every set, as positions in the labels, which are returned too.

    ``sets`` have labels and a number of rows by the name of the argument; None for labels gives None. A label is the
    same cluster in all sets.
    """
    columns = [None if labels is None else _cluster_labels(labels, n, name) for name, (labels, n) in sets.items()]
    found = {label for column in columns if column is not None for label in column}
    order = sorted(found, key=lambda label: (type(label).__name__, label))
    position = {label: i for i, label in enumerate(order)}
    numbered = [
        None if column is None else np.array([position[label] for label in column], dtype=np.int64)
        for column in columns
    ]
    return numbered, tuple(order)


def _cluster_labels(labels: Any, n: int, name: str) -> list[Any]:
    _, columns = label_columns(labels, name)
    if len(columns) > 1 or columns[0].ndim != 1 or len(columns[0]) != n:
        shape = f"{len(columns)} columns" if len(columns) > 1 else f"shape {columns[0].shape}"
        raise ValueError(f"{name} has {shape} for {n} samples; pass one label per sample, alike in one cluster")
    column: list[Any] = columns[0].tolist()
    missing = sum(label is None for label in column)
    if missing:
        raise ValueError(f"{name} has no label for {missing} of {n} samples; give each that is alone one of its own")
    if len(set(column)) < 2:
        raise ValueError(
            f"{name} has one label for all {n} samples, so that nothing says how much clusters vary; pass the label of "
            "what some of them share, such as their prompt, or None if they are independent"
        )
    return column


def check_group_labels(labels: Any, n: int | None, name: str) -> tuple[NDArray[np.int64], pd.Index[Any]]:
    """Return ``group_ids (n,)``, -1 for unassigned rows, and the sorted index of group labels that they point into.

    ``labels`` is one sequence or several: a DataFrame, a mapping of names to sequences, or an (n, s) array. The groups
    of several are their intersections, with a MultiIndex. A row without a label in any feature is unassigned. ``n``
    says how many labels there must be; None if no samples do.
    """
    names, columns = label_columns(labels, name)
    if columns[0].ndim != 1 or len({column.shape for column in columns}) > 1:
        shapes = ", ".join(f"{key}: {column.shape}" for key, column in zip(names, columns, strict=True))
        raise ValueError(
            f"{name} has features of wrong or unequal shapes ({shapes}); pass one label per sample in each"
        )
    n_labels = len(columns[0])
    if n is not None and n_labels != n:
        joined = ", joining batches first" if n_labels * len(columns) == n else ""
        raise ValueError(
            f"{name} has {n_labels} labels for {n} samples; pass one label per sample, in the same order{joined}"
        )
    frame = pd.DataFrame(dict(enumerate(columns)))
    assigned = frame.notna().all(axis=1).to_numpy()
    if not assigned.any():
        raise ValueError(f"{name} assigns none of {n_labels} samples to a group (all are missing); check the labels")
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


def label_columns(
    labels: Any, name: str, *, known: Container[str] = (), warned: set[str] | None = None
) -> tuple[list[str], list[NDArray[Any]]]:
    """Split labels into features; return their names, and their columns in one form however they are held.

    A column holds integers or booleans, or objects: plain Python values, and None where a label is missing. None, NaN,
    NaT, ``pandas.NA``, a masked value and an empty text are missing. So are the words that software writes for them
    (``"NA"``, ``"nan"``, ``"null"``, ``"None"``, ...), with a :class:`MissingLabelWarning` that counts them; but not
    those in ``known``, which are names of groups, and without a warning those in ``warned``, to which others are added.

    Bytes are read as UTF-8; what is no UTF-8 text is an error. White space and a byte order mark around a text are not
    part of it. Whole floats become integers if all are whole: that is how NumPy and pandas hold integers beside a
    missing one.
    """
    if hasattr(labels, "to_pydict"):  # a table of pyarrow
        labels = labels.to_pydict()
    if isinstance(labels, pd.DataFrame | Mapping):
        names = [str(key) for key, _ in labels.items()]
        columns = [_label_array(column, name) for _, column in labels.items()]
    else:
        array = _label_array(labels, name)
        if array.ndim not in (1, 2):
            raise ValueError(f"{name} has shape {array.shape}, expected one label per sample, (n,) or (n, features)")
        if array.ndim == 1:
            given = labels.name if isinstance(labels, pd.Series | pd.Index) else None
            names, columns = ["group" if given is None else str(given)], [array]
        else:
            names = [f"sensitive_feature_{i}" for i in range(array.shape[1])]
            columns = list(array.T)
    if not columns:
        raise ValueError(f"{name} has no columns; pass one label per sample")
    if len(set(names)) < len(names):
        raise ValueError(f"{name} names a feature twice ({listed(names)}); rename or drop one")
    for feature in names:
        try:
            feature.encode()
        except UnicodeError as error:
            raise ValueError(f"{name} has a feature {feature!r}, which is not UTF-8 text; rename it") from error
    words: Counter[str] = Counter()
    columns = [_plain_labels(column, name, known, words) for column in columns]
    _warn_of_words(words, name, warned)
    return names, columns


def _label_array(labels: Any, name: str) -> NDArray[Any]:
    if isinstance(labels, str | bytes) or not (isinstance(labels, Sequence) or hasattr(labels, "__array__")):
        raise TypeError(f"{name} is {type(labels).__name__}, expected a sequence with one label per sample; pass one")
    if hasattr(labels, "detach"):
        return as_array(labels, name)
    if isinstance(labels, np.ma.MaskedArray):
        array = labels.data.astype(object)
        array[np.ma.getmaskarray(labels)] = None
        return array
    if hasattr(labels, "to_pylist"):  # an array of pyarrow; NumPy would make floats of integers beside a null
        labels = labels.to_pylist()
    # As objects: NumPy would make floats of pandas' Int64, and strings of the NaN in ["a", nan] and the 1 in ["a", 1].
    if isinstance(labels, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return np.asarray(labels, dtype=object)
    return np.asarray(labels) if hasattr(labels, "__array__") else np.asarray(_plain_values(labels), dtype=object)


def _plain_labels(column: NDArray[Any], name: str, known: Container[str], words: Counter[str]) -> NDArray[Any]:
    """Return a column in the one form of :func:`label_columns`; add the words that were taken for missing labels."""
    if column.ndim != 1:
        return column
    if column.dtype.kind in "biu":
        return column.astype(column.dtype.newbyteorder("="), copy=False)  # pandas takes no other
    values = _plain_values(pd.Series(column).tolist() if column.dtype.kind in "mM" else column.tolist())
    plain = np.fromiter(values, dtype=object, count=len(values))
    try:
        codes, different = pd.factorize(plain)  # -1 where the label is missing
    except TypeError:  # labels that cannot be hashed, which whoever orders them refuses
        return plain
    rows = np.bincount(codes[codes >= 0], minlength=len(different))
    kept: list[Any] = [_plain_text(label, name) if isinstance(label, str | bytes) else label for label in different]
    for i, label in enumerate(kept):
        if isinstance(label, str) and label in MISSING_WORDS and label not in known:
            words[label] += int(rows[i])
            kept[i] = None
    if all(isinstance(label, float) and label.is_integer() for label in kept):
        kept = [int(label) for label in kept]
    return np.fromiter([*kept, None], dtype=object, count=len(kept) + 1)[codes]  # -1 takes the last


def _plain_values(values: Iterable[Any]) -> list[Any]:
    """Replace scalars of NumPy and pyarrow and 0-d tensors by Python's; a tensor is neither equal nor ordered."""
    values = list(values)
    kinds = set(map(type, values))
    if any(hasattr(kind, "as_py") for kind in kinds):
        values = [value.as_py() if hasattr(value, "as_py") else value for value in values]
    if any(hasattr(kind, "tolist") for kind in kinds):
        values = [value.tolist() if hasattr(value, "tolist") else value for value in values]
    return values


def _plain_text(value: str | bytes, name: str) -> str | None:
    try:
        text = value.decode() if isinstance(value, bytes) else value
        text.encode()  # fails on half a character, as in the name of a file that is not UTF-8
    except UnicodeError as error:
        raise ValueError(
            f"{name} holds the label {value!r}, which is not UTF-8 text; decode the labels with their encoding, "
            "or rename the group"
        ) from error
    return text.removeprefix("\ufeff").strip() or None


def _warn_of_words(words: Counter[str], name: str, warned: set[str] | None) -> None:
    new = {word: n for word, n in words.items() if warned is None or word not in warned}
    if not new:
        return
    if warned is not None:
        warned.update(new)
    rows = listed(f"{word!r} ({n} row{'s' if n > 1 else ''})" for word, n in sorted(new.items()))
    warnings.warn(
        f"{name} has labels that were taken for missing, so their rows are in no group: {rows}. If one is the name of "
        "a group, write another name, such as 'Namibia' for 'NA'; if it is not, None (in a file: nothing) in its place "
        "ends this warning",
        MissingLabelWarning,
        stacklevel=outer_stacklevel(),
    )


def _written_otherwise(first: Sequence[Hashable], second: Sequence[Hashable]) -> str:
    """Name pairs of different labels that are one but for spaces, case or the type: ``"1 and '1.0'"``; else ""."""
    by_form = {_form(label): label for label in first}
    pairs = ((by_form[form], label) for label in second if (form := _form(label)) in by_form)
    return listed(f"{one!r} and {other!r}" for one, other in pairs)


def _form(label: Hashable) -> Hashable:
    if isinstance(label, tuple):
        return tuple(map(_form, label))
    text = "".join(unicodedata.normalize("NFKC", str(label)).casefold().split())
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def group_text(label: Hashable) -> str:
    """Return the label of a group, or the labels of an intersection, for tables and figures: ``"female, old"``."""
    return ", ".join(shown(str(part)) for part in (label if isinstance(label, tuple) else (label,)))
