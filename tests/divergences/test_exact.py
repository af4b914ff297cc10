from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import kl_div, rel_entr

from egtmetrics.divergences import FGenerator, alpha_divergence, f_divergence, get_generator, user_generator
from tests.strategies import GaussianCase, divergence_generators, gaussian_cases, pmfs

LAW = settings(max_examples=30, deadline=None)

STRICT = ["kl", "reverse_kl", "js", "jeffreys", "pearson", "neyman", "hellinger", "le_cam"]


def by_definition(p: Any, q: Any, f: FGenerator) -> float:
    """Definition 2.1, atom by atom."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if b > 0:
            total += b * (float(f.f(np.array([a / b]))[0]) if a > 0 else f.at_zero)
        elif a > 0:
            total += f.slope_at_infinity * a
    return total


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    size = draw(st.integers(1, 8))
    return draw(pmfs(size=size)), draw(pmfs(size=size))


@LAW
@given(pair=pairs(), f=divergence_generators())
def test_is_the_definition(pair: tuple[Any, Any], f: FGenerator) -> None:
    p, q = pair
    value = f_divergence(p, q, f=f)
    assert value == pytest.approx(by_definition(p, q, f), rel=1e-9, abs=1e-12)
    assert 0.0 <= value <= f.maximum * (1.0 + 1e-12)


@LAW
@given(pair=pairs())
def test_against_scipy(pair: tuple[Any, Any]) -> None:
    p, q = pair
    assert f_divergence(p, q) == pytest.approx(rel_entr(p, q).sum(), abs=1e-13)
    assert f_divergence(p, q) == pytest.approx(kl_div(p, q).sum(), abs=1e-13)
    assert f_divergence(p, q, f="reverse_kl") == pytest.approx(rel_entr(q, p).sum(), abs=1e-13)
    if np.abs(p - q).max() > 1e-6:  # else scipy may take the root of a rounding error below 0
        assert f_divergence(p, q, f="js", base=2) == pytest.approx(2.0 * jensenshannon(p, q, base=2) ** 2, abs=1e-12)


@LAW
@given(case=gaussian_cases(truncated=False), alpha=st.floats(-0.7, 1.7))
def test_gaussians(case: GaussianCase, alpha: float) -> None:
    _check_closed_forms(case, alpha)


@LAW
@given(case=gaussian_cases(truncated=True), alpha=st.floats(-0.7, 1.7))
def test_truncated_gaussians(case: GaussianCase, alpha: float) -> None:
    _check_closed_forms(case, alpha)


def _check_closed_forms(case: GaussianCase, alpha: float) -> None:
    def value(f: str | FGenerator) -> Any:
        return f_divergence(case.p, case.q, f=f, weights=case.weights)

    assert value("kl") == pytest.approx(case.kl, abs=1e-9)
    assert value("hellinger") == pytest.approx(2.0 - 2.0 * case.power_sum(0.5), abs=1e-9)
    assert value("pearson") == pytest.approx(case.power_sum(2.0) - 1.0, abs=1e-9)
    if min(abs(alpha), abs(alpha - 1.0)) > 0.05:
        closed = (case.power_sum(alpha) - 1.0) / (alpha * (alpha - 1.0))
        assert value(alpha_divergence(alpha)) == pytest.approx(closed, abs=1e-9)


@LAW
@given(pair=pairs(), f=divergence_generators())
def test_the_partner_swaps_the_arguments(pair: tuple[Any, Any], f: FGenerator) -> None:
    p, q = pair
    assert f_divergence(p, q, f=f) == pytest.approx(f_divergence(q, p, f=f.partner()), rel=1e-12, abs=1e-14)


@LAW
@given(pair=pairs(), f=divergence_generators())
def test_zero_for_equal_laws(pair: tuple[Any, Any], f: FGenerator) -> None:
    assert f_divergence(pair[0], pair[0], f=f) == 0.0


@LAW
@given(pair=pairs(), name=st.sampled_from(STRICT))
def test_positive_for_other_laws_where_f_is_strictly_convex(pair: tuple[Any, Any], name: str) -> None:
    p, q = pair
    distance = np.abs(p - q).sum()
    if distance > 1e-12:
        # each of them is at least an eighth of the squared total variation, by inequalities like Pinsker's
        assert f_divergence(p, q, f=name) > distance**2 / 32


@LAW
@given(f=divergence_generators(), data=st.data(), size=st.integers(1, 6), mix=st.floats(0.0, 1.0))
def test_joint_convexity(f: FGenerator, data: st.DataObject, size: int, mix: float) -> None:
    p, q, r, s = (data.draw(pmfs(size=size)) for _ in range(4))
    mixed = f_divergence(mix * p + (1 - mix) * r, mix * q + (1 - mix) * s, f=f, normalize=True)
    parts = [(weight, f_divergence(*pair, f=f)) for weight, pair in ((mix, (p, q)), (1 - mix, (r, s))) if weight > 0]
    assert mixed <= sum(weight * value for weight, value in parts) * (1.0 + 1e-9) + 1e-11


@LAW
@given(pair=pairs(), f=divergence_generators(), data=st.data())
def test_merging_bins_and_relabelling(pair: tuple[Any, Any], f: FGenerator, data: st.DataObject) -> None:
    p, q = pair
    value = f_divergence(p, q, f=f)
    order = np.array(data.draw(st.permutations(range(len(p)))))
    assert f_divergence(p[order], q[order], f=f) == pytest.approx(value, rel=1e-12, abs=1e-14)
    bins = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(p), max_size=len(p))))
    merged = [np.bincount(bins, weights=law, minlength=4) for law in pair]
    assert f_divergence(*merged, f=f) <= value * (1.0 + 1e-9) + 1e-12


@LAW
@given(f=divergence_generators(), data=st.data(), size=st.integers(1, 6), n_pairs=st.integers(1, 4))
def test_a_batch_is_its_rows(f: FGenerator, data: st.DataObject, size: int, n_pairs: int) -> None:
    p, q = (np.stack([data.draw(pmfs(size=size)) for _ in range(n_pairs)]) for _ in range(2))
    np.testing.assert_array_equal(f_divergence(p, q, f=f), [f_divergence(a, b, f=f) for a, b in zip(p, q, strict=True)])
    np.testing.assert_array_equal(f_divergence(p[0], q, f=f), [f_divergence(p[0], b, f=f) for b in q])
    np.testing.assert_array_equal(f_divergence(p, q[0], f=f), [f_divergence(a, q[0], f=f) for a in p])


def test_infinite_where_it_should_be() -> None:
    real_only, fake_only = ([0.5, 0.5], [1.0, 0.0]), ([1.0, 0.0], [0.5, 0.5])
    for name, missed, invented in (
        ("kl", math.inf, math.log(2)),
        ("reverse_kl", math.log(2), math.inf),
        ("jeffreys", math.inf, math.inf),
        ("pearson", math.inf, 1.0),
        ("neyman", 1.0, math.inf),
        ("tv", 0.5, 0.5),
    ):
        assert f_divergence(*real_only, f=name) == pytest.approx(missed)
        assert f_divergence(*fake_only, f=name) == pytest.approx(invented)


def test_disjoint_laws_reach_the_maximum() -> None:
    for name in STRICT:
        generator = get_generator(name)
        assert f_divergence([1.0, 0.0], [0.0, 1.0], f=generator) == pytest.approx(generator.maximum)
    assert f_divergence([1.0, 0.0], [0.0, 1.0], f="js", base=2) == pytest.approx(2.0)


def test_denormal_probabilities_neither_overflow_nor_lose_a_finite_value() -> None:
    tiny = 1e-310
    assert f_divergence([0.5, 0.5], [tiny, 1.0]) == pytest.approx(0.5 * (math.log(0.25) - math.log(tiny)))
    assert f_divergence([tiny, 1.0], [0.5, 0.5], f="reverse_kl") == pytest.approx(f_divergence([0.5, 0.5], [tiny, 1.0]))
    assert f_divergence([5e-324, 1.0], [0.0, 1.0], f="js") == pytest.approx(0.0, abs=1e-300)
    assert f_divergence([1e-100, 1.0], [1e-300, 1.0], f="pearson") == pytest.approx(1e100)
    assert f_divergence([1e-300, 1.0], [1e-100, 1.0], f="neyman") == pytest.approx(1e100)


def test_small_divergences_keep_their_digits() -> None:
    u = 2.0**-40
    p, q = [0.5 + u, 0.5 - u], [0.5, 0.5]
    for name, second_derivative in (("kl", 1.0), ("js", 0.5), ("hellinger", 0.5), ("pearson", 2.0), ("le_cam", 0.5)):
        assert f_divergence(p, q, f=name) == pytest.approx(0.5 * second_derivative * (2 * u) ** 2, rel=1e-10)


def test_normalize_is_on_request_only() -> None:
    p, q = [2.0, 2.0], [1.0, 3.0]
    with pytest.raises(ValueError, match="p sums to 4, expected 1"):
        f_divergence(p, q)
    assert f_divergence(p, q, normalize=True) == f_divergence([0.5, 0.5], [0.25, 0.75])
    x = np.linspace(0.0, 1.0, 5)
    value = f_divergence(np.ones(5), 2.0 * x, f="tv", weights=np.full(5, 0.2), normalize=True)
    assert value == pytest.approx(f_divergence(np.full(5, 0.2), x / x.sum(), f="tv"))
    with pytest.raises(ValueError, match="q has a row of zeros"):
        f_divergence(np.eye(2), [[0.0, 0.0], [1.0, 0.0]], normalize=True)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([0.5, 0.6], [0.5, 0.5], "p sums to 1.1"),
        ([0.5, 0.5], [0.4, 0.5], "q sums to 0.9"),
        ([1.5, -0.5], [0.5, 0.5], "p holds the negative value -0.5"),
        ([0.5, 0.5], [math.nan, 0.5], "q holds NaN or infinity"),
        ([0.5, 0.5], [math.inf, 0.5], "q holds NaN or infinity"),
        ([1.0], [0.5, 0.5], r"p has shape \(1,\) and q \(2,\)"),
        (np.eye(2), np.eye(2)[[0, 1, 1]], r"p has shape \(2, 2\) and q \(3, 2\)"),
        ([], [], "p is empty"),
        (1.0, 1.0, r"p has shape \(\), expected"),
        (np.ones((1, 1, 1)), [1.0], r"p has shape \(1, 1, 1\), expected"),
        ([[0.5, 0.5], [1.0]], [0.5, 0.5], "p cannot be read as an array"),
    ],
)
def test_bad_pmfs_are_errors(p: Any, q: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        f_divergence(p, q)


def test_wrong_types_and_weights_are_errors() -> None:
    with pytest.raises(TypeError, match="p has dtype <U1"):
        f_divergence(["a", "b"], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"weights has shape \(3,\), .*p has"):
        f_divergence([0.5, 0.5], [0.5, 0.5], weights=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="weights holds the negative value"):
        f_divergence([0.5, 0.5], [0.5, 0.5], weights=[-1.0, 1.0])
    with pytest.raises(ValueError, match="weights has shape"):
        f_divergence([0.5, 0.5], [0.5, 0.5], weights=[[1.0, 1.0]])


def test_arguments_are_not_changed() -> None:
    p, q = np.array([1.0, 3.0]), np.array([2.0, 2.0])
    f_divergence(p, q, normalize=True)
    np.testing.assert_array_equal(np.concatenate([p, q]), [1.0, 3.0, 2.0, 2.0])


def test_base_is_for_logarithms() -> None:
    p, q = [0.25, 0.75], [0.5, 0.5]
    assert f_divergence(p, q, base=2) == pytest.approx(f_divergence(p, q) / math.log(2))
    assert f_divergence(p, q, f="jeffreys", base=10) == pytest.approx(f_divergence(p, q, f="jeffreys") / math.log(10))
    with pytest.raises(ValueError, match="no meaning for 'hellinger'"):
        f_divergence(p, q, f="hellinger", base=2)
    own = user_generator(lambda t: t * np.log(t), logarithmic=True)
    assert f_divergence(p, q, f=own, base=2) == pytest.approx(f_divergence(p, q, base=2))
