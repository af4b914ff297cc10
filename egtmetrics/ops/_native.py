"""The only importer of the compiled modules, and the backend that calls the one for the CPU."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._threads import available_threads
from egtmetrics.ops._backend import Features, HostBackend
from egtmetrics.ops._primitives import Primitive, implements
from egtmetrics.ops.reference import project

MOST_THREADS = 4096
"""More than any machine has cores; the kernels refuse a larger number, which is a mistake."""


@cache
def native_module() -> ModuleType:
    """Import the compiled CPU kernels; ImportError says why they cannot load."""
    return importlib.import_module("egtmetrics.ops._cpu")


@cache
def cuda_module() -> ModuleType:
    """Import the compiled CUDA kernels, which needs no device; ImportError says why they cannot load."""
    return importlib.import_module("egtmetrics.ops._cuda")


@contextlib.contextmanager
def ending_on_cut_files(before: str, after: str) -> Iterator[None]:
    """End the process with status 2 and one line where a mapped file is cut short while it is read.

    The line is ``before``, the name of the file, and ``after``. Without this the process dies of SIGBUS and says
    nothing. No exception can be raised there: the instruction that reads the lost page cannot be completed.
    """
    try:
        module = native_module()
    except ImportError:
        yield
        return
    module.end_on_cut_file(before, after)
    try:
        yield
    finally:
        module.restore_bus_error()


@implements(HostBackend)
class CpuBackend:
    """The compiled CPU kernels. The module takes every argument as declared, then the number of threads."""

    name = "cpu"
    device = None

    def __init__(self, module: Any, n_threads: int | None) -> None:
        self._module = module
        self._n_threads = available_threads() if n_threads is None else n_threads

    @property
    def arithmetic(self) -> str:
        """The instruction set, in which the order of the sums differs."""
        return str(self._module.build_info()["isa"])

    def _run(self, primitive: Primitive, values: dict[str, Any]) -> Any:
        results = getattr(self._module, primitive.name)(*values.values(), self._n_threads)
        return primitive.joined(results if isinstance(results, tuple) else [results])

    def project(self, x: Features, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return project(x, matrix)

    def split_kth_neighbor(
        self, x: Features, parts: NDArray[np.uint8], *, n_neighbors: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        # The k-th neighbour in one of P equal parts is about the Pk-th of all, with a variance of k P (P - 1).
        n_parts = parts.max(axis=0, initial=0).astype(np.int64) + 1
        places = np.minimum(n_neighbors, len(x)) * n_parts
        depth = math.ceil(float((places + 7.0 * np.sqrt(places * (n_parts - 1))).max(initial=1.0)))
        while True:
            depth = min(depth, len(x) - 1)
            radii: NDArray[np.float64] = self._module.split_kth_neighbor(x, parts, n_neighbors, depth, self._n_threads)
            if depth == len(x) - 1 or np.isfinite(radii).all():
                return radii
            depth *= 2
