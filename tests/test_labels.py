"""Labels of groups: one index of both sides, and no row lost or misplaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics.labels import check_group_labels

LAW = settings(max_examples=50, deadline=None)
NAN = float("nan")

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
            ({"x": list("aabb"), "y": list("aab")}, ValueError, r"unequal shapes \(x: \(4,\), y: \(3,\)\); pass one"),
            ({"x": [["a"], ["a"], ["b"], ["b"]]}, ValueError, r"unequal shapes \(x: \(4, 1\)\); pass one label per"),
            ({"x": np.array(3)}, ValueError, r"unequal shapes \(x: \(\)\); pass one label per"),
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
