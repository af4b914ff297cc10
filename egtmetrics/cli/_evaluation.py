"""What the commands that evaluate share: options, the run, and what is written."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from egtmetrics._atomic import write_whole
from egtmetrics._text import shown
from egtmetrics.cli._common import Parser, check_outputs, seed
from egtmetrics.cli._cost import note_costs, parts_to_come
from egtmetrics.cli._labels import check_confused_groups, check_confusion, correction_of
from egtmetrics.cli._messages import EXPECTED, error_text
from egtmetrics.cli._oracles import call_groups, load_callers
from egtmetrics.cli._page import PAGE_SUFFIXES, has_page, html_page
from egtmetrics.cli._ranks import join_ranks
from egtmetrics.cli._sides import Side, check_encodings, check_sample_options, label_by_oracle, load_encoding, open_side
from egtmetrics.cli._streams import say, show, width
from egtmetrics.cli._verdicts import (
    SPLIT,
    HeldOut,
    Judged,
    add_verdict_options,
    baseline_of,
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

    from egtmetrics.groups import FrameIntervals, GenerativeMetricFrame, ViewComparison
    from egtmetrics.groups.controlled import ControlledScores
    from egtmetrics.report.tables import Format
    from egtmetrics.samples import GroupedSamples

_OUT_FORMATS: dict[str, Format] = {".txt": "table", ".json": "json", ".md": "markdown", ".tex": "latex"}
_CARD: Literal["card"] = "card"
_NO_COMPARISON = "no comparison of encoders"
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


def add_control(data: Any) -> None:
    """Add the option on control features to the group of the options on data."""
    data.add_argument(
        "--control",
        metavar="KEY",
        help="compare the groups also within strata, such as the object that an image shows: a key (column) of both "
        "REAL and FAKE, or several separated by commas; gaps are averaged by the strata's shares of the real samples",
    )


class Samples(NamedTuple):
    """What was read of the paths of an evaluation."""

    grouped: GroupedSamples
    provenance: dict[str, Any]
    held_out: HeldOut | None
    fake: Side
    training: Side | None
    """The training set of ``--training``."""


def read_samples(args: argparse.Namespace, metrics: Mapping[str, Callable[..., Any]]) -> Samples:
    """Read REAL, FAKE and the held-out samples of ``--baseline``, and encode what are no features yet."""
    return _read_samples(args, metrics, [args.model])[0]


def read_views(args: argparse.Namespace, metrics: Mapping[str, Callable[..., Any]]) -> dict[str | None, Samples]:
    """Read as ``read_samples`` does, and encode with each of several encoders; return the samples by their names."""
    models = args.model or [None]
    return dict(zip(models, _read_samples(args, metrics, models), strict=True))


def _read_samples(
    args: argparse.Namespace, metrics: Mapping[str, Callable[..., Any]], models: Sequence[str | None]
) -> list[Samples]:
    paths = {"real": ("real", args.real), "fake": ("fake", args.fake)}
    held_out_path = held_out_file(args) if hasattr(args, "held_out") else None
    if held_out_path is not None:
        paths["held_out"] = ("held_out", held_out_path)
    if getattr(args, "training", None) is not None:
        paths["training"] = ("training", args.training)
    found = []
    for sides, encoded in _read_sides(args, metrics, paths, models):
        held_out = held_out_of(sides)
        provenance = {**{name: side.source for name, side in sides.items()}, **encoded}
        grouped = group_sides(args, sides["real"], sides["fake"])
        found.append(Samples(grouped, provenance, held_out, sides["fake"], sides.get("training")))
    return found


def held_out_of(sides: Mapping[str, Side]) -> HeldOut | None:
    """Return the held-out samples among the sides that were read, if there are any."""
    side = sides.get("held_out")
    if side is None:
        return None
    return HeldOut(side.features, side.groups, side.source, side.others.get("clusters"))


def read_sides(
    args: argparse.Namespace, metrics: Mapping[str, Callable[..., Any]], paths: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, Side], dict[str, Any]]:
    """Read samples; ``paths`` has, for each name, its role and its path, and ``"real"`` is among the names."""
    return _read_sides(args, metrics, paths, [args.model])[0]


def _read_sides(
    args: argparse.Namespace,
    metrics: Mapping[str, Callable[..., Any]],
    paths: Mapping[str, tuple[str, str]],
    models: Sequence[str | None],
) -> list[tuple[dict[str, Side], dict[str, Any]]]:
    """Read samples, and encode them with each of the models.

    Groups that could not be compared, metrics that could not be had of groups of their sizes, and encoders that cannot
    be used are refused before the first sample is encoded.
    """
    join_ranks(args)
    if args.groups is not None:  # in messages
        roles = {role for role, _ in paths.values() if getattr(args, f"{role}_sensitive_features", None) is None}
        args.other_options = {f"{role}_sensitive_features": f"--groups of {role.upper()}" for role in roles}
    sides = {name: open_side(args, role, path) for name, (role, path) in paths.items()}
    with_groups = {name: side for name, side in sides.items() if paths[name][0] != "training"}
    if args.backend == "cuda":
        _check_copies(args, sides["real"], paths["real"][1])
    fakes = {name: side for name, side in sides.items() if paths[name][0] == "fake"}
    if any(side.contents is not None for side in sides.values()):
        for side in with_groups.values():
            if side.contents is not None:
                note(args, side.count_groups())
        _check_known(args, metrics, sides["real"], fakes.values())
    note_one_sided_oracle(args, with_groups)
    callers = load_callers(args, sides.values())
    by_model = {model: load_encoding(args, sides, model, progress=show_progress(args)) for model in models}
    check_encodings(by_model)
    encoders = {model: encoding.encoder for model, encoding in by_model.items()}
    if called := call_groups(args, sides, callers, encoders, progress=show_progress(args)):
        for name in called:
            note(args, sides[name].count_groups())
        _check_known(args, metrics, sides["real"], fakes.values())
    encodings = list(by_model.values())
    # Of the training set nothing but the first encoder's view is shown.
    views = [
        {name: side.copy() for name, side in (with_groups if place else sides).items()}
        for place in range(len(encodings))
    ]
    for encoding, view in zip(encodings, views, strict=True):
        encoding.encode(view)
    if args.ranks is not None:
        args.ranks.leave()
    first, *others = views
    by_oracle = [name for name, fake in fakes.items() if fake.groups is None]
    held_out = [side for name, side in first.items() if paths[name][0] == "held_out"]
    for told in label_by_oracle(args, first["real"], [first[name] for name in by_oracle], held_out):
        note(args, told)
    for name in by_oracle:
        check_groups(args, metrics, first["real"], first[name])
    for view in others if by_oracle else []:  # the groups are the same, whoever sees the samples
        for name, side in view.items():
            side.groups = first[name].groups
            side.source |= {
                key: first[name].source[key] for key in ("in_no_group", "oracle") if key in first[name].source
            }
    if args.backend == "cuda":
        from egtmetrics.ops._device import to_device

        for side in (side for view in views for side in view.values()):
            side.features = to_device(side.features)
    return [(view, encoding.provenance) for view, encoding in zip(views, encodings, strict=True)]


def _check_known(
    args: argparse.Namespace, metrics: Mapping[str, Callable[..., Any]], real: Side, fakes: Iterable[Side]
) -> None:
    """Refuse groups that could not be compared, of the sides whose groups are known by now."""
    for fake in fakes:
        if real.groups is not None and fake.groups is not None:
            check_groups(args, metrics, real, fake)


def _check_copies(args: argparse.Namespace, real: Side, path: str) -> None:
    """Say what a copy of a reference on the device lacks; refuse one that has no samples."""
    from egtmetrics.ops import WithheldRows, memo_of

    features = getattr(real, "features", None)  # of images and texts there are none yet
    if isinstance(features, WithheldRows):
        raise ValueError(
            f"--backend cuda: {path} has no samples that could be copied to the device; leave --backend cuda out, or "
            "pass the samples themselves"
        )
    if memo_of(features) is not None:
        note(args, f"{path} holds what the CPU computed; of it, --backend cuda takes the samples and the groups alone")


def note_one_sided_oracle(args: argparse.Namespace, sides: Mapping[str, Side]) -> None:
    """Say where an oracle calls the groups of some samples, and others have labels."""
    by_oracle = {name for name, side in sides.items() if str(side.source["groups"]).startswith("oracle:")}
    if by_oracle and len(by_oracle) < len(sides):
        note(
            args,
            "an oracle calls the groups of one side alone, so that its errors make gaps by themselves; call all "
            "samples by it (--groups oracle:...), or measure its errors and correct the scores (docs/labels.md)",
        )


def group_sides(args: argparse.Namespace, real: Side, fake: Side) -> GroupedSamples:
    """Check features and labels."""
    from egtmetrics.samples import GroupedSamples

    return GroupedSamples(
        real=real.features,
        fake=fake.features,
        **_labels_of("real", real),
        **_labels_of("fake", fake),
    )


def _labels_of(role: str, side: Side) -> dict[str, Any]:
    """Return the labels of a side, as arguments of ``GroupedSamples``."""
    return {f"{role}_{name}": labels for name, labels in {"sensitive_features": side.groups, **side.others}.items()}


def add_sample_verdict_options(parser: Parser, *, dose: bool = True) -> None:
    """Add the options of baseline and tolerance, and those of a dose, to a command that reads samples."""
    group = add_verdict_options(parser, "a file or folder like REAL", dose=dose)
    group.add_argument(
        "--baseline-key",
        dest="held_out_key",
        metavar="KEY",
        help="the features in the baseline's FILE (default: as --real-key)",
    )


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
        from egtmetrics.metrics.variance import N_CALLS

        interval.help = (
            "add confidence intervals of this level, for example 0.95; costs one to six more evaluations for "
            f"{', '.join(with_own_variance())}, some {N_CALLS} on parts of the samples for any other metric"
        )
        figure.help = (
            "draw precision against recall by group, of the first metric that has both: "
            f"{', '.join(with_precision_and_recall())}; with several --encoder the gaps under each (.png, .pdf, .svg)"
        )

    parser.late.append(late)


def add_quiet(output: Any) -> None:
    output.add_argument("--quiet", action="store_true", help="no progress and no notes on stderr")


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


def check_options(args: argparse.Namespace) -> Plan:
    """Refuse, before anything is read, what could not be computed or written."""
    if args.level is not None:
        from egtmetrics._validation import check_level

        check_level(args.level)
    check_sample_options(args)
    plan = Plan(check_metrics(args), _check_outputs(args), check_verdicts(args, with_intervals=args.level is not None))
    check_confusion(args)
    return plan


def check_verdicts(args: argparse.Namespace, *, with_intervals: bool) -> Mapping[str, float]:
    """Return the tolerances by metric; refuse what could not be judged."""
    if not hasattr(args, "tolerance"):  # a command without verdicts
        return {}
    check_dose(args)
    several = has_several_encoders(args)
    if several and args.held_out is None:  # gaps under several encoders are compared by the excess
        args.held_out = SPLIT
    tolerances = chosen_tolerances(args)
    if tolerances and args.level is not None:
        from egtmetrics.groups.verdict import check_confidence

        check_confidence(args.level)
    check_baseline(args, with_errors=with_intervals or bool(tolerances) or several)
    return tolerances


def check_metrics(args: argparse.Namespace) -> Mapping[str, Callable[..., Any]]:
    """Return the metrics that were asked for; refuse options and a backend that could not be used."""
    from egtmetrics._errors import TooFewSamplesError
    from egtmetrics.cli._metric_options import chosen_metrics

    metrics = chosen_metrics(args)
    for name, (_, refusal) in _refusals(args, metrics).items():
        if refusal is not None and not isinstance(refusal, TooFewSamplesError):
            raise ValueError(f"metric {name!r}: {refusal}") from refusal
    if args.backend == "cuda":
        _check_device()
    return metrics


def evaluate_and_write(args: argparse.Namespace, plan: Plan, by_encoder: Mapping[str | None, Samples]) -> int:
    """Evaluate the samples, print the results and write the files; return the exit status."""
    from egtmetrics.report import plot_precision_recall, render

    samples = next(iter(by_encoder.values()))
    frame, provenance = evaluate_samples(args, plan.metrics, samples.grouped, samples.provenance)
    note_costs(args, parts_to_come(args, [frame], samples.held_out, always=has_page(args.out)))
    judged = judge(args, frame, plan.tolerances, samples.held_out, progress=show_progress(args))
    intervals, why_not = intervals_of(args, frame)
    correction, uncorrected = correction_of(args, frame)
    views, of_views = compare_encoders(args, plan.metrics, by_encoder, judged)
    controlled, not_controlled = controlled_of(args, frame)
    provenance = {**provenance, **why_not, **uncorrected, **of_views, **not_controlled}

    def figure() -> Axes:
        if plan.figure_metric is not None:
            return plot_precision_recall(frame, metric=plan.figure_metric)
        if views is None:
            raise ValueError(f"no figure of the encoders: {of_views[_NO_COMPARISON]}")
        return cast("Axes", views.plot())

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
            views=views,
            controlled=controlled,
            correction=correction,
            provenance=provenance,
        ),
        figure,
        lambda: html_page(args, frame, judged, provenance, views=views, controlled=controlled, correction=correction),
    )
    return exit_status([judged])


def compare_encoders(
    args: argparse.Namespace,
    metrics: Mapping[str, Callable[..., Any]],
    by_encoder: Mapping[str | None, Samples],
    judged: Judged,
) -> tuple[ViewComparison | None, Mapping[str, Any]]:
    """Compare the gaps under the first encoder, which were judged, with those under the others.

    Return also what is known of the others, or why there is no comparison.
    """
    (first, _), *others = by_encoder.items()
    if not others:
        return None, {}
    from egtmetrics.groups import compare_views

    assert judged.baseline is not None  # check_verdicts chose one
    baselines = {str(first): judged.baseline}
    found: dict[str, Any] = {}
    try:
        for model, samples in others:
            frame, _ = evaluate_samples(args, metrics, samples.grouped, {})
            baselines[str(model)] = baseline_of(args, frame, samples.held_out, progress=show_progress(args))
            found[f"encoder {model}"] = samples.provenance["encoder"]
        level = 0.95 if args.level is None else args.level
        return compare_views(baselines, of="encoder", level=level), found
    except ValueError as error:
        if args.strict:
            raise
        reason = error_text(error, args)
        say(f"warning: {_NO_COMPARISON}: {reason}")
        return None, {**found, _NO_COMPARISON: reason}


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


def controlled_of(
    args: argparse.Namespace, frame: GenerativeMetricFrame
) -> tuple[ControlledScores | None, Mapping[str, str]]:
    """Return the scores within the strata of --control, or why there are none: all others are worth printing alone."""
    if args.control is None:
        return None, {}
    try:
        controlled = frame.controlled(progress=show_progress(args))
        if args.strict and args.level is not None:
            controlled.interval(args.level)
        return controlled, {}
    except ValueError as error:
        if args.strict:
            raise
        reason = error_text(error, args)
        say(f"warning: no comparison within strata: {reason}")
        return None, {"no comparison within strata": reason}


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
    check_strata(args, samples)
    if args.match_sizes or args.across_groups:
        samples = samples.matched(across_groups=args.across_groups, at_most=at_most, random_state=args.random_state)
        kept = {"real_kept": len(samples.real), "fake_kept": len(samples.fake)}
        provenance = {**provenance, "matching": {"across_groups": args.across_groups, **kept}}
    check_set_size(args, samples)
    check_confused_groups(args, samples.groups.index.tolist())
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


def has_several_encoders(args: argparse.Namespace) -> bool:
    """Return whether ``--encoder`` was repeated."""
    return isinstance(getattr(args, "model", None), list) and len(args.model) > 1


def show_progress(args: argparse.Namespace) -> bool:
    return not args.quiet


def note(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        say(shown(text))


def check_groups(args: argparse.Namespace, metrics: Mapping[str, Callable[..., Any]], real: Side, fake: Side) -> None:
    """Refuse groups that could not be compared, and metrics that could not be had of groups of these sizes."""
    import numpy as np

    from egtmetrics.samples import GroupedSamples

    assert real.groups is not None
    assert fake.groups is not None
    samples = GroupedSamples(
        real=np.zeros((len(real.groups), 1)),
        fake=np.zeros((len(fake.groups), 1)),
        **_labels_of("real", real),
        **_labels_of("fake", fake),
    )
    groups = samples.groups
    groups.check_two()
    if args.missing_groups == "raise" or not groups.on_both_sides():
        groups.check_present("pass --missing-groups nan")
    check_confused_groups(args, groups.index.tolist())
    check_strata(args, samples)
    if args.match_sizes or args.across_groups:
        samples = samples.matched(across_groups=args.across_groups, random_state=args.random_state)
    check_set_size(args, samples)
    _check_sizes(args, metrics, samples)


def check_strata(args: argparse.Namespace, samples: GroupedSamples) -> None:
    """Refuse, before anything is computed, strata within which no groups could be compared."""
    if samples.strata is not None:
        from egtmetrics.groups.controlled import groups_lacking

        try:
            groups_lacking(samples)
        except ValueError as error:
            raise ValueError(f"--control {args.control}: {error}") from error


def _check_sizes(args: argparse.Namespace, metrics: Mapping[str, Callable[..., Any]], samples: GroupedSamples) -> None:
    """Refuse metrics that need more samples than all have together, or, with ``--strict``, than any group has."""
    import numpy as np

    from egtmetrics._errors import TooFewSamplesError
    from egtmetrics.groups._evaluation import naming_metric

    groups = samples.groups
    counts = groups.counts().loc[groups.on_both_sides(), ["n_real", "n_fake"]]
    sizes = {"all samples": (len(samples.real), len(samples.fake))}
    if args.strict:
        by_group = zip(counts.index.tolist(), counts.to_numpy().tolist(), strict=True)
        sizes |= {f"group {groups.name(label)!r}": (n, m) for label, (n, m) in by_group}
    for name, (metric, refusal) in _refusals(args, metrics).items():
        needed = refusal.needed if isinstance(refusal, TooFewSamplesError) else 0
        for where, (n, m) in sizes.items():
            if min(n, m) < needed:
                with naming_metric(name, f"{where} ({n} real, {m} fake)"):
                    metric(np.zeros((n, 1)), np.zeros((m, 1)))


def _refusals(
    args: argparse.Namespace, metrics: Mapping[str, Callable[..., Any]]
) -> dict[str, tuple[Callable[..., Any], ValueError | None]]:
    """Return each metric, ready to be called, and how it refuses sets of one row."""
    import numpy as np

    from egtmetrics.groups._evaluation import bind, refusal_of_one_row

    options = {"random_state": args.random_state, "backend": "reference", "n_threads": args.n_threads}
    bound = {name: bind(metric, options) for name, metric in metrics.items()}
    return {name: (metric, refusal_of_one_row(metric, np.zeros((1, 1)))) for name, metric in bound.items()}


def _check_outputs(args: argparse.Namespace) -> str | None:
    """Refuse, before anything is computed, what could not be written; return the metric to draw."""
    check_outputs(args, [*args.out, *([] if args.figure is None else [args.figure])])
    if args.figure is None:
        return None
    from egtmetrics.cli._metric_options import with_precision_and_recall
    from egtmetrics.plots import check_figure_suffix, figure_class

    check_figure_suffix(args.figure)
    figure_class()
    if has_several_encoders(args):
        return None
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
