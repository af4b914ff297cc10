"""The command line: what it prints is what the library computes, and what it refuses it refuses in one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import termios
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import egtmetrics
from egtmetrics import metrics
from egtmetrics.cli import main
from egtmetrics.groups import GenerativeMetricFrame, ego, mgo
from egtmetrics.ops import available_threads, select_backend
from egtmetrics.samples import GroupedSamples

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning")

rng = np.random.default_rng(20)
GENDER = np.array(["female", "male"])[np.arange(120) % 2]
AGE = np.arange(120) % 4 // 2
REAL = rng.normal(size=(120, 3))
FAKE = rng.normal(size=(120, 3)) + 0.5 * (AGE[:, np.newaxis] == 1)
GROUPS = ["--real-groups", "gender", "--fake-groups", "gender"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where real.npz and fake.npz lie and commands run."""
    np.savez(tmp_path / "real.npz", features=REAL, gender=GENDER, age=AGE)
    np.savez(tmp_path / "fake.npz", features=FAKE, gender=GENDER, age=AGE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "egtmetrics", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)


def json_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["evaluate", "real.npz", "fake.npz", *arguments, "--format", "json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def library_frame(chosen: dict[str, Any], **options: Any) -> GenerativeMetricFrame:
    samples = {"real_sensitive_features": GENDER, "fake_sensitive_features": GENDER, **options}
    return GenerativeMetricFrame(metrics=chosen, real=REAL, fake=FAKE, random_state=0, **samples)


def test_every_metric_gives_the_numbers_of_the_library(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = library_frame(
        {
            "topp": partial(metrics.topp_precision_recall, n_bootstrap=50, alpha=0.2),
            "prdc": partial(metrics.precision_recall_density_coverage, n_neighbors=4),
            "ipr": partial(metrics.improved_precision_recall, n_neighbors=4),
            "p-pr": partial(metrics.p_precision_recall, n_neighbors=4),
            "cover": partial(metrics.precision_recall_cover, n_neighbors=4),
            "clipped": partial(metrics.clipped_density_coverage, n_neighbors=4),
            "fid": metrics.frechet_distance,
            "kid": partial(metrics.kernel_distance, subset_size=20),
        }
    )
    options = ["--n-bootstrap", "50", "--alpha", "0.2", "--n-neighbors", "4", "--subset-size", "20"]
    content = json_of([*GROUPS, "--metrics", "topp,prdc,ipr,p-pr,cover,clipped,fid,kid", *options], capsys)
    assert content["overall"] == frame.overall.to_dict()
    assert content["by_group"] == {group: row.to_dict() for group, row in frame.by_group.iterrows()}
    for (metric, disparity), row in frame.disparities().iterrows():
        assert content["disparities"][metric][disparity]["value"] == row["value"]
    assert content["egtmetrics"] == egtmetrics.__version__
    assert content["real"] == {
        "file": "real.npz",
        "key": "features",
        "groups": "gender",
        "shape": [120, 3],
        "dtype": "float64",
    }


def test_intersections_and_labels_of_another_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{gender},{age}" for gender, age in zip(GENDER, AGE, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["gender,age", *rows]))
    content = json_of(
        ["--real-groups", "gender,age", "--fake-groups", "labels.csv:gender,age", "--metrics", "fid"], capsys
    )
    frame = library_frame(
        {"fid": metrics.frechet_distance},
        real_sensitive_features={"gender": GENDER, "age": AGE.astype(str)},
        fake_sensitive_features={"gender": GENDER, "age": AGE.astype(str)},
    )
    expected = {f"gender={gender}, age={age}": {"fid": value} for (gender, age), value in frame.by_group["fid"].items()}
    assert content["by_group"] == expected


@pytest.mark.parametrize("flag", ["--match-sizes", "--match-groups"])
def test_matching_is_the_library_s_and_says_what_it_changed(
    flag: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_gender = np.where(np.arange(120) < 100, GENDER, "male")
    np.savez(folder / "fake.npz", features=FAKE, gender=fake_gender)
    content = json_of([*GROUPS, "--metrics", "fid", flag, "--random-state", "5"], capsys)
    samples = GroupedSamples(real=REAL, fake=FAKE, real_sensitive_features=GENDER, fake_sensitive_features=fake_gender)
    matched = samples.matched(across_groups=flag == "--match-groups", random_state=5)
    for label in ("female", "male"):
        group = matched.group(label)
        assert content["by_group"][label]["fid"] == metrics.frechet_distance(group.real, group.fake).fid
    assert content["matching"] == {
        "across_groups": flag == "--match-groups",
        "real_kept": len(matched.real),
        "fake_kept": len(matched.fake),
    }
    proportions = content["disparities"]["proportions"]  # of what was generated, whatever was scored
    assert proportions["mgo"]["value"] == pytest.approx(mgo(GENDER, fake_gender))
    assert proportions["ego"]["value"] == pytest.approx(ego(GENDER, fake_gender))


def test_a_missing_group_is_refused_or_null(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(folder / "fake.npz", features=FAKE, gender=np.full(120, "male"))
    arguments = [*GROUPS, "--metrics", "fid"]
    assert main(["evaluate", "real.npz", "fake.npz", *arguments]) == 2
    assert "holds no sample of group 'female'" in capsys.readouterr().err
    assert json_of([*arguments, "--missing-groups", "nan"], capsys)["by_group"]["female"]["fid"] is None


def test_intervals_are_those_of_the_library(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json_of([*GROUPS, "--metrics", "fid", "--interval", "0.9"], capsys)
    intervals = library_frame({"fid": metrics.frechet_distance}).interval(0.9)
    assert content["intervals"]["level"] == 0.9
    for group in ("female", "male"):
        bounds = intervals.by_group.loc[("fid", group), ["low", "high"]]
        assert content["intervals"]["by_group"][group]["fid"] == pytest.approx(bounds.to_dict())
    assert main(["evaluate", "real.npz", "fake.npz", *GROUPS, "--metrics", "fid", "--interval", "0.9"]) == 0
    assert "[low, high]: 90 % intervals" in capsys.readouterr().out
    assert main(["evaluate", "nowhere.npz", "fake.npz", *GROUPS, "--interval", "95"]) == 2
    assert "--interval 95.0 is not a number strictly between 0 and 1" in capsys.readouterr().err


def test_a_run_as_users_run_it(folder: Path) -> None:
    outputs = ["result.json", "result.md", "result.tex", "result.txt", "figure.png"]
    out = [word for name in outputs[:-1] for word in ("--out", name)]
    done = run(
        ["evaluate", "real.npz", "fake.npz", *GROUPS, "--metrics", "prdc,fid", *out, "--figure", outputs[-1]], folder
    )
    assert done.returncode == 0
    assert done.stdout == (folder / "result.txt").read_text()
    assert done.stdout.startswith("Scores\n\ngender ")
    assert "### Scores" in (folder / "result.md").read_text()
    assert r"\begin{tabular}" in (folder / "result.tex").read_text()
    assert set(json.loads((folder / "result.json").read_text())["by_group"]) == {"female", "male"}
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    notes = [line for line in done.stderr.splitlines() if "kernels" not in line]  # the one on a missing compiled module
    assert notes == [f"egtmetrics: wrote {name}" for name in outputs]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*outputs, "real.npz", "fake.npz"])


def test_a_file_of_no_known_suffix_is_in_the_printed_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json_of([*GROUPS, "--metrics", "fid", "--out", "result"], capsys)
    assert json.loads((folder / "result").read_text()) == content


def test_a_terminal_sees_the_progress_and_a_pipe_does_not(folder: Path) -> None:
    arguments = ["evaluate", "real.npz", "fake.npz", *GROUPS, "--metrics", "fid", "--format", "json"]
    assert "metrics:" not in run(arguments, folder).stderr
    for quiet in (False, True):
        terminal, end = os.openpty()
        termios.tcsetwinsize(end, (24, 80))
        process = subprocess.Popen(
            [sys.executable, "-m", "egtmetrics", *arguments, *(["--quiet"] if quiet else [])],
            stdout=subprocess.PIPE,
            stderr=end,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        os.close(end)
        seen = b""
        try:
            while chunk := os.read(terminal, 4096):
                seen += chunk
        except OSError as error:  # how Linux says that the other end of a terminal is closed
            if error.errno != errno.EIO:
                raise
        finally:
            os.close(terminal)
        stdout, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        assert json.loads(stdout)["by_group"]
        assert (b"metrics: 100%" in seen) == (not quiet)


def test_warnings_are_one_line_each(folder: Path) -> None:
    np.savez(folder / "fake.npz", features=FAKE, gender=np.where(np.arange(120) < 20, GENDER, "male"))
    done = run(["evaluate", "real.npz", "fake.npz", *GROUPS, "--metrics", "fid"], folder)
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "kernels" not in line]
    assert line.startswith("egtmetrics: warning: The groups differ in their number of fake samples, from 10 in")


EVALUATE = ["evaluate", "real.npz", "fake.npz"]
REFUSED = {
    "no command": ([], "the following arguments are required: COMMAND"),
    "no labels": (EVALUATE, "real.npz: holds no names of groups; say .*--groups"),
    "no real labels": (
        [*EVALUATE, "--fake-groups", "gender"],
        "real.npz: holds no names of groups; say .*--real-groups",
    ),
    "missing file": (["evaluate", "no.npz", "fake.npz", *GROUPS], "no.npz: No such file or directory"),
    "folder": (["evaluate", ".", "fake.npz", *GROUPS], r"\. holds no images that Pillow reads, but fake.npz"),
    "unknown key": ([*EVALUATE, *GROUPS, "--real-key", "x"], r"real.npz: no array 'x' in it; .* 'features' \(120, 3\)"),
    "unknown label": ([*EVALUATE, "--real-groups", "sex", "--fake-groups", "age"], "real.npz: no array 'sex' in it"),
    "unknown metric": (
        [*EVALUATE, *GROUPS, "--metrics", "fid,x"],
        "argument --metrics: unknown metric 'x'; choose fro",
    ),
    "option of another metric": ([*EVALUATE, *GROUPS, "--metrics", "fid", "--alpha", "0.2"], "--alpha is an option of"),
    "bad option": ([*EVALUATE, *GROUPS, "--alpha", "2"], "error: metric 'topp': --alpha 2.0 is not a number"),
    "no integer": ([*EVALUATE, *GROUPS, "--n-bootstrap", "x"], "argument --n-bootstrap: invalid int value"),
    "negative seed": (
        [*EVALUATE, *GROUPS, "--random-state", "-1"],
        "argument --random-state: -1 is not an integer of at least 0",
    ),
    "too few samples": (
        [*EVALUATE, *GROUPS, "--metrics", "kid", "--subset-size", "1000"],
        "--subset-size 1000 rows are drawn.*pass --subset-size 60",
    ),
    "different features": (
        [*EVALUATE, "--real-groups", "gender", "--fake-groups", "gender,age"],
        "--real-groups has 1 features, but --fake-groups has 2",
    ),
    "no folder": (
        [*EVALUATE, *GROUPS, "--out", "no/x.json"],
        "no/x.json: cannot be written, because no is not a folder",
    ),
    "out is a folder": ([*EVALUATE, *GROUPS, "--out", "."], "cannot be written, because it is a folder"),
    "figure without scores": (
        [*EVALUATE, *GROUPS, "--metrics", "fid", "--figure", "x.png"],
        "--figure draws precision",
    ),
    "figure of no known kind": ([*EVALUATE, *GROUPS, "--figure", "x.doc"], r"x.doc: figures are written as .png"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_one_line_and_status_2(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = REFUSED[case]
    try:
        status = main(arguments)
    except SystemExit as exit:  # argparse leaves this way
        status = exit.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert re.fullmatch(r"egtmetrics: error: .*\n", err)  # a dot matches no second line
    assert re.search(message, err)
    assert sorted(path.name for path in folder.iterdir()) == ["fake.npz", "real.npz"]


def test_features_that_do_not_fit_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for features, message in (
        (FAKE[:, :2], "real has 3 features and fake has 2; both must come from the same encoder"),
        (FAKE[:, 0], "fake.npz: 0 two-dimensional arrays"),
        (FAKE.astype(object), "fake.npz: array 'features' holds Python objects"),
        (FAKE[:7], "fake.npz: 120 labels for the 7 rows of fake.npz"),
        (FAKE.astype(str), r"fake.npz\['features'\] has dtype <U"),
        (np.where(FAKE > 0, FAKE, np.nan), r"fake\.np[yz] holds NaN or infinity \(first in row 0\)"),
    ):
        name = "features" if features.ndim == 2 else "flat"
        np.savez(folder / "fake.npz", **{name: features, "gender": GENDER})
        assert main([*EVALUATE, *GROUPS]) == 2
        assert re.fullmatch(rf"egtmetrics: error: {message}.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("torch", ["evaluate", "real.pt", "fake.npz", *GROUPS], r"real\.pt: .*pip install 'egtmetrics\[torch\]'"),
        ("safetensors", ["evaluate", "real.safetensors", "fake.npz", *GROUPS], r".*'egtmetrics\[files\]'"),
        ("matplotlib.figure", [*EVALUATE, *GROUPS, "--figure", "x.png"], r".*pip install 'egtmetrics\[figures\]'"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str,
    arguments: list[str],
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("real.pt", "real.safetensors"):
        (folder / name).touch()
    monkeypatch.setitem(sys.modules, module, None)  # importing it now raises ImportError
    assert main(arguments) == 2
    assert re.fullmatch(rf"egtmetrics: error: {message}\n", capsys.readouterr().err)


def test_a_pickle_is_refused_in_one_line_and_never_run(folder: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(folder / "trap"),)

    (folder / "real.npy").write_bytes(pickle.dumps(Payload()))
    done = run(["evaluate", "real.npy", "fake.npz", "--real-groups", "real.npz:gender", "--fake-groups", "age"], folder)
    assert done.returncode == 2
    assert re.fullmatch(r"egtmetrics: error: real\.npy: cannot be read as \.npy .*\n", done.stderr)
    assert not (folder / "trap").exists()


@pytest.mark.filterwarnings(
    "default::egtmetrics.groups.MissingScoreWarning", "default::egtmetrics.groups.GroupSizeWarning"
)
def test_a_metric_or_an_interval_that_cannot_be_had_leaves_the_rest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.where(np.arange(120) < 3, "few", GENDER)
    for name, features in (("real", REAL), ("fake", FAKE)):
        np.savez(folder / f"{name}.npz", features=features, gender=labels)
    arguments = [*EVALUATE, "--real-groups", "gender", "--fake-groups", "gender", "--metrics", "prdc,kid"]
    assert main([*arguments, "--out", "result.json"]) == 0
    out, err = capsys.readouterr()
    reason = "real has 3 rows, but {} needs at least 6; add samples or lower {}"
    python = reason.format("n_neighbors=5", "n_neighbors")
    assert f"prdc has no score for few. few: {python} " in " ".join(out.split())
    (line,) = [line for line in out.splitlines() if line.startswith("kid: ")]
    assert "subset_size=120 (3 for few; 58 for female; 59 for male)" in line
    assert f"prdc': {reason.format('--n-neighbors 5', '--n-neighbors')}" in err
    content = json.loads((folder / "result.json").read_text())
    assert content["refusals"] == {"overall": {}, "by_group": {"few": {"prdc": python}}}
    assert content["by_group"]["few"]["prdc_precision"] is None
    assert content["by_group"]["female"]["prdc_precision"] is not None
    assert main([*arguments, "--strict"]) == 2
    assert "group 'few' (3 real, 3 fake), metric 'prdc'" in capsys.readouterr().err

    few = np.where(np.arange(120) < 80, "", GENDER)
    for name, features in (("real", REAL), ("fake", FAKE)):
        np.savez(folder / f"{name}.npz", features=features, gender=few)
    assert main([*arguments, "--interval", "0.9"]) == 0
    out, err = capsys.readouterr()
    assert "warning: no intervals: group" in err
    assert "\nno intervals: group" in out
    assert main([*arguments, "--interval", "0.9", "--strict"]) == 2


def test_a_failed_run_leaves_the_old_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "result.json").write_text("old")
    assert main([*EVALUATE, *GROUPS, "--alpha", "2", "--out", "result.json"]) == 2
    assert (folder / "result.json").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == ["fake.npz", "real.npz", "result.json"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can write")
def test_a_folder_that_takes_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EVALUATE, *GROUPS, "--metrics", "fid", "--quiet", "--out", "/proc/self/result.json"]) == 2
    assert re.fullmatch(r"egtmetrics: error: /proc/self/result\.json: .*\n", capsys.readouterr().err)


WAITING_METRIC = """
import pathlib, sys, time
from egtmetrics.cli import main
from egtmetrics.registry import metric

@metric("waiting", title="Waiting")
def waiting(real, fake):
    pathlib.Path("ready").touch()
    time.sleep(3600)

sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_is_status_130_and_one_line(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING_METRIC, *EVALUATE, *GROUPS, "--metrics", "waiting"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell starts what runs behind it with the signal ignored, and so would its children have it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (folder / "ready").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert err == "egtmetrics: interrupted\n"


def test_a_reader_that_leaves_early_sees_no_traceback(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "egtmetrics", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stream:
        assert stream.read() == b""
    assert process.wait(timeout=600) == 141


def test_info_says_which_backend_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in capsys.readouterr().out.splitlines())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert lines["backend"] == select_backend().name
    assert lines["egtmetrics"].startswith(egtmetrics.__version__)
    assert lines["numpy"] == np.__version__
    assert lines["kernels"].endswith(".so") == (lines["backend"] == "cpu")


def test_version_says_how_the_kernels_were_built(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.split()[:2] == ["egtmetrics", egtmetrics.__version__]
    lines = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in printed.splitlines())
    assert lines["isa"] in lines["isas"].split()
    assert {"Python", "compiler", "CUDA kernels"} < lines.keys()
    assert main(["info"]) == 0
    assert set(printed.splitlines()) <= set(capsys.readouterr().out.splitlines())


class CudaModule:
    """What ``info`` asks of the CUDA kernels, on a machine with ``n_devices``."""

    __file__ = "/somewhere/_cuda.so"

    def __init__(self, n_devices: int) -> None:
        self.device_count = lambda: n_devices

    def build_info(self) -> dict[str, str]:
        return {"compiler": "NVIDIA 13.0", "architectures": "80 90"}

    def device_error(self) -> str:
        return "" if self.device_count() else "cudaErrorNoDevice: no CUDA-capable device is detected"

    def device_info(self, device: int) -> dict[str, Any]:
        return {"name": f"Card {device}", "capability": (9, 0), "memory": 80 * 2**30}


def raising(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (lambda: raising(ModuleNotFoundError("No module named 'egtmetrics.ops._cuda'")), {"CUDA kernels": "not built"}),
        (lambda: raising(ImportError("undefined symbol")), {"CUDA kernels": "not loaded: undefined symbol"}),
        (
            lambda: CudaModule(0),
            {
                "CUDA kernels": "/somewhere/_cuda.so",
                "CUDA compiler": "NVIDIA 13.0",
                "CUDA architectures": "80 90",
                "device": "none (cudaErrorNoDevice: no CUDA-capable device is detected)",
            },
        ),
        (lambda: CudaModule(2), {"device 1": "Card 1, compute capability 9.0, 80 GiB"}),
    ],
    ids=["not built", "not loaded", "no device", "two devices"],
)
def test_info_says_whether_a_gpu_can_be_used(
    load: Any, expected: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egtmetrics.ops._native.cuda_module", load)
    assert main(["info"]) == 0
    lines = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert expected.items() <= lines.items()


def test_backend_cuda_copies_the_features_to_the_device(
    folder: Path, capsys: pytest.CaptureFixture[str], cuda_on_host: None
) -> None:
    options = [*GROUPS, "--metrics", "prdc,fid", "--match-sizes"]
    on_device, on_cpu = (json_of([*options, "--backend", backend], capsys) for backend in ("cuda", "cpu"))
    assert on_device["results"]["overall"]["prdc"]["backend"] == "cuda"
    assert on_device["by_group"] == on_cpu["by_group"]
    assert on_device["overall"] == on_cpu["overall"]


@pytest.mark.parametrize(
    ("load", "reason"),
    [(lambda: raising(ImportError("no module")), "no module"), (lambda: CudaModule(0), "cudaErrorNoDevice")],
)
def test_backend_cuda_says_in_one_line_why_it_cannot_run(
    load: Any, reason: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from egtmetrics.ops import _device

    monkeypatch.setattr(_device, "KERNELS", _device.DeviceKernels(load, "cuda"))
    assert main(["evaluate", "absent.npz", "fake.npz", *GROUPS, "--backend", "cuda"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("egtmetrics: error: ")
    assert reason in line


def test_help_is_quick() -> None:
    """Only the help of a command loads the metrics, whose options it lists."""
    check = "import sys, egtmetrics.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{check}print([m for m in ('numpy', 'pandas', 'tqdm') if m in sys.modules])"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "evaluate-images" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ("OMP_NUM_THREADS = '{cores}'", "OMP_WAIT_POLICY = 'PASSIVE'")),
        (
            {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"},
            ("OMP_NUM_THREADS = '3'", "OMP_WAIT_POLICY = 'ACTIVE'"),
        ),
    ],
)
def test_a_command_chooses_threads_before_openmp_is_loaded(given: dict[str, str], found: tuple[str, ...]) -> None:
    """As OpenMP, which scikit-learn and torch bring, says itself when it is loaded; what the user set is kept."""
    code = "import egtmetrics.cli as c\ntry: c.main(['--version'])\nexcept SystemExit: pass\nimport sklearn.cluster"
    unset = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**unset, "OMP_DISPLAY_ENV": "TRUE", **given},
    )
    assert done.stdout.startswith("egtmetrics ")
    for line in found:
        assert line.format(cores=available_threads()) in done.stderr


def test_help_has_the_options_and_defaults_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    result = metrics.topp_precision_recall(  # in more than 32 dimensions, so that it projects
        np.tile(REAL, (3, 12)), np.tile(FAKE, (3, 12)), random_state=0
    )
    for option, default in {
        "alpha": result.alpha,
        "n-bootstrap": result.n_bootstrap,
        "n-projections": result.n_projections,
        "subset-size": "1000, or the smaller of n and m below that; the result says which",
    }.items():
        assert re.search(rf"--{option} [A-Z]+ [^-]*\(default: {default}[,)]", text), option
    assert all(example in text for example in ("egtmetrics evaluate real.npz fake.npz", "--format json | jq"))
