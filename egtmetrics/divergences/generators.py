"""Generators: the convex functions f behind the f-divergences, as small objects; and generators of your own.

Two generators that differ by c (t - 1) give the same divergence.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]
ArrayFunction: TypeAlias = Callable[[Values], Values]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FGenerator:
    """A convex f on (0, inf) with f(1) = 0, and what else the divergence D_f(P||Q) = sum q f(p/q) needs.

    The functions take numbers and arrays of any shape, and give no warnings at limits.
    """

    name: str
    f: ArrayFunction
    """f(t) for t >= 0; at t = 0 its limit ``at_zero``."""
    derivative: ArrayFunction
    """f'(t) for t > 0; at a kink the left derivative."""
    at_zero: float
    """f(0), the limit of f(t) for t -> 0, or inf: the cost of fake mass where there is no real mass."""
    slope_at_infinity: float
    """fbar(inf), the limit of f(t)/t for t -> inf, or inf: the cost of real mass where there is no fake mass."""
    kernel_code: int | None = None
    """Which function of the compiled kernel this is; None where it has none."""
    parameter: float = 0.0
    """The parameter of a family (alpha, gamma, lambda), 0 where there is none."""
    power: float | None = None
    """a, where f(t) = c (t^a - a t - (1 - a)) or its limit in a. Only these have a chain rule, see ``decompose``."""
    logarithmic: bool = False
    """Whether the divergence has the unit of a logarithm, so that a ``base`` makes sense."""
    closed_partner: Callable[[], FGenerator] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("f", "derivative"):
            object.__setattr__(self, name, functools.partial(_call_quietly, getattr(self, name)))

    @property
    def maximum(self) -> float:
        """The largest value f(0) + fbar(inf) of the divergence, reached where P and Q share no mass."""
        return self.at_zero + self.slope_at_infinity

    def partner(self) -> FGenerator:
        """Return t f(1/t), the generator of the divergence with its arguments swapped.

        >>> chi = user_generator(lambda t: (t - 1.0) ** 2)
        >>> chi.partner().f(np.array([4.0]))  # (1 - t)^2 / t
        array([2.25])
        """
        if self.closed_partner is not None:
            return self.closed_partner()
        return FGenerator(
            name=f"partner of {self.name}",
            f=functools.partial(_partner_f, self),
            derivative=functools.partial(_partner_derivative, self),
            at_zero=self.slope_at_infinity,
            slope_at_infinity=self.at_zero,
            logarithmic=self.logarithmic,
            closed_partner=functools.partial(_same, self),
        )


def unit_scale(generator: FGenerator, base: float | None) -> float:
    """Return the factor that turns nats into units of ``base`` (2 for bits, None for nats).

    Raises
    ------
    ValueError
        For a base that is not a positive number other than 1, and for a divergence without a logarithm: a total
        variation divided by log 2 is not in bits.
    """
    if base is None:
        return 1.0
    if not isinstance(base, int | float | np.number) or not (0.0 < base < math.inf) or base == 1:
        raise ValueError(f"base={base!r} is not a base of logarithms; pass 2 for bits, or None for nats")
    if not generator.logarithmic:
        raise ValueError(f"base={base!r} has no meaning for {generator.name!r}, which has no logarithm; leave it out")
    return 1.0 / math.log(base)


def user_generator(
    f: ArrayFunction,
    *,
    name: str = "user-defined",
    derivative: ArrayFunction | None = None,
    at_zero: float | None = None,
    slope_at_infinity: float | None = None,
    logarithmic: bool = False,
) -> FGenerator:
    """Make a generator from a function of t, after checking that it can be one.

    Parameters
    ----------
    f
        Maps a float64 array of t > 0 to an array of the same shape.
    derivative
        f'. None means central differences, with a relative error of about 1e-9.
    at_zero, slope_at_infinity
        f(0) and fbar(inf), which may be inf. None means that they are read off f(t) and f(t)/t, at t down to 1e-200 and
        up to 1e200.
    logarithmic
        Whether a ``base`` makes sense for the divergence.

    Raises
    ------
    ValueError
        f(1) is not 0, f is not finite or not convex at one of 801 points between 1e-4 and 1e4, or a limit cannot be
        read off.

    Notes
    -----
    Sampling can refute convexity, not prove it. f is used as it is: unless f'(1) = 0, small divergences lose digits to
    cancellation.

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
            raise ValueError(f"{argument}={limit} cannot be a limit of a convex function; pass a number or inf")
    return FGenerator(
        name=name,
        f=functools.partial(_user_f, f, at_zero),
        derivative=functools.partial(_user_derivative, f) if derivative is None else derivative,
        at_zero=float(at_zero),
        slope_at_infinity=float(slope_at_infinity),
        logarithmic=logarithmic,
    )


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
    """The limit of a convex function for t -> 0, judged from a few values."""
    with np.errstate(all="ignore"):
        size, *values = np.asarray(f(np.array([0.5, 1e-25, 1e-50, 1e-100, 1e-200])), dtype=np.float64).tolist()
    for value, nearer in itertools.pairwise(values):  # the first two that agree: later ones may overflow inside f
        if abs(nearer - value) <= 1e-9 * max(abs(size), abs(nearer)):
            return float(nearer)
    # where the exponent doubles, the growth of log t doubles, that of powers more than doubles; else there is a limit
    if values[-1] == math.inf or values[-1] - values[-2] > 1.999999 * (values[-2] - values[-3]) > 0.0:
        return math.inf
    raise ValueError(f"{name} cannot be read off f, which converges slowly or is NaN at the ends; pass {name}")


def _call_quietly(function: ArrayFunction, t: Values) -> Values:
    with np.errstate(all="ignore"):  # limits pass through infinities
        return function(np.asarray(t, dtype=np.float64))


def _same(generator: FGenerator) -> FGenerator:
    return generator


def _user_f(f: ArrayFunction, at_zero: float, t: Values) -> Values:
    return np.where(t > 0.0, f(np.where(t > 0.0, t, 1.0)), at_zero)


def _user_derivative(f: ArrayFunction, t: Values) -> Values:
    step = t * 6e-6  # the cube root of the rounding error balances it with the error of the difference
    below, above = t - step, t + step
    return np.asarray((f(above) - f(below)) / (above - below), dtype=np.float64)


def _partner_f(generator: FGenerator, t: Values) -> Values:
    inverse = 1.0 / t
    usable = np.isfinite(inverse)
    return np.where(usable, t * generator.f(np.where(usable, inverse, 1.0)), generator.slope_at_infinity)


def _partner_derivative(generator: FGenerator, t: Values) -> Values:
    inverse = 1.0 / t
    return generator.f(inverse) - inverse * generator.derivative(inverse)
