"""The CUDA projection, run on the host, against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.simt.build import load


def project(x: NDArray[Any], matrix: NDArray[np.float64], module: Any = None) -> NDArray[np.float64]:
    out = np.full((len(x), len(matrix)), math.nan)
    (load() if module is None else module).project(
        x.dtype.name, x.ctypes.data, *x.shape, matrix.ctypes.data, len(matrix), out.ctypes.data, 0, 0
    )
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n", "d", "n_rows"),
    [(1, 1, 1), (2, 7, 3), (63, 15, 31), (64, 16, 32), (65, 17, 33), (129, 33, 1), (3, 100, 70)],
)
def test_equals_numpy(n: int, d: int, n_rows: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)).astype(dtype)
    matrix = rng.normal(size=(n_rows, d))
    # The error of a float64 sum, relative to the sum of the sizes of its terms.
    expected = x.astype(np.longdouble) @ matrix.T.astype(np.longdouble)
    sizes = np.abs(x).astype(np.float64) @ np.abs(matrix).T
    assert (np.abs(project(x, matrix) - expected) <= (d + 1) * 2.0**-52 * sizes).all()


def test_sums_in_the_order_of_the_columns() -> None:
    # In this order 1 is lost to 1e16 every time; in most others it is not.
    x = np.array([[1e16, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1e16] * 5])
    np.testing.assert_array_equal(project(x, np.ones((1, 40))), [[0.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_rows_stay_equal_wherever_they_are(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, 37)).astype(dtype)
    matrix = rng.normal(size=(3, 37))
    rows, directions = rng.integers(0, 5, size=150), rng.integers(0, 3, size=40)
    once = project(x, matrix)
    np.testing.assert_array_equal(project(x[rows], matrix[directions]), once[rows][:, directions])


def test_more_tiles_than_a_grid_has() -> None:
    x = np.random.default_rng(2).normal(size=(64 * ((1 << 12) + 2) + 1, 1)).astype(np.float32)
    np.testing.assert_array_equal(project(x, np.array([[2.0]])), 2.0 * x.astype(np.float64))


@pytest.mark.parametrize(("n", "d", "n_rows"), [(1, 1, 1), (65, 17, 33)])
def test_any_schedule_gives_the_same_and_touches_nothing_else(n: int, d: int, n_rows: int) -> None:
    module = load(checked=True)
    rng = np.random.default_rng(3)
    x, matrix = rng.normal(size=(n, d)), rng.normal(size=(n_rows, d))
    expected = project(x, matrix)
    for schedule in range(3):
        module.simt_seed(schedule)
        np.testing.assert_array_equal(project(x, matrix, module), expected)
