"""What the CUDA compiler reports for the kernels: no spills, and no more registers than in the committed table.

The tests compile for three of the seven architectures of a wheel: the oldest, one in the middle and the newest. The
command that writes the table compiles for all.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import cuda_static
from benchmarks.cuda_static import ARCHITECTURES, COMMAND, LIMITS, SOURCES, TABLE, Kernel, Occupancy

NVCC = cuda_static.find_nvcc()
TESTED = (75, 90, 120)
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="there is no nvcc; set CUDACXX or CUDA_HOME")


def committed() -> tuple[str, dict[tuple[str, str, int], Kernel]]:
    compiler, kernels = cuda_static.from_json(TABLE.read_text())
    return compiler, {kernel.key: kernel for kernel in kernels}


def worse(compiled: list[Kernel], table: dict[tuple[str, str, int], Kernel], *, same_compiler: bool) -> list[str]:
    """Return a sentence for everything that the table does not allow."""
    found = []
    for kernel in compiled:
        where = f"{kernel.name} of {kernel.file} on sm_{kernel.architecture}"
        if kernel.spill_stores or kernel.spill_loads:
            found.append(f"{where} spills {kernel.spill_stores} bytes out and {kernel.spill_loads} bytes in")
        allowed = table.get(kernel.key)
        if allowed is None:
            found.append(f"{where} is not in the table; renew the table with `{COMMAND}`")
            continue
        if same_compiler and kernel.registers > allowed.registers:
            found.append(f"{where} uses {kernel.registers} registers; the table has {allowed.registers}")
        if same_compiler and kernel.stack > allowed.stack:
            found.append(f"{where} uses {kernel.stack} bytes of stack; the table has {allowed.stack}")
    return found


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_kernels_do_not_spill_or_exceed_the_committed_table(source: Path) -> None:
    assert NVCC
    compiler, table = committed()
    processes = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
    compiled = cuda_static.compile_all(NVCC, [source], TESTED, processes=processes)
    same_compiler = cuda_static.release(NVCC) == compiler
    found = worse(compiled, table, same_compiler=same_compiler)
    assert not found, "\n".join(found)
    listed = {key for key in table if key[0] == source.name and key[2] in TESTED}
    gone = listed - {kernel.key for kernel in compiled}
    assert not gone, f"{gone} are in the table but no longer in the source; renew the table with `{COMMAND}`"
    if not same_compiler:
        pytest.skip(f"registers are compared only under nvcc {compiler}, which wrote the table; spills were checked")


def test_table_holds_every_architecture_and_no_spill() -> None:
    _, table = committed()
    for file, name, _ in table:
        assert {key[2] for key in table if key[:2] == (file, name)} == set(ARCHITECTURES), (file, name)
    assert {key[0] for key in table} == {source.name for source in SOURCES}
    found = worse(list(table.values()), table, same_compiler=True)
    assert not found, "\n".join(found)


def test_setup_builds_for_the_same_architectures() -> None:
    build = re.search(r"CUDA_ARCHITECTURES = \(([^)]*)\)", (cuda_static.ROOT / "setup.py").read_text())
    assert build
    assert tuple(int(number) for number in build[1].split(",")) == ARCHITECTURES == tuple(LIMITS)


def kernel(**changes: object) -> Kernel:
    values = {"registers": 80, "spill_stores": 0, "spill_loads": 0, "stack": 0, "shared": 0}
    values |= {"dynamic_shared": 0, "threads": 256}
    return Kernel("a.cu", "k<float>", 80, **{**values, "occupancy": Occupancy(3, 24, "registers"), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"registers": 81}, "81 registers; the table has 80"),
        ({"stack": 8}, "8 bytes of stack; the table has 0"),
        ({"spill_stores": 4}, "spills 4 bytes out and 0 bytes in"),
        ({"spill_loads": 4}, "spills 0 bytes out and 4 bytes in"),
    ],
)
def test_the_check_reports_what_grew(changes: dict[str, int], message: str) -> None:
    table = {kernel().key: kernel()}
    (found,) = worse([kernel(**changes)], table, same_compiler=True)
    assert message in found


def test_the_check_passes_kernels_that_did_not_grow() -> None:
    table = {kernel().key: kernel()}
    assert not worse([kernel(), kernel(registers=79)], table, same_compiler=True)
    assert not worse([kernel(registers=81)], table, same_compiler=False)


def test_the_check_names_the_command_for_a_new_kernel() -> None:
    (found,) = worse([kernel()], {}, same_compiler=True)
    assert COMMAND in found


PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5plainIfEvPf' for 'sm_80'
ptxas info    : Function properties for _Z5plainIfEvPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 360 bytes cmem[0]
ptxas info    : Compile time = 20.987 ms
ptxas info    : Compiling entry function '_Z6callerPfi' for 'sm_80'
ptxas info    : Function properties for _Z6callerPfi
    296 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 296 bytes cumulative stack size, 12800 bytes smem, 4 bytes cmem[0]
ptxas info    : Compile time = 7.836 ms
ptxas info    : Function properties for _Z4deepfi
    16 bytes stack frame, 588 bytes spill stores, 620 bytes spill loads
"""


def test_ptxas_output_is_read() -> None:
    plain, caller = cuda_static.parse_ptxas(PTXAS).values()
    assert plain == cuda_static.Usage(registers=8)
    # Includes the function that is not inlined.
    assert caller == cuda_static.Usage(registers=255, spill_stores=592, spill_loads=628, stack=312, shared=12800)


def test_launch_bounds_are_read() -> None:
    ptx = """
.visible .entry bounded(
\t.param .u64 .ptr .align 1 bounded_param_0
)
.maxntid 32, 8, 1
.minnctapersm 2
{
\tret;
}
.visible .entry unbounded(.param .u64 p)
{
\tret;
}
.entry one()
.maxntid 128
{
\tret;
}"""
    assert cuda_static.parse_block_sizes(ptx) == {"bounded": 256, "one": 128}


def test_instructions_are_counted() -> None:
    sass = """
\t.section\t.text.first,"ax",@progbits
.text.first:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.64 R10, [R16.64] ;
        /*0020*/            @P1 FFMA R0, R1, R2, R3 ;
.L_x_4:
        /*0030*/              @UP0 DADD R10, -R10, R14 ;
        /*0040*/                   RED.E.ADD.STRONG.GPU [R2.64], R5 ;
        /*0050*/                   STL [R1], R2 ;
        /*0060*/                   NOP;
.text.second:
        /*10000*/                  BAR.SYNC.DEFER_BLOCKING 0x0 ;
"""
    first, second = cuda_static.parse_mix(sass).values()
    counted = {group: count for group, count in first.items() if count}
    assert counted == {"LDG": 1, "FFMA": 1, "DFMA": 1, "ATOM": 1, "LDL/STL": 1, "other": 1}
    assert second["BAR"] == 1
    assert sum(second.values()) == 1


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void egt::cuda::frame_kernels::find_centre<float>(float const*, long)", "frame_kernels::find_centre<float>"),
        ("void egt::cuda::(anonymous namespace)::k<double, (int)4>(double*, void (*)(int))", "k<double, (int)4>"),
        ("egt::cuda::plain(int)", "plain"),
        ("void egt::cuda::_GLOBAL__N__1a2b_4_x_cu_3c::k<egt::cuda::Sum>(float)", "k<Sum>"),
    ],
)
def test_names_are_shortened(name: str, short: str) -> None:
    assert cuda_static.shorten(name) == short


SPILLING = """
extern "C" __global__ void __launch_bounds__(BOUNDS) many(float* out, int n) {
  float values[48];
  for (int i = 0; i < 48; ++i) values[i] = out[i * n + threadIdx.x];
  for (int step = 0; step < n; ++step) {
#pragma unroll
    for (int i = 0; i < 48; ++i) values[i] = values[i] * values[(i + 7) % 48] + out[step];
  }
  for (int i = 0; i < 48; ++i) out[i * n + threadIdx.x] = values[i];
}
"""


@needs_nvcc
def test_a_kernel_that_spills_is_caught(tmp_path: Path) -> None:
    assert NVCC
    source = tmp_path / "many.cu"
    source.write_text(SPILLING.replace("BOUNDS", "256"))
    (sound,) = cuda_static.compile_source(NVCC, source, 80)
    source.write_text(SPILLING.replace("BOUNDS", "1024, 2"))  # leaves 32 registers
    (spilling,) = cuda_static.compile_source(NVCC, source, 80)
    table = {sound.key: sound}
    assert not worse([sound], table, same_compiler=True)
    assert any("spills" in message for message in worse([spilling], table, same_compiler=True))
    if cuda_static.find_nvdisasm():
        assert spilling.mix["LDL/STL"] > 0
        assert sound.mix["LDL/STL"] == 0
        assert sound.mix["FFMA"] >= 48


def test_occupancy_of_known_cases() -> None:
    assert cuda_static.occupancy(90, threads=256, registers=128, shared=0) == (2, 16, "registers")
    assert cuda_static.occupancy(90, threads=256, registers=129, shared=0) == (1, 8, "registers")
    assert cuda_static.occupancy(75, threads=256, registers=32, shared=32 << 10) == (2, 16, "shared memory")
    assert cuda_static.occupancy(80, threads=32, registers=16, shared=0) == (32, 32, "blocks")
    assert cuda_static.occupancy(86, threads=1024, registers=32, shared=0) == (1, 32, "warps")


# Reads lines of numbers and prints the blocks of a multiprocessor that the toolkit's own header computes.
CHECKER = """
#include <cstdio>
#include <cuda_occupancy.h>
int main() {
  int architecture, warps, threads, registers;
  size_t per_multiprocessor, shared;
  while (std::scanf("%d %d %zu %d %d %zu", &architecture, &warps, &per_multiprocessor, &threads, &registers,
                    &shared) == 6) {
    const size_t reserved = architecture < 80 ? 0 : 1024;
    cudaOccDeviceProp device{};
    device.computeMajor = architecture / 10;
    device.computeMinor = architecture % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = 32 * warps;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = per_multiprocessor;
    device.sharedMemPerBlockOptin = per_multiprocessor - reserved;
    device.reservedSharedMemPerBlock = reserved;
    device.numSms = 1;
    cudaOccFuncAttributes kernel{};
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = shared;
    kernel.maxDynamicSharedSizeBytes = 0;
    kernel.numBlockBarriers = 1;
    cudaOccDeviceState state{};
    state.carveoutConfig = SHAREDMEM_CARVEOUT_DEFAULT;
    cudaOccResult result{};
    const int status = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0);
    std::printf("%d\\n", status == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -status);
  }
}
"""


@needs_nvcc
def test_occupancy_agrees_with_the_toolkit(tmp_path: Path) -> None:
    assert NVCC
    (tmp_path / "checker.cpp").write_text(CHECKER)
    program = str(tmp_path / "checker")
    subprocess.run([NVCC, "-cudart", "none", "-o", program, str(tmp_path / "checker.cpp")], check=True)
    cases = [
        (architecture, threads, registers, shared)
        for architecture in ARCHITECTURES
        for threads in (1, 32, 96, 128, 256, 1024)
        for registers in (9, 32, 40, 64, 81, 96, 128)
        if registers <= 64 or threads < 1024
        for shared in (0, 1, 3072, 9300, 12800, 17408, 33000, 48 << 10)
    ]
    lines = []
    for architecture, threads, registers, shared in cases:
        limits = LIMITS[architecture]
        numbers = (architecture, limits.warps, limits.shared, threads, registers, shared)
        lines.append(" ".join(map(str, numbers)))
    answer = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    blocks = [int(line) for line in answer.split()]
    ours = [
        cuda_static.occupancy(architecture, threads=threads, registers=registers, shared=shared).blocks
        for architecture, threads, registers, shared in cases
    ]
    differences = [(case, own, theirs) for case, own, theirs in zip(cases, ours, blocks, strict=True) if own != theirs]
    assert not differences
