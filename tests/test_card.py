"""The command for a card, without a card: what it plans, what becomes of a step, and what it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import card, gpu
from egtmetrics.ops import _device


def step(code: str, **options: Any) -> card.Step:
    return card.Step(name="step", command=(sys.executable, "-c", code), share=1.0, **options)


def test_without_a_card_it_says_what_it_skips(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def no_module() -> Any:
        raise ImportError("not built")

    monkeypatch.setattr(_device, "KERNELS", _device.DeviceKernels(no_module, "cuda"))
    assert card.main(["--out", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert printed.startswith("skipped: tests, memcheck, racecheck, synccheck, initcheck, benchmark. ")
    assert "not built" in printed
    assert not list(tmp_path.iterdir())


def test_the_steps_share_the_time(tmp_path: Path) -> None:
    assert sum(one.share for one in card.steps(tmp_path)) == pytest.approx(1.0)


def test_a_step_passes_fails_is_stopped_or_skipped() -> None:
    done = [
        card.perform(step("print('all well')"), 60.0),
        card.perform(step("print('x'); raise SystemExit(3)"), 60.0),
        card.perform(step("import time; print('began', flush=True); time.sleep(60)"), 1.0),
        card.perform(step("", needs="no-such-program"), 60.0),
    ]
    assert [one.outcome for one in done] == ["passed", "failed", "stopped", "skipped"]
    assert [one.said for one in done] == ["all well", "x", "began", "no-such-program is not on the PATH"]
    page = card.page(done, "| what | ours |")
    assert "| step | passed |" in page
    assert "all well" not in page
    assert "## step: stopped\n\n```\nbegan\n```" in page
    assert page.endswith("## Times\n\n| what | ours |\n")


def test_it_writes_one_json_and_one_page_with_the_name_of_the_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With commands that stand for the tests and the benchmark, which need a card."""
    result = {"machine": {"card": {"name": "NVIDIA Some 1"}}, "rows": []}

    def stand_ins(folder: Path) -> Any:
        writes = f"open({str(folder / 'gpu.json')!r}, 'w').write({json.dumps(result)!r})"
        return iter([step("raise SystemExit(1)"), step(writes)])

    monkeypatch.setattr(gpu, "why_not", lambda: None)
    monkeypatch.setattr(card, "steps", stand_ins)
    assert card.main(["--out", str(tmp_path)]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"gpu-nvidia-some-1.json", "gpu-nvidia-some-1.md"}
    content = json.loads((tmp_path / "gpu-nvidia-some-1.json").read_text())
    assert [one["outcome"] for one in content["steps"]] == ["failed", "passed"]
    assert content["machine"] == result["machine"]
