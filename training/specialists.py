"""Specialists: one base, a branch for each group, each stopped early by the held-out loss of its own group.

No group pays for another one, as it does where one set of weights serves all: the paper's conditional closure, taken
literally. :func:`egtmetrics.training.language.train_language_specialists` does the same with adapters.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ._checks import check_classes
from .diffusion import Denoiser, tensor_of
from .early_stop import EarlyStop, train_until_best
from .losses import MeanLoss
from .noise import NoiseLevels


class GroupBranches(nn.Module):
    """Networks side by side: every row goes through that of its label.

    Called as ``branches(x, c_noise, labels)``, as any network of a :class:`Denoiser` that is conditioned on labels:
    ``x`` ``(n, ...)``, ``c_noise`` ``(n,)`` and ``labels`` ``(n,)``, integers from 0. The result has the shape and
    dtype of ``x``.

    Parameters
    ----------
    networks
        One for each group, called without labels.

    Raises
    ------
    ValueError
        From the call: labels that are missing or out of range.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import GroupBranches
    >>> class Constant(torch.nn.Module):
    ...     def __init__(self, value):
    ...         super().__init__()
    ...         self.value = value
    ...     def forward(self, x, c_noise, labels):
    ...         return torch.full_like(x, self.value)
    >>> branches = GroupBranches([Constant(1.0), Constant(2.0)])
    >>> branches(torch.zeros(3, 1), torch.zeros(3), torch.tensor([0, 1, 0])).flatten()
    tensor([1., 2., 1.])
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(networks)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_classes(labels, len(self.branches))
        output = torch.zeros_like(x)
        for group, branch in enumerate(self.branches):
            rows = (labels == group).nonzero().flatten()
            if len(rows):
                output = output.index_copy(
                    0, rows, tensor_of(branch(x[rows], c_noise[rows], None), x[rows].shape).to(x.dtype)
                )
        return output


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specialists:
    """What :func:`train_specialists` returns."""

    denoiser: Denoiser
    """Takes ``labels``, the groups, in training, sampling and :func:`held_out_losses`."""
    stops: tuple[EarlyStop, ...]
    """Of every group, when it was stopped and the held-out loss at every look."""


def train_specialists(
    denoiser: Denoiser,
    data: Tensor,
    groups: Tensor,
    held_out: Tensor,
    held_out_groups: Tensor,
    noise: NoiseLevels,
    *,
    n_steps: int,
    look_every: int = 100,
    patience: int = 5,
    folder: str | Path | None = None,
    random_state: int = 0,
    **options: Any,
) -> Specialists:
    r"""Train a copy of a denoiser for every group, on that group alone, until its own held-out loss rises.

    The weights of group a are the average of its run (:class:`WeightEMA`) at the look with the lowest mean over levels
    of :func:`held_out_losses`. So a group costs no other group anything. What a small group could learn from a large
    one is lost, unless the base was trained on both.

    Parameters
    ----------
    denoiser
        The base, without labels, for example the average of a run on all groups. It is left as it is.
    data, groups
        Training samples ``(n, ...)`` and their groups ``(n,)``, integers from 0, none of them empty.
    held_out, held_out_groups
        Samples and groups to stop by, of every group; no training samples among them.
    noise
        Law of sigma, and the levels of the held-out losses.
    n_steps
        Most steps of each group.
    look_every, patience
        See :func:`stop_early`.
    folder
        For checkpoints, made if missing; a run that was killed goes on from there. By default nothing is kept.
    random_state
        Seed of all trainings and of the noise of held-out losses.
    options
        Of :func:`train`: ``batch_size``, ``learning_rate``, ``half_life``, ``progress``.

    Returns
    -------
    Specialists
        One conditional denoiser, in eval mode, and how each group was stopped.

    Raises
    ------
    ValueError
        A group without held-out samples; and as :func:`train` and :func:`stop_early` raise it.

    References
    ----------
    The paper, section 4.1, conditional closure.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import Denoiser, EDMPreconditioning, NoiseLevels, ResidualMLP, train_specialists
    >>> base = Denoiser(ResidualMLP(2, width=16, n_blocks=1), EDMPreconditioning())
    >>> noise = NoiseLevels(base.preconditioning.law, n_bins=2)
    >>> x, groups = torch.randn(100, 2), torch.arange(100) % 2
    >>> specialists = train_specialists(base, x[:80], groups[:80], x[80:], groups[80:], noise, n_steps=4, look_every=2,
    ...     batch_size=32)
    >>> specialists.denoiser(torch.zeros(3, 2), torch.ones(3), torch.tensor([0, 1, 1])).shape
    torch.Size([3, 2])
    """
    counts, held_out_counts = torch.bincount(groups), torch.bincount(held_out_groups)
    if len(counts) != len(held_out_counts) or not (counts.all() and held_out_counts.all()):
        raise ValueError(
            f"groups has {counts.tolist()} samples of groups 0, 1, ..., held_out_groups {held_out_counts.tolist()}; "
            "expected some of every group in both"
        )
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    stops = []
    for group in range(len(counts)):
        rows, held_out_rows = groups == group, held_out_groups == group
        stops.append(
            train_until_best(
                denoiser,
                data[rows],
                torch.zeros_like(groups[rows]),
                lambda _: MeanLoss(1).to(data.device),
                noise,
                held_out[held_out_rows],
                torch.zeros_like(held_out_groups[held_out_rows]),
                n_steps=n_steps,
                look_every=look_every,
                patience=patience,
                checkpoint=None if folder is None else Path(folder) / f"group{group}.pt",
                random_state=random_state,
                **options,
            )
        )
    branches = []
    for stop in stops:
        branch = copy.deepcopy(denoiser).requires_grad_(False).eval()
        branch.load_state_dict(stop.weights)
        branches.append(cast("nn.Module", branch.network))  # it has weights, or train would have refused it
    return Specialists(denoiser=Denoiser(GroupBranches(branches), denoiser.preconditioning).eval(), stops=tuple(stops))
