"""Group losses in the Trainer of transformers: a mixin that weighs the groups once per optimizer step.

The Trainer shows a loss one part of a step at a time. But it draws the parts of a whole step in advance, so their
groups are known before the first: that is all :meth:`GroupLoss.accumulate` needs.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from egtmetrics._atomic import write_whole
from egtmetrics._errors import listed

from ._precision import exact_dtype
from .language import answer_losses, has_labels, import_extra
from .losses import GroupLoss
from .resumable import describe_loss, read_checkpoint, to_bytes

_STATE = "group_loss.pt"


@dataclasses.dataclass(frozen=True)
class GroupCollator:
    """A data collator that keeps the groups, around one that does not know them, such as that of TRL.

    The Trainer of transformers, and the SFTTrainer of TRL, join rows by their ``data_collator``, which drops or refuses
    columns that it does not know.

    Parameters
    ----------
    collator
        Joins rows to a batch; it gets the rows without the group.
    group_column
        Entry of a row that holds its group, an integer from 0, and of the batch for all of them, ``(n,)`` int64.

    Raises
    ------
    ValueError
        From the call: a row without the column.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training.trainer import GroupCollator
    >>> collate = GroupCollator(lambda rows: {"x": torch.tensor([row["x"] for row in rows])}, "sex")
    >>> collate([{"x": 1.5, "sex": 0}, {"x": 2.5, "sex": 1}])
    {'x': tensor([1.5000, 2.5000]), 'sex': tensor([0, 1])}
    """

    collator: Callable[[list[dict[str, Any]]], Mapping[str, Any]]
    group_column: str = "groups"

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        missing = [row for row, values in enumerate(rows) if self.group_column not in values]
        if missing:
            raise ValueError(
                f"rows {listed(missing)} of a batch hold {listed(rows[missing[0]])}, but no {self.group_column!r}; "
                "give the dataset that column, or name another group_column"
            )
        groups = torch.tensor([int(row[self.group_column]) for row in rows])
        others = [{name: value for name, value in row.items() if name != self.group_column} for row in rows]
        return {**self.collator(others), self.group_column: groups}


class GroupLossTrainerMixin:
    """Train under a strategy with the Trainer of transformers, or one derived from it.

    The groups are weighted once per optimizer step, by the averages of the steps before and the groups of all its parts
    on all processes. :func:`train_language_model` does the same, and gets the same weights from the same batches and
    options. Two traps are avoided: ``remove_unused_columns`` keeps the groups, and the loss is not divided by
    ``gradient_accumulation_steps`` again. The averages are saved in every checkpoint and restored from it.

    Parameters
    ----------
    group_loss
        The strategy, with ``n_bins=1``; moved to the Trainer's device.
    group_column
        Entry of a batch that holds the groups, ``(n,)`` integers from 0.

    Raises
    ------
    TypeError
        The mixin is used without the Trainer, or after it in the list of base classes.
    ValueError
        Batches without the column; several GPUs in one process (start one process for each, with torchrun); a
        checkpoint without the averages, or with those of another strategy.
    ImportError
        Without transformers, or with one too old.

    Notes
    -----
    :meth:`per_sample_losses` computes the losses that the strategy weights, by default :func:`answer_losses`; override
    it for other models. In evaluation, the loss is that of the strategy under the averages reached, and the predictions
    are the per-sample losses. ``average_tokens_across_devices`` and label smoothing have no effect. Unlike
    :func:`train_language_model`, the Trainer takes every step, even if its gradient is NaN.

    Beside ``loss``, logs have :meth:`GroupLoss.log_entries`. Evaluations measure ``eval_group_loss_<a>``, the mean loss
    of each group, and ``eval_worst_group_loss``, the largest of them, which can select a checkpoint
    (``metric_for_best_model``). On several processes they count the samples twice that accelerate repeats to fill the
    last batch. In the SFTTrainer of TRL, ``evaluate`` also takes texts, but ``predict`` only rows of tokens, such as
    those of ``trainer.eval_dataset``.

    Texts without a label (``labels`` of tokens that are all -100, as after cutting off the answer) count nowhere. In
    evaluation they are predicted NaN, and so is the loss of a batch without any other.

    Examples
    --------
    >>> from egtmetrics.training import MinMaxLoss
    >>> from egtmetrics.training.trainer import GroupLossTrainerMixin
    >>> from transformers import Trainer  # doctest: +SKIP
    >>> class GroupTrainer(GroupLossTrainerMixin, Trainer):
    ...     pass  # doctest: +SKIP
    >>> texts = tokenise(tokenizer, prompts, answers, groups)  # doctest: +SKIP
    >>> GroupTrainer(model=model, args=arguments, train_dataset=texts, data_collator=texts.collate,
    ...     group_loss=MinMaxLoss(2)).train()  # doctest: +SKIP

    With the SFTTrainer of TRL, on a dataset with a column of groups:

    >>> from trl import SFTTrainer  # doctest: +SKIP
    >>> from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # doctest: +SKIP
    >>> class GroupSFTTrainer(GroupLossTrainerMixin, SFTTrainer):
    ...     pass  # doctest: +SKIP
    >>> collator = GroupCollator(DataCollatorForLanguageModeling(tokenizer.pad_token_id))  # doctest: +SKIP
    >>> GroupSFTTrainer(model=model, args=arguments, train_dataset=dataset, data_collator=collator,
    ...     group_loss=MinMaxLoss(2)).train()  # doctest: +SKIP
    """

    args: Any  # these three belong to the Trainer
    state: Any
    accelerator: Any

    def __init__(self, *args: Any, group_loss: GroupLoss, group_column: str = "groups", **kwargs: Any) -> None:
        transformers = import_extra("transformers")
        if not isinstance(self, transformers.Trainer):
            raise TypeError(
                "GroupLossTrainerMixin needs a Trainer behind it; derive your class from it and Trainer, in this order"
            )
        trainer: Any = super()
        if not hasattr(trainer, "loss_is_scaled_for_ga"):
            raise ImportError(
                f"transformers {transformers.__version__} has no way to say that a loss is already scaled for gradient "
                "accumulation; pip install 'transformers>=5.24'"
            )
        self.group_column = group_column
        trainer.__init__(*args, **kwargs)
        if group_loss.n_bins != 1:
            raise ValueError(f"group_loss has n_bins={group_loss.n_bins}; build it with n_bins=1")
        if self.args.n_gpu > 1:
            raise ValueError(
                f"args has {self.args.n_gpu} GPUs in one process, so the strategy would not see their parts of a batch "
                "together; start one process for each, with torchrun"
            )
        self.group_loss = group_loss.to(self.args.device)
        self._strategy = describe_loss(group_loss)
        self._accumulation: AbstractContextManager[None] | None = None
        self._evaluated = self._no_losses()
        self._parts_left = 0
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True

    def per_sample_losses(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Loss of every sample of a batch, ``(n,)``; ``inputs`` is the batch without its groups."""
        return answer_losses(model, inputs, share_prompt=False)

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the value of the strategy for a part of a step, or for a batch in evaluation."""
        groups, kept = self._groups_of(inputs), self._rows_with_labels(inputs)
        per_sample = self.per_sample_losses(model, {k: v for k, v in inputs.items() if k != self.group_column})
        self.group_loss.train(model.training)
        loss = self.group_loss(per_sample[kept], groups[kept])
        if not model.training:
            rows = torch.stack([per_sample.detach()[kept], torch.ones_like(per_sample[kept])])
            self._evaluated.index_add_(1, groups[kept].long(), rows.to(self._evaluated.dtype))
            if not kept.any():
                loss = loss * torch.nan  # not 0, which would lower the mean over batches
        return (loss, {"losses": per_sample}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Mapping[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Any]:
        """Return the value of the strategy for a batch, and unless only that is asked for, its losses and labels.

        The Trainer of transformers computes no loss of rows without labels, and that of TRL asks for logits.
        """
        trainer: Any = self
        inputs = trainer._prepare_inputs(inputs)
        with torch.no_grad(), trainer.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        labels = [inputs[name] for name in trainer.label_names if inputs.get(name) is not None]
        return loss, outputs["losses"], tuple(labels) if len(labels) > 1 else next(iter(labels), None)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], None]:
        """Draw the parts of a step, and weight the groups by all of them."""
        trainer: Any = super()
        parts, _ = trainer.get_batch_samples(epoch_iterator, num_batches, device)
        if parts:
            groups = torch.cat([self._groups_of(part)[self._rows_with_labels(part)] for part in parts]).to(device)
            self.group_loss.train()
            self._accumulation = self.group_loss.accumulate(groups)
            self._accumulation.__enter__()
            self._parts_left = len(parts)
        return parts, None

    def training_step(self, model: Any, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Compute the gradients of one part; after the last, update the averages."""
        trainer: Any = super()
        assert self._accumulation is not None
        try:
            loss: Tensor = trainer.training_step(model, inputs, num_items_in_batch)
        except BaseException:
            self._accumulation.__exit__(*sys.exc_info())  # or the next step would count as a part of this one
            raise
        self._parts_left -= 1
        if self._parts_left == 0:
            self._accumulation.__exit__(None, None, None)
        return loss

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Evaluate as the Trainer does, and add the mean loss of each group and the largest of them to the metrics."""
        trainer: Any = super()
        self._evaluated = self._no_losses()
        output = trainer.evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix=metric_key_prefix
        )
        sums, counts = self.accelerator.reduce(self._evaluated, "sum")
        means, present = sums / counts, counts > 0
        for group, mean in enumerate(means.tolist()):
            output.metrics[f"{metric_key_prefix}_group_loss_{group}"] = mean
        worst = float(means[present].max()) if present.any() else float("nan")  # NaN if one of them is NaN
        output.metrics[f"{metric_key_prefix}_worst_group_loss"] = worst
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and beside the loss of training what :meth:`GroupLoss.log_entries` has."""
        trainer: Any = super()
        trainer.log({**logs, **self.group_loss.log_entries()} if "loss" in logs else logs, start_time)

    def _no_losses(self) -> Tensor:
        """Return sum and number of the losses of each group, ``(2, n_groups)``, before the first batch."""
        device = self.args.device
        return torch.zeros(2, self.group_loss.n_groups, dtype=exact_dtype(device), device=device)

    def _groups_of(self, inputs: Mapping[str, Any]) -> Tensor:
        if self.group_column not in inputs:
            raise ValueError(
                f"batches hold {', '.join(inputs)}, but no {self.group_column!r}; give the dataset that column, let "
                "the data_collator keep it, or name another group_column"
            )
        groups: Tensor = inputs[self.group_column]
        return groups

    def _rows_with_labels(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return which rows have a loss, ``(n,)`` bool: all, unless labels are those of tokens."""
        labels = inputs.get("labels")
        if isinstance(labels, Tensor) and labels.ndim == 2 and not labels.is_floating_point():
            return has_labels(inputs)
        return torch.ones_like(self._groups_of(inputs), dtype=torch.bool)

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the groups in a batch, from which the Trainer removes all that the model does not take."""
        trainer: Any = super()
        trainer._set_signature_columns_if_needed()
        self._signature_columns: list[str]
        if self.group_column not in self._signature_columns:
            self._signature_columns.append(self.group_column)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer: Any = super()
        if self.args.should_save:
            folder = Path(trainer._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            step = self.state.global_step
            content = {"settings": self._strategy, "step": step, "loss": self.group_loss.state_dict()}
            write_whole(folder / _STATE, to_bytes(content))
        trainer._save_checkpoint(model, trial)  # afterwards, since its last file makes a checkpoint complete

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        trainer: Any = super()
        trainer._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint) / _STATE
        if not path.is_file():
            raise ValueError(
                f"checkpoint {checkpoint} has no {_STATE}, so it was not written by a Trainer with this mixin; name "
                "another, or train from the start"
            )
        self.group_loss.load_state_dict(read_checkpoint(path, self._strategy, sys.maxsize)["loss"])
