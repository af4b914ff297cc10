"""Metrics of real and fake samples for ``fairlearn.metrics.MetricFrame``.

fairlearn compares predictions with true values row by row, and splits both by one column of groups. A real and a fake
sample do not correspond to each other, so :func:`pair_by_group` pairs rows of one group; only as many of them take part
as the smaller side has. fairlearn cannot express unequal group proportions, intervals and the disparities of
Definition 4.1: use :class:`egtmetrics.GenerativeMetricFrame` for those, and this inside an existing fairlearn report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._arrays import as_array
from egtmetrics._random import RandomState
from egtmetrics._validation import check_features
from egtmetrics.groups._evaluation import ScoreFunction, name_metrics
from egtmetrics.ops import to_host
from egtmetrics.results import as_result, collecting_caveats, warn_of_caveats
from egtmetrics.samples import GroupedSamples


def fairlearn_metric(metric: str | ScoreFunction, score: str | None = None) -> Callable[[Any, Any], float]:
    """Return a function ``(y_true, y_pred) -> float`` for ``fairlearn.metrics.MetricFrame``.

    Parameters
    ----------
    metric
        A name (``"fid"``) or a function ``(real, fake) -> score``. Fix its options with ``functools.partial``, its
        ``random_state`` as well: otherwise every group draws its own random numbers.
    score
        Which score to return; needed only where the metric returns several.

    Returns
    -------
    callable
        ``y_true`` are real rows, ``y_pred`` fake rows, ``(n, d)``; ``(n,)`` is read as ``(n, 1)``, since fairlearn
        drops the axis of a single feature. It raises ValueError if ``score`` is needed or unknown, and warns if the
        score cannot be relied on.

    Examples
    --------
    With fairlearn, ``MetricFrame(metrics=fairlearn_metric("fid"), **pair_by_group(...))``.

    >>> fairlearn_metric("fid")([0.0, 2.0], [1.0, 3.0])
    1.0
    """
    named = name_metrics(metric)
    if len(named) > 1:
        raise ValueError(f"metric={metric!r} names {len(named)} metrics; pass one, and make a dict of several")
    ((name, function),) = named.items()

    def score_of_slice(y_true: Any, y_pred: Any) -> float:
        real, fake = _as_rows(y_true, "y_true"), _as_rows(y_pred, "y_pred")
        with collecting_caveats():
            result = as_result(function(real, fake), name, n_real=len(real), n_fake=len(fake))
        warn_of_caveats(result.caveats)
        scores = result.scores()
        if score is None and len(scores) == 1:
            return next(iter(scores.values()))
        if score not in scores:
            raise ValueError(f"score={score!r} is not a score of metric {name!r}; choose one of {list(scores)}")
        return scores[score]

    score_of_slice.__name__ = name if score is None else score
    return score_of_slice


def pair_by_group(
    real: Any,
    fake: Any,
    *,
    real_sensitive_features: Any = None,
    fake_sensitive_features: Any,
    random_state: RandomState = None,
) -> dict[str, Any]:
    """Return the arguments ``y_true``, ``y_pred`` and ``sensitive_features`` of a fairlearn ``MetricFrame``.

    Every group keeps as many samples as its smaller side has: see :meth:`egtmetrics.GroupedSamples.matched`, whose
    arguments and errors these are. Row i of ``y_true`` and of ``y_pred`` are of one group, and have nothing else in
    common.

    Examples
    --------
    >>> paired = pair_by_group(
    ...     [[0.0], [1.0], [2.0]], [[3.0], [4.0], [5.0]], random_state=0,
    ...     real_sensitive_features=["f", "m", "m"], fake_sensitive_features=["m", "f", "m"])
    >>> paired["y_pred"].tolist(), paired["sensitive_features"]["group"].tolist()
    ([[4.0], [3.0], [5.0]], ['f', 'm', 'm'])
    """
    samples = GroupedSamples(
        real=real,
        fake=fake,
        real_sensitive_features=real_sensitive_features,
        fake_sensitive_features=fake_sensitive_features,
    ).matched(random_state=random_state)
    real_order, fake_order = (
        np.argsort(ids, kind="stable") for ids in (samples.groups.real_ids, samples.groups.fake_ids)
    )
    return {
        "y_true": to_host(samples.real)[real_order],
        "y_pred": to_host(samples.fake)[fake_order],
        "sensitive_features": samples.real_sensitive_features.iloc[real_order].reset_index(drop=True),
    }


def _as_rows(values: Any, name: str) -> NDArray[Any]:
    array = as_array(values, name)
    return np.asarray(check_features(array.reshape(-1, 1) if array.ndim == 1 else array, name))
