"""Group-aware evaluation: the frame, the disparities between groups, intervals, tests, and comparisons of models.

A metric knows nothing of groups; this package calls it once per group. ``frame`` runs the evaluation, ``reference``
prepares its real side, ``disparity`` defines disparities, ``inference`` says how certain they are, ``planning`` and
``budget`` how many samples that takes, ``label_errors`` what scores would be if the labels did not err, ``baseline``
what a perfect generator would score, ``dose`` how much known damage (``damage``) would give the scores of the model,
``controlled`` what gaps there are between like and like, ``verdict`` whether a gap is within a tolerance, ``monitor``
whether one shows up over many looks, and ``selection`` which checkpoint is best for its worst group. ``comparison``
compares models, ``views`` the same samples under several encoders or options. ``permutation`` tests for equal laws,
``copying`` tests whether the training set is copied and finds suspects, and ``sample_size`` makes scores from different
numbers of samples comparable.
"""

from egtmetrics.groups._evaluation import GroupSizeWarning, MissingScoreWarning
from egtmetrics.groups.baseline import Baseline
from egtmetrics.groups.budget import SampleBudget
from egtmetrics.groups.comparison import ModelComparison, compare_frames, compare_models
from egtmetrics.groups.controlled import ControlledScores
from egtmetrics.groups.copying import copying_test, suspected_copies
from egtmetrics.groups.damage import Damage, copies, missing_mass, noise, off_support
from egtmetrics.groups.disparities import delta_fid, delta_p, delta_p_plus_delta_r, delta_pr, delta_r, ego, egt, mgo
from egtmetrics.groups.disparity import (
    Disparity,
    PairDifference,
    ScoreTable,
    disparities_from_scores,
    max_pairwise_difference,
)
from egtmetrics.groups.dose import DoseResponse
from egtmetrics.groups.flat import flat_scores
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.groups.inference import FrameIntervals
from egtmetrics.groups.label_errors import LabelCorrection, LabelSensitivity
from egtmetrics.groups.monitor import DisparityMonitor, Look
from egtmetrics.groups.permutation import (
    PermutationTest,
    permutation_test,
    permutation_test_frames,
    permutation_test_models,
)
from egtmetrics.groups.planning import SamplePlan, samples_needed
from egtmetrics.groups.reference import Reference
from egtmetrics.groups.sample_size import ResampledResult, at_sample_size, extrapolate
from egtmetrics.groups.selection import Candidate, CheckpointSelection
from egtmetrics.groups.verdict import Verdict
from egtmetrics.groups.views import ViewComparison, compare_views
from egtmetrics.labels import MissingLabelWarning

__all__ = [
    "Baseline",
    "Candidate",
    "CheckpointSelection",
    "ControlledScores",
    "Damage",
    "Disparity",
    "DisparityMonitor",
    "DoseResponse",
    "FrameIntervals",
    "GenerativeMetricFrame",
    "GroupSizeWarning",
    "LabelCorrection",
    "LabelSensitivity",
    "Look",
    "MissingLabelWarning",
    "MissingScoreWarning",
    "ModelComparison",
    "PairDifference",
    "PermutationTest",
    "Reference",
    "ResampledResult",
    "SampleBudget",
    "SamplePlan",
    "ScoreTable",
    "Verdict",
    "ViewComparison",
    "at_sample_size",
    "compare_frames",
    "compare_models",
    "compare_views",
    "copies",
    "copying_test",
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
    "missing_mass",
    "noise",
    "off_support",
    "permutation_test",
    "permutation_test_frames",
    "permutation_test_models",
    "samples_needed",
    "suspected_copies",
]
