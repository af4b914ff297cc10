"""Figure 1 as it is drawn and described, and the command that does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from egtmetrics.cli import main
from egtmetrics.paper.figure1 import describe_figure1, draw_figure1, figure1


def test_figure_and_table_show_the_same_models() -> None:
    data = figure1(n_mu=25, n_sigma=17)
    figure = draw_figure1(data)
    panels = [axes for axes in figure.axes if axes.get_xlabel() == r"$\mu$"]
    assert len(panels) == 3
    for axes in panels:
        stars = np.array([line.get_xydata()[0] for line in axes.lines])
        np.testing.assert_array_equal(stars, data.level_set[[data.most_equal, data.most_unequal]])
    table = describe_figure1(data)
    for value in data.level_conditional[data.most_unequal]:
        assert f"{value:.2f}" in table
    # The densities integrate to 1 over the line, up to what lies beyond the panel.
    density_panel = figure.axes[0]
    x, y = density_panel.lines[0].get_data()
    assert np.trapezoid(np.asarray(y), np.asarray(x)) == pytest.approx(1.0, abs=1e-6)


def test_reproduce_figure1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figure1.png"
    assert main(["reproduce", "figure1", "--figure", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    theorem = next(line for line in out.splitlines() if line.startswith("Theorem A.3"))
    assert theorem.split()[-2:] == ["0.02", "1.98"]
    assert main(["reproduce", "figure1", "--figure", str(tmp_path / "no" / "figure.png")]) == 2
    assert "is not a folder" in capsys.readouterr().err
