"""Streaming equals batch, to the last bit, however the rows come; what does not fit is refused whole."""

from __future__ import annotations

import functools
import gc
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics import GenerativeMetricFrame, Reference, _mapped, frechet_distance, precision_recall_density_coverage
from egtmetrics.groups import permutation_test_frames
from egtmetrics.labels import MissingLabelWarning
from egtmetrics.streaming import GenerativeMetricStream
from egtmetrics.streaming import stream as stream_module
from tests.strategies import GroupedSamples, grouped_samples

PRDC = functools.partial(precision_recall_density_coverage, n_neighbors=1)
pytestmark = [
    pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning"),
    pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning"),  # of Fréchet distances of few rows
]


def first_row(real: Any, fake: Any) -> float:
    """Depends on nothing but the order of the rows."""
    return float(real[0].sum() + 100.0 * fake[0].sum())


METRICS: Any = {"prdc": PRDC, "fid": frechet_distance, "first": first_row}


def stream_of(**options: Any) -> GenerativeMetricStream:
    return GenerativeMetricStream(**{"metrics": METRICS, "random_state": 0, **options})


def feed(stream: GenerativeMetricStream, data: GroupedSamples, side: str, rows: Any) -> None:
    if len(rows):
        features, groups = getattr(data, side), getattr(data, f"{side}_groups")
        stream.update(features[rows], real=side == "real", sensitive_features=groups[rows])


def whole(data: GroupedSamples, **options: Any) -> GenerativeMetricStream:
    stream = stream_of(**options)
    for side in ("real", "fake"):
        feed(stream, data, side, np.arange(len(getattr(data, side))))
    return stream


def split(draw: Any, rows: Any, n: int) -> list[Any]:
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), min_size=n - 1, max_size=n - 1)))
    return np.split(rows, cuts)


def data_of(n: int = 40, seed: int = 0) -> GroupedSamples:
    rng = np.random.default_rng(seed)
    groups = np.tile(np.arange(2), n // 2)
    return GroupedSamples(rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), groups, groups.copy())


class TestStreamingEqualsBatch:
    @settings(max_examples=40)
    @given(grouped_samples(), st.data())
    def test_for_any_split_over_streams_and_any_merge_order(self, data: GroupedSamples, more: st.DataObject) -> None:
        n_streams = more.draw(st.integers(1, 4))
        streams = [stream_of() for _ in range(n_streams)]
        for side in ("real", "fake"):
            rows = np.array(more.draw(st.permutations(range(len(getattr(data, side))))))
            for stream, part in zip(streams, split(more.draw, rows, n_streams), strict=True):
                for block in split(more.draw, part, 3):
                    feed(stream, data, side, block)
        while len(streams) > 1:
            other = streams.pop(more.draw(st.integers(0, len(streams) - 1)))
            streams[more.draw(st.integers(0, len(streams) - 1))].merge(other)
        streamed = streams[0].compute()
        assert streamed.to_dict() == whole(data).compute().to_dict()
        batch = GenerativeMetricFrame(
            metrics=METRICS, real=data.real, fake=data.fake, random_state=0,
            real_sensitive_features=data.real_groups, fake_sensitive_features=data.fake_groups,
        )  # fmt: skip
        prdc = ["prdc_precision", "prdc_recall", "prdc_density", "prdc_coverage"]
        pd.testing.assert_frame_equal(streamed.by_group[prdc], batch.by_group[prdc], check_exact=True)
        pd.testing.assert_frame_equal(streamed.group_counts, batch.group_counts, check_exact=True)
        np.testing.assert_allclose(streamed.by_group["fid"], batch.by_group["fid"], rtol=1e-6, atol=1e-6)

    @settings(max_examples=40)
    @given(grouped_samples(), st.data())
    def test_with_a_reservoir_for_any_cut_into_updates_and_any_merge_order(
        self, data: GroupedSamples, more: st.DataObject
    ) -> None:
        limit = more.draw(st.integers(2, 5))
        shards = {side: split(more.draw, np.arange(len(getattr(data, side))), 3) for side in ("real", "fake")}

        def shard(i: int, n_cuts: int) -> GenerativeMetricStream:
            stream = stream_of(max_samples=limit)
            for side, rows in shards.items():
                for block in split(more.draw, rows[i], n_cuts):
                    feed(stream, data, side, block)
            return stream

        merged = []
        for order in ([0, 1, 2], more.draw(st.permutations([0, 1, 2]))):
            first, second, third = (shard(i, more.draw(st.integers(1, 4))) for i in order)
            if more.draw(st.booleans()):
                first.merge(second)
                first.merge(third)
            else:
                second.merge(third)
                first.merge(second)
            merged.append(first.compute())
        assert merged[0].to_dict() == merged[1].to_dict()
        counts = [np.bincount(data.real_groups), np.bincount(data.fake_groups)]
        assert merged[0].group_counts[["n_real", "n_fake"]].to_numpy().T.tolist() == [c.tolist() for c in counts]

    def test_what_was_passed_may_change_afterwards(self) -> None:
        data = data_of()
        expected = whole(data).compute().to_dict()
        stream = whole(data)
        data.real[:] = 0.0
        assert stream.compute().to_dict() == expected


def test_takes_names_of_metrics() -> None:
    data = data_of()
    named = whole(data, metrics="prdc,fid")
    functions = whole(data, metrics={"prdc": precision_recall_density_coverage, "fid": frechet_distance})
    assert named.compute().to_dict() == functions.compute().to_dict()
    with pytest.raises(ValueError, match=r"metric 'fdi' is unknown; choose from .*fid"):
        stream_of(metrics=["fdi"])


class TestReservoir:
    def test_is_a_uniform_sample_copies_included(self) -> None:
        """Rows of value 1 are 60 of 100, all equal: the mean of the sample has the hypergeometric moments.

        400 seeds; the mean is within 4 standard errors (a false alarm in 16000), the variance within 35 % (5 of its
        standard errors).
        """
        values = np.r_[np.ones(60), np.zeros(20), -np.ones(20)][:, None]
        n, limit = 100, 20
        means = []
        for seed in range(400):
            stream = stream_of(metrics=lambda real, fake: float(real.mean()), random_state=seed, max_samples=limit)
            for rows in np.array_split(values, 7):
                stream.update(rows, real=True, sensitive_features=["a"] * len(rows))
            rows, _ = stream._rows["real"]["a",].kept()
            assert len(rows) == limit
            means.append(rows.mean())
        variance = values.var(ddof=1) / limit * (1 - limit / n)
        assert abs(np.mean(means) - values.mean()) < 4 * np.sqrt(variance / 400)
        assert 0.65 < np.var(means) / variance < 1.35

    def test_the_two_sides_are_drawn_apart(self) -> None:
        """Of 200 rows that are the same on both sides 20 are kept on each: 2 in common on average, 8 or more never.

        The hypergeometric chance of 8 or more is 1e-4.
        """
        stream = stream_of(max_samples=20)
        for real in (True, False):
            stream.update(np.arange(200.0)[:, None], real=real, sensitive_features=["a"] * 200)
        real_kept, fake_kept = (stream._rows[side]["a",].kept()[0] for side in ("real", "fake"))
        assert len(np.intersect1d(real_kept, fake_kept)) < 8

    def test_overall_keeps_the_proportions_of_all_rows(self) -> None:
        """Of 1000 rows 900 are 0 and 100 are 1, in two groups; 200 a group are kept, the overall means are near 0.1.

        Its standard deviation is 0.019; 5 of them either way. The mean of all kept rows would be 1/3.
        """
        means: Any = {"real": lambda real, fake: float(real.mean()), "fake": lambda real, fake: float(fake.mean())}
        stream = stream_of(metrics=means, max_samples=200)
        labels = np.repeat(["a", "b"], [900, 100])
        for real in (True, False):
            stream.update((labels == "b").astype(float)[:, None], real=real, sensitive_features=labels)
        frame = stream.compute()
        assert (abs(frame.overall - 0.1) < 0.095).all()
        assert frame.group_counts["real_proportion"].tolist() == [0.9, 0.1]
        assert frame.settings["max_samples"] == 200
        assert {name: result.n_real for name, result in frame.overall_results.items()} == {"real": 200, "fake": 200}
        assert frame.results["a"]["real"].n_real == 200

    def test_memory_stays_below_twice_the_limit(self) -> None:
        stream = stream_of(max_samples=10)
        for start in range(50):
            rows = np.random.default_rng(start).normal(size=(9, 2))
            stream.update(rows, real=True, sensitive_features=["a"] * 9)
            assert stream._rows["real"]["a",]._n_held < 20

    def test_intervals_are_of_the_rows_that_were_kept_and_those_of_proportions_of_all(self) -> None:
        data = data_of(600)
        frame = whole(data, metrics={"fid": frechet_distance}, max_samples=60).compute()
        kept = frame.samples
        assert kept is not None
        same = GenerativeMetricFrame(
            metrics={"fid": frechet_distance}, real=kept.real, fake=kept.fake, random_state=0,
            real_sensitive_features=kept.groups.real_ids, fake_sensitive_features=kept.groups.fake_ids,
        )  # fmt: skip
        every = whole(data, metrics={"fid": frechet_distance}).compute()
        assert len(kept.real) == 120
        found, of_kept, of_all = (one.interval() for one in (frame, same, every))
        assert found.by_group.to_numpy().tolist() == of_kept.by_group.to_numpy().tolist()
        assert found.disparities.loc["fid"].equals(of_kept.disparities.loc["fid"])
        assert found.disparities.loc["proportions"].equals(of_all.disparities.loc["proportions"])
        needed, of_kept_needed = (one.samples_needed("fid", 0, 1, delta=0.5) for one in (frame, same))
        assert needed == of_kept_needed
        few = whole(data, metrics={"fid": frechet_distance}, max_samples=40).compute()
        with pytest.raises(ValueError, match="has 40 samples on one side, and an interval needs at least 50"):
            few.interval()
        with pytest.raises(ValueError, match="other comes from a stream with max_samples=60"):
            permutation_test_frames(every, frame)

    def test_drops_nothing_up_to_the_limit(self) -> None:
        data = data_of()
        frame = whole(data, max_samples=20).compute()
        assert frame.by_group.equals(whole(data).compute().by_group)
        assert frame.overall.equals(whole(data).compute().overall)


IN_LITTLE_MEMORY = """
import os, resource, sys
import numpy as np
from egtmetrics import GenerativeMetricStream

def mean_gap(real, fake):
    return float(real.mean(dtype=np.float64) - fake.mean(dtype=np.float64))

def filled(n_batches, **options):
    stream, rng = GenerativeMetricStream(metrics=mean_gap, random_state=0, **options), np.random.default_rng(0)
    for batch in range(n_batches):
        for real in (True, False):
            rows = rng.standard_normal((1000, 1000), dtype=np.float32)
            stream.update(rows, real=real, sensitive_features=np.arange(1000) % 10)
    return stream

def scores(stream):
    frame = stream.compute()
    return [*frame.overall, *frame.by_group["mean_gap"]]

scores(filled(1, spill=sys.argv[1]))  # imports what the first call imports
with open("/proc/self/status") as status:  # anonymous memory: pages of a mapped file are not counted
    data = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (1024 * data + (60 << 20), resource.RLIM_INFINITY))
spilled = filled(15, spill=sys.argv[1])  # 120 MB
found = scores(spilled)
try:
    filled(15)
except MemoryError:
    pass
else:
    raise SystemExit("the rows fit into memory, so the limit proves nothing")
resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert found == scores(filled(15)), "not the scores of rows in memory"
os.kill(os.getpid(), 9)
"""


class TestSpill:
    @settings(max_examples=25)
    @given(grouped_samples(), st.data())
    def test_gives_the_frame_of_rows_in_memory_for_any_split_and_merge(
        self, data: GroupedSamples, more: st.DataObject
    ) -> None:
        """Some streams spill and some do not; some batches are of float32, which is widened where others are not."""
        with tempfile.TemporaryDirectory() as folder:
            streams = [stream_of(spill=folder), stream_of(spill=more.draw(st.sampled_from([None, folder])))]
            expected = stream_of()
            for side in ("real", "fake"):
                rows = np.array(more.draw(st.permutations(range(len(getattr(data, side))))))
                for i, block in enumerate(split(more.draw, rows, 4)):
                    narrow = data._replace(**{side: getattr(data, side).astype(np.float32)})
                    batch = more.draw(st.sampled_from([data, narrow]))
                    for stream in (streams[i % 2], expected):
                        feed(stream, batch, side, block)
            streams[0].merge(streams[1])
            frame, in_memory = streams[0].compute(), expected.compute()
            assert frame.to_dict() == in_memory.to_dict()
            assert frame.samples is not None
            assert in_memory.samples is not None
            assert frame.samples.real.dtype == in_memory.samples.real.dtype
            assert os.listdir(folder) == []

    def test_with_blocks_of_a_few_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (_mapped, stream_module):
            monkeypatch.setattr(module, "BLOCK_BYTES", 100)
        data = data_of()
        stream = whole(data._replace(real=data.real.astype(np.float32)), spill=tmp_path)
        feed(stream, data, "real", np.arange(40))
        expected = whole(data._replace(real=data.real.astype(np.float32)))
        feed(expected, data, "real", np.arange(40))
        assert stream.compute().to_dict() == expected.compute().to_dict()

    @pytest.mark.skipif(sys.platform != "linux", reason="limits anonymous memory as Linux counts it")
    def test_needs_little_memory_and_leaves_nothing_when_killed(self, tmp_path: Path) -> None:
        command = [sys.executable, "-W", "error", "-c", IN_LITTLE_MEMORY, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -9, done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_leaves_everything_as_it_was(self, tmp_path: Path) -> None:
        """Group 0 is written before group 1 finds no room; float32 rows are where float64 ones would widen them."""
        resource = pytest.importorskip("resource")
        data = data_of()
        data = data._replace(real=data.real.astype(np.float32))
        stream, expected = whole(data, spill=tmp_path), whole(data).compute().to_dict()
        rows, labels = np.ones((300, 2), np.float32), np.repeat([0, 1, 2], [1, 297, 2])
        large, wide, empty = stream_of(), stream_of(spill=tmp_path), stream_of(spill=tmp_path)
        large.update(rows, real=True, sensitive_features=labels)
        wide.update(rows[:200], real=True, sensitive_features=[0] * 200)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # bytes; beyond them a write fails
        try:
            for fill, n_rows in (
                (lambda: stream.update(rows, real=True, sensitive_features=labels), 297),
                (lambda: stream.merge(large), 297),
                (lambda: stream.load_state_dict(large.state_dict()), 297),
                (lambda: wide.update(data.fake[:1], real=True, sensitive_features=[0]), 200),
                (lambda: empty.update(rows, real=True, sensitive_features=labels), 297),
            ):
                with pytest.raises(OSError, match=f"no room for {n_rows} more rows in the folder of spill") as caught:
                    fill()
                assert caught.value.filename == str(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.fstat(stream._rows["real"][1,]._file.fileno()).st_size == 20 * 2 * 4  # what was written is given back
        assert stream.compute().to_dict() == expected
        stream.update(rows, real=True, sensitive_features=labels)
        stream.update(data.fake[:2], real=False, sensitive_features=[2, 2])
        assert stream.compute().group_counts["n_real"].tolist() == [21, 317, 2]
        empty.update(np.ones((2, 7)), real=True, sensitive_features=["other", "labels"])
        wide.update(data.fake[:1], real=True, sensitive_features=[0])
        kept, _ = wide._rows["real"][0,].kept()
        np.testing.assert_array_equal(kept, np.concatenate([rows[:200], data.fake[:1]]))

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to see open files")
    def test_reset_frees_the_disk(self, tmp_path: Path) -> None:
        def n_open() -> int:
            targets = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
            mapped = Path("/proc/self/maps").read_text().count(str(tmp_path))
            return sum(target.startswith(str(tmp_path)) for target in targets) + mapped

        stream = whole(data_of(), spill=tmp_path)
        assert n_open() == 4  # two groups on two sides
        frame = stream.compute()
        assert n_open() > 4
        del frame
        gc.collect()
        stream.reset(keep_real=True)
        assert n_open() == 2
        stream.reset()
        assert n_open() == 0

    def test_refuses_bad_options(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"max_samples=3 and spill='.*' both limit memory"):
            stream_of(max_samples=3, spill=tmp_path)
        with pytest.raises(OSError, match="missing"):
            stream_of(spill=tmp_path / "missing")


class TestState:
    @pytest.mark.parametrize("options", [{}, {"max_samples": 5}, {"spill": "."}])
    def test_survives_a_checkpoint(self, options: dict[str, Any]) -> None:
        data = data_of()
        expected = whole(data, **options).compute().to_dict()
        half = stream_of(**options)
        feed(half, data, "real", np.arange(40))
        feed(half, data, "fake", np.arange(17))
        loaded = stream_of(**options)
        loaded.load_state_dict(pickle.loads(pickle.dumps(half.state_dict())))
        for stream in (pickle.loads(pickle.dumps(half)), loaded):
            feed(stream, data, "fake", np.arange(17, 40))
            assert stream.compute().to_dict() == expected

    def test_reset(self) -> None:
        data, stream = data_of(), whole(data_of(seed=1))
        expected = whole(data_of(seed=1)._replace(fake=data.fake)).compute().to_dict()
        stream.reset(keep_real=True)
        with pytest.raises(ValueError, match="n_features=7 where there was 2"):  # as the real ones have
            stream.update(np.ones((2, 7)), real=False, sensitive_features=[0, 1])
        feed(stream, data, "fake", np.arange(40))
        assert stream.compute().to_dict() == expected
        stream.reset()
        with pytest.raises(ValueError, match="no real samples were added"):
            stream.compute()
        stream.update(np.ones((2, 7)), real=True, sensitive_features=["x", "y"])  # another encoder, other labels


class TestRefusals:
    @pytest.mark.parametrize(
        ("features", "labels", "message"),
        [
            (np.ones((2, 3)), [0, 1], "n_features=3 where there was 2"),
            ([[1.0, np.nan], [1.0, 2.0]], [0, 1], "NaN or infinity"),
            (np.ones((2, 2)), ["a", "b"], "label_types=str where there was number before; convert"),
            (np.ones((2, 2)), [0, "b"], "mixes labels of the types int, str"),
            (np.ones((2, 2)), [0], "for 2 samples"),
            (np.ones((2, 2)), {"age": [0, 1]}, "sensitive_features=.*age"),
            (np.ones((2, 2)), [{}, {}], "hashed or ordered|label_types"),
        ],
    )
    def test_of_an_update_leave_everything_as_it_was(self, features: Any, labels: Any, message: str) -> None:
        stream = whole(data_of())
        before = pickle.dumps(stream.state_dict())
        with pytest.raises((ValueError, TypeError), match=message):
            stream.update(features, real=True, sensitive_features=labels)
        assert pickle.dumps(stream.state_dict()) == before

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"random_state": 1}, "random_state is 1 there and 0 here"),
            ({"max_samples": 3}, "max_samples is 3 there and None here"),
            ({"metrics": PRDC}, "metrics is"),
            ({"missing_groups": "nan"}, "missing_groups is 'nan' there"),
        ],
    )
    def test_of_a_merge(self, options: dict[str, Any], message: str) -> None:
        stream, other = whole(data_of()), whole(data_of(), **options)
        before = pickle.dumps(stream.state_dict())
        with pytest.raises(ValueError, match=message):
            stream.merge(other)
        with pytest.raises(ValueError, match=message):
            stream.load_state_dict(other.state_dict())
        assert pickle.dumps(stream.state_dict()) == before

    def test_of_a_merge_of_other_features_or_itself(self) -> None:
        stream, other = whole(data_of()), stream_of()
        other.update(np.ones((2, 5)), real=True, sensitive_features=[0, 1])
        with pytest.raises(ValueError, match="other has n_features=5 where there was 2"):
            stream.merge(other)
        with pytest.raises(ValueError, match="itself"):
            stream.merge(stream)


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (np.empty((0, 2)), []),
        ([], []),
        (np.empty(0), np.empty(0, dtype=int)),
        (pd.DataFrame(np.empty((0, 2))), pd.Series([])),
    ],
)
def test_a_batch_without_rows_changes_nothing(features: Any, labels: Any) -> None:
    empty = stream_of()
    empty.update(features, real=True, sensitive_features=labels)
    empty.update(np.ones((2, 9)), real=True, sensitive_features=["x", "y"])  # no width, no type of labels was kept
    stream = whole(data_of())
    stream.update(features, real=False, sensitive_features=labels)
    assert stream.compute().to_dict() == whole(data_of()).compute().to_dict()


def test_an_empty_batch_of_another_width_is_refused() -> None:
    stream = whole(data_of())
    with pytest.raises(ValueError, match="this update has n_features=3 where there was 2 before"):
        stream.update(np.empty((0, 3)), real=True, sensitive_features=[])
    with pytest.raises(ValueError, match=r"has the shape \(1,\) in 'group' for 0 samples"):
        stream.update(np.empty((0, 2)), real=True, sensitive_features=[1])


def test_labels_held_in_other_ways_are_the_same_labels() -> None:
    """NumPy holds the integers of a batch with a missing label as floats."""
    torch = pytest.importorskip("torch")
    data = data_of()
    frames = []
    for held in (
        np.asarray,
        lambda x: [float(i) for i in x],
        lambda x: list(torch.tensor(x)),
        lambda x: pd.array(x, dtype="Int64"),
    ):
        stream = stream_of()
        for side in ("real", "fake"):
            labels = getattr(data, f"{side}_groups")
            stream.update(getattr(data, side)[:20], real=side == "real", sensitive_features=held(labels[:20]))
            stream.update(getattr(data, side)[20:], real=side == "real", sensitive_features=labels[20:])
        frames.append(stream.compute().to_dict())
    assert frames[1:] == frames[:1] * 3


def test_a_stream_warns_once_of_every_word_for_a_missing_label() -> None:
    stream = stream_of()
    with pytest.warns(MissingLabelWarning, match=r"'NA' \(1 row\)"):
        stream.update(np.ones((3, 2)), real=True, sensitive_features=["f", "NA", "m"])
    stream.update(np.ones((3, 2)), real=True, sensitive_features=["f", "NA", "m"])


def test_rows_in_no_group_count_overall_only() -> None:
    data = data_of()
    stream = whole(data)
    stream.update(np.full((3, 2), -9.0), real=True, sensitive_features=[None] * 3)
    frame = stream.compute()
    assert frame.unassigned == {"real": 3, "fake": 0}
    assert frame.by_group.equals(whole(data).compute().by_group)
    assert frame.overall["fid"] != whole(data).compute().overall["fid"]
    sampled = whole(data, max_samples=2)
    sampled.update(np.full((3, 2), -9.0), real=True, sensitive_features=[None] * 3)
    assert sampled.compute().unassigned == {"real": 3, "fake": 0}  # seen, of which two are kept


@pytest.mark.parametrize("max_samples", [None, 20])
def test_a_reference_takes_the_place_of_real_rows(max_samples: int | None) -> None:
    rng = np.random.default_rng(0)
    real, fake, labels = rng.normal(size=(60, 3)), rng.normal(size=(80, 3)), ["f", "m"] * 40
    metrics = {"prdc": PRDC, "fid": frechet_distance}
    reference = Reference(real, sensitive_features=labels[:60])
    options: dict[str, Any] = {"metrics": metrics, "random_state": 0, "max_samples": max_samples}
    stream, parts = (GenerativeMetricStream(reference=reference, **options) for _ in range(2))
    assert stream._reference is parts._reference  # sorted once
    stream.update(fake[:30], real=False, sensitive_features=labels[:30])
    parts.update(fake[30:], real=False, sensitive_features=labels[30:])
    stream.merge(parts)
    found = stream.compute()
    ordered = GenerativeMetricStream(metrics=metrics, random_state=0)
    ordered.update(real, real=True, sensitive_features=labels[:60])
    ordered.update(fake, real=False, sensitive_features=labels)
    expected = ordered.compute()
    if max_samples is None:
        pd.testing.assert_frame_equal(found.by_group, expected.by_group, check_exact=True)
        assert found.overall.equals(expected.overall)
    assert found.group_counts.equals(expected.group_counts)
    assert found.unassigned == expected.unassigned
    assert found.samples is not None
    assert len(found.samples.real) == 60
    stream.reset()
    with pytest.raises(ValueError, match="no fake samples were added"):
        stream.compute()
    with pytest.raises(ValueError, match="those of its reference"):
        stream.update(real, real=True, sensitive_features=labels[:60])
    with pytest.raises(ValueError, match="this update has n_features=2 where there was 3 before"):
        stream.update(fake[:, :2], real=False, sensitive_features=labels)
    with pytest.raises(ValueError, match="reference is"):
        stream.merge(ordered)
    with pytest.raises(TypeError, match="reference is ndarray, expected a Reference"):
        GenerativeMetricStream(metrics="fid", reference=real)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reference has no labels"):
        GenerativeMetricStream(metrics="fid", reference=Reference(real))
