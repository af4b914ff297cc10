"""Multinomial draws from Philox words in NumPy: bit for bit those that csrc/include/egt/divergence.hpp describes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counter: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Philox4x32-10 (Salmon et al., SC 2011): ``(4, n)`` counters to ``(4, n)`` words, all below 2**32."""
    x0, x1, x2, x3 = counter
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        a, b = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1, x2, x3 = (b >> _SHIFT) ^ x1 ^ np.uint64(k0), b & _LOW, (a >> _SHIFT) ^ x3 ^ np.uint64(k1), a & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3])


def _ones(undecided: NDArray[np.int64], bit: int, address: Callable[[int], NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Population count of ``undecided`` random bits for each replicate; ``address`` gives the words of a kind."""
    field = address(bit // 8)[bit % 8 // 2] >> np.uint64(16 * (bit % 2)) & np.uint64(0xFFFF)
    ones: NDArray[np.int64] = np.bitwise_count(field & _mask(undecided, 16)).astype(np.int64)
    further, kind = undecided - 16, 64 + bit
    while (further > 0).any():
        for word in address(kind):
            ones += np.bitwise_count(word & _mask(further, 32))
            further = further - 32
        kind += 64
    return ones


def _mask(n_bits: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """The low ``n_bits`` bits, none if negative, ``width`` at the most."""
    mask: NDArray[np.uint64] = (np.uint64(1) << n_bits.clip(0, width).astype(np.uint64)) - np.uint64(1)
    return mask


def multinomial_bootstrap(
    counts: NDArray[np.int64], n_replicates: int, *, group: int, side: int, seed: int
) -> NDArray[np.int64]:
    """Redraw a histogram, as many draws as it counts: ``(K,)`` to ``(n_replicates, K)``."""
    drawn = np.empty((n_replicates, len(counts)), dtype=np.int64)
    replicates = np.arange(n_replicates, dtype=np.uint64)

    def binomial(n: NDArray[np.int64], left: int, total: int, middle: int) -> NDArray[np.int64]:
        def address(kind: int) -> NDArray[np.uint64]:
            words = (np.full(n_replicates, c, dtype=np.uint64) for c in (middle, group, side + 2 * kind))
            node, of_group, of_kind = words
            return philox(np.stack([node, replicates, of_group, of_kind]), seed)

        if left == total:
            return n
        successes, undecided, remainder = np.zeros_like(n), n, left
        for t in range(64):
            if remainder == 0 or not undecided.any():
                break
            bit, remainder = divmod(2 * remainder, total)
            ones = _ones(undecided, t, address)
            if bit:
                successes = successes + undecided - ones
            undecided = ones if bit else undecided - ones
        return successes

    def split(first: int, last: int, n: NDArray[np.int64]) -> None:
        if last - first == 1:
            drawn[:, first] = n
            return
        middle = first + (last - first) // 2
        left = binomial(n, int(counts[first:middle].sum()), int(counts[first:last].sum()), middle)
        split(first, middle, left)
        split(middle, last, n - left)

    split(0, len(counts), np.full(n_replicates, counts.sum()))
    return drawn
