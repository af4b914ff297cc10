"""``egtmetrics evaluate``: features and labels in files."""

from __future__ import annotations

import argparse

from egtmetrics.cli._common import Commands, add_command
from egtmetrics.cli._evaluation import (
    add_control,
    add_file_options,
    add_file_verdict_options,
    add_options,
    add_sides,
    check_options,
    evaluate_and_write,
    read_held_out,
    read_samples,
)

_EPILOG = """\
files:
  .npy .npz .safetensors .pt    arrays: features are (n, d), labels (n,)
  .csv .parquet                 columns: every column that is no label is a feature, unless --real-key names some;
                                the fields of a .csv are separated by commas, else by semicolons or tabs
  .txt                          labels only, one per line
  .egt                          real samples and what was computed of them, as egtmetrics prepare writes it
  An empty label means that the row is in no group. Files with Python objects in them (pickles) are refused.

examples:
  egtmetrics evaluate real.npz fake.npz --real-groups gender --fake-groups gender
  egtmetrics evaluate real.npy fake.npy --real-groups real.csv:gender,age --fake-groups fake.csv:gender,age \\
      --metrics topp,fid --match-sizes --out result.json --out result.md --figure result.png
  egtmetrics evaluate real.npz fake.npz --real-groups y --fake-groups y --format json | jq .disparities
  egtmetrics evaluate real.npz fake.npz --real-groups y --fake-groups y --metrics topp,fid \\
      --baseline split --tolerance topp=5pp,fid=3
  egtmetrics evaluate real.npz fake.npz --real-groups y --fake-groups y --fake-clusters prompt --control object \\
      --interval 0.95
"""


def add_to(commands: Commands) -> None:
    evaluate = add_command(
        commands,
        "evaluate",
        _evaluate,
        check=check_options,
        help="compare real and generated features, group by group",
        description="Compare real and generated features, overall and group by group, and print every disparity.",
        epilog=_EPILOG,
    )
    add_sides(evaluate, "file with the features of the {} samples")
    data = add_file_options(evaluate)
    add_control(data)
    add_options(evaluate, data)
    add_file_verdict_options(evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    plan = check_options(args)
    held_out = read_held_out(args)
    return evaluate_and_write(args, plan, *read_samples(args, args.real, args.fake), held_out)
