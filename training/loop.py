"""A training loop for denoisers that can be killed at any point and resumed, bit for bit as if it had not been."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from egtmetrics._validation import check_number, check_positive_int

from .density_ratio import DensityRatio
from .diffusion import Denoiser, WeightEMA, denoising_losses
from .losses import GroupLoss, MeanLoss, MinMaxLoss
from .noise import NoiseLevels
from .resumable import ResumableTraining, RunCounts, describe_loss, describe_weights, fingerprint, seeded


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun(RunCounts):
    """What :func:`train` returns."""

    ema: WeightEMA
    """The averaged weights, to sample from."""
    log: list[dict[str, float]]
    """A row every ``log_every`` steps, also before an interruption: ``step``, ``loss`` (value of the strategy) and
    :meth:`GroupLoss.log_entries`. ``pandas.DataFrame(run.log)`` makes a table of them."""


def train(
    denoiser: Denoiser,
    data: Tensor,
    groups: Tensor,
    loss: GroupLoss,
    noise: NoiseLevels,
    *,
    n_steps: int,
    labels: Tensor | None = None,
    ratio: DensityRatio | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-4,
    half_life: float = 500_000.0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    log_every: int = 100,
    random_state: int = 0,
    progress: bool = False,
) -> TrainingRun:
    r"""Train a denoiser with Adam under a strategy, keep an average of its weights and, if asked to, a checkpoint.

    Each step draws rows i uniformly with replacement, sigma from ``noise.law`` and Gaussian noise, and takes a step on

    .. math:: \mathcal L = \text{loss}\bigl((\ell_i)_i, (a_i)_i, (b_i)_i\bigr), \quad
        \ell_i = \tfrac{w(\sigma_i)}{d} \| D(x_i + \sigma_i n_i; \sigma_i) - x_i \|^2, \quad
        b_i = \text{level of } \sigma_i.

    Parameters
    ----------
    denoiser
        D; trained in place.
    data
        Clean samples ``(n, ...)``, float32 or float64, on the device of the denoiser.
    groups
        ``(n,)`` integers from 0 to ``loss.n_groups - 1``.
    loss
        The strategy, see :class:`GroupLoss`; its averages are updated.
    noise
        Law of sigma and the levels of the strategy. A loss with ``n_bins=1`` uses the law alone.
    n_steps
        Total number of batches, including those of a checkpoint.
    labels
        ``(n,)`` classes for a conditional model, for example ``groups``.
    ratio
        Train for another mixture of the groups, see :class:`DensityRatio`. The loss must be a :class:`MeanLoss`, whose
        averages are those of the weighted losses then.
    batch_size, learning_rate
        Of a step; the paper has 256 and 1e-4.
    half_life
        Of the average of the weights, in samples, see :class:`WeightEMA`.
    checkpoint
        File to write to, and to resume from if it exists. It is replaced as a whole, so a kill leaves the one before.
    checkpoint_every
        Steps between checkpoints; one is always written at the end.
    log_every
        Steps between rows of the log.
    random_state
        Seed of everything random, including dropout. The global generators are left as they were.
    progress
        Show a progress bar, which counts steps.

    Returns
    -------
    TrainingRun
        The averaged weights and counts.

    Raises
    ------
    ValueError
        Shapes, devices or options that do not fit; a checkpoint that is cut off, has more steps than ``n_steps``, or
        comes from another architecture, other settings, data or first weights: the error names what differs.
    FloatingPointError
        From the loss: NaN or infinite losses in more batches in a row than it allows.

    Warns
    -----
    ThinCellWarning
        If min-max would choose among fewer than 4 samples of a group, see :meth:`NoiseLevels.check_batch`.

    Notes
    -----
    A resumed run equals an uninterrupted one bit for bit on one machine with one number of threads. It runs in one
    process; for several, write a loop of DistributedDataParallel around :func:`denoising_losses` and the loss.

    The loss leaves out losses that are not finite, and counts them. If they make the gradient NaN, the step is skipped
    and counted in ``n_skipped``.

    References
    ----------
    The paper, appendix B.3.2. Its "1M iterations" cannot take 5 hours on 8 V100, so ``n_steps`` has no default.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import Denoiser, EDMPreconditioning, MinMaxLoss, NoiseLevels, ResidualMLP, train
    >>> denoiser = Denoiser(ResidualMLP(2, width=16, n_blocks=1), EDMPreconditioning())
    >>> noise = NoiseLevels(denoiser.preconditioning.law, n_bins=2)
    >>> run = train(denoiser, torch.zeros(100, 2), torch.arange(100) % 2, MinMaxLoss(2, n_bins=2), noise,
    ...     n_steps=3, batch_size=32)
    >>> run.n_samples_seen, run.ema(torch.zeros(1, 2), torch.ones(1)).shape
    (96, torch.Size([1, 2]))
    """
    n_steps = check_positive_int(n_steps, "n_steps")
    batch_size = check_positive_int(batch_size, "batch_size")
    checkpoint_every = check_positive_int(checkpoint_every, "checkpoint_every")
    log_every = check_positive_int(log_every, "log_every")
    seed = check_positive_int(random_state, "random_state", minimum=0)
    learning_rate = check_number(learning_rate, "learning_rate", above=0.0)
    device = _check_data(denoiser, data, groups, labels, loss, noise)
    if ratio is not None and not isinstance(loss, MeanLoss):
        raise ValueError(f"loss is a {type(loss).__name__}, but ratio has weights of its own; pass a MeanLoss with it")
    if isinstance(loss, MinMaxLoss):
        noise.check_batch(batch_size, torch.bincount(groups, minlength=loss.n_groups) / len(groups))
    settings = {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "half_life": half_life,
        "random_state": seed,
        "device": device.type,
        "preconditioning": _describe(denoiser.preconditioning),
        "noise": f"{_describe(noise.law)}, n_bins={noise.n_bins}",
        **describe_loss(loss),
        **describe_weights(denoiser.state_dict()),
        "data": fingerprint([data]),
        "groups": fingerprint([groups]),
        "labels": None if labels is None else fingerprint([labels]),
        "ratio": None if ratio is None else fingerprint(ratio.state_dict().values()),
        "first weights": fingerprint(denoiser.state_dict().values()),
    }
    with seeded(seed, device):
        training = _DenoiserTraining(
            denoiser, data, groups, labels, ratio, loss, noise, batch_size, learning_rate, half_life, log_every
        )
        denoiser.train()
        resumed_at = training.run(
            settings,
            n_steps=n_steps,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
    return TrainingRun(
        ema=training.ema,
        log=training.log,
        n_steps=training.step,
        n_samples_seen=training.step * batch_size,
        n_skipped=training.n_skipped,
        resumed_at=resumed_at,
    )


class _DenoiserTraining(ResumableTraining):
    """Adam on the denoiser, the average of its weights, and the state of the random generators."""

    def __init__(
        self,
        denoiser: Denoiser,
        data: Tensor,
        groups: Tensor,
        labels: Tensor | None,
        ratio: DensityRatio | None,
        loss: GroupLoss,
        noise: NoiseLevels,
        batch_size: int,
        learning_rate: float,
        half_life: float,
        log_every: int,
    ) -> None:
        super().__init__(loss, torch.optim.Adam(denoiser.parameters(), lr=learning_rate), data.device)
        self.denoiser, self.data, self.groups, self.labels = denoiser, data, groups, labels
        self.ratio, self.noise, self.batch_size, self.log_every = ratio, noise, batch_size, log_every
        self.log: list[dict[str, float]] = []
        self.ema = WeightEMA(denoiser, half_life=half_life)

    def take_step(self) -> None:
        rows = torch.randint(len(self.data), (self.batch_size,), device=self.device)
        x, labels = self.data[rows], None if self.labels is None else self.labels[rows]
        sigma = self.noise.law.sample(len(x), device=self.device, dtype=x.dtype)
        bins = self.noise.bin_of(sigma) if self.loss.n_bins > 1 else None
        self.optimizer.zero_grad()
        per_sample = denoising_losses(self.denoiser, x, sigma, labels=labels, ratio=self.ratio)
        value = self.loss(per_sample, self.groups[rows], bins)
        value.backward()
        self.descend()
        if self.step % self.log_every == 0:
            self.log.append({"step": self.step, "loss": float(value.detach()), **self.loss.log_entries()})
        self.ema.update(self.denoiser, n_samples=len(x))

    def state(self) -> dict[str, Any]:
        on_cuda = self.device.type == "cuda"
        return {
            **super().state(),
            "model": self.denoiser.state_dict(),
            "ema": self.ema.state_dict(),
            "log": self.log,
            "generators": [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if on_cuda else [])],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.denoiser.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.log = [dict(row) for row in state["log"]]
        torch.set_rng_state(state["generators"][0])
        for generator in state["generators"][1:]:
            torch.cuda.set_rng_state(generator, self.device)


def _check_data(
    denoiser: Denoiser, data: Tensor, groups: Tensor, labels: Tensor | None, loss: GroupLoss, noise: NoiseLevels
) -> torch.device:
    """Refuse before the first step what would fail in a later one, or go unnoticed."""
    device = next(denoiser.parameters()).device
    if not any(weight.requires_grad for weight in denoiser.parameters()):
        raise ValueError(
            "denoiser has no weight that requires a gradient, as the averaged model of a run; call its "
            "requires_grad_(True), on a copy if the average is still needed"
        )
    if len(data) == 0 or not data.isfinite().all():
        raise ValueError(f"data has shape {tuple(data.shape)} or holds NaN, expected finite samples, one at least")
    for name, values in (("groups", groups), ("labels", labels)):
        if values is not None and values.shape != data.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(values.shape)}, expected one per sample of data, ({len(data)},)")
    for name, values in (("data", data), ("groups", groups), ("labels", labels)):
        if values is not None and values.device != device:
            raise ValueError(f"{name} lies on {values.device}, the denoiser on {device}; move them to one device")
    if groups.min() < 0 or groups.max() >= loss.n_groups:
        raise ValueError(
            f"groups holds values from {int(groups.min())} to {int(groups.max())}, expected 0 to {loss.n_groups - 1}; "
            "leave out samples without a group (-1, where an oracle abstained)"
        )
    if loss.n_bins not in (1, noise.n_bins):
        raise ValueError(
            f"noise has n_bins={noise.n_bins}, but loss n_bins={loss.n_bins}; build both with the same number"
        )
    return device


def _describe(value: Any) -> str:
    """Return type and parameters of a preconditioning or a law; other classes have an address as their repr."""
    return repr(value) if dataclasses.is_dataclass(value) else type(value).__qualname__
