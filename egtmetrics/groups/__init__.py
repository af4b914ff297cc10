"""Group-aware evaluation: the frame, the disparities between groups, and matched group sizes.

A metric knows nothing of groups; this package calls it once per group. ``_assignment`` says which row belongs to which
group, ``_evaluation`` calls the metrics, ``_pairs`` turns the scores of the groups into disparities.
"""

from egtmetrics.groups._evaluation import GroupSizeWarning
from egtmetrics.groups._pairs import PairDifference, disparities_from_scores, max_pairwise_difference
from egtmetrics.groups.disparities import delta_fid, delta_p, delta_p_plus_delta_r, delta_pr, delta_r, ego, egt, mgo
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.groups.inference import FrameIntervals, samples_needed
from egtmetrics.groups.matching import MatchedSamples, match_sizes
from egtmetrics.groups.permutation import PermutationTest, compare_frames, compare_models, permutation_test
from egtmetrics.groups.sample_size import ResampledResult, at_sample_size, extrapolated

__all__ = [
    "FrameIntervals",
    "GenerativeMetricFrame",
    "GroupSizeWarning",
    "MatchedSamples",
    "PairDifference",
    "PermutationTest",
    "ResampledResult",
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
    "extrapolated",
    "match_sizes",
    "max_pairwise_difference",
    "mgo",
    "permutation_test",
    "samples_needed",
]
