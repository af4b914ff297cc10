"""``egtmetrics info`` and ``--version``: versions, how the kernels were built, and what they run on."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import egtmetrics
from egtmetrics import __version__
from egtmetrics.cli._common import Commands
from egtmetrics.cli._messages import one_line
from egtmetrics.cli._streams import show


def add_to(commands: Commands) -> None:
    info = commands.add_parser("info", help="versions, and what the kernels run on", description=_info.__doc__)
    info.set_defaults(run=_info)


class Version(argparse.Action):
    """Print the version and how this copy was built, and exit."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        help = "print the version and how this copy was built, and exit"
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        show(_table(_version_lines() | _kernel_lines() | _cuda_build_lines()))
        parser.exit()


def _info(args: argparse.Namespace) -> None:
    """Print versions, the backend that "auto" takes and why, and how the kernels were built."""
    from importlib.metadata import PackageNotFoundError, version

    from egtmetrics.ops import available_threads, select_backend

    lines = _version_lines()
    for package in ("numpy", "scipy", "pandas", "torch", "matplotlib"):
        try:
            lines[package] = version(package)
        except PackageNotFoundError:
            lines[package] = "not installed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason is printed below
        lines["backend"] = select_backend().name
    lines |= _kernel_lines() | _cuda_build_lines() | _device_lines()
    lines["cores"] = f"{available_threads()} for this process, of {os.cpu_count()}"
    show(_table(lines))


def _table(lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "".join(f"{name:<{width}}  {value}\n" for name, value in lines.items())


def _version_lines() -> dict[str, str]:
    import platform

    return {
        "egtmetrics": f"{__version__} ({Path(egtmetrics.__file__).parent})",
        "Python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})",
    }


def _kernel_lines() -> dict[str, str]:
    """Say how the CPU kernels were built, and which instruction set they use here."""
    from egtmetrics.ops._native import native_module

    try:
        module = native_module()
    except ImportError as error:
        return {"kernels": f"not loaded: {one_line(error)}"}
    return {"kernels": str(module.__file__)} | {f"  {key}": str(value) for key, value in module.build_info().items()}


def _cuda_build_lines() -> dict[str, str]:
    """Say whether the CUDA kernels were built, and for what."""
    from egtmetrics.ops._native import cuda_module

    try:
        module = cuda_module()
    except ModuleNotFoundError:
        return {"CUDA kernels": "not built"}
    except ImportError as error:
        return {"CUDA kernels": f"not loaded: {one_line(error)}"}
    built = {f"  CUDA {key}": str(value) for key, value in module.build_info().items()}
    return {"CUDA kernels": str(module.__file__)} | built


def _device_lines() -> dict[str, str]:
    """Say on which devices the CUDA kernels can run; torch is not loaded."""
    from egtmetrics.ops._native import cuda_module

    try:
        module = cuda_module()
    except ImportError:
        return {}
    lines = {}
    if reason := module.device_error():
        lines["  device"] = f"none ({one_line(reason)})"
    for device in range(0 if reason else module.device_count()):
        info = module.device_info(device)
        capability = ".".join(map(str, info["capability"]))
        lines[f"  device {device}"] = (
            f"{info['name']}, compute capability {capability}, {info['memory'] / 2**30:.0f} GiB"
        )
    return lines
