"""Ball counts of the CUDA sources, executed on the host: every membership, also of points on the sphere."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from egtmetrics.ops import select_backend
from tests.ops._points import Array, Data, all_equal, far_clusters, huge, near_duplicates, normal, one_outlier, tiny
from tests.simt.build import load

REFERENCE = select_backend("reference")
CPU = select_backend("cpu")

# Tiles have 128 rows and 128 columns, eight coordinates at a time.
SHAPES = [(1, 1, 1), (2, 129, 7), (127, 128, 8), (129, 257, 9), (60, 300, 70)]

Radii = NDArray[np.float64] | None


def counts(
    x: Array, y: Array | None, x_radii: Radii, y_radii: Radii, *, closed: bool, checked: bool = False, seed: int = 0
) -> tuple[NDArray[np.int64], ...]:
    """As Backend.ball_counts; results start as -1; those that were not asked for have length 0."""
    module = load(checked=checked)
    module.simt_seed(seed)
    n, m = len(x), len(x if y is None else y)
    sizes = [0 if x_radii is None else n, 0 if x_radii is None else m]
    sizes += [0 if y_radii is None else m, 0 if y_radii is None else n]
    out = [np.full(size, -1, dtype=np.int64) for size in sizes]
    module.ball_counts(
        x.dtype.name,
        x.ctypes.data,
        n,
        0 if y is None else y.ctypes.data,
        0 if y is None else m,
        x.shape[1],
        0 if x_radii is None else x_radii.ctypes.data,
        0 if y_radii is None else y_radii.ctypes.data,
        closed,
        *(array.ctypes.data if array.size else 0 for array in out),
        0,
        0,
    )
    return tuple(out)


def assert_equal(actual: tuple[NDArray[np.int64], ...], expected: tuple[NDArray[np.int64], ...]) -> None:
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


SPECIAL: list[Data] = [far_clusters, huge, tiny, all_equal, near_duplicates, one_outlier]
CASES: list[tuple[Data, tuple[int, int, int]]] = [(normal, shape) for shape in SHAPES]
CASES += [(data, shape) for data in SPECIAL for shape in ((40, 130, 9), (130, 66, 33))]


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return np.dtype(request.param)


@pytest.mark.parametrize(
    ("data", "shape"), CASES, ids=[f"{data.__name__}-{'x'.join(map(str, shape))}" for data, shape in CASES]
)
def test_agrees_with_the_reference(data: Data, shape: tuple[int, int, int], dtype: Any) -> None:
    n, m, d = shape
    rng = np.random.default_rng(n + m + d)
    x, y = data(rng, n, d).astype(dtype), data(rng, m, d).astype(dtype)
    # Between distances, so that no decision hangs on the last bit, in which a sum in another order may differ.
    scale = np.median(REFERENCE.kth_neighbor(x, y, n_neighbors=(m + 1) // 2))
    x_radii, y_radii = scale * rng.uniform(0.3, 1.5, n), scale * rng.uniform(0.3, 1.5, m)
    closed = bool(rng.integers(2))
    for own, other in ((x_radii, y_radii), (x_radii, None), (None, y_radii)):
        expected = REFERENCE.ball_counts(x, y, x_sq_radii=own, y_sq_radii=other, closed=closed)
        assert_equal(counts(x, y, own, other, closed=closed), expected)
    expected = REFERENCE.ball_counts(x, x_sq_radii=x_radii, closed=closed)
    assert_equal(counts(x, None, x_radii, None, closed=closed), expected)
    assert_equal(
        counts(y, None, y_radii, None, closed=closed), REFERENCE.ball_counts(y, x_sq_radii=y_radii, closed=closed)
    )


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("d", [1, 3, 33])
def test_points_on_the_sphere_are_decided_exactly(d: int, offset: int, closed: bool, dtype: Any) -> None:
    """Squared distances of integers are exact in every order of addition, and so are the ties."""
    rng = np.random.default_rng(d)
    x, y = (offset + rng.integers(0, 3, size=(rows, d)).astype(dtype) for rows in (60, 131))
    x_radii = REFERENCE.kth_neighbor(x, n_neighbors=4)
    y_radii = rng.integers(0, 2 * d + 2, size=131).astype(np.float64)
    expected = REFERENCE.ball_counts(x, y, x_sq_radii=x_radii, y_sq_radii=y_radii, closed=closed)
    assert_equal(counts(x, y, x_radii, y_radii, closed=closed), expected)
    within = REFERENCE.ball_counts(x, x_sq_radii=x_radii, closed=closed)
    assert_equal(counts(x, None, x_radii, None, closed=closed), within)


def test_a_hair_decides(dtype: Any) -> None:
    """Radii one step below, at and above a distance, for pairs that float32 products cannot tell apart."""
    rng = np.random.default_rng(5)
    x, y = (1e4 + rng.normal(size=(rows, 4)).astype(dtype) for rows in (40, 50))
    for step in (-math.inf, 0.0, math.inf):
        # The distances as the kernels add them: of four columns, each to a lane of its own.
        squares = (x[:, None].astype(np.float64) - y[None].astype(np.float64)) ** 2
        distances = (squares[..., 0] + squares[..., 2]) + (squares[..., 1] + squares[..., 3])
        column = rng.integers(50, size=40)
        radii = distances[np.arange(40), column]
        if step != 0.0:
            radii = np.nextafter(radii, step)
        for closed in (False, True):
            inside = distances <= radii[:, None] if closed else distances < radii[:, None]
            assert_equal(counts(x, y, radii, None, closed=closed)[:2], (inside.sum(1), inside.sum(0)))


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("radius", [0.0, 5e-324, 1e-40, 1e-30, 1e30, 1e300, math.inf])
def test_extreme_radii(radius: float, closed: bool, dtype: Any) -> None:
    rng = np.random.default_rng(6)
    x, y = (rng.integers(0, 2, size=(rows, 3)).astype(dtype) for rows in (20, 140))
    y[5:] += dtype.type(1e-17) * rng.integers(0, 2, size=(135, 3)).astype(dtype)
    mixed = np.where(rng.integers(0, 2, size=140) == 1, radius, 1.0)
    arguments = {"x_sq_radii": np.full(20, radius), "y_sq_radii": mixed}
    expected = REFERENCE.ball_counts(x, y, closed=closed, **arguments)
    assert_equal(counts(x, y, *arguments.values(), closed=closed), expected)
    within = CPU.ball_counts(y, x_sq_radii=mixed, closed=closed)
    assert_equal(counts(y, None, mixed, None, closed=closed), within)


def test_agrees_with_the_cpu_backend_over_many_tiles(dtype: Any) -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(400, 5)).astype(dtype), rng.normal(size=(1100, 5)).astype(dtype)
    # Off the last bit, in which the backends may differ.
    x_radii, y_radii = (CPU.kth_neighbor(points, n_neighbors=5) * (1 + 1e-9) for points in (x, y))
    expected = CPU.ball_counts(x, y, x_sq_radii=x_radii, y_sq_radii=y_radii, closed=True)
    assert_equal(counts(x, y, x_radii, y_radii, closed=True), expected)
    assert_equal(counts(y, None, y_radii, None, closed=True), CPU.ball_counts(y, x_sq_radii=y_radii, closed=True))


def test_blocks_that_take_several_tiles() -> None:
    m = 132_000
    x, y = np.zeros((3, 1), dtype=np.float32), np.linspace(0, 1, m, dtype=np.float32)[:, None]
    x_sizes, y_in_x, y_sizes, x_in_y = counts(x, y, np.full(3, math.inf), np.full(m, 0.25), closed=False)
    assert (x_sizes == m).all()
    assert (y_in_x == 3).all()
    np.testing.assert_array_equal(y_sizes, 3 * (y[:, 0] < 0.5))
    assert (x_in_y == (y < 0.5).sum()).all()


@pytest.mark.parametrize("data", [normal, far_clusters])
def test_distance_of_a_neighbour_is_its_distance_here(data: Data, dtype: Any) -> None:
    """Otherwise a point would miss or gain the very neighbour that its radius comes from."""
    x = data(np.random.default_rng(9), 200, 45).astype(dtype)
    radii = np.empty(200)
    load().kth_neighbor(dtype.name, x.ctypes.data, 200, 0, 0, 45, 4, -1.0, math.inf, radii.ctypes.data, 0, 0)
    assert (counts(x, None, radii, None, closed=True)[0] == 4).all()
    assert (counts(x, None, radii, None, closed=False)[0] == 3).all()


@pytest.mark.parametrize("checked", [False, True])
def test_schedule_does_not_matter_and_memory_is_clean(checked: bool, dtype: Any) -> None:
    load(checked=checked)  # from here on it knows the arrays
    rng = np.random.default_rng(8)
    x, y = (rng.integers(0, 3, size=(rows, 9)).astype(dtype) for rows in (131, 150))
    x_radii, y_radii = (
        rng.integers(3, 12, size=131).astype(np.float64),
        rng.integers(3, 12, size=150).astype(np.float64),
    )
    for seed, closed in itertools.product((0, 1, 2), (False, True)):
        expected = REFERENCE.ball_counts(x, y, x_sq_radii=x_radii, y_sq_radii=y_radii, closed=closed)
        assert_equal(counts(x, y, x_radii, y_radii, closed=closed, checked=checked, seed=seed), expected)
        within = REFERENCE.ball_counts(x, x_sq_radii=x_radii, closed=closed)
        assert_equal(counts(x, None, x_radii, None, closed=closed, checked=checked, seed=seed), within)
