"""What the commands say beforehand of the time that they will take."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from egtmetrics.cli import _cost, main
from egtmetrics.cli._cost import Part, _text
from egtmetrics.groups.cost import Cost

pytestmark = pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning")

LABELS = np.repeat(["f", "m"], 120)
THINGS = np.tile(["face", "street"], 120)
EVALUATE = ["evaluate", "real.npz", "fake.npz", "--groups", "g", "--metrics", "fid"]
COMPARE = [
    "compare",
    "fake.npz",
    "other.npz",
    "last.npz",
    "--reference",
    "real.npz",
    "--groups",
    "g",
    "--metrics",
    "fid",
]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("real", "fake", "other", "last"):
        np.savez(f"{name}.npz", features=rng.normal(size=(240, 3)), g=LABELS, thing=THINGS)


CASES = {
    "intervals": (
        [*EVALUATE, "--interval", "0.9"],
        {"intervals": 2 * 3},  # two groups, as much work as three evaluations each
        ["no --interval", "other --metrics than fid"],
    ),
    "page": (
        ["report", *EVALUATE[1:], "--level", "0.9", "--out", "page.html"],
        {"intervals": 2 * 3},
        ["other --metrics than fid"],
    ),
    "baseline": (
        [*EVALUATE, "--baseline", "split", "--baseline-splits", "2"],
        {"the baseline": 2 * 2 * 4},  # groups, splits, pairs of halves
        ["fewer --baseline-splits", "other --metrics than fid"],
    ),
    "held-out baseline": (
        [*EVALUATE, "--baseline", "other.npz"],
        {"the baseline": 2 * 2},
        ["other --metrics than fid"],
    ),
    "verdict": ([*EVALUATE, "--tolerance", "fid=9"], {"intervals": 2 * 3}, ["other --metrics than fid"]),
    "strata": (
        [*EVALUATE, "--control", "thing", "--interval", "0.9"],
        {"intervals": 2 * 3, "strata": 2 * 2 * (1 + 3)},
        ["no --control", "no --interval", "other --metrics than fid"],
    ),
    "plan": (
        ["plan", *EVALUATE[1:], "--width", "fid=1"],
        {"the plan": 2 * (3 + 336)},  # scores of halves and quarters, each real part with each fake one
        ["other --metrics than fid"],
    ),
    "tests": (
        COMPARE,
        {"tests": 2 * 2 * 3 * 3, "intervals": 3 * 2 * 3},  # models, groups: every gap is tested, too
        ["--permutations 0", "other --metrics than fid"],
    ),
    "permutations": (
        [*COMPARE, "--permutations", "160", "--format", "json"],
        {"tests": 2 * 2 * 160 * 3},  # comparisons, models, groups and all samples
        ["fewer --permutations", "other --metrics than fid"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_to_come_and_what_is_cheaper(
    case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, parts, cheaper = CASES[case]
    monkeypatch.setattr(_cost, "_WORTH_SAYING", 0.0)
    main([*arguments])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "what follows" in line]
    assert line.startswith("egtmetrics: what follows takes about 0 min (")
    found = re.findall(r"([a-z ]+) 0 min, most of it for (\d+) evaluations of fid", line)
    assert {name.strip(): int(n) for name, n in found} == parts
    assert sorted(line.split("; cheaper: ")[1].split(", or ")) == sorted(cheaper)


def test_the_pairs_of_rows_that_a_page_compares_for_errors_of_labels_are_foretold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.setattr(_cost, "_WORTH_SAYING", 0.0)
    options = ["--groups", "g", "--metrics", "kid", "--n-subsets", "1", "--out", "page.html"]
    assert main(["report", "real.npz", "fake.npz", *options]) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if "what follows" in line)
    n_pairs = (2 + 3 + 4) * 120**2  # real with real, fake with fake, real with fake; half as many again in halves
    n = round(1.5 * n_pairs / (3 * 240**2))
    assert f"errors of labels 0 min, most of it for {n} evaluations of kid" in line


def test_nothing_is_said_of_a_short_command_and_nothing_with_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*EVALUATE, "--interval", "0.9"]
    assert main(arguments) == 0
    assert "what follows" not in capsys.readouterr().err
    monkeypatch.setattr(_cost, "_WORTH_SAYING", 0.0)
    assert main([*arguments, "--quiet"]) == 0
    assert "what follows" not in capsys.readouterr().err


def test_the_longest_part_comes_first_and_short_ones_are_left_out() -> None:
    parts = [
        Part("intervals", Cost({"mauve": 660, "fid": 6}, {"mauve": 2340.0, "fid": 60.0}), "no --interval"),
        Part("known damage", Cost({"fid": 9}, {"fid": 100.0}), "fewer kinds of --dose"),
        Part("tests", Cost({"mauve": 1980}, {"mauve": 12000.0}), "--permutations 0"),
    ]
    assert _text(parts) == (
        "what follows takes about 4.0 h (tests 3.3 h, most of it for 1980 evaluations of mauve; intervals 40 min, most "
        "of it for 660 evaluations of mauve); cheaper: --permutations 0, or no --interval, or other --metrics than "
        "mauve"
    )
    assert _text(parts[1:2]) is not None
    assert _text([part._replace(cost=Cost({"fid": 1}, {"fid": 20.0})) for part in parts[:2]]) is None
