"""A run of the benchmark that fell behind its peers is found, on the kept runs themselves."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gate import TOLERANCE, ratios, report

HISTORY = Path(__file__).parents[1] / "benchmarks" / "results" / "history"
KEPT = sorted(HISTORY.glob("*/*.json"))
LAST = KEPT[-1]


def with_ratios_times(factor: float) -> dict[str, Any]:
    run: dict[str, Any] = copy.deepcopy(json.loads(LAST.read_text()))
    for row in run["rows"]:
        for peer in row["peers"].values():
            peer["ratio"] *= factor
    return run


@pytest.mark.parametrize(("factor", "falls"), [(1.0, False), (1.01 - TOLERANCE, False), (0.99 - TOLERANCE, True)])
def test_a_fall_beyond_the_tolerance_is_named(
    factor: float, falls: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(with_ratios_times(factor)))
    assert report(path, HISTORY) is falls
    said = capsys.readouterr().out.splitlines()
    assert len(said) == (len(ratios(json.loads(path.read_text()))) if falls else 1)
    assert not falls or json.loads(LAST.read_text())["commit"] in said[0]


def test_a_run_that_shares_no_row_does_not_pass_and_a_first_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_ratios_times(1.0)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**run, "rows": [{**row, "name": "new"} for row in run["rows"]]}))
    assert report(path, HISTORY)
    assert "no kept run has any of these rows" in capsys.readouterr().out
    assert not report(path, tmp_path)
    assert "no other run is kept" in capsys.readouterr().out


def test_kept_runs_are_named_after_what_they_hold() -> None:
    assert len(KEPT) >= 3
    for file in KEPT:
        run = json.loads(file.read_text())
        assert file.parent.name == run["class"]
        assert file.stem == f"{run['date'].replace('-', '').replace(':', '')}-{run['commit']}"
