"""Errors and warnings of the library as a user of the command line reads them: in one line, in words of options."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from egtmetrics._errors import is_out_of_memory
from egtmetrics._text import shown
from egtmetrics.cli._streams import say

EXPECTED = (OSError, ValueError, TypeError, ImportError, MemoryError)
"""Errors that say what cannot be used or done; all others are faults of the program, and keep their traceback."""

_QUOTED = r"""'[^']*'|"[^"]*\""""
_VALUE = rf"""{_QUOTED}|[^\s,;()'"]*[^\s,;:.()'"]"""


def error_text(error: BaseException, args: argparse.Namespace) -> str:
    """Return what an error says in one line, the file in front where the system names one."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}")
    if is_out_of_memory(error):
        return f"not enough memory ({one_line(error)}); free some, pass fewer samples, or allow the program more"
    return in_options(one_line(error), args)


def one_line(message: object) -> str:
    """Return the text of an error or warning without line breaks and control characters."""
    return " ".join(shown(str(message)).split()) or type(message).__name__


@contextlib.contextmanager
def one_line_warnings(args: argparse.Namespace) -> Iterator[None]:
    """Print warnings in one line each."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode():  # does not break the progress bar
            say(f"warning: {in_options(one_line(message), args)}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def naming_cut_files() -> Iterator[None]:
    """Say which file was cut short if that ends the program."""
    from egtmetrics.ops import ending_on_cut_files

    start = "\n" if sys.stderr.isatty() else ""  # a progress bar may stand in the line
    remedy = "was cut short while it was read; write a new file and rename it to replace one that is in use"
    with ending_on_cut_files(f"{start}egtmetrics: error: ", f": {remedy}\n"):
        yield


def in_options(text: str, args: argparse.Namespace) -> str:
    """Say in options what a message of the library says in arguments of Python.

    ``subset_size=20`` becomes ``--subset-size 20``, ``Frame(..., missing_groups='nan')`` becomes ``--missing-groups
    nan``, and a name with an underscore alone becomes its option. Which argument an option sets is its ``dest`` where
    the option is defined; those of the metrics are in ``metric_options``. Advice in Python code alone is left out, and
    to pass None is to leave an option out. What the user gave, what stands in quotes, and files stay as they are.
    """
    options = _options(text, args)
    if not options:
        return text
    text = re.sub(r", for example with [\w.]+\(.*?\)(?=;|$)| with \w+=\.\.\.| \(None\)", "", text)
    text = re.sub(r"\b(pass|or) None\b", lambda match: f"{'or ' * (match[1] == 'or')}leave it out", text)
    one = rf"(?:{'|'.join(map(re.escape, options))})=(?:{_VALUE})"
    alone = "|".join(re.escape(name) for name in options if "_" in name)
    given = sorted({word for word in given_words(args) if word and not word.isidentifier()}, key=len, reverse=True)
    pattern = re.compile(
        rf"(?P<kept>(?<!\w)(?:{'|'.join([*map(re.escape, given), _QUOTED])})(?!\w))"
        rf"|[A-Za-z][\w.]*\((?:\.\.\., )?(?P<called>{one}(?:, {one})*)\)"
        rf"|(?<![\w.])(?P<set>{one})"
        rf"|(?<![\w./])(?P<alone>{alone or '(?!)'})(?![\w=]|\.\w)"
    )

    def replaced(match: re.Match[str]) -> str:
        if match["kept"]:
            return match[0]
        if match["alone"]:
            return options[match["alone"]]
        pairs = re.findall(rf"(\w+)=({_VALUE})", match["called"] or match["set"])
        return " ".join(_setting(options[name], value) for name, value in pairs)

    return pattern.sub(replaced, text)


def given_words(args: argparse.Namespace) -> Iterator[str]:
    """Return the texts among the values of the arguments: files to read, and others. Files to write are paths."""
    for value in vars(args).values():
        yield from (word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str))


def _options(text: str, args: argparse.Namespace) -> dict[str, str]:
    """Return the option for each Python argument; where two have one name, that of the metric in the message.

    ``other_options`` has those for which the user gave another option.
    """
    if not hasattr(args, "parser"):  # the arguments could not be read
        return {}
    common = {action.dest: action.option_strings[0] for action in args.parser._actions if action.option_strings}
    named: dict[str, str] = {}
    other: dict[str, str] = {}
    for option, users in getattr(args, "metric_options", {}).items():
        for metric in set(users) & set(args.metrics):
            (named if f"metric {metric!r}" in text else other)[users[metric].name] = option
    return {**other, **common, **named, **getattr(args, "other_options", {})}


def _setting(option: str, value: str) -> str:
    if value in ("True", "False"):
        return option if value == "True" else f"--no-{option.removeprefix('--')}"
    quotes = "'\""
    return f"{option} {value.strip(quotes)}"
