"""Images with groups: the digits, and synthetic files in the layouts of the emoji package and of FFHQ."""

from __future__ import annotations

import json
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.datasets import load_digits

from egtmetrics.paper.datasets import _persons, load_image_data

TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")


def entry(codes: str, short_name: str, *, subcategory: str = "person-role", tones: bool = False) -> dict[str, Any]:
    image = f"{codes.lower()}.png"
    result: dict[str, Any] = {
        "unified": codes,
        "short_name": short_name,
        "image": image,
        "category": "People & Body",
        "subcategory": subcategory,
    }
    if tones:
        result["skin_variations"] = {tone: {"image": f"{codes}-{tone}.png".lower()} for tone in TONES}
    return result


EMOJI = [
    entry("1F468-200D-1F33E", "male-farmer", tones=True),
    entry("1F469-200D-1F33E", "female-farmer", tones=True),
    entry("1F9D1-200D-1F33E", "farmer", tones=True),
    entry("1F9DE-200D-2642-FE0F", "male_genie"),
    entry("1F9DE-200D-2640-FE0F", "female_genie"),
    entry("1F934", "prince"),
    entry("1F478", "princess"),
    entry("1F468-200D-1F469-200D-1F466", "man-woman-boy", subcategory="family"),
    {**entry("2642-FE0F", "male_sign"), "category": "Symbols"},
    {**entry("1F91D", "handshake"), "skin_variations": {"1F3FB-1F3FC": {"image": "both.png"}}},
]
"""By images: 6 farmers, 1 genie and 1 prince of each gender; the rest has no gender, or is of no single person."""


def pictures(entries: list[dict[str, Any]]) -> list[str]:
    return [
        image
        for emoji in entries
        for image in (emoji["image"], *(tone["image"] for tone in emoji.get("skin_variations", {}).values()))
    ]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The level of red says which image it is; the left half is transparent."""
    folder = tmp_path_factory.mktemp("emoji") / "package"
    images = folder / "img" / "google" / "64"
    images.mkdir(parents=True)
    for level, name in enumerate(pictures(EMOJI)):
        image = np.zeros((64, 64, 4), dtype=np.uint8)
        image[:, 32:] = (level, 0, 0, 255)
        PIL.Image.fromarray(image).save(images / name)
    (folder / "emoji.json").write_text(json.dumps(EMOJI))
    return folder


@pytest.fixture(scope="module")
def flatten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of which the features are known: the pixels."""
    path = tmp_path_factory.mktemp("encoder") / "flatten.pt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
        torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 3, 2, 2)).save(str(path))  # type: ignore[no-untyped-call]
    return path


def test_digits() -> None:
    data = load_image_data("digits")
    digits = load_digits()
    np.testing.assert_array_equal(data.images[:, 0] * data.n_levels, digits.images)
    assert [data.group_names[group] for group in data.groups[:10]] == ["0-4"] * 5 + ["5-9"] * 5
    assert sorted(set(digits.target[data.groups == 1])) == [5, 6, 7, 8, 9]
    np.testing.assert_array_equal(data.encode(data.images), digits.data / 16)
    assert data.encode(data.images).dtype == np.float64


@pytest.mark.parametrize("packed", [False, True])
def test_emoji_of_one_gender_each(package: Path, flatten: Path, tmp_path: Path, packed: bool) -> None:
    path = package
    if packed:
        path = tmp_path / "emoji.tgz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(package, "package")
    data = load_image_data("emoji", path, encoder=flatten)
    assert data.group_names == ("man", "woman")
    names = pictures(EMOJI)
    shown = [names[round(255 * float(image[0, 0, -1]))] for image in data.images]
    by_group = {
        "man": {*pictures(EMOJI[0:1]), "1f9de-200d-2642-fe0f.png", "1f934.png"},
        "woman": {*pictures(EMOJI[1:2]), "1f9de-200d-2640-fe0f.png", "1f478.png"},
    }
    for group, name in enumerate(data.group_names):
        of_group = [image for image, label in zip(shown, data.groups, strict=True) if label == group]
        assert (set(of_group), len(of_group)) == (by_group[name], 8)
    assert (data.images[..., :32] == 1.0).all()  # transparent, over white
    np.testing.assert_array_equal(data.encode(data.images), data.images.reshape(16, -1))


def test_near_duplicates_share_a_cluster(package: Path, flatten: Path, tmp_path: Path) -> None:
    """Of one role, in all skin tones, both genders, and mirrored."""
    data = load_image_data("emoji", package, encoder=flatten)
    assert data.clusters is not None
    names = pictures(EMOJI)
    shown = [names[round(255 * float(image[0, 0, -1]))] for image in data.images]
    by_cluster = {frozenset(np.array(shown)[data.clusters == cluster]) for cluster in set(data.clusters)}
    genies = {"1f9de-200d-2642-fe0f.png", "1f9de-200d-2640-fe0f.png"}
    assert by_cluster == {frozenset(s) for s in (pictures(EMOJI[0:2]), genies, ("1f934.png", "1f478.png"))}
    path = tmp_path / "emoji.json"
    runner = "1F3C3-200D-2642-FE0F"
    path.write_text(json.dumps([entry(runner, "man-running"), entry(f"{runner}-200D-27A1-FE0F", "facing_right")]))
    assert set(_persons(path).values()) == {("man", "1F3C3")}
    assert load_image_data("digits").clusters is None


def test_digits_take_an_encoder(flatten: Path) -> None:
    data, pixels = load_image_data("digits", encoder=flatten), load_image_data("digits")
    np.testing.assert_allclose(data.encode(data.images[:5])[:, :64], pixels.encode(data.images[:5]), atol=1e-6)
    assert data.facts == {**pixels.facts, "features": str(flatten)}


def test_shrinking_averages_squares(package: Path, flatten: Path) -> None:
    data, small = (load_image_data("emoji", package, size=size, encoder=flatten) for size in (None, 4))
    assert small.images.shape == (16, 3, 4, 4)
    for row in range(4):
        for column in range(4):
            square = data.images[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            np.testing.assert_allclose(small.images[:, :, row, column], square.mean(axis=(2, 3)), rtol=1e-6)


@pytest.fixture
def ffhq(tmp_path: Path) -> Path:
    """Seven images of 8 x 8 in two folders, one of which has no label below."""
    folder = tmp_path / "ffhq"
    labels = []
    for i in range(7):
        file = folder / f"0000{i % 2}" / f"img{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((8, 8, 3), 30 * i, dtype=np.uint8)).save(file)
        labels.append([file.relative_to(folder).as_posix(), i // 4])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def test_folder_of_images(ffhq: Path, flatten: Path) -> None:
    data = load_image_data("ffhq", ffhq, encoder=flatten)
    order = [0, 2, 4, 6, 1, 3, 5]  # of the names
    np.testing.assert_allclose(data.images[:, 0, 0, 0] * 255, [30 * i for i in order], rtol=0, atol=1e-4)
    assert data.groups.tolist() == [i // 4 for i in order]
    assert data.group_names == ("group 0", "group 1")
    small = load_image_data("ffhq", ffhq, size=2, encoder=flatten)
    np.testing.assert_allclose(small.images[:, 2, 1, 1] * 255, [30 * i for i in order], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 0, 2, 2, 2, 2], r"has \[3, 0, 4\] images of groups 0, 1"),
        ([0] * 7, r"has \[7\] images of groups 0, 1, ..., expected two"),
        (None, r"has \[\] images of groups 0, 1, ..., expected two"),
        ([0, 1], r"no label for 5 of 7 images"),
        ([0, 1, 0.5, 0, 1, 0, 1], "has the label 0.5, expected integers from 0"),
        ([0, 1, -1, 0, 1, 0, 1], "has the label -1"),
        ([0, 1, True, 0, 1, 0, 1], "has the label True"),
        ([0, 1, 2**70, 0, 1, 0, 1], "has the label 1180591620717411303424"),
    ],
)
def test_refuses_labels(labels: Any, message: str, ffhq: Path, flatten: Path) -> None:
    names = [f"0000{i % 2}/img{i}.png" for i in range(7)]
    pairs = None if labels is None else [list(pair) for pair in zip(names, labels, strict=False)]
    (ffhq / "dataset.json").write_text(json.dumps({"labels": pairs}))
    with pytest.raises(ValueError, match=message):
        load_image_data("ffhq", ffhq, encoder=flatten)


def test_refuses_images_of_unlike_size(ffhq: Path, flatten: Path) -> None:
    PIL.Image.new("RGB", (8, 9)).save(ffhq / "00001" / "img3.png")
    with pytest.raises(ValueError, match=r"img3\.png has shape \(3, 9, 8\), but .*img0\.png \(3, 8, 8\)"):
        load_image_data("ffhq", ffhq, encoder=flatten)


@pytest.mark.parametrize("name", ["digits", "emoji", "ffhq"])
def test_edm_gets_what_it_is_set_up_for(name: str, package: Path, ffhq: Path, flatten: Path) -> None:
    path = {"digits": None, "emoji": package, "ffhq": ffhq}[name]
    data = load_image_data(name, path, **({} if name == "digits" else {"encoder": flatten}))
    x = (data.images.astype(np.float64) - data.mean) / data.spread
    if name == "ffhq":  # not measured, but as for the public checkpoints: levels from -1 to 1
        np.testing.assert_allclose(x, 2.0 * data.images - 1.0, rtol=0, atol=1e-6)
    else:
        assert abs(x.mean()) < 0.01
        assert x.std() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "faces"}, "name='faces' is unknown; expected one of digits, emoji, ffhq"),
        ({"name": "digits", "path": "x", "size": 4}, "path, size cannot be given for digits"),
        ({"name": "emoji"}, "path is None, but emoji comes with no Python package"),
        ({"name": "emoji", "path": "PACKAGE", "size": 48}, "size=48 does not divide images of 64 x 64"),
        ({"name": "ffhq", "path": "FFHQ", "size": 3}, "size=3 does not divide images of 8 x 8"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str, package: Path, ffhq: Path, flatten: Path) -> None:
    paths = {"PACKAGE": package, "FFHQ": ffhq}
    arguments = {
        name: paths.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()
    }
    if "path" in arguments and arguments["name"] != "digits":
        arguments["encoder"] = flatten
    with pytest.raises(ValueError, match=message):
        load_image_data(**arguments)


def test_refuses_what_is_no_package(package: Path, flatten: Path, tmp_path: Path) -> None:
    def load(path: Path) -> None:
        load_image_data("emoji", path, encoder=flatten)

    with pytest.raises(FileNotFoundError, match=r"holds no emoji\.json; pass the npm package"):
        load(tmp_path)
    packed = tmp_path / "cut.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(package, "package")
    packed.write_bytes(packed.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cut\.tgz is not a complete \.tgz file"):
        load(packed)
    broken = tmp_path / "broken"
    (broken / "img" / "google" / "64").mkdir(parents=True)
    (broken / "emoji.json").write_text('[{"unified": 3}]')
    with pytest.raises(ValueError, match=r"emoji\.json cannot be read"):
        load(broken)
    (broken / "emoji.json").write_text(json.dumps(EMOJI))
    PIL.Image.new("RGB", (64, 64)).save(broken / "img" / "google" / "64" / "1f934.png")
    with pytest.raises(ValueError, match="15 of 16 images are missing"):
        load(broken)
