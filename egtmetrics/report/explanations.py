"""What the page shows besides scores: where a divergence comes from, and the samples farthest from the real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_level, check_positive_int, take_checked
from egtmetrics.divergences import decompose, f_divergence
from egtmetrics.divergences.codebook import quantize
from egtmetrics.divergences.decomposition import Decomposition
from egtmetrics.ops import BackendName, select_backend, take_rows
from egtmetrics.samples import GroupedSamples


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecomposedSamples:
    """What :func:`decompose_samples` returns."""

    decomposition: Decomposition
    """The squared Hellinger distance of the histograms, over groups."""
    chance: dict[Hashable, float]
    """For each group with samples on both sides: two samples of one distribution have a smaller distance than this with
    probability ``level``."""
    level: float
    n_clusters: int
    n_permutations: int


def decompose_samples(
    samples: GroupedSamples,
    *,
    n_clusters: int | None = None,
    n_permutations: int = 1000,
    level: float = 0.95,
    random_state: RandomState = None,
) -> DecomposedSamples:
    r"""Split the squared Hellinger distance between quantised real and fake samples over groups.

    Histograms over the pairs (cluster, group) are decomposed by :func:`~egtmetrics.divergences.decompose`:

    .. math::

        H^2(P \| Q) = H^2(\pi^P \| \pi^Q) + \sum_a \sqrt{\pi_a^P \pi_a^Q} \; H^2(P_a \| Q_a), \quad
        H^2(p \| q) = \sum_k (\sqrt{p_k} - \sqrt{q_k})^2,

    from 0 (equal) to 2 (nothing in common). Few f-divergences split over groups like this; the squared Hellinger
    distance also stays finite where a cluster has samples of one side only.

    Parameters
    ----------
    samples
        Both sides with their groups. Rows in no group are left out.
    n_clusters
        K of k-means on both sets. None means the cube root of the smallest number of samples that a group has on a
        side, rounded, and at least 2.
    n_permutations
        For ``chance``, real and fake samples of a group are exchanged at random this often.
    level
        ``chance`` is this quantile of the distances after the exchanges.
    random_state
        Seed of k-means and of the exchanges.

    Raises
    ------
    ValueError
        Options out of range, or fewer distinct rows than clusters.

    Notes
    -----
    Histograms of two samples differ even if their distributions are equal, and more so for small samples; ``chance``
    says by how much. The exchange is exact: the clusters depend on both sets together only, so if the distributions are
    equal, every assignment of a group's rows to the two sides is equally likely. Cost: k-means, O((n + m) K d) a round;
    O(K n_permutations) a group.

    References
    ----------
    Lemma A.2 of the EGT paper, without its matching odds: see :func:`~egtmetrics.divergences.decompose`.

    Examples
    --------
    >>> labels = ["f"] * 10 + ["m"] * 10
    >>> samples = GroupedSamples(
    ...     real=[[0.0]] * 10 + [[1.0]] * 10, fake=[[0.0]] * 5 + [[1.0]] * 15,
    ...     real_sensitive_features=labels, fake_sensitive_features=labels)
    >>> result = decompose_samples(samples, n_clusters=2, random_state=0)
    >>> {group: round(distance, 3) for group, distance in result.decomposition.by_group.items()}
    {'f': 0.586, 'm': 0.0}
    """
    n_permutations = check_positive_int(n_permutations, "n_permutations")
    level = check_level(level)
    rng = check_random_state(random_state)
    groups = samples.groups
    host = samples.on(None)
    sides = [
        (take_checked(features, np.flatnonzero(ids >= 0)), ids[ids >= 0])
        for features, ids in ((host.real, groups.real_ids), (host.fake, groups.fake_ids))
    ]
    if n_clusters is None:
        sizes = groups.counts()[["n_real", "n_fake"]].to_numpy()
        n_clusters = max(2, round(float(sizes[sizes > 0].min()) ** (1 / 3)))
    codebook = quantize(sides[0][0], sides[1][0], n_clusters=n_clusters, random_state=rng)
    n_groups = len(groups.index)
    counts = [
        np.bincount(ids * n_clusters + codes, minlength=n_groups * n_clusters).reshape(n_groups, n_clusters)
        for (_, ids), codes in zip(sides, (codebook.real_codes, codebook.fake_codes), strict=True)
    ]
    p, q = (table.ravel() / table.sum() for table in counts)
    positions = np.repeat(np.arange(n_groups), n_clusters)
    labels = groups.index.tolist()
    chance = {
        labels[a]: _chance(counts[0][a], counts[1][a], n_permutations, level, rng)
        for a in range(n_groups)
        if counts[0][a].any() and counts[1][a].any()
    }
    return DecomposedSamples(
        decomposition=_relabelled(decompose(p, q, positions, f="hellinger"), labels),
        chance=chance,
        level=level,
        n_clusters=n_clusters,
        n_permutations=n_permutations,
    )


def _relabelled(decomposition: Decomposition, labels: list[Hashable]) -> Decomposition:
    """Give the groups their labels: positions went in, because a tuple would not pass for one label."""
    renamed: dict[str, Any] = {
        field.name: {labels[a]: value for a, value in values.items()}
        for field in dataclasses.fields(decomposition)
        if isinstance(values := getattr(decomposition, field.name), dict)
    }
    return dataclasses.replace(decomposition, **renamed)


def _chance(
    real: NDArray[np.int64], fake: NDArray[np.int64], n_permutations: int, level: float, rng: np.random.Generator
) -> float:
    both = real + fake
    drawn = rng.multivariate_hypergeometric(both, int(real.sum()), size=n_permutations, method="marginals")
    distances = f_divergence(drawn / real.sum(), (both - drawn) / fake.sum(), f="hellinger")
    return float(np.quantile(distances, level, method="higher"))


def rank_samples(
    samples: GroupedSamples,
    *,
    n_samples: int = 4,
    n_neighbors: int = 5,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> pd.DataFrame:
    r"""Find the fake samples of each group that lie farthest from and nearest to the real samples of the same group.

    The score of a fake sample y of group a is its distance to the k-th nearest real sample of the group, divided by the
    median of such distances among the real samples:

    .. math::

        s(y) = |y - x_{(k)}(y)| \; / \; \operatorname{median}_{i \in a} |x_i - x_{(k)}(x_i)|,

    where a real sample is not its own neighbour. It is about 1 for a sample like the real ones, and more for one that
    lies apart.

    Parameters
    ----------
    samples
        Both sides with their groups.
    n_samples
        How many of the farthest, and of the nearest; at most half of the group each.
    n_neighbors
        k. A group with too few real samples uses their number less one.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Returns
    -------
    DataFrame
        One row per sample, with the columns ``group``, ``end`` (``"farthest"`` or ``"nearest"``), ``row`` of
        ``samples.fake`` and ``score``. The farthest come first, then the nearest. Of equal scores the lower row comes
        first. A group has no rows if it has fewer than two fake or two real samples, or if half of its real samples
        have k copies.

    Raises
    ------
    ValueError
        Options out of range.

    Notes
    -----
    A score far below 1 may mean a copy of training data. Time O(sum over groups of (n_a + m_a) n_a d).

    Examples
    --------
    >>> samples = GroupedSamples(
    ...     real=[[0.0], [1.0], [2.0], [9.0], [9.5]], fake=[[1.0], [8.0], [4.0]],
    ...     real_sensitive_features=list("fffmm"), fake_sensitive_features=list("fff"))
    >>> rank_samples(samples, n_neighbors=1, n_samples=1).to_dict("list")
    {'group': ['f', 'f'], 'end': ['farthest', 'nearest'], 'row': [1, 0], 'score': [6.0, 0.0]}
    """
    n_samples = check_positive_int(n_samples, "n_samples")
    n_neighbors = check_positive_int(n_neighbors, "n_neighbors")
    kernels = select_backend(backend, n_threads=n_threads, features=(samples.real, samples.fake))
    samples = samples.on(kernels.device)
    groups = samples.groups
    found = []
    for a, label in enumerate(groups.index.tolist()):
        of_real, rows = (
            take_rows(samples.real, np.flatnonzero(groups.real_ids == a)),
            np.flatnonzero(groups.fake_ids == a),
        )
        k, n = min(n_neighbors, len(of_real) - 1), min(n_samples, len(rows) // 2)
        if k < 1 or n < 1:
            continue
        usual = float(np.median(np.sqrt(kernels.kth_neighbor(of_real, n_neighbors=k))))
        if usual == 0.0:
            continue
        scores = np.sqrt(kernels.kth_neighbor(take_rows(samples.fake, rows), of_real, n_neighbors=k)) / usual
        for end, order in (
            ("farthest", np.argsort(-scores, kind="stable")),
            ("nearest", np.argsort(scores, kind="stable")),
        ):
            found += [(label, end, int(rows[i]), float(scores[i])) for i in order[:n]]
    columns = ["group", "end", "row", "score"]
    return pd.DataFrame(
        dict(zip(columns, map(list, zip(*found, strict=True)), strict=True)) if found else {}, columns=columns
    )
