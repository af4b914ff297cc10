"""The GPU benchmark without a GPU: it refuses to run, and its sections and its report are correct."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cuda_static, gpu
from benchmarks.run import row
from egtmetrics.ops import _device


def test_no_row_without_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def no_module() -> Any:
        raise ImportError("not built")

    monkeypatch.setattr(_device, "KERNELS", _device.DeviceKernels(no_module, "cuda"))
    assert gpu.main(["--out", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"{gpu.NO_ROW}: ")
    assert "not built" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_report_names_the_card_and_shows_ratios() -> None:
    rows = [row("kth_neighbor", 0.002, {"torch": 0.004}, wanted={}, ceiling=0.001)]
    description = {
        "card": {"name": "Some card", "capability": (9, 0), "memory": 1},
        "driver": "1.2",
        "kernels": {"compiler": "NVIDIA 13.0", "architectures": "75 90"},
        "versions": {"torch": "2.0"},
    }
    text = gpu.report(rows, description)
    head, _, body, _, note = text.splitlines()
    assert [cell.strip() for cell in head.split("|")[1:3]] == ["what", "ours"]
    cells = [cell.strip() for cell in body.split("|")[1:-1]]
    assert cells == ["kth_neighbor", "0.002 s", "0.001 s (50%)", "torch: 2x"]
    assert note.startswith("Some card (capability 9.0), driver 1.2; kernels NVIDIA 13.0 for 75 90; torch 2.0.")


@pytest.mark.usefixtures("cuda_on_host")
@pytest.mark.parametrize(
    "section",
    [
        pytest.param(section, id=name, marks=pytest.mark.slow if name == "frames" else ())
        for name, section in gpu.SECTIONS.items()
    ],
)
def test_sections_run_and_check_their_results(
    section: Callable[[gpu.Device, float], list[Any]],
) -> None:
    """On the host, with a fake clock: nothing is measured."""
    calls = []

    def once(call: Callable[[], Any]) -> float:
        calls.append(call())
        return 1.0

    rows = section(gpu.Device("cpu", once), 0.005)
    assert rows
    assert all(entry["seconds"] == 1.0 and entry["peers"] for entry in rows)
    timed_here = sum(1 + len(entry["peers"].keys() - {"the CPU kernels"}) for entry in rows)
    assert len(calls) >= timed_here


def test_a_wrong_result_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from egtmetrics.ops import torch_ops

    right = torch_ops.kth_neighbor
    monkeypatch.setattr(torch_ops, "kth_neighbor", lambda *args, **options: right(*args, **options) * (1 + 1e-6))
    with pytest.raises(AssertionError, match="kth_neighbor"):
        gpu.bench_neighbors(gpu.Device("cpu", lambda call: 1.0), 0.005)


def test_the_committed_ceilings_are_up_to_date() -> None:
    assert (cuda_static.ROOT / "docs" / "gpu-ceilings.md").read_text() == cuda_static.ceilings_markdown()
    work = next(work for work in cuda_static.works() if work.name.startswith("ball_counts"))
    assert work.float32 == 2 * 10_000 * 10_000 * 768
    h100 = next(card for card in cuda_static.CARDS if card.name == "H100")
    assert cuda_static.ceiling_seconds(work, h100) == (work.float32 / 67e12, "float32")
