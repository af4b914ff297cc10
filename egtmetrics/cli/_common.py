"""What the commands share: the parser, checks of files to write, and errors in one line of text."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

_DATA_WITH_PATH = {"digits": False, "emoji": True, "ffhq": True}

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""Where a command adds its parser."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which can get options when its command is chosen."""

    late: Callable[[], None] | None = None
    """Adds options that take long to find, those of the metrics; ``egtmetrics --help`` does not wait for them."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        if self.late is not None:
            add, self.late = self.late, None
            add()
        return super().parse_known_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"egtmetrics: error: {message} (see {self.prog} --help)\n")


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


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    *,
    help: str,
    description: str,
    epilog: str,
) -> Parser:
    """Add the parser of a command; the lines of its epilog are printed as they are."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(name, help=help, description=description, epilog=epilog, formatter_class=kind)
    parser.set_defaults(run=run)
    return parser


def check_writable(paths: Sequence[Path]) -> None:
    for path in paths:
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            reason = "it is a folder" if path.is_dir() else f"{folder} is not a folder"
            raise ValueError(f"{path}: cannot be written, because {reason}")


def one_line(message: object) -> str:
    """Return the text of an error or warning without line breaks, the file in front where the system names one."""
    if isinstance(message, OSError) and message.filename is not None and message.strerror:
        message = f"{message.filename}: {message.strerror}"
    return " ".join(str(message).split()) or type(message).__name__
