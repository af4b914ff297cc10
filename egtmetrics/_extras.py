"""Import optional packages, and load their models quietly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from egtmetrics._errors import first_line


@contextlib.contextmanager
def extra(name: str, needed: str, *, otherwise: str = "") -> Iterator[None]:
    """Import optional packages in this block; if one is missing, the ImportError names the extra to install.

    ``needed`` says what needs which package. ``otherwise`` may say how to do without it.

    Examples
    --------
    >>> with extra("files", "reading .abc files needs abc_reader"):
    ...     import abc_reader
    Traceback (most recent call last):
    ImportError: reading .abc files needs abc_reader (No module named 'abc_reader'); pip install 'egtmetrics[files]'
    """
    try:
        yield
    except ImportError as error:
        remedy = f"pip install 'egtmetrics[{name}]'" + (f", or {otherwise}" if otherwise else "")
        raise ImportError(f"{needed} ({first_line(error)}); {remedy}") from error


@contextlib.contextmanager
def loading_quietly() -> Iterator[None]:
    """Load a transformers model without progress bars, and leave the global random generators as they were."""
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
