"""The training loop: what it computes, and that it computes the same however often it is killed."""

from __future__ import annotations

import copy
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from egtmetrics import GenerativeMetricFrame, Reference
from egtmetrics.groups import CheckpointSelection
from egtmetrics.integrations import GroupWatch
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
    ThinCellWarning,
    TrainingRun,
    VPPreconditioning,
    WeightEMA,
    denoising_losses,
    heun_sample,
    train,
)
from tests._killing import kill_when

DATA = 0.5 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
GROUPS = torch.arange(60) % 3 // 2
LOSSES: dict[str, Callable[[], GroupLoss]] = {
    "mean": lambda: MeanLoss(2),
    "reweighted": lambda: ReweightedLoss(target="ego", source=[2 / 3, 1 / 3], n_bins=2),
    "min-max": lambda: MinMaxLoss(2, n_bins=2),
    "group DRO": lambda: GroupDROLoss(2, n_bins=2, step_size=0.5),
}


class Dropout(nn.Module):
    """A network that draws random numbers of its own and keeps a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ResidualMLP(3, n_classes=2, width=8, n_blocks=1)
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(3)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        output: Tensor = self.norm(self.inner(self.dropout(x), c_noise, labels))
        return output


def build(network: Callable[[], nn.Module] = lambda: ResidualMLP(3, width=8, n_blocks=1), seed: int = 0) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Denoiser(network(), EDMPreconditioning())


def levels(denoiser: Denoiser) -> NoiseLevels:
    return NoiseLevels(denoiser.preconditioning.law, n_bins=2)


def run(denoiser: Denoiser, loss: GroupLoss, **options: Any) -> TrainingRun:
    options = {"batch_size": 24, "learning_rate": 1e-2, **options}
    return train(denoiser, DATA, GROUPS, loss, levels(denoiser), **options)


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    for (name, a), (other, b) in pairs:
        assert name == other
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_against_a_loop_written_out(name: str, max_grad_norm: float | None) -> None:
    denoiser, loss = build(), LOSSES[name]()
    plain, plain_loss = build(), LOSSES[name]()
    result = run(denoiser, loss, n_steps=5, half_life=100.0, random_state=3, max_grad_norm=max_grad_norm)

    noise, average = levels(plain), WeightEMA(plain, half_life=100.0)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for _ in range(5):
            rows = torch.randint(60, (24,))
            sigma = noise.law.sample(24)
            bins = noise.bin_of(sigma) if plain_loss.n_bins == 2 else None
            optimizer.zero_grad()
            plain_loss(denoising_losses(plain, DATA[rows], sigma), GROUPS[rows], bins).backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(plain.parameters(), max_grad_norm)
            optimizer.step()
            average.update(plain, n_samples=24)
    for first, second in ((denoiser, plain), (loss, plain_loss), (result.ema, average)):
        assert_equal(first, second)
    assert (result.n_steps, result.n_samples_seen, result.n_skipped, result.resumed_at) == (5, 120, 0, 0)


def test_it_learns() -> None:
    """Data in one point: the optimal denoiser returns it at every sigma."""
    denoiser = build()
    point = torch.tensor([0.3, -0.2, 0.5])
    result = train(
        denoiser, point.repeat(8, 1), torch.arange(8) % 2, MeanLoss(2), levels(denoiser), n_steps=500,
        batch_size=32, learning_rate=1e-2,
    )  # fmt: skip
    x = point + torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    error = (result.ema(x, torch.ones(200)) - point).abs().mean()
    assert error < 0.05 < 0.25 < (build()(x, torch.ones(200)) - point).abs().mean()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("stop", [1, 4])
def test_resumed_equals_uninterrupted(name: str, stop: int, tmp_path: Path) -> None:
    """With dropout, batch norm and labels: whatever can change is in the checkpoint."""
    path = tmp_path / "checkpoint.pt"
    whole, whole_loss = build(Dropout), LOSSES[name]()
    expected = run(whole, whole_loss, n_steps=7, labels=GROUPS)
    run(build(Dropout), LOSSES[name](), n_steps=stop, labels=GROUPS, checkpoint=path)
    torch.rand(5)  # the global generator is elsewhere by now
    denoiser, loss = build(Dropout), LOSSES[name]()
    result = run(denoiser, loss, n_steps=7, labels=GROUPS, checkpoint=path)
    assert (result.resumed_at, result.n_steps) == (stop, 7)
    for first, second in ((denoiser, whole), (loss, whole_loss), (result.ema, expected.ema)):
        assert_equal(first, second)
    again = build(Dropout)
    finished = run(again, LOSSES[name](), n_steps=7, labels=GROUPS, checkpoint=path)
    assert finished.resumed_at == 7
    assert_equal(again, whole)


def test_killed_equals_uninterrupted(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    command = [sys.executable, __file__, path]  # the last lines of this file
    kill_when(lambda: path.exists() and saved_step(path) >= 10, command)
    killed_at = saved_step(path)
    denoiser, loss, whole, whole_loss = build(Dropout), LOSSES["min-max"](), build(Dropout), LOSSES["min-max"]()
    result = run(denoiser, loss, n_steps=killed_at + 3, labels=GROUPS, checkpoint=path, checkpoint_every=2)
    assert result.resumed_at == killed_at
    expected = run(whole, whole_loss, n_steps=killed_at + 3, labels=GROUPS)
    for first, second in ((denoiser, whole), (loss, whole_loss), (result.ema, expected.ema)):
        assert_equal(first, second)


def saved_step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["step"])


def test_global_generators_are_neither_read_nor_moved() -> None:
    first, second = build(Dropout), build(Dropout)
    before = torch.get_rng_state()
    run(first, MeanLoss(2), n_steps=2, labels=GROUPS)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    run(second, MeanLoss(2), n_steps=2, labels=GROUPS)
    assert_equal(first, second)
    third = build(Dropout)
    run(third, MeanLoss(2), n_steps=2, labels=GROUPS, random_state=1)
    assert not torch.equal(first.network.inner.last.weight, third.network.inner.last.weight)


class Poisoned(nn.Module):
    """NaN for one sample in the given calls."""

    def __init__(self, calls: range) -> None:
        super().__init__()
        self.inner = ResidualMLP(3, width=8, n_blocks=1)
        self.calls, self.count, self.weights = calls, 0, []

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        if self.training:
            self.weights.append(self.inner.last.weight.detach().clone())
            self.count += 1
            if self.count - 1 in self.calls:
                x = torch.cat([x[:1] * torch.nan, x[1:]])
        output: Tensor = self.inner(x, c_noise, labels)
        return output


def test_losses_that_are_nan_are_counted_and_their_step_is_not_taken() -> None:
    denoiser, loss = build(lambda: Poisoned(range(2, 4))), MinMaxLoss(2, n_bins=2)
    result = run(denoiser, loss, n_steps=6)
    network = denoiser.network
    assert isinstance(network, Poisoned)
    moved = [not torch.equal(a, b) for a, b in zip(network.weights, network.weights[1:], strict=False)]
    assert moved == [True, True, False, False, True]
    assert (result.n_skipped, int(loss.n_nonfinite), result.n_steps) == (2, 2, 6)
    assert all(p.isfinite().all() for p in [*denoiser.parameters(), *result.ema.parameters()])


def test_nan_without_end_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="4 batches in a row"):
        run(build(lambda: Poisoned(range(1, 100))), MeanLoss(2, max_nonfinite=3), n_steps=20)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 1e-3}, "learning_rate was 0.01, is 0.001"),
        ({"batch_size": 32}, "batch_size was 24, is 32"),
        ({"half_life": 10.0}, "half_life was 500000.0, is 10.0"),
        ({"random_state": 1}, "random_state was 0, is 1"),
        ({"autocast": torch.bfloat16}, "autocast was None, is torch.bfloat16"),
        ({"max_grad_norm": 2.0}, "max_grad_norm was None, is 2.0"),
        ({"labels": GROUPS}, "labels was None, is "),
        ({"data": DATA + 1e-6}, "data was "),
        ({"groups": 1 - GROUPS}, "groups was "),
        ({"loss": MinMaxLoss(2, n_bins=2, decay=0.8)}, "loss.decay was 0.9, is 0.8"),
        ({"loss": GroupDROLoss(2, n_bins=2)}, "loss.type was MinMaxLoss, is GroupDROLoss"),
        ({"denoiser": build(seed=1)}, "first weights was "),
        (
            {"denoiser": build(lambda: ResidualMLP(3, width=16, n_blocks=1))},
            r"weights.network.noise.0.weight was \(8, 64\) torch.float32, is \(16, 64\) torch.float32.* and 10 more",
        ),
        (
            {"denoiser": Denoiser(build().network, VPPreconditioning())},
            r"preconditioning was EDMPreconditioning\(.*\), is VPPreconditioning\(",
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    run(build(), MinMaxLoss(2, n_bins=2), n_steps=1, checkpoint=path)
    before = path.read_bytes()
    given = {"denoiser": build(), "data": DATA, "groups": GROUPS, "loss": MinMaxLoss(2, n_bins=2), **change}
    denoiser, data, groups, loss = (given.pop(name) for name in ("denoiser", "data", "groups", "loss"))
    untouched = copy.deepcopy(denoiser)
    options = {"batch_size": 24, "learning_rate": 1e-2, **given}
    with pytest.raises(ValueError, match=f"checkpoint .* comes from another training: .*{named}"):
        train(denoiser, data, groups, loss, levels(denoiser), n_steps=2, checkpoint=path, **options)
    assert_equal(denoiser, untouched)
    assert path.read_bytes() == before


def test_weights_of_another_target_are_refused(tmp_path: Path) -> None:
    """They are in the state of the loss, which loading would put back without a word."""
    path = tmp_path / "checkpoint.pt"
    run(build(), LOSSES["reweighted"](), n_steps=1, checkpoint=path)
    with pytest.raises(ValueError, match=r"loss\.state was "):
        run(build(), ReweightedLoss(target=[0.2, 0.8], source=[2 / 3, 1 / 3], n_bins=2), n_steps=2, checkpoint=path)


def test_files_that_are_no_whole_checkpoint_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    run(build(), MeanLoss(2), n_steps=2, checkpoint=path)
    whole = path.read_bytes()
    damaged = [whole[: len(whole) * k // 10] for k in range(10)] + [whole[:-1], b"no checkpoint"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"checkpoint {re.escape(str(path))} cannot be read .*delete it"):
            run(build(), MeanLoss(2), n_steps=2, checkpoint=path)
        assert path.read_bytes() == content
    for other in ({"step": 1}, [1, 2], {"settings": 1, "step": 2}, {"settings": {}, "step": "two"}):
        torch.save(other, path)
        with pytest.raises(ValueError, match="written by train"):
            run(build(), MeanLoss(2), n_steps=2, checkpoint=path)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trap"),)

    path = tmp_path / "checkpoint.pt"
    for save in (
        lambda: torch.save({"settings": Payload()}, path),
        lambda: path.write_bytes(pickle.dumps(Payload(), protocol=2)),
    ):
        save()
        with pytest.raises(ValueError, match="cannot be read"):
            run(build(), MeanLoss(2), n_steps=2, checkpoint=path)
    assert not (tmp_path / "trap").exists()


def test_a_checkpoint_with_more_steps_is_refused(tmp_path: Path) -> None:
    run(build(), MeanLoss(2), n_steps=3, checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="has 3 steps, more than n_steps=2; pass at least 3"):
        run(build(), MeanLoss(2), n_steps=2, checkpoint=tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_steps": 0}, "n_steps=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"log_every": 0}, "log_every=0"),
        ({"callback_every": 0}, "callback_every=0"),
        ({"autocast": torch.int8}, "autocast=torch.int8, expected torch.bfloat16, torch.float16 or None"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0"),
        ({"random_state": -1}, "random_state=-1"),
        ({"data": DATA * torch.nan}, "data .* holds NaN"),
        ({"groups": GROUPS[:-1]}, r"groups has shape \(59,\), expected one per sample of data, \(60,\)"),
        ({"labels": GROUPS[:-1]}, r"labels has shape \(59,\)"),
        ({"groups": GROUPS - 1}, "groups holds values from -1 to 0, expected 0 to 1; leave out"),
        ({"loss": MeanLoss(2, n_bins=3)}, "noise has n_bins=2, but loss n_bins=3"),
        ({"groups": GROUPS.to("meta")}, "groups lies on meta, the denoiser on cpu"),
    ],
)
def test_arguments_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    given = {"data": DATA, "groups": GROUPS, "loss": MeanLoss(2), "n_steps": 1, "batch_size": 24, **change}
    data, groups, loss = (given.pop(name) for name in ("data", "groups", "loss"))
    denoiser = build()
    with pytest.raises(ValueError, match=message):
        train(denoiser, data, groups, loss, levels(denoiser), **given)


def test_a_model_without_anything_to_train_is_refused_and_the_remedy_works() -> None:
    averaged = run(build(), MeanLoss(2), n_steps=1).ema.model
    with pytest.raises(ValueError, match=r"denoiser has no weight that requires a gradient.*requires_grad_\(True\)"):
        run(averaged, MeanLoss(2), n_steps=1)
    assert run(copy.deepcopy(averaged).requires_grad_(True), MeanLoss(2), n_steps=1).n_skipped == 0


def test_the_log_is_that_of_the_strategy_and_survives_an_interruption(tmp_path: Path) -> None:
    path, loss = tmp_path / "c.pt", MinMaxLoss(2)
    whole = run(build(), MinMaxLoss(2), n_steps=6, log_every=2)
    run(build(), MinMaxLoss(2), n_steps=3, log_every=2, checkpoint=path)
    resumed = run(build(), loss, n_steps=6, log_every=2, checkpoint=path)
    assert resumed.log == whole.log
    assert [row["step"] for row in whole.log] == [2, 4, 6]
    last = whole.log[-1]
    assert [last["group_loss_0"], last["group_loss_1"]] == loss.group_losses.flatten().tolist()
    assert last[f"group_weight_{last['worst_group']}"] == pytest.approx(1.0)
    assert all(row["loss"] > 0.0 for row in whole.log)


def test_thin_cells_are_warned_of() -> None:
    with pytest.warns(ThinCellWarning, match="a batch of 8 has"):
        run(build(), MinMaxLoss(2, n_bins=2), n_steps=1, batch_size=8)


class Jittered(Dataset[Any]):
    """Rows with a transform that draws from torch, as augmentations do."""

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        return DATA[row] + 0.01 * torch.randn(3), GROUPS[row], GROUPS[row]


def load(n_steps: int, *, loader: Any = None, network: Any = None, loss: Any = None, **options: Any) -> Any:
    """Train from a shuffled loader with epochs of 24, 24 and 12 rows; return the denoiser, the loss and the run."""
    denoiser, loss = build(Dropout) if network is None else network, loss or LOSSES["min-max"]()
    loader = DataLoader(Jittered(), batch_size=24, shuffle=True) if loader is None else loader
    options = {"learning_rate": 1e-2, **options}
    return denoiser, loss, train(denoiser, loader, None, loss, levels(denoiser), n_steps=n_steps, **options)


def assert_same_training(first: Any, second: Any) -> None:
    for ours, theirs in zip(first[:2], second[:2], strict=True):
        assert_equal(ours, theirs)
    assert_equal(first[2].ema, second[2].ema)


def test_a_loader_against_a_loop_written_out() -> None:
    """Two epochs of the rows in their order, so that the batches are known."""
    rows = TensorDataset(DATA, GROUPS)
    denoiser, loss, result = load(6, loader=DataLoader(rows, batch_size=24), network=build(), half_life=100.0)
    plain, plain_loss = build(), LOSSES["min-max"]()
    noise, average = levels(plain), WeightEMA(plain, half_life=100.0)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-2)
    with torch.random.fork_rng():
        for epoch in range(2):
            torch.manual_seed(int(np.random.SeedSequence([0, 0, epoch]).generate_state(1)[0]))
            for x, groups in DataLoader(rows, batch_size=24):
                sigma = noise.law.sample(len(x))
                optimizer.zero_grad()
                plain_loss(denoising_losses(plain, x, sigma), groups, noise.bin_of(sigma)).backward()
                optimizer.step()
                average.update(plain, n_samples=len(x))
    for first, second in ((denoiser, plain), (loss, plain_loss), (result.ema, average)):
        assert_equal(first, second)
    assert (result.n_steps, result.n_samples_seen) == (6, 120)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_loader_equals_an_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    """In the middle of an epoch, at its end, in the next; with labels, dropout, shuffling and a random transform."""
    path = tmp_path / "c.pt"
    whole = load(7, log_every=2)
    load(stop, log_every=2, checkpoint=path)
    torch.rand(5)  # the global generator is elsewhere by now
    resumed = load(7, log_every=2, checkpoint=path)
    assert resumed[2].resumed_at == stop
    assert_same_training(resumed, whole)
    assert resumed[2].log == whole[2].log


def test_a_resumed_loader_with_workers_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """Which draw from torch, each from its own generator."""

    def loader() -> DataLoader[Any]:
        return DataLoader(Jittered(), batch_size=24, shuffle=True, num_workers=2)

    whole = load(5, loader=loader())
    load(2, loader=loader(), checkpoint=tmp_path / "c.pt")
    assert_same_training(load(5, loader=loader(), checkpoint=tmp_path / "c.pt"), whole)


def test_every_epoch_has_every_row_in_another_order() -> None:
    seen: list[list[float]] = []

    class Recording(Jittered):
        def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
            seen.append(row)
            return DATA[row], GROUPS[row], GROUPS[row]

    before = torch.get_rng_state()
    load(6, loader=DataLoader(Recording(), batch_size=24, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(seen[:60]) == sorted(seen[60:]) == list(range(60))
    assert seen[:60] != seen[60:]
    first = seen[:]
    load(6, loader=DataLoader(Recording(), batch_size=24, shuffle=True), random_state=1)
    assert seen[120:] != first


def test_a_sampler_is_told_the_epoch(tmp_path: Path) -> None:
    told: list[int] = []

    class Told(SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    loader = DataLoader(Jittered(), batch_size=24, sampler=Told(Jittered()))
    load(4, loader=loader, checkpoint=tmp_path / "c.pt")
    load(7, loader=loader, checkpoint=tmp_path / "c.pt")
    assert told == [0, 1, 1, 2]


def test_loaders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    rows, denoiser = TensorDataset(DATA, GROUPS), build()
    with pytest.raises(ValueError, match="groups is given beside a DataLoader"):
        train(denoiser, DataLoader(rows), GROUPS, MeanLoss(2), levels(denoiser), n_steps=1)
    with pytest.raises(ValueError, match="labels is given beside a DataLoader"):
        load(1, labels=GROUPS)
    with pytest.raises(ValueError, match="batch_size is given beside a DataLoader"):
        load(1, batch_size=24)
    with pytest.raises(ValueError, match="groups is missing; pass one integer per sample of data"):
        train(denoiser, DATA, None, MeanLoss(2), levels(denoiser), n_steps=1)
    with pytest.raises(ValueError, match="a DataLoader with a generator of its own"):
        load(1, loader=DataLoader(rows, shuffle=True, generator=torch.Generator()))
    with pytest.raises(ValueError, match="a DataLoader without batches; give it samples, or drop_last=False"):
        load(1, loader=DataLoader(rows, batch_size=61, drop_last=True))
    with pytest.raises(TypeError, match=r"a DataLoader with batches of \(Tensor\), expected tensors \(x, groups\)"):
        load(1, loader=DataLoader(TensorDataset(DATA), batch_size=24))
    with pytest.raises(TypeError, match="a DataLoader with batches of dict, expected tensors"):
        load(1, loader=DataLoader([{"x": x} for x in DATA], batch_size=24))
    with pytest.raises(ValueError, match=r"groups has shape \(24, 1\), expected one per sample of data, \(24,\)"):
        load(1, loader=DataLoader(TensorDataset(DATA, GROUPS[:, None]), batch_size=24))
    load(2, checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="size of the dataset was 60, is 59"):
        load(3, loader=DataLoader([Jittered()[i] for i in range(59)], batch_size=24), checkpoint=tmp_path / "c.pt")


def test_a_stream_that_ends_before_the_checkpoint_is_refused(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __init__(self, n: int) -> None:
            self.n = n

        def __iter__(self) -> Iterator[Any]:
            return zip(DATA[: self.n], GROUPS[: self.n], GROUPS[: self.n], strict=True)

    load(2, loader=DataLoader(Stream(60), batch_size=24), checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="with 1 batches in epoch 0, but the checkpoint comes after 2"):
        load(3, loader=DataLoader(Stream(20), batch_size=24), checkpoint=tmp_path / "c.pt")
    resumed = load(5, loader=DataLoader(Stream(60), batch_size=24), checkpoint=tmp_path / "c.pt")
    assert_same_training(resumed, load(5, loader=DataLoader(Stream(60), batch_size=24)))


def test_the_callback_sees_the_average_and_changes_nothing() -> None:
    seen = []

    def look(model: nn.Module, step: int) -> None:
        assert not model.training
        seen.append((step, copy.deepcopy(model)))
        torch.rand(7)

    plain, watched = build(Dropout), build(Dropout)
    run(plain, MeanLoss(2), n_steps=5, labels=GROUPS)
    result = run(watched, MeanLoss(2), n_steps=5, labels=GROUPS, callback=look, callback_every=2)
    assert_equal(watched, plain)
    assert [step for step, _ in seen] == [2, 4]
    shorter = run(build(Dropout), MeanLoss(2), n_steps=4, labels=GROUPS)
    assert_equal(seen[1][1], shorter.ema.model)
    assert not result.stopped


def test_the_callback_ends_the_training_for_good(tmp_path: Path) -> None:
    calls = []

    def stop(model: nn.Module, step: int) -> bool:
        calls.append(step)
        return step == 4

    options = {"callback": stop, "callback_every": 2, "checkpoint": tmp_path / "c.pt"}
    first, again = build(), build()
    result = run(first, MeanLoss(2), n_steps=10, **options)
    assert (result.n_steps, result.stopped, calls) == (4, True, [2, 4])
    resumed = run(again, MeanLoss(2), n_steps=10, **options)
    assert (resumed.n_steps, resumed.stopped, calls) == (4, True, [2, 4])
    assert_equal(first, again)


def test_a_watch_is_a_callback(tmp_path: Path) -> None:
    """It evaluates the average by group, every so many steps."""
    real = Reference(DATA.numpy(), sensitive_features=GROUPS.numpy(), metrics="prdc", random_state=0)

    def evaluate(model: Any, seed: int) -> GenerativeMetricFrame:
        latents = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed))
        samples = heun_sample(model, latents, n_steps=3)
        return GenerativeMetricFrame(metrics="prdc", real=real, fake=samples.numpy(), fake_sensitive_features=GROUPS)

    watch = GroupWatch(evaluate, CheckpointSelection("prdc_coverage"), folder=tmp_path, every=10)
    run(build(), MeanLoss(2), n_steps=20, callback=watch.step, callback_every=10)
    assert [candidate.step for candidate in watch.selection.candidates] == [10, 20]


class Recording(nn.Module):
    """Remembers the dtype of a product, and of a gradient that reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ResidualMLP(3, width=8, n_blocks=1)
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        output: Tensor = self.inner(x, c_noise, labels)
        self.dtypes.add(output.dtype)
        return output


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_the_network_in_half_precision_and_keeps_the_rest(dtype: torch.dtype) -> None:
    half, full = build(Recording), build(Recording)
    loss, full_loss = MeanLoss(2), MeanLoss(2)
    run(full, full_loss, n_steps=20)
    result = run(half, loss, n_steps=20, autocast=dtype)
    assert half.network.dtypes == {dtype}
    assert full.network.dtypes == {torch.float32}
    assert {weight.dtype for weight in [*half.parameters(), *result.ema.model.parameters()]} == {torch.float32}
    torch.testing.assert_close(loss.group_losses, full_loss.group_losses, rtol=0.05, atol=0.0)
    assert not torch.equal(half.network.inner.last.weight, full.network.inner.last.weight)


def test_float16_finds_its_scale_and_keeps_it_over_an_interruption(tmp_path: Path) -> None:
    """Losses so large that the first scale of 65536 overflows in float16: those steps are skipped, and counted."""

    class Large(Recording):
        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return 1e3 * super().forward(x, c_noise, labels)

    path, options = tmp_path / "c.pt", {"autocast": torch.float16, "learning_rate": 1e-4}
    whole, resumed = build(Large), build(Large)
    result = run(whole, MeanLoss(2), n_steps=12, **options)
    assert 0 < result.n_skipped < 12
    run(build(Large), MeanLoss(2), n_steps=3, checkpoint=path, **options)
    again = run(resumed, MeanLoss(2), n_steps=12, checkpoint=path, **options)
    assert_equal(resumed, whole)
    assert again.n_skipped == result.n_skipped


def test_checkpoints_from_before_the_log_are_read(tmp_path: Path) -> None:
    path, whole, resumed = tmp_path / "c.pt", build(Dropout), build(Dropout)
    expected = run(whole, MinMaxLoss(2), n_steps=6, labels=GROUPS, log_every=2)
    run(build(Dropout), MinMaxLoss(2), n_steps=3, labels=GROUPS, log_every=2, checkpoint=path)
    content = torch.load(path, weights_only=True)
    for added in ("log", "stopped", "batches", "scaler", "generators of other processes"):
        del content[added]
    for added in ("autocast", "max_grad_norm", "processes"):
        del content["settings"][added]
    torch.save(content, path)
    result = run(resumed, MinMaxLoss(2), n_steps=6, labels=GROUPS, log_every=2, checkpoint=path)
    assert_equal(resumed, whole)
    assert result.log == expected.log[1:]


if __name__ == "__main__":
    run(
        build(Dropout),
        LOSSES["min-max"](),
        n_steps=10**9,
        labels=GROUPS,
        checkpoint=sys.argv[1],
        checkpoint_every=2,
    )
