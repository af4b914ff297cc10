"""Tables in text and ``.parquet`` files, and files of lines."""

from __future__ import annotations

import contextlib
import csv
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._text import MISSING_WORDS
from egtmetrics.data._reading import check_unpacked, parsed_json, reading

if TYPE_CHECKING:
    import pandas as pd

_EXACT = 2.0**53
"""Up to this, every integer is a float64."""
_MISSING = {"", *map(str.lower, MISSING_WORDS)}
_BOOLEANS = {"true": 1.0, "false": 0.0}
_DECLARED = re.compile(r'("?)sep=([^\w"\r\n ])\1\s*')
"""A first line by which Excel is told the delimiter."""


class Table(Protocol):
    """Named columns of a file."""

    names: Sequence[str]

    def text(self, names: Sequence[str]) -> dict[str, Any]:
        """Return columns of labels or texts by name, each with one value per row."""

    def numbers(self, names: Sequence[str]) -> NDArray[Any]:
        """Return columns of finite numbers side by side."""


class CsvTable:
    """A ``.csv`` file: fields between commas, or between semicolons or tabs where its first line has no comma.

    A line ``sep=;`` on top, which is for Excel, says what stands between fields, and is no part of the table. The first
    line names the columns, unless it holds only numbers, as ``numpy.savetxt`` writes it. Every other line has as many
    fields as the first. Empty lines at the end do not count.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_text(path) as file:
            line = next(file, "")
            declared = _DECLARED.fullmatch(line)
            while line.isspace():
                line = next(file, "")
        self._n_skipped = 0 if declared is None else 1
        unquoted = re.sub('"[^"]*"', "", line)
        self._delimiter = declared[2] if declared else next((mark for mark in ",;\t" if mark in unquoted), ",")
        first = next((fields for _, fields in self._rows() if fields), None)
        if first is None:
            raise ValueError(f"{path}: is empty, expected a line of column names and one line per row")
        self._width = len(first)
        self._has_names = not _are_numbers(first) or first == _numbered(self._width)  # as pandas numbers columns
        self.names = [name.strip() for name in first] if self._has_names else _numbered(self._width)
        if "" in self.names:
            raise ValueError(
                f"{path}: column {self.names.index('') + 1} has no name; if it is the index of a pandas DataFrame, "
                "write the file with index=False"
            )
        check_unique(self.names, path)

    def text(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the fields as they are written; None where one is empty."""
        columns: dict[str, list[str | None]] = {name: [] for name in names}
        places = [(columns[name].append, self.names.index(name)) for name in columns]
        for _, fields in self._data():
            for append, place in places:
                append(fields[place] or None)
        return dict(columns)

    def numbers(self, names: Sequence[str]) -> NDArray[Any]:
        places = [self.names.index(name) for name in names]
        values = array("d")
        for line, fields in self._data():
            row = [fields[place] for place in places]
            try:
                if "_" in "".join(row):  # Python takes 1_000 for a number
                    raise ValueError
                values.extend([*map(float, row)])  # all or none
            except ValueError:  # the slower way reads true and false, and says what is wrong
                values.extend([self._number(fields[place], line, self.names[place]) for place in places])
        found = np.frombuffer(values).reshape(-1, len(places))
        if not (np.abs(found) < _EXACT).all():  # also where NaN is
            for line, fields in self._data():
                for place in places:
                    self._number(fields[place], line, self.names[place])
        return found

    def _number(self, field: str, line: int, name: str) -> float:
        text = field.strip()
        shown = repr(text[:40])
        if text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        where = f"{self.path}: line {line}, column {name!r}"
        if text.lower() in _MISSING:
            raise ValueError(
                f"{where} {f'is {text}' if text else 'is empty'}, but a feature cannot be missing; remove the row, or "
                "fill the value in"
            )
        try:
            number = float(text.replace("_", "?"))
        except ValueError as error:
            comma = " (write decimals with a point)" if "," in text else ""
            raise ValueError(
                f"{where} is not numeric but {shown}{comma}, expected features; leave the column out, name it as "
                "a label, or name the feature columns (egtmetrics evaluate: --real-key, --fake-key)"
            ) from error
        if not math.isfinite(number):
            raise ValueError(f"{where} is {shown}, expected a finite number; remove the row, or repair the encoder")
        if re.fullmatch(r"[+-]?\d{1,400}", text) and number != int(text):
            raise ValueError(f"{where} is {shown}, more than a float64 holds exactly; scale it, or leave it out")
        return number

    def _data(self) -> Iterator[tuple[int, list[str]]]:
        """Yield number and fields of every line below the names."""
        blank, n = 0, -1 if self._has_names else 0
        for line, fields in self._rows():
            if not fields or (fields == [""] and self._width > 1):  # empty, or of spaces
                blank = blank or line
                continue
            if n < 0:
                blank, n = 0, 0
                continue
            if blank and self._width == 1:
                raise ValueError(
                    f'{self.path}: line {blank} is empty, so it is unclear whether it counts as a row; write "" for a '
                    "row without a label, or remove the line"
                )
            if len(fields) != self._width:
                raise ValueError(
                    f"{self.path}: line {line} has {len(fields)} fields, but the first line has {self._width}; put a "
                    "field that holds a comma between double quotes, and write nothing between two commas for an empty "
                    "field"
                )
            n += 1
            yield line, fields
        if not n:
            raise ValueError(f"{self.path}: has no rows below the names of its columns")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the fields of every row, and the number of the line on which it begins; a field can hold line ends."""
        with open_text(self.path, newline="") as file:
            lines = islice(_without_nul(file, self.path), self._n_skipped, None)
            reader = csv.reader(lines, delimiter=self._delimiter, skipinitialspace=True, strict=True)
            line = first = 1 + self._n_skipped
            try:
                for fields in reader:
                    yield line, fields
                    line = first + reader.line_num
            except csv.Error as error:
                raise ValueError(
                    f"{self.path}: line {line} cannot be read as fields ({error}); close every double quote, and write "
                    "one inside a quoted field twice; very long texts belong into a .jsonl file"
                ) from error


class ParquetTable:
    """A ``.parquet`` file, as pandas reads it."""

    def __init__(self, path: Path) -> None:
        import pandas as pd
        import pyarrow.parquet

        self.path = path
        with reading(path), pyarrow.parquet.ParquetFile(path) as file:
            metadata = file.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            n_values = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
            names = file.schema_arrow.names
        check_unique(names, path)
        check_unpacked(path, path.stat().st_size, 8 * n_values)
        with reading(path):
            self._frame = pd.read_parquet(path)
        if self._frame.empty:
            raise ValueError(f"{path}: has no rows")
        self._frame.columns = self._frame.columns.map(str)
        self.names = list(self._frame)

    def text(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: self._frame[name].to_numpy() for name in names}

    def numbers(self, names: Sequence[str]) -> NDArray[Any]:
        columns = [self._column(name) for name in names]
        return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)

    def _column(self, name: str) -> NDArray[Any]:
        """Return one column as ``(n, width)``; the width is above 1 where each cell holds a whole embedding."""
        import pandas as pd

        column = self._frame[name]
        missing = column.isna().to_numpy()
        if missing.any():
            raise ValueError(
                f"{self.path}: row {int(np.argmax(missing))}, column {name!r} has no value, but a feature cannot be "
                "missing; remove the row, or fill the value in"
            )
        dtype: Any = column.dtype
        nullable = not isinstance(dtype, np.dtype) and pd.api.types.is_numeric_dtype(dtype)
        values: NDArray[Any] = column.to_numpy(dtype.numpy_dtype) if nullable else column.to_numpy()
        if values.dtype == object and isinstance(values[0], np.ndarray):
            shapes = [np.shape(cell) for cell in values]
            for row, (shape, following) in enumerate(pairwise(shapes), start=1):
                if shape != following:
                    raise ValueError(
                        f"{self.path}: the embeddings of column {name!r} differ in length: {shape} in row {row - 1}, "
                        f"{following} in row {row}"
                    )
            values = np.stack(list(values))
        if values.ndim == 1:
            values = values[:, np.newaxis]
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"{self.path}: column {name!r} is not numeric but {values.dtype}, expected features; leave it out, "
                "name it as a label, or name the feature columns (egtmetrics evaluate: --real-key, --fake-key)"
            )
        return values


@contextlib.contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """Open a UTF-8 file; a byte order mark is no part of its text."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path}: is not UTF-8 text but UTF-16; save it as UTF-8")
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: is not UTF-8 text (line {_undecodable(path)}: {error.reason}); save it as UTF-8"
            ) from error


def _undecodable(path: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as error:
        return bytes(error.object).count(b"\n", 0, error.start) + 1
    return 1


def _without_nul(lines: IO[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise ValueError(f"{path}: line {number} holds a NUL character, so it is no UTF-8 text; save it as UTF-8")
        yield line


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file, of which one at least is not empty."""
    with open_text(path) as file:  # its lines end at \n; splitlines would also split at separators inside texts
        lines = [line.removesuffix("\n") for line in _without_nul(file, path)]
    if not any(line.strip() for line in lines):
        raise ValueError(f"{path}: has no lines")
    return lines


def read_json_lines(path: Path, keys: Sequence[str]) -> dict[str, list[Any]]:
    """Map every key of a ``.jsonl`` file to its values, None where a line lacks it; empty lines hold none."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        row = _json_line(line, number, path)
        nested = [key for key in keys if isinstance(row.get(key), list | dict)]
        if nested:
            raise ValueError(f"{path}: line {number} holds a list or an object under {nested[0]!r}, expected text")
        rows.append(row)
    return {key: [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}


def first_json_line(path: Path) -> dict[str, Any]:
    """Return the first object of a ``.jsonl`` file, none where it has no lines."""
    with open_text(path) as file:
        found = next(((number, line) for number, line in enumerate(file, start=1) if line.strip()), None)
    return {} if found is None else _json_line(found[1], found[0], path)


def _json_line(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = parsed_json(line)
    except ValueError as error:
        raise ValueError(f"{path}: line {number} is not JSON ({error}); expected one object per line") from error
    if not isinstance(row, dict):
        raise ValueError(f'{path}: line {number} is not a JSON object, expected for example {{"text": "..."}}')
    return row


def nested_value(value: Any, key: str, where: str) -> Any:
    """Return what an object of JSON holds under a key, or under keys with dots between them; None where it has none.

    On the way, a list of one object stands for that object; in a list of none or of several there is nothing.

    Raises
    ------
    ValueError
        It holds a list or an object; the message begins with ``where``.
    """
    for name in [key] if isinstance(value, dict) and key in value else key.split("."):
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, list | dict):
        raise ValueError(f"{where} holds a list or an object under {key!r}, expected text or a number")
    return value


def check_unique(names: Sequence[str], path: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: two columns are named {listed(map(repr, twice))}; give each a name of its own")


def _numbered(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def _are_numbers(fields: Sequence[str]) -> bool:
    try:
        [float(field) for field in fields]
    except ValueError:
        return False
    return True


def text_frame(columns: Mapping[str, Any], path: Path, *, labels: Sequence[str]) -> pd.DataFrame:
    """Return columns of text, None where a value is missing; the column of an array without a name is "group"."""
    import pandas as pd

    texts: dict[str, list[str | None]] = {}
    for key, values in columns.items():
        where = f"{path}: {repr(key) if key else 'its array'}"
        array = np.asarray(values, dtype=object) if isinstance(values, list) else np.asarray(values)
        if array.dtype.kind not in "biufOSU":
            raise ValueError(f"{where} has dtype {array.dtype}, expected text or numbers; convert it")
        missing = pd.isna(array)
        with reading(path):  # text in an array can be no text
            values = array.tolist()
        found = [None if absent else _text(value, where) for value, absent in zip(values, missing, strict=True)]
        if key in labels and path.suffix.lower() in (".csv", ".txt"):  # elsewhere, spaces are part of a label
            found = [None if label is None else label.strip() or None for label in found]
        texts[key or "group"] = found
    lengths = {key: len(column) for key, column in texts.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: the labels differ in length: {lengths}")
    return pd.DataFrame(texts, dtype=object)


def _text(value: Any, where: str) -> str | None:
    try:
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, str):
            value.encode()
    except UnicodeError as error:
        raise ValueError(f"{where} holds what is not UTF-8 text ({error}); save whole characters") from error
    if isinstance(value, list | tuple | dict | set | np.ndarray):
        raise ValueError(f"{where} holds a {type(value).__name__}, expected text or numbers")
    if isinstance(value, float) and value.is_integer():  # integers beside a missing value are stored as floats
        value = int(value)
    return str(value) or None
