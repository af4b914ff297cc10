"""The calibration study itself: its tables from known records, and a run that was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import calibration
from benchmarks.calibration import Case, Record


def case(**options: Any) -> Case:
    return Case("made-up", calibration.frechet_distance, **{"n": 60, "d": 2, "laws": ("wide", "wide"), **options})


def record(a: float, b: float, margin: float) -> Record:
    """Two scores with the same margin, which that of the difference shares."""
    return {
        "scores": {"m": [[score, score - margin, score + margin] for score in (a, b)]},
        "differences": {"m": [a, b, a - b - margin, a - b + margin]},
        "p_values": {"delta_m": 0.01 if abs(a - b) > margin else 0.5},
    }


def test_coverage_is_counted_against_the_truth() -> None:
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


def test_a_killed_run_goes_on_with_the_numbers_of_an_unbroken_one(
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
    stage = broken / "made-up.jsonl"
    stage.write_text(stage.read_text()[:-20])  # the kill came while repeat 2 was written
    assert sorted(calibration.read_stage(stage)) == [0, 1]
    run("broken", 4)
    assert sorted(calibration.read_stage(stage)) == [0, 1, 2, 3]
    assert (broken / "calibration.json").read_text() == (whole / "calibration.json").read_text()
    assert json.loads((whole / "calibration.json").read_text())["coverage"][0]["repeats"] == 4
    assert (whole / "calibration.md").read_text() in capsys.readouterr().out
