"""Start a process, and kill it without warning once it has reached a certain point."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def kill_when(reached: Callable[[], bool], command: Sequence[str | Path], *, timeout: float = 300.0) -> None:
    """Run ``command`` from the project's root until ``reached()``, which must become true before the process ends."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(list(map(str, command)), cwd=_ROOT, env=environment)
    deadline = time.monotonic() + timeout
    try:
        while not reached():
            assert process.poll() is None, "the process ended before the point was reached"
            assert time.monotonic() < deadline, "the point was not reached in time"
            time.sleep(0.003)
    finally:
        process.kill()
        status = process.wait()
    assert status == -9
