"""The tables of a page: cells, scores by group, and gaps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence

from egtmetrics.groups import GenerativeMetricFrame, ScoreTable
from egtmetrics.labels import group_text
from egtmetrics.plots import axis_label
from egtmetrics.report._page_parts import Gap, Inference, interval_text
from egtmetrics.report.tables import Columns, groups_title, is_number, mark, names_text
from egtmetrics.results import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    text: str
    interval: str = ""
    worse: bool = False
    unreliable: bool = False
    number: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def table_of(caption: str, columns: Columns) -> Table:
    """Return a table of the page as one in a terminal, where an interval stands below its number."""
    header = [name for name, _ in columns]
    of_numbers = [all(map(is_number, cells)) for _, cells in columns]

    def cell(text: str, number: bool) -> Cell:
        text, _, interval = text.partition("\n")
        return Cell(text=text, interval=interval, number=number)

    rows = zip(*(cells for _, cells in columns), strict=True)
    return Table(caption=caption, header=header, rows=[[*map(cell, row, of_numbers)] for row in rows])


def score_table(table: ScoreTable, gaps: Sequence[Gap], frame: GenerativeMetricFrame, inference: Inference) -> Table:
    worse = {
        gap.disparity.column: gap.worse
        for gap in gaps
        if gap.table.metric == table.metric and gap.disparity.column is not None and gap.beyond_noise
    }
    overall = frame.overall.to_dict()

    def cell(name: str, score: Score, group: Hashable, value: float) -> Cell:
        return Cell(
            text=score.text(value),
            interval=interval_text(inference.score_bounds(table.column(name), group), score),
            worse=name in worse and group == worse[name],
            unreliable=bool(mark(frame, table.metric, group)),
        )

    title = frame.title(table.metric)
    return Table(
        caption=title + (f" ({table.metric})" if title != table.metric else "") + with_intervals(inference),
        header=[groups_title(frame), *map(axis_label, table.described.values())],
        rows=[
            [
                Cell(text="overall"),
                *(
                    Cell(
                        text=score.text(overall[table.column(name)]),
                        unreliable=bool(mark(frame, table.metric, None)),
                    )
                    for name, score in table.described.items()
                ),
            ],
            *(
                [
                    Cell(text=group_text(group)),
                    *(cell(name, score, group, row[name]) for name, score in table.described.items()),
                ]
                for group, row in zip(table.values.index, table.values.to_dict("records"), strict=True)
            ),
        ],
    )


def gap_table(
    gaps: Sequence[Gap], inference: Inference, what: str = "Largest difference δ between two groups, as measured"
) -> Table:
    expected = [] if inference.intervals is None else ["δ if equal"]
    tested = [] if inference.tests is None else ["corrected p"]
    rows = [
        [
            Cell(text=gap_name(gap)),
            gap_cell(gap),
            *(
                Cell(
                    text="" if gap.expected_if_equal is None else gap.disparity.score.text(gap.expected_if_equal),
                    unreliable=not gap.reliable,
                )
                for _ in expected
            ),
            *(p_cell(gap) for _ in tested),
            *pair_cells(gap),
        ]
        for gap in gaps
    ]
    return Table(
        caption=f"{what}{with_intervals(inference)}",
        header=["gap in", "δ", *expected, *tested, "larger in", "smaller in"],
        rows=rows,
    )


def gap_cell(gap: Gap) -> Cell:
    """How large it is."""
    score, value = gap.disparity.score, gap.pair.value
    return Cell(
        text="none" if math.isnan(value) else score.text(value) + (" points" if score.percent else ""),
        interval=interval_text(gap.interval, score),
        unreliable=not gap.reliable,
    )


def p_cell(gap: Gap) -> Cell:
    text = "" if gap.p_value is None else p_text(gap.p_value).removeprefix("= ")
    return Cell(text=text, unreliable=not gap.reliable)


def pair_cells(gap: Gap) -> list[Cell]:
    """Which groups attain it."""
    groups = (gap.pair.larger, gap.pair.smaller)
    return [Cell(text="" if group is None else group_text(group), number=False) for group in groups]


def gap_name(gap: Gap) -> str:
    """``"ipr: precision"``, with the unit, which may be too long to stand beside the number."""
    score = gap.disparity.score
    unit = "" if score.percent or not score.unit else f" ({score.unit})"
    others = f", without {names_text(gap.pair.without)}" if gap.pair.without else ""
    return f"{gap.table.metric}: {gap.disparity.label}{unit}{others}"


def with_intervals(inference: Inference) -> str:
    return "" if inference.intervals is None else f", with {inference.level:.0%} intervals"


def p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"
