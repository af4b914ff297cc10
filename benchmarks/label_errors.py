"""Simulate what labels that err do to gaps, and how often the intervals of corrected ones hold.

    python -m benchmarks.label_errors --out benchmarks/results     twenty minutes on two cores
    python -m benchmarks.label_errors --repeats 4                  print only

Two groups of one law, apart. The oracle errs at random within a true group; its confusion is known from labelled
samples. Real and generated samples have the same proportions, and every group is cut to the size of the smallest
(``GroupedSamples.matched``). "One side": the real groups are true, the generated ones called. "Both": the oracle calls
both sides. "Corrected": ``frame.correct_labels``. The target of intervals is the mean gap with true labels.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import itertools
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.laws import Law, clusters, normal, off_support, spread, student
from egtmetrics import (
    GenerativeMetricFrame,
    GroupedSamples,
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
)
from egtmetrics._atomic import write_whole
from egtmetrics.confusion import Confusion

LAWS: dict[str, Law] = {"normal": normal(), "t with 3 degrees of freedom": student(), "clusters": clusters()}
METRICS: dict[str, Callable[..., Any]] = {
    "prdc": precision_recall_density_coverage,
    "kid": functools.partial(kernel_distance, n_subsets=1),  # which has all rows, since the sets are of equal size
    "fid": frechet_distance,
}
GROUPS = ["small", "large"]
SCORES = ["prdc_precision", "prdc_density", "kid"]
OTHERS = ["prdc_recall", "prdc_coverage", "fid"]
N = 2000


class Setting(NamedTuple):
    name: str
    share: float
    """Of the small group."""
    errors: tuple[float, float]
    """Of the two groups."""
    labelled: int
    """Samples of each group behind the confusion."""
    damage: float
    """Share of the small group's generated samples that are off the data."""
    factor: float = 1.0
    """How many times as often damaged samples are called wrongly; the confusion knows nothing of it."""


SETTINGS = [
    Setting("no gap", 0.16, (0.05, 0.05), 200, 0.0),
    Setting("gap", 0.16, (0.05, 0.05), 200, 0.2),
    Setting("gap, equal groups, 10 %", 0.5, (0.1, 0.1), 200, 0.2),
    Setting("gap, few labels", 0.3, (0.1, 0.02), 50, 0.2),
    Setting("gap, bad samples called wrongly 3 times as often", 0.3, (0.05, 0.05), 200, 0.2, 3.0),
]


def simulate(law: str, setting: Setting, repeat: int) -> dict[str, Any]:
    """The gaps (small less large) of one draw, with true labels, called ones and corrected, and their errors."""
    rng = np.random.default_rng([repeat, list(LAWS).index(law), SETTINGS.index(setting)])
    truth, sides = [], []
    for _ in range(2):
        is_small = np.arange(N) < round(N * setting.share)
        points = LAWS[law](rng, N, 1)[0] + 2.0 * spread(LAWS[law]) * ~is_small[:, None]
        truth.append(np.where(is_small, *GROUPS))
        sides.append(points)
    bad = np.zeros(N, dtype=bool)
    if setting.damage:
        n_small = round(N * setting.share)
        bad[: round(n_small * setting.damage)] = True
        sides[1][bad] = off_support(sides[1][bad], 1.0, rng, 6.0 * spread(LAWS[law]))

    def call(labels: NDArray[Any], factor: Any = 1.0) -> NDArray[Any]:
        error = np.where(labels == GROUPS[0], *setting.errors) * factor
        return np.where(rng.random(len(labels)) < error, np.where(labels == GROUPS[0], *GROUPS[::-1]), labels)

    real_called, fake_called = call(truth[0]), call(truth[1], np.where(bad, setting.factor, 1.0))
    known = np.repeat(GROUPS, setting.labelled)
    confusion = Confusion.of_labels(known, call(known), group_names=GROUPS)

    def evaluate(real_groups: NDArray[Any], fake_groups: NDArray[Any]) -> GenerativeMetricFrame:
        samples = GroupedSamples(
            real=sides[0], fake=sides[1], real_sensitive_features=real_groups, fake_sensitive_features=fake_groups
        ).matched(across_groups=True, random_state=rng)
        return GenerativeMetricFrame(metrics=METRICS, samples=samples, random_state=0, n_threads=1)

    def gaps(table: Any) -> dict[str, float]:
        found: dict[str, float] = (table.loc[GROUPS[0]] - table.loc[GROUPS[1]]).to_dict()
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_side = evaluate(truth[0], fake_called)
        corrected = one_side.correct_labels(confusion)
        found = {
            "true": gaps(evaluate(*truth).by_group),
            "one side": gaps(one_side.by_group),
            "both": gaps(evaluate(real_called, fake_called).by_group),
            "corrected": gaps(corrected.by_group),
        }
        inference = corrected._infer()
        errors = {
            column: inference.difference(column.split("_")[0], column.split("_")[-1], *GROUPS)[1] for column in SCORES
        }
    true_share = float(np.mean(truth[1] == GROUPS[0]))
    low, high = corrected.proportions.loc[GROUPS[0], ["low", "high"]].tolist()
    shared = float(np.mean(truth[1][fake_called == GROUPS[0]] != GROUPS[0]))
    lowest, highest = corrected.contamination.loc[GROUPS[0], ["low", "high"]].tolist()
    return {
        "gaps": found,
        "errors": errors,
        "contamination": shared,
        "contamination_held": bool(lowest <= shared <= highest),
        "proportion_held": bool(low <= true_share <= high),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean gaps, and for what can be corrected the bias in its own Monte Carlo errors and the coverage."""
    kinds = list(runs[0]["gaps"])
    gaps = {
        kind: {one: np.array([run["gaps"][kind][one] for run in runs]) for one in SCORES + OTHERS} for kind in kinds
    }
    found: dict[str, Any] = {
        "repeats": len(runs),
        "contamination": float(np.mean([run["contamination"] for run in runs])),
        "contamination_held": float(np.mean([run["contamination_held"] for run in runs])),
        "proportion_held": float(np.mean([run["proportion_held"] for run in runs])),
        "gaps": {kind: {one: float(values.mean()) for one, values in of.items()} for kind, of in gaps.items()},
    }
    for score in SCORES:
        corrected, target = gaps["corrected"][score], gaps["true"][score]
        errors = np.array([run["errors"][score] for run in runs])
        difference = corrected - target
        found[score] = {
            "bias": float(difference.mean()),
            "bias_error": float(difference.std(ddof=1) / np.sqrt(len(runs))),
            "sd": float(corrected.std(ddof=1)),
            "median_error": float(np.median(errors)),
            "coverage": float(np.mean(np.abs(corrected - target.mean()) <= 1.96 * errors)),
        }
    return found


def table(rows: list[dict[str, Any]]) -> str:
    def number(value: float) -> str:
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"

    corrected, others = [], []
    for row in rows:
        first = [row["law"], row["setting"]]
        for score in SCORES:
            own = row[score]
            gaps = [number(row["gaps"][kind][score]) for kind in ("true", "one side", "both", "corrected")]
            bias, scale = f"{own['bias'] / own['bias_error']:+.1f}", number(own["median_error"] / own["sd"])
            corrected.append([*first, score, *gaps, bias, scale, f"{own['coverage']:.1%}"])
        others += [
            [*first, score, *(number(row["gaps"][kind][score]) for kind in ("true", "one side", "both"))]
            for score in OTHERS
        ]
    shares = ("contamination", "contamination_held", "proportion_held")
    held = [[row["law"], row["setting"], *(f"{row[share]:.1%}" for share in shares)] for row in rows]
    names = ["law", "setting", "score", "true gap", "one side", "both", "corrected"]
    worst = min((row[score]["coverage"], row["law"], row["setting"], score) for row in rows for score in SCORES)
    parts = [
        f"Lowest coverage: {worst[0]:.1%} ({', '.join(worst[1:])}). With {rows[0]['repeats']} repeats, a coverage of "
        f"95 % is measured with a standard error of {np.sqrt(0.05 * 0.95 / rows[0]['repeats']):.1%}.",
        "Bias is in its own standard errors over the repeats; error / sd is the median stated standard error by the "
        "true one.",
        tabulate(corrected, [*names, "bias", "error / sd", "95 % holds"], tablefmt="github", disable_numparse=True),
        "What cannot be corrected:",
        tabulate(others, names[:-1], tablefmt="github", disable_numparse=True),
        "Share of the called small group that is not of it, and how often the 95 % intervals of this share and of the "
        "proportion of the true small group hold:",
        tabulate(held, ["law", "setting", "contamination", "held", "proportion held"], tablefmt="github"),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="folder for label_errors.json and label_errors.md")
    args = parser.parse_args()
    cases = list(itertools.product(LAWS, SETTINGS))
    rows = []
    with concurrent.futures.ProcessPoolExecutor(args.jobs) as pool:
        for law, setting in tqdm(cases):
            of_case = itertools.repeat(law), itertools.repeat(setting), range(args.repeats)
            runs = list(pool.map(simulate, *of_case, chunksize=4))
            rows.append({"law": law, "setting": setting.name, **summary(runs)})
            if args.out is not None:
                write_whole(args.out / "label_errors.json", json.dumps(rows, indent=1) + "\n")
                write_whole(args.out / "label_errors.md", f"# Scores corrected for labels that err\n\n{table(rows)}")
    print(table(rows))


if __name__ == "__main__":
    main()
