"""Encoders small enough for every test, made where they are needed."""

from __future__ import annotations

import string
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray


def random_bert(folder: Path) -> Path:
    """The folder of a sentence-transformers model: a BERT of random weights over letters, with a context of 16."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    characters = [*string.ascii_lowercase, *string.digits, *".,:;()"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert"), max_seq_length=16), Pooling(16, "mean"), Normalize()]
    encoder = sentence_transformers.SentenceTransformer(modules=modules, device="cpu", prompts={"query": "find: "})
    encoder.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


class Corner(torch.nn.Module):
    """What the upper left pixel holds, and the mean of each channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images[:, :, 0, 0], images.mean(dim=(2, 3))], dim=1)


def corner(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same in NumPy."""
    return np.concatenate([images[:, :, 0, 0], images.mean(axis=(2, 3))], axis=1)


def corner_network(folder: Path) -> Path:
    """A TorchScript file of :class:`Corner`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
        torch.jit.trace(Corner(), torch.ones(2, 3, 4, 4)).save(str(folder / "corner.pt"))
    return folder / "corner.pt"


def random_inception(path: Path) -> Path:
    """A file with weights for the Inception-v3 of the FID papers, drawn from one seed in the order of their names."""
    from egtmetrics.encoders._inception import Inception

    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Inception().state_dict().items()}
    shapes |= {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    rng, weights = np.random.default_rng(0), {}
    for name, shape in sorted(shapes.items()):
        drawn = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) == 4:
            drawn *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        elif not name.startswith("fc."):
            drawn = 1 + 0.1 * drawn if name.endswith(("bn.weight", "running_var")) else 0.1 * drawn
        weights[name] = torch.from_numpy(np.asarray(drawn, dtype=np.float32))
    torch.save(weights, path)
    return path


def vision_model(folder: Path, family: str) -> Path:
    """The folder of a tiny vision model of transformers, weights drawn at random, with its image processor."""
    import transformers

    model, processor = _VISION[family](transformers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = model()
        for parameter in built.parameters():  # also those that start as 0 or 1, which would hide their place
            parameter.data += 0.05 * torch.randn(parameter.shape)
        built.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _vit(t: Any, kind: str) -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return getattr(t, f"{kind}Config")(**sizes, image_size=16, patch_size=8)


def _text_and_vision(t: Any, kind: str) -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**sizes, "vocab_size": 30, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 1}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    more = {"projection_dim": 12} if kind == "CLIP" else {}
    return getattr(t, f"{kind}Config")(text_config=text, vision_config=vision, **more)


_CROPPED = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
_SQUARE = {"size": {"height": 16, "width": 16}}
_VISION: dict[str, Callable[[Any], tuple[Callable[[], Any], Any]]] = {
    "vit": lambda t: (lambda: t.ViTForImageClassification(_vit(t, "ViT")), t.ViTImageProcessorPil(**_SQUARE)),
    "dinov2": lambda t: (lambda: t.Dinov2Model(_vit(t, "Dinov2")), t.BitImageProcessorPil(**_CROPPED)),
    "dinov3_vit": lambda t: (lambda: t.DINOv3ViTModel(_vit(t, "DINOv3ViT")), t.ViTImageProcessorPil(**_SQUARE)),
    "clip": lambda t: (lambda: t.CLIPModel(_text_and_vision(t, "CLIP")), t.CLIPImageProcessorPil(**_CROPPED)),
    "siglip": lambda t: (lambda: t.SiglipModel(_text_and_vision(t, "Siglip")), t.SiglipImageProcessorPil(**_SQUARE)),
    "siglip_vision_model": lambda t: (
        lambda: t.SiglipVisionModel(_text_and_vision(t, "Siglip").vision_config),
        t.SiglipImageProcessorPil(**_SQUARE),
    ),
    "convnext": lambda t: (
        lambda: t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=16)),
        t.ViTImageProcessorPil(**_SQUARE),
    ),
}
"""By family: what builds the model, and its image processor."""
