"""Losses of a model by group on samples that it was not trained on, with standard errors.

They say when to stop, how far a group is from what can be reached, and what to subtract when losses of groups are
compared: the ``reference`` of :class:`MinMaxLoss` and :class:`GroupDROLoss`.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from egtmetrics._validation import check_positive_int

from ._precision import exact_dtype
from .diffusion import Denoiser, denoising_losses
from .noise import NoiseLevels


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutLosses:
    """What :func:`held_out_losses` and :func:`group_means` return, in float64 on the CPU."""

    means: Tensor
    """Mean loss of every group at every noise level, ``(n_groups, n_bins)``; NaN for a group without samples."""
    errors: Tensor
    """Standard errors of the means over samples, ``(n_groups, n_bins)``; NaN for fewer than two samples."""
    counts: Tensor
    """Samples of every group, ``(n_groups,)``."""


def group_means(per_sample: Tensor, groups: Tensor, n_groups: int | None = None) -> HeldOutLosses:
    r"""Mean loss of every group, with its standard error over samples.

    .. math:: \bar\ell_{ab} = \frac1{n_a} \sum_{i: a_i = a} \ell_{ib}, \quad
        \text{SE}_{ab}^2 = \frac1{n_a (n_a - 1)} \sum_{i: a_i = a} (\ell_{ib} - \bar\ell_{ab})^2.

    Parameters
    ----------
    per_sample
        ``(n,)``, for example of ``losses_of_texts`` for a language model, or ``(n, n_bins)`` with noise levels.
    groups
        ``(n,)`` integers from 0 to ``n_groups - 1``.
    n_groups
        By default the largest group plus 1.

    Raises
    ------
    ValueError
        Shapes that do not fit; a group out of range.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import group_means
    >>> losses = group_means(torch.tensor([1.0, 2.0, 3.0, 7.0]), torch.tensor([0, 0, 0, 1]))
    >>> losses.means.flatten().tolist(), losses.errors.flatten().tolist()
    ([2.0, 7.0], [0.5773502691896257, nan])
    """
    if per_sample.ndim not in (1, 2) or groups.shape != per_sample.shape[:1] or len(groups) == 0:
        raise ValueError(
            f"per_sample has shape {tuple(per_sample.shape)} and groups {tuple(groups.shape)}, expected (n,) or "
            "(n, n_bins) and (n,), with one sample at least"
        )
    losses = per_sample.detach().cpu().double().reshape(len(groups), -1)
    members = groups.detach().cpu().long()
    n_groups = int(members.max()) + 1 if n_groups is None else check_positive_int(n_groups, "n_groups")
    if members.min() < 0 or members.max() >= n_groups:
        raise ValueError(
            f"groups holds values from {int(members.min())} to {int(members.max())}, expected 0 to {n_groups - 1}; "
            "leave out samples without a group (-1, where an oracle abstained)"
        )
    counts = torch.bincount(members, minlength=n_groups)
    n = counts[:, None]
    zeros = losses.new_zeros(n_groups, losses.shape[1])
    means = zeros.index_add(0, members, losses) / n
    squares = zeros.index_add(0, members, (losses - means[members]) ** 2)
    errors = (squares / (n * (n - 1))).sqrt().masked_fill(n < 2, torch.nan)
    return HeldOutLosses(means=means, errors=errors, counts=counts)


@torch.no_grad()
def held_out_losses(
    denoiser: Denoiser,
    data: Tensor,
    groups: Tensor,
    noise: NoiseLevels,
    *,
    labels: Tensor | None = None,
    n_groups: int | None = None,
    n_draws: int = 4,
    batch_size: int = 1024,
    random_state: int = 0,
) -> HeldOutLosses:
    r"""Denoising loss of every group at every noise level, on samples that the model was not trained on.

    .. math:: \ell_{ib} = \frac1m \sum_{j=1}^m \tfrac{w(\sigma_{ibj})}{d}
        \| D(x_i + \sigma_{ibj} n_{ibj}; \sigma_{ibj}) - x_i \|^2,

    with sigma drawn from the law within level b, in m parts of equal probability. The mean over the levels of a group's
    means is its loss in training.

    Parameters
    ----------
    denoiser
        D, or one of :func:`train_specialists` with ``labels=groups``. It is called in eval mode.
    data
        Clean samples ``(n, ...)``, on the device of the denoiser.
    groups
        ``(n,)`` integers from 0.
    noise
        The levels of the strategy, ``n_bins`` the same as its.
    labels
        ``(n,)`` classes for a conditional model, for example ``groups``.
    n_groups
        By default the largest group plus 1.
    n_draws
        m, draws of the noise for each sample and level.
    batch_size
        Samples at once.
    random_state
        Seed of the noise. It depends on nothing but this, the shape and dtype of the data, ``n_bins`` and ``n_draws``:
        calls for two models have the same noise, so their difference is paired.

    Returns
    -------
    HeldOutLosses
        Means and standard errors; the latter are over samples, so the draws of one sample do not count as several.

    Raises
    ------
    ValueError
        Shapes that do not fit; a group out of range.

    Notes
    -----
    As a reference for a strategy, pass samples on which *no* model was trained: on training samples a model that
    overfits is too good, most of all for a small group. A specialist that was stopped early by the same samples is a
    little too good, too, since the lowest of several losses was taken.

    Cost: n n_bins n_draws evaluations.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import Denoiser, EDMPreconditioning, MinMaxLoss, NoiseLevels, ResidualMLP
    >>> from egtmetrics.training import held_out_losses
    >>> denoiser = Denoiser(ResidualMLP(2, width=16, n_blocks=1), EDMPreconditioning())
    >>> noise = NoiseLevels(denoiser.preconditioning.law, n_bins=2)
    >>> losses = held_out_losses(denoiser, torch.zeros(100, 2), torch.arange(100) % 2, noise)
    >>> losses.means.shape, losses.counts
    (torch.Size([2, 2]), tensor([50, 50]))
    >>> loss = MinMaxLoss(2, n_bins=2, reference=losses.means)
    """
    n_draws = check_positive_int(n_draws, "n_draws")
    batch_size = check_positive_int(batch_size, "batch_size")
    for name, values in (("groups", groups), ("labels", labels)):
        if values is not None and values.shape != data.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(values.shape)}, expected one per sample of data, ({len(data)},)")
    generator = torch.Generator().manual_seed(check_positive_int(random_state, "random_state", minimum=0))
    sums = torch.zeros(len(data), noise.n_bins, dtype=exact_dtype(data.device), device=data.device)
    was_training = denoiser.training
    denoiser.eval()
    try:
        for level in range(noise.n_bins):
            for draw in range(n_draws):
                u = torch.rand(len(data), generator=generator, dtype=torch.float64)
                u = (level + (draw + u) / n_draws) / noise.n_bins
                sigma = noise.law.quantile(u.clamp(min=2.0**-54)).to(data)  # rand can be 0, where sigma may be 0
                normal = torch.randn(data.shape, generator=generator, dtype=data.dtype).to(data.device)
                for start in range(0, len(data), batch_size):
                    part = slice(start, start + batch_size)
                    sums[part, level] += denoising_losses(
                        denoiser,
                        data[part],
                        sigma[part],
                        labels=None if labels is None else labels[part],
                        noise=normal[part],
                    )
    finally:
        denoiser.train(was_training)
    return group_means(sums / n_draws, groups, n_groups)
