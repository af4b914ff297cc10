"""Array-to-array primitives; no word of fairness here.

Why this room exists. Every metric of the library is a reduction over all pairs of points: the k-th smallest distance
of a row, the number of balls a point lies in, a kernel sum, the same sum under resampling weights. None of them needs
the ``n x m`` matrix of distances, and none of the libraries around computes them without it or without giving up exact
ties. So a backend offers the reductions themselves (:class:`Backend`), and a metric is a few lines over them.

How a backend is chosen. :func:`select_backend` returns the compiled CPU kernels where they load and the NumPy
reference otherwise, and says once which it took; ``backend.name`` goes into every result. The reference is also the
oracle of the tests: float64, chunked, readable, slow.

What is exact. Radii and memberships decide counts, and counts end in papers; a tie (integer data, duplicated rows) must
not hang on the rounding of a matrix product. The kernels therefore use the product only to exclude pairs that a bound
on its rounding error excludes, and recompute the rest from the inputs in float64. Kernel sums decide nothing by
themselves and are float32 products with float64 sums, within 1e-5 relative or 2e-7 absolute of the oracle.
"""

from egtmetrics.ops._backend import ANY_RADIUS, Backend, BallCounts, Divergences, Features
from egtmetrics.ops._dispatch import BackendName, select_backend

__all__ = ["ANY_RADIUS", "Backend", "BackendName", "BallCounts", "Divergences", "Features", "select_backend"]
