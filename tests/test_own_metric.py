"""Command line, page and intervals take a user's own metric as it is, and assume nothing of undeclared scores."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics import registry
from egtmetrics.cli import main
from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.metrics.variance import ScoreCovariance
from egtmetrics.registry import metric, registered_metrics
from egtmetrics.report import render
from egtmetrics.report.page import render_page
from egtmetrics.results import MetricResult, score, setting
from egtmetrics.samples import GroupedSamples

ROOT = Path(__file__).parents[1]
GROUPS = np.repeat(["f", "m"], 80)
RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(160, 1))
FAKE = RNG.normal(size=(160, 1)) + 2.0 * (GROUPS == "f")[:, None]
SAMPLES = GroupedSamples(real=REAL, fake=FAKE, real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS)
LABELS = ["--real-groups", "y", "--fake-groups", "y"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftResult(MetricResult):
    shift: float = score(
        label="shift of the means",
        help="How far the generated mean lies above the real one.",
        better=0.0,
        unit="metres",
        depends_on_size=False,
    )
    factor: int = setting()


def shift_variance(result: ShiftResult, real: Any, fake: Any, rng: Any) -> ScoreCovariance:
    """The variance of a difference of means: the sum of both variances, divided by their numbers of samples."""
    variance = real.var(ddof=1) / len(real) + fake.var(ddof=1) / len(fake)
    return ScoreCovariance(data=np.array([[result.factor**2 * variance]]))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Register the metric ``mean-shift`` for one test; return the numbers of samples that it is called with."""
    monkeypatch.setattr(registry, "_REGISTERED", registered_metrics())
    made: list[tuple[int, int]] = []

    @metric("mean-shift", title="Shift of means", variance=shift_variance)
    def mean_shift(real: Any, fake: Any, *, factor: int = 1, weights: Any = None) -> ShiftResult:
        """Compare means.

        Parameters
        ----------
        real, fake
            Features.
        factor
            What the shift is multiplied by, 100 % or more. No other use.
        weights
            An array, which no command line can give.
        """
        made.append((len(real), len(fake)))
        shift = factor * float(fake.mean() - real.mean())
        return ShiftResult(shift=shift, factor=factor, backend="numpy", n_real=len(real), n_fake=len(fake))

    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, features in (("real", REAL), ("fake", FAKE)):
        np.savez(tmp_path / f"{name}.npz", features=features, y=GROUPS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_line_has_its_name_options_and_interval(
    folder: Path,
    calls: list[tuple[int, int]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # so that no line of the help breaks at a hyphen
    command = ["evaluate", "real.npz", "fake.npz", *LABELS, "--metrics", "mean-shift", "--factor", "3"]
    assert main([*command, "--interval", "0.95", "--format", "json", "--quiet"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert sorted(calls) == [(80, 80), (80, 80), (160, 160)]  # no further calls for the intervals
    for label in ("f", "m"):
        group = SAMPLES.group(label)
        shift = 3 * float(np.mean(group.fake) - np.mean(group.real))
        margin = 1.959964 * 3 * math.sqrt((np.var(group.real, ddof=1) + np.var(group.fake, ddof=1)) / 80)
        assert content["by_group"][label]["mean-shift"] == pytest.approx(shift)
        bounds = content["intervals"]["by_group"][label]["mean-shift"]
        assert bounds == pytest.approx({"low": shift - margin, "high": shift + margin}, rel=1e-6)
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--factor N mean-shift: what the shift is multiplied by, 100 % or more (default: 1)" in text
    assert "--weights" not in text
    assert re.search(r"one to six more evaluations for [^;]*mean-shift[^;]*, some 330", text)
    assert "mean-shift" not in text.split("that has both:")[1].split("(")[0]  # it has no precision to draw


def test_an_option_of_another_type_gets_the_name_of_its_metric(
    folder: Path, calls: list[tuple[int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    @metric("scaled", title="Scaled shift")
    def scaled(real: Any, fake: Any, *, factor: float = 1.0, out: int = 1) -> float:
        return float(factor * out * (fake.mean() - real.mean()))

    options = ["--scaled-factor", "0.5", "--scaled-out", "4", "--factor", "3"]
    command = ["evaluate", "real.npz", "fake.npz", *LABELS, "--metrics", "mean-shift,scaled", *options]
    assert main([*command, "--format", "json", "--quiet"]) == 0
    overall = json.loads(capsys.readouterr().out)["overall"]
    shift = float(FAKE.mean() - REAL.mean())
    assert overall == pytest.approx({"mean-shift": 3 * shift, "scaled": 2 * shift})


def test_the_page_explains_it_with_its_own_description(calls: list[tuple[int, int]]) -> None:
    pytest.importorskip("jinja2")
    function = functools.partial(registered_metrics()["mean-shift"].function, factor=2)
    frame = GenerativeMetricFrame(metrics={"ours": function}, samples=SAMPLES, random_state=0)
    page = " ".join(re.sub(r"<svg.*?</svg>|<[^>]*>", " ", render_page(frame), flags=re.DOTALL).split())
    assert "Shift of means (ours), with 95% intervals" in page
    assert "group shift of the means (metres)" in page
    assert "How far the generated mean lies above the real one. The nearer to 0 the better." in page
    assert "Shift of means is worse for f" in page
    gap = frame.disparities().loc[("ours", "delta_shift"), "value"]
    assert f"a gap of {gap:.4g} metres" in page
    assert "ours: shift of the means (metres)" in page
    assert "factor=2" in page
    assert len(calls) == 3
    assert frame.worst_group("ours") == "f"


def test_an_undeclared_score_is_neither_clipped_nor_in_percent() -> None:
    fake = FAKE - np.where(GROUPS == "f", FAKE[GROUPS == "f"].mean(), FAKE[GROUPS == "m"].mean())[:, None] + 94.5

    def recall(real: Any, fake: Any) -> float:
        return float(fake.mean())

    def result_of(function: Callable[..., Any]) -> tuple[GenerativeMetricFrame, Any]:
        frame = GenerativeMetricFrame(
            metrics=function, real=REAL, fake=fake, real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS,
            random_state=0,
        )  # fmt: skip
        return frame, frame.interval()

    frame, intervals = result_of(recall)
    low, high = intervals.by_group.loc[("recall", "f"), ["low", "high"]]
    margin = 1.96 * float(np.std(fake[GROUPS == "f"])) / math.sqrt(80)
    assert (low, high) == pytest.approx((94.5 - margin, 94.5 + margin), abs=0.3 * margin)
    text = render(frame, intervals=intervals)
    assert re.search(r"^f +94\.5 \[", text, flags=re.MULTILINE)
    assert "9450" not in text
    assert "%" not in text.split("Groups")[0].split("Disparities")[0]
    assert frame.worst_group("recall") is None
    pytest.importorskip("jinja2")
    assert "worse for" not in render_page(frame)


def frame_of(function: Any, *, strict: bool = False) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(metrics={"ours": function}, samples=SAMPLES, random_state=0, strict=strict)


@pytest.mark.parametrize(
    ("raised", "caught", "message"),
    [
        (ValueError("too small"), ValueError, "metric 'ours': too small"),
        (TypeError("no array"), TypeError, "metric 'ours' raised TypeError: no array"),
        (KeyError("x"), RuntimeError, "metric 'ours' raised KeyError: 'x'"),
        (ZeroDivisionError("division by zero"), RuntimeError, "metric 'ours' raised ZeroDivisionError: division by"),
        (np.linalg.LinAlgError("singular"), ValueError, "metric 'ours': singular"),
        (ModuleNotFoundError("no sklearn"), ImportError, "metric 'ours' raised ModuleNotFoundError: no sklearn"),
        (MemoryError(), MemoryError, "metric 'ours' raised MemoryError: "),
        (FileNotFoundError(2, "gone"), OSError, "metric 'ours' raised FileNotFoundError: .* gone"),
    ],
)
def test_an_error_names_the_metric_and_the_group(raised: Exception, caught: type[Exception], message: str) -> None:
    def of_group_m(real: Any, fake: Any) -> float:
        if np.array_equal(real, REAL[80:]):
            raise raised
        return 0.0

    def of_halves(real: Any, fake: Any) -> float:
        if len(real) < 80:
            raise raised
        return 0.0

    with pytest.raises(caught, match=rf"^group 'm' \(80 real, 80 fake\), {message}") as error:
        frame_of(of_group_m, strict=True)
    assert error.value.__cause__ is raised
    with pytest.raises(
        caught, match=rf"^an interval needs scores of random halves of group 'f' .*, {message}"
    ) as error:
        frame_of(of_halves).interval()
    assert error.value.__cause__ is raised


def test_an_interrupt_stays_one() -> None:
    def interrupted(real: Any, fake: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frame_of(interrupted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapResult(MetricResult):
    gap: Any = score(label="gap", better="lower")
    detail: Any = None


def gap_result(gap: Any, detail: Any = None) -> GapResult:
    return GapResult(gap=gap, detail=detail, backend="numpy", n_real=1, n_fake=1)


def test_numbers_of_any_library_are_scores() -> None:
    torch = pytest.importorskip("torch")
    two = [2, 2.0, np.float32(2), np.int8(2), np.array(2.0), torch.tensor(2), torch.tensor(2.0, requires_grad=True)]
    two.append(torch.tensor(2.0).bfloat16())
    for value in two:
        for returned in (value, {"ours": value}, gap_result(value, detail=value)):
            frame = frame_of(lambda real, fake, returned=returned: returned)
            assert frame.by_group.to_numpy().tolist() == [[2.0], [2.0]]
            assert json.loads(json.dumps(frame.to_dict()))["by_group"]["f"] == {frame.by_group.columns[0]: 2.0}


def test_a_score_without_a_value_leaves_one_group_and_no_disparity() -> None:
    """A metric may say that it has no score of a group; one group alone has no disparity."""
    frame = frame_of(lambda real, fake: math.nan if np.array_equal(real, REAL[80:]) else 1.0)
    row = frame.disparities().loc[("ours", "delta_ours")]
    assert math.isnan(row["value"])
    assert len(row["without"]) == 1


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None, expected a number.*; end it with return$"),
        (np.ones(1), r"returned ndarray of shape \(1,\), expected.*; return its \.item\(\)$"),
        (np.ones((2, 3)), r"returned ndarray of shape \(2, 3\), expected.*; return one number of it"),
        ("0.5", "returned str, expected a number, a mapping of names to numbers or a MetricResult"),
        (1j, "returned complex, expected"),
        ({"a": 1.0, "b": None}, "returned a mapping whose 'b' is None, expected"),
        ({"a": [1.0]}, "returned a mapping whose 'a' is list, expected"),
        ({}, "returned dict, expected"),
        (gap_result(None), "returned GapResult whose 'gap' is None, expected"),
    ],
)
def test_anything_else_is_no_score(returned: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^metric 'ours' {message}"):
        frame_of(lambda real, fake: returned)


PLUGIN = '''
from egtmetrics.registry import metric

@metric("plugin-gap", title="Gap of a plug-in")
def plugin_gap(real, fake, *, power: int = 1):
    """Compare means.

    Parameters
    ----------
    power
        Exponent of the gap.
    """
    return float(abs(fake.mean() - real.mean()) ** power)
'''


def test_a_metric_of_another_package_is_found(folder: Path) -> None:
    (folder / "plugin_of_test.py").write_text(PLUGIN)
    metadata = folder / "plugin_of_test-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-test\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[egtmetrics.metrics]\nplugin-gap = plugin_of_test:plugin_gap\nlost = no_such_module:lost\n"
    )
    command = [sys.executable, "-m", "egtmetrics", "evaluate", "real.npz", "fake.npz", *LABELS, "--format", "json"]
    done = subprocess.run(
        [*command, "--metrics", "plugin-gap", "--power", "2"],
        capture_output=True, text=True, cwd=folder, timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = abs(FAKE.mean() - REAL.mean()) ** 2
    assert json.loads(done.stdout)["overall"]["plugin-gap"] == pytest.approx(expected)
    warning = "egtmetrics: warning: the metric lost (no_such_module:lost) cannot be loaded: No module named"
    assert [line for line in done.stderr.splitlines() if line.startswith(warning)] == done.stderr.splitlines()
