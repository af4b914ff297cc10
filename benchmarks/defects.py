"""Measure which metric finds which defect of a generator in one of two groups.

    python -m benchmarks.defects --out benchmarks/results --page docs/which-metric.md   nine minutes on one core
    python -m benchmarks.defects --out benchmarks/results --page docs/which-metric.md --tables   from the last run
    python -m benchmarks.defects --only fid,prdc --repeats 10                           some metrics, print only

Two groups follow one law, on both sides; then the generated samples of one group are damaged. Every repeat draws all
samples anew. The signal of a score is its mean difference between the groups, the noise the standard deviation of that
difference. Their ratio gives the power of a two-sided test whose standard error is that deviation.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import itertools
import json
import math
import textwrap
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.run import machine
from egtmetrics import topp_precision_recall
from egtmetrics._atomic import write_whole
from egtmetrics.registry import Metric, registered_metrics
from egtmetrics.results import MetricResult, Score, UnreliableScoreWarning

SEED = 20261204
N = 500
REPEATS, SLOW_SHARE = 60, 0.4
"""Repeats, and the share of them for metrics that average over clusterings or projections."""
SIZE, FOUND, MISSED = 0.05, 0.8, 0.2
"""The size of the test; a defect counts as found from this power on, and as missed up to that one."""
RULER_N, RULER_DIMENSIONS, RULER_REPEATS = 1000, (1, 8, 64), 5
COMMAND = "python -m benchmarks.defects --out benchmarks/results --page docs/which-metric.md"
SCALING = Path(__file__).parent / "results" / "scaling.json"
CHOICE = (
    (
        "numbers beside those of the EGT paper",
        "`topp`",
        "below 320 samples a group, or with one or two features, it may [say nothing](topp.md)",
    ),
    (
        "one distance for each group",
        "`fid`, `kid`",
        "`fid` falls with [more samples](sample-sizes.md) and sees means and covariances only; `kid` does not, but "
        "finds less",
    ),
    (
        "to know whether samples are bad, or missing",
        "precision with recall, density with coverage: `prdc`, `ipr`, `clipped`",
        "precision or recall alone calls some damaged groups the better ones (below)",
    ),
    ("texts, as others report them", "`mauve`", "it sees clusters: what happens within one is lost"),
    (
        "to find copies of training samples",
        "`authenticity`, `egtmetrics report --training DATA`",
        "needs the training set",
    ),
    ("variety without a reference", "`vendi`", "samples off the data raise it"),
    ("a quantity with a meaning: toxicity, length", "`numbers`", "it sees that quantity alone"),
    (
        "scores that can be corrected for [wrong labels](labels.md)",
        "precision and density of `prdc`; `kid`",
        "not recall, coverage, FID or TopP&R",
    ),
    (
        "very many samples",
        "`fid`, `approximate-prdc`",
        "the latter has a [measured error](adr/0014-approximate-mode.md)",
    ),
)
COSTS = (
    "Seconds of one core for one set of n real and n generated samples with 64 features. Time grows as n squared, but "
    "for FID. TopP&R averages ten projections by default above 32 features, at about ten times the costs of one. An "
    "interval costs one to six evaluations more, or 330 smaller ones, [by metric](uncertainty.md). Other metrics were "
    "not timed by themselves; `prd`, `mauve` and `frontier` cluster all samples several times. [All sizes, memory, and "
    "models of the cost](../benchmarks/results/scaling.md); [speed against other "
    "packages](../benchmarks/results/cpu-amd-avx512.md)."
)

Array = NDArray[np.float64]
Function = Callable[..., MetricResult]
Row = dict[str, Any]
Scores = Mapping[str, Mapping[str, float]]
"""The scores of the intact group, named "", and of the other one after each defect."""
DEFAULT, ORIGINAL = "topp", "topp as in top-pr"


# --- Laws --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Law:
    """A law of which a share can be drawn, and whose spread can be shrunk."""

    name: str
    d: int
    draw: Callable[[np.random.Generator, int, int, float, float], Array]
    """``(generator, n, d, share, spread)`` to samples of this share of the law, their deviations times ``spread``."""
    deviation: float = 1.0
    """The standard deviation of a feature; on average within a cluster, if there are any."""

    def sample(self, rng: np.random.Generator, n: int = N, *, share: float = 1.0, spread: float = 1.0) -> Array:
        return self.draw(rng, n, self.d, share, spread)


def gaussian(rng: np.random.Generator, n: int, d: int, share: float, spread: float) -> Array:
    """With a share below 1, the first feature is never among its largest values."""
    return spread * np.column_stack([stats.norm.ppf(share * rng.random(n)), rng.normal(size=(n, d - 1))])


def student(rng: np.random.Generator, n: int, d: int, share: float, spread: float) -> Array:
    return spread * np.column_stack([stats.t.ppf(share * rng.random(n), 3), rng.standard_t(3, size=(n, d - 1))])


CLUSTER_SHARES = np.array([10, 9, 8, 7, 4, 3, 2, 1, 6, 5]) / 55
"""The last two have a fifth of the mass."""


def clusters(rng: np.random.Generator, n: int, d: int, share: float, spread: float) -> Array:
    """Ten clusters of unequal mass and spread; with a share below 1, the last ones are missing."""
    fixed = np.random.default_rng(SEED)
    centres = fixed.normal(scale=3.0, size=(len(CLUSTER_SHARES), d))
    deviations = fixed.permutation(np.linspace(0.5, 1.5, len(CLUSTER_SHARES)))
    kept = CLUSTER_SHARES * (np.cumsum(CLUSTER_SHARES) < share + 1e-9)
    chosen = rng.choice(len(kept), size=n, p=kept / kept.sum())
    return centres[chosen] + spread * deviations[chosen, None] * rng.normal(size=(n, d))


LAWS = (
    Law("Gaussian, d = 8", 8, gaussian),
    Law("Gaussian, d = 64", 64, gaussian),
    Law("ten clusters, d = 32", 32, clusters),
    Law("Student t3, d = 8", 8, student, deviation=math.sqrt(3.0)),
)


# --- Defects -----------------------------------------------------------------------------------------------------


def modes_missing(law: Law, rng: np.random.Generator) -> Array:
    """20 % of the law are never generated: two of ten clusters, else the 20 % with the largest first feature"""
    return law.sample(rng, share=0.8)


def off_the_data(law: Law, rng: np.random.Generator) -> Array:
    """20 % of the samples are uniform in a box that reaches three standard deviations to each side of the mean"""
    x = law.sample(rng)
    box = 3.0 * x.std(axis=0) * rng.uniform(-1.0, 1.0, size=(N // 5, law.d))
    x[: N // 5] = x.mean(axis=0) + box
    return x


def shrunk(law: Law, rng: np.random.Generator) -> Array:
    """the spread (within each cluster) is 90 % of what it should be, as after mild truncation"""
    return law.sample(rng, spread=0.9)


def copies(law: Law, rng: np.random.Generator) -> Array:
    """the samples are drawn with replacement from a fifth as many"""
    return law.sample(rng, N // 5)[rng.integers(N // 5, size=N)]


def noise(law: Law, rng: np.random.Generator) -> Array:
    """every feature gets noise of 30 % of its standard deviation (within a cluster)"""
    return law.sample(rng) + 0.3 * law.deviation * rng.normal(size=(N, law.d))


def shift(law: Law, rng: np.random.Generator) -> Array:
    """all samples are moved by one standard deviation (within a cluster) along the diagonal"""
    return law.sample(rng) + law.deviation / math.sqrt(law.d)


DEFECTS = {f.__name__.replace("_", " "): f for f in (modes_missing, off_the_data, shrunk, copies, noise, shift)}


# --- Simulation --------------------------------------------------------------------------------------------------


def metrics_of_features() -> dict[str, Metric]:
    """All registered metrics but the one that takes a single number for each sample."""
    return {name: metric for name, metric in registered_metrics().items() if name != "numbers"}


def metrics() -> dict[str, Function]:
    """All metrics of features, and TopP&R as the package top-pr computes it."""
    own = {name: metric.function for name, metric in metrics_of_features().items()}
    return own | {ORIGINAL: functools.partial(topp_precision_recall, compatibility="top-pr")}


def call(function: Function, real: Array, fake: Array, seed: int) -> MetricResult:
    """One call on one thread, with default options; subsets (of KID) hold all rows."""
    options = {"random_state": seed, "n_threads": 1, "subset_size": len(real), "n_subsets": 1}
    taken = inspect.signature(function).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableScoreWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # 0/0, which is NaN
        return function(real, fake, **{name: value for name, value in options.items() if name in taken})


def slow_repeats(repeats: int) -> int:
    return math.ceil(SLOW_SHARE * repeats)


def n_repeats(function: Function, law: Law, repeats: int) -> int:
    taken = inspect.signature(function).parameters
    slow = "n_clusterings" in taken or ("n_projections" in taken and law.d > 32)
    return slow_repeats(repeats) if slow else repeats


def simulate(function: Function, law: Law, i: int) -> Scores:
    """One repeat, in which every metric sees the same samples."""

    def rng(part: str) -> np.random.Generator:
        return np.random.default_rng([SEED, zlib.crc32(f"{law.name} {part}".encode()), i])

    intact, damaged = law.sample(rng("intact real")), law.sample(rng("damaged real"))
    # One seed for both groups, as in a frame: they share projections.
    found = {"": call(function, intact, law.sample(rng("intact fake")), i).scores()}
    for name, defect in DEFECTS.items():
        found[name] = call(function, damaged, defect(law, rng(name)), i).scores()
    return found


def power(ratio: float) -> float:
    """The power of a two-sided test at 5 % of a normal difference, if its standard deviation is known."""
    limit = float(stats.norm.isf(SIZE / 2))
    return float(stats.norm.sf(limit - ratio) + stats.norm.cdf(-limit - ratio))


def signal_to_noise(differences: Array) -> Array:
    """Mean over standard deviation along the last axis; 0 for a score that never differs."""
    means, deviations = differences.mean(axis=-1), differences.std(axis=-1, ddof=1)
    ratios: Array = np.divide(means, deviations, out=np.zeros_like(means), where=deviations > 0)
    return ratios


def rows_of(name: str, law: Law, found: Sequence[Scores], described: Mapping[str, Score]) -> list[Row]:
    """Signal and noise of every score and defect."""
    rows = []
    for score, defect in ((score, defect) for score in described for defect in DEFECTS):
        intact, damaged = (np.array([one[key][score] for one in found]) for key in ("", defect))
        ratio = float(signal_to_noise(damaged - intact))
        rows.append(
            {
                "metric": name,
                "score": score,
                "law": law.name,
                "defect": defect,
                "repeats": len(found),
                "intact": float(intact.mean()),
                "damaged": float(damaged.mean()),
                "deviation": float((damaged - intact).std(ddof=1)),
                "signal_to_noise": ratio,
                # The variance of a normal sample's mean over deviation.
                "error": math.sqrt((1.0 + ratio**2 / 2.0) / len(found)),
                "power": power(ratio),
                "looks_better": bool(described[score].loss(damaged.mean()) < described[score].loss(intact.mean())),
            }
        )
    return rows


def compare_protocols(law: Law, default: Sequence[Scores], original: Sequence[Scores]) -> list[Row]:
    """Signal to noise of TopP&R's defaults over that of the original protocol, on the same samples."""
    drawn = np.random.default_rng(0).integers(len(default), size=(200, len(default)))
    rows = []
    for score, defect in itertools.product(default[0][""], DEFECTS):
        ours, theirs = (
            np.array([one[defect][score] - one[""][score] for one in found]) for found in (default, original)
        )
        signals = float(signal_to_noise(ours)), float(signal_to_noise(theirs))
        # Where a protocol does not see the defect, a ratio would be one of noise.
        seen = min(map(abs, signals)) >= 1.0 and signals[0] * signals[1] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = signal_to_noise(ours[drawn]) / signal_to_noise(theirs[drawn])
        rows.append(
            {
                "law": law.name,
                "score": score,
                "defect": defect,
                "repeats": len(default),
                "library": signals[0],
                "original": signals[1],
                "ratio": signals[0] / signals[1] if seen else None,
                "ratio_error": float(ratios[np.isfinite(ratios)].std()) if seen else None,
                "deviation_ratio": float(ours.std() / theirs.std()),
            }
        )
    return rows


def ruler(functions: Mapping[str, Function], repeats: int) -> list[Row]:
    """What a perfect generator scores: Gaussian samples on both sides."""
    rows = []
    for (name, function), d in tqdm([*itertools.product(functions.items(), RULER_DIMENSIONS)], desc="ruler"):
        found = []
        for i in range(repeats):
            real, fake = np.random.default_rng([SEED, d, i]).normal(size=(2, RULER_N, d))
            found.append(call(function, real, fake, i).scores())
        rows += [
            {"metric": name, "score": score, "d": d, "mean": float(np.mean([one[score] for one in found]))}
            for score in found[0]
        ]
    return rows


def run(functions: Mapping[str, Function], repeats: int) -> dict[str, list[Row]]:
    rows, protocols = [], []
    raw: dict[tuple[str, str], list[Scores]] = {}
    for (name, function), law in tqdm([*itertools.product(functions.items(), LAWS)], desc="defects"):
        found = [simulate(function, law, i) for i in range(n_repeats(function, law, repeats))]
        x = np.random.default_rng(0).normal(size=(N, 8))
        described = call(function, x, x, 0).describe()
        rows += rows_of(name, law, found, described)
        raw[name, law.name] = found
    for law in LAWS if {DEFAULT, ORIGINAL} <= set(functions) else ():
        protocols += compare_protocols(law, raw[DEFAULT, law.name], raw[ORIGINAL, law.name])
    return {"defects": rows, "protocols": protocols, "ruler": ruler(functions, RULER_REPEATS)}


# --- Tables ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What one score makes of one defect, over the laws."""

    powers: tuple[float, ...]
    looks_better: tuple[bool, ...]

    @property
    def found(self) -> tuple[bool, ...]:
        """In which laws a test finds the defect and blames the damaged group."""
        return tuple(p >= FOUND and not wrong for p, wrong in zip(self.powers, self.looks_better, strict=True))

    @property
    def misled(self) -> bool:
        """Whether a test in some law takes the damaged group for the better one."""
        return any(p >= FOUND and wrong for p, wrong in zip(self.powers, self.looks_better, strict=True))

    @property
    def missed(self) -> bool:
        return max(self.powers) <= MISSED

    def __str__(self) -> str:
        low, high = (f"{100 * p:.0f}" for p in (min(self.powers), max(self.powers)))
        return (low if low == high else f"{low} to {high}") + (" (!)" if self.misled else "")


def findings(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Finding]]:
    """By metric and score, and by defect; the scores that find most come first."""
    cells: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        by_defect = cells.setdefault((row["metric"], row["score"]), {})
        by_defect.setdefault(row["defect"], []).append(row)
    found = {
        key: {
            defect: Finding(
                powers=tuple(row["power"] for row in by_law),
                looks_better=tuple(row["looks_better"] for row in by_law),
            )
            for defect, by_law in by_defect.items()
        }
        for key, by_defect in cells.items()
    }
    return dict(sorted(found.items(), key=lambda item: -n_found(item[1])))


def labelled(by_score: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """By a label for tables. Metrics whose score has the same numbers share it: a metric and its fast variant."""
    metrics: dict[tuple[str, str], list[str]] = {}
    for (metric, score), numbers in by_score.items():
        metrics.setdefault((score, repr(numbers)), []).append(metric)
    return {
        f"`{', '.join(sorted(metrics[score, repr(numbers)], key=len))}: {score}`": numbers
        for (_, score), numbers in by_score.items()
    }


def by_metric(found: Mapping[tuple[str, str], Mapping[str, Finding]]) -> dict[str, set[tuple[str, int]]]:
    """The cases, a defect in a law, that one score or another of each metric finds; best first."""
    cases: dict[str, set[tuple[str, int]]] = {}
    for (metric, _), one in found.items():
        seen = {(defect, i) for defect in one for i, right in enumerate(one[defect].found) if right}
        cases[metric] = cases.get(metric, set()) | seen
    return dict(sorted(cases.items(), key=lambda item: -len(item[1])))


def best_trio(cases: Mapping[str, set[tuple[str, int]]]) -> tuple[tuple[str, ...], int]:
    """The three metrics that together find most, and how much that is."""
    trios = itertools.combinations(sorted(cases), min(3, len(cases)))
    counts = {trio: len(set().union(*(cases[metric] for metric in trio))) for trio in trios}
    return max(counts.items(), key=lambda item: (item[1], -len("".join(item[0]))))  # of equal ones, the plainest names


def n_found(by_defect: Mapping[str, Finding]) -> int:
    return sum(sum(one.found) for one in by_defect.values())


def table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def choice_table(found: Mapping[str, Mapping[str, Finding]]) -> str:
    """The best scores for each defect, and those that are no use or mislead."""

    def names(chosen: Callable[[Finding], bool], defect: str) -> str:
        return ", ".join(name for name, one in found.items() if chosen(one[defect])) or "none"

    rows = []
    for defect in DEFECTS:
        most = max(sum(one[defect].found) for one in found.values())
        best = names(lambda one, most=most: sum(one.found) == most, defect)  # type: ignore[misc]
        missed, misled = names(lambda one: one.missed, defect), names(lambda one: one.misled, defect)
        rows.append([f"**{defect}**", missed, misled, f"{best} ({most} of {len(LAWS)} laws)"])
    return table(rows, ["defect", "missed by", "damaged group looks better to", "best found by"])


def power_table(found: Mapping[str, Mapping[str, Finding]]) -> str:
    rows = [[name, str(n_found(one)), *(str(one[defect]) for defect in DEFECTS)] for name, one in found.items()]
    return table(rows, ["score", f"found, of {len(LAWS) * len(DEFECTS)}", *DEFECTS])


def cost_table(rows: Sequence[Mapping[str, Any]]) -> str:
    by_case: dict[str, dict[int, str]] = {}
    for row in rows:
        if row["label"] == "measured":
            by_case.setdefault(row["case"], {})[row["n"]] = f"{row['core_seconds']:.3g} s"
    sizes = sorted(set.intersection(*(set(costs) for costs in by_case.values())))
    headers = ["", *(f"n = {n:,}" for n in sizes)]
    return table([[case, *(costs[n] for n in sizes)] for case, costs in by_case.items()], headers)


def ruler_table(rows: Sequence[Row]) -> str:
    means: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        means.setdefault((row["metric"], row["score"]), []).append(f"{row['mean']:.2f}")
    lines = [[name, *numbers] for name, numbers in labelled(means).items()]
    return table(lines, ["score", *(f"d = {d}" for d in RULER_DIMENSIONS)])


def signal_table(rows: Sequence[Row]) -> str:
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        text = f"{row['signal_to_noise']:+.1f} ± {row['error']:.1f}{' (!)' if row['looks_better'] else ''}"
        cells.setdefault((f"{row['metric']}: {row['score']}", row["law"]), []).append(text)
    return table([[*key, *found] for key, found in cells.items()], ["score", "law", *DEFECTS])


def protocol_table(rows: Sequence[Row]) -> str:
    lines = [
        [
            *(row[name] for name in ("law", "score", "defect")),
            str(row["repeats"]),
            f"{row['library']:+.2f}",
            f"{row['original']:+.2f}",
            "-" if row["ratio"] is None else f"{row['ratio']:.2f} ± {row['ratio_error']:.2f}",
            f"{row['deviation_ratio']:.2f}",
        ]
        for row in rows
    ]
    headers = ["law", "score", "defect", "repeats", "library", "original", "ratio", "deviation, library / original"]
    return table(lines, headers)


def protocol_summary(rows: Sequence[Row]) -> str:
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    seen = [row for row in rows if max(abs(row["library"]), abs(row["original"])) >= 1.0]
    if not ratios:
        return "No damage has such signals."
    powers = (f"{np.mean([power(row[name]) for row in seen]):.0%}" for name in ("library", "original"))
    better = sum(abs(row["library"]) > abs(row["original"]) for row in seen)
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return (
        f"These {len(ratios)} ratios lie between {min(ratios):.2f} and {max(ratios):.2f}, half of them between "
        f"{low:.2f} and {high:.2f}, with a median of {median:.2f}. In {len(seen)} of {len(rows)} rows a protocol has a "
        f"signal to noise of at least 1; in {better} of them that of the library is the larger one. The mean power of "
        f"a test at {SIZE:.0%} over these rows is {' against '.join(powers)}."
    )


def report(content: Mapping[str, Any]) -> str:
    sections = (
        "# Defects",
        "Two groups of one law, the generated samples of one damaged. Signal to noise is the mean over the standard "
        "deviation of the difference in score, damaged minus intact, with its Monte-Carlo error; (!) marks a damaged "
        f"group that looks better on average. {N} samples a group and side, default options, KID on all rows, "
        f"{content['repeats']} repeats ({slow_repeats(content['repeats'])} where the metric averages over clusterings "
        "or projections).",
        signal_table(content["defects"]),
        "## TopP&R: the library's defaults against the original protocol",
        "On the same samples: the rule of the library, B = 1000 and, above 32 features, ten projections; and what the "
        'package top-pr does (`compatibility="top-pr"`: its rule, B = 10, one projection). The ratio of the two '
        "signals to noise, with its bootstrap error, stands where both are at least 1 in one direction.",
        protocol_summary(content["protocols"]),
        protocol_table(content["protocols"]),
        "## What a perfect generator scores",
        f"{RULER_N} Gaussian samples a side, mean of {RULER_REPEATS} repeats.",
        ruler_table(content["ruler"]),
        f"{content['machine']['processor']}. Written by `{COMMAND}`.",
    )
    return "\n\n".join(sections) + "\n"


def page(content: Mapping[str, Any]) -> str:
    own, ruler_rows = ([row for row in content[name] if row["metric"] != ORIGINAL] for name in ("defects", "ruler"))
    by_score = findings(own)
    found = labelled(by_score)
    total = len(LAWS) * len(DEFECTS)
    best, worst = next(iter(found)), list(found)[-1]
    unseen = [
        f"{defect} ({law.name})"
        for defect in DEFECTS
        for i, law in enumerate(LAWS)
        if not any(one[defect].found[i] for one in found.values())
    ]
    cases = by_metric(by_score)
    trio, n_trio = best_trio(cases)
    sections = (
        "# Which metric for which defect",
        "A score finds some defects of a generator and is blind to others.",
        "## Choose",
        table(CHOICE, ["you want", "take", "beware"]),
        paragraph(
            "Name metrics and options before you look at the scores, and take more than one. `egtmetrics evaluate "
            "--metrics topp,prdc,fid` has them in one table, with p-values that are [corrected for their "
            "number](uncertainty.md)."
        ),
        "## What finds what",
        paragraph(
            "Here two groups follow one law, the generated samples of one group are damaged, and a test compares the "
            "scores of the groups. Does it find the damage, and which group does it blame?"
        ),
        paragraph(
            f"No score finds everything. Of {total} cases, six damages in four laws, "
            f"the best score, {best}, finds {n_found(found[best])}, and the last, {worst}, {n_found(found[worst])}. "
            f"Found by no score at all: {'; '.join(unseen) or 'none'}. So equal scores are no proof of equal quality: "
            "look up what your metrics miss."
        ),
        paragraph(
            "Several metrics find more than one. With all their scores, each tested at "
            f"{SIZE:.0%}: {', '.join(f'`{name}` {len(seen)}' for name, seen in cases.items())}. Three together find "
            f"{n_trio} at most (`{','.join(trio)}`)."
        ),
        choice_table(found),
        paragraph(
            f"A damage is *found* where a test at {SIZE:.0%} rejects with a power of {FOUND:.0%} or more, and the "
            f"damaged group scores worse. It is *missed* where the power is {MISSED:.0%} or less in all four laws. The "
            "third column is the trap: in one law at least, the test rejects as surely, but the damaged group has the "
            "*better* score. A shrunk generator draws where real samples are dense, which precision rewards; samples "
            "off the data are far from each other, which recall rewards. So never read one of the two alone."
        ),
        "## The damages",
        "\n".join(f"- **{name}**: {inspect.getdoc(defect)}." for name, defect in DEFECTS.items()),
        paragraph(
            f"The laws: {'; '.join(law.name for law in LAWS)}. The clusters differ in mass and spread. {content['n']} "
            f"samples a group and side, {content['repeats']} repeats ({slow_repeats(content['repeats'])} for metrics "
            "that average over clusterings or projections), default options, KID on all rows at once. Larger damages "
            "and more samples are found more often: compare scores with each other, and do not read a power as a "
            "promise. `authenticity` is made to find copies of training samples. Here it takes the real samples for "
            "these, and no damage copies them: the copies above are of generated samples."
        ),
        "## Power",
        paragraph(
            "In percent, from the lowest to the highest of the four laws; (!) where the damaged group looks better in "
            "one of them. Signal, noise and their errors by law are in a "
            "[table of their own](../benchmarks/results/defects.md)."
        ),
        power_table(found),
        "## The ruler itself",
        paragraph(
            f"What a perfect generator scores: both sides are Gaussian with d features, {RULER_N} samples each. A "
            "score that is far from its best value here, or that changes along the line, cannot be compared between "
            "groups of unlike data: take the [excess over other real samples](egt.md). With one feature, TopP&R's "
            "0.00 says nothing ([why, and what to do](topp.md)). How scores behave while a law is moved step by step "
            "is in the [sanity checks](../benchmarks/results/sanity.md)."
        ),
        ruler_table(ruler_rows),
        "## Costs",
        paragraph(COSTS),
        cost_table(json.loads(SCALING.read_text())["rows"]),
        f"Written by `{COMMAND}`.",
    )
    return "\n\n".join(sections) + "\n"


def paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for defects.json and defects.md; default: only print")
    parser.add_argument("--page", type=Path, help="file for the page that explains the tables")
    parser.add_argument(
        "--tables", action="store_true", help="simulate nothing; write tables and page from defects.json"
    )
    parser.add_argument("--only", help="only these metrics, separated by commas; default: all that are registered")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="draws of every set (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.tables:
        content = json.loads((arguments.out / "defects.json").read_text())
    else:
        functions = metrics()
        chosen = arguments.only.split(",") if arguments.only else list(functions)
        head = {"machine": machine(), "command": COMMAND, "n": N, "repeats": arguments.repeats, "seed": SEED}
        content = head | run({name: functions[name] for name in chosen}, arguments.repeats)
    text = report(content)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.out / "defects.json", json.dumps(content, indent=1) + "\n")
        write_whole(arguments.out / "defects.md", text)
    if arguments.page:
        write_whole(arguments.page, page(content))


if __name__ == "__main__":
    main()
