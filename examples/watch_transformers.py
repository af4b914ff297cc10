"""The training of ``watch_digits.py`` with the Trainer of transformers: ``python examples/watch_transformers.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from watch_digits import BATCH, N_STEPS, DigitGenerator, load, make_watch

from egtmetrics.integrations import GroupWatch, GroupWatchTrainerCallback


def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
    images, digits = zip(*rows, strict=True)
    return {"images": torch.stack(images), "digits": torch.stack(digits)}


def main(folder: Path | None = None, *, n_steps: int = N_STEPS, n_samples: int = 600) -> GroupWatch:
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    torch.manual_seed(0)
    data, reference = load()
    watch = make_watch(folder, reference, every=n_steps // 8, n_samples=n_samples)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=n_steps,
        per_device_train_batch_size=BATCH,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=DigitGenerator(),
        args=arguments,
        train_dataset=data,
        data_collator=collate,
        callbacks=[GroupWatchTrainerCallback(watch)],
    )
    trainer.train()
    print(f"\n{watch.selection.text(watch.rescored)}.")
    return watch


if __name__ == "__main__":
    main()
