"""Neighbours of the CUDA sources, executed on the host: every distance as in float64, every tie by the lower row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from egtmetrics.ops import select_backend
from tests.ops._points import DATA, Array, Data, all_equal, integers, near_duplicates, normal
from tests.ptx.arithmetic import fma
from tests.simt.build import load

REFERENCE = select_backend("reference")

# Tiles have 128 rows and 128 columns, eight coordinates at a time; within one set its rows are on both sides.
PAIRS = [(1, 1, 1), (3, 129, 7), (129, 127, 8), (127, 257, 9), (20, 128, 33)]
ALONE = [(2, 1), (128, 7), (140, 8)]


class Kernels:
    """The module's functions on NumPy arrays; results start as what no result is."""

    def __init__(self, *, checked: bool = False, seed: int = 0) -> None:
        self.module = load(checked=checked)
        self.module.simt_seed(seed)

    def kth_neighbor(
        self, x: Array, y: Array | None, k: int, floor: float = -1.0, limit: float = math.inf
    ) -> NDArray[np.float64]:
        out = np.full(len(x), -7.0)
        self.module.kth_neighbor(*self._points(x, y), k, floor, limit, out.ctypes.data, 0, 0)
        return out

    def grouped(
        self, x: Array, y: Array | None, x_offsets: list[int], y_offsets: list[int] | None, k: int
    ) -> NDArray[np.float64]:
        out = np.full(len(x), -7.0)
        self.module.grouped_kth_neighbor(*self._points(x, y), x_offsets, y_offsets, k, out.ctypes.data, 0, 0)
        return out

    def neighbors(self, x: Array, y: Array | None, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        distances, rows = np.full((len(x), k), -7.0), np.full((len(x), k), -7, dtype=np.int64)
        self.module.neighbors(*self._points(x, y), k, distances.ctypes.data, rows.ctypes.data, 0, 0)
        return distances, rows

    @staticmethod
    def _points(x: Array, y: Array | None) -> tuple[Any, ...]:
        assert all(points is None or points.flags.c_contiguous for points in (x, y))
        other = (0, 0) if y is None else (y.ctypes.data, len(y))
        return (x.dtype.name, x.ctypes.data, len(x), *other, x.shape[1])


def assert_same(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=0)


def assert_neighbors(actual: tuple[Array, Array], x: Array, y: Array | None) -> None:
    """The nearest in order, by the distances as the kernels round them."""
    distances, rows = actual
    points = x if y is None else y
    k = distances.shape[1]
    assert_same(distances, REFERENCE.neighbors(x, y, n_neighbors=k)[0])
    difference = x[:, None].astype(float) - points[rows].astype(float)
    assert_same(distances, np.einsum("nkd,nkd->nk", difference, difference))
    in_order = (distances[:, 1:] > distances[:, :-1]) | (
        (distances[:, 1:] == distances[:, :-1]) & (rows[:, 1:] > rows[:, :-1])
    )
    assert in_order.all()
    if y is None:
        assert (rows != np.arange(len(x))[:, None]).all()


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=DATA, ids=lambda data: data.__name__)
def data(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("shape", PAIRS, ids=lambda shape: "x".join(map(str, shape)))
def test_pairs(data: Data, dtype: Any, shape: tuple[int, int, int]) -> None:
    n, m, d = shape
    rng = np.random.default_rng(n + m + d)
    x, y = data(rng, n, d).astype(dtype), data(rng, m, d).astype(dtype)
    k = min(5, m)
    assert_same(Kernels(seed=1).kth_neighbor(x, y, k), REFERENCE.kth_neighbor(x, y, n_neighbors=k))
    for seed, few in enumerate({1, k}):
        assert_neighbors(Kernels(seed=seed).neighbors(x, y, few), x, y)


@pytest.mark.parametrize("shape", ALONE, ids=lambda shape: "x".join(map(str, shape)))
def test_alone(data: Data, dtype: Any, shape: tuple[int, int]) -> None:
    n, d = shape
    x = data(np.random.default_rng(n + d), n, d).astype(dtype)
    k = min(7, n - 1)
    assert_same(Kernels(seed=1).kth_neighbor(x, None, k), REFERENCE.kth_neighbor(x, n_neighbors=k))
    assert_neighbors(Kernels(seed=2).neighbors(x, None, k), x, None)


@pytest.mark.parametrize("order", ["as_drawn", "nearest_last"])
def test_rows_are_cut(data: Data, dtype: Any, order: str) -> None:
    """One block sees more references than the buffer of a row holds; where bounds do not separate them, distances do.

    The harness's device runs eight blocks at once, so that 3500 references make eight ranges of three or four tiles.
    """
    rng = np.random.default_rng(1)
    x, y = data(rng, 3, 2).astype(dtype), data(rng, 3500, 2).astype(dtype)
    if order == "nearest_last":
        y = y[np.argsort(REFERENCE.neighbors(x[:1], y, n_neighbors=len(y))[1][0])[::-1]].copy()
    for k in (1, 40):
        kernels = Kernels(seed=k)
        assert_same(kernels.kth_neighbor(x, y, k), REFERENCE.kth_neighbor(x, y, n_neighbors=k))
        assert_neighbors(kernels.neighbors(x, y, k), x, y)


@pytest.mark.parametrize(("m", "k"), [(300, 299), (300, 300), (2600, 2048), (2600, 2600)])
@pytest.mark.parametrize("data", [normal, integers], ids=["normal", "integers"])
def test_many_neighbors(data: Data, m: int, k: int) -> None:
    rng = np.random.default_rng(2)
    x, y = data(rng, 2, 5).astype(np.float32), data(rng, m, 5).astype(np.float32)
    kernels = Kernels()
    assert_same(kernels.kth_neighbor(x, y, k), REFERENCE.kth_neighbor(x, y, n_neighbors=k))
    assert_neighbors(kernels.neighbors(x, y, k), x, y)
    if m == k:
        alone = kernels.neighbors(y[:200], None, 199)
        assert_neighbors(alone, y[:200], None)


def test_ties_go_to_the_lower_row(dtype: Any) -> None:
    """Distances of small integers are exact, so that the rows must be those of the reference."""
    rng = np.random.default_rng(3)
    x, y = integers(rng, 5, 3).astype(dtype), integers(rng, 3500, 3).astype(dtype)
    alone = integers(rng, 300, 3).astype(dtype)
    for k in (1, 33, 260):
        for actual, expected in (
            (Kernels().neighbors(x, y, k), REFERENCE.neighbors(x, y, n_neighbors=k)),
            (Kernels().neighbors(alone, None, k), REFERENCE.neighbors(alone, n_neighbors=k)),
        ):
            np.testing.assert_array_equal(actual[0], expected[0])
            np.testing.assert_array_equal(actual[1], expected[1])


def test_distances_are_sums_of_fused_products(dtype: Any) -> None:
    """To the last bit: a compiler that fused in one kernel and not in another would make and break ties."""
    rng = np.random.default_rng(5)
    x, y = (rng.normal(size=(rows, 70)).astype(dtype) for rows in (20, 30))
    difference = np.zeros((len(x), len(y), 96))
    difference[:, :, :70] = x[:, None].astype(float) - y.astype(float)
    lanes = np.zeros(20 * 30 * 32)
    for first in (0, 32, 64):
        own = difference[:, :, first : first + 32].ravel()
        lanes = fma(own, own, lanes)
    lanes = lanes.reshape(20, 30, 32)
    for half in (16, 8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    squares = lanes[..., 0]
    distances, rows = Kernels().neighbors(x, y, len(y))
    np.testing.assert_array_equal(rows, np.argsort(squares, axis=1, kind="stable"))
    np.testing.assert_array_equal(distances, np.sort(squares, axis=1))


@pytest.mark.parametrize("unit", [1e-170, 1e-160, 1e155, 1e200])
def test_squares_out_of_range(unit: float) -> None:
    """Squares that are 0, have lost digits or are infinite in float64 tie or err there as in the reference."""
    rng = np.random.default_rng(4)
    x, y = unit * rng.normal(size=(150, 3)), unit * rng.normal(size=(300, 3))
    actual = Kernels().neighbors(x, y, 9)
    expected = REFERENCE.neighbors(x, y, n_neighbors=9)
    np.testing.assert_array_equal(actual[1], expected[1])
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-12, atol=1e-323)


def test_largest_float32() -> None:
    """Differences from the centre, the mean of y, overflow in float32; distances do not in float64."""
    x = np.array([[-1.21e38, 0, 0], [3e38, 0, 1e38]], dtype=np.float32)
    y = np.array([[-3.3e38, -3.3e38, -3.3e38], [-3.3e38, 3.3e38, 3.3e38], [3e38, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(Kernels().neighbors(x, y, 1)[1], [[2], [2]])
    for k in (1, 2, 3):
        assert_neighbors(Kernels().neighbors(x, y, k), x, y)


@pytest.mark.parametrize("k", [1, 20])
def test_range(data: Data, dtype: Any, k: int) -> None:
    rng = np.random.default_rng(6)
    x, y = data(rng, 40, 4).astype(dtype), data(rng, 600, 4).astype(dtype)
    for other in (y, None):
        radii = Kernels().kth_neighbor(x, other, k)
        floor, limit = np.quantile(radii, [0.3, 0.6], method="lower")
        expected = np.where(radii <= floor, 0.0, np.where(radii > limit, np.inf, radii))
        np.testing.assert_array_equal(Kernels().kth_neighbor(x, other, k, floor, limit), expected)
        below = np.nextafter(radii.min(), -1.0)
        assert np.isinf(Kernels().kth_neighbor(x, other, k, -1.0, below)).all()
        assert (Kernels().kth_neighbor(x, other, k, radii.max()) == 0.0).all()


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "pairs"])
def test_groups(data: Data, dtype: Any, alone: bool) -> None:
    rng = np.random.default_rng(7)
    sizes = [4, 130, 5, 40, 9] if alone else [0, 130, 1, 0, 40]
    others = [3, 20, 150, 4, 600]
    x_offsets, y_offsets = (np.concatenate([[0], np.cumsum(each)]) for each in (sizes, others))
    x, y = data(rng, x_offsets[-1], 3).astype(dtype), data(rng, y_offsets[-1], 3).astype(dtype)
    for k in (1, 3):
        if alone:
            actual = Kernels(seed=k).grouped(x, None, x_offsets.tolist(), None, k)
            expected = REFERENCE.grouped_kth_neighbor(x, x_offsets=x_offsets, n_neighbors=k)
        else:
            actual = Kernels(seed=k).grouped(x, y, x_offsets.tolist(), y_offsets.tolist(), k)
            expected = REFERENCE.grouped_kth_neighbor(x, y, x_offsets=x_offsets, y_offsets=y_offsets, n_neighbors=k)
        assert_same(actual, expected)


@pytest.mark.parametrize("data", [normal, near_duplicates], ids=["normal", "near_duplicates"])
def test_schedule_does_not_show(data: Data) -> None:
    rng = np.random.default_rng(8)
    x, y = data(rng, 3, 3).astype(np.float32), data(rng, 3300, 3).astype(np.float32)
    first = Kernels().neighbors(x, y, 6)
    for seed in (1, 2, 3):
        again = Kernels(seed=seed).neighbors(x, y, 6)
        np.testing.assert_array_equal(again[0], first[0])
        np.testing.assert_array_equal(again[1], first[1])


@pytest.fixture
def memory() -> Any:
    module = load()
    yield module.simt_memory
    module.simt_memory(1 << 32)


def test_less_memory(memory: Any) -> None:
    """Rows are processed in chunks that fit into memory; where not even one tile fits, the error says so."""
    x = normal(np.random.default_rng(9), 700, 3).astype(np.float32)
    kernels = Kernels()
    expected = kernels.kth_neighbor(x, None, 3)
    tile = 136 * 8 * 259  # less than the bytes that one tile of rows needs
    for tiles in (4, 2):
        memory(tiles * tile + 30_000)
        np.testing.assert_array_equal(kernels.kth_neighbor(x, None, 3), expected)
        assert kernels.module.simt_allocated() == 0
    memory(tile // 2)
    with pytest.raises(MemoryError, match="cudaErrorMemoryAllocation"):
        kernels.kth_neighbor(x, None, 3)
    assert kernels.module.simt_allocated() == 0


@pytest.mark.parametrize("call", ["malloc", "launch", "memset", "memcpy"])
def test_failures_leave_nothing(call: str) -> None:
    x = normal(np.random.default_rng(10), 20, 3)
    kernels = Kernels()
    module = kernels.module
    for after in range(1, 10):
        module.simt_fail(call, after, 0, 1000)
        try:
            kernels.grouped(x, None, [0, 20], None, 3)
        except module.DeviceError:
            assert module.simt_allocated() == 0
        else:
            break
        finally:
            module.simt_fail(call, 1, 0, 0)
    assert 1 < after < 10  # some call failed, and there are not more than these
    assert_same(kernels.kth_neighbor(x, None, 3), REFERENCE.kth_neighbor(x, n_neighbors=3))


@pytest.mark.parametrize("shape", [(3, 3500, 2, 6), (129, 129, 9, 3)], ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("data", [normal, all_equal], ids=["normal", "all_equal"])
def test_checked(data: Data, dtype: Any, shape: tuple[int, int, int, int]) -> None:
    """No access out of bounds, no race, no read of what was not written."""
    kernels = Kernels(checked=True, seed=1)
    n, m, d, k = shape
    rng = np.random.default_rng(11)
    x, y = data(rng, n, d).astype(dtype), data(rng, m, d).astype(dtype)
    assert_neighbors(kernels.neighbors(x, y, k), x, y)
    assert_same(kernels.kth_neighbor(x, y, k), REFERENCE.kth_neighbor(x, y, n_neighbors=k))
    if n == m:
        half = [0, n // 2, n]
        assert_same(
            kernels.grouped(x, None, half, None, k),
            REFERENCE.grouped_kth_neighbor(x, x_offsets=np.array(half), n_neighbors=k),
        )
