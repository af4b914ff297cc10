"""The examples of training in the loops of others, shrunk: they train, and for the groups."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with torch.random.fork_rng():
        yield import_module
    for name in [name for name in sys.modules if name.startswith("train_")]:
        del sys.modules[name]


def test_images_with_accelerate(example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accelerate = pytest.importorskip("accelerate")
    module = example("train_images")
    try:
        module.write_digits(tmp_path)
        strategy, average = module.main(tmp_path, n_steps=6, batch_size=32)
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()
    assert strategy.group_losses.isfinite().all()
    assert int(average.n_seen) == 6 * 32
    said = capsys.readouterr().out
    assert said.count("average loss by group: 0 to 4 ") == 3
    assert ("diffusers is not installed" in said) == ("diffusers" not in sys.modules)


@pytest.mark.filterwarnings("default")
def test_sft_with_trl(example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    pytest.importorskip("datasets")
    trainer = example("train_sft").main(n_steps=4, folder=tmp_path)
    found = [row["eval_worst_group_loss"] for row in trainer.state.log_history if "eval_worst_group_loss" in row]
    assert trainer.state.best_metric == min(found)
    assert len(found) == 4
    assert "held-out loss of the worst group" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_lightning_in_parts(example: Any, tmp_path: Path) -> None:
    """However a step is cut, it is the same step: the rows of a batch do not depend on it."""
    pytest.importorskip("lightning.pytorch")
    module = example("train_lightning")
    whole = module.main(tmp_path, n_steps=4, batch_size=64, part=64)
    parts = module.main(tmp_path, n_steps=4, batch_size=64, part=16)
    assert whole.trainer.global_step == 4
    torch.testing.assert_close(parts.strategy.state_dict(), whole.strategy.state_dict(), rtol=0.05, atol=1e-3)
    assert int(parts.average.n_seen) == 4 * 64
