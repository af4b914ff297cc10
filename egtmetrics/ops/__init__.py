"""Primitives on arrays, which know nothing of groups or fairness.

Why this package exists. Every metric of the library is a reduction over all pairs of points: the k-th smallest distance
of a row, the number of balls that contain a point, a kernel sum, the same sum under resampling weights. None of them
needs the ``n x m`` matrix of distances, and no other library computes them without it and with exact ties. So a backend
offers the reductions themselves (:class:`Backend`), and a metric is a few lines over them.

How a backend is chosen. :func:`select_backend` returns the CUDA kernels for features on a CUDA device, the compiled CPU
kernels for all others, and the NumPy reference, with one warning, where those cannot be loaded; ``backend.name`` goes
into every result. The reference is also the oracle of the tests: float64, chunked, readable, slow.

How a backend is made. The signatures of the protocols in ``_backend.py`` declare dtypes and shapes. The calls into the
CPU and CUDA kernels and the torch operators follow from them (``_primitives.py``).

Features on a device. A CUDA backend reads torch tensors, or arrays that share their memory with one, in place, and
returns its results on the host, O(n) numbers; only bootstrap counts stay, for the band, and all results where a metric
asks for that (``results_stay``). After the check of the arguments, metrics handle features only with
:func:`take_rows`, :func:`join_rows`, :func:`to_host` and :func:`column_ranges`, and results that stay with
:func:`smallest_at`, :func:`n_true` and comparisons, which work for both kinds. For torch programs ``import
egtmetrics.ops.torch_ops`` registers those that take arrays as ``torch.ops.egtmetrics.*``, for either device and for
``torch.compile``.

What is remembered. A set that is compared with many others can be prepared (``_memo.py``): primitives that see it alone
are computed once, and functions on the host that are marked with :func:`of_one_set`. For a set to which rows are added
(``_growing.py``), radii and memberships of the rows that were there are updated.

What is exact. Radii and memberships decide counts, so a tie (integer data, duplicated rows) must not depend on the
rounding of a matrix product. The kernels use the product only to exclude pairs that a bound on its rounding error
excludes, and recompute the rest from the inputs in float64. Kernel sums decide nothing by themselves: they are float32
products with float64 sums, within about 1e-5 relative or 2e-7 absolute of the oracle.
"""

from egtmetrics._threads import available_threads
from egtmetrics.ops._backend import ANY_RADIUS, Backend, BallCounts, Divergences, Features, HostBackend
from egtmetrics.ops._device import (
    column_ranges,
    common_device,
    device_of,
    device_order,
    device_tensor,
    join_rows,
    n_true,
    smallest_at,
    take_rows,
    to_host,
)
from egtmetrics.ops._dispatch import BackendName, reading_device, select_backend, select_host_backend
from egtmetrics.ops._growing import GrowingSet, growing_part, merged_by
from egtmetrics.ops._memo import (
    Entry,
    Memo,
    Prepared,
    WithheldRows,
    bare,
    memo_of,
    of_one_set,
    subset,
    summary_of_one_set,
)
from egtmetrics.ops._native import ending_on_cut_files
from egtmetrics.ops._sharded import Exchange, ShardedFeatures, digest

__all__ = [
    "ANY_RADIUS",
    "Backend",
    "BackendName",
    "BallCounts",
    "Divergences",
    "Entry",
    "Exchange",
    "Features",
    "GrowingSet",
    "HostBackend",
    "Memo",
    "Prepared",
    "ShardedFeatures",
    "WithheldRows",
    "available_threads",
    "bare",
    "column_ranges",
    "common_device",
    "device_of",
    "device_order",
    "device_tensor",
    "digest",
    "ending_on_cut_files",
    "growing_part",
    "join_rows",
    "memo_of",
    "merged_by",
    "n_true",
    "of_one_set",
    "reading_device",
    "select_backend",
    "select_host_backend",
    "smallest_at",
    "subset",
    "summary_of_one_set",
    "take_rows",
    "to_host",
]
