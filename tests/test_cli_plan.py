"""``egtmetrics plan``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.cli import main

GROUPS = np.repeat(["f", "m"], 60)
REAL, FAKE = np.random.default_rng(0).normal(size=(2, 120, 2))
LABELS = ["--real-groups", "y", "--fake-groups", "y"]
PLAN = ["plan", "real.npz", "fake.npz", *LABELS]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, features in (("real", REAL), ("fake", FAKE)):
        np.savez(tmp_path / f"{name}.npz", features=features, y=GROUPS)
    monkeypatch.chdir(tmp_path)


def test_the_plan_is_that_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    frame = GenerativeMetricFrame(
        metrics="fid", real=REAL, fake=FAKE, real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS,
        random_state=0,
    )  # fmt: skip
    expected = frame.plan(width=0.4, more_real=True)
    arguments = [*PLAN, "--metrics", "fid", "--width", "fid=0.4", "--more-real"]
    assert main([*arguments, "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["plans"] == {"fid": json.loads(json.dumps(expected.to_dict()))}
    assert content["real"]["file"] == "real.npz"
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert expected.text in out
    row = expected.samples.loc["m"]
    assert ["m", *map(str, row.tolist())] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "neither of --width and --tolerance given; pass one of them"),
        (["--width", "fid=1", "--tolerance", "fid=1"], "both of --width and --tolerance given"),
        (["--width", "5pp"], "--width 5pp is for no metric: fid gives no share"),
        (["--width", "topp=5pp"], "--width names topp, and --metrics fid does not"),
        (["--tolerance", "fid=1", "--power", "2"], "--power 2.0 is not a number strictly between 0 and 1"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_is_read(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("real.npz").unlink()
    assert main([*PLAN, "--metrics", "fid", *options]) == 2
    assert message in capsys.readouterr().err
