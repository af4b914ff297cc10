"""A model card's section: what the hub reads in front, what people read below."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.cli import main
from egtmetrics.report import render
from egtmetrics.results import UnreliableScoreWarning
from tests.report.test_tables import distance, stored

yaml: Any = pytest.importorskip("yaml")
N = 60
ODD = 'it\'s: "f" - [x] é #1 |'
"""Of a group, with what YAML takes for markup."""


def frame(name: str = "f", unassigned: int = 0, **options: Any) -> GenerativeMetricFrame:
    rng = np.random.default_rng(0)
    labels = [*np.repeat([name, "m"], N).tolist(), *[None] * unassigned]
    return GenerativeMetricFrame(
        metrics={"topp": stored, "gap": distance},
        real=rng.random((len(labels), 2)),
        fake=rng.random((len(labels), 2)),
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        random_state=0,
        **options,
    )


def parts(card: str) -> tuple[dict[str, Any], str]:
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    content: dict[str, Any] = yaml.safe_load(front)
    return content, body


def test_the_hub_reads_every_number() -> None:
    hub = pytest.importorskip("huggingface_hub")
    evaluated = frame()
    intervals, baseline = evaluated.interval(), evaluated.baseline(n_samples=20, n_splits=1)
    verdicts = {"topp": evaluated.certify(0.5, metric="topp")}
    provenance = {"real": {"file": "data/real.npz"}, "fake": {"file": "model-7.npz"}}
    card = render(evaluated, format="card", intervals=intervals, verdicts=verdicts, provenance=provenance)
    data = hub.ModelCard(card).data
    assert data.model_name == "model-7"
    results = data.eval_results
    assert {(one.dataset_type, one.dataset_name, one.task_type) for one in results} == {
        ("real", "data/real.npz", "other")
    }
    found = {(one.metric_type, (one.metric_args or {}).get("group")): one for one in results}
    assert len(found) == len(results)
    for group, row in evaluated.by_group.iterrows():
        for column, value in row.items():
            one = found[column, group]
            assert one.metric_value == value
            bounds = intervals.by_group.loc[(column, group)]
            assert (one.metric_args["low"], one.metric_args["high"]) == (bounds["low"], bounds["high"])
    for column, value in evaluated.overall.items():
        assert found[column, None].metric_value == value
    for (metric, disparity), value in evaluated.disparities()["value"].items():
        if metric != "proportions":
            assert found[disparity, None].metric_value == value
    verdict = found["topp_verdict", None]
    assert verdict.metric_value == verdicts["topp"].outcome
    assert verdict.metric_args["high"] == verdicts["topp"].high
    excess = [
        one
        for one in parts(render(evaluated, format="card", baseline=baseline))[0]["model-index"][0]["results"][0][
            "metrics"
        ]
        if one.get("args", {}).get("of") == "excess"
    ]
    assert [one["value"] for one in excess] == baseline.disparities()["value"].tolist()


def test_names_stay_names_and_the_body_is_the_markdown() -> None:
    evaluated = frame(ODD)
    content, body = parts(render(evaluated, format="card"))
    groups = {one.get("args", {}).get("group") for one in content["model-index"][0]["results"][0]["metrics"]}
    assert groups == {None, ODD, "m"}
    assert render(evaluated, format="markdown") in body


def test_what_is_left_out_is_counted() -> None:
    provenance = {
        "real": {"file": "real", "images": 123, "left_out": 2},
        "fake": {"file": "fake", "images": 123, "left_out": 0},
        "oracle": {"abstention_by_group": {"f": 0.125, "m": 0.0}},
    }
    content, body = parts(render(frame(unassigned=3), format="card", provenance=provenance))
    assert content["model-index"][0]["results"][0]["task"] == {"type": "unconditional-image-generation"}
    for sentence in (
        "3 generated samples are in no group",
        "2 files among the real ones were left out",
        "The oracle abstained on 12.5% of the real samples of f",
        "What the model refused to generate leaves no sample",
    ):
        assert sentence in body


def test_a_group_without_a_score_and_doubtful_scores_are_marked() -> None:
    def partial_score(real: Any, fake: Any) -> dict[str, float]:
        return {"a": math.nan if real.mean() > 1 else 0.5, "b": 1.0}

    labels = np.repeat(["f", "m"], 5)
    real = np.where(labels == "f", 0.0, 2.0)[:, None]
    evaluated = GenerativeMetricFrame(
        metrics={"p": partial_score}, real=real, fake=real, real_sensitive_features=labels,
        fake_sensitive_features=labels,
    )  # fmt: skip
    content, body = parts(render(evaluated, format="card"))
    entries = content["model-index"][0]["results"][0]["metrics"]
    assert ("p_a", "m") not in {(one["type"], one.get("args", {}).get("group")) for one in entries}
    assert "p has no score for m." in body

    rng = np.random.default_rng(0)
    groups = np.repeat(["f", "m"], 60)
    with pytest.warns(UnreliableScoreWarning):  # one dimension, where TopP&R's support is hardly any
        doubtful = GenerativeMetricFrame(
            metrics="topp", real=rng.normal(size=(120, 1)), fake=rng.normal(size=(120, 1)),
            real_sensitive_features=groups, fake_sensitive_features=groups, random_state=0,
        )  # fmt: skip
    entries = parts(render(doubtful, format="card"))[0]["model-index"][0]["results"][0]["metrics"]
    marked = {
        one["args"]["group"]
        for one in entries
        if one.get("args", {}).get("reliable") is False and "group" in one["args"]
    }
    assert marked == set(doubtful.tables["topp"].caveats)


def test_the_command_line_writes_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("real", "fake"):
        np.savez(f"{name}.npz", features=rng.normal(size=(120, 2)), g=np.repeat(["f", "m"], 60))
    arguments = ["evaluate", "real.npz", "fake.npz", "--real-groups", "g", "--fake-groups", "g", "--metrics", "fid"]
    more = ["--format", "card", "--tolerance", "fid=9", "--out", "card.md", "--out", "x.json"]
    assert main([*arguments, *more]) == 0
    card = Path("card.md").read_text()
    assert card == capsys.readouterr().out
    content, _ = parts(card)
    value = json.loads(Path("x.json").read_text())["by_group"]["m"]["fid"]
    entries = content["model-index"][0]["results"][0]["metrics"]
    assert value in [one["value"] for one in entries]
    assert [one["value"] for one in entries if one["type"] == "fid_verdict"] == ["within"]
    assert main([*arguments, "--out", "card.md"]) == 0
    assert Path("card.md").read_text().startswith("### Scores")
