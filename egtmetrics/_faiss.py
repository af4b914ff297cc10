"""faiss on the CUDA device that holds the features, if its GPU build is installed (``egtmetrics[gpu]``).

No GPU has run this yet. The tests make the same calls with copies on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_LARGEST_K = 2048
"""The most neighbours, or cells of an inverted file, that a search on a GPU returns for one row."""


class Gpu(NamedTuple):
    """A device, with the memory and streams that all indexes on it share. Only one thread may use it at a time."""

    number: int
    resources: Any


def find_gpu(device: str | None, *, largest_k: int) -> Gpu | None:
    """Return the GPU behind a device such as ``"cuda:1"``; None if searches must run on the host.

    Searches run on the host if the features are there, if faiss has no GPU support or sees no GPU, or if ``largest_k``
    is more than a search on a GPU can return.
    """
    import faiss

    kind, _, number = (device or "").partition(":")
    if kind != "cuda" or faiss.get_num_gpus() == 0 or largest_k > _LARGEST_K:
        return None
    return Gpu(int(number or 0), faiss.StandardGpuResources())


def on_gpu(index: Any, gpu: Gpu | None) -> Any:
    """Return a copy of an index on the GPU, or the index itself without one."""
    if gpu is None:
        return index
    import faiss

    return faiss.index_cpu_to_gpu(gpu.resources, gpu.number, index)
