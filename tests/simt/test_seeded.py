"""The checked build of the harness finds mistakes that are put into the project's own kernels, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.simt.build import CSRC, changed_copy, load

BINDING = CSRC / "bindings" / "cuda_module.cpp"


class Seed(NamedTuple):
    file: str
    old: str
    new: str
    kinds: set[str]
    source: str  # what is compiled with it


def call_ball_counts(module: Any) -> None:
    # Squared distances and radii are integers: many pairs are left open by the tiles.
    x = np.random.default_rng(0).integers(0, 3, size=(150, 20)).astype(np.float32)
    sq_radii = np.full(150, 26.0)
    out = np.zeros((2, 150), dtype=np.int64)
    addresses = sq_radii.ctypes.data, 0, False, out[0].ctypes.data, out[1].ctypes.data, 0, 0
    module.ball_counts("float32", x.ctypes.data, *x.shape[:1], 0, 0, x.shape[1], *addresses, 0, 0)


def call_kth_neighbor(module: Any) -> None:
    x, out = np.random.default_rng(0).normal(size=(150, 20)), np.zeros(150)
    module.kth_neighbor("float64", x.ctypes.data, 150, 0, 0, 20, 40, -1.0, math.inf, out.ctypes.data, 0, 0)


def call_divergence_bootstrap(module: Any) -> None:
    counts = np.random.default_rng(0).integers(0, 5, size=(2, 2, 300))
    values, replicates = np.zeros((2, 1)), np.zeros((2, 1, 3))
    module.divergence_bootstrap(
        counts[0].ctypes.data, *counts.shape[1:], counts[1].ctypes.data, [0], [0.0], 0.5, 3, 1, values.ctypes.data,
        replicates.ctypes.data, 0, 0,
    )  # fmt: skip


def call_bootstrap_counts(module: Any) -> None:
    n_rows = 12_300  # more than the shared memory of a block counts
    counts = np.zeros((n_rows, 1), dtype=np.uint16)
    module.bootstrap_counts(n_rows, 1, 1, counts.ctypes.data, 0, 0)


def call_project(module: Any) -> None:
    x, matrix, out = np.ones((65, 20)), np.ones((3, 20)), np.zeros((65, 3))
    module.project("float64", x.ctypes.data, 65, 20, matrix.ctypes.data, 3, out.ctypes.data, 0, 0)


CALLS: dict[str, Callable[[Any], None]] = {
    "ball_counts.cu": call_ball_counts,
    "bootstrap.cu": call_bootstrap_counts,
    "divergence.cu": call_divergence_bootstrap,
    "neighbors.cu": call_kth_neighbor,
    "projection.cu": call_project,
}

SEEDS = {
    "barrier of a sum over rows": Seed(
        "centre_and_scale.cuh", "  __syncthreads();\n  if (lane > 0", "  if (lane > 0", {"race"}, "ball_counts.cu"
    ),
    "guard of the norms": Seed(
        "centre_and_scale.cuh", "if (i >= n) return;", "if (i > n) return;", {"bounds"}, "ball_counts.cu"
    ),
    "start of a maximum": Seed(
        "centre_and_scale.cuh",
        'check(cudaMemsetAsync(bits.get(), 0, sizeof(unsigned long long), stream), "cudaMemsetAsync");',
        "",
        {"uninitialised"},
        "ball_counts.cu",
    ),
    "second buffer of a tile": Seed("tile.cuh", "now ^= 1", "now ^= 0", {"race"}, "ball_counts.cu"),
    "guard of a tile's rows": Seed("tile.cuh", "row < n_rows", "row <= n_rows", {"bounds"}, "ball_counts.cu"),
    "lanes that are done": Seed(
        "settle.cuh", "if (lanes == 0) return;", "if (open == 0) return;", {"collective"}, "ball_counts.cu"
    ),
    "barrier before counts are read": Seed(
        "ball_counts.cu",
        "    __syncthreads();\n    if (e < n_cols",
        "    if (e < n_cols",
        {"race"},
        "ball_counts.cu",
    ),
    "atomic between blocks": Seed(
        "ball_counts.cu",
        "atomicAdd(x_balls.others + j0 + e, in_x);",
        "x_balls.others[j0 + e] += in_x;",
        {"race"},
        "ball_counts.cu",
    ),
    "start of the counts": Seed(
        "ball_counts.cu",
        "for (int i = 0; i < PairTile::own_rows; ++i) row_counts[i][e] = 0;",
        "",
        {"uninitialised"},
        "ball_counts.cu",
    ),
    "barrier between warps": Seed(
        "divergence.cu",
        "warp_totals[now][warp] = sum;\n      __syncthreads();",
        "warp_totals[now][warp] = sum;",
        {"race", "uninitialised"},
        "divergence.cu",
    ),
    "barrier before draws": Seed(
        "bootstrap.cu",
        "drawn[row] = 0;\n    __syncthreads();",
        "drawn[row] = 0;",
        {"race", "uninitialised"},
        "bootstrap.cu",
    ),
    "rows of another block": Seed(
        "bootstrap.cu", "if (own < n_own) atomicAdd", "if (own <= n_own + 9000) atomicAdd", {"bounds"}, "bootstrap.cu"
    ),
    "row of sums": Seed(
        "divergence.cu", "return terms.size + 2; }", "return terms.size + 1; }", {"bounds"}, "divergence.cu"
    ),
    "histogram that is cleared too early": Seed(
        "select.cuh",
        "    __syncwarp(full_warp);  // read before the next round clears it\n",
        "",
        {"race"},
        "neighbors.cu",
    ),
    "barrier before a tile is loaded again": Seed(
        "projection.cu", "      __syncthreads();\n    }\n    for", "    }\n    for", {"race"}, "projection.cu"
    ),
    "guard of the directions": Seed(
        "projection.cu", "if (row < n && column < n_rows)", "if (row < n)", {"bounds", "race"}, "projection.cu"
    ),
}


@pytest.mark.parametrize("source", CALLS)
def test_the_kernels_as_they_are_are_clean(source: str) -> None:
    module = load(checked=True)
    for seed in range(3):
        module.simt_seed(seed)
        CALLS[source](module)
        assert module.simt_allocated() == 0


# Each compiles the kernels anew, so only the first is no slow one.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if i else ()) for i, name in enumerate(SEEDS)]
)
def test_a_seeded_mistake_is_found(name: str, tmp_path: Path) -> None:
    seed = SEEDS[name]
    csrc = changed_copy(tmp_path / "csrc", f"cuda/{seed.file}", seed.old, seed.new)
    module = load(checked=True, sources=[csrc / "cuda" / seed.source, BINDING], csrc=csrc)
    for schedule in range(3):
        module.simt_seed(schedule)
        with pytest.raises(module.SimtError) as caught:
            CALLS[seed.source](module)
        reports = str(caught.value).splitlines()
        assert {report.split(" ")[0] for report in reports} & seed.kinds, reports
        assert any(seed.file in report or seed.source in report for report in reports), reports
        assert module.simt_allocated() == 0
