"""Do two models have equal scores? Intervals and tests of the differences between them.

Two models that are scored on the same real samples err together: a real sample that is hard to cover is so for both. So
the real samples are split into the same random halves and quarters for both models, the fake samples of each model into
their own, and the two scores vary together as those of the parts do (:mod:`egtmetrics.metrics.variance`). Where both
models have the same clusters, such as prompts, these are split alike as well: the models are paired.

The null hypothesis is equal expected scores. That of the permutation tests (:mod:`egtmetrics.groups.permutation`) is
equal laws. They also reject two models that differ and score alike.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from egtmetrics._errors import listed
from egtmetrics._random import RandomState
from egtmetrics._validation import check_level, check_real_fake, keep_checked
from egtmetrics.groups._evaluation import (
    GroupSizeWarning,
    MetricSet,
    Results,
    ScoreFunction,
    naming_metric,
    warn_of_caveats,
)
from egtmetrics.groups.disparities import choose_score
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.groups.inference import (
    MIN_CLUSTERS,
    MIN_SAMPLES,
    Uncertainty,
    holm,
    normal_quantile,
    score_uncertainty,
)
from egtmetrics.groups.permutation import are_reliable, check_comparable, scores_and_disparities
from egtmetrics.labels import group_text, number_clusters
from egtmetrics.metrics.subsampling import Clusters, n_units
from egtmetrics.metrics.variance import Advance, JointScores, Moves, ScoreCovariance, ScoresOfParts, joint_scores
from egtmetrics.ops import BackendName, Features, reading_device, to_host
from egtmetrics.results import MetricResult, UnreliableScoreWarning
from egtmetrics.samples import ENOUGH_CLUSTERS, GroupedSamples

Floats = NDArray[np.float64]


class Sets(NamedTuple):
    """Real samples and the fake samples of two models, and the clusters of their rows."""

    features: tuple[Features, Features, Features]
    clusters: tuple[Clusters, Clusters, Clusters]


_NEAR = 2.0
"""A contrast between groups within this many standard errors of the largest one may be the largest in truth."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """What :func:`compare_models` returns."""

    difference: float
    """The score of ``fake`` minus that of ``other_fake``."""
    standard_error: float
    interval: tuple[float, float]
    p_value: float
    """The probability of a difference of this size or more, in either direction, if the expected scores are equal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """How far a difference between two models may be from its expectation."""

    error: float
    """Standard error."""
    n_first: int = 1
    n_other: int = 1
    """Of two disparities: how many contrasts between groups may be the largest in the first and in the other model."""

    def interval(self, difference: float, level: float) -> tuple[float, float]:
        """Return the interval. The largest of n contrasts is too high by the largest of n errors at most."""
        below, above = (normal_quantile(1.0 - (1.0 - level) / n) * self.error for n in (self.n_first, self.n_other))
        return difference - below, difference + above

    def p_value(self, difference: float) -> float:
        """Return the p-value of an expected difference of 0; NaN if the difference or its error is no number."""
        if not math.isfinite(difference) or math.isnan(self.error):
            return math.nan
        if difference == 0.0:
            return 1.0
        ratio = abs(difference) / self.error if self.error > 0.0 else math.inf
        return min(1.0, 2.0 * float(ndtr(-ratio)) * (self.n_first if difference > 0.0 else self.n_other))


def compare_models(
    real: Any,
    fake: Any,
    other_fake: Any,
    *,
    metric: str | ScoreFunction,
    score: str | None = None,
    real_clusters: Any = None,
    fake_clusters: Any = None,
    other_fake_clusters: Any = None,
    level: float = 0.95,
    random_state: RandomState = None,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> ModelComparison:
    """Compare a score of two models on one set of real samples, with an interval and a test of equal scores.

    The difference is ``metric(real, fake) - metric(real, other_fake)``. The interval is for its expectation over other
    samples of these sizes, other projections and other bootstraps. It is a normal approximation, whose variance comes
    from the scores of random parts of the samples. The parts of ``real`` are the same for both models. To compare the
    models in one group, pass the samples of that group.

    Parameters
    ----------
    real, fake, other_fake
        Features ``(n, d)``, ``(m, d)`` and ``(l, d)``, at least 50 rows each.
    metric
        A name as on the command line, or a function ``(real, fake) -> score``; fix its options with
        ``functools.partial``.
    score
        Which score of the metric's result to compare; not needed if there is only one.
    real_clusters, fake_clusters, other_fake_clusters
        One label per row that is the same for rows that vary together, such as their prompt. A label of several sets is
        the same cluster: models that were given the same prompts are paired, and what a prompt does to both cancels.
        None for a set of independent rows.
    level
        Of the interval.
    random_state
        Turned into one seed for both models and for the random parts.
    backend, n_threads
        As for ``GenerativeMetricFrame``.

    Raises
    ------
    ValueError
        If samples or options are invalid, a set has fewer than 50 rows or 8 clusters, or the metric refuses half of
        them.

    Warns
    -----
    UnreliableScoreWarning
        If a set has fewer than 20 clusters.
    GroupSizeWarning
        If ``fake`` and ``other_fake`` differ in size and the score depends on the number of samples.

    Notes
    -----
    Cost: two evaluations, and for each model what ``GenerativeMetricFrame.interval`` costs for one group. How often the
    interval holds: docs/adr/0021-comparing-models.md.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> real, good, bad = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)), rng.normal(0.5, size=(200, 2))
    >>> result = compare_models(real, good, bad, metric="fid", random_state=0)
    >>> result.interval[1] < 0, result.p_value < 0.001
    (True, True)
    """
    level = check_level(level)
    metrics = MetricSet(metric, random_state=random_state, backend=backend, n_threads=n_threads)
    device = reading_device(backend, real, fake, other_fake)
    real, fake = map(keep_checked, check_real_fake(real, fake, device=device))
    real, other_fake = map(keep_checked, check_real_fake(real, other_fake, device=device))
    for name, side in (("real", real), ("fake", fake), ("other_fake", other_fake)):
        _check_size(len(side), name)
    clusters, _ = number_clusters(
        {
            "real_clusters": (real_clusters, len(real)),
            "fake_clusters": (fake_clusters, len(fake)),
            "other_fake_clusters": (other_fake_clusters, len(other_fake)),
        }
    )
    sets = Sets((real, fake, other_fake), (clusters[0], clusters[1], clusters[2]))
    _check_clusters({None: sets}, stacklevel=2)
    (metric_name,) = metrics.bound
    results: Results = {
        name: metrics.call(real, side, "the samples of a model")
        for name, side in (("fake", fake), ("other_fake", other_fake))
    }
    warn_of_caveats(results, what="samples", stacklevel=2)
    both = [by_metric[metric_name] for by_metric in results.values()]
    first, second = (one.scores() for one in both)
    chosen = choose_score(list(first), score)
    _warn_of_sizes({None: sets}, {metric_name: both[0]}, stacklevel=2)
    uncertainty = _uncertainty(metrics, metric_name, {None: sets}, {None: both}, pd.Index([None]), len(first))
    spread = Spread(error=float(errors_of_scores(uncertainty)[0, list(first).index(chosen)]))
    difference = first[chosen] - second[chosen]
    return ModelComparison(
        difference=difference,
        standard_error=spread.error,
        interval=spread.interval(difference, level),
        p_value=spread.p_value(difference),
    )


def compare_frames(
    frame: GenerativeMetricFrame, other: GenerativeMetricFrame, *, level: float = 0.95, progress: bool = False
) -> pd.DataFrame:
    """Compare every score of two models, overall and by group, and every disparity, with tests of equal scores.

    Intervals and tests are those of :func:`compare_models`. A disparity is the largest of several differences between
    groups. Its standard error is that of the groups that attain it. Where other differences come within two standard
    errors of the largest, the largest is probably too large, since chance chose it. So the p-value is multiplied by the
    number of differences that may be the largest, and the interval is as much wider (Bonferroni).

    Where the fake samples of both frames come in clusters of the same labels, such as prompts, the models are paired:
    what a prompt does to both cancels from the differences.

    Parameters
    ----------
    frame, other
        Frames with the same metrics, groups and real samples, at least 50 real and 50 fake samples in every group. The
        ``random_state`` of the first draws the random parts.
    level
        Of the intervals. Each holds for one row alone.
    progress
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row for each score and disparity: ``metric``, ``score`` (or disparity), ``group`` (None for overall scores
        and disparities), ``difference`` (that of ``frame`` minus that of ``other``), ``low``, ``high``, ``p_value`` (of
        equal expected scores, or disparities), ``adjusted_p_value``, corrected over all rows by Holm's method, and
        ``reliable``, False where a score of either frame has caveats. NaN where a score is missing or infinite, also
        for the disparities of all groups.

    Raises
    ------
    ValueError
        If the frames differ in metrics, groups or real samples, a group has fewer than 50 samples on a side, or a
        metric refuses half of a group.

    Warns
    -----
    GroupSizeWarning
        If the models have different numbers of fake samples, overall or in a group, and a score depends on them.

    Notes
    -----
    Cost: for each frame and metric what ``GenerativeMetricFrame.interval`` costs, and once more for all samples. How
    often the intervals hold: docs/adr/0021-comparing-models.md.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> real, groups = rng.normal(size=(200, 2)), ["f", "m"] * 100
    >>> fakes = {"good": rng.normal(size=(200, 2)), "unfair": rng.normal([[1.0, 1.0], [0.0, 0.0]] * 100)}
    >>> frames = [
    ...     GenerativeMetricFrame(metrics="fid", real=real, fake=fake, random_state=0,
    ...                           real_sensitive_features=groups, fake_sensitive_features=groups)
    ...     for fake in (fakes["unfair"], fakes["good"])]
    >>> table = compare_frames(*frames)
    >>> table[["metric", "score", "group"]].assign(differs=table["adjusted_p_value"] <= 0.05)
      metric      score group  differs
    0    fid        fid  None     True
    1    fid        fid     f     True
    2    fid        fid     m    False
    3    fid  delta_fid  None     True
    """
    level = check_level(level)
    check_comparable(frame, other)
    frames = (frame, other)
    if frame.settings["metrics"] != other.settings["metrics"]:
        mine, theirs = (listed(one.settings["metrics"].values()) for one in frames)
        raise ValueError(f"frame was scored by {mine}, but other by {theirs}; evaluate both with the same metrics")
    groups, whole, share_clusters = _sets_in_common(*frames)
    _check_clusters(groups, stacklevel=2)
    _warn_of_sizes({None: whole, **groups}, frame.overall_results, stacklevel=2)
    spreads: dict[tuple[str, str, Hashable | None], Spread] = {}
    results = [one for each in frames for of in (each.overall_results, *each.results.values()) for one in of.items()]
    with frame._metrics.counting("comparisons", results, progress=progress) as bar:
        for metric in frame._metrics.bound:
            table = frame.tables[metric]
            of_all: dict[Hashable, list[MetricResult]] = {}
            if all(metric in one.overall_results for one in frames):
                of_all[None] = [one.overall_results[metric] for one in frames]
            by_group = {
                label: [one.results[label][metric] for one in frames]
                for label in groups
                if all(metric in one.results[label] for one in frames)  # it may have refused a group that is small
            }
            scored = {label: groups[label] for label in by_group}
            n_scores = len(table.described)
            overall = _uncertainty(
                frame._metrics, metric, dict.fromkeys(of_all, whole), of_all, pd.Index([None]), n_scores, bar.update
            )
            grouped = _uncertainty(
                frame._metrics,
                metric,
                scored,
                by_group,
                frame.by_group.index,
                n_scores,
                bar.update,
                in_common=share_clusters,
            )
            for uncertainty in (overall, grouped):
                for label, errors in zip(uncertainty.table.index, errors_of_scores(uncertainty), strict=True):
                    spreads |= {
                        (metric, score, label): Spread(error=float(error))
                        for score, error in zip(table.described, errors, strict=True)
                    }
            for disparity in table.disparities:
                contrasts = disparity.contrasts(table.values)
                spreads[metric, disparity.name, None] = spread_of_largest(grouped, contrasts)
    first, second = (scores_and_disparities(one.results, one.overall_results, frame) for one in frames)
    differences = {key: first[key] - second[key] for key in first}
    compared = pd.DataFrame(list(differences), columns=["metric", "score", "group"], dtype=object)
    compared["difference"] = list(differences.values())
    compared[["low", "high"]] = [spreads[key].interval(value, level) for key, value in differences.items()]
    compared["p_value"] = [spreads[key].p_value(value) for key, value in differences.items()]
    compared["adjusted_p_value"] = holm(compared["p_value"].to_numpy())
    compared["reliable"] = [are_reliable(frames, *key) for key in differences]
    return compared


def _sets_in_common(
    frame: GenerativeMetricFrame, other: GenerativeMetricFrame
) -> tuple[dict[Hashable, Sets], Sets, bool]:
    """Return the samples of every group that both models have, all samples, and whether groups share clusters."""
    both = [one._of_samples("a comparison of models") for one in (frame, other)]
    wholes = [one.overall() for one in both]
    in_common: list[list[Any]] = [
        [one.groups.real_ids for one in both],
        [_on_host(one.real) for one in both],
        [_on_host(real) for real, _ in wholes],
    ]
    if not all(np.array_equal(mine, theirs) for mine, theirs in in_common):
        raise ValueError(
            "frame and other were scored on different real samples, so it is not known what their scores have in "
            "common; evaluate both on the same real samples, in the same order"
        )
    both = _numbered_together(*both)
    groups: dict[Hashable, Sets] = {}
    for label in frame.results:
        if label in other.results:
            mine, theirs = (one.group(label) for one in both)
            groups[label] = Sets((mine.real, mine.fake, theirs.fake), (*mine.clusters, theirs.clusters[1]))
            _check_size(min(map(len, groups[label].features)), _where(label))
    whole = Sets((*wholes[0], wholes[1][1]), (*both[0].clusters, both[1].clusters[1]))
    return groups, whole, any(one.share_clusters() for one in both)


def _numbered_together(first: GroupedSamples, second: GroupedSamples) -> list[GroupedSamples]:
    """Return both samples with clusters that have one numbering; they must agree on those of the real rows."""
    position = {label: i for i, label in enumerate(dict.fromkeys([*first.cluster_labels, *second.cluster_labels]))}
    both = [one.renumbered([position[label] for label in one.cluster_labels]) for one in (first, second)]
    mine, theirs = (one.clusters[0] for one in both)
    if not np.array_equal([] if mine is None else mine, [] if theirs is None else theirs):
        raise ValueError(
            "frame and other have different clusters of the same real samples; pass the same real_clusters for both"
        )
    return both


def _on_host(features: Features) -> Features:
    return to_host(features)[:]  # what is spread over ranks is fetched


def _where(label: Hashable) -> str:
    return "all samples" if label is None else f"group {group_text(label)!r}"


def _check_size(n: int, what: str) -> None:
    if n < MIN_SAMPLES:
        raise ValueError(
            f"{what} has {n} samples of one kind, but a comparison of models needs at least {MIN_SAMPLES} real ones "
            "and as many of each model; add samples, or merge groups"
        )


def _check_clusters(sets: Mapping[Hashable, Sets], *, stacklevel: int) -> None:
    """Refuse sets of too few clusters, and warn of those with few."""
    sizes = {
        label: [n_units(len(ids), ids) for ids in three.clusters if ids is not None] for label, three in sets.items()
    }
    for label, counts in sizes.items():
        if counts and min(counts) < MIN_CLUSTERS:
            raise ValueError(
                f"{_where(label)} is in {min(counts)} clusters, but a comparison of models needs at least "
                f"{MIN_CLUSTERS} of each kind of samples; add clusters, or merge groups"
            )
    few = [_where(label) for label, counts in sizes.items() if counts and min(counts) < ENOUGH_CLUSTERS]
    if few:
        warnings.warn(
            f"{listed(few)} is in fewer than {ENOUGH_CLUSTERS} clusters, so the errors of differences cannot be relied "
            "on; add clusters",
            UnreliableScoreWarning,
            stacklevel=stacklevel + 1,
        )


def _warn_of_sizes(sets: Mapping[Hashable, Sets], results: Mapping[str, MetricResult], *, stacklevel: int) -> None:
    """Warn if the models have different numbers of samples and a score depends on them."""
    unequal = [
        f"{_where(label)} ({len(mine)} and {len(theirs)})"
        for label, ((_, mine, theirs), _) in sets.items()
        if len(mine) != len(theirs)
    ]
    dependent = [
        repr(name)
        for name, result in results.items()
        if any(score.depends_on_size for score in result.describe().values())
    ]
    if unequal and dependent:
        warnings.warn(
            f"the models differ in their numbers of fake samples, in {listed(unequal)}; {', '.join(dependent)} may "
            "depend on the number, so part of a difference may come from it. Compare equally many samples of each.",
            GroupSizeWarning,
            stacklevel=stacklevel + 1,
        )


def _uncertainty(
    metrics: MetricSet,
    name: str,
    sets: Mapping[Hashable, Sets],
    results: Mapping[Hashable, Sequence[MetricResult]],
    index: pd.Index[Any],
    n_scores: int,
    advance: Advance = lambda _: None,
    *,
    in_common: bool = False,
) -> Uncertainty:
    """Return the scores of both models side by side, one row per group, with their covariances.

    ``in_common`` says whether groups have clusters in common.
    """
    rows = {label: [*first.scores().values(), *second.scores().values()] for label, (first, second) in results.items()}
    missing = [math.nan] * (2 * n_scores)
    table = pd.DataFrame([rows.get(label, missing) for label in index], index=index, dtype=float)
    covariances: dict[Hashable, ScoreCovariance] = {}
    for label, three in sets.items():
        with naming_metric(name, f"a comparison of models needs scores of random halves of {_where(label)}"):
            joint = joint_scores(
                metrics.bound[name],
                [_on_host(one) for one in three.features],
                [(0, 1), (0, 2)],
                results[label],
                rng=np.random.default_rng([metrics.seed, 1]),
                backend=metrics.backend,
                n_threads=metrics.n_threads,
                clusters=three.clusters,
                advance=advance,
            )
        covariances[label] = _of_both(joint)
    return score_uncertainty(table, covariances, in_common=in_common)


def _of_both(joint: JointScores) -> ScoreCovariance:
    """Return the covariance of the scores of the first model followed by those of the second."""
    first, second = joint.sources
    side_by_side: Any = [_padded(first, after=True), _padded(second, after=False)]
    return dataclasses.replace(joint, sources=side_by_side).covariance([1.0, 1.0])


def _padded(source: ScoresOfParts | Moves, *, after: bool) -> ScoresOfParts | Moves:
    """Return S scores with S scores that are always 0 after them, or before them."""

    def padded(values: Any) -> Any:
        if isinstance(values, tuple):
            return tuple(map(padded, values))
        if not isinstance(values, np.ndarray):
            return values
        nothing = np.zeros_like(values)
        return np.concatenate([values, nothing] if after else [nothing, values], axis=-1)

    fields = {field.name: padded(getattr(source, field.name)) for field in dataclasses.fields(source)}
    if isinstance(source, Moves):
        fields["drawn"] = padded(fields["drawn"].T)
    return dataclasses.replace(source, **fields)


def errors_of_scores(uncertainty: Uncertainty) -> Floats:
    """Return the standard errors of the differences between the models, ``(groups, S)``."""
    n_groups, n_columns = uncertainty.table.shape
    n_scores = n_columns // 2
    each = np.eye(n_groups * n_scores).reshape(-1, n_groups, n_scores)
    variances = uncertainty.parts(_beside(each, -each))["total"].to_numpy()
    errors: Floats = np.sqrt(variances).reshape(n_groups, n_scores)
    return errors


def spread_of_largest(uncertainty: Uncertainty, families: Sequence[Floats]) -> Spread:
    """Return the spread of the difference between the disparities of two models.

    A disparity is the sum over families of the largest contrast; the contrasts, ``(K, groups * S)`` each, are those of
    one model. ``uncertainty`` is that of both models side by side.
    """
    attained = []
    n_near = []
    for side in (0, 1):
        total, n_sums = np.zeros((1, uncertainty.values.size)), 1
        for contrasts in families:
            own = contrasts.reshape(len(contrasts), len(uncertainty.table), -1)
            nothing = np.zeros_like(own)
            of_model = _beside(nothing, own) if side else _beside(own, nothing)
            values = uncertainty.estimates(of_model)
            if np.isnan(values).any():
                return Spread(error=math.nan)
            largest = of_model[[int(values.argmax())]]
            errors = np.sqrt(uncertainty.parts(largest - of_model)["total"].to_numpy())
            n_sums *= int(np.count_nonzero(values.max() - values <= _NEAR * errors))
            total += largest
        attained.append(total)
        n_near.append(n_sums)
    variance = float(uncertainty.parts(attained[0] - attained[1])["total"].iloc[0])
    return Spread(error=math.sqrt(variance), n_first=n_near[0], n_other=n_near[1])


def _beside(first: Floats, second: Floats) -> Floats:
    """Return contrasts ``(K, groups * 2 S)`` from those of each model, ``(K, groups, S)``."""
    both: Floats = np.concatenate([first, second], axis=2).reshape(len(first), -1)
    return both
