"""The same samples under several encoders or options."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.groups import compare_views
from egtmetrics.groups.inference import holm
from egtmetrics.metrics import improved_precision_recall
from egtmetrics.results import MetricResult, score

GROUPS = np.repeat(["f", "m"], 120)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result(MetricResult):
    mean: float = score(label="mean", better="higher")


def mean(real: Any, fake: Any) -> Result:
    return Result(mean=float(fake.mean() - real.mean()), backend="numpy", n_real=len(real), n_fake=len(fake))


def number(real: Any, fake: Any) -> float:
    return float(fake.mean())


def frame(shift: float, *, group: str = "f", metrics: Any = None, labels: Any = GROUPS, seed: int = 0) -> Any:
    """Real and generated samples of one law but for one group, whose generated ones are shifted."""
    real, fake = np.random.default_rng(seed).normal(size=(2, len(GROUPS), 2))
    fake[group == np.asarray(labels)] += shift
    return GenerativeMetricFrame(
        metrics={"s": mean} if metrics is None else metrics,
        real=real,
        fake=fake,
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        random_state=0,
    )


@pytest.fixture(scope="module")
def views() -> dict[str, Any]:
    return {"a": frame(-1.0), "b": frame(0.0), "c": frame(-0.8, seed=1)}


def test_a_gap_survives_two_of_three(views: dict[str, Any]) -> None:
    found = compare_views(views, of="encoder")
    assert found.sentences[0].startswith(
        "s (mean): under 2 of 3 encoders (a, c) group f is worse off by more than noise; under b the gap is not "
        "distinguishable from noise."
    )
    assert found.gaps["beyond_noise"].tolist() == [True, False, True]
    assert found.agreement.loc[("s", "f"), "n_beyond_noise"] == 2
    assert found.agreement["n_against"].sum() == 3
    assert "3 encoders" in repr(found)
    assert "<h4>Agreement" in found._repr_html_()


def test_every_gap_is_that_of_its_own_frame(views: dict[str, Any]) -> None:
    found = compare_views(views)
    for name, view in views.items():
        row, test = found.gaps.loc[("s", name)], view.test().loc[("s", "delta_mean")]
        assert (row["value"], row["p_value"]) == (test["value"], test["p_value"])  # two groups: one pair
        error = math.sqrt(view.interval().variance.loc[("s", "delta_mean"), "total"])
        assert row["in_errors"] == pytest.approx(row["value"] / error)
    assert found.gaps["adjusted_p_value"].tolist() == holm(found.gaps["p_value"].to_numpy()).tolist()
    joint = found.joint.loc["s"]
    assert joint["p_any"] == found.gaps["adjusted_p_value"].min()
    assert joint["p_every"] in (1.0, found.gaps["p_value"].max())


def test_views_that_agree_and_views_that_do_not() -> None:
    found = compare_views({"a": frame(-1.0), "b": frame(-0.9, seed=1)}, of="encoder")
    assert found.sentences == ("s (mean): under all 2 encoders group f is worse off by more than noise.",)
    assert found.joint.loc["s", "against"] == "f"
    assert found.joint.loc["s", "p_every"] == found.gaps["p_value"].max() < 0.001
    found = compare_views({"a": frame(-1.0), "b": frame(-0.9, group="m", seed=1)}, of="encoder")
    assert found.sentences[0].endswith("so the encoders disagree on the group.")
    assert found.joint["against"].tolist() == [None]
    assert found.joint["p_every"].tolist() == [1.0]
    found = compare_views({"a": frame(0.0), "b": frame(0.0, seed=3)}, of="encoder", level=0.999)
    assert "under none of 2 encoders is the gap distinguishable from noise" in found.sentences[0]


def test_the_groups_that_attain_the_gap_are_those_that_are_tested() -> None:
    """A small and certain difference does not lend its p-value to a large and uncertain one."""
    labels = np.repeat(["f", "m", "x"], 80)
    rng = np.random.default_rng(0)
    fake = np.where(labels == "x", 20.0, 0.01)[:, None] * rng.normal(size=(240, 1))
    fake[labels == "m"] += 0.5
    fake[labels == "x"] += 1.0 - fake[labels == "x"].mean()
    one = GenerativeMetricFrame(
        metrics={"s": number}, real=np.zeros((240, 1)), fake=fake, real_sensitive_features=labels,
        fake_sensitive_features=labels, random_state=0,
    )  # fmt: skip
    found = compare_views({"a": one, "b": one}).gaps
    assert found["larger"].tolist() == ["x", "x"]
    assert one.test()["p_value"].iloc[0] < 0.001 < 0.1 < found["p_value"].iloc[0]


def test_baselines_of_several_values_of_an_option() -> None:
    options = {f"k={k}": {"ipr": partial(improved_precision_recall, n_neighbors=k)} for k in (2, 4)}
    baselines = {name: frame(3.0, metrics=metrics).baseline(n_splits=1) for name, metrics in options.items()}
    found = compare_views(baselines, of="k", level=0.9)
    assert found.gaps["disparity"].tolist() == ["delta_pr", "delta_pr"]
    assert found.joint.loc["ipr", "against"] == "f"
    assert found.gaps["value"].tolist() == [one.test().loc[("ipr", "delta_pr"), "value"] for one in baselines.values()]


def test_a_score_that_is_not_better_either_way_has_a_larger_one() -> None:
    found = compare_views({"a": frame(2.0, metrics=number), "b": frame(2.0, metrics=number, seed=1)})
    assert found.sentences == ("number (number): under all 2 views group f has the larger number by more than noise.",)


def test_several_sensitive_features_and_json() -> None:
    labels = pd.DataFrame({"sex": GROUPS, "age": ["old"] * len(GROUPS)})
    real, fake = np.random.default_rng(0).normal(size=(2, len(GROUPS), 2))
    one = GenerativeMetricFrame(
        metrics={"s": mean}, real=real, fake=fake, real_sensitive_features=labels, fake_sensitive_features=labels,
        random_state=0,
    )  # fmt: skip
    found = compare_views({"a": one, "b": one}).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {row["group"] for row in found["agreement"]} == {"f, old", "m, old"}
    assert found["gaps"][0]["against"] in ("f, old", "m, old")


def test_the_figure_has_a_row_for_every_gap(views: dict[str, Any]) -> None:
    axes = compare_views(views, of="encoder").plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["s: a", "s: b", "s: c"]
    assert [text.get_text() for text in axes.get_legend().get_texts()][-1] == "within noise"


def test_what_cannot_be_compared_is_refused(views: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="views has 1 encoders, but a comparison needs two"):
        compare_views({"a": views["a"]}, of="encoder")
    with pytest.raises(TypeError, match=r"views\['b'\] is a float; pass frames"):
        compare_views({"a": views["a"], "b": 1.0})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="a is a GenerativeMetricFrame, b is a Baseline"):
        compare_views({"a": views["a"], "b": views["b"].baseline()})
    other = frame(0.0, labels=np.repeat(["f", "m"], [100, 140]))
    with pytest.raises(
        ValueError, match=r"views\['b'\] has not the groups .* f \[100, 100\].* instead of f \[120, 120\]"
    ):
        compare_views({"a": views["a"], "b": other})
    with pytest.raises(ValueError, match=r"views\['b'\] has the metrics ipr instead of s"):
        compare_views({"a": views["a"], "b": frame(0.0, metrics="ipr")})
    read = GenerativeMetricFrame.from_json(views["a"].to_json())
    with pytest.raises(ValueError, match="view 'b': "):
        compare_views({"a": views["a"], "b": read})


def test_rounding_is_no_gap() -> None:
    """As with 0.3 and 0.1 + 0.2."""
    scores = iter([0.3, 0.1 + 0.2])

    def metric(real: Any, fake: Any) -> float:
        return next(scores) if len(fake) == 120 else float(fake.mean())  # of groups; of all, and of parts of groups

    one = frame(0.0, metrics=metric)
    assert one.disparities()["larger"].iloc[0] == "m"
    found = compare_views({"a": one, "b": one})
    assert found.gaps["against"].tolist() == [None, None]
    assert found.agreement["n_against"].tolist() == [0, 0]


@pytest.mark.filterwarnings(
    "ignore::egtmetrics.groups.MissingScoreWarning", "ignore::egtmetrics.results.UnreliableScoreWarning"
)
def test_views_without_a_gap_or_with_one_that_cannot_be_relied_on_are_named() -> None:
    def refuses(real: Any, fake: Any) -> Result:
        if fake.mean() < -0.5:
            raise ValueError("too low")
        return mean(real, fake)

    def doubtful(real: Any, fake: Any) -> Result:
        return dataclasses.replace(mean(real, fake), caveats=("of few rows",))

    views = {
        name: frame(-1.0, metrics={"s": metric}) for name, metric in (("a", mean), ("b", refuses), ("c", doubtful))
    }
    found = compare_views(views, of="encoder")
    assert found.sentences == (
        "s (mean): under 1 of 3 encoders (a) group f is worse off by more than noise; under c the gap cannot be relied "
        "on; under b there is no gap to test. As measured, the gap is against f under 2 of 3.",
    )
    assert found.joint.loc["s", "n_views"] == 1
    assert math.isnan(found.joint.loc["s", "p_every"])
    assert found.agreement.loc[("s", "f")].tolist() == [2, 1]
    assert found.to_dict()["gaps"][1]["value"] is None
    found.plot()
