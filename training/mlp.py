"""A residual MLP for vectors as small as 8 x 8 digits: a denoiser that a CPU trains in half a minute."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from egtmetrics._validation import check_positive_int

from ._checks import check_classes

_FREQUENCIES = 32
_LOWEST, _HIGHEST = 1e-3, 8.0
"""Angular frequencies of the noise embedding: c_noise spans 3 units for EDM, 8 for VE, 999 for VP."""


class ResidualMLP(nn.Module):
    r"""Residual blocks on a vector; each also gets the noise and, in conditional models, the class.

    Called as ``network(x, c_noise, labels=None)`` with ``x`` ``(n, n_features)``, ``c_noise`` ``(n,)`` and ``labels``
    ``(n,)`` integers from 0 to ``n_classes - 1``; returns ``(n, n_outputs)``. A block is
    ``h + W_2 silu(W_1 norm(h) + e)`` with e the embedding. The output starts at zero, which under EDM's preconditioning
    is the best guess without training.

    Parameters
    ----------
    n_features
        Values per sample.
    n_classes
        Number of classes to condition on; None for an unconditional model.
    n_outputs
        Values per output; None for ``n_features``, as a denoiser needs. :class:`DensityRatio` takes one per group.
    width, n_blocks
        Size; the defaults make 1.2 million parameters for 64 features.

    Raises
    ------
    ValueError
        From the call: labels out of range, missing in a conditional model or given to another.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import ResidualMLP
    >>> network = ResidualMLP(64)
    >>> network(torch.randn(5, 64), torch.zeros(5)).abs().max()
    tensor(0., grad_fn=<MaxBackward1>)
    """

    frequencies: Tensor
    labels: nn.Embedding | None

    def __init__(
        self,
        n_features: int,
        *,
        n_classes: int | None = None,
        n_outputs: int | None = None,
        width: int = 352,
        n_blocks: int = 4,
    ) -> None:
        super().__init__()
        n_features = check_positive_int(n_features, "n_features")
        n_outputs = n_features if n_outputs is None else check_positive_int(n_outputs, "n_outputs")
        self.width = width = check_positive_int(width, "width")
        n_blocks = check_positive_int(n_blocks, "n_blocks")
        exponents = torch.linspace(math.log(_LOWEST), math.log(_HIGHEST), _FREQUENCIES)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)
        self.noise = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = None
        if n_classes is not None:
            self.labels = nn.Embedding(check_positive_int(n_classes, "n_classes"), width)
        self.first = nn.Linear(n_features, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, n_outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @property
    def n_classes(self) -> int | None:
        """Number of classes to condition on; None if unconditional."""
        return None if self.labels is None else self.labels.num_embeddings

    def with_classes(self, n_classes: int) -> ResidualMLP:
        """Return a copy that takes labels and ignores them until it is trained further: their embedding is zero.

        So conditional training can start from the weights of an unconditional model, as in the paper. The model itself
        does not change; the copy has its own parameters, so it needs a new optimizer.

        Raises
        ------
        ValueError
            If the model is conditional already.

        References
        ----------
        The paper, section 5, conditional variants, and appendix B.3.2, equation 9.

        Examples
        --------
        >>> import torch
        >>> from egtmetrics.training import ResidualMLP
        >>> conditional = ResidualMLP(64).with_classes(2)
        >>> conditional(torch.randn(2, 64), torch.zeros(2), torch.tensor([0, 1])).shape
        torch.Size([2, 64])
        """
        if self.labels is not None:
            raise ValueError(f"the model is conditioned on {self.n_classes} classes already; use an unconditional one")
        conditional = copy.deepcopy(self)
        weight = next(self.parameters())
        embedding = nn.Embedding(check_positive_int(n_classes, "n_classes"), self.width)
        nn.init.zeros_(embedding.weight)
        conditional.labels = embedding.to(device=weight.device, dtype=weight.dtype)
        return conditional

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        angles = c_noise[:, None].to(self.frequencies.dtype) * self.frequencies
        embedding = self.noise(torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype))
        if self.labels is not None:
            embedding = embedding + self.labels(check_classes(labels, self.labels.num_embeddings))
        elif labels is not None:
            raise ValueError(
                "labels were given to an unconditional ResidualMLP; make it conditional with with_classes()"
            )
        h = self.first(x)
        for block in self.blocks:
            h = block(h, embedding)
        output: Tensor = self.last(self.norm(h))
        return output


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.last = nn.Linear(width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        output: Tensor = h + self.last(nn.functional.silu(self.first(self.norm(h)) + embedding))
        return output
