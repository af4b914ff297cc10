"""The calibration study: its tables from known records, and a run that was killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import calibration
from benchmarks.calibration import Case, Record


def case(**options: Any) -> Case:
    made_up = {"name": "made-up", "metric": calibration.frechet_distance, "n": 60, "d": 2, "laws": ("wide", "wide")}
    return Case(**{**made_up, **options})


def record(a: float, b: float, margin: float) -> Record:
    """Two scores and their difference, all with the same margin."""
    return {
        "scores": {"m": [[score, score - margin, score + margin] for score in (a, b)]},
        "differences": {"m": [a, b, a - b - margin, a - b + margin]},
        "p_values": {"delta_m": 0.01 if abs(a - b) > margin else 0.5},
    }


def test_coverage_is_measured_against_the_true_values() -> None:
    records = [record(1.0, 1.0, 0.5), record(2.0, 1.0, 0.5), record(1.0, 1.2, 0.5), record(0.8, 1.0, 0.5)]
    (row,) = calibration.coverage_rows(case(), records)
    assert row["difference_coverage"] == 0.75  # one law: the difference is 0
    assert row["score_coverage"] == 7 / 8  # the truth is the mean of all, 1.125
    assert row["deviation"] == pytest.approx(np.sqrt((1.0 + 0.04 + 0.04) / 4))
    assert row["standard_error"] == pytest.approx(0.5 / 1.959964)
    (unequal,) = calibration.coverage_rows(case(laws=("wide", "narrow")), records)
    assert unequal["difference_coverage"] == 0.75  # against the mean difference, 0.15
    (test,) = calibration.test_rows(case(), records)
    assert (test["rejected"], test["law of the groups"]) == (0.25, "one")


def test_noise_is_compared_within_a_rule_and_between_the_defaults() -> None:
    """The differences are given in points: 4 at 10 replicates, half of that at 1000 under the same rule, and so on."""
    differences = {"top_pr_10": 4.0, "top_pr_1000": 2.0, "library_10": 3.0, "library_1000": 1.0}
    records: list[Record] = [
        {"precision": {name: [0.5, 0.5 + sign * points / 100] for name, points in differences.items()}}
        for sign in (1, -1)
    ]
    row = calibration.noise_row(case(), records)
    assert [row[name] for name in differences] == pytest.approx(list(differences.values()))
    assert [row["top_pr_ratio"], row["library_ratio"], row["defaults_ratio"]] == pytest.approx([2.0, 3.0, 4.0])
    assert row["top_pr_threshold_share"] == pytest.approx(1 - 1 / 4)
    assert row["library_threshold_share"] == pytest.approx(1 - 1 / 9)
    assert row["library_mean_precision"] == pytest.approx(50.0)
    assert row["top_pr_ratio_error"] == pytest.approx(0.0)


def test_sources_of_variance_are_shares_of_the_mean_variance() -> None:
    parts = [{"total": 3.0, "data": 3.0, "projections": 0.0, "threshold": 0.0}]
    parts += [{"total": 5.0, "data": 3.0, "projections": 0.0, "threshold": 2.0}]
    row = calibration.parts_row(case(), [{"variance": {"delta_p": one}} for one in parts])
    assert row == {"case": "made-up", "data": 0.75, "projections": 0.0, "threshold": 0.25}


def test_cases_without_repeats_keep_their_earlier_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "CASES", (case(), case(name="other")))
    earlier = {"coverage": [{"case": "other", "score": "m"}, {"case": "made-up", "score": "old"}, {"case": "gone"}]}
    records = [record(1.0, 1.0, 0.5), record(2.0, 1.0, 0.5)]
    content = calibration.report({("made-up", "intervals"): records}, earlier)
    assert [row["case"] for row in content["coverage"]] == ["made-up", "other"]
    assert content["coverage"][0]["repeats"] == 2
    assert (len(content["tests"]), content["noise"], content["parts"]) == (1, [], [])


def test_the_estimated_error_of_a_ratio_equals_its_deviation_over_samples() -> None:
    """For two independent deviations of 50 repeats each, over 300 pairs of samples."""
    draws = np.random.default_rng(1).standard_normal((2, 300, 50)) ** 2
    found = [calibration._ratio(*pair) for pair in zip(*draws, strict=True)]
    ratios, errors = np.array(found).T
    assert np.sqrt((errors**2).mean()) == pytest.approx(ratios.std(), rel=0.15)


def test_both_studies_of_a_case_see_the_same_samples() -> None:
    topp = case(name="topp", metric=calibration._TOPP)
    assert topp.studies == ("intervals", "noise")
    assert case(name="topp", metric=calibration._TOPP, noise_only=True).studies == ("noise",)
    assert case().studies == ("intervals",)
    noise = calibration.measure_noise(topp, 0)["precision"]
    assert set(noise) == set(calibration.PROTOCOLS)
    assert len({tuple(pair) for pair in noise.values()}) == 4
    value = calibration.measure_intervals(topp, 0)["scores"]["m_precision"][0][0]
    assert value == pytest.approx(noise["library_1000"][0], abs=0.15)  # with another bootstrap


def test_a_killed_run_resumes_and_gives_the_numbers_of_an_unbroken_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "CASES", (case(),))

    def run(folder: str, repeats: int) -> Path:
        arguments = ["--repeats", str(repeats), "--stages", str(tmp_path / folder), "--out", str(tmp_path / folder)]
        monkeypatch.setattr("sys.argv", ["calibration", *arguments])
        calibration.main()
        return tmp_path / folder

    whole = run("whole", 4)
    broken = run("broken", 3)
    stage = broken / "made-up-intervals.jsonl"
    stage.write_text(stage.read_text()[:-20])  # the kill came while repeat 2 was written
    assert sorted(calibration.read_stage(stage)) == [0, 1]
    run("broken", 4)
    assert sorted(calibration.read_stage(stage)) == [0, 1, 2, 3]
    assert (broken / "calibration.json").read_text() == (whole / "calibration.json").read_text()
    assert json.loads((whole / "calibration.json").read_text())["coverage"][0]["repeats"] == 4
    assert (whole / "calibration.md").read_text() in capsys.readouterr().out
