"""Metrics of real and fake samples for ``fairlearn.metrics.MetricFrame``.

fairlearn compares predictions with truths, row by row; it slices both by one column of groups. A real and a fake sample
have nothing to do with each other, so rows have to be paired by group first, which :func:`pair_by_group` does, and only
as many as the smaller side has are used. Unequal group proportions, intervals and the disparities of Definition 4.1 are
outside of what fairlearn can express: use :class:`egtmetrics.GenerativeMetricFrame` for them. This is for a report that
is made with fairlearn already. fairlearn need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._random import RandomState
from egtmetrics._validation import check_features
from egtmetrics.groups import match_sizes
from egtmetrics.groups._evaluation import Metric, callable_name, scores_of
from egtmetrics.ops import to_host


def fairlearn_metric(metric: Metric, score: str | None = None) -> Callable[[Any, Any], float]:
    """Return a function ``(y_true, y_pred) -> float`` for ``fairlearn.metrics.MetricFrame``.

    Parameters
    ----------
    metric
        A callable ``(real, fake) -> float | MetricResult``. Fix its options with ``functools.partial``, its
        ``random_state`` as well: otherwise every group draws its own random numbers.
    score
        Which of several scores of a ``MetricResult`` to return; needed only where there are several.

    Returns
    -------
    callable
        ``y_true`` are real rows, ``y_pred`` fake rows, ``(n, d)``; ``(n,)`` is read as ``(n, 1)``, since fairlearn
        drops the axis of a single feature. It raises ValueError where ``score`` is needed or unknown.

    Examples
    --------
    With fairlearn, ``MetricFrame(metrics=fairlearn_metric(frechet_distance), **pair_by_group(...))``.

    >>> from egtmetrics import frechet_distance
    >>> fairlearn_metric(frechet_distance)([0.0, 2.0], [1.0, 3.0])
    1.0
    """

    def score_of_slice(y_true: Any, y_pred: Any) -> float:
        real, fake = _as_rows(y_true, "y_true"), _as_rows(y_pred, "y_pred")
        scores = scores_of(metric(real, fake), callable_name(metric))
        if score is None and len(scores) == 1:
            return float(next(iter(scores.values())))
        if score not in scores:
            raise ValueError(f"score={score!r} is not among what the metric returns; choose one of {list(scores)}")
        return float(scores[score])

    score_of_slice.__name__ = callable_name(metric) if score is None else score
    return score_of_slice


def pair_by_group(
    real: Any,
    fake: Any,
    *,
    real_sensitive_features: Any,
    fake_sensitive_features: Any,
    random_state: RandomState = None,
) -> dict[str, Any]:
    """Return the arguments ``y_true``, ``y_pred`` and ``sensitive_features`` of a fairlearn ``MetricFrame``.

    Every group keeps as many samples as its smaller side has (:func:`egtmetrics.match_sizes`, whose arguments and
    errors these are); row i of ``y_true`` and of ``y_pred`` then share a group, and nothing else.

    Examples
    --------
    >>> paired = pair_by_group(
    ...     [[0.0], [1.0], [2.0]], [[3.0], [4.0], [5.0]], random_state=0,
    ...     real_sensitive_features=["f", "m", "m"], fake_sensitive_features=["m", "f", "m"])
    >>> paired["y_pred"].tolist(), paired["sensitive_features"]["group"].tolist()
    ([[4.0], [3.0], [5.0]], ['f', 'm', 'm'])
    """
    matched = match_sizes(
        real,
        fake,
        real_sensitive_features=real_sensitive_features,
        fake_sensitive_features=fake_sensitive_features,
        random_state=random_state,
    )
    real_order, fake_order = (
        _by_label(labels) for labels in (matched.real_sensitive_features, matched.fake_sensitive_features)
    )
    return {
        "y_true": to_host(matched.real)[real_order],
        "y_pred": to_host(matched.fake)[fake_order],
        "sensitive_features": matched.real_sensitive_features.iloc[real_order].reset_index(drop=True),
    }


def _by_label(labels: pd.DataFrame) -> NDArray[np.intp]:
    return labels.sort_values([str(name) for name in labels], kind="stable").index.to_numpy()


def _as_rows(values: Any, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    return np.asarray(check_features(array.reshape(-1, 1) if array.ndim == 1 else array, name))
