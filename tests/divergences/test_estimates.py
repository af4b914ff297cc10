"""What every estimate says about itself, whichever estimator made it."""

from __future__ import annotations

import functools
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from egtmetrics.divergences import (
    DivergenceEstimate,
    classifier_f_divergence,
    f_divergence_lower_bound,
    kde_f_divergence,
    knn_f_divergence,
    knn_ratio_f_divergence,
    quantized_f_divergence,
)

CASES: list[tuple[str, float | None, float, str]] = [  # f, base, the largest value, the unit
    ("kl", None, math.inf, "nats"),
    ("kl", 2, math.inf, "bits"),
    ("kl", 10, math.inf, "units of base 10"),
    ("js", 2, 2.0, "bits"),
    ("js", None, 2.0 * math.log(2.0), "nats"),
    ("tv", None, 1.0, ""),
]
in_two_clusters = functools.partial(quantized_f_divergence, n_clusters=2)


@pytest.mark.parametrize(
    ("estimator", "smallest", "cases"),
    [
        (knn_ratio_f_divergence, 0.0, CASES),
        (kde_f_divergence, 0.0, CASES),
        (classifier_f_divergence, 0.0, CASES),
        (in_two_clusters, 0.0, CASES),
        (f_divergence_lower_bound, -math.inf, CASES),
        (knn_f_divergence, -math.inf, CASES[:3]),
        (functools.partial(in_two_clusters, miller_madow=True), -math.inf, CASES[:3]),
    ],
)
def test_unit_and_bounds_are_those_of_the_divergence(
    estimator: Callable[..., DivergenceEstimate], smallest: float, cases: list[tuple[str, float | None, float, str]]
) -> None:
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(200, 1)), rng.normal(size=(180, 1)) + 0.5
    for f, base, largest, unit in cases:
        estimate = estimator(*pair, f=f, base=base, random_state=0)
        described = estimate.describe()["value"]
        assert described.bounds == pytest.approx((smallest, largest))
        assert smallest <= estimate.value <= largest
        assert (described.unit, described.better, described.percent) == (unit, "lower", False)
        assert described.label == f"{f} divergence"
        assert (estimate.n_real, estimate.n_fake, estimate.f, estimate.base) == (200, 180, f, base)


def test_estimates_can_be_stored() -> None:
    sites = np.arange(40.0)[:, None] // 10
    estimate = quantized_f_divergence(sites, sites[::2], f="js", n_clusters=4, n_bootstrap=10, random_state=0)
    stored: dict[str, Any] = json.loads(json.dumps(estimate.to_dict()))
    assert stored["value"] == estimate.value
    assert set(estimate.settings()) == {"level", "f", "base", "method"} < set(stored)
    assert "value_score" not in stored
    again = pickle.loads(pickle.dumps(estimate))
    assert again == estimate
    assert again.describe() == estimate.describe()
    assert "js divergence" in estimate._repr_html_()
