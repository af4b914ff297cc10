from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from egtmetrics.paper.configurations import ImageConfiguration, read_configuration
from egtmetrics.paper.unet import UNet
from egtmetrics.training import (
    Denoiser,
    EDMPreconditioning,
    MeanLoss,
    MinMaxLoss,
    ReweightedLoss,
    VPPreconditioning,
    train,
)

SMALL = """
[network]
resolution = 8
width = 8
multipliers = [1, 2]
n_blocks = 1
attention = []
[training]
batch_size = 32
learning_rate = 1e-3
half_life = 100
[strategy]
decay = 0.5
n_bins = 2
target = "ego"
[evaluation]
n_seeds = 2
n_real = 30
n_bootstrap = 20
sampler_steps = 6
"""
GROUPS = torch.tensor([0, 0, 0, 1])


def small(tmp_path: Path, text: str = SMALL) -> ImageConfiguration:
    path = tmp_path / "small.toml"
    path.write_text(text)
    return read_configuration(path)


@pytest.mark.parametrize(("name", "architecture", "millions"), [("vp", "ddpmpp", 61.8), ("ve", "ncsnpp", 62.8)])
def test_the_papers_scale(name: str, architecture: str, millions: float) -> None:
    configuration = read_configuration(f"ffhq64-{name}")
    assert configuration.network["architecture"] == architecture
    assert configuration.training == {"batch_size": 256, "learning_rate": 1e-4, "half_life": 500_000}
    assert configuration.strategy == {"decay": 0.9, "n_bins": 8, "target": "ego"}
    assert configuration.evaluation == {"n_seeds": 1, "n_real": 10_000, "n_bootstrap": 1000, "sampler_steps": 40}
    with torch.device("meta"):
        network = UNet(**configuration.network)
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("method", "loss"),
    [("Pretrain", MeanLoss), ("Conditional", MeanLoss), ("Reweighted", ReweightedLoss), ("Min-Max", MinMaxLoss)],
)
def test_each_method_trains(method: str, loss: type, tmp_path: Path) -> None:
    prepared = small(tmp_path).prepare(method, GROUPS)
    assert type(prepared.loss) is loss
    assert (prepared.loss.decay, prepared.loss.n_bins, prepared.noise.n_bins) == (0.5, 2, 2)
    assert prepared.denoiser.network.n_classes == (2 if method == "Conditional" else None)
    run = train(
        prepared.denoiser,
        torch.randn(4, 3, 8, 8),
        GROUPS,
        prepared.loss,
        prepared.noise,
        labels=prepared.labels,
        n_steps=2,
        **prepared.options,
    )
    assert run.n_samples_seen == 64


def test_weights_of_the_reweighted_loss(tmp_path: Path) -> None:
    """Equal groups from 3 : 1 are 2/3 and 2."""
    loss = small(tmp_path).prepare("Reweighted", GROUPS).loss
    per_sample = torch.ones(1)
    values = [float(loss(per_sample, torch.tensor([group]), torch.tensor([0]))) for group in (0, 1)]
    assert values == pytest.approx([2 / 3, 2.0])


def test_a_start_is_used_and_conditioned(tmp_path: Path) -> None:
    configuration = small(tmp_path)
    start = Denoiser(UNet(**configuration.network), VPPreconditioning())
    assert configuration.prepare("Min-Max", GROUPS, denoiser=start).denoiser is start
    conditional = configuration.prepare("Conditional", GROUPS, denoiser=start)
    assert conditional.denoiser.preconditioning is start.preconditioning
    assert conditional.labels is GROUPS
    assert start.network.n_classes is None
    with pytest.raises(ValueError, match="expected a UNet or ResidualMLP"):
        configuration.prepare("Conditional", GROUPS, denoiser=Denoiser(torch.nn.Identity(), EDMPreconditioning()))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("decay = 0.5", "dekay = 0.5", r"unknown keys \['strategy.dekay'\] and lacks \['strategy.decay'\]"),
        ("[training]", "[trainning]", r"lacks \['training.batch_size'"),
        ("n_real = 30", "n_fake = 30", r"keys \['evaluation.n_fake'\] and lacks \['evaluation.n_real'\]"),
        ("resolution = 8", "", r"lacks \['network.resolution'\]"),
        ("resolution = 8", "resolution = 8\nn_classes = 2", r"unknown keys \['network.n_classes'\]"),
        ("[network]", "n_steps = 5\n[network]", r"unknown keys \['n_steps.'\]"),
        ("[network]", "[network", "is no TOML file"),
    ],
)
def test_bad_files(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        small(tmp_path, SMALL.replace(old, new))


def test_bad_arguments(tmp_path: Path) -> None:
    configuration = small(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_configuration("ffhq64-xx")
    with pytest.raises(ValueError, match="method='minmax' is unknown; pass one of Pretrain, Conditional"):
        configuration.prepare("minmax", GROUPS)
    wrong: Any
    for wrong in (torch.tensor([0, -1]), torch.tensor([0.0]), torch.tensor([[0]]), torch.tensor([], dtype=torch.int64)):
        with pytest.raises(ValueError, match="groups has shape"):
            configuration.prepare("Min-Max", wrong)
