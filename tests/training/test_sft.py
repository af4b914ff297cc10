"""Group losses in the SFTTrainer of TRL, against the plain loop; with a tiny random model made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from egtmetrics.training import MinMaxLoss

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("datasets")

import datasets
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from egtmetrics.training.language import answer_losses
from egtmetrics.training.trainer import GroupCollator, GroupLossTrainerMixin
from tests.training import _tiny

TOKENIZER = _tiny.tokenizer()
ROWS = [
    {"prompt": "A Biography:", "completion": f" {text}", "sex": a}
    for text, a in zip(_tiny.TEXTS, _tiny.GROUPS, strict=True)
]
OPTIONS: dict[str, Any] = {
    "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no",
    "lr_scheduler_type": "constant", "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 1.0, "bf16": False,
    "per_device_train_batch_size": 5, "gradient_accumulation_steps": 2, "max_steps": 2,
}  # fmt: skip
"""Every step has all ten rows, so their order does not matter; SGD and clipping see the size of a gradient."""


def model() -> Any:
    return _tiny.llama(len(TOKENIZER))


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def plain(rows: list[tuple[list[int], int]]) -> tuple[dict[str, torch.Tensor], MinMaxLoss]:
    """Two steps on all rows of tokens, of which the first ones are a prompt."""
    loss, groups, network = MinMaxLoss(2), torch.tensor(_tiny.GROUPS), model().train()
    longest = max(len(tokens) for tokens, _ in rows)
    ids, labels = torch.full((len(rows), longest), 2), torch.full((len(rows), longest), -100)
    mask = torch.zeros_like(ids)
    for i, (tokens, n_prompt) in enumerate(rows):
        ids[i, : len(tokens)], mask[i, : len(tokens)] = torch.tensor(tokens), 1
        labels[i, n_prompt : len(tokens)] = torch.tensor(tokens[n_prompt:])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        with loss.accumulate(groups):
            loss(
                answer_losses(network, {"input_ids": ids, "attention_mask": mask, "labels": labels}), groups
            ).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return weights(network), loss


def check(trainer: Any, rows: list[tuple[list[int], int]]) -> None:
    before = weights(trainer.model)
    trainer.train()
    expected, loss = plain(rows)
    found = weights(trainer.model)
    assert max(float((found[name] - weight).abs().max()) for name, weight in before.items()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=5e-5)
    torch.testing.assert_close(trainer.group_loss.state_dict(), loss.state_dict(), rtol=1e-4, atol=1e-5)


class GroupTrainer(GroupLossTrainerMixin, Trainer):
    pass


def test_the_trainer_of_trl_trains_as_the_plain_loop(tmp_path: Path) -> None:
    """On prompts and completions as text, which TRL tokenises; only the completion is learnt."""
    sft = pytest.importorskip("trl.trainer.sft_trainer")

    class GroupSFTTrainer(GroupLossTrainerMixin, sft.SFTTrainer):  # type: ignore[misc, name-defined]
        pass

    trainer = GroupSFTTrainer(
        model=model(), args=sft.SFTConfig(output_dir=str(tmp_path), **OPTIONS),
        train_dataset=datasets.Dataset.from_list(ROWS), processing_class=TOKENIZER,
        data_collator=GroupCollator(sft.DataCollatorForLanguageModeling(TOKENIZER.pad_token_id), "sex"),
        group_loss=MinMaxLoss(2), group_column="sex",
    )  # fmt: skip
    prompts = [TOKENIZER(row["prompt"])["input_ids"] for row in ROWS]
    wholes = [TOKENIZER(row["prompt"] + row["completion"] + TOKENIZER.eos_token)["input_ids"] for row in ROWS]
    metrics = trainer.evaluate(datasets.Dataset.from_list(ROWS))
    assert metrics["eval_worst_group_loss"] == max(metrics[f"eval_group_loss_{a}"] for a in range(2)) > 0.0
    prediction = trainer.predict(trainer.train_dataset)
    mine = GroupTrainer(
        model=trainer.model, args=trainer.args, data_collator=trainer.data_collator, group_loss=MinMaxLoss(2),
        group_column="sex",
    ).predict(trainer.train_dataset)  # fmt: skip
    assert prediction.predictions.shape == (10,)
    assert prediction.predictions == pytest.approx(mine.predictions, rel=1e-5)
    assert prediction.metrics["test_worst_group_loss"] == pytest.approx(metrics["eval_worst_group_loss"], rel=1e-5)
    check(trainer, [(whole, len(prompt)) for whole, prompt in zip(wholes, prompts, strict=True)])


def test_the_collator_of_transformers_labels_every_token(tmp_path: Path) -> None:
    """Also the first, which nothing predicts."""
    rows = [TOKENIZER(row["completion"])["input_ids"] for row in ROWS]
    trainer = GroupTrainer(
        model=model(), args=TrainingArguments(output_dir=str(tmp_path), **OPTIONS),
        train_dataset=[{"input_ids": tokens, "groups": row["sex"]} for tokens, row in zip(rows, ROWS, strict=True)],
        data_collator=GroupCollator(DataCollatorForLanguageModeling(TOKENIZER, mlm=False)), group_loss=MinMaxLoss(2),
    )  # fmt: skip
    check(trainer, [(tokens, 1) for tokens in rows])


def test_rows_without_a_group_are_refused() -> None:
    collate = GroupCollator(lambda rows: {}, "sex")
    with pytest.raises(
        ValueError, match="rows 1 of a batch hold x, groups, but no 'sex'; give the dataset that column"
    ):
        collate([{"x": 1, "sex": 0}, {"x": 1, "groups": 0}])
