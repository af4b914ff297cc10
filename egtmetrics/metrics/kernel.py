"""Kernel distance (KID): squared maximum mean discrepancy under a polynomial kernel."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import TooFewSamplesError
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.metrics.frechet import mean_of_rows
from egtmetrics.metrics.mixtures import Mixtures
from egtmetrics.metrics.subsampling import ClustersOfBoth, Floats, draw_subsamples
from egtmetrics.metrics.variance import Moves, PartsOfBoth, ScoreCovariance
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, internal, score, setting

_TILE_BYTES = 1 << 26
_LARGEST_SUBSET = 1000
"""By default."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PolynomialKernel:
    """``k(x, y) = (gamma x.y + coef0) ** degree``, less what no distance between kernel means depends on."""

    degree: int
    gamma: float
    coef0: float
    origin: NDArray[np.float64]
    """A point amid the data, ``(d,)``."""

    def __call__(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        """``k(x, y) - k(x, o) - k(o, y) + k(o, o)`` of all pairs of rows, ``(n, m)``, with o the origin.

        What is subtracted depends on one of the points alone, so it cancels in the squared distance between kernel
        means and in its variance. Where the features are far from zero, or near it and coef0 is not, it is most of k,
        and rounding it would hide the rest. So it is never computed. With u = x - o, v = y - o, w = gamma u.v,
        a = gamma o.u, b = gamma o.v and A = gamma o.o + coef0, degree 1 gives w, and from one degree r to the next::

            h <- (A + a + b + w) h + w (A^r + s + t) + a t + b s,    s = (A + a)^r - A^r,  t = (A + b)^r - A^r
        """
        u, v = (points.astype(np.float64) - self.origin for points in (x, y))
        w = u @ v.T
        w *= self.gamma
        a, b = (self.gamma * (points @ self.origin) for points in (u, v))
        constant = self.gamma * float(self.origin @ self.origin) + self.coef0
        base = w + a[:, None] + b + constant
        power, s, t = constant, a, b
        centred = w.copy()
        for _ in range(self.degree - 1):
            centred *= base
            centred += w * (power + s[:, None] + t)
            centred += np.outer(a, t)
            centred += np.outer(s, b)
            s, t = (constant + a) * s + power * a, (constant + b) * t + power * b
            power *= constant
        return centred


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelDistanceResult(MetricResult):
    """What :func:`kernel_distance` returns."""

    kid: float = score(
        label="KID",
        help="Squared distance between the kernel means of real and generated features, about 0 for equal laws.",
        better="lower",
        depends_on_size=False,
    )
    """Mean over the subsets. It can be negative. It is unbiased, so groups of any sizes can be compared."""
    kid_std: float
    """Standard deviation over the subsets (ddof 0): how much they differ, not the standard error of ``kid``."""
    n_subsets: int = setting()
    subset_size: int = setting()
    kernel: PolynomialKernel | None = internal(None)

    def evaluations(self, n_pairs: float) -> float:
        """Return how many evaluations like this one take as long as the kernel of so many pairs of rows."""
        return n_pairs / (3.0 * self.n_subsets * self.subset_size**2)


def kernel_variance(
    result: KernelDistanceResult,
    real: Any,
    fake: Any,
    rng: np.random.Generator,
    *,
    parts: PartsOfBoth,
    clusters: ClustersOfBoth = (None, None),
) -> ScoreCovariance | None:
    """Variances of the kernel distance as a U-statistic.

    With ``a(x) = E k(x, x') - E k(x, y)``, ``b(y)`` alike, and the kernel's second moments v after centring both of its
    arguments::

        Var(n, m) = 4 Var a / n + 4 Var b / m + 2 v_xx / n(n - 1) + 2 v_yy / m(m - 1) + 4 v_xy / nm  =:  L + D

    D matters if the laws are nearly equal. The kernel is taken as :class:`PolynomialKernel` gives it: what that leaves
    out would count in the means of its rows, by a part of order 1 / n. These vary more than ``a`` does, by
    v_xx / (n - 1) + v_xy / m, which is subtracted. They give L + 2 D, the variance for a single distance. From half of
    the rows it would be twice L + 4 D. For differences, extrapolating from half to whole and one step further, as for
    the Fréchet distance, gives ``(L + 2 D)^2 / (L + 4 D)``, which is D if L is 0, and L if D is 0.

    The mean of B subsets of s rows adds (Var(s, s) - Var(n, m)) / B to that of all rows.

    Where rows come in clusters, the variances are those of the moves of clusters (:class:`Moves`) instead.
    """
    if result.kernel is None:
        return None
    kernel, x, y = result.kernel, real, fake
    n, m = len(x), len(y)
    sums = _KernelSums.of(kernel, x, y)

    def centred_within(by_row: Floats, squares: float) -> float:
        k = len(by_row)
        moments = squares - 2.0 * by_row @ by_row / (k - 2) + by_row.sum() ** 2 / ((k - 1) * (k - 2))
        return float(moments / (k * (k - 3)))

    (in_x, xx), (in_y, yy), (at_x, at_y, xy) = sums.within_x, sums.within_y, sums.between
    v_xx, v_yy = centred_within(in_x, xx), centred_within(in_y, yy)
    v_xy = float(xy - at_x @ at_x / m - at_y @ at_y / n + at_x.sum() ** 2 / (n * m)) / ((n - 1) * (m - 1))
    of_a = float((in_x / (n - 1) - at_x / m).var(ddof=1)) - v_xx / (n - 1) - v_xy / m
    of_b = float((in_y / (m - 1) - at_y / n).var(ddof=1)) - v_yy / (m - 1) - v_xy / n

    def variances(n: int, m: int) -> Floats:
        """The variances for differences, and for a single distance."""
        second_order = 2.0 * v_xx / (n * (n - 1)) + 2.0 * v_yy / (m * (m - 1)) + 4.0 * v_xy / (n * m)
        estimated = max(0.0, 4.0 * of_a / n + 4.0 * of_b / m + 2.0 * second_order)
        extrapolated = estimated**2 / (estimated + 2.0 * second_order) if estimated > 0.0 else 0.0
        return np.array([extrapolated, estimated])

    whole, subset = variances(n, m), variances(result.subset_size, result.subset_size)
    in_differences, alone = whole + (subset - whole) / result.n_subsets
    moves = Moves.of(
        lambda x, y: _KernelSums.of(kernel, x, y).moves(),
        x,
        y,
        clusters,
        parts,
        n_splits=1,
        drawn=np.array([[(subset - whole)[0] / result.n_subsets]]),
        whole=sums.moves(),
    )
    if any(moves.clustered):
        return moves.covariance()
    return ScoreCovariance(data=np.array([[in_differences]]), alone=np.array([alone]), source=moves)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _KernelSums:
    """Sums of a kernel over rows and columns, and of its squares, without a row against itself."""

    within_x: tuple[Floats, float]
    within_y: tuple[Floats, float]
    between: tuple[Floats, Floats, float]

    @classmethod
    def of(cls, kernel: PolynomialKernel, x: Any, y: Any) -> _KernelSums:
        (in_x, _, xx), (in_y, _, yy) = _sums(kernel, x, x), _sums(kernel, y, y)
        return cls(within_x=(in_x, xx), within_y=(in_y, yy), between=_sums(kernel, x, y))

    def moves(self) -> tuple[Floats, Floats]:
        """Return how much every row of x and of y moves the kernel distance."""
        (in_x, _), (in_y, _), (at_x, at_y, _) = self.within_x, self.within_y, self.between
        n, m = len(in_x), len(in_y)
        return 2.0 * (in_x / (n - 1) - at_x / m)[:, None], 2.0 * (in_y / (m - 1) - at_y / n)[:, None]


def _sums(kernel: PolynomialKernel, rows: Any, columns: Any) -> tuple[Floats, Floats, float]:
    """Return the sums of a kernel over columns and over rows, and of its squares, without a row against itself."""
    by_row, by_column, squares = np.empty(len(rows)), np.zeros(len(columns)), 0.0
    step = max(1, _TILE_BYTES // (8 * len(columns)))
    for start in range(0, len(rows), step):
        tile = kernel(rows[start : start + step], columns)
        if rows is columns:
            tile[np.arange(len(tile)), start + np.arange(len(tile))] = 0.0
        by_row[start : start + step] = tile.sum(axis=1)
        by_column += tile.sum(axis=0)
        squares += float(np.vdot(tile, tile))
    return by_row, by_column, squares


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SumsOfSets:
    """Means of a kernel at every row over the rows of other sets, itself not counted: ``(rows, sets)``."""

    real: Sequence[Floats]
    """Of real set g: over itself, then over every fake set."""
    fake: Sequence[Floats]
    """Of fake set c: over every fake set, then over every real one."""

    @classmethod
    def of(cls, kernel: PolynomialKernel, real: Sequence[Any], fake: Sequence[Any]) -> _SumsOfSets:
        n_real, n_fake = len(real), len(fake)
        of_real = [np.empty((len(x), 1 + n_fake)) for x in real]
        of_fake = [np.empty((len(y), n_fake + n_real)) for y in fake]
        for g, x in enumerate(real):
            of_real[g][:, 0] = _sums(kernel, x, x)[0] / (len(x) - 1)
        for c, y in enumerate(fake):
            of_fake[c][:, c] = _sums(kernel, y, y)[0] / (len(y) - 1)
            for other in range(c + 1, n_fake):
                by_row, by_column, _ = _sums(kernel, y, fake[other])
                of_fake[c][:, other], of_fake[other][:, c] = by_row / len(fake[other]), by_column / len(y)
            for g, x in enumerate(real):
                by_row, by_column, _ = _sums(kernel, x, y)
                of_real[g][:, 1 + c], of_fake[c][:, n_fake + g] = by_row / len(y), by_column / len(x)
        return cls(real=of_real, fake=of_fake)

    def distances(self, weights: Floats) -> Floats:
        """Return the distances ``(..., G)``, from weights ``(..., G, C)``."""
        own, across = self._of_real
        found: Floats = own + (weights * (weights @ self._of_fake - 2.0 * across)).sum(axis=-1)
        return found

    @functools.cached_property
    def _of_real(self) -> tuple[Floats, Floats]:
        means = np.array([of_row.mean(axis=0) for of_row in self.real])
        return means[:, 0], means[:, 1:]

    @functools.cached_property
    def _of_fake(self) -> Floats:
        return np.array([of_row[:, : len(self.fake)].mean(axis=0) for of_row in self.fake])

    def moves(self, weights: Floats) -> list[Floats]:
        """Return how much every row of every real set, then of every fake one, moves the distances: ``(rows, G)``."""
        n_fake, found = len(self.fake), []
        for g, of_row in enumerate(self.real):
            moves = np.zeros((len(of_row), len(weights)))
            moves[:, g] = 2.0 * (of_row[:, 0] - of_row[:, 1:] @ weights[g])
            found.append(moves)
        for c, of_row in enumerate(self.fake):
            found.append(2.0 * weights[:, c] * (of_row[:, :n_fake] @ weights.T - of_row[:, n_fake:]))
        return found


def kernel_mixtures(
    results: Sequence[KernelDistanceResult], real: Sequence[Any], fake: Sequence[Any], rng: np.random.Generator
) -> Mixtures:
    """Return the kernel distances between real sets and mixtures of fake sets; see :func:`egtmetrics.registry.metric`.

    The kernel mean of a mixture is that of its parts, weighted. So with weights w, ``<., .>`` the mean kernel of two
    sets, and of one set over different rows::

        <x, x> - 2 sum_c w_c <x, y_c> + sum_cd w_c w_d <y_c, y_d>

    which is unbiased, of all rows. Time O((n + m)^2 d).
    """
    first = results[0].kernel
    assert first is not None
    kernel = dataclasses.replace(first, origin=np.mean([mean_of_rows(points) for points in (*real, *fake)], axis=0))
    parts = [draw_subsamples(points, rng, 1) for points in (*real, *fake)]
    whole = _SumsOfSets.of(kernel, real, fake)

    @functools.cache
    def halves() -> list[_SumsOfSets]:
        cut = [[side.points[side.parts[:, 0] == half] for side in parts] for half in range(2)]
        return [_SumsOfSets.of(kernel, sides[: len(real)], sides[len(real) :]) for sides in cut]

    def covariance(weights: Floats) -> ScoreCovariance:
        return Moves(
            whole=tuple(whole.moves(weights)),
            halves=tuple(tuple(half.moves(weights)) for half in halves()),
            drawn=np.zeros((len(weights), len(weights))),
            clustered=(False,) * len(parts),
        ).covariance()

    return Mixtures(values=lambda weights: whole.distances(weights)[..., None], covariance=covariance)


@metric("kid", title="Kernel distance", variance=kernel_variance, mixtures=kernel_mixtures)
def kernel_distance(
    real: Any,
    fake: Any,
    *,
    n_subsets: int = 100,
    subset_size: int | None = None,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    random_state: RandomState = None,
) -> KernelDistanceResult:
    r"""Unbiased estimate of the squared maximum mean discrepancy, averaged over random subsets.

    With k(x, y) = (``gamma`` x.y + ``coef0``)^``degree`` and s rows of each set, drawn without replacement:

    .. math::

        \text{MMD}^2 = \frac{1}{s(s-1)} \sum_{i \ne j} \bigl[k(x_i, x_j) + k(y_i, y_j)\bigr]
            - \frac{2}{s^2} \sum_{i, j} k(x_i, y_j).

    Its expectation is 0 where the first ``degree`` moments agree, so an estimate can be negative.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_subsets
        How many subsets are drawn.
    subset_size
        Rows in each subset (s), from 2 to the smaller of n and m. None means 1000, or the smaller of n and m below
        that; the result says which. The expectation does not depend on it, so groups of different sizes can be
        compared.
    degree, gamma, coef0
        Of the kernel, (gamma x.y + coef0) to the power of degree. ``gamma=None`` is 1 / d.
    random_state
        Seed or Generator of the draws; an integer makes the result repeatable.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, a set smaller than ``subset_size``, an option out of its range,
        or features so large that the kernel overflows.

    Notes
    -----
    Unlike a Fréchet distance it is unbiased at any number of rows, but it does depend on where the origin is and on the
    unit. Only differences of the features from their mean are multiplied, so features far from zero, or in a tiny unit,
    lose no more digits than they have. Time O(n_subsets * s^2 d), memory O(s^2 + s d) beyond the features. Where
    s is the number of rows of both sets, all subsets are the same and one is computed.

    References
    ----------
    Binkowski, Sutherland, Arbel, Gretton: Demystifying MMD GANs, ICLR 2018, sections 2.1 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(500, 8)), rng.normal(size=(400, 8)) + 0.5
    >>> result = kernel_distance(real, fake, n_subsets=10, subset_size=300, random_state=0)
    >>> result.kid > 5 * result.kid_std > 0
    True
    """
    n_subsets = check_positive_int(n_subsets, "n_subsets")
    if subset_size is not None:
        subset_size = check_positive_int(subset_size, "subset_size", minimum=2)
    degree = check_positive_int(degree, "degree")
    if gamma is not None and (not isinstance(gamma, int | float | np.number) or not 0 < gamma < math.inf):
        raise ValueError(f"gamma={gamma!r} is not a positive number; pass one, or None for 1 / n_features")
    if not isinstance(coef0, int | float | np.number) or not 0 <= coef0 < math.inf:
        raise ValueError(f"coef0={coef0!r} is not a number of at least 0; pass one, for example 1.0")
    real, fake = check_real_fake(real, fake)
    smallest = min(len(real), len(fake))
    size = min(_LARGEST_SUBSET, smallest) if subset_size is None else subset_size
    sides = {"real": real, "fake": fake}
    for name, points in sides.items():
        if len(points) < 2:
            message = f"{name} has 1 row, but the kernel distance needs pairs of rows of each set; add samples"
            raise TooFewSamplesError(message, needed=max(2, size))
    for name, points in sides.items():
        if len(points) < size:
            raise TooFewSamplesError(
                f"{name} has {len(points)} rows, but subset_size={size} rows are drawn without replacement; pass "
                f"subset_size={smallest} or less, or None",
                needed=size,
            )
    kernel = PolynomialKernel(
        degree=degree,
        gamma=1.0 / real.shape[1] if gamma is None else gamma,
        coef0=coef0,
        origin=(mean_of_rows(real) + mean_of_rows(fake)) / 2.0,
    )
    rng = check_random_state(random_state)
    every_subset_is_whole = size == len(real) == len(fake)
    estimates = np.empty(1 if every_subset_is_whole else n_subsets)
    with np.errstate(over="ignore", invalid="ignore"):
        for subset in range(len(estimates)):
            x = real[rng.choice(len(real), size, replace=False)]
            y = fake[rng.choice(len(fake), size, replace=False)]
            within = _off_diagonal_mean(kernel(x, x))
            within += _off_diagonal_mean(kernel(y, y))
            estimates[subset] = within - 2.0 * kernel(x, y).mean()
    if not np.isfinite(estimates).all():
        raise ValueError("the kernel of real and fake overflows float64; rescale the features or lower degree or gamma")
    return KernelDistanceResult(
        kid=float(estimates.mean()),
        kid_std=float(estimates.std()),
        n_subsets=n_subsets,
        subset_size=size,
        kernel=kernel,
        backend="numpy",
        n_real=len(real),
        n_fake=len(fake),
    )


def _off_diagonal_mean(kernel: NDArray[np.float64]) -> float:
    size = len(kernel)
    return float((kernel.sum() - kernel.trace()) / (size * (size - 1)))
