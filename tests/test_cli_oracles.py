"""Groups by a network on the command line: prompts and classifiers, and how often a network sees an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics.cli import main
from egtmetrics.data import ImageFiles, read_labelled_features
from egtmetrics.oracles import ModelOracle, PromptOracle
from tests.encoders._models import corner_network
from tests.oracles._models import image_classifier, prompt_model, text_classifier
from tests.test_cli_evaluate import json_of, refused, write_images
from tests.test_cli_sides import count_encoded

pytestmark = [
    pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning"),
    pytest.mark.filterwarnings("default::egtmetrics.results.UnreliableScoreWarning"),  # of few rows
]

PROMPTS: dict[str | None, Any] = {"female": ["a photo of a woman", "woman"], "a man": "a man", None: "a dog"}
SPELLED = "female=a photo of a woman|a man|female=woman|=a dog"
GROUPS = "female=woman|male=man"
CORNER = ["--encoder", "corner.pt", "--device", "cpu"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, make in {"clip": prompt_model, "vit": image_classifier, "bert": text_classifier}.items():
        (folder / name).mkdir()
        make(folder / name)
    return folder


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "real", 0)
    write_images(tmp_path / "fake", 1)
    corner_network(tmp_path)
    monkeypatch.chdir(tmp_path)


def pictures(name: str) -> list[Any]:
    files = ImageFiles(name)
    return [files[i].transpose(1, 2, 0) for i in range(len(files))]


def groups_of(spec: str, samples: str = "real", *more: str) -> list[str | None]:
    assert main(["encode", samples, "--groups", spec, "--out", "x.npz", "--quiet", *more]) == 0
    labels = read_labelled_features("x.npz").groups["group"]
    return [label or None for label in labels.where(labels.notna(), None).tolist()]


def test_the_groups_are_those_of_the_library(models: Path) -> None:
    oracles = {
        f"clip:{SPELLED}": PromptOracle(models / "clip", PROMPTS),
        f"clip:{GROUPS}": PromptOracle(models / "clip", {"female": "woman", "male": "man"}),
        "vit": ModelOracle(models / "vit"),
    }
    for spec, oracle in oracles.items():
        expected = oracle(pictures("real")).tolist()
        assert len(set(expected)) > 1
        assert groups_of(f"oracle:{models}/{spec}", "real", *CORNER) == expected


def test_each_network_sees_an_image_once(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two sides with 24 images each: by one network, by two, and with a cache by none."""
    counted = count_encoded(monkeypatch)
    clip = str(models / "clip")
    spec = f"oracle:{clip}:{GROUPS}"
    command = ["evaluate", "real", "fake", "--metrics", "fid", "--groups", spec, "--cache", "seen"]
    shared = json_of([*command, "--encoder", clip], capsys)
    assert sum(counted) == 48
    other = json_of([*command, *CORNER], capsys)
    assert sum(counted) == 96
    assert json_of([*command, *CORNER], capsys) == other
    assert sum(counted) == 96
    sizes = [content["group_counts"] for content in (shared, other)]
    assert sizes[0] == sizes[1]
    for content in (shared, other):
        assert content["fake"]["called_by"]["model"] == clip
        assert content["fake"]["groups"] == spec


def test_a_classifier_of_texts(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sentence_transformers")
    from tests.encoders._models import random_bert

    encoder = random_bert(Path("."))
    texts = [f"a {word}" for word in ["woman", "man", "dog", "she", "he"] * 4]
    Path("texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    expected = ModelOracle(models / "bert")(texts).tolist()
    options = ["--encoder", f"./{encoder}", "--device", "cpu"]
    assert groups_of(f"oracle:{models}/bert", "texts.jsonl", *options) == expected
    capsys.readouterr()
    command = ["encode", "texts.jsonl", "--out", "x.npz", "--quiet", *options, "--groups"]
    refused([*command, f"oracle:{models}/vit"], "classifies images, and these are texts", capsys)
    refused([*command, f"oracle:{models}/clip:a|b"], "prompts are compared with images, and these are texts", capsys)
    refused([*command, "oracle:vit"], r"oracle:MODEL \(a path with a slash, or OWNER/NAME\)", capsys)


def test_groups_are_checked_before_the_other_encoder_begins(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = count_encoded(monkeypatch)
    spec = f"oracle:{models}/clip:{GROUPS}"
    command = ["evaluate", "real", "fake", "--metrics", "kid", "--groups", spec, "--quiet"]
    refused([*command, "--encoder", "none.pt"], "none.pt is not a file", capsys)
    assert counted == []
    refused([*command, *CORNER, "--subset-size", "30"], r"all samples \(24 real, 24 fake\), metric 'kid'", capsys)
    assert sum(counted) == 48  # by the oracle alone
    sure = ["--min-confidence", "0.999"]
    refused([*command, *CORNER, *sure], "no image of 24 is in a group by oracle:", capsys)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("oracle:{}/clip:a man", "is CLIPModel, expected a classifier of images or sequences|is not a folder"),
        ("oracle:{}/clip:a man|", "has an empty prompt; write oracle:MODEL:GROUP=PROMPT"),
        ("oracle:{}/clip:x=a man|x=a woman", "oracle:.*: prompts=.* expected a prompt or more for two groups or more"),
        ("oracle:{}/vit:a man|a woman", "is ViTModel, which has no features of images and texts to compare"),
        ("oracle:{}/bert", "classifies texts, and these are images"),
        ("oracle:nobody/nothing", "oracle:nobody/nothing is not in the local cache .*hf download nobody/nothing`"),
        ("oracle:./nothing", "oracle:./nothing is not a folder; pass the folder of a model of transformers"),
        ("oracle:", "oracle:: names no model of transformers"),
        ("oracle:efficientnet", "oracle:efficientnet: names no model of transformers"),
        ("oracle:pronouns", "groups 'oracle:pronouns' are of texts, and these are images"),
    ],
)
def test_models_that_do_not_fit_are_refused_before_anything_is_encoded(
    spec: str, message: str, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = count_encoded(monkeypatch)
    refused(["evaluate", "real", "fake", "--groups", spec.format(models), *CORNER, "--quiet"], message, capsys)
    assert counted == []


def test_features_have_no_images_to_call(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("f.npz", features=np.zeros((4, 2)))
    command = ["evaluate", "f.npz", "f.npz", "--groups", f"oracle:{models}/vit", "--metrics", "fid", "--quiet"]
    refused(command, "are of images or texts, and these are features", capsys)
