"""Scores of mixtures of generated sets with weights that may be negative, as where labels that err are corrected."""

from __future__ import annotations

import dataclasses

import numpy as np

from egtmetrics.metrics.subsampling import Floats
from egtmetrics.metrics.variance import JointScores, ScoreCovariance


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureScores:
    """S scores of G real sets, each against C generated sets with weights of its own."""

    values: Floats
    """``(G, S)``"""
    gradient: Floats
    """``(G, C, S)``: derivatives of the scores of real set g by its weights."""
    covariance: ScoreCovariance
    """Of all values together, ``(G * S, G * S)``, for given weights."""

    @classmethod
    def of_means(cls, cross: Floats, weights: Floats, joint: JointScores) -> MixtureScores:
        """Return those of scores that are means over generated samples: the weighted means of the scores.

        ``cross`` ``(G, C, S)`` has the scores of every pair of sets, and ``joint`` those pairs in the same order.
        """
        n_real, n_fake, _ = cross.shape
        of_pairs = (weights[:, None, :] * np.eye(n_real)[:, :, None]).reshape(n_real, n_real * n_fake)
        return cls(
            values=(weights[..., None] * cross).sum(axis=1),
            gradient=cross,
            covariance=joint.covariance_of_sums(of_pairs),
        )
