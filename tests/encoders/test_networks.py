"""Vision models of transformers, every family equal to a plain use of the library; Inception-v3 equal to its peers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from egtmetrics.encoders import ImageEncoder
from egtmetrics.encoders._presets import IMAGE_PRESETS, TEXT_PRESETS, preset_rows
from tests.encoders._models import random_inception, vision_model

rng = np.random.default_rng(7)
IMAGES = [rng.integers(0, 256, shape).astype(np.uint8) for shape in ((3, 40, 24), (1, 16, 16), (3, 9, 31))]
ROOT = Path(__file__).parents[2]


def class_token(model: Any, inputs: Any) -> Any:
    return model(**inputs).last_hidden_state[:, 0]


def pooled(model: Any, inputs: Any) -> Any:
    return model(**inputs).pooler_output


PLAIN: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "vit": ("ViTModel", class_token),
    "dinov2": ("Dinov2Model", class_token),  # its pooler_output is this very token
    "dinov3_vit": ("DINOv3ViTModel", class_token),
    "clip": ("CLIPModel", lambda m, inputs: m.visual_projection(m.vision_model(**inputs).pooler_output)),
    "siglip": ("SiglipModel", lambda m, inputs: m.vision_model(**inputs).pooler_output),
    "siglip_vision_model": ("SiglipVisionModel", pooled),
    "convnext": ("ConvNextModel", pooled),
}
"""By family: the class to load, and the features by another way than the encoder's."""


@pytest.mark.parametrize("family", PLAIN)
def test_every_family_equals_a_plain_use_of_transformers(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = vision_model(tmp_path, family)
    state = torch.random.get_rng_state()
    encoder = ImageEncoder(folder, batch_size=2, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)
    features = encoder(IMAGES)
    name, apply = PLAIN[family]
    options = {"add_pooling_layer": False} if family == "vit" else {}
    model = getattr(transformers, name).from_pretrained(folder, **options).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pictures = [PIL.Image.fromarray(np.broadcast_to(i.transpose(1, 2, 0), (*i.shape[1:], 3)).copy()) for i in IMAGES]
    with torch.inference_mode():
        expected = torch.cat([apply(model, processor(images=p, return_tensors="pt")) for p in pictures])
    np.testing.assert_allclose(features, expected.flatten(1).numpy(), atol=2e-6)
    assert np.abs(features - features[:1]).max() > 1e-3  # images differ, and so do their features


def test_identity_tells_weights_and_preprocessing_apart(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = vision_model(tmp_path, "clip")
    first = ImageEncoder(folder, device="cpu").identity
    assert first["pooling"] == "image embedding (get_image_features), not normalised"
    assert first["preprocessing"]["crop_size"] == {"height": 16, "width": 16}
    settings = folder / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace('"shortest_edge": 20', '"shortest_edge": 16'))
    second = ImageEncoder(folder, device="cpu").identity
    assert second["sha256"] == first["sha256"]
    assert second["preprocessing"] != first["preprocessing"]
    vision_model(folder, "vit")
    assert ImageEncoder(folder, device="cpu").identity["sha256"] != first["sha256"]


def test_floats_are_rounded_to_levels_and_share_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    folder = vision_model(tmp_path / "model", "dinov2")
    levels = np.stack([IMAGES[0], IMAGES[0] // 2])
    features = ImageEncoder(folder, cache=tmp_path / "cache", device="cpu")(levels)
    again = ImageEncoder(folder, cache=tmp_path / "cache", device="cpu")
    monkeypatch.setattr(again, "_forward", lambda batch: pytest.fail("encoded again"))
    np.testing.assert_array_equal(again(torch.from_numpy(levels / np.float32(255))), features)


def test_what_cannot_be_loaded_is_said_with_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    for name, fetched in (("nobody/nothing", "nobody/nothing"), ("dinov2", "facebook/dinov2-base")):
        with pytest.raises(ValueError, match=rf"not in the local cache .*; fetch it with `hf download {fetched}`"):
            ImageEncoder(name, device="cpu")
    with pytest.raises(FileNotFoundError, match="model=dino is not a file or folder here, and not one of eff"):
        ImageEncoder("dino", device="cpu")
    with pytest.raises(ValueError, match="holds no model that loads"):
        ImageEncoder(tmp_path, device="cpu")
    folder = vision_model(tmp_path / "model", "dinov2")
    with pytest.raises(ValueError, match=r"size=32 cannot be chosen for model=.*: its image processor does"):
        ImageEncoder(folder, size=32, device="cpu")
    weights = folder / "model.safetensors"
    from safetensors.torch import load_file, save_file

    kept = {name: tensor for name, tensor in load_file(weights).items() if not name.startswith("layernorm")}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"its weights lack 2 of the model's, such as layernorm\.bias"):
        ImageEncoder(folder, device="cpu")


def test_a_name_of_the_hub_is_read_from_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--me--tiny" / "snapshots" / "1234"
    folder = vision_model(snapshot, "dinov2")
    (tmp_path / "models--me--tiny" / "refs").mkdir()
    (tmp_path / "models--me--tiny" / "refs" / "main").write_text("1234")
    encoder = ImageEncoder("me/tiny", device="cpu")
    assert encoder.identity["model"] == "me/tiny"
    np.testing.assert_array_equal(encoder(IMAGES), ImageEncoder(folder, device="cpu")(IMAGES))
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot be loaded from the local cache, where `hf download me/tiny` may"):
        ImageEncoder("me/tiny", device="cpu")


def test_a_family_without_a_pooled_output_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMSNConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    transformers.ViTMSNModel(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of the family vit_msn has no pooled output"):
        ImageEncoder(tmp_path, device="cpu")(IMAGES)


# Inception-v3


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_inception(tmp_path_factory.mktemp("inception") / "weights.pth")


def image_of_waves() -> NDArray[np.uint8]:
    rows, columns, channels = np.meshgrid(np.arange(50), np.arange(70), np.arange(3), indexing="ij")
    waves = 127.5 + 127.5 * np.sin(0.7 * rows + 0.3 * columns * (channels + 1))
    return np.rint(waves).astype(np.uint8).transpose(2, 0, 1)


OF_TORCH_FIDELITY = [0.057445, 0.006165, 0.325995, 0.007947, 2.322687, 0.0]
"""Features 0, 400, ..., 2000 by torch-fidelity 0.4.0 with these weights: `python -m benchmarks.inception`."""


def test_inception_gives_the_features_of_torch_fidelity(inception: Path) -> None:
    features = ImageEncoder(f"inception:{inception}", device="cpu")(image_of_waves()[None])
    assert features.shape == (1, 2048)
    np.testing.assert_allclose(features[0, ::400], OF_TORCH_FIDELITY, rtol=1e-4, atol=1e-5)
    assert features[0].std() > 0.1


def test_of_a_torchscript_file_the_part_behind_its_resizing_is_used(tmp_path: Path) -> None:
    """The file of StyleGAN2-ADA and clean-fid holds the network under ``layers``; a small one stands for it here."""

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layers(images[:, :, :1, :1])  # type: ignore[no-any-return]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
        torch.jit.trace(Whole(), torch.ones(2, 3, 4, 4)).save(str(tmp_path / "whole.pt"))
    flat = np.broadcast_to(np.array([0, 128, 192], np.uint8)[:, None, None], (3, 5, 6))[None]
    features = ImageEncoder(f"inception:{tmp_path / 'whole.pt'}", device="cpu")(flat)
    np.testing.assert_allclose(features, [[-1.0, 0.0, 0.5]], atol=1e-6)


def test_what_is_no_inception(inception: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model=inception needs the file of its weights, as in inception:PATH"):
        ImageEncoder("inception", device="cpu")
    with pytest.raises(FileNotFoundError, match=r"model=inception:.*none: .* is not a file"):
        ImageEncoder(f"inception:{tmp_path / 'none'}", device="cpu")
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"holds no weights of the Inception-v3 of the FID papers"):
        ImageEncoder(f"inception-clean:{tmp_path / 'other.pth'}", device="cpu")
    with pytest.raises(ValueError, match=r"size=64 cannot be chosen for model=inception:.*: its images have 299"):
        ImageEncoder(f"inception:{inception}", size=64, device="cpu")


def test_the_two_resizes_are_those_of_their_codes(inception: Path) -> None:
    """TensorFlow's by its definition, pixel by pixel; clean-fid's is Pillow's, of each channel in floats."""
    encoders = {name: ImageEncoder(f"{name}:{inception}", device="cpu") for name in ("inception", "inception-clean")}
    image = image_of_waves()
    ttur, clean = (
        encoder._network.prepare([image.astype(np.float32) / 255])[0].numpy() for encoder in encoders.values()
    )
    for i, j in ((0, 0), (298, 298), (100, 7), (13, 250)):
        y, x = np.float32(i) * np.float32(50 / 299), np.float32(j) * np.float32(70 / 299)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, 49), min(left + 1, 69)
        corners = image[:, [top, top, bottom, bottom], [left, right, left, right]].astype(float)
        weights = np.outer([1 - (y - top), y - top], [1 - (x - left), x - left]).ravel()
        np.testing.assert_allclose(ttur[:, i, j], corners @ weights, atol=1e-3)
    channel = PIL.Image.fromarray(image[1].astype(np.float32), mode="F").resize(
        (299, 299), PIL.Image.Resampling.BICUBIC
    )
    np.testing.assert_array_equal(clean[1], np.clip(np.asarray(channel), 0, 255))
    first, second = (encoder.identity["preprocessing"]["resize"] for encoder in encoders.values())
    assert (first, second) == (
        "bilinear of TensorFlow 1, not antialiased, as in the TTUR code",
        "bicubic of Pillow in floats, antialiased, as in clean-fid",
    )


def test_the_table_of_the_docs_is_that_of_the_presets() -> None:
    text = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    for presets in (IMAGE_PRESETS, TEXT_PRESETS):
        for row in preset_rows(presets):
            assert f"| {' | '.join(row)} |" in text
