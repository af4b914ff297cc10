"""Primitives at every scale that features may have, also where squares underflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from egtmetrics.ops import select_host_backend

REFERENCE = select_host_backend("reference")
CPU = select_host_backend("cpu")

# Whole numbers times a power of two: all squares and sums are exact as long as they are normal, or multiples of the
# smallest number, 2^-1074.
EXACT = [-537, -530, -520, -517, -515, -512, -511, -500, -300, 0, 300, 495]
# One column, so that there is no sum that the backends may round differently: some squares underflow, then all.
UNDERFLOWING = [-540, -545, -600, -1000, -1060]


def points(rng: np.random.Generator, n: int, d: int, exponent: int) -> Any:
    return np.ldexp(rng.integers(-30, 31, size=(n, d)).astype(float), exponent)


@pytest.mark.parametrize(
    ("exponent", "d"),
    [*((e, d) for e in EXACT for d in (1, 3)), *((e, 1) for e in UNDERFLOWING)],
)
@pytest.mark.parametrize("closed", [False, True])
def test_neighbours_and_memberships_are_those_of_the_reference(exponent: int, d: int, closed: bool) -> None:
    rng = np.random.default_rng(exponent % 1000)
    x, y = points(rng, 280, d, exponent), points(rng, 90, d, exponent)
    for others in (y, None):
        k = 7
        radii = REFERENCE.kth_neighbor(x, others, n_neighbors=k)
        np.testing.assert_array_equal(CPU.kth_neighbor(x, others, n_neighbors=k), radii)
        for found, expected in zip(
            CPU.neighbors(x, others, n_neighbors=k), REFERENCE.neighbors(x, others, n_neighbors=k), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    for options in (
        {"x_sq_radii": radii},
        {"y": y, "x_sq_radii": radii, "y_sq_radii": REFERENCE.kth_neighbor(y, x, n_neighbors=20)},
        {"y": y, "y_sq_radii": np.full(len(y), np.median(radii))},
        {"y": y, "x_sq_radii": np.zeros(len(x))},
    ):
        counts = CPU.ball_counts(x, **options, closed=closed)
        for found, expected in zip(counts, REFERENCE.ball_counts(x, **options, closed=closed), strict=True):
            np.testing.assert_array_equal(found, expected)
    splits: Any = {
        "x_sq_radii": radii[:, None] * [1.0, 2.0],
        "x_sides": rng.integers(0, 2, size=(len(x), 2)).astype(np.uint8),
        "y_sides": rng.integers(0, 2, size=(len(y), 2)).astype(np.uint8),
        "closed": closed,
    }
    for found, expected in zip(
        CPU.split_ball_counts(x, y, **splits), REFERENCE.split_ball_counts(x, y, **splits), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scale", [1e-160, 1e-155, 1e-154, 1e-150, 1e-100, 1e100, 1e150])
def test_a_ball_to_the_fifth_neighbour_holds_five_at_every_scale(scale: float) -> None:
    x = np.random.default_rng(1).normal(size=(400, 6)) * scale
    counts = CPU.ball_counts(x, x_sq_radii=CPU.kth_neighbor(x, n_neighbors=5), closed=True)
    assert counts.x_ball_sizes.min() == 5
    assert counts.x_ball_sizes.sum() == counts.y_in_x_balls.sum()
    if scale >= 1e-150:  # below, distances coincide
        assert counts.x_ball_sizes.max() == 5


@pytest.mark.parametrize("exponent", [-1000, -540, -500, 495])
@pytest.mark.parametrize("factor", [0.0, 0.25, 4.0, 64.0])
def test_kernel_sums_do_not_depend_on_a_power_of_two(exponent: int, factor: float) -> None:
    """Integers near their centre: densities recompute no pair in float64, where its square might underflow."""
    rng = np.random.default_rng(2)
    x, y = points(rng, 60, 1, 0), points(rng, 50, 1, 0)
    counts = rng.integers(0, 3, size=(60, 4)).astype(np.uint16)

    def sums(to: int) -> list[Any]:
        a, b, h = np.ldexp(x, to), np.ldexp(y, to), float(np.ldexp(32.0 * factor, to))
        band = CPU.kernel_density_band(a, counts, bandwidth=h)
        # Soft balls recompute many pairs.
        soft = [CPU.soft_ball_product(a, b, radius=h)] if exponent >= -500 else []
        return [CPU.kernel_density(a, b, bandwidth=h), *band, *soft]

    for found, expected in zip(sums(exponent), sums(0), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [0.25, 4.0, 64.0])
def test_a_bandwidth_whose_inverse_is_infinite(factor: float) -> None:
    rng = np.random.default_rng(3)
    x, y, h = points(rng, 60, 1, -1060), points(rng, 50, 1, -1060), float(np.ldexp(factor, -1060))
    expected = REFERENCE.kernel_density(x, y, bandwidth=h)
    np.testing.assert_allclose(CPU.kernel_density(x, y, bandwidth=h), expected, rtol=1e-6)
