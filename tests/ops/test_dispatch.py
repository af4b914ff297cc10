"""How the kernels behave as a guest in a process: choice of backend, memory, interrupts, the GIL, instruction sets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from egtmetrics.ops import select_backend

TESTS = Path(__file__).parent


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, **environment},
    )


NARROWEST_FIRST = ["generic", "avx2", "avx512", "avx512-popcnt"]


@pytest.mark.parametrize("isa", NARROWEST_FIRST[:-1])
def test_every_instruction_set_passes_the_kernel_tests(isa: str) -> None:
    data = (
        "float32 and not scipy and (1540x780x3 and integers or 255x257x33 and (normal or integers or near_duplicates))"
    )
    some = f"{data} or ties or zero or kernel_equals"
    files = [str(TESTS / "test_kernels.py"), str(TESTS / "test_divergence_bootstrap.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", some, *files]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "EGTMETRICS_ISA": isa}
    )
    assert result.returncode == 0, result.stdout[-3000:]
    chosen = run_python("from egtmetrics.ops._cpu import build_info; print(build_info()['isa'])", EGTMETRICS_ISA=isa)
    assert chosen.stdout.strip() in NARROWEST_FIRST[: NARROWEST_FIRST.index(isa) + 1]


FALLBACK = """
import sys, warnings
sys.modules["egtmetrics.ops._cpu"] = None
import numpy as np
from egtmetrics.ops import select_backend
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    names = [select_backend().name, select_backend().name]
print(names, len(caught), caught[0].category.__name__)
try:
    select_backend("cpu")
except ImportError as error:
    print("ImportError")
"""


def test_without_the_compiled_module_the_reference_runs_and_says_so_once() -> None:
    result = run_python(FALLBACK)
    assert result.stdout.split("\n")[:2] == [
        "['reference', 'reference'] 1 BackendFallbackWarning",
        "ImportError",
    ], result.stderr


def test_importing_the_package_loads_neither_kernels_nor_frameworks() -> None:
    code = (
        "import sys, egtmetrics; "
        "print([m for m in ('egtmetrics.ops', 'torch', 'matplotlib', 'sklearn', 'numpy') if m in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_bad_backend_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="backend='gpu' is unknown"):
        select_backend("gpu")  # type: ignore[arg-type]
    for n_threads in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="n_threads="):
            select_backend(n_threads=n_threads)  # type: ignore[arg-type]


MEMORY = """
import numpy as np
from egtmetrics.ops import select_backend

def peak():  # unlike ru_maxrss, not inherited from the parent
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

backend = select_backend("cpu")
x = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
backend.kth_neighbor(x[:500], n_neighbors=5)
before = peak()
backend.kth_neighbor(x, n_neighbors=5)
backend.ball_counts(x, x_sq_radii=np.full(len(x), 0.01), closed=False)
backend.kernel_density_band(x, np.ones((len(x), 10), dtype=np.uint16), bandwidth=1.0)
print((peak() - before) // 1024)
"""


def test_memory_stays_far_below_the_distance_matrix() -> None:
    megabytes = int(run_python(MEMORY).stdout)
    assert megabytes < 100  # the float32 matrix would be 1,526


INTERRUPTED = """
import signal, time
import numpy as np
from egtmetrics.ops import select_backend
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind it with the signal ignored
x = np.random.default_rng(0).random((200_000, 512), dtype=np.float32)
backend = select_backend("cpu", n_threads=1)
try:
    print("started", time.process_time(), flush=True)
    backend.kth_neighbor(x, n_neighbors=5)
except KeyboardInterrupt:
    print("interrupted", time.process_time(), flush=True)
"""


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_is_honoured_within_a_second() -> None:
    """A second of the process's own time, which other processes do not stretch."""
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, started = process.stdout.readline().split()
        assert word == "started"
        while processor_seconds(process.pid) < float(started) + 0.5:  # well into a computation of minutes
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        sent = processor_seconds(process.pid)
        word, interrupted = process.stdout.readline().split()
        assert word == "interrupted"
        assert float(interrupted) - sent < 1.0


def test_the_gil_is_released() -> None:
    x = np.random.default_rng(0).normal(size=(12_000, 64)).astype(np.float32)
    backend = select_backend("cpu", n_threads=1)
    worker = threading.Thread(target=lambda: backend.kth_neighbor(x, n_neighbors=5))
    worker.start()
    beats = 0
    while worker.is_alive():
        time.sleep(0.002)
        beats += 1
    assert beats > 5  # one at the most if the kernel held the GIL


def test_memory_mapped_and_reversed_inputs(tmp_path: Path) -> None:
    from egtmetrics import precision_recall_density_coverage

    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(200, 6)), rng.normal(size=(150, 6))
    np.save(tmp_path / "real.npy", real)
    expected = precision_recall_density_coverage(real, fake)
    assert precision_recall_density_coverage(np.load(tmp_path / "real.npy", mmap_mode="r"), fake) == expected
    assert precision_recall_density_coverage(real[::-1, ::-1], fake[:, ::-1]) == expected


def test_torch_tensors_give_the_same_result() -> None:
    torch = pytest.importorskip("torch")
    from egtmetrics import precision_recall_density_coverage

    rng = np.random.default_rng(6)
    real, fake = (rng.normal(size=(n, 6)).astype(np.float32) for n in (200, 150))
    tensors = torch.from_numpy(real).requires_grad_(), torch.from_numpy(fake)
    assert precision_recall_density_coverage(*tensors) == precision_recall_density_coverage(real, fake)
