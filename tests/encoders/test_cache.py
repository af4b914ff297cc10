"""The cache gives back what was put, survives damage and company, and batches shrink only when memory runs out."""

from __future__ import annotations

import hashlib
import io
import itertools
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics.encoders import CacheWarning, ImageEncoder
from egtmetrics.encoders._batches import Batches, Forecast
from egtmetrics.encoders._cache import FeatureCache, content_hash
from tests.encoders._models import corner_network

ROOT = Path(__file__).parents[2]
SETTINGS = {"model": "m", "size": 8}


def features_of(keys: list[bytes], d: int = 3) -> NDArray[np.float32]:
    """Features that say whose they are."""
    return np.stack([np.frombuffer(key[:d], np.uint8).astype(np.float32) for key in keys])


def keys_of(*contents: str) -> list[bytes]:
    return [content_hash(content.encode()) for content in contents]


def opened(folder: Path, settings: dict[str, Any] = SETTINGS) -> FeatureCache:
    cache = FeatureCache(folder, settings)
    cache.refresh()
    return cache


def test_what_was_put_comes_back_bit_for_bit(tmp_path: Path) -> None:
    keys = keys_of("a", "b", "c")
    features = np.array([[np.pi, -0.0], [1e-40, 3.4e38], [1 / 3, 7]], dtype=np.float32)
    FeatureCache(tmp_path, SETTINGS).put(keys, features)
    cache = opened(tmp_path)
    for key, row in zip(keys, features, strict=True):
        found = cache.get(key)
        assert found is not None
        assert found.tobytes() == row.tobytes()
    assert cache.get(content_hash(b"d")) is None


def test_other_settings_share_the_folder_and_nothing_else(tmp_path: Path) -> None:
    keys = keys_of("a")
    opened(tmp_path).put(keys, features_of(keys))
    assert opened(tmp_path, {**SETTINGS, "size": 9}).get(keys[0]) is None
    assert opened(tmp_path, dict(reversed(SETTINGS.items()))).get(keys[0]) is not None


def test_two_at_once_see_what_the_other_has_written(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    one, two = keys_of("a", "b"), keys_of("b", "c")
    first.put(one, features_of(one))
    second.put(two, features_of(two))
    first.refresh()
    second.refresh()
    for cache in (first, second, opened(tmp_path)):
        assert [cache.get(key) is not None for key in keys_of("a", "b", "c", "d")] == [True, True, True, False]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_said_removed_and_computed_again(damage: str, tmp_path: Path) -> None:
    good, bad = keys_of("a", "b"), keys_of("c")
    cache = opened(tmp_path)
    cache.put(good, features_of(good))
    before = set(cache.folder.glob("*.npy"))
    cache.put(bad, features_of(bad))
    (file,) = set(cache.folder.glob("*.npy")) - before
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes({"cut": data[:-9], "flipped": data, "empty": b"", "text": b"no array"}[damage])
    with pytest.warns(CacheWarning, match=f"{file.name} is damaged"):
        again = opened(tmp_path)
    assert not file.exists()
    assert again.get(bad[0]) is None
    assert again.get(good[0]) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.put(bad, features_of(bad))
        assert opened(tmp_path).get(bad[0]) is not None


@pytest.mark.parametrize("content", [np.zeros(3), np.zeros(3, dtype=[("key", "u1", 32)]), "text"])
def test_a_whole_file_of_something_else_is_no_part_of_the_cache(content: Any, tmp_path: Path) -> None:
    folder = opened(tmp_path).folder
    data = io.BytesIO()
    np.save(data, np.array(content))
    file = folder / f"{hashlib.sha256(data.getvalue()).hexdigest()[:32]}.npy"
    file.write_bytes(data.getvalue())
    (folder / "folder.npy").mkdir()
    with pytest.warns(CacheWarning, match=f"{file.name} is damaged"):
        opened(tmp_path)
    assert not file.exists()


WRITE_FOR_EVER = """
import itertools, sys, numpy as np
from egtmetrics.encoders._cache import FeatureCache, content_hash
cache = FeatureCache(sys.argv[1], {"model": "m", "size": 8})
for i in itertools.count(int(sys.argv[2])):
    keys = [content_hash(f"{i // 2}-{j}".encode()) for j in range(50)]
    cache.put(keys, np.stack([np.frombuffer(key[:3], np.uint8).astype(np.float32) for key in keys]))
"""


def test_processes_that_write_the_same_and_are_killed_leave_whole_files(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path), start], cwd=ROOT) for start in "01"
    ]
    try:
        while len(list(cache.folder.glob("*.npy"))) < 20:
            cache.refresh()  # in the midst of it: a damaged file would warn, and warnings are errors here
            assert [writer.poll() for writer in writers] == [None, None]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    cache.refresh()
    for key in keys_of(*(f"{i}-{j}" for i in range(8) for j in range(50))):
        found = cache.get(key)
        assert found is not None
        assert found.tolist() == features_of([key])[0].tolist()


def test_hashes_tell_parts_apart() -> None:
    assert content_hash(b"ab", b"c") != content_hash(b"a", b"bc")
    assert len(content_hash(b"")) == 32


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 9))
def test_batches_halve_until_they_fit_and_stay_there(size: int, n: int, most: int) -> None:
    """A batch of more than ``most`` does not fit: every item is encoded once, in order, in batches that fit."""
    done: list[int] = []
    refused: list[int] = []

    def forward(items: list[int]) -> NDArray[np.float32]:
        if len(items) > most:
            refused.append(len(items))
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        done.extend(items)
        return np.array([[item, 2 * item] for item in items], dtype=np.float32)

    batches = Batches[int](size)
    features = batches.run(forward, list(range(n)))
    assert done == list(range(n))
    assert features.tolist() == [[i, 2 * i] for i in range(n)]
    first = min(size, n)
    halvings = [first >> i for i in range(5)]
    assert refused == [tried for tried in halvings if tried > most]
    refused.clear()
    batches.run(forward, list(range(n)))
    assert refused == []


def test_one_item_that_does_not_fit_is_an_error_with_a_remedy() -> None:
    import torch

    def forward(items: list[int]) -> NDArray[np.float32]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore lines")

    with pytest.raises(MemoryError, match=r"one at a time \(CUDA out of memory\.\); use a smaller model"):
        Batches(4).run(forward, [1, 2, 3])


def test_a_real_lack_of_memory_is_recognised() -> None:
    """torch's allocator is asked for an exabyte, which no machine has."""
    import torch

    def forward(items: list[int]) -> NDArray[np.float32]:
        torch.empty(10**18)
        raise AssertionError

    with pytest.raises(MemoryError, match="does not fit into memory even one at a time"):
        Batches(2).run(forward, [1, 2])


def test_other_errors_pass_through() -> None:
    calls = []

    def forward(items: list[int]) -> NDArray[np.float32]:
        calls.append(len(items))
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        Batches(4).run(forward, [1, 2, 3])
    assert calls == [3]


SECONDS = 12.0
"""Of a batch."""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every batch take as long: a clock is read before and after it."""
    readings = itertools.count(0.0, SECONDS)
    monkeypatch.setattr("egtmetrics.encoders._batches.perf_counter", lambda: next(readings))


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("cached", [False, True])
def test_encoders_say_once_how_long_the_rest_takes_and_what_is_cheaper(
    cached: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    options = {"batch_size": 2, "device": "cpu", "cache": tmp_path / "cache" if cached else None}
    network = corner_network(tmp_path)
    ImageEncoder(network, progress=True, **options)(images)
    (line,) = capsys.readouterr().err.splitlines()
    minutes = round(19 * SECONDS / 60)
    if cached:
        assert line == f"images: the other 38 take at most about {minutes} min; cheaper: a smaller model"
    else:
        assert line.startswith(f"images: the other 38 take about {minutes} min; cheaper: a smaller model, or for other")
        assert line.endswith("a cache (cache=, --cache), or egtmetrics encode once")
    ImageEncoder(network, **options)(images)
    ImageEncoder(network, progress=True, **{**options, "batch_size": 8})(images[:40])  # 48 s more
    assert capsys.readouterr().err == ""


def test_the_fastest_batch_counts_and_work_may_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readings = iter([0.0, 4.0, 10.0, 13.0])  # 4 s with what is loaded, then 3 s
    monkeypatch.setattr("egtmetrics.encoders._batches.perf_counter", lambda: next(readings))
    batches = Batches[str](2, len)
    forecast = Forecast(batches, "text", cached=False, silent=False)
    for texts in (["aaaa", "aa"], ["aaa", "aaa"]):
        forecast.tell(100, 200.0)
        batches.run(lambda batch: np.zeros((len(batch), 1)), texts)
    assert capsys.readouterr().err == ""
    forecast.tell(100, 200.0)
    assert capsys.readouterr().err.startswith("texts: the other 100 take about 2 min")  # 200 at .5 s
