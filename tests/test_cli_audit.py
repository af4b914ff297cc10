"""``egtmetrics audit``: a plan runs as its command would, and its hash is in everything that is written."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics.cli import main

pytestmark = pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning")

PLAN = """
command = "evaluate"
real = "real.npz"
fake = "fake.npz"
real-groups = "g"
fake-groups = "g"
metrics = ["prdc", "fid"]
"""
WORDS = ["evaluate", "real.npz", "fake.npz", "--real-groups", "g", "--fake-groups", "g", "--metrics", "prdc,fid"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("real", "fake"):
        np.savez(f"{name}.npz", features=rng.normal(size=(240, 3)), g=np.repeat(["f", "m"], 120))


def audit(text: str, *more: str) -> int:
    Path("plan.toml").write_text(text)
    return main(["audit", "plan.toml", *more])


def test_a_plan_is_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    more = """
        n-neighbors = 4
        match-groups = true
        match-sizes = false
        random-state = 7
        baseline = "split"
        baseline-splits = 2
        baseline-samples = 50
        tolerance = {prdc = "0.1pp", fid = 3}
        interval = 0.9
        format = "json"
    """
    assert audit(PLAN + more) == 4
    by_plan = json.loads(capsys.readouterr().out)
    options = ["--n-neighbors", "4", "--match-groups", "--random-state", "7", "--baseline", "split"]
    options += ["--baseline-splits", "2", "--baseline-samples", "50"]
    options += ["--tolerance", "prdc=0.1pp,fid=3", "--interval", "0.9", "--format", "json"]
    assert main([*WORDS, *options]) == 4
    by_hand = json.loads(capsys.readouterr().out)
    digest = hashlib.sha256(Path("plan.toml").read_bytes()).hexdigest()
    assert by_plan.pop("plan") == {"file": "plan.toml", "sha256": digest}
    assert by_plan == by_hand


def test_defaults_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(PLAN) == 0
    by_plan = capsys.readouterr().out
    assert main(WORDS) == 0
    assert [
        line for line in by_plan.splitlines() if not line.startswith("plan: ")
    ] == capsys.readouterr().out.splitlines()


def test_the_hash_is_in_everything_that_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    outputs = ["x.json", "x.md", "x.tex", "x.txt", "x.html"]
    assert audit(f"{PLAN}\nout = {json.dumps(outputs)}") == 0
    digest = hashlib.sha256(Path("plan.toml").read_bytes()).hexdigest()
    out, err = capsys.readouterr()
    for text in (out, err, *(Path(name).read_text() for name in outputs)):
        assert digest in text
    assert "egtmetrics audit plan.toml" in Path("x.html").read_text()  # what makes the page again


def test_a_page_with_samples_can_be_planned() -> None:
    pytest.importorskip("jinja2")
    plan = PLAN.replace('"evaluate"', '"report"') + '\nout = "x.html"\nlevel = 0.9\ntolerance = "fid=3"'
    assert audit(plan) == 0
    page = Path("x.html").read_text()
    assert hashlib.sha256(plan.encode()).hexdigest() in page
    assert "within the tolerance of 3 squared feature units: at 90 % confidence" in page


def test_a_check_runs_nothing_and_prints_the_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(f'{PLAN}\nout = "x.json"', "--check") == 0
    digest = hashlib.sha256(Path("plan.toml").read_bytes()).hexdigest()
    assert capsys.readouterr() == (f"plan.toml: can be run, SHA-256 {digest}\n", "")
    assert not Path("x.json").exists()


REFUSED = {
    "unknown key": (
        'tolerence = "5pp"',
        "key 'tolerence' is unknown; the nearest of egtmetrics evaluate is 'tolerance'",
    ),
    "key with an underscore": ("random_state = 1", "key 'random_state' is unknown; .* is 'random-state'"),
    "section": ('[data]\nreal = "x"', "key 'data' is unknown"),
    "no TOML": ("metrics: fid", r"plan\.toml: is not TOML: "),
    "number for a flag": ("match-groups = 1", "match-groups is 1; write true or false"),
    "flag for a number": ("n-neighbors = true", "n-neighbors is True; write a text or a number"),
    "date": ("title = 2026-01-01", "key 'title' is unknown"),
    "date for a text": ("format = 2026-01-01", r"format has datetime.date\(2026, 1, 1\); write a text or a number"),
    "value that the option refuses": ('tolerance = "x"', "argument --tolerance: 'x' is not a gap above 0"),
    "unit that the metric has not": ('tolerance = "fid=5pp"', "--tolerance fid=5pp: fid gives no share"),
    "option of another metric": ("alpha = 0.1", "--alpha is an option of topp"),
    "no folder": ('out = "no/x.json"', "no is not a folder"),
    "the plan itself": ('out = "plan.toml"', r"plan\.toml: is a file to read"),
    "no file of the baseline": ('baseline = "no.npz"', "no.npz: No such file"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("more", [[], ["--check"]])
def test_what_cannot_be_run_is_one_line_and_status_2(
    case: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line, message = REFUSED[case]
    try:
        status: Any = audit(f"{PLAN}\n{line}\n", *more)
    except SystemExit as exit:  # argparse leaves this way
        status = exit.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    lines = [one for one in err.splitlines() if "SHA-256" not in one]
    assert re.search(message, lines[0])
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PLAN.replace('"evaluate"', '"evalute"'), "command is 'evalute'; write one of evaluate, .*report"),
        (PLAN.replace('command = "evaluate"', ""), "command is None; write one of"),
        (PLAN.replace('"real.npz"', '"no.npz"'), "no.npz: No such file"),
        (PLAN.replace('"real.npz"', "[]"), r"real has \[\]; write a text"),
    ],
)
def test_the_command_and_its_files_are_needed(plan: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(plan, "--check") == 2
    assert re.search(message, capsys.readouterr().err)
