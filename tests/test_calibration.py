"""The studies of intervals and noise: their tables from known records, and a run that was killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import calibration, laws, noise, stages
from benchmarks.calibration import DIFFERENCES, TESTS, Case, Figure
from benchmarks.stages import Record, Stage


def record(a: float, b: float, margin: float) -> Record:
    """Two scores and their difference, all with the same margin."""
    return {
        "scores": {"m": [[score, score - margin, score + margin] for score in (a, b)]},
        "differences": {"m": [a, b, a - b - margin, a - b + margin]},
        "p_values": {"m delta_m": 0.01 if abs(a - b) > margin else 0.5},
    }


SIZES = ((60, 60), (60, 60))
RECORDS = [record(1.0, 1.0, 0.5), record(2.0, 1.0, 0.5), record(1.0, 1.2, 0.5), record(0.8, 1.0, 0.5)]


def test_coverage_is_measured_against_the_true_values() -> None:
    (row,) = calibration.coverage_rows(Case("Gaussian", (0.0, 0.0), SIZES), RECORDS)
    assert row["difference_coverage"] == 0.75  # one law: the difference is 0
    assert (row["score_coverage"], row["intervals"]) == (7 / 8, 8)  # the truth is the mean of all, 1.125
    assert row["deviation"] == pytest.approx(np.sqrt((1.0 + 0.04 + 0.04) / 4))
    assert row["standard_error"] == pytest.approx(0.5 / 1.959964)
    unequal = Case("Gaussian", (0.0, 0.1), SIZES)
    shifted = [record(one["scores"]["m"][0][0] + 10.0, one["scores"]["m"][1][0], 0.5) for one in RECORDS]
    (row,) = calibration.coverage_rows(unequal, shifted)
    assert row["difference_coverage"] == 0.75  # against the mean difference, 10.15
    assert row["score_coverage"] == 7 / 8  # against 11.2 and 1.05


def test_a_rejection_is_false_where_the_damage_is_the_same() -> None:
    for case, false in ((Case("Gaussian", (0.0, 0.0), SIZES), True), (Case("Gaussian", (0.0, 0.1), SIZES), False)):
        (row,) = calibration.test_rows(case, RECORDS)
        assert (row["rejected"], row["false"]) == (0.25, false)


def test_a_figure_falls_short_beyond_two_points_and_two_errors() -> None:
    """At 400 repeats two errors are 2.2 points; at 10000 it is the two points that count."""
    for n, margin in ((400, 0.0218), (10000, 0.02)):
        for kind, promised, sign in ((DIFFERENCES, 0.95, -1), (TESTS, 0.05, 1)):
            assert not Figure("", kind, "", promised + sign * (margin - 0.001), n).short
            assert Figure("", kind, "", promised + sign * (margin + 0.001), n).short
            assert not Figure("", kind, "", promised - sign * 0.05, n).short


def test_the_chance_of_a_shortfall_is_how_often_it_happens() -> None:
    """By 20000 draws with a promise that is kept: the frequency is within 5 errors."""
    rng = np.random.default_rng(3)
    for kind, promised, n in ((DIFFERENCES, 0.95, 200), (TESTS, 0.05, 40)):
        shares = rng.binomial(n, promised, size=20000) / n
        expected = Figure("", kind, "", promised, n).by_chance
        frequency = np.mean([Figure("", kind, "", share, n).short for share in shares])
        assert abs(frequency - expected) < 5 * np.sqrt(expected / 20000)


def test_the_page_says_first_what_falls_short() -> None:
    coverage = {"case": "law; perfect", "repeats": 400, "intervals": 800, "score_coverage": 0.95}
    tests = {"case": "law; perfect", "repeats": 400, "false": True}
    content = {
        "coverage": [
            {**coverage, "score": "prdc density", "difference_coverage": 0.8},
            {**coverage, "score": "fid", "difference_coverage": 0.95},
        ],
        "tests": [
            {**tests, "test": "fid delta_fid", "rejected": 0.12},
            {**tests, "case": "law; damaged", "false": False, "test": "fid delta_fid", "rejected": 0.9},
        ],
        "placebo": [
            {
                "case": "unlike",
                "disparity": "fid delta_fid",
                "repeats": 100,
                "excess": 0.3,
                "ratio": 0.9,
                "false": ["excess"],
            }
        ],
    }
    page = calibration.markdown(content)
    points = [line for line in page.splitlines() if line.startswith("- **")]
    assert points == [
        "- **unlike**: tests of the excess rejected `fid delta_fid` 30 ± 2 %.",
        "- **law; perfect**: intervals of differences held `prdc density` 80 ± 1 %; "
        "tests of scores rejected `fid delta_fid` 12 ± 1 %.",
    ]
    assert page.index(points[1]) < page.index("## Coverage")
    assert "These are 3 of 6 figures" in page
    assert "| **80** / 95" in page
    assert "90" in page.split("## Rejections")[1]
    assert "**90**" not in page


def test_unequal_sizes_are_no_equal_groups() -> None:
    assert Case("Gaussian", (0.0, 0.0), SIZES).equal
    assert not Case("Gaussian", (0.0, 0.0), ((100, 100), (2000, 2000))).equal
    assert len({case.name for case in calibration.CASES}) == len(calibration.CASES)


def test_laws_have_the_sizes_and_the_properties_that_they_state() -> None:
    rng = np.random.default_rng(0)
    for law in (laws.normal(), laws.student(), laws.clusters(), laws.manifold(), laws.embedded(3), laws.counts()):
        real, fake = law(rng, 300, 200)
        assert (len(real), len(fake)) == (300, 200)
    counts = laws.counts()(rng, 300, 1)[0]
    repeated = np.unique(counts, axis=0, return_counts=True)[1]
    assert repeated[repeated > 1].sum() > 150
    real, fake = laws.digits(1, 4)(rng, 150, 150)
    assert len(np.unique(np.concatenate([real, fake]), axis=0)) == 300
    fake = rng.normal(size=(4000, 16))
    moved = (laws.off_support(fake, 0.25, rng, distance=3.0) - fake).std(axis=1) > 0
    assert abs(moved.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_noise_is_compared_within_a_rule_and_between_the_defaults() -> None:
    """The differences are given in points: 4 at 10 replicates, half of that at 1000 under the same rule, and so on."""
    differences = {"top_pr_10": 4.0, "top_pr_1000": 2.0, "library_10": 3.0, "library_1000": 1.0}
    records: list[Record] = [
        {name: [0.5, 0.5 + sign * points / 100] for name, points in differences.items()} for sign in (1, -1)
    ]
    row = noise.row(noise.Case(60, 2, "wide"), records)
    assert [row[name] for name in differences] == pytest.approx(list(differences.values()))
    assert [row["top_pr_ratio"], row["library_ratio"], row["defaults_ratio"]] == pytest.approx([2.0, 3.0, 4.0])
    assert row["top_pr_threshold_share"] == pytest.approx(1 - 1 / 4)
    assert row["library_threshold_share"] == pytest.approx(1 - 1 / 9)
    assert row["library_mean_precision"] == pytest.approx(50.0)
    assert row["top_pr_ratio_error"] == pytest.approx(0.0)


def test_the_estimated_error_of_a_ratio_equals_its_deviation_over_samples() -> None:
    """For two independent deviations of 50 repeats each, over 300 pairs of samples."""
    draws = np.random.default_rng(1).standard_normal((2, 300, 50)) ** 2
    found = [noise.ratio(*pair) for pair in zip(*draws, strict=True)]
    ratios, errors = np.array(found).T
    assert np.sqrt((errors**2).mean()) == pytest.approx(ratios.std(), rel=0.15)


def test_protocols_of_noise_differ_on_the_same_samples() -> None:
    found = noise.measure(noise.Case(300, 8, "wide"), 0)
    assert set(found) == set(noise.PROTOCOLS)
    assert len({tuple(pair) for pair in found.values()}) == 4


def test_slow_stages_run_their_share_of_the_repeats() -> None:
    stage = Stage("slow", lambda i: {}, share=0.3)
    assert sum(map(stage.due, range(100))) == 30


def test_a_killed_run_resumes_and_gives_the_numbers_of_an_unbroken_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case("Gaussian, d = 8", (0.0, 0.0), ((60, 60),) * 2, topp_share=0.0)
    monkeypatch.setattr(calibration, "CASES", (case,))
    monkeypatch.setattr(calibration, "METRICS", {"others": {"fid": calibration.frechet_distance}})

    def run(folder: str, repeats: int) -> Path:
        where = str(tmp_path / folder)
        arguments = ["--repeats", str(repeats), "--stages", where, "--out", where, "--placebo", "missing.json"]
        monkeypatch.setattr("sys.argv", ["calibration", *arguments])
        calibration.main()
        return tmp_path / folder

    whole = run("whole", 4)
    broken = run("broken", 3)
    stage = broken / case.stage("others").file
    stage.write_text(stage.read_text()[:-20])  # the kill came while repeat 2 was written
    assert sorted(stages.finished(stage)) == [0, 1]
    run("broken", 4)
    assert sorted(stages.finished(stage)) == [0, 1, 2, 3]
    assert (broken / "calibration.json").read_text() == (whole / "calibration.json").read_text()
    content: dict[str, Any] = json.loads((whole / "calibration.json").read_text())
    assert content["coverage"][0]["repeats"] == 4
    assert (whole / "calibration.md").read_text() in capsys.readouterr().out
