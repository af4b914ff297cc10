"""Figure 2: points from runs, and what is drawn of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from egtmetrics.paper.figure2 import draw_figure2, figure2_points
from egtmetrics.plots import COLORS


def runs_of(values: dict[str, list[tuple[float, float, float, float]]]) -> pd.DataFrame:
    """Precision and recall of x, then of y, by method, a row per seed."""
    columns = [f"topp.{score}/{group}" for group in "xy" for score in ("precision", "recall")]
    return pd.DataFrame(
        [
            dict(zip(["method", *columns], [method, *row], strict=True))
            for method, rows in values.items()
            for row in rows
        ]
    )


RUNS = runs_of(
    {
        "Pretrained": [(0.5, 0.6, 0.7, 0.9), (0.7, 0.6, 0.7, 0.8)],
        "Prompted": [(0.6, 0.5, 0.8, 0.7)],
        "Failed": [(np.nan,) * 4],
    }
)


def test_points_are_means_with_their_spread() -> None:
    points = figure2_points(RUNS, ["x", "y"], model="tiny").set_index(["setting", "group"])
    assert points.index.tolist() == [(s, g) for s in ("Pretrained", "Prompted") for g in "xy"]
    assert (points["model"] == "tiny").all()
    first = points.loc["Pretrained", "x"]
    assert (first["precision"], first["recall"]) == (pytest.approx(0.6), pytest.approx(0.6))
    assert (first["precision_spread"], first["recall_spread"]) == (pytest.approx(np.sqrt(0.02)), pytest.approx(0.0))
    assert np.isnan(points.loc["Prompted", "y"]["precision_spread"])


def test_groups_are_joined_and_their_spread_is_drawn() -> None:
    points = pd.concat([figure2_points(RUNS, ["x", "y"], model=model) for model in ("small", "large")])
    axes = draw_figure2(points)
    lines = [np.asarray(line.get_xydata()) for line in axes.lines]
    assert len(lines) == 4
    np.testing.assert_allclose(lines[0], [[60.0, 60.0], [70.0, 85.0]])
    assert {line.get_linestyle() for line in axes.lines} == {"--"}
    names = {f"{model}, {setting}" for model in ("small", "large") for setting in ("Pretrained", "Prompted")}
    assert {text.get_text() for text in axes.texts} == names
    bars = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    assert len(bars) == 4  # of precision and of recall, of two groups
    ends = np.array(bars[0].get_segments()[0])  # the precision of x, small, Pretrained
    np.testing.assert_allclose(ends, [[60 - 100 * np.sqrt(0.02), 60.0], [60 + 100 * np.sqrt(0.02), 60.0]])
    assert axes.get_xlim()[0] <= ends[0, 0]
    np.testing.assert_allclose(bars[0].get_color()[0][:3], [int(COLORS[0][i : i + 2], 16) / 255 for i in (1, 3, 5)])


def test_spread_beyond_the_bounds_does_not_widen_the_axes() -> None:
    axes = draw_figure2(figure2_points(runs_of({"a": [(1.0, 0.5, 0.9, 0.5), (0.2, 0.5, 0.9, 0.5)]}), ["x", "y"]))
    assert axes.get_xlim()[1] < 105.0


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="models is empty"):
        draw_figure2(figure2_points(RUNS[RUNS["method"] == "Failed"], ["x", "y"]))
