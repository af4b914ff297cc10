"""Assert what the sdist and the wheel hold, install the wheel in a new environment, and use it from an empty folder.

python .ci/check_dist.py dist
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUBS = ["mypy", "pandas-stubs", "scipy-stubs", "types-tabulate", "types-tqdm"]
USE = """
import sys
import egtmetrics
assert not {m for m in sys.modules if m.partition(".")[0] in ("torch", "matplotlib")}, "import pulls in a framework"
assert "egtmetrics.ops" not in sys.modules, "import loads the kernels"
import numpy as np
from egtmetrics import precision_recall_density_coverage
x = np.random.default_rng(0).normal(size=(100, 4))
result = precision_recall_density_coverage(x, x[::-1])
assert result.backend == "cpu", result
assert result.precision == result.recall == 1.0, result
"""


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise SystemExit(f"check_dist: {message}")


def tracked(*patterns: str) -> set[str]:
    listing = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listing.stdout.split())


def check_contents(sdist: Path, wheel: Path) -> None:
    sources = tracked("egtmetrics")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = (
        sources | tracked("csrc") | {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "README.md"}
    ) - names
    expect(not missing, f"the sdist lacks {sorted(missing)}")

    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {name for name in names if name.endswith(".so")}
    expect(names - modules == sources, f"the wheel differs from the sources by {sorted((names - modules) ^ sources)}")
    expect(len(modules) == 1 and "egtmetrics/ops/_cpu." in min(modules), f"compiled modules: {sorted(modules)}")


def check_installed(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder) / "venv", with_pip=True)
        python = str(Path(folder) / "venv" / "bin" / "python")
        empty = Path(folder) / "empty"
        empty.mkdir()
        for command in (
            [python, "-m", "pip", "install", "--quiet", f"{wheel}[figures,files]", *STUBS],
            [python, "-c", USE],
            [python, "-m", "egtmetrics", "info"],
            [python, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "egtmetrics"],
        ):
            expect(subprocess.run(command, cwd=empty, check=False).returncode == 0, f"failed: {' '.join(command)}")


def main(folder: Path) -> None:
    folder = folder.resolve()
    (sdist,), (wheel,) = sorted(folder.glob("*.tar.gz")), sorted(folder.glob("*.whl"))
    check_contents(sdist, wheel)
    check_installed(wheel)
    print(f"{sdist.name} and {wheel.name} hold what they should and work in an empty folder")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
