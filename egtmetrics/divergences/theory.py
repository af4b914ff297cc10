"""Lemma A.1 and Theorem A.3 of the paper, as functions that construct the laws whose existence they claim.

The proofs take a set of any given probability out of a law without atoms. Here a law is a list of cells (or a density
that is constant on each), and a cell is cut in two where necessary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics.divergences.decomposition import check_grouped, check_mass, conditional_divergences, group_sums
from egtmetrics.divergences.exact import check_distribution, divergence_terms
from egtmetrics.divergences.families import GeneratorLike, generator_and_unit
from egtmetrics.divergences.generators import FGenerator, Values

_Pair: TypeAlias = Callable[[float, float], tuple[float, float]]

_LOG_SMALLEST = math.log(1e-300)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoLevelModel:
    """What :func:`two_level_model` returns: R and Q on the cells of R, one of them cut in two."""

    r: Values
    """Probabilities of the cells under R, ``(K + 1,)``, or ``(K,)`` where no cut was needed."""
    q: Values
    """The same under Q."""
    cell: NDArray[np.intp]
    """Which of the K cells each of them is a part of."""
    share: Values
    """Its share of that cell, in probability and in width."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnequalModel:
    """What :func:`unequal_model` returns: P and Q^gamma on the cells of P, one of each group cut in two."""

    p: Values
    """Probabilities of the cells under P, ``(K + |A|,)`` or fewer."""
    q: Values
    """The same under Q^gamma."""
    groups: NDArray[Any]
    """The group of each cell."""
    cell: NDArray[np.intp]
    """Which of the K cells each of them is a part of."""
    share: Values
    """Its share of that cell."""
    parameters: dict[Hashable, tuple[float, float]]
    """(alpha, beta) of Lemma A.1 by group."""
    by_group: dict[Hashable, float]
    """D_f(P_a||Q_a^gamma)."""
    worst_group: Hashable


def phi(alpha: float, beta: float, *, f: GeneratorLike = "kl", base: float | None = None) -> float:
    r"""The divergence D_f(R||Q_alpha^beta) of Lemma A.1, the same for every R.

    .. math::

        \varphi(\alpha, \beta) = \frac1\beta f(\beta\alpha)
            + \frac{\beta - 1}{\beta} f\Big(\frac{(1 - \alpha)\beta}{\beta - 1}\Big)

    This is the divergence between two coins, of probability alpha under R and 1/beta under Q.

    Raises
    ------
    ValueError
        Unless 0 < alpha < 1 < beta < inf.

    Notes
    -----
    Source: equation 2 of the EGT paper, proof of Lemma A.1. It is 0 on alpha beta = 1, for example at (1/2, 2), and
    tends to f(0) + fbar(inf) for alpha -> 1 and beta -> inf.

    Examples
    --------
    >>> phi(0.5, 2.0)
    0.0
    >>> round(phi(0.75, 4.0, f="tv"), 12)
    0.5
    """
    generator, unit = generator_and_unit(f, base)
    _check_alpha_beta(alpha, beta)
    return unit * _phi(generator, alpha, beta)


def two_level_model(r: Any, *, alpha: float, beta: float) -> TwoLevelModel:
    """The law Q_alpha^beta of Lemma A.1, with the support of R and D_f(R||Q) = phi(alpha, beta) for every f.

    Q has density r / (alpha beta) on a set A with R(A) = alpha, and r (1 - 1/beta) / (1 - alpha) outside. A takes the
    cells in order, the last one in part, until its probability is alpha. The smaller of A and its complement comes
    first.

    Parameters
    ----------
    r
        Probabilities of divisible cells, ``(K,)``: the lemma needs a law without atoms. For K indivisible atoms it is
        false, since R(A) then takes finitely many values: for a fair coin, the total variation with equal support is at
        most 1/2.

    Raises
    ------
    ValueError
        r is not a pmf, not 0 < alpha < 1 < beta < inf, or a probability of Q underflows.

    Notes
    -----
    Source: equation 1 of the EGT paper, proof of Lemma A.1. Time and memory O(K).

    Examples
    --------
    >>> model = two_level_model([0.5, 0.5], alpha=0.25, beta=2.0)
    >>> model.r, model.q, model.cell
    (array([0.25, 0.25, 0.5 ]), array([0.5       , 0.16666667, 0.33333333]), array([0, 0, 1]))
    """
    checked = check_distribution(r, "r")
    if checked.ndim != 1:
        raise ValueError(f"r has shape {checked.shape}, expected (K,)")
    _check_alpha_beta(alpha, beta)
    first = min(alpha, 1.0 - alpha)
    inside = np.clip(first - (np.cumsum(checked) - checked), 0.0, checked)
    parts = np.stack([inside, checked - inside], axis=1)
    density = np.array([1.0 / (alpha * beta), (beta - 1.0) / beta / (1.0 - alpha)])
    if alpha > 0.5:
        density = density[::-1]
    keep = parts > 0.0
    keep[:, 1] |= checked == 0.0  # a cell outside the support stays, with probability 0 in both
    cell = np.nonzero(keep)[0]
    whole = np.where(checked > 0.0, checked, 1.0)[cell]
    kept, fake = parts[keep], (parts * density)[keep]
    if ((kept > 0.0) & (fake == 0.0)).any():
        raise ValueError(
            f"r has cells so small that their probability under Q underflows with alpha={alpha:g} and beta={beta:g}; "
            "merge or drop them"
        )
    return TwoLevelModel(
        r=kept,
        q=fake,
        cell=cell,
        share=np.where(checked[cell] > 0.0, kept / whole, 1.0),
    )


def solve_divergence(f: GeneratorLike, value: float, *, base: float | None = None) -> tuple[float, float]:
    """Return some (alpha, beta) with phi(alpha, beta) = value, for any value in (0, f(0) + fbar(inf)).

    One parameter is fixed. phi is monotone in the other, which is found by Brent's method: beta for alpha = 1 - 2^-k,
    or alpha for beta = 1 / (1 - 2^-k), with the smallest k for which the value can be reached.

    Raises
    ------
    ValueError
        The value is outside that interval, or so close to an end of it that no pair of float64 numbers gives it.

    Notes
    -----
    Source: Lemma A.1 of the EGT paper, by its argument of intermediate values. The paper leaves out 0, which Q = R
    gives. phi at the result is within 1e-9 relative of the value.

    Examples
    --------
    >>> alpha, beta = solve_divergence("js", 1.5, base=2)
    >>> round(phi(alpha, beta, f="js", base=2), 9)
    1.5
    """
    generator, unit = generator_and_unit(f, base)
    _check_below_maximum(value, "value", generator, unit)
    return _solve(generator, value / unit)


def largest_feasible_gap(eps: float, proportion: float, *, f: GeneratorLike = "kl", base: float | None = None) -> float:
    r"""The supremum of the gaps gamma between groups, for models at global divergence eps with matching odds.

    For a worst group of proportion pi (one over the number of groups under equalized odds) it is

    .. math::

        \min\Big(\frac{f(0) + \bar f(\infty) - \epsilon}{1 - \pi}, \frac{\epsilon}{\pi}\Big).

    No model exceeds it, since eps = sum_a pi_a D_a with D_a in [0, f(0) + fbar(inf)] and the worst D at least gamma
    above the others. :func:`unequal_model` reaches every gamma below it.

    Raises
    ------
    ValueError
        Unless 0 < eps < f(0) + fbar(inf) and 0 < proportion < 1.

    Notes
    -----
    Source: proof of Theorem A.3 of the EGT paper, see :func:`unequal_model`.

    Examples
    --------
    Two groups, total variation, eps at 95 % of the maximum: far below the gamma < eps that the theorem promises.

    >>> round(largest_feasible_gap(0.95, 0.5, f="tv"), 12)
    0.1
    """
    generator, unit = generator_and_unit(f, base)
    maximum = _check_below_maximum(eps, "eps", generator, unit)
    if not 0.0 < proportion < 1.0:
        raise ValueError(f"proportion={proportion!r} is not between 0 and 1; pass the share of the worst group")
    return min((maximum - eps) / (1.0 - proportion), eps / proportion)


def unequal_model(
    p: Any,
    groups: Any,
    *,
    eps: float,
    gamma: float,
    f: GeneratorLike = "kl",
    base: float | None = None,
    worst_group: Hashable | None = None,
) -> UnequalModel:
    r"""The model Q^gamma of Theorem A.3: matching odds, global divergence eps, one group worse than the rest by gamma.

    With pi the share of the worst group, its conditional divergence is eps + gamma (1 - pi), and that of every other
    group eps - gamma pi. Their mean is eps, which by Lemma A.2 is D_f(P||Q). Each conditional comes from Lemma A.1. If
    P has equalized odds, these are the paper's values, and Q has equalized odds too.

    Parameters
    ----------
    p
        Probabilities of cells ``(K,)``, each of which may be cut in two.
    groups
        The label of each cell, ``(K,)``, for at least two groups.
    eps, gamma
        The global divergence, and the gap, from 0 to below :func:`largest_feasible_gap`; in units of ``base``.
    f, base
        See :func:`~egtmetrics.divergences.f_divergence`.
    worst_group
        The worst group. None means the first in sorted order.

    Raises
    ------
    ValueError
        eps + gamma (1 - pi) is not below f(0) + fbar(inf), or eps - gamma pi not above 0; P is not a pmf or a group has
        no mass; or float64 cannot hold the model.

    Notes
    -----
    Three remarks on the theorem as printed. Its condition gamma < eps is neither sufficient (both inequalities above
    are needed, and the first does not follow) nor necessary (eps = 1 and gamma = 1.96 give the paper's pair 0.02 and
    1.98). P need not have equalized odds: with matching odds the construction works for any proportions. And it needs
    a continuous f, which excludes the precision and recall of supports that the experiments measure.

    Source: Theorem 3.1 (A.3) of the EGT paper. Time and memory O(K).

    Examples
    --------
    >>> model = unequal_model([0.25] * 4, ["f", "f", "m", "m"], eps=1.0, gamma=1.96, f="js", base=2)
    >>> {a: round(d, 9) for a, d in model.by_group.items()}
    {'f': 1.98, 'm': 0.02}
    """
    generator, unit = generator_and_unit(f, base)
    checked, codes, labels = check_grouped(p, "p", groups)
    proportions = check_mass(group_sums(checked, codes), labels, "p")
    worst = labels[0] if worst_group is None else worst_group
    if worst not in labels:
        raise ValueError(f"worst_group={worst_group!r} is not one of the groups {', '.join(map(repr, labels))}")
    share = float(proportions[labels.index(worst)])
    largest = largest_feasible_gap(eps, share, f=generator, base=base)
    if not 0.0 <= gamma < largest:
        raise ValueError(
            f"gamma={gamma!r} is not feasible with eps={eps!r}: the worst group, of proportion pi={share:g}, needs "
            f"eps + gamma (1 - pi) below the maximum {unit * generator.maximum:g} of {generator.name!r} and the "
            f"others eps - gamma pi above 0; pass gamma in [0, {largest:g})"
        )
    pieces: list[TwoLevelModel] = []
    parameters: dict[Hashable, tuple[float, float]] = {}
    for code, label in enumerate(labels):
        target = eps + gamma * (1.0 - share) if label == worst else eps - gamma * share
        alpha, beta = parameters[label] = solve_divergence(generator, target, base=base)
        pieces.append(two_level_model(checked[codes == code] / proportions[code], alpha=alpha, beta=beta))
    cell = np.concatenate([np.nonzero(codes == code)[0][piece.cell] for code, piece in enumerate(pieces)])
    order = np.argsort(cell, kind="stable")
    refined_p, refined_q = (
        np.concatenate([pi * law for pi, law in zip(proportions, laws, strict=True)])[order]
        for laws in ([piece.r for piece in pieces], [piece.q for piece in pieces])
    )
    cell = cell[order]
    reached = unit * conditional_divergences(generator, refined_p, refined_q, codes[cell])
    return UnequalModel(
        p=refined_p,
        q=refined_q,
        groups=pd.Index(labels, tupleize_cols=False).to_numpy()[codes[cell]],
        cell=cell,
        share=np.concatenate([piece.share for piece in pieces])[order],
        parameters=parameters,
        by_group=dict(zip(labels, reached.tolist(), strict=True)),
        worst_group=worst,
    )


def _phi(generator: FGenerator, alpha: float, beta: float) -> float:
    real, fake = np.array([alpha, 1.0 - alpha]), np.array([1.0 / beta, (beta - 1.0) / beta])
    return max(float(divergence_terms(generator, real, fake).sum()), 0.0)


def _solve(generator: FGenerator, value: float) -> tuple[float, float]:
    from scipy.optimize import brentq  # takes long to import, and few need it

    for k in range(1, 53):
        fixed = 1.0 - 2.0**-k
        for pair in (_fixed_alpha, _fixed_beta):

            def excess(log_free: float, pair: _Pair = pair, fixed: float = fixed) -> float:
                return min(_phi(generator, *pair(fixed, math.exp(log_free))), 2.0 * value) - value

            if excess(_LOG_SMALLEST) <= 0.0:
                continue
            # if the free number equals the fixed one, both coins are the same and phi is 0
            log_free = brentq(excess, _LOG_SMALLEST, math.log(fixed), xtol=1e-15, rtol=1e-15, maxiter=1000)
            alpha, beta = pair(fixed, math.exp(log_free))
            if abs(_phi(generator, alpha, beta) - value) <= 1e-9 * value + 1e-15:
                return alpha, beta
    raise ValueError(
        f"a divergence of {value!r} nats is too close to an end of the range of {generator.name!r} for float64; choose "
        "one further inside"
    )


def _fixed_alpha(alpha: float, inverse_beta: float) -> tuple[float, float]:
    return alpha, 1.0 / inverse_beta


def _fixed_beta(inverse_beta: float, alpha: float) -> tuple[float, float]:
    return alpha, 1.0 / inverse_beta


def _check_alpha_beta(alpha: float, beta: float) -> None:
    if not (0.0 < alpha < 1.0 < beta < math.inf):
        raise ValueError(f"alpha={alpha!r} and beta={beta!r}, expected 0 < alpha < 1 < beta < inf")


def _check_below_maximum(value: float, name: str, generator: FGenerator, unit: float) -> float:
    """Check 0 < value < maximum, and return the maximum."""
    maximum = unit * generator.maximum
    if not 0.0 < value < maximum:
        raise ValueError(
            f"{name}={value!r} is not between 0 and {maximum:g}, the maximum f(0) + fbar(inf) of {generator.name!r} "
            "(both excluded)"
        )
    return maximum
