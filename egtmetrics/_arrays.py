"""Turn what holds numbers into a NumPy array: tensors, tables, columns of rows, mapped files.

What has one meaning is read, whatever holds it. Everything else is refused with a remedy that works. pandas is imported
where it is needed: encoders and training do without.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._mapped import BLOCK_BYTES, is_mapped, rows_in_file

if TYPE_CHECKING:
    import pandas as pd

_SMALL_FLOATS = ("torch.bfloat16", "torch.float8")
"""Dtypes of torch that NumPy lacks; float32 holds their values."""


def is_empty(values: Any) -> bool:
    """Whether features have no rows: an empty sequence, or ``(0, d)``, which a filter leaves."""
    shape = getattr(values, "shape", None)
    return isinstance(values, Sequence) and len(values) == 0 if shape is None else tuple(shape)[:1] == (0,)


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Return ``values`` as a NumPy array, without a copy where it is one in memory already."""
    if np.ma.is_masked(values):
        raise TypeError(f"{name} has masked values, which NumPy would read as data; remove those rows first")
    if hasattr(values, "nnz") and hasattr(values, "toarray"):
        megabytes = math.prod(values.shape) * values.dtype.itemsize / 1e6
        raise TypeError(
            f"{name} is a sparse matrix ({type(values).__name__}), expected a dense array; if {megabytes:.4g} MB fit "
            f"into memory, pass {name}.toarray()"
        )
    if hasattr(values, "iloc") and hasattr(values, "dtypes") and getattr(values, "ndim", 0) == 2:
        return _table_array(values, name)
    held = values
    if hasattr(values, "detach"):  # a torch tensor; torch is never imported here
        held = _host_tensor(values, name)
    elif isinstance(values, list | tuple) and any(hasattr(row, "detach") for row in values):
        held = [_host_tensor(row, name) if hasattr(row, "detach") else row for row in values]
    try:
        array = np.asarray(held)
    except (ValueError, TypeError) as error:
        if isinstance(values, list | tuple) and {getattr(row, "ndim", 0) for row in values} == {2}:
            join = "torch.cat" if any(hasattr(row, "detach") for row in values) else "numpy.concatenate"
            raise ValueError(
                f"{name} is a list of {len(values)} arrays of different shapes, expected one (n, d) array; join "
                f"batches, for example with {join}({name})"
            ) from error
        why = _unequal_rows(values) or error
        raise TypeError(
            f"{name} cannot be read as an array ({why}); pass an (n, d) array of numbers, all rows of the same length"
        ) from error
    return _array_of_cells(array, name) if array.dtype == object and array.ndim in (1, 2) else array


def _unequal_rows(values: Any) -> str:
    """Say which row of a list is not as the first one; empty if that is not what is wrong."""
    if not isinstance(values, list | tuple):
        return ""
    shapes = [(len(row),) if isinstance(row, list | tuple) else tuple(getattr(row, "shape", ())) for row in values]
    other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    return "" if other is None else f"row {other} has shape {shapes[other]}, row 0 has {shapes[0]}"


def _host_tensor(tensor: Any, name: str) -> Any:
    if tensor.is_nested:
        raise TypeError(f"{name} is a nested tensor, expected one with rows of the same length; pass an (n, d) tensor")
    if str(tensor.layout) != "torch.strided":
        raise TypeError(f"{name} is a sparse tensor, expected a dense one; pass {name}.to_dense()")
    tensor = tensor.detach().cpu()
    return tensor.float() if str(tensor.dtype).startswith(_SMALL_FLOATS) else tensor


def _array_of_cells(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return an array of Python objects as one of numbers; its cells are numbers, or the cells of one column rows."""
    import pandas as pd

    missing = pd.isna(array)
    if missing.any():
        raise missing_value(int(np.argwhere(missing)[0][0]), name)
    column = array.ravel() if array.ndim == 1 or array.shape[1] == 1 else None
    if column is not None and len(column) and all(_is_row(cell) for cell in column):
        return as_array(column.tolist(), name)
    strange = next((cell for cell in array.ravel() if not isinstance(cell, numbers.Number | np.generic)), None)
    if strange is not None:
        raise TypeError(
            f"{name} holds {str(strange)[:40]!r} ({type(strange).__name__}), expected real numbers; leave it out or "
            "convert it"
        )
    plain = np.array(array.tolist())
    return plain.astype(np.float64) if plain.dtype == object else plain


def _is_row(cell: Any) -> bool:
    return isinstance(cell, list | tuple) or getattr(cell, "ndim", 0) == 1


def _table_array(table: pd.DataFrame, name: str) -> NDArray[Any]:
    """Return a DataFrame as an array; its columns may be nullable or sparse, of several types, or hold rows."""
    dtypes = [_numpy_dtype(dtype) for dtype in table.dtypes]
    if len(set(table.dtypes)) == 1 and is_real(table.dtypes.iloc[0]):
        return table.to_numpy()
    cells = table.iloc[0] if len(table) else [None] * len(dtypes)
    other = [
        label
        for label, dtype, cell in zip(table, dtypes, cells, strict=True)
        # text is of a type of its own from pandas 3 on, and of Python objects before
        if not (is_real(dtype) or (isinstance(dtype, np.dtype) and dtype.kind == "O" and not isinstance(cell, str)))
    ]
    if other:
        raise TypeError(
            f"{name} has columns that are no real numbers; leave them out, for example with "
            f"{name}.drop(columns=[{listed(map(repr, other))}])"
        )
    columns = []
    for i, (label, dtype) in enumerate(zip(table, dtypes, strict=True)):
        column, where = table.iloc[:, i], f"{name}[{label!r}]"
        if not isinstance(column.dtype, np.dtype) and column.isna().any():
            raise missing_value(int(np.argmax(column.isna())), where)
        array = as_array(column.to_numpy(dtype), where)
        if not is_real(array.dtype) or array.ndim > 2:
            raise TypeError(
                f"{where} holds no real numbers; leave it out, for example with {name}.drop(columns=[{label!r}])"
            )
        columns.append(as_floats(array.reshape(len(array), -1), where))
    return np.concatenate(columns, axis=1) if columns else np.empty(table.shape)


def _numpy_dtype(dtype: Any) -> Any:
    """Return the NumPy dtype of what a column holds: nullable and pyarrow columns name it, sparse ones too."""
    return getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))


def missing_value(row: int, name: str) -> ValueError:
    return ValueError(
        f"{name} holds a missing value (first in row {row}), expected finite numbers; remove such rows and their "
        "group labels, or fill them in"
    )


def is_real(dtype: Any) -> bool:
    """Whether a NumPy dtype is of real numbers, or one that float32 holds, such as bfloat16 of ml_dtypes."""
    if not isinstance(dtype, np.dtype):
        return False
    return dtype.kind in "fiub" or (dtype.kind == "V" and np.can_cast(dtype, np.float32))


def as_floats(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return an ``(n, d)`` array of numbers as aligned float32 or float64 in the order of C, with a copy if need be.

    Raises
    ------
    ValueError
        It holds an integer that float64 cannot hold.
    OSError
        It is mapped, and there is no room for the converted file.
    """
    native = array.dtype.newbyteorder("=")
    if native in (np.float32, np.float64):
        return as_dtype(array, native, name)
    return as_dtype(array, np.float32 if array.dtype.itemsize <= 2 else np.float64, name)


def as_dtype(array: NDArray[Any], dtype: Any, name: str) -> NDArray[Any]:
    """Return an ``(n, d)`` array of a dtype in the order of C; what is converted of a mapped one is in a file as well.

    A block of rows at a time, since a mapped array may not fit into memory.
    """
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    n_rows, row_bytes = len(array), array.shape[1] * max(array.itemsize, np.dtype(dtype).itemsize)
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    if n_rows <= step or not is_mapped(array):
        return _converted(array, dtype, 0, name)
    blocks = (_converted(array[start : start + step], dtype, start, name) for start in range(0, n_rows, step))
    return rows_in_file(blocks, dtype, array.shape[1])


def _converted(array: NDArray[Any], dtype: Any, first_row: int, name: str) -> NDArray[Any]:
    floats = np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])
    if array.dtype.kind not in "iu" or array.itemsize < 8 or not array.size:
        return floats
    if max(float(floats.max()), -float(floats.min())) >= 2.0**53:
        # The upper half of an integer is exact in float64, and so is what its nearest number has beyond that.
        lower = floats - (array >> 32).astype(np.float64) * 2.0**32
        inexact = np.argwhere(lower != (array & 0xFFFFFFFF).astype(np.float64))
        if len(inexact):
            row, column = inexact[0]
            raise ValueError(
                f"{name} holds the integer {array[row, column]} (row {first_row + row}, column {column}), which "
                "float64 cannot hold exactly; leave the column out if it is an identifier, or round it, for example "
                f"with numpy.asarray({name}, dtype=numpy.float64)"
            )
    return floats
