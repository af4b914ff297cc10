"""The unit of the features and their place change no score that should not change, for every metric and divergence."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import divergences
from egtmetrics.divergences import frontiers
from egtmetrics.divergences.codebook import distinct_union
from egtmetrics.metrics.variance import score_covariance
from egtmetrics.registry import registered_metrics

OPTIONS = {"random_state": 0, "subset_size": 80, "n_neighbors": 5, "f": "kl"}
ESTIMATES = {name: value for name, value in vars(divergences).items() if name.endswith("_f_divergence")}
METRICS = {name: found.function for name, found in registered_metrics().items()} | ESTIMATES


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    parameters = inspect.signature(function).parameters
    return functools.partial(function, **{name: value for name, value in OPTIONS.items() if name in parameters})


def scores(name: str, real: NDArray[Any], fake: NDArray[Any]) -> dict[str, float]:
    if name == "numbers":  # which takes one for each sample
        real, fake = real[:, :1], fake[:, :1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", divergences.DivergenceEstimateWarning)
        result = bound(METRICS[name])(real, fake)
    return {"value": result.value} if name in ESTIMATES else result.scores()


@functools.cache
def pair(kind: str, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(130, 4)), rng.normal(size=(120, 4)) * 1.2 + 0.5
    if kind == "heavy tails":
        real, fake = (points / rng.chisquare(2, size=(len(points), 1)) for points in (real, fake))
    elif kind == "clusters and duplicates":
        real, fake = (np.round(points) + 8.0 * rng.integers(0, 2, size=(len(points), 1)) for points in (real, fake))
    elif kind == "one feature in another unit":
        real, fake = real * [1e3, 1.0, 1.0, 1e-3], fake * [1e3, 1.0, 1.0, 1e-3]
    return real.astype(dtype), fake.astype(dtype)


KINDS = ["normal", "heavy tails", "clusters and duplicates", "one feature in another unit"]


@functools.cache
def unscaled(name: str, kind: str, dtype: str) -> dict[str, float]:
    return scores(name, *pair(kind, dtype))


HAS_A_UNIT = {"kid", "numbers"}  # which have tests of their own


@pytest.mark.parametrize("name", [name for name in METRICS if name not in HAS_A_UNIT])
@settings(max_examples=6)
@given(
    kind=st.sampled_from(KINDS),
    dtype_exponent=st.tuples(st.just("f4"), st.integers(-6, 6)) | st.tuples(st.just("f8"), st.integers(-20, 20)),
)
def test_a_power_of_two_changes_no_digit(name: str, kind: str, dtype_exponent: tuple[str, int]) -> None:
    """Of sixteen, as others change the bytes by which rows are ordered, and then other rows are drawn at random."""
    dtype, exponent = dtype_exponent[0], 16 * dtype_exponent[1]
    real, fake = (np.ldexp(points, exponent) for points in pair(kind, dtype))
    found, expected = scores(name, real, fake), unscaled(name, kind, dtype)
    if name == "fid":  # in squared units, and its singular values are rounded
        expected = {key: float(np.ldexp(value, 2 * exponent)) for key, value in expected.items()}
        assert found == pytest.approx(expected, rel=1e-9, abs=0.0)
    elif name in ESTIMATES:  # the unit enters through logarithms
        assert found == pytest.approx(expected, rel=1e-9)
    else:
        assert found == expected


@pytest.mark.parametrize("name", METRICS)
def test_beyond_what_can_be_squared_a_set_is_refused_at_both_ends(name: str) -> None:
    real, fake = pair("normal", "f8")
    for scale, reason in ((1e-155, "vanish"), (1e151, "overflow")):
        with pytest.raises(ValueError, match=f"real holds .* {reason} in float64|real holds .* {reason} float64"):
            scores(name, real * scale, fake * scale)
        with pytest.raises(ValueError, match="fake holds no number" if reason == "vanish" else "fake holds a number"):
            scores(name, real, fake * scale)


# By definition: a cosine has an origin (MAUVE's rows are scaled to length 1), and so has a polynomial kernel.
HAS_AN_ORIGIN = {"mauve", "frontier", "kid", "numbers", "vendi"}


@pytest.mark.parametrize("name", [name for name in METRICS if name not in HAS_AN_ORIGIN])
def test_features_far_from_zero_keep_their_scores(name: str) -> None:
    """Integers plus 2^40 are exact, and so are their differences."""
    real, fake = (np.round(16.0 * points) for points in pair("normal", "f8"))
    found, expected = scores(name, real + 2.0**40, fake + 2.0**40), scores(name, real, fake)
    # What draws at random orders rows by their bytes, which the offset changes: another draw.
    draws = "random_state" in inspect.signature(METRICS[name]).parameters
    assert found == pytest.approx(expected, rel=1e-6, abs=0.05 if draws else 0.0)


@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
def test_more_features_than_rows_change_nothing_but_the_time() -> None:
    """Rotated into 90 dimensions, 60 rows of 5 features keep all distances; another decomposition is used."""
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(30, 5)) + 1.0, rng.normal(size=(30, 5)) * 1.3 + 1.0
    rotation = np.linalg.qr(rng.normal(size=(90, 5)))[0]
    wide = [points @ rotation.T for points in (real, fake)]
    products = []
    for x, y in ((real, fake), wide):
        union = distinct_union(x, y)
        directions = frontiers._principal_directions(union)[
            union.real_ids
        ]  # rows are clustered in an order of their own
        products.append(directions @ directions.T)
    assert products[1] == pytest.approx(products[0], abs=1e-12)
    fid = METRICS["fid"]
    variances = [
        score_covariance(fid, fid(x, y), x, y, rng=np.random.default_rng(0)).alone.item()
        for x, y in ((real, fake), wide)
    ]
    assert variances[1] == pytest.approx(variances[0], rel=1e-9)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in {*ESTIMATES, "numbers"}])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_keep_to_their_bounds(name: str, kind: str) -> None:
    for real, fake in (pair(kind, "f8"), pair(kind, "f8")[::-1]):
        result = bound(METRICS[name])(real, fake)
        for key, value in result.scores().items():
            low, high = result.describe()[key].bounds
            assert low <= value <= high, key
