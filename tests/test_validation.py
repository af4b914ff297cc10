"""Bad input is refused with the name of the argument and a remedy; odd but sound input gives what its copy gives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from egtmetrics._validation import (
    check_features,
    check_group_labels,
    check_n_neighbors,
    check_positive_int,
    check_real_fake,
)
from egtmetrics.metrics.frechet import frechet_distance
from egtmetrics.metrics.prdc import precision_recall_density_coverage

PRDC = functools.partial(precision_recall_density_coverage, n_neighbors=2)
LAW = settings(max_examples=50, deadline=None)
NAN = float("nan")
MATRICES = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=st.floats(-1e6, 1e6))
FLIPS: list[Callable[[NDArray[Any]], NDArray[Any]]] = [
    lambda x: x[::-1],
    lambda x: x[:, ::-1],
    lambda x: x[::2],
    lambda x: x.T,
    np.asfortranarray,
    lambda x: x.astype(">f8"),
    lambda x: np.broadcast_to(x[:1], x.shape),
]


class TestFeatures:
    @LAW
    @given(MATRICES, st.sampled_from(FLIPS))
    def test_any_layout_gives_what_its_copy_gives(self, x: NDArray[np.float64], flip: Any) -> None:
        given_array = flip(x)
        checked = check_features(given_array, "real")
        np.testing.assert_array_equal(checked, given_array.copy())
        assert checked.flags.c_contiguous
        assert checked.dtype == np.float64
        assert checked.dtype.isnative

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_plain_arrays_are_not_copied(self, dtype: Any) -> None:
        x = np.zeros((3, 2), dtype)
        assert np.shares_memory(check_features(x, "real"), x)

    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            ([[True, False]], np.float32),
            (np.array([[1, -2]], np.int16), np.float32),
            (np.array([[1.5]], np.float16), np.float32),
            (np.array([[2**24 + 1]], np.int32), np.float64),
            ([[1, 2**40]], np.float64),
            (np.array([[1.5]], np.longdouble), np.float64),
            (pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}), np.float64),
        ],
    )
    def test_numbers_become_floats_without_loss(self, values: Any, dtype: Any) -> None:
        checked = check_features(values, "real")
        assert checked.dtype == dtype
        np.testing.assert_array_equal(checked, np.asarray(values))

    def test_tensors(self) -> None:
        torch = pytest.importorskip("torch")
        tensor = torch.arange(6.0).reshape(2, 3).requires_grad_()
        assert np.shares_memory(check_features(tensor, "real"), tensor.detach().numpy())
        np.testing.assert_array_equal(check_features(tensor.T, "real"), tensor.detach().numpy().T)
        assert check_features(tensor.bfloat16(), "real").tolist() == [[0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize(
        ("values", "error", "remedy"),
        [
            (None, TypeError, r"dtype object.*convert it"),
            ("abc", TypeError, r"dtype <U3.*convert it"),
            ([["a"], ["b"]], TypeError, r"dtype <U1.*convert it"),
            ([[1.0, None]], TypeError, r"dtype object.*convert it"),
            (np.array([[1.0, 2.0]], dtype=object), TypeError, r"dtype object.*convert it"),
            ([[1.0 + 2.0j]], TypeError, r"dtype complex128, expected real numbers; convert it"),
            (np.array([["2024-01-01"]], "M8[D]"), TypeError, r"dtype datetime64.*convert it"),
            (np.zeros((2, 2), [("x", float)]), TypeError, r"dtype \[\('x'.*convert it"),
            ([[1.0, 2.0], [3.0]], TypeError, r"cannot be read as an array .*pass an \(n, d\) array of numbers"),
            (1.0, ValueError, r"shape \(\), expected two dimensions .*flatten each sample"),
            ([1.0, 2.0], ValueError, r"shape \(2,\), expected two dimensions .*flatten each sample"),
            (np.zeros((2, 3, 4)), ValueError, r"shape \(2, 3, 4\), expected two dimensions .*flatten each sample"),
            (np.zeros((0, 3)), ValueError, r"is empty: its shape is \(0, 3\); pass at least one row"),
            (np.zeros((3, 0)), ValueError, r"is empty: its shape is \(3, 0\); pass at least one row and one column"),
            ([[0.0], [NAN]], ValueError, r"NaN or infinity \(first in row 1\).*remove such rows"),
            ([[float("inf")]], ValueError, r"NaN or infinity \(first in row 0\).*remove such rows"),
            (np.array([[1e151]]), ValueError, r"1e\+151, whose squared distances overflow.*rescale"),
            (np.array([[-1e200]]), ValueError, r"1e\+200, whose squared distances overflow.*rescale"),
        ],
    )
    def test_bad_features(self, values: Any, error: type[Exception], remedy: str) -> None:
        for name in ("real", "fake"):
            with pytest.raises(error, match=rf"^{name} .*{remedy}"):
                check_features(values, name)

    @LAW
    @given(MATRICES, st.sampled_from([NAN, np.inf, -np.inf]), st.data())
    def test_first_bad_row_is_named(self, x: NDArray[np.float64], bad: float, data: st.DataObject) -> None:
        row, column = (data.draw(st.integers(0, size - 1)) for size in x.shape)
        x[row:, column] = bad
        with pytest.raises(ValueError, match=rf"^fake holds NaN or infinity \(first in row {row}\)"):
            check_features(x, "fake")

    def test_bad_row_beyond_the_first_block(self) -> None:
        x = np.zeros((5, 1 << 21), np.float32)  # rows of 8 MiB: the scan goes through two at a time
        x[3, 7] = np.nan
        with pytest.raises(ValueError, match=r"first in row 3"):
            check_features(x, "real")


class TestRealFake:
    @pytest.mark.parametrize("metric", [frechet_distance, PRDC])
    def test_metrics_see_no_difference_between_a_view_and_its_copy(self, metric: Any) -> None:
        rng = np.random.default_rng(0)
        real, fake = rng.normal(size=(12, 3)), rng.normal(size=(3, 24))
        views = real[::-1, ::-1], fake.T[::-2]
        assert metric(*views) == metric(*(view.copy() for view in views))

    def test_spaces_of_different_dimension(self) -> None:
        with pytest.raises(ValueError, match=r"^real has 2 features and fake has 3; both must come from the same"):
            check_real_fake(np.zeros((4, 2)), np.zeros((4, 3)))

    def test_each_side_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"^real has shape"):
            check_real_fake(np.zeros(4), np.zeros((4, 3)))
        with pytest.raises(ValueError, match=r"^fake has shape"):
            check_real_fake(np.zeros((4, 3)), np.zeros(4))

    def test_one_dtype(self) -> None:
        for first, second in ((np.float32, np.float64), (np.float64, np.float32), (np.float16, np.float64)):
            real, fake = check_real_fake(np.ones((1, 1), first), np.ones((1, 1), second))
            assert real.dtype == fake.dtype == np.float64
        real, fake = check_real_fake(np.ones((1, 1), np.float32), np.ones((1, 1), np.float16))
        assert real.dtype == fake.dtype == np.float32


class TestIntegers:
    @pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True, np.float64(2.0)])
    def test_what_is_no_positive_integer(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^n_bootstrap=.* is no integer of at least 1; pass one"):
            check_positive_int(value, "n_bootstrap")

    def test_minimum_and_type(self) -> None:
        assert type(check_positive_int(np.int32(3), "k", minimum=3)) is int
        with pytest.raises(ValueError, match=r"^k=2 is no integer of at least 3"):
            check_positive_int(2, "k", minimum=3)

    @pytest.mark.parametrize(("itself", "enough"), [(True, 6), (False, 5)])
    def test_neighbours_that_a_set_has(self, itself: bool, enough: int) -> None:
        assert check_n_neighbors(5, enough, "fake", itself=itself) == 5
        message = rf"^fake has {enough - 1} rows, but n_neighbors=5 needs at least {enough}; add samples or lower"
        with pytest.raises(ValueError, match=message):
            check_n_neighbors(5, enough - 1, "fake", itself=itself)


LABELS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3, max_size=20).map(lambda x: ["a", "a", *x])


class TestGroupLabels:
    @LAW
    @given(LABELS)
    def test_ids_point_to_the_labels(self, labels: list[str | None]) -> None:
        ids, index = check_group_labels(labels, len(labels), "groups")
        assert index.tolist() == sorted({label for label in labels if label is not None})
        assert [index[i] if i >= 0 else None for i in ids] == labels

    @LAW
    @given(LABELS)
    def test_every_kind_of_sequence_says_the_same(self, labels: list[str | None]) -> None:
        ids, index = check_group_labels(labels, len(labels), "groups")
        for same in (
            tuple(labels),
            [NAN if label is None else label for label in labels],
            np.array(labels, dtype=object),
            pd.Series(labels, index=range(7, 7 + len(labels))),
            pd.Series(labels, dtype="string"),
            pd.Index(labels),
            pd.Categorical(labels, categories=["c", "x", "b", "a"]),
            pd.Series(labels, dtype="category"),
            {"group": labels},
            pd.DataFrame({"group": labels}),
            np.array(labels, dtype=object)[:, None],
        ):
            same_ids, same_index = check_group_labels(same, len(labels), "groups")
            np.testing.assert_array_equal(same_ids, ids)
            assert same_index.tolist() == index.tolist()

    @pytest.mark.parametrize(
        ("labels", "index"),
        [
            ([3, 1, 3, 1], [1, 3]),
            ([3, None, 3, 1], [1, 3]),
            (np.array([3, 1, 3, 1], np.uint8)[::-1], [1, 3]),
            (pd.Series([3, None, 3, 1], dtype="Int64"), [1, 3]),
            ([True, False, True, True], [False, True]),
            ([1.5, NAN, 0.5, 0.5], [0.5, 1.5]),
        ],
    )
    def test_labels_keep_their_type(self, labels: Any, index: list[Any]) -> None:
        found = check_group_labels(labels, 4, "groups")[1].tolist()
        assert found == index
        assert [type(label) for label in found] == [type(label) for label in index]

    def test_tensor(self) -> None:
        torch = pytest.importorskip("torch")
        ids, index = check_group_labels(torch.tensor([4, 2, 4, 2]), 4, "groups")
        assert (ids.tolist(), index.tolist()) == ([1, 0, 1, 0], [2, 4])

    def test_names(self) -> None:
        assert check_group_labels(pd.Series([1, 2, 2], name="age"), 3, "groups")[1].name == "age"
        assert check_group_labels({"age": [1, 2, 2]}, 3, "groups")[1].name == "age"
        assert check_group_labels([1, 2, 2], 3, "groups")[1].name == "group"
        assert check_group_labels({"age": [1, 2, 2], 3: [0, 0, 0]}, 3, "groups")[1].names == ["age", "3"]

    @LAW
    @given(LABELS, st.data())
    def test_intersections(self, first: list[str | None], data: st.DataObject) -> None:
        n = len(first)
        second = [1, 1, *data.draw(st.lists(st.sampled_from([1, 2, None]), min_size=n - 2, max_size=n - 2))]
        ids, index = check_group_labels({"x": first, "y": second}, n, "groups")
        pairs = list(zip(first, second, strict=True))
        assert index.tolist() == sorted({pair for pair in pairs if None not in pair})
        assert [index[i] if i >= 0 else None for i in ids] == [None if None in pair else pair for pair in pairs]
        assert isinstance(index, pd.MultiIndex)
        same_ids, same_index = check_group_labels(pairs, n, "groups")
        np.testing.assert_array_equal(same_ids, ids)
        assert same_index.tolist() == index.tolist()

    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            (["a", "b", "a"], ValueError, "has 3 labels for 4 samples; pass one label per sample, in the same order"),
            ([], ValueError, "has 0 labels for 4 samples; pass one label per sample"),
            (["a"] * 5, ValueError, "has 5 labels for 4 samples; pass one label per sample"),
            ([None, NAN, None, NAN], ValueError, r"assigns none of 4 samples to a group .*; check the labels"),
            (["a", "b", "c", "d"], ValueError, "has 4 different labels for as many samples.*; pass group labels"),
            ([0.1, 0.2, NAN, 0.4], ValueError, "has 3 different labels for as many samples.*; pass group labels"),
            ([1, "1", 1, "1"], TypeError, "mixes labels that cannot be ordered .*; use labels of one type"),
            (np.array([1, "1", 1, 1], object), TypeError, "mixes labels that cannot be ordered .*; use labels of one"),
            ({"x": [1, "1", 1, 1], "y": [1, 1, 1, 1]}, TypeError, "mixes labels .*; use labels of one type"),
            ([["a"], ["b", "c"], ["a"], ["a"]], TypeError, "mixes labels that cannot be ordered .*; use labels of one"),
            ("abab", TypeError, "is str, expected a sequence with one label per sample"),
            (b"abab", TypeError, "is bytes, expected a sequence with one label per sample"),
            (1, TypeError, "is int, expected a sequence with one label per sample"),
            (None, TypeError, "is NoneType, expected a sequence with one label per sample"),
            ({"a", "b"}, TypeError, "is set, expected a sequence with one label per sample"),
            ((label for label in "abab"), TypeError, "is generator, expected a sequence with one label per sample"),
            ({"x": "abab"}, TypeError, "is str, expected a sequence with one label per sample"),
            (np.zeros((4, 1, 1)), ValueError, r"shape \(4, 1, 1\), expected one label per sample, \(n,\) or"),
            (np.array(3), ValueError, r"shape \(\), expected one label per sample"),
            (np.zeros((4, 0)), ValueError, "has no columns; pass one label per sample"),
            ({}, ValueError, "has no columns; pass one label per sample"),
            (pd.DataFrame(index=range(4)), ValueError, "has no columns; pass one label per sample"),
            ({"x": list("aabb"), "y": list("aab")}, ValueError, r"unlike shapes \(x: \(4,\), y: \(3,\)\); pass one"),
            ({"x": [["a"], ["a"], ["b"], ["b"]]}, ValueError, r"unlike shapes \(x: \(4, 1\)\); pass one label per"),
            ({"x": np.array(3)}, ValueError, r"unlike shapes \(x: \(\)\); pass one label per"),
            ({1: list("aabb"), "1": list("abab")}, ValueError, r"names a feature twice \(1, 1\); rename or drop one"),
            (pd.DataFrame([[1, 2]] * 4, columns=["x", "x"]), ValueError, r"feature twice \(x, x\); rename or drop"),
        ],
    )
    def test_bad_labels(self, labels: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=f"^fake_sensitive_features .*{message}"):
            check_group_labels(labels, 4, "fake_sensitive_features")

    def test_number_of_samples_may_be_unknown(self) -> None:
        assert check_group_labels(["a", "b", "a"], None, "groups")[0].tolist() == [0, 1, 0]
        with pytest.raises(ValueError, match=r"^groups assigns none of 0 samples to a group"):
            check_group_labels([], None, "groups")

    def test_labels_are_not_changed(self) -> None:
        frame = pd.DataFrame({"x": [1, None, 2, 2]}, index=[5, 5, 6, 7])
        before = frame.copy()
        check_group_labels(frame, 4, "groups")
        pd.testing.assert_frame_equal(frame, before)


def test_masked_values_are_no_data() -> None:
    values = np.ma.masked_array(np.ones((4, 2)), mask=[[False, True], *[[False, False]] * 3])
    with pytest.raises(TypeError, match="real has masked values"):
        check_features(values, "real")
    assert check_features(np.ma.masked_array(np.ones((4, 2))), "real").shape == (4, 2)
