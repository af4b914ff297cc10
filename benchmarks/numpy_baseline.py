"""What one would write in NumPy today: a fairer baseline than packages that any rewrite would beat.

TopP&R computes each kernel matrix once and the bootstrap as one matrix product. Bootstrapped f-divergences use whole
arrays, and for comparison the loop of library calls that most scripts contain.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

Array = NDArray[Any]


def _sq_distances(x: Array, y: Array) -> Array:
    return np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1) - 2.0 * (x @ y.T), 0.0)


def _bandwidth(sq_distances: Array, d: int) -> float:
    k = 5 * d
    off_diagonal = sq_distances + np.diag(np.full(len(sq_distances), np.inf, dtype=sq_distances.dtype))
    return float(np.median(np.sqrt(np.partition(off_diagonal, k - 1, axis=1)[:, k - 1])))


def _kernel(sq_distances: Array, h: float) -> Array:
    return np.cos(0.5 * np.pi * np.minimum(np.sqrt(sq_distances) / h, 1.0))


def _band(kernel: Array, indices: Array, alpha: float) -> tuple[Array, float]:
    n = len(kernel)
    counts = np.stack([np.bincount(row, minlength=n) for row in indices], axis=1).astype(kernel.dtype)
    density = kernel.mean(axis=1)
    deviations = np.abs(kernel @ counts / n - density[:, None]).max(axis=0)
    return density, float(np.quantile(deviations, 1.0 - alpha))


def topp_precision_recall(
    real: Array, fake: Array, real_indices: Array, fake_indices: Array, alpha: float = 0.1
) -> tuple[float, float]:
    d = real.shape[1]
    real_sq, fake_sq = _sq_distances(real, real), _sq_distances(fake, fake)
    h_real, h_fake = _bandwidth(real_sq, d), _bandwidth(fake_sq, d)
    p_real, c_real = _band(_kernel(real_sq, h_real), real_indices, alpha)
    q_fake, c_fake = _band(_kernel(fake_sq, h_fake), fake_indices, alpha)
    cross = _sq_distances(real, fake)
    q_real = _kernel(cross, h_fake).mean(axis=1)
    p_fake = _kernel(cross, h_real).mean(axis=0)
    real_kept, fake_kept = p_real > c_real, q_fake > c_fake
    return float((p_fake > c_real)[fake_kept].mean()), float((q_real > c_fake)[real_kept].mean())


def _divergences(p: Array, q: Array) -> Array:
    """Return twelve f-divergences of strictly positive pmfs over the last axis, stacked on a new last axis."""
    log_ratio, total, alpha, gamma, lam = np.log(p / q), p + q, 0.5, 2.0, 0.5
    return np.stack(
        [
            (p * log_ratio).sum(-1),
            -(q * log_ratio).sum(-1),
            (p * np.log(2 * p / total) + q * np.log(2 * q / total)).sum(-1),
            ((p - q) * log_ratio).sum(-1),
            np.abs(p - q).sum(-1) / 2,
            ((p - q) ** 2 / q).sum(-1),
            ((p - q) ** 2 / p).sum(-1),
            ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(-1),
            ((p - q) ** 2 / total).sum(-1) / 2,
            ((p**alpha * q ** (1 - alpha)).sum(-1) - 1) / (alpha * (alpha - 1)),
            np.maximum(p - gamma * q, 0).sum(-1),
            np.maximum(lam * p, q).sum(-1) - 1,
        ],
        axis=-1,
    )


def divergence_bootstrap(
    p: Array, q: Array, smoothing: float, n_replicates: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return values (G, 12) and replicates (G, 12, B), ten replicates at a time to limit memory."""

    def pmf(counts: Array) -> Array:
        smoothed = counts + smoothing
        return smoothed / smoothed.sum(-1, keepdims=True)

    def redraw(counts: Array, times: int) -> Array:
        totals = counts.sum(-1)
        return pmf(rng.multinomial(totals, counts / totals[:, None], size=(times, len(counts))))

    blocks = [_divergences(redraw(p, 10), redraw(q, 10)) for _ in range(n_replicates // 10)]
    return _divergences(pmf(p), pmf(q)), np.moveaxis(np.concatenate(blocks), 0, -1)


def divergence_loop(p: Array, q: Array, smoothing: float, n_replicates: int, rng: np.random.Generator) -> None:
    """The same, one group, replicate and divergence at a time, with SciPy where it has the divergence."""
    for p_counts, q_counts in zip(p, q, strict=True):
        p_total, q_total = p_counts.sum(), q_counts.sum()
        for _ in range(n_replicates):
            a = rng.multinomial(p_total, p_counts / p_total) + smoothing
            b = rng.multinomial(q_total, q_counts / q_total) + smoothing
            a, b = a / a.sum(), b / b.sum()
            rel_entr(a, b).sum()
            rel_entr(b, a).sum()
            2 * jensenshannon(a, b) ** 2
            (rel_entr(a, b) + rel_entr(b, a)).sum()
            np.abs(a - b).sum() / 2
            ((a - b) ** 2 / b).sum()
            ((a - b) ** 2 / a).sum()
            ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
            ((a - b) ** 2 / (a + b)).sum() / 2
            (np.sum(np.sqrt(a * b)) - 1) / -0.25
            np.maximum(a - 2 * b, 0).sum()
            np.maximum(0.5 * a, b).sum() - 1
