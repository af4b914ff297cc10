"""A group loss as a submodule of a LightningModule, checkpointed and resumed with everything else."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from egtmetrics.training import GroupDROLoss, GroupLoss, MinMaxLoss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, on import
    lightning = pytest.importorskip("lightning.pytorch")

BATCHES, N_EPOCHS, INTERRUPTED_AT = 4, 3, 1
"""Lightning begins its data anew with every epoch, and so resumes exactly between two."""


class Regression(lightning.LightningModule):  # type: ignore[name-defined,misc]
    """Three lines of a user: the loss in ``__init__``, the call, and nothing else."""

    def __init__(self, loss: GroupLoss) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = nn.Linear(3, 1)
        self.loss = loss

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        x, y, groups = batch
        loss: Tensor = self.loss((self.model(x).squeeze(1) - y) ** 2, groups)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def batches() -> DataLoader[Any]:
    """The first group has less noise to begin with and a slope of its own: the worst group changes in training."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCHES * 16, 3, generator=generator)
    groups = torch.arange(len(x)) % 2
    slopes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]])
    return DataLoader(TensorDataset(x, (x * slopes[groups]).sum(1), groups), batch_size=16)


def fit(loss: GroupLoss, folder: Path, *, n_epochs: int, resume: Path | None = None) -> Regression:
    module = Regression(loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on workers, on logs, on the middle of an epoch
        trainer = lightning.Trainer(
            max_epochs=n_epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        # In full: the optimizer and the place in the epoch are not data alone for torch.
        trainer.fit(module, batches(), ckpt_path=resume, **({} if resume is None else {"weights_only": False}))
        assert trainer.global_step == BATCHES * n_epochs
        trainer.save_checkpoint(folder / f"{n_epochs}.ckpt")
    return module


def losses() -> list[GroupLoss]:
    return [MinMaxLoss(2), GroupDROLoss(2)]


@pytest.mark.parametrize("which", [0, 1])
def test_resumed_equals_uninterrupted(which: int, tmp_path: Path) -> None:
    whole = fit(losses()[which], tmp_path, n_epochs=N_EPOCHS)
    fit(losses()[which], tmp_path, n_epochs=INTERRUPTED_AT)
    checkpoint = tmp_path / f"{INTERRUPTED_AT}.ckpt"
    resumed = fit(losses()[which], tmp_path, n_epochs=N_EPOCHS, resume=checkpoint)
    expected = whole.state_dict()
    assert any(name.startswith("loss.") for name in expected)
    for name, value in resumed.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, equal_nan=True)


def test_the_state_of_the_loss_is_part_of_it(tmp_path: Path) -> None:
    """The same resumption with the loss begun anew goes another way: the test above can fail."""
    whole = fit(GroupDROLoss(2), tmp_path, n_epochs=N_EPOCHS)
    fit(GroupDROLoss(2), tmp_path, n_epochs=INTERRUPTED_AT)
    content = torch.load(tmp_path / f"{INTERRUPTED_AT}.ckpt", weights_only=False)
    fresh = Regression(GroupDROLoss(2)).state_dict()
    content["state_dict"] |= {name: value for name, value in fresh.items() if name.startswith("loss.")}
    torch.save(content, tmp_path / "fresh.ckpt")
    other = fit(GroupDROLoss(2), tmp_path, n_epochs=N_EPOCHS, resume=tmp_path / "fresh.ckpt")
    assert not torch.equal(other.model.weight, whole.model.weight)
