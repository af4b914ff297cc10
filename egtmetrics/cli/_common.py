"""What the commands share: the parser, and checks of files to write."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from egtmetrics._atomic import check_whole
from egtmetrics.cli._messages import given_words, one_line

_DATA_WITH_PATH = {"digits": False, "emoji": True, "ffhq": True}

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""Where a command adds its parser."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which can get options when its command is chosen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.late: list[Callable[[], None]] = []
        """Add options, or their help, that take long to find; ``egtmetrics --help`` does not wait for them."""

    def complete(self) -> None:
        """Add what is still missing."""
        while self.late:
            self.late.pop(0)()

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        self.complete()
        return super().parse_known_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"egtmetrics: error: {one_line(message)} (see {self.prog} --help)\n")


class DataArgument(argparse.Action):
    """``--data NAME [PATH]`` with ``nargs="+"``: becomes ``(name, path)``; digits have no path, the others have one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        name, *paths = values
        if name not in _DATA_WITH_PATH:
            raise argparse.ArgumentError(self, f"unknown data {name!r}; expected {', '.join(_DATA_WITH_PATH)}")
        if len(paths) != _DATA_WITH_PATH[name]:
            expected = f"one path, as in {option_string} {name} PATH" if _DATA_WITH_PATH[name] else "no path"
            raise argparse.ArgumentError(self, f"{name} takes {expected}, got {len(paths)}")
        setattr(namespace, self.dest, (name, Path(paths[0]) if paths else None))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a text that has several, and fills others to the width of the terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text if "\n" in text else super(argparse.RawDescriptionHelpFormatter, self)._fill_text
        return fill(text, width, indent)


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    *,
    check: Callable[[argparse.Namespace], object] | None = None,
    help: str,
    description: str,
    epilog: str,
) -> Parser:
    """Add the parser of a command; an epilog of several lines is printed as it is.

    ``run`` may return the exit status; None stands for 0. ``check`` refuses what ``run`` would refuse before it reads
    anything; a command that has it can be run by a plan.
    """
    parser = commands.add_parser(name, help=help, description=description, epilog=epilog, formatter_class=_Help)
    parser.set_defaults(run=run, check=check, parser=parser, plan_file=None)
    return parser


def seed(text: str) -> int:
    """Read the value of ``--random-state``."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not an integer of at least 0")
    return int(text)


def check_folder(folder: Path) -> None:
    """Refuse, before anything is computed, a folder that cannot be made or takes no files."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        check_whole(existing / "file")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def check_outputs(args: argparse.Namespace, outputs: Sequence[Path]) -> None:
    """Refuse, before anything is read, files that could not be written or that would be lost."""
    targets: dict[str, Path] = {}
    for path in outputs:
        if path.is_dir():
            raise ValueError(f"{path}: cannot be written, because it is a folder")
        if not path.parent.is_dir():
            raise ValueError(f"{path}: cannot be written, because {path.parent} is not a folder")
        check_whole(path)
        if path.exists() and not path.is_file():  # a device or a pipe, which many may write to
            continue
        target = os.path.realpath(path)
        if target in targets:
            raise ValueError(f"{path} and {targets[target]} are one file; name another one")
        targets[target] = path
        if not path.exists():
            continue
        for given in (file for word in given_words(args) for file in (word, word.rpartition(":")[0])):
            if Path(given).suffix and os.path.exists(given) and os.path.samefile(path, given):
                raise ValueError(f"{path}: is a file to read, so it cannot be written; name another one")
        with contextlib.suppress(OSError):  # a stdout that is no file
            if os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno())):
                raise ValueError(f"{path}: is where stdout goes, which would be lost; name another file")
