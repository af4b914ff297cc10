"""A training loop for denoisers that can be killed at any point and resumed, bit for bit as if it had not been."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from egtmetrics._validation import check_number, check_positive_int

from ._processes import gathered, n_processes, rank, total
from .density_ratio import DensityRatio
from .diffusion import Denoiser, WeightEMA, denoising_losses
from .losses import GroupLoss, MeanLoss, MinMaxLoss
from .noise import NoiseLaw, NoiseLevels
from .resumable import (
    ResumableTraining,
    RunCounts,
    describe_loss,
    describe_weights,
    fingerprint,
    generator_states,
    kept_generators,
    restore_generators,
    seed_generators,
    seeded,
)

_BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun(RunCounts):
    """What :func:`train` returns."""

    ema: WeightEMA
    """The averaged weights, to sample from."""
    log: list[dict[str, float]]
    """A row every ``log_every`` steps, also before an interruption: ``step``, ``loss`` (value of the strategy) and
    :meth:`GroupLoss.log_entries`. ``pandas.DataFrame(run.log)`` makes a table of them."""
    stopped: bool
    """Whether the callback ended the training."""


def train(
    denoiser: Denoiser,
    data: Tensor | DataLoader[Any],
    groups: Tensor | None,
    loss: GroupLoss,
    noise: NoiseLevels,
    *,
    n_steps: int,
    labels: Tensor | None = None,
    ratio: DensityRatio | None = None,
    batch_size: int | None = None,
    learning_rate: float = 1e-4,
    half_life: float = 500_000.0,
    autocast: torch.dtype | None = None,
    max_grad_norm: float | None = None,
    callback: Callable[[nn.Module, int], bool | None] | None = None,
    callback_every: int = 1000,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    log_every: int = 100,
    random_state: int = 0,
    progress: bool = False,
) -> TrainingRun:
    r"""Train a denoiser with Adam under a strategy, keep an average of its weights and, if asked to, a checkpoint.

    Each step takes a batch, draws sigma from ``noise.law`` and Gaussian noise for each of its samples i, and descends

    .. math:: \mathcal L = \text{loss}\bigl((\ell_i)_i, (a_i)_i, (b_i)_i\bigr), \quad
        \ell_i = \tfrac{w(\sigma_i)}{d} \| D(x_i + \sigma_i n_i; \sigma_i) - x_i \|^2, \quad
        b_i = \text{level of } \sigma_i.

    Parameters
    ----------
    denoiser
        D; trained in place.
    data
        Clean samples ``(n, ...)``, float32 or float64, on the device of the denoiser; a batch is drawn uniformly with
        replacement. Or a ``DataLoader`` whose batches are ``(x, groups)`` or ``(x, groups, labels)``; they are moved to
        the device, and an epoch follows the other.
    groups
        ``(n,)`` integers from 0 to ``loss.n_groups - 1``; None if the batches of a ``DataLoader`` hold them.
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
    batch_size
        Of a step, over all processes; by default the paper's 256. A ``DataLoader`` has its own.
    learning_rate
        Of Adam; the paper's is 1e-4.
    half_life
        Of the average of the weights, in samples, see :class:`WeightEMA`.
    autocast
        ``torch.bfloat16`` or ``torch.float16``: compute the network in it where torch holds that to be safe. Weights,
        losses and averages stay in float32. float16 comes with a ``GradScaler``, which finds its scale by steps that
        overflow; they count as skipped.
    max_grad_norm
        Scale a gradient down to this norm (over all weights) if it is longer.
    callback
        Called as ``callback(model, step)`` with the averaged model after every ``callback_every`` steps, on every
        process; a true result ends the training. What it draws from the generators of torch does not change the
        training. ``GroupWatch(...).step`` of ``egtmetrics.integrations`` is one; with several processes, give it
        ``is_main``.
    callback_every
        Steps between calls.
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
        The averaged weights, the log and counts.

    Raises
    ------
    TypeError
        A ``DataLoader`` whose batches are not tuples of tensors.
    ValueError
        Shapes, devices or options that do not fit; processes that do not train alike; a checkpoint that is cut off, has
        more steps than ``n_steps``, or comes from another architecture, other settings, data or first weights: the
        error names what differs.
    FloatingPointError
        From the loss: NaN or infinite losses in more batches in a row than it allows.

    Warns
    -----
    ThinCellWarning
        If min-max would choose among fewer than 4 samples of a group, see :meth:`NoiseLevels.check_batch`. Not with a
        ``DataLoader``, whose proportions are unknown.

    Notes
    -----
    **Resumption.** A resumed run equals an uninterrupted one bit for bit on one machine with one number of threads, and
    with the same number of processes. Of tensors, content is compared before that. Of a ``DataLoader``, only its
    length, its batch size and that of its dataset are: whether a row still holds the same sample is up to you. Its
    order is seeded by ``random_state`` and the number of the epoch, so it may have no generator of its own, and its
    sampler is told the epoch by ``set_epoch``. A resumed run starts the epoch of its checkpoint again and passes over
    the batches that were trained on; that takes as long as loading them. Random transforms come out alike if they draw
    from torch; not in ``persistent_workers``, nor if they draw from generators of NumPy or Python in the main process.
    A run that its callback has stopped stays so.

    **Several processes.** With ``torch.distributed`` initialised, by torchrun and ``init_process_group`` or by making
    an ``Accelerator``, the denoiser is wrapped in DistributedDataParallel. Every process passes the same tensors and
    takes its part of each batch: the steps are those of one process up to rounding, if the network itself draws no
    random numbers. A ``DataLoader`` gets a ``DistributedSampler``; a batch is what all processes have loaded then.
    Dropout differs between processes. The first one writes the checkpoint.

    **NaN.** The loss leaves out losses that are not finite, and counts them. If they make the gradient NaN, the step is
    skipped and counted in ``n_skipped``.

    References
    ----------
    The paper, appendix B.3.2. Its "1M iterations" cannot take 5 hours on 8 V100, so ``n_steps`` has no default.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import Denoiser, EDMPreconditioning, MinMaxLoss, NoiseLevels, ResidualMLP, train
    >>> denoiser = Denoiser(ResidualMLP(2, width=16, n_blocks=1), EDMPreconditioning())
    >>> noise = NoiseLevels(denoiser.preconditioning.law, n_bins=2)
    >>> data, groups = torch.zeros(100, 2), torch.arange(100) % 2
    >>> run = train(denoiser, data, groups, MinMaxLoss(2, n_bins=2), noise, n_steps=3, batch_size=32)
    >>> run.n_samples_seen, run.ema(torch.zeros(1, 2), torch.ones(1)).shape
    (96, torch.Size([1, 2]))

    From a ``DataLoader``, with a look at the averaged model every second step:

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> loader = DataLoader(TensorDataset(data, groups), batch_size=25, shuffle=True)
    >>> run = train(denoiser, loader, None, MinMaxLoss(2, n_bins=2), noise, n_steps=6, max_grad_norm=1.0,
    ...     callback=lambda model, step: print("step", step), callback_every=2)
    step 2
    step 4
    step 6
    """
    options = _Options(
        learning_rate=learning_rate,
        half_life=half_life,
        autocast=autocast,
        max_grad_norm=max_grad_norm,
        log_every=log_every,
        callback=callback,
        callback_every=callback_every,
        ratio=ratio,
    )
    n_steps = check_positive_int(n_steps, "n_steps")
    checkpoint_every = check_positive_int(checkpoint_every, "checkpoint_every")
    seed = check_positive_int(random_state, "random_state", minimum=0)
    device = _check_model(denoiser, loss, noise)
    if ratio is not None and not isinstance(loss, MeanLoss):
        raise ValueError(f"loss is a {type(loss).__name__}, but ratio has weights of its own; pass a MeanLoss with it")
    batches: _Batches
    if isinstance(data, DataLoader):
        batches = _LoadedBatches(data, groups, labels, batch_size, seed, device)
    else:
        batches = _DrawnBatches(data, groups, labels, batch_size, seed, device)
        if batches.groups.min() < 0 or batches.groups.max() >= loss.n_groups:
            raise ValueError(
                f"groups holds values from {int(batches.groups.min())} to {int(batches.groups.max())}, expected 0 to "
                f"{loss.n_groups - 1}; leave out samples without a group (-1, where an oracle abstained)"
            )
        if isinstance(loss, MinMaxLoss):
            counts = torch.bincount(batches.groups, minlength=loss.n_groups)
            NoiseLevels(noise.law, n_bins=loss.n_bins).check_batch(batches.batch_size, counts / len(batches.groups))
    settings = {
        **options.settings(),
        **batches.settings(),
        "random_state": seed,
        "device": device.type,
        "processes": n_processes() if n_processes() > 1 else None,
        "preconditioning": _describe(denoiser.preconditioning),
        "noise": f"{_describe(noise.law)}, n_bins={noise.n_bins}",
        **describe_loss(loss),
        **describe_weights(denoiser.state_dict()),
        "first weights": fingerprint(denoiser.state_dict().values()),
    }
    with seeded(seed if n_processes() == 1 else _seed_of(seed, rank()), device):
        training = _DenoiserTraining(denoiser, batches, loss, noise, options)
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
        n_samples_seen=int(training.ema.n_seen),
        n_skipped=training.n_skipped,
        resumed_at=resumed_at,
        stopped=training.stopped,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """How :func:`train` takes a step, and what it does after it."""

    learning_rate: float
    half_life: float
    autocast: torch.dtype | None
    max_grad_norm: float | None
    log_every: int
    callback: Callable[[nn.Module, int], bool | None] | None
    callback_every: int
    ratio: DensityRatio | None

    def __post_init__(self) -> None:
        check_number(self.learning_rate, "learning_rate", above=0.0)
        if self.autocast not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"autocast={self.autocast}, expected torch.bfloat16, torch.float16 or None")
        if self.max_grad_norm is not None:
            check_number(self.max_grad_norm, "max_grad_norm", above=0.0)
        check_positive_int(self.log_every, "log_every")
        check_positive_int(self.callback_every, "callback_every")

    def settings(self) -> dict[str, Any]:
        """Return what decides how the weights change."""
        return {
            "learning_rate": self.learning_rate,
            "half_life": self.half_life,
            "autocast": None if self.autocast is None else str(self.autocast),
            "max_grad_norm": self.max_grad_norm,
            "ratio": None if self.ratio is None else fingerprint(self.ratio.state_dict().values()),
        }


class _Batch(NamedTuple):
    """What a process has of the samples of a step."""

    x: Tensor
    groups: Tensor
    labels: Tensor | None
    sigma: Tensor
    noise: Tensor
    n_samples: int
    """Of the step, over all processes."""


class _Batches(abc.ABC):
    """Where batches come from."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what must be the same after an interruption."""

    @abc.abstractmethod
    def next(self, law: NoiseLaw) -> _Batch:
        """Return the next batch."""

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what says how far they are, beside the global generators."""

    @abc.abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go there; afterwards the caller restores the global generators."""


class _DrawnBatches(_Batches):
    """Rows of tensors, drawn uniformly with replacement; each of several processes takes its part of a batch.

    They all draw the whole batch, from a generator in the same state; their global ones are in different states.
    """

    def __init__(
        self,
        data: Tensor,
        groups: Tensor | None,
        labels: Tensor | None,
        batch_size: int | None,
        seed: int,
        device: torch.device,
    ) -> None:
        if groups is None:
            raise ValueError("groups is missing; pass one integer per sample of data, or a DataLoader that has them")
        _check_tensors(data, groups, labels, device)
        self.data, self.groups, self.labels = data, groups, labels
        self.batch_size = check_positive_int(_BATCH_SIZE if batch_size is None else batch_size, "batch_size")
        if self.batch_size < n_processes():
            raise ValueError(
                f"batch_size={self.batch_size} does not give each of {n_processes()} processes a sample; raise it"
            )
        self.generator = None if n_processes() == 1 else torch.Generator(device).manual_seed(seed)

    def settings(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "data": fingerprint([self.data]),
            "groups": fingerprint([self.groups]),
            "labels": None if self.labels is None else fingerprint([self.labels]),
        }

    def next(self, law: NoiseLaw) -> _Batch:
        n, device, dtype = self.batch_size, self.data.device, self.data.dtype
        rows = torch.randint(len(self.data), (n,), device=device, generator=self.generator)
        sigma = law.sample(n, device=device, dtype=dtype, generator=self.generator)
        noise = torch.randn((n, *self.data.shape[1:]), device=device, dtype=dtype, generator=self.generator)
        part = slice(rank(), None, n_processes())
        rows = rows[part]
        labels = None if self.labels is None else self.labels[rows]
        return _Batch(self.data[rows], self.groups[rows], labels, sigma[part], noise[part], n)

    def state(self) -> dict[str, Any]:
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if self.generator is not None:
            self.generator.set_state(state["generator"])


class _LoadedBatches(_Batches):
    """The batches of a DataLoader, epoch after epoch; each of several processes has its own."""

    def __init__(
        self,
        loader: DataLoader[Any],
        groups: Tensor | None,
        labels: Tensor | None,
        batch_size: int | None,
        seed: int,
        device: torch.device,
    ) -> None:
        for name, value in (("groups", groups), ("labels", labels), ("batch_size", batch_size)):
            if value is not None:
                raise ValueError(f"{name} is given beside a DataLoader, whose batches decide it; leave it out")
        for holder in (loader, loader.sampler):
            if getattr(holder, "generator", None) is not None:
                raise ValueError(
                    "data is a DataLoader with a generator of its own, which a resumed run could not put back; leave "
                    "it out: random_state seeds the order"
                )
        self.loader, self.seed, self.device = loader, seed, device
        self.epoch, self.place = -1, 0
        self.batches: Iterator[Any] = iter(())

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {"data": "DataLoader", "batch_size": self.loader.batch_size}
        with contextlib.suppress(TypeError):  # of a stream, whose length is unknown
            sized: Any = self.loader.dataset
            found |= {"batches of an epoch": len(self.loader), "size of the dataset": len(sized)}
        return found

    def next(self, law: NoiseLaw) -> _Batch:
        try:
            loaded = next(self.batches)
        except StopIteration:
            self._start(self.epoch + 1)
            loaded = next(self.batches, None)
            if loaded is None:
                raise ValueError("data is a DataLoader without batches; give it samples, or drop_last=False") from None
        self.place += 1
        x, groups, labels = self._on_device(loaded)
        sigma = law.sample(len(x), device=self.device, dtype=x.dtype)
        n_samples = int(total(len(x), self.device))
        return _Batch(x, groups, labels, sigma, torch.randn_like(x), n_samples)

    def _start(self, epoch: int) -> None:
        self.epoch, self.place = epoch, 0
        samplers: list[Any] = [self.loader.sampler, self.loader.batch_sampler]
        for sampler in samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
        seed_generators(_seed_of(self.seed, rank(), epoch), self.device)  # they seed the order, and the workers
        self.batches = iter(self.loader)

    def _on_device(self, loaded: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        if (
            not isinstance(loaded, list | tuple)
            or len(loaded) not in (2, 3)
            or not all(isinstance(part, Tensor) for part in loaded)
        ):
            found = (
                f"({', '.join(type(part).__name__ for part in loaded)})"
                if isinstance(loaded, list | tuple)
                else type(loaded).__name__
            )
            raise TypeError(
                f"data is a DataLoader with batches of {found}, expected tensors (x, groups) or (x, groups, labels); "
                "make them in its dataset or its collate_fn"
            )
        x, groups, *rest = (part.to(self.device, non_blocking=True) for part in loaded)
        labels = rest[0] if rest else None
        _check_rows(x, groups, labels)
        return x, groups, labels

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "place": self.place}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._start(state["epoch"])
        for place in range(state["place"]):
            if next(self.batches, None) is None:
                raise ValueError(
                    f"data is a DataLoader with {place} batches in epoch {self.epoch}, but the checkpoint comes after "
                    f"{state['place']} of them; pass the same data, or name another file"
                )
        self.place = state["place"]


class _DenoiserTraining(ResumableTraining):
    """Adam on the denoiser, the average of its weights, and the state of the random generators."""

    def __init__(
        self, denoiser: Denoiser, batches: _Batches, loss: GroupLoss, noise: NoiseLevels, options: _Options
    ) -> None:
        device = next(denoiser.parameters()).device
        super().__init__(loss, torch.optim.Adam(denoiser.parameters(), lr=options.learning_rate), device)
        self.denoiser, self.batches, self.noise, self.options = denoiser, batches, noise, options
        self.model: nn.Module = denoiser
        if n_processes() > 1:
            on_cuda = device.type == "cuda"
            self.model = nn.parallel.DistributedDataParallel(denoiser, device_ids=[device] if on_cuda else None)
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.autocast is torch.float16)
        self.log: list[dict[str, float]] = []
        self.ema = WeightEMA(denoiser, half_life=options.half_life)

    def take_step(self) -> None:
        batch, options = self.batches.next(self.noise.law), self.options
        bins = self.noise.bin_of(batch.sigma) if self.loss.n_bins > 1 else None
        self.optimizer.zero_grad()
        value = self.loss(self._losses(batch), batch.groups, bins)
        self.scaler.scale(value).backward()
        self.scaler.unscale_(self.optimizer)
        if options.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.denoiser.parameters(), options.max_grad_norm)
        self.descend()  # in place of the scaler's step: it skips the same ones, and counts them
        self.scaler.update()
        if self.step % options.log_every == 0:
            mean = total(float(value.detach()), self.device) / n_processes()
            self.log.append({"step": self.step, "loss": mean, **self.loss.log_entries()})
        self.ema.update(self.denoiser, n_samples=batch.n_samples)
        if options.callback is not None and self.step % options.callback_every == 0:
            with kept_generators(self.device):
                stop = options.callback(self.ema.model, self.step)
            self.stopped = any(gathered(bool(stop)))

    def _losses(self, batch: _Batch) -> Tensor:
        """Return the loss of every sample, ``(n,)``."""
        dtype = self.options.autocast
        with contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype):
            return denoising_losses(
                self.model,
                batch.x,
                batch.sigma,
                labels=batch.labels,
                ratio=self.options.ratio,
                noise=batch.noise,
            )

    def state(self) -> dict[str, Any]:
        own, *others = gathered(generator_states(self.device))
        return {
            **super().state(),
            "model": self.denoiser.state_dict(),
            "ema": self.ema.state_dict(),
            "log": self.log,
            "batches": self.batches.state(),
            "scaler": self.scaler.state_dict(),
            "generators": own,
            "generators of other processes": others,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        state = {**_BEFORE, **state}
        super().load_state(state)
        self.denoiser.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.log = [dict(row) for row in state["log"]]
        self.scaler.load_state_dict(state["scaler"])
        self.batches.load_state(state["batches"])
        restore_generators([state["generators"], *state["generators of other processes"]][rank()], self.device)


_BEFORE: Mapping[str, Any] = {"log": [], "batches": {}, "scaler": {}, "generators of other processes": []}
"""What a checkpoint stands for that was written before it had these entries; its log begins where it is resumed."""


def _check_model(denoiser: Denoiser, loss: GroupLoss, noise: NoiseLevels) -> torch.device:
    """Refuse before the first step what would fail in a later one, or go unnoticed; return the device."""
    if not any(weight.requires_grad for weight in denoiser.parameters()):
        raise ValueError(
            "denoiser has no weight that requires a gradient, as the averaged model of a run; call its "
            "requires_grad_(True), on a copy if the average is still needed"
        )
    if loss.n_bins not in (1, noise.n_bins):
        raise ValueError(
            f"noise has n_bins={noise.n_bins}, but loss n_bins={loss.n_bins}; build both with the same number"
        )
    return next(denoiser.parameters()).device


def _check_tensors(data: Tensor, groups: Tensor, labels: Tensor | None, device: torch.device) -> None:
    if len(data) == 0 or not data.isfinite().all():
        raise ValueError(f"data has shape {tuple(data.shape)} or holds NaN, expected finite samples, one at least")
    _check_rows(data, groups, labels)
    for name, values in (("data", data), ("groups", groups), ("labels", labels)):
        if values is not None and values.device != device:
            raise ValueError(f"{name} lies on {values.device}, the denoiser on {device}; move them to one device")


def _check_rows(x: Tensor, groups: Tensor, labels: Tensor | None) -> None:
    for name, values in (("groups", groups), ("labels", labels)):
        if values is not None and values.shape != x.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(values.shape)}, expected one per sample of data, ({len(x)},)")


def _seed_of(seed: int, *key: int) -> int:
    return int(np.random.SeedSequence([seed, *key]).generate_state(1)[0])


def _describe(value: Any) -> str:
    """Return type and parameters of a preconditioning or a law; other classes have an address as their repr."""
    return repr(value) if dataclasses.is_dataclass(value) else type(value).__qualname__
