"""Images and texts of every form: the same samples give the same levels, texts and labels."""

from __future__ import annotations

import io
import json
import pickle
import socket
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics.data import TextSource, open_source, read_labels_beside
from egtmetrics.data._shards import shard_paths
from egtmetrics.data.sources import check_place, holds_samples
from tests.data._images import LEVELS, encoded, rgb, store

NAMES = [f"{name}.png" for name in "abcde"]
GENDERS = ["f", "m", None, "f", "m"]
TEXTS = [f"She wrote book {i}, in Zürich." for i in range(5)]


def tar(path: Path, files: Mapping[str, bytes], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def images_in_table(folder: Path, suffix: str) -> str:
    import pandas as pd

    store(folder, {f"img/{name}": encoded(rgb(levels)) for name, levels in zip(NAMES, LEVELS, strict=True)})
    paths = [f"img/{name}" if i else str(folder / "img" / name) for i, name in enumerate(NAMES)]
    table = pd.DataFrame({"file_name": paths, "gender": GENDERS, "n": range(5)})
    return _written(table, folder / f"real{suffix}")


def texts_in_table(folder: Path, suffix: str) -> str:
    import pandas as pd

    return _written(pd.DataFrame({"text": TEXTS, "gender": GENDERS, "n": range(5)}), folder / f"real{suffix}")


def _written(table: Any, path: Path) -> str:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet(path)
    else:
        rows = [{key: value for key, value in row.items() if value is not None} for row in table.to_dict("records")]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def _sample(i: int, data: Mapping[str, bytes]) -> dict[str, bytes]:
    described = {"n": i} | ({} if GENDERS[i] is None else {"gender": GENDERS[i]})
    files = {**data, "json": json.dumps(described).encode()}
    return {f"d.1/{i:05}.{extension}": content for extension, content in files.items()}


def images_in_shards(folder: Path, suffix: str) -> str:
    samples = [_sample(i, {"PNG": encoded(rgb(levels))}) for i, levels in enumerate(LEVELS)]
    for shard, part in enumerate((samples[:2], samples[2:])):
        tar(folder / f"s-{shard:03}.tar", {"d.1/readme": b"", **{k: v for one in part for k, v in one.items()}})
    return str(folder / "s-{000..001}.tar")


def texts_in_shards(folder: Path, suffix: str) -> str:
    files = {k: v for i, text in enumerate(TEXTS) for k, v in _sample(i, {"txt": f"{text}\n".encode()}).items()}
    return str(tar(folder / "real.tar", files, format=tarfile.GNU_FORMAT))


def images_in_dataset(folder: Path, suffix: str) -> str:
    return _dataset(folder, suffix, image=[rgb(levels) for levels in LEVELS])


def texts_in_dataset(folder: Path, suffix: str) -> str:
    return _dataset(folder, suffix, text=TEXTS)


def _dataset(folder: Path, suffix: str, **column: Any) -> str:
    datasets = pytest.importorskip("datasets")
    kinds = {"image": datasets.Image(), "text": datasets.Value("string")}
    features = {name: kinds[name] for name in column}
    features |= {"gender": datasets.ClassLabel(names=["f", "m"]), "n": datasets.Value("int64")}
    genders = [None if gender is None else "fm".index(gender) for gender in GENDERS]
    rows = {**column, "gender": genders, "n": range(5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        if suffix == "saved":
            data.save_to_disk(folder / "saved")
            return f"datasets:{folder / 'saved'}"
        if suffix == "splits":
            datasets.DatasetDict({"train": data.select([0]), "test": data}).save_to_disk(folder / "splits")
            return f"datasets:{folder / 'splits'}:test"
        (folder / "repo").mkdir()
        data.to_parquet(folder / "repo" / "train.parquet")
        return f"datasets:{folder / 'repo'}:train"


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a name is looked up nor a server called, and the caches of the hub are empty."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


FORMS: list[tuple[Callable[[Path, str], str], Callable[[Path, str], str], str]] = [
    (images_in_table, texts_in_table, ".csv"),
    (images_in_table, texts_in_table, ".jsonl"),
    (images_in_table, texts_in_table, ".parquet"),
    (images_in_shards, texts_in_shards, "tar"),
    (images_in_dataset, texts_in_dataset, "saved"),
    (images_in_dataset, texts_in_dataset, "splits"),
    (images_in_dataset, texts_in_dataset, "parquet"),
]


@pytest.mark.parametrize(("images", "texts", "suffix"), FORMS, ids=[suffix for _, _, suffix in FORMS])
def test_every_form_has_the_same_images_texts_and_labels(
    images: Callable[[Path, str], str], texts: Callable[[Path, str], str], suffix: str, tmp_path: Path
) -> None:
    for make, kind in ((images, "images"), (texts, "texts")):
        (tmp_path / kind).mkdir()
        place = make(tmp_path / kind, suffix)
        assert holds_samples(place)
        source = open_source(place)
        assert source.kind == kind
        assert len(source) == 5
        if isinstance(source, TextSource):
            assert list(source) == source.texts == TEXTS
        else:
            for i, levels in enumerate(LEVELS):
                np.testing.assert_array_equal(source[i], levels)
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[4], LEVELS[4])
        labels = source.labels(["n", "gender"])
        assert labels["n"].tolist() == list("01234")
        assert labels["gender"].tolist() == GENDERS
        with pytest.raises(ValueError, match=r"no (column|key) 'age' in it; .*gender"):
            source.labels(["age"])
        with pytest.raises(ValueError, match=r"no (column|key) 'words' in it"):
            open_source(place, text_key="words")


@given(st.integers(0, 120), st.integers(0, 10), st.integers(1, 4))
def test_ranges_name_shards(first: int, more: int, width: int) -> None:
    last = first + more
    found = [str(path) for path in shard_paths(f"a-{{{first:0{width}}..{last}}}-{{0..1}}.tar")]
    expected = [f"a-{number:0{len(f'{first:0{width}}')}}-{b}.tar" for number in range(first, last + 1) for b in (0, 1)]
    assert found == expected


def test_samples_of_shards_are_what_has_one_name_up_to_the_first_dot(tmp_path: Path) -> None:
    picture, other = (encoded(rgb(levels)) for levels in LEVELS[:2])
    files = {"./x/1.in.png": picture, "x/2.in.png": other, "x/2.cls": b"7\n", "x/1.mask.PNG": other, "x/1.cls": b"3"}
    place = str(tar(tmp_path / "a.tar", files))
    with pytest.raises(ValueError, match=r"a\.tar: the sample x/1 has several images among its files in\.png, mask"):
        open_source(place)
    source = open_source(place, image_key="in.png")
    assert source.names == ["x/1", "x/2"]  # also where files of one sample lie apart
    assert source.labels(["cls"])["cls"].tolist() == ["3", "7"]
    np.testing.assert_array_equal(source[1], LEVELS[1])
    with pytest.raises(ValueError, match=r"the sample x/2 has no image among its files in\.png, cls; say which"):
        open_source(place, image_key="mask.png")


def test_shards_that_cannot_be_read(tmp_path: Path) -> None:
    files = {f"{i}.png": encoded(rgb(levels)) for i, levels in enumerate(LEVELS)}
    whole = tar(tmp_path / "a.tar", files).read_bytes()
    last = len(whole.rstrip(b"\0")) // 512 * 512  # where the last block of a file begins
    cases: dict[str, tuple[bytes, str]] = {
        "in a file": (whole[: last - 700], "is no whole tar file|is cut short"),
        "between two files": (whole[: 512 * 2], r"is cut short or damaged at byte 1024; write it again"),
        "damaged": (whole[:1024] + b"x" * 512 + whole[1536:], "is cut short or damaged at byte 1024"),
        "no tar": (b"x" * 2000, "is no whole tar file without compression"),
        "empty": (b"", "is no whole tar file without compression"),
        "no samples": (bytes(10240), "holds no samples, expected files such as"),
    }
    assert len(encoded(rgb(LEVELS[0]))) <= 512
    for data, message in cases.values():
        (tmp_path / "b.tar").write_bytes(data)
        with pytest.raises(ValueError, match=message):
            open_source(tmp_path / "b.tar")
    tar_gz = tmp_path / "c.tar"
    with tarfile.open(tar_gz, "w:gz") as archive:
        archive.add(tmp_path / "a.tar", "a.png")
    with pytest.raises(ValueError, match="is no whole tar file without compression"):
        open_source(tar_gz)
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"d\.tar: 1\.png is a link or has holes"):
        open_source(tmp_path / "d.tar")
    twice = tmp_path / "e.tar"
    twice.write_bytes(whole[:1024] + whole)
    with pytest.raises(ValueError, match=r"e\.tar: has 0\.png twice"):
        open_source(twice)
    (tmp_path / "s-0.tar").write_bytes(whole)
    with pytest.raises(FileNotFoundError, match=r"s-1\.tar"):
        check_place(str(tmp_path / "s-{0..1}.tar"))
    place = str(tar(tmp_path / "f.tar", {"1.txt": b"\xff", "1.json": b"[1]", "2.json": b"{"}))
    with pytest.raises(ValueError, match=r"f\.tar: 1\.txt is not UTF-8 text"):
        open_source(place)
    with pytest.raises(ValueError, match=r"f\.tar: 1\.json cannot be read \(it is no object\)"):
        open_source(place, text_key="caption")


def test_what_is_both_images_and_texts_has_to_be_named(tmp_path: Path) -> None:
    folder = store(tmp_path / "img", {"a.png": encoded(rgb(LEVELS[0]))})
    (tmp_path / "a.csv").write_text("file_name,text\nimg/a.png,a cat\n")
    shards = tar(
        tmp_path / "a.tar", {"1.png": encoded(rgb(LEVELS[0])), "1.txt": b"a cat", "1.json": b'{"t": {"u": 5}}'}
    )
    for place, text_key, image_key in ((tmp_path / "a.csv", "text", "file_name"), (shards, "txt", "png")):
        with pytest.raises(ValueError, match=r"holds images and texts; name the column of those that are the samples"):
            open_source(place)
        with pytest.raises(ValueError, match=r"image_key or text_key, and not both"):
            open_source(place, image_key=image_key, text_key=text_key)
        for images in (open_source(place, image_key=image_key), open_source(place, kind="images")):
            np.testing.assert_array_equal(images[0], LEVELS[0])
        for texts in (open_source(place, text_key=text_key), open_source(place, kind="texts")):
            assert list(texts) == ["a cat"]
    assert list(open_source(shards, text_key="t.u")) == ["5"]
    with pytest.raises(ValueError, match="holds images, expected texts"):
        open_source(folder, kind="texts")


def test_files_of_a_table_have_to_be_there(tmp_path: Path) -> None:
    store(tmp_path, {"a.png": encoded(rgb(LEVELS[0]))})
    (tmp_path / "a.csv").write_text("file_name,g\na.png,x\nb.png,y\nc.png,y\n")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 files of the column 'file_name' are missing, such as b\.png"):
        open_source(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("path,g\na.png,x\n,y\n")
    with pytest.raises(ValueError, match="row 2 has no 'path'"):
        open_source(tmp_path / "a.csv", image_key="path")
    for place in ("nowhere.csv", "nowhere.tar", "nowhere", "nowhere.zip"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            open_source(tmp_path / place)
    with pytest.raises(ValueError, match=r"a-\{2\.\.1\}\.tar: \{2\.\.1\} is an empty range"):
        open_source("a-{2..1}.tar")
    (tmp_path / "folder.csv").mkdir()
    assert holds_samples(str(tmp_path / "folder.csv"))
    (tmp_path / "x.doc").touch()
    assert not holds_samples(str(tmp_path / "x.doc"))
    with pytest.raises(ValueError, match=r"unknown kind of file '\.doc'"):
        open_source(tmp_path / "x.doc")


@pytest.mark.usefixtures("no_network")
def test_data_sets_are_found_without_a_network_and_refused_at_once(tmp_path: Path) -> None:
    place = images_in_dataset(tmp_path, "splits").removesuffix(":test")
    cases = {
        "datasets:nobody/none:train": "nobody/none:train is not in the local cache .*; fetch it with `hf download "
        "nobody/none --repo-type dataset`, or pass a folder",
        "datasets:a:b:c:d": "is no name of a data set, expected datasets:NAME, or with",
        place: r"has several splits; name one of train, test, as in datasets:NAME:train",
        f"{images_in_dataset(tmp_path, 'saved')}:test": "has no split 'test'; name one of train",
        f"{place}:dev": "has no split 'dev'; name one of train, test",
        f"{place}:x:test": "cannot be read as a data set .it has no configurations",
        f"datasets:{tmp_path / 'cache'}": "cannot be read as a data set",
    }
    (tmp_path / "cache").mkdir(exist_ok=True)
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            open_source(name)
    with pytest.raises(FileNotFoundError, match=r"\./none is no folder"):
        check_place("datasets:./none")
    repo = images_in_dataset(tmp_path, "parquet")
    assert len(open_source(f"{repo}[1:3]")) == 2
    with pytest.raises(ValueError, match="no column 'pictures' with images in it; it holds 'image'"):
        open_source(repo, image_key="pictures")
    (tmp_path / "repo" / "README.md").write_text("---\nconfigs:\n- data_files: https://example.com/a.csv\n---\n")
    with pytest.raises(ValueError, match=r"its README\.md names files on a server, and nothing is fetched unasked"):
        open_source(repo)


@pytest.mark.usefixtures("no_network")
def test_a_data_set_in_the_cache_of_the_hub_is_found_by_its_name(tmp_path: Path) -> None:
    images_in_dataset(tmp_path, "parquet")
    kept = tmp_path / "hub" / "datasets--me--faces"
    store(kept, {"refs/main": b"abc", "snapshots/abc/train.parquet": (tmp_path / "repo/train.parquet").read_bytes()})
    source = open_source("datasets:me/faces:train")
    np.testing.assert_array_equal(source[3], LEVELS[3])
    assert source.labels(["gender"])["gender"].tolist() == GENDERS


def test_without_datasets_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'egtmetrics\[datasets\]'"):
        open_source(f"datasets:{tmp_path}")


def test_labels_beside_are_found_by_name_or_number(tmp_path: Path) -> None:
    names = [f"00000/{i:05}.png" for i in range(3)]
    celeba = "3\nMale Young\n00000.png -1  1\n00001.png  1  1\n00002.png  1 -1 \n"
    ffhq = {str(i): {"metadata": {"country": "" if i == 2 else f"c{i}"}, "image": {"x": [1]}} for i in range(3)}
    faces = [[{"faceAttributes": {"gender": "female"}}], [], [{"faceAttributes": {"gender": "male"}}] * 2]
    (tmp_path / "list_attr_celeba.txt").write_text(celeba)
    (tmp_path / "ffhq-dataset-v2.json").write_text(json.dumps(ffhq))
    (tmp_path / "aging.csv").write_text("image_number,gender\n" + "".join(f"{i},{'fm'[i % 2]}\n" for i in (2, 1, 0)))
    store(tmp_path / "json", {f"{i:05}.json": json.dumps(face).encode() for i, face in enumerate(faces)})
    found = read_labels_beside(tmp_path / "list_attr_celeba.txt", names, ["Young", "Male"])
    assert found.to_dict("list") == {"Young": ["1", "1", "-1"], "Male": ["-1", "1", "1"]}
    country = read_labels_beside(tmp_path / "ffhq-dataset-v2.json", names[::-1], ["metadata.country"])
    assert country["metadata.country"].tolist() == [None, "c1", "c0"]
    aging = read_labels_beside(tmp_path / "aging.csv", names, ["gender"], name_key="image_number")
    assert aging["gender"].tolist() == ["f", "m", "f"]
    gender = read_labels_beside(tmp_path / "json", names, ["faceAttributes.gender"])
    assert gender["faceAttributes.gender"].tolist() == ["female", None, None]  # no face, and two of them
    with pytest.raises(ValueError, match=r"json: 0 holds a list or an object under 'image\.x'"):
        read_labels_beside(tmp_path / "ffhq-dataset-v2.json", names, ["image.x"])
    with pytest.raises(ValueError, match=r"no key 'age' in it; the first of its 3 objects holds metadata, image"):
        read_labels_beside(tmp_path / "ffhq-dataset-v2.json", names, ["age"])
    with pytest.raises(ValueError, match=r"no attribute 'Old' in it; it holds Male, Young"):
        read_labels_beside(tmp_path / "list_attr_celeba.txt", names, ["Old"])
    # Names without their folders do not tell these apart, so that they are not used.
    with pytest.raises(ValueError, match=r"has no row for 2 of the 2 samples, such as a/00000\.png"):
        read_labels_beside(tmp_path / "list_attr_celeba.txt", ["a/00000.png", "b/00000.png"], ["Male"])
    with pytest.raises(
        ValueError, match=r"two samples are called 00001, so that .*list_attr_celeba\.txt does not tell"
    ):
        read_labels_beside(tmp_path / "list_attr_celeba.txt", ["00001", "00001"], ["Male"])
    with pytest.raises(ValueError, match=r"has no row for 1 of the 4 samples, such as 9\.png; its names, such as 000"):
        read_labels_beside(tmp_path / "list_attr_celeba.txt", [*names, "9.png"], ["Male"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("4\nMale\n1.png 1\n", "expected the number of images"),
        ("1\nMale\n1.png 1 1\n", r"1\.png has 2 values for 1 names"),
        ("1.png 7\n2.png 8\n", "expected the number of images"),
        ("1\n", "expected the number of images"),
    ],
)
def test_tables_of_attributes_that_are_none(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(ValueError, match=f"a.txt: is no table of attributes as CelebA's .*{reason}"):
        read_labels_beside(tmp_path / "a.txt", ["1.png"], ["Male"])
