"""A watch in an engine of PyTorch-Ignite."""

from __future__ import annotations

from typing import Any

import ignite.distributed
from ignite.engine import Engine, Events

from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.integrations._watch import GroupWatch


class GroupWatchHandler:
    """Let a :class:`~egtmetrics.integrations.GroupWatch` look at a model that an ``ignite.engine.Engine`` trains.

    Parameters
    ----------
    watch
        What looks. Its steps are iterations of the engine. When it says stop, the engine terminates.
    model
        The model that is trained; of several processes the one that is not wrapped.
    rescore
        Whether to score the best checkpoint again on fresh samples when the training ends.

    Attributes
    ----------
    frame : GenerativeMetricFrame or None
        The best checkpoint on fresh samples, after the training.

    Examples
    --------
    The second of three steps makes the model right.

    >>> import tempfile
    >>> import numpy as np, torch
    >>> from egtmetrics.groups import CheckpointSelection
    >>> groups, real = np.repeat(["f", "m"], 60), np.random.default_rng(0).normal(size=(120, 2))
    >>> def evaluate(model, seed):
    ...     fake = np.random.default_rng(seed).normal(size=(120, 2)) + model.bias.numpy()
    ...     return GenerativeMetricFrame(metrics="fid", real=real, fake=fake, real_sensitive_features=groups,
    ...                                  fake_sensitive_features=groups, random_state=0)
    >>> model = torch.nn.Linear(1, 2)
    >>> trainer = Engine(lambda engine, batch: model.bias.data.fill_(batch))
    >>> watch = GroupWatch(evaluate, CheckpointSelection("fid"), folder=tempfile.mkdtemp(), every=1)
    >>> handler = GroupWatchHandler(watch, model)
    >>> handler.attach(trainer)
    >>> state = trainer.run([3.0, 0.0, 1.0])
    >>> watch.selection.best.step, bool(handler.frame.overall["fid"] < 0.3)
    (2, True)
    """

    def __init__(self, watch: GroupWatch, model: Any, *, rescore: bool = True) -> None:
        self.watch, self.model, self.rescore = watch, model, rescore
        self.frame: GenerativeMetricFrame | None = None

    def attach(self, engine: Engine) -> None:
        """Look after the iterations of this engine, and score the best checkpoint again when it has completed."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)
        if self.rescore:
            engine.add_event_handler(Events.COMPLETED, self._finish)

    def _look(self, engine: Engine) -> None:
        if self.watch.step(self.model, engine.state.iteration, is_main=_is_main()):
            engine.terminate()

    def _finish(self, engine: Engine) -> None:
        self.frame = self.watch.finish(self.model, is_main=_is_main())


def _is_main() -> bool:
    return bool(ignite.distributed.get_rank() == 0)
