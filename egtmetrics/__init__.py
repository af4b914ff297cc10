"""Is a generative model equally good for every sensitive group?

The public names are imported on first use: importing the package loads no kernel and no framework, so a training
script pays for nothing it does not call.

The rooms, in the order the data walks: ``cli`` reads files and prints; ``report`` draws tables and figures; ``groups``
splits samples by group and compares, with intervals; ``streaming`` takes them batch by batch; ``features`` makes
them of images and texts; ``metrics`` and ``divergences`` score one real and one fake set, blind to groups;
``ops`` are the array primitives, compiled (``csrc/``) or in NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from egtmetrics.divergences import (
        classifier_f_divergence,
        decompose,
        f_divergence,
        f_divergence_lower_bound,
        frontier_integral,
        kde_f_divergence,
        knn_f_divergence,
        knn_ratio_f_divergence,
        mauve,
        precision_recall_distributions,
        quantized_f_divergence,
    )
    from egtmetrics.groups import (
        GenerativeMetricFrame,
        MatchedSamples,
        at_sample_size,
        compare_models,
        delta_fid,
        delta_p,
        delta_p_plus_delta_r,
        delta_pr,
        delta_r,
        ego,
        egt,
        extrapolated,
        match_sizes,
        mgo,
        permutation_test,
        samples_needed,
    )
    from egtmetrics.metrics import (
        approximate_precision_recall_density_coverage,
        clipped_density_coverage,
        frechet_distance,
        improved_precision_recall,
        kernel_distance,
        p_precision_recall,
        precision_recall_cover,
        precision_recall_density_coverage,
        topp_precision_recall,
    )
    from egtmetrics.report import plot_precision_recall
    from egtmetrics.streaming import GenerativeMetricStream, flat_scores

_HOME = {
    "divergences": (
        "classifier_f_divergence",
        "decompose",
        "f_divergence",
        "f_divergence_lower_bound",
        "frontier_integral",
        "kde_f_divergence",
        "knn_f_divergence",
        "knn_ratio_f_divergence",
        "mauve",
        "precision_recall_distributions",
        "quantized_f_divergence",
    ),
    "groups": (
        "GenerativeMetricFrame",
        "MatchedSamples",
        "at_sample_size",
        "compare_models",
        "delta_fid",
        "delta_p",
        "delta_p_plus_delta_r",
        "delta_pr",
        "delta_r",
        "ego",
        "egt",
        "extrapolated",
        "match_sizes",
        "mgo",
        "permutation_test",
        "samples_needed",
    ),
    "metrics": (
        "approximate_precision_recall_density_coverage",
        "clipped_density_coverage",
        "frechet_distance",
        "improved_precision_recall",
        "kernel_distance",
        "p_precision_recall",
        "precision_recall_cover",
        "precision_recall_density_coverage",
        "topp_precision_recall",
    ),
    "report": ("plot_precision_recall",),
    "streaming": ("GenerativeMetricStream", "flat_scores"),
}
_ROOM_OF = {name: room for room, names in _HOME.items() for name in names}

__all__ = [
    "GenerativeMetricFrame",
    "GenerativeMetricStream",
    "MatchedSamples",
    "approximate_precision_recall_density_coverage",
    "at_sample_size",
    "classifier_f_divergence",
    "clipped_density_coverage",
    "compare_models",
    "decompose",
    "delta_fid",
    "delta_p",
    "delta_p_plus_delta_r",
    "delta_pr",
    "delta_r",
    "ego",
    "egt",
    "extrapolated",
    "f_divergence",
    "f_divergence_lower_bound",
    "flat_scores",
    "frechet_distance",
    "frontier_integral",
    "improved_precision_recall",
    "kde_f_divergence",
    "kernel_distance",
    "knn_f_divergence",
    "knn_ratio_f_divergence",
    "match_sizes",
    "mauve",
    "mgo",
    "p_precision_recall",
    "permutation_test",
    "plot_precision_recall",
    "precision_recall_cover",
    "precision_recall_density_coverage",
    "precision_recall_distributions",
    "quantized_f_divergence",
    "samples_needed",
    "topp_precision_recall",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'egtmetrics' has no attribute {name!r}")
    value = getattr(import_module(f"egtmetrics.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
