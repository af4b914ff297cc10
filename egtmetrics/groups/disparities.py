"""Disparities between sensitive groups, each as one number.

0 means equal treatment, larger is worse, and the unit is that of the metric. With more than two groups, every
``delta`` is the maximum over all pairs of groups. ``GenerativeMetricFrame.disparities`` returns all of them from one
evaluation of the metrics, with the groups that attain them.
"""

from __future__ import annotations

from typing import Any

from egtmetrics._random import RandomState
from egtmetrics.groups._evaluation import MetricSet, ScoreFunction, check_groups, warn_of_caveats, warn_of_sizes
from egtmetrics.groups.disparity import EGO, MGO, Disparity, ScoreTable, max_pairwise_difference, proportion_table
from egtmetrics.groups.frame import tables_of_results
from egtmetrics.labels import assign_groups
from egtmetrics.samples import GroupedSamples


def egt(
    real: Any,
    fake: Any,
    *,
    metric: str | ScoreFunction,
    real_sensitive_features: Any = None,
    fake_sensitive_features: Any,
    score: str | None = None,
    random_state: RandomState = None,
) -> float:
    """Equalized generative treatment: the largest difference in a metric between two groups.

    ``delta = max over pairs |D(P_a || Q_a) - D(P_b || Q_b)|``, where D is the metric on the real and the fake samples
    of one group. The model satisfies delta-EGT with this delta and every larger one.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)``.
    metric
        A name as on the command line, or a function ``(real, fake) -> score``; ``functools.partial`` fixes its options.
    real_sensitive_features, fake_sensitive_features
        One label per row, or several (then the groups are their intersections). Rows without a label are left out. A
        :class:`~egtmetrics.Reference` in the place of ``real`` has its own.
    score
        Which score of the metric's result to compare; not needed if there is only one.
    random_state
        Becomes one integer seed, the same for every group.

    Raises
    ------
    ValueError
        If there are fewer than two groups, a group is missing on one side, the metric refuses a group, or it does not
        return ``score``.

    Notes
    -----
    NaN if the score of any group is NaN. Cost: one evaluation per group. Source: Definition 4.1 of the EGT paper.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return abs(real.mean() - fake.mean())
    >>> egt([[0.0], [0.0], [1.0], [1.0]], [[0.5], [0.5], [1.0], [1.0]], metric=mean_gap,
    ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    0.5
    """
    table = _scores(real, fake, metric, real_sensitive_features, fake_sensitive_features, random_state)
    name = choose_score(list(table.described), score)
    return max_pairwise_difference(table.values[name].to_dict()).value


def delta_p(
    real: Any,
    fake: Any,
    *,
    real_sensitive_features: Any = None,
    fake_sensitive_features: Any,
    metric: str | ScoreFunction = "topp",
    random_state: RandomState = None,
) -> float:
    """Largest difference in precision between two groups, ``max over pairs |P_a - P_b|``, in [0, 1].

    This is ``egt`` with ``score="precision"``; see there for the parameters and errors. The default metric is TopP&R,
    as in the paper's Tables 7 and 8. It needs more than 5 min(d, 32) samples of every group on each side.

    Examples
    --------
    >>> from egtmetrics.metrics.prdc import precision_recall_density_coverage as prdc
    >>> from functools import partial
    >>> real, fake = [[0.0], [1.0], [0.0], [1.0]], [[0.4], [0.6], [0.5], [9.0]]
    >>> delta_p(real, fake, metric=partial(prdc, n_neighbors=1, backend="reference"),
    ...         real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    0.5
    """
    return egt(
        real,
        fake,
        metric=metric,
        real_sensitive_features=real_sensitive_features,
        fake_sensitive_features=fake_sensitive_features,
        score="precision",
        random_state=random_state,
    )


def delta_r(
    real: Any,
    fake: Any,
    *,
    real_sensitive_features: Any = None,
    fake_sensitive_features: Any,
    metric: str | ScoreFunction = "topp",
    random_state: RandomState = None,
) -> float:
    """Largest difference in recall between two groups, ``max over pairs |R_a - R_b|``, in [0, 1].

    This is ``egt`` with ``score="recall"``; see there for the parameters and errors, and ``delta_p`` for the default
    metric.

    Examples
    --------
    >>> from egtmetrics.metrics.prdc import precision_recall_density_coverage as prdc
    >>> from functools import partial
    >>> real, fake = [[0.0], [9.0], [0.0], [1.0]], [[0.4], [0.6], [0.0], [1.0]]
    >>> delta_r(real, fake, metric=partial(prdc, n_neighbors=1, backend="reference"),
    ...         real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    1.0
    """
    return egt(
        real,
        fake,
        metric=metric,
        real_sensitive_features=real_sensitive_features,
        fake_sensitive_features=fake_sensitive_features,
        score="recall",
        random_state=random_state,
    )


def delta_pr(
    real: Any,
    fake: Any,
    *,
    real_sensitive_features: Any = None,
    fake_sensitive_features: Any,
    metric: str | ScoreFunction = "topp",
    random_state: RandomState = None,
) -> float:
    """Largest difference in precision + recall, ``max over pairs |(P_a + R_a) - (P_b + R_b)|``, in [0, 2].

    This is Definition 4.1 for the divergence P + R, which Tables 1 and 7 of the paper print as delta-PR. Higher
    precision and lower recall of a group cancel each other. In ``delta_p_plus_delta_r``, which Tables 2 and 8 print
    under the same name, they do not. See ``egt`` for the parameters and errors, and ``delta_p`` for the default metric.

    Examples
    --------
    >>> from egtmetrics.metrics.prdc import precision_recall_density_coverage as prdc
    >>> from functools import partial
    >>> real, fake = [[0.0], [9.0], [0.0], [1.0]], [[0.4], [0.6], [0.0], [5.0]]
    >>> delta_pr(real, fake, metric=partial(prdc, n_neighbors=1, backend="reference"),
    ...          real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    0.5
    """
    table = _scores(real, fake, metric, real_sensitive_features, fake_sensitive_features, random_state)
    return _disparity(table, "delta_pr")


def delta_p_plus_delta_r(
    real: Any,
    fake: Any,
    *,
    real_sensitive_features: Any = None,
    fake_sensitive_features: Any,
    metric: str | ScoreFunction = "topp",
    random_state: RandomState = None,
) -> float:
    """Sum of the largest differences in precision and in recall, ``delta_p + delta_r``, in [0, 2].

    This is what Tables 2 and 8 of the paper print as delta-PR. It is not an instance of Definition 4.1: differences of
    opposite sign add up, and with more than two groups the two differences may come from different pairs. ``delta_pr``
    follows the definition and is never larger. See ``egt`` for the parameters and errors, and ``delta_p`` for the
    default metric.

    Examples
    --------
    >>> from egtmetrics.metrics.prdc import precision_recall_density_coverage as prdc
    >>> from functools import partial
    >>> real, fake = [[0.0], [9.0], [0.0], [1.0]], [[0.4], [0.6], [0.0], [5.0]]
    >>> delta_p_plus_delta_r(
    ...     real, fake, metric=partial(prdc, n_neighbors=1, backend="reference"),
    ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    1.5
    """
    table = _scores(real, fake, metric, real_sensitive_features, fake_sensitive_features, random_state)
    return _disparity(table, "delta_p_plus_delta_r")


def delta_fid(real: Any, fake: Any, *, real_sensitive_features: Any = None, fake_sensitive_features: Any) -> float:
    """Largest difference in Fréchet distance between two groups, ``max over pairs |FID_a - FID_b|``, at least 0.

    This is ``egt`` with the metric ``"fid"``; see there for the parameters and errors. Fréchet distances from few
    samples are biased upwards, so groups of different sizes differ for that reason alone; see
    ``GroupedSamples.matched``.

    Examples
    --------
    >>> delta_fid([[0.0], [2.0], [0.0], [2.0]], [[1.0], [3.0], [0.0], [2.0]],
    ...           real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    1.0
    """
    return egt(
        real,
        fake,
        metric="fid",
        real_sensitive_features=real_sensitive_features,
        fake_sensitive_features=fake_sensitive_features,
    )


def mgo(real_sensitive_features: Any, fake_sensitive_features: Any) -> float:
    """Distance from matching generative odds, ``max_a |pi_a^Q - pi_a^P|``, in [0, 1].

    ``pi_a^P`` and ``pi_a^Q`` are the proportions of group a among the real and the fake samples. 0 means that the model
    reproduces the proportions of the data. A group absent from one side has proportion 0 there. Samples labelled None
    or NaN are left out of the proportions.

    Parameters
    ----------
    real_sensitive_features, fake_sensitive_features
        One label per sample, as a sequence. Or several labels per sample, as a DataFrame, a mapping of names to
        sequences or an ``(n, s)`` array; the groups are then their intersections.

    Raises
    ------
    ValueError
        If there are fewer than two groups, or a side assigns no sample to a group.
    TypeError
        If the labels of the two sides are of different types.

    Notes
    -----
    Cost: linear in the number of samples. Source: Definition 2.2 of the EGT paper.

    Examples
    --------
    >>> mgo(["f", "f", "m", "m"], ["f", "m", "m", "m"])
    0.25
    """
    return _proportions(real_sensitive_features, fake_sensitive_features, MGO)


def ego(real_sensitive_features: Any, fake_sensitive_features: Any) -> float:
    """Distance from equalized generative odds, ``max over pairs |pi_a^Q - pi_b^Q|``, in [0, 1].

    ``pi_a^Q`` is the proportion of group a among the fake samples. 0 means that all groups are generated equally often.
    Samples without a label are left out of the proportions.

    Parameters
    ----------
    real_sensitive_features, fake_sensitive_features
        As for ``mgo``. The real labels only say which groups there are; a group without fake samples has proportion 0.

    Raises
    ------
    ValueError
        If there are fewer than two groups, or a side assigns no sample to a group.
    TypeError
        If the labels of the two sides are of different types.

    Notes
    -----
    Cost: linear in the number of samples. Source: Definition 2.2 of the EGT paper.

    Examples
    --------
    >>> ego(["f", "f", "m", "m"], ["f", "m", "m", "m"])
    0.5
    >>> ego(["f", "m", "x", "x"], ["f", "f", "m", "m"])
    0.5
    """
    return _proportions(real_sensitive_features, fake_sensitive_features, EGO)


def _proportions(real_sensitive_features: Any, fake_sensitive_features: Any, disparity: Disparity) -> float:
    groups = assign_groups(real_sensitive_features, fake_sensitive_features)
    groups.check_two()
    return disparity.of(proportion_table(groups.counts()).values).value


def _scores(
    real: Any,
    fake: Any,
    metric: str | ScoreFunction,
    real_sensitive_features: Any,
    fake_sensitive_features: Any,
    random_state: RandomState,
) -> ScoreTable:
    samples = GroupedSamples(
        real=real,
        fake=fake,
        real_sensitive_features=real_sensitive_features,
        fake_sensitive_features=fake_sensitive_features,
    )
    check_groups(samples, "raise")
    results = MetricSet(metric, random_state=random_state).by_group(samples)
    tables = tables_of_results(results, samples.groups.index)
    warn_of_sizes(tables, stacklevel=3)
    warn_of_caveats(results, stacklevel=3)
    (table,) = tables.values()
    return table


def choose_score(names: list[str], score: str | None) -> str:
    """Return the name of the score to compare; with None, the metric must have only one."""
    if score is None and len(names) > 1:
        raise ValueError(f"metric returns the scores {names}; choose one, for example score={names[0]!r}")
    name = names[0] if score is None else score
    if name not in names:
        raise ValueError(f"score={score!r} is not one of the metric's scores {names}; choose one of them")
    return name


def _disparity(table: ScoreTable, name: str) -> float:
    found = {disparity.name: disparity for disparity in table.disparities}
    if name not in found:
        raise ValueError(
            f"metric returns the scores {list(table.described)}, but {name} needs precision and recall; "
            "pass a metric that returns both"
        )
    return found[name].of(table.values).value
