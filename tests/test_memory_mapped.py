"""Features in a file that does not fit into the memory that is left: the scores of a copy in memory, without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import _order
from egtmetrics._order import canonical_order
from egtmetrics.ops.reference import project
from tests.strategies import tied_points

SHAPE = (1600, 32_000)
"""Of float32: 205 MB."""
MEGABYTES = {"topp": 80, "fid_by_group": 150}
"""What may be held beside the file: two blocks of 32 MB and a matrix of 8; three and the rows of two groups."""

IN_LITTLE_MEMORY = """
import resource
import sys

import numpy as np

from egtmetrics import GenerativeMetricFrame, frechet_distance, topp_precision_recall
from egtmetrics.data import read_labelled_features


def topp(real, fake):
    return topp_precision_recall(real, fake, n_projections=1, n_bootstrap=20, random_state=0, n_threads=1).scores()


def fid_by_group(real, fake):
    real, fake = real.reshape(-1, 128), fake.reshape(-1, 128)
    frame = GenerativeMetricFrame(
        metrics=frechet_distance,
        real=real,
        fake=fake,
        real_sensitive_features=np.arange(len(real)) % 10,
        fake_sensitive_features=np.arange(len(fake)) % 10,
    )
    return {**frame.overall, **frame.by_group.stack()}


def allow(more):
    # anonymous memory only: pages of a mapped file are not counted
    with open("/proc/self/status") as status:
        data = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * data + more, resource.RLIM_INFINITY))


path, labels, metric, megabytes = sys.argv[1:]
metric = globals()[metric]
real = read_labelled_features(path, groups=labels).features
fake = 0.9 * np.random.default_rng(1).standard_normal((400, real.shape[1]), dtype=np.float32)
metric(fake, fake)  # what is loaded at the first call is loaded
allow(int(megabytes) << 20)
scores = metric(real, fake)
try:
    np.array(real)
except MemoryError:
    pass
else:
    raise SystemExit("the whole file could be copied, so the limit proves nothing")
resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert scores == metric(np.array(real), fake), "not the scores of features in memory"
assert all(0.0 < score for score in scores.values()), scores
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Features and labels; every row comes twice, so that all columns are needed to order them."""
    folder = tmp_path_factory.mktemp("mapped")
    features = np.lib.format.open_memmap(folder / "real.npy", mode="w+", dtype=np.float32, shape=SHAPE)
    rng = np.random.default_rng(0)
    for start in range(0, SHAPE[0], 100):
        features[start : start + 100] = np.tile(rng.standard_normal((50, SHAPE[1]), dtype=np.float32), (2, 1))
    features.flush()
    (folder / "labels.txt").write_text("\n".join("ab"[i % 2] for i in range(SHAPE[0])))
    return folder / "real.npy", folder / "labels.txt"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit and its measure are Linux's")
@pytest.mark.parametrize("metric", MEGABYTES)
def test_a_file_is_not_copied_into_memory(metric: str, files: tuple[Path, Path]) -> None:
    """Limits what a process may hold beside the pages of files: the metric runs, a copy of the file does not fit."""
    command = [sys.executable, "-W", "error", "-c", IN_LITTLE_MEMORY, *map(str, files), metric, str(MEGABYTES[metric])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def whole_rows_order(x: NDArray[np.float32]) -> list[int]:
    """The definition: ascending by the bytes of the row, equal rows by their place."""
    return sorted(range(len(x)), key=lambda i: ((x[i] + 0.0).tobytes(), i))


@given(tied_points(), st.integers(1, 4), st.integers(1, 64))
def test_the_order_is_that_of_whole_rows(points: NDArray[np.float32], repeats: int, block_bytes: int) -> None:
    """Also with zeros of both signs, with equal rows, and where blocks are narrower than the rows."""
    x = np.tile(points, repeats) * np.where(np.arange(points.shape[1] * repeats) % 2, np.float32(-1.0), np.float32(1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_order, "_BLOCK_BYTES", 8 * block_bytes)
        np.testing.assert_array_equal(canonical_order(x), whole_rows_order(x))


@pytest.mark.parametrize("n_directions", [1, 5])
@pytest.mark.parametrize("d", [3, 64, 1001, 9000])
def test_a_row_is_projected_alike_wherever_it_stands(d: int, n_directions: int) -> None:
    """What lets TopP&R project rows as they lie and sort them afterwards."""
    rng = np.random.default_rng(d)
    x, matrix = rng.standard_normal((60, d), dtype=np.float32), rng.standard_normal((n_directions, d))
    once = project(x, matrix)
    order = rng.permutation(60)
    np.testing.assert_array_equal(project(x[order], matrix), once[order])
    for i in range(0, 60, 7):
        np.testing.assert_array_equal(project(x[i : i + 1], matrix), once[i : i + 1])
