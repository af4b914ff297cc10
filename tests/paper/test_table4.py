"""Table 4: degradations against closed forms, the search, the command end to end, killed and resumed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics.cli import main
from egtmetrics.paper import table1, table4
from egtmetrics.paper.datasets import ImageData, load_image_data
from egtmetrics.paper.table4 import (
    EXAMPLES,
    UNDEGRADED,
    Table4,
    Table4Settings,
    closest,
    duplicates,
    reproduce_table4,
)
from egtmetrics.paper.table4_report import describe_table4, draw_samples
from tests._killing import kill_when

MODEL = table1.Table1Settings(
    n_seeds=1, pretrain_steps=240, batch_size=128, learning_rate=3e-3, half_life=10_000.0, n_real=150, sampler_steps=6,
    network={"architecture": "mlp", "width": 64, "n_blocks": 1}, oracle_components=200,
)  # fmt: skip
TINY = Table4Settings(
    model=MODEL,
    flip=False,
    n_splits=2,
    n_search_splits=1,
    noises=(0.0, 0.15, 0.3, 0.6),
    distinct=(6, 12),
    n_bootstrap=20,
)
REAL = dataclasses.replace(TINY, model=None, max_samples=120)
COMMAND = ["reproduce", "table4", "--data", "digits", "--quick"]


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_image_data("digits")


@pytest.fixture(scope="module")
def finished(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table4]:
    folder = tmp_path_factory.mktemp("table4")
    return folder, reproduce_table4(digits, folder, settings=TINY)


def experiment_with(data: ImageData, **options: Any) -> table4._Experiment:
    """Of real images."""
    return table4._Experiment(data, table4._halved(data), dataclasses.replace(REAL, **options))


@pytest.fixture
def experiment(digits: ImageData) -> table4._Experiment:
    return experiment_with(digits)


@given(n=st.integers(1, 60), share=st.floats(0.0, 0.99), smaller=st.floats(0.0, 1.0), seed=st.integers(0, 9))
def test_duplicates(n: int, share: float, smaller: float, seed: int) -> None:
    sources, flipped = duplicates(n, share, np.random.default_rng(seed))
    kept = sources == np.arange(n)
    assert kept.sum() == max(n - round(share * n), 1)
    assert kept[sources].all()  # copies are of what is kept
    assert not flipped[kept].any()
    fewer, _ = duplicates(n, smaller * share, np.random.default_rng(seed))
    assert (fewer == np.arange(n))[kept].all()  # a larger share keeps a part of what a smaller one keeps


def test_duplicates_are_spread_and_half_of_them_flipped() -> None:
    sources, flipped = duplicates(20_000, 0.75, np.random.default_rng(0))
    copies = sources != np.arange(20_000)
    # Binomial with 15,000 trials: five standard deviations, exceeded once in a million; the seed is fixed.
    assert abs(flipped[copies].mean() - 0.5) < 5 * 0.5 / np.sqrt(15_000)
    counts = np.bincount(sources[copies])[np.unique(sources)]
    assert counts.mean() == 3.0
    assert counts.var() == pytest.approx(3.0, rel=0.15)  # Poisson; relative deviation of the estimate 2.2 %


def test_halves_are_disjoint_of_one_size_and_in_their_group(experiment: table4._Experiment) -> None:
    for split in (0, 1):
        for group in (0, 1):
            real, other = experiment._rows(split, group)
            assert (len(real), len(other), len({*real, *other})) == (120, 120, 240)
            assert (experiment.data.groups[[*real, *other]] == group).all()
    assert not np.array_equal(experiment._rows(0, 0)[0], experiment._rows(1, 0)[0])


def test_all_images_are_used_where_they_are_few(digits: ImageData) -> None:
    everything = experiment_with(digits, max_samples=10**6)
    assert everything.n == 896 // 2
    assert everything.sizes == [448, 446]  # 901 to 896
    assert everything.worst == 1


def test_degraded_images(digits: ImageData) -> None:
    flipping = experiment_with(digits, flip=True)
    clean = flipping._degraded(0, 1, (0.0, 0.0))
    np.testing.assert_array_equal(clean, digits.images[flipping._rows(0, 1)[1]])
    copied = flipping._degraded(0, 1, (0.0, 0.5))
    changed = np.flatnonzero((copied != clean).any(axis=(1, 2, 3)))
    assert 0 < len(changed) <= 60
    originals = {bytes(image) for image in clean}
    flips = [bytes(copied[i]) not in originals and bytes(copied[i, ..., ::-1].copy()) in originals for i in changed]
    assert all(flip or bytes(copied[i]) in originals for flip, i in zip(flips, changed, strict=True))
    assert 15 < sum(flips) < 45  # of 60, half: four standard deviations


def test_example_2_leaves_so_many_different_samples_of_the_smallest_group(experiment: table4._Experiment) -> None:
    by_group = experiment.strong(0.3, 6)
    assert by_group[0] == (0.0, 0.0)
    images = experiment._degraded(0, experiment.worst, by_group[experiment.worst])
    assert len(np.unique(images.reshape(120, -1), axis=0)) == 6


def test_noise_has_its_strength_and_is_stored_as_files_are() -> None:
    grey = ImageData(
        name="grey",
        images=np.full((400, 3, 16, 16), 0.5, dtype=np.float32),
        groups=np.arange(400) % 2,
        group_names=("a", "b"),
        n_levels=255,
        mean=0.0,
        spread=1.0,
        encode=lambda images: np.asarray(images, dtype=np.float64).reshape(len(images), -1),
        facts={},
    )
    experiment = experiment_with(grey)
    noisy = experiment._degraded(0, 0, (0.1, 0.0))
    # 76,800 values: a relative deviation of 0.26 % of the estimate; a rounding of 0.3 % of a level's variance.
    assert float((noisy - 0.5).std()) == pytest.approx(0.1, rel=0.015)
    np.testing.assert_allclose(noisy * 255, np.rint(noisy * 255), atol=1e-4)
    np.testing.assert_allclose(experiment._degraded(0, 0, (0.05, 0.0)) - 0.5, (noisy - 0.5) / 2, atol=1 / 255)
    strong = experiment._degraded(0, 0, (3.0, 0.0))
    assert (strong.min(), strong.max()) == (0.0, 1.0)
    assert grey.images.min() == grey.images.max() == 0.5  # not changed in place


@given(seed=st.integers(0, 1000), noises=st.lists(st.integers(0, 50), min_size=2, max_size=5, unique=True).map(sorted))
def test_curves_that_cross_are_found_where_they_do(seed: int, noises: list[int]) -> None:
    """The second curve is the first one, reached at a larger noise."""
    rng = np.random.default_rng(seed)
    mild = -np.sort(-rng.random((len(noises), 2)), axis=0)
    strong = np.concatenate([mild[:1] + 1.0, mild[:-1]])
    first, second, distance = closest(mild, strong, noises)
    assert noises[0] <= first < second <= noises[-1]
    assert distance == pytest.approx(0.0, abs=1e-9)


def test_curves_that_do_not_meet_are_compared_where_they_are_closest() -> None:
    mild = np.array([[0.9, 0.6], [0.5, 0.7]])
    first, second, distance = closest(mild, np.array([[0.9, 0.1], [0.6, 0.3]]), [0.0, 1.0])
    assert (first, second) == (pytest.approx(0.0), 1.0)
    assert distance == pytest.approx(0.3)


def test_results(finished: tuple[Path, Table4], digits: ImageData) -> None:
    """The group that Example 2 leaves as it is scores as before; the other loses what the overall scores hide."""
    folder, table = finished
    scores = table.scores.set_index(["example", "split"])
    assert scores.index.tolist() == [(example, split) for split in (0, 1) for example in (UNDEGRADED, *EXAMPLES)]
    plain, mild, strong = (scores.loc[example] for example in (UNDEGRADED, *EXAMPLES))
    assert (scores["mgo"] == 0.0).all()
    np.testing.assert_allclose(scores["ego"], 150 / 200 - 50 / 200)  # three to one
    for score in ("topp.precision", "topp.recall", "ipr.precision", "ipr.recall"):
        pd.testing.assert_series_equal(strong[f"{score}/0-4"], plain[f"{score}/0-4"])
    assert (strong["topp.recall/5-9"] < mild["topp.recall/5-9"] - 0.2).all()
    assert (strong["topp.precision/5-9"] < mild["topp.precision/5-9"]).all()
    np.testing.assert_allclose(strong["topp.delta_r"], (strong["topp.recall/0-4"] - strong["topp.recall/5-9"]).abs())
    found = table.facts["search"]
    assert (strong["noise"] == found["noise"]).all()
    np.testing.assert_allclose(strong["share"], 1 - found["distinct"] / 150)
    assert (mild["noise"] == found["mild_noise"]).all()
    assert found["noise"] > found["mild_noise"]
    assert table.facts["degraded"] == "5-9"
    pd.testing.assert_frame_equal(pd.read_csv(folder / "scores.csv"), table.scores)
    shapes = {example: images.shape for example, images in table.samples.items()}
    assert shapes == dict.fromkeys(EXAMPLES, (2, 20, 1, 8, 8))
    with np.load(folder / "model" / "samples.npz") as kept:
        assert np.bincount(kept["groups"]).tolist() == [450, 150]
        levels = {bytes(image) for image in kept["levels"]}
    shown = np.round(table.samples[EXAMPLES[1]][0] * digits.n_levels).astype(np.uint8)
    assert {bytes(image) for image in shown} <= levels


def test_search_measures_on_other_splits_than_it_reports(finished: tuple[Path, Table4]) -> None:
    folder, table = finished
    names = {path.stem for path in folder.glob("search*.json")}
    assert {name.split("-")[0] for name in names} == {"search2"}
    tried = {int(name.split("-")[2]) for name in names if "Example 2" in name}
    assert table.facts["search"]["distinct"] in tried
    pairs = [json.loads((folder / f"search2-Example 1-{noise:g}.json").read_text()) for noise in TINY.noises]
    assert pairs[-1][0] < pairs[0][0]  # strong noise lowers precision


def test_killed_and_resumed_gives_the_same(finished: tuple[Path, Table4], tmp_path: Path) -> None:
    """Killed in the search; that a training resumes is tested with Table 1."""
    expected, _ = finished
    out = tmp_path / "out"
    killed_at = out / "search2-Example 1-0.3.json"
    kill_when(killed_at.exists, [sys.executable, __file__, out])  # the last lines of this file
    assert not (out / "scores.csv").exists()
    reproduce_table4(load_image_data("digits"), out, settings=TINY)
    assert (out / "scores.csv").read_bytes() == (expected / "scores.csv").read_bytes()


def test_damaged_samples_are_refused(finished: tuple[Path, Table4], digits: ImageData, tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "out")
    (tmp_path / "out" / "model" / "samples.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"samples\.npz is damaged .* delete it to generate the samples again"):
        reproduce_table4(digits, tmp_path / "out", settings=TINY)


def test_real_images_need_no_model(digits: ImageData, tmp_path: Path) -> None:
    table = reproduce_table4(digits, tmp_path, settings=dataclasses.replace(REAL, n_splits=1, distinct=(6, 8)))
    assert not (tmp_path / "model").exists()
    assert "none: real images play the samples" in table.facts["notes"]["model"]
    assert table.scores["ego"].max() < 0.01
    with pytest.raises(ValueError, match=r"a checkpoint is of a model, but settings\.model is None"):
        reproduce_table4(digits, tmp_path, settings=REAL, checkpoint="some.safetensors")


def test_command(
    finished: tuple[Path, Table4], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a finished folder: every stage is taken from there, and the text is that of the results."""
    folder, table = finished
    monkeypatch.setattr(table4, "QUICK", TINY)
    monkeypatch.setitem(table4.MODELS, "digits", MODEL)
    for name in ("_overall", "scores"):
        monkeypatch.setattr(table4._Experiment, name, lambda *_: pytest.fail("computed again"))
    assert main([*COMMAND, "--out", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == describe_table4(table.scores, table.facts)
    assert all(f"wrote {folder / name}" in err for name in ("table4.md", "table4.png", "scores.csv"))
    assert (folder / "table4.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "table4.md").read_text() == describe_table4(table.scores, table.facts, markdown=True)
    assert main([*COMMAND, "--quiet", "--out", str(folder)]) == 0
    assert capsys.readouterr() == (out, "")
    assert main(["reproduce", "table4", "--data", "digits", "--out", str(folder)]) == 2
    assert "holds a run with other settings: n_splits was 2, is 20; " in capsys.readouterr().err
    assert main([*COMMAND, "--samples", "real", "--out", str(folder)]) == 2
    assert "model was " in capsys.readouterr().err
    assert main([*COMMAND, "--checkpoint", "some.safetensors", "--out", str(folder)]) == 2
    assert "--checkpoint belongs to --data ffhq with the samples of a model" in capsys.readouterr().err


def test_a_folder_belongs_to_its_images(finished: tuple[Path, Table4], digits: ImageData) -> None:
    other = dataclasses.replace(digits, images=digits.images[..., ::-1])
    with pytest.raises(ValueError, match="holds a run with other settings: images was "):
        reproduce_table4(other, finished[0], settings=TINY)


def test_too_few_images(digits: ImageData) -> None:
    with pytest.raises(
        ValueError, match=r"there are 10 images of the smallest group to compare, too few for TopP&R in 2"
    ):
        experiment_with(digits, max_samples=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_splits": 0}, "n_splits"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"mild_share": 1.0}, "mild_share"),
        ({"noises": (0.2, 0.1)}, "noises=.* does not rise from 0"),
        ({"distinct": (0, 5)}, "distinct=.* does not rise from 1"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table4Settings(**change)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["digits", "x"], "digits takes no path, got 1"),
        (["emoji"], "emoji takes one path, as in --data emoji PATH, got 0"),
        (["ffhq", "a", "b"], "ffhq takes one path, as in --data ffhq PATH, got 2"),
        (["faces"], "unknown data 'faces'; expected digits, emoji, ffhq"),
    ],
)
def test_data_argument(data: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "table4", "--out", str(tmp_path / "out"), "--data", *data])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reproduce", "table4", "--help"])
    assert "egtmetrics reproduce table4 --data digits --quick --out table4-digits" in capsys.readouterr().out


def made_up() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for split in (0, 1):
        for i, example in enumerate((UNDEGRADED, *EXAMPLES)):
            row: dict[str, Any] = {"split": split, "example": example, "mgo": 0.0, "ego": 0.0}
            for j, (score, who) in enumerate((s, w) for s in ("precision", "recall") for w in ("all", "x", "y")):
                row[f"topp.{score}/{who}"] = 0.9 - 0.1 * i - 0.01 * j - 0.02 * split
                row[f"ipr.{score}/{who}"] = 0.5
            row |= {f"{metric}.{gap}": 0.25 for metric in ("topp", "ipr") for gap in ("delta_p", "delta_r", "delta_pr")}
            rows.append(row)
    return pd.DataFrame(rows)


def test_tables_of_known_scores() -> None:
    settings = {"mild_share": 0.2, "n_search_splits": 3, "tolerance": 0.01, "flip": False}
    facts: dict[str, Any] = {
        "groups": ["x", "y"],
        "degraded": "y",
        "settings": settings,
        "search": {"mild_noise": 0.0625, "noise": 0.25, "distinct": 6, "distance": 0.004},
        "notes": {"features": "pixels"},
    }
    lines = describe_table4(made_up(), facts).splitlines()
    assert lines[0] == (
        "Verdict: The examples are made, not found: they show what overall scores can hide, and nothing of how often a "
        "model does so. They differ by these points: TopP&R, whose overall scores were made to agree, precision 10 "
        "overall and 10 in a group and recall 10 overall and 10 in a group; k-nearest neighbours, to which nothing was "
        "fitted, precision 0 overall and 0 in a group and recall 0 overall and 0 in a group."
    )
    header = next(line for line in lines if line.startswith("Subset"))
    assert [name.strip() for name in header.split("  ") if name.strip()] == [
        "Subset", "Precision", "Recall", "x Recall", "y Recall", "x Precision", "y Precision",
    ]  # fmt: skip
    row = next(line for line in lines if line.startswith("Example 1"))
    # Precision all, recall all, recall x and y, precision x and y; means over splits and deviations of 0.02 / sqrt 2.
    assert row.split()[2::3] == ["79.0", "76.0", "75.0", "74.0", "78.0", "77.0"]
    assert row.split()[4::3] == ["1.4"] * 6
    text = "\n".join(lines)
    assert "TopP&R, Example 2 minus Example 1, in precision and recall: all -10.0 ± 0.0 and -10.0 ± 0.0" in text
    assert "Example 2: noise of 0.250 on y alone, of which 6 different samples are left" in text
    assert "They do there (difference 0.4 points)" in text
    assert "not flipped, since a flipped digit is another shape" in text
    assert "features: pixels" in text
    assert "half of them flipped" in describe_table4(made_up(), {**facts, "settings": {**settings, "flip": True}})
    far = {**facts, "search": {**facts["search"], "distance": 0.05}}
    assert "NONE DO: these are the closest (difference 5.0 points)" in describe_table4(made_up(), far)
    assert "| Example 2   |" in describe_table4(made_up(), facts, markdown=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_figure_draws_each_sample_once(channels: int) -> None:
    images = np.random.default_rng(0).random((2, 12, channels, 4, 4)).astype(np.float32)
    figure = draw_samples({"Example 1": images, "Example 2": images[::-1]}, ["x", "y"])
    panels = figure.axes
    assert [panel.get_title() for panel in panels[:2]] == ["Example 1", "Example 2"]
    assert [panels[0].get_ylabel(), panels[2].get_ylabel()] == ["x", "y"]
    drawn = np.asarray(panels[3].get_images()[0].get_array()).reshape(9, 49, channels)  # Example 2, group y
    np.testing.assert_array_equal(drawn[5:9, 5:9], images[0, 11].transpose(1, 2, 0))
    np.testing.assert_array_equal(drawn[0:4, 35:39], images[0, 7].transpose(1, 2, 0))
    assert (drawn[4] == 1.0).all()
    assert (drawn[5:, 10:] == 1.0).all()


if __name__ == "__main__":
    reproduce_table4(load_image_data("digits"), sys.argv[1], settings=TINY)
