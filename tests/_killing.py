"""Kill a process without warning: once it has reached a certain point, or at every step that changes a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


def kill_when(reached: Callable[[], bool], command: Sequence[str | Path], *, timeout: float = 3600.0) -> None:
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


_AT_EVERY_STEP = """
import hashlib, json, os, resource, signal, sys
from pathlib import Path
from egtmetrics.cli import main
from egtmetrics.report import render
from egtmetrics.report.page import render_page
import egtmetrics.metrics, matplotlib.backends.backend_agg
outputs, words = json.loads(sys.argv[1])
folder = Path.cwd()

def run(kill_at=None, bytes_written=None):
    for name in outputs:
        Path(name).write_text("old")
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        steps = Path("steps").stat().st_size if Path("steps").exists() else 0
        for name in {*found} - before:
            Path(name).unlink()
        found.pop("steps", None)
        return {"status": status, "steps": steps, "files": found}
    steps = os.open("steps", os.O_WRONLY | os.O_CREAT)
    seen = 0
    def hook(event, args):
        nonlocal seen
        changes = args[2] & (os.O_WRONLY | os.O_RDWR) if event == "open" else event in ("os.rename", "os.remove")
        if changes and isinstance(args[0], (str, Path)) and Path(args[0]).absolute().parent == folder:
            seen += 1
            os.write(steps, b".")
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    if bytes_written is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which kills; Python ignores it
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_written, bytes_written))
    sys.addaudithook(hook)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1), os.dup2(nowhere, 2)
    os._exit(main(words))

before = {path.name for path in folder.iterdir()}
whole = run()
killed = [run(kill_at=step + 1) for step in range(whole["steps"])] + [run(bytes_written=n) for n in (40, 400)]
print(json.dumps([whole, killed]))
"""


def killed_at_every_step(words: Sequence[str], outputs: Sequence[str], folder: Path) -> tuple[Any, list[Any]]:
    """Run ``egtmetrics`` with ``words`` in ``folder`` once, and then kill it before every step that changes a file.

    A step opens a file of the folder to write, or renames or removes one. Two more runs end amid a write. Each
    begins with files ``outputs`` that hold "old". Return of every run the status, the number of steps, and the digests
    of the files of the folder at its end.
    """
    # One thread: threads do not survive a fork.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", _AT_EVERY_STEP, json.dumps([outputs, words])]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole, killed = json.loads(done.stdout.splitlines()[-1])
    return whole, killed
