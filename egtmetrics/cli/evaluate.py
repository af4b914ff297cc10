"""``egtmetrics evaluate``: features and labels in files."""

from __future__ import annotations

import argparse
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import egtmetrics
from egtmetrics.cli._common import Commands, check_writable

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


def add_to(commands: Commands) -> None:
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
