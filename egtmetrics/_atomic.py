"""Write a file or a folder completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def write_whole(path: str | Path, data: str | bytes | Iterable[bytes | memoryview]) -> None:
    """Write ``data`` to ``path`` so that a reader finds the old file or the complete new one, never a part.

    The data is written to a temporary file in the same folder and flushed to disk; the file then replaces ``path`` in
    one step. If anything fails, the temporary file is removed and ``path`` stays as it was; a process that is killed
    may leave it, hidden, under a name that ends in ``.egtmetrics.tmp``. Links are followed, and an existing file keeps
    its permissions. A device or a pipe, such as ``/dev/null``, cannot be replaced: it gets the data as it comes.

    Text is written as UTF-8. Names of files that are not UTF-8 hold halves of surrogate pairs, which UTF-8 lacks: they
    become escapes such as ``\\udcff``, as JSON has them. Parts of bytes are written as they come.

    Raises
    ------
    OSError
        The folder is missing or not writable, the disk is full, or ``path`` is a folder. It names ``path``.
    """
    data = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    parts = [data] if isinstance(data, bytes) else data
    with _named(path):
        target, kind = _target(path)
        if kind is not None and not stat.S_ISREG(kind):
            with target.open("wb", buffering=0) as file:
                _write(file.fileno(), parts)
            return
        temporary = _temporary(target)
        try:
            with temporary.open("xb", buffering=0) as file:
                _write(file.fileno(), parts)
                os.fsync(file.fileno())
            if kind is not None:
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException:  # includes Ctrl-C
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def check_whole(path: str | Path) -> None:
    """Raise the OSError that :func:`write_whole` would begin with. Call it before a long computation."""
    with _named(path):
        target, kind = _target(path)
        if kind is None or stat.S_ISREG(kind):
            temporary = _temporary(target)
            temporary.open("xb").close()
            temporary.unlink()
        elif not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_folder(folder: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` fill a temporary folder, which replaces ``folder`` when it is complete."""
    name = f".{folder.name}.{secrets.token_hex(4)}"
    temporary, old = folder.with_name(f"{name}.tmp"), folder.with_name(f"{name}.old")
    try:
        save(temporary)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _target(path: str | Path) -> tuple[Path, int | None]:
    """Return where ``path`` leads, and what is there: the mode of a file or a device, None for nothing yet."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        kind = None
    if kind is not None and stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if kind is not None and not stat.S_ISREG(kind):
        return Path(path), kind  # not what a link leads to: that of /dev/stdout may have no path
    return Path(os.path.realpath(path)), kind


def _temporary(target: Path) -> Path:
    """Return a new name in the folder of ``target``, no longer for a long name."""
    return target.with_name(f".{secrets.token_hex(8)}.egtmetrics.tmp")


def _write(file: int, parts: Iterable[bytes | memoryview]) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(file, view) :]


@contextlib.contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Name the file that the caller knows in an OSError, not the temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
