"""Errors of other libraries: whether they mean that memory has run out, and their first line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


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
