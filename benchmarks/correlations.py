"""Simulate how often the intervals of the paper's Table 3 miss the correlation.

    python -m benchmarks.correlations --out benchmarks/results     two minutes on one core
    python -m benchmarks.correlations --repeats 50                 print only

Each seed has four runs, as MGO and EGO of two methods. They share half of the variance of a disparity, but for one that
takes two values, half of the runs each.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate
from tqdm import tqdm

from egtmetrics._atomic import write_whole
from egtmetrics.paper.table3 import correlate_pair

N_SEEDS, CORRELATIONS = (5, 10, 20), (0.0, 0.5, 0.8)
LAWS = ("normal", "t with 3 degrees of freedom", "two values")
N_RUNS = 4
COMMAND = "python -m benchmarks.correlations --out benchmarks/results"


def draw(law: str, r: float, n_seeds: int, rng: np.random.Generator) -> pd.DataFrame:
    """Runs whose ``mgo`` and ``topp.delta_p`` have correlation r."""

    def values(size: tuple[int, ...]) -> Any:
        if law == "t with 3 degrees of freedom":
            return rng.standard_t(3, size=size) / np.sqrt(3.0)
        return rng.normal(size=size)

    one, other = ((values((n_seeds, 1)) + values((n_seeds, N_RUNS))) / np.sqrt(2.0) for _ in range(2))
    if law == "two values":
        one = np.tile([-1.0, 1.0], (n_seeds, N_RUNS // 2))
    seeds = np.repeat(np.arange(n_seeds), N_RUNS)
    runs = pd.DataFrame({"experiment": "simulated", "seed": seeds, "mgo": one.ravel()})
    runs["topp.delta_p"] = (r * one + np.sqrt(1.0 - r**2) * other).ravel()
    return runs


def misses(law: str, r: float, n_seeds: int, repeats: int) -> float:
    """The share of intervals without r."""
    missed = 0
    for repeat in range(repeats):
        runs = draw(law, r, n_seeds, np.random.default_rng([repeat, n_seeds]))
        found = correlate_pair(runs, "mgo", "topp.delta_p")
        missed += not found["low"] <= r <= found["high"]
    return missed / repeats


def table(rows: list[dict[str, Any]]) -> str:
    names = [f"r = {r}" for r in CORRELATIONS]
    shown = [
        [law, n, *(f"{one['missed']:.1%}" for one in rows if (one["law"], one["n_seeds"]) == (law, n))]
        for law, n in itertools.product(LAWS, N_SEEDS)
    ]
    return tabulate(shown, headers=["law", "seeds", *names], tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="folder for correlations.json and correlations.md")
    args = parser.parse_args()
    rows = [
        {"law": law, "r": r, "n_seeds": n, "missed": misses(law, r, n, args.repeats)}
        for law, n, r in tqdm(list(itertools.product(LAWS, N_SEEDS, CORRELATIONS)))
    ]
    text = (
        f"# Intervals of the paper's Table 3\n\nHow often a 95 % interval misses the correlation, of {args.repeats} "
        f"repeats (standard error {np.sqrt(0.05 * 0.95 / args.repeats):.1%} where it misses 5 %). Written by "
        f"`{COMMAND}`.\n\n{table(rows)}\n"
    )
    print(text)
    if args.out is not None:
        report = {"command": COMMAND, "repeats": args.repeats, "rows": rows}
        write_whole(args.out / "correlations.json", json.dumps(report, indent=1) + "\n")
        write_whole(args.out / "correlations.md", text)


if __name__ == "__main__":
    main()
