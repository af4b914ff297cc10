"""Data sets, and the results of reference implementations (top-pr, prdc, mauve, ...) recorded in tests/golden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FOLDER = Path(__file__).parent / "golden"

GOLDEN_NAMES = ("gauss_shift", "mix_drop", "duplicates", "digits")


class Golden(NamedTuple):
    """One data set with the results of the reference implementations."""

    real: NDArray[np.float32]
    fake: NDArray[np.float32]
    toppr: dict[str, NDArray[Any]]
    """Arrays of one seed-0 run of top-pr: W, Xp, Yp, idx_r, idx_g, h_r, score_rr, ..."""
    mauve: dict[str, NDArray[Any]]
    """Arrays of one seed-25 run of mauve-text: p_hist, q_hist, divergence_curve."""
    expected: dict[str, Any]
    """The entry of golden.json: scores by metric."""


def load(name: str) -> Golden:
    """Load one of ``GOLDEN_NAMES``."""
    data = _arrays(name)
    expected = json.loads((_FOLDER / "golden.json").read_text(encoding="utf-8"))["data"][name]
    return Golden(data["X"], data["Y"], _arrays(f"{name}_toppr_seed0"), _arrays(f"{name}_mauve_seed25"), expected)


def _arrays(stem: str) -> dict[str, NDArray[Any]]:
    with np.load(_FOLDER / f"{stem}.npz") as archive:
        return dict(archive)
