"""What a disparity is: contrasts between groups over a table of scores."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics.labels import group_text
from egtmetrics.results import Score

Floats = NDArray[np.float64]

_SIZE_FACTOR = 2
_PREFIX = "delta_"
_BOTH = ("precision", "recall")
_DELTAS_OF_BOTH = ("delta_p", "delta_r", "delta_pr", "delta_p_plus_delta_r")
"""Of a metric with both scores: Definition 4.1 for each and for their sum, and the sum of the first two."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairDifference:
    """The largest difference between two groups. The groups are None if all scores are equal or the value is NaN."""

    value: float
    larger: Hashable | None
    smaller: Hashable | None
    without: tuple[Hashable, ...] = ()
    """Groups that were left out because they have no score. One of them may be the worst, or the best."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """Contrasts of one kind: ``u_a - u_b`` for all pairs of groups, or ``+u_a`` and ``-u_a`` for every group.

    ``u_a`` is a weighted sum of the scores of group a.
    """

    weights: Mapping[str, float]
    """The weight of each score."""
    between_groups: bool = True

    def combined(self, table: pd.DataFrame) -> pd.Series[float]:
        """Return ``u`` by group."""
        terms = [table[name] if weight == 1.0 else weight * table[name] for name, weight in self.weights.items()]
        return functools.reduce(lambda total, term: total + term, terms)

    def largest(self, table: pd.DataFrame) -> PairDifference:
        """Return the largest contrast and the groups that attain it."""
        combined = self.combined(table).to_dict()
        if self.between_groups:
            return max_pairwise_difference(combined)
        if any(math.isnan(value) for value in combined.values()):
            return PairDifference(value=math.nan, larger=None, smaller=None)
        group = max(combined, key=lambda label: abs(combined[label]))
        value = combined[group]
        return PairDifference(
            value=abs(value), larger=group if value > 0 else None, smaller=group if value < 0 else None
        )

    def limit(self, described: Mapping[str, Score]) -> float:
        """Return the largest contrast that the bounds of the scores allow."""
        ends = [sorted(weight * end for end in described[name].bounds) for name, weight in self.weights.items()]
        low, high = map(sum, zip(*ends, strict=True))
        return high - low if self.between_groups else max(-low, high)

    def contrasts(self, table: pd.DataFrame, left_out: NDArray[np.bool_] | None = None) -> Floats:
        """Return the contrasts of the groups that are not left out, as rows over the flattened table.

        ``(K, groups * scores)``. ``left_out`` has one entry per group; None leaves out none.
        """
        n_groups = len(table)
        kept = np.arange(n_groups) if left_out is None else np.flatnonzero(~left_out)
        weights = np.zeros(table.shape[1])
        for name, weight in self.weights.items():
            weights[table.columns.get_loc(name)] = weight
        of_groups = np.einsum("ga,s->gas", np.eye(n_groups), weights).reshape(n_groups, -1)
        if not self.between_groups:
            return np.concatenate([of_groups[kept], -of_groups[kept]])
        pairs = np.array(list(itertools.permutations(kept, 2)), dtype=np.int64).reshape(-1, 2)
        difference: Floats = of_groups[pairs[:, 0]] - of_groups[pairs[:, 1]]
        return difference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disparity:
    """How unequally groups are treated: the sum over families of their largest contrast, 0 for equal groups.

    Its size, the groups that attain it, its interval and its test all follow from the contrasts.
    """

    name: str
    """The name in results and on the command line, such as ``"delta_p"``."""
    label: str
    """What is compared, for readers: ``"precision"``."""
    families: tuple[Family, ...]
    score: Score
    """The score that is compared; for a sum of several scores, what they have in common."""
    column: str | None = None
    """The score's name in the table; None for a sum of several scores."""

    def of(self, table: pd.DataFrame) -> PairDifference:
        """Evaluate it on a table of scores, one row per group; NaN if a group has none (see ``ScoreTable.gap``).

        Groups are named only for a single family. Several families may be attained by different pairs, or in opposite
        directions.
        """
        found = [family.largest(table) for family in self.families]
        if len(found) == 1:
            return found[0]
        return PairDifference(value=sum(pair.value for pair in found), larger=None, smaller=None)

    def contrasts(self, table: pd.DataFrame, left_out: NDArray[np.bool_] | None = None) -> list[Floats]:
        """Return the contrasts of each family."""
        return [family.contrasts(table, left_out) for family in self.families]

    def limit(self, described: Mapping[str, Score]) -> float:
        """Return the largest value that the bounds of the scores allow: 1 for a difference of shares."""
        return sum(family.limit(described) for family in self.families)

    @property
    def scores(self) -> set[str]:
        """The scores that it compares, by their names in the table."""
        return {name for family in self.families for name in family.weights}

    def lacks(self, missing: pd.DataFrame) -> NDArray[np.bool_]:
        """Return for which groups a score that it compares is missing, from a table of True and False."""
        return missing[sorted(self.scores)].any(axis=1).to_numpy(dtype=bool)

    def worse(self, table: pd.DataFrame, pair: PairDifference) -> Hashable | None:
        """Return which group of ``of(table)`` is worse off; None if they are equal or the score has no direction."""
        if pair.larger is None or pair.smaller is None or len(self.families) > 1:
            return None
        combined = self.families[0].combined(table).to_dict()
        larger, smaller = (self.score.loss(combined[label]) for label in (pair.larger, pair.smaller))
        if math.isnan(larger + smaller) or larger == smaller:
            return None
        return pair.larger if larger > smaller else pair.smaller


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of one metric, one row per group, with their descriptions and disparities."""

    metric: str
    values: pd.DataFrame
    described: Mapping[str, Score]
    disparities: tuple[Disparity, ...]
    caveats: Mapping[Hashable, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Why the scores of a group cannot be relied on, by group; groups without caveats have no entry."""
    sizes: Mapping[Hashable, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """The numbers of real and fake samples by group, if a score depends on them."""
    whole: bool = True
    """Whether these are all scores of the metric; the names of a frame's columns depend on it."""

    @property
    def judged(self) -> tuple[Disparity, ...]:
        """Those that a tolerance bounds: of every single score in the unit of the first one, such as points."""

        def unit(disparity: Disparity) -> tuple[bool, str]:
            return disparity.score.percent, disparity.score.unit

        return tuple(
            one for one in self.disparities if one.column is not None and unit(one) == unit(self.disparities[0])
        )

    @property
    def primary(self) -> Disparity:
        """The one for a single test: Definition 4.1 for the sum of the scores if there is one, else the first."""
        sums = (one for one in self.disparities if one.column is None and len(one.families) == 1)
        return next(sums, self.disparities[0])

    def reliable(self, without: Collection[Hashable] = ()) -> bool:
        """Return whether disparities can be relied on that leave out some groups."""
        return not self.doubt(without)

    def doubt(self, without: Collection[Hashable] = ()) -> str:
        """Say why disparities cannot be relied on; empty if they can.

        With one doubtful group they cannot: it may attain any of them.
        """
        if self.caveats:
            return f"the scores of {listed(map(group_text, self.caveats))} cannot be relied on"
        return self.unequal_sizes(without)

    def unequal_sizes(self, without: Collection[Hashable] = ()) -> str:
        """Say where one group has more than twice the samples of another, if scores depend on that; else nothing."""
        sizes = {label: both for label, both in self.sizes.items() if label not in without}
        found = []
        for side, numbers in zip(("real", "fake"), zip(*sizes.values(), strict=True), strict=bool(sizes)):
            of_side = dict(zip(sizes, numbers, strict=True))
            fewest, most = min(of_side, key=of_side.__getitem__), max(of_side, key=of_side.__getitem__)
            if of_side[most] > _SIZE_FACTOR * of_side[fewest]:
                found.append(
                    f"in their number of {side} samples, from {of_side[fewest]} in group {group_text(fewest)!r} to "
                    f"{of_side[most]} in {group_text(most)!r}"
                )
        return f"the groups differ {' and '.join(found)}" if found else ""

    def gap(self, disparity: Disparity, without: Collection[Hashable] = ()) -> PairDifference:
        """Return a disparity of the groups that have the scores it compares, and name the others; NaN for one group.

        More groups to leave out are in ``without``.
        """
        labels = self.values.index.tolist()
        left_out = disparity.lacks(self.values.isna()) | np.array([label in without for label in labels])
        known = self.values[~left_out]
        missing = tuple(label for label, out in zip(labels, left_out, strict=True) if out)
        if len(known) < 2:
            return PairDifference(value=math.nan, larger=None, smaller=None, without=missing)
        return dataclasses.replace(disparity.of(known), without=missing)

    def column(self, score: str) -> str:
        """Return the name of a score in a frame: the metric's if it has only one score, else ``<metric>_<score>``."""
        return self.metric if self.whole and len(self.described) == 1 else f"{self.metric}_{score}"

    def frame(self) -> pd.DataFrame:
        """Return the scores, with columns named as in a frame."""
        return self.values[list(self.described)].set_axis([self.column(score) for score in self.described], axis=1)


def score_table(
    metric: str,
    values: pd.DataFrame,
    described: Mapping[str, Score],
    caveats: Mapping[Hashable, tuple[str, ...]] | None = None,
    sizes: Mapping[Hashable, tuple[int, int]] | None = None,
) -> ScoreTable:
    """Return scores with every disparity that follows from them; see :func:`disparities_from_scores`.

    ``sizes`` are the numbers of real and fake samples by group.
    """

    def between(name: str, members: Sequence[str], label: str | None = None, *, apart: bool = False) -> Disparity:
        scores = [described[member] for member in members]
        single = scores[0] if len(scores) == 1 else None
        families = [Family(weights={member: 1.0}) for member in members]
        if not apart:
            families = [Family(weights=dict.fromkeys(members, 1.0))]
        text = label or scores[0].label
        return Disparity(
            name=name,
            label=text,
            families=tuple(families),
            score=single or _in_common(text, scores),
            column=None if single is None else members[0],
        )

    disparities: list[Disparity] = []
    others = list(described)
    if set(_BOTH) <= set(described):
        others = [name for name in described if name not in _BOTH]
        p, r, pr, p_plus_r = _DELTAS_OF_BOTH
        disparities = [
            between(p, _BOTH[:1]),
            between(r, _BOTH[1:]),
            between(pr, _BOTH, "precision + recall"),
            between(p_plus_r, _BOTH, "precision gap + recall gap", apart=True),
        ]
    disparities += [between(f"{_PREFIX}{name}", [name]) for name in others]
    found = {group: texts for group, texts in (caveats or {}).items() if texts}
    return ScoreTable(
        metric=metric,
        values=values,
        described=described,
        disparities=tuple(disparities),
        caveats=found,
        sizes=(sizes or {}) if any(score.depends_on_size for score in described.values()) else {},
    )


def disparity_table(tables: Mapping[str, ScoreTable]) -> pd.DataFrame:
    """Return every disparity of some tables, as ``GenerativeMetricFrame.disparities`` describes."""
    rows = {
        (metric, disparity.name): table.gap(disparity)
        for metric, table in tables.items()
        for disparity in table.disparities
    }
    reliable = [tables[metric].reliable(pair.without) for (metric, _), pair in rows.items()]
    index = pd.MultiIndex.from_tuples(rows, names=["metric", "disparity"])
    columns = {
        "value": pd.Series([pair.value for pair in rows.values()], index=index, dtype=float),
        "larger": pd.Series([pair.larger for pair in rows.values()], index=index, dtype=object),
        "smaller": pd.Series([pair.smaller for pair in rows.values()], index=index, dtype=object),
        "reliable": pd.Series(reliable, index=index, dtype=bool),
        "without": pd.Series([pair.without for pair in rows.values()], index=index, dtype=object),
    }
    return pd.DataFrame(columns)


def scores_behind(disparities: Sequence[str]) -> list[str]:
    """Return the scores whose :func:`score_table` has these disparities, in some order."""
    of_both = set(_DELTAS_OF_BOTH) <= set(disparities)
    others = [name for name in disparities if not (of_both and name in _DELTAS_OF_BOTH)]
    return [*(_BOTH if of_both else ()), *(name.removeprefix(_PREFIX) for name in others)]


def _in_common(label: str, scores: Sequence[Score]) -> Score:
    first = scores[0]
    directions = {score.better for score in scores if isinstance(score.better, str)}
    return Score(
        label=label,
        better=first.better if len(directions) == 1 and all(isinstance(s.better, str) for s in scores) else None,
        percent=all(score.percent for score in scores),
        unit=first.unit if len({score.unit for score in scores}) == 1 else "",
    )


_PROPORTION = Score(label="proportion", bounds=(0.0, 1.0), percent=True, depends_on_size=False)
MGO = Disparity(
    name="mgo",
    label="proportions, generated against real",
    families=(Family(weights={"real_proportion": -1.0, "fake_proportion": 1.0}, between_groups=False),),
    score=_PROPORTION,
)
"""Matching generative odds (Definition 2.2): ``max_a |pi_a^Q - pi_a^P|``. One group attains it. It is named as the
larger one if the fake samples hold too much of it, and as the smaller one if they hold too little."""
EGO = Disparity(
    name="ego",
    label="proportions of the generated samples",
    families=(Family(weights={"fake_proportion": 1.0}),),
    score=_PROPORTION,
)
"""Equalized generative odds (Definition 2.2): ``max over pairs |pi_a^Q - pi_b^Q|``."""


def proportion_table(counts: pd.DataFrame) -> ScoreTable:
    """Return the proportions in a table from :meth:`GroupedSamples.counts`, with MGO and EGO."""
    columns = ["real_proportion", "fake_proportion"]
    return ScoreTable(
        metric="proportions",
        values=counts[columns],
        described=dict.fromkeys(columns, _PROPORTION),
        disparities=(MGO, EGO),
    )


def max_pairwise_difference(scores: Mapping[Hashable, float]) -> PairDifference:
    """Return the largest difference in a score between two groups, ``max over pairs |s_a - s_b|``.

    This is the smallest delta of Definition 4.1: Q and P satisfy delta-EGT for it and every larger one, and 0 means
    equal treatment. The value has the unit of the score. If groups are tied, the first is named.

    Parameters
    ----------
    scores
        Score by group label, for at least two groups. A NaN makes the result NaN, because that group might be the
        worst one; leave it out if you say so. Scores that are all infinite with the same sign do the same.

    Raises
    ------
    ValueError
        If there are fewer than two groups.

    Notes
    -----
    Source: Definition 4.1 of the EGT paper. The maximum over pairs is the maximum minus the minimum, so the cost is
    linear in the number of groups.

    Examples
    --------
    >>> max_pairwise_difference({"f": 0.75, "m": 0.5, "x": 0.625})
    PairDifference(value=0.25, larger='f', smaller='m', without=())
    """
    if len(scores) < 2:
        raise ValueError(f"scores has {len(scores)} groups, but a difference needs two; check the group labels")
    values = {group: float(score) for group, score in scores.items()}
    if any(math.isnan(value) for value in values.values()):
        return PairDifference(value=math.nan, larger=None, smaller=None)
    larger, smaller = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    difference = values[larger] - values[smaller]
    if not difference > 0:
        return PairDifference(value=difference, larger=None, smaller=None)
    return PairDifference(value=difference, larger=larger, smaller=smaller)


def disparities_from_scores(scores: pd.DataFrame) -> dict[str, PairDifference]:
    """Return every disparity that follows from a table of scores by group.

    With precision P and recall R in the table::

        delta_p              = max over pairs |P_a - P_b|
        delta_r              = max over pairs |R_a - R_b|
        delta_pr             = max over pairs |(P_a + R_a) - (P_b + R_b)|
        delta_p_plus_delta_r = delta_p + delta_r

    and ``delta_<score> = max over pairs |s_a - s_b|`` for every other score. ``delta_pr`` is Definition 4.1 for the
    divergence P + R, in which opposite differences cancel. In ``delta_p_plus_delta_r`` they add up; Tables 2 and 8 of
    the paper print it under the name delta-PR. ``delta_pr`` is never the larger of the two.

    Parameters
    ----------
    scores
        One row per group, one column per score. A group with NaN is left out of the disparities of that score, and
        named in their ``without``.

    Returns
    -------
    dict
        Disparities by name. ``delta_p_plus_delta_r`` names no groups: its two terms may come from different pairs, or
        point in opposite directions.

    Raises
    ------
    ValueError
        If there are fewer than two groups, or two rows for one group.

    Examples
    --------
    The first row of the paper's Table 8, in percentage points:

    >>> scores = pd.DataFrame({"precision": [55.68, 76.86], "recall": [77.03, 65.57]}, index=["male", "female"])
    >>> for name, disparity in disparities_from_scores(scores).items():
    ...     print(name, round(disparity.value, 2), disparity.larger)
    delta_p 21.18 female
    delta_r 11.46 male
    delta_pr 9.72 female
    delta_p_plus_delta_r 32.64 None
    """
    if not scores.index.is_unique:
        raise ValueError(
            f"scores has two rows for one group: its index is {listed(map(repr, scores.index.tolist()))}; pass one row "
            "per group"
        )
    table = score_table("", scores, {str(name): Score(label=str(name)) for name in scores})
    return {disparity.name: table.gap(disparity) for disparity in table.disparities}
