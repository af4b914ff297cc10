"""Write a file completely or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path


def write_whole(path: str | Path, data: str | bytes) -> None:
    """Write ``data`` to ``path`` so that a reader finds the old file or the complete new one, never a part.

    The data is written to a temporary file in the same folder and flushed to disk; the file then replaces ``path`` in
    one step. If anything fails, the temporary file is removed and ``path`` stays as it was. Links are followed, and an
    existing file keeps its permissions.

    Raises
    ------
    OSError
        The folder is missing or not writable, the disk is full, or ``path`` is something other than a file.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is not a regular file, so it cannot be replaced; choose another name")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException as error:  # includes Ctrl-C
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):  # name the file that the caller knows, not the temporary one
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
