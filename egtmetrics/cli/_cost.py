"""What the rest of a command will take, said before it begins where that is more than a minute."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from egtmetrics._text import duration_text
from egtmetrics.cli._streams import say
from egtmetrics.cli._verdicts import HeldOut, chosen_damages

if TYPE_CHECKING:
    from egtmetrics.groups import GenerativeMetricFrame
    from egtmetrics.groups.cost import Cost

_WORTH_SAYING = 60.0
"""Seconds."""
_SMALL = 0.1
"""A part that takes less than this share of the whole is not named."""


class Part(NamedTuple):
    name: str
    cost: Cost
    cheaper: str | None
    """What the user can do instead, in options."""


def note_costs(args: argparse.Namespace, parts: Sequence[Part]) -> None:
    """Say on stderr what is still to come of a command, and what would be cheaper."""
    if not args.quiet and (text := _text(parts)) is not None:
        say(text)


def parts_to_come(
    args: argparse.Namespace,
    frames: Sequence[GenerativeMetricFrame],
    held_out: HeldOut | None,
    *,
    always: bool = False,
    sensitivity: bool = False,
    tests: bool = False,
) -> list[Part]:
    """Return what is still to come of a command whose frames have been evaluated.

    ``always`` says whether there are intervals also where none are asked for, ``sensitivity`` whether it is searched
    which rate of wrong labels changes the findings, and ``tests`` whether the other models are compared with the first.
    """
    from egtmetrics.groups.baseline import N_SPLITS
    from egtmetrics.groups.cost import (
        NOTHING,
        cost_of_baseline,
        cost_of_comparison,
        cost_of_doses,
        cost_of_intervals,
        cost_of_label_errors,
        cost_of_strata,
    )

    parts = []
    decides = args.tolerance is not None
    intervals = always or args.level is not None
    if intervals or (decides and args.held_out is None):
        cost = sum(map(cost_of_intervals, frames), NOTHING)
        parts.append(Part("intervals", cost, None if always or decides else "no --interval"))
    if args.held_out is not None:
        groups = None if held_out is None else held_out.groups
        n_splits = N_SPLITS if args.n_splits is None else args.n_splits
        with_intervals = intervals or decides
        costs = [
            cost_of_baseline(frame, groups, n_splits=n_splits, n_samples=args.n_samples, intervals=with_intervals)
            for frame in frames
        ]
        parts.append(Part("the baseline", sum(costs, NOTHING), "fewer --baseline-splits" if groups is None else None))
    if args.control is not None:
        costs = [cost_of_strata(frame, intervals=intervals) for frame in frames]
        parts.append(Part("strata", sum(costs, NOTHING), "no --control"))
    if sensitivity or args.confusion is not None:
        costs = [cost_of_label_errors(frame, intervals=sensitivity or intervals or decides) for frame in frames]
        parts.append(Part("errors of labels", sum(costs, NOTHING), None if sensitivity else "no --confusion"))
    if args.dose is not None:
        costs = [cost_of_doses(frame, chosen_damages(args)) for frame in frames]
        parts.append(Part("known damage", sum(costs, NOTHING), "fewer kinds of --dose"))
    if tests:
        n = args.n_permutations
        costs = [cost_of_comparison(frame, frames[0], n) for frame in frames[1:]]
        parts.append(Part("tests", sum(costs, NOTHING), "--permutations 0" if n is None else "fewer --permutations"))
    return parts


def _text(parts: Sequence[Part]) -> str | None:
    """Return the sentence; None if all parts together take less than a minute."""
    whole = sum(part.cost.total for part in parts)
    if whole < _WORTH_SAYING:
        return None
    named = sorted((part for part in parts if part.cost.total >= _SMALL * whole), key=lambda part: -part.cost.total)
    texts, slow = [], []
    for name, cost, _ in named:
        slowest = max(cost.seconds, key=cost.seconds.__getitem__)
        slow.append(slowest)
        texts.append(
            f"{name} {duration_text(cost.total)}, most of it for {cost.n_calls[slowest]} evaluations of {slowest}"
        )
    cheaper = [part.cheaper for part in named if part.cheaper is not None]
    cheaper.append(f"other --metrics than {', '.join(dict.fromkeys(slow))}")
    return f"what follows takes about {duration_text(whole)} ({'; '.join(texts)}); cheaper: {', or '.join(cheaper)}"
