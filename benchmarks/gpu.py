"""Time every primitive and whole evaluations on the CUDA device, after checking that it agrees with the CPU kernels.

    python -m benchmarks.gpu --out benchmarks/results          gpu.json and gpu.md
    python -m benchmarks.gpu --only neighbors,balls            some sections
    python -m benchmarks.gpu --scale 0.1                       a tenth of the rows, to try the script itself

Data is on the device before and after; times are medians between two CUDA events, after warm-up. Seconds depend on the
card and its clock; read the ratios to the peers of the same run. The peers are torch on the same tensors and faiss, if
its GPU build is installed. The ceiling is a bare float32 matrix product of the same shape, without tensor cores.
Without a device, nothing is printed and the exit code is 2.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import run
from benchmarks.run import Row, row, table

Scores = Mapping[str, Any]

NO_ROW = "Nothing was measured, because the CUDA kernels cannot run"


class Device(NamedTuple):
    """The device of the tensors, as torch names it, and how a call is timed there."""

    name: str
    seconds: Callable[[Callable[[], Any]], float]


def seconds_between_events(call: Callable[[], Any], repeats: int = 15, warm_up: int = 3) -> float:
    """Median time of a call on the current stream, from the start of its first kernel to the end of its last."""
    import torch

    for _ in range(warm_up):
        call()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000.0)
    return statistics.median(times)


def why_not() -> str | None:
    """Return the reason why nothing can be measured, or None."""
    from egtmetrics.ops import select_backend

    try:
        select_backend("cuda")
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None


def normal(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    return rng.normal(size=(n, d)).astype(np.float32)


def to_device(device: Device, *arrays: NDArray[Any]) -> list[Any]:
    import torch

    return [torch.from_numpy(array).to(device.name) for array in arrays]


def check(ours: Any, expected: NDArray[Any], *, rtol: float = 1e-12, atol: float = 0.0, what: str) -> None:
    """Raise unless the device gave the same result as the CPU; with rtol = 0 and atol = 0, to the bit."""
    np.testing.assert_allclose(ours.cpu().numpy(), expected, rtol=rtol, atol=atol, err_msg=what)


def product_seconds(device: Device, n: int, m: int, k: int) -> float:
    """Time of torch's float32 product (n, k) x (k, m), the ceiling of a computation of that shape."""
    import torch

    a, b = (torch.randn(shape, device=device.name) for shape in ((n, k), (k, m)))
    return device.seconds(lambda: a @ b)


def faiss_index(device: Device, features: Any) -> Any | None:
    """An exact faiss index that searches tensors on the device, or None if faiss cannot do that."""
    if device.name != "cuda" or importlib.util.find_spec("faiss") is None:
        return None
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        return None
    import faiss.contrib.torch_utils  # lets an index take tensors

    index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), features.shape[1])
    index.add(features)
    return index


def bench_neighbors(device: Device, scale: float) -> list[Row]:
    import torch

    from egtmetrics.ops import select_backend, torch_ops
    from egtmetrics.ops._device import KERNELS

    cpu = select_backend("cpu")
    rows = []
    for n, d, k in ((20_000, 64, 5), (20_000, 768, 5), (10_000, 32, 160)):
        n = max(int(n * scale), k + 1)
        features = normal(np.random.default_rng(d), n, d)
        (x,) = to_device(device, features)
        expected = cpu.kth_neighbor(features, n_neighbors=k)
        check(torch_ops.kth_neighbor(x, n_neighbors=k), expected, what="kth_neighbor")
        index = faiss_index(device, x)
        peers: dict[str, Callable[[], Any]] = {
            "torch.cdist and topk": lambda x=x, k=k: torch.cdist(x, x).topk(k + 1, largest=False)
        }
        if index is not None:
            peers["faiss exact"] = lambda index=index, x=x, k=k: index.search(x, k + 1)
        for name, peer in peers.items():  # both find the point itself first; only faiss returns squared distances
            distances = peer()[0][:, k].cpu().numpy()
            radii = np.sqrt(distances) if name == "faiss exact" else distances
            np.testing.assert_allclose(radii, np.sqrt(expected), rtol=1e-3, err_msg=name)
        rows.append(
            row(
                f"kth_neighbor n = {n}, d = {d}, k = {k}",
                device.seconds(lambda x=x, k=k: torch_ops.kth_neighbor(x, n_neighbors=k)),
                {name: device.seconds(call) for name, call in peers.items()},
                wanted={},
                ceiling=product_seconds(device, n, n, d),
            )
        )
    n, d, k = max(int(10_000 * scale), 5), 768, 5
    rng = np.random.default_rng(0)
    features, others = normal(rng, n, d), normal(rng, n, d)
    x, y = to_device(device, features, others)
    sq_dists, found = cpu.neighbors(features, others, n_neighbors=k)
    ours = KERNELS.neighbors(x, y, n_neighbors=k)
    check(ours[0], sq_dists, what="neighbors")
    check(ours[1], found, rtol=0.0, what="neighbors")
    rows.append(
        row(
            f"neighbors n = m = {n}, d = {d}, k = {k}",
            device.seconds(lambda: KERNELS.neighbors(x, y, n_neighbors=k)),
            {"torch.cdist and topk": device.seconds(lambda: torch.cdist(x, y).topk(k, largest=False))},
            wanted={},
            ceiling=product_seconds(device, n, n, d),
        )
    )
    return rows


def bench_groups(device: Device, scale: float) -> list[Row]:
    """Many groups in one call, against a call for each group."""
    from egtmetrics.ops import select_backend, torch_ops
    from egtmetrics.ops._device import KERNELS

    n_groups, size, d, k = max(int(200 * scale), 2), 100, 64, 5
    features = normal(np.random.default_rng(1), n_groups * size, d)
    offsets = np.arange(0, len(features) + 1, size)
    (x,) = to_device(device, features)
    expected = select_backend("cpu").grouped_kth_neighbor(features, x_offsets=offsets, n_neighbors=k)

    def ours() -> Any:
        return KERNELS.grouped_kth_neighbor(x, x_offsets=offsets.tolist(), n_neighbors=k)

    def one_by_one() -> None:
        for start in offsets[:-1]:
            torch_ops.kth_neighbor(x[start : start + size], n_neighbors=k)

    check(ours(), expected, what="grouped_kth_neighbor")
    name = f"grouped_kth_neighbor {n_groups} groups of {size}, d = {d}, k = {k}"
    peers = {"a call for each group": device.seconds(one_by_one)}
    return [row(name, device.seconds(ours), peers, wanted={}, ceiling=None)]


def bench_balls(device: Device, scale: float) -> list[Row]:
    import torch

    from egtmetrics.ops import select_backend, torch_ops

    cpu = select_backend("cpu")
    n, d, k = max(int(10_000 * scale), 6), 768, 5
    rng = np.random.default_rng(2)
    features, others = normal(rng, n, d), 0.98 * normal(rng, n, d)
    # Enlarged, because the backends may differ in the last bit of a distance.
    radii = [cpu.kth_neighbor(points, n_neighbors=k) * (1 + 1e-9) for points in (features, others)]
    x, y, x_radii, y_radii = to_device(device, features, others, *radii)

    def ours() -> Any:
        return torch_ops.ball_counts(x, y, x_sq_radii=x_radii, y_sq_radii=y_radii, closed=False)

    def peer() -> Any:
        distances = torch.cdist(x, y).square_()
        in_x, in_y = distances < x_radii.float()[:, None], distances < y_radii.float()
        return in_x.sum(1), in_x.sum(0), in_y.sum(0), in_y.sum(1)

    expected = cpu.ball_counts(features, others, x_sq_radii=radii[0], y_sq_radii=radii[1], closed=False)
    for counts, wanted in zip(ours(), expected, strict=True):
        check(counts, wanted, rtol=0.0, what="ball_counts")
    name = f"ball_counts n = m = {n}, d = {d}"
    peers = {"torch.cdist and comparisons": device.seconds(peer)}
    return [row(name, device.seconds(ours), peers, wanted={}, ceiling=product_seconds(device, n, n, d))]


def bench_kernels(device: Device, scale: float) -> list[Row]:
    import torch

    from egtmetrics.ops import select_backend, torch_ops

    cpu = select_backend("cpu")
    n, d = max(int(10_000 * scale), 2), 32
    rng = np.random.default_rng(3)
    features, others = normal(rng, n, d), 0.9 * normal(rng, n, d)
    x, y = to_device(device, features, others)
    h = float(np.sqrt(np.median(cpu.kth_neighbor(features, n_neighbors=min(160, n - 1)))))
    near = {"rtol": 2e-5, "atol": 4e-7}  # twice the tolerance that each backend guarantees

    def kernel(a: Any, b: Any) -> Any:
        return torch.cos(torch.cdist(a, b).div_(h).clamp_(max=1.0).mul_(np.pi / 2))

    check(
        torch_ops.kernel_density(x, y, bandwidth=h),
        cpu.kernel_density(features, others, bandwidth=h),
        **near,
        what="kernel_density",
    )
    products = product_seconds(device, n, n, d)
    rows = [
        row(
            f"kernel_density n = m = {n}, d = {d}",
            device.seconds(lambda: torch_ops.kernel_density(x, y, bandwidth=h)),
            {"torch.cdist, cos and mean": device.seconds(lambda: kernel(x, y).mean(1))},
            wanted={},
            ceiling=products,
        )
    ]
    for n_replicates in (10, 1000):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=n_replicates).T.astype(np.uint16, order="C")
        draws = torch.from_numpy(counts.view(np.int16)).to(device.name)
        draws_as_floats = torch.from_numpy(counts.astype(np.float32)).to(device.name)

        def band(draws: Any = draws) -> Any:
            return torch_ops.kernel_density_band(x, draws, bandwidth=h)

        def peer(draws: Any = draws_as_floats) -> Any:
            values = kernel(x, x)
            density = values.mean(1)
            return density, (values @ draws / n - density[:, None]).abs().amax(0)

        expected = cpu.kernel_density_band(features, counts, bandwidth=h)
        for part, wanted in zip(band(), expected, strict=True):
            check(part, wanted, **near, what="kernel_density_band")
        rows.append(
            row(
                f"kernel_density_band n = {n}, d = {d}, B = {n_replicates}",
                device.seconds(band),
                {"torch.cdist, cos and product": device.seconds(peer)},
                wanted={},
                ceiling=products + product_seconds(device, n, n_replicates, n),
            )
        )
    return rows


def bench_products(device: Device, scale: float) -> list[Row]:
    import torch

    from egtmetrics.ops import select_backend, torch_ops

    cpu = select_backend("cpu")
    n, d = max(int(10_000 * scale), 6), 768
    rng = np.random.default_rng(4)
    features, others = normal(rng, n, d), normal(rng, n, d)
    x, y = to_device(device, features, others)
    radius = 1.2 * float(np.sqrt(cpu.kth_neighbor(others, n_neighbors=4)).mean())
    expected = cpu.soft_ball_product(features, others, radius=radius)
    check(torch_ops.soft_ball_product(x, y, radius=radius), expected, rtol=2e-4, atol=2e-6, what="soft_ball_product")
    return [
        row(
            f"soft_ball_product n = m = {n}, d = {d}",
            device.seconds(lambda: torch_ops.soft_ball_product(x, y, radius=radius)),
            {"torch.cdist and prod": device.seconds(lambda: torch.cdist(x, y).div_(radius).clamp_(max=1.0).prod(1))},
            wanted={},
            ceiling=product_seconds(device, n, n, d),
        )
    ]


def bench_projections(device: Device, scale: float) -> list[Row]:
    from egtmetrics.ops import select_backend, torch_ops

    n, d, n_rows = max(int(20_000 * scale), 1), 768, 32
    rng = np.random.default_rng(5)
    features, matrix = normal(rng, n, d), rng.normal(size=(n_rows, d)) / np.sqrt(d)
    x, rows = to_device(device, features, matrix)
    expected = select_backend("cpu").project(features, matrix)
    check(torch_ops.project(x, rows), expected, rtol=1e-10, atol=1e-12, what="project")
    doubles = x.double()
    return [
        row(
            f"project n = {n}, d = {d} to {n_rows}",
            device.seconds(lambda: torch_ops.project(x, rows)),
            {"torch float64 product": device.seconds(lambda: x.double() @ rows.T)},
            wanted={},
            ceiling=device.seconds(lambda: doubles @ rows.T),
        )
    ]


def bench_divergences(device: Device, scale: float) -> list[Row]:
    """1000 groups x 100 bins x 12 divergences x 200 bootstrap replicates, of 1000 samples a side."""
    from egtmetrics.ops import Divergences, select_backend, torch_ops

    n_groups, n_bins, n_replicates, n = max(int(1000 * scale), 1), 100, 200, 1000
    rng = np.random.default_rng(0)
    p_counts, q_counts = (rng.multinomial(n, rng.dirichlet(np.ones(n_bins), size=n_groups)) for _ in range(2))
    p, q = to_device(device, p_counts, q_counts)
    codes = np.arange(12, dtype=np.int32)
    parameters = np.where(codes == 10, 2.0, 0.5)

    def ours() -> Any:
        return torch_ops.divergence_bootstrap(
            p,
            q,
            codes=codes.tolist(),
            parameters=parameters.tolist(),
            smoothing=0.5,
            n_replicates=n_replicates,
            seed=0,
        )

    def cpu() -> Any:
        family = Divergences(codes, parameters)
        backend = select_backend("cpu")
        return backend.divergence_bootstrap(
            p_counts, q_counts, family, smoothing=0.5, n_replicates=n_replicates, seed=0
        )

    for part, wanted in zip(ours(), cpu(), strict=True):
        check(part, wanted, rtol=1e-9, atol=1e-12, what="divergence_bootstrap")
    name = f"divergence_bootstrap {n_groups} groups x {n_bins} bins x 12 x {n_replicates} replicates of {n} samples"
    # No other library draws them on a device.
    peers = {"the CPU kernels": run.seconds(cpu, repeats=2)}
    return [row(name, device.seconds(ours), peers, wanted={}, ceiling=None)]


def evaluation(
    device: Device,
    name: str,
    ours: Callable[[], Scores],
    cpu: Callable[[], Scores],
    *,
    atol: float,
    ceiling: float | None = None,
) -> Row:
    """One evaluation from tensors to scores, the host's part included, against the same on the CPU.

    ``atol`` is what a few memberships that the last bits decide may change.
    """
    from egtmetrics.results import UnreliableScoreWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableScoreWarning)  # of few rows, to try the script
        found, expected = ours(), cpu()
        assert found.keys() == expected.keys(), name
        for score, value in expected.items():
            np.testing.assert_allclose(found[score], value, rtol=1e-5, atol=atol, err_msg=f"{name}: {score}")
        peers = {"the CPU kernels": run.seconds(cpu, repeats=1)}
        return row(name, device.seconds(ours), peers, wanted={}, ceiling=ceiling)


def topp_options(n: int, d: int, scale: float) -> dict[str, Any]:
    """The paper's options; of few rows, to try the script, fewer dimensions, since k is 5 times their number."""
    projected = min(32, n // 12)
    matrices = np.random.default_rng(0).normal(size=(max(int(10 * scale), 1), projected, d)) / np.sqrt(projected)
    return {"projections": list(matrices), "n_bootstrap": max(int(1000 * scale), 10), "random_state": 0}


def bench_evaluations(device: Device, scale: float) -> list[Row]:
    """TopP&R as in the paper, PRDC and FID, of tensors on the device."""
    from egtmetrics import frechet_distance, precision_recall_density_coverage, topp_precision_recall

    d = 768

    def inputs(n: int) -> tuple[list[NDArray[np.float32]], list[Any]]:
        rng = np.random.default_rng(n)
        sets = [normal(rng, n, d), 0.95 * normal(rng, n, d)]
        return sets, to_device(device, *sets)

    rows = []
    for n in (2_000, 10_000, 20_000):
        n = max(int(n * scale), 48)
        options = topp_options(n, d, scale)
        b, n_projections, projected = (
            options["n_bootstrap"],
            len(options["projections"]),
            len(options["projections"][0]),
        )
        on_host, on_device = inputs(n)
        topp = functools.partial(topp_precision_recall, **options)
        # Distances within each set and between them, and a band of each, at least.
        one = 3 * product_seconds(device, n, n, projected) + 2 * product_seconds(device, n, b, n)
        rows.append(
            evaluation(
                device,
                f"TopP&R n = m = {n}, d = {d}, {n_projections} projections to {projected}, B = {b}",
                lambda f=topp, sets=on_device: f(*sets).scores(),
                lambda f=topp, sets=on_host: f(*sets).scores(),
                atol=5.0 / n,
                ceiling=n_projections * one,
            )
        )
    n = max(int(10_000 * scale), 48)
    on_host, on_device = inputs(n)
    for name, metric, ceiling in (
        (
            "precision, recall, density, coverage",
            precision_recall_density_coverage,
            product_seconds(device, n, 3 * n, d),
        ),
        ("FID", frechet_distance, None),
    ):
        rows.append(
            evaluation(
                device,
                f"{name} n = m = {n}, d = {d}",
                lambda f=metric: f(*on_device).scores(),
                lambda f=metric: f(*on_host).scores(),
                atol=5.0 / n,
                ceiling=ceiling,
            )
        )
    return rows


def bench_frames(device: Device, scale: float) -> list[Row]:
    """Groups with intervals, and a checkpoint against a prepared reference."""
    from egtmetrics import (
        GenerativeMetricFrame,
        Reference,
        frechet_distance,
        precision_recall_density_coverage,
        topp_precision_recall,
    )

    d, size = 64, max(int(2_000 * scale), 60)
    metrics = {
        "topp": functools.partial(topp_precision_recall, **topp_options(size, d, scale)),
        "prdc": precision_recall_density_coverage,
        "fid": frechet_distance,
    }

    def samples(n_groups: int, n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return normal(np.random.default_rng(seed), n_groups * n, d), np.repeat(np.arange(n_groups), n)

    def scores(frame: GenerativeMetricFrame) -> Scores:
        return {f"{score} of {group}": value for score, by in frame.by_group.items() for group, value in by.items()}

    rows = []
    for n_groups in (2, max(int(20 * scale), 3)):
        (real, groups), (fake, _) = samples(n_groups, size, 0), samples(n_groups, size, 1)

        def frame_with_intervals(real: Any, fake: Any, groups: Any = groups) -> Scores:
            frame = GenerativeMetricFrame(
                metrics=metrics,
                real=real,
                fake=fake,
                real_sensitive_features=groups,
                fake_sensitive_features=groups,
                random_state=0,
            )
            frame.interval(0.95)
            return scores(frame)

        x, y = to_device(device, real, fake)
        rows.append(
            evaluation(
                device,
                f"{', '.join(metrics)} of {n_groups} groups of {size} a side, d = {d}, with intervals",
                lambda f=frame_with_intervals, x=x, y=y: f(x, y),
                lambda f=frame_with_intervals, x=real, y=fake: f(x, y),
                atol=5.0 / size,
            )
        )
    (real, groups), (fake, fake_groups) = samples(2, 5 * size, 0), samples(2, size, 1)
    x, y = to_device(device, real, fake)
    on_device, on_host = (Reference(features, sensitive_features=groups) for features in (x, real))

    def later_call(reference: Reference, fake: Any) -> Scores:
        return scores(
            GenerativeMetricFrame(
                metrics=metrics, real=reference, fake=fake, fake_sensitive_features=fake_groups, random_state=0
            )
        )

    rows.append(
        evaluation(
            device,
            f"{', '.join(metrics)} of {2 * size} fake against a reference of {10 * size} real, d = {d}, later calls",
            lambda: later_call(on_device, y),
            lambda: later_call(on_host, fake),
            atol=5.0 / size,
        )
    )
    return rows


SECTIONS: dict[str, Callable[[Device, float], list[Row]]] = {
    "neighbors": bench_neighbors,
    "groups": bench_groups,
    "balls": bench_balls,
    "kernels": bench_kernels,
    "products": bench_products,
    "projections": bench_projections,
    "divergences": bench_divergences,
    "evaluations": bench_evaluations,
    "frames": bench_frames,
}


def driver_version() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown"
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return answer[0] if answer else "unknown"


def machine() -> dict[str, Any]:
    import torch

    from egtmetrics.ops._native import cuda_module

    module = cuda_module()
    device = torch.cuda.current_device()
    return {
        "card": module.device_info(device),
        "driver": driver_version(),
        "kernels": module.build_info(),
        "python": platform.python_version(),
        "versions": {
            package.metadata["Name"]: package.version
            for package in importlib.metadata.distributions()
            if package.metadata["Name"] in ("egtmetrics", "numpy", "torch") or "faiss" in package.metadata["Name"]
        },
        "torch_cuda": torch.version.cuda,
    }


def report(rows: list[Row], description: dict[str, Any]) -> str:
    card, kernels = description["card"], description["kernels"]
    capability = ".".join(str(number) for number in card["capability"])
    return (
        f"{table(rows)}\n\n{card['name']} (capability {capability}), driver {description['driver']}; kernels "
        f"{kernels['compiler']} for {kernels['architectures']}; torch {description['versions']['torch']}. Written by "
        "`python -m benchmarks.gpu`.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md; default: only print the table")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections, of {', '.join(SECTIONS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the numbers of rows")
    options = parser.parse_args(arguments)
    reason = why_not()
    if reason is not None:
        print(f"{NO_ROW}: {reason}", file=sys.stderr)
        return 2
    import torch

    torch.set_float32_matmul_precision("highest")  # no tensor cores in the peers either
    device = Device("cuda", seconds_between_events)
    rows: list[Row] = []
    for name in tqdm(options.only.split(","), desc="benchmarks"):
        rows += SECTIONS[name](device, options.scale)
        torch.cuda.empty_cache()
    description = machine()
    text = report(rows, description)
    print(text)
    if options.out:
        from egtmetrics._atomic import write_whole

        options.out.mkdir(parents=True, exist_ok=True)
        results = {"machine": description, "command": "python -m benchmarks.gpu", "rows": rows}
        write_whole(options.out / "gpu.json", json.dumps(results, indent=1) + "\n")
        write_whole(options.out / "gpu.md", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
