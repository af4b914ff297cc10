"""Choose a backend, and warn where it is the slow one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, cast, get_args

from egtmetrics.ops import _device
from egtmetrics.ops._backend import Backend, HostBackend, LocalBackend
from egtmetrics.ops._growing import UpdatingBackend
from egtmetrics.ops._memo import RememberingBackend, bare
from egtmetrics.ops._native import MOST_THREADS, CpuBackend, native_module
from egtmetrics.ops._sharded import ShardedFeatures
from egtmetrics.ops.reference import ReferenceBackend

BackendName = Literal["auto", "cpu", "cuda", "reference"]


class BackendFallbackWarning(UserWarning):
    """The compiled kernels could not be loaded, so the NumPy reference runs: the same results, many times slower."""


@cache  # the warning is for the process, not for every call
def _warn_fallback(reason: str) -> None:
    warnings.warn(
        f"the compiled CPU kernels could not be loaded ({reason}); the NumPy reference runs instead, with the same "
        "results but many times slower. Reinstall egtmetrics with a C++17 compiler, or pass backend='reference'.",
        BackendFallbackWarning,
        stacklevel=6,
    )


def select_backend(
    backend: BackendName = "auto",
    *,
    n_threads: int | None = None,
    features: Sequence[Any] = (),
    results_stay: bool = False,
) -> Backend:
    """Return the backend to compute with, given the ``features`` that it will see.

    ``"auto"`` takes the CUDA kernels if all features lie on one CUDA device and the kernels can run there, else the
    compiled CPU kernels, or the NumPy reference with one warning per process where they cannot load. ``"cpu"`` raises
    ImportError instead; so does ``"cuda"`` where its kernels were not built or torch is missing, and RuntimeError where
    there is no device. With ``"cuda"`` features must lie on the device; the other backends copy them to the host. Where
    ``"auto"`` does so, a warning says why, once per process for each reason.

    Features that are spread over ranks (``egtmetrics.distributed``) get the backend of their local rows, in a ring.

    ``n_threads=None`` takes every core this process may run on, within the quota of its container; results do not
    depend on it. It is for the CPU only.

    With ``results_stay`` a backend with a device leaves all results there, as tensors. What :func:`smallest_at`,
    :func:`n_true` and comparisons make of them is the same for arrays.

    >>> select_backend("reference").name
    'reference'
    """
    if backend not in get_args(BackendName):
        raise ValueError(f"backend={backend!r} is unknown; choose one of {', '.join(map(repr, get_args(BackendName)))}")
    if n_threads is not None and (
        isinstance(n_threads, bool) or not isinstance(n_threads, int) or not 1 <= n_threads <= MOST_THREADS
    ):
        raise ValueError(
            f"n_threads={n_threads!r}, expected an integer from 1 to {MOST_THREADS}; pass None to use every available "
            "core"
        )
    features = [bare(values) for values in features]
    sharded = [values for values in features if isinstance(values, ShardedFeatures)]
    if sharded:
        if len(sharded) < len(features):
            raise TypeError(
                "one set of features is spread over ranks and the other is not; pass both to "
                "egtmetrics.distributed.shard_features"
            )
        local = select_backend(backend, n_threads=n_threads, features=[values.local for values in sharded])
        return sharded[0].backend(cast("LocalBackend", local), select_host_backend(backend, n_threads=n_threads))
    device = reading_device(backend, *features)
    if device is not None:
        return cast(
            "Backend", RememberingBackend(_device.CudaBackend(_device.KERNELS, device, results_stay=results_stay))
        )
    return select_host_backend(backend, n_threads=n_threads)


def reading_device(backend: BackendName, *features: Any) -> str | None:
    """Return the device on which ``backend`` reads ``features``, or None if it reads them on the host.

    Warnings and errors are those of :func:`select_backend`.

    >>> import numpy as np
    >>> reading_device("auto", np.zeros((3, 2))) is None
    True
    """
    if backend == "cuda":
        return _device.select_device(*features)
    return _device.common_device(*features) if backend == "auto" else None


def select_host_backend(backend: BackendName = "auto", *, n_threads: int | None = None) -> HostBackend:
    """Return the backend for what runs on the host only: the compiled CPU kernels also where ``backend`` is "cuda".

    >>> select_host_backend("reference").name
    'reference'
    """
    return cast("HostBackend", RememberingBackend(UpdatingBackend(_host_backend(backend, n_threads))))


def _host_backend(backend: BackendName, n_threads: int | None) -> ReferenceBackend | CpuBackend:
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
