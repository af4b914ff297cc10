"""The training of ``watch_digits.py`` with Lightning: ``python examples/watch_lightning.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from watch_digits import BATCH, N_STEPS, DigitGenerator, load, make_watch

from egtmetrics.integrations import GroupWatch, GroupWatchCallback


class DigitModule(pl.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.generator = DigitGenerator()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.generator(*batch)["loss"]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)

    def sample(self, *arguments: Any) -> Any:
        return self.generator.sample(*arguments)


def main(folder: Path | None = None, *, n_steps: int = N_STEPS, n_samples: int = 600) -> GroupWatch:
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    torch.manual_seed(0)
    data, reference = load()
    watch = make_watch(folder, reference, every=n_steps // 8, n_samples=n_samples)
    trainer = pl.Trainer(
        max_steps=n_steps,
        accelerator="cpu",
        callbacks=[GroupWatchCallback(watch)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    trainer.fit(DigitModule(), loader)
    print(f"\n{watch.selection.text(watch.rescored)}.")
    return watch


if __name__ == "__main__":
    main()
