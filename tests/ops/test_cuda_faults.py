"""An error on a device reaches the caller by name, leaves nothing behind, and does not affect later calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.simt.build import load

DEVICE, STREAM = 1, 0xABC0
OTHER_DEVICE = 0
ALWAYS = 1 << 30
MEMORY = 4 << 30

N, M, D, K = 270, 140, 5, 3
_rng = np.random.default_rng(0)
X, Y = _rng.normal(size=(N, D)).astype(np.float32), _rng.normal(size=(M, D))
Y32 = Y.astype(np.float32)
X_SQ_RADII, Y_SQ_RADII = _rng.uniform(0.5, 3.0, size=N), _rng.uniform(0.5, 3.0, size=M)
RESAMPLED = _rng.integers(0, 3, size=(N, 5)).astype(np.uint16)
MATRIX = _rng.normal(size=(2, D))
P_COUNTS, Q_COUNTS = (_rng.integers(1, 9, size=(9, 10)) for _ in range(2))

Results = list[NDArray[Any]]
# (module, device, stream): everything the primitive wrote.
Primitive = Callable[[Any, int, int], Results]


def address(array: NDArray[Any] | None) -> int:
    return 0 if array is None else array.ctypes.data


def sets(x: NDArray[Any], y: NDArray[Any] | None) -> tuple[Any, ...]:
    return x.dtype.name, address(x), len(x), address(y), 0 if y is None else len(y), x.shape[1]


def kth_neighbor(y: NDArray[Any] | None, k: int, sq_range: tuple[float, float] = (-1.0, math.inf)) -> Primitive:
    def call(module: Any, device: int, stream: int) -> Results:
        sq_radii = np.zeros(N)
        module.kth_neighbor(*sets(X, y), k, *sq_range, address(sq_radii), device, stream)
        return [sq_radii]

    return call


def grouped_kth_neighbor(module: Any, device: int, stream: int) -> Results:
    sq_radii = np.zeros(N)
    offsets = [0, 10, 50, N], [0, 20, 40, M]
    module.grouped_kth_neighbor(*sets(X, Y32), *offsets, K, address(sq_radii), device, stream)
    return [sq_radii]


def neighbors(module: Any, device: int, stream: int) -> Results:
    sq_dists, rows = np.zeros((M, K)), np.zeros((M, K), dtype=np.int64)
    module.neighbors(*sets(Y, None), K, address(sq_dists), address(rows), device, stream)
    return [sq_dists, rows]


def ball_counts(y: NDArray[Any] | None) -> Primitive:
    def call(module: Any, device: int, stream: int) -> Results:
        own = [np.zeros(N, dtype=np.int64), np.zeros(N if y is None else M, dtype=np.int64)]
        other = [] if y is None else [np.zeros(M, dtype=np.int64), np.zeros(N, dtype=np.int64)]
        radii = address(X_SQ_RADII), 0 if y is None else address(Y_SQ_RADII)
        others = [0, 0] if y is None else [address(array) for array in other]
        module.ball_counts(*sets(X, y), *radii, True, *map(address, own), *others, device, stream)
        return own + other

    return call


def kernel_density(module: Any, device: int, stream: int) -> Results:
    density = np.zeros(N)
    module.kernel_density(*sets(X, Y32), 2.0, address(density), device, stream)
    return [density]


def kernel_density_band(module: Any, device: int, stream: int) -> Results:
    density, deviation = np.zeros(N), np.zeros(RESAMPLED.shape[1])
    arguments = X.dtype.name, address(X), N, D, address(RESAMPLED), RESAMPLED.shape[1], 2.0
    module.kernel_density_band(*arguments, address(density), address(deviation), device, stream)
    return [density, deviation]


def soft_ball_product(module: Any, device: int, stream: int) -> Results:
    product = np.zeros(N)
    module.soft_ball_product(*sets(X, Y32), 1.0, address(product), device, stream)
    return [product]


def project(module: Any, device: int, stream: int) -> Results:
    out = np.zeros((N, len(MATRIX)))
    module.project(X.dtype.name, address(X), N, D, address(MATRIX), len(MATRIX), address(out), device, stream)
    return [out]


def bootstrap_counts(module: Any, device: int, stream: int) -> Results:
    counts = np.zeros((N, 5), dtype=np.uint16)
    module.bootstrap_counts(N, 5, 7, address(counts), device, stream)
    return [counts]


def divergence_bootstrap(module: Any, device: int, stream: int) -> Results:
    codes, parameters = [0, 4, 9] * 8, [0.0, 0.0, 2.0] * 8
    values, replicates = np.zeros((9, 24)), np.zeros((9, 24, 2))
    module.divergence_bootstrap(
        address(P_COUNTS),
        *P_COUNTS.shape,
        address(Q_COUNTS),
        codes,
        parameters,
        0.5,
        2,
        7,
        address(values),
        address(replicates),
        device,
        stream,
    )
    return [values, replicates]


PRIMITIVES: dict[str, Primitive] = {
    "kth_neighbor": kth_neighbor(None, K),
    "kth_neighbor of others": kth_neighbor(Y32, K),
    "kth_neighbor of many": kth_neighbor(Y32, 100),
    "kth_neighbor in a range": kth_neighbor(Y32, K, (0.5, 2.0)),
    "grouped_kth_neighbor": grouped_kth_neighbor,
    "neighbors": neighbors,
    "ball_counts": ball_counts(Y32),
    "ball_counts within": ball_counts(None),
    "kernel_density": kernel_density,
    "kernel_density_band": kernel_density_band,
    "soft_ball_product": soft_ball_product,
    "project": project,
    "bootstrap_counts": bootstrap_counts,
    "divergence_bootstrap": divergence_bootstrap,
}
# Those that work in smaller chunks where memory is short.
CHUNKED = [name for name in PRIMITIVES if "neighbor" in name or "divergence" in name]
# Those that need no memory besides their results.
WITHOUT_MEMORY = ["project", "bootstrap_counts"]
CALLS = ["malloc", "launch", "memset", "memcpy"]


@pytest.fixture
def module() -> Iterator[Any]:
    module = load()
    module.simt_devices(2)
    yield module
    for call in CALLS:
        module.simt_fail(call, times=0)
    module.simt_devices(1)
    module.simt_memory(MEMORY)


def assert_same(actual: Results, expected: Results) -> None:
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def attempt(module: Any, primitive: Primitive) -> tuple[Results, Exception | None]:
    try:
        return primitive(module, DEVICE, STREAM), None
    except module.DeviceError as error:
        return [], error


@pytest.mark.parametrize("name", PRIMITIVES)
@pytest.mark.parametrize("call", CALLS)
def test_whatever_fails_is_named_and_leaves_nothing_behind(module: Any, name: str, call: str) -> None:
    primitive = PRIMITIVES[name]
    expected = primitive(module, DEVICE, STREAM)
    error = "cudaErrorMemoryAllocation" if call == "malloc" else "cudaErrorLaunchFailure"
    n_calls = 0
    while True:
        module.simt_fail(call, after=n_calls + 1, times=ALWAYS)
        actual, raised = attempt(module, primitive)
        module.simt_fail(call, times=0)
        if raised is None:
            break
        n_calls += 1
        assert str(raised).startswith(error)
        assert isinstance(raised, MemoryError) == (call == "malloc")
        assert isinstance(raised, module.DeviceMemoryError) == (call == "malloc")
        # Nothing is left, and the next call works.
        assert module.simt_allocated() == 0
        assert module.simt_device() == OTHER_DEVICE
        assert_same(primitive(module, DEVICE, STREAM), expected)
        assert module.simt_allocated() == 0
        assert module.simt_device() == OTHER_DEVICE
    assert_same(actual, expected)
    if call == "launch" or (call == "malloc" and name not in WITHOUT_MEMORY):
        assert n_calls > 0


@pytest.mark.parametrize("name", CHUNKED)
def test_less_memory_means_smaller_chunks(module: Any, name: str) -> None:
    primitive = PRIMITIVES[name]
    expected = primitive(module, DEVICE, STREAM)
    # The first allocations are needed in any case, the next one is of a chunk.
    n_fixed = 0
    while True:
        module.simt_fail("malloc", after=n_fixed + 1, times=1)
        actual, raised = attempt(module, primitive)
        module.simt_fail("malloc", times=0)
        assert module.simt_allocated() == 0
        if raised is None:
            break
        n_fixed += 1
    assert_same(actual, expected)
    # There was such a one, and it failed.
    module.simt_fail("malloc", after=n_fixed + 1, times=ALWAYS)
    assert attempt(module, primitive)[1] is not None


def test_divergence_bootstrap_needs_the_counts_of_one_group(module: Any) -> None:
    expected = divergence_bootstrap(module, DEVICE, STREAM)
    least = 2 * (P_COUNTS.shape[1] + 1) * 4
    for size in (2 * least, least):
        module.simt_memory(size)
        assert_same(divergence_bootstrap(module, DEVICE, STREAM), expected)
    module.simt_memory(least - 1)
    with pytest.raises(module.DeviceMemoryError):
        divergence_bootstrap(module, DEVICE, STREAM)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_all_work_goes_to_the_queue_it_is_given(module: Any, name: str) -> None:
    module.simt_queues()
    PRIMITIVES[name](module, DEVICE, STREAM)
    assert module.simt_queues() == {(DEVICE, STREAM)}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_captured_graph_holds_no_copy_from_memory_of_the_call(module: Any, name: str) -> None:
    module.simt_capturing(True)
    try:
        _, raised = attempt(module, PRIMITIVES[name])
    finally:
        module.simt_capturing(False)
    assert (raised is not None) == name.startswith("grouped")
    if raised is not None:
        assert "cannot hold a search within groups; call it outside of the graph" in str(raised)
    assert module.simt_allocated() == 0


def test_more_replicates_than_a_grid_has_blocks_for_are_refused(module: Any) -> None:
    with pytest.raises(ValueError, match=r"more than 4,194,240 replicates; pass them in parts"):
        module.kernel_density_band("float32", address(X), N, D, 1, 64 * 65535 + 1, 2.0, 0, 0, DEVICE, STREAM)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_device_that_is_not_there(module: Any, name: str) -> None:
    with pytest.raises(module.DeviceError, match="cudaErrorInvalidDevice"):
        PRIMITIVES[name](module, 2, STREAM)
    assert module.simt_device() == OTHER_DEVICE
    module.simt_devices(0, 35)
    with pytest.raises(module.DeviceError, match="cudaErrorInsufficientDriver"):
        PRIMITIVES[name](module, 0, STREAM)
    assert module.device_count() == 0
    assert module.device_error().startswith("cudaErrorInsufficientDriver: the driver is made for CUDA 11.8 ")
    module.simt_devices(0, 35, 0)
    assert module.device_error() == "no CUDA driver is installed"
    module.simt_devices(2)
    assert module.device_count() == 2
    assert module.device_error() == ""
