"""Models of transformers that oracles take, tiny and with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

WORDS = ["[PAD]", "[UNK]", "a", "photo", "of", "woman", "man", "dog", "she", "he", "[END]"]


def save_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    end = WORDS.index("[END]")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [END]", special_tokens=[("[END]", end)])
    found = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]", model_max_length=8
    )
    found.save_pretrained(folder)
    return found


def _save(model: Any, folder: Path, *, size: int | None = 32) -> None:
    model.save_pretrained(folder)
    if size is not None:
        shape = {"height": size, "width": size}
        settings = {"image_processor_type": "ViTImageProcessor", "size": shape, "do_resize": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def prompt_model(folder: Path) -> Path:
    """The folder of a CLIP for images of 32 pixels and the words of WORDS."""
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config={
                    **small,
                    "vocab_size": len(WORDS),
                    "max_position_embeddings": 8,
                    "eos_token_id": WORDS.index("[END]"),
                    "bos_token_id": 1,
                },
                vision_config={**small, "image_size": 32, "patch_size": 16},
                projection_dim=8,
            )
        )
    model.save_pretrained(folder)
    tokenizer = save_tokenizer(folder)
    pixels = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


def image_classifier(folder: Path) -> Path:
    """The folder of a ViT that tells cats, lions and dogs apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
            patch_size=16, num_labels=3, id2label={0: "cat", 1: "lion", 2: "dog"},
            label2id={"cat": 0, "lion": 1, "dog": 2},
        )  # fmt: skip
        model = transformers.ViTForImageClassification(config)
        for parameter in model.parameters():  # so that images differ, and get several labels
            parameter.data += 0.5 * torch.randn(parameter.shape)
        pixels = torch.rand(64, 3, 32, 32)
        model.classifier.bias.data -= model.eval()(pixels).logits.mean(dim=0).detach()
        _save(model, folder)
    return folder


def text_classifier(folder: Path) -> Path:
    """The folder of a BERT that calls texts female or male."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=8, id2label={0: "female", 1: "male"}, label2id={"female": 0, "male": 1},
        )  # fmt: skip
        _save(transformers.BertForSequenceClassification(config), folder, size=None)
    save_tokenizer(folder)
    return folder
