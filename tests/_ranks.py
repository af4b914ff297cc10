"""Run a function of this package's tests on several gloo processes, and collect what each returned or raised."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_RANK = """
import importlib.util, os, pickle, sys
import torch.distributed as dist
folder, path, name, rank, size = sys.argv[1:]
spec = importlib.util.spec_from_file_location("case", path)
case = importlib.util.module_from_spec(spec)
spec.loader.exec_module(case)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=int(rank), world_size=int(size))
try:
    outcome = getattr(case, name)(int(rank), int(size))
except Exception as error:
    outcome = RuntimeError(f"{type(error).__name__}: {error}")
with open(f"{folder}/{rank}", "wb") as file:
    pickle.dump(outcome, file)
os._exit(0)  # gloo's destructor waits for dead ranks, and holds the GIL while its thread may want it
"""


def on_ranks(function: Any, size: int, folder: Path, *, timeout: float = 300.0) -> list[Any]:
    """What ``function(rank, size)`` gave on each rank: its value, its error as RuntimeError, None if the rank died."""
    path = sys.modules[function.__module__].__file__
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, str(folder), str(path), function.__name__, str(rank), str(size)],
            env={**environment, **_torchrun(rank, size)},
            stderr=subprocess.PIPE,
        )
        for rank in range(size)
    ]
    deadline = time.monotonic() + timeout
    try:
        errors = [rank.communicate(timeout=max(0.1, deadline - time.monotonic()))[1].decode() for rank in ranks]
    finally:
        for process in ranks:
            with process:  # which closes its pipe and waits for it
                process.kill()
    outcomes: list[Any] = []
    for rank, process in enumerate(ranks):
        assert process.returncode in (0, 9), errors[rank]
        outcomes.append(pickle.loads((folder / str(rank)).read_bytes()) if process.returncode == 0 else None)
    return outcomes


def _torchrun(rank: int, size: int) -> dict[str, str]:
    """What torchrun would set; the ranks meet by a file, so that the port is not used."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
    }  # fmt: skip
