"""What the commands that evaluate share: options, the run, and what is written."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from egtmetrics._atomic import write_whole
from egtmetrics._text import shown
from egtmetrics.cli._common import Parser, check_folder, check_outputs, seed
from egtmetrics.cli._messages import EXPECTED, error_text
from egtmetrics.cli._page import html_page
from egtmetrics.cli._streams import say, show, width
from egtmetrics.cli._verdicts import (
    HeldOut,
    add_verdict_options,
    check_baseline,
    check_dose,
    check_set_size,
    chosen_tolerances,
    exit_status,
    held_out_file,
    judge,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from egtmetrics.data import LabelledFeatures
    from egtmetrics.groups import FrameIntervals, GenerativeMetricFrame
    from egtmetrics.report.tables import Format
    from egtmetrics.samples import GroupedSamples

_OUT_FORMATS: dict[str, Format] = {".txt": "table", ".json": "json", ".md": "markdown", ".tex": "latex"}
PAGE_SUFFIXES = (".html", ".htm")
_CARD: Literal["card"] = "card"
_WORTH_A_NOTE = 1.0
"""Seconds that a reference did not save."""


class Plan(NamedTuple):
    """What to compute and draw: checked options."""

    metrics: Mapping[str, Callable[..., Any]]
    figure_metric: str | None
    tolerances: Mapping[str, float]


class Evaluation(NamedTuple):
    """A frame, and where its samples came from."""

    frame: GenerativeMetricFrame
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
            dest=f"{side}_sensitive_features",
            metavar="LABELS",
            required=side == "fake",
            help=f"group labels: a file, FILE:KEY, or a key (column) of {side.upper()}; several keys separated by "
            "commas give their intersections" + ("; a reference (.egt) has its own" if side == "real" else ""),
        )
    for side in ("real", "fake"):
        data.add_argument(
            f"--{side}-key",
            metavar="KEY",
            help=f"the features in {side.upper()}: an array, by default 'features' or else the only (n, d) one; or "
            "columns separated by commas",
        )
    for side in ("real", "fake"):
        data.add_argument(
            f"--{side}-clusters",
            metavar="LABELS",
            help=f"where rows of {side.upper()} vary together (images of one prompt, photos of one person): a label "
            f"that they share, in the form of --{side}-groups; intervals and tests then divide whole clusters",
        )
    return data


def add_control(data: Any) -> None:
    """Add the option on control features to the group of the options on data."""
    data.add_argument(
        "--control",
        metavar="KEY",
        help="compare the groups also within strata, such as the object that an image shows: a key (column) of both "
        "REAL and FAKE, or several separated by commas; gaps are averaged by the strata's shares of the real samples",
    )


def read_samples(args: argparse.Namespace, real_path: str, fake_path: str) -> tuple[GroupedSamples, dict[str, Any]]:
    """Read two files as ``add_file_options`` says; return the samples and where they came from."""
    sides = {side: read_side(args, side, path) for side, path in (("real", real_path), ("fake", fake_path))}
    samples = group_samples(
        args,
        real=sides["real"].features,
        fake=sides["fake"].features,
        **labels_of("real", sides["real"]),
        **labels_of("fake", sides["fake"]),
    )
    return samples, {side: found.source for side, found in sides.items()}


def labels_of(side: str, read: LabelledFeatures) -> dict[str, Any]:
    """Return the labels of a side, as arguments of ``GroupedSamples``."""
    return {f"{side}_{name}": labels for name, labels in {"sensitive_features": read.groups, **read.others}.items()}


def read_side(args: argparse.Namespace, side: str, path: str) -> LabelledFeatures:
    """Read the features and groups of one side, ``"real"``, ``"fake"`` or ``"held_out"``.

    The features are checked here, so that an error names the file.
    """
    from egtmetrics._validation import check_features, keep_checked
    from egtmetrics.data import read_labelled_features

    others = {"clusters": getattr(args, f"{side}_clusters", None)}
    if side in ("real", "fake"):
        others["control_features"] = getattr(args, "control", None)
    read = read_labelled_features(
        path,
        groups=getattr(args, f"{side}_sensitive_features"),
        key=getattr(args, f"{side}_key"),
        others={name: where for name, where in others.items() if where is not None},
    )
    features: Any = keep_checked(check_features(read.features, str(path)))
    return dataclasses.replace(read, features=features)


def read_held_out(args: argparse.Namespace) -> HeldOut | None:
    """Read the held-out real samples of ``--baseline``, in the same way as REAL where nothing else is said."""
    path = held_out_file(args)
    if path is None:
        return None
    for name in ("sensitive_features", "key"):
        if getattr(args, f"held_out_{name}") is None:
            setattr(args, f"held_out_{name}", getattr(args, f"real_{name}"))
    args.held_out_clusters = getattr(args, "real_clusters", None)
    read = read_side(args, "held_out", path)
    return HeldOut(read.features, read.groups, read.source, read.others.get("clusters"))


def add_file_verdict_options(parser: Parser, *, dose: bool = True) -> None:
    """Add the options of baseline and tolerance, and those of a dose, to a command that reads features."""
    group = add_verdict_options(parser, "a file like REAL", dose=dose)
    group.add_argument(
        "--baseline-key",
        dest="held_out_key",
        metavar="KEY",
        help="the features in the baseline's FILE (default: as --real-key)",
    )


def group_samples(args: argparse.Namespace, *, real: Any, fake: Any, **sensitive_features: Any) -> GroupedSamples:
    """Check features and labels; with ``--backend cuda`` copy the features to the device."""
    from egtmetrics.ops import memo_of
    from egtmetrics.samples import GroupedSamples

    if args.backend == "cuda":
        from egtmetrics.ops._device import to_device

        if memo_of(real) is not None:
            raise ValueError(
                "a reference file is for the CPU; leave out --backend cuda, or pass the features themselves"
            )

        real, fake = to_device(real), to_device(fake)
    return GroupedSamples(real=real, fake=fake, **sensitive_features)


def add_options(parser: Parser, data: Any, *, metrics: str = "topp,clipped,fid", pages: bool = True) -> None:
    """Add the options of every kind of samples; those on groups to ``data``, an argument group.

    ``pages`` says whether the results can be written as an HTML page and as a model card.
    """
    add_group_options(data)
    add_metric_options(parser, default=metrics)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=(*_OUT_FORMATS.values(), *([_CARD] if pages else [])),
        default="table",
        help="how results are printed (default: %(default)s)"
        + ("; card is a section of a model card with the metadata of the Hugging Face hub" if pages else ""),
    )
    output.add_argument(
        "--out",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="write the results to a file as well, in the format of its suffix "
        f"({', '.join([*_OUT_FORMATS, *(PAGE_SUFFIXES[:1] if pages else ())])}), else in --format; may be repeated"
        + (f"; with --format {_CARD} a .md file is a card" if pages else ""),
    )
    interval = output.add_argument("--interval", dest="level", type=float, metavar="LEVEL")
    figure = output.add_argument("--figure", type=Path, metavar="FILE")
    add_quiet(output)

    def late() -> None:
        from egtmetrics.cli._metric_options import with_own_variance, with_precision_and_recall

        interval.help = (
            "add confidence intervals of this level, for example 0.95; costs one to three more evaluations for "
            f"{', '.join(with_own_variance())}, some 330 on parts of the samples for any other metric"
        )
        figure.help = (
            "draw precision against recall by group, of the first metric that has both: "
            f"{', '.join(with_precision_and_recall())} (.png, .pdf, .svg)"
        )

    parser.late.append(late)


def add_quiet(output: Any) -> None:
    output.add_argument("--quiet", action="store_true", help="no progress bar and no notes on stderr")


def add_group_options(data: Any) -> None:
    """Add the options on groups to an argument group."""
    data.add_argument(
        "--missing-groups",
        choices=("raise", "nan"),
        default="raise",
        help="a group with samples on one side only: refuse it, or give it scores of nan (default: %(default)s)",
    )
    data.add_argument(
        "--strict",
        action="store_true",
        help="end with an error where a metric or an interval cannot be had, for example of a group with too few "
        "samples (default: nan, with the reason below the tables)",
    )
    data.add_argument(
        "--match-sizes", action="store_true", help="subsample every group to as many real as fake samples"
    )
    data.add_argument(
        "--match-groups",
        dest="across_groups",
        action="store_true",
        help="subsample all groups to the same size, too; implies --match-sizes",
    )


def add_metric_options(parser: Parser, *, default: str) -> None:
    """Add the options on metrics; ``default`` are the metrics to compute."""
    metrics = parser.add_argument_group("metrics")
    metrics.add_argument(
        "--random-state", type=seed, default=0, metavar="SEED", help="seed of everything random (default: %(default)s)"
    )
    metrics.add_argument(
        "--backend",
        choices=("auto", "cpu", "cuda", "reference"),
        default="auto",
        help="kernels to compute with; cuda copies the features to the current CUDA device (default: %(default)s)",
    )
    metrics.add_argument("--n-threads", type=int, metavar="N", help="threads of the kernels (default: every core)")

    def late() -> None:
        from egtmetrics.cli._metric_options import add_registered

        add_registered(parser, metrics, default=default)

    parser.late.append(late)


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
    if args.level is not None:
        from egtmetrics._validation import check_level

        check_level(args.level)
    return Plan(check_metrics(args), _check_outputs(args), check_verdicts(args, with_intervals=args.level is not None))


def check_verdicts(args: argparse.Namespace, *, with_intervals: bool) -> Mapping[str, float]:
    """Return the tolerances by metric; refuse what could not be judged."""
    if not hasattr(args, "tolerance"):  # a command without verdicts
        return {}
    check_dose(args)
    tolerances = chosen_tolerances(args)
    if tolerances and args.level is not None:
        from egtmetrics.groups.verdict import check_confidence

        check_confidence(args.level)
    check_baseline(args, with_errors=with_intervals or bool(tolerances))
    return tolerances


def check_metrics(args: argparse.Namespace) -> Mapping[str, Callable[..., Any]]:
    """Return the metrics that were asked for; refuse options and a backend that could not be used."""
    import numpy as np

    from egtmetrics._errors import TooFewSamplesError
    from egtmetrics.cli._metric_options import chosen_metrics
    from egtmetrics.groups._evaluation import bind, refusal_of_one_row

    metrics = chosen_metrics(args)
    row = np.zeros((1, 2))
    for name, metric in metrics.items():
        bound = bind(metric, {"random_state": args.random_state, "backend": "reference", "n_threads": args.n_threads})
        refusal = refusal_of_one_row(bound, row)
        if refusal is not None and not isinstance(refusal, TooFewSamplesError):
            raise ValueError(f"metric {name!r}: {refusal}") from refusal
    if args.backend == "cuda":
        _check_device()
    return metrics


def evaluate_and_write(
    args: argparse.Namespace,
    plan: Plan,
    samples: GroupedSamples,
    provenance: Mapping[str, Any],
    held_out: HeldOut | None = None,
) -> int:
    """Evaluate the samples, print the results and write the files; return the exit status."""
    from egtmetrics.report import plot_precision_recall, render

    if held_out is not None:
        provenance = {**provenance, "held_out": held_out.source}
    frame, provenance = evaluate_samples(args, plan.metrics, samples, provenance)
    judged = judge(args, frame, plan.tolerances, held_out, progress=show_progress(args))
    intervals, why_not = intervals_of(args, frame)
    provenance = {**provenance, **why_not}
    controlled = frame.controlled(progress=show_progress(args)) if getattr(args, "control", None) else None
    write_outputs(
        args,
        lambda format, width: render(
            frame,
            format=format,
            width=width,
            intervals=intervals,
            baseline=judged.baseline,
            verdicts=judged.verdicts,
            dose=judged.dose,
            controlled=controlled,
            provenance=provenance,
        ),
        lambda: plot_precision_recall(frame, metric=plan.figure_metric),
        lambda: html_page(args, frame, judged, provenance),
    )
    return exit_status([judged])


def intervals_of(
    args: argparse.Namespace, frame: GenerativeMetricFrame
) -> tuple[FrameIntervals | None, Mapping[str, str]]:
    """Return the intervals of --interval, or why there are none: the scores are worth printing without them."""
    if args.level is None:
        return None, {}
    try:
        return frame.interval(args.level), {}
    except ValueError as error:
        if args.strict:
            raise
        reason = error_text(error, args)
        say(f"warning: no intervals: {reason}")
        return None, {"no intervals": reason}


def write_outputs(
    args: argparse.Namespace,
    text: Callable[[Format, int], str],
    figure: Callable[[], Axes],
    page: Callable[[], str] | None = None,
) -> None:
    """Write the files of --out, with the ``text`` of their formats or the ``page``, and the ``figure``; then print.

    ``text`` gets the width of sentences, too. The results are printed even if a file could not be written; the status
    is 2 then.
    """
    from egtmetrics.report import save_figure
    from egtmetrics.report.tables import WIDTH

    def write_text(path: Path) -> None:
        suffix = path.suffix.lower()
        if page is not None and suffix in PAGE_SUFFIXES:
            write_whole(path, page())
        else:
            in_card = args.format == _CARD and suffix == ".md"
            write_whole(path, text(args.format if in_card else _OUT_FORMATS.get(suffix, args.format), WIDTH))

    files = [*((path, write_text) for path in args.out)]
    if args.figure is not None:
        files.append((args.figure, lambda path: save_figure(figure(), path)))
    failed = False
    try:
        for path, write in files:
            try:
                write(path)
            except EXPECTED as error:
                say(f"error: {error_text(error, args)}")
                failed = True
            else:
                note(args, f"wrote {path}")
    finally:
        show(text(args.format, width()))
    if failed:
        raise SystemExit(2)


def evaluate_samples(
    args: argparse.Namespace,
    metrics: Mapping[str, Callable[..., Any]],
    samples: GroupedSamples,
    provenance: Mapping[str, Any],
    *,
    at_most: Mapping[Hashable, int] | None = None,
) -> Evaluation:
    """Match the sizes if that was asked for, by group to ``at_most`` so many, and evaluate."""
    from egtmetrics.groups import GenerativeMetricFrame
    from egtmetrics.ops import memo_of

    memo = memo_of(samples.real)
    if args.match_sizes or args.across_groups:
        samples = samples.matched(across_groups=args.across_groups, at_most=at_most, random_state=args.random_state)
        kept = {"real_kept": len(samples.real), "fake_kept": len(samples.fake)}
        provenance = {**provenance, "matching": {"across_groups": args.across_groups, **kept}}
    check_set_size(args, samples)
    if args.plan_file is not None:
        provenance = {**provenance, "plan": {"file": args.plan_file, "sha256": args.plan_sha256}}
    frame = GenerativeMetricFrame(
        metrics=metrics,
        samples=samples,
        random_state=args.random_state,
        missing_groups=args.missing_groups,
        strict=args.strict,
        backend=args.backend,
        n_threads=args.n_threads,
        progress=show_progress(args),
    )
    if memo is not None and memo.seconds > _WORTH_A_NOTE:
        note(
            args,
            f"{memo.seconds:.0f} s went into what the reference does not hold; egtmetrics prepare with the same "
            "--metrics, their options and --random-state saves them",
        )
    return Evaluation(frame, provenance)


def show_progress(args: argparse.Namespace) -> bool:
    return sys.stderr.isatty() and not args.quiet


def note(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        say(shown(text))


def check_groups(args: argparse.Namespace, real_groups: Any, fake_groups: Any) -> None:
    """Refuse, before anything is encoded, groups that could not be compared."""
    from egtmetrics.labels import assign_groups

    groups = assign_groups(real_groups, fake_groups)
    groups.check_two()
    if args.missing_groups == "raise" or not groups.on_both_sides():
        groups.check_present("pass --missing-groups nan")


def _check_outputs(args: argparse.Namespace) -> str | None:
    """Refuse, before anything is computed, what could not be written; return the metric to draw."""
    if getattr(args, "cache", None) is not None:  # of the commands with an encoder
        check_folder(Path(args.cache))
    check_outputs(args, [*args.out, *([] if args.figure is None else [args.figure])])
    if args.figure is None:
        return None
    from egtmetrics.cli._metric_options import with_precision_and_recall
    from egtmetrics.plots import check_figure_suffix, figure_class

    check_figure_suffix(args.figure)
    figure_class()
    drawable = with_precision_and_recall()
    drawn: str | None = next((name for name in args.metrics if name in drawable), None)
    if drawn is None:
        raise ValueError(
            f"--figure draws precision and recall, and --metrics {','.join(args.metrics)} has none; add one of "
            f"{', '.join(drawable)}"
        )
    return drawn


def _check_device() -> None:
    """Refuse ``--backend cuda``, before anything is read, on a machine without a device."""
    from egtmetrics.ops._device import NoDeviceError, select_device

    try:
        select_device()
    except NoDeviceError as error:
        raise ValueError(f"--backend cuda: {error}") from error
