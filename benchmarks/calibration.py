"""Simulate how often intervals cover and tests reject, and how far chance moves delta_p.

    python -m benchmarks.calibration --out benchmarks/results            400 repeats
    python -m benchmarks.calibration --repeats 20 --only fid             try some cases, print only
    python -m benchmarks.calibration --study noise --out benchmarks/results  the noise floor only
    python -m benchmarks.calibration --repeats 0 --out benchmarks/results    tables of the repeats that are finished

Every repeat draws new samples of known laws, new projections and new bootstraps. Repeat i of a case depends only on i
and the case, so a run that was stopped can resume; finished repeats are kept in ``--stages``. Remove that folder after
a change of the statistics. Cases without finished repeats keep their rows in ``--out``.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from egtmetrics import (
    GenerativeMetricFrame,
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics._atomic import write_whole
from egtmetrics.groups import permutation_test

SEED = 20261124
"""The seed of everything that is reported; nothing was tuned on it."""
LEVEL = 0.95
SIZE = 0.05
N_PERMUTATIONS = 39
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """One metric, the samples per group and side, and the law of the fake samples of every group."""

    name: str
    metric: Callable[..., Any]
    n: int
    d: int
    laws: tuple[str, ...]
    share: float = 1.0
    """The share of the repeats to run; slow cases get fewer."""
    permutation: bool = False
    noise_only: bool = False
    """Measure the precision of two groups, without intervals and tests."""

    @property
    def equal(self) -> bool:
        return len(set(self.laws)) == 1

    @property
    def studies(self) -> tuple[str, ...]:
        if self.noise_only:
            return ("noise",)
        return ("intervals", "noise") if self.metric is _TOPP and self.equal else ("intervals",)


_TOPP = topp_precision_recall
PROTOCOLS: dict[str, dict[str, Any]] = {
    "top_pr_10": {"compatibility": "top-pr", "n_bootstrap": 10},
    "top_pr_1000": {"compatibility": "top-pr", "n_bootstrap": 1000},
    "library_10": {"n_bootstrap": 10},
    "library_1000": {"n_bootstrap": 1000},
}
"""The protocols whose noise is compared: each bandwidth rule, with few and many replicates. The last is the default."""
_KID = functools.partial(kernel_distance, subset_size=500, n_subsets=1)
PARTS = ("data", "projections", "threshold")
CASES = (
    Case("topp-8-wide", _TOPP, 500, 8, ("wide", "wide")),
    Case("topp-8-shifted", _TOPP, 1000, 8, ("shifted", "shifted")),
    Case("topp-8-unequal", _TOPP, 500, 8, ("wide", "narrow")),
    Case("topp-8-four-groups", _TOPP, 300, 8, ("wide",) * 4),
    Case("topp-24-wide", _TOPP, 1000, 24, ("wide", "wide"), share=0.5),
    Case("topp-24-narrow", _TOPP, 1000, 24, ("narrow", "narrow"), share=0.5),
    Case("topp-24-unequal", _TOPP, 1000, 24, ("wide", "narrow"), share=0.5),
    Case("topp-32-same", _TOPP, 1000, 32, ("same", "same"), share=0.5),
    Case("topp-48-wide", _TOPP, 1000, 48, ("wide", "wide"), share=0.25),
    Case("topp-384-same", _TOPP, 1000, 384, ("same", "same"), share=0.25),
    Case("noise-384-same-2000", _TOPP, 2000, 384, ("same", "same"), share=0.15, noise_only=True),
    Case("prdc", precision_recall_density_coverage, 500, 8, ("narrow", "narrow")),
    Case("fid", frechet_distance, 500, 8, ("narrow", "narrow")),
    Case("fid-unequal", frechet_distance, 500, 8, ("wide", "narrow")),
    Case("fid-near", frechet_distance, 500, 8, ("near", "near")),
    Case("fid-same", frechet_distance, 500, 8, ("same", "same")),
    Case("kid", _KID, 500, 8, ("narrow", "narrow")),
    Case("kid-unequal", _KID, 500, 8, ("wide", "narrow")),
    Case("kid-near", _KID, 500, 8, ("near", "near")),
    Case("kid-same", _KID, 500, 8, ("same", "same")),
    Case(
        "permutation",
        functools.partial(_TOPP, n_bootstrap=100),
        150,
        4,
        ("wide", "wide"),
        permutation=True,
    ),
)


def draw(rng: np.random.Generator, n: int, d: int, law: str) -> NDArray[np.float32]:
    """Draw Gaussians. ``same`` is the real law, ``near`` almost; ``wide`` has low precision, the others low recall."""
    x = rng.standard_normal((n, d)) * np.linspace(1.5, 0.5, d)
    if law == "wide":
        x[:, : d // 4] *= 1.3
        x[:, d // 2 :] *= 0.85
        x[:, 0] += 0.7
    elif law == "narrow":
        x[:, : d // 2] *= 0.85
        x[:, d // 2 :] *= 1.1
        x[:, 0] += 0.7
    elif law == "shifted":
        x[:, d // 2 :] *= 0.8
        x[:, 1] += 1.0
    elif law == "near":
        x[:, 0] += 0.3
    return x.astype(np.float32)


def sample(case: Case, i: int) -> tuple[dict[str, Any], np.random.Generator]:
    """Features and groups of one repeat, and the generator for further draws."""
    rng = np.random.default_rng([SEED, zlib.crc32(case.name.encode()), i])
    labels = [f"g{g}" for g in range(len(case.laws))]
    groups = np.repeat(labels, case.n)
    data: dict[str, Any] = {
        "real": np.concatenate([draw(rng, case.n, case.d, "same") for _ in case.laws]),
        "fake": np.concatenate([draw(rng, case.n, case.d, law) for law in case.laws]),
        "real_sensitive_features": groups,
        "fake_sensitive_features": groups,
        "random_state": int(rng.integers(2**32)),
        "n_threads": 1,
    }
    return data, rng


def measure_intervals(case: Case, i: int) -> Record:
    """Estimates, interval ends and p-values."""
    data, _ = sample(case, i)
    labels = [f"g{g}" for g in range(len(case.laws))]
    if case.permutation:
        test = permutation_test(metric=case.metric, score="precision", n_permutations=N_PERMUTATIONS, **data)
        return {"permutation_p": test.p_value}
    frame = GenerativeMetricFrame(metrics={"m": case.metric}, **data)
    intervals = frame.interval(LEVEL)
    columns = [str(column) for column in frame.by_group]
    return {
        "scores": {
            column: intervals.by_group.loc[column][["value", "low", "high"]].to_numpy().tolist() for column in columns
        },
        "differences": {
            column: [
                *frame.by_group[column].iloc[:2].tolist(),
                *frame.difference_interval(column, labels[0], labels[1]),
            ]
            for column in columns
        },
        "disparities": intervals.disparities.loc[["m"]].droplevel(0)[["low", "high"]].T.to_dict("list"),
        "variance": intervals.variance.loc[["m"]].droplevel(0).T.to_dict(),
        "p_values": frame.test().loc[["m"]].droplevel(0)["p_value"].to_dict(),
    }


def measure_noise(case: Case, i: int) -> Record:
    """Precision of two groups under every protocol."""
    data, rng = sample(case, i)
    return {"precision": _precisions(data, PROTOCOLS, rng)}


MEASURES: dict[str, Callable[[Case, int], Record]] = {"intervals": measure_intervals, "noise": measure_noise}


def _precisions(data: Record, protocols: Iterable[str], rng: np.random.Generator) -> dict[str, list[float]]:
    """The precisions of the first two groups, which share the projections, by protocol."""
    found = {}
    groups = data["real_sensitive_features"]
    for name in protocols:
        metric = functools.partial(_TOPP, n_projections=10, random_state=int(rng.integers(2**32)), n_threads=1)
        found[name] = [
            metric(data["real"][groups == group], data["fake"][groups == group], **PROTOCOLS[name]).precision
            for group in np.unique(groups)[:2]
        ]
    return found


def binomial_error(share: float, n: int) -> float:
    """Monte-Carlo standard error of a share whose nominal value is ``share``."""
    return math.sqrt(share * (1.0 - share) / n)


def coverage_rows(case: Case, records: Sequence[Record]) -> list[Record]:
    """Shares of intervals that hold the true value: 0 between groups of one law, else the mean over the repeats."""
    m = len(records)
    error = binomial_error(LEVEL, m)
    rows = []
    for column in records[0]["differences"]:
        a, b, low, high = np.array([record["differences"][column] for record in records]).T
        centre = 0.0 if case.equal else float((a - b).mean())
        # Errors against the mean of the repeats themselves are too small by this factor.
        errors = np.abs(a - b - centre) * (1.0 if case.equal else math.sqrt(m / (m - 1)))
        deviation = float(np.sqrt(((a - b - centre) ** 2).sum() / (m if case.equal else m - 1)))
        by_group = np.array([record["scores"][column] for record in records])  # (M, G, 3)
        truth = by_group[..., 0].mean(axis=(0, 1) if case.equal else 0)
        inside = (by_group[..., 1] <= truth) & (truth <= by_group[..., 2])
        rows.append(
            {
                "case": case.name,
                "score": column.removeprefix("m_"),
                "repeats": m,
                "deviation": deviation,
                "standard_error": float(np.sqrt((((high - low) / 2 / 1.959964) ** 2).mean())),
                "difference_coverage": float((errors <= (high - low) / 2).mean()),
                "score_coverage": float(inside.mean()),
                "monte_carlo_error": error,
            }
        )
    return rows


def test_rows(case: Case, records: Sequence[Record]) -> list[Record]:
    """Rejections at 5 %: the size between groups of one law, the power elsewhere."""
    m = len(records)
    if case.permutation:
        found = {"permutation_test of precision": [record["permutation_p"] for record in records]}
    else:
        names = records[0]["p_values"]
        found = {f"frame.test of {name}": [record["p_values"][name] for record in records] for name in names}
    return [
        {
            "case": case.name,
            "test": name,
            "law of the groups": "one" if case.equal else "two",
            "repeats": m,
            "rejected": sum(p <= SIZE for p in p_values) / m,
            # A power is estimated with one more test of each outcome, so that 100 % also has an error.
            "monte_carlo_error": binomial_error(
                SIZE if case.equal else (1 + sum(p <= SIZE for p in p_values)) / (m + 2), m
            ),
        }
        for name, p_values in found.items()
    ]


def noise_row(case: Case, records: Sequence[Record]) -> Record:
    """Standard deviation of the difference in precision of two groups of one law, in points, by rule and replicates.

    The threshold's share of a variance at B = 10 is the part that more replicates remove.
    """
    scores = {name: 100 * np.array([record["precision"][name] for record in records]) for name in PROTOCOLS}
    squares = {name: np.diff(pairs, axis=1).ravel() ** 2 for name, pairs in scores.items()}
    row: Record = {"case": case.name, "n": case.n, "d": case.d, "repeats": len(records)}
    for rule in ("top_pr", "library"):
        few, many = f"{rule}_10", f"{rule}_1000"
        row[f"{rule}_mean_precision"] = float(scores[many].mean())
        row |= {name: float(np.sqrt(squares[name].mean())) for name in (few, many)}
        row[f"{rule}_ratio"], row[f"{rule}_ratio_error"] = _ratio(squares[few], squares[many])
        row[f"{rule}_threshold_share"] = 1.0 - row[f"{rule}_ratio"] ** -2
    row["defaults_ratio"], row["defaults_ratio_error"] = _ratio(squares["top_pr_10"], squares["library_1000"])
    return row


def parts_row(case: Case, records: Sequence[Record]) -> Record:
    """Shares of samples, projections and bootstrap in the variance of delta_p, as the library estimates them."""
    parts = pd.DataFrame([record["variance"]["delta_p"] for record in records]).mean()
    return {"case": case.name, **{name: float(parts[name] / parts["total"]) for name in PARTS}}


def _ratio(few: NDArray[np.float64], many: NDArray[np.float64]) -> tuple[float, float]:
    """Ratio of two root mean squares over the same repeats, and its standard error from 200 bootstraps of them."""
    drawn = np.random.default_rng(0).integers(len(few), size=(200, len(few)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.sqrt(few[drawn].mean(axis=1) / many[drawn].mean(axis=1))
        return float(np.sqrt(few.mean() / many.mean())), float(ratios.std())


def report(records: Mapping[tuple[str, str], Sequence[Record]], earlier: Mapping[str, Any]) -> dict[str, list[Record]]:
    """Rows by table, from the records of every case and study; cases without records keep their earlier rows."""
    content: dict[str, list[Record]] = {"coverage": [], "tests": [], "noise": [], "parts": []}
    for case in CASES:
        found: dict[str, list[Record]] = {}
        intervals, noise = (records.get((case.name, study), ()) for study in MEASURES)
        if len(intervals) > 1:
            found["tests"] = test_rows(case, intervals)
            found["coverage"] = [] if case.permutation else coverage_rows(case, intervals)
            found["parts"] = [parts_row(case, intervals)] if case.metric is _TOPP and case.equal else []
        if len(noise) > 1:
            found["noise"] = [noise_row(case, noise)]
        for table, rows in content.items():
            kept = [row for row in earlier.get(table, ()) if row["case"] == case.name]
            rows += found.get(table, kept)
    return content


def markdown(content: dict[str, list[Record]]) -> str:
    def table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
        return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)

    coverage = [
        [
            row["case"],
            row["score"],
            str(row["repeats"]),
            f"{row['deviation']:.4f}",
            f"{row['standard_error']:.4f}",
            f"{row['difference_coverage']:.1%}",
            f"{row['score_coverage']:.1%}",
            f"{row['monte_carlo_error']:.1%}",
        ]
        for row in content["coverage"]
    ]
    tests = [
        [
            *(str(row[name]) for name in ("case", "test", "law of the groups", "repeats")),
            f"{row['rejected']:.1%}",
            f"{row['monte_carlo_error']:.1%}",
        ]
        for row in content["tests"]
    ]
    noise = [
        [
            row["case"],
            *(str(row[name]) for name in ("n", "d", "repeats")),
            name,
            f"{row[f'{rule}_mean_precision']:.0f}",
            f"{row[f'{rule}_10']:.2f}",
            f"{row[f'{rule}_1000']:.2f}",
            f"{row[f'{rule}_ratio']:.2f} ± {row[f'{rule}_ratio_error']:.2f}",
            f"{row[f'{rule}_threshold_share']:.0%}",
        ]
        for row in content["noise"]
        for rule, name in (("top_pr", "top-pr"), ("library", "library"))
    ]
    parts = {row["case"]: row for row in content["parts"]}
    defaults = [
        [
            row["case"],
            f"{row['top_pr_10']:.2f}",
            f"{row['library_1000']:.2f}",
            f"{row['defaults_ratio']:.2f} ± {row['defaults_ratio_error']:.2f}",
            *(f"{parts[row['case']][name]:.0%}" if row["case"] in parts else "" for name in PARTS),
        ]
        for row in content["noise"]
    ]
    sections = (
        "# Calibration",
        "Written by `python -m benchmarks.calibration`, from Gaussian samples of known laws. Errors are Monte-Carlo "
        "standard errors at the nominal value.",
        "## Coverage of 95 % intervals",
        table(
            coverage,
            [
                "case",
                "score",
                "repeats",
                "deviation of a - b",
                "its standard error (rms)",
                "cover a - b",
                "cover scores",
                "Monte-Carlo error",
            ],
        ),
        "## Rejections at 5 %: the size if the groups have one law, the power if they have two",
        table(tests, ["case", "test", "laws", "repeats", "rejected", "Monte-Carlo error"]),
        "## Noise floor: standard deviation of the difference in precision of two groups of one law, in points",
        "Ten projections where d > 32, one evaluation elsewhere. Each bandwidth rule has 10 and 1000 bootstrap "
        "replicates, on the same samples. The threshold's share of the variance at B = 10 is the part that B = 1000 "
        "removes. The samples cause the rest, with the projections as far as they do not cancel.",
        table(
            noise,
            ["case", "n", "d", "repeats", "rule", "mean precision", "B = 10", "B = 1000", "ratio", "threshold, B = 10"],
        ),
        "The protocol of top-pr (its rule, B = 10) against the library's defaults (its own rule, B = 1000). The two "
        "rules give scores of different levels. The shares of the variance are the library's own estimates.",
        table(defaults, ["case", "top-pr, B = 10", "library, B = 1000", "ratio", *PARTS]),
    )
    return "\n\n".join(sections) + "\n"


def read_stage(path: Path) -> dict[int, Record]:
    """Finished repeats of one case by number; a line that was cut off by a kill is left out."""
    records: dict[int, Record] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            number, record = json.loads(line)
        except ValueError:
            continue
        records[number] = record
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for calibration.json and .md; default: only print")
    parser.add_argument("--repeats", type=int, default=400, help="samples per case (default: %(default)s)")
    parser.add_argument("--only", help="only cases whose name starts with this")
    parser.add_argument("--study", choices=list(MEASURES), help="only this study of every case (default: both)")
    parser.add_argument(
        "--stages",
        type=Path,
        default=Path("build/calibration"),
        help="folder of finished repeats (default: %(default)s)",
    )
    arguments = parser.parse_args()
    stages = {
        (case.name, study): arguments.stages / f"{case.name}-{study}.jsonl"
        for case in CASES
        for study in case.studies
        if case.name.startswith(arguments.only or "") and study in ([arguments.study] if arguments.study else MEASURES)
    }
    done = {key: read_stage(path) for key, path in stages.items()}
    by_name = {case.name: case for case in CASES}
    arguments.stages.mkdir(parents=True, exist_ok=True)
    for i in tqdm(range(arguments.repeats), desc="repeats"):
        for (name, study), path in stages.items():
            share = by_name[name].share
            if i in done[name, study] or math.floor((i + 1) * share) == math.floor(i * share):
                continue
            done[name, study][i] = MEASURES[study](by_name[name], i)
            with path.open("a") as stage:  # the newline comes first: it ends a line that was cut off by a kill
                stage.write("\n" + json.dumps([i, done[name, study][i]]))
    earlier = arguments.out / "calibration.json" if arguments.out else None
    content = report(
        {key: list(records.values()) for key, records in done.items()},
        json.loads(earlier.read_text()) if earlier and earlier.exists() else {},
    )
    text = markdown(content)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        settings = {"seed": SEED, "level": LEVEL, "size": SIZE, "n_permutations": N_PERMUTATIONS}
        write_whole(arguments.out / "calibration.json", json.dumps({"settings": settings, **content}, indent=1) + "\n")
        write_whole(arguments.out / "calibration.md", text)


if __name__ == "__main__":
    main()
