"""Simulate how far chance moves the difference in TopP&R precision of two groups of one law, by protocol.

    python -m benchmarks.noise --out benchmarks/results               ten hours on one core
    python -m benchmarks.noise --repeats 20 --only 8-wide             try some cases, print only
    python -m benchmarks.noise --repeats 0 --out benchmarks/results   tables of the repeats that are finished

A run that was stopped can resume; finished repeats are kept in ``--stages``. Cases without finished repeats keep their
rows in ``--out``.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.stages import Record, Stage, run
from egtmetrics import topp_precision_recall
from egtmetrics._atomic import write_whole

SEED = 20261124
PROTOCOLS: dict[str, dict[str, Any]] = {
    "top_pr_10": {"compatibility": "top-pr", "n_bootstrap": 10},
    "top_pr_1000": {"compatibility": "top-pr", "n_bootstrap": 1000},
    "library_10": {"n_bootstrap": 10},
    "library_1000": {"n_bootstrap": 1000},
}
"""Each bandwidth rule, with few and many replicates. The last is the library's default."""


@dataclasses.dataclass(frozen=True)
class Case:
    """The samples per group and side, their dimension, and the law of the generated ones."""

    n: int
    d: int
    law: str
    share: float = 1.0
    """The share of the repeats to run; slow cases get fewer."""

    @property
    def name(self) -> str:
        return f"{self.d}-{self.law}-{self.n}"


CASES = (
    Case(500, 8, "wide"),
    Case(1000, 8, "shifted"),
    Case(300, 8, "wide"),
    Case(1000, 24, "wide", share=0.2),
    Case(1000, 24, "narrow", share=0.2),
    Case(1000, 32, "same", share=0.2),
    Case(1000, 48, "wide", share=0.05),
    Case(1000, 384, "same", share=0.05),
    Case(2000, 384, "same", share=0.1),
)


def draw(rng: np.random.Generator, n: int, d: int, law: str) -> NDArray[np.float32]:
    """Draw Gaussians. ``same`` is the real law; ``wide`` has low precision, the others low recall."""
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
    return x.astype(np.float32)


def measure(case: Case, i: int) -> Record:
    """Precision of two groups, which share the projections, under every protocol."""
    rng = np.random.default_rng([SEED, zlib.crc32(case.name.encode()), i])
    groups = [tuple(draw(rng, case.n, case.d, law) for law in ("same", case.law)) for _ in range(2)]
    found: Record = {}
    for name, options in PROTOCOLS.items():
        seed = int(rng.integers(2**32))
        metric = functools.partial(topp_precision_recall, n_projections=10, random_state=seed, n_threads=1, **options)
        found[name] = [metric(real, fake).precision for real, fake in groups]
    return found


def row(case: Case, records: Sequence[Record]) -> Record:
    """Standard deviation of the difference in precision of two groups of one law, in points, by rule and replicates.

    The threshold's share of a variance at B = 10 is the part that more replicates remove.
    """
    scores = {name: 100 * np.array([record[name] for record in records]) for name in PROTOCOLS}
    squares = {name: np.diff(pairs, axis=1).ravel() ** 2 for name, pairs in scores.items()}
    found: Record = {"law": case.law, "n": case.n, "d": case.d, "repeats": len(records)}
    for rule in ("top_pr", "library"):
        few, many = f"{rule}_10", f"{rule}_1000"
        found[f"{rule}_mean_precision"] = float(scores[many].mean())
        found |= {name: float(np.sqrt(squares[name].mean())) for name in (few, many)}
        found[f"{rule}_ratio"], found[f"{rule}_ratio_error"] = ratio(squares[few], squares[many])
        found[f"{rule}_threshold_share"] = 1.0 - found[f"{rule}_ratio"] ** -2
    found["defaults_ratio"], found["defaults_ratio_error"] = ratio(squares["top_pr_10"], squares["library_1000"])
    return found


def ratio(few: NDArray[np.float64], many: NDArray[np.float64]) -> tuple[float, float]:
    """Ratio of two root mean squares over the same repeats, and its standard error from 200 bootstraps of them."""
    drawn = np.random.default_rng(0).integers(len(few), size=(200, len(few)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.sqrt(few[drawn].mean(axis=1) / many[drawn].mean(axis=1))
        return float(np.sqrt(few.mean() / many.mean())), float(ratios.std())


def markdown(rows: Sequence[Record]) -> str:
    table = [
        [
            one["law"],
            *(str(one[name]) for name in ("n", "d", "repeats")),
            name,
            f"{one[f'{rule}_mean_precision']:.0f}",
            f"{one[f'{rule}_10']:.2f}",
            f"{one[f'{rule}_1000']:.2f}",
            f"{one[f'{rule}_ratio']:.2f} ± {one[f'{rule}_ratio_error']:.2f}",
            f"{one[f'{rule}_threshold_share']:.0%}",
            "" if rule == "top_pr" else f"{one['defaults_ratio']:.2f} ± {one['defaults_ratio_error']:.2f}",
        ]
        for one in rows
        for rule, name in (("top_pr", "top-pr"), ("library", "library"))
    ]
    headers = ["law", "n", "d", "repeats", "rule", "mean precision", "B = 10", "B = 1000", "ratio", "threshold, B = 10"]
    headers.append("top-pr, B = 10, over library, B = 1000")
    return (
        "# Noise of a difference in precision\n\n"
        "Written by `python -m benchmarks.noise`: standard deviation of the difference in TopP&R precision of two "
        "groups of one Gaussian law, in points. Ten projections where d > 32, one evaluation elsewhere. Each bandwidth "
        "rule has B = 10 and B = 1000 bootstrap replicates, on the same samples. The threshold's share of the variance "
        "at B = 10 is the part that B = 1000 removes. The samples cause the rest, with the projections as far as they "
        "do not cancel. The last column compares the protocol of top-pr with the library's defaults, whose scores have "
        "different levels. Errors are Monte-Carlo standard errors.\n\n"
        + tabulate(table, headers=headers, tablefmt="github", disable_numparse=True)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for noise.json and .md; default: only print")
    parser.add_argument("--repeats", type=int, default=300, help="samples per case (default: %(default)s)")
    parser.add_argument("--only", default="", help="only cases whose name starts with this")
    parser.add_argument(
        "--stages", type=Path, default=Path("build/noise"), help="folder of finished repeats (default: %(default)s)"
    )
    arguments = parser.parse_args()
    chosen = [case for case in CASES if case.name.startswith(arguments.only)]
    stages = [Stage(case.name, functools.partial(measure, case), case.share) for case in chosen]
    finished = dict(zip(chosen, run(stages, arguments.repeats, arguments.stages), strict=True))
    saved = arguments.out / "noise.json" if arguments.out else None
    earlier = json.loads(saved.read_text())["rows"] if saved and saved.exists() else []
    known = {Case(one["n"], one["d"], one["law"]).name: one for one in earlier}
    known |= {case.name: row(case, records) for case, records in finished.items() if len(records) > 1}
    rows = [known[case.name] for case in CASES if case.name in known]
    print(markdown(rows))
    if saved:
        write_whole(saved, json.dumps({"seed": SEED, "rows": rows}, indent=1) + "\n")
        write_whole(saved.with_suffix(".md"), markdown(rows))


if __name__ == "__main__":
    main()
