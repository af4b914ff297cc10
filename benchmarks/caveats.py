"""Simulate what TopP&R scores under both rules for k, and how often its caveats are right.

    python -m benchmarks.caveats --out benchmarks/results     two minutes
    python -m benchmarks.caveats --repeats 1                  print only

Two samples of one law should score near 1, and two samples 6 standard deviations apart near 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from egtmetrics import topp_precision_recall
from egtmetrics._atomic import write_whole
from egtmetrics.results import UnreliableScoreWarning

RULES = ("paper", "sample-size")
LAWS = ("normal", "t with 3 degrees of freedom", "clusters", "lattice")
DIMENSIONS, SIZES = (1, 2, 4, 8, 16, 32), (100, 300, 1000, 3000)
SHIFT = 6.0
TOO_LOW, TOO_HIGH = 0.6, 0.4


def sample(law: str, n: int, d: int, rng: np.random.Generator) -> NDArray[np.float64]:
    if law == "normal":
        return rng.normal(size=(n, d))
    if law == "clusters":
        return rng.normal(size=(n, d)) + 8.0 * (rng.random((n, 1)) < 0.2)
    if law == "lattice":
        return rng.integers(0, 4, size=(n, d)).astype(float)
    return rng.standard_t(3, size=(n, d))


def simulate(rule: str, law: str, d: int, n: int, repeats: int) -> dict[str, Any]:
    """The lower score of one law and the higher one of two, and the share of results with a caveat, over repeats."""
    same, different = [], []
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, n, d])
        real, equal, apart = (sample(law, n, d, rng) for _ in range(3))
        for fake, found, choose in ((equal, same, min), (apart + SHIFT / np.sqrt(d), different, max)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnreliableScoreWarning)
                warnings.simplefilter("ignore", RuntimeWarning)  # 0/0, which counts as 0 here
                result = topp_precision_recall(real, fake, k_rule=rule, n_bootstrap=100, random_state=0)
            scores = choose(np.nan_to_num(result.precision), np.nan_to_num(result.recall))
            found.append((scores, bool(result.caveats)))
    setting = {"k_rule": rule, "law": law, "d": d, "n": n}
    for name, found in (("same", same), ("different", different)):
        scores, doubts = np.mean(found, axis=0).tolist()
        setting |= {name: scores, f"{name}_caveat": doubts > 0.5}
    return setting


def table(rows: list[dict[str, Any]]) -> str:
    by_dimension = [
        [d, *(_range(rows, kind, rule, d) for kind in ("same", "different") for rule in RULES)] for d in DIMENSIONS
    ]
    counts = []
    for name, chosen, caveat in (
        (f"one law scores below {TOO_LOW}", lambda row: row["same"] < TOO_LOW, "same_caveat"),
        (f"laws apart score above {TOO_HIGH}", lambda row: row["different"] > TOO_HIGH, "different_caveat"),
        ("both right", lambda row: row["same"] >= TOO_LOW and row["different"] <= TOO_HIGH, "same_caveat"),
    ):
        by_rule = [[row for row in rows if row["k_rule"] == rule and chosen(row)] for rule in RULES]
        counts.append([name, *(f"{len(found)}, {sum(row[caveat] for row in found)}" for found in by_rule)])
    headers = ["d", *(f"{kind}, {rule}" for kind in ("same", "different") for rule in RULES)]
    scores = tabulate(by_dimension, headers, tablefmt="github", disable_numparse=True)
    settings = tabulate(counts, ["settings, and of these with a caveat", *RULES], tablefmt="github")
    missed = [
        f"{row['law']}, d = {row['d']}, n = {row['n']}, {row['k_rule']}: {row['same']:.2f}"
        for row in rows
        if row["same"] < TOO_LOW and not row["same_caveat"]
    ]
    return "\n\n".join([scores, settings, "Missed:", *(f"- {one}" for one in missed)]) + "\n"


def _range(rows: list[dict[str, Any]], kind: str, rule: str, d: int) -> str:
    found = [row[kind] for row in rows if row["k_rule"] == rule and row["d"] == d]
    return f"{min(found):.2f} to {max(found):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for caveats.json and caveats.md")
    args = parser.parse_args()
    settings = [one for one in itertools.product(RULES, LAWS, DIMENSIONS, SIZES) if 5 * one[2] < one[3]]
    rows = [simulate(*setting, args.repeats) for setting in tqdm(settings)]
    print(table(rows))
    if args.out is not None:
        write_whole(args.out / "caveats.json", json.dumps({"repeats": args.repeats, "settings": rows}, indent=1) + "\n")
        write_whole(args.out / "caveats.md", f"# Precision of TopP&R where it says little\n\n{table(rows)}")


if __name__ == "__main__":
    main()
