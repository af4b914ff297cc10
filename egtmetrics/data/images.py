"""Images as levels, whatever holds them; those of folders and zip files, and the labels that lie beside them."""

from __future__ import annotations

import abc
import contextlib
import io
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import first_line, listed
from egtmetrics._extras import extra
from egtmetrics.data._reading import check_unpacked, parsed_json

if TYPE_CHECKING:
    import pandas as pd

_LABELS = "dataset.json"
_NO_IMAGES = ("thumbs.db", "desktop.ini", "license", "readme")
_NO_IMAGE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".md", ".html", ".yaml", ".yml", ".log")
"""What people keep beside images; other files that Pillow does not read may be images, so a warning names them."""
_NOT_BY_PILLOW = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow only recognises, or hands to another program."""
_ANIMATIONS = ("GIF", "PNG", "WEBP")
"""Formats whose frames are shown one after another. Those of others, such as TIFF, are pages or layers."""
_CHANNELS = {"L": 1, "RGB": 3}
"""Pillow's modes whose pixels are levels as they are, and their channels."""
_WITH_ALPHA = ("LA", "P", "PA", "RGBA")
_COLOURS = ("CMYK", "HSV", "RGBX", "YCbCr")
"""Modes that Pillow's arithmetic turns into RGB."""


class LeftOutWarning(UserWarning):
    """A folder or zip file holds files that are not read, but may be images."""


class AnimationWarning(UserWarning):
    """An image is animated; its first frame is read."""


class ImageSource(abc.ABC):
    """Images in a fixed order, with their labels; each is read when it is asked for.

    ``source[i]`` is a uint8 array ``(channels, height, width)`` of levels from 0 to 255, with one channel (grey) or
    three (RGB). docs/data.md says what becomes of other kinds of pixels. Nothing is kept in memory, and every process
    opens files for itself. :func:`egtmetrics.data.open_source` makes one of whatever holds images.

    Raises
    ------
    ValueError
        From ``source[i]``: the image is damaged, too large for Pillow, or has several pages or pixels that are no
        levels. The message names it.
    ImportError
        Pillow is missing.

    Warns
    -----
    AnimationWarning
        Once, by the first image that is animated.
    """

    kind: ClassVar[str] = "images"
    path: str | Path
    """What holds the images, as it was given."""
    names: Sequence[str] | None = None
    """Of the images, such as those of files; None where they have none."""
    left_out: Sequence[str] = ()
    """Names of files that are not read, but may be images."""
    _convert = True
    _told = False

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @property
    def default_groups(self) -> str | None:
        """The key of the labels that are the groups where none are asked for; None if those have to be named."""
        return None

    @abc.abstractmethod
    def labels(self, keys: Sequence[str]) -> pd.DataFrame:
        """Return labels that are stored with the images: one column of text for each key, None where there is none.

        Raises
        ------
        ValueError
            There are none of this name; the message says which there are.
        """

    @abc.abstractmethod
    def _read(self, index: int) -> bytes:
        """Return the file of an image."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        with extra("images", "reading images needs Pillow"):
            import PIL.Image
        name = self.names[index] if self.names is not None else f"row {range(len(self))[index] + 1}"
        data = b""
        try:
            data = self._read(index)
            with PIL.Image.open(io.BytesIO(data), formats=sorted(set(formats(self._convert).values()))) as image:
                animated = image.format in _ANIMATIONS and getattr(image, "is_animated", False)
                levels = _levels(image, convert=self._convert)
        except Exception as error:  # each format has errors of its own
            reason = first_line(error)
            if isinstance(error, PIL.UnidentifiedImageError):
                reason = "it is no image that Pillow reads" if data else "it is empty"
            expected = "an image of one page" if self._convert else "a PNG of 8-bit RGB or grey levels"
            raise ValueError(
                f"{self.path}: {name} cannot be read ({reason}), expected {expected}; convert or remove it"
            ) from error
        if animated and not self._told:
            self._told = True
            warnings.warn(
                f"{self.path}: {name} is animated; of it, and of others like it, the first frame is read",
                AnimationWarning,
                stacklevel=2,
            )
        return levels


class ImageFiles(ImageSource):
    """The images of a folder or zip file, read one at a time, as levels from 0 to 255.

    ``files[i]`` is a uint8 array ``(channels, height, width)`` with one channel (grey) or three (RGB), turned as its
    EXIF orientation says. Files in all subfolders count, also behind links, in the order of their names; hidden files
    and folders are left out.

    Parameters
    ----------
    path
        A folder or a zip file with images that Pillow reads: PNG, JPEG, WEBP, BMP, TIFF, GIF and others, by their
        suffixes.
    convert
        Turn into levels what is stored in another way. Transparent images are put over white. Of 16-bit grey the upper
        eight bits are taken, as Pillow does of 16-bit colours; CMYK becomes RGB by Pillow's arithmetic, without colour
        profiles. Of an animation the first frame is read. False accepts only PNG files of 8-bit grey or RGB levels,
        which need no conversion.

    Raises
    ------
    OSError
        There is no such file or folder, or a link in it leads nowhere.
    ValueError
        A zip file that cannot be read, or no images; from ``files[i]``, a file that is damaged, too large for Pillow,
        or has several pages or pixels that are no levels.
    ImportError
        Pillow is missing.

    Warns
    -----
    LeftOutWarning
        Other files that may be images are left out.
    AnimationWarning
        Once, by the first image that is animated.

    Notes
    -----
    Nothing is kept in memory: each item opens its file. Every process opens the zip file for itself. Where a zip file
    has one name twice, the later file replaces the earlier one, as when it is unpacked.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import PIL.Image
    >>> from egtmetrics.data import ImageFiles
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "cats").mkdir()
    ...     PIL.Image.new("RGBA", (4, 2), (255, 0, 0, 0)).save(Path(folder, "cats", "a.png"))
    ...     files = ImageFiles(folder)
    ...     levels = files[0]
    >>> files.names, files.subfolders(), levels.shape, levels[:, 0, 0].tolist()
    (['cats/a.png'], ['cats'], (3, 2, 4), [255, 255, 255])
    """

    names: list[str]
    """Names of the images, relative to the folder or in the zip file, with slashes."""
    left_out: list[str]
    """Names of the other files that may be images."""

    def __init__(self, path: str | Path, *, convert: bool = True) -> None:
        self.path: Path = Path(path)
        self._convert = convert
        self._files = _Zip(self.path) if self.path.is_file() else _Folder(self.path)
        found = sorted(name for name in self._files.names() if not _is_hidden(name))
        suffixes = formats(convert)
        self.names = [name for name in found if suffix_of(name) in suffixes]
        self.left_out = [name for name in found if suffix_of(name) not in suffixes and _may_be_image(name)]
        self._has_labels = _LABELS in found
        kind = "images that Pillow reads" if convert else "PNG files"
        others = listed(self.left_out)
        if not self.names:
            raise ValueError(
                f"{path} holds no {kind}{f', but {others}' if others else ''}; pass a folder or zip file of them"
            )
        if others:
            warnings.warn(
                f"{path}: left out {len(self.left_out)} of {len(found)} files, which are no {kind}: {others}; convert "
                "them, or move them away",
                LeftOutWarning,
                stacklevel=2,
            )

    def __len__(self) -> int:
        return len(self.names)

    def _read(self, index: int) -> bytes:
        return self._files.read(self.names[index])

    @property
    def default_groups(self) -> str:
        """``json`` if ``dataset.json`` has labels, else ``folder``."""
        return "folder" if self.json_labels() is None else "json"

    def labels(self, keys: Sequence[str]) -> pd.DataFrame:
        """Return the column ``group``, of ``folder`` (:meth:`subfolders`) or ``json`` (:meth:`json_labels`)."""
        import pandas as pd

        found: list[Any] | None
        match list(keys):
            case ["folder"]:
                found = self.subfolders()
            case ["json"]:
                found = self.json_labels()
            case _:
                raise ValueError(
                    f"{self.path}: groups {','.join(keys)!r} are unknown; choose json, folder, FILE:KEY, or oracle for "
                    "FAKE"
                )
        if found is None:
            raise ValueError(f"{self.path}: has no {_LABELS} with labels; give the groups in another way")
        return pd.DataFrame({"group": list(map(str, found))}, dtype=object)

    def subfolders(self) -> list[str]:
        """Return the name of each image's folder, without the folders above it.

        Raises
        ------
        ValueError
            An image is not in a subfolder.
        """
        loose = [name for name in self.names if "/" not in name]
        if loose:
            raise ValueError(
                f"{self.path}: {len(loose)} of {len(self)} images, such as {loose[0]}, are in no subfolder that could "
                f"name their group; sort them into subfolders, or give labels in {_LABELS} or in a table"
            )
        return [name.rsplit("/", 2)[-2] for name in self.names]

    def json_labels(self) -> list[Any] | None:
        """Return each image's label from ``dataset.json``, ``{"labels": [["00000/img0.png", 1], ...]}``.

        None if there is no such file, or if its labels are null.

        Raises
        ------
        ValueError
            The file cannot be read, or has no label for an image.
        """
        if not self._has_labels:
            return None
        label_of = self._json_labels()
        if label_of is None:
            return None
        missing = [name for name in self.names if name not in label_of]
        if missing:
            raise ValueError(
                f"{self.path}: {_LABELS} has no label for {len(missing)} of {len(self.names)} images, such as "
                f"{missing[0]}; add them, or give the groups in another way"
            )
        return [label_of[name] for name in self.names]

    def _json_labels(self) -> dict[str, Any] | None:
        expected = 'expected {"labels": [[name, label], ...]}'
        try:
            labels = parsed_json(self._files.read(_LABELS))["labels"]
            label_of = None if labels is None else dict(labels)
        except Exception as error:
            raise ValueError(f"{self.path}: {_LABELS} cannot be read ({error!r}), {expected}") from error
        if label_of is not None and len(label_of) < len(labels):
            raise ValueError(f"{self.path}: {_LABELS} has two labels for one image, {expected}")
        return label_of


def formats(convert: bool = True) -> dict[str, str]:
    """Return the formats that Pillow reads by the suffixes of their files; PNG alone if nothing is to be converted."""
    if not convert:
        return {".png": "PNG"}
    with extra("images", "reading images needs Pillow"):
        import PIL.Image
    PIL.Image.init()
    known = PIL.Image.registered_extensions()
    return {suffix: name for suffix, name in known.items() if name in PIL.Image.OPEN and name not in _NOT_BY_PILLOW}


def _levels(image: Any, *, convert: bool) -> NDArray[np.uint8]:
    """Return ``(channels, height, width)``."""
    import PIL.ImageOps

    several = getattr(image, "is_animated", False) and image.format != "MPO"  # whose other pictures are previews
    if several and not (convert and image.format in _ANIMATIONS):
        raise ValueError(f"it has {image.n_frames} {'frames' if image.format in _ANIMATIONS else 'pages'}")
    image.load()
    with contextlib.suppress(Exception):  # damaged metadata: viewers show the image as it is
        PIL.ImageOps.exif_transpose(image, in_place=True)
    plain = _plain(image) if convert else image
    if plain.mode not in _CHANNELS:
        raise ValueError(f"its mode is {plain.mode}")
    levels = np.array(plain).reshape(plain.height, plain.width, _CHANNELS[plain.mode])
    return np.ascontiguousarray(levels.transpose(2, 0, 1))


def _plain(image: Any) -> Any:
    """Put transparency over white, and turn other kinds of pixels into levels where they say what they mean."""
    import PIL.Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        deep = np.asarray(image).astype(np.int64)
        if "transparency" in image.info or deep.min(initial=0) < 0 or deep.max(initial=0) > 65535:
            raise ValueError("its 16-bit levels are transparent or out of range")
        return PIL.Image.fromarray((deep >> 8).astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        opaque = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("L" if image.mode in ("L", "LA") else "RGB")
    return image.convert("RGB") if image.mode in _COLOURS else image


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _may_be_image(name: str) -> bool:
    file = PurePosixPath(name)
    return file.name.lower() not in _NO_IMAGES and file.suffix.lower() not in _NO_IMAGE_SUFFIXES


class _Folder:
    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is neither a folder nor a file; pass images in a folder or zip file")
        self.path = path

    def names(self) -> list[str]:
        return list(_walk(self.path, "", ()))

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


def _walk(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yield the names of files in a folder and those below, also behind links, but not in a folder inside itself."""
    here = (*above, os.path.realpath(folder))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not os.path.exists(entry.path):
                raise FileNotFoundError(f"{entry.path}: is a link that leads nowhere; repair or remove it")
            if entry.is_file():
                yield prefix + entry.name
            elif entry.is_dir() and not (entry.is_symlink() and os.path.realpath(entry.path) in here):
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", here)


class _Zip:
    """A zip file that every process opens for itself: after a fork, a shared handle would share its position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: zipfile.ZipFile | None = None
        self._pid = -1
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._open().infolist():
            parts = [part for part in member.filename.replace("\\", "/").split("/") if part != "."]  # \\ from Windows
            if parts[0] == "" or ".." in parts:
                raise ValueError(
                    f"{path}: the name {member.filename!r} leads out of the zip file; pack it again from its folder"
                )
            if member.flag_bits & 1:
                raise ValueError(f"{path}: {member.filename} is encrypted; unpack the zip file, and pass the folder")
            if not member.is_dir():
                self._members["/".join(parts)] = member

    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        check_unpacked(self.path, member.compress_size, member.file_size)
        return self._open().read(member)

    def _open(self) -> zipfile.ZipFile:
        if self._file is None or self._pid != os.getpid():
            try:
                self._file, self._pid = zipfile.ZipFile(self.path), os.getpid()
            except OSError:
                raise
            except Exception as error:  # of damaged directories, not only BadZipFile
                raise ValueError(
                    f"{self.path} is not a whole zip file ({first_line(error)}); pass a folder or zip file"
                ) from error
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_pid": -1}
