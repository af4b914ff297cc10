"""The CUDA bootstrap counts, run on the host: the same integers as every backend draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics.ops import select_backend
from egtmetrics.ops._device import CudaBackend, DeviceKernels
from tests.simt.build import load

CPU = select_backend("cpu")
ROWS_OF_BLOCK = 12288


def counts_of(n_rows: int, n_replicates: int, seed: int, module: Any = None) -> NDArray[np.uint16]:
    counts = np.full((n_rows, n_replicates), 7777, dtype=np.uint16)  # whatever is left of it was forgotten
    (load() if module is None else module).bootstrap_counts(n_rows, n_replicates, seed, counts.ctypes.data, 0, 0)
    return counts


@settings(max_examples=20)
@given(n_rows=st.integers(1, 1200), n_replicates=st.integers(0, 4), seed=st.integers(0, 2**64 - 1))
def test_equals_the_cpu(n_rows: int, n_replicates: int, seed: int) -> None:
    expected = CPU.bootstrap_counts(n_rows=n_rows, n_replicates=n_replicates, seed=seed)
    np.testing.assert_array_equal(counts_of(n_rows, n_replicates, seed), expected)


@pytest.mark.parametrize("n_rows", [ROWS_OF_BLOCK - 1, ROWS_OF_BLOCK, ROWS_OF_BLOCK + 1, 3 * ROWS_OF_BLOCK + 5])
def test_edges_of_blocks(n_rows: int) -> None:
    expected = CPU.bootstrap_counts(n_rows=n_rows, n_replicates=2, seed=5)
    np.testing.assert_array_equal(counts_of(n_rows, 2, 5), expected)


def test_more_blocks_than_a_grid_has() -> None:
    n_replicates = (1 << 14) + 3
    expected = CPU.bootstrap_counts(n_rows=2, n_replicates=n_replicates, seed=6)
    np.testing.assert_array_equal(counts_of(2, n_replicates, 6), expected)


@pytest.mark.parametrize(("n_rows", "n_replicates"), [(1, 2), (700, 2), (ROWS_OF_BLOCK + 3, 1)])
def test_any_schedule_gives_the_same_and_touches_nothing_else(n_rows: int, n_replicates: int) -> None:
    module = load(checked=True)
    expected = CPU.bootstrap_counts(n_rows=n_rows, n_replicates=n_replicates, seed=7)
    for schedule in range(3):
        module.simt_seed(schedule)
        np.testing.assert_array_equal(counts_of(n_rows, n_replicates, 7, module), expected)


def test_counts_stay_on_the_device_for_the_band() -> None:
    torch = pytest.importorskip("torch")
    backend = CudaBackend(DeviceKernels(load, "cpu"), "cpu")
    counts = backend.bootstrap_counts(n_rows=90, n_replicates=5, seed=8)
    expected = CPU.bootstrap_counts(n_rows=90, n_replicates=5, seed=8)
    assert isinstance(counts, torch.Tensor)
    np.testing.assert_array_equal(counts.numpy().view(np.uint16), expected)
    x = np.random.default_rng(0).normal(size=(90, 3))
    ours = backend.kernel_density_band(torch.from_numpy(x), counts, bandwidth=1.0)
    for part, wanted in zip(ours, CPU.kernel_density_band(x, expected, bandwidth=1.0), strict=True):
        assert isinstance(part, np.ndarray)
        np.testing.assert_allclose(part, wanted, rtol=2e-5, atol=4e-7)
