"""Simulate how often intervals cover and tests reject where samples come in clusters, heeded and ignored.

    python -m benchmarks.clusters --out benchmarks/results               an hour on one core
    python -m benchmarks.clusters --repeats 10 --only nested             try some designs, print only
    python -m benchmarks.clusters --repeats 0 --out benchmarks/results   the page of the repeats that are finished

A generated sample of 8 features is sqrt(rho) times what its cluster (its prompt) has in common plus sqrt(1 - rho) times
its own part, both standard normal: rho is the correlation within a cluster. So both groups have the law of the real
samples, moved by half a standard deviation, and every difference is 0. Repeat i of a case depends only on i and the
case. Finished repeats are kept in ``--stages``; remove that folder after a change of the statistics.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.calibration import LEVEL, SIZE, TOLERANCE, Figure
from benchmarks.stages import Record, Stage, run
from egtmetrics import (
    GenerativeMetricFrame,
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics._atomic import write_whole
from egtmetrics.groups import compare_models, permutation_test
from egtmetrics.metrics import clipped_density_coverage
from egtmetrics.results import UnreliableScoreWarning

SEED = 20261207
"""The seed of everything that is reported; nothing was tuned on it."""
RHOS = (0.0, 0.1, 0.3, 0.5)
D, SHIFT = 8, 0.5
KINDS = ("clusters", "rows")
"""Whether the clusters are passed, or ignored as if all rows were independent."""
METRICS: dict[str, Callable[..., Any]] = {
    "fid": frechet_distance,
    "kid": functools.partial(kernel_distance, subset_size=100, n_subsets=10),
    "prdc": precision_recall_density_coverage,
    "clipped": clipped_density_coverage,
    "topp": topp_precision_recall,
}
PAIRED: dict[str, Callable[..., Any]] = {"fid": frechet_distance, "prdc": precision_recall_density_coverage}
N_PERMUTATIONS = 39

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Design:
    """Two groups of as many generated as real samples."""

    name: str
    n_clusters: int
    size: int
    spanning: bool = False
    """Whether each cluster has as many samples of either group; else each is in one group."""
    real: bool = False
    """Whether the real samples come in such clusters, too."""
    share: float = 1.0
    """Of the repeats."""

    @property
    def n(self) -> int:
        """Samples of both groups on each side."""
        return self.n_clusters * self.size


DESIGNS = (
    Design("nested: 50 clusters of 8 in each group", 100, 8),
    Design("spanning: 100 clusters of 4 + 4", 100, 8, spanning=True),
    Design("both sides: 50 clusters of 8 in each group", 100, 8, real=True, share=0.5),
    Design("few: 20 clusters of 16 in each group", 40, 16, share=0.5),
)


def clustered(rng: np.random.Generator, n_clusters: int, size: int, rho: float) -> Array:
    common = rng.normal(size=(n_clusters, 1, D)).repeat(size, axis=1).reshape(-1, D)
    return np.sqrt(rho) * common + np.sqrt(1.0 - rho) * rng.normal(size=(n_clusters * size, D))


def generator(*key: Any) -> np.random.Generator:
    *names, i = key
    return np.random.default_rng([SEED, zlib.crc32(" ".join(map(str, names)).encode()), i])


def measure(design: Design, rho: float, i: int) -> Record:
    """By kind: intervals of the scores of groups and of their difference, and p-values of all disparities."""
    rng = generator(design.name, rho, i)
    ids = np.arange(design.n) // design.size
    labels = np.where(np.arange(design.n) % 2 == 0, "a", "b") if design.spanning else np.where(ids % 2, "b", "a")
    data = {
        "real": clustered(rng, design.n_clusters, design.size, rho if design.real else 0.0),
        "fake": clustered(rng, design.n_clusters, design.size, rho) + SHIFT,
        "real_sensitive_features": labels,
        "fake_sensitive_features": labels,
    }
    clusters = {
        "fake_clusters": [f"prompt {one}" for one in ids],
        "real_clusters": [f"person {one}" for one in ids] if design.real else None,
    }
    seed = int(rng.integers(2**32))
    record: Record = {}
    for kind in KINDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreliableScoreWarning)
            frame = GenerativeMetricFrame(
                metrics=METRICS, random_state=seed, n_threads=1, **data, **(clusters if kind == "clusters" else {})
            )
            by_group = frame.interval(LEVEL).by_group
            tests = frame.test().drop(index="proportions")
        record[kind] = {
            "scores": {
                column: by_group.loc[column][["value", "low", "high"]].to_numpy().tolist() for column in frame.by_group
            },
            "differences": {column: frame.difference_interval(column, "a", "b") for column in frame.by_group},
            "p_values": {f"{metric} {name}": float(p) for (metric, name), p in tests["p_value"].items()},
        }
    return record


def measure_models(rho: float, i: int) -> Record:
    """Two models with the same 50 prompts, 8 images each: by metric and kind, the interval and the p-value."""
    rng = generator("models", rho, i)
    ids = np.arange(400) // 8
    real, common = rng.normal(size=(400, D)), rng.normal(size=(50, 1, D)).repeat(8, axis=1).reshape(-1, D)
    fakes = [SHIFT + np.sqrt(rho) * common + np.sqrt(1.0 - rho) * rng.normal(size=(400, D)) for _ in range(2)]
    pairs = {"paired": (ids, ids), "clusters": (ids, ids + 50), "rows": (None, None)}
    record: Record = {}
    for metric, function in PAIRED.items():
        for kind, (mine, theirs) in pairs.items():
            found = compare_models(
                real,
                *fakes,
                metric=functools.partial(function, n_threads=1) if metric == "prdc" else function,
                score="precision" if metric == "prdc" else None,
                fake_clusters=mine,
                other_fake_clusters=theirs,
                random_state=i,
            )
            record[f"{metric} {kind}"] = [found.difference, found.standard_error, found.p_value]
    return record


def measure_permutations(rho: float, i: int) -> Record:
    """Permutation tests of the gap in FID between groups of 20 clusters of 8 each, heeded and ignored."""
    rng = generator("permutations", rho, i)
    ids = np.arange(320) // 8
    labels = np.where(ids % 2, "b", "a")
    real, fake = rng.normal(size=(320, D)), clustered(rng, 40, 8, rho)
    return {
        kind: permutation_test(
            real,
            fake,
            metric="fid",
            real_sensitive_features=labels,
            fake_sensitive_features=labels,
            fake_clusters=ids if kind == "clusters" else None,
            n_permutations=N_PERMUTATIONS,
            random_state=i,
        ).p_value
        for kind in KINDS
    }


def figures_of(design: Design, rho: float, records: Sequence[Record]) -> list[Record]:
    """What was promised and found, by kind of error and kind of analysis."""
    rows = []
    case = f"{design.name}, rho = {rho:g}"
    for kind in KINDS:
        found = [record[kind] for record in records]
        for score in found[0]["differences"]:
            low, high = np.array([one["differences"][score] for one in found]).T
            rows.append(_row(case, kind, "intervals of differences", score, (low <= 0.0) & (high >= 0.0)))
            by_group = np.array([one["scores"][score] for one in found])
            inside = (by_group[..., 1] <= by_group[..., 0].mean()) & (by_group[..., 0].mean() <= by_group[..., 2])
            rows.append(_row(case, kind, "intervals of scores", score, inside))
        for test in found[0]["p_values"]:
            rejected = np.array([one["p_values"][test] <= SIZE for one in found])
            rows.append(_row(case, kind, "tests of scores", test, rejected))
    return rows


def figures_of_models(rho: float, records: Sequence[Record]) -> list[Record]:
    rows = []
    for name in records[0]:
        metric, kind = name.split()
        difference, error, p_value = np.array([record[name] for record in records]).T
        row = _row(f"two models, rho = {rho:g}", kind, "tests of two models", metric, p_value <= SIZE)
        rows.append({**row, "error": float(np.sqrt((error**2).mean())), "deviation": float(np.std(difference))})
    return rows


def figures_of_permutations(rho: float, records: Sequence[Record]) -> list[Record]:
    return [
        _row(
            f"permutations of 20 clusters of 8 in each group, rho = {rho:g}",
            kind,
            "permutation tests",
            "fid",
            np.array([record[kind] <= SIZE for record in records]),
        )
        for kind in KINDS
    ]


def _row(case: str, kind: str, promise: str, name: str, found: Array) -> Record:
    return {
        "case": case,
        "kind": kind,
        "promise": promise,
        "name": name,
        "share": float(found.mean()),
        "n": int(found.size),
        "repeats": len(found),
    }


def figure(row: Record) -> Figure:
    return Figure(row["case"], row["promise"], row["name"], row["share"], row["n"])


def shortfalls(rows: Sequence[Record]) -> str:
    """A list with one point for each case, the worst first."""
    by_case: dict[str, list[Figure]] = {}
    for one in map(figure, rows):
        if one.short:
            by_case.setdefault(one.case, []).append(one)
    points = []
    for case in sorted(by_case, key=lambda case: -max(abs(one.share - one.promised) for one in by_case[case])):
        parts = []
        for promise in dict.fromkeys(one.kind for one in by_case[case]):
            verb = "held" if promise.startswith("intervals") else "rejected"
            named = [
                f"`{one.name}` {100 * one.share:.0f} ± {100 * one.error:.0f} %"
                for one in by_case[case]
                if one.kind == promise
            ]
            parts.append(f"{promise} {verb} {', '.join(named)}")
        points.append(f"- **{case}**: {'; '.join(parts)}.")
    n_short = sum(map(len, by_case.values()))
    return "\n".join(points) + (
        f"\n\nThese are {n_short} of {len(rows)} figures that were judged. If all promises were kept exactly, about "
        f"{sum(figure(row).by_chance for row in rows):.0f} would stand here by chance."
    )


def summary(rows: Sequence[Record]) -> str:
    """The mean and the worst figure over all scores or tests of a case, heeding clusters and ignoring them."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        for promise in dict.fromkeys(row["promise"] for row in rows if row["case"] == case):
            worst = min if promise.startswith("intervals") else max
            cells = []
            for kind in KINDS:
                shares = [
                    100 * row["share"]
                    for row in rows
                    if (row["case"], row["promise"], row["kind"]) == (case, promise, kind)
                ]
                cells.append(f"{np.mean(shares):.0f} / {worst(shares):.0f}" if shares else "")
            repeats = next(row["repeats"] for row in rows if row["case"] == case)
            lines.append([case, promise, repeats, *cells])
    headers = ["samples", "promise", "repeats", "clusters passed", "ignored"]
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def by_name(rows: Sequence[Record], promise: str) -> str:
    """Cases by scores, heeding clusters / ignoring them."""
    chosen = [row for row in rows if row["promise"] == promise]
    names = list(dict.fromkeys(row["name"] for row in chosen))
    share = {(row["case"], row["kind"], row["name"]): 100 * row["share"] for row in chosen}
    lines = [
        [case, *(" / ".join(f"{share[case, kind, name]:.0f}" for kind in KINDS) for name in names)]
        for case in dict.fromkeys(row["case"] for row in chosen)
    ]
    return tabulate(lines, headers=["samples", *names], tablefmt="github", disable_numparse=True)


def models(rows: Sequence[Record]) -> str:
    chosen = [row for row in rows if row["promise"] == "tests of two models"]
    lines = [
        [
            row["case"],
            row["name"],
            row["kind"],
            f"{row['deviation']:.4f}",
            f"{row['error']:.4f}",
            f"{100 * row['share']:.0f}",
        ]
        for row in chosen
    ]
    headers = ["samples", "score", "analysis", "deviation of the difference", "its standard error", "rejected, %"]
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def markdown(rows: Sequence[Record]) -> str:
    heeded = [row for row in rows if row["kind"] in ("clusters", "paired")]
    return (
        "\n\n".join(
            [
                "# Where samples come in clusters",
                "Written by `python -m benchmarks.clusters`. " + " ".join(str(__doc__).split("\n\n")[2].split()),
                "## What falls short, with the clusters passed",
                f"Intervals that held less than {LEVEL - TOLERANCE:.0%} of the time, and 5 % tests of equal groups or "
                f"models that rejected more than {SIZE + TOLERANCE:.0%}, each if it is more than two Monte-Carlo "
                "errors from what is promised.",
                shortfalls(heeded),
                "## Clusters passed, and ignored",
                "Coverage of 95 % intervals and rejections of 5 % tests, in per cent: the mean over all scores or "
                "disparities / the worst one.",
                summary([row for row in rows if row["promise"] != "tests of two models"]),
                "## Differences between groups: coverage, clusters passed / ignored, in per cent",
                by_name(rows, "intervals of differences"),
                "## Scores of groups: coverage, clusters passed / ignored, in per cent",
                by_name(rows, "intervals of scores"),
                "## Two models with the same 50 prompts, 8 images each",
                "`paired`: the same labels for both; `clusters`: as if their prompts were others; `rows`: ignored.",
                models(rows),
            ]
        )
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for clusters.json and .md; default: only print")
    parser.add_argument("--repeats", type=int, default=200, help="samples per case (default: %(default)s)")
    parser.add_argument("--only", default="", help="only designs whose name starts with this")
    parser.add_argument(
        "--stages", type=Path, default=Path("build/clusters"), help="folder of finished repeats (default: %(default)s)"
    )
    arguments = parser.parse_args()
    chosen: list[tuple[Stage, Callable[[Sequence[Record]], list[Record]]]] = []
    for rho in RHOS:
        for design in DESIGNS:
            stage = Stage(f"{design.name} {rho}", functools.partial(measure, design, rho), design.share)
            chosen.append((stage, functools.partial(figures_of, design, rho)))
        chosen.append(
            (Stage(f"models {rho}", functools.partial(measure_models, rho)), functools.partial(figures_of_models, rho))
        )
        of_permutations = functools.partial(figures_of_permutations, rho)
        chosen.append((Stage(f"permutations {rho}", functools.partial(measure_permutations, rho)), of_permutations))
    chosen = [(stage, figures) for stage, figures in chosen if stage.name.startswith(arguments.only)]
    chosen.sort(key=lambda one: one[0].name.rsplit(" ", 1)[0])
    finished = run([stage for stage, _ in chosen], arguments.repeats, arguments.stages)
    rows = [row for (_, figures), records in zip(chosen, finished, strict=True) if records for row in figures(records)]
    text = markdown(rows)
    print(text)
    if arguments.out:
        settings = {"seed": SEED, "level": LEVEL, "size": SIZE}
        write_whole(arguments.out / "clusters.json", json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
        write_whole(arguments.out / "clusters.md", text)


if __name__ == "__main__":
    main()
