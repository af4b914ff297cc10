"""The text, the texts to read and the figure of Table 2, from made-up scores."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from egtmetrics.paper import table2_report
from egtmetrics.paper.table2_report import describe_samples, describe_table2, plot_table2

METHODS = ("Pretrained", "Unconditional", "Conditional", "Reweighted", "Min-Max")


def made_up(
    gap: float = 0.0, noise: float = 1e-4, n_seeds: int = 3, n_real: int = 10
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Min-Max has a gap in TopP&R precision (male minus female); all else is 0.8 up to noise. Pretrained has no scores.

    Recall is 0.1 lower for men everywhere, real texts included.
    """
    rng = np.random.default_rng(0)
    runs: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    for method, n in [*((method, n_seeds) for method in METHODS), ("Real", n_real)]:
        for seed in range(n):
            run: dict[str, Any] = {"seed": seed, "method": method}
            if method != "Pretrained":
                for metric in ("topp", "ipr"):
                    shift = gap if (metric, method) == ("topp", "Min-Max") else 0.0
                    for score, half in (("precision", shift / 2), ("recall", -0.05)):
                        for who, sign in (("all", 0.0), ("male", 1.0), ("female", -1.0)):
                            run[f"{metric}.{score}/{who}"] = 0.8 + sign * half + noise * rng.normal()
                    p, r = (run[f"{metric}.{s}/male"] - run[f"{metric}.{s}/female"] for s in ("precision", "recall"))
                    run |= {f"{metric}.delta_p": abs(p), f"{metric}.delta_r": abs(r)}
                    run |= {f"{metric}.delta_pr": abs(p + r), f"{metric}.delta_p_plus_delta_r": abs(p) + abs(r)}
                fids = {who: 0.5 + noise * rng.normal() for who in ("all", "male", "female")}
                run |= {f"fid.fid/{who}": value for who, value in fids.items()}
                run |= {"fid.delta_fid": abs(fids["male"] - fids["female"]), "mauve.mauve/all": 0.9}
            if method != "Real":
                run |= {"n_drawn": 200, "n_male": 120, "n_female": 30, "n_abstained": 50, "n_empty": 1}
                run |= {"n_unfinished": 20, "n_without_heading": 4, "mgo": 0.05, "ego": 0.6}
                run["n_seen"] = np.nan if method == "Pretrained" else 512.0
                run["obeyed"] = 0.75 if method == "Conditional" else np.nan
                for group, loss in (("male", 1.0), ("female", 1.5 if method == "Pretrained" else 1.25)):
                    key = {"seed": seed, "method": method, "split": "held-out", "group": group}
                    losses.append({**key, "loss": loss + 0.1 * seed})
            runs.append(run)
    return pd.DataFrame(runs), pd.DataFrame(losses), {"model": "a made-up one", "settings": {"rank": 8}}


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    """Cells by method of one table in Markdown."""
    table = text.split(f"### {title}")[1].split("###")[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("|")]
    return {row[0]: row[1:] for row in rows if not row[0].startswith(":")}


def test_both_definitions_of_delta_pr_stand_beside_each_other() -> None:
    """P differs by +10 points, R by -10: by Definition 4.1 nothing is left, as the paper prints it 20."""
    text = describe_table2(*made_up(gap=0.1, noise=0.0), markdown=True)
    table = rows_of(text, "Table 2: disparities between groups, TopP&R")
    assert table["method"][:4] == ["δ-P", "δ-R", "δ-PR (Definition 4.1)", "δ-P + δ-R (as printed)"]
    assert table["Min-Max"][:4] == ["10.0 ± 0.0", "10.0 ± 0.0", "0.0 ± 0.0", "20.0 ± 0.0"]
    assert table["Conditional"][:4] == ["0.0 ± 0.0", "10.0 ± 0.0", "10.0 ± 0.0", "10.0 ± 0.0"]
    assert table["Min-Max"][4:7] == ["1.350 ± 0.100", "75.0 ± 0.0", "75.0 ± 0.0"]  # loss, P and R of the worst group
    assert table["Pretrained"] == ["", "", "", "", "1.600 ± 0.100", *[""] * 8]
    assert table["method"][7:9] == ["ΔP better", "ΔP worse"]
    assert [cell.split()[0] for cell in table["Min-Max"][7:9]] == ["+5.0", "-5.0"]
    assert table["Unconditional"][7:] == table["Real"][7:] == [""] * 6
    assert text.startswith("**Verdict.** Gaps (male minus female) beyond those of real texts")
    assert "none of 3 methods changes" not in text.partition("\n")[0]
    assert table["Real"][4] == ""
    layout = rows_of(text, "Table 8: TopP&R")
    assert layout["method"][:8] == ["P all", "P male", "P female", "δ-P", "R all", "R male", "R female", "δ-R"]
    assert [cell.split()[0] for cell in layout["Min-Max"]] == [
        "80.0", "85.0", "75.0", "10.0", "80.0", "75.0", "85.0", "10.0", "0.0", "20.0"
    ]  # fmt: skip


def test_losses_and_what_the_models_wrote() -> None:
    text = describe_table2(*made_up(), markdown=True)
    losses = rows_of(text, "Loss of held-out texts, nats per token")
    assert losses["method"] == ["male", "female", "female - male", "change, male", "change, female"]
    assert [cell.split()[0] for cell in losses["Min-Max"]] == ["1.100", "1.350", "0.250", "0.000", "-0.250"]
    assert losses["Pretrained"][3:] == ["0.000 ± 0.000"] * 2
    written = rows_of(text, "What the models wrote")
    shares = ["60.0 %", "15.0 %", "25.0 %", "0.5 %", "10.0 %", "2.0 %"]
    assert written["Conditional"] == ["1536", "600", *shares, "5.0 ± 0.0", "60.0 ± 0.0", "75.0 ± 0.0"]
    assert written["Pretrained"] == ["", "600", *shares, "5.0 ± 0.0", "60.0 ± 0.0", ""]
    assert "Real" not in written
    assert "- Too few texts of a group, so no scores: Pretrained (3 of 3 seeds)." in text
    assert "- model: a made-up one" in text
    assert "rank" not in text


def test_gaps_are_told_from_those_of_real_texts() -> None:
    """A gap of recall that real texts have as well is none; one of precision that they have not is."""
    clear = describe_table2(*made_up(gap=0.1, noise=0.005, n_seeds=1))
    assert re.search(r"  Min-Max, TopP&R P: \+(9|10)", clear)
    assert "  Min-Max, TopP&R P + R: " in clear
    assert "TopP&R R: " not in clear
    assert "of 28, where 1.4 would by chance" in clear  # 4 methods with scores, 7 gaps
    assert re.search(r"Real texts: .*TopP&R R -(9|10)\S* ± ", clear)
    assert "One seed of each model" in clear
    noisy = describe_table2(*made_up(gap=0.01, noise=0.1, n_seeds=1))
    assert "  Min-Max, TopP&R P: " not in noisy
    few = describe_table2(*made_up(gap=0.1, n_real=2))
    assert "Too few splits of real texts" in few


def test_prediction_interval_has_its_level() -> None:
    """Gaussian gaps of models and real texts alike: 28 correlated tests of level 5 % in each of 200 data sets.

    False alarms are 0.05 of all, with a standard error below 0.008; fixed seed, allowed are five of these.
    """
    rng = np.random.default_rng(1)
    alarms = []
    runs, _, _ = made_up(n_seeds=2, n_real=6)
    is_real = runs["method"] == "Real"
    columns = [c for c in runs if re.match(r"(topp|ipr)\.(precision|recall)/(male|female)|fid\.fid/(male|female)", c)]
    for _ in range(200):
        runs[columns] = 0.5 + 0.1 * rng.normal(size=(len(runs), len(columns)))
        runs.loc[runs["method"] == "Pretrained", columns] = np.nan
        match = re.search(
            r"splits of the same texts\): (\d+) of 28", table2_report._beyond_real(runs[~is_real], runs[is_real])
        )
        assert match is not None
        alarms.append(int(match[1]) / 28)
    assert abs(np.mean(alarms) - 0.05) < 0.04


def test_changes_are_told_from_noise_over_seeds() -> None:
    text = describe_table2(*made_up(gap=0.3, noise=0.005))
    changes = text.split("Changes of a disparity against Unconditional, paired by seed")[1]
    assert re.search(r"  Min-Max, δ of TopP&R P: \+(29|30)", changes)
    assert re.search(r"  Min-Max, δ of TopP&R P \+ R: \+(9|10)", changes)
    assert "Pretrained" not in changes.split("\n\n")[0]  # it has no scores
    assert "of 21, where 1.1 would by chance" in changes


def test_samples_are_text_of_one_line_each() -> None:
    rows = [
        (0, "Min-Max", "male", "Ada:\n  poet | #1"),
        (0, "Min-Max", "none", ""),
        (1, "Min-Max", "female", "Eve: judge"),
        (0, "Real", "male", "Max: king"),
    ]
    text = describe_samples(pd.DataFrame(rows, columns=["seed", "method", "group", "text"]))
    lines = [line for line in text.splitlines() if line]
    assert lines[2:] == [
        "## Min-Max, seed 0", "### male", "- Ada: poet | #1", "### no group", "- (empty)",
        "## Min-Max, seed 1", "### female", "- Eve: judge",
        "## Real, seed 0", "### male", "- Max: king",
    ]  # fmt: skip


def test_figure_draws_means_over_seeds() -> None:
    pytest.importorskip("matplotlib")
    runs, _, _ = made_up(gap=0.2, noise=0.0)
    runs.loc[(runs["method"] == "Min-Max") & (runs["seed"] == 0), "topp.precision/male"] = 0.6
    axes = plot_table2(runs)
    lines = [line.get_xydata() for line in axes.lines]
    assert len(lines) == 5  # without Pretrained
    np.testing.assert_allclose(lines[3], [[80.0, 75.0], [70.0, 85.0]])
    assert {text.get_text() for text in axes.texts} == {*METHODS[1:], "Real"}
