"""Loading a neural network without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def loading_quietly() -> Iterator[None]:
    """Without bars of transformers, which do not ask whether anybody looks, and with no trace in global generators."""
    import torch
    import transformers.utils

    logging: Any = transformers.utils.logging  # untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
