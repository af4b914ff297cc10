"""What do the metrics cost at n samples a side? Measured up to 100,000 (FID: a million), modelled above that.

    python -m benchmarks.scaling --out benchmarks/results                         everything
    python -m benchmarks.scaling --only PRDC --sizes 1000,3000,10000,1000000      try one case, print only

Time is counted in core seconds, because other work on a shared machine affects them less than wall time. Each
measurement runs in its own process, which gives its own peak memory. The model is fitted on all measured sizes except
the largest, and checked on the largest. A run that was stopped can resume: measurements are kept in ``--stages``.
Remove that folder after a change of the code, or on another machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from tabulate import tabulate
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from egtmetrics import (
    GenerativeMetricFrame,
    frechet_distance,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics._atomic import write_whole
from egtmetrics.ops._native import native_module

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
D, PROJECTED = 64, 32
SEED = 20261124
_SLICE_ROWS = 1000
_REPEAT_SECONDS = 2.0
_MOST_REPEATS = 5

Record = dict[str, Any]
Terms = dict[str, float]
"""The terms of a cost model, by name, at one size."""


def product_seconds(n: int, m: int, k: int) -> float:
    """Core seconds of torch's float32 product (n, k) x (k, m); if n is large, only some rows are computed."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows = min(n, _SLICE_ROWS)
    x, y = (torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) for shape in ((rows, k), (k, m)))
    return best_times(lambda: x @ y)["core_seconds"] * n / rows


def best_times(call: Callable[[], object]) -> dict[str, float]:
    """Smallest core seconds and wall seconds of several calls, or of one call if it takes long."""
    core: list[float] = []
    clock: list[float] = []
    while not clock or (len(clock) < _MOST_REPEATS and sum(clock) < _REPEAT_SECONDS):
        core_start, clock_start = time.process_time(), time.perf_counter()
        call()
        core.append(time.process_time() - core_start)
        clock.append(time.perf_counter() - clock_start)
    return {"core_seconds": min(core), "clock_seconds": min(clock), "repeats": len(clock)}


def topp_ceiling(n: int, n_bootstrap: int) -> float:
    # Distances within a set twice for the bandwidths and twice for the bands, cross distances twice, and the products
    # with the replicates.
    return 6 * product_seconds(n, n, PROJECTED) + 2 * product_seconds(n, n_bootstrap, n)


def topp_terms(n: int, n_bootstrap: int) -> Terms:
    return {"1": 1.0, "n": n, "n B": n * n_bootstrap, "n^2": n**2, "n^2 B": n**2 * n_bootstrap}


def frame_of_two_groups(real: NDArray[Any], fake: NDArray[Any]) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(
        metrics={"topp": functools.partial(topp_precision_recall, n_projections=1), "fid": frechet_distance},
        real=real,
        fake=fake,
        real_sensitive_features=np.arange(len(real)) % 2,
        fake_sensitive_features=np.arange(len(fake)) % 2,
        random_state=0,
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed, the terms of its cost, and a product of the same shape."""

    name: str
    model: str
    """Cases with the same model share their coefficients."""
    call: Callable[[NDArray[Any], NDArray[Any]], object]
    terms: Callable[[int], Terms]
    ceiling: Callable[[int], float]
    measured_to: int = 100_000
    """Larger sizes are modelled."""


def _topp_case(n_bootstrap: int) -> Case:
    return Case(
        f"TopP&R, B = {n_bootstrap}, one projection to {PROJECTED}",
        "TopP&R",
        functools.partial(topp_precision_recall, n_bootstrap=n_bootstrap, n_projections=1, random_state=0),
        functools.partial(topp_terms, n_bootstrap=n_bootstrap),
        functools.partial(topp_ceiling, n_bootstrap=n_bootstrap),
    )


CASES = (
    _topp_case(10),
    _topp_case(1000),
    Case(
        "PRDC, k = 5",
        "PRDC",
        functools.partial(precision_recall_density_coverage, n_neighbors=5),
        lambda n: {"1": 1.0, "n": n, "n^2": n**2},
        lambda n: 2 * product_seconds(n, n, D),  # half of the distances within each set, and the cross distances
    ),
    Case(
        "FID",
        "FID",
        frechet_distance,
        lambda n: {"1": 1.0, "n": n},
        lambda n: 2 * product_seconds(D, D, n),
        measured_to=1_000_000,
    ),
    Case(
        "frame of two groups: TopP&R as above, B = 1000, and FID",
        "frame",
        frame_of_two_groups,
        lambda n: {"1": 1.0, "n": n, "n^2": n**2},
        lambda n: topp_ceiling(n, 1000) + 2 * topp_ceiling(n // 2, 1000) + 4 * product_seconds(D, D, n),
    ),
)


def measure(name: str, n: int) -> Record:
    """Time one case, and read the peak memory of this process, including features and interpreter."""
    case = next(case for case in CASES if case.name == name)
    rng = np.random.default_rng(SEED)
    real = rng.standard_normal((n, D), dtype=np.float32)
    fake = 0.9 * rng.standard_normal((n, D), dtype=np.float32) + np.float32(0.1)
    case.call(real[:400], fake[:400])  # load everything that the first call loads
    with threadpool_limits(1):  # for NumPy's products only: its threads spin while they wait, and that would count
        times = best_times(lambda: case.call(real, fake))
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    return {**times, "peak_megabytes": peak, "ceiling_core_seconds": case.ceiling(n)}


def fit(terms: Sequence[Terms], values: Sequence[float]) -> dict[str, float]:
    """Return the coefficients >= 0 of a sum of terms that minimise the sum of squared relative errors.

    The errors are relative because seconds span four decades and the question is by how many per cent the model is off.

    >>> coefficients = fit([{"1": 1.0, "n": 10.0}, {"1": 1.0, "n": 1000.0}], [25.0, 2005.0])
    >>> {term: round(value, 9) for term, value in coefficients.items()}
    {'1': 5.0, 'n': 2.0}
    """
    names = list(terms[0])
    shares = np.array([[row[name] for name in names] for row in terms]) / np.array(values)[:, None]
    scales = shares.max(axis=0)
    solution, _ = nnls(shares / scales, np.ones(len(values)))
    return dict(zip(names, (solution / scales).tolist(), strict=True))


def predict(coefficients: Mapping[str, float], terms: Terms) -> float:
    return sum(coefficient * terms[name] for name, coefficient in coefficients.items())


def memory_terms(terms: Terms) -> Terms:
    """Return the terms of the memory model: no metric holds an n x n matrix."""
    return {name: value for name, value in terms.items() if "n^2" not in name}


def report(measured: Mapping[str, Mapping[int, Record]], sizes: Sequence[int]) -> Record:
    """Return the measured and modelled rows, and the models. Cases measured at fewer than three sizes have no model."""
    points: dict[str, list[tuple[Terms, Record]]] = {}
    for case in CASES:
        of_case = sorted(measured.get(case.name, {}).items())
        if len(of_case) > 2:
            points.setdefault(case.model, []).extend((case.terms(n), record) for n, record in of_case[:-1])
    models = {
        name: {
            "core_seconds": fit([terms for terms, _ in fitted], [record["core_seconds"] for _, record in fitted]),
            "peak_megabytes": fit(
                [memory_terms(terms) for terms, _ in fitted], [record["peak_megabytes"] for _, record in fitted]
            ),
        }
        for name, fitted in points.items()
    }
    rows: list[Record] = []
    for case in CASES:
        records = dict(measured.get(case.name, {}))
        model = models.get(case.model) if len(records) > 2 else None
        for n in sorted({*records, *(size for size in sizes if model and size > case.measured_to)}):
            row: Record = {"case": case.name, "n": n, "label": "measured" if n in records else "modelled"}
            if model:
                row["model"] = {
                    "core_seconds": predict(model["core_seconds"], case.terms(n)),
                    "peak_megabytes": predict(model["peak_megabytes"], memory_terms(case.terms(n))),
                }
            if n in records:
                row |= records[n]
                row["role"] = "check" if n == max(records) else "fitted"
                if model:
                    row["relative_error"] = {key: value / row[key] - 1.0 for key, value in row["model"].items()}
            rows.append(row)
    return {"rows": rows, "models": models}


def formula(coefficients: Mapping[str, float]) -> str:
    parts = [f"{value:.3g}" + ("" if name == "1" else f" {name}") for name, value in coefficients.items() if value > 0]
    return " + ".join(parts).replace("^2", "²")


def duration(value: float) -> str:
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def markdown(content: Record, note: str) -> str:
    lines = []
    for row in content["rows"]:
        best = row if row["label"] == "measured" else row["model"]
        ceiling = row.get("ceiling_core_seconds")
        errors = row.get("relative_error", {})
        lines.append(
            [
                row["case"],
                f"{row['n']:,}",
                row["label"],
                duration(best["core_seconds"]),
                duration(row["clock_seconds"]) if "clock_seconds" in row else "",
                f"{duration(ceiling)} ({ceiling / best['core_seconds']:.0%})" if ceiling else "",
                f"{best['peak_megabytes']:,.0f} MB",
                f"{errors['core_seconds']:+.0%}, {errors['peak_megabytes']:+.0%}" if errors else "",
                row.get("role", ""),
            ]
        )
    headers = [
        "what",
        "n a side",
        "label",
        "core time",
        "wall time",
        "ceiling (share reached)",
        "peak memory",
        "model's error: core time, memory",
        "use in the model",
    ]
    models = [
        f"- {name}: core seconds = {formula(model['core_seconds'])}; megabytes = {formula(model['peak_megabytes'])}"
        for name, model in content["models"].items()
    ]
    parts = [
        "# Cost at n samples a side",
        f"Gaussian float32 features, d = {D}. Core time is summed over the cores; wall time also depends on other work "
        "on the machine. The ceiling is a float32 matrix product of the same shape on one core, timed on some of its "
        "rows; more than 100 % means faster than that. Peak memory is that of the process, including interpreter and "
        "features. **Modelled rows were not run.**",
        tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 8)),
    ]
    if models:
        parts += [
            "Models for this machine and these d, k and projections. They minimise squared relative errors over the "
            'rows marked "fitted", without negative coefficients, and are checked at the largest size:',
            "\n".join(models),
        ]
    return "\n\n".join([*parts, note]) + "\n"


def machine() -> Record:
    n_cores = len(os.sched_getaffinity(0))
    return {
        "processor": f"{n_cores} core{'s' * (n_cores > 1)} of a shared {platform.machine()} server, no GPU",
        "kernels": native_module().build_info(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("egtmetrics", "numpy", "torch")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for scaling.json and .md; default: only print")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="samples a side (default: %(default)s)")
    parser.add_argument("--only", default="", help="only cases whose name starts with this")
    parser.add_argument(
        "--stages", type=Path, default=Path("build/scaling"), help="for finished measurements (default: %(default)s)"
    )
    arguments = parser.parse_args()
    sizes = sorted(int(size) for size in arguments.sizes.split(","))
    cases = [case for case in CASES if case.name.startswith(arguments.only)]
    jobs = [(n, case.name) for n in sizes for case in cases if n <= case.measured_to]
    arguments.stages.mkdir(parents=True, exist_ok=True)
    stage = arguments.stages / "measurements.json"
    done: dict[str, dict[str, Record]] = json.loads(stage.read_text()) if stage.exists() else {}
    for n, name in tqdm(jobs, desc="measurements"):
        if str(n) in done.setdefault(name, {}):
            continue
        # A process for each: the memory of torch, which times the ceiling, must not count for the next measurement.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            done[name][str(n)] = process.submit(measure, name, n).result()
        write_whole(stage, json.dumps(done, indent=1) + "\n")
    measured = {case.name: {n: done[case.name][str(n)] for n, name in jobs if name == case.name} for case in cases}
    content = report(measured, sizes)
    description = machine()
    kernels = description["kernels"]
    note = (
        f"{description['processor']}; kernels {kernels['isa']}, {kernels['compiler']}. Written by `python -m "
        "benchmarks.scaling`."
    )
    text = markdown(content, note)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        settings = {"d": D, "seed": SEED, "sizes": sizes}
        written = {"machine": description, "settings": settings, **content}
        write_whole(arguments.out / "scaling.json", json.dumps(written, indent=1) + "\n")
        write_whole(arguments.out / "scaling.md", text)


if __name__ == "__main__":
    main()
