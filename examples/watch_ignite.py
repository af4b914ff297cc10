"""The training of ``watch_digits.py`` with PyTorch-Ignite: ``python examples/watch_ignite.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from watch_digits import BATCH, N_STEPS, DigitGenerator, load, make_watch

from egtmetrics.integrations import GroupWatch, GroupWatchHandler


def main(folder: Path | None = None, *, n_steps: int = N_STEPS, n_samples: int = 600) -> GroupWatch:
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    torch.manual_seed(0)
    data, reference = load()
    watch = make_watch(folder, reference, every=n_steps // 8, n_samples=n_samples)
    model = DigitGenerator()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def train(engine: Engine, batch: Any) -> float:
        loss = model(*batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    trainer = Engine(train)
    GroupWatchHandler(watch, model).attach(trainer)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    epochs = -(-n_steps // len(loader))
    trainer.run(loader, max_epochs=epochs, epoch_length=-(-n_steps // epochs))
    print(f"\n{watch.selection.text(watch.rescored)}.")
    return watch


if __name__ == "__main__":
    main()
