"""What long work says of itself where stderr is no terminal."""

import io
import re
import sys
import threading
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame, frechet_distance
from egtmetrics._progress import Lines, tqdm
from egtmetrics.groups import compare_frames


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("tqdm.std.time", found)
    return found


def work(clock: Clock, n_steps: int, seconds: float) -> None:
    with tqdm(total=n_steps, desc="metrics", unit="call") as bar:
        for _ in range(n_steps):
            clock.now += seconds
            bar.update()


def test_lines_come_at_growing_intervals_and_say_what_is_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 100, 10.0)
    assert capsys.readouterr().err.splitlines() == [
        "metrics: 3% (3/100 calls), 00:30 elapsed, 16:10 left",
        "metrics: 9% (9/100 calls), 01:30 elapsed, 15:10 left",
        "metrics: 21% (21/100 calls), 03:30 elapsed, 13:10 left",
        "metrics: 45% (45/100 calls), 07:30 elapsed, 09:10 left",
        "metrics: 93% (93/100 calls), 15:30 elapsed, 01:10 left",
        "metrics: 100% (100/100 calls), 16:40 elapsed, 00:00 left",
    ]


def test_lines_are_never_farther_apart_than_ten_minutes(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 600, 60.0)
    lines = capsys.readouterr().err.splitlines()
    assert 36000 / 600 <= len(lines) <= 36000 / 600 + 5


def test_short_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 100, 0.29)
    assert capsys.readouterr() == ("", "")


def test_steps_of_an_iterable_are_counted(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in tqdm(range(4), desc="permutations", unit="permutation"):
        clock.now += 20.0
    assert capsys.readouterr().err.splitlines() == [
        "permutations: 50% (2/4 permutations), 00:40 elapsed, 00:40 left",
        "permutations: 100% (4/4 permutations), 01:20 elapsed, 00:00 left",
    ]


def test_another_description_is_no_reason_for_a_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=4, unit="model") as bar:
        for seed in range(4):
            bar.set_description(f"seed {seed}")
            clock.now += 29.0
            bar.update()
    assert capsys.readouterr().err.splitlines() == [
        "seed 1: 50% (2/4 models), 00:58 elapsed, 00:58 left",
        "seed 3: 100% (4/4 models), 01:56 elapsed, 00:00 left",
    ]


def test_an_error_leaves_a_line_that_says_how_far_the_work_was(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def work_on(bar: Any) -> None:
        for _ in range(5):
            clock.now += 10.0
            bar.update()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), tqdm(total=8, unit="text") as bar:
        work_on(bar)
    assert capsys.readouterr().err.splitlines()[-1] == "62% (5/8 texts), 00:50 elapsed, 00:30 left"


def test_a_log_that_is_full_does_not_stop_the_work(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as raw, io.TextIOWrapper(raw, write_through=True) as full:
        with pytest.raises(OSError, match="No space left"):
            full.write("text")
        monkeypatch.setattr(sys, "stderr", full)
        work(clock, 10, 60.0)


LABELS = np.repeat(["f", "m"], 128)
REAL, FAKE, OTHER = np.random.default_rng(0).normal(size=(3, 256, 2))


def frame_of(gap: Any, fake: Any = FAKE) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(
        metrics={"gap": gap, "fid": frechet_distance},
        real=REAL,
        fake=fake,
        real_sensitive_features=LABELS,
        fake_sensitive_features=LABELS,
        random_state=0,
        progress=True,
    )


def completed(err: str) -> list[tuple[str, int]]:
    """Return what was counted to its end, and the number of evaluations."""
    found = re.findall(r"^([a-z ]+): 100% \((\d+)/\2 evaluations\)", err, flags=re.MULTILINE)
    return [(what, int(n)) for what, n in found]


OF_A_GROUP = 330 + 3
"""Evaluations: by calls, and about as much work as by an estimator of its own."""


def test_every_long_part_of_a_frame_counts_its_evaluations(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lines, "first_after", 1e-9)

    def gap(real: Any, fake: Any) -> float:
        return float(abs(real.mean() - fake.mean()))

    frame = frame_of(gap)
    frame.interval()
    frame.baseline().interval()
    compare_frames(frame, frame_of(gap, OTHER), progress=True)
    assert completed(capsys.readouterr().err) == [
        ("intervals", 2 * OF_A_GROUP),
        *[("intervals of the baseline", 4 * n) for n in (330, 330, 3, 3)],  # of four pairs of sets
        ("comparisons", 6 * OF_A_GROUP),  # of two models, and of all samples, too
    ]


def test_evaluations_that_a_metric_refuses_are_not_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lines, "first_after", 1e-9)

    def gap(real: Any, fake: Any) -> float:
        if len(real) == 32:  # a quarter of a group
            raise ValueError("too few rows")
        return float(abs(real.mean() - fake.mean()))

    frame_of(gap).interval()
    assert completed(capsys.readouterr().err) == [("intervals", 2 * OF_A_GROUP)]


def test_without_stderr_there_is_no_progress_and_the_work_goes_on(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        work(clock, 10, 60.0)
    assert clock.now == 1200.0


def test_lines_need_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise AssertionError(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with tqdm(total=1, unit="call") as bar:
        assert isinstance(bar, Lines)
        bar.update()
