"""What TopP&R returns, and the constants that its scores and their variance share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from egtmetrics.results import MetricResult, internal, setting, share

Compatibility: TypeAlias = Literal["top-pr"]
KRule: TypeAlias = Literal["paper", "sample-size"]

NEIGHBORS_PER_DIM = 5
NO_F1_BELOW = 1e-4
"""Where precision or recall is at most this, f1 is 0."""

FEW_KEPT = 0.25
"""Where a smaller share of a set lies in its own support, two samples of one law score below 0.6 in most cases."""
MANY_NEIGHBORS = 0.5
"""Where k is a larger share of a set, two laws well apart often score as one. See docs/adr/0019."""


def neighbor_rank(rule: KRule, n: int, d: int) -> int:
    """Return k for n points in d dimensions."""
    k = NEIGHBORS_PER_DIM * d
    return k if rule == "paper" else max(k, math.ceil(0.5 * n**0.8))


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
    real_n_neighbors: int
    """k of the real set: its bandwidth is the usual distance to the k-th neighbour."""
    fake_n_neighbors: int


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
    k_rule: KRule
    compatibility: Compatibility | None
    per_projection: tuple[TopPREvaluation, ...]
    projections: tuple[NDArray[np.float64] | None, ...] = internal(())
    """The matrix of each projection, None where nothing was projected; empty in a result that was read from a file."""
    own_draws: bool = internal(False)
    """Whether the metric drew its bootstraps itself, instead of being given ``bootstrap_indices``."""


def find_caveats(
    evaluations: Sequence[TopPREvaluation], k_rule: KRule, compatibility: Compatibility | None, **sizes: int
) -> tuple[str, ...]:
    """Return why the scores say little: a support that holds hardly any point of its set, or nearly any point."""
    few, nearly_all, more_helps, needed = [], [], False, 0
    for name, n in sizes.items():
        n_kept = float(np.mean([getattr(e, f"n_{name}_kept") for e in evaluations]))
        k = max(getattr(e, f"{name}_n_neighbors") for e in evaluations)
        if k > MANY_NEIGHBORS * n:
            nearly_all.append(f"{name} (k = {k} of {n})")
            needed = max(needed, math.ceil(k / MANY_NEIGHBORS))
        if n_kept < FEW_KEPT * n:
            few.append(f"{name} ({n_kept:.0f} of {n} points, k = {k})")
            more_helps |= k_rule == "paper" and neighbor_rank("sample-size", n, k // NEIGHBORS_PER_DIM) > k
    caveats = []
    if few:
        remedy = "add samples, or take another metric, for example 'ipr'"
        if more_helps:
            remedy = "pass k_rule='sample-size', which takes more neighbours where features are few" + (
                "" if compatibility is None else f", without compatibility={compatibility!r}"
            )
        caveats.append(
            f"hardly any point lies in the estimated support of its own set: {' and '.join(few)}. The distance to the "
            f"k-th neighbour is too small a bandwidth; {remedy}"
        )
    if nearly_all:
        caveats.append(
            f"the estimated supports hold nearly any point, so that different samples score alike: "
            f"{' and '.join(nearly_all)}. The distance to the k-th neighbour is too large a bandwidth; add samples "
            f"({needed} or more), or project to fewer dimensions"
        )
    return tuple(caveats)
