"""Hypothesis strategies of the training package's tests."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor


class Batches(NamedTuple):
    """Some batches of losses with the group and noise level of each; any cell may be empty."""

    n_groups: int
    n_bins: int
    batches: list[tuple[Tensor, Tensor, Tensor]]


@st.composite
def batches(draw: st.DrawFn, *, max_groups: int = 4, max_bins: int = 3, max_batches: int = 4) -> Batches:
    """Continuous losses, so that no two cells have equal means."""
    n_groups, n_bins = draw(st.integers(1, max_groups)), draw(st.integers(1, max_bins))
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=max_batches))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return Batches(
        n_groups,
        n_bins,
        [
            (
                torch.rand(n, generator=generator, dtype=torch.float64) + 0.1,
                torch.randint(n_groups, (n,), generator=generator),
                torch.randint(n_bins, (n,), generator=generator),
            )
            for n in sizes
        ],
    )


@st.composite
def proportions(draw: st.DrawFn, *, n_groups: int, smallest: int = 1) -> list[float]:
    """Shares of ``n_groups`` groups with sum 1; none is 0 unless ``smallest`` is."""
    counts = draw(st.lists(st.integers(smallest, 20), min_size=n_groups, max_size=n_groups).filter(any))
    return [count / sum(counts) for count in counts]
