"""What the encoders share: batches that shrink when memory runs out, and checks of device and features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import first_line, out_of_memory

Item = TypeVar("Item")


class Batches:
    """Run an encoder on at most ``size`` items at a time; halve ``size`` for good whenever memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

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
            with out_of_memory() as failed:
                parts.append(np.asarray(forward(batch), dtype=np.float32))
                start += len(batch)
            if not failed:
                continue
            if len(batch) == 1:
                raise MemoryError(
                    f"encoding does not fit into memory even one at a time ({failed[0]}); use a smaller model, smaller "
                    "or shorter inputs, or another device"
                )
            self.size = len(batch) // 2
            _free()
        return np.concatenate(parts)


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
