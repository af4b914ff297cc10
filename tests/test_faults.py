"""Faults on purpose: what docs/faults.md promises when stdout, the disk, memory or the process itself fails."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from egtmetrics import registry
from egtmetrics.cli import main
from egtmetrics.encoders._cache import FeatureCache
from egtmetrics.ops import select_backend
from egtmetrics.results import MetricResult, share
from tests._killing import killed_at_every_step

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits, devices and shells as Linux has them"),
]

RNG = np.random.default_rng(0)
LABELS = ["--real-groups", "g", "--fake-groups", "g"]
EVALUATE = ["evaluate", "real.npz", "fake.npz", *LABELS, "--metrics", "ipr,fid"]
COMPARE = ["compare", "--reference", "real.npz", "fake.npz", "other.npz", *LABELS, "--metrics", "ipr,fid"]
COMPARE += ["--permutations", "0"]
REPORT = ["report", "real.npz", "fake.npz", *LABELS, "--metrics", "ipr,fid"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where real.npz, fake.npz and other.npz lie and commands run. One group has a name in Cyrillic."""
    for name in ("real", "fake", "other"):
        np.savez(tmp_path / f"{name}.npz", features=RNG.normal(size=(80, 3)), g=np.array(["жен 😀é", "m"] * 40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **more}


def shell(line: str, *, pass_fds: Sequence[int] = (), **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash, in which ``egt`` is the program."""
    program = f'egt() {{ {shlex.quote(sys.executable)} -m egtmetrics "$@"; }}; '
    command = ["bash", "-c", program + line]
    return subprocess.run(command, capture_output=True, env=environment(**variables), pass_fds=pass_fds)


def lines(stderr: bytes) -> list[str]:
    """Without the note on a missing compiled module."""
    return [line for line in stderr.decode().splitlines() if "kernels" not in line]


# Stdout and stderr


@pytest.mark.parametrize(("encoding", "command"), [("cp1252", EVALUATE), ("ascii", COMPARE)], ids=["cp1252", "ascii"])
def test_a_terminal_shows_what_it_can_and_files_are_whole(command: list[str], encoding: str, folder: Path) -> None:
    done = shell(f"egt {shlex.join(command)} --out x.txt --format json --out x.json", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert lines(done.stderr) == ["egtmetrics: wrote x.txt", "egtmetrics: wrote x.json"]
    content = json.loads(done.stdout.decode(encoding))  # escapes in JSON are those of JSON
    assert content == json.loads(Path("x.json").read_text(encoding="utf-8"))
    table = shell(f"egt {shlex.join(command)}", PYTHONIOENCODING=encoding).stdout.decode(encoding)
    assert json.loads('"' + table.replace('"', r"\"").replace("\n", r"\n") + '"') == Path("x.txt").read_text("utf-8")


def test_the_locale_c_is_no_obstacle() -> None:
    done = shell(f"egt {shlex.join(EVALUATE)} --out x.txt", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0
    assert rb"\u0436\u0435\u043d \ud83d\ude00\u00e9" in done.stdout
    assert "жен 😀é" in Path("x.txt").read_text("utf-8")


WROTE = "egtmetrics: wrote x.json"


@pytest.mark.parametrize(
    ("redirections", "status", "said"),
    [
        (">&-", 0, [WROTE]),
        ("2>&-", 0, []),
        ("<&- >&- 2>&-", 0, []),
        ("2>/dev/full", 0, []),
        (">/dev/full", 2, [WROTE, "egtmetrics: error: stdout: No space left on device"]),
        (">&3", 141, [WROTE]),
    ],
)
def test_files_are_written_whatever_becomes_of_stdout(redirections: str, status: int, said: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as of a pager that has been left
    line = f"exec 3>&{writer}; egt {shlex.join(EVALUATE)} --out x.json {redirections}"
    done = shell(line, pass_fds=[writer])
    os.close(writer)
    assert done.returncode == status
    assert lines(done.stderr) == said
    assert set(json.loads(Path("x.json").read_text(encoding="utf-8"))["by_group"]) == {"жен 😀é", "m"}


@pytest.mark.parametrize(("redirection", "status"), [(">/dev/full", 2), (">&-", 0), ("2>/dev/full", 0), ("2>&-", 0)])
def test_help_and_usage_do_not_fail_in_another_way(redirection: str, status: int) -> None:
    done = shell(f"egt --help {redirection}")
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
    assert shell(f"egt evaluate {redirection}").returncode == 2  # arguments are missing


# Files to write


def error(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


NOWHERE = ["nowhere", "nowhere"]
READ_NOTHING = {
    "evaluate": ["evaluate", *NOWHERE, *LABELS],
    "compare": ["compare", "--reference", "nowhere", "nowhere", "none", *LABELS, "--metrics", "ipr"],
    "evaluate-images": ["evaluate-images", *NOWHERE],
    "evaluate-text": ["evaluate-text", *NOWHERE, "--groups", "g"],
    "report": ["report", *NOWHERE, *LABELS],
    "encode": ["encode", "nowhere"],
    "figure1": ["reproduce", "figure1"],
}
"""Commands that have nothing to read: an error about the file to write comes before one about those."""


@pytest.mark.parametrize("command", READ_NOTHING)
@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("x" * 256 + "{}", "File name too long"),
        ("real.npz/x{}", "is not a folder"),
        ("missing/x{}", "is not a folder"),
        ("/proc/x{}", "No such file or directory"),  # nobody can write there, not even root
        ("folder{}", "is a folder"),
        ("loop{}", "Too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_written_is_found_out_first(
    command: str, file: str, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, suffix in {
        "report": [("--out", ".html")],
        "encode": [("--out", ".npz")],
        "figure1": [("--figure", ".png")],
    }.get(command, [("--out", ".json"), ("--figure", ".png")]):
        (folder / f"folder{suffix}").mkdir(exist_ok=True)
        (folder / f"loop{suffix}").unlink(missing_ok=True)
        (folder / f"loop{suffix}").symlink_to(f"loop{suffix}")
        before = sorted(folder.iterdir())
        line = error([*READ_NOTHING[command], option, file.format(suffix)], capsys)
        assert line.startswith(f"egtmetrics: error: {file.format(suffix)}: ")
        assert reason in line
        assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("folder_given", ["/proc/x/y", "real.npz", "real.npz/x", "x" * 256])
def test_a_folder_that_cannot_be_written_is_found_out_first(
    folder_given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["evaluate-text", *NOWHERE, "--groups", "g", "--cache"],
        ["evaluate-images", *NOWHERE, "--cache"],
        ["report", *NOWHERE, "--out", "page.html", "--cache"],
        ["encode", "nowhere", "--out", "x.npz", "--cache"],
        ["reproduce", "table2", "--data", "nowhere", "--out"],
        ["reproduce", "table4", "--data", "emoji", "nowhere", "--out"],
    ):
        assert re.match(
            rf"egtmetrics: error: {folder_given}: (Not a dir|No such|File name)",
            error([*command, folder_given], capsys),
        )


def test_no_file_that_is_read_or_written_already_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "labels.csv").write_text("g\n" + "a\nb\n" * 40)
    (folder / "link.json").symlink_to("real.npz")
    labels = ["--real-groups", "labels.csv:g", "--fake-groups", "labels.csv:g", "--metrics", "fid"]
    files = ["evaluate", "real.npz", "fake.npz", *labels]
    for name in ("real.npz", "./fake.npz", "labels.csv", "link.json", str(folder / "real.npz")):
        assert f"{Path(name)}: is a file to read, so it cannot be written" in error([*files, "--out", name], capsys)
    Path("fid").touch()  # the name of a metric is no file that is read
    assert main([*EVALUATE, "--out", "fid", "--quiet"]) == 0
    assert "x.json and " in error([*files, "--out", "x.json", "--out", f"../{folder.name}/x.json"], capsys)
    done = shell(f"egt {shlex.join(files)} --out x.md > x.md")
    assert done.returncode == 2
    assert lines(done.stderr) == [
        "egtmetrics: error: x.md: is where stdout goes, which would be lost; name another file"
    ]
    assert main([*files, "--out", "/dev/null", "--out", "/dev/null", "--quiet"]) == 0


def test_names_of_files_need_not_be_utf8(folder: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    name = os.fsdecode(b"caf\xe9")
    (folder / "real.npz").rename(folder / f"{name}.npz")
    (folder / "other.npz").rename(folder / f"{name}2.npz")
    out = [word for suffix in ("json", "md", "tex", "txt") for word in ("--out", f"{name}.{suffix}")]
    assert main(["evaluate", f"{name}.npz", "fake.npz", *LABELS, "--metrics", "fid", *out]) == 0
    assert rb"egtmetrics: wrote caf\udce9.json" in capsysbinary.readouterr().err
    assert json.loads(Path(f"{name}.json").read_text(encoding="utf-8"))["real"]["file"] == f"{name}.npz"
    assert r"file=caf\udce9.npz" in Path(f"{name}.txt").read_text(encoding="utf-8")
    compare = ["compare", "--reference", "fake.npz", f"{name}.npz", f"{name}2.npz", *LABELS, "--metrics", "ipr"]
    assert main([*compare, "--permutations", "200", "--figure", "x.svg", "--out", "x.json"]) == 0
    assert list(json.loads(Path("x.json").read_text(encoding="utf-8"))["models"]) == [r"caf\udce9", r"caf\udce92"]
    report = ["report", f"{name}.npz", f"{name}2.npz", *LABELS, "--metrics", "fid", "--out", "x.html"]
    assert main(report) == 0
    assert r"caf\udce92.npz equally good" in Path("x.html").read_text(encoding="utf-8")
    assert main(["evaluate", f"{name}3.npz", "fake.npz", *LABELS]) == 2
    assert rb"error: caf\udce93.npz: No such file or directory" in capsysbinary.readouterr().err


FULL = """
import resource, sys
from egtmetrics.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # a disk on which a file has room for 3000 bytes
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_keeps_old_files_and_the_results_are_printed() -> None:
    for name in ("x.json", "x.png", "x.txt"):
        Path(name).write_text("old")
    files = ["--out", "x.json", "--figure", "x.png", "--out", "x.txt"]
    done = subprocess.run([sys.executable, "-c", FULL, *EVALUATE, *files], capture_output=True, env=environment())
    assert done.returncode == 2
    assert lines(done.stderr) == [
        "egtmetrics: error: x.json: File too large",
        "egtmetrics: wrote x.txt",
        "egtmetrics: error: x.png: File too large",
    ]
    assert Path("x.json").read_text() == Path("x.png").read_text() == "old"
    assert done.stdout == Path("x.txt").read_bytes()
    assert not list(Path.cwd().glob(".*"))
    done = subprocess.run(
        [sys.executable, "-c", FULL, *REPORT, "--out", "x.html"], capture_output=True, env=environment()
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert lines(done.stderr) == ["egtmetrics: error: x.html: File too large"]
    assert not Path("x.html").exists()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mute(MetricResult):
    precision: float = share(label="precision")
    recall: float = share(label="recall")


def mute(real: Any, fake: Any) -> Mute:
    """Say nothing."""
    return Mute(precision=math.nan, recall=math.nan, backend="numpy", n_real=len(real), n_fake=len(fake))


def test_a_figure_that_cannot_be_drawn_costs_no_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", registry.registered_metrics())
    registry.metric("mute", title="Mute")(mute)
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "real.npz", "fake.npz", *LABELS, "--metrics", "mute", "--figure", "x.png", "--out", "x.txt"])
    out, err = capsys.readouterr()
    assert "error: the frame has no group with finite precision and recall" in err
    assert out == Path("x.txt").read_text(encoding="utf-8")


FULL_CACHE = """
import resource, sys
import numpy as np
from egtmetrics.encoders._cache import FeatureCache
cache = FeatureCache("cache", {})
cache.put([b"k" * 32], np.ones((1, 4), dtype=np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    cache.put([b"j" * 32], np.ones((1, 4000), dtype=np.float32))
except OSError as error:
    sys.exit(error.filename)
"""


def test_a_full_disk_keeps_what_the_cache_had() -> None:
    done = subprocess.run([sys.executable, "-c", FULL_CACHE], capture_output=True, env=environment(), text=True)
    assert re.fullmatch(r"cache/\w+/\w+\.npy\n", done.stderr)
    cache = FeatureCache("cache", {})
    cache.refresh()
    kept = cache.get(b"k" * 32)
    assert kept is not None
    assert kept.tolist() == [1.0] * 4
    assert len(list(cache.folder.iterdir())) == 2  # with the description


def test_every_file_is_written_whole() -> None:
    """There is no other way to write one in the package."""
    writes = re.compile(
        r"\.write_(text|bytes)\(|\.(save\w*|to_csv|to_json|to_parquet|dump)\(.*\b(path|folder|file_name|out|target)\b"
        r"|open\(([^()]*, )?(mode=)?[\"'][rb]*[wax+]"
    )
    for line in (
        "a.to_csv(path)",
        "torch.save(x, folder / name)",
        "path.open('wb')",
        'open(x, "a")',
        "p.write_text(x)",
    ):
        assert writes.search(line), line
    found = {
        (path.name, line.strip())
        for folder in ("egtmetrics", "training")
        for path in ROOT.glob(f"{folder}/**/*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if writes.search(line) and not line.strip().startswith((">>>", "..."))
    }
    assert {line for name, line in found if name != "_atomic.py"} == {
        'return open(number, "w", encoding="utf-8", errors=_ESCAPES)',  # of /dev/null
        "reference.save(args.out, features=not args.without_samples)",  # by write_whole
        "tuned.save(args.folder)",  # by write_folder
        'target.open("ab") as file,',  # texts, line by line: tests/paper/test_generation.py kills it
    }


# Files that are read

CUT = """
import os, sys
from egtmetrics.registry import metric
from egtmetrics.cli import main

@metric("cut", title="cuts its file short")
def cut(real, fake):
    os.truncate("real.npy", 4096)
    return float(real.sum() + fake.sum())

sys.exit(main(["evaluate", "real.npy", "fake.npy", "--real-groups", "g.npy", "--fake-groups", "g.npy", *sys.argv[1:]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the name of the file is found as Linux shows it")
@pytest.mark.skipif(select_backend().name != "cpu", reason="the compiled kernels are not built")
def test_a_mapped_file_that_is_cut_short_is_named() -> None:
    rows = RNG.random((4000, 64), dtype=np.float32)
    for name in ("real", "fake"):
        np.save(f"{name}.npy", rows)
    np.save("g.npy", np.arange(len(rows)) % 2)
    command = [sys.executable, "-c", CUT, "--metrics", "cut", "--out", "x.json"]
    done = subprocess.run(command, capture_output=True, env=environment())
    assert done.returncode == 2, done.stderr.decode()
    name = re.escape(str(Path("real.npy").resolve()))
    assert re.fullmatch(rf"egtmetrics: error: {name}: was cut short while it was read; .*", lines(done.stderr)[-1])
    assert not Path("x.json").exists()


# Memory, and Ctrl-C


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from egtmetrics.cli import main
import egtmetrics.metrics, egtmetrics.report, egtmetrics.groups, scipy.linalg
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 50 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("metric", "shape"), [("fid", (80, 150_000)), ("prdc", (16_000, 400))])
def test_too_little_memory_is_one_line(metric: str, shape: tuple[int, int]) -> None:
    np.savez("real.npz", features=RNG.random(shape, dtype=np.float32), g=np.arange(shape[0]) % 2)
    words = ["evaluate", "real.npz", "real.npz", *LABELS, "--metrics", metric, "--out", "x.json"]
    done = subprocess.run([sys.executable, "-c", LITTLE_MEMORY, *words], capture_output=True, env=environment())
    assert done.returncode == 2, done.stderr.decode()
    assert re.fullmatch(r"egtmetrics: error: not enough memory \(.*\); free some, .*", "\n".join(lines(done.stderr)))
    assert not Path("x.json").exists()


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(select_backend().name != "cpu", reason="the compiled kernels are not built")
def test_ctrl_c_in_a_kernel_ends_the_command_at_once_and_leaves_no_file() -> None:
    """Within a second of the process's own time, which other processes do not stretch."""
    np.savez("real.npz", features=RNG.random((100_000, 256), dtype=np.float32), g=np.arange(100_000) % 2)
    words = ["evaluate", "real.npz", "real.npz", *LABELS, "--metrics", "prdc", "--n-threads", "1", "--out", "x.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "egtmetrics", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        # A shell starts what runs behind it with the signal ignored, and so would its children have it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while "/_cpu." not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    begun = processor_seconds(process.pid)
    while processor_seconds(process.pid) < begun + 2.0:  # well into a computation of minutes
        time.sleep(0.01)
    sent = processor_seconds(process.pid)
    process.send_signal(signal.SIGINT)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"egtmetrics: interrupted\n")
    assert used.ru_utime + used.ru_stime - sent < 1.0
    assert not Path("x.json").exists()


def test_no_time_limit_of_a_test_is_short() -> None:
    """A limit ends what hangs; a busy machine takes long."""
    for path in ROOT.glob("tests/**/*.py"):
        for limit in re.findall(r"\btimeout(?:: float)? ?= ?([0-9.]+)", path.read_text(encoding="utf-8")):
            assert float(limit) >= 600, path
    assert settings().deadline is None


def test_the_tests_of_the_table_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), test


# Killed


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        ([*EVALUATE, "--out", "x.json", "--out", "x.md", "--figure", "x.png"], ["x.json", "x.md", "x.png"]),
        pytest.param([*COMPARE, "--out", "x.json", "--figure", "x.pdf"], ["x.json"], marks=pytest.mark.slow),
        pytest.param([*REPORT, "--out", "x.html"], ["x.html"], marks=pytest.mark.slow),
    ],
    ids=["evaluate", "compare", "report"],
)
def test_a_command_killed_at_any_step_leaves_old_or_whole_files(
    words: list[str], outputs: list[str], folder: Path
) -> None:
    inputs = {name: digest(folder / name) for name in ("real.npz", "fake.npz", "other.npz")}
    old = hashlib.sha256(b"old").hexdigest()
    whole, killed = killed_at_every_step(words, outputs, folder)
    assert whole["status"] == 0
    assert all(whole["files"][name] != old for name in outputs)
    seen = set()
    for run in killed:
        assert run["status"] in (-signal.SIGKILL, -signal.SIGXFSZ)
        assert inputs.items() <= run["files"].items()
        for name, found in run["files"].items():
            if name in outputs:
                assert found in (old, whole["files"][name]), name
                seen.add((name, found == old))
            elif name not in whole["files"]:
                assert re.fullmatch(r"\.\w+\.egtmetrics\.tmp", name)
    assert len(killed) >= 4 * len(outputs)
    assert {(name, True) for name in outputs} <= seen
    assert {name for name, is_old in seen if not is_old} >= set(outputs[:-1])  # the last one is the last step
