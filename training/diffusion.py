"""Diffusion in the form of Karras et al. 2022: preconditioning, per-sample denoising losses, Heun sampler, weight EMA.

Written from the formulas of that paper; the licence of its code does not allow copying.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from egtmetrics._validation import check_number, check_positive_int

from ._precision import exact
from .noise import EDMNoise, NoiseLaw, VENoise, VPNoise

_VP_TIME_STEPS = 999.0
"""M - 1: the network gets the time as a position in a chain of M = 1000 steps."""


class Scalings(NamedTuple):
    """The four functions of sigma around the network F, each in the shape of sigma."""

    skip: Tensor
    out: Tensor
    in_: Tensor
    noise: Tensor


class Preconditioning(Protocol):
    r"""How a network F becomes a denoiser, D(x; s) = c_skip x + c_out F(c_in x; c_noise), and how it is trained."""

    @property
    def law(self) -> NoiseLaw:
        """The law of sigma in training."""

    def scalings(self, sigma: Tensor) -> Scalings:
        """c_skip, c_out, c_in, c_noise at ``sigma``."""

    def weight(self, sigma: Tensor) -> Tensor:
        """w(sigma), the weight of the squared error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDMPreconditioning:
    r"""The preconditioning of EDM, for data of standard deviation d = ``sigma_data``.

    .. math::

        c_{skip} = \frac{d^2}{s^2 + d^2}, \quad c_{out} = \frac{s d}{\sqrt{s^2 + d^2}}, \quad
        c_{in} = \frac1{\sqrt{s^2 + d^2}}, \quad c_{noise} = \frac{\ln s}4, \quad w = \frac{s^2 + d^2}{(s d)^2}.

    The inputs and targets of the network have unit variance at every sigma, and w c_out^2 = 1.

    References
    ----------
    Karras et al. 2022, Table 1 and appendix B.6. The released FFHQ checkpoints named "VP" and "VE" also
    have this preconditioning; they differ in architecture.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import EDMPreconditioning
    >>> EDMPreconditioning().scalings(torch.tensor(0.5)).skip
    tensor(0.5000)
    """

    sigma_data: float = 0.5
    law: NoiseLaw = dataclasses.field(default_factory=EDMNoise)

    def __post_init__(self) -> None:
        check_number(self.sigma_data, "sigma_data", above=0.0)

    def scalings(self, sigma: Tensor) -> Scalings:
        d = self.sigma_data
        variance = sigma**2 + d**2
        return Scalings(d**2 / variance, sigma * d / variance.sqrt(), variance.rsqrt(), sigma.log() / 4.0)

    def weight(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class VPPreconditioning:
    r"""The preconditioning of the variance-preserving diffusion of Song et al.

    .. math:: c_{skip} = 1, \quad c_{out} = -s, \quad c_{in} = \frac1{\sqrt{s^2 + 1}}, \quad
        c_{noise} = 999\, \sigma^{-1}(s), \quad w = \frac1{s^2}.

    The network predicts the noise; its input has unit variance for data of unit variance.

    References
    ----------
    Karras et al. 2022, Table 1 and appendix C.1.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import VPPreconditioning
    >>> vp = VPPreconditioning()
    >>> vp.scalings(vp.law.sigma(torch.tensor(0.5))).noise
    tensor(499.5000, dtype=torch.float64)
    """

    law: VPNoise = dataclasses.field(default_factory=VPNoise)

    def scalings(self, sigma: Tensor) -> Scalings:
        time = self.law.time(sigma).to(sigma.dtype)
        return Scalings(torch.ones_like(sigma), -sigma, (sigma**2 + 1.0).rsqrt(), _VP_TIME_STEPS * time)

    def weight(self, sigma: Tensor) -> Tensor:
        return sigma**-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class VEPreconditioning:
    r"""The preconditioning of the variance-exploding diffusion of Song et al.

    .. math:: c_{skip} = 1, \quad c_{out} = s, \quad c_{in} = 1, \quad c_{noise} = \ln(s / 2), \quad w = \frac1{s^2}.

    The network predicts the noise with the opposite sign, and must scale its own input.

    References
    ----------
    Karras et al. 2022, Table 1 and appendix C.2.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import VEPreconditioning
    >>> VEPreconditioning().scalings(torch.tensor(2.0)).noise
    tensor(0.)
    """

    law: NoiseLaw = dataclasses.field(default_factory=VENoise)

    def scalings(self, sigma: Tensor) -> Scalings:
        one = torch.ones_like(sigma)
        return Scalings(one, sigma, one, torch.log(sigma / 2.0))

    def weight(self, sigma: Tensor) -> Tensor:
        return sigma**-2


class Denoiser(nn.Module):
    r"""D(x; s) = c_skip(s) x + c_out(s) F(c_in(s) x; c_noise(s)): the expectation of the clean x given the noisy one.

    Called as ``denoiser(x, sigma, labels=None)`` with ``x`` ``(n, ...)``, ``sigma`` ``(n,)`` and, for conditional
    models, ``labels`` ``(n,)``; returns ``(n, ...)`` in the dtype of ``x``.

    Parameters
    ----------
    network
        F: what is called as ``network(x, c_noise, labels)``, with ``c_noise`` ``(n,)``, and returns a tensor in the
        shape of ``x``; or an object with that tensor as its attribute ``sample``, or a tuple that begins with it. For
        models of diffusers see :class:`DiffusersNetwork`. Only the weights of an ``nn.Module`` are trained.
    preconditioning
        For example :class:`EDMPreconditioning`.

    Raises
    ------
    TypeError, ValueError
        From the call: a network that returns something else, or another shape; sigma that has not the shape ``(n,)``.

    References
    ----------
    Karras et al. 2022, equation 7.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import Denoiser, EDMPreconditioning, ResidualMLP
    >>> denoiser = Denoiser(ResidualMLP(4), EDMPreconditioning())
    >>> denoiser(torch.zeros(3, 4), torch.full((3,), 80.0)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self, network: Callable[[Tensor, Tensor, Tensor | None], Any], preconditioning: Preconditioning
    ) -> None:
        super().__init__()
        self.network = network
        self.preconditioning = preconditioning

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        c = Scalings(*(_per_sample(value, x).to(x.dtype) for value in self.preconditioning.scalings(sigma)))
        output = tensor_of(self.network(c.in_ * x, c.noise.flatten(), labels), x.shape)
        return c.skip * x + c.out * output.to(x.dtype)


def tensor_of(output: Any, shape: torch.Size) -> Tensor:
    """Return the tensor in what a network returned."""
    found = output if isinstance(output, Tensor) else getattr(output, "sample", None)
    if found is None and isinstance(output, tuple | list) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        raise TypeError(
            f"network returned {type(output).__name__}, expected a tensor, an object with a tensor named sample, or a "
            "tuple that begins with a tensor; wrap it in a module that returns one"
        )
    if found.shape != shape:
        raise ValueError(f"network returned shape {tuple(found.shape)}, expected that of its input, {tuple(shape)}")
    return found


def denoising_losses(
    denoiser: nn.Module,
    x: Tensor,
    sigma: Tensor,
    *,
    labels: Tensor | None = None,
    ratio: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Weighted denoising error of every sample: the summand of equations 8 and 9.

    .. math:: \ell_i = \frac{w(\sigma_i)}{d}\, \| D(x_i + \sigma_i n_i; \sigma_i) - x_i \|^2, \quad n_i \sim N(0, I),

    with d the number of values in a sample, so losses of different image sizes are comparable.

    Parameters
    ----------
    denoiser
        D, a :class:`Denoiser`, or one in DistributedDataParallel.
    x
        Clean samples ``(n, ...)``, float32 or float64.
    sigma
        ``(n,)``, for example ``denoiser.preconditioning.law.sample(n)``.
    labels
        ``(n,)`` for conditional models (equation 9).
    ratio
        A :class:`DensityRatio`, or a closed form, of unconditional models: called as ``ratio(noisy, sigma)``, it
        returns r ``(n,)`` and s^2 grad log r. The loss becomes r times that of the target x plus the latter.
    noise
        n, in the shape of ``x``; by default drawn from ``generator``. Pass it to compute the same loss again, see
        :meth:`GroupLoss.accumulate`.
    generator
        Source of the noise, on the device of ``x``; by default the global one, which is advanced.

    Returns
    -------
    Tensor
        ``(n,)``, to be passed to a :class:`GroupLoss`.

    Raises
    ------
    ValueError
        Shapes that do not fit.

    References
    ----------
    The paper, appendix B.3.2, equations 8 and 9; Karras et al. 2022, equation 2.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import Denoiser, EDMPreconditioning, ResidualMLP, denoising_losses
    >>> denoiser = Denoiser(ResidualMLP(4), EDMPreconditioning())
    >>> sigma = denoiser.preconditioning.law.sample(3)
    >>> denoising_losses(denoiser, torch.zeros(3, 4), sigma).shape
    torch.Size([3])
    """
    if x.ndim < 2 or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x has shape {tuple(x.shape)} and dtype {x.dtype}, expected float32 or float64 (n, ...)")
    if noise is None:
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    elif noise.shape != x.shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}, expected that of x, {tuple(x.shape)}")
    noisy = x + _per_sample(sigma, x).to(x.dtype) * noise
    target, weight = x, cast("Tensor", _unwrapped(denoiser).preconditioning.weight(sigma)).to(x.dtype)
    if ratio is not None:
        if labels is not None:
            raise ValueError("labels and ratio exclude each other: the ratio is that of all classes together")
        of_densities, shift = ratio(noisy, sigma)
        target, weight = x + shift, weight * of_densities
    squared: Tensor = (denoiser(noisy, sigma, labels) - target) ** 2
    return weight * squared.flatten(1).mean(1)


@torch.no_grad()
def heun_sample(
    denoiser: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    latents: Tensor,
    *,
    labels: Tensor | None = None,
    n_steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    r"""Follow the probability flow from noise to samples with Heun's second-order method.

    The ordinary differential equation is dx/ds = (x - D(x; s)) / s, from ``sigma_max`` times ``latents`` to s = 0, in
    ``n_steps`` steps between

    .. math:: s_i = \Bigl(s_{\max}^{1/\rho} + \frac{i}{N - 1} (s_{\min}^{1/\rho} - s_{\max}^{1/\rho})\Bigr)^{\rho},
        \quad i = 0, \dots, N - 1, \quad s_N = 0.

    All randomness is in ``latents``. Switch the model to ``eval()`` first.

    Parameters
    ----------
    denoiser
        D(x; s), called as ``denoiser(x, sigma, labels)``; a :class:`Denoiser`, or a closed form.
    latents
        Standard normal noise ``(n, ...)``, for example ``torch.randn(n, d, generator=generator)``. The denoiser is
        called with its dtype; the path is kept in float64.
    labels
        ``(n,)`` for conditional models.
    n_steps
        N, at least 2. Karras et al. take 18 at 32 x 32 and 40 at 64 x 64; 2 N - 1 evaluations, as the last step has no
        correction.
    sigma_min, sigma_max, rho
        Of the schedule above.

    Returns
    -------
    Tensor
        Samples in the shape and dtype of ``latents``.

    Raises
    ------
    ValueError
        A schedule that does not descend, latents without a batch dimension.

    References
    ----------
    Karras et al. 2022, Algorithm 1 and equation 5.

    Examples
    --------
    The denoiser of data that is always 3:

    >>> import torch
    >>> from egtmetrics.training import heun_sample
    >>> heun_sample(lambda x, sigma, labels: torch.full_like(x, 3.0), torch.tensor([[-1.0], [2.0]]))
    tensor([[3.],
            [3.]])
    """
    n_steps = check_positive_int(n_steps, "n_steps", minimum=2)
    sigma_min = check_number(sigma_min, "sigma_min", above=0.0)
    sigma_max = check_number(sigma_max, "sigma_max", above=sigma_min)
    rho = check_number(rho, "rho", above=0.0)
    if latents.ndim < 2:
        raise ValueError(f"latents has shape {tuple(latents.shape)}, expected a batch, (n, ...)")
    ramp = torch.arange(n_steps, dtype=torch.float64) / (n_steps - 1)
    start, end = sigma_max ** (1.0 / rho), sigma_min ** (1.0 / rho)
    schedule = [*((start + ramp * (end - start)) ** rho).tolist(), 0.0]

    def slope(x: Tensor, s: float) -> Tensor:
        sigma = torch.full((len(x),), s, dtype=latents.dtype, device=latents.device)
        return (x - exact(denoiser(x.to(latents.dtype), sigma, labels))) / s

    x: Tensor = exact(latents) * schedule[0]
    for s, s_next in itertools.pairwise(schedule):
        first = slope(x, s)
        euler: Tensor = x + (s_next - s) * first
        x = euler if s_next == 0.0 else x + (s_next - s) * 0.5 * (first + slope(euler, s_next))
    return x.to(latents.dtype)


class WeightEMA(nn.Module):
    r"""Exponential moving average of a model's weights, with a half-life in samples that ramps up.

    After a step on n samples, N having been seen before,

    .. math:: \bar\theta \leftarrow \beta \bar\theta + (1 - \beta) \theta, \quad
        \beta = 2^{-n / \min(H, \rho N')}, \quad N' = N + n.

    Without the ramp, the first weights, which are noise, would count for several half-lives.

    Parameters
    ----------
    model
        Its weights are copied here, and read at each :meth:`update`; keep them in float32, which can hold small steps.
        It may be in DistributedDataParallel.
    half_life
        H, in samples. Karras et al. take 500,000.
    ramp_up
        rho: the half-life is at most this share of the samples seen so far; None for no ramp.

    Notes
    -----
    Buffers are copied, not averaged. ``state_dict()`` holds the average and the number of samples, to resume from.
    ``to()`` moves the average alone: it may lie on the CPU while the model trains on a GPU.

    In place of the ``EMAModel`` of diffusers:

    ================================================== ========================================================
    ``EMAModel(model.parameters())``                   ``WeightEMA(model)``
    ``ema.step(model.parameters())``                   ``ema.update(model, n_samples=n)``, n over all processes
    ``ema.copy_to(model.parameters())``                ``ema.copy_to(model)``
    ``ema.store(...)``, evaluate, ``ema.restore(...)`` evaluate ``ema.model``
    ================================================== ========================================================

    References
    ----------
    Karras et al. 2022, appendix F.2 and Table 6.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import WeightEMA
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> average = WeightEMA(model, half_life=100, ramp_up=None)
    >>> before = model.weight.item()
    >>> _ = torch.nn.init.constant_(model.weight, before + 1.0)
    >>> average.update(model, n_samples=100)
    >>> round(average.model.weight.item() - before, 6)
    0.5
    """

    n_seen: Tensor

    def __init__(self, model: nn.Module, *, half_life: float = 500_000.0, ramp_up: float | None = 0.05) -> None:
        super().__init__()
        self.half_life = check_number(half_life, "half_life", above=0.0)
        self.ramp_up = None if ramp_up is None else check_number(ramp_up, "ramp_up", above=0.0)
        self.model = copy.deepcopy(_unwrapped(model)).eval().requires_grad_(False)
        """The model with averaged weights."""
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))

    def forward(self, *args: Tensor | None) -> Tensor:
        """Call the averaged model."""
        output: Tensor = self.model(*args)
        return output

    def train(self, mode: bool = True) -> WeightEMA:
        """Do nothing: an average is never trained."""
        return self

    @torch.no_grad()
    def update(self, model: nn.Module, *, n_samples: int) -> None:
        """Average in the weights of ``model`` after a step on ``n_samples`` (over all processes)."""
        self.n_seen += check_positive_int(n_samples, "n_samples")
        half_life = self.half_life
        if self.ramp_up is not None:
            half_life = min(half_life, self.ramp_up * float(self.n_seen))
        beta = 0.5 ** (n_samples / half_life)
        for average, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(weight.to(average), 1.0 - beta)
        for copied, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            copied.copy_(buffer)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Put the average into ``model``, on its device and in its dtype.

        >>> import torch
        >>> from egtmetrics.training import WeightEMA
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> average = WeightEMA(model)
        >>> _ = torch.nn.init.constant_(model.weight, 7.0)
        >>> average.copy_to(model)
        >>> torch.equal(model.weight, average.model.weight)
        True
        """
        for weight, average in zip(model.parameters(), self.model.parameters(), strict=True):
            weight.copy_(average)
        for buffer, kept in zip(model.buffers(), self.model.buffers(), strict=True):
            buffer.copy_(kept)


def _unwrapped(model: nn.Module) -> Any:
    """Return the model inside DistributedDataParallel, which hides its attributes."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Give ``(n,)`` values the dimensions of ``x``, to multiply with."""
    if values.shape != x.shape[:1]:
        raise ValueError(f"sigma has shape {tuple(values.shape)}, expected one per sample of x, ({len(x)},)")
    return values.reshape(-1, *[1] * (x.ndim - 1))
