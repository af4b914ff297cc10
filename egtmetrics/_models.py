"""What encoders and training share about neural networks: loading them without a trace, and running out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


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


@contextlib.contextmanager
def out_of_memory() -> Iterator[list[str]]:
    """Catch the want of memory, and only that, on GPU and CPU; what it said is put into the list.

    Nothing of the failed attempt is held when the block has ended, so that less can be tried.
    """
    failed: list[str] = []
    try:
        yield failed
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError; on the CPU it has no type
        if not is_out_of_memory(error):
            raise
        failed.append(first_line(error))


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
