"""Vision models fine-tuned on tiny images: what trains, what is held out, and that one folder is encoder and oracle."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from benchmarks.fine_tuned_encoder import write_configuration, write_digits
from egtmetrics.cli import main
from egtmetrics.data import read_confusion
from egtmetrics.encoders import ImageEncoder
from egtmetrics.oracles import ModelOracle
from egtmetrics.training import encoder as module
from egtmetrics.training.encoder import FineTunedEncoder, fine_tune_encoder
from tests._killing import kill_when
from tests.encoders._models import vision_model

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
NAMES = ("a", "b", "c")


def data(n: int = 90, *, noise: float = 0.8) -> tuple[NDArray[np.uint8], NDArray[np.object_]]:
    """Images ``(n, 1, 8, 8)`` whose groups differ in brightness, and overlap."""
    rng = np.random.default_rng(0)
    groups = np.arange(n) % len(NAMES)
    levels = 60 + 60 * groups[:, None, None, None] + 60 * noise * rng.normal(size=(n, 1, 8, 8))
    levels += 60 * noise * rng.normal(size=(n, 1, 1, 1))
    return levels.clip(0, 255).astype(np.uint8), np.array(NAMES, dtype=object)[groups]


IMAGES, LABELS = data()


def vit(n_groups: int = 3, seed: int = 0, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformers.ViTConfig(**SIZES, image_size=8, patch_size=4, num_labels=n_groups, **options)
        return transformers.ViTForImageClassification(config)


def tune(model: Any = None, images: Any = IMAGES, labels: Any = LABELS, **options: Any) -> FineTunedEncoder:
    options = {"n_epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "device": "cpu", **options}
    return fine_tune_encoder(vit() if model is None else model, images, labels, **options)


@pytest.fixture(scope="module")
def tuned() -> FineTunedEncoder:
    return tune()


@pytest.fixture(scope="module")
def folder(tuned: FineTunedEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuned") / "folder"
    tuned.save(path)
    return path


def as_pictures(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [np.repeat(image.transpose(1, 2, 0), 3, axis=2) for image in images]


def test_one_folder_is_encoder_and_oracle(tuned: FineTunedEncoder, folder: Path) -> None:
    """The head is linear in the encoder's features, and its softmax is what the oracle and the result say."""
    held_out = IMAGES[tuned.held_out]
    features = ImageEncoder(folder, device="cpu")(held_out).astype(np.float64)
    head = tuned.model.classifier
    logits = features @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    oracle = ModelOracle(folder, device="cpu")
    assert_allclose(tuned.probabilities, expected, atol=1e-6)
    assert_allclose(oracle.probabilities(as_pictures(held_out)), expected, atol=1e-6)
    assert oracle.group_names == tuned.group_names == NAMES
    counts = tuned.confusion.counts
    assert counts is not None
    assert 0 < np.diag(counts).sum() < len(held_out), "errors, but not only errors"
    for other in (oracle.confusion, read_confusion(folder / "held_out.csv")):
        assert other is not None
        assert other.counts is not None
        assert other.counts.to_numpy().tolist() == counts.to_numpy().tolist()
    measured = oracle.measure_error(as_pictures(held_out), LABELS[tuned.held_out])
    assert measured.counts is not None
    assert measured.counts.to_numpy().tolist() == counts.to_numpy().tolist()
    assert json.loads((folder / "config.json").read_text())["calibration_temperature"] == tuned.temperature


def test_the_oracle_knows_its_error_for_other_groups_and_less_confidence(tuned: FineTunedEncoder, folder: Path) -> None:
    limit = float(np.median(tuned.probabilities.max(axis=1)))
    careful = ModelOracle(folder, min_confidence=limit).confusion
    assert careful is not None
    assert careful.counts is not None
    assert careful.counts.to_numpy()[:, -1].sum() == (tuned.probabilities.max(axis=1) < limit).sum()
    merged = ModelOracle(folder, {"a": "dark", "b": "bright", "c": "bright"}).confusion
    assert merged is not None
    assert merged.counts is not None
    dark = tuned.probabilities[:, 0] > 0.5
    is_dark = tuned.held_out_groups == "a"
    expected = [[(dark & is_dark).sum(), (~dark & is_dark).sum()], [(dark & ~is_dark).sum(), (~dark & ~is_dark).sum()]]
    assert merged.counts.to_numpy()[:, :2].tolist() == np.array(expected).tolist()
    partly = ModelOracle(folder, {"a": "dark", "b": "bright"}).confusion  # images of c are in no group
    assert partly is not None
    assert partly.counts is not None
    assert partly.counts.to_numpy().sum() == (tuned.held_out_groups != "c").sum()


def test_a_damaged_table_of_held_out_images_is_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    table = copy / "held_out.csv"
    text = table.read_text()
    for damaged in (text.replace("P(a)", "P(x)"), text[:-20], text + "\n", text.replace("\nb,", "\nx,"), ""):
        table.write_text(damaged)
        with pytest.raises(ValueError, match=r"held_out\.csv cannot be read .*expected the columns true, called, P\(a"):
            ModelOracle(copy)
    table.unlink()
    assert ModelOracle(copy).confusion is None


def test_held_out_images_take_part_in_nothing(tuned: FineTunedEncoder) -> None:
    changed = IMAGES.copy()
    changed[tuned.held_out] = 255 - changed[tuned.held_out]
    other = tune(images=changed)
    assert other.temperature == tuned.temperature
    assert_same_weights(other.model, tuned.model)
    assert np.abs(other.probabilities - tuned.probabilities).max() > 0.01


def assert_same_weights(a: Any, b: Any) -> None:
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)


def test_the_best_epoch_is_kept() -> None:
    """Its weights are those of a training that ends with it."""
    whole = tune(n_epochs=8, learning_rate=5e-2)
    assert whole.log["validation_loss"].idxmin() + 1 == whole.best_epoch < 8
    until = tune(n_epochs=whole.best_epoch, learning_rate=5e-2)
    assert_same_weights(whole.model, until.model)
    assert whole.n_steps == 8 * 4


def test_a_run_that_fails_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    """The images raise in the middle of an epoch; a second run takes the checkpoint."""

    class Failing:
        left = 250

        def __len__(self) -> int:
            return len(IMAGES)

        def __getitem__(self, index: int) -> Any:
            self.left -= 1
            if not self.left:
                raise OSError("the disk is gone")
            return IMAGES[index]

    images = Failing()
    options: dict[str, Any] = {"checkpoint": tmp_path / "state", "checkpoint_every": 3}
    dropout: dict[str, Any] = {"hidden_dropout_prob": 0.3}
    with pytest.raises(OSError, match="the disk is gone"):
        tune(vit(**dropout), images, **options)
    images.left = 10**9
    second = tune(vit(**dropout), images, **options)
    assert second.resumed_at in range(1, second.n_steps)
    uninterrupted = tune(vit(**dropout))
    assert_same_weights(second.model, uninterrupted.model)
    assert second.log.equals(uninterrupted.log)
    np.testing.assert_array_equal(second.probabilities, uninterrupted.probabilities)
    with pytest.raises(ValueError, match=r"comes from another training: learning_rate was 0\.01, is 0\.02"):
        tune(vit(**dropout), images, **options, learning_rate=2e-2)
    with pytest.raises(ValueError, match="comes from another training: images was"):
        tune(vit(**dropout), IMAGES[:, :, ::-1], **options)


def moved(before: Any, after: Any) -> set[str]:
    return {name for name, weight in after.state_dict().items() if not torch.equal(weight, before.state_dict()[name])}


def test_which_weights_are_trained() -> None:
    names = set(vit().state_dict())
    behind = {name for name in names if name.startswith(("vit.layers.1.", "vit.layernorm", "classifier"))}
    assert moved(vit(), tune(n_epochs=1).model) >= behind | {"vit.embeddings.cls_token"}
    assert moved(vit(), tune(n_epochs=1, last_blocks=1).model) <= behind
    assert moved(vit(), tune(n_epochs=1, last_blocks=1).model) >= {"vit.layers.1.mlp.fc1.weight", "classifier.weight"}


def test_lora_is_merged(tmp_path: Path) -> None:
    adapted = tune(n_epochs=2, lora_rank=2)
    assert set(adapted.model.state_dict()) == set(vit().state_dict())
    linear = {name for name, layer in vit().named_modules() if isinstance(layer, torch.nn.Linear)}
    assert moved(vit(), adapted.model) == {f"{name}.weight" for name in linear} | {"classifier.bias"}
    before, after = (model.vit.layers[0].mlp.fc1.weight.detach() for model in (vit(), adapted.model))
    assert torch.linalg.matrix_rank(after - before, atol=1e-5) == 2
    adapted.save(tmp_path / "adapted")
    oracle = ModelOracle(tmp_path / "adapted", device="cpu")
    found = oracle.probabilities(as_pictures(IMAGES[adapted.held_out]))
    assert_allclose(found, adapted.probabilities, atol=1e-5)


@pytest.mark.parametrize("family", ["dinov2", "vit", "convnext"])
def test_a_folder_without_a_head_for_the_groups_gets_one(family: str, tmp_path: Path) -> None:
    """From base models, and from a classifier of two other groups."""
    state = torch.random.get_rng_state()
    model = vision_model(tmp_path, family)
    first, second = (tune(model, n_epochs=1, last_blocks=1) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_same_weights(first.model, second.model)
    first.save(tmp_path / "tuned")
    found = ImageEncoder(tmp_path / "tuned", device="cpu")(IMAGES[:2])
    assert found.shape == (2, 16)
    assert {**first.model.config.id2label} == dict(enumerate(NAMES))


def test_averages_of_batch_normalisation_are_part_of_a_checkpoint_and_of_the_best_epoch(tmp_path: Path) -> None:
    def resnet() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sizes = {"embedding_size": 4, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
            return transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, num_labels=3))

    with pytest.raises(ValueError, match=r"image_size=None .*image processor \(processor\)"):
        tune(resnet())
    processor = transformers.ViTImageProcessorPil(size={"height": 16, "width": 16})
    options: dict[str, Any] = {"processor": processor, "n_epochs": 2, "batch_size": 20}
    checkpoint = {"checkpoint": tmp_path / "state"}
    tune(resnet(), **{**options, "n_epochs": 1}, **checkpoint)
    resumed, whole = tune(resnet(), **options, **checkpoint), tune(resnet(), **options)
    assert resumed.resumed_at == 3
    assert_same_weights(resumed.model, whole.model)


def test_clusters_are_in_one_part() -> None:
    persons = np.arange(len(IMAGES)) // 6
    parts = module._divide(np.arange(len(IMAGES)) % 3, NAMES, [f"person {i}" for i in persons], 5, 0)
    assert sorted(np.concatenate(parts)) == list(range(len(IMAGES)))
    assert sum(len(set(persons[part])) for part in parts) == 15
    with pytest.raises(ValueError, match="clusters are too few or too large"):
        module._divide(np.arange(len(IMAGES)) % 3, NAMES, np.arange(len(IMAGES)) % 2, 5, 0)


def test_images_without_a_group_are_left_out(tuned: FineTunedEncoder) -> None:
    images = np.concatenate([IMAGES, 255 - IMAGES[:10]])
    more = tune(images=images, labels=[*LABELS, *[None] * 10])
    assert_same_weights(more.model, tuned.model)


def test_the_temperature_is_that_of_the_logits() -> None:
    """Outcomes drawn with the probabilities of z; z three times as large needs the temperature 3."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 3)) * 2.0
    drawn = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    assert module._temperature(torch.from_numpy(3.0 * z), drawn) == pytest.approx(3.0, rel=0.1)
    right = torch.eye(2, dtype=torch.float64).repeat(50, 1)
    found = module._temperature(right, np.arange(100) % 2)
    # Platt's targets: 51/52 for the own group, so a difference of log 51 between the outputs, which is 1.
    assert found == pytest.approx(1.0 / np.log(51.0), rel=1e-3)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "both": (lambda: tune(last_blocks=1, lora_rank=1), "last_blocks=1 and lora_rank=1 exclude each other"),
    "blocks": (lambda: tune(last_blocks=3), "last_blocks=3, but the model has 2 blocks"),
    "folds": (lambda: tune(n_folds=2), "n_folds=2 is not an integer of at least 3"),
    "labels": (lambda: tune(labels=LABELS[:5]), r"labels has shape \(5,\), expected one name per sample, \(90,\)"),
    "one group": (lambda: tune(labels=["a"] * 90), "labels has 90 of 'a', expected two groups or more"),
    "few": (lambda: tune(labels=["a"] * 86 + ["b"] * 4), "4 of 'b', expected .* n_folds=5 images each"),
    "outputs": (lambda: tune(vit(2)), "model has num_labels=2 for the 3 groups 'a', 'b', 'c'"),
    "path": (lambda: tune("./none"), r"model=\./none is not a folder here"),
    "preset": (lambda: tune("efficientnet"), "model=efficientnet is not a folder here; pass 'dinov2'"),
    "hub": (lambda: tune("nobody/nothing"), "model=nobody/nothing is not in the local cache"),
    "processor": (lambda: tune("./none", processor=1), "processor is for a model object"),
    "object": (lambda: tune(torch.nn.Linear(1, 1)), "model is Linear, expected a model of transformers"),
    "device": (lambda: tune(device="nonesuch"), "device='nonesuch' cannot be used"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=list(BAD))
def test_refuses(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        call()


def test_a_model_whose_features_are_not_read_back_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no features .*reads back .*\(its weights lack .*such as DINOv2"):
        tune(vision_model(tmp_path, "clip"))


def test_nothing_is_replaced(tuned: FineTunedEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder=.* exists already"):
        tuned.save(tmp_path)


@pytest.mark.slow
def test_the_command_killed_and_started_again_gives_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "digits", 40)
    write_configuration(tmp_path / "vit.json", hidden_size=8, n_layers=1)
    start = ["fine-tune-encoder", f"{tmp_path / 'digits'}", "--model", f"{tmp_path / 'vit.json'}", "--quiet"]
    start += ["--epochs", "32", "--batch-size", "6", "--learning-rate", "1e-2", "--device", "cpu"]
    killed, whole = (tmp_path / "new" / name for name in ("killed", "whole"))
    state = tmp_path / "new" / "killed.checkpoint"
    kill_when(state.exists, [sys.executable, "-m", "egtmetrics", *start, "--out", killed])
    assert not killed.exists()
    printed = []
    for out in (killed, whole):
        assert main([*start, "--out", f"{out}"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "0-4" in printed[0]
    for name in ("held_out.csv", "model.safetensors", "config.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["killed", "whole"]
    assert main([*start, "--out", f"{killed}"]) == 2
    assert "killed exists already; name another one" in capsys.readouterr().err


def test_the_command_takes_clusters_and_refuses_images_without_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "digits", 60)
    write_configuration(tmp_path / "vit.json", hidden_size=8, n_layers=1)
    names = sorted(path.relative_to(tmp_path / "digits").as_posix() for path in (tmp_path / "digits").glob("*/*"))
    rows = [f"{name},{name[:3]},{i // 2}\n" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("".join(["file_name,digit,writer\n", *rows]))
    command = ["fine-tune-encoder", f"{tmp_path / 'digits'}", "--model", f"{tmp_path / 'vit.json'}", "--device", "cpu"]
    command += ["--groups", f"{tmp_path / 'labels.csv'}:digit", "--clusters", f"{tmp_path / 'labels.csv'}:writer"]
    assert main([*command, "--epochs", "1", "--lora-rank", "1", "--out", f"{tmp_path / 'out'}"]) == 0
    captured = capsys.readouterr()
    assert "of 60 images" in captured.err
    assert "held-out images" in captured.out
    assert main([*command[:2], "--model", "dinov2", "--groups", "json", "--out", f"{tmp_path / 'other'}"]) == 2
    assert "has no dataset.json with labels" in capsys.readouterr().err
    flat = [*command[:1], f"{tmp_path / 'digits' / '0-4'}", *command[2:6], "--out", f"{tmp_path / 'other'}"]
    assert main(flat) == 2
    assert "no groups are given; pass --groups" in capsys.readouterr().err
    assert main([*command[:6], "--groups", "oracle:clip", "--out", f"{tmp_path / 'other'}"]) == 2
    assert "--groups oracle:clip errs, which would be learned; pass --groups with known" in capsys.readouterr().err
    assert main([*command, "--last-blocks", "5", "--out", f"{tmp_path / 'other'}"]) == 2
    assert "--last-blocks 5, but the model has 1 blocks" in capsys.readouterr().err
