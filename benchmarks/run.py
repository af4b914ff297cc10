"""Time the library against other packages in one process, after checking that they agree; write a table and a JSON.

    python -m benchmarks.run --out benchmarks/results            everything (make bench)
    python -m benchmarks.run --only neighbors,prdc               some sections
    python -m benchmarks.run --scale 0.1                         a tenth of the rows, to try the script itself

`make bench ISA=avx2` holds this library and the peers to AVX2. Results go by kind of machine: cpu-amd-avx512.md, ...
Every run is also kept by itself, in history/cpu-amd-avx512/, and compared with the best one: see benchmarks/gate.py.

Seconds depend on the machine; read the ratios. Each row also has a ceiling from the same run: the time of a bare matrix
product of the same shape, or for the divergences of the random bits that they need.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from benchmarks import gate

Row = dict[str, Any]


def seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Smallest wall time of several calls: on a shared machine, other work can only add to it."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def row(name: str, ours: float, peers: dict[str, float], *, wanted: dict[str, float], ceiling: float | None) -> Row:
    """One comparison. `peers` and `ceiling` are in seconds; `wanted` is the ratio to a peer that we aim for."""
    return {
        "name": name,
        "seconds": ours,
        "ceiling_seconds": ceiling,
        "peers": {peer: {"seconds": t, "ratio": t / ours, "wanted": wanted.get(peer)} for peer, t in peers.items()},
    }


def gemm_seconds(n: int, m: int, k: int) -> float:
    """Time of torch's float32 product (n, k) x (k, m), the ceiling of a computation of that shape."""
    import torch

    rng = np.random.default_rng(0)
    a = torch.from_numpy(rng.normal(size=(n, k)).astype(np.float32))
    b = torch.from_numpy(rng.normal(size=(k, m)).astype(np.float32))
    return seconds(lambda: a @ b)


def bench_topp(scale: float) -> list[Row]:
    from top_pr import compute_top_pr

    from benchmarks import numpy_baseline
    from egtmetrics import topp_precision_recall

    n, d = int(10_000 * scale), 32
    rng = np.random.default_rng(0)
    real = rng.normal(size=(n, d)).astype(np.float32)
    fake = (0.9 * rng.normal(size=(n, d)) + 0.1).astype(np.float32)

    def top_pr() -> Any:
        np.random.seed(0)  # noqa: NPY002  the peer draws from the global generator
        return compute_top_pr(real_features=real, fake_features=fake, kernel="cosine")

    start = time.perf_counter()
    expected = top_pr()
    reference_seconds = time.perf_counter() - start
    same = topp_precision_recall(real, fake, compatibility="top-pr", random_state=0)
    # The package computes in float32, so rounding may move a point that is close to a threshold to its other side.
    for score, value in ((same.precision, expected["fidelity"]), (same.recall, expected["diversity"])):
        assert abs(score - value) <= 2.0 / n, (score, value)

    indices = rng.integers(n, size=(10, n)), rng.integers(n, size=(10, n))
    own = topp_precision_recall(real, fake, bootstrap_indices=indices)
    baseline = numpy_baseline.topp_precision_recall(real, fake, *indices)
    np.testing.assert_allclose((own.precision, own.recall), baseline, atol=2.0 / n)

    ours = seconds(lambda: topp_precision_recall(real, fake, n_bootstrap=10, random_state=0))
    numpy_seconds = seconds(lambda: numpy_baseline.topp_precision_recall(real, fake, *indices), repeats=2)
    distances = gemm_seconds(n, n, d)
    rows = [
        row(
            f"TopP&R n = {n}, d = {d}, B = 10",
            ours,
            {"top-pr": reference_seconds, "vectorised NumPy": numpy_seconds},
            wanted={"top-pr": 60, "vectorised NumPy": 15},
            # Distances within a set twice for the bandwidths and twice for the bands, cross distances twice, and the
            # dense products with the replicates.
            ceiling=6 * distances + 2 * gemm_seconds(n, 10, n),
        )
    ]
    thousand = seconds(lambda: topp_precision_recall(real, fake, n_bootstrap=1000, random_state=0))
    rows.append(
        row(
            f"TopP&R n = {n}, d = {d}, B = 1000",
            thousand,
            {"B = 10 of the same": ours},
            wanted={"B = 10 of the same": 1 / 2},
            ceiling=6 * distances + 2 * gemm_seconds(n, 1000, n),
        )
    )
    return rows


PEAK = """
import sys
import numpy as np
from egtmetrics import topp_precision_recall
n, n_bootstrap = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
real = rng.normal(size=(n, 32)).astype(np.float32)
fake = rng.normal(size=(n, 32)).astype(np.float32)
topp_precision_recall(real, fake, n_bootstrap=n_bootstrap, random_state=0)
with open("/proc/self/status") as status:  # ru_maxrss would be inherited from the parent
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)
"""


def bench_memory(scale: float) -> list[Row]:
    n = int(50_000 * scale)
    rows: list[Row] = []
    for n_bootstrap in (10, 1000):
        command = [sys.executable, "-c", PEAK, str(n), str(n_bootstrap)]
        start = time.perf_counter()
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        taken = time.perf_counter() - start
        fewer = {"B = 10 of the same": rows[0]["seconds"]} if rows else {}
        entry = row(
            f"TopP&R n = {n}, d = 32, B = {n_bootstrap}",
            taken,
            fewer,
            wanted=dict.fromkeys(fewer, 1 / 1.5),
            ceiling=None,
        )
        rows.append({**entry, "peak_megabytes": peak, "wanted_peak_megabytes": 500})
    return rows


def bench_neighbors(scale: float) -> list[Row]:
    import faiss
    from sklearn.neighbors import NearestNeighbors

    from egtmetrics.ops import select_backend

    backend = select_backend("cpu")
    n, k = int(20_000 * scale), 5
    rows = []
    for d, wanted in ((64, 3.0), (768, 2.5)):
        x = np.random.default_rng(d).normal(size=(n, d)).astype(np.float32)
        index = faiss.IndexFlatL2(d)
        index.add(x)
        brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x)
        # faiss returns squared distances and finds the point itself first; scikit-learn does neither.
        radii = np.sqrt(backend.kth_neighbor(x, n_neighbors=k))
        np.testing.assert_allclose(np.sqrt(index.search(x, k + 1)[0][:, k]), radii, rtol=1e-4)
        np.testing.assert_allclose(brute.kneighbors()[0][:, k - 1], radii, rtol=1e-4)
        product = gemm_seconds(n, n, d)
        rows.append(
            row(
                f"k-th neighbour n = {n}, d = {d}, k = {k}",
                seconds(lambda x=x: backend.kth_neighbor(x, n_neighbors=k)),
                {
                    "faiss-cpu exact": seconds(lambda index=index, x=x: index.search(x, k + 1)),
                    "scikit-learn brute": seconds(lambda brute=brute: brute.kneighbors()),
                    "bare n x n x d product": product,
                },
                wanted={"faiss-cpu exact": wanted, "scikit-learn brute": wanted}
                | ({"bare n x n x d product": 1.3} if d == 768 else {}),
                ceiling=product,
            )
        )
    return rows


def without_torchvision() -> None:
    """Let torch-fidelity be imported, which imports torchvision for parts that are not used here."""
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        module = types.ModuleType(name)
        module.CIFAR10 = module.CIFAR100 = module.STL10 = object  # type: ignore[attr-defined]
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def torch_fidelity_prc() -> Callable[..., dict[str, Any]]:
    """Import the peer's PRC on features."""
    without_torchvision()
    from torch_fidelity.metric_prc import prc_features_to_metric

    return prc_features_to_metric  # type: ignore[no-any-return]


def bench_prdc(scale: float) -> list[Row]:
    import torch
    from prdc import compute_prdc

    from egtmetrics import improved_precision_recall, precision_recall_density_coverage

    prc = torch_fidelity_prc()
    n, d = int(10_000 * scale), 768
    rng = np.random.default_rng(0)
    real = rng.normal(size=(n, d)).astype(np.float32)
    fake = (0.98 * rng.normal(size=(n, d))).astype(np.float32)
    ours = precision_recall_density_coverage(real, fake, n_neighbors=5)
    expected = compute_prdc(real, fake, nearest_k=5)
    for name, value in ours.scores().items():
        np.testing.assert_allclose(value, expected[name], atol=3.0 / n, err_msg=name)
    tensors = torch.from_numpy(fake), torch.from_numpy(real)  # this package takes the generated set first
    options = {"prc_neighborhood": 3, "prc_batch_size": 10_000, "verbose": False, "save_cpu_ram": False}
    peer = prc(*tensors, **options)
    improved = improved_precision_recall(real, fake)
    np.testing.assert_allclose(improved.precision, float(peer["precision"]), atol=3.0 / n)
    np.testing.assert_allclose(improved.recall, float(peer["recall"]), atol=3.0 / n)
    product = gemm_seconds(n, n, d)
    return [
        row(
            f"precision, recall, density, coverage n = {n}, d = {d}, k = 5",
            seconds(lambda: precision_recall_density_coverage(real, fake, n_neighbors=5)),
            {"prdc": seconds(lambda: compute_prdc(real, fake, nearest_k=5), repeats=2)},
            wanted={"prdc": 8},
            ceiling=2 * product,  # half of the distances within each set, and the cross distances
        ),
        row(
            f"improved precision and recall n = {n}, d = {d}, k = 3",
            seconds(lambda: improved_precision_recall(real, fake)),
            {"torch-fidelity PRC": seconds(lambda: prc(*tensors, **options), repeats=2)},
            wanted={"torch-fidelity PRC": 3},
            ceiling=2 * product,
        ),
    ]


def bench_draws(scale: float) -> list[Row]:
    """Bootstrap counts of 20,000 rows, B = 1000."""
    from egtmetrics.ops import select_backend

    backend = select_backend("cpu")
    n, n_replicates, block = int(20_000 * scale), 1000, 25
    rng = np.random.default_rng(0)

    def ours() -> Any:
        return backend.bootstrap_counts(n_rows=n, n_replicates=n_replicates, seed=0)

    def in_numpy() -> Any:
        offsets = n * np.arange(block)[:, None]
        blocks = (rng.integers(n, size=(block, n)) + offsets for _ in range(n_replicates // block))
        return np.concatenate([np.bincount(one.ravel(), minlength=one.size).reshape(-1, n) for one in blocks]).T

    for counts in (ours(), in_numpy()):
        assert counts.shape == (n, n_replicates)
        assert (counts.sum(axis=0, dtype=np.int64) == n).all()
    return [
        row(
            f"bootstrap counts n = {n}, B = {n_replicates}",
            seconds(ours),
            {"NumPy": seconds(in_numpy)},
            wanted={},
            ceiling=seconds(lambda: np.ones((n, n_replicates), dtype=np.uint16)),  # to write the result
        )
    ]


def bench_divergences(scale: float) -> list[Row]:
    """1000 groups x 100 bins x 12 divergences x 200 bootstrap replicates, of 1000 samples a side."""
    from scipy import stats

    from benchmarks import numpy_baseline
    from egtmetrics.ops import Divergences, select_backend

    backend = select_backend("cpu")
    n_groups, n_bins, n_replicates, n = int(1000 * scale), 100, 200, 1000
    rng = np.random.default_rng(0)
    p, q = (rng.multinomial(n, rng.dirichlet(np.ones(n_bins), size=n_groups)) for _ in range(2))
    codes = np.arange(12, dtype=np.int32)
    divergences = Divergences(codes, np.where(codes == 10, 2.0, 0.5))

    def ours() -> Any:
        return backend.divergence_bootstrap(p, q, divergences, smoothing=0.5, n_replicates=n_replicates, seed=0)

    values, replicates = ours()
    vectorised, vectorised_replicates = numpy_baseline.divergence_bootstrap(p, q, 0.5, n_replicates, rng)
    np.testing.assert_allclose(values, vectorised, rtol=1e-9, atol=1e-12)
    # Different draws of the same law: the means over replicates and groups agree within their standard errors.
    for f in range(12):
        difference = replicates[:, f] - vectorised_replicates[:, f]
        assert abs(stats.ttest_1samp(difference.mean(axis=1), 0.0).statistic) < 5.0, f

    few = max(1, n_groups // 100)
    loop = seconds(lambda: numpy_baseline.divergence_loop(p[:few], q[:few], 0.5, n_replicates, rng))
    numpy_seconds = seconds(lambda: numpy_baseline.divergence_bootstrap(p, q, 0.5, n_replicates, rng), repeats=2)
    # The random bits that the draws need: about 2 for each sample and level of the tree, from NumPy's Philox.
    words = int(2 * n_groups * n_replicates * 2 * n * np.log2(n_bins) / 64)
    philox = np.random.Philox(0)
    return [
        row(
            f"f-divergences {n_groups} groups x {n_bins} bins x 12 x {n_replicates} replicates of {n} samples",
            seconds(ours),
            {
                f"loop of SciPy and NumPy calls (timed on {few} groups)": loop * n_groups / few,
                "vectorised NumPy": numpy_seconds,
            },
            wanted={f"loop of SciPy and NumPy calls (timed on {few} groups)": 50, "vectorised NumPy": 5},
            ceiling=seconds(lambda: philox.random_raw(words)),
        )
    ]


def bench_paper(scale: float) -> list[Row]:
    """Two groups of 20,000 real and 20,000 fake samples, 768 features projected to 32, ten projections, B = 1000."""
    from egtmetrics import GenerativeMetricFrame, topp_precision_recall

    per_group = int(20_000 * scale)
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b"], per_group)
    mixing = rng.normal(size=(64, 768)).astype(np.float32)

    def features(scale: float) -> Any:
        latent = rng.normal(size=(2 * per_group, 64)).astype(np.float32)
        latent[per_group:] *= scale
        return latent @ mixing

    real, fake = features(1.0), features(0.8)
    start = time.perf_counter()
    GenerativeMetricFrame(
        metrics={"topp": topp_precision_recall},
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
        progress=True,
    )
    ours = time.perf_counter() - start
    products = sum(
        2 * gemm_seconds(n // 10, 1000, n) * 10 + 6 * gemm_seconds(n // 10, n, 32) * 10
        for n in (per_group, per_group, 2 * per_group)
    )
    entry = row(
        f"the paper's evaluation: 2 groups of {per_group}, d = 768, 10 projections, B = 1000",
        ours,
        {},
        wanted={},
        ceiling=10 * products,
    )
    return [{**entry, "wanted_seconds": 900}]


def bench_intervals(scale: float) -> list[Row]:
    """What an interval costs besides the scores, against calling the metric on the same halves and quarters."""
    from egtmetrics import precision_recall_density_coverage, topp_precision_recall
    from egtmetrics.metrics.variance import score_covariance, variance_from_parts

    rng = np.random.default_rng(0)
    rows = []
    for name, metric, n, d, n_projections in (
        ("TopP&R", functools.partial(topp_precision_recall, random_state=0), int(2_000 * scale), 64, 10),
        ("precision, recall, density, coverage", precision_recall_density_coverage, int(10_000 * scale), 768, 1),
    ):
        real = rng.normal(size=(n, d)).astype(np.float32)
        fake = (0.9 * rng.normal(size=(n, d))).astype(np.float32)
        result = metric(real, fake)

        def own(metric: Any = metric, real: Any = real, fake: Any = fake, result: Any = result) -> Any:
            return score_covariance(metric, result, real, fake, rng=np.random.default_rng(1)).data

        def by_calls(n_quarterings: int, metric: Any = metric, real: Any = real, fake: Any = fake) -> Any:
            rng = np.random.default_rng(1)
            return variance_from_parts(metric, real, fake, rng, n_quarterings=n_quarterings).data

        few = 1 if name == "TopP&R" else 2
        called = seconds(lambda f=by_calls, k=few: f(k), repeats=1) * 33 / few
        rows.append(
            row(
                f"variance of {name} from 99 pairs of halves and 33 times four quarters, n = {n}, d = {d}",
                seconds(own, repeats=2),
                {
                    f"the metric on those 330 parts (timed on {10 * few})": called,
                    "one evaluation": seconds(lambda g=metric, x=real, y=fake: g(x, y), repeats=2),
                },
                wanted={"one evaluation": 1.0},
                ceiling=n_projections * 4 * gemm_seconds(n, n, min(d, 32 if n_projections > 1 else d) + 100),
            )
        )
    return rows


def bench_reference(scale: float) -> list[Row]:
    """A checkpoint against a prepared real side: TopP&R, PRDC and FID of two groups and of all samples."""
    from egtmetrics import GenerativeMetricFrame, Reference

    metrics = "topp,prdc,fid"
    rows = []
    for n, d, sizes in ((50_000, 768, {2_000: 10.0}), (10_000, 128, {400: 10.0, 2_000: None, 10_000: 1.7})):
        n = int(n * scale)
        rng = np.random.default_rng(0)
        mixing = rng.normal(size=(64, d)).astype(np.float32)
        real = rng.normal(size=(n, 64)).astype(np.float32) @ mixing
        groups = np.repeat(["a", "b"], n // 2)
        for m, wanted in sizes.items():
            m = int(m * scale)
            fake = (0.9 * rng.normal(size=(m, 64))).astype(np.float32) @ mixing
            given = {"metrics": metrics, "fake": fake, "random_state": 0}
            given["fake_sensitive_features"] = np.repeat(["a", "b"], m // 2)
            reference = Reference(real, sensitive_features=groups)
            calls = {
                "first call": lambda r=reference, g=given: GenerativeMetricFrame(real=r, **g),
                "later": lambda r=reference, g=given: GenerativeMetricFrame(real=r, **g),
                "without a reference": lambda x=real, y=groups, g=given: GenerativeMetricFrame(
                    real=x, real_sensitive_features=y, **g
                ),
            }
            frames, times = {}, {}
            for name, call in calls.items():
                start = time.perf_counter()
                frames[name] = call()
                times[name] = time.perf_counter() - start
            for name in ("first call", "later"):
                assert frames[name].by_group.equals(frames["without a reference"].by_group)
                assert frames[name].overall.equals(frames["without a reference"].overall)
            ours = min(times.pop("later"), seconds(calls["later"], repeats=2))
            what = f"{m} fake against a reference of {n} real, d = {d}: {metrics}"
            rows.append(
                row(
                    f"{what} ({reference.nbytes / 1e6:.0f} MB)",
                    ours,
                    times,
                    wanted={} if wanted is None else {"without a reference": wanted},
                    ceiling=None,
                )
            )
    return rows


def bench_peek(scale: float) -> list[Row]:
    """Processor time of 20 looks at a model that generates, in two groups: peeks, and whole evaluations."""
    from egtmetrics import GenerativeMetricFrame, GenerativeMetricStream, Reference

    n, b, d, n_batches = int(20_000 * scale), int(500 * scale), 128, 20
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(64, d)).astype(np.float32)
    real = rng.normal(size=(n, 64)).astype(np.float32) @ mixing
    fake = (0.95 * rng.normal(size=(n_batches * b, 64))).astype(np.float32) @ mixing
    labels, fake_labels = np.repeat(["a", "b"], n // 2), np.tile(["a", "b"], n_batches * b // 2)
    rows = []
    for metric in ("prdc", "fid"):
        options = {"metrics": metric, "random_state": 0}
        stream = GenerativeMetricStream(reference=Reference(real, sensitive_features=labels), **options)
        reference = Reference(real, sensitive_features=labels)

        def peek(stop: int, stream: Any = stream) -> Any:
            stream.update(fake[stop - b : stop], real=False, sensitive_features=fake_labels[stop - b : stop])
            return stream.peek()

        def evaluate(stop: int, real: Any, real_labels: Any = None, options: Any = options) -> Any:
            given = {"fake": fake[:stop], "fake_sensitive_features": fake_labels[:stop], **options}
            return GenerativeMetricFrame(real=real, real_sensitive_features=real_labels, **given)

        calls: dict[str, Callable[[int], Any]] = {
            "peek": peek,
            "with a reference": functools.partial(evaluate, real=reference),
            "without": functools.partial(evaluate, real=real, real_labels=labels),
        }
        frames, times = {}, {}
        for name, call in calls.items():
            start = time.process_time()
            for stop in range(b, n_batches * b + 1, b):
                frame = call(stop)
            times[name] = time.process_time() - start
            frames[name] = frame
        if metric == "prdc":  # FID is the same up to rounding
            assert frames["peek"].by_group.equals(frames["without"].by_group)
        what = f"{n_batches} looks at {b} more fake each, {n} real, d = {d}: {metric} (processor time)"
        rows.append(row(what, times.pop("peek"), times, wanted={}, ceiling=None))
    return rows


SECTIONS: dict[str, Callable[[float], list[Row]]] = {
    "topp": bench_topp,
    "memory": bench_memory,
    "neighbors": bench_neighbors,
    "prdc": bench_prdc,
    "draws": bench_draws,
    "divergences": bench_divergences,
    "intervals": bench_intervals,
    "paper": bench_paper,
    "reference": bench_reference,
    "peek": bench_peek,
}


def table(rows: list[Row]) -> str:
    lines = []
    for entry in rows:
        wanted = entry.get("wanted_seconds")
        parts = [entry["name"], f"{entry['seconds']:.3g} s" + (f" (wanted < {wanted} s)" if wanted else "")]
        ceiling = entry["ceiling_seconds"]
        parts.append(f"{ceiling:.3g} s ({ceiling / entry['seconds']:.0%})" if ceiling else "")
        peers = [
            f"{peer}: {p['ratio']:.3g}x" + (f" (wanted {p['wanted']:.3g}x)" if p["wanted"] else "")
            for peer, p in entry["peers"].items()
        ]
        if "peak_megabytes" in entry:
            peers.append(f"peak {entry['peak_megabytes']:.0f} MB (wanted < {entry['wanted_peak_megabytes']} MB)")
        lines.append([*parts, "; ".join(peers)])
    return tabulate(lines, headers=["what", "ours", "ceiling (share reached)", "against"], tablefmt="github")


MAKERS = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}
"""By the name that a processor gives of its vendor."""


def maker() -> str:
    """Return who made the processor, as a part of a file name."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    vendor = next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
    return MAKERS.get(vendor, "other")


def machine() -> dict[str, Any]:
    """Describe the machine in words, with the rate of a bare matrix product on it."""
    from egtmetrics.ops._native import native_module

    packages = {"egtmetrics", "numpy", "torch", "faiss-cpu", "scikit-learn", "prdc", "top-pr", "torch-fidelity"}
    found = sorted(packages & {str(found.name) for found in importlib.metadata.distributions()})
    n_cores, n = len(os.sched_getaffinity(0)), 4096
    return {
        "processor": f"{n_cores} cores of a shared {platform.machine()} server ({maker()}), no GPU",
        "product_gflops": round(2e-9 * n**3 / gemm_seconds(n, n, n), 1),
        "kernels": native_module().build_info(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in found},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the table and its JSON; default: only print the table")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections, of {', '.join(SECTIONS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the numbers of rows")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in tqdm(arguments.only.split(","), desc="benchmarks"):
        rows += [{"section": name, **entry} for entry in SECTIONS[name](arguments.scale)]
    print(table(rows))
    if arguments.out and gate.report(write(arguments.out, rows), arguments.out / "history"):
        sys.exit(1)


def commit() -> str:
    """Name what is measured; a tree with changes is no commit."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout.strip()


def write(folder: Path, rows: list[Row]) -> Path:
    """Write the rows in place of the earlier ones of the same sections; keep the run by itself, and return its file."""
    from egtmetrics._atomic import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    description = machine()
    kernels = description["kernels"]
    path = folder / f"cpu-{maker()}-{kernels['isa'].removesuffix('-vnni')}.json"
    kept = {
        "class": path.stem,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "machine": description,
        "command": "make bench",
        "rows": rows,
    }
    run = f"{kept['date'].replace('-', '').replace(':', '')}-{kept['commit']}.json"
    history = folder / "history" / path.stem
    history.mkdir(parents=True, exist_ok=True)
    write_whole(history / run, json.dumps(kept, indent=1) + "\n")
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {entry["section"] for entry in rows}
    rows = sorted(
        [*(r for r in before if r["section"] not in new), *rows], key=lambda r: [*SECTIONS].index(r["section"])
    )
    write_whole(path, json.dumps({"machine": description, "command": "make bench", "rows": rows}, indent=1) + "\n")
    note = (
        f"{description['processor']}; kernels {kernels['isa']}, {kernels['compiler']}. torch multiplies float32 "
        f"matrices at {description['product_gflops']:.0f} GFLOP/s. Written by `make bench`; the times in one row are "
        "from one run.\n"
    )
    write_whole(path.with_suffix(".md"), f"# Speed: {path.stem}\n\n{table(rows)}\n\n{note}")
    return history / run


if __name__ == "__main__":
    main()
