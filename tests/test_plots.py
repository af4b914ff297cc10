"""Figures draw the scores of the frames, and their names can be read."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.metrics.prdc import improved_precision_recall, precision_recall_density_coverage
from egtmetrics.plots import plot_disparities, plot_precision_recall, plot_scores, save_figure
from egtmetrics.report._page_figures import draw_precision_recall, plain_text_figures
from egtmetrics.report._page_parts import infer
from egtmetrics.results import Score

TABLES = pd.read_csv(Path(__file__).parent / "golden" / "paper_tables_7_8.csv")


def paper_models(table: int) -> dict[str, pd.DataFrame]:
    """Every model of a table of the paper, one row per group."""
    models = {}
    for row in TABLES[TABLES["table"] == table].itertuples():
        models[f"{row.model} {row.generation} {row.method}"] = pd.DataFrame(
            {
                "precision": [row.precision_male / 100, row.precision_female / 100],
                "recall": [row.recall_male / 100, row.recall_female / 100],
            },
            index=pd.Index(["male", "female"], name="gender"),
        )
    return models


def drawn_points(ax: Axes) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(dots.get_offsets()) for dots in ax.collections])


def legend_texts(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [" ".join(text.get_text().split()) for text in legend.get_texts()]


def test_every_group_of_every_model_is_a_point_in_percent() -> None:
    models = paper_models(8)
    ax = plot_precision_recall(models)
    expected = np.concatenate([100 * table.to_numpy() for table in models.values()])
    points = drawn_points(ax)
    np.testing.assert_allclose(points[np.lexsort(points.T)], expected[np.lexsort(expected.T)])
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    assert ((points > low) & (points < high)).all()
    assert ax.get_xlabel() == "precision (%)"
    assert ax.get_ylabel() == "recall (%)"


def test_a_dashed_line_joins_the_groups_of_a_model() -> None:
    models = paper_models(7)
    lines = plot_precision_recall(models).get_lines()
    assert len(lines) == len(models)
    for line, table in zip(lines, models.values(), strict=True):
        assert line.get_linestyle() == "--"
        np.testing.assert_allclose(np.asarray(line.get_xydata()), 100 * table.to_numpy())


def test_groups_differ_in_colour_and_in_marker() -> None:
    n = 20
    by_group = pd.DataFrame({"precision": np.linspace(0, 1, n), "recall": np.linspace(1, 0, n)}, index=range(n))
    dots = plot_precision_recall({"model": by_group}).collections
    looks = {(tuple(dot.get_facecolor()[0]), dot.get_paths()[0].vertices.tobytes()) for dot in dots}
    assert len(looks) == n


def test_the_legend_names_the_groups_and_the_feature() -> None:
    ax = plot_precision_recall(paper_models(8))
    legend = ax.get_legend()
    assert legend is not None
    assert legend_texts(ax) == ["male", "female"]
    assert legend.get_title().get_text() == "gender"


ODD = ["_hidden", "$x$", "$", "a_b", "\\alpha"]
"""Names that matplotlib leaves out of legends, reads as formulas, or fails on."""


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    scores = {"precision": [0.1, 0.3, 0.5, 0.7, 0.9], "recall": [0.5] * 5}
    by_group = pd.DataFrame(scores, index=pd.Index(ODD, name="_$s$"))
    models = {name: by_group * scale for name, scale in zip(ODD, [1, 0.8, 0.6, 0.4, 0.2], strict=True)}
    ax = plot_precision_recall(models, title="$t$")
    save_figure(ax, tmp_path / "figure.svg")
    drawn = re.findall(r"<!-- (.*?) -->", (tmp_path / "figure.svg").read_text())  # a comment with every text drawn
    assert {"_$s$", "$t$", *ODD} <= set(drawn)
    assert [text.get_text() for text in ax.texts] == ODD  # outlined texts have no comment
    named = [text for text in ax.findobj(Text) if text.get_text() in {"_$s$", "$t$", *ODD}]
    assert len(named) == 2 * len(ODD) + 2
    assert not any(text.get_parse_math() for text in named)


def test_names_leave_a_figure_valid_and_with_room(tmp_path: Path) -> None:
    names = ['id="x" href="#y" url(#z)', "a<b>&--]]>", "two\nlines \x1b[1m\x00\uffff", "x" * 300 + "end"]
    scores = {"precision": np.linspace(0.1, 0.9, 4), "recall": np.full(4, 0.5)}
    by_group = pd.DataFrame(scores, index=pd.Index(names, name="n" * 300, dtype=object))
    for ax in (
        plot_precision_recall(dict.fromkeys([*names, "\udcff"], by_group)),
        plot_scores(by_group["precision"], Score(label="l\x01" + "l" * 20), overall=0.5),
    ):
        save_figure(ax, tmp_path / "figure.svg")
        ElementTree.parse(tmp_path / "figure.svg")
        save_figure(ax, tmp_path / "figure.pdf")
        assert ax.get_window_extent().width > 0.25 * ax.figure.get_window_extent().width
        drawn = {text.get_text() for text in ax.findobj(Text)}
        assert {names[0], names[1], "two lines \\x1b[1m\\x00\\uffff"} <= drawn
        assert any(re.fullmatch("x+…x+end", text) for text in drawn)


def test_a_label_in_the_page_keeps_what_looks_like_a_name_of_svg() -> None:
    rng, labels = np.random.default_rng(0), ['id="x" url(#y)', "m"] * 20
    frame = GenerativeMetricFrame(
        metrics={"ipr": improved_precision_recall}, real=rng.normal(size=(40, 3)), fake=rng.normal(size=(40, 3)),
        real_sensitive_features=labels, fake_sensitive_features=labels, backend="reference",
    )  # fmt: skip
    with plain_text_figures():
        drawing = draw_precision_recall(frame, infer(frame, None))
    assert drawing is not None
    root = ElementTree.fromstring(drawing.svg)
    assert 'id="x" url(#y)' in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    ids = {name for element in root.iter() if (name := element.get("id"))}
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', re.sub(r">[^<]*<", "><", drawing.svg)))
    assert all(name.startswith("pr-") for name in ids)
    assert used
    assert used <= ids


def test_the_page_also_draws_names_as_they_are() -> None:
    rng, labels = np.random.default_rng(0), ["_f", "$m$"] * 20
    frame = GenerativeMetricFrame(
        metrics={"ipr": improved_precision_recall}, real=rng.normal(size=(40, 3)), fake=rng.normal(size=(40, 3)),
        real_sensitive_features={"_$s$": labels}, fake_sensitive_features={"_$s$": labels}, backend="reference",
    )  # fmt: skip
    with plain_text_figures():
        drawing = draw_precision_recall(frame, infer(frame, None))
    assert drawing is not None
    for name in ("_f", "$m$", "_$s$"):
        assert f">{name}</text>" in drawing.svg, name


def test_the_given_points_are_hollow_and_the_legend_says_why() -> None:
    models = {"first": TWO, "other": TWO / 2}
    ax = plot_precision_recall(models, hollow=[("other", "m")])
    for dots, hollow in zip(ax.collections, ([False, False], [False, True]), strict=True):
        faces, edges = dots.get_facecolor(), dots.get_edgecolor()
        assert [tuple(face[:3]) == (1.0, 1.0, 1.0) for face in faces] == hollow
        assert [tuple(edge[:3]) != (1.0, 1.0, 1.0) for edge in edges] == hollow
    assert legend_texts(ax) == ["f", "m", "may differ from first by chance only"]
    assert legend_texts(plot_precision_recall(models, hollow=[("other", "x")])) == ["f", "m"]


RNG = np.random.default_rng(0)
SAMPLES: dict[str, Any] = {
    "real": RNG.normal(size=(120, 3)),
    "fake": RNG.normal(size=(120, 3)),
    "real_sensitive_features": ["f", "m"] * 60,
    "fake_sensitive_features": ["f", "m"] * 60,
}
TWO = pd.DataFrame({"precision": [0.5, 0.9], "recall": [0.6, 0.4]}, index=["f", "m"])


@pytest.mark.parametrize("models", [4, 8])
def test_names_cover_neither_points_nor_each_other(models: int) -> None:
    # The eight pretrained and conditional models of Table 8 are close together. Denser figures are unreadable anyway.
    chosen = {name: table for name, table in paper_models(8).items() if "pretrained" in name or "conditional" in name}
    ax = plot_precision_recall(dict(list(chosen.items())[:models]))
    FigureCanvasAgg(ax.figure.figure).draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert [text.get_text() for text in ax.texts] == list(chosen)[:models]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(x, y) for x, y in ax.transData.transform(drawn_points(ax)))
        assert ax.get_window_extent().x0 <= box.x0
        assert box.x1 <= ax.get_window_extent().x1


def test_one_frame_needs_no_name_and_a_metric_can_be_chosen() -> None:
    rng = np.random.default_rng(0)
    labels = ["f", "m"] * 20

    def half(real: object, fake: object) -> float:
        return 0.5

    frame = GenerativeMetricFrame(
        metrics={"half": half, "ipr": improved_precision_recall, "prdc": precision_recall_density_coverage},
        real=rng.normal(size=(40, 3)),
        fake=rng.normal(size=(40, 3)) * 1.5,
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        backend="reference",
    )
    for metric, columns in (
        (None, ["ipr_precision", "ipr_recall"]),
        ("ipr", ["ipr_precision", "ipr_recall"]),
        ("prdc", ["prdc_precision", "prdc_recall"]),
    ):
        ax = plot_precision_recall(frame, metric=metric)
        np.testing.assert_allclose(drawn_points(ax), 100 * frame.by_group[columns].to_numpy())
        assert not ax.texts
    with pytest.raises(ValueError, match="expected a precision and a recall of metric 'half'"):
        plot_precision_recall(frame, metric="half")


def test_a_group_without_scores_is_left_out() -> None:
    by_group = pd.DataFrame({"precision": [0.5, np.nan], "recall": [0.5, np.nan]}, index=["f", "m"])
    assert len(drawn_points(plot_precision_recall({"model": by_group}))) == 1
    with pytest.raises(ValueError, match="model 'model' has no group with finite"):
        plot_precision_recall({"model": by_group.iloc[1:]})


def test_scores_that_are_not_shares_are_drawn_as_they_are() -> None:
    def plain(real: Any, fake: Any) -> dict[str, float]:
        return {"precision": 5.0 * float(fake.mean()), "recall": -3.0 * float(fake.mean())}

    labels = ["f", "m"] * 20
    fake = np.where(np.arange(40) % 2, 2.0, 1.0)[:, None]
    frame = GenerativeMetricFrame(
        metrics=plain, real=fake, fake=fake, real_sensitive_features=labels, fake_sensitive_features=labels
    )
    ax = plot_precision_recall(frame)
    assert drawn_points(ax).tolist() == [[5.0, -3.0], [10.0, -6.0]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("precision", "recall")
    low, high = ax.get_ylim()
    assert low < -6.0
    assert high > -3.0


def dots(ax: Axes) -> list[tuple[float, float]]:
    lines = [line for line in ax.get_lines() if line.get_marker() == "o"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def bars(ax: Axes) -> list[list[float]]:
    return [
        list(line.get_xdata()) for line in ax.get_lines() if line.get_marker() == "None" and len(line.get_xdata()) == 2
    ]


def test_scores_are_rows_with_bars_and_a_line_for_overall() -> None:
    values = pd.Series({"f": 0.25, ("m", "old"): 0.75, "x": np.nan})
    bounds = pd.DataFrame({"low": [0.125, 0.5, np.nan], "high": [0.5, 1.0, np.nan]})
    recall = Score(label="$recall$", percent=True)
    ax = plot_scores(values, recall, overall=0.5, bounds=bounds)
    assert dots(ax)[:2] == [(25.0, 0.0), (75.0, 1.0)]
    assert np.isnan(dots(ax)[2][0])
    dashed, *intervals = bars(ax)
    assert dashed == [50.0, 50.0]
    assert intervals == [[12.5, 50.0], [50.0, 100.0]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["f", "m, old", "x"]
    assert ax.get_xlabel() == "$recall$ (%)"
    assert not ax.xaxis.label.get_parse_math()
    plain = plot_scores(values, Score(label="distance", unit="metres"), overall=0.5)
    assert dots(plain)[0] == (0.25, 0.0)
    assert plain.get_xlabel() == "distance (metres)"


def test_disparities_of_one_metric_share_a_scale_and_show_their_numbers() -> None:
    rows = [("a", "delta_x", 1.0, 0.0, 4.0), ("a", "delta_y", 2.0, 1.0, 3.0), ("b", "delta_z", 500.0, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["metric", "disparity", "value", "low", "high"])
    ax = plot_disparities(table.set_index(["metric", "disparity"]))
    assert dots(ax) == [(0.25, 0.0), (0.5, 1.0), (1.0, 2.0)]
    assert bars(ax) == [[0.0, 1.0], [0.25, 0.75], [0.0, 0.0]]  # the last one marks 0
    assert [text.get_text() for text in ax.texts] == ["1  [0, 4]", "2  [1, 3]", "500"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a: delta_x", "a: delta_y", "b: delta_z"]


def test_every_plot_draws_on_given_axes() -> None:
    frame = GenerativeMetricFrame(metrics="prdc", **SAMPLES, random_state=0, backend="reference")
    intervals = frame.interval()
    plots: list[Callable[[Axes | None], Axes]] = [
        lambda ax: plot_precision_recall({"a": frame, "b": TWO}, ax=ax),
        lambda ax: frame.plot("prdc_density", intervals=intervals, ax=ax),
        lambda ax: intervals.plot(ax=ax),
    ]
    for plot in plots:
        figure = Figure(layout="constrained")
        first, second = figure.subplots(1, 2)
        assert plot(second) is second
        assert second.has_data()
        assert not first.has_data()
        assert figure.legends == []
        assert plot(None).get_figure() is not figure
        FigureCanvasAgg(figure).draw()


def test_it_is_an_error_if_there_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="models is empty"):
        plot_precision_recall({})
    with pytest.raises(ValueError, match="model 'a' has the scores fid; expected a precision and a recall"):
        plot_precision_recall({"a": pd.DataFrame({"fid": [1.0, 2.0]})})


def test_pyplot_is_never_imported() -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    plot_precision_recall(paper_models(8))
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_figures_are_saved_by_suffix(suffix: str, magic: bytes, tmp_path: Path) -> None:
    save_figure(plot_precision_recall(paper_models(7)), tmp_path / f"figure{suffix}", dpi=50)
    assert (tmp_path / f"figure{suffix}").read_bytes().startswith(magic)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"figure\.doc: figures are written as \.png, \.pdf, \.svg"):
        save_figure(plot_precision_recall(paper_models(7)), tmp_path / "figure.doc")
    assert not list(tmp_path.iterdir())
