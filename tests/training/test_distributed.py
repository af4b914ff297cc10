"""Two processes with DistributedDataParallel against one with the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from egtmetrics.training import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss
from tests._ranks import on_ranks

N_STEPS, SIZE, N_FEATURES = 6, 12, 5


def strategies() -> dict[str, GroupLoss]:
    return {
        "mean": MeanLoss(3, n_bins=2),
        "reweighted": ReweightedLoss(target="ego", source=[0.5, 0.3, 0.2], n_bins=2),
        "min-max": MinMaxLoss(3, n_bins=2),
        "literal": MinMaxLoss(3, n_bins=2, literal=True),
        "group DRO": GroupDROLoss(3, n_bins=2, step_size=0.5),
    }


def data() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Batches whose second half, that of rank 1, has no sample of group 2, and once of one group only."""
    generator = torch.Generator().manual_seed(5)
    steps = []
    for t in range(N_STEPS):
        x = torch.randn(SIZE, N_FEATURES, generator=generator)
        groups, bins = torch.randint(3, (SIZE,), generator=generator), torch.randint(2, (SIZE,), generator=generator)
        x[groups == 2] *= 3.0  # the worst group is mostly that which rank 1 lacks
        half = SIZE // 2
        groups[half:] = groups[half:].clamp(max=1) if t != 3 else 0
        steps.append((x, groups, bins))
    return steps


def train(loss: GroupLoss, model: torch.nn.Module, rows: slice, *, accumulate: bool) -> dict[str, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    values = []
    for x, groups, bins in data():
        x, groups, bins = x[rows], groups[rows], bins[rows]
        optimizer.zero_grad()
        if accumulate:
            with loss.accumulate(groups, bins):
                for part in (slice(0, 2), slice(2, None)):
                    loss(model(x[part]).square().mean(1), groups[part], bins[part]).backward()
        else:
            value = loss(model(x).square().mean(1), groups, bins)
            value.backward()
            values.append(float(value.detach()))
        optimizer.step()
    weights = {name.removeprefix("module."): weight for name, weight in model.state_dict().items()}
    return {"weights": weights, "state": loss.state_dict(), "values": values}


def new_model() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Linear(N_FEATURES, N_FEATURES)


def run(rank: int, size: int) -> dict[str, Any]:
    """What either of two processes finds."""
    torch.set_num_threads(1)
    half = SIZE // size
    rows = slice(rank * half, (rank + 1) * half)
    results: dict[str, Any] = {}
    for accumulate in (False, True):
        for name, loss in strategies().items():
            model = torch.nn.parallel.DistributedDataParallel(new_model())
            results[f"{name}, {accumulate}"] = train(loss, model, rows, accumulate=accumulate)
    nan = MeanLoss(1, max_nonfinite=0)
    try:  # one process has the NaN, both stop
        nan(torch.tensor([float("nan") if rank else 1.0]), torch.zeros(1, dtype=torch.long))
    except FloatingPointError as error:
        results["error"] = str(error)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(run, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("name", strategies())
def test_two_processes_train_as_one(ranks: list[dict[str, Any]], name: str, accumulate: bool) -> None:
    one = train(strategies()[name], new_model(), slice(None), accumulate=accumulate)
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
