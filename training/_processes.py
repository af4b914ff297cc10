"""What the processes of torch.distributed tell each other in training; a single one, where it is not initialised."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import distributed

from ._precision import exact_dtype

_T = TypeVar("_T")


def n_processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if n_processes() > 1 else 0


def gathered(value: _T) -> list[_T]:
    """Return the values of all processes in their order; every process has to call it."""
    values: list[Any] = [value] * n_processes()
    if len(values) > 1:
        distributed.all_gather_object(values, value)
    return values


def total(value: float, device: torch.device) -> float:
    """Return the sum of a number over the processes; every process has to call it."""
    if n_processes() == 1:
        return value
    number = torch.tensor(value, dtype=exact_dtype(device), device=device)
    distributed.all_reduce(number)
    return number.item()
