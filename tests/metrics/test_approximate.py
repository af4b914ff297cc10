from __future__ import annotations

import functools
import itertools
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import comb

from egtmetrics import GenerativeMetricFrame
from egtmetrics.metrics.approximate import (
    ApproximatePRDCResult,
    _chance_of_at_most,
    _density,
    _Index,
    _most,
    _share,
    _use_one_openmp_thread,
    approximate_precision_recall_density_coverage,
)
from egtmetrics.metrics.prdc import precision_recall_density_coverage
from egtmetrics.ops import select_backend
from tests.strategies import invalid_features, lattice_pairs

faiss = pytest.importorskip("faiss")

Pair = tuple[NDArray[Any], NDArray[Any]]
TIES: tuple[Literal["exclude", "include"], ...] = ("exclude", "include")
NOTHING = dict.fromkeys(("precision", "recall", "density", "coverage"), 0.0)


def normal_pair(n: int, m: int, d: int, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), 0.8 * rng.normal(size=(m, d))


def distant_clusters(seed: int = 0) -> Pair:
    """Six clusters on integer grids, full of ties and duplicates, much farther apart than they are wide."""
    rng = np.random.default_rng(seed)

    def side(n: int) -> NDArray[np.float64]:
        centers = 1000 * np.eye(6, 3) - 1000 * np.eye(6, 3, -3)
        return centers[rng.integers(6, size=n)] + rng.integers(0, 4, size=(n, 3))

    return side(240), side(180)


def index_of(points: NDArray[Any], n_cells: int, n_probes: int, pool: ThreadPoolExecutor, k: int = 5) -> _Index:
    return _Index(select_backend("cpu", n_threads=1), points, n_cells, n_probes, k, 0, pool)


@given(lattice_pairs(min_rows=4), st.integers(1, 3), st.sampled_from(TIES), st.integers(1, 4))
def test_probing_every_cell_gives_the_exact_metric(
    pair: Pair, k: int, ties: Literal["exclude", "include"], n_cells: int
) -> None:
    exact = precision_recall_density_coverage(*pair, n_neighbors=k, ties=ties)
    result = approximate_precision_recall_density_coverage(
        *pair, n_neighbors=k, ties=ties, n_cells=n_cells, n_probes=n_cells
    )
    assert result.scores() == exact.scores()
    assert result.errors() == NOTHING
    assert (result.real_index, result.fake_index) == ("Flat", "Flat")
    assert (result.exact_radii, result.largest_radius_error) == (1.0, 0.0)


@given(
    lattice_pairs(min_rows=4),
    st.integers(1, 3),
    st.sampled_from(TIES),
    st.integers(2, 4),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_checking_every_row_gives_the_exact_metric_whatever_the_index_missed(
    pair: Pair, k: int, ties: Literal["exclude", "include"], n_cells: int, n_probes: int, seed: int
) -> None:
    """The check relies on radii that are never too small and on exact memberships, including ties."""
    exact = precision_recall_density_coverage(*pair, n_neighbors=k, ties=ties)
    result = approximate_precision_recall_density_coverage(
        *pair,
        n_neighbors=k,
        ties=ties,
        n_cells=n_cells,
        n_probes=n_probes,
        n_checked=10**6,
        random_state=seed,
    )
    assert result.scores() == exact.scores()
    assert result.errors() == NOTHING
    assert (result.n_real_checked, result.n_fake_checked) == (len(pair[0]), len(pair[1]))


@pytest.mark.parametrize("ties", TIES)
def test_distant_clusters_need_no_correction(ties: Literal["exclude", "include"]) -> None:
    """The two probed cells hold every possible neighbour of a row, so the index alone gives the exact scores."""
    real, fake = distant_clusters()
    exact = precision_recall_density_coverage(real, fake, ties=ties)
    options = {"ties": ties, "n_cells": 6, "n_probes": 2, "random_state": 0}
    few = approximate_precision_recall_density_coverage(real, fake, n_checked=2, **options)
    assert few.scores() == exact.scores()
    assert min(few.errors().values()) > 0.0  # two checked rows cannot show that
    many = approximate_precision_recall_density_coverage(real, fake, n_checked=150, **options)
    assert many.scores() == exact.scores()
    assert (many.exact_radii, many.largest_radius_error) == (1.0, 0.0)
    assert max(many.errors().values()) < 0.02


@pytest.mark.parametrize("shift", [0.0, 1e8])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e100])
def test_radii_are_never_too_small(scale: float, shift: float) -> None:
    kernels = select_backend("cpu")
    points = scale * (normal_pair(500, 1, 8)[0] + shift)
    points[7] = 1e25 * scale  # an outlier that the cells must tolerate
    points[100:120] = points[99]
    exact = kernels.kth_neighbor(points, n_neighbors=5)
    with ThreadPoolExecutor(2, initializer=_use_one_openmp_thread) as pool:
        poor, good = (index_of(points, 20, n_probes, pool).sq_radii() for n_probes in (1, 12))
        for k in (1, 5):
            single = index_of(points[:30], 30, 1, pool, k)  # one row per cell: no candidate, so all rows are searched
            assert np.array_equal(single.sq_radii(), kernels.kth_neighbor(points[:30], n_neighbors=k))
    assert (poor >= exact).all()
    assert (good >= exact).all()
    assert np.mean(good == exact) > 0.9
    assert np.mean(poor == exact) < 0.6


def test_a_radius_looks_among_what_was_found_for_the_rows_of_its_cell() -> None:
    """For every row the index finds the k + 1 nearest in its probed cells, itself included."""
    points, _ = normal_pair(300, 1, 6)
    with ThreadPoolExecutor(1, initializer=_use_one_openmp_thread) as pool:
        index = index_of(points, 12, 2, pool, k=3)
        found, probed = index.sq_radii(), index._probe(points)
    own = probed[:, 0]
    sq_distances = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    in_probed = (probed[:, :, None] == own).any(axis=1)
    nearest = np.argsort(np.where(in_probed, sq_distances, np.inf), axis=1)[:, :4]
    expected = np.empty(300)
    for cell in np.unique(own):
        rows = np.flatnonzero(own == cell)
        among = np.union1d(rows, nearest[rows])
        expected[rows] = np.sort(sq_distances[np.ix_(rows, among)], axis=1)[:, 3]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_pair_is_counted_if_its_cell_is_probed() -> None:
    """Over the probed pairs, all four counts equal those of the definition."""
    real, fake = normal_pair(300, 200, 3)
    radii = np.full(300, 0.5), np.full(200, 0.3)
    with ThreadPoolExecutor(1, initializer=_use_one_openmp_thread) as pool:
        index = index_of(real, 12, 3, pool)
        found = index.ball_counts(fake, *radii, closed=False)
        own, probed = index._probe(real)[:, 0], index._probe(fake)
    counted = (probed[None] == own[:, None, None]).any(axis=2)
    sq_distances = ((real[:, None] - fake[None]) ** 2).sum(axis=2)
    in_real, in_fake = (counted & (sq_distances < sq_radius) for sq_radius in (0.5, 0.3))
    assert np.array_equal(found.x_ball_sizes, in_real.sum(axis=1))
    assert np.array_equal(found.y_in_x_balls, in_real.sum(axis=0))
    assert np.array_equal(found.y_ball_sizes, in_fake.sum(axis=0))
    assert np.array_equal(found.x_in_y_balls, in_fake.sum(axis=1))
    assert 0.2 < counted.mean() < 0.35


def test_probabilities_and_limits_agree_with_scipy() -> None:
    for n, n_drawn, seen, n_kind in itertools.product((20, 3000, 10**7), (2, 15), (0, 1, 2), (0, 3, 18)):
        expected = stats.hypergeom.cdf(seen, n, n_kind, n_drawn)
        assert _chance_of_at_most(seen, n_drawn, n_kind, n) == pytest.approx(expected, rel=1e-6)
    for n, n_drawn, seen in [(50, 10, 0), (50, 10, 4), (50, 10, 10), (50, 50, 7), (2000, 100, 3)]:
        chances = stats.hypergeom.cdf(seen, n, np.arange(n + 1), n_drawn)
        assert _most(seen, n_drawn, n, 0.05) == np.flatnonzero(chances > 0.05).max()
    assert _most(0, 1000, 10**7, 0.05) / 10**7 == pytest.approx(-math.log(0.05) / 1000, rel=0.01)  # the rule of three


@pytest.mark.parametrize("level", [0.6, 0.9])
def test_error_of_a_share_holds_for_every_population(level: float) -> None:
    """Every population of 9 rows and every draw of 4: the probability of a miss is summed, not simulated."""
    n, n_drawn = 9, 4
    largest = 0.0
    for total in range(n + 1):
        for gained, lost in itertools.product(range(n - total + 1), range(total + 1)):
            truth, missed = (total + gained - lost) / n, 0.0
            for g, lo in itertools.product(range(min(gained, n_drawn) + 1), range(min(lost, n_drawn) + 1)):
                same = n_drawn - g - lo
                ways = comb(gained, g) * comb(lost, lo) * comb(n - gained - lost, same) if same >= 0 else 0.0
                if ways:
                    estimate, error = share_of(total, g, lo, gained, lost, n, n_drawn)(level)
                    missed += ways * (abs(estimate - truth) > error + 1e-12)
                    assert 0.0 <= estimate <= 1.0
            largest = max(largest, missed / comb(n, n_drawn))
    assert largest <= 1.0 - level
    assert largest > 0.0 or level > 0.6  # some draws do miss


def share_of(total: int, g: int, lo: int, gained: int, lost: int, n: int, n_drawn: int) -> Any:
    """``_share`` of a draw with ``g`` gained and ``lo`` lost rows; the rest of the draw are unchanged rows."""
    approximate = np.arange(n) < total  # rows lost come first, rows gained last
    exact = approximate.copy()
    exact[:lost], exact[n - gained :] = False, True
    kept = np.arange(lost, n - gained)[: n_drawn - g - lo]
    rows = np.concatenate([np.arange(lo), kept, np.arange(n - gained, n - gained + g)])
    assert len(rows) == n_drawn
    return lambda level: _share(approximate, rows, exact[rows], level)


def test_errors_hold_for_a_poor_index() -> None:
    """200 draws of 40 rows, one in five of which may miss: more than 69 misses have a probability of at most 1e-6.

    Only Student's interval for the density is not conservative, so it must miss sometimes. If the correction were
    missing or had the wrong sign, the mean differences would show it: their standard errors are below 0.006.
    """
    real, fake = normal_pair(200, 150, 6)
    exact = precision_recall_density_coverage(real, fake).scores()
    results = [
        approximate_precision_recall_density_coverage(
            real, fake, n_cells=10, n_probes=1, n_checked=40, level=0.8, random_state=seed, n_threads=1
        )
        for seed in range(200)
    ]
    differences = {name: np.array([result.scores()[name] - exact[name] for result in results]) for name in exact}
    misses = {name: np.sum(np.abs(differences[name]) > [result.errors()[name] for result in results]) for name in exact}
    assert stats.binom.isf(1e-6, 200, 0.2) == 69
    assert max(misses.values()) <= 69
    assert misses["density"] >= 10
    for name in ("recall", "density"):  # these are not near a bound to which estimates are clipped
        mean, error = differences[name].mean(), differences[name].std(ddof=1) / np.sqrt(200)
        assert error < 0.006
        assert abs(mean) < 4.9 * error  # false-alarm rate 1e-6


def test_no_more_rows_can_be_gained_than_there_are() -> None:
    """90 of 100 rows are in, and two of ten checked rows are gained: at most the ten other rows can be gained."""
    approximate = np.arange(100) < 90
    rows = np.arange(84, 94)
    gained, tail = 2, 0.1 / 4
    exact = np.arange(84, 94) < 92
    assert _most(gained, 10, 100, tail) > 10
    least_gained = 100 - _most(10 - gained, 10, 100, tail)
    expected = 100 - (90 + least_gained - _most(0, 10, 100, tail))
    assert _share(approximate, rows, exact, 0.9) == (1.0, expected / 100)
    assert _share(~approximate, rows, ~exact, 0.9) == (0.0, expected / 100)


def test_rows_that_were_not_drawn_may_differ_as_much_as_those_drawn() -> None:
    exact = np.zeros(100, dtype=np.int64)
    exact[3] = 7
    density, error = _density(np.zeros(1000, dtype=np.int64), np.arange(100), exact, 5, 0.9)
    assert density == pytest.approx(0.07 / 5)
    assert error == pytest.approx(7 * _most(0, 100, 1000, 0.05) / 1000 / 5)


def test_the_error_of_density_allows_for_rows_that_were_not_drawn() -> None:
    """Even if no checked row differs, one in thirty of the other rows may differ, by one count."""
    real, fake = distant_clusters()
    result = approximate_precision_recall_density_coverage(
        real, fake, n_cells=6, n_probes=2, n_checked=60, level=0.9, random_state=0
    )
    assert result.exact_radii == 1.0
    assert result.density_error == pytest.approx(_most(0, 60, 180, 0.05) / 180 / 5)
    assert result.density_error > 0.005


def test_threads_do_not_change_the_result_and_global_settings_are_kept() -> None:
    real, fake = normal_pair(9000, 5000, 12, seed=5)  # several blocks of rows
    before, state = faiss.omp_get_max_threads(), np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        faiss.omp_set_num_threads(2)
        results = [
            approximate_precision_recall_density_coverage(
                real, fake, n_cells=100, n_probes=4, n_checked=200, random_state=0, n_threads=n_threads
            )
            for n_threads in (1, 3)
        ]
        assert faiss.omp_get_max_threads() == 2
        with ThreadPoolExecutor(1, initializer=faiss.omp_set_num_threads, initargs=(3,)) as pool:
            pool.submit(_use_one_openmp_thread).result()
            assert pool.submit(faiss.omp_get_max_threads).result() == 1
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
    assert results[0] == results[1]
    assert results[0].exact_radii < 0.9
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_a_seed_repeats_the_result() -> None:
    real, fake = normal_pair(500, 400, 6)
    options = {"n_cells": 20, "n_probes": 1, "n_checked": 50}
    first, again, other = (
        approximate_precision_recall_density_coverage(real, fake, random_state=seed, **options) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_frame_keeps_the_errors_of_every_group() -> None:
    real, fake = normal_pair(800, 600, 5)
    real_groups, fake_groups = np.arange(800) % 2, np.arange(600) % 2
    metric = functools.partial(approximate_precision_recall_density_coverage, n_cells=20, n_probes=2, n_checked=100)
    frame = GenerativeMetricFrame(
        metrics={"prdc": metric},
        real=real,
        fake=fake,
        real_sensitive_features=real_groups,
        fake_sensitive_features=fake_groups,
        random_state=3,
    )
    assert list(frame.by_group) == ["prdc_precision", "prdc_recall", "prdc_density", "prdc_coverage"]
    alone = metric(real[real_groups == 1], fake[fake_groups == 1], random_state=3)
    result = frame.results[1]["prdc"]
    assert result == alone
    assert isinstance(result, ApproximatePRDCResult)
    assert frame.by_group.loc[1, "prdc_recall"] == result.recall
    stored = json.loads(json.dumps(frame.to_dict(), allow_nan=False))["results"]["by_group"]["1"]["prdc"]
    assert stored["recall_error"] == result.recall_error > 0.0
    assert (stored["real_index"], stored["level"], stored["n_real_checked"]) == ("IVF20,Flat", 0.95, 100)


def test_what_notebooks_show_names_the_error() -> None:
    result = approximate_precision_recall_density_coverage(
        *normal_pair(200, 200, 3), n_cells=10, n_probes=2, random_state=0
    )
    shown = result._repr_html_()
    assert "ApproximatePRDCResult: 200 real and 200 fake samples" in shown
    assert "Largest error at level 0.95: precision 0, recall 0, density 0, coverage 0; index IVF10,Flat" in shown


def test_default_number_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal_pair(1200, 500, 4)
    result = approximate_precision_recall_density_coverage(real, fake)
    assert (result.real_index, result.fake_index, result.errors()) == ("Flat", "Flat", NOTHING)
    monkeypatch.setattr("egtmetrics.metrics.approximate._EXACT_BELOW", 1000)
    result = approximate_precision_recall_density_coverage(real, fake, n_checked=100)
    assert (result.real_index, result.fake_index) == ("IVF139,Flat", "Flat")  # 4 sqrt(1200)
    swapped = approximate_precision_recall_density_coverage(fake, real, n_checked=100)
    assert (swapped.real_index, swapped.fake_index) == ("Flat", "IVF139,Flat")
    exact = precision_recall_density_coverage(fake, real)
    # The balls of the real rows are exact there and no pair is left out.
    assert (swapped.precision, swapped.density, swapped.coverage) == (exact.precision, exact.density, exact.coverage)


def test_other_kinds_of_features(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    real, fake = (x.astype(np.float32) for x in normal_pair(300, 200, 4))
    measure = functools.partial(
        approximate_precision_recall_density_coverage, n_cells=20, n_probes=2, n_checked=50, random_state=0
    )
    expected = measure(real, fake)
    np.save(tmp_path / "real.npy", real)
    mapped = np.load(tmp_path / "real.npy", mmap_mode="r")
    assert measure(mapped, torch.from_numpy(fake)) == expected
    assert measure(real, fake, backend="reference").scores() == expected.scores()


@pytest.mark.usefixtures("cuda_on_host")
def test_features_on_a_device() -> None:
    import torch

    real, fake = (x.astype(np.float32) for x in normal_pair(130, 90, 3))
    measure = functools.partial(
        approximate_precision_recall_density_coverage, n_cells=5, n_probes=2, n_checked=30, random_state=0
    )
    on_device = measure(torch.from_numpy(real), torch.from_numpy(fake), backend="cuda")
    assert on_device.backend == "cuda"
    assert on_device.scores() == measure(real, fake).scores()


def test_arguments_are_not_changed() -> None:
    pair = normal_pair(100, 90, 3)
    copies = [x.copy() for x in pair]
    approximate_precision_recall_density_coverage(*pair, n_cells=9, n_probes=2)
    assert all(np.array_equal(x, copy) for x, copy in zip(pair, copies, strict=True))


def test_equal_points_in_many_cells(capfd: pytest.CaptureFixture[str]) -> None:
    """k-means cannot separate the points. faiss would warn of that, and of too few rows per cell, on stderr."""
    real, fake = np.ones((30, 4)), np.ones((20, 4))
    for ties, precision in zip(TIES, (0.0, 1.0), strict=True):
        result = approximate_precision_recall_density_coverage(
            real, fake, n_cells=7, n_probes=2, ties=ties, n_checked=30, random_state=0
        )
        assert (result.precision, result.recall, result.coverage) == (precision,) * 3
    assert capfd.readouterr().err == ""


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = normal_pair(50, 40, 2)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'egtmetrics\[approximate\]', or pass n_cells=1"):
        approximate_precision_recall_density_coverage(*pair, n_cells=10, n_probes=2)
    exact = precision_recall_density_coverage(*pair)
    assert approximate_precision_recall_density_coverage(*pair, n_cells=1).scores() == exact.scores()


@settings(max_examples=40)
@given(bad=invalid_features(n_features=3))
def test_bad_features_are_named(bad: Any) -> None:
    good = np.zeros((12, 3))
    for pair, name in (((bad, good), "real"), ((good, bad), "fake")):
        with pytest.raises((ValueError, TypeError), match=name):
            approximate_precision_recall_density_coverage(*pair)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 20}, "real has 20 rows, but n_neighbors=20 needs at least 21"),
        ({"n_neighbors": 0}, "n_neighbors=0 is not an integer of at least 1"),
        ({"ties": "open"}, "ties='open' is unknown"),
        ({"n_cells": 0}, "n_cells=0 is not an integer of at least 1"),
        ({"n_cells": 16}, "n_cells=16, but fake has 15 rows; pass at most as many, or None"),
        ({"n_probes": 2.0}, "n_probes=2.0 is not an integer of at least 1"),
        ({"n_checked": 1}, "n_checked=1 is not an integer of at least 2"),
        ({"level": 1.0}, "level=1.0 is not a number above 0 and below 1"),
        ({"level": "0.9"}, "level='0.9' is not a number"),
        ({"random_state": -1}, "random_state=-1"),
        ({"n_threads": 0}, "n_threads=0, expected an integer from 1 to"),
        ({"backend": "gpu"}, "backend='gpu' is unknown"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        approximate_precision_recall_density_coverage(np.zeros((20, 2)), np.zeros((15, 2)), **options)


def test_the_error_of_density_uses_students_t() -> None:
    """Two rows checked of 1000, one of them off by 10: one degree of freedom."""
    exact = np.array([0, 10])
    _, error = _density(np.zeros(1000, dtype=np.int64), np.array([0, 1]), exact, 1, 0.95)
    of_mean = np.std(exact, ddof=1) * math.sqrt(1 / 2 - 1 / 1000)
    assert error == pytest.approx(stats.t.ppf(0.975, 1) * of_mean, rel=1e-12)
