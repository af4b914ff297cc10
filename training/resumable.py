"""Training that can be killed at any point and then goes on, bit for bit, as if it had not been.

All that changes in training is in one :class:`ResumableTraining`. All that decides how it changes is in one flat table
of plain values, its settings: a checkpoint carries them, and they must agree before it is loaded.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from egtmetrics._atomic import write_whole
from egtmetrics._progress import tqdm

from .losses import GroupLoss

_LISTED = 6
"""Most differences that an error names; two architectures can differ in hundreds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunCounts:
    """How far a training has come."""

    n_steps: int
    """Steps in all, including those before an interruption."""
    n_samples_seen: int
    n_skipped: int
    """Steps not taken because a gradient was NaN or infinite; the loss counts its own in ``loss.n_nonfinite``."""
    resumed_at: int
    """Step of the checkpoint that this run started from; 0 if there was none."""


class ResumableTraining(abc.ABC):
    """The state of a training under a strategy, and the loop that advances, saves and loads it.

    A subclass takes the steps, and adds the weights to what is saved, in :meth:`state` and :meth:`load_state`.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import MinMaxLoss
    >>> from egtmetrics.training.resumable import ResumableTraining
    >>> theta, groups = torch.nn.Parameter(torch.zeros(())), torch.tensor([0, 0, 1])
    >>> class Centre(ResumableTraining):
    ...     def take_step(self):
    ...         self.optimizer.zero_grad()
    ...         self.loss((theta - torch.tensor([0.0, 0.0, 1.0])) ** 2, groups).backward()
    ...         self.descend()
    >>> training = Centre(MinMaxLoss(2), torch.optim.SGD([theta], lr=0.1), theta.device)
    >>> training.run({}, n_steps=100, checkpoint=None, checkpoint_every=50, progress=False)
    0
    >>> abs(theta.item() - 0.5) < 0.2
    True
    """

    def __init__(self, loss: GroupLoss, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.loss, self.optimizer, self.device = loss, optimizer, device
        self.step = 0
        self.n_skipped = 0

    @abc.abstractmethod
    def take_step(self) -> None:
        """Compute the gradients of the next batch, and call :meth:`descend`."""

    def descend(self) -> None:
        """Take a step of the optimizer, unless a gradient holds NaN or infinity.

        A NaN activation reaches the gradient even where the loss gave it weight zero.
        """
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        if torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            self.optimizer.step()
        else:
            self.n_skipped += 1
        self.step += 1

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "n_skipped": self.n_skipped,
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.step, self.n_skipped = state["step"], state["n_skipped"]
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])

    def run(
        self,
        settings: Mapping[str, Any],
        *,
        n_steps: int,
        checkpoint: str | Path | None,
        checkpoint_every: int,
        progress: bool,
    ) -> int:
        """Train until step ``n_steps``, from the checkpoint if the file exists; return the step it started from."""
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and path.exists():
            self.load_state(read_checkpoint(path, settings, n_steps))
        resumed_at = self.step
        self.loss.train()
        with tqdm(total=n_steps, initial=resumed_at, unit="step", leave=False, disable=not progress) as bar:
            while self.step < n_steps:
                self.take_step()
                bar.update()
                if path is not None and (self.step % checkpoint_every == 0 or self.step == n_steps):
                    write_whole(path, to_bytes({"settings": dict(settings), **self.state()}))
        return resumed_at


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, which dropout and initial weights draw from, and restore them at the end."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device and restore none
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a checkpoint's file; :func:`read_checkpoint` needs ``settings`` and ``step`` in it."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def read_checkpoint(path: Path, settings: Mapping[str, Any], n_steps: int) -> Mapping[str, Any]:
    """Load a checkpoint, after checking that it belongs to this very training."""
    file = io.BytesIO(path.read_bytes())  # so that an OSError below is about the content, too
    try:
        content: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        saved, step = dict(content["settings"]), int(content["step"])
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(
            f"checkpoint {path} cannot be read ({type(error).__name__}), expected a whole file written by training; "
            "delete it to train from the start, or name another file"
        ) from error
    if listed := differences(saved, settings):
        raise ValueError(
            f"checkpoint {path} comes from another training: {listed}; pass the same again, or name another file"
        )
    if step > n_steps:
        raise ValueError(
            f"checkpoint {path} has {step} steps, more than n_steps={n_steps}; pass at least {step}, or name another "
            "file"
        )
    return content


def differences(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """List in which settings a saved run differs, or return an empty text."""
    differing = [name for name in {**saved, **settings} if saved.get(name) != settings.get(name)]
    listed = "; ".join(f"{name} was {saved.get(name)}, is {settings.get(name)}" for name in differing[:_LISTED])
    return listed + (f", and {len(differing) - _LISTED} more" if len(differing) > _LISTED else "")


def describe_weights(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the settings that say which weights are trained: shape and dtype of each."""
    return {f"weights.{name}": f"{tuple(weight.shape)} {weight.dtype}" for name, weight in weights.items()}


def describe_loss(loss: GroupLoss) -> dict[str, Any]:
    """Return the settings that say which strategy trains: type, options and state."""
    options = {
        name: value
        for name, value in vars(loss).items()
        if isinstance(value, bool | int | float) and name != "training" and not name.startswith("_")
    }
    # The weights of a ReweightedLoss are in its state, which loading would replace silently.
    described = {"type": type(loss).__qualname__, **options, "state": fingerprint(loss.state_dict().values())}
    return {f"loss.{name}": value for name, value in described.items()}


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Return a digest of shapes, dtypes and content, the same on every device."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
