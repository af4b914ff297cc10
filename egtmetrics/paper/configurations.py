"""Training on images at the paper's scale, as files in ``configs`` have it: network, optimiser, strategies."""

from __future__ import annotations

import dataclasses
import importlib.resources
import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from egtmetrics.paper.unet import UNet
from egtmetrics.training.diffusion import Denoiser, EDMPreconditioning
from egtmetrics.training.losses import GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss
from egtmetrics.training.mlp import ResidualMLP
from egtmetrics.training.noise import NoiseLevels

_TABLES = {
    "network": tuple(name for name in inspect.signature(UNet).parameters if name not in ("n_classes",)),
    "training": ("batch_size", "learning_rate", "half_life"),
    "strategy": ("decay", "n_bins", "target"),
    "evaluation": ("n_seeds", "n_real", "n_bootstrap", "sampler_steps"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedTraining:
    """What :func:`train` takes, for one method."""

    denoiser: Denoiser
    loss: GroupLoss
    noise: NoiseLevels
    labels: Tensor | None
    """The groups, for a conditional model."""
    options: Mapping[str, Any]
    """``batch_size``, ``learning_rate`` and ``half_life``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfiguration:
    """A configuration as :func:`read_configuration` returns it: one dictionary for each table of the file."""

    network: Mapping[str, Any]
    """Arguments of :class:`UNet`."""
    training: Mapping[str, Any]
    """Options of :func:`train`."""
    strategy: Mapping[str, Any]
    """``decay`` and ``n_bins`` of all losses, ``target`` of the reweighted one."""
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """``n_seeds``, ``n_real``, ``n_bootstrap`` and ``sampler_steps`` of ``Table1Settings``; training needs none."""

    def prepare(self, method: str, groups: Tensor, *, denoiser: Denoiser | None = None) -> PreparedTraining:
        """Build one of the paper's four methods.

        Parameters
        ----------
        method
            ``"Pretrain"`` (no regard to groups), ``"Conditional"``, ``"Reweighted"`` or ``"Min-Max"``.
        groups
            ``(n,)`` integers from 0, of all images to train on.
        denoiser
            An unconditional one to start from, for example of :func:`load_checkpoint`; trained in place, but by
            ``"Conditional"``, which copies it. By default a new one, with EDM's preconditioning.

        Raises
        ------
        ValueError
            An unknown method, or groups that are none.

        Examples
        --------
        >>> import torch
        >>> from egtmetrics.paper.configurations import read_configuration
        >>> prepared = read_configuration("ffhq64-vp").prepare("Min-Max", torch.tensor([0, 1, 1]))
        >>> prepared.loss.n_bins, prepared.options["batch_size"]
        (8, 256)
        """
        if groups.ndim != 1 or len(groups) == 0 or groups.dtype.is_floating_point or groups.min() < 0:
            raise ValueError(
                f"groups has shape {tuple(groups.shape)} and dtype {groups.dtype}, expected integers from 0, (n,); "
                "leave out images without a group"
            )
        counts = torch.bincount(groups).double()
        options = {"decay": self.strategy["decay"], "n_bins": self.strategy["n_bins"]}
        losses: dict[str, Callable[[], GroupLoss]] = {
            "Pretrain": lambda: MeanLoss(len(counts), **options),
            "Conditional": lambda: MeanLoss(len(counts), **options),
            "Reweighted": lambda: ReweightedLoss(
                target=self.strategy["target"], source=counts / counts.sum(), **options
            ),
            "Min-Max": lambda: MinMaxLoss(len(counts), **options),
        }
        if method not in losses:
            raise ValueError(f"method={method!r} is unknown; pass one of {', '.join(losses)}")
        if denoiser is None:
            denoiser = Denoiser(UNet(**self.network), EDMPreconditioning())
        conditional = method == "Conditional"
        if conditional:
            if not isinstance(denoiser.network, UNet | ResidualMLP):
                kind = type(denoiser.network).__name__
                raise ValueError(f"denoiser has a {kind}, expected a UNet or ResidualMLP to condition")
            denoiser = Denoiser(denoiser.network.with_classes(len(counts)), denoiser.preconditioning)
        return PreparedTraining(
            denoiser=denoiser,
            loss=losses[method](),
            noise=NoiseLevels(denoiser.preconditioning.law, n_bins=self.strategy["n_bins"]),
            labels=groups if conditional else None,
            options=self.training,
        )


def read_configuration(source: str | Path) -> ImageConfiguration:
    """Read a configuration: ``"ffhq64-vp"`` and ``"ffhq64-ve"`` are the paper's, anything else is a TOML file.

    The tables ``network``, ``training``, ``strategy`` and ``evaluation`` have the keys of those two files. The number
    of steps is not among them, see :func:`train`.

    Raises
    ------
    OSError
        No such file.
    ValueError
        No TOML, or tables and keys other than those.

    Examples
    --------
    The paper's min-max fine-tuning of EDM-VP, on one GPU:

    >>> from egtmetrics.training import train
    >>> from egtmetrics.paper.checkpoints import load_checkpoint
    >>> from egtmetrics.paper.configurations import read_configuration
    >>> from egtmetrics.paper.images import ImageGroups
    >>> configuration = read_configuration("ffhq64-vp")
    >>> images, groups = (t.cuda() for t in ImageGroups("ffhq-64x64.zip").load())  # doctest: +SKIP
    >>> start = load_checkpoint("ffhq-vp.safetensors").cuda()  # doctest: +SKIP
    >>> prepared = configuration.prepare("Min-Max", groups, denoiser=start)  # doctest: +SKIP
    >>> run = train(prepared.denoiser, images, groups, prepared.loss.cuda(), prepared.noise,
    ...     n_steps=40_000, labels=prepared.labels, checkpoint="min-max.pt", **prepared.options)  # doctest: +SKIP
    """
    needed = [f"{table}.{key}" for table, keys in _TABLES.items() for key in keys if table != "network"]
    tables = read_tables(source, _TABLES, needed=[*needed, "network.resolution"])
    network = {key: tuple(value) if isinstance(value, list) else value for key, value in tables["network"].items()}
    return ImageConfiguration(**{**tables, "network": network})


def read_tables(source: str | Path, keys: Mapping[str, Sequence[str]], *, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file, or one of the package by its name, whose tables may have these ``keys`` and no other.

    ``needed`` are those that must be there, as ``"table.key"``.
    """
    packaged = importlib.resources.files("egtmetrics.paper") / "configs" / f"{source}.toml"
    is_packaged = isinstance(source, str) and "/" not in source and packaged.is_file()
    text = packaged.read_text() if is_packaged else Path(source).read_text()
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source} is no TOML file: {error}") from error
    given = {f"{table}.{key}" for table, has in tables.items() for key in (has if isinstance(has, dict) else [""])}
    known = {f"{table}.{key}" for table, names in keys.items() for key in names}
    missing = set(needed) - given
    if given - known or missing:
        raise ValueError(
            f"{source} has the unknown keys {sorted(given - known)} and lacks {sorted(missing)}; the keys are "
            f"{', '.join(sorted(known))}"
        )
    return tables
