"""Bootstrap draws from Philox words in NumPy: the bits of csrc/include/egt/divergence.hpp and bootstrap.hpp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_BLOCK_DRAWS = 1 << 18


def philox(counter: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Philox4x32-10 (Salmon et al., SC 2011): ``(4, n)`` counters to ``(4, n)`` words, all below 2**32."""
    x0, x1, x2, x3 = counter
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        a, b = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1, x2, x3 = (b >> _SHIFT) ^ x1 ^ np.uint64(k0), b & _LOW, (a >> _SHIFT) ^ x3 ^ np.uint64(k1), a & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3])


def bootstrap_counts(n_rows: int, n_replicates: int, seed: int) -> NDArray[np.uint16]:
    """How often each replicate draws each row, ``(n_rows, n_replicates)``."""
    counts = np.empty((n_rows, n_replicates), dtype=np.uint16)
    step = max(1, _BLOCK_DRAWS // n_rows)
    for start in range(0, n_replicates, step):
        replicates = np.arange(start, min(start + step, n_replicates), dtype=np.uint64)
        pairs, of_replicate = np.meshgrid(np.arange((n_rows + 1) // 2, dtype=np.uint64), replicates)
        nothing = np.zeros(pairs.size, dtype=np.uint64)
        words = philox(np.stack([pairs.ravel(), of_replicate.ravel(), nothing, nothing]), seed)
        low, high = words[0::2] * np.uint64(n_rows), words[1::2] * np.uint64(n_rows)
        rows = (high + (low >> _SHIFT)) >> _SHIFT  # of the first draw of each pair, then of the second
        of_draws = np.moveaxis(rows.reshape(2, *pairs.shape), 0, -1).reshape(len(replicates), -1)[:, :n_rows]
        cells = of_draws.astype(np.int64) + n_rows * np.arange(len(replicates))[:, None]
        times = np.bincount(cells.ravel(), minlength=n_rows * len(replicates))
        counts[:, start : start + len(replicates)] = times.reshape(-1, n_rows).T
    return counts


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
