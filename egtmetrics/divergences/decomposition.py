"""How a divergence between mixtures of groups splits into the divergences within the groups."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics.divergences.exact import check_distribution, divergence_terms
from egtmetrics.divergences.families import GeneratorLike, generator_and_unit
from egtmetrics.divergences.generators import FGenerator, Values
from egtmetrics.labels import label_columns

_ODDS_TOLERANCE = 1e-12
"""The order of addition changes a sum of masses by less than this share of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decomposition:
    """What :func:`decompose` returns. Every mapping has the groups in sorted order."""

    total: float
    """D_f(P||Q)."""
    by_group: dict[Hashable, float | None]
    """D_f(P_a||Q_a); None where P or Q has no mass in the group, so that there is no conditional."""
    terms: dict[Hashable, float]
    """What each group adds to the total. The total is their sum, whatever the odds."""
    weights: dict[Hashable, float] | None
    """total = proportion_term + sum of weights * by_group, over groups with a conditional. None where no such weights
    exist."""
    proportion_term: float
    """D_f(pi^P||pi^Q), the divergence between the group proportions. No total is below it."""
    real_proportions: dict[Hashable, float]
    """pi^P."""
    fake_proportions: dict[Hashable, float]
    """pi^Q."""
    matching_odds: bool
    """Whether the proportions are equal, up to rounding."""


def decompose(p: Any, q: Any, groups: Any, *, f: GeneratorLike = "kl", base: float | None = None) -> Decomposition:
    r"""Split D_f(P||Q) over groups of atoms.

    With pi_a the share of group a and P_a, Q_a the conditional laws,

    .. math::

        D_f(P \| Q) = \sum_a \pi_a^Q \Big[ \sum_{q_a > 0}
            q_a f\Big(\frac{\pi_a^P p_a}{\pi_a^Q q_a}\Big)
            + \bar f(\infty) \frac{\pi_a^P}{\pi_a^Q} P_a(q_a = 0) \Big]

    whatever the odds (``terms``), where a group that Q lacks adds fbar(inf) pi_a^P. With matching odds, pi^P = pi^Q,
    this is Lemma A.2: the total is the mean of the D_f(P_a||Q_a) with weights pi_a^Q. Without matching odds there is
    still a sum over the conditionals for powers t^r and their limits (``FGenerator.power``: KL has r = 1, reverse KL 0,
    Hellinger 1/2, Pearson 2, Neyman -1):

    .. math::

        D_f(P \| Q) = D_f(\pi^P \| \pi^Q) + \sum_a (\pi_a^P)^r (\pi_a^Q)^{1-r} D_f(P_a \| Q_a),

    and for other f no weights exist: the total depends on more than the proportions and the conditional divergences.

    Parameters
    ----------
    p, q
        Probabilities ``(K,)`` of the atoms under the real and the fake law.
    groups
        The label of each atom, ``(K,)``.
    f
        A name, generator or function: see :func:`~egtmetrics.divergences.get_generator`.
    base
        2 for bits, None for nats.

    Raises
    ------
    ValueError
        p or q is not a pmf, their sizes differ, a label is missing, or a group has mass in neither.
    TypeError
        Labels cannot be sorted.

    Notes
    -----
    ``terms`` depend on the linear part of f, which the total does not: f + c (t - 1) adds c (pi_a^P - pi_a^Q) to
    them. Smooth built-in generators have f'(1) = 0, so that no term is negative. Time and memory O(K).

    References
    ----------
    Lemma A.2 of the EGT paper, which needs matching odds. For the powers, the sum of p^r q^(1-r) over a group factors
    into (pi_a^P)^r (pi_a^Q)^(1-r) and the same sum over the conditionals.

    Examples
    --------
    >>> result = decompose([0.2, 0.3, 0.5], [0.3, 0.2, 0.5], ["f", "f", "m"], f="tv")
    >>> result.matching_odds, round(result.total, 12), {a: round(d, 12) for a, d in result.by_group.items()}
    (True, 0.1, {'f': 0.2, 'm': 0.0})
    """
    generator, unit = generator_and_unit(f, base)
    p, q, codes, labels = check_grouped_pair(p, q, groups)
    real, fake = group_sums(p, codes), group_sums(q, codes)
    conditional = conditional_divergences(generator, p, q, codes)
    terms = unit * group_sums(divergence_terms(generator, p, q), codes)
    matching = matching_odds(real, fake)
    weights = _weights(generator, real, fake, matching)

    def by_label(values: Values) -> dict[Hashable, float]:
        return dict(zip(labels, values.tolist(), strict=True))

    return Decomposition(
        total=max(float(terms.sum()), 0.0),
        by_group={
            label: None if math.isnan(value) else unit * value
            for label, value in zip(labels, conditional.tolist(), strict=True)
        },
        terms=by_label(terms),
        weights=None if weights is None else by_label(weights),
        proportion_term=max(float(unit * divergence_terms(generator, real, fake).sum()), 0.0),
        real_proportions=by_label(real),
        fake_proportions=by_label(fake),
        matching_odds=matching,
    )


def conditional_divergences(generator: FGenerator, p: Values, q: Values, codes: NDArray[np.intp]) -> Values:
    """D_f(P_a||Q_a) in nats by group code, NaN for a group in which P or Q has no mass."""
    real, fake = group_sums(p, codes), group_sums(q, codes)
    both = (real > 0.0) & (fake > 0.0)
    conditional_p, conditional_q = p / np.where(both, real, 1.0)[codes], q / np.where(both, fake, 1.0)[codes]
    values = group_sums(divergence_terms(generator, conditional_p, conditional_q), codes)
    return np.where(both, np.maximum(values, 0.0), np.nan)


def matching_odds(real: Values, fake: Values) -> bool:
    """Whether proportions are equal up to rounding."""
    return bool(np.allclose(real, fake, rtol=_ODDS_TOLERANCE, atol=0.0))


def group_sums(values: Values, codes: NDArray[np.intp]) -> Values:
    """Sum the values of each group, in the order of the codes."""
    return np.asarray(np.bincount(codes, weights=values), dtype=np.float64)


def check_grouped_pair(p: Any, q: Any, groups: Any) -> tuple[Values, Values, NDArray[np.intp], list[Hashable]]:
    """Return p, q ``(K,)``, the group code of each atom, and the label of each code."""
    checked_p, codes, labels = check_grouped(p, "p", groups)
    checked_q = check_distribution(q, "q")
    if checked_q.shape != checked_p.shape:
        raise ValueError(f"p has shape {checked_p.shape} and q {checked_q.shape}; pass the same atoms in both")
    for label, mass in zip(labels, group_sums(checked_p, codes) + group_sums(checked_q, codes), strict=True):
        if mass == 0.0:
            raise ValueError(f"group {label!r} has mass neither in p nor in q; leave out its atoms")
    return checked_p, checked_q, codes, labels


def check_grouped(p: Any, name: str, groups: Any) -> tuple[Values, NDArray[np.intp], list[Hashable]]:
    """Return a pmf ``(K,)``, the group code of each atom, and the label of each code."""
    checked = check_distribution(p, name)
    if checked.ndim != 1:
        raise ValueError(f"{name} has shape {checked.shape}, expected (K,): one distribution at a time")
    _, columns = label_columns(groups, "groups")
    if len(columns) == 1:
        index = pd.Index(columns[0], tupleize_cols=False)
    else:
        rows = zip(*(column.tolist() for column in columns), strict=True)
        index = pd.Index([None if None in row else row for row in rows], tupleize_cols=False)
    if len(index) != len(checked):
        raise ValueError(f"groups has {len(index)} labels for {len(checked)} atoms; pass one for each")
    if index.hasnans:
        raise ValueError("groups holds missing labels; give every atom a group")
    try:
        sorted(index.unique())  # pandas would silently order 1 before "a"
    except TypeError as error:
        raise TypeError(f"groups mixes labels that cannot be ordered ({error}); use labels of one type") from error
    codes, unique = pd.factorize(index, sort=True)
    return checked, codes, unique.tolist()


def check_mass(proportions: Values, labels: list[Hashable], name: str) -> Values:
    """Return the proportions, none of which may be 0."""
    for label, proportion in zip(labels, proportions, strict=True):
        if proportion == 0.0:
            raise ValueError(f"group {label!r} has no mass in {name}, so it has no conditional law there")
    return proportions


def _weights(generator: FGenerator, real: Values, fake: Values, matching: bool) -> Values | None:
    if matching:
        return fake
    if generator.power is None:
        return None
    both = (real > 0.0) & (fake > 0.0)
    ratio = np.divide(real, fake, out=np.ones_like(real), where=both)
    with np.errstate(over="ignore", under="ignore"):
        return np.where(both, fake * ratio**generator.power, 0.0)
