from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import truncnorm

from egtmetrics.divergences import f_divergence, is_delta_ego, is_delta_mgo
from egtmetrics.paper.figure1 import Figure1, figure1, toy_divergences


def by_adaptive_quadrature(mu: float, sigma: float) -> float:
    """JS in bits between the truncated Gaussians on x >= 0."""
    real, fake = truncnorm(-0.5 / 0.3, np.inf, 0.5, 0.3), truncnorm(-mu / sigma, np.inf, mu, sigma)

    def integrand(x: float) -> float:
        a, b = float(real.pdf(x)), float(fake.pdf(x))
        return sum(c * math.log2(2.0 * c / (a + b)) for c in (a, b) if c > 0)

    cuts = [0.0, 0.05, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0, 40.0]
    parts = [quad(integrand, *ends, epsabs=1e-11)[0] for ends in itertools.pairwise(cuts)]
    return float(sum(parts))


@settings(max_examples=10, deadline=None)
@given(mu=st.floats(-6.0, 6.0), sigma=st.floats(0.1, 3.0))
def test_against_adaptive_quadrature(mu: float, sigma: float) -> None:
    below, above = toy_divergences(mu, sigma)
    assert above == pytest.approx(by_adaptive_quadrature(mu, sigma), abs=1e-8)
    assert below == pytest.approx(by_adaptive_quadrature(-mu, sigma), abs=1e-8)


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 0.05), (math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan)])
def test_what_the_quadrature_cannot_resolve_is_an_error(mu: float, sigma: float) -> None:
    with pytest.raises(ValueError, match=r"sigma at least 0\.1"):
        toy_divergences(mu, sigma)


@pytest.fixture(scope="module")
def figure() -> Figure1:
    return figure1(n_mu=97, n_sigma=64)


def test_the_level_set_is_at_one_bit(figure: Figure1) -> None:
    assert figure.total.shape == (64, 97)
    np.testing.assert_allclose(figure.total, figure.conditional.mean(axis=0))
    np.testing.assert_allclose(figure.total, figure.total[:, ::-1], atol=1e-12)
    np.testing.assert_allclose(figure.level_conditional.mean(axis=1), 1.0, atol=1e-10)
    assert (np.abs(figure.level_set) < [6.0, 3.25]).all()  # closed within the grid


def test_the_measured_extremes(figure: Figure1) -> None:
    """The most unequal model on the level set, found by another way: sigma from mu by root finding."""
    low, high = sorted(figure.level_conditional[figure.most_unequal])
    assert (low, high) == (pytest.approx(0.20, abs=0.005), pytest.approx(1.80, abs=0.005))
    mu, sigma = figure.level_set[figure.most_unequal]
    assert abs(mu) == pytest.approx(4.02, abs=0.1)
    assert sigma == pytest.approx(1.56, abs=0.05)

    def gap(mu: float) -> float:
        root: Any = brentq(lambda sigma: toy_divergences(mu, sigma).mean() - 1.0, 1.0, 2.0)
        below, above = toy_divergences(mu, root)
        return float(below - above)

    along = [gap(mu) for mu in -np.linspace(3.5, 4.3, 41)]
    assert max(along) == pytest.approx(high - low, abs=1e-3)
    assert max(along) < 1.98 - 0.02
    np.testing.assert_allclose(figure.level_conditional[figure.most_equal], 1.0, atol=1e-6)


def test_the_pair_near_the_level_set() -> None:
    """(0.20, 1.85) has the mean 1.03, so it lies near the level set and not on it."""
    above, below = toy_divergences(4.5, 1.65)
    assert (above, below) == (pytest.approx(0.20, abs=0.005), pytest.approx(1.85, abs=0.005))
    assert (above + below) / 2 == pytest.approx(1.03, abs=0.005)


def test_the_unequal_model_is_that_of_theorem_a3(figure: Figure1) -> None:
    model = figure.unequal
    assert model.by_group == pytest.approx({0: 0.02, 1: 1.98}, abs=1e-9)
    assert f_divergence(model.p, model.q, f="js", base=2) == pytest.approx(1.0, abs=1e-9)
    assert is_delta_mgo(model.p, model.q, model.groups)
    assert is_delta_ego(model.q, model.groups)
    centres = 0.5 * (figure.unequal_edges[1:] + figure.unequal_edges[:-1])
    assert ((centres > 0) == (np.arange(200) >= 100)).all()
    mass = np.bincount(model.cell, weights=model.p)
    law = truncnorm(-0.5 / 0.3, np.inf, 0.5, 0.3)
    np.testing.assert_allclose(
        mass, 0.5 * np.diff(law.cdf(np.abs(figure.unequal_edges))) * np.sign(centres), atol=1e-10
    )


def test_a_grid_has_two_lines() -> None:
    with pytest.raises(ValueError, match="at least 2 grid lines"):
        figure1(n_mu=1)
