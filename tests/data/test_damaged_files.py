"""Whatever happened to a file, its reader returns or names the file in an error of ours; it never ends in a traceback.

100 files of each format are damaged in the same way in every run; ``tests/conftest.py`` says how to try many more.
"""

from __future__ import annotations

import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics import GenerativeMetricFrame
from egtmetrics.data import ImageFiles, open_source, read_labelled_features, read_text_columns
from tests.data._images import LEVELS, encoded, rgb

torch: Any = pytest.importorskip("torch")
resumable = pytest.importorskip("egtmetrics.training.resumable")
save_safetensors = pytest.importorskip("safetensors.torch").save

FEATURES = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
GROUPS = ["f", "m"] * 6
TABLE = pd.DataFrame(FEATURES, columns=["a", "b", "c"]).assign(text="She, wrote", y=GROUPS)


def written(write: Callable[[Any], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return written(write)


def tarred(members: dict[str, bytes]) -> bytes:
    def write(file: Any) -> None:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

    return written(write)


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def frame_json() -> bytes:
    samples = {"real": FEATURES, "fake": FEATURES, "real_sensitive_features": GROUPS, "fake_sensitive_features": GROUPS}
    return GenerativeMetricFrame(metrics="fid", **samples).to_json().encode()


TENSORS = {"features": torch.from_numpy(FEATURES), "y": torch.arange(12) % 2}
LABELS = b'{"labels": [["f/a.png", 0], ["m/b.jpg", 1]]}'
PICTURE = rgb(LEVELS[0])
PICTURES = {
    "png": encoded(PICTURE),
    "jpg": encoded(PICTURE, "JPEG", exif=PIL.Image.Exif()),
    "webp": encoded(PICTURE, "WEBP"),
    "bmp": encoded(PICTURE, "BMP"),
    "tif": encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "gif": encoded(PICTURE, "GIF"),
    "ppm": encoded(PICTURE, "PPM"),
    "deep.png": encoded(PIL.Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 999)),
    "palette.png": encoded(PICTURE.convert("P"), transparency=0),
}
FILES = {
    "x.npy": written(lambda file: np.save(file, FEATURES)),
    "x.npz": written(lambda file: np.savez_compressed(file, features=FEATURES, y=np.array(GROUPS))),
    "x.safetensors": save_safetensors({**TENSORS, "features": TENSORS["features"].bfloat16()}),
    "x.pt": written(lambda file: torch.save(TENSORS, file)),
    "old.pt": written(lambda file: torch.save(TENSORS, file, _use_new_zipfile_serialization=False)),
    "x.csv": TABLE.to_csv(index=False).encode(),
    "x.parquet": written(TABLE.to_parquet),
    "y.txt": "\n".join(GROUPS).encode(),
    "x.jsonl": "\n".join(json.dumps(row) for row in TABLE[["text", "y"]].to_dict("records")).encode(),
    "x.zip": zipped({"f/a.png": PICTURES["png"], "m/b.jpg": PICTURES["jpg"], "dataset.json": LABELS}),
    "x.tar": tarred({"a.png": PICTURES["png"], "a.json": b'{"y": "f"}', "b.jpg": PICTURES["jpg"], "b.json": b"{}"}),
    "frame.json": frame_json(),
    "x.checkpoint": resumable.to_bytes({"settings": {"seed": 1}, "step": 2, "model": TENSORS}),
    **{f"a.{name}": data for name, data in PICTURES.items()},
}


def read(path: Path) -> None:
    """Read a file as the library does, to its last value."""
    if path.name == "frame.json":
        try:
            GenerativeMetricFrame.from_json(path.read_text(encoding="utf-8", errors="replace")).by_group.to_numpy()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error  # it got the text alone
    elif path.suffix == ".checkpoint":
        resumable.read_checkpoint(path, {"seed": 1}, 2)
    elif path.suffix == ".jsonl":
        read_text_columns(path, ["text"], labels=["y"])
    elif path.name == "y.txt":
        (path.parent / "x.npy").write_bytes(FILES["x.npy"])
        read_labelled_features(path.parent / "x.npy", groups=str(path))
    elif path.suffix == ".tar":
        shard = open_source(path, kind="images")
        shard.labels(["y"])
        for i in range(len(shard)):
            shard[i]
    elif path.suffix == ".zip" or path.name.startswith("a."):
        images = ImageFiles(path if path.suffix == ".zip" else path.parent)
        images.json_labels()
        for i in range(len(images)):
            assert images[i].dtype == np.uint8
    else:
        key = "a,b,c" if path.suffix in (".csv", ".parquet") else None
        groups = "y"
        if path.suffix == ".npy":
            groups = str(path.parent / "y.txt")
            Path(groups).write_bytes(FILES["y.txt"])
        found = read_labelled_features(path, groups=groups, key=key)
        assert found.features.shape == (len(found.groups), found.features.shape[1])
        np.isfinite(found.features).all()
        if key is not None:
            read_text_columns(path, ["text"], labels=["y"])


TOKENS = (
    b"",
    b"\0",
    b"\n",
    b'"',
    b",",
    b"(",
    b"[" * 3000,
    b"\xff" * 4,
    b"\x7f",
    b"\xef\xbb\xbf",
    b"-1",
    b"99999999",
    b"NaN",
)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A change somewhere in a file: bytes that are replaced, removed, put in, or taken from another place of it."""
    place, other = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    n_removed = draw(st.sampled_from((0, 0, 1, 1, 1, 2, 4, 8, 100, 1 << 30)))
    n_copied = draw(st.sampled_from((0, 0, 0, 4, 40)))
    put_in = draw(st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=4))

    def damage(data: bytes) -> bytes:
        start, source = int(place * len(data)), int(other * len(data))
        return data[:start] + put_in + data[source : source + n_copied] + data[start + n_removed :]

    return damage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_named(name: str, folder: Path) -> None:
    whole = FILES[name]
    parts = members(whole) if zipfile.is_zipfile(io.BytesIO(whole)) else {}
    path = folder / name.partition(".")[0] / name if name.startswith("a.") else folder / name
    path.parent.mkdir(exist_ok=True)
    for other in path.parent.glob("a.*"):
        other.unlink()
    path.write_bytes(whole)
    read(path)

    @given(
        changes=st.lists(damages(), min_size=1, max_size=3),
        part=st.sampled_from(["", *parts]),
    )
    def try_one(changes: list[Callable[[bytes], bytes]], part: str) -> None:
        data = parts.get(part, whole)
        for change in changes:
            data = change(data)
        if part:  # with checksums that are right again
            compression = zipfile.ZIP_STORED if name in ("x.pt", "x.checkpoint") else zipfile.ZIP_DEFLATED
            data = zipped({**parts, part: data}, compression)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(path)
            except (ValueError, OSError) as error:
                expected = path.parent if name.startswith("a.") else path
                assert str(expected) in str(error)  # noqa: PT017  (reading may also succeed)

    try_one()
