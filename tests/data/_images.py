"""Images to write into files, and writing them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

LEVELS = np.random.default_rng(4).integers(0, 256, (5, 3, 6, 8), dtype=np.uint8)


def encoded(image: PIL.Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def store(path: Path, content: dict[str, bytes], *, as_zip: bool = False) -> Path:
    if as_zip:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return path
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def rgb(levels: NDArray[np.uint8]) -> PIL.Image.Image:
    return PIL.Image.fromarray(levels.transpose(1, 2, 0))
