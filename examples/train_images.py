"""Train a diffusion model of images for its worst group, with accelerate: ``python examples/train_images.py [FOLDER]``.

FOLDER holds images of one size, in a subfolder for each group; without it, one is made of handwritten digits, of which
those below five are three times as many. The network is a U-Net of diffusers where that is installed, else the
library's own. It takes half a minute of one core; ``accelerate launch`` runs it on several processes.

What a loop without groups does not have is marked "by group".
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from egtmetrics.data import ImageFiles
from egtmetrics.paper.unet import UNet
from egtmetrics.training import (
    Denoiser,
    DiffusersNetwork,
    EDMPreconditioning,
    MinMaxLoss,
    NoiseLevels,
    WeightEMA,
    denoising_losses,
)


def write_digits(folder: Path) -> None:
    """Write 450 digits below five and 150 from five up, as PNG files in a subfolder each."""
    images, digits = load_digits(return_X_y=True)
    for name, rows in (("0 to 4", np.flatnonzero(digits < 5)[:450]), ("5 to 9", np.flatnonzero(digits >= 5)[:150])):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for row in rows:
            levels = (images[row].reshape(8, 8) * 15.9).astype(np.uint8)
            PIL.Image.fromarray(levels).save(folder / name / f"{row}.png")


def load(folder: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Return images from -1 to 1, ``(n, channels, height, width)``, their groups, and the names of these."""
    files = ImageFiles(folder)
    of_image = files.subfolders()
    names = sorted(set(of_image))
    images = torch.stack([torch.from_numpy(files[i]) for i in range(len(files))])
    return images / 127.5 - 1.0, torch.tensor([names.index(name) for name in of_image]), names


def build_network(channels: int, size: int) -> nn.Module:
    try:
        from diffusers import UNet2DModel
    except ImportError:
        print("diffusers is not installed (pip install diffusers), so the library's own U-Net is trained")
        return UNet(size, channels=channels, width=32, multipliers=(1, 2), n_blocks=1, attention=(), dropout=0.0)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    network: nn.Module = DiffusersNetwork(unet)
    return network


def main(folder: Path | None = None, *, n_steps: int = 150, batch_size: int = 48) -> tuple[MinMaxLoss, WeightEMA]:
    if folder is None:
        folder = Path(tempfile.mkdtemp())
        write_digits(folder)
    torch.manual_seed(0)
    images, groups, names = load(folder)
    loader = DataLoader(TensorDataset(images, groups), batch_size=batch_size, shuffle=True, drop_last=True)
    denoiser = Denoiser(build_network(*images.shape[1:3]), EDMPreconditioning(sigma_data=float(images.std())))
    levels = NoiseLevels(denoiser.preconditioning.law, n_bins=4)
    strategy = MinMaxLoss(len(names), n_bins=levels.n_bins)  # by group

    accelerator = Accelerator()
    average = WeightEMA(denoiser, half_life=5000).to(accelerator.device)
    model, optimizer, loader = accelerator.prepare(denoiser, torch.optim.Adam(denoiser.parameters(), lr=1e-3), loader)
    strategy.to(accelerator.device)  # by group
    accelerator.register_for_checkpointing(strategy, average)  # by group; of accelerator.save_state
    torch.manual_seed(accelerator.process_index)  # every process its own noise; the shuffling is accelerate's
    step = 0
    while step < n_steps:
        for x, a in loader:
            sigma = levels.law.sample(len(x), device=x.device)
            per_sample = denoising_losses(model, x, sigma)
            loss = strategy(per_sample, a, levels.bin_of(sigma))  # by group; else per_sample.mean()
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update(model, n_samples=len(x) * accelerator.num_processes)
            step += 1
            if step % (n_steps // 3) == 0:
                entries = strategy.log_entries()
                listed = ", ".join(f"{name} {entries[f'group_loss_{a}']:.3f}" for a, name in enumerate(names))
                accelerator.print(f"step {step}, average loss by group: {listed}")
            if step == n_steps:
                break
    return strategy, average


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
