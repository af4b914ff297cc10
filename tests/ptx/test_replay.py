"""Every kernel of csrc/cuda as nvcc compiled it, with the launches that its host code makes, against the reference.

Each launch must leave the same bytes as in the SIMT harness, where g++ compiled it, but for the kernels in ROUNDED. On
a lattice that is its own mirror image all arithmetic of distances is exact. At random points the sums that decide are
the same, since the source says where they are fused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.cuda_static import find_nvcc
from egtmetrics.ops._backend import Divergences
from egtmetrics.ops.reference import ReferenceBackend
from tests.ptx.interpreter import StuckError
from tests.ptx.launch import Array
from tests.ptx.memory import MemoryAccessError
from tests.ptx.replay import Replay, kernels, readable, replayed
from tests.simt.build import load

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="nvcc was not found")

CENTRING = ["find_centre<T>", "find_largest<T>", "choose_scale<T>", "find_norms<T>"]
# What each primitive must have launched; together they are all kernels there are.
LAUNCHED = {
    "project": ["project_tiles<T>"],
    "kth_neighbor": [*CENTRING, "find_candidates<T>", "finish<T>"],
    "ball_counts": [*CENTRING, "find_terms<T>", "count_members<T>"],
    "kernel_density": [*CENTRING, "find_nearness", "add_kernels<T>", "divide"],
    "kernel_density_band": [*CENTRING, "find_nearness", "list_kernels<T>", "sum_lists", "multiply_counts<T>", "divide"],
    "soft_ball_product": [*CENTRING, "multiply_distances<T>", "combine_products"],
    "bootstrap_counts": ["count_draws"],
    "divergence_bootstrap": ["accumulate", "evaluate_counts", "redraw"],
}
# Kernels whose results are rounded in another way by nvcc than by g++, and how far off they may be.
ROUNDED = {
    "add_kernels": 1e-5,
    "list_kernels": 1e-5,
    "sum_lists": 1e-5,
    "multiply_counts": 1e-5,
    "multiply_distances": 1e-5,
    "evaluate_counts": 1e-12,
    "redraw": 1e-12,
}
LIST = np.dtype([("column", np.int32), ("kernel", np.float32)])

TYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
KINDS = pytest.mark.parametrize("kind", ["lattice", "random"])
reference = ReferenceBackend()


def points(n: int, d: int, dtype: str, kind: str, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.normal(size=(n, d)).astype(dtype)
    half = rng.integers(-3, 4, (n // 2, d))
    return np.concatenate([half, -half]).astype(dtype)


def address(array: Array | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


def run(name: str, *arguments: Any, dtype: str | None = None, change: Callable[[str], str] | None = None) -> Replay:
    """Calls a primitive; arrays are passed by address."""
    module = load()
    arrays = [one for one in arguments if isinstance(one, np.ndarray)]
    passed = [address(one) if one is None or isinstance(one, np.ndarray) else one for one in arguments]
    with replayed(module, *arrays, change=change) as replay:
        getattr(module, name)(*([] if dtype is None else [dtype]), *passed, 0, 0)
    return replay


def check(replay: Replay, primitive: str, dtype: str) -> None:
    short = {"float32": "float", "float64": "double"}[dtype]
    assert set(replay.launched) == {name.replace("<T>", f"<{short}>") for name in LAUNCHED[primitive]}
    for difference in replay.differences:
        kernel = difference.kernel.split("<")[0]
        if kernel == "find_candidates":
            # Which candidates are kept, and where, is up to the order of the threads; what is made of them is not.
            continue
        assert kernel in ROUNDED, f"{kernel} left other bytes than in the harness"
        both = [np.frombuffer(one, np.float64) for one in (difference.ptx, difference.harness)]
        if kernel == "list_kernels" and len(both[0]) > 10_000:  # the lists, not the density
            lists = [one.view(LIST) for one in both]
            np.testing.assert_array_equal(lists[0]["column"], lists[1]["column"])
            # Their error is absolute: near the bandwidth, that of a difference from 1.
            np.testing.assert_allclose(lists[0]["kernel"], lists[1]["kernel"], rtol=0, atol=1e-6)
            continue
        np.testing.assert_allclose(*both, rtol=ROUNDED[kernel], atol=0)


@TYPES
@KINDS
def test_project(dtype: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    for n, d, n_rows in ((1, 1, 1), (70, 33, 5), (6, 70, 131)):
        x = points(n + n % 2, d, dtype, kind, 1)
        matrix = (
            rng.normal(size=(n_rows, d)) if kind == "random" else rng.integers(-3, 4, (n_rows, d)).astype(np.float64)
        )
        out = np.full((len(x), n_rows), np.nan)
        check(run("project", x, *x.shape, matrix, n_rows, out, dtype=dtype), "project", dtype)
        np.testing.assert_allclose(
            out, reference.project(x, matrix), rtol=0 if kind == "lattice" else 1e-13, atol=1e-13
        )


@TYPES
@KINDS
@pytest.mark.parametrize("within", [False, True], ids=["two sets", "one set"])
def test_neighbors(dtype: str, kind: str, within: bool) -> None:
    rtol = 0 if kind == "lattice" else 1e-13
    d = 9 if kind == "lattice" else 41  # more than lanes, so that some add several squares
    x = points(76, d, dtype, kind, 2)
    y = None if within else points(140, d, dtype, kind, 3)
    sets = (x, len(x), y, 0 if y is None else len(y), x.shape[1])
    radii = np.full(len(x), np.nan)
    check(run("kth_neighbor", *sets, 4, -1.0, np.inf, radii, dtype=dtype), "kth_neighbor", dtype)
    np.testing.assert_allclose(radii, reference.kth_neighbor(x, y, n_neighbors=4), rtol=rtol)

    distances, rows = np.full((len(x), 7), np.nan), np.full((len(x), 7), -1)
    check(run("neighbors", *sets, 7, distances, rows, dtype=dtype), "kth_neighbor", dtype)
    wanted_distances, wanted_rows = reference.neighbors(x, y, n_neighbors=7)
    np.testing.assert_allclose(distances, wanted_distances, rtol=rtol)
    assert np.array_equal(rows, wanted_rows)


@TYPES
@pytest.mark.parametrize(("n", "m", "d", "k"), [(14, 26, 131, 3), (6, 900, 2, 60), (10, 1000, 1, 1)])
def test_neighbors_in_other_shapes(dtype: str, n: int, m: int, d: int, k: int) -> None:
    """Long rows; many neighbours, most of them tied; more columns than one block takes."""
    x, y = points(n, d, dtype, "lattice", 11), points(m, d, dtype, "lattice", 12)
    distances, rows = np.full((n, k), np.nan), np.full((n, k), -1)
    check(run("neighbors", x, n, y, m, d, k, distances, rows, dtype=dtype), "kth_neighbor", dtype)
    wanted = reference.neighbors(x, y, n_neighbors=k)
    assert np.array_equal(distances, wanted[0])
    assert np.array_equal(rows, wanted[1])


@TYPES
def test_neighbors_in_a_range_of_radii_and_of_groups(dtype: str) -> None:
    x, y = points(40, 3, dtype, "lattice", 2), points(130, 3, dtype, "lattice", 3)
    radii = np.full(len(x), np.nan)
    arguments = (x, len(x), y, len(y), 3)
    # The range decides what is looked for, so the kernels that centre and scale may be left out.
    replay = run("kth_neighbor", *arguments, 5, 2.0, 5.0, radii, dtype=dtype)
    assert replay.launched
    assert np.array_equal(radii, reference.kth_neighbor(x, y, n_neighbors=5, sq_range=(2.0, 5.0)))
    x_offsets, y_offsets = np.array([0, 10, 10, 40]), np.array([0, 33, 40, 130])
    run("grouped_kth_neighbor", *arguments, x_offsets.tolist(), y_offsets.tolist(), 3, radii, dtype=dtype)
    wanted = reference.grouped_kth_neighbor(x, y, x_offsets=x_offsets, y_offsets=y_offsets, n_neighbors=3)
    assert np.array_equal(radii, wanted)


@TYPES
def test_neighbors_among_more_candidates_than_there_is_room_for(dtype: str) -> None:
    """So many groups that a block sees all columns of its own; in the first of them all points are the same."""
    x, y = points(18, 2, dtype, "lattice", 13), points(3600, 2, dtype, "lattice", 14)
    y[:400] = 1
    x_offsets, y_offsets = np.arange(0, 19, 2), np.arange(0, 3601, 400)
    radii = np.full(len(x), np.nan)
    arguments = (x, len(x), y, len(y), 2, x_offsets.tolist(), y_offsets.tolist(), 30, radii)
    check(run("grouped_kth_neighbor", *arguments, dtype=dtype), "kth_neighbor", dtype)
    wanted = reference.grouped_kth_neighbor(x, y, x_offsets=x_offsets, y_offsets=y_offsets, n_neighbors=30)
    assert np.array_equal(radii, wanted)


@TYPES
@KINDS
@pytest.mark.parametrize("within", [False, True], ids=["two sets", "one set"])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_ball_counts(dtype: str, kind: str, within: bool, closed: bool) -> None:
    rng = np.random.default_rng(4)
    x = points(130, 9, dtype, kind, 5)
    y = None if within else points(134, 9, dtype, kind, 6)
    m = len(x) if y is None else len(y)
    # Whole numbers, so that points of the lattice lie on the spheres.
    x_radii = rng.integers(5, 80, len(x)).astype(np.float64)
    y_radii = None if within else rng.integers(5, 80, m).astype(np.float64)
    counts = [np.full(size, -1) for size in (len(x), m, m, len(x))]
    if within:
        counts[2:] = []
    arguments = (x, len(x), y, 0 if y is None else m, 9, x_radii, y_radii, closed, *counts, *[None] * (4 - len(counts)))
    check(run("ball_counts", *arguments, dtype=dtype), "ball_counts", dtype)
    wanted = reference.ball_counts(x, y, x_sq_radii=x_radii, y_sq_radii=y_radii, closed=closed)
    for got, expected in zip(counts, wanted, strict=False):
        assert np.array_equal(got, expected)


@TYPES
@KINDS
def test_kernel_density(dtype: str, kind: str) -> None:
    x, y = points(60, 9, dtype, kind, 7), points(134, 9, dtype, kind, 8)
    density = np.full(len(x), np.nan)
    arguments = (x, len(x), y, len(y), 9, 6.0, density)
    check(run("kernel_density", *arguments, dtype=dtype), "kernel_density", dtype)
    np.testing.assert_allclose(density, reference.kernel_density(x, y, bandwidth=6.0), rtol=1e-5)

    counts = (
        np.random.default_rng(9).multinomial(len(y), np.full(len(y), 1 / len(y)), size=3).T.astype(np.uint16).copy()
    )
    density, deviation = np.full(len(y), np.nan), np.full(3, np.nan)
    for bandwidth in (6.0, 60.0):  # at 60 each row has more neighbours than its list holds
        arguments = (y, len(y), 9, counts, 3, bandwidth, density, deviation)
        check(run("kernel_density_band", *arguments, dtype=dtype), "kernel_density_band", dtype)
        wanted = reference.kernel_density_band(y, counts, bandwidth=bandwidth)
        np.testing.assert_allclose(density, wanted[0], rtol=1e-5)
        np.testing.assert_allclose(deviation, wanted[1], rtol=1e-4)


@TYPES
@KINDS
def test_soft_ball_product(dtype: str, kind: str) -> None:
    x, y = points(60, 9, dtype, kind, 7), points(134, 9, dtype, kind, 8)
    product = np.full(len(x), np.nan)
    arguments = (x, len(x), y, len(y), 9, 4.0, product)
    check(run("soft_ball_product", *arguments, dtype=dtype), "soft_ball_product", dtype)
    np.testing.assert_allclose(product, reference.soft_ball_product(x, y, radius=4.0), rtol=2e-5)


@TYPES
def test_sums_and_products_in_other_shapes(dtype: str) -> None:
    """Long rows, many columns, and points that coincide at a radius of 0."""
    for n, m, d, radius in ((14, 26, 131, 30.0), (6, 900, 2, 2.5), (10, 140, 2, 0.0)):
        x, y = points(n, d, dtype, "lattice", 11), points(m, d, dtype, "lattice", 12)
        if d == 2:
            # No point at a distance of 0 for some rows, so that their products are positive.
            x[::2] += 5
        density, product = np.full(n, np.nan), np.full(n, np.nan)
        replay = run("kernel_density", x, n, y, m, d, radius, density, dtype=dtype)
        assert replay.launched
        np.testing.assert_allclose(density, reference.kernel_density(x, y, bandwidth=radius), rtol=1e-5)
        assert run("soft_ball_product", x, n, y, m, d, radius, product, dtype=dtype).launched
        np.testing.assert_allclose(product, reference.soft_ball_product(x, y, radius=radius), rtol=2e-5)


@pytest.mark.parametrize(("n_bins", "most", "smoothing"), [(6, 40, 0.5), (33, 3, 0.0), (3, 3000, 0.0)])
def test_divergence_bootstrap(n_bins: int, most: int, smoothing: float) -> None:
    rng = np.random.default_rng(10)
    p, q = rng.integers(0, most, (2, n_bins)), rng.integers(0, most, (2, n_bins))
    p[0, 1] = q[1, 2] = 0
    divergences = Divergences(np.arange(12, dtype=np.int32), np.array([0.0] * 9 + [1.5, 0.5, 2.0]))
    codes, parameters = divergences.codes.tolist(), divergences.parameters.tolist()
    values, replicates = np.full((2, 12), np.nan), np.full((2, 12, 5), np.nan)
    arguments = (p, 2, n_bins, q, codes, parameters, smoothing, 5, 7, values, replicates)
    check(run("divergence_bootstrap", *arguments), "divergence_bootstrap", "float64")
    wanted = reference.divergence_bootstrap(p, q, divergences, smoothing=smoothing, n_replicates=5, seed=7)
    np.testing.assert_allclose(values, wanted[0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(replicates, wanted[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("n_rows", "n_replicates"), [(1, 2), (701, 3)])
def test_bootstrap_counts(n_rows: int, n_replicates: int) -> None:
    counts = np.full((n_rows, n_replicates), 7777, dtype=np.uint16)
    check(run("bootstrap_counts", n_rows, n_replicates, 2**40 + 5, counts), "bootstrap_counts", "float64")
    wanted = reference.bootstrap_counts(n_rows=n_rows, n_replicates=n_replicates, seed=2**40 + 5)
    np.testing.assert_array_equal(counts, wanted)


def test_no_kernel_is_left_out() -> None:
    expected = {
        name.replace("<T>", f"<{short}>")
        for names in LAUNCHED.values()
        for name in names
        for short in ("float", "double")
    }
    assert expected == set(readable(tuple(kernels())))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max.f64", "min.f64"),
        ("shfl.sync.bfly", "shfl.sync.up"),
        ("fma.rn.f64", "fma.rp.f64"),
        ("add.f32", "sub.f32"),
        ("setp.ge.s32", "setp.gt.s32"),
        ("atom.global.add.u64", "atom.global.min.u64"),
    ],
)
def test_a_changed_instruction_is_noticed(old: str, new: str) -> None:
    """It leaves other bytes than the harness, or a fault, in at least one of the primitives."""
    x, y = points(20, 9, "float64", "random", 2), points(34, 9, "float64", "random", 3)
    counts = [np.zeros(20, np.int64), np.zeros(34, np.int64)]
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("ball_counts", (x, 20, y, 34, 9, np.full(20, 12.0), None, True, *counts, None, None)),
        ("project", (x, 20, 9, y, 34, np.zeros((20, 34)))),
    ]
    noticed: list[object] = []
    for name, arguments in calls:
        assert not run(name, *arguments, dtype="float64").differences
        try:
            noticed += run(name, *arguments, dtype="float64", change=lambda text: text.replace(old, new)).differences
        except (MemoryAccessError, StuckError) as error:
            noticed.append(error)
    assert noticed
