"""Hand labels of generated samples: the option, what it cannot be used with, and the corrected scores."""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from egtmetrics.cli._messages import error_text
from egtmetrics.cli._sides import ORACLE, groups_spec
from egtmetrics.cli._streams import say

if TYPE_CHECKING:
    from egtmetrics.confusion import Confusion
    from egtmetrics.groups import GenerativeMetricFrame
    from egtmetrics.groups.label_errors import LabelCorrection

_NONE = "no correction of labels"


def add_confusion(data: Any) -> None:
    """Add the option on hand labels to the group of the options on data."""
    data.add_argument(
        "--confusion",
        metavar="FILE",
        help="how often the labels of FAKE err: a .csv with the columns true and called, of a random part of FAKE that "
        "was labelled by hand, or a table with a row for each true group and a column for each called one. Scores and "
        "gaps are also given by true group, where they can be corrected; REAL needs true labels. The exit status "
        "stays that of the labels as called",
    )


def check_confusion(args: argparse.Namespace) -> None:
    """Refuse, before samples are read, hand labels that are damaged or could not correct anything."""
    confusion = _read(args)
    if confusion is None:
        return
    from egtmetrics.groups.label_errors import correctable
    from egtmetrics.registry import registered_metrics

    try:
        confusion.unmixing()
    except ValueError as error:
        raise ValueError(f"--confusion {args.confusion}: {error}") from error
    known = registered_metrics()
    declared = [(known[name], known[name].scores()) for name in args.metrics]
    if all(scores and not correctable(metric, scores) for metric, scores in declared):
        able = [name for name, metric in known.items() if correctable(metric, metric.scores())]
        raise ValueError(
            f"--confusion cannot correct any of --metrics {','.join(args.metrics)}; add one of {', '.join(able)}, or "
            "call both sides by the same oracle (docs/labels.md)"
        )
    clusters = [f"--{side}-clusters" for side in ("real", "fake") if getattr(args, f"{side}_clusters") is not None]
    if clusters:
        raise ValueError(f"--confusion does not count clusters; leave out {' and '.join(clusters)}, or --confusion")
    if groups_spec(args, "fake") == ORACLE and not args.true_labels:
        raise ValueError("--confusion needs true labels of REAL, which the oracle calls, too; pass --true-labels")
    of_real = groups_spec(args, "real")
    if of_real is not None and of_real.startswith(f"{ORACLE}:"):
        raise ValueError(
            f"--confusion needs true labels of REAL, and {of_real} calls it; give them in another way, or leave out "
            "--confusion: where one oracle calls both sides, its errors make gaps smaller, not larger (docs/labels.md)"
        )


def check_confused_groups(args: argparse.Namespace, groups: Sequence[Hashable]) -> None:
    """Refuse hand labels of other groups than those of the samples."""
    confusion = _read(args)
    if confusion is not None:
        try:
            confusion.among(groups)
        except ValueError as error:
            raise ValueError(f"--confusion {args.confusion}: {error}") from error


def correction_of(
    args: argparse.Namespace, frame: GenerativeMetricFrame
) -> tuple[LabelCorrection | None, Mapping[str, str]]:
    """Return the scores by true group, or why there are none: those of called groups are worth printing alone."""
    confusion = _read(args)
    if confusion is None:
        return None, {}
    try:
        return frame.correct_labels(confusion), {}
    except ValueError as error:
        if args.strict:
            raise
        reason = error_text(error, args)
        say(f"warning: {_NONE}: {reason}")
        return None, {_NONE: reason}


def _read(args: argparse.Namespace) -> Confusion | None:
    """Return the hand labels; None where there are none."""
    if getattr(args, "confusion", None) is None:
        return None
    from egtmetrics.data import read_confusion

    return read_confusion(args.confusion)
