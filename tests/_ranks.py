"""Run a function of this package's tests on several gloo processes, and collect what each returned or raised."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
# The ranks are forked from a process that has already imported everything: importing takes longer than most tests.
_RANKS = """
import importlib.util, json, os, pickle, sys, traceback
import torch.distributed as dist
folder, path, name, size = sys.argv[1:]
spec = importlib.util.spec_from_file_location("case", path)
case = importlib.util.module_from_spec(spec)
spec.loader.exec_module(case)


def run(rank):
    # The variables that torchrun sets. The ranks find each other through a file, so the port is not used.
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({key: str(value) for key, value in ranks.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=int(size))
    try:
        outcome = getattr(case, name)(rank, int(size))
    except Exception as error:
        outcome = RuntimeError(f"{type(error).__name__}: {error}")
    with open(f"{folder}/{rank}", "wb") as file:
        pickle.dump(outcome, file)


ranks = []
for rank in range(int(size)):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(rank)
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)  # skip gloo's destructor: it waits for dead ranks and may deadlock with its thread on the GIL
    ranks.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks]))
"""


def on_ranks(function: Any, size: int, folder: Path, *, timeout: float = 3600.0) -> list[Any]:
    """Return the outcome of ``function(rank, size)`` by rank: a value, a RuntimeError, or None if the rank died."""
    path = sys.modules[function.__module__].__file__
    # One thread each: threads do not survive a fork.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-c", _RANKS, str(folder), str(path), function.__name__, str(size)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    with process:
        try:
            statuses, errors = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors.decode()
    outcomes: list[Any] = []
    for rank, status in enumerate(json.loads(statuses.splitlines()[-1])):
        assert status in (0, 9), errors.decode()
        outcomes.append(pickle.loads((folder / str(rank)).read_bytes()) if status == 0 else None)
    return outcomes
