"""Groups compared within strata of control features: gaps between like and like, averaged over the strata.

``GenerativeMetricFrame.controlled`` makes it, and says what it is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._progress import tqdm
from egtmetrics.groups._evaluation import (
    MetricSet,
    MissingScoreWarning,
    Refused,
    Results,
    one_refusal,
    warn_of_caveats,
    with_cluster_caveats,
)
from egtmetrics.groups._saved import disparity_dict, interval_dict, plain
from egtmetrics.groups.disparity import ScoreTable, disparity_table, score_table
from egtmetrics.groups.inference import (
    FrameIntervals,
    Inference,
    Uncertainty,
    group_covariance,
    score_uncertainty,
    small_groups,
)
from egtmetrics.groups.verdict import Samples, Verdict, certify, check_metric
from egtmetrics.labels import Groups, group_text
from egtmetrics.metrics.variance import ScoreCovariance
from egtmetrics.samples import GroupedSamples

Floats = NDArray[np.float64]


class ControlledScores:
    """Scores of groups within strata, and their averages over the strata with the same weights for all groups.

    Attributes
    ----------
    by_stratum : DataFrame
        The scores, indexed by the control features and the sensitive features; only strata that take part.
    by_group : DataFrame
        Their weighted averages: one row per group, columns as in ``frame.by_group``.
    strata : DataFrame
        By stratum: ``n_real`` and ``n_fake``, its samples that are in a group; ``weight``, which sum to 1; and
        ``left_out``, why a stratum has no weight, or an empty text.
    """

    by_stratum: pd.DataFrame
    by_group: pd.DataFrame
    strata: pd.DataFrame

    def __init__(
        self,
        metrics: MetricSet,
        samples: GroupedSamples,
        described: Mapping[str, ScoreTable],
        results: Mapping[Hashable, Results],
        strata: pd.DataFrame,
    ) -> None:
        self._metrics, self._samples, self._results = metrics, samples, results
        self.strata = strata
        self._inference: Inference | None = None
        self._weights = strata["weight"].to_dict()
        index = samples.groups.index
        self._labels = list(next(iter(results.values())))
        self._names = {label: samples.groups.name(label) for label in index}
        self._cells = {metric: self._cells_of(metric, table) for metric, table in described.items()}
        self._tables = {metric: self._average(metric, table) for metric, table in described.items()}
        self.by_group = pd.concat([table.frame() for table in self._tables.values()], axis=1)
        columns = {
            table.column(name): self._cells[metric][name]
            for metric, table in self._tables.items()
            for name in table.described
        }
        levels = [(*_levels(stratum), *_levels(label)) for stratum in results for label in self._labels]
        names = [*strata.index.names, *index.names]
        self.by_stratum = pd.DataFrame(columns).set_axis(pd.MultiIndex.from_tuples(levels, names=names))

    def _cells_of(self, metric: str, table: ScoreTable) -> pd.DataFrame:
        rows = [results[label][metric].scores() for results in self._results.values() for label in self._labels]
        return pd.DataFrame(rows, columns=list(table.described), dtype=float)

    def _average(self, metric: str, table: ScoreTable) -> ScoreTable:
        cells = self._cells[metric].to_numpy().reshape(len(self._results), len(self._labels), -1)
        weights = np.array([self._weights[stratum] for stratum in self._results])
        groups = self._samples.groups
        index = groups.index[[groups.position(label) for label in self._labels]]
        means = pd.DataFrame(np.einsum("s,sgk->gk", weights, cells), index=index, columns=list(table.described))
        caveats: dict[Hashable, tuple[str, ...]] = {}
        for stratum, results in self._results.items():
            where = f"in {group_text(stratum)!r}"
            sizes = {label: (results[label][metric].n_real, results[label][metric].n_fake) for label in self._labels}
            within = score_table(metric, means, table.described, sizes=sizes).unequal_sizes()
            for label in self._labels:
                own = [*results[label][metric].caveats, *([within] if within else [])]
                caveats[label] = (*caveats.get(label, ()), *(f"{where}, {text}" for text in own))
        values = means.reindex(self._samples.groups.index)
        return score_table(metric, values, table.described, caveats)

    def __repr__(self) -> str:
        tables = {"averages over strata": self.by_group, "strata": self.strata}
        head = f"{type(self).__name__}: groups compared within {', '.join(map(str, self.strata.index.names))}"
        return "\n\n".join([head, *(f"{title}\n{table}" for title, table in tables.items())])

    def _repr_html_(self) -> str:
        """Return what notebooks show: averages, strata and disparities."""
        tables = {
            "Averages over strata": self.by_group,
            "Strata": self.strata,
            "Disparities of the averages": self.disparities(),
        }
        return "".join(
            f"<h4>{title}</h4>{table.to_html(border=0, float_format='{:.4g}'.format, na_rep='nan')}"
            for title, table in tables.items()
        )

    def tables(self) -> dict[str, ScoreTable]:
        """Return the averages by metric, with their descriptions and disparities."""
        return dict(self._tables)

    def disparities(self) -> pd.DataFrame:
        """Return every disparity of the averages, as ``GenerativeMetricFrame.disparities`` does."""
        return disparity_table(self._tables)

    def interval(self, level: float = 0.95) -> FrameIntervals:
        """Return confidence intervals for the averages and their disparities, for the strata and weights as they are.

        Raises
        ------
        ValueError
            If ``level`` is not in (0, 1), or a group has fewer than 50 samples, or 8 clusters, on a side of a stratum.

        Notes
        -----
        Cost, paid once: as for ``GenerativeMetricFrame.interval``, for every group of every stratum.
        """
        return self._infer().intervals(level)

    def test(self) -> pd.DataFrame:
        """Test every disparity: could all groups have equal averages?

        The columns are those of ``GenerativeMetricFrame.test``; cost and errors are those of ``interval``.
        """
        return self._infer().tests()

    def certify(self, tolerance: float, *, metric: str | None = None, level: float = 0.95) -> Verdict:
        """Say whether the largest difference between two groups' averages is within a tolerance.

        The parameters and the errors are those of ``GenerativeMetricFrame.certify``, which says more.
        """
        metric = check_metric(metric, list(self._tables))
        table = self._tables[metric]
        sizes = {
            label: sum(min(one[label][metric].n_real, one[label][metric].n_fake) for one in self._results.values())
            for label in self._labels
        }
        return certify(
            self._infer(),
            metric,
            tolerance,
            of="scores",
            samples=Samples(
                sizes=dict.fromkeys(table.values.index, 0) | sizes,
                scores=[table.values],
                described=table.described,
                units=self._samples.units(),
            ),
            level=level,
        )

    def to_dict(self, level: float | None = None) -> dict[str, Any]:
        """Return averages, scores by stratum, weights and disparities as a nested dict of plain values.

        With a level, ``"intervals"`` has the intervals of the averages.
        """
        n_levels = len(self.strata.index.names)
        by_stratum: dict[str, dict[str, Any]] = {}
        for position, row in zip(self.by_stratum.index, self.by_stratum.to_dict("records"), strict=True):
            stratum, label = (group_text(part) for part in (position[:n_levels], position[n_levels:]))
            by_stratum.setdefault(stratum, {})[label] = row
        content: dict[str, Any] = {
            "control_features": list(map(str, self.strata.index.names)),
            "strata": {group_text(label): row.to_dict() for label, row in self.strata.astype(object).iterrows()},
            "by_stratum": by_stratum,
            "by_group": {self._names[label]: row.to_dict() for label, row in self.by_group.iterrows()},
            "disparities": disparity_dict(self.disparities(), self._names),
        }
        if level is not None:
            content["intervals"] = interval_dict(self.interval(level), self.by_group, self._names)
        return {key: plain(value) for key, value in content.items()}

    def _infer(self) -> Inference:
        if self._inference is None:
            covariances: dict[str, dict[Hashable, ScoreCovariance]] = {metric: {} for metric in self._tables}
            for stratum, results in self._results.items():  # all of them before anything is computed
                try:
                    small = small_groups(self._metrics, self._samples.stratum(stratum), results)
                    if small:
                        raise next(iter(small.values()))
                except ValueError as error:
                    raise ValueError(f"stratum {group_text(stratum)!r}: {error}") from error
            cell = 0
            for stratum, results in self._results.items():
                within = self._samples.stratum(stratum)
                for label in self._labels:
                    for metric in self._tables:
                        result = results[label][metric]
                        covariances[metric][cell] = group_covariance(self._metrics, within, label, metric, result)
                    cell += 1
            self._inference = Inference(
                tables=self._tables,
                uncertainties={metric: self._uncertainty(metric, found) for metric, found in covariances.items()},
            )
        return self._inference

    def _uncertainty(self, metric: str, covariances: Mapping[Hashable, ScoreCovariance]) -> Uncertainty:
        cells, table = self._cells[metric], self._tables[metric].values
        n_scores, groups = cells.shape[1], table.index.tolist()
        weights = np.zeros((len(table), n_scores, len(self._results), len(self._labels), n_scores))
        for position, stratum in enumerate(self._results):
            for member, label in enumerate(self._labels):
                weights[groups.index(label), :, position, member, :] = np.eye(n_scores) * self._weights[stratum]
        found = score_uncertainty(cells, covariances, in_common=self._samples.share_clusters(strata=True))
        return found.linear(weights.reshape(table.size, -1), table)


def evaluate_controlled(
    metrics: MetricSet,
    samples: GroupedSamples,
    described: Mapping[str, ScoreTable],
    weights: Mapping[Hashable, float] | None,
    *,
    progress: bool = False,
) -> ControlledScores:
    """Score every group in every stratum; see ``GenerativeMetricFrame.controlled``."""
    strata = samples.strata
    if strata is None:
        raise ValueError(
            "the samples have no strata to compare groups within; pass real_control_features and "
            "fake_control_features, one label per row"
        )
    given = None if weights is None else _checked(weights, strata)
    labels = samples.groups.on_both_sides()
    lacking = groups_lacking(samples)
    n_calls = len(strata.index) * len(labels) * len(metrics.bound)
    results: dict[Hashable, Results] = {}
    sizes, reasons = [], []
    first: ValueError | None = None
    with tqdm(total=n_calls, desc="strata", unit="call", disable=not progress) as bar:
        for stratum in strata.index:
            within = samples.stratum(stratum)
            sizes.append([int((ids >= 0).sum()) for ids in (within.groups.real_ids, within.groups.fake_ids)])
            refused: Refused = {}
            if given is not None and given[stratum] == 0.0:
                reasons.append("its weight is 0")
            elif lacking[stratum]:
                reasons.append(f"group {listed(map(group_text, lacking[stratum]))} is not on both sides")
            else:
                found = with_cluster_caveats(metrics.by_group(within, bar.update, refused), within)
                reasons.append(str(one_refusal(refused)) if refused else "")
                if not refused:
                    results[stratum] = {label: found[label] for label in labels}
            if reasons[-1] and first is None and (given is None or given[stratum] > 0.0):
                first = ValueError(f"stratum {group_text(stratum)!r} is left out: {reasons[-1]}")
    if first is not None and (metrics.strict or not results):
        raise first
    table = pd.DataFrame(sizes, index=strata.index, columns=["n_real", "n_fake"])
    raw = table["n_real"].astype(float) if given is None else pd.Series(given)
    kept = np.array([not reason for reason in reasons])
    wanted = raw.to_numpy(dtype=float) * kept
    table["weight"], table["left_out"] = wanted / wanted.sum(), reasons
    lost = [label for label, n, weight in zip(strata.index, raw, table["weight"], strict=True) if n > 0.0 == weight]
    if lost:
        warnings.warn(
            f"groups are not compared in stratum {listed(map(group_text, lost))}. {group_text(lost[0])}: "
            f"{table['left_out'].to_dict()[lost[0]]}",
            MissingScoreWarning,
            stacklevel=3,
        )
    controlled = ControlledScores(metrics, samples, described, results, table)
    of_cells = {(label, stratum): found[label] for stratum, found in results.items() for label in found}
    warn_of_caveats({" in ".join(map(group_text, cell)): one for cell, one in of_cells.items()}, stacklevel=3)
    return controlled


def groups_lacking(samples: GroupedSamples) -> dict[Hashable, list[Hashable]]:
    """Return, by stratum, the groups that are not on both sides of it, though they are on both sides of the samples.

    Raises
    ------
    ValueError
        Every stratum lacks a group, so that there is nothing to compare.
    """
    assert samples.strata is not None
    labels = samples.groups.on_both_sides()
    sizes = samples.cell_sizes()
    found = {
        stratum: [label for label in labels if not min(sizes[stratum, label])]
        for stratum in samples.strata.index.tolist()
    }
    if all(found.values()):
        stratum, lacking = next(iter(found.items()))
        raise ValueError(
            f"no stratum has every group on both sides: {group_text(stratum)!r} lacks "
            f"{listed(map(group_text, lacking))}; name strata alike on both sides, or merge some"
        )
    return found


def _checked(weights: Mapping[Hashable, float], strata: Groups) -> dict[Hashable, float]:
    labels = strata.index.tolist()
    unknown = [label for label in weights if label not in labels]
    missing = [label for label in labels if label not in weights]
    if unknown or missing:
        what = f"has no weight of {missing[0]!r}" if missing else f"names {unknown[0]!r}, which is none"
        raise ValueError(f"weights {what}; pass one for every stratum: {listed(map(repr, labels))}")
    found = {label: float(weights[label]) for label in labels}
    if not all(0.0 <= weight < math.inf for weight in found.values()) or sum(found.values()) == 0.0:
        raise ValueError(f"weights are {listed(map(str, found.values()))}; pass numbers of at least 0, some above it")
    return found


def _levels(label: Hashable) -> tuple[Hashable, ...]:
    return label if isinstance(label, tuple) else (label,)
