"""Language models: losses against a plain computation, the loop against one written out, and that kills change nothing.

The models are tiny and random, made here.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from egtmetrics.training import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss

pytest.importorskip("transformers")
pytest.importorskip("peft")

from egtmetrics.paper.causal_lm import LoRASettings, add_lora
from egtmetrics.training.language import LanguageRun, answer_losses, losses_of_texts, train_language_model
from egtmetrics.training.prompts import PromptedTexts
from tests._killing import kill_when
from tests.training import _tiny

TOKENIZER = _tiny.tokenizer()
TEXTS = _tiny.biographies(TOKENIZER, attributes=["male", "female"] * 5)
WITHOUT_ANSWERS = dataclasses.replace(
    TEXTS,
    tokens=tuple(
        tokens[:n] if i in (3, 7) else tokens
        for i, (tokens, n) in enumerate(zip(TEXTS.tokens, TEXTS.prompt_lengths, strict=True))
    ),
)
MODELS = {"Llama": _tiny.llama, "Gemma 3, whose window is shorter than the prompt": _tiny.gemma}
STRATEGIES: dict[str, Callable[[], GroupLoss]] = {
    "mean": lambda: MeanLoss(2),
    "reweighted": lambda: ReweightedLoss(target="ego", source=[0.7, 0.3]),
    "min-max": lambda: MinMaxLoss(2),
    "group DRO": lambda: GroupDROLoss(2, step_size=0.5),
}


def build(**options: Any) -> Any:
    model = _tiny.llama(len(TOKENIZER))
    return add_lora(model, LoRASettings(**options), random_state=1)


def batch_of(texts: PromptedTexts) -> dict[str, Tensor]:
    return texts.collate([texts[i] for i in range(len(texts))])


def run(model: Any, loss: GroupLoss, **options: Any) -> LanguageRun:
    options = {"n_steps": 4, "batch_size": 6, "micro_batch": 4, "learning_rate": 1e-2, "random_state": 5, **options}
    return train_language_model(model, options.pop("texts", TEXTS), loss, **options)


def adapters(model: Any) -> dict[str, Tensor]:
    return {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}


def assert_same(a: Any, b: Any) -> None:
    torch.testing.assert_close(adapters(a), adapters(b), rtol=0, atol=0)


def gradient(model: Any, losses: Tensor) -> Tensor:
    model.zero_grad()
    (losses * torch.arange(1, 1 + len(losses))).sum().backward()
    return torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])


@pytest.mark.parametrize("make", MODELS.values(), ids=list(MODELS))
def test_losses_are_mean_log_likelihoods_of_the_answer(make: Callable[..., Any]) -> None:
    """Row by row without padding, in float64, from all logits."""
    model = make(len(TOKENIZER))
    exact = copy.deepcopy(model).double()
    expected = []
    for tokens, n in zip(TEXTS.tokens, TEXTS.prompt_lengths, strict=True):
        log_p = exact(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        expected.append(-np.mean([log_p[t - 1, tokens[t]].item() for t in range(n, len(tokens))]))
    for share_prompt in (True, False):
        losses = answer_losses(model, batch_of(TEXTS), share_prompt=share_prompt)
        assert losses.dtype == torch.float32
        np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=2e-5)
    for batch_size in (1, 4):
        np.testing.assert_allclose(losses_of_texts(model, TEXTS, batch_size=batch_size), expected, rtol=2e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_a_text_without_an_answer_has_no_loss(batch_size: int) -> None:
    model = _tiny.llama(len(TOKENIZER))
    expected = losses_of_texts(model, TEXTS)
    expected[[3, 7]] = torch.nan
    losses = losses_of_texts(model, WITHOUT_ANSWERS, batch_size=batch_size)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("make", MODELS.values(), ids=list(MODELS))
def test_a_shared_prompt_has_the_gradient_of_as_many_prompts(make: Callable[..., Any]) -> None:
    model = add_lora(make(len(TOKENIZER)), random_state=0)
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    model.train()
    alone, shared = (gradient(model, answer_losses(model, batch_of(TEXTS), share_prompt=s)) for s in (False, True))
    assert alone.norm() > 1.0
    torch.testing.assert_close(shared, alone, rtol=1e-3, atol=1e-5 * float(alone.norm()))


@pytest.mark.parametrize(
    ("prepare", "n_passes"),
    [
        (lambda: build().train(), 2),
        (lambda: build(dropout=0.1).train(), 1),
        (lambda: build(dropout=0.1).eval(), 2),
        (lambda: _tiny.llama(len(TOKENIZER), attention_dropout=0.1).train(), 1),
    ],
)
def test_a_prompt_is_shared_unless_every_row_has_noise_of_its_own(prepare: Callable[[], Any], n_passes: int) -> None:
    model = prepare()
    lengths: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _m, inputs, _o: lengths.append(inputs[0].numel()))
    batch = batch_of(TEXTS)
    answer_losses(model, batch)
    assert len(lengths) == n_passes
    assert (sum(lengths) < batch["input_ids"].numel() / 2) == (n_passes == 2)


def test_activation_checkpoints_work() -> None:
    model = build().train()
    expected = gradient(model, answer_losses(model, batch_of(TEXTS)))
    enable = (
        getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    )  # the older name
    enable()
    torch.testing.assert_close(gradient(model, answer_losses(model, batch_of(TEXTS))), expected, rtol=1e-3, atol=1e-4)


def by_hand(model: Any, weigh: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Four steps on whole batches without padding tricks; ``weigh(losses, groups)`` gives weights of the samples."""
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    seen = []
    model.train()
    for step in range(4):
        epoch, place = divmod(step, 2)  # 10 texts in batches of 6 and 4
        order = np.random.default_rng([5, 0, epoch]).permutation(10)
        rows = order[place * 6 : (place + 1) * 6]
        batch = TEXTS.collate([TEXTS[int(i)] for i in rows])
        losses = answer_losses(model, batch, share_prompt=False)
        seen.append(torch.as_tensor(rows))
        optimizer.zero_grad()
        (weigh(losses.detach(), batch["groups"]) * losses).sum().backward()
        optimizer.step()
    return seen


class PreviousAverages:
    """Min-max by the averages of the steps before, kept as the paper's recursion with its bias corrected."""

    def __init__(self) -> None:
        self.averages: list[list[float]] = [[], []]

    def __call__(self, losses: Tensor, groups: Tensor) -> Tensor:
        means = []
        for history in self.averages:
            weights = 0.9 ** np.arange(len(history))[::-1]
            means.append(float(np.average(history, weights=weights)) if history else np.inf)
        present = [a for a in range(2) if (groups == a).any()]
        worst = max(present, key=lambda a: means[a])
        for a in present:
            self.averages[a].append(float(losses[groups == a].double().mean()))
        return (groups == worst) / (groups == worst).sum()


@pytest.mark.parametrize(
    ("strategy", "weigh"),
    [
        ("mean", lambda losses, groups: torch.ones_like(losses) / len(losses)),
        ("reweighted", lambda losses, groups: torch.tensor([0.5 / 0.7, 0.5 / 0.3])[groups] / len(losses)),
        ("min-max", PreviousAverages()),
    ],
)
def test_the_loop_takes_the_steps_written_out_here(strategy: str, weigh: Callable[[Tensor, Tensor], Tensor]) -> None:
    ours, theirs = build(), build()
    before = adapters(ours)
    result = run(ours, STRATEGIES[strategy](), micro_batch=2)
    by_hand(theirs, weigh)
    moved = {name: float((w - before[name]).abs().max()) for name, w in adapters(ours).items()}
    assert min(moved.values()) > 1e-3
    torch.testing.assert_close(adapters(ours), adapters(theirs), rtol=1e-3, atol=2e-5)
    assert (result.n_steps, result.n_samples_seen, result.n_skipped, result.resumed_at) == (4, 20, 0, 0)


def test_an_epoch_sees_every_text_once() -> None:
    model = build()
    result = run(model, MeanLoss(2), n_steps=None, n_epochs=3, learning_rate=1e-9)
    assert result.n_steps == 6
    counts = result.log[["n_0", "n_1"]].to_numpy()
    for epoch in range(3):
        assert counts[2 * epoch : 2 * epoch + 2].sum(axis=0).tolist() == [7, 3]
    # Nothing has moved, so losses of an epoch are those of all texts; a text seen twice would show.
    total = (result.log["loss"] * counts.sum(axis=1)).to_numpy().reshape(3, 2).sum(axis=1)
    np.testing.assert_allclose(total, float(losses_of_texts(model, TEXTS).sum()), rtol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_size_of_the_parts_does_not_matter(strategy: str) -> None:
    models = [build() for _ in range(3)]
    for model, micro_batch in zip(models, (1, 4, 64), strict=True):
        run(model, STRATEGIES[strategy](), micro_batch=micro_batch)
    for other in models[1:]:
        torch.testing.assert_close(adapters(other), adapters(models[0]), rtol=1e-3, atol=2e-5)


def test_the_log_has_the_losses_of_each_group() -> None:
    model, loss = build(), MinMaxLoss(2)
    first = losses_of_texts(model, TEXTS)
    result = run(model, loss, n_steps=3, batch_size=10)
    row = result.log.iloc[0]
    groups = torch.tensor(_tiny.GROUPS)
    assert (row["step"], row["n_0"], row["n_1"]) == (1, 7, 3)
    for a in range(2):
        expected = float(first[groups == a].mean())
        assert row[f"loss_{a}"] == pytest.approx(expected, rel=1e-4)
        assert row[f"average_{a}"] == pytest.approx(expected, rel=1e-4)
    assert row["loss"] == pytest.approx(float(first.mean()), rel=1e-4)
    assert row["objective"] == pytest.approx(row["loss_0"])  # nothing known at first: a tie, so group 0
    assert result.log["average_0"].iloc[-1] == pytest.approx(float(loss.group_losses[0, 0]))


def test_dropout_does_not_touch_the_global_generators() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    run(build(dropout=0.5), MeanLoss(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_is_another_in_every_step() -> None:
    model = build(dropout=0.5)
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    one = _tiny.biographies(TOKENIZER, _tiny.TEXTS[:1], [0])
    result = train_language_model(model, one, MeanLoss(1), n_steps=4, learning_rate=1e-12)
    assert result.log["loss"].nunique() == 4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_in_pieces_is_the_whole_run_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    whole, state = build(dropout=0.3), STRATEGIES[strategy]()
    expected = run(whole, state, n_steps=5)
    for n_steps in (1, 2, 5, 5):
        model, loss = build(dropout=0.3), STRATEGIES[strategy]()
        result = run(model, loss, n_steps=n_steps, checkpoint=tmp_path / "c.pt")
    assert_same(model, whole)
    torch.testing.assert_close(loss.state_dict(), state.state_dict(), rtol=0, atol=0)
    pd.testing.assert_frame_equal(result.log, expected.log, check_exact=True)
    assert (result.resumed_at, result.n_steps) == (5, 5)


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    kill_when(path.exists, [sys.executable, __file__, path])  # the last lines of this file
    step = torch.load(path, weights_only=True)["step"]
    assert step >= 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, whole = build(dropout=0.3), build(dropout=0.3)
        assert run(model, MinMaxLoss(2), n_steps=step + 2, checkpoint=path).resumed_at == step
        run(whole, MinMaxLoss(2), n_steps=step + 2)
    finally:
        torch.set_num_threads(threads)
    assert_same(model, whole)


def with_little_memory(model: Any, n_rows: int) -> Any:
    """Raise what a GPU raises when more than ``n_rows`` rows come at once."""

    def check(_module: Any, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > n_rows:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    model.get_input_embeddings().register_forward_pre_hook(check)
    return model


@pytest.mark.parametrize("strategy", ["min-max", "group DRO"])
def test_out_of_memory_halves_the_parts_and_changes_nothing_else(strategy: str, tmp_path: Path) -> None:
    small, expected = build(dropout=0.3), STRATEGIES[strategy]()
    run(small, expected, micro_batch=3)
    model, loss = with_little_memory(build(dropout=0.3), 4), STRATEGIES[strategy]()
    result = run(model, loss, micro_batch=64, checkpoint=tmp_path / "c.pt")  # 6 rows do not fit, so it tries 3
    assert result.micro_batch == 3
    assert_same(model, small)
    torch.testing.assert_close(loss.state_dict(), expected.state_dict(), rtol=0, atol=0)
    again = run(build(dropout=0.3), STRATEGIES[strategy](), micro_batch=64, checkpoint=tmp_path / "c.pt", n_steps=5)
    assert again.micro_batch == 3  # remembered: the resumed run has the parts of the one before


def test_a_text_that_does_not_fit_alone_is_an_error() -> None:
    with pytest.raises(MemoryError, match=r"not even one text fits into memory, with micro_batch=1 \(CUDA out of"):
        run(with_little_memory(build(), 0), MeanLoss(2))
    losses = losses_of_texts(with_little_memory(build(), 3), TEXTS, batch_size=10)
    torch.testing.assert_close(losses, losses_of_texts(build(), TEXTS), rtol=1e-4, atol=1e-5)


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    model = build()

    def fail(*_: Any) -> None:
        raise RuntimeError("the size of tensor a must match")

    model.get_input_embeddings().register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="size of tensor a"):
        run(model, MeanLoss(2))


def poisoned(model: Any, calls: set[int]) -> Any:
    """Answers NaN in the first row at these passes of whole batches."""
    count = iter(range(10**6))

    def poison(_module: Any, _inputs: Any, output: Tensor) -> Tensor | None:
        if len(output) == 1 or next(count) not in calls:
            return None
        return torch.cat([output[:1] * torch.nan, output[1:]])

    model.get_input_embeddings().register_forward_hook(poison)
    return model


def test_losses_that_are_nan_are_counted_and_their_step_is_not_taken() -> None:
    model, loss = poisoned(build(), {1}), MeanLoss(2)
    result = run(model, loss, n_steps=3, batch_size=10, micro_batch=10)
    assert (result.n_skipped, int(loss.n_nonfinite), result.n_steps) == (1, 1, 3)
    assert all(w.isfinite().all() for w in adapters(model).values())
    assert result.log["loss"].notna().all()
    with pytest.raises(FloatingPointError, match="2 batches in a row"):
        run(poisoned(build(), set(range(50))), MeanLoss(2, max_nonfinite=1), batch_size=10, micro_batch=10)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 1e-3}, "learning_rate was 0.01, is 0.001"),
        ({"batch_size": 5}, "batch_size was 6, is 5"),
        ({"random_state": 6}, "random_state was 5, is 6"),
        ({"loss": MeanLoss(2)}, "loss.type was MinMaxLoss, is MeanLoss"),
        ({"model": lambda: build(alpha=8.0)}, "adapters was default: r=8, alpha=16.0.*, is default: r=8, alpha=8.0"),
        ({"model": lambda: build(rank=2)}, "weights.base_model.*was "),
        ({"model": lambda: add_lora(_tiny.llama(len(TOKENIZER), seed=9), random_state=1)}, "first weights was "),
        ({"texts": _tiny.biographies(TOKENIZER)}, "texts was "),
        ({"texts": dataclasses.replace(TEXTS, date="2025-02-01")}, "date was 2024-07-26, is 2025-02-01"),
        (
            {"texts": _tiny.biographies(TOKENIZER, _tiny.TEXTS, [1] * 10, attributes=["male", "female"] * 5)},
            "groups was ",
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    run(build(), MinMaxLoss(2), n_steps=1, checkpoint=path)
    change = {"model": build, "texts": TEXTS, "loss": MinMaxLoss(2), **change}
    model, texts, loss = change.pop("model")(), change.pop("texts"), change.pop("loss")
    options = {"batch_size": 6, "micro_batch": 4, "learning_rate": 1e-2, "random_state": 5, **change}
    before = adapters(model)
    with pytest.raises(ValueError, match=rf"comes from another training: .*{named}"):
        train_language_model(model, texts, loss, n_steps=2, checkpoint=path, **options)
    torch.testing.assert_close(adapters(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_steps": 0}, "n_steps=0"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"loss": MeanLoss(2, n_bins=2)}, "loss has n_bins=2"),
        ({"loss": MeanLoss(1)}, "texts has groups up to 1, but loss n_groups=1; build the loss with n_groups=2"),
        ({"model": "frozen"}, "no weight that requires a gradient"),
        ({"texts": WITHOUT_ANSWERS}, "texts has no answer in rows 3, 7; leave such rows out"),
    ],
)
def test_arguments_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    frozen = change.get("model") == "frozen"
    model = _tiny.llama(len(TOKENIZER)).requires_grad_(False) if frozen else build()
    options = {"loss": MeanLoss(2), **{name: value for name, value in change.items() if name != "model"}}
    with pytest.raises(ValueError, match=message):
        run(model, options.pop("loss"), **options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(build(dropout=0.3), MinMaxLoss(2), n_steps=10**6, checkpoint=sys.argv[1], checkpoint_every=2)
