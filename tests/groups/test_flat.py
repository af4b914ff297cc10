"""A frame as a flat dict: its names, that they are unique, and that a logger can read them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics.groups import GenerativeMetricFrame, flat_scores


def frame_of(labels: Any, metrics: Any = "fid") -> GenerativeMetricFrame:
    """A frame in which the generator shifts every second row, which is the second of two groups in ``labels``."""
    real = np.random.default_rng(0).normal(size=(40, 2))
    fake = real + np.tile([[0.0], [1.0]], (20, 1))
    return GenerativeMetricFrame(
        metrics=metrics, real=real, fake=fake, random_state=0,
        real_sensitive_features=labels, fake_sensitive_features=labels,
    )  # fmt: skip


def test_names_and_values() -> None:
    frame = frame_of({"gender": ["f", "m"] * 20, "age": ["old"] * 40})
    flat = flat_scores(frame)
    assert list(flat) == [
        "fid/overall", "fid/gender_f_ age_old", "fid/gender_m_ age_old", "fid/worst", "fid/delta_fid",
        "proportions/mgo", "proportions/ego",
    ]  # fmt: skip
    assert flat["fid/overall"] == frame.overall["fid"]
    assert flat["fid/gender_f_ age_old"] == frame.by_group["fid"].iloc[0]
    assert flat["fid/delta_fid"] == frame.difference()["fid"]


def test_worst_follows_the_direction_of_the_score() -> None:
    flat = flat_scores(frame_of(["f", "m"] * 20, "fid,ipr"))
    assert flat["fid/worst"] == flat["fid/m"] > flat["fid/f"]
    assert flat["ipr_recall/worst"] == flat["ipr_recall/m"] < flat["ipr_recall/f"]


def test_without_a_worst_group_there_is_no_worst_score() -> None:
    def gap(real: Any, fake: Any) -> float:
        return float(fake.mean() - real.mean())

    assert "gap/worst" not in flat_scores(frame_of(["f", "m"] * 20, gap))


@pytest.mark.parametrize(
    ("labels", "name"), [(["a+", "a*"], "fid/a_"), (["overall", "b"], "fid/overall"), (["a", "worst"], "fid/worst")]
)
def test_refuses_two_names_that_become_equal(labels: list[str], name: str) -> None:
    with pytest.raises(ValueError, match=f"would both be called '{name}'; rename a group or a metric"):
        flat_scores(frame_of(labels * 20))


def test_tensorboard_reads_them_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    flat = flat_scores(frame_of(["f", "m"] * 20, "fid,ipr"))
    with SummaryWriter(tmp_path) as writer:
        for name, value in flat.items():
            writer.add_scalar(name, value, 1)
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = {name: name.replace(" ", "_") for name in flat}
    assert {name: pytest.approx(events.Scalars(tags[name])[0].value, rel=1e-6) for name in flat} == flat
