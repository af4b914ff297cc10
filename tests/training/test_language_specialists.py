"""Specialists of a language model: adapters for each group, which are what training on that group alone gives."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from egtmetrics.paper.causal_lm import LoRASettings, add_lora
from egtmetrics.training import MeanLoss, group_means
from egtmetrics.training.language import losses_of_texts, train_language_model, train_language_specialists
from egtmetrics.training.prompts import PromptedTexts
from tests.training import _tiny

TOKENIZER = _tiny.tokenizer()
TEXTS = _tiny.biographies(TOKENIZER)
HELD_OUT = _tiny.biographies(TOKENIZER, _tiny.TEXTS[:4], [0, 1, 1, 0])
OPTIONS: dict[str, Any] = {"batch_size": 3, "learning_rate": 1e-2, "random_state": 5}


def build() -> Any:
    return add_lora(_tiny.llama(len(TOKENIZER)), LoRASettings(), random_state=1)


def of_group(texts: PromptedTexts, group: int) -> PromptedTexts:
    rows = [row for row, a in enumerate(texts.groups.tolist()) if a == group]
    return dataclasses.replace(
        texts,
        tokens=tuple(texts.tokens[row] for row in rows),
        prompt_lengths=tuple(texts.prompt_lengths[row] for row in rows),
        groups=torch.zeros(len(rows), dtype=torch.long),
    )


def test_every_specialist_is_trained_on_its_texts_alone(tmp_path: Path) -> None:
    model = build()
    before = copy.deepcopy(model.state_dict())
    options: dict[str, Any] = {"n_steps": 4, "look_every": 2, "folder": tmp_path / "new", **OPTIONS}
    found = train_language_specialists(model, TEXTS, HELD_OUT, **options)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    for group, stop in enumerate(found):
        assert len(stop.losses) == 3
        assert stop.losses[stop.step // 2] == min(stop.losses)
        assert stop.step > 0
        alone = build()
        train_language_model(alone, of_group(TEXTS, group), MeanLoss(1), n_steps=stop.step, **OPTIONS)
        trained = {name: weight for name, weight in alone.named_parameters() if weight.requires_grad}
        torch.testing.assert_close(stop.weights, {n: w.detach() for n, w in trained.items()}, rtol=0, atol=0)
        model.load_state_dict(stop.weights, strict=False)
        means = group_means(losses_of_texts(model, HELD_OUT), HELD_OUT.groups).means
        assert float(means[group]) == pytest.approx(min(stop.losses), rel=1e-5)
    fresh = build()
    resumed = train_language_specialists(fresh, TEXTS, HELD_OUT, **options)
    for first, second in zip(found, resumed, strict=True):
        torch.testing.assert_close(first.weights, second.weights, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"train\.learning_rate was 0\.01, is 0\.5"):
        train_language_specialists(fresh, TEXTS, HELD_OUT, **{**options, "learning_rate": 0.5})
    torch.testing.assert_close(fresh.state_dict(), before, rtol=0, atol=0)  # after an error, too


def test_every_group_needs_texts() -> None:
    with pytest.raises(ValueError, match=r"texts has \[7, 3\] rows .* held_out \[2\]; expected some of every group"):
        train_language_specialists(build(), TEXTS, of_group(HELD_OUT, 1), n_steps=1)
