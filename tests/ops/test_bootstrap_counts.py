"""Bootstrap counts: every backend draws the same, and what it draws is uniform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from egtmetrics.ops import select_backend
from egtmetrics.ops._multinomial import philox
from egtmetrics.ops._native import CpuBackend, native_module

REFERENCE = select_backend("reference")
CPU = select_backend("cpu", n_threads=1)


def counted_one_by_one(n_rows: int, n_replicates: int, seed: int) -> NDArray[np.int64]:
    """As csrc/include/egt/bootstrap.hpp describes it, in Python's integers."""
    counts = np.zeros((n_rows, n_replicates), dtype=np.int64)
    for b in range(n_replicates):
        for draw in range(n_rows):
            words = [int(word) for word in philox(np.array([[draw // 2], [b], [0], [0]], dtype=np.uint64), seed)[:, 0]]
            low, high = words[2 * (draw % 2) :][:2]
            counts[(low + (high << 32)) * n_rows >> 64, b] += 1
    return counts


@settings(max_examples=15, deadline=None)
@given(n_rows=st.integers(1, 40), n_replicates=st.integers(0, 3), seed=st.integers(0, 2**64 - 1))
def test_backends_draw_what_the_header_describes(n_rows: int, n_replicates: int, seed: int) -> None:
    expected = counted_one_by_one(n_rows, n_replicates, seed)
    for backend in (CPU, REFERENCE):
        counts = backend.bootstrap_counts(n_rows=n_rows, n_replicates=n_replicates, seed=seed)
        assert counts.dtype == np.uint16
        np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize(("n_rows", "n_replicates"), [(1, 65), (2, 33), (999, 40), (1000, 31), (70_001, 3)])
def test_kernel_equals_reference(n_rows: int, n_replicates: int) -> None:
    arguments = {"n_rows": n_rows, "n_replicates": n_replicates, "seed": 2**63 + 11}
    counts = CPU.bootstrap_counts(**arguments)
    np.testing.assert_array_equal(counts, REFERENCE.bootstrap_counts(**arguments))
    np.testing.assert_array_equal(counts.sum(axis=0, dtype=np.int64), n_rows)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_replicate_is_the_same_for_any_threads_and_among_any_others(backend: Any) -> None:
    one = select_backend(backend, n_threads=1).bootstrap_counts(n_rows=300, n_replicates=200, seed=3)
    for n_threads, n_replicates in ((1, 1), (1, 37), (3, 200), (7, 129)):
        others = select_backend(backend, n_threads=n_threads)
        counts = others.bootstrap_counts(n_rows=300, n_replicates=n_replicates, seed=3)
        np.testing.assert_array_equal(counts, one[:, :n_replicates])


def test_replicates_and_seeds_draw_differently() -> None:
    seeds = (0, 1, 1 << 40)
    columns = np.concatenate([CPU.bootstrap_counts(n_rows=50, n_replicates=70, seed=seed) for seed in seeds], axis=1)
    assert len(np.unique(columns, axis=1).T) == 70 * len(seeds)


@pytest.mark.parametrize("n_rows", [2, 3, 1000, 65_537])
def test_rows_are_equally_likely(n_rows: int) -> None:
    """Chi-squared test of all draws of many replicates; the false-alarm rate is 1e-6 for each n."""
    n_replicates = 2_000_000 // n_rows
    totals = CPU.bootstrap_counts(n_rows=n_rows, n_replicates=n_replicates, seed=20).sum(axis=1, dtype=np.int64)
    statistic = ((totals - n_replicates) ** 2 / n_replicates).sum()
    assert stats.chi2.sf(statistic, n_rows - 1) > 1e-6


def test_counts_of_a_row_are_binomial() -> None:
    """Chi-squared test of the counts of some rows, and of the covariance of all; false-alarm rate 1e-6 each."""
    n, n_replicates = 30, 40_000
    counts = CPU.bootstrap_counts(n_rows=n, n_replicates=n_replicates, seed=21).astype(float)
    law = stats.binom(n, 1 / n)
    cells = np.array([law.pmf(0), law.pmf(1), law.pmf(2), law.pmf(3), law.sf(3)])
    for row in (0, 13, 29):
        observed = np.bincount(np.minimum(counts[row].astype(int), 4), minlength=5)
        assert stats.chisquare(observed, n_replicates * cells).pvalue > 1e-6
    # Two rows, also those that one block of random words decides, go together as the multinomial law says.
    error = np.abs(np.cov(counts, bias=True) - (np.eye(n) - 1 / n))
    assert error.max() < 7 * np.sqrt(2 / n_replicates)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_rows": 0}, "^n_rows=0, expected 1 to 2147483647"),
        ({"n_rows": -1}, "^n_rows=-1, expected 1 to"),
        ({"n_rows": 2**31}, "^n_rows=2147483648, expected 1 to"),
        ({"n_replicates": -1}, "^n_replicates=-1, expected 0 to 4294967295"),
        ({"n_replicates": 2**32}, "^n_replicates=4294967296, expected 0 to"),
        ({"seed": -1}, "^seed is -1, expected an integer from 0 to"),
        ({"seed": 2**64}, "^seed is 18446744073709551616, expected an integer from 0 to"),
    ],
)
def test_binding_says_what_does_not_fit(changed: dict[str, int], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        CpuBackend(native_module(), 1).bootstrap_counts(**({"n_rows": 5, "n_replicates": 2, "seed": 1} | changed))
