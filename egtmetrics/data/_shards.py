"""Tar files of samples, as WebDataset has them: files whose names are equal up to the first dot are one sample."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from egtmetrics._errors import first_line, listed
from egtmetrics.data._reading import check_regular, parsed_json
from egtmetrics.data._tables import nested_value, text_frame
from egtmetrics.data.images import ImageSource, formats, suffix_of

if TYPE_CHECKING:
    import pandas as pd

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_JSON = "json"


class _Member(NamedTuple):
    """Where the content of a file lies."""

    shard: Path
    offset: int
    size: int


def shard_paths(place: str) -> Iterator[Path]:
    """Yield the files that a name with ranges such as ``{000..003}`` means; without one, the file itself."""
    found = None if os.path.exists(place) else _RANGE.search(place)
    if found is None:
        yield Path(place)
        return
    first, last = found.groups()
    if int(first) > int(last):
        raise ValueError(f"{place}: {found.group()} is an empty range; begin with the smaller number")
    for number in range(int(first), int(last) + 1):
        yield from shard_paths(f"{place[: found.start()]}{number:0{len(first)}d}{place[found.end() :]}")


class Shards:
    """The samples of tar files: their keys, and where each of their files lies; contents are read when asked for."""

    def __init__(self, place: str) -> None:
        self.path = place
        self._samples: dict[tuple[Path, str], dict[str, _Member]] = {}
        for shard in shard_paths(place):
            self._list(shard)
        if not self._samples:
            raise ValueError(f"{place}: holds no samples, expected files such as 00001.jpg and 00001.json")
        self.names = [key for _, key in self._samples]
        self._members = list(self._samples.values())
        self.extensions = list(dict.fromkeys(extension for files in self._members for extension in files))
        known = formats()
        self.of_images = {extension for extension in self.extensions if suffix_of(f"_.{extension}") in known}

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int, extension: str) -> bytes:
        shard, offset, size = self._members[index][extension]
        with shard.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def extensions_of_images(self, wanted: str | None) -> list[str]:
        """Return, for each sample, under which extension its image is; the only one that Pillow reads, or ``wanted``.

        Raises
        ------
        ValueError
            A sample has none, or several.
        """
        usable = self.of_images if wanted is None else {wanted}
        found = []
        for name, files in zip(self.names, self._members, strict=True):
            images = [extension for extension in files if extension in usable]
            if len(images) != 1:
                raise ValueError(
                    f"{self.path}: the sample {name} has {'several images' if images else 'no image'} among its files "
                    f"{listed(files)}; say which it is (image_key), or pack the samples again"
                )
            found += images
        return found

    def labels(self, keys: Sequence[str]) -> pd.DataFrame:
        return text_frame({key: self._column(key) for key in keys}, Path(self.path), labels=keys)

    def _column(self, key: str) -> list[Any]:
        """Return the text under an extension, or what ``.json`` files hold under a key; None where there is nothing.

        Raises
        ------
        ValueError
            No sample has it, or one holds a list or an object.
        """
        if key in self.extensions:
            return [
                self._text(i, key).strip() or None if key in files else None for i, files in enumerate(self._members)
            ]
        values = [
            nested_value(self._json(i), key, f"{self.path}: {self.names[i]}.{_JSON}") if _JSON in files else None
            for i, files in enumerate(self._members)
        ]
        if all(value is None for value in values):
            first = next((self._json(i) for i, files in enumerate(self._members) if _JSON in files), {})
            raise ValueError(
                f"{self.path}: no key {key!r} in it; its samples have the files {listed(self.extensions)}"
                + (f", and their .json the keys {listed(first)}" if first else "")
            )
        return values

    def _text(self, index: int, extension: str) -> str:
        try:
            return self.read(index, extension).decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path}: {self.names[index]}.{extension} is not UTF-8 text ({error.reason}); name another key"
            ) from error

    def _json(self, index: int) -> dict[str, Any]:
        try:
            found = parsed_json(self.read(index, _JSON))
            if not isinstance(found, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise ValueError(f"{self.path}: {self.names[index]}.{_JSON} cannot be read ({error}); repair it") from error
        return found

    def _list(self, shard: Path) -> None:
        """Note where the files of one tar file lie."""
        check_regular(shard)
        try:
            with tarfile.open(shard, "r:") as tar:
                members = list(tar)
                end = tar.offset
        except tarfile.TarError as error:
            raise ValueError(
                f"{shard}: is no whole tar file without compression ({first_line(error)}); unpack it, or pack it again"
            ) from error
        with shard.open("rb") as file:  # tarfile takes what is cut between two files for whole
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise ValueError(f"{shard}: is cut short or damaged at byte {end}; write it again")
        for member in members:
            folder, slash, file_name = member.name.removeprefix("./").rpartition("/")
            key, dot, extension = file_name.partition(".")
            if member.isdir() or not key or not dot:  # the format has no place for them
                continue
            if not member.isreg() or member.issparse():
                raise ValueError(f"{shard}: {member.name} is a link or has holes, expected plain files; pack it again")
            files = self._samples.setdefault((shard, folder + slash + key), {})
            if extension.lower() in files:
                raise ValueError(f"{shard}: has {member.name} twice; pack it again")
            files[extension.lower()] = _Member(shard, member.offset_data, member.size)


class ShardImages(ImageSource):
    """The images of tar files; their names are the keys of the samples, and other files of a sample are labels."""

    def __init__(self, shards: Shards, extension: str | None) -> None:
        self._shards = shards
        self.path = shards.path
        self.names = shards.names
        self._extensions = shards.extensions_of_images(extension)

    def __len__(self) -> int:
        return len(self._shards)

    def labels(self, keys: Sequence[str]) -> pd.DataFrame:
        return self._shards.labels(keys)

    def _read(self, index: int) -> bytes:
        return self._shards.read(index, self._extensions[index])
