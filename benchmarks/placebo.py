"""Simulate how often perfect generators, and damaged ones, are called unequal: by their scores, and by their excess.

    python -m benchmarks.placebo --out benchmarks/results               half an hour on one core
    python -m benchmarks.placebo --repeats 20 --only digits             try some cases, print only
    python -m benchmarks.placebo --repeats 0 --out benchmarks/results   the page of the repeats that are finished

The groups have unlike laws, so the expected scores of a perfect generator differ between them. Every repeat draws new
samples. The tests are those of :class:`egtmetrics.GenerativeMetricFrame` and of its baseline, at 5 %. A run that was
stopped can resume; finished repeats are kept in ``--stages``. Remove that folder after a change of the statistics.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.laws import Law, clusters, digits, embedded, normal, off_support, spread, student
from benchmarks.stages import Stage, run
from egtmetrics import (
    GenerativeMetricFrame,
    frechet_distance,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics._atomic import write_whole
from egtmetrics.groups import GroupSizeWarning
from egtmetrics.metrics import clipped_density_coverage
from egtmetrics.results import UnreliableScoreWarning

SEED = 20261129
SIZE = 0.05


@dataclasses.dataclass(frozen=True)
class Case:
    """The laws of the groups, their sizes, and the shares of their generated samples that lie off the data."""

    name: str
    laws: tuple[Law, ...]
    sizes: tuple[int, ...]
    damage: tuple[float, ...] = ()
    topp: bool = False
    share: float = 1.0
    """The share of the repeats to run; slow cases get fewer."""

    @property
    def metrics(self) -> dict[str, Any]:
        if self.topp:
            return {"topp": functools.partial(topp_precision_recall, n_bootstrap=200)}
        return {
            "prdc": precision_recall_density_coverage,
            "clipped": clipped_density_coverage,
            "fid": frechet_distance,
        }

    @property
    def false(self) -> list[str]:
        """The tests of which a rejection is false. The same damage costs unlike groups unequal points of excess."""
        if not any(self.damage):
            return ["excess", "ratio"]
        return ["ratio"] if len(set(self.damage)) == 1 else []

    def run(self, repeat: int) -> dict[str, dict[str, float]]:
        """P-values by test and by metric and disparity."""
        rng = np.random.default_rng([SEED, zlib.crc32(self.name.encode()), repeat])
        sides = [law(rng, n, n) for law, n in zip(self.laws, self.sizes, strict=True)]
        damage = self.damage or (0.0,) * len(sides)
        fakes = [
            off_support(fake, share, rng, distance=10.0 * spread(law))
            for (_, fake), share, law in zip(sides, damage, self.laws, strict=True)
        ]
        labels = np.repeat([f"g{i}" for i in range(len(sides))], self.sizes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GroupSizeWarning)
            warnings.simplefilter("ignore", UnreliableScoreWarning)
            frame = GenerativeMetricFrame(
                metrics=self.metrics,
                real=np.concatenate([real for real, _ in sides]),
                fake=np.concatenate(fakes),
                real_sensitive_features=labels,
                fake_sensitive_features=labels,
                random_state=repeat,
                n_threads=1,
            )
            baseline = frame.baseline()
            tests = {"scores": frame.test(), "excess": baseline.test(), "ratio": baseline.test("ratio")}
        return {
            name: {
                f"{metric} {disparity}": float(p)
                for (metric, disparity), p in table["p_value"].items()
                if metric != "proportions"
            }
            for name, table in tests.items()
        }


THIN, ROUND = digits(1, 4, 7), digits(0, 6, 8)
CASES = (
    Case("digits, thin and round", (THIN, ROUND), (250, 250)),
    Case("narrow and wide", (normal(1.0), normal(5.0)), (300, 300)),
    Case("2 and 20 dimensions in 64", (embedded(2), embedded(20)), (300, 300)),
    Case("Student t3 and normal", (student(), normal(1.0)), (300, 300)),
    Case("ten clusters and normal", (clusters(), normal(1.0)), (300, 300)),
    Case("200 and 2000 of one law", (normal(1.0), normal(1.0)), (200, 2000), share=0.5),
    Case(
        "five groups of unlike laws",
        (normal(1.0), normal(5.0), student(), clusters(), normal(0.2)),
        (250,) * 5,
    ),
    Case("narrow and wide, TopP&R", (normal(1.0), normal(5.0)), (300, 300), topp=True),
    Case("digits, 30 % off the data in one group", (THIN, ROUND), (250, 250), damage=(0.3, 0.0)),
    Case("digits, 30 % off the data in both groups", (THIN, ROUND), (250, 250), damage=(0.3, 0.3)),
    Case("one law, 15 % off the data in one group", (normal(1.0), normal(1.0)), (300, 300), damage=(0.15, 0.0)),
    Case("2 and 20 dimensions, 30 % off in both", (embedded(2), embedded(20)), (300, 300), damage=(0.3, 0.3)),
)


def rows(case: Case, records: Sequence[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """The share of the repeats that each test rejects, by disparity; a test that does not exist has none."""
    found = []
    for name in records[0]["scores"]:
        row: dict[str, Any] = {"case": case.name, "disparity": name, "repeats": len(records)}
        for test in records[0]:
            p_values = [record[test][name] for record in records if name in record[test]]
            row[test] = sum(p <= SIZE for p in p_values) / len(p_values) if p_values else None
        row["false"] = [test for test in case.false if row[test] is not None]
        found.append(row)
    return found


def markdown(content: Sequence[dict[str, Any]]) -> str:
    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    perfect = {case.name for case in CASES if not any(case.damage)}
    header = ["groups", "disparity", "repeats", "scores", "excess", "ratio"]
    n = max(row["repeats"] for row in content)
    parts = [
        "# Perfect and damaged generators, by scores and by excess",
        "Written by `python -m benchmarks.placebo`. How often each test of a disparity rejects at 5 %: that of the "
        "scores themselves, of their excess over other real samples, and of the ratio to these. The groups have unlike "
        f"laws. At {n} repeats, 5 % has a standard error of {100 * math.sqrt(SIZE * (1 - SIZE) / n):.1f} %.",
    ]
    for title, chosen in (
        ("A perfect generator: every rejection is false", True),
        ("Damaged generators: where both groups have the same damage, a rejection of the ratio is false", False),
    ):
        table = [
            [row["case"], row["disparity"], str(row["repeats"]), *(share(row[test]) for test in header[3:])]
            for row in content
            if (row["case"] in perfect) == chosen
        ]
        parts += [f"## {title}", tabulate(table, headers=header, tablefmt="github", disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for placebo.json and .md; default: only print")
    parser.add_argument("--repeats", type=int, default=100, help="samples per case (default: %(default)s)")
    parser.add_argument("--only", default="", help="only cases whose name starts with this")
    parser.add_argument(
        "--stages", type=Path, default=Path("build/placebo"), help="folder of finished repeats (default: %(default)s)"
    )
    arguments = parser.parse_args()
    chosen = [case for case in CASES if case.name.startswith(arguments.only)]
    finished = run([Stage(case.name, case.run, case.share) for case in chosen], arguments.repeats, arguments.stages)
    content = [row for case, records in zip(chosen, finished, strict=True) if records for row in rows(case, records)]
    print(markdown(content))
    if arguments.out:
        saved = json.dumps({"seed": SEED, "rows": content}, indent=1) + "\n"
        write_whole(arguments.out / "placebo.json", saved)
        write_whole(arguments.out / "placebo.md", markdown(content))


if __name__ == "__main__":
    main()
