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
@pytest.mark.filterwarnings("default::egtmetrics.groups.GroupSizeWarning")  # of the page, which compares equal sizes
def test_the_demo_answers_its_question_and_its_command_writes_the_page(
    digits: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = digits.main(tmp_path)
    out, _ = capsys.readouterr()
    content = json.loads((tmp_path / "digits.json").read_text())
    assert list(content) == list(frames) == ["5 clusters", "40 clusters", "1 cluster per digit"]
    for name, frame in frames.items():
        assert content[name]["by_group"]["digits 5 to 9"] == frame.by_group.loc["digits 5 to 9"].to_dict()
        assert (frame.scored_counts == frame.scored_counts.iloc[0, 0]).to_numpy().all()
    assert (tmp_path / "digits-precision-recall.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "digits.md").read_text().count("\n### Scores\n") == 3

    # The answer in words: five clusters cannot draw ten digits, and the rare digits suffer most.
    words = out[out.index("\n5 clusters") : out.index("\n40 clusters")]
    assert "The digits 5 to 9 are worse off" in words[words.index("FID") :]
    assert out.count("corrected p =") == 9  # three generators, three scores
    assert "other real digits, digits 5 to 9" in out
    for frame in frames.values():  # no score saturates at this size
        assert (frame.by_group[["ipr_precision", "ipr_recall"]] < 0.99).to_numpy().all()

    command = out[out.index("egtmetrics report") :].replace("\\\n", " ").split()[1:]
    assert command_line(command) == 0
    page = (tmp_path / "page.html").read_text()
    assert "The model is not equally good for every group" in page


def test_a_gap_that_other_real_digits_have_too_is_not_the_generator_s(digits: ModuleType) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(digits.GROUPS, 100)
    real, fake, other = rng.normal(size=(3, 200, 2))
    for held_out, words in ((other, "The digits 5 to 9 are worse off"), (fake, "Not distinguishable from noise")):
        generated = fake + 3.0 * (labels == digits.GROUPS[1])[:, None]
        frame = GenerativeMetricFrame(
            metrics="fid",
            real=real,
            fake=generated,
            real_sensitive_features=labels,
            fake_sensitive_features=labels,
        )
        placebo = held_out if held_out is other else generated
        (sentence,) = digits.findings(frame.baseline(placebo, labels))
        assert words in sentence
