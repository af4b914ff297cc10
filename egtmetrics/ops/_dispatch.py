"""Choose a backend, and say so when it is not the one hoped for."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Literal, get_args

from egtmetrics.ops._backend import Backend
from egtmetrics.ops._native import CpuBackend, native_module
from egtmetrics.ops.reference import ReferenceBackend

BackendName = Literal["auto", "cpu", "reference"]


class BackendFallbackWarning(UserWarning):
    """The compiled kernels could not be loaded, so the NumPy reference runs: same results, many times slower."""


@cache  # the warning is for the process, not for every call
def _warn_fallback(reason: str) -> None:
    warnings.warn(
        f"the compiled CPU kernels could not be loaded ({reason}); the NumPy reference runs instead, with the same "
        "results but many times slower. Reinstall egtmetrics with a C++17 compiler, or pass backend='reference'.",
        BackendFallbackWarning,
        stacklevel=4,
    )


def select_backend(backend: BackendName = "auto", *, n_threads: int | None = None) -> Backend:
    """Return the backend to compute with.

    ``"auto"`` takes the compiled CPU kernels, or the NumPy reference with one warning per process where they cannot
    load; ``"cpu"`` raises ImportError instead. ``n_threads=None`` takes every core this process may run on; results do
    not depend on it.

    >>> select_backend("reference").name
    'reference'
    """
    if backend not in get_args(BackendName):
        raise ValueError(f"backend={backend!r} is unknown; choose one of {', '.join(map(repr, get_args(BackendName)))}")
    if n_threads is not None and (isinstance(n_threads, bool) or not isinstance(n_threads, int) or n_threads < 1):
        raise ValueError(f"n_threads={n_threads!r} is no positive integer; pass None to use every available core")
    if backend == "reference":
        return ReferenceBackend()
    try:
        module = native_module()
    except ImportError as error:
        if backend == "cpu":
            raise
        _warn_fallback(str(error))
        return ReferenceBackend()
    return CpuBackend(module, n_threads)
