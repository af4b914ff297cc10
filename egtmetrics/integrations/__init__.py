"""The frame in other libraries: torchmetrics, Lightning, evaluate and fairlearn.

Names are imported on first use, each with its library: ``from egtmetrics.integrations import GroupMetric`` needs
torchmetrics only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from egtmetrics._extras import extra

if TYPE_CHECKING:
    from egtmetrics.integrations._evaluate import GroupEvaluationModule
    from egtmetrics.integrations._fairlearn import fairlearn_metric, pair_by_group
    from egtmetrics.integrations._lightning import GroupMetricsCallback
    from egtmetrics.integrations._torchmetrics import GroupMetric

_LIBRARY = {
    "GroupEvaluationModule": "evaluate",
    "GroupMetric": "torchmetrics",
    "GroupMetricsCallback": "lightning",
    "fairlearn_metric": "fairlearn",
    "pair_by_group": "fairlearn",
}

__all__ = ["GroupEvaluationModule", "GroupMetric", "GroupMetricsCallback", "fairlearn_metric", "pair_by_group"]


def __getattr__(name: str) -> Any:
    if name not in _LIBRARY:
        raise AttributeError(f"module 'egtmetrics.integrations' has no attribute {name!r}")
    library = _LIBRARY[name]
    with extra("loops", f"egtmetrics.integrations.{name} needs {library}"):
        value = getattr(import_module(f"egtmetrics.integrations._{library}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
