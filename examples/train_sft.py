"""Fine-tune a language model for its worst group with the SFTTrainer of TRL: ``python examples/train_sft.py [FILE]``.

FILE is a JSONL file of objects with ``prompt``, ``completion`` and the group, an integer ``sex``; without it, one is
made. The model is tiny and random, so that it takes half a minute on two cores; put a real one and its tokenizer in
its place. The checkpoint that is kept is the one whose worst group has the smallest loss on held-out rows.

What a fine-tuning without groups does not have is marked "by group".
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from egtmetrics.training import MinMaxLoss
from egtmetrics.training.trainer import GroupCollator, GroupLossTrainerMixin

PLACES = ("French", "Polish", "Italian", "Swedish", "Irish", "Danish", "German", "Scottish")
WORK = {
    0: ("poet", "painter", "composer"),
    1: ("chemist who devised a theory of crystals", "engineer noted for bridges", "botanist who named many plants"),
}
"""What is said of each group; the texts of group 1, a quarter of all, are longer and harder to guess."""


class GroupSFTTrainer(GroupLossTrainerMixin, SFTTrainer):  # type: ignore[misc]
    """By group: the mixin stands before the trainer."""


def write_rows(path: Path) -> None:
    """Write 96 biographies, three of group 0 for one of group 1."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(96):
            sex = int(i % 4 == 3)
            text = f" {PLACES[i % 8]} {WORK[sex][i % 3]} ({1700 + i}-{1760 + i})"
            file.write(json.dumps({"prompt": "A biography:", "completion": text, "sex": sex}) + "\n")


def tiny_model(texts: list[str]) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config), tokenizer


def main(path: Path | None = None, *, n_steps: int = 60, folder: Path | None = None) -> Any:
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    if path is None:
        path = folder / "biographies.jsonl"
        write_rows(path)
    rows = Dataset.from_json(str(path), cache_dir=str(folder / "cache"))
    held_out = list(range(0, len(rows), 5))
    torch.manual_seed(0)
    model, tokenizer = tiny_model([row["prompt"] + row["completion"] for row in rows])
    every = max(1, n_steps // 4)
    arguments = SFTConfig(
        output_dir=str(folder / "trainer"),
        max_steps=n_steps,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=2e-3,
        eval_strategy="steps",
        eval_steps=every,
        save_steps=every,
        logging_steps=every,
        metric_for_best_model="eval_worst_group_loss",  # by group
        greater_is_better=False,
        load_best_model_at_end=True,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = GroupSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.select([i for i in range(len(rows)) if i not in held_out]),
        eval_dataset=rows.select(held_out),
        processing_class=tokenizer,
        data_collator=GroupCollator(DataCollatorForLanguageModeling(tokenizer.pad_token_id), "sex"),  # by group
        group_loss=MinMaxLoss(2),  # by group
        group_column="sex",  # by group
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    print(f"kept {Path(best).name}: held-out loss of the worst group {trainer.state.best_metric:.3f}")
    return trainer


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
