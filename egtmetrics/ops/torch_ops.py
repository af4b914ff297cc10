"""The primitives as torch operators: tensors in, tensors out, on the CPU or on a CUDA device, also in a compiled graph.

Importing this file registers ``torch.ops.egtmetrics.*`` and needs torch 2.4; the functions below are the same operators
with names for their arguments. They run where their tensors lie: on a device without a copy and without waiting for the
result, on the CPU on the memory of the tensors, with every core.

Points are ``(n, d)`` tensors, float32 or float64, finite (which is not checked, since that would wait for the device),
both sets of one dtype on one device; a set that is not contiguous is copied. Distances are Euclidean, squared ones
float64 sums of squared differences, so ties count as such. Where ``y`` is None the set is compared with itself, and the
pair of a point with itself is left out. There are no gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from egtmetrics.ops import _device
from egtmetrics.ops._backend import Divergences
from egtmetrics.ops._dispatch import select_backend

__all__ = [
    "ball_counts",
    "divergence_bootstrap",
    "kernel_density",
    "kernel_density_band",
    "kth_neighbor",
    "project",
    "soft_ball_product",
]


def kth_neighbor(x: Tensor, y: Tensor | None = None, *, n_neighbors: int) -> Tensor:
    """Squared distance of each x to its ``n_neighbors``-th nearest y, float64 of shape ``(n,)``.

    >>> kth_neighbor(torch.tensor([[0.0], [1.0], [5.0]]), n_neighbors=1)
    tensor([ 1.,  1., 16.], dtype=torch.float64)
    """
    return cast("Tensor", torch.ops.egtmetrics.kth_neighbor(x, y, n_neighbors))


def ball_counts(
    x: Tensor,
    y: Tensor | None = None,
    *,
    x_sq_radii: Tensor | None = None,
    y_sq_radii: Tensor | None = None,
    closed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count which points lie in which balls, given float64 squared radii; ``closed`` takes ``<=`` for ``<``.

    Returns ``x_ball_sizes``, how many y lie in the ball of each x; ``y_in_x_balls``, in how many x balls each y lies;
    ``y_ball_sizes`` and ``x_in_y_balls``, the same with the roles exchanged: int64, of length 0 where the radii were
    not given.

    >>> points, others = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.0], [2.0]])
    >>> sq_radii = kth_neighbor(points, n_neighbors=1)
    >>> ball_counts(points, others, x_sq_radii=sq_radii, closed=True)[:2]
    (tensor([1, 2, 1]), tensor([2, 2]))
    """
    counts = torch.ops.egtmetrics.ball_counts(x, y, x_sq_radii, y_sq_radii, closed)
    return cast("tuple[Tensor, Tensor, Tensor, Tensor]", counts)


def kernel_density(x: Tensor, y: Tensor, *, bandwidth: float) -> Tensor:
    """``mean_j K(|x_i - y_j| / h)``, ``K(u) = cos(pi u / 2)`` for ``u <= 1`` else 0, float64 of shape ``(n,)``.

    >>> kernel_density(torch.tensor([[0.0], [9.0]]), torch.tensor([[0.0], [2.0]]), bandwidth=1.0)
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    return cast("Tensor", torch.ops.egtmetrics.kernel_density(x, y, bandwidth))


def kernel_density_band(x: Tensor, counts: Tensor, *, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Density p of x at its own points, and ``max_i |p_i - p_b,i|`` for each bootstrap replicate b.

    ``counts`` is ``(n, B)``, ``torch.uint16`` or ``torch.int16``: how often replicate b drew row j, and
    ``p_b,i = sum_j counts[j, b] K_ij / n``. Both results are float64, ``(n,)`` and ``(B,)``.

    >>> points, counts = torch.tensor([[0.0], [9.0]]), torch.tensor([[1, 2], [1, 0]], dtype=torch.int16)
    >>> kernel_density_band(points, counts, bandwidth=1.0)
    (tensor([0.5000, 0.5000], dtype=torch.float64), tensor([0.0000, 0.5000], dtype=torch.float64))
    """
    return cast("tuple[Tensor, Tensor]", torch.ops.egtmetrics.kernel_density_band(x, counts, bandwidth))


def soft_ball_product(x: Tensor, y: Tensor, *, radius: float) -> Tensor:
    """``prod_j min(1, |x_i - y_j| / R)``: the chance that no soft ball around a y covers ``x_i``, float64 ``(n,)``.

    >>> soft_ball_product(torch.tensor([[0.0], [9.0]]), torch.tensor([[0.5], [2.0]]), radius=1.0)
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return cast("Tensor", torch.ops.egtmetrics.soft_ball_product(x, y, radius))


def project(x: Tensor, matrix: Tensor) -> Tensor:
    """``x @ matrix.T`` in float64 for a float64 matrix ``(k, d)``, ``(n, k)``: equal rows of x stay equal.

    >>> project(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 3.0]], dtype=torch.float64))
    tensor([[3., 6.]], dtype=torch.float64)
    """
    return cast("Tensor", torch.ops.egtmetrics.project(x, matrix))


def divergence_bootstrap(
    p_counts: Tensor,
    q_counts: Tensor,
    *,
    codes: Sequence[int],
    parameters: Sequence[float] | None = None,
    smoothing: float = 0.0,
    n_replicates: int = 0,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """f-divergences ``(G, F)`` of int64 histograms ``(G, K)``, in nats, and their bootstrap ``(G, F, n_replicates)``.

    A replicate redraws both histograms of a group, as many draws as counts, the same on every device; every histogram
    needs a count. ``codes`` are those of csrc/include/egt/divergence.hpp and ``parameters`` the a there, 0 where there
    is none (the default). ``smoothing`` is added to every count.

    >>> values, replicates = divergence_bootstrap(
    ...     torch.tensor([[30, 10]]), torch.tensor([[20, 20]]), codes=[4], n_replicates=100)  # total variation
    >>> values, replicates.shape
    (tensor([[0.2500]], dtype=torch.float64), torch.Size([1, 1, 100]))
    """
    given = [0.0] * len(codes) if parameters is None else parameters
    results = torch.ops.egtmetrics.divergence_bootstrap(p_counts, q_counts, codes, given, smoothing, n_replicates, seed)
    return cast("tuple[Tensor, Tensor]", results)


_HOST = _device.DeviceArrays("cpu")


def _contiguous(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return x.contiguous(), None if y is None else y.contiguous()


def _host_points(x: Tensor, y: Tensor | None = None) -> _device.Points:
    return _HOST.points(*_contiguous(x, y))


def _arrays(points: _device.Points) -> tuple[Any, Any]:
    """Both sets as NumPy arrays on the memory of the tensors."""
    return points.x.numpy(), None if points.y is None else points.y.numpy()


def _doubles(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float64)


def _register(
    name: str, schema: str, host: Callable[..., Any], device: Callable[..., Any], shapes: Callable[..., Any]
) -> None:
    """Define an operator by what it does on the CPU and on a device, and the empty tensors that stand for its results.

    The schema is spelled out, because torch 2.4 does not read annotations that are text.
    """
    operator: Any = torch.library.custom_op(
        f"egtmetrics::{name}", host, mutates_args=(), device_types="cpu", schema=schema
    )
    operator.register_kernel("cuda", device)
    operator.register_fake(shapes)


def _kth_neighbor_on_host(x: Tensor, y: Tensor | None, n_neighbors: int) -> Tensor:
    points = _host_points(x, y)
    _device.check_n_neighbors(n_neighbors, points)
    return torch.from_numpy(select_backend().kth_neighbor(*_arrays(points), n_neighbors=n_neighbors))


def _kth_neighbor_on_device(x: Tensor, y: Tensor | None, n_neighbors: int) -> Tensor:
    return _device.KERNELS.kth_neighbor(*_contiguous(x, y), n_neighbors=n_neighbors)


_register(
    "kth_neighbor",
    "(Tensor x, Tensor? y, int n_neighbors) -> Tensor",
    _kth_neighbor_on_host,
    _kth_neighbor_on_device,
    lambda x, y, n_neighbors: _doubles(x, x.shape[0]),
)


def _ball_counts_on_host(
    x: Tensor, y: Tensor | None, x_sq_radii: Tensor | None, y_sq_radii: Tensor | None, closed: bool
) -> tuple[Tensor, ...]:
    points = _host_points(x, y)
    _device.check_which_radii(points, x_sq_radii, y_sq_radii)
    sides = ((x_sq_radii, "x_sq_radii", len(points.x)), (y_sq_radii, "y_sq_radii", points.n_other))
    x_radii, y_radii = (
        None if radii is None else _HOST.values(radii.contiguous(), name, "float64", (length,)).numpy()
        for radii, name, length in sides
    )
    counts = select_backend().ball_counts(*_arrays(points), x_sq_radii=x_radii, y_sq_radii=y_radii, closed=closed)
    return tuple(torch.tensor(count) for count in counts)  # copies: no two results may share memory, not even none


def _ball_counts_on_device(
    x: Tensor, y: Tensor | None, x_sq_radii: Tensor | None, y_sq_radii: Tensor | None, closed: bool
) -> tuple[Tensor, ...]:
    return _device.KERNELS.ball_counts(*_contiguous(x, y), x_sq_radii=x_sq_radii, y_sq_radii=y_sq_radii, closed=closed)


def _ball_counts_shapes(
    x: Tensor, y: Tensor | None, x_sq_radii: Tensor | None, y_sq_radii: Tensor | None, closed: bool
) -> tuple[Tensor, ...]:
    n, m = x.shape[0], (x if y is None else y).shape[0]
    sizes = (*((0, 0) if x_sq_radii is None else (n, m)), *((0, 0) if y_sq_radii is None else (m, n)))
    return tuple(x.new_empty((size,), dtype=torch.int64) for size in sizes)


_register(
    "ball_counts",
    "(Tensor x, Tensor? y, Tensor? x_sq_radii, Tensor? y_sq_radii, bool closed) -> (Tensor, Tensor, Tensor, Tensor)",
    _ball_counts_on_host,
    _ball_counts_on_device,
    _ball_counts_shapes,
)


def _kernel_density_on_host(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    return torch.from_numpy(select_backend().kernel_density(*_arrays(_host_points(x, y)), bandwidth=bandwidth))


def _kernel_density_on_device(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    return _device.KERNELS.kernel_density(*_contiguous(x, y), bandwidth=bandwidth)


_register(
    "kernel_density",
    "(Tensor x, Tensor y, float bandwidth) -> Tensor",
    _kernel_density_on_host,
    _kernel_density_on_device,
    lambda x, y, bandwidth: _doubles(x, x.shape[0]),
)


def _kernel_density_band_on_host(x: Tensor, counts: Tensor, bandwidth: float) -> tuple[Tensor, ...]:
    points, _ = _arrays(_host_points(x))
    draws = _HOST.values(counts.contiguous(), "counts", ("uint16", "int16"), (len(points), None)).numpy()
    results = select_backend().kernel_density_band(points, draws.view(np.uint16), bandwidth=bandwidth)
    return tuple(map(torch.from_numpy, results))


def _kernel_density_band_on_device(x: Tensor, counts: Tensor, bandwidth: float) -> tuple[Tensor, ...]:
    return _device.KERNELS.kernel_density_band(x.contiguous(), counts.contiguous(), bandwidth=bandwidth)


_register(
    "kernel_density_band",
    "(Tensor x, Tensor counts, float bandwidth) -> (Tensor, Tensor)",
    _kernel_density_band_on_host,
    _kernel_density_band_on_device,
    lambda x, counts, bandwidth: (_doubles(x, x.shape[0]), _doubles(x, counts.shape[1])),
)


def _soft_ball_product_on_host(x: Tensor, y: Tensor, radius: float) -> Tensor:
    return torch.from_numpy(select_backend().soft_ball_product(*_arrays(_host_points(x, y)), radius=radius))


def _soft_ball_product_on_device(x: Tensor, y: Tensor, radius: float) -> Tensor:
    return _device.KERNELS.soft_ball_product(*_contiguous(x, y), radius=radius)


_register(
    "soft_ball_product",
    "(Tensor x, Tensor y, float radius) -> Tensor",
    _soft_ball_product_on_host,
    _soft_ball_product_on_device,
    lambda x, y, radius: _doubles(x, x.shape[0]),
)


def _project_on_host(x: Tensor, matrix: Tensor) -> Tensor:
    points, _ = _arrays(_host_points(x))
    rows = _HOST.values(matrix.contiguous(), "matrix", "float64", (None, points.shape[1])).numpy()
    return torch.from_numpy(select_backend().project(points, rows))


def _project_on_device(x: Tensor, matrix: Tensor) -> Tensor:
    return _device.KERNELS.project(x.contiguous(), matrix.contiguous())


_register(
    "project",
    "(Tensor x, Tensor matrix) -> Tensor",
    _project_on_host,
    _project_on_device,
    lambda x, matrix: _doubles(x, x.shape[0], matrix.shape[0]),
)


def _divergence_bootstrap_on_host(
    p_counts: Tensor,
    q_counts: Tensor,
    codes: list[int],
    parameters: list[float],
    smoothing: float,
    n_replicates: int,
    seed: int,
) -> tuple[Tensor, ...]:
    p = _HOST.values(p_counts.contiguous(), "p_counts", "int64", (None, None)).numpy()
    q = _HOST.values(q_counts.contiguous(), "q_counts", "int64", p.shape).numpy()
    divergences = Divergences(np.array(codes, dtype=np.int32), np.array(parameters, dtype=np.float64))
    results = select_backend().divergence_bootstrap(
        p, q, divergences, smoothing=smoothing, n_replicates=n_replicates, seed=seed
    )
    return tuple(map(torch.from_numpy, results))


def _divergence_bootstrap_on_device(
    p_counts: Tensor,
    q_counts: Tensor,
    codes: list[int],
    parameters: list[float],
    smoothing: float,
    n_replicates: int,
    seed: int,
) -> tuple[Tensor, ...]:
    counts = p_counts.contiguous(), q_counts.contiguous()
    return _device.KERNELS.divergence_bootstrap(
        *counts, codes, parameters, smoothing=smoothing, n_replicates=n_replicates, seed=seed
    )


def _divergence_bootstrap_shapes(
    p_counts: Tensor,
    q_counts: Tensor,
    codes: list[int],
    parameters: list[float],
    smoothing: float,
    n_replicates: int,
    seed: int,
) -> tuple[Tensor, ...]:
    shape = p_counts.shape[0], len(codes)
    return _doubles(p_counts, *shape), _doubles(p_counts, *shape, n_replicates)


_register(
    "divergence_bootstrap",
    "(Tensor p_counts, Tensor q_counts, int[] codes, float[] parameters, float smoothing, int n_replicates, int seed)"
    " -> (Tensor, Tensor)",
    _divergence_bootstrap_on_host,
    _divergence_bootstrap_on_device,
    _divergence_bootstrap_shapes,
)
