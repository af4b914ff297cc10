"""Compiles the CUDA sources with the host's compiler against tests/simt/cuda_runtime.h and loads the result."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pybind11

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
COMPILER = "g++"  # the hooks of the checked build are those that GCC calls

SMALL = "-DEGT_LIST_SIZE=100"  # lists that small sets fill; also in the PTX that tests/ptx compares
COMMON = (
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-g1",
    SMALL,
    "-DEGT_SIMT",
    "-DEGT_MODULE=_cuda",
)
BINDING = ("-O0", '-DEGT_CUDA_COMPILER="host"', '-DEGT_CUDA_ARCHITECTURES="host"')
KERNELS = ("-O2", "-fno-ipa-reference", "-ffp-contract=off")
# Calls to memset in place of loops would go unseen, and variables are moved apart.
CHECKED_KERNELS = (
    "-O1",
    "-fno-ipa-reference",
    "-ffp-contract=off",
    "-fno-tree-loop-distribute-patterns",
    "-fno-section-anchors",
    "-fsanitize=thread,bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow",
)
RUNTIME = ("-O2",)
MARGIN = 64  # bytes between shared variables in the checked build
UNUSED_FOR_DAYS = 7


def load(checked: bool = False, sources: Sequence[Path] | None = None, csrc: Path | None = None) -> Any:
    """The module of the given sources (by default the binding and all of csrc/cuda), compiled where it changed.

    checked: with the detection of accesses out of bounds, races and reads of uninitialised memory. It knows the NumPy
    arrays that were made since the first checked module was loaded; other memory must be registered.
    csrc: a changed copy of the folder of that name.
    """
    csrc = CSRC if csrc is None else csrc
    if sources is None:
        sources = [*sorted((csrc / "cuda").glob("*.cu")), csrc / "bindings" / "cuda_module.cpp"]
    return _imported(_built(checked, tuple(sources), csrc))


@functools.cache
def _imported(path: Path) -> Any:
    name = f"simt_{path.stem}._cuda"
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    before = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_LOCAL)  # functions of sources that were left out fail when called
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    finally:
        sys.setdlopenflags(before)
    return module


@functools.cache
def _built(checked: bool, sources: tuple[Path, ...], csrc: Path) -> Path:
    """The shared object of these sources."""
    own = [HERE / name for name in ("runtime.cpp", "module.cpp", *(("checker.cpp", "arrays.cpp") if checked else ()))]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(lambda source: _object(source, checked, csrc), [*sources, *own]))
    key = _hash(*(path.name for path in objects))
    return _made(cache() / f"{key}.so", lambda out: _run(COMPILER, "-shared", "-o", out, *objects))


def changed_copy(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of csrc in which `old`, which must occur once in the file, is `new`."""
    shutil.copytree(CSRC, folder)
    text = (folder / file).read_text()
    if text.count(old) != 1:
        raise ValueError(f"{file} has this text {text.count(old)} times: {old}")
    (folder / file).write_text(text.replace(old, new))
    return folder


def _object(source: Path, checked: bool, csrc: Path) -> Path:
    flags = list(COMMON)
    if source.suffix == ".cu":
        flags += CHECKED_KERNELS if checked else KERNELS
    elif "pybind11" in source.read_text():
        flags += BINDING
    else:
        flags += [*RUNTIME, *(["-DSIMT_CHECKED"] if checked else [])]
    own = (HERE, csrc, csrc / "include")
    others = (pybind11.get_include(), sysconfig.get_path("include"), np.get_include())
    texts = [str(path) + text for path, text in sorted(_included(source, own).items())]
    key = _hash(_version(), *flags, str(MARGIN), *map(str, others), *texts)
    command = [COMPILER, *flags, *(f"-I{folder}" for folder in own), *(f"-isystem{folder}" for folder in others)]

    def make(out: Path) -> None:
        if checked and source.suffix == ".cu":
            assembly = out.with_suffix(".s")
            _run(*command, "-x", "c++", "-S", source, "-o", assembly)
            assembly.write_text(_with_margins(assembly.read_text()))
            _run(COMPILER, "-c", assembly, "-o", out)
            assembly.unlink()
        else:
            _run(*command, "-x", "c++", "-c", source, "-o", out)

    return _made(cache() / f"{key}.o", make)


def _with_margins(assembly: str) -> str:
    """Assembly in which every variable of a function that is zero at first is followed by unused bytes."""

    def separate(match: re.Match[str]) -> str:
        name, size, alignment = match.group(1), int(match.group(2)), match.group(3)
        return (
            f'\t.pushsection .bss.simt,"aw",@nobits\n\t.balign {alignment}\n\t.type {name}, %object\n'
            f"\t.size {name}, {size}\n{name}:\n\t.zero {size + MARGIN}\n\t.popsection"
        )

    assembly = re.sub(r"\t\.local\t(_ZZ\w+)\n\t\.comm\t\1,(\d+),(\d+)", separate, assembly)
    return re.sub(
        r"^(_ZZ\w+:\n\t\.zero\t)(\d+)$", lambda m: m[1] + str(int(m[2]) + MARGIN), assembly, flags=re.MULTILINE
    )


def _included(source: Path, folders: Sequence[Path]) -> dict[str, str]:
    """The texts of the source and of all project files that it includes, by their names."""
    texts: dict[str, str] = {}

    def add(name: str, path: Path) -> None:
        if name in texts:
            return
        texts[name] = path.read_text()
        for included in re.findall(r'^\s*#include\s+["<]([^">]+)[">]', texts[name], re.MULTILINE):
            for folder in (path.parent, *folders):
                if (folder / included).is_file():
                    add(included, folder / included)
                    break

    add(source.name, source)
    return texts


@functools.cache
def cache() -> Path:
    """A folder that only this user can read; files that were not used for a week are deleted from it."""
    folder = Path(tempfile.gettempdir()) / f"egtmetrics-simt-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to another user")
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime > UNUSED_FOR_DAYS * 86400:
                path.unlink()
        except FileNotFoundError:
            pass
    return folder


def _made(path: Path, make: Any) -> Path:
    """The file, made if it does not exist; of several processes that need it, one makes it and the others wait."""
    if not path.exists():
        with open(path.with_suffix(path.suffix + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                unfinished = path.with_suffix(f".{os.getpid()}{path.suffix}")
                make(unfinished)
                os.replace(unfinished, path)
    os.utime(path)
    return path


def _run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stderr}")


@functools.cache
def _version() -> str:
    version = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True).stdout
    return f"{version} {platform.machine()} {pybind11.__version__} {np.__version__} {sys.version}"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@contextmanager
def registered(module: Any, *arrays: np.ndarray[Any, Any], **options: Any) -> Iterator[None]:
    """Lets kernels use memory that NumPy did not allocate, such as tensors seen as arrays."""
    for array in arrays:
        module.simt_register(array.ctypes.data, array.nbytes, **options)
    try:
        yield
    finally:
        for array in arrays:
            module.simt_unregister(array.ctypes.data)
