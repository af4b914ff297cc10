"""Encoders small enough for every test, made where they are needed."""

from __future__ import annotations

import string
import warnings
from pathlib import Path

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
