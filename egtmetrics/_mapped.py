"""Rows in a file without a name, mapped into memory: they may be more than fit into it.

The system deletes such a file when nothing refers to it any more. It is written with system calls and mapped for
reading only: on a full disk, writing to a mapping would kill the process.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 24


def is_mapped(array: Any) -> bool:
    """Whether the values of an array lie in a file and not in memory."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def open_unnamed(folder: str | None) -> Any:
    """Open a file without a name; ``folder=None`` is that of temporary files."""
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def write_rows(file: Any, rows: NDArray[Any], dtype: Any, position: int) -> int:
    """Write rows, a block at a time, from a position in the file on; return the position behind them."""
    step = max(1, BLOCK_BYTES // max(1, rows.shape[1] * np.dtype(dtype).itemsize))
    for start in range(0, len(rows), step):
        left = np.ascontiguousarray(rows[start : start + step], dtype).data.cast("B")
        while left:
            n_written = os.pwrite(file.fileno(), left, position)
            position, left = position + n_written, left[n_written:]
    return position


def map_rows(file: Any, dtype: Any, shape: tuple[int, int]) -> NDArray[Any]:
    """Map the rows of a file, which may then be closed."""
    return np.memmap(file, dtype=dtype, mode="r", shape=shape)


def rows_in_file(blocks: Iterable[NDArray[Any]], dtype: Any, width: int, folder: str | None = None) -> NDArray[Any]:
    """Write blocks of rows into one file and return them as one mapped array.

    Raises
    ------
    OSError
        If the disk is full.
    """
    with open_unnamed(folder) as file:
        n_rows = position = 0
        try:
            for rows in blocks:
                position = write_rows(file, rows, dtype, position)
                n_rows += len(rows)
        except OSError as error:
            remedy = "free some there, or set TMPDIR to another folder" if folder is None else "free some there"
            raise OSError(
                error.errno,
                f"{error.strerror}: no room for a temporary file after {n_rows} rows; {remedy}",
                folder or tempfile.gettempdir(),
            ) from error
        return map_rows(file, dtype, (n_rows, width))
