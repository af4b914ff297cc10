"""Permutation tests: could these groups, or these two models, have exchanged their samples?"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.groups._evaluation import GroupEvaluation, Metric, Score, bind, scores_by_group, scores_of
from egtmetrics.groups._pairs import disparities_from_scores, max_pairwise_difference
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.ops import BackendName, common_device, join_rows, take_rows

_Numbers: TypeAlias = dict[tuple[str, str, Hashable | None], float]
"""By metric, score and group; the group is None for scores of all samples and for disparities."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """What :func:`permutation_test` and :func:`compare_models` return."""

    statistic: float
    p_value: float
    """``(1 + #{permutations with a statistic at least as large in size}) / (1 + n_permutations)``: never 0."""
    null_distribution: NDArray[np.float64]
    """The statistic under every permutation."""


def permutation_test(
    real: Any,
    fake: Any,
    *,
    metric: Metric,
    real_sensitive_features: Any,
    fake_sensitive_features: Any,
    score: str | None = None,
    n_permutations: int = 199,
    random_state: RandomState = None,
    backend: BackendName = "auto",
    n_threads: int | None = None,
    progress: bool = False,
) -> PermutationTest:
    """Test whether the group labels carry anything: the largest difference of a metric between two groups.

    The labels are permuted among the real samples, and among the fake ones, so that every group keeps its numbers of
    both. The null hypothesis is that all groups have one real law and one fake law. Under it the test is exact: it
    rejects at level a with chance a at the most, at any sample size and for any metric.

    Groups that differ in law may still be treated equally; ``GenerativeMetricFrame.test`` asks for equal scores only,
    by a normal approximation, and is much cheaper.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)``.
    metric
        A callable ``(real, fake) -> float | MetricResult``, which gets one seed for all permutations.
    real_sensitive_features, fake_sensitive_features
        One label per row, or several (then the groups are their intersections). Rows in no group are left out.
    score
        Which score of the metric's result to compare; may be left out where there is one only.
    n_permutations
        At least 19 for a p-value of 0.05.
    random_state, backend, n_threads
        As for ``GenerativeMetricFrame``.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        As ``egt``; and if the metric gives NaN, or ``score`` is not among its scores.

    Notes
    -----
    Cost: ``n_permutations + 1`` evaluations of every group. Source: Definition 4.1 of the EGT paper for the statistic.

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
    evaluation = GroupEvaluation(
        metric,
        real,
        fake,
        real_sensitive_features=real_sensitive_features,
        fake_sensitive_features=fake_sensitive_features,
        random_state=int(rng.integers(2**32)),
        backend=backend,
        n_threads=n_threads,
    )
    groups, (name,) = evaluation.groups, evaluation.metrics

    def statistic(results: Mapping[Hashable, Mapping[str, Score]]) -> float:
        scores = scores_by_group(results, name, evaluation.groups.index)
        column = _score_name(list(map(str, scores)), score)
        return max_pairwise_difference(scores[column].to_dict()).value

    def permuted(ids: NDArray[np.int64]) -> NDArray[np.int64]:
        assigned = ids >= 0
        moved = ids.copy()
        moved[assigned] = rng.permutation(ids[assigned])
        return moved

    def permute() -> float:
        evaluation.groups = dataclasses.replace(
            groups, real_ids=permuted(groups.real_ids), fake_ids=permuted(groups.fake_ids)
        )
        return statistic(evaluation.by_group())

    return _test(statistic(evaluation.by_group()), permute, n_permutations, progress)


def compare_models(
    real: Any,
    fake: Any,
    other_fake: Any,
    *,
    metric: Callable[..., Any],
    score: str | None = None,
    n_permutations: int = 199,
    random_state: RandomState = None,
    progress: bool = False,
) -> PermutationTest:
    """Test whether two models differ: the difference of a metric between them, on one set of real samples.

    The statistic is ``metric(real, fake) - metric(real, other_fake)``, and the samples of the two models are permuted
    between them. The null hypothesis is that both models have one law; under it the test is exact, conditionally on
    ``real``. For one group, pass the samples of that group.

    Parameters
    ----------
    real, fake, other_fake
        Features ``(n, d)``, ``(m, d)`` and ``(l, d)``. With m and l apart, a metric that depends on the number of
        samples differs by that too; the test stays exact, but a difference says less.
    metric, score, n_permutations, random_state, progress
        As for :func:`permutation_test`; fix other options with ``functools.partial``.

    Raises
    ------
    ValueError
        If samples or options are invalid, or the metric gives NaN.

    Notes
    -----
    Cost: ``2 (n_permutations + 1)`` evaluations.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> rng = np.random.default_rng(0)
    >>> real, good, bad = rng.normal(size=(100, 1)), rng.normal(size=(100, 1)), rng.normal(1.0, size=(100, 1))
    >>> test = compare_models(real, good, bad, metric=mean_gap, random_state=0)
    >>> test.statistic < 0, test.p_value
    (True, 0.005)
    """
    n_permutations = check_positive_int(n_permutations, "n_permutations")
    device = common_device(real, fake, other_fake)
    real, fake = check_real_fake(real, fake, device=device)
    real, other_fake = check_real_fake(real, other_fake, device=device)
    rng = check_random_state(random_state)
    both, m = join_rows(fake, other_fake), len(fake)
    bound = bind(metric, {"random_state": int(rng.integers(2**32))})

    def statistic(order: NDArray[np.int64]) -> float:
        values = []
        for rows in (order[:m], order[m:]):
            result = bound(real, take_rows(both, np.sort(rows)))
            scores = {"": float(result)} if isinstance(result, int | float | np.number) else result.scores()
            values.append(scores[_score_name(list(scores), score)])
        return values[0] - values[1]

    return _test(
        statistic(np.arange(len(both))), lambda: statistic(rng.permutation(len(both))), n_permutations, progress
    )


def compare_frames(
    frame: GenerativeMetricFrame,
    other: GenerativeMetricFrame,
    *,
    n_permutations: int = 199,
    random_state: RandomState = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Test whether two models differ, in every score, overall and by group, and in every disparity of their scores.

    The statistic is what one frame says minus what the other does. For scores by group and disparities the fake samples
    of the two models are permuted between them within every group; the null hypothesis is that the models have one
    law in the group, or for a disparity in every group. For overall scores all are permuted; the null hypothesis is
    that the models have one law, proportions of groups included. Under its null hypothesis each test is exact,
    conditionally on the real samples of either frame and on the numbers of samples.

    Parameters
    ----------
    frame, other
        Frames with the same metrics and groups. Their samples are permuted as they are, matched sizes included.
    n_permutations, random_state, progress
        As for :func:`permutation_test`.

    Returns
    -------
    DataFrame
        One row for each test: ``metric``, ``score`` (or disparity), ``group`` (None for overall scores and
        disparities), ``difference`` and ``p_value``, which is NaN where a score is NaN or infinite. A permutation
        that gives NaN counts as one that gives a larger difference. p-values are not corrected for their number.

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
    >>> compare_frames(*frames, random_state=0)
      metric      score group  difference  p_value
    0    gap        gap  None        0.25    0.005
    1    gap        gap     f        0.50    0.005
    2    gap        gap     m        0.00    1.000
    3    gap  delta_gap  None        0.50    0.005
    """
    n_permutations = check_positive_int(n_permutations, "n_permutations")
    if list(frame.by_group) != list(other.by_group) or not frame.by_group.index.equals(other.by_group.index):
        raise ValueError(
            f"frame has the scores {list(frame.by_group)} of the groups {frame.by_group.index.tolist()} and other has "
            f"{list(other.by_group)} of {other.by_group.index.tolist()}; evaluate both with the same metrics and groups"
        )
    for name, one in (("frame", frame), ("other", other)):
        if "max_samples" in one.settings:
            raise ValueError(
                f"{name} is of a stream with max_samples={one.settings['max_samples']}, whose overall scores are of "
                "other samples than the scores of its groups; collect with spill instead, or compare frames of all rows"
            )
    rng = check_random_state(random_state)
    slots = [copy.copy(evaluation) for evaluation in (frame._evaluation, other._evaluation)]
    both, n_first = join_rows(slots[0].fake, slots[1].fake), len(slots[0].fake)
    ids = np.concatenate([slot.groups.fake_ids for slot in slots])
    index = frame.by_group.index

    def exchange(strata: NDArray[np.int64]) -> None:
        order = np.arange(len(both))
        for stratum in np.unique(strata):
            rows = np.flatnonzero(strata == stratum)
            order[rows] = rng.permutation(rows)
        slots[0].fake, slots[1].fake = take_rows(both, order[:n_first]), take_rows(both, order[n_first:])

    def permute() -> _Numbers:
        exchange(ids)
        by_group = [slot.by_group() for slot in slots]
        exchange(np.zeros_like(ids))
        first, second = (
            _numbers(results, slot.overall(), index) for results, slot in zip(by_group, slots, strict=True)
        )
        return {key: first[key] - second[key] for key in first}

    first, second = (_numbers(one.results, one.overall_results, index) for one in (frame, other))
    observed = {key: first[key] - second[key] for key in first}
    as_large = dict.fromkeys(observed, 0)
    for _ in tqdm(range(n_permutations), desc="permutations", unit="permutation", disable=not progress):
        for key, difference in permute().items():
            as_large[key] += not _is_smaller(difference, observed[key])
    p_values = {key: (1 + n) / (1 + n_permutations) for key, n in as_large.items()}
    table = pd.DataFrame(list(observed), columns=["metric", "score", "group"], dtype=object)
    table["difference"] = list(observed.values())
    table["p_value"] = [p if math.isfinite(observed[key]) else math.nan for key, p in p_values.items()]
    return table


def _numbers(
    by_group: Mapping[Hashable, Mapping[str, Score]], overall: Mapping[str, Score], index: pd.Index[Any]
) -> _Numbers:
    """All that two models can differ in."""
    numbers: _Numbers = {}
    for metric, result in overall.items():
        scores = scores_by_group(by_group, metric, index)
        numbers |= {(metric, score, None): value for score, value in scores_of(result, metric).items()}
        numbers |= {(metric, str(score), group): value for score in scores for group, value in scores[score].items()}
        numbers |= {(metric, name, None): pair.value for name, pair in disparities_from_scores(scores).items()}
    return numbers


def _is_smaller(permuted: float, observed: float) -> bool:
    """A permutation that only renames the groups gives the same number in another order of additions."""
    return abs(permuted) < abs(observed) * (1.0 - 1e-9)


def _test(observed: float, permute: Callable[[], float], n_permutations: int, progress: bool) -> PermutationTest:
    null = np.array(
        [permute() for _ in tqdm(range(n_permutations), desc="permutations", unit="call", disable=not progress)]
    )
    if math.isnan(observed) or np.isnan(null).any():
        raise ValueError(
            "metric is NaN for the samples or for a permutation of them, so none can be ranked; add samples"
        )
    as_large = np.count_nonzero([not _is_smaller(value, observed) for value in null.tolist()])
    return PermutationTest(
        statistic=observed, p_value=float((1 + as_large) / (1 + n_permutations)), null_distribution=null
    )


def _score_name(names: list[str], score: str | None) -> str:
    if score is None and len(names) > 1:
        raise ValueError(f"metric returns the scores {names}; choose one, as in score={names[0]!r}")
    name = names[0] if score is None else score
    if name not in names:
        raise ValueError(f"score={score!r} is none of the metric's scores {names}; choose one of them")
    return name
