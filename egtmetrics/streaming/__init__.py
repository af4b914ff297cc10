"""Evaluation loops: a frame whose samples come in batches, and its scores in the frameworks that run such loops.

``stream`` collects rows and makes the frame; everything else hands data to it or takes numbers from it. The files
``torchmetrics``, ``evaluate`` and ``lightning`` import the library they are called after, so import them by name::

    from egtmetrics.streaming.torchmetrics import GroupMetric
    from egtmetrics.streaming.lightning import GroupMetricsCallback
    from egtmetrics.streaming.evaluate import GroupEvaluationModule
"""

from egtmetrics.streaming.fairlearn import fairlearn_metric, pair_by_group
from egtmetrics.streaming.ranks import merge_ranks
from egtmetrics.streaming.scores import flat_scores
from egtmetrics.streaming.stream import GenerativeMetricStream

__all__ = ["GenerativeMetricStream", "fairlearn_metric", "flat_scores", "merge_ranks", "pair_by_group"]
