"""What the commands share: the checks of what is to be written, and one line of text for any error."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

_DATA_WITH_PATH = {"digits": False, "emoji": True, "ffhq": True}

Commands: TypeAlias = "argparse._SubParsersAction[Any]"
"""Where a command adds its parser."""


class DataArgument(argparse.Action):
    """``--data NAME [PATH]`` with ``nargs="+"``: becomes ``(name, path)``, where digits have no path and others one."""

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
) -> argparse.ArgumentParser:
    """Add the parser of a command, the lines of its epilog as they are."""
    kind = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=description, epilog=epilog, formatter_class=kind
    )
    parser.set_defaults(run=run)
    return parser


def check_writable(paths: Sequence[Path]) -> None:
    for path in paths:
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            reason = "it is a folder" if path.is_dir() else f"{folder} is no folder to write in"
            raise ValueError(f"{path}: cannot be written, because {reason}")


def one_line(message: object) -> str:
    """Return the text of an error or warning without line breaks, the file in front where the system names one."""
    if isinstance(message, OSError) and message.filename is not None and message.strerror:
        message = f"{message.filename}: {message.strerror}"
    return " ".join(str(message).split()) or type(message).__name__
