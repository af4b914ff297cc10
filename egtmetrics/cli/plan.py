"""``egtmetrics plan``: how many more samples of which groups it takes."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from egtmetrics.cli._common import Commands, add_command
from egtmetrics.cli._cost import Part, note_costs
from egtmetrics.cli._evaluation import (
    add_group_options,
    add_metric_options,
    add_quiet,
    add_sides,
    check_metrics,
    evaluate_samples,
    read_samples,
)
from egtmetrics.cli._sides import add_sample_options, check_sample_options
from egtmetrics.cli._streams import show
from egtmetrics.cli._verdicts import chosen_tolerances, read_tolerances

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from egtmetrics.groups import SampleBudget

_GOALS = ("width", "tolerance")
_EPILOG = """\
A plan comes from how the scores of parts of the samples vary, and calls a metric some 340 times on parts of each
group. It plans for twice the samples of today at most, since nothing is known beyond: generate these, and plan again.
Where no number of generated samples is enough, because of the real ones, the plan says so.

For a tolerance, the plan says how probable a verdict is once the planned samples are added to those at hand. Where
there is none today, the gap is near the tolerance, and twice the samples give one with a probability of 75 to 80 % at
most, if variances fall with 1 / n.

examples:
  egtmetrics plan real.npz fake.npz --real-groups gender --fake-groups gender --metrics topp --width 5pp
      how many generated samples make the interval of the largest gap no longer than 5 points
  egtmetrics plan real.npz fake.npz --real-groups y --fake-groups y --metrics topp,fid --tolerance topp=5pp,fid=3
      how many decide whether the gaps are within these tolerances (egtmetrics evaluate --tolerance)
  egtmetrics plan real.npz fake.npz --real-groups y --fake-groups y --metrics fid --width fid=2 --more-real
      if there can be more real samples, too
"""


def add_to(commands: Commands) -> None:
    plan = add_command(
        commands,
        "plan",
        _plan,
        check=_check,
        help="how many more samples of which groups it takes",
        description="Plan how many more samples of which groups make the interval of the largest gap short enough, or "
        "decide whether the gap is within a tolerance.",
        epilog=_EPILOG,
    )
    add_sides(plan, "file with the features of the {} samples of today")
    add_group_options(add_sample_options(plan))
    add_metric_options(plan, default="topp")
    goal = plan.add_argument_group("goal", "One of --width and --tolerance.")
    goal.add_argument(
        "--width",
        type=read_tolerances,
        metavar="GAP",
        help="how long the interval of the largest gap may be: 5pp for all metrics that give shares, in percentage "
        "points; METRIC=GAP, separated by commas, for single ones, in the unit of their score, as in topp=5pp,fid=3",
    )
    goal.add_argument(
        "--tolerance", type=read_tolerances, metavar="GAP", help="the tolerance to be decided, in the same form"
    )
    goal.add_argument("--more-real", action="store_true", help="there can be more real samples, too")
    goal.add_argument(
        "--power",
        type=float,
        default=0.8,
        metavar="P",
        help="with --tolerance: how probable a verdict is to be once the planned samples are added to those of today "
        "(default: %(default)s)",
    )
    goal.add_argument(
        "--level", type=float, default=0.95, metavar="P", help="of interval or verdict (default: %(default)s)"
    )
    output = plan.add_argument_group("output")
    output.add_argument("--format", choices=("table", "json"), default="table", help="(default: %(default)s)")
    add_quiet(output)


class _Goal(NamedTuple):
    metrics: Mapping[str, Callable[..., Any]]
    name: str
    by_metric: Mapping[str, float]


def _check(args: argparse.Namespace) -> _Goal:
    """Refuse, before anything is read, what could not be planned for."""
    from egtmetrics._validation import check_level
    from egtmetrics.groups.planning import check_power

    given = [name for name in _GOALS if getattr(args, name) is not None]
    if len(given) != 1:
        raise ValueError(f"{'both' if given else 'neither'} of --width and --tolerance given; pass one of them")
    check_sample_options(args)
    check_level(args.level)
    check_power(args.power)
    return _Goal(check_metrics(args), given[0], chosen_tolerances(args, given[0]))


def _plan(args: argparse.Namespace) -> None:
    goal = _check(args)
    metrics = {name: goal.metrics[name] for name in goal.by_metric}
    samples = read_samples(args, metrics)
    from egtmetrics.groups.cost import cost_of_plan

    frame, provenance = evaluate_samples(args, metrics, samples.grouped, samples.provenance)
    note_costs(args, [Part("the plan", cost_of_plan(frame), None)])
    plans = {}
    for metric, number in goal.by_metric.items():
        wanted: dict[str, Any] = {goal.name: number}
        plans[metric] = frame.plan(
            metric=metric, more_real=args.more_real, power=args.power, level=args.level, **wanted
        )
    if args.format == "json":
        content = {**provenance, "plans": {metric: plan.to_dict() for metric, plan in plans.items()}}
        show(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        show("\n\n".join(_text(metric, plan) for metric, plan in plans.items()) + "\n")


def _text(metric: str, plan: SampleBudget) -> str:
    from egtmetrics.labels import group_text
    from egtmetrics.report.tables import section

    keys = {"n_real": "real", "n_fake": "fake", "more_real": "more real", "more_fake": "more fake"}
    columns = [("group", [*map(group_text, plan.samples.index)])]
    columns += [(header, [*map(str, plan.samples[key])]) for key, header in keys.items()]
    return f"{section(metric, columns, 'table')}\n\n{plan.text}"
