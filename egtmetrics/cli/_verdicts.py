"""What the commands that evaluate share on the baseline, tolerances and known damage: options, and the verdicts."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from egtmetrics.cli._common import Parser

if TYPE_CHECKING:
    from egtmetrics.groups import Baseline, DoseResponse, GenerativeMetricFrame, Verdict
    from egtmetrics.results import Score
    from egtmetrics.samples import GroupedSamples

SPLIT = "split"
_ALL = "all"
_STATUS = {"beyond": 3, "undecided": 4}
"""The worst first; 0 if all are within."""


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
    clusters: Any = None


class Judged(NamedTuple):
    """What the result is compared with, and what follows."""

    baseline: Baseline | None
    verdicts: Mapping[str, Verdict]
    dose: DoseResponse | None


def add_verdict_options(parser: Parser, file: str, *, dose: bool = True) -> Any:
    """Add the options, and return their group; ``file`` says what held-out samples are read from."""
    group = parser.add_argument_group(
        "baseline, tolerance and known damage" if dose else "baseline and tolerance",
        "With --tolerance the exit status is 0 if all gaps are within it, 3 if one is beyond it, and 4 if some are "
        "undecided.",
    )
    group.add_argument(
        "--baseline",
        dest="held_out",
        metavar=f"{SPLIT}|FILE",
        help="score other real samples in the place of the generated ones, as a perfect generator would make them, and "
        f"compare the groups by the excess over these: {SPLIT} takes them from REAL, half against half; FILE is "
        f"{file} with held-out real samples",
    )
    group.add_argument(
        "--baseline-groups",
        dest="held_out_sensitive_features",
        metavar="GROUPS",
        help="the groups of the baseline's FILE (default: as --real-groups)",
    )
    splits = group.add_argument("--baseline-splits", dest="n_splits", type=int, metavar="N")
    samples = group.add_argument("--baseline-samples", dest="n_samples", type=int, metavar="N")
    group.add_argument(
        "--tolerance",
        type=read_tolerances,
        metavar="GAP",
        help="say whether the largest gap between two groups in any score, or with --baseline in its excess, is within "
        "GAP, beyond it, or undecided, at the level of the intervals (default 0.95): 5pp for all scores that are "
        "shares, in percentage points; METRIC=GAP, separated by commas, for single metrics, in the unit of their "
        "scores, as in topp=5pp,fid=3",
    )
    if not dose:
        parser.set_defaults(dose=None)
    else:
        group.add_argument(
            "--dose",
            metavar=f"{_ALL}|NAMES",
            help="damage real samples of each group at several doses, and say which dose gives the scores of the "
            f"generated ones: {_ALL} tries every kind of damage that is known, NAMES those named, as in "
            "off_support,noise; each costs some 30 evaluations",
        )

    def late() -> None:
        from egtmetrics.groups.baseline import N_SPLITS
        from egtmetrics.groups.inference import MIN_SAMPLES

        splits.help = (
            f"with --baseline {SPLIT}: how often every group is split at random (default: {N_SPLITS}); more splits "
            "leave less to chance, and each takes about as long as the evaluation itself"
        )
        samples.help = (
            "samples in each set that is scored for the baseline, the same number in all groups, since scores depend "
            f"on it; intervals and verdicts need {MIN_SAMPLES} (default: as many as the smallest group allows)"
        )

    parser.late.append(late)
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
    score = _first_score(metric)
    return score is None or score.percent == gap.in_points


def _unit(metric: str) -> str:
    """Say in which unit the gap of a metric is."""
    score = _first_score(metric)
    if score is not None and score.percent:
        return f"{metric} gives shares, so its gap is in points, as in {metric}=5pp"
    unit = f" ({score.unit})" if score is not None and score.unit else ""
    return f"{metric} gives no share, so its gap is a number in its unit{unit}, as in {metric}=3"


def _first_score(metric: str) -> Score | None:
    """Return the score whose unit is that of a verdict on a metric; None for one that does not say what it returns."""
    import pandas as pd

    from egtmetrics.groups.disparity import score_table
    from egtmetrics.registry import registered_metrics

    described = registered_metrics()[metric].scores()
    return score_table(metric, pd.DataFrame(columns=list(described)), described).judged[0].score if described else None


def check_baseline(args: argparse.Namespace, *, with_errors: bool) -> None:
    """Refuse, before anything is read, what no baseline can be, or none ``with_errors``, for intervals and verdicts."""
    from egtmetrics._validation import check_positive_int
    from egtmetrics.groups.inference import MIN_SAMPLES

    held_out_file(args)
    if args.n_splits is not None:
        if args.held_out != SPLIT:
            raise ValueError(f"--baseline-splits is for --baseline {SPLIT}; pass that, or leave it out")
        check_positive_int(args.n_splits, "n_splits")
    if args.n_samples is None:
        return
    if args.held_out is None:
        raise ValueError("--baseline-samples is for --baseline; pass that, or leave it out")
    check_positive_int(args.n_samples, "n_samples")
    if args.n_samples < MIN_SAMPLES and with_errors:
        raise ValueError(
            f"--baseline-samples {args.n_samples}: intervals and verdicts need sets of at least {MIN_SAMPLES}; pass "
            "more, or leave out --interval and --tolerance"
        )


def exit_status(judged: Iterable[Judged]) -> int:
    """Return 3 if any gap is beyond its tolerance, else 4 if any is undecided, else 0."""
    outcomes = {verdict.outcome for one in judged for verdict in one.verdicts.values()}
    return next((status for outcome, status in _STATUS.items() if outcome in outcomes), 0)


def held_out_file(args: argparse.Namespace) -> str | None:
    """Return the file of held-out real samples; None if there is none."""
    if args.held_out in (None, SPLIT):
        if args.held_out_sensitive_features is not None:
            raise ValueError("--baseline-groups is for the FILE of --baseline; pass --baseline FILE, or leave it out")
        return None
    return str(args.held_out)


def check_set_size(args: argparse.Namespace, samples: GroupedSamples) -> None:
    """Refuse, before anything is computed, sets of a baseline that are larger than a group allows.

    Where neither their size is given nor ``--strict``, a group that is too small is left out of the baseline instead.
    """
    if getattr(args, "held_out", None) is None or (args.n_samples is None and not args.strict):
        return
    from egtmetrics.groups.baseline import clusters_of_groups, counted_sides, set_sizes

    set_sizes(
        counted_sides(samples),
        clusters_of_groups(samples),
        samples,
        2 if args.held_out == SPLIT else 1,
        args.n_samples,
    )


def check_dose(args: argparse.Namespace) -> None:
    """Refuse damage that is not known."""
    if args.dose not in (None, _ALL):
        from egtmetrics.groups.damage import known_damages

        known = known_damages(spread=1.0)
        for name in map(str.strip, args.dose.split(",")):
            if name not in known:
                raise ValueError(f"--dose names {name!r}, which is unknown; pass {_ALL}, or some of {', '.join(known)}")


def baseline_of(
    args: argparse.Namespace, frame: GenerativeMetricFrame, held_out: HeldOut | None, *, progress: bool
) -> Baseline:
    """Compare with other real samples, as ``--baseline`` says."""
    samples: dict[str, Any] = {}
    if held_out is not None:
        samples = {"held_out": held_out.features, "held_out_sensitive_features": held_out.groups}
        samples["held_out_clusters"] = held_out.clusters
    given = {name: value for name in ("n_splits", "n_samples") if (value := getattr(args, name)) is not None}
    return frame.baseline(**samples, **given, progress=progress)


def chosen_damages(args: argparse.Namespace) -> str | None:
    """Return the value of ``--dose`` as the library takes it."""
    damages: str | None = args.dose
    return None if damages == _ALL else damages


def judge(
    args: argparse.Namespace,
    frame: GenerativeMetricFrame,
    tolerances: Mapping[str, float],
    held_out: HeldOut | None,
    *,
    progress: bool,
) -> Judged:
    """Compare with a baseline, with tolerances and with known damage, as far as was asked for."""
    baseline = None if args.held_out is None else baseline_of(args, frame, held_out, progress=progress)
    level = 0.95 if args.level is None else args.level
    verdicts = {
        metric: frame.certify(tolerance, metric=metric, level=level, baseline=baseline)
        for metric, tolerance in tolerances.items()
    }
    dose = None
    if args.dose is not None:
        dose = frame.dose_response(chosen_damages(args), progress=progress)
    return Judged(baseline, verdicts, dose)
