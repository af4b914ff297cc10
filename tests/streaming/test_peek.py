"""A peek gives what ``compute`` gives at every moment, costs less, and changes nothing."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import GenerativeMetricFrame, Reference, frechet_distance, precision_recall_density_coverage
from egtmetrics.metrics import (
    clipped_density_coverage,
    improved_precision_recall,
    kernel_distance,
    p_precision_recall,
    precision_recall_cover,
    topp_precision_recall,
)
from egtmetrics.ops._native import CpuBackend
from egtmetrics.ops._primitives import Primitive
from egtmetrics.streaming import GenerativeMetricStream

pytestmark = [
    pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning"),
    pytest.mark.filterwarnings("ignore::egtmetrics.groups.MissingScoreWarning"),
    pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning"),
    pytest.mark.filterwarnings("ignore:.*is undefined:RuntimeWarning"),
]
METRICS: dict[str, Any] = {
    "prdc": precision_recall_density_coverage,
    "ties": functools.partial(precision_recall_density_coverage, n_neighbors=2, ties="include"),
    "ipr": improved_precision_recall,
    "clipped": functools.partial(clipped_density_coverage, n_neighbors=3),
    "cover": functools.partial(precision_recall_cover, n_neighbors=1, cover_factor=2),
    "p-pr": p_precision_recall,
    "far": functools.partial(improved_precision_recall, n_neighbors=33),  # more neighbours than are remembered
    "kid": functools.partial(kernel_distance, n_subsets=3),
    "topp": functools.partial(topp_precision_recall, k_rule="sample-size", n_bootstrap=10),
}
"""Equal to the last bit."""
RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(240, 3))
REAL_LABELS = np.repeat(["f", "m", "late", None], [100, 90, 40, 10])
SIZES = [110, 1, 0, 7, 100, 2, 40, 40]
FAKE = RNG.normal(0.2, 0.8, size=(sum(SIZES), 3))
FAKE_LABELS = RNG.choice(np.array(["f", "m", None], dtype=object), p=[0.5, 0.4, 0.1], size=len(FAKE))
FAKE_LABELS[220:] = RNG.permutation(np.repeat(["f", "m", "late"], [20, 20, 40]).astype(object))
BATCHES = np.split(np.arange(len(FAKE)), np.cumsum(SIZES)[:-1])


def stream_of(metrics: Any, *, prepared: bool = False, **options: Any) -> GenerativeMetricStream:
    """A stream of the real samples above: a reference, or rows that were added."""
    reference = Reference(REAL, sensitive_features=REAL_LABELS) if prepared else None
    stream = GenerativeMetricStream(
        metrics=metrics, random_state=0, missing_groups="nan", reference=reference, **options
    )
    if not prepared:
        stream.update(REAL, real=True, sensitive_features=REAL_LABELS)
    return stream


def feed(stream: GenerativeMetricStream, rows: Any, fake: NDArray[Any] = FAKE) -> None:
    stream.update(fake[rows], real=False, sensitive_features=FAKE_LABELS[rows])


def assert_peek_is_compute(stream: GenerativeMetricStream) -> GenerativeMetricFrame:
    found = stream.peek()
    assert found.to_dict() == stream.compute().to_dict()
    return found


class TestPeekIsCompute:
    @pytest.mark.parametrize("name", METRICS)
    def test_at_every_step_to_the_last_bit(self, name: str) -> None:
        stream = stream_of({name: METRICS[name]}, prepared=True)
        for rows in BATCHES:
            feed(stream, rows)
            frame = assert_peek_is_compute(stream)
        assert frame.by_group.notna().all(axis=None)  # "late" has come
        assert frame.unassigned["fake"] > 0

    def test_for_all_metrics_together_against_real_rows_that_were_added(self) -> None:
        stream = stream_of(METRICS)
        for rows in BATCHES[:4]:
            feed(stream, rows)
            assert_peek_is_compute(stream)

    @pytest.mark.parametrize("prepared", [True, False])
    def test_at_every_step_up_to_rounding_for_fid(self, prepared: bool) -> None:
        """Also where the fake samples are far from the real ones, and where there are fewer than features."""
        for shift in (0.0, 1e6):
            stream = stream_of("fid", prepared=prepared)
            for rows in BATCHES:
                feed(stream, rows, FAKE + shift)
                found, expected = stream.peek(), stream.compute()
                np.testing.assert_allclose(found.by_group, expected.by_group, rtol=1e-9)
                np.testing.assert_allclose(found.overall, expected.overall, rtol=1e-9)
                assert found.group_counts.equals(expected.group_counts)
                for label, by_metric in expected.results.items():
                    for name, result in by_metric.items():
                        term: Any = found.results[label][name]
                        np.testing.assert_allclose(term.covariance_term, vars(result)["covariance_term"], rtol=1e-6)

    @settings(max_examples=8, deadline=None)
    @given(st.data())
    def test_for_any_split_of_tied_rows_and_any_moments_to_peek(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(20, 60))
        seed = data.draw(st.integers(0, 2**32 - 1))
        rng = np.random.default_rng(seed)
        real, fake = (rng.integers(-2, 3, size=(size, 2)).astype(np.float32) for size in (50, n))
        labels = rng.choice(np.array(["f", "m", None], dtype=object), size=n)
        labels[:12] = ["f", "m"] * 6
        metrics = {name: METRICS[name] for name in ("prdc", "ties", "clipped", "cover")}
        stream = GenerativeMetricStream(
            metrics=metrics,
            random_state=0,
            reference=Reference(real, sensitive_features=["f", "m"] * 25),
            backend=data.draw(st.sampled_from(["auto", "reference"])),
        )
        cuts = sorted(data.draw(st.lists(st.integers(12, n), max_size=8)))
        for rows in np.split(np.arange(n), cuts):
            stream.update(fake[rows], real=False, sensitive_features=labels[rows])
            if data.draw(st.booleans()):
                assert_peek_is_compute(stream)
        assert_peek_is_compute(stream)

    def test_with_rows_in_files(self, tmp_path: Path) -> None:
        stream = stream_of({"prdc": METRICS["prdc"]}, spill=tmp_path)
        for rows in BATCHES:
            feed(stream, rows)
            assert_peek_is_compute(stream)

    def test_with_a_sample_of_the_rows(self) -> None:
        stream = stream_of({"prdc": METRICS["prdc"]}, max_samples=30)
        for rows in BATCHES:
            feed(stream, rows)
            assert_peek_is_compute(stream)

    def test_of_rows_that_become_float64(self) -> None:
        stream = stream_of({"prdc": METRICS["prdc"]})  # float64 real rows
        narrow = GenerativeMetricStream(metrics=METRICS["prdc"], random_state=0, missing_groups="nan")
        narrow.update(REAL.astype(np.float32), real=True, sensitive_features=REAL_LABELS)
        for rows, dtype in zip(BATCHES, [np.float32] * 5 + [np.float64] * 3, strict=True):
            for one in (stream, narrow):
                feed(one, rows, FAKE.astype(dtype))
                assert_peek_is_compute(one)

    def test_when_real_rows_are_added_too(self) -> None:
        stream = GenerativeMetricStream(metrics=METRICS["prdc"], random_state=0, missing_groups="nan")
        for rows, more in zip(BATCHES, np.array_split(RNG.permutation(len(REAL)), len(BATCHES)), strict=True):
            stream.update(REAL[more], real=True, sensitive_features=REAL_LABELS[more])
            feed(stream, rows)
            assert_peek_is_compute(stream)

    def test_after_a_reset_a_merge_a_checkpoint_and_a_copy(self) -> None:
        metrics = {"prdc": METRICS["prdc"]}
        stream, other = (
            stream_of(metrics),
            GenerativeMetricStream(metrics=metrics, random_state=0, missing_groups="nan"),
        )
        feed(stream, np.arange(150))
        assert_peek_is_compute(stream)
        for copied in (pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)):
            feed(copied, np.arange(150, 170))
            assert_peek_is_compute(copied)
        feed(other, np.arange(150, 300))
        stream.merge(other)
        assert_peek_is_compute(stream)
        state = stream.state_dict()
        stream.reset(keep_real=True)
        feed(stream, np.arange(100, 300))
        assert_peek_is_compute(stream)
        stream.load_state_dict(state)
        assert_peek_is_compute(stream)
        stream.reset()
        stream.update(REAL[::-1] + 1.0, real=True, sensitive_features=REAL_LABELS)
        feed(stream, np.arange(300))
        assert_peek_is_compute(stream)


class TestPeekingChangesNothing:
    def test_of_what_compute_returns_later(self) -> None:
        metrics = {**METRICS, "fid": frechet_distance}
        peeked, other = stream_of(metrics), stream_of(metrics)
        for rows in BATCHES[:5]:
            feed(peeked, rows)
            feed(other, rows)
            peeked.peek()
        assert pickle.dumps(peeked.state_dict()) == pickle.dumps(other.state_dict())
        assert peeked.compute().to_dict() == other.compute().to_dict()

    def test_of_a_frame_that_was_returned_before(self) -> None:
        """Its samples may be evaluated again, also against other real ones."""
        metrics = {name: METRICS[name] for name in ("prdc", "ipr")}
        stream = stream_of(metrics, prepared=True)
        feed(stream, np.arange(100))
        first = stream.peek()
        feed(stream, np.arange(100, 250))
        second = stream.peek()
        for frame in (first, second):
            samples = frame.samples
            assert samples is not None
            options: dict[str, Any] = {"metrics": metrics, "random_state": 0, "missing_groups": "nan"}
            assert GenerativeMetricFrame(samples=samples, **options).to_dict() == frame.to_dict()
            options |= {"real": REAL * 1.1, "real_sensitive_features": REAL_LABELS}
            options |= {"fake_sensitive_features": samples.fake_sensitive_features}
            found = GenerativeMetricFrame(fake=samples.fake, **options)
            expected = GenerativeMetricFrame(fake=samples.fake.copy(), **options)
            assert found.to_dict() == expected.to_dict()

    def test_of_intervals(self) -> None:
        stream = stream_of({"prdc": METRICS["prdc"]}, prepared=True)
        feed(stream, np.arange(250))
        stream.peek()
        feed(stream, np.arange(250, 300))
        assert stream.peek().interval().by_group.equals(stream.compute().interval().by_group)


@pytest.mark.parametrize("side", ["real", "fake"])
def test_a_peek_at_nothing_is_refused_as_by_compute(side: str) -> None:
    stream = GenerativeMetricStream(metrics="prdc", random_state=0)
    if side == "fake":
        stream.update(REAL, real=True, sensitive_features=REAL_LABELS)
    for evaluate in (stream.compute, stream.peek):
        with pytest.raises(ValueError, match=f"no {side} samples were added, .* update"):
            evaluate()


def test_a_missing_group_is_refused_as_by_compute() -> None:
    reference = Reference(REAL, sensitive_features=REAL_LABELS)
    stream = GenerativeMetricStream(metrics="prdc", random_state=0, reference=reference)
    feed(stream, np.arange(100))
    with pytest.raises(ValueError, match="late") as computed:
        stream.compute()
    with pytest.raises(ValueError, match="late") as peeked:
        stream.peek()
    assert str(peeked.value) == str(computed.value)
    feed(stream, np.arange(100, 300))
    assert_peek_is_compute(stream)


def wide(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32), np.tile(["f", "m"], n // 2)


def test_a_peek_compares_the_new_rows_and_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 20 batches; how many pairs of rows the kernels see, of which the last peek must save most."""
    pairs, run = [0.0], CpuBackend._run

    def counting(self: CpuBackend, primitive: Primitive, values: dict[str, Any]) -> Any:
        x, y = values["x"], values.get("y")
        pairs[0] += len(x) * (len(x) / 2 if y is None else len(y))
        return run(self, primitive, values)

    monkeypatch.setattr(CpuBackend, "_run", counting)
    real, real_labels = wide(2000, 0)
    fake, labels = wide(2000, 1)
    reference = Reference(real, sensitive_features=real_labels)
    stream = GenerativeMetricStream(metrics="prdc", random_state=0, reference=reference)
    costs = []
    for rows in np.split(np.arange(len(fake)), 20):
        stream.update(fake[rows], real=False, sensitive_features=labels[rows])
        cost = []
        for evaluate in (stream.peek, stream.compute):
            before = pairs[0]
            evaluate()
            cost.append(pairs[0] - before)
        costs.append(cost)
    peeks, computes = np.array(costs).T
    assert peeks[-1] < 0.25 * computes[-1]
    assert peeks[10:].max() < 2.0 * peeks[10:].min()  # it does not grow with what is there


def test_memory_is_bounded() -> None:
    """900 bytes a fake row, and what the reference holds; old frames take their memory with them."""

    def taken(peeks: bool) -> int:
        reference = Reference(*wide(1000, 0)[:1], sensitive_features=wide(1000, 0)[1])
        reference.in_canonical_order()
        stream = GenerativeMetricStream(metrics="prdc", random_state=0, reference=reference)
        stream.update(wide(100, 2)[0], real=False, sensitive_features=wide(100, 2)[1])
        stream.compute()
        tracemalloc.start()
        try:
            for seed in range(10):
                fake, labels = wide(400, seed)
                stream.update(fake, real=False, sensitive_features=labels)
                if peeks:
                    stream.peek()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    without, with_peeks = taken(False), taken(True)
    assert with_peeks - without < 900 * 4100 + 4 * 8 * 1000 + 300_000
