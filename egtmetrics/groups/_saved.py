"""A frame as plain values, for JSON, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from egtmetrics.groups.disparity import ScoreTable, score_table, scores_behind
from egtmetrics.groups.inference import FrameIntervals
from egtmetrics.registry import Metric, registered_metrics
from egtmetrics.results import MetricResult, SavedResult, Score

_BOUNDS = ["low", "high"]
_OF_DISPARITIES = [*_BOUNDS, "expected_if_equal"]


def described_metric(description: str) -> Metric | None:
    """Return the registered metric that an entry of ``settings["metrics"]`` names, if there is one."""
    name = re.split(r"[.(]", description, maxsplit=1)[0]
    return next((known for known in registered_metrics().values() if known.function.__name__ == name), None)


def described_scores(descriptions: Mapping[str, str], tables: Mapping[str, ScoreTable]) -> dict[str, Any]:
    """Return ``{"scores": ...}`` with the scores whose description a reader could not find by itself, if any."""
    needed = {
        metric: {name: vars(score) for name, score in tables[metric].described.items()}
        for metric, description in descriptions.items()
        if dict(tables[metric].described) != _found(description, list(tables[metric].described))
    }
    return {"scores": needed} if needed else {}


def _found(description: str, names: list[str]) -> dict[str, Score]:
    """Return what a reader takes the scores of a metric for."""
    known = described_metric(description)
    declared = {} if known is None else known.scores()
    return {name: declared.get(name, Score(label=name)) for name in names}


def interval_dict(intervals: FrameIntervals, by_group: pd.DataFrame, names: Mapping[Hashable, str]) -> dict[str, Any]:
    """Return intervals under the keys of ``by_group`` and ``disparities``."""
    groups: dict[str, dict[str, Any]] = {names[label]: {} for label in by_group.index}
    for column in map(str, by_group):
        for label, row in intervals.by_group.loc[column][_BOUNDS].iterrows():
            groups[names[label]][column] = row.to_dict()
    disparities: dict[str, dict[str, Any]] = {}
    for row in intervals.disparities.reset_index().to_dict("records"):
        known = {name: row[name] for name in _OF_DISPARITIES}
        disparities.setdefault(row["metric"], {})[row["disparity"]] = known
    return {"level": intervals.level, "by_group": groups, "disparities": disparities}


def disparity_dict(disparities: pd.DataFrame, names: Mapping[Hashable, str]) -> dict[str, dict[str, Any]]:
    """Return a table of disparities by metric and disparity."""
    found: dict[str, dict[str, Any]] = {}
    for row in disparities.reset_index().to_dict("records"):
        pair = {key: None if row[key] is None else names[row[key]] for key in ("larger", "smaller")}
        content = {"value": row["value"], **pair, "reliable": row["reliable"]}
        found.setdefault(row["metric"], {})[row["disparity"]] = content
    return found


def saved_tables(content: Mapping[str, Any]) -> dict[str, ScoreTable]:
    """Return the scores of every metric, one row per group, with their descriptions."""
    index = pd.Index(list(content["by_group"]), name=", ".join(content["settings"]["sensitive_features"]))
    by_group = pd.DataFrame(
        [{column: _number(value) for column, value in row.items()} for row in content["by_group"].values()],
        index=index,
        dtype=float,
    )
    tables = {}
    for metric, description in content["settings"]["metrics"].items():
        names = {f"{metric}_{name}": name for name in scores_behind(list(content["disparities"][metric]))}
        if len(names) == 1:
            names = {metric: next(iter(names.values()))}
        columns = [column for column in by_group if column in names]
        scores = [names[column] for column in columns]
        described = _found(description, scores)
        for name, score in content.get("scores", {}).get(metric, {}).items():
            low, high = map(float, score["bounds"])
            described[name] = Score(**{**score, "bounds": (low, high)})
        results = content["results"]["by_group"]
        caveats = {group: tuple(by_metric[metric].get("caveats", ())) for group, by_metric in results.items()}
        tables[metric] = score_table(metric, by_group[columns].set_axis(scores, axis=1), described, caveats)
    return tables


def saved_results(
    content: Mapping[str, Any], tables: Mapping[str, ScoreTable]
) -> tuple[dict[str, MetricResult], dict[Hashable, dict[str, MetricResult]]]:
    """Return the results on all samples by metric, and those of groups by group and metric."""

    def result(metric: str, fields: Mapping[str, Any], values: Mapping[str, float]) -> MetricResult:
        known = described_metric(content["settings"]["metrics"][metric])
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


def saved_intervals(
    saved: Mapping[str, Any], by_group: pd.DataFrame, disparities: Mapping[Any, float]
) -> FrameIntervals:
    """Return the intervals that were saved; of the parts of their variance nothing is."""
    rows = {
        (column, group): {"value": value, **numbers(saved["by_group"][group][column], _BOUNDS)}
        for column, values in by_group.to_dict().items()
        for group, value in values.items()
    }
    gaps = {
        (metric, name): {"value": disparities[metric, name], **numbers(known, _OF_DISPARITIES)}
        for metric, by_name in saved["disparities"].items()
        for name, known in by_name.items()
    }
    return FrameIntervals(
        level=float(saved["level"]),
        by_group=pd.DataFrame(
            list(rows.values()), index=pd.MultiIndex.from_tuples(rows, names=["score", by_group.index.name])
        ),
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
