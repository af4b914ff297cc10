"""What one process of test_trainer.py runs: ``python _trainer_ranks.py <folder>``, started as torchrun would."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from egtmetrics.training import GroupDROLoss, GroupLoss, MinMaxLoss
from egtmetrics.training.language import add_lora
from egtmetrics.training.prompts import tokenise
from egtmetrics.training.trainer import GroupLossTrainerMixin
from tests.training import _tiny

TOKENIZER = _tiny.tokenizer()
TEXTS = tokenise(TOKENIZER, _tiny.TEXTS, _tiny.GROUPS)


class GroupTrainer(GroupLossTrainerMixin, Trainer):
    """In the order of the data, so that batches can be told."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(TEXTS)


def build() -> Any:
    return add_lora(_tiny.llama(len(TOKENIZER)), random_state=1)


def make(folder: Path, loss: GroupLoss, model: Any = None, **options: Any) -> GroupTrainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        max_grad_norm=0.0,
        **{
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "save_strategy": "no",
            "max_steps": 6,
            "logging_strategy": "no",
            **options,
        },
    )
    return GroupTrainer(
        model=build() if model is None else model,
        args=arguments,
        train_dataset=TEXTS,
        data_collator=TEXTS.collate,
        group_loss=loss,
    )


def strategies() -> dict[str, GroupLoss]:
    return {"min-max": MinMaxLoss(2), "group DRO": GroupDROLoss(2, step_size=0.5)}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}


def run(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    # By a file, not by MASTER_PORT: another test may take a port that was free.
    rendezvous = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    results = {}
    for name, loss in strategies().items():
        # One row a part on each of two processes, in two parts: steps of four, as on one process with two rows a part.
        trainer = make(folder / "out", loss, per_device_train_batch_size=1, ddp_backend="gloo")
        trainer.train()
        assert trainer.args.process_index == rank
        results[name] = {
            "weights": weights(trainer.accelerator.unwrap_model(trainer.model)),
            "state": loss.state_dict(),
        }
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
