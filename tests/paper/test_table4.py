"""Table 4: degradations against closed forms, the search, the command end to end, killed and resumed."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics.cli import main
from egtmetrics.paper import table4
from egtmetrics.paper.datasets import ImageData, load_image_data
from egtmetrics.paper.table4 import (
    EXAMPLES,
    REAL,
    Table4,
    Table4Settings,
    at_precision,
    choose_degradation,
    duplicates,
    reproduce_table4,
)
from egtmetrics.paper.table4_report import describe_table4, draw_samples
from tests._killing import kill_when

TINY = Table4Settings(
    n_splits=2,
    n_search_splits=1,
    max_samples=120,
    mild_precision=0.85,
    noises=(0.0, 0.1, 0.2, 0.3, 0.6),
    shares=(0.0, 0.4),
    n_bootstrap=20,
)
COMMAND = ["reproduce", "table4", "--data", "digits", "--quick"]


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_image_data("digits")


@pytest.fixture(scope="module")
def finished(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table4]:
    folder = tmp_path_factory.mktemp("table4")
    return folder, reproduce_table4(digits, folder, settings=TINY)


@pytest.fixture
def experiment(digits: ImageData) -> table4._Experiment:
    return table4._Experiment(digits, TINY)


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
        for group, (real, other) in enumerate(experiment._halves(split)):
            assert (len(real), len(other), len({*real, *other})) == (120, 120, 240)
            assert (experiment.data.groups[[*real, *other]] == group).all()
    assert not np.array_equal(experiment._halves(0)[0][0], experiment._halves(1)[0][0])


def test_all_images_are_used_where_they_are_few(digits: ImageData) -> None:
    everything = table4._Experiment(digits, dataclasses.replace(TINY, max_samples=10**6))
    assert everything.n == 896 // 2


def test_degraded_images(experiment: table4._Experiment) -> None:
    clean = experiment._degraded(0, 1, 0.0, 0.0)
    np.testing.assert_array_equal(clean, experiment.data.images[experiment._halves(0)[1][1]])
    copied = experiment._degraded(0, 1, 0.0, 0.5)
    changed = np.flatnonzero((copied != clean).any(axis=(1, 2, 3)))
    assert 0 < len(changed) <= 60
    originals = {bytes(image) for image in clean}
    flips = [bytes(copied[i]) not in originals and bytes(copied[i, ..., ::-1].copy()) in originals for i in changed]
    assert all(flip or bytes(copied[i]) in originals for flip, i in zip(flips, changed, strict=True))
    assert 15 < sum(flips) < 45  # of 60, half: four standard deviations
    only = experiment._degraded(0, 1, 0.3, 0.5, only=np.array([5, 2]))
    np.testing.assert_array_equal(only, experiment._degraded(0, 1, 0.3, 0.5)[[5, 2]])


def test_noise_has_its_strength_is_stored_as_files_are_and_is_the_same_every_time() -> None:
    grey = ImageData(
        name="grey",
        images=np.full((200, 3, 16, 16), 0.5, dtype=np.float32),
        groups=np.arange(200) % 2,
        group_names=("a", "b"),
        n_levels=255,
        mean=0.0,
        spread=1.0,
        encode=lambda images: np.asarray(images, dtype=np.float64).reshape(len(images), -1),
        facts={},
    )
    experiment = table4._Experiment(grey, TINY)
    rows = np.arange(100)
    noisy = experiment._noisy(rows, 0.1)
    # 76,800 values: a relative deviation of 0.26 % of the estimate; a rounding of 0.3 % of a level's variance.
    assert float((noisy - 0.5).std()) == pytest.approx(0.1, rel=0.015)
    np.testing.assert_allclose(noisy * 255, np.rint(noisy * 255), atol=1e-4)
    np.testing.assert_array_equal(experiment._noisy(rows[::-1], 0.1), noisy[::-1])
    np.testing.assert_allclose(experiment._noisy(rows, 0.05) - 0.5, (noisy - 0.5) / 2, atol=1 / 255)
    assert experiment._noisy(rows, 3.0).min() == 0.0
    assert experiment._noisy(rows, 3.0).max() == 1.0
    assert grey.images.min() == grey.images.max() == 0.5  # not changed in place


def test_where_precision_falls_to_a_value() -> None:
    scores = np.array([[0.9, 0.8], [0.7, 0.6], [0.75, 0.5], [0.1, 0.0]])
    for precision, noise, recall in ((0.9, 0.0, 0.8), (0.8, 0.5, 0.7), (0.69, 2.0 + 0.06 / 0.65, None)):
        found, at = at_precision(scores, precision, [0.0, 1.0, 2.0, 3.0])
        assert found == pytest.approx(noise)
        assert at[0] == pytest.approx(precision)
        assert recall is None or at[1] == pytest.approx(recall)
    found, _ = at_precision(scores[:2], 0.8, [0.0, 1.0, 2.0, 3.0])  # measured no further
    assert found == pytest.approx(0.5)
    for precision in (0.95, 0.05):
        with pytest.raises(ValueError, match=r"0\.900 without noise and at least 0\.100 with noise up to 3"):
            at_precision(scores, precision, [0.0, 1.0, 2.0, 3.0])


def test_the_largest_share_with_the_recall_is_chosen() -> None:
    noises, shares = [0.0, 0.1, 0.2], [0.0, 0.3, 0.6, 0.9]
    precision = np.array([[0.9, 0.85, 0.8, 0.4], [0.6, 0.5, 0.5, 0.3], [0.3, 0.3, 0.3, 0.2]])
    recall = np.broadcast_to([0.81, 0.795, 0.7, 0.8], (3, 4))
    grid = np.stack([precision, recall], axis=-1)  # with the share 0.9 precision is too low without any noise

    def choose(target: float, tolerance: float, least_noise: float = 0.0) -> tuple[float, float]:
        wanted = np.array([target, 0.8])
        return choose_degradation(grid, wanted, noises, shares, tolerance, least_noise=least_noise)

    assert choose(0.6, 0.02) == (pytest.approx(0.25 / 0.35 * 0.1), 0.3)
    assert choose(0.6, 0.2) == (pytest.approx(0.2 / 0.3 * 0.1), 0.6)
    assert choose(0.6, 0.001)[1] == 0.3  # the nearest, where none is near
    assert choose(0.6, 0.2, least_noise=0.07)[1] == 0.3
    assert choose(0.6, 0.2, least_noise=0.09) == (pytest.approx(0.1), 0.0)
    with pytest.raises(ValueError, match=r"noise of 0\.1 on one group alone gives .* less than least_noise=0\.11"):
        choose(0.6, 0.2, least_noise=0.11)
    with pytest.raises(ValueError, match=r"so it cannot be brought to 0\.250"):
        choose(0.25, 0.02)


def test_results(finished: tuple[Path, Table4]) -> None:
    """Alike over all, apart by group; the group that Example 2 leaves as it is scores as real images do."""
    folder, table = finished
    scores = table.scores.set_index(["example", "split"])
    assert scores.index.tolist() == [(example, split) for split in (0, 1) for example in (REAL, *EXAMPLES)]
    real, mild, strong = (scores.loc[example] for example in (REAL, *EXAMPLES))
    assert (scores[["mgo", "ego"]] == 0.0).all(axis=None)
    for score in ("topp.precision", "topp.recall", "ipr.precision", "ipr.recall"):
        pd.testing.assert_series_equal(strong[f"{score}/5-9"], real[f"{score}/5-9"])
    assert (real["topp.precision/all"] > mild["topp.precision/all"]).all()
    assert (strong["topp.delta_p"] > mild["topp.delta_p"] + 0.1).all()
    np.testing.assert_allclose(
        strong["topp.delta_p"], (strong["topp.precision/5-9"] - strong["topp.precision/0-4"]).abs()
    )
    found = table.facts["search"]
    assert (strong["noise"] == found["noise"]).all()
    assert (strong["share"] == found["share"]).all()
    assert (mild["noise"] == found["mild_noise"]).all()
    assert found["noise"] >= 1.5 * found["mild_noise"]
    pd.testing.assert_frame_equal(pd.read_csv(folder / "scores.csv"), table.scores)
    assert {example: images.shape for example, images in table.samples.items()} == dict.fromkeys(
        EXAMPLES, (2, 20, 1, 8, 8)
    )
    others = load_image_data("digits").images
    assert all((others == image).all(axis=(1, 2, 3)).any() for image in table.samples[EXAMPLES[1]][1])


def test_degradations_lie_between_those_that_bracket_the_precision(
    finished: tuple[Path, Table4], experiment: table4._Experiment
) -> None:
    """On the split of the search, where the noise of each image is the same throughout."""
    found = finished[1].facts["search"]
    real = experiment._overall(TINY.n_splits, [experiment.strong(0.0, 0.0)])[0]
    for noise, degrade in (
        (found["mild_noise"], experiment.mild),
        (found["noise"], lambda noise: experiment.strong(noise, found["share"])),
    ):
        i = int(np.searchsorted(TINY.noises, noise))
        degradations = [degrade(level) for level in (TINY.noises[i - 1], noise, TINY.noises[i])]
        weaker, at, stronger = (scores[0] for scores in experiment._overall(TINY.n_splits, degradations))
        assert weaker > at > stronger
        assert weaker >= TINY.mild_precision * real[0] > stronger


def test_killed_and_resumed_gives_the_same(finished: tuple[Path, Table4], tmp_path: Path) -> None:
    expected, _ = finished
    out = tmp_path / "out"
    for waited_for in ("search2-Example 2-0.1.json", "split0-Example 1.json"):
        kill_when((out / waited_for).exists, [sys.executable, __file__, out])  # the last lines of this file
    assert not (out / "scores.csv").exists()
    reproduce_table4(load_image_data("digits"), out, settings=TINY)
    assert (out / "scores.csv").read_bytes() == (expected / "scores.csv").read_bytes()


def test_command(
    finished: tuple[Path, Table4], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a finished folder: every stage is taken from there, and the text is that of the results."""
    folder, table = finished
    monkeypatch.setattr(table4, "QUICK", TINY)
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


def test_a_folder_belongs_to_its_images(finished: tuple[Path, Table4], digits: ImageData) -> None:
    other = dataclasses.replace(digits, images=digits.images[..., ::-1])
    with pytest.raises(ValueError, match="holds a run with other settings: images was "):
        reproduce_table4(other, finished[0], settings=TINY)


def test_too_few_images(digits: ImageData, tmp_path: Path) -> None:
    few = dataclasses.replace(digits, images=digits.images[:150], groups=digits.groups[:150])
    with pytest.raises(ValueError, match=r"has 7\d images in its smallest group, but TopP&R in 8 dim"):
        reproduce_table4(few, tmp_path, settings=TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_splits": 0}, "n_splits"),
        ({"mild_precision": 1.0}, "mild_precision"),
        ({"mild_share": 1.0}, "a share of duplicates"),
        ({"noises": (0.1, 0.2)}, "noises=.* does not rise from 0"),
        ({"shares": (0.0, 0.5, 0.2)}, "shares=.* does not rise from 0"),
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
        for i, example in enumerate((REAL, *EXAMPLES)):
            row: dict[str, Any] = {"split": split, "example": example, "mgo": 0.0, "ego": 0.0}
            for j, (score, who) in enumerate((s, w) for s in ("precision", "recall") for w in ("all", "x", "y")):
                row[f"topp.{score}/{who}"] = 0.9 - 0.1 * i - 0.01 * j - 0.02 * split
                row[f"ipr.{score}/{who}"] = 0.5
            row |= {f"{metric}.{gap}": 0.25 for metric in ("topp", "ipr") for gap in ("delta_p", "delta_r", "delta_pr")}
            rows.append(row)
    return pd.DataFrame(rows)


def test_tables_of_known_scores() -> None:
    facts = {
        "name": "digits",
        "groups": ["x", "y"],
        "settings": {"mild_precision": 0.8, "mild_share": 0.2, "n_search_splits": 3},
        "search": {"mild_noise": 0.0625, "noise": 0.25, "share": 0.5},
        "notes": {"features": "pixels"},
    }
    lines = describe_table4(made_up(), facts).splitlines()
    header = next(line for line in lines if line.startswith("Subset"))
    assert [name.strip() for name in header.split("  ") if name.strip()] == [
        "Subset", "Precision", "Recall", "x Recall", "y Recall", "x Precision", "y Precision",
    ]  # fmt: skip
    row = next(line for line in lines if line.startswith("Example 1"))
    # Precision all, recall all, recall x and y, precision x and y; means over splits and deviations of 0.02 / sqrt 2.
    assert row.split()[2::3] == ["79.0", "76.0", "75.0", "74.0", "78.0", "77.0"]
    assert row.split()[4::3] == ["1.4"] * 6
    text = "\n".join(lines)
    assert text.startswith("Verdict: The samples of both examples were degraded on purpose")
    assert "by -10.0 in precision and -10.0 in recall (points of TopP&R) in all groups together" in text
    changes = next(line for line in text.partition("Disparities between")[2].splitlines() if line[:9] == "Example 1")
    assert changes.split()[2::3][2:5] == ["25.0", "-10.0", "-10.0"]
    assert "TopP&R, Example 2 minus Example 1, in precision and recall: all -10.0 ± 0.0 and -10.0 ± 0.0" in text
    assert "Example 2: noise of 0.250 and 50% duplicates on x alone." in text
    assert "A flipped digit is rarely a digit" in text
    assert "features: pixels" in text
    assert "A flipped digit" not in describe_table4(made_up(), {**facts, "name": "emoji"})
    assert "| Example 2 |" in describe_table4(made_up(), facts, markdown=True)


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
