"""``egtmetrics prepare``: compute what depends on the real samples alone, for many evaluations."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from egtmetrics.cli._common import Commands, add_command, check_outputs
from egtmetrics.cli._evaluation import add_metric_options, add_quiet, check_metrics, note, read_sides, show_progress
from egtmetrics.cli._sides import add_sample_options, check_sample_options

_SUFFIX = ".egt"
_EPILOG = """\
`egtmetrics evaluate`, `report` and `compare` take the file in the place of REAL. The results are the same. They are
there sooner where metrics, their options and --random-state are those that were prepared for, which costs most with
many real and few generated samples. With --intervals, those with --interval are, too. The file is mapped: processes
that use it at the same time share its memory.

examples:
  egtmetrics prepare real.npz --real-groups gender --metrics topp,prdc,fid --out real.egt
  egtmetrics evaluate real.egt fake.npz --fake-groups gender --metrics topp,prdc,fid
  egtmetrics prepare real.npz --real-groups gender --metrics topp --intervals --out real.egt
  egtmetrics prepare real.npz --real-groups gender --metrics fid --without-samples --out published.egt
"""


def add_to(commands: Commands) -> None:
    prepare = add_command(
        commands,
        "prepare",
        _prepare,
        check=_check,
        help="compute once what depends on the real features alone, for many evaluations",
        description="Compute once what depends on the real features alone, for all rows and every group.",
        epilog=_EPILOG,
    )
    prepare.add_argument("real", metavar="REAL", help="the real samples")
    add_sample_options(prepare, roles=("real",))
    add_metric_options(prepare, default="topp,clipped,fid")
    output = prepare.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="FILE", help=f"the file to write ({_SUFFIX})")
    output.add_argument(
        "--without-samples",
        action="store_true",
        help="leave out the samples and all numbers of single samples, so that the file can be published; it is good "
        "for fid alone, whose means and covariances it has",
    )
    output.add_argument(
        "--intervals",
        action="store_true",
        help="compute what confidence intervals need as well; for topp with its defaults the file takes 13 KB more a "
        "row",
    )
    add_quiet(output)


def _check(args: argparse.Namespace) -> Mapping[str, Callable[..., Any]]:
    """Refuse, before anything is read, what could not be computed or written."""
    metrics = check_metrics(args)
    check_sample_options(args)
    check_outputs(args, [args.out])
    if args.out.suffix.lower() != _SUFFIX:
        raise ValueError(f"--out {args.out}: is not the name of a reference; choose one that ends in {_SUFFIX}")
    if args.intervals and args.without_samples:
        raise ValueError("--intervals: intervals need the samples, and --without-samples leaves them out; pass one")
    if args.backend == "cuda":
        raise ValueError(
            "--backend cuda: a reference file holds what the CPU computes; leave it out, or make a Reference of CUDA "
            "tensors in Python, which keeps what it computes there as long as it lives"
        )
    return metrics


def _prepare(args: argparse.Namespace) -> None:
    metrics = _check(args)
    from egtmetrics.groups import Reference

    sides, _ = read_sides(args, metrics, {"real": ("real", args.real)})
    real = sides["real"]
    reference = Reference(
        real.features,
        sensitive_features=real.groups,
        metrics=metrics,
        random_state=args.random_state,
        backend=args.backend,
        n_threads=args.n_threads,
    )
    reference.prepare(intervals=args.intervals, progress=show_progress(args))
    reference.save(args.out, features=not args.without_samples)
    note(args, f"wrote {args.out} ({args.out.stat().st_size / 1e6:.0f} MB)")
