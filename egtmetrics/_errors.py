"""Read the errors of other libraries, and format lists for our own messages."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator


class TooFewSamplesError(ValueError):
    """A set has fewer rows than a metric needs with its options: the metric cannot be had of this set.

    A frame gives such a group NaN and says why. An option that is wrong for every set is a plain ValueError.
    """

    def __init__(self, message: str, needed: int = 0) -> None:
        super().__init__(message)
        self.needed = needed
        """Rows with which this check would pass."""


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "can't start new thread")


@contextlib.contextmanager
def out_of_memory() -> Iterator[list[str]]:
    """Catch out-of-memory errors of the GPU or CPU; the list receives their message.

    When the block ends, nothing of the failed attempt stays in memory, so the caller can try again with less.
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
    """Join items for a message; those after the first ``most`` are only counted.

    Examples
    --------
    >>> listed("abcd", most=2)
    'a, b and 2 more'
    """
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def outer_stacklevel() -> int:
    """Return the ``stacklevel`` for ``warnings.warn`` in the calling function that names the user's own line."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    return max(1, level)
