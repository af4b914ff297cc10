"""Arrays in ``.npy``, ``.npz``, ``.safetensors`` and ``.pt`` files: what a file holds first, then what is asked for."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics.data._reading import check_unpacked, reading

ONLY = ""
"""The key of the single array of a file that names none."""

_NO_PICKLE = "Python objects are not loaded, because that can run code"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a file holds under one name."""

    shape: tuple[int, ...] | None
    """None for what is no array."""
    load: Callable[[], Any]
    """Reads it: an array, or a list of labels."""
    kind: str = ""
    """The type of what is no array."""

    def __str__(self) -> str:
        return self.kind if self.shape is None else str(self.shape)


def npy_entries(path: Path) -> dict[str, Entry]:
    with path.open("rb") as file, reading(path, "write it with numpy.save"):
        header = _Header.read(file)
        offset = file.tell()
    header.check(path, path.stat().st_size - offset)

    def load() -> NDArray[Any]:
        if 0 in header.shape:  # nothing to map
            return np.empty(header.shape, header.dtype)
        with reading(path):
            return np.lib.format.open_memmap(path, mode="r")

    return {ONLY: Entry(header.shape, load)}


def npz_entries(path: Path) -> dict[str, Entry]:
    return {name: _npz_entry(path, member, header) for name, (member, header) in _npz_headers(path).items()}


def _npz_headers(path: Path) -> dict[str, tuple[zipfile.ZipInfo, _Header]]:
    headers = {}
    with reading(path, "write it with numpy.savez"), zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        for member in members:
            with archive.open(member) as file:
                header = _Header.read(file)
                headers[member.filename.removesuffix(".npy")] = (member, header, member.file_size - file.tell())
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: holds two arrays of one name; write it again with numpy.savez")
    for name, (_, header, size) in headers.items():
        header.check(path, size, name)
    return {name: (member, header) for name, (member, header, _) in headers.items()}


def _npz_entry(path: Path, member: zipfile.ZipInfo, header: _Header) -> Entry:
    def load() -> NDArray[Any]:
        check_unpacked(path, member.compress_size, member.file_size)
        with reading(path, "write it with numpy.savez"), zipfile.ZipFile(path) as archive, archive.open(member) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            file.read()  # to its end, where the checksum is compared
        return array

    return Entry(header.shape, load)


@dataclasses.dataclass(frozen=True)
class _Header:
    """The first lines of a ``.npy`` file."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    @classmethod
    def read(cls, file: IO[bytes]) -> _Header:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"its format is version {version}, which only arrays of records need")
        return cls(*_HEADERS[version](file))

    def check(self, path: Path, size: int, name: str = ONLY) -> None:
        """Check that the array is one of numbers or text, and as long as the file says."""
        array = f"array {name!r}" if name else "its array"
        if self.dtype.hasobject:
            raise ValueError(
                f"{path}: {array} holds Python objects; {_NO_PICKLE}. Save numbers, and text as array.astype(str)"
            )
        if self.dtype.kind == "V":
            raise ValueError(
                f"{path}: {array} has dtype {self.dtype}, expected numbers or text; save every field as an array of "
                "its own, and bfloat16, whose name .npy does not keep, as array.astype('float32')"
            )
        expected = math.prod(self.shape) * self.dtype.itemsize
        if min(self.shape, default=0) < 0 or size != expected or (expected == 0 and 0 not in self.shape):
            raise ValueError(
                f"{path}: {array} of shape {self.shape} and dtype {self.dtype} needs {expected} bytes, but {size} are "
                "there; the file is cut off, or has more than one array in it: write it again"
            )


def reference_entries(path: Path) -> dict[str, Entry]:
    from egtmetrics.groups import Reference

    found = Reference.load(path)
    labels = {} if found.sensitive_features is None else found.sensitive_features.to_dict("list")
    entries = {str(name): Entry((len(column),), functools.partial(list, column)) for name, column in labels.items()}
    return {**entries, "features": Entry(found.features.shape, lambda: found.features)}


def safetensors_entries(path: Path) -> dict[str, Entry]:
    from safetensors import safe_open

    with reading(path), safe_open(path, "numpy") as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        return {
            name: Entry(tuple(part.get_shape()), functools.partial(_safetensor, path, name, part.get_dtype()))
            for name, part in found.items()
        }


def _safetensor(path: Path, name: str, dtype: str) -> NDArray[Any]:
    from safetensors import safe_open

    if dtype == "BF16":  # NumPy has no such type: its bits are the upper half of a float32
        with path.open("rb") as file, reading(path):
            n_header = int.from_bytes(file.read(8), "little")
            described = json.loads(file.read(n_header))[name]
            first, last = described["data_offsets"]
            file.seek(8 + n_header + first)
            upper = np.frombuffer(file.read(last - first), "<u2").astype("<u4")
            array: NDArray[Any] = (upper << 16).view("<f4").reshape(described["shape"])
            return array
    with reading(path, f"save {name!r} as float32"), safe_open(path, "numpy") as file:
        array = file.get_tensor(name)
    return array


def torch_entries(path: Path) -> dict[str, Entry]:
    """A dictionary of tensors by its keys; a list of batches as one tensor; the items of a tuple as "0", "1", ..."""
    import torch

    remedy = "save a dictionary of tensors with torch.save"
    if zipfile.is_zipfile(path):
        with reading(path, remedy), zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            scripted = any(member.filename.endswith("/constants.pkl") for member in archive.infolist())
        check_unpacked(path, path.stat().st_size, unpacked)
        if scripted:
            raise ValueError(f"{path}: holds a network (TorchScript), expected features; encode the samples with it")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its own remedy is to load the file in the unsafe way
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            raise ValueError(f"{path}: is damaged, or was not written by torch.save; {remedy}") from error
        what = "NumPy arrays" if asked[1].startswith("numpy.") else f"objects of {asked[1]}"
        raise ValueError(
            f"{path}: holds {what}, which torch.save pickles; {_NO_PICKLE}. Save arrays as torch.from_numpy(array) or "
            "with numpy.savez, and labels as a list of text"
        ) from error
    except Exception:
        with reading(path, remedy):
            raise
    if isinstance(contents, Mapping):
        return {str(key): _torch_entry(path, str(key), value) for key, value in contents.items()}
    if isinstance(contents, list) and {isinstance(item, list | tuple) and len(item) for item in contents} in ({2}, {3}):
        contents = tuple(list(parts) for parts in zip(*contents, strict=True))  # [(features, labels), ...]
    if isinstance(contents, list | tuple):
        whole = _torch_entry(path, ONLY, contents)
        if isinstance(contents, list) and whole.shape is not None:
            return {ONLY: whole}
        return {str(place): _torch_entry(path, str(place), value) for place, value in enumerate(contents)}
    return {ONLY: _torch_entry(path, ONLY, contents)}


def _torch_entry(path: Path, name: str, value: Any) -> Entry:
    import torch

    if isinstance(value, list | tuple) and value:
        if all(isinstance(item, str | bool | int | float | None) for item in value):
            return Entry((len(value),), lambda: list(value))
        trailing = {item.shape[1:] if isinstance(item, torch.Tensor) and item.ndim else None for item in value}
        if len(trailing) == 1 and None not in trailing:
            n = sum(len(item) for item in value)
            return Entry((n, *value[0].shape[1:]), lambda: _from_tensor(path, name, torch.cat(list(value))))
    if isinstance(value, torch.Tensor):
        return Entry(tuple(value.shape), lambda: _from_tensor(path, name, value))
    return Entry(None, lambda: None, type(value).__name__)


def _from_tensor(path: Path, name: str, tensor: Any) -> NDArray[Any]:
    import torch

    check_unpacked(path, path.stat().st_size, tensor.numel() * tensor.element_size())  # one value can be expanded
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.to(torch.float32)  # bfloat16 and smaller, which NumPy does not have
    with reading(path, f"save tensor.to_dense() of {name!r}" if name else "save tensor.to_dense()"):
        array: NDArray[Any] = tensor.detach().numpy()
    return array


def check_not_derived(entries: Mapping[str, Entry], path: Path) -> None:
    """Refuse files that were made of features, but do not hold them."""
    names = {name.lower() for name in entries}
    if {"mu", "sigma"} <= names or {"mean", "cov"} <= names:
        raise ValueError(
            f"{path}: holds statistics of FID (mean and covariance), expected the features of every sample, because "
            "each group has its own statistics; pass the features that they were computed from"
        )
    if {"indices", "indptr", "data"} <= names:
        raise ValueError(f"{path}: holds a sparse matrix of SciPy, expected an array; save matrix.toarray()")


def squeezed(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the shape without dimensions of 1 behind the second, as of pooled maps ``(n, d, 1, 1)``."""
    if shape is not None and len(shape) > 2 and set(shape[2:]) == {1}:
        return tuple(shape[:2])
    return None if shape is None else tuple(shape)
