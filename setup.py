"""Build the kernels with CMake; everything else is in pyproject.toml.

If nvcc is found, the CUDA module is built for the cards that nvidia-smi lists. If it lists none, as in the build of a
container, the module holds only PTX for the oldest architecture. That compiles in a fraction of the time, and the
driver of any card translates it on first use.

EGTMETRICS_CUDA=0                       do not build the CUDA module
EGTMETRICS_CUDA_ARCHITECTURES=all       build it for every card, as for a wheel to distribute
EGTMETRICS_CUDA_ARCHITECTURES="80;90"   build it for these architectures, in CMake's notation
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CUDA_ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


def find_nvcc() -> str | None:
    """Find nvcc, also where CMake does not look: CMake searches PATH only."""
    if os.environ.get("EGTMETRICS_CUDA") == "0":
        return None
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    candidates = [
        os.environ.get("CUDACXX"),
        *(str(Path(home, "bin", "nvcc")) for home in homes),
        "nvcc",
        *(str(path) for folder in ("/usr/local/cuda", "/opt/cuda") for path in Path(folder, "bin").glob("nvcc")),
    ]
    return next((found for name in candidates if name and (found := shutil.which(name))), None)


def card_architectures() -> list[int]:
    """Return the compute capabilities of this machine's cards (90 for 9.0); empty without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return []
    return sorted({int(line.replace(".", "")) for line in done.stdout.split() if re.fullmatch(r"\d+\.\d", line)})


def cuda_architectures(nvcc: str) -> str:
    """Return the architectures to build for, in CMake's notation; see the top of this file."""
    chosen = os.environ.get("EGTMETRICS_CUDA_ARCHITECTURES")
    if chosen and chosen != "all":
        return chosen
    listing = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False).stdout.split()
    known = [number for number in CUDA_ARCHITECTURES if f"compute_{number}" in listing]
    if not known:
        raise SystemExit(
            f"{nvcc} compiles for none of the architectures {CUDA_ARCHITECTURES}; install a newer CUDA toolkit, or set "
            "EGTMETRICS_CUDA=0 to build without the CUDA kernels"
        )
    if chosen == "all":
        return ";".join([*(f"{number}-real" for number in known), f"{known[-1]}-virtual"])
    if not (cards := card_architectures()):
        return f"{known[0]}-virtual"
    # The driver of a card that is newer than nvcc translates the newest PTX.
    return ";".join(f"{card}-real" if f"compute_{card}" in listing else f"{known[-1]}-virtual" for card in cards)


class CMakeExtension(Extension):
    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            # If the checkout's folder is named egtmetrics, a Python started in its parent takes it for a namespace
            # package before it asks setuptools' finder. A package on the path comes before a namespace package.
            wheel = Path(self.get_finalized_command("install").install_lib)
            (wheel / "egtmetrics-checkout.pth").write_text(f"{ROOT}\n")

    def build_extension(self, ext: Extension) -> None:
        destination = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        target = ext.name.rpartition(".")[2]
        # Start fresh: a folder left by an isolated build refers to a CMake and a Python that no longer exist.
        build = Path(self.build_temp).resolve() / ext.name
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={destination}",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        remedy = "A C++17 compiler (gcc 10 or clang 13 and newer) and make are needed; see CONTRIBUTING.md."
        if target == "_cuda":
            architectures = cuda_architectures(str(nvcc))
            configure += [f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DCMAKE_CUDA_ARCHITECTURES={architectures}"]
            remedy = f"The CUDA compiler was {nvcc}; set EGTMETRICS_CUDA=0 to build without the CUDA kernels."
        jobs = str(os.cpu_count() or 1)
        for command in (configure, ["cmake", "--build", str(build), "--target", target, "--parallel", jobs]):
            result = subprocess.run(command, check=False)
            if result.returncode != 0:
                raise SystemExit(f"building the kernels failed at: {' '.join(command)}\n{remedy}")


nvcc = find_nvcc()
modules = ["egtmetrics.ops._cpu"] + (["egtmetrics.ops._cuda"] if nvcc else [])
setup(ext_modules=[CMakeExtension(name) for name in modules], cmdclass={"build_ext": CMakeBuild})
