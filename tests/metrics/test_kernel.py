from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from egtmetrics.metrics.kernel import PolynomialKernel, kernel_distance
from tests import _golden
from tests.strategies import invalid_features, lattice_pairs


def mmd(x: NDArray[Any], y: NDArray[Any], degree: int = 3, gamma: float | None = None, coef0: float = 1.0) -> float:
    """The unbiased estimator, pair by pair."""
    scale = 1.0 / x.shape[1] if gamma is None else gamma

    def k(u: NDArray[Any], v: NDArray[Any]) -> float:
        return (scale * float(np.dot(u.astype(np.float64), v.astype(np.float64))) + coef0) ** degree

    s = len(x)
    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(s) for j in range(s) if i != j)
    between = sum(k(u, v) for u in x for v in y)
    return within / (s * (s - 1)) - 2.0 * between / s**2


@pytest.mark.parametrize(
    "options", [{}, {"degree": 1, "coef0": 0.0}, {"degree": 2, "gamma": 0.7}, {"degree": 4, "coef0": 2.5}]
)
def test_whole_sets_against_the_definition(options: dict[str, Any]) -> None:
    """With subsets as large as the sets, only the order of the rows is random."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(25, 4)), 1.3 * rng.normal(size=(25, 4)) + 0.4
    result = kernel_distance(real, fake, n_subsets=2, subset_size=25, **options)
    assert result.kid == pytest.approx(mmd(real, fake, **options), rel=1e-11)
    assert result.kid_std == pytest.approx(0.0, abs=1e-11 * abs(result.kid))


@given(lattice_pairs(min_rows=4, max_rows=8))
def test_integer_data_against_the_definition(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    size = min(map(len, pair))
    real, fake = (x[:size] for x in pair)
    result = kernel_distance(real, fake, n_subsets=1, subset_size=size)
    assert result.kid == pytest.approx(mmd(real, fake), rel=1e-9, abs=1e-9)
    assert kernel_distance(fake, real, n_subsets=1, subset_size=size).kid == pytest.approx(result.kid, abs=1e-9)


def test_linear_kernel_in_closed_form() -> None:
    """k(x, y) = x.y: MMD^2 = |difference of means|^2 - tr S_x / s - tr S_y / s."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 5)), 2.0 * rng.normal(size=(60, 5)) + 1.0
    shift = x.mean(axis=0) - y.mean(axis=0)
    expected = shift @ shift - (x.var(axis=0, ddof=1).sum() + y.var(axis=0, ddof=1).sum()) / 60
    result = kernel_distance(x, y, n_subsets=1, subset_size=60, degree=1, gamma=1.0, coef0=0.0)
    assert result.kid == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("name", _golden.GOLDEN_NAMES)
def test_golden_data_within_their_standard_deviation(name: str) -> None:
    """The recorded run drew other subsets. Means over many subsets differ by less than the deviation of one."""
    golden = _golden.load(name)
    expected = golden.expected["kid_subset200"]
    deviation = expected["kernel_inception_distance_std"]
    result = kernel_distance(golden.real, golden.fake, subset_size=200, n_subsets=40, random_state=0)
    assert result.kid == pytest.approx(expected["kernel_inception_distance_mean"], abs=deviation)
    assert result.kid_std == pytest.approx(deviation, rel=0.5)


def test_equal_laws_have_expectation_zero() -> None:
    """Unbiased at any size, unlike a Frechet distance. |z| > 4.9 has a false-alarm rate of 1e-6 per size."""
    rng = np.random.default_rng(2)
    for size in (5, 40):
        values = [
            kernel_distance(rng.normal(size=(size, 3)), rng.normal(size=(size, 3)), n_subsets=1, subset_size=size).kid
            for _ in range(400)
        ]
        z = np.mean(values) / (np.std(values, ddof=1) / np.sqrt(len(values)))
        assert abs(z) < 4.9


def test_subsets_are_drawn_one_after_the_other_without_replacement() -> None:
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) + 0.5
    generator = np.random.default_rng(42)
    one = [kernel_distance(real, fake, n_subsets=1, subset_size=15, random_state=generator).kid for _ in range(4)]
    four = kernel_distance(real, fake, n_subsets=4, subset_size=15, random_state=42)
    assert four.kid == pytest.approx(np.mean(one), rel=1e-12)
    assert four.kid_std == pytest.approx(np.std(one), rel=1e-12)
    assert len(set(one)) == 4


def test_a_seed_repeats_a_run_and_the_global_generator_is_not_touched() -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    before: Any = np.random.get_state()  # noqa: NPY002
    results = [kernel_distance(real, fake, n_subsets=5, subset_size=20, random_state=seed) for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0].kid != results[2].kid
    after: Any = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(after[1], before[1])


def test_a_shifted_law_is_detected() -> None:
    rng = np.random.default_rng(5)
    result = kernel_distance(
        rng.normal(size=(300, 4)), rng.normal(size=(200, 4)) + 1.0, subset_size=200, n_subsets=20, random_state=0
    )
    assert result.kid > 10 * result.kid_std > 0


def test_float32_is_summed_in_float64() -> None:
    rng = np.random.default_rng(6)
    real, fake = (1e3 * rng.normal(size=(2, 20, 3))).astype(np.float32)
    assert kernel_distance(real, fake, n_subsets=1, subset_size=20).kid == pytest.approx(mmd(real, fake), rel=1e-9)


def test_result_and_scores() -> None:
    result = kernel_distance(np.eye(5), np.eye(5)[:4], n_subsets=3, subset_size=4)
    assert result.scores() == {"kid": result.kid}
    assert all(type(value) in (float, int, str) for key, value in result.to_dict().items() if key != "caveats")
    assert (result.backend, result.n_real, result.n_fake) == ("numpy", 5, 4)
    assert (result.n_subsets, result.subset_size) == (3, 4)


@settings(max_examples=40)
@given(bad=invalid_features(n_features=3))
def test_bad_features_are_named(bad: Any) -> None:
    good = np.zeros((12, 3))
    with pytest.raises((ValueError, TypeError), match="real"):
        kernel_distance(bad, good, subset_size=2)
    with pytest.raises((ValueError, TypeError), match="fake"):
        kernel_distance(good, bad, subset_size=2)


def test_a_set_smaller_than_the_subsets_names_the_remedy() -> None:
    real, fake = np.zeros((2000, 2)), np.zeros((300, 2))
    with pytest.raises(ValueError, match=r"fake has 300 rows, but subset_size=1000 .* pass subset_size=300 or less"):
        kernel_distance(real, fake, subset_size=1000)
    with pytest.raises(ValueError, match="real has 300 rows"):
        kernel_distance(fake, real, subset_size=1000)


@pytest.mark.parametrize(("n", "m", "expected"), [(30, 20, 20), (1500, 1200, 1000)])
def test_by_default_subsets_are_as_large_as_the_smaller_set_up_to_1000(n: int, m: int, expected: int) -> None:
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    result = kernel_distance(real, fake, n_subsets=2, random_state=0)
    assert result.subset_size == result.settings()["subset_size"] == expected
    assert result.kid == kernel_distance(real, fake, n_subsets=2, subset_size=expected, random_state=0).kid


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n_subsets", (0, -1, 1.5, True)),
        ("subset_size", (1, 0, 2.0)),
        ("degree", (0, -3, 2.5)),
        ("gamma", (0.0, -1.0, np.nan, np.inf, "scale")),
        ("coef0", (-1.0, np.nan, np.inf, None)),
        ("random_state", (-1, "seed", 1.5)),
    ],
)
def test_bad_options(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=name):
            kernel_distance(np.eye(4), np.eye(4), **{"subset_size": 4, name: value})


def exact_mmd(x: NDArray[Any], y: NDArray[Any]) -> float:
    """The unbiased estimator in rational numbers."""
    rows = [[[Fraction(float(value)) for value in row] for row in points] for points in (x, y)]

    def k(u: list[Fraction], v: list[Fraction]) -> Fraction:
        return (sum((a * b for a, b in zip(u, v, strict=True)), Fraction()) / len(u) + 1) ** 3

    s = len(x)
    within = sum((k(u, v) for z in rows for u, v in itertools.permutations(z, 2)), Fraction())
    return float(within / (s * (s - 1)) - 2 * sum((k(u, v) for u in rows[0] for v in rows[1]), Fraction()) / s**2)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6, 1e8, 1e15])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e-90, 1e20])
def test_features_far_from_zero_or_in_another_unit_lose_no_digits(offset: float, scale: float) -> None:
    rng = np.random.default_rng(32)
    x, y = (scale * (points + offset) for points in (rng.normal(size=(10, 3)), rng.normal(size=(10, 3)) * 1.5 + 0.3))
    found = kernel_distance(x, y, subset_size=10, n_subsets=1, random_state=0).kid
    assert found == pytest.approx(exact_mmd(x, y), rel=1e-10)


@pytest.mark.parametrize("points", [np.zeros((6, 2)), np.full((6, 2), 1e30)])
def test_one_point_repeated_is_at_distance_0_from_itself(points: NDArray[Any]) -> None:
    assert kernel_distance(points, points, subset_size=6, n_subsets=1, random_state=0).kid == 0.0


def test_overflow_is_an_error_instead_of_nan() -> None:
    real = np.random.default_rng(7).normal(size=(20, 3)) * 1e90
    with pytest.raises(ValueError, match="overflows float64"):
        kernel_distance(real, real[::-1], n_subsets=1, subset_size=20)


def test_one_row_is_too_few_for_any_subset() -> None:
    """The advice for a small set, a smaller ``subset_size``, would be refused."""
    points = np.random.default_rng(0).normal(size=(5, 2))
    for name, real, fake in (
        ("real", points[:1], points),
        ("fake", points, points[:1]),
        ("real", points[:1], points[:1]),
    ):
        with pytest.raises(ValueError, match=rf"^{name} has 1 row, .* needs pairs of rows of each set; add samples$"):
            kernel_distance(real, fake)
    with pytest.raises(ValueError, match="pass subset_size=2 or less"):
        kernel_distance(points, points[:2], subset_size=3)
    assert kernel_distance(points, points[:2], subset_size=2).subset_size == 2


def test_subsets_that_are_the_whole_sets_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    calls: list[int] = []
    kernel = PolynomialKernel.__call__
    monkeypatch.setattr(PolynomialKernel, "__call__", lambda self, x, y: (calls.append(len(x)), kernel(self, x, y))[1])
    whole = kernel_distance(real, fake, random_state=0)
    assert calls == [40, 40, 40]
    assert (whole.n_subsets, whole.kid_std) == (100, 0.0)
    assert kernel_distance(real, fake, n_subsets=7, random_state=1).kid == pytest.approx(whole.kid, rel=1e-12)
    assert kernel_distance(real, fake[:39], n_subsets=7, random_state=1).kid_std > 0.0
