"""Images and their labels in folders and zip files."""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
import PIL.Image
import pytest

from egtmetrics.data import AnimationWarning, ImageFiles, LeftOutWarning, _reading
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


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize(
    ("suffix", "format", "options", "tolerance"),
    [
        (".webp", "WEBP", {"lossless": True}, 0),
        (".bmp", "BMP", {}, 0),
        (".tif", "TIFF", {"compression": "tiff_lzw"}, 0),
        (".TIFF", "TIFF", {}, 0),
        (".ppm", "PPM", {}, 0),
        (".jp2", "JPEG2000", {}, 0),
        (".jfif", "JPEG", {"quality": 100, "subsampling": 0}, 6),
        (".gif", "GIF", {}, 0),
        (".png", "WEBP", {"lossless": True}, 0),  # the content counts
    ],
)
def test_what_pillow_reads(
    suffix: str, format: str, options: dict[str, Any], tolerance: int, as_zip: bool, tmp_path: Path
) -> None:
    if format == "JPEG2000" and not PIL.features.check("jpg_2000"):
        pytest.skip("this Pillow reads no JPEG 2000")
    content = {"f/a.png": encoded(rgb(LEVELS[0])), f"m/b{suffix}": encoded(rgb(LEVELS[1]), format, **options)}
    images = ImageFiles(store(tmp_path / "data", content, as_zip=as_zip))
    assert images.names == list(content)
    np.testing.assert_allclose(images[1].astype(int), LEVELS[1], atol=tolerance)


def test_files_left_out_are_counted_and_named(tmp_path: Path) -> None:
    beside = {
        "metadata.csv": b"",
        "dataset.json": b"{}",
        "a.txt": b"",
        "Thumbs.db": b"",
        ".DS_Store": b"",
        "README": b"",
    }
    ImageFiles(store(tmp_path / "known", {"a.png": encoded(rgb(LEVELS[0])), **beside}))  # a warning would be an error
    others = {f"f/{i:02}.heic": b"" for i in range(12)}
    store(tmp_path / "data", {"a.png": encoded(rgb(LEVELS[0])), **beside, **others})
    with pytest.warns(
        LeftOutWarning, match=r"data: left out 12 of 18 files, .*: f/00\.heic, .*, f/09\.heic and 2 more;"
    ):
        images = ImageFiles(tmp_path / "data")
    assert images.names == ["a.png"]
    assert images.left_out == list(others)
    with pytest.raises(ValueError, match=r"holds no images that Pillow reads, but a\.heic; pass"):
        ImageFiles(store(tmp_path / "none", {"a.heic": b""}))
    with pytest.raises(ValueError, match=r"holds no PNG files, but a\.jpg; pass"):
        ImageFiles(store(tmp_path / "jpeg", {"a.jpg": b""}), convert=False)


def test_links_are_followed_but_in_no_circle(tmp_path: Path) -> None:
    data = store(tmp_path / "data", {"f/a.png": encoded(rgb(LEVELS[0]))})
    store(tmp_path / "elsewhere", {"a.png": encoded(rgb(LEVELS[1])), "deep/b.png": encoded(rgb(LEVELS[2]))})
    (data / "m").symlink_to(tmp_path / "elsewhere")
    (data / "f" / "up").symlink_to(data)
    (tmp_path / "elsewhere" / "deep" / "self").symlink_to(tmp_path / "elsewhere")
    images = ImageFiles(data)
    assert images.names == ["f/a.png", "m/a.png", "m/deep/b.png"]
    np.testing.assert_array_equal(images[2], LEVELS[2])
    for name, target in (("gone.png", tmp_path / "gone.png"), ("group", tmp_path / "gone"), ("loop", data / "loop")):
        (data / name).symlink_to(target)
        with pytest.raises(FileNotFoundError, match=rf"{name}: is a link that leads nowhere"):
            ImageFiles(data)
        (data / name).unlink()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_images_are_turned_as_viewers_show_them(format: str, tmp_path: Path) -> None:
    upright = rgb(
        np.repeat(np.array([[[10, 60, 110], [160, 210, 250]]] * 3, dtype=np.uint8), 16, axis=1).repeat(16, axis=2)
    )
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees to the right
    lossless = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(format, {})
    content = {
        "a.png": encoded(upright),
        f"b.{format.lower()}": encoded(upright.transpose(PIL.Image.Transpose.ROTATE_90), format, exif=exif, **lossless),
    }
    images = ImageFiles(store(tmp_path, content))
    np.testing.assert_allclose(images[1].astype(int), images[0], atol=2)
    assert images[1].shape == (3, 32, 48)


def test_damaged_metadata_leave_the_image_as_it_is(tmp_path: Path) -> None:
    damaged = encoded(rgb(LEVELS[0]), exif=b"Exif\0\0II*\0 no directory")
    np.testing.assert_array_equal(ImageFiles(store(tmp_path, {"a.png": damaged}))[0], LEVELS[0])


def test_pixels_that_are_no_levels(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256, 32767, 65535]], dtype=np.uint16)
    cmyk = PIL.Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8), "CMYK")
    content = {
        "cmyk.jpg": encoded(cmyk.resize((48, 16), PIL.Image.Resampling.NEAREST), "JPEG", quality=100, subsampling=0),
        "cmyk.tif": encoded(cmyk, "TIFF"),
        "deep.png": encoded(PIL.Image.fromarray(deep)),
        "deep.tif": encoded(PIL.Image.fromarray(deep), "TIFF"),
    }
    images = ImageFiles(store(tmp_path / "data", content))
    colours = [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]
    photograph = images[0].transpose(1, 2, 0)[8:9, 8::16].astype(int)  # Adobe's files hold these levels inverted
    np.testing.assert_allclose(photograph, colours, atol=4)
    assert images[1].transpose(1, 2, 0).tolist() == colours
    assert images[2].tolist() == images[3].tolist() == [[[0, 0, 1, 127, 255]]]
    for name, image in (
        ("float", PIL.Image.fromarray(np.ones((2, 2), np.float32))),
        ("wide", PIL.Image.fromarray(np.full((2, 2), 70_000, np.int32))),
    ):
        images = ImageFiles(store(tmp_path / name, {"a.tif": encoded(image, "TIFF")}))
        with pytest.raises(ValueError, match=r"a\.tif cannot be read \(its mode is [FI]\)"):
            images[0]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_read_which_is_said_once(format: str, tmp_path: Path) -> None:
    frames = [rgb(levels) for levels in LEVELS[:3]]
    exact = {"WEBP": {"lossless": True}}.get(format, {})
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **exact)
    images = ImageFiles(store(tmp_path, {f"{name}.{format.lower()}": data for name in "ab"}))
    with pytest.warns(AnimationWarning, match=r"a\..* is animated; of it, and of others like it, the first frame"):
        first = images[0]
    np.testing.assert_array_equal(first, LEVELS[0])
    np.testing.assert_array_equal(images[1], LEVELS[0])  # a second warning would be an error
    with pytest.raises(ValueError, match=r"a\.png cannot be read \(.*\), expected a PNG of 8-bit"):
        ImageFiles(store(tmp_path / "plain", {"a.png": data}), convert=False)[0]


def test_an_image_has_one_page(tmp_path: Path) -> None:
    pages = [rgb(levels) for levels in LEVELS[:3]]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    images = ImageFiles(store(tmp_path, {"a.tiff": data}))
    with pytest.raises(ValueError, match=r"a\.tiff cannot be read \(it has 3 pages\), expected an image of one page"):
        images[0]


def test_files_that_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(rgb(LEVELS[0]))
    photograph = encoded(rgb(LEVELS[0]), "JPEG")
    for n, (data, reason) in enumerate(
        (
            (b"", "it is empty"),
            (b"<html>404</html>", "it is no image that Pillow reads"),
            (whole[:-30], ".*"),
            (whole[:40], ".*"),
            (photograph[:-20], ".*truncated.*"),
        )
    ):
        images = ImageFiles(store(tmp_path / str(n), {"a.png": data}))
        with pytest.raises(ValueError, match=rf"{n}: a\.png cannot be read \({reason}\), expected an image") as found:
            images[0]
        assert "0x" not in str(found.value)
    for data in (photograph, encoded(PIL.Image.fromarray(np.array([[300]], dtype=np.uint16)))):
        images = ImageFiles(store(tmp_path / "plain", {"a.png": data}), convert=False)
        with pytest.raises(
            ValueError, match=r"a\.png cannot be read \(.*\), expected a PNG of 8-bit RGB or grey levels"
        ):
            images[0]
    with monkeypatch.context() as limit:
        limit.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 20)  # half of what these have
        images = ImageFiles(store(tmp_path / "large", {"a.png": whole}))
        with pytest.raises(ValueError, match=r"a\.png cannot be read \(Image size \(48 pixels\) exceeds limit"):
            images[0]
    with pytest.raises(ValueError, match="holds no images that Pillow reads; pass a folder"):
        ImageFiles(store(tmp_path / "none", {"a.txt": b""}))
    with pytest.raises(FileNotFoundError, match="neither a folder nor a file"):
        ImageFiles(tmp_path / "missing")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="is not a whole zip file"):
        ImageFiles(tmp_path / "a.zip")
    loose = ImageFiles(store(tmp_path / "loose", {"a.png": whole, "b/b.png": whole}))
    with pytest.raises(ValueError, match=r"1 of 2 images, such as a\.png, are in no subfolder"):
        loose.subfolders()


def test_names_in_zip_files(tmp_path: Path) -> None:
    first, second = encoded(rgb(LEVELS[0])), encoded(rgb(LEVELS[1]))
    path = store(tmp_path / "twice.zip", {"./f/a.png": first, "m\\b.png": first}, as_zip=True)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("./f/a.png", second)
    images = ImageFiles(path)
    assert images.names == ["f/a.png", "m/b.png"]
    assert images.subfolders() == ["f", "m"]
    np.testing.assert_array_equal(images[0], LEVELS[1])  # as unpacking leaves it
    for name in ("/etc/a.png", "../a.png", "f/../../a.png"):
        with pytest.raises(ValueError, match=r"out\.zip: the name '.*a\.png' leads out of the zip file"):
            ImageFiles(store(tmp_path / "out.zip", {name: first}, as_zip=True))


def test_zip_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "a.zip", {"a.png": encoded(rgb(LEVELS[0]))}, as_zip=True)
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    path.write_bytes(whole[:6] + b"\x01" + whole[7 : directory + 8] + b"\x01" + whole[directory + 9 :])
    with pytest.raises(ValueError, match=r"a\.zip: a\.png is encrypted; unpack the zip file"):
        ImageFiles(path)
    for place, byte, reason in ((10, b"\x63", "compression"), (24, b"\x01", ""), (16, b"\x01", "CRC")):
        path.write_bytes(whole[: directory + place] + byte + whole[directory + place + 1 :])
        with pytest.raises(ValueError, match=rf"a\.zip: a\.png cannot be read \(.*{reason}"):
            ImageFiles(path)[0]
    monkeypatch.setattr(_reading, "_SMALL", 1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", encoded(PIL.Image.new("RGB", (1000, 1000)), "BMP"))
    with pytest.raises(ValueError, match=r"a\.bmp cannot be read \(.*unpacks from 0\.00.* MB to 3 MB"):
        ImageFiles(path)[0]


def test_labels_of_dataset_json(tmp_path: Path) -> None:
    content = {"a.png": encoded(rgb(LEVELS[0])), "b.png": encoded(rgb(LEVELS[1]))}
    assert ImageFiles(store(tmp_path, content)).json_labels() is None
    for labels, expected in (([["b.png", 1], ["a.png", "x"]], ["x", 1]), (None, None)):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert ImageFiles(tmp_path).json_labels() == expected
    (tmp_path / "dataset.json").write_text('{"labels": [["b.png", 1]]}')
    with pytest.raises(ValueError, match=r"dataset\.json has no label for 1 of 2 images, such as a\.png"):
        ImageFiles(tmp_path).json_labels()
    for text, reason in (
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"labels": ' + "[" * 99_999, "cannot be read .*nested too deep"),
        ('{"labels": [["a.png", 1], ["b.png", 1], ["a.png", 0]]}', "has two labels for one image"),
    ):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(ValueError, match=rf"dataset\.json {reason}.*, expected"):
            ImageFiles(tmp_path).json_labels()


def test_without_pillow_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ImageFiles(store(tmp_path, {"a.png": encoded(rgb(LEVELS[0]))}))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"Pillow .*pip install 'egtmetrics\[images\]'"):
        files[0]
