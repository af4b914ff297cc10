"""Scores of single samples: their sums are the scores, and each is what its definition says, ties included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from egtmetrics import frechet_distance, precision_recall_density_coverage
from egtmetrics.metrics import sample_scores
from tests.strategies import tied_points


def by_definition(real: NDArray[Any], fake: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Realism and rarity from all distances."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    own = np.sqrt(((real[:, None] - real) ** 2).sum(axis=2))
    np.fill_diagonal(own, np.inf)
    radii = np.sort(own, axis=1)[:, k - 1]
    distances = np.sqrt(((fake[:, None] - real) ** 2).sum(axis=2))
    small = radii <= np.median(radii)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(distances == 0.0, np.inf, radii / distances)[:, small]
    holds = distances < radii
    rarity = np.where(holds, radii, np.inf).min(axis=1)
    return ratios.max(axis=1), np.where(np.isinf(rarity), np.nan, rarity)


@given(tied_points(dimension=2), tied_points(dimension=2))
def test_sums_are_the_scores_and_ties_count(real: NDArray[Any], fake: NDArray[Any]) -> None:
    found = sample_scores(real, fake, n_neighbors=2, n_threads=1)
    scores = precision_recall_density_coverage(real, fake, n_neighbors=2, n_threads=1).scores()
    assert found.scores() == pytest.approx(scores, rel=1e-14)
    realism, rarity = by_definition(real, fake, 2)
    np.testing.assert_allclose(found.fake["rarity"], rarity, rtol=1e-12)
    np.testing.assert_allclose(found.fake["realism"], realism, rtol=1e-12)


def test_realism_and_rarity_of_many_features_far_from_zero() -> None:
    """The product loses digits there; what is returned does not."""
    rng = np.random.default_rng(0)
    real, fake = (rng.normal(size=(300, 40)) + 1e4 for _ in range(2))
    fake[:3] = real[:3]
    found = sample_scores(real, fake, n_neighbors=3)
    realism, rarity = by_definition(real, fake, 3)
    np.testing.assert_allclose(found.fake["realism"], realism, rtol=1e-12)
    np.testing.assert_allclose(found.fake["rarity"], rarity, rtol=1e-12)
    copies = np.isinf(found.fake["realism"])
    assert set(np.flatnonzero(copies)) <= {0, 1, 2}
    assert copies.any()


def test_influences_are_what_the_distance_falls_by() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(800, 3)), rng.normal(size=(800, 3)) * 1.3 + 0.4
    found = sample_scores(real, fake)
    whole = frechet_distance(real, fake).fid
    for influences, left_out in (
        (found.real["fid_influence"], lambda i: frechet_distance(np.delete(real, i, axis=0), fake).fid),
        (found.fake["fid_influence"], lambda i: frechet_distance(real, np.delete(fake, i, axis=0)).fid),
    ):
        assert influences.sum() == pytest.approx(0.0, abs=1e-9 * np.abs(influences).sum())
        rows = range(0, 800, 16)
        falls = np.array([whole - left_out(i) for i in rows])
        own = influences.to_numpy()[rows]
        # The second order, and the ddof of a covariance, are of the size of the influence over the number of rows.
        np.testing.assert_allclose(own, falls, atol=0.03 * np.abs(falls).max())
        assert np.corrcoef(own, falls)[0, 1] > 0.999
