"""The HTML page of an evaluation."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egtmetrics.cli._verdicts import Judged
    from egtmetrics.groups import GenerativeMetricFrame


PAGE_SUFFIXES = (".html", ".htm")


def check_page(outputs: Iterable[Path]) -> None:
    """Refuse, before anything is read, a page for which a package is missing."""
    if has_page(outputs):
        from egtmetrics.report.page import load_template

        load_template()


def has_page(outputs: Iterable[Path]) -> bool:
    """Return whether one of the files to write is a page."""
    return any(path.suffix.lower() in PAGE_SUFFIXES for path in outputs)


def html_page(
    args: argparse.Namespace,
    frame: GenerativeMetricFrame,
    judged: Judged,
    provenance: Mapping[str, Any],
    **content: Any,
) -> str:
    """Return the page; ``content`` is what only some commands add to it, as arguments of ``render_page``."""
    from egtmetrics.report.page import render_page

    return render_page(
        frame,
        baseline=judged.baseline,
        verdicts=judged.verdicts,
        dose=judged.dose,
        title=getattr(args, "title", None) or f"Is {Path(args.fake).name} equally good for every group?",
        level=0.95 if args.level is None else args.level,
        provenance=provenance,
        command=command_line(args),
        **content,
    )


def command_line(args: argparse.Namespace) -> str:
    """Return the command that these arguments came from, with every option that has a value."""
    if args.plan_file is not None:
        return shlex.join(["egtmetrics", "audit", args.plan_file])
    words = [*args.parser.prog.split(), args.real, args.fake]
    for action in args.parser._actions:
        value = getattr(args, action.dest, None)
        if value is None or not action.option_strings or action.dest == "quiet":
            continue
        option = action.option_strings[0]
        if isinstance(value, bool):
            words += [option if value else action.option_strings[-1]] if value or len(action.option_strings) > 1 else []
        elif isinstance(action, argparse._AppendAction):
            words += [word for one in value for word in (option, str(one))]
        else:
            words += [option, ",".join(value) if isinstance(value, list) else str(value)]
    return shlex.join(words)
