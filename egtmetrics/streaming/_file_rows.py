"""The rows of one group on one side in a file, so that memory does not grow with them."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics.streaming._rows import Rows

BLOCK_BYTES = 1 << 24


class FileRows(Rows):
    """Rows in a file without a name, which the system deletes when nothing refers to it any more.

    The file is written with system calls and mapped for reading only: on a full disk, writing to a mapping would kill
    the process. What a failed write leaves behind the first ``n_seen`` rows is overwritten.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(None)
        self._folder = folder
        self._file = self._open()
        self._dtype: Any = None
        self._width = 0

    @classmethod
    def of(cls, blocks: Iterable[NDArray[Any]], folder: str) -> NDArray[Any]:
        """Write blocks of rows into one file, and return them as one memory-mapped array."""
        written = cls(folder)
        for rows in blocks:
            written.add(rows, _NOT_DRAWN, n_seen=len(rows))
        return written._mapped()

    def _open(self) -> Any:
        file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, file.close)
        return file

    def add(self, rows: NDArray[Any], drawn: NDArray[np.uint64], *, n_seen: int) -> None:
        """Append rows. The first float64 rows make all of them float64."""
        if self.n_seen == 0:
            self._dtype, self._width = rows.dtype, rows.shape[1]
        elif self._dtype.itemsize < rows.dtype.itemsize:
            self._widen(rows.dtype)
        self._append(rows, self.n_seen)
        self.n_seen += n_seen

    def _widen(self, dtype: Any) -> None:
        narrow, rows = (self._file, self._dtype), self._mapped()
        self._file, self._dtype = self._open(), dtype
        try:
            self._append(rows, 0)
        except OSError:
            self._file.close()
            self._file, self._dtype = narrow
            raise
        narrow[0].close()

    def kept(self) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        return self._mapped(), np.zeros(self.n_seen, dtype=np.uint64)

    def _mapped(self) -> NDArray[Any]:
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self.n_seen, self._width))

    def _append(self, rows: NDArray[Any], first: int) -> None:
        row_bytes = self._width * self._dtype.itemsize
        position = first * row_bytes
        step = max(1, BLOCK_BYTES // row_bytes)
        try:
            for start in range(0, len(rows), step):
                left = np.ascontiguousarray(rows[start : start + step], self._dtype).data.cast("B")
                while left:
                    n_written = os.pwrite(self._file.fileno(), left, position)
                    position, left = position + n_written, left[n_written:]
        except OSError as error:
            self._file.truncate(first * row_bytes)
            raise OSError(
                error.errno, f"{error.strerror}: no room for {len(rows)} more rows in the folder of spill", self._folder
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        rows = np.array(self._mapped()) if self.n_seen else None
        return {"folder": self._folder, "rows": rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FileRows.__init__(self, state["folder"])
        if state["rows"] is not None:
            self.add(state["rows"], _NOT_DRAWN, n_seen=len(state["rows"]))


_NOT_DRAWN = np.empty(0, np.uint64)
"""In place of priorities, which rows in a file do not have."""


def reordered_in_file(rows: NDArray[Any], order: NDArray[np.int64], folder: str) -> NDArray[Any]:
    """Bring rows into another order, in another file, a block at a time."""
    step = max(1, BLOCK_BYTES // rows[:1].nbytes)
    return FileRows.of((rows[order[start : start + step]] for start in range(0, len(rows), step)), folder)
