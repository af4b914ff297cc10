"""Simulate how often doses of known damage are right: equal damage, unequal damage, intervals, and other damage.

    python -m benchmarks.dose --out benchmarks/results --jobs 2   an hour and a half of one core
    python -m benchmarks.dose --repeats 6 --only "equal, narrow"  try some cases, print only
    python -m benchmarks.dose --repeats 0 --out benchmarks/results    tables of the repeats that are finished

The groups have unlike laws. Known damage of a known dose is done to the samples of a perfect generator. Every repeat
draws new samples. Repeat i of a case depends only on i and the case; finished repeats are kept in ``--stages``. Remove
that folder after a change of the statistics. The tests are those of :class:`egtmetrics.GenerativeMetricFrame`, of its
baseline and of its dose response, at 5 %.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import math
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import binom
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.calibration import read_stage
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
COMPARED = 6
"""One in so many repeats of equal damage is compared with scores and excess, and with the other families."""
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

    def compares(self, repeat: int) -> bool:
        """Whether all families are read, and scores and excess tested; where the family is known, sometimes only."""
        return not self.known or (self.kind == "equal" and repeat % COMPARED == 0)

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
            compares = self.compares(repeat)
            response = frame.dose_response(None if compares else self.damage)
            found: dict[str, Any] = {"named": (response.explanation or NOTHING) if compares else None}
            if not self.known:
                return found
            tests = {"dose": response.test(self.damage)}
            if compares:
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
            "agreement": response.agreement.loc[self.damage][["low", "high"]].to_numpy(dtype=float).tolist(),
            "explains": response.explains(self.damage),
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
                yield Case("unknown", laws, damage, (dose, dose), share=1 / 4)
    for laws in LAWS:
        for damage in EQUAL:
            yield Case("undamaged", laws, damage, (0.0, 0.0), share=1 / 4)


def run_case(task: tuple[Case, int]) -> tuple[Case, int, dict[str, Any]]:
    case, repeat = task
    return case, repeat, case.run(repeat)


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
        tables = [record["p_values"][test] for record in records if test in record["p_values"]]
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
    content["explained"] = float(np.mean([record["explains"] for record in records]))
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
    parts = ["# Doses of known damage", _INTRODUCTION, *_short(chosen, content), *_overview(content)]
    for name, title in _TITLES.items():
        parts += [f"## {title}", tables[name]]
    return "\n\n".join(parts) + "\n"


def _overview(content: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return means over scores and cases, by damage and by the laws of the groups."""
    columns: dict[str, tuple[str, Callable[[Mapping[str, Any]], Iterable[float]]]] = {
        "equal: scores": ("equal", lambda row: row["rejected"]["scores"].values()),
        "equal: excess": ("equal", lambda row: row["rejected"]["excess"].values()),
        "equal: doses": ("equal", lambda row: row["rejected"]["dose"].values()),
        "undamaged: doses": ("undamaged", lambda row: row["rejected"]["dose"].values()),
        "unequal: found": ("unequal", lambda row: row["found"].values()),
        "held by scores": ("", lambda row: row["held"].values()),
        "held by all scores at once": ("", lambda row: [row["agreement_held"]]),
        "damage not refused": ("", lambda row: [row["explained"]]),
        "doses read": ("", lambda row: row["read"].values()),
    }
    known = [one for one in cases() if one.known and one.name in content]
    rows = []
    for what in [*EQUAL, *LAWS, ""]:
        of_row = [one for one in known if what in ("", one.damage, one.laws)]
        cells = []
        for kind, values in columns.values():
            found = [value for one in of_row if kind in ("", one.kind) for value in values(content[one.name])]
            cells.append(f"{100 * np.mean(found):.1f}" if found else "")
        rows.append([what or "all", *cells])
    return [
        "## Means over scores and cases",
        "How often equal damage is called unequal, by the scores, their excess and the doses, and a perfect generator "
        "by the doses; how often unequal damage is found; how often the interval of a dose holds it, by single scores "
        "and by all scores of a group at once; how often the right damage is among those that explain the scores; how "
        "many scores read a dose.",
        tabulate(rows, headers=["", *columns], tablefmt="github", disable_numparse=True),
    ]


_INTRODUCTION = (
    f"Written by `python -m benchmarks.dose`. All figures are per cent; each group has {N} real and {N} generated "
    "samples, and the two groups of a case have unlike laws. Known damage is done to the samples of a perfect "
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
                    text = f"- {one.name}: {what} {name} {verb}".rstrip()
                    found.append((wrong, f"{text} {100 * share:.0f} % of the time, of {times}"))
    lines = [text for _, text in sorted(found, reverse=True)]
    held = [(float(np.mean([*row["held"].values()])), name, row["repeats"]) for name, row in content.items()
            if "held" in row]  # fmt: skip
    least = sorted(held)[:3]
    return [
        "## What falls short",
        f"{len(found)} of {n_judged} promises (5 % of false rejections, 95 % of doses held, 95 % of right damages not "
        f"refused) are broken by more than chance does in {100 * ALARM:g} % of the simulations. Few repeats show gross "
        "faults only; the means below say more.",
        *(["\n".join(lines)] if lines else []),
        "Where the intervals hold least, on average over the scores:",
        "\n".join(f"- {name}: {100 * share:.0f} %, of {n} repeats" for share, name, n in least),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for dose.json and .md; default: only print")
    parser.add_argument("--repeats", type=int, default=60, help="samples per case (default: %(default)s)")
    parser.add_argument("--only", default="", help="only cases whose name starts with this")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--stages", type=Path, default=Path("build/dose"), help="folder of finished repeats (default: %(default)s)"
    )
    arguments = parser.parse_args()
    stages = {case: arguments.stages / f"{case.name}.jsonl" for case in cases() if case.name.startswith(arguments.only)}
    done = {case: read_stage(path) for case, path in stages.items()}
    todo = [
        (case, i)
        for i in range(arguments.repeats)
        for case in stages
        if i not in done[case] and math.ceil((i + 1) * case.share) > math.ceil(i * case.share)
    ]
    arguments.stages.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        for case, i, record in tqdm(pool.map(run_case, todo), total=len(todo), desc="repeats"):
            done[case][i] = record
            with stages[case].open("a") as stage:  # the newline comes first: it ends a line that was cut off by a kill
                stage.write("\n" + json.dumps([i, record]))
    content = {case.name: summary(case, list(records.values())) for case, records in done.items() if records}
    text = markdown(content)
    print(text)
    if arguments.out:
        settings = {"seed": SEED, "n": N, "size": SIZE}
        whole = {"settings": settings, "cases": list(content.values())}
        write_whole(arguments.out / "dose.json", json.dumps(whole, indent=1) + "\n")
        write_whole(arguments.out / "dose.md", text)


if __name__ == "__main__":
    main()
