"""The harness that runs CUDA kernels on the host: what the intrinsics do, and which mistakes are reported."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.simt import build

SOURCES = [build.HERE / "samples.cu", build.HERE / "samples_module.cpp"]
N = 100
OUT_OF_MEMORY, INVALID_VALUE, INVALID_CONFIGURATION, INSUFFICIENT_DRIVER, NO_DEVICE = 2, 1, 9, 35, 100

# The report of each sample that does what it is named after, in every schedule.
REPORTS = {
    "lacks_barrier": "race",
    "lacks_second_barrier": "race",
    "divergent_barrier": "barrier",
    "barrier_by_two_calls": "barrier",
    "lacks_syncwarp": "race",
    "syncwarp_of_another_half": "race",
    "vote_in_place_of_syncwarp": "race",
    "syncwarp_between_warps": "race",
    "lacks_second_syncwarp": "race",
    "mask_lacks_the_caller": "collective",
    "mask_names_exited_lanes": "collective",
    "mask_names_lanes_that_wait": "collective",
    "two_sites": "collective",
    "reads_outside_the_mask": "collective",
    "collective_by_two_calls": "collective",
    "lacks_guard": "bounds",
    "before_the_start": "bounds",
    "beyond_shared": "bounds",
    "beyond_a_row": "bounds",
    "beyond_local": "bounds",
    "beyond_dynamic": "bounds",
    "uninitialised_shared": "uninitialised",
    "shared_of_the_block_before": "uninitialised",
    "written_by_a_reader": "race",
    "uninitialised_member": "uninitialised",
    "reads_what_another_thread_writes": "race",
    "reads_what_another_block_writes": "race",
    "blocks_write_one_word": "race",
    "writes_what_it_should_read": "bounds",
    "local_of_another_thread": "bounds",
    "misaligned": "bounds",
    "product_overflows": "arithmetic",
    "shift_is_too_wide": "arithmetic",
    "value_does_not_fit": "arithmetic",
    "counter": "race",
    "counter_without_start": "uninitialised",
    "counter_read_early": "race",
    "beyond_scratch": "bounds",
    "uninitialised_scratch": "uninitialised",
    "freed_scratch": "bounds",
    "scratch_of_another_device": "bounds",
    "host_variable": "bounds",
    "clears_too_much": "bounds",
    "copies_what_nothing_wrote": "uninitialised",
    "frees_twice": "memory",
}
# Reports that need no instrumentation.
IN_THE_FAST_BUILD = [
    "divergent_barrier",
    "mask_lacks_the_caller",
    "mask_names_exited_lanes",
    "mask_names_lanes_that_wait",
    "two_sites",
    "reads_outside_the_mask",
    "frees_twice",
]


def samples(checked: bool) -> Any:
    module = build.load(checked, SOURCES)
    module.simt_seed(0)
    module.simt_devices(2)
    module.simt_memory(1 << 32)
    module.use_device(0)
    return module


@pytest.fixture(scope="module", autouse=True)
def _arrays_are_known() -> None:
    samples(checked=True)


def address(array: NDArray[Any]) -> int:
    return array.ctypes.data


def run(module: Any, name: str, wrong: bool, seed: int) -> NDArray[np.float32]:
    values, out = np.arange(1, N + 1, dtype=np.float32), np.zeros(N, dtype=np.float32)
    module.simt_seed(seed)
    module.run(name, wrong, address(values), N, address(out))
    return out


def test_every_sample_has_its_report() -> None:
    assert set(samples(checked=True).names()) == {*REPORTS, "exit_before_barrier"}


@pytest.mark.parametrize("name", [*REPORTS, "exit_before_barrier"])
def test_what_is_right_is_not_reported(name: str) -> None:
    results = [run(samples(checked), name, wrong=False, seed=seed) for checked in (False, True) for seed in range(5)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert samples(checked=True).simt_allocated() == 0


@pytest.mark.parametrize("name", [name for name in REPORTS if name != "writes_what_it_should_read"])
def test_mistakes_are_reported(name: str) -> None:
    module = samples(checked=True)
    for seed in range(5):
        with pytest.raises(module.SimtError) as caught:
            run(module, name, wrong=True, seed=seed)
        module.use_device(0)
        reports = str(caught.value).splitlines()
        assert REPORTS[name] in {report.split(" ")[0].rstrip(":") for report in reports}, reports
        assert module.simt_allocated() == 0
    run(module, name, wrong=False, seed=0)  # nothing stays of it


@pytest.mark.parametrize("name", IN_THE_FAST_BUILD)
def test_the_fast_build_reports_barriers_and_collectives(name: str) -> None:
    module = samples(checked=False)
    for seed in range(5):
        with pytest.raises(module.SimtError, match=f"^{REPORTS[name]}"):
            run(module, name, wrong=True, seed=seed)
    run(module, name, wrong=False, seed=0)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (
            "lacks_second_barrier",
            r"race in \(lacks_second_barrier<true>\), block \(0, 0, 0\), thread \d+: (reads|writes) shared values \+ "
            r"\d+ at samples.cu:\d+, which thread \d+ (reads|writes) at samples.cu:\d+; nothing orders the two",
        ),
        ("blocks_write_one_word", r"writes an array of 400 bytes \+ 0 at .*, which block \(0, 0, 0\) thread 0 writes"),
        (
            "mask_names_lanes_that_wait",
            r"__shfl_sync at samples.cu:\d+ with mask 0xffffffff in warp \d: lanes 0-15 wait, lanes 16-31 wait at "
            r"__syncthreads at samples.cu:\d+",
        ),
        ("mask_names_exited_lanes", r"with mask 0xffffffff in warp 0: lanes 0-15 wait, lanes 16-31 have exited"),
        ("divergent_barrier", r"thread 40: arrives at __syncthreads at samples.cu:\d+ while others .* samples.cu:\d+"),
        ("barrier_by_two_calls", r"different calls: < samples.cu:(\d+) and < samples.cu:(?!\1)"),
        ("beyond_shared", r"thread 63: reads 4 bytes at 256 of shared first of 256 bytes at samples.cu:\d+"),
        ("beyond_dynamic", r"writes 4 bytes at 256 of dynamic shared memory of 256 bytes at samples.cu:\d+"),
        ("beyond_scratch", r"thread 35: writes 4 bytes, 0 bytes beyond the end of scratch memory of 396 bytes"),
        ("before_the_start", r"reads 4 bytes, 4 bytes before the start of an array of 400 bytes"),
        ("freed_scratch", r"reads 4 bytes, freed scratch memory of 400 bytes \+ 0"),
        ("beyond_local", r"index 4 is out of an array's bounds at samples.cu:\d+"),
        ("uninitialised_scratch", r"thread 35: reads scratch memory of 400 bytes \+ 396, which has no value"),
    ],
)
def test_reports_name_place_and_threads(name: str, pattern: str) -> None:
    module = samples(checked=True)
    with pytest.raises(module.SimtError, match=pattern):
        run(module, name, wrong=True, seed=0)


def test_registered_memory() -> None:
    module = samples(checked=True)
    out = np.zeros(N, dtype=np.float32)
    values = bytearray(4 * N)  # no array of NumPy
    place = address(np.frombuffer(values, dtype=np.uint8))

    def use(name: str = "writes_what_it_should_read", wrong: bool = False) -> None:
        module.run(name, wrong, place, N, address(out))

    with pytest.raises(module.SimtError, match=r"^bounds.*neither allocated, nor registered"):
        use("lacks_barrier")
    with build.registered(module, np.frombuffer(values, dtype=np.uint8), writable=False):
        use("lacks_barrier")
        with pytest.raises(module.SimtError, match=r"^bounds.*read-only"):
            use(wrong=True)
    with (
        build.registered(module, np.frombuffer(values, dtype=np.uint8), initialised=False),
        pytest.raises(module.SimtError, match=r"^uninitialised"),
    ):
        use("lacks_barrier")
    with (
        build.registered(module, np.frombuffer(values, dtype=np.uint8), device=1),
        pytest.raises(module.SimtError, match=r"^bounds.* memory of device 1 on device 0"),
    ):
        use("lacks_barrier")
    with pytest.raises(ValueError, match="nothing is registered"):
        module.simt_unregister(place)


# ---- What the intrinsics do.


def shuffled(kind: int, values: list[float], arguments: NDArray[np.int32], width: int) -> list[float]:
    """As the CUDA programming guide has it; None where it is undefined."""
    out = []
    for lane in range(32):
        first = lane // width * width
        source = {
            0: first + arguments[lane] % width,
            1: lane - 1 if lane - 1 >= first else lane,
            2: lane + 2 if lane + 2 < first + width else lane,
            3: lane ^ 3 if lane ^ 3 < first + width else lane,
        }[kind]
        out.append(values[source])
    return out


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("checked", [False, True])
def test_collectives(width: int, seed: int, checked: bool) -> None:
    module = samples(checked)
    module.simt_seed(seed)
    rng = np.random.default_rng(width)
    arguments, values = rng.integers(0, 31, size=32).astype(np.int32), rng.integers(0, 1000, size=32).astype(float)
    out = np.zeros((32, 7))
    module.collectives(0xFFFFFFFF, width, address(arguments), address(values), address(out))
    for kind in range(4):
        np.testing.assert_array_equal(out[:, kind], shuffled(kind, list(values), arguments, width))
    assert (out[:, 4] == sum(1 << lane for lane in range(32) if arguments[lane] % 3 == 0)).all()
    assert (out[:, 5] == (5 in arguments)).all()
    assert (out[:, 6] == 1).all()


def test_collectives_of_some_lanes() -> None:
    module = samples(checked=False)
    arguments, values = np.zeros(32, dtype=np.int32), np.arange(32.0)
    arguments[16:], arguments[3] = 5, 31
    out = np.full((32, 7), -1.0)
    module.collectives(0x0000FFFF, 16, address(arguments), address(values), address(out))
    assert (out[:16, 0] == np.where(np.arange(16) == 3, 15, 0)).all()
    assert (out[:16, 4] == 0xFFFF - (1 << 3)).all()
    assert (out[:16, 5] == 0).all()
    assert (out[:16, 6] == 0).all()
    assert (out[16:] == -1).all()


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize(
    ("grid", "block"),
    [((1, 1, 1), (1, 1, 1)), ((3, 2, 2), (5, 3, 2)), ((7, 1, 3), (32, 4, 1)), ((2, 3, 1), (1024, 1, 1))],
)
def test_every_thread_of_every_block_runs_once(grid: tuple[int, ...], block: tuple[int, ...], seed: int) -> None:
    module = samples(checked=True)
    module.simt_seed(seed)
    per_block = math.prod(block)
    out = np.full((math.prod(grid), per_block), -1, dtype=np.int32)
    module.built_ins(grid, block, address(out))
    np.testing.assert_array_equal(out, np.arange(per_block) + 1000 * np.arange(len(out))[:, None])


@pytest.mark.parametrize("seed", [0, 3])
def test_atomics(seed: int) -> None:
    module = samples(checked=True)
    module.simt_seed(seed)
    signed = np.array([0, -5, 5, 0, 0], dtype=np.int32)
    unsigned = np.array([0, 0, 2**32 - 1, 0, 0], dtype=np.uint32)
    wide = np.array([2**63, 0, 2**64 - 1], dtype=np.uint64)
    module.atomics(3, address(signed), address(unsigned), address(wide))
    i = range(3 * 64)
    assert signed.tolist() == [sum(k if k % 2 == 0 else -k for k in i), 191, -191, 7, -2 * 192]
    folded = 0
    for k in i:
        folded ^= k
    assert unsigned.tolist() == [0x10000001 * 192 % 2**32, 2**32 - 1, 2**32 - 2**16, folded, 191]
    assert wide.tolist() == [2**63 + 192 * 2**40, 191 << 33, 5]


@pytest.mark.parametrize(
    ("a", "b"), [(0, 0), (-1, 1), (1 << 40, -(1 << 50)), (0x7FFFFFFF, 0x80000000), (-(1 << 63), (1 << 63) - 1), (12, 3)]
)
def test_arithmetic(a: int, b: int) -> None:
    module = samples(checked=False)
    out = np.zeros(13, dtype=np.uint64)
    module.arithmetic(a, b, address(out))
    u, v, ua, ub = a % 2**32, b % 2**32, a % 2**64, b % 2**64
    expected = [
        u.bit_count(),
        ua.bit_count(),
        (u & -u).bit_length(),
        32 - u.bit_length(),
        u * v >> 32,
        ua * ub >> 64,
        (a * b >> 64) % 2**64,
        min(a, b) % 2**64,
        max(u, v),
        (ua & -ua).bit_length(),
        64 - ua.bit_length(),
        u,
        ua,
    ]
    assert out.tolist() == expected


# ---- The runtime API.


def test_devices() -> None:
    module = samples(checked=False)
    assert module.device() == {"count": 2, "threads": 1024, "memory": 1 << 32, "available": 1 << 32}
    module.use_device(1)
    assert module.simt_device() == 1
    with pytest.raises(OSError, match=r"^cudaErrorInvalidDevice \(invalid device ordinal\) at cudaSetDevice"):
        module.use_device(2)
    assert module.simt_device() == 1
    module.simt_queues()
    run(module, "counter", wrong=False, seed=0)
    assert module.simt_queues() == {(1, 0)}
    assert module.simt_queues() == set()
    for error, name in ((NO_DEVICE, "cudaErrorNoDevice"), (INSUFFICIENT_DRIVER, "cudaErrorInsufficientDriver")):
        module.simt_devices(0, error)
        with pytest.raises(OSError, match=name):
            module.device()
        with pytest.raises(OSError, match=name):
            run(module, "lacks_barrier", wrong=False, seed=0)


@pytest.mark.parametrize("checked", [False, True])
def test_memory_is_accounted_for(checked: bool) -> None:
    module = samples(checked)
    one, other = module.leak(10), module.leak(100)
    assert module.simt_allocated() == 110
    assert module.device()["available"] == (1 << 32) - 110
    module.give_back(one)
    assert module.simt_allocated() == 100
    with pytest.raises(OSError, match="cudaErrorInvalidValue"):
        module.give_back(one)
    with pytest.raises(module.SimtError, match=r"^memory: cudaFreeAsync of an address that is not allocated"):
        module.simt_allocated()
    module.give_back(other)
    assert module.simt_allocated() == 0
    module.simt_memory(99)
    with pytest.raises(MemoryError, match=r"^cudaErrorMemoryAllocation \(out of memory\) at cudaMallocAsync"):
        module.leak(100)
    module.give_back(module.leak(99))
    assert module.simt_allocated() == 0


def test_calls_fail_where_a_test_wants_it() -> None:
    module = samples(checked=False)

    def outcome(name: str) -> str:
        try:
            run(module, name, wrong=False, seed=0)
        except (OSError, MemoryError) as error:
            return str(error).split(" ")[0]
        finally:
            assert module.simt_allocated() == 0
        return ""

    module.simt_fail("malloc")
    assert [outcome("counter"), outcome("counter")] == ["cudaErrorMemoryAllocation", ""]
    module.simt_fail("launch", after=2)  # of two
    assert [outcome("uninitialised_scratch"), outcome("uninitialised_scratch")] == ["cudaErrorLaunchFailure", ""]
    module.simt_fail("memset", error=INVALID_VALUE, times=2)
    assert [outcome("counter") for _ in range(3)] == ["cudaErrorInvalidValue", "cudaErrorInvalidValue", ""]
    module.simt_fail("synchronize")
    assert outcome("copies_what_nothing_wrote") == "cudaErrorLaunchFailure"
    module.simt_fail("memcpy", times=0)
    assert outcome("copies_what_nothing_wrote") == ""
    with pytest.raises(ValueError, match="unknown call"):
        module.simt_fail("free")


@pytest.mark.parametrize(
    ("grid", "block", "error"),
    [
        ((0, 1, 1), (32, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1, 65536, 1), (32, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1, 1, 1), (1025, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1, 1, 1), (32, 33, 1), "cudaErrorInvalidConfiguration"),
        ((1, 1, 1), (1, 1, 65), "cudaErrorInvalidConfiguration"),
    ],
)
def test_impossible_launches_fail(grid: tuple[int, ...], block: tuple[int, ...], error: str) -> None:
    module = samples(checked=False)
    with pytest.raises(OSError, match=f"^{error} .* at \\(built_ins\\)"):
        module.built_ins(grid, block, 0)


@pytest.mark.parametrize("checked", [False, True])
def test_shared_memory_has_a_limit(checked: bool) -> None:
    module = samples(checked)
    out = np.zeros(32, dtype=np.int32)
    static = 128 if checked else 0  # which only the checked build knows
    module.dynamic((48 << 10) - static, False, address(out))
    with pytest.raises(OSError, match="cudaErrorInvalidValue"):
        module.dynamic((48 << 10) - static + 1, False, address(out))
    module.dynamic(100 << 10, True, address(out))
    with pytest.raises(OSError, match="cudaErrorInvalidValue"):
        module.dynamic((100 << 10) + 1, False, address(out))
    with pytest.raises(OSError, match="cudaErrorInvalidValue"):
        module.dynamic((227 << 10) + 1, True, address(out))


# ---- How it is built.


def test_a_change_must_match_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 times"):
        build.changed_copy(tmp_path / "a", "cuda/simt.cuh", "no such text", "")
    with pytest.raises(ValueError, match=r"\d+ times"):
        build.changed_copy(tmp_path / "b", "cuda/simt.cuh", "e", "")
    folder = build.changed_copy(tmp_path / "c", "cuda/simt.cuh", "#pragma once", "#pragma once  // changed")
    assert "// changed" in (folder / "cuda" / "simt.cuh").read_text()


def test_a_file_is_made_once(tmp_path: Path) -> None:
    made = []

    def make(out: Path) -> None:
        made.append(out)
        out.write_text("done")

    workers = [threading.Thread(target=build._made, args=(tmp_path / "a.o", make)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(made) == 1
    assert (tmp_path / "a.o").read_text() == "done"

    def fail(out: Path) -> None:
        out.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build._made(tmp_path / "b.o", fail)
    assert not (tmp_path / "b.o").exists()


def test_includes_are_followed() -> None:
    texts = build._included(build.CSRC / "cuda" / "ball_counts.cu", (build.HERE, build.CSRC, build.CSRC / "include"))
    assert {"ball_counts.cu", "cuda/tile.cuh", "cuda/device.hpp", "egt/run.hpp", "cuda_runtime.h"} <= set(texts)


def test_arrays_of_a_process_are_known_to_all_its_modules() -> None:
    # In a process of its own: one in which a module that is loaded later must know arrays made before it.
    program = """
import sys, types
package = types.ModuleType("tests")
package.__path__ = [sys.argv[1]]
sys.modules["tests"] = package
import numpy as np
from tests.simt import build
sources = [build.HERE / "samples.cu", build.HERE / "samples_module.cpp"]
first = build.load(True, sources)
values, out = np.ones(100, dtype=np.float32), np.zeros(100, dtype=np.float32)
grown = np.arange(3.0)
grown.resize(1000, refcheck=False)
assert grown[:4].tolist() == [0.0, 1.0, 2.0, 0.0]\nassert grown.sum() == 3.0
second = build.load(True, [*sources, build.CSRC / "cuda" / "projection.cu"])
for module in (first, second):
    module.run("lacks_barrier", False, values.ctypes.data, 100, out.ctypes.data)
    try:
        module.run("lacks_guard", True, values.ctypes.data, 100, out.ctypes.data)
    except module.SimtError as error:
        print(str(error).split(" ")[0])
"""
    folder = str(build.ROOT / "tests")
    result = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("bounds\nbounds\n", "")
