"""Table 1 at small scale: the stages against closed forms, the command end to end, killed and resumed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import egtmetrics
from egtmetrics.cli import main
from egtmetrics.report.table1 import describe_table1, plot_losses
from egtmetrics.training import Denoiser, EDMPreconditioning, ResidualMLP, table1
from egtmetrics.training.table1 import GROUPS, METHODS, Table1, Table1Settings, reproduce_table1

TINY = Table1Settings(
    n_seeds=2, pretrain_steps=240, finetune_steps=20, batch_size=128, learning_rate=3e-3, n_bins=4, width=64,
    n_blocks=1, n_real=60, n_bootstrap=20, sampler_steps=6,
)  # fmt: skip
COMMAND = ["reproduce", "table1", "--data", "digits", "--quick"]


@pytest.fixture
def stage(tmp_path: Path) -> table1._Stage:
    return table1._Stage(tmp_path / "seed0", 0, TINY, False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table1]:
    folder = tmp_path_factory.mktemp("table1")
    return folder, reproduce_table1(folder, settings=TINY)


def test_split() -> None:
    """Three to one in training, equal parts held out, nothing of which training or the oracle sees."""
    first, second = (table1._split(seed, 300) for seed in (0, 1))
    assert np.bincount(first.train_groups).tolist() == [601, 200]
    assert np.bincount(first.held_out_groups).tolist() == [300, 300]
    assert len(first.known) + len(first.held_out) == 1797
    held_out, known = (sorted(map(bytes, part)) for part in (first.held_out, first.known))
    everything = sorted(map(bytes, np.concatenate([second.held_out, second.known])))
    assert sorted(held_out + known) == everything
    assert {bytes(x) for x in first.train} <= set(known)
    assert not np.array_equal(first.held_out, second.held_out)


def test_pixels_and_model_space_are_inverse_and_the_data_is_what_edm_expects(stage: table1._Stage) -> None:
    pixels = stage.split.train
    x = table1._to_model(pixels)
    np.testing.assert_array_equal(table1._to_pixels(x), pixels)
    assert abs(float(x.mean())) < 0.02
    assert abs(float(x.std()) - 0.5) < 0.02
    far = table1._to_pixels(torch.tensor([[-9.0, 9.0, 0.001]]))
    assert far.tolist() == [[0.0, 1.0, 5 / 16]]


def test_losses_of_a_model_that_knows_nothing(stage: table1._Stage) -> None:
    """F = 0: w E|c_skip (x + s n) - x|^2 / d = w ((1 - c_skip)^2 |x|^2 / d + c_skip^2 s^2)."""
    rows = pd.DataFrame(stage.losses("Pretrain", Denoiser(ResidualMLP(64, width=8), EDMPreconditioning())))
    assert len(rows) == 2 * 2 * 16
    for split, pixels, groups in (
        ("training", stage.split.train, stage.split.train_groups),
        ("held-out", stage.split.held_out, stage.split.held_out_groups),
    ):
        for group, name in enumerate(GROUPS):
            square = float((table1._to_model(pixels[groups == group]).double() ** 2).mean())
            chosen = rows[(rows["split"] == split) & (rows["group"] == name)]
            s = chosen["sigma"].to_numpy()
            skip = 0.25 / (s**2 + 0.25)
            expected = ((1 - skip) ** 2 * square + skip**2 * s**2) * (s**2 + 0.25) / (0.5 * s) ** 2
            # 60 x 64 Gaussian squares and more: a relative deviation of 2.3 %, of which 6 are allowed for.
            np.testing.assert_allclose(chosen["loss"], expected, rtol=0.14)


def samples_of(stage: table1._Stage, generation: str, *, collapsed: bool) -> Any:
    """The held-out digits themselves, group 0 three times at MGO; ``collapsed`` makes group 1 one digit."""
    real, groups = stage.split.held_out, stage.split.held_out_groups
    copies = [0, 0, 0, 1] if generation == "MGO" else [0, 1]
    pools = [real[groups == 0], real[groups == 1]]
    if collapsed:
        pools[1] = np.repeat(pools[1][:1], len(pools[1]), axis=0)
    return types.SimpleNamespace(
        samples=np.concatenate([pools[group] for group in copies]),
        groups=np.repeat(copies, TINY.n_real),
        draws_by_group=np.array([90, 30]),
        expected_draws_per_sample=1.5,
    )


@pytest.mark.parametrize("generation", ["MGO", "EGO"])
@pytest.mark.parametrize("collapsed", [False, True])
def test_evaluation_of_known_samples(
    generation: str, collapsed: bool, stage: table1._Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = samples_of(stage, generation, collapsed=collapsed)
    monkeypatch.setattr(stage, "_sample", lambda *_: samples)
    run = stage.evaluate("Pretrain", generation, Denoiser(ResidualMLP(64, width=8), EDMPreconditioning()))
    assert (run["seed"], run["method"], run["generation"]) == (0, "Pretrain", generation)
    assert run["ipr.precision/all"] == 1.0
    assert run["fid.fid/0-4"] == pytest.approx(0.0, abs=1e-9)
    assert run["ipr.recall/0-4"] == run["topp.precision/0-4"] == 1.0
    assert run["mgo"] == pytest.approx(0.0 if generation == "MGO" else 0.25, abs=1e-3)
    assert run["ego"] == (0.5 if generation == "MGO" else 0.0)
    assert run["mgo_generated"] == pytest.approx(0.0, abs=1e-3)
    assert run["ego_generated"] == 0.5
    assert run["draws_per_sample"] == 1.5
    if collapsed:
        assert run["ipr.recall/5-9"] < 0.1
        assert run["ipr.delta_r"] == pytest.approx(1.0 - run["ipr.recall/5-9"])
        assert run["fid.delta_fid"] == pytest.approx(run["fid.fid/5-9"])
        assert run["fid.fid/5-9"] > 0.5
    else:
        assert {run[name] for name in run if ".delta_p" in name or ".delta_r" in name} == {0.0}
        assert run["fid.fid/all"] == pytest.approx(0.0, abs=1e-9)


def test_results_have_every_run_and_are_kept(finished: tuple[Path, Table1]) -> None:
    folder, table = finished
    assert len(table.runs) == 2 * 5 * 2
    assert table.runs.groupby(["method", "generation"]).size().eq(2).all()
    assert list(table.runs["method"].unique()) == [*METHODS, "Real"]
    models = table.runs[table.runs["method"] != "Real"]
    assert not models.isna().to_numpy().any()
    assert models["fid.fid/all"].min() > table.runs["fid.fid/all"].min()
    by_generation = models.groupby("generation")["ego"].unique()
    assert (by_generation["MGO"].tolist(), by_generation["EGO"].tolist()) == ([0.5], [0.0])
    pd.testing.assert_frame_equal(pd.read_csv(folder / "runs.csv"), table.runs)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "losses.csv"), table.losses)
    conditional = torch.load(folder / "seed0" / "Conditional.pt", weights_only=True)
    steps = [torch.load(folder / "seed0" / f"{m}.pt", weights_only=True)["step"] for m in METHODS]
    assert steps == [TINY.finetune_steps] * 4
    assert "network.labels.weight" in conditional["model"]


def test_all_methods_start_from_the_pretrained_average(finished: tuple[Path, Table1]) -> None:
    folder, _ = finished
    stage = table1._Stage(folder / "seed1", 1, TINY, False)
    pretrained = stage.pretrain()
    average = torch.load(folder / "seed1" / "base.pt", weights_only=True)["ema"]
    for name, weight in pretrained.state_dict().items():
        torch.testing.assert_close(weight, average[f"model.{name}"], rtol=0, atol=0)
    first_weights = {
        method: torch.load(folder / "seed1" / f"{method}.pt", weights_only=True)["settings"]["first weights"]
        for method in ("Pretrain", "Reweighted", "Min-Max")
    }
    assert len(set(first_weights.values())) == 1


def test_killed_and_resumed_gives_the_same(finished: tuple[Path, Table1], tmp_path: Path) -> None:
    """Killed once in a training (a checkpoint is there, its end is not) and once between stages."""
    expected, _ = finished
    out = tmp_path / "out"
    for waited_for in ("seed0/base.pt", "seed0/Reweighted-losses.json"):
        process = subprocess.Popen([sys.executable, __file__, str(out)])  # the last lines of this file
        deadline = time.monotonic() + 100
        while not (out / waited_for).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -9
    assert not (out / "runs.csv").exists()
    reproduce_table1(out, settings=TINY)
    for name in ("runs.csv", "losses.csv"):
        assert (out / name).read_bytes() == (expected / name).read_bytes()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(table1, "QUICK", TINY)
    return


@pytest.mark.usefixtures("quick")
def test_command(
    finished: tuple[Path, Table1], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a finished folder: every stage is taken from there, and the text is that of the results."""
    folder, table = finished
    for name in ("losses", "evaluate", "evaluate_real", "describe_oracle"):
        monkeypatch.setattr(table1._Stage, name, lambda *_: pytest.fail("computed again"))
    assert main([*COMMAND, "--out", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == describe_table1(table.runs, table.losses, table.facts)
    assert all(f"wrote {folder / name}" in err for name in ("table1.md", "losses.png", "runs.csv", "losses.csv"))
    assert (folder / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert "| Min-Max" in (folder / "table1.md").read_text()
    assert main([*COMMAND, "--quiet", "--out", str(folder)]) == 0
    assert capsys.readouterr() == (out, "")


@pytest.mark.usefixtures("quick")
def test_command_refuses_in_one_line(finished: tuple[Path, Table1], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = finished
    assert main(["reproduce", "table1", "--data", "digits", "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "holds a run with other settings: n_seeds was 2, is 10; pretrain_steps was 240, is 2000; " in error
    damaged = folder / "seed0" / "oracle.json"
    content = damaged.read_text()
    damaged.write_text(content[:-4])
    assert main([*COMMAND, "--out", str(folder)]) == 2
    assert f"{damaged} is damaged" in capsys.readouterr().err
    damaged.write_text(content)


def test_command_without_torch_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("egtmetrics.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("egtmetrics.training")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([*COMMAND, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("egtmetrics: error: ")
    assert "pip install egtmetrics[training]" in line
    assert not (tmp_path / "out").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reproduce", "table1", "--help"])
    assert "egtmetrics reproduce table1 --data digits --quick --out table1-quick" in capsys.readouterr().out


def made_up(gap: float, noise: float, n_seeds: int = 5) -> Table1:
    """Min-max has a gap in precision of given size and noise; all else is equal up to noise of 0.01 points."""
    rng = np.random.default_rng(0)
    runs: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    for seed in range(n_seeds):
        for method in METHODS:
            for group in GROUPS:
                for split in ("training", "held-out"):
                    loss = {"0-4": 1.0, "5-9": 1.5}[group]
                    key = {"seed": seed, "method": method, "split": split, "group": group}
                    losses += [{**key, "sigma": sigma, "loss": loss * sigma} for sigma in (1.0, 3.0)]
            for generation in table1.GENERATIONS:
                run: dict[str, Any] = {"seed": seed, "method": method, "generation": generation}
                for metric in ("topp.precision", "topp.recall", "ipr.precision", "ipr.recall", "fid.fid"):
                    shift = gap + noise * rng.normal() if (metric, method) == ("topp.precision", "Min-Max") else 0.0
                    for who, sign in (("all", 0.0), ("0-4", 0.5), ("5-9", -0.5)):
                        run[f"{metric}/{who}"] = 0.8 + sign * shift + 1e-4 * rng.normal()
                for metric in ("topp", "ipr"):
                    p, r = (run[f"{metric}.{s}/0-4"] - run[f"{metric}.{s}/5-9"] for s in ("precision", "recall"))
                    run |= {f"{metric}.delta_p": abs(p), f"{metric}.delta_r": abs(r), f"{metric}.delta_pr": abs(p + r)}
                run["fid.delta_fid"] = abs(run["fid.fid/0-4"] - run["fid.fid/5-9"])
                odds = {"mgo": 0.25, "ego": 0.0} if generation == "EGO" else {"mgo": 0.0, "ego": 0.5}
                generated = {f"{name}_generated": 0.1 * rng.random() for name in odds}
                runs.append({**run, **odds, **generated, "draws_per_sample": 1.5})
    facts = {"oracles": [{"error_by_group": [0.01, 0.03]}, {"error_by_group": [0.03, 0.05]}], "features": "pixels"}
    return Table1(runs=pd.DataFrame(runs), losses=pd.DataFrame(losses), facts=facts)


def text_of(table: Table1) -> str:
    return describe_table1(table.runs, table.losses, table.facts)


def test_gaps_are_told_from_noise() -> None:
    large, noisy = text_of(made_up(0.1, 0.005)), text_of(made_up(0.01, 0.1))
    for generation in ("MGO", "EGO"):
        assert re.search(rf"  Min-Max at {generation}, TopP&R P: \+(9\.|10)", large)
        assert f"  Min-Max at {generation}, δ of TopP&R P: +" in large
        assert f"  Min-Max at {generation}, TopP&R P:" not in noisy
    assert "of 56, where 2.8 would by chance" in large
    assert "no gap can be told from it" in text_of(made_up(0.1, 0.1, n_seeds=1))


def test_tables_of_known_results() -> None:
    table = made_up(0.1, 0.0)
    text = text_of(table)
    rows = [line.split() for line in text.splitlines()]
    table1_row = next(row for row in rows if row[:1] == ["Min-Max"])
    runs = table.runs[(table.runs["method"] == "Min-Max") & (table.runs["generation"] == "MGO")]
    assert table1_row[1:4] == ["10.0", "±", f"{100 * runs['topp.delta_p'].std():.1f}"]
    assert "3.000 ± 0.000" in text  # the worst group's loss: 1.5 times the mean of sigma
    normalised = next(row for row in rows if row[:2] == ["held-out", "Pretrain"])
    assert normalised[2::3] == ["1.250", "1.000", "1.500", "3.0000"]
    odds = next(row for row in rows if row[:1] == ["δ-MGO"] and len(row) == 7)
    assert odds[1:3] == ["1.00", "-1.00"]
    assert odds[3] == f"{table.runs['mgo'].corr(table.runs['topp.delta_p']):.2f}"
    assert "mislabels 2.0 % of 0-4, 4.0 % of 5-9" in text


def test_figure_draws_the_losses() -> None:
    table = made_up(0.0, 0.0)
    figure = plot_losses(table.losses)
    assert [panel.get_title() for panel in figure.axes] == list(METHODS)
    solid = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(solid["digits 5-9, held-out"], [[1.0, 1.5], [3.0, 4.5]])


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="n_seeds=0"):
        Table1Settings(n_seeds=0)
    with pytest.raises(ValueError, match="n_real=100 is no multiple of 3"):
        Table1Settings(n_real=100)


def test_settings_file_is_plain(finished: tuple[Path, Table1]) -> None:
    folder, table = finished
    saved = json.loads((folder / "settings.json").read_text())
    assert saved == {**table.facts["settings"], "egtmetrics": egtmetrics.__version__}


if __name__ == "__main__":
    reproduce_table1(sys.argv[1], settings=TINY)
