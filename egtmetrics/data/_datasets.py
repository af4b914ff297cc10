"""Rows of a data set of the Hugging Face hub's ``datasets``, from a folder or the local cache; nothing is fetched."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from egtmetrics._errors import first_line, listed
from egtmetrics._extras import extra
from egtmetrics._hub import cached_folder, is_path
from egtmetrics.data._tables import text_frame
from egtmetrics.data.images import ImageSource

if TYPE_CHECKING:
    import datasets
    import pandas as pd

PREFIX = "datasets:"
_BETWEEN = re.compile(r":(?![^\[]*\])")
"""Colons, but not those in ``train[:100]``."""


class Place(NamedTuple):
    """The parts of ``datasets:NAME_OR_FOLDER[[:CONFIG]:SPLIT]``."""

    folder: Path
    config: str | None
    split: str | None


def find_dataset(place: str) -> Place:
    """Find the folder of a data set; this takes no network, and does not import ``datasets``.

    Raises
    ------
    FileNotFoundError
        The path leads to no folder.
    ValueError
        The name is not in the local cache, or the place has too many parts.
    """
    name, *parts = _BETWEEN.split(place.removeprefix(PREFIX))
    if len(parts) > 2 or not all([name, *parts]):
        raise ValueError(f"{place}: is no name of a data set, expected {PREFIX}NAME, or with :SPLIT or :CONFIG:SPLIT")
    if is_path(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{place}: {name} is no folder; pass that of a data set, or its name on the hub")
    else:
        with extra("datasets", f"{place}: finding it needs huggingface_hub"):
            folder = cached_folder(name, place, kind="dataset")
    return Place(folder, parts[0] if len(parts) == 2 else None, parts[-1] if parts else None)


class Rows:
    """The rows of one split."""

    def __init__(self, place: str) -> None:
        self.path = place
        self._rows = _load(place, find_dataset(place))
        if not len(self._rows):
            raise ValueError(f"{place}: has no rows")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def columns(self) -> list[str]:
        return list(self._rows.features)

    @property
    def image_columns(self) -> list[str]:
        """Return those that hold images."""
        import datasets

        return [name for name, feature in self._rows.features.items() if isinstance(feature, datasets.Image)]

    def labels(self, keys: Sequence[str]) -> pd.DataFrame:
        unknown = [key for key in keys if key not in self.columns]
        if unknown:
            raise ValueError(f"{self.path}: no column {unknown[0]!r} in it; it holds {listed(map(repr, self.columns))}")
        return text_frame({key: self._column(key) for key in keys}, Path(self.path), labels=keys)

    def image_files(self, name: str) -> Any:
        """Return a sequence of ``{"bytes": ..., "path": ...}``."""
        import datasets

        if name not in self.image_columns:
            raise ValueError(
                f"{self.path}: no column {name!r} with images in it; it holds {listed(map(repr, self.image_columns))}"
            )
        return self._rows.select_columns([name]).cast_column(name, datasets.Image(decode=False))

    def _column(self, key: str) -> list[Any]:
        import datasets

        values: list[Any] = self._rows.select_columns([key]).to_dict()[key]
        feature = self._rows.features[key]
        if isinstance(feature, datasets.ClassLabel):
            return [None if value is None or value < 0 else feature.names[value] for value in values]
        if any(isinstance(value, list | dict) for value in values):
            raise ValueError(f"{self.path}: the column {key!r} holds lists or objects, expected text or numbers")
        return values


class DatasetImages(ImageSource):
    """The images of one column."""

    def __init__(self, rows: Rows, name: str) -> None:
        self.path = rows.path
        self._rows, self._name = rows, name
        self._files = rows.image_files(name)

    def __len__(self) -> int:
        return len(self._files)

    def labels(self, keys: Sequence[str]) -> pd.DataFrame:
        return self._rows.labels(keys)

    def _read(self, index: int) -> bytes:
        file = self._files[index][self._name]
        if file is None:
            raise ValueError("there is none")
        data: bytes | None = file["bytes"]
        return Path(file["path"]).read_bytes() if data is None else data


def _load(place: str, found: Place) -> datasets.Dataset:
    with extra("datasets", f"{place}: reading it needs datasets"):
        import datasets
    folder, config, split = found
    _check_card(place, folder)
    try:
        with _quietly():
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():  # of save_to_disk
                loaded = datasets.load_from_disk(str(folder))
                if isinstance(loaded, datasets.Dataset):
                    loaded = datasets.DatasetDict({str(loaded.split or "train"): loaded})
                if config is not None:
                    raise ValueError(f"it has no configurations, and {config!r} is given")
            else:
                loaded = datasets.load_dataset(str(folder), config, split=split)
    except Exception as error:  # of each format of files
        raise ValueError(
            f"{place}: cannot be read as a data set ({first_line(error)}); name another, or write it again"
        ) from error
    if isinstance(loaded, datasets.Dataset):
        return loaded
    chosen = next(iter(loaded)) if split is None and len(loaded) == 1 else split
    if chosen not in loaded:
        asked = "has several splits" if split is None else f"has no split {split!r}"
        raise ValueError(f"{place}: {asked}; name one of {listed(loaded)}, as in {PREFIX}NAME:{next(iter(loaded))}")
    return loaded[chosen]


def _check_card(place: str, folder: Path) -> None:
    """Refuse a data set whose card sends for files elsewhere: nothing is fetched unasked."""
    import huggingface_hub

    card = folder / "README.md"
    if not card.is_file():
        return
    try:
        data = huggingface_hub.DatasetCard.load(card).data.to_dict()
    except Exception as error:  # of YAML
        raise ValueError(
            f"{place}: its {card.name} cannot be read ({first_line(error)}); repair or remove it"
        ) from error
    if "://" in str(data.get("configs", "")):
        raise ValueError(
            f"{place}: its {card.name} names files on a server, and nothing is fetched unasked; fetch them"
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Read a data set without progress bars and log messages."""
    import datasets

    level, silent = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not silent:
            datasets.enable_progress_bars()
