"""The CUDA bootstrap of f-divergences, run on the host: the same integers as every backend draws, and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics.ops import Divergences, select_backend
from egtmetrics.ops._multinomial import multinomial_bootstrap
from tests.simt.build import load

REFERENCE = select_backend("reference")
CPU = select_backend("cpu")

ALL = Divergences(
    codes=np.array([*range(9), 9, 9, 9, 10, 10, 11, 11], dtype=np.int32),
    parameters=np.array([0.0] * 9 + [0.5, 2.0, -1.0, 0.5, 2.0, 0.3, 3.0]),
)
TOTAL_VARIATION = Divergences(codes=np.array([4], dtype=np.int32), parameters=np.zeros(1))
MOST_DRAWS = 2**31 - 1

Counts = NDArray[np.int64]
Results = tuple[NDArray[np.float64], NDArray[np.float64]]


def bootstrap(
    p: Counts,
    q: Counts,
    divergences: Divergences = ALL,
    *,
    smoothing: float = 0.0,
    n_replicates: int = 0,
    seed: int = 0,
    module: Any = None,
) -> Results:
    n_groups, n_bins = p.shape
    n_divergences = len(divergences.codes)
    # What no kernel writes: whatever is left of it was forgotten.
    values = np.full((n_groups, n_divergences), -77.0)
    replicates = np.full((n_groups, n_divergences, n_replicates), -77.0)
    (load() if module is None else module).divergence_bootstrap(
        p.ctypes.data,
        n_groups,
        n_bins,
        q.ctypes.data,
        divergences.codes.tolist(),
        divergences.parameters.tolist(),
        smoothing,
        n_replicates,
        seed,
        values.ctypes.data,
        replicates.ctypes.data if n_replicates else 0,
        0,
        0,
    )
    return values, replicates


def histograms(rng: np.random.Generator, n_groups: int, n_bins: int, scale: int) -> tuple[Counts, Counts]:
    p, q = (rng.integers(0, scale, size=(n_groups, n_bins)) for _ in range(2))
    p[:, 0] += 1
    q[:, -1] += 1
    return p, q


def assert_close(actual: Results, expected: Results) -> None:
    # Other draws would be far off: a histogram is a few counts.
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def assert_same_bits(actual: Results, expected: Results) -> None:
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**64 - 1),
    n_groups=st.integers(1, 3),
    n_bins=st.integers(1, 20),
    n_replicates=st.integers(0, 5),
    scale=st.sampled_from([1, 3, 40, 500]),
    smoothing=st.sampled_from([0.0, 0.5]),
)
def test_equals_reference(
    seed: int, n_groups: int, n_bins: int, n_replicates: int, scale: int, smoothing: float
) -> None:
    p, q = histograms(np.random.default_rng(seed), n_groups, n_bins, scale)
    arguments: dict[str, Any] = {"smoothing": smoothing, "n_replicates": n_replicates, "seed": seed}
    assert_close(bootstrap(p, q, **arguments), REFERENCE.divergence_bootstrap(p, q, ALL, **arguments))


@pytest.mark.parametrize("n_bins", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 63, 255, 256, 257, 700])
@pytest.mark.parametrize("n_replicates", [1, 31, 32, 33])
def test_edges_of_blocks(n_bins: int, n_replicates: int) -> None:
    p, q = histograms(np.random.default_rng(n_bins), 2, n_bins, 12)
    arguments: dict[str, Any] = {"n_replicates": n_replicates, "seed": 9}
    assert_close(bootstrap(p, q, **arguments), CPU.divergence_bootstrap(p, q, ALL, **arguments))


def drawn_histograms(counts: Counts, side: int, n_replicates: int, group: int, seed: int) -> Counts:
    """The draws of the kernel, recovered from total variations: against one bin alone it is 1 less that bin's share."""
    total, n_bins = int(counts.sum()), len(counts)
    drawn = np.empty((n_replicates, n_bins), dtype=np.int64)
    for k in range(n_bins):
        own = np.tile(counts, (group + 1, 1))
        alone = np.zeros_like(own)
        alone[:, k] = 5
        pair = (own, alone) if side == 0 else (alone, own)
        _, replicates = bootstrap(*pair, TOTAL_VARIATION, n_replicates=n_replicates, seed=seed)
        share = (1.0 - replicates[group, 0]) * total
        drawn[:, k] = np.rint(share)
        assert np.abs(share - drawn[:, k]).max() < 1e-4
    return drawn


@pytest.mark.parametrize(
    "counts",
    [
        [1],
        [1, 0],
        [0, 1, 0],
        [1, 1, 1],
        [3, 5, 0, 2],
        [1, 0, 0, 7, 1, 1, 0, 13, 0],
        [1000, 1, 333],
        [1 << 17, 3, 0, 0, 1 << 16],
        [0, MOST_DRAWS, 0],
        [30] * 25,
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_draws_the_same_integers(counts: list[int], side: int) -> None:
    histogram = np.array(counts)
    group, seed = 1, (5 << 40) + 17
    n_replicates = 2 if histogram.sum() > 1 << 16 else 40
    expected = multinomial_bootstrap(histogram, n_replicates, group=group, side=side, seed=seed)
    np.testing.assert_array_equal(drawn_histograms(histogram, side, n_replicates, group, seed), expected)


def test_most_draws_there_can_be() -> None:
    # NumPy would take an hour for it.
    p, q = np.array([[MOST_DRAWS - 1, 1]]), np.array([[1, 2]])
    assert_close(bootstrap(p, q, n_replicates=1), CPU.divergence_bootstrap(p, q, ALL, n_replicates=1))


def test_many_bins() -> None:
    p, q = histograms(np.random.default_rng(2), 2, 30_011, 4)
    assert_close(bootstrap(p, q, n_replicates=2), CPU.divergence_bootstrap(p, q, ALL, n_replicates=2))


@pytest.mark.parametrize("n_divergences", [19, 20, 21, 45])
def test_many_divergences_are_those_asked_one_by_one(n_divergences: int) -> None:
    p, q = histograms(np.random.default_rng(3), 2, 11, 9)
    which = np.arange(n_divergences) % len(ALL.codes)
    values, replicates = bootstrap(p, q, Divergences(ALL.codes[which], ALL.parameters[which]), n_replicates=35, seed=4)
    for f, index in enumerate(which):
        one = Divergences(ALL.codes[[index]], ALL.parameters[[index]])
        assert_same_bits((values[:, [f]], replicates[:, [f]]), bootstrap(p, q, one, n_replicates=35, seed=4))


def test_a_replicate_is_the_same_among_few_and_among_many() -> None:
    p, q = histograms(np.random.default_rng(4), 3, 21, 30)
    values, replicates = bootstrap(p, q, n_replicates=70, seed=8)
    for n_replicates in (0, 1, 40):
        assert_same_bits((values, replicates[..., :n_replicates]), bootstrap(p, q, n_replicates=n_replicates, seed=8))
    assert_same_bits((values[:2], replicates[:2]), bootstrap(p[:2], q[:2], n_replicates=70, seed=8))


def test_more_blocks_than_a_grid_has() -> None:
    # In the checked build, because a block that begins anew must not run over one of its warps that lags behind.
    module = load(checked=True)
    p, q = histograms(np.random.default_rng(5), (1 << 12) + 3, 2, 3)
    expected = CPU.divergence_bootstrap(p, q, TOTAL_VARIATION, n_replicates=1, seed=1)
    assert_close(bootstrap(p, q, TOTAL_VARIATION, n_replicates=1, seed=1, module=module), expected)


@pytest.mark.parametrize(
    "bad",
    [
        [0, 0, 0],
        [-1, 3, 4],
        [5, 5, -20],
        [MOST_DRAWS, 1, 0],
        [1 << 62, 1 << 62, 1 << 62],
        [-(1 << 63), 1 << 62, (1 << 62) + 5],
    ],
)
def test_impossible_counts_give_no_number_and_harm_no_other_group(bad: list[int]) -> None:
    good = np.array([[4, 0, 3], [1, 2, 3], [7, 7, 7]])
    values, replicates = bootstrap(good, good[::-1].copy(), n_replicates=3)
    spoilt = good.copy()
    spoilt[1] = bad
    for pair in ((spoilt, good[::-1].copy()), (good, spoilt[::-1].copy())):
        new_values, new_replicates = bootstrap(*pair, n_replicates=3)
        assert np.isnan(new_values[1]).all()
        assert np.isnan(new_replicates[1]).all()
        assert_same_bits((new_values[[0, 2]], new_replicates[[0, 2]]), (values[[0, 2]], replicates[[0, 2]]))


@pytest.mark.parametrize(("n_bins", "n_replicates"), [(1, 3), (2, 33), (5, 2), (300, 2)])
def test_any_schedule_gives_the_same_and_touches_nothing_else(n_bins: int, n_replicates: int) -> None:
    module = load(checked=True)
    p, q = histograms(np.random.default_rng(6), 2, n_bins, 5)
    expected = bootstrap(p, q, n_replicates=n_replicates)
    for schedule in range(3):
        module.simt_seed(schedule)
        assert_same_bits(bootstrap(p, q, n_replicates=n_replicates, module=module), expected)
