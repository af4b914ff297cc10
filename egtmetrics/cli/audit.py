"""``egtmetrics audit``: an evaluation as a plan file says, which was written before the results were known."""

from __future__ import annotations

import argparse
import difflib
import functools
import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egtmetrics.cli._common import Commands, Parser, add_command
from egtmetrics.cli._evaluation import note
from egtmetrics.cli._streams import show
from egtmetrics.cli._verdicts import held_out_file

_EPILOG = """\
plan:
  A TOML file. Its keys are "command" (evaluate, evaluate-images, evaluate-text or report), "real", "fake", and the long
  options of that command without the dashes in front; see egtmetrics COMMAND --help. Options that may be repeated take
  a list, and METRIC=GAP a table. Paths are relative to where the command runs. Results, the page and JSON carry the
  SHA-256 hash of the file, so whoever publishes the hash first can show that the plan came first.

example:
  command = "evaluate"
  real = "real.npz"
  fake = "fake.npz"
  real-groups = "gender"
  fake-groups = "gender"
  metrics = ["topp", "fid"]
  n-bootstrap = 1000
  match-groups = true
  random-state = 0
  baseline = "split"
  tolerance = {topp = "5pp", fid = 3}
  interval = 0.95
  out = ["result.json", "page.html"]
"""
_POSITIONALS = ("real", "fake")


def add_to(commands: Commands) -> None:
    audit = add_command(
        commands,
        "audit",
        functools.partial(_audit, commands),
        help="evaluate as a plan file says",
        description="Evaluate as a plan file says, and put its hash into all results. The exit status is that of the "
        "plan's command.",
        epilog=_EPILOG,
    )
    audit.add_argument("plan", metavar="PLAN", help="the plan, a .toml file")
    audit.add_argument(
        "--check", dest="check_only", action="store_true", help="check the plan, print its hash, and run nothing"
    )


def _audit(commands: Commands, args: argparse.Namespace) -> int | None:
    raw = Path(args.plan).read_bytes()
    parser, words = _words(_read(args.plan, raw), args.plan, commands)
    # The options become those of the command, so that its messages name them.
    vars(args).update(vars(parser.parse_args(words)))
    args.plan_file, args.plan_sha256 = args.plan, hashlib.sha256(raw).hexdigest()
    if args.check_only:
        from egtmetrics.data.sources import check_place

        args.check(args)
        for path in (args.real, args.fake, held_out_file(args)):
            if path is not None:
                check_place(path)
        show(f"{args.plan}: can be run, SHA-256 {args.plan_sha256}\n")
        return 0
    note(args, f"{args.plan}: SHA-256 {args.plan_sha256}")
    status: int | None = args.run(args)
    return status


def _read(path: str, raw: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except ValueError as error:  # of TOML and of UTF-8
        raise ValueError(f"{path}: is not TOML: {error}") from error


def _words(plan: Mapping[str, Any], path: str, commands: Commands) -> tuple[Parser, list[str]]:
    """Return the parser of the plan's command, and the plan as its arguments."""
    known = [name for name, parser in commands.choices.items() if parser.get_default("check") is not None]
    name = plan.get("command")
    if name not in known:
        raise ValueError(f"{path}: command is {name!r}; write one of {', '.join(known)}, as in command = {known[0]!r}")
    parser = commands.choices[name]
    parser.complete()
    options = {
        action.option_strings[0].removeprefix("--"): action
        for action in parser._actions
        if action.option_strings and action.dest != "help"
    }
    unknown = [key for key in plan if key not in options and key not in ("command", *_POSITIONALS)]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], [*options, *_POSITIONALS], n=1, cutoff=0.0)[0]
        raise ValueError(
            f"{path}: key {unknown[0]!r} is unknown; the nearest of egtmetrics {name} is {nearest!r} (see egtmetrics "
            f"{name} --help)"
        )
    words = [word for key, action in options.items() if key in plan for word in _option(key, action, plan[key], path)]
    return parser, [*words, "--", *(_text(plan[key], key, path) for key in _POSITIONALS if key in plan)]


def _option(key: str, action: argparse.Action, value: Any, path: str) -> list[str]:
    """Return the words of one option."""
    flag = action.nargs == 0
    if flag != isinstance(value, bool):
        raise ValueError(f"{path}: {key} is {value!r}; write {'true or false' if flag else 'a text or a number'}")
    if flag:  # one that can only be set is left out where it is false
        return [f"--{key}"] if value else list(action.option_strings[1:])
    if isinstance(value, Mapping):
        value = [f"{name}={_text(item, key, path)}" for name, item in value.items()]
    texts = [_text(item, key, path) for item in (value if isinstance(value, list) else [value])]
    if isinstance(action, argparse._AppendAction):
        return [f"--{key}={text}" for text in texts]
    return [f"--{key}={','.join(texts)}"]


def _text(value: Any, key: str, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{path}: {key} has {value!r}; write a text or a number")
    return str(value)
