"""Turn a random_state into a numpy Generator; the global generator is never touched."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

RandomState: TypeAlias = int | np.integer | np.random.Generator | None


def check_random_state(random_state: RandomState) -> np.random.Generator:
    """Return a Generator: an integer seeds a new one, a Generator is used as it is, None takes fresh entropy.

    >>> int(check_random_state(0).integers(10)) == int(check_random_state(0).integers(10))
    True
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is None:
        return np.random.default_rng()
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool) and random_state >= 0:
        return np.random.default_rng(int(random_state))
    raise ValueError(
        f"random_state={random_state!r} is neither None, a non-negative integer nor a numpy.random.Generator; "
        "pass an integer to repeat a run exactly"
    )
