"""What one of two processes of test_distributed.py runs: ``python _ranks.py <rank> <folder>``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from egtmetrics.training import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss

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


def run(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    half = SIZE // 2
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
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
