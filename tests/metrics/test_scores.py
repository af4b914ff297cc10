"""How the metrics describe their scores."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

from egtmetrics import metrics
from egtmetrics.registry import Metric, registered_metrics
from egtmetrics.results import Score

METRICS = {
    name: metric
    for name, metric in registered_metrics().items()
    if metric.function.__module__.startswith("egtmetrics.metrics")
}
SCORES = [
    pytest.param(score, id=f"{name}: {field}")
    for name, metric in METRICS.items()
    for field, score in metric.scores().items()
]
SHARES = ("precision", "recall", "f1", "coverage", "clipped_density", "clipped_coverage", "authenticity")
UNBIASED = {"kid", "mean", "difference"}


def test_every_metric_of_the_package_is_registered() -> None:
    functions = {name for name in metrics.__all__ if name.islower()} - {"sample_scores", "self_bleu"}
    assert {metric.function.__name__ for metric in METRICS.values()} == functions
    compared = {"topp", "prdc", "approximate-prdc", "ipr", "p-pr", "cover", "clipped", "fid", "kid"}
    assert set(METRICS) == compared | {"authenticity", "numbers", "vendi"}
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("score", SCORES)
def test_a_score_is_described(score: Score) -> None:
    assert score.label
    assert score.help[0].isupper()
    assert score.help.endswith(".")
    assert "better" not in score.help  # Score.direction says which way is better
    assert score.better is not None or score.label == "mean"  # of numbers that we do not know
    assert score.bounds[0] < score.bounds[1]
    assert not (score.percent and score.unit)
    if score.percent:
        assert (score.bounds, score.better) == ((0.0, 1.0), "higher")
    if isinstance(score.better, float):
        assert score.bounds[0] < score.better < score.bounds[1]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_shares_are_printed_in_percent(metric: Metric) -> None:
    described = metric.scores()
    assert {name for name, score in described.items() if score.percent} == set(described) & set(SHARES)
    assert {name for name, score in described.items() if not score.depends_on_size} == set(described) & UNBIASED


def test_scores_that_are_not_shares() -> None:
    density, fid, kid = (
        METRICS[name].scores()[field] for name, field in (("prdc", "density"), ("fid",) * 2, ("kid",) * 2)
    )
    assert (density.bounds, density.better) == ((0.0, math.inf), 1.0)
    assert (fid.bounds, fid.better, fid.unit) == ((0.0, math.inf), "lower", "squared feature units")
    assert (kid.bounds, kid.better) == ((-math.inf, math.inf), "lower")


OPTIONS: dict[str, Any] = {
    "kid": {"subset_size": 20, "random_state": 0},
    "topp": {"n_bootstrap": 20, "random_state": 0},
    "approximate-prdc": {"random_state": 0},
}


@pytest.mark.parametrize("name", METRICS)
def test_a_result_has_the_declared_scores_and_saves_plain_values(name: str) -> None:
    real, fake = np.random.default_rng(0).normal(size=(2, 60, 1 if name == "numbers" else 3))
    result = functools.partial(METRICS[name].function, **OPTIONS.get(name, {}))(real, fake)
    assert result.describe() == METRICS[name].scores()
    assert list(result.scores()) == list(METRICS[name].scores())
    saved = result.to_dict()
    assert {*result.scores(), *result.settings()} < set(saved)
    assert not {"kernel", "projections", "own_draws"} & set(saved)
