"""``--print-completion``: what completes commands, options and names of files in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egtmetrics.cli._common import Parser
from egtmetrics.cli._streams import show


class PrintCompletion(argparse.Action):
    """Print the completions for a shell, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        import shtab

        for action in _actions(parser):
            # Samples, groups and labels are texts, because they need not be files; they often are.
            if action.nargs != 0 and action.choices is None and action.type in (None, Path):
                setattr(action, "complete", shtab.FILE)  # noqa: B010 - where shtab looks for it
        show(shtab.complete(parser, shell=values) + "\n")
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its commands, those that are added late too."""
    if isinstance(parser, Parser):
        parser.complete()
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
