"""Simulate how often perfect generators, and damaged ones, are called unequal: by their scores, and by their excess.

    python -m benchmarks.placebo --out benchmarks/results        half an hour on one core
    python -m benchmarks.placebo --repeats 20 --only digits      try some cases, print only

The groups have unlike laws, so the expected scores of a perfect generator differ between them. Every repeat draws new
samples. The tests are those of :class:`egtmetrics.GenerativeMetricFrame` and of its baseline, at 5 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from tabulate import tabulate
from tqdm import tqdm

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
Array = NDArray[np.float64]
Law = Callable[[np.random.Generator, int], tuple[Array, Array]]
"""Draws real and generated samples of one group, for a perfect generator."""


def independent(draw: Callable[[np.random.Generator, int], Array]) -> Law:
    return lambda rng, n: (draw(rng, n), draw(rng, n))


def normal(scale: float, d: int = 8) -> Law:
    return independent(lambda rng, n: scale * rng.normal(size=(n, d)))


def student(d: int = 8) -> Law:
    return independent(lambda rng, n: rng.standard_t(3, size=(n, d)))


def embedded(dimension: int, d: int = 64) -> Law:
    """A normal law of few dimensions, turned into more of them, with noise of 2 %."""
    axes = np.linalg.qr(np.random.default_rng(dimension).normal(size=(d, dimension)))[0].T
    return independent(lambda rng, n: rng.normal(size=(n, dimension)) @ axes + 0.02 * rng.normal(size=(n, d)))


def clusters(d: int = 8) -> Law:
    """Ten clusters whose shares are as 1 to 10."""
    centres = 4.0 * np.random.default_rng(5).normal(size=(10, d))
    shares = np.arange(1, 11) / 55
    return independent(lambda rng, n: centres[rng.choice(10, size=n, p=shares)] + rng.normal(size=(n, d)))


@functools.cache
def _digits() -> tuple[Array, NDArray[np.int64]]:
    images, digits = load_digits(return_X_y=True)
    return images, digits


def digits(*kept: int) -> Law:
    """Scikit-learn's handwritten digits: a finite population, of which no image is drawn twice."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        images, labels = _digits()
        rows = rng.permutation(np.flatnonzero(np.isin(labels, kept)))[: 2 * n]
        return images[rows[:n]], images[rows[n:]]

    return draw


def off_support(fake: Array, share: float, rng: np.random.Generator) -> Array:
    """Move a share of the samples off the data, by ten of its standard deviations."""
    moved = fake.copy()
    n = round(share * len(fake))
    directions = rng.normal(size=(n, fake.shape[1]))
    moved[:n] += (
        10.0 * fake.std() * directions / np.linalg.norm(directions, axis=1, keepdims=True) * math.sqrt(fake.shape[1])
    )
    return moved


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

    def run(self, repeat: int) -> dict[str, dict[str, float]]:
        """P-values by test and by metric and disparity."""
        rng = np.random.default_rng([SEED, zlib.crc32(self.name.encode()), repeat])
        sides = [law(rng, n) for law, n in zip(self.laws, self.sizes, strict=True)]
        damage = self.damage or (0.0,) * len(sides)
        fakes = [off_support(fake, share, rng) for (_, fake), share in zip(sides, damage, strict=True)]
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
    Case("200 and 2000 of one law", (normal(1.0), normal(1.0)), (200, 2000)),
    Case(
        "five groups of unlike laws",
        (normal(1.0), normal(5.0), student(), clusters(), normal(0.2)),
        (250,) * 5,
        share=0.25,
    ),
    Case("narrow and wide, TopP&R", (normal(1.0), normal(5.0)), (300, 300), topp=True, share=0.5),
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
    parser.add_argument("--repeats", type=int, default=300, help="samples per case (default: %(default)s)")
    parser.add_argument("--only", default="", help="only cases whose name starts with this; those in --out stay")
    arguments = parser.parse_args()
    known: dict[str, list[dict[str, Any]]] = {}
    earlier = arguments.out / "placebo.json" if arguments.out else None
    if earlier and earlier.exists():
        for row in json.loads(earlier.read_text())["rows"]:
            known.setdefault(row["case"], []).append(row)
    for case in CASES:
        if not case.name.startswith(arguments.only):
            continue
        n = math.ceil(arguments.repeats * case.share)
        known[case.name] = rows(case, [case.run(i) for i in tqdm(range(n), desc=case.name)])
        content = [row for one in CASES for row in known.get(one.name, ())]
        if earlier:  # after every case, so that a run that is stopped leaves what it had
            write_whole(earlier, json.dumps({"seed": SEED, "rows": content}, indent=1) + "\n")
            write_whole(earlier.with_suffix(".md"), markdown(content))
    print(markdown(content))


if __name__ == "__main__":
    main()
