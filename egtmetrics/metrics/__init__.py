"""Metrics of one real and one fake set of features, blind to groups: ``(real, fake) -> frozen result``.

One file has one metric, or two that share their computation: the result with its scores, the variance estimator if
there is one, and the function, whose docstring gives formula and source. The primitives of :mod:`egtmetrics.ops` do the
pairwise work. :mod:`egtmetrics.metrics.variance` explains how intervals get the variance of a score.
"""

from egtmetrics.metrics._topp_result import TopPREvaluation, TopPRResult
from egtmetrics.metrics.approximate import (
    ApproximatePRDCResult,
    approximate_precision_recall_density_coverage,
)
from egtmetrics.metrics.authenticity import AuthenticityResult, authenticity
from egtmetrics.metrics.clipped import ClippedDensityCoverageResult, clipped_density_coverage
from egtmetrics.metrics.cover import PrecisionRecallCoverResult, precision_recall_cover
from egtmetrics.metrics.frechet import FrechetResult, frechet_distance
from egtmetrics.metrics.kernel import KernelDistanceResult, kernel_distance
from egtmetrics.metrics.numbers import MeanResult, mean_of_numbers
from egtmetrics.metrics.p_precision_recall import PPrecisionRecallResult, p_precision_recall
from egtmetrics.metrics.prdc import (
    ImprovedPrecisionRecallResult,
    PRDCResult,
    improved_precision_recall,
    precision_recall_density_coverage,
)
from egtmetrics.metrics.sample_scores import SampleScores, sample_scores
from egtmetrics.metrics.self_bleu import self_bleu
from egtmetrics.metrics.topp_pr import topp_precision_recall
from egtmetrics.metrics.variance import ScoreCovariance
from egtmetrics.metrics.vendi import VendiResult, vendi_score

__all__ = [
    "ApproximatePRDCResult",
    "AuthenticityResult",
    "ClippedDensityCoverageResult",
    "FrechetResult",
    "ImprovedPrecisionRecallResult",
    "KernelDistanceResult",
    "MeanResult",
    "PPrecisionRecallResult",
    "PRDCResult",
    "PrecisionRecallCoverResult",
    "SampleScores",
    "ScoreCovariance",
    "TopPREvaluation",
    "TopPRResult",
    "VendiResult",
    "approximate_precision_recall_density_coverage",
    "authenticity",
    "clipped_density_coverage",
    "frechet_distance",
    "improved_precision_recall",
    "kernel_distance",
    "mean_of_numbers",
    "p_precision_recall",
    "precision_recall_cover",
    "precision_recall_density_coverage",
    "sample_scores",
    "self_bleu",
    "topp_precision_recall",
    "vendi_score",
]
