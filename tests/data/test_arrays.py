"""Arrays in files as people write them: what has one meaning is read, else the message says what works."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from egtmetrics.data import _reading, read_labelled_features
from egtmetrics.data.files import LabelledFeatures

torch: Any = pytest.importorskip("torch")

FEATURES = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
TENSOR = torch.from_numpy(FEATURES)
GROUPS = ["f", "m"] * 20
NUMBERS = torch.arange(40) % 2


@pytest.fixture
def groups(tmp_path: Path) -> str:
    (tmp_path / "groups.txt").write_text("f\nm\n" * 20)
    return str(tmp_path / "groups.txt")


def read_pt(content: Any, folder: Path, groups: str, key: str | None = None) -> LabelledFeatures:
    torch.save(content, folder / "x.pt")
    return read_labelled_features(folder / "x.pt", groups=groups, key=key)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (TENSOR, None),
        (list(TENSOR.split(16)), None),
        ({"embeddings": list(TENSOR.split(16)), "epoch": 3}, "embeddings"),
        ((TENSOR, NUMBERS), "0"),
        ([TENSOR, NUMBERS], "0"),
        (list(zip(TENSOR.split(16), NUMBERS.split(16), strict=True)), "0"),
        (TENSOR[:, :, None, None], None),
        ({"features": TENSOR.double().requires_grad_()}, "features"),
    ],
    ids=["tensor", "batches", "named batches", "pair", "list of two", "pairs", "pooled maps", "parameter"],
)
def test_containers_of_one_meaning(content: Any, key: str | None, tmp_path: Path, groups: str) -> None:
    read = read_pt(content, tmp_path, groups)
    np.testing.assert_array_equal(read.features, FEATURES)
    assert read.source["key"] == key


def test_labels_beside_features(tmp_path: Path) -> None:
    expected = NUMBERS.numpy().astype(str).tolist()
    pairs = list(zip(TENSOR.split(16), NUMBERS.split(16), strict=True))
    for content, name in (
        ((TENSOR, NUMBERS), "1"),
        (pairs, "1"),
        ({"x": TENSOR, "y": list(NUMBERS.split(16))}, "y"),
        ({"x": TENSOR, "y": NUMBERS.tolist()}, "y"),
    ):
        assert read_pt(content, tmp_path, name).groups[name].tolist() == expected


def test_containers_without_one_meaning_say_what_works(tmp_path: Path, groups: str) -> None:
    for content, message in (
        ((TENSOR[:20], TENSOR[20:]), r"2 two-dim.* name one of '0' \(20, 4\), '1' \(20, 4\) .*join them if they are b"),
        (
            {f"{i}.png": row for i, row in enumerate(TENSOR)},
            r"40 vectors of shape \(4,\): '0.png' \(4,\), .* 30 more; .*",
        ),
        ({"features": FEATURES}, r"holds NumPy arrays, which torch.save pickles.*torch\.from_numpy.*numpy\.savez"),
        ({"a": 1, "b": {"c": TENSOR}}, r"0 two-dimensional arrays .* holds 'a' int, 'b' dict; save an array"),
        ({"features": TENSOR.to_sparse()}, r"x\.pt: cannot be read as \.pt .*save tensor\.to_dense\(\) of 'features'"),
        (torch.ones(40, 2, 2), r"0 two-dimensional arrays .* of shape \(40, 2, 2\); save an array \(n_samples, n_f"),
        ({"features": TENSOR + 1j}, r"x\.pt\['features'\] has dtype complex64, expected real numbers"),
        (TENSOR[:1].expand(2**27, 4), r"unpacks from .* MB to 2\.15e\+03 MB"),
    ):
        with pytest.raises(ValueError, match=message):
            read_pt(content, tmp_path, groups)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: holds a network .*encode the samples with it"):
        read_labelled_features(tmp_path / "x.pt", groups=groups)


def test_pooled_maps_in_npy(tmp_path: Path, groups: str) -> None:
    np.save(tmp_path / "x.npy", FEATURES[:, :, None, None])
    np.testing.assert_array_equal(read_labelled_features(tmp_path / "x.npy", groups=groups).features, FEATURES)


def test_files_that_were_made_of_features(tmp_path: Path, groups: str) -> None:
    mu, sigma = FEATURES.mean(0), np.cov(FEATURES.T)
    np.savez(tmp_path / "stats.npz", mu=mu, sigma=sigma)
    for key in (None, "sigma"):
        with pytest.raises(ValueError, match=r"stats\.npz: holds statistics of FID .*features of every sample"):
            read_labelled_features(tmp_path / "stats.npz", groups=groups, key=key)
    sparse = pytest.importorskip("scipy.sparse")
    sparse.save_npz(tmp_path / "sparse.npz", sparse.csr_matrix(FEATURES))
    with pytest.raises(ValueError, match=r"sparse\.npz: holds a sparse matrix of SciPy.*toarray"):
        read_labelled_features(tmp_path / "sparse.npz", groups=groups)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_small_floats_keep_their_values(suffix: str, dtype: str, tmp_path: Path, groups: str) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    small = TENSOR.to(getattr(torch, dtype))
    path = tmp_path / f"x{suffix}"
    content = {"before": torch.ones(3), "features": small, "numbers": NUMBERS}
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    if suffix == ".safetensors" and dtype == "float8_e5m2":
        with pytest.raises(ValueError, match=r"x\.safetensors: cannot be read .*save 'features' as float32"):
            read_labelled_features(path, groups=groups)
    else:
        read = read_labelled_features(path, groups="numbers")
        np.testing.assert_array_equal(read.features, small.float().numpy())
        assert read.groups["numbers"].tolist() == NUMBERS.numpy().astype(str).tolist()


def test_arrays_are_as_long_as_their_files(tmp_path: Path, groups: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, FEATURES)
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"\0", whole + whole, whole.replace(b"(40, 4)", b"(30, 4)")):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"x\.npy: its array of shape \(.0, 4\) .* needs \d+ bytes, but \d+ are th"
        ):
            read_labelled_features(path, groups=groups)
    np.savez(tmp_path / "x.npz", features=FEATURES)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("features.npy", whole[:-1])
    with pytest.raises(ValueError, match=r"x\.npz: array 'features' .* needs 640 bytes, but 639 are there"):
        read_labelled_features(tmp_path / "x.npz", groups=groups)
    np.save(path, FEATURES.view(np.uint16).view("V2"))  # as ml_dtypes' bfloat16 is written
    with pytest.raises(ValueError, match=r"x\.npy: its array has dtype \|V2, .*bfloat16.*astype\('float32'\)"):
        read_labelled_features(path, groups=groups)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_file_may_not_unpack_to_much_more(
    suffix: str, tmp_path: Path, groups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reading, "_SMALL", 1 << 20)
    zeros = np.zeros((40, 1 << 13))
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, features=zeros)
    else:
        pd.DataFrame({"features": list(zeros)}).to_parquet(path)
    with pytest.raises(ValueError, match=rf"x\{suffix}: unpacks from .* MB to 2\.62 MB.*without compression"):
        read_labelled_features(path, groups=groups)


def test_two_arrays_of_one_name(tmp_path: Path, groups: str) -> None:
    np.savez(tmp_path / "x.npz", features=FEATURES)
    member = zipfile.ZipFile(tmp_path / "x.npz").read("features.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("features.npy", member)
    with pytest.raises(ValueError, match=r"x\.npz: holds two arrays of one name"):
        read_labelled_features(tmp_path / "x.npz", groups=groups)


def test_columns_of_parquet(tmp_path: Path, groups: str) -> None:
    path = tmp_path / "x.parquet"
    nullable = pd.DataFrame(
        {"a": pd.array([0.5, 1.5] * 20, dtype="Float32"), "b": pd.array([1, 2] * 20, dtype="Int64")}
    )
    nullable.to_parquet(path)
    read = read_labelled_features(path, groups=groups)
    np.testing.assert_array_equal(read.features, [[0.5, 1.0], [1.5, 2.0]] * 20)
    days = pd.Series(pd.date_range("2020-01-01", periods=40))
    for column, message in (
        (pd.array([0.5, None] * 20, dtype="Float32"), r"x\.parquet: row 1, column 'a' has no value, .*remove the row"),
        ([0.5, np.nan] * 20, r"x\.parquet: row 1, column 'a' has no value"),
        ([FEATURES[0], None] * 20, r"x\.parquet: row 1, column 'a' has no value"),
        ([FEATURES[0], FEATURES[0, :3]] * 20, r"embeddings of column 'a' differ in length: \(4,\) in row 0, \(3,\) in"),
        (days, r"column 'a' is not numeric but datetime64"),
    ):
        pd.DataFrame({"a": column}).to_parquet(path)
        with pytest.raises(ValueError, match=message):
            read_labelled_features(path, groups=groups)
    pd.DataFrame({"x": [1.0] * 40, "day": days, "list": [FEATURES[0]] * 40}).to_parquet(path)
    for key, message in (("day", "'day' has dtype datetime64.*text or numbers"), ("list", "'list' holds a ndarray")):
        with pytest.raises(ValueError, match=message):
            read_labelled_features(path, groups=key, key="x")


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    for labels in (np.array([b"\xe9", b"m"] * 20), np.array(["\ud83d", "m"] * 20)):
        np.savez(tmp_path / "x.npz", features=FEATURES, y=labels)
        with pytest.raises(ValueError, match=r"x\.npz: 'y' holds what is not UTF-8 text"):
            read_labelled_features(tmp_path / "x.npz", groups="y")
    np.savez(tmp_path / "x.npz", features=FEATURES, y=np.full(40, 0x7FFFFFFF, "<u4").view("<U1"))
    with pytest.raises(ValueError, match=r"x\.npz: cannot be read"):
        read_labelled_features(tmp_path / "x.npz", groups="y")
