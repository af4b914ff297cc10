"""The example that ``make demo`` runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.cli import main as command_line

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "digits_example", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning")
def test_the_demo_answers_its_question_and_the_command_line_makes_its_page(
    digits: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = digits.main(tmp_path)
    out, _ = capsys.readouterr()
    content = json.loads((tmp_path / "digits.json").read_text())
    assert list(content) == list(frames) == ["other real digits", "5 clusters", "40 clusters", "1 cluster per digit"]
    for name, frame in frames.items():
        assert content[name]["by_group"]["digits 5 to 9"] == frame.by_group.loc["digits 5 to 9"].to_dict()
        counts = frame.group_counts[["n_real", "n_fake"]].to_numpy()
        assert (counts == counts[0, 0]).all()
    assert (tmp_path / "digits-precision-recall.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "digits.md").read_text().count("\n### Scores\n") == 4

    # The answer, in words: five clusters cannot draw ten digits, and the rare ones suffer most.
    words = out[out.index("\n5 clusters") : out.index("\n40 clusters")]
    assert "FID: digits 5 to 9 are worse off" in words
    assert out.count("corrected p =") == 9  # three generators, three scores
    # The placebo is scored as a generator would be, and nothing saturates at this size.
    assert frames["other real digits"].overall["fid"] < frames["1 cluster per digit"].overall["fid"]
    for frame in frames.values():
        assert (frame.by_group[["ipr_precision", "ipr_recall"]] < 0.99).to_numpy().all()

    command = out[out.index("egtmetrics report") :].replace("\\\n", " ").split()[1:]
    assert command_line(command) == 0
    page = (tmp_path / "page.html").read_text()
    assert "digits 5 to 9" in page


def test_a_gap_is_compared_with_that_of_other_real_digits(digits: ModuleType) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(digits.GROUPS, 100)

    def frame(shift: float) -> GenerativeMetricFrame:
        real, fake = rng.normal(size=(2, 200, 2))
        fake[100:] += shift
        return GenerativeMetricFrame(
            metrics="fid", real=real, fake=fake, real_sensitive_features=labels, fake_sensitive_features=labels
        )

    model, placebo = frame(3.0), frame(0.0)
    (row,) = digits.gaps_of(model, placebo)
    gaps = [
        one.by_group.loc[digits.GROUPS[1], "fid"] - one.by_group.loc[digits.GROUPS[0], "fid"]
        for one in (model, placebo)
    ]
    assert [row.model, row.placebo] == pytest.approx(gaps)
    assert row.p_value < 1e-3
    assert "digits 5 to 9 are worse off" in digits.sentence(model, row, 0.01)
    assert "no gap that is more than noise" in digits.sentence(model, row, 0.2)
    (same,) = digits.gaps_of(placebo, placebo)
    assert (same.model, same.p_value) == (same.placebo, 1.0)
