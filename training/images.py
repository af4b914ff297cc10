"""Folders and zip files of PNG images, as FFHQ is kept in, as a dataset of images and groups."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

_LABELS = "dataset.json"
_MODES = {"L": 1, "RGB": 3}
"""Kinds of PNG and their channels."""


class ImageGroups(Dataset[tuple[Tensor, int]]):
    """Images in [-1, 1] and the group of each, from a folder or zip file of PNG files.

    ``dataset[i]`` is ``(image, group)``: a float32 tensor ``(channels, height, width)``, that is ``level / 127.5 - 1``
    of the 256 levels, and an integer from 0, or -1 if the image has none. Files are found in all subfolders and come in
    the order of their names; hidden ones are left out.

    Parameters
    ----------
    path
        A folder or a zip file. Its ``dataset.json``, if there is one, is ``{"labels": [["00000/img0.png", 1], ...]}``:
        an integer for every image; ``{"labels": null}`` is none.
    groups
        ``(n,)`` integers from 0, or -1, in the order of :attr:`names`, in place of those in ``dataset.json``: for
        example what a :class:`GroupOracle` says of the images.

    Raises
    ------
    OSError
        There is no such file or folder.
    ValueError
        A zip file or ``dataset.json`` that cannot be read, no image, labels of other kinds or not for every image;
        from ``dataset[i]``, a file that is no PNG, or of another size or kind than the first image.
    ImportError
        Pillow is missing.

    Notes
    -----
    Nothing is kept in memory: one file is opened for each item. Workers of a ``DataLoader`` open the zip file each for
    itself. FFHQ at 64 x 64 takes 3.4 GB as float32; :meth:`load` reads it all, as :func:`train` takes it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import PIL.Image
    >>> from egtmetrics.training.images import ImageGroups
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     PIL.Image.new("RGB", (64, 64), (255, 0, 0)).save(Path(folder, "img0.png"))
    ...     dataset = ImageGroups(folder, groups=[1])
    ...     image, group = dataset[0]
    >>> image.shape, image[:, 0, 0].tolist(), group
    (torch.Size([3, 64, 64]), [1.0, -1.0, -1.0], 1)
    """

    names: list[str]
    """Names of the images, relative to the folder or in the zip file, with slashes."""
    groups: NDArray[np.int64]
    """Group of each image, ``(n,)``; -1 for none."""
    image_shape: tuple[int, int, int]
    """Channels, height and width of every image."""

    def __init__(self, path: str | Path, *, groups: Any = None) -> None:
        self.path = Path(path)
        self._files = _Zip(self.path) if self.path.is_file() else _Folder(self.path)
        self.names = sorted(name for name in self._files.names() if _is_image(name))
        if not self.names:
            raise ValueError(f"{path} holds no PNG files; pass a folder or zip file of them")
        self.groups = self._read_labels() if groups is None else _check_groups(groups, len(self.names))
        self.image_shape = self._decode(0).shape

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self._decode(index)
        if pixels.shape != self.image_shape:
            raise ValueError(
                f"{self.path}: {self.names[index]} has shape {pixels.shape}, but {self.names[0]} {self.image_shape} "
                "(channels, height, width); bring all to one"
            )
        return torch.from_numpy(pixels).float() / 127.5 - 1.0, int(self.groups[index])

    def load(self) -> tuple[Tensor, Tensor]:
        """Read all images ``(n, channels, height, width)`` and their groups ``(n,)``."""
        images = torch.empty(len(self), *self.image_shape)
        for i in range(len(self)):
            images[i], _ = self[i]
        return images, torch.as_tensor(self.groups)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        """The image's levels, ``(channels, height, width)``."""
        try:
            import PIL.Image
        except ImportError as error:
            raise ImportError("reading images needs Pillow; pip install 'egtmetrics[training]'") from error
        name = self.names[index]
        try:
            with PIL.Image.open(io.BytesIO(self._files.read(name)), formats=["PNG"]) as image:
                if image.mode not in _MODES:
                    raise ValueError(f"its kind is {image.mode}")
                levels = np.array(image)
        except (OSError, SyntaxError, ValueError, zipfile.BadZipFile) as error:  # all that Pillow raises
            raise ValueError(
                f"{self.path}: {name} cannot be read ({error}), expected a PNG of 8-bit RGB or grey levels; convert or "
                "remove it"
            ) from error
        channels_last = levels.reshape(*levels.shape[:2], _MODES[image.mode])
        return np.ascontiguousarray(channels_last.transpose(2, 0, 1))

    def _read_labels(self) -> NDArray[np.int64]:
        none = np.full(len(self.names), -1, dtype=np.int64)
        if _LABELS not in self._files.names():
            return none
        where = f"{self.path}: {_LABELS}"
        try:
            labels = json.loads(self._files.read(_LABELS))["labels"]
            if labels is None:
                return none
            label_of = dict(labels)
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f'{where} cannot be read ({error!r}), expected {{"labels": [[name, label], ...]}}'
            ) from error
        missing = [name for name in self.names if name not in label_of]
        if missing:
            raise ValueError(
                f"{where} has no label for {len(missing)} of {len(self.names)} images, as {missing[0]}; add them, or "
                "pass groups"
            )
        values = [label_of[name] for name in self.names]
        wrong = [value for value in values if type(value) is not int or not 0 <= value < 2**31]
        if wrong:
            raise ValueError(f"{where} has the label {wrong[0]!r}, expected integers from 0; pass groups instead")
        return np.array(values, dtype=np.int64)


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
    """A zip file that every process opens anew: a handle that a fork inherits has its position in common."""

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
                raise ValueError(f"{self.path} is no whole zip file ({error}); pass a folder or zip file") from error
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_pid": -1}


def _is_image(name: str) -> bool:
    return name.lower().endswith(".png") and not any(part.startswith(".") for part in name.split("/"))


def _check_groups(values: Any, n: int) -> NDArray[np.int64]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    groups = np.asarray(values)
    if groups.shape != (n,) or not np.issubdtype(groups.dtype, np.integer) or groups.min() < -1:
        raise ValueError(
            f"groups has shape {groups.shape} and dtype {groups.dtype}, expected one integer per image, ({n},), from 0 "
            "or -1 for none"
        )
    return groups.astype(np.int64)
