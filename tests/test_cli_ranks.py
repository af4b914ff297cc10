"""Under torchrun the processes share the encoding: each sample once, one result, and an error that names a lost rank.

Ranks are forked by tests/_ranks.py, with the variables that torchrun sets; they meet over gloo. One life does it all,
since processes start slowly.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch.distributed as dist

from egtmetrics.cli import main
from egtmetrics.data import ImageFiles
from egtmetrics.encoders import ImageEncoder
from tests._ranks import on_ranks
from tests.encoders._models import corner_network
from tests.test_cli_evaluate import write_images

CORNER = ["--encoder", "corner.pt", "--device", "cpu"]
EVALUATE = ["evaluate", "real", "fake", *CORNER, "--metrics", "fid", "--format", "json"]
ENCODE = ["encode", "real", "--out", "x.npz", *CORNER]
SIZE = 4


def _commands(rank: int, size: int) -> None:
    """Run a command in which rank 1 fails, one that ends well, and one in which rank 1 dies; write what came out."""
    os.chdir(os.environ["FOLDER"])
    os.environ["TORCHELASTIC_RUN_ID"] = "none"
    encoded: list[float] = []
    forward = ImageEncoder._forward
    before: list[Callable[[], None]] = []

    def counting(self: ImageEncoder, batch: Any) -> Any:
        if rank == 1:
            before[-1]()
        encoded.extend(image.mean().item() for image in batch)
        return forward(self, batch)

    def fail() -> None:
        raise ValueError("a damaged image")

    ImageEncoder._forward = counting  # type: ignore[method-assign]  # this process is of this test alone
    for name, arguments, fault in (
        ("failed", ENCODE, fail),
        ("shared", EVALUATE, lambda: None),
        ("lost", ENCODE, lambda: os._exit(9)),
    ):
        before.append(fault)
        encoded.clear()
        if not dist.is_initialized():  # left after the second one
            dist.init_process_group("gloo", init_method=f"file://{Path.cwd()}/store", rank=rank, world_size=size)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as exit:
                status = int(exit.code or 0)
        content = {"status": status, "out": out.getvalue(), "err": err.getvalue(), "encoded": encoded}
        Path(f"{name}{rank}.json").write_text(json.dumps(content))


def test_ranks_share_the_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "real", 0)
    write_images(tmp_path / "fake", 1, n=22)
    corner_network(tmp_path)
    (tmp_path / "ranks").mkdir()
    monkeypatch.setenv("FOLDER", str(tmp_path))
    on_ranks(_commands, SIZE, tmp_path / "ranks")
    monkeypatch.chdir(tmp_path)

    def found(name: str) -> list[dict[str, Any]]:
        return [
            json.loads(Path(f"{name}{rank}.json").read_text()) for rank in range(SIZE) if (name, rank) != ("lost", 1)
        ]

    shared = found("shared")
    assert main([*EVALUATE, "--quiet"]) == 0
    assert json.loads(shared[0]["out"]) == json.loads(capsys.readouterr().out)
    assert [one["status"] for one in shared] == [0] * SIZE
    assert [(one["out"], one["err"]) for one in shared[1:]] == [("", "")] * (SIZE - 1)
    files = [ImageFiles(name) for name in ("real", "fake")]
    means = [float((images[i] / np.float32(255.0)).mean()) for images in files for i in range(len(images))]
    encoded = [mean for one in shared for mean in one["encoded"]]
    assert sorted(encoded) == pytest.approx(sorted(means), rel=1e-6)
    sizes = [len(one["encoded"]) for one in shared]
    assert max(sizes) - min(sizes) <= 1
    for name, message in (("failed", "rank 1 failed with ValueError: a damaged image"), ("lost", "rank 1 ended or h")):
        first = found(name)[0]
        assert first["status"] == 2
        assert f"egtmetrics: error: {message}" in first["err"]
    assert "egtmetrics: error: a damaged image" in found("failed")[1]["err"]
    assert not Path("x.npz").exists()
    assert not Path("lost1.json").exists()
