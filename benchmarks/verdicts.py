"""How often a gap that is exactly as large as the tolerance is called within it, or beyond it, in per cent.

    python -m benchmarks.verdicts [--repeats N] [--only WORDS]

Prints a table, and the binomial error of its figures. At most 5 are promised. "within 2 x" is how often a gap is called
within twice its size: the power. One group is damaged: a share of its generated samples is off the data (precision near
1 for the others, by many neighbours), or all are shifted. With 200 repeats the cases take half an hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from egtmetrics import GenerativeMetricFrame, frechet_distance, precision_recall_density_coverage
from egtmetrics.results import MetricResult, share

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision(MetricResult):
    """The precision of k-nearest neighbours alone."""

    precision: float = share(label="precision")


def precision(real: Any, fake: Any, *, n_neighbors: int, **options: Any) -> Precision:
    found = precision_recall_density_coverage(real, fake, n_neighbors=n_neighbors, **options)
    return Precision(precision=found.precision, backend=found.backend, n_real=len(real), n_fake=len(fake))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    metric: Callable[..., Any]
    damage: Callable[[Floats, np.random.Generator], Floats]
    n: int
    n_groups: int = 2
    excess: bool = False


def off_the_data(share_of_samples: float) -> Callable[[Floats, np.random.Generator], Floats]:
    def damage(fake: Floats, rng: np.random.Generator) -> Floats:
        bad = rng.random(len(fake)) < share_of_samples
        return np.where(bad[:, None], 1000.0 + 100.0 * rng.normal(size=fake.shape), fake)

    return damage


def shifted(distance: float) -> Callable[[Floats, np.random.Generator], Floats]:
    return lambda fake, rng: fake + distance * (np.arange(fake.shape[1]) == 0)


def cases() -> list[Case]:
    prdc = functools.partial(precision_recall_density_coverage, n_neighbors=5)
    near_1 = functools.partial(precision, n_neighbors=20)
    return [
        Case(name="precision, .97 against .998", metric=near_1, damage=off_the_data(0.03), n=100),
        Case(name="precision, .95 against .998", metric=near_1, damage=off_the_data(0.05), n=100),
        Case(name="precision, .95 against .998", metric=near_1, damage=off_the_data(0.05), n=100, n_groups=6),
        Case(name="precision, recall, coverage", metric=prdc, damage=off_the_data(0.3), n=100),
        Case(name="precision, recall, coverage", metric=prdc, damage=off_the_data(0.3), n=100, n_groups=3),
        Case(name="precision, recall, coverage, excess", metric=prdc, damage=off_the_data(0.1), n=200, excess=True),
        Case(name="FID, shift .5", metric=frechet_distance, damage=shifted(0.5), n=100),
        Case(name="FID, shift .5", metric=frechet_distance, damage=shifted(0.5), n=300, n_groups=6),
        Case(name="FID, shift .7, excess", metric=frechet_distance, damage=shifted(0.7), n=100, excess=True),
        Case(name="FID, shift .7, excess", metric=frechet_distance, damage=shifted(0.7), n=300, excess=True),
        Case(
            name="FID, shift .7, excess", metric=frechet_distance, damage=shifted(0.7), n=300, n_groups=3, excess=True
        ),
    ]


def rates(case: Case, repeats: int) -> list[Any]:
    scores, bounds = [], []
    for seed in range(repeats):
        rng = np.random.default_rng([11, seed])
        groups = np.repeat(np.arange(case.n_groups), case.n)
        real, fake = rng.normal(size=(2, len(groups), 4))
        fake[groups == 0] = case.damage(fake[groups == 0], rng)
        frame = GenerativeMetricFrame(
            metrics={"m": case.metric},
            real=real,
            fake=fake,
            real_sensitive_features=groups,
            fake_sensitive_features=groups,
            random_state=seed,
            n_threads=1,
        )
        baseline = frame.baseline() if case.excess else None
        verdict = frame.certify(1e-9, baseline=baseline)
        table = frame.tables["m"] if baseline is None else baseline.tables()["m"]
        scores.append([table.values[one.column].to_numpy() for one in table.judged])
        bounds.append((verdict.low, verdict.high))
    mean = np.mean(scores, axis=0)
    gap = np.abs(mean[:, 0] - mean[:, 1:].mean(axis=1)).max()  # the other groups have one law
    low, high = np.transpose(bounds)
    shown = [100.0 * np.mean(wrong) for wrong in (high < gap, low > gap, high < 2.0 * gap)]
    return [case.name, case.n, case.n_groups, f"{gap:.3g}", *(f"{rate:.1f}" for rate in shown)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for case in cases():
        if args.only in case.name:
            rows.append(rates(case, args.repeats))
            print(*rows[-1], flush=True)
    headers = ["gap", "n", "groups", "size", "within", "beyond", "within 2 x"]
    print(tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True))
    print(
        f"\n{args.repeats} repeats; a rate of 5 has a standard error of {100.0 * np.sqrt(0.0475 / args.repeats):.1f}."
    )


if __name__ == "__main__":
    main()
