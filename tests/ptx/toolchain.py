"""nvcc, where it is, and the PTX it makes of a source."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.cuda_static import find_nvcc
from tests.simt.build import SMALL

SOURCES = Path(__file__).resolve().parents[2] / "csrc"


def _headers() -> bytes:
    headers = sorted(path for path in SOURCES.rglob("*") if path.suffix in (".cuh", ".hpp"))
    return b"".join(path.read_bytes() for path in headers)


def ptx_of(source: Path, architecture: str = "compute_75") -> str:
    """The PTX of a source, kept in a folder of this user until something changes, for all workers of a test run."""
    nvcc = find_nvcc()
    assert nvcc is not None
    version = subprocess.run([nvcc, "--version"], capture_output=True, check=True).stdout
    included = _headers() if source.is_relative_to(SOURCES) else b""
    digest = hashlib.sha256(b"\0".join([version, SMALL.encode(), source.read_bytes(), included])).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"egtmetrics-ptx-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to another user")
    kept = folder / f"{source.stem}-{architecture}-{digest}.ptx"
    with open(kept.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            fresh = kept.with_suffix(".new")
            command = [nvcc, "-std=c++17", "-O3", f"-arch={architecture}", SMALL, "-ptx", f"-I{SOURCES}"]
            command += [f"-I{SOURCES / 'include'}", "-o", str(fresh), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"nvcc: {done.stderr}")
            fresh.replace(kept)
    return kept.read_text()
