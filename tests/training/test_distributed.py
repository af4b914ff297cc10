"""Two processes with DistributedDataParallel against one with the joined batch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from egtmetrics.training import (
    Denoiser,
    EDMPreconditioning,
    GroupDROLoss,
    GroupLoss,
    MeanLoss,
    MinMaxLoss,
    NoiseLevels,
    ResidualMLP,
    ReweightedLoss,
    WeightEMA,
    denoising_losses,
)
from egtmetrics.training import train as train_loop
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
    with tempfile.TemporaryDirectory() as own:
        shared = [own]
        torch.distributed.broadcast_object_list(shared)
        results.update(run_loop(rank, Path(shared[0])))
        torch.distributed.barrier()
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


DATA = 0.5 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
GROUPS = torch.arange(60) % 3 // 2


def build_denoiser(*, dropout: float = 0.0) -> Denoiser:
    torch.manual_seed(1)
    return Denoiser(Dropping(dropout), EDMPreconditioning())


class Dropping(torch.nn.Module):
    """Draws random numbers of its own."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.inner, self.dropout = ResidualMLP(3, width=8, n_blocks=1), torch.nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        output: torch.Tensor = self.inner(self.dropout(x), c_noise, labels)
        return output


def train_denoiser(n_steps: int, *, data: Any = DATA, dropout: float = 0.0, **options: Any) -> dict[str, Any]:
    denoiser, loss = build_denoiser(dropout=dropout), MinMaxLoss(2, n_bins=2)
    noise = NoiseLevels(denoiser.preconditioning.law, n_bins=2)
    options = {"learning_rate": 1e-2, "log_every": 2, "max_grad_norm": 1.0, **options}
    if data is DATA:
        options |= {"batch_size": 25}  # not the same number for each of two processes
    run = train_loop(denoiser, data, GROUPS if data is DATA else None, loss, noise, n_steps=n_steps, **options)
    state = {**denoiser.state_dict(), **{f"average {name}": value for name, value in run.ema.state_dict().items()}}
    return {"weights": state, "state": loss.state_dict(), "log": run.log, "run": (run.n_steps, run.n_samples_seen)}


def loader(*, shuffle: bool = False) -> DataLoader[Any]:
    rows = TensorDataset(DATA, GROUPS)
    return DataLoader(rows, batch_size=6, sampler=DistributedSampler(rows, shuffle=shuffle))


def run_loop(rank: int, folder: Path) -> dict[str, Any]:
    """What either of two processes finds with the training loop."""
    results = {"tensors": train_denoiser(6)}
    for name, data in (("tensors", lambda: DATA), ("loader", lambda: loader(shuffle=True))):
        results[f"{name}, whole"] = train_denoiser(7, data=data(), dropout=0.3)
        path = folder / f"{name}.pt"
        train_denoiser(3, data=data(), dropout=0.3, checkpoint=path)
        results[f"{name}, resumed"] = train_denoiser(7, data=data(), dropout=0.3, checkpoint=path)
    denoiser, sigma = build_denoiser(), torch.ones(60)
    wrapped = torch.nn.parallel.DistributedDataParallel(denoiser)
    average = WeightEMA(wrapped)
    average.update(wrapped, n_samples=60)
    average.copy_to(wrapped)
    assert type(average.model) is Denoiser
    plain, found = (denoising_losses(model, DATA, sigma, noise=DATA) for model in (denoiser, wrapped))
    results["own loop"] = (plain.detach(), found.detach())
    stops = train_denoiser(6, callback=lambda model, step: rank == 1 and step == 4, callback_every=2)
    results["stopped at"] = stops["run"][0]
    try:
        train_denoiser(1, learning_rate=1e-2 * (1 + rank))
    except ValueError as error:
        results["unlike"] = str(error)
    return results


def test_the_loop_on_two_processes_trains_as_on_one(ranks: list[dict[str, Any]]) -> None:
    """They draw the same batches, so only the order of sums differs: weights of about 1 by some 1e-7."""
    one, (first, second) = train_denoiser(6), (results["tensors"] for results in ranks)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first["weights"], one["weights"], rtol=0, atol=1e-6)
    torch.testing.assert_close(first["state"], one["state"], rtol=1e-5, atol=1e-6)
    assert first["run"] == one["run"] == (6, 150)
    for ours, whole in zip(first["log"], one["log"], strict=True):
        assert ours == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("data", ["tensors", "loader"])
def test_the_loop_on_two_processes_resumes_bit_for_bit(ranks: list[dict[str, Any]], data: str) -> None:
    """With dropout, which differs between the processes; an epoch of the loader has 5 batches of 12."""
    for results in ranks:
        torch.testing.assert_close(results[f"{data}, resumed"], results[f"{data}, whole"], rtol=0, atol=0)
    torch.testing.assert_close(ranks[0][f"{data}, whole"], ranks[1][f"{data}, whole"], rtol=0, atol=0)
    assert ranks[0][f"{data}, whole"]["run"] == (7, 84 if data == "loader" else 175)


def test_losses_and_averages_take_a_model_in_distributed_data_parallel(ranks: list[dict[str, Any]]) -> None:
    for results in ranks:
        torch.testing.assert_close(*results["own loop"], rtol=0, atol=0)


def test_one_process_stops_both(ranks: list[dict[str, Any]]) -> None:
    assert [results["stopped at"] for results in ranks] == [4, 4]


def test_processes_that_do_not_train_alike_are_refused(ranks: list[dict[str, Any]]) -> None:
    for results in ranks:
        assert "from process 0 to process 1, learning_rate was 0.01, is 0.02" in results["unlike"]
