"""``--confusion``: hand labels of generated samples give scores by true group in tables, JSON and pages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.cli import main
from egtmetrics.data import read_confusion
from tests.test_cli_evaluate import json_of, refused

pytestmark = pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning")

RNG = np.random.default_rng(0)
TRUE = np.repeat(["f", "m"], [60, 120])
REAL, FAKE = RNG.normal(size=(2, 180, 3)) + 3.0 * (TRUE == "m")[:, None]
CALLED = np.where(RNG.random(180) < 0.1, np.where(TRUE == "m", "f", "m"), TRUE)
GOOD = "true,f,m\nf,9,1\nm,1,9\n"
EVALUATE = ["evaluate", "real.npz", "fake.npz", "--groups", "y", "--confusion", "hand.csv"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("real.npz", features=REAL, y=TRUE)
    np.savez("fake.npz", features=FAKE, y=CALLED)
    np.savez("other.npz", features=FAKE + 0.1, y=CALLED)
    rows = np.random.default_rng(1).choice(180, 90, replace=False)
    lines = [f"{true},{called}" for true, called in zip(TRUE[rows], CALLED[rows], strict=True)]
    Path("hand.csv").write_text("\n".join(["true,called", *lines]))


def test_the_scores_by_true_group_are_those_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*EVALUATE, "--metrics", "ipr,fid", "--interval", "0.95", "--tolerance", "ipr=5pp"]
    capsys.readouterr()
    assert main([*command, "--out", "result.json", "--out", "page.html", "--quiet"]) == 3
    printed = capsys.readouterr().out
    content = json.loads(Path("result.json").read_text())["label_correction"]
    frame = GenerativeMetricFrame(
        metrics="ipr,fid", real=REAL, fake=FAKE, real_sensitive_features=TRUE, fake_sensitive_features=CALLED,
        random_state=0,
    )  # fmt: skip
    confusion = read_confusion("hand.csv")
    expected = frame.correct_labels(confusion)
    assert confusion.counts is not None
    assert content["confusion"]["m"] == confusion.counts.loc["m"].to_dict()
    column, value = "ipr_precision", expected.by_group.loc["f", "ipr_precision"]
    assert content["by_group"]["f"] == {"ipr_precision": value, "ipr_recall": None, "fid": None}
    assert set(content["refusals"]) == {"ipr_recall", "fid"}
    interval = expected.interval(0.95)
    assert content["intervals"]["by_group"]["f"][column]["low"] == interval.by_group.loc[(column, "f"), "low"]
    assert content["verdicts"]["ipr"]["low"] == expected.certify(0.05, metric="ipr").low
    low, high = (f"{100 * interval.by_group.loc[(column, 'f'), end]:.2f}" for end in ("low", "high"))
    row = f"{100 * value:.2f} [{low}, {high}]"
    assert row in printed
    assert "not corrected: fid: FID of a mixture is no mixture" in " ".join(printed.split())
    page = Path("page.html").read_text(encoding="utf-8")
    assert '<h2 id="labels">Scores by true group</h2>' in page
    assert f">{row}</td>" in page
    shares = expected.contamination.loc["f"]
    assert f"{shares['value']:.1%} ({shares['low']:.1%} to {shares['high']:.1%}) of what is called f is not" in page


def test_report_and_compare_have_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--groups", "y", "--metrics", "ipr", "--confusion", "hand.csv"]
    found = json_of(["evaluate", "real.npz", "fake.npz", *options], capsys)["label_correction"]
    assert main(["report", "real.npz", "fake.npz", *options, "--out", "page.html", "--quiet"]) == 0
    value = f"{100 * found['by_group']['f']['ipr_precision']:.2f} ["
    page = Path("page.html").read_text(encoding="utf-8")
    assert value in page.split('<h2 id="labels">')[1]
    command = ["compare", "--reference", "real.npz", "fake.npz", "other.npz", *options, "--permutations", "0"]
    models = json_of(command, capsys)["models"]
    assert models["fake"]["label_correction"] == found
    assert models["other"]["label_correction"]["by_group"] != found["by_group"]
    assert main([*command, "--quiet"]) == 0
    printed = capsys.readouterr().out
    table = printed.split("Improved precision and recall: between true groups")[1].split("\n\n")[1]
    shown = [f"{100 * models[name]['label_correction']['by_group']['f']['ipr_precision']:.2f}" for name in models]
    assert table.splitlines()[2].split()[-2:] == shown


def test_a_table_of_counts_does_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*EVALUATE, "--metrics", "ipr"]
    expected = json_of(command, capsys)["label_correction"]
    counts = read_confusion("hand.csv").counts
    assert counts is not None
    counts.to_csv("hand.csv")
    assert json_of(command, capsys)["label_correction"] == expected


def test_what_cannot_be_corrected_is_said_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Hand labels by which a group would be empty leave the scores as called; with --strict they are an error."""
    Path("hand.csv").write_text("true,f,m\nf,50,0\nm,50,50\n")
    assert main([*EVALUATE, "--metrics", "ipr"]) == 0
    out, err = capsys.readouterr()
    assert "warning: no correction of labels: by this confusion" in err
    assert "no correction of labels: by this confusion" in " ".join(out.split())
    refused([*EVALUATE, "--metrics", "ipr", "--strict"], "by this confusion", capsys)


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
@pytest.mark.filterwarnings("ignore::egtmetrics.groups.MissingScoreWarning")
def test_a_group_with_few_samples_has_no_verdict_by_true_group(capsys: pytest.CaptureFixture[str]) -> None:
    """Called groups with enough samples have one; of true groups all take part in all."""
    named = np.where(np.arange(180) % 6 == 0, "x", TRUE)
    np.savez("real.npz", features=REAL, y=named)
    np.savez("fake.npz", features=FAKE, y=named)
    Path("hand.csv").write_text("true,f,m,x\nf,90,5,5\nm,5,90,5\nx,5,5,90\n")
    command = [*EVALUATE, "--metrics", "ipr", "--tolerance", "5pp", "--format", "json"]
    assert main([*command, "--quiet"]) in (3, 4)
    found = json.loads(capsys.readouterr().out)
    assert found["verdicts"]["ipr"]["outcome"] != "within"
    assert "verdicts" not in found["label_correction"]
    assert found["label_correction"]["by_group"]["f"]["ipr_precision"] is not None
    assert main([*command[:-2], "--quiet"]) in (3, 4)
    printed = " ".join(capsys.readouterr().out.split())
    assert "no intervals and verdicts for true groups: group 'x' has 30 samples on one side" in printed


@pytest.mark.parametrize(
    ("hand", "options", "message"),
    [
        (GOOD, ["--metrics", "topp,fid"], "--confusion cannot correct any of --metrics topp,fid; add"),
        (GOOD, ["--fake-clusters", "y"], "--confusion does not count clusters; leave out --fake-c"),
        (GOOD, ["--fake-groups", "oracle"], "which the oracle calls, too; pass --true-labels"),
        (GOOD, ["--groups", "oracle:pronouns"], "of REAL, and oracle:pronouns calls it"),
        ("true,f,x\nf,9,1\nx,1,9\n", [], "--confusion hand.csv: the confusion is of the groups 'f', 'x'"),
        ("true,f,m\nf,5,5\nm,5,5\n", [], "--confusion hand.csv: the confusion has no inverse"),
        ("true,f,m\nf,9,x\nm,1,9\n", [], "hand.csv: could not convert string to float"),
        ("text\nf\n", [], "hand.csv: no column 'true' in it"),
    ],
)  # fmt: skip
def test_hand_labels_that_do_not_fit_are_refused(
    hand: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hand.csv").write_text(hand)
    refused([*EVALUATE, "--metrics", "ipr", *options, "--quiet"], message, capsys)
