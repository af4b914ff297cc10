"""The command line: ``egtmetrics evaluate`` and the same for texts and images, ``report``, ``compare`` and others.

Results go to stdout, after the files have been written; progress, warnings and errors to stderr, one line each. The
exit status is 0, 2 for arguments, files or a stdout that cannot be used, 130 after Ctrl-C, and 141 if the reader of
stdout leaves early. With --tolerance it is 3 if a gap is beyond it, and 4 if that is undecided. Slow imports stand
where they are needed, so that ``egtmetrics --help`` is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence

from egtmetrics._errors import is_out_of_memory
from egtmetrics._threads import available_threads
from egtmetrics.cli import (
    audit,
    compare,
    encode,
    evaluate,
    fine_tune_encoder,
    info,
    plan,
    prepare,
    report,
    reproduce,
)
from egtmetrics.cli._common import Parser
from egtmetrics.cli._completion import PrintCompletion
from egtmetrics.cli._messages import EXPECTED, error_text, naming_cut_files, one_line_warnings
from egtmetrics.cli._streams import StdoutError, say, show, standard_streams


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name) and return the exit status."""
    _set_threads()
    args, status = argparse.Namespace(), 0
    with standard_streams():
        try:
            with _flushed_stdout(), one_line_warnings(args):
                command_parser().parse_args(argv, args)
                with naming_cut_files():
                    status = args.run(args) or 0
        except StdoutError as error:
            if isinstance(error.cause, BrokenPipeError):  # the reader has enough, as in `egtmetrics info | head -1`
                return 141
            say(f"error: stdout: {error.cause.strerror}")
            return 2
        except (*EXPECTED, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):  # of torch, or of threads
                raise
            say(f"error: {error_text(error, args)}")
            return 2
        except KeyboardInterrupt:
            say("interrupted")
            return 130
    return status


def _set_threads() -> None:
    """Tell OpenMP what to do in this process, before a library loads it: torch above all.

    By itself torch starts a thread for every core it sees, also where a container may use two of them, and a thread
    that waits for another spins. On a busy machine it spins while the other has no core: then two threads take ten
    times as long as one. docs/adr/0046 has the figures.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(available_threads()))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextlib.contextmanager
def _flushed_stdout() -> Iterator[None]:
    try:
        yield
    finally:
        show("")  # argparse prints help into the buffer


def command_parser() -> Parser:
    """Return the parser of the command line: the site shows its help, shells complete by it."""
    parser = Parser(
        prog="egtmetrics",
        description="Is a generative model equally good for every sensitive group?",
        epilog="Commands that train or encode use as many threads as this process may use cores, within the quota of "
        "its container, unless the environment has OMP_NUM_THREADS. Threads sleep while they wait, so that a busy "
        "machine does not slow them down, unless it has OMP_WAIT_POLICY.",
    )
    parser.add_argument("--version", action=info.Version)
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        help="print what completes commands, options and files in a shell, and exit; "
        "for bash: source <(egtmetrics --print-completion bash)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (evaluate, encode, report, compare, plan, prepare, audit, fine_tune_encoder, reproduce, info):
        command.add_to(commands)
    return parser
