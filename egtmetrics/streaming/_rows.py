"""The rows of one group on one side in memory: all of them, or a uniform sample of bounded size."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def priorities(rows: NDArray[Any], *, first: int, key: str) -> NDArray[np.uint64]:
    """Draw a 64-bit number for every row: a keyed hash of its values and of its position in the group.

    ``first`` is the position of the first row. Without the position, equal rows would be kept or dropped together;
    without the values, rows at equal positions of two merged streams would.
    """
    keyed = hashlib.blake2b(digest_size=8, key=hashlib.blake2b(key.encode()).digest())
    drawn = np.empty(len(rows), dtype=np.uint64)
    for i, row in enumerate(rows):
        hasher = keyed.copy()
        hasher.update(row.tobytes())
        hasher.update((first + i).to_bytes(8, "little"))
        drawn[i] = int.from_bytes(hasher.digest(), "little")
    return drawn


class Rows:
    """Rows that were seen; with a ``limit`` only those of the smallest priorities.

    Which rows those are does not depend on the order of the rows or on how they were batched, so two samples can be
    merged in either order. Rows above the limit are dropped once there are as many of them as the limit: the cost of a
    row is constant and memory stays below twice the limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.n_seen = 0
        self._blocks: list[NDArray[Any]] = []
        self._drawn: list[NDArray[np.uint64]] = []
        self._n_held = 0
        self._largest = np.iinfo(np.uint64).max

    def add(self, rows: NDArray[Any], drawn: NDArray[np.uint64], *, n_seen: int) -> None:
        """Add rows, which must not change afterwards, and their priorities; they were kept of ``n_seen`` rows."""
        self.n_seen += n_seen
        if self.limit is not None:
            candidates = drawn <= self._largest
            if not candidates.all():
                rows, drawn = rows[candidates], drawn[candidates]
        if len(rows):
            self._blocks.append(rows)
            self._drawn.append(drawn)
            self._n_held += len(rows)
        if self.limit is not None and self._n_held >= 2 * self.limit:
            self.kept()

    def merge(self, other: Rows) -> None:
        """Add the rows of another."""
        rows, drawn = other.kept()
        self.add(rows, drawn, n_seen=other.n_seen)

    @property
    def is_sample(self) -> bool:
        """Whether rows were dropped."""
        return self.limit is not None and self.n_seen > self.limit

    def kept(self) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        """Return the rows and their priorities."""
        if len(self._blocks) > 1:
            self._blocks, self._drawn = [np.concatenate(self._blocks)], [np.concatenate(self._drawn)]
        rows, drawn = self._blocks[0], self._drawn[0]
        if self.limit is not None and len(rows) > self.limit:
            smallest = np.argsort(drawn)[: self.limit]
            rows, drawn = rows[smallest], drawn[smallest]
            self._blocks, self._drawn, self._n_held = [rows], [drawn], self.limit
            self._largest = drawn[-1]
        return rows, drawn
