"""f-divergences: the family, exact values, estimates from samples, the decomposition over groups, and the theory.

D_f(P||Q) = sum over q > 0 of q f(p/q) + fbar(inf) P(q = 0), Definition 2.1 of the paper, with P the real law and Q the
fake one. What the paper leaves open (factors, units, ties, the odds that do not match) is settled in
``docs/adr/0007-divergence-conventions.md``.
"""

from egtmetrics.divergences.classifier import classifier_f_divergence, f_divergence_lower_bound
from egtmetrics.divergences.codebook import Codebook, quantize
from egtmetrics.divergences.decomposition import Decomposition, decompose
from egtmetrics.divergences.equalized import (
    conditional_closure,
    delta_egt,
    egt_lower_bound,
    is_delta_ego,
    is_delta_egt,
    is_delta_mgo,
)
from egtmetrics.divergences.estimates import DivergenceEstimate, DivergenceEstimateWarning
from egtmetrics.divergences.exact import f_divergence
from egtmetrics.divergences.families import alpha_divergence, get_generator, hockey_stick, precision_recall
from egtmetrics.divergences.frontiers import (
    FRONTIER_INTEGRAL,
    FrontierIntegralResult,
    MauveResult,
    PRDResult,
    frontier_integral,
    mauve,
    precision_recall_distributions,
)
from egtmetrics.divergences.generators import FGenerator, unit_scale, user_generator
from egtmetrics.divergences.kernel_density import kde_f_divergence
from egtmetrics.divergences.neighbors import knn_f_divergence, knn_ratio_f_divergence
from egtmetrics.divergences.quantized import quantized_f_divergence
from egtmetrics.divergences.theory import (
    TwoLevelModel,
    UnequalModel,
    largest_feasible_gap,
    phi,
    solve_divergence,
    two_level_model,
    unequal_model,
)

__all__ = [
    "FRONTIER_INTEGRAL",
    "Codebook",
    "Decomposition",
    "DivergenceEstimate",
    "DivergenceEstimateWarning",
    "FGenerator",
    "FrontierIntegralResult",
    "MauveResult",
    "PRDResult",
    "TwoLevelModel",
    "UnequalModel",
    "alpha_divergence",
    "classifier_f_divergence",
    "conditional_closure",
    "decompose",
    "delta_egt",
    "egt_lower_bound",
    "f_divergence",
    "f_divergence_lower_bound",
    "frontier_integral",
    "get_generator",
    "hockey_stick",
    "is_delta_ego",
    "is_delta_egt",
    "is_delta_mgo",
    "kde_f_divergence",
    "knn_f_divergence",
    "knn_ratio_f_divergence",
    "largest_feasible_gap",
    "mauve",
    "phi",
    "precision_recall",
    "precision_recall_distributions",
    "quantize",
    "quantized_f_divergence",
    "solve_divergence",
    "two_level_model",
    "unequal_model",
    "unit_scale",
    "user_generator",
]
