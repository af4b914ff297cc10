"""Every name loads its own library only, and says what to install where that is missing."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

import egtmetrics.integrations

LIBRARY = {
    "GroupMetric": "torchmetrics",
    "GroupMetricsCallback": "lightning",
    "GroupWatchHandler": "ignite",
    "GroupEvaluationModule": "evaluate",
}


@pytest.fixture(autouse=True)
def without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ``egtmetrics.integrations`` is imported yet, and no library can be."""
    monkeypatch.setattr(egtmetrics, "integrations", egtmetrics.integrations)  # put back after the test
    for name in [name for name in sys.modules if name.startswith("egtmetrics.integrations")]:
        monkeypatch.delitem(sys.modules, name)
    for library in (*LIBRARY.values(), "fairlearn"):
        monkeypatch.setitem(sys.modules, library, None)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_missing_library_is_named_with_its_extra(name: str) -> None:
    integrations = import_module("egtmetrics.integrations")
    message = (
        rf"egtmetrics.integrations.{name} needs (pytorch-)?{LIBRARY[name]} \(.*\); pip install 'egtmetrics\[loops\]'"
    )
    with pytest.raises(ImportError, match=message):
        getattr(integrations, name)
    assert name in dir(integrations)


def test_fairlearn_metrics_need_no_fairlearn() -> None:
    assert import_module("egtmetrics.integrations").fairlearn_metric("fid")([0.0, 2.0], [1.0, 3.0]) == 1.0


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'GroupMetrics'"):
        _ = import_module("egtmetrics.integrations").GroupMetrics
