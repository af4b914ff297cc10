"""A training loop for denoisers that can be killed at any point and then goes on, bit for bit, as if it had not been.

Everything that changes in training is in one :class:`_Training`, and everything that decides how it changes in one flat
table of plain values, which a checkpoint carries and which has to agree before it is loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from egtmetrics._atomic import write_whole
from egtmetrics._validation import check_number, check_positive_int

from .diffusion import Denoiser, WeightEMA, denoising_losses
from .losses import GroupLoss, MinMaxLoss
from .noise import NoiseLevels

_LISTED = 6
"""Differences named in an error; two architectures can differ in hundreds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What :func:`train` returns."""

    ema: WeightEMA
    """The averaged weights, to sample from."""
    n_steps: int
    """Batches seen in all, those before an interruption included."""
    n_samples_seen: int
    """``n_steps`` times the batch size."""
    n_skipped: int
    """Steps not taken because a gradient was NaN or infinite; the losses' own count is ``loss.n_nonfinite``."""
    resumed_at: int
    """Step of the checkpoint this run went on from; 0 if there was none."""


def train(
    denoiser: Denoiser,
    data: Tensor,
    groups: Tensor,
    loss: GroupLoss,
    noise: NoiseLevels,
    *,
    n_steps: int,
    labels: Tensor | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-4,
    half_life: float = 500_000.0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    random_state: int = 0,
    progress: bool = False,
) -> TrainingRun:
    r"""Train a denoiser with Adam under a strategy, keeping an average of its weights and, if asked to, a checkpoint.

    Each step draws rows i uniformly with replacement, sigma from ``noise.law`` and Gaussian noise, and descends

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
        Batches to see in all. A larger number than a checkpoint has goes on from it.
    labels
        ``(n,)`` classes for a conditional model, for example ``groups``.
    batch_size, learning_rate
        Of a step; the paper takes 256 and 1e-4.
    half_life
        Of the average of the weights, in samples, see :class:`WeightEMA`.
    checkpoint
        File to write to, and to go on from where it exists. It is written whole: a kill leaves the one before.
    checkpoint_every
        Steps between two; one is always written at the end.
    random_state
        Seed of everything random, dropout included. Global generators are left as they were.
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
        comes from another architecture or other settings, data or first weights: the error names what differs.
    FloatingPointError
        From the loss: NaN or infinite losses in more batches in a row than it allows.

    Warns
    -----
    ThinCellWarning
        If min-max would have to choose among fewer than 4 samples of a group, see :meth:`NoiseLevels.check_batch`.

    Notes
    -----
    A resumed run equals an uninterrupted one bit for bit where arithmetic does: on one machine with one number of
    threads. One process; for several, wrap :func:`denoising_losses` and the loss in a loop of DistributedDataParallel.

    Losses that are not finite are left out and counted by the loss. Where they made the gradient NaN, the step is not
    taken and counted in ``n_skipped``.

    References
    ----------
    The paper, appendix B.3.2. "1M iterations" there cannot be 5 hours of 8 V100, hence no default of ``n_steps``.

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
    seed = check_positive_int(random_state, "random_state", minimum=0)
    learning_rate = check_number(learning_rate, "learning_rate", above=0.0)
    device = _check_data(denoiser, data, groups, labels, loss, noise)
    if isinstance(loss, MinMaxLoss):
        noise.check_batch(batch_size, torch.bincount(groups, minlength=loss.n_groups) / len(groups))
    path = None if checkpoint is None else Path(checkpoint)
    settings = {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "half_life": half_life,
        "random_state": seed,
        "device": device.type,
        "preconditioning": _describe(denoiser.preconditioning),
        "noise": f"{_describe(noise.law)}, n_bins={noise.n_bins}",
        **describe_loss(loss),
        **{f"weights.{name}": f"{tuple(w.shape)} {w.dtype}" for name, w in denoiser.state_dict().items()},
        "data": fingerprint([data]),
        "groups": fingerprint([groups]),
        "labels": None if labels is None else fingerprint([labels]),
        "first weights": fingerprint(denoiser.state_dict().values()),
    }
    with seeded(seed, device):
        training = _Training(denoiser, loss, learning_rate=learning_rate, half_life=half_life, device=device)
        if path is not None and path.exists():
            training.load(read_checkpoint(path, settings, n_steps))
        resumed_at = training.step
        denoiser.train()
        loss.train()
        with tqdm(total=n_steps, initial=resumed_at, unit="step", leave=False, disable=not progress) as bar:
            while training.step < n_steps:
                rows = torch.randint(len(data), (batch_size,), device=device)
                training.take_step(data[rows], groups[rows], None if labels is None else labels[rows], noise)
                bar.update()
                if path is not None and (training.step % checkpoint_every == 0 or training.step == n_steps):
                    write_whole(path, training.dump(settings))
    return TrainingRun(
        ema=training.ema,
        n_steps=training.step,
        n_samples_seen=training.step * batch_size,
        n_skipped=training.n_skipped,
        resumed_at=resumed_at,
    )


class _Training:
    """All that changes in training, saved and loaded as one."""

    def __init__(
        self, denoiser: Denoiser, loss: GroupLoss, *, learning_rate: float, half_life: float, device: torch.device
    ) -> None:
        self.denoiser, self.loss, self.device = denoiser, loss, device
        self.ema = WeightEMA(denoiser, half_life=half_life)
        self.optimizer = torch.optim.Adam(denoiser.parameters(), lr=learning_rate)
        self.step = 0
        self.n_skipped = 0

    def take_step(self, x: Tensor, groups: Tensor, labels: Tensor | None, noise: NoiseLevels) -> None:
        sigma = noise.law.sample(len(x), device=self.device, dtype=x.dtype)
        bins = noise.bin_of(sigma) if self.loss.n_bins > 1 else None
        self.optimizer.zero_grad()
        self.loss(denoising_losses(self.denoiser, x, sigma, labels=labels), groups, bins).backward()
        self.n_skipped += not step_if_finite(self.optimizer)
        self.ema.update(self.denoiser, n_samples=len(x))
        self.step += 1

    def dump(self, settings: Mapping[str, Any]) -> bytes:
        on_cuda = self.device.type == "cuda"
        content = {
            "settings": dict(settings),
            "step": self.step,
            "n_skipped": self.n_skipped,
            "model": self.denoiser.state_dict(),
            "ema": self.ema.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if on_cuda else [])],
        }
        return to_bytes(content)

    def load(self, content: Mapping[str, Any]) -> None:
        self.step, self.n_skipped = content["step"], content["n_skipped"]
        self.denoiser.load_state_dict(content["model"])
        self.ema.load_state_dict(content["ema"])
        self.loss.load_state_dict(content["loss"])
        self.optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["generators"][0])
        for state in content["generators"][1:]:
            torch.cuda.set_rng_state(state, self.device)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, from which also dropout and initial weights come, and put them back at the end."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device and put back none
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def step_if_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Take a step, unless a gradient holds NaN or infinity; say whether it was taken.

    A NaN activation reaches the gradient even where the loss gave it weight zero.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    finite = bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())
    if finite:
        optimizer.step()
    return finite


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """A checkpoint as the bytes of its file; :func:`read_checkpoint` wants a ``settings`` and a ``step`` in it."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def read_checkpoint(path: Path, settings: Mapping[str, Any], n_steps: int) -> Mapping[str, Any]:
    """Load a checkpoint after checking that it is one of this very training."""
    file = io.BytesIO(path.read_bytes())  # so that below an OSError, too, is about the content
    try:
        content: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        saved, step = content["settings"], content["step"]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"checkpoint {path} cannot be read ({type(error).__name__}), expected a whole file written by training; "
            "delete it to train from the start, or name another file"
        ) from error
    differing = [name for name in {**saved, **settings} if saved.get(name) != settings.get(name)]
    if differing:
        listed = [f"{name} was {saved.get(name)}, is {settings.get(name)}" for name in differing[:_LISTED]]
        more = f", and {len(differing) - _LISTED} more" if len(differing) > _LISTED else ""
        raise ValueError(
            f"checkpoint {path} comes from another training: {'; '.join(listed)}{more}; pass the same again, or name "
            "another file"
        )
    if step > n_steps:
        raise ValueError(
            f"checkpoint {path} has {step} steps, more than n_steps={n_steps}; pass at least {step}, or name another "
            "file"
        )
    return content


def _check_data(
    denoiser: Denoiser, data: Tensor, groups: Tensor, labels: Tensor | None, loss: GroupLoss, noise: NoiseLevels
) -> torch.device:
    """Refuse before the first step what would fail, or pass unseen, in a later one."""
    device = next(denoiser.parameters()).device
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
    """Type and parameters of a preconditioning or a law; the default repr of other classes is an address."""
    return repr(value) if dataclasses.is_dataclass(value) else type(value).__qualname__


def describe_loss(loss: GroupLoss) -> dict[str, Any]:
    """Settings of a checkpoint: type, options and state of a strategy."""
    options = {
        name: value
        for name, value in vars(loss).items()
        if isinstance(value, bool | int | float) and name != "training" and not name.startswith("_")
    }
    # Weights of a ReweightedLoss are in its state, which loading would replace without a word.
    described = {"type": type(loss).__qualname__, **options, "state": fingerprint(loss.state_dict().values())}
    return {f"loss.{name}": value for name, value in described.items()}


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Digest of shapes, dtypes and content, the same on every device."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
