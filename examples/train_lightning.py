"""Train a diffusion model for its worst group with Lightning: ``python examples/train_lightning.py``.

A batch of 256 digits goes through the network 64 at a time, as if memory held no more, and is still one step: the group
that counts is chosen once for it, and the gradients of its parts add up. It takes half a minute on two cores.

What a module without groups does not have is marked "by group".
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from egtmetrics.training import (
    Denoiser,
    EDMPreconditioning,
    MinMaxLoss,
    NoiseLevels,
    ResidualMLP,
    WeightEMA,
    denoising_losses,
)

PART = 64


class DigitModule(pl.LightningModule):  # type: ignore[misc]
    """A denoiser of digits; its loss and average are saved with it, since they are submodules."""

    def __init__(self, part: int = PART) -> None:
        super().__init__()
        self.automatic_optimization = False  # by group: Lightning shows one part at a time, without those to come
        self.part = part
        self.denoiser = Denoiser(ResidualMLP(64, width=128, n_blocks=2), EDMPreconditioning(sigma_data=0.7))
        self.levels = NoiseLevels(self.denoiser.preconditioning.law, n_bins=4)
        self.strategy = MinMaxLoss(2, n_bins=4)  # by group
        self.average = WeightEMA(self.denoiser, half_life=20_000)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, groups = batch
        sigma = self.levels.law.sample(len(x), device=x.device)
        bins = self.levels.bin_of(sigma)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        with self.strategy.accumulate(groups, bins):  # by group
            for start in range(0, len(x), self.part):
                rows = slice(start, start + self.part)
                per_sample = denoising_losses(self.denoiser, x[rows], sigma[rows])
                self.manual_backward(self.strategy(per_sample, groups[rows], bins[rows]))  # by group
        optimizer.step()
        self.average.update(self.denoiser, n_samples=len(x) * self.trainer.world_size)
        self.log_dict(self.strategy.log_entries())  # by group

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.denoiser.parameters(), lr=1e-3)


def load() -> TensorDataset:
    """Return 600 digits from -1 to 1, three below five for one from five up, and their groups."""
    images, digits = load_digits(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(digits < 5)[:450], np.flatnonzero(digits >= 5)[:150]])
    return TensorDataset(torch.tensor(images[rows] / 8.0 - 1.0, dtype=torch.float32), torch.tensor(digits[rows] // 5))


def main(folder: Path | None = None, *, n_steps: int = 400, batch_size: int = 256, part: int = PART) -> DigitModule:
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    torch.manual_seed(0)
    module = DigitModule(part)
    trainer = pl.Trainer(
        max_steps=n_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(load(), batch_size=batch_size, shuffle=True, drop_last=True))
    losses = module.strategy.group_losses.nanmean(dim=1).tolist()
    print(
        f"average loss after {trainer.global_step} steps: digits below five {losses[0]:.3f}, the others {losses[1]:.3f}"
    )
    return module


if __name__ == "__main__":
    main()
