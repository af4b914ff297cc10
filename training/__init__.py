"""Training for equally good groups: the strategies of the paper, and the diffusion models it trains with them.

Installed as ``egtmetrics.training`` (``pip install egtmetrics[training]``); it needs PyTorch, the metrics do not.

Every strategy is a loss over per-sample losses, so that it serves any model::

    loss = MinMaxLoss(n_groups=2, n_bins=8)                 # or MeanLoss, ReweightedLoss, GroupDROLoss
    loss(per_sample, groups, bins).backward()               # in place of per_sample.mean().backward()

``losses`` are these strategies; ``noise`` cuts the noise of a diffusion model into levels, ``diffusion`` has its
preconditioning, loss and sampler, ``mlp`` a denoiser small enough for a CPU; ``sampling`` draws from a model until the
groups, as an oracle of ``egtmetrics.oracles`` sees them, have given proportions. ``loop`` trains a denoiser,
``datasets`` loads digits, emoji and folders of faces, and ``table1`` repeats the paper's Table 1 with all of them;
``table4`` its Table 4, which trains nothing. For the paper's own scale there are the networks of Karras et al. 2022 in
``unet``, their public weights through ``checkpoints``, folders and archives of images in ``images``, and the paper's
settings in ``configurations``.

For language models ``causal_lm`` loads them and puts LoRA adapters into them, ``prompts`` makes rows of tokens,
``language`` fine-tunes, ``trainer`` is a mixin for the Trainer of transformers, ``generation`` writes texts,
``biographies`` reads real ones, and ``table2`` repeats Table 2. These need the extra ``[language]`` and are imported by
name. Losses and loops take groups as integers from 0; oracles name them, and ``egtmetrics.oracles.group_indices`` turns
names into integers.

The modules import each other relatively: their folder lies beside ``egtmetrics``, not in it.
"""

from __future__ import annotations

if __name__ != "egtmetrics.training":
    raise ImportError(
        f"this package is egtmetrics.training, but was imported as {__name__!r}, which would load every class a second "
        "time; write 'import egtmetrics.training', after 'pip install egtmetrics[training]'"
    )

from egtmetrics._extras import extra

with extra("training", "egtmetrics.training needs PyTorch"):
    import torch as torch

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
from .loop import TrainingRun, train
from .losses import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss
from .mlp import ResidualMLP
from .noise import EDMNoise, NoiseLaw, NoiseLevels, ThinCellWarning, VENoise, VPNoise
from .sampling import RejectionSamples, rejection_sample

__all__ = [
    "Denoiser",
    "EDMNoise",
    "EDMPreconditioning",
    "GroupDROLoss",
    "GroupLoss",
    "MeanLoss",
    "MinMaxLoss",
    "NoiseLaw",
    "NoiseLevels",
    "Preconditioning",
    "RejectionSamples",
    "ResidualMLP",
    "ReweightedLoss",
    "Scalings",
    "ThinCellWarning",
    "TrainingRun",
    "VENoise",
    "VEPreconditioning",
    "VPNoise",
    "VPPreconditioning",
    "WeightEMA",
    "denoising_losses",
    "heun_sample",
    "rejection_sample",
    "train",
]
