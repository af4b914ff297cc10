"""Count the sanity checks that each fidelity and diversity score passes.

    python -m benchmarks.sanity --out benchmarks/results    eight minutes on one core
    python -m benchmarks.sanity --only prdc --repeats 1     one metric, print only

The checks are those of Räisä, van Breugel and van der Schaar, "Position: All Current Generative Fidelity and Diversity
Metrics are Flawed" (ICML 2025), for 1 to 64 features. Laws, sizes and tolerances are theirs, the code is not. Each
check moves one number, such as the mean of the fake law, and looks at the curve of the score. Other than in the paper,
curves have 5 points instead of 10 to 51, sets up to 4000 rows instead of 10000, one feature apart has up to 63 equal
ones instead of 1000, and means are over 3 repeats instead of 10.

Whether a score measures fidelity or diversity is found out, not listed: see :func:`kinds`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import itertools
import json
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.defects import metrics_of_features
from benchmarks.run import machine
from egtmetrics._atomic import write_whole
from egtmetrics.registry import Metric
from egtmetrics.results import UnreliableScoreWarning

SEED = 20261203
REPEATS = 3
COMMAND = "python -m benchmarks.sanity --out benchmarks/results"
N = 1000
SIZES = (250, 500, 1000, 2000, 4000)
GROUPS = {"1 to 3": (1, 2, 3), "8 and 16": (8, 16), "64": (64,)}
DESIDERATA = {
    "purpose": "the score moves as it should (D1b)",
    "settings": "the number of generated rows hardly matters (D2)",
    "data": "a thousand rows a side are enough (D3)",
    "bounds": "perfect is 1, nothing right is 0 (D4)",
    "scale": "the unit of a feature does not matter (D5)",
}
TOLERANCE, SMALL, LARGE = 0.05, 0.1, 0.2
"""How far a score may be from a target, how much a curve may bend the wrong way, how much it must move."""

Array = NDArray[np.float64]
Pair = tuple[Array, Array]
Kind = Literal["fidelity", "diversity"]
Row = dict[str, Any]


# --- What a curve must look like ---------------------------------------------------------------------------------

# A generator that covers the real law and much more is diverse in one reading ("high") and not in another ("low"). A
# diversity score may follow either, but only one within a check. So a rule returns the readings under which a curve is
# right. NaN is never right.
Readings = frozenset[str]
Rule = Callable[[Array], Readings]
EVERY: Readings = frozenset({"high", "low"})
NONE: Readings = frozenset()
FIRST, MIDDLE, LAST = 0, 2, -1


def near(target: float, position: int) -> Rule:
    return lambda curve: EVERY if target - TOLERANCE <= curve[position] <= target + TOLERANCE else NONE


def wide(position: int) -> Rule:
    """The fake law covers the real one and much more: 1 in the high reading, 0 in the low one."""
    return either(low=near(0.0, position), high=near(1.0, position))


def either(*, low: Rule, high: Rule) -> Rule:
    return lambda curve: (low(curve) & {"low"}) | (high(curve) & {"high"})


def falls(curve: Array) -> Readings:
    first, last = curve[FIRST], curve[LAST]
    right = first - last >= LARGE and curve.max() - first <= SMALL and last - curve.min() <= SMALL
    return EVERY if right else NONE


def rises(curve: Array) -> Readings:
    return falls(curve[::-1])


def falls_before(position: int) -> Rule:
    return lambda curve: falls(curve) if curve[FIRST] - curve[position] >= SMALL else NONE


def peaks(curve: Array) -> Readings:
    """Highest in the middle, and lowest at one end at least."""
    ends, middle = curve[[FIRST, LAST]], curve[MIDDLE]
    right = middle - ends.max() >= LARGE and curve.max() - middle <= SMALL and ends.min() - curve.min() <= SMALL
    return EVERY if right else NONE


def steady(start: int) -> Rule:
    return lambda curve: EVERY if np.ptp(curve[start:]) <= TOLERANCE else NONE


# --- The checks --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """The number of features, None if that is what moves, and the values of what moves."""

    d: int | None
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Samples for every value of one number, and the rules for the curve of a score over these values.

    Checks of one name are variants: a score passes if it passes all of them, in one reading.
    """

    name: str
    variant: str = ""
    draw: Callable[[np.random.Generator, np.random.Generator, int, float], Pair]
    """``(generator of real, generator of fake, d, value)`` to both sets. Only fake changes its state with the value."""
    cases: tuple[Case, ...]
    fidelity: Mapping[str, tuple[Rule, ...]]
    """The rules by desideratum."""
    diversity: Mapping[str, tuple[Rule, ...]]

    def rules(self, kind: Kind) -> Mapping[str, tuple[Rule, ...]]:
        return self.fidelity if kind == "fidelity" else self.diversity


def line(*ends: tuple[int, float]) -> tuple[Case, ...]:
    """Five values from -end to end, for each number of features."""
    return tuple(Case(d, tuple(np.linspace(-end, end, 5))) for d, end in ends)


def powers(*ends: tuple[int, float]) -> tuple[Case, ...]:
    """Five values from 10^-end to 10^end."""
    return tuple(Case(d, tuple(np.logspace(-end, end, 5))) for d, end in ends)


def every(values: Iterable[float], *dimensions: int) -> tuple[Case, ...]:
    return tuple(Case(d, tuple(values)) for d in dimensions)


def shifted(real: np.random.Generator, fake: np.random.Generator, d: int, mean: float) -> Pair:
    return real.normal(size=(N, d)), fake.normal(mean, size=(N, d))


def with_outlier(
    real: np.random.Generator, fake: np.random.Generator, d: int, mean: float, *, end: Mapping[int, float], side: int
) -> Pair:
    """One set gets one outlier, where the fake mean is at the end of its way."""
    pair = list(shifted(real, fake, d, mean))
    pair[side] = np.vstack([pair[side], np.full((1, d), end[d])])
    return pair[0], pair[1]


def scaled(real: np.random.Generator, fake: np.random.Generator, d: int, deviation: float) -> Pair:
    return real.normal(size=(N, d)), fake.normal(scale=deviation, size=(N, d))


def ten_modes(rng: np.random.Generator, d: int, shares: Array) -> Array:
    """Modes on a diagonal, nearly apart."""
    modes = rng.choice(10, size=(N, 1), p=shares / shares.sum())
    deviation = {1: 1 / 6, 8: 1 / 3, 64: 1.0}[d]
    return modes * 10 / 9 + deviation * rng.normal(size=(N, d))


def nine_modes_rarer(real: np.random.Generator, fake: np.random.Generator, d: int, dropped: float) -> Pair:
    return ten_modes(real, d, np.ones(10)), ten_modes(fake, d, np.append(1.0, np.full(9, 1.0 - dropped)))


def modes_missing(real: np.random.Generator, fake: np.random.Generator, d: int, n_missing: float) -> Pair:
    return ten_modes(real, d, np.ones(10)), ten_modes(fake, d, (np.arange(10) < 10 - n_missing).astype(float))


def modes_invented(real: np.random.Generator, fake: np.random.Generator, d: int, n_modes: float) -> Pair:
    """Five real modes; the fake law has the first ``n_modes`` of ten, all far from each other."""
    centres = np.random.default_rng(21).normal(scale=10.0, size=(10, d))
    pair = [rng.normal(centres[rng.integers(k, size=N)], 0.25) for rng, k in ((real, 5), (fake, int(n_modes)))]
    return pair[0], pair[1]


def one_wide_mode(real: np.random.Generator, fake: np.random.Generator, d: int, distance: float) -> Pair:
    """Two real modes, and one fake mode with the variance of both."""
    two = real.normal(distance * (real.integers(2, size=(N, 1)) - 0.5), size=(N, d))
    return two, fake.normal(scale=np.sqrt(1.0 + distance**2), size=(N, d))


def sphere(rng: np.random.Generator, d: int, radius: float) -> Array:
    points = rng.normal(size=(N, d))
    points *= radius / np.linalg.norm(points, axis=1, keepdims=True)
    return points


def spheres(real: np.random.Generator, fake: np.random.Generator, d: int, radius: float) -> Pair:
    return sphere(real, d, 1.0), sphere(fake, d, radius)


def cubes(real: np.random.Generator, fake: np.random.Generator, d: int, n_fake: float, *, n_real: int = 0) -> Pair:
    """Unit cubes that share a fifth of their volume; as many real rows as fake ones by default."""
    start = 1.0 - 0.2 ** (1.0 / d)
    return real.random((n_real or int(n_fake), d)), start + fake.random((int(n_fake), d))


def ball(rng: np.random.Generator, n: int) -> Array:
    points = rng.normal(size=(n, 3))
    points *= 0.8 * rng.random((n, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    return points


def ring(rng: np.random.Generator, n: int) -> Array:
    """A torus around the ball that does not touch it: radii 1 and 0.1."""
    turn, tilt = 2.0 * np.pi * rng.random((2, n))
    thickness = 0.1 * np.sqrt(rng.random(n))
    from_axis = 1.0 + thickness * np.cos(tilt)
    return np.column_stack([from_axis * np.cos(turn), from_axis * np.sin(turn), thickness * np.sin(tilt)])


def ball_and_ring(real: np.random.Generator, fake: np.random.Generator, d: int, n_fake: float, *, swap: bool) -> Pair:
    laws = (ring, ball) if swap else (ball, ring)
    return laws[0](real, N), laws[1](fake, int(n_fake))


def one_feature_scaled(real: np.random.Generator, fake: np.random.Generator, d: int, unit: float) -> Pair:
    """The laws are apart in the first feature; the second is the same, in another unit."""
    units = np.array([1.0, unit])
    return real.normal(size=(N, d)) * units, fake.normal([6.0, 0.0], size=(N, d)) * units


def with_pareto(real: np.random.Generator, fake: np.random.Generator, d: int, mean: float) -> Pair:
    """The first feature is shifted, the second has hardly a finite mean."""
    pair = [
        np.column_stack([rng.normal(m, size=N), rng.pareto(1.01, size=N)]) for rng, m in ((real, 0.0), (fake, mean))
    ]
    return pair[0], pair[1]


def one_feature_apart(real: np.random.Generator, fake: np.random.Generator, d: int, n_equal: float) -> Pair:
    """The laws are apart in one feature and equal in all others."""
    size = (N, 1 + int(n_equal))
    return real.normal(size=size), fake.normal(np.append(6.0, np.zeros(int(n_equal))), size=size)


def whole_numbers(real: np.random.Generator, fake: np.random.Generator, d: int, scale: float, *, side: int) -> Pair:
    """One set is rounded to whole numbers."""
    pair = [real.normal(scale=scale, size=(N, d)), fake.normal(scale=scale, size=(N, d))]
    pair[side] = np.round(pair[side])
    return pair[0], pair[1]


_ENDS = {1: 6.0, 8: 3.0, 64: 1.0}
_APART = (near(0.0, FIRST), near(0.0, LAST))
_SHIFT = {"bounds": (near(1.0, MIDDLE), *_APART), "purpose": (peaks,)}
_KEPT = {"bounds": (near(1.0, FIRST), near(1.0, LAST)), "purpose": (steady(0),)}
_SHARED = {"purpose": (near(0.2, LAST),)}
_DISJOINT = {"bounds": (near(0.0, LAST),), "purpose": (steady(MIDDLE),)}
_NOTHING = {"bounds": _APART, "purpose": (steady(0),)}
_DROPPED = (0.0, 0.5, 0.95, 0.975, 1.0)

CHECKS = (
    Check(name="mean shifted", draw=shifted, cases=line(*_ENDS.items()), fidelity=_SHIFT, diversity=_SHIFT),
    *(
        Check(
            name="mean shifted, one outlier",
            variant=variant,
            draw=functools.partial(with_outlier, end=_ENDS, side=side),
            cases=line(*_ENDS.items()),
            fidelity=_SHIFT,
            diversity=_SHIFT,
        )
        for side, variant in enumerate(("real", "fake"))
    ),
    Check(
        name="deviation scaled",
        draw=scaled,
        cases=powers((1, 3.0), (8, 1.0), (64, 0.5)),
        fidelity={"bounds": (near(1.0, FIRST), near(1.0, MIDDLE), near(0.0, LAST)), "purpose": (falls,)},
        diversity={
            "bounds": (near(0.0, FIRST), near(1.0, MIDDLE), wide(LAST)),
            "purpose": (either(low=peaks, high=rises),),
        },
    ),
    Check(
        name="nine of ten modes fade",
        draw=nine_modes_rarer,
        cases=every(_DROPPED, 1, 8, 64),
        fidelity=_KEPT,
        diversity={"bounds": (near(1.0, FIRST),), "purpose": (falls_before(_DROPPED.index(0.95)),)},
    ),
    Check(
        name="modes vanish one by one",
        draw=modes_missing,
        cases=every((0, 2, 4, 7, 9), 1, 8, 64),
        fidelity=_KEPT,
        diversity={"bounds": (near(1.0, FIRST),), "purpose": (falls_before(MIDDLE),)},
    ),
    Check(
        name="modes dropped, then invented",
        draw=modes_invented,
        cases=every((1, 3, 5, 7, 10), 2),
        fidelity={"bounds": (near(1.0, FIRST), near(1.0, MIDDLE)), "purpose": (falls,)},
        diversity={"bounds": (near(1.0, MIDDLE), near(1.0, LAST)), "purpose": (rises,)},
    ),
    Check(
        name="two modes melt into one",
        draw=one_wide_mode,
        cases=every(np.linspace(0.0, 5.0, 5), 1, 8, 64),
        fidelity={"bounds": (near(1.0, FIRST),), "purpose": (falls,)},
        diversity={"bounds": (near(1.0, FIRST),), "purpose": (either(low=falls, high=steady(0)),)},
    ),
    Check(
        name="spheres of other radius",
        draw=spheres,
        cases=every(np.linspace(0.1, 1.9, 5), 2, 16, 64),
        fidelity=_SHIFT,
        diversity=_SHIFT,
    ),
    Check(
        name="cubes, more rows a side",
        draw=cubes,
        cases=every(SIZES, 1, 8, 64),
        fidelity={"data": (steady(SIZES.index(N)),), **_SHARED},
        diversity={"data": (steady(SIZES.index(N)),), **_SHARED},
    ),
    Check(
        name="cubes, more fake rows",
        draw=functools.partial(cubes, n_real=N),
        cases=every(SIZES, 1, 8, 64),
        fidelity={"settings": (steady(SIZES.index(N)),), **_SHARED},
        diversity={"settings": (steady(SIZES.index(N)),), **_SHARED},
    ),
    *(
        Check(
            name="ball and ring",
            variant=variant,
            draw=functools.partial(ball_and_ring, swap=swap),
            cases=every(SIZES, 3),
            fidelity=_DISJOINT,
            diversity=_DISJOINT,
        )
        for variant, swap in (("real ball", False), ("real ring", True))
    ),
    Check(
        name="one feature in other units",
        draw=one_feature_scaled,
        cases=powers((2, 3.0)),
        fidelity={"bounds": _APART, "scale": (steady(0),)},
        diversity={"bounds": _APART, "scale": (steady(0),)},
    ),
    Check(
        name="mean shifted, one heavy tail", draw=with_pareto, cases=line((2, 6.0)), fidelity=_SHIFT, diversity=_SHIFT
    ),
    Check(
        name="one feature apart, others equal",
        draw=one_feature_apart,
        cases=(Case(None, (1, 3, 7, 15, 63)),),
        fidelity=_NOTHING,
        diversity=_NOTHING,
    ),
    Check(
        name="whole and real numbers",
        variant="real whole",
        draw=functools.partial(whole_numbers, side=0),
        cases=every(np.logspace(0, 3, 5), 1),
        fidelity=_NOTHING,
        diversity={"bounds": (wide(FIRST), wide(LAST)), "purpose": (steady(0),)},
    ),
    Check(
        name="whole and real numbers",
        variant="fake whole",
        draw=functools.partial(whole_numbers, side=1),
        cases=every(np.logspace(0, 3, 5), 1),
        fidelity=_KEPT,
        diversity=_NOTHING,
    ),
)


# --- Measuring ---------------------------------------------------------------------------------------------------


def scores_of(metric: Metric, real: Array, fake: Array, seed: int) -> dict[str, float]:
    """The scores of one call on one thread, without warnings: a curve shows what they warn of."""
    taken = inspect.signature(metric.function).parameters
    options = {name: value for name, value in (("random_state", seed), ("n_threads", 1)) if name in taken}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableScoreWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # 0/0, which is NaN and passes no check
        scores: dict[str, float] = metric.function(real, fake, **options).scores()
    return scores


def kinds(metric: Metric) -> dict[str, Kind]:
    """Find which scores measure fidelity and which diversity; a score that measures both at once is left out.

    Such a score, as F1 or FID, does not change when real and fake change places. Of the others, those that hardly fall
    when the fake set lacks one of two modes measure fidelity, the rest measures diversity.
    """
    rng = np.random.default_rng(SEED)
    first, second = (rng.normal(size=(N, 8)) + 100.0 * (np.arange(N) < N // 2)[:, None] for _ in range(2))
    one_mode = rng.normal(size=(N, 8))
    perfect, lacking, exchanged = (
        scores_of(metric, real, fake, SEED) for real, fake in ((first, second), (first, one_mode), (one_mode, first))
    )
    return {
        name: "fidelity" if lacking[name] >= perfect[name] - LARGE else "diversity"
        for name in lacking
        if not np.isclose(lacking[name], exchanged[name], rtol=1e-6)
    }


def curves_of(metric: Metric, check: Check, case: Case, repeats: int) -> dict[str, Array]:
    """The mean scores at every value. Features are standardised by the real ones, as in the paper."""
    found = []
    for repeat in range(repeats):
        # The real set is the same at every value, unless its law or its size is what moves.
        key = [SEED, zlib.crc32(f"{check.name} {check.variant}".encode()), case.d or 0, repeat]
        for i, value in enumerate(case.values):
            rngs = np.random.default_rng([*key, 0]), np.random.default_rng([*key, 1, i])
            real, fake = check.draw(*rngs, case.d or 0, value)
            mean, deviation = real.mean(axis=0), real.std(axis=0)
            found.append(scores_of(metric, (real - mean) / deviation, (fake - mean) / deviation, repeat))
    shape = (repeats, len(case.values))
    return {name: np.array([one[name] for one in found]).reshape(shape).mean(axis=0) for name in found[0]}


def judge(rows: Sequence[Row], kind: Kind, dimensions: Sequence[int] | None = None) -> dict[str, bool]:
    """Whether the curves of one score pass each check and desideratum, in these numbers of features or in all.

    A check that has none of these numbers of features is left out.
    """
    readings: dict[str, Readings] = {}
    by_check = {(check.name, check.variant): check for check in CHECKS}
    for row in rows:
        if dimensions is not None and row["d"] not in dimensions:
            continue
        for desideratum, rules in by_check[row["check"], row["variant"]].rules(kind).items():
            key = f"{row['check']}: {desideratum}"
            for rule in rules:
                readings[key] = readings.get(key, EVERY) & rule(np.array(row["scores"], dtype=float))
    return {key: bool(found) for key, found in readings.items()}


def measure(metrics: Mapping[str, Metric], repeats: int) -> list[Row]:
    """The curves of every score that measures fidelity or diversity."""
    found = {name: kinds(metric) for name, metric in metrics.items()}
    rows = []
    cases = [(check, case) for check in CHECKS for case in check.cases]
    for (name, scores), (check, case) in tqdm([*itertools.product(((n, s) for n, s in found.items() if s), cases)]):
        curves = curves_of(metrics[name], check, case, repeats)
        rows += [
            {
                "metric": name,
                "score": score,
                "kind": kind,
                "check": check.name,
                "variant": check.variant,
                "d": case.d,
                "values": [float(f"{value:.4g}") for value in case.values],
                "scores": [round(float(one), 4) if np.isfinite(one) else None for one in curves[score]],
            }
            for score, kind in scores.items()
        ]
    return rows


def by_score(rows: Sequence[Row]) -> dict[tuple[str, str, Kind], list[Row]]:
    found: dict[tuple[str, str, Kind], list[Row]] = {}
    for row in rows:
        found.setdefault((row["metric"], row["score"], row["kind"]), []).append(row)
    return found


def summary(rows: Sequence[Row]) -> list[Row]:
    """How many checks each score passes: in every number of features that they have, and within each range of them."""
    counted = []
    for (metric, score, kind), found in by_score(rows).items():
        passed = judge(found, kind)
        groups = {name: judge(found, kind, dimensions) for name, dimensions in GROUPS.items()}
        counted.append(
            {
                "metric": metric,
                "score": score,
                "kind": kind,
                "passed": sum(passed.values()),
                "of": len(passed),
                "by_dimensions": {name: [sum(one.values()), len(one)] for name, one in groups.items()},
                "failed": [key for key, right in passed.items() if not right],
            }
        )
    return sorted(counted, key=lambda row: (row["kind"] != "fidelity", -row["passed"]))


def tables(rows: Sequence[Row], repeats: int) -> str:
    counts = [
        [
            f"{row['metric']}: {row['score']}",
            row["kind"],
            f"{row['passed']} of {row['of']}",
            *("{} of {}".format(*row["by_dimensions"][name]) for name in GROUPS),
        ]
        for row in summary(rows)
    ]
    parts = [
        "# Sanity checks",
        "How many of the sanity checks of Räisä, van Breugel and van der Schaar (ICML 2025) each fidelity and "
        "diversity score of the library passes, with default options. A check passes if it does so in every number of "
        "features that it has, as in the paper; the columns behind count it within a range of them. One feature apart "
        "among equal ones has all numbers from 2 to 64, and counts only in the total. Scores that measure fidelity and "
        "diversity at once, such as F1, MAUVE or FID, are left out.",
        tabulate(counts, ["score", "measures", "passed", *(f"d = {name}" for name in GROUPS)], tablefmt="github"),
        "What is asked: " + "; ".join(f"{name}: {meaning}" for name, meaning in DESIDERATA.items()) + ".",
    ]
    for kind in ("fidelity", "diversity"):
        passed = {f"{m}: {s}": judge(found, k) for (m, s, k), found in by_score(rows).items() if k == kind}
        keys = list(dict.fromkeys(key for one in passed.values() for key in one))
        lines = [[key, *("yes" if one[key] else "-" for one in passed.values())] for key in keys]
        parts += [f"## {kind.capitalize()}", tabulate(lines, ["check", *passed], tablefmt="github")]
    command = COMMAND.removesuffix(" --out benchmarks/results")
    return "\n\n".join([*parts, f"Means over {repeats} repeats, {N} rows a side. Written by `{command}`."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for sanity.json and sanity.md; default: only print")
    parser.add_argument("--only", help="only these metrics, separated by commas; default: all of features")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="draws of every set (default: %(default)s)")
    arguments = parser.parse_args()
    metrics = metrics_of_features()
    chosen = arguments.only.split(",") if arguments.only else list(metrics)
    rows = measure({name: metrics[name] for name in chosen}, arguments.repeats)
    text = tables(rows, arguments.repeats)
    print(text)
    if arguments.out:
        description = machine()
        head = {"machine": description, "command": COMMAND, "repeats": arguments.repeats, "n": N, "seed": SEED}
        curves = ",\n".join(f"  {json.dumps(row)}" for row in rows)  # one line each
        content = json.dumps({**head, "scores": summary(rows)}, indent=1).removesuffix("\n}")
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.out / "sanity.json", f'{content},\n "curves": [\n{curves}\n ]\n}}\n')
        write_whole(arguments.out / "sanity.md", f"{text}\n{description['processor']}.\n")


if __name__ == "__main__":
    main()
