"""Oracles by models of transformers: tiny ones with random weights, against the same computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose
from PIL import Image

from egtmetrics.oracles import ModelOracle, PromptOracle
from tests.oracles._models import image_classifier, prompt_model, text_classifier

PROMPTS: dict[str | None, Any] = {"female": ["a photo of a woman", "woman"], "male": "a photo of a man"}


def images(n: int = 5) -> list[Any]:
    return list(np.random.default_rng(0).integers(0, 256, size=(n, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_model(tmp_path_factory.mktemp("clip"))


def test_prompts_are_compared_as_the_model_does(clip: Path) -> None:
    """With one prompt a group, the probabilities are those of the model's own logits."""
    single: dict[str | None, Any] = {"female": "a photo of a woman", "male": "a photo of a man"}
    oracle = PromptOracle(clip, single, batch_size=2)
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    processor = transformers.AutoProcessor.from_pretrained(clip)
    inputs = processor(text=list(single.values()), images=images(), return_tensors="pt", padding="max_length")
    with torch.inference_mode():
        expected = model(**inputs).logits_per_image.double().softmax(dim=1).numpy()
    found = oracle.probabilities(images())
    assert_allclose(found, expected, rtol=1e-4)
    assert oracle(images()).tolist() == [["female", "male"][place] for place in expected.argmax(axis=1)]
    limit = float(np.sort(found.max(axis=1))[2])
    careful = PromptOracle(clip, single, min_confidence=limit)(images())
    assert [one is not None for one in careful] == (found.max(axis=1) >= limit).tolist()


def test_several_prompts_and_one_for_no_group(clip: Path) -> None:
    oracle = PromptOracle(clip, {**PROMPTS, None: "a photo of a dog"})
    found = oracle.probabilities(images())
    assert oracle.group_names == ("female", "male")
    assert found.shape == (5, 2)
    rest = 1.0 - found.sum(axis=1)
    assert (rest > 0.0).all()
    for label, own, of_none in zip(oracle(images()), found, rest, strict=True):
        assert (label is None) == (own.max() < of_none)
    assert oracle([]).tolist() == []


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_classifier(tmp_path_factory.mktemp("vit"))


def test_labels_of_an_image_classifier_add_up_to_groups(vit: Path) -> None:
    pipeline = transformers.pipeline("image-classification", model=str(vit), top_k=None)
    pictures = [Image.fromarray(one) for one in images()]
    scores = [{one["label"]: one["score"] for one in found} for found in pipeline(pictures)]
    plain = ModelOracle(vit, batch_size=2)
    assert plain.group_names == ("cat", "lion", "dog")
    assert_allclose(
        plain.probabilities(images()), [[one[name] for name in plain.group_names] for one in scores], rtol=1e-4
    )
    grouped = ModelOracle(vit, {"cat": "feline", "lion": "feline", "dog": "canine"})
    assert_allclose(grouped.probabilities(pictures)[:, 0], [one["cat"] + one["lion"] for one in scores], rtol=1e-4)
    only = ModelOracle(vit, {"cat": "cat", "lion": "lion"})
    for label, one in zip(only(pictures), scores, strict=True):
        assert (label is None) == (one["dog"] > max(one["cat"], one["lion"]))


def test_a_classifier_of_texts(tmp_path: Path) -> None:
    text_classifier(tmp_path)
    texts = ["a woman", "he", "a photo of a dog she he she he she he"]
    pipeline = transformers.pipeline("text-classification", model=str(tmp_path), top_k=None)
    scores = [{one["label"]: one["score"] for one in found} for found in pipeline(texts, truncation=True)]
    found = ModelOracle(tmp_path).probabilities(texts)
    assert_allclose(found, [[one["female"], one["male"]] for one in scores], rtol=1e-4)


def test_what_is_refused(vit: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model=.* holds no model that loads .*pass the folder of a model of transformers"
    ):
        ModelOracle(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"model=nobody/nothing is not in the local cache .* fetch it with `hf download nobody/nothing`",
    ):
        PromptOracle("nobody/nothing", PROMPTS)
    with pytest.raises(ValueError, match=r"is CLIPModel, expected a classifier"):
        ModelOracle(clip)
    with pytest.raises(ValueError, match=r"is ViTModel, which has no features of images and texts"):
        PromptOracle(vit, PROMPTS)
    with pytest.raises(ValueError, match=r"groups has 'wolf', but the labels of model=.* are 'cat', 'lion', 'dog'"):
        ModelOracle(vit, {"wolf": "canine"})
    with pytest.raises(ValueError, match=r"expected a prompt or more for two groups or more"):
        PromptOracle(clip, {"female": "a woman"})
