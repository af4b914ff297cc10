"""Early stopping: the look with the lowest loss is kept, in pieces as in one go, and after interruptions."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from egtmetrics.training import (
    Denoiser,
    EDMPreconditioning,
    GroupLoss,
    MinMaxLoss,
    NoiseLevels,
    ResidualMLP,
    held_out_losses,
    stop_early,
    train,
    train_until_best,
)

DATA = 1.0 + 0.1 * torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
GROUPS = torch.arange(80) % 2
KNOWN, HELD_OUT = slice(0, 60), slice(60, 80)
OPTIONS: dict[str, Any] = {"batch_size": 32, "learning_rate": 1e-2, "random_state": 3}


def build() -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Denoiser(ResidualMLP(2, width=8, n_blocks=1), EDMPreconditioning())


LEVELS = NoiseLevels(build().preconditioning.law, n_bins=2)


def run(make_loss: Any = lambda _: MinMaxLoss(2, n_bins=2), **options: Any) -> Any:
    options = {"n_steps": 30, "look_every": 10, **OPTIONS, **options}
    parts = [part for rows in (KNOWN, HELD_OUT) for part in (DATA[rows], GROUPS[rows])]
    return train_until_best(build(), *parts[:2], make_loss, LEVELS, *parts[2:], **options)


losses = st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan, math.inf]), min_size=2, max_size=12)


class KilledError(Exception):
    pass


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(curve=losses, patience=st.integers(1, 4), kills=st.sets(st.integers(1, 12)), last=st.integers(1, 3))
def test_the_lowest_look_is_kept(
    curve: list[float], patience: int, kills: set[int], last: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a search by hand, with looks every 3 steps, a shorter last piece, and kills during looks."""
    n_steps = max(3 * (len(curve) - 2) + last, 1)
    steps = [min(3 * i, n_steps) for i in range(len(curve))]
    seen: list[int] = []

    def look(step: int) -> tuple[Mapping[str, Tensor], float]:
        index = steps.index(step)
        if index + 1 in kills:
            kills.remove(index + 1)
            raise KilledError
        seen.append(step)
        return {"w": torch.tensor(float(step), requires_grad=True)}, curve[index]

    best, n_looks = -1, 0
    for index, loss in enumerate(curve):
        n_looks += 1
        if math.isfinite(loss) and (best < 0 or loss < curve[best]):
            best = index
        if index - max(best, 0) >= patience:
            break
    path = tmp_path_factory.mktemp("stop") / "seen.pt"
    for _ in range(len(kills) + 1):
        try:
            stop = stop_early(look, n_steps=n_steps, look_every=3, patience=patience, checkpoint=path)
            break
        except KilledError:
            continue
        except FloatingPointError:
            assert best < 0
            return
    assert (stop.step, stop.weights["w"].item()) == (steps[best], float(steps[best]))
    assert repr(stop.losses) == repr(tuple(curve[:n_looks]))
    assert seen == steps[:n_looks]  # nothing twice
    assert not stop.weights["w"].requires_grad


def test_a_look_that_goes_on_changing_its_weights_does_not_change_what_was_kept() -> None:
    weight = torch.zeros(())

    def look(step: int) -> tuple[Mapping[str, Tensor], float]:
        weight.fill_(step)
        return {"w": weight}, float(step)

    assert stop_early(look, n_steps=5, look_every=1, patience=9).weights["w"].item() == 0.0


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    def look(step: int) -> tuple[Mapping[str, Tensor], float]:
        return {}, 1.0

    path = tmp_path / "seen.pt"
    options: dict[str, Any] = {"n_steps": 4, "look_every": 2, "patience": 9, "checkpoint": path}
    stop_early(look, settings={"seed": 1}, **options)
    with pytest.raises(ValueError, match="comes from another training: seed was 1, is 2"):
        stop_early(look, settings={"seed": 2}, **options)
    with pytest.raises(ValueError, match="look_every was 2, is 1"):
        stop_early(look, settings={"seed": 1}, **{**options, "look_every": 1})
    with pytest.raises(ValueError, match="has 4 steps, more than n_steps=2"):
        stop_early(look, settings={"seed": 1}, **{**options, "n_steps": 2})
    assert len(stop_early(look, settings={"seed": 1}, **{**options, "n_steps": 6}).losses) == 4  # goes on


@pytest.mark.parametrize("name", ["n_steps", "look_every", "patience"])
def test_bad_options(name: str) -> None:
    options = {"n_steps": 4, "look_every": 2, "patience": 9, name: 0}
    with pytest.raises(ValueError, match=f"{name}=0"):
        stop_early(lambda step: ({}, 1.0), **options)


def test_it_keeps_what_training_until_that_step_gives() -> None:
    """In pieces or in one go, bit for bit; and the losses are those of the averaged weights."""
    stop = run()
    assert len(stop.losses) == 4
    first = held_out_losses(build(), DATA[HELD_OUT], GROUPS[HELD_OUT], LEVELS, random_state=3)
    assert stop.losses[0] == float(first.means.mean())
    for look, loss in enumerate(stop.losses[1:]):
        whole = train(
            build(), DATA[KNOWN], GROUPS[KNOWN], MinMaxLoss(2, n_bins=2), LEVELS, n_steps=10 * (look + 1), **OPTIONS
        ).ema.model
        assert isinstance(whole, Denoiser)
        assert loss == float(
            held_out_losses(whole, DATA[HELD_OUT], GROUPS[HELD_OUT], LEVELS, random_state=3).means.mean()
        )
        if stop.step == 10 * (look + 1):
            torch.testing.assert_close(stop.weights, dict(whole.state_dict()), rtol=0, atol=0)
    assert stop.losses[stop.step // 10] == min(stop.losses)
    assert stop.step > 0


def test_first_weights_that_training_makes_worse_are_kept() -> None:
    stop = run(learning_rate=100.0)
    assert stop.step == 0
    torch.testing.assert_close(stop.weights, dict(build().state_dict()), rtol=0, atol=0)


def test_the_first_weights_are_left_alone_and_need_no_gradient() -> None:
    base = build().requires_grad_(False)
    before = copy.deepcopy(base.state_dict())
    parts = [part for rows in (KNOWN, HELD_OUT) for part in (DATA[rows], GROUPS[rows])]
    stop = train_until_best(base, *parts[:2], lambda _: MinMaxLoss(2), LEVELS, *parts[2:], n_steps=2, **OPTIONS)
    torch.testing.assert_close(base.state_dict(), before, rtol=0, atol=0)
    assert not torch.equal(stop.weights["network.last.weight"], before["network.last.weight"])


@pytest.mark.parametrize("kill", [2, 3, 4])
def test_an_interrupted_run_goes_on(kill: int, tmp_path: Path) -> None:
    """Between the pieces and in one; ``make_loss`` sees the denoiser that is trained."""
    calls: list[Denoiser] = []

    def make_loss(denoiser: Denoiser) -> GroupLoss:
        calls.append(denoiser)
        loss = MinMaxLoss(2, n_bins=2)
        if len(calls) == kill:
            n = 0

            def count(*_: Any) -> None:
                nonlocal n
                n += 1
                if n == 6:
                    raise KilledError

            loss.register_forward_hook(count)
        return loss

    path = tmp_path / "run.pt"
    with pytest.raises(KilledError):
        run(make_loss, checkpoint=path)
    resumed, whole = run(make_loss, checkpoint=path), run()
    assert resumed.losses == whole.losses
    torch.testing.assert_close(resumed.weights, whole.weights, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"train\.learning_rate was 0\.01, is 0\.5"):
        run(make_loss, checkpoint=path, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"loss\.mean_share was 0\.0, is 0\.5"):
        run(lambda _: MinMaxLoss(2, n_bins=2, mean_share=0.5), checkpoint=path)


def test_losses_without_end_of_nan_are_an_error() -> None:
    with pytest.raises(FloatingPointError, match="none of the 3 held-out losses is finite"):
        stop_early(lambda step: ({}, math.nan), n_steps=9, look_every=1, patience=2)
