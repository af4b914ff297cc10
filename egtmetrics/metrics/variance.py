"""How much the scores of a metric vary from sample to sample, estimated from the one sample there is.

A metric may have its own estimator: ``@metric(..., variance=...)``. The Fréchet distance uses its derivative,
the kernel distance the variance of a U-statistic; TopP&R and the nearest-neighbour metrics score all halves and
quarters of the samples in a few passes over the pairs of points. Any other metric is called on the halves and quarters
(:mod:`egtmetrics.metrics.subsampling`), on halves only if it refuses a quarter.

Rows of one cluster (images of one prompt, photos of one person) vary together. Halves and quarters are then of whole
clusters, and what rows contribute to a variance is summed by cluster first. An estimator says that it does so by taking
``clusters``; one that does not is not used where there are any.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self, TypeAlias, cast

import numpy as np

from egtmetrics._validation import check_real_fake
from egtmetrics.metrics.subsampling import (
    N_QUARTERINGS,
    Clusters,
    ClustersOfBoth,
    Floats,
    Subsamples,
    covariance_of_parts,
    draw_all,
    extrapolated_covariance,
    n_units,
    share_variance,
)
from egtmetrics.ops import BackendName, take_rows, to_host
from egtmetrics.registry import Metric, callable_name, metric_of, registered_metrics
from egtmetrics.results import MetricResult, UndeclaredScores, as_result, collecting_caveats

Advance: TypeAlias = Callable[[int], object]
"""Is told how many more calls have been made."""
N_CALLS = 10 * N_QUARTERINGS
"""How often a metric without its own estimator is called for one group."""
OWN_COST = 3
"""As many evaluations take about as long as a metric's own estimator; fewer for FID, more with few features."""
PartsOfBoth: TypeAlias = tuple[Subsamples, Subsamples]
"""The halves and quarters of a real and of a fake set."""


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
    of two groups that evens out. A single distance that came out low would get too short an interval, which misses. So
    would a single share that came out near 0 or 1.
    """
    per_projection: Floats | None = None
    """``(M, S)``: the scores under each projection, where there are several."""
    interaction: Floats | None = None
    """``(S, S)``: the covariance over samples of the scores under one projection, beyond that of their mean."""
    threshold: Floats | None = None
    """``(S, S)``: over other draws of the confidence bands' bootstrap, for one projection."""
    source: ScoresOfParts | Moves | None = None
    """What it was computed from, for sums of scores that have samples in common; see :func:`joint_scores`."""

    def linear(self, weights: Floats) -> ScoreCovariance:
        """Return the covariance of ``weights @ scores``; every row of ``weights`` ``(K, S)`` is for one of the scores.

        So it selects scores, or gives each a factor.
        """

        def both(part: Floats | None) -> Floats | None:
            return None if part is None else np.asarray(weights @ part @ weights.T)

        return ScoreCovariance(
            data=weights @ self.data @ weights.T,
            alone=None if self.alone is None else weights**2 @ self.alone,
            per_projection=None if self.per_projection is None else self.per_projection @ weights.T,
            interaction=both(self.interaction),
            threshold=both(self.threshold),
            source=None if self.source is None else self.source.linear(weights),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoresOfParts:
    """S scores of random halves and quarters of both sets, under each of M projections (1 if there are none)."""

    halves: Floats
    """``(M, 2, C, S)``"""
    quarters: Floats | None
    """``(M, 4, C, S)``; None if the metric refuses quarters."""
    per_projection: Floats | None = None
    """``(M, S)``: the scores of all rows under each projection."""
    thresholds: Floats | None = None
    """``(M, T, S)``: the scores of all rows under T other draws of the confidence bands' bootstrap."""
    unseen: Floats | None = None
    """``(S,)``: variances that the parts do not show, as where all of them score 1."""

    def covariance(self) -> ScoreCovariance:
        """Return the covariance at full size."""
        sizes = [self.halves] if self.quarters is None else [self.halves, self.quarters]
        n_projections = len(self.halves)
        interaction = None
        if n_projections > 1:
            interaction = _at_full_size(
                [
                    np.sum([covariance_of_parts(own) for own in scores - scores.mean(axis=0)], axis=0)
                    / (n_projections - 1)
                    for scores in sizes
                ]
            )
        data = _at_full_size([covariance_of_parts(scores.mean(axis=0)) for scores in sizes])
        return ScoreCovariance(
            data=data if self.unseen is None else data + np.diag(self.unseen),
            per_projection=self.per_projection if n_projections > 1 else None,
            interaction=interaction,
            threshold=None
            if self.thresholds is None
            else np.mean([np.atleast_2d(np.cov(drawn.T)) for drawn in self.thresholds], axis=0),
            source=self,
        )

    def linear(self, weights: Floats) -> Self:
        """Return the same of ``weights @ scores``, as for :meth:`ScoreCovariance.linear`."""
        parts = {name: getattr(self, name) for name in ("halves", "quarters", "per_projection", "thresholds")}
        weighted: Any = {name: None if values is None else values @ weights.T for name, values in parts.items()}
        return dataclasses.replace(self, **weighted, unseen=None if self.unseen is None else weights**2 @ self.unseen)

    def at_least(self, least: Floats) -> Self:
        """Return the same, with what these parts lack of the least variance ``(S,)`` of every score."""
        return dataclasses.replace(self, unseen=np.maximum(least - np.diag(self.covariance().data), 0.0))

    @classmethod
    def of_sum(cls, weights: Sequence[Floats], terms: Sequence[ScoresOfParts]) -> Self:
        """Return the scores of parts of a weighted sum of scores; quarters only if all terms have them."""

        def total(name: str) -> Floats | None:
            values = [getattr(term, name) for term in terms]
            if any(value is None for value in values):
                return None
            power = 2 if name == "unseen" else 1
            weighted = (weight**power * value for weight, value in zip(weights, values, strict=True))
            return cast(Floats, functools.reduce(np.add, weighted))

        return cls(**{field.name: total(field.name) for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moves:
    """How much every row moves each of S scores: their derivative with respect to the law of its set.

    The variance of a distance is L + D, with L of the first order, which falls with 1 / n, and D of the second, which
    falls with 1 / n^2 and is all there is between equal laws. V, the variance of the moves of all rows, is L + 2 D, and
    V_2, its mean for the halves, is 2 (L + 4 D). So L + D = 3 V / 2 - V_2 / 4, and it lies within [V / 2, V].
    """

    whole: tuple[Floats, ...]
    """``(n, S)`` and ``(m, S)``: of the real and of the fake rows, or of clusters (:func:`by_cluster`); of a sum of
    scores those of every set that takes part."""
    halves: tuple[tuple[Floats, ...], ...]
    """The same in random halves of the sets."""
    drawn: Floats
    """``(S, S)``: the covariance due to what the metric draws itself, such as its subsets of rows."""
    clustered: tuple[bool, ...] = (False, False)
    """Whether the moves of each set are those of clusters, which sets may have in common."""

    @classmethod
    def of(
        cls,
        function: Callable[[Any, Any], tuple[Floats, Floats]],
        real: Any,
        fake: Any,
        clusters: ClustersOfBoth,
        parts: PartsOfBoth,
        *,
        n_splits: int,
        drawn: Floats,
        whole: tuple[Floats, Floats] | None = None,
    ) -> Self:
        """Return the moves that ``function(real, fake)`` gives of rows, here and in the halves of some splits."""
        x, y = parts
        halves = []
        for column in range(n_splits):
            for part in range(2):
                (of_x, x_clusters), (of_y, y_clusters) = x.of_part(column, part), y.of_part(column, part)
                halves.append(by_cluster(function(of_x, of_y), (x_clusters, y_clusters)))
        return cls(
            whole=by_cluster(function(real, fake) if whole is None else whole, clusters),
            halves=tuple(halves),
            drawn=drawn,
            clustered=(clusters[0] is not None, clusters[1] is not None),
        )

    def covariance(self) -> ScoreCovariance:
        """Return the covariance at full size, and the variances V for single scores."""

        def moments(sides: Sequence[Floats]) -> Floats:
            of_clusters = self._of_clusters(sides)
            rows = [moves for moves, flag in zip(sides, self.clustered, strict=True) if not flag]
            of_rows = [np.atleast_2d(np.cov(moves.T, ddof=0)) / len(moves) for moves in rows]
            return functools.reduce(np.add, of_rows, of_clusters.T @ of_clusters)

        of_whole = moments(self.whole)
        of_halves = np.mean([np.diag(moments(sides)) for sides in self.halves], axis=0)
        variances = np.diag(of_whole)
        ratio = np.divide(of_halves / 2.0, variances, out=np.ones(len(variances)), where=variances > 0)
        growth = np.sqrt(1.5 - 0.5 * ratio.clip(1.0, 2.0))
        return ScoreCovariance(
            data=growth[:, None] * of_whole * growth + self.drawn, alone=variances + np.diag(self.drawn), source=self
        )

    def between(self, other: Moves) -> Floats:
        """Return the covariance ``(S, S)`` of the scores with other ones, through the clusters that both have."""
        mine, theirs = self._of_clusters(self.whole), other._of_clusters(other.whole)
        n_common = min(len(mine), len(theirs))
        return np.asarray(mine[:n_common].T @ theirs[:n_common])

    def _of_clusters(self, sides: Sequence[Floats]) -> Floats:
        """Return by how much every cluster moves the scores through all sets, ``(C, S)``."""
        chosen = [moves / len(moves) for moves, flag in zip(sides, self.clustered, strict=True) if flag]
        total = np.zeros((max(map(len, chosen), default=0), sides[0].shape[1]))
        for moves in chosen:
            total[: len(moves)] += moves
        return total

    def linear(self, weights: Floats) -> Self:
        """Return the same of ``weights @ scores``, as for :meth:`ScoreCovariance.linear`."""
        return dataclasses.replace(
            self,
            whole=tuple(moves @ weights.T for moves in self.whole),
            halves=tuple(tuple(moves @ weights.T for moves in sides) for sides in self.halves),
            drawn=weights @ self.drawn @ weights.T,
        )

    @classmethod
    def of_sum(
        cls, weights: Sequence[Floats], terms: Sequence[Moves], pairs: Sequence[tuple[int, int]], n_sets: int
    ) -> Self:
        """Return the moves of a weighted sum of scores; those of a row in several terms add up."""

        clustered: dict[int, bool] = {}
        for pair, term in zip(pairs, terms, strict=True):
            clustered |= dict(zip(pair, term.clustered, strict=True))

        def total(sides: Sequence[tuple[Floats, ...]]) -> tuple[Floats, ...]:
            by_set: list[Any] = [0.0] * n_sets
            for weight, pair, moves in zip(weights, pairs, sides, strict=True):
                for position, of_side in zip(pair, moves, strict=True):
                    by_set[position] = by_set[position] + weight * of_side
            return tuple(by_set[position] for position in sorted(clustered))

        drawn = sum(np.outer(w, w) * term.drawn for w, term in zip(map(np.atleast_1d, weights), terms, strict=True))
        halves = tuple(total(sides) for sides in zip(*(term.halves for term in terms), strict=True))
        return cls(
            whole=total([term.whole for term in terms]),
            halves=halves,
            drawn=np.asarray(drawn),
            clustered=tuple(clustered[position] for position in sorted(clustered)),
        )


def by_cluster(moves: tuple[Floats, Floats], clusters: ClustersOfBoth) -> tuple[Floats, Floats]:
    """Return the moves of clusters from those of the rows of both sides; unchanged where rows are independent.

    With n rows, C clusters numbered and K of them present, that of a cluster is C / n times the sum over its rows of
    how far they are from the mean: the C moves, 0 for absent clusters, have a mean whose variance is that of the sums.
    The factor K / (K - 1) is the usual one of cluster-robust variances.
    """

    def summed(of_rows: Floats, ids: Clusters) -> Floats:
        if ids is None:
            return of_rows
        sums = np.zeros((int(ids.max()) + 1, of_rows.shape[1]))
        np.add.at(sums, ids, of_rows - of_rows.mean(axis=0))
        n_present = n_units(len(ids), ids)
        scale = len(sums) / len(ids) * math.sqrt(n_present / max(n_present - 1, 1))
        return np.asarray(scale * sums)

    real, fake = (summed(*side) for side in zip(moves, clusters, strict=True))
    return real, fake


def covariance_between(first: ScoreCovariance, second: ScoreCovariance) -> Floats:
    """Return the covariance ``(S, S)`` of the scores of two groups that have clusters in common.

    The correlations are those of the scores of their parts, or of their moves; the variances those of each group. 0 if
    it is not known what the covariance of a group came from.
    """
    one, other = first.source, second.source
    if isinstance(one, Moves) and isinstance(other, Moves):
        joint = one.between(other)
        found = [source.covariance() for source in (one, other)]
        drawn = [np.diag(source.drawn) for source in (one, other)]
        variances = [np.diag(own.data) - by_draw for own, by_draw in zip(found, drawn, strict=True)]
        raw = [cast(Floats, own.alone) - by_draw for own, by_draw in zip(found, drawn, strict=True)]
    elif isinstance(one, ScoresOfParts) and isinstance(other, ScoresOfParts):
        halves = [source.halves.mean(axis=0) for source in (one, other)]
        size = halves[0].shape[-1]
        moments = covariance_of_parts(np.concatenate(halves, axis=-1))
        joint = moments[:size, size:]
        raw = [np.diag(moments)[:size], np.diag(moments)[size:]]
        variances = [
            np.diag(own.data) - (0.0 if source.unseen is None else source.unseen)
            for own, source in zip((first, second), (one, other), strict=True)
        ]
    else:
        return np.zeros((len(first.data), len(second.data)))
    growth = [
        np.sqrt(np.divide(full, part, out=np.zeros(len(part)), where=part > 0).clip(0.0))
        for full, part in zip(variances, raw, strict=True)
    ]
    return np.asarray(growth[0][:, None] * joint * growth[1])


class Calls(NamedTuple):
    """Calls of a metric, or as much work: how many there are, and how many rows they read in all."""

    n: int
    n_rows: int


def calls_of_covariance(metric: Callable[..., Any], result: MetricResult, n_rows: int) -> Calls:
    """Return what :func:`score_covariance` costs for a result of so many real and fake rows together."""
    if own_variance(metric, result) is not None:
        return Calls(OWN_COST, OWN_COST * n_rows)
    # Each quartering makes three pairs of halves and four quarters; a pair, and the four, have all rows once.
    return Calls(N_CALLS, 4 * N_QUARTERINGS * n_rows)


def score_covariance(
    metric: Callable[..., Any],
    result: Any,
    real: Any,
    fake: Any,
    *,
    rng: np.random.Generator,
    backend: BackendName = "auto",
    n_threads: int | None = None,
    parts: PartsOfBoth | None = None,
    clusters: ClustersOfBoth = (None, None),
    advance: Advance = lambda _: None,
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
    parts
        The halves and quarters of both sets; None draws them.
    clusters
        The cluster of every real and of every fake row. An estimator that does not take ``clusters`` is not used then.
    advance
        Is told of the calls that have been made, in all as many as :func:`calls_of_covariance` says.

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
    both = check_real_fake(to_host(real), to_host(fake))
    real, fake = (points if isinstance(points, np.ndarray) else points[:] for points in both)  # fetched from ranks
    result = as_result(result, callable_name(metric), n_real=len(real), n_fake=len(fake))
    known = metric_of(metric)
    found: ScoreCovariance | None = None
    n_left = calls_of_covariance(metric, result, len(real) + len(fake)).n

    def count() -> None:
        nonlocal n_left
        if n_left > 0:  # an estimator that has no estimate is followed by more calls than were told
            n_left -= 1
            advance(1)

    @functools.cache
    def drawn() -> PartsOfBoth:
        if parts is not None:
            return parts
        of_real, of_fake = draw_all((real, fake), clusters, rng)
        return of_real, of_fake

    variance = own_variance(metric, result)
    if variance is not None:
        accepted = inspect.signature(variance).parameters
        options: dict[str, Any] = {"backend": backend, "n_threads": n_threads, "clusters": clusters}
        options = {name: value for name, value in options.items() if name in accepted}
        if "parts" in accepted:
            options["parts"] = drawn()
        if "clusters" in accepted or all(ids is None for ids in clusters):
            found = variance(result, real, fake, rng, **options)
    elif known is None or known.variance is not None:
        _warn_of_cost(metric, known, result)
    if found is None:
        by_calls = _by_calls(metric, drawn(), result, count).covariance()
        advance(n_left)  # quarters that it refused
        return by_calls
    advance(n_left)
    size = len(result.scores())
    if np.shape(found.data) != (size, size):
        raise TypeError(
            f"the variance estimator of {callable_name(metric)!r} returned a covariance of shape "
            f"{np.shape(found.data)} for {size} scores; expected {(size, size)}, in the order of result.scores()"
        )
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointScores:
    """What the covariance of a sum of scores follows from, where the scores have samples in common."""

    pairs: Sequence[tuple[int, int]]
    n_sets: int
    sources: Sequence[ScoresOfParts] | Sequence[Moves]

    def among(self, positions: Sequence[int]) -> JointScores:
        """Return the same for some of the pairs."""
        sources = cast("Sequence[Moves]", [self.sources[i] for i in positions])
        return dataclasses.replace(self, pairs=[self.pairs[i] for i in positions], sources=sources)

    def covariance(self, weights: Sequence[float | Floats]) -> ScoreCovariance:
        """Return the covariance of ``sum_t weights[t] * scores[t]``; a weight is a number, or one number per score."""
        factors = [np.asarray(weight, dtype=float) for weight in weights]
        if isinstance(self.sources[0], Moves):
            moves = Moves.of_sum(factors, cast("Sequence[Moves]", self.sources), self.pairs, self.n_sets)
            return moves.covariance()
        return ScoresOfParts.of_sum(factors, cast("Sequence[ScoresOfParts]", self.sources)).covariance()

    def covariance_of_sums(self, weights: Floats) -> ScoreCovariance:
        """Return the covariance of K such sums together, ``(K * S, K * S)``; ``weights`` are ``(K, T)``."""
        if isinstance(self.sources[0], Moves):
            moves = cast("Sequence[Moves]", self.sources)
            each = [
                np.kron(of_term[:, None], np.eye(len(one.drawn))) for of_term, one in zip(weights.T, moves, strict=True)
            ]
            terms = [one.linear(factors) for factors, one in zip(each, moves, strict=True)]
            ones: list[Floats] = [np.ones(len(factors)) for factors in each]
            return Moves.of_sum(ones, terms, self.pairs, self.n_sets).covariance()
        sums = [ScoresOfParts.of_sum(list(row), cast("Sequence[ScoresOfParts]", self.sources)) for row in weights]

        def beside(name: str) -> Floats | None:
            values = [getattr(one, name) for one in sums]
            return None if any(value is None for value in values) else np.concatenate(values, axis=-1)

        names = [field.name for field in dataclasses.fields(ScoresOfParts)]
        return ScoresOfParts(**{name: beside(name) for name in names}).covariance()  # type: ignore[arg-type]

    def covariance_of_mean(
        self, weights: Sequence[float | Floats], *, n_rounds: int, n_disjoint: int
    ) -> ScoreCovariance:
        """Return the covariance of the mean of such a sum over ``n_rounds * n_disjoint`` divisions into sets.

        Every round divides the same rows anew, into ``n_disjoint`` times the sets; those of one round have no row in
        common.
        """
        share = self.lasting_share(weights)
        return self.covariance(weights).linear(np.diag(np.sqrt((share + (1.0 - share) / n_rounds) / n_disjoint)))

    def lasting_share(self, weights: Sequence[float | Floats]) -> Floats:
        """Return the share of each score's variance that averaging over random divisions into sets would leave.

        The sets are halves of the real rows and of the fake rows. Dividing the same rows in other ways and averaging
        removes what is due to the division. The scores of parts show it: between divisions of the same sets into
        parts, the mean over the parts varies by that much, and the difference of the parts by all of the variance. For
        a distance, whose variance is L + D with D of the second order, L + D / 4 stays.
        """
        found = self.covariance(weights)
        if found.alone is not None:
            variance = np.diag(found.data)
            doubled = np.divide(found.alone, variance, out=np.ones(len(variance)), where=variance > 0)
            return np.asarray(1.0 - 0.75 * (doubled - 1.0).clip(0.0, 1.0))
        source = cast(ScoresOfParts, found.source)
        halves = source.halves.mean(axis=0)  # (2, C, S)
        total = np.diag(covariance_of_parts(halves))
        by_division = halves.mean(axis=0).var(axis=0, ddof=1)
        share = np.divide(by_division, total, out=np.zeros(len(total)), where=total > 0)
        return np.asarray(1.0 - share.clip(0.0, 1.0))


def joint_scores(
    metric: Callable[..., Any],
    sets: Sequence[Any],
    pairs: Sequence[tuple[int, int]],
    results: Sequence[Any],
    *,
    rng: np.random.Generator,
    backend: BackendName = "auto",
    n_threads: int | None = None,
    clusters: Sequence[Clusters] | None = None,
    advance: Advance = lambda _: None,
) -> JointScores:
    """Estimate how the scores of several pairs of sets vary together.

    Two scores that share a set of samples are correlated. So every set is split into the same halves and quarters in
    every pair, and any sum of the scores varies as the sums of the scores of the parts do.

    Parameters
    ----------
    metric
        As for :func:`score_covariance`.
    sets
        Features; different sets have no row in common.
    pairs
        The real and the fake set of every score, as positions in ``sets``.
    results
        What the metric returned for every pair.
    rng, backend, n_threads, advance
        As for :func:`score_covariance`.
    clusters
        Of every set; sets that have clusters in common vary together for that reason, too.

    Notes
    -----
    Cost: that of :func:`score_covariance` for every pair. A metric whose own estimator does not say what its estimate
    came from (``ScoreCovariance.source``) is called on the parts instead.
    """
    of_sets: Sequence[Clusters] = [None] * len(sets) if clusters is None else clusters
    parts = draw_all(sets, of_sets, rng)
    sources = []
    for (real, fake), result in zip(pairs, results, strict=True):
        options: dict[str, Any] = {"rng": rng, "backend": backend, "n_threads": n_threads, "advance": advance}
        options |= {"parts": (parts[real], parts[fake]), "clusters": (of_sets[real], of_sets[fake])}
        both = parts[real], parts[fake]
        found = score_covariance(metric, result, sets[real], sets[fake], **options)
        sources.append(_by_calls(metric, both, result) if found.source is None else found.source)
    if len({type(source) for source in sources}) > 1:  # a metric refused to estimate for some of the pairs
        sources = [
            _by_calls(metric, (parts[real], parts[fake]), result)
            for (real, fake), result in zip(pairs, results, strict=True)
        ]
    return JointScores(pairs=pairs, n_sets=len(sets), sources=cast("Sequence[Moves]", sources))


def covariance_of_shares(
    source: ScoresOfParts,
    shares: Sequence[float],
    n_points: Sequence[float],
    n_clusters: Sequence[float] | None = None,
) -> ScoreCovariance:
    """Return the covariance of scores that are shares of ``n_points`` points; NaN for a score that is no share.

    ``n_clusters`` says how many clusters these points are in; None if they are independent.

    Where all points count, or none, so they do in all parts, which then show no variance. So every variance is at least
    that of independent points, with two points more of either kind where it would be 0.

    Near 0 and 1, shares are skewed: one that came out too near comes with too small an estimate of its variance. In
    differences that evens out. For a single share we take the variance of halves where it is larger. Then we take the
    points for fewer, in the proportion in which the share varies more than independent points, and add two of either
    kind.
    """
    n = np.maximum(np.asarray(n_points, dtype=float), 1.0)
    is_share = ~np.isnan(shares)
    p = np.where(is_share, shares, 0.0)
    if n_clusters is not None:
        n = effective_sizes(source, p, n, np.asarray(n_clusters, dtype=float))
    found = source.at_least(np.maximum(p * (1.0 - p) / n, share_variance(np.zeros(len(n)), n))).covariance()
    variances = np.diag(found.data)
    alone = np.maximum(variances, np.diag(dataclasses.replace(source, quarters=None).covariance().data))
    n_effective = n * np.minimum(share_variance(p, n) / alone, 1.0)
    alone = np.where(is_share, np.maximum(alone, share_variance(p, n_effective)), variances)
    return dataclasses.replace(found, alone=alone)


def effective_sizes(source: ScoresOfParts, shares: Floats, n_points: Floats, n_clusters: Floats) -> Floats:
    """Return how many independent points would vary as much as these, which are in clusters.

    Between the number of the clusters and that of the points. Where all points count, or none, nothing shows how alike
    those of a cluster are, and it is the number of the clusters.
    """
    independent = shares * (1.0 - shares)
    variances = np.diag(source.covariance().data)
    found = np.divide(independent, variances, out=n_clusters.copy(), where=(independent > 0) & (variances > 0))
    return np.asarray(found.clip(np.minimum(n_clusters, n_points), n_points))


def variance_from_parts(
    metric: Callable[..., Any],
    real: Any,
    fake: Any,
    rng: np.random.Generator,
    *,
    n_quarterings: int = N_QUARTERINGS,
    clusters: ClustersOfBoth = (None, None),
) -> ScoreCovariance:
    """Call ``metric`` on random halves and quarters of both sets, ten times for each of ``n_quarterings`` splits.

    If it refuses quarters with a ValueError, its variance is taken from the halves, as if it fell with 1 / n.
    """
    of_real, of_fake = draw_all((real, fake), clusters, rng, n_quarterings)
    return _by_calls(metric, (of_real, of_fake)).covariance()


def _by_calls(
    metric: Callable[..., Any], parts: PartsOfBoth, result: Any = None, count: Callable[[], object] = lambda: None
) -> ScoresOfParts:
    """Call the metric on all parts. Where all have the same score, one that ``result`` declares as a share may vary."""
    halves, *quarters = scores_of_parts(metric, *parts, count=count)
    source = ScoresOfParts(halves=halves[None], quarters=quarters[0][None] if quarters else None)
    if not isinstance(result, MetricResult):
        return source
    is_share = np.array([score.bounds == (0.0, 1.0) for score in result.describe().values()])
    n = np.full(len(is_share), float(min(result.n_real, result.n_fake)))
    if any(part.clusters is not None for part in parts):
        shares = np.where(is_share, list(result.scores().values()), 0.0)
        least = float(min(n_units(len(part.points), part.clusters) for part in parts))
        n = effective_sizes(source, shares, n, np.full(len(n), least))
    return source.at_least(np.where(is_share, share_variance(np.zeros(len(n)), n), 0.0))


def _at_full_size(covariances: Sequence[Floats]) -> Floats:
    """Covariance at full size from those that halves and quarters give, or halves alone."""
    return covariances[0] if len(covariances) == 1 else extrapolated_covariance(*covariances)


def scores_of_parts(
    metric: Callable[..., Any], real: Subsamples, fake: Subsamples, *, count: Callable[[], object] = lambda: None
) -> list[Floats]:
    """Scores of halves ``(2, 3 Q, S)`` and, unless the metric refuses them, of quarters ``(4, Q, S)``, by calls.

    ``count`` is called after each.
    """

    def scores(n_parts: int, columns: slice) -> Floats:
        by_part: list[dict[str, float]] = []
        for real_parts, fake_parts in zip(real.parts[:, columns].T, fake.parts[:, columns].T, strict=True):
            for part in range(n_parts):
                x, y = take_rows(real.points, real_parts == part), take_rows(fake.points, fake_parts == part)
                with collecting_caveats():  # of a part, which say nothing about the whole
                    value = metric(x, y)
                result = as_result(value, callable_name(metric), n_real=len(x), n_fake=len(y))
                by_part.append(result.scores())
                count()
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


def own_variance(metric: Callable[..., Any], result: MetricResult) -> Callable[..., Any] | None:
    """Return the metric's own estimator if it has one, and the result is of the class that it expects."""
    known = metric_of(metric)
    if known is None:
        return None
    result_class = known.result_class()  # None if its annotation does not say
    return known.variance if result_class is None or isinstance(result, result_class) else None


def _warn_of_cost(metric: Callable[..., Any], known: Metric | None, result: MetricResult) -> None:
    """Warn where an estimator exists but cannot be relied on, so that the metric will be called many times."""
    calls = f"its intervals call it some {N_CALLS} times for each group"
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
