"""f-divergences between known distributions: probability mass functions, and densities on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics.divergences.families import GeneratorLike, generator_and_unit
from egtmetrics.divergences.generators import FGenerator, Values

_SUM_TOLERANCE = 1e-8


def f_divergence(
    p: Any,
    q: Any,
    *,
    f: GeneratorLike = "kl",
    base: float | None = None,
    weights: Any = None,
    normalize: bool = False,
) -> float | Values:
    r"""The divergence D_f(P||Q) of known distributions, P the real one.

    .. math::

        D_f(P \| Q) = \sum_{q > 0} q f(p / q) + \bar f(\infty) P(q = 0),
        \qquad \bar f(\infty) = \lim_{t \to \infty} f(t) / t.

    It is inf if P has mass outside the support of Q and fbar(inf) is inf, or Q outside that of P and f(0) is inf. It is
    never NaN.

    Parameters
    ----------
    p, q
        Probabilities ``(K,)`` of K atoms, or ``(G, K)`` for G pairs at once; one ``(K,)`` against many is allowed.
    f
        A name, generator or function: see :func:`~egtmetrics.divergences.get_generator`.
    base
        2 for bits, None for nats; only for divergences with a logarithm.
    weights
        For densities p and q: the widths ``(K,)`` of the cells of a grid, or the weights of a quadrature. Then
        sum p weights = 1, and each term of the sum above is multiplied by its weight.
    normalize
        Divide p and q by their sums first. Otherwise sums must be 1 up to 1e-8.

    Returns
    -------
    float or numpy.ndarray
        One value, or ``(G,)`` for a batch.

    Raises
    ------
    ValueError
        Negative, infinite or NaN probabilities, sums other than 1, shapes that do not match, an unknown f, a base for a
        divergence without a logarithm.

    Notes
    -----
    A term is q f(p/q) where p <= q, and p g(q/p) where p > q, with g(t) = t f(1/t) the partner of f. Ratios stay in
    [0, 1], so denormal probabilities neither overflow nor turn a finite divergence into inf.
    Time and memory O(G K).

    References
    ----------
    Definition 2.1 of the EGT paper; Polyanskiy and Wu: Information Theory, 2025, section 7.

    Examples
    --------
    >>> f_divergence([0.5, 0.5, 0.0], [0.5, 0.0, 0.5], f="js", base=2)
    1.0
    >>> f_divergence([0.5, 0.5, 0.0], [0.5, 0.0, 0.5])
    inf
    """
    generator, unit = generator_and_unit(f, base)
    cells = None if weights is None else check_weights(weights)
    p, q = (check_distribution(values, name, cells, normalize=normalize) for values, name in ((p, "p"), (q, "q")))
    if p.shape[-1] != q.shape[-1] or (p.ndim == q.ndim == 2 and len(p) != len(q)):
        raise ValueError(f"p has shape {p.shape} and q {q.shape}; pass the probabilities of the same atoms and pairs")
    terms = divergence_terms(generator, *np.broadcast_arrays(p, q))
    # rounding may leave -1e-17 where f takes both signs; no divergence is negative
    values = np.maximum(unit * (terms if cells is None else terms * cells).sum(axis=-1), 0.0)
    return float(values) if values.ndim == 0 else values


def divergence_terms(generator: FGenerator, p: Values, q: Values) -> Values:
    """What each atom adds to the divergence: q f(p/q), fbar(inf) p where q = 0, 0 where p = q = 0."""
    terms = np.zeros(p.shape)
    more_fake, more_real = (p <= q) & (q > 0.0), p > q
    with np.errstate(over="ignore", under="ignore"):
        terms[more_fake] = q[more_fake] * generator.f(p[more_fake] / q[more_fake])
        terms[more_real] = p[more_real] * generator.partner().f(q[more_real] / p[more_real])
    return terms


def check_distribution(values: Any, name: str, weights: Values | None = None, *, normalize: bool = False) -> Values:
    """Return probabilities ``(K,)`` or ``(G, K)`` as float64, with rows that sum to 1."""
    array = _check_non_negative(values, name)
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {array.shape}, expected (K,), or (G, K) for a batch")
    if weights is not None and weights.shape != array.shape[-1:]:
        raise ValueError(
            f"weights has shape {weights.shape}, but {name} has {array.shape[-1]} atoms; pass one for each"
        )
    sums = (array if weights is None else array * weights).sum(axis=-1, keepdims=True)
    if normalize:
        if not (sums > 0.0).all():
            raise ValueError(f"{name} has a row of zeros, which cannot be normalized; remove it")
        return np.asarray(array / sums)
    off = np.abs(sums - 1.0)
    if not (off <= _SUM_TOLERANCE).all():
        worst = float(sums.ravel()[int(np.argmax(off))])
        raise ValueError(f"{name} sums to {worst:.9g}, expected 1; pass normalize=True to divide by the sum")
    return array


def check_weights(weights: Any) -> Values:
    array = _check_non_negative(weights, "weights")
    if array.ndim != 1:
        raise ValueError(f"weights has shape {array.shape}, expected (K,): the width of each cell")
    return array


def _check_non_negative(values: Any, name: str) -> Values:
    try:
        array: NDArray[Any] = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as an array ({error}); pass rows of one length") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {array.dtype}, expected real numbers")
    array = array.astype(np.float64)
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}; pass at least one atom")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; pass finite probabilities")
    if (array < 0.0).any():
        raise ValueError(f"{name} holds the negative value {array.min():g}; pass probabilities")
    return array
