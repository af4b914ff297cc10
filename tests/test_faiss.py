"""On which device faiss searches. No GPU is needed: copies on the host act as the copies on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from egtmetrics._faiss import Gpu, find_gpu, on_gpu
from egtmetrics.divergences import mauve, precision_recall_distributions, quantize
from egtmetrics.metrics import approximate_precision_recall_density_coverage

faiss = pytest.importorskip("faiss")


def test_only_features_on_a_device_that_faiss_sees_are_searched_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    for n_gpus, device, largest_k, number in (
        (2, "cuda:1", 2048, 1),
        (2, "cuda", 1, 0),
        (2, "cuda:1", 2049, None),
        (2, "cpu", 1, None),
        (2, None, 1, None),
        (0, "cuda:0", 1, None),
    ):
        monkeypatch.setattr(faiss, "get_num_gpus", lambda n_gpus=n_gpus: n_gpus)
        gpu = find_gpu(device, largest_k=largest_k)
        assert (None if gpu is None else gpu.number) == number


def test_without_a_gpu_the_index_itself_is_searched() -> None:
    index = faiss.IndexFlatL2(2)
    assert on_gpu(index, None) is index


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Make every index "on a GPU" a copy on the host, and empty the original, so only the copy can be searched."""
    copies: list[Any] = []

    def move(resources: Any, number: int, index: Any) -> Any:
        assert (resources, number) == ("resources", 3)
        copies.append(faiss.clone_index(index))
        index.reset()
        return copies[-1]

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", move, raising=False)
    for module in ("egtmetrics.metrics.approximate", "egtmetrics.divergences.codebook"):
        monkeypatch.setattr(f"{module}.find_gpu", lambda device, largest_k: Gpu(3, "resources"))
    return copies


def test_approximate_mode_trains_and_searches_copies(request: pytest.FixtureRequest) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(9000, 4)), 0.8 * rng.normal(size=(600, 4))
    options: dict[str, Any] = {"n_cells": 30, "n_probes": 3, "n_checked": 100, "random_state": 0}
    on_host = approximate_precision_recall_density_coverage(real, fake, **options)
    copies = request.getfixturevalue("moved")
    assert approximate_precision_recall_density_coverage(real, fake, **options) == on_host
    assert on_host.exact_radii < 1.0
    # For each set: the index of the clustering, the centres, and all rows in their cells.
    assert sorted(index.ntotal for index in copies) == [30, 30, 30, 30, 600, 9000]


def test_clustering_searches_copies(request: pytest.FixtureRequest) -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(300, 3)), rng.normal(size=(200, 3)) + 0.3
    on_host = quantize(real, fake, n_clusters=9, kmeans="faiss", random_state=0)
    scores = mauve(real, fake, kmeans="faiss", n_clusterings=2, random_state=0)
    assert (on_host.backend, scores.backend) == ("numpy", "numpy")
    copies = request.getfixturevalue("moved")
    moved = quantize(real, fake, n_clusters=9, kmeans="faiss", random_state=0)
    np.testing.assert_array_equal(moved.centers, on_host.centers)
    np.testing.assert_array_equal(moved.real_codes, on_host.real_codes)
    assert moved.backend == "cuda"
    assert [index.ntotal for index in copies] == [9]
    again = mauve(real, fake, kmeans="faiss", n_clusterings=2, random_state=0)
    assert (again.scores(), again.backend) == (scores.scores(), "cuda")
    assert precision_recall_distributions(real, fake, n_clusterings=1, random_state=0).backend == "numpy"
