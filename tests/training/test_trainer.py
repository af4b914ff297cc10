"""The mixin in the Trainer of transformers, against the plain loop; with tiny random models made here."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from egtmetrics.training import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

from transformers import Trainer, TrainingArguments

from egtmetrics.paper.causal_lm import add_lora
from egtmetrics.training.language import answer_losses, losses_of_texts
from egtmetrics.training.trainer import GroupLossTrainerMixin
from tests._ranks import on_ranks
from tests.training import _tiny

TOKENIZER = _tiny.tokenizer()
TEXTS = _tiny.biographies(TOKENIZER)


class GroupTrainer(GroupLossTrainerMixin, Trainer):
    """In the order of the data, so that the batches are known."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(TEXTS)


def build() -> Any:
    return add_lora(_tiny.llama(len(TOKENIZER)), random_state=1)


UNLABELLED = (2, 3, 4, 8)
_EPSILON = 1e-5
"""Of Adam, in both loops. With the usual 1e-8 a weight whose gradient is almost 0 moves by the rounding of it."""
"""Texts without a label in ``PARTLY``: a whole part of the first step, and one text in either of the others."""
PARTLY = [{**TEXTS[i], "labels": [-100] * len(TEXTS.tokens[i])} if i in UNLABELLED else TEXTS[i] for i in range(10)]


def make(
    folder: Path, loss: GroupLoss, model: Any = None, texts: Any = TEXTS, eval_texts: Any = None, **options: Any
) -> GroupTrainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        **{
            "weight_decay": 0.01,
            "learning_rate": 1e-2,
            "adam_epsilon": _EPSILON,
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
        train_dataset=texts,
        eval_dataset=eval_texts,
        data_collator=TEXTS.collate,
        group_loss=loss,
    )


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}


STRATEGIES: dict[str, Callable[[], GroupLoss]] = {
    "mean": lambda: MeanLoss(2),
    "reweighted": lambda: ReweightedLoss(target="ego", source=[0.7, 0.3]),
    "min-max": lambda: MinMaxLoss(2),
    "group DRO": lambda: GroupDROLoss(2, step_size=0.5),
}
SHARED = ("min-max", "group DRO")
"""Those whose weights depend on what every process has seen."""


def plain(loss: GroupLoss, *, size: int, n_steps: int, without: Sequence[int] = ()) -> Any:
    """The steps of ``train_language_model`` in the order of the data: an epoch is 10 texts, its last batch the rest.

    The texts ``without`` are taken out of the batches.
    """
    model = build().train()
    optimizer = torch.optim.AdamW(
        [w for w in model.parameters() if w.requires_grad], lr=1e-2, weight_decay=0.01, eps=_EPSILON
    )
    starts = [start for _ in range(n_steps) for start in range(0, 10, size)][:n_steps]
    for start in starts:
        batch = TEXTS.collate([TEXTS[i] for i in range(start, min(start + size, 10)) if i not in without])
        optimizer.zero_grad()
        with loss.accumulate(batch["groups"]):
            loss(answer_losses(model, batch), batch["groups"]).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("strategy", "batch_size", "accumulation"),
    # every strategy, every cut, and both kinds of weights under the cuts that are not even
    [
        ("mean", 1, 4),
        ("reweighted", 2, 2),
        ("reweighted", 1, 3),
        ("min-max", 4, 1),
        ("min-max", 1, 3),
        ("group DRO", 2, 2),
    ],
)
def test_it_trains_as_the_plain_loop(strategy: str, batch_size: int, accumulation: int, tmp_path: Path) -> None:
    """However the batch is cut into parts; the last of an epoch is smaller."""
    loss, expected_loss = STRATEGIES[strategy](), STRATEGIES[strategy]()
    trainer = make(
        tmp_path, loss, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation, max_steps=7
    )
    before = weights(trainer.model)
    trainer.train()
    expected = plain(expected_loss, size=batch_size * accumulation, n_steps=7)
    after = weights(trainer.model)
    assert min(float((after[name] - w).abs().max()) for name, w in before.items()) > 1e-3
    torch.testing.assert_close(after, weights(expected), rtol=1e-3, atol=5e-5)
    torch.testing.assert_close(loss.state_dict(), expected_loss.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "batch_size", "accumulation"),
    [("mean", 2, 2), ("reweighted", 1, 4), ("min-max", 4, 1), ("min-max", 1, 4), ("group DRO", 2, 2)],
)
def test_texts_without_labels_are_as_if_they_were_not_there(
    strategy: str, batch_size: int, accumulation: int, tmp_path: Path
) -> None:
    """In every step, more often than losses may be NaN in a row; alone in a part, and beside others."""
    loss, expected_loss = STRATEGIES[strategy](), STRATEGIES[strategy]()
    loss.max_nonfinite = 0
    trainer = make(
        tmp_path, loss, texts=PARTLY,
        per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation, max_steps=4,
    )  # fmt: skip
    trainer.train()
    expected = plain(expected_loss, size=4, n_steps=4, without=UNLABELLED)
    torch.testing.assert_close(weights(trainer.model), weights(expected), rtol=1e-3, atol=5e-5)
    torch.testing.assert_close(loss.state_dict(), expected_loss.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_without_any_label_has_no_gradient(strategy: str, tmp_path: Path) -> None:
    nothing = [{**row, "labels": [-100] * len(row["labels"])} for row in PARTLY]
    loss = STRATEGIES[strategy]()
    trainer = make(tmp_path, loss, texts=nothing, max_steps=3, weight_decay=0.0)
    before = weights(trainer.model)
    trainer.train()
    torch.testing.assert_close(weights(trainer.model), before, rtol=0, atol=0)
    assert loss.group_losses.isnan().all()


def test_an_evaluation_leaves_texts_without_labels_out(tmp_path: Path) -> None:
    loss = MeanLoss(2)
    trainer = make(tmp_path, loss, texts=PARTLY, per_device_eval_batch_size=10)
    expected = losses_of_texts(trainer.model, TEXTS).numpy()
    expected[list(UNLABELLED)] = np.nan
    prediction = trainer.predict(PARTLY)
    np.testing.assert_allclose(prediction.predictions, expected, rtol=1e-4)
    assert prediction.metrics["test_loss"] == pytest.approx(np.nanmean(expected), rel=1e-4)
    assert np.isnan(trainer.evaluate([PARTLY[i] for i in UNLABELLED])["eval_loss"])  # the mean of nothing


@pytest.mark.parametrize("remove", [True, False])
def test_the_groups_are_not_removed(remove: bool, tmp_path: Path) -> None:
    loss = MeanLoss(2)
    make(tmp_path, loss, max_steps=1, remove_unused_columns=remove).train()
    assert loss.n_updates.sum() > 0


@pytest.mark.parametrize("strategy", ["min-max", "group DRO"])
def test_a_resumed_training_is_the_whole_one(strategy: str, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", STRATEGIES[strategy]())
    whole.train()
    state = whole.group_loss.state_dict()
    options = {"save_strategy": "steps", "save_steps": 2}
    make(tmp_path / "part", STRATEGIES[strategy](), **options, max_steps=4).train()
    shutil.rmtree(tmp_path / "part" / "checkpoint-4")  # killed after the checkpoint before
    resumed = make(tmp_path / "part", STRATEGIES[strategy](), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-2"))
    assert resumed.state.global_step == 6
    torch.testing.assert_close(weights(resumed.model), weights(whole.model), rtol=0, atol=0)
    torch.testing.assert_close(resumed.group_loss.state_dict(), state, rtol=0, atol=0)


def test_checkpoints_without_the_averages_or_of_another_strategy_are_refused(tmp_path: Path) -> None:
    make(tmp_path, MinMaxLoss(2), save_strategy="steps", save_steps=2, max_steps=2).train()
    checkpoint = str(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match=r"loss\.decay was 0\.9, is 0\.5"):
        make(tmp_path, MinMaxLoss(2, decay=0.5)).train(resume_from_checkpoint=checkpoint)
    (tmp_path / "checkpoint-2" / "group_loss.pt").unlink()
    with pytest.raises(ValueError, match=r"has no group_loss\.pt, so it was not written by a Trainer with this mixin"):
        make(tmp_path, MinMaxLoss(2)).train(resume_from_checkpoint=checkpoint)


def test_an_evaluation_changes_nothing_and_predicts_the_losses(tmp_path: Path) -> None:
    loss = MinMaxLoss(2)
    trainer = make(tmp_path, loss, max_steps=2)
    trainer.train()
    before = copy.deepcopy(loss.state_dict())
    prediction = trainer.predict(TEXTS)
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)
    expected = losses_of_texts(trainer.model, TEXTS).numpy()
    np.testing.assert_allclose(prediction.predictions, expected, rtol=1e-4)
    worst = int(loss.group_losses.argmax())
    whole = make(tmp_path, loss, model=trainer.model, per_device_eval_batch_size=10)
    mean = expected[np.array(_tiny.GROUPS) == worst].mean()
    assert whole.evaluate(TEXTS)["eval_loss"] == pytest.approx(mean, rel=1e-4)


def test_logs_have_the_groups_and_the_worst_one_selects_the_checkpoint(tmp_path: Path) -> None:
    options = {
        "logging_strategy": "steps", "logging_steps": 1, "max_steps": 2, "save_strategy": "steps", "save_steps": 1,
        "eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "worst_group_loss",
        "greater_is_better": False, "load_best_model_at_end": True,
    }  # fmt: skip
    loss = MinMaxLoss(2)
    trainer = make(tmp_path, loss, eval_texts=PARTLY, **options)
    trainer.train()
    history = trainer.state.log_history
    trained = [row for row in history if "loss" in row]
    assert len(trained) == 2
    assert trained[-1].items() >= loss.log_entries().items()
    evaluated = [row for row in history if "eval_loss" in row]
    assert trainer.state.best_metric == min(row["eval_worst_group_loss"] for row in evaluated)
    metrics, groups = trainer.evaluate(), np.array(_tiny.GROUPS)
    expected = losses_of_texts(trainer.model, TEXTS).numpy()
    kept = ~np.isin(np.arange(10), UNLABELLED)
    by_group = [expected[kept & (groups == a)].mean() for a in range(2)]
    assert [metrics[f"eval_group_loss_{a}"] for a in range(2)] == pytest.approx(by_group, rel=1e-4)
    assert metrics["eval_worst_group_loss"] == pytest.approx(max(by_group), rel=1e-4)
    alone = trainer.evaluate([TEXTS[0]])
    assert alone["eval_worst_group_loss"] == pytest.approx(expected[0], rel=1e-4)
    assert np.isnan(alone["eval_group_loss_1"])


def test_the_checkpoint_with_the_best_worst_group_is_loaded_at_the_end(tmp_path: Path) -> None:
    """A learning rate so large that the model gets worse after its first steps: the best one is not the last."""
    options = {
        "max_steps": 6, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
        "metric_for_best_model": "eval_worst_group_loss", "greater_is_better": False, "load_best_model_at_end": True,
        "learning_rate": 3.0,
    }  # fmt: skip
    trainer = make(tmp_path, MinMaxLoss(2), eval_texts=TEXTS, **options)
    trainer.train()
    found = {row["step"]: row["eval_worst_group_loss"] for row in trainer.state.log_history if "eval_loss" in row}
    best = min(found, key=lambda step: found[step])
    assert len(found) == 6
    assert best < 6
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    assert trainer.evaluate()["eval_worst_group_loss"] == pytest.approx(found[best], rel=1e-5)
    assert found[6] > 1.001 * found[best]


def test_after_an_error_in_a_step_the_next_training_is_none_the_worse(tmp_path: Path) -> None:
    loss, calls = MinMaxLoss(2), iter(range(100))
    trainer = make(tmp_path, loss)

    def fail(*_: Any) -> None:
        if next(calls) == 1:
            raise RuntimeError("power cut")

    hook = trainer.model.get_input_embeddings().register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    assert loss.n_updates.sum() == 0
    hook.remove()
    trainer.train()
    assert loss.n_updates.sum() > 0


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class RegressionTrainer(GroupLossTrainerMixin, Trainer):
    def per_sample_losses(self, model: Any, inputs: Any) -> Tensor:
        losses: Tensor = (model(inputs["x"]) - 1.0).square()
        return losses


def test_any_model_will_do_that_has_losses_per_sample(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    data = [{"x": torch.randn(3, generator=generator), "sex": torch.tensor(i % 2)} for i in range(8)]
    model = Linear()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, max_steps=1, max_grad_norm=0.0,
        optim="sgd", learning_rate=0.1, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        save_strategy="no", lr_scheduler_type="constant",
    )  # fmt: skip
    RegressionTrainer(
        model=model, args=arguments, train_dataset=data, group_loss=MeanLoss(2), group_column="sex"
    ).train()
    x = torch.stack([row["x"] for row in data])
    torch.testing.assert_close(model.weight.detach(), 0.2 * x.mean(dim=0))  # one step down the mean of (x w - 1)^2


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    class Alone(GroupLossTrainerMixin):
        pass

    with pytest.raises(TypeError, match="needs a Trainer behind it"):
        Alone(group_loss=MeanLoss(2))
    with pytest.raises(ValueError, match="group_loss has n_bins=3"):
        make(tmp_path, MeanLoss(2, n_bins=3))
    trainer = make(tmp_path, MeanLoss(2))
    trainer.data_collator = lambda rows: {k: v for k, v in TEXTS.collate(rows).items() if k != "groups"}
    with pytest.raises(ValueError, match=r"batches hold input_ids, attention_mask, labels, but no 'groups'"):
        trainer.train()


def run(rank: int, size: int) -> dict[str, Any]:
    """What either of two processes finds."""
    torch.set_num_threads(1)
    results = {}
    for name in SHARED:
        loss = STRATEGIES[name]()
        # One row a part on each of two processes, in two parts: steps of four, as on one process with two rows a part.
        with tempfile.TemporaryDirectory() as folder:
            trainer = make(Path(folder), loss, per_device_train_batch_size=1, ddp_backend="gloo")
            trainer.train()
        assert (trainer.args.process_index, trainer.args.world_size) == (rank, size)
        results[name] = {
            "weights": weights(trainer.accelerator.unwrap_model(trainer.model)),
            "state": loss.state_dict(),
        }
        loss = STRATEGIES[name]()
        with tempfile.TemporaryDirectory() as folder:
            trainer = make(
                Path(folder), loss, texts=PARTLY, per_device_train_batch_size=1, per_device_eval_batch_size=5,
                ddp_backend="gloo",
            )  # fmt: skip
            trainer.train()
            results["evaluated"] = trainer.evaluate(TEXTS)
        model = trainer.accelerator.unwrap_model(trainer.model)
        results["expected"] = losses_of_texts(model, TEXTS).numpy()
        results[f"{name}, some without labels"] = {"weights": weights(model), "state": loss.state_dict()}
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(run, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(("texts", "without"), [("", ()), (", some without labels", UNLABELLED)])
@pytest.mark.parametrize("strategy", SHARED)
def test_two_processes_train_as_one(
    ranks: list[dict[str, Any]], strategy: str, texts: str, without: tuple[int, ...]
) -> None:
    """Epochs of 10 texts in steps of 4, 4 and 2: the last has one part on each process.

    Without some labels, the second part of the first step has none on either process, and later parts on one.
    """
    first, second = (results[f"{strategy}{texts}"] for results in ranks)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    loss = STRATEGIES[strategy]()
    one = plain(loss, size=4, n_steps=6, without=without)
    torch.testing.assert_close(first["state"], loss.state_dict(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first["weights"], weights(one), rtol=1e-3, atol=5e-5)


def test_two_processes_evaluate_as_one(ranks: list[dict[str, Any]]) -> None:
    for results in ranks:
        by_group = [results["expected"][np.array(_tiny.GROUPS) == a].mean() for a in range(2)]
        found = [results["evaluated"][f"eval_group_loss_{a}"] for a in range(2)]
        assert found == pytest.approx(by_group, rel=1e-4)
        assert results["evaluated"]["eval_worst_group_loss"] == max(found)


def test_the_trainer_is_the_one_of_transformers() -> None:
    assert GroupTrainer.__mro__[1:3] == (GroupLossTrainerMixin, Trainer)
