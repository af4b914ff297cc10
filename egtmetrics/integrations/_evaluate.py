"""Scores by group as an ``evaluate.Metric`` of Hugging Face."""

from __future__ import annotations

import functools
from typing import Any

import datasets
import evaluate
import numpy as np

from egtmetrics.groups._evaluation import Metrics, MissingGroups
from egtmetrics.groups.flat import flat_scores
from egtmetrics.ops import BackendName
from egtmetrics.streaming import GenerativeMetricStream


class GroupEvaluationModule(evaluate.Metric):  # type: ignore[misc]
    """Scores and disparities by group, as an ``evaluate.Metric`` with ``add``, ``add_batch`` and ``compute``.

    Batches have three columns: ``features`` (one list of numbers per row, kept as float32), ``real`` (whether the row
    is a real sample) and ``group`` (text; the empty text means no group). Predictions and references would have to come
    in pairs, which real and generated samples do not. ``evaluate`` keeps the rows in a file. ``compute`` returns
    :func:`egtmetrics.flat_scores`.

    Parameters
    ----------
    metrics, missing_groups, strict, backend, n_threads
        As for :class:`egtmetrics.GenerativeMetricFrame`.
    random_state
        An integer, so that all processes compute the same.
    kwargs
        For ``evaluate.Metric``, for example ``cache_dir``, ``num_process`` and ``process_id``.

    Examples
    --------
    ::

        module = GroupEvaluationModule("fid")
        module.add_batch(features=real, real=[True] * len(real), group=real_labels)
        module.add_batch(features=fake, real=[False] * len(fake), group=fake_labels)
        module.compute()  # {"fid/overall": ..., "fid/f": ..., ...}
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        random_state: int = 0,
        missing_groups: MissingGroups = "raise",
        strict: bool = False,
        backend: BackendName = "auto",
        n_threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._new_stream = functools.partial(
            GenerativeMetricStream,
            metrics=metrics,
            random_state=random_state,
            missing_groups=missing_groups,
            strict=strict,
            backend=backend,
            n_threads=n_threads,
        )
        self._new_stream()  # raises now if an argument is invalid
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        columns = {
            "features": datasets.Sequence(datasets.Value("float32")),
            "real": datasets.Value("bool"),
            "group": datasets.Value("string"),
        }
        return evaluate.MetricInfo(
            description="Scores of a generative model by sensitive group, and the differences between the groups.",
            citation="",
            inputs_description="features, real (bool) and group (text) of every row",
            features=datasets.Features(columns),
        )

    def _compute(self, *, features: Any, real: Any, group: Any) -> dict[str, float]:
        stream = self._new_stream()
        is_real = np.asarray(real, dtype=bool)
        labels = np.array([label or None for label in group], dtype=object)
        for side in (True, False):
            rows = np.flatnonzero(is_real == side)
            if len(rows):
                values = [np.asarray(features[row], dtype=np.float32) for row in rows]
                stream.update(values, real=side, sensitive_features=labels[rows])
        return flat_scores(stream.compute())
