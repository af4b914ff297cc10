"""Scores by group in the validation loop of Lightning, and a watch in its training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning.pytorch as pl

from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.groups.flat import flat_scores
from egtmetrics.integrations._watch import GroupWatch
from egtmetrics.streaming import GenerativeMetricStream, merge_ranks


class GroupMetricsCallback(pl.Callback):  # type: ignore[misc]
    """Collect samples during validation, and log their scores at the end of it.

    Parameters
    ----------
    stream
        A :class:`egtmetrics.GenerativeMetricStream`, which is reset before every validation. With several processes
        give it an integer ``random_state``: the streams of all ranks are merged, and every rank computes the scores.
    samples
        ``(outputs, batch) -> iterable of mappings``: the arguments of ``stream.update`` (``features``, ``real``,
        ``sensitive_features``) for one validation step. ``outputs`` is what ``validation_step`` returned.
    prefix
        Put before the names of the scores.

    Attributes
    ----------
    frame : GenerativeMetricFrame or None
        The frame of the last validation.

    Notes
    -----
    Logs :func:`egtmetrics.flat_scores`. The batches of Lightning's sanity check before training are left out.

    Examples
    --------
    ::

        def samples(outputs, batch):
            images, genders = batch
            yield {"features": encoder(images), "real": True, "sensitive_features": genders}
            yield {"features": encoder(outputs["fake"]), "real": False, "sensitive_features": genders}

        stream = GenerativeMetricStream(metrics="topp,fid", random_state=0)
        Trainer(callbacks=[GroupMetricsCallback(stream, samples)])
    """

    def __init__(
        self,
        stream: GenerativeMetricStream,
        samples: Callable[[Any, Any], Iterable[Mapping[str, Any]]],
        *,
        prefix: str = "val/",
    ) -> None:
        self.stream = stream
        self.samples = samples
        self.prefix = prefix
        self.frame: GenerativeMetricFrame | None = None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stream.reset()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            for arguments in self.samples(outputs, batch):
                self.stream.update(**arguments)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.world_size > 1:
            merge_ranks(self.stream)
        self.frame = self.stream.compute()
        pl_module.log_dict({f"{self.prefix}{name}": value for name, value in flat_scores(self.frame).items()})


class GroupWatchCallback(pl.Callback):  # type: ignore[misc]
    """Let a :class:`~egtmetrics.integrations.GroupWatch` look at the module during training.

    Parameters
    ----------
    watch
        What looks. Its steps are optimizer steps (``trainer.global_step``). When it says stop, the training ends. Its
        model is the whole module. Scalars, and with ``page`` the page, go to the loggers of the trainer as well.
    rescore
        Whether to score the best checkpoint again on fresh samples when the training ends.

    Attributes
    ----------
    frame : GenerativeMetricFrame or None
        The best checkpoint on fresh samples, after the training.

    Examples
    --------
    ::

        Trainer(callbacks=[GroupWatchCallback(watch)])
    """

    def __init__(self, watch: GroupWatch, *, rescore: bool = True) -> None:
        self.watch, self.rescore = watch, rescore
        self.frame: GenerativeMetricFrame | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stop = self.watch.step(pl_module, trainer.global_step, is_main=trainer.is_global_zero, loggers=trainer.loggers)
        trainer.should_stop = trainer.should_stop or stop

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.rescore:
            self.frame = self.watch.finish(pl_module, is_main=trainer.is_global_zero)
