"""``egtmetrics encode``: images or texts to features with their groups, in a file that every command reads."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from egtmetrics.cli._common import Commands, add_command, check_folder, check_outputs
from egtmetrics.cli._evaluation import add_quiet, note, show_progress
from egtmetrics.cli._oracles import call_groups, load_callers
from egtmetrics.cli._ranks import join_ranks
from egtmetrics.cli._sides import add_sample_options, check_sample_options, load_encoding, open_side

_SUFFIX = ".npz"
_EPILOG = """\
The file holds the features, the groups, names of files, and which encoder made them of what. Commands that read it
find the groups by themselves, and refuse features of different encoders. A run that was killed goes on where it was:
features are kept in FILE.cache until the file is written, or in the folder of --cache.

examples:
  egtmetrics encode real/ --encoder dinov2 --out real.npz
  egtmetrics encode fake.jsonl --groups oracle:pronouns --out fake.npz
  egtmetrics report real.npz fake.npz --out page.html
"""


def add_to(commands: Commands) -> None:
    encode = add_command(
        commands,
        "encode",
        _encode,
        help="encode images or texts once, for many evaluations",
        description="Encode images or texts, and write their features with their groups and where both came from.",
        epilog=_EPILOG,
    )
    encode.add_argument("samples", metavar="SAMPLES", help="the images or texts")
    add_sample_options(encode, roles=())
    output = encode.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="FILE", help=f"the file to write ({_SUFFIX})")
    add_quiet(output)


def _encode(args: argparse.Namespace) -> None:
    check_sample_options(args)
    check_outputs(args, [args.out])
    if args.out.suffix.lower() != _SUFFIX:
        raise ValueError(f"--out {args.out}: features are written as {_SUFFIX}; choose a name that ends in it")
    join_ranks(args)
    side = open_side(args, "samples", args.samples)
    note(args, side.count_groups())
    unfinished = None if args.cache is not None else Path(f"{args.out}.cache")
    if unfinished is not None:
        check_folder(unfinished)
        args.cache = str(unfinished)
    callers = load_callers(args, [side])
    encoding = load_encoding(args, {"samples": side}, args.model, progress=show_progress(args))
    encoders = {args.model: encoding.encoder}
    if call_groups(args, {"samples": side}, callers, encoders, progress=show_progress(args)):
        note(args, side.count_groups())
    encoding.encode({"samples": side})
    if args.ranks is not None:
        args.ranks.leave()

    from egtmetrics.data import write_labelled_features

    provenance = {**encoding.provenance, "samples": side.source}
    write_labelled_features(args.out, side.features, side.groups, provenance=provenance, names=side.names)
    if unfinished is not None:
        shutil.rmtree(unfinished)
    n, d = side.features.shape
    note(args, f"wrote {args.out} ({n} x {d} features)")
