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
from scipy.spatial.distance import cdist
from scipy.special import gamma

from egtmetrics.divergences import (
    FRONTIER_INTEGRAL,
    DivergenceEstimate,
    DivergenceEstimateWarning,
    FGenerator,
    alpha_divergence,
    f_divergence,
    knn_f_divergence,
    knn_ratio_f_divergence,
    precision_recall,
)
from egtmetrics.groups import GenerativeMetricFrame
from tests.divergences._generators import GENERATORS
from tests.strategies import lattice_pairs, similarities

Estimator = Callable[..., DivergenceEstimate]
POWERS: list[str | FGenerator] = ["pearson", "neyman", "hellinger", alpha_divergence(0.3), alpha_divergence(1.7)]


def radii_oracle(real: NDArray[Any], fake: NDArray[Any], k: int) -> NDArray[np.float64]:
    """The ratio of two densities k / (n V) at each real point."""
    (n, d), m = real.shape, len(fake)
    rho = np.sort(cdist(real, real), axis=1)[:, k]
    nu = np.sort(cdist(real, fake), axis=1)[:, k - 1]
    return np.asarray((k / ((n - 1) * rho**d)) / (k / (m * nu**d)))


def kinds_oracle(real: NDArray[Any], fake: NDArray[Any], k: int, generator: FGenerator) -> float:
    """Count both kinds in each closed ball, and average q f(p/q) / ((p + q) / 2) over the points of both sets."""
    n, m = len(real), len(fake)
    both = np.concatenate([real, fake]).astype(np.float64)
    sq = ((both[:, None] - both) ** 2).sum(axis=2)
    slope = slope_at_one(generator)
    total = 0.0
    for i in range(n + m):
        radius = np.sort(np.delete(sq[i], i))[k - 1]
        inside = sq[i] <= radius
        p, q = inside[:n].sum() / n, inside[n:].sum() / m
        if q == 0.0 and math.isinf(generator.slope_at_infinity):
            q = 0.5 / m
        if p == 0.0 and math.isinf(generator.at_zero):
            p = 0.5 / n
        value = f_density(generator, p, q) - slope * (p - q)
        total += value / (p + q) / (n if i < n else m)
    return total


def slope_at_one(generator: FGenerator) -> float:
    """f'(1), or the mean of the slopes on both sides of a kink."""
    step = 1e-7
    at = generator.f(np.array([1.0 - step, 1.0, 1.0 + step]))
    return float((at[2] - at[0]) / (2.0 * step))


def f_density(generator: FGenerator, p: float, q: float) -> float:
    return p * generator.slope_at_infinity if q == 0.0 else q * float(generator.f(np.array([p / q]))[0])


def two_levels(rng: np.random.Generator, n: int, share: float, d: int = 1) -> NDArray[np.float64]:
    """Points of the unit cube, this share of them in its left half, so that every divergence is one of two atoms."""
    x = rng.uniform(size=(n, d))
    x[:, 0] = 0.5 * (x[:, 0] + (rng.uniform(size=n) >= share))
    return x


def exact(f: str | FGenerator) -> float:
    return float(f_divergence([0.8, 0.2], [0.2, 0.8], f=f))


@pytest.mark.parametrize(("n", "m", "d", "k"), [(40, 60, 1, 1), (60, 35, 3, 5), (50, 50, 8, 3), (7, 6, 2, 5)])
@pytest.mark.filterwarnings("ignore::egtmetrics.divergences.DivergenceEstimateWarning")
def test_radii_against_the_definition(n: int, m: int, d: int, k: int) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(n, d)), 1.3 * rng.normal(size=(m, d)) + 0.5
    ratios = radii_oracle(real, fake, k)
    value = functools.partial(knn_f_divergence, real, fake, n_neighbors=k, random_state=0)
    assert value(f="kl").value == pytest.approx(np.log(ratios).mean(), rel=1e-10)
    assert value(f="kl", base=2).value == pytest.approx(np.log2(ratios).mean(), rel=1e-10)
    assert value(f="reverse_kl").value == pytest.approx(np.log(radii_oracle(fake, real, k)).mean(), rel=1e-10)
    for a in (-1.0, 0.5, 1.7, 2.0):
        if abs(a - 1.0) < k:
            factor = gamma(k) ** 2 / (gamma(k - a + 1.0) * gamma(k + a - 1.0))
            expected = (factor * (ratios ** (a - 1.0)).mean() - 1.0) / (a * (a - 1.0))
            assert value(f=alpha_divergence(a)).value == pytest.approx(expected, rel=1e-9)
            same = {-1.0: ("neyman", 2.0), 0.5: ("hellinger", 0.5), 2.0: ("pearson", 2.0)}
            if a in same:
                name, scale = same[a]
                assert value(f=name).value == pytest.approx(scale * expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    pair=lattice_pairs(min_rows=4, max_rows=10),
    k=st.integers(1, 7),
    generator=st.one_of(st.sampled_from(GENERATORS), st.sampled_from(GENERATORS).map(FGenerator.partner)),
)
@pytest.mark.filterwarnings("ignore::egtmetrics.divergences.DivergenceEstimateWarning")
def test_kinds_against_the_definition(pair: tuple[NDArray[Any], NDArray[Any]], k: int, generator: FGenerator) -> None:
    """On a lattice, with many ties and duplicates."""
    real, fake = pair
    estimate = knn_ratio_f_divergence(real, fake, f=generator, n_neighbors=k, random_state=0)
    assert estimate.value == pytest.approx(kinds_oracle(real, fake, k, generator), rel=1e-6, abs=1e-6)
    assert estimate.value >= 0.0
    swapped = knn_ratio_f_divergence(fake, real, f=generator.partner(), n_neighbors=k, random_state=0)
    assert swapped.value == pytest.approx(estimate.value, rel=1e-6, abs=1e-9)  # user-defined slopes are differences


@pytest.mark.parametrize("estimator", [knn_f_divergence, knn_ratio_f_divergence])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_invariances(estimator: Estimator, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    real, fake = rng.normal(size=(120, 2)), rng.normal(size=(150, 2)) + 0.5
    estimate = estimator(real, fake, random_state=1)
    shuffled = estimator(rng.permutation(real), rng.permutation(fake), random_state=1)
    assert shuffled == estimate  # value, error and interval
    assert estimator(real, fake, random_state=2).value == estimate.value
    move = data.draw(similarities(dimension=2))
    assert estimator(move(real), move(fake), random_state=1).value == pytest.approx(estimate.value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("f", ["kl", *POWERS])
@pytest.mark.parametrize("d", [1, 2])
def test_radii_converge(d: int, f: str | FGenerator) -> None:
    """16 times the rows make noise of order n^(-1/2) 4 times smaller. A ratio under 2 has a probability below 1e-3."""

    def error(n: int, seed: int) -> float:
        rng = np.random.default_rng(seed)
        values = [
            knn_f_divergence(two_levels(rng, n, 0.8, d), two_levels(rng, n, 0.2, d), f=f, random_state=0).value
            for _ in range(10)
        ]
        return float(np.sqrt(np.mean(np.square(np.array(values) - exact(f)))))

    small, large = error(125, 1), error(2000, 2)
    assert large < 0.16 * exact(f)
    assert small > 2.0 * large


@pytest.mark.parametrize("f", ["kl", "js", "tv", "hellinger", "le_cam", FRONTIER_INTEGRAL, precision_recall(3.0)])
@pytest.mark.filterwarnings("ignore:.*none of the other set")  # 100 rows are few for an infinite f
def test_kinds_converge(f: str | FGenerator) -> None:
    """The bias is of the same order, since k is about the square root of n."""

    def error(n: int, seed: int) -> float:
        rng = np.random.default_rng(seed)
        values = [
            knn_ratio_f_divergence(two_levels(rng, n, 0.8), two_levels(rng, n, 0.2), f=f, random_state=0).value
            for _ in range(10)
        ]
        return float(np.sqrt(np.mean(np.square(np.array(values) - exact(f)))))

    small, large = error(100, 3), error(1600, 4)
    assert large < 0.06 * exact(f) + 0.02
    assert small > 2.0 * large


def test_gaussian_closed_forms() -> None:
    """N(0, I) against N(mu, I) in the plane, |mu| = 1. Tails add a bias to the 4 standard errors."""
    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(3000, 2)), rng.normal(size=(3000, 2)) + np.array([0.6, 0.8])
    closed = {"kl": 0.5, "reverse_kl": 0.5, "hellinger": 2.0 - 2.0 * math.exp(-1.0 / 8.0)}
    for f, truth in closed.items():
        for estimator, bias in (
            (functools.partial(knn_f_divergence, n_neighbors=3), 0.07),
            (knn_ratio_f_divergence, 0.07),
        ):
            estimate = estimator(real, fake, f=f, random_state=0)
            assert estimate.standard_error is not None
            assert abs(estimate.value - truth) < bias * truth + 4.0 * estimate.standard_error
            assert estimate.standard_error < 0.1 * truth


@pytest.mark.parametrize(
    ("estimator", "f"),
    [
        (knn_f_divergence, "kl"),
        (knn_f_divergence, "hellinger"),
        (knn_ratio_f_divergence, "hellinger"),
        (knn_ratio_f_divergence, "tv"),
    ],
)
def test_interval_covers(estimator: Estimator, f: str) -> None:
    """At least 66 of 80 must cover: at a coverage of 0.93 fewer have a probability of 4e-4, at 0.7 as many 0.01."""
    rng = np.random.default_rng(6)
    estimates = [
        estimator(two_levels(rng, 400, 0.8), two_levels(rng, 500, 0.2), f=f, random_state=i) for i in range(80)
    ]
    covered = sum(e.interval[0] <= exact(f) <= e.interval[1] for e in estimates if e.interval is not None)
    assert covered >= 66
    # not too wide either: the deviation of 80 values has a relative error of 8 %
    errors = [e.standard_error for e in estimates if e.standard_error is not None]
    assert 1 / 1.45 < np.mean(errors) / np.std([e.value for e in estimates], ddof=1) < 1.45


def test_equal_laws() -> None:
    """By radii, 0 up to 4.5 standard errors of the mean of 40 (probability 1e-5). By kinds, noise of 2 f''(1) / k."""
    rng = np.random.default_rng(7)
    pairs = [(rng.normal(size=(200, 3)), rng.normal(size=(300, 3))) for _ in range(40)]
    for f in ("kl", "hellinger", "pearson"):
        values = np.array([knn_f_divergence(x, y, f=f, random_state=0).value for x, y in pairs])
        assert abs(values.mean()) < 4.5 * values.std(ddof=1) / math.sqrt(40)
    kinds = np.array([knn_ratio_f_divergence(x, y, random_state=0).value for x, y in pairs])
    assert (kinds >= 0.0).all()
    k = round(math.sqrt(500))
    assert kinds.mean() == pytest.approx(200 * 300 / 2 * (1 / 200 + 1 / 300) ** 2 / k, rel=0.4)
    intervals = [knn_f_divergence(x, y, random_state=0).interval for x, y in pairs]
    assert (
        sum(low < 0.0 < high for low, high in intervals if low is not None) > 28
    )  # fewer have a probability of 1e-5 at 0.93


def test_lost_modes_are_seen() -> None:
    """Uniform laws that share half of their supports: squared Hellinger distance 1, total variation 1/2."""
    rng = np.random.default_rng(8)
    real, fake = rng.uniform(size=(2000, 1)), rng.uniform(size=(2000, 1)) + 0.5
    assert knn_ratio_f_divergence(real, fake, f="hellinger", random_state=0).value == pytest.approx(1.0, abs=0.06)
    assert knn_ratio_f_divergence(real, fake, f="tv", random_state=0).value == pytest.approx(0.5, abs=0.08)
    with pytest.warns(DivergenceEstimateWarning, match="real points have none of the other set"):
        knn_ratio_f_divergence(real, fake, f="kl", random_state=0)
    with pytest.warns(DivergenceEstimateWarning, match="fake points have none of the other set"):
        knn_ratio_f_divergence(real, fake, f="reverse_kl", random_state=0)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: g.name)
@pytest.mark.filterwarnings("ignore:.*none of the other set")
def test_disjoint_supports(generator: FGenerator) -> None:
    rng = np.random.default_rng(9)
    real, fake = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 50.0
    with pytest.warns(DivergenceEstimateWarning, match="disjoint"):
        estimate = knn_ratio_f_divergence(real, fake, f=generator, random_state=0)
    if math.isfinite(generator.maximum):
        assert estimate.value == pytest.approx(generator.maximum, rel=1e-9)
    else:
        assert math.isfinite(estimate.value)
    if generator.power is not None:
        with pytest.warns(DivergenceEstimateWarning, match="disjoint"):
            knn_f_divergence(real, fake, f=generator, random_state=0)


@pytest.mark.parametrize("estimator", [knn_f_divergence, knn_ratio_f_divergence])
def test_high_dimension_and_small_sets_are_warned_of(estimator: Estimator) -> None:
    rng = np.random.default_rng(10)
    with pytest.warns(DivergenceEstimateWarning, match="200 rows in 8 dimensions") as caught:
        estimator(rng.normal(size=(200, 8)), rng.normal(size=(300, 8)), random_state=0)
    assert caught[0].filename == __file__
    with pytest.warns(DivergenceEstimateWarning, match="too small for an interval"):
        estimate = estimator(rng.normal(size=(15, 1)), rng.normal(size=(90, 1)), random_state=0)
    assert estimate.interval is None
    assert estimate.standard_error is None
    assert len(estimate.notes) == 1


def test_duplicates() -> None:
    rng = np.random.default_rng(11)
    real, fake = rng.normal(size=(100, 2)), rng.normal(size=(100, 2))
    fake[:3] = real[0]  # three copies in the other set
    for k in (1, 2, 3):
        with pytest.raises(ValueError, match=f"1 rows of real have {k} or more copies in fake"):
            knn_f_divergence(real, fake, n_neighbors=k)
    assert math.isfinite(knn_f_divergence(real, fake, n_neighbors=4, random_state=0).value)
    fake[10:15] = fake[20]  # six equal rows
    with pytest.raises(ValueError, match="6 rows of fake have 5 or more copies in fake"):
        knn_f_divergence(real, fake, f="reverse_kl")
    assert math.isfinite(knn_ratio_f_divergence(real, fake, random_state=0).value)
    assert knn_ratio_f_divergence(np.ones((50, 2)), np.ones((90, 2)), f="js", random_state=0).value == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 20}, "real has 20 rows, but n_neighbors=20"),
        ({"n_neighbors": 16}, "fake has 15 rows, but n_neighbors=16"),
        ({"f": "reverse_kl", "n_neighbors": 15}, "fake has 15 rows, but n_neighbors=15"),
        ({"n_neighbors": 0}, "n_neighbors=0"),
        ({"n_neighbors": 1, "f": "pearson"}, "n_neighbors=1 is too small"),
        ({"n_neighbors": 2, "f": alpha_divergence(3.5)}, "more than 2.5"),
        ({"f": "js"}, "knn_ratio_f_divergence"),
        ({"f": "hellinger", "base": 2}, "base=2"),
        ({"level": 0.0}, "level=0.0"),
        ({"level": 95}, "level=95"),
        ({"backend": "cuda11"}, "backend='cuda11'"),
    ],
)
def test_malformed_options(options: dict[str, Any], message: str) -> None:
    rng = np.random.default_rng(12)
    with pytest.raises(ValueError, match=message):
        knn_f_divergence(rng.normal(size=(20, 1)), rng.normal(size=(15, 1)), **options)


def test_malformed_neighbours_of_the_ratio() -> None:
    rng = np.random.default_rng(12)
    with pytest.raises(ValueError, match="real and fake has 35 rows, but n_neighbors=35"):
        knn_ratio_f_divergence(rng.normal(size=(20, 1)), rng.normal(size=(15, 1)), n_neighbors=35)


@pytest.mark.parametrize("estimator", [knn_f_divergence, knn_ratio_f_divergence])
def test_malformed_features(estimator: Estimator) -> None:
    real = np.random.default_rng(13).normal(size=(30, 2))
    for fake in (np.ones((30, 3)), np.ones((0, 2)), np.full((30, 2), np.inf)):
        with pytest.raises(ValueError, match="fake"):
            estimator(real, fake)


def test_backends_agree() -> None:
    rng = np.random.default_rng(14)
    real, fake = rng.normal(size=(150, 3)).astype(np.float32), rng.normal(size=(130, 3)).astype(np.float32)
    for estimator in (knn_f_divergence, knn_ratio_f_divergence):
        auto, reference = (estimator(real, fake, random_state=0, backend=b) for b in ("auto", "reference"))
        assert reference.backend == "reference"
        assert auto.value == pytest.approx(reference.value, rel=1e-12)
        assert auto.interval == pytest.approx(reference.interval, rel=1e-10)


def test_scores_of_groups() -> None:
    rng = np.random.default_rng(15)
    groups = np.repeat(["a", "b"], 100)
    real, fake = rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
    fake[groups == "b"] += 1.0
    frame = GenerativeMetricFrame(
        metrics={"kl": knn_f_divergence, "js": functools.partial(knn_ratio_f_divergence, f="js")},
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
    )
    assert list(frame.by_group.columns) == ["kl", "js"]
    assert (frame.by_group.loc["b"] > frame.by_group.loc["a"]).all()
