"""Every number of a frame reaches the reader, in every format."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

import egtmetrics
from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.report import render
from egtmetrics.results import MetricResult, setting, share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored(MetricResult):
    """A precision and a recall that the test chooses: the means of the first and second feature."""

    precision: float = share(label="precision")
    recall: float = share(label="recall")
    n_neighbors: int = setting()


def stored(real: Any, fake: Any, *, n_neighbors: int = 4) -> Stored:
    precision, recall = fake.mean(axis=0)
    return Stored(
        precision=precision, recall=recall, n_neighbors=n_neighbors, backend="cpu", n_real=len(real), n_fake=len(fake)
    )


def distance(real: Any, fake: Any) -> float:
    return float(fake.max() - real.max())


def make_frame(labels: Any = ("f", "f", "m", "m"), fake: Any = None, **options: Any) -> GenerativeMetricFrame:
    """The first row of the paper's Table 8 as scores of two groups of two samples."""
    scores = np.array([[0.7686, 0.6557], [0.7686, 0.6557], [0.5568, 0.7703], [0.5568, 0.7703]])
    return GenerativeMetricFrame(
        metrics={"topp": partial(stored, n_neighbors=7), "gap": distance},
        real=np.zeros((4, 2)),
        fake=scores if fake is None else fake,
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        random_state=3,
        **options,
    )


def cells(text: str, separator: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split(separator, line.strip())] for line in text.splitlines() if line.strip()]


def test_the_terminal_table_prints_the_paper_s_row() -> None:
    rows = cells(render(make_frame()), r"\s{2,}")
    assert ["f", "76.86", "65.57", "0.7686"] in rows
    assert ["m", "55.68", "77.03", "0.7703"] in rows
    assert ["overall", "66.27", "71.30", "0.7703"] in rows
    assert ["topp", "delta_p", "21.18", "points", "f", "m"] in rows
    assert ["topp", "delta_r", "11.46", "points", "m", "f"] in rows
    assert ["topp", "delta_pr", "9.72", "points", "f", "m"] in rows  # Definition 4.1
    assert ["topp", "delta_p_plus_delta_r", "32.64", "points"] in rows  # what the table prints
    assert ["gap", "delta_gap", "0.0017", "m", "f"] in rows
    assert ["proportions", "mgo", "0.00", "points"] in rows
    assert ["f", "2", "2", "50.00", "50.00"] in rows


def test_the_header_states_the_unit() -> None:
    header = render(make_frame()).split("---")[0]
    assert "precision" in header
    assert header.count("(%)") == 2  # precision and recall, not the distance
    assert "| topp precision (%) |" in re.sub(" +", " ", render(make_frame(), format="markdown"))


def test_markdown_and_latex_hold_the_same_cells() -> None:
    markdown = [row[1:-1] for row in cells(render(make_frame(), format="markdown"), r"\|") if len(row) > 1]
    markdown = [row for row in markdown if not row[0].startswith(":-")]
    text = re.sub(r"\\([%_])", r"\1", render(make_frame(), format="latex"))
    latex = [row for row in cells(text.replace(r"\\", ""), "&") if len(row) > 1]
    assert markdown == latex
    assert [len(row) for row in markdown] == [4] * 4 + [6] * 8 + [5] * 4  # with a header each
    assert ["topp", "delta_pr", "9.72", "points", "f", "m"] in markdown


def test_latex_escapes_and_balances() -> None:
    text = render(make_frame(labels=["a_b & 50%", "a_b & 50%", "m", "m"]), format="latex")
    assert r"a\_b \& 50\%" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\bottomrule") == 3
    outside = re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", text, flags=re.DOTALL)
    assert all(line.startswith("%") for line in outside.splitlines() if line.strip())


NASTY = {
    "a|b\\|c": "a|b\\|c",
    "two\n| lines |\r\n": "two | lines |",
    "*bold* _it_ `code` ~~out~~ **b**": "*bold* _it_ `code` ~~out~~ **b**",
    "[link](https://a.b) ![i](x) [1][2]": "[link](https://a.b) ![i](x) [1][2]",
    "<b>html</b> <!-- no --> &amp; &#35; p<0.1": "<b>html</b> <!-- no --> &amp; &#35; p<0.1",
    "\x1b[31mred\x00\x07": "\\x1b[31mred\\x00\\x07",
    "\u202eexe.txt": "\\u202eexe.txt",
    "$x^2$ 50% #1 {a} ~/d δ\u2028†": "$x^2$ 50% #1 {a} ~/d δ †",
    "[5pt] mine": "[5pt] mine",
    "* mine": "* mine",
}
"""Names of groups, and how a reader should see them."""


def nasty_frame() -> GenerativeMetricFrame:
    x = np.arange(2.0 * len(NASTY))[:, np.newaxis]
    labels = {"sex\n|": np.repeat(list(NASTY), 2), "real": np.full(2 * len(NASTY), "1")}
    return GenerativeMetricFrame(
        metrics={"m|n\n*x*": distance, "sex |, real": distance},
        real=x, fake=x, real_sensitive_features=labels, fake_sensitive_features=labels, random_state=0,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_a_reader_of_markdown_sees_every_name_as_it_is() -> None:
    text = render(nasty_frame(), format="markdown", provenance={"file": "C:\\*a*\n# no heading\n\n| no | table |"})
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    tables = [
        [
            [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
            for row in table.split("</tr>")
        ]
        for table in re.findall(r"<table>(.*?)</table>", page, flags=re.DOTALL)
    ]
    names = sorted(f"{name}, 1" for name in NASTY.values())
    for table in (tables[0][2:-1], tables[2][1:-2]):
        assert sorted(row[0] for row in table) == names
        assert {len(row) for row in table} == {len(table[0])}
    assert tables[0][0] == ["sex |, real", "m|n *x*", "sex |, real"]  # a metric of the same name is another column
    assert tables[2][0][:3] == ["sex |, real", "real", "fake"]
    assert page.count("<h3>") == len(tables) == 3
    assert "<li>file: C:\\*a* # no heading | no | table |</li>" in page


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_latex_keeps_names_in_their_cells() -> None:
    text = render(nasty_frame(), format="latex", provenance={"file": "a\n\\input{secret}"})
    assert r"% file: a \input{secret}" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [line.strip() for line in body.splitlines() if line.strip()]
    assert len(rows) == 1 + len(NASTY)
    assert all(len(re.findall(r"(?<!\\)&", row)) == 2 for row in rows)
    assert all(row.endswith(r"\\") for row in rows)
    assert not any(row.startswith(("[", "*")) for row in rows)  # \\ before it would take it for an option
    assert text.isascii()
    assert r"50\% \#1 \{a\} \textasciitilde{}/d \ensuremath{\delta} \textdagger{}, 1" in body


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_names_do_not_act_on_a_terminal() -> None:
    text = render(nasty_frame(), provenance={"file": "\x1b]0;title\x07"})
    assert all(character == "\n" or character.isprintable() for character in text)
    for name in NASTY.values():
        assert any(line.startswith(f"{name}, 1 ") for line in text.splitlines())


def test_json_holds_the_numbers_of_the_frame_as_fractions() -> None:
    frame = make_frame()
    content = json.loads(render(frame, format="json", provenance={"real": {"file": "real.npy"}}))
    assert content["egtmetrics"] == egtmetrics.__version__
    assert content["real"] == {"file": "real.npy"}
    assert content["settings"]["random_state"] == 3
    for group, row in frame.by_group.iterrows():
        assert content["by_group"][group] == row.to_dict()  # exactly: JSON keeps every digit
    assert content["overall"] == frame.overall.to_dict()
    for (metric, disparity), row in frame.disparities().iterrows():
        assert content["disparities"][metric][disparity]["value"] == row["value"]
    assert content["results"]["overall"]["topp"]["n_neighbors"] == 7


def test_a_missing_group_is_nan_in_tables_and_null_in_json() -> None:
    frame = GenerativeMetricFrame(
        metrics={"topp": stored},
        real=np.zeros((4, 2)),
        fake=np.full((2, 2), 0.5),
        real_sensitive_features=["f", "m", "m", None],
        fake_sensitive_features=["m", "m"],
        missing_groups="nan",
    )
    rows = cells(render(frame), r"\s{2,}")
    assert ["f", "nan", "nan"] in rows
    assert ["topp", "delta_p", "nan", "points", "f"] in rows
    assert ["in no group", "1", "0"] in rows
    content = json.loads(render(frame, format="json"), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert content["by_group"]["f"] == {"topp_precision": None, "topp_recall": None}
    assert content["unassigned"] == {"real": 1, "fake": 0}


def test_intersections_are_named_by_all_their_labels() -> None:
    labels = pd.DataFrame({"gender": ["f", "f", "m", "m"], "age": ["old", "old", "young", "young"]})
    rows = cells(render(make_frame(labels=labels)), r"\s{2,}")
    assert ["f, old", "76.86", "65.57", "0.7686"] in rows
    assert ["topp", "delta_p", "21.18", "points", "f, old", "m, young"] in rows


def test_the_notes_say_how_it_was_computed() -> None:
    notes = render(make_frame(), provenance={"real": {"file": "x.npy", "key": None, "shape": [4, 2]}}).splitlines()[-4:]
    assert notes == [
        "topp: stored(n_neighbors=7), backend='cpu'",
        "gap: distance()",
        "real: file=x.npy, shape=[4, 2]",
        f"random_state=3, egtmetrics {egtmetrics.__version__}",
    ]


def test_an_option_left_at_its_default_is_in_the_notes_too() -> None:
    frame = GenerativeMetricFrame(
        metrics={"topp": stored},
        real=np.zeros((4, 2)),
        fake=np.zeros((4, 2)),
        real_sensitive_features=["f", "m"] * 2,
        fake_sensitive_features=["f", "m"] * 2,
    )
    assert "topp: stored(), n_neighbors=4, backend='cpu'" in render(frame)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format='html' is unknown; choose one of 'table', 'markdown'"):
        render(make_frame(), format="html")


def means(real: Any, fake: Any) -> Stored:
    return stored(real, fake)


def frame_with_intervals() -> GenerativeMetricFrame:
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"gender": np.repeat(["f", "m"], 60), "age": np.repeat(["old", "young"], 60)})
    return GenerativeMetricFrame(
        metrics={"topp": means, "gap": distance},
        real=rng.random((120, 2)),
        fake=rng.random((120, 2)),
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        random_state=3,
    )


def test_intervals_stand_beside_scores_and_disparities_in_their_unit() -> None:
    frame = frame_with_intervals()
    intervals = frame.interval(0.9)
    found = {tuple(row[:2]): row for row in cells(render(frame, intervals=intervals), r"\s{2,}") if len(row) > 1}
    low, high = intervals.by_group.loc[("topp_precision", "f", "old"), ["low", "high"]]
    assert (100 * np.array([low, high])).round(2).tolist() == json.loads(
        next(row for key, row in found.items() if key[0] == "f, old")[1].partition(" ")[2]
    )
    low, high = intervals.disparities.loc[("topp", "delta_p"), ["low", "high"]]
    assert found["topp", "delta_p"][3] == f"[{100 * low:.2f}, {100 * high:.2f}]"
    low, high = intervals.disparities.loc[("gap", "delta_gap"), ["low", "high"]]
    assert found["gap", "delta_gap"][3] == f"[{low:.4g}, {high:.4g}]"
    assert found["metric", "disparity"][3:5] == ["[low, high]", "if equal"]
    expected = intervals.disparities["expected_if_equal"]
    assert found["topp", "delta_p"][4] == f"{100 * expected['topp', 'delta_p']:.2f}"
    assert found["gap", "delta_gap"][4] == f"{expected['gap', 'delta_gap']:.4g}"
    text = render(frame, format="markdown", intervals=intervals)
    assert "- [low, high]: 90 % intervals of the number's average over other samples" in text
    assert text.count("[") == 1 + 1 + 6 + 7 * 1  # note, header, scores of two groups, disparities
    assert "[" not in render(frame, format="markdown").replace("[0, 1]", "")


def test_intervals_in_json_have_the_keys_of_what_they_belong_to() -> None:
    frame = frame_with_intervals()
    intervals = frame.interval(0.9)
    content = json.loads(render(frame, format="json", intervals=intervals))
    found = content["intervals"]
    assert found["level"] == 0.9
    assert {group: list(row) for group, row in found["by_group"].items()} == {
        group: list(row) for group, row in content["by_group"].items()
    }
    assert {metric: list(rows) for metric, rows in found["disparities"].items()} == {
        metric: list(rows) for metric, rows in content["disparities"].items()
    }
    bounds = intervals.by_group.loc[("topp_recall", "m", "young"), ["low", "high"]]
    assert found["by_group"]["gender=m, age=young"]["topp_recall"] == bounds.to_dict()
    assert found["disparities"]["topp"]["delta_r"]["high"] == intervals.disparities.loc[("topp", "delta_r"), "high"]
    assert "intervals" not in json.loads(render(frame, format="json"))


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.MissingScoreWarning")
@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_a_disparity_is_that_of_the_groups_with_an_interval() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(["a", "b", "c, x"], [60, 60, 20])
    frame = GenerativeMetricFrame(
        metrics={"gap": distance},
        real=rng.random((140, 1)),
        fake=rng.random((140, 1)) + (groups == "c, x")[:, None],
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        missing_groups="nan",
    )
    plain = next(row for row in cells(render(frame), r"\s{2,}") if row[:2] == ["gap", "delta_gap"])
    # The third group is too small to compare.
    assert plain == ["gap", "delta_gap", f"{frame.difference()['gap']:.4g}?", "c, x", plain[-1]]
    assert "without" not in render(frame)
    intervals = frame.interval()
    row = next(row for row in cells(render(frame, intervals=intervals), r"\s{2,}") if row[:2] == ["gap", "delta_gap"])
    a, b, _ = frame.by_group["gap"]
    known = intervals.disparities.loc[("gap", "delta_gap")]
    assert row[2:] == [
        f"{abs(a - b):.4g}",
        f"[{known['low']:.4g}, {known['high']:.4g}]",
        f"{known['expected_if_equal']:.4g}",
        *(("a", "b") if a > b else ("b", "a")),
        "c, x",
    ]
    assert "without: groups that have no score, or too few samples for an interval" in render(
        frame, intervals=intervals
    )


def test_a_group_without_a_score_has_an_empty_interval() -> None:
    rng = np.random.default_rng(1)
    frame = GenerativeMetricFrame(
        metrics={"gap": distance},
        real=rng.random((180, 1)),
        fake=rng.random((120, 1)),
        real_sensitive_features=np.repeat(["a", "b", "c"], 60),
        fake_sensitive_features=np.repeat(["a", "b"], 60),
        missing_groups="nan",
    )
    intervals = frame.interval()
    assert ["c", "nan"] in cells(render(frame, intervals=intervals), r"\s{2,}")
    assert json.loads(render(frame, format="json", intervals=intervals))["intervals"]["by_group"]["c"]["gap"] == {
        "low": None,
        "high": None,
    }
