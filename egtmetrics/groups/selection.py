"""Choose the checkpoint that is best for its worst group, and say when to stop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

import numpy as np

from egtmetrics._errors import listed
from egtmetrics._validation import check_level, check_positive_int
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.labels import group_text
from egtmetrics.results import Score

Rule = Literal["worst_group", "gap"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """How a checkpoint does by the rule of a :class:`CheckpointSelection`."""

    step: int
    value: float
    """The score of the worst group, or the gap, as measured; NaN if it is not known."""
    bound: float
    """The end of its confidence interval that is worse: what is compared. NaN if it is not known."""
    group: str | None
    """The group whose bound it is; None for a gap."""
    reason: str = ""
    """Why it cannot be chosen; empty if it can."""
    best: bool = False
    """Whether it is the best one so far."""
    stop: bool = False
    """Whether it is time to stop."""


class CheckpointSelection:
    """Choose the checkpoint of a training run whose worst group is best, or whose groups are most alike.

    The best score of many looks is partly luck. The bound of an interval is compared instead of the score, which
    favours no checkpoint that is merely noisy; the winner's score is still too good on average. Score it again on
    samples that took no part (``rescored``) before you report it.

    Parameters
    ----------
    score
        A column of ``frame.by_group``, such as ``"fid"`` or ``"topp_recall"``, with a direction in which it is better.
    by
        ``"worst_group"``: the best bound of the worst group. The lower bound where more is better, the upper one where
        less is. ``"gap"``: the smallest upper bound of the largest difference between two groups, among checkpoints
        whose overall score is at least as good as ``overall``.
    overall
        With ``"gap"``: without it, a model that is equally bad for all groups would win.
    level
        Of the intervals.
    patience
        Stop after so many looks in a row without a new best one; None never does.

    Attributes
    ----------
    best : Candidate or None
        The best checkpoint so far; None if none could be chosen.
    candidates : list of Candidate
        All of them.

    Raises
    ------
    ValueError
        If an option is unknown or out of its range, or ``overall`` is missing or superfluous.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(["f", "m"], 100)
    >>> real = rng.normal(size=(200, 2))
    >>> selection = CheckpointSelection("fid", patience=2)
    >>> for step, shift in enumerate([2.0, 0.5, 0.0, 1.0, 1.0]):
    ...     frame = GenerativeMetricFrame(
    ...         metrics="fid", real=real, fake=rng.normal(size=(200, 2)) + shift * (groups == "m")[:, None],
    ...         real_sensitive_features=groups, fake_sensitive_features=groups, random_state=0)
    ...     candidate = selection.update(frame, step=step)
    >>> selection.best.step, candidate.group, candidate.stop
    (2, 'm', True)
    """

    def __init__(
        self,
        score: str,
        *,
        by: Rule = "worst_group",
        overall: float | None = None,
        level: float = 0.95,
        patience: int | None = None,
    ) -> None:
        if by not in get_args(Rule):
            raise ValueError(f"by={by!r} is unknown; choose 'worst_group' or 'gap'")
        if (by == "gap") != (overall is not None):
            raise ValueError(
                f"by={by!r} {'needs' if by == 'gap' else 'takes no'} overall"
                + (
                    ": say how good the score of all samples has to be, or equally bad groups win"
                    if by == "gap"
                    else ""
                )
            )
        self.score, self.by, self.overall, self.level = score, by, overall, check_level(level)
        self.patience = None if patience is None else check_positive_int(patience, "patience")
        self.candidates: list[Candidate] = []

    @property
    def best(self) -> Candidate | None:
        return next((one for one in reversed(self.candidates) if one.best), None)

    def judge(self, frame: GenerativeMetricFrame, *, step: int) -> Candidate:
        """Return how a checkpoint does, without recording it.

        Raises
        ------
        ValueError
            If ``score`` is not a column of the frame or has no direction.
        """
        described = frame.describe()
        if self.score not in described:
            raise ValueError(f"score={self.score!r} is not a column of by_group; choose one of {listed(described)}")
        score = described[self.score]
        if score.better is None:
            raise ValueError(f"score={self.score!r} has no direction in which it is better, so it can choose nothing")
        metric, name = frame._column(self.score)
        unknown = Candidate(step=step, value=math.nan, bound=math.nan, group=None)
        without = [group_text(label) for label, value in frame.by_group[self.score].items() if math.isnan(value)]
        if without:
            return dataclasses.replace(unknown, reason=f"no score for {listed(without)}, which may be the worst group")
        if doubt := frame.tables[metric].doubt():
            return dataclasses.replace(unknown, reason=doubt)
        try:
            intervals = frame.interval(self.level)
        except ValueError as error:
            return dataclasses.replace(unknown, reason=str(error))
        if self.by == "gap":
            disparity = next(one for one in frame.tables[metric].disparities if one.column == name)
            gap = intervals.disparities.loc[[(metric, disparity.name)]].iloc[0]
            if gap["without"]:
                return dataclasses.replace(unknown, reason="a group has no interval, and it may be the worst one")
            found = dataclasses.replace(unknown, value=float(gap["value"]), bound=float(gap["high"]))
            overall, limit = float(frame.overall[self.score]), float(self.overall or 0.0)
            if not score.loss(overall) <= score.loss(limit):
                text = f"the overall score, {score.text(overall)}, is worse than {score.text(limit)}"
                return dataclasses.replace(found, reason=text)
        else:
            rows = intervals.by_group.loc[self.score]
            if np.isnan(rows[["low", "high"]].to_numpy()).any():
                return dataclasses.replace(unknown, reason="a group has no interval, and it may be the worst one")
            ends = {label: max(row["low"], row["high"], key=score.loss) for label, row in rows.iterrows()}
            worst = max(ends, key=lambda label: score.loss(ends[label]))
            value = float(rows["value"].to_dict()[worst])
            found = dataclasses.replace(unknown, value=value, bound=float(ends[worst]), group=group_text(worst))
        return found

    def update(self, frame: GenerativeMetricFrame, *, step: int) -> Candidate:
        """Look at a checkpoint: ``best`` says whether to keep it, ``stop`` whether to stop."""
        found, best = self.judge(frame, step=step), self.best
        score = frame.describe()[self.score]
        if not found.reason and (best is None or self._loss(found, score) < self._loss(best, score)):
            found = dataclasses.replace(found, best=True)
        recorded = [*self.candidates, found]
        if self.patience is not None and not any(one.best for one in recorded[-self.patience :]):
            found = dataclasses.replace(found, stop=len(recorded) >= self.patience)
        self.candidates.append(found)
        return found

    def _loss(self, candidate: Candidate, score: Score) -> float:
        return candidate.bound if self.by == "gap" else score.loss(candidate.bound)

    def text(self, fresh: Candidate | None = None) -> str:
        """Say which checkpoint is best, and how it did again on fresh samples, without a full stop."""
        if self.best is None:
            last = f": {self.candidates[-1].reason}" if self.candidates else ""
            return f"no checkpoint could be chosen by {self.score}{last}"
        what = f"largest gap in {self.score}" if self.by == "gap" else f"worst group in {self.score}"
        chosen = f"step {self.best.step} is the best of {len(self.candidates)} by the {what}: {_shown(self.best)}"
        if fresh is None:
            return f"{chosen}. It won, so its score is too good on average; score it again on fresh samples"
        return f"{chosen} when it was chosen, {_shown(fresh)} on fresh samples, which is the number to report"

    def state_dict(self) -> dict[str, Any]:
        """Return settings and candidates as plain values; JSON can hold them."""
        candidates = [
            {name: None if value != value else value for name, value in vars(one).items()} for one in self.candidates
        ]
        return {**self._settings(), "candidates": candidates}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Continue where the selection stood whose ``state_dict`` this is; ValueError if it had other settings."""
        settings = self._settings()
        if not isinstance(state, Mapping) or set(state) != {*settings, "candidates"}:
            raise ValueError("state is not what CheckpointSelection.state_dict returned; pass all of that")
        different = [name for name, value in settings.items() if state[name] != value and name != "patience"]
        if different:
            found = "; ".join(f"{name} is {state[name]!r} there and {settings[name]!r} here" for name in different)
            raise ValueError(f"state comes from a selection with other settings: {found}. Make both with the same")
        numbers = ("value", "bound")
        self.candidates = [
            Candidate(**{**one, **{name: math.nan for name in numbers if one[name] is None}})
            for one in state["candidates"]
        ]
        return self

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("score", "by", "overall", "level", "patience")}


def _shown(candidate: Candidate) -> str:
    if candidate.reason:
        return f"unknown ({candidate.reason})"
    group = "" if candidate.group is None else f" for {candidate.group}"
    return f"{candidate.value:.4g}{group} (bound {candidate.bound:.4g})"
