"""Whether plans of samples keep what they promise: the width of an interval, the power of a verdict, and the limit.

    python -m benchmarks.plan --out benchmarks/results        an hour on one core
    python -m benchmarks.plan --only "FID"                    the cases with such a name, printed

A pilot is planned from. For a width, fresh samples of the planned sizes are evaluated; for a verdict, the planned
samples are added to the pilot's. The tolerance is another one for every pilot, at random around the true gap, since a
plan takes every gap for equally likely before it has seen the pilot. The first group's generated samples are shifted,
so that there is a gap. A case that is stopped leaves what it had.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from egtmetrics import GenerativeMetricFrame, kernel_distance, topp_precision_recall
from egtmetrics._atomic import write_whole

SEED = 23
SHORTER = 0.85
"""The width that is asked for, over that of the pilot; at most 90 % of what twice the samples are to gain."""
POWER = 0.8
SPREAD = 3.0
"""Tolerances lie up to so many deviations of a pilot's gap from the true one."""

Sides: TypeAlias = list[list[NDArray[np.float64]]]
"""Real and generated points, by side and group."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    metric: Any
    n_real: int
    n_fake: int
    shift: float = 0.7
    n_groups: int = 2
    d: int = 4
    more_real: bool = False
    repeats: int = 60


KID = functools.partial(kernel_distance, n_subsets=5)
TOPP = functools.partial(topp_precision_recall, n_bootstrap=30)
CASES = [
    Case(name="FID, 400 real, 200 generated", metric="fid", n_real=400, n_fake=200),
    Case(name="FID, 200 of both, both grow", metric="fid", n_real=200, n_fake=200, more_real=True, repeats=200),
    Case(name="FID, 400 real, 200 generated, 4 groups", metric="fid", n_real=400, n_fake=200, n_groups=4),
    Case(name="FID, 1000 real, 200 generated, equal groups", metric="fid", n_real=1000, n_fake=200, shift=0.0),
    Case(name="precision + recall, 400 real, 200 generated", metric="ipr", n_real=400, n_fake=200),
    Case(name="precision + recall, 200 of both, both grow", metric="ipr", n_real=200, n_fake=200, more_real=True),
    Case(name="KID, 400 real, 200 generated", metric=KID, n_real=400, n_fake=200, repeats=20),
    Case(name="TopP&R, 250 of both, both grow", metric=TOPP, n_real=250, n_fake=250, more_real=True, repeats=12),
]


def draw(case: Case, sizes: Any, seed: Any) -> Sides:
    """Draw fresh samples; ``sizes`` is ``(G, 2)``, real and generated ones of each group."""
    rng = np.random.default_rng([SEED, *seed])
    sides: Sides = []
    for side in (0, 1):
        sides.append([rng.normal(size=(n, case.d)) for n in np.asarray(sizes)[:, side]])
    sides[1][0][:, 0] += case.shift
    return sides


def added(first: Sides, second: Sides) -> Sides:
    return [[np.concatenate(pair) for pair in zip(*sides, strict=True)] for sides in zip(first, second, strict=True)]


def frame(case: Case, sides: Sides) -> GenerativeMetricFrame:
    (real, of_real), (fake, of_fake) = (
        (np.concatenate(side), np.repeat(np.arange(case.n_groups), [len(points) for points in side])) for side in sides
    )
    return GenerativeMetricFrame(
        metrics={"m": case.metric} if callable(case.metric) else case.metric,
        real=real,
        fake=fake,
        real_sensitive_features=of_real,
        fake_sensitive_features=of_fake,
        random_state=0,
        n_threads=1,
    )


def width_of(evaluated: GenerativeMetricFrame) -> float:
    metric = next(iter(evaluated.settings["metrics"]))
    row = evaluated.interval().disparities.loc[metric, evaluated.tables[metric].primary.name]
    return float(row["high"] - row["low"])


def planned(plan: Any) -> Any:
    counts = plan.samples.to_numpy()
    return counts[:, :2] + counts[:, 2:]


def run(case: Case, repeats: int) -> dict[str, Any]:
    """Return what came of the plans of all pilots."""
    start = [[case.n_real, case.n_fake]] * case.n_groups
    drawn = [draw(case, start, (0, seed)) for seed in range(repeats)]
    pilots = [frame(case, sides) for sides in tqdm(drawn, desc=f"{case.name}: pilots")]
    gaps = np.array([pilot.certify(1e-9).value for pilot in pilots])
    tolerances = gaps.mean() + gaps.std() * np.random.default_rng(SEED).uniform(-SPREAD, SPREAD, repeats)
    widths, limits, times, promised, decided = [], [], [], [], []
    for seed, (pilot, tolerance) in enumerate(zip(tqdm(pilots, desc=case.name), tolerances, strict=True)):
        options: dict[str, Any] = {"more_real": case.more_real}
        longest = pilot.plan(width=1e-9, **options)
        reachable = pilot.plan(width=SHORTER * longest.now, **options)
        target = max(SHORTER * longest.now, longest.now - 0.9 * (longest.now - reachable.planned))
        plan = pilot.plan(width=target, **options)
        if plan.reached:
            widths.append(width_of(frame(case, draw(case, planned(plan), (1, seed)))) / target)
            times.append(planned(plan).sum() / np.sum(start))
        if not case.more_real:
            many = np.array(start) * [1, 10]
            at_ten = longest.unlimited / width_of(frame(case, draw(case, many, (2, seed))))
            limits.append(at_ten)
        if tolerance <= 0.0 or pilot.certify(tolerance).outcome != "undecided":
            continue
        plan = pilot.plan(tolerance=tolerance, power=POWER, **options)
        more = draw(case, plan.samples[["more_real", "more_fake"]].to_numpy(), (3, seed))
        promised.append(plan.power)
        decided.append(frame(case, added(drawn[seed], more)).certify(tolerance).outcome != "undecided")
    return {
        "case": case.name,
        "repeats": len(pilots),
        "times": _mean(times),
        "width": _mean(widths),
        "width_error": _error(widths),
        "unlimited": _mean(limits),
        "unlimited_error": _error(limits),
        "undecided": len(decided),
        "promised": _mean(promised),
        "decided": _mean(decided),
        "decided_error": _error(decided) / math.sqrt(len(decided)) if decided else None,
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _error(values: Any) -> float | None:
    return float(np.std(values)) if len(values) else None


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table."""

    def number(value: float | None, spread: float | None = None) -> str:
        if value is None or math.isnan(value):
            return ""
        return f"{value:.2f}" + (f" ± {spread:.2f}" if spread is not None else "")

    cells = [
        [
            row["case"],
            str(row["repeats"]),
            number(row["times"]),
            number(row["width"], row["width_error"]),
            number(row["unlimited"], row["unlimited_error"]),
            str(row["undecided"]),
            number(row["promised"]),
            number(row["decided"], row["decided_error"]),
        ]
        for row in rows
    ]
    headers = ["case", "pilots", "samples", "width", "unlimited", "undecided", "promised", "decided"]
    return "\n".join(
        [
            "# Plans of samples",
            "",
            f"Written by `{COMMAND}`. See its docstring for the cases.",
            "",
            "- samples: those of the plan for a width, over those of the pilot.",
            "- width: of the interval with fresh samples of the planned sizes, over the width that was asked for, mean "
            "and deviation.",
            "- unlimited: the width that the pilot foresees for unlimited generated samples, over that with ten times "
            "as many, mean and deviation.",
            f"- undecided: how many pilots had no verdict for their tolerance, which lies within {SPREAD:g} deviations "
            "of the true gap.",
            f"- promised: of these, the probability of a verdict that the plan for a power of {POWER} states for the "
            "samples that it adds, at most as many as there are, in the mean; 0 where real samples are the limit and "
            "none are added.",
            "- decided: how often the verdict then came, with its standard error.",
            "",
            tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True),
            "",
        ]
    )


COMMAND = "python -m benchmarks.plan --out benchmarks/results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for plan.json and .md; default: only print")
    parser.add_argument("--only", default="", help="only cases whose name holds this; those in --out stay")
    parser.add_argument("--repeats", type=int, help="at most; default: as many as a case states")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    path = arguments.out / "plan.json" if arguments.out else None
    known: dict[str, dict[str, Any]] = {}
    if path and path.exists():
        known = {one["case"]: one for one in json.loads(path.read_text())["rows"]}
    for case in CASES:
        if arguments.only not in case.name:
            continue
        known[case.name] = run(case, min(case.repeats, arguments.repeats or case.repeats))
        rows = [known[one.name] for one in CASES if one.name in known]
        if path:  # after every case, so that a run that is stopped leaves what it had
            write_whole(path, json.dumps({"seed": SEED, "rows": rows}, indent=1) + "\n")
            write_whole(path.with_suffix(".md"), markdown(rows))
    print(markdown([known[one.name] for one in CASES if one.name in known]))


if __name__ == "__main__":
    main()
