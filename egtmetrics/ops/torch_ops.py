"""The primitives as torch operators: tensors in, tensors out, on the CPU or on a CUDA device, also in a compiled graph.

Importing this file registers every primitive that takes tensors as ``torch.ops.egtmetrics.*`` and needs torch 2.4; the
functions below are those that torch programs have a use for, with defaults and names for their arguments. They run
where their tensors lie: on a device without a copy and without waiting for the result, on the CPU on the memory of the
tensors, with every core.

Points are ``(n, d)`` tensors, float32 or float64, finite (checked on the CPU only, since a device would have to be
waited for), both sets of one dtype on one device; a set that is not contiguous is copied. Distances are Euclidean,
squared ones float64 sums of squared differences, so ties count as such. Where ``y`` is None the set is compared with
itself, and the pair of a point with itself is left out. There are no gradients.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from egtmetrics.ops import _device
from egtmetrics.ops._backend import ANY_RADIUS, Backend
from egtmetrics.ops._dispatch import select_backend
from egtmetrics.ops._primitives import Primitive, Value, primitives

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
    return cast("Tensor", torch.ops.egtmetrics.kth_neighbor(x, y, n_neighbors, *ANY_RADIUS))


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


def on_host(primitive: Primitive, *arguments: Any) -> Any:
    """Run a primitive, arguments in order, on the memory of its tensors."""
    values = _HOST.check(primitive, _values(primitive, arguments))
    for argument in primitive.arguments:
        value = values[argument.name]
        if value is not None and argument.on_device:
            values[argument.name] = value.numpy() if argument.is_features else value.numpy().view(argument.dtype)
        elif value is not None and argument.on_host:
            values[argument.name] = np.array(value, dtype=argument.dtype)
    results = primitive.call(select_backend(), values)
    # Empty ones are copied: no two results may share memory, not even none.
    return _joined([torch.from_numpy(result) if result.size else torch.tensor(result) for result in results])


def on_device(primitive: Primitive, *arguments: Any) -> Any:
    """Run a primitive, arguments in order, where its tensors lie."""
    return _joined(_device.KERNELS.run(primitive, _values(primitive, arguments)))


def shapes(primitive: Primitive, *arguments: Any) -> Any:
    """Return empty tensors for the results."""
    values = _values(primitive, arguments)
    return _joined(_device.new_tensors(primitive, values, arguments[0].device))


def _values(primitive: Primitive, arguments: Sequence[Any]) -> dict[str, Any]:
    names = (argument.name for argument in primitive.arguments)
    return {
        name: value.contiguous() if isinstance(value, Tensor) else value
        for name, value in zip(names, arguments, strict=True)
    }


def _joined(results: Sequence[Tensor]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _type(argument: Value) -> str:
    """As a schema spells it, which is text because torch 2.4 does not read annotations that are."""
    name = "Tensor" if argument.on_device else argument.dtype
    if argument.on_host:
        name = "float[]" if argument.dtype.startswith("float") else "int[]"
    return name + "?" * argument.optional


def _register(primitive: Primitive) -> None:
    """Define an operator: what it does on the CPU, what on a device, and the empty tensors that its results become."""
    arguments = ", ".join(f"{_type(argument)} {argument.name}" for argument in primitive.arguments)
    results = ", ".join("Tensor" for _ in primitive.results)
    options: dict[str, Any] = {}
    if hasattr(torch.Tag, "cudagraph_unsafe"):  # older ones capture them
        options["tags"] = (torch.Tag.cudagraph_unsafe,)
    operator: Any = torch.library.custom_op(
        f"egtmetrics::{primitive.name}",
        partial(on_host, primitive),
        mutates_args=(),
        device_types="cpu",
        schema=f"({arguments}) -> {results if len(primitive.results) == 1 else f'({results})'}",
        **options,
    )
    operator.register_kernel("cuda", partial(on_device, primitive))
    operator.register_fake(partial(shapes, primitive))


for _primitive in primitives(Backend).values():
    if _primitive.takes_arrays:  # torch takes the device from a tensor among the arguments
        _register(_primitive)
