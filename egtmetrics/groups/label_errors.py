"""Scores by true group where an oracle that errs has called the groups of the generated samples.

What is called a group is a mixture of true groups. A score that is a mean over generated samples, for given real ones,
is the same mixture of the scores of the true groups, and so can be unmixed; the kernel distance can, since the kernel
mean of a mixture is the mixture of kernel means. Other scores cannot.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from egtmetrics._errors import listed
from egtmetrics.confusion import Confusion
from egtmetrics.groups._evaluation import MetricSet, Results, naming_metric
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
from egtmetrics.metrics.mixtures import MixtureScores
from egtmetrics.metrics.variance import joint_scores
from egtmetrics.ops import to_host
from egtmetrics.registry import metric_of
from egtmetrics.results import Score
from egtmetrics.samples import GroupedSamples

_SEED_OF_PARTS = 4
_STEP = 0.01
_PRECISION = 1e-4
_NOISE = {True: "more than noise", False: "not distinguishable from noise"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unmixable:
    """What of a metric can be had of mixtures of the generated groups."""

    names: Sequence[str] = ()
    """The scores that can."""
    scores: Callable[[Floats], MixtureScores] | None = None
    """All scores of the metric, for weights ``(G, G)`` of the generated groups, a row for every real group."""
    reason: str = ""
    """Why none can, if something went wrong."""


def unmixable(
    metrics: MetricSet, samples: GroupedSamples, results: Results, described: Mapping[str, Score], metric: str
) -> Unmixable:
    """Evaluate the cross table of a metric: every group of generated samples against every group of real ones."""
    labels = samples.groups.index.tolist()
    known = metric_of(metrics.given[metric])
    by_mixtures = None if known is None else known.mixtures
    names = list(described) if by_mixtures else [name for name, score in described.items() if score.per_sample]
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
            return Unmixable(names=names, scores=by_mixtures([results[label][metric] for label in labels], *sides, rng))
        only = metrics.without([name for name in metrics.bound if name != metric])
        pairs = list(itertools.product(range(size), range(size)))
        scored = [
            results[labels[a]][metric]
            if a == c
            else only.call(groups[a].real, groups[c].fake, f"real {labels[a]!r}, generated {labels[c]!r}")[metric]
            for a, c in pairs
        ]
        joint = joint_scores(
            metrics.bound[metric],
            [*sides[0], *sides[1]],
            [(a, size + c) for a, c in pairs],
            scored,
            rng=rng,
            backend=metrics.backend,
            n_threads=metrics.n_threads,
        )
    cross = np.array([list(result.scores().values()) for result in scored]).reshape(size, size, -1)
    return Unmixable(names=names, scores=functools.partial(MixtureScores.of_means, cross, joint=joint))


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
        self._counts, self._sizes = counts, sizes
        q = counts["fake_proportion"].to_numpy(dtype=float)
        unmixing = confusion.unmixing()
        true = unmixing @ q
        _check_possible(true / true.sum(), index.tolist())
        weights = unmixing * q / true[:, None]
        self.weights = pd.DataFrame(weights, index=index.rename("true"), columns=index.rename("called"))
        self.refusals: dict[str, str] = {}
        self.tables: dict[str, ScoreTable] = {}
        self._uncertainties: dict[str, Uncertainty] = {}
        columns = []
        for metric, table in described.items():
            names = list(found[metric].names)
            for name in (name for name in table.described if name not in names):
                self.refusals[table.column(name)] = found[metric].reason or _cannot(table.described[name])
            scores = found[metric].scores
            if scores is None:
                columns.append(pd.DataFrame(math.nan, index=index, columns=list(table.frame())))
                continue
            places = [list(table.described).index(name) for name in names]
            mixed = scores(weights)
            values = pd.DataFrame(mixed.values[:, places], index=index, columns=names)
            columns.append(values.reindex(columns=list(table.described)).set_axis(list(table.frame()), axis=1))
            self.tables[metric] = dataclasses.replace(
                table,
                values=values,
                described={name: table.described[name] for name in names},
                disparities=tuple(
                    one
                    for one in table.disparities
                    if all(set(family.weights) <= set(names) for family in one.families)
                ),
            )
            kept = (np.arange(len(index))[:, None] * len(table.described) + places).ravel()
            data = mixed.covariance.data[np.ix_(kept, kept)]
            of_labels = self._of_labels(mixed.gradient[..., places], unmixing, q, true)
            nothing = np.zeros_like(data)
            self._uncertainties[metric] = Uncertainty(
                table=values, data=data + of_labels, projections=nothing, threshold=nothing, alone=np.zeros(len(data))
            )
        if not self.tables:
            raise ValueError(f"no score of {listed(described)} can be corrected: {next(iter(self.refusals.values()))}")
        self.by_group = pd.concat(columns, axis=1)
        corrected = counts.assign(fake_proportion=true / true.sum())
        self.tables["proportions"] = proportion_table(corrected)
        self._uncertainties["proportions"] = self._of_proportions(unmixing, q, true, corrected)

    def _of_labels(self, gradient: Floats, unmixing: Floats, q: Floats, true: Floats) -> Floats:
        """Return the covariance of the scores that the errors of the confusion and of the called proportions cause.

        With B = ``unmixing``, T_a the true proportions and g_c the derivative of a score u of group a by the weight of
        called group c, X_b = sum_c w_bc g_c is that score of the generated samples of true group b, and

            du = 1 / T_a [ sum_c B_ac (g_c - X_a) dq_c - sum_bc B_ac T_b (X_b - X_a) dC_bc ].
        """
        n_groups, _, n_scores = gradient.shape
        by_true = np.einsum("bc,acs->abs", self.weights.to_numpy(), gradient)
        own = np.einsum("aas->as", by_true)
        scaled = unmixing / true[:, None]
        by_rate = -np.einsum("ac,b,abs->asbc", scaled, true, by_true - own[:, None])
        by_called = np.einsum("ac,acs->asc", scaled, gradient - own[:, None])
        of_called = (np.diag(q) - np.outer(q, q)) / self._counts["n_fake"].sum()
        covariance = np.einsum("asbc,bcd,etbd->aset", by_rate, self.confusion.covariance(), by_rate)
        covariance += np.einsum("asc,cd,etd->aset", by_called, of_called, by_called)
        return np.asarray(covariance.reshape(n_groups * n_scores, -1), dtype=np.float64)

    def _of_proportions(self, unmixing: Floats, q: Floats, true: Floats, corrected: pd.DataFrame) -> Uncertainty:
        plain = proportion_uncertainty(corrected)
        size, total = len(q), true.sum()
        share = true / total
        project = (np.eye(size) - share[:, None]) / total @ unmixing  # of dq - dC' true
        of_called = (np.diag(q) - np.outer(q, q)) / self._counts["n_fake"].sum()
        inner = of_called + np.einsum("b,bcd->cd", true**2, self.confusion.covariance())
        data = plain.data.reshape(size, 2, size, 2).copy()
        data[:, 1, :, 1] = project @ inner @ project.T
        return dataclasses.replace(plain, data=data.reshape(plain.data.shape))

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

    def __repr__(self) -> str:
        refused: dict[str, list[str]] = {}
        for column, reason in self.refusals.items():
            refused.setdefault(reason, []).append(column)
        notes = [f"{listed(columns)}: {reason}." for reason, columns in refused.items()]
        parts = {
            "scores by true group": self.by_group,
            "share of every called group that is not of it": self.contamination,
            "proportions of the generated samples": self.proportions,
        }
        return "\n\n".join([type(self).__name__, *(f"{title}\n{table}" for title, table in parts.items()), *notes])

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

    def _infer(self) -> Inference:
        smallest = min(self._sizes, key=self._sizes.__getitem__)
        if self._sizes[smallest] < MIN_SAMPLES:
            raise ValueError(
                f"group {group_text(smallest)!r} has {self._sizes[smallest]} samples on one side, and an interval "
                f"needs at least {MIN_SAMPLES}; add samples, or merge groups"
            )
        return Inference(tables=self.tables, uncertainties=self._uncertainties)


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
        low = corrected.interval(level).disparities["low"].to_dict()[metric, primary]
        return _NOISE[low > 0.0], corrected

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
