"""Every format gives back what was saved, and no bad file gives anything."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from egtmetrics.data import column_names, read_labelled_features, read_text_columns, write_labelled_features

FEATURES = np.array([[0.5, -1.25, 3.0], [2.0, 4.5, 0.125], [-8.0, 0.0, 1.0], [7.0, 6.0, 5.0]], dtype=np.float32)
GENDER = ["f", "m", "f", None]
AGE = [1, 0, 1, 1]


def frame(label_type: type = object) -> pd.DataFrame:
    table = pd.DataFrame(FEATURES.astype(np.float64), columns=["a", "b", "c"])
    return table.assign(gender=pd.Series(GENDER, dtype=label_type), age=AGE)


def write_npz(path: Path) -> None:
    np.savez(path, features=FEATURES, gender=np.array(["f", "m", "f", ""]), age=np.array(AGE), other=FEATURES[:2])


def write_csv(path: Path) -> None:
    frame().to_csv(path, index=False)


def write_parquet(path: Path) -> None:
    frame().to_parquet(path)


def write_pt(path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"features": torch.tensor(FEATURES), "gender": GENDER, "age": torch.tensor(AGE), "epoch": 3}, path)


WRITERS = {".npz": write_npz, ".csv": write_csv, ".parquet": write_parquet, ".pt": write_pt}


@pytest.mark.parametrize("suffix", WRITERS)
def test_features_and_text_labels_come_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"real{suffix}"
    WRITERS[suffix](path)
    key = "a,b,c" if suffix in (".csv", ".parquet") else None  # without it, age is a feature of a table too
    read = read_labelled_features(path, groups="gender", key=key)
    np.testing.assert_array_equal(read.features, FEATURES)
    assert read.groups["gender"].tolist() == GENDER
    assert read.source["file"] == str(path)
    assert read.source["shape"] == [4, 3]


@pytest.mark.parametrize("suffix", WRITERS)
def test_several_labels_are_several_columns_of_text(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"real{suffix}"
    WRITERS[suffix](path)
    read = read_labelled_features(path, groups="gender,age")
    np.testing.assert_array_equal(read.features, FEATURES)  # in a table, what is no label is a feature
    assert read.groups.columns.tolist() == ["gender", "age"]
    assert read.groups["age"].tolist() == ["1", "0", "1", "1"]


def test_safetensors_and_numeric_labels(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({"embedding": FEATURES, "age": np.array(AGE)}, tmp_path / "real.safetensors")
    read = read_labelled_features(tmp_path / "real.safetensors", groups="age")
    np.testing.assert_array_equal(read.features, FEATURES)
    assert read.groups["age"].tolist() == ["1", "0", "1", "1"]
    assert read.source["key"] == "embedding"  # the only two-dimensional array


def test_bfloat16_tensors_keep_their_values(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(FEATURES).to(torch.bfloat16)  # every value above is exact in bfloat16
    torch.save(tensor, tmp_path / "real.pt")
    np.save(tmp_path / "groups.npy", np.array(AGE))
    read = read_labelled_features(tmp_path / "real.pt", groups=str(tmp_path / "groups.npy"))
    np.testing.assert_array_equal(read.features, FEATURES)


def test_npy_is_memory_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", FEATURES)
    np.save(tmp_path / "groups.npy", np.array(AGE, dtype=bool))
    read = read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / "groups.npy"))
    base: Any = read.features
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert read.groups.iloc[:, 0].tolist() == ["True", "False", "True", "True"]


def test_values_are_left_for_their_users_to_check(tmp_path: Path) -> None:
    """A metric reads every value anyway; reading all of a large file here, too, would take as long again."""
    features = np.where(FEATURES > 4, np.nan, FEATURES).astype(np.float16)
    np.save(tmp_path / "real.npy", features)
    np.save(tmp_path / "groups.npy", np.array(AGE))
    read = read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / "groups.npy"))
    assert read.features.dtype == np.float16
    np.testing.assert_array_equal(read.features, features)


LABEL_FILES = {
    "groups.txt": "f\nm\nf\n\n",
    "groups.csv": 'gender\nf\nm\nf\n""\n',
    "groups.csv:gender": "id,gender\n1,f\n2,m\n3,f\n4,\n",
}


@pytest.mark.parametrize("value", LABEL_FILES)
def test_labels_from_another_file(value: str, tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", FEATURES)
    (tmp_path / value.partition(":")[0]).write_text(LABEL_FILES[value])
    read = read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / value))
    assert read.groups.iloc[:, 0].tolist() == GENDER


def test_a_label_is_one_text_in_every_format(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", FEATURES)
    np.save(tmp_path / "floats.npy", np.array([1.0, 0.0, 1.0, np.nan]))
    np.save(tmp_path / "bytes.npy", np.array([b"1", b"0", b"1", b""]))
    (tmp_path / "text.csv").write_text('age\n1\n0\n1\n""\n')
    (tmp_path / "lines.txt").write_text("1\n0\n1\n\n")
    pd.DataFrame({"age": pd.array([1, 0, 1, None], dtype="Int64")}).to_parquet(tmp_path / "nullable.parquet")
    for name in ("floats.npy", "bytes.npy", "text.csv", "lines.txt", "nullable.parquet"):
        groups = read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / name)).groups
        assert groups.iloc[:, 0].tolist() == ["1", "0", "1", None], name


def test_words_that_pandas_takes_for_missing_are_labels(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("x,region\n1,NA\n2,None\n3,nan\n4,\n")
    read = read_labelled_features(tmp_path / "real.csv", groups="region")
    assert read.groups["region"].tolist() == ["NA", "None", "nan", None]


@pytest.mark.parametrize(
    "text",
    ["\ufefff\nm\n", "f \r\nm\t\r\n", "f\nm\n\n", "f\nm\n \n\n", "f\nm"],
    ids=["byte order mark", "spaces", "empty line", "empty lines", "no line end"],
)
def test_label_files_as_editors_leave_them(text: str, tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", FEATURES[:2])
    (tmp_path / "groups.txt").write_bytes(text.encode())
    read = read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / "groups.txt"))
    assert read.groups["group"].tolist() == ["f", "m"]


def test_an_empty_line_that_shifts_labels_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", FEATURES[:2])
    (tmp_path / "groups.txt").write_text("f\n\nm\n")
    with pytest.raises(ValueError, match=r"groups\.txt: 3 labels for the 2 rows .*line 2 is empty"):
        read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / "groups.txt"))
    (tmp_path / "groups.csv").write_text("gender\nf\n\nm\n")
    with pytest.raises(ValueError, match=r'groups\.csv: line 3 is empty, .*; write "" for a row without a label'):
        read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / "groups.csv"))


@pytest.mark.parametrize("mark", ";\t")
@pytest.mark.parametrize("declared", ["", "sep={}\n", '"sep={}"\n'], ids=["", "declared", "in quotes"])
def test_other_delimiters_of_spreadsheets(mark: str, declared: str, tmp_path: Path) -> None:
    rows = [["a", "b", "gender"], ["0.5", "1", " f "], ['"2.5"', "-1e3", '"m"']]
    text = declared.format(mark) + "\n".join(map(mark.join, rows))
    (tmp_path / "real.csv").write_text(text, encoding="utf-8-sig")
    read = read_labelled_features(tmp_path / "real.csv", groups="gender")
    assert read.features.tolist() == [[0.5, 1.0], [2.5, -1000.0]]
    assert read.groups["gender"].tolist() == ["f", "m"]


def test_a_declared_delimiter_stands_whatever_the_names_hold(tmp_path: Path) -> None:
    """Excel takes the first line for its own, and so do the numbers of lines in errors."""
    (tmp_path / "real.csv").write_bytes(b"sep=;\r\na,b;gender\r\n0.5;f\r\n1.5;m\r\n")
    read = read_labelled_features(tmp_path / "real.csv", groups="gender")
    assert read.features.tolist() == [[0.5], [1.5]]
    (tmp_path / "real.csv").write_bytes(b"sep=;\r\na;gender\r\n0.5;f\r\n1.5;m;x\r\n")
    with pytest.raises(ValueError, match="line 4 has 3 fields"):
        read_labelled_features(tmp_path / "real.csv", groups="gender")
    (tmp_path / "real.csv").write_text("sep=;\n")
    with pytest.raises(ValueError, match=r"real\.csv: is empty"):
        read_labelled_features(tmp_path / "real.csv", groups="gender")
    (tmp_path / "real.csv").write_text("sep=\nf\nm\n")
    assert read_text_columns(tmp_path / "real.csv", ["sep="])["sep="].tolist() == ["f", "m"]


def test_fields_may_hold_line_ends_commas_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_bytes(b'text,gender\r\n"She wrote,\r\n""and"" wrote.",f \r\n\r\nHe wrote.,m\r\n')
    read = read_text_columns(tmp_path / "real.csv", ["text"], labels=["gender"])
    assert read.to_numpy().tolist() == [['She wrote,\r\n"and" wrote.', "f"], ["He wrote.", "m"]]


def test_numbers_of_a_csv_are_read_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((40, 5)) * 10.0 ** np.arange(-10, 15, 5)
    pd.DataFrame(values, columns=list("abcde")).assign(seen=[True, False] * 20).to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "groups.txt").write_text("f\nm\n" * 20)
    read = read_labelled_features(tmp_path / "x.csv", groups=str(tmp_path / "groups.txt"))
    np.testing.assert_array_equal(read.features, np.column_stack([values, [1.0, 0.0] * 20]))


def test_leading_zeros_of_a_csv_label_survive(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("x, code\n1, 01\n2, 1\n")
    assert read_labelled_features(tmp_path / "real.csv", groups="code").groups["code"].tolist() == ["01", "1"]


@pytest.mark.parametrize("header", ["", "0,1,2\n", "a,b,c\n"], ids=["savetxt", "pandas", "names"])
def test_a_csv_line_is_a_header_or_data_but_never_both(header: str, tmp_path: Path) -> None:
    rows = "\n".join(",".join(map(str, row)) for row in FEATURES.tolist())
    (tmp_path / "real.csv").write_text(f"{header}{rows}\n")
    np.save(tmp_path / "groups.npy", np.array(AGE))
    read = read_labelled_features(tmp_path / "real.csv", groups=str(tmp_path / "groups.npy"))
    np.testing.assert_array_equal(read.features, FEATURES)


def test_a_parquet_column_of_embeddings_is_the_features(tmp_path: Path) -> None:
    pd.DataFrame({"embedding": list(FEATURES), "gender": GENDER}).to_parquet(tmp_path / "real.parquet")
    read = read_labelled_features(tmp_path / "real.parquet", groups="gender")
    np.testing.assert_array_equal(read.features, FEATURES)


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["npy", "object npy", "npz", "pt"])
def test_pickles_are_refused_and_never_run(kind: str, tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / f"real.{kind.split()[-1]}"
    payload: Any = Payload(trap)
    if kind == "npy":
        path.write_bytes(pickle.dumps(payload))
    elif kind == "object npy":
        np.save(path, np.array([[payload]], dtype=object), allow_pickle=True)
    elif kind == "npz":
        np.savez(path, features=np.array([[payload]], dtype=object))
    else:
        pytest.importorskip("torch").save({"features": payload}, path)
    (tmp_path / "groups.txt").write_text("f\n")
    why = "cannot be read as .npy" if kind == "npy" else "Python objects are not loaded"
    with pytest.raises(ValueError, match=rf"real\.{kind.split()[-1]}.*{why}"):
        read_labelled_features(path, groups=str(tmp_path / "groups.txt"))
    assert not trap.exists()


def test_labels_of_python_objects_are_refused_with_the_remedy(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", features=FEATURES, gender=np.array(GENDER, dtype=object))
    with pytest.raises(ValueError, match=r"real\.npz: array 'gender' holds Python objects.*astype\(str\)"):
        read_labelled_features(tmp_path / "real.npz", groups="gender")


BAD_CSV: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "real.csv: is empty, expected a line of column names"),
    "header alone": ("a,b,gender\n", "real.csv: has no rows below the names"),
    "index of pandas": (",a,gender\n0,1.5,f\n1,2.5,m\n", "column 1 has no name.*index=False"),
    "words": ("a,name,gender\n1,anna,f\n2,otto,m\n", "column 'name' is not numeric"),
    "ragged": (
        "a,gender\n1,f\n2,m,3,4\n",
        "real.csv: line 3 has 4 fields, but the first line has 2; put a field .* double quotes",
    ),
    "comma in a text": ("a,name,gender\n1,b, c,f\n", "line 2 has 4 fields, but the first line has 3"),
    "short": ("a,gender\n1,f\n2\n", "line 3 has 1 fields"),
    "line ends in a field": ('a,gender\n1,"f\n\n"\n2\n', "line 5 has 1 fields"),
    "twice": ("a,gender,a\n1,f,2\n", "two columns are named 'a'"),
    "open quote": ('a,gender\n1,f\n2,"m\n3,f\n', "line 3 cannot be read as fields .*; close every double quote"),
    "missing": ("a,b,gender\n1,2,f\n3, NaN,m\n", "line 3, column 'b' is NaN, but a feature cannot be missing; remove"),
    "of R": ("a,b,gender\n1,2,f\nNA,2,m\n", "line 3, column 'a' is NA, but a feature cannot be missing; remove"),
    "empty field": ("a,b,gender\n1,,f\n", "line 2, column 'b' is empty, but a feature cannot be missing; remove"),
    "infinite": ("a,gender\n1,f\n-inf,m\n", "line 3, column 'a' is '-inf', expected a finite number"),
    "decimal comma": ("a;gender\n1,5;f\n", "column 'a' is not numeric but '1,5' .write decimals with a point"),
    "underscore": ("a,gender\n1_000,f\n", "line 2, column 'a' is not numeric but '1_000'"),
    "inexact": (
        "a,b,gender\n1.5,9007199254740993,f\n",
        "line 2, column 'b' is '9007199254740993', more than a float64",
    ),
    "UTF-16": ("a,gender\n1,f\n".encode("utf-16"), "is not UTF-8 text but UTF-16; save it as UTF-8"),
    "Latin-1": ("a,gender\n1,f\n2,\xe9\n".encode("latin-1"), "is not UTF-8 text .line 3: "),
    "binary": ("a,gender\n1,f\0\n", "line 2 holds a NUL character"),
    "labels alone": ("gender\nf\nm\n", "no column for the features"),
    "no such column": ("a,sex\n1,f\n2,m\n", "no column 'gender' in it; it holds 'a', 'sex'"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv(case: str, tmp_path: Path) -> None:
    content, message = BAD_CSV[case]
    (tmp_path / "real.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message):
        read_labelled_features(tmp_path / "real.csv", groups="gender")


def test_bad_arrays(tmp_path: Path) -> None:
    path, groups = tmp_path / "real.npz", str(tmp_path / "groups.npy")
    np.save(groups, np.array(AGE))
    for arrays, key, message in [
        ({"a": FEATURES, "b": FEATURES}, None, r"real\.npz: 2 two-dimensional arrays.*'a' \(4, 3\), 'b' \(4, 3\)"),
        ({"a": FEATURES[:, 0]}, None, "0 two-dimensional arrays"),
        ({"a": FEATURES}, "b", r"no array 'b' in it; it holds 'a' \(4, 3\)"),
        ({"features": FEATURES.reshape(2, 2, 3)}, None, r"real\.npz\['features'\] has shape \(2, 2, 3\)"),
        ({"features": FEATURES[:3]}, None, r"groups\.npy: 4 labels for the 3 rows of .*real\.npz"),
    ]:
        np.savez(path, **arrays)
        with pytest.raises((ValueError, TypeError), match=message):
            read_labelled_features(path, groups=groups, key=key)


def test_bad_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", features=FEATURES, one_hot=np.eye(4), short=np.arange(3), age=np.array(AGE))
    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    for groups, message in [
        ("gender", r"no array 'gender' in it; it holds 'features' \(4, 3\), 'one_hot' \(4, 4\), 'short' \(3,\), 'age'"),
        ("one_hot", r"'one_hot' has shape \(4, 4\), expected one label per row"),
        ("age,short", "labels differ in length"),
        (str(tmp_path / "two.csv"), r"two\.csv: which of 'a', 'b' holds the labels\? Name it as .*two\.csv:KEY"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_labelled_features(tmp_path / "real.npz", groups=groups)


def test_what_is_no_file_on_disk_is_refused_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", FEATURES)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name, expected in (
        ("pipe.csv", "is a pipe, a socket or a device"),
        ("folder.npy", "Is a directory"),
        ("loop.npz", "symbolic links"),
        ("zero.txt", "is a pipe, a socket or a device"),
    ):
        with pytest.raises((ValueError, OSError), match=rf"{expected}.*{name}|{name}.*{expected}"):
            read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / name))
    with pytest.raises(ValueError, match=r"zero\.jsonl: is a pipe, a socket or a device"):
        read_text_columns(tmp_path / "zero.jsonl", ["text"])
    many = ",".join(f"label{i}" for i in range(99))  # longer than the name of a file can be
    with pytest.raises(ValueError, match="no array 'label0' in it"):
        read_labelled_features(tmp_path / "real.npy", groups=many)


def test_files_that_are_missing_or_of_no_known_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", FEATURES)
    with pytest.raises(FileNotFoundError, match=r"fake\.npy"):
        read_labelled_features(tmp_path / "fake.npy", groups="x")
    with pytest.raises(FileNotFoundError, match=r"labels\.csv"):
        read_labelled_features(tmp_path / "real.npy", groups=str(tmp_path / "labels.csv"))
    (tmp_path / "real.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"real\.pkl: unknown kind of file '\.pkl'; expected one of \.npy, "):
        read_labelled_features(tmp_path / "real.pkl", groups="x")
    (tmp_path / "real.txt").write_text("1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"one label per line"):
        read_labelled_features(tmp_path / "real.txt", groups=str(tmp_path / "real.npy"))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".pt", ".parquet"])
def test_a_broken_file_is_named(suffix: str, tmp_path: Path) -> None:
    for content in (b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04 and no more", bytes(range(256))):
        (tmp_path / f"real{suffix}").write_bytes(content)
        if suffix == ".pt":
            pytest.importorskip("torch")
        with pytest.raises(ValueError, match=rf"real\{suffix}: "):
            read_labelled_features(tmp_path / f"real{suffix}", groups="gender")


TEXTS = ["She wrote, and wrote.", "line\u2028separator, \u0085 too", "NA"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_texts_and_labels_come_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"real{suffix}"
    table = pd.DataFrame({"text": TEXTS, "age": [1, 0, 1], "gender": ["f", None, "m"]})
    if suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    elif suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    read = read_text_columns(path, ["text", "gender", "age"])
    assert read.columns.tolist() == ["text", "gender", "age"]
    assert read["text"].tolist() == TEXTS
    assert read["gender"].tolist() == ["f", None, "m"]
    assert read["age"].tolist() == ["1", "0", "1"]
    with pytest.raises(ValueError, match=r"no (key|column) 'sex' in it; it holds 'text', 'age', 'gender'"):
        read_text_columns(path, ["text", "sex"])


def test_a_txt_file_is_one_text_per_line(tmp_path: Path) -> None:
    path = tmp_path / "real.txt"
    for end in ("", "\n", "\r\n"):
        path.write_bytes(((end or "\n").join(TEXTS) + end).encode())
        assert read_text_columns(path, ["anything"])["anything"].tolist() == TEXTS
    path.write_text("\ufefffirst\n\nthird\n", encoding="utf-8")
    assert read_text_columns(path, ["text"])["text"].tolist() == ["first", None, "third"]
    with pytest.raises(ValueError, match=r"a \.txt file holds one text per line and no 'gender'"):
        read_text_columns(path, ["text", "gender"])


def test_empty_lines_hold_no_text(tmp_path: Path) -> None:
    for text in ('{"text": "a"}\n\n{"text": "b"}\n', '\ufeff{"text": "a"}\n{"text": "b"}\n  \n\n'):
        (tmp_path / "real.jsonl").write_text(text, encoding="utf-8")
        assert read_text_columns(tmp_path / "real.jsonl", ["text"])["text"].tolist() == ["a", "b"]
    (tmp_path / "real.txt").write_text("a\nb\n\n \n")
    assert read_text_columns(tmp_path / "real.txt", ["text"])["text"].tolist() == ["a", "b"]


def test_json_lines_may_lack_keys_and_nest_what_is_not_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "real.jsonl"
    path.write_text('{"text": "a", "spans": [1, 2]}\n{"age": 3.0, "text": "b"}\n')
    assert read_text_columns(path, ["text", "age"]).to_numpy().tolist() == [["a", None], ["b", "3"]]
    for content, message in (
        ('{"text": "a"}\n{"text": ["b"]}', "line 2 holds a list or an object under 'text'"),
        ('{"text": "a"}\n\n{"text" "b"}\n', "line 3 is not JSON"),
        ('{"text": "a"}\n{"text": "b", "text": "c"}\n', "line 2 is not JSON .the key 'text' is there twice"),
        ('{"text": "a"}\n{"text": "\\ud83d"}\n', "line 2 is not JSON .it holds half a character"),
        (f'{{"text": {"[" * 99_999}', "line 1 is not JSON .it is nested too deep"),
        (f'{{"text": {"9" * 5000}}}', "line 1 is not JSON"),
        ('"a"', "line 1 is not a JSON object"),
        ("{'text': 'a'}", "line 1 is not JSON"),
        ("", "has no lines"),
        ("a".encode("utf-16"), "is not UTF-8 text but UTF-16"),
        (b'{"text": "a"}\n{"text": "\xe9t\xe9"}', r"is not UTF-8 text \(line 2: "),
        ('{"text": "a\0"}', "line 1 holds a NUL character"),
    ):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=rf"real\.jsonl: {message}"):
            read_text_columns(path, ["text"])
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_text_columns(tmp_path / "none.jsonl", ["text"])
    with pytest.raises(ValueError, match=r"real\.doc: unknown kind of file '\.doc'; expected one of \.jsonl"):
        read_text_columns(tmp_path / "real.doc", ["text"])


def test_columns_are_named_without_reading_them(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": ["a", "b"], "age": [1, 2]})
    table.to_csv(tmp_path / "x.csv", index=False)
    assert column_names(tmp_path / "x.csv") == ["text", "age"]
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"x\.npy: holds arrays, expected the columns"):
        column_names(tmp_path / "x.npy")
    pytest.importorskip("pyarrow")
    table.to_parquet(tmp_path / "x.parquet")
    assert column_names(tmp_path / "x.parquet") == ["text", "age"]
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"x\.parquet: cannot be read as \.parquet"):
        column_names(tmp_path / "x.parquet")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    features = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    groups = pd.DataFrame({"gender": ["f", None, "m"], "age": ["1", "é\n", "1"]}, dtype=object)
    path = tmp_path / "real.npz"
    provenance = {"encoder": {"model": "m", "size": None}, "samples": {"file": "x"}}
    write_labelled_features(path, features, groups, provenance=provenance, names=["a", "b", "c"])
    read = read_labelled_features(path)
    np.testing.assert_array_equal(read.features, features)
    pd.testing.assert_frame_equal(read.groups, groups)
    assert {name: read.source[name] for name in provenance} == provenance
    assert read_labelled_features(path, groups="age").groups.columns.tolist() == ["age"]
    assert read_labelled_features(path, groups="").groups.shape == (3, 0)
    write_labelled_features(path, features, None, provenance={})
    with pytest.raises(ValueError, match=r"real\.npz: holds no names of groups; say where"):
        read_labelled_features(path)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    features, path = np.zeros((2, 3)), tmp_path / "x.npz"
    for name, columns, message in (
        ("x.csv", {"g": ["a", "b"]}, "features are written as .npz"),
        ("x.npz", {"features": ["a", "b"]}, "a sensitive feature cannot be called 'features'"),
        ("x.npz", {"a,b": ["a", "b"]}, "a sensitive feature cannot be called 'a,b'"),
        ("x.npz", {"g": ["a"]}, "1 of g for 2 rows, expected one each"),
    ):
        with pytest.raises(ValueError, match=message):
            write_labelled_features(tmp_path / name, features, pd.DataFrame(columns), provenance={})
    assert not path.exists()
    np.savez(path, features=features, g=np.array(["a", "b"]), egtmetrics_provenance=np.array("[1]"))
    with pytest.raises(
        ValueError, match=r"x\.npz: cannot be read as \.npz \(its egtmetrics_provenance is no object of JSON\)"
    ):
        read_labelled_features(path, groups="g")
