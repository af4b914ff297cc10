"""Permutation tests: would the scores look the same if groups, or two models, exchanged their samples at random?

Their null hypothesis is equal laws. Tests of equal expected scores: :mod:`egtmetrics.groups.inference` for groups,
:mod:`egtmetrics.groups.comparison` for models.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._progress import tqdm
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake, keep_checked, take_checked
from egtmetrics.groups._evaluation import (
    MetricSet,
    Results,
    ScoreFunction,
    check_groups,
    warn_of_caveats,
    warn_of_sizes,
)
from egtmetrics.groups.disparities import choose_score
from egtmetrics.groups.disparity import max_pairwise_difference
from egtmetrics.groups.frame import GenerativeMetricFrame, tables_of_results
from egtmetrics.labels import number_clusters
from egtmetrics.ops import BackendName, common_device, join_rows
from egtmetrics.results import MetricResult
from egtmetrics.samples import GroupedSamples, exchanged

_Numbers: TypeAlias = dict[tuple[str, str, Hashable | None], float]
"""Values by metric, score and group; the group is None for scores of all samples and for disparities."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """What :func:`permutation_test` and :func:`permutation_test_models` return. The null hypothesis is equal laws."""

    statistic: float
    p_value: float
    """``(1 + #{permutations with a statistic at least as large in size}) / (1 + n_permutations)``, so never 0."""
    null_distribution: NDArray[np.float64]
    """The statistic of every permutation."""


def permutation_test(
    real: Any,
    fake: Any,
    *,
    metric: str | ScoreFunction,
    real_sensitive_features: Any = None,
    fake_sensitive_features: Any,
    real_clusters: Any = None,
    fake_clusters: Any = None,
    score: str | None = None,
    n_permutations: int = 199,
    random_state: RandomState = None,
    backend: BackendName = "auto",
    n_threads: int | None = None,
    progress: bool = False,
) -> PermutationTest:
    """Test whether group labels matter, by the largest difference in a metric between two groups.

    The labels are permuted among the real samples and among the fake samples, so every group keeps its numbers of both.
    The null hypothesis is that all groups have the same real law and the same fake law. Under it the test is exact: at
    level a it rejects with probability a at most, for any sample size and any metric.

    Groups with different laws may still be treated equally. ``GenerativeMetricFrame.test`` tests for equal scores only,
    by a normal approximation, and is much cheaper.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)``.
    metric
        A name as on the command line, or a function ``(real, fake) -> score``, which gets one seed for all
        permutations.
    real_sensitive_features, fake_sensitive_features
        One label per row, or several (then the groups are their intersections). Rows in no group are left out.
    real_clusters, fake_clusters
        One label per row that is the same for rows that vary together, such as their prompt. Clusters that are each in
        one group exchange it whole, so groups keep their numbers of clusters. Otherwise clusters with equally many rows
        exchange the groups of all their rows; the null hypothesis is then that which rows of a cluster are of which
        group has nothing to do with the features.
    score
        Which score of the metric's result to compare; not needed if there is only one.
    n_permutations
        At least 19 are needed for a p-value of 0.05.
    random_state, backend, n_threads
        As for ``GenerativeMetricFrame``.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        As for ``egt``, and if the metric returns NaN.

    Notes
    -----
    Cost: ``n_permutations + 1`` evaluations of every group. Source of the statistic: Definition 4.1 of the EGT paper.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> rng = np.random.default_rng(0)
    >>> real, fake, groups = rng.normal(size=(200, 1)), rng.normal(size=(200, 1)), np.repeat(["f", "m"], 100)
    >>> fake[groups == "f"] += 1.0
    >>> permutation_test(real, fake, metric=mean_gap, real_sensitive_features=groups, fake_sensitive_features=groups,
    ...                  random_state=0).p_value
    0.005
    """
    n_permutations = check_positive_int(n_permutations, "n_permutations")
    rng = check_random_state(random_state)
    metrics = MetricSet(metric, random_state=int(rng.integers(2**32)), backend=backend, n_threads=n_threads)
    samples = metrics.group(
        real,
        fake,
        real_sensitive_features,
        fake_sensitive_features,
        real_clusters=real_clusters,
        fake_clusters=fake_clusters,
    )
    check_groups(samples, "raise")

    def statistic(results: Results) -> float:
        (table,) = tables_of_results(results, samples.groups.index).values()
        name = choose_score(list(table.described), score)
        return max_pairwise_difference(table.values[name].to_dict()).value

    observed = metrics.by_group(samples)
    warn_of_sizes(tables_of_results(observed, samples.groups.index), stacklevel=2)
    warn_of_caveats(observed, stacklevel=2)
    return _test(
        statistic(observed), lambda: statistic(metrics.by_group(samples.permuted(rng))), n_permutations, progress
    )


def permutation_test_models(
    real: Any,
    fake: Any,
    other_fake: Any,
    *,
    metric: str | ScoreFunction,
    score: str | None = None,
    fake_clusters: Any = None,
    other_fake_clusters: Any = None,
    n_permutations: int = 199,
    random_state: RandomState = None,
    progress: bool = False,
) -> PermutationTest:
    """Test whether two models have the same law, by the difference in a metric on one set of real samples.

    The statistic is ``metric(real, fake) - metric(real, other_fake)``, and the samples of the two models are permuted
    between them. The null hypothesis is equal laws: both models generate the same distribution. Under it the test is
    exact, conditionally on ``real``. To test one group, pass the samples of that group.

    Two models with different laws may score alike, and then this test may reject far more often than its level says.
    :func:`~egtmetrics.groups.compare_models` tests for equal expected scores, and is much cheaper.

    Parameters
    ----------
    real, fake, other_fake
        Features ``(n, d)``, ``(m, d)`` and ``(l, d)``. If m and l differ and the metric depends on the number of
        samples, the scores differ for that reason too. The test stays exact, but the difference says less.
    fake_clusters, other_fake_clusters
        One label per row that is the same for rows that vary together, such as their prompt; pass both or neither. If
        the models have labels in common, they are paired: rows are exchanged within a cluster, and clusters with
        equally many rows exchange theirs. Otherwise whole clusters are exchanged.
    metric, score, n_permutations, random_state, progress
        As for :func:`permutation_test`; fix other options with ``functools.partial``.

    Raises
    ------
    ValueError
        If samples or options are invalid, or the metric returns NaN.

    Notes
    -----
    Cost: ``2 (n_permutations + 1)`` evaluations.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> rng = np.random.default_rng(0)
    >>> real, good, bad = rng.normal(size=(100, 1)), rng.normal(size=(100, 1)), rng.normal(1.0, size=(100, 1))
    >>> test = permutation_test_models(real, good, bad, metric=mean_gap, random_state=0)
    >>> test.statistic < 0, test.p_value
    (True, 0.005)
    """
    n_permutations = check_positive_int(n_permutations, "n_permutations")
    device = common_device(real, fake, other_fake)
    real, fake = check_real_fake(real, fake, device=device)
    real, other_fake = check_real_fake(real, other_fake, device=device)
    rng = check_random_state(random_state)
    both, m = keep_checked(join_rows(fake, other_fake)), len(fake)
    real = keep_checked(real)
    models = np.repeat([0, 1], [m, len(both) - m])
    clusters = _clusters_of_models(fake_clusters, other_fake_clusters, m, len(both) - m)
    metrics = MetricSet(metric, random_state=int(rng.integers(2**32)))

    def by_model(of_rows: NDArray[np.int64]) -> Results:
        where = "the samples of a model"
        parts = {name: np.flatnonzero(of_rows == model) for model, name in enumerate(("fake", "other_fake"))}
        return {name: metrics.call(real, take_checked(both, rows), where) for name, rows in parts.items()}

    def permuted() -> NDArray[np.int64]:
        if clusters is not None:
            return exchanged(models, clusters, np.zeros_like(models), rng)
        moved = np.ones_like(models)
        moved[rng.permutation(len(both))[:m]] = 0
        return moved

    def statistic(results: Results) -> float:
        first, second = (one.scores() for result in results.values() for one in result.values())
        name = choose_score(list(first), score)
        return first[name] - second[name]

    observed = by_model(models)
    warn_of_caveats(observed, what="samples", stacklevel=2)
    return _test(statistic(observed), lambda: statistic(by_model(permuted())), n_permutations, progress)


def _clusters_of_models(
    fake_clusters: Any, other_fake_clusters: Any, n_first: int, n_other: int
) -> NDArray[np.int64] | None:
    """Return the clusters of the rows of both models, numbered together."""
    if (fake_clusters is None) != (other_fake_clusters is None):
        missing = "fake_clusters" if fake_clusters is None else "other_fake_clusters"
        raise TypeError(f"{missing} is missing; pass fake_clusters and other_fake_clusters together, or neither")
    numbered, _ = number_clusters(
        {"fake_clusters": (fake_clusters, n_first), "other_fake_clusters": (other_fake_clusters, n_other)}
    )
    known = [ids for ids in numbered if ids is not None]
    return np.concatenate(known) if known else None


def permutation_test_frames(
    frame: GenerativeMetricFrame,
    other: GenerativeMetricFrame,
    *,
    n_permutations: int = 199,
    random_state: RandomState = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Test whether two models have the same law, by every score, overall and by group, and by every disparity.

    The statistic is the value in ``frame`` minus the value in ``other``. For scores by group and disparities, the fake
    samples are permuted between the two models within every group. The null hypothesis is that the models have the same
    law in the group, or for a disparity in every group. For overall scores, all fake samples are permuted. The null
    hypothesis is that the models have the same law, including the proportions of groups. Under its null hypothesis each
    test is exact, conditionally on the real samples of each frame and on the numbers of samples.

    Two models with different laws may score alike, and then a test may reject far more often than its level says.
    :func:`~egtmetrics.groups.compare_frames` tests for equal expected scores, and is much cheaper.

    Parameters
    ----------
    frame, other
        Frames with the same metrics and groups. Their samples are permuted as they are, also after ``matched``.
    n_permutations, random_state, progress
        As for :func:`permutation_test`.

    Returns
    -------
    DataFrame
        One row for each test: ``metric``, ``score`` (or disparity), ``group`` (None for overall scores and
        disparities), ``difference`` and ``p_value``, which is NaN if a score is NaN or infinite. A permutation that
        gives NaN counts as one with a larger difference. The p-values are not corrected for multiple tests.
        ``reliable`` is False where a score of either frame has caveats: the two models may differ there, but the
        difference does not say how.

    Raises
    ------
    ValueError
        If the frames differ in metrics or groups, or come from a stream with ``max_samples``.

    Notes
    -----
    Cost: ``2 n_permutations`` evaluations of every metric on all samples and on every group.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> groups = ["f", "m"] * 20
    >>> frames = [
    ...     GenerativeMetricFrame(metrics={"gap": mean_gap}, real=[[0.0]] * 40, fake=fake,
    ...                           real_sensitive_features=groups, fake_sensitive_features=groups)
    ...     for fake in ([[0.5], [0.0]] * 20, [[0.0], [0.0]] * 20)]
    >>> permutation_test_frames(*frames, random_state=0)
      metric      score group  difference  p_value  reliable
    0    gap        gap  None        0.25    0.005      True
    1    gap        gap     f        0.50    0.005      True
    2    gap        gap     m        0.00    1.000      True
    3    gap  delta_gap  None        0.50    0.005      True
    """
    n_permutations = check_positive_int(n_permutations, "n_permutations")
    check_comparable(frame, other)
    samples = [_all_samples(one, name) for one, name in ((frame, "frame"), (other, "other"))]
    metrics = [frame._metrics, other._metrics]
    rng = check_random_state(random_state)
    both, n_first = keep_checked(join_rows(samples[0].fake, samples[1].fake)), len(samples[0].fake)
    ids = np.concatenate([one.groups.fake_ids for one in samples])

    def exchanged(strata: NDArray[np.int64]) -> list[GroupedSamples]:
        order = np.arange(len(both))
        for stratum in np.unique(strata):
            rows = np.flatnonzero(strata == stratum)
            order[rows] = rng.permutation(rows)
        parts = order[:n_first], order[n_first:]
        return [one.with_fake(take_checked(both, rows)) for one, rows in zip(samples, parts, strict=True)]

    def permute() -> _Numbers:
        by_group = [
            own.by_group(one, refused=None if own.strict else {})
            for own, one in zip(metrics, exchanged(ids), strict=True)
        ]
        overall = [
            own.overall(one, refused=None if own.strict else {})
            for own, one in zip(metrics, exchanged(np.zeros_like(ids)), strict=True)
        ]
        first, second = (
            scores_and_disparities(results, alone, frame) for results, alone in zip(by_group, overall, strict=True)
        )
        return {key: first[key] - second[key] for key in first}

    first, second = (scores_and_disparities(one.results, one.overall_results, frame) for one in (frame, other))
    observed = {key: first[key] - second[key] for key in first}
    as_large = dict.fromkeys(observed, 0)
    for _ in tqdm(range(n_permutations), desc="permutations", unit="permutation", disable=not progress):
        for key, difference in permute().items():
            as_large[key] += not _is_smaller(difference, observed[key])
    p_values = {key: (1 + n) / (1 + n_permutations) for key, n in as_large.items()}
    table = pd.DataFrame(list(observed), columns=["metric", "score", "group"], dtype=object)
    table["difference"] = list(observed.values())
    table["p_value"] = [p if math.isfinite(observed[key]) else math.nan for key, p in p_values.items()]
    table["reliable"] = [are_reliable((frame, other), *key) for key in observed]
    return table


def check_comparable(frame: GenerativeMetricFrame, other: GenerativeMetricFrame) -> None:
    """Raise ValueError unless two frames have the same scores and groups."""
    if list(frame.by_group) != list(other.by_group) or not frame.by_group.index.equals(other.by_group.index):
        raise ValueError(
            f"frame has the scores {listed(frame.by_group)} of the groups {listed(frame.by_group.index)}, but other "
            f"has {listed(other.by_group)} of {listed(other.by_group.index)}; evaluate both with the same metrics and "
            "groups"
        )


def are_reliable(frames: Iterable[GenerativeMetricFrame], metric: str, name: str, group: Hashable | None) -> bool:
    """Return whether all frames have a score or a disparity that can be relied on; its key is that in ``_Numbers``."""
    return not any(
        group in frame.caveats().get(metric, {})
        if name in frame.tables[metric].described
        else not frame.tables[metric].reliable()
        for frame in frames
    )


def _all_samples(frame: GenerativeMetricFrame, name: str) -> GroupedSamples:
    samples = frame._of_samples("a permutation test")
    if samples.max_samples is not None:
        raise ValueError(
            f"{name} comes from a stream with max_samples={samples.max_samples}, whose overall scores and group scores "
            "are from different samples; collect with spill instead, or compare frames of all rows"
        )
    if samples.n_clusters():
        raise ValueError(
            f"the samples of {name} come in clusters, and permutations of two frames move single rows; compare_frames "
            "tests for equal scores with clusters, permutation_test_models one score for equal laws"
        )
    return samples


def scores_and_disparities(
    by_group: Results, overall: Mapping[str, MetricResult], frame: GenerativeMetricFrame
) -> _Numbers:
    """Return every score and disparity that two models can differ in; NaN where one is missing."""
    described = {metric: frame.tables[metric].described for metric in frame.settings["metrics"]}
    numbers: _Numbers = {}
    for metric, table in tables_of_results(by_group, frame.by_group.index, described).items():
        of_all = overall[metric].scores() if metric in overall else {}
        numbers |= {(metric, score, None): of_all.get(score, math.nan) for score in table.described}
        numbers |= {
            (metric, score, group): value for score in table.described for group, value in table.values[score].items()
        }
        numbers |= {(metric, one.name, None): one.of(table.values).value for one in table.disparities}
    return numbers


def _is_smaller(permuted: float, observed: float) -> bool:
    """Compare sizes with a tolerance, since a permutation that only renames groups may add in another order."""
    return abs(permuted) < abs(observed) * (1.0 - 1e-9)


def _test(observed: float, permute: Callable[[], float], n_permutations: int, progress: bool) -> PermutationTest:
    null = np.array(
        [permute() for _ in tqdm(range(n_permutations), desc="permutations", unit="call", disable=not progress)]
    )
    if math.isnan(observed) or np.isnan(null).any():
        raise ValueError(
            "metric is NaN for the samples or for a permutation of them, so the samples cannot be ranked among the "
            "permutations; add samples"
        )
    as_large = np.count_nonzero([not _is_smaller(value, observed) for value in null.tolist()])
    return PermutationTest(
        statistic=observed, p_value=float((1 + as_large) / (1 + n_permutations)), null_distribution=null
    )
