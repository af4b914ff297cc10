"""Metrics at a fixed number of samples, or in the limit of many, to compare groups of different sizes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake, keep_checked, take_checked
from egtmetrics.groups._evaluation import MetricSet, ScoreFunction, name_metrics
from egtmetrics.ops import BackendName, reading_device
from egtmetrics.registry import callable_name
from egtmetrics.results import MetricResult, Score, internal, warn_of_caveats

_FRACTIONS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.33)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResampledResult(MetricResult):
    """Scores of a metric from random subsets of the samples, under the metric's own names."""

    means: dict[str, float]
    """The scores: averages over subsets of one size, or intercepts in the limit of many samples."""
    standard_errors: dict[str, float]
    """Standard errors from drawing the subsets only: how far another ``random_state`` would move the scores."""
    sizes: tuple[tuple[int, int], ...]
    """The numbers of real and fake rows in every subset that was evaluated."""
    described: dict[str, Score] = internal()

    def describe(self) -> dict[str, Score]:
        """Return the metric's descriptions of its scores, which no longer depend on the number of samples."""
        return {name: dataclasses.replace(score, depends_on_size=False) for name, score in self.described.items()}

    def scores(self) -> dict[str, float]:
        return dict(self.means)


def at_sample_size(
    metric: str | ScoreFunction, n_samples: int, *, n_repeats: int = 10
) -> Callable[..., ResampledResult]:
    """Return the metric averaged over random subsets of ``n_samples`` real and ``n_samples`` fake rows.

    Metrics depend on how many samples they see. In a frame, the returned metric sees the same number from every group.
    The mean over several subsets uses more of the larger groups than the single subset of ``GroupedSamples.matched``.

    Parameters
    ----------
    metric
        A name as on the command line, or a function ``(real, fake) -> score``.
    n_samples
        At most the number of rows in the smallest set; a smaller set is refused.
    n_repeats
        How many pairs of subsets to draw, without replacement. A set of exactly ``n_samples`` rows is used whole.

    Notes
    -----
    Cost: ``n_repeats`` evaluations of that size.

    Examples
    --------
    >>> from egtmetrics import frechet_distance
    >>> rng = np.random.default_rng(0)
    >>> large, small = rng.normal(size=(2, 900, 8)), rng.normal(size=(2, 100, 8))
    >>> whole, few = (frechet_distance(*pair).fid for pair in (large, small))
    >>> matched = at_sample_size(frechet_distance, 100)(*large, random_state=0).scores()["fid"]
    >>> whole < 0.1, few > 0.4, matched > 0.4
    (True, True, True)
    """
    check_positive_int(n_samples, "n_samples")
    check_positive_int(n_repeats, "n_repeats")

    def sizes(n: int, m: int) -> list[tuple[int, int]]:
        if min(n, m) < n_samples:
            raise ValueError(
                f"at_sample_size draws {n_samples} rows without replacement, but there are {n} real and {m} fake ones; "
                f"pass n_samples={min(n, m)} or less, the same for everything you compare"
            )
        return [(n_samples, n_samples)] * n_repeats

    return _Resampled(metric, f"at_sample_size({n_samples})", sizes, _average)


def extrapolate(metric: str | ScoreFunction, *, n_repeats: int = 4) -> Callable[..., ResampledResult]:
    r"""Return the metric extrapolated to infinitely many samples, by a line in 1 / n.

    The bias of many metrics is ``b / n`` plus smaller terms. The metric is evaluated on random subsets, from a third
    of both sets to all of them. ``T(f) = T_inf + b / f`` is fitted to the scores, where f is the share of the rows, and
    ``T_inf`` is returned. For the Fréchet distance this is the idea of FID-infinity. It removes most of the bias and
    increases the noise. If the bias does not fall with ``1 / n``, the limit is a guess; TopP&R and other metrics whose
    neighbours or thresholds depend on n are like that.

    Parameters
    ----------
    metric
        A name as on the command line, or a function ``(real, fake) -> score``.
    n_repeats
        The number of subsets of each of the five sizes below 1.

    Notes
    -----
    Cost: ``1 + 5 n_repeats`` evaluations, all but the first on fewer rows.

    References
    ----------
    Chong, Forsyth: Effectively Unbiased FID and Inception Score and Where to Find Them, CVPR 2020, section 3.

    Examples
    --------
    >>> from egtmetrics import frechet_distance
    >>> real, fake = np.random.default_rng(0).normal(size=(2, 600, 16))
    >>> limit = extrapolate(frechet_distance)(real, fake, random_state=0).scores()["fid"]
    >>> frechet_distance(real, fake).fid > 5 * abs(limit)
    True
    """
    check_positive_int(n_repeats, "n_repeats")

    def sizes(n: int, m: int) -> list[tuple[int, int]]:
        fractions = [_FRACTIONS[0], *(f for f in _FRACTIONS[1:] for _ in range(n_repeats))]
        return [(math.ceil(f * n), math.ceil(f * m)) for f in fractions]

    return _Resampled(metric, "extrapolate()", sizes, _intercept)


class _Resampled:
    """A metric that calls another one on random subsets and combines its scores ``(subsets, S)``."""

    def __init__(
        self,
        metric: str | ScoreFunction,
        how: str,
        sizes: Callable[[int, int], list[tuple[int, int]]],
        combine: Callable[[Sequence[tuple[int, int]], NDArray[np.float64]], tuple[Any, Any]],
    ) -> None:
        (name, function), *others = name_metrics(metric).items()
        if others:
            raise ValueError(f"metric={metric!r} names several metrics; pass one")
        self.__name__ = f"{callable_name(function)}.{how}"
        self._name, self._metric, self._sizes, self._combine = name, function, sizes, combine

    def __call__(
        self,
        real: Any,
        fake: Any,
        *,
        random_state: RandomState = None,
        backend: BackendName = "auto",
        n_threads: int | None = None,
    ) -> ResampledResult:
        device = reading_device(backend, real, fake)
        real, fake = (keep_checked(points) for points in check_real_fake(real, fake, device=device))
        rng = check_random_state(random_state)
        seed = int(rng.integers(2**32))
        metrics = MetricSet({self._name: self._metric}, random_state=seed, backend=backend, n_threads=n_threads)
        sizes = self._sizes(len(real), len(fake))
        results: list[MetricResult] = []
        for n, m in sizes:
            real_rows, fake_rows = (np.sort(rng.choice(len(x), k, replace=False)) for x, k in ((real, n), (fake, m)))
            subset = take_checked(real, real_rows), take_checked(fake, fake_rows)
            results += metrics.call(*subset, "a subset").values()
        table = np.array([list(result.scores().values()) for result in results])
        means, errors = self._combine(sizes, table)
        names = list(results[0].describe())
        caveats = next((result.caveats for result in results if result.caveats), ())
        warn_of_caveats(caveats)
        return ResampledResult(
            means=dict(zip(names, map(float, means), strict=True)),
            standard_errors=dict(zip(names, map(float, errors), strict=True)),
            sizes=tuple(sizes),
            described=results[0].describe(),
            caveats=caveats,
            backend=results[0].backend,
            n_real=len(real),
            n_fake=len(fake),
        )


def _average(sizes: Sequence[tuple[int, int]], scores: NDArray[np.float64]) -> tuple[Any, Any]:
    deviation = scores.std(axis=0, ddof=1) if len(sizes) > 1 else np.full(scores.shape[1], math.nan)
    return scores.mean(axis=0), deviation / math.sqrt(len(sizes))


def _intercept(sizes: Sequence[tuple[int, int]], scores: NDArray[np.float64]) -> tuple[Any, Any]:
    inverse = np.array([sizes[0][0] / n for n, _ in sizes])
    design = np.stack([np.ones(len(sizes)), inverse], axis=1)
    solver = np.linalg.pinv(design)
    residuals = scores - design @ (solver @ scores)
    variance = (residuals**2).sum(axis=0) / max(len(sizes) - 2, 1)
    return (solver @ scores)[0], np.sqrt(variance * (solver[0] ** 2).sum())
