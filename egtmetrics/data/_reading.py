"""What every reader needs: only files on disk, and errors that name them, whatever a library raises."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egtmetrics._errors import first_line

_SMALL = 1 << 28
"""Bytes that any file may unpack to."""
_MOST_RATIO = 100
"""Features and pictures shrink a few times; only what is nearly all of one value shrinks more than this."""


def check_regular(path: Path) -> None:
    """Refuse what is no file on disk: a pipe would wait for ever, and a device need not end.

    Raises
    ------
    OSError
        The file is missing or cannot be opened, or is a folder.
    ValueError
        It is a pipe, a socket or a device.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError(
            f"{path}: is a pipe, a socket or a device, expected a file on disk; write its content to a file first"
        )
    with path.open("rb"):
        pass


@contextlib.contextmanager
def reading(path: Path, remedy: str = "write it again") -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into a ValueError that names the file."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # each library has errors of its own, not all of them ValueErrors
        if isinstance(error, OSError) and error.filename is not None:
            raise
        kind = path.suffix.lower() or "such a file"
        raise ValueError(f"{path}: cannot be read as {kind} ({first_line(error)}); {remedy}") from error


def check_unpacked(path: Path, packed: int, unpacked: int) -> None:
    """Refuse what unpacks to a size that no features and no pictures need."""
    if unpacked > _SMALL and unpacked > _MOST_RATIO * packed:
        raise ValueError(
            f"{path}: unpacks from {packed / 1e6:.3g} MB to {unpacked / 1e6:.3g} MB, which can fill the memory; if it "
            "is meant to be so large, save it without compression"
        )


def parsed_json(text: str | bytes) -> Any:
    """Parse JSON; every fault of it is a ValueError.

    Raises
    ------
    ValueError
        It is not JSON, is nested too deep, has one key twice, or holds half a character.
    """
    try:
        parsed = json.loads(text, object_pairs_hook=_unique)
        json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character, written as \\ud800 to \\udfff; write the whole one") from error
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return unique
