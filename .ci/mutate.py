"""Mutate the metrics, group statistics, divergences and losses, and see whether their tests notice.

python .ci/mutate.py --sample 60 --seed 0 --out mutation.json

Each package is mutated by cosmic-ray: a place in the code is drawn, then one of the changes possible there, and the
tests of the package and its examples run. A mutant that no test notices survives; its diff is printed. The files are
changed in place and restored, so run this in a clone of its own. With ``--sample 0`` every mutant is tried, which takes
days.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from cosmic_ray.commands import execute, init
from cosmic_ray.config import ConfigDict
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "egtmetrics/metrics": ["tests/metrics", "egtmetrics/metrics"],
    "egtmetrics/groups": ["tests/groups", "egtmetrics/groups"],
    "egtmetrics/divergences": ["tests/divergences", "egtmetrics/divergences"],
    "training/losses.py": ["tests/training/test_losses.py"],
}
# A type such as "int | None" is never evaluated, and the class in an "except" is changed to one of cosmic-ray's own.
UNSEEN = ("core/ReplaceBinaryOperator_BitOr_", "core/ExceptionReplacer")


def draw(session: WorkDB, size: int, seed: int) -> None:
    """Mark all mutants but a random sample as skipped. Places are drawn first: a "+" has many mutants, a "not" one."""
    places = collections.defaultdict(list)
    for item in session.pending_work_items:
        (mutation,) = item.mutations
        if mutation.operator_name.startswith(UNSEEN):
            session.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
        else:
            places[str(mutation.module_path), mutation.start_pos].append((mutation.operator_name, item.job_id))
    rng = random.Random(seed)
    chosen = rng.sample(sorted(places), min(size, len(places))) if size else sorted(places)
    kept = {job for place in chosen for _, job in (places[place] if not size else [rng.choice(sorted(places[place]))])}
    for item in session.pending_work_items:
        if item.job_id not in kept:
            session.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def mutate(package: str, tests: list[str], args: argparse.Namespace, folder: Path) -> dict[str, object]:
    command = f"{sys.executable} -m pytest -x -q -n 0 -p no:cacheprovider {' '.join(tests)}"
    if subprocess.run(command.split(), cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(f"{' '.join(tests)} fails without any mutant; repair it first")
    config = ConfigDict(
        {
            "module-path": package,
            "timeout": 1800.0,
            "excluded-modules": [],
            "test-command": command,
            "distributor": {"name": "local"},
        }
    )
    with use_db(str(folder / f"{Path(package).stem}.sqlite"), WorkDB.Mode.create) as session:
        modules = sorted((ROOT / package).glob("*.py")) if (ROOT / package).is_dir() else [ROOT / package]
        init([path.relative_to(ROOT) for path in modules], session, config.operators_config)
        n_places = len({(str(m.module_path), m.start_pos) for item in session.work_items for m in item.mutations})
        draw(session, args.sample, args.seed)
        execute(session, config)
        results = [result for _, result in session.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    survived = [result.diff for result in results if result.test_outcome == TestOutcome.SURVIVED]
    for diff in survived:
        print(diff, flush=True)
    print(f"{package}: {len(results) - len(survived)} of {len(results)} mutants noticed", flush=True)
    return {"places": n_places, "mutants": len(results), "noticed": len(results) - len(survived), "survivors": survived}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=60, help="mutants per package; 0: all of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TESTS, help="one package")
    parser.add_argument("--out", type=Path, help="write the result here, as JSON")
    args = parser.parse_args()
    if subprocess.run(["git", "status", "--porcelain", *TESTS], cwd=ROOT, capture_output=True, check=True).stdout:
        raise SystemExit("some changes are not committed, and mutants change files in place; use a fresh clone")
    with tempfile.TemporaryDirectory() as folder:
        result = {
            package: mutate(package, tests, args, Path(folder))
            for package, tests in TESTS.items()
            if args.only in (None, package)
        }
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
