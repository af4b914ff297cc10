"""The torch operators: registration, shapes of results before they run, compilation, equality with the backends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from egtmetrics.ops import ANY_RADIUS, Divergences, select_backend
from egtmetrics.ops._backend import Backend
from egtmetrics.ops._primitives import primitives

torch = pytest.importorskip("torch")

from egtmetrics.ops import torch_ops  # noqa: E402

generator = torch.Generator().manual_seed(5)
X, Y = (torch.randn(n, 5, generator=generator) for n in (40, 31))
RADII = torch.rand(40, generator=generator, dtype=torch.float64) * 10
OTHER_RADII = torch.rand(31, generator=generator, dtype=torch.float64) * 10
DRAWS = torch.randint(0, 3, (40, 7), generator=generator, dtype=torch.int16)
MATRIX = torch.randn(2, 5, generator=generator, dtype=torch.float64)
P, Q = (torch.randint(1, 30, (3, 6), generator=generator) for _ in range(2))
CODES, PARAMETERS = [0, 2, 9], [0.0, 0.0, 0.5]

Arguments = tuple[Any, ...]
SAMPLES: dict[str, tuple[str, Arguments]] = {
    "kth_neighbor": ("kth_neighbor", (X, Y, 3, *ANY_RADIUS)),
    "kth_neighbor, one set, float64": ("kth_neighbor", (X.double(), None, 3, *ANY_RADIUS)),
    "kth_neighbor, in a range": ("kth_neighbor", (X, Y, 3, 2.0, 5.0)),
    "grouped_kth_neighbor": ("grouped_kth_neighbor", (X, Y, [0, 15, 40], [0, 20, 31], 3)),
    "grouped_kth_neighbor, one set": ("grouped_kth_neighbor", (X, None, [0, 15, 40], None, 3)),
    "ball_counts": ("ball_counts", (X, Y, RADII, OTHER_RADII, True)),
    "ball_counts, one set": ("ball_counts", (X, None, RADII, None, False)),
    "kernel_density": ("kernel_density", (X, Y, 3.0)),
    "kernel_density_band": ("kernel_density_band", (X, DRAWS, 3.0)),
    "soft_ball_product": ("soft_ball_product", (X, Y, 4.0)),
    "project": ("project", (X, MATRIX)),
    "divergence_bootstrap": ("divergence_bootstrap", (P, Q, CODES, PARAMETERS, 0.5, 4, 3)),
}


def listed(results: Any) -> list[Any]:
    return [results] if isinstance(results, torch.Tensor) else [*results]


@pytest.mark.parametrize("sample", SAMPLES)
def test_torch_finds_the_operator_sound(sample: str) -> None:
    name, arguments = SAMPLES[sample]
    report = torch.library.opcheck(getattr(torch.ops.egtmetrics, name).default, arguments)
    assert set(report.values()) == {"SUCCESS"}


@pytest.mark.skipif(not hasattr(torch.Tag, "cudagraph_unsafe"), reason="this torch has no such tag")
@pytest.mark.parametrize("name", [name for name, one in primitives(Backend).items() if one.takes_arrays])
def test_torch_does_not_capture_the_operators_in_a_graph(name: str) -> None:
    assert torch.Tag.cudagraph_unsafe in getattr(torch.ops.egtmetrics, name).default.tags


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_shapes_are_known_before_it_runs(sample: str, device: str) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    name, arguments = SAMPLES[sample]
    operator = getattr(torch.ops.egtmetrics, name)
    with FakeTensorMode():
        fake = [
            torch.empty(a.shape, dtype=a.dtype, device=device) if isinstance(a, torch.Tensor) else a for a in arguments
        ]
        promised = listed(operator(*fake))
    for found, result in zip(promised, listed(operator(*arguments)), strict=True):
        assert (found.shape, found.dtype) == (result.shape, result.dtype)
        assert found.device.type == device


def on_numpy(name: str, arguments: Arguments) -> Any:
    """The same from the CPU backend."""
    backend = select_backend("cpu")
    if name == "grouped_kth_neighbor":
        x, y, x_offsets, y_offsets, n_neighbors = arguments
        return backend.grouped_kth_neighbor(
            x.numpy(),
            None if y is None else y.numpy(),
            x_offsets=np.array(x_offsets),
            y_offsets=None if y_offsets is None else np.array(y_offsets),
            n_neighbors=n_neighbors,
        )
    x, y, *rest = (a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments)
    if name == "kth_neighbor":
        return backend.kth_neighbor(x, y, n_neighbors=rest[0], sq_range=(rest[1], rest[2]))
    if name == "ball_counts":
        return backend.ball_counts(x, y, x_sq_radii=rest[0], y_sq_radii=rest[1], closed=rest[2])
    if name == "kernel_density":
        return backend.kernel_density(x, y, bandwidth=rest[0])
    if name == "kernel_density_band":
        return backend.kernel_density_band(x, y.view(np.uint16), bandwidth=rest[0])
    if name == "soft_ball_product":
        return backend.soft_ball_product(x, y, radius=rest[0])
    if name == "project":
        return backend.project(x, y)
    codes, parameters, smoothing, n_replicates, seed = rest
    family = Divergences(np.array(codes, dtype=np.int32), np.array(parameters))
    return backend.divergence_bootstrap(x, y, family, smoothing=smoothing, n_replicates=n_replicates, seed=seed)


def assert_equal(results: Any, expected: Any, *, rel: float = 0.0) -> None:
    expected = [expected] if isinstance(expected, np.ndarray) else [*expected]
    for result, array in zip(listed(results), expected, strict=True):
        assert result.numpy().dtype == array.dtype
        np.testing.assert_allclose(result.numpy(), array, rtol=rel, atol=0.1 * rel)


@pytest.mark.parametrize("sample", SAMPLES)
def test_results_are_those_of_the_cpu_backend(sample: str) -> None:
    name, arguments = SAMPLES[sample]
    assert_equal(getattr(torch.ops.egtmetrics, name)(*arguments), on_numpy(name, arguments))


@pytest.mark.usefixtures("cuda_on_host")
@pytest.mark.parametrize("sample", SAMPLES)
def test_on_a_device_results_are_those_of_the_cpu_backend(sample: str) -> None:
    name, arguments = SAMPLES[sample]
    results = torch_ops.on_device(primitives()[name], *arguments)
    assert_equal(results, on_numpy(name, arguments), rel=2e-5)


def test_functions_are_the_operators() -> None:
    calls: list[tuple[Any, str]] = [
        (torch_ops.kth_neighbor(X, Y, n_neighbors=3), "kth_neighbor"),
        (torch_ops.ball_counts(X, Y, x_sq_radii=RADII, y_sq_radii=OTHER_RADII, closed=True), "ball_counts"),
        (torch_ops.ball_counts(X, x_sq_radii=RADII, closed=False), "ball_counts, one set"),
        (torch_ops.kernel_density(X, Y, bandwidth=3.0), "kernel_density"),
        (torch_ops.kernel_density_band(X, DRAWS, bandwidth=3.0), "kernel_density_band"),
        (torch_ops.kernel_density_band(X, DRAWS.view(torch.uint16), bandwidth=3.0), "kernel_density_band"),
        (torch_ops.soft_ball_product(X, Y, radius=4.0), "soft_ball_product"),
        (torch_ops.project(X, MATRIX), "project"),
        (
            torch_ops.divergence_bootstrap(
                P, Q, codes=CODES, parameters=PARAMETERS, smoothing=0.5, n_replicates=4, seed=3
            ),
            "divergence_bootstrap",
        ),
    ]
    for results, sample in calls:
        assert_equal(results, on_numpy(*SAMPLES[sample]))


def density_and_coverage(x: Any, y: Any) -> Any:
    """A metric written in torch, with operators of torch before, between and behind."""
    sq_radii = torch_ops.kth_neighbor(x * 2.0, n_neighbors=3)
    sizes, memberships, _, _ = torch_ops.ball_counts(x * 2.0, y * 2.0, x_sq_radii=sq_radii, closed=True)
    soft = torch_ops.soft_ball_product(y, x, radius=2.0)
    return torch.stack([memberships.double().mean() / 3, (sizes > 0).double().mean(), 1.0 - soft.mean()])


def compiled(backend: str, **options: Any) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(density_and_coverage, fullgraph=True, backend=backend, **options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_graph_holds_the_operators_and_gives_the_same(backend: str, dynamic: bool) -> None:
    function = compiled(backend, dynamic=dynamic)
    for n in (31, 17):
        torch.testing.assert_close(function(X, Y[:n]), density_and_coverage(X, Y[:n]), rtol=0.0, atol=1e-12)


def test_strided_points_are_copied() -> None:
    wide = torch.randn(40, 10, generator=torch.Generator().manual_seed(6))
    assert_equal(
        torch_ops.kth_neighbor(wide[:, ::2], n_neighbors=3),
        on_numpy("kth_neighbor", (wide[:, ::2].contiguous(), None, 3, *ANY_RADIUS)),
    )


def test_faults_are_named() -> None:
    with pytest.raises(TypeError, match=r"x has dtype torch\.float16"):
        torch_ops.kth_neighbor(X.half(), n_neighbors=3)
    with pytest.raises(ValueError, match="n_neighbors=40, expected 1 to 39"):
        torch_ops.kth_neighbor(X, n_neighbors=40)
    with pytest.raises(ValueError, match=r"x_sq_radii has shape \(31,\), expected \(40\)"):
        torch_ops.ball_counts(X, x_sq_radii=OTHER_RADII, closed=True)
    with pytest.raises(ValueError, match="x has 5 columns and y has 4"):
        torch_ops.kernel_density(X, Y[:, :4], bandwidth=1.0)


def test_importing_the_package_does_not_register_the_operators() -> None:
    code = "import sys, egtmetrics.ops, egtmetrics.metrics, egtmetrics.groups; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
