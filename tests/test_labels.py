"""Labels of groups: every row is assigned to the group of its label, and bad labels are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics.cli import main
from egtmetrics.labels import MissingLabelWarning, assign_groups, check_group_labels, label_columns

LAW = settings(max_examples=50, deadline=None)
NAN = float("nan")

LABELS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3, max_size=20).map(lambda x: ["a", "a", *x])


class TestGroupLabels:
    @LAW
    @given(LABELS)
    def test_ids_are_positions_in_the_index(self, labels: list[str | None]) -> None:
        ids, index = check_group_labels(labels, len(labels), "groups")
        assert index.tolist() == sorted({label for label in labels if label is not None})
        assert [index[i] if i >= 0 else None for i in ids] == labels

    @LAW
    @given(LABELS)
    def test_every_kind_of_sequence_gives_the_same_groups(self, labels: list[str | None]) -> None:
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
            [label and label.encode() for label in labels],
            [label and f"\ufeff {label}\t" for label in labels],
            ["" if label is None else label for label in labels],
            np.array(["" if label is None else label for label in labels], dtype="S"),
            np.ma.masked_array([label or "x" for label in labels], mask=[label is None for label in labels]),
            list(np.ma.masked_array([label or "x" for label in labels], mask=[label is None for label in labels])),
            [None if label is None else np.str_(label) for label in labels],
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
            ([3.0, NAN, 1.0, 1.0], [1, 3]),
            (np.ma.masked_array([3, 9, 1, 1], mask=[0, 1, 0, 0]), [1, 3]),
            (pd.Categorical([3, None, 1, 1]), [1, 3]),
            (
                np.array(["2024-01-02", "NaT", "2024-01-01", "2024-01-02"], "M8[ns]"),
                list(map(pd.Timestamp, ["2024-01-01", "2024-01-02"])),
            ),
        ],
    )
    def test_labels_keep_their_type(self, labels: Any, index: list[Any]) -> None:
        found = check_group_labels(labels, 4, "groups")[1].tolist()
        assert found == index
        assert [type(label) for label in found] == [type(label) for label in index]

    @LAW
    @given(st.lists(st.sampled_from([0, 1, 7]), min_size=3, max_size=20).map(lambda x: [0, 0, *x]))
    def test_every_kind_of_number_gives_the_same_groups(self, labels: list[int]) -> None:
        torch, pa = pytest.importorskip("torch"), pytest.importorskip("pyarrow")
        ids, index = check_group_labels(labels, len(labels), "groups")
        tensor = torch.tensor(labels)
        missing = [*labels, None]
        for same in (
            tensor,
            tensor.bfloat16(),
            list(tensor),
            [row[0] for row in tensor[:, None].float()],
            list(np.array(labels)),
            np.array(labels, dtype=np.uint8),
            np.array(labels, dtype=">i2"),
            np.array(labels, dtype=float),
            {"group": list(tensor)},
            tensor[:, None],
            pa.array(labels),
            list(pa.array(labels)),
            pa.table({"group": labels}),
        ):
            same_ids, same_index = check_group_labels(same, len(labels), "groups")
            np.testing.assert_array_equal(same_ids, ids)
            assert [repr(label) for label in same_index.tolist()] == [repr(label) for label in index.tolist()]
        for same in (
            missing,
            np.array(missing, dtype=float),
            pd.Series(missing),
            pd.Series(missing, dtype="Int64"),
            pd.array(missing, dtype="Int64"),
            pa.array(missing),
            pa.chunked_array([missing]),
            pa.array(missing).dictionary_encode(),
            [*tensor, None],
            np.ma.masked_array([*labels, 5], mask=[False] * len(labels) + [True]),
        ):
            same_ids, same_index = check_group_labels(same, len(missing), "groups")
            assert same_ids.tolist() == [*ids, -1]
            assert [repr(label) for label in same_index.tolist()] == [repr(label) for label in index.tolist()]

    def test_arrow_text(self) -> None:
        pa = pytest.importorskip("pyarrow")
        labels = ["b", None, "a", "a"]
        for same in (
            pa.array(labels),
            pa.array(labels).dictionary_encode(),
            pd.Series(labels, dtype=pd.ArrowDtype(pa.string())),
        ):
            ids, index = check_group_labels(same, 4, "groups")
            assert (ids.tolist(), index.tolist()) == ([1, -1, 0, 0], ["a", "b"])

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
            (
                [["a", "b"], ["b", "a"]],
                ValueError,
                "has 2 labels for 4 samples; pass .* same order, joining batches first",
            ),
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
            ([b"a", b"\xff", b"a", b"a"], ValueError, r"label b'\\xff', which is not UTF-8 text; decode the labels"),
            (["a", "\udcff", "a", "a"], ValueError, r"label '\\udcff', which is not UTF-8 text; decode the labels"),
            ({"x": list("aabb"), "y": ["\udcff"] * 4}, ValueError, r"label '\\udcff', which is not UTF-8 text; decode"),
            ({"\udcff": list("aabb")}, ValueError, r"feature '\\udcff', which is not UTF-8 text; rename it"),
            (pd.Series(list("aabb"), name="\udcff"), ValueError, r"feature '\\udcff', which is not UTF-8 text"),
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


class TestMissingWords:
    """What software writes for a missing value is no group; the warning says how many rows that concerns."""

    @pytest.mark.parametrize("word", ["NA", "nan", "NaN", "null", "NULL", "None", "<NA>", "N/A", " NA "])
    @pytest.mark.parametrize("held", [list, np.array, pd.Series, lambda labels: np.array(labels, "S")])
    def test_are_missing_with_a_warning_that_counts_them(self, word: str, held: Any) -> None:
        message = (
            rf"^real has labels .* in no group: '{word.strip()}' \(2 rows\)\. If one is the name of a group, write"
        )
        with pytest.warns(MissingLabelWarning, match=message):
            ids, index = check_group_labels(held(["f", word, "m", word, "f"]), 5, "real")
        assert (ids.tolist(), index.tolist()) == ([0, -1, 1, -1, 0], ["f", "m"])

    def test_numpy_makes_text_of_a_missing_number(self) -> None:
        with pytest.warns(MissingLabelWarning, match=r"'nan' \(1 row\)"):
            assert check_group_labels(np.array(["f", "m", NAN, "f"]), 4, "real")[0].tolist() == [0, 1, -1, 0]

    def test_words_that_hold_them_are_labels(self) -> None:
        labels = ["na", "none", "Nan", "NAM", "unknown", "-", "na"]
        assert check_group_labels(labels, 7, "real")[1].tolist() == sorted(set(labels))

    def test_remedies_need_no_warning(self) -> None:
        """They are those of the message."""
        assert check_group_labels(["f", None, "m", "f"], 4, "real")[0].tolist() == [0, -1, 1, 0]
        assert check_group_labels(["ZA", "Namibia", "ZA"], 3, "real")[1].tolist() == ["Namibia", "ZA"]

    def test_a_set_warns_once(self) -> None:
        warned: set[str] = set()
        with pytest.warns(MissingLabelWarning, match=r"'NA' \(1 row\)\."):
            label_columns(["f", "NA"], "real", warned=warned)
        label_columns(["NA", "NA"], "real", warned=warned)
        with pytest.warns(MissingLabelWarning, match=r"'nan' \(1 row\)\."):
            label_columns(["NA", "nan"], "real", warned=warned)

    def test_a_message_lists_ten_at_most(self) -> None:
        words = ["NA", "<NA>", "#NA", "N/A", "#N/A", "n/a", "nan", "NaN", "-nan", "-NaN", "NaT", "null"]
        with pytest.warns(MissingLabelWarning, match=r"and 2 more\."):
            label_columns([*words, "f"], "real")

    @pytest.mark.filterwarnings("default::egtmetrics.groups.MissingLabelWarning")
    @pytest.mark.parametrize("suffix", ["csv", "npz"])
    def test_the_command_line_has_the_same_rule(
        self, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        features, labels = np.random.default_rng(0).normal(size=(60, 2)), np.array(["f", "m", "NA"] * 20)
        path = tmp_path / f"x.{suffix}"
        if suffix == "csv":
            pd.DataFrame(features, columns=["a", "b"]).assign(y=labels).to_csv(path, index=False)
        else:
            np.savez(path, features=features, y=labels)
        command = ["evaluate", str(path), str(path), "--real-groups", "y", "--fake-groups", "y", "--metrics", "fid"]
        assert main([*command, "--format", "json", "--quiet"]) == 0
        done = capsys.readouterr()
        saved = json.loads(done.out)
        assert list(saved["by_group"]) == ["f", "m"]
        assert saved["unassigned"] == {"real": 20, "fake": 20}
        for side, line in zip(("real", "fake"), done.err.splitlines(), strict=True):
            assert line.startswith(f"egtmetrics: warning: --{side}-groups has labels that were taken for missing")
            assert "'NA' (20 rows)" in line

    def test_the_warning_names_the_line_of_the_user(self) -> None:
        with pytest.warns(MissingLabelWarning) as seen:
            check_group_labels(["f", "NA", "f"], 3, "real")
        assert seen[0].filename == __file__


class TestLabelsWrittenInTwoWays:
    """1 and "1.0", True and "true", "f" and "F" are different labels; the message says which are meant alike."""

    @pytest.mark.parametrize(
        ("real", "fake", "message"),
        [
            ([1, 0, 0], ["1", "0", "0"], "0 and '0', 1 and '1' are written alike"),
            ([1, 0, 0], ["1.0", "0.0", "0.0"], "0 and '0.0', 1 and '1.0' are written alike"),
            ([True, False, False], ["true", "false", "false"], "False and 'false', True and 'true' are written alike"),
            (["true", "false", "false"], [True, False, False], "'false' and False, 'true' and True are written alike"),
            ([1, 0, 0], ["f", "m", "m"], "0, 1 and fake_.* 'f', 'm', which .*; convert those of one side$"),
        ],
    )
    def test_of_different_types(self, real: Any, fake: Any, message: str) -> None:
        with pytest.raises(TypeError, match=f"^real_sensitive_features has the labels .*{message}"):
            assign_groups(real, fake)

    @pytest.mark.parametrize(
        ("real", "fake", "message"),
        [
            (
                ["1", "0", "0"],
                ["1.0", "0.0", "0.0"],
                "group '0.0', '1.0', .*; write '0' and '0.0', '1' and '1.0' alike",
            ),
            (["f", "m", "m"], ["F", "m", "m"], "group 'F', .*; write 'f' and 'F' alike"),
            (["e\u0301", "m", "m"], ["\u00e9", "m", "m"], "; write 'e\u0301' and '\u00e9' alike"),
            (["a b", "m", "m"], ["a  b", "m", "m"], "; write 'a b' and 'a  b' alike"),
            (["f", "m", "m"], ["w", "m", "m"], "group 'w', .*; check the spelling of the labels"),
            (
                {"x": list("fmm"), "y": [1, 2, 2]},
                {"x": list("Fmm"), "y": [1, 2, 2]},
                r"write \('f', 1\) and \('F', 1\) alike",
            ),
        ],
    )
    def test_of_one_type(self, real: Any, fake: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"^real_sensitive_features holds no sample of .*{message}"):
            assign_groups(real, fake).check_present("else")

    def test_white_space_around_a_text_is_not_part_of_it(self) -> None:
        groups = assign_groups(["f ", "m", "f"], ["\tf", "m\r", "\ufeffm"])
        assert groups.index.tolist() == ["f", "m"]
        assert (groups.real_ids.tolist(), groups.fake_ids.tolist()) == ([0, 1, 0], [0, 1, 1])

    def test_a_message_lists_ten_at_most(self) -> None:
        labels = [f"g{i}" for i in range(40)] * 2
        with pytest.raises(ValueError, match=r"and 30 more") as error:
            assign_groups(labels, [label.upper() for label in labels]).check_present("else")
        assert len(str(error.value)) < 800
