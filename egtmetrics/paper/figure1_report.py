"""The paper's Figure 1: models with one global divergence that treat two groups very differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from tabulate import tabulate

from egtmetrics.paper.figure1 import Figure1
from egtmetrics.plots import COLORS, figure_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = ("balanced", "most unequal of the family")


def plot_figure1(data: Figure1) -> Figure:
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


def _draw_densities(axes: Axes, data: Figure1, stars: list[NDArray[np.float64]]) -> None:
    x = np.linspace(-3.0, 3.0, 1201)
    axes.fill_between(x, _density(x, 0.5, 0.3, mirrored=True), color="0.85", label="P")
    for (mu, sigma), color, name in zip(stars, COLORS, _NAMES, strict=False):
        axes.plot(x, _density(x, mu, sigma), color=color, label=f"{name}: $\\mu$ = {mu:.2f}, $\\sigma$ = {sigma:.2f}")
    axes.set(xlabel="x", ylabel="density", title="one global divergence, different models", ylim=(0, 3.3))
    axes.legend(loc="upper center", fontsize=8)


def _density(x: NDArray[np.float64], mu: float, sigma: float, *, mirrored: bool = False) -> NDArray[np.float64]:
    """N(mu, sigma^2) with mass 1/2 on each half line; ``mirrored`` puts the right one's mirror image on the left."""
    means = np.where(x < 0, -mu if mirrored else mu, mu)
    mass = ndtr(np.where(x < 0, -means, means) / sigma)
    density: NDArray[np.float64] = np.exp(-0.5 * ((x - means) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)) / (2 * mass)
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
