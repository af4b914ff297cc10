"""Equalized treatment of known laws: who has it (Definitions 2.2 and 4.1), and what it costs (Theorem A.4)."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics.divergences.decomposition import (
    check_grouped,
    check_grouped_pair,
    check_mass,
    conditional_divergences,
    group_sums,
    matching_odds,
)
from egtmetrics.divergences.exact import check_distribution
from egtmetrics.divergences.families import GeneratorLike, generator_and_unit
from egtmetrics.divergences.generators import Values

_ROUNDING = 1e-12
_LARGEST_CLOSURE = 100_000


def delta_egt(p: Any, q: Any, groups: Any, *, f: GeneratorLike = "kl", base: float | None = None) -> float:
    """The smallest delta for which Q and P satisfy delta-EGT: the largest difference of D_f(P_a||Q_a) between groups.

    It is inf where some conditional divergences are infinite and some are not.

    Raises
    ------
    ValueError
        p or q is not a pmf, there are fewer than two groups, a group has no mass in p or in q, or all conditional
        divergences are infinite, so that their differences are undefined.

    Notes
    -----
    Source: Definition 4.1 of the EGT paper. Time and memory O(K).

    Examples
    --------
    >>> round(delta_egt([0.2, 0.3, 0.5], [0.3, 0.2, 0.5], ["f", "f", "m"], f="tv"), 12)
    0.2
    """
    generator, unit = generator_and_unit(f, base)
    checked_p, checked_q, codes, labels = check_grouped_pair(p, q, groups)
    if len(labels) < 2:
        raise ValueError("groups names one group, but a difference needs two; check the labels")
    for law, name in ((checked_p, "p"), (checked_q, "q")):
        check_mass(group_sums(law, codes), labels, name)
    divergences = unit * conditional_divergences(generator, checked_p, checked_q, codes)
    if np.isinf(divergences).all():
        raise ValueError(
            f"D_f(P_a||Q_a) is infinite in every group for {generator.name!r}, so differences are undefined; "
            "choose a bounded f, for example 'js'"
        )
    return float(divergences.max() - divergences.min())


def is_delta_egt(
    p: Any, q: Any, groups: Any, *, delta: float, f: GeneratorLike = "kl", base: float | None = None
) -> bool:
    """Whether all ``|D_f(P_a||Q_a) - D_f(P_b||Q_b)| <= delta`` (Definition 4.1), up to a rounding error of 1e-12.

    Raises
    ------
    ValueError
        As for :func:`delta_egt`; and delta is negative or NaN.

    Examples
    --------
    >>> is_delta_egt([0.2, 0.3, 0.5], [0.3, 0.2, 0.5], ["f", "f", "m"], delta=0.1, f="tv")
    False
    """
    return delta_egt(p, q, groups, f=f, base=base) <= _check_delta(delta) + _ROUNDING


def is_delta_ego(q: Any, groups: Any, *, delta: float = 0.0) -> bool:
    """Whether Q has delta-equalized odds: all ``|pi_a - pi_b| <= delta``, up to a rounding error of 1e-12.

    Raises
    ------
    ValueError
        q is not a pmf, labels are missing, or delta is negative or NaN.

    Notes
    -----
    Source: Definition 2.2 of the EGT paper. Every label counts as a group, even if its atoms have no mass.

    Examples
    --------
    >>> is_delta_ego([0.2, 0.3, 0.5], ["f", "f", "m"])
    True
    """
    checked, codes, _ = check_grouped(q, "q", groups)
    proportions = group_sums(checked, codes)
    return bool(proportions.max() - proportions.min() <= _check_delta(delta) + _ROUNDING)


def is_delta_mgo(p: Any, q: Any, groups: Any, *, delta: float = 0.0) -> bool:
    """Whether P and Q have delta-matching odds: all ``|pi_a^Q - pi_a^P| <= delta``, up to a rounding error of 1e-12.

    Raises
    ------
    ValueError
        p or q is not a pmf, their sizes differ, a label is missing, a group has mass in neither, or delta is negative
        or NaN.

    Notes
    -----
    Source: Definition 2.2 of the EGT paper.

    Examples
    --------
    >>> is_delta_mgo([0.2, 0.3, 0.5], [0.4, 0.2, 0.4], ["f", "f", "m"], delta=0.05)
    False
    """
    checked_p, checked_q, codes, _ = check_grouped_pair(p, q, groups)
    excess = group_sums(checked_q, codes) - group_sums(checked_p, codes)
    return bool(np.abs(excess).max() <= _check_delta(delta) + _ROUNDING)


def conditional_closure(models: Any, groups: Any) -> Values:
    """The conditional closure of a finite family: every mixture of its conditionals at every one of its proportions.

    Parameters
    ----------
    models
        The family, ``(M, K)``: M pmfs, each with mass in every group.
    groups
        The label of each atom, ``(K,)``.

    Returns
    -------
    numpy.ndarray
        ``(M^(G + 1), K)`` for G groups, repetitions included. The members of the family are among them.

    Raises
    ------
    ValueError
        A model is not a pmf or has no mass in a group, or the closure has more than 100000 members.

    Notes
    -----
    Source: Definition 4.2 of the EGT paper. Time and memory O(M^(G + 1) K). The minimum of a divergence over the
    closure needs no enumeration, see :func:`egt_lower_bound`.

    Examples
    --------
    >>> conditional_closure([[0.25, 0.25, 0.5], [0.5, 0.0, 0.5]], ["f", "f", "m"])[:4:2]
    array([[0.25, 0.25, 0.5 ],
           [0.5 , 0.  , 0.5 ]])
    """
    family, codes, labels = _check_family(models, groups)
    n_models, n_groups = len(family), len(labels)
    n_members = n_models ** (n_groups + 1)
    if n_members > _LARGEST_CLOSURE:
        raise ValueError(
            f"the conditional closure of {n_models} models over {n_groups} groups has {n_members} members, more than "
            f"{_LARGEST_CLOSURE}; pass fewer models, or use egt_lower_bound, which needs no enumeration"
        )
    proportions = np.stack([group_sums(model, codes) for model in family])
    conditionals = family / proportions[:, codes]
    choices = np.array(list(itertools.product(range(n_models), repeat=n_groups + 1)))
    of_group = conditionals[choices[:, 1:][:, codes], np.arange(len(codes))]
    return np.asarray(proportions[choices[:, :1], codes] * of_group)


def egt_lower_bound(
    p: Any, models: Any, groups: Any, *, delta: float, f: GeneratorLike = "kl", base: float | None = None
) -> float:
    r"""The lower bound of Theorem A.4 for members of a family that have delta-EGT: max_a D_f(P_a||Q*_a) - delta.

    Q* minimises the divergence over the conditional closure. With matching odds the divergence is a mean over groups,
    so Q*_a is the best conditional in the family for each group separately:

    .. math::

        D_f(P \| Q) \ge \max_a \min_{Q' \in \mathcal Q} D_f(P_a \| Q'_a) - \delta.

    Parameters
    ----------
    p
        The real law, ``(K,)``.
    models
        The family, ``(M, K)``, with the group proportions of p.
    groups
        The label of each atom, ``(K,)``.
    delta
        The delta of the delta-EGT, at least 0: see :func:`delta_egt`.
    f, base
        See :func:`~egtmetrics.divergences.f_divergence`.

    Returns
    -------
    float
        The bound. It may be negative for a large delta, and then says nothing.

    Raises
    ------
    ValueError
        p or a model is not a pmf, a group has no mass, the odds do not match, or delta is negative or NaN.

    Notes
    -----
    The bound max_a (D_f(P_a||Q*_a) - delta (1 - pi_a)) also holds, and is never lower: group a itself adds nothing to
    the gaps that delta bounds. Equalized odds of P, which the proof mentions, are not used.

    Source: Theorem 4.3 (A.4) of the EGT paper. Time O(M K).

    Examples
    --------
    >>> models = [[0.25, 0.25, 0.25, 0.25], [0.4, 0.1, 0.1, 0.4]]
    >>> round(egt_lower_bound([0.3, 0.2, 0.3, 0.2], models, ["f", "f", "m", "m"], delta=0.05, f="tv"), 12)
    0.05
    """
    generator, unit = generator_and_unit(f, base)
    delta = _check_delta(delta)
    family, codes, labels = _check_family(models, groups)
    checked, _, _ = check_grouped(p, "p", groups)
    proportions = check_mass(group_sums(checked, codes), labels, "p")
    for i, model in enumerate(family):
        if not matching_odds(proportions, group_sums(model, codes)):
            raise ValueError(
                f"models[{i}] has group proportions {group_sums(model, codes)} and p {proportions}; the theorem "
                "needs matching odds"
            )
    divergences = np.stack([conditional_divergences(generator, checked, model, codes) for model in family])
    return unit * float(divergences.min(axis=0).max()) - delta


def _check_delta(delta: float) -> float:
    if not delta >= 0.0:
        raise ValueError(f"delta={delta!r} is not a number of at least 0; pass one")
    return delta


def _check_family(models: Any, groups: Any) -> tuple[Values, NDArray[np.intp], list[Hashable]]:
    family = check_distribution(models, "models")
    if family.ndim != 2:
        raise ValueError(f"models has shape {family.shape}, expected (M, K): one row for each model")
    _, codes, labels = check_grouped(family[0], "models[0]", groups)
    for i, model in enumerate(family):
        check_mass(group_sums(model, codes), labels, f"models[{i}]")
    return family, codes, labels
