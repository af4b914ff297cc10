"""Equal numbers of real and fake samples, group by group."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_real_fake
from egtmetrics.groups._assignment import Groups, assign_groups
from egtmetrics.ops import Features, common_device, take_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchedSamples:
    """What :func:`match_sizes` keeps of two sets; its first four fields are arguments of a GenerativeMetricFrame."""

    real: Features
    fake: Features
    real_sensitive_features: pd.DataFrame
    """Labels of the kept real rows, one column per sensitive feature."""
    fake_sensitive_features: pd.DataFrame
    real_rows: NDArray[np.int64]
    """Ascending positions of the kept rows in the ``real`` that was passed."""
    fake_rows: NDArray[np.int64]
    unassigned: dict[str, int]
    """Number of ``"real"`` and ``"fake"`` rows dropped because they belong to no group."""


def match_sizes(
    real: Any,
    fake: Any,
    *,
    real_sensitive_features: Any,
    fake_sensitive_features: Any,
    across_groups: bool = False,
    random_state: RandomState = None,
) -> MatchedSamples:
    """Subsample, in every group, the side with more samples to the size of the other one.

    Group a keeps ``min(n_a, m_a)`` of its real and of its fake samples, drawn without replacement. Metrics depend on
    the numbers of samples they see, so the paper evaluates every group with as many real as fake samples.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)``. Where a CUDA backend could take them, tensors on a device stay there.
    real_sensitive_features, fake_sensitive_features
        One label per row, or several, whose intersections are then the groups. Rows labelled None or NaN have no group
        to be matched in: they are dropped and counted.
    across_groups
        Keep the same number in all groups, that of the smallest, so that scores of different groups can be compared
        as well.
    random_state
        Which rows are kept depends on it and on which rows share a group, not on how the groups are called.

    Returns
    -------
    MatchedSamples
        The kept rows, in their original order.

    Raises
    ------
    ValueError
        If a group is missing on one side, or the samples or labels are invalid.
    TypeError
        If features are no numbers or labels are of mixed types.

    Notes
    -----
    Cost: linear in the number of samples; the kept rows are copied. Source: the paper's protocol, appendix B.3.3, "20k
    generated samples per class with a matched number of real samples per class".

    Examples
    --------
    >>> matched = match_sizes(
    ...     [[0.0], [1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]], random_state=0,
    ...     real_sensitive_features=["f", "f", "f", "m"], fake_sensitive_features=["m", "f", "m"])
    >>> matched.real_sensitive_features["group"].tolist(), matched.fake_sensitive_features["group"].tolist()
    (['f', 'm'], ['f', 'm'])
    """
    real, fake = check_real_fake(real, fake, device=common_device(real, fake))
    groups = assign_groups(real_sensitive_features, fake_sensitive_features, n_real=len(real), n_fake=len(fake))
    groups.check_present("set its labels to None to leave it out")
    sizes = groups.counts()[["n_real", "n_fake"]].min(axis=1).to_numpy()
    if across_groups:
        sizes = np.full_like(sizes, sizes.min())
    rng = check_random_state(random_state)
    real_rows, fake_rows = (_draw(ids, sizes, rng) for ids in (groups.real_ids, groups.fake_ids))
    return MatchedSamples(
        real=take_rows(real, real_rows),
        fake=take_rows(fake, fake_rows),
        real_sensitive_features=_labels(groups, groups.real_ids[real_rows]),
        fake_sensitive_features=_labels(groups, groups.fake_ids[fake_rows]),
        real_rows=real_rows,
        fake_rows=fake_rows,
        unassigned=groups.unassigned(),
    )


def _draw(ids: NDArray[np.int64], sizes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows to keep: the first ``sizes[g]`` of each group g in one random order of all rows."""
    order = rng.permutation(len(ids))
    order = order[ids[order] >= 0]
    rank = pd.Series(ids[order]).groupby(ids[order]).cumcount().to_numpy()
    return np.sort(order[rank < sizes[ids[order]]])


def _labels(groups: Groups, ids: NDArray[np.int64]) -> pd.DataFrame:
    return groups.index.to_frame(index=False).iloc[ids].reset_index(drop=True)
