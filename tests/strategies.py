"""All hypothesis strategies of the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray


@st.composite
def tied_points(draw: st.DrawFn, *, dimension: int | None = None) -> NDArray[np.float32]:
    """A set on a small integer grid, so full of equal rows and equal distances, with more than 5 d rows."""
    d = draw(st.integers(1, 3)) if dimension is None else dimension
    n = draw(st.integers(5 * d + 1, 40))
    return draw(hnp.arrays(np.float32, (n, d), elements=st.integers(-3, 3).map(float)))


@st.composite
def similarities(draw: st.DrawFn, *, dimension: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """A rotation or reflection, a scale from 1e-6 to 1e6 and a shift of up to a million: ``scale * x @ Q + shift``."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    scale = 10.0 ** draw(st.floats(-6.0, 6.0))
    shift = draw(st.floats(0.0, 1e6)) * scale * rng.uniform(-1.0, 1.0, size=dimension)
    return lambda x: scale * (x @ rotation) + shift


@st.composite
def lattice_pairs(
    draw: st.DrawFn, *, min_rows: int, max_rows: int = 16, max_features: int = 3
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(real, fake) of small integers: full of ties and duplicates, and every squared distance exact in any order."""
    d = draw(st.integers(1, max_features))
    rows, values = st.integers(min_rows, max_rows), st.integers(-3, 3).map(float)
    real, fake = (draw(hnp.arrays(np.float32, (draw(rows), d), elements=values)) for _ in range(2))
    return real, fake


@st.composite
def invalid_features(draw: st.DrawFn, *, n_features: int) -> Any:
    """What is no finite ``(n, n_features)`` array of numbers."""
    features = draw(hnp.arrays(np.float64, (12, n_features), elements=st.floats(-1e3, 1e3)))
    fault = draw(st.sampled_from(["value", "axes", "columns", "empty", "text", "ragged"]))
    if fault == "value":
        row, column = draw(st.integers(0, 11)), draw(st.integers(0, n_features - 1))
        features[row, column] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e200]))
        return features
    if fault == "axes":
        return draw(st.sampled_from([features[:, 0], features[None], features[0, 0]]))
    if fault == "columns":
        return np.concatenate([features, features], axis=1)
    if fault == "empty":
        return draw(st.sampled_from([features[:0], features[:, :0]]))
    return features.astype(str) if fault == "text" else [[1.0] * n_features, [1.0] * (n_features + 1)]


class GroupedSamples(NamedTuple):
    """Two sets in one space with a group label, 0 to 3, for every row."""

    real: NDArray[np.float64]
    fake: NDArray[np.float64]
    real_groups: NDArray[np.int64]
    fake_groups: NDArray[np.int64]


@st.composite
def grouped_samples(draw: st.DrawFn, *, max_groups: int = 4) -> GroupedSamples:
    """2 to ``max_groups`` groups with 2 to 6 rows each on either side, in any order; sums of the values are exact."""
    n_groups = draw(st.integers(2, max_groups))

    def side() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        sizes = draw(st.lists(st.integers(2, 6), min_size=n_groups, max_size=n_groups))
        groups = draw(st.permutations(np.repeat(np.arange(n_groups), sizes).tolist()))
        eighths = draw(hnp.arrays(np.int64, (len(groups), 2), elements=st.integers(-16, 16)))
        return eighths / 8.0, np.array(groups)

    (real, real_groups), (fake, fake_groups) = side(), side()
    return GroupedSamples(real, fake, real_groups, fake_groups)


@st.composite
def group_labels(draw: st.DrawFn) -> list[str]:
    """Labels out of "a" to "d" for 5 to 40 samples, with "a" and "b" among them."""
    return [*"aab", *draw(st.lists(st.sampled_from("abcd"), min_size=2, max_size=37))]


@st.composite
def score_tables(draw: st.DrawFn) -> pd.DataFrame:
    """Precision, recall and fid of 2 to 6 groups."""
    n_groups = draw(st.integers(2, 6))
    scores = draw(hnp.arrays(np.float64, (n_groups, 3), elements=st.floats(0.0, 1.0)))
    return pd.DataFrame(scores, columns=["precision", "recall", "fid"], index=pd.Index(list("abcdef"[:n_groups])))
