"""Which metric finds which defect: the damages, the signals and powers, and the page that is written from them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import defects
from benchmarks.defects import LAWS, Finding, Law, N
from egtmetrics import frechet_distance, topp_precision_recall

ROOT = Path(defects.__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
GAUSSIAN, _, CLUSTERS, STUDENT = LAWS


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_laws_have_the_deviation_that_they_state(law: Law) -> None:
    x = law.sample(rng(), 20_000)
    if law is CLUSTERS:  # within a cluster: around the nearest centre, on average over clusters
        centres = np.array([law.draw(rng(i), 1, law.d, 1.0, 0.0)[0] for i in range(400)])
        centres = np.unique(centres, axis=0)
        assert len(centres) == 10
        nearest = ((x[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        within = [np.std(x[nearest == i] - centres[i]) for i in range(10)]
        assert np.mean(within) == pytest.approx(law.deviation, rel=0.02)
        assert np.ptp(within) == pytest.approx(1.0, rel=0.05)
    else:
        expected = stats.norm if law is not STUDENT else stats.t(3)
        assert stats.kstest(x[:, 0], expected.cdf).pvalue > 1e-3
        assert stats.kstest(x[:, 1], expected.cdf).pvalue > 1e-3
        assert law.deviation == pytest.approx(float(expected.std()))


def test_defects_do_what_they_say() -> None:
    law = GAUSSIAN
    assert defects.modes_missing(law, rng())[:, 0].max() < stats.norm.ppf(0.8)
    whole, part = (np.unique(CLUSTERS.draw(rng(), 5000, 32, share, 0.0), axis=0) for share in (1.0, 0.8))
    assert (len(whole), len(part)) == (10, 8)
    assert defects.CLUSTER_SHARES[-2:].sum() == pytest.approx(0.2)
    assert len(np.unique(defects.copies(law, rng()), axis=0)) <= N // 5
    assert np.array_equal(defects.shrunk(law, rng()), 0.9 * law.sample(rng()))
    moved = defects.shift(STUDENT, rng()) - STUDENT.sample(rng())
    assert np.linalg.norm(moved, axis=1) == pytest.approx(STUDENT.deviation)
    added = defects.noise(STUDENT, rng()) - STUDENT.sample(rng())
    assert added.std() == pytest.approx(0.3 * STUDENT.deviation, rel=0.05)
    damaged, intact = defects.off_the_data(law, rng()), law.sample(rng())
    changed = (damaged != intact).any(axis=1)
    assert changed.sum() == N // 5
    assert np.abs(damaged[changed]).max() < 3.5
    assert damaged[changed].std() == pytest.approx(np.sqrt(3.0), rel=0.1)  # uniform over 6 deviations


def test_power_is_that_of_the_normal_test() -> None:
    assert defects.power(0.0) == pytest.approx(0.05)
    assert defects.power(stats.norm.isf(0.025) + stats.norm.isf(0.2)) == pytest.approx(0.8, abs=1e-4)
    assert defects.power(-2.0) == pytest.approx(defects.power(2.0))


@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
def test_the_error_of_a_signal_is_its_deviation_over_samples() -> None:
    """The signal 2 over 60 repeats, simulated 4000 times: the error of the deviation itself is 1 %."""
    ratios = defects.signal_to_noise(rng().normal(2.0, size=(4000, 60)))
    found = [{"": {"fid": 0.0}, **{name: {"fid": value} for name in defects.DEFECTS}} for value in (1.0, 3.0)]
    described = frechet_distance(np.eye(3), np.eye(3)).describe()
    (row, *_) = defects.rows_of("fid", GAUSSIAN, found, described)
    assert row["signal_to_noise"] == pytest.approx(np.sqrt(2.0))
    assert row["error"] == pytest.approx(np.sqrt((1 + 1) / 2))
    assert ratios.std() == pytest.approx(np.sqrt((1 + 2.0) / 60), rel=0.06)
    assert not row["looks_better"]
    assert defects.signal_to_noise(np.zeros(5)) == 0.0


def test_both_protocols_see_the_same_samples_and_a_ratio_needs_two_signals() -> None:
    found = defects.simulate(frechet_distance, GAUSSIAN, 3)
    assert found == defects.simulate(frechet_distance, GAUSSIAN, 3)
    assert set(found) == {"", *defects.DEFECTS}
    x = rng()

    def made_up(signal: float, noise: float) -> list[defects.Scores]:
        return [
            {"": {"s": 0.0}, **{name: {"s": signal + noise * x.normal()} for name in defects.DEFECTS}}
            for _ in range(2000)
        ]

    rows = defects.compare_protocols(GAUSSIAN, made_up(4.0, 1.0), made_up(4.0, 2.0))
    for row in rows:
        assert row["ratio"] == pytest.approx(2.0, abs=4 * row["ratio_error"])
        assert row["deviation_ratio"] == pytest.approx(0.5, rel=0.1)
    assert all(row["ratio"] is None for row in defects.compare_protocols(GAUSSIAN, made_up(4, 1), made_up(0.1, 1)))
    assert all(row["ratio"] is None for row in defects.compare_protocols(GAUSSIAN, made_up(4, 1), made_up(-4, 1)))


def test_the_original_protocol_is_that_of_the_package() -> None:
    x, y = rng().normal(size=(2, 200, 8))
    original = defects.call(defects.metrics()[defects.ORIGINAL], x, y, 5)
    package = topp_precision_recall(x, y, compatibility="top-pr", random_state=5)
    assert original.scores() == package.scores()
    assert package.n_bootstrap == 10


def test_findings() -> None:
    seen = Finding(powers=(0.9, 0.5), looks_better=(False, False))
    wrong = Finding(powers=(0.9, 1.0), looks_better=(True, False))
    blind = Finding(powers=(0.05, 0.2), looks_better=(False, True))
    assert (seen.found, wrong.found, blind.found) == ((True, False), (False, True), (False, False))
    assert [one.misled for one in (seen, wrong, blind)] == [False, True, False]
    assert [one.missed for one in (seen, wrong, blind)] == [False, False, True]
    assert [str(one) for one in (seen, wrong, blind)] == ["50 to 90", "90 to 100 (!)", "5 to 20"]


def test_scores_with_equal_numbers_share_a_line_and_the_best_trio_adds_up() -> None:
    def row(metric: str, defect: str, power: float) -> defects.Row:
        return {"metric": metric, "score": "s", "defect": defect, "power": power, "looks_better": False}

    powers: dict[str, list[float]] = {"a": [1, 0, 0, 0], "fast-a": [1, 0, 0, 0], "b": [1, 1, 0, 0], "c": [0, 0, 0, 1]}
    found = defects.findings([row(metric, str(i), p) for metric, one in powers.items() for i, p in enumerate(one)])
    assert next(iter(found)) == ("b", "s")
    assert list(defects.labelled(found)) == ["`b: s`", "`a, fast-a: s`", "`c: s`"]
    assert defects.best_trio(defects.by_metric(found)) == (("a", "b", "c"), 3)


def test_slow_metrics_get_fewer_repeats() -> None:
    functions: dict[str, Any] = defects.metrics()
    assert defects.n_repeats(functions["fid"], LAWS[1], 60) == 60
    assert defects.n_repeats(functions["prd"], LAWS[0], 60) == 24
    assert [defects.n_repeats(functions[defects.ORIGINAL], law, 60) for law in LAWS] == [60, 24, 60, 60]


def test_the_committed_tables_and_the_page_follow_from_the_committed_numbers() -> None:
    content = json.loads((RESULTS / "defects.json").read_text())
    assert (RESULTS / "defects.md").read_text() == defects.report(content)
    assert (ROOT / "docs" / "which-metric.md").read_text() == defects.page(content)
    assert all(inspect.getdoc(defect) for defect in defects.DEFECTS.values())
