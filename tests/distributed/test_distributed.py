"""Features on several gloo ranks: the numbers of one process, and one error for all where a rank is at fault.

Every start of a process imports torch, so three ranks do all but the test of memory in one life.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch.distributed as dist

from egtmetrics.distributed import RankError, gather_labels, shard_features
from egtmetrics.divergences import knn_ratio_f_divergence
from egtmetrics.groups import GenerativeMetricFrame, ego, mgo
from egtmetrics.metrics import (
    frechet_distance,
    improved_precision_recall,
    kernel_distance,
    p_precision_recall,
    topp_precision_recall,
)
from egtmetrics.ops import select_backend
from egtmetrics.samples import GroupedSamples
from tests._ranks import on_ranks


def _data() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Integers, so that ties abound; group "c" is on the last rank only, and one row is repeated over all ranks."""
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(-4, 5, size=(n, 3)).astype(np.float32) for n in (90, 80))
    real[::11], fake[::9] = real[0], fake[0]
    return real, fake, np.array([*"ab" * 30, *"bcc" * 10]), np.array([*"ab" * 24, *"ccab" * 8])


def _cut(rows: Any, rank: int, size: int) -> Any:
    return rows[[0, 20, 60][rank] : [20, 60, None][rank] if size == 3 else [20, None][rank]]


def _frames(real: Any, fake: Any, real_labels: Any, fake_labels: Any) -> Any:
    samples = GroupedSamples(
        real=real, fake=fake, real_sensitive_features=real_labels, fake_sensitive_features=fake_labels
    )
    frames = [
        GenerativeMetricFrame(metrics="prdc,ipr,cover,clipped", samples=chosen)
        for chosen in (samples, samples.matched(random_state=0))
    ]
    summed = {
        "p_pr": p_precision_recall(real, fake).scores(),
        "fid": frechet_distance(real, fake).scores(),
        "kid": kernel_distance(real, fake, n_subsets=3, subset_size=40, random_state=0).scores(),
        "topp": dataclasses.asdict(topp_precision_recall(real, fake, n_bootstrap=50, random_state=0).per_projection[0]),
    }
    kernels = select_backend("auto", features=(real, fake))
    nn = knn_ratio_f_divergence(real, fake, random_state=0).value
    exact = [table.to_numpy() for frame in frames for table in (frame.by_group, frame.overall)]
    return (
        [
            *exact,
            kernels.kth_neighbor(real, fake, n_neighbors=7),
            kernels.kth_neighbor(real, n_neighbors=25),
            np.array([nn]),
        ],
        summed,
        (mgo(real_labels, fake_labels), ego(real_labels, fake_labels)),
    )


def _sharded_frames(rank: int, size: int, group: Any) -> Any:
    real, fake, real_labels, fake_labels = (_cut(part, rank, size) for part in _data())
    return _frames(
        shard_features(real, "real", group=group),
        shard_features(fake, "fake", group=group),
        gather_labels(real_labels, group=group),
        gather_labels(fake_labels, group=group),
    )


def _groups_of_60() -> list[NDArray[Any]]:
    return [np.random.default_rng(side).normal(size=(120, 3)) for side in range(2)]


def _intervals(real: Any, fake: Any) -> Any:
    labels = ["f", "m"] * 60
    metrics = {
        "ipr": improved_precision_recall,
        "fid": frechet_distance,
        "topp": functools.partial(topp_precision_recall, n_bootstrap=20),
        "kid": functools.partial(kernel_distance, n_subsets=2, subset_size=20),
    }
    frame = GenerativeMetricFrame(
        metrics=metrics, real=real, fake=fake, random_state=0,
        real_sensitive_features=labels, fake_sensitive_features=labels,
    )  # fmt: skip
    found = frame.interval()
    return found.by_group, found.disparities, found.variance, frame.test()


def _unlike_calls(rank: int) -> list[str]:
    bad = np.zeros((3, 2))
    bad[1, 1] = np.nan
    rng = np.random.default_rng(rank)
    calls = [
        lambda: shard_features(np.zeros((3, 2 + (rank == 1))), "real"),
        lambda: shard_features(bad if rank == 1 else np.zeros((3, 2)), "real"),
        lambda: shard_features(np.zeros((0, 2)), "real"),
        lambda: gather_labels({"a" if rank else "b": ["f"]}),
        lambda: topp_precision_recall(
            *[shard_features(rng.normal(size=(30, 2)))] * 2, n_bootstrap=10, random_state=rank
        ),
        lambda: improved_precision_recall(shard_features(np.zeros((5, 2))), np.zeros((5, 2))),
        lambda: np.asarray(shard_features(np.zeros((5, 2)))),
    ]
    return [_error_of(call) for call in calls]


def _error_of(call: Any) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _fail(rank: int) -> None:
    real = shard_features(np.zeros((50, 2)), "real", timeout=1800)
    with real.exchange.step("a test"):
        if rank == 2:
            raise RuntimeError("no room")  # which torch raises for a full memory, and for a lost peer
        real.exchange.total(np.zeros(1))


def life(rank: int, size: int) -> Any:
    """What every rank found, and how long rank 1 was missed in seconds: it dies at the end."""
    pair = dist.new_group([0, 1])
    found = {
        3: _sharded_frames(rank, 3, None),
        2: _sharded_frames(rank, 2, pair) if rank < 2 else None,
        "intervals": _intervals(*(shard_features(_cut(rows, rank, size)) for rows in _groups_of_60())),
        "unlike": _unlike_calls(rank),
        "failed": _error_of(lambda: _fail(rank)),
    }
    everyone: list[Any] = [None] * size
    dist.all_gather_object(everyone, found)
    real = shard_features(np.random.default_rng(rank).normal(size=(50, 2)), "real", timeout=1800)
    if rank == 1:
        os._exit(9)
    start = time.monotonic()
    return everyone, _error_of(lambda: improved_precision_recall(real, real)), time.monotonic() - start


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning", "ignore::RuntimeWarning")
def test_ranks_agree_with_one_process_and_name_one_at_fault(tmp_path: Path) -> None:
    first, dead, last = on_ranks(life, 3, tmp_path)
    for survivor in (first, last):
        assert not isinstance(survivor, Exception), survivor
    assert dead is None
    everyone = first[0]
    for size in (2, 3):
        _check_frames([found[size] for found in everyone[:size]])
    for found in everyone:
        for table, wanted in zip(found["intervals"], _intervals(*_groups_of_60()), strict=True):
            pd.testing.assert_frame_equal(table, wanted, rtol=1e-4, atol=1e-6)
    _check_unlike_calls([found["unlike"] for found in everyone])
    assert everyone[2]["failed"] == "RuntimeError: no room"
    for found in everyone[:2]:
        assert found["failed"].startswith("RankError: rank 2 failed with RuntimeError: no room")
    for _, error, seconds in (first, last):
        assert error.startswith(f"{RankError.__name__}: rank 1 ended or hangs")
        assert seconds < 900  # well before the timeout, also on a busy machine


def _check_frames(outcomes: list[Any]) -> None:
    expected = _frames(*_data())
    for exact, summed, proportions in outcomes:
        for found, wanted in zip(exact, expected[0], strict=True):
            np.testing.assert_array_equal(found, wanted)
        for metric, scores in expected[1].items():
            for name, value in scores.items():
                assert summed[metric][name] == pytest.approx(value, rel=1e-5, abs=2e-7), (metric, name)
        assert proportions == expected[2]
        assert str(summed) == str(outcomes[0][1])  # every rank has the same bits


def _check_unlike_calls(outcomes: list[list[str]]) -> None:
    assert outcomes[0] == outcomes[1] == outcomes[2]
    for error, words in zip(
        outcomes[0],
        [
            "ValueError: real has different numbers of features: 2 on rank 0, 3 on rank 1, 2 on rank 2",
            "ValueError: rank 1 of 3: real holds NaN",
            "ValueError: real is empty: no rank",
            "ValueError: the labels have different features: ['b'] on rank 0, ['a'] on rank 1, ['a'] on rank 2",
            "ValueError: the ranks call different things: rank 0 kernel_density_band",
            "TypeError: one set of features is spread over ranks",
            "TypeError: these features are spread over ranks",
        ],
        strict=True,
    ):
        assert error.startswith(words), error


def _tall(rank: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(rank)
    return rng.normal(size=(1000, 2000)).astype(np.float32), rng.normal(size=(1000, 2000)).astype(np.float32)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def memory(rank: int, size: int) -> Any:
    real, fake = (shard_features(rows) for rows in _tall(rank))
    small = shard_features(np.random.default_rng(rank).normal(size=(50, 8)))
    improved_precision_recall(small, small, n_threads=1)  # loads what is loaded once

    def peak(call: Any) -> tuple[float, Any]:
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        value = call()
        return (_resident("VmHWM") - before) / real.local.nbytes, value

    def walk() -> float:
        with real.exchange.step("a walk"):
            return sum(float(tile.sum()) for _, tile in real.exchange.tiles(real.local, real.counts))

    return peak(walk), peak(lambda: improved_precision_recall(real, fake, n_threads=1).scores())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to see the peak of memory")
def test_no_rank_holds_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its own rows a rank holds two shards, and the kernels' panels: here as much as one and a half more.

    Where the processor multiplies bytes, panels of floats give way to copies in bytes, a quarter of the rows.

    The rows of the other ranks would be three shards of either set. With four ranks buffers are used again, too.
    """
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")  # what is freed is given back
    everything = [np.concatenate(parts) for parts in zip(*map(_tall, range(4)), strict=True)]
    for (walked, total), (held, scores) in on_ranks(memory, 4, tmp_path):
        assert 1.9 < walked < 2.2
        assert 2.2 < held < 4.0
        assert total == pytest.approx(float(everything[0].sum(dtype=np.float64)), abs=1.0)
        assert scores == improved_precision_recall(*everything).scores()
