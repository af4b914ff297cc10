"""Repeats of simulations, kept on disk, so that a run that was stopped can resume."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A simulation whose repeat i depends only on i, and the share of the repeats to run; slow ones get fewer."""

    name: str
    measure: Callable[[int], Record]
    share: float = 1.0

    @property
    def file(self) -> str:
        return re.sub(r"\W", "-", self.name) + ".jsonl"

    def due(self, i: int) -> bool:
        return math.floor((i + 1) * self.share) > math.floor(i * self.share)


def run(stages: Sequence[Stage], repeats: int, folder: Path) -> list[list[Record]]:
    """Run what is missing of ``repeats`` repeats, all simulations in turn; return all finished records of each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / stage.file for stage in stages]
    done = [finished(path) for path in paths]
    for i in tqdm(range(repeats), desc="repeats"):
        for stage, path, records in zip(stages, paths, done, strict=True):
            if i not in records and stage.due(i):
                records[i] = stage.measure(i)
                with path.open("a") as lines:  # the newline comes first: it ends a line that was cut off by a kill
                    lines.write("\n" + json.dumps([i, records[i]]))
    return [list(records.values()) for records in done]


def finished(path: Path) -> dict[int, Record]:
    """Finished repeats by number; a line that was cut off by a kill is left out."""
    records: dict[int, Record] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            number, record = json.loads(line)
        except ValueError:
            continue
        records[number] = record
    return records
