"""Models side by side: the numbers are those of their frames, and a mark is a test."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame, frechet_distance, improved_precision_recall
from egtmetrics.groups import compare_models
from egtmetrics.report.compare import compare_with_first, render_comparison

METRICS = {"ipr": improved_precision_recall, "fid": frechet_distance}
GROUPS = np.repeat(["f", "m"], 60)
RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(120, 3))
FAKES = {
    "same": RNG.normal(size=(120, 3)),
    "twin": RNG.normal(size=(120, 3)),
    "unfair": RNG.normal(size=(120, 3)) + 2.0 * (GROUPS == "f")[:, None],
}


def make_frame(fake: Any, groups: Any = GROUPS, **options: Any) -> GenerativeMetricFrame:
    arguments = {"metrics": METRICS, "random_state": 0, "backend": "reference"} | options
    return GenerativeMetricFrame(
        real=REAL, fake=fake, real_sensitive_features=groups, fake_sensitive_features=groups, **arguments
    )


@pytest.fixture(scope="module")
def frames() -> dict[str, GenerativeMetricFrame]:
    return {name: make_frame(fake) for name, fake in FAKES.items()}


@pytest.fixture(scope="module")
def tests() -> Any:
    return compare_with_first(REAL, FAKES, {"fid": frechet_distance}, {"fid": ["fid"]}, random_state=0)


def rows(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_rows_hold_the_scores_the_worst_group_and_the_disparities(frames: Any, tests: Any) -> None:
    found = rows(render_comparison(frames, tests=tests))
    for name, frame in frames.items():
        p, r = (100 * frame.by_group[f"ipr_{score}"] for score in ("precision", "recall"))
        overall = 100 * frame.overall
        precision, recall = next(row for row in found if row[0] == name)[1:], frame.by_group["fid"]
        assert precision[:4] == [f"{value:.2f}" for value in (overall.iloc[0], p.min(), overall.iloc[1], r.min())]
        gaps = [np.ptp(p), np.ptp(r), np.ptp(p + r), np.ptp(p) + np.ptp(r)]
        assert [cell.removesuffix("†") for cell in precision[4:]] == [f"{gap:.2f}" for gap in gaps]
        fid = [row for row in found if row[0] == name][1][1:]
        assert fid[1] == f"{recall.max():.4g}"  # less is better
        assert fid[2].removesuffix("†") == f"{np.ptp(recall):.4g}"


def test_marks_are_tests(frames: Any, tests: Any) -> None:
    fid = {row[0]: row[1:] for row in rows(render_comparison(frames, tests=tests)) if len(row) == 4}
    assert fid["unfair"][0].endswith("*")
    assert not fid["same"][0].endswith("*")
    assert not fid["twin"][0].endswith("*")
    for name, frame in frames.items():
        p_value = frame.test().loc[("fid", "delta_fid"), "adjusted_p_value"]
        assert fid[name][2].endswith("†") == (p_value <= 0.05)
    assert fid["unfair"][2].endswith("†")


def test_without_tests_no_model_is_said_to_differ(frames: Any) -> None:
    text = render_comparison(frames)
    assert "*" not in text
    assert "No test between models was made" in text
    few = {
        name: GenerativeMetricFrame(
            metrics=frechet_distance,
            real=REAL[::2],
            fake=fake[::2],
            real_sensitive_features=GROUPS[::2],
            fake_sensitive_features=GROUPS[::2],
        )
        for name, fake in FAKES.items()
    }
    text = render_comparison(few)
    assert "No † for twin: group 'f' has 30 samples on one side" in text


def test_p_values_are_those_of_compare_models_corrected(tests: Any) -> None:
    table = compare_with_first(
        REAL, FAKES, {"ipr": partial(improved_precision_recall, backend="reference")}, {"ipr": ["precision", "recall"]},
        n_permutations=79, random_state=5,
    )  # fmt: skip
    assert table.index.tolist() == [(m, "ipr", s) for m in ("twin", "unfair") for s in ("precision", "recall")]
    metric = partial(improved_precision_recall, backend="reference")
    one = compare_models(
        REAL, FAKES["unfair"], FAKES["same"], metric=metric, score="recall", n_permutations=79, random_state=5
    )
    assert table.loc[("unfair", "ipr", "recall"), "p_value"] == one.p_value
    assert table.loc[("unfair", "ipr", "recall"), "difference"] == one.statistic
    assert (table["adjusted_p_value"] >= table["p_value"]).all()
    assert table["adjusted_p_value"].min() == pytest.approx(4 / 80)  # the smallest times the number of tests
    assert tests.attrs["n_permutations"] == 199


def test_json_holds_every_frame_and_test(frames: Any, tests: Any) -> None:
    content = json.loads(render_comparison(frames, tests=tests, format="json", provenance={"real": {"file": "r"}}))
    assert content["models"]["unfair"] == json.loads(json.dumps(frames["unfair"].to_dict()))
    assert [row["model"] for row in content["tests"]] == ["twin", "unfair"]
    assert content["real"] == {"file": "r"}


def test_what_cannot_be_compared_is_refused(frames: Any) -> None:
    with pytest.raises(ValueError, match="1 models; pass two or more"):
        render_comparison({"same": frames["same"]})
    other = make_frame(FAKES["twin"], np.where(GROUPS == "f", "a", "b"))
    with pytest.raises(ValueError, match=r"'other' has the groups \['a', 'b'\] and 'same' has \['f', 'm'\]"):
        render_comparison({"same": frames["same"], "other": other})
    with pytest.raises(ValueError, match="format='html' is unknown"):
        render_comparison(frames, format="html")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"n_permutations=19 cannot show .* 2 tests .* at least 39"):
        compare_with_first(REAL, FAKES, {"fid": frechet_distance}, {"fid": ["fid"]}, n_permutations=19)
    with pytest.raises(ValueError, match="1 models"):
        compare_with_first(REAL, {"same": REAL}, METRICS, {"ipr": [], "fid": []})


def test_models_of_unequal_sizes_are_told(frames: Any) -> None:
    shorter = GenerativeMetricFrame(
        metrics=METRICS, real=REAL, fake=FAKES["twin"][:110], random_state=0, backend="reference",
        real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS[:110],
    )  # fmt: skip
    text = render_comparison({"same": frames["same"], "shorter": shorter})
    assert "(same 120 and 120, shorter 120 and 110)" in text
    assert "different numbers" not in render_comparison(frames)
