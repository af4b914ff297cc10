"""Models side by side: the numbers are those of their frames, and a mark is a test."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from egtmetrics.groups import GenerativeMetricFrame, compare_frames, permutation_test_frames
from egtmetrics.groups.inference import holm
from egtmetrics.metrics import frechet_distance, improved_precision_recall
from egtmetrics.report.compare import compare_with_first, render_comparison, undecided

METRICS = {"ipr": improved_precision_recall, "fid": frechet_distance}
FID = "fid (squared feature units)"
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
def pair(frames: Any) -> Any:
    return {name: frames[name] for name in ("same", "unfair")}


@pytest.fixture(scope="module")
def tests(pair: Any) -> Any:
    return compare_with_first(pair, random_state=0)


def cells(text: str) -> dict[tuple[str, str], list[str]]:
    """The cells of the models by score and group, from Markdown."""
    found, score = {}, ""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith(("|:", "| score")):
            name, group, *values = (cell.strip() for cell in line.strip("|").split("|"))
            score = name or score
            found[score, group] = values
    return found


def test_rows_hold_the_scores_of_every_group_and_the_disparities(frames: Any) -> None:
    found = cells(render_comparison(frames, format="markdown").replace("†", ""))
    expected: dict[tuple[str, str], list[str]] = {}
    for column, name, text in (
        ("ipr_precision", "precision (%)", lambda value: f"{100 * value:.2f}"),
        ("ipr_recall", "recall (%)", lambda value: f"{100 * value:.2f}"),
        ("fid", FID, lambda value: f"{value:.4g}"),
    ):
        expected[name, "overall"] = [text(frame.overall[column]) for frame in frames.values()]
        for group in ("f", "m"):
            expected[name, group] = [text(frame.by_group.loc[group, column]) for frame in frames.values()]
    p, r = ([100 * frame.by_group[f"ipr_{score}"] for frame in frames.values()] for score in ("precision", "recall"))
    for name, gaps in {
        "precision": map(np.ptp, p),
        "recall": map(np.ptp, r),
        "precision + recall": [np.ptp(a + b) for a, b in zip(p, r, strict=True)],
        "precision gap + recall gap": [np.ptp(a) + np.ptp(b) for a, b in zip(p, r, strict=True)],
    }.items():
        expected[f"δ {name}", ""] = [f"{gap:.2f}" for gap in gaps]
    expected["δ fid", ""] = [f"{np.ptp(frame.by_group['fid']):.4g}" for frame in frames.values()]
    assert found == expected


def test_stars_and_daggers_are_tests(pair: Any, tests: Any) -> None:
    found = cells(render_comparison(pair, tests=tests, format="markdown"))
    names = {
        "ipr": {
            "precision": "precision (%)",
            "recall": "recall (%)",
            "delta_p": "δ precision",
            "delta_r": "δ recall",
            "delta_pr": "δ precision + recall",
            "delta_p_plus_delta_r": "δ precision gap + recall gap",
        },
        "fid": {"fid": FID, "delta_fid": "δ fid"},
    }
    assert len(tests) == sum(map(len, found.values())) // 2  # every cell of the second model
    for row in tests.itertuples():
        name = names[row.metric][row.score]
        group = row.group or ("" if name.startswith("δ") else "overall")
        cell = found[name, group][list(pair).index(row.model)]
        assert ("*" in cell) == (row.adjusted_p_value <= 0.05), row
    assert not any("*" in row[0] for row in found.values())
    assert found[FID, "f"][1].endswith("*")
    assert found["δ fid", ""][1].endswith("*†")
    assert not found[FID, "m"][1].endswith("*")
    for i, frame in enumerate(pair.values()):
        p_value = frame.test().loc[("fid", "delta_fid"), "adjusted_p_value"]
        assert found["δ fid", ""][i].endswith("†") == (p_value <= 0.05)


def test_the_note_says_what_was_tested(pair: Any, tests: Any) -> None:
    text = " ".join(render_comparison(pair, tests=tests).split())
    assert "14 tests, corrected together by Holm's method" in text
    assert "asks whether the model and same have equal scores, or equal δ, but for chance" in text
    assert "The halves of the real samples are the same for both models" in text
    assert "every score, overall and of every group, and every δ" in text
    assert "Proportions of groups are not tested" in text
    assert "permut" not in text
    permuted = compare_with_first(pair, n_permutations=279, random_state=0)
    text = " ".join(render_comparison(pair, tests=permuted).split())
    assert "asks whether the model and same generate the same distribution" in text
    assert "may have equal scores and still get a star" in text
    assert "permutes the samples that the scores were computed on, 279 times" in text


def test_intervals_stand_beside_the_scores_of_groups_and_the_disparities(pair: Any, tests: Any) -> None:
    intervals = {name: frame.interval(0.9) for name, frame in pair.items()}
    text = render_comparison(pair, tests=tests, intervals=intervals, format="markdown")
    found, plain = cells(text), cells(render_comparison(pair, tests=tests, format="markdown"))
    low, high = intervals["unfair"].by_group.loc[("ipr_recall", "f"), ["low", "high"]]
    assert found["recall (%)", "f"][1] == f"{plain['recall (%)', 'f'][1]} [{100 * low:.2f}, {100 * high:.2f}]"
    low, high = intervals["same"].disparities.loc[("fid", "delta_fid"), ["low", "high"]]
    assert found["δ fid", ""][0] == f"{plain['δ fid', ''][0]} [{low:.4g}, {high:.4g}]"
    assert found[FID, "overall"] == plain[FID, "overall"]
    assert "90 % intervals of each model alone" in text
    content = json.loads(render_comparison(pair, intervals=intervals, format="json"))
    assert content["models"]["unfair"]["intervals"]["level"] == 0.9


def test_points_that_may_differ_by_chance(tests: Any) -> None:
    assert undecided(tests, "ipr") == [("unfair", "m")]
    rows = [("precision", "f", 0.04), ("recall", "f", 0.06), ("precision", "m", 0.06), ("recall", "m", 0.05),
            ("precision", "x", 0.06), ("recall", "x", 0.06), ("recall", None, 0.04)]  # fmt: skip
    made = pd.DataFrame(rows, columns=["score", "group", "adjusted_p_value"]).assign(
        model="a", metric="ipr", reliable=True
    )
    assert undecided(made, "ipr") == [("a", "x")]


def test_without_tests_no_model_is_said_to_differ(frames: Any) -> None:
    text = render_comparison(frames)
    assert "*" not in text
    assert "The models were not tested against each other: a better score may be noise" in text
    text = render_comparison(frames, untested="too few samples")
    assert "The models were not tested against each other (too few samples): a better" in text
    assert json.loads(render_comparison(frames, untested="too few", format="json"))["untested"] == "too few"
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


@pytest.mark.parametrize("n_permutations", [None, 159])
def test_p_values_are_those_of_two_frames_corrected_together(n_permutations: int | None) -> None:
    fid = {name: make_frame(fake, metrics=frechet_distance) for name, fake in FAKES.items()}
    table = compare_with_first(fid, n_permutations=n_permutations, random_state=5)
    assert table["model"].tolist() == ["twin"] * 4 + ["unfair"] * 4
    for name, part in table.groupby("model"):
        pair = fid[name], fid["same"]
        if n_permutations is None:
            alone = compare_frames(*pair).drop(columns="adjusted_p_value")
        else:
            alone = permutation_test_frames(*pair, n_permutations=n_permutations, random_state=5)
        assert part[alone.columns].reset_index(drop=True).equals(alone)
    np.testing.assert_array_equal(table["adjusted_p_value"], holm(table["p_value"].to_numpy()))
    null_hypothesis = "equal expected scores" if n_permutations is None else "equal laws"
    assert table.attrs == {"null_hypothesis": null_hypothesis, "n_permutations": n_permutations}
    differing = table[table["adjusted_p_value"] <= 0.05]
    assert differing[["model", "score", "group"]].to_numpy().tolist() == [
        ["unfair", "fid", None], ["unfair", "fid", "f"], ["unfair", "delta_fid", None]
    ]  # fmt: skip


def test_too_few_permutations_are_refused() -> None:
    fid = {name: make_frame(fake, metrics=frechet_distance) for name, fake in FAKES.items()}
    with pytest.raises(ValueError, match=r"n_permutations=158 cannot show .* 8 tests .* at least 159"):
        compare_with_first(fid, n_permutations=158)


def test_what_has_no_score_is_not_tested() -> None:
    labels = np.where(np.arange(120) == 0, "x", GROUPS)
    frames = {
        name: GenerativeMetricFrame(
            metrics=frechet_distance, real=REAL, fake=fake, missing_groups="nan",
            real_sensitive_features=GROUPS, fake_sensitive_features=labels,
        )
        for name, fake in {"same": FAKES["same"], "unfair": FAKES["unfair"]}.items()
    }  # fmt: skip
    tests = compare_with_first(frames, n_permutations=59)  # of 5 tests two are of a group without a score
    assert tests["p_value"].isna().tolist() == [False, False, False, True, True]
    rows = json.loads(render_comparison(frames, tests=tests, format="json"))["tests"]
    assert rows[3]["group"] == "x"
    assert rows[3]["adjusted_p_value"] is None


def test_json_holds_every_frame_and_test(pair: Any, tests: Any) -> None:
    content = json.loads(render_comparison(pair, tests=tests, format="json", provenance={"real": {"file": "r"}}))
    assert content["models"]["unfair"] == json.loads(json.dumps(pair["unfair"].to_dict()))
    assert len(content["tests"]) == len(tests)
    for row, expected in zip(content["tests"], tests.to_dict("records"), strict=True):
        assert row == expected
    assert content["real"] == {"file": "r"}
    assert content["null_hypothesis"] == "equal expected scores"


def test_what_cannot_be_compared_is_refused(frames: Any) -> None:
    with pytest.raises(ValueError, match="1 models; pass two or more"):
        render_comparison({"same": frames["same"]})
    other = make_frame(FAKES["twin"], np.where(GROUPS == "f", "a", "b"))
    with pytest.raises(ValueError, match=r"'other' has the groups \['a', 'b'\] and 'same' has \['f', 'm'\]"):
        render_comparison({"same": frames["same"], "other": other})
    with pytest.raises(ValueError, match="format='html' is unknown"):
        render_comparison(frames, format="html")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 models"):
        compare_with_first({"same": frames["same"]})


def test_models_of_unequal_sizes_are_told(frames: Any) -> None:
    shorter = GenerativeMetricFrame(
        metrics=METRICS, real=REAL, fake=FAKES["twin"][:110], random_state=0, backend="reference",
        real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS[:110],
    )  # fmt: skip
    text = render_comparison({"same": frames["same"], "shorter": shorter})
    assert "(in all: same 120 and 120, shorter 120 and 110; m: same 60 and 60, shorter 60 and 50)" in " ".join(
        text.split()
    )
    assert "different numbers" not in render_comparison(frames)
    moved = GROUPS.copy()
    moved[0] = "m"
    samples = {name: make_frame(FAKES[name], metrics="fid") for name in ("same",)}
    samples["moved"] = GenerativeMetricFrame(
        metrics="fid", real=REAL, fake=FAKES["twin"], random_state=0, backend="reference",
        real_sensitive_features=GROUPS, fake_sensitive_features=moved,
    )  # fmt: skip
    tests = compare_with_first(samples)  # without a warning: the table says it
    text = " ".join(render_comparison(samples, tests=tests).split())
    assert "(f: same 60 and 60, moved 60 and 59; m: same 60 and 60, moved 60 and 61)" in text


def test_saved_models_are_compared(frames: Any) -> None:
    """What ``egtmetrics evaluate --out`` wrote can be compared later, without the samples."""
    saved = {name: GenerativeMetricFrame.from_json(frame.to_json()) for name, frame in frames.items()}
    text = render_comparison(saved, format="markdown")
    assert cells(text) == cells(render_comparison(frames, format="markdown").replace("†", ""))
    assert "### Improved precision and recall" in text
    assert "### Fréchet distance" in text
    assert "No † for twin: " in text
    assert "this frame was read from JSON" in text
    content = json.loads(render_comparison(saved, format="json"))
    assert content["models"] == {name: json.loads(frame.to_json()) for name, frame in frames.items()}
