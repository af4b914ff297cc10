"""Watching a model while it is trained: what is kept, logged and resumed, in every kind of loop."""

from __future__ import annotations

import doctest
import json
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.groups import CheckpointSelection, DisparityMonitor, flat_scores

torch = pytest.importorskip("torch")

EXAMPLES = Path(__file__).parents[2] / "examples"
GROUPS = np.repeat(["f", "m"], 60)
REAL = np.random.default_rng(0).normal(size=(120, 2))
MEANS = {1: (2.0, 1.0), 2: (0.1, 0.2), 3: (1.0, 1.0), 4: (1.0, 1.0)}
"""Of both groups after every step; step 2 is the best."""


class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.means = torch.nn.Parameter(torch.zeros(2))
        self.dropout = torch.nn.Dropout()


class Evaluation:
    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(self, model: Any, seed: int) -> GenerativeMetricFrame:
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        self.seeds.append(seed)
        fake = np.random.default_rng(seed).normal(size=(120, 2)) + np.repeat(model.means.numpy(), 60)[:, None]
        return GenerativeMetricFrame(
            metrics="fid", real=REAL, fake=fake, real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS,
            random_state=0,
        )  # fmt: skip


def make(folder: Path, **options: Any) -> Any:
    from egtmetrics.integrations import GroupWatch

    options = {"every": 1, "monitor": DisparityMonitor(n_looks=4), **options}
    return GroupWatch(Evaluation(), CheckpointSelection("fid", patience=2), folder=folder, **options)


def train(watch: Any, model: Any, steps: Any = MEANS) -> list[bool]:
    stops = []
    for step in steps:
        with torch.no_grad():
            model.means.copy_(torch.tensor(MEANS[step]))
        stops.append(watch.step(model, step))
    return stops


def test_the_best_checkpoint_is_kept_and_scored_again_on_fresh_samples(tmp_path: Path) -> None:
    logged: list[tuple[dict[str, float], int]] = []
    watch = make(tmp_path, loggers=[lambda scalars, step: logged.append((scalars, step))], page=lambda frame: "<p>page")
    model = Model()
    model.dropout.eval()
    assert train(watch, model) == [False, False, False, True]
    assert model.training
    assert not model.dropout.training  # as they were
    assert watch.selection.best.step == 2
    kept = torch.load(tmp_path / "best.pt", weights_only=True)
    assert kept["step"] == 2
    assert kept["model"]["means"].tolist() == pytest.approx(MEANS[2])
    assert watch.best_weights()["means"].tolist() == kept["model"]["means"].tolist()
    assert (tmp_path / "best.html").read_text() == "<p>page"
    frame = watch.rescore(model)
    assert model.means.tolist() == [1.0, 1.0]  # its own weights
    assert frame.overall["fid"] < 0.3
    assert len(set(watch.evaluate.seeds)) == 5
    assert watch.rescored.value == frame.by_group["fid"].max() != watch.selection.best.value
    assert [step for _, step in logged] == [1, 2, 3, 4, 4]
    scalars = logged[1][0]
    look = watch.monitor.looks[1]
    assert scalars["groups/monitor/p_value"] == look.p_value
    assert scalars["groups/selection/bound"] == watch.selection.best.bound == scalars["groups/fid_high/m"]
    assert scalars["groups/fid/worst"] == max(scalars["groups/fid/f"], scalars["groups/fid/m"])
    assert scalars["groups/fid_high/delta_fid"] > scalars["groups/fid/delta_fid"]
    assert logged[-1][0]["groups/rescored/value"] == watch.rescored.value
    assert (
        "on fresh samples, which is the number to report" in json.loads((tmp_path / "watch.json").read_text())["text"]
    )
    with pytest.raises(ValueError, match=r"no checkpoint could be chosen by fid, so there is nothing to score again"):
        make(tmp_path / "other").rescore(model)


def test_a_run_is_resumed_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, first = make(tmp_path / "whole"), make(tmp_path / "parts")
    assert train(whole, Model()) == [False, False, False, True]
    train(first, Model(), [1, 2])
    with pytest.raises(ValueError, match=r"has the looks of another run; pass resume=True to continue it, or"):
        make(tmp_path / "parts")
    with pytest.raises(ValueError, match="was written with a monitor; resume in the same way"):
        make(tmp_path / "parts", monitor=None, resume=True)
    second = make(tmp_path / "parts", resume=True)
    assert not second.due(2)
    assert train(second, Model(), [3, 4]) == [False, True]
    assert second.selection.candidates == whole.selection.candidates
    assert second.monitor.looks == whole.monitor.looks
    assert [*first.evaluate.seeds, *second.evaluate.seeds] == whole.evaluate.seeds
    torch.testing.assert_close(second.best_weights(), whole.best_weights())


def test_only_due_steps_and_the_main_process_look(tmp_path: Path) -> None:
    watch = make(tmp_path, every=2)
    assert [watch.due(step) for step in (1, 2, 3)] == [False, True, False]
    assert not watch.step(Model(), 2, is_main=False)
    assert watch.evaluate.seeds == []
    assert not watch.due(2)
    with pytest.raises(ValueError, match="every=0 is not an integer of at least 1"):
        make(tmp_path, every=0)


def test_intervals_are_flat_too() -> None:
    with torch.no_grad():
        frame = Evaluation()(Model().eval(), 0)
    intervals = frame.interval(0.9)
    flat = flat_scores(frame, intervals)
    assert flat.items() >= flat_scores(frame).items()
    assert flat["fid_low/f"] == intervals.by_group.loc[("fid", "f"), "low"]
    assert flat["proportions_high/mgo"] == intervals.disparities.loc[("proportions", "mgo"), "high"]


class Recorder:
    """Takes what a SummaryWriter takes."""

    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, int]] = {}
        self.figures: list[tuple[str, int]] = []

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars[tag] = scalar_value, global_step

    def add_figure(self, tag: str, figure: Any, global_step: int) -> None:
        figure.savefig(Path("/dev/null"), format="png")
        self.figures.append((tag, global_step))


def test_loggers_get_what_they_take(tmp_path: Path) -> None:
    from egtmetrics.integrations._loggers import send

    frame = GenerativeMetricFrame(
        metrics="ipr", real=REAL, fake=REAL[::-1], real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS
    )
    recorder = Recorder()
    send(recorder, {"a": 1.0, "b": math.nan}, 3, page="<p>", frame=frame)
    assert recorder.scalars == {"a": (1.0, 3)}
    assert recorder.figures == [("groups/precision_recall", 3)]
    with pytest.raises(TypeError, match="logger is int, expected a SummaryWriter of TensorBoard, a run of wandb"):
        send(3, {"a": 1.0}, 3)
    lightning = pytest.importorskip("lightning.pytorch.loggers")
    logger = lightning.CSVLogger(tmp_path, name="", version="")
    send(logger, {"a": 1.0, "b": math.nan}, 3, page="<p>", frame=frame)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["a,step", "1.0,3"]


def test_an_ignite_engine_stops_and_scores_again(tmp_path: Path) -> None:
    engines = pytest.importorskip("ignite.engine")
    module = import_module("egtmetrics.integrations._ignite")
    model, watch = Model(), make(tmp_path, monitor=None)

    def train(engine: Any, step: int) -> None:
        model.means.data = torch.tensor(MEANS[step])

    handler, engine = module.GroupWatchHandler(watch, model), engines.Engine(train)
    handler.attach(engine)
    engine.run([*MEANS, 4, 4])
    assert engine.state.iteration == 4
    assert watch.selection.best.step == 2
    assert watch.rescored.value == handler.frame.by_group["fid"].max()
    outcome = doctest.testmod(module)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)
    nothing, once = module.GroupWatchHandler(make(tmp_path / "none", every=9), model), engines.Engine(train)
    nothing.attach(once)
    once.run([1])
    assert nothing.frame is None


@pytest.mark.parametrize("name", ["digits", "lightning", "transformers", "ignite", "accelerate"])
@pytest.mark.filterwarnings("default")
def test_the_examples_keep_a_checkpoint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name != "digits":
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    try:
        watch = import_module(f"watch_{name}").main(tmp_path, n_steps=8, n_samples=100)
    finally:
        for module in [module for module in sys.modules if module.startswith("watch_")]:
            del sys.modules[module]
    assert watch.last_step == 8 or watch.selection.candidates[-1].stop
    assert watch.selection.best is not None
    assert watch.rescored is not None
    assert (tmp_path / "best.pt").exists()
    assert "on fresh samples, which is the number to report" in capsys.readouterr().out
