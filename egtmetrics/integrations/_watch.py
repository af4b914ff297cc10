"""Evaluate a model by group while it is trained, keep its best checkpoint, and log what was found."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from egtmetrics._atomic import write_whole
from egtmetrics._validation import check_positive_int
from egtmetrics.groups import CheckpointSelection, DisparityMonitor, GenerativeMetricFrame, Look, flat_scores
from egtmetrics.groups.selection import Candidate
from egtmetrics.integrations._loggers import send

Evaluate = Callable[[Any, int], GenerativeMetricFrame]
"""``(model, seed) -> frame``: generate with the model from this seed, encode, label, and evaluate."""

_STATE, _BEST, _PAGE = "watch.json", "best.pt", "best.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchedLook:
    """What a look at the model found."""

    step: int
    frame: GenerativeMetricFrame
    candidate: Candidate
    look: Look | None
    """Of the monitor; None without one, or if it could not look at this frame."""
    scalars: Mapping[str, float]
    """What was logged."""

    @property
    def stop(self) -> bool:
        """Whether it is time to stop."""
        return self.candidate.stop


class GroupWatch:
    """Look at a model every so many steps of its training: evaluate it by group, log, keep the best checkpoint, stop.

    One object for every training loop: call ``step(model, number)`` after every step, or leave that to
    :class:`~egtmetrics.integrations.GroupWatchCallback` (Lightning),
    :class:`~egtmetrics.integrations.GroupWatchTrainerCallback` (transformers) or
    :class:`~egtmetrics.integrations.GroupWatchHandler` (PyTorch-Ignite).

    Parameters
    ----------
    evaluate
        ``(model, seed) -> GenerativeMetricFrame``: generate with the model from this seed, encode, label, and evaluate
        against real samples, best against a :class:`~egtmetrics.Reference`, which computes the real side once. Every
        look gets another seed. The model is in evaluation mode and builds no graph.
    selection
        What is the best checkpoint, and when to stop.
    folder
        Where ``best.pt`` (the ``state_dict`` of the best model) and ``watch.json`` (what was found so far) are kept.
        Each is whole, or not there.
    every
        Look after so many steps.
    monitor
        Raises an alarm for unequal treatment with few false ones, however many looks there are.
    loggers
        Where scalars, page and figure go: any of ``torch.utils.tensorboard.SummaryWriter``, a run of
        ``wandb.init(...)``, the module ``mlflow``, a logger of Lightning, an ``accelerate.Accelerator``, or a function
        ``(scalars, step)``.
    page
        ``frame -> HTML``, such as :func:`egtmetrics.report.page.render_page`: the page of every look goes to the
        loggers that take one, that of the best checkpoint is kept as ``best.html``. None for no pages.
    prefix
        Put before the names of the scalars.
    random_state
        An integer from which the seeds of all looks come.
    resume
        Continue from what is in ``folder``. Without it, a folder that has looks of another run is refused.

    Attributes
    ----------
    rescored : Candidate or None
        How the best checkpoint does on fresh samples, after ``rescore``.

    Notes
    -----
    **The chosen checkpoint won**, so its score is too good: the best of 20 equal checkpoints is 1.9 standard errors
    above their mean. ``rescore`` generates fresh samples with it, from a seed that no look has, and evaluates these;
    that is the number to report. The adapters do so at the end of the training. The real samples are the same, and a
    checkpoint may suit them by chance: with many looks, evaluate the last choice against other real samples, too.

    With several processes the main one generates and evaluates, and the others wait. Models that are split over
    processes cannot be watched.

    Examples
    --------
    ``examples/watch_lightning.py``, ``watch_transformers.py``, ``watch_ignite.py`` and ``watch_accelerate.py`` run in
    under a minute. In a loop of your own::

        def evaluate(model, seed):
            images = sample(model, n=2000, generator=torch.Generator().manual_seed(seed))
            return GenerativeMetricFrame(metrics="prdc,fid", real=reference, fake=encoder(images),
                                         fake_sensitive_features=oracle(images), random_state=0)

        watch = GroupWatch(evaluate, CheckpointSelection("prdc_recall", patience=5), folder="run/groups", every=1000,
                           monitor=DisparityMonitor("prdc", n_looks=50), loggers=[SummaryWriter()])
        for number, batch in enumerate(batches, start=1):
            train(model, batch)
            if watch.step(model, number):
                break
        frame = watch.rescore(model)  # the best checkpoint, on fresh samples

    With accelerate::

        watch.step(accelerator.unwrap_model(model), number, is_main=accelerator.is_main_process, loggers=[accelerator])
    """

    def __init__(
        self,
        evaluate: Evaluate,
        selection: CheckpointSelection,
        *,
        folder: str | Path,
        every: int,
        monitor: DisparityMonitor | None = None,
        loggers: Sequence[Any] = (),
        page: Callable[[GenerativeMetricFrame], str] | None = None,
        prefix: str = "groups/",
        random_state: int = 0,
        resume: bool = False,
    ) -> None:
        self.evaluate, self.selection, self.monitor = evaluate, selection, monitor
        self.folder, self.every = Path(folder), check_positive_int(every, "every")
        self.loggers, self.page, self.prefix = list(loggers), page, prefix
        self.random_state = check_positive_int(random_state, "random_state", minimum=0)
        self.last_step = 0
        self.rescored: Candidate | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self.folder / _STATE
        if state.exists():
            if not resume:
                raise ValueError(
                    f"folder={str(self.folder)!r} has the looks of another run; pass resume=True to continue it, or "
                    "another folder"
                )
            self._restore(json.loads(state.read_text(encoding="utf-8")))

    def due(self, step: int) -> bool:
        """Return whether to look after this step, once for each."""
        return step > self.last_step and step % self.every == 0

    def step(self, model: Any, number: int, *, is_main: bool = True, loggers: Sequence[Any] = ()) -> bool:
        """Look at the model if that is due after step ``number``; return whether to stop, the same on all processes.

        Call it on every process, with ``is_main`` on one of them: that one looks. ``loggers`` get what those of the
        watch get.
        """
        if not self.due(number):
            return False
        stop = [False]
        if is_main:
            stop = [self.look(model, number, loggers=loggers).stop]
        self.last_step = number
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(stop, src=0)
        return stop[0]

    def look(self, model: Any, step: int, *, loggers: Sequence[Any] = ()) -> WatchedLook:
        """Evaluate the model, log what was found, and keep the model if it is the best one so far."""
        number = len(self.selection.candidates)
        with _evaluating(model):
            frame = self.evaluate(model, self._seed(1, number))
        candidate = self.selection.update(frame, step=step)
        look = None if self.monitor is None else self.monitor.update(frame, step=step)
        scalars = self._scalars(frame, candidate, look)
        self.last_step, self.rescored = step, None
        page = None if self.page is None else self.page(frame)
        if candidate.best:
            buffer = io.BytesIO()
            torch.save({"step": step, "model": model.state_dict()}, buffer)
            write_whole(self.folder / _BEST, buffer.getvalue())
            if page is not None:
                write_whole(self.folder / _PAGE, page)
        self._save()
        for logger in [*self.loggers, *loggers]:
            send(logger, scalars, step, page=page, frame=frame, name=self.prefix.strip("/"))
        return WatchedLook(step=step, frame=frame, candidate=candidate, look=look, scalars=scalars)

    def rescore(self, model: Any) -> GenerativeMetricFrame:
        """Evaluate the best checkpoint on fresh samples, log that, and return the frame.

        ``model`` gets the weights of the best checkpoint for this, and has its own again afterwards.

        Raises
        ------
        ValueError
            If no checkpoint was chosen.
        """
        best = self.selection.best
        if best is None:
            raise ValueError(f"{self.selection.text()}, so there is nothing to score again")
        kept = torch.load(self.folder / _BEST, map_location="cpu", weights_only=True)
        own = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(kept["model"])
        try:
            with _evaluating(model):
                frame = self.evaluate(model, self._seed(2, 0))
        finally:
            model.load_state_dict(own)
        fresh = self.selection.judge(frame, step=best.step)
        scalars = {f"{self.prefix}rescored/{name}": value for name, value in flat_scores(frame).items()}
        scalars |= {f"{self.prefix}rescored/value": fresh.value, f"{self.prefix}rescored/bound": fresh.bound}
        for logger in self.loggers:
            send(logger, scalars, self.last_step)
        self.rescored = fresh
        self._save()
        return frame

    def finish(self, model: Any, *, is_main: bool = True) -> GenerativeMetricFrame | None:
        """Return what ``rescore`` does, at the end of a training: None if there is nothing to score, or not here."""
        return self.rescore(model) if is_main and self.selection.best is not None else None

    def best_weights(self) -> dict[str, Any]:
        """Return the ``state_dict`` of the best model; FileNotFoundError if none was chosen."""
        kept = torch.load(self.folder / _BEST, map_location="cpu", weights_only=True)
        return dict(kept["model"])

    def _seed(self, *key: int) -> int:
        return int(np.random.SeedSequence([self.random_state, *key]).generate_state(1)[0])

    def _scalars(self, frame: GenerativeMetricFrame, candidate: Candidate, look: Look | None) -> dict[str, float]:
        intervals = None
        with contextlib.suppress(ValueError):  # the candidate says why there are none
            intervals = frame.interval(self.selection.level)
        found = flat_scores(frame, intervals)
        found |= {"selection/value": candidate.value, "selection/bound": candidate.bound}
        found["selection/best_step"] = float("nan" if self.selection.best is None else self.selection.best.step)
        if look is not None:
            found |= {"monitor/p_value": look.p_value, "monitor/alarm": float(look.alarm)}
        return {f"{self.prefix}{name}": value for name, value in found.items()}

    def _save(self) -> None:
        content = {
            "last_step": self.last_step,
            "text": self.selection.text(self.rescored),
            "selection": self.selection.state_dict(),
            "monitor": None if self.monitor is None else self.monitor.state_dict(),
        }
        write_whole(self.folder / _STATE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def _restore(self, content: Mapping[str, Any]) -> None:
        self.selection.load_state_dict(content["selection"])
        if (self.monitor is None) != (content["monitor"] is None):
            raise ValueError(
                f"folder={str(self.folder)!r} was written {'without' if content['monitor'] is None else 'with'} a "
                "monitor; resume in the same way"
            )
        if self.monitor is not None:
            self.monitor.load_state_dict(content["monitor"])
        self.last_step = int(content["last_step"])


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put the model into evaluation mode without gradients, and back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
