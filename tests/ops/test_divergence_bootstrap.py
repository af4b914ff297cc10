"""Batched f-divergences: the values; redrawn histograms are the same on every backend and have the right law."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from egtmetrics.ops import Divergences, select_backend
from egtmetrics.ops._multinomial import multinomial_bootstrap, philox

REFERENCE = select_backend("reference")
CPU = select_backend("cpu")

ALL = Divergences(
    codes=np.array([*range(9), 9, 9, 9, 10, 10, 11, 11], dtype=np.int32),
    parameters=np.array([0.0] * 9 + [0.5, 2.0, -1.0, 0.5, 2.0, 0.3, 3.0]),
)


def test_philox_known_answers() -> None:
    # The known-answer vectors that accompany the paper (Random123, kat_vectors: philox4x32, 10 rounds).
    zeros = philox(np.zeros((4, 1), dtype=np.uint64), 0)[:, 0]
    assert [f"{word:08x}" for word in zeros] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = philox(np.full((4, 1), 0xFFFFFFFF, dtype=np.uint64), 0xFFFFFFFFFFFFFFFF)[:, 0]
    assert [f"{word:08x}" for word in ones] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]
    counter = np.array([[0x243F6A88], [0x85A308D3], [0x13198A2E], [0x03707344]], dtype=np.uint64)
    digits_of_pi = philox(counter, 0x299F31D0A4093822)[:, 0]
    assert [f"{word:08x}" for word in digits_of_pi] == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


def histograms(rng: np.random.Generator, n_groups: int, n_bins: int, scale: int) -> tuple[NDArray[Any], NDArray[Any]]:
    p, q = (rng.integers(0, scale, size=(n_groups, n_bins)) for _ in range(2))
    p[:, 0] += 1
    q[:, -1] += 1
    return p, q


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    n_groups=st.integers(1, 4),
    n_bins=st.integers(1, 13),
    scale=st.sampled_from([1, 3, 40, 500]),
    smoothing=st.sampled_from([0.0, 0.5]),
)
def test_kernel_equals_reference(seed: int, n_groups: int, n_bins: int, scale: int, smoothing: float) -> None:
    p, q = histograms(np.random.default_rng(seed), n_groups, n_bins, scale)
    arguments: dict[str, Any] = {"smoothing": smoothing, "n_replicates": 5, "seed": seed}
    values, replicates = CPU.divergence_bootstrap(p, q, ALL, **arguments)
    expected, expected_replicates = REFERENCE.divergence_bootstrap(p, q, ALL, **arguments)
    np.testing.assert_allclose(values, expected, rtol=1e-11, atol=1e-13)
    # Equal draws, or the values would be far apart: a histogram is a few counts.
    np.testing.assert_allclose(replicates, expected_replicates, rtol=1e-11, atol=1e-13)
    assert not np.isnan(replicates).any()


def test_same_bits_for_any_thread_count() -> None:
    p, q = histograms(np.random.default_rng(0), 40, 30, 20)
    one = select_backend("cpu", n_threads=1).divergence_bootstrap(p, q, ALL, n_replicates=50, seed=3)
    many = select_backend("cpu", n_threads=5).divergence_bootstrap(p, q, ALL, n_replicates=50, seed=3)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_streams_differ_by_seed_group_replicate_and_side() -> None:
    counts = np.full(10, 100)
    draws = [
        multinomial_bootstrap(counts, 3, group=group, side=side, seed=seed)
        for group, side, seed in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1 << 40)]
    ]
    rows = np.concatenate(draws)
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("counts", [[1, 1], [3, 5, 0, 2], [1, 0, 0, 7, 1, 1, 0, 13], [1000, 1, 333], [0, 40, 0]])
def test_draws_are_multinomial(counts: list[int]) -> None:
    """Chi-squared test of every bin's binomial law and of the covariance; false-alarm rate 1e-6 a bin."""
    histogram = np.array(counts)
    n, n_replicates = int(histogram.sum()), 4000
    drawn = multinomial_bootstrap(histogram, n_replicates, group=2, side=0, seed=7)
    assert (drawn.sum(axis=1) == n).all()
    p = histogram / n
    for k, chance in enumerate(p):
        if chance in (0.0, 1.0):
            assert (drawn[:, k] == n * chance).all()
            continue
        law = stats.binom(n, chance)
        # Cells of the law with at least about 100 expected draws each.
        edges = np.unique(law.ppf(np.linspace(0, 1, 20)[1:-1]))
        expected = n_replicates * np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]]))
        observed = np.bincount(np.searchsorted(edges, drawn[:, k]), minlength=len(edges) + 1)
        kept = expected > 5
        statistic = ((observed - expected)[kept] ** 2 / expected[kept]).sum()
        assert stats.chi2.sf(statistic, max(1, kept.sum() - 1)) > 1e-6
    # Standard error of a sample covariance: bounded by the product of the standard deviations over sqrt(replicates).
    deviation = np.sqrt(n * p * (1 - p))
    error = np.abs(np.cov(drawn.T, bias=True) - n * (np.diag(p) - np.outer(p, p)))
    assert (error <= 6 * np.sqrt(2) * np.outer(deviation, deviation) / math.sqrt(n_replicates) + 1e-9).all()


@pytest.mark.parametrize(
    "change",
    [
        {"p_counts": np.array([[0, 0]])},
        {"p_counts": np.array([[-1, 3]])},
        {"q_counts": np.array([[1, 2, 3]])},
        {"divergences": Divergences(codes=np.array([12], dtype=np.int32), parameters=np.array([0.0]))},
        {"divergences": Divergences(codes=np.array([0, 1], dtype=np.int32), parameters=np.array([0.0]))},
        {"n_replicates": -1},
    ],
)
def test_binding_refuses_what_it_cannot_compute(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"p_counts": np.array([[1, 2]]), "q_counts": np.array([[2, 1]]), "divergences": ALL}
    CPU.divergence_bootstrap(**good)
    with pytest.raises(ValueError, match=r"\w"):
        CPU.divergence_bootstrap(**(good | change))
