"""What the commands share: the checks of what is to be written, and one line of text for any error."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[Any]"
"""Where a command adds its parser."""


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
