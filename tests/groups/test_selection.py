"""Which checkpoint is best for its worst group."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.groups import Candidate, CheckpointSelection
from egtmetrics.results import MetricResult, score

GROUPS = np.repeat(["f", "m"], 80)
REAL = np.random.default_rng(0).normal(size=(160, 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result(MetricResult):
    mean: float = score(label="mean", better="higher")
    shift: float = score(label="shift", better=0.0)
    plain: float = score(label="plain")


def moments(real: Any, fake: Any) -> Result:
    mean = float(fake.mean())
    return Result(mean=mean, shift=mean, plain=mean, backend="numpy", n_real=len(real), n_fake=len(fake))


def frame(f: float, m: float, *, metric: Any = moments, spread: float = 0.1, labels: Any = GROUPS) -> Any:
    """Generated samples with these means, exactly."""
    fake = np.random.default_rng(1).normal(size=(160, 2))
    for group, mean in (("f", f), ("m", m)):
        rows = group == GROUPS
        fake[rows] = mean + spread * (fake[rows] - fake[rows].mean())
    return GenerativeMetricFrame(
        metrics={"s": metric} if callable(metric) else metric,
        real=REAL,
        fake=fake,
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        random_state=0,
    )


def test_the_best_bound_of_the_worst_group_wins() -> None:
    selection = CheckpointSelection("s_mean")
    frames = [frame(1.0, 0.2), frame(0.5, 0.6), frame(0.9, 0.3)]
    found = [selection.update(one, step=10 * i) for i, one in enumerate(frames)]
    assert [one.best for one in found] == [True, True, False]
    assert [one.group for one in found] == ["m", "f", "m"]
    assert found[1].value == pytest.approx(0.5)
    assert found[1].bound == frames[1].interval().by_group.loc[("s_mean", "f"), "low"] < 0.5
    assert selection.best is found[1]
    noisy = selection.update(frame(0.52, 0.52, spread=3.0), step=30)  # better as measured, and less certain
    assert not noisy.best
    assert selection.text().startswith("step 10 is the best of 4 by the worst group in s_mean: 0.5 for f (bound ")
    assert "score it again on fresh samples" in selection.text()
    again = selection.judge(frame(0.4, 0.6), step=10)
    assert "0.4 for f" in selection.text(again)
    assert len(selection.candidates) == 4


def test_less_and_nearer_can_be_better() -> None:
    found = CheckpointSelection("s_shift").update(frame(-0.5, 0.3), step=0)
    assert (found.group, found.value) == ("f", pytest.approx(-0.5))
    assert found.bound < -0.5
    evaluated = frame(2.0, 0.0, metric="fid")
    found = CheckpointSelection("fid", level=0.9).update(evaluated, step=0)
    assert found.group == "f"
    assert found.bound == evaluated.interval(0.9).by_group.loc[("fid", "f"), "high"]


def test_the_smallest_gap_of_checkpoints_that_are_good_enough() -> None:
    selection = CheckpointSelection("s_mean", by="gap", overall=0.5)
    found = [selection.update(frame(*means), step=i) for i, means in enumerate([(1.0, 0.2), (0.1, 0.1), (0.8, 0.5)])]
    assert [one.best for one in found] == [True, False, True]
    assert found[1].reason == "the overall score, 0.1, is worse than 0.5"
    assert found[2].value == pytest.approx(0.3)
    assert found[2].bound > 0.3
    assert found[2].group is None


def test_patience_counts_looks_without_a_better_one() -> None:
    selection = CheckpointSelection("s_mean", patience=2)
    stops = [selection.update(frame(mean, 1.0), step=i).stop for i, mean in enumerate([0.1, 0.3, 0.2, 0.2, 0.4, 0.1])]
    assert stops == [False, False, False, True, False, False]


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_what_may_not_be_the_best_is_not_chosen() -> None:
    selection = CheckpointSelection("s_mean", patience=3)
    few = np.where(np.arange(160) < 158, GROUPS, "x")
    with pytest.warns(UserWarning, match="too few"):
        one = selection.update(frame(1.0, 1.0, metric={"s": refuse_few}, labels=few), step=0)
    assert one.reason == "no score for x, which may be the worst group"
    with pytest.warns(UserWarning, match="nothing is known"):
        two = selection.update(frame(1.0, 1.0, metric={"s": doubtful}), step=1)
    assert two.reason == "the scores of f, m cannot be relied on"
    rows = np.arange(160)
    of_45 = np.where((rows < 60) | (rows >= 105), GROUPS, "x")
    with pytest.warns(UserWarning, match="no interval for group 'x'"):
        three = selection.update(frame(1.0, 1.0, labels=of_45), step=2)
    assert three.reason == "a group has no interval, and it may be the worst one"
    assert selection.best is None
    assert three.stop
    assert selection.text() == f"no checkpoint could be chosen by s_mean: {three.reason}"
    assert not any(one.best for one in selection.candidates)


def refuse_few(real: Any, fake: Any) -> Result:
    if len(real) < 10:
        raise ValueError("too few")
    return moments(real, fake)


def doubtful(real: Any, fake: Any) -> Result:
    return dataclasses.replace(moments(real, fake), caveats=("nothing is known",))


def test_a_selection_continues_where_it_stopped() -> None:
    selection = CheckpointSelection("s_mean", patience=2)
    selection.update(frame(0.5, 0.5), step=0)
    selection.candidates.append(Candidate(step=1, value=math.nan, bound=math.nan, group=None, reason="none"))
    state = json.loads(json.dumps(selection.state_dict(), allow_nan=False))
    resumed = CheckpointSelection("s_mean", patience=2).load_state_dict(state)
    assert resumed.update(frame(0.4, 0.5), step=2) == selection.update(frame(0.4, 0.5), step=2)
    assert resumed.candidates[-1].stop
    with pytest.raises(ValueError, match="score is 's_mean' there and 's_shift' here"):
        CheckpointSelection("s_shift").load_state_dict(state)
    with pytest.raises(ValueError, match=r"state is not what CheckpointSelection\.state_dict returned"):
        CheckpointSelection("s_mean").load_state_dict({})


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="by='best' is unknown; choose 'worst_group' or 'gap'"):
        CheckpointSelection("fid", by="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="by='gap' needs overall: say how good"):
        CheckpointSelection("fid", by="gap")
    with pytest.raises(ValueError, match="by='worst_group' takes no overall"):
        CheckpointSelection("fid", overall=1.0)
    with pytest.raises(ValueError, match="score='kid' is not a column of by_group; choose one of s_mean, s_shift"):
        CheckpointSelection("kid").update(frame(0.0, 0.0), step=0)
    with pytest.raises(ValueError, match="score='s_plain' has no direction"):
        CheckpointSelection("s_plain").update(frame(0.0, 0.0), step=0)
