"""What the commands that evaluate share: options, the run, and what is written."""

from __future__ import annotations

import argparse
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import egtmetrics
from egtmetrics.cli._common import check_writable

if TYPE_CHECKING:
    from egtmetrics.groups import GenerativeMetricFrame
    from egtmetrics.report.tables import Format

_METRICS = {
    "topp": "topp_precision_recall",
    "prdc": "precision_recall_density_coverage",
    "approximate-prdc": "approximate_precision_recall_density_coverage",
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
_FIGURE_METRICS = ("topp", "prdc", "approximate-prdc", "ipr", "p-pr", "cover")
_METRIC_OPTIONS = ("alpha", "n_bootstrap", "n_projections", "n_neighbors", "subset_size")
_OUT_FORMATS: dict[str, Format] = {".txt": "table", ".json": "json", ".md": "markdown", ".tex": "latex"}


class Plan(NamedTuple):
    """What is computed and drawn: options that have been checked."""

    metrics: Mapping[str, Callable[..., Any]]
    figure_metric: str | None


class Evaluation(NamedTuple):
    """A frame, the samples it saw (arguments of a GenerativeMetricFrame, on the host), and where they came from."""

    frame: GenerativeMetricFrame
    samples: Mapping[str, Any]
    provenance: Mapping[str, Any]


def add_sides(parser: argparse.ArgumentParser, file: str) -> None:
    """Add REAL and FAKE; ``file`` says what each is, with ``{}`` in the place of the side."""
    parser.add_argument("real", metavar="REAL", help=file.format("real"))
    parser.add_argument("fake", metavar="FAKE", help=file.format("generated"))


def add_file_options(parser: argparse.ArgumentParser) -> Any:
    """Add the options that say where groups and features are in files; return their group for the others."""
    data = parser.add_argument_group("data")
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
    return data


def read_samples(args: argparse.Namespace, real_path: str, fake_path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read two files as ``add_file_options`` says: arguments of a GenerativeMetricFrame, and their provenance."""
    from egtmetrics.data import read_labelled_features

    real = read_labelled_features(real_path, groups=args.real_groups, key=args.real_key)
    fake = read_labelled_features(fake_path, groups=args.fake_groups, key=args.fake_key)
    samples = {
        "real": real.features,
        "fake": fake.features,
        "real_sensitive_features": real.groups,
        "fake_sensitive_features": fake.groups,
    }
    return samples, {"real": real.source, "fake": fake.source}


def add_options(parser: argparse.ArgumentParser, data: Any) -> None:
    """Add the options that do not depend on what the samples are; those on groups to ``data``, an argument group."""
    add_metric_options(parser, data)
    output = parser.add_argument_group("output")
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
        "--interval",
        type=float,
        metavar="LEVEL",
        help="add confidence intervals of this level, for example 0.95; costs about as much again for topp, prdc, ipr "
        "and fid, 200 times as much for other metrics",
    )
    output.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw precision against recall by group, of the first metric that has them (.png, .pdf, .svg)",
    )
    add_quiet(output)


def add_quiet(output: Any) -> None:
    output.add_argument("--quiet", action="store_true", help="no progress bar and no notes on stderr")


def add_metric_options(parser: argparse.ArgumentParser, data: Any) -> None:
    """Add the options on metrics, and those on groups to ``data``."""
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

    metrics = parser.add_argument_group("metrics")
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
        "--n-neighbors",
        type=int,
        metavar="K",
        help="prdc, approximate-prdc, ipr, p-pr, cover, clipped (default: each its own)",
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


def _metric_names(value: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in value.split(",")))
    unknown = [name for name in names if name not in _METRICS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown metric {unknown[0]!r}; choose from {', '.join(_METRICS)}")
    return names


def add_encoder_options(parser: argparse.ArgumentParser, *, batch_size: int, content: str) -> Any:
    """Add the options that the encoders share, and return their group for the others."""
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument(
        "--cache",
        metavar="FOLDER",
        help=f"keep features here by the {content}' content, and reuse those that are there",
    )
    encoder.add_argument(
        "--batch-size",
        type=int,
        default=batch_size,
        metavar="N",
        help=f"{content} at a time, halved when memory runs out (default: %(default)s)",
    )
    encoder.add_argument("--device", metavar="DEVICE", help="of the encoder: cpu, cuda ... (default: cuda if there)")
    return encoder


def check_options(args: argparse.Namespace) -> Plan:
    """Refuse, before anything is read, what could not be computed or written."""
    if args.interval is not None:
        from egtmetrics._validation import check_level

        check_level(args.interval)
    return Plan(check_metrics(args), _check_outputs(args))


def check_metrics(args: argparse.Namespace) -> Mapping[str, Callable[..., Any]]:
    """Load the metrics that were asked for; refuse options and a backend that could not be used."""
    metrics = _metrics(args)
    if args.backend == "cuda":
        _check_device()
    return metrics


def evaluate_and_write(
    args: argparse.Namespace, plan: Plan, samples: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    """Evaluate ``samples``, the arguments of a GenerativeMetricFrame, print the results and write the files."""
    from egtmetrics.report import plot_precision_recall, render, save_figure

    frame, _, provenance = evaluate_samples(args, plan.metrics, samples, provenance)

    intervals = None if args.interval is None else frame.interval(args.interval)

    def text(format: Format) -> str:
        return render(frame, format=format, intervals=intervals, provenance=provenance)

    write_outputs(args, text)
    if args.figure is not None:
        save_figure(plot_precision_recall(frame, metric=plan.figure_metric), args.figure)
        note(args, f"wrote {args.figure}")


def write_outputs(args: argparse.Namespace, text: Callable[[Format], str]) -> None:
    """Print what ``text`` makes of --format, and write the files of --out."""
    from egtmetrics.report import write_whole

    sys.stdout.write(text(args.format))
    for path in args.out:
        write_whole(path, text(_OUT_FORMATS.get(path.suffix.lower(), args.format)))
        note(args, f"wrote {path}")


def evaluate_samples(
    args: argparse.Namespace,
    metrics: Mapping[str, Callable[..., Any]],
    samples: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Evaluation:
    """Match the sizes where that was asked for, and evaluate."""
    from egtmetrics.groups import GenerativeMetricFrame

    if args.match_sizes or args.match_groups:
        samples, matching = _match(samples, across_groups=args.match_groups, seed=args.random_state)
        provenance = {**provenance, "matching": matching}
    on_device = samples
    if args.backend == "cuda":
        from egtmetrics.ops._device import to_device

        on_device = {**samples, **{side: to_device(samples[side]) for side in ("real", "fake")}}
    frame = GenerativeMetricFrame(
        metrics=metrics,
        **on_device,
        random_state=args.random_state,
        missing_groups=args.missing_groups,
        backend=args.backend,
        n_threads=args.n_threads,
        progress=show_progress(args),
    )
    return Evaluation(frame, samples, provenance)


def show_progress(args: argparse.Namespace) -> bool:
    return sys.stderr.isatty() and not args.quiet


def note(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(f"egtmetrics: {text}", file=sys.stderr)


def check_groups(args: argparse.Namespace, real_groups: Any, fake_groups: Any) -> None:
    """Refuse, before anything is encoded, groups that could not be compared."""
    from egtmetrics.groups._assignment import assign_groups

    groups = assign_groups(real_groups, fake_groups)
    groups.check_two()
    if args.missing_groups == "raise":
        groups.check_present("pass --missing-groups nan")


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
    check_writable([*args.out, *([] if args.figure is None else [args.figure])])
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
