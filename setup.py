"""Build the kernels with CMake; everything else is in pyproject.toml.

EGTMETRICS_CUDA=0                     leave the CUDA module out although there is an nvcc
EGTMETRICS_CUDA_ARCHITECTURES="90"    build it for these instead, in CMake's notation, separated by semicolons
"""

from __future__ import annotations

import os
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
    """CMake looks on PATH only."""
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


def cuda_architectures(nvcc: str, *, editable: bool) -> str:
    """Return what to build for: every architecture that this nvcc knows, and the last one's PTX for those to come.

    An editable install takes the first one's PTX alone, which compiles in a fraction of the time and which the driver
    of any card translates on first use.
    """
    if chosen := os.environ.get("EGTMETRICS_CUDA_ARCHITECTURES"):
        return chosen
    listing = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False).stdout.split()
    known = [number for number in CUDA_ARCHITECTURES if f"compute_{number}" in listing]
    if not known:
        raise SystemExit(
            f"{nvcc} compiles for none of the architectures {CUDA_ARCHITECTURES}; install a newer CUDA toolkit, or set "
            "EGTMETRICS_CUDA=0 to build without the CUDA kernels"
        )
    if editable:
        return f"{known[0]}-virtual"
    return ";".join([*(f"{number}-real" for number in known), f"{known[-1]}-virtual"])


class CMakeExtension(Extension):
    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        destination = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        target = ext.name.rpartition(".")[2]
        # Fresh every time: a folder left by an isolated build remembers a CMake and a Python that are gone.
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
            architectures = cuda_architectures(str(nvcc), editable=self.editable_mode)
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
