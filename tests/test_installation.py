"""How the package is installed, and the versions that its environments are installed with."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def name_of(requirement: str) -> str:
    """``Some_Package[extra]>=1`` is some-package."""
    return re.split(r"[\[=<>!~; ]", requirement)[0].lower().replace("_", "-")


def test_import_beside_a_folder_of_the_same_name(tmp_path: Path) -> None:
    """As in the parent of a clone: Python puts the working folder first on its path."""
    (tmp_path / "egtmetrics").mkdir()
    code = "import importlib.util as u; print(*(u.find_spec(n).origin for n in ('egtmetrics', 'egtmetrics.training')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [Path(origin).name for origin in done.stdout.split()] == ["__init__.py"] * 2, done.stdout


def test_the_lock_names_one_version_of_every_requirement() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", line)]
    locked = [name_of(line) for line in lines]
    assert len(locked) == len(set(locked))

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra, requirements in project["project"]["optional-dependencies"].items():
        if extra != "gpu":  # in no environment of the Makefile
            wanted += requirements
    missing = {name_of(requirement) for requirement in wanted} - {"egtmetrics", *locked}
    assert not missing, f"run make lock: constraints.txt lacks {sorted(missing)}"
