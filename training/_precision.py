"""The most exact floating-point type of a device."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on MPS, which has no float64.

    >>> import torch
    >>> from egtmetrics.training._precision import exact_dtype
    >>> exact_dtype(torch.device("cpu")), exact_dtype(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64


def exact(values: Tensor) -> Tensor:
    """Return values in the :func:`exact_dtype` of their device."""
    return values.to(exact_dtype(values.device))
