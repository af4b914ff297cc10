"""Known labels, and names of groups to indices and back."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics import GenerativeMetricFrame
from egtmetrics.labels import MissingLabelWarning
from egtmetrics.oracles import LabelOracle, group_indices
from egtmetrics.oracles.labels import names_of

NAMES = ("old", "young", "of no age")


def test_known_labels() -> None:
    oracle = LabelOracle(NAMES)
    assert oracle.warning is None
    assert oracle.group_names == NAMES
    assert oracle(["old", None, "of no age"]).tolist() == ["old", None, "of no age"]
    assert oracle(pd.Series(["old", np.nan])).tolist() == ["old", None]
    assert oracle([]).tolist() == []
    by_column = LabelOracle(["b", "a"], lambda batch: batch["group"])
    assert by_column({"group": np.array(["a", "b"])}).tolist() == ["a", "b"]
    assert [type(name) for name in by_column({"group": np.array(["a", "b"])})] == [str, str]


@given(st.lists(st.sampled_from([*NAMES, None])))
def test_names_to_indices_and_back(groups: list[str | None]) -> None:
    indices = group_indices(groups, NAMES, n=len(groups))
    assert [None if i < 0 else NAMES[i] for i in indices] == groups
    assert names_of(indices, NAMES).tolist() == groups


def test_what_an_oracle_returns_goes_into_the_frame_as_it_is() -> None:
    """A sample without a group is unassigned, and no group of its own."""
    rng = np.random.default_rng(0)
    labels = LabelOracle(["f", "m"])(["f", None, "m"] * 20)
    frame = GenerativeMetricFrame(
        metrics=lambda real, fake: float(abs(real.mean() - fake.mean())),
        real=rng.normal(size=(60, 2)),
        fake=rng.normal(size=(60, 2)),
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
    )
    assert list(frame.by_group.index) == ["f", "m"]
    assert frame.unassigned == {"real": 20, "fake": 20}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 1, -1], "the oracle's answer holds -1, 0, 1, expected 'old', 'young', 'of no age', or None"),
        (["Old", "new"], "holds 'Old', 'new', expected"),
        (["old", True], "holds True, expected"),
        ([["old", "old"]] * 3, r"has shape \(3, 2\), expected one name per sample, \(n,\)"),
        ([f"g{i:02}" for i in range(99)], "'g09' and 89 more, expected"),
    ],
)
def test_bad_groups(groups: Any, message: str) -> None:
    for call in (LabelOracle(NAMES), lambda groups: group_indices(groups, NAMES)):
        with pytest.raises(ValueError, match=message):
            call(groups)


def test_labels_held_in_other_ways() -> None:
    held = np.ma.masked_array(["old", "old", "young"], mask=[False, True, False])
    for groups in (held, [b"old", "", " young"], np.array(["old", "nan", "young"]), [["old"], [None], ["young"]]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MissingLabelWarning)
            assert group_indices(groups, NAMES).tolist() == [0, -1, 1]
    assert group_indices(["NA", "ZA", "NA"], ["NA", "ZA"]).tolist() == [0, 1, 0]  # known, so not missing


def test_one_group_per_sample() -> None:
    with pytest.raises(TypeError, match="answer is str, expected a sequence with one label per sample"):
        LabelOracle(NAMES)("old")
    with pytest.raises(ValueError, match=r"has shape \(2,\), expected one name per sample, \(3,\)"):
        group_indices(["old", "old"], NAMES, n=3)


@pytest.mark.parametrize("names", [[], "old", ["old", "old"], [0, 1], [None, "old"], 3 * [""]])
def test_bad_names(names: Any) -> None:
    with pytest.raises(ValueError, match=r"group_names holds .*, expected different texts, one for each group"):
        LabelOracle(names)
