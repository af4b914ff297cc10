"""The Vendi score: closed forms, the definition, laws, and the variance where it is known."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import GenerativeMetricFrame
from egtmetrics.metrics import vendi_score
from tests.strategies import tied_points

ORDERS = [0.5, 1.0, 2.0, math.inf]


def vendi(points: Any, order: float = 1.0) -> float:
    return vendi_score(points, points, order=order).vendi


@pytest.mark.parametrize("order", ORDERS)
@given(points=tied_points(dimension=3))
def test_it_is_its_definition(order: float, points: NDArray[Any]) -> None:
    """From the cosines of all pairs; two rows of zeros are alike, and unlike any other."""
    points = points.astype(np.float64)
    lengths = np.linalg.norm(points, axis=1)
    products = np.outer(lengths, lengths)
    cosines = np.divide(points @ points.T, products, out=np.zeros_like(products), where=products > 0.0)
    cosines += np.outer(lengths == 0.0, lengths == 0.0)
    values = np.linalg.eigvalsh(cosines / len(points))
    values = values[values > 1e-12]
    if order == 1.0:
        expected = math.exp(-np.sum(values * np.log(values)))
    else:
        expected = 1.0 / values.max() if order == math.inf else np.sum(values**order) ** (1.0 / (1.0 - order))
    assert vendi(points, order) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_closed_forms(order: float) -> None:
    """m directions equally often score m; a factor for each row changes nothing; wide sets go through K itself."""
    axes = np.repeat(np.eye(6), 3, axis=0)
    factors = np.random.default_rng(0).uniform(0.1, 9.0, size=(18, 1))
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(40, 6)))[0]
    for points in (axes, axes * factors, axes @ rotation.T, axes[::3]):
        assert vendi(points, order) == pytest.approx(6.0, rel=1e-9)
    assert vendi(np.ones((5, 3)), order) == pytest.approx(1.0, abs=1e-12)
    assert vendi(np.zeros((5, 3)), order) == pytest.approx(1.0, abs=1e-12)


@given(points=tied_points(dimension=3), orders=st.tuples(st.floats(0.2, 4.0), st.floats(0.2, 4.0)))
def test_a_larger_order_never_counts_more(points: NDArray[Any], orders: tuple[float, float]) -> None:
    low, high = sorted(orders)
    assert vendi(points, high) <= vendi(points, low) * (1.0 + 1e-6)
    assert 1.0 <= vendi(points, low) <= min(len(points), 4) * (1.0 + 1e-6)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_errors_are_those_of_an_entropy_of_counts(order: float, wide: bool) -> None:
    """Rows are categories with frequencies p, one direction for each. By the delta method the variance of the score is
    that of its derivative, which is elementary for counts. Both decompositions have to give it."""
    rng = np.random.default_rng(0)
    p = np.array([0.5, 0.3, 0.2])
    axes = np.linalg.qr(rng.normal(size=(600, 3)))[0].T if wide else np.eye(3)
    fake = np.concatenate([rng.permutation(np.repeat(axes, [125, 75, 50], axis=0)) for _ in range(2)])
    groups = np.repeat(["f", "m"], 250)
    frame = GenerativeMetricFrame(
        metrics={"vendi": functools.partial(vendi_score, order=order)},
        real=fake, fake=fake, real_sensitive_features=groups, fake_sensitive_features=groups, random_state=0,
    )  # fmt: skip
    if order == 1.0:
        score, slopes = math.exp(-np.sum(p * np.log(p))), -np.log(p)
    elif order == math.inf:
        score, slopes = 2.0, np.array([-2.0, 0.0, 0.0])
    else:
        score, slopes = np.sum(p**order) ** (1.0 / (1.0 - order)), order / (1.0 - order) * p ** (order - 1.0)
        slopes = slopes / np.sum(p**order)
    error = score * math.sqrt((p @ slopes**2 - (p @ slopes) ** 2) / 250)
    row = frame.interval(0.95).by_group.loc[("vendi", "f")]
    assert frame.by_group.loc["f", "vendi"] == pytest.approx(score, rel=1e-9)
    assert (row["high"] - row["low"]) / 2.0 / 1.959964 == pytest.approx(error, rel=0.02)


def test_intervals_hold_for_normal_samples() -> None:
    """Of 60 gaps between groups of one law, 95 % intervals hold the true one, 0, at least 52 times (p = .997)."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["f", "m"], 80)
    held = 0
    for _ in range(60):
        fake = rng.normal(size=(160, 4)) * [3.0, 2.0, 1.0, 1.0]
        frame = GenerativeMetricFrame(
            metrics="vendi", real=fake, fake=fake, real_sensitive_features=groups, fake_sensitive_features=groups,
            random_state=0,
        )  # fmt: skip
        low, high = frame.difference_interval("vendi", "f", "m")
        held += low <= 0.0 <= high
    assert held >= 52


@pytest.mark.parametrize("order", [0.0, -1.0, math.nan, "2"])
def test_orders_that_are_none(order: Any) -> None:
    with pytest.raises(ValueError, match="is not a number above 0"):
        vendi([[1.0]], order)
