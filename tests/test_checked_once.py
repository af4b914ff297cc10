"""Every value of a file is converted and checked once, however many metrics, groups and pages there are."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import egtmetrics.data
from egtmetrics import _validation
from egtmetrics.cli import main
from egtmetrics.ops import ShardedFeatures
from egtmetrics.registry import registered_metrics

GROUPS = np.repeat(["f", "m"], [60, 80])
RNG = np.random.default_rng(0)
FEATURES = {name: RNG.normal(size=(140, 3)) for name in ("real", "fake")}
LABELS = ["--real-groups", "y", "--fake-groups", "y"]
ARGUMENTS = ["real.npz", "fake.npz", *LABELS, "--metrics", "topp,prdc,fid", "--quiet"]


class Counted:
    """Features that count how often they are turned into an array."""

    def __init__(self, array: Any) -> None:
        self.array, self.conversions = array, 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        self.conversions += 1
        return np.array(self.array, dtype=dtype, copy=copy)


@dataclasses.dataclass
class Counts:
    read: list[Counted] = dataclasses.field(default_factory=list)
    scanned: list[int] = dataclasses.field(default_factory=list)
    """The numbers of values that were scanned for finiteness."""


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    monkeypatch.chdir(tmp_path)
    for name, features in FEATURES.items():
        np.savez(f"{name}.npz", features=features, y=GROUPS)
    registered_metrics()  # import all metrics first, so that the replacements below are undone everywhere
    found = Counts()
    read, check = egtmetrics.data.read_labelled_features, _validation.check_features

    def counting_read(*args: Any, **kwargs: Any) -> Any:
        side = read(*args, **kwargs)
        found.read.append(Counted(side.features))
        return dataclasses.replace(side, features=found.read[-1])

    def counting_check(values: Any, *args: Any, **kwargs: Any) -> Any:
        scanned = not isinstance(values, ShardedFeatures) and not _validation.is_checked(values)
        checked = check(values, *args, **kwargs)
        if scanned and found.read:  # before, options are tried on a row of zeros
            found.scanned.append(int(np.prod(checked.shape)))
        return checked

    monkeypatch.setattr(egtmetrics.data, "read_labelled_features", counting_read)
    for module in [module for name, module in sys.modules.items() if name.startswith("egtmetrics")]:
        if getattr(module, "check_features", None) is check:
            monkeypatch.setattr(module, "check_features", counting_check)
    yield found
    assert [side.conversions for side in found.read] == [1] * len(found.read)


def test_evaluate_checks_every_value_once(counts: Counts, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *ARGUMENTS, "--interval", "0.9", "--n-bootstrap", "50", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["overall"]) == 8
    assert len(counts.read) == 2
    assert counts.scanned == [420, 420]


def test_a_report_of_matched_sizes_checks_every_value_once(counts: Counts) -> None:
    pytest.importorskip("jinja2")
    Path("texts.txt").write_text("a text\n" * 140)
    options = ["--match-sizes", "--texts", "texts.txt", "--n-bootstrap", "50", "--out", "page.html"]
    assert main(["report", *ARGUMENTS, *options]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "Where the divergence comes from" in page
    assert "a text" in page
    assert len(counts.read) == 2
    assert counts.scanned == [420, 420]


def test_a_comparison_reads_the_reference_once(counts: Counts, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("other.npz", features=FEATURES["fake"] + 1.0, y=GROUPS)
    command = ["compare", "--reference", "real.npz", "fake.npz", "other.npz", *LABELS, "--metrics", "prdc,fid"]
    assert main([*command, "--permutations", "0", "--quiet"]) == 0
    assert "fake" in capsys.readouterr().out
    assert len(counts.read) == 3
    assert counts.scanned == [420, 420, 420]
