"""What a frame leaves behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.groups import Baseline, DoseResponse

USES: dict[str, Callable[[GenerativeMetricFrame], Any]] = {
    "interval": lambda frame: frame.interval(),
    "baseline": lambda frame: frame.baseline(n_splits=1),
    "plan": lambda frame: frame.plan(width=1e-9),
    "samples_needed": lambda frame: frame.samples_needed("fid", "f", "m", delta=0.45),
    "dose_response": lambda frame: frame.dose_response("noise", n_splits=1),
}


@pytest.mark.parametrize("use", USES)
def test_what_is_dropped_frees_its_samples(use: str) -> None:
    """A training loop makes thousands of frames."""
    groups = np.repeat(["f", "m"], 120)
    real, fake = np.random.default_rng(0).normal(size=(2, 240, 2)) + np.where(groups == "f", 0.0, 1.0)[:, None]
    fake[groups == "f"] += 0.5
    frame = GenerativeMetricFrame(
        metrics="fid",
        real=real,
        fake=fake,
        real_sensitive_features=groups,
        fake_sensitive_features=groups,
        random_state=0,
    )
    result = USES[use](frame)
    if isinstance(result, Baseline | DoseResponse):
        result.interval()
    held = weakref.ref(frame), weakref.ref(result)
    del frame, result
    gc.collect()
    assert [one() for one in held] == [None, None]
