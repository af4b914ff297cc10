"""Losses of answers, however a batch is padded and labelled, against rows that go through the model one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from egtmetrics.training import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss

pytest.importorskip("transformers")
pytest.importorskip("peft")

from egtmetrics.training.language import answer_losses, has_labels, prompt_states
from tests.training import _tiny

VOCABULARY, N_PROMPT = 60, 3
ROWS = [list(range(1, 9)), list(range(20, 33)), [1, 2, 3, 40]]
MODELS = {
    "GPT-2": lambda: _tiny.gpt2(VOCABULARY),
    "Llama": lambda: _tiny.llama(VOCABULARY),
    "Gemma 3": lambda: _tiny.gemma(VOCABULARY),
    "GPT-2 with adapters": lambda: with_adapters(_tiny.gpt2(VOCABULARY)),
    "Llama with adapters": lambda: with_adapters(_tiny.llama(VOCABULARY)),
}
STRATEGIES: dict[str, Callable[[], GroupLoss]] = {
    "mean": lambda: MeanLoss(2),
    "reweighted": lambda: ReweightedLoss(target="ego", source=[0.7, 0.3]),
    "min-max": lambda: MinMaxLoss(2),
    "literal": lambda: MinMaxLoss(2, literal=True),
    "group DRO": lambda: GroupDROLoss(2, step_size=0.5),
}


def adapted(model: Any, config: Any) -> Any:
    from peft import get_peft_model

    with warnings.catch_warnings():  # of transformers, about what peft reads
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config).eval()


def with_adapters(model: Any) -> Any:
    from peft import LoraConfig

    options = (
        {"target_modules": ["c_attn"], "fan_in_fan_out": True}
        if model.config.model_type == "gpt2"
        else {"target_modules": ["q_proj", "v_proj"]}
    )
    return adapted(model, LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options))


def batch_of(
    rows: list[list[int]] = ROWS, *, gaps: Callable[[int, int], int] = lambda _row, place: 0, unlabelled: Any = ()
) -> dict[str, Tensor]:
    """``gaps(row, place)`` columns of padding stand before that token, and the rest on the right."""
    places = [np.cumsum([1 + gaps(i, t) for t in range(len(row))]) - 1 for i, row in enumerate(rows)]
    shape = (len(rows), 1 + max(int(columns[-1]) for columns in places))
    ids, mask, labels = torch.full(shape, 2), torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    for i, (row, columns) in enumerate(zip(rows, places, strict=True)):
        ids[i, columns], mask[i, columns] = torch.tensor(row), 1
        if i not in unlabelled:
            labels[i, columns[N_PROMPT:]] = torch.tensor(row[N_PROMPT:])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def left(row: int, place: int) -> int:
    return 13 - len(ROWS[row]) if place == 0 else 0


def holes(row: int, place: int) -> int:
    return (row + place) % 3


def one_by_one(model: Any) -> list[float]:
    expected = []
    for row in ROWS:
        log_p = model(input_ids=torch.tensor([row])).logits[0].double().log_softmax(-1)
        expected.append(-np.mean([log_p[t - 1, row[t]].item() for t in range(N_PROMPT, len(row))]))
    return expected


def gradients(model: Any, losses: Tensor) -> dict[str, Tensor]:
    """Gradients of the sum of the losses that are not NaN."""
    model.zero_grad()
    total: Tensor = torch.where(losses.isnan(), 0.0, losses).sum()
    torch.autograd.backward(total)
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("gaps", [lambda *_: 0, left, holes], ids=["right", "left", "holes"])
@pytest.mark.parametrize("make", MODELS.values(), ids=list(MODELS))
def test_it_does_not_matter_where_padding_stands(make: Any, gaps: Any, share_prompt: bool) -> None:
    model = make()
    losses = answer_losses(model, batch_of(gaps=gaps), share_prompt=share_prompt)
    np.testing.assert_allclose(losses.detach().numpy(), one_by_one(model), rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int32])
def test_attention_may_have_any_type(dtype: torch.dtype) -> None:
    model, batch = _tiny.gpt2(VOCABULARY), batch_of(gaps=left)
    batch["attention_mask"] = batch["attention_mask"].to(dtype)
    np.testing.assert_allclose(answer_losses(model, batch).detach().numpy(), one_by_one(model), rtol=2e-5)


def test_left_padded_rows_share_their_prompt_too() -> None:
    model = _tiny.gpt2(VOCABULARY)
    rows = [[1, 2, 3, 4, 5], [1, 2, 3, 6]]
    lengths: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _m, inputs, _o: lengths.append(inputs[0].numel()))
    answer_losses(model, batch_of(rows, gaps=lambda row, place: row if place == 0 else 0))
    assert len(lengths) == 2


@pytest.mark.parametrize("gaps", [lambda *_: 0, left, holes], ids=["right", "left", "holes"])
def test_a_label_on_the_first_token_is_ignored(gaps: Any) -> None:
    """As in transformers, whose collator labels every token."""
    model, batch = _tiny.gpt2(VOCABULARY), batch_of(gaps=gaps)
    expected = answer_losses(model, batch)
    first = (batch["attention_mask"].cumsum(1) == 1) & (batch["attention_mask"] == 1)
    batch["labels"][first] = batch["input_ids"][first]
    given = batch["labels"].clone()
    torch.testing.assert_close(answer_losses(model, batch), expected)
    assert torch.equal(batch["labels"], given)
    batch["labels"][~first] = -100
    assert has_labels(batch).tolist() == [False] * 3
    assert answer_losses(model, batch).isnan().all()


def test_the_losses_are_those_of_transformers_with_its_own_collator() -> None:
    """The collator that labels all tokens; one row at a time, since its loss is a mean over the tokens of all."""
    from transformers import DataCollatorForLanguageModeling

    tokenizer = _tiny.tokenizer()
    model = _tiny.gpt2(len(tokenizer))
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    batch = dict(collator([{"input_ids": row} for row in ROWS]))
    assert (batch["labels"][:, 0] == batch["input_ids"][:, 0]).all()
    expected = [float(model(**collator([{"input_ids": row}])).loss.detach()) for row in ROWS]
    np.testing.assert_allclose(answer_losses(model, batch).detach().numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("make", [_tiny.gpt2, _tiny.llama])
def test_a_row_without_labels_has_no_loss_and_no_gradient(make: Any, attention: str) -> None:
    """Beside others and alone; without any token as well, as fillers of a last batch are."""
    model = make(VOCABULARY).train()
    model.set_attn_implementation(attention)
    expected = gradients(model, answer_losses(model, batch_of(ROWS[1:])))
    batch = batch_of(unlabelled=[0])
    batch["attention_mask"][0] = 0
    losses = answer_losses(model, batch)
    assert has_labels(batch).tolist() == [False, True, True]
    assert losses.isnan().tolist() == [True, False, False]
    torch.testing.assert_close(gradients(model, losses), expected, rtol=1e-3, atol=1e-5)
    for rows in (ROWS, ROWS[:1], [[1]], [[1], [2]], [[1, 2, 3], [1, 2, 4]]):
        alone = answer_losses(model, batch_of(rows, unlabelled=range(3)))
        assert alone.shape == (len(rows),)
        assert alone.isnan().all()
        found = gradients(model, alone)
        assert found.keys() == expected.keys()  # every weight takes part, as DistributedDataParallel expects
        assert all((g == 0).all() for g in found.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_without_labels_does_not_stop_a_strategy(strategy: str) -> None:
    model, loss = _tiny.gpt2(VOCABULARY).train(), STRATEGIES[strategy]()
    value = loss(answer_losses(model, batch_of(unlabelled=range(3))), torch.tensor([0, 1, 1]))
    assert float(value.detach()) == 0.0
    assert all((g == 0).all() for g in gradients(model, value).values())
    assert int(loss.n_nonfinite) == 3
    value = loss(answer_losses(model, batch_of()), torch.tensor([0, 1, 1]))
    assert value > 0.0


def test_adapters_that_put_tokens_in_front_have_their_own_losses() -> None:
    """Prompt tuning: the virtual tokens shift all columns, and cannot be passed through the model twice."""
    from peft import PromptTuningConfig

    model = _tiny.llama(VOCABULARY)
    tuned = adapted(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    expected = []
    for row in ROWS:
        log_p = tuned(input_ids=torch.tensor([row])).logits[0, 4:].double().log_softmax(-1)
        expected.append(-np.mean([log_p[t - 1, row[t]].item() for t in range(N_PROMPT, len(row))]))
    for gaps in (left, holes):
        losses = answer_losses(tuned, batch_of(gaps=gaps))
        np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=2e-5)
    alike = batch_of([ROWS[0], ROWS[0]])
    torch.testing.assert_close(answer_losses(tuned, alike), answer_losses(tuned, alike, share_prompt=False))
    with pytest.raises(ValueError, match=r"adapters of PROMPT_TUNING that depend on the whole input of a pass"):
        prompt_states(tuned, torch.tensor([[1, 2, 3]]))


def test_adapters_that_wait_for_some_tokens_see_them() -> None:
    """Activated LoRA, which changes weights from the tokens of its invocation on, here in the middle of the prompt."""
    from peft import LoraConfig

    model = adapted(
        _tiny.llama(VOCABULARY),
        LoraConfig(
            init_lora_weights=False, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"],
            alora_invocation_tokens=[2, 3],
        ),
    )  # fmt: skip
    rows = [[1, 2, 3, 5, 6, 7], [1, 2, 3, 5, 8]]
    shared, alone = (answer_losses(model, batch_of(rows), share_prompt=s) for s in (True, False))
    one_by_one = torch.cat([answer_losses(model, batch_of([row])) for row in rows])
    torch.testing.assert_close(alone, one_by_one)
    torch.testing.assert_close(shared, one_by_one)
    with model.disable_adapter():
        assert ((answer_losses(model, batch_of(rows)) - alone).abs() > 1e-3).all()


def test_positions_that_say_the_same_are_accepted() -> None:
    model, batch = _tiny.gpt2(VOCABULARY), batch_of(gaps=left)
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    torch.testing.assert_close(answer_losses(model, {**batch, "position_ids": positions}), answer_losses(model, batch))
    right = {**batch_of(), "position_ids": torch.arange(13)[None]}
    torch.testing.assert_close(answer_losses(model, right), answer_losses(model, batch_of()))


def changed(name: str, place: Any, value: int, **options: Any) -> dict[str, Tensor]:
    batch = batch_of(**options)
    batch[name][place] = value
    return batch


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (changed("labels", (0, 10), 2), "labels: row 0 has a label where attention_mask is 0; pass the label -100 if"),
        (changed("labels", (0, 2), 2, gaps=left), "labels: row 0 has a label where attention_mask is 0"),
        (
            changed("attention_mask", (1, 12), 0),
            "labels: row 1 has a label where .* is 0; .* attention 1 if it is a token to learn",
        ),
        (changed("attention_mask", (2, 3), 2), "attention_mask: row 2 has values other than 0 and 1"),
        (
            changed("labels", (1, 5), -1),
            "labels: row 1 has a label that is not the token at its place; .* do not shift",
        ),
        (
            {**batch_of(), "position_ids": torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5])[None]},
            "position_ids: row 0 does not count 0, 1, 2 ... along .* put each text into a row of its own",
        ),
        (
            {**batch_of(gaps=left), "position_ids": torch.arange(13).expand(3, -1)},
            "position_ids: row 0 does not count 0, 1, 2 ... along the tokens with attention 1; leave position_ids out",
        ),
        ({**batch_of(), "position_ids": torch.zeros(3, 3, 13)}, r"position_ids has shape \(3, 3, 13\), expected"),
        (
            {**batch_of(), "attention_mask": torch.ones(3, 1, 13, 13)},
            r"input_ids \(3, 13\), attention_mask \(3, 1, 13, 13\), labels \(3, 13\); expected one shape, \(n, l",
        ),
        (
            {name: values for name, values in batch_of().items() if name != "attention_mask"},
            "batch holds input_ids, labels, but no attention_mask; pass .* with 1 for the tokens of a row",
        ),
    ],
)
def test_what_could_mean_another_loss_is_refused(batch: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer_losses(_tiny.llama(VOCABULARY), batch)
