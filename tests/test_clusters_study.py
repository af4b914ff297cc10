"""The study of clusters: shares of known records, and the page that follows from the figures that were measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import clusters

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def test_shares_are_those_of_the_records() -> None:
    def one(low: float, high: float, p_value: float) -> clusters.Record:
        scores = {"m": [[1.0, low, high], [2.0, low, high]]}
        return {"scores": scores, "differences": {"m": [low, high]}, "p_values": {"m delta_m": p_value}}

    records = [
        {"clusters": one(-1.0, 2.0, 0.5), "rows": one(-1.0, 2.0, 0.5)},
        {"clusters": one(-2.0, 1.6, 0.06), "rows": one(1.0, 2.0, 0.01)},
    ]
    rows = clusters.figures_of(clusters.DESIGNS[0], 0.3, records)
    shares = {(row["kind"], row["promise"]): row["share"] for row in rows}
    assert shares["clusters", "intervals of differences"] == 1.0
    assert shares["rows", "intervals of differences"] == 0.5
    assert shares["clusters", "intervals of scores"] == 1.0  # around 1.5, the mean of all scores
    assert (shares["clusters", "tests of scores"], shares["rows", "tests of scores"]) == (0.0, 0.5)


def test_the_page_follows_from_the_figures() -> None:
    rows = json.loads((RESULTS / "clusters.json").read_text())["rows"]
    page = (RESULTS / "clusters.md").read_text()
    assert page == clusters.markdown(rows)
    assert page.index("What falls short") < page.index("Clusters passed, and ignored")
