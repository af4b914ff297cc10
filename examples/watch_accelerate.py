"""The training of ``watch_digits.py`` with accelerate: ``python examples/watch_accelerate.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from watch_digits import BATCH, N_STEPS, DigitGenerator, load, make_watch

from egtmetrics.integrations import GroupWatch


def main(folder: Path | None = None, *, n_steps: int = N_STEPS, n_samples: int = 600) -> GroupWatch:
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    torch.manual_seed(0)
    data, reference = load()
    watch = make_watch(folder, reference, every=n_steps // 8, n_samples=n_samples)
    accelerator = Accelerator(cpu=True)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    generator = DigitGenerator()
    model, optimizer, loader = accelerator.prepare(generator, torch.optim.Adam(generator.parameters(), lr=2e-3), loader)
    step, done = 0, False
    while not done:
        for images, digits in loader:
            optimizer.zero_grad()
            accelerator.backward(model(images, digits)["loss"])
            optimizer.step()
            step += 1
            stop = watch.step(
                accelerator.unwrap_model(model), step, is_main=accelerator.is_main_process, loggers=[accelerator]
            )
            done = stop or step == n_steps
            if done:
                break
    if accelerator.is_main_process:
        watch.rescore(accelerator.unwrap_model(model))
        print(f"\n{watch.selection.text(watch.rescored)}.")
    return watch


if __name__ == "__main__":
    main()
