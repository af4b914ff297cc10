"""The command line: ``egtmetrics evaluate`` and the same for texts and images, ``report``, ``compare`` and others.

Results go to stdout; progress, warnings and errors to stderr, one line each. The exit status is 0, 2 for arguments or
files that cannot be used, and 130 after Ctrl-C. Slow imports stand where they are needed, so that ``egtmetrics --help``
is quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from egtmetrics import __version__
from egtmetrics.cli import compare, evaluate, evaluate_images, evaluate_text, info, report, reproduce
from egtmetrics.cli._common import Parser, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name) and return the exit status."""
    try:
        with _one_line_warnings():
            args = _parser().parse_args(argv)
            args.run(args)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output closed it, as in `egtmetrics info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        print(f"egtmetrics: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("egtmetrics: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> Parser:
    parser = Parser(prog="egtmetrics", description="Is a generative model equally good for every sensitive group?")
    parser.add_argument("--version", action="version", version=f"egtmetrics {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (evaluate, evaluate_text, evaluate_images, report, compare, reproduce, info):
        command.add_to(commands)
    return parser


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        from tqdm import tqdm

        tqdm.write(f"egtmetrics: warning: {one_line(message)}", file=sys.stderr)  # does not break the progress bar

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
