"""The pieces that the reports share, on made-up runs."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from egtmetrics.paper._report_parts import FID, Gap, document, gap_cells, gaps_of, verdict_on_changes

PR = gaps_of("topp")["PR"]


def runs_of(method: str, precision: object, recall: object, fid: object = ((1.0, 2.0),)) -> pd.DataFrame:
    """One row per seed; scores ``(n_seeds, 2 groups)`` as shares."""
    columns: dict[str, object] = {}
    for score, values in (("topp.precision", precision), ("topp.recall", recall), ("fid.fid", fid)):
        of_groups = np.asarray(values, dtype=float)
        columns |= {f"{score}/all": of_groups.mean(axis=1)}
        columns |= {f"{score}/{group}": of_groups[:, i] for i, group in enumerate(("f", "m"))}
    n = len(np.asarray(precision))
    runs = pd.DataFrame({name: np.resize(np.asarray(values), n) for name, values in columns.items()})
    p, r, of_fid = (runs[f"{score}/f"] - runs[f"{score}/m"] for score in ("topp.precision", "topp.recall", "fid.fid"))
    disparities = {"topp.delta_p": p.abs(), "topp.delta_r": r.abs(), "topp.delta_pr": (p + r).abs()}
    return runs.assign(method=method, seed=range(n), **disparities, **{"fid.delta_fid": of_fid.abs()})


def test_better_and_worse_are_those_of_each_run() -> None:
    before = runs_of("A", [[0.9, 0.8], [0.7, 0.8]], [[0.5, 0.5], [0.5, 0.5]])
    ends = gaps_of("topp")["P"].ends(before)
    assert ends["better"].tolist() == pytest.approx([90.0, 80.0])
    assert ends["worse"].tolist() == pytest.approx([80.0, 70.0])
    assert ends["δ"].tolist() == pytest.approx([10.0, 10.0])
    of_fid = FID.ends(before)
    assert (of_fid["better"].tolist(), of_fid["worse"].tolist()) == ([1.0, 1.0], [2.0, 2.0])
    sums = PR.ends(runs_of("A", [[0.9, 0.8]], [[0.4, 0.7]])).iloc[0]
    assert sums.tolist() == pytest.approx([20.0, 150.0, 130.0])


@pytest.mark.parametrize("gap", [*gaps_of("topp").values(), FID])
def test_a_gap_changes_by_the_difference_of_its_ends(gap: Gap) -> None:
    rng = np.random.default_rng(0)
    before, after = (runs_of(name, *rng.random((3, 6, 2))) for name in "AB")
    changes = gap.ends(after) - gap.ends(before)
    sign = -1.0 if gap.lower_is_better else 1.0
    np.testing.assert_allclose(changes["δ"], sign * (changes["better"] - changes["worse"]), atol=1e-12)


def test_cells_of_gaps() -> None:
    before = runs_of("A", [[0.9, 0.8], [0.9, 0.8]], [[0.5, 0.5]])
    after = runs_of("B", [[0.85, 0.8], [0.79, 0.7]], [[0.5, 0.5]])
    cells = gap_cells({"P": gaps_of("topp")["P"]}, after, before)
    assert cells == {"δ-P": "7.0 ± 2.8", "ΔP better": "-8.0 ± 4.2", "ΔP worse": "-5.0 ± 7.1"}
    assert gap_cells({"P": gaps_of("topp")["P"]}, before, None) == {
        "δ-P": "10.0 ± 0.0", "ΔP better": "", "ΔP worse": ""
    }  # fmt: skip
    paired = gap_cells({"P": gaps_of("topp")["P"]}, after[after["seed"] == 1], before)
    assert paired == {"δ-P": "9.0", "ΔP better": "-11.0", "ΔP worse": "-10.0"}


def seeds(shift: float, noise: float, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.array([0.9, 0.7]) + np.array([shift, 0.0]) + noise * rng.normal(size=(n, 2))


def test_verdict_names_what_narrows_and_how() -> None:
    rng = np.random.default_rng(0)
    flat = [[0.5, 0.5]]
    runs = pd.concat(
        [
            runs_of("Plain", seeds(0.0, 0.001, 5, rng), flat),
            runs_of("Min-Max", seeds(-0.1, 0.001, 5, rng), flat),
            runs_of("Other", seeds(0.0, 0.001, 5, rng), flat),
        ]
    )
    text = verdict_on_changes(runs, "Plain", PR, "P + R")
    assert re.fullmatch(
        r"Against Plain, 1 of 2 methods changes the gap in P \+ R, (19\.\d|20\.\d) points, by more than noise \(5 "
        r"seeds, 95% for all methods together\): Min-Max narrows it by (9\.\d|10\.\d) ± 0\.\d points \(better group "
        r"-\d+\.\d, worse group [+-]0\.\d\)\.",
        text,
    )
    noisy = verdict_on_changes(runs[runs["method"] != "Min-Max"], "Plain", PR, "P + R")
    assert re.search(
        r"none of 1 methods changes the gap in P \+ R, [\d.]+ points, by more than its noise, up to ± 0\.\d points",
        noisy,
    )
    single = verdict_on_changes(runs[runs["seed"] == 0], "Plain", PR, "P + R")
    assert single == "No difference from Plain in P + R can be told from noise: that takes two seeds or more."


def test_verdict_has_its_level() -> None:
    """Four methods without any effect, 200 times: one found in at most 5 %, plus five standard errors of 1.5 %.

    A t-interval for each method alone would find one in 15 %.
    """
    rng = np.random.default_rng(1)
    runs = pd.concat([runs_of(name, seeds(0.0, 0.0, 5, rng), [[0.5, 0.5]]) for name in "ABCDE"], ignore_index=True)
    alarms = 0
    for _ in range(200):
        scores = 0.8 + 0.02 * rng.normal(size=(len(runs), 2))
        runs[["topp.precision/f", "topp.precision/m"]] = scores
        runs["topp.delta_pr"] = np.abs(scores[:, 0] - scores[:, 1])
        alarms += "none of" not in verdict_on_changes(runs, "A", PR, "P + R")
    assert alarms / 200 < 0.05 + 5 * 0.0154


def test_document_opens_with_its_verdict() -> None:
    rows = [{"a": "1"}]
    text = document({"T": rows}, [], ["note"], markdown=False, verdict=["One.", "Two."])
    assert text.startswith("Verdict: One. Two.\n\nT\n\n")
    assert document({"T": rows}, [], [], markdown=True, verdict=["One."]).startswith("**Verdict.** One.\n\n### T\n\n")
