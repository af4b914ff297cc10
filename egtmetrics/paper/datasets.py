"""Real images with groups, for training and comparison: digits, emoji of persons, and folders laid out as FFHQ."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from egtmetrics._validation import check_positive_int
from egtmetrics.data import ImageFiles
from egtmetrics.data._reading import check_unpacked, parsed_json
from egtmetrics.encoders import ImageEncoder

DATA = ("digits", "emoji", "ffhq")
"""Names of data for :func:`load_image_data`."""

_GENDERS = ("man", "woman")
_GENDER_OF_CODE = {"1F468": "man", "2642": "man", "1F469": "woman", "2640": "woman"}
"""The man, the male sign, the woman and the female sign: an emoji of one gender contains one of them."""
_PAIRS = (
    ("boy", "girl"),
    ("older_man", "older_woman"),
    ("prince", "princess"),
    ("santa", "mrs_claus"),
    ("man_dancing", "dancer"),
    ("pregnant_man", "pregnant_woman"),
)
"""Emoji that contain none of these but come in pairs, by their short names. Emoji without a counterpart are left out,
so that the groups differ in gender only."""
_GENDER_OF_NAME = {name: gender for pair in _PAIRS for gender, name in zip(_GENDERS, pair, strict=True)}
_ROLE_OF_NAME = {name: pair[0] for pair in _PAIRS for name in pair}
_NO_ROLE = {*_GENDER_OF_CODE, "200D", "FE0F", "27A1"}
"""Codes that say nothing of the role: gender, joiners, and the arrow of a mirrored image."""
_PNG_LEVELS = 255
_ENCODED_SIZE = 128
"""For EfficientNet-Lite0: three times as fast as at its default of 224, and twice the size of the images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData:
    """What :func:`load_image_data` returns: images, their groups, and how to encode them."""

    name: str
    images: NDArray[np.float32]
    """``(n, channels, height, width)``, levels scaled to [0, 1]."""
    groups: NDArray[np.int64]
    """``(n,)`` integers from 0."""
    group_names: tuple[str, ...]
    n_levels: int
    """Highest level of the files, 16 or 255: an image in [0, 1] is stored as its multiple, rounded."""
    mean: float
    spread: float
    """(image - mean) / spread has about mean 0 and standard deviation 0.5, which EDM expects."""
    encode: Callable[[NDArray[Any]], NDArray[np.float64]]
    """Images in [0, 1], ``(k, channels, height, width)``, to features ``(k, d)``."""
    clusters: NDArray[np.int64] | None = None
    """``(n,)`` numbers that near-duplicates share: a split that separates them gives too good results. None if there
    are no near-duplicates."""
    facts: Mapping[str, str]
    """What a reader of the results needs to know: source, licence, groups, features."""


def load_image_data(
    name: str,
    path: str | Path | None = None,
    *,
    size: int | None = None,
    encoder: str | Path | None = None,
    cache: str | Path | None = None,
) -> ImageData:
    """Load real images of two or more groups, with a suitable encoder.

    ========== ==================================================================== =========================
    name       images                                                               groups
    ========== ==================================================================== =========================
    ``digits`` scikit-learn's 1797 handwritten digits, grey, 8 x 8                  0-4 and 5-9
    ``emoji``  1016 persons of Noto Emoji, 64 x 64, composited over white           man and woman, 508 of each
    ``ffhq``   PNG files of one size, in a folder or zip file laid out as FFHQ      those of ``dataset.json``
    ========== ==================================================================== =========================

    Every man among the emoji has a counterpart woman of the same role and skin tone. Emoji of families, without gender
    or without a counterpart are left out. ``dataset.json`` is ``{"labels": [["00000/img0.png", 1], ...]}``: an integer
    from 0 for every image.

    Parameters
    ----------
    name
        One of :data:`DATA`.
    path
        For emoji, the npm package emoji-datasource-google 16.0.0: its folder, or the .tgz file of ``npm pack``. For
        ffhq, a folder or zip file. None for digits.
    size
        Height and width to shrink to by averaging squares of pixels; must divide both. Not for digits.
    encoder
        The ``model`` of :class:`egtmetrics.encoders.ImageEncoder`. By default the 64 pixels of digits, and
        EfficientNet-Lite0 on other images, enlarged to 128 x 128.
    cache
        Folder that keeps features of an encoder by content, see :class:`egtmetrics.encoders.ImageEncoder`.

    Raises
    ------
    ValueError
        An unknown name; a path or option that this data does not take, or a missing one; unreadable files; fewer than
        two groups.
    OSError
        There is no such file or folder.
    ImportError
        Pillow or the encoder's packages are missing.

    Notes
    -----
    All images are held in memory as float32: 3.4 GB for FFHQ at 64 x 64. FFHQ itself has not been loaded here; its
    code is tested with synthetic files of that layout.

    Examples
    --------
    >>> from egtmetrics.paper.datasets import load_image_data
    >>> data = load_image_data("digits")
    >>> data.images.shape, data.group_names, data.encode(data.images[:3]).shape
    ((1797, 1, 8, 8), ('0-4', '5-9'), (3, 64))
    """
    if name not in DATA:
        raise ValueError(f"name={name!r} is unknown; expected one of {', '.join(DATA)}")
    if name == "digits":
        options = {"path": path, "size": size}
        refused = [option for option, value in options.items() if value is not None]
        if refused:
            raise ValueError(f"{', '.join(refused)} cannot be given for {name}; leave it out")
        return _digits() if encoder is None else _encoded(_digits(), ImageEncoder(encoder, cache=cache), f"{encoder}")
    if path is None:
        raise ValueError(
            f"path is None, but {name} comes with no Python package; pass the folder or file that holds it"
        )
    encode = ImageEncoder(encoder, size=_ENCODED_SIZE if encoder is None else None, cache=cache)
    model = "EfficientNet-Lite0 (ImageNet), 1280 means of its last maps" if encoder is None else f"{encoder}"
    load = _emoji if name == "emoji" else _folder
    return load(Path(path), size, encode, model)


def _digits() -> ImageData:
    digits = load_digits()
    return ImageData(
        name="digits",
        images=(digits.images[:, np.newaxis] / 16.0).astype(np.float32),
        groups=(digits.target >= 5).astype(np.int64),
        group_names=("0-4", "5-9"),
        n_levels=16,
        mean=4.9 / 16,
        spread=12.0 / 16,
        encode=lambda images: np.asarray(images, dtype=np.float64).reshape(len(images), -1),
        facts={
            "data": "handwritten digits of scikit-learn (UCI, CC BY 4.0), 1797 images of 8 x 8",
            "groups": "the digit shown: 0 to 4, or 5 to 9",
            "features": "64 pixels",
        },
    )


def _encoded(data: ImageData, encode: ImageEncoder, model: str) -> ImageData:
    return dataclasses.replace(data, encode=_in_float64(encode), facts={**data.facts, "features": model})


def _emoji(path: Path, size: int | None, encode: ImageEncoder, model: str) -> ImageData:
    with _unpacked(path) as folder:
        persons = _persons(folder / "emoji.json")
        files = ImageFiles(folder / "img" / "google" / "64")
        rows = [i for i, name in enumerate(files.names) if name in persons]
        if len(rows) < len(persons):
            raise ValueError(f"{path}: {len(persons) - len(rows)} of {len(persons)} images are missing; unpack again")
        levels = np.stack([np.broadcast_to(files[i], (3, 64, 64)) for i in rows])
    images = _shrink(levels.astype(np.float32) / np.float32(_PNG_LEVELS), size)
    shown, roles = zip(*(persons[files.names[i]] for i in rows), strict=True)
    _, clusters = np.unique(roles, return_inverse=True)
    return ImageData(
        name="emoji",
        images=images,
        groups=np.array([_GENDERS.index(gender) for gender in shown], dtype=np.int64),
        group_names=_GENDERS,
        n_levels=_PNG_LEVELS,
        mean=float(images.mean(dtype=np.float64)),
        spread=2.0 * float(images.std(dtype=np.float64)),
        encode=_in_float64(encode),
        clusters=clusters.astype(np.int64),
        facts={
            "data": f"{len(images)} persons of Noto Emoji (Apache-2.0; npm emoji-datasource-google), over white, "
            f"{images.shape[2]} x {images.shape[3]}",
            "groups": "gender, by the characters that emoji are composed of; every man has a counterpart woman",
            "near-duplicates": f"{clusters.max() + 1} roles, each in both genders, up to 6 skin tones, some mirrored",
            "features": model,
        },
    )


def _folder(path: Path, size: int | None, encode: ImageEncoder, model: str) -> ImageData:
    files = ImageFiles(path, convert=False)
    groups = _read_groups(files)
    levels = np.empty((len(files), *files[0].shape), dtype=np.uint8)
    for i, name in enumerate(files.names):
        image = files[i]
        if image.shape != levels.shape[1:]:
            raise ValueError(
                f"{path}: {name} has shape {image.shape}, but {files.names[0]} {levels.shape[1:]} (channels, height, "
                "width); bring all to one"
            )
        levels[i] = image
    scaled = levels.astype(np.float32) / np.float32(_PNG_LEVELS / 2) - np.float32(1.0)
    images = _shrink((scaled + np.float32(1.0)) / np.float32(2.0), size)  # by way of [-1, 1]: the bits of earlier runs
    return ImageData(
        name="ffhq",
        images=images,
        groups=groups,
        group_names=tuple(f"group {group}" for group in range(groups.max() + 1)),
        n_levels=_PNG_LEVELS,
        mean=0.5,
        spread=0.5,  # to [-1, 1], as in the public checkpoints: EDM's sigma_data of 0.5 belongs to that range
        encode=_in_float64(encode),
        facts={
            "data": f"{len(images)} images of {path.name}, {images.shape[2]} x {images.shape[3]}",
            "groups": "dataset.json",
            "features": model,
        },
    )


def _read_groups(files: ImageFiles) -> NDArray[np.int64]:
    labels = files.json_labels() or []
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < len(files)]
    if wrong:
        raise ValueError(
            f"{files.path}: dataset.json has the label {wrong[0]!r}, expected integers from 0, one for each group"
        )
    groups = np.array(labels, dtype=np.int64)
    counts = np.bincount(groups)
    if len(counts) < 2 or not counts.all():
        raise ValueError(
            f"{files.path} has {counts.tolist()} images of groups 0, 1, ..., expected two groups or more and none "
            "empty; add a dataset.json with their labels"
        )
    return groups


def _persons(path: Path) -> dict[str, tuple[str, str]]:
    """Return gender and role of each image of a single person with a gender, by its file's name."""
    try:
        persons: dict[str, tuple[str, str]] = {}
        for entry in parsed_json(path.read_bytes()):
            codes, short_name = entry["unified"].split("-"), entry["short_name"]
            genders = [_GENDER_OF_CODE[code] for code in codes if code in _GENDER_OF_CODE]
            gender = next(iter(genders), _GENDER_OF_NAME.get(short_name))
            if gender is None or entry["category"] != "People & Body" or entry["subcategory"] == "family":
                continue
            role = _ROLE_OF_NAME.get(short_name, "-".join(code for code in codes if code not in _NO_ROLE))
            for variant in (entry, *entry.get("skin_variations", {}).values()):
                persons[variant["image"]] = gender, role
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error!r}), expected that of the npm package emoji-datasource-google 16.0.0"
        ) from error
    return persons


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yield the package's folder; a .tgz file is unpacked into a temporary one."""
    with contextlib.ExitStack() as stack:
        folder = path
        if path.is_file():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "package")
            try:
                with tarfile.open(path) as archive:
                    wanted = [m for m in archive if m.name.startswith(("package/emoji.json", "package/img/google/64/"))]
                    check_unpacked(path, path.stat().st_size, sum(member.size for member in wanted))
                    archive.extractall(folder.parent, members=wanted, filter="data")
            except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f"{path} is not a complete .tgz file ({error}); pass that of npm pack, or a folder"
                ) from error
        if not (folder / "emoji.json").is_file():
            raise FileNotFoundError(
                f"{path} holds no emoji.json; pass the npm package emoji-datasource-google 16.0.0 (npm pack "
                "emoji-datasource-google@16.0.0), its .tgz file or the folder package/ in it"
            )
        yield folder


def _shrink(images: NDArray[np.float32], size: int | None) -> NDArray[np.float32]:
    """Mean over squares of pixels."""
    if size is None:
        return images
    n, channels, height, width = images.shape
    if height != width or height % check_positive_int(size, "size"):
        raise ValueError(f"size={size} does not divide images of {height} x {width}; pass a divisor of both")
    factor = height // size
    shrunk: NDArray[np.float32] = images.reshape(n, channels, size, factor, size, factor).mean(axis=(3, 5))
    return shrunk


def _in_float64(encode: ImageEncoder) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
    return lambda images: encode(images).astype(np.float64)
