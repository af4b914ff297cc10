"""The DDPM++ and NCSN++ U-Nets as Karras et al. 2022 train them.

Parameters and buffers have the names and shapes of the public checkpoints, so that ``checkpoints`` can load those.
Written from the papers and from these names and shapes; the licence of the code behind the checkpoints does not allow
copying.
"""

from __future__ import annotations

import copy
import math
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from egtmetrics._validation import check_number, check_positive_int

_SKIP_SCALE = math.sqrt(0.5)
"""Gives the sum of two branches the variance of one."""

_EPSILON = 1e-6
"""Of all group normalisations."""

_GROUPS, _GROUP_SIZE = 32, 4
"""Most groups of a normalisation, and fewest channels in each group."""

_FOURIER_SCALE = 16.0
_LONGEST_PERIOD = 10_000.0


class _Traits(NamedTuple):
    """Where the two architectures differ."""

    fourier: bool
    """The noise is embedded by random frequencies, twice as many, instead of a geometric sequence."""
    residual: bool
    """Every level of the encoder also gets the input image, halved by learned layers."""
    taps: tuple[int, ...]
    """The filter of halving and doubling, in each direction."""


_TRAITS = {"ddpmpp": _Traits(False, False, (1, 1)), "ncsnpp": _Traits(True, True, (1, 3, 3, 1))}


class UNet(nn.Module):
    r"""The U-Net of DDPM++ ("VP") or NCSN++ ("VE"), the network F of a :class:`Denoiser` of images.

    Called as ``network(x, c_noise, labels=None)`` with ``x`` ``(n, channels, resolution, resolution)``, ``c_noise``
    ``(n,)`` and, for conditional models, ``labels`` ``(n,)`` integers from 0 to ``n_classes - 1``; returns the shape of
    ``x``.

    A block is, with e the embedding of noise and class,

    .. math:: y = \frac{\text{skip}(h) + W_1\, \text{silu}(\text{norm}(W_0\, \text{silu}(\text{norm}(h)) + A e))}
        {\sqrt 2}, \qquad \text{then at some resolutions} \quad \frac{y + \text{attention}(\text{norm}(y))}{\sqrt 2}.

    The last layers of all branches and of the network start at zero: the untrained F is 0, which under EDM's
    preconditioning is the best guess without training.

    Parameters
    ----------
    resolution
        Height and width of the images; must be divisible by 2 once per level after the first.
    architecture
        ``"ddpmpp"``: sines of a geometric sequence of frequencies for the noise, halving by averages of 2 x 2.
        ``"ncsnpp"``: random frequencies, the filter 1 3 3 1, and the input image added to every level of the encoder.
    channels
        Of the images.
    n_classes
        Number of classes to condition on; None for an unconditional model.
    width
        Channels of the first level.
    multipliers
        Channels of each level, in units of ``width``; the defaults are those for FFHQ at 64 x 64.
    n_blocks
        Blocks per level of the encoder; the decoder has one more.
    attention
        Resolutions with attention; there is always attention between encoder and decoder.
    dropout
        In the blocks, during training.

    Raises
    ------
    ValueError
        Invalid options. From the call: wrong shapes, labels out of range, missing in a conditional model or given to
        an unconditional one.

    Notes
    -----
    61.8 million parameters for FFHQ with DDPM++, 62.8 with NCSN++.

    References
    ----------
    Song et al. 2021 (score-based SDEs), appendix H, for both architectures; Karras et al. 2022, Table 7, for their
    sizes. The initial weights differ from those of the checkpoints' training, which were random of size 1e-5 where
    these are zero.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.paper.unet import UNet
    >>> network = UNet(16, width=8, multipliers=(1, 2), n_blocks=1, attention=(8,))
    >>> network(torch.randn(2, 3, 16, 16), torch.zeros(2)).abs().max()
    tensor(0., grad_fn=<MaxBackward1>)
    """

    def __init__(
        self,
        resolution: int,
        *,
        architecture: Literal["ddpmpp", "ncsnpp"] = "ddpmpp",
        channels: int = 3,
        n_classes: int | None = None,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        n_blocks: int = 4,
        attention: tuple[int, ...] = (16,),
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        if architecture not in _TRAITS:
            raise ValueError(f"architecture={architecture!r} is unknown; pass one of {', '.join(_TRAITS)}")
        traits = _TRAITS[architecture]
        self.resolution = check_positive_int(resolution, "resolution")
        self.channels = check_positive_int(channels, "channels")
        self.n_blocks = check_positive_int(n_blocks, "n_blocks")
        width = check_positive_int(width, "width", minimum=8)
        widths = [width * check_positive_int(multiplier, "multipliers") for multiplier in multipliers]
        dropout = check_number(dropout, "dropout", minimum=0.0, below=1.0)
        n_levels = len(widths)
        if n_levels == 0 or resolution % 2 ** (n_levels - 1):
            raise ValueError(
                f"resolution={resolution} cannot be halved {n_levels - 1} times for multipliers={multipliers}; pass "
                "one multiplier for each level, and a resolution divisible by 2 for all but the first"
            )
        self._names = [f"{resolution >> level}x{resolution >> level}" for level in range(n_levels)]
        attended = [resolution >> level in attention for level in range(n_levels)]

        n_noise, n_embedding = (2 if traits.fourier else 1) * width, 4 * width
        self.map_noise = _NoiseEmbedding(n_noise, fourier=traits.fourier)
        self.map_label = None if n_classes is None else _linear(check_positive_int(n_classes, "n_classes"), n_noise)
        self.map_layer0 = _linear(n_noise, n_embedding)
        self.map_layer1 = _linear(n_embedding, n_embedding)

        def block(n_in: int, n_out: int, *, attend: bool = False, resample: _Resample | None = None) -> _Block:
            return _Block(n_in, n_out, n_embedding, attend=attend, resample=resample, taps=traits.taps, dropout=dropout)

        self.enc = nn.ModuleDict()
        skipped: list[int] = []  # channels of the skip connections, in the encoder's order
        n, n_image = width, channels
        for level, (name, n_out) in enumerate(zip(self._names, widths, strict=True)):
            if level == 0:
                self.enc[f"{name}_conv"] = _initialised(nn.Conv2d(channels, n, 3, padding=1))
            else:
                self.enc[f"{name}_down"] = block(n, n, resample="down")
                if traits.residual:
                    self.enc[f"{name}_aux_residual"] = _ResampledConv(n_image, n, 3, "filtered", traits.taps)
                    n_image = n
            skipped.append(n)
            for i in range(n_blocks):
                self.enc[f"{name}_block{i}"] = block(n, n_out, attend=attended[level])
                n = n_out
                skipped.append(n)

        self.dec = nn.ModuleDict()
        for level in reversed(range(n_levels)):
            name = self._names[level]
            if level == n_levels - 1:
                self.dec[f"{name}_in0"] = block(n, n, attend=True)
                self.dec[f"{name}_in1"] = block(n, n)
            else:
                self.dec[f"{name}_up"] = block(n, n, resample="up")
            for i in range(n_blocks + 1):
                attend = attended[level] and i == n_blocks
                self.dec[f"{name}_block{i}"] = block(n + skipped.pop(), widths[level], attend=attend)
                n = widths[level]
        self.dec[f"{name}_aux_norm"] = _norm(n)
        self.dec[f"{name}_aux_conv"] = _initialised(nn.Conv2d(n, channels, 3, padding=1), zero=True)

    @property
    def n_classes(self) -> int | None:
        """Number of classes to condition on; None if unconditional."""
        return None if self.map_label is None else self.map_label.in_features

    def with_classes(self, n_classes: int) -> UNet:
        """Return a copy that takes labels and ignores them until it is trained further: their embedding is zero.

        Raises
        ------
        ValueError
            If the network is conditional already.

        Examples
        --------
        >>> from egtmetrics.paper.unet import UNet
        >>> UNet(16, width=8, multipliers=(1, 2), n_blocks=1).with_classes(2).n_classes
        2
        """
        if self.map_label is not None:
            raise ValueError(
                f"the network is conditioned on {self.n_classes} classes already; use an unconditional one"
            )
        conditional = copy.deepcopy(self)
        weight = self.map_layer0.weight
        layer = nn.Linear(check_positive_int(n_classes, "n_classes"), self.map_layer0.in_features)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        conditional.map_label = layer.to(device=weight.device, dtype=weight.dtype)
        return conditional

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        expected = (self.channels, self.resolution, self.resolution)
        if x.ndim != 4 or x.shape[1:] != expected:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (n, {', '.join(map(str, expected))})")
        e = self._embed(x.dtype, c_noise, labels)

        image = h = x
        skips: list[Tensor] = []
        for level, name in enumerate(self._names):
            if level == 0:
                h = self.enc[f"{name}_conv"](x)
            else:
                h = self.enc[f"{name}_down"](h, e)
                if f"{name}_aux_residual" in self.enc:
                    h = image = _SKIP_SCALE * (h + self.enc[f"{name}_aux_residual"](image))
            skips.append(h)
            for i in range(self.n_blocks):
                h = self.enc[f"{name}_block{i}"](h, e)
                skips.append(h)
        for name in reversed(self._names):
            if name == self._names[-1]:
                h = self.dec[f"{name}_in1"](self.dec[f"{name}_in0"](h, e), e)
            else:
                h = self.dec[f"{name}_up"](h, e)
            for i in range(self.n_blocks + 1):
                h = self.dec[f"{name}_block{i}"](torch.cat([h, skips.pop()], dim=1), e)
        name = self._names[0]
        output: Tensor = self.dec[f"{name}_aux_conv"](functional.silu(self.dec[f"{name}_aux_norm"](h)))
        return output

    def _embed(self, dtype: torch.dtype, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        embedding: Tensor = self.map_noise(c_noise).to(dtype)
        if self.map_label is not None:
            n_classes = self.map_label.in_features
            if labels is None:
                raise ValueError(
                    f"labels are missing, but the model is conditioned on {n_classes} classes; pass (n,) labels"
                )
            if labels.shape != c_noise.shape or ((labels < 0) | (labels >= n_classes)).any():
                raise ValueError(
                    f"labels have shape {tuple(labels.shape)} or hold values out of range, expected "
                    f"({len(c_noise)},) integers from 0 to {n_classes - 1}"
                )
            # In the checkpoints a class is a vector of length sqrt(n_classes), so that its values have mean square 1.
            one_hot = functional.one_hot(labels.long(), n_classes).to(dtype)
            embedding = embedding + self.map_label(math.sqrt(n_classes) * one_hot)
        elif labels is not None:
            raise ValueError("labels were given to an unconditional UNet; make it conditional with with_classes()")
        embedding = functional.silu(self.map_layer0(embedding))
        return functional.silu(self.map_layer1(embedding))


_Resample = Literal["down", "up", "filtered"]
_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d, "_ResampledConv")


class _NoiseEmbedding(nn.Module):
    """Sines, then cosines, of c_noise at ``n / 2`` angular frequencies."""

    freqs: Tensor

    def __init__(self, n: int, *, fourier: bool) -> None:
        super().__init__()
        half = n // 2
        geometric = _LONGEST_PERIOD ** (-torch.arange(half) / (half - 1))
        freqs = _FOURIER_SCALE * torch.randn(half) if fourier else geometric
        self.register_buffer("freqs", freqs, persistent=fourier)  # random frequencies are a part of the checkpoint
        self.unit = 2.0 * math.pi if fourier else 1.0

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None].to(self.freqs.dtype) * (self.unit * self.freqs)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class _ResampledConv(nn.Conv2d):
    r"""A convolution after halving (``"down"``) or doubling (``"up"``) an image, or before halving (``"filtered"``).

    Halving is :math:`y_i = \sum_k f_k x_{2 i + k - p}` in both directions, with f the taps divided by their sum and
    :math:`2 p + 2` taps; doubling is its adjoint times 4. Outside the image is 0. ``"filtered"`` convolves over
    the image and the p rows and columns around it that the filter needs.
    """

    resample_filter: Tensor

    def __init__(self, n_in: int, n_out: int, size: int, resample: _Resample, taps: tuple[int, ...]) -> None:
        margin = (len(taps) - 1) // 2
        super().__init__(n_in, n_out, size, padding=size // 2 + (margin if resample == "filtered" else 0))
        self.resample, self.margin = resample, margin
        line = torch.tensor(taps, dtype=self.weight.dtype) / sum(taps)
        self.register_buffer("resample_filter", torch.outer(line, line)[None, None])
        _initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        if self.resample == "filtered":
            x = super().forward(x)
            return functional.conv2d(x, self._filter(x), stride=2, groups=x.shape[1])
        if self.resample == "down":
            x = functional.conv2d(x, self._filter(x), stride=2, padding=self.margin, groups=x.shape[1])
        else:
            f = 4.0 * self._filter(x)
            x = functional.conv_transpose2d(x, f, stride=2, padding=self.margin, groups=x.shape[1])
        return super().forward(x)

    def _filter(self, x: Tensor) -> Tensor:
        """The filter for each channel of ``x``."""
        return self.resample_filter.to(x.dtype).repeat(x.shape[1], 1, 1, 1)


class _Block(nn.Module):
    """Two convolutions with the embedding between them, and attention, each with a skip; see :class:`UNet`."""

    norm2: nn.GroupNorm | None
    qkv: nn.Conv2d | None
    proj: nn.Conv2d | None

    def __init__(
        self,
        n_in: int,
        n_out: int,
        n_embedding: int,
        *,
        attend: bool,
        resample: _Resample | None,
        taps: tuple[int, ...],
        dropout: float,
    ) -> None:
        super().__init__()

        def conv(size: int) -> nn.Conv2d:
            if resample is not None:
                return _ResampledConv(n_in, n_out, size, resample, taps)
            return _initialised(nn.Conv2d(n_in, n_out, size, padding=size // 2))

        self.dropout = dropout
        self.norm0 = _norm(n_in)
        self.conv0 = conv(3)
        self.affine = _linear(n_embedding, n_out)
        self.norm1 = _norm(n_out)
        self.conv1 = _initialised(nn.Conv2d(n_out, n_out, 3, padding=1), zero=True)
        self.skip = conv(1) if n_in != n_out or resample is not None else None
        self.norm2 = self.qkv = self.proj = None
        if attend:
            self.norm2 = _norm(n_out)
            self.qkv = _initialised(nn.Conv2d(n_out, 3 * n_out, 1))
            self.proj = _initialised(nn.Conv2d(n_out, n_out, 1), zero=True)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv0(functional.silu(self.norm0(x))) + self.affine(e)[:, :, None, None]
        h = functional.dropout(functional.silu(self.norm1(h)), self.dropout, self.training)
        y: Tensor = _SKIP_SCALE * ((x if self.skip is None else self.skip(x)) + self.conv1(h))
        if self.norm2 is None or self.qkv is None or self.proj is None:
            return y
        # Queries, keys and values of one channel lie next to each other: channel 3 c + j of qkv.
        q, k, v = self.qkv(self.norm2(y)).flatten(2).unflatten(1, (-1, 3)).movedim(1, -1).unbind(1)
        attended = functional.scaled_dot_product_attention(q, k, v).mT.reshape(y.shape)
        output: Tensor = _SKIP_SCALE * (y + self.proj(attended))
        return output


def _norm(n: int) -> nn.GroupNorm:
    groups = min(_GROUPS, n // _GROUP_SIZE)
    if n % groups:
        raise ValueError(
            f"width and multipliers give a layer of {n} channels, which {groups} groups cannot share; make width a "
            "multiple of 32, or a small power of two"
        )
    return nn.GroupNorm(groups, n, eps=_EPSILON)


def _linear(n_in: int, n_out: int) -> nn.Linear:
    return _initialised(nn.Linear(n_in, n_out))


def _initialised(layer: _Layer, *, zero: bool = False) -> _Layer:
    """Uniform weights that keep the variance of values and gradients, or zeros; no bias."""
    (nn.init.zeros_ if zero else nn.init.xavier_uniform_)(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
