"""The compiled kernels against the float64 reference, and the reference against SciPy.

Sizes straddle the tile edges of every instruction set: panels of 4, 6 and 12 rows by 8, 16 and 32 columns, strips of
256 columns, blocks of 768 rows.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from egtmetrics.ops import Backend, HostBackend, select_host_backend
from tests.ops._points import DATA, Data, integers, normal

REFERENCE = select_host_backend("reference")
CPU = select_host_backend("cpu")

SHAPES = [(1, 1, 1), (2, 3, 1), (13, 29, 2), (50, 70, 65), (255, 257, 33), (1540, 780, 3)]


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=DATA, ids=lambda data: data.__name__)
def data(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def pair(request: pytest.FixtureRequest, data: Data, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    n, m, d = request.param
    if n > 1000 and data not in (normal, integers):
        n, m = 780, 270  # over one edge of every kind, not two
    rng = np.random.default_rng(n + m + d)
    return data(rng, n, d).astype(dtype), data(rng, m, d).astype(dtype)


def assert_same_distances(actual: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    # Both sum d squares in float64, in another order.
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=0)


def test_reference_against_scipy(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    x, y = pair
    distances = cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean")
    k = min(3, len(y))
    np.testing.assert_allclose(
        REFERENCE.kth_neighbor(x, y, n_neighbors=k), np.sort(distances, axis=1)[:, k - 1], rtol=1e-12
    )
    h = float(np.sqrt(np.median(distances))) or 1.0
    kernel = np.where(distances <= h * h, np.cos(np.pi / 2 * np.minimum(np.sqrt(distances) / h, 1)), 0)
    np.testing.assert_allclose(REFERENCE.kernel_density(x, y, bandwidth=h), kernel.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(
        REFERENCE.soft_ball_product(x, y, radius=h), np.minimum(np.sqrt(distances) / h, 1).prod(axis=1), atol=1e-9
    )


@pytest.mark.parametrize("k", [1, 5, 200])
def test_kth_neighbor(pair: tuple[NDArray[Any], NDArray[Any]], k: int) -> None:
    x, y = pair
    if k <= len(y):
        assert_same_distances(CPU.kth_neighbor(x, y, n_neighbors=k), REFERENCE.kth_neighbor(x, y, n_neighbors=k))
    if k <= len(x) - 1:
        assert_same_distances(CPU.kth_neighbor(x, n_neighbors=k), REFERENCE.kth_neighbor(x, n_neighbors=k))


def test_kth_neighbor_in_a_range(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    x, y = pair
    for others in [y, None] if len(x) > 1 else [y]:
        k = min(40, len(x) - 1 if others is None else len(y))
        radii = CPU.kth_neighbor(x, others, n_neighbors=k)
        floor, limit = np.sort(radii)[[len(x) // 4, len(x) // 2]]
        expected = np.where(radii <= floor, 0.0, np.where(radii <= limit, radii, np.inf))
        actual = CPU.kth_neighbor(x, others, n_neighbors=k, sq_range=(floor, limit))
        np.testing.assert_array_equal(actual, expected)
        floor, limit = floor * (1 + 1e-9), limit * (1 + 1e-9)  # off the last bit, in which the backends may differ
        of_reference = REFERENCE.kth_neighbor(x, others, n_neighbors=k, sq_range=(floor, limit))
        np.testing.assert_array_equal(of_reference == 0.0, radii <= floor)
        np.testing.assert_array_equal(np.isinf(of_reference), radii > limit)


def rows_of_all_lengths(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float64]:
    x: NDArray[np.float64] = rng.standard_t(2, size=(n, d)) * 10.0 ** rng.uniform(-25, 15, size=(n, 1))
    x[::7] = 0.0
    x[3::7] *= rng.random(d) < 0.1
    return x


def rows_of_all_types(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float64]:
    x: NDArray[np.float64] = np.concatenate([data(rng, n // len(DATA), d) for data in DATA])
    return rng.permutation(x)


@pytest.mark.parametrize(("n", "d"), [(1600, 24), (900, 50), (300, 131)])
@pytest.mark.parametrize("points", [*DATA, rows_of_all_lengths, rows_of_all_types], ids=lambda points: points.__name__)
def test_tiles_of_bytes_leave_out_no_pair(points: Data, n: int, d: int, dtype: Any) -> None:
    # The largest has several blocks, so that tiles of floats take over and hand back.
    rng = np.random.default_rng(d)
    x, y = points(rng, n, d).astype(dtype), points(rng, 290, d).astype(dtype)
    expected = REFERENCE.kth_neighbor(x, n_neighbors=5)
    assert_same_distances(CPU.kth_neighbor(x, n_neighbors=5), expected)
    assert_same_distances(CPU.kth_neighbor(y, x, n_neighbors=3), REFERENCE.kth_neighbor(y, x, n_neighbors=3))
    # Off the last bit, in which the two may differ.
    radii = {"x_sq_radii": expected * (1 + 1e-9), "y_sq_radii": REFERENCE.kth_neighbor(y, n_neighbors=99) * (1 + 1e-9)}
    of_reference = REFERENCE.ball_counts(x, y, closed=True, **radii)
    for counts, wanted in zip(CPU.ball_counts(x, y, closed=True, **radii), of_reference, strict=True):
        np.testing.assert_array_equal(counts, wanted)


@pytest.mark.parametrize("sizes", [[40, 7, 900, 12], [30] * 25])
def test_grouped_kth_neighbor(sizes: list[int], dtype: Any) -> None:
    rng = np.random.default_rng(8)
    x_offsets = np.concatenate([[0], np.cumsum(sizes)])
    y_offsets = np.concatenate([[0], np.cumsum(sizes[::-1])])
    x, y = (rng.normal(size=(sum(sizes), 5)).astype(dtype) for _ in range(2))
    for others, offsets in ((y, y_offsets), (None, None)):
        radii = CPU.grouped_kth_neighbor(x, others, x_offsets=x_offsets, y_offsets=offsets, n_neighbors=6)
        expected = REFERENCE.grouped_kth_neighbor(x, others, x_offsets=x_offsets, y_offsets=offsets, n_neighbors=6)
        assert_same_distances(radii, expected)


def test_neighbors(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    x, y = pair
    for others in [y, None] if len(x) > 1 else [y]:
        k = min(7, len(y) if others is not None else len(x) - 1)
        distances, rows = CPU.neighbors(x, others, n_neighbors=k)
        expected, expected_rows = REFERENCE.neighbors(x, others, n_neighbors=k)
        assert_same_distances(distances, expected)
        # Rows may differ only where the two backends round a near-tie differently.
        points = (x if others is None else y).astype(np.float64)
        own = ((x[:, None].astype(np.float64) - points[rows]) ** 2).sum(axis=2)
        assert_same_distances(own, distances)
        np.testing.assert_array_equal(distances[:, -1], CPU.kth_neighbor(x, others, n_neighbors=k))
        if np.array_equal(x, np.round(x)):
            np.testing.assert_array_equal(rows, expected_rows)
        if others is None:
            assert not (rows == np.arange(len(x))[:, None]).any()


@pytest.mark.parametrize("closed", [False, True])
def test_ball_counts(pair: tuple[NDArray[Any], NDArray[Any]], closed: bool) -> None:
    x, y = pair
    rng = np.random.default_rng(0)
    # Radii between distances, so that no decision hangs on the last bit; ties are tested on integers below.
    scale = np.median(REFERENCE.kth_neighbor(x, y, n_neighbors=(len(y) + 1) // 2))
    x_radii, y_radii = scale * rng.uniform(0.3, 1.5, len(x)), scale * rng.uniform(0.3, 1.5, len(y))
    for radii in (
        {"x_sq_radii": x_radii, "y_sq_radii": y_radii},
        {"x_sq_radii": x_radii},
        {"y_sq_radii": y_radii},
    ):
        actual = CPU.ball_counts(x, y, closed=closed, **radii)
        for counts, expected in zip(actual, REFERENCE.ball_counts(x, y, closed=closed, **radii), strict=True):
            np.testing.assert_array_equal(counts, expected)
    if len(x) > 1:
        actual = CPU.ball_counts(x, x_sq_radii=x_radii, closed=closed)
        for counts, expected in zip(actual, REFERENCE.ball_counts(x, x_sq_radii=x_radii, closed=closed), strict=True):
            np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("backend", [REFERENCE, CPU], ids=lambda backend: backend.name)
def test_no_point_lies_in_its_own_ball_however_large(backend: Backend, closed: bool) -> None:
    counts = backend.ball_counts(np.arange(3.0)[:, None], x_sq_radii=np.full(3, np.inf), closed=closed)
    assert counts.x_ball_sizes.tolist() == counts.y_in_x_balls.tolist() == [2, 2, 2]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 40),
    m=st.integers(1, 40),
    d=st.integers(1, 5),
    closed=st.booleans(),
    offset=st.sampled_from([0, 1000]),
)
def test_ties_on_integers_are_exact(seed: int, n: int, m: int, d: int, closed: bool, offset: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (offset + rng.integers(0, 3, size=(rows, d)).astype(np.float32) for rows in (n, m))
    x_radii = CPU.kth_neighbor(x, n_neighbors=1)
    y_radii = rng.integers(0, 4 * d + 1, size=m).astype(np.float64)
    distances = cdist(x, y, "sqeuclidean")  # small integers: exact
    inside = np.less_equal if closed else np.less
    counts = CPU.ball_counts(x, y, x_sq_radii=x_radii, y_sq_radii=y_radii, closed=closed)
    in_x, in_y = inside(distances, x_radii[:, None]), inside(distances, y_radii)
    for actual, expected in zip(counts, (in_x.sum(1), in_x.sum(0), in_y.sum(0), in_y.sum(1)), strict=True):
        np.testing.assert_array_equal(actual, expected)


def bandwidths(x: NDArray[Any], y: NDArray[Any]) -> list[float]:
    distances = np.sqrt(REFERENCE.kth_neighbor(x, y, n_neighbors=len(y)))
    return [float(np.quantile(distances, q)) * factor for q, factor in ((0.5, 0.4), (1.0, 2.0))]


def test_kernel_density(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    x, y = pair
    for h in bandwidths(x, y):
        expected = REFERENCE.kernel_density(x, y, bandwidth=h)
        np.testing.assert_allclose(CPU.kernel_density(x, y, bandwidth=h), expected, rtol=3e-6, atol=2e-7)


def test_kernel_density_band(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    x, _ = pair
    rng = np.random.default_rng(1)
    for n_bootstrap in (1, 37):
        draws = rng.integers(len(x), size=(n_bootstrap, len(x)))
        counts = np.stack([np.bincount(row, minlength=len(x)) for row in draws], axis=1).astype(np.uint16)
        for h in bandwidths(x, x):
            density, deviation = CPU.kernel_density_band(x, counts, bandwidth=h)
            expected, expected_deviation = REFERENCE.kernel_density_band(x, counts, bandwidth=h)
            np.testing.assert_allclose(density, expected, rtol=3e-6, atol=2e-7)
            np.testing.assert_allclose(deviation, expected_deviation, rtol=1e-5, atol=2e-7)
            # The same points through the other entry: the same bits, or a set compared with itself would not score 1.
            np.testing.assert_array_equal(density, CPU.kernel_density(x, x, bandwidth=h))


@pytest.mark.parametrize("n_replicates", [1, 37])
def test_resampled_density(pair: tuple[NDArray[Any], NDArray[Any]], n_replicates: int) -> None:
    x, y = pair
    counts = np.random.default_rng(1).integers(0, 4, size=(len(y), n_replicates)).astype(np.uint16)
    for h in bandwidths(x, y):
        density, deviation = CPU.resampled_density(x, y, counts, bandwidth=h)
        expected, expected_deviation = REFERENCE.resampled_density(x, y, counts, bandwidth=h)
        np.testing.assert_allclose(density, expected, rtol=3e-6, atol=2e-7)
        np.testing.assert_allclose(deviation, expected_deviation, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(density, CPU.kernel_density(x, y, bandwidth=h))


def test_the_densities_of_a_resampling_are_those_of_the_band(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 4)).astype(dtype)
    counts = np.ascontiguousarray(rng.multinomial(300, np.full(300, 1 / 300), size=40).T.astype(np.uint16))
    for backend in (CPU, REFERENCE):
        density, largest = backend.kernel_density_band(x, counts, bandwidth=2.0)
        own, deviation = backend.resampled_density(x, x, counts, bandwidth=2.0)
        np.testing.assert_array_equal(own, density)
        np.testing.assert_allclose(np.abs(deviation).max(axis=0), largest, rtol=1e-12)


@pytest.mark.parametrize(("most", "n_replicates"), [(2, 17), (128, 128), (129, 300), (2000, 16)])
def test_bands_of_dense_kernels_and_of_replicates_that_draw_a_row_often(most: int, n_replicates: int) -> None:
    """All 1500 pairs of a row lie in the bandwidth, more than it keeps at a time; counts above 128 fit in no byte."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(1500, 2)).astype(np.float32)
    counts = rng.integers(3, size=(1500, n_replicates)).astype(np.uint16)
    counts[7, n_replicates - 1] = most
    density, deviation = CPU.kernel_density_band(x, counts, bandwidth=20.0)
    expected, expected_deviation = REFERENCE.kernel_density_band(x, counts, bandwidth=20.0)
    np.testing.assert_allclose(density, expected, rtol=3e-6)
    np.testing.assert_allclose(deviation, expected_deviation, rtol=1e-5, atol=2e-7)
    np.testing.assert_array_equal(density, CPU.kernel_density(x, x, bandwidth=20.0))


@pytest.mark.parametrize("n_parts", [1, 4])
def test_split_kth_neighbor(pair: tuple[NDArray[Any], NDArray[Any]], n_parts: int) -> None:
    x, _ = pair
    if len(x) < max(2, n_parts):
        pytest.skip("no row for every part, or no other row")
    rng = np.random.default_rng(7)
    parts = rng.permuted((np.arange(3 * len(x)).reshape(3, -1) % n_parts).astype(np.uint8), axis=1).T.copy()
    fewest = len(x) // n_parts
    n_neighbors = np.array([1, max(1, fewest // 3), fewest])  # the last has no such neighbour, in a smallest part
    radii = CPU.split_kth_neighbor(x, parts, n_neighbors=n_neighbors)
    assert_same_distances(radii, REFERENCE.split_kth_neighbor(x, parts, n_neighbors=n_neighbors))
    for b, k in enumerate(n_neighbors):
        for part in range(n_parts):
            own = x[parts[:, b] == part]
            expected = CPU.kth_neighbor(own, n_neighbors=int(k)) if k < len(own) else np.full(len(own), np.inf)
            np.testing.assert_array_equal(radii[parts[:, b] == part, b], expected)


def test_split_kth_neighbor_looks_farther_where_a_part_is_far_away() -> None:
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 100.0])
    parts = np.repeat(np.array([[0], [1]], dtype=np.uint8), 200, axis=0)
    parts[0], parts[200] = 1, 0  # the neighbours of these two are all in the other part
    n_neighbors = np.array([3])
    radii = CPU.split_kth_neighbor(points, parts, n_neighbors=n_neighbors)
    assert_same_distances(radii, REFERENCE.split_kth_neighbor(points, parts, n_neighbors=n_neighbors))
    assert radii[0] > 1000.0


@pytest.mark.parametrize("closed", [False, True])
def test_split_ball_counts(pair: tuple[NDArray[Any], NDArray[Any]], closed: bool) -> None:
    x, y = pair
    rng = np.random.default_rng(6)
    scale = np.median(REFERENCE.kth_neighbor(x, y, n_neighbors=(len(y) + 1) // 2))
    splits = {
        "x_sq_radii": scale * rng.uniform(-0.3, 1.2, size=(len(x), 5)),
        "x_sides": rng.integers(0, 3, size=(len(x), 5)).astype(np.uint8),
        "y_sides": rng.integers(0, 3, size=(len(y), 5)).astype(np.uint8),
    }
    expected = REFERENCE.split_ball_counts(x, y, **splits, closed=closed)
    for counts, wanted in zip(CPU.split_ball_counts(x, y, **splits, closed=closed), expected, strict=True):
        np.testing.assert_array_equal(counts, wanted)
    one_side = {name: np.zeros_like(splits[name]) for name in ("x_sides", "y_sides")}
    sizes, memberships = REFERENCE.split_ball_counts(x, y, **{**splits, **one_side}, closed=closed)
    for b in range(5):
        whole = REFERENCE.ball_counts(x, y, x_sq_radii=splits["x_sq_radii"][:, b], closed=closed)
        np.testing.assert_array_equal(sizes[:, b], whole.x_ball_sizes)
        np.testing.assert_array_equal(memberships[:, b], whole.y_in_x_balls)


def test_zero_bandwidth_counts_coinciding_points(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    x = integers(rng, 300, 3).astype(dtype)
    y = np.concatenate([integers(rng, 290, 3), x[:10] + 1e-3]).astype(dtype)
    expected = (cdist(y, x) == 0).mean(axis=1)
    np.testing.assert_allclose(CPU.kernel_density(y, x, bandwidth=0.0), expected, rtol=1e-12)
    np.testing.assert_allclose(REFERENCE.kernel_density(y, x, bandwidth=0.0), expected, rtol=1e-12)
    once = np.ones((len(x), 2), dtype=np.uint16)
    for backend in (CPU, REFERENCE):
        density, deviation = backend.resampled_density(y, x, once, bandwidth=0.0)
        np.testing.assert_allclose(density, expected, rtol=1e-12)
        assert not deviation.any()
    product = (cdist(y, x) > 0).all(axis=1).astype(float)
    np.testing.assert_array_equal(CPU.soft_ball_product(y, x, radius=0.0), product)
    np.testing.assert_array_equal(REFERENCE.soft_ball_product(y, x, radius=0.0), product)


def test_soft_ball_product(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    x, y = pair
    radius = float(np.sqrt(np.quantile(REFERENCE.kth_neighbor(x, y, n_neighbors=1), 0.7))) * 1.2 or 1.0
    np.testing.assert_allclose(
        CPU.soft_ball_product(x, y, radius=radius),
        REFERENCE.soft_ball_product(x, y, radius=radius),
        rtol=1e-4,
        atol=1e-6,
    )


def every_primitive(backend: HostBackend, x: NDArray[Any], y: NDArray[Any]) -> list[NDArray[Any] | None]:
    counts = np.ones((len(x), 40), dtype=np.uint16)
    counts[:7, 3:] = 0
    radii = backend.kth_neighbor(x, n_neighbors=3)
    return [
        radii,
        *backend.neighbors(x, y, n_neighbors=5),
        *backend.ball_counts(x, y, x_sq_radii=radii, closed=False),
        backend.kernel_density(x, y, bandwidth=2.0),
        *backend.kernel_density_band(x, counts, bandwidth=2.0),
        *backend.resampled_density(y, x, counts, bandwidth=2.0),
        backend.split_kth_neighbor(x, (np.arange(len(x)) % 2).astype(np.uint8)[:, None], n_neighbors=np.array([3])),
        *backend.split_ball_counts(
            x,
            y,
            x_sq_radii=radii[:, None] * [1.0, 2.0],
            x_sides=(np.arange(2 * len(x)) % 3).astype(np.uint8).reshape(-1, 2),
            y_sides=(np.arange(2 * len(y)) % 2).astype(np.uint8).reshape(-1, 2),
            closed=False,
        ),
        backend.soft_ball_product(x, y, radius=2.0),
    ]


@pytest.mark.parametrize("n_threads", [2, 3, 7])
def test_same_bits_for_any_thread_count(n_threads: int) -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(n, 9)).astype(np.float32) for n in (2000, 1700))
    one = every_primitive(select_host_backend("cpu", n_threads=1), x, y)
    many = every_primitive(select_host_backend("cpu", n_threads=n_threads), x, y)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_inputs_are_not_written(dtype: Any) -> None:
    rng = np.random.default_rng(4)
    x, y = (rng.normal(size=(n, 5)).astype(dtype) for n in (60, 50))
    x.setflags(write=False)
    y.setflags(write=False)
    before = x.copy(), y.copy()
    every_primitive(CPU, x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


Arguments = dict[str, Any]
ROWS, OTHERS, COLUMNS, SPLITS = 60, 50, 3, 4


def sound_arguments() -> dict[str, Arguments]:
    """Arguments of every function of the compiled module that it accepts, in order."""
    x, y = np.ones((ROWS, COLUMNS)), np.ones((OTHERS, COLUMNS))
    radii, other_radii = np.ones(ROWS), np.ones(OTHERS)
    sides, other_sides = (np.ones((n, SPLITS), dtype=np.uint8) for n in (ROWS, OTHERS))
    draws, other_draws = (np.ones((n, SPLITS), dtype=np.uint16) for n in (ROWS, OTHERS))
    histograms = np.ones((2, 5), dtype=np.int64)
    offsets, other_offsets = np.array([0, 20, ROWS]), np.array([0, 20, OTHERS])
    threads = {"n_threads": 1}
    pair = {"x": x, "y": y}
    return {
        "kth_neighbor": {**pair, "n_neighbors": 2, "sq_range[0]": -1.0, "sq_range[1]": 9.0, **threads},
        "grouped_kth_neighbor": {
            **pair,
            "x_offsets": offsets,
            "y_offsets": other_offsets,
            "n_neighbors": 2,
            **threads,
        },
        "neighbors": {**pair, "n_neighbors": 2, **threads},
        "ball_counts": {**pair, "x_sq_radii": radii, "y_sq_radii": other_radii, "closed": False, **threads},
        "split_kth_neighbor": {
            "x": x,
            "parts": sides,
            "n_neighbors": np.full(SPLITS, 2),
            "depth": 5,
            **threads,
        },
        "split_ball_counts": {
            **pair,
            "x_sq_radii": np.ones((ROWS, SPLITS)),
            "x_sides": sides,
            "y_sides": other_sides,
            "closed": False,
            **threads,
        },
        "kernel_density": {**pair, "bandwidth": 1.0, **threads},
        "kernel_density_band": {"x": x, "counts": draws, "bandwidth": 1.0, **threads},
        "resampled_density": {**pair, "counts": other_draws, "bandwidth": 1.0, **threads},
        "soft_ball_product": {**pair, "radius": 1.0, **threads},
        "bootstrap_counts": {"n_rows": 5, "n_replicates": 3, "seed": 7, **threads},
        "divergence_bootstrap": {
            "p_counts": histograms,
            "q_counts": histograms,
            "codes": np.zeros(3, dtype=np.int32),
            "parameters": np.zeros(3),
            "smoothing": 0.5,
            "n_replicates": 2,
            "seed": 7,
            **threads,
        },
    }


ARGUMENTS = [(function, name) for function, arguments in sound_arguments().items() for name in arguments]
MAY_BE_NONE = {"y", "y_offsets", "x_sq_radii", "y_sq_radii"}


def call(function: str, **changed: Any) -> Any:
    module = pytest.importorskip("egtmetrics.ops._cpu")
    return getattr(module, function)(*{**sound_arguments()[function], **changed}.values())


def bad_arrays(array: NDArray[Any]) -> list[Any]:
    """What no argument that takes this array may accept."""
    twice = np.repeat(array, 2, axis=-1)
    unaligned = np.frombuffer(bytearray(array.nbytes + 1), dtype=np.uint8)[1:].view(array.dtype).reshape(array.shape)
    return [
        array.astype(np.complex64),
        array.astype(array.dtype.newbyteorder()) if array.dtype.itemsize > 1 else array.astype(np.int8),
        array.tolist(),
        memoryview(array),
        "text",
        7,
        array[None],
        array.reshape(-1)[0],
        array[:0],
        twice[..., ::2],
        *([unaligned] if array.dtype.itemsize > 1 else []),
    ]


@pytest.mark.parametrize("function", sound_arguments())
def test_binding_accepts_sound_arguments(function: str) -> None:
    call(function)


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_binding_refuses_what_would_read_out_of_bounds_and_names_the_argument(function: str, name: str) -> None:
    value = sound_arguments()[function][name]
    array = isinstance(value, np.ndarray)
    bad = bad_arrays(value) if array else ["text", [], np.ones(2), 1j]
    if name in ("n_neighbors", "depth", "n_threads", "n_rows", "n_replicates", "seed") and not array:
        bad += [-1, 2**40, 2**70, -(2**70), 1.5, float("nan")] if name != "seed" else [-1, 2**64, 1.5]
        bad += [0] if name not in ("n_replicates", "seed") else []
    if isinstance(value, float):
        bad += [float("nan")] + ([-1.0] if "sq_range" not in name else [])
    if name not in MAY_BE_NONE or function in ("kernel_density", "resampled_density", "soft_ball_product"):
        bad.append(None)
    for wrong in bad:
        if name == "codes" and np.size(wrong) == 0:  # no divergences: then "parameters" has too many
            continue
        with pytest.raises((TypeError, ValueError)) as raised:
            call(function, **{name: wrong})
        message = str(raised.value)
        assert re.search(rf"\b{re.escape(name.partition('[')[0])}\b", message), (wrong, message)
        assert "incompatible function arguments" not in message


def changed(array: NDArray[Any], value: Any) -> NDArray[Any]:
    copy = array.copy()
    copy.reshape(-1)[-1] = value
    return copy


SOUND = sound_arguments()
X, Y = SOUND["neighbors"]["x"], SOUND["neighbors"]["y"]


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        *(
            (function, {name: changed(SOUND[function][name], value)}, f"^{name} holds NaN or infinity")
            for function in SOUND
            for name in ("x", "y")
            if name in SOUND[function]
            for value in (np.nan, np.inf, -np.inf)
        ),
        ("neighbors", {"y": None, "n_neighbors": ROWS}, f"^n_neighbors={ROWS}, expected 1 to {ROWS - 1}"),
        ("neighbors", {"n_neighbors": OTHERS + 1}, f"^n_neighbors={OTHERS + 1}, expected 1 to {OTHERS}"),
        ("neighbors", {"y": np.ones((OTHERS, 2))}, r"^y has shape \(50, 2\), expected an array .* \(any, 3\)"),
        ("neighbors", {"y": Y.astype(np.float32)}, "^y has dtype float32, expected an array of float64"),
        ("grouped_kth_neighbor", {"x_offsets": np.array([0, 30, 61])}, "^x_offsets must rise from 0 to 60"),
        ("grouped_kth_neighbor", {"x_offsets": np.array([0, 80, 60])}, "^x_offsets must rise from 0 to 60"),
        ("grouped_kth_neighbor", {"x_offsets": np.array([0, 2**63 - 1, -5, 60])}, "^x_offsets must rise"),
        ("grouped_kth_neighbor", {"x_offsets": np.array([0, 30, 50, 60])}, "^y_offsets has 3 entries, expected 4"),
        ("grouped_kth_neighbor", {"y_offsets": np.array([0, 1, 50])}, "^y_offsets gives a group 1 rows, expected at"),
        ("grouped_kth_neighbor", {"y_offsets": None}, "^y and y_offsets go together"),
        ("grouped_kth_neighbor", {"y": None}, "^y and y_offsets go together"),
        ("ball_counts", {"x_sq_radii": None, "y_sq_radii": None}, "^x_sq_radii and y_sq_radii are None"),
        ("ball_counts", {"y": None, "y_sq_radii": np.ones(ROWS)}, "^y_sq_radii needs y"),
        ("split_kth_neighbor", {"n_neighbors": np.array([1, 1, 1, 0])}, "^n_neighbors holds 0"),
        ("split_kth_neighbor", {"depth": ROWS}, "^depth=60, expected 1 to 59"),
        ("split_kth_neighbor", {"x": np.ones((1, 3)), "parts": np.ones((1, 4), dtype=np.uint8)}, "^depth=5"),
        ("divergence_bootstrap", {"p_counts": np.array([[1] * 5, [0] * 5])}, "^p_counts has a group of 0 counts"),
        ("divergence_bootstrap", {"q_counts": np.array([[1] * 5, [-1] * 5])}, "^q_counts holds the count -1"),
        ("divergence_bootstrap", {"q_counts": np.array([[1] * 5, [2**30] * 5])}, "^q_counts has a group of 5368709120"),
        ("divergence_bootstrap", {"codes": np.array([0, 1, 12], dtype=np.int32)}, "^codes holds 12"),
    ],
)
def test_binding_says_what_does_not_fit(function: str, arguments: Arguments, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(function, **arguments)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("kernel_density_band", {"counts": np.ones((ROWS, 0), dtype=np.uint16)}),
        ("split_kth_neighbor", {"parts": np.ones((ROWS, 0), dtype=np.uint8), "n_neighbors": np.zeros(0, dtype=int)}),
        (
            "split_ball_counts",
            {
                "x_sq_radii": np.ones((ROWS, 0)),
                "x_sides": np.ones((ROWS, 0), dtype=np.uint8),
                "y_sides": np.ones((OTHERS, 0), dtype=np.uint8),
            },
        ),
        ("divergence_bootstrap", {"codes": np.zeros(0, dtype=np.int32), "parameters": np.zeros(0)}),
        ("divergence_bootstrap", {"n_replicates": 0}),
        ("bootstrap_counts", {"n_replicates": 0}),
    ],
)
def test_no_replicates_are_no_error(function: str, arguments: Arguments) -> None:
    results = call(function, **arguments)
    assert any(array.size == 0 for array in (results if isinstance(results, tuple) else [results]))


def test_results_too_large_for_any_memory_are_refused() -> None:
    with pytest.raises((MemoryError, ValueError)):
        call(
            "divergence_bootstrap",
            codes=np.zeros(2**22, dtype=np.int32),
            parameters=np.zeros(2**22),
            n_replicates=2**32 - 1,
        )


@pytest.mark.parametrize("k", [ROWS, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**62])
def test_a_part_never_has_more_neighbours_than_were_searched(k: int) -> None:
    sq_radii = call("split_kth_neighbor", n_neighbors=np.array([k, 2, k, 2]))
    assert np.isinf(sq_radii[:, ::2]).all()
    assert (sq_radii[:, 1::2] == 0.0).all()
    one_split = np.ones((ROWS, 1), dtype=np.uint8)
    assert np.isinf(CPU.split_kth_neighbor(X, one_split, n_neighbors=np.array([k]))).all()
