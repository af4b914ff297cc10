"""The CUDA kernels on a real device, against the reference, the CPU kernels, and what torch does with streams.

Skipped where there is no device. `compute-sanitizer` runs the tests against the reference, whose data are small; see
docs/gpu-validation.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gpu import why_not
from egtmetrics import improved_precision_recall, precision_recall_density_coverage, topp_precision_recall
from egtmetrics.divergences import quantize
from egtmetrics.metrics import approximate_precision_recall_density_coverage
from egtmetrics.ops import Backend, Divergences, select_backend

REASON = why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=f"nothing to run on: {REASON}")]
DEVICE = "cuda"
REFERENCE, CPU = select_backend("reference"), select_backend("cpu")

Array = NDArray[Any]


def normal(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.normal(size=(n, d))


def integers(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.integers(-1, 2, size=(n, d)).astype(float)


def far_clusters(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.normal(size=(n, d)) + 1e5 * rng.integers(0, 3, size=(n, 1))


def near_duplicates(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.integers(0, 2, size=(n, d)) + 1e-6 * rng.normal(size=(n, d))


def all_equal(rng: np.random.Generator, n: int, d: int) -> Array:
    return np.full((n, d), 0.1)


def on_device(array: Array) -> Any:
    import torch

    return torch.from_numpy(array).to(DEVICE)


def off_the_last_bit(sq_radii: Array) -> Array:
    """Radii that no distance equals by accident: the order of addition differs between backends."""
    return sq_radii * (1 + 1e-9)


def draws(rng: np.random.Generator, n: int, n_replicates: int) -> Array:
    return rng.multinomial(n, np.full(n, 1 / n), size=n_replicates).T.astype(np.uint16, order="C")


def histograms(rng: np.random.Generator, n_groups: int, n_bins: int) -> Array:
    return rng.multinomial(500, rng.dirichlet(np.ones(n_bins)), size=n_groups).astype(np.int64)


FAMILY = Divergences(np.arange(12, dtype=np.int32), np.where(np.arange(12) == 10, 2.0, 0.5))


def assert_primitives_agree(expected: Backend, x: Array, y: Array, k: int) -> None:
    """Every primitive of the device on x and y (as many rows or fewer) against those of another backend."""
    cuda = select_backend("cuda")
    n, m = len(x), len(y)
    a, b = on_device(x), on_device(y)
    exact: dict[str, Any] = {"rtol": 1e-12}
    near: dict[str, Any] = {"rtol": 2e-5, "atol": 4e-7}  # twice what either backend keeps to

    radii = expected.kth_neighbor(x, n_neighbors=k)
    np.testing.assert_allclose(cuda.kth_neighbor(a, n_neighbors=k), radii, **exact)
    cross = expected.kth_neighbor(x, y, n_neighbors=k)
    np.testing.assert_allclose(cuda.kth_neighbor(a, b, n_neighbors=k), cross, **exact)
    floor, limit = (float(q) for q in off_the_last_bit(np.sort(radii)[[n // 4, n // 2]]))
    within = np.where(radii <= floor, 0.0, np.where(radii <= limit, radii, np.inf))
    np.testing.assert_allclose(cuda.kth_neighbor(a, n_neighbors=k, sq_range=(floor, limit)), within, **exact)

    x_offsets, y_offsets = np.array([0, k + 2, n]), np.array([0, k + 2, m])
    for other, device_other, offsets in ((None, None, None), (y, b, y_offsets)):
        groups = {"x_offsets": x_offsets, "y_offsets": offsets, "n_neighbors": k}
        np.testing.assert_allclose(
            cuda.grouped_kth_neighbor(a, device_other, **groups),
            expected.grouped_kth_neighbor(x, other, **groups),
            **exact,
        )

    sq_dists, rows = cuda.neighbors(a, b, n_neighbors=k)
    np.testing.assert_allclose(sq_dists, expected.neighbors(x, y, n_neighbors=k)[0], **exact)
    assert (np.diff(sq_dists, axis=1) >= 0).all()
    own = ((x.astype(np.float64)[:, None] - y.astype(np.float64)[rows]) ** 2).sum(axis=2)
    np.testing.assert_allclose(own, sq_dists, **exact)
    assert all(len(set(row)) == k for row in rows.tolist())

    x_radii = off_the_last_bit(radii)
    y_radii = off_the_last_bit(expected.kth_neighbor(y, n_neighbors=k))
    for closed in (False, True):
        for ours, theirs in (
            (
                cuda.ball_counts(a, b, x_sq_radii=x_radii, y_sq_radii=y_radii, closed=closed),
                expected.ball_counts(x, y, x_sq_radii=x_radii, y_sq_radii=y_radii, closed=closed),
            ),
            (
                cuda.ball_counts(a, x_sq_radii=x_radii, closed=closed),
                expected.ball_counts(x, x_sq_radii=x_radii, closed=closed),
            ),
        ):
            for counts, wanted in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(counts, wanted)

    h = float(np.sqrt(np.median(radii))) * 1.3 or 1.0
    np.testing.assert_allclose(
        cuda.kernel_density(a, b, bandwidth=h), expected.kernel_density(x, y, bandwidth=h), **near
    )
    counts = draws(np.random.default_rng(0), n, 37)
    ours, theirs = (
        backend.kernel_density_band(points, counts, bandwidth=h) for backend, points in ((cuda, a), (expected, x))
    )
    for part, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(part, wanted, **near)
    np.testing.assert_array_equal(ours[0], cuda.kernel_density(a, a, bandwidth=h))

    radius = 1.2 * float(np.sqrt(np.quantile(expected.kth_neighbor(x, y, n_neighbors=1), 0.7))) or 1.0
    np.testing.assert_allclose(
        cuda.soft_ball_product(a, b, radius=radius),
        expected.soft_ball_product(x, y, radius=radius),
        rtol=2e-4,
        atol=2e-6,
    )
    matrix = np.random.default_rng(1).normal(size=(33, x.shape[1]))
    scale = np.abs(x).astype(np.float64).max() * np.abs(matrix).sum(axis=1).max()
    projected: Any = cuda.project(a, matrix)
    np.testing.assert_allclose(projected.cpu().numpy(), expected.project(x, matrix), atol=1e-13 * scale, rtol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("data", [normal, integers, far_clusters, near_duplicates, all_equal])
@pytest.mark.parametrize(("n", "m", "d"), [(257, 129, 9), (700, 513, 33)])
def test_against_reference(
    data: Callable[[np.random.Generator, int, int], Array], n: int, m: int, d: int, dtype: Any
) -> None:
    rng = np.random.default_rng(0)
    x, y = data(rng, n, d).astype(dtype), data(rng, m, d).astype(dtype)
    for k in (1, 40):
        assert_primitives_agree(REFERENCE, x, y, k)


def test_divergences_against_reference() -> None:
    rng = np.random.default_rng(1)
    p, q = histograms(rng, 7, 100), histograms(rng, 7, 100)
    options = {"smoothing": 0.5, "n_replicates": 65, "seed": 2**40 + 3}
    ours = select_backend("cuda").divergence_bootstrap(p, q, FAMILY, **options)
    for part, wanted in zip(ours, REFERENCE.divergence_bootstrap(p, q, FAMILY, **options), strict=True):
        np.testing.assert_allclose(part, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "d", "k"), [(20_000, 15_000, 64, 5), (10_000, 9_999, 768, 5), (10_000, 8_000, 32, 160)]
)
def test_against_cpu_at_real_sizes(n: int, m: int, d: int, k: int) -> None:
    rng = np.random.default_rng(2)
    x, y = normal(rng, n, d).astype(np.float32), 0.95 * normal(rng, m, d).astype(np.float32)
    assert_primitives_agree(CPU, x, y, k)


def test_divergences_against_cpu_at_real_sizes() -> None:
    rng = np.random.default_rng(3)
    p, q = histograms(rng, 300, 1000), histograms(rng, 300, 1000)
    options = {"smoothing": 0.5, "n_replicates": 200, "seed": 9}
    ours = select_backend("cuda").divergence_bootstrap(p, q, FAMILY, **options)
    for part, wanted in zip(ours, CPU.divergence_bootstrap(p, q, FAMILY, **options), strict=True):
        np.testing.assert_allclose(part, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n_rows", "n_replicates"), [(1, 3), (20_000, 1000), (100_003, 17)])
def test_bootstrap_counts_against_cpu(n_rows: int, n_replicates: int) -> None:
    arguments = {"n_rows": n_rows, "n_replicates": n_replicates, "seed": 2**63 + 1}
    ours: Any = select_backend("cuda").bootstrap_counts(**arguments)
    np.testing.assert_array_equal(ours.cpu().numpy().view(np.uint16), CPU.bootstrap_counts(**arguments))


def test_bootstrap_of_many_replicates_against_cpu() -> None:
    rng = np.random.default_rng(4)
    x = normal(rng, 5000, 32).astype(np.float32)
    counts = draws(rng, len(x), 1000)
    ours, wanted = (
        backend.kernel_density_band(points, counts, bandwidth=6.0)
        for backend, points in ((select_backend("cuda"), on_device(x)), (CPU, x))
    )
    for part, expected in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(part, expected, rtol=2e-5, atol=4e-7)


def test_faiss_on_the_device() -> None:
    faiss = pytest.importorskip("faiss")
    if faiss.get_num_gpus() == 0:
        pytest.skip("this build of faiss has no GPU; pip install 'egtmetrics[gpu]'")
    rng = np.random.default_rng(5)
    real, fake = (normal(rng, n, 8).astype(np.float32) for n in (3000, 2500))
    options: dict[str, Any] = {"n_cells": 50, "n_probes": 4, "n_checked": 3000, "random_state": 0}
    ours = approximate_precision_recall_density_coverage(on_device(real), on_device(fake), **options)
    assert ours.backend == "cuda"
    assert ours.scores() == precision_recall_density_coverage(real, fake).scores()  # every row is checked
    # other cells than on the host, but as good ones
    on_host = approximate_precision_recall_density_coverage(real, fake, **options)
    assert ours.exact_radii == pytest.approx(on_host.exact_radii, abs=0.05)

    codebook = quantize(on_device(real), on_device(fake), n_clusters=20, kmeans="faiss", random_state=0)
    assert codebook.backend == "cuda"
    nearest = ((real[:, None] - codebook.centers) ** 2).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest == codebook.real_codes) > 0.999  # but for ties in float32


def every_operator(x: Any, y: Any, *, k: int = 5) -> list[Any]:
    """The results of all operators of torch on two sets of points."""
    import torch

    from egtmetrics.ops import torch_ops

    radii = torch_ops.kth_neighbor(x, n_neighbors=k)
    counts = torch.ones((len(x), 40), dtype=torch.int16, device=x.device)
    bins = torch.arange(1, 31, device=x.device).reshape(3, 10)
    matrix = torch.linspace(-1, 1, 4 * x.shape[1], dtype=torch.float64, device=x.device).reshape(4, -1)
    return [
        radii,
        torch_ops.kth_neighbor(x, y, n_neighbors=k),
        *torch_ops.ball_counts(x, y, x_sq_radii=radii, closed=True),
        torch_ops.kernel_density(x, y, bandwidth=4.0),
        *torch_ops.kernel_density_band(x, counts, bandwidth=4.0),
        torch_ops.soft_ball_product(x, y, radius=4.0),
        torch_ops.project(x, matrix),
        *torch_ops.divergence_bootstrap(bins, bins.flip(1), codes=[0, 4], n_replicates=50),
    ]


def two_sets(n: int = 3000, m: int = 2500, d: int = 40) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    return on_device(normal(rng, n, d).astype(np.float32)), on_device(normal(rng, m, d).astype(np.float32))


def test_results_lie_where_the_points_lie_and_are_the_same_every_time() -> None:
    import torch

    x, y = two_sets()
    first = every_operator(x, y)
    assert {str(result.device) for result in first} == {str(x.device)}
    for _ in range(5):
        for result, before in zip(every_operator(x, y), first, strict=True):
            assert torch.equal(result, before)


def test_work_runs_on_the_current_stream_and_is_not_waited_for() -> None:
    import torch

    data, other = two_sets()
    expected = every_operator(data, other)
    x = torch.zeros_like(data)
    busy = torch.randn(4096, 4096, device=DEVICE)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        every_operator(x, other)  # first calls load kernels and get memory, which may wait
        torch.mm(busy, busy)
        torch.cuda.synchronize()
        for _ in range(300):  # some tenths of a second, in which all that follows gets queued
            torch.mm(busy, busy)
        x.copy_(data)  # before the kernels read it, if they come after it
        results = every_operator(x, other)
        x.zero_()  # after the kernels have read it, if it comes after them
        queued = not side.query()
    side.synchronize()
    assert queued, "a call waited for the device"
    for result, wanted in zip(results, expected, strict=True):
        assert torch.equal(result, wanted)


def test_device_is_the_same_afterwards() -> None:
    import torch

    before = torch.cuda.current_device()
    for index in range(torch.cuda.device_count()):
        x, y = (points.to(f"cuda:{index}") for points in two_sets(n=300, m=200))
        results = every_operator(x, y)
        assert {result.device.index for result in results} == {index}
        assert torch.cuda.current_device() == before
        with pytest.raises(ValueError, match="n_neighbors"):
            every_operator(x, y, k=300)
        assert torch.cuda.current_device() == before


class OfAnotherLibrary:
    """An array in CUDA memory that torch does not know."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__


def test_arrays_of_other_libraries_are_read_where_they_lie() -> None:
    import torch

    x, y = two_sets(n=300, m=200)
    expected = select_backend("cuda").kth_neighbor(x, y, n_neighbors=3)
    for index in range(torch.cuda.device_count()):  # also those that are not current
        sets = [OfAnotherLibrary(points.to(f"cuda:{index}")) for points in (x, y)]
        backend = select_backend(features=sets)
        assert (backend.name, backend.device) == ("cuda", f"cuda:{index}")
        np.testing.assert_array_equal(backend.kth_neighbor(*sets, n_neighbors=3), expected)


def test_memory_is_given_back() -> None:
    import torch

    x, y = two_sets()
    every_operator(x, y)
    torch.cuda.synchronize()
    free, _ = torch.cuda.mem_get_info()
    for _ in range(50):
        every_operator(x, y)
    torch.cuda.synchronize()
    assert torch.cuda.mem_get_info()[0] > free - (64 << 20)


def test_wrong_input_is_refused() -> None:
    cuda = select_backend("cuda")
    x, y = two_sets(n=300, m=200)
    calls: list[Callable[[Any, Any], Any]] = [
        lambda a, b: cuda.kth_neighbor(a, b, n_neighbors=2),
        lambda a, b: cuda.neighbors(a, b, n_neighbors=2),
        lambda a, b: cuda.ball_counts(a, b, x_sq_radii=np.ones(300), closed=True),
        lambda a, b: cuda.kernel_density(a, b, bandwidth=1.0),
        lambda a, b: cuda.soft_ball_product(a, b, radius=1.0),
    ]
    for call in calls:
        call(x, y)
        with pytest.raises(ValueError, match=r"x is .*cpu"):
            call(x.cpu(), y)
        with pytest.raises(ValueError, match=r"y is .*cpu"):
            call(x, y.cpu())
        with pytest.raises(ValueError, match=r"x is .*ndarray"):
            call(x.cpu().numpy(), y)
        with pytest.raises(ValueError, match=r"contiguous"):
            call(x.t().contiguous().t(), y)
        with pytest.raises(TypeError, match=r"float16"):
            call(x.half(), y.half())
        with pytest.raises(TypeError, match=r"dtype"):
            call(x, y.double())
        with pytest.raises(ValueError, match=r"columns"):
            call(x, y[:, :5].contiguous())


def test_sets_on_two_devices_are_refused() -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("there is one device only")
    x, y = two_sets(n=300, m=200)
    with pytest.raises(ValueError, match=r"y lies on cuda:1, expected cuda:0"):
        select_backend("cuda").kth_neighbor(x, y.to("cuda:1"), n_neighbors=2)


def test_operators_copy_what_is_not_contiguous() -> None:
    import torch

    x, y = two_sets(n=300, m=200)
    for result, wanted in zip(every_operator(x.t().contiguous().t(), y[::1]), every_operator(x, y), strict=True):
        assert torch.equal(result, wanted)


def test_metrics_run_on_the_device() -> None:
    x, y = two_sets(n=2000, m=2000)
    a, b = x.cpu().numpy(), y.cpu().numpy()
    metrics: list[Callable[..., Any]] = [
        precision_recall_density_coverage,
        improved_precision_recall,
        lambda real, fake, **options: topp_precision_recall(real, fake, random_state=0, n_bootstrap=100, **options),
    ]
    for metric in metrics:
        on_cuda, on_cpu = metric(x, y), metric(a, b)
        assert on_cuda.backend == "cuda"
        assert on_cpu.backend == "cpu"
        for name, value in on_cpu.scores().items():
            np.testing.assert_allclose(on_cuda.scores()[name], value, atol=3 / len(a), err_msg=name)
        with pytest.raises(ValueError, match=r"cpu|device"):
            metric(x.cpu(), y, backend="cuda")
