"""Table 1 with the paper's settings made small: synthetic images in FFHQ's layout, through the command."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import safetensors.torch
import torch
from torch import nn

from egtmetrics.cli import main
from egtmetrics.paper.checkpoints import load_checkpoint
from egtmetrics.paper.table1 import METHODS, PAPER
from egtmetrics.paper.unet import UNet
from egtmetrics.training import EDMPreconditioning, VPPreconditioning
from egtmetrics.training.resumable import fingerprint
from tests._killing import kill_when

COUNTS = (72, 48)

NETWORK: dict[str, Any] = {"resolution": 16, "width": 8, "multipliers": (1, 1), "n_blocks": 1, "attention": ()}
TINY = dataclasses.replace(
    PAPER["ffhq64-vp"], network={**NETWORK, "dropout": 0.1}, batch_size=32, learning_rate=1e-3, half_life=100.0,
    n_bins=2, n_real=24, n_bootstrap=5, sampler_steps=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with the paper's settings for images of 64 x 64, in small."""
    monkeypatch.setitem(PAPER, "ffhq64-vp", TINY)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of 16 x 16, reddish in group 0 and bluish in group 1, and all else the command is given."""
    folder = tmp_path_factory.mktemp("files")
    images, labels = folder / "ffhq-16x16", []
    rng = np.random.default_rng(0)
    for i in rng.permutation(sum(COUNTS)).tolist():
        group = int(i >= COUNTS[0])
        levels = np.array([138, 128, 118])[:: 1 - 2 * group] + rng.normal(0.0, 40.0, size=(16, 16, 3))
        file = images / f"{i // 100:05d}" / f"img{i:08d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(levels.round().clip(0, 255).astype(np.uint8)).save(file)
        labels.append([file.relative_to(images).as_posix(), group])
    (images / "dataset.json").write_text(json.dumps({"labels": labels}))
    with zipfile.ZipFile(folder / "ffhq-16x16.zip", "w") as archive:
        for file in images.rglob("*.*"):
            archive.write(file, file.relative_to(images).as_posix())
    means = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
        torch.jit.trace(means, torch.zeros(2, 3, 16, 16)).save(str(folder / "means.pt"))
    return folder


def save_checkpoint(path: Path, **options: Any) -> Path:
    """As ``convert_checkpoint`` writes it, with augmentations as the public ones have; it has learnt nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(**{**NETWORK, **options})
        network.map_augment = nn.Linear(9, network.map_layer0.in_features, bias=False)
        nn.init.normal_(network.map_layer0.weight)
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    path.write_bytes(safetensors.torch.save(state, {"class": "VPPrecond"}))
    return path


def command(files: Path, data: str, *rest: object) -> list[str]:
    options = [*("--steps", 2), *("--encoder", files / "means.pt"), "--quiet"]
    words = ["reproduce", "table1", "--data", "ffhq", files / data, "--device", "cpu"]
    return [str(word) for word in (*words, *options, *rest)]


@pytest.mark.slow
def test_from_a_checkpoint_killed_and_resumed(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_checkpoint(tmp_path / "base.safetensors")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = command(files, "ffhq-16x16", "--checkpoint", checkpoint, "--out")
    kill_when((killed / "seed0" / "Conditional.pt").exists, [sys.executable, __file__, *words, killed])
    assert not (killed / "runs.csv").exists()
    before = torch.random.get_rng_state()
    texts = []
    for out in (killed, whole):
        assert main([*words, str(out)]) == 0
        texts.append(capsys.readouterr().out)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert texts[0] == texts[1]
    for name in ("runs.csv", "losses.csv", "table1.md", "features.npy"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    for name in ("losses.png", "figure2.png", "samples.png"):
        assert (whole / name).read_bytes().startswith(b"\x89PNG")

    assert not (whole / "seed0" / "base.pt").exists()
    first = fingerprint(load_checkpoint(checkpoint, UNet(**NETWORK)).state_dict().values())
    for method in ("Pretrain", "Reweighted", "Density-Ratio", "Min-Max"):
        trained = torch.load(whole / "seed0" / f"{method}.pt", weights_only=True)
        assert trained["step"] == 2
        assert trained["settings"]["first weights"] == first
        assert trained["settings"]["preconditioning"] == repr(VPPreconditioning())
    conditional = torch.load(whole / "seed0" / "Conditional.pt", weights_only=True)
    assert conditional["model"]["network.map_label.weight"].shape[1] == 2
    assert "steps: a checkpoint, which may have seen the held-out images, + 2 of 32 samples" in texts[0]
    assert "VP preconditioning; network: resolution 16, width 8, multipliers (1, 1)" in texts[0]


@pytest.mark.slow
def test_from_scratch_on_a_zip_file(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(command(files, "ffhq-16x16.zip", "--out", out)) == 0
    text = capsys.readouterr().out
    assert "120 images of ffhq-16x16.zip, 16 x 16" in text
    assert "steps: 2 + 2 of 32 samples for each; Adam, learning rate 0.001; EDM preconditioning" in text
    assert "to 2 dimensions" in text
    assert "24 real, held out, and 24 generated of each group" in text
    base = torch.load(out / "seed0" / "base.pt", weights_only=True)
    assert (base["step"], base["settings"]["preconditioning"]) == (2, repr(EDMPreconditioning()))
    levels = np.array([PIL.Image.open(path) for path in sorted((files / "ffhq-16x16").rglob("*.png"))])
    blocks = levels.reshape(120, 2, 8, 2, 8, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(np.load(out / "features.npy"), blocks.reshape(120, 12), rtol=0, atol=1e-6)

    runs = pd.read_csv(out / "runs.csv")
    assert list(runs["method"].unique()) == [*METHODS, "Real"]
    models = runs[runs["method"] != "Real"].set_index("generation")
    # 48 : 24 are left to train on, of 72 : 48.
    for generation, odds in (("MGO", [0.0, 1 / 3]), ("EGO", [1 / 6, 0.0])):
        measured = models.loc[generation, ["mgo", "ego"]].to_numpy()
        assert measured == pytest.approx(np.array([odds] * len(METHODS)), abs=1e-12)
    losses = pd.read_csv(out / "losses.csv")
    assert len(losses) == len(METHODS) * 2 * 2 * 16
    # A model that has learnt next to nothing: images of deviation 0.33 and mean 0 by 0.3, of which EDM expects 0.5.
    assert losses["loss"].between(0.1, 3.0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 16}, r"size mismatch for map_layer0\.weight: .*\[\.\.\.\]; pass a network of its sizes"),
        ({"architecture": "ncsnpp"}, r'Unexpected key\(s\) in state_dict: "map_noise\.freqs"'),
        ({"n_classes": 2}, r'Unexpected key\(s\) in state_dict: "map_label\.'),
    ],
)  # fmt: skip
def test_refuses_a_checkpoint_of_another_architecture(
    options: dict[str, Any], message: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save_checkpoint(tmp_path / "base.safetensors", **options)
    out = tmp_path / "out"
    assert main(command(files, "ffhq-16x16", "--checkpoint", checkpoint, "--out", out)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"egtmetrics: error: checkpoint {checkpoint} has another architecture than the network: ")
    assert re.search(message, line)
    assert not out.exists()


if __name__ == "__main__":
    PAPER["ffhq64-vp"] = TINY
    sys.exit(main(sys.argv[1:]))
