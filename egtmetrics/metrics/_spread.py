"""How much the scores of a metric vary from sample to sample, from parts of the one sample there is.

Real and fake are split at random into quarters, many times; two quarters make a half, in three ways. The parts of one
division are independent samples of a fraction of the size, so that with T their scores::

    V_2 = mean of (T(half) - T(other half))^2 / 4,    V_4 = mean over divisions of the variance of T(quarter), / 4

each would be the variance of T at full size if variances went with 1 / n. How they do go is seen from V_2 and V_4, and
followed one step further: V = V_2 (V_2 / V_4)^g. Differences between parts take out what the scores of parts are too
high or too low by. Unlike a bootstrap, no point is drawn twice: duplicates would shrink the nearest-neighbour radii and
raise the densities at the points themselves.

A part keeps the meaning of the metric's tuning: TopP&R takes k / 2 or k / 4 neighbours for its bandwidth, and the
threshold of the full sample, moved as that of a full sample would be, so that it estimates the same supports.

For TopP&R and the k-nearest-neighbour metrics all parts come from one pass over the pairs of points each
(``resampled_density``, ``split_ball_counts``). The Fréchet distance has its derivative instead, the kernel distance the
variance of a U-statistic. Every other metric is called on the parts: on halves only, if it refuses a quarter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from egtmetrics._validation import check_real_fake
from egtmetrics.metrics._parts import (
    Divided,
    Floats,
    Spread,
    covariance_of_parts,
    divide,
    full_size_covariance,
    grouped,
)
from egtmetrics.metrics._spread_closed import frechet_variances, kernel_variances
from egtmetrics.metrics._spread_topp import topp_spread
from egtmetrics.metrics.frechet import frechet_distance
from egtmetrics.metrics.kernel import kernel_distance
from egtmetrics.metrics.prdc import improved_precision_recall, precision_recall_density_coverage
from egtmetrics.metrics.topp_pr import PROJECTED_DIM, topp_precision_recall
from egtmetrics.ops import BackendName, HostBackend, select_host_backend, take_rows, to_host
from egtmetrics.results import MetricResult


def spread(
    metric: Callable[..., Any],
    result: Any,
    real: Any,
    fake: Any,
    *,
    n_quarterings: int,
    rng: np.random.Generator,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> Spread:
    """Return how the scores vary around ``result``, which ``metric(real, fake)`` has returned.

    ``metric`` may be a ``functools.partial`` that fixes the options; those of the library are known by their function.
    """
    function, options = (metric.func, metric.keywords) if isinstance(metric, functools.partial) else (metric, {})
    real, fake = (points[:] for points in check_real_fake(to_host(real), to_host(fake)))  # fetched from other ranks
    if function is frechet_distance:
        return _spread_of_distance(result.score_names, *frechet_variances(real, fake, rng))
    if function is kernel_distance:
        return _spread_of_distance(result.score_names, *kernel_variances(result, options, real, fake))
    divided = divide(real, n_quarterings, rng), divide(fake, n_quarterings, rng)
    kernels = select_host_backend(backend, n_threads=n_threads)
    own_draws = options.get("compatibility") is None and options.get("bootstrap_indices") is None
    known = real.shape[1] <= PROJECTED_DIM or options.get("projections") is not None
    known |= isinstance(options.get("random_state"), int)
    if function is topp_precision_recall and own_draws and known:
        return topp_spread(kernels, result, options, *divided, rng)
    if function in (precision_recall_density_coverage, improved_precision_recall):
        closed = function is improved_precision_recall or result.ties == "include"
        names = result.score_names
        scores = neighbor_scores(kernels, *divided, result.n_neighbors, closed=closed)
        return Spread(names=names, data=_covariance([by_part[..., : len(names)] for by_part in scores]))
    names, scores = called_scores(metric, *divided)
    return Spread(names=names, data=_covariance(scores))


def _spread_of_distance(names: tuple[str, ...], in_differences: float, alone: float) -> Spread:
    return Spread(names=names, data=np.array([[in_differences]]), alone=np.array([alone]))


def _covariance(scores: list[Floats]) -> Floats:
    """From the scores of halves and quarters, or of halves alone."""
    covariances = [covariance_of_parts(by_part) for by_part in scores]
    return covariances[0] if len(covariances) == 1 else full_size_covariance(*covariances)


def called_scores(metric: Callable[..., Any], real: Divided, fake: Divided) -> tuple[tuple[str, ...], list[Floats]]:
    """Names of the scores, and the scores of halves ``(2, 3 Q, S)`` and, unless refused, quarters ``(4, Q, S)``."""

    def scores_of_parts(n_parts: int, columns: slice) -> tuple[tuple[str, ...], Floats]:
        names: tuple[str, ...] = ()
        scores = []
        for real_parts, fake_parts in zip(real.parts[:, columns].T, fake.parts[:, columns].T, strict=True):
            for part in range(n_parts):
                result = metric(take_rows(real.points, real_parts == part), take_rows(fake.points, fake_parts == part))
                by_name = result.scores() if isinstance(result, MetricResult) else {"": float(result)}
                names = tuple(by_name)
                scores.append(list(by_name.values()))
        return names, np.array(scores).reshape(-1, n_parts, len(names)).swapaxes(0, 1)

    into_halves, into_quarters = real.by_size()
    names, halves = scores_of_parts(*into_halves)
    try:
        _, quarters = scores_of_parts(*into_quarters)
    except ValueError:  # too few rows for this metric: its variance is not followed to the full size
        return names, [halves]
    return names, [halves, quarters]


def neighbor_scores(kernels: HostBackend, real: Divided, fake: Divided, k: int, *, closed: bool) -> list[Floats]:
    """Precision, recall, density and coverage of halves ``(2, 3 Q, 4)`` and quarters ``(4, Q, 4)``."""
    for name, divided in (("real", real), ("fake", fake)):
        if len(divided.points) // 4 <= k:
            raise ValueError(
                f"{name} has less than the {4 * k + 4} rows that quarters with {k} neighbours need; add samples, or "
                "take fewer neighbours"
            )

    def counts(x: Divided, y: Divided) -> Any:
        return kernels.split_ball_counts(
            x.points,
            y.points,
            x_sq_radii=kernels.split_kth_neighbor(x.points, x.parts, n_neighbors=np.full(x.parts.shape[1], k)),
            x_sides=x.parts,
            y_sides=y.parts,
            closed=closed,
        )

    of_real, fake_in_real = counts(real, fake)
    _, real_in_fake = counts(fake, real)
    values = ((fake, fake_in_real > 0), (real, real_in_fake > 0), (fake, fake_in_real / k), (real, of_real > 0))
    return [
        np.stack(
            [
                grouped(value[:, columns], side.parts[:, columns], n_parts).mean(axis=1, dtype=np.float64)
                for side, value in values
            ],
            axis=-1,
        )
        for n_parts, columns in real.by_size()
    ]
