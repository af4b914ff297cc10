"""Images and their labels in folders and zip files."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from egtmetrics.data import ImageFiles
from tests.data._images import LEVELS, encoded, rgb, store


@pytest.mark.parametrize("as_zip", [False, True])
def test_every_kind_of_file(as_zip: bool, tmp_path: Path) -> None:
    grey = LEVELS[0, 0]
    smooth = np.add.outer(8 * np.arange(6), 9 * np.arange(8)).astype(np.uint8)
    alpha = np.array([[0, 255, 51]], dtype=np.uint8)
    colour = PIL.Image.fromarray(np.dstack([np.full((1, 3), 100, np.uint8)] * 3 + [alpha]))
    shade = PIL.Image.fromarray(np.dstack([np.full((1, 3), 100, np.uint8), alpha]))
    palette = PIL.Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    files = {
        "a/grey.png": encoded(PIL.Image.fromarray(grey)),
        "a/rgb.PNG": encoded(rgb(LEVELS[0])),
        "b/x.jpg": encoded(PIL.Image.fromarray(smooth), "JPEG", quality=100),
        "b/y.jpeg": encoded(PIL.Image.merge("RGB", [PIL.Image.fromarray(smooth)] * 3), "JPEG", quality=100),
        "c/alpha.png": encoded(colour),
        "c/bits.png": encoded(PIL.Image.fromarray(np.array([[False, True]]))),
        "c/key.png": encoded(PIL.Image.fromarray(np.array([[7, 9]], dtype=np.uint8)), transparency=7),
        "c/palette.png": encoded(palette),
        "c/palette_key.png": encoded(palette, transparency=1),
        "c/shade.png": encoded(shade),
    }
    junk = {".hidden.png": b"", "__MACOSX/._a.png": b"", "readme.txt": b"", "z/.cache/a.png": b""}
    images = ImageFiles(store(tmp_path / "data", {**junk, **dict(reversed(files.items()))}, as_zip=as_zip))
    assert images.names == list(files)
    assert images.subfolders() == [name[0] for name in files]
    read = {name: images[i] for i, name in enumerate(images.names)}
    assert all(image.dtype == np.uint8 and image.ndim == 3 for image in read.values())
    np.testing.assert_array_equal(read["a/grey.png"], grey[None])
    np.testing.assert_array_equal(read["a/rgb.PNG"], LEVELS[0])
    np.testing.assert_allclose(read["b/x.jpg"][0], smooth, atol=3)
    np.testing.assert_allclose(read["b/y.jpeg"], np.stack([smooth] * 3), atol=6)
    assert read["c/alpha.png"].tolist() == [[[255, 100, 224]]] * 3  # (51 * 100 + 204 * 255) / 255
    assert read["c/bits.png"].tolist() == [[[0, 255]]]
    assert read["c/key.png"].tolist() == [[[255, 9]]]
    assert read["c/palette.png"].tolist() == [[[255, 0]], [[0, 0]], [[0, 255]]]
    assert read["c/palette_key.png"].tolist() == [[[255, 255]], [[0, 255]], [[0, 255]]]
    assert read["c/shade.png"].tolist() == [[[255, 100, 224]]]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images))[1], read["a/rgb.PNG"])


def test_files_that_are_no_images(tmp_path: Path) -> None:
    whole = encoded(rgb(LEVELS[0]))
    deep = PIL.Image.fromarray(np.array([[300]], dtype=np.uint16))
    for n, data in enumerate(
        (
            b"",
            b"no image",
            whole[:-30],
            whole[:40],
            encoded(rgb(LEVELS[0]), "GIF"),
            encoded(deep),
            encoded(rgb(LEVELS[0]).convert("CMYK"), "JPEG"),
        )
    ):
        images = ImageFiles(store(tmp_path / str(n), {"a.png": data}))
        with pytest.raises(ValueError, match=r"a\.png cannot be read \(.*\), expected a PNG or JPEG"):
            images[0]
    with pytest.raises(ValueError, match="holds no PNG or JPEG files"):
        ImageFiles(store(tmp_path / "none", {"a.gif": b""}))
    with pytest.raises(FileNotFoundError, match="neither a folder nor a file"):
        ImageFiles(tmp_path / "missing")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="is not a whole zip file"):
        ImageFiles(tmp_path / "a.zip")
    loose = ImageFiles(store(tmp_path / "loose", {"a.png": whole, "b/b.png": whole}))
    with pytest.raises(ValueError, match=r"1 of 2 images, such as a\.png, are in no subfolder"):
        loose.subfolders()


def test_labels_of_dataset_json(tmp_path: Path) -> None:
    content = {"a.png": encoded(rgb(LEVELS[0])), "b.png": encoded(rgb(LEVELS[1]))}
    assert ImageFiles(store(tmp_path, content)).json_labels() is None
    for labels, expected in (([["b.png", 1], ["a.png", "x"]], ["x", 1]), (None, None)):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert ImageFiles(tmp_path).json_labels() == expected
    (tmp_path / "dataset.json").write_text('{"labels": [["b.png", 1]]}')
    with pytest.raises(ValueError, match=r"dataset\.json has no label for 1 of 2 images, such as a\.png"):
        ImageFiles(tmp_path).json_labels()
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset\.json cannot be read"):
        ImageFiles(tmp_path).json_labels()


def test_without_pillow_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ImageFiles(store(tmp_path, {"a.png": encoded(rgb(LEVELS[0]))}))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"Pillow .*pip install 'egtmetrics\[images\]'"):
        files[0]
