"""TopP&R against the recorded top-pr package, a dense float64 oracle, closed forms and laws."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics._order import canonical_order
from egtmetrics.metrics import TopPREvaluation, TopPRResult, topp_precision_recall
from egtmetrics.metrics.topp_pr import _count_draws, _torch_normal
from egtmetrics.ops import select_backend
from egtmetrics.results import UnreliableScoreWarning
from tests._golden import GOLDEN_NAMES, load
from tests.strategies import similarities, tied_points

Array = NDArray[Any]

pytestmark = pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
"""Most sets here are as small as they can be."""


def gaussian(seed: int, n: int, d: int, shift: float = 0.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(shift, 1.0, size=(n, d))


def resamples(seed: int, n: int, m: int, n_bootstrap: int = 50) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(n, size=(n_bootstrap, n)), rng.integers(m, size=(n_bootstrap, m))


# --- the recorded package -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_given_projection_and_resamples_reproduce_the_package(name: str) -> None:
    golden = load(name)
    weights = golden.toppr["W"]
    result = topp_precision_recall(
        golden.real,
        golden.fake,
        compatibility="top-pr",
        projections=[weights] if weights.size else None,
        bootstrap_indices=(golden.toppr["idx_r"], golden.toppr["idx_g"]),
    )
    assert_equals_package(result, golden.expected["toppr_seed0"])


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_seed_reproduces_the_package(name: str) -> None:
    golden = load(name)
    result = topp_precision_recall(golden.real, golden.fake, compatibility="top-pr", random_state=0)
    assert (result.n_bootstrap, result.n_projections, result.compatibility) == (10, 1, "top-pr")
    assert_equals_package(result, golden.expected["toppr_seed0"])


def assert_equals_package(result: TopPRResult, expected: dict[str, Any]) -> None:
    (evaluation,) = result.per_projection
    assert result.precision == expected["fidelity"]
    assert result.recall == expected["diversity"]
    assert result.f1 == pytest.approx(expected["Top_F1"], rel=1e-14)
    assert (evaluation.n_real_kept, evaluation.n_fake_kept) == (expected["num_real"], expected["num_fake"])
    assert evaluation.real_bandwidth == pytest.approx(expected["h_r"], rel=1e-6)
    assert evaluation.fake_bandwidth == pytest.approx(expected["h_g"], rel=1e-6)
    assert evaluation.real_confidence_band == pytest.approx(expected["c_r_unnorm"], rel=1e-6)
    assert evaluation.fake_confidence_band == pytest.approx(expected["c_g_unnorm"], rel=1e-6)


@pytest.mark.parametrize("name", ["gauss_shift", "mix_drop", "duplicates"])
def test_ten_seeds_reproduce_the_package(name: str) -> None:
    golden = load(name)
    expected = golden.expected["toppr_10seeds"]
    results = [
        topp_precision_recall(golden.real, golden.fake, compatibility="top-pr", random_state=seed) for seed in range(10)
    ]
    assert [r.precision for r in results] == expected["fidelity"]["values"]
    assert [r.recall for r in results] == expected["diversity"]["values"]


def test_package_ignores_the_seed_above_32_features() -> None:
    golden = load("digits")
    first, second = (
        topp_precision_recall(golden.real, golden.fake, compatibility="top-pr", random_state=seed) for seed in (0, 1)
    )
    assert first == second


def test_reference_projection_is_the_recorded_one() -> None:
    weights = load("digits").toppr["W"]
    drawn = _torch_normal(np.random.RandomState(99), weights.shape) * math.sqrt(2.0 / (64 + 32))
    np.testing.assert_allclose(drawn, weights, atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 33), (32, 768)])
def test_torch_normal_equals_that_of_torch(shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    expected = torch.randn(*shape, generator=torch.Generator().manual_seed(5)).numpy()
    np.testing.assert_allclose(_torch_normal(np.random.RandomState(5), shape), expected, atol=2e-6)


def test_compatibility_touches_no_global_generator() -> None:
    before: Any = np.random.get_state()  # noqa: NPY002
    topp_precision_recall(gaussian(0, 200, 40), gaussian(1, 200, 40), compatibility="top-pr", random_state=3)
    after: Any = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(after[1], before[1])
    assert after[2:] == before[2:]


# --- a dense oracle -----------------------------------------------------------------------------------------------


def distances(a: Array, b: Array) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)))


def oracle(real: Array, fake: Array, indices: tuple[Array, Array], alpha: float) -> dict[str, float]:
    """The formulas of the docstring on full float64 matrices, with the symmetric bandwidth."""

    def kernel(distance: Array, bandwidth: float) -> Array:
        return np.where(distance <= bandwidth, np.cos(np.pi * distance / (2.0 * bandwidth)), 0.0)

    def bandwidth(points: Array) -> float:
        ascending = np.sort(distances(points, points), axis=1)  # column 0 is the point itself
        return float(np.median(ascending[:, 5 * points.shape[1]]))

    def band(points: Array, h: float, replicates: Array) -> tuple[Array, float]:
        matrix = kernel(distances(points, points), h)
        density = matrix.mean(axis=1)
        deviations = [np.abs(matrix[:, rows].mean(axis=1) - density).max() for rows in replicates]
        return density, float(np.quantile(deviations, 1.0 - alpha))

    h_real, h_fake = bandwidth(real), bandwidth(fake)
    (real_density, c_real), (fake_density, c_fake) = band(real, h_real, indices[0]), band(fake, h_fake, indices[1])
    in_real = kernel(distances(fake, real), h_real).mean(axis=1) > c_real
    in_fake = kernel(distances(real, fake), h_fake).mean(axis=1) > c_fake
    real_kept, fake_kept = real_density > c_real, fake_density > c_fake
    precision = (fake_kept & in_real).sum() / fake_kept.sum()
    recall = (real_kept & in_fake).sum() / real_kept.sum()
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2.0 * precision * recall / (precision + recall) if min(precision, recall) > 1e-4 else 0.0,
        "real_bandwidth": h_real,
        "fake_bandwidth": h_fake,
        "real_confidence_band": c_real,
        "fake_confidence_band": c_fake,
        "n_real_kept": real_kept.sum(),
        "n_fake_kept": fake_kept.sum(),
        "real_n_neighbors": 5 * real.shape[1],
        "fake_n_neighbors": 5 * real.shape[1],
    }


@pytest.mark.parametrize(
    ("n", "m", "d", "dtype"),
    [(250, 200, 2, np.float32), (200, 260, 5, np.float64), (180, 170, 32, np.float32), (60, 6, 1, np.float64)],
)
@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_agrees_with_the_oracle(n: int, m: int, d: int, dtype: Any, alpha: float) -> None:
    real, fake = gaussian(0, n, d).astype(dtype), gaussian(1, m, d, shift=0.3).astype(dtype)
    indices = resamples(2, n, m)
    result = topp_precision_recall(real, fake, alpha=alpha, bootstrap_indices=indices)
    expected = oracle(real.astype(np.float64), fake.astype(np.float64), indices, alpha)
    assert dataclasses.asdict(result.per_projection[0]) == pytest.approx(expected, rel=1e-5)
    assert (result.n_bootstrap, result.n_projections, result.precision_std) == (50, 1, None)


@pytest.mark.parametrize("d", [3, 50])
def test_projections_are_applied_and_averaged(d: int) -> None:
    real, fake = gaussian(0, 220, d).astype(np.float32), gaussian(1, 180, d, shift=0.2).astype(np.float32)
    indices = resamples(2, 220, 180)
    matrices = [gaussian(3, 2, d), gaussian(4, 7, d), gaussian(5, 1, d)]
    result = topp_precision_recall(real, fake, projections=matrices, bootstrap_indices=indices)
    expected = [oracle(real @ matrix.T, fake @ matrix.T, indices, 0.1) for matrix in matrices]
    assert result.n_projections == 3
    for evaluation, by_oracle in zip(result.per_projection, expected, strict=True):
        assert dataclasses.asdict(evaluation) == pytest.approx(by_oracle, rel=1e-5)
    for score in result.scores():
        values = [by_oracle[score] for by_oracle in expected]
        assert getattr(result, score) == pytest.approx(np.mean(values))
        assert getattr(result, f"{score}_std") == pytest.approx(np.std(values, ddof=1))


def test_bootstrap_indices_refer_to_the_rows_as_passed() -> None:
    """Permuting a set together with its indices changes nothing; permuting the set alone does."""
    real, fake = gaussian(0, 150, 2), gaussian(1, 150, 2)
    indices = resamples(2, 150, 150)
    order = np.random.default_rng(3).permutation(150)
    renamed = np.argsort(order)[indices[0]], indices[1]
    result = topp_precision_recall(real, fake, bootstrap_indices=indices)
    assert topp_precision_recall(real[order], fake, bootstrap_indices=renamed) == result
    assert topp_precision_recall(real[order], fake, bootstrap_indices=indices) != result


def test_random_band_has_the_bootstrap_distribution() -> None:
    """With B = 2000 each quantile level has an error of 0.0067; at 5 errors of their difference 1 in 10^6 fails."""
    points = gaussian(0, 120, 2)
    (random,) = topp_precision_recall(points, points + 5.0, n_bootstrap=2000, random_state=0).per_projection
    low, high = (
        topp_precision_recall(points, points, alpha=alpha, bootstrap_indices=resamples(1, 120, 120, 2000))
        .per_projection[0]
        .real_confidence_band
        for alpha in (0.1 + 0.047, 0.1 - 0.047)
    )
    assert low < random.real_confidence_band < high
    assert low < random.fake_confidence_band < high


# --- scenarios and closed forms -----------------------------------------------------------------------------------


def test_collapsed_generator_has_high_precision_and_low_recall() -> None:
    """This pins which argument is the generated set."""
    real = np.concatenate([gaussian(i, 100, 16) + mode for i, mode in enumerate(20.0 * np.eye(4, 16))])
    fake = gaussian(4, 400, 16) + 20.0 * np.eye(16)[0]
    result = topp_precision_recall(real, fake, random_state=0)
    assert result.precision > 0.95
    assert result.recall < 0.3


@pytest.mark.parametrize("compatibility", [None, "top-pr"])
@pytest.mark.parametrize("d", [1, 2, 3, 32])
def test_all_points_equal(d: int, compatibility: Any) -> None:
    points = np.full((170, d), 0.1, dtype=np.float32)
    same = topp_precision_recall(points, points, random_state=0, compatibility=compatibility)
    apart = topp_precision_recall(points, points + 1, random_state=0, compatibility=compatibility)
    assert same.scores() == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert same.per_projection[0].real_bandwidth == same.per_projection[0].real_confidence_band == 0.0
    assert apart.scores() == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 40, 768])
def test_half_of_the_points_coincide(d: int, dtype: Any) -> None:
    """Two atoms against one: h = 0 on both sides, so rounding in the projection would show."""
    first, second = gaussian(0, 2, d).astype(dtype)
    real = np.concatenate([np.tile(first, (201, 1)), np.tile(second, (201, 1))])
    fake = np.tile(first, (307, 1))
    result = topp_precision_recall(real, fake, random_state=0, n_projections=2, n_bootstrap=100)
    for evaluation in result.per_projection:
        assert evaluation.real_bandwidth == evaluation.fake_bandwidth == 0.0
        assert (evaluation.n_real_kept, evaluation.n_fake_kept) == (402, 307)
    assert result.scores() == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}


@pytest.mark.parametrize("d", [1, 2, 33])
def test_smallest_set(d: int) -> None:
    """n = k + 1: the k-th neighbour of every point is the farthest other point."""
    projected = min(d, 32)
    n = 5 * projected + 1
    real = gaussian(0, n, d)
    result = topp_precision_recall(real, real, random_state=0, n_projections=1, n_bootstrap=20)
    assert result.precision == result.recall == 1.0
    if d <= 32:
        assert result.per_projection[0].real_bandwidth == pytest.approx(np.median(distances(real, real).max(axis=1)))
    package = topp_precision_recall(real, gaussian(1, n, d), random_state=0, compatibility="top-pr")
    if d <= 32:
        assert package.per_projection[0].real_bandwidth == pytest.approx(distances(real, real)[0].max())
    for short, name in ((real[1:], "real"), (real[1:], "fake")):
        pair = (short, real) if name == "real" else (real, short)
        with pytest.raises(ValueError, match=rf"{name} has {n - 1} rows.*needs at least {n}"):
            topp_precision_recall(*pair, random_state=0)


@pytest.mark.parametrize("scale", [1e10, 1e-5])
@pytest.mark.parametrize("d", [3, 40])
def test_scale_does_not_matter(d: int, scale: float) -> None:
    real, fake = gaussian(0, 250, d).astype(np.float32), gaussian(1, 250, d, shift=0.3).astype(np.float32)
    options: dict[str, Any] = {"bootstrap_indices": resamples(2, 250, 250), "projections": [gaussian(3, 3, d)]}
    plain = topp_precision_recall(real, fake, **options)
    scaled = topp_precision_recall(real * np.float32(scale), fake * np.float32(scale), **options)
    assert_close(scaled, plain)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [3, 40])
def test_distance_from_the_origin_does_not_matter(d: int, dtype: Any) -> None:
    """Multiples of 1/16 near 1e6 are float32 numbers, so the data are shifted without rounding."""
    real, fake = (np.round(8 * gaussian(i, 250, d, shift=0.3 * i)).astype(dtype) / 8 for i in (0, 1))
    options: dict[str, Any] = {"bootstrap_indices": resamples(2, 250, 250), "projections": [gaussian(3, 3, d)]}
    plain = topp_precision_recall(real, fake, **options)
    assert_close(topp_precision_recall(real + dtype(1e6), fake + dtype(1e6), **options), plain)


def assert_close(result: TopPRResult, expected: TopPRResult) -> None:
    """Equal except for at most two points that rounding moved across a threshold."""
    for evaluation, other in zip(result.per_projection, expected.per_projection, strict=True):
        assert abs(evaluation.n_real_kept - other.n_real_kept) <= 2
        assert abs(evaluation.n_fake_kept - other.n_fake_kept) <= 2
        assert evaluation.precision == pytest.approx(other.precision, abs=4 / other.n_fake_kept)
        assert evaluation.recall == pytest.approx(other.recall, abs=4 / other.n_real_kept)
        assert evaluation.real_confidence_band == pytest.approx(other.real_confidence_band, rel=1e-4)


def test_the_smallest_set_scores_as_the_docstring_says() -> None:
    """Two samples of one law, of 41 and 400 points. The bounds are 3.8 standard errors away: by chance once in 7000."""
    results = [
        topp_precision_recall(gaussian(seed, 400, 8), gaussian(seed + 1000, 41, 8), random_state=seed, n_bootstrap=300)
        for seed in range(30)
    ]
    assert all(result.recall == 1.0 for result in results)
    assert np.mean([result.precision for result in results]) == pytest.approx(0.446, abs=0.055)
    with pytest.raises(ValueError, match="needs at least 41"):
        topp_precision_recall(gaussian(0, 400, 8), gaussian(1, 40, 8))


def test_undefined_scores_cause_a_warning() -> None:
    """Replicates that draw only one row raise the band of real above every density."""
    real, fake = gaussian(0, 60, 2), gaussian(1, 60, 2)
    indices = np.zeros((20, 60), dtype=int), resamples(2, 60, 60, 20)[1]
    with pytest.warns(RuntimeWarning, match=r"^recall is undefined .* of real \(60 rows\)") as caught:
        result = topp_precision_recall(real, fake, bootstrap_indices=indices)
    assert [warning.category for warning in caught] == [RuntimeWarning, UnreliableScoreWarning]
    assert result.per_projection[0].n_real_kept == 0
    assert math.isnan(result.recall)
    assert math.isnan(result.f1)
    assert result.precision == 0.0
    with pytest.warns(RuntimeWarning, match=r"^precision is undefined .* of fake \(60 rows\)"):
        assert math.isnan(topp_precision_recall(fake, real, bootstrap_indices=indices[::-1]).precision)


# --- defaults, randomness, memory ---------------------------------------------------------------------------------


def test_defaults() -> None:
    real, fake = gaussian(0, 170, 33), gaussian(1, 165, 33)
    result = topp_precision_recall(real, fake, random_state=0)
    assert (result.n_bootstrap, result.n_projections, result.alpha) == (1000, 10, 0.1)
    assert (result.n_real, result.n_fake, result.compatibility) == (170, 165, None)
    assert len({e.real_bandwidth for e in result.per_projection}) == 10
    assert result.precision == pytest.approx(np.mean([e.precision for e in result.per_projection]))
    assert topp_precision_recall(real, fake, random_state=0) == result
    assert topp_precision_recall(real, fake, random_state=1) != result
    assert all(isinstance(e, TopPREvaluation) for e in result.per_projection)


def test_without_projection_there_is_one_evaluation() -> None:
    result = topp_precision_recall(gaussian(0, 170, 32), gaussian(1, 165, 32), n_projections=7, random_state=0)
    assert (result.n_projections, result.precision_std, result.recall_std, result.f1_std) == (1, None, None, None)


def test_a_seed_gives_every_pair_the_same_projections() -> None:
    """The bandwidth of a set depends neither on the set that it is compared with nor on the bootstrap."""
    real = gaussian(0, 200, 50)
    first, second = (
        topp_precision_recall(real, gaussian(1, m, 50), random_state=0, n_bootstrap=b, n_projections=3).per_projection
        for m, b in ((170, 10), (240, 40))
    )
    assert [e.real_bandwidth for e in first] == [e.real_bandwidth for e in second]


def test_random_projection_has_the_stated_variance() -> None:
    """Two points at distance 1 in 64 dimensions, 20 projections: the squared norm of a column is chi-squared with 640
    degrees of freedom, times 2 / (64 + 32). At 5 standard deviations 1 in 10^6 fails."""
    real = np.zeros((170, 64))
    real[:80, 0] = 1.0
    result = topp_precision_recall(real, real, random_state=0, n_projections=20, n_bootstrap=1)
    lengths = np.array([e.real_bandwidth for e in result.per_projection])
    variance = (lengths**2).mean() / 32
    assert variance == pytest.approx(2 / 96, rel=5 * math.sqrt(2 / 640))


def test_generator_is_accepted_and_advanced() -> None:
    real, fake = gaussian(0, 100, 2), gaussian(1, 100, 2)
    for compatibility in (None, "top-pr"):
        rng = np.random.default_rng(0)
        first, second = (
            topp_precision_recall(real, fake, random_state=rng, compatibility=compatibility) for _ in range(2)
        )
        assert first != second
        again = topp_precision_recall(real, fake, random_state=np.random.default_rng(0), compatibility=compatibility)
        assert first == again


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_arguments_are_not_changed(kind: str) -> None:
    real, fake = gaussian(0, 100, 3), gaussian(1, 90, 3)
    real[0] = -0.0
    given_real: Any = real.copy()
    if kind == "torch":
        given_real = pytest.importorskip("torch").from_numpy(given_real)
    indices = resamples(2, 100, 90)
    kept = indices[0].copy()
    topp_precision_recall(given_real, fake, bootstrap_indices=indices)
    np.testing.assert_array_equal(np.asarray(given_real), real)
    np.testing.assert_array_equal(np.signbit(np.asarray(given_real)), np.signbit(real))
    np.testing.assert_array_equal(indices[0], kept)


def test_resampling_counts_need_little_memory_besides_the_counts() -> None:
    n, n_bootstrap = 20_000, 400
    blocks = (np.random.default_rng(i).integers(n, size=(20, n)) for i in range(20))
    tracemalloc.start()
    counts = _count_draws(blocks, n, n_bootstrap)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.dtype == np.uint16
    assert (counts.sum(axis=0, dtype=np.int64) == n).all()
    assert peak < counts.nbytes + 6 * 8 * 20 * n  # a few blocks of 20 replicates, not 400


def test_counts_beyond_uint16_are_refused() -> None:
    with pytest.raises(ValueError, match="bootstrap_indices draws one row 65536 times"):
        _count_draws([np.zeros((1, 65536), dtype=np.int64)], 65536, 1)


# --- laws ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(points=tied_points(), seed=st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore:.* is undefined:RuntimeWarning")
def test_a_set_and_its_permutation_score_one(points: Array, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(points))
    result = topp_precision_recall(points, points[order], random_state=seed, n_bootstrap=30)
    evaluation = result.per_projection[0]
    assume(evaluation.n_real_kept > 0)
    assert result.scores() == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert evaluation.real_confidence_band == evaluation.fake_confidence_band


@pytest.mark.parametrize(("d", "dtype"), [(3, np.float64), (32, np.float32), (45, np.float32), (45, np.float64)])
def test_a_set_with_repeated_points_and_its_permutation_score_one(d: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    points = gaussian(1, 150, d).astype(dtype)[rng.integers(150, size=400)]
    result = topp_precision_recall(points, rng.permutation(points), random_state=0, n_projections=3, n_bootstrap=50)
    assert result.scores() == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


@pytest.mark.parametrize(("d", "dtype"), [(1, np.float64), (4, np.float32), (45, np.float32), (45, np.float64)])
def test_row_order_does_not_matter(d: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    real = gaussian(1, 150, d).astype(dtype)[rng.integers(150, size=230)]
    fake = gaussian(2, 200, d, shift=0.2).astype(dtype)
    options: dict[str, Any] = {"k_rule": "sample-size", "random_state": 0, "n_bootstrap": 50, "n_projections": 2}
    result = topp_precision_recall(real, fake, **options)
    for shuffle_real, shuffle_fake in itertools.product([False, True], repeat=2):
        shuffled_real = rng.permutation(real) if shuffle_real else real
        shuffled_fake = rng.permutation(fake) if shuffle_fake else fake
        assert topp_precision_recall(shuffled_real, shuffled_fake, **options) == result


@pytest.mark.parametrize("m", [120, 90])
def test_both_sets_draw_the_counts_of_one_seed(m: int) -> None:
    sets = gaussian(0, 120, 3), gaussian(1, m, 3)
    real, fake = (points[canonical_order(points)] for points in sets)  # the draws number the rows in this order
    seed, indices = int(np.random.default_rng(5).integers(2**63)), []
    for points in (real, fake):
        counts = select_backend("reference").bootstrap_counts(n_rows=len(points), n_replicates=40, seed=seed)
        indices.append(np.stack([np.repeat(np.arange(len(points)), times) for times in counts.T]))
    given = topp_precision_recall(real, fake, bootstrap_indices=(indices[0], indices[1]))
    result = topp_precision_recall(real, fake, n_bootstrap=40, random_state=5)
    assert result.per_projection == given.per_projection


def test_negative_zero_is_zero() -> None:
    real, fake = gaussian(0, 100, 2), gaussian(1, 100, 2)
    real[:50, 0] = 0.0
    negative = real.copy()
    negative[:50:2, 0] = -0.0
    expected = topp_precision_recall(real, fake, random_state=0, n_bootstrap=50)
    assert topp_precision_recall(negative, fake, random_state=0, n_bootstrap=50) == expected


@settings(max_examples=20, deadline=None)
@given(real=tied_points(dimension=2), fake=tied_points(dimension=2), seed=st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore:.* is undefined:RuntimeWarning")
def test_swapping_the_sets_swaps_precision_and_recall(real: Array, fake: Array, seed: int) -> None:
    there = topp_precision_recall(real, fake, random_state=seed, n_bootstrap=30)
    back = topp_precision_recall(fake, real, random_state=seed, n_bootstrap=30)
    np.testing.assert_array_equal([there.precision, there.recall, there.f1], [back.recall, back.precision, back.f1])


@settings(max_examples=20, deadline=None)
@given(similarity=similarities(dimension=4), seed=st.integers(0, 2**32 - 1))
def test_similarities_change_nothing(similarity: Any, seed: int) -> None:
    real, fake = gaussian(seed, 150, 4), gaussian(seed + 1, 130, 4, shift=0.4)
    indices = resamples(seed, 150, 130, 20)
    plain = topp_precision_recall(real, fake, bootstrap_indices=indices)
    assert_close(topp_precision_recall(similarity(real), similarity(fake), bootstrap_indices=indices), plain)


# --- bad input ----------------------------------------------------------------------------------------------------

GOOD = gaussian(0, 40, 2)
INDICES = resamples(1, 40, 40, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"alpha=0.0 is not a number strictly between 0 and 1"),
        ({"alpha": 1.0}, r"alpha=1.0"),
        ({"alpha": math.nan}, r"alpha=nan"),
        ({"alpha": "0.1"}, r"alpha='0.1'"),
        ({"n_bootstrap": 0}, r"n_bootstrap=0"),
        ({"n_bootstrap": 10.5}, r"n_bootstrap=10.5"),
        ({"n_projections": 0}, r"n_projections=0"),
        ({"compatibility": "toppr"}, r"compatibility='toppr' is unknown; pass 'top-pr' or None"),
        ({"random_state": -1}, r"random_state=-1"),
        ({"random_state": 2**32, "compatibility": "top-pr"}, r"random_state=4294967296 is too large"),
        ({"projections": []}, r"projections is empty"),
        ({"projections": np.eye(2)}, r"projections\[0\] has shape \(2,\), expected \(d', 2\)"),
        ({"projections": [np.eye(2), np.ones((1, 3))]}, r"projections\[1\] has shape \(1, 3\), expected \(d', 2\)"),
        ({"projections": [np.ones((0, 2))]}, r"projections\[0\] has shape \(0, 2\)"),
        ({"projections": [np.full((1, 2), np.inf)]}, r"projections\[0\] holds NaN or infinity"),
        ({"projections": [np.full((1, 2), 1e200)]}, r"real after projection holds a number of size .* overflow"),
        ({"bootstrap_indices": INDICES[0]}, r"bootstrap_indices must be a pair"),
        ({"bootstrap_indices": (INDICES[0],)}, r"bootstrap_indices must be a pair"),
        ({"bootstrap_indices": (INDICES[0], INDICES[1][:, :9])}, r"bootstrap_indices\[1\] has shape \(3, 9\)"),
        ({"bootstrap_indices": (INDICES[0] * 1.0, INDICES[1])}, r"bootstrap_indices\[0\] .* dtype float64"),
        ({"bootstrap_indices": (INDICES[0], INDICES[1] + 40)}, r"bootstrap_indices\[1\] reaches .* expected 0 to 39"),
        ({"bootstrap_indices": (INDICES[0] - 40, INDICES[1])}, r"bootstrap_indices\[0\] reaches from -"),
        ({"bootstrap_indices": (INDICES[0], INDICES[1][:2])}, r"3 replicates of real and 2 of fake"),
        ({"backend": "gpu"}, r"backend='gpu' is unknown"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topp_precision_recall(GOOD, GOOD, **options)


def test_sets_with_different_numbers_of_features_are_refused() -> None:
    with pytest.raises(ValueError, match="real has 2 features and fake has 3"):
        topp_precision_recall(GOOD, gaussian(0, 40, 3))


def test_a_column_that_hides_all_others_is_refused() -> None:
    """1e20 in a column of every row leaves no digit for the others; 2^30 leaves enough."""
    real, fake = gaussian(0, 200, 40), gaussian(1, 200, 40)
    apart = fake + 3.0
    for points in (real, fake, apart):
        points[:, 0] = 2.0**30
    expected = topp_precision_recall(real[:, 1:], apart[:, 1:], random_state=0, n_bootstrap=50)
    assert max(expected.precision, expected.recall) < 0.3
    found = topp_precision_recall(real, apart, random_state=0, n_bootstrap=50)
    assert max(found.precision, found.recall) < 0.3
    for points in (real, fake):
        points[:, 0] = 1e20
    with pytest.raises(ValueError, match=r"real lies so far from zero that a projection .* subtract the mean"):
        topp_precision_recall(real, fake, random_state=0, n_bootstrap=50)
    same = np.tile(gaussian(2, 1, 40), (200, 1))
    assert topp_precision_recall(same, same, random_state=0, n_bootstrap=50).precision == 1.0
