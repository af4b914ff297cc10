"""Training for equally good groups: the strategies of the paper as losses, and loops that apply them.

Installed as ``egtmetrics.training`` (``pip install egtmetrics[training]``). It needs PyTorch; the metrics do not.

A strategy is a loss over per-sample losses, so it serves any model::

    loss = MinMaxLoss(n_groups=2, n_bins=8)                 # or MeanLoss, ReweightedLoss, GroupDROLoss
    loss(per_sample, groups, bins).backward()               # in place of per_sample.mean().backward()

Groups are integers from 0; ``egtmetrics.oracles.group_indices`` turns the names of an oracle into them. The modules:

    ================= ================================================================================================
    ``losses``        the strategies
    ``noise``         the laws of the noise of diffusion models, cut into levels
    ``diffusion``     preconditioning, per-sample loss, sampler, average of the weights
    ``density_ratio`` how much denser a target mixture of groups is, at every noise level
    ``mlp``           a denoiser small enough for a CPU
    ``networks``      networks of diffusers in a denoiser
    ``sampling``      rejection sampling: draw from a model until the groups have given proportions
    ``resumable``     the state and the loop of a training that can be killed and resumed
    ``loop``          trains a denoiser with it
    ``held_out``      losses by group on held-out samples: to stop by, and as the reference of a strategy
    ``early_stop``    trains in pieces and keeps the weights with the lowest held-out loss
    ``specialists``   a branch for every group, stopped by its own held-out loss
    ``language``      fine-tunes a language model with it; needs the extra ``[language]``, as the next two do
    ``prompts``       prompts and answers as rows of tokens
    ``trainer``       a mixin that brings the strategies to the Trainer of transformers
    ``encoder``       fine-tunes a vision model as encoder and oracle; needs the extra ``[vision]``
    ================= ================================================================================================

The modules that need transformers are imported by name. What repeats the paper's experiments is in
``egtmetrics.paper``.

The modules import each other relatively, because their folder lies beside ``egtmetrics`` in the repository.
"""

from __future__ import annotations

if __name__ != "egtmetrics.training":
    raise ImportError(
        f"this package is egtmetrics.training, but was imported as {__name__!r}, which would load every class a second "
        "time; install it with 'pip install egtmetrics[training]' and write 'import egtmetrics.training'"
    )

from egtmetrics._extras import extra

with extra("training", "egtmetrics.training needs PyTorch"):
    import torch as torch

from .density_ratio import DensityRatio, fit_density_ratio
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
from .early_stop import EarlyStop, stop_early, train_until_best
from .held_out import HeldOutLosses, group_means, held_out_losses
from .loop import TrainingRun, train
from .losses import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss, WorstCaseLoss
from .mlp import ResidualMLP
from .networks import DiffusersNetwork
from .noise import EDMNoise, NoiseLaw, NoiseLevels, ThinCellWarning, VENoise, VPNoise
from .sampling import RejectionSamples, rejection_sample
from .specialists import GroupBranches, Specialists, train_specialists

__all__ = [
    "Denoiser",
    "DensityRatio",
    "DiffusersNetwork",
    "EDMNoise",
    "EDMPreconditioning",
    "EarlyStop",
    "GroupBranches",
    "GroupDROLoss",
    "GroupLoss",
    "HeldOutLosses",
    "MeanLoss",
    "MinMaxLoss",
    "NoiseLaw",
    "NoiseLevels",
    "Preconditioning",
    "RejectionSamples",
    "ResidualMLP",
    "ReweightedLoss",
    "Scalings",
    "Specialists",
    "ThinCellWarning",
    "TrainingRun",
    "VENoise",
    "VEPreconditioning",
    "VPNoise",
    "VPPreconditioning",
    "WeightEMA",
    "WorstCaseLoss",
    "denoising_losses",
    "fit_density_ratio",
    "group_means",
    "held_out_losses",
    "heun_sample",
    "rejection_sample",
    "stop_early",
    "train",
    "train_specialists",
    "train_until_best",
]
