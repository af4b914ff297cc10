"""Repeats every launch that the host code of a primitive makes, with the code that nvcc compiled.

The SIMT harness (tests/simt) runs the primitive; around each launch it says which kernel runs, with which arguments and
on which memory. The PTX of that kernel starts from the memory before the launch. Its result takes the place of the
harness's, so that what a primitive returns in the end was computed by PTX alone.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.ptx.interpreter import Dim, Program
from tests.ptx.launch import Array, program_of
from tests.ptx.memory import DeviceMemory
from tests.ptx.toolchain import SOURCES, ptx_of

ARCHITECTURE = "compute_75"


def plain_name(symbol: str) -> str:
    """A mangled name in which nvcc and g++ agree: theirs differ in how they call an anonymous namespace."""
    out, position = "", 0
    while match := re.compile(r"\d+").search(symbol, position):
        length = int(match.group())
        out += symbol[position : match.start()]
        if symbol[match.end() :].startswith("_GLOBAL__N_"):
            out, position = out + "12_GLOBAL__N_1", match.end() + length
        else:
            position = match.end() + length if length <= len(symbol) - match.end() else match.end()
            out += symbol[match.start() : position]
    return out + symbol[position:]


@cache
def kernels(architecture: str = ARCHITECTURE) -> dict[str, tuple[str, str]]:
    """The PTX and the name in it of every kernel of csrc/cuda, by its plain name."""
    found: dict[str, tuple[str, str]] = {}
    for source in sorted((SOURCES / "cuda").glob("*.cu")):
        text = ptx_of(source, architecture)
        for name in re.findall(r"^(?:\.\w+ )*\.entry ([\w$]+)", text, re.MULTILINE):
            found.setdefault(plain_name(name), (text, name))
    return found


@cache
def _symbols(library: str) -> dict[int, str]:
    listing = subprocess.run(["nm", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    lines = (line.split() for line in listing.splitlines())
    return {int(line[0], 16): line[2] for line in lines if len(line) == 3 and line[1] in "tTwWvVuU"}


@cache
def readable(names: tuple[str, ...]) -> list[str]:
    """Names of kernels as C++ has them, without namespaces and parameters: ``find_centre<float>``."""
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [_short(line) for line in plain.splitlines()]


def _short(name: str) -> str:
    name = name.removeprefix("void ").replace("(anonymous namespace)::", "").replace("egt::cuda::", "")
    depth, end = 0, len(name)
    for position, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            end = position
            break
    head = name[:end]
    template = head.find("<")
    base = head if template < 0 else head[:template]
    return base.rsplit("::", 1)[-1] + ("" if template < 0 else head[template:])


def _read(address: int, size: int) -> Array:
    return np.frombuffer(ctypes.string_at(address, size), np.uint8)


@dataclass
class Difference:
    """Where PTX and the harness left different bytes, in one allocation."""

    kernel: str
    address: int
    ptx: bytes
    harness: bytes


@dataclass
class Replay:
    arrays: Sequence[Array]
    library: str
    change: Callable[[str], str] | None = None
    launched: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    n_instructions: int = 0
    error: BaseException | None = None
    _before: list[tuple[int, Array]] = field(default_factory=list)

    def program(self, function: int) -> tuple[str, Program]:
        symbol = _symbols(self.library)[function]
        text, name = kernels()[plain_name(symbol)]
        if self.change is not None:
            text = self.change(text)
        return plain_name(symbol), program_of(text, name)

    def memory(self, scratch: Sequence[tuple[int, int]]) -> list[tuple[int, Array]]:
        mine = [(array.ctypes.data, array.nbytes) for array in self.arrays]
        return [(address, _read(address, size)) for address, size in sorted({*scratch, *mine}) if size]

    def launch(
        self,
        function: int,
        grid: Dim,
        block: Dim,
        dynamic: int,
        arguments: bytes,
        scratch: Sequence[tuple[int, int]],
        done: bool,
    ) -> None:
        if not done:
            self._before = self.memory(scratch)
            return
        try:
            name, program = self.program(function)
            (kernel,) = readable((name,))
            self.launched.append(kernel)
            device = DeviceMemory([*self._before, *program.initial])
            self.n_instructions += program.launch(device, grid, block, dynamic, arguments)
            for address, before in self._before:
                result = device.read(address, len(before))
                harness = ctypes.string_at(address, len(before))
                if result != harness:
                    self.differences.append(Difference(kernel, address, result, harness))
                    ctypes.memmove(address, result, len(result))
        except BaseException as error:
            self.error = error
            raise


@contextmanager
def replayed(module: Any, *arrays: Array, change: Callable[[str], str] | None = None) -> Iterator[Replay]:
    """Inside, every launch of the module is repeated in PTX; ``arrays`` are those that the primitive is given."""
    replay = Replay(arrays, str(Path(module.__file__)), change)
    module.simt_trace(replay.launch)
    try:
        yield replay
    finally:
        module.simt_trace(None)
