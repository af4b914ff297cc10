"""``--baseline`` and ``--tolerance``: what the library says, in every format, and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import html
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame, frechet_distance, precision_recall_density_coverage
from egtmetrics.cli import main
from egtmetrics.cli._verdicts import read_tolerances
from egtmetrics.report import render

pytestmark = pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning")

N = 240
GROUP = np.repeat(["f", "m"], N // 2)
rng = np.random.default_rng(3)
REAL, HELD_OUT, FAKE = rng.normal(size=(3, N, 3)) * np.where(GROUP == "f", 1.0, 4.0)[:, None]
BAD = np.where((GROUP == "f")[:, None], FAKE + 5.0, FAKE)
FILES = ["real.npz", "fake.npz", "--real-groups", "g", "--fake-groups", "g"]
METRICS = ["--metrics", "prdc,fid"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, features in (("real", REAL), ("fake", FAKE), ("bad", BAD), ("held", HELD_OUT)):
        np.savez(f"{name}.npz", features=features, g=GROUP)


def frame(fake: Any = FAKE) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(
        metrics={"prdc": precision_recall_density_coverage, "fid": frechet_distance},
        real=REAL,
        fake=fake,
        real_sensitive_features=GROUP,
        fake_sensitive_features=GROUP,
        random_state=0,
    )


def json_of(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    assert main(["evaluate", *arguments, "--format", "json"]) == status
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_a_baseline_by_splitting_is_that_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    evaluated = frame()
    baseline = evaluated.baseline()
    content = json_of([*FILES, *METRICS, "--baseline", "split", "--interval", "0.9"], capsys)
    assert content["baseline"] == json.loads(json.dumps(baseline.to_dict(0.9)))
    assert content["baseline"]["excess"]["f"]["fid"] == baseline.excess.loc["f", "fid"]
    interval = content["baseline"]["intervals"]["ratio"]["by_group"]["m"]["prdc_recall"]
    expected = baseline.interval(0.9, "ratio").by_group.loc[("prdc_recall", "m"), ["low", "high"]]
    assert list(interval.values()) == pytest.approx(expected.tolist())
    assert "verdicts" not in content


def test_held_out_samples_are_read_like_the_real_ones(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("other.npz", x=HELD_OUT, y=np.where(GROUP == "f", "f", "m"))
    expected = frame().baseline(HELD_OUT, GROUP).to_dict()
    for given in (["held.npz"], ["other.npz", "--baseline-groups", "y", "--baseline-key", "x"]):
        content = json_of([*FILES, *METRICS, "--baseline", *given], capsys)
        assert content["baseline"] == json.loads(json.dumps(expected))
        assert content["held_out"]["file"] == given[0]


@pytest.mark.parametrize(
    ("fake", "tolerance", "outcomes", "status"),
    [
        ("fake.npz", "prdc=30pp,fid=5", ["within", "within"], 0),
        ("bad.npz", "30pp,fid=5", ["beyond", "beyond"], 3),
        ("bad.npz", "fid=5", ["beyond"], 3),
        ("fake.npz", "30pp", ["within"], 0),
        ("fake.npz", "prdc=1pp,fid=5", ["undecided", "within"], 4),
        ("bad.npz", "prdc=98pp,fid=30", ["undecided", "beyond"], 3),
    ],
)
def test_the_exit_status_is_the_verdict(
    fake: str, tolerance: str, outcomes: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [fake if word == "fake.npz" else word for word in FILES]
    content = json_of([*files, *METRICS, "--baseline", "split", "--tolerance", tolerance], capsys, status)
    assert [verdict["outcome"] for verdict in content["verdicts"].values()] == outcomes
    assert {verdict["of"] for verdict in content["verdicts"].values()} == {"excess"}
    evaluated = frame(BAD if fake == "bad.npz" else FAKE)
    baseline = evaluated.baseline()
    for metric, verdict in content["verdicts"].items():
        found = evaluated.certify(verdict["tolerance"], metric=metric, baseline=baseline)
        for key in ("value", "low", "high", "outcome"):
            assert verdict[key] == getattr(found, key)


def test_without_a_baseline_the_scores_are_judged_and_the_words_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    content = json_of([*FILES, "--metrics", "fid", "--tolerance", "fid=30", "--interval", "0.8"], capsys)
    assert content["verdicts"]["fid"]["of"] == "scores"
    assert content["verdicts"]["fid"]["level"] == 0.8
    assert "without a baseline it is not known what a perfect generator would show" in " ".join(
        content["in_words"]["fid"]
    )


def test_every_format_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*FILES, *METRICS, "--baseline", "split", "--tolerance", "30pp,fid=5", "--interval", "0.95"]
    outputs = ["x.txt", "x.md", "x.tex", "x.json"]
    assert main(["evaluate", *arguments, *(word for name in outputs for word in ("--out", name))]) == 0
    assert capsys.readouterr().out == Path("x.txt").read_text()
    evaluated = frame()
    baseline = evaluated.baseline()
    verdict = evaluated.certify(0.3, metric="prdc", baseline=baseline)
    for name in outputs[:3]:
        text = re.sub(r"\\_|\\([%\[])", lambda match: match[1] or "_", Path(name).read_text())
        row = next(line for line in text.splitlines() if f"{verdict.disparity} " in line and "excess" in line)
        numbers = [f"{100 * number:.2f}" for number in (verdict.value, verdict.low, verdict.high, 0.3)]
        assert re.findall(r"\d+\.\d+", row) == numbers
        assert "within" in row
        excess = f"{baseline.excess.loc['m', 'fid']:.4g}"
        assert any("fid" not in line and excess in line for line in text.splitlines() if re.search(r"\bm\b", line))
        words = " ".join(text.split())
        assert f"and {verdict.text}." in words or f"but {verdict.text}." in words
        assert "the largest gap in the excess of precision, recall or coverage, " in words
    saved = GenerativeMetricFrame.from_json(Path("x.json").read_text())
    again = render(saved, intervals=saved.interval(0.95), baseline=saved.baseline(), verdicts=saved.verdicts)
    provenance = ("real: ", "fake: ")
    printed = [line for line in Path("x.txt").read_text().splitlines() if not line.startswith(provenance)]
    assert again.splitlines() == printed
    assert dataclasses.replace(saved.verdicts["prdc"], score=verdict.score) == verdict
    with pytest.raises(ValueError, match="this baseline was read from JSON without those that were asked for"):
        saved.baseline().interval(0.9)


def test_words_follow_in_three_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """What was measured, what a perfect generator would show, what follows; with numbers a reader can check."""
    baseline = frame(BAD).baseline()
    files = [word.replace("fake.npz", "bad.npz") for word in FILES]
    (words,) = json_of([*files, "--metrics", "fid", "--baseline", "split"], capsys)["in_words"]["fid"]
    model, placebo, excess = (table["fid"].to_dict() for table in (baseline.model, baseline.placebo, baseline.excess))
    first, second, third, fourth = re.split(r"(?<=[a-z])\. ", words)
    assert first.startswith("FID is ")
    assert first.endswith("squared feature units")
    assert second == (
        f"In sets of 60 samples, the model scores {model['f']:.4g} for f and {model['m']:.4g} for m; other real "
        f"samples in the place of the generated ones score {placebo['f']:.4g} for f and {placebo['m']:.4g} for m, "
        "about what a perfect generator would"
    )
    assert third.startswith(f"So the excess is +{excess['f']:.4g} squared feature units for f and ")
    assert fourth == "Whether this is more than noise was not tested."


@pytest.mark.parametrize(
    ("other", "tolerance", "status"),
    [("bad.npz", "prdc=30pp,fid=5", 3), ("held.npz", "prdc=30pp,fid=5", 0), ("held.npz", "prdc=1pp,fid=5", 4)],
)
def test_every_model_of_a_comparison_gets_its_verdict_and_the_worst_is_the_status(
    other: str, tolerance: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*METRICS, "--real-groups", "g", "--fake-groups", "g", "--baseline", "split", "--tolerance", tolerance]
    command = ["compare", "--reference", "real.npz", "fake.npz", other, *options, "--permutations", "0"]
    assert main([*command, "--format", "json", "--out", "x.txt"]) == status
    models = json.loads(capsys.readouterr().out)["models"]
    for name in ("fake.npz", other):
        main(["evaluate", "real.npz", name, *options, "--format", "json"])
        alone = json.loads(capsys.readouterr().out)
        assert {key: models[Path(name).stem][key] for key in ("verdicts", "baseline", "in_words")} == {
            key: alone[key] for key in ("verdicts", "baseline", "in_words")
        }
    rows = [line.split() for line in Path("x.txt").read_text().splitlines()]
    found = {(row[0], row[1]): row[-1] for row in rows if len(row) > 3 and row[3] == "excess"}
    assert found == {
        (name, metric): verdict["outcome"]
        for name, one in models.items()
        for metric, verdict in one["verdicts"].items()
    }
    excess = next(row for row in rows if row[:2] == ["precision", "(%)"] and row[2] == "f")
    assert excess[3:] == [f"{100 * one['baseline']['excess']['f']['prdc_precision']:.2f}" for one in models.values()]


def test_the_number_and_the_size_of_splits_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*FILES, "--metrics", "fid", "--baseline", "split", "--baseline-splits", "2", "--baseline-samples", "55"]
    content = json_of(command, capsys)
    expected = frame().baseline(n_splits=2, n_samples=55)
    assert content["baseline"]["excess"]["f"]["fid"] == expected.excess.loc["f", "fid"]
    assert content["baseline"]["sizes"]["f"] == {"n_samples": 55, "n_splits": 2}


def test_sentences_are_as_wide_as_the_terminal_and_tables_as_they_need_to_be() -> None:
    """In a file they have 100 columns."""
    command = [*FILES, "--metrics", "fid", "--tolerance", "fid=5", "--out", "x.txt"]
    terminal, side = pty.openpty()
    arguments = [sys.executable, "-m", "egtmetrics", "evaluate", *command]
    text = b""
    with subprocess.Popen(arguments, stdout=side, env={**os.environ, "COLUMNS": "60"}) as running:
        os.close(side)
        with contextlib.suppress(OSError):  # at its end
            while part := os.read(terminal, 65536):
                text += part
    os.close(terminal)
    assert running.returncode == 0
    for lines, width in ((text.decode().splitlines(), 60), (Path("x.txt").read_text().splitlines(), 100)):
        sentences = lines[lines.index("In words") :]
        assert width - 15 < max(map(len, sentences)) <= width
        assert max(map(len, lines)) > width
    assert text.decode().split() == Path("x.txt").read_text().split()


def test_the_page_has_the_words_and_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    files = [word.replace("fake.npz", "bad.npz") for word in FILES]
    command = ["report", *files, "--metrics", "fid", "--baseline", "held.npz", "--tolerance", "5", "--out", "x.html"]
    assert main(command) == 3
    page = Path("x.html").read_text()
    assert "beyond the tolerance of 5 squared feature units" in page
    assert "held.npz" in page
    again = html.unescape(page.split("<pre>")[1].split("</pre>")[0])
    Path("x.html").unlink()
    assert main(shlex.split(again)[1:]) == 3
    assert Path("x.html").read_text() == page


def test_doses_are_those_of_the_library_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    bad = FAKE + rng.normal(size=FAKE.shape)
    np.savez("bad.npz", features=bad, g=GROUP)
    response = GenerativeMetricFrame(
        metrics="fid", real=REAL, fake=bad, real_sensitive_features=GROUP, fake_sensitive_features=GROUP, random_state=0
    ).dose_response("noise,copies")
    files = [word.replace("fake.npz", "bad.npz") for word in FILES]
    outputs = [word for suffix in ("txt", "html") for word in ("--out", f"x.{suffix}")]
    content = json_of([*files, "--metrics", "fid", "--dose", "noise, copies", *outputs], capsys)
    assert content["dose"] == json.loads(json.dumps(response.to_dict()))
    assert response.explanation == "noise"
    text = Path("x.txt").read_text()
    shown = [f"{row.dose:.4g} [{row.low:.4g}, {row.high:.4g}]" for row in response.agreement.loc["noise"].itertuples()]
    assert re.search(
        r"noise, in standard deviations of the data +noise +yes +" + " +".join(map(re.escape, shown)), text
    )
    assert f"doses: {response.summary()}" in " ".join(text.split())
    assert f"{response.disparities().loc[('fid', 'delta_fid'), 'value']:.4g}" in text
    assert "As how much damage?" in Path("x.html").read_text()


@pytest.mark.parametrize("text", ["", "x", "0pp", "-5pp", "nan", "topp=", "5pp,6pp", "fid=1,fid=2", "5 points"])
def test_gaps_are_positive_numbers_one_for_a_metric(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a gap above 0|has two gaps for"):
        read_tolerances(text)


REFUSED = {
    "share in no points": (
        ["--tolerance", "prdc=0.05"],
        "prdc=0.05: prdc gives shares, so its gap is in points, as in",
    ),
    "distance in points": (
        ["--tolerance", "fid=5pp"],
        "fid=5pp: fid gives no share, so its gap is a number in its unit (squared feature units), as in fid=3",
    ),
    "no metric of this unit": (["--metrics", "fid", "--tolerance", "5pp"], "--tolerance 5pp is for no metric: fid"),
    "a gap too many": (["--tolerance", "5pp,prdc=5pp,fid=1"], "--tolerance 5pp is for no metric: all have one"),
    "metric that is not asked for": (
        ["--tolerance", "kid=1"],
        "--tolerance names kid, and --metrics prdc,fid does not",
    ),
    "labels without a file": (
        ["--baseline", "split", "--baseline-groups", "g"],
        "--baseline-groups is for the FILE of --baseline",
    ),
    "splits without a baseline": (["--baseline-splits", "3"], "--baseline-splits is for --baseline split; pass that"),
    "splits of a file": (
        ["--baseline", "held.npz", "--baseline-splits", "3"],
        "--baseline-splits is for --baseline split; pass that, or leave it out",
    ),
    "no split": (
        ["--baseline", "split", "--baseline-splits", "0"],
        "--baseline-splits 0 is not an integer of at least 1",
    ),
    "sets without a baseline": (["--baseline-samples", "60"], "--baseline-samples is for --baseline; pass that"),
    "sets too small for a verdict": (
        ["--baseline", "split", "--baseline-samples", "49", "--tolerance", "fid=1"],
        "--baseline-samples 49: intervals and verdicts need sets of at least 50; pass more",
    ),
    "sets too small for intervals": (
        ["--baseline", "split", "--baseline-samples", "49", "--interval", "0.9"],
        "--baseline-samples 49: intervals and verdicts need",
    ),
    "sets larger than half a group": (
        ["--baseline", "split", "--baseline-samples", "61"],
        "--baseline-samples 61, but group 'f' has only 60 samples for each set; pass --baseline-samples 60 or less",
    ),
    "level that certifies nothing": (
        ["--tolerance", "fid=1", "--interval", "0.4"],
        "--interval 0.4 certifies nothing; pass a confidence above 0.5",
    ),
    "damage that is not known": (
        ["--dose", "noise,blur"],
        "--dose names 'blur', which is unknown; pass all, or some of off_support, missing_mass, copies, noise",
    ),
    "no file": (["--baseline", "no.npz"], "no.npz: No such file or directory"),
    "too few for a verdict": (["--baseline", "few.npz", "--tolerance", "fid=1"], "sets of 9 samples, and an interval"),
    "a group is missing": (["--baseline", "one.npz"], "--baseline has no samples of group 'm'; add some, or split"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_judged_is_refused_in_words_of_options(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = REFUSED[case]
    few = np.r_[0:9, 120:129]
    np.savez("few.npz", features=HELD_OUT[few], g=GROUP[few])
    np.savez("one.npz", features=HELD_OUT[:9], g=GROUP[:9])
    assert main(["evaluate", *FILES, *METRICS, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"egtmetrics: error: .*\n", err)
    assert message in err


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_with_strict_a_group_of_one_sample_is_refused_by_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("one.npz", features=HELD_OUT[:119], g=np.repeat(["f", "m"], [118, 1]))
    arguments = ["one.npz", "one.npz", "--groups", "g", "--metrics", "vendi", "--baseline", "split"]
    assert main(["evaluate", *arguments, "--strict"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("egtmetrics: error: group 'm' cannot be split into 2 sets, because it has 1 sample on a side")
