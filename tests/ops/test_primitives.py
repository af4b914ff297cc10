"""The declarations of the primitives: every backend has them, and returns the dtypes and shapes that they promise."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from egtmetrics.ops import Backend, Divergences, HostBackend, select_host_backend
from egtmetrics.ops._backend import LocalBackend
from egtmetrics.ops._device import CudaBackend, DeviceKernels
from egtmetrics.ops._memo import RememberingBackend
from egtmetrics.ops._native import CpuBackend
from egtmetrics.ops._primitives import primitives
from egtmetrics.ops._sharded import RingBackend
from egtmetrics.ops.reference import ReferenceBackend

N, M, D = 12, 7, 3
_rng = np.random.default_rng(0)
X, Y = _rng.normal(size=(N, D)), _rng.normal(size=(M, D))
HISTOGRAM = np.array([[3, 4, 1], [2, 2, 5]])
FAMILY = Divergences(np.array([0, 9], dtype=np.int32), np.array([0.0, 0.5]))

SAMPLES: list[tuple[str, dict[str, Any]]] = [
    ("kth_neighbor", {"x": X, "n_neighbors": 2}),
    ("kth_neighbor", {"x": X, "y": Y, "n_neighbors": 2, "sq_range": (0.5, 2.0)}),
    ("grouped_kth_neighbor", {"x": X, "x_offsets": np.array([0, 5, 12]), "n_neighbors": 2}),
    ("neighbors", {"x": X, "y": Y, "n_neighbors": 4}),
    ("ball_counts", {"x": X, "x_sq_radii": np.ones(N), "closed": True}),
    ("ball_counts", {"x": X, "y": Y, "y_sq_radii": np.ones(M), "closed": False}),
    ("kernel_density", {"x": X, "y": Y, "bandwidth": 1.0}),
    ("kernel_density_band", {"x": X, "counts": np.ones((N, 5), dtype=np.uint16), "bandwidth": 1.0}),
    ("bootstrap_counts", {"n_rows": N, "n_replicates": 4, "seed": 1}),
    ("soft_ball_product", {"x": X, "y": Y, "radius": 1.0}),
    ("project", {"x": X, "matrix": np.ones((2, D))}),
    ("divergence_bootstrap", {"p_counts": HISTOGRAM, "q_counts": HISTOGRAM, "divergences": FAMILY, "n_replicates": 4}),
    ("resampled_density", {"x": X, "y": Y, "counts": np.ones((M, 5), dtype=np.uint16), "bandwidth": 1.0}),
    ("split_kth_neighbor", {"x": X, "parts": np.eye(N, 3, dtype=np.uint8), "n_neighbors": np.array([1, 2, 1])}),
    (
        "split_ball_counts",
        {
            "x": X,
            "y": Y,
            "x_sq_radii": np.ones((N, 2)),
            "x_sides": np.ones((N, 2), dtype=np.uint8),
            "y_sides": np.ones((M, 2), dtype=np.uint8),
            "closed": True,
        },
    ),
]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("name", "arguments"), SAMPLES, ids=[name for name, _ in SAMPLES])
def test_results_have_the_declared_dtypes_and_shapes(backend: Any, name: str, arguments: dict[str, Any]) -> None:
    primitive = primitives()[name]
    values = primitive.bind(**arguments)
    for argument in primitive.arguments:  # the sample is one of the declaration
        value = values[argument.name]
        if isinstance(value, np.ndarray):
            assert (value.ndim, argument.is_features or value.dtype == argument.dtype) == (len(argument.lengths), True)
    results = primitive.call(select_host_backend(backend), values)
    for (declared, shape), result in zip(primitive.result_shapes(values), results, strict=True):
        assert (result.dtype, result.shape) == (np.float64 if declared.is_features else declared.dtype, shape)


def test_every_primitive_has_a_sample() -> None:
    assert {name for name, _ in SAMPLES} == set(primitives())


@pytest.mark.parametrize(
    ("backend", "protocol"),
    [
        (ReferenceBackend, HostBackend),
        (CpuBackend, HostBackend),
        (RememberingBackend, HostBackend),
        (CudaBackend, LocalBackend),
        (DeviceKernels, LocalBackend),
        (RingBackend, Backend),
    ],
)
def test_backends_take_the_declared_parameters(backend: type, protocol: type) -> None:
    missing = set()
    for primitive in primitives(protocol).values():
        method = getattr(backend, primitive.name, None)
        if method is None:
            missing.add(primitive.name)
            continue
        taken = list(inspect.signature(method).parameters.values())[1:]
        declared = primitive.signature.parameters.values()
        assert [(one.name, one.kind, one.default) for one in taken] == [
            (one.name, one.kind, one.default) for one in declared
        ]
    # What does not depend on the rows is the same on all ranks: each of them takes the primitive of its own backend.
    assert missing == ({"divergence_bootstrap", "bootstrap_counts"} if backend is RingBackend else set())
