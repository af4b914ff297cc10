"""Scores by true group where an oracle that errs has called the groups of the generated samples.

What is called a group is a mixture of true groups. A score that is a mean over generated samples, for given real ones,
is the same mixture of the scores of the true groups, and so can be unmixed; the kernel distance can, since the kernel
mean of a mixture is the mixture of kernel means. Other scores cannot.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from egtmetrics._cached import cached_method
from egtmetrics._errors import listed
from egtmetrics.confusion import Confusion
from egtmetrics.groups._evaluation import MetricSet, Results, naming_metric
from egtmetrics.groups._saved import disparity_dict, interval_dict, plain
from egtmetrics.groups.disparity import ScoreTable, disparity_table, proportion_table
from egtmetrics.groups.inference import (
    MIN_SAMPLES,
    Floats,
    FrameIntervals,
    Inference,
    Uncertainty,
    proportion_uncertainty,
)
from egtmetrics.groups.verdict import Samples, Verdict, certify, check_metric
from egtmetrics.labels import group_text
from egtmetrics.metrics.mixtures import Mixtures
from egtmetrics.metrics.variance import JointScores, joint_scores
from egtmetrics.ops import to_host
from egtmetrics.registry import Metric, metric_of
from egtmetrics.results import Score
from egtmetrics.samples import GroupedSamples, multinomial_covariance

_SEED_OF_PARTS = 4
_DRAWS = 1000
_STEP = 0.01
_PRECISION = 1e-4
_NOISE = {True: "more than noise", False: "not distinguishable from noise"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unmixable:
    """What of a metric can be had of mixtures of the generated groups."""

    names: Sequence[str] = ()
    """The scores that can."""
    mixtures: Mixtures | None = None
    """All scores of the metric; those of real group a have row a of the weights ``(G, G)`` of the generated groups."""
    reason: str = ""
    """Why none can, if something went wrong."""


def correctable(known: Metric | None, described: Mapping[str, Score]) -> list[str]:
    """Return which of the scores of a metric can be had of mixtures of the generated groups."""
    if known is not None and known.mixtures is not None:
        return list(described)
    return [name for name, score in described.items() if score.per_sample]


def unmixable(
    metrics: MetricSet, samples: GroupedSamples, results: Results, described: Mapping[str, Score], metric: str
) -> Unmixable:
    """Evaluate the cross table of a metric: every group of generated samples against every group of real ones."""
    labels = samples.groups.index.tolist()
    known = metric_of(metrics.given[metric])
    by_mixtures = None if known is None else known.mixtures
    names = correctable(known, described)
    if not names:
        return Unmixable()
    missing = [label for label in labels if metric not in results.get(label, {})]
    if missing:
        return Unmixable(
            reason=f"{metric} has no score for {listed(map(group_text, missing))}, which takes part in all"
        )
    groups = [samples.group(label) for label in labels]
    sides = [[to_host(getattr(group, side)) for group in groups] for side in ("real", "fake")]
    rng = np.random.default_rng([metrics.seed, _SEED_OF_PARTS])
    size = len(labels)
    where = "a correction needs scores of the generated samples of every group against the real ones of every group"
    with naming_metric(metric, where):
        if by_mixtures is not None:
            found = by_mixtures([results[label][metric] for label in labels], *sides, rng)
            return Unmixable(names=names, mixtures=found)
        only = metrics.without([name for name in metrics.bound if name != metric])
        pairs = list(itertools.product(range(size), range(size)))
        scored = [
            results[labels[a]][metric]
            if a == c
            else only.call(groups[a].real, groups[c].fake, f"real {labels[a]!r}, generated {labels[c]!r}")[metric]
            for a, c in pairs
        ]

    @functools.cache
    def joint() -> JointScores:
        with naming_metric(metric, f"an interval of {where.removeprefix('a correction needs ')}"):
            return joint_scores(
                metrics.bound[metric],
                [*sides[0], *sides[1]],
                [(a, size + c) for a, c in pairs],
                scored,
                rng=rng,
                backend=metrics.backend,
                n_threads=metrics.n_threads,
            )

    cross = np.array([list(result.scores().values()) for result in scored]).reshape(size, size, -1)
    return Unmixable(names=names, mixtures=Mixtures.of_means(cross, joint))


class LabelCorrection:
    """Scores by true group; :meth:`egtmetrics.GenerativeMetricFrame.correct_labels` makes it, and says how.

    Attributes
    ----------
    by_group : DataFrame
        As ``frame.by_group``, NaN for scores that cannot be corrected. A corrected share can lie outside [0, 1] by
        chance; its interval does not.
    refusals : dict
        By column of ``by_group``, why it cannot be corrected, and what can be done.
    weights : DataFrame
        What the called groups (columns) count for the true ones (rows); rows sum to 1. Large and negative weights make
        wide intervals.
    tables : dict
        By metric, the :class:`~egtmetrics.groups.ScoreTable` of what can be corrected, and ``"proportions"``.
    confusion : Confusion
        That of the oracle, of the groups in the order of ``by_group``.
    """

    def __init__(
        self,
        confusion: Confusion,
        found: Mapping[str, Unmixable],
        described: Mapping[str, ScoreTable],
        *,
        counts: pd.DataFrame,
        sizes: Mapping[Hashable, int],
    ) -> None:
        index = counts.index
        self.confusion = confusion = confusion.among(index.tolist())
        self._counts, self._sizes, self._found = counts, sizes, found
        self._described = {metric: table.described for metric, table in described.items()}
        self._rates = confusion.rates.to_numpy()[:, :-1]
        self._q = counts["fake_proportion"].to_numpy(dtype=float)
        confusion.unmixing()  # or say that there is none
        true, weights = _unmixed(self._rates, self._q)
        _check_possible(true, index.tolist())
        names_of = functools.partial(pd.Index, index.tolist(), tupleize_cols=False)  # of several features, too
        self.weights = pd.DataFrame(weights, index=names_of(name="true"), columns=names_of(name="called"))
        self.refusals: dict[str, str] = {}
        self.tables: dict[str, ScoreTable] = {}
        columns = []
        for metric, table in described.items():
            names = list(found[metric].names)
            for name in (name for name in table.described if name not in names):
                self.refusals[table.column(name)] = found[metric].reason or _cannot(table.described[name])
            values = pd.DataFrame(index=index)
            mixtures = found[metric].mixtures
            if mixtures is not None:
                drawn = mixtures.values(_unmixed(self._drawn[0], self._q)[1])
                corrected = 2.0 * mixtures.values(weights) - drawn.mean(axis=0)
                values = pd.DataFrame(corrected, index=index, columns=list(table.described))[names]
                self.tables[metric] = dataclasses.replace(
                    table,
                    values=values,
                    described={name: table.described[name] for name in names},
                    disparities=tuple(one for one in table.disparities if one.scores <= set(names)),
                    whole=len(names) == len(table.described),
                )
            columns.append(values.reindex(columns=list(table.described)).set_axis(list(table.frame()), axis=1))
        if not self.tables:
            raise ValueError(f"no score of {listed(described)} can be corrected: {next(iter(self.refusals.values()))}")
        self.by_group = pd.concat(columns, axis=1)
        self._corrected_counts = counts.assign(fake_proportion=true)
        self.tables["proportions"] = proportion_table(self._corrected_counts)

    @functools.cached_property
    def _drawn(self) -> tuple[Floats, Floats]:
        """Draw rates ``(B, G, G)`` and called proportions ``(B, G)`` around those at hand; with each its opposite.

        The steps are uniform along the axes of their covariance. Normal ones would now and then come near rates without
        an inverse, or a group without samples, and a few such draws would make up the whole variance.
        """
        rng = np.random.default_rng(0)
        of_called = (np.diag(self._q) - np.outer(self._q, self._q)) / self._counts["n_fake"].sum()
        reach = np.sqrt(3.0)  # with a variance of 1
        by_row = [*self.confusion.covariance(), of_called]
        steps = np.stack([rng.uniform(-reach, reach, (_DRAWS, len(self._q))) @ _root(one).T for one in by_row], axis=1)
        steps = np.concatenate([steps, -steps])
        return self._rates + steps[:, :-1], self._q + steps[:, -1]

    @functools.cached_property
    def proportions(self) -> pd.DataFrame:
        """Of the generated samples by group: ``called``, and of true groups ``value``, ``low`` and ``high`` (95 %)."""
        return self.confusion.proportions(self._called).set_axis(self.by_group.index)

    @functools.cached_property
    def contamination(self) -> pd.DataFrame:
        """By called group, the share that is not of it: ``value``, ``low`` and ``high`` (95 %)."""
        return self.confusion.contamination(self._called).set_axis(self.by_group.index)

    @property
    def _called(self) -> dict[Hashable, int]:
        return self._counts["n_fake"].to_dict()

    def _refusal_notes(self) -> list[str]:
        """Say which scores cannot be corrected, and why."""
        refused: dict[str, list[str]] = {}
        for column, reason in self.refusals.items():
            refused.setdefault(reason, []).append(column)
        return [f"{listed(columns)}: {reason}" for reason, columns in refused.items()]

    def __repr__(self) -> str:
        parts = {
            "scores by true group": self.by_group,
            "share of every called group that is not of it": self.contamination,
            "proportions of the generated samples": self.proportions,
        }
        return "\n\n".join(
            [type(self).__name__, *(f"{title}\n{table}" for title, table in parts.items()), *self._refusal_notes()]
        )

    def disparities(self) -> pd.DataFrame:
        """Return every disparity between the true groups, as ``GenerativeMetricFrame.disparities`` does."""
        return disparity_table(self.tables)

    def interval(self, level: float = 0.95) -> FrameIntervals:
        """Return intervals for every corrected score and disparity, as ``GenerativeMetricFrame.interval`` does.

        They carry the sampling error of the scores, of the called proportions, and of the confusion.

        Raises
        ------
        ValueError
            A group has fewer than 50 samples on a side.
        """
        return self._infer().intervals(level)

    def test(self) -> pd.DataFrame:
        """Test every disparity between the true groups, as ``GenerativeMetricFrame.test`` does."""
        return self._infer().tests()

    def certify(self, tolerance: float, *, metric: str | None = None, level: float = 0.95) -> Verdict:
        """Say whether the largest gap between true groups is within a tolerance, as ``frame.certify`` does."""
        metric = check_metric(metric, [name for name in self.tables if name != "proportions"])
        table = self.tables[metric]
        clipped = table.values.copy()
        for name, score in table.described.items():
            clipped[name] = clipped[name].clip(*score.bounds)
        samples = Samples(sizes=self._sizes, scores=[clipped], described=table.described)
        return certify(self._infer(), metric, tolerance, of="scores", samples=samples, level=level)

    def to_dict(self, level: float | None = None) -> dict[str, Any]:
        """Return the confusion, scores by true group, disparities and refusals as a nested dict of plain values.

        With a level, ``"intervals"`` has the intervals of the corrected scores.
        """
        names = {label: group_text(label) for label in self.by_group.index}
        table = self.confusion.rates if self.confusion.counts is None else self.confusion.counts
        rows = {
            "confusion": table.rename(columns=names),
            "by_group": self.by_group,
            "proportions": self.proportions,
            "contamination": self.contamination,
        }
        content: dict[str, Any] = {
            key: {names[label]: row for label, row in zip(one.index, one.to_dict("records"), strict=True)}
            for key, one in rows.items()
        }
        content["disparities"] = disparity_dict(self.disparities(), names)
        content["refusals"] = dict(self.refusals)
        if level is not None:
            corrected = [column for column in self.by_group if column not in self.refusals]
            content["intervals"] = interval_dict(self.interval(level), self.by_group[corrected], names)
        return {key: plain(value) for key, value in content.items()}

    @cached_method
    def _infer(self) -> Inference:
        smallest = min(self._sizes, key=self._sizes.__getitem__)
        if self._sizes[smallest] < MIN_SAMPLES:
            raise ValueError(
                f"group {group_text(smallest)!r} has {self._sizes[smallest]} samples on one side, and an interval "
                f"needs at least {MIN_SAMPLES}; add samples, or merge groups"
            )
        true, weights = _unmixed(*self._drawn)
        counts = self._corrected_counts
        of_real = multinomial_covariance(counts["real_proportion"].to_numpy(), counts["n_real"].sum())
        uncertainties = {"proportions": proportion_uncertainty(counts, [of_real, np.cov(true.T)])}
        for metric, found in self._found.items():
            if found.mixtures is None:
                continue
            covariance = found.mixtures.covariance(self.weights.to_numpy()).data
            drawn = found.mixtures.values(weights)
            covariance = covariance + np.cov(drawn.reshape(len(drawn), -1).T)
            table, names = self.tables[metric].values, list(self._described[metric])
            places = [names.index(name) for name in found.names]
            kept = (np.arange(len(table))[:, None] * len(names) + places).ravel()
            covariance = covariance[np.ix_(kept, kept)]
            nothing = np.zeros_like(covariance)
            uncertainties[metric] = Uncertainty(
                table=table, data=covariance, projections=nothing, threshold=nothing, alone=np.zeros(len(covariance))
            )
        return Inference(tables=self.tables, uncertainties=uncertainties)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSensitivity:
    """At which rate of wrong labels a finding changes; :meth:`egtmetrics.GenerativeMetricFrame.label_sensitivity`."""

    metric: str
    finding: str
    """As measured: the outcome of ``certify``, or whether the gap is more than noise."""
    changed: str | None
    """What it becomes; None if it does not change."""
    error_rate: float
    """The smallest rate at which it does, the same in every group; or the largest that is possible, if it does not."""
    contamination: float
    """At that rate, the largest share of a called group that is not of it."""

    @property
    def text(self) -> str:
        """One sentence, with its full stop."""
        rate, share = f"{100.0 * self.error_rate:.1f} %", f"{100.0 * self.contamination:.0f} %"
        if self.changed is None:
            return (
                f"The gap stays {self.finding} for any rate of wrong labels of the generated samples that their "
                f"numbers allow, up to {rate} of every group."
            )
        return (
            f"The gap is {self.finding} if the labels of the generated samples are true, and would be {self.changed} "
            f"if {rate} of every group had another group's label: {share} of the most contaminated group would then "
            "not be of it."
        )


def label_sensitivity(
    correct: Callable[[Confusion], LabelCorrection],
    metric: str,
    groups: Sequence[Hashable],
    *,
    tolerance: float | None,
    level: float,
) -> LabelSensitivity:
    """Search the smallest symmetric error that changes a finding, in steps of 1 %, then by bisection."""

    def finding(error: float) -> tuple[str, LabelCorrection] | None:
        try:
            corrected = correct(Confusion.symmetric(groups, error))
        except ValueError:  # no group can have so many samples
            if error == 0.0:
                raise
            return None
        if tolerance is not None:
            return corrected.certify(tolerance, metric=metric, level=level).outcome, corrected
        primary = corrected.tables[metric].primary.name
        return _NOISE[corrected._infer().largest[metric, primary].interval(level)[0] > 0.0], corrected

    first = finding(0.0)
    assert first is not None
    least, most, known = 0.0, 1.0 - 1.0 / len(groups), first
    for error in np.arange(_STEP, most, _STEP).tolist():
        found = finding(error)
        if found is None or found[0] != first[0]:
            most = error
            break
        least, known = error, found
    changed = None
    while most - least > _PRECISION:
        middle = (least + most) / 2.0
        found = finding(middle)
        if found is not None and found[0] == first[0]:
            least, known = middle, found
        else:
            most = middle
    after = finding(most)
    if after is not None and after[0] != first[0]:
        changed, known = after[0], after
    return LabelSensitivity(
        metric=metric,
        finding=first[0],
        changed=changed,
        error_rate=most if changed else least,
        contamination=float(known[1].contamination["value"].max()),
    )


def _unmixed(rates: Floats, q: Floats) -> tuple[Floats, Floats]:
    """Return the proportions of the true groups, and what the called groups count for them, ``(..., G, G)``."""
    unmixing = np.linalg.inv(rates.swapaxes(-1, -2))
    true = (unmixing @ q[..., None])[..., 0]
    return true / true.sum(axis=-1, keepdims=True), unmixing * q[..., None, :] / true[..., None]


def _root(covariance: Floats) -> Floats:
    """Return a matrix that makes errors with this covariance of independent ones."""
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(values.clip(0.0))
    return root


def _check_possible(proportions: Floats, groups: Sequence[Hashable]) -> None:
    low = int(proportions.argmin())
    if not proportions[low] > 0.0:
        raise ValueError(
            f"by this confusion {proportions[low]:.1%} of the generated samples are of group "
            f"{group_text(groups[low])!r}: fewer are called it than errors alone would make; measure the confusion on "
            "generated samples, of which a random part is labelled by hand"
        )


def _cannot(score: Score) -> str:
    return (
        f"{score.label} of a mixture is no mixture of those of its parts, so labels that err cannot be corrected in "
        "it; take KID, k-NN precision or density, or call both sides by the same oracle"
    )
