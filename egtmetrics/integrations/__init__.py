"""The frame in other libraries: torchmetrics, Lightning, transformers, PyTorch-Ignite, accelerate, evaluate, fairlearn.

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
    from egtmetrics.integrations._ignite import GroupWatchHandler
    from egtmetrics.integrations._lightning import GroupMetricsCallback, GroupWatchCallback
    from egtmetrics.integrations._torchmetrics import GroupMetric
    from egtmetrics.integrations._transformers import GroupWatchTrainerCallback
    from egtmetrics.integrations._watch import GroupWatch, WatchedLook

_MODULE = {
    "GroupEvaluationModule": "evaluate",
    "GroupMetric": "torchmetrics",
    "GroupMetricsCallback": "lightning",
    "GroupWatch": "watch",
    "GroupWatchCallback": "lightning",
    "GroupWatchHandler": "ignite",
    "GroupWatchTrainerCallback": "transformers",
    "WatchedLook": "watch",
    "fairlearn_metric": "fairlearn",
    "pair_by_group": "fairlearn",
}
_NEEDED = {
    "watch": ("torch", "loops"),
    "ignite": ("pytorch-ignite", "loops"),
    "transformers": ("transformers", "language"),
}
"""The library and the extra of a module, where they are not its name and ``loops``."""

__all__ = [
    "GroupEvaluationModule",
    "GroupMetric",
    "GroupMetricsCallback",
    "GroupWatch",
    "GroupWatchCallback",
    "GroupWatchHandler",
    "GroupWatchTrainerCallback",
    "WatchedLook",
    "fairlearn_metric",
    "pair_by_group",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'egtmetrics.integrations' has no attribute {name!r}")
    module = _MODULE[name]
    library, needed = _NEEDED.get(module, (module, "loops"))
    with extra(needed, f"egtmetrics.integrations.{name} needs {library}"):
        value = getattr(import_module(f"egtmetrics.integrations._{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
