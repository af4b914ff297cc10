"""Disparities between groups as pure functions of the groups' scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping

import pandas as pd


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairDifference:
    """The largest difference between two groups. ``None`` stands for no such group: all equal, or not a number."""

    value: float
    larger: Hashable | None
    smaller: Hashable | None


def max_pairwise_difference(scores: Mapping[Hashable, float]) -> PairDifference:
    """Return the largest difference of a score between two groups, ``max over pairs |s_a - s_b|``.

    This is the smallest delta of Definition 4.1: Q and P satisfy delta-EGT for it and every larger one, and 0 means
    equal treatment. The value has the units of the score. Of tied groups the first is named.

    Parameters
    ----------
    scores
        Score by group label, for at least two groups. A NaN among them makes the result NaN, because that group might
        be the worst one; so do scores that are all infinite, with one sign.

    Raises
    ------
    ValueError
        With fewer than two groups.

    Notes
    -----
    Source: Definition 4.1 of the EGT paper; the maximum over pairs is maximum minus minimum, so the cost is linear in
    the number of groups.

    Examples
    --------
    >>> max_pairwise_difference({"f": 0.75, "m": 0.5, "x": 0.625})
    PairDifference(value=0.25, larger='f', smaller='m')
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
    divergence P + R, in which opposite differences cancel; ``delta_p_plus_delta_r``, in which they add up, is what
    Tables 2 and 8 of the paper print under the name delta-PR. ``delta_pr`` is never the larger of the two.

    Parameters
    ----------
    scores
        One row per group, one column per score.

    Returns
    -------
    dict
        By name. ``delta_p_plus_delta_r`` names no groups: its two parts may come from different pairs, or point in
        opposite directions.

    Raises
    ------
    ValueError
        With fewer than two groups, or two rows for one group.

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
            f"scores has two rows for one group: its index is {scores.index.tolist()}; pass one row per group"
        )
    disparities: dict[str, PairDifference] = {}
    others = scores
    if "precision" in scores and "recall" in scores:
        precision, recall = scores["precision"], scores["recall"]
        others = scores.drop(columns=["precision", "recall"])
        delta_p, delta_r = max_pairwise_difference(precision.to_dict()), max_pairwise_difference(recall.to_dict())
        disparities = {
            "delta_p": delta_p,
            "delta_r": delta_r,
            "delta_pr": max_pairwise_difference((precision + recall).to_dict()),
            "delta_p_plus_delta_r": PairDifference(value=delta_p.value + delta_r.value, larger=None, smaller=None),
        }
    return disparities | {f"delta_{name}": max_pairwise_difference(others[name].to_dict()) for name in others}


def proportion_disparities(counts: pd.DataFrame) -> dict[str, PairDifference]:
    """Return ``mgo`` and ``ego`` (Definition 2.2) of a table with the columns real_proportion and fake_proportion.

    ``mgo`` is attained by one group, named under ``larger`` where the fake samples hold too much of it and under
    ``smaller`` where they hold too little.
    """
    excess = (counts["fake_proportion"] - counts["real_proportion"]).to_dict()
    group = max(excess, key=lambda label: abs(excess[label]))
    mgo = PairDifference(
        value=abs(excess[group]),
        larger=group if excess[group] > 0 else None,
        smaller=group if excess[group] < 0 else None,
    )
    return {"mgo": mgo, "ego": max_pairwise_difference(counts["fake_proportion"].to_dict())}
