"""faiss on the CUDA device where the features lie, if its build for GPUs is installed (``egtmetrics[gpu]``).

No GPU has run this yet. The tests run the same calls with copies on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_LARGEST_K = 2048
"""Neighbours, and cells of an inverted file, that a search on a GPU can return for one row."""


class Gpu(NamedTuple):
    """A device, and the memory and streams that all indexes on it share. Only one thread may use it at a time."""

    number: int
    resources: Any


def find_gpu(device: str | None, *, largest_k: int) -> Gpu | None:
    """Return the GPU behind a device such as ``"cuda:1"``; None where searches must run on the host.

    That is so for features on the host, with a build of faiss that has no GPU support or sees no GPU, and for a
    ``largest_k`` that no GPU can search for.
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
