"""Features in a file that is too large for memory: they get the same scores as in memory, and are not copied."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import _arrays, _mapped, _order
from egtmetrics._order import canonical_order
from egtmetrics._validation import check_features, check_real_fake
from egtmetrics.ops.reference import project
from tests.strategies import tied_points

SHAPE = (1600, 32_000)
"""205 MB in float32."""
MEGABYTES = {"topp": 80, "fid_by_group": 150}
"""Memory allowed besides the file: two blocks of 32 MB and a matrix of 8; three blocks and the rows of two groups."""

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
    # This limits anonymous memory only: pages of a mapped file do not count.
    with open("/proc/self/status") as status:
        data = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * data + more, resource.RLIM_INFINITY))


path, labels, metric, megabytes = sys.argv[1:]
metric = globals()[metric]
real = read_labelled_features(path, groups=labels).features
fake = 0.9 * np.random.default_rng(1).standard_normal((400, real.shape[1]), dtype=np.float32)
metric(fake, fake)  # load everything that the first call loads
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
    """Features and labels. Every row occurs twice, so all columns are needed to order them."""
    folder = tmp_path_factory.mktemp("mapped")
    features = np.lib.format.open_memmap(folder / "real.npy", mode="w+", dtype=np.float32, shape=SHAPE)
    rng = np.random.default_rng(0)
    for start in range(0, SHAPE[0], 100):
        features[start : start + 100] = np.tile(rng.standard_normal((50, SHAPE[1]), dtype=np.float32), (2, 1))
    features.flush()
    (folder / "labels.txt").write_text("\n".join("ab"[i % 2] for i in range(SHAPE[0])))
    return folder / "real.npy", folder / "labels.txt"


@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit and its measurement need Linux")
@pytest.mark.parametrize("metric", MEGABYTES)
def test_a_file_is_not_copied_into_memory(metric: str, files: tuple[Path, Path]) -> None:
    """Limit the memory of a process besides mapped files: the metric runs, but a copy of the file would not fit."""
    command = [sys.executable, "-W", "error", "-c", IN_LITTLE_MEMORY, *map(str, files), metric, str(MEGABYTES[metric])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


CONVERTED_IN_LITTLE_MEMORY = """
import pathlib
import resource
import sys
import tempfile

import numpy as np

from egtmetrics import GenerativeMetricFrame, frechet_distance

N, D = 220_000, 128  # 113 MB in float32
folder = pathlib.Path(sys.argv[1])
tempfile.tempdir = str(folder)
rng = np.random.default_rng(0)
rows = rng.standard_normal((1000, D), dtype=np.float32).astype(np.float16)


def file(name, dtype, fortran_order=False):
    array = np.lib.format.open_memmap(folder / name, mode="w+", dtype=dtype, shape=(N, D), fortran_order=fortran_order)
    for start in range(0, N, 1000):
        array[start : start + 1000] = rows
        array[start : start + 1000, 0] += start / N
    array.flush()
    return np.load(folder / name, mmap_mode="r")


def scores(real, fake):
    labels = [np.arange(len(x)) % 10 for x in (real, fake)]
    frame = GenerativeMetricFrame(
        metrics=frechet_distance,
        real=real,
        fake=fake,
        real_sensitive_features=labels[0],
        fake_sensitive_features=labels[1],
    )
    return [*frame.overall, *frame.by_group["frechet_distance"]]


def allow(more):
    # This limits anonymous memory only: pages of a mapped file do not count.
    with open("/proc/self/status") as status:
        data = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * data + more, resource.RLIM_INFINITY))


small = rng.standard_normal((2000, D), dtype=np.float32) + np.float32(0.1)
plain = file("plain.npy", "<f4")
pairs = {
    "float16": (file("float16.npy", "<f2"), small),
    "big-endian": (file("big.npy", ">f4"), small),
    "Fortran order": (file("fortran.npy", "<f4", fortran_order=True), small),
    "float64 beside it": (plain, small.astype(np.float64)),
}
scores(small, small[::-1] + 1)  # load everything that the first call loads
allow(80 << 20)
expected = scores(plain, small)
found = {name: scores(*pair) for name, pair in pairs.items()}
for real, _ in pairs.values():
    try:
        np.array(real, dtype=np.float32, order="C")
    except MemoryError:
        continue
    raise SystemExit("the whole file could be copied, so the limit proves nothing")
for name, values in found.items():
    rounding = 1e-4 if name in ("float16", "float64 beside it") else 0.0  # of features, and of sums in float32
    assert np.allclose(values, expected, rtol=rounding, atol=0.0), (name, values, expected)
assert sorted(path.suffix for path in folder.iterdir()) == [".npy"] * 4, "a temporary file was left"
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit and its measurement need Linux")
def test_a_file_of_another_type_or_order_is_not_converted_in_memory(tmp_path: Path) -> None:
    """It is written to a temporary file, a block at a time."""
    command = [sys.executable, "-W", "error", "-c", CONVERTED_IN_LITTLE_MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def mapped(array: NDArray[Any], folder: Path) -> NDArray[Any]:
    np.save(folder / "x.npy", array)
    return np.load(folder / "x.npy", mmap_mode="r")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">f4"),
        lambda x: x.astype(">f8"),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.uint8),
        np.asfortranarray,
    ],
)
@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[::-1], lambda x: x[1::2, ::-1], lambda x: x.T])
def test_a_converted_file_holds_the_values_of_a_converted_array(
    change: Any, view: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks of two rows."""
    for module in (_arrays, _mapped):
        monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    x = change(np.random.default_rng(0).integers(0, 9, size=(31, 5)).astype(np.float32))
    converted, in_memory = check_features(view(mapped(x, tmp_path)), "real"), check_features(view(x), "real")
    assert _mapped.is_mapped(converted)
    assert not _mapped.is_mapped(in_memory)
    assert converted.dtype == in_memory.dtype
    np.testing.assert_array_equal(converted, in_memory)
    wide, narrow = check_real_fake(view(mapped(x, tmp_path)), np.ones((3, view(x).shape[1])))
    assert wide.dtype == narrow.dtype == np.float64
    assert _mapped.is_mapped(wide)
    np.testing.assert_array_equal(wide, in_memory)


def test_rows_are_named_as_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_arrays, _mapped):
        monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    x = np.ones((31, 5), np.int64)
    x[17, 3] = 2**53 + 1
    with pytest.raises(ValueError, match=r"^real holds the integer 9007199254740993 \(row 17, column 3\)"):
        check_features(mapped(x, tmp_path), "real")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    x = mapped(np.ones((3_000_000, 2), np.float16), tmp_path)  # 24 MB in float32
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, limits[1]))  # beyond it a write fails
    try:
        with pytest.raises(
            OSError, match=r"no room for a temporary file after 2097152 rows; .* set TMPDIR to"
        ) as caught:
            check_features(x, "real")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def whole_rows_order(x: NDArray[np.float32]) -> list[int]:
    """The definition: ascending by the bytes of the row; equal rows keep their order."""
    return sorted(range(len(x)), key=lambda i: ((x[i] + 0.0).tobytes(), i))


@given(tied_points(), st.integers(1, 4), st.integers(1, 64))
def test_the_order_is_that_of_whole_rows(points: NDArray[np.float32], repeats: int, block_bytes: int) -> None:
    """This includes zeros of both signs, equal rows, and blocks that are narrower than the rows."""
    x = np.tile(points, repeats) * np.where(np.arange(points.shape[1] * repeats) % 2, np.float32(-1.0), np.float32(1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_order, "_BLOCK_BYTES", 8 * block_bytes)
        np.testing.assert_array_equal(canonical_order(x), whole_rows_order(x))


@pytest.mark.parametrize("n_directions", [1, 5])
@pytest.mark.parametrize("d", [3, 64, 1001, 9000])
def test_the_projection_of_a_row_does_not_depend_on_its_position(d: int, n_directions: int) -> None:
    """So TopP&R can project the rows in file order and sort them afterwards."""
    rng = np.random.default_rng(d)
    x, matrix = rng.standard_normal((60, d), dtype=np.float32), rng.standard_normal((n_directions, d))
    once = project(x, matrix)
    order = rng.permutation(60)
    np.testing.assert_array_equal(project(x[order], matrix), once[order])
    for i in range(0, 60, 7):
        np.testing.assert_array_equal(project(x[i : i + 1], matrix), once[i : i + 1])
