"""The rows of one group on one side in a file, so that memory does not grow with them."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._mapped import map_rows, open_unnamed, write_rows
from egtmetrics.streaming._rows import Rows


class FileRows(Rows):
    """Rows in a file without a name. What a failed write leaves behind the first ``n_seen`` rows is overwritten."""

    def __init__(self, folder: str) -> None:
        super().__init__(None)
        self._folder = folder
        self._file = self._open()
        self._dtype: Any = None
        self._width = 0

    def _open(self) -> Any:
        file = open_unnamed(self._folder)
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
        return map_rows(self._file, self._dtype, (self.n_seen, self._width))

    def _append(self, rows: NDArray[Any], first: int) -> None:
        position = first * self._width * self._dtype.itemsize
        try:
            write_rows(self._file, rows, self._dtype, position)
        except OSError as error:
            self._file.truncate(position)
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
