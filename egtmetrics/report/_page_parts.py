"""What the words, the tables and the figures of a page are made of: the gaps of a frame and what is known of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable

import pandas as pd

from egtmetrics._validation import check_level
from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.groups.inference import FrameIntervals
from egtmetrics.report.tables import SHARE_DISPARITIES, number

_NAMES = {
    "topp_precision_recall": "TopP&R",
    "precision_recall_density_coverage": "Precision, recall, density, coverage",
    "improved_precision_recall": "Improved precision and recall",
    "p_precision_recall": "P-precision and P-recall",
    "precision_recall_cover": "Precision and recall cover",
    "clipped_density_coverage": "Clipped density and coverage",
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "Kernel distance",
    "mauve": "MAUVE",
    "frontier_integral": "Frontier integral",
    "precision_recall_distributions": "Precision and recall of distributions",
}
_HIGHER = ("precision", "recall", "f1", "coverage", "clipped_density", "clipped_coverage", "mauve", "mauve_star")
_LOWER = ("fid", "kid", "frontier_integral", "frontier_integral_star")
_GAPS = {
    "delta_p": "precision",
    "delta_r": "recall",
    "delta_pr": "precision + recall",
    "delta_p_plus_delta_r": "precision gap + recall gap",
}
_SHORT = {"precision": "delta_p", "recall": "delta_r"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
    """Intervals and tests of a frame, or the reason why there are none."""

    level: float
    intervals: FrameIntervals | None = None
    tests: pd.DataFrame | None = None
    reason: str = ""

    def bounds(self, key: tuple[str, str]) -> tuple[float, float] | None:
        """Interval of a disparity."""
        if self.intervals is None or key not in self.intervals.disparities.index:
            return None
        low, high = self.intervals.disparities[["low", "high"]].loc[[key]].to_numpy(dtype=float)[0].tolist()
        return (low, high) if math.isfinite(low + high) else None

    def score_bounds(self, column: str, group: Hashable) -> tuple[float, float] | None:
        """Interval of a score of a group."""
        if self.intervals is None:
            return None
        key = (column, *group) if isinstance(group, tuple) else (column, group)
        low, high = self.intervals.by_group[["low", "high"]].loc[[key]].to_numpy(dtype=float)[0].tolist()
        return (low, high) if math.isfinite(low + high) else None

    def p_value(self, key: tuple[str, str]) -> float | None:
        """Of the hypothesis that the gap is 0, corrected for the number of gaps."""
        if self.tests is None or key not in self.tests.index:
            return None
        p_value = float(self.tests["adjusted_p_value"].to_dict()[key])
        return None if math.isnan(p_value) else p_value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """A disparity: the largest difference between two groups, of one score or of several."""

    metric: str
    disparity: str
    score: str | None
    """The one score; None for ``delta_pr`` and ``delta_p_plus_delta_r``."""
    column: str | None
    """Of ``by_group``, for one score."""
    value: float
    larger: Hashable | None
    smaller: Hashable | None
    interval: tuple[float, float] | None
    p_value: float | None
    """Of the hypothesis that it is 0, corrected for the number of gaps."""
    beyond_noise: bool | None
    """Whether the p-value is that of an alarm; None without one."""

    @property
    def share(self) -> bool:
        """Whether it is counted in points of percentage."""
        return self.disparity in SHARE_DISPARITIES

    @property
    def direction(self) -> int:
        """1 if more of the score is better, -1 if less is, 0 if neither."""
        return (self.score in _HIGHER) - (self.score in _LOWER)

    @property
    def worse(self) -> Hashable | None:
        """The group that is worse off; None if the groups are equal or the score has no direction."""
        return {1: self.smaller, -1: self.larger}.get(self.direction)


def infer(frame: GenerativeMetricFrame, level: float | None) -> Inference:
    """Ask the frame for intervals and tests; it refuses where a group has too few samples."""
    if level is None:
        return Inference(level=math.nan, reason="none were asked for")
    level = check_level(level)
    try:
        return Inference(level=level, intervals=frame.interval(level), tests=frame.test())
    except ValueError as error:  # a page without intervals that says why is better than none
        return Inference(level=level, reason=str(error))


def find_gaps(frame: GenerativeMetricFrame, inference: Inference) -> list[Gap]:
    """Every disparity but those of proportions, in the order of the frame."""
    columns = iter(frame.by_group)
    score_of: dict[tuple[str, str], tuple[str, str]] = {}
    for metric in frame.settings["metrics"]:
        scores = frame.scores(metric)
        short = _SHORT if {"precision", "recall"} <= set(scores) else {}
        for score in map(str, scores):
            score_of[metric, short.get(score, f"delta_{score}")] = score, str(next(columns))
    gaps = []
    for row in frame.disparities().drop(index="proportions", level="metric").reset_index().to_dict("records"):
        metric, disparity = str(row["metric"]), str(row["disparity"])
        known = score_of.get((metric, disparity))
        p_value = inference.p_value((metric, disparity))
        gaps.append(
            Gap(
                metric=metric,
                disparity=disparity,
                score=None if known is None else known[0],
                column=None if known is None else known[1],
                value=float(row["value"]),
                larger=row["larger"],
                smaller=row["smaller"],
                interval=inference.bounds((metric, disparity)),
                p_value=p_value,
                beyond_noise=None if p_value is None else p_value <= 1.0 - inference.level,
            )
        )
    return gaps


def metric_name(frame: GenerativeMetricFrame, metric: str) -> str:
    """The name of a metric in print, or its own where it is not the package's."""
    return _NAMES.get(frame.settings["metrics"][metric].partition("(")[0], metric)


def interval_text(interval: tuple[float, float] | None, *, share: bool) -> str:
    """``"1.20 to 3.40"``, or nothing."""
    return "" if interval is None else " to ".join(number(bound, share=share) for bound in interval)


def gap_name(gap: Gap) -> str:
    """What the gap is in: ``"precision"``."""
    return _GAPS.get(gap.disparity, gap.disparity.removeprefix("delta_"))
