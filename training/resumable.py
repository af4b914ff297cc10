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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from egtmetrics._atomic import write_whole
from egtmetrics._progress import tqdm

from ._processes import gathered, n_processes, rank
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

    A subclass takes the steps, and adds the weights to what is saved, in :meth:`state` and :meth:`load_state`. A step
    may set ``stopped``: it is the last one then, also when the training is started again from its checkpoint.

    With ``torch.distributed`` initialised, every process runs the training, and the first one writes the checkpoint.
    All read it, so it lies in a folder that they share.

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
        self.stopped = False

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
            "stopped": self.stopped,
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.step, self.n_skipped = state["step"], state["n_skipped"]
        self.stopped = state.get("stopped", False)  # older checkpoints have no such entry
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
        _check_alike({**settings, "n_steps": n_steps, "step of the checkpoint": resumed_at})
        self.loss.train()
        shown = progress and rank() == 0
        with tqdm(total=n_steps, initial=resumed_at, unit="step", leave=False, disable=not shown) as bar:
            while self.step < n_steps and not self.stopped:
                self.take_step()
                bar.update()
                last = self.step == n_steps or self.stopped
                if path is not None and (last or self.step % checkpoint_every == 0):
                    state = self.state()  # on every process, since they may gather what it holds
                    if rank() == 0:
                        write_whole(path, to_bytes({"settings": dict(settings), **state}))
        return resumed_at


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, which dropout and initial weights draw from, and restore them at the end."""
    with kept_generators(device):
        seed_generators(seed, device)
        yield


def kept_generators(device: torch.device) -> AbstractContextManager[None]:
    """Restore the global generators at the end, those of the CPU and of the device."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the global generators, those of the CPU and of the device."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def generator_states(device: torch.device) -> list[Tensor]:
    """Return the states of the global generators, those of the CPU and of the device."""
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def restore_generators(states: Sequence[Tensor], device: torch.device) -> None:
    """Put the global generators into states that :func:`generator_states` returned."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)


def _check_alike(values: Mapping[str, Any]) -> None:
    """Refuse, on every process, a training that is not the same one on all of them."""
    if n_processes() == 1:
        return
    first, *others = gathered(dict(values))
    for number, other in enumerate(others, start=1):
        if listed := differences(first, other):
            raise ValueError(
                f"the processes do not train alike: from process 0 to process {number}, {listed}; pass the same to "
                "all, and keep the checkpoint in a folder that they share"
            )


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
