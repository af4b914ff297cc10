"""Counts what crosses between host and device: what the kernels ask of the runtime, and what torch copies around them.

On the harness the tensors of a device lie in host memory, where torch copies nothing. So its functions are counted by
what they do to a tensor on a device: they copy, and they wait for the stream, since no memory here is pinned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch.overrides import TorchFunctionMode

TO_DEVICE = {"tensor", "as_tensor"}
TO_HOST = {"cpu", "item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__contains__", "allclose"}
SIZE_IS_ASKED = {"nonzero", "unique", "masked_select", "unique_consecutive"}
"""The host allocates the result, so it waits for the number of rows."""


@dataclasses.dataclass
class Counts:
    launches: int = 0
    """Of the kernels of this library; torch's operators are not counted."""
    to_device: int = 0
    bytes_to_device: int = 0
    to_host: int = 0
    bytes_to_host: int = 0
    waits: int = 0
    """How often the host waits until the device has done all that it was asked for."""


class _Torch(TorchFunctionMode):
    """Counts the functions of torch that copy or wait."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts
        self.on_host: list[Any] = []  # held, so that no other tensor gets the id of one

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, counts = func.__name__, self.counts
        if name == "numpy" and not any(args[0] is tensor for tensor in self.on_host):
            raise AssertionError("a tensor on a device becomes an array without cpu()")
        inside = Counts()
        index = list(_arrays(args[1:])) if name == "__getitem__" else []
        uploads = [one for one in index if isinstance(one, np.ndarray)]
        by_mask = any(str(one.dtype).endswith("bool") for one in index)
        result = func(*args, **(kwargs or {}))
        if name in TO_DEVICE:
            uploads = [result]
        for array in uploads:
            inside.to_device += 1
            inside.bytes_to_device += array.nbytes
        if name in TO_HOST:
            inside.to_host = 1
            inside.bytes_to_host = args[0].nbytes
        elif name in SIZE_IS_ASKED or by_mask:
            inside.to_host, inside.bytes_to_host = 1, 8
        if name == "cpu":
            self.on_host.append(result)
        inside.waits = inside.to_device + inside.to_host
        _add(counts, inside)
        return result


def _arrays(value: Any) -> Iterator[Any]:
    if hasattr(value, "dtype"):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _arrays(one)


def _add(total: Counts, more: Counts) -> None:
    for field in dataclasses.fields(Counts):
        setattr(total, field.name, getattr(total, field.name) + getattr(more, field.name))


@contextmanager
def counted(module: Any) -> Iterator[Counts]:
    """Count until the end of the block what happens on the devices of a module of the harness, and in torch."""
    counts = Counts()
    module.simt_counts()
    with _Torch(counts):
        yield counts
    found = module.simt_counts()
    _add(counts, Counts(**{field.name: found[field.name] for field in dataclasses.fields(Counts)}))
