"""Features, group labels and texts from files; reading a file never runs code that it holds.

A ``.npy``, ``.npz``, ``.safetensors`` or ``.pt`` file holds arrays, a ``.csv`` or ``.parquet`` file holds columns, a
``.txt`` file holds one label per line. An ``.egt`` file is a reference (:class:`egtmetrics.Reference`), whose features
go on as such, and whose labels it holds by name. Group labels are in the features' file or in another one. They are
read as text, so that ``1`` in a ``.csv`` and ``1`` in a ``.npy`` are one group. Texts come in a ``.jsonl``, ``.csv`` or
``.parquet`` file with their labels, or in a ``.txt`` file without. Text files are UTF-8, with or without a byte order
mark.

A damaged file, or one that is no file on disk, is an error that names it. So is one that would unpack to more than a
hundred times its size. A ``.npy`` file is mapped, not read. If it is cut short while it is in use, the system ends the
process; the command line then names the file.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._atomic import write_whole
from egtmetrics._errors import listed
from egtmetrics._extras import extra
from egtmetrics.confusion import Confusion
from egtmetrics.data._arrays import (
    ONLY,
    Entry,
    check_not_derived,
    npy_entries,
    npz_entries,
    reference_entries,
    safetensors_entries,
    squeezed,
    torch_entries,
)
from egtmetrics.data._reading import check_regular, parsed_json, reading
from egtmetrics.data._tables import (
    CsvTable,
    ParquetTable,
    Table,
    first_json_line,
    read_json_lines,
    read_lines,
    text_frame,
)

if TYPE_CHECKING:
    import pandas as pd

_TABLE_SUFFIXES = (".csv", ".parquet", ".txt")
_FEATURES, _PROVENANCE, _NAMES = "features", "egtmetrics_provenance", "file_name"
"""Names of arrays in what :func:`write_labelled_features` writes; the first also in other files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledFeatures:
    """The real or the generated samples, as they were read."""

    features: NDArray[Any]
    """Shape ``(n, d)``; memory-mapped in a ``.npy`` or ``.egt``. Their values are checked by what uses them."""
    groups: pd.DataFrame
    """Shape ``(n, s)``: one column of text labels per sensitive feature, None where a row has no label."""
    source: dict[str, Any]
    """Where it came from: file, key, groups, shape and dtype, ready for JSON; and ``encoder`` and ``samples`` where
    :func:`write_labelled_features` has stored which encoder made them of what."""
    others: Mapping[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    """Other labels of the rows that were asked for, by name, in the form of ``groups``."""


def read_labelled_features(
    path: str | Path, *, groups: str | None = None, key: str | None = None, others: Mapping[str, str] | None = None
) -> LabelledFeatures:
    """Read the features of one set and the group of each of its rows.

    ``groups`` is a file, ``FILE:KEY``, or a key (a column) of the features' own file; several keys, separated by
    commas, give their intersections. A value that names an existing file means that file. A reference and a file of
    :func:`write_labelled_features` need none: their groups are then those that they were made with. An empty text
    means no groups.

    ``key`` names the features: an array, or columns separated by commas. Without it, the features are the array called
    ``features``, else the only two-dimensional array; in a table, all columns that are not labels. ``others`` says, by
    name, where further labels are (clusters, control features), in the form of ``groups``.

    In a ``.pt`` file, a list of batches is one array, and the items of a tuple, such as ``(features, labels)``, are
    called 0, 1, ... Features of shape ``(n, d, 1, 1)`` are ``(n, d)``. In a ``.csv`` file, every line has as many
    fields as the first, and no feature is missing. Where the first line has no comma, semicolons or tabs separate the
    fields. Labels in ``.csv`` and ``.txt`` files are read without the spaces around them. An empty line of a ``.txt``
    file is a row without a label, but those behind the last row do not count.

    Raises
    ------
    OSError
        A file is missing or cannot be opened.
    ValueError
        A file is damaged or not what its suffix says, is a pipe or a device, holds Python objects or lacks the key;
        the features are not two-dimensional numbers, or there is not one label per row.
    ImportError
        A ``.pt`` file needs torch, a ``.safetensors`` file safetensors, a ``.parquet`` file pyarrow.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "fake.csv").write_text("x,y,gender\\n0.5,1,f\\n1.5,2,m\\n")
    ...     fake = read_labelled_features(Path(folder, "fake.csv"), groups="gender")
    >>> fake.features.tolist(), fake.groups["gender"].tolist()
    ([[0.5, 1.0], [1.5, 2.0]], ['f', 'm'])
    """
    path = Path(path)
    contents = _open(path)
    provenance = _provenance(contents, path)
    no_groups = groups == ""
    if groups is None:
        groups = ",".join(_own_groups(contents, provenance, path))
        if not groups:
            raise ValueError(
                f"{path}: holds no names of groups; say where the labels of its rows are (--groups, --real-groups, "
                "--fake-groups, or of a baseline --baseline-groups)"
            )
    asked = {**({} if no_groups else {"groups": groups}), **(others or {})}
    places = {name: _locate_labels(where, path) for name, where in asked.items()}
    inside = {name: keys for name, (file, keys) in places.items() if os.path.realpath(file) == os.path.realpath(path)}
    found = {name: _labels(contents, keys, path) for name, keys in inside.items()}
    features, key = _features(contents, key, path, exclude=[label for keys in inside.values() for label in keys])
    for name, (labels_path, label_keys) in places.items():
        labels = found[name] if name in inside else _labels(_open(labels_path), label_keys, labels_path)
        if labels_path.suffix.lower() == ".txt" and labels.iloc[len(features) :].isna().all(axis=None):
            labels = labels.iloc[: len(features)]  # empty lines behind the last row
        if len(labels) != len(features):
            raise ValueError(
                f"{labels_path}: {len(labels)} labels for the {len(features)} rows of {path}, expected one per row"
                f"{_reason(labels, labels_path)}"
            )
        found[name] = labels
    if no_groups:
        found["groups"] = text_frame({}, path, labels=()).reindex(range(len(features)))
    return LabelledFeatures(
        features=features,
        groups=found.pop("groups"),
        others=found,
        source={
            "file": str(path),
            "key": key,
            "groups": groups or None,
            **(others or {}),
            "shape": list(features.shape),
            "dtype": str(features.dtype),
            **{name: provenance[name] for name in ("samples", "encoder") if name in provenance},
        },
    )


def write_labelled_features(
    path: str | Path,
    features: NDArray[Any],
    groups: pd.DataFrame | None,
    *,
    provenance: Mapping[str, Any],
    names: Sequence[str] | None = None,
) -> None:
    """Write a ``.npz`` file that :func:`read_labelled_features` reads, whole or not at all.

    Parameters
    ----------
    path
        Ends in ``.npz``.
    features
        Shape ``(n, d)``, stored as ``features``.
    groups
        Shape ``(n, s)``: one column of text labels per sensitive feature, None where a row has no label; each is stored
        under its name. None if there are none.
    provenance
        ``encoder``, as an encoder's ``identity``, and ``samples``, of what the features were made; stored as JSON,
        under ``egtmetrics_provenance``.
    names
        Of the rows, such as those of image files; stored as ``file_name``.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        Its name does not end in .npz, a sensitive feature has a name that is taken, or lengths differ.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "real.npz")
    ...     labels = pd.DataFrame({"gender": ["f", None]})
    ...     write_labelled_features(file, np.zeros((2, 3)), labels, provenance={"encoder": {"model": "mine"}})
    ...     real = read_labelled_features(file)
    >>> real.features.shape, real.groups["gender"].tolist(), real.source["encoder"]
    ((2, 3), ['f', None], {'model': 'mine'})
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path}: features are written as .npz; choose a name that ends in it")
    columns: dict[str, list[Any]] = {}
    if groups is not None:
        columns = {
            str(name): labels.where(labels.notna(), "").tolist() for name, labels in groups.astype(object).items()
        }
    taken = [name for name in columns if name in (_FEATURES, _PROVENANCE, _NAMES) or "," in name]
    if taken:
        raise ValueError(f"a sensitive feature cannot be called {taken[0]!r} in {path}; rename it")
    rows = {**columns, **({} if names is None else {_NAMES: list(names)})}
    unequal = [name for name, values in rows.items() if len(values) != len(features)]
    if unequal:
        raise ValueError(f"{path}: {len(rows[unequal[0]])} of {unequal[0]} for {len(features)} rows, expected one each")
    described = json.dumps({**provenance, "groups": list(columns)}, ensure_ascii=False)
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: np.array(values, dtype=str) for name, values in rows.items()}
    np.savez(file, **(arrays | {_FEATURES: features, _PROVENANCE: np.array(described)}))
    write_whole(path, [file.getbuffer()])


def column_names(path: str | Path) -> list[str]:
    """Return the names of the columns of a ``.csv``, ``.parquet`` or ``.jsonl`` file, whose rows are not read.

    Those of a ``.jsonl`` file are the keys of its first line.

    Raises
    ------
    OSError
        The file is missing or cannot be opened.
    ValueError
        It is of another kind or damaged, or two columns have one name.
    ImportError
        A ``.parquet`` file needs pyarrow.
    """
    path = Path(path)
    if path.suffix.lower() == ".jsonl":
        check_regular(path)
        return list(first_json_line(path))
    if path.suffix.lower() == ".parquet":
        check_regular(path)
        with extra("files", f"{path}: reading it needs another package"):
            import pyarrow.parquet
        with reading(path):
            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
    contents = _open(path)
    if isinstance(contents, Mapping):
        raise ValueError(f"{path}: holds arrays, expected the columns of a .csv, .parquet or .jsonl file")
    return list(contents.names)


def read_text_columns(path: str | Path, keys: Sequence[str], *, labels: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns of text: ``(n, len(keys) + len(labels))`` of str, None where there is none.

    A ``.jsonl`` file holds one object per line, a ``.csv`` or ``.parquet`` file columns. A ``.txt`` file holds one text
    per line and nothing else; any single key stands for it. Empty lines of a ``.jsonl`` file, and those at the end of a
    ``.txt`` file, do not count. Numbers and booleans become text. ``labels`` are read in the same way, but in a
    ``.csv`` without the spaces around them.

    Raises
    ------
    OSError
        The file is missing or cannot be opened.
    ValueError
        It is damaged or not what its suffix says, is empty, lacks a key, or holds lists or objects under it.
    ImportError
        A ``.parquet`` file needs pyarrow.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "real.jsonl").write_text('{"text": "She wrote.", "age": 4}\\n{"text": "He wrote."}\\n')
    ...     columns = read_text_columns(Path(folder, "real.jsonl"), ["text", "age"])
    >>> columns["text"].tolist(), columns["age"].tolist()
    (['She wrote.', 'He wrote.'], ['4', None])
    """
    path = Path(path)
    keys = list(dict.fromkeys([*keys, *labels]))
    suffix = path.suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; expected one of {', '.join(TEXT_SUFFIXES)}")
    check_regular(path)
    if suffix == ".jsonl":
        lines = read_json_lines(path, keys)
        _check_keys(lines, keys, path)
        columns: dict[str, Any] = {key: lines[key] for key in keys}
    elif suffix == ".txt":
        if len(keys) > 1:
            raise ValueError(
                f"{path}: a .txt file holds one text per line and no {keys[1]!r}; put texts and labels into a .jsonl "
                "or .csv file"
            )
        lines_of_text = read_lines(path)
        while not lines_of_text[-1].strip():
            lines_of_text.pop()
        columns = {keys[0]: lines_of_text}
    else:
        columns = _columns(_open(path), keys, path)
    return text_frame(columns, path, labels=labels)


def read_confusion(path: str | Path, *, true: str = "true", called: str = "called") -> Confusion:
    """Read the confusion of an oracle: labelled samples, one in each row, or a table that was counted already.

    Parameters
    ----------
    path
        A ``.csv``, ``.parquet`` or ``.jsonl`` file of labelled samples, a random part of those that the oracle is for.
        Or a ``.csv`` file without the column ``called``: the first column names the true groups, every other one a
        called group, or abstentions, as ``oracle.confusion.counts.to_csv("confusion.csv")`` writes it.
    true, called
        The columns with the group by hand, and with what the oracle calls it: empty where it abstains.

    Raises
    ------
    OSError, ValueError, ImportError
        As for :func:`read_text_columns`; or ``called`` holds a group that ``true`` does not; or what
        :class:`~egtmetrics.confusion.Confusion` refuses in a table.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "hand.csv").write_text("true,called\\nf,f\\nf,m\\nm,m\\nm,\\n")
    ...     confusion = read_confusion(Path(folder, "hand.csv"))
    >>> confusion.error_by_group, confusion.abstention_by_group
    ({'f': 0.5, 'm': 0.0}, {'f': 0.0, 'm': 0.5})

    A table:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     confusion.counts.to_csv(Path(folder, "confusion.csv"))
    ...     print(Path(folder, "confusion.csv").read_text().splitlines())
    ...     read_confusion(Path(folder, "confusion.csv")).error_by_group
    ['true,f,m,(none)', 'f,1,1,0', 'm,0,1,1']
    {'f': 0.5, 'm': 0.0}
    """
    path = Path(path)
    if path.suffix.lower() == ".csv" and called not in (names := column_names(path)) and len(names) > 2:
        return _counted_confusion(path, names)
    labels = read_text_columns(path, [], labels=[true, called])
    try:
        return Confusion.of_labels(labels[true], labels[called])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _counted_confusion(path: Path, names: Sequence[str]) -> Confusion:
    table = read_text_columns(path, [], labels=names).set_index(names[0])
    try:
        return Confusion(table.astype(float))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: {error}; write a row for each true group, with a number for each called one, or the columns true "
            "and called"
        ) from error


def _provenance(contents: Mapping[str, Entry] | Table, path: Path) -> dict[str, Any]:
    """Return what :func:`write_labelled_features` has stored; nothing of other files."""
    entry = contents.get(_PROVENANCE) if isinstance(contents, Mapping) else None
    if entry is None or entry.shape != () or path.suffix.lower() != ".npz":
        return {}
    with reading(path):
        found = parsed_json(str(entry.load()))
        if not isinstance(found, dict):
            raise ValueError(f"its {_PROVENANCE} is no object of JSON")
    return found


def _own_groups(contents: Mapping[str, Entry] | Table, provenance: Mapping[str, Any], path: Path) -> list[str]:
    """Return the names of the groups that a file says it holds."""
    if path.suffix.lower() == ".egt" and isinstance(contents, Mapping):
        return [name for name in contents if name != _FEATURES]
    return [str(name) for name in provenance.get("groups", [])]


def _locate_labels(groups: str, features_path: Path) -> tuple[Path, list[str]]:
    """Return the file of the labels and their keys; no keys where ``groups`` is a file alone."""
    if _is_file(groups):
        return Path(groups), []
    head, _, keys = groups.rpartition(":")
    if _is_file(head):
        return Path(head), keys.split(",")
    return features_path, groups.split(",")


def _is_file(value: str) -> bool:
    """Whether the value means a file, even one that is missing."""
    return os.path.isfile(value) or Path(value).suffix.lower() in SUFFIXES


def _open(path: Path) -> Mapping[str, Entry] | Table:
    """Return what a file holds; arrays are read when their entry is."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; expected one of {', '.join(SUFFIXES)}")
    check_regular(path)  # first of all, so that a missing file is an OSError whatever the reader
    with extra("torch" if suffix in (".pt", ".pth") else "files", f"{path}: reading it needs another package"):
        contents: Mapping[str, Entry] | Table = _READERS[suffix](path)
    return contents


def _label_lines(path: Path) -> dict[str, Entry]:
    labels = read_lines(path)
    return {ONLY: Entry((len(labels),), lambda: labels)}


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": npy_entries,
    ".npz": npz_entries,
    ".egt": reference_entries,
    ".safetensors": safetensors_entries,
    ".pt": torch_entries,
    ".pth": torch_entries,
    ".csv": CsvTable,
    ".parquet": ParquetTable,
    ".txt": _label_lines,
}
SUFFIXES = tuple(_READERS)
TEXT_SUFFIXES = (".jsonl", ".csv", ".parquet", ".txt")


def _features(
    contents: Mapping[str, Entry] | Table, key: str | None, path: Path, *, exclude: Sequence[str]
) -> tuple[NDArray[Any], str | None]:
    """Return the features and the key they were found under."""
    if path.suffix.lower() == ".txt":
        raise ValueError(f"{path}: a .txt file holds one label per line; name a file of comma-separated numbers .csv")
    if not isinstance(contents, Mapping):
        columns = key.split(",") if key else [name for name in contents.names if name not in exclude]
        if not columns:
            raise ValueError(f"{path}: no column for the features; it holds {_listing(contents)}")
        _check_keys(contents, columns, path)
        return contents.numbers(columns), key
    check_not_derived(contents, path)
    if key is None and _FEATURES in contents:
        key = _FEATURES
    if key is None:
        matrices = [
            name for name, entry in contents.items() if name not in exclude and len(squeezed(entry.shape) or ()) == 2
        ]
        if len(matrices) != 1:
            raise ValueError(_no_matrix(contents, len(matrices), path))
        key = matrices[0]
    _check_keys(contents, [key], path)
    features = contents[key].load()
    shape = squeezed(contents[key].shape)
    where = f"{path}[{key!r}]" if key else f"{path}"
    if shape is None or len(shape) != 2:
        raise ValueError(f"{where} has shape {contents[key]}, expected (n_samples, n_features); flatten each sample")
    if features.shape != shape:
        features = features.reshape(shape)
    if features.dtype.kind not in "biuf":
        raise ValueError(f"{where} has dtype {features.dtype}, expected real numbers; convert it")
    return features, key or None


def _reason(labels: pd.DataFrame, path: Path) -> str:
    """Return a guess why there are too few or too many labels."""
    empty = labels.isna().to_numpy()
    if path.suffix.lower() == ".csv":
        return " (the first line of a .csv names its columns)"
    if path.suffix.lower() == ".txt" and empty.any():
        return f" (line {int(np.argmax(empty)) + 1} is empty, which is a row without a label)"
    return ""


def _no_matrix(contents: Mapping[str, Entry], n: int, path: Path) -> str:
    shapes = {entry.shape for entry in contents.values()}
    message = f"{path}: {n} two-dimensional arrays to take the features from"
    if n == 0 and len(contents) > 1 and len(shapes) == 1 and len(next(iter(shapes)) or ()) == 1:
        return (
            f"{message}, but {len(contents)} vectors of shape {shapes.pop()}: {_listing(contents)}; if they are the "
            "rows, stack them to one array, and save the labels in the same order"
        )
    if n == 0:
        return f"{message}; it holds {_listing(contents)}; save an array (n_samples, n_features)"
    return (
        f"{message}; name one of {_listing(contents)} (egtmetrics evaluate: --real-key, --fake-key), or join them if "
        "they are batches"
    )


def _labels(contents: Mapping[str, Entry] | Table, keys: Sequence[str], path: Path) -> pd.DataFrame:
    names = list(contents if isinstance(contents, Mapping) else contents.names)
    if not keys and len(names) != 1:
        raise ValueError(f"{path}: which of {_listing(contents)} holds the labels? Name it as {path}:KEY")
    return text_frame(_columns(contents, keys or names, path), path, labels=keys or names)


def _columns(contents: Mapping[str, Entry] | Table, keys: Sequence[str], path: Path) -> dict[str, Any]:
    _check_keys(contents, keys, path)
    if not isinstance(contents, Mapping):
        return contents.text(keys)
    for key in keys:
        shape = contents[key].shape
        if shape is None or len(shape) != 1:
            raise ValueError(
                f"{path}: {repr(key) if key else 'its array'} has shape {contents[key]}, expected one label per row; "
                "name several one-dimensional labels, separated by commas, for their intersections"
            )
    return {key: contents[key].load() for key in keys}


def _check_keys(contents: Mapping[str, Any] | Table, keys: Sequence[str], path: Path) -> None:
    names = contents if isinstance(contents, Mapping) else contents.names
    unknown = [key for key in keys if key not in names]
    if unknown:
        suffix = path.suffix.lower()
        kind = "column" if suffix in _TABLE_SUFFIXES else "key" if suffix == ".jsonl" else "array"
        raise ValueError(f"{path}: no {kind} {unknown[0]!r} in it; it holds {_listing(contents)}")


def _listing(contents: Mapping[str, Any] | Table) -> str:
    if not isinstance(contents, Mapping):
        return listed(map(repr, contents.names))
    if ONLY in contents:
        return f"a single array without a name, of shape {contents[ONLY]}"
    return (
        listed(f"{name!r} {entry}" if isinstance(entry, Entry) else repr(name) for name, entry in contents.items())
        or "nothing"
    )
