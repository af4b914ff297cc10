from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics.divergences import (
    FGenerator,
    alpha_divergence,
    f_divergence,
    get_generator,
    hockey_stick,
    precision_recall,
    unit_scale,
    user_generator,
)
from tests.strategies import divergence_generators, pmfs

LAW = settings(max_examples=30, deadline=None)

TEXTBOOK: dict[str, Callable[[Any], Any]] = {
    "kl": lambda t: t * np.log(t) - t + 1,
    "reverse_kl": lambda t: t - 1 - np.log(t),
    "js": lambda t: t * np.log(t) - (t + 1) * np.log((t + 1) / 2),
    "jeffreys": lambda t: (t - 1) * np.log(t),
    "tv": lambda t: abs(t - 1) / 2,
    "pearson": lambda t: (t - 1) ** 2,
    "neyman": lambda t: (1 - t) ** 2 / t,
    "hellinger": lambda t: (np.sqrt(t) - 1) ** 2,
    "le_cam": lambda t: (t - 1) ** 2 / (2 * (t + 1)),
}
RANGES = {
    "kl": math.inf,
    "reverse_kl": math.inf,
    "js": 2 * math.log(2),
    "jeffreys": math.inf,
    "tv": 1.0,
    "pearson": math.inf,
    "neyman": math.inf,
    "hellinger": 2.0,
    "le_cam": 1.0,
}
PARTNERS = {"kl": "reverse_kl", "reverse_kl": "kl", "pearson": "neyman", "neyman": "pearson"}

ratios = st.floats(-3.0, 3.0).map(lambda exponent: 10.0**exponent)


def _at(function: Callable[[NDArray[np.float64]], NDArray[np.float64]], t: float) -> float:
    return float(function(np.array([t]))[0])


@pytest.mark.parametrize("name", TEXTBOOK)
def test_named_functions_are_the_textbook_ones(name: str) -> None:
    t = np.concatenate([np.logspace(-8, 8, 161), 1.0 + np.array([-1e-3, -1e-5, 1e-5, 1e-3])])
    generator = get_generator(name)
    exact = TEXTBOOK[name](t.astype(np.longdouble)).astype(np.float64)
    np.testing.assert_allclose(generator.f(t), exact, rtol=1e-9, atol=1e-300)
    assert generator.name == name
    assert generator.maximum == pytest.approx(RANGES[name])
    assert generator.partner() is get_generator(PARTNERS.get(name, name))


def test_kernel_codes_are_distinct_and_in_the_agreed_order() -> None:
    codes = [get_generator(name).kernel_code for name in TEXTBOOK]
    codes += [alpha_divergence(3.0).kernel_code, hockey_stick(2.0).kernel_code, precision_recall(2.0).kernel_code]
    assert codes == list(range(12))
    assert [g.parameter for g in (alpha_divergence(3.0), hockey_stick(2.0), precision_recall(5.0))] == [3.0, 2.0, 5.0]
    assert hockey_stick(2.0).partner().kernel_code is None


@LAW
@given(f=divergence_generators())
def test_limits_at_the_ends_and_at_one(f: FGenerator) -> None:
    at_zero, at_one = f.f(np.array([0.0, 1.0]))
    assert at_one == 0.0
    assert at_zero == pytest.approx(f.at_zero)
    # for t^0.9 the limit of f(t)/t is reached slowly, so this compares with f(0) of the partner
    assert f.slope_at_infinity == pytest.approx(f.partner().at_zero)
    assert f.at_zero == pytest.approx(f.partner().slope_at_infinity)
    assert f.maximum > 0.0


@LAW
@given(f=divergence_generators())
def test_no_warning_and_no_nan_at_the_ends_of_float64(f: FGenerator) -> None:
    t = np.array([0.0, 5e-324, 1e-300, 1e300])
    assert not np.isnan(f.f(t)).any()
    assert not np.isnan(f.derivative(t[1:])).any()


@LAW
@given(f=divergence_generators(), t=ratios, s=ratios)
def test_the_derivative_gives_a_line_below_f(f: FGenerator, t: float, s: float) -> None:
    line = _at(f.f, t) + _at(f.derivative, t) * (s - t)
    size = 1.0 + abs(_at(f.f, t)) + abs(_at(f.derivative, t)) * (s + t)
    assert _at(f.f, s) >= line - 1e-12 * size


@LAW
@given(f=divergence_generators(), t=ratios)
def test_smooth_derivatives_are_limits_of_differences(f: FGenerator, t: float) -> None:
    h = 1e-5 * t
    below, above = _at(f.derivative, t - h), _at(f.derivative, t + h)
    difference = (_at(f.f, t + h) - _at(f.f, t - h)) / (2 * h)
    noise = 1e-14 * (1.0 + abs(_at(f.f, t))) / h
    assert below - noise <= difference <= above + noise


@LAW
@given(f=divergence_generators(), t=ratios)
def test_partner_is_the_perspective(f: FGenerator, t: float) -> None:
    partner = f.partner()
    size = 1.0 + abs(_at(f.f, t))
    assert t * _at(partner.f, 1 / t) == pytest.approx(_at(f.f, t), abs=1e-12 * size)
    assert _at(partner.partner().f, t) == pytest.approx(_at(f.f, t), abs=1e-12 * size)
    assert partner.partner().name == f.name or f.name.startswith("alpha")
    assert partner.partner().kernel_code == f.kernel_code


@LAW
@given(f=divergence_generators())
def test_generators_can_be_pickled(f: FGenerator) -> None:
    assert _at(pickle.loads(pickle.dumps(f)).f, 2.0) == _at(f.f, 2.0)


@LAW
@given(alpha=st.floats(-3.0, 4.0), t=ratios)
def test_alpha_family_is_its_formula(alpha: float, t: float) -> None:
    value = _at(alpha_divergence(alpha).f, t)
    if min(abs(alpha), abs(alpha - 1.0)) > 0.01:
        formula = (t**alpha - alpha * t - (1 - alpha)) / (alpha * (alpha - 1))
        assert value == pytest.approx(formula, rel=1e-10, abs=1e-10 * (t + t**alpha))


@LAW
@given(t=ratios, distance=st.floats(1e-14, 1e-6))
def test_alpha_family_tends_to_kl_and_reverse_kl(t: float, distance: float) -> None:
    for alpha, limit in ((1.0, "kl"), (0.0, "reverse_kl")):
        expected = _at(get_generator(limit).f, t)
        for near in (alpha - distance, alpha + distance):
            size = (1.0 + t) * (1.0 + math.log(t) ** 2)
            assert _at(alpha_divergence(near).f, t) == pytest.approx(expected, abs=(distance + 1e-15) * size)
    assert alpha_divergence(1) is get_generator("kl")
    assert alpha_divergence(0) is get_generator("reverse_kl")


@pytest.mark.parametrize(
    ("alpha", "name", "factor"), [(0.5, "hellinger", 2.0), (2, "pearson", 0.5), (-1, "neyman", 0.5)]
)
def test_alpha_family_has_its_special_cases(alpha: float, name: str, factor: float) -> None:
    t = np.logspace(-4, 4, 41)
    np.testing.assert_allclose(alpha_divergence(alpha).f(t), factor * get_generator(name).f(t), rtol=1e-10, atol=1e-14)


def test_smooth_generators_keep_their_digits_near_one() -> None:
    """f(1 + u) = f''(1) u^2 / 2 + O(u^3). u = 2^-30 is exact, so 9 digits remain where f could cancel."""
    u = 2.0**-30
    curvatures = {"kl": 1, "reverse_kl": 1, "js": 0.5, "jeffreys": 2, "pearson": 2, "neyman": 2, "hellinger": 0.5}
    for name, curvature in (curvatures | {"le_cam": 0.5}).items():
        for t in (1.0 - u, 1.0 + u):
            assert _at(get_generator(name).f, t) == pytest.approx(curvature * u**2 / 2, rel=1e-6)
    for alpha in (-2.0, 0.3, 0.5, 0.7, 3.0):
        assert _at(alpha_divergence(alpha).f, 1.0 + u) == pytest.approx(u**2 / 2, rel=1e-6)


@LAW
@given(data=st.data(), size=st.integers(2, 8), gamma=st.floats(1.0, 10.0))
def test_hockey_stick_is_the_largest_excess_of_an_event(data: st.DataObject, size: int, gamma: float) -> None:
    p, q = data.draw(pmfs(size=size)), data.draw(pmfs(size=size))
    events = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    largest = (events @ (p - gamma * q)).max()
    assert f_divergence(p, q, f=hockey_stick(gamma)) == pytest.approx(largest, abs=1e-14)
    assert f_divergence(p, q, f=hockey_stick(1.0)) == pytest.approx(f_divergence(p, q, f="tv"), abs=1e-14)


@LAW
@given(data=st.data(), size=st.integers(2, 8), lam=st.floats(0.05, 20.0))
def test_precision_recall_divergence_is_a_point_of_the_curve(data: st.DataObject, size: int, lam: float) -> None:
    p, q = data.draw(pmfs(size=size)), data.draw(pmfs(size=size))
    precision = np.minimum(lam * p, q).sum()
    assert min(lam, 1.0) - f_divergence(p, q, f=precision_recall(lam)) == pytest.approx(precision, abs=1e-13)


@LAW
@given(data=st.data(), size=st.integers(2, 8))
def test_precision_and_recall_are_the_limits(data: st.DataObject, size: int) -> None:
    p, q = data.draw(pmfs(size=size)), data.draw(pmfs(size=size))
    large = 1e9  # more than any ratio of two positive probabilities here
    precision = 1.0 - f_divergence(p, q, f=precision_recall(large))
    recall = 1.0 - f_divergence(p, q, f=precision_recall(1.0 / large)) * large
    assert precision == pytest.approx(q[p > 0].sum(), abs=1e-6)
    assert recall == pytest.approx(p[q > 0].sum(), abs=1e-6)


@pytest.mark.parametrize("alpha", [math.nan, math.inf, "1", None, True])
def test_alpha_must_be_a_finite_number(alpha: Any) -> None:
    with pytest.raises(ValueError, match="alpha="):
        alpha_divergence(alpha)


@pytest.mark.parametrize("parameter", [0.0, -1.0, math.nan, math.inf])
def test_hinge_parameters_must_be_positive(parameter: float) -> None:
    with pytest.raises(ValueError, match="gamma="):
        hockey_stick(parameter)
    with pytest.raises(ValueError, match="lam="):
        precision_recall(parameter)


def test_unknown_generators_are_errors() -> None:
    with pytest.raises(ValueError, match="'kld' is unknown; choose one of 'kl', 'reverse_kl'"):
        get_generator("kld")
    with pytest.raises(TypeError, match="f is int"):
        get_generator(3)  # type: ignore[arg-type]


def test_units() -> None:
    assert unit_scale(get_generator("tv"), None) == 1.0
    assert unit_scale(get_generator("js"), 2) == pytest.approx(1.0 / math.log(2.0))
    with pytest.raises(ValueError, match="no meaning for 'tv'"):
        unit_scale(get_generator("tv"), 2)
    for base in (0, 1, -2, math.nan, math.inf, "2"):
        with pytest.raises(ValueError, match="not a base of logarithms"):
            unit_scale(get_generator("kl"), base)  # type: ignore[arg-type]


class TestUserGenerator:
    @pytest.mark.parametrize("name", TEXTBOOK)
    def test_agrees_with_the_built_in_one(self, name: str) -> None:
        built_in, user = get_generator(name), get_generator(TEXTBOOK[name])
        assert user.at_zero == pytest.approx(built_in.at_zero, abs=1e-9)
        assert user.slope_at_infinity == pytest.approx(built_in.slope_at_infinity, abs=1e-9)
        t = np.array([0.0, 0.01, 0.3, 1.0, 2.0, 50.0])
        np.testing.assert_allclose(user.f(t), built_in.f(t), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(user.partner().f(t), built_in.partner().f(t), rtol=1e-9, atol=1e-9)
        smooth = t[[1, 2, 4, 5]]
        np.testing.assert_allclose(user.derivative(smooth), built_in.derivative(smooth), rtol=1e-7)
        np.testing.assert_allclose(user.partner().derivative(smooth), built_in.partner().derivative(smooth), rtol=1e-7)

    @LAW
    @given(data=st.data(), f=divergence_generators(), size=st.integers(1, 8), c=st.floats(-5.0, 5.0))
    def test_a_linear_part_changes_nothing(self, data: st.DataObject, f: FGenerator, size: int, c: float) -> None:
        p, q = data.draw(pmfs(size=size)), data.draw(pmfs(size=size))
        tilted = user_generator(
            lambda t: f.f(t) + c * (t - 1.0),
            at_zero=f.at_zero - c,
            slope_at_infinity=f.slope_at_infinity + c,
        )
        expected = f_divergence(p, q, f=f)
        assert f_divergence(p, q, f=tilted) == pytest.approx(expected, rel=1e-10, abs=1e-10)

    def test_functions_that_are_not_generators_are_errors(self) -> None:
        with pytest.raises(ValueError, match="is not convex"):
            user_generator(lambda t: np.sqrt(t) - 1.0)
        with pytest.raises(ValueError, match="is not convex"):
            user_generator(lambda t: np.where(t < 3.0, (t - 1.0) ** 2, 4.0))
        with pytest.raises(ValueError, match=r"f\(1\) is 1"):
            user_generator(lambda t: t**2)
        with pytest.raises(ValueError, match=r"not finite at t=0\.0001"):
            user_generator(lambda t: np.where(t < 0.01, np.nan, t - 1.0))
        with pytest.raises(ValueError, match="to shape"):
            user_generator(lambda t: np.zeros(3))

    def test_rounding_does_not_make_a_function_concave(self) -> None:
        """A hockey stick with a rounded corner, 1e-7 below it, where terms of size 2 cancel."""

        def rounded(t: NDArray[np.float64]) -> NDArray[np.float64]:
            return 0.5 * (t - 2.0 + np.hypot(t - 2.0, 1e-3))

        at_one = rounded(np.ones(1))
        smooth = user_generator(lambda t: rounded(t) - at_one)
        p, q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
        assert f_divergence(p, q, f=smooth) == pytest.approx(f_divergence(p, q, f=hockey_stick(2.0)), abs=1e-6)

    def test_a_limit_that_cannot_be_read_off_must_be_given(self) -> None:
        def slow(t: NDArray[np.float64]) -> NDArray[np.float64]:
            return 1.0 - t**0.003  # 0.75 at 1e-200, and 1 at 0

        with pytest.raises(ValueError, match="pass at_zero"):
            user_generator(slow)
        assert user_generator(slow, at_zero=1.0, slope_at_infinity=0.0).at_zero == 1.0
        with pytest.raises(ValueError, match="slope_at_infinity=nan"):
            user_generator(slow, at_zero=1.0, slope_at_infinity=math.nan)
