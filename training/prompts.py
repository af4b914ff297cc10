"""Chat conversations as rows of tokens of which only the answer is learnt.

The chat template of a Hugging Face tokenizer turns a conversation into tokens. A row holds a whole conversation, prompt
and answer. The loss counts the tokens after the prompt, so every row is checked to begin with the prompt's tokens.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from egtmetrics._validation import check_positive_int

Messages = Sequence[Mapping[str, str]]
"""A prompt: messages of a chat, each with ``role`` and ``content``, up to where the answer begins."""

IGNORED = -100
"""Label of tokens that are not learnt: those of the prompt, and padding."""


DATE = "2024-07-26"
"""The day for templates that write today's date into a prompt, so that prompts of two days agree. It is the one that
LLaMA's template falls back to."""


def prompt_tokens(tokenizer: Any, messages: Messages, *, date: str = DATE) -> list[int]:
    """Return the tokens of a prompt up to where the answer begins, by the tokenizer's chat template.

    If the template takes no system message (Gemma's), its text is put before that of the next message.

    Parameters
    ----------
    tokenizer
        Of transformers, with a chat template.
    messages
        The prompt.
    date
        ``"YYYY-MM-DD"``: what a template gets that asks for today's date, by ``strftime_now`` or ``date_string``.

    Raises
    ------
    ValueError
        No chat template, or one that leaves out the prompt; a date that is none.

    Examples
    --------
    >>> from egtmetrics.training.prompts import prompt_tokens
    >>> prompt_tokens(tokenizer, [{"role": "user", "content": "Write a biography."}])  # doctest: +SKIP
    """
    return _Chat(tokenizer, messages, date).tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptedTexts:
    """What :func:`tokenise` returns: a map-style dataset, with :meth:`collate` for a ``DataLoader``."""

    tokens: tuple[tuple[int, ...], ...]
    """Prompt and answer of every text."""
    prompt_lengths: tuple[int, ...]
    """How many of these are the prompt's."""
    groups: Tensor
    """``(n,)``, int64."""
    n_truncated: int
    """Texts that were cut, because prompt and answer are longer than the context."""
    pad_id: int
    date: str
    """Today's date in the prompts, if the template asks for it."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return ``input_ids`` and ``labels``, lists of one length, and ``groups``, an integer."""
        tokens, n = self.tokens[row], self.prompt_lengths[row]
        return {"input_ids": [*tokens], "labels": [IGNORED] * n + [*tokens[n:]], "groups": int(self.groups[row])}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Join rows to ``input_ids``, ``attention_mask``, ``labels``, each ``(n, longest)``, and ``groups`` ``(n,)``.

        Shorter rows are padded on the right, with attention 0 and the label :data:`IGNORED`. The padding token may be
        the token that ends an answer: attention and labels distinguish them.
        """
        longest = max(len(row["input_ids"]) for row in rows)

        def pad(values: Sequence[int], filler: int) -> list[int]:
            return [*values, *[filler] * (longest - len(values))]

        return {
            "input_ids": torch.tensor([pad(row["input_ids"], self.pad_id) for row in rows]),
            "attention_mask": torch.tensor([pad([1] * len(row["input_ids"]), 0) for row in rows]),
            "labels": torch.tensor([pad(row["labels"], IGNORED) for row in rows]),
            "groups": torch.tensor([row["groups"] for row in rows]),
        }


def tokenise(
    tokenizer: Any,
    prompts: Sequence[Messages],
    answers: Sequence[str],
    groups: Any,
    *,
    max_length: int | None = None,
    date: str = DATE,
) -> PromptedTexts:
    """Turn prompts and answers into rows of tokens.

    An answer ends with the token that ends one in the template; where the template has none, with the tokenizer's
    ``eos_token``.

    Parameters
    ----------
    tokenizer
        Of transformers, with a chat template.
    prompts
        n prompts.
    answers
        n texts to learn; white space around them is removed.
    groups
        ``(n,)`` integers from 0.
    max_length
        Most tokens of prompt and answer together; by default the tokenizer's ``model_max_length``. Longer answers are
        cut, including the token that ends an answer, and counted; the prompt is never cut.
    date
        See :func:`prompt_tokens`; pass the same one there.

    Returns
    -------
    PromptedTexts
        Rows for :func:`train_language_model`, or for the Trainer of transformers with ``collate`` as its collator.

    Raises
    ------
    ValueError
        An empty answer, lengths that differ, groups that are not integers from 0, no chat template, one that leaves out
        the prompt or the answer or whose tokens do not begin with the prompt's, a prompt as long as the context, or a
        date that is none.

    Examples
    --------
    >>> from egtmetrics.training.prompts import tokenise
    >>> from transformers import AutoTokenizer  # doctest: +SKIP
    >>> tokenizer = AutoTokenizer.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")  # doctest: +SKIP
    >>> prompt = [{"role": "user", "content": "Write a biography."}]
    >>> rows = tokenise(tokenizer, [prompt], ["English poet (1830-1894)"], [0])  # doctest: +SKIP
    >>> tokenizer.decode(rows.tokens[0][rows.prompt_lengths[0]:])  # doctest: +SKIP
    'English poet (1830-1894)<|im_end|>'
    """
    answers = [answer.strip() for answer in answers]
    n = len(answers)
    if n == 0 or "" in answers:
        where = f"row {answers.index('')} is empty" if n else "there are none"
        raise ValueError(f"answers: {where}, expected a text to learn in each row; leave such rows out, groups too")
    group_ids = torch.as_tensor(groups)
    for name, shape in (("groups", tuple(group_ids.shape)), ("prompts", (len(prompts),))):
        if shape != (n,):
            raise ValueError(f"{name} has shape {shape}, expected one per answer, ({n},)")
    if group_ids.is_floating_point() or group_ids.dtype == torch.bool or group_ids.min() < 0:
        raise ValueError(
            f"groups has dtype {group_ids.dtype} and smallest value {group_ids.min()}, expected integers from 0; leave "
            "out answers without a group"
        )
    limit = tokenizer.model_max_length if max_length is None else check_positive_int(max_length, "max_length")
    keys = [tuple((message["role"], message["content"]) for message in prompt) for prompt in prompts]
    chats = {key: _Chat(tokenizer, prompt, date) for key, prompt in dict(zip(keys, prompts, strict=True)).items()}
    longest_prompt = max(len(chat.tokens) for chat in chats.values())
    if longest_prompt >= limit:
        raise ValueError(
            f"max_length={limit} leaves no place for an answer after the prompt of {longest_prompt} tokens; raise it, "
            "or take a model with a longer context"
        )
    conversations = [chats[key].with_answer(answer) for key, answer in zip(keys, answers, strict=True)]
    rows = []
    for key, tokens in zip(keys, _encode(tokenizer, conversations), strict=True):
        rows.append(_end_answer(tokenizer, tokens, chats[key].check_prefix(tokens)))
    return PromptedTexts(
        tokens=tuple(tuple(row[:limit]) for row in rows),
        prompt_lengths=tuple(len(chats[key].tokens) for key in keys),
        groups=group_ids.long(),
        n_truncated=sum(len(row) > limit for row in rows),
        pad_id=next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0),
        date=date,
    )


class _Chat:
    """A prompt as a tokenizer's template renders it."""

    def __init__(self, tokenizer: Any, messages: Messages, date: str) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"tokenizer ({type(tokenizer).__name__}) has no chat template; take that of the model's instruct "
                "variant, or set tokenizer.chat_template"
            )
        day = check_date(date)
        self.tokenizer, self.template = tokenizer, _with_clock(tokenizer.get_chat_template(), day)
        self.date_string = day.strftime("%d %b %Y")  # as LLaMA's template writes it
        for self.messages in (messages, _without_system_role(messages)):
            self.text, self.error = self._render(self.messages, add_generation_prompt=True)
            if all(message["content"].strip() in self.text for message in messages):
                break
        else:
            raise ValueError(
                f"the chat template of tokenizer leaves out the prompt ({self.error or 'it is not in its output'}); "
                "expected one that renders a user message: set tokenizer.chat_template"
            )
        self.tokens: list[int] = _encode(tokenizer, [self.text])[0]

    def with_answer(self, answer: str) -> str:
        rendered, error = self._render([*self.messages, {"role": "assistant", "content": answer}])
        if answer not in rendered:
            raise ValueError(
                f"the chat template of tokenizer has no assistant role ({error or 'it leaves out the answer'}); "
                "expected one that renders an answer: set tokenizer.chat_template"
            )
        if not rendered.startswith(self.text + answer):
            raise ValueError(
                "the chat template of tokenizer renders a conversation that does not begin with its prompt "
                f"({rendered[: len(self.text)][-60:]!r} where the prompt ends with {self.text[-60:]!r}), so it is not "
                "known where the answer begins; set tokenizer.chat_template to one that does"
            )
        return rendered

    def check_prefix(self, tokens: list[int]) -> int:
        """Return the position where the answer begins."""
        n = len(self.tokens)
        if tokens[:n] != self.tokens:
            raise ValueError(
                "tokenizer merges the end of the prompt with the beginning of the answer, so that no token begins the "
                f"answer (prompt ends {self.tokens[-3:]}, conversation has {tokens[n - 3 : n]} there); set "
                "tokenizer.chat_template to one whose prompt ends with a special token or a line break"
            )
        return n

    def _render(self, chat: Messages, **options: Any) -> tuple[str, str]:
        """Return the text of a conversation, or the template's reason to refuse it."""
        from jinja2.exceptions import TemplateError  # transformers, which the tokenizer comes from, needs jinja2

        try:
            return self.tokenizer.apply_chat_template(
                chat, chat_template=self.template, tokenize=False, date_string=self.date_string, **options
            ), ""
        except TemplateError as error:
            return "", str(error)


def check_date(date: str) -> datetime.date:
    """Return the day that a prompt is to tell."""
    try:
        return datetime.date.fromisoformat(date)
    except (TypeError, ValueError) as error:
        raise ValueError(f"date={date!r} is no day of the calendar; pass one as {DATE!r}") from error


def _with_clock(template: str, day: datetime.date) -> str:
    """Give a template a ``strftime_now`` that tells the beginning of a day, in place of the one that tells the time.

    It stands in the template, since transformers passes on data and no functions.
    """
    codes = [f"%{flag}{letter}" for flag in ("", "-") for letter in "aAbBcCdDeFgGhHIjklmMpPrRSTuUVwWxXyYzZ"]
    told = {"%%": "\0", **{code: day.strftime(code) for code in codes}, "\0": "%"}
    return (
        "{% macro strftime_now(format) %}{% set told = namespace(text=format) %}"
        f"{{% for code, value in {told}.items() %}}"
        "{% set told.text = told.text.replace(code, value) %}{% endfor %}{{ told.text }}{% endmacro %}\n"
        f"{template}"
    )


def _without_system_role(messages: Messages) -> Messages:
    """Put the text of a system message before that of the next message."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content'].strip()}\n\n{first['content']}"}, *rest]


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]  # the template has added them
    return rows


def _end_answer(tokenizer: Any, tokens: list[int], start: int) -> list[int]:
    """Cut after the first special token of the answer; what a template adds there, a model would never generate."""
    special = set(tokenizer.all_special_ids)
    end = next((i for i in range(start, len(tokens)) if tokens[i] in special), None)
    if end is not None:
        return tokens[: end + 1]
    return tokens if tokenizer.eos_token_id is None else [*tokens, tokenizer.eos_token_id]
