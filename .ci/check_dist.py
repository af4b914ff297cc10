"""Assert what the sdist and the wheels hold, install the wheel in a new environment, and use it from an empty folder.

python .ci/check_dist.py dist

dist/cpu holds the wheel that was built without CUDA although there may be an nvcc.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKERS = ["import-linter", "mypy", "pandas-stubs", "scipy-stubs", "types-tabulate", "types-tqdm"]
# The import contract has training as an optional layer, so it would also hold for a graph without it.
SEES_TRAINING = """
import grimp
assert "egtmetrics.training.losses" in grimp.build_graph("egtmetrics").modules
"""
# Needs neither a driver nor torch: the runtime is linked in.
USE_CUDA = """
from egtmetrics.ops._native import cuda_module
module = cuda_module()
assert "120-virtual" in module.build_info()["architectures"], module.build_info()
assert (module.device_count() > 0) == (module.device_error() == ""), module.device_error()
"""


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise SystemExit(f"check_dist: {message}")


def tracked(*patterns: str) -> set[str]:
    listing = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listing.stdout.split())


def packaged() -> set[str]:
    """The sources as a wheel lays them out."""
    return tracked("egtmetrics") | {f"egtmetrics/{path}" for path in tracked("training")}


def compiled_modules(wheel: Path) -> list[str]:
    """Check the rest of a wheel, and return the names of its compiled modules."""
    sources = packaged()
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {name for name in names if name.endswith(".so")}
    expect(names - modules == sources, f"the wheel differs from the sources by {sorted((names - modules) ^ sources)}")
    return sorted(name.partition(".")[0] for name in modules)


def check_contents(sdist: Path, wheel: Path, cpu_wheel: Path, *, cuda: bool) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = tracked("egtmetrics", "training", "csrc")
    missing = (wanted | {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "README.md"}) - names
    expect(not missing, f"the sdist lacks {sorted(missing)}")

    both = ["egtmetrics/ops/_cpu", "egtmetrics/ops/_cuda"]
    for path, wanted in ((wheel, both if cuda else both[:1]), (cpu_wheel, both[:1])):
        expect(compiled_modules(path) == wanted, f"{path} holds {compiled_modules(path)}, expected {wanted}")


def check_installed(wheel: Path, *, cuda: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder) / "venv", with_pip=True)
        scripts = Path(folder) / "venv" / "bin"
        python = str(scripts / "python")
        empty = Path(folder) / "empty"
        empty.mkdir()
        environment = os.environ | {"PIP_CONSTRAINT": (ROOT / "constraints.txt").as_uri()}
        for command in (
            [python, "-m", "pip", "install", "--quiet", f"{wheel}[figures,files]"],
            [python, str(ROOT / ".ci" / "use.py")],
            *([[python, "-c", USE_CUDA]] if cuda else []),
            [python, "-m", "egtmetrics", "info"],
            [python, "-m", "pip", "install", "--quiet", f"{wheel}[training]", *CHECKERS],
            [python, "-c", "import egtmetrics.training"],
            [python, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "egtmetrics"],
            [python, "-c", SEES_TRAINING],
            [str(scripts / "lint-imports"), str(ROOT / "pyproject.toml")],
        ):
            done = subprocess.run(command, cwd=empty, env=environment, check=False)
            expect(done.returncode == 0, f"failed: {' '.join(command)}")


def main(folder: Path) -> None:
    folder = folder.resolve()
    (sdist,), (wheel,), (cpu_wheel,) = (list(folder.glob(name)) for name in ("*.tar.gz", "*.whl", "cpu/*.whl"))
    # As the editable install beside them was built.
    cuda = any((ROOT / "egtmetrics" / "ops").glob("_cuda.*"))
    check_contents(sdist, wheel, cpu_wheel, cuda=cuda)
    check_installed(wheel, cuda=cuda)
    print(f"{sdist.name} and {wheel.name} hold what they should and work in an empty folder")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
