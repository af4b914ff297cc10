"""One generator of every kind, built-in and user-defined."""

from __future__ import annotations

from egtmetrics.divergences import (
    FRONTIER_INTEGRAL,
    FGenerator,
    alpha_divergence,
    get_generator,
    hockey_stick,
    precision_recall,
)

GENERATORS: list[FGenerator] = [
    *map(get_generator, ("kl", "reverse_kl", "js", "jeffreys", "tv", "pearson", "neyman", "hellinger", "le_cam")),
    alpha_divergence(0.3),
    hockey_stick(2.0),
    precision_recall(3.0),
    FRONTIER_INTEGRAL,
]
