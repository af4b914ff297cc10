"""Real and generated samples with their groups, as one value."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_real_fake, keep_checked, take_checked
from egtmetrics.labels import Groups, assign_groups, number_clusters
from egtmetrics.ops import Features, Prepared, common_device

Rows = NDArray[np.int64]

ENOUGH_CLUSTERS = 20
"""With fewer in a group, errors are not known well: a caveat says so."""


@dataclasses.dataclass(frozen=True, eq=False, init=False, repr=False)
class GroupedSamples:
    """Real and generated features and the group of every row, checked once and never changed.

    Every method that selects or relabels rows returns new samples.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder, arrays or tensors; real features also as a
        :class:`egtmetrics.Reference`, which has the labels of its rows, too. CUDA tensors stay on their device if the
        kernels can run there. Nothing is copied unless dtype or layout require it. The arrays are passed on read-only.
    real_sensitive_features, fake_sensitive_features
        One label per row, as a sequence. Or several labels per row, as a DataFrame, a mapping of names to sequences or
        an ``(n, s)`` array; the groups are then their intersections. A row whose label is missing is in no group:
        None, NaN, NA, a masked value or an empty text, and the words that software writes for them, such as ``"NA"``
        or ``"nan"`` (with a :class:`egtmetrics.groups.MissingLabelWarning`). A number such as -1 is a group.
    real_clusters, fake_clusters
        One label per row that is the same for rows that vary together: images of one prompt, photos of one person. A
        label on both sides, or in several groups, is the same cluster. None if the rows are independent. Intervals and
        tests then divide and permute whole clusters.
    real_control_features, fake_control_features
        What groups may be made of in other shares, such as the object that an image shows: one label per row, or
        several, as for the sensitive features. Their combinations are the strata within which
        ``GenerativeMetricFrame.controlled`` compares groups. Pass both or neither.

    Attributes
    ----------
    real, fake
        The features.
    groups : Groups
        The groups of both sides, and the group of every row.
    real_rows, fake_rows : array of int, or None
        Which rows of the original samples these are, in ascending order; None for all of them.
    max_samples : int or None
        The largest number of rows per group and side that a stream kept; None if it kept all.
    clusters : tuple
        By side, the cluster of every row as a position in ``cluster_labels``; None for a side without clusters.
    cluster_labels : tuple
        The labels of the clusters of both sides.
    strata : Groups or None
        The combinations of control features, and that of every row.

    Raises
    ------
    ValueError
        If the features are not finite ``(n, d)`` arrays, differ in d, or do not match their labels in number, or if a
        side has no labels. If clusters are not one label per row, or only one cluster.
    TypeError
        If the features are not numbers, or labels have mixed types.

    Notes
    -----
    Cost: one pass over the features. Metrics do not check them again.

    Examples
    --------
    >>> samples = GroupedSamples(
    ...     real=[[0.0], [1.0], [2.0], [3.0]], fake=[[4.0], [5.0], [6.0]],
    ...     real_sensitive_features=["f", "f", "f", "m"], fake_sensitive_features=["m", "f", "m"])
    >>> samples
    GroupedSamples: 4 real and 3 fake samples, 1 feature; groups: f (3 real, 1 fake), m (1 real, 2 fake)
    >>> samples.group("m").fake.ravel().tolist()
    [4.0, 6.0]
    """

    real: Features
    fake: Features
    groups: Groups
    real_rows: Rows | None
    fake_rows: Rows | None
    max_samples: int | None
    clusters: tuple[Rows | None, Rows | None]
    cluster_labels: tuple[Hashable, ...]
    strata: Groups | None
    _overall: tuple[Rows | None, Rows | None]
    _seen: tuple[pd.DataFrame, dict[str, int], list[NDArray[np.float64]] | None] | None

    def __init__(
        self,
        *,
        real: Any,
        fake: Any,
        real_sensitive_features: Any = None,
        fake_sensitive_features: Any,
        real_clusters: Any = None,
        fake_clusters: Any = None,
        real_control_features: Any = None,
        fake_control_features: Any = None,
    ) -> None:
        real_sensitive_features = labels_of(real, real_sensitive_features)
        checked_real, checked_fake = check_real_fake(real, fake, device=common_device(real, fake))
        groups = assign_groups(
            real_sensitive_features, fake_sensitive_features, n_real=len(checked_real), n_fake=len(checked_fake)
        )
        clusters, cluster_labels = number_clusters(
            {"real_clusters": (real_clusters, len(checked_real)), "fake_clusters": (fake_clusters, len(checked_fake))}
        )
        strata = None
        if (real_control_features is None) != (fake_control_features is None):
            missing = "real_control_features" if real_control_features is None else "fake_control_features"
            raise TypeError(f"{missing} is missing; pass the control features of both sides, or of neither")
        if real_control_features is not None:
            strata = assign_groups(
                real_control_features,
                fake_control_features,
                n_real=len(checked_real),
                n_fake=len(checked_fake),
                what="control_features",
            )
            if list(strata.index.names) == ["group"]:  # an array, which has no name
                strata = dataclasses.replace(strata, index=strata.index.rename("stratum"))
        self._set(
            real=keep_checked(checked_real),
            fake=keep_checked(checked_fake),
            groups=groups,
            real_rows=None,
            fake_rows=None,
            max_samples=None,
            clusters=tuple(clusters),
            cluster_labels=cluster_labels,
            strata=strata,
            _overall=(None, None),
            _seen=None,
        )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _with(self, **changes: Any) -> Self:
        other = object.__new__(type(self))
        other._set(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | changes)
        return other

    def __repr__(self) -> str:
        d = self.real.shape[1]
        sizes = self.groups.counts()
        parts = [
            f"{self.groups.name(label)} ({n} real, {m} fake)"
            for label, n, m in zip(self.groups.index, sizes["n_real"], sizes["n_fake"], strict=True)
        ]
        shown = parts if len(parts) <= 10 else [*parts[:9], f"and {len(parts) - 9} more"]
        return (
            f"{type(self).__name__}: {len(self.real)} real and {len(self.fake)} fake samples, {d} "
            f"feature{'s' if d > 1 else ''}; groups: {', '.join(shown)}{self._shown_clusters()}"
        )

    def _shown_clusters(self) -> str:
        shown = [f"{n} {side}" for side, n in self.n_clusters().items()]
        return f"; clusters: {', '.join(shown)}" if shown else ""

    def n_clusters(self) -> dict[str, int]:
        """Count the clusters of each side that has any."""
        sides = zip(("real", "fake"), self.clusters, strict=True)
        return {side: len(np.unique(ids)) for side, ids in sides if ids is not None}

    def units(self) -> dict[Hashable, int] | None:
        """Count the samples, or the clusters, of each group on the side that has fewer; None without clusters."""
        if not self.n_clusters():
            return None
        sides = list(zip((self.groups.real_ids, self.groups.fake_ids), self.clusters, strict=True))
        return {
            label: min(
                int(np.sum(ids == position)) if clusters is None else len(np.unique(clusters[ids == position]))
                for ids, clusters in sides
            )
            for position, label in enumerate(self.groups.index)
        }

    def cluster_caveats(self) -> tuple[str, ...]:
        """Say for which sides there are too few clusters for errors that can be relied on."""
        return tuple(
            f"the {side} samples are in {n} cluster{'s' if n > 1 else ''}, and errors are known from {ENOUGH_CLUSTERS} "
            "on; add clusters"
            for side, n in self.n_clusters().items()
            if n < ENOUGH_CLUSTERS
        )

    def _cells(self) -> list[Rows]:
        """Return the number of every row's stratum and group together, by side; -1 for a row that has not both."""
        cells = [self.groups.real_ids, self.groups.fake_ids]
        if self.strata is None:
            return cells
        return [
            np.where((of_strata < 0) | (of_groups < 0), -1, of_strata * len(self.groups.index) + of_groups)
            for of_strata, of_groups in zip((self.strata.real_ids, self.strata.fake_ids), cells, strict=True)
        ]

    def cell_sizes(self) -> dict[Hashable, tuple[int, int]]:
        """Return how many real and fake samples each group has, by its label.

        With control features the same of every group in every stratum, by ``(stratum, group)``.
        """
        labels: list[Hashable] = self.groups.index.tolist()
        if self.strata is not None:
            labels = list(itertools.product(self.strata.index.tolist(), labels))
        real, fake = (np.bincount(ids[ids >= 0], minlength=len(labels)).tolist() for ids in self._cells())
        return dict(zip(labels, zip(real, fake, strict=True), strict=True))

    def share_clusters(self, *, strata: bool = False) -> bool:
        """Return whether rows of several groups are in one cluster, so that the scores of groups vary together.

        With ``strata``, rows of one group in several strata count, too.
        """
        members = self._cells() if strata else [self.groups.real_ids, self.groups.fake_ids]
        pairs = [
            np.stack([ids[cells >= 0], cells[cells >= 0]], axis=1)
            for ids, cells in zip(self.clusters, members, strict=True)
            if ids is not None
        ]
        return bool(pairs) and _in_several(np.concatenate(pairs))

    @property
    def real_sensitive_features(self) -> pd.DataFrame:
        """Labels of the real rows, one column per sensitive feature; None in a row without a group."""
        return self.groups.labels(self.groups.real_ids)

    @property
    def fake_sensitive_features(self) -> pd.DataFrame:
        """Labels of the fake rows."""
        return self.groups.labels(self.groups.fake_ids)

    def counts(self) -> pd.DataFrame:
        """Count the samples of every group and add the proportions: those of all samples, before any were left out.

        The proportions are those of what was generated, so matching sizes does not change them, and a stream counts all
        it saw. ``groups.counts()`` counts the rows that are left.
        """
        return (self.groups.counts() if self._seen is None else self._seen[0]).copy()

    def unassigned(self) -> dict[str, int]:
        """Count the rows of each side that are in no group, before any were left out."""
        return dict(self.groups.unassigned() if self._seen is None else self._seen[1])

    def proportion_covariances(self) -> list[NDArray[np.float64]]:
        """Return the covariances of the proportions of the groups, ``(G, G)`` of each side, as ``counts`` has them.

        Multinomial; where samples come in clusters, from what each cluster adds to the proportions.
        """
        if self._seen is not None and self._seen[2] is not None:
            return self._seen[2]
        counts, found = self.counts(), []
        group_ids = (self.groups.real_ids, self.groups.fake_ids)
        for side, ids, clusters in zip(("real", "fake"), group_ids, self.clusters, strict=True):
            p, n = counts[f"{side}_proportion"].to_numpy(), counts[f"n_{side}"].sum()
            if clusters is None:
                found.append(multinomial_covariance(p, n))
                continue
            assigned = ids >= 0
            _, inverse, sizes = np.unique(clusters[assigned], return_inverse=True, return_counts=True)
            moves = -np.outer(sizes, p)
            np.add.at(moves, (inverse, ids[assigned]), 1.0)
            found.append(moves.T @ moves / n**2 * (len(sizes) / max(len(sizes) - 1, 1)))
        return found

    def group(self, label: Hashable) -> Self:
        """Return the samples of one group."""
        position = self.groups.position(label)
        real_rows, fake_rows = (np.flatnonzero(ids == position) for ids in (self.groups.real_ids, self.groups.fake_ids))
        return self.take(real_rows, fake_rows)

    def stratum(self, label: Hashable) -> Self:
        """Return the samples of one stratum: of one combination of control features."""
        if self.strata is None:
            raise ValueError(
                "the samples have no strata; pass real_control_features and fake_control_features with them"
            )
        position = self.strata.position(label)
        return self.take(*(np.flatnonzero(ids == position) for ids in (self.strata.real_ids, self.strata.fake_ids)))

    def overall(self) -> tuple[Features, Features]:
        """Return the features for overall scores: every row, including those in no group.

        For a stream with ``max_samples`` this is a uniform sample of the rows: groups were not kept in proportion.
        """
        real, fake = (
            side if rows is None else take_checked(side, rows)
            for side, rows in zip((self.real, self.fake), self._overall, strict=True)
        )
        return real, fake

    def take(self, real_rows: Rows, fake_rows: Rows) -> Self:
        """Return some of the rows, given in ascending order."""
        groups = dataclasses.replace(
            self.groups, real_ids=self.groups.real_ids[real_rows], fake_ids=self.groups.fake_ids[fake_rows]
        )
        strata = self.strata
        if strata is not None:
            of_real, of_fake = strata.real_ids[real_rows], strata.fake_ids[fake_rows]
            strata = dataclasses.replace(strata, real_ids=of_real, fake_ids=of_fake)
        return self._with(
            strata=strata,
            real=take_checked(self.real, real_rows),
            fake=take_checked(self.fake, fake_rows),
            groups=groups,
            real_rows=real_rows if self.real_rows is None else self.real_rows[real_rows],
            fake_rows=fake_rows if self.fake_rows is None else self.fake_rows[fake_rows],
            clusters=tuple(
                None if ids is None else ids[rows]
                for ids, rows in zip(self.clusters, (real_rows, fake_rows), strict=True)
            ),
            _overall=(None, None),
            _seen=None,
        )

    def matched(
        self,
        *,
        across_groups: bool = False,
        at_most: Mapping[Hashable, int] | None = None,
        random_state: RandomState = None,
    ) -> Self:
        """In every group, subsample the side with more samples to the size of the other side.

        Group a keeps ``min(n_a, m_a)`` of its real and of its fake samples, drawn without replacement. Metrics depend
        on the numbers of samples they see, so the paper evaluates every group with as many real as fake samples. With
        control features, all of this happens within every stratum; rows in no stratum are dropped.

        Parameters
        ----------
        across_groups
            Keep the same number in all groups, that of the smallest, so that the scores of different groups are also
            comparable.
        at_most
            Keep no more than so many of a group, by its label, or with control features by ``(stratum, group)``, as
            ``cell_sizes`` names them. Models with the same real samples, matched with the same ``at_most`` and
            ``random_state`` to what the smallest of them has, keep the same real samples.
        random_state
            Chooses the rows that are kept. They also depend on which rows share a group, but not on the group names.

        Returns
        -------
        GroupedSamples
            The kept rows in their original order. Rows in no group are dropped. ``counts()`` and ``unassigned()`` stay
            those of all rows, since the proportions of the groups are a property of what was generated.

        Raises
        ------
        ValueError
            If a group is missing on one side.

        Notes
        -----
        Cost: linear in the number of samples; the kept rows are copied. Source: the paper's protocol, appendix B.3.3,
        "20k generated samples per class with a matched number of real samples per class".

        Examples
        --------
        >>> samples = GroupedSamples(
        ...     real=[[0.0], [1.0], [2.0], [3.0]], fake=[[4.0], [5.0], [6.0]],
        ...     real_sensitive_features=["f", "f", "f", "m"], fake_sensitive_features=["m", "f", "m"])
        >>> matched = samples.matched(random_state=0)
        >>> matched.real_sensitive_features["group"].tolist(), matched.fake_sensitive_features["group"].tolist()
        (['f', 'm'], ['f', 'm'])
        """
        self.groups.check_present("make its labels empty (None) to leave it out")
        n_groups, n_strata = len(self.groups.index), 1 if self.strata is None else len(self.strata.index)
        limits = {} if at_most is None else at_most
        sizes = np.array([min(*size, limits.get(label, size[0])) for label, size in self.cell_sizes().items()])
        if across_groups:
            sizes = sizes.reshape(n_strata, n_groups).min(axis=1).repeat(n_groups)
        rng = check_random_state(random_state)
        kept = self.take(*(_draw(ids, sizes, rng) for ids in self._cells()))
        return kept._with(_seen=(self.counts(), self.unassigned(), self.proportion_covariances()))

    def permuted(self, rng: np.random.Generator) -> Self:
        """Permute the labels among the assigned rows of each side; every group keeps its numbers of rows.

        Clusters that are each in one group exchange their labels whole; groups keep their numbers of clusters then, and
        those of rows only if clusters are of one size. Otherwise clusters with equally many rows exchange the labels of
        their rows, in random order. Clusters on both sides do so on both at once.
        """
        moved = [self.groups.real_ids.copy(), self.groups.fake_ids.copy()]
        clustered: list[tuple[Rows, ...]] = []
        for side, (ids, clusters) in enumerate(zip(moved, self.clusters, strict=True)):
            rows = np.flatnonzero(ids >= 0)
            if clusters is None:
                ids[rows] = rng.permutation(ids[rows])
            else:
                clustered.append((ids[rows], clusters[rows], np.full(len(rows), side)))
        if clustered:
            ids, clusters, sides = map(np.concatenate, zip(*clustered, strict=True))
            moved_ids = exchanged(ids, clusters, sides, rng)
            for side in np.unique(sides):
                moved[side][moved[side] >= 0] = moved_ids[sides == side]
        return self._with(groups=dataclasses.replace(self.groups, real_ids=moved[0], fake_ids=moved[1]))

    def renumbered(self, numbers: Sequence[int]) -> Self:
        """Return the samples with other numbers for the clusters, by position in ``cluster_labels``."""
        table = np.array(numbers, dtype=np.int64)
        return self._with(clusters=tuple(None if ids is None else table[ids] for ids in self.clusters))

    def with_fake(self, fake: Features) -> Self:
        """Replace the fake features by other checked ones, whose rows have the same groups."""
        return self._with(fake=keep_checked(fake))

    def on(self, device: str | None) -> Self:
        """Return the samples on a device, where they must be already, or on the host (None)."""
        real, fake = check_real_fake(self.real, self.fake, device=device)
        return self._with(real=keep_checked(real), fake=keep_checked(fake))

    def sampled_from(
        self,
        *,
        max_samples: int,
        n_real: dict[Hashable, int],
        n_fake: dict[Hashable, int],
        overall: tuple[Rows | None, Rows | None],
    ) -> Self:
        """Return the samples with what they were drawn from.

        ``n_real`` and ``n_fake`` count all rows seen by group, and under None those in no group. ``overall`` has the
        rows of each side for overall scores; None for all rows.
        """
        seen = {side: dict(by_group) for side, by_group in (("real", n_real), ("fake", n_fake))}
        unassigned = {side: by_group.pop(None, 0) for side, by_group in seen.items()}
        sizes = {side: [by_group.get(label, 0) for label in self.groups.index] for side, by_group in seen.items()}
        return self._with(
            max_samples=max_samples,
            _overall=overall,
            _seen=(self.groups.table(np.array(sizes["real"]), np.array(sizes["fake"])), unassigned, None),
        )


def _in_several(pairs: Rows) -> bool:
    """Return whether a cluster is in several groups, given pairs ``(k, 2)`` of a cluster and a group."""
    distinct = np.unique(pairs, axis=0)
    return len(np.unique(distinct[:, 0])) < len(distinct)


def labels_of(real: Any, sensitive_features: Any) -> Any:
    """Return the labels that were given, else those of a reference."""
    return real.sensitive_features if sensitive_features is None and isinstance(real, Prepared) else sensitive_features


def exchanged(ids: Rows, clusters: Rows, sides: Rows, rng: np.random.Generator) -> Rows:
    """Return the groups of rows when clusters of one kind, on the same sides, have exchanged them.

    Where each cluster has one group, clusters exchange it. Otherwise those with equally many rows on each side exchange
    the groups of all their rows, in random order.
    """
    _, inverse = np.unique(clusters, return_inverse=True)
    sizes = np.stack([np.bincount(inverse[sides == side], minlength=inverse.max() + 1) for side in range(2)], axis=1)
    order = np.lexsort((rng.permutation(len(ids)), sides, inverse))  # by cluster, in random order within each side
    starts = np.cumsum(sizes.sum(axis=1)) - sizes.sum(axis=1)
    moved = np.empty_like(ids)
    presence = sizes > 0
    for present in np.unique(presence, axis=0):
        of_kind = (presence == present).all(axis=1)
        rows = np.flatnonzero(of_kind[inverse])
        if not _in_several(np.stack([inverse[rows], ids[rows]], axis=1)):
            own = ids[order[starts]]
            own[of_kind] = rng.permutation(own[of_kind])
            moved[rows] = own[inverse[rows]]
            continue
        for size in np.unique(sizes[of_kind], axis=0):
            alike = starts[(sizes == size).all(axis=1)]
            lines = order[alike[:, None] + np.arange(size.sum())]  # the rows of one cluster in each
            moved[lines] = ids[lines[rng.permutation(len(lines))]]
    return moved


def _draw(ids: Rows, sizes: Rows, rng: np.random.Generator) -> Rows:
    """Return the rows to keep: the first ``sizes[g]`` of each group g in one random order of all rows."""
    order = rng.permutation(len(ids))
    order = order[ids[order] >= 0]
    rank = pd.Series(ids[order]).groupby(ids[order]).cumcount().to_numpy()
    return np.sort(order[rank < sizes[ids[order]]])


def multinomial_covariance(p: NDArray[np.float64], n: float) -> NDArray[np.float64]:
    """Return the covariance ``(G, G)`` of the proportions of n independent draws."""
    found: NDArray[np.float64] = (np.diag(p) - np.outer(p, p)) / n
    return found
