r"""How much denser a target mixture of the groups is than the training data, at a noisy sample, by a classifier.

Let q be the law of the training data and p that of the target: the same groups, in other proportions. With noise of
deviation s their densities are q_s and p_s, and their ratio follows from the group's probability at a noisy sample:

.. math:: r(x; s) = \frac{p_s(x)}{q_s(x)} = \sum_a \frac{\pi_a^{\text{target}}}{\pi_a^{\text{source}}}\, P(a \mid x; s).

The best denoiser of either is x + s^2 times the gradient of its log density. So theirs differ by s^2 grad log r, and a
denoiser trained on q alone learns that of p from the target x_0 + s^2 grad log r. A weight r without that shift of the
target would change nothing: the best value at every noisy sample stays that of q.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from egtmetrics._validation import check_number, check_positive_int

from .diffusion import EDMPreconditioning, WeightEMA
from .losses import MeanLoss, ReweightedLoss
from .mlp import ResidualMLP
from .noise import NoiseLaw
from .resumable import ResumableTraining, describe_weights, fingerprint, seeded

_RAMP_UP = 0.1
"""Of the average of the classifier's weights. The last weights are twice as far from a known ratio."""


class RatioTerms(NamedTuple):
    """What a :class:`DensityRatio` returns."""

    weight: Tensor
    """r, ``(n,)``."""
    shift: Tensor
    """s^2 grad log r, in the shape of the samples: by how much the two best denoisers differ."""


class DensityRatio(nn.Module):
    r"""Ratio of the target's to the training data's density at noisy samples, from a classifier into groups.

    .. math:: r(x; s) = \sum_a \frac{\pi_a^{\text{target}}}{\pi_a^{\text{source}}}\, P(a \mid x; s), \quad
        P(\cdot \mid x; s) = \text{softmax}\Bigl(\ln \pi^{\text{source}} + \tfrac{d}{\sqrt{s^2 + d^2}}
        F(c_{in} x; c_{noise})\Bigr),

    with d = ``sigma_data``, and c_in and c_noise of :class:`EDMPreconditioning`. Called as ``ratio(x, sigma)`` with
    noisy samples ``(n, ...)`` and ``sigma`` ``(n,)``; returns :class:`RatioTerms`, without a graph. Pass it to
    :func:`denoising_losses` or :func:`train`, with a :class:`MeanLoss`.

    The factor before F does two things. At much noise the groups cannot be told apart: P becomes the proportions, and r
    becomes 1, whatever F is. And the shift, s^2 times a gradient, has an error of at most d times that of the gradient
    of F; without the factor that would be s times. F = 0 gives r = 1 and no shift.

    Parameters
    ----------
    network
        F, called as ``network(c_in x, c_noise)`` with ``c_noise`` ``(n,)``; returns ``(n, n_groups)``. It is switched
        to ``eval()``: a sample's output must not depend on others.
    target
        Proportions of the groups to train for, as for :class:`ReweightedLoss`.
    source
        Proportions of the groups in the training data, ``(n_groups,)``.
    sigma_data
        d, the standard deviation of the data.

    Raises
    ------
    ValueError
        Proportions as for :class:`ReweightedLoss`. From the call: a network whose output has another shape.

    Notes
    -----
    **When to use it.** Where every sample has a group, :class:`ReweightedLoss` needs no classifier and has the same
    expected gradient, since the mean of its weights given the noisy sample is r. The ratio varies less: at much noise
    it weights all samples alike. It is also there where only some of the training samples have a group: fit it to
    these, and train with all. Its price is the classifier's error, which moves the denoiser.

    **Without training,** ``lambda x, sigma, labels: denoiser(x, sigma) + ratio(x, sigma).shift`` in
    :func:`heun_sample` draws from the target mixture (classifier guidance, Dhariwal and Nichol 2021).

    Mixed precision is switched off inside. Cost: one pass through the network and back.

    References
    ----------
    Kim, Na, Park, Lee, Kang, Moon: Training Unbiased Diffusion Models From Biased Dataset, ICLR 2024. Theirs is the
    ratio to a small reference set, from a classifier between the two sets. Here the sets differ in their groups only.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import DensityRatio, ResidualMLP
    >>> ratio = DensityRatio(ResidualMLP(2, n_outputs=2), target="ego", source=[0.75, 0.25])
    >>> ratio(torch.zeros(3, 2), torch.ones(3)).weight  # not fitted yet
    tensor([1., 1., 1.])
    """

    log_source: Tensor
    log_ratios: Tensor
    """Logarithm of target over source, ``(n_groups,)``."""

    def __init__(self, network: nn.Module, *, target: Any, source: Any, sigma_data: float = 0.5) -> None:
        super().__init__()
        weights = ReweightedLoss(target=target, source=source).sample_weights
        if weights.shape[1] != 1:
            raise ValueError(
                f"source has {weights.shape[1]} columns, expected (n_groups,): the proportions are the same at all "
                "noise levels"
            )
        proportions = torch.as_tensor(source, dtype=torch.float64)
        self.register_buffer("log_source", (proportions / proportions.sum()).log().float())
        self.register_buffer("log_ratios", weights[:, 0].log().float())
        self.network = network.eval()
        self.sigma_data = check_number(sigma_data, "sigma_data", above=0.0)

    def log_probabilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logarithm of P(a | x; s), ``(n, n_groups)``, with a graph."""
        c = EDMPreconditioning(sigma_data=self.sigma_data).scalings(sigma.to(x.dtype))
        logits: Tensor = self.network(c.in_.reshape(-1, *[1] * (x.ndim - 1)) * x, c.noise)
        if logits.shape != (len(x), len(self.log_source)):
            raise ValueError(
                f"network returned the shape {tuple(logits.shape)}, expected one number for each of {len(x)} samples "
                f"and {len(self.log_source)} groups"
            )
        return torch.log_softmax(self.log_source + c.skip.sqrt()[:, None] * logits, dim=1)  # d^2 / (s^2 + d^2)

    def forward(self, x: Tensor, sigma: Tensor) -> RatioTerms:
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            noisy = x.detach().requires_grad_()
            log_ratio = torch.logsumexp(self.log_ratios + self.log_probabilities(noisy, sigma), dim=1)
            (slope,) = torch.autograd.grad(log_ratio.sum(), noisy)
        return RatioTerms(log_ratio.detach().exp(), sigma.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) ** 2 * slope)

    def train(self, mode: bool = True) -> DensityRatio:
        """Stay in ``eval()``: only :func:`fit_density_ratio` trains the network."""
        return super().train(False)


def fit_density_ratio(
    data: Tensor,
    groups: Tensor,
    law: NoiseLaw,
    *,
    n_steps: int,
    target: Any = "ego",
    network: nn.Module | None = None,
    sigma_data: float = 0.5,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    random_state: int = 0,
    progress: bool = False,
) -> DensityRatio:
    r"""Fit a :class:`DensityRatio` to clean samples with groups, which it learns to tell apart under noise.

    Each step draws rows i uniformly with replacement, sigma from ``law`` and Gaussian noise n, and takes a step of Adam
    on the mean of :math:`-\ln P(a_i \mid x_i + \sigma_i n_i; \sigma_i)`. The result has the averaged weights of
    :class:`WeightEMA`, with a half-life of at most a tenth of the samples seen: groups of noisy samples are noisy
    themselves, and so is the last step.

    Parameters
    ----------
    data
        Clean samples ``(n, ...)``, float32 or float64; those the denoiser is trained on, or a random part of them.
    groups
        ``(n,)`` integers from 0. Their proportions here are the source.
    law
        The law of sigma in the training of the denoiser, ``denoiser.preconditioning.law``.
    n_steps
        Number of batches, including those of a checkpoint.
    target
        Proportions to train for: an array, or ``"ego"`` for equal ones.
    network, sigma_data
        See :class:`DensityRatio`; trained in place, of which the result has an average. None for a small
        :class:`ResidualMLP`, for data ``(n, d)``.
    batch_size, learning_rate
        Of a step.
    checkpoint, checkpoint_every, random_state, progress
        As for :func:`train`.

    Returns
    -------
    DensityRatio

    Raises
    ------
    ValueError
        Shapes that do not fit, groups that are missing or negative; a checkpoint of another fit.

    Notes
    -----
    A classifier that knows its training samples by heart is too sure of noisy versions of them. That makes the ratio
    that of these samples instead of their law, which is what :class:`ReweightedLoss` weights by.

    Examples
    --------
    Two points, 0 (in 3 of 4 samples) and 1. Close to them the ratio is 1/2 / (3/4) and 1/2 / (1/4):

    >>> import torch
    >>> from egtmetrics.training import EDMNoise, fit_density_ratio
    >>> groups = torch.arange(100) % 4 // 3
    >>> ratio = fit_density_ratio(groups[:, None].float(), groups, EDMNoise(), n_steps=200)
    >>> near = ratio(torch.tensor([[0.0], [1.0]]), torch.full((2,), 0.05)).weight
    >>> bool((near - torch.tensor([2 / 3, 2.0])).abs().max() < 0.1)
    True
    """
    n_steps = check_positive_int(n_steps, "n_steps")
    batch_size = check_positive_int(batch_size, "batch_size")
    checkpoint_every = check_positive_int(checkpoint_every, "checkpoint_every")
    learning_rate = check_number(learning_rate, "learning_rate", above=0.0)
    seed = check_positive_int(random_state, "random_state", minimum=0)
    if data.ndim < 2 or len(data) == 0 or not data.isfinite().all():
        raise ValueError(f"data has shape {tuple(data.shape)} or holds NaN, expected finite samples (n, ...)")
    if groups.shape != data.shape[:1] or groups.min() < 0:
        raise ValueError(
            f"groups has shape {tuple(groups.shape)} and {int(groups.min())} as its lowest value, expected integers "
            f"from 0, one for each of {len(data)} samples; leave out samples without a group (-1)"
        )
    counts = torch.bincount(groups).cpu()
    with seeded(seed, data.device):
        if network is None:
            if data.ndim != 2:
                raise ValueError(f"network is missing, but data has shape {tuple(data.shape)}; pass a network for it")
            network = ResidualMLP(data.shape[1], n_outputs=len(counts), width=128, n_blocks=2)
    ratio = DensityRatio(network, target=target, source=counts / counts.sum(), sigma_data=sigma_data).to(data.device)
    training = _ClassifierTraining(ratio, data, groups, law, batch_size, learning_rate, seed)
    settings = {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "sigma_data": sigma_data,
        "random_state": seed,
        "law": repr(law),
        **describe_weights(ratio.state_dict()),
        "data": fingerprint([data]),
        "groups": fingerprint([groups]),
        "first weights": fingerprint(ratio.state_dict().values()),
    }
    network.train()
    training.run(settings, n_steps=n_steps, checkpoint=checkpoint, checkpoint_every=checkpoint_every, progress=progress)
    ratio.network = training.ema.model
    return ratio


class _ClassifierTraining(ResumableTraining):
    """Adam on the classifier of noisy samples, and the average of its weights."""

    def __init__(
        self,
        ratio: DensityRatio,
        data: Tensor,
        groups: Tensor,
        law: NoiseLaw,
        batch_size: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        loss = MeanLoss(len(ratio.log_source)).to(data.device)
        super().__init__(loss, torch.optim.Adam(ratio.parameters(), lr=learning_rate), data.device)
        self.ratio, self.data, self.groups, self.law = ratio, data, groups, law
        self.batch_size, self.seed = batch_size, seed
        self.ema = WeightEMA(ratio.network, ramp_up=_RAMP_UP)

    def take_step(self) -> None:
        # A seed for every step, so that an interruption changes nothing.
        step = int(np.random.SeedSequence([self.seed, self.step]).generate_state(1)[0])
        with seeded(step, self.device):
            rows = torch.randint(len(self.data), (self.batch_size,), device=self.device)
            x, groups = self.data[rows], self.groups[rows]
            sigma = self.law.sample(len(x), device=self.device, dtype=x.dtype)
            noisy = x + sigma.reshape(-1, *[1] * (x.ndim - 1)) * torch.randn_like(x)
            self.optimizer.zero_grad()
            losses = functional.nll_loss(self.ratio.log_probabilities(noisy, sigma), groups, reduction="none")
            self.loss(losses, groups).backward()
        self.descend()
        self.ema.update(self.ratio.network, n_samples=len(x))

    def state(self) -> dict[str, Any]:
        return {**super().state(), "model": self.ratio.state_dict(), "ema": self.ema.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.ratio.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
