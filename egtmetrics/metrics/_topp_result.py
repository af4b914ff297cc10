"""What TopP&R returns, and the constants that its scores and their variance share."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from egtmetrics.results import MetricResult, internal, setting, share

Compatibility: TypeAlias = Literal["top-pr"]

NEIGHBORS_PER_DIM = 5
NO_F1_BELOW = 1e-4
"""Where precision or recall is at most this, f1 is 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopPREvaluation:
    """Scores and estimated supports under one projection."""

    precision: float
    recall: float
    f1: float
    real_bandwidth: float
    """Kernel bandwidth h of the real set, a distance in the (projected) feature space."""
    fake_bandwidth: float
    real_confidence_band: float
    """Half width c of the band, in units of the unnormalised density, which lies in [0, 1]."""
    fake_confidence_band: float
    n_real_kept: int
    """How many real points lie in the estimated support of their own set: the denominator of recall."""
    n_fake_kept: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopPRResult(MetricResult):
    """What :func:`topp_precision_recall` returns: means over the projections, and each projection by itself."""

    precision: float = share(
        label="precision",
        help="Outliers aside, the share of the generated samples that lie where real ones do.",
    )
    recall: float = share(
        label="recall",
        help="Outliers aside, the share of the real samples that lie where generated ones do.",
    )
    f1: float = share(label="F1", help="The harmonic mean of precision and recall.")
    precision_std: float | None
    """Standard deviation over the projections (ddof = 1); None for one projection, which says nothing about it."""
    recall_std: float | None
    f1_std: float | None
    alpha: float = setting()
    n_bootstrap: int = setting()
    n_projections: int = setting()
    """How many evaluations were averaged; 1 where nothing was projected."""
    compatibility: Compatibility | None
    per_projection: tuple[TopPREvaluation, ...]
    projections: tuple[NDArray[np.float64] | None, ...] = internal(())
    """The matrix of each projection, None where nothing was projected; empty in a result that was read from a file."""
    own_draws: bool = internal(False)
    """Whether the metric drew its bootstraps itself, instead of being given ``bootstrap_indices``."""
