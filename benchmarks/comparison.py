"""Simulate how often two models are told apart: that score alike, and that do not.

    python -m benchmarks.comparison --out benchmarks/results     an hour on one core
    python -m benchmarks.comparison --repeats 20 --only fid      print only

Every repeat draws new samples. The test of equal scores is :func:`egtmetrics.compare_models`, for disparities
:func:`egtmetrics.compare_frames`. Beside it stands the permutation test, whose null hypothesis is equal laws.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from egtmetrics import (
    GenerativeMetricFrame,
    compare_frames,
    compare_models,
    frechet_distance,
    improved_precision_recall,
    kernel_distance,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics._atomic import write_whole
from egtmetrics.groups import permutation_test_models
from egtmetrics.registry import metric_of

SEED = 16
N_PERMUTATIONS = 39
Array = NDArray[Any]
Law = Callable[[np.random.Generator, int], Array]


def shifted(by: float, scale: float = 1.0, d: int = 8) -> Law:
    """Normal, shifted along the first axis."""
    return lambda rng, n: scale * rng.normal(size=(n, d)) + by * (np.arange(d) == 0)


def clusters(*missing: int, d: int = 8) -> Law:
    """Ten clusters, equally likely, less those that are missing."""
    centres = 4.0 * np.random.default_rng(5).normal(size=(10, d))
    kept = np.setdiff1d(np.arange(10), missing)
    return lambda rng, n: centres[rng.choice(kept, size=n)] + rng.normal(size=(n, d))


@dataclasses.dataclass(frozen=True)
class Case:
    """One metric and score, the laws of the real samples and of both models, and whether the models score alike."""

    what: str
    metric: Callable[..., Any]
    score: str
    laws: tuple[Law, Law, Law]
    alike: bool
    n: int = 500
    share: float = 1.0
    """The share of the repeats to run; slow cases get fewer."""
    permuted: float = 0.25
    """The share of these in which the permutation test runs, too."""

    @property
    def name(self) -> str:
        known = metric_of(self.metric)
        assert known is not None
        return f"{known.name} {self.score}, {self.what}"

    def run(self, repeat: int, *, permute: bool) -> dict[str, float]:
        rng = np.random.default_rng([SEED, zlib.crc32(self.name.encode()), repeat])
        samples = [law(rng, self.n) for law in self.laws]
        options: dict[str, Any] = {"metric": self.metric, "score": self.score, "random_state": repeat}
        found = compare_models(*samples, n_threads=1, **options)
        record = {"difference": found.difference, "error": found.standard_error, "p": found.p_value}
        if permute:
            record["permuted"] = permutation_test_models(*samples, n_permutations=N_PERMUTATIONS, **options).p_value
        return record


@dataclasses.dataclass(frozen=True)
class DisparityCase:
    """FID in several groups: how far the fake samples of each group are shifted, in both models."""

    what: str
    shifts: tuple[tuple[float, ...], tuple[float, ...]]
    alike: bool
    n: int = 300
    share: float = 1.0
    permuted: float = 0.0

    @property
    def name(self) -> str:
        return f"fid delta_fid, {self.what}"

    def run(self, repeat: int, *, permute: bool) -> dict[str, float]:
        del permute
        rng = np.random.default_rng([SEED, zlib.crc32(self.name.encode()), repeat])
        groups = np.repeat(np.arange(len(self.shifts[0])), self.n)
        real = shifted(0.0)(rng, len(groups))
        frames = [
            GenerativeMetricFrame(
                metrics="fid",
                real=real,
                fake=np.concatenate([shifted(by)(rng, self.n) for by in of_model]),
                real_sensitive_features=groups,
                fake_sensitive_features=groups,
                random_state=repeat,
                n_threads=1,
            )
            for of_model in self.shifts
        ]
        row = compare_frames(*frames).iloc[-1]
        width = (row["high"] - row["low"]) / 2.0
        return {"difference": row["difference"], "error": width / 1.96, "p": row["p_value"]}


_COVERAGE = functools.partial(Case, metric=precision_recall_density_coverage, score="coverage")
_IPR = functools.partial(Case, metric=improved_precision_recall)
_FID = functools.partial(Case, metric=frechet_distance, score="fid")
_KID = functools.partial(
    Case,
    metric=functools.partial(kernel_distance, subset_size=500, n_subsets=1),
    score="kid",
    share=0.5,
    permuted=0.0,
)
_TOPP = functools.partial(
    Case, metric=functools.partial(topp_precision_recall, n_bootstrap=100), n=300, share=0.5, permuted=0.0
)
_OPPOSITE = (shifted(0.0), shifted(0.5), shifted(-0.5))
_EQUAL = (shifted(0.0), shifted(0.7, 0.9), shifted(0.7, 0.9))
_PERFECT = (shifted(0.0), shifted(0.0), shifted(0.0))
_MISSING = (clusters(), clusters(0, 1), clusters(2, 3))
CASES: tuple[Case | DisparityCase, ...] = (
    *(
        make(what=what, laws=laws, alike=True)
        for make in (_FID, _KID)
        for what, laws in (("opposite shifts", _OPPOSITE), ("equal laws", _EQUAL), ("perfect models", _PERFECT))
    ),
    _COVERAGE(what="other clusters missing", laws=_MISSING, alike=True),
    _COVERAGE(what="equal laws", laws=_EQUAL, alike=True),
    _IPR(what="other clusters missing", score="recall", laws=_MISSING, alike=True),
    _IPR(what="opposite shifts", score="precision", laws=_OPPOSITE, alike=True),
    _TOPP(what="opposite shifts", score="precision", laws=_OPPOSITE, alike=True),
    _TOPP(what="equal laws", score="recall", laws=_EQUAL, alike=True),
    DisparityCase(what="opposite groups", shifts=((0.7, 0.0), (0.0, 0.7)), alike=True),
    DisparityCase(what="one group, or two of four", shifts=((0.7, 0.0, 0.0, 0.0), (0.7, 0.7, 0.0, 0.0)), alike=True),
    DisparityCase(what="no groups", shifts=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), alike=True),
    _FID(what="shifts by 0.5 and 0.7", laws=(shifted(0.0), shifted(0.5), shifted(-0.7)), alike=False),
    _COVERAGE(what="1 and 2 clusters missing", laws=(clusters(), clusters(0), clusters(2, 3)), alike=False),
    _TOPP(
        what="shifts by 0.5 and 1.5", score="precision", laws=(shifted(0.0), shifted(0.5), shifted(1.5)), alike=False
    ),
    DisparityCase(what="shifts by 0.5 and 0.9", shifts=((0.5, 0.0), (0.9, 0.0)), alike=False),
)


def row(case: Case | DisparityCase, records: Sequence[dict[str, float]]) -> list[Any]:
    """The name; repeats; rejections of the test of equal scores, and of the permutation test; error over deviation."""
    differences, errors, p_values = (
        np.array([record[key] for record in records]) for key in ("difference", "error", "p")
    )
    permuted = [record["permuted"] <= 0.05 for record in records if "permuted" in record]
    return [
        case.name,
        len(records),
        f"{np.mean(p_values <= 0.05):.1%}",
        f"{np.mean(permuted):.0%}" if permuted else "",
        f"{np.sqrt(np.mean(errors**2)) / differences.std(ddof=1):.2f}",
    ]


def page(results: dict[Case | DisparityCase, list[dict[str, float]]]) -> str:
    headers = ["score, models", "repeats", "rejected", "permutation", "error / deviation"]
    tables = {
        "Models that score alike: 5 % should be rejected": True,
        "Models that do not: the more are rejected the better": False,
    }
    parts = [
        f"## {title}\n\n"
        + tabulate([row(case, found) for case, found in results.items() if case.alike == alike], headers, "github")
        for title, alike in tables.items()
    ]
    about = (
        "# Two models, compared\n\nWritten by `python -m benchmarks.comparison`. Tests at 5 %: of equal expected scores"
        f" (rejected), and of equal laws by {N_PERMUTATIONS} permutations, in a quarter of the repeats and for cheap "
        "metrics only (permutation). Standard errors are compared with the standard deviation of the differences; of "
        "disparities, half the width of the interval over 1.96 is. 500 samples of each kind in 8 dimensions (TopP&R "
        "300, disparities 300 a group)."
    )
    return "\n\n".join([about, *parts]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this text")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    args = parser.parse_args(arguments)
    results = {}
    for case in (case for case in CASES if args.only in case.name):
        n_repeats = max(2, round(args.repeats * case.share))
        n_permuted = case.permuted * n_repeats
        results[case] = [
            case.run(repeat, permute=repeat < n_permuted) for repeat in tqdm(range(n_repeats), desc=case.name)
        ]
        print(*row(case, results[case]), sep="  ", flush=True)
    if args.out is not None:
        write_whole(args.out / "comparison.md", page(results))


if __name__ == "__main__":
    main()
