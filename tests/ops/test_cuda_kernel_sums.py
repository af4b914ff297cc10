"""Kernel sums, their bootstrap and soft balls of the CUDA sources, executed on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from egtmetrics.ops import select_backend
from tests._golden import load as load_golden
from tests.ops._points import (
    Array,
    Data,
    all_equal,
    far_clusters,
    far_from_origin,
    huge,
    near_duplicates,
    normal,
    one_outlier,
    tiny,
)
from tests.simt.build import load

REFERENCE = select_backend("reference")
CPU = select_backend("cpu")

# Tiles have 128 rows and 64 columns, eight coordinates at a time.
SHAPES = [(1, 1, 1), (2, 65, 7), (127, 64, 8), (129, 130, 9), (60, 190, 70)]

Density = NDArray[np.float64]


class OnHost:
    """The calls of Backend that TopP&R makes, as the CUDA sources answer them."""

    name = "cuda"

    def __init__(self, *, checked: bool = False, seed: int = 0) -> None:
        self.module = load(checked=checked)
        self.module.simt_seed(seed)

    def kernel_density(self, x: Array, y: Array, *, bandwidth: float) -> Density:
        density = np.full(len(x), -1.0)
        self.module.kernel_density(*self.points(x, y), bandwidth, density.ctypes.data, 0, 0)
        return density

    def kernel_density_band(self, x: Array, draws: NDArray[np.uint16], *, bandwidth: float) -> tuple[Density, Density]:
        density, deviation = np.full(len(x), -1.0), np.full(draws.shape[1], -1.0)
        assert draws.flags.c_contiguous
        assert draws.dtype == np.uint16
        arguments = x.dtype.name, x.ctypes.data, *x.shape, draws.ctypes.data, draws.shape[1], bandwidth
        self.module.kernel_density_band(*arguments, density.ctypes.data, deviation.ctypes.data, 0, 0)
        return density, deviation

    def soft_ball_product(self, x: Array, y: Array, *, radius: float) -> Density:
        product = np.full(len(x), -1.0)
        self.module.soft_ball_product(*self.points(x, y), radius, product.ctypes.data, 0, 0)
        return product

    @staticmethod
    def points(x: Array, y: Array) -> tuple[Any, ...]:
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous
        return x.dtype.name, x.ctypes.data, len(x), y.ctypes.data, len(y), x.shape[1]


def near_clusters(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.normal(size=(n, d)) + 40 * rng.integers(0, 2, size=(n, 1))


def far_outlier(rng: np.random.Generator, n: int, d: int) -> Array:
    x = rng.normal(size=(n, d))
    x[-1] = 1e17
    return x


SPECIAL: list[Data] = [
    far_from_origin,
    near_clusters,
    far_clusters,
    huge,
    tiny,
    all_equal,
    near_duplicates,
    one_outlier,
    far_outlier,
]
CASES: list[tuple[Data, tuple[int, int, int]]] = [(normal, shape) for shape in SHAPES]
CASES += [(data, shape) for data in SPECIAL for shape in ((40, 66, 9), (130, 66, 33))]


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return np.dtype(request.param)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{'x'.join(map(str, case[1]))}")
def pair(request: pytest.FixtureRequest, dtype: Any) -> tuple[Array, Array]:
    data, (n, m, d) = request.param
    rng = np.random.default_rng(n + m + d)
    return data(rng, n, d).astype(dtype), data(rng, m, d).astype(dtype)


def bandwidths(x: Array, y: Array) -> list[float]:
    distances = np.sqrt(REFERENCE.kth_neighbor(x, y, n_neighbors=(len(y) + 1) // 2))
    return [float(np.quantile(distances, q)) * factor for q, factor in ((0.3, 0.7), (1.0, 2.0))]


def draws_of(rng: np.random.Generator, n: int, n_replicates: int) -> NDArray[np.uint16]:
    rows = rng.integers(n, size=(n_replicates, n))
    return np.stack([np.bincount(row, minlength=n) for row in rows], axis=1).astype(np.uint16)


def test_kernel_density(pair: tuple[Array, Array]) -> None:
    x, y = pair
    for h in bandwidths(x, y):
        actual, expected = OnHost().kernel_density(x, y, bandwidth=h), REFERENCE.kernel_density(x, y, bandwidth=h)
        np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=2e-7)


@pytest.mark.parametrize("n_replicates", [1, 70])
def test_kernel_density_band(pair: tuple[Array, Array], n_replicates: int) -> None:
    x, _ = pair
    draws = draws_of(np.random.default_rng(1), len(x), n_replicates)
    h = bandwidths(x, x)[n_replicates % 2]
    density, deviation = OnHost().kernel_density_band(x, draws, bandwidth=h)
    expected, expected_deviation = REFERENCE.kernel_density_band(x, draws, bandwidth=h)
    np.testing.assert_allclose(density, expected, rtol=3e-6, atol=2e-7)
    np.testing.assert_allclose(deviation, expected_deviation, rtol=1e-5, atol=2e-7)
    # The same points through the other entry: the same bits, or a set compared with itself would not score 1.
    np.testing.assert_array_equal(density, OnHost().kernel_density(x, x.copy(), bandwidth=h))


@pytest.mark.parametrize("n_replicates", [63, 64, 65, 130])
def test_any_number_of_replicates(n_replicates: int, dtype: Any) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 3)).astype(dtype)
    draws = draws_of(rng, 200, n_replicates)
    draws[:, -1] = 0
    draws[17, -1] = 65535
    actual = OnHost().kernel_density_band(x, draws, bandwidth=1.5)
    for one, other in zip(actual, REFERENCE.kernel_density_band(x, draws, bandwidth=1.5), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6)
    exact = OnHost().kernel_density_band(x, np.ones((200, n_replicates), dtype=np.uint16), bandwidth=1.5)
    np.testing.assert_array_equal(exact[1], 0.0)


@pytest.mark.parametrize(("n", "m"), [(129, 4300), (1100, 600)])
def test_long_sums_keep_their_digits(n: int, m: int, dtype: Any) -> None:
    """More columns than one float32 sum takes, split over blocks; and a band over as many."""
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(rows, 2)).astype(dtype) for rows in (n, m))
    actual, expected = OnHost().kernel_density(x, y, bandwidth=2.0), REFERENCE.kernel_density(x, y, bandwidth=2.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    if n > m:
        draws = draws_of(rng, n, 5)
        draws[:, 4] = 65535
        density, deviation = OnHost().kernel_density_band(x, draws, bandwidth=2.0)
        reference = REFERENCE.kernel_density_band(x, draws, bandwidth=2.0)
        np.testing.assert_allclose(density, reference[0], rtol=1e-6)
        np.testing.assert_allclose(deviation, reference[1], rtol=2e-6)
        np.testing.assert_array_equal(density, OnHost().kernel_density(x, x, bandwidth=2.0))


def test_blocks_that_take_several_tiles() -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(rows, 2)).astype(np.float32) for rows in (2, 33_000))
    actual, expected = OnHost().kernel_density(x, y, bandwidth=2.0), REFERENCE.kernel_density(x, y, bandwidth=2.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    y += np.float32(30)
    y[::1000] = rng.normal(size=(33, 2))
    actual, expected = OnHost().soft_ball_product(x, y, radius=2.0), REFERENCE.soft_ball_product(x, y, radius=2.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_equal_rows_have_equal_densities_wherever_they_stand(dtype: Any) -> None:
    rng = np.random.default_rng(4)
    rows = rng.integers(40, size=300)
    x, y = rng.normal(size=(40, 6)).astype(dtype), rng.normal(size=(170, 6)).astype(dtype)
    of_each = OnHost().kernel_density(np.ascontiguousarray(x[rows]), y, bandwidth=3.0)
    firsts = np.array([np.flatnonzero(rows == row)[0] for row in rows])
    np.testing.assert_array_equal(of_each, of_each[firsts])
    products = OnHost().soft_ball_product(np.ascontiguousarray(x[rows]), y, radius=3.0)
    np.testing.assert_array_equal(products, products[firsts])


def test_zero_bandwidth_counts_coinciding_points(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(-2, 3, size=(300, 3)).astype(dtype)
    y = np.concatenate([rng.integers(-2, 3, size=(90, 3)), x[:10] + 1e-3]).astype(dtype)
    squares = ((y[:, None].astype(np.float64) - x[None].astype(np.float64)) ** 2).sum(axis=2)
    np.testing.assert_array_equal(OnHost().kernel_density(y, x, bandwidth=0.0), (squares == 0).mean(axis=1))
    np.testing.assert_array_equal(OnHost().soft_ball_product(y, x, radius=0.0), (squares > 0).all(axis=1))
    draws = draws_of(rng, 300, 3)
    density, deviation = OnHost().kernel_density_band(x, draws, bandwidth=0.0)
    expected = REFERENCE.kernel_density_band(x, draws, bandwidth=0.0)
    np.testing.assert_array_equal(density, expected[0])
    np.testing.assert_allclose(deviation, expected[1], rtol=1e-12)


@pytest.mark.parametrize("h", [1e-300, 1e-200, 1e-42, 1e-30, 1e-12, 1e12, 1e30, 1e42, 1e200, math.inf])
def test_extreme_bandwidths(h: float, dtype: Any) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(70, 2)).astype(dtype)
    y = np.concatenate([x[:40], x[:30] * dtype.type(1e-30), x[30:40] + dtype.type(1e-12)]).astype(dtype)
    expected = REFERENCE.kernel_density(x, y, bandwidth=h)
    np.testing.assert_allclose(OnHost().kernel_density(x, y, bandwidth=h), expected, rtol=1e-6)
    for others in (y, y[:1], y[50:51]):
        expected = REFERENCE.soft_ball_product(x, others, radius=h)
        np.testing.assert_allclose(OnHost().soft_ball_product(x, others, radius=h), expected, rtol=1e-5, atol=1e-300)


def test_kernel_is_accurate_up_to_its_edge(dtype: Any) -> None:
    """One column: the kernel itself, around 0 and 1 bandwidths, in the middle of the points and far from it."""
    u = np.concatenate([np.linspace(0, 1.1, 200), 1 + np.linspace(-1e-3, 1e-3, 51)])
    for offset in (0.0, 64.0):
        x = np.stack([offset + u, np.full(len(u), offset)], axis=1).astype(dtype)
        y = np.array([[offset, offset], [-offset, -offset]], dtype=dtype)
        actual, expected = (backend.kernel_density(x, y, bandwidth=1.0) for backend in (OnHost(), REFERENCE))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-7)


def test_soft_ball_product(pair: tuple[Array, Array]) -> None:
    x, y = pair
    radius = float(np.sqrt(np.quantile(REFERENCE.kth_neighbor(x, y, n_neighbors=1), 0.7))) * 1.2 or 1.0
    for factor in (1.0, 2.0):
        actual = OnHost().soft_ball_product(x, y, radius=factor * radius)
        expected = REFERENCE.soft_ball_product(x, y, radius=factor * radius)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-300)


@pytest.mark.parametrize("m", [64, 700])
def test_products_of_many_factors_keep_their_digits(m: int, dtype: Any) -> None:
    """Down to 1e-290, far below what float32 holds; and a point of y leaves exactly 0."""
    rng = np.random.default_rng(7)
    x, y = (rng.normal(size=(rows, 4)).astype(dtype) for rows in (130, m))
    lengths = np.sqrt(REFERENCE.kth_neighbor(x, y, n_neighbors=m)).max()
    for radius in lengths * np.array([0.5, 1.0, 1.3]):
        expected = REFERENCE.soft_ball_product(x, y, radius=radius)
        actual = OnHost().soft_ball_product(x, y, radius=radius)
        np.testing.assert_allclose(actual, expected, rtol=1e-5 if m < 100 else 5e-8 * m, atol=1e-300)
    y[m // 2] = x[99]
    assert OnHost().soft_ball_product(x, y, radius=0.1)[99] == 0.0


def test_agrees_with_the_cpu_backend(dtype: Any) -> None:
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(257, 33)).astype(dtype), rng.normal(size=(321, 33)).astype(dtype)
    for h in (4.0, 7.0, 20.0):
        np.testing.assert_allclose(
            OnHost().kernel_density(x, y, bandwidth=h), CPU.kernel_density(x, y, bandwidth=h), rtol=1e-6, atol=1e-8
        )
        np.testing.assert_allclose(
            OnHost().soft_ball_product(x, y, radius=h), CPU.soft_ball_product(x, y, radius=h), rtol=2e-5, atol=1e-6
        )


@pytest.mark.parametrize("checked", [False, True])
def test_schedule_does_not_matter_and_memory_is_clean(checked: bool, dtype: Any) -> None:
    load(checked=checked)  # from here on it knows the arrays
    rng = np.random.default_rng(9)
    x, y = (far_clusters(rng, rows, 9).astype(dtype) for rows in (131, 200))
    draws = draws_of(rng, 131, 66)

    def results(host: OnHost) -> list[Density]:
        return [
            host.kernel_density(x, y, bandwidth=4.0),
            *host.kernel_density_band(x, draws, bandwidth=4.0),
            host.soft_ball_product(x, y, radius=3.0),
        ]

    first = results(OnHost())
    for seed in (1, 2, 3):
        for one, other in zip(results(OnHost(checked=checked, seed=seed)), first, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("checked", [False, True])
def test_more_neighbours_than_a_list_holds(checked: bool) -> None:
    """A crowd of 130 points, each within the bandwidth of all others, and 200 alone, most in tiles of their own."""
    load(checked=checked)
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(size=(130, 2)), np.full((200, 2), 100.0) * np.arange(1, 201)[:, None]])
    draws = draws_of(rng, len(x), 67)
    for points, bandwidth in ((x, 20.0), (x, 1.0), (x[::-1].copy(), 20.0), (x * 40.0, 1e-3)):
        density, deviation = OnHost(checked=checked).kernel_density_band(points, draws, bandwidth=bandwidth)
        expected = REFERENCE.kernel_density_band(points, draws, bandwidth=bandwidth)
        np.testing.assert_allclose(density, expected[0], rtol=1e-5, atol=2e-7)
        np.testing.assert_allclose(deviation, expected[1], rtol=1e-5, atol=2e-7)


def test_golden_topp_pr_is_reproduced() -> None:
    """Every point that the recorded package kept, and no other: no density strays across its band."""
    golden, host = load_golden("digits"), OnHost()
    recorded, expected = golden.toppr, golden.expected["toppr_seed0"]
    bands, kept, covered = [], [], []
    for own, other, h, rows in (("Xp", "Yp", "h_r", "idx_r"), ("Yp", "Xp", "h_g", "idx_g")):
        points, others = (np.ascontiguousarray(recorded[name]) for name in (own, other))
        draws = np.stack([np.bincount(row, minlength=len(points)) for row in recorded[rows]], axis=1).astype(np.uint16)
        density, deviations = host.kernel_density_band(points, draws, bandwidth=float(recorded[h]))
        bands.append(float(np.quantile(deviations, 0.9)))
        kept.append(density > bands[-1])
        covered.append(host.kernel_density(others, points, bandwidth=float(recorded[h])) > bands[-1])
    assert bands == pytest.approx([expected["c_r_unnorm"], expected["c_g_unnorm"]], rel=1e-6)
    assert [mask.sum() for mask in kept] == [expected["num_real"], expected["num_fake"]]
    assert covered[0][kept[1]].mean() == expected["fidelity"]
    assert covered[1][kept[0]].mean() == expected["diversity"]
