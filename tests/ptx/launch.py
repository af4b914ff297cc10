"""Runs one kernel of some PTX on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.ptx.interpreter import Program
from tests.ptx.memory import DeviceMemory
from tests.ptx.parser import Module, parse

Array = NDArray[Any]


@cache
def module_of(text: str) -> Module:
    return parse(text)


@cache
def program_of(text: str, name: str) -> Program:
    return Program(module_of(text), name)


def run_kernel(
    text: str,
    name: str,
    arguments: Sequence[Array | np.generic],
    *,
    grid: int | tuple[int, int, int] = 1,
    block: int | tuple[int, int, int] = 32,
    dynamic: int = 0,
) -> list[Array]:
    """Arrays are passed by address and returned with what the kernel wrote; NumPy scalars are passed by value."""
    program = program_of(text, name)
    packed, arrays, address = b"", [], 1 << 30
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            arrays.append((address, argument))
            value: np.generic = np.uint64(address)
            address += -(-argument.nbytes // 256) * 256 + 256
        else:
            value = argument
        packed = packed.ljust(-(-len(packed) // value.itemsize) * value.itemsize, b"\0") + value.tobytes()
    device = DeviceMemory([*((at, array.tobytes()) for at, array in arrays), *program.initial])
    shapes = [one if isinstance(one, tuple) else (one, 1, 1) for one in (grid, block)]
    program.launch(device, shapes[0], shapes[1], dynamic, packed)
    return [np.frombuffer(device.read(at, a.nbytes), a.dtype).reshape(a.shape).copy() for at, a in arrays]
