"""Features, group labels and texts from files; reading a file never runs code that it holds.

A ``.npy``, ``.npz``, ``.safetensors`` or ``.pt`` file holds arrays, a ``.csv`` or ``.parquet`` file holds columns, a
``.txt`` file holds one label per line. Group labels are in the features' file or in another one. They are read as text,
so that ``1`` in a ``.csv`` and ``1`` in a ``.npy`` are one group. Texts come in a ``.jsonl``, ``.csv`` or ``.parquet``
file with their labels, or in a ``.txt`` file without.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import first_line, listed
from egtmetrics._extras import extra

if TYPE_CHECKING:
    import pandas as pd

_TABLE_SUFFIXES = (".csv", ".parquet", ".txt")
SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth", *_TABLE_SUFFIXES)

TEXT_SUFFIXES = (".jsonl", *_TABLE_SUFFIXES)

_ONLY = ""
"""The key of the single array of a file that names none."""

_FEATURES = "features"
_NO_PICKLE = "Python objects are not loaded, because that can run code"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledFeatures:
    """The real or the generated samples, as they were read."""

    features: NDArray[Any]
    """Shape ``(n, d)``; memory-mapped where the file is a ``.npy``. Their values are checked by what uses them."""
    groups: pd.DataFrame
    """Shape ``(n, s)``: one column of text labels per sensitive feature, None where a row has no label."""
    source: dict[str, Any]
    """Where it came from: file, key, groups, shape and dtype, ready for JSON."""


def read_labelled_features(path: str | Path, *, groups: str, key: str | None = None) -> LabelledFeatures:
    """Read the features of one set and the group of each of its rows.

    ``groups`` is a file, ``FILE:KEY``, or a key (a column) of the features' own file; several keys, separated by
    commas, give their intersections. A value that names an existing file means that file. ``key`` names the features:
    an array, or columns separated by commas. Without it, the features are the array called ``features``, else the only
    two-dimensional array; in a table, all columns that are not labels.

    Raises
    ------
    OSError
        A file is missing or cannot be opened.
    ValueError
        A file is not what its suffix says, holds Python objects or lacks the key, the features are not
        two-dimensional, or there is not one label per row.
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
    labels_path, label_keys = _locate_labels(groups, path)
    same_file = labels_path.resolve() == path.resolve()
    with _open(path, text_columns=label_keys if same_file else ()) as contents:
        if same_file:
            labels = _labels(contents, label_keys, path)
        features, key = _features(contents, key, path, exclude=label_keys if same_file else ())
    if features.ndim != 2:
        raise ValueError(
            f"{f'{path}[{key!r}]' if key else path} has shape {features.shape}, expected (n_samples, n_features); "
            "flatten each sample"
        )
    if not same_file:
        with _open(labels_path, text_columns=None) as contents:
            labels = _labels(contents, label_keys, labels_path)
    if len(labels) != len(features):
        hint = " (the first line of a .csv names its columns)" if labels_path.suffix.lower() == ".csv" else ""
        raise ValueError(
            f"{labels_path}: {len(labels)} labels for the {len(features)} rows of {path}, expected one per row{hint}"
        )
    return LabelledFeatures(
        features=features,
        groups=labels,
        source={
            "file": str(path),
            "key": key,
            "groups": groups,
            "shape": list(features.shape),
            "dtype": str(features.dtype),
        },
    )


def read_text_columns(path: str | Path, keys: Sequence[str]) -> pd.DataFrame:
    """Read columns of text: ``(n, len(keys))`` of str, None where there is none.

    A ``.jsonl`` file holds one object per line, a ``.csv`` or ``.parquet`` file columns. A ``.txt`` file holds one text
    per line and nothing else; any single key stands for it. Numbers and booleans become text.

    Raises
    ------
    OSError
        The file is missing or cannot be opened.
    ValueError
        It is not what its suffix says, is empty, lacks a key, or holds lists or objects under it.
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
    suffix = path.suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; expected one of {', '.join(TEXT_SUFFIXES)}")
    if suffix == ".jsonl":
        contents: Mapping[str, Any] = _json_lines(path, keys)
    elif suffix == ".txt":
        if len(keys) > 1:
            raise ValueError(
                f"{path}: a .txt file holds one text per line and no {keys[1]!r}; put texts and labels into a .jsonl "
                "or .csv file"
            )
        contents = {keys[0]: _lines(path)}
    else:
        with _open(path, text_columns=None) as contents:
            pass
    return _text_frame({key: _get(contents, key, path) for key in keys}, path)


def _json_lines(path: Path, keys: Sequence[str]) -> dict[str, list[Any]]:
    """Map every key to its values, None where a line lacks it."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is not JSON ({error}); expected one object per line") from error
        if not isinstance(row, dict):
            raise ValueError(f'{path}: line {number} is not a JSON object, expected for example {{"text": "..."}}')
        nested = [key for key in keys if isinstance(row.get(key), list | dict)]
        if nested:
            raise ValueError(f"{path}: line {number} holds a list or an object under {nested[0]!r}, expected text")
        rows.append(row)
    return {key: [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error}); convert it") from error
    lines = text.removesuffix("\n").split("\n")  # splitlines would also split at separators inside JSON and texts
    if not text.strip():
        raise ValueError(f"{path}: has no lines")
    return lines


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
    return Path(value).is_file() or Path(value).suffix.lower() in SUFFIXES


@contextmanager
def _open(path: Path, *, text_columns: Sequence[str] | None) -> Iterator[Mapping[str, Any]]:
    """Map names to arrays or columns; ``text_columns`` of a ``.csv`` (None: all) are not read as numbers."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; expected one of {', '.join(SUFFIXES)}")
    with path.open("rb") as file:  # first of all, so that a missing file is an OSError whatever the reader
        try:
            with extra("torch" if suffix in (".pt", ".pth") else "files", f"{path}: reading it needs another package"):
                contents = _read(path, file, text_columns)
        except (OSError, ImportError):
            raise
        except Exception as error:  # each format has errors of its own, not all of them ValueErrors
            if "pickl" in f"{type(error).__name__} {error}" or "Python objects" in str(error):
                raise ValueError(
                    f"{path}: holds no plain arrays; {_NO_PICKLE}. Save numbers, and labels as text"
                ) from error
            raise ValueError(f"{path}: cannot be read as {suffix} ({first_line(error)})") from error
        yield contents


def _read(path: Path, file: IO[bytes], text_columns: Sequence[str] | None) -> Mapping[str, Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return {_ONLY: np.lib.format.open_memmap(path, mode="r")}
    if suffix == ".npz":
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, Mapping):
            raise ValueError("it holds a single array; name it .npy")
        return archive
    if suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    if suffix in (".pt", ".pth"):
        return _torch_file(path)
    return _table(path, text_columns)


def _torch_file(path: Path) -> Mapping[str, Any]:
    import torch

    contents = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(contents, Mapping):
        contents = {_ONLY: contents}
    return {
        str(key): value.detach().to(torch.float32 if value.dtype == torch.bfloat16 else value.dtype).numpy()
        if isinstance(value, torch.Tensor)
        else value
        for key, value in contents.items()
    }


def _table(path: Path, text_columns: Sequence[str] | None) -> Mapping[str, Any]:
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        frame = pd.read_parquet(path)
    elif path.suffix.lower() == ".txt":
        frame = pd.DataFrame({_ONLY: path.read_text(encoding="utf-8").splitlines()}, dtype=object)
    else:
        header = _csv_header(path)
        frame = pd.read_csv(
            path,
            header=None if header is None else 0,
            dtype=str if text_columns is None else dict.fromkeys(text_columns, str),
            skipinitialspace=True,
            keep_default_na=False,  # "NA" and "None" can be labels; only an empty field is missing
            na_values=[""],
        )
        if header is not None and "" in header:
            raise ValueError(
                f"column {header.index('') + 1} has no name; if it is the index of a pandas DataFrame, write the file "
                "with index=False"
            )
    if frame.empty:
        raise ValueError("it has no rows")
    return {str(name): column.to_numpy() for name, column in frame.items()}


def _csv_header(path: Path) -> list[str] | None:
    """Return the fields of the first line, or None where it is already data, as ``numpy.savetxt`` writes it."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        fields = [field.strip() for field in next(csv.reader(file), [])]
    if fields == [str(i) for i in range(len(fields))]:  # how pandas numbers columns
        return fields
    try:
        [float(field) for field in fields]
    except ValueError:
        return fields
    return None


def _features(
    contents: Mapping[str, Any], key: str | None, path: Path, *, exclude: Sequence[str]
) -> tuple[NDArray[Any], str | None]:
    """Return the features and the key they were found under."""
    if path.suffix.lower() == ".txt":
        raise ValueError(f"{path}: a .txt file holds one label per line; name a file of comma-separated numbers .csv")
    if path.suffix.lower() in _TABLE_SUFFIXES:
        columns = key.split(",") if key else [name for name in contents if name not in exclude]
        if not columns:
            raise ValueError(f"{path}: no column for the features; it holds {_listing(contents)}")
        arrays = [_feature_column(contents, name, path) for name in columns]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1), key
    if key is None and _FEATURES in contents:
        key = _FEATURES
    if key is None:
        two_dimensional = [name for name in contents if name not in exclude and _n_dimensions(contents, name) == 2]
        if len(two_dimensional) != 1:
            raise ValueError(
                f"{path}: {len(two_dimensional)} two-dimensional arrays to take the features from; name one of "
                f"{_listing(contents)} (egtmetrics evaluate: --real-key, --fake-key)"
            )
        key = two_dimensional[0]
    return np.asanyarray(_get(contents, key, path)), key or None


def _n_dimensions(contents: Mapping[str, Any], name: str) -> int:
    try:
        return int(np.ndim(contents[name]))
    except ValueError:  # an array of Python objects, which is not loaded, or a ragged list
        return -1


def _feature_column(contents: Mapping[str, Any], name: str, path: Path) -> NDArray[Any]:
    """Return one column as ``(n, width)``; the width is above 1 where each cell holds a whole embedding."""
    column: NDArray[Any] = _get(contents, name, path)
    if column.dtype == object and len(column) and isinstance(column[0], np.ndarray):
        widths = {np.shape(cell) for cell in column}
        if len(widths) > 1:
            raise ValueError(f"{path}: the embeddings of column {name!r} differ in length")
        column = np.stack(list(column))
    if column.ndim == 1:
        column = column[:, np.newaxis]
    if not np.issubdtype(column.dtype, np.number) and column.dtype != bool:
        raise ValueError(
            f"{path}: column {name!r} is not numeric, expected features; leave it out, name it as a label, or name the "
            "feature columns (egtmetrics evaluate: --real-key, --fake-key)"
        )
    return column


def _only_label(contents: Mapping[str, Any], path: Path) -> str:
    if len(contents) != 1:
        raise ValueError(f"{path}: which of {_listing(contents)} holds the labels? Name it as {path}:KEY")
    return next(iter(contents))


def _labels(contents: Mapping[str, Any], keys: Sequence[str], path: Path) -> pd.DataFrame:
    keys = keys or [_only_label(contents, path)]
    return _text_frame({key: _get(contents, key, path) for key in keys}, path)


def _text_frame(columns: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Return columns of text, None where a value is missing; the column of an array without a name is "group"."""
    import pandas as pd

    texts: dict[str, list[str | None]] = {}
    for key, values in columns.items():
        array = np.asarray(values, dtype=object) if isinstance(values, list | tuple) else np.asarray(values)
        if array.ndim != 1:
            raise ValueError(
                f"{path}: {repr(key) if key else 'its array'} has shape {array.shape}, expected one label per row; "
                "name several one-dimensional labels, separated by commas, for their intersections"
            )
        missing = pd.isna(array)
        texts[key or "group"] = [
            None if absent else _text(value) for value, absent in zip(array.tolist(), missing, strict=True)
        ]
    lengths = {key: len(column) for key, column in texts.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: the labels differ in length: {lengths}")
    return pd.DataFrame(texts, dtype=object)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, float) and value.is_integer():  # integers beside a missing value are stored as floats
        value = int(value)
    return str(value) or None


def _get(contents: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in contents:
        suffix = path.suffix.lower()
        kind = "column" if suffix in _TABLE_SUFFIXES else "key" if suffix == ".jsonl" else "array"
        raise ValueError(f"{path}: no {kind} {key!r} in it; it holds {_listing(contents)}")
    try:
        return contents[key]
    except ValueError as error:  # a .npz reads its arrays only here
        raise ValueError(
            f"{path}: array {key!r} holds Python objects; {_NO_PICKLE}. Save text as array.astype(str)"
        ) from error


def _listing(contents: Mapping[str, Any]) -> str:
    if _ONLY in contents:
        return "a single array without a name"
    return listed(map(repr, contents)) or "nothing"
