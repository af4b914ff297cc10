"""``egtmetrics evaluate``, and ``evaluate-text`` and ``evaluate-images``, which take one kind of samples."""

from __future__ import annotations

import argparse

from egtmetrics.cli._common import Commands, add_command
from egtmetrics.cli._evaluation import (
    Plan,
    add_control,
    add_options,
    add_sample_verdict_options,
    add_sides,
    check_options,
    evaluate_and_write,
    read_views,
)
from egtmetrics.cli._labels import add_confusion
from egtmetrics.cli._page import check_page
from egtmetrics.cli._sides import add_sample_options

_EXAMPLES = """\
examples:
  egtmetrics evaluate real.npz fake.npz --groups gender
  egtmetrics evaluate real/ fake/ --encoder dinov2 --metrics topp,fid --cache features
  egtmetrics evaluate real/ fake/ --encoder dinov2 --encoder clip --encoder siglip --metrics fid --figure encoders.png
  egtmetrics evaluate real.npy fake.npy --real-groups real.csv:gender,age --fake-groups fake.csv:gender,age \\
      --metrics topp,fid --match-sizes --out result.json --out result.md --figure result.png
  egtmetrics evaluate real.npz fake.npz --groups y --format json | jq .disparities
  egtmetrics evaluate real.npz fake.npz --groups y --metrics topp,fid --baseline split --tolerance topp=5pp,fid=3
  egtmetrics evaluate real.npz fake.npz --groups y --metrics prdc,kid --confusion hand.csv --interval 0.95
  egtmetrics evaluate real.npz fake.npz --groups y --fake-clusters prompt --control object --interval 0.95
"""
_EXAMPLES_OF_TEXTS = """\
examples:
  egtmetrics evaluate-text real.jsonl fake.jsonl --groups oracle:pronouns --metrics topp,mauve --cache embeddings
  egtmetrics evaluate-text real.csv fake.txt --groups oracle:pronouns --match-sizes --encoder qwen3 \\
      --out result.json --figure result.png
"""
_EXAMPLES_OF_IMAGES = """\
examples:
  egtmetrics evaluate-images real/ fake/ --metrics topp,fid --cache features
  egtmetrics evaluate-images ffhq.zip samples/ --real-groups ffhq.csv:gender --fake-groups oracle --match-groups \\
      --encoder dinov2.pt2 --size 224 --out result.json --figure result.png
"""


def add_to(commands: Commands) -> None:
    for name, kind, samples, examples in (
        ("evaluate", None, "samples", _EXAMPLES),
        ("evaluate-text", "texts", "texts", _EXAMPLES_OF_TEXTS),
        ("evaluate-images", "images", "images", _EXAMPLES_OF_IMAGES),
    ):
        parser = add_command(
            commands,
            name,
            _evaluate,
            check=_check,
            help=f"compare real and generated {samples}, group by group",
            description=f"Compare real and generated {samples}, overall and group by group, and print every disparity.",
            epilog=examples,
        )
        add_sides(parser, f"the {{}} {samples}")
        data = add_sample_options(parser, kind=kind, several_encoders=True)
        add_control(data)
        add_confusion(data)
        add_options(parser, data)
        add_sample_verdict_options(parser)


def _check(args: argparse.Namespace) -> Plan:
    """Refuse, before anything is read, what could not be computed or written."""
    plan = check_options(args)
    check_page(args.out)
    return plan


def _evaluate(args: argparse.Namespace) -> int:
    plan = _check(args)
    return evaluate_and_write(args, plan, read_views(args, plan.metrics))
