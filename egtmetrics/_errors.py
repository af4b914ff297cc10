"""Errors: what those of other libraries say, and lists in our own messages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


@contextlib.contextmanager
def out_of_memory() -> Iterator[list[str]]:
    """Catch errors that mean that memory has run out, on GPU or CPU; their message is put into the list.

    Nothing of the failed attempt stays in memory when the block ends, so that the caller can try with less.
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


def listed(items: Iterable[object], *, most: int = 10) -> str:
    """Join items for a message; from the eleventh on they are only counted.

    Examples
    --------
    >>> listed("abcd", most=2)
    'a, b and 2 more'
    """
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
