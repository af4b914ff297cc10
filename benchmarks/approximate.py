"""Time approximate precision, recall, density and coverage against the exact ones; compare errors with their bounds.

    python -m benchmarks.approximate --out benchmarks/results    about five minutes on two cores
    python -m benchmarks.approximate --scale 0.1                 a tenth of the rows, to try the script itself

Both run in one process on the same features, 64 columns of float32, and are timed once. Seconds depend on the machine;
read the ratio. How often the bounds hold is counted on one smaller pair, over draws of the checked rows.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.run import machine
from egtmetrics._atomic import write_whole
from egtmetrics.metrics import approximate_precision_recall_density_coverage, precision_recall_density_coverage

Row = dict[str, Any]
Floats = NDArray[np.float32]

SEED = 20261124
LEVEL = 0.95
DIMENSION = 64
CASES = (
    ("clusters", 100_000, (4, 16)),
    ("manifold", 100_000, (4, 16, 64)),
    ("normal", 100_000, (4, 16)),
    ("manifold", 300_000, (16,)),
)
"""The data, the rows of each set, and the numbers of probes to try."""
N_REPEATS = 100


def clusters(n: int, rng: np.random.Generator) -> Floats:
    """A hundred normal clusters, farther apart than they are wide."""
    centers = 3.0 * np.random.default_rng(1).normal(size=(100, DIMENSION))
    return (centers[rng.integers(100, size=n)] + rng.normal(size=(n, DIMENSION))).astype(np.float32)


def manifold(n: int, rng: np.random.Generator) -> Floats:
    """Ten dimensions bent into 64, with a little noise in all of them, similar to the output of an encoder."""
    mixing = np.random.default_rng(2).normal(size=(10, DIMENSION))
    bent = np.tanh(rng.normal(size=(n, 10)) @ mixing)
    return (bent + 0.05 * rng.normal(size=(n, DIMENSION))).astype(np.float32)


def normal(n: int, rng: np.random.Generator) -> Floats:
    """No structure at all: the worst case of every index."""
    return rng.normal(size=(n, DIMENSION)).astype(np.float32)


DATA: dict[str, Callable[[int, np.random.Generator], Floats]] = {
    "clusters": clusters,
    "manifold": manifold,
    "normal": normal,
}


def pair(data: str, n: int) -> tuple[Floats, Floats]:
    """Real features, and fake ones of the same law, narrower by 3 %."""
    rng = np.random.default_rng(SEED)
    real, fake = DATA[data](n, rng), DATA[data](n, rng)
    return real, np.float32(0.97) * fake


def time_case(data: str, n: int, probes: tuple[int, ...]) -> list[Row]:
    real, fake = pair(data, n)
    start = time.perf_counter()
    exact = precision_recall_density_coverage(real, fake).scores()
    exact_seconds = time.perf_counter() - start
    rows = []
    for n_probes in probes:
        start = time.perf_counter()
        result = approximate_precision_recall_density_coverage(
            real, fake, n_cells=round(4 * n**0.5), n_probes=n_probes, level=LEVEL, random_state=SEED
        )
        seconds = time.perf_counter() - start
        found = result.scores()
        rows.append(
            {
                "data": data,
                "n": n,
                "exact_seconds": exact_seconds,
                "seconds": seconds,
                "exact": exact,
                "differences": {name: found[name] - exact[name] for name in exact},
                "result": result.to_dict(),
            }
        )
    return rows


def count_misses(data: str, n: int) -> Row:
    """Count how often an exact score is outside the bound, over draws of the checked rows and of the cells."""
    real, fake = pair(data, n)
    exact = precision_recall_density_coverage(real, fake).scores()
    results = [
        approximate_precision_recall_density_coverage(
            real, fake, n_cells=round(4 * n**0.5), n_probes=2, n_checked=200, level=LEVEL, random_state=seed
        )
        for seed in tqdm(range(N_REPEATS), desc=f"draws, {data}")
    ]
    scores = {}
    for name, value in exact.items():
        differences = np.array([result.scores()[name] - value for result in results])
        bounds = np.array([result.errors()[name] for result in results])
        scores[name] = {
            "held": float(np.mean(np.abs(differences) <= bounds)),
            "root_mean_square_error": float(np.sqrt(np.mean(differences**2))),
            "mean_bound": float(bounds.mean()),
        }
    return {"data": data, "n": n, "n_probes": 2, "n_checked": 200, "n_repeats": N_REPEATS, "scores": scores}


def without_index(row: Row, name: str) -> str:
    """Half the width of a normal interval from the exact memberships of the checked rows alone, without an index."""
    share = row["exact"][name]
    if name == "density":
        return "-"
    n_checked = row["result"]["n_fake_checked" if name == "precision" else "n_real_checked"]
    return f"{stats.norm.isf((1.0 - LEVEL) / 2.0) * (share * (1.0 - share) / n_checked) ** 0.5:.4f}"


def tables(timed: list[Row], counted: list[Row]) -> str:
    lines = []
    for row in timed:
        result = row["result"]
        errors = [
            f"{row['exact'][name]:.4f} {difference:+.4f} ({result[f'{name}_error']:.4f}; {without_index(row, name)})"
            for name, difference in row["differences"].items()
        ]
        times = f"{row['exact_seconds']:.1f} s / {row['seconds']:.1f} s = {row['exact_seconds'] / row['seconds']:.2g}x"
        index = f"{result['real_index']}, {result['n_probes']} probes"
        lines.append([f"{row['data']}, n = m = {row['n']}", index, times, f"{result['exact_radii']:.0%}", *errors])
    names = list(timed[0]["exact"])
    headers = ["data", "index", "exact / approximate", "exact radii", *names]
    held = [
        [f"{row['data']}, n = m = {row['n']}"]
        + [
            f"{s['held']:.0%} (error {s['root_mean_square_error']:.4f}, bound {s['mean_bound']:.4f})"
            for s in row["scores"].values()
        ]
        for row in counted
    ]
    return (
        "Times (one run each), and for each score: the exact score, the difference of the approximate one, and in "
        f"brackets the bound that it states ({LEVEL:.0%}, 1000 checked rows a side) and, for shares, the bound from "
        "the checked rows alone, without an index. If the second bound is smaller, the index was of no use.\n\n"
        f"{tabulate(lines, headers=headers, tablefmt='github')}\n\n"
        f"How often the bound held over {N_REPEATS} draws (2 probes, 200 checked rows; level {LEVEL:.0%}), the root "
        "mean square error and the mean bound.\n\n"
        f"{tabulate(held, headers=['data', *names], tablefmt='github')}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for approximate.json and .md; default: only print")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the numbers of rows")
    arguments = parser.parse_args()
    timed: list[Row] = []
    for data, n, probes in tqdm(CASES, desc="times"):
        timed += time_case(data, int(n * arguments.scale), probes)
    counted = [count_misses(data, int(5000 * arguments.scale)) for data in DATA]
    text = tables(timed, counted)
    print(text)
    if arguments.out:
        description = machine()
        command = "python -m benchmarks.approximate --out benchmarks/results"
        report = {"machine": description, "command": command, "times": timed, "bounds": counted}
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.out / "approximate.json", json.dumps(report, indent=1) + "\n")
        kernels = description["kernels"]
        note = f"{description['processor']}; kernels {kernels['isa']}, {kernels['compiler']}. Written by `{command}`.\n"
        write_whole(arguments.out / "approximate.md", f"# Approximate PRDC: times and errors\n\n{text}\n{note}")


if __name__ == "__main__":
    main()
