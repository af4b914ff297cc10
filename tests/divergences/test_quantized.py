from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import xlogy

from egtmetrics.divergences import (
    FRONTIER_INTEGRAL,
    DivergenceEstimateWarning,
    FGenerator,
    f_divergence,
    frontier_integral,
    get_generator,
    mauve,
    precision_recall_distributions,
    quantize,
    quantized_f_divergence,
    user_generator,
)
from egtmetrics.divergences.frontiers import frontier_area
from egtmetrics.groups import GenerativeMetricFrame
from tests import _golden
from tests.divergences._generators import GENERATORS
from tests.strategies import SiteSamples, lattice_pairs, site_samples

METRICS: dict[str, Callable[..., Any]] = {
    "mauve": functools.partial(mauve, n_clusterings=2),
    "frontier_integral": functools.partial(frontier_integral, n_clusterings=2),
    "prd": functools.partial(precision_recall_distributions, n_clusters=3, n_clusterings=2),
}


def kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    return float((xlogy(p, p) - xlogy(p, q)).sum())


def area_oracle(p: NDArray[np.float64], q: NDArray[np.float64], scaling: float = 5.0) -> float:
    """The mean of the two trapezoid areas, from points sorted along the curve."""
    points = [(1.0, 0.0)]
    for w in np.linspace(1e-6, 1.0 - 1e-6, 25):
        r = w * p + (1.0 - w) * q
        points.append((math.exp(-scaling * kl(q, r)), math.exp(-scaling * kl(p, r))))
    x, y = np.array([*points, (0.0, 1.0)]).T
    return 0.5 * (-np.trapezoid(y, x) + np.trapezoid(x, y))


def integral_oracle(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    total = 0.0
    for a, b in zip(p.tolist(), q.tolist(), strict=True):
        if a != b:
            total += (a + b) / 4.0
            if a > 0.0 and b > 0.0:
                total -= a * b * (math.log(a) - math.log(b)) / (2.0 * (a - b))
    return 2.0 * total


def sides(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The recorded histograms as counts."""
    golden = _golden.load(name)
    counts = golden.mauve["p_hist"] * len(golden.real), golden.mauve["q_hist"] * len(golden.fake)
    assert all(np.allclose(c, np.round(c)) for c in counts)
    return counts


@pytest.mark.parametrize("name", _golden.GOLDEN_NAMES)
def test_scores_of_the_recorded_histograms(name: str) -> None:
    counts = sides(name)
    p, q = (c / c.sum() for c in counts)
    p_star, q_star = ((c + 0.5) / (c + 0.5).sum() for c in counts)
    expected = _golden.load(name).expected["mauve"]["seed25"]
    assert frontier_area(p, q, 5.0) == pytest.approx(expected["mauve"], abs=1e-12)
    assert frontier_area(p_star, q_star, 5.0) == pytest.approx(expected["mauve_star"], abs=1e-12)
    assert f_divergence(p, q, f=FRONTIER_INTEGRAL) == pytest.approx(expected["fi"], abs=1e-12)
    assert f_divergence(p_star, q_star, f=FRONTIER_INTEGRAL) == pytest.approx(expected["fi_star"], abs=1e-12)


@pytest.mark.parametrize("name", _golden.GOLDEN_NAMES)
def test_mauve_lies_within_the_seed_spread_of_the_reference(name: str) -> None:
    """Welch's test of the mean over 5 seeds each at |t| > 5: false-alarm rate under 1e-2 in all (t with 4 d.o.f.)."""
    golden = _golden.load(name)
    expected = golden.expected["mauve"]
    result = mauve(golden.real, golden.fake, random_state=0)
    assert result.n_clusters == expected["seed25"]["num_buckets"]
    assert result.mauve_std is not None
    spread = math.hypot(expected["std"], result.mauve_std) / math.sqrt(5.0)
    assert abs(result.mauve - expected["mean"]) < 5.0 * spread
    assert result.mauve_std < 4.0 * expected["std"]
    assert abs(result.mauve_star - expected["seed25"]["mauve_star"]) < 5.0 * math.sqrt(5.0) * spread


@given(st.data())
def test_frontier_scores_against_their_definitions(data: st.DataObject) -> None:
    counts = [np.array(data.draw(st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any))) for _ in range(2)]
    p, q = (c / c.sum() for c in counts)
    assert frontier_area(p, q, 5.0) == pytest.approx(area_oracle(p, q), abs=1e-12)
    assert frontier_area(q, p, 5.0) == pytest.approx(frontier_area(p, q, 5.0), abs=1e-12)
    assert f_divergence(p, q, f=FRONTIER_INTEGRAL) == pytest.approx(integral_oracle(p, q), abs=1e-12)
    assert 0.0 <= f_divergence(p, q, f=FRONTIER_INTEGRAL) <= 1.0 + 1e-12


def test_frontier_scores_at_the_ends() -> None:
    one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert frontier_area(one, one, 5.0) == 1.0  # the reference returns 0.75
    assert f_divergence(one, one, f=FRONTIER_INTEGRAL) == 0.0
    assert f_divergence(one, other, f=FRONTIER_INTEGRAL) == pytest.approx(1.0, abs=1e-15)
    # disjoint: the curve is (1 - w)^c, w^c, and the area c B(c + 1, c) = 5! 5! / 10!, less than a trapezoid gives
    assert 1.0 < frontier_area(one, other, 5.0) / (math.factorial(5) ** 2 / math.factorial(10)) < 1.1


def test_equal_sets_score_exactly_one() -> None:
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(100, 6)).astype(np.float32)
    one_hot = np.eye(5)[rng.integers(0, 5, 80)]
    for real in (spread, one_hot, np.ones((30, 2)), np.zeros((30, 2))):
        fake = rng.permutation(real)
        assert mauve(real, fake, random_state=0).scores() == {"mauve": 1.0, "mauve_star": 1.0}
        assert mauve(np.repeat(real, 3, axis=0), fake, random_state=0).mauve == 1.0
        assert frontier_integral(real, fake, random_state=0).scores() == {
            "frontier_integral": 0.0,
            "frontier_integral_star": 0.0,
        }


@settings(max_examples=25, deadline=None)
@given(pair=lattice_pairs(min_rows=4), seed=st.integers(0, 2**32 - 1))
def test_codebook_depends_only_on_the_union(pair: tuple[NDArray[Any], NDArray[Any]], seed: int) -> None:
    real, fake = pair
    n_clusters = min(3, len(np.unique(np.concatenate(pair), axis=0)))
    codebook = quantize(real, fake, n_clusters=n_clusters, random_state=seed)
    swapped = quantize(fake, real, n_clusters=n_clusters, random_state=seed)
    np.testing.assert_array_equal(swapped.real_codes, codebook.fake_codes)
    np.testing.assert_array_equal(swapped.fake_codes, codebook.real_codes)
    np.testing.assert_array_equal(swapped.centers, codebook.centers)
    order = np.random.default_rng(seed).permutation(len(real))
    np.testing.assert_array_equal(
        quantize(real[order], fake, n_clusters=n_clusters, random_state=seed).real_codes, codebook.real_codes[order]
    )
    rows, codes = np.concatenate(pair), np.concatenate([codebook.real_codes, codebook.fake_codes])
    assert len(np.unique(np.column_stack([rows, codes]), axis=0)) == len(
        np.unique(rows, axis=0)
    )  # equal rows, one code
    np.testing.assert_array_equal(codebook.real_counts, np.bincount(codebook.real_codes, minlength=n_clusters))


def test_centers_are_the_nearest_means() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(150, 3)), rng.normal(size=(100, 3)) + 1.0
    real[:20] = real[20:40]
    codebook = quantize(real, fake, n_clusters=7, random_state=0)
    rows, codes = np.concatenate([real, fake]), np.concatenate([codebook.real_codes, codebook.fake_codes])
    means = [rows[codes == k].mean(axis=0) for k in range(7)]
    np.testing.assert_allclose(codebook.centers, means, atol=0.05)  # k-means stops when the centres hardly move
    distances = ((rows[:, None] - codebook.centers) ** 2).sum(axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), codes)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_do_not_depend_on_the_order(name: str) -> None:
    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=(120, 4)), rng.normal(size=(90, 4)) + 0.5
    score = functools.partial(METRICS[name], random_state=3)
    expected = score(real, fake).scores()
    assert score(rng.permutation(real), rng.permutation(fake)).scores() == expected
    swapped = score(fake, real).scores()
    if name == "prd":
        swapped = {"f_8": swapped["f_1_8"], "f_1_8": swapped["f_8"]}
    assert swapped == pytest.approx(expected, rel=1e-12)


def test_scores_average_over_the_clusterings() -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(150, 3)), rng.normal(size=(150, 3)) + 0.4
    one = mauve(real, fake, n_clusterings=1, random_state=0)
    many = mauve(real, fake, n_clusterings=4, random_state=0)
    assert one.mauve_std is None
    assert many.mauve_std is not None
    assert 0.0 < many.mauve_std < 0.2
    assert one.mauve != many.mauve
    assert (
        abs(one.mauve - many.mauve) <= 2.0 * many.mauve_std
    )  # the first of four is within sqrt(3) * std of their mean


def test_mauve_falls_with_the_distance() -> None:
    rng = np.random.default_rng(5)
    real = rng.normal(size=(300, 4)) + 3.0
    scores = [
        mauve(real, rng.normal(size=(300, 4)) + 3.0 + [s, 0, 0, 0], random_state=0) for s in (0.0, 1.0, 3.0, 30.0)
    ]
    for name in ("mauve", "mauve_star"):
        values = [getattr(s, name) for s in scores]
        assert values == sorted(values, reverse=True)
        assert values[0] > 0.85
        assert values[-1] < 0.05


@settings(deadline=None)
@given(site_samples())
def test_prd_curve_against_its_definition(samples: SiteSamples) -> None:
    result = precision_recall_distributions(
        samples.real, samples.fake, n_clusters=samples.n_sites, n_clusterings=1, random_state=0
    )
    p, q = (c / c.sum() for c in (samples.real_counts, samples.fake_counts))
    for i in range(0, 1001, 50):
        slope = math.tan(1e-10 + i * (0.5 * math.pi - 2e-10) / 1000)
        assert result.precision[i] == pytest.approx(min(1.0, sum(np.minimum(slope * p, q))), abs=1e-9)
        assert result.recall[i] == pytest.approx(min(1.0, sum(np.minimum(p, q / slope))), abs=1e-9)
    assert result.precision[500] == pytest.approx(1.0 - f_divergence(p, q, f="tv"), abs=1e-6)  # slope 1
    assert result.precision[1000] == pytest.approx(q[p > 0].sum(), abs=1e-6)
    assert result.recall[0] == pytest.approx(p[q > 0].sum(), abs=1e-6)
    curve = zip(result.precision, result.recall, strict=True)
    f_8 = max(((65.0 * a * b) / (64.0 * a + b) for a, b in curve if a + b > 0), default=0.0)
    assert result.f_8 == pytest.approx(f_8, rel=1e-12)


@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
@pytest.mark.parametrize("name", METRICS)
def test_equal_and_disjoint_sets_reach_the_bounds(name: str) -> None:
    """Half a count in every bin keeps some scores from the worst value, and so does the curve of MAUVE."""
    real = np.repeat([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], 200, axis=0)
    equal = METRICS[name](real, real, random_state=0)
    disjoint = METRICS[name](real, real * [1.0, -1.0], random_state=0)
    for score, described in equal.describe().items():
        low, high = described.bounds
        worst, best = (low, high) if described.better == "higher" else (high, low)
        assert getattr(equal, score) == pytest.approx(best, abs=1e-9)
        assert low <= getattr(disjoint, score) <= high
        assert getattr(disjoint, score) == pytest.approx(worst, abs=1e-9 if name == "prd" else 0.1)


def test_collapsed_generator_is_precise_without_recall() -> None:
    """A generator that keeps 2 of 20 equal modes has the curve min(lambda / 10, 1), min(1/10, 1 / lambda)."""
    real, fake = np.arange(400.0)[:, None] // 20, np.arange(400.0)[:, None] // 200
    result = precision_recall_distributions(real, fake, random_state=0)
    corner = 1.0, 0.1  # the angles of the curve miss it by up to 0.001, a hundredth of lambda
    assert result.f_8 == pytest.approx(65.0 * 0.1 / (64.0 * corner[0] + corner[1]), rel=0.01)
    assert result.f_1_8 == pytest.approx(65.0 * 0.1 / (corner[0] + 64.0 * corner[1]), rel=0.01)


@settings(deadline=None)
@given(samples=site_samples(), generator=st.sampled_from(GENERATORS), smoothing=st.sampled_from([0.0, 0.5, 1.0]))
@pytest.mark.filterwarnings("ignore::egtmetrics.divergences.DivergenceEstimateWarning")
def test_value_is_the_divergence_of_the_histograms(
    samples: SiteSamples, generator: FGenerator, smoothing: float
) -> None:
    estimate = quantized_f_divergence(
        samples.real,
        samples.fake,
        f=generator,
        n_clusters=samples.n_sites,
        smoothing=smoothing,
        n_bootstrap=20,
        random_state=0,
    )
    p, q = ((c + smoothing) / (c + smoothing).sum() for c in (samples.real_counts, samples.fake_counts))
    expected = f_divergence(p, q, f=generator)
    assert estimate.value == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert estimate.f == generator.name
    assert (estimate.interval is None) == (estimate.standard_error is None)
    if math.isinf(expected):
        assert estimate.interval is None
        assert any("infinite" in note for note in estimate.notes)


SITES = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])


def draw_sites(rng: np.random.Generator, n: int, m: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Samples of two laws on eight sites, mirror images of each other."""
    return tuple(rng.choice(8, size, p=law)[:, None].astype(float) for size, law in ((n, SITES), (m, SITES[::-1])))


@pytest.mark.parametrize("f", ["kl", "js", "hellinger", FRONTIER_INTEGRAL])
def test_interval_covers(f: str | FGenerator) -> None:
    """At least 66 of 80 must cover: at a coverage of 0.93 fewer have a probability of 4e-4, at 0.7 as many 0.01."""
    truth = f_divergence(SITES, SITES[::-1], f=f)
    rng = np.random.default_rng(6)
    estimates = [
        quantized_f_divergence(*draw_sites(rng, 300, 600), f=f, n_clusters=8, n_bootstrap=200, random_state=i)
        for i in range(80)
    ]
    covered = sum(e.interval[0] <= truth <= e.interval[1] for e in estimates if e.interval is not None)
    assert covered >= 66
    # not too wide either: the deviation of 80 values has a relative error of 8 %, so 1.4 is five of these
    errors = [e.standard_error for e in estimates if e.standard_error is not None]
    assert 1 / 1.4 < np.mean(errors) / np.std([e.value for e in estimates], ddof=1) < 1.4


@pytest.mark.parametrize("equal", [True, False])
def test_miller_madow_removes_the_bias(equal: bool) -> None:
    """Means of 150 estimates against the truth at 4.5 standard errors, a false-alarm rate of 1e-5."""
    rng = np.random.default_rng(7)
    truth = 0.0 if equal else f_divergence(SITES, SITES[::-1])
    plug_in, corrected = [], []
    for i in range(150):
        real, fake = draw_sites(rng, 400, 800)
        fake = 7.0 - fake if equal else fake
        options = {"n_clusters": 8, "n_bootstrap": 2, "random_state": i}
        plug_in.append(quantized_f_divergence(real, fake, **options).value)
        corrected.append(quantized_f_divergence(real, fake, miller_madow=True, **options).value)
    error = np.std(corrected, ddof=1) / math.sqrt(150)
    assert abs(np.mean(corrected) - truth) < 4.5 * error
    assert np.mean(plug_in) - truth > 7 / 1600  # the noise of 7 bins on the larger side alone
    in_bits = quantized_f_divergence(real, fake, miller_madow=True, base=2, **options)
    assert in_bits.value == pytest.approx(corrected[-1] / math.log(2.0))


def test_bootstrap_of_any_function_is_that_of_the_kernel() -> None:
    """The deviations of two bootstraps of 4000 replicates differ by 5 standard errors (6 %) once in a million runs."""
    real, fake = draw_sites(np.random.default_rng(8), 500, 500)
    js = get_generator("js")
    same = user_generator(js.f, name="js in NumPy", at_zero=js.at_zero, slope_at_infinity=js.slope_at_infinity)
    options = {"n_clusters": 8, "n_bootstrap": 4000, "random_state": 0}
    native, numpy = (quantized_f_divergence(real, fake, f=f, **options) for f in (js, same))
    assert numpy.value == native.value
    assert numpy.backend == "numpy"
    assert native.backend in ("cpu", "reference")
    assert numpy.standard_error == pytest.approx(native.standard_error, rel=0.06)
    assert numpy.interval == pytest.approx(native.interval, abs=0.25 * native.standard_error)


def test_converges_to_the_divergence_of_the_laws() -> None:
    """KL between N(0, 1) and N(1, 1) is 1/2; 40 times the rows make the noise sqrt(40) times smaller, the bias less."""

    def error(n: int) -> float:
        rng = np.random.default_rng(9)
        options = {"smoothing": 0.5, "n_bootstrap": 2}
        values = [
            quantized_f_divergence(
                rng.normal(size=(n, 1)), rng.normal(size=(n, 1)) + 1.0, random_state=i, **options
            ).value
            for i in range(16)
        ]
        return float(np.sqrt(np.mean(np.square(np.array(values) - 0.5))))

    assert error(8000) < 0.05
    assert error(200) > 2.5 * error(8000)


def test_interval_is_corrected_for_the_bias_of_many_clusters() -> None:
    rng = np.random.default_rng(10)
    estimate = quantized_f_divergence(
        rng.normal(size=(500, 2)), rng.normal(size=(500, 2)), f="js", n_clusters=60, random_state=0
    )
    low, high = estimate.interval
    assert low <= 0.0 <= high < estimate.value  # equal laws: the value is all noise
    wider = quantized_f_divergence(
        rng.normal(size=(500, 2)), rng.normal(size=(500, 2)), f="js", n_clusters=60, level=0.99, random_state=0
    )
    assert wider.level == 0.99
    assert wider.interval[1] - wider.interval[0] > high - low


def test_known_failures_are_warned_of() -> None:
    real, fake = np.zeros((30, 1)), np.ones((30, 1))
    with pytest.warns(DivergenceEstimateWarning, match="no cluster holds points of both"):
        estimate = quantized_f_divergence(real, fake, f="js", n_clusters=2, base=2, random_state=0)
    assert estimate.value == 2.0
    with pytest.warns(DivergenceEstimateWarning) as caught:
        estimate = quantized_f_divergence(real, fake, n_clusters=2, random_state=0)
    assert estimate.value == math.inf
    assert estimate.interval is None
    assert [str(w.message) for w in caught] == list(estimate.notes)
    assert caught[0].filename == __file__
    rng = np.random.default_rng(0)
    with pytest.warns(DivergenceEstimateWarning, match="fewer than 5 rows per cluster"):
        quantized_f_divergence(
            rng.normal(size=(40, 2)), rng.normal(size=(40, 2)), f="tv", n_clusters=10, random_state=0
        )
    with pytest.warns(DivergenceEstimateWarning, match="bootstrap replicate"):  # the cluster has one fake point
        quantized_f_divergence([[0.0]] * 20 + [[1.0]] * 20, [[0.0]] * 39 + [[1.0]], n_clusters=2, random_state=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 9}, "distinct rows"),
        ({"n_clusters": 0}, "n_clusters=0"),
        ({"smoothing": -0.5}, "smoothing=-0.5"),
        ({"smoothing": math.nan}, "smoothing=nan"),
        ({"smoothing": True}, "smoothing=True"),
        ({"miller_madow": True, "f": "js"}, "not 'js'"),
        ({"miller_madow": True, "smoothing": 0.5}, "smoothing=0.5"),
        ({"n_bootstrap": 1}, "n_bootstrap=1"),
        ({"level": 1.0}, "level=1.0"),
        ({"f": "k1"}, "k1"),
        ({"f": "tv", "base": 2}, "base=2"),
        ({"kmeans": "cuml"}, "kmeans='cuml'"),
        ({"random_state": -1}, "random_state=-1"),
    ],
)
def test_malformed_options(options: dict[str, Any], message: str) -> None:
    sites = np.arange(8.0)[:, None].repeat(5, axis=0)
    with pytest.raises(ValueError, match=message):
        quantized_f_divergence(sites, sites, **options)


@pytest.mark.parametrize("metric", [*METRICS.values(), quantized_f_divergence])
def test_malformed_features(metric: Callable[..., Any]) -> None:
    real = np.ones((10, 2))
    for fake in (np.ones((10, 3)), np.ones((0, 2)), np.full((10, 2), np.nan)):
        with pytest.raises(ValueError, match="fake"):
            metric(real, fake)


def test_malformed_options_of_the_metrics() -> None:
    real = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(ValueError, match=r"scaling=0\.0"):
        mauve(real, real, scaling=0.0)
    with pytest.raises(ValueError, match="n_clusterings=0"):
        frontier_integral(real, real, n_clusterings=0)
    with pytest.raises(ValueError, match="30 distinct rows"):
        precision_recall_distributions(real, real, n_clusters=31)


def test_faiss_gives_a_codebook_of_its_own() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(11)
    real, fake = rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) + 0.4
    codebook = quantize(real, fake, n_clusters=10, kmeans="faiss", random_state=0)
    swapped = quantize(fake, real, n_clusters=10, kmeans="faiss", random_state=0)
    np.testing.assert_array_equal(swapped.fake_codes, codebook.real_codes)
    distances = ((real[:, None] - codebook.centers) ** 2).sum(axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), codebook.real_codes)
    ours = mauve(real, fake, random_state=0)
    theirs = mauve(real, fake, kmeans="faiss", random_state=0)
    assert theirs.kmeans == "faiss"
    # five clusterings of each kind: 5 standard errors of the difference of their means
    assert abs(theirs.mauve - ours.mauve) < 5.0 * math.hypot(ours.mauve_std, theirs.mauve_std) / math.sqrt(5.0)


def test_scores_of_groups() -> None:
    rng = np.random.default_rng(12)
    groups = np.repeat(["a", "b"], 100)
    real, fake = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    fake[groups == "b"] *= 0.1
    frame = GenerativeMetricFrame(
        metrics={**METRICS, "js": functools.partial(quantized_f_divergence, f="js")},
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
    )
    assert {"mauve_mauve", "prd_f_8", "js", "frontier_integral_frontier_integral"} <= set(frame.by_group.columns)
    assert frame.by_group.loc["a", "prd_f_8"] > frame.by_group.loc["b", "prd_f_8"]
    assert frame.by_group.loc["a", "js"] < frame.by_group.loc["b", "js"]


def test_the_correction_of_kl_in_closed_form() -> None:
    """Two sites, p = (.6, .4) of 100 rows and q = (.5, .5) of 200: the bias to first order is half of 1/100 + 1/200."""
    real, fake = np.repeat([0.0, 1.0], [60, 40])[:, None], np.repeat([0.0, 1.0], [100, 100])[:, None]
    found = quantized_f_divergence(real, fake, f="kl", n_clusters=2, miller_madow=True, random_state=0).value
    assert found == pytest.approx(0.6 * math.log(1.2) + 0.4 * math.log(0.8) - 0.5 * (1 / 100 + 1 / 200), rel=1e-12)
