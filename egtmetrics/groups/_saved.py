"""A frame as plain values, for JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from egtmetrics.groups.disparity import ScoreTable, score_table, scores_behind
from egtmetrics.groups.inference import FrameIntervals
from egtmetrics.registry import Metric, registered_metrics
from egtmetrics.results import MetricResult, SavedResult, Score

_BOUNDS = ["low", "high"]
_OF_DISPARITIES = ["value", *_BOUNDS, "expected_if_equal"]

Registered: TypeAlias = Mapping[str, Metric | None]
"""The registered metric behind each metric of a frame; None for a function of a user's."""


def saved_metrics(content: Mapping[str, Any]) -> Registered:
    """Return the registered metrics of a frame; None also for one of a package that is not installed here."""
    names, known = content["registered"], registered_metrics()
    return {metric: known.get(names.get(metric)) for metric in content["settings"]["metrics"]}


def described_scores(registered: Registered, tables: Mapping[str, ScoreTable]) -> dict[str, Any]:
    """Return ``{"scores": ...}`` with the scores whose description a reader could not find by itself, if any."""
    needed = {
        metric: {name: vars(score) for name, score in tables[metric].described.items()}
        for metric, known in registered.items()
        if dict(tables[metric].described) != _found(known, list(tables[metric].described))
    }
    return {"scores": needed} if needed else {}


def _found(known: Metric | None, names: list[str]) -> dict[str, Score]:
    """Return what a reader takes the scores of a metric for."""
    declared = {} if known is None else known.scores()
    return {name: declared.get(name, Score(label=name)) for name in names}


def saved_refusals(
    refusals: Mapping[str, Mapping[Hashable | None, str]], names: Mapping[Hashable, str]
) -> dict[str, dict[str, Any]]:
    """Return why metrics refused groups, under the keys of results: ``overall`` and ``by_group``."""
    saved: dict[str, dict[str, Any]] = {"overall": {}, "by_group": {}}
    for metric, reasons in refusals.items():
        for label, reason in reasons.items():
            of_label = saved["overall"] if label is None else saved["by_group"].setdefault(names[label], {})
            of_label[metric] = reason
    return saved


def restored_refusals(saved: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[Hashable | None, str]]:
    """Return what ``saved_refusals`` was given, with the names of groups as their labels."""
    refusals: dict[str, dict[Hashable | None, str]] = {}
    for group, reasons in saved.get("by_group", {}).items():
        for metric, reason in reasons.items():
            refusals.setdefault(metric, {})[group] = reason
    for metric, reason in saved.get("overall", {}).items():
        refusals.setdefault(metric, {})[None] = reason
    return refusals


def interval_dict(intervals: FrameIntervals, by_group: pd.DataFrame, names: Mapping[Hashable, str]) -> dict[str, Any]:
    """Return intervals under the keys of ``by_group`` and ``disparities``."""
    groups: dict[str, dict[str, Any]] = {names[label]: {} for label in by_group.index}
    for column in map(str, by_group):
        for label, row in intervals.by_group.loc[column][_BOUNDS].iterrows():
            groups[names[label]][column] = row.to_dict()
    disparities: dict[str, dict[str, Any]] = {}
    for row in intervals.disparities.reset_index().to_dict("records"):
        known = {name: row[name] for name in _OF_DISPARITIES}
        without = [names[label] for label in row["without"]]
        disparities.setdefault(row["metric"], {})[row["disparity"]] = {**known, "without": without}
    return {"level": intervals.level, "by_group": groups, "disparities": disparities}


def disparity_dict(disparities: pd.DataFrame, names: Mapping[Hashable, str]) -> dict[str, dict[str, Any]]:
    """Return a table of disparities by metric and disparity."""
    found: dict[str, dict[str, Any]] = {}
    for row in disparities.reset_index().to_dict("records"):
        pair = {key: None if row[key] is None else names[row[key]] for key in ("larger", "smaller")}
        without = [names[label] for label in row["without"]]
        content = {"value": row["value"], **pair, "reliable": row["reliable"], "without": without}
        found.setdefault(row["metric"], {})[row["disparity"]] = content
    return found


def saved_tables(content: Mapping[str, Any], registered: Registered) -> dict[str, ScoreTable]:
    """Return the scores of every metric, one row per group, with their descriptions."""
    index = pd.Index(list(content["by_group"]), name=", ".join(content["settings"]["sensitive_features"]))
    by_group = pd.DataFrame(
        [{column: _number(value) for column, value in row.items()} for row in content["by_group"].values()],
        index=index,
        dtype=float,
    )
    tables = {}
    for metric, known in registered.items():
        names = {f"{metric}_{name}": name for name in scores_behind(list(content["disparities"][metric]))}
        if len(names) == 1:
            names = {metric: next(iter(names.values()))}
        columns = [column for column in by_group if column in names]
        scores = [names[column] for column in columns]
        described = _found(known, scores)
        for name, score in content.get("scores", {}).get(metric, {}).items():
            low, high = map(float, score["bounds"])
            described[name] = Score(**{**score, "bounds": (low, high)})
        results = content["results"]["by_group"]
        scored = {group: by_metric[metric] for group, by_metric in results.items() if metric in by_metric}
        tables[metric] = score_table(
            metric,
            by_group[columns].set_axis(scores, axis=1),
            described,
            caveats={group: tuple(result.get("caveats", ())) for group, result in scored.items()},
            sizes={group: (result["n_real"], result["n_fake"]) for group, result in scored.items()},
        )
    return tables


def saved_results(
    content: Mapping[str, Any], registered: Registered, tables: Mapping[str, ScoreTable]
) -> tuple[dict[str, MetricResult], dict[Hashable, dict[str, MetricResult]]]:
    """Return the results on all samples by metric, and those of groups by group and metric."""

    def result(metric: str, fields: Mapping[str, Any], values: Mapping[str, float]) -> MetricResult:
        known = registered[metric]
        return SavedResult.of(fields, values, tables[metric].described, () if known is None else known.settings())

    overall = {
        metric: result(
            metric,
            fields,
            {name: _number(content["overall"][tables[metric].column(name)]) for name in tables[metric].described},
        )
        for metric, fields in content["results"]["overall"].items()
    }
    by_group: dict[Hashable, dict[str, MetricResult]] = {
        group: {
            metric: result(metric, fields, tables[metric].values.loc[group].to_dict())
            for metric, fields in results.items()
        }
        for group, results in content["results"]["by_group"].items()
    }
    return overall, by_group


def saved_intervals(saved: Mapping[str, Any], tables: Mapping[str, ScoreTable]) -> FrameIntervals:
    """Return the intervals that were saved; of the parts of their variance nothing is."""
    rows: dict[tuple[str, Hashable], dict[str, Any]] = {}
    gaps: dict[tuple[str, str], dict[str, Any]] = {}
    for metric, table in tables.items():
        for name in table.described if metric != "proportions" else ():
            column = table.column(name)
            for group, value in table.values[name].items():
                bounds = numbers(saved["by_group"][group][column], _BOUNDS)
                rows[column, group] = {"value": value, **bounds, "reliable": group not in table.caveats}
        for name, known in saved["disparities"].get(metric, {}).items():
            known_numbers = numbers(known, _OF_DISPARITIES)
            without = tuple(known["without"])
            gaps[metric, name] = {**known_numbers, "without": without, "reliable": table.reliable(without)}
    index = next(iter(tables.values())).values.index
    return FrameIntervals(
        level=float(saved["level"]),
        by_group=pd.DataFrame(list(rows.values()), index=pd.MultiIndex.from_tuples(rows, names=["score", index.name])),
        disparities=pd.DataFrame(
            list(gaps.values()), index=pd.MultiIndex.from_tuples(gaps, names=["metric", "disparity"])
        ),
        variance=pd.DataFrame(),
    )


def plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN as None, infinity as text."""
    if isinstance(value, MetricResult):
        return plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def numbers(saved: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, float]:
    """Return numbers from what ``plain`` made of them."""
    return {name: _number(saved[name]) for name in (saved if names is None else names)}


def _number(saved: Any) -> float:
    return math.nan if saved is None else float(saved)
