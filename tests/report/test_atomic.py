"""A file is the old one or the new one, and nothing is left beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from egtmetrics._atomic import check_whole, write_whole

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


def test_what_is_no_file_gets_the_data_as_it_comes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    check_whole(tmp_path / "pipe")
    write_whole(tmp_path / "pipe", "new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    write_whole(os.devnull, "new")
    assert (tmp_path / "pipe").is_fifo()
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (".", IsADirectoryError),
        ("missing/file", FileNotFoundError),
        ("file/below", NotADirectoryError),
        ("x" * 256, OSError),
        ("loop", OSError),
    ],
)
def test_what_cannot_be_written_is_found_out_first(name: str, error: type[OSError], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for step in (check_whole, partial(write_whole, data="new")):
        with pytest.raises(error) as found:
            step(tmp_path / name)
        assert found.value.filename == str(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_the_longest_name_is_written_and_the_check_leaves_nothing(tmp_path: Path) -> None:
    check_whole(tmp_path / ("x" * 255))
    assert not list(tmp_path.iterdir())
    write_whole(tmp_path / ("x" * 255), "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_name_that_is_not_utf8_can_be_told_in_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_whole(tmp_path / name, json.dumps(name, ensure_ascii=False))
    assert json.loads((tmp_path / name).read_text(encoding="utf-8")) == name
