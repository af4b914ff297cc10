"""The built-in generators: nine by name, and three families with a parameter.

Every smooth one is the version with f'(1) = 0. It is not negative, so a divergence is a sum of non-negative terms and
small divergences keep their digits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from scipy.special import xlogy

from egtmetrics.divergences.generators import ArrayFunction, FGenerator, Values, unit_scale, user_generator

GeneratorLike: TypeAlias = str | FGenerator | ArrayFunction

_LOG_2 = math.log(2.0)


def get_generator(f: GeneratorLike) -> FGenerator:
    """Return the generator of that name, an :class:`FGenerator` as it is, or a function as :func:`user_generator`.

    Names: ``kl``, ``reverse_kl``, ``js``, ``jeffreys``, ``tv``, ``pearson``, ``neyman``, ``hellinger``, ``le_cam``.
    The families with a parameter are :func:`alpha_divergence`, :func:`hockey_stick` and :func:`precision_recall`.

    ============  =========================================  ===================  =========
    name          f(t)                                       range                f(0), fbar(inf)
    ============  =========================================  ===================  =========
    kl            t log t - t + 1                            [0, inf]             1, inf
    reverse_kl    t - 1 - log t                              [0, inf]             inf, 1
    js            t log t - (t + 1) log((t + 1) / 2)         [0, 2 log 2]         log 2, log 2
    jeffreys      (t - 1) log t                              [0, inf]             inf, inf
    tv            abs(t - 1) / 2                             [0, 1]               1/2, 1/2
    pearson       (t - 1)^2                                  [0, inf]             1, inf
    neyman        (1 - t)^2 / t                              [0, inf]             inf, 1
    hellinger     (sqrt(t) - 1)^2                            [0, 2]               1, 1
    le_cam        (t - 1)^2 / (2 (t + 1))                    [0, 1]               1/2, 1/2
    ============  =========================================  ===================  =========

    ``js`` is the form KL(P||M) + KL(Q||M) with M = (P + Q) / 2, twice the usual one. ``hellinger`` is the squared
    distance without a factor 1/2.

    Raises
    ------
    ValueError, TypeError
        The name is unknown, or the function is not a generator.

    References
    ----------
    Polyanskiy and Wu: Information Theory, 2025, section 7. ``js``: Lin 1991, and the EGT paper, section 2.1.

    Examples
    --------
    >>> js = get_generator("js")
    >>> round(js.maximum / math.log(2.0), 12)
    2.0
    """
    if isinstance(f, FGenerator):
        return f
    if isinstance(f, str):
        if f not in _NAMED:
            raise ValueError(
                f"f={f!r} is unknown; choose one of {', '.join(map(repr, _NAMED))}, or build one with "
                "alpha_divergence, hockey_stick, precision_recall or user_generator"
            )
        return _NAMED[f]
    if callable(f):
        return user_generator(f)
    raise TypeError(f"f is {type(f).__name__}, expected a name, an FGenerator or a function of t")


def generator_and_unit(f: GeneratorLike, base: float | None) -> tuple[FGenerator, float]:
    """Return the generator, and what to multiply its divergence in nats by."""
    generator = get_generator(f)
    return generator, unit_scale(generator, base)


def alpha_divergence(alpha: float) -> FGenerator:
    """Return f(t) = (t^alpha - alpha t - (1 - alpha)) / (alpha (alpha - 1)), for any real alpha.

    alpha = 1 and alpha = 0 return the limits ``kl`` and ``reverse_kl``. alpha = 1/2 gives twice ``hellinger``, 2 half
    of ``pearson`` and -1 half of ``neyman``. f(0) is 1/alpha for alpha > 0, else inf;
    fbar(inf) is 1/(1 - alpha) for alpha < 1, else inf. The partner is that of 1 - alpha.

    Raises
    ------
    ValueError
        alpha is not finite.

    Notes
    -----
    Source: Cichocki and Amari: Families of Alpha- Beta- and Gamma-Divergences, Entropy 12 (2010), section 2.

    Examples
    --------
    >>> alpha_divergence(2.0).f(np.array([3.0]))
    array([2.])
    >>> alpha_divergence(1).name
    'kl'
    """
    alpha = _check_parameter(alpha, "alpha")
    if alpha in (0.0, 1.0):
        return get_generator("kl" if alpha == 1.0 else "reverse_kl")
    return FGenerator(
        name=f"alpha({alpha:g})",
        f=functools.partial(_alpha, alpha=alpha),
        derivative=functools.partial(_alpha_derivative, alpha=alpha),
        at_zero=1.0 / alpha if alpha > 0.0 else math.inf,
        slope_at_infinity=1.0 / (1.0 - alpha) if alpha < 1.0 else math.inf,
        kernel_code=9,
        parameter=alpha,
        power=alpha,
        closed_partner=functools.partial(alpha_divergence, 1.0 - alpha),
    )


def hockey_stick(gamma: float) -> FGenerator:
    """Return f(t) = max(t - gamma, 0) - max(1 - gamma, 0), for gamma > 0.

    For gamma >= 1 this is E_gamma(P||Q) = max over events A of P(A) - gamma Q(A); E_1 is the total variation. The
    maximum is min(gamma, 1).

    Raises
    ------
    ValueError
        gamma is not positive and finite.

    Notes
    -----
    Source: Polyanskiy and Wu: Information Theory, 2025, section 7.

    Examples
    --------
    >>> hockey_stick(2.0).f(np.array([0.0, 1.0, 5.0]))
    array([0., 0., 3.])
    """
    gamma = _check_parameter(gamma, "gamma", positive=True)
    return _hinge_family(hockey_stick, gamma, 1.0, gamma, 10)


def precision_recall(lam: float) -> FGenerator:
    """Return f(t) = max(lam t, 1) - max(lam, 1), the precision-recall divergence PR_lambda, for lam > 0.

    With P the real and Q the fake law, min(lam, 1) - D_f(P||Q) = sum min(lam p, q) = alpha_lam is the precision and
    alpha_lam / lam the recall at one point of the curve of Sajjadi et al. As lam -> inf, alpha_lam grows to Q(p > 0),
    the precision of supports, and as lam -> 0, alpha_lam / lam grows to P(q > 0), their recall. No continuous f gives
    these two limits: they do not depend on how p and q differ where both are positive.

    The maximum is min(lam, 1).

    Raises
    ------
    ValueError
        lam is not positive and finite.

    Notes
    -----
    Source: Verine, Negrevergne, Pydi, Chevaleyre: Precision-Recall Divergence Optimization for Generative Modeling
    with GANs and Normalizing Flows, NeurIPS 2023.

    Examples
    --------
    >>> precision_recall(2.0).f(np.array([0.0, 1.0, 5.0]))
    array([-1.,  0.,  8.])
    """
    lam = _check_parameter(lam, "lam", positive=True)
    return _hinge_family(precision_recall, lam, lam, 1.0, 11)


def _check_parameter(value: float, name: str, *, positive: bool = False) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (positive and value <= 0.0):
        raise ValueError(f"{name}={value!r} is not a finite {'positive ' if positive else ''}number; pass one")
    return float(value)


def _kl(t: Values) -> Values:
    return xlogy(t, t) - (t - 1.0)


def _reverse_kl(t: Values) -> Values:
    return (t - 1.0) - np.log(t)


def _reverse_kl_derivative(t: Values) -> Values:
    return 1.0 - 1.0 / t


def _js(t: Values) -> Values:
    half = 0.5 * (t - 1.0)
    small = xlogy(t, t) - (t + 1.0) * np.log1p(half)
    large = -t * np.log1p(-half / t) - np.log1p(half)  # t log t would cancel
    return np.where(t <= 1.0, small, large)


def _js_derivative(t: Values) -> Values:
    return _LOG_2 - np.log1p(1.0 / t)


def _jeffreys(t: Values) -> Values:
    return (t - 1.0) * np.log(t)


def _jeffreys_derivative(t: Values) -> Values:
    return np.log(t) + (1.0 - 1.0 / t)


def _pearson(t: Values) -> Values:
    return np.square(t - 1.0)


def _pearson_derivative(t: Values) -> Values:
    return 2.0 * (t - 1.0)


def _neyman(t: Values) -> Values:
    return np.square(1.0 - t) / t


def _neyman_derivative(t: Values) -> Values:
    return 1.0 - np.square(1.0 / t)


def _hellinger(t: Values) -> Values:
    return np.square((t - 1.0) / (np.sqrt(t) + 1.0))


def _hellinger_derivative(t: Values) -> Values:
    return 1.0 - 1.0 / np.sqrt(t)


def _le_cam(t: Values) -> Values:
    return 0.5 * (t - 1.0) * ((t - 1.0) / (t + 1.0))


def _le_cam_derivative(t: Values) -> Values:
    return 0.5 - 2.0 / np.square(t + 1.0)


def _alpha(t: Values, alpha: float) -> Values:
    """Two forms of one function: the first is exact for alpha -> 1, the second for alpha -> 0."""
    log_t = np.log(t)
    if alpha >= 0.5:
        value = (t * np.expm1((alpha - 1.0) * log_t) / (alpha - 1.0) - (t - 1.0)) / alpha
    else:
        value = (np.expm1(alpha * log_t) / alpha - (t - 1.0)) / (alpha - 1.0)
    return np.where(t > 0.0, value, 1.0 / alpha if alpha > 0.0 else np.inf)


def _alpha_derivative(t: Values, alpha: float) -> Values:
    return np.expm1((alpha - 1.0) * np.log(t)) / (alpha - 1.0)


def _hinge_family(
    factory: Callable[[float], FGenerator], parameter: float, a: float, b: float, kernel_code: int
) -> FGenerator:
    name = f"{factory.__name__}({parameter:g})"
    itself = functools.partial(factory, parameter)
    partner = functools.partial(_hinge, b, a, max(a, b), name=f"partner of {name}", closed_partner=itself)
    return _hinge(a, b, 0.0, name=name, kernel_code=kernel_code, parameter=parameter, closed_partner=partner)


def _hinge(a: float, b: float, tilt: float, **traits: Any) -> FGenerator:
    """f(t) = max(a t, b) - tilt t - (max(a, b) - tilt), with a and b positive: one kink, at b/a."""
    return FGenerator(
        f=functools.partial(_hinge_f, a=a, b=b, tilt=tilt),
        derivative=functools.partial(_hinge_derivative, a=a, b=b, tilt=tilt),
        at_zero=b - max(a, b) + tilt,
        slope_at_infinity=a - tilt,
        **traits,
    )


def _hinge_f(t: Values, a: float, b: float, tilt: float) -> Values:
    return np.maximum(a * t, b) - tilt * t - (max(a, b) - tilt)


def _hinge_derivative(t: Values, a: float, b: float, tilt: float) -> Values:
    return np.where(a * t > b, a, 0.0) - tilt


def _tv(t: Values) -> Values:
    return 0.5 * np.abs(t - 1.0)


def _tv_derivative(t: Values) -> Values:
    return np.where(t > 1.0, 0.5, -0.5)


def _named(
    kernel_code: int,
    name: str,
    functions: tuple[ArrayFunction, ArrayFunction],
    limits: tuple[float, float],
    *,
    partner: str | None = None,
    power: float | None = None,
    logarithmic: bool = False,
) -> FGenerator:
    f, derivative = functions
    at_zero, slope_at_infinity = limits
    return FGenerator(
        name=name,
        f=f,
        derivative=derivative,
        at_zero=at_zero,
        slope_at_infinity=slope_at_infinity,
        kernel_code=kernel_code,
        power=power,
        logarithmic=logarithmic,
        closed_partner=functools.partial(get_generator, partner or name),
    )


_INF = math.inf
_KL, _REVERSE_KL = (_kl, np.log), (_reverse_kl, _reverse_kl_derivative)
_NAMED = {
    generator.name: generator
    for generator in (
        _named(0, "kl", _KL, (1.0, _INF), partner="reverse_kl", power=1.0, logarithmic=True),
        _named(1, "reverse_kl", _REVERSE_KL, (_INF, 1.0), partner="kl", power=0.0, logarithmic=True),
        _named(2, "js", (_js, _js_derivative), (_LOG_2, _LOG_2), logarithmic=True),
        _named(3, "jeffreys", (_jeffreys, _jeffreys_derivative), (_INF, _INF), logarithmic=True),
        _named(4, "tv", (_tv, _tv_derivative), (0.5, 0.5)),
        _named(5, "pearson", (_pearson, _pearson_derivative), (1.0, _INF), partner="neyman", power=2.0),
        _named(6, "neyman", (_neyman, _neyman_derivative), (_INF, 1.0), partner="pearson", power=-1.0),
        _named(7, "hellinger", (_hellinger, _hellinger_derivative), (1.0, 1.0), power=0.5),
        _named(8, "le_cam", (_le_cam, _le_cam_derivative), (0.5, 0.5)),
    )
}
