"""The convex functions f behind the f-divergences, as small objects.

Two generators that differ by c (t - 1) give the same divergence. Of these, every smooth built-in takes the one with
f'(1) = 0: it is non-negative, so a divergence is a sum of non-negative terms and small divergences do not cancel.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import wrightomega, xlogy

Values: TypeAlias = NDArray[np.float64]
ArrayFunction: TypeAlias = Callable[[Values], Values]

_Arguments = ParamSpec("_Arguments")

_LOG_2 = math.log(2.0)


def _quiet(function: Callable[_Arguments, Values]) -> Callable[_Arguments, Values]:
    """Let a function take limits through infinities without warnings."""

    @functools.wraps(function)
    def quietly(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Values:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return quietly


@dataclasses.dataclass(frozen=True, kw_only=True)
class FGenerator:
    """A convex f on (0, inf) with f(1) = 0, and what the divergence D_f(P||Q) = sum q f(p/q) needs besides.

    The functions take float64 arrays of any shape and give no warnings.
    """

    name: str
    f: ArrayFunction
    """f(t) for t >= 0; at t = 0 its limit ``at_zero``."""
    derivative: ArrayFunction
    """f'(t) for t > 0; at a kink the left derivative."""
    conjugate: ArrayFunction
    """f*(u) = sup over t >= 0 of (u t - f(t)), inf outside its domain."""
    at_zero: float
    """f(0), the limit of f(t) for t -> 0; may be inf. What Q pays for mass where P has none."""
    slope_at_infinity: float
    """fbar(inf), the limit of f(t)/t for t -> inf; may be inf. What Q pays for missing mass of P."""
    source: str
    kernel_code: int | None = None
    """Which function of the compiled kernel this is; None where it has none."""
    parameter: float = 0.0
    """The parameter of a family (alpha, gamma, lambda), 0 where there is none."""
    power: float | None = None
    """a, where f(t) = c (t^a - a t - (1 - a)) or its limit in a: these alone have a chain rule, see ``decompose``."""
    logarithmic: bool = False
    """Whether the divergence is counted in units of a logarithm, so that a ``base`` makes sense."""
    closed_partner: Callable[[], FGenerator] | None = dataclasses.field(default=None, repr=False)

    @property
    def maximum(self) -> float:
        """The supremum f(0) + fbar(inf) of the divergence, attained where P and Q share no mass."""
        return self.at_zero + self.slope_at_infinity

    def partner(self) -> FGenerator:
        """Return t f(1/t), the generator of the divergence with its arguments swapped.

        >>> get_generator("kl").partner().name
        'reverse_kl'
        """
        if self.closed_partner is not None:
            return self.closed_partner()
        return FGenerator(
            name=f"partner of {self.name}",
            f=functools.partial(_partner_f, self),
            derivative=functools.partial(_partner_derivative, self),
            conjugate=functools.partial(_no_conjugate, f"partner of {self.name}"),
            at_zero=self.slope_at_infinity,
            slope_at_infinity=self.at_zero,
            source=self.source,
            logarithmic=self.logarithmic,
            closed_partner=functools.partial(get_generator, self),
        )


GeneratorLike: TypeAlias = str | FGenerator | ArrayFunction


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

    ``js`` is the unnormalised form KL(P||M) + KL(Q||M) with M = (P + Q) / 2, twice the usual one; ``hellinger`` is the
    squared distance without a factor 1/2.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, or a function that is no generator.

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


def unit_scale(generator: FGenerator, base: float | None) -> float:
    """Return by what to multiply a divergence in nats to have it in units of ``base`` (2 for bits, None for nats).

    Raises
    ------
    ValueError
        For a base that is no number above 0 other than 1, or a divergence that is no logarithm: a total variation
        divided by log 2 would not be in bits but wrong.
    """
    if base is None:
        return 1.0
    if not isinstance(base, int | float | np.number) or not (0.0 < base < math.inf) or base == 1:
        raise ValueError(f"base={base!r} is no base of logarithms; pass 2 for bits, or None for nats")
    if not generator.logarithmic:
        raise ValueError(f"base={base!r} has no meaning for {generator.name!r}, which is no logarithm; leave it out")
    return 1.0 / math.log(base)


def alpha_divergence(alpha: float) -> FGenerator:
    """Return f(t) = (t^alpha - alpha t - (1 - alpha)) / (alpha (alpha - 1)), for any real alpha.

    The limits are ``kl`` for alpha = 1 and ``reverse_kl`` for alpha = 0, which are returned there. alpha = 1/2 gives
    twice ``hellinger``, 2 half of ``pearson`` and -1 half of ``neyman``. f(0) is 1/alpha for alpha > 0, else inf;
    fbar(inf) is 1/(1 - alpha) for alpha < 1, else inf. The partner is that of 1 - alpha.

    Raises
    ------
    ValueError
        If alpha is not finite.

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
        conjugate=functools.partial(_alpha_conjugate, alpha=alpha),
        at_zero=1.0 / alpha if alpha > 0.0 else math.inf,
        slope_at_infinity=1.0 / (1.0 - alpha) if alpha < 1.0 else math.inf,
        source="Cichocki and Amari 2010, section 2",
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
        If gamma is not positive and finite.

    Notes
    -----
    Source: Polyanskiy and Wu: Information Theory, 2025, section 7.

    Examples
    --------
    >>> hockey_stick(2.0).f(np.array([0.0, 1.0, 5.0]))
    array([0., 0., 3.])
    """
    gamma = _check_parameter(gamma, "gamma", positive=True)
    return _hinge_family(hockey_stick, gamma, 1.0, gamma, "Polyanskiy and Wu 2025, section 7", 10)


def precision_recall(lam: float) -> FGenerator:
    """Return f(t) = max(lam t, 1) - max(lam, 1), the precision-recall divergence PR_lambda, for lam > 0.

    With P the real and Q the fake law, min(lam, 1) - D_f(P||Q) = sum min(lam p, q) = alpha_lam is the precision and
    alpha_lam / lam the recall at one point of the curve of Sajjadi et al. As lam -> inf, alpha_lam grows to
    Q(p > 0), the precision, and as lam -> 0, alpha_lam / lam grows to P(q > 0), the recall. These two limits
    themselves are no f-divergences with a continuous f: they do not see how p and q differ where both are positive.

    The maximum is min(lam, 1).

    Raises
    ------
    ValueError
        If lam is not positive and finite.

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
    return _hinge_family(precision_recall, lam, lam, 1.0, "Verine et al. 2023", 11)


def user_generator(
    f: ArrayFunction,
    *,
    name: str = "user-defined",
    derivative: ArrayFunction | None = None,
    conjugate: ArrayFunction | None = None,
    at_zero: float | None = None,
    slope_at_infinity: float | None = None,
    source: str = "user-defined",
    logarithmic: bool = False,
) -> FGenerator:
    """Make a generator of a function of t, after checking that it can be one.

    Parameters
    ----------
    f
        Maps a float64 array of t > 0 to an array of the same shape.
    derivative
        f'. None takes central differences, good to about 1e-9 relative.
    conjugate
        f*. Without it ``FGenerator.conjugate`` raises; only variational bounds need it.
    at_zero, slope_at_infinity
        f(0) and fbar(inf), inf where they are. None reads them off f(t) and f(t)/t at t down to 1e-200 and up to
        1e200.
    logarithmic
        Whether a ``base`` makes sense for the divergence.

    Raises
    ------
    ValueError
        If f(1) is not 0, if f is not finite or not convex at one of 801 points between 1e-4 and 1e4, or if a limit
        cannot be read off.

    Notes
    -----
    Sampling can refute convexity, not prove it. f is used as it comes: where it is not written with f'(1) = 0, small
    divergences suffer from cancellation.

    Examples
    --------
    >>> chi = user_generator(lambda t: t**2 - 1.0, name="chi-squared")
    >>> chi.at_zero, chi.slope_at_infinity
    (-1.0, inf)
    >>> user_generator(np.log)
    Traceback (most recent call last):
        ...
    ValueError: f is not convex: its slope falls between t=0.0001 and t=0.000104713; pass a convex function
    """
    _check_convex(f)
    if at_zero is None:
        at_zero = _limit_at_zero(f, "at_zero")
    if slope_at_infinity is None:
        slope_at_infinity = _limit_at_zero(lambda s: s * np.asarray(f(1.0 / s)), "slope_at_infinity")
    for limit, argument in ((at_zero, "at_zero"), (slope_at_infinity, "slope_at_infinity")):
        if math.isnan(limit) or limit == -math.inf:
            raise ValueError(f"{argument}={limit} is no limit of a convex function; pass a number or inf")
    return FGenerator(
        name=name,
        f=functools.partial(_user_f, f, at_zero),
        derivative=functools.partial(_user_derivative, f) if derivative is None else derivative,
        conjugate=functools.partial(_no_conjugate, name) if conjugate is None else conjugate,
        at_zero=float(at_zero),
        slope_at_infinity=float(slope_at_infinity),
        source=source,
        logarithmic=logarithmic,
    )


def _check_parameter(value: float, name: str, *, positive: bool = False) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (positive and value <= 0.0):
        raise ValueError(f"{name}={value!r} is no finite {'positive ' if positive else ''}number; pass one")
    return float(value)


def _check_convex(f: ArrayFunction) -> None:
    t = np.logspace(-4.0, 4.0, 401)
    t = np.sort(np.concatenate([t, 0.5 * (t[1:] + t[:-1])]))
    with np.errstate(all="ignore"):
        values, at_one = np.asarray(f(t), dtype=np.float64), np.asarray(f(np.ones(1)), dtype=np.float64)
    if values.shape != t.shape:
        raise ValueError(f"f maps an array of shape {t.shape} to shape {values.shape}; pass a function of arrays")
    if not np.isfinite(values).all():
        where = t[int(np.argmin(np.isfinite(values)))]
        raise ValueError(f"f is not finite at t={where:g}; pass a function that is finite for t > 0")
    if not abs(at_one[0]) < 1e-12:
        raise ValueError(f"f(1) is {at_one[0]:g}, expected 0; subtract it")
    width = np.diff(t)
    slope = np.diff(values) / width
    size = np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
    noise = 1e-10 * (np.maximum(size, 1.0) / width)  # what cancellation in f may do to a slope
    falls = slope[1:] - slope[:-1] < -(noise[1:] + noise[:-1])
    if falls.any():
        i = int(np.argmax(falls))
        raise ValueError(
            f"f is not convex: its slope falls between t={t[i]:g} and t={t[i + 2]:g}; pass a convex function"
        )


def _limit_at_zero(f: ArrayFunction, name: str) -> float:
    """The limit of a convex function for t -> 0, as far as a few values tell."""
    with np.errstate(all="ignore"):
        size, *values = np.asarray(f(np.array([0.5, 1e-25, 1e-50, 1e-100, 1e-200])), dtype=np.float64).tolist()
    for value, nearer in itertools.pairwise(values):  # the first that agree: later ones may overflow inside f
        if abs(nearer - value) <= 1e-9 * max(abs(size), abs(nearer)):
            return float(nearer)
    # log t grows by twice as much over twice the exponent, powers by more, what converges by less
    if values[-1] == math.inf or values[-1] - values[-2] > 1.999999 * (values[-2] - values[-3]) > 0.0:
        return math.inf
    raise ValueError(f"{name} cannot be read off f, which converges slowly or is NaN at the ends; pass {name}")


@_quiet
def _user_f(f: ArrayFunction, at_zero: float, t: Values) -> Values:
    t = np.asarray(t, dtype=np.float64)
    return np.where(t > 0.0, f(np.where(t > 0.0, t, 1.0)), at_zero)


@_quiet
def _user_derivative(f: ArrayFunction, t: Values) -> Values:
    step = np.asarray(t) * 6e-6  # the cube root of the rounding error balances it with the error of the difference
    below, above = t - step, t + step
    return np.asarray((f(above) - f(below)) / (above - below), dtype=np.float64)


def _no_conjugate(name: str, u: Values) -> Values:
    raise ValueError(f"the conjugate of {name!r} is not known; build it with user_generator(..., conjugate=...)")


@_quiet
def _partner_f(generator: FGenerator, t: Values) -> Values:
    t = np.asarray(t, dtype=np.float64)
    inverse = 1.0 / t
    usable = np.isfinite(inverse)
    return np.where(usable, t * generator.f(np.where(usable, inverse, 1.0)), generator.slope_at_infinity)


@_quiet
def _partner_derivative(generator: FGenerator, t: Values) -> Values:
    inverse = 1.0 / np.asarray(t, dtype=np.float64)
    return generator.f(inverse) - inverse * generator.derivative(inverse)


@_quiet
def _kl(t: Values) -> Values:
    return xlogy(t, t) - (t - 1.0)


@_quiet
def _kl_derivative(t: Values) -> Values:
    return np.log(t)


@_quiet
def _kl_conjugate(u: Values) -> Values:
    return np.expm1(u)


@_quiet
def _reverse_kl(t: Values) -> Values:
    return (t - 1.0) - np.log(t)


@_quiet
def _reverse_kl_derivative(t: Values) -> Values:
    return 1.0 - 1.0 / np.asarray(t)


@_quiet
def _reverse_kl_conjugate(u: Values) -> Values:
    return np.where(np.asarray(u) < 1.0, -np.log1p(-np.minimum(u, 1.0)), np.inf)


@_quiet
def _js(t: Values) -> Values:
    t = np.asarray(t, dtype=np.float64)
    half = 0.5 * (t - 1.0)
    small = xlogy(t, t) - (t + 1.0) * np.log1p(half)
    large = -t * np.log1p(-half / t) - np.log1p(half)  # t log t would cancel
    return np.where(t <= 1.0, small, large)


@_quiet
def _js_derivative(t: Values) -> Values:
    return _LOG_2 - np.log1p(1.0 / np.asarray(t))


@_quiet
def _js_conjugate(u: Values) -> Values:
    return np.where(np.asarray(u) < _LOG_2, -np.log1p(-np.expm1(u)), np.inf)


@_quiet
def _jeffreys(t: Values) -> Values:
    return (t - 1.0) * np.log(t)


@_quiet
def _jeffreys_derivative(t: Values) -> Values:
    return np.log(t) + (1.0 - 1.0 / np.asarray(t))


@_quiet
def _jeffreys_conjugate(u: Values) -> Values:
    inverse = wrightomega(1.0 - np.asarray(u, dtype=np.float64))  # 1/t where f'(t) = u: 1/t + log(1/t) = 1 - u
    return inverse + 1.0 / inverse + u - 2.0


@_quiet
def _pearson(t: Values) -> Values:
    return np.square(t - 1.0)


@_quiet
def _pearson_derivative(t: Values) -> Values:
    return 2.0 * (t - 1.0)


@_quiet
def _pearson_conjugate(u: Values) -> Values:
    u = np.maximum(u, -2.0)
    return u + 0.25 * np.square(u)


@_quiet
def _neyman(t: Values) -> Values:
    return np.square(1.0 - t) / t


@_quiet
def _neyman_derivative(t: Values) -> Values:
    return 1.0 - np.square(1.0 / np.asarray(t))


@_quiet
def _neyman_conjugate(u: Values) -> Values:
    u = np.asarray(u, dtype=np.float64)
    return np.where(u <= 1.0, 2.0 * u / (1.0 + np.sqrt(1.0 - np.minimum(u, 1.0))), np.inf)


@_quiet
def _hellinger(t: Values) -> Values:
    return np.square((t - 1.0) / (np.sqrt(t) + 1.0))


@_quiet
def _hellinger_derivative(t: Values) -> Values:
    return 1.0 - 1.0 / np.sqrt(t)


@_quiet
def _hellinger_conjugate(u: Values) -> Values:
    u = np.asarray(u, dtype=np.float64)
    return np.where(u < 1.0, u / (1.0 - u), np.inf)


@_quiet
def _le_cam(t: Values) -> Values:
    return 0.5 * (t - 1.0) * ((t - 1.0) / (t + 1.0))


@_quiet
def _le_cam_derivative(t: Values) -> Values:
    return 0.5 - 2.0 / np.square(t + 1.0)


@_quiet
def _le_cam_conjugate(u: Values) -> Values:
    u = np.maximum(u, -1.5)  # below, the supremum lies at t = 0
    root = np.sqrt(1.0 - 2.0 * np.minimum(u, 0.5))
    return np.where(u <= 0.5, 4.0 * u / (1.0 + root) - u, np.inf)


@_quiet
def _alpha(t: Values, alpha: float) -> Values:
    """Two forms of one function: the first is exact for alpha -> 1, the second for alpha -> 0."""
    t = np.asarray(t, dtype=np.float64)
    log_t = np.log(t)
    if alpha >= 0.5:
        value = (t * np.expm1((alpha - 1.0) * log_t) / (alpha - 1.0) - (t - 1.0)) / alpha
    else:
        value = (np.expm1(alpha * log_t) / alpha - (t - 1.0)) / (alpha - 1.0)
    return np.where(t > 0.0, value, 1.0 / alpha if alpha > 0.0 else np.inf)


@_quiet
def _alpha_derivative(t: Values, alpha: float) -> Values:
    return np.expm1((alpha - 1.0) * np.log(t)) / (alpha - 1.0)


@_quiet
def _alpha_conjugate(u: Values, alpha: float) -> Values:
    u = np.asarray(u, dtype=np.float64)
    base = np.maximum((alpha - 1.0) * u, -1.0)  # t^(alpha - 1) - 1 where f'(t) = u
    value = np.expm1(alpha / (alpha - 1.0) * np.log1p(base)) / alpha
    return np.where(u <= 1.0 / (1.0 - alpha), value, np.inf) if alpha < 1.0 else value


def _hinge_family(
    factory: Callable[[float], FGenerator], parameter: float, a: float, b: float, source: str, kernel_code: int
) -> FGenerator:
    name = f"{factory.__name__}({parameter:g})"
    itself = functools.partial(factory, parameter)
    partner = functools.partial(_hinge, b, a, max(a, b), f"partner of {name}", source, itself)
    return _hinge(a, b, 0.0, name, source, partner, kernel_code, parameter)


def _hinge(
    a: float,
    b: float,
    tilt: float,
    name: str,
    source: str,
    closed_partner: Callable[[], FGenerator],
    kernel_code: int | None = None,
    parameter: float = 0.0,
) -> FGenerator:
    """f(t) = max(a t, b) - tilt t - (max(a, b) - tilt), with a and b positive: one kink, at b/a."""
    return FGenerator(
        name=name,
        f=functools.partial(_hinge_f, a=a, b=b, tilt=tilt),
        derivative=functools.partial(_hinge_derivative, a=a, b=b, tilt=tilt),
        conjugate=functools.partial(_hinge_conjugate, a=a, b=b, tilt=tilt),
        at_zero=b - max(a, b) + tilt,
        slope_at_infinity=a - tilt,
        source=source,
        kernel_code=kernel_code,
        parameter=parameter,
        closed_partner=closed_partner,
    )


@_quiet
def _hinge_f(t: Values, a: float, b: float, tilt: float) -> Values:
    return np.maximum(a * np.asarray(t), b) - tilt * t - (max(a, b) - tilt)


@_quiet
def _hinge_derivative(t: Values, a: float, b: float, tilt: float) -> Values:
    return np.where(a * np.asarray(t) > b, a, 0.0) - tilt


@_quiet
def _hinge_conjugate(u: Values, a: float, b: float, tilt: float) -> Values:
    slope = np.asarray(u, dtype=np.float64) + tilt
    return np.where(slope <= a, np.maximum(slope, 0.0) * (b / a) - b + (max(a, b) - tilt), np.inf)


def _tv(t: Values) -> Values:
    return 0.5 * np.abs(t - 1.0)


def _tv_derivative(t: Values) -> Values:
    return np.where(np.asarray(t) > 1.0, 0.5, -0.5)


def _tv_conjugate(u: Values) -> Values:
    return np.where(np.asarray(u) <= 0.5, np.maximum(u, -0.5), np.inf)


def _builtin(
    kernel_code: int,
    name: str,
    functions: tuple[ArrayFunction, ArrayFunction, ArrayFunction],
    at_zero: float,
    slope_at_infinity: float,
    *,
    partner: str | None = None,
    power: float | None = None,
    logarithmic: bool = False,
    source: str = "Polyanskiy and Wu 2025, section 7",
) -> FGenerator:
    f, derivative, conjugate = functions
    return FGenerator(
        name=name,
        f=f,
        derivative=derivative,
        conjugate=conjugate,
        at_zero=at_zero,
        slope_at_infinity=slope_at_infinity,
        source=source,
        kernel_code=kernel_code,
        power=power,
        logarithmic=logarithmic,
        closed_partner=functools.partial(get_generator, partner or name),
    )


_NAMED = {
    generator.name: generator
    for generator in (
        _builtin(
            0,
            "kl",
            (_kl, _kl_derivative, _kl_conjugate),
            1.0,
            math.inf,
            partner="reverse_kl",
            power=1.0,
            logarithmic=True,
            source="Kullback and Leibler 1951",
        ),
        _builtin(
            1,
            "reverse_kl",
            (_reverse_kl, _reverse_kl_derivative, _reverse_kl_conjugate),
            math.inf,
            1.0,
            partner="kl",
            power=0.0,
            logarithmic=True,
            source="Kullback and Leibler 1951",
        ),
        _builtin(
            2,
            "js",
            (_js, _js_derivative, _js_conjugate),
            _LOG_2,
            _LOG_2,
            logarithmic=True,
            source="Lin 1991; EGT paper, section 2.1",
        ),
        _builtin(
            3,
            "jeffreys",
            (_jeffreys, _jeffreys_derivative, _jeffreys_conjugate),
            math.inf,
            math.inf,
            logarithmic=True,
            source="Jeffreys 1946",
        ),
        _builtin(4, "tv", (_tv, _tv_derivative, _tv_conjugate), 0.5, 0.5),
        _builtin(
            5,
            "pearson",
            (_pearson, _pearson_derivative, _pearson_conjugate),
            1.0,
            math.inf,
            partner="neyman",
            power=2.0,
        ),
        _builtin(
            6,
            "neyman",
            (_neyman, _neyman_derivative, _neyman_conjugate),
            math.inf,
            1.0,
            partner="pearson",
            power=-1.0,
        ),
        _builtin(7, "hellinger", (_hellinger, _hellinger_derivative, _hellinger_conjugate), 1.0, 1.0, power=0.5),
        _builtin(8, "le_cam", (_le_cam, _le_cam_derivative, _le_cam_conjugate), 0.5, 0.5),
    )
}
