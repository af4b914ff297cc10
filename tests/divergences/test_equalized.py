from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics.divergences import (
    FGenerator,
    conditional_closure,
    decompose,
    delta_egt,
    egt_lower_bound,
    f_divergence,
    is_delta_ego,
    is_delta_egt,
    is_delta_mgo,
)
from tests.strategies import GroupedPmfs, divergence_generators, grouped_pmfs, pmfs

LAW = settings(max_examples=30, deadline=None)


@st.composite
def families(draw: st.DrawFn) -> tuple[GroupedPmfs, np.ndarray[Any, Any]]:
    """A real law, and 1 to 4 models over 2 or 3 groups with the same odds. The first model is q of the law."""
    laws = draw(grouped_pmfs(matching=True, max_groups=3))
    members = [laws.q]
    for _ in range(draw(st.integers(0, 3))):
        member = np.zeros(len(laws.p))
        for label in np.unique(laws.groups):
            inside = laws.groups == label
            member[inside] = laws.p[inside].sum() * draw(pmfs(size=int(inside.sum())))
        members.append(member)
    return laws, np.stack(members)


class TestTheoremA4:
    @LAW
    @given(family=families(), f=divergence_generators())
    def test_the_bound_over_an_enumerated_family(self, family: Any, f: FGenerator) -> None:
        laws, models = family
        closure = conditional_closure(models, laws.groups)
        divergences = f_divergence(laws.p, closure, f=f, normalize=True)
        best = closure[int(np.argmin(divergences))]
        worst = max(d for d in decompose(laws.p, best, laws.groups, f=f).by_group.values() if d is not None)
        bound = egt_lower_bound(laws.p, models, laws.groups, delta=0.0, f=f)
        if np.isfinite(divergences).any():  # else every member of the closure is a minimiser
            assert bound == pytest.approx(worst, rel=1e-8, abs=1e-8)
        for model in models:
            if not np.isfinite(f_divergence(laws.p, model, f=f)):
                continue
            delta = delta_egt(laws.p, model, laws.groups, f=f)
            assert is_delta_egt(laws.p, model, laws.groups, delta=delta, f=f)
            value = f_divergence(laws.p, model, f=f)
            assert value >= egt_lower_bound(laws.p, models, laws.groups, delta=delta, f=f) - 1e-9 * (1.0 + value)
            for inside in (laws.groups == label for label in np.unique(laws.groups)):
                pi = laws.p[inside].sum()
                conditionals = f_divergence(laws.p[inside] / pi, models[:, inside] / pi, f=f, normalize=True)
                assert value >= np.min(conditionals) - delta * (1.0 - pi) - 1e-9 * (1.0 + value)

    def test_the_closure_recombines_and_keeps_its_members(self) -> None:
        models = np.array([[0.25, 0.25, 0.5, 0.0], [0.1, 0.3, 0.3, 0.3]])
        groups = ["f", "f", "m", "m"]
        closure = conditional_closure(models, groups)
        assert closure.shape == (8, 4)
        members = {tuple(row) for row in closure.round(12).tolist()}
        expected = {
            tuple(np.round([pi * a, pi * (1 - a), (1 - pi) * b, (1 - pi) * (1 - b)], 12))
            for pi, a, b in itertools.product([0.5, 0.4], [0.5, 0.25], [1.0, 0.5])
        }
        assert members == expected
        assert {tuple(row) for row in models.tolist()} <= members

    def test_bad_input_is_an_error(self) -> None:
        p, groups = [0.5, 0.5], ["f", "m"]
        with pytest.raises(ValueError, match=r"models\[1\] has group proportions .* matching odds"):
            egt_lower_bound(p, [[0.5, 0.5], [0.4, 0.6]], groups, delta=0.1)
        with pytest.raises(ValueError, match="delta=-1 is not a number of at least 0"):
            egt_lower_bound(p, [[0.5, 0.5]], groups, delta=-1)
        with pytest.raises(ValueError, match=r"group 'f' has no mass in models\[0\]"):
            conditional_closure([[0.0, 1.0]], groups)
        with pytest.raises(ValueError, match=r"models has shape \(2,\), expected \(M, K\)"):
            conditional_closure([0.5, 0.5], groups)
        with pytest.raises(ValueError, match="has 125000 members, more than 100000"):
            conditional_closure(np.tile([0.5, 0.5], (50, 1)), groups)


class TestPredicates:
    @LAW
    @given(laws=grouped_pmfs(positive=True), f=divergence_generators())
    def test_delta_egt_is_the_largest_pairwise_difference(self, laws: GroupedPmfs, f: FGenerator) -> None:
        values = list(decompose(*laws, f=f).by_group.values())
        largest = max(abs(a - b) for a in values for b in values if a is not None and b is not None)
        delta = delta_egt(*laws, f=f)
        assert delta == pytest.approx(largest, rel=1e-9, abs=1e-12)
        assert is_delta_egt(*laws, delta=delta, f=f)
        if delta > 1e-6:
            assert not is_delta_egt(*laws, delta=0.99 * delta, f=f)

    def test_odds(self) -> None:
        groups = ["a", "a", "b", "c"]
        p, q = [0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.4, 0.2]
        assert is_delta_mgo(p, q, groups, delta=0.2)
        assert not is_delta_mgo(p, q, groups, delta=0.19)
        assert is_delta_ego(q, groups, delta=0.2)
        assert not is_delta_ego(q, groups, delta=0.19)
        assert is_delta_ego(p, groups, delta=0.1)
        assert is_delta_mgo(p, p, groups)
        with pytest.raises(ValueError, match="delta=nan"):
            is_delta_ego(p, groups, delta=math.nan)

    def test_infinite_divergences(self) -> None:
        groups = ["a", "a", "b", "b"]
        p = [0.25] * 4
        assert delta_egt(p, [0.5, 0.0, 0.25, 0.25], groups) == math.inf
        with pytest.raises(ValueError, match="infinite in every group for 'kl'"):
            delta_egt(p, [0.5, 0.0, 0.5, 0.0], groups)
        assert delta_egt(p, [0.5, 0.0, 0.5, 0.0], groups, f="js") == 0.0

    def test_delta_egt_needs_conditionals_of_two_groups(self) -> None:
        with pytest.raises(ValueError, match="names one group"):
            delta_egt([0.5, 0.5], [0.5, 0.5], ["a", "a"])
        with pytest.raises(ValueError, match="group 'b' has no mass in q"):
            delta_egt([0.5, 0.5], [1.0, 0.0], ["a", "b"])
        with pytest.raises(ValueError, match="group 'a' has no mass in p"):
            delta_egt([0.0, 1.0], [0.5, 0.5], ["a", "b"])

    def test_units(self) -> None:
        arguments: Any = ([0.2, 0.3, 0.5], [0.3, 0.2, 0.5], ["f", "f", "m"])
        assert delta_egt(*arguments, base=2) * math.log(2) == pytest.approx(delta_egt(*arguments))
