"""Say whether a run of the benchmark is slower, beside its peers, than the best kept run on the same kind of machine.

    python -m benchmarks.gate benchmarks/results/history/cpu-amd-avx512/DATE-COMMIT.json

The times of one row are from one run, so a slow machine slows the peers, too: ratios are compared, not seconds. The
exit status is 1 if a ratio to another package fell by more than TOLERANCE.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

TOLERANCE = 0.25
"""By which part of the best kept ratio one may fall: docs/adr/0050-site-and-speed.md says why so much."""
OURSELVES = ("B = 10 of the same", "the metric on", "one evaluation", "first call", "with a reference", "without")
"""What a row may be compared with that is this library, too: it falls when the other call becomes faster."""

Ratios = dict[tuple[str, str], float]
"""By the row and the peer, how many times as long the peer takes."""


def ratios(run: dict[str, Any]) -> Ratios:
    """Return the ratios to other packages."""
    return {
        (row["name"], peer): found["ratio"]
        for row in run["rows"]
        for peer, found in row["peers"].items()
        if not peer.startswith(OURSELVES)
    }


def losses(run: dict[str, Any], kept: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Say which ratios fell, with the commit of the best one and what else was different then."""
    found = ratios(run)
    best: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}
    for other in kept:
        for key, ratio in ratios(other).items():
            if key in found and ratio > best.get(key, (0.0, {}))[0]:
                best[key] = ratio, other
    if not best:
        yield f"{run['class']}: no kept run has any of these rows, so nothing was compared"
    for (name, peer), (ratio, other) in best.items():
        now = found[name, peer]
        if now < (1 - TOLERANCE) * ratio:
            before, after = other["machine"]["versions"], run["machine"]["versions"]
            changed = [f"{one} {before.get(one)} -> {after.get(one)}" for one in after if before.get(one) != after[one]]
            yield (
                f"{name}: {now:.3g}x {peer}, {1 - now / ratio:.0%} less than {ratio:.3g}x at {other['commit']}"
                + (f" (versions: {', '.join(changed)})" if changed else "")
            )


def report(path: Path, history: Path) -> bool:
    """Print what fell, and return whether something did; the first run on a kind of machine passes."""
    run = json.loads(path.read_text())
    files = [file for file in (history / run["class"]).glob("*.json") if file.resolve() != path.resolve()]
    if not files:
        print(f"{run['class']}: no other run is kept, so nothing was compared")
        return False
    found = [*losses(run, (json.loads(file.read_text()) for file in files))]
    print(*found or [f"{run['class']}: no ratio is {TOLERANCE:.0%} below the best of {len(files)} kept runs"], sep="\n")
    return bool(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a file of benchmarks/results/history, or one of the same form")
    parser.add_argument("--history", type=Path, default=Path(__file__).parent / "results" / "history")
    arguments = parser.parse_args()
    return report(arguments.run, arguments.history)


if __name__ == "__main__":
    sys.exit(main())
