"""Two processes with DistributedDataParallel against one with the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import _ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What either process has saved."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, _ranks.__file__]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    processes = [
        subprocess.Popen([*command, str(rank), str(folder)], cwd=root, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("name", _ranks.strategies())
def test_two_processes_train_as_one(ranks: list[dict[str, Any]], name: str, accumulate: bool) -> None:
    one = _ranks.train(_ranks.strategies()[name], _ranks.new_model(), slice(None), accumulate=accumulate)
    first, second = (results[f"{name}, {accumulate}"] for results in ranks)
    torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)  # they choose alike, bit for bit
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    torch.testing.assert_close(first["weights"], one["weights"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first["state"], one["state"], rtol=1e-5, atol=1e-6)
    for ours, theirs, whole in zip(first["values"], second["values"], one["values"], strict=True):
        assert (ours + theirs) / 2 == pytest.approx(whole, rel=1e-5)


def test_the_data_have_a_process_without_the_worst_group(ranks: list[dict[str, Any]]) -> None:
    assert 0.0 in ranks[1]["min-max, False"]["values"]


def test_both_processes_stop_at_losses_that_are_not_finite(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["error"] == ranks[1]["error"]
    assert "1 of 2 losses" in ranks[0]["error"]
