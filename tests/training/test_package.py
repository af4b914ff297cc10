from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import egtmetrics.training

MODULES = sorted(
    path.stem for path in Path(egtmetrics.training.__file__).parent.glob("*.py") if path.stem != "__init__"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    """pytest's own collection would import the folder a second time, as ``training``."""
    module = importlib.import_module(f"egtmetrics.training.{name}")
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0 or name.startswith("_")


def test_public_names_exist_and_are_documented() -> None:
    for name in egtmetrics.training.__all__:
        assert getattr(egtmetrics.training, name).__doc__


def test_a_second_import_under_the_bare_name_is_refused() -> None:
    root = Path(__file__).parents[2]
    code = "import training"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "this package is egtmetrics.training, but was imported as 'training'" in result.stderr


def test_import_loads_neither_pandas_nor_scikit_learn_nor_matplotlib() -> None:
    code = "import sys, egtmetrics.training; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"pandas", "sklearn", "matplotlib"}.isdisjoint(result.stdout.split())
    assert {"torch", "egtmetrics"} <= set(result.stdout.split())
