"""The distributions of sigma in the training of EDM, VP and VE, and their division into levels of equal probability."""

from __future__ import annotations

import dataclasses
import math
import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from egtmetrics._validation import check_number, check_positive_int

from ._checks import check_proportions
from ._precision import exact, exact_dtype

_SAMPLES_PER_CELL = 4.0
"""With fewer, the smallest cell has under 3 samples in a quarter of the batches or more (Poisson)."""


class ThinCellWarning(UserWarning):
    """A group has so few samples at each noise level of a batch that the choice of the worst group is mostly chance."""


class NoiseLaw(ABC):
    """Law of the standard deviation sigma > 0 of the noise in training, given by its quantile function."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Sigma below which lies a share ``u`` in (0, 1) of the law; same shape as ``u``, in float64."""

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw ``(n,)`` independent sigmas as quantiles of uniform numbers, by default on the generator's device.

        >>> import torch
        >>> from egtmetrics.training import EDMNoise
        >>> EDMNoise().sample(2, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2])
        """
        n = check_positive_int(n, "n")
        if device is None and generator is not None:
            device = generator.device
        device = torch.get_default_device() if device is None else torch.device(device)
        u = torch.rand(n, generator=generator, device=device, dtype=exact_dtype(device))
        return self.quantile(u.clamp(min=2.0**-54)).to(dtype)  # rand can return 0, whose quantile may be sigma = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDMNoise(NoiseLaw):
    r"""Log-normal: :math:`\ln\sigma \sim N(\text{mean}, \text{std}^2)`.

    References
    ----------
    Karras, Aittala, Aila, Laine: Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022,
    Table 1, P_mean and P_std.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import EDMNoise
    >>> EDMNoise().quantile(torch.tensor([0.5]))  # exp(-1.2)
    tensor([0.3012], dtype=torch.float64)
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        check_number(self.std, "std", above=0.0)

    def quantile(self, u: Tensor) -> Tensor:
        return torch.exp(self.mean + self.std * torch.special.ndtri(exact(u)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VPNoise(NoiseLaw):
    r"""Variance preserving: :math:`\sigma(t) = \sqrt{\exp(\beta_d t^2 / 2 + \beta_{\min} t) - 1}`, t uniform.

    t lies between ``epsilon`` and 1.

    References
    ----------
    Karras et al. 2022, Table 1 and equation 16.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import VPNoise
    >>> law = VPNoise()
    >>> law.time(law.sigma(torch.tensor([0.25, 1.0])))
    tensor([0.2500, 1.0000], dtype=torch.float64)
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_number(self.beta_d, "beta_d", above=0.0)
        check_number(self.beta_min, "beta_min", above=0.0)
        check_number(self.epsilon, "epsilon", above=0.0, below=1.0)

    def sigma(self, t: Tensor) -> Tensor:
        """Sigma at time ``t``, in float64."""
        t = exact(t)
        return torch.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Time at which ``sigma`` is reached, in float64; the root of the quadratic in a form without cancellation."""
        log_variance = torch.log1p(exact(sigma) ** 2)
        root = torch.sqrt(self.beta_min**2 + 2.0 * self.beta_d * log_variance)
        return 2.0 * log_variance / (root + self.beta_min)

    def quantile(self, u: Tensor) -> Tensor:
        return self.sigma(self.epsilon + (1.0 - self.epsilon) * exact(u))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VENoise(NoiseLaw):
    r"""Variance exploding: :math:`\ln\sigma` uniform between ``ln sigma_min`` and ``ln sigma_max``.

    References
    ----------
    Karras et al. 2022, Table 1.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import VENoise
    >>> VENoise().quantile(torch.tensor([0.5]))  # sqrt(0.02 * 100)
    tensor([1.4142], dtype=torch.float64)
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        check_number(self.sigma_min, "sigma_min", above=0.0)
        check_number(self.sigma_max, "sigma_max", above=self.sigma_min)

    def quantile(self, u: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** exact(u)


class NoiseLevels:
    r"""Levels of equal probability under the law of sigma: level b holds the sigmas from quantile b/B to (b + 1)/B.

    Algorithm 1 of the paper chooses the worst group "at each noise level", but training draws sigma from a continuous
    law. Levels of equal probability have the same expected number of samples.

    Parameters
    ----------
    law
        The law that sigma is drawn from, for example ``EDMPreconditioning().law``.
    n_bins
        B.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import EDMNoise, NoiseLevels
    >>> levels = NoiseLevels(EDMNoise(), n_bins=4)
    >>> levels.edges
    tensor([0.1341, 0.3012, 0.6766], dtype=torch.float64)
    >>> levels.bin_of(torch.tensor([0.002, 0.2, 80.0]))
    tensor([0, 1, 3])
    """

    def __init__(self, law: NoiseLaw, n_bins: int = 8) -> None:
        self.law = law
        self.n_bins = check_positive_int(n_bins, "n_bins")
        self.edges = law.quantile(torch.arange(1, self.n_bins, dtype=torch.float64) / self.n_bins)
        """The B - 1 sigmas between levels, ascending, float64."""

    def bin_of(self, sigma: Tensor) -> Tensor:
        """Level of every sigma, from 0 to ``n_bins - 1``, in the shape of ``sigma``; an edge is in the level above it.

        Raises
        ------
        ValueError
            A sigma that is not positive, or NaN.
        """
        if not (sigma > 0.0).all():
            raise ValueError("sigma holds values that are not positive, or NaN; pass standard deviations of noise")
        values = exact(sigma.detach())
        return torch.bucketize(values, self.edges.to(values.dtype).to(values.device), right=True)

    def check_batch(self, batch_size: int, proportions: Any) -> float:
        """Expected number of samples of the smallest group at each level; warns with ThinCellWarning below 4.

        ``batch_size`` is that of an optimizer step over all processes, ``proportions`` are those of the groups in the
        training data.

        >>> from egtmetrics.training import EDMNoise, NoiseLevels
        >>> NoiseLevels(EDMNoise(), n_bins=8).check_batch(256, [0.75, 0.25])
        8.0
        """
        smallest = float(check_proportions(proportions, "proportions").min())
        expected = check_positive_int(batch_size, "batch_size") * smallest / self.n_bins
        if expected < _SAMPLES_PER_CELL:
            fitting = math.floor(batch_size * smallest / _SAMPLES_PER_CELL)
            remedy = f"take n_bins={fitting}" if fitting else "take n_bins=1"
            warnings.warn(
                f"a batch of {batch_size} has {expected:.3g} samples of the smallest group (proportion {smallest:.3g}) "
                f"at each of {self.n_bins} noise levels, fewer than {_SAMPLES_PER_CELL:g}, so the choice of the "
                f"worst group is mostly chance; {remedy}, or larger batches, or a decay closer to 1",
                ThinCellWarning,
                stacklevel=2,
            )
        return expected
