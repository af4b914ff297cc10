"""A group loss as a submodule of a LightningModule, checkpointed and resumed with everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from egtmetrics.training import GroupDROLoss, GroupLoss, MinMaxLoss

BATCHES, N_EPOCHS, INTERRUPTED_AT = 4, 3, 1
"""Lightning starts its data again with every epoch, so it resumes exactly between two of them."""


@pytest.fixture
def lightning() -> Any:
    """Imported here and not above, since every worker that collects tests would spend seconds on it."""
    return pytest.importorskip("lightning.pytorch")


def regression(lightning: Any, loss: GroupLoss) -> Any:
    class Regression(lightning.LightningModule):  # type: ignore[misc]
        """Three lines of a user: the loss in ``__init__``, the call, and nothing else."""

        def __init__(self) -> None:
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

    return Regression()


def batches() -> DataLoader[Any]:
    """Every group has a slope of its own, so the worst group changes in training."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCHES * 16, 3, generator=generator)
    groups = torch.arange(len(x)) % 2
    slopes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]])
    return DataLoader(TensorDataset(x, (x * slopes[groups]).sum(1), groups), batch_size=16)


def fit(lightning: Any, loss: GroupLoss, folder: Path, *, n_epochs: int, resume: Path | None = None) -> Any:
    module = regression(lightning, loss)
    trainer = lightning.Trainer(
        max_epochs=n_epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    # torch takes the state of the optimizer and the position in the epoch for more than data
    trainer.fit(module, batches(), ckpt_path=resume, **({} if resume is None else {"weights_only": False}))
    assert trainer.global_step == BATCHES * n_epochs
    trainer.save_checkpoint(folder / f"{n_epochs}.ckpt")
    return module


@pytest.mark.parametrize("loss_class", [MinMaxLoss, GroupDROLoss])
def test_resumed_equals_uninterrupted(lightning: Any, loss_class: Any, tmp_path: Path) -> None:
    whole = fit(lightning, loss_class(2), tmp_path, n_epochs=N_EPOCHS)
    fit(lightning, loss_class(2), tmp_path, n_epochs=INTERRUPTED_AT)
    checkpoint = tmp_path / f"{INTERRUPTED_AT}.ckpt"
    resumed = fit(lightning, loss_class(2), tmp_path, n_epochs=N_EPOCHS, resume=checkpoint)
    expected = whole.state_dict()
    assert any(name.startswith("loss.") for name in expected)
    for name, value in resumed.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, equal_nan=True)


def test_the_state_of_the_loss_is_part_of_it(lightning: Any, tmp_path: Path) -> None:
    """Resuming with a new loss in place of the saved one gives another model: the test above can fail."""
    whole = fit(lightning, GroupDROLoss(2), tmp_path, n_epochs=N_EPOCHS)
    fit(lightning, GroupDROLoss(2), tmp_path, n_epochs=INTERRUPTED_AT)
    content = torch.load(tmp_path / f"{INTERRUPTED_AT}.ckpt", weights_only=False)
    fresh = regression(lightning, GroupDROLoss(2)).state_dict()
    content["state_dict"] |= {name: value for name, value in fresh.items() if name.startswith("loss.")}
    torch.save(content, tmp_path / "fresh.ckpt")
    other = fit(lightning, GroupDROLoss(2), tmp_path, n_epochs=N_EPOCHS, resume=tmp_path / "fresh.ckpt")
    assert not torch.equal(other.model.weight, whole.model.weight)
