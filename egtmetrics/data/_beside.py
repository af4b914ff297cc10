"""Labels that lie beside samples, in a table or in JSON, and are found by the names of the samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from egtmetrics._errors import listed
from egtmetrics.data._reading import check_regular, parsed_json, reading
from egtmetrics.data._tables import nested_value, read_lines, text_frame
from egtmetrics.data.files import read_text_columns

if TYPE_CHECKING:
    import pandas as pd

FILE_KEY = "file_name"
"""The column with the names of samples, where no other is named."""


def read_labels_beside(
    place: str | Path, names: Sequence[str], keys: Sequence[str], *, name_key: str | None = None
) -> pd.DataFrame:
    """Read labels of samples: one column of text for each key, None where a sample has no label.

    Parameters
    ----------
    place
        - a ``.csv``, ``.parquet`` or ``.jsonl`` file with a column of names;
        - a ``.txt`` file in the form of CelebA's ``list_attr_celeba.txt``: a line with the number of images, a line
          with the names of the attributes, and a line for each image with its name and its values;
        - a ``.json`` file with an object for each name, as FFHQ's ``ffhq-dataset-v2.json``;
        - a folder with a ``.json`` file for each name.
    names
        Of the samples. Rows of the table are called by the same names, or else by those without folders, or else by
        those without folders and suffix, or else by the numbers that these are (7 for ``00000/00007.png``). The first
        way that tells all samples apart and has a row for each counts.
    keys
        Of the columns or objects; dots between keys lead into objects, as in ``metadata.country``. On the way, a list
        of one object stands for that object; where a list has none or several, there is no label.
    name_key
        The column with the names, by default ``file_name``.

    Raises
    ------
    OSError
        There is no such file or folder.
    ValueError
        It cannot be read, lacks a key, has two rows for a sample or none; two samples have one name.
    ImportError
        A ``.parquet`` file needs pyarrow.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Path(folder, "list_attr_celeba.txt")
    ...     _ = table.write_text("2\\nMale Young\\n000001.jpg -1  1\\n000002.jpg  1  1\\n")
    ...     read_labels_beside(table, ["000002.jpg", "000001.jpg"], ["Male"])["Male"].tolist()
    ['1', '-1']
    """
    place = Path(place)
    if len(set(names)) < len(names):
        double = Counter(names).most_common(1)[0][0]
        raise ValueError(f"two samples are called {double}, so that {place} does not tell them apart; rename one")
    table = _read(place, keys, name_key or FILE_KEY)
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise ValueError(f"{place}: has two rows for {twice[0]}; remove one")
    known = set(table.index)
    by_way = [[way(name) for name in names] for way in _WAYS]
    absent = {
        way: [name for name, one in zip(names, called, strict=True) if one not in known]
        for way, called in enumerate(by_way)
        if len(set(called)) == len(names)
    }
    best = min(absent, key=lambda way: len(absent[way]))  # of equals the first
    missing, called = absent[best], by_way[best]
    if missing:
        raise ValueError(
            f"{place}: has no row for {len(missing)} of the {len(names)} samples, such as {missing[0]}; its names, "
            f"such as {table.index[0]}, must be those of the samples"
        )
    labels: pd.DataFrame = table.loc[called].reset_index(drop=True)
    return labels


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _number(name: str) -> str:
    stem = _stem(name)
    return str(int(stem)) if stem.isdecimal() and stem.isascii() else stem


_WAYS: tuple[Callable[[str], str], ...] = (str, lambda name: PurePosixPath(name).name, _stem, _number)
"""How a table may call a sample."""


def _read(place: Path, keys: Sequence[str], name_key: str) -> pd.DataFrame:
    """Return columns of labels, with the names of samples as their index."""
    if place.is_dir():
        files = sorted(place.glob("*.json"))
        if not files:
            raise ValueError(f"{place}: has no .json files, expected one for each sample")
        return _json_labels({file.stem: _parsed(file) for file in files}, keys, place)
    check_regular(place)
    suffix = place.suffix.lower()
    if suffix == ".json":
        entries = _parsed(place)
        if not isinstance(entries, dict) or not entries:
            raise ValueError(f"{place}: is no object of JSON with one object for each sample")
        return _json_labels(entries, keys, place)
    if suffix == ".txt":
        return _attributes(place, keys)
    return read_text_columns(place, [name_key], labels=keys).set_index(name_key)


def _parsed(file: Path) -> Any:
    with reading(file):
        return parsed_json(file.read_bytes())


def _json_labels(entries: Mapping[str, Any], keys: Sequence[str], place: Path) -> pd.DataFrame:
    columns = {key: [nested_value(entry, key, f"{place}: {name}") for name, entry in entries.items()] for key in keys}
    unknown = [key for key, values in columns.items() if all(value is None for value in values)]
    if unknown:
        first = next(iter(entries.values()))
        held = listed(first) if isinstance(first, dict) else type(first).__name__
        raise ValueError(f"{place}: no key {unknown[0]!r} in it; the first of its {len(entries)} objects holds {held}")
    return text_frame(columns, place, labels=keys).set_axis(list(entries))


def _attributes(place: Path, keys: Sequence[str]) -> pd.DataFrame:
    """Read a file in the form of CelebA's attributes."""
    rows = [line.split() for line in read_lines(place) if line.strip()]
    names, values = rows[1] if len(rows) > 1 else [], rows[2:]
    wrong = next((row for row in values if len(row) != len(names) + 1), None)
    if rows[0] != [str(len(values))] or not values or wrong is not None:
        reason = "" if wrong is None else f"; {wrong[0]} has {len(wrong) - 1} values for {len(names)} names"
        raise ValueError(
            f"{place}: is no table of attributes as CelebA's list_attr_celeba.txt, expected the number of images, the "
            f"names of the attributes, and a line of name and values for each image{reason}"
        )
    unknown = [key for key in keys if key not in names]
    if unknown:
        raise ValueError(f"{place}: no attribute {unknown[0]!r} in it; it holds {listed(names, most=50)}")
    places = {key: 1 + names.index(key) for key in keys}
    columns = {key: [row[at] for row in values] for key, at in places.items()}
    return text_frame(columns, place, labels=keys).set_axis([row[0] for row in values])
