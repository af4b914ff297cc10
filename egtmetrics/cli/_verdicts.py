"""What the commands that evaluate share on the baseline, tolerances and known damage: options, and the verdicts."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from egtmetrics.cli._common import Parser

if TYPE_CHECKING:
    from egtmetrics.groups import Baseline, Disparity, DoseResponse, GenerativeMetricFrame, Verdict

_SPLIT = "split"
_ALL = "all"
_STATUS = {"within": 0, "beyond": 3, "undecided": 4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """A gap as it was given."""

    text: str
    number: float
    in_points: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerances:
    """The value of ``--tolerance``."""

    text: str
    by_metric: Mapping[str | None, Gap]
    """None stands for every metric that is not named."""

    def __str__(self) -> str:
        return self.text


class HeldOut(NamedTuple):
    """Real samples for the baseline."""

    features: Any
    groups: Any
    source: Mapping[str, Any]


class Judged(NamedTuple):
    """What the result is compared with, and what follows."""

    baseline: Baseline | None
    verdicts: Mapping[str, Verdict]
    dose: DoseResponse | None

    @property
    def status(self) -> int:
        """The exit status: 3 if any gap is beyond its tolerance, else 4 if any is undecided, else 0."""
        outcomes = {verdict.outcome for verdict in self.verdicts.values()}
        return next((_STATUS[outcome] for outcome in ("beyond", "undecided") if outcome in outcomes), 0)


def add_verdict_options(parser: Parser, file: str) -> Any:
    """Add the options, and return their group; ``file`` says what held-out samples are read from."""
    group = parser.add_argument_group(
        "baseline, tolerance and known damage",
        "With --tolerance the exit status is 0 if all gaps are within it, 3 if one is beyond it, and 4 if some are "
        "undecided.",
    )
    group.add_argument(
        "--baseline",
        dest="held_out",
        metavar=f"{_SPLIT}|FILE",
        help="score other real samples in the place of the generated ones, as a perfect generator would make them, and "
        f"compare the groups by the excess over these: {_SPLIT} takes them from REAL, half against half; FILE is "
        f"{file} with held-out real samples",
    )
    group.add_argument(
        "--baseline-groups",
        dest="held_out_sensitive_features",
        metavar="GROUPS",
        help="the groups of the baseline's FILE (default: as --real-groups)",
    )
    group.add_argument(
        "--tolerance",
        type=read_tolerances,
        metavar="GAP",
        help="say whether the largest gap between two groups, or with --baseline that of their excess, is within GAP, "
        "beyond it, or undecided, at the level of the intervals: 5pp for all metrics that give shares, in percentage "
        "points; METRIC=GAP, separated by commas, for single ones, in the unit of their score, as in topp=5pp,fid=3",
    )
    group.add_argument(
        "--dose",
        metavar=f"{_ALL}|NAMES",
        help="damage real samples of each group at several doses, and say which dose gives the scores of the generated "
        f"ones: {_ALL} tries every kind of damage that is known, NAMES those named, as in off_support,noise; "
        "each costs some 30 evaluations",
    )
    return group


def read_tolerances(value: str) -> Tolerances:
    """Read the value of ``--tolerance``, or of another option that gives gaps."""
    found: dict[str | None, Gap] = {}
    for part in value.split(","):
        name, _, text = part.strip().rpartition("=")
        try:
            number = float(text.removesuffix("pp"))
        except ValueError:
            number = math.nan
        if not 0.0 < number < math.inf:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not a gap above 0; pass points as in 5pp, a number in the unit of the score, or "
                "METRIC=GAP, separated by commas"
            )
        metric = name.strip() or None
        if metric in found:
            raise argparse.ArgumentTypeError(f"{value!r} has two gaps for {metric or 'every metric'}; leave one out")
        found[metric] = Gap(text=text, number=number, in_points=text.endswith("pp"))
    return Tolerances(text=value, by_metric=found)


def chosen_tolerances(args: argparse.Namespace, name: str = "tolerance") -> dict[str, float]:
    """Return the gap of each metric that has one, in the unit of its score; refuse one in another unit.

    ``name`` is that of the option, whose value is one of ``read_tolerances``.
    """
    value, option = getattr(args, name), f"--{name}"
    given = {} if value is None else value.by_metric
    unknown = [metric for metric in given if metric is not None and metric not in args.metrics]
    if unknown:
        raise ValueError(
            f"{option} names {unknown[0]}, and --metrics {','.join(args.metrics)} does not; leave it out, or add it"
        )
    named = {metric: given[metric] for metric in args.metrics if metric in given}
    for metric, gap in named.items():
        if not _fits(metric, gap):
            raise ValueError(f"{option} {metric}={gap.text}: {_unit(metric)}")
    others: dict[str, Gap] = {}
    if None in given:
        others = {metric: given[None] for metric in args.metrics if metric not in named and _fits(metric, given[None])}
        if not others:
            units = "; ".join(_unit(metric) for metric in args.metrics if metric not in named)
            raise ValueError(f"{option} {given[None].text} is for no metric: {units or 'all have one of their own'}")
    gaps = {**named, **others}
    return {
        metric: gaps[metric].number / (100.0 if gaps[metric].in_points else 1.0)
        for metric in args.metrics
        if metric in gaps
    }


def _fits(metric: str, gap: Gap) -> bool:
    """Return whether a gap is in the unit of a metric."""
    primary = _primary(metric)
    return primary is None or primary.score.percent == gap.in_points


def _unit(metric: str) -> str:
    """Say in which unit the gap of a metric is."""
    primary = _primary(metric)
    if primary is not None and primary.score.percent:
        return f"{metric} gives shares, so its gap is in points, as in {metric}=5pp"
    unit = f" ({primary.score.unit})" if primary is not None and primary.score.unit else ""
    return f"{metric} gives no share, so its gap is a number in its unit{unit}, as in {metric}=3"


def _primary(metric: str) -> Disparity | None:
    """Return what a verdict on a metric compares; None for one that does not say what it returns."""
    import pandas as pd

    from egtmetrics.groups.disparity import score_table
    from egtmetrics.registry import registered_metrics

    described = registered_metrics()[metric].scores()
    return score_table(metric, pd.DataFrame(columns=list(described)), described).primary if described else None


def held_out_file(args: argparse.Namespace) -> str | None:
    """Return the file of held-out real samples; None if there is none."""
    if args.held_out in (None, _SPLIT):
        if args.held_out_sensitive_features is not None:
            raise ValueError("--baseline-groups is for the FILE of --baseline; pass --baseline FILE, or leave it out")
        return None
    return str(args.held_out)


def check_dose(args: argparse.Namespace) -> None:
    """Refuse damage that is not known."""
    if args.dose not in (None, _ALL):
        from egtmetrics.groups.damage import known_damages

        known = known_damages(spread=1.0)
        for name in map(str.strip, args.dose.split(",")):
            if name not in known:
                raise ValueError(f"--dose names {name!r}, which is unknown; pass {_ALL}, or some of {', '.join(known)}")


def judge(
    args: argparse.Namespace,
    frame: GenerativeMetricFrame,
    tolerances: Mapping[str, float],
    held_out: HeldOut | None,
    *,
    progress: bool,
) -> Judged:
    """Compare with a baseline, with tolerances and with known damage, as far as was asked for."""
    baseline = None
    if args.held_out is not None:
        samples = () if held_out is None else (held_out.features, held_out.groups)
        baseline = frame.baseline(*samples, progress=progress)
    level = 0.95 if args.level is None else args.level
    verdicts = {
        metric: frame.certify(tolerance, metric=metric, level=level, baseline=baseline)
        for metric, tolerance in tolerances.items()
    }
    dose = None
    if args.dose is not None:
        dose = frame.dose_response(None if args.dose == _ALL else args.dose, progress=progress)
    return Judged(baseline, verdicts, dose)
