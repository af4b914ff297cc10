"""Check and time the library on a card: the GPU tests, the sanitizers, then the benchmark. One JSON and one page.

    python -m benchmarks.card --out benchmarks/results           gpu-NAME-OF-THE-CARD.json and .md (make gpu)
    python -m benchmarks.card --out benchmarks/results --minutes 20

Needs a checkout, the library with its CUDA kernels (`pip install .` where nvcc is, or a wheel), a CUDA build of torch
and pytest. Every step has a part of the time; one that does not end in it is stopped, and the page says so. Steps whose
tools are missing are skipped by name. Without a card that can run the kernels all steps are, and the exit code is 2;
after a step that failed or was stopped it is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import gpu

Outcome = Literal["passed", "failed", "stopped", "skipped"]

_OURS = "--kernel-name kns=_ZN3egt"
"""Look only at kernels of this library."""
TOOLS = {"memcheck": _OURS, "racecheck": _OURS, "synccheck": _OURS, "initcheck": ""}
"""The tools of compute-sanitizer and their options; initcheck has to see every write."""
_TAIL = 40
"""Lines of output that the JSON keeps of a step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A command and its part of the time."""

    name: str
    command: tuple[str, ...]
    share: float
    needs: str | None = None
    """A program without which the step is skipped."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a step."""

    step: Step
    outcome: Outcome
    seconds: float = 0.0
    said: str = ""
    """The end of its output, or why it was skipped."""


def steps(results: Path) -> Iterator[Step]:
    """What is run, in this order; the benchmark writes into ``results``."""
    python = sys.executable
    tests = (python, "-m", "pytest", "-q", "-m", "gpu", "-ra", "tests/gpu")
    yield Step(name="tests", command=tests, share=0.3)
    for tool, options in TOOLS.items():
        sanitizer = ("compute-sanitizer", "--error-exitcode", "9", "--tool", tool, *options.split())
        yield Step(
            name=tool,
            command=(*sanitizer, *tests, "-x", "-k", "reference"),
            share=0.08,
            needs="compute-sanitizer",
            environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},  # its cache hides accesses out of bounds
        )
    yield Step(name="benchmark", command=(python, "-m", "benchmarks.gpu", "--out", str(results)), share=0.38)


def perform(step: Step, seconds: float) -> Done:
    """Run a step for so long at most."""
    if step.needs is not None and shutil.which(step.needs) is None:
        return Done(step=step, outcome="skipped", said=f"{step.needs} is not on the PATH")
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                step.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                env={**os.environ, **step.environment},
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        output.seek(0)
        said = "\n".join(output.read().splitlines()[-_TAIL:])
    outcome: Outcome = "stopped" if code is None else "failed" if code else "passed"
    return Done(step=step, outcome=outcome, seconds=time.perf_counter() - start, said=said)


def page(done: Sequence[Done], rows: str) -> str:
    """The outcomes, the output of what failed, and the table of the benchmark."""
    lines = ["# On a card", "", "| step | outcome | seconds |", "|---|---|---|"]
    lines += [f"| {one.step.name} | {one.outcome} | {one.seconds:.0f} |" for one in done]
    for one in done:
        if one.outcome != "passed":
            lines += ["", f"## {one.step.name}: {one.outcome}", "", "```", one.said, "```"]
    if rows:
        lines += ["", "## Times", "", rows.rstrip()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and the page")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all steps (default: %(default)s)")
    options = parser.parse_args(arguments)
    reason = gpu.why_not()
    with tempfile.TemporaryDirectory() as folder:
        planned = list(steps(Path(folder)))
        if reason is not None:
            print(f"skipped: {', '.join(step.name for step in planned)}. No card can run the kernels: {reason}")
            return 2
        done = []
        for step in planned:
            print(f"{step.name} ...", end=" ", flush=True)
            done.append(perform(step, 60.0 * options.minutes * step.share))
            print(f"{done[-1].outcome}, {done[-1].seconds:.0f} s", flush=True)
        found = [Path(folder, f"gpu.{ending}") for ending in ("json", "md")]
        measured: dict[str, Any] = json.loads(found[0].read_text()) if found[0].exists() else {"machine": gpu.machine()}
        rows = found[1].read_text() if found[1].exists() else ""
    from egtmetrics._atomic import write_whole

    name = f"gpu-{'-'.join(measured['machine']['card']['name'].lower().split())}"
    kept = [
        {"name": one.step.name, "outcome": one.outcome, "seconds": round(one.seconds, 1), "said": one.said}
        for one in done
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    write_whole(options.out / f"{name}.json", json.dumps({**measured, "steps": kept}, indent=1) + "\n")
    write_whole(options.out / f"{name}.md", page(done, rows))
    print(f"wrote {options.out / name}.json and .md")
    return int(any(one.outcome in ("failed", "stopped") for one in done))


if __name__ == "__main__":
    raise SystemExit(main())
