"""Folders and zip files of PNG images, as FFHQ is kept in, as a dataset of images and groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from egtmetrics.data import ImageFiles


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
    >>> from egtmetrics.paper.images import ImageGroups
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
        self._files = ImageFiles(path, convert=False)
        self.path = self._files.path
        self.names = self._files.names
        self.groups = self._read_labels() if groups is None else _check_groups(groups, len(self.names))
        self.image_shape = self._files[0].shape

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self._files[index]
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

    def _read_labels(self) -> NDArray[np.int64]:
        labels = self._files.json_labels()
        if labels is None:
            return np.full(len(self.names), -1, dtype=np.int64)
        wrong = [value for value in labels if type(value) is not int or not 0 <= value < 2**31]
        if wrong:
            raise ValueError(
                f"{self.path}: dataset.json has the label {wrong[0]!r}, expected integers from 0; pass groups instead"
            )
        return np.array(labels, dtype=np.int64)


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
