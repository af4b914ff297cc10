"""The command line: ``egtmetrics evaluate``, ``egtmetrics reproduce`` and ``egtmetrics info``.

Results go to stdout; progress, warnings and errors to stderr, one line each. The exit status is 0, 2 for arguments or
files that cannot be used, and 130 after Ctrl-C. Everything slow is imported where it is needed, so that ``--help`` is
not.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import egtmetrics
from egtmetrics import __version__

if TYPE_CHECKING:
    from egtmetrics.report.tables import Format

_METRICS = {
    "topp": "topp_precision_recall",
    "prdc": "precision_recall_density_coverage",
    "ipr": "improved_precision_recall",
    "p-pr": "p_precision_recall",
    "cover": "precision_recall_cover",
    "clipped": "clipped_density_coverage",
    "fid": "frechet_distance",
    "kid": "kernel_distance",
    "mauve": "mauve",
    "frontier": "frontier_integral",
    "prd": "precision_recall_distributions",
}
"""Names on the command line, and of the package's functions."""
_FIGURE_METRICS = ("topp", "prdc", "ipr", "p-pr", "cover")
_METRIC_OPTIONS = ("alpha", "n_bootstrap", "n_projections", "n_neighbors", "subset_size")
_OUT_FORMATS: dict[str, Format] = {".txt": "table", ".json": "json", ".md": "markdown", ".tex": "latex"}

_EVALUATE_EPILOG = """\
files:
  .npy .npz .safetensors .pt    arrays: features are (n, d), labels (n,)
  .csv .parquet                 columns: every column that is no label is a feature, unless --real-key names some
  .txt                          labels only, one per line
  An empty label means that the row is in no group. Files with Python objects in them (pickles) are refused.

examples:
  egtmetrics evaluate real.npz fake.npz --real-groups gender --fake-groups gender
  egtmetrics evaluate real.npy fake.npy --real-groups real.csv:gender,age --fake-groups fake.csv:gender,age \\
      --metrics topp,fid --match-sizes --out result.json --out result.md --figure result.png
  egtmetrics evaluate real.npz fake.npz --real-groups y --fake-groups y --format json | jq .disparities
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name) and return the exit status."""
    args = _parser().parse_args(argv)
    try:
        with _one_line_warnings():
            args.run(args)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has left, as in `egtmetrics info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError, TypeError, ImportError) as error:
        print(f"egtmetrics: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("egtmetrics: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"egtmetrics: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="egtmetrics", description="Is a generative model equally good for every sensitive group?")
    parser.add_argument("--version", action="version", version=f"egtmetrics {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    evaluate = commands.add_parser(
        "evaluate",
        help="compare real and generated features, group by group",
        description="Compare real and generated features, overall and group by group, and print every disparity.",
        epilog=_EVALUATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("real", metavar="REAL", help="file with the features of the real samples")
    evaluate.add_argument("fake", metavar="FAKE", help="file with the features of the generated samples")
    data = evaluate.add_argument_group("data")
    for side in ("real", "fake"):
        data.add_argument(
            f"--{side}-groups",
            metavar="LABELS",
            required=True,
            help=f"group labels: a file, FILE:KEY, or a key (column) of {side.upper()}; several keys separated by "
            "commas give their intersections",
        )
    for side in ("real", "fake"):
        data.add_argument(
            f"--{side}-key",
            metavar="KEY",
            help=f"the features in {side.upper()}: an array, by default 'features' or else the only (n, d) one; or "
            "columns separated by commas",
        )
    data.add_argument(
        "--missing-groups",
        choices=("raise", "nan"),
        default="raise",
        help="a group with samples on one side only: refuse it, or give it a row of nan (default: %(default)s)",
    )
    data.add_argument(
        "--match-sizes", action="store_true", help="subsample every group to as many real as fake samples"
    )
    data.add_argument(
        "--match-groups", action="store_true", help="subsample all groups to the same size, too; implies --match-sizes"
    )

    metrics = evaluate.add_argument_group("metrics")
    metrics.add_argument(
        "--metrics",
        type=_metric_names,
        default="topp",
        metavar="NAMES",
        help=f"separated by commas, of {', '.join(_METRICS)} (default: %(default)s)",
    )
    metrics.add_argument("--alpha", type=float, help="topp: one minus the confidence of the band (default: 0.1)")
    metrics.add_argument("--n-bootstrap", type=int, metavar="B", help="topp: bootstrap replicates (default: 1000)")
    metrics.add_argument(
        "--n-projections", type=int, metavar="N", help="topp: random projections to average over (default: 10)"
    )
    metrics.add_argument(
        "--n-neighbors", type=int, metavar="K", help="prdc, ipr, p-pr, cover, clipped (default: each its own)"
    )
    metrics.add_argument("--subset-size", type=int, metavar="N", help="kid: rows in each subset (default: 1000)")
    metrics.add_argument(
        "--random-state", type=int, default=0, metavar="SEED", help="seed of everything random (default: %(default)s)"
    )
    metrics.add_argument(
        "--backend",
        choices=("auto", "cpu", "cuda", "reference"),
        default="auto",
        help="kernels to compute with; cuda copies the features to the current CUDA device (default: %(default)s)",
    )
    metrics.add_argument("--n-threads", type=int, metavar="N", help="threads of the kernels (default: every core)")

    output = evaluate.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=tuple(_OUT_FORMATS.values()),
        default="table",
        help="what is printed (default: %(default)s)",
    )
    output.add_argument(
        "--out",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="write the results to a file as well, in the format of its suffix "
        f"({', '.join(_OUT_FORMATS)}), else in --format; may be repeated",
    )
    output.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw precision against recall by group, of the first metric that has them (.png, .pdf, .svg)",
    )
    output.add_argument("--quiet", action="store_true", help="no progress bar and no notes on stderr")

    reproduce = commands.add_parser(
        "reproduce",
        help="compute a figure or a table of the paper again",
        description="Compute a figure or a table of the paper again, print its numbers and draw it.",
    )
    what = reproduce.add_subparsers(title="what", metavar="WHAT", required=True)
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

    info = commands.add_parser("info", help="versions, and what the kernels run on", description=_info.__doc__)
    info.set_defaults(run=_info)
    return parser


def _metric_names(value: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in value.split(",")))
    unknown = [name for name in names if name not in _METRICS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown metric {unknown[0]!r}; choose from {', '.join(_METRICS)}")
    return names


def _evaluate(args: argparse.Namespace) -> None:
    metrics = _metrics(args)
    figure_metric = _check_outputs(args)
    if args.backend == "cuda":
        _check_device()

    from egtmetrics.groups import GenerativeMetricFrame
    from egtmetrics.io import read_labelled_features
    from egtmetrics.report import plot_precision_recall, render, save_figure, write_whole

    real = read_labelled_features(args.real, groups=args.real_groups, key=args.real_key)
    fake = read_labelled_features(args.fake, groups=args.fake_groups, key=args.fake_key)
    provenance: dict[str, Any] = {"real": real.source, "fake": fake.source}
    samples: Mapping[str, Any] = {
        "real": real.features,
        "fake": fake.features,
        "real_sensitive_features": real.groups,
        "fake_sensitive_features": fake.groups,
    }
    if args.match_sizes or args.match_groups:
        samples, provenance["matching"] = _match(samples, across_groups=args.match_groups, seed=args.random_state)
    if args.backend == "cuda":
        from egtmetrics.ops._device import to_device

        samples = {**samples, **{side: to_device(samples[side]) for side in ("real", "fake")}}
    frame = GenerativeMetricFrame(
        metrics=metrics,
        **samples,
        random_state=args.random_state,
        missing_groups=args.missing_groups,
        backend=args.backend,
        n_threads=args.n_threads,
        progress=sys.stderr.isatty() and not args.quiet,
    )

    sys.stdout.write(render(frame, format=args.format, provenance=provenance))
    for path in args.out:
        format = _OUT_FORMATS.get(path.suffix.lower(), args.format)
        write_whole(path, render(frame, format=format, provenance=provenance))
    if args.figure is not None:
        save_figure(plot_precision_recall(frame, metric=figure_metric), args.figure)
    if not args.quiet:
        for path in [*args.out, *([args.figure] if args.figure is not None else [])]:
            print(f"egtmetrics: wrote {path}", file=sys.stderr)


def _metrics(args: argparse.Namespace) -> dict[str, Callable[..., Any]]:
    """Load the metrics that were asked for and fix the options that were given, each in the metrics that have it."""
    given = {name: getattr(args, name) for name in _METRIC_OPTIONS if getattr(args, name) is not None}
    metrics: dict[str, Callable[..., Any]] = {}
    used: set[str] = set()
    for name in args.metrics:
        metric = getattr(egtmetrics, _METRICS[name])
        options = {key: value for key, value in given.items() if key in inspect.signature(metric).parameters}
        used |= set(options)
        metrics[name] = functools.partial(metric, **options)
    for name in given:
        if name not in used:
            raise ValueError(
                f"--{name.replace('_', '-')} is an option of none of --metrics {','.join(args.metrics)}; leave it out, "
                "or add its metric"
            )
    return metrics


def _check_outputs(args: argparse.Namespace) -> str | None:
    """Refuse, before anything is computed, what could not be written after; return the metric to draw."""
    _check_writable([*args.out, *([] if args.figure is None else [args.figure])])
    if args.figure is None:
        return None
    from egtmetrics.report.figures import check_figure_suffix, figure_class

    check_figure_suffix(args.figure)
    figure_class()
    drawn: str | None = next((name for name in args.metrics if name in _FIGURE_METRICS), None)
    if drawn is None:
        raise ValueError(
            f"--figure draws precision and recall, which --metrics {','.join(args.metrics)} lacks; add one of "
            f"{', '.join(_FIGURE_METRICS)}"
        )
    return drawn


def _check_writable(paths: Sequence[Path]) -> None:
    for path in paths:
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            reason = "it is a folder" if path.is_dir() else f"{folder} is no folder to write in"
            raise ValueError(f"{path}: cannot be written, because {reason}")


def _match(samples: Mapping[str, Any], *, across_groups: bool, seed: int) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Match the sizes; also return what that changed: the proportions of the groups are no longer the model's."""
    from egtmetrics.groups import ego, match_sizes, mgo

    real_labels, fake_labels = samples["real_sensitive_features"], samples["fake_sensitive_features"]
    matched = match_sizes(**samples, across_groups=across_groups, random_state=seed)
    facts = {
        "across_groups": across_groups,
        "real_kept": len(matched.real),
        "fake_kept": len(matched.fake),
        "real_in_no_group": matched.unassigned["real"],
        "fake_in_no_group": matched.unassigned["fake"],
        "mgo_before": mgo(real_labels, fake_labels),
        "ego_before": ego(fake_labels, real_sensitive_features=real_labels),
    }
    return {name: getattr(matched, name) for name in samples}, facts


def _check_device() -> None:
    """Refuse ``--backend cuda``, before anything is read, where there is nothing to run on."""
    from egtmetrics.ops._device import NoDeviceError, select_device

    try:
        select_device()
    except NoDeviceError as error:
        raise ValueError(f"--backend cuda: {error}") from error


def _reproduce_figure1(args: argparse.Namespace) -> None:
    _check_writable([args.figure])
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


def _info(args: argparse.Namespace) -> None:
    """Print versions, the backend that "auto" takes and why, and how the kernels were built."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from egtmetrics.ops import select_backend
    from egtmetrics.ops._native import cuda_module, native_module

    lines = {
        "egtmetrics": f"{__version__} ({Path(__file__).parent})",
        "Python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})",
    }
    for package in ("numpy", "scipy", "pandas", "torch", "matplotlib"):
        try:
            lines[package] = version(package)
        except PackageNotFoundError:
            lines[package] = "not installed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason is printed below
        lines["backend"] = select_backend().name
    try:
        module = native_module()
    except ImportError as error:
        lines["kernels"] = f"not loaded: {_one_line(error)}"
    else:
        lines["kernels"] = str(module.__file__)
        lines |= {f"  {key}": str(value) for key, value in module.build_info().items()}
    lines |= _cuda_lines(cuda_module)
    lines["cores"] = f"{len(os.sched_getaffinity(0))} for this process, of {os.cpu_count()}"
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")


def _cuda_lines(load: Callable[[], Any]) -> dict[str, str]:
    """Say whether the CUDA kernels were built, for what, and on which devices they can run; torch is not loaded."""
    try:
        module = load()
    except ModuleNotFoundError:
        return {"CUDA kernels": "not built"}
    except ImportError as error:
        return {"CUDA kernels": f"not loaded: {_one_line(error)}"}
    lines = {"CUDA kernels": str(module.__file__)}
    lines |= {f"  CUDA {key}": str(value) for key, value in module.build_info().items()}
    reason = module.device_error()
    if reason:
        lines["  device"] = f"none ({_one_line(reason)})"
    for device in range(0 if reason else module.device_count()):
        info = module.device_info(device)
        capability = ".".join(map(str, info["capability"]))
        lines[f"  device {device}"] = (
            f"{info['name']}, compute capability {capability}, {info['memory'] / 2**30:.0f} GiB"
        )
    return lines


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        from tqdm import tqdm

        tqdm.write(f"egtmetrics: warning: {_one_line(message)}", file=sys.stderr)  # not through the progress bar

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _one_line(message: object) -> str:
    """Return the text of an error or warning without line breaks, the file in front where the system names one."""
    if isinstance(message, OSError) and message.filename is not None and message.strerror:
        message = f"{message.filename}: {message.strerror}"
    return " ".join(str(message).split()) or type(message).__name__
