from .divergences import mauve
from .groups import (
    GenerativeMetricFrame,
    Reference,
    at_sample_size,
    compare_frames,
    compare_models,
    delta_fid,
    delta_p,
    delta_p_plus_delta_r,
    delta_pr,
    delta_r,
    ego,
    egt,
    extrapolate,
    flat_scores,
    mgo,
    permutation_test,
    samples_needed,
)
from .metrics import (
    frechet_distance,
    improved_precision_recall,
    kernel_distance,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from .plots import plot_precision_recall
from .results import MetricResult
from .samples import GroupedSamples
from .streaming import GenerativeMetricStream

__version__: str
__all__ = [
    "GenerativeMetricFrame",
    "GenerativeMetricStream",
    "GroupedSamples",
    "MetricResult",
    "Reference",
    "at_sample_size",
    "compare_frames",
    "compare_models",
    "delta_fid",
    "delta_p",
    "delta_p_plus_delta_r",
    "delta_pr",
    "delta_r",
    "ego",
    "egt",
    "extrapolate",
    "flat_scores",
    "frechet_distance",
    "improved_precision_recall",
    "kernel_distance",
    "mauve",
    "mgo",
    "permutation_test",
    "plot_precision_recall",
    "precision_recall_density_coverage",
    "samples_needed",
    "topp_precision_recall",
]
