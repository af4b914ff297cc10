"""Start a process of its own, and kill it without warning when it has got somewhere."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def kill_when(there: Callable[[], bool], command: Sequence[str | Path], *, timeout: float = 300.0) -> None:
    """Run ``command`` from the project's root until ``there()``, which has to come before its end."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(list(map(str, command)), cwd=_ROOT, env=environment)
    deadline = time.monotonic() + timeout
    try:
        while not there():
            assert process.poll() is None, "it has ended before"
            assert time.monotonic() < deadline, "it has not got there in time"
            time.sleep(0.003)
    finally:
        process.kill()
        status = process.wait()
    assert status == -9
