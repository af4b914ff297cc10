"""How many threads this process should use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def available_threads() -> int:
    """Return the number of cores this process may run on, at most what the quota of its cgroup pays for.

    A container with a quota of two cores sees all cores of its machine. With a thread for each of them, it uses its
    quota up at once and then waits, all threads together, for the next period.
    """
    # macOS holds no process to some of its cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cgroup_cores())))


@cache
def cgroup_cores(root: Path = Path("/")) -> float:
    """Return how many cores the processor quota of this process's cgroup is worth; infinity where there is none."""
    return min(_cgroup_quotas(root), default=math.inf)


def _cgroup_quotas(root: Path) -> Iterator[float]:
    """Quotas, in cores, of the cgroup and of those around it, as versions 1 and 2 have them."""
    try:
        entries = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for entry in entries:
        _, controllers, own = entry.split(":", 2)
        if not controllers:
            top, names = mounted, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            top, names = mounted / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        # Inside a container the path may be that of the machine, of which only the end, or nothing, is mounted.
        folder = top / own.strip("/")
        for group in (folder, *(one for one in folder.parents if one.is_relative_to(top))):
            try:
                quota, period = " ".join((group / name).read_text() for name in names).split()
                if quota not in ("max", "-1"):
                    yield int(quota) / int(period)
            except (OSError, ValueError, ZeroDivisionError):  # not there, or not as documented
                continue
