"""The commands of docs/data.md run on the files that they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from egtmetrics.cli import main
from egtmetrics.data import read_labelled_features
from egtmetrics.encoders import ImageEncoder
from examples.sources import write
from tests.encoders._models import corner_network

PAGE = Path(__file__).parents[1] / "docs" / "data.md"


def test_the_commands_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All forms hold the same four pictures, so the cache has each of them after the first command."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    corner_network(tmp_path)
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    counted: list[int] = []
    forward = ImageEncoder._forward
    monkeypatch.setattr(
        ImageEncoder, "_forward", lambda self, batch: (counted.append(len(batch)), forward(self, batch))[1]
    )
    commands = re.findall(r"^egtmetrics (encode .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 11
    for command in commands:
        words = shlex.split(command)
        assert main([*words, "--encoder", "corner.pt", "--device", "cpu", "--cache", "c", "--quiet"]) == 0
        found = read_labelled_features(words[words.index("--out") + 1])
        assert len(found.features) == (2 if "faces-0.tar" in words else 4)
        assert len(found.groups.drop_duplicates()) == (4 if "gender,age" in words else 2)
    assert sum(counted) == 4
    capsys.readouterr()
    options = ["--encoder", "corner.pt", "--device", "cpu", "--cache", "c", "--out", "faces.npz"]
    assert main(["encode", "faces.csv", "--groups", "gender,age", *options]) == 0
    assert "of 4 images 1 'f, 20', 1 'f, 30', 1 'm, 20', 1 'm, 30', 0 in no group" in capsys.readouterr().err
