"""Points that are hard for kernels, by name: ``(rng, n, d)`` to a float64 array ``(n, d)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Data = Callable[[np.random.Generator, int, int], Array]


def normal(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.normal(size=(n, d))


def integers(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.integers(-2, 3, size=(n, d)).astype(float)


def far_from_origin(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.normal(size=(n, d)) + 1e4


def far_clusters(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.normal(size=(n, d)) + 1e5 * rng.integers(0, 3, size=(n, 1))


def huge(rng: np.random.Generator, n: int, d: int) -> Array:
    return 1e15 * rng.normal(size=(n, d))


def tiny(rng: np.random.Generator, n: int, d: int) -> Array:
    return 1e-15 * rng.normal(size=(n, d))


def all_equal(rng: np.random.Generator, n: int, d: int) -> Array:
    return np.full((n, d), 0.1)


def near_duplicates(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.integers(0, 2, size=(n, d)) + 1e-6 * rng.normal(size=(n, d))


def one_outlier(rng: np.random.Generator, n: int, d: int) -> Array:
    x = rng.normal(size=(n, d))
    x[0] = 1e7
    return x


DATA: list[Data] = [
    normal,
    integers,
    far_from_origin,
    far_clusters,
    huge,
    tiny,
    all_equal,
    near_duplicates,
    one_outlier,
]
