"""``egtmetrics info``: versions, and what the kernels run on."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import egtmetrics
from egtmetrics import __version__
from egtmetrics.cli._common import Commands
from egtmetrics.cli._messages import one_line
from egtmetrics.cli._streams import show


def add_to(commands: Commands) -> None:
    info = commands.add_parser("info", help="versions, and what the kernels run on", description=_info.__doc__)
    info.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> None:
    """Print versions, the backend that "auto" takes and why, and how the kernels were built."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from egtmetrics.ops import available_threads, select_backend
    from egtmetrics.ops._native import cuda_module, native_module

    lines = {
        "egtmetrics": f"{__version__} ({Path(egtmetrics.__file__).parent})",
        "Python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})",
    }
    for package in ("numpy", "scipy", "pandas", "torch", "matplotlib"):
        try:
            lines[package] = version(package)
        except PackageNotFoundError:
            lines[package] = "not installed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason is printed below
        lines["backend"] = select_backend().name
    try:
        module = native_module()
    except ImportError as error:
        lines["kernels"] = f"not loaded: {one_line(error)}"
    else:
        lines["kernels"] = str(module.__file__)
        lines |= {f"  {key}": str(value) for key, value in module.build_info().items()}
    lines |= _cuda_lines(cuda_module)
    lines["cores"] = f"{available_threads()} for this process, of {os.cpu_count()}"
    width = max(map(len, lines))
    show("".join(f"{name:<{width}}  {value}\n" for name, value in lines.items()))


def _cuda_lines(load: Callable[[], Any]) -> dict[str, str]:
    """Say whether the CUDA kernels were built, for what, and on which devices they can run; torch is not loaded."""
    try:
        module = load()
    except ModuleNotFoundError:
        return {"CUDA kernels": "not built"}
    except ImportError as error:
        return {"CUDA kernels": f"not loaded: {one_line(error)}"}
    lines = {"CUDA kernels": str(module.__file__)}
    lines |= {f"  CUDA {key}": str(value) for key, value in module.build_info().items()}
    reason = module.device_error()
    if reason:
        lines["  device"] = f"none ({one_line(reason)})"
    for device in range(0 if reason else module.device_count()):
        info = module.device_info(device)
        capability = ".".join(map(str, info["capability"]))
        lines[f"  device {device}"] = (
            f"{info['name']}, compute capability {capability}, {info['memory'] / 2**30:.0f} GiB"
        )
    return lines
