from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from egtmetrics.divergences import (
    FGenerator,
    alpha_divergence,
    decompose,
    f_divergence,
    get_generator,
    is_delta_ego,
    is_delta_mgo,
    largest_feasible_gap,
    phi,
    precision_recall,
    solve_divergence,
    two_level_model,
    unequal_model,
)
from tests.strategies import GroupedPmfs, divergence_generators, grouped_pmfs, pmfs

LAW = settings(max_examples=30, deadline=None)


def within_range(f: FGenerator, fraction: float) -> float:
    """A divergence at that fraction of the maximum, or of 20 if the maximum is larger."""
    return fraction * min(f.maximum, 20.0)


class TestLemmaA1:
    @LAW
    @given(f=divergence_generators(), alpha=st.floats(0.01, 0.99), beta=st.floats(1.01, 100.0))
    def test_phi_is_its_formula(self, f: FGenerator, alpha: float, beta: float) -> None:
        inside, outside = f.f(np.array([beta * alpha, (1 - alpha) * beta / (beta - 1)]))
        assert phi(alpha, beta, f=f) == pytest.approx(
            inside / beta + (beta - 1) / beta * outside, rel=1e-9, abs=1e-15 + 1e-9 * (abs(inside) + abs(outside))
        )

    @LAW
    @given(
        f=divergence_generators(),
        data=st.data(),
        size=st.integers(1, 8),
        alpha=st.floats(1e-3, 1.0 - 1e-3),
        beta=st.floats(1.001, 1e3),
    )
    def test_the_model_is_a_law_with_the_same_support_at_divergence_phi(
        self, f: FGenerator, data: st.DataObject, size: int, alpha: float, beta: float
    ) -> None:
        r = data.draw(pmfs(size=size))
        model = two_level_model(r, alpha=alpha, beta=beta)
        assert model.q.sum() == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_array_equal(model.q > 0, model.r > 0)
        np.testing.assert_allclose(np.bincount(model.cell, weights=model.r), r, rtol=1e-12)
        np.testing.assert_allclose(model.r, r[model.cell] * model.share, rtol=1e-12)
        np.testing.assert_allclose(np.bincount(model.cell, weights=model.share), 1.0, rtol=1e-12)
        assert len(model.r) <= size + 1
        assert f_divergence(model.r, model.q, f=f) == pytest.approx(phi(alpha, beta, f=f), rel=1e-9, abs=1e-11)

    @LAW
    @given(data=st.data(), size=st.integers(1, 8), alpha=st.floats(1e-3, 1.0 - 1e-3))
    def test_q_has_two_levels_on_sets_of_the_given_probabilities(
        self, data: st.DataObject, size: int, alpha: float
    ) -> None:
        model = two_level_model(data.draw(pmfs(size=size)), alpha=alpha, beta=4.0)
        support = model.r > 0
        density = model.q[support] / model.r[support]
        inside = np.isclose(density, 1.0 / (4.0 * alpha), rtol=1e-9)
        assert np.isclose(density[~inside], 0.75 / (1.0 - alpha), rtol=1e-9).all()
        if not np.isclose(1.0 / (4.0 * alpha), 0.75 / (1.0 - alpha), rtol=1e-6):
            assert model.r[support][inside].sum() == pytest.approx(alpha, abs=1e-12)
            assert model.q[support][inside].sum() == pytest.approx(0.25, abs=1e-12)

    @LAW
    @given(f=divergence_generators(), fraction=st.floats(1e-6, 0.999))
    def test_surjectivity(self, f: FGenerator, fraction: float) -> None:
        value = within_range(f, fraction)
        alpha, beta = solve_divergence(f, value)
        assert 0.0 < alpha < 1.0 < beta
        assert phi(alpha, beta, f=f) == pytest.approx(value, rel=1e-9)

    @LAW
    @given(f=divergence_generators())
    def test_boundary_values(self, f: FGenerator) -> None:
        assert phi(0.5, 2.0, f=f) == 0.0
        along = [phi(1.0 - s, 1.0 / s, f=f) for s in (0.5, 0.2, 1e-2, 1e-4, 1e-8)]
        assert all(a <= b * (1.0 + 1e-9) for a, b in itertools.pairwise(along))
        assert along[-1] <= f.maximum * (1.0 + 1e-12)

    @pytest.mark.parametrize("name", ["tv", "js", "hellinger", "le_cam"])
    def test_phi_tends_to_a_finite_maximum(self, name: str) -> None:
        assert phi(1.0 - 1e-13, 1e13, f=name) == pytest.approx(get_generator(name).maximum, abs=1e-5)

    @pytest.mark.parametrize(
        ("f", "value"),
        [
            ("kl", 600.0),
            ("reverse_kl", 600.0),
            ("jeffreys", 600.0),
            ("pearson", 1e100),
            ("neyman", 1e100),
            (alpha_divergence(0.1), 0.99 / 0.09),
            (alpha_divergence(0.9), 0.99 / 0.09),
            ("js", 2.0 * math.log(2.0) - 1e-10),
            ("tv", 1.0 - 1e-12),
            ("kl", 1e-12),
        ],
    )
    def test_values_near_the_ends(self, f: Any, value: float) -> None:
        alpha, beta = solve_divergence(f, value)
        model = two_level_model([0.1, 0.0, 0.6, 0.3], alpha=alpha, beta=beta)
        assert f_divergence(model.r, model.q, f=f) == pytest.approx(value, rel=1e-9)

    def test_units(self) -> None:
        alpha, beta = solve_divergence("js", 1.9, base=2)
        assert phi(alpha, beta, f="js") == pytest.approx(1.9 * math.log(2))

    @pytest.mark.parametrize("value", [0.0, -1.0, 2.0, 3.0, math.nan, math.inf])
    def test_values_outside_the_range_are_errors(self, value: float) -> None:
        with pytest.raises(ValueError, match="is not between 0 and 2, the maximum"):
            solve_divergence("js", value, base=2)

    def test_what_float64_cannot_hold_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="too close to an end"):
            solve_divergence("kl", 1e4)

    def test_a_cell_that_underflows_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="probability under Q underflows"):
            two_level_model([1e-30, 1.0], alpha=0.5, beta=1e297)
        with pytest.raises(ValueError, match="probability under Q underflows"):
            unequal_model([0.5, 1e-30, 0.5], ["f", "f", "m"], eps=560.0, gamma=80.0)

    @pytest.mark.parametrize(("alpha", "beta"), [(0.0, 2.0), (1.0, 2.0), (0.5, 1.0), (0.5, math.inf), (math.nan, 2.0)])
    def test_parameters_outside_their_ranges_are_errors(self, alpha: float, beta: float) -> None:
        with pytest.raises(ValueError, match="expected 0 < alpha < 1 < beta"):
            phi(alpha, beta)
        with pytest.raises(ValueError, match="expected 0 < alpha < 1 < beta"):
            two_level_model([1.0], alpha=alpha, beta=beta)
        with pytest.raises(ValueError, match=r"r has shape \(1, 1\)"):
            two_level_model([[1.0]], alpha=0.5, beta=2.0)


class TestTheoremA3:
    @LAW
    @given(
        laws=grouped_pmfs(equal=True),
        f=divergence_generators(),
        level=st.floats(1e-3, 0.99),
        gap=st.floats(0.0, 0.99),
    )
    def test_the_construction(self, laws: GroupedPmfs, f: FGenerator, level: float, gap: float) -> None:
        labels = np.unique(laws.groups).tolist()
        eps = within_range(f, level)
        gamma = gap * largest_feasible_gap(eps, 1.0 / len(labels), f=f)
        model = unequal_model(laws.p, laws.groups, eps=eps, gamma=gamma, f=f, worst_group=labels[-1])
        assert f_divergence(model.p, model.q, f=f) == pytest.approx(eps, rel=1e-7)
        result = decompose(model.p, model.q, model.groups, f=f)
        for label, value in result.by_group.items():
            expected = eps + gamma * (1 - 1 / len(labels)) if label == labels[-1] else eps - gamma / len(labels)
            assert value == pytest.approx(expected, rel=1e-7, abs=1e-9 * eps)
            assert model.by_group[label] == pytest.approx(expected, rel=1e-7, abs=1e-9 * eps)
        assert is_delta_mgo(model.p, model.q, model.groups, delta=1e-9)
        assert is_delta_ego(model.q, model.groups)
        np.testing.assert_array_equal(model.p > 0, model.q > 0)
        np.testing.assert_allclose(np.bincount(model.cell, weights=model.p), laws.p, rtol=1e-12)
        np.testing.assert_array_equal(model.groups, laws.groups[model.cell])
        np.testing.assert_allclose(model.p, laws.p[model.cell] * model.share, rtol=1e-12)

    @LAW
    @given(laws=grouped_pmfs(matching=True), f=divergence_generators(), gap=st.floats(0.01, 0.99))
    def test_it_needs_no_equalized_odds(self, laws: GroupedPmfs, f: FGenerator, gap: float) -> None:
        worst = str(np.unique(laws.groups)[0])
        eps = within_range(f, 0.3)
        gamma = gap * largest_feasible_gap(eps, float(laws.p[laws.groups == worst].sum()), f=f)
        try:
            model = unequal_model(laws.p, laws.groups, eps=eps, gamma=gamma, f=f)
        except ValueError as error:  # a group of 1e-6 can need a divergence of 1e7
            assume("for float64" not in str(error))
            raise
        assert f_divergence(model.p, model.q, f=f) == pytest.approx(eps, rel=1e-7)
        assert is_delta_mgo(model.p, model.q, model.groups, delta=1e-9)
        others = [value for label, value in model.by_group.items() if label != worst]
        assert model.by_group[worst] - max(others) == pytest.approx(gamma, rel=1e-7, abs=1e-9)

    @LAW
    @given(laws=grouped_pmfs(matching=True), f=divergence_generators())
    def test_no_model_has_a_larger_gap(self, laws: GroupedPmfs, f: FGenerator) -> None:
        result = decompose(*laws, f=f)
        assume(0.0 < result.total < f.maximum * (1.0 - 1e-9))
        divergences: dict[Any, float] = {a: d for a, d in result.by_group.items() if d is not None}
        for worst, value in divergences.items():
            gap = value - max(other for label, other in divergences.items() if label != worst)
            largest = largest_feasible_gap(result.total, result.real_proportions[worst], f=f)
            assert gap <= largest * (1.0 + 1e-9) + 1e-9 * (1.0 + value)

    def test_the_pair_of_figure_1(self) -> None:
        """It has gamma = 1.96 above eps = 1: the theorem's gamma < eps is not necessary."""
        model = unequal_model([0.5, 0.5], [0, 1], eps=1.0, gamma=1.96, f="js", base=2, worst_group=1)
        assert model.by_group == pytest.approx({0: 0.02, 1: 1.98})
        assert f_divergence(model.p, model.q, f="js", base=2) == pytest.approx(1.0)

    def test_gamma_below_eps_is_not_sufficient(self) -> None:
        with pytest.raises(ValueError, match=r"gamma=0\.5 is not feasible with eps=0\.95.*pass gamma in \[0, 0\.1\)"):
            unequal_model([0.5, 0.5], ["f", "m"], eps=0.95, gamma=0.5, f="tv")

    @pytest.mark.parametrize(("eps", "n_groups"), [(0.95, 2), (0.5, 3), (0.05, 4)])
    def test_feasible_is_exactly_both_inequalities(self, eps: float, n_groups: int) -> None:
        """Total variation, maximum 1: eps + gamma (n - 1) / n < 1 and eps - gamma / n > 0."""
        p = np.full(n_groups, 1.0 / n_groups)
        for gamma in np.linspace(0.01, 2.0, 200) * (1.0 + 1e-7):
            feasible = eps + gamma * (n_groups - 1) / n_groups < 1.0 and eps - gamma / n_groups > 0.0
            if feasible:
                unequal_model(p, np.arange(n_groups), eps=eps, gamma=gamma, f="tv")
            else:
                with pytest.raises(ValueError, match="is not feasible"):
                    unequal_model(p, np.arange(n_groups), eps=eps, gamma=gamma, f="tv")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"eps": 0.0}, "eps=0.0 is not between 0 and 1"),
            ({"eps": 1.0}, "eps=1.0 is not between 0 and 1"),
            ({"eps": math.nan}, "eps=nan is not between"),
            ({"gamma": -0.1}, "gamma=-0.1 is not feasible"),
            ({"gamma": math.nan}, "gamma=nan is not feasible"),
            ({"worst_group": "x"}, "worst_group='x' is not one of the groups 'f', 'm'"),
            ({"groups": ["f", "f"]}, "proportion=1.0 is not between"),
            ({"p": [1.0, 0.0]}, "group 'm' has no mass in p"),
            ({"p": [0.5, 0.6]}, "p sums to 1.1"),
            ({"base": 2}, "no meaning for 'tv'"),
        ],
    )
    def test_bad_input_is_an_error(self, changes: dict[str, Any], message: str) -> None:
        arguments: dict[str, Any] = {"p": [0.5, 0.5], "groups": ["f", "m"], "eps": 0.5, "gamma": 0.1, "f": "tv"}
        with pytest.raises(ValueError, match=message):
            unequal_model(**(arguments | changes))

    def test_units(self) -> None:
        assert largest_feasible_gap(1.0, 0.5, f="js", base=2) == pytest.approx(2.0)
        assert largest_feasible_gap(0.1, 0.25, f=precision_recall(1.0)) == pytest.approx(0.4)


@pytest.mark.parametrize("proportion", [-0.5, 0.0, 1.0, 1.5, math.nan])
def test_no_group_has_such_a_proportion(proportion: float) -> None:
    with pytest.raises(ValueError, match=r"proportion=.* is not between 0 and 1"):
        largest_feasible_gap(0.95, proportion, f="tv")
