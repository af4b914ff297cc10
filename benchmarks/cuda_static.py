"""Collect what the CUDA compiler reports about the kernels, without a GPU; write one table and one JSON.

    python -m benchmarks.cuda_static --out benchmarks/results          cuda_static.json and cuda_static.md
    python -m benchmarks.cuda_static --ceilings docs/gpu-ceilings.md   rooflines; compiles nothing

Registers, spills, stack and shared memory are what ptxas reports for each kernel and architecture. Occupancy follows
from them and the limits below. The instruction mix counts the instructions in the machine code, not how often they are
executed. It needs nvdisasm (pip install nvidia-cuda-nvdisasm) and is left out without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)  # as setup.py builds for
FLAGS = ("-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}")
COMMAND = "python -m benchmarks.cuda_static --out benchmarks/results"
CEILINGS_COMMAND = "python -m benchmarks.cuda_static --ceilings docs/gpu-ceilings.md"
TABLE = ROOT / "benchmarks" / "results" / "cuda_static.json"

# Threads per block of the kernels that do not state them as __launch_bounds__: tile_threads, except for these.
BLOCK_SIZES = {"choose_scale": 1, "find_nearness": 1}
USUAL_BLOCK = 256
# Bytes of shared memory that a launch adds, here the sums of 12 divergences as in the benchmark.
DYNAMIC_SHARED = {"evaluate_counts": 14 * 256 * 8, "redraw": 14 * 256 * 8}


class Limits(NamedTuple):
    """Limits of a multiprocessor: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"."""

    warps: int
    blocks: int
    shared: int  # bytes
    shared_reserved: int  # bytes that the system takes from every block
    registers: int = 65536


LIMITS = {
    75: Limits(warps=32, blocks=16, shared=64 << 10, shared_reserved=0),
    80: Limits(warps=64, blocks=32, shared=164 << 10, shared_reserved=1024),
    86: Limits(warps=48, blocks=16, shared=100 << 10, shared_reserved=1024),
    89: Limits(warps=48, blocks=24, shared=100 << 10, shared_reserved=1024),
    90: Limits(warps=64, blocks=32, shared=228 << 10, shared_reserved=1024),
    100: Limits(warps=64, blocks=32, shared=228 << 10, shared_reserved=1024),
    120: Limits(warps=48, blocks=24, shared=100 << 10, shared_reserved=1024),
}
PARTITIONS = 4  # a warp's registers come from one of the four partitions of a multiprocessor
REGISTER_UNIT = 256  # registers are allocated to a warp in units of this size

MIX = {
    "FFMA": {"FFMA", "FFMA2"},
    "DFMA": {"DFMA", "DADD", "DMUL"},
    "LDS": {"LDS"},
    "LDG": {"LDG"},
    "STG": {"STG"},
    "ATOM": {"ATOM", "ATOMG", "ATOMS", "RED", "REDG"},
    "SHFL": {"SHFL"},
    "BAR": {"BAR"},
    "MUFU": {"MUFU"},
    "LDL/STL": {"LDL", "STL"},
}


class Occupancy(NamedTuple):
    blocks: int
    warps: int
    limited_by: str


@dataclass(frozen=True)
class Kernel:
    file: str
    name: str
    architecture: int
    registers: int
    spill_stores: int  # bytes
    spill_loads: int
    stack: int
    shared: int
    dynamic_shared: int
    threads: int
    occupancy: Occupancy
    mix: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.file, self.name, self.architecture


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def occupancy(architecture: int, *, threads: int, registers: int, shared: int) -> Occupancy:
    """Blocks and warps that a multiprocessor holds at a time, and the resource that limits them."""
    limits = LIMITS[architecture]
    warps = -(-threads // 32)
    bounds = {"warps": limits.warps // warps, "blocks": limits.blocks}
    if registers:
        warps_of_partition = limits.registers // PARTITIONS // round_up(32 * registers, REGISTER_UNIT)
        bounds["registers"] = warps_of_partition * PARTITIONS // warps
    if shared:
        unit = 256 if architecture < 80 else 128
        bounds["shared memory"] = limits.shared // round_up(shared + limits.shared_reserved, unit)
    blocks = min(bounds.values())
    return Occupancy(blocks, blocks * warps, " and ".join(name for name, bound in bounds.items() if bound == blocks))


def find_nvcc() -> str | None:
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    homes += ["/usr/local/cuda", "/opt/cuda"]
    candidates = [os.environ.get("CUDACXX"), "nvcc", *(str(Path(home, "bin", "nvcc")) for home in homes)]
    return next((found for name in candidates if name and (found := shutil.which(name))), None)


def find_nvdisasm() -> str | None:
    if found := shutil.which("nvdisasm"):
        return found
    package = importlib.util.find_spec("nvidia")
    folders = list(package.submodule_search_locations or []) if package else []
    return next((str(path) for folder in folders for path in Path(folder).glob("*/bin/nvdisasm")), None)


def release(nvcc: str) -> str:
    """The version of a compiler, such as "13.0"."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    assert found, text
    return found[1]


@dataclass
class Usage:
    registers: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    stack: int = 0
    shared: int = 0


def parse_ptxas(text: str) -> dict[str, Usage]:
    """Read the output of ptxas -v: what each kernel uses, by its mangled name.

    Functions that are not inlined are listed after a kernel; their spills and stack are added to that kernel.
    """
    kernels: dict[str, Usage] = {}
    kernel = Usage()
    for line in text.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            kernel = kernels[found[1]] = Usage()
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            kernel.stack += int(found[1])
            kernel.spill_stores += int(found[2])
            kernel.spill_loads += int(found[3])
        elif found := re.search(r"Used (\d+) registers", line):
            kernel.registers = int(found[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                kernel.shared = int(shared[1])
    return kernels


def parse_block_sizes(ptx: str) -> dict[str, int]:
    """Read the __launch_bounds__ from PTX, for the kernels that state them."""
    sizes = {}
    for name, directives in re.findall(r"\.entry (\w+)\s*\([^)]*\)([^{;]*)\{", ptx):
        if found := re.search(r"\.(?:maxntid|reqntid) (\d+)(?:, (\d+))?(?:, (\d+))?", directives):
            x, y, z = (int(n) if n else 1 for n in found.groups())
            sizes[name] = x * y * z
    return sizes


def parse_mix(sass: str) -> dict[str, dict[str, int]]:
    """Count the instructions of each kernel in the output of nvdisasm -c, by the groups of MIX."""
    mixes: dict[str, dict[str, int]] = {}
    counts: dict[str, int] = {}
    for line in sass.splitlines():
        if found := re.match(r"\.text\.(\w+):", line):
            counts = mixes.setdefault(found[1], dict.fromkeys([*MIX, "other"], 0))
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?!NOP)([A-Z][A-Z0-9]*)", line):
            counts[next((group for group, names in MIX.items() if found[1] in names), "other")] += 1
    return mixes


def demangle(names: Iterable[str]) -> dict[str, str]:
    """Return readable names by mangled name, without our namespaces, arguments and return types."""
    mangled = list(names)
    text = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    return dict(zip(mangled, map(shorten, text.splitlines()), strict=True))


def shorten(name: str) -> str:
    if name.endswith(")"):
        depth = 0
        for position in range(len(name) - 1, -1, -1):
            depth += (name[position] == ")") - (name[position] == "(")
            if depth == 0:
                name = name[:position]
                break
    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N_\w+::|_INTERNAL_\w+::|\begt::cuda::|\begt::", "", name)
    return name.removeprefix("void ")


def compile_source(nvcc: str, source: Path, architecture: int, *more: str) -> list[Kernel]:
    """Compile one source for one architecture in a temporary folder, and read the report on each kernel."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernels.cubin")
        command = [nvcc, *FLAGS, *more, f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v", "--keep"]
        command += ["--keep-dir", folder, "-o", str(cubin), str(source)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr}")
        usages = parse_ptxas(result.stderr + result.stdout)
        sizes = parse_block_sizes(next(Path(folder).glob("*.ptx")).read_text())
        nvdisasm = find_nvdisasm()
        mixes = {}
        if nvdisasm:
            sass = subprocess.run([nvdisasm, "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
            mixes = parse_mix(sass)
    kernels = []
    names = demangle(usages)
    for mangled, usage in usages.items():
        bare = names[mangled].partition("<")[0].rpartition("::")[2]
        threads = sizes.get(mangled) or BLOCK_SIZES.get(bare, USUAL_BLOCK)
        dynamic = DYNAMIC_SHARED.get(bare, 0)
        shared = usage.shared + dynamic
        held = occupancy(architecture, threads=threads, registers=usage.registers, shared=shared)
        mix = mixes.get(mangled, {})
        kernels.append(Kernel(source.name, names[mangled], architecture, *astuple(usage), dynamic, threads, held, mix))
    return kernels


def compile_all(
    nvcc: str, sources: Sequence[Path], architectures: Sequence[int] = ARCHITECTURES, *, processes: int = 2
) -> list[Kernel]:
    jobs = [(source, architecture) for source in sources for architecture in architectures]
    with ThreadPoolExecutor(processes) as pool:
        found = pool.map(lambda job: compile_source(nvcc, *job), jobs)
        return sorted((kernel for kernels in found for kernel in kernels), key=lambda kernel: kernel.key)


def to_json(kernels: Sequence[Kernel], compiler: str) -> str:
    """Write one line per kernel, so that a diff shows the kernels that changed."""
    rows = ",\n".join("  " + json.dumps(asdict(kernel)) for kernel in kernels)
    header = {"command": COMMAND, "compiler": compiler, "flags": [flag for flag in FLAGS if not flag.startswith("-I")]}
    fields = "\n".join(f" {json.dumps(name)}: {json.dumps(value)}," for name, value in header.items())
    return f'{{\n{fields}\n "kernels": [\n{rows}\n ]\n}}\n'


def from_json(text: str) -> tuple[str, list[Kernel]]:
    """Read the compiler's version and the kernels of a table."""
    report = json.loads(text)
    kernels = [Kernel(**{**row, "occupancy": Occupancy(*row["occupancy"])}) for row in report["kernels"]]
    return report["compiler"], kernels


def to_markdown(kernels: Sequence[Kernel], compiler: str) -> str:
    by_key = {kernel.key: kernel for kernel in kernels}
    names = sorted({(kernel.file, kernel.name) for kernel in kernels})
    architectures = sorted({kernel.architecture for kernel in kernels})

    def cell(kernel: Kernel) -> str:
        held = kernel.occupancy
        return f"{kernel.registers}; {held.warps}/{LIMITS[kernel.architecture].warps} {held.limited_by}"

    # A kernel that several sources include compiles to the same code in each.
    usage: dict[tuple[str, ...], list[str]] = {}
    for file, name in names:
        own = [by_key[file, name, architecture] for architecture in architectures]
        shared = " ".join(str(size) for size in sorted({kernel.shared for kernel in own}))
        if own[0].dynamic_shared:
            shared += f" + {own[0].dynamic_shared}"
        usage.setdefault((f"`{name}`", str(own[0].threads), shared, *map(cell, own)), []).append(file)
    rows = [(*row, " ".join(files)) for row, files in usage.items()]
    columns = [f"sm_{architecture}" for architecture in architectures]
    text = [
        "# The CUDA kernels as the compiler sees them",
        "",
        f"Written by `{COMMAND}` with nvcc {compiler}; nothing here",
        "was run. For each architecture: registers of a thread; warps that a multiprocessor holds, of the most it can;",
        "what keeps it from more. Shared memory is in bytes, + what a launch adds in the benchmark's case.",
        "",
        spills(kernels),
        "",
        tabulate(
            rows, headers=["kernel", "threads", "shared", *columns, "in"], tablefmt="github", disable_numparse=True
        ),
        "",
    ]
    middle = 90
    mixed = [kernel for kernel in kernels if kernel.architecture == middle and kernel.mix]
    if mixed:
        mixes = {(f"`{kernel.name}`", *kernel.mix.values()): None for kernel in mixed}
        text += [
            f"Instructions of the machine code for sm_{middle}, counted once each, however often they are executed:",
            "",
            tabulate(list(mixes), headers=["kernel", *mixed[0].mix], tablefmt="github"),
        ]
    else:
        text += ["Without nvdisasm (`pip install nvidia-cuda-nvdisasm`) there is no instruction mix."]
    return "\n".join(text) + "\n"


def spills(kernels: Iterable[Kernel]) -> str:
    """Return sentences that name the kernels that use local memory."""
    uses: dict[tuple[str, int, int, int], list[str]] = {}
    for kernel in kernels:
        if kernel.spill_stores or kernel.spill_loads or kernel.stack:
            use = kernel.name, kernel.spill_stores, kernel.spill_loads, kernel.stack
            uses.setdefault(use, []).append(f"sm_{kernel.architecture}")
    if not uses:
        return "No kernel spills a register or uses the stack on any architecture."
    lines = [
        f"- `{name}` has {stack} bytes of stack and spills "
        + (f"{stores} bytes out, {loads} in" if stores or loads else "nothing")
        + f" ({', '.join(dict.fromkeys(architectures))})."
        for (name, stores, loads, stack), architectures in uses.items()
    ]
    return "\n".join(["Local memory is used by:", "", *lines, "", "No other kernel spills or has a stack."])


class Card(NamedTuple):
    """Peak rates of a card without tensor cores, per second."""

    name: str
    float32: float
    float64: float
    bandwidth: float
    source: str


CARDS = (
    Card("A100", 19.5e12, 9.7e12, 2.039e12, "A100 80 GB SXM: NVIDIA A100 Tensor Core GPU data sheet"),
    Card(
        "L40S",
        91.6e12,
        91.6e12 / 64,
        0.864e12,
        "NVIDIA L40S data sheet; float64 is 1/64 of float32: NVIDIA Ada GPU architecture white paper",
    ),
    Card("H100", 67e12, 34e12, 3.35e12, "H100 SXM: NVIDIA H100 Tensor Core GPU data sheet"),
    Card("B200", 80e12, 40e12, 8e12, "HGX B200, 1000 W: NVIDIA Blackwell architecture technical brief"),
)


class Work(NamedTuple):
    """The least work of one call: operations (a fused multiply-add is two), and bytes read and written once."""

    name: str
    float32: float
    float64: float
    bytes: float


def works() -> list[Work]:
    """The cases of benchmarks/gpu.py, with features in float32."""

    def pairs(name: str, n: int, m: int, d: int, *, self: bool, more: float = 0.0, results: float) -> Work:
        n_pairs = n * (n - 1) / 2 if self else n * m
        points = n if self else n + m
        return Work(name, n_pairs * 2 * d + more, 0.0, 4 * points * d + results)

    n_near = 280  # within the median distance to the 160th neighbour, on average, of 10,000 normal points
    replicates = [
        # The kernel of each neighbour is multiplied by its counts in every replicate.
        pairs(
            f"kernel_density_band n = 10000, d = 32, B = {b}",
            n,
            n,
            32,
            self=True,
            more=2 * n * n_near * b,
            results=n * (8 + 2 * b),
        )
        for n, b in ((10_000, 10), (10_000, 1000))
    ]
    return [
        pairs("kth_neighbor n = 20000, d = 64, k = 5", 20_000, 20_000, 64, self=True, results=8 * 20_000),
        pairs("kth_neighbor n = 20000, d = 768, k = 5", 20_000, 20_000, 768, self=True, results=8 * 20_000),
        pairs("kth_neighbor n = 10000, d = 32, k = 160", 10_000, 10_000, 32, self=True, results=8 * 10_000),
        pairs("neighbors n = m = 10000, d = 768, k = 5", 10_000, 10_000, 768, self=False, results=16 * 5 * 10_000),
        pairs("ball_counts n = m = 10000, d = 768", 10_000, 10_000, 768, self=False, results=48 * 10_000),
        pairs("kernel_density n = m = 10000, d = 32", 10_000, 10_000, 32, self=False, results=8 * 10_000),
        *replicates,
        pairs("soft_ball_product n = m = 10000, d = 768", 10_000, 10_000, 768, self=False, results=8 * 10_000),
        Work("project n = 20000, d = 768 to 32", 0.0, 2 * 20_000 * 768 * 32, 4 * 20_000 * 768 + 8 * 32 * 20_768),
    ]


def ceiling_seconds(work: Work, card: Card) -> tuple[float, str]:
    """Return the least time that a card needs for the work at its peak rates, and the peak that decides it."""
    bounds = {
        "float32": work.float32 / card.float32,
        "float64": work.float64 / card.float64,
        "memory": work.bytes / card.bandwidth,
    }
    name = max(bounds, key=lambda bound: bounds[bound])
    return bounds[name], name


def ceilings_markdown() -> str:
    rows = []
    for work in works():
        bounds = [ceiling_seconds(work, card) for card in CARDS]
        cells = [f"{seconds * 1e6:.0f} µs ({name})" for seconds, name in bounds]
        operations = work.float32 + work.float64
        rows.append([work.name, f"{operations / 1e9:.1f}", f"{work.bytes / 1e6:.1f}", *cells])
    headers = ["call", "GFLOP", "MB", *(card.name for card in CARDS)]
    peaks = [
        [card.name, *(f"{peak / 1e12:.3g}" for peak in (card.float32, card.float64, card.bandwidth)), card.source]
        for card in CARDS
    ]
    return f"""\
# Ceilings of the CUDA kernels

No call of the kernels can take less time than this on these cards, because their data sheets allow no more operations
and no more bytes per second. These are ceilings of speed, never predictions: no kernel was timed for them. Only a
measurement shows how near a kernel comes (`python -m benchmarks.gpu`, see [gpu-validation.md](gpu-validation.md)).

The count has the least work that this method needs: one product of d terms for each pair of points (pairs within one
set count once, whether or not a kernel uses that), one term for each bootstrap replicate and each of a row's 280
neighbours within the bandwidth, and every input read and every result written once. It leaves out the choice of
neighbours, the exact float64 distances of the pairs that the products do not decide (how many depends on the data),
edges of tiles, and launches. float32 means without tensor cores, which the tiles do not use. The bootstrap of
divergences is missing: it is integer arithmetic, for which data sheets name no peak. The peak that sets the ceiling is
in brackets.

{tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)}

Peaks, in TFLOP/s and TB/s:

{tabulate(peaks, headers=["card", "float32", "float64", "memory", "source"], tablefmt="github", disable_numparse=True)}

Written by `{CEILINGS_COMMAND}`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for cuda_static.json and cuda_static.md; default: only print")
    parser.add_argument("--ceilings", type=Path, help="write the ceilings to this file and compile nothing")
    arguments = parser.parse_args()
    from egtmetrics._atomic import write_whole

    if arguments.ceilings:
        write_whole(arguments.ceilings, ceilings_markdown())
        return
    nvcc = find_nvcc()
    if nvcc is None:
        print("nvcc was not found; install the CUDA toolkit, or set CUDACXX or CUDA_HOME.", file=sys.stderr)
        raise SystemExit(2)
    kernels = compile_all(nvcc, SOURCES)
    text = to_markdown(kernels, release(nvcc))
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.out / "cuda_static.json", to_json(kernels, release(nvcc)))
        write_whole(arguments.out / "cuda_static.md", text)


if __name__ == "__main__":
    main()
