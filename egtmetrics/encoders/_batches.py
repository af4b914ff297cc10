"""What the encoders share: batches that shrink when memory runs out, what they will take, and checks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import first_line, out_of_memory
from egtmetrics._progress import write_line
from egtmetrics._text import duration_text

Item = TypeVar("Item")


_ENOUGH = 5.0
"""Seconds of encoding after which the rate is known."""
_WORTH_SAYING = 60.0
"""Seconds."""


class Batches(Generic[Item]):
    """Run an encoder on at most ``size`` items at a time; halve ``size`` for good whenever memory runs out.

    ``work`` says how much longer an item takes than others, in a unit of its own.
    """

    def __init__(self, size: int, work: Callable[[Item], float] = lambda _: 1.0) -> None:
        self.size = size
        self.work = work
        self.seconds = 0.0
        """Spent so far."""
        self.seconds_per_work = math.inf
        """In the fastest batch so far: the first one also loads modules."""

    def run(self, forward: Callable[[list[Item]], Any], items: list[Item]) -> NDArray[np.float32]:
        """Return the ``(k, d)`` features of ``k`` items.

        Raises
        ------
        MemoryError
            A single item does not fit.
        """
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            began = perf_counter()
            with out_of_memory() as failed:
                parts.append(np.asarray(forward(batch), dtype=np.float32))
                start += len(batch)
            if not failed:
                took = perf_counter() - began
                self.seconds += took
                self.seconds_per_work = min(self.seconds_per_work, took / sum(map(self.work, batch)))
                continue
            if len(batch) == 1:
                raise MemoryError(
                    f"encoding does not fit into memory even one at a time ({failed[0]}); use a smaller model, smaller "
                    "or shorter inputs, or another device"
                )
            self.size = len(batch) // 2
            _free()
        return np.concatenate(parts)


class Forecast:
    """Says once, beside the progress, how long the rest of the items takes, where that is more than a minute."""

    def __init__(self, batches: Batches[Any], kind: str, *, cached: bool, silent: bool) -> None:
        self._batches, self._kind, self._cached, self._silent = batches, kind, cached, silent

    def tell(self, n_left: int, work_left: float) -> None:
        """Say it of ``n_left`` items, if it was not said yet and the rate is known."""
        if self._silent or self._batches.seconds < _ENOUGH:
            return
        self._silent = True
        seconds = work_left * self._batches.seconds_per_work
        if seconds <= _WORTH_SAYING:
            return
        ways = ["a smaller model"]
        if not self._cached:
            ways.append("for other runs a cache (cache=, --cache), or egtmetrics encode once")
        at_most = "at most " if self._cached else ""  # some may be in the cache
        write_line(
            f"{self._kind}s: the other {n_left} take {at_most}about {duration_text(seconds)}; cheaper: "
            f"{', or '.join(ways)}"
        )


def check_device(device: Any) -> None:
    """Raise ValueError for a device that torch cannot use."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device={device!r} cannot be used ({first_line(error)}); pass one that torch has here, such as 'cpu'"
        ) from error


def check_finite(features: NDArray[np.float32], names: Sequence[object]) -> None:
    """Raise ValueError before features that are NaN or infinite are stored; ``names`` are those of the rows."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the encoder returned NaN or infinity for {names[bad[0]]} and {len(bad) - 1} more of its batch; use "
            "another encoder, or one in float32"
        )


def _free() -> None:
    with contextlib.suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
