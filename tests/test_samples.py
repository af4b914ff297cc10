"""GroupedSamples: selections are new samples, matched sizes do not depend on group names, values are checked once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import _validation
from egtmetrics._mapped import is_mapped
from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.labels import check_group_labels
from egtmetrics.samples import GroupedSamples
from tests.strategies import GroupedSamples as Labelled
from tests.strategies import grouped_samples

LAW = settings(max_examples=30, deadline=None)


def samples_of(data: Labelled) -> GroupedSamples:
    return GroupedSamples(
        real=data.real,
        fake=data.fake,
        real_sensitive_features=data.real_groups,
        fake_sensitive_features=data.fake_groups,
    )


def match(data: Labelled, **options: Any) -> GroupedSamples:
    return samples_of(data).matched(**options)


@LAW
@given(grouped_samples(), st.booleans())
def test_counts_are_equal_and_as_large_as_they_can_be(data: Labelled, across_groups: bool) -> None:
    matched = match(data, random_state=0, across_groups=across_groups)
    possible = np.minimum(np.bincount(data.real_groups), np.bincount(data.fake_groups))
    expected = np.full_like(possible, possible.min()) if across_groups else possible
    for labels in (matched.real_sensitive_features, matched.fake_sensitive_features):
        np.testing.assert_array_equal(np.bincount(labels["group"]), expected)


@LAW
@given(grouped_samples())
def test_matched_keeps_a_subset_in_its_order(data: Labelled) -> None:
    matched = match(data, random_state=0)
    for side in ("real", "fake"):
        rows = getattr(matched, f"{side}_rows")
        assert np.all(np.diff(rows) > 0)  # ascending, so no row twice
        np.testing.assert_array_equal(getattr(matched, side), getattr(data, side)[rows])
        labels = getattr(matched, f"{side}_sensitive_features")
        np.testing.assert_array_equal(labels["group"], getattr(data, f"{side}_groups")[rows])


@LAW
@given(grouped_samples(), st.permutations([3, 2.5, 11, -7]), st.integers(0, 99))
def test_the_draw_does_not_depend_on_group_names(data: Labelled, names: list[float], seed: int) -> None:
    first = match(data, random_state=seed)
    for alias in (names, [f"group {name}" for name in names]):
        renamed = data._replace(
            real_groups=np.array([alias[g] for g in data.real_groups]),
            fake_groups=np.array([alias[g] for g in data.fake_groups]),
        )
        second = match(renamed, random_state=seed)
        np.testing.assert_array_equal(second.real_rows, first.real_rows)
        np.testing.assert_array_equal(second.fake_rows, first.fake_rows)


def test_every_row_of_the_larger_side_is_equally_likely() -> None:
    """3 of 6 rows, 300 times: every row is kept 150 times +- 8.7; at 5 deviations 1 seed in 3e5 fails."""
    labels = ["f"] * 6 + ["m"] * 3
    kept = np.zeros(9)
    for seed in range(300):
        matched = samples_of(Labelled(np.zeros((9, 1)), np.zeros((6, 1)), labels, labels[3:])).matched(
            random_state=seed
        )
        kept[matched.real_rows] += 1
    assert np.all(np.abs(kept[:6] - 150) < 5 * np.sqrt(300 / 4))
    assert np.all(kept[6:] == 300)


def test_unassigned_rows_are_dropped_and_counted() -> None:
    samples = GroupedSamples(
        real=np.arange(6.0)[:, None],
        fake=np.arange(5.0)[:, None],
        real_sensitive_features=["f", None, "m", "f", float("nan"), "m"],
        fake_sensitive_features=["f", "m", None, "f", "m"],
    )
    assert samples.unassigned() == {"real": 2, "fake": 1}
    matched = samples.matched(random_state=0)
    assert matched.unassigned() == samples.unassigned()
    pd.testing.assert_frame_equal(matched.counts(), samples.counts())  # the proportions are those of the model
    assert matched.real_rows.tolist() == [0, 2, 3, 5]
    assert matched.fake_rows.tolist() == [0, 1, 3, 4]


def test_matched_intersections_can_be_evaluated_by_a_frame() -> None:
    rng = np.random.default_rng(0)
    real_labels = pd.DataFrame({"gender": list("ffmmffmm") * 5, "age": list("oyoyoyoy") * 5})
    fake_labels = real_labels.iloc[:-7][["age", "gender"]]
    samples = GroupedSamples(
        real=rng.normal(size=(40, 2)),
        fake=rng.normal(size=(33, 2)),
        real_sensitive_features=real_labels,
        fake_sensitive_features=fake_labels,
    )
    frame = GenerativeMetricFrame(metrics="fid", samples=samples.matched(random_state=0))
    assert frame.by_group.index.names == ["gender", "age"]
    assert frame.scored_counts["n_real"].tolist() == frame.scored_counts["n_fake"].tolist()
    assert frame.scored_counts["n_fake"].sum() == 33
    assert frame.group_counts[["n_real", "n_fake"]].sum().tolist() == [40, 33]


def test_without_a_seed_every_draw_is_new() -> None:
    data = Labelled(np.zeros((400, 1)), np.zeros((4, 1)), np.arange(400) % 2, np.arange(4) % 2)
    assert match(data).real_rows.tolist() != match(data).real_rows.tolist()  # equal once in 4e8 pairs of draws


def test_a_group_on_only_one_side_cannot_be_matched() -> None:
    with pytest.raises(
        ValueError, match=r"fake_sensitive_features holds no sample of group 'x'.*empty \(None\) to leave it out"
    ):
        samples_of(Labelled(np.zeros((5, 1)), np.zeros((3, 1)), list("fxmfx"), list("fmm"))).matched()


def mean_gap(real: Any, fake: Any) -> float:
    return float(np.abs(real.sum(axis=0, dtype=np.float64) / len(real) - fake.sum(axis=0) / len(fake)).sum())


def held_otherwise(features: NDArray[Any], labels: NDArray[Any]) -> list[tuple[Any, Any]]:
    """The same features and the same labels, as people hold them."""
    torch, pa = pytest.importorskip("torch"), pytest.importorskip("pyarrow")
    rows, numbers = list(features), labels.tolist()
    table, missing = pd.DataFrame(features), [*numbers, None]
    more = np.concatenate([features, features[:1]])  # with a row in no group
    return [
        (features.tolist(), numbers),
        (tuple(rows), tuple(numbers)),
        (features.astype(np.float16), np.array(numbers, dtype=">i4")),
        (np.asfortranarray(features), labels[::-1].copy()[::-1]),
        (torch.tensor(features), torch.tensor(numbers)),
        (torch.tensor(features).bfloat16(), list(torch.tensor(numbers))),
        (list(torch.tensor(features).bfloat16()), [np.int8(number) for number in numbers]),
        (table, pd.Series(numbers, index=range(5, 5 + len(numbers)))),
        (table.convert_dtypes(), pd.Series(numbers, dtype="Int64")),
        (table.astype("float[pyarrow]"), pd.Categorical(numbers)),
        (table.astype("Sparse[float64]"), {"group": numbers}),
        (pd.Series(rows), pa.array(numbers)),
        (pa.array(rows), pa.chunked_array([numbers])),
        (features.astype(object), np.array(numbers, dtype=object)),
        (more, missing),
        (more, np.array(missing, dtype=float)),
        (more, pd.Series(missing, dtype="Int64")),
        (more, pa.array(missing)),
        (more, np.ma.masked_array([*numbers, 0], mask=[False] * len(numbers) + [True])),
    ]


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
@LAW
@given(grouped_samples(), st.booleans(), st.data())
def test_the_frame_does_not_depend_on_how_samples_are_held(data: Labelled, as_text: bool, more: st.DataObject) -> None:
    def by_group(real: Any, real_groups: Any, fake: Any, fake_groups: Any) -> Any:
        frame = GenerativeMetricFrame(
            metrics=mean_gap,
            real=real,
            fake=fake,
            real_sensitive_features=real_groups,
            fake_sensitive_features=fake_groups,
        )
        saved = frame.to_dict()
        return saved["by_group"], saved["disparities"], saved["group_counts"]

    expected = by_group(data.real, data.real_groups, data.fake, data.fake_groups)
    one, other = (
        more.draw(st.sampled_from(held_otherwise(features, groups)))
        for features, groups in ((data.real, data.real_groups), (data.fake, data.fake_groups))
    )
    if as_text:  # the names of groups in a saved frame are texts
        one, other = ((features, texts_of(labels, more)) for features, labels in (one, other))
    assert by_group(*one, *other) == expected


def texts_of(labels: Any, more: st.DataObject) -> Any:
    """The same labels as text, as people hold it."""
    pa = pytest.importorskip("pyarrow")
    ids, index = check_group_labels(labels, None, "labels")
    texts = [None if i < 0 else str(index[i]) for i in ids]
    ways = [
        texts,
        np.array(texts, dtype=object),
        pd.Series(texts, dtype="string"),
        pd.Series(texts, dtype="category"),
        pa.array(texts),
        pa.array(texts).dictionary_encode(),
        [text and text.encode() for text in texts],
        np.array([text or "" for text in texts], dtype="S"),
        np.array([text or "" for text in texts]),
        [text and f" {text}\n" for text in texts],
    ]
    return more.draw(st.sampled_from(ways))


class TestImmutability:
    """Samples never change: every selection is a new value, and nobody can write to the features they pass on."""

    def samples(self) -> GroupedSamples:
        rng = np.random.default_rng(0)
        labels = np.array(["f", "m", None, "f", "m", "m"], dtype=object)
        return samples_of(Labelled(rng.normal(size=(6, 2)), rng.normal(size=(6, 2)), labels, labels[::-1]))

    def test_features_are_read_only_and_shared_with_the_caller(self) -> None:
        real = np.zeros((4, 2))
        samples = samples_of(Labelled(real, np.ones((4, 2)), list("ffmm"), list("ffmm")))
        assert np.shares_memory(samples.real, real)
        for part in (samples.real, samples.group("f").fake, samples.matched(random_state=0).real):
            with pytest.raises(ValueError, match="read-only"):
                part[0, 0] = 1.0  # type: ignore[index]
        with pytest.raises(AttributeError):
            samples.real = samples.fake  # type: ignore[misc]
        real[0, 0] = 1.0  # the caller's own array stays writable

    def test_a_group_has_the_rows_of_its_label(self) -> None:
        samples = self.samples()
        group = samples.group("m")
        np.testing.assert_array_equal(group.real, samples.real[[1, 4, 5]])
        np.testing.assert_array_equal(group.fake, samples.fake[[0, 1, 4]])
        assert group.real_rows.tolist() == [1, 4, 5]
        with pytest.raises(ValueError, match="'x' is not a group of these samples; choose one of 'f', 'm'"):
            samples.group("x")

    def test_row_numbers_of_a_selection_refer_to_the_original_samples(self) -> None:
        matched = self.samples().matched(random_state=0)
        again = matched.group("f")
        np.testing.assert_array_equal(again.real, self.samples().real[again.real_rows])

    def test_permuted_labels_keep_group_sizes_and_unassigned_rows(self) -> None:
        samples = self.samples()
        permuted = samples.permuted(np.random.default_rng(1))
        pd.testing.assert_frame_equal(permuted.counts(), samples.counts())
        assert (permuted.groups.real_ids < 0).tolist() == (samples.groups.real_ids < 0).tolist()
        assert permuted.real is samples.real
        assert permuted.groups.real_ids.tolist() != samples.groups.real_ids.tolist()

    def test_labels_are_returned_as_they_were_given(self) -> None:
        samples = self.samples()
        assert samples.real_sensitive_features["group"].tolist() == ["f", "m", None, "f", "m", "m"]
        assert samples.fake_sensitive_features["group"].tolist() == ["m", "m", "f", None, "m", "f"]

    def test_many_groups_are_not_all_listed(self) -> None:
        labels = [f"g{i:02}" for i in range(30)] * 2
        text = repr(samples_of(Labelled(np.zeros((60, 1)), np.zeros((60, 1)), labels, labels)))
        assert "g08" in text
        assert "g09" not in text
        assert "and 21 more" in text
        with pytest.raises(ValueError, match="and 20 more"):
            samples_of(Labelled(np.zeros((60, 1)), np.zeros((60, 1)), labels, labels)).group("x")


def test_a_large_part_of_a_mapped_file_is_taken_into_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks of a few rows; what is taken is the same to the last bit."""
    features = np.random.default_rng(0).normal(size=(60, 3))
    np.save(tmp_path / "real.npy", features)
    mapped, labels = np.load(tmp_path / "real.npy", mmap_mode="r"), np.tile(["f", "m", "m"], 20)
    in_memory = samples_of(Labelled(features, features[:30], labels, labels[:30]))
    monkeypatch.setattr(_validation, "_ROWS_BYTES", 100)
    for most, part_is_mapped in ((479, True), (480, False)):  # f has 20 rows of 24 bytes
        monkeypatch.setattr(_validation, "_MOST_IN_MEMORY", most)
        group = samples_of(Labelled(mapped, features[:30], labels, labels[:30])).group("f")
        np.testing.assert_array_equal(group.real, in_memory.group("f").real)
        assert is_mapped(group.real) == part_is_mapped
        assert not is_mapped(group.fake)
        assert _validation.is_checked(group.real)
        np.testing.assert_array_equal(_validation.take_checked(mapped, labels == "f"), group.real)


class CountingArray:
    """An array that counts how often it is read."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values, self.n_read = values, 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self.n_read += 1
        return self.values if dtype is None else self.values.astype(dtype)


def test_every_value_is_read_and_checked_once_however_many_metrics_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real, fake = (CountingArray(rng.normal(size=(n, 3))) for n in (80, 60))
    labels = np.tile(["f", "m"], 40)
    checked = 0
    check = _validation._check_finite

    def counting(array: NDArray[Any], name: str) -> None:
        nonlocal checked
        checked += array.size
        check(array, name)

    monkeypatch.setattr(_validation, "_check_finite", counting)
    samples = samples_of(Labelled(real, fake, labels, labels[:60]))
    GenerativeMetricFrame(metrics="ipr,prdc,fid,cover", samples=samples)
    GenerativeMetricFrame(metrics="fid", samples=samples.matched(random_state=0))
    assert (real.n_read, fake.n_read) == (1, 1)
    assert checked == real.values.size + fake.values.size


def test_models_matched_to_the_same_numbers_keep_the_same_real_samples() -> None:
    rng = np.random.default_rng(0)
    real, groups = rng.normal(size=(90, 1)), ["f", "m", "x"] * 30
    models = [
        GroupedSamples(
            real=real, fake=rng.normal(size=(len(labels), 1)), real_sensitive_features=groups,
            fake_sensitive_features=labels,
        )
        for labels in (["f", "m", "m", "x"] * 20, ["x", "f", "f"] * 20 + ["m"] * 8)
    ]  # fmt: skip
    for across_groups, expected in ((False, [20, 8, 20]), (True, [8, 8, 8])):
        first, second = (
            one.matched(at_most={"f": 20, "m": 8}, across_groups=across_groups, random_state=3) for one in models
        )
        for one in (first, second):
            assert one.groups.counts()[["n_real", "n_fake"]].to_numpy().T.tolist() == [expected, expected]
        np.testing.assert_array_equal(first.real, second.real)
    assert models[0].matched(at_most={"y": 1}, random_state=3).real.shape == (70, 1)
