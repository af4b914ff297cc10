"""``egtmetrics reproduce``: figures and tables of the paper."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from egtmetrics.cli._common import Commands, check_writable


def add_to(commands: Commands) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="compute a figure or a table of the paper again",
        description="Compute a figure or a table of the paper again, print its numbers and draw it.",
    )
    what = reproduce.add_subparsers(title="what", metavar="WHAT", required=True)
    _add_figure1(what)
    _add_table1(what)


def _add_figure1(what: Commands) -> None:
    figure1 = what.add_parser(
        "figure1",
        help="equal divergence, unequal groups",
        description="Figure 1: models with one divergence from the data that treat two groups very differently.",
        epilog="example:\n  egtmetrics reproduce figure1 --figure figure1.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    figure1.set_defaults(run=_reproduce_figure1)
    figure1.add_argument(
        "--figure",
        type=Path,
        default=Path("figure1.png"),
        metavar="FILE",
        help="where to draw it (default: %(default)s)",
    )


def _add_table1(what: Commands) -> None:
    table1 = what.add_parser(
        "table1",
        help="four ways to train a diffusion model, on a small data set",
        description="Table 1 at small scale: train a diffusion model in four ways on a majority and a minority, sample "
        "at matching and at equal odds, and compare the groups. Also Tables 3, 6 and 7, and Figure 3. Needs the extras "
        "[training] and [figures]; run again, an interrupted run goes on where it was.",
        epilog="examples:\n  egtmetrics reproduce table1 --data digits --quick --out table1-quick\n"
        "  egtmetrics reproduce table1 --data digits --out table1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table1.set_defaults(run=_reproduce_table1)
    table1.add_argument(
        "--data",
        choices=("digits",),
        required=True,
        help="digits: scikit-learn's 1797 handwritten digits, those below 5 three times as often as the others",
    )
    table1.add_argument(
        "--quick",
        action="store_true",
        help="half the seeds and a small model, trained for a shorter time: minutes instead of an hour on two cores",
    )
    table1.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="for table1.md, losses.png, runs.csv, losses.csv, the models and every intermediate result",
    )
    table1.add_argument("--quiet", action="store_true", help="no progress bar and no notes on stderr")


def _reproduce_figure1(args: argparse.Namespace) -> None:
    check_writable([args.figure])
    from egtmetrics.report.figures import check_figure_suffix, figure_class

    check_figure_suffix(args.figure)
    figure_class()
    from egtmetrics.divergences import figure1
    from egtmetrics.report import save_figure
    from egtmetrics.report.figure1 import describe_figure1, plot_figure1

    data = figure1()
    print("Jensen-Shannon divergence in bits (0 to 2) between real and generated data, for each of two groups:\n")
    print(describe_figure1(data))
    print("\nThe paper names (0.02, 1.98) on this level set. Gaussian models do not reach it; Theorem A.3 does.")
    save_figure(plot_figure1(data), args.figure)
    print(f"egtmetrics: wrote {args.figure}", file=sys.stderr)


def _reproduce_table1(args: argparse.Namespace) -> None:
    from egtmetrics.report import save_figure, write_whole
    from egtmetrics.report.figures import figure_class
    from egtmetrics.report.table1 import describe_table1, plot_losses

    figure_class()
    # By name: the folder lies beside this package until it is installed, where type checkers do not find it.
    table1 = import_module("egtmetrics.training.table1")
    settings = table1.QUICK if args.quick else table1.FULL
    results = table1.reproduce_table1(args.out, settings=settings, progress=sys.stderr.isatty() and not args.quiet)
    parts = (results.runs, results.losses, results.facts)
    sys.stdout.write(describe_table1(*parts))
    write_whole(args.out / "table1.md", describe_table1(*parts, markdown=True))
    save_figure(plot_losses(results.losses), args.out / "losses.png")
    if not args.quiet:
        for name in ("table1.md", "losses.png", "runs.csv", "losses.csv"):
            print(f"egtmetrics: wrote {args.out / name}", file=sys.stderr)
