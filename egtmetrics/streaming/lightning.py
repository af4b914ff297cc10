"""The stream in the validation loop of Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning.pytorch as pl

from egtmetrics.streaming.ranks import merge_ranks
from egtmetrics.streaming.scores import flat_scores
from egtmetrics.streaming.stream import GenerativeMetricStream


class GroupMetricsCallback(pl.Callback):  # type: ignore[misc]
    """Feed a stream during validation, log its scores at the end of it, and start anew.

    Parameters
    ----------
    stream
        A :class:`egtmetrics.streaming.GenerativeMetricStream`. With several processes, make it with an integer
        ``random_state``: the streams of all ranks are merged before the scores are computed, on every rank.
    samples
        ``(outputs, batch) -> iterable of mappings``, the arguments of ``stream.update`` (``features``, ``real``,
        ``sensitive_features``) that one validation step yields. ``outputs`` is what ``validation_step`` returned.
    prefix
        Put before the names of the scores.

    Notes
    -----
    The check of a few batches before training feeds nothing. ``frame`` is the last frame.

    Examples
    --------
    ::

        def samples(outputs, batch):
            images, groups = batch
            yield {"features": encoder(images), "real": True, "sensitive_features": groups}
            yield {"features": encoder(outputs["fake"]), "real": False, "sensitive_features": groups}

        Trainer(callbacks=[GroupMetricsCallback(GenerativeMetricStream(metrics=frechet_distance), samples)])
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
        self.frame: Any = None

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
