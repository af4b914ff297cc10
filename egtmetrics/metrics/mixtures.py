"""Scores of mixtures of generated sets with weights that may be negative, as where labels that err are corrected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from egtmetrics.metrics.subsampling import Floats
from egtmetrics.metrics.variance import JointScores, ScoreCovariance


@runtime_checkable
class CountsPairs(Protocol):
    """A result of a metric whose mixtures compare all pairs of rows, which says how long that takes."""

    def evaluations(self, n_pairs: float) -> float:
        """Return how many evaluations like that of this result take as long as so many pairs of rows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixtures:
    """S scores of each of G real sets against mixtures of C generated sets, as functions of the weights of these."""

    values: Callable[[Floats], Floats]
    """From weights ``(..., G, C)``, whose rows sum to 1, to scores ``(..., G, S)``."""
    covariance: Callable[[Floats], ScoreCovariance]
    """From weights ``(G, C)`` to the covariance of all these scores together, ``(G * S, G * S)``."""

    @classmethod
    def of_means(cls, cross: Floats, joint: Callable[[], JointScores]) -> Mixtures:
        """Return those of scores that are means over generated samples: weighted means of the scores of pairs of sets.

        ``cross`` ``(G, C, S)`` has these, and ``joint`` computes what their covariance follows from, in the same order.
        """
        n_real, n_fake, _ = cross.shape

        def covariance(weights: Floats) -> ScoreCovariance:
            of_pairs = np.eye(n_real)[:, :, None] * weights
            return joint().covariance_of_sums(of_pairs.reshape(n_real, n_real * n_fake))

        return cls(values=lambda weights: np.einsum("...gc,gcs->...gs", weights, cross), covariance=covariance)
