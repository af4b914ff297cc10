"""The Inception-v3 that published FIDs use: its graph, its resizing, and the files that carry its weights.

The network is that of Szegedy et al. 2016 as TensorFlow published it in December 2015. It differs from that of
torchvision: means over a neighbourhood count only pixels inside the map, the last block takes a maximum in the place
of the mean, and there are 1008 classes. The names of the layers are those of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 299
"""Height and width of its images."""
N_FEATURES = 2048


class _Convolution(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int | tuple[int, int], stride: int, padding: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=1e-3)

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(maps)))


def _same(n_in: int, n_out: int, kernel: int | tuple[int, int] = 1) -> _Convolution:
    """A convolution that keeps height and width."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return _Convolution(n_in, n_out, kernel, 1, (height // 2, width // 2))


def _halving(n_in: int, n_out: int) -> _Convolution:
    return _Convolution(n_in, n_out, 3, 2, 0)


def _mean(maps: Tensor) -> Tensor:
    return functional.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)


def _maximum(maps: Tensor) -> Tensor:
    return functional.max_pool2d(maps, 3, 1, 1)


def _half(maps: Tensor) -> Tensor:
    return functional.max_pool2d(maps, 3, 2)


class _Block(nn.Module):
    """Branches side by side; each is a chain of layers, and the last chain may be a pooling with layers behind it.

    ``branches`` has, for each branch, the names of its layers in order; a name in two parts, ``(a, b)``, stands for two
    layers on the same maps, joined.
    """

    def __init__(self, layers: dict[str, _Convolution], branches: Sequence[Sequence[Any]]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.branches = branches

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([self._branch(maps, steps) for steps in self.branches], dim=1)

    def _branch(self, maps: Tensor, steps: Sequence[Any]) -> Tensor:
        for step in steps:
            if isinstance(step, tuple):
                maps = torch.cat([getattr(self, name)(maps) for name in step], dim=1)
            else:
                maps = step(maps) if callable(step) else getattr(self, step)(maps)
        return maps


def _block_a(n_in: int, n_pooled: int) -> _Block:
    layers = {
        "branch1x1": _same(n_in, 64),
        "branch5x5_1": _same(n_in, 48),
        "branch5x5_2": _same(48, 64, 5),
        "branch3x3dbl_1": _same(n_in, 64),
        "branch3x3dbl_2": _same(64, 96, 3),
        "branch3x3dbl_3": _same(96, 96, 3),
        "branch_pool": _same(n_in, n_pooled),
    }
    return _Block(layers, [["branch1x1"], _chain("branch5x5", 2), _chain("branch3x3dbl", 3), [_mean, "branch_pool"]])


def _block_b(n_in: int) -> _Block:
    layers = {
        "branch3x3": _halving(n_in, 384),
        "branch3x3dbl_1": _same(n_in, 64),
        "branch3x3dbl_2": _same(64, 96, 3),
        "branch3x3dbl_3": _halving(96, 96),
    }
    return _Block(layers, [["branch3x3"], _chain("branch3x3dbl", 3), [_half]])


def _block_c(n: int, n_inner: int) -> _Block:
    wide, high = (1, 7), (7, 1)
    layers = {
        "branch1x1": _same(n, 192),
        "branch7x7_1": _same(n, n_inner),
        "branch7x7_2": _same(n_inner, n_inner, wide),
        "branch7x7_3": _same(n_inner, 192, high),
        "branch7x7dbl_1": _same(n, n_inner),
        "branch7x7dbl_2": _same(n_inner, n_inner, high),
        "branch7x7dbl_3": _same(n_inner, n_inner, wide),
        "branch7x7dbl_4": _same(n_inner, n_inner, high),
        "branch7x7dbl_5": _same(n_inner, 192, wide),
        "branch_pool": _same(n, 192),
    }
    return _Block(layers, [["branch1x1"], _chain("branch7x7", 3), _chain("branch7x7dbl", 5), [_mean, "branch_pool"]])


def _block_d(n: int) -> _Block:
    layers = {
        "branch3x3_1": _same(n, 192),
        "branch3x3_2": _halving(192, 320),
        "branch7x7x3_1": _same(n, 192),
        "branch7x7x3_2": _same(192, 192, (1, 7)),
        "branch7x7x3_3": _same(192, 192, (7, 1)),
        "branch7x7x3_4": _halving(192, 192),
    }
    return _Block(layers, [_chain("branch3x3", 2), _chain("branch7x7x3", 4), [_half]])


def _block_e(n_in: int, pool: Any) -> _Block:
    layers = {
        "branch1x1": _same(n_in, 320),
        "branch3x3_1": _same(n_in, 384),
        "branch3x3_2a": _same(384, 384, (1, 3)),
        "branch3x3_2b": _same(384, 384, (3, 1)),
        "branch3x3dbl_1": _same(n_in, 448),
        "branch3x3dbl_2": _same(448, 384, 3),
        "branch3x3dbl_3a": _same(384, 384, (1, 3)),
        "branch3x3dbl_3b": _same(384, 384, (3, 1)),
        "branch_pool": _same(n_in, 192),
    }
    twice = ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")]
    once = ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]
    return _Block(layers, [["branch1x1"], once, twice, [pool, "branch_pool"]])


def _chain(name: str, n: int) -> list[str]:
    return [f"{name}_{i}" for i in range(1, n + 1)]


class Inception(nn.Module):
    """From images ``(k, 3, 299, 299)`` in [-1, 1] to the 2048 means of the last maps, ``(k, 2048)``."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _halving(3, 32)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, 1, 0)
        self.Conv2d_2b_3x3 = _same(32, 64, 3)
        self.Conv2d_3b_1x1 = _same(64, 80)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, 1, 0)
        for letter, n_in, n_pooled in (("b", 192, 32), ("c", 256, 64), ("d", 288, 64)):
            self.add_module(f"Mixed_5{letter}", _block_a(n_in, n_pooled))
        self.Mixed_6a = _block_b(288)
        for letter, n_inner in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
            self.add_module(f"Mixed_6{letter}", _block_c(768, n_inner))
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, _mean)
        self.Mixed_7c = _block_e(2048, _maximum)

    def forward(self, images: Tensor) -> Tensor:
        maps = _half(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images))))
        maps = _half(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(maps)))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                maps = block(maps)
        return maps.mean(dim=(2, 3))


def load_inception(path: Path) -> nn.Module:
    """Return the network with the weights of a file.

    Read are the dictionary of weights that pytorch-fid and torch-fidelity publish (converted from TensorFlow's), and
    the TorchScript file of StyleGAN2-ADA and clean-fid, whose part ``layers`` begins behind the resizing.

    Raises
    ------
    Exception
        Of torch, where the file holds neither.
    """
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
            load_torchscript: Any = torch.jit.load  # untyped
            layers: nn.Module = load_torchscript(str(path), map_location="cpu").eval().layers
            return layers
    except RuntimeError:  # no TorchScript
        weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # draws no weights: all are replaced below
        network = Inception()
    without_classes = {name: tensor for name, tensor in weights.items() if not name.startswith(("fc.", "AuxLogits."))}
    network.load_state_dict(without_classes, assign=True)
    return network.eval()


def resize_like_ttur(levels: Tensor) -> Tensor:
    """Resize ``(1, 3, h, w)`` as TensorFlow 1 does, and with it the code of Heusel et al. 2017 (TTUR).

    Bilinear between the nearest pixels. Row i of the result lies at row ``i h / 299`` of the image, with no shift by
    half a pixel. A larger image is not smoothed before, so that fine detail aliases.
    """
    return _between(_between(levels, 3), 2)


def _between(levels: Tensor, axis: int) -> Tensor:
    n = levels.shape[axis]
    position = torch.arange(SIZE, dtype=torch.float32) * (n / SIZE)
    low = position.long().clamp(max=n - 1)
    high = (low + 1).clamp(max=n - 1)
    share = (position - low).reshape([-1 if dim == axis else 1 for dim in range(4)])
    first, second = levels.index_select(axis, low), levels.index_select(axis, high)
    return first + (second - first) * share


def resize_like_clean_fid(levels: Tensor) -> Tensor:
    """Resize ``(1, 3, h, w)`` as clean-fid does (Parmar et al. 2022): Pillow's bicubic with smoothing, in floats."""
    import numpy as np
    import PIL.Image

    channels = [PIL.Image.fromarray(channel, mode="F") for channel in levels[0].numpy()]
    resized = [np.asarray(channel.resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC)) for channel in channels]
    return torch.from_numpy(np.stack(resized)).clamp(0.0, 255.0)[None]
