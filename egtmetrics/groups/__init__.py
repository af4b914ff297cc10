"""Group-aware evaluation: the frame, the disparities between groups, intervals, tests, and comparisons of models.

A metric knows nothing of groups; this package calls it once per group. ``frame`` runs the evaluation, ``disparity``
defines disparities, ``inference`` says how certain they are, ``baseline`` what a perfect generator would score,
``verdict`` whether a gap is within a tolerance, ``permutation`` compares groups and models by exact tests, and
``sample_size`` makes scores from different numbers of samples comparable.
"""

from egtmetrics.groups._evaluation import GroupSizeWarning
from egtmetrics.groups.baseline import Baseline
from egtmetrics.groups.disparities import delta_fid, delta_p, delta_p_plus_delta_r, delta_pr, delta_r, ego, egt, mgo
from egtmetrics.groups.disparity import (
    Disparity,
    PairDifference,
    ScoreTable,
    disparities_from_scores,
    max_pairwise_difference,
)
from egtmetrics.groups.flat import flat_scores
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.groups.inference import FrameIntervals, samples_needed
from egtmetrics.groups.permutation import PermutationTest, compare_frames, compare_models, permutation_test
from egtmetrics.groups.sample_size import ResampledResult, at_sample_size, extrapolate
from egtmetrics.groups.verdict import Verdict
from egtmetrics.labels import MissingLabelWarning

__all__ = [
    "Baseline",
    "Disparity",
    "FrameIntervals",
    "GenerativeMetricFrame",
    "GroupSizeWarning",
    "MissingLabelWarning",
    "PairDifference",
    "PermutationTest",
    "ResampledResult",
    "ScoreTable",
    "Verdict",
    "at_sample_size",
    "compare_frames",
    "compare_models",
    "delta_fid",
    "delta_p",
    "delta_p_plus_delta_r",
    "delta_pr",
    "delta_r",
    "disparities_from_scores",
    "ego",
    "egt",
    "extrapolate",
    "flat_scores",
    "max_pairwise_difference",
    "mgo",
    "permutation_test",
    "samples_needed",
]
