"""How often an alarm is false if one looks often, and how long a true one takes.

    python -m benchmarks.monitor --out benchmarks/results        two hours on one core
    python -m benchmarks.monitor --only "FID"                    the cases with such a name, printed

Every run has one set of real samples and up to 100 looks at fresh generated ones. Validity: all groups are treated
equally, so every alarm of a run is false. Delay: a share of one group's generated samples is off the data from the
first look on; looks until the first alarm. A case that is stopped leaves what it had.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from tabulate import tabulate
from tqdm import tqdm

from egtmetrics import GenerativeMetricFrame, topp_precision_recall
from egtmetrics._atomic import write_whole
from egtmetrics.groups import DisparityMonitor

SEED = 17
LOOKS = 100
LEVEL = 0.05
HORIZONS = (1, 20, 100)
_WRITTEN_EVERY = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    metric: Any
    n: int
    n_groups: int = 2
    d: int = 4
    damaged: float = 0.0
    """The share of the first group's generated samples that is off the data."""
    disparity: str | None = None
    given_real: bool = False
    """Whether to watch against the given real samples, too; all groups have the same ones then."""
    heavy_tails: bool = False
    repeats: int = 200


TOPP = functools.partial(topp_precision_recall, n_bootstrap=50)
CASES = [
    Case(name="FID, 200 samples", metric="fid", n=200),
    Case(name="FID, 60 samples", metric="fid", n=60),
    Case(name="FID, 200 samples, 4 groups", metric="fid", n=200, n_groups=4, repeats=100),
    Case(name="FID, 200 samples, t with 5 degrees of freedom", metric="fid", n=200, heavy_tails=True),
    Case(name="precision + recall, 200 samples", metric="ipr", n=200, repeats=100),
    Case(
        name="precision, 200 samples, the same real ones", metric="ipr", n=200, disparity="delta_p", given_real=True,
        repeats=100,
    ),
    Case(name="TopP&R, 200 samples", metric=TOPP, n=200, repeats=100),
    *(
        Case(
            name=f"precision, {damaged:.0%} off the data", metric="ipr", n=200, disparity="delta_p", given_real=True,
            damaged=damaged, repeats=100,
        )
        for damaged in (0.02, 0.05, 0.1, 0.2)
    ),
]  # fmt: skip


def rules(case: Case) -> dict[str, DisparityMonitor]:
    """Return the monitors of a case, without any look."""
    monitors = {
        f"{LOOKS} planned looks": DisparityMonitor(disparity=case.disparity, alpha=LEVEL, n_looks=LOOKS),
        "any number of looks": DisparityMonitor(disparity=case.disparity, alpha=LEVEL),
    }
    if case.given_real:
        monitors["given the real samples"] = DisparityMonitor(alpha=LEVEL, given_real=True)
    return monitors


def frames(case: Case, rng: np.random.Generator) -> Any:
    """Yield frames of fresh generated samples against one set of real ones."""

    def draw() -> NDArray[np.float64]:
        shape = (case.n_groups, case.n, case.d)
        return rng.standard_t(5, size=shape) if case.heavy_tails else rng.normal(size=shape)

    groups = np.repeat(np.arange(case.n_groups), case.n)
    real = draw()
    if case.given_real:
        real[:] = real[0]
    while True:
        fake = draw()
        off = rng.random(case.n) < case.damaged
        fake[0, off] += 1000.0
        yield GenerativeMetricFrame(
            metrics={"m": case.metric} if callable(case.metric) else case.metric,
            real=real.reshape(-1, case.d),
            fake=fake.reshape(-1, case.d),
            real_sensitive_features=groups,
            fake_sensitive_features=groups,
            random_state=int(rng.integers(2**31)),
            n_threads=1,
        )


def first_alarms(case: Case, seed: int) -> dict[str, float]:
    """Return the look of the first alarm under every rule; infinity for none within the looks.

    The rules of a monitor, the plain test at every look, and the planned limits with the p-values of the plain test.
    """
    monitors = rules(case)
    first = dict.fromkeys([*monitors, "a plain test at every look", "planned, normal p-values"], math.inf)
    looks = frames(case, np.random.default_rng([SEED, seed]))
    for number in range(1, LOOKS + 1):
        frame = next(looks)
        for name, monitor in monitors.items():
            if monitor.update(frame).alarm:
                first[name] = min(first[name], number)
        monitor = next(iter(monitors.values()))
        largest = frame._infer().largest[str(monitor.metric), str(monitor.disparity)]
        (estimates,), (errors,) = largest.estimates, largest.errors
        p_value = min(1.0, len(estimates) * float(ndtr(-(estimates / errors).max())))
        for name, limit in (("a plain test at every look", LEVEL), ("planned, normal p-values", LEVEL / LOOKS)):
            if p_value <= limit:
                first[name] = min(first[name], number)
        if case.damaged and all(map(math.isfinite, first.values())):
            break
    return first


def row(case: Case, firsts: list[dict[str, float]]) -> dict[str, Any]:
    """Return by rule the rate of alarms within the horizons, and the median look of the first one."""
    rates = {
        rule: {
            **{f"by look {horizon}": float(np.mean([one[rule] <= horizon for one in firsts])) for horizon in HORIZONS},
            "median": _number(float(np.median([one[rule] for one in firsts]))),
        }
        for rule in firsts[0]
    }
    return {"case": case.name, "repeats": len(firsts), "damaged": case.damaged, "rules": rates}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the tables."""

    def table(headers: list[str], cells: list[list[str]]) -> str:
        return tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)

    parts = [
        "# Looking often: false alarms, and delay",
        "",
        f"Written by `{COMMAND}`. See its docstring for the cases.",
    ]
    headers = ["case", "repeats", "rule", *(f"by look {horizon}" for horizon in HORIZONS)]
    equal = [
        [one["case"], str(one["repeats"]), rule, *(f"{found[f'by look {h}']:.1%}" for h in HORIZONS)]
        for one in rows
        for rule, found in one["rules"].items()
        if not one["damaged"]
    ]
    parts += ["", "## Equal groups: every alarm is false", ""]
    parts += [
        "Share of runs with an alarm. At most 5 % are promised by look 100, but for the plain test. With 200 repeats, "
        "5 % has a standard error of 1.5 points, with 100 of 2.2. The plain test takes normal p-values; 'planned, "
        "normal p-values' has the limits of planned looks without the t distribution of the monitor.",
        "",
        table(headers, equal),
    ]
    unequal = [
        [
            one["case"], str(one["repeats"]), rule, *(f"{found[f'by look {h}']:.0%}" for h in HORIZONS),
            "none" if found["median"] is None else f"{found['median']:g}",
        ]
        for one in rows
        for rule, found in one["rules"].items()
        if one["damaged"]
    ]  # fmt: skip
    parts += ["", "## One group damaged from the first look on: the delay", ""]
    parts += [
        "Share of runs with an alarm, and the median look of the first one (none: less than half within 100). The "
        "plain test by look 1 is the power of a single look; repeated, it is not valid.",
        "",
        table([*headers, "median"], unequal),
    ]
    return "\n".join(parts) + "\n"


COMMAND = "python -m benchmarks.monitor --out benchmarks/results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for monitor.json and .md; default: only print")
    parser.add_argument("--only", default="", help="only cases whose name holds this; those in --out stay")
    parser.add_argument("--repeats", type=int, help="at most; default: as many as a case states")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    path = arguments.out / "monitor.json" if arguments.out else None
    known: dict[str, dict[str, Any]] = {}
    if path and path.exists():
        known = {one["case"]: one for one in json.loads(path.read_text())["rows"]}
    for case in CASES:
        if arguments.only not in case.name:
            continue
        firsts: list[dict[str, float]] = []
        for seed in tqdm(range(min(case.repeats, arguments.repeats or case.repeats)), desc=case.name):
            firsts.append(first_alarms(case, seed))
            if path and (seed + 1) % _WRITTEN_EVERY == 0:
                known[case.name] = row(case, firsts)
                rows = [known[one.name] for one in CASES if one.name in known]
                write_whole(path, json.dumps({"seed": SEED, "rows": rows}, indent=1) + "\n")
                write_whole(path.with_suffix(".md"), markdown(rows))
        known[case.name] = row(case, firsts)
    print(markdown([known[one.name] for one in CASES if one.name in known]))


if __name__ == "__main__":
    main()
