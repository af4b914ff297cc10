"""Simulate how often doses of known damage are right: equal damage, unequal damage, intervals, and other damage.

    python -m benchmarks.dose --out benchmarks/results --jobs 2   three hours on one core
    python -m benchmarks.dose --repeats 6 --only "equal, narrow"  try some cases, print only

The groups have unlike laws. Known damage of a known dose is done to generated samples of a perfect generator. Every
repeat draws new samples. Cases that are finished are kept in ``--out``. The tests are those of
:class:`egtmetrics.GenerativeMetricFrame`, of its baseline and of its dose response, at 5 %.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import math
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import binom
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.placebo import ROUND, THIN, Array, Law, embedded, normal, student
from egtmetrics import GenerativeMetricFrame, frechet_distance, precision_recall_density_coverage
from egtmetrics._atomic import write_whole
from egtmetrics.groups import GroupSizeWarning
from egtmetrics.groups.damage import known_damages, mean_variance
from egtmetrics.metrics import clipped_density_coverage
from egtmetrics.results import UnreliableScoreWarning

SEED = 20261129
SIZE = 0.05
N = 200
"""Samples of each group on each side."""
ALARM = 0.005
"""A figure falls short if one as bad has this probability where the promise is kept."""
METRICS = {
    "fid": frechet_distance,
    "clipped": clipped_density_coverage,
    "prdc": precision_recall_density_coverage,
}
LAWS: dict[str, tuple[Law, Law]] = {
    "narrow and wide": (normal(1.0), normal(5.0)),
    "Student t3 and normal": (student(), normal(1.0)),
    "2 and 20 dimensions in 64": (embedded(2), embedded(20)),
    "digits, thin and round": (THIN, ROUND),
}
EQUAL = {"off_support": 0.2, "missing_mass": 0.15, "copies": 0.3, "noise": 0.3}
UNEQUAL = {"off_support": (0.05, 0.25), "missing_mass": (0.05, 0.25), "copies": (0.1, 0.5), "noise": (0.15, 0.6)}
NOTHING = "none of them"


def shifted(features: Array, dose: float, rng: np.random.Generator) -> Array:
    return features + dose * features.std(axis=0).mean()


def shrunk(features: Array, dose: float, rng: np.random.Generator) -> Array:
    center = features.mean(axis=0)
    return center + (1.0 - dose) * (features - center)


def blurred(features: Array, dose: float, rng: np.random.Generator) -> Array:
    return np.asarray(gaussian_filter(features.reshape(-1, 8, 8), (0, dose, dose)).reshape(len(features), -1))


def two_damages(features: Array, dose: float, rng: np.random.Generator) -> Array:
    known = known_damages(1.0)
    return np.asarray(known["off_support"].function(known["missing_mass"].function(features, dose, rng), dose, rng))


UNKNOWN: dict[str, tuple[Callable[..., Array], float]] = {
    "shift": (shifted, 0.5),
    "shrinking": (shrunk, 0.3),
    "blur": (blurred, 0.7),
    "off_support and missing_mass": (two_damages, 0.2),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """Two laws, what is done to their generated samples, and the dose of each."""

    kind: str
    laws: str
    damage: str
    doses: tuple[float, float]
    share: float = 1.0
    """The share of the repeats to run; slow cases get fewer."""

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.laws}, {self.damage}"

    @property
    def known(self) -> bool:
        return self.damage in EQUAL

    def offers_all(self, repeat: int) -> bool:
        """Whether all families are read, to see which is named; where the right one is known, a third of the time."""
        return not self.known or (self.kind == "equal" and repeat % 3 == 0)

    def run(self, repeat: int) -> dict[str, Any]:
        rng = np.random.default_rng([SEED, zlib.crc32(self.name.encode()), repeat])
        n_drawn = math.ceil(N / (1.0 - max(self.doses))) if "missing_mass" in self.damage else N
        sides = [law(rng, n_drawn) for law in LAWS[self.laws]]
        reals = [real[:N] for real, _ in sides]
        spread = math.sqrt(np.mean([mean_variance(real) for real in reals]))
        function = known_damages(spread)[self.damage].function if self.known else UNKNOWN[self.damage][0]
        fakes = [function(fake, dose, rng) if dose else fake for (_, fake), dose in zip(sides, self.doses, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GroupSizeWarning)
            warnings.simplefilter("ignore", UnreliableScoreWarning)
            frame = GenerativeMetricFrame(
                metrics=METRICS,
                real=np.concatenate(reals),
                fake=np.concatenate(fakes),
                real_sensitive_features=np.repeat([0, 1], [len(real) for real in reals]),
                fake_sensitive_features=np.repeat([0, 1], [len(fake) for fake in fakes]),
                random_state=repeat,
                n_threads=1,
            )
            offers_all = self.offers_all(repeat)
            response = frame.dose_response(None if offers_all else self.damage)
            found: dict[str, Any] = {"named": (response.explanation or NOTHING) if offers_all else None}
            if not self.known:
                return found
            tests = {"dose": response.test(self.damage)}
            if self.kind == "equal":
                tests |= {"scores": frame.test(), "excess": frame.baseline().test()}
            intervals = response.interval(damage=self.damage).by_group
        larger = response.disparities(self.damage)["larger"]
        return found | {
            "p_values": {test: _of_single_scores(table["p_value"]) for test, table in tests.items()},
            "larger": _of_single_scores(larger),
            "intervals": {
                column: intervals.loc[column][["value", "low", "high"]].to_numpy(dtype=float).tolist()
                for column in response.doses.columns
            },
            "agreement": response.agreement.loc[self.damage][["low", "high", "p_value"]].to_numpy(dtype=float).tolist(),
        }


def _of_single_scores(column: Any) -> dict[str, Any]:
    return {
        f"{metric} {name.removeprefix('delta_')}": value
        for (metric, name), value in column.items()
        if metric in METRICS and name not in ("delta_pr", "delta_p_plus_delta_r")
    }


def cases() -> Iterator[Case]:
    for laws in LAWS:
        for damage, dose in EQUAL.items():
            yield Case("equal", laws, damage, (dose, dose))
    for laws in LAWS:
        for damage, doses in UNEQUAL.items():
            yield Case("unequal", laws, damage, doses, share=0.5)
    for laws in LAWS:
        for damage, (_, dose) in UNKNOWN.items():
            if damage != "blur" or laws.startswith("digits"):
                yield Case("unknown", laws, damage, (dose, dose), share=1 / 3)
    for laws in LAWS:
        for damage in EQUAL:
            yield Case("undamaged", laws, damage, (0.0, 0.0), share=1 / 3)


def run_case(case: Case, repeat: int) -> dict[str, Any]:
    return case.run(repeat)


def summary(case: Case, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts and shares of one case."""
    named = Counter(record["named"] for record in records if record["named"] is not None)
    content: dict[str, Any] = {
        "case": case.name,
        "doses": case.doses,
        "repeats": len(records),
        "named": {name: n / named.total() for name, n in named.items()},
        "repeats_named": named.total(),
    }
    if not case.known:
        return content

    def rejected(test: str) -> dict[str, float]:
        tables = [record["p_values"][test] for record in records]
        return {name: float(np.mean([table[name] <= SIZE for table in tables])) for name in tables[0]}

    def of_intervals(value: Callable[..., Any]) -> dict[str, float]:
        return {
            column: float(
                np.mean(
                    [
                        value(dose, *found)
                        for record in records
                        for dose, found in zip(case.doses, record["intervals"][column], strict=True)
                    ]
                )
            )
            for column in records[0]["intervals"]
        }

    content["rejected"] = {test: rejected(test) for test in records[0]["p_values"]}
    if case.kind == "unequal":
        content["found"] = {
            name: float(
                np.mean(
                    [record["p_values"]["dose"][name] <= SIZE and record["larger"][name] == 1 for record in records]
                )
            )
            for name in records[0]["larger"]
        }
    content["held"] = of_intervals(lambda dose, value, low, high: low <= dose <= high)
    content["read"] = of_intervals(lambda dose, value, low, high: not math.isnan(value))
    agreements = np.array([record["agreement"] for record in records])
    inside = (agreements[..., 0] <= case.doses) & (agreements[..., 1] >= case.doses)
    content["agreement_held"] = float(inside.mean())
    content["explained"] = float(np.mean(agreements[..., 2].min(axis=1) * 2 > SIZE))
    return content


def markdown(content: Mapping[str, Mapping[str, Any]]) -> str:
    chosen = {kind: [one for one in cases() if one.kind == kind and one.name in content] for kind in KINDS}
    tables: dict[str, str] = {}
    for kind in ("equal", "undamaged"):
        tests = ("scores", "excess", "dose") if kind == "equal" else ("dose",)
        tables[kind] = _table(chosen[kind], content, lambda row, tests=tests: [row["rejected"][test] for test in tests])
    tables["unequal"] = _table(chosen["unequal"], content, lambda row: [row["found"]])
    of_intervals = [one for kind in ("equal", "unequal", "undamaged") for one in chosen[kind]]
    tables["held"] = _table(of_intervals, content, lambda row: [row["held"]], kinds=True)
    tables["read"] = _table(of_intervals, content, lambda row: [row["read"]], kinds=True)
    names = [NOTHING, *EQUAL]
    tables["named"] = tabulate(
        [
            [
                one.laws,
                one.damage,
                row["repeats_named"],
                *(f"{100 * row['named'].get(name, 0.0):.0f}" for name in names),
            ]
            for kind in ("unknown", "equal")
            for one in chosen[kind]
            for row in [content[one.name]]
        ],
        headers=["groups", "what was done", "repeats", *names],
        tablefmt="github",
        disable_numparse=True,
    )
    parts = ["# Doses of known damage", _INTRODUCTION, *_short(chosen, content)]
    for name, title in _TITLES.items():
        parts += [f"## {title}", tables[name]]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = (
    f"Written by `python -m benchmarks.dose`. All figures are per cent; each group has {N} real and {N} generated "
    "samples, and the two groups of a case have unlike laws. Known damage is done to the generated samples of a perfect "
    "generator, and read by `frame.dose_response()`. Doses: "
    + "; ".join(f"{name} {EQUAL[name]:g}, unequal {low:g} and {high:g}" for name, (low, high) in UNEQUAL.items())
    + ". Noise is in the unit of the frame."
)
KINDS = ("equal", "undamaged", "unequal", "unknown")
_TITLES = {
    "equal": "Equal damage called unequal at 5 %: by the scores, by their excess, by the doses",
    "undamaged": "A perfect generator called unequal at 5 % by the doses",
    "unequal": "Unequal damage found at 5 %, with the right group",
    "held": "95 % intervals that hold the dose",
    "read": "Groups that read a dose",
    "named": "Which damage explains the scores, of those offered",
}


def _table(
    chosen: Sequence[Case], content: Mapping[str, Any], values: Callable[[Any], list[dict[str, float]]], *,
    kinds: bool = False,
) -> str:  # fmt: skip
    rows, names = [], []
    for one in chosen:
        row = content[one.name]
        found = values(row)
        names = list(found[0])
        cells = [" / ".join(f"{100 * part[name]:.0f}" for part in found) for name in names]
        rows.append([*([one.kind] if kinds else []), one.laws, one.damage, row["repeats"], *cells])
    header = [*(["doses"] if kinds else []), "groups", "damage", "repeats", *names]
    return tabulate(rows, headers=header, tablefmt="github", disable_numparse=True)


def _short(chosen: Mapping[str, Sequence[Case]], content: Mapping[str, Any]) -> list[str]:
    """Say what falls short: rejections of equal damage above 5 %, intervals below 95 %, the right damage refused."""
    found, n_judged = [], 0
    for kind in ("equal", "undamaged", "unequal"):
        for one in chosen[kind]:
            row = content[one.name]
            n = row["repeats"]
            promises = [("intervals of the dose by", "hold it", 1.0 - share, 2 * n, name, share)
                        for name, share in row["held"].items()]  # fmt: skip
            if kind != "unequal":
                promises += [("equal damage is called unequal by the dose of", "", share, n, name, share)
                             for name, share in row["rejected"]["dose"].items()]  # fmt: skip
            promises.append(("the scores are called explained by", "", 1.0 - row["explained"], n, one.damage,
                             row["explained"]))  # fmt: skip
            n_judged += len(promises)
            for what, verb, wrong, times, name, share in promises:
                if binom.sf(round(wrong * times) - 1, times, SIZE) < ALARM:
                    found.append((wrong, f"- {one.name}: {what} {name} {verb}".rstrip() + f" {100 * share:.0f} % of the "
                                  f"time, of {times}"))  # fmt: skip
    lines = [text for _, text in sorted(found, reverse=True)]
    return [
        "## What falls short",
        f"{len(found)} of {n_judged} promises (5 % of false rejections, 95 % of doses held, 95 % of right damages not "
        f"refused) are broken by more than chance does in {100 * ALARM:g} % of the simulations.",
        *(["\n".join(lines)] if lines else []),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for dose.json and .md; default: only print")
    parser.add_argument("--repeats", type=int, default=60, help="samples per case (default: %(default)s)")
    parser.add_argument("--only", default="", help="only cases whose name starts with this; those in --out stay")
    parser.add_argument("--new", action="store_true", help="leave out the cases that --out has")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    arguments = parser.parse_args()
    known: dict[str, dict[str, Any]] = {}
    earlier = arguments.out / "dose.json" if arguments.out else None
    if earlier and earlier.exists():
        known = {row["case"]: row for row in json.loads(earlier.read_text())["cases"]}
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        for case in cases():
            if not case.name.startswith(arguments.only) or (arguments.new and case.name in known):
                continue
            n = math.ceil(arguments.repeats * case.share)
            runs = pool.map(functools.partial(run_case, case), range(n))
            known[case.name] = summary(case, list(tqdm(runs, total=n, desc=case.name)))
            content = {one.name: known[one.name] for one in cases() if one.name in known}
            if earlier:  # after every case, so that a run that is stopped leaves what it had
                settings = {"seed": SEED, "n": N, "size": SIZE}
                write_whole(earlier, json.dumps({"settings": settings, "cases": [*content.values()]}, indent=1) + "\n")
                write_whole(earlier.with_suffix(".md"), markdown(content))
    print(markdown(known))


if __name__ == "__main__":
    main()
