"""Build the C++ kernels with CMake; everything else is in pyproject.toml."""

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


class CMakeExtension(Extension):
    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        destination = Path(self.get_ext_fullpath(ext.name)).resolve().parent
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
        for command in (configure, ["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)]):
            result = subprocess.run(command, check=False)
            if result.returncode != 0:
                raise SystemExit(
                    f"building the kernels failed at: {' '.join(command)}\n"
                    "A C++17 compiler (gcc 10 or clang 13 and newer) and make are needed; see CONTRIBUTING.md."
                )


setup(ext_modules=[CMakeExtension("egtmetrics.ops._cpu")], cmdclass={"build_ext": CMakeBuild})
