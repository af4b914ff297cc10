"""Features on two and three gloo ranks: the numbers of one process, and one error for all where a rank is at fault."""

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

from egtmetrics import (
    GenerativeMetricFrame,
    clipped_density_coverage,
    ego,
    frechet_distance,
    improved_precision_recall,
    kernel_distance,
    knn_ratio_f_divergence,
    mgo,
    p_precision_recall,
    precision_recall_cover,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics.distributed import RankError, gather_labels, shard_features
from egtmetrics.ops import select_backend
from tests._ranks import on_ranks


def _data() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Integers, so that ties abound; group "c" is on the last rank only, and one row is repeated over all ranks."""
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(-4, 5, size=(n, 3)).astype(np.float32) for n in (90, 80))
    real[::11], fake[::9] = real[0], fake[0]
    return real, fake, np.array([*"ab" * 30, *"bcc" * 10]), np.array([*"ab" * 24, *"ccab" * 8])


def _cut(rows: Any, rank: int, size: int) -> Any:
    return rows[[0, 20, 60][rank] : [20, 60, None][rank] if size == 3 else [20, None][rank]]


EXACT = {
    "prdc": precision_recall_density_coverage,
    "ipr": improved_precision_recall,
    "cover": precision_recall_cover,
    "clipped": clipped_density_coverage,
}


def _frames(real: Any, fake: Any, real_labels: Any, fake_labels: Any) -> Any:
    exact = GenerativeMetricFrame(
        metrics=EXACT, real=real, fake=fake, real_sensitive_features=real_labels, fake_sensitive_features=fake_labels
    )
    summed = {
        "p_pr": p_precision_recall(real, fake).scores(),
        "fid": frechet_distance(real, fake).scores(),
        "kid": kernel_distance(real, fake, n_subsets=3, subset_size=40, random_state=0).scores(),
        "topp": dataclasses.asdict(topp_precision_recall(real, fake, n_bootstrap=50, random_state=0).per_projection[0]),
    }
    kernels = select_backend("auto", features=(real, fake))
    nn = knn_ratio_f_divergence(real, fake, random_state=0).value
    return (
        exact.by_group.to_numpy(),
        exact.overall.to_numpy(),
        (
            kernels.kth_neighbor(real, fake, n_neighbors=7),
            kernels.kth_neighbor(real, n_neighbors=25),
            np.array([nn]),
        ),
        summed,
        (mgo(real_labels, fake_labels), ego(fake_labels)),
    )


def everything(rank: int, size: int) -> Any:
    real, fake, real_labels, fake_labels = _data()
    return _frames(
        shard_features(_cut(real, rank, size), "real"),
        shard_features(_cut(fake, rank, size), "fake"),
        gather_labels(_cut(real_labels, rank, size)),
        gather_labels(_cut(fake_labels, rank, size)),
    )


@pytest.mark.filterwarnings("ignore::egtmetrics.groups._evaluation.GroupSizeWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("size", [2, 3])
def test_as_in_one_process(size: int, tmp_path: Path) -> None:
    outcomes = on_ranks(everything, size, tmp_path)
    expected = _frames(*_data())
    for outcome in outcomes:
        assert not isinstance(outcome, Exception), outcome
        np.testing.assert_array_equal(outcome[0], expected[0])
        np.testing.assert_array_equal(outcome[1], expected[1])
        for found, wanted in zip(outcome[2], expected[2], strict=True):
            np.testing.assert_array_equal(found, wanted)
        for metric, scores in expected[3].items():
            for name, value in scores.items():
                assert outcome[3][metric][name] == pytest.approx(value, rel=1e-5, abs=2e-7), (metric, name)
        assert outcome[4] == expected[4]
        assert str(outcome[3]) == str(outcomes[0][3])  # every rank has the same bits


def dies(rank: int, size: int) -> Any:
    real = shard_features(np.random.default_rng(rank).normal(size=(50, 2)), "real", timeout=60)
    if rank == 1:
        os._exit(9)
    start = time.monotonic()
    with pytest.raises(RankError, match="rank 1 ended or stands still"):
        improved_precision_recall(real, real)
    return time.monotonic() - start


def test_a_rank_that_dies_is_named(tmp_path: Path) -> None:
    first, dead, last = on_ranks(dies, 3, tmp_path)
    assert dead is None
    assert max(first, last) < 45  # seconds: well before the timeout


def fails(rank: int, size: int) -> Any:
    real = shard_features(np.zeros((50, 2)), "real", timeout=60)
    with real.exchange.step("a test"):
        if rank == 2:
            raise RuntimeError("no room")  # what torch raises then, and for a lost peer, too
        real.exchange.total(np.zeros(1))


def test_a_rank_that_fails_is_named(tmp_path: Path) -> None:
    outcomes = on_ranks(fails, 3, tmp_path)
    assert str(outcomes[2]) == "RuntimeError: no room"
    for outcome in outcomes[:2]:
        assert "RankError: rank 2 failed with RuntimeError: no room" in str(outcome)


def unlike(rank: int, size: int) -> Any:
    errors = []
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
    for call in calls:
        try:
            call()
            errors.append("nothing")
        except (TypeError, ValueError) as error:
            errors.append(f"{type(error).__name__}: {error}")
    return errors


def test_unlike_ranks_get_one_error(tmp_path: Path) -> None:
    outcomes = on_ranks(unlike, 2, tmp_path)
    assert outcomes[0] == outcomes[1]
    for error, words in zip(
        outcomes[0],
        [
            "ValueError: real has different numbers of features: 2 on rank 0, 3 on rank 1",
            "ValueError: rank 1 of 2: real holds NaN",
            "ValueError: real is empty: no rank",
            "ValueError: the labels have different features: ['b'] on rank 0, ['a'] on rank 1",
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


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to see the peak of memory")
def test_no_rank_holds_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its own rows a rank holds two shards, and the kernels' panels, here as much as one and a half more.

    The rows of the other ranks would be three shards of either set. With four ranks buffers are used again, too.
    """
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")  # what is freed is given back
    everything = [np.concatenate(parts) for parts in zip(*map(_tall, range(4)), strict=True)]
    for (walked, total), (held, scores) in on_ranks(memory, 4, tmp_path):
        assert 1.9 < walked < 2.2
        assert 3.0 < held < 4.0
        assert total == pytest.approx(float(everything[0].sum(dtype=np.float64)), abs=1.0)
        assert scores == improved_precision_recall(*everything).scores()


def intervals(rank: int, size: int) -> Any:
    return _intervals(*(shard_features(_cut(rows, rank, size)) for rows in _groups_of_60()))


def _groups_of_60() -> list[NDArray[Any]]:
    return [np.random.default_rng(side).normal(size=(120, 3)) for side in range(2)]


def _intervals(real: Any, fake: Any) -> Any:
    labels = ["f", "m"] * 60
    frame = GenerativeMetricFrame(
        metrics={"ipr": improved_precision_recall, "fid": frechet_distance, "topp": TOPP, "kid": KID},
        real=real, fake=fake, real_sensitive_features=labels, fake_sensitive_features=labels, random_state=0,
    )  # fmt: skip
    found = frame.interval()
    return found.by_group, found.disparities, found.variance, frame.test()


TOPP = functools.partial(topp_precision_recall, n_bootstrap=20)
KID = functools.partial(kernel_distance, n_subsets=2, subset_size=20)


def test_intervals_and_tests_are_those_of_one_process(tmp_path: Path) -> None:
    expected = _intervals(*_groups_of_60())
    for outcome in on_ranks(intervals, 2, tmp_path):
        assert not isinstance(outcome, Exception), outcome
        for found, wanted in zip(outcome, expected, strict=True):
            pd.testing.assert_frame_equal(found, wanted, rtol=1e-4, atol=1e-6)
