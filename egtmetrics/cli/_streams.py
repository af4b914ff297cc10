"""Stdout and stderr as they may be: absent, closed, full, or in an encoding that lacks a character."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TextIO

_ESCAPES = "egtmetrics.escapes"


class StdoutError(Exception):
    """Stdout takes no more text."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Let nothing about stdout and stderr stop the program, until the end of the block.

    A stream that is absent, as after ``>&-``, takes everything and shows nothing. A character that the encoding of a
    stream lacks becomes an escape, ``\\u2020``: those of JSON, so that JSON stays JSON.
    """
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                setattr(sys, name, stack.enter_context(_nowhere()))
                stack.callback(setattr, sys, name, None)
            elif hasattr(stream, "reconfigure"):
                stack.callback(_restore, stream, stream.errors)
                stream.reconfigure(errors=_ESCAPES)
        yield


def show(text: str) -> None:
    """Print results, at once; raise StdoutError where that fails."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _give_up(sys.stdout)
        raise StdoutError(error) from error


def width() -> int:
    """Return the columns of the terminal that stdout is, or those of a text that goes elsewhere."""
    from egtmetrics.report.tables import WIDTH

    return shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH


def say(text: str) -> None:
    """Print a line on stderr, if it takes any."""
    try:
        print(f"egtmetrics: {text}", file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _nowhere() -> TextIO:
    """Open a file that takes everything, above the numbers 0 to 2, which libraries write to whatever they are."""
    number = os.open(os.devnull, os.O_WRONLY)
    while number <= 2:
        number = os.open(os.devnull, os.O_WRONLY)
    return open(number, "w", encoding="utf-8", errors=_ESCAPES)


def _restore(stream: TextIO, errors: str) -> None:
    try:
        stream.flush()
    except OSError:  # of stderr, which argparse writes to: the results have been shown, or StdoutError was raised
        _give_up(stream)
    stream.reconfigure(errors=errors)  # type: ignore[attr-defined]


def _give_up(stream: TextIO) -> None:
    """Let a stream go nowhere that takes no more, or Python would try to write its buffer again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    stream.flush()


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPES, _escape)
