"""Array-to-array primitives; no word of fairness here.

Why this room exists. Every metric of the library is a reduction over all pairs of points: the k-th smallest distance
of a row, the number of balls a point lies in, a kernel sum, the same sum under resampling weights. None of them needs
the ``n x m`` matrix of distances, and none of the libraries around computes them without it or without giving up exact
ties. So a backend offers the reductions themselves (:class:`Backend`), and a metric is a few lines over them.

How a backend is chosen. :func:`select_backend` returns the CUDA kernels for features that lie on a CUDA device, the
compiled CPU kernels for all others, and the NumPy reference where those cannot load, which it says once;
``backend.name`` goes into every result. The reference is also the oracle of the tests: float64, chunked, readable,
slow.

Features on a device. A CUDA backend reads torch tensors, or arrays that share their memory with one, where they lie,
and brings its results to the host, O(n) numbers. Between the check of the arguments and a backend, metrics move
features with :func:`take_rows`, :func:`join_rows` and :func:`to_host` only, which serve both kinds. For torch programs
``import egtmetrics.ops.torch_ops`` registers the primitives as ``torch.ops.egtmetrics.*``, for either kind of tensor
and for ``torch.compile``.

What is exact. Radii and memberships decide counts, and counts end in papers; a tie (integer data, duplicated rows) must
not hang on the rounding of a matrix product. The kernels therefore use the product only to exclude pairs that a bound
on its rounding error excludes, and recompute the rest from the inputs in float64. Kernel sums decide nothing by
themselves and are float32 products with float64 sums, within about 1e-5 relative or 2e-7 absolute of the oracle.
"""

from egtmetrics.ops._backend import ANY_RADIUS, Backend, BallCounts, Divergences, Features, HostBackend
from egtmetrics.ops._device import common_device, device_tensor, join_rows, take_rows, to_host
from egtmetrics.ops._dispatch import BackendName, select_backend, select_host_backend
from egtmetrics.ops._sharded import Exchange, ShardedFeatures, digest

__all__ = [
    "ANY_RADIUS",
    "Backend",
    "BackendName",
    "BallCounts",
    "Divergences",
    "Exchange",
    "Features",
    "HostBackend",
    "ShardedFeatures",
    "common_device",
    "device_tensor",
    "digest",
    "join_rows",
    "select_backend",
    "select_host_backend",
    "take_rows",
    "to_host",
]
