from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from egtmetrics.paper.images import ImageGroups

NAMES = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.PNG"]


def levels(shape: tuple[int, ...] = (4, 6, 3)) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in NAMES]


def png(array: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def files(arrays: list[NDArray[np.uint8]], labels: Any = None) -> dict[str, bytes]:
    """As FFHQ is laid out, with what operating systems leave behind, in no order."""
    content = {name: png(array) for name, array in zip(NAMES, arrays, strict=True)}
    if labels is not None:
        content["dataset.json"] = json.dumps({"labels": labels}).encode()
    return {".hidden.png": b"", "__MACOSX/._a.png": b"", "LICENSE.txt": b"", **dict(reversed(content.items()))}


def store(path: Path, content: dict[str, bytes], *, as_zip: bool) -> Path:
    if as_zip:
        with zipfile.ZipFile(path, "w") as archive:
            archive.mkdir("00000")
            for name, data in content.items():
                archive.writestr(name, data)
        return path
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


both = pytest.mark.parametrize("as_zip", [False, True])


@both
def test_images_groups_and_order(as_zip: bool, tmp_path: Path) -> None:
    arrays = levels()
    labels = [[NAMES[2], 0], [NAMES[0], 1], ["gone.png", 7], [NAMES[1], 0]]
    dataset = ImageGroups(store(tmp_path / "data", files(arrays, labels), as_zip=as_zip))
    assert dataset.names == NAMES
    assert dataset.groups.tolist() == [1, 0, 0]
    assert (len(dataset), dataset.image_shape) == (3, (3, 4, 6))
    for i, array in enumerate(arrays):
        image, group = dataset[i]
        assert image.dtype == torch.float32
        np.testing.assert_allclose(image.numpy(), array.transpose(2, 0, 1) / 127.5 - 1.0, atol=1e-6)
        assert group == dataset.groups[i]
    images, groups = dataset.load()
    torch.testing.assert_close(images, torch.stack([image for image, _ in dataset]))
    assert groups.tolist() == [1, 0, 0]
    assert (float(images.min()) >= -1.0, float(images.max()) <= 1.0) == (True, True)


def test_iteration_ends(tmp_path: Path) -> None:
    assert len(list(ImageGroups(store(tmp_path, files(levels()), as_zip=False)))) == 3


@both
def test_workers_read_what_one_process_reads(as_zip: bool, tmp_path: Path) -> None:
    dataset = ImageGroups(store(tmp_path / "data", files(levels()), as_zip=as_zip), groups=[2, -1, 0])
    batches = list(DataLoader(dataset, batch_size=2, num_workers=2))
    torch.testing.assert_close(torch.cat([images for images, _ in batches]), dataset.load()[0])
    assert torch.cat([groups for _, groups in batches]).tolist() == [2, -1, 0]
    copied = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copied[1][0], dataset[1][0])


@both
def test_grey_images_and_no_labels(as_zip: bool, tmp_path: Path) -> None:
    content = files(levels((4, 4)))
    content["dataset.json"] = b'{"labels": null}'
    dataset = ImageGroups(store(tmp_path / "data", content, as_zip=as_zip))
    assert dataset.image_shape == (1, 4, 4)
    assert dataset.groups.tolist() == [-1, -1, -1]


def test_groups_replace_labels(tmp_path: Path) -> None:
    path = store(tmp_path, files(levels(), [[name, 0] for name in NAMES]), as_zip=False)
    assert ImageGroups(path, groups=torch.tensor([2, 1, -1])).groups.tolist() == [2, 1, -1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[NAMES[0], 0]], r"no label for 2 of 3 images, such as 00000/img00000001\.png"),
        ([[name, 0.5] for name in NAMES], "has the label 0.5, expected integers from 0"),
        ([[name, [1.0, 0.0]] for name in NAMES], r"has the label \[1.0, 0.0\]"),
        ([[name, -1] for name in NAMES], "has the label -1"),
        ([[name, True] for name in NAMES], "has the label True"),
        ([[name, 2**70] for name in NAMES], "has the label 1180591620717411303424"),
        ([1, 2, 3], "cannot be read"),
    ],
)
def test_bad_labels(labels: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ImageGroups(store(tmp_path, files(levels(), labels), as_zip=False))


@both
def test_bad_files(as_zip: bool, tmp_path: Path) -> None:
    def dataset(name: str, **content: bytes) -> ImageGroups:
        whole = {**files(levels()), **{NAMES[int(key[1:])]: data for key, data in content.items()}}
        return ImageGroups(store(tmp_path / name, whole, as_zip=as_zip))

    with pytest.raises(ValueError, match=r"img00000001\.png has shape \(3, 5, 6\), but .*0\.png \(3, 4, 6\)"):
        dataset("size", _1=png(np.zeros((5, 6, 3), np.uint8)))[1]
    with pytest.raises(ValueError, match=r"img00000001\.png has shape \(1, 4, 6\)"):
        dataset("grey", _1=png(np.zeros((4, 6), np.uint8))).load()
    with pytest.raises(ValueError, match=r"img00000000\.png cannot be read \(its mode is RGBA\)"):
        dataset("alpha", _0=png(np.zeros((4, 6, 4), np.uint8)))
    whole = png(levels()[0])
    for n, broken in enumerate((b"", b"no image", whole[:-30], whole[:40])):
        with pytest.raises(ValueError, match=r"img00000000\.png cannot be read .*expected a PNG"):
            dataset(f"broken{n}", _0=broken)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor a file"):
        ImageGroups(tmp_path / "missing")
    with pytest.raises(ValueError, match="holds no PNG files"):
        ImageGroups(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="is not a whole zip file"):
        ImageGroups(tmp_path / "a.zip")
    store(tmp_path / "data", {**files(levels()), "dataset.json": b"{"}, as_zip=False)
    with pytest.raises(ValueError, match=r"dataset\.json cannot be read"):
        ImageGroups(tmp_path / "data")


@pytest.mark.parametrize("groups", [[0, 1], [0.0, 1.0, 2.0], [0, 1, -2], [[0, 1, 2]]])
def test_bad_groups(groups: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"groups has shape .* expected one integer per image, \(3,\)"):
        ImageGroups(store(tmp_path, files(levels()), as_zip=False), groups=groups)
