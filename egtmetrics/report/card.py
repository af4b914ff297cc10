"""What a section of a model card has beside the tables: metadata of the Hugging Face hub, and what is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from egtmetrics.groups import Baseline, FrameIntervals, GenerativeMetricFrame, ScoreTable, Verdict
from egtmetrics.groups._saved import plain
from egtmetrics.labels import group_text

_TASKS = {"images": "unconditional-image-generation", "texts": "text-generation"}
"""By what the provenance of a side counts."""


def front_matter(
    frame: GenerativeMetricFrame,
    *,
    intervals: FrameIntervals | None = None,
    baseline: Baseline | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Return scores, disparities and verdicts as the ``model-index`` of a model card, in YAML between two ``---``.

    The model and the data set have the names of their files, which an author may want to replace. Shares are fractions.
    The schema is that of ``modelcard.md`` in the documentation of the hub.
    """
    real, fake = ((provenance or {}).get(side, {}) for side in ("real", "fake"))
    data = str(real.get("file", "real samples"))
    index = {
        "name": Path(str(fake.get("file", "model"))).stem,
        "results": [
            {
                "task": {"type": next((task for key, task in _TASKS.items() if key in fake), "other")},
                "dataset": {"type": Path(data).stem, "name": data},
                "metrics": [*_metrics(frame, intervals, baseline), *_verdicts(frame, verdicts or {})],
            }
        ],
    }
    return "\n".join(["---", *_yaml({"tags": ["fairness"], "model-index": [plain(index)]}), "---"])


def left_out(frame: GenerativeMetricFrame, provenance: Mapping[str, Any]) -> Iterator[str]:
    """Yield how many samples and groups are in no score, in sentences."""
    for side, words in (("real", "real"), ("fake", "generated")):
        yield f"{frame.unassigned[side]} {words} samples are in no group: without a label, or the oracle abstained."
        if "left_out" in provenance.get(side, {}):
            yield f"{provenance[side]['left_out']} files among the {words} ones were left out."
    for group, share in provenance.get("oracle", {}).get("abstention_by_group", {}).items():
        yield f"The oracle abstained on {share:.1%} of the real samples of {group}, by cross-validation."
    for metric in frame.settings["metrics"]:
        refused = frame.tables[metric].values.isna().any(axis=1)
        if refused.any():
            yield f"{frame.title(metric)} has no score for {', '.join(map(group_text, refused.index[refused]))}."
    yield "What the model refused to generate leaves no sample, so it is not counted."


def _metrics(
    frame: GenerativeMetricFrame, intervals: FrameIntervals | None, baseline: Baseline | None
) -> Iterator[dict[str, Any]]:
    """Yield scores overall and by group, and disparities, as the schema has them."""
    for metric in frame.settings["metrics"]:
        table, doubtful = frame.tables[metric], frame.caveats().get(metric, {})
        for score, described in table.described.items():
            column = table.column(score)
            name = frame.title(metric) if len(table.described) == 1 else f"{frame.title(metric)}: {described.label}"
            yield from _entry(column, f"{name}, all samples", frame.overall[column], {}, None not in doubtful)
            for group, value in table.values[score].items():
                args: dict[str, Any] = {"group": group_text(group)}
                if intervals is not None:
                    args |= _bounds(intervals, intervals.by_group.loc[column], group)
                yield from _entry(column, f"{name}, {group_text(group)}", value, args, group not in doubtful)
        yield from _gaps(frame.title(metric), table, intervals, "scores")
        if baseline is not None:
            of_excess = None if intervals is None else baseline.interval(intervals.level)
            yield from _gaps(frame.title(metric), baseline.tables()[metric], of_excess, "excess")


def _gaps(title: str, table: ScoreTable, intervals: FrameIntervals | None, of: str) -> Iterator[dict[str, Any]]:
    for disparity in table.disparities:
        args: dict[str, Any] = {"metric": table.metric, "of": of}
        if intervals is not None:
            args |= _bounds(intervals, intervals.disparities.loc[table.metric], disparity.name)
        name = f"{title}: largest gap between groups in {disparity.label}"
        yield from _entry(disparity.name, name, disparity.of(table.values).value, args, table.reliable())


def _verdicts(frame: GenerativeMetricFrame, verdicts: Mapping[str, Verdict]) -> Iterator[dict[str, Any]]:
    for metric, verdict in verdicts.items():
        args = {
            "metric": metric,
            **{name: getattr(verdict, name) for name in ("disparity", "of", "tolerance", "low", "high", "level")},
        }
        name = f"{frame.title(metric)}: is the largest gap between groups within the tolerance?"
        yield {"type": f"{metric}_verdict", "value": verdict.outcome, "name": name, "args": args}


def _bounds(intervals: FrameIntervals, rows: Any, key: Hashable) -> dict[str, float]:
    row = rows.loc[key]
    return {"low": float(row["low"]), "high": float(row["high"]), "level": intervals.level}


def _entry(kind: str, name: str, value: Any, args: Mapping[str, Any], reliable: bool) -> Iterator[dict[str, Any]]:
    """Yield one entry, unless there is no number."""
    if math.isfinite(float(value)):
        args = args if reliable else {**args, "reliable": False}
        yield {"type": kind, "value": float(value), "name": name, **({"args": args} if args else {})}


def _yaml(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a mapping as YAML; texts are quoted as in JSON, which YAML reads."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield f"{key}:"
            yield from (f"  {line}" for line in _yaml(item))
        elif isinstance(item, list):
            yield f"{key}:"
            for one in item:
                lines = list(_yaml(one)) if isinstance(one, Mapping) else [_scalar(one)]
                yield from (f"{'- ' if number == 0 else '  '}{line}" for number, line in enumerate(lines))
        else:
            yield f"{key}: {_scalar(item)}"


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
