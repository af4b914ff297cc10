"""Metrics by sensitive group, side by side."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from egtmetrics._random import RandomState
from egtmetrics.groups._evaluation import (
    GroupEvaluation,
    Metric,
    MissingGroups,
    Score,
    callable_name,
    scores_by_group,
    scores_of,
)
from egtmetrics.groups._pairs import disparities_from_scores, proportion_disparities
from egtmetrics.groups.inference import FrameInference, FrameIntervals, normal_quantile, samples_needed
from egtmetrics.ops import BackendName
from egtmetrics.results import MetricResult


class GenerativeMetricFrame:
    """Scores of a generative model for every sensitive group, and the differences between the groups.

    Every metric is evaluated, at construction, on ``(real_a, fake_a)`` for each group a and on all samples. A group is
    one label of one sensitive feature, or one combination of labels of several (an intersection).

    Parameters
    ----------
    metrics
        A callable ``(real, fake) -> float | MetricResult``, or a mapping of names to such. Where its signature names
        ``random_state``, ``backend`` or ``n_threads``, the values given here are passed on; what a
        ``functools.partial`` has fixed stays fixed.
    real, fake
        Features ``(n, d)`` and ``(m, d)``, arrays or tensors. CUDA tensors stay on their device, where the groups are
        taken out of them, for metrics that take ``backend``; other metrics get NumPy arrays.
    real_sensitive_features, fake_sensitive_features
        One label per row: a sequence, or several as a DataFrame, a mapping of name to sequence or an ``(n, s)`` array.
        None and NaN mean that the row belongs to no group.
    random_state
        Turned into one integer seed, with which *every* call of every metric is made (``settings["random_state"]``).
        With such common random numbers all groups see the same projections, so the noise they share cancels from the
        differences, and the result for a group depends neither on its name nor on the other groups. A Generator gives
        one integer.
    missing_groups
        What to do about a group with samples on one side only: ``"raise"``, or ``"nan"`` for a row of NaN.
    backend, n_threads
        Passed to the metrics that take them.
    progress
        Show a progress bar, which counts calls of metrics.

    Attributes
    ----------
    overall : Series
        The scores on all rows. Unassigned rows are included, so this describes the model and not the groups.
    by_group : DataFrame
        One row per group, one column per score: the metric's name where it returns a number or a single score,
        ``<metric>_<score>`` elsewhere. A MultiIndex of rows for several sensitive features.
    group_counts : DataFrame
        ``n_real``, ``n_fake`` and the proportions of the assigned rows, ``real_proportion`` and ``fake_proportion``.
    unassigned : dict
        Number of ``"real"`` and ``"fake"`` rows in no group. They are left out of ``by_group`` and of the proportions.
    results : dict
        What the metrics returned, by group and metric; groups missing on one side have no entry.
    overall_results : dict
        What the metrics returned on all rows, by metric.
    settings : dict
        How it was computed.

    Raises
    ------
    ValueError
        If samples, labels or options are invalid; there is one group only; a group is missing on one side; a metric
        refuses a group, for example because it is too small (the message names the group).
    TypeError
        If features are no numbers, labels are of mixed types or a metric returns no score.

    Warns
    -----
    GroupSizeWarning
        If one group has more than twice the samples of another, and a metric depends on the number of samples, as most
        do; see ``match_sizes``, ``at_sample_size`` and ``extrapolated``.

    Notes
    -----
    Cost: metrics times groups + 1 evaluations; the samples of one group are copied at a time. A score of NaN is kept
    and makes every difference of its column NaN: a group without a score may be the worst one.

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
    unassigned: dict[str, int]
    results: dict[Hashable, dict[str, Score]]
    overall_results: dict[str, Score]
    settings: dict[str, Any]

    def __init__(
        self,
        *,
        metrics: Metric | Mapping[str, Metric],
        real: Any,
        fake: Any,
        real_sensitive_features: Any,
        fake_sensitive_features: Any,
        random_state: RandomState = None,
        missing_groups: MissingGroups = "raise",
        backend: BackendName = "auto",
        n_threads: int | None = None,
        progress: bool = False,
    ) -> None:
        evaluation = GroupEvaluation(
            metrics,
            real,
            fake,
            real_sensitive_features=real_sensitive_features,
            fake_sensitive_features=fake_sensitive_features,
            random_state=random_state,
            missing_groups=missing_groups,
            backend=backend,
            n_threads=n_threads,
        )
        with tqdm(total=evaluation.n_calls, desc="metrics", unit="call", disable=not progress) as bar:
            self.results = evaluation.by_group(bar.update)
            self.overall_results = evaluation.overall(bar.update)
        self._evaluation, self._inference = evaluation, None
        self._groups = evaluation.groups
        self._scores = {name: scores_by_group(self.results, name, self._groups.index) for name in evaluation.metrics}
        self.group_counts = self._groups.counts()
        self.unassigned = self._groups.unassigned()
        self.by_group = pd.concat([_flat(name, scores) for name, scores in self._scores.items()], axis=1)
        if not self.by_group.columns.is_unique:
            raise ValueError(
                f"the names in metrics give two columns of one name: {list(self.by_group.columns)}; rename a metric"
            )
        overall = {name: scores_of(result, name) for name, result in self.overall_results.items()}
        flat = [_flat(name, pd.DataFrame([scores], dtype=float)) for name, scores in overall.items()]
        self.overall = pd.concat(flat, axis=1).iloc[0].rename("overall")
        self.settings = {
            "metrics": {name: describe_metric(metric) for name, metric in evaluation.given_metrics.items()},
            "sensitive_features": [str(name) for name in self._groups.index.names],
            "random_state": evaluation.seed,
            "missing_groups": missing_groups,
            "backend": backend,
            "n_threads": n_threads,
        }

    _inference: FrameInference | None

    def __repr__(self) -> str:
        return f"{type(self).__name__} ({self.unassigned} rows in no group)\n{self.by_group!r}"

    def _repr_html_(self) -> str:
        """What notebooks show: scores by group, and disparities."""
        tables = {"Scores by group": self.by_group, "Disparities between groups": self.disparities()}
        return "".join(
            f"<h4>{title}</h4>{table.to_html(border=0, float_format='{:.4g}'.format, na_rep='nan')}"
            for title, table in tables.items()
        )

    def scores(self, metric: str) -> pd.DataFrame:
        """Return the scores of one metric, one row per group, one column per score under its own name."""
        if metric not in self._scores:
            raise ValueError(f"metric={metric!r} is not in this frame; choose one of {list(self._scores)}")
        return self._scores[metric].copy()

    def group_min(self) -> pd.Series[float]:
        """Smallest score over the groups, by column; NaN if a group has none."""
        return self.by_group.min(skipna=False)

    def group_max(self) -> pd.Series[float]:
        """Largest score over the groups, by column; NaN if a group has none."""
        return self.by_group.max(skipna=False)

    def difference(self) -> pd.Series[float]:
        """Largest difference between two groups, by column: 0 means equal scores; NaN if a group has none.

        This is the delta of Definition 4.1 for every single score; see ``disparities`` for the sum of precision and
        recall, and for the groups that attain it.
        """
        return self.group_max() - self.group_min()

    def ratio(self) -> pd.Series[float]:
        """Smallest score over largest, by column: 1 means equal scores; NaN if one is NaN or negative."""
        smallest, largest = self.group_min(), self.group_max()
        return (smallest / largest).mask(smallest == largest, 1.0).mask(smallest < 0)

    def disparities(self) -> pd.DataFrame:
        """Return every disparity with the groups that attain it.

        Returns
        -------
        DataFrame
            Indexed by ``(metric, disparity)``. ``value`` is in the units of the score, ``larger`` and ``smaller`` are
            the labels of the two groups, None where the groups are equal or the value is NaN. The disparities of a
            metric are those of ``disparities_from_scores``. ``("proportions", "mgo")`` and ``("proportions", "ego")``
            compare the group proportions: ``mgo = max_a |pi_a^Q - pi_a^P|`` and
            ``ego = max over pairs |pi_a^Q - pi_b^Q|`` (Definition 2.2). ``mgo`` is attained by one group, named under
            ``larger`` where the fake samples hold too much of it, under ``smaller`` where they hold too little.
        """
        found = [(name, disparities_from_scores(scores)) for name, scores in self._scores.items()]
        found.append(("proportions", proportion_disparities(self.group_counts)))
        rows = {(metric, name): pair for metric, pairs in found for name, pair in pairs.items()}
        index = pd.MultiIndex.from_tuples(rows, names=["metric", "disparity"])
        columns = {
            "value": pd.Series([pair.value for pair in rows.values()], index=index, dtype=float),
            "larger": pd.Series([pair.larger for pair in rows.values()], index=index, dtype=object),
            "smaller": pd.Series([pair.smaller for pair in rows.values()], index=index, dtype=object),
        }
        return pd.DataFrame(columns)

    def interval(self, level: float = 0.95) -> FrameIntervals:
        """Return confidence intervals of every score of every group, and of every disparity.

        They are for the expectation of the score over samples of this size and law, projections and bootstraps, and
        come from the scores of random halves and quarters of the samples; see ``egtmetrics.metrics._spread``. An
        interval of a disparity that starts at 0 says that the groups may be equal. They are normal approximations; how
        often they held in simulations is in ``benchmarks/results/calibration.md``.

        Raises
        ------
        ValueError
            If ``level`` is not in (0, 1), a group has fewer than 50 samples on a side, or a metric refuses
            half of a group.

        Notes
        -----
        Cost: one to three more evaluations for TopP&R, FID, KID and, where features are many, the k-nearest-neighbour
        metrics; 198 evaluations of halves and 132 of quarters for any other; once for a frame.
        """
        columns = {name: list(map(str, _flat(name, scores))) for name, scores in self._scores.items()}
        return self._infer().intervals(level, columns)

    def difference_interval(self, metric: str, a: Hashable, b: Hashable, level: float = 0.95) -> tuple[float, float]:
        """Return a confidence interval of the signed difference of a score between two groups, a - b.

        ``metric`` is a column of ``by_group``. See ``interval``.
        """
        difference, error = self._infer().difference(*self._column(metric), *map(self._label, (a, b)))
        margin = error * normal_quantile(level)
        return difference - margin, difference + margin

    def test(self) -> pd.DataFrame:
        """Test every disparity: could the scores of the groups be equal, and this be chance?

        Returns
        -------
        DataFrame
            Indexed by ``(metric, disparity)``: ``value``; ``p_value``, the chance of such a largest studentised
            difference between groups of equal expected scores (a normal approximation that accounts for the number of
            groups); ``adjusted_p_value``, by Holm over all rows.

        Notes
        -----
        Groups may have different laws: what is tested is the equality of their expected scores. Cost and errors: see
        ``interval``.
        """
        return self._infer().tests()

    def samples_needed(
        self, metric: str, a: Hashable, b: Hashable, *, delta: float, power: float = 0.8, level: float = 0.95
    ) -> int:
        """Return how many samples per group and side find a true difference ``delta`` with chance ``power``.

        Extrapolated from the standard error of this frame's difference by :func:`~egtmetrics.groups.samples_needed`,
        and from the smaller of the two groups.
        """
        labels = [self._label(label) for label in (a, b)]
        _, error = self._infer().difference(*self._column(metric), *labels)
        n_samples = int(self._groups.counts().loc[labels, ["n_real", "n_fake"]].to_numpy().min())
        return samples_needed(error, n_samples, delta=delta, power=power, level=level)

    def _infer(self) -> FrameInference:
        if self._inference is None:
            options = {"backend": self.settings["backend"], "n_threads": self.settings["n_threads"]}
            self._inference = FrameInference(self._evaluation, self.results, self._scores, self.group_counts, **options)
        return self._inference

    def _column(self, column: str) -> tuple[str, str]:
        """Metric and score behind a column of ``by_group``."""
        for name, scores in self._scores.items():
            for flat, score in zip(_flat(name, scores), scores, strict=True):
                if flat == column:
                    return name, str(score)
        raise ValueError(f"metric={column!r} is no column of by_group; choose one of {list(self.by_group)}")

    def _label(self, label: Hashable) -> Hashable:
        if label not in self.by_group.index:
            raise ValueError(f"{label!r} is no group of this frame; choose two of {self.by_group.index.tolist()}")
        return label

    def to_dict(self, intervals: FrameIntervals | None = None) -> dict[str, Any]:
        """Everything as a nested dict of plain values, which ``json.dumps(..., allow_nan=False)`` takes.

        Group labels become text (``"gender=female, age=old"`` for several features), NaN becomes None and infinity
        the text ``"inf"`` or ``"-inf"``. With what ``interval`` returned there is ``"intervals"`` too: ``"level"``,
        and ``"low"`` and ``"high"`` under the keys that ``"by_group"`` and ``"disparities"`` have.
        """
        name = self._groups.name
        disparities: dict[str, dict[str, Any]] = {}
        for row in self.disparities().reset_index().to_dict("records"):
            pair = {key: None if row[key] is None else name(row[key]) for key in ("larger", "smaller")}
            disparities.setdefault(row["metric"], {})[row["disparity"]] = {"value": row["value"], **pair}
        content = {
            "settings": self.settings,
            "group_counts": {name(label): row.to_dict() for label, row in self.group_counts.astype(object).iterrows()},
            "unassigned": self.unassigned,
            "overall": self.overall.to_dict(),
            "by_group": {name(label): row.to_dict() for label, row in self.by_group.iterrows()},
            "disparities": disparities,
            "results": {
                "overall": self.overall_results,
                "by_group": {name(label): results for label, results in self.results.items()},
            },
        }
        if intervals is not None:
            content["intervals"] = self._interval_dict(intervals)
        return {key: _plain(value) for key, value in content.items()}

    def _interval_dict(self, intervals: FrameIntervals) -> dict[str, Any]:
        name = self._groups.name
        by_group: dict[str, dict[str, Any]] = {name(label): {} for label in self.by_group.index}
        for column in map(str, self.by_group):
            for label, row in intervals.by_group.loc[column][["low", "high"]].iterrows():
                by_group[name(label)][column] = row.to_dict()
        disparities: dict[str, dict[str, Any]] = {}
        for row in intervals.disparities.reset_index().to_dict("records"):
            bounds = {side: row[side] for side in ("low", "high")}
            disparities.setdefault(row["metric"], {})[row["disparity"]] = bounds
        return {"level": intervals.level, "by_group": by_group, "disparities": disparities}


def _flat(metric: str, scores: pd.DataFrame) -> pd.DataFrame:
    """Name the columns of one metric's scores as they stand in ``by_group``."""
    return scores.set_axis([metric] if scores.shape[1] == 1 else [f"{metric}_{s}" for s in scores.columns], axis=1)


def describe_metric(metric: Metric) -> str:
    """Name a metric and the options fixed in it: ``"topp_precision_recall(alpha=0.05)"``."""
    keywords = metric.keywords if isinstance(metric, functools.partial) else {}
    return f"{callable_name(metric)}({', '.join(f'{key}={value!r}' for key, value in keywords.items())})"


def _plain(value: Any) -> Any:
    if isinstance(value, MetricResult):
        return _plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
