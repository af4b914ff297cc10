"""The example that ``make demo`` runs, with a smaller bootstrap."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from egtmetrics.cli import main as command_line

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"


@pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning")
def test_the_demo_writes_what_it_says_and_the_command_line_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("digits_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    digits = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "digits_example", digits)
    spec.loader.exec_module(digits)

    frames = digits.main(tmp_path, n_bootstrap=20, n_projections=2)
    out, err = capsys.readouterr()
    assert "9/9" in err  # the progress bar: three metrics, on two groups and on everything
    content = json.loads((tmp_path / "digits.json").read_text())
    assert list(content) == list(frames) == ["5 clusters", "40 clusters", "1 cluster per digit"]
    for name, frame in frames.items():
        assert f"\n{name}\n" in out
        assert content[name]["by_group"]["digit >= 5"] == frame.by_group.loc["digit >= 5"].to_dict()
        counts = frame.group_counts[["n_real", "n_fake"]].to_numpy()
        assert (counts == counts[0, 0]).all()
    for metric, disparity in frames["5 clusters"].disparities().index:
        assert metric in out
        assert disparity in out
    assert (tmp_path / "digits-precision-recall.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "digits.md").read_text().count("\n### Scores\n") == 3
    # Fewer clusters than digits cannot draw all of them: recall below that of the generator that knows the digits.
    assert (frames["5 clusters"].overall["prdc_recall"]) < frames["1 cluster per digit"].overall["prdc_recall"]

    command = out[out.index("egtmetrics evaluate") :].replace("\\\n", " ").split()[1:]
    assert command_line([*command, "--n-bootstrap", "20", "--n-projections", "2", "--format", "json"]) == 0
    repeated = json.loads(capsys.readouterr().out)
    assert repeated["by_group"] == content["5 clusters"]["by_group"]
    assert repeated["disparities"] == content["5 clusters"]["disparities"]
