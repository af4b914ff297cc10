"""``egtmetrics report``: an evaluation as one HTML page."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from egtmetrics.cli._common import Commands, add_command, check_outputs
from egtmetrics.cli._cost import note_costs, parts_to_come
from egtmetrics.cli._evaluation import (
    add_control,
    add_group_options,
    add_metric_options,
    add_quiet,
    add_sample_verdict_options,
    add_sides,
    check_metrics,
    check_verdicts,
    compare_encoders,
    controlled_of,
    evaluate_samples,
    note,
    read_views,
    show_progress,
)
from egtmetrics.cli._labels import add_confusion, check_confusion, correction_of
from egtmetrics.cli._page import check_page, has_page, html_page
from egtmetrics.cli._sides import add_sample_options, check_sample_options
from egtmetrics.cli._verdicts import exit_status, judge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from egtmetrics.cli._evaluation import Samples
    from egtmetrics.cli._sides import Side
    from egtmetrics.groups import GenerativeMetricFrame
    from egtmetrics.groups.label_errors import LabelSensitivity
    from egtmetrics.report.explanations import DecomposedSamples
    from egtmetrics.report.page import RankedSamples, SuspectedCopies
    from egtmetrics.samples import GroupedSamples

_EPILOG = """\
The page is one file that needs no network: read it, print it, send it. Where FAKE is images or texts, it shows some.

examples:
  egtmetrics report real/ fake/ --encoder dinov2 --out page.html
  egtmetrics report real/ fake/ --encoder dinov2 --encoder clip --encoder siglip --out page.html
  egtmetrics report real.npz fake.npz --groups y --match-groups --images samples/ --out page.html
  egtmetrics report real/ fake/ --training train/ --baseline held_out/ --encoder dinov2 --out page.html
  egtmetrics report real.npz fake.npz --groups y --texts fake.jsonl:text --out page.html
  egtmetrics report real.npz fake.npz --groups y --control object --out page.html
"""


def add_to(commands: Commands) -> None:
    report = add_command(
        commands,
        "report",
        _report,
        check=_check,
        help="compare real and generated samples, and write one HTML page",
        description="Compare real and generated samples, group by group, and write one self-contained HTML page.",
        epilog=_EPILOG,
    )
    add_sides(report, "the {} samples")
    data = add_sample_options(report, several_encoders=True)
    add_control(data)
    add_confusion(data)
    add_group_options(data)
    add_metric_options(report, default="topp,clipped,fid")
    page = report.add_argument_group("page")
    page.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page to write (.html)")
    page.add_argument("--title", metavar="TEXT", help="its heading")
    page.add_argument(
        "--level", type=float, default=0.95, metavar="P", help="of the confidence intervals (default: %(default)s)"
    )
    content = page.add_mutually_exclusive_group()
    content.add_argument(
        "--images",
        metavar="PATH",
        help="the generated images in any form that FAKE may have, one for each row of FAKE in the same order (that of "
        "the names, in a folder), where FAKE has features: the page shows those farthest from and nearest to the real "
        "samples of their group, as it does where FAKE is images or texts",
    )
    content.add_argument(
        "--texts",
        metavar="FILE[:KEY]",
        help="file of the generated texts (.jsonl .csv .parquet .txt), one for each row of FAKE, to show in the same "
        "way (default key: text)",
    )
    page.add_argument(
        "--training",
        metavar="FILE",
        help="the training set of the model, a file or folder like REAL: the page shows the generated samples of each "
        "group that are most likely copies, each beside its nearest training sample; with --baseline FILE it also "
        "tests whether the model copies more than chance",
    )
    add_quiet(page)
    add_sample_verdict_options(report)


class _Plan(NamedTuple):
    metrics: Mapping[str, Callable[..., Any]]
    tolerances: Mapping[str, float]


def _check(args: argparse.Namespace) -> _Plan:
    """Refuse, before anything is read, what could not be computed or written."""
    plan = _Plan(check_metrics(args), check_verdicts(args, with_intervals=False))  # the page also goes without
    check_sample_options(args)
    check_confusion(args)
    check_outputs(args, [args.out])
    if not has_page([args.out]):
        raise ValueError(f"--out {args.out}: the page is HTML; choose a name that ends in .html")
    from egtmetrics._validation import check_level

    check_level(args.level)
    check_page([args.out])
    return plan


def _report(args: argparse.Namespace) -> int:
    plan = _check(args)
    by_encoder = read_views(args, plan.metrics)
    found = next(iter(by_encoder.values()))
    samples = found.grouped
    contents = _contents(args, found.fake)
    copies = None if found.training is None else _copies(args, found, found.training, contents)

    from egtmetrics.report import write_whole

    frame, provenance = evaluate_samples(args, plan.metrics, samples, found.provenance)
    note_costs(args, parts_to_come(args, [frame], found.held_out, always=True, sensitivity=True))
    judged = judge(args, frame, plan.tolerances, found.held_out, progress=show_progress(args))
    views, of_views = compare_encoders(args, plan.metrics, by_encoder, judged)
    controlled, not_controlled = controlled_of(args, frame)
    correction, uncorrected = correction_of(args, frame)
    page = html_page(
        args,
        frame,
        judged,
        {**provenance, **of_views, **not_controlled, **uncorrected},
        views=views,
        controlled=controlled,
        correction=correction,
        divergence=_divergence(args, samples),
        sensitivity=_sensitivity(frame, plan.tolerances),
        samples=None if contents is None else _samples(args, samples, contents),
        copies=copies,
    )
    write_whole(args.out, page)
    note(args, f"wrote {args.out}")
    return exit_status([judged])


def _contents(args: argparse.Namespace, fake: Side) -> Sequence[str | NDArray[np.uint8]] | None:
    """Return the images or texts by row of FAKE, or None."""
    contents: Any
    n_fake = len(fake.features)
    if args.images is not None:
        from egtmetrics.data import open_source

        contents, option, path = (
            open_source(args.images, kind="images", image_key=args.image_key),
            "--images",
            args.images,
        )
    elif args.texts is not None:
        from egtmetrics.data import read_text_columns

        head, _, key = args.texts.rpartition(":")
        path, key = (head, key) if head and not Path(args.texts).is_file() else (args.texts, "text")
        contents = [text or "" for text in read_text_columns(path, [key])[key]]
        option = "--texts"
    else:
        contents, option, path = fake.contents, "FAKE", args.fake
    if contents is not None and len(contents) != n_fake:
        raise ValueError(
            f"{option} {path}: holds {len(contents)} of them for the {n_fake} rows of {args.fake}; give one for each "
            "row, in the same order"
        )
    found: Sequence[str | NDArray[np.uint8]] | None = contents
    return found


def _sensitivity(frame: GenerativeMetricFrame, tolerances: Mapping[str, float]) -> dict[str, LabelSensitivity]:
    """Return, by metric, which rate of wrong labels would change the finding, where scores can be corrected at all."""
    found = {}
    for metric in frame.settings["metrics"]:
        # A group is too small, clusters are not counted, or no score is a mean over samples: the rest is still good.
        with contextlib.suppress(ValueError):
            found[metric] = frame.label_sensitivity(metric, tolerance=tolerances.get(metric))
    return found


def _divergence(args: argparse.Namespace, samples: GroupedSamples) -> DecomposedSamples | str:
    from egtmetrics.report.explanations import decompose_samples

    try:
        return decompose_samples(samples, random_state=args.random_state)
    except ValueError as error:  # more clusters than distinct rows; the rest of the page is still good
        return str(error)


def _samples(
    args: argparse.Namespace, samples: GroupedSamples, contents: Sequence[str | NDArray[np.uint8]]
) -> RankedSamples:
    from egtmetrics.report.explanations import rank_samples
    from egtmetrics.report.page import RankedSamples

    ranking = rank_samples(samples, backend=args.backend, n_threads=args.n_threads)
    return RankedSamples(ranking=ranking, contents={row: contents[row] for row in ranking["row"].tolist()})


def _copies(
    args: argparse.Namespace,
    found: Samples,
    training: Side,
    contents: Sequence[str | NDArray[np.uint8]] | None,
) -> SuspectedCopies:
    from egtmetrics.groups import copying_test, suspected_copies
    from egtmetrics.report.page import SuspectedCopies

    kernels = {"backend": args.backend, "n_threads": args.n_threads}
    pairs = suspected_copies(training.features, found.grouped, **kernels)
    test = None
    if found.held_out is not None:
        test = copying_test(
            training.features,
            found.grouped.fake,
            found.held_out.features,
            fake_sensitive_features=found.fake.groups,
            held_out_sensitive_features=found.held_out.groups,
            **kernels,
        )
    rows, of_training = pairs["row"].tolist(), pairs["training_row"].tolist()
    return SuspectedCopies(
        pairs=pairs,
        contents={} if contents is None else {row: contents[row] for row in rows},
        training_contents={} if training.contents is None else {row: training.contents[row] for row in of_training},
        training_names={} if training.names is None else {row: training.names[row] for row in of_training},
        test=test,
    )
