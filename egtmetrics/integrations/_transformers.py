"""A watch in the Trainer of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.integrations._watch import GroupWatch


class GroupWatchTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """Let a :class:`~egtmetrics.integrations.GroupWatch` look at the model of a ``transformers.Trainer``.

    Parameters
    ----------
    watch
        What looks. Its steps are optimizer steps (``state.global_step``). When it says stop, the training ends. The
        scalars are in ``trainer.state.log_history`` as well.
    rescore
        Whether to score the best checkpoint again on fresh samples when the training ends.

    Attributes
    ----------
    frame : GenerativeMetricFrame or None
        The best checkpoint on fresh samples, after the training.

    Examples
    --------
    ::

        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[GroupWatchTrainerCallback(watch)])
    """

    def __init__(self, watch: GroupWatch, *, rescore: bool = True) -> None:
        self.watch, self.rescore = watch, rescore
        self.frame: GenerativeMetricFrame | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        def remember(scalars: Mapping[str, float], step: int) -> None:
            state.log_history.append({**scalars, "step": step})

        stop = self.watch.step(
            kwargs["model"], state.global_step, is_main=state.is_world_process_zero, loggers=[remember]
        )
        control.should_training_stop = control.should_training_stop or stop
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self.rescore:
            self.frame = self.watch.finish(kwargs["model"], is_main=state.is_world_process_zero)
        return control
