"""Results that an object keeps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_R = TypeVar("_R")


def cached_method(method: Callable[..., _R]) -> Callable[..., _R]:
    """Keep what a method returned in its object, by its arguments, which are hashable and passed by position.

    ``functools.cache`` would keep the object itself, with all samples that it holds, to the end of the program.
    """

    @functools.wraps(method)
    def cached(self: Any, *args: Hashable) -> _R:
        results: dict[Any, Any] = self.__dict__.setdefault("_cached_results", {})
        key = method.__name__, *args
        if key not in results:
            results[key] = method(self, *args)
        found: _R = results[key]
        return found

    return cached
