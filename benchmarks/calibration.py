"""Simulate how often intervals cover and tests reject, on many laws.

    python -m benchmarks.calibration --out benchmarks/results               two hours on one core
    python -m benchmarks.calibration --repeats 20 --only "Student t3"       try some laws, print only
    python -m benchmarks.calibration --repeats 0 --out benchmarks/results   the page of the repeats that are finished

Every repeat draws new samples, new projections and new bootstraps. Repeat i of a case depends only on i and the case,
so a run that was stopped can resume; finished repeats are kept in ``--stages``. Remove that folder after a change of
the statistics.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tabulate import tabulate

from benchmarks import laws
from benchmarks.stages import Record, Stage, run
from egtmetrics import (
    GenerativeMetricFrame,
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics._atomic import write_whole
from egtmetrics.groups import GroupSizeWarning
from egtmetrics.metrics import clipped_density_coverage, precision_recall_cover
from egtmetrics.results import UnreliableScoreWarning

SEED = 20261206
"""The seed of everything that is reported; nothing was tuned on it."""
LEVEL, SIZE = 0.95, 0.05
TOLERANCE = 0.02
"""A coverage or a size falls short if it misses by more than this, and by more than two Monte-Carlo errors."""
QUANTILE = stats.norm.isf((1.0 - LEVEL) / 2.0)
DIFFERENCES, SCORES, TESTS = "intervals of differences", "intervals of scores", "tests of scores"

METRICS: dict[str, dict[str, Any]] = {
    "topp": {"topp": topp_precision_recall},
    "clipped": {"clipped": clipped_density_coverage},
    "others": {
        "fid": frechet_distance,
        "prdc": precision_recall_density_coverage,
        "kid": functools.partial(kernel_distance, subset_size=100, n_subsets=10),
        "cover": precision_recall_cover,
    },
}
"""The defaults of the command line, and three more, by study. TopP&R costs as much as all others together."""


@dataclasses.dataclass(frozen=True)
class Case:
    """The law of all groups, and by group the share of its generated samples off the data and its sizes."""

    law: str
    damage: tuple[float, ...]
    sizes: tuple[tuple[int, int], ...]
    """Real and generated samples."""
    share: float = 1.0
    """The share of the repeats to run; slow cases get fewer."""
    topp_share: float = 0.5
    """That of TopP&R."""

    @property
    def equal(self) -> bool:
        """Whether the groups have equal expected scores."""
        return len(set(self.damage)) == len(set(self.sizes)) == 1

    @property
    def name(self) -> str:
        generated = " and ".join(
            f"{share:.0%} off the data" if share else "perfect" for share in dict.fromkeys(self.damage)
        )
        sizes = " and ".join(str(n) if n == m else f"{n} real, {m} generated" for n, m in dict.fromkeys(self.sizes))
        groups = f"{len(self.sizes)} groups of " if len(self.sizes) > 2 else ""
        return f"{self.law}; {generated}; {groups}{sizes}"

    def stage(self, study: str) -> Stage:
        share = self.topp_share if study == "topp" else self.share
        return Stage(f"{self.name} {study}", functools.partial(measure, self, study), share)


LAWS: dict[str, laws.Law] = {
    "Gaussian, d = 8": laws.normal(),
    "Student t3, d = 8": laws.student(),
    "Poisson counts, d = 6": laws.counts(),
    "ten unequal clusters, d = 32": laws.clusters(32),
    "manifold of 5 dimensions, d = 64": laws.manifold(),
    "digits, d = 64": laws.digits(),
    "sentences, d = 384": laws.texts,
}
GAUSSIAN, STUDENT, COUNTS, CLUSTERS, MANIFOLD, DIGITS, SENTENCES = LAWS
PERFECT, DAMAGED = (0.0, 0.0), (0.1, 0.1)
SMALL, LARGE = ((300, 300),) * 2, ((400, 400),) * 2
"""With 32 features or more, TopP&R takes 160 neighbours and needs larger groups than the others."""
CASES = (
    *(Case(law, damage, SMALL) for law in (GAUSSIAN, STUDENT, COUNTS) for damage in (PERFECT, DAMAGED)),
    *(Case(law, damage, SMALL, topp_share=0.0) for law in (CLUSTERS, DIGITS) for damage in (PERFECT, DAMAGED)),
    *(Case(law, PERFECT, SMALL, topp_share=0.0) for law in (MANIFOLD, SENTENCES)),
    *(Case(CLUSTERS, damage, LARGE, share=0.0) for damage in (PERFECT, DAMAGED)),
    # Above 32 features it averages ten projections, and costs ten times as much.
    *(Case(law, PERFECT, LARGE, share=0.0, topp_share=0.2) for law in (MANIFOLD, DIGITS, SENTENCES)),
    Case(GAUSSIAN, (0.1, 0.3), SMALL),
    Case(GAUSSIAN, (0.1,) * 6, ((150, 150),) * 6, share=0.5, topp_share=0.25),
    Case(GAUSSIAN, DAMAGED, ((400, 150),) * 2),
    Case(GAUSSIAN, DAMAGED, ((100, 100), (2000, 2000)), share=0.25, topp_share=0.25),
)


def measure(case: Case, study: str, i: int) -> Record:
    """Scores with their intervals by group, the difference of the first two groups with its interval, and p-values."""
    rng = np.random.default_rng([SEED, zlib.crc32(case.name.encode()), i])
    law = LAWS[case.law]
    sides = [law(rng, n, m) for n, m in case.sizes]
    labels = np.array([f"g{g}" for g in range(len(sides))])
    real_sizes, fake_sizes = np.transpose(case.sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupSizeWarning)
        warnings.simplefilter("ignore", UnreliableScoreWarning)
        frame = GenerativeMetricFrame(
            metrics=METRICS[study],
            real=np.concatenate([real for real, _ in sides]),
            fake=np.concatenate(
                [
                    laws.off_support(fake, share, rng, distance=3.0 * laws.spread(law))
                    for (_, fake), share in zip(sides, case.damage, strict=True)
                ]
            ),
            real_sensitive_features=labels.repeat(real_sizes),
            fake_sensitive_features=labels.repeat(fake_sizes),
            random_state=int(rng.integers(2**32)),
            n_threads=1,
        )
        by_group = frame.interval(LEVEL).by_group
        tests = frame.test().drop(index="proportions")
    scores = {
        column: metric if len(frame.scores(metric).columns) == 1 else f"{metric} {score}"
        for column, (metric, score) in zip(
            frame.by_group.columns,
            [(metric, score) for metric in METRICS[study] for score in frame.scores(metric).columns],
            strict=True,
        )
    }
    return {
        "scores": {
            name: by_group.loc[column][["value", "low", "high"]].to_numpy().tolist() for column, name in scores.items()
        },
        "differences": {
            name: [*frame.by_group[column].iloc[:2].tolist(), *frame.difference_interval(column, *labels[:2].tolist())]
            for column, name in scores.items()
        },
        "p_values": {f"{metric} {disparity}": float(p) for (metric, disparity), p in tests["p_value"].items()}
        | {f"any, {study}": float(tests["adjusted_p_value"].min())},
    }


def coverage_rows(case: Case, records: Sequence[Record]) -> list[Record]:
    """Shares of intervals that hold the expected value: the mean over the repeats, or 0 between equal groups."""
    rows = []
    for score in records[0]["scores"]:
        a, b, low, high = np.array([record["differences"][score] for record in records]).T
        truth = 0.0 if case.equal else float((a - b).mean())
        by_group = np.array([record["scores"][score] for record in records])  # (M, G, 3)
        expected = by_group[..., 0].mean(axis=(0, 1) if case.equal else 0)
        inside = (by_group[..., 1] <= expected) & (expected <= by_group[..., 2])
        rows.append(
            {
                "case": case.name,
                "score": score,
                "repeats": len(records),
                "expected": by_group[..., 0].mean(axis=0).tolist(),
                "deviation": float(np.sqrt(((a - b - truth) ** 2).mean())),
                "standard_error": float(np.sqrt((((high - low) / (2.0 * QUANTILE)) ** 2).mean())),
                "difference_coverage": float(((low <= truth) & (truth <= high)).mean()),
                "score_coverage": float(inside.mean()),
                "intervals": inside.size,
            }
        )
    return rows


def test_rows(case: Case, records: Sequence[Record]) -> list[Record]:
    """Rejections at 5 %: false ones where the groups have one law and the same damage, else the power."""
    return [
        {
            "case": case.name,
            "test": test,
            "false": len(set(case.damage)) == 1,
            "repeats": len(records),
            "rejected": float(np.mean([record["p_values"][test] <= SIZE for record in records])),
        }
        for test in records[0]["p_values"]
    ]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A share of repeats that is promised to be 95 % at least, or 5 % at most."""

    case: str
    kind: str
    name: str
    share: float
    n: int
    """Of how many intervals or tests it is the share."""

    @property
    def promised(self) -> float:
        return LEVEL if self.kind.startswith("intervals") else SIZE

    @property
    def error(self) -> float:
        """Monte-Carlo standard error at the promised value."""
        return math.sqrt(self.promised * (1.0 - self.promised) / self.n)

    @property
    def limit(self) -> float:
        """Two errors from the promised value, and two points at least."""
        margin = max(2.0 * self.error, TOLERANCE)
        return self.promised - margin if self.promised == LEVEL else self.promised + margin

    @property
    def short(self) -> bool:
        return self.share < self.limit if self.promised == LEVEL else self.share > self.limit

    @property
    def by_chance(self) -> float:
        """The probability that it falls short although the promise is kept exactly."""
        found = stats.binom(self.n, self.promised)
        edge = self.n * self.limit
        return float(found.cdf(math.ceil(edge) - 1) if self.promised == LEVEL else found.sf(math.floor(edge)))


def figures(content: Mapping[str, Sequence[Record]]) -> list[Figure]:
    """All that this study and that of placebos promise."""

    def of_study() -> Iterator[Figure]:
        for row in content["coverage"]:
            case, score = row["case"], row["score"]
            yield Figure(case, DIFFERENCES, score, row["difference_coverage"], row["repeats"])
            yield Figure(case, SCORES, score, row["score_coverage"], row["intervals"])
        for row in content["tests"]:
            if row["false"]:
                yield Figure(row["case"], TESTS, row["test"], row["rejected"], row["repeats"])
        for row in content["placebo"]:
            for test in row["false"]:
                yield Figure(row["case"], f"tests of the {test}", row["disparity"], row[test], row["repeats"])

    return list(of_study())


def shortfalls(judged: Sequence[Figure]) -> str:
    """A list with one point for each law, the worst first, and how long it would be by chance."""
    by_case: dict[str, list[Figure]] = {}
    for figure in judged:
        if figure.short:
            by_case.setdefault(figure.case, []).append(figure)
    points = []
    for case in sorted(by_case, key=lambda case: -max(abs(one.share - one.promised) for one in by_case[case])):
        parts = []
        for kind in dict.fromkeys(one.kind for one in by_case[case]):
            verb = "held" if kind.startswith("intervals") else "rejected"
            named = ", ".join(
                f"`{one.name}` {100 * one.share:.0f} ± {100 * one.error:.0f} %"
                for one in by_case[case]
                if one.kind == kind
            )
            parts.append(f"{kind} {verb} {named}")
        points.append(f"- **{case}**: {'; '.join(parts)}.")
    n_short = sum(map(len, by_case.values()))
    return "\n".join(points) + (
        f"\n\nThese are {n_short} of {len(judged)} figures that were judged. If all promises were kept exactly, "
        f"about {sum(one.by_chance for one in judged):.0f} would stand here by chance."
    )


def markdown(content: Mapping[str, Sequence[Record]]) -> str:
    judged = figures(content)
    short = {(one.case, one.kind, one.name) for one in judged if one.short}

    def cell(case: str, kind: str, name: str, share: float) -> str:
        text = f"{100 * share:.0f}"
        return f"**{text}**" if (case, kind, name) in short else text

    def table(rows: Sequence[Record], column: str, text: Callable[[Record], str]) -> str:
        """Cases by scores or tests, in the order of their first appearance."""
        columns = list(dict.fromkeys(row[column] for row in rows))
        by_case: dict[str, dict[str, Record]] = {}
        for row in rows:
            by_case.setdefault(row["case"], {})[row[column]] = row
        lines = [
            [
                case,
                " / ".join(dict.fromkeys(str(row["repeats"]) for row in found.values())),
                *(text(found[name]) if name in found else "" for name in columns),
            ]
            for case, found in by_case.items()
        ]
        headers = ["groups", "repeats", *(name.replace("clipped clipped_", "clipped ") for name in columns)]
        return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)

    def covered(row: Record) -> str:
        return " / ".join(
            (
                cell(row["case"], DIFFERENCES, row["score"], row["difference_coverage"]),
                cell(row["case"], SCORES, row["score"], row["score_coverage"]),
            )
        )

    def rejected(row: Record) -> str:
        return cell(row["case"], TESTS, row["test"], row["rejected"])

    most, least = (f([row["repeats"] for row in content["coverage"]]) for f in (max, min))
    sections = [
        "# How often intervals hold and tests reject",
        "Written by `python -m benchmarks.calibration`. Every repeat draws new samples, projections and bootstraps. "
        f'± and "error" are Monte-Carlo standard errors where the promise is kept: {_error(most)} points at {most} '
        f"repeats, {_error(least)} at {least}. TopP&R, which is slow, has fewer: its number comes first.",
        "## What falls short",
        f"Intervals that held less than {LEVEL - TOLERANCE:.0%} of the time, and tests of equal groups that rejected "
        f"more than {SIZE + TOLERANCE:.0%}, each if it is more than two Monte-Carlo errors from what is promised. "
        "Tests of the excess and of the ratio are those of baselines, from the [study of placebos](placebo.md).",
        shortfalls(judged),
        "Scores depend on the number of samples. So groups of 100 and 2000 have unequal expected scores, and tests of "
        "the scores find that; a frame warns of it. Its baseline compares groups at equal sizes. For Student's t with "
        "three degrees of freedom the kernel distance has no expected value and the Fréchet distance no variance, so "
        "no interval of theirs holds in general. The ratio of groups with equal damage is equal for precision only.",
        "## Coverage of 95 % intervals, in per cent",
        "Of the difference between the first two groups / of the scores of single groups. Both groups have one law, "
        "and the generator is perfect, or a share of its samples is moved off the data by three standard deviations. "
        "The numbers are samples of each group and side. The expected values are the means over the repeats, and 0 "
        "for differences of equal groups. What falls short is bold; 99 and 100 mean that intervals are wider than "
        "they need be.",
        table(content["coverage"], "score", covered),
        "The manifold is the sine of random projections of five normal numbers. Of Poisson counts, most rows occur "
        "more than once. The digits are scikit-learn's 1797, as pixels; the sentences are those of Python's reference "
        "manual, under the default text encoder. Of these two finite populations, no item is drawn twice for a group.",
        "## Rejections of tests at 5 %, in per cent",
        "False ones, except where 10 % and 30 % are off the data: there it is the power. `any, topp` is any adjusted "
        "p-value of TopP&R, `any, others` of the Fréchet and kernel distance, PRDC and cover together.",
        table(content["tests"], "test", rejected),
        "## Further studies",
        "- [Perfect and damaged generators](placebo.md): how often groups of unlike laws are called unequal, by their "
        "scores, by their excess over other real samples and by the ratio to these.\n"
        "- [Two models](comparison.md): size, power and standard errors where two models are compared on the same "
        "real samples.\n"
        "- [Defects](defects.md): signal and noise of every score for six kinds of damage in four laws.\n"
        "- [Verdicts](../../docs/adr/0025-verdicts.md): how often a gap as large as the tolerance is called within "
        "it or beyond it.\n"
        "- [Noise](noise.md): how far chance moves a difference in TopP&R precision, by bandwidth rule and number "
        "of bootstrap replicates.",
    ]
    return "\n\n".join(sections) + "\n"


def _error(repeats: int) -> str:
    return f"{100 * math.sqrt(LEVEL * (1.0 - LEVEL) / repeats):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for calibration.json and .md; default: only print")
    parser.add_argument("--repeats", type=int, default=200, help="samples per case (default: %(default)s)")
    parser.add_argument("--only", default="", help="only cases whose name starts with this")
    parser.add_argument(
        "--stages",
        type=Path,
        default=Path("build/calibration"),
        help="folder of finished repeats (default: %(default)s)",
    )
    parser.add_argument(
        "--placebo",
        type=Path,
        default=Path("benchmarks/results/placebo.json"),
        help="what benchmarks.placebo wrote (default: %(default)s)",
    )
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.name.startswith(arguments.only)]
    chosen = [(case, stage) for case in cases for stage in map(case.stage, METRICS) if stage.share]
    finished = run([stage for _, stage in chosen], arguments.repeats, arguments.stages)
    known = [(case, records) for (case, _), records in zip(chosen, finished, strict=True) if records]
    content = {
        "coverage": [row for case, records in known for row in coverage_rows(case, records)],
        "tests": [row for case, records in known for row in test_rows(case, records)],
    }
    placebo = json.loads(arguments.placebo.read_text())["rows"] if arguments.placebo.exists() else []
    text = markdown({**content, "placebo": placebo})
    print(text)
    if arguments.out:
        settings = {"seed": SEED, "level": LEVEL, "size": SIZE}
        write_whole(arguments.out / "calibration.json", json.dumps({"settings": settings, **content}, indent=1) + "\n")
        write_whole(arguments.out / "calibration.md", text)


if __name__ == "__main__":
    main()
