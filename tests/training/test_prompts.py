"""Prompts, and which tokens are learnt; with a tiny tokenizer made here."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from egtmetrics.paper.prompts import ANSWER_START, SYSTEM_PROMPT, USER_PROMPT, messages
from egtmetrics.training.prompts import IGNORED, prompt_tokens, tokenise

pytest.importorskip("transformers")

from tests.training import _tiny

TEXTS, GROUPS = _tiny.TEXTS, _tiny.GROUPS


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return _tiny.tokenizer()


def with_template(template: str | None, **options: Any) -> Any:
    return _tiny.tokenizer(template, **options)


def test_the_prompts_are_the_papers() -> None:
    """Words and order, by a digest made from the paper's text; line breaks of print apart."""
    words = " ".join((SYSTEM_PROMPT + USER_PROMPT).split())
    assert hashlib.sha256(words.encode()).hexdigest()[:16] == "5e6af9b4f8f2c05e"
    assert SYSTEM_PROMPT.startswith("\nYou are")
    assert "\n- Neutral, encyclopedic tone\n- No personal" in SYSTEM_PROMPT


def test_the_attribute_follows_the_request() -> None:
    anybody, woman = messages(), messages("female")
    assert anybody[0] == woman[0] == {"role": "system", "content": SYSTEM_PROMPT}
    assert anybody[1] == {"role": "user", "content": USER_PROMPT}
    assert woman[1]["content"] == USER_PROMPT + " It should be a biography of a female person."


def test_the_prompt_is_what_the_template_makes_of_it(tokenizer: Any) -> None:
    expected = f"<|start|>system\n{SYSTEM_PROMPT}<|end|>\n<|start|>user\n{USER_PROMPT}<|end|>\n<|start|>assistant\n"
    assert tokenizer.decode(prompt_tokens(tokenizer, messages())) == expected


@pytest.mark.parametrize("template", [_tiny.CHATML, _tiny.GEMMA])
def test_only_the_answer_is_learnt(template: str) -> None:
    tokenizer = with_template(template)
    attributes = ["female", None] * 5
    rows = _tiny.biographies(tokenizer, TEXTS, GROUPS, attributes=attributes)
    assert (len(rows), rows.n_truncated) == (len(TEXTS), 0)
    for i, text in enumerate(TEXTS):
        row = rows[i]
        learnt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
        assert [label for label in row["labels"] if label != IGNORED] == learnt
        # no line break after the end, which the template has there: a generated answer stops before it
        assert tokenizer.decode(learnt) == f"{ANSWER_START}{text}<|end|>"
        prompt = [t for t, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED]
        assert prompt == prompt_tokens(tokenizer, messages(attributes[i]))
        assert row["groups"] == GROUPS[i]


@pytest.mark.parametrize(
    ("template", "told", "other"),
    [
        (_tiny.LLAMA, "Today Date: 26 Jul 2024", "Today Date: 01 Feb 2025"),
        ("It is {{ date_string }}.<|end|>" + _tiny.CHATML, "It is 26 Jul 2024.", "It is 01 Feb 2025."),
        (
            "{% macro day(f) %}{{ strftime_now(format=f) }}{% endmacro %}"
            "{% set now = day('%A, %Y-%m-%d %H:%M, %-d/%m, %%d') %}{{ now }}<|end|>" + _tiny.CHATML,
            "Friday, 2024-07-26 00:00, 26/07, %d",
            "Saturday, 2025-02-01 00:00, 1/02, %d",
        ),
    ],
)
def test_templates_that_ask_for_the_date_get_the_same_on_every_day(template: str, told: str, other: str) -> None:
    """In training and in generation; the system's clock says something else."""
    tokenizer = with_template(template)
    prompt = prompt_tokens(tokenizer, messages())
    assert told in tokenizer.decode(prompt)
    rows = _tiny.biographies(tokenizer)
    assert (rows.date, rows.tokens[0][: rows.prompt_lengths[0]]) == ("2024-07-26", tuple(prompt))
    later = prompt_tokens(tokenizer, messages(), date="2025-02-01")
    assert other in tokenizer.decode(later)
    rows = tokenise(tokenizer, [messages()], ["a poet"], [0], date="2025-02-01")
    assert (rows.date, rows.tokens[0][: rows.prompt_lengths[0]]) == ("2025-02-01", tuple(later))


@pytest.mark.parametrize("template", [_tiny.CHATML, _tiny.GEMMA, "\n  " + _tiny.CHATML, "  {# x #}\n\n" + _tiny.CHATML])
def test_a_template_without_date_renders_as_it_does_alone(template: str) -> None:
    tokenizer = with_template(template)
    prompt = [messages()[1]]
    alone = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(prompt_tokens(tokenizer, prompt)) == alone


@pytest.mark.parametrize("date", ["26 Jul 2024", "2024-02-30", "", 20240726])
def test_a_date_that_is_none_is_refused(tokenizer: Any, date: Any) -> None:
    with pytest.raises(ValueError, match=f"date={date!r} is no day of the calendar; pass one as '2024-07-26'"):
        prompt_tokens(tokenizer, messages(), date=date)


def test_a_template_without_system_message_gets_it_in_the_users() -> None:
    text = with_template(_tiny.GEMMA).decode(prompt_tokens(with_template(_tiny.GEMMA), messages()))
    assert text.startswith("<|begin|><|start|>user\n" + SYSTEM_PROMPT.strip() + "\n\n" + USER_PROMPT)
    assert text.endswith("<|end|>\n<|start|>model\n")


def test_a_template_that_drops_the_system_message_without_a_word_gets_it_in_the_users() -> None:
    deaf = _tiny.CHATML.replace("in messages %}", "in messages if m['role'] != 'system' %}")
    tokenizer = with_template(deaf)
    assert SYSTEM_PROMPT.strip() in tokenizer.decode(prompt_tokens(tokenizer, messages()))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template; take that of the model's instruct variant"),
        ("{{ 'hello' }}", "leaves out the prompt"),
        ("{{ raise_exception('not today') }}", r"leaves out the prompt \(not today\)"),
        (
            "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ raise_exception('users only') }}{% endif %}"
            "{{ m['content'] }}{% endfor %}",
            r"has no assistant role \(users only\)",
        ),
        (
            "{% for m in messages if m['role'] != 'assistant' %}{{ m['content'] }}{% endfor %}",
            r"has no assistant role \(it leaves out the answer\)",
        ),
        (_tiny.CHATML.replace("assistant\n{%", "assistant\n<think>{%"), "does not begin with its prompt"),
        ("{% for m in messages %}{{ m['content'] }}: {% endfor %}", "merges the end of the prompt with the beginning"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(template: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _tiny.biographies(with_template(template), TEXTS[:1], [0])


def test_without_a_token_for_the_end_it_is_the_tokenizers() -> None:
    template = "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}" + (
        "{% if add_generation_prompt %}assistant\n{% endif %}"
    )
    tokenizer = with_template(template)
    assert tokenizer.decode(_tiny.biographies(tokenizer, TEXTS[:1], [0]).tokens[0]).endswith("(1830-1894)\n<|end|>")


def test_long_texts_are_cut_and_counted_but_prompts_never(tokenizer: Any) -> None:
    whole = _tiny.biographies(tokenizer, TEXTS, GROUPS)
    prompt = len(prompt_tokens(tokenizer, messages()))
    limit = prompt + 12
    cut = _tiny.biographies(tokenizer, TEXTS, GROUPS, max_length=limit)
    assert cut.tokens == tuple(row[:limit] for row in whole.tokens)
    assert 0 < cut.n_truncated == sum(len(row) > limit for row in whole.tokens) < len(TEXTS)
    assert cut.prompt_lengths == whole.prompt_lengths == (prompt,) * len(TEXTS)
    assert _tiny.biographies(tokenizer, TEXTS, GROUPS, max_length=prompt + 1).n_truncated == len(TEXTS)
    with pytest.raises(
        ValueError, match=f"max_length={prompt} leaves no place for an answer after the prompt of {prompt}"
    ):
        _tiny.biographies(tokenizer, TEXTS, GROUPS, max_length=prompt)


def test_padding_is_told_from_the_end_of_an_answer_which_has_the_same_token(tokenizer: Any) -> None:
    rows = _tiny.biographies(tokenizer, TEXTS, GROUPS)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    batch = rows.collate([rows[i] for i in range(len(rows))])
    assert batch["groups"].tolist() == GROUPS
    for i, tokens in enumerate(rows.tokens):
        n = len(tokens)
        assert batch["input_ids"][i, :n].tolist() == list(tokens)
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (batch["input_ids"].shape[1] - n)
        assert batch["labels"][i, n - 1] == tokenizer.eos_token_id
        assert (batch["labels"][i, n:] == IGNORED).all()
        assert (batch["input_ids"][i, n:] == tokenizer.pad_token_id).all()
    assert (batch["attention_mask"] == 0).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": [], "answers": []}, "there are none"),
        ({"answers": ["a poet", "  \n"]}, "row 1 is empty"),
        ({"groups": [0]}, r"groups has shape \(1,\), expected one per answer, \(2,\)"),
        ({"groups": [0, -1]}, "smallest value -1"),
        ({"groups": [0.0, 1.0]}, "dtype torch.float32"),
        ({"prompts": [messages()]}, r"prompts has shape \(1,\)"),
        ({"max_length": 0}, "max_length=0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(tokenizer: Any, change: dict[str, Any], message: str) -> None:
    given = {"prompts": [messages()] * 2, "answers": ["a poet", "a king"], "groups": torch.tensor([0, 1]), **change}
    with pytest.raises(ValueError, match=message):
        tokenise(tokenizer, **given)
