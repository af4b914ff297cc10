"""What a perfect generator would score: the same metric between real samples and other real samples of the group.

A score depends on the group, not only on the model: real samples that are widely spread, of high dimension or few get
another score from samples of their own law than others do. So equal scores are not what a perfect generator has, and
unequal scores do not show that the model is at fault. The excess over the score of other real samples is 0 for a
perfect generator in every group.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Sized
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias, TypeVar, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._cached import cached_method
from egtmetrics._errors import listed
from egtmetrics._order import canonical_order
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_positive_int, take_checked
from egtmetrics.groups._evaluation import (
    MetricSet,
    MissingScoreWarning,
    Refused,
    naming_metric,
    one_refusal,
    refusal_note,
    refusal_reasons,
    refusing,
    warn_of_caveats,
    warn_of_refusals,
)
from egtmetrics.groups._saved import (
    disparity_dict,
    interval_dict,
    numbers,
    plain,
    restored_refusals,
    saved_intervals,
    saved_refusals,
)
from egtmetrics.groups.disparity import ScoreTable, disparity_table, score_table
from egtmetrics.groups.inference import MIN_CLUSTERS, MIN_SAMPLES, FrameIntervals, Inference, score_uncertainty
from egtmetrics.groups.verdict import Samples, Verdict, certify, check_metric
from egtmetrics.metrics.subsampling import Clusters, n_units
from egtmetrics.metrics.variance import JointScores, ScoreCovariance, joint_scores
from egtmetrics.ops import Features
from egtmetrics.results import MetricResult, Score
from egtmetrics.samples import GroupedSamples

Floats: TypeAlias = NDArray[np.float64]
Comparison = Literal["excess", "ratio"]
_Side = TypeVar("_Side", bound=Sized)

N_SPLITS = 6
_SEED_OF_SPLITS = 2
_SEED_OF_PARTS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Design:
    """Which pairs of sets are scored: real with generated samples, and real with other real ones."""

    pairs: tuple[tuple[int, int], ...]
    model: tuple[int, ...]
    """The pairs whose mean is the model's score; the mean of the others is that of a perfect generator."""

    @property
    def placebo(self) -> tuple[int, ...]:
        return tuple(set(range(len(self.pairs))) - set(self.model))

    def weights(self, of_model: Any, of_placebo: Any) -> list[Any]:
        """Return the weight of every pair from those of the two means."""
        return [
            of_model / len(self.model) if position in self.model else of_placebo / len(self.placebo)
            for position in range(len(self.pairs))
        ]


HALVES = _Design(pairs=((0, 2), (1, 3), (0, 1), (1, 0)), model=(0, 1))
"""Sets: two halves of the real samples, two of the generated ones. In the first order, all rows count alike."""
HELD_OUT = _Design(pairs=((0, 1), (0, 2)), model=(0,))
"""Sets: real samples, generated ones, held-out real ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Group:
    """What was scored in one group."""

    scores: dict[str, Floats]
    """By metric, the mean score of every pair of the design, ``(pairs, S)``."""
    caveats: dict[str, tuple[str, ...]]
    sets: Sequence[Features]
    """Those of the first split."""
    clusters: Sequence[Clusters]
    """Those of the rows of ``sets``."""
    results: Mapping[str, Sequence[MetricResult]]
    """Of the first split, by metric."""
    n_disjoint: int
    """How many splits have no row in common."""
    n_rounds: int
    """How often the same rows were split in other ways."""


class Baseline:
    """The scores of a model beside those of a perfect generator, by group; ``GenerativeMetricFrame.baseline`` makes it.

    Attributes
    ----------
    model, placebo : DataFrame
        The scores of the generated samples, and those that other real samples get in their place, at the same numbers
        of samples. One row per group, one column per score, as in ``frame.by_group``.
    excess : DataFrame
        ``model - placebo``: 0 for a perfect generator, up to noise.
    ratio : DataFrame
        ``model / placebo`` for the scores that are shares, 1 for a perfect generator. If a share e of a group's samples
        is off the data, its precision is 1 - e times that of a perfect generator, in every group.
    sizes : DataFrame
        By group: ``n_samples``, the number of samples in each of the sets that are compared, and ``n_splits``, over how
        many splits of the group the scores are averaged.
    refusals : dict
        By metric, for every group of which it refused the sets, why; ``strict`` of the frame makes that an error.
    settings : dict
        ``held_out``: whether the placebo is held-out samples; ``n_samples`` and ``n_splits`` as they were given.
    """

    model: pd.DataFrame
    placebo: pd.DataFrame
    excess: pd.DataFrame
    ratio: pd.DataFrame
    sizes: pd.DataFrame
    refusals: dict[str, dict[Hashable | None, str]]
    settings: dict[str, Any]

    def __init__(
        self,
        metrics: MetricSet,
        described: Mapping[str, ScoreTable],
        groups: Mapping[Hashable, _Group],
        *,
        index: pd.Index[Any],
        names: Mapping[Hashable, str],
        design: _Design,
        refused: Refused,
        settings: dict[str, Any],
        share_clusters: bool = False,
    ) -> None:
        self._share_clusters = share_clusters
        self._metrics, self._groups, self._names, self._design = metrics, groups, names, design
        self._inferences: dict[Comparison, Inference] = {}
        self.refusals, self.settings = refusal_reasons(refused), settings
        counts = {
            label: {"n_samples": len(group.sets[0]), "n_splits": group.n_disjoint * group.n_rounds}
            for label, group in groups.items()
        }
        missing = {"n_samples": 0, "n_splits": 0}
        self.sizes = pd.DataFrame([counts.get(label, missing) for label in index], index=index)

        def means(pairs: tuple[int, ...]) -> dict[str, pd.DataFrame]:
            found = {}
            for metric, table in described.items():
                nothing = np.full(len(table.described), math.nan)
                rows = [
                    groups[label].scores[metric][list(pairs)].mean(axis=0)
                    if label in groups and metric in groups[label].scores
                    else nothing
                    for label in index
                ]
                found[metric] = pd.DataFrame(rows, index=index, columns=list(table.described), dtype=float)
            return found

        caveats = {
            metric: {label: group.caveats[metric] for label, group in groups.items() if metric in group.caveats}
            for metric in described
        }
        self._set_tables(described, means(design.model), means(design.placebo), caveats)

    def _set_tables(
        self,
        described: Mapping[str, ScoreTable],
        model: Mapping[str, pd.DataFrame],
        placebo: Mapping[str, pd.DataFrame],
        caveats: Mapping[str, Mapping[Hashable, tuple[str, ...]]],
    ) -> None:
        compared: dict[str, dict[str, ScoreTable]] = {"model": {}, "placebo": {}, "excess": {}, "ratio": {}}
        for metric, table in described.items():
            of_model, of_placebo = model[metric], placebo[metric]
            shares = {name: _ratio(score) for name, score in table.described.items() if score.bounds == (0.0, 1.0)}
            tables = {
                "model": (of_model, dict(table.described)),
                "placebo": (of_placebo, dict(table.described)),
                "excess": (of_model - of_placebo, {name: _excess(score) for name, score in table.described.items()}),
                "ratio": ((of_model / of_placebo.mask(of_placebo == 0.0))[list(shares)], shares),
            }
            for name, (values, scores) in tables.items():
                if scores:
                    compared[name][metric] = score_table(metric, values, scores, caveats[metric])
        self._compared = {of: compared[of] for of in get_args(Comparison)}
        self._scored = {of: compared[of] for of in ("model", "placebo")}
        self.model, self.placebo, self.excess, self.ratio = (
            pd.concat([table.frame() for table in tables.values()], axis=1)
            if tables
            else pd.DataFrame(index=self.sizes.index)
            for tables in compared.values()
        )

    @classmethod
    def restored(cls, content: Mapping[str, Any], described: Mapping[str, ScoreTable]) -> Self:
        """Return a baseline from what ``to_dict`` returned and the frame's tables; it has no samples."""
        baseline = object.__new__(cls)
        index = next(iter(described.values())).values.index
        baseline._groups, baseline._inferences, baseline._names = {}, {}, {label: label for label in index}
        baseline.settings = dict(content["settings"])
        baseline.refusals = restored_refusals(content.get("refusals", {}))
        baseline.sizes = pd.DataFrame([content["sizes"][label] for label in index], index=index)

        def scores(key: str) -> dict[str, pd.DataFrame]:
            rows = {label: numbers(content[key][label]) for label in index}
            return {
                metric: pd.DataFrame(
                    {name: [rows[label][table.column(name)] for label in index] for name in table.described},
                    index=index,
                    dtype=float,
                )
                for metric, table in described.items()
            }

        caveats = {
            metric: {label: tuple(texts) for label, texts in content["caveats"].get(metric, {}).items()}
            for metric in described
        }
        baseline._set_tables(described, scores("model"), scores("placebo"), caveats)
        baseline._saved_intervals = {
            of: saved_intervals(saved, baseline.tables(of)) for of, saved in content.get("intervals", {}).items()
        }
        return baseline

    _saved_intervals: Mapping[str, FrameIntervals] = MappingProxyType({})

    def _refusal_notes(self) -> list[str]:
        """Return a sentence for every metric that refused the sets of a group, which says why."""
        return [refusal_note(metric, reasons, "baseline") for metric, reasons in self.refusals.items()]

    def __repr__(self) -> str:
        tables = {"model": self.model, "other real samples (placebo)": self.placebo, "excess": self.excess}
        if len(self.ratio.columns):
            tables["ratio"] = self.ratio
        compared = "held-out real samples" if self.settings["held_out"] else "other real samples, by splitting them"
        head = f"{type(self).__name__}: scores of the model and of {compared}"
        texts = [head, *(f"{title}\n{table}" for title, table in tables.items()), f"sizes\n{self.sizes}"]
        return "\n\n".join([*texts, *self._refusal_notes()])

    def _repr_html_(self) -> str:
        """Return what notebooks show: scores by group, and disparities."""
        tables = {
            "Scores of the model": self.model,
            "Scores of other real samples": self.placebo,
            "Excess": self.excess,
            "Disparities of the excess": self.disparities(),
        }
        return "".join(
            f"<h4>{title}</h4>{table.to_html(border=0, float_format='{:.4g}'.format, na_rep='nan')}"
            for title, table in tables.items()
        )

    def tables(self, of: Comparison = "excess") -> dict[str, ScoreTable]:
        """Return the excesses, or the ratios, by metric, with their descriptions and disparities."""
        if of not in get_args(Comparison):
            raise ValueError(f"of={of!r} is unknown; choose one of {listed(map(repr, get_args(Comparison)))}")
        return dict(self._compared[of])

    def scored(self, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the scores of the model and those of the placebo in one metric, under the scores' own names."""
        return self._scored["model"][metric].values.copy(), self._scored["placebo"][metric].values.copy()

    def disparities(self, of: Comparison = "excess") -> pd.DataFrame:
        """Return every disparity of the excesses, or of the ratios, as ``GenerativeMetricFrame.disparities`` does.

        0 means that the model is equally far from a perfect generator in all groups.
        """
        return disparity_table(self.tables(of))

    def interval(self, level: float = 0.95, of: Comparison = "excess") -> FrameIntervals:
        """Return confidence intervals for the excess, or the ratio, of every group, and for their disparities.

        If the interval of an excess contains 0, or that of a ratio 1, the group's score is not distinguishable from
        that of a perfect generator at this size.

        Raises
        ------
        ValueError
            If ``level`` is not in (0, 1), a set has fewer than 50 samples, or a metric refuses half of a set.

        Notes
        -----
        Cost, paid once: as for ``GenerativeMetricFrame.interval``, for every pair of sets that is scored. The sets are
        halved together, so what the model and the placebo have in common cancels.
        """
        saved = self._saved_intervals.get(of)
        return saved if saved is not None and saved.level == level else self._infer(of).intervals(level)

    def test(self, of: Comparison = "excess") -> pd.DataFrame:
        """Test every disparity: could all groups have equal expected excesses, or ratios?

        A perfect generator has equal ones, whatever the laws of the groups. The columns are those of
        ``GenerativeMetricFrame.test``; cost and errors are those of ``interval``.
        """
        return self._infer(of).tests()

    def certify(self, tolerance: float, *, metric: str | None = None, level: float = 0.95) -> Verdict:
        """Say whether the largest difference between two groups' excesses is within a tolerance.

        The parameters, the cost and the errors are those of ``GenerativeMetricFrame.certify``, which says more.
        """
        metric = check_metric(metric, list(self._compared["excess"]))
        inference = self._infer("excess")
        return certify(
            inference,
            metric,
            tolerance,
            of="excess",
            samples=Samples(
                sizes=self._sizes(),
                scores=self.scored(metric),
                described=self._scored["model"][metric].described,
                units=self._units(),
            ),
            level=level,
        )

    def to_dict(self, level: float | None = None) -> dict[str, Any]:
        """Return scores, disparities, sizes and settings as a nested dict of plain values; groups have their names.

        With a level, ``"intervals"`` has the intervals of the excess and of the ratio.
        """
        tables = {"sizes": self.sizes, "model": self.model, "placebo": self.placebo, "excess": self.excess}
        tables["ratio"] = self.ratio
        rows = {
            key: {self._names[label]: row.to_dict() for label, row in table.astype(object).iterrows()}
            for key, table in tables.items()
        }
        kinds = [of for of in get_args(Comparison) if self._compared[of]]
        content: dict[str, Any] = {
            "settings": self.settings,
            **rows,
            "disparities": {of: disparity_dict(self.disparities(of), self._names) for of in kinds},
            "caveats": {
                metric: {self._names[label]: texts for label, texts in table.caveats.items()}
                for metric, table in self._compared["excess"].items()
                if table.caveats
            },
        }
        if self.refusals:
            content["refusals"] = saved_refusals(self.refusals, self._names)
        if level is not None:
            content["intervals"] = {
                of: interval_dict(self.interval(level, of), tables[of], self._names) for of in kinds
            }
        return {key: plain(value) for key, value in content.items()}

    def _sizes(self) -> dict[Hashable, int]:
        """Return how many samples of each group take part, on the side that has fewer."""
        per_side = len(self._design.model)
        return {label: len(group.sets[0]) * group.n_disjoint * per_side for label, group in self._groups.items()}

    def _units(self) -> dict[Hashable, int]:
        """Return how many of them are independent: the clusters, where samples come in any."""
        per_side = len(self._design.model)
        return {
            label: group.n_disjoint
            * per_side
            * min(n_units(len(side), ids) for side, ids in zip(group.sets, group.clusters, strict=True))
            for label, group in self._groups.items()
        }

    def _infer(self, of: Comparison = "excess") -> Inference:
        tables = self.tables(of)
        if not self._groups:
            raise ValueError(
                "intervals, tests and verdicts need the samples, but this baseline was read from JSON without those "
                "that were asked for; evaluate again"
            )
        few = self.sizes["n_samples"][self.sizes["n_samples"] > 0]
        if few.min() < MIN_SAMPLES:
            parts = "" if self.settings["held_out"] else ", half of what the smallest group has on one side"
            raise ValueError(
                f"the baseline compares sets of {few.min()} samples{parts}, and an interval needs sets of at least "
                f"{MIN_SAMPLES}; add samples, or merge groups"
            )
        for label, group in self._groups.items():
            fewest = min([n_units(len(ids), ids) for ids in group.clusters if ids is not None], default=MIN_CLUSTERS)
            if fewest < MIN_CLUSTERS:
                raise ValueError(
                    f"the baseline compares sets of {fewest} clusters of group {self._names[label]!r}, and an interval "
                    f"needs sets of at least {MIN_CLUSTERS}; add clusters, or merge groups"
                )
        if of not in self._inferences:
            uncertainties = {}
            for metric, table in tables.items():
                known = [label for label, group in self._groups.items() if metric in group.scores]
                covariances = {label: self._covariance(of, metric, label, list(table.described)) for label in known}
                uncertainties[metric] = score_uncertainty(table.values, covariances, in_common=self._share_clusters)
            self._inferences[of] = Inference(tables=tables, uncertainties=uncertainties)
        return self._inferences[of]

    @cached_method
    def _joint(self, metric: str, label: Hashable) -> JointScores:
        group = self._groups[label]
        where = f"an interval needs scores of random halves of group {self._names[label]!r}"
        scored = [(metric, result) for result in group.results[metric]]
        counting = self._metrics.counting("intervals of the baseline", scored, progress=self._metrics.progress)
        with naming_metric(metric, where), counting as bar:
            return joint_scores(
                self._metrics.bound[metric],
                group.sets,
                self._design.pairs,
                group.results[metric],
                rng=np.random.default_rng([self._metrics.seed, _SEED_OF_PARTS]),
                backend=self._metrics.backend,
                n_threads=self._metrics.n_threads,
                clusters=group.clusters,
                advance=bar.update,
            )

    def _covariance(self, of: Comparison, metric: str, label: Hashable, kept: Sequence[str]) -> ScoreCovariance:
        """Return the covariance of a group's mean over its splits, for some of the scores of a metric."""
        group, joint = self._groups[label], self._joint(metric, label)
        weights = self._design.weights(1.0, -1.0)
        if of == "ratio":  # its derivative with respect to both scores
            of_model, of_placebo = (
                group.scores[metric][list(pairs)].mean(axis=0) for pairs in (self._design.model, self._design.placebo)
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                weights = self._design.weights(1.0 / of_placebo, -of_model / of_placebo**2)
        found = joint.covariance_of_mean(weights, n_rounds=group.n_rounds, n_disjoint=group.n_disjoint)
        scores = list(group.results[metric][0].scores())
        return found.linear(np.eye(len(scores))[[scores.index(name) for name in kept]])


def evaluate_baseline(
    metrics: MetricSet,
    samples: GroupedSamples,
    described: Mapping[str, ScoreTable],
    held_out: GroupedSamples | None,
    *,
    n_splits: int = N_SPLITS,
    n_samples: int | None = None,
    progress: bool = False,
) -> Baseline:
    """Score real samples against generated and against other real ones; see ``GenerativeMetricFrame.baseline``.

    ``held_out`` has the real samples as its real side, and the held-out ones as its fake side.
    """
    n_splits = check_positive_int(n_splits, "n_splits")
    design = HALVES if held_out is None else HELD_OUT
    labels = samples.groups.on_both_sides()
    sides: dict[Hashable, list[Features]] = {}
    clusters: dict[Hashable, list[Clusters]] = {}
    few: dict[Hashable, tuple[str, ...]] = {}
    for label in labels:
        group = samples.group(label)
        sides[label], clusters[label] = [group.real, group.fake], [*group.clusters]
        few[label] = group.cluster_caveats()
        if held_out is not None:
            others = held_out.group(label)
            sides[label].append(others.fake)
            clusters[label].append(others.clusters[1])
            if not len(sides[label][-1]):
                raise ValueError(
                    f"held_out has no samples of group {samples.groups.name(label)!r}; add some, or split the real "
                    "samples instead"
                )
    sets_per_side = 2 if held_out is None else 1
    if not metrics.strict and n_samples is None:
        sides = large_enough(sides, samples, sets_per_side)
    size, n_disjoint = set_sizes(sides, clusters, samples, sets_per_side, n_samples)
    rounds = 1 if held_out is not None else n_splits
    n_calls = len(design.pairs) * len(metrics.bound) * rounds * sum(n_disjoint.values())
    groups = {}
    refused: Refused = {}
    with tqdm(total=n_calls, desc="baseline", unit="call", disable=not progress) as bar:
        for label, found in sides.items():
            where = f"group {samples.groups.name(label)!r}, sets of {size} samples for the baseline"
            own = clusters[label]
            drawn = draw_splits(found, own, size, sets_per_side, n_disjoint[label], rounds, metrics.seed)
            splits = (
                [
                    (take_checked(side, np.sort(rows)), None if ids is None else ids[np.sort(rows)])
                    for side, ids, of_side in zip(found, own, split, strict=True)
                    for rows in of_side
                ]
                for split in drawn
            )
            call = functools.partial(
                metrics.call,
                where=where,
                advance=bar.update,
                refuse=refusing(None if metrics.strict else refused, label),
            )
            groups[label] = _score(call, splits, design, n_disjoint[label], rounds, few[label])
    if not any(group.scores for group in groups.values()):
        raise one_refusal(refused)
    warn_of_refusals(refused, "baseline", stacklevel=3)
    baseline = Baseline(
        metrics,
        described,
        groups,
        index=samples.groups.index,
        names={label: samples.groups.name(label) for label in samples.groups.index},
        design=design,
        refused=refused,
        settings={"held_out": held_out is not None, "n_samples": n_samples, "n_splits": n_splits},
        share_clusters=samples.share_clusters(),
    )
    caveats = {label: {name: found[0] for name, found in group.results.items()} for label, group in groups.items()}
    warn_of_caveats(caveats, stacklevel=3)
    return baseline


def large_enough(
    sides: Mapping[Hashable, list[_Side]], samples: GroupedSamples, per_side: int
) -> dict[Hashable, list[_Side]]:
    """Leave out groups too small for an interval, with a warning: one would make the sets of all groups as small."""
    kept = {label: found for label, found in sides.items() if min(map(len, found)) // per_side >= MIN_SAMPLES}
    if len(kept) < 2 or len(kept) == len(sides):
        return dict(sides)
    names = listed(repr(samples.groups.name(label)) for label in sides if label not in kept)
    warnings.warn(
        f"no baseline for group {names}: it has fewer than {MIN_SAMPLES * per_side} samples on a side, and every set "
        f"takes {MIN_SAMPLES}; pass n_samples to compare smaller sets of all groups",
        MissingScoreWarning,
        stacklevel=4,
    )
    return kept


def counted_sides(samples: GroupedSamples) -> dict[Hashable, list[Sized]]:
    """Return, for each group on both sides, something as long as its real samples, and as its fake ones."""
    labels = samples.groups.on_both_sides()
    counts = samples.groups.counts().loc[labels, ["n_real", "n_fake"]].to_numpy().tolist()
    return {label: [range(n), range(m)] for label, (n, m) in zip(labels, counts, strict=True)}


def clusters_of_groups(samples: GroupedSamples) -> dict[Hashable, Sequence[Clusters]]:
    """Return, for each group on both sides, the clusters of its real and of its fake rows."""
    return {label: samples.group(label).clusters for label in samples.groups.on_both_sides()}


def set_sizes(
    sides: Mapping[Hashable, Sequence[Sized]],
    clusters: Mapping[Hashable, Sequence[Clusters]],
    samples: GroupedSamples,
    per_side: int,
    n_samples: int | None,
) -> tuple[int, dict[Hashable, int]]:
    """Return the size of all sets, and into how many times ``per_side`` sets each group's sides are cut.

    The rest of a cluster that is cut at the end of a set is left out, so that no two sets have a cluster in common.
    """
    left_out = {
        label: max([int(np.bincount(ids).max()) - 1 for ids in own if ids is not None], default=0)
        for label, own in clusters.items()
    }
    largest = {
        label: (min(map(len, found)) - (per_side - 1) * left_out[label]) // per_side for label, found in sides.items()
    }
    smallest = min(largest, key=largest.__getitem__)
    if largest[smallest] < 1:
        few = min(map(len, sides[smallest]))
        why, what = f"it has {few} {'sample' if few == 1 else 'samples'} on a side", "samples"
        if few >= per_side:
            why, what = "its clusters are too large", "clusters"
        raise ValueError(
            f"group {samples.groups.name(smallest)!r} cannot be split into {per_side} sets, because {why}; add "
            f"{what}, merge groups, or leave its labels empty"
        )
    size = largest[smallest] if n_samples is None else check_positive_int(n_samples, "n_samples")
    if size > largest[smallest]:
        raise ValueError(
            f"n_samples={size}, but group {samples.groups.name(smallest)!r} has only {largest[smallest]} samples for "
            f"each set; pass n_samples={largest[smallest]} or less, or None"
        )
    return size, {
        label: (min(map(len, found)) + left_out[label]) // (size + left_out[label]) // per_side
        for label, found in sides.items()
    }


def draw_splits(
    sides: Sequence[Features],
    clusters: Sequence[Clusters],
    size: int,
    per_side: int,
    n_disjoint: int,
    n_rounds: int,
    seed: int,
) -> Iterator[list[list[NDArray[np.int64]]]]:
    """Yield the rows of the ``per_side`` sets of every side, in random order, for every split.

    The sets of one round have no row and no cluster in common; every round draws anew. The draws are the same for every
    group, whatever its name, and do not depend on the order in which the rows came.
    """
    rng = np.random.default_rng([seed, _SEED_OF_SPLITS])
    canonical = [canonical_order(side) for side in sides]
    keys = [
        None if ids is None else np.random.default_rng([seed, _SEED_OF_SPLITS, side]).random((ids.max() + 1, n_rounds))
        for side, ids in enumerate(clusters)
    ]
    for turn in range(n_rounds):
        by_side = []
        for order, ids, key in zip([rng.permutation(order) for order in canonical], clusters, keys, strict=True):
            if ids is not None and key is not None:
                order = order[np.argsort(key[ids[order], turn], kind="stable")]
            by_side.append(_cut(order, ids, size, per_side * n_disjoint, rng))
        for split in range(n_disjoint):
            yield [sets[split * per_side : (split + 1) * per_side] for sets in by_side]


def _cut(
    order: NDArray[np.int64], clusters: Clusters, size: int, n_sets: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Cut an order of rows into sets, each of which begins with a new cluster; their rows are in random order."""
    if clusters is None:
        return [order[start : start + size] for start in range(0, n_sets * size, size)]
    ends = np.append(np.flatnonzero(np.diff(clusters[order])) + 1, len(order))
    sets, start = [], 0
    for _ in range(n_sets):
        sets.append(rng.permutation(order[start : start + size]))
        start = int(ends[np.searchsorted(ends, start + size)]) if start + size <= len(order) else len(order)
    return sets


def _score(
    call: Callable[[Features, Features], dict[str, MetricResult]],
    splits: Iterator[list[tuple[Features, Clusters]]],
    design: _Design,
    n_disjoint: int,
    n_rounds: int,
    caveats: tuple[str, ...],
) -> _Group:
    first_sets: list[tuple[Features, Clusters]] = []
    first: dict[str, list[MetricResult]] = {}
    scores: list[dict[str, Floats]] = []
    for sets in splits:
        by_pair = [call(sets[real][0], sets[fake][0]) for real, fake in design.pairs]
        by_metric = {
            name: [results[name] for results in by_pair]
            for name in by_pair[0]
            if all(name in results for results in by_pair)
        }
        scores.append(
            {
                name: np.array([list(result.scores().values()) for result in results])
                for name, results in by_metric.items()
            }
        )
        if not first_sets:
            first_sets, first = sets, by_metric
    scored = [name for name in first if all(name in found for found in scores)]
    return _Group(
        scores={name: np.mean([found[name] for found in scores], axis=0) for name in scored},
        caveats={name: (*first[name][0].caveats, *caveats) for name in scored},
        sets=[features for features, _ in first_sets],
        clusters=[ids for _, ids in first_sets],
        results=first,
        n_disjoint=n_disjoint,
        n_rounds=n_rounds,
    )


def _excess(score: Score) -> Score:
    low, high = score.bounds
    return dataclasses.replace(
        score,
        label=f"excess {score.label}",
        help=f"{score.help} Less what other real samples of the group score; 0 for a perfect generator.",
        better=score.better if isinstance(score.better, str | None) else 0.0,
        bounds=(low - high, high - low),
        depends_on_size=False,
    )


def _ratio(score: Score) -> Score:
    return dataclasses.replace(
        score,
        label=f"{score.label} ratio",
        help=f"{score.help} Divided by what other real samples of the group score; 1 for a perfect generator.",
        bounds=(0.0, math.inf),
        depends_on_size=False,
    )
