"""Training for equally good groups: the strategies of the paper, and the diffusion models it trains with them.

Installed as ``egtmetrics.training`` (``pip install egtmetrics[training]``); it needs PyTorch, the metrics do not.

Every strategy is a loss over per-sample losses, so that it serves any model::

    loss = MinMaxLoss(n_groups=2, n_bins=8)                 # or MeanLoss, ReweightedLoss, GroupDROLoss
    loss(per_sample, groups, bins).backward()               # in place of per_sample.mean().backward()

``losses`` are these strategies; ``noise`` cuts the noise of a diffusion model into levels, ``diffusion`` has its
preconditioning, loss and sampler, ``mlp`` a denoiser small enough for a CPU; ``oracles`` say which group a sample
belongs to, and ``sampling`` draws from a model until the groups have given proportions. Groups are integers from 0
everywhere, and -1 is a sample of which the oracle could not say.

The modules import each other relatively: their folder lies beside ``egtmetrics``, not in it.
"""

from __future__ import annotations

if __name__ != "egtmetrics.training":
    raise ImportError(
        f"this package is egtmetrics.training, but was imported as {__name__!r}, which would load every class a second "
        "time; write 'import egtmetrics.training', after 'pip install egtmetrics[training]'"
    )

try:
    import torch as torch
except ImportError as error:
    raise ImportError(
        "egtmetrics.training needs PyTorch, which cannot be imported; pip install egtmetrics[training]"
    ) from error

from .diffusion import (
    Denoiser,
    EDMPreconditioning,
    Preconditioning,
    Scalings,
    VEPreconditioning,
    VPPreconditioning,
    WeightEMA,
    denoising_losses,
    heun_sample,
)
from .losses import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss
from .mlp import ResidualMLP, condition
from .noise import EDMNoise, NoiseLaw, NoiseLevels, ThinCellWarning, VENoise, VPNoise
from .oracles import ClassifierOracle, GroupOracle, LabelOracle, OracleErrorWarning
from .sampling import RejectionSamples, rejection_sample

__all__ = [
    "ClassifierOracle",
    "Denoiser",
    "EDMNoise",
    "EDMPreconditioning",
    "GroupDROLoss",
    "GroupLoss",
    "GroupOracle",
    "LabelOracle",
    "MeanLoss",
    "MinMaxLoss",
    "NoiseLaw",
    "NoiseLevels",
    "OracleErrorWarning",
    "Preconditioning",
    "RejectionSamples",
    "ResidualMLP",
    "ReweightedLoss",
    "Scalings",
    "ThinCellWarning",
    "VENoise",
    "VEPreconditioning",
    "VPNoise",
    "VPPreconditioning",
    "WeightEMA",
    "condition",
    "denoising_losses",
    "heun_sample",
    "rejection_sample",
]
