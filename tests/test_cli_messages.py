"""What the command line refuses it explains in its own words: options, files and groups, no arguments of Python."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from egtmetrics.cli import command_parser, main
from egtmetrics.cli._messages import in_options
from egtmetrics.registry import registered_metrics

pytestmark = [
    pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning"),
    pytest.mark.filterwarnings("default::egtmetrics.groups.GroupSizeWarning"),
]

PYTHON = r"(?<![\w.-])[a-z]\w*=[^ ]|\w\(\.\.\.|[a-z]\w*\.[a-z]\w*\(|\b[a-z]+(?:_[a-z0-9]+)+\b|\bNone\b"
"""Keywords, calls, names with an underscore."""
LABELS = ["--real-groups", "g", "--fake-groups", "g"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(60, 4)), np.array(["f", "m"] * 30)
    for name, features, labels in (
        ("real", x, g),
        ("fake", x + 0.1, g),
        ("one", x, np.full(60, "f")),
        ("three", x, np.array(["f", "m", "d"] * 20)),
        ("numbered", x, np.arange(60)),
        ("text", x.astype(str), g),
        ("unequal", x, np.repeat(["f", "m"], [10, 50])),
        ("wide", rng.normal(size=(60, 40)), g),
        ("few", x[:3], g[:3]),
    ):
        np.savez(f"{name}.npz", features=features, g=labels)
    for name, labels in (("men", "x"), ("others", "zu")):
        texts = [json.dumps({"text": f"text {i}", "k": labels[i % len(labels)]}) for i in range(9)]
        Path(f"{name}.jsonl").write_text("\n".join(texts))
    Path("texts.jsonl").write_text(
        "".join(json.dumps({"text": f"text {i}", "k": "xy"[i % 2]}) + "\n" for i in range(9))
    )


def message(*arguments: str, capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    capsys.readouterr()
    with contextlib.suppress(SystemExit):  # argparse leaves this way
        assert main(list(arguments)) == status
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "kernels" not in line]  # the note on a missing compiled module
    (line,) = [line for line in lines if "error: " in line or "warning: " in line]
    plain = re.sub(r"'[^']*'|\w+\.npz|1 / n_features", "", line)  # names of groups, metrics and files, and a formula
    assert not re.search(PYTHON, plain), line
    return line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "real.npz", "one.npz"], "--fake-groups holds no sample of group 'm', which --real-groups has"),
        (["evaluate", "real.npz", "one.npz"], "--missing-groups nan"),
        (["evaluate", "real.npz", "three.npz", "--match-sizes"], "or make its labels empty to leave it out"),
        (["evaluate", "one.npz", "one.npz"], "--real-groups and --fake-groups hold only one group, 'f'"),
        (["evaluate", "numbered.npz", "real.npz"], "--real-groups has 60 different labels"),
        (["evaluate", "real.npz", "text.npz"], "expected real numbers; convert it"),
        (["evaluate", "real.npz", "fake.npz", "--metrics", "kid", "--subset-size=99"], "pass --subset-size 30 or less"),
        (["evaluate", "few.npz", "few.npz", "--metrics", "prdc"], "--n-neighbors 5 needs at least 6"),
        (["evaluate", "wide.npz", "wide.npz", "--metrics", "topp"], "or project to fewer dimensions"),
        (["evaluate", "real.npz", "fake.npz", "--interval", "0.9", "--strict"], "an interval needs at least 50"),
        (["evaluate", "real.npz", "fake.npz", "--interval", "9"], "--interval 9.0 is not a number"),
        (["evaluate", "real.npz", "fake.npz", "--metrics", "prdc", "--n-threads", "0"], "--n-threads 0, expected a"),
        (["compare", "--reference", "real.npz", "fake.npz", "one.npz"], "--fake-groups holds no sample of group 'm'"),
        (["compare", "--reference", "real.npz", "fake.npz", "real.npz", "--permutations", "5"], "--permutations 5 "),
        (["report", "real.npz", "fake.npz", "--out", "x.html", "--level", "9"], "--level 9.0 is not a number"),
    ],
)  # fmt: skip
def test_errors_name_options(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = [] if "--metrics" in arguments else ["--metrics", "fid"]
    assert expected in message(*arguments, *LABELS, *metrics, capsys=capsys)


TEXTS = ["evaluate-text", "texts.jsonl"]
ONE = ["--real-groups", "k", "--fake-groups", "k"]
BOTH = ["--groups", "k"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["men.jsonl", *ONE], "--fake-groups holds no sample of group 'y', which --real-groups has; "),
        (["men.jsonl", *BOTH], "--groups of FAKE holds no sample of group 'y', which --groups of REAL has; "),
        (["men.jsonl", *BOTH, *ONE[2:]], "--fake-groups holds no sample of group 'y', which --groups of REAL has; "),
        (["men.jsonl", *BOTH], "or pass --missing-groups nan"),
        (["others.jsonl", *BOTH], "has, and no group is on both sides; check the spelling of the labels"),
        (
            ["others.jsonl", *BOTH, "--missing-groups", "nan"],
            "has, and no group is on both sides; check the spelling of the labels",
        ),
    ],
)
def test_errors_on_groups_of_texts_name_the_option_that_was_given(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is encoded: the model is missing."""
    line = message(*TEXTS, *arguments, "--encoder", "nonesuch", "--metrics", "fid", capsys=capsys)
    assert line.startswith("egtmetrics: error: ")
    assert expected in line


def test_warnings_name_options(capsys: pytest.CaptureFixture[str]) -> None:
    line = message("evaluate", "real.npz", "unequal.npz", *LABELS, "--metrics", "fid", capsys=capsys, status=0)
    assert line.endswith("--match-groups makes the sizes equal, and a baseline compares equal ones.")


@pytest.mark.parametrize("option", [["--device", "nonesuch"], ["--batch-size", "0"]])
def test_errors_of_encoders_name_options(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sentence_transformers")
    command = ["evaluate-text", "texts.jsonl", "texts.jsonl", "--groups", "k", "--encoder", ".", "--metrics", "fid"]
    capsys.readouterr()
    assert main([*command, *option]) == 2
    assert f"error: {' '.join(option)} " in capsys.readouterr().err


def test_errors_do_not_act_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["evaluate", "\x1b[31m\n.npz", "fake.npz", *LABELS],
        ["evaluate", "real.npz", "fake.npz", *LABELS, "\x1b[31m\n"],
        ["\x1b[31m\n"],
    ):
        assert r"\x1b[31m" in message(*arguments, capsys=capsys).replace("\\\\", "\\")


def numeric_options() -> Iterator[tuple[str, str]]:
    """Every option of a registered metric that takes a number, and a metric that has it."""
    args = command_parser().parse_args(["evaluate", "real.npz", "fake.npz", *LABELS])
    for option, users in args.metric_options.items():
        metric, parameter = next(iter(users.items()))
        if parameter.kind in (int, float):
            yield option, metric


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_number_that_a_metric_refuses_is_named_by_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    refused = 0
    for option, metric in numeric_options():
        sizes = ["--subset-size", "20"] if metric == "kid" and option != "--subset-size" else []
        line = message("evaluate", "real.npz", "fake.npz", *LABELS, "--metrics", metric, *sizes, f"{option}=-1",
                       capsys=capsys)  # fmt: skip
        assert re.search(rf"{option} -1(\.0)?\b", line), line
        refused += 1
    assert refused > len(registered_metrics())


ARGS = argparse.Namespace()
command_parser().parse_args(
    ["evaluate", "n_cells=3.npz", "fake.npz", *LABELS, "--metrics", "kid,approximate-prdc", "--interval", "0.9"], ARGS
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pass subset_size=20, or backend='cpu'.", "pass --subset-size 20, or --backend cpu."),
        ("try Frame(..., missing_groups='nan', n_threads=2).", "try --missing-groups nan --n-threads 2."),
        ("pass alpha=2; that is of another metric", "pass alpha=2; that is of another metric"),
        ("level=2 is wrong", "--interval 2 is wrong"),
        ("metric 'approximate-prdc': level=2 is wrong", "metric 'approximate-prdc': --level 2 is wrong"),
        ("group 'n_cells=1': lower n_cells", "group 'n_cells=1': lower --n-cells"),
        ("n_cells=3.npz: n_cells=3", "n_cells=3.npz: --n-cells 3"),
        ("model/n_cells.csv and n_cells.csv lack n_cells.", "model/n_cells.csv and n_cells.csv lack --n-cells."),
        ("at the 5 level, for a degree of gamma", "at the 5 level, for a degree of gamma"),
        ("convert it, for example with numpy.asarray(real, dtype=float); really", "convert it; really"),
    ],
)
def test_only_arguments_become_options(text: str, expected: str) -> None:
    assert in_options(text, ARGS) == expected
