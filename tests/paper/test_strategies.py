"""The comparison of strategies: its data against closed forms, the command end to end, resumed, and its verdict."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from egtmetrics.cli import main
from egtmetrics.oracles import group_indices
from egtmetrics.paper import strategies
from egtmetrics.paper.strategies import (
    METHODS,
    QUICK,
    NormalMixture,
    StrategySettings,
    compare_strategies,
    load_study_data,
)
from egtmetrics.paper.strategies_report import changes_from_plain, describe_strategies, draw_trade_off
from egtmetrics.training import GroupDROLoss, MinMaxLoss, NoiseLevels, held_out_losses, heun_sample

TINY = StrategySettings(
    n_seeds=1, n_majority=120, n_minority=60, n_more=20, n_validation=30, n_real=40, width=32, n_blocks=1, n_steps=30,
    look_every=15, patience=9, batch_size=64, learning_rate=1e-2, n_bins=2, sampler_steps=6,
)  # fmt: skip
# With 40 images of a group, an error or two are more than the oracle warns of.
pytestmark = pytest.mark.filterwarnings("ignore::egtmetrics.oracles.OracleErrorWarning")
DIGITS, MIXTURE = load_study_data("digits"), load_study_data("mixture")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, strategies.Strategies]:
    folder = tmp_path_factory.mktemp("strategies")
    return folder, compare_strategies(folder, DIGITS, settings=TINY)


@pytest.mark.parametrize("data", [DIGITS, MIXTURE], ids=["digits", "mixture"])
def test_parts_are_disjoint_and_of_the_right_size(data: strategies.StudyData) -> None:
    first, again, other = (data.draw(seed, QUICK) for seed in (0, 0, 1))
    sizes = {"training": [500, 100], "more": [0, 100], "validation": [100, 100], "held_out": [300, 300]}
    rows: list[bytes] = []
    for name, expected in sizes.items():
        part = getattr(first, name)
        assert np.bincount(part.groups, minlength=2).tolist() == expected
        np.testing.assert_array_equal(part.x, getattr(again, name).x)
        assert not np.array_equal(part.x, getattr(other, name).x)
        rows += [x.tobytes() for x in part.x]
    assert len(set(rows)) == len(rows)
    held_out = {x.tobytes() for x in first.held_out.x}
    assert not held_out & {x.tobytes() for x in first.known.x}
    assert np.bincount(first.known.groups).min() >= 300
    called = group_indices(first.oracle(first.held_out.x), data.group_names)
    assert np.mean(called == first.held_out.groups) > 0.97
    x = data.to_model(first.training.x)
    assert abs(float(x.mean())) < 0.1
    assert abs(float(x.std()) - 0.5) < 0.06
    np.testing.assert_allclose(data.to_samples(x), first.training.x, atol=1e-6)


def test_expectation_of_a_mixture_by_importance_sampling() -> None:
    """E[x | y] is the mean of clean samples weighted by the density of the noise; 4 standard errors and no more."""
    mixture = NormalMixture(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0.5, 0.2, 0.1]), torch.tensor([0, 0, 1]))
    rng = np.random.default_rng(0)
    for group, y, sigma in ((0, 0.7, 0.4), (0, -1.0, 2.0), (1, 2.0, 1.0)):
        x = mixture.sample(group, 200_000, rng)[:, 0]
        weights = np.exp(-0.5 * ((y - x) / sigma) ** 2)
        expected = float(np.average(x, weights=weights))
        error = np.sqrt(np.sum((weights * (x - expected)) ** 2)) / weights.sum()
        found = mixture.expectation(torch.tensor([[y]]), torch.tensor([sigma]), torch.tensor([group]))
        assert abs(float(found) - expected) < 4 * error
        assert error < 0.01


def test_the_best_denoiser_generates_the_mixture_and_has_the_lowest_loss() -> None:
    best = MIXTURE.best
    assert best is not None
    draw = MIXTURE.draw(0, QUICK)
    x, groups = MIXTURE.to_model(draw.held_out.x), torch.as_tensor(draw.held_out.groups)
    noise = NoiseLevels(best.preconditioning.law, n_bins=4)
    lowest = held_out_losses(best, x, groups, noise, labels=groups)
    assert (lowest.means < held_out_losses(best, x, groups, noise, labels=1 - groups).means).all()
    # What the study is about: the group with the larger losses is not the one that is hard to learn.
    assert (lowest.means[0] > 1.1 * lowest.means[1]).all()
    latents = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    samples = heun_sample(best, latents, labels=torch.ones(400, dtype=torch.long), n_steps=18)
    called = group_indices(draw.oracle(MIXTURE.to_samples(samples)), MIXTURE.group_names)
    assert np.mean(called == 1) > 0.99
    narrow = draw.known.x[draw.known.groups == 1]
    distances = [stats.wasserstein_distance(samples[:, axis].numpy(), narrow[:, axis]) for axis in range(8)]
    assert max(distances) < 0.1  # of standard deviation 0.45; the samples of 12 narrow normals vary by some 0.05


def test_every_method_is_scored(finished: tuple[Path, strategies.Strategies]) -> None:
    folder, study = finished
    assert study.runs["method"].tolist() == [*METHODS, "Real"]
    assert study.runs["kind"].tolist() == ["plain", "yardstick", *["strategy"] * (len(METHODS) - 2), "real"]
    models = study.runs[study.runs["kind"] != "real"]
    assert not models.isna().to_numpy().any()
    assert models.filter(like="loss/").max().max() < 1.0  # of a model that knows nothing but mean and spread
    real = study.runs.iloc[-1]
    assert (real["ipr.precision/all"] + real["ipr.recall/all"]) > 1.5
    pd.testing.assert_frame_equal(pd.read_csv(folder / "runs.csv"), study.runs)
    assert not list(folder.glob("seed*/models"))
    assert len(models.drop(columns=["method", "kind"]).drop_duplicates()) == len(models)  # no two the same


def test_what_is_there_is_not_computed_again(
    finished: tuple[Path, strategies.Strategies], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, study = finished
    kept = (folder / "seed0" / "DRO on the excess.json").read_bytes()
    (folder / "seed0" / "DRO on the excess.json").unlink()
    trained: list[str] = []
    train = strategies._Seed.train

    def recorded(stage: strategies._Seed, method: str) -> Any:
        trained.append(method)
        return train(stage, method)

    monkeypatch.setattr(strategies._Seed, "train", recorded)
    pd.testing.assert_frame_equal(compare_strategies(folder, DIGITS, settings=TINY).runs, study.runs)
    assert trained == ["DRO on the excess"]
    assert (folder / "seed0" / "DRO on the excess.json").read_bytes() == kept
    with pytest.raises(ValueError, match="holds a run with other settings: n_bins was 2, is 4"):
        compare_strategies(folder, MIXTURE, settings=dataclasses.replace(TINY, n_bins=4))
    with pytest.raises(ValueError, match="data was digits, is mixture"):
        compare_strategies(folder, MIXTURE, settings=TINY)


def test_strategies_get_the_reference_of_the_specialists(finished: tuple[Path, strategies.Strategies]) -> None:
    stage = strategies._Seed(finished[0] / "seed0", 0, DIGITS, TINY)
    for method in ("Min-max on the excess", "DRO on the excess", "DRO on the excess, half plain"):
        loss = strategies._LOSSES[method](stage, stage.base)
        assert isinstance(loss, MinMaxLoss | GroupDROLoss)
        assert loss.reference.tolist() == stage.reference
        assert np.shape(stage.reference) == (2, 2)


def test_weights_follow_precision_and_recall(tmp_path: Path) -> None:
    """A model that generates one narrow normal of twelve: that group's deficit is larger, and its weight grows."""
    stage = strategies._Seed(
        tmp_path / "seed0", 0, MIXTURE, dataclasses.replace(TINY, n_validation=100, sampler_steps=18)
    )
    best = MIXTURE.best
    assert best is not None
    perfect = stage.measure_deficits(best, 1)
    assert 0.0 < perfect.max() < 0.5
    assert isinstance(best, strategies.BestDenoiser)
    mixture = best.mixture
    means = torch.where(mixture.group_of[:, None] == 1, mixture.means[-1], mixture.means)
    collapsed = strategies.BestDenoiser(NormalMixture(means, mixture.spreads, mixture.group_of), best.preconditioning)
    deficits = stage.measure_deficits(collapsed, 1)
    assert deficits[1] > perfect[1] + 0.3
    loss = strategies._LOSSES["Weights by precision + recall"](stage, collapsed)
    assert isinstance(loss, GroupDROLoss)
    for step in range(1, 2 * TINY.look_every + 1):
        loss(torch.ones(4), torch.tensor([0, 0, 0, 1]))
        assert (float(loss.group_weights[1]) != 0.5) == (step >= TINY.look_every)
    expected = sum(stage.measure_deficits(collapsed, look * TINY.look_every) for look in (1, 2))
    torch.testing.assert_close(loss.group_weights.flatten(), torch.as_tensor(expected).softmax(0))


NAMES = ("0-4", "5-9")


def made_up(changes: dict[str, tuple[float, float]], n_seeds: int = 6) -> pd.DataFrame:
    """Plain: 1.6 and 1.2, with noise that all methods share; others change the groups (0-4, 5-9) by so much."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(n_seeds):
        common = rng.normal(0, 0.1)
        for method, (better, worse) in {"Plain": (0.0, 0.0), **changes}.items():
            noise = rng.normal(0, 0.01, 2) * (method != "Plain")
            half = (0.8 + (common + better + noise[0]) / 2, 0.6 + (common + worse + noise[1]) / 2)
            scores = {
                f"ipr.{score}/{group}": half[i] for score in ("precision", "recall") for i, group in enumerate(NAMES)
            }
            kind = {"Plain": "plain", "More": "yardstick", "Real": "real"}.get(method, "strategy")
            loss = {"loss/0-4": 0.2 - better, "loss/5-9": 0.3 - worse} if kind != "real" else {}
            overall = {"ipr.precision/all": sum(half) / 2, "ipr.recall/all": sum(half) / 2}
            delta = {"ipr.delta_pr": 2 * abs(half[0] - half[1])}
            early = {"stopped_early": float(method != "A")} if kind != "real" else {}
            rows.append({"seed": seed, "method": method, "kind": kind, **scores, **overall, **delta, **loss, **early})
    return pd.DataFrame(rows)


def test_changes_are_paired() -> None:
    runs = made_up({"A": (-0.1, 0.2)})
    change = changes_from_plain(runs)["A"]["P + R, worse"]
    of_seed = runs.assign(total=runs["ipr.precision/5-9"] + runs["ipr.recall/5-9"]).pivot(
        index="seed", columns="method", values="total"
    )
    interval = stats.ttest_rel(of_seed["A"], of_seed["Plain"]).confidence_interval(0.95)
    assert (change.mean - change.half, change.mean + change.half) == pytest.approx((interval.low, interval.high))
    assert change.half < 0.02  # though plain varies by 0.1
    assert change.sign == 1


def test_the_verdict_names_what_exceeds_noise_and_what_it_costs() -> None:
    runs = made_up(
        {"A": (-0.1, 0.2), "B": (0.0, 0.2), "C": (0.1, 0.2), "D": (-0.3, 0.0), "More": (0.0, 0.4), "Real": (0.3, 0.6)}
    )
    text = describe_strategies(runs, {"data": "made up"})
    first, second, rest = text.split("\n\n", 2)
    assert first.startswith(
        "Worse group (5-9): 3 of 4 strategies raise its precision + recall beyond noise (0.1 would by chance): A +0.2"
    )
    assert "(to compare, More: +0.4" in first
    assert "D" not in first.replace("DRO", "")
    told = dict(part.strip().split(" ", 1) for part in second.split(":", 1)[1].split(";"))
    assert told["A"].endswith("(a cost)")
    assert "is not excluded)" in told["B"]
    assert "cost" not in told["C"]
    table = rest[rest.index("Changes against plain") :]
    assert table.count("*") > 6
    assert "made up" in rest
    few = runs["stopped_early"].where(runs["method"] == "D", 0.0)
    assert describe_strategies(runs.assign(stopped_early=few), {}).startswith(
        "Caution: 30 of 36 trainings were still improving at their last step."
    )
    assert "Real" not in table.split("\n\n")[1]


def test_nothing_found_is_said() -> None:
    first, second, _ = describe_strategies(made_up({"A": (-0.1, 0.0), "B": (0.0, 0.0)}), {}).split("\n\n", 2)
    assert first == (
        "Worse group (5-9): none of 2 strategies raise its precision + recall beyond noise (0.1 would by chance)."
    )
    assert re.fullmatch(r"The better group \(0-4\) falls beyond noise under: A -0\.\d{3} ± 0\.\d{3}\.", second)


def test_one_seed_says_nothing_of_noise() -> None:
    runs = made_up({"A": (-0.1, 0.2)}, n_seeds=1)
    assert "One seed says nothing about noise" in describe_strategies(runs, {})
    assert len(draw_trade_off(runs).axes) == 2


def test_the_figure_has_an_arrow_for_every_method() -> None:
    runs = made_up({"A": (-0.1, 0.2), "More": (0.0, 0.4), "Real": (0.3, 0.6)})
    changes = changes_from_plain(runs)
    figure = draw_trade_off(runs)
    for panel, what in zip(figure.axes, ("P + R", "loss"), strict=True):
        ends = [note.xy for note in panel.texts]
        starts = {note.xyann for note in panel.texts}
        assert len(starts) == 1
        start = np.array(next(iter(starts)))
        expected = [(row[f"{what}, better"].mean, row[f"{what}, worse"].mean) for row in changes.values()]
        np.testing.assert_allclose(np.array(ends) - start, expected, atol=1e-12)
    assert figure.axes[1].xaxis_inverted()
    assert figure.axes[1].yaxis_inverted()
    assert [text.get_text() for text in figure.legends[0].get_texts()][:3] == ["plain training", "A", "More"]


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(strategies, "QUICK", TINY)
    command = ["reproduce", "strategies", "--data", "digits", "--quick", "--out", str(tmp_path / "out")]
    chosen = ["--n-seeds", "2", "--steps", str(TINY.n_steps), "--method", "Min-max on the excess"]
    assert main([*command, *chosen]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Caution: 4 of 4 trainings")
    assert "\n\nWorse group (" in shown.out
    assert "Min-max on the excess" in shown.out
    assert "wrote" in shown.err
    assert {"strategies.md", "strategies.png", "runs.csv", "settings.json"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert (
        pd.read_csv(tmp_path / "out" / "runs.csv")["method"].tolist() == ["Plain", "Min-max on the excess", "Real"] * 2
    )
    assert main([*command, *chosen[:-1], "Maximin"]) == 2
    said = capsys.readouterr().err
    assert "there is no method 'Maximin'; there are 'Plain', " in said
    assert all(repr(name) in said for name in METHODS)
    assert main([*command[:3], "cats", *command[4:]]) == 2
    assert "name='cats' is unknown; expected one of digits, mixture" in capsys.readouterr().err


def test_too_few_digits() -> None:
    with pytest.raises(ValueError, match="0-4 has 901 images, but the settings ask for 1200"):
        DIGITS.draw(0, dataclasses.replace(QUICK, n_real=600))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="n_more=0"):
        StrategySettings(n_more=0)
