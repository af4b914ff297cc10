"""What the words, the tables and the figures of a page share: the gaps of a frame and what is known of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self

import pandas as pd

from egtmetrics._errors import listed
from egtmetrics._validation import check_level
from egtmetrics.groups import (
    Baseline,
    Disparity,
    DoseResponse,
    FrameIntervals,
    GenerativeMetricFrame,
    LabelCorrection,
    PairDifference,
    ScoreTable,
    Verdict,
)
from egtmetrics.groups._evaluation import caveat_note
from egtmetrics.groups.controlled import ControlledScores
from egtmetrics.labels import group_text
from egtmetrics.results import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
    """Intervals and tests of a frame, or the reason why some are missing."""

    level: float
    intervals: FrameIntervals | None = None
    tests: pd.DataFrame | None = None
    reason: str = ""

    def without(self, key: tuple[str, str]) -> tuple[Hashable, ...]:
        """Groups that the interval of a disparity leaves out, some because they are too small for one."""
        found: tuple[Hashable, ...] = ()
        if self.intervals is not None:
            found = self.intervals.disparities["without"].to_dict()[key]
        return found

    def bounds(self, key: tuple[str, str]) -> tuple[float, float] | None:
        """Interval of a disparity."""
        return None if self.intervals is None else _known(self.intervals.disparities.loc[[key]])

    def expected_if_equal(self, key: tuple[str, str]) -> float | None:
        """A disparity on average if all groups had equal expected scores."""
        if self.intervals is None:
            return None
        expected = float(self.intervals.disparities["expected_if_equal"].to_dict()[key])
        return expected if math.isfinite(expected) else None

    def score_bounds(self, column: str, group: Hashable) -> tuple[float, float] | None:
        """Interval of a score of a group."""
        if self.intervals is None:
            return None
        key = (column, *group) if isinstance(group, tuple) else (column, group)
        return _known(self.intervals.by_group.loc[[key]])

    def p_value(self, key: tuple[str, str]) -> float | None:
        """Of the hypothesis that a gap is 0, corrected for the number of gaps."""
        if self.tests is None:
            return None
        p_value = float(self.tests["adjusted_p_value"].to_dict()[key])
        return None if math.isnan(p_value) else p_value

    def detectable(self, key: tuple[str, str]) -> float | None:
        """The true difference of two groups that would probably have been found."""
        if self.tests is None:
            return None
        detectable = float(self.tests["detectable"].to_dict()[key])
        return detectable if math.isfinite(detectable) else None


def _known(row: pd.DataFrame) -> tuple[float, float] | None:
    low, high = row[["low", "high"]].to_numpy(dtype=float)[0].tolist()
    return None if math.isnan(low + high) else (low, high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """A disparity: its size, the groups that attain it, and whether it is distinguishable from noise."""

    table: ScoreTable
    disparity: Disparity
    pair: PairDifference
    interval: tuple[float, float] | None
    expected_if_equal: float | None
    """What noise alone makes of it on average if all groups have equal expected scores."""
    p_value: float | None
    """Of the hypothesis that it is 0, corrected for the number of gaps."""
    beyond_noise: bool | None
    """Whether the p-value is small enough; None without one, and if the scores cannot be relied on."""
    detectable: float | None
    """The true difference of two groups that would have been found with a probability of 80 %."""

    @property
    def reliable(self) -> bool:
        return self.table.reliable(self.pair.without)

    @property
    def column(self) -> str | None:
        """Of ``by_group``; None for a sum of several scores."""
        return None if self.disparity.column is None else self.table.column(self.disparity.column)

    @property
    def worse(self) -> Hashable | None:
        """The group that is worse off; None if the groups are equal or no value of the score is better."""
        return self.disparity.worse(self.table.values, self.pair)


def infer(
    source: GenerativeMetricFrame | Baseline | DoseResponse | LabelCorrection | ControlledScores, level: float | None
) -> Inference:
    """Ask a frame, or what it made, for intervals and tests, which it refuses where a group has too few samples."""
    if level is None:
        return Inference(level=math.nan, reason="none were asked for")
    level = check_level(level)
    intervals = None
    try:
        intervals = source.interval(level)
        return Inference(level=level, intervals=intervals, tests=source.test())
    except ValueError as error:  # a page without intervals that says why is better than none
        return Inference(level=level, intervals=intervals, reason=str(error))


def find_gaps(frame: GenerativeMetricFrame, inference: Inference) -> list[Gap]:
    """Every disparity but those of proportions, in the order of the frame."""
    return gaps_of({metric: frame.tables[metric] for metric in frame.settings["metrics"]}, inference)


def gaps_of(tables: Mapping[str, ScoreTable], inference: Inference) -> list[Gap]:
    """Every disparity of some tables."""
    gaps = []
    for metric, table in tables.items():
        for disparity in table.disparities:
            key = metric, disparity.name
            p_value = inference.p_value(key)
            pair = table.gap(disparity, inference.without(key))
            gaps.append(
                Gap(
                    table=table,
                    disparity=disparity,
                    pair=pair,
                    interval=inference.bounds(key),
                    expected_if_equal=inference.expected_if_equal(key),
                    p_value=p_value,
                    beyond_noise=(
                        p_value <= 1.0 - inference.level
                        if p_value is not None and table.reliable(pair.without)
                        else None
                    ),
                    detectable=inference.detectable(key),
                )
            )
    return gaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrueGroups:
    """Scores by true group, where the labels of the generated samples err, and what is known of their gaps."""

    correction: LabelCorrection
    inference: Inference
    verdicts: Mapping[str, Verdict]
    """By metric, for the tolerances of the verdicts on called groups."""
    reason: str = ""
    """Why there are no intervals or verdicts, if some were asked for."""

    @classmethod
    def of(cls, correction: LabelCorrection, level: float | None, verdicts: Mapping[str, Verdict] | None) -> Self:
        inference = infer(correction, level)
        reason = "" if level is None else inference.reason
        corrected: dict[str, Verdict] = {}
        for metric, one in (verdicts or {}).items():
            if metric in correction.tables:
                try:
                    corrected[metric] = correction.certify(one.tolerance, metric=metric, level=one.level)
                except ValueError as error:  # a group with too few samples
                    reason = str(error)
        return cls(correction=correction, inference=inference, verdicts=corrected, reason=reason)

    @property
    def tables(self) -> dict[str, ScoreTable]:
        """The corrected scores by metric, without the proportions."""
        return {metric: table for metric, table in self.correction.tables.items() if metric != "proportions"}

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        names = {label: group_text(label) for label in self.correction.by_group.index}
        content = self.correction.to_dict(None if self.inference.intervals is None else self.inference.level)
        if self.verdicts:
            content["verdicts"] = {metric: one.to_dict(names) for metric, one in self.verdicts.items()}
        return content

    def sentences(self) -> list[str]:
        """Say how much of every called group is not of it, what was corrected, and what could not be."""
        shares = listed(
            f"{value:.1%} ({low:.1%} to {high:.1%}) of what is called {group_text(label)} is not"
            for label, (value, low, high) in zip(
                self.correction.contamination.index, self.correction.contamination.to_numpy().tolist(), strict=True
            )
        )
        return [
            f"labels err: {shares}, by the confusion, with 95 % intervals",
            "true groups: scores as if every generated sample had its true label, for errors that depend on its group "
            "alone, and true labels of the real samples (docs/labels.md)",
            *(f"not corrected: {note}" for note in self.correction._refusal_notes()),
            *([f"no intervals and verdicts for true groups: {self.reason}"] if self.reason else []),
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithinStrata:
    """Scores averaged over strata, and what is known of their gaps."""

    scores: ControlledScores
    inference: Inference
    reason: str = ""
    """Why there are no intervals, if some were asked for."""

    @classmethod
    def of(cls, scores: ControlledScores, level: float | None) -> Self:
        inference = infer(scores, level)
        return cls(scores=scores, inference=inference, reason="" if level is None else inference.reason)

    @property
    def features(self) -> str:
        """Names of the control features."""
        return ", ".join(map(str, self.scores.strata.index.names))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        return self.scores.to_dict(None if self.inference.intervals is None else self.inference.level)

    def doubts(self) -> list[str]:
        """Say which averages cannot be relied on, and why there are no intervals."""
        return [
            *(
                caveat_note(metric, {group_text(label): texts for label, texts in table.caveats.items()})
                for metric, table in self.scores.tables().items()
                if table.caveats
            ),
            *([f"no intervals for averages over strata: {self.reason}"] if self.reason else []),
        ]

    def sentences(self) -> list[str]:
        """Say what the averages are, which strata are left out, and what is not known."""
        left_out = self.scores.strata["left_out"]
        return [
            "averages over strata: of the scores within strata, with the same weights for all groups, the strata's "
            "shares of the real samples unless others were given; so groups do not differ by what they are made of",
            *(
                f"stratum {group_text(label)} is left out: {reason}"
                for label, reason in left_out[left_out != ""].items()
            ),
            *self.doubts(),
        ]


def gap_text(score: Score, value: float) -> str:
    """A difference of two scores with its unit: ``"21.18 points"``."""
    return score.difference_text(value)


def interval_text(interval: tuple[float, float] | None, score: Score) -> str:
    """``"1.20 to 3.40"``, ``"1.20 or more"``, or nothing."""
    if interval is None:
        return ""
    low, high = interval
    return f"{score.text(low)} or more" if math.isinf(high) else f"{score.text(low)} to {score.text(high)}"


def signed_text(score: Score, value: float) -> str:
    """A difference with its sign and unit: ``"+1.20 points"``."""
    return f"{'+' if value > 0 else ''}{gap_text(score, value)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Excess:
    """The excess over other real samples, and what is known of its gaps."""

    baseline: Baseline
    inference: Inference
    gaps: Sequence[Gap]

    @classmethod
    def of(cls, baseline: Baseline, level: float | None) -> Excess:
        inference = infer(baseline, level)
        return cls(baseline=baseline, inference=inference, gaps=gaps_of(baseline.tables(), inference))

    def gap(self, gap: Gap) -> Gap:
        """Return the gap in the excess for a gap in the scores."""
        return next(
            one for one in self.gaps if (one.table.metric, one.disparity.name) == (gap.table.metric, gap.disparity.name)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doses:
    """Doses of known damage, and what is known of their gaps; there are none where no damage explains the scores."""

    response: DoseResponse
    inference: Inference
    gaps: Sequence[Gap]

    @classmethod
    def of(cls, response: DoseResponse, frame: GenerativeMetricFrame, level: float | None) -> Doses:
        inference = infer(response, level)
        if response.explanation is None:
            return cls(response=response, inference=inference, gaps=[])
        gaps = [
            dataclasses.replace(
                gap,
                disparity=dataclasses.replace(
                    gap.disparity, label=frame.tables[gap.table.metric].described[str(gap.disparity.column)].label
                ),
            )
            for gap in gaps_of(response.tables(), inference)  # whose labels say the damage in every row
        ]
        return cls(response=response, inference=inference, gaps=gaps)

    @property
    def unread(self) -> str:
        """Say which scores cannot be judged, because a group reads no dose by them."""
        scores = dict.fromkeys(gap.disparity.label for gap in self.gaps if gap.pair.without)
        return f" Not judged, for want of a dose in some group: {', '.join(scores)}." if scores else ""
