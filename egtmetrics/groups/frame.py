"""Metrics for every sensitive group, side by side."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pandas as pd

from egtmetrics._cached import cached_method
from egtmetrics._errors import listed
from egtmetrics._progress import tqdm
from egtmetrics._random import RandomState
from egtmetrics.confusion import Confusion
from egtmetrics.groups._evaluation import (
    Metrics,
    MetricSet,
    MissingGroups,
    Refused,
    Results,
    caveat_note,
    check_groups,
    one_result_each,
    refusal_note,
    refusal_reasons,
    size_notes,
    warn_of_caveats,
    warn_of_refusals,
    warn_of_sizes,
    with_cluster_caveats,
)
from egtmetrics.groups._saved import (
    Registered,
    described_scores,
    disparity_dict,
    interval_dict,
    plain,
    restored_refusals,
    saved_intervals,
    saved_metrics,
    saved_refusals,
    saved_results,
    saved_tables,
)
from egtmetrics.groups.baseline import N_SPLITS, Baseline, evaluate_baseline
from egtmetrics.groups.budget import SampleBudget, VarianceModel, check_goal, plan_budget, variance_models
from egtmetrics.groups.controlled import ControlledScores, evaluate_controlled
from egtmetrics.groups.damage import Damages
from egtmetrics.groups.disparity import ScoreTable, disparity_table, proportion_table, score_table
from egtmetrics.groups.dose import DoseResponse, evaluate_dose_response
from egtmetrics.groups.inference import FrameIntervals, Inference, frame_inference, normal_quantile
from egtmetrics.groups.label_errors import LabelCorrection, LabelSensitivity, Unmixable, label_sensitivity, unmixable
from egtmetrics.groups.planning import Parts, Pilot, SamplePlan, plan_samples, score_parts
from egtmetrics.groups.verdict import Samples, Verdict, certify, check_metric
from egtmetrics.labels import group_text
from egtmetrics.ops import BackendName
from egtmetrics.registry import metric_of
from egtmetrics.results import MetricResult, Score
from egtmetrics.samples import GroupedSamples, labels_of


class GenerativeMetricFrame:
    """Scores of a generative model for every sensitive group, and the differences between the groups.

    The constructor evaluates every metric on ``(real_a, fake_a)`` for each group a, and on all samples. A group is one
    label of one sensitive feature, or one combination of labels of several (an intersection).

    Parameters
    ----------
    metrics
        Names as on the command line (``"fid"``, ``"topp,fid"`` or a list of them), a function
        ``(real, fake) -> score``, or a mapping of names to functions. A function returns a number, a 0-d array or
        tensor, a mapping of names to numbers, or a :class:`~egtmetrics.MetricResult`. If its signature names
        ``random_state``, ``backend`` or ``n_threads``, it gets the values given here, unless a ``functools.partial``
        has fixed them.
    real, fake
        Features ``(n, d)`` and ``(m, d)``, arrays or tensors. For metrics that take ``backend``, CUDA tensors stay on
        their device and are split into groups there. Other metrics get NumPy arrays. All metrics get them read-only.
        In the place of ``real`` and its labels, a :class:`~egtmetrics.Reference` computes once what depends on them.
    real_sensitive_features, fake_sensitive_features
        One label per row, as a sequence. Or several labels per row, as a DataFrame, a mapping of names to sequences or
        an ``(n, s)`` array. A row whose label is missing is in no group: None, NaN, NA, a masked value or an empty
        text, and the words that software writes for them, such as ``"NA"`` or ``"nan"`` (with a warning). A number such
        as -1 is a group: replace it by None where it means "unknown".
    real_clusters, fake_clusters
        One label per row that rows share which vary together (images of one prompt, photos of one person); see
        :class:`~egtmetrics.samples.GroupedSamples`. None if the rows are independent.
    real_control_features, fake_control_features
        What groups may be made of in other shares, such as the object that an image shows; ``controlled`` compares
        groups within the strata that these make.
    samples : GroupedSamples
        Instead of the last eight, for example ``GroupedSamples(...).matched()``.
    random_state
        Turned into one integer seed for *every* call of every metric (``settings["random_state"]``). With these common
        random numbers all groups see the same projections, so the noise that they share cancels from the differences.
        The result for a group depends neither on its name nor on the other groups. A Generator draws the integer.
    missing_groups
        What to do about a group with samples on only one side: ``"raise"`` before anything is computed, or ``"nan"``
        for scores of NaN.
    strict
        What to do if a metric refuses a group, or all samples together, with a ValueError, as most do that get too few
        samples. False gives NaN for that metric and group, a warning, and the reason in ``refusals``, in tables and
        pages and in JSON; also for intervals of groups that are too small for one. True raises the error, and what was
        computed before is lost. Errors of other types are faults, and always raised.
    backend, n_threads
        Passed to the metrics that take them.
    progress
        Show a progress bar that counts calls of metrics, also those of intervals and tests later on. Where stderr is
        neither a terminal nor a notebook, it is a line now and then, first after half a minute.

    Attributes
    ----------
    overall : Series
        The scores on all rows. Rows in no group are included, so this describes the model and not the groups.
    by_group : DataFrame
        One row per group, one column per score. A column has the metric's name if the metric has only one score, else
        ``<metric>_<score>``. Several sensitive features give the rows a MultiIndex.
    group_counts : DataFrame
        ``n_real``, ``n_fake`` and the proportions of the assigned rows, ``real_proportion`` and ``fake_proportion``, of
        all samples, before any were left out.
    scored_counts : DataFrame
        ``n_real`` and ``n_fake``: how many samples of each group were scored. Fewer than in ``group_counts`` after
        ``GroupedSamples.matched`` or ``max_samples`` of a stream.
    unassigned : dict
        Numbers of ``"real"`` and ``"fake"`` rows in no group. They are left out of ``by_group`` and of the proportions.
    tables : dict
        By metric, a :class:`~egtmetrics.groups.disparity.ScoreTable`: the scores under their own names, their
        descriptions, the caveats of groups, and the disparities that follow. The last one, ``"proportions"``, is for
        the group proportions.
    results : dict
        What the metrics returned, by group and metric. Groups missing on one side have no entry, nor have metrics that
        refused a group.
    overall_results : dict
        What the metrics returned on all rows, by metric.
    refusals : dict
        Why metrics refused groups, by metric and group; None stands for all samples. Empty if none did.
    samples : GroupedSamples or None
        The samples that were evaluated; None for a frame that was read from JSON.
    settings : dict
        How the scores were computed.
    verdicts : dict
        Those that were saved, by metric, for a frame that was read from JSON; else empty. ``certify`` makes them.

    Raises
    ------
    ValueError
        If samples, labels or options are invalid, there is only one group, or a group is missing on one side. If no
        group can meet the options of a metric of this package, before anything is computed. If no metric has a score
        for any group, or a metric that declares no scores has none. With ``strict``, if a metric refuses a group (the
        message names both).
    TypeError
        If the features are not numbers, labels have mixed types, or a metric returns no score.

    Warns
    -----
    MissingLabelWarning
        Labels such as "NA" or "nan" were taken for missing ones.
    MissingScoreWarning
        If a metric refuses a group, or all samples.
    UnreliableScoreWarning
        If the results of a metric have ``caveats``: scores of some groups cannot be relied on. See ``caveats()``.
    GroupSizeWarning
        If one group has more than twice the samples of another and a score depends on the number of samples, as most
        do; see ``GroupedSamples.matched``, ``at_sample_size`` and ``extrapolate``.

    Notes
    -----
    Cost: one evaluation of every metric for each group and one on all samples; the samples of one group are copied at
    a time. A group without a score (NaN) is left out of differences and disparities. ``disparities`` names it under
    ``without``, and no group is the worst then, because the missing one may be.

    Source: Definition 4.1 of the EGT paper, and its protocol of evaluating TopP&R by group; the interface is that of
    fairlearn's ``MetricFrame``.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> frame = GenerativeMetricFrame(
    ...     metrics=mean_gap, real=[[0.0], [0.0], [1.0], [1.0]], fake=[[0.5], [0.5], [1.0], [1.0]],
    ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    >>> frame.by_group  # doctest: +NORMALIZE_WHITESPACE
           mean_gap
    group
    f           0.5
    m           0.0
    >>> float(frame.difference()["mean_gap"])
    0.5
    """

    overall: pd.Series[float]
    by_group: pd.DataFrame
    group_counts: pd.DataFrame
    scored_counts: pd.DataFrame
    unassigned: dict[str, int]
    tables: dict[str, ScoreTable]
    results: Results
    overall_results: dict[str, MetricResult]
    samples: GroupedSamples | None
    settings: dict[str, Any]
    refusals: dict[str, dict[Hashable | None, str]]
    verdicts: Mapping[str, Verdict] = MappingProxyType({})

    def __init__(
        self,
        *,
        metrics: Metrics,
        real: Any = None,
        fake: Any = None,
        real_sensitive_features: Any = None,
        fake_sensitive_features: Any = None,
        real_clusters: Any = None,
        fake_clusters: Any = None,
        real_control_features: Any = None,
        fake_control_features: Any = None,
        samples: GroupedSamples | None = None,
        random_state: RandomState = None,
        missing_groups: MissingGroups = "raise",
        strict: bool = False,
        backend: BackendName = "auto",
        n_threads: int | None = None,
        progress: bool = False,
    ) -> None:
        given = {
            "real": real,
            "fake": fake,
            "real_sensitive_features": labels_of(real, real_sensitive_features),
            "fake_sensitive_features": fake_sensitive_features,
        }
        self._metrics = MetricSet(
            metrics,
            random_state=random_state,
            backend=backend,
            n_threads=n_threads,
            strict=strict,
            progress=progress,
        )
        others = {
            "real_clusters": real_clusters,
            "fake_clusters": fake_clusters,
            "real_control_features": real_control_features,
            "fake_control_features": fake_control_features,
        }
        if _samples_given(samples, given, others):
            assert samples is not None
            self.samples = samples = self._metrics.place(samples)
        else:
            self.samples = samples = self._metrics.group(**given, **others)
        check_groups(samples, missing_groups)
        self._metrics.check_options(samples)
        n_calls = len(self._metrics.bound) * (len(samples.groups.on_both_sides()) + 1)
        with tqdm(total=n_calls, desc="metrics", unit="call", disable=not progress) as bar:
            refused: Refused | None = None if strict else {}
            self.results = with_cluster_caveats(self._metrics.by_group(samples, bar.update, refused), samples)
            self.overall_results = self._metrics.overall(samples, bar.update, refused)
        described = self._described(refused or {})
        warn_of_refusals(refused or {}, "score", stacklevel=2)
        self.refusals = refusal_reasons(refused or {})
        tables = tables_of_results(self.results, samples.groups.index, described)
        warn_of_sizes(tables, stacklevel=2)
        warn_of_caveats(self.results, self.overall_results, stacklevel=2)
        self._inference: Inference | None = None
        self._registered: Registered = {name: metric_of(metric) for name, metric in self._metrics.given.items()}
        self._names = {label: samples.groups.name(label) for label in samples.groups.index}
        self.settings = {
            "metrics": self._metrics.describe(),
            "sensitive_features": [str(name) for name in samples.groups.index.names],
            "random_state": self._metrics.seed,
            "missing_groups": missing_groups,
            "strict": strict,
            "backend": backend,
            "n_threads": n_threads,
        }
        if samples.max_samples is not None:
            self.settings["max_samples"] = samples.max_samples
        if n_clusters := samples.n_clusters():
            self.settings["clusters"] = n_clusters
        self._set_tables(tables, self._overall_scores(), samples.counts(), samples.unassigned())

    def _described(self, refused: Refused) -> dict[str, Mapping[str, Score]]:
        """Return what the scores of every metric are; raise if those of one are not known, or no group has any."""
        found = {name: result.describe() for name, result in one_result_each(self.results).items()}
        described: dict[str, Mapping[str, Score]] = {}
        for name, metric in self._metrics.given.items():
            known = metric_of(metric)
            declared = found.get(name, {} if known is None else known.scores())
            if not found or not declared:
                raise next(iter(refused[name].values()))
            described[name] = declared
        return described

    def _overall_scores(self) -> dict[str, dict[str, float]]:
        return {name: result.scores() for name, result in self.overall_results.items()}

    def _set_tables(
        self,
        tables: Mapping[str, ScoreTable],
        overall: Mapping[str, Mapping[str, float]],
        counts: pd.DataFrame,
        unassigned: dict[str, int],
    ) -> None:
        columns = [(table.column(score), table, score) for table in tables.values() for score in table.described]
        names = [column for column, _, _ in columns]
        if len(set(names)) < len(names):
            raise ValueError(f"the names in metrics give two columns the same name: {names}; rename a metric")
        self.by_group = pd.concat([table.values[score].rename(column) for column, table, score in columns], axis=1)
        values = [overall.get(table.metric, {}).get(score, math.nan) for _, table, score in columns]
        self.overall = pd.Series(values, index=names, name="overall", dtype=float)
        self.group_counts, self.unassigned = counts, unassigned
        if self.samples is not None:
            self.scored_counts = self.samples.groups.counts()[["n_real", "n_fake"]]
        else:
            scored = {label: next(iter(by_metric.values())) for label, by_metric in self.results.items()}
            sizes = [(scored[one].n_real, scored[one].n_fake) if one in scored else (0, 0) for one in counts.index]
            self.scored_counts = pd.DataFrame(sizes, index=counts.index, columns=["n_real", "n_fake"])
        self.tables = {**tables, "proportions": proportion_table(counts)}

    def __repr__(self) -> str:
        notes = "".join(f"\n{note}" for note in [*self._caveat_notes(), *self._refusal_notes()])
        outside = " and ".join(f"{n} {side}" for side, n in self.unassigned.items() if n)
        left_out = f" ({outside} samples in no group)" if outside else ""
        return f"{type(self).__name__}{left_out}\n{self.by_group!r}{notes}"

    def _repr_html_(self) -> str:
        """Return what notebooks show: scores by group, and disparities."""
        tables = {"Scores by group": self.by_group, "Disparities between groups": self.disparities()}
        notes = [*self._caveat_notes(), *self._refusal_notes()]
        return "".join(f"<p>{html.escape(note)}</p>" for note in notes) + "".join(
            f"<h4>{title}</h4>{table.to_html(border=0, float_format='{:.4g}'.format, na_rep='nan')}"
            for title, table in tables.items()
        )

    def _caveat_notes(self) -> list[str]:
        """Say which scores cannot be relied on, and which differences between groups, and why."""
        return [
            *(
                caveat_note(
                    metric, {"overall" if label is None else group_text(label): texts for label, texts in found.items()}
                )
                for metric, found in self.caveats().items()
            ),
            *size_notes(self.tables),
        ]

    def _refusal_notes(self) -> list[str]:
        """Return a sentence for every metric that refused groups, which says why."""
        return [refusal_note(metric, reasons) for metric, reasons in self.refusals.items()]

    def describe(self) -> dict[str, Score]:
        """Return the description of every column of ``by_group``: its label, bounds, unit and direction."""
        return {
            table.column(score): described
            for name, table in self.tables.items()
            if name != "proportions"
            for score, described in table.described.items()
        }

    def title(self, metric: str) -> str:
        """Return the title of a metric for tables and figures: its own if it is registered, else its name here."""
        known = self._registered[metric]
        return metric if known is None else known.title

    def caveats(self) -> dict[str, dict[Hashable | None, tuple[str, ...]]]:
        """Return why scores cannot be relied on, by metric and group; None stands for all samples.

        Only what has caveats is named, so that an empty dict means that nothing speaks against any score.
        """
        found: dict[str, dict[Hashable | None, tuple[str, ...]]] = {}
        for metric, result in self.overall_results.items():
            by_group: dict[Hashable | None, tuple[str, ...]] = dict(self.tables[metric].caveats)
            if result.caveats:
                by_group[None] = result.caveats
            if by_group:
                found[metric] = by_group
        return found

    def scores(self, metric: str) -> pd.DataFrame:
        """Return the scores of one metric, one row per group, one column per score under its own name."""
        if metric not in self.settings["metrics"]:
            raise ValueError(
                f"metric={metric!r} is not in this frame; choose one of {listed(self.settings['metrics'])}"
            )
        return self.tables[metric].values.copy()

    def group_min(self) -> pd.Series[float]:
        """Return the smallest score over the groups, by column; NaN if a group has none."""
        return self.by_group.min(skipna=False)

    def group_max(self) -> pd.Series[float]:
        """Return the largest score over the groups, by column; NaN if a group has none."""
        return self.by_group.max(skipna=False)

    def worst_group(self, score: str) -> Hashable | None:
        """Return the group with the worst score, the first if several are tied.

        ``score`` is a column of ``by_group``. Returns None if the score has no direction, if all groups are equal, or
        if a group has no score or one that cannot be relied on (``caveats``), because it may be the worst one.
        """
        metric, name = self._column(score)
        table = self.tables[metric]
        if table.caveats:
            return None
        losses = {label: table.described[name].loss(value) for label, value in table.values[name].items()}
        if any(math.isnan(loss) for loss in losses.values()) or len(set(losses.values())) == 1:
            return None
        return max(losses, key=losses.__getitem__)

    def difference(self) -> pd.Series[float]:
        """Return the largest difference between two groups, by column: 0 means equal scores.

        This is the delta of Definition 4.1 for each single score. ``disparities`` also has the sum of precision and
        recall, the groups that attain each value, and those without a score, which are left out. NaN if fewer than two
        groups have one.
        """
        return (self.by_group.max() - self.by_group.min()).where(self.by_group.count() > 1)

    def ratio(self) -> pd.Series[float]:
        """Return the smallest score over the largest, by column: 1 means equal; NaN if a score is negative.

        Groups without a score are left out, as in ``difference``.
        """
        smallest, largest = self.by_group.min(), self.by_group.max()
        ratio = (smallest / largest).mask(smallest == largest, 1.0).mask(smallest < 0)
        return ratio.where(self.by_group.count() > 1)

    def disparities(self) -> pd.DataFrame:
        """Return every disparity with the groups that attain it.

        Returns
        -------
        DataFrame
            Indexed by ``(metric, disparity)``. ``value`` has the unit of the score. ``larger`` and ``smaller`` are the
            labels of the two groups, None if the groups are equal or the value is NaN. The disparities of a metric are
            those of ``disparities_from_scores``. ``("proportions", "mgo")`` and ``("proportions", "ego")`` compare the
            group proportions: ``mgo = max_a |pi_a^Q - pi_a^P|`` and ``ego = max over pairs |pi_a^Q - pi_b^Q|``
            (Definition 2.2). One group attains ``mgo``. It is named under ``larger`` if the fake samples hold too much
            of it, and under ``smaller`` if they hold too little. ``reliable`` is False where the scores of a group have
            caveats, and where one group has more than twice the samples of another and a score depends on their
            number: such groups may differ for that reason alone. ``without`` holds the labels of the groups that have
            no score: everything else in the row is about the others, and one of these may be the worst. NaN if fewer
            than two groups are left.
        """
        return disparity_table(self.tables)

    def interval(self, level: float = 0.95) -> FrameIntervals:
        """Return confidence intervals for every score of every group, and for every disparity.

        An interval is for the expected score over other samples of this size and law, other projections and other
        bootstraps. It is computed from the scores of random halves and quarters of the samples; see
        :mod:`egtmetrics.metrics.variance`. If the interval of a disparity starts at 0, the groups may be equal; its
        ``expected_if_equal`` is what noise alone would make of it on average. The intervals are normal approximations;
        ``benchmarks/results/calibration.md`` says how often they held in simulations.

        Raises
        ------
        ValueError
            If ``level`` is not in (0, 1), or the frame was read from JSON without intervals of this level. If every
            group has fewer than 50 samples on a side, or every metric refuses half of every group. Otherwise such
            groups have intervals of NaN, with a warning, and intervals and tests of disparities leave them out
            (``without``); with ``strict`` each of them is an error.

        Notes
        -----
        Cost, paid once per frame: one to six more evaluations of a metric with its own variance estimator (TopP&R,
        FID, KID and, for many features, the k-nearest-neighbour metrics); 198 evaluations of halves and 132 of quarters
        for any other metric.
        """
        if self._saved_intervals is not None and self._saved_intervals.level == level:
            return self._saved_intervals
        return self._infer().intervals(level)

    def difference_interval(self, score: str, a: Hashable, b: Hashable, level: float = 0.95) -> tuple[float, float]:
        """Return a confidence interval for the signed difference in a score between two groups, a - b.

        ``score`` is a column of ``by_group``. The interval stays within what the bounds of the score allow, -1 to 1 for
        shares. See ``interval``.
        """
        difference, error = self._infer().difference(*self._column(score), *map(self._label, (a, b)))
        margin = error * normal_quantile(level)
        low, high = self.describe()[score].bounds
        low, high = np.clip([difference - margin, difference + margin], low - high, high - low).tolist()
        return low, high

    def test(self) -> pd.DataFrame:
        """Test every disparity: could the groups have equal scores and the disparity be chance?

        Returns
        -------
        DataFrame
            Indexed by ``(metric, disparity)``: ``value``; ``p_value``, the probability of a largest studentised
            difference of this size or more if all groups had equal expected scores (a normal approximation that
            accounts for the number of groups); ``adjusted_p_value``, corrected over all rows of all metrics: with 0.05
            as the limit, any row is found by chance at most 5 % of the time; ``detectable``, the true difference of two
            groups that a test at 0.05, divided by the number of metrics, finds with a probability of 80 %; ``primary``,
            True for one disparity of each metric, for those who want one test a metric. That is ``delta_pr`` for
            precision and recall, else the first; ``without``, the groups that have no score or no variance and are left
            out; ``reliable`` as in ``disparities``.

        Notes
        -----
        The test compares expected scores only; the groups may have different laws. Within a metric, the correction
        uses the covariance of the disparities (step-down min-p); over metrics it is Holm's method. The proportions,
        which no metric takes part in, are corrected by themselves. Cost and errors: see ``interval``.

        Source: Westfall and Young, Resampling-Based Multiple Testing, 1993; ``docs/adr/0022-tests-of-disparities.md``.
        """
        return self._infer().tests()

    def baseline(
        self,
        held_out: Any = None,
        held_out_sensitive_features: Any = None,
        *,
        held_out_clusters: Any = None,
        n_splits: int = N_SPLITS,
        n_samples: int | None = None,
        progress: bool = False,
    ) -> Baseline:
        r"""Compare the model with a perfect generator: other real samples of each group, scored in the same way.

        Scores differ between groups even for a perfect generator, because the groups differ in spread, dimension and
        density. With T the metric, the real samples of a group split at random into halves A and B, and its generated
        samples into C and D,

        .. math::

            \text{model} = \tfrac12 [T(A, C) + T(B, D)], \quad
            \text{placebo} = \tfrac12 [T(A, B) + T(B, A)], \quad \text{excess} = \text{model} - \text{placebo},

        averaged over splits. With held-out real samples H and the generated ones F, the two are T(A, F) and T(A, H) at
        full size. The excess of a perfect generator is 0 in every group, so the disparities of the excess are those of
        the model.

        Parameters
        ----------
        held_out, held_out_sensitive_features
            Real samples that are not in ``real`` and their labels, as for the constructor. None splits the real ones:
            into halves of whole clusters, where they come in clusters, since a cluster in both would flatter a perfect
            generator.
        held_out_clusters
            Those of the held-out samples, as for the constructor.
        n_splits
            How often the samples are split, in each group. More splits make the result depend less on chance.
        n_samples
            The number of samples in each set. None takes as many as the smallest group allows, the same in all groups,
            since scores depend on the number of samples; larger groups then have more splits, which use all their rows.
            Unless ``strict``, a group too small for an interval is left out then, with a warning.
        progress
            Show a progress bar that counts calls of metrics.

        Returns
        -------
        Baseline
            The scores of the model and of the placebo, their ``excess`` and ``ratio``, with ``disparities()``,
            ``interval()`` and ``test()``. For a frame that was read from JSON, the one that was saved.

        Raises
        ------
        ValueError
            If only one of ``held_out`` and its labels is given, a group has no held-out samples or fewer samples than
            ``n_samples``, every metric refuses sets of this size (or one of them, with ``strict``), or the frame was
            read from JSON without a baseline.

        Notes
        -----
        Cost: each split costs about as much as the frame itself, for metrics whose time grows with the square of the
        number of samples.

        Source: a placebo in the sense of trials; the paper compares scores without one.

        Examples
        --------
        The same model for both groups, a wide and a narrow one: the distances differ, and so does the placebo's.

        >>> rng = np.random.default_rng(0)
        >>> groups = np.repeat(["narrow", "wide"], 300)
        >>> real, fake = rng.normal(size=(2, 600, 2)) * np.where(groups == "wide", 20.0, 1.0)[:, None]
        >>> frame = GenerativeMetricFrame(
        ...     metrics="fid", real=real, fake=fake, real_sensitive_features=groups, fake_sensitive_features=groups)
        >>> baseline = frame.baseline()
        >>> float(frame.difference()["fid"]) > 1.0, baseline.test()["p_value"].item() > 0.05
        (True, True)
        """
        if self._saved_baseline is not None:
            return self._saved_baseline
        samples = self._of_samples("a baseline")
        if (held_out is None) != (held_out_sensitive_features is None):
            missing = "held_out" if held_out is None else "held_out_sensitive_features"
            raise TypeError(f"{missing} is missing; pass held_out and held_out_sensitive_features together, or neither")
        placebo = None
        if held_out is not None:
            placebo = self._metrics.group(
                real=samples.real,
                fake=held_out,
                real_sensitive_features=samples.real_sensitive_features,
                fake_sensitive_features=held_out_sensitive_features,
                fake_clusters=held_out_clusters,
            )
            labels = dict.fromkeys((*samples.cluster_labels, *placebo.cluster_labels))
            numbers = {label: number for number, label in enumerate(labels)}
            placebo = placebo.renumbered([numbers[label] for label in placebo.cluster_labels])
        tables = {name: table for name, table in self.tables.items() if name != "proportions"}
        return evaluate_baseline(
            self._metrics, samples, tables, placebo, n_splits=n_splits, n_samples=n_samples, progress=progress
        )

    def certify(
        self,
        tolerance: float,
        *,
        metric: str | None = None,
        level: float = 0.95,
        baseline: Baseline | None = None,
    ) -> Verdict:
        """Say whether the largest gap between two groups is within a tolerance, beyond it, or undecided.

        The model satisfies delta-EGT of Definition 4.1 for every delta that is not below its gap. The tolerance is for
        every score of the metric that has the unit of the first one: for the gap in precision and the gap in recall,
        each by itself, so that opposite gaps do not cancel.

        Parameters
        ----------
        tolerance
            In the unit of the score; shares are fractions: 0.05 for five points.
        metric
            Whose scores; None if there is only one metric.
        level
            The claims "within" and "beyond" are each false at most ``1 - level`` of the time.
        baseline
            What ``baseline`` returned: then the gap is that of the excess over other real samples, and so the model's.
            Without it, part of the gap may come from the groups themselves.

        Returns
        -------
        Verdict
            ``outcome``: ``"within"`` if an upper bound of the largest gap is below the tolerance, ``"beyond"`` if a
            lower bound is above it, else ``"undecided"``, with the number of samples that would decide. ``text`` says
            it in words. Scores that cannot be relied on, and those that depend on the number of samples where groups
            differ in it by more than a factor of two, leave it undecided.

        Raises
        ------
        ValueError
            If ``tolerance`` is not a positive number, ``metric`` is not in this frame, or as for ``interval``.

        Notes
        -----
        The upper bound is one-sided at ``level``, so it is lower than the end of the interval of ``interval``, which is
        two-sided. Cost: that of ``interval``. Several verdicts are not corrected for their number. If all of them are
        "within", all are true with probability ``level``.

        Source: :func:`~egtmetrics.groups.verdict.certify`.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> real, fake = rng.normal(size=(2, 600, 2))
        >>> groups = np.repeat(["f", "m"], 300)
        >>> frame = GenerativeMetricFrame(
        ...     metrics="fid", real=real, fake=fake, real_sensitive_features=groups, fake_sensitive_features=groups)
        >>> frame.certify(0.2).outcome, frame.certify(0.001).outcome
        ('within', 'undecided')
        """
        metric = check_metric(metric, list(self.settings["metrics"]))
        if baseline is not None:
            return baseline.certify(tolerance, metric=metric, level=level)
        table = self.tables[metric]
        return certify(
            self._infer(),
            metric,
            tolerance,
            of="scores",
            samples=self._known(table),
            level=level,
        )

    def dose_response(
        self,
        damages: Damages | None = None,
        *,
        n_splits: int = N_SPLITS,
        n_samples: int | None = None,
        progress: bool = False,
    ) -> DoseResponse:
        r"""Read the scores as doses of known damage: "as if 12 % of the samples for f were off the data, 4 % for m".

        Equal damage changes the scores of unlike groups unequally. So real samples of each group are damaged at several
        doses and scored, and the model's score is read against the curve of its own group. With T the metric, halves A
        and B of a group's real samples and C and D of its generated ones, and B_t the damaged B,

        .. math::

                ext{curve}(t) = \tfrac12 [T(A, B_t) + T(B, A_t)], \quad
                ext{model} = \tfrac12 [T(A, C) + T(B, D)],

        averaged over splits, with the same splits and random numbers for all doses. The dose is the t at which a
        monotone fit to the curve has the model's score. A dose is only as good as the kind of damage: several kinds
        are tried, and if one is right, all scores read the same dose under it.

        Parameters
        ----------
        damages
            Names (``"off_support,noise"``), a :class:`~egtmetrics.groups.Damage` of your own, several of both, or a
            mapping of names to them. None takes all that have names: ``"off_support"``, ``"missing_mass"``,
            ``"copies"`` and ``"noise"``, as :mod:`egtmetrics.groups.damage` defines them.
        n_splits, n_samples, progress
            As for ``baseline``. Where a damage leaves fewer samples, all sets are cut to what its largest dose leaves.

        Returns
        -------
        DoseResponse
            ``doses``, by damage, group and score; ``agreement`` of the scores under each damage, and the
            ``explanation``, under which they agree best, or None; with ``disparities()``, ``interval()``, ``test()``
            and ``plot()``.

        Raises
        ------
        ValueError
            If a damage is unknown, returns features of another shape, or leaves a group fewer than 50 samples in half
            of its smaller side; a metric refuses sets of this size; or the frame was read from JSON.

        Notes
        -----
        An interval holds every dose t at which the model's score and curve(t) are not distinguishable, by the error
        that ``baseline`` gives their difference, since they share samples. So it needs no slope of the curve. A score
        that the model moves in the other direction than the damage reads the dose 0. The error counts everything as
        random that varies from sample to sample; it does not count that other copies or neighbourhoods would have been
        drawn.

        Cost: for each damage with K doses, 0 among them, (K + 1) / 2 times that of ``baseline`` and its interval.

        Source: dose-response curves and their inverse reading (calibration) in the sense of assays; the paper compares
        scores as they are.

        Examples
        --------
        A fifth of the samples of both groups is off the data.

        >>> from egtmetrics.groups import off_support
        >>> rng = np.random.default_rng(0)
        >>> groups = np.repeat(["flat", "round"], 240)
        >>> real, fake = rng.normal(size=(2, 480, 4)) * np.where(groups[:, None] == "flat", [1, 1, 0.01, 0.01], 1)
        >>> fake = np.concatenate([off_support(fake[groups == group], 0.2, rng) for group in ("flat", "round")])
        >>> frame = GenerativeMetricFrame(metrics="ipr", real=real, fake=fake, real_sensitive_features=groups,
        ...                               fake_sensitive_features=groups, random_state=0)
        >>> response = frame.dose_response("off_support")
        >>> response.doses["ipr_precision"].round(2).tolist()
        [0.2, 0.18]
        >>> bool(response.test().loc[("ipr", "delta_p"), "p_value"] > 0.05)
        True
        """
        tables = {name: table for name, table in self.tables.items() if name != "proportions"}
        samples = self._of_samples("a dose")
        return evaluate_dose_response(
            self._metrics, samples, tables, damages, n_splits=n_splits, n_samples=n_samples, progress=progress
        )

    def controlled(
        self, weights: Mapping[Hashable, float] | None = None, *, progress: bool = False
    ) -> ControlledScores:
        r"""Compare groups within the strata of the control features, and average the gaps over the strata.

        Two groups may differ because they are made of other things: of portraits and street scenes in other shares.
        With T the metric, and :math:`T_{as}` that of the samples of group a in stratum s,

        .. math::

            T_a = \sum_s w_s T_{as}, \qquad T_a - T_b = \sum_s w_s (T_{as} - T_{bs}),

        with the same weights for all groups. This is direct standardisation, as of death rates of unlike populations.

        Parameters
        ----------
        weights
            By stratum, at least 0; they are divided by their sum. None weighs a stratum by its share of the real
            samples that are in a group.
        progress
            Show a progress bar that counts calls of metrics.

        Returns
        -------
        ControlledScores
            ``by_stratum``, ``by_group`` (the averages), ``strata`` (the weights, and why a stratum was left out),
            with ``disparities()``, ``interval()``, ``test()`` and ``certify()``.

        Raises
        ------
        ValueError
            If the samples have no control features, weights are not those of strata, no stratum has scores of all
            groups, or with ``strict`` one has not.

        Warns
        -----
        MissingScoreWarning
            If a stratum is left out, because a group is missing there or too small for a metric.

        Notes
        -----
        Strata have to be large: every group needs as many samples in each as a metric needs, and 50 on each side for an
        interval. A prompt with eight images is a cluster, not a stratum. Scores depend on the number of samples, so
        where groups differ in it by more than a factor of two within a stratum, the average has a caveat;
        ``GroupedSamples.matched(across_groups=True)`` makes sizes equal within every stratum.

        Cost: that of the frame without its overall scores, or less.

        Source: the name is that of fairlearn's ``MetricFrame``, which gives the strata one by one; Fleiss, Statistical
        Methods for Rates and Proportions, 1981, chapter 14 (standardisation).

        Examples
        --------
        Both groups are treated alike. Street scenes, which the model draws badly, are more of the one than the other.

        >>> rng = np.random.default_rng(0)
        >>> groups, scene = np.repeat(["f", "m"], 400), np.array((["face"] * 250 + ["street"] * 150
        ...                                                       + ["face"] * 150 + ["street"] * 250))
        >>> real = rng.normal(size=(800, 2))
        >>> fake = rng.normal(size=(800, 2)) + 2.0 * (scene == "street")[:, None]
        >>> frame = GenerativeMetricFrame(
        ...     metrics="fid", real=real, fake=fake, real_sensitive_features=groups, fake_sensitive_features=groups,
        ...     real_control_features=scene, fake_control_features=scene, random_state=0)
        >>> bool(frame.test().loc[("fid", "delta_fid"), "p_value"] < 0.001)
        True
        >>> bool(frame.controlled().test().loc[("fid", "delta_fid"), "p_value"] > 0.05)
        True
        """
        tables = {name: table for name, table in self.tables.items() if name != "proportions"}
        return evaluate_controlled(
            self._metrics, self._of_samples("a comparison within strata"), tables, weights, progress=progress
        )

    def correct_labels(self, confusion: Confusion) -> LabelCorrection:
        r"""Return the scores of the true groups, where an oracle that errs has called those of the generated samples.

        With C the oracle's confusion, :math:`C_{ac} = P(\text{called } c \mid \text{true } a)`, and q the proportions
        of the called groups, a generated sample that is called c counts for true group a with the weight

        .. math:: w_{ac} = (C^{-\top})_{ac} \, q_c / \pi_a, \qquad \pi = C^{-\top} q, \qquad \sum_c w_{ac} = 1,

        some of which are negative. If :math:`S_{ca}` is the score of the generated samples called c against the real
        ones of group a, the corrected score of group a is :math:`\sum_c w_{ac} S_{ca}`, where it is a mean over
        generated samples for given real ones (``Score.per_sample``: k-NN precision, density, P-precision). For the
        kernel distance the kernel means are weighted so. The bias that the error of C makes is taken off. Others, as
        FID, recall and coverage, cannot be corrected; they are NaN, with the reason.

        Parameters
        ----------
        confusion
            Of the oracle on samples like the generated ones: ``oracle.confusion``, or better one from generated samples
            of which a random part is labelled by hand (``Confusion.of_labels``, ``egtmetrics.data.read_confusion``).

        Returns
        -------
        LabelCorrection
            ``by_group``, ``disparities()``, ``interval()``, ``test()`` and ``certify()`` as a frame has them; the
            ``contamination`` of the called groups and their corrected ``proportions``.

        Raises
        ------
        ValueError
            The confusion is of other groups or has no inverse, a group would have no samples by it, no score can be
            corrected, or the frame was read from JSON.

        Notes
        -----
        It assumes that the labels of the real samples are true; that an error depends on the true group of a sample,
        and not otherwise on where it lies; and that the called groups have the proportions in which they were generated
        (``group_counts``; matching sizes keeps these). If bad samples are called wrongly more often, the correction is
        too small. :meth:`egtmetrics.confusion.Confusion.compare` tests whether the oracle errs on generated samples as
        on real ones. Intervals carry the error of the scores, of q, and of C. If labels are true, nothing changes.

        Cost, paid once per frame: with G groups, G times that of the metric and of its interval; for KID all pairs of
        samples. Simulations: ``benchmarks/results/label_errors.md``.

        Source: inverse of a misclassification matrix, as in Buonaccorsi, Measurement Error, 2010, chapter 2 (for
        proportions); ``docs/adr/0033-labels-that-err.md``.

        Examples
        --------
        No gap in truth. A tenth of the labels is wrong, and the small group seems to be worse.

        >>> from egtmetrics.confusion import Confusion
        >>> rng = np.random.default_rng(0)
        >>> groups = np.repeat(["f", "m"], [250, 450])
        >>> real, fake = rng.normal(size=(2, 700, 2)) + 4.0 * (groups == "m")[:, None]
        >>> called = np.where(rng.random(700) < 0.1, np.where(groups == "m", "f", "m"), groups)
        >>> frame = GenerativeMetricFrame(metrics="ipr", real=real, fake=fake, real_sensitive_features=groups,
        ...                               fake_sensitive_features=called, random_state=0)
        >>> frame.by_group["ipr_precision"].round(2).tolist()
        [0.82, 0.92]
        >>> corrected = frame.correct_labels(Confusion([[0.9, 0.1], [0.1, 0.9]], group_names=["f", "m"]))
        >>> corrected.by_group["ipr_precision"].round(2).tolist()
        [0.97, 0.98]
        >>> corrected.contamination["value"].round(2).tolist()
        [0.15, 0.06]
        """
        tables = {name: table for name, table in self.tables.items() if name != "proportions"}
        return self._corrected(confusion, tables)

    def label_sensitivity(
        self, metric: str | None = None, *, tolerance: float | None = None, level: float = 0.95
    ) -> LabelSensitivity:
        """Return the rate of wrong labels of generated samples, the same in every group, at which a finding changes.

        The finding is the outcome of ``certify`` for a tolerance, else whether the metric's primary disparity is more
        than noise. It is that of ``correct_labels`` for every rate, up to the one at which a group would be empty.

        Raises
        ------
        ValueError
            No score of the metric can be corrected, or as for ``interval``.

        Notes
        -----
        Cost: that of ``correct_labels``, paid once, and some 30 verdicts.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> groups = np.repeat(["f", "m"], [200, 400])
        >>> real, fake = rng.normal(size=(2, 600, 2)) + 4.0 * (groups == "m")[:, None]
        >>> fake[:40] += 9.0
        >>> frame = GenerativeMetricFrame(metrics="ipr", real=real, fake=fake, real_sensitive_features=groups,
        ...                               fake_sensitive_features=groups, random_state=0)
        >>> round(frame.label_sensitivity().error_rate, 2)
        0.06
        """
        metric = check_metric(metric, list(self.settings["metrics"]))
        table = {metric: self.tables[metric]}
        return label_sensitivity(
            lambda confusion: self._corrected(confusion, table),
            metric,
            self.by_group.index.tolist(),
            tolerance=tolerance,
            level=level,
        )

    def _corrected(self, confusion: Confusion, tables: Mapping[str, ScoreTable]) -> LabelCorrection:
        return LabelCorrection(
            confusion,
            {metric: self._unmixable(metric) for metric in tables},
            tables,
            counts=self.group_counts,
            sizes=self._sizes(),
        )

    @cached_method
    def _unmixable(self, metric: str) -> Unmixable:
        samples = self._of_samples("a correction")
        if samples.n_clusters():
            raise ValueError(
                "the samples come in clusters, which corrections of labels do not count; leave the clusters out, and "
                "take the intervals for too short"
            )
        return unmixable(self._metrics, samples, self.results, self.tables[metric].described, metric)

    def samples_needed(
        self, score: str, a: Hashable, b: Hashable, *, delta: float, power: float = 0.8, level: float = 0.95
    ) -> SamplePlan:
        r"""Plan how many samples per group and side detect a true difference ``delta`` with probability ``power``.

        Scores with neighbours or thresholds do not vary as means do, and their differences move with the number of
        samples. Random halves and quarters of this frame's samples show both. With :math:`T_a, V_a` the score of a
        group and its variance at n samples,

        .. math::

            V_a(n') = V_a (n / n')^{e_a}, \quad
            T_a(n') = T_a + (T_a - \bar T_a(n / 4)) \bigl(1 - \sqrt{n / n'}\bigr),

        and n' is where the difference, now ``delta`` in the direction that was observed, has the standard errors that
        it takes. :math:`e_a` is 1 for a mean. It follows from the ratio of the variances that halves and quarters
        give, half of whose distance from 1 is taken to remain.

        Parameters
        ----------
        score
            A column of ``by_group``.
        a, b
            The two groups.
        delta
            The difference between them, at the sizes of this frame, that a test should find.
        power, level
            The test at ``level`` (two-sided, of this difference alone) finds it with this probability.

        Returns
        -------
        SamplePlan
            ``n_samples`` with an ``interval``, and what was extrapolated: ``standard_error``, ``difference`` and
            ``exponent``. At least a quarter of the smaller group.

        Raises
        ------
        ValueError
            If more than twice as many samples are needed as the smaller group has, which nothing can be known about;
            the message names a difference that can be planned for. If the metric refuses quarters of a group.

        Notes
        -----
        Cost, paid once for each group and metric, after that of ``interval``: 330 calls of the metric on halves and
        quarters, about 60 evaluations if its time grows with the square of the number of samples.

        Source and simulations: ``docs/adr/0022-tests-of-disparities.md``.
        """
        metric, name = self._column(score)
        labels = [self._label(label) for label in (a, b)]
        *variances, constant = self._infer().variances(metric, name, *labels)
        table = self.tables[metric]
        column = list(table.described).index(name)
        pilots = []
        for label, variance in zip(labels, variances, strict=True):
            if math.isnan(variance):
                raise ValueError(f"group {group_text(label)!r} has no variance of {score!r}; plan for two other groups")
            value = float(table.values[name].to_dict()[label])
            pilots.append(Pilot.of(self._parts(metric, label), column, score=value, variance=variance))
        what = f"{score}, {' against '.join(map(group_text, labels))}"
        return plan_samples(*pilots, constant=constant, delta=delta, power=power, level=level, what=what)

    @cached_method
    def _parts(self, metric: str, label: Hashable) -> Parts:
        return score_parts(self._metrics, metric, self._of_samples("samples_needed"), label)

    def plan(
        self,
        *,
        width: float | None = None,
        tolerance: float | None = None,
        metric: str | None = None,
        more_real: bool = False,
        power: float = 0.8,
        level: float = 0.95,
    ) -> SampleBudget:
        r"""Plan how many more samples of which groups shorten the interval of the largest gap, or decide a tolerance.

        A width is that of the metric's primary disparity over all groups. A tolerance is for every score that
        ``certify`` compares with it, each by itself. With :math:`u_a` what is compared of group a, and n real and m
        generated samples of it today,

        .. math::

            \operatorname{Var} u_a &= R_a (n_a / n_a')^{r_a} + F_a (m_a / m_a')^{f_a}
                + I_a \, n_a m_a / (n_a' m_a'), \\
            \operatorname{Var}(u_a - u_b) &= \operatorname{Var} u_a + \operatorname{Var} u_b + K_{ab}.

        R is what is left with unlimited generated samples, F with unlimited real ones, I what both cause together. They
        come from scores of every half of one side against every half of the other, the exponents from quarters as well.
        K is due to projections and bootstraps. The plan adds the fewest samples that reach the goal, one kind at a
        time, whichever helps most.

        For a tolerance the goal is a probability. Let e be the standard error of a difference today, and e' that with
        more samples, those of today among them. If before today every true difference was as likely as any other, the
        estimate will move by a normal variate of variance :math:`e^2 - e'^2`. From that follows how probable a verdict
        is, "within" or "beyond".

        Parameters
        ----------
        width
            How long the interval of the gap (``interval``) may be, in the unit of the score.
        tolerance
            The tolerance that ``certify`` is to decide.
        metric
            Whose gap; None if there is only one metric.
        more_real
            Whether there can be more real samples, too.
        power
            How probable a verdict is to be once the samples are added to those of today.
        level
            Of the interval, or of the verdict.

        Returns
        -------
        SampleBudget
            ``samples`` by group, ``text`` in words, and for a tolerance the ``power`` that these samples give. If
            unlimited generated samples do not reach the goal, it says that the real ones are the limit, and
            ``unlimited`` is the width that remains, ``unlimited_power`` the probability of a verdict.

        Raises
        ------
        ValueError
            If not exactly one of ``width`` and ``tolerance`` is given as a positive number, or the metric refuses
            quarters of a group, or as for ``interval``.

        Notes
        -----
        Not more than twice the samples of today are planned, since nothing is known of how scores vary beyond; the plan
        then says what these would reach, and one plans again. Where there is no verdict today, the gap is near the
        tolerance, and twice the samples give one with a probability of 75 to 80 % at most, if variances fall with
        1 / n. Fresh samples in the place of those of today give it less often than samples beside them. Widths are met
        on average, not always. ``samples_needed`` plans for a given difference of two groups.

        Cost, after that of ``interval``: 336 calls of the metric for each group, on halves and quarters, about 50
        evaluations if its time grows with the square of the number of samples. ``benchmarks/results/plan.md`` has
        simulations.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> real, fake = rng.normal(size=(240, 2)), rng.normal(size=(120, 2))
        >>> frame = GenerativeMetricFrame(
        ...     metrics="fid", real=real, fake=fake, real_sensitive_features=["f", "m"] * 120,
        ...     fake_sensitive_features=["f", "m"] * 60, random_state=0)
        >>> plan = frame.plan(width=0.21)
        >>> plan.now > 0.21 > plan.planned > plan.unlimited
        True
        >>> plan.samples[["n_real", "n_fake", "more_real"]].to_dict("index")
        {'f': {'n_real': 120, 'n_fake': 60, 'more_real': 0}, 'm': {'n_real': 120, 'n_fake': 60, 'more_real': 0}}
        >>> frame.plan(width=0.001).limit
        'real samples'
        """
        metric = check_metric(metric, list(self.settings["metrics"]))
        check_goal(width, tolerance, power)
        table = self.tables[metric]
        return plan_budget(
            self._variance_models(metric),
            self._infer(),
            metric,
            known=self._known(table),
            width=width,
            tolerance=tolerance,
            more_real=more_real,
            power=power,
            level=level,
        )

    @cached_method
    def _variance_models(self, metric: str) -> dict[str, VarianceModel]:
        return variance_models(self._metrics, self._of_samples("a plan"), self._infer(), metric)

    def plot(self, score: str | None = None, *, intervals: FrameIntervals | None = None, ax: Any = None) -> Any:
        """Draw the scores of the groups side by side, one row per group; return the axes. Needs matplotlib.

        Parameters
        ----------
        score
            A column of ``by_group``; None draws the first one.
        intervals
            What ``interval`` returned, drawn as bars.
        ax
            Matplotlib axes to draw on; None makes new ones.
        """
        from egtmetrics.plots import plot_scores

        column = str(self.by_group.columns[0]) if score is None else self._column_name(score)
        bounds = None if intervals is None else intervals.by_group.loc[[column]]
        values = self.by_group[column].rename(index=self._names)
        overall = float(self.overall[column])
        doubtful = self.caveats().get(self._column(column)[0], {})
        unreliable = [None if label is None else self._names[label] for label in doubtful]
        return plot_scores(
            values, self.describe()[column], overall=overall, bounds=bounds, unreliable=unreliable, ax=ax
        )

    def _infer(self) -> Inference:
        if self._inference is None:
            samples = self._of_samples("an interval or a test")
            tables = {name: table for name, table in self.tables.items() if name != "proportions"}
            self._inference = frame_inference(self._metrics, samples, self.results, tables, self.group_counts)
        return self._inference

    def _known(self, table: ScoreTable) -> Samples:
        """Return what the scores of a metric were computed from."""
        return Samples(
            sizes=self._sizes(),
            scores=[table.values],
            described=table.described,
            units=self._units(),
        )

    def _sizes(self) -> dict[Hashable, int]:
        """Return how many samples of each group were scored, on the side that has fewer."""
        return self.scored_counts[["n_real", "n_fake"]].min(axis=1).to_dict()

    def _units(self) -> dict[Hashable, int]:
        """Return how many of them are independent: the clusters, where samples come in any."""
        found = None if self.samples is None else self.samples.units()
        return self._sizes() if found is None else found

    def _of_samples(self, what: str) -> GroupedSamples:
        if self.samples is None:
            raise ValueError(
                f"{what} needs the samples, but this frame was read from JSON, which holds only scores; evaluate again"
            )
        return self.samples

    def _column_name(self, score: str) -> str:
        if score not in self.by_group:
            raise ValueError(f"score={score!r} is not a column of by_group; choose one of {listed(self.by_group)}")
        return score

    def _column(self, column: str) -> tuple[str, str]:
        """Return the metric and the score of a column of ``by_group``."""
        self._column_name(column)
        return next(
            (table.metric, score)
            for table in self.tables.values()
            for score in table.described
            if table.column(score) == column
        )

    def _label(self, label: Hashable) -> Hashable:
        if label not in self.by_group.index:
            groups = listed(map(repr, self.by_group.index.tolist()))
            raise ValueError(f"{label!r} is not a group of this frame; choose two of {groups}")
        return label

    def to_dict(
        self,
        intervals: FrameIntervals | None = None,
        *,
        baseline: Baseline | None = None,
        verdicts: Mapping[str, Verdict] | None = None,
    ) -> dict[str, Any]:
        """Return everything as a nested dict of plain values, which ``json.dumps(..., allow_nan=False)`` accepts.

        Group labels become text (``"gender=female, age=old"`` for several features), NaN becomes None, and infinity
        becomes ``"inf"`` or ``"-inf"``. With the intervals from ``interval``, the key ``"intervals"`` has ``"level"``,
        and ``"low"`` and ``"high"`` under the same keys as ``"by_group"`` and ``"disparities"``, those of disparities
        with everything else that ``interval`` says of them. The key ``"registered"`` has the registered names of
        metrics, and ``"scores"`` describes scores that no registered metric declares in this way. If metrics refused
        groups, the key ``"refusals"`` says why. With a baseline, the key ``"baseline"`` has what its ``to_dict``
        returns, with intervals of the same level; with verdicts by metric, the key ``"verdicts"`` has them.
        """
        names = self._names
        content = {
            "settings": self.settings,
            "group_counts": {names[label]: row.to_dict() for label, row in self.group_counts.astype(object).iterrows()},
            "unassigned": self.unassigned,
            "overall": self.overall.to_dict(),
            "by_group": {names[label]: row.to_dict() for label, row in self.by_group.iterrows()},
            "disparities": disparity_dict(self.disparities(), names),
            "results": {
                "overall": self.overall_results,
                "by_group": {names[label]: results for label, results in self.results.items()},
            },
            "registered": {name: known.name for name, known in self._registered.items() if known is not None},
            **described_scores(self._registered, self.tables),
        }
        if self.refusals:
            content["refusals"] = saved_refusals(self.refusals, names)
        if intervals is not None:
            content["intervals"] = interval_dict(intervals, self.by_group, names)
        if baseline is not None:
            content["baseline"] = baseline.to_dict(None if intervals is None else intervals.level)
        if verdicts:
            content["verdicts"] = {metric: verdict.to_dict(names) for metric, verdict in verdicts.items()}
        return {key: plain(value) for key, value in content.items()}

    def to_json(
        self,
        intervals: FrameIntervals | None = None,
        *,
        baseline: Baseline | None = None,
        verdicts: Mapping[str, Verdict] | None = None,
    ) -> str:
        """Return ``to_dict`` as JSON text, which ``from_json`` reads."""
        content = self.to_dict(intervals, baseline=baseline, verdicts=verdicts)
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a frame back from the JSON of ``to_json`` or of ``egtmetrics evaluate --out result.json``.

        The frame has everything but the samples: scores, disparities, tables, figures, and what was saved of intervals
        (``interval``), a baseline (``baseline``) and verdicts (``verdicts``). The labels of groups are their texts.

        Raises
        ------
        ValueError
            If the text is not such JSON.

        Examples
        --------
        >>> frame = GenerativeMetricFrame(
        ...     metrics="fid", real=[[0.0], [2.0], [0.0], [2.0]], fake=[[1.0], [3.0], [0.0], [2.0]],
        ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
        >>> GenerativeMetricFrame.from_json(frame.to_json()).worst_group("fid")
        'f'
        """
        try:
            content = json.loads(text)
            return cls._restored(content)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, StopIteration, RecursionError) as error:
            raise ValueError(
                f"text is not the JSON of a frame ({type(error).__name__}: {error}); pass what to_json returned, or "
                "the content of the .json file that egtmetrics evaluate --out wrote"
            ) from error

    @classmethod
    def _restored(cls, content: Mapping[str, Any]) -> Self:
        frame = object.__new__(cls)
        frame.samples, frame._inference = None, None
        frame.settings = dict(content["settings"])
        frame._registered = saved_metrics(content)
        tables = saved_tables(content, frame._registered)
        index = next(iter(tables.values())).values.index
        frame.refusals = restored_refusals(content.get("refusals", {}))
        frame._names = {label: label for label in index}
        frame.overall_results, frame.results = saved_results(content, frame._registered, tables)
        counts = pd.DataFrame(list(content["group_counts"].values()), index=index)
        frame._set_tables(tables, frame._overall_scores(), counts, dict(content["unassigned"]))
        if "intervals" in content:
            frame._saved_intervals = saved_intervals(content["intervals"], frame.tables)
        if "baseline" in content:
            frame._saved_baseline = Baseline.restored(content["baseline"], tables)
        frame.verdicts = {
            metric: Verdict.restored(saved, tables[metric]) for metric, saved in content.get("verdicts", {}).items()
        }
        return frame

    _saved_intervals: FrameIntervals | None = None
    _saved_baseline: Baseline | None = None


def tables_of_results(
    results: Results, index: pd.Index[Any], described: Mapping[str, Mapping[str, Score]] | None = None
) -> dict[str, ScoreTable]:
    """Return the scores of every metric, one row per group of ``index``, NaN for groups without its result.

    ``described`` says what the scores of every metric are, if some metrics may have no result.
    """
    found = described or {metric: one.describe() for metric, one in one_result_each(results).items()}
    tables = {}
    for metric, scores in found.items():
        of_metric = {label: by_metric[metric] for label, by_metric in results.items() if metric in by_metric}
        rows = {label: result.scores() for label, result in of_metric.items()}
        for label, row in rows.items():
            if list(row) != list(scores):
                raise ValueError(
                    f"metric {metric!r} returned the scores {list(row)} for group {label!r} and {list(scores)} for "
                    "another group; return the same scores for all groups"
                )
        missing = dict.fromkeys(scores, np.nan)
        values = pd.DataFrame([rows.get(label, missing) for label in index], index=index, dtype=float)
        tables[metric] = score_table(
            metric,
            values[list(scores)],
            scores,
            caveats={label: result.caveats for label, result in of_metric.items()},
            sizes={label: (result.n_real, result.n_fake) for label, result in of_metric.items()},
        )
    return tables


def _samples_given(samples: GroupedSamples | None, given: Mapping[str, Any], optional: Mapping[str, Any]) -> bool:
    """Return whether ``samples`` was given instead of the arguments; TypeError unless exactly one of both was."""
    missing = [name for name, value in given.items() if value is None]
    named = [name for name, value in {**given, **optional}.items() if value is not None]
    if samples is None and missing:
        raise TypeError(f"{', '.join(missing)} missing; pass {', '.join(given)}, or samples=GroupedSamples(...)")
    if samples is not None and named:
        raise TypeError(f"samples and {', '.join(named)} were both given; pass one or the other")
    if samples is not None and not isinstance(samples, GroupedSamples):
        raise TypeError(f"samples is {type(samples).__name__}, expected GroupedSamples(real=..., fake=..., ...)")
    return samples is not None
