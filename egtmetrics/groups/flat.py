"""A frame as a flat dict of numbers, as experiment loggers expect it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.groups.inference import FrameIntervals


def flat_scores(frame: GenerativeMetricFrame, intervals: FrameIntervals | None = None) -> dict[str, float]:
    """Return every score and disparity of a frame under its own name.

    Parameters
    ----------
    frame
        What to return.
    intervals
        What ``frame.interval(...)`` returned: adds ``<score>_low/<group>``, ``<score>_high/<group>``, and for
        disparities ``<metric>_low/<disparity>`` and so on. MLflow makes folders of names, so none continues another.

    Returns
    -------
    dict
        For every column of ``by_group``: ``<score>/overall``, ``<score>/<group>`` for every group, and
        ``<score>/worst``, the score of ``frame.worst_group``, left out if that is None. Then
        ``<metric>/<disparity>``, ``proportions/mgo`` and ``proportions/ego``. If scores of a metric cannot be relied
        on (``frame.caveats``), ``<metric>/unreliable`` is the number of such groups, ``overall`` included. If groups
        have no score, ``<metric>/missing`` is their number, and disparities are those of the other groups. In names,
        everything but letters, digits, ``_``, ``-``, ``.`` and spaces becomes ``_``, since MLflow accepts nothing else:
        ``topp_precision/gender_female_ age_old``. NaN stays NaN.

    Raises
    ------
    ValueError
        If two names become equal, as for a group called "overall" or "worst", or groups "a+" and "a*".

    Examples
    --------
    TensorBoard, Weights & Biases, MLflow and Lightning accept it as it is::

        for name, value in flat_scores(frame).items():
            writer.add_scalar(name, value, step)           # torch.utils.tensorboard.SummaryWriter
        run.log(flat_scores(frame), step=step)             # wandb.init(...)
        mlflow.log_metrics(flat_scores(frame), step=step)
        self.log_dict(flat_scores(frame))                  # a LightningModule

    >>> from egtmetrics import GenerativeMetricFrame
    >>> frame = GenerativeMetricFrame(
    ...     metrics="fid", real=[[0.0], [2.0], [0.0], [2.0]], fake=[[1.0], [3.0], [0.0], [2.0]],
    ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    >>> scores = flat_scores(frame)
    >>> scores["fid/f"], scores["fid/worst"], scores["fid/delta_fid"]
    (1.0, 1.0, 1.0)
    """
    groups = frame._names  # labels as text
    entries: list[tuple[tuple[str, str], float | None]] = []
    for score in map(str, frame.by_group):
        by_group = frame.by_group[score].to_dict()
        entries.append(((score, "overall"), frame.overall[score]))
        entries += [((score, groups[label]), value) for label, value in by_group.items()]
        worst = frame.worst_group(score)
        entries.append(((score, "worst"), None if worst is None else by_group[worst]))
    for row in frame.disparities().reset_index().to_dict("records"):
        entries.append(((row["metric"], row["disparity"]), row["value"]))
    if intervals is not None:
        for end in ("low", "high"):
            for score in map(str, frame.by_group):
                of_groups: Mapping[Hashable, float] = intervals.by_group.loc[score][end].to_dict()
                entries += [((f"{score}_{end}", groups[label]), value) for label, value in of_groups.items()]
            of_disparities: Mapping[Any, float] = intervals.disparities[end].to_dict()
            entries += [((f"{metric}_{end}", name), value) for (metric, name), value in of_disparities.items()]
    entries += [((metric, "unreliable"), len(where)) for metric, where in frame.caveats().items()]
    missing = {name: int(table.values.isna().any(axis=1).sum()) for name, table in frame.tables.items()}
    entries += [((metric, "missing"), number) for metric, number in missing.items() if number]
    flat: dict[str, float] = {}
    origins: dict[str, tuple[str, str]] = {}
    for parts, value in entries:
        name = "/".join(re.sub(r"[^\w\-. ]+", "_", part) for part in parts)
        if name in origins:
            raise ValueError(
                f"the scores {origins[name]} and {parts} would both be called {name!r}; rename a group or a metric"
            )
        origins[name] = parts
        if value is not None:
            flat[name] = float(value)
    return flat
