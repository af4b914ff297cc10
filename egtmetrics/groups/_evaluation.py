"""Call metrics on every group, and on all samples."""

from __future__ import annotations

import functools
import inspect
import numbers
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_real_fake
from egtmetrics.groups._assignment import assign_groups
from egtmetrics.ops import BackendName, Features, common_device, select_backend, take_rows, to_host
from egtmetrics.results import MetricResult

Score: TypeAlias = MetricResult | float
Metric: TypeAlias = Callable[..., Score]
"""``(real, fake) -> MetricResult | float``; may take ``random_state``, ``backend`` and ``n_threads`` by keyword.

A metric that takes ``backend`` may be given features on a device, any other one gets NumPy arrays.
"""
MissingGroups = Literal["raise", "nan"]

_SIZE_FACTOR = 2
_KEYWORD_KINDS = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class GroupSizeWarning(UserWarning):
    """The groups differ in size by more than a factor of two, so their scores differ in bias as well as in quality.

    A metric whose expectation does not change with the number of samples says so by ``depends_on_size = False`` on the
    class of its result, and is not warned of.
    """


class GroupEvaluation:
    """Checked samples, their groups and the metrics bound to one seed, ready to be evaluated."""

    def __init__(
        self,
        metrics: Metric | Mapping[str, Metric],
        real: Any,
        fake: Any,
        *,
        real_sensitive_features: Any,
        fake_sensitive_features: Any,
        random_state: RandomState = None,
        missing_groups: MissingGroups = "raise",
        backend: BackendName = "auto",
        n_threads: int | None = None,
    ) -> None:
        if missing_groups not in get_args(MissingGroups):
            raise ValueError(f"missing_groups={missing_groups!r} is unknown; choose 'raise' or 'nan'")
        if backend == "cuda":
            device = select_backend(backend, features=(real, fake)).device
        else:
            device = common_device(real, fake) if backend == "auto" else None
        self.real, self.fake = check_real_fake(real, fake, device=device)
        self.groups = assign_groups(
            real_sensitive_features, fake_sensitive_features, n_real=len(self.real), n_fake=len(self.fake)
        )
        self.groups.check_two()
        sizes = self.groups.counts()[["n_real", "n_fake"]]
        on_both_sides = (sizes > 0).all(axis=1).to_numpy()
        if missing_groups == "raise" or not on_both_sides.any():
            self.groups.check_present("get a NaN row for it from GenerativeMetricFrame(..., missing_groups='nan')")
        self._positions = np.flatnonzero(on_both_sides)
        self._sizes = sizes[on_both_sides]
        self._warned = False
        self.seed = resolve_seed(random_state)
        options = {"random_state": self.seed, "backend": backend, "n_threads": n_threads}
        self.given_metrics = name_metrics(metrics)
        self.metrics = {name: bind(metric, options) for name, metric in self.given_metrics.items()}

    @property
    def n_calls(self) -> int:
        """How often a metric is called by ``by_group`` and ``overall`` together."""
        return len(self.metrics) * (len(self._positions) + 1)

    def by_group(self, advance: Callable[[], object] = lambda: None) -> dict[Hashable, dict[str, Score]]:
        """Evaluate every metric in every group which has samples on both sides; ``advance`` is called after each.

        The first time, warn of groups of very different sizes where a metric depends on them.
        """
        results: dict[Hashable, dict[str, Score]] = {}
        labels = self.groups.index.tolist()
        for position in self._positions:
            label = labels[position]
            real = take_rows(self.real, self.groups.real_ids == position)
            fake = take_rows(self.fake, self.groups.fake_ids == position)
            results[label] = self._evaluate(real, fake, f"group {self.groups.name(label)!r}", advance)
        if not self._warned:
            self._warned = True
            self._warn_sizes(results)
        return results

    def overall(self, advance: Callable[[], object] = lambda: None) -> dict[str, Score]:
        """Evaluate every metric on all rows, the unassigned ones included."""
        return self._evaluate(self.real, self.fake, "all samples", advance)

    def _evaluate(self, real: Features, fake: Features, where: str, advance: Callable[[], object]) -> dict[str, Score]:
        results: dict[str, Score] = {}
        for name, metric in self.metrics.items():
            try:
                result = metric(real, fake) if _takes(metric, "backend") else metric(to_host(real), to_host(fake))
            except ValueError as error:
                raise ValueError(f"{where} ({len(real)} real, {len(fake)} fake), metric {name!r}: {error}") from error
            if isinstance(result, MetricResult) and result.score_names:
                results[name] = result
            elif isinstance(result, numbers.Real):
                results[name] = float(result)
            else:
                raise TypeError(
                    f"metric {name!r} returned {type(result).__name__}, expected a number or a MetricResult with "
                    "score_names; convert what it returns, for example with float"
                )
            advance()
        return results

    def _warn_sizes(self, results: Mapping[Hashable, Mapping[str, Score]]) -> None:
        evaluated = next(iter(results.values()))
        dependent = [repr(name) for name, result in evaluated.items() if _depends_on_size(result)]
        if not dependent:
            return
        for side in ("real", "fake"):
            column = self._sizes[f"n_{side}"]
            if column.max() > _SIZE_FACTOR * column.min():
                warnings.warn(
                    f"the groups differ in their number of {side} samples, from {column.min()} in group "
                    f"{self.groups.name(column.idxmin())!r} to {column.max()} in "
                    f"{self.groups.name(column.idxmax())!r}; {', '.join(dependent)} may depend on it, so part of a "
                    "difference between groups may come from their sizes. match_sizes(..., across_groups=True) makes "
                    "them equal.",
                    GroupSizeWarning,
                    stacklevel=4,
                )


def _depends_on_size(result: Score) -> bool:
    """Whether the expectation of a score may change with the number of samples: assumed unless its result denies it."""
    return not isinstance(result, MetricResult) or result.depends_on_size


def scores_of(result: Score, metric_name: str) -> dict[str, float]:
    """Return the scores of one result by name; a bare number goes by the name of its metric."""
    return result.scores() if isinstance(result, MetricResult) else {metric_name: result}


def scores_by_group(
    results: Mapping[Hashable, Mapping[str, Score]], metric_name: str, index: pd.Index[Any]
) -> pd.DataFrame:
    """Return the scores of one metric, one row per group of ``index``, NaN for groups without a result."""
    rows = {label: scores_of(metrics[metric_name], metric_name) for label, metrics in results.items()}
    columns = list(next(iter(rows.values())))
    for label, row in rows.items():
        if list(row) != columns:
            raise ValueError(
                f"metric {metric_name!r} returned the scores {list(row)} for group {label!r} and {columns} for another "
                "group; return the same ones for all"
            )
    missing = dict.fromkeys(columns, np.nan)
    return pd.DataFrame([rows.get(label, missing) for label in index], index=index, columns=columns, dtype=float)


def callable_name(metric: Metric) -> str:
    """Return the name of a function, also of one inside a ``functools.partial``, or the class of another callable."""
    inner = metric.func if isinstance(metric, functools.partial) else metric
    return str(getattr(inner, "__name__", type(inner).__name__))


def name_metrics(metrics: Metric | Mapping[str, Metric]) -> Mapping[str, Metric]:
    if not isinstance(metrics, Mapping):
        metrics = {callable_name(metrics): metrics}
    if not metrics:
        raise ValueError("metrics is empty; pass a callable (real, fake) -> score, or a mapping of names to such")
    for name, metric in metrics.items():
        if not isinstance(name, str) or not callable(metric):
            raise TypeError(
                f"metrics[{name!r}] is {type(metric).__name__}, expected names (str) mapped to callables "
                "(real, fake) -> score; use functools.partial to fix the options of a metric"
            )
    return metrics


def bind(metric: Metric, options: Mapping[str, object]) -> Metric:
    """Fix those options which the signature of ``metric`` names and no partial has fixed before."""
    fixed = metric.keywords if isinstance(metric, functools.partial) else {}
    wanted = {name: value for name, value in options.items() if name not in fixed and _takes(metric, name)}
    return functools.partial(metric, **wanted)


def _takes(metric: Metric, keyword: str) -> bool:
    try:
        parameter = inspect.signature(metric).parameters.get(keyword)
    except ValueError:  # some builtins have no signature
        return False
    return parameter is not None and parameter.kind in _KEYWORD_KINDS


def resolve_seed(random_state: RandomState) -> int:
    generator = check_random_state(random_state)
    return int(random_state) if isinstance(random_state, int | np.integer) else int(generator.integers(2**32))
