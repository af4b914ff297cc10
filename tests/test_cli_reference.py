"""``egtmetrics prepare``, and the commands that take its file in the place of the real samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics import Reference
from egtmetrics.cli import _evaluation, main
from egtmetrics.data import read_labelled_features

RNG = np.random.default_rng(0)
METRICS = ["--metrics", "topp,prdc,fid", "--n-bootstrap", "20", "--random-state", "3"]
PREPARE = ["prepare", "real.npz", "--real-groups", "y,age", "--out", "real.egt", "--quiet"]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, n in (("real", 240), ("fake", 210), ("other", 210)):
        labels = {"y": np.array(["f", "m"] * (n // 2)), "age": np.arange(n) // 2 % 2}
        np.savez(f"{name}.npz", features=RNG.normal(size=(n, 3)).astype(np.float32), **labels)


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    assert main([*command, "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    return {key: content[key] for key in ("overall", "by_group", "disparities", "intervals") if key in content}


def test_the_file_gives_the_results_of_the_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PREPARE, *METRICS]) == 0
    fake = ["fake.npz", "--fake-groups", "y,age", *METRICS]
    expected = printed(capsys, "evaluate", "real.npz", "--real-groups", "y,age", *fake)
    assert printed(capsys, "evaluate", "real.egt", *fake) == expected
    by_age = ["--real-groups", "age", "fake.npz", "--fake-groups", "age", "--metrics", "fid", "--interval", "0.9"]
    assert printed(capsys, "evaluate", "real.egt", *by_age) == printed(capsys, "evaluate", "real.npz", *by_age)
    read = read_labelled_features("real.egt")
    assert read.groups.columns.tolist() == ["y", "age"]
    assert len(Reference.load("real.egt")) == len(read.features) == 240


def test_what_intervals_need_is_in_the_file_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PREPARE, "--metrics", "prdc"]) == 0
    without = Path("real.egt").stat().st_size
    assert main([*PREPARE, "--metrics", "prdc", "--intervals"]) == 0
    assert Path("real.egt").stat().st_size > 3 * without
    fake = ["fake.npz", "--fake-groups", "y,age", "--metrics", "prdc", "--interval", "0.9"]
    assert printed(capsys, "evaluate", "real.egt", *fake) == printed(
        capsys, "evaluate", "real.npz", "--real-groups", "y,age", *fake
    )


def test_compare_and_report_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    assert main([*PREPARE, "--metrics", "fid"]) == 0
    options = ["--fake-groups", "y,age", "--metrics", "fid", "--quiet"]
    assert main(["compare", "--reference", "real.egt", "fake.npz", "other.npz", "--permutations", "0", *options]) == 0
    assert main(["report", "real.egt", "fake.npz", "--level", "0.9", "--out", "page.html", *options]) == 0
    capsys.readouterr()
    assert "real.egt" in Path("page.html").read_text(encoding="utf-8")


def test_what_was_not_prepared_for_is_computed_and_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*PREPARE, "--metrics", "fid"]) == 0
    monkeypatch.setattr(_evaluation, "_WORTH_A_NOTE", 0.0)
    assert main(["evaluate", "real.egt", "fake.npz", "--fake-groups", "y,age", "--metrics", "fid"]) == 0
    assert "does not hold" not in capsys.readouterr().err
    assert main(["evaluate", "real.egt", "fake.npz", "--fake-groups", "y,age", "--metrics", "prdc"]) == 0
    assert "went into what the reference does not hold; egtmetrics prepare" in capsys.readouterr().err


def test_without_samples_it_is_good_for_fid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PREPARE, "--metrics", "fid", "--without-samples"]) == 0
    evaluate = ["fake.npz", "--fake-groups", "y,age", "--metrics"]
    assert main(["evaluate", "real.egt", *evaluate, "fid", "--format", "json"]) == 0
    scores = json.loads(capsys.readouterr().out)["by_group"]
    assert main(["evaluate", "real.npz", "--real-groups", "y,age", *evaluate, "fid", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["by_group"] == scores
    assert main(["evaluate", "real.egt", *evaluate, "prdc"]) == 2
    assert "the reference was saved without its samples" in capsys.readouterr().err


@pytest.mark.usefixtures("cuda_on_host")
def test_its_samples_are_copied_to_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PREPARE, "--metrics", "prdc"]) == 0
    options = ["--fake-groups", "y,age", "--metrics", "prdc", "--backend", "cuda"]
    assert main(["evaluate", "real.egt", "fake.npz", *options, "--format", "json"]) == 0
    found = capsys.readouterr()
    assert "real.egt holds what the CPU computed; of it, --backend cuda takes the samples" in found.err
    assert json.loads(found.out)["results"]["overall"]["prdc"]["backend"] == "cuda"
    expected = printed(capsys, "evaluate", "real.npz", "--real-groups", "y,age", "fake.npz", *options)
    assert {key: json.loads(found.out)[key] for key in expected} == expected
    baseline = ["--baseline", "other.npz", "--baseline-groups", "y,age"]
    assert main(["evaluate", "real.egt", "fake.npz", *options, *baseline]) == 0
    assert main([*PREPARE, "--metrics", "fid", "--without-samples"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "real.egt", "fake.npz", *options]) == 2
    assert "real.egt has no samples that could be copied to the device; leave --backend cuda out" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*PREPARE, "--out", "real.npz"], "real.npz: is a file to read"),
        ([*PREPARE, "--out", "new.npz"], "--out new.npz: is not the name of a reference; choose one that ends in .egt"),
        ([*PREPARE, "--backend", "cuda"], "--backend cuda"),
        ([*PREPARE, "--intervals", "--without-samples"], "--intervals: intervals need the samples, and"),
        ([*PREPARE, "--metrics", "kid", "--subset-size", "1000"], "real has 240 rows, but --subset-size 1000"),
        (["evaluate", "real.npz", "fake.npz", "--fake-groups", "y"], "real.npz: holds no names of groups; say where"),
        (["evaluate", "bad.egt", "fake.npz", "--fake-groups", "y"], "bad.egt: is no reference; make one"),
        (["evaluate", "none.egt", "fake.npz", "--fake-groups", "y"], "none.egt: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.egt").write_text("PK")
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("real.egt").exists()
