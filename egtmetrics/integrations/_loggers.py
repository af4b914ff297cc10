"""Scalars, page and figure to whatever logs them."""

from __future__ import annotations

import io
import math
import sys
import types
from collections.abc import Mapping
from typing import Any

from egtmetrics.groups import GenerativeMetricFrame


def send(
    logger: Any,
    scalars: Mapping[str, float],
    step: int,
    *,
    page: str | None = None,
    frame: GenerativeMetricFrame | None = None,
    name: str = "groups",
) -> None:
    """Log scalars, and where the logger takes them a page and the figure of precision and recall.

    What a logger is follows from what it can do: ``add_scalar`` (TensorBoard), ``log_metrics`` (MLflow, loggers of
    Lightning), ``log`` (Weights & Biases, accelerate), or a call. NaN is left out, since some of them refuse it.
    """
    known = {key: value for key, value in scalars.items() if not math.isnan(value)}
    if hasattr(logger, "add_scalar"):
        for key, value in known.items():
            logger.add_scalar(key, value, step)
    elif hasattr(logger, "log_metrics"):
        logger.log_metrics(known, step=step)
    elif hasattr(logger, "log"):
        logger.log(known, step=step)
    elif callable(logger):
        logger(known, step)
    else:
        raise TypeError(
            f"logger is {type(logger).__name__}, expected a SummaryWriter of TensorBoard, a run of wandb, the module "
            "mlflow, a logger of Lightning, an Accelerator, or a function (scalars, step)"
        )
    if page is not None and frame is not None:
        _send_page(getattr(logger, "experiment", logger), page, frame, step, name)


def _send_page(target: Any, page: str, frame: GenerativeMetricFrame, step: int, name: str) -> None:
    figure = _figure(frame)
    if hasattr(target, "add_figure"):  # TensorBoard shows no pages
        if figure is not None:
            target.add_figure(f"{name}/precision_recall", figure, step)
    elif isinstance(target, types.ModuleType) and hasattr(target, "log_text"):  # mlflow
        target.log_text(page, f"{name}/step_{step}.html")
        if figure is not None:
            target.log_figure(figure, f"{name}/step_{step}.png")
    elif type(target).__module__.partition(".")[0] == "wandb":
        wandb = sys.modules["wandb"]
        content: dict[str, Any] = {f"{name}/page": wandb.Html(page)}
        if figure is not None:
            import PIL.Image  # matplotlib needs it; of a figure, wandb asks for pyplot

            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            content[f"{name}/precision_recall"] = wandb.Image(PIL.Image.open(buffer))
        target.log(content, step=step)


def _figure(frame: GenerativeMetricFrame) -> Any:
    """Return the figure of the first metric that has precision and recall; None without one."""
    from egtmetrics.plots import plot_precision_recall

    try:
        return plot_precision_recall(frame).figure
    except ValueError:
        return None
