"""Loading models of other libraries quietly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def loading_quietly() -> Iterator[None]:
    """Load a model of transformers without its progress bars, and leave the global random generators as they were."""
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
