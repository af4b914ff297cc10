"""Values and arrays in one file, whose arrays are mapped into memory: processes on one machine share them.

The first line says what the file is. Then comes the length of the header, 8 bytes, and the header, JSON that describes
the values; then the arrays, each at a multiple of 64 bytes; then a checksum of everything before. Reading a file never
runs code that it holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from egtmetrics._atomic import write_whole
from egtmetrics.ops import WithheldRows

_KIND = b"egtmetrics reference "
_FORMAT = b"1\n"
_ALIGNMENT = 64
_BLOCK_BYTES = 1 << 24
_DIGEST_BYTES = 32


def write_values(path: str | Path, content: Any) -> None:
    """Write None, numbers, texts, arrays, and lists, tuples and dictionaries of these, whole or not at all.

    Raises
    ------
    TypeError
        If there is something else in it.
    OSError
        If the file cannot be written.
    """
    arrays: list[NDArray[Any]] = []
    header = json.dumps(_encoded(content, arrays)).encode()
    write_whole(path, _with_digest(_parts(header, arrays)))


def read_values(path: str | Path) -> Any:
    """Read what :func:`write_values` wrote, with read-only arrays that are mapped.

    Raises
    ------
    ValueError
        If the file is no such file, is of another version, or is damaged.
    OSError
        If it cannot be read.
    """
    with Path(path).open("rb") as file:
        start = file.readline(len(_KIND) + 16)
        if not start.startswith(_KIND):
            raise ValueError(f"{path}: is no reference; make one with Reference.save or egtmetrics prepare")
        if start != _KIND + _FORMAT:
            found, ours = (text.strip().decode(errors="replace") for text in (start.removeprefix(_KIND), _FORMAT))
            raise ValueError(f"{path}: has format {found} of references, and this version reads {ours}; make it again")
        file.seek(0)
        _check_digest(file, path)
        file.seek(len(start))
        header = file.read(int.from_bytes(file.read(8), "little"))
    raw = np.memmap(path, np.uint8, "r")
    return _decoded(json.loads(header), raw[_aligned(len(start) + 8 + len(header)) :])


def _parts(header: bytes, arrays: list[NDArray[Any]]) -> Iterator[bytes | memoryview]:
    start = _KIND + _FORMAT + len(header).to_bytes(8, "little") + header
    yield start.ljust(_aligned(len(start)), b"\0")
    for array in arrays:
        flat = array.view(np.uint8)
        for first in range(0, len(flat), _BLOCK_BYTES):
            yield flat[first : first + _BLOCK_BYTES].data
        yield bytes(_aligned(len(flat)) - len(flat))


def _with_digest(parts: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        found.update(part)
        yield part
    yield found.digest()


def _check_digest(file: Any, path: str | Path) -> None:
    left = file.seek(0, 2) - _DIGEST_BYTES
    file.seek(0)
    found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
        found.update(block)
        left -= len(block)
    if file.read() != found.digest():
        raise ValueError(f"{path}: is damaged or cut off, its checksum is another one; make the reference again")


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _encoded(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """Return a value as JSON has it, an array as its place and type; ``arrays`` gets the arrays."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, WithheldRows):
        return {"withheld": value.shape, "dtype": value.dtype.str}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        # The order in memory is kept: matrix products round differently for another one.
        order: Literal["F", "C"] = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        offset = sum(_aligned(array.nbytes) for array in arrays)
        arrays.append(value.ravel(order))
        return {"array": value.shape, "order": order, "dtype": value.dtype.str, "offset": offset}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(one, arrays) for one in value]}
    if isinstance(value, list):
        return [_encoded(one, arrays) for one in value]
    if isinstance(value, Mapping):
        return {"mapping": {key: _encoded(one, arrays) for key, one in value.items()}}
    raise TypeError(f"{value!r} is {type(value).__name__}, which a file cannot hold; pass numbers or texts")


def _decoded(value: Any, raw: NDArray[np.uint8]) -> Any:
    if isinstance(value, list):
        return [_decoded(one, raw) for one in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decoded(one, raw) for one in value["tuple"])
    if "mapping" in value:
        return {key: _decoded(one, raw) for key, one in value["mapping"].items()}
    dtype = np.dtype(value["dtype"])
    if "withheld" in value:
        n, d = value["withheld"]
        return WithheldRows((n, d), dtype)
    shape, offset = tuple(value["array"]), value["offset"]
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    return np.asarray(raw[offset : offset + size]).view(dtype).reshape(shape, order=value["order"])
