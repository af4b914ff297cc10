"""Early stopping: train in pieces, look at the held-out loss after each, and keep the best weights."""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from egtmetrics._atomic import write_whole
from egtmetrics._validation import check_positive_int

from .diffusion import Denoiser
from .held_out import held_out_losses
from .loop import train
from .losses import GroupLoss
from .noise import NoiseLevels
from .resumable import describe_loss, fingerprint, read_checkpoint, to_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """What :func:`stop_early` returns."""

    weights: dict[str, Tensor]
    """Those of the look with the lowest held-out loss."""
    step: int
    """Step of that look."""
    losses: tuple[float, ...]
    """Held-out loss at every look."""


def stop_early(
    look: Callable[[int], tuple[Mapping[str, Tensor], float]],
    *,
    n_steps: int,
    look_every: int,
    patience: int,
    checkpoint: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> EarlyStop:
    """Train in pieces, look at the held-out loss after each, and keep the weights with the lowest.

    Parameters
    ----------
    look
        Called with 0, 1, 2, ... times ``look_every``, and at last ``n_steps``: trains until that step in all, and
        returns weights and their held-out loss. So first weights that training makes worse are kept. :func:`train`
        continues from its checkpoint, so it can be called in pieces.
    n_steps
        Most steps.
    look_every
        Steps between looks.
    patience
        Stop after so many looks in a row that were no better than the best before.
    checkpoint
        File that keeps what was seen; replaced as a whole after every look. If it exists, go on from it.
    settings
        Plain values that decide the result; a checkpoint with others is refused.

    Returns
    -------
    EarlyStop
        The best weights, on the CPU.

    Raises
    ------
    ValueError
        Options out of range; a checkpoint that is damaged, or of other settings.
    FloatingPointError
        No look had a finite loss.

    Notes
    -----
    The lowest of several noisy losses is too low. Report the loss of the result on samples that took no part.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import stop_early
    >>> stop = stop_early(lambda step: ({"w": torch.tensor(step)}, (step - 25.0) ** 2),
    ...     n_steps=100, look_every=10, patience=2)
    >>> stop.step, stop.weights, stop.losses
    (20, {'w': tensor(20)}, (625.0, 225.0, 25.0, 25.0, 225.0))
    """
    n_steps = check_positive_int(n_steps, "n_steps")
    look_every = check_positive_int(look_every, "look_every")
    patience = check_positive_int(patience, "patience")
    settings = {**(settings or {}), "look_every": look_every}
    path = None if checkpoint is None else Path(checkpoint)
    step, best, losses, weights = 0, 0, list[float](), dict[str, Tensor]()
    if path is not None and path.exists():
        content = read_checkpoint(path, settings, n_steps)
        step, best, losses = content["step"], content["best"], list(content["losses"])
        weights = dict(content["weights"])
    lowest = min((loss for loss in losses if math.isfinite(loss)), default=math.inf)
    while not losses or (step < n_steps and len(losses) - 1 - math.ceil(best / look_every) < patience):
        step = min(step + look_every, n_steps) if losses else 0
        found, loss = look(step)
        losses.append(loss)
        if loss < lowest:
            lowest, best = loss, step
            weights = {name: weight.detach().cpu().clone() for name, weight in found.items()}
        if path is not None:
            seen = {"step": step, "best": best, "losses": losses, "weights": weights}
            write_whole(path, to_bytes({"settings": settings, **seen}))
    if not math.isfinite(lowest):
        raise FloatingPointError(
            f"none of the {len(losses)} held-out losses is finite: {losses}; lower the learning rate, or look for NaN "
            "in the held-out samples"
        )
    return EarlyStop(weights=weights, step=best, losses=tuple(losses))


def train_until_best(
    denoiser: Denoiser,
    data: Tensor,
    groups: Tensor,
    make_loss: Callable[[Denoiser], GroupLoss],
    noise: NoiseLevels,
    held_out: Tensor,
    held_out_groups: Tensor,
    *,
    n_steps: int,
    look_every: int = 100,
    patience: int = 5,
    checkpoint: str | Path | None = None,
    random_state: int = 0,
    **options: Any,
) -> EarlyStop:
    r"""Train a copy of a denoiser under a strategy, and keep the averaged weights with the lowest held-out loss.

    That is the mean of :func:`held_out_losses` over groups and levels: all groups count alike, whatever the strategy.

    Parameters
    ----------
    denoiser
        The first weights; left as it is.
    data, groups
        Training samples ``(n, ...)`` and their groups ``(n,)``.
    make_loss
        Called with the denoiser in training, returns the strategy before its first step. It is called once for every
        piece; later pieces load the strategy's state.
    noise
        Law of sigma, and the levels of the strategy and the held-out losses.
    held_out, held_out_groups
        Samples to stop by, and their groups.
    n_steps, look_every, patience
        See :func:`stop_early`.
    checkpoint
        File to go on from, see :func:`stop_early`; that of the training lies beside it, with ``.train`` in its name. By
        default nothing is kept.
    random_state
        Seed of the training and of the noise of held-out losses, which is the same at every look.
    options
        Of :func:`train`: ``batch_size``, ``learning_rate``, ``half_life``, ``progress``.

    Returns
    -------
    EarlyStop
        ``weights`` are a ``state_dict()`` of the denoiser.

    Raises
    ------
    ValueError, FloatingPointError
        See :func:`train` and :func:`stop_early`.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import Denoiser, EDMPreconditioning, MinMaxLoss, NoiseLevels, ResidualMLP
    >>> from egtmetrics.training import train_until_best
    >>> denoiser = Denoiser(ResidualMLP(2, width=16, n_blocks=1), EDMPreconditioning())
    >>> x, groups = torch.randn(100, 2), torch.arange(100) % 2
    >>> noise = NoiseLevels(denoiser.preconditioning.law, n_bins=1)
    >>> stop = train_until_best(denoiser, x[:80], groups[:80], lambda _: MinMaxLoss(2), noise, x[80:], groups[80:],
    ...     n_steps=4, look_every=2, batch_size=32)
    >>> len(stop.losses), denoiser.load_state_dict(stop.weights)
    (3, <All keys matched successfully>)
    """
    settings = {
        "random_state": random_state,
        **{f"train.{name}": value for name, value in options.items() if name != "progress"},
        **describe_loss(make_loss(denoiser)),
        "training samples": fingerprint([data, groups]),
        "held-out samples": fingerprint([held_out, held_out_groups]),
        "first weights": fingerprint(denoiser.state_dict().values()),
    }
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "run.pt") if checkpoint is None else Path(checkpoint)

        def train_until(step: int) -> Denoiser:
            trained = copy.deepcopy(denoiser).requires_grad_(True)
            if step == 0:
                return trained
            run = train(
                trained,
                data,
                groups,
                make_loss(trained),
                noise,
                n_steps=step,
                checkpoint=path.with_suffix(".train.pt"),
                random_state=random_state,
                **options,
            )
            averaged = run.ema.model
            assert isinstance(averaged, Denoiser)
            return averaged

        def look(step: int) -> tuple[Mapping[str, Tensor], float]:
            averaged = train_until(step)
            losses = held_out_losses(averaged, held_out, held_out_groups, noise, random_state=random_state)
            return averaged.state_dict(), float(losses.means.mean())

        return stop_early(
            look, n_steps=n_steps, look_every=look_every, patience=patience, checkpoint=path, settings=settings
        )
