"""A frame as the flat dict of numbers that loggers of experiments take."""

from __future__ import annotations

import re

from egtmetrics.groups import GenerativeMetricFrame


def flat_scores(frame: GenerativeMetricFrame) -> dict[str, float]:
    """Return every score and disparity of a frame under a name of its own.

    Returns
    -------
    dict
        ``<score>/overall``, ``<score>/<group>`` for every column and row of ``by_group``, ``<metric>/<disparity>`` and
        ``proportions/mgo``, ``proportions/ego``. In names, everything but letters, digits, ``_``, ``-``, ``.`` and
        spaces becomes ``_``, since MLflow takes nothing else: ``topp_precision/gender_female_ age_old``. NaN stays NaN.

    Raises
    ------
    ValueError
        If two names become equal: a group called "overall", or groups "a+" and "a*".

    Examples
    --------
    TensorBoard, Weights & Biases, MLflow and Lightning take it as it is::

        for name, value in flat_scores(frame).items():
            writer.add_scalar(name, value, step)           # torch.utils.tensorboard.SummaryWriter
        run.log(flat_scores(frame), step=step)             # wandb.init(...)
        mlflow.log_metrics(flat_scores(frame), step=step)
        self.log_dict(flat_scores(frame))                  # a LightningModule

    >>> from egtmetrics import GenerativeMetricFrame
    >>> frame = GenerativeMetricFrame(
    ...     metrics={"gap": lambda real, fake: float(abs(real.mean() - fake.mean()))},
    ...     real=[[0.0], [0.0], [1.0], [1.0]], fake=[[0.5], [0.5], [1.0], [1.0]],
    ...     real_sensitive_features=["f", "f", "m", "m"], fake_sensitive_features=["f", "f", "m", "m"])
    >>> flat_scores(frame)["gap/f"], flat_scores(frame)["gap/delta_gap"]
    (0.5, 0.5)
    """
    groups = list(frame.to_dict()["by_group"])  # the labels as text
    entries = [((str(column), "overall"), value) for column, value in frame.overall.items()]
    for column, scores in frame.by_group.items():
        entries += [((str(column), group), value) for group, value in zip(groups, scores, strict=True)]
    for row in frame.disparities().reset_index().to_dict("records"):
        entries.append(((row["metric"], row["disparity"]), row["value"]))
    flat: dict[str, float] = {}
    origins: dict[str, tuple[str, ...]] = {}
    for parts, value in entries:
        name = "/".join(re.sub(r"[^\w\-. ]+", "_", part) for part in parts)
        if name in flat:
            raise ValueError(
                f"the scores {origins[name]} and {parts} would both be called {name!r}; rename a group or a metric"
            )
        flat[name], origins[name] = float(value), parts
    return flat
