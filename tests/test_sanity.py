"""The sanity checks: what a curve must look like, the laws, how fidelity is told from diversity, and the tables."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from benchmarks import sanity
from benchmarks.sanity import EVERY, NONE, Case, Check
from egtmetrics import MetricResult, frechet_distance, precision_recall_density_coverage
from egtmetrics.registry import Metric, registered_metrics
from egtmetrics.results import score

RESULTS = Path(sanity.__file__).parent / "results"


def rngs(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    return np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (sanity.near(1.0, sanity.FIRST), [0.95, 0, 0, 0, 0], [0.94, 1, 1, 1, 1]),
        (sanity.near(0.0, sanity.LAST), [1, 1, 1, 1, 0.05], [0, 0, 0, 0, 0.06]),
        (sanity.falls, [0.95, 1.0, 0.5, 0.3, 0.35], [0.85, 1.0, 0.5, 0.3, 0.35]),  # the first is 0.15 below the highest
        (sanity.falls, [0.65, 0.6, 0.5, 0.4, 0.4], [0.5, 0.5, 0.5, 0.4, 0.35]),  # only 0.15 in all
        (sanity.rises, [0.05, 0.0, 0.5, 1.0, 0.95], [0.95, 1.0, 0.5, 0.0, 0.05]),
        (sanity.falls_before(1), [1.0, 0.85, 0.9, 0.5, 0.5], [1.0, 0.95, 0.5, 0.5, 0.5]),
        (sanity.peaks, [0.0, 0.5, 1.0, 0.5, 0.7], [0.0, 0.5, 1.0, 0.5, 0.9]),
        (sanity.peaks, [0.0, 1.0, 0.95, 0.5, 0.0], [0.0, 1.0, 0.85, 0.5, 0.0]),
        (sanity.peaks, [0.2, 0.15, 1.0, 0.5, 0.7], [0.2, 0.0, 1.0, 0.5, 0.7]),
        (sanity.steady(2), [0.0, 0.5, 0.3, 0.34, 0.32], [0.3, 0.3, 0.3, 0.36, 0.3]),
    ],
)
def test_rules(rule: sanity.Rule, right: list[float], wrong: list[float]) -> None:
    assert rule(np.array(right, dtype=float)) == EVERY
    assert rule(np.array(wrong, dtype=float)) == NONE
    assert rule(np.full(5, np.nan)) == NONE


def test_a_diversity_score_may_choose_one_reading_but_not_two() -> None:
    """How diverse is a generator that covers the real law and much more: fully, or not at all?"""
    check = next(check for check in sanity.CHECKS if check.name == "deviation scaled")

    def passes(*curves: list[float]) -> bool:
        rows = [
            {"check": check.name, "variant": "", "d": case.d, "scores": curve}
            for case, curve in zip(check.cases, curves, strict=True)
        ]
        return sanity.judge(rows, "diversity")["deviation scaled: purpose"]

    high, low = [0.0, 0.2, 1.0, 1.0, 1.0], [0.0, 0.2, 1.0, 0.2, 0.0]
    assert passes(high, high, high)
    assert passes(low, low, low)
    assert not passes(high, low, high)


def test_a_score_passes_only_in_every_number_of_features_and_every_variant() -> None:
    good, bad = [0.0, 0.5, 1.0, 0.5, 0.0], [0.5] * 5
    name = "mean shifted, one outlier"
    rows = [
        {"check": name, "variant": variant, "d": d, "scores": bad if (variant, d) == ("fake", 8) else good}
        for variant in ("real", "fake")
        for d in (1, 8, 64)
    ]
    assert not sanity.judge(rows, "fidelity")[f"{name}: purpose"]
    assert sanity.judge(rows, "fidelity", (1, 2, 3)) == {f"{name}: bounds": True, f"{name}: purpose": True}
    assert not any(sanity.judge(rows, "fidelity", (8, 16)).values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anonymous(MetricResult):
    """Scores whose names say nothing."""

    a: float = score(label="a")
    b: float = score(label="b")
    c: float = score(label="c")


def test_kinds_are_found_from_what_scores_do() -> None:
    def unnamed(real: Any, fake: Any) -> Anonymous:
        found = precision_recall_density_coverage(real, fake)
        return Anonymous(
            a=found.coverage, b=found.precision, c=frechet_distance(real, fake).fid, backend="", n_real=1, n_fake=1
        )

    assert sanity.kinds(Metric(name="", title="", function=unnamed)) == {"a": "diversity", "b": "fidelity"}
    clipped = registered_metrics()["clipped"]
    assert sanity.kinds(clipped) == {"clipped_density": "fidelity", "clipped_coverage": "diversity"}


def test_laws() -> None:
    """What the checks rely on: what does not overlap, what does, and by how much."""
    ball, ring = sanity.ball_and_ring(*rngs(0), 3, 4000, swap=False)
    assert np.linalg.norm(ball, axis=1).max() < 0.8 < 0.9 < np.linalg.norm(ring, axis=1).min()
    to_circle = np.hypot(np.hypot(ring[:, 0], ring[:, 1]) - 1.0, ring[:, 2])
    assert to_circle.max() < 0.1
    # Volumes grow with the third and the second power: a share of 1/8, of 1/4. False alarms: 4 standard errors.
    assert (np.linalg.norm(ball, axis=1) < 0.4).mean() == pytest.approx(1 / 8, abs=4 * np.sqrt(7 / 64 / 1000))
    assert (to_circle < 0.05).mean() == pytest.approx(1 / 4, abs=4 * np.sqrt(3 / 16 / 4000))
    for d in (1, 8, 64):
        real, fake = sanity.cubes(*rngs(d), d, 4000)
        shared = (real > fake.min(axis=0)).all(axis=1).mean()
        assert shared == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 4000) + d * 3 / 4000)
    real, fake = sanity.modes_invented(*rngs(0), 2, 10)
    nearest = cdist(fake, real).min(axis=1)
    assert 0.4 < (nearest < 1.0).mean() < 0.6  # half of the ten modes are real ones
    assert not ((nearest > 1.0) & (nearest < 2.0)).any()
    real, fake = sanity.modes_missing(*rngs(0), 1, 7)
    assert fake.max() < 3.0 < 9.0 < real.max()


@pytest.mark.parametrize("check", sanity.CHECKS, ids=lambda check: f"{check.name} {check.variant}")
def test_only_what_moves_changes_the_real_set(check: Check) -> None:
    case = check.cases[0]
    d = case.d or 0
    first, second = (check.draw(*rngs(1), d, value)[0] for value in case.values[:2])
    moves = {"cubes, more rows a side", "one feature in other units", "one feature apart, others equal"}
    moves |= {"two modes melt into one", "whole and real numbers"}
    assert np.array_equal(first, second) == (check.name not in moves)


def test_curves_are_means_over_repeats() -> None:
    """The mean of a shifted Gaussian, in units of the real deviation."""

    def centre(real: Any, fake: Any) -> Anonymous:
        assert real.mean(axis=0) == pytest.approx(0.0, abs=1e-12)
        assert real.std(axis=0) == pytest.approx(1.0)
        return Anonymous(a=fake.mean(), b=0.0, c=0.0, backend="", n_real=1, n_fake=1)

    check = Check(name="", draw=sanity.shifted, cases=(Case(2, (0.0, 3.0)),), fidelity={}, diversity={})
    curves = sanity.curves_of(Metric(name="", title="", function=centre), check, check.cases[0], 4)
    assert curves["a"] == pytest.approx([0.0, 3.0], abs=0.15)
    assert curves["b"].tolist() == [0.0, 0.0]


def test_the_committed_tables_follow_from_the_committed_curves() -> None:
    content = json.loads((RESULTS / "sanity.json").read_text())
    assert sanity.summary(content["curves"]) == content["scores"]
    text = (RESULTS / "sanity.md").read_text()
    assert text.startswith(sanity.tables(content["curves"], content["repeats"]))
    assert {row["of"] for row in content["scores"]} == {30}
