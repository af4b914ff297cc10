"""How much the scores of a metric vary from sample to sample, estimated from the one sample there is.

A metric may have its own estimator: ``@metric(..., variance=...)``. The Fréchet distance uses its derivative,
the kernel distance the variance of a U-statistic; TopP&R and the nearest-neighbour metrics score all halves and
quarters of the samples in a few passes over the pairs of points. Any other metric is called on the halves and quarters
(:mod:`egtmetrics.metrics.subsampling`), on halves only if it refuses a quarter.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from egtmetrics._validation import check_real_fake
from egtmetrics.metrics.subsampling import (
    N_QUARTERINGS,
    Floats,
    Subsamples,
    covariance_of_parts,
    draw_subsamples,
    extrapolated_covariance,
)
from egtmetrics.ops import BackendName, take_rows, to_host
from egtmetrics.registry import Metric, callable_name, metric_of, registered_metrics
from egtmetrics.results import MetricResult, UndeclaredScores, as_result, collecting_caveats


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreCovariance:
    """Covariances of the S scores of one real and one fake set, by source of randomness.

    Rows and columns are in the order of ``result.scores()``.
    """

    data: Floats
    """``(S, S)``: over other samples of the same size, with the projections that were drawn."""
    alone: Floats | None = None
    """``(S,)``: variances for the interval of a single score, if they should be larger than those of ``data``.

    Between nearly equal laws, the estimated variance of a distance rises and falls with the distance. In a difference
    of two groups that evens out. A single distance that came out low would get too short an interval, which misses.
    """
    per_projection: Floats | None = None
    """``(M, S)``: the scores under each projection, where there are several."""
    interaction: Floats | None = None
    """``(S, S)``: the covariance over samples of the scores under one projection, beyond that of their mean."""
    threshold: Floats | None = None
    """``(S, S)``: over other draws of the confidence bands' bootstrap, for one projection."""


def score_covariance(
    metric: Callable[..., Any],
    result: Any,
    real: Any,
    fake: Any,
    *,
    rng: np.random.Generator,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> ScoreCovariance:
    """Estimate how the scores vary around ``result``, which ``metric(real, fake)`` has returned.

    If the metric has its own estimator, also through ``functools.partial`` and ``functools.wraps``, and the result is
    of the class that it expects, it is used. Otherwise, or if it returns None, :func:`variance_from_parts` is used.

    Parameters
    ----------
    metric
        ``(real, fake) ->`` a result, a number or a mapping of names to numbers; options are fixed by a partial.
    result
        What it returned.
    real, fake
        The features that it was called with.
    rng
        Draws the halves and quarters, and whatever an estimator draws.
    backend, n_threads
        For estimators that take them; see :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    ValueError
        The metric refuses halves, or its own estimator refuses the samples.
    TypeError
        The metric's own estimator did not return shape (S, S), or the metric returned other scores for some halves.

    Warns
    -----
    UserWarning
        A function without an estimator returns the result of a metric that has one. It may have changed the samples, so
        the estimator is not used, and the function is called some 330 times.
    """
    real, fake = (points[:] for points in check_real_fake(to_host(real), to_host(fake)))  # fetched from other ranks
    result = as_result(result, callable_name(metric), n_real=len(real), n_fake=len(fake))
    known = metric_of(metric)
    found: ScoreCovariance | None = None
    if known is None or (known.variance is not None and not _returns(known, result)):
        _warn_of_cost(metric, known, result)
    elif known.variance is not None:
        accepted = inspect.signature(known.variance).parameters
        options = {"backend": backend, "n_threads": n_threads}
        options = {name: value for name, value in options.items() if name in accepted}
        found = known.variance(result, real, fake, rng, **options)
    if found is None:
        return variance_from_parts(metric, real, fake, rng)
    size = len(result.scores())
    if np.shape(found.data) != (size, size):
        raise TypeError(
            f"the variance estimator of {callable_name(metric)!r} returned a covariance of shape "
            f"{np.shape(found.data)} for {size} scores; expected {(size, size)}, in the order of result.scores()"
        )
    return found


def variance_from_parts(
    metric: Callable[..., Any], real: Any, fake: Any, rng: np.random.Generator, *, n_quarterings: int = N_QUARTERINGS
) -> ScoreCovariance:
    """Call ``metric`` on random halves and quarters of both sets, ten times for each of ``n_quarterings`` splits.

    If it refuses quarters with a ValueError, its variance is taken from the halves, as if it fell with 1 / n.
    """
    scores = scores_of_parts(
        metric, draw_subsamples(real, rng, n_quarterings), draw_subsamples(fake, rng, n_quarterings)
    )
    return ScoreCovariance(data=covariance_from_scores(scores))


def covariance_from_scores(scores: Sequence[Floats]) -> Floats:
    """Covariance at full size from the scores ``(P, C, S)`` of halves and of quarters, or of halves alone."""
    covariances = [covariance_of_parts(by_part) for by_part in scores]
    return covariances[0] if len(covariances) == 1 else extrapolated_covariance(*covariances)


def scores_of_parts(metric: Callable[..., Any], real: Subsamples, fake: Subsamples) -> list[Floats]:
    """Scores of halves ``(2, 3 Q, S)`` and, unless the metric refuses them, of quarters ``(4, Q, S)``, by calls."""

    def scores(n_parts: int, columns: slice) -> Floats:
        by_part: list[dict[str, float]] = []
        for real_parts, fake_parts in zip(real.parts[:, columns].T, fake.parts[:, columns].T, strict=True):
            for part in range(n_parts):
                x, y = take_rows(real.points, real_parts == part), take_rows(fake.points, fake_parts == part)
                with collecting_caveats():  # of a part, which say nothing about the whole
                    value = metric(x, y)
                result = as_result(value, callable_name(metric), n_real=len(x), n_fake=len(y))
                by_part.append(result.scores())
                if list(by_part[-1]) != list(by_part[0]):
                    raise TypeError(
                        f"metric {callable_name(metric)!r} returned the scores {', '.join(by_part[0])} for one part of "
                        f"the samples and {', '.join(by_part[-1])} for another; return the same ones for all"
                    )
        values = np.array([list(one.values()) for one in by_part])
        return values.reshape(-1, n_parts, len(by_part[0])).swapaxes(0, 1)

    into_halves, into_quarters = real.by_size()
    halves = scores(*into_halves)
    try:
        quarters = scores(*into_quarters)
    except ValueError:  # too few rows for this metric
        return [halves]
    return [halves, quarters]


def _returns(metric: Metric, result: MetricResult) -> bool:
    """Return whether a result is of the class that a metric returns; True if its annotation does not say."""
    result_class = metric.result_class()
    return result_class is None or isinstance(result, result_class)


def _warn_of_cost(metric: Callable[..., Any], known: Metric | None, result: MetricResult) -> None:
    """Warn where an estimator exists but cannot be relied on, so that the metric will be called many times."""
    calls = f"its intervals call it some {10 * N_QUARTERINGS} times for each group"
    if known is not None:
        warnings.warn(
            f"{callable_name(metric)} returns other scores than {callable_name(known.function)}, so the variance "
            f"estimator of {known.name!r} does not apply and {calls}. Return the whole result, or register "
            "the function with egtmetrics.registry.metric(..., variance=...).",
            stacklevel=3,
        )
        return
    if isinstance(result, UndeclaredScores):
        return
    for other in registered_metrics().values():
        if other.variance is not None and other.result_class() is type(result):
            original = callable_name(other.function)
            warnings.warn(
                f"{callable_name(metric)} returns a {type(result).__name__}, as {original} does, but may have changed "
                f"the samples, so the variance estimator of {other.name!r} is not used and {calls}. If it only sets "
                f"options, pass functools.partial({original}, ...), or decorate it with "
                f"functools.wraps({original}); otherwise register it with "
                "egtmetrics.registry.metric(..., variance=...).",
                stacklevel=3,
            )
            return
