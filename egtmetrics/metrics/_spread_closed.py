"""Variances in closed form: of the Fréchet distance by its derivative, of the kernel distance as a U-statistic.

Where the laws of real and fake are equal, both distances vary as 1 / n and not as its root: the variance that their
derivatives tell is then twice too large. As it is known at two sizes, it is followed from the smaller to the larger one
and as far again, as in ``egtmetrics.metrics._parts`` with g = 1: right where the laws are equal, and where they differ.

Near equal laws such an estimate rises and falls with the distance itself. In a difference of two groups that evens out;
alone, a low distance would get a short interval that misses. So both functions return two variances: that for sums and
differences, and a larger one for the distance by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from egtmetrics._order import canonical_order
from egtmetrics.metrics._parts import Floats
from egtmetrics.metrics.kernel import KernelDistanceResult, polynomial_kernel
from egtmetrics.ops import Features

_TILE_BYTES = 1 << 26


def frechet_variances(real: Features, fake: Features, rng: np.random.Generator) -> tuple[float, float]:
    """Variance of the Fréchet distance V^2 / (V_2 / 2), from those of all rows and of a half, and V."""
    halves = (points[canonical_order(points)[rng.permutation(len(points))[::2]]] for points in (real, fake))
    whole, half = _frechet_variance(real, fake), _frechet_variance(*halves)
    return (whole**2 / (half / 2.0) if half > 0.0 else whole), whole


def _frechet_variance(real: Features, fake: Features) -> float:
    """Variance of the Fréchet distance from its derivative with respect to the two laws.

    With A the linear map that carries N(0, Sigma_r) to N(0, Sigma_f) optimally, a real point x moves the distance by
    ``2 (mu_r - mu_f).(x - mu_r) + (x - mu_r)^T (I - A) (x - mu_r)``, less the mean of that; a fake point by the same
    with the roles exchanged and the inverse of A.
    """
    x, y = real.astype(np.float64), fake.astype(np.float64)
    shift = x.mean(axis=0) - y.mean(axis=0)
    x -= x.mean(axis=0)
    y -= y.mean(axis=0)
    x_covariance, y_covariance = x.T @ x / (len(x) - 1), y.T @ y / (len(y) - 1)
    variance = 0.0
    for points, own, other, towards in (
        (x, x_covariance, y_covariance, shift),
        (y, y_covariance, x_covariance, -shift),
    ):
        root = _matrix_power(other, 0.5)
        carries = root @ _matrix_power(root @ own @ root, -0.5) @ root
        moves = 2.0 * points @ towards + np.einsum("nd,nd->n", points - points @ carries, points)
        variance += float(moves.var()) / len(points)
    return variance


def _matrix_power(symmetric: Floats, power: float) -> Floats:
    """Power of a positive semidefinite matrix on its range."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > 1e-12 * max(values[-1], 0.0)
    powers = np.where(kept, np.where(kept, values, 1.0) ** power, 0.0)
    result: Floats = (vectors * powers) @ vectors.T
    return result


def kernel_variances(
    result: KernelDistanceResult, options: Mapping[str, Any], real: Features, fake: Features
) -> tuple[float, float]:
    """Variances of the kernel distance as a U-statistic.

    With ``a(x) = E k(x, x') - E k(x, y)``, ``b(y)`` alike, and the kernel's second moments v after centring both of its
    arguments::

        Var(n, m) = 4 Var a / n + 4 Var b / m + 2 v_xx / n(n - 1) + 2 v_yy / m(m - 1) + 4 v_xy / nm  =:  L + D

    D counts where the laws are nearly equal. Row means vary by more than ``a`` does, by v_xx / (n - 1) + v_xy / m,
    which is taken off. So row means tell L + 2 D, which stands for the distance alone, and from a half of the rows
    twice L + 4 D: for differences L + D is estimated by ``(L + 2 D)^2 / (L + 4 D)``.

    The mean of B subsets of s rows adds (Var(s, s) - Var(n, m)) / B to that of all rows.
    """
    degree, coef0 = options.get("degree", 3), options.get("coef0", 1.0)
    gamma = options.get("gamma") or 1.0 / real.shape[1]
    x, y = real.astype(np.float64), fake.astype(np.float64)
    n, m = len(x), len(y)

    def sums(rows: Floats, columns: Floats) -> tuple[Floats, Floats, float]:
        """Of the kernel by row, by column, and of its squares; a row against itself is left out."""
        by_row, by_column, squares = np.empty(len(rows)), np.zeros(len(columns)), 0.0
        step = max(1, _TILE_BYTES // (8 * len(columns)))
        for start in range(0, len(rows), step):
            tile = polynomial_kernel(rows[start : start + step], columns, degree, gamma, coef0)
            if rows is columns:
                tile[np.arange(len(tile)), start + np.arange(len(tile))] = 0.0
            by_row[start : start + step] = tile.sum(axis=1)
            by_column += tile.sum(axis=0)
            squares += float(np.vdot(tile, tile))
        return by_row, by_column, squares

    def centred_within(by_row: Floats, squares: float) -> float:
        k = len(by_row)
        moments = squares - 2.0 * by_row @ by_row / (k - 2) + by_row.sum() ** 2 / ((k - 1) * (k - 2))
        return float(moments / (k * (k - 3)))

    (in_x, _, xx), (in_y, _, yy) = sums(x, x), sums(y, y)
    at_x, at_y, xy = sums(x, y)
    v_xx, v_yy = centred_within(in_x, xx), centred_within(in_y, yy)
    v_xy = float(xy - at_x @ at_x / m - at_y @ at_y / n + at_x.sum() ** 2 / (n * m)) / ((n - 1) * (m - 1))
    of_a = float((in_x / (n - 1) - at_x / m).var(ddof=1)) - v_xx / (n - 1) - v_xy / m
    of_b = float((in_y / (m - 1) - at_y / n).var(ddof=1)) - v_yy / (m - 1) - v_xy / n

    def variances(n: int, m: int) -> Floats:
        between_equals = 2.0 * v_xx / (n * (n - 1)) + 2.0 * v_yy / (m * (m - 1)) + 4.0 * v_xy / (n * m)
        told = max(0.0, 4.0 * of_a / n + 4.0 * of_b / m + 2.0 * between_equals)
        followed = told**2 / (told + 2.0 * between_equals) if told > 0.0 else 0.0
        return np.array([followed, told])

    whole, subset = variances(n, m), variances(result.subset_size, result.subset_size)
    in_differences, alone = (whole + (subset - whole) / result.n_subsets).tolist()
    return in_differences, alone
