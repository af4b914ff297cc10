"""The paper's Figure 1: models with one global divergence from the data that treat two groups very differently."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_ndtr, ndtr
from tabulate import tabulate

from egtmetrics.divergences.exact import f_divergence
from egtmetrics.divergences.generators import Values
from egtmetrics.divergences.theory import UnequalModel, unequal_model
from egtmetrics.plots import COLORS, figure_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEAN, _DEVIATION = 0.5, 0.3
_LEVEL = 1.0
_GAP = 1.96
_END = 3.8
"""P has mass 1e-27 beyond it, so the mass of Q beyond it counts as one cell without P."""
_SMALLEST_DEVIATION = 0.1
_ROWS = 2000
_NAMES = ("balanced", "most unequal of the family")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure1:
    """What :func:`figure1` returns. Divergences are Jensen-Shannon, in bits, from 0 to 2."""

    mu: Values
    """``(M,)``."""
    sigma: Values
    """``(S,)``."""
    total: Values
    """D_JS(P||Q) on the grid, ``(S, M)``."""
    conditional: Values
    """D_JS(P_a||Q_a) for a = 0 (x < 0) and a = 1, ``(2, S, M)``."""
    level_set: Values
    """Points (mu, sigma) where the level set of total 1 crosses the lines of the grid, ``(L, 2)``."""
    level_conditional: Values
    """The two conditional divergences there, ``(L, 2)``."""
    most_unequal: int
    """Index of the point with the largest gap between the two."""
    most_equal: int
    """Index of the point with the smallest gap, where both are 1."""
    unequal: UnequalModel
    """A model at the same total whose conditional divergences are 0.02 and 1.98, by Theorem A.3, on 200 cells."""
    unequal_edges: Values
    """Edges of these cells, ``(201,)``; ``unequal.cell`` and ``unequal.share`` say where one is cut."""


def toy_divergences(mu: Any, sigma: Any) -> Values:
    """D_JS(P_a||Q_a) in bits for the two groups of Figure 1.

    P_0 and P_1 are N(-0.5, 0.3^2) and N(0.5, 0.3^2) truncated to the half lines x < 0 and x >= 0, and Q_0 and Q_1 are
    N(mu, sigma^2) truncated to them. With the odds matched, 1/2 and 1/2, the divergence between the mixtures is the
    mean of the two (Lemma A.2).

    Parameters
    ----------
    mu, sigma
        Arrays that broadcast to one shape; sigma at least 0.1, the least that the quadrature resolves.

    Returns
    -------
    numpy.ndarray
        Of that shape, with a leading axis of 2.

    Raises
    ------
    ValueError
        If a value is not finite or a sigma below 0.1.

    Notes
    -----
    Gauss-Legendre quadrature with 512 nodes on [0, 3.8], denser towards 0; the rest of the half line is one more cell.
    The error is below 1e-8: densities that do not sum to 1 to that accuracy raise. Takes 0.1 ms per point.

    Source: section 3.1 of the EGT paper.

    Examples
    --------
    >>> toy_divergences(0.0, 1.0).round(3)
    array([0.279, 0.279])
    """
    mu, sigma = np.broadcast_arrays(np.asarray(mu, dtype=np.float64), np.asarray(sigma, dtype=np.float64))
    if not (np.isfinite(mu) & np.isfinite(sigma) & (sigma >= _SMALLEST_DEVIATION)).all():
        raise ValueError(f"mu and sigma must be finite, and sigma at least {_SMALLEST_DEVIATION}")
    nodes, gauss = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(0.0, 1.0, 65)
    root = (edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1.0) / 2.0).ravel()  # x = 3.8 root^2
    x = _END * root**2
    weights = np.append(2.0 * _END * root * np.tile(gauss, 64) / 128.0, 1.0)
    p = _half_line_law(np.array([_MEAN]), np.array([_DEVIATION]), x)
    # the group x < 0 mirrors the other one
    means, deviations = np.stack([-mu, mu]).ravel(), np.stack([sigma, sigma]).ravel()
    values = np.empty(means.shape)
    for start in range(0, len(means), _ROWS):
        rows = slice(start, start + _ROWS)
        q = _half_line_law(means[rows], deviations[rows], x)
        values[rows] = f_divergence(p[0], q, f="js", base=2, weights=weights)
    return values.reshape(2, *mu.shape)


def figure1(*, n_mu: int = 241, n_sigma: int = 127) -> Figure1:
    """Compute Figure 1: divergences on a grid of (mu, sigma), the level set D_JS = 1, and its extremes.

    The grid has mu in [-6, 6] and sigma in [0.1, 3.25], which contains the whole level set. The paper marks models with
    conditional divergences 0.02 and 1.98 on it. This family does not reach them: the most unequal pair on the level set
    is (0.20, 1.80), at abs(mu) near 4.02 and sigma near 1.56. Theorem A.3 does, outside the family (``unequal``).

    Parameters
    ----------
    n_mu, n_sigma
        The resolution, at least 2 each.

    Raises
    ------
    ValueError
        For fewer than 2 grid lines.

    Notes
    -----
    Source: Figure 1 and section 3.1 of the EGT paper. Takes 0.1 ms per point of the grid.

    Examples
    --------
    >>> figure = figure1(n_mu=49, n_sigma=33)
    >>> figure.level_conditional[figure.most_unequal].round(1)
    array([1.8, 0.2])
    """
    if n_mu < 2 or n_sigma < 2:
        raise ValueError(f"n_mu={n_mu} and n_sigma={n_sigma}, expected at least 2 grid lines each")
    mu, sigma = np.linspace(-6.0, 6.0, n_mu), np.linspace(_SMALLEST_DEVIATION, 3.25, n_sigma)
    conditional = toy_divergences(mu, sigma[:, None])
    total = conditional.mean(axis=0)
    level_set = _level_set(mu, sigma, total)
    level_conditional = toy_divergences(*level_set.T).T
    gaps = np.abs(np.diff(level_conditional, axis=1)[:, 0])
    # cells of P for Theorem A.3: 100 on either side of 0 hold all but 1e-11 of its mass
    edges = np.linspace(0.0, 2.5, 101)
    masses = np.diff(ndtr((edges - _MEAN) / _DEVIATION))
    masses *= 0.5 / masses.sum()
    return Figure1(
        mu=mu,
        sigma=sigma,
        total=total,
        conditional=conditional,
        level_set=level_set,
        level_conditional=level_conditional,
        most_unequal=int(np.argmax(gaps)),
        most_equal=int(np.argmin(gaps)),
        unequal=unequal_model(
            np.concatenate([masses[::-1], masses]),
            np.repeat([0, 1], 100),
            eps=_LEVEL,
            gamma=_GAP,
            f="js",
            base=2,
            worst_group=1,
        ),
        unequal_edges=np.concatenate([-edges[:0:-1], edges]),
    )


def draw_figure1(data: Figure1) -> Figure:
    """Draw four panels: densities of the starred models, the global divergence, and the two conditional ones."""
    figure = figure_class()(figsize=(10, 8), layout="constrained")
    densities, total, first, second = figure.subplots(2, 2).ravel()
    stars = [data.level_set[i] for i in (data.most_equal, data.most_unequal)]
    _draw_densities(densities, data, stars)
    panels = [
        (total, data.total, "global divergence $D_{JS}(P\\|Q)$"),
        (first, data.conditional[0], "group $x < 0$: $D_{JS}(P_0\\|Q_0)$"),
        (second, data.conditional[1], "group $x \\geq 0$: $D_{JS}(P_1\\|Q_1)$"),
    ]
    levels = np.linspace(0.0, 2.0, 21)
    for axes, values, title in panels:
        filled = axes.contourf(data.mu, data.sigma, np.minimum(values, 2.0), levels=levels, cmap="cividis")
        axes.contour(data.mu, data.sigma, data.total, levels=[1.0], colors="white", linewidths=1.5)
        for star, color in zip(stars, COLORS, strict=False):
            axes.plot(*star, marker="*", markersize=15, color=color, markeredgecolor="white", linestyle="")
        axes.set(xlabel=r"$\mu$", ylabel=r"$\sigma$", title=title)
    bar = figure.colorbar(filled, ax=[total, first, second], label="bits; white line: global divergence 1")
    bar.set_ticks(np.linspace(0.0, 2.0, 5).tolist())
    return figure


def _draw_densities(axes: Axes, data: Figure1, stars: list[Values]) -> None:
    x = np.linspace(-3.0, 3.0, 1201)
    axes.fill_between(x, _density(x, 0.5, 0.3, mirrored=True), color="0.85", label="P")
    for (mu, sigma), color, name in zip(stars, COLORS, _NAMES, strict=False):
        axes.plot(x, _density(x, mu, sigma), color=color, label=f"{name}: $\\mu$ = {mu:.2f}, $\\sigma$ = {sigma:.2f}")
    axes.set(xlabel="x", ylabel="density", title="one global divergence, different models", ylim=(0, 3.3))
    axes.legend(loc="upper center", fontsize=8)


def _density(x: Values, mu: float, sigma: float, *, mirrored: bool = False) -> Values:
    """N(mu, sigma^2) with mass 1/2 on each half line; ``mirrored`` puts the right one's mirror image on the left."""
    means = np.where(x < 0, -mu if mirrored else mu, mu)
    mass = ndtr(np.where(x < 0, -means, means) / sigma)
    density: Values = np.exp(-0.5 * ((x - means) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)) / (2 * mass)
    return density


def describe_figure1(data: Figure1) -> str:
    """Return a table of the extremes on the level set and of the model that Theorem A.3 constructs."""
    rows = []
    for name, index in zip(_NAMES, (data.most_equal, data.most_unequal), strict=True):
        mu, sigma = data.level_set[index]
        rows.append([name, f"{mu:.2f}", f"{sigma:.2f}", *(f"{value:.2f}" for value in data.level_conditional[index])])
    rows.append(["Theorem A.3, gamma = 1.96", "", "", *(f"{value:.2f}" for value in data.unequal.by_group.values())])
    headers = ["model with D_JS(P||Q) = 1 bit", "mu", "sigma", "group x < 0", "group x >= 0"]
    return tabulate(rows, headers=headers, disable_numparse=True)


def _half_line_law(mean: Values, deviation: Values, x: Values) -> Values:
    """Return the density at x of each N(mean, deviation^2) truncated to x >= 0, and last its mass beyond 3.8."""
    log_mass = log_ndtr(mean / deviation)[:, None]
    z = (x - mean[:, None]) / deviation[:, None]
    log_density = -0.5 * (np.square(z) + np.log(2.0 * np.pi)) - np.log(deviation)[:, None] - log_mass
    log_beyond = log_ndtr((mean - _END) / deviation)[:, None] - log_mass
    with np.errstate(under="ignore"):
        return np.asarray(np.exp(np.concatenate([log_density, log_beyond], axis=1)))


def _level_set(mu: Values, sigma: Values, total: Values) -> Values:
    """Find where total = 1 on the lines of the grid, by bisection on every grid edge that crosses it."""
    points = np.stack(np.broadcast_arrays(mu, sigma[:, None]), axis=-1)
    above = total > _LEVEL
    along_mu, along_sigma = above[:, 1:] != above[:, :-1], above[1:] != above[:-1]
    low = np.concatenate([points[:, :-1][along_mu], points[:-1][along_sigma]])
    high = np.concatenate([points[:, 1:][along_mu], points[1:][along_sigma]])
    low_above = np.concatenate([above[:, :-1][along_mu], above[:-1][along_sigma]])
    for _ in range(40):
        middle = 0.5 * (low + high)
        same = (toy_divergences(*middle.T).mean(axis=0) > _LEVEL) == low_above
        low, high = np.where(same[:, None], middle, low), np.where(same[:, None], high, middle)
    return np.asarray(0.5 * (low + high))
