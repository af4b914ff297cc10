"""Images in folders and zip files, and the labels that lie beside them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._extras import extra

_LABELS = "dataset.json"
_SUFFIXES = (".png", ".jpg", ".jpeg")
_CHANNELS = {"L": 1, "RGB": 3}
"""Pillow's modes whose pixels are levels as they are, and their channels."""


class ImageFiles:
    """The images of a folder or zip file, read one at a time, as levels from 0 to 255.

    ``files[i]`` is a uint8 array ``(channels, height, width)`` with one channel (grey) or three (RGB). Files in all
    subfolders count, in the order of their names; hidden files and folders are left out.

    Parameters
    ----------
    path
        A folder or a zip file with PNG and JPEG files.
    convert
        Put transparent images over white, and turn palette and black-and-white images into levels. False accepts only
        PNG files of 8-bit grey or RGB levels, which need no conversion.

    Raises
    ------
    OSError
        There is no such file or folder.
    ValueError
        A zip file that cannot be read, or no images; from ``files[i]``, a file that is not such an image.
    ImportError
        Pillow is missing.

    Notes
    -----
    Nothing is kept in memory: each item opens its file. Every process opens the zip file for itself.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import PIL.Image
    >>> from egtmetrics.data import ImageFiles
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "cats").mkdir()
    ...     PIL.Image.new("RGBA", (4, 2), (255, 0, 0, 0)).save(Path(folder, "cats", "a.png"))
    ...     files = ImageFiles(folder)
    ...     levels = files[0]
    >>> files.names, files.subfolders(), levels.shape, levels[:, 0, 0].tolist()
    (['cats/a.png'], ['cats'], (3, 2, 4), [255, 255, 255])
    """

    names: list[str]
    """Names of the images, relative to the folder or in the zip file, with slashes."""

    def __init__(self, path: str | Path, *, convert: bool = True) -> None:
        self.path = Path(path)
        self.convert = convert
        self._files = _Zip(self.path) if self.path.is_file() else _Folder(self.path)
        suffixes = _SUFFIXES if convert else (".png",)
        self.names = sorted(name for name in self._files.names() if _is_image(name, suffixes))
        if not self.names:
            kinds = "PNG or JPEG" if convert else "PNG"
            raise ValueError(f"{path} holds no {kinds} files; pass a folder or zip file of them")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        with extra("images", "reading images needs Pillow"):
            import PIL.Image
        name = self.names[index]
        formats = ["PNG", "JPEG"] if self.convert else ["PNG"]
        try:
            with PIL.Image.open(io.BytesIO(self._files.read(name)), formats=formats) as image:
                plain = _without_alpha(image) if self.convert else image
                if plain.mode not in _CHANNELS:
                    raise ValueError(f"its mode is {plain.mode}")
                levels = np.array(plain)
        except (OSError, SyntaxError, ValueError, zipfile.BadZipFile, PIL.Image.DecompressionBombError) as error:
            expected = "PNG or JPEG" if self.convert else "PNG"
            raise ValueError(
                f"{self.path}: {name} cannot be read ({error}), expected a {expected} of 8-bit RGB or grey levels; "
                "convert or remove it"
            ) from error
        channels_last = levels.reshape(*levels.shape[:2], _CHANNELS[plain.mode])
        return np.ascontiguousarray(channels_last.transpose(2, 0, 1))

    def subfolders(self) -> list[str]:
        """Return the name of each image's folder, without the folders above it.

        Raises
        ------
        ValueError
            An image is not in a subfolder.
        """
        loose = [name for name in self.names if "/" not in name]
        if loose:
            raise ValueError(
                f"{self.path}: {len(loose)} of {len(self)} images, such as {loose[0]}, are in no subfolder that could "
                f"name their group; sort them into subfolders, or give labels in {_LABELS} or in a table"
            )
        return [name.rsplit("/", 2)[-2] for name in self.names]

    def json_labels(self) -> list[Any] | None:
        """Return each image's label from ``dataset.json``, ``{"labels": [["00000/img0.png", 1], ...]}``.

        None if there is no such file, or if its labels are null.

        Raises
        ------
        ValueError
            The file cannot be read, or has no label for an image.
        """
        if _LABELS not in self._files.names():
            return None
        label_of = self._json_labels()
        if label_of is None:
            return None
        missing = [name for name in self.names if name not in label_of]
        if missing:
            raise ValueError(
                f"{self.path}: {_LABELS} has no label for {len(missing)} of {len(self.names)} images, such as "
                f"{missing[0]}; add them, or give the groups in another way"
            )
        return [label_of[name] for name in self.names]

    def _json_labels(self) -> dict[str, Any] | None:
        try:
            labels = json.loads(self._files.read(_LABELS))["labels"]
            return None if labels is None else dict(labels)
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f'{self.path}: {_LABELS} cannot be read ({error!r}), expected {{"labels": [[name, label], ...]}}'
            ) from error


def _without_alpha(image: Any) -> Any:
    """Put transparency over white, and turn palette and black-and-white images into levels."""
    import PIL.Image

    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P" or "A" in image.mode or "transparency" in image.info:
        opaque = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("L" if image.mode in ("L", "LA") else "RGB")
    return image


def _is_image(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not any(part.startswith(".") for part in name.split("/"))


class _Folder:
    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is neither a folder nor a file; pass images in a folder or zip file")
        self.path = path

    def names(self) -> list[str]:
        return [file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file()]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Zip:
    """A zip file that every process opens for itself: after a fork, a shared handle would share its position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: zipfile.ZipFile | None = None
        self._pid = -1

    def names(self) -> list[str]:
        return [info.filename for info in self._open().infolist() if not info.is_dir()]

    def read(self, name: str) -> bytes:
        return self._open().read(name)

    def _open(self) -> zipfile.ZipFile:
        if self._file is None or self._pid != os.getpid():
            try:
                self._file, self._pid = zipfile.ZipFile(self.path), os.getpid()
            except zipfile.BadZipFile as error:
                raise ValueError(f"{self.path} is not a whole zip file ({error}); pass a folder or zip file") from error
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_pid": -1}
