"""Streaming equals batch, to the last bit, however the rows come; what does not fit is refused whole."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics import GenerativeMetricFrame, frechet_distance, precision_recall_density_coverage
from egtmetrics.streaming import GenerativeMetricStream, fairlearn_metric, flat_scores, pair_by_group
from tests.strategies import GroupedSamples, grouped_samples

PRDC = functools.partial(precision_recall_density_coverage, n_neighbors=1)
pytestmark = pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")


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

    def test_overall_keeps_the_proportions_of_all_rows(self) -> None:
        """Of 1000 rows 900 are 0 and 100 are 1, in two groups; 200 a group are kept, the overall mean is near 0.1.

        Its standard deviation is 0.019; 5 of them either way. The mean of all kept rows would be 1/3.
        """
        stream = stream_of(metrics=lambda real, fake: float(real.mean()), max_samples=200)
        labels = np.repeat(["a", "b"], [900, 100])
        for real in (True, False):
            stream.update((labels == "b").astype(float)[:, None], real=real, sensitive_features=labels)
        frame = stream.compute()
        assert abs(frame.overall.iloc[0] - 0.1) < 0.095
        assert frame.group_counts["real_proportion"].tolist() == [0.9, 0.1]
        assert frame.settings["max_samples"] == 200

    def test_memory_stays_below_twice_the_limit(self) -> None:
        stream = stream_of(max_samples=10)
        for start in range(50):
            rows = np.random.default_rng(start).normal(size=(9, 2))
            stream.update(rows, real=True, sensitive_features=["a"] * 9)
            assert stream._rows["real"]["a",]._n_held < 20

    def test_drops_nothing_up_to_the_limit(self) -> None:
        data = data_of()
        frame = whole(data, max_samples=20).compute()
        assert frame.by_group.equals(whole(data).compute().by_group)
        assert frame.overall.equals(whole(data).compute().overall)


class TestState:
    @pytest.mark.parametrize("limit", [None, 5])
    def test_survives_a_checkpoint(self, limit: int | None) -> None:
        data = data_of()
        expected = whole(data, max_samples=limit).compute().to_dict()
        half = stream_of(max_samples=limit)
        feed(half, data, "real", np.arange(40))
        feed(half, data, "fake", np.arange(17))
        loaded = stream_of(max_samples=limit)
        loaded.load_state_dict(pickle.loads(pickle.dumps(half.state_dict())))
        for stream in (pickle.loads(pickle.dumps(half)), loaded):
            feed(stream, data, "fake", np.arange(17, 40))
            assert stream.compute().to_dict() == expected

    def test_reset(self) -> None:
        data, stream = data_of(), whole(data_of(seed=1))
        expected = whole(data_of(seed=1)._replace(fake=data.fake)).compute().to_dict()
        stream.reset(keep_real=True)
        feed(stream, data, "fake", np.arange(40))
        assert stream.compute().to_dict() == expected
        stream.reset()
        with pytest.raises(ValueError, match="no real samples have come in"):
            stream.compute()
        stream.update(np.ones((2, 7)), real=True, sensitive_features=["x", "y"])  # another encoder, other labels


class TestRefusals:
    @pytest.mark.parametrize(
        ("features", "labels", "message"),
        [
            (np.ones((2, 3)), [0, 1], "n_features=3 where there was 2"),
            ([[1.0, np.nan], [1.0, 2.0]], [0, 1], "NaN or infinity"),
            (np.ones((2, 2)), ["a", "b"], "label_types=.*str.*int"),
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


def test_rows_in_no_group_count_overall_only() -> None:
    data = data_of()
    stream = whole(data)
    stream.update(np.full((3, 2), -9.0), real=True, sensitive_features=[None] * 3)
    frame = stream.compute()
    assert frame.unassigned == {"real": 3, "fake": 0}
    assert frame.by_group.equals(whole(data).compute().by_group)
    assert frame.overall["fid"] != whole(data).compute().overall["fid"]


class TestFlatScores:
    def test_names_and_values(self) -> None:
        data = data_of()
        stream = stream_of(metrics={"fid": frechet_distance})
        for side in ("real", "fake"):
            labels = {"gender": np.array(["f", "m"])[data.real_groups], "age": ["old"] * 40}
            stream.update(getattr(data, side), real=side == "real", sensitive_features=labels)
        frame = stream.compute()
        flat = flat_scores(frame)
        assert flat["fid/gender_f_ age_old"] == frame.by_group["fid"].iloc[0]
        assert flat["fid/delta_fid"] == frame.difference()["fid"]
        assert set(flat) >= {"fid/overall", "proportions/mgo", "proportions/ego"}

    def test_refuses_two_names_that_become_one(self) -> None:
        stream = stream_of(metrics={"fid": frechet_distance})
        for real in (True, False):
            stream.update(np.eye(4), real=real, sensitive_features=["a+", "a+", "a*", "a*"])
        with pytest.raises(ValueError, match="would both be called 'fid/a_'"):
            flat_scores(stream.compute())

    def test_tensorboard_reads_them_back(self, tmp_path: Any) -> None:
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        flat = flat_scores(whole(data_of()).compute())
        with SummaryWriter(tmp_path) as writer:
            for name, value in flat.items():
                writer.add_scalar(name, value, 1)
        events = EventAccumulator(str(tmp_path)).Reload()
        tags = {name: name.replace(" ", "_") for name in flat}
        assert {name: pytest.approx(events.Scalars(tags[name])[0].value, rel=1e-6) for name in flat} == flat


@pytest.mark.parametrize("n_columns", [1, 2])
def test_fairlearn_agrees_with_the_frame(n_columns: int) -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    data = data_of()
    real, fake = data.real[:, :n_columns], data.fake[:, :n_columns]
    labels: dict[str, Any] = {"real_sensitive_features": data.real_groups, "fake_sensitive_features": data.fake_groups}
    paired = pair_by_group(real, fake, **labels, random_state=0)
    theirs = metrics.MetricFrame(metrics={"recall": fairlearn_metric(PRDC, "recall")}, **paired)
    ours = GenerativeMetricFrame(metrics={"prdc": PRDC}, real=real, fake=fake, **labels)
    assert theirs.by_group["recall"].tolist() == ours.by_group["prdc_recall"].tolist()
    with pytest.raises(ValueError, match="choose one of"):
        fairlearn_metric(PRDC)(real, fake)
