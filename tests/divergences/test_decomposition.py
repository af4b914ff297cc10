from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics.divergences import FGenerator, alpha_divergence, decompose, f_divergence, get_generator
from tests.strategies import GroupedPmfs, divergence_generators, grouped_pmfs

LAW = settings(max_examples=30, deadline=None)


def general_identity(laws: GroupedPmfs, f: FGenerator) -> dict[str, float]:
    """The identity without matching odds, group by group, written with the conditional laws."""
    terms = {}
    for label in np.unique(laws.groups):
        inside = laws.groups == label
        real, fake = laws.p[inside].sum(), laws.q[inside].sum()
        if fake == 0.0:
            terms[str(label)] = float(f.slope_at_infinity * real)
            continue
        p_a, q_a = laws.p[inside] / (real or 1.0), laws.q[inside] / fake
        odds = real / fake
        covered = q_a > 0
        ratios = odds * p_a[covered] / q_a[covered]
        values = np.where(ratios > 0, f.f(np.where(ratios > 0, ratios, 1.0)), f.at_zero)
        missed = odds * p_a[~covered].sum()
        outside = f.slope_at_infinity * missed if missed > 0 else 0.0
        terms[str(label)] = float(fake * ((q_a[covered] * values).sum() + outside))
    return terms


@LAW
@given(laws=grouped_pmfs(), f=divergence_generators())
def test_terms_are_the_general_identity_and_sum_to_the_total(laws: GroupedPmfs, f: FGenerator) -> None:
    result = decompose(*laws, f=f)
    expected = general_identity(laws, f)
    assert list(result.terms) == sorted(expected)
    for label, term in result.terms.items():
        assert term == pytest.approx(expected[str(label)], rel=1e-9, abs=1e-10)
    assert sum(result.terms.values()) == pytest.approx(result.total, rel=1e-10, abs=1e-10)
    assert result.total == pytest.approx(f_divergence(laws.p, laws.q, f=f), rel=1e-10, abs=1e-10)


@LAW
@given(laws=grouped_pmfs(), f=divergence_generators())
def test_by_group_is_the_divergence_of_the_conditionals(laws: GroupedPmfs, f: FGenerator) -> None:
    result = decompose(*laws, f=f)
    for label, value in result.by_group.items():
        inside = laws.groups == label
        real, fake = laws.p[inside].sum(), laws.q[inside].sum()
        assert result.real_proportions[label] == pytest.approx(real)
        assert result.fake_proportions[label] == pytest.approx(fake)
        if real > 0 and fake > 0:
            assert value == pytest.approx(
                f_divergence(laws.p[inside] / real, laws.q[inside] / fake, f=f), rel=1e-10, abs=1e-10
            )
        else:
            assert value is None


def weighted_sum(result: Any) -> float:
    assert result.weights is not None
    pairs = [(result.weights[label], value) for label, value in result.by_group.items() if value is not None]
    return float(result.proportion_term + sum(weight * value for weight, value in pairs))


@LAW
@given(laws=grouped_pmfs(matching=True), f=divergence_generators())
def test_lemma_a2(laws: GroupedPmfs, f: FGenerator) -> None:
    result = decompose(*laws, f=f)
    assert result.matching_odds
    assert result.weights == result.fake_proportions
    assert result.proportion_term == pytest.approx(0.0, abs=1e-12)
    mean = sum(result.fake_proportions[a] * value for a, value in result.by_group.items() if value is not None)
    assert mean == pytest.approx(f_divergence(laws.p, laws.q, f=f), rel=1e-10, abs=1e-10)


@LAW
@given(laws=grouped_pmfs())
def test_kl_is_proportions_plus_conditionals(laws: GroupedPmfs) -> None:
    result = decompose(*laws)
    proportions = [np.array(list(side.values())) for side in (result.real_proportions, result.fake_proportions)]
    assert result.proportion_term == pytest.approx(f_divergence(*proportions), abs=1e-12)
    conditional = sum(result.real_proportions[a] * d for a, d in result.by_group.items() if d is not None)
    assert result.proportion_term + conditional == pytest.approx(result.total, rel=1e-10, abs=1e-10)


@LAW
@given(laws=grouped_pmfs(positive=True))
def test_lemma_a2_fails_by_exactly_this_much_without_matching_odds(laws: GroupedPmfs) -> None:
    result = decompose(*laws)
    lemma = sum(result.fake_proportions[a] * d for a, d in result.by_group.items() if d is not None)
    shift = sum(
        (result.real_proportions[a] - result.fake_proportions[a]) * d
        for a, d in result.by_group.items()
        if d is not None
    )
    assert result.total - lemma == pytest.approx(result.proportion_term + shift, rel=1e-10, abs=1e-10)


@LAW
@given(
    laws=grouped_pmfs(),
    f=st.one_of(
        st.sampled_from(["kl", "reverse_kl", "hellinger", "pearson", "neyman"]).map(get_generator),
        st.floats(-3.0, 4.0).map(lambda alpha: alpha_divergence(round(alpha, 2))),
    ),
)
def test_powers_have_a_chain_rule_whatever_the_odds(laws: GroupedPmfs, f: FGenerator) -> None:
    result = decompose(*laws, f=f)
    assert weighted_sum(result) == pytest.approx(result.total, rel=1e-9, abs=1e-10)


@LAW
@given(laws=grouped_pmfs(), f=divergence_generators())
def test_no_total_is_below_that_of_the_proportions(laws: GroupedPmfs, f: FGenerator) -> None:
    result = decompose(*laws, f=f)
    assert result.proportion_term <= result.total * (1.0 + 1e-9) + 1e-12


def test_without_matching_odds_total_variation_has_no_weights() -> None:
    """Equal proportions and equal conditional divergences, and yet other totals: no weights can exist."""
    groups = ["f", "f", "m"]
    crossing = decompose([0.48, 0.12, 0.4], [0.24, 0.16, 0.6], groups, f="tv")
    nested = decompose([0.48, 0.12, 0.4], [0.4, 0.0, 0.6], groups, f="tv")
    for result in (crossing, nested):
        assert result.weights is None
        assert not result.matching_odds
        assert result.by_group["f"] == pytest.approx(0.2)
        assert result.by_group["m"] == 0.0
        assert result.real_proportions == pytest.approx({"f": 0.6, "m": 0.4})
        assert result.fake_proportions == pytest.approx({"f": 0.4, "m": 0.6})
    assert crossing.total == pytest.approx(0.24)
    assert nested.total == pytest.approx(0.2)


@LAW
@given(laws=grouped_pmfs(), f=divergence_generators(), data=st.data())
def test_order_of_atoms_and_names_of_groups_do_not_matter(laws: GroupedPmfs, f: FGenerator, data: Any) -> None:
    result = decompose(*laws, f=f)
    order = np.array(data.draw(st.permutations(range(len(laws.p)))))
    codes = np.array(["abcde".index(label) for label in laws.groups])
    other = decompose(laws.p[order], laws.q[order], codes[order], f=f)
    assert other.total == pytest.approx(result.total, rel=1e-12, abs=1e-14)
    for code, value in other.by_group.items():
        assert isinstance(code, int)
        expected = result.by_group["abcde"[code]]
        assert value is None if expected is None else value == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_a_group_missing_on_one_side_has_a_term_but_no_conditional() -> None:
    result = decompose([0.5, 0.5, 0.0], [0.5, 0.0, 0.5], ["a", "b", "c"], f="js", base=2)
    assert result.by_group == {"a": 0.0, "b": None, "c": None}
    assert result.terms == pytest.approx({"a": 0.0, "b": 0.5, "c": 0.5})
    assert result.total == pytest.approx(1.0)
    infinite = decompose([0.5, 0.5], [1.0, 0.0], ["a", "b"])
    assert (infinite.total, infinite.terms["b"], infinite.proportion_term) == (math.inf, math.inf, math.inf)


def test_base() -> None:
    arguments: Any = ([0.2, 0.3, 0.5], [0.4, 0.3, 0.3], ["f", "f", "m"])
    nats, bits = decompose(*arguments), decompose(*arguments, base=2)
    assert bits.total * math.log(2) == pytest.approx(nats.total)
    assert bits.proportion_term * math.log(2) == pytest.approx(nats.proportion_term)
    assert bits.by_group["f"] == pytest.approx(nats.by_group["f"] / math.log(2))  # type: ignore[operator]
    assert sum(bits.terms.values()) == pytest.approx(bits.total)
    assert weighted_sum(bits) == pytest.approx(bits.total)


@pytest.mark.parametrize(
    ("p", "q", "groups", "message"),
    [
        ([0.5, 0.6], [0.5, 0.5], ["a", "b"], "p sums to 1.1"),
        ([0.5, 0.5], [1.0], ["a", "b"], r"p has shape \(2,\) and q \(1,\)"),
        ([0.5, 0.5], [0.5, 0.5], ["a"], "groups has 1 labels for 2 atoms"),
        ([0.5, 0.5], [0.5, 0.5], ["a", None], "groups holds missing labels"),
        ([0.5, 0.5, 0.0], [0.5, 0.5, 0.0], ["a", "b", "c"], "group 'c' has mass neither in p nor in q"),
        (np.eye(2), np.eye(2), ["a", "b"], r"p has shape \(2, 2\), expected \(K,\)"),
    ],
)
def test_bad_input_is_an_error(p: Any, q: Any, groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decompose(p, q, groups)


def test_atoms_are_labelled_as_samples_are() -> None:
    p, q = [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]
    expected = decompose(p, q, ["a", "b", "b"]).by_group
    for groups in (
        [b"a", b"b", b"b"],
        np.array(["a", "b", "b"], "S"),
        [" a", "b", "b"],
        list(np.array(["a", "b", "b"])),
    ):
        assert decompose(p, q, groups).by_group == expected
    pairs = decompose(p, q, [("a", 1), ("b", 1), ("b", 1)]).by_group
    assert pairs == {("a", 1): expected["a"], ("b", 1): expected["b"]}
    with pytest.raises(ValueError, match="groups holds missing labels"):
        decompose(p, q, np.ma.masked_array(["a", "b", "b"], mask=[False, False, True]))


def test_labels_that_cannot_be_sorted_are_an_error() -> None:
    with pytest.raises(TypeError, match="groups mixes labels"):
        decompose([0.5, 0.5], [0.5, 0.5], ["a", 1])
