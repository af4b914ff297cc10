"""Sources of samples: images or texts in a fixed order, with their names and labels, whatever holds them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from egtmetrics._errors import listed
from egtmetrics.data import _datasets
from egtmetrics.data._beside import FILE_KEY
from egtmetrics.data._reading import check_regular
from egtmetrics.data._shards import ShardImages, Shards, shard_paths
from egtmetrics.data.files import TEXT_SUFFIXES, column_names, read_text_columns
from egtmetrics.data.images import ImageFiles, ImageSource

if TYPE_CHECKING:
    import pandas as pd

Kind: TypeAlias = Literal["images", "texts"]

_TEXT_KEY = "text"
"""The column of texts, where no other is named."""
_TEXT_EXTENSION = "txt"
"""The same, of tar files."""
_SHARDS = ".tar"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSource:
    """Texts in a fixed order, with their labels; :func:`open_source` makes one of whatever holds texts.

    Raises
    ------
    ValueError
        A text is missing, or empty but for white space.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "bios.jsonl").write_text('{"text": "She wrote.", "age": 40}')
    ...     source = open_source(Path(folder, "bios.jsonl"))
    ...     source[0], source.labels(["age"])["age"].tolist()
    ('She wrote.', ['40'])
    """

    kind: ClassVar[Kind] = "texts"
    path: str
    """What holds the texts, as it was given."""
    texts: Sequence[str]
    """None of them is empty."""
    names: Sequence[str] | None = None
    """Of the texts; None where they have none."""
    labels: Callable[[Sequence[str]], pd.DataFrame]
    """From keys to labels that are stored with the texts: one column of text for each, None where there is none."""

    def __post_init__(self) -> None:
        for number, text in enumerate(self.texts, start=1):
            if text is None or not text.strip():
                raise ValueError(f"{self.path}: text {number} is empty or missing; remove it, or fill it in")

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:
        return self.texts[index]


Source: TypeAlias = ImageSource | TextSource


class TableImages(ImageSource):
    """The images whose paths a table holds; the other columns are labels."""

    def __init__(self, place: str, key: str) -> None:
        self.path: str = place
        names = read_text_columns(place, [key])[key]
        if names.isna().any():
            raise ValueError(f"{place}: row {int(names.isna().argmax()) + 1} has no {key!r}; remove it, or fill it in")
        self.names: list[str] = names.tolist()
        self._key, self._folder = key, Path(place).parent
        missing = [name for name in self.names if not (self._folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{place}: {len(missing)} of {len(self.names)} files of the column {key!r} are missing, such as "
                f"{missing[0]}; paths must be absolute, or begin in {self._folder}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def labels(self, keys: Sequence[str]) -> pd.DataFrame:
        return _table_labels(self.path, self._key, keys)

    def _read(self, index: int) -> bytes:
        return (self._folder / self.names[index]).read_bytes()


def open_source(
    place: str | Path, *, kind: Kind | None = None, text_key: str | None = None, image_key: str | None = None
) -> Source:
    """Open images or texts with their labels.

    Parameters
    ----------
    place
        - a folder or a ``.zip`` file of images (:class:`egtmetrics.data.ImageFiles`);
        - a ``.csv``, ``.parquet`` or ``.jsonl`` file with texts, or with paths of images, absolute or relative to its
          folder; a ``.txt`` file with one text per line;
        - a ``.tar`` file of WebDataset without compression, or several, as ``shards-{000..003}.tar``. Files whose
          names are equal up to the first dot are one sample: an image or a text, and its labels in ``.cls``, ``.txt``
          or ``.json``;
        - ``datasets:NAME``, ``datasets:NAME:SPLIT`` or ``datasets:NAME:CONFIG:SPLIT``: a data set of the Hugging Face
          hub from its local cache (``hf download NAME --repo-type dataset`` puts it there), or a folder of one, also of
          ``save_to_disk``. Nothing is fetched.
    kind
        ``"images"`` or ``"texts"``; None to find it out.
    text_key
        The column of texts (by default ``text``). Of tar files, an extension (by default ``txt``) or a key of their
        ``.json``, where dots between keys lead into objects.
    image_key
        The column with the paths of images (by default ``file_name``); of a data set, the column of images (by default
        the only one); of tar files, the extension (by default the only one that Pillow reads).

    Raises
    ------
    OSError
        There is no such file or folder; a file that a table names is missing.
    ValueError
        It cannot be read, lacks the key, or holds both images and texts and nothing says which; a text is empty; a data
        set is not in the local cache.
    ImportError
        Pillow, pyarrow (``.parquet``) or datasets is missing.

    Examples
    --------
    >>> import tempfile
    >>> import PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     PIL.Image.new("L", (2, 2), 7).save(Path(folder, "a.png"))
    ...     _ = Path(folder, "real.csv").write_text("file_name,gender\\na.png,f\\n")
    ...     source = open_source(Path(folder, "real.csv"))
    ...     source.kind, source.names, source[0].tolist(), source.labels(["gender"])["gender"].tolist()
    ('images', ['a.png'], [[[7, 7], [7, 7]]], ['f'])
    """
    place = os.fspath(place)
    check_place(place)
    form = _form(place)
    if form is None:
        raise ValueError(f"{place}: unknown kind of file {Path(place).suffix!r}; expected images or texts")
    source = form.open(place, _Wanted(kind, text_key, image_key))
    if kind is not None and source.kind != kind:
        raise ValueError(f"{place}: holds {source.kind}, expected {kind}")
    return source


def check_place(place: str) -> None:
    """Refuse what is not there; nothing is read.

    Raises
    ------
    OSError
        There is no such file or folder.
    ValueError
        A data set is not in the local cache.
    """
    form = _form(place)
    if form is None:
        Path(place).stat()
    else:
        form.check(place)


def holds_samples(place: str, *, text_key: str | None = None, image_key: str | None = None) -> bool:
    """Whether :func:`open_source` takes it: of a ``.csv`` or ``.parquet`` file, whether it has one of the columns."""
    form = _form(place)
    return form is not None and form.holds(place, {text_key or _TEXT_KEY, image_key or FILE_KEY})


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What is to be read of a source."""

    kind: Kind | None
    text_key: str | None
    image_key: str | None

    def choose(self, place: str, *, images: bool, texts: bool) -> Kind:
        """Return what to read of that which a source has."""
        if self.kind is not None:
            return self.kind
        if (self.text_key is None) != (self.image_key is None):
            return "images" if self.text_key is None else "texts"
        if images and texts:
            raise ValueError(
                f"{place}: holds images and texts; name the column of those that are the samples, image_key or "
                "text_key, and not both"
            )
        return "images" if images else "texts"


@dataclasses.dataclass(frozen=True)
class _Form:
    """One way to hold samples."""

    claims: Callable[[str], bool]
    check: Callable[[str], object]
    """Raises if there is no such thing."""
    open: Callable[[str, _Wanted], Source]
    holds: Callable[[str, Set[str]], bool] = lambda place, keys: True
    """Whether there are samples under one of the keys."""


def _open_table(place: str, wanted: _Wanted) -> Source:
    check_regular(Path(place))
    text_key, image_key = wanted.text_key or _TEXT_KEY, wanted.image_key or FILE_KEY
    names = [text_key] if _suffix(place) == ".txt" else column_names(place)
    if wanted.choose(place, images=image_key in names, texts=text_key in names) == "images":
        return TableImages(place, image_key)
    texts = read_text_columns(place, [text_key])[text_key].tolist()
    return TextSource(path=place, texts=texts, labels=lambda keys: _table_labels(place, text_key, keys))


def _table_holds(place: str, keys: Set[str]) -> bool:
    """Return whether a table has one of the columns; those of other kinds hold nothing but samples."""
    return _suffix(place) not in (".csv", ".parquet") or not keys.isdisjoint(column_names(place))


def _table_labels(place: str, key: str, keys: Sequence[str]) -> pd.DataFrame:
    """Read columns beside that of the samples, which a ``.txt`` file does not have."""
    return read_text_columns(place, [key], labels=keys)[list(keys)]


def _open_shards(place: str, wanted: _Wanted) -> Source:
    shards = Shards(place)
    texts = _TEXT_EXTENSION in shards.extensions
    if wanted.choose(place, images=bool(shards.of_images), texts=texts) == "images":
        return ShardImages(shards, wanted.image_key)
    key = wanted.text_key or _TEXT_EXTENSION
    return TextSource(path=place, texts=shards.labels([key])[key].tolist(), names=shards.names, labels=shards.labels)


def _open_dataset(place: str, wanted: _Wanted) -> Source:
    rows = _datasets.Rows(place)
    images, text_key = rows.image_columns, wanted.text_key or _TEXT_KEY
    if wanted.choose(place, images=bool(images), texts=text_key in rows.columns) == "texts":
        return TextSource(path=place, texts=rows.labels([text_key])[text_key].tolist(), labels=rows.labels)
    if wanted.image_key is None and len(images) != 1:
        raise ValueError(f"{place}: has {len(images)} columns of images, {listed(images)}; name one (image_key)")
    return _datasets.DatasetImages(rows, wanted.image_key or images[0])


def _suffix(place: str) -> str:
    return Path(place).suffix.lower()


_FORMS = (
    _Form(lambda place: place.startswith(_datasets.PREFIX), _datasets.find_dataset, _open_dataset),
    _Form(os.path.isdir, lambda place: None, lambda place, wanted: ImageFiles(place)),
    _Form(lambda place: _suffix(place) == ".zip", os.stat, lambda place, wanted: ImageFiles(place)),
    _Form(
        lambda place: _suffix(place) == _SHARDS,
        lambda place: [path.stat() for path in shard_paths(place)],
        _open_shards,
    ),
    _Form(lambda place: _suffix(place) in TEXT_SUFFIXES, os.stat, _open_table, _table_holds),
)


def _form(place: str) -> _Form | None:
    return next((form for form in _FORMS if form.claims(place)), None)
