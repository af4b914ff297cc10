"""A file is the old one or the new one, and nothing is left beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from egtmetrics.report import write_whole

LIMITED_WRITE = """
import resource, sys
from egtmetrics.report import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a disk that is full after 1000 bytes
try:
    write_whole(sys.argv[1], "x" * 2000)
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error.filename}: {error.strerror}")
"""


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_whole(tmp_path / "text", "Fréchet\n")
    write_whole(str(tmp_path / "bytes"), b"\x00\xff")
    assert (tmp_path / "text").read_bytes() == "Fréchet\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes", "text"]


@pytest.mark.parametrize("before", [None, "old and whole"])
def test_a_write_that_fails_midway_leaves_what_was_there(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    if before is not None:
        path.write_text(before)
    run = subprocess.run(
        [sys.executable, "-c", LIMITED_WRITE, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert run.returncode == 1
    assert str(path) in run.stderr  # the name the caller gave, not that of the temporary file
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == ({} if before is None else {"result.json": before})


def test_permissions_are_kept_or_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o640)
    (tmp_path / "usual").touch()
    write_whole(tmp_path / "old", "new")
    write_whole(tmp_path / "new", "new")
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe is not a regular file"):
        write_whole(tmp_path / "pipe", "new")
    with pytest.raises(OSError, match="is not a regular file"):
        write_whole(tmp_path, "new")
    with pytest.raises(FileNotFoundError, match=r"missing/file'"):
        write_whole(tmp_path / "missing" / "file", "new")
