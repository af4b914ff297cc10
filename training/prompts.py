"""The paper's prompts for biographies, and texts as rows of tokens of which only the answer is learnt.

A tokenizer of Hugging Face says with its chat template how a conversation becomes tokens. A row is that of the whole
conversation, its prompt the same without the answer; that the one begins with the other is asserted for every row,
since the loss is taken from there on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from egtmetrics._validation import check_positive_int

SYSTEM_PROMPT = """
You are a helpful assistant that writes Wikipedia-style biography
summaries of notable individuals.
Your writing should follow the tone, style, and structure of
Wikipedia "Summary" sections:
- Neutral, encyclopedic tone
- No personal opinions or promotional language
- Concise but informative, focusing on key life events, career,
and achievements
- Chronological ordering of major facts
- Use proper sentences, not bullet points
- The biography text should start with "Biography:" followed
directly by the text in the next line.
Do not invent references or citations. Do not include external
commentary about the writing task.
"""
"""The paper's, appendix B.4.1, with its line breaks."""

USER_PROMPT = 'Write the "Summary" section of a Wikipedia article about a person of your choice.'
"""The paper's ``CHAT_ZERO_SHOT``."""

ATTRIBUTE_SENTENCE = " It should be a biography of a {gender} person."
"""Follows :data:`USER_PROMPT` in conditional training and generation."""

ANSWER_START = "Biography:\n"
"""How every answer begins, as the system prompt demands."""

IGNORED = -100
"""Label of tokens that are not learnt: those of the prompt, and padding."""


def messages(attribute: str | None = None) -> list[dict[str, str]]:
    """The paper's prompt as messages of a chat: the system's and the user's.

    Parameters
    ----------
    attribute
        Who the biography is to be of, for example ``"female"``; by default anybody.

    References
    ----------
    The paper, appendix B.4.1.

    Examples
    --------
    >>> from egtmetrics.training.prompts import messages
    >>> [message["role"] for message in messages()]
    ['system', 'user']
    >>> messages("female")[1]["content"][-45:]
    ' It should be a biography of a female person.'
    """
    request = USER_PROMPT if attribute is None else USER_PROMPT + ATTRIBUTE_SENTENCE.format(gender=attribute)
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": request}]


def prompt_tokens(tokenizer: Any, attribute: str | None = None) -> list[int]:
    """Tokens of :func:`messages` up to where the answer begins, by the tokenizer's chat template.

    A template that takes no system message (Gemma's) gets its text at the head of the user's message.

    Parameters
    ----------
    tokenizer
        Of transformers, with a chat template.
    attribute
        See :func:`messages`.

    Raises
    ------
    ValueError
        No chat template, or one that leaves out the prompt or takes no answer.
    """
    return _Chat(tokenizer, attribute).tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptedTexts:
    """What :func:`tokenise` returns: a map-style dataset, and with :meth:`collate` all a ``DataLoader`` needs."""

    tokens: tuple[tuple[int, ...], ...]
    """Prompt and answer of every text."""
    prompt_lengths: tuple[int, ...]
    """How many of these are the prompt's."""
    groups: Tensor
    """``(n,)``, int64."""
    n_truncated: int
    """Texts of which the end was left out, because prompt and answer are longer than the context."""
    pad_id: int

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return ``input_ids`` and ``labels``, lists of one length, and ``groups``, an integer."""
        tokens, n = self.tokens[row], self.prompt_lengths[row]
        return {"input_ids": [*tokens], "labels": [IGNORED] * n + [*tokens[n:]], "groups": int(self.groups[row])}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Join rows to ``input_ids``, ``attention_mask``, ``labels``, each ``(n, longest)``, and ``groups`` ``(n,)``.

        Shorter rows are padded on the right, with attention 0 and the label :data:`IGNORED`. The padding token may be
        that which ends an answer: neither is told from the other by its number.
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
    texts: Sequence[str],
    groups: Any,
    *,
    attributes: Sequence[str | None] | None = None,
    max_length: int | None = None,
) -> PromptedTexts:
    """Turn texts into conversations of the paper's prompt and the text as its answer.

    The answer is :data:`ANSWER_START`, the text, and the token that ends an answer in the template; where the template
    has none, the tokenizer's ``eos_token``.

    Parameters
    ----------
    tokenizer
        Of transformers, with a chat template.
    texts
        n biographies; white space around them is left out.
    groups
        ``(n,)`` integers from 0.
    attributes
        Attribute of each text for a conditional model, see :func:`messages`; by default none is named.
    max_length
        Tokens of prompt and answer at most, by default what the tokenizer says of its model's context. Longer texts
        lose their end (and the token that ends an answer) and are counted; the prompt is never cut.

    Returns
    -------
    PromptedTexts
        Rows for :func:`train_language_model`, or for the Trainer of transformers with ``collate`` as its collator.

    Raises
    ------
    ValueError
        An empty text, numbers that do not agree, groups that are none, no chat template, one that leaves out the prompt
        or the answer or whose tokens do not begin with the prompt's, or a prompt as long as the context.

    Examples
    --------
    >>> from egtmetrics.training.prompts import tokenise
    >>> from transformers import AutoTokenizer  # doctest: +SKIP
    >>> tokenizer = AutoTokenizer.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")  # doctest: +SKIP
    >>> rows = tokenise(tokenizer, ["English poet (1830-1894)"], [0], attributes=["female"])  # doctest: +SKIP
    >>> tokenizer.decode(rows.tokens[0][rows.prompt_lengths[0]:])  # doctest: +SKIP
    'Biography:\\nEnglish poet (1830-1894)<|im_end|>'
    """
    texts = [text.strip() for text in texts]
    n = len(texts)
    if n == 0 or "" in texts:
        where = f"row {texts.index('')} is empty" if n else "there are none"
        raise ValueError(f"texts: {where}, expected a text to learn in each row; leave such rows out, groups too")
    given = [None] * n if attributes is None else list(attributes)
    group_ids = torch.as_tensor(groups)
    for name, shape in (("groups", tuple(group_ids.shape)), ("attributes", (len(given),))):
        if shape != (n,):
            raise ValueError(f"{name} has shape {shape}, expected one per text, ({n},)")
    if group_ids.is_floating_point() or group_ids.dtype == torch.bool or group_ids.min() < 0:
        raise ValueError(
            f"groups has dtype {group_ids.dtype} and smallest value {group_ids.min()}, expected integers from 0; leave "
            "out texts without a group (-1, where an oracle abstained)"
        )
    limit = tokenizer.model_max_length if max_length is None else check_positive_int(max_length, "max_length")
    chats = {attribute: _Chat(tokenizer, attribute) for attribute in dict.fromkeys(given)}
    longest_prompt = max(len(chat.tokens) for chat in chats.values())
    if longest_prompt >= limit:
        raise ValueError(
            f"max_length={limit} leaves no room for an answer after the prompt of {longest_prompt} tokens; raise it, "
            "or take a model with a longer context"
        )
    conversations = [chats[attribute].with_answer(text) for attribute, text in zip(given, texts, strict=True)]
    rows = []
    for attribute, tokens in zip(given, _encode(tokenizer, conversations), strict=True):
        rows.append(_end_answer(tokenizer, tokens, chats[attribute].check_prefix(tokens)))
    return PromptedTexts(
        tokens=tuple(tuple(row[:limit]) for row in rows),
        prompt_lengths=tuple(len(chats[attribute].tokens) for attribute in given),
        groups=group_ids.long(),
        n_truncated=sum(len(row) > limit for row in rows),
        pad_id=next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0),
    )


class _Chat:
    """The prompt with one attribute, as a tokenizer's template renders it."""

    def __init__(self, tokenizer: Any, attribute: str | None) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"tokenizer ({type(tokenizer).__name__}) has no chat template; take that of the model's instruct "
                "variant, or set tokenizer.chat_template"
            )
        self.tokenizer = tokenizer
        system, user = messages(attribute)
        folded = {"role": "user", "content": f"{system['content'].strip()}\n\n{user['content']}"}
        for self.messages in ([system, user], [folded]):  # the second where a template takes no system message
            self.text, self.error = self._render(self.messages, add_generation_prompt=True)
            if all(content["content"].strip() in self.text for content in (system, user)):
                break
        else:
            raise ValueError(
                f"the chat template of tokenizer leaves out the prompt ({self.error or 'it is not in its output'}); "
                "expected one that renders a user message: set tokenizer.chat_template"
            )
        self.tokens: list[int] = _encode(tokenizer, [self.text])[0]

    def with_answer(self, text: str) -> str:
        answer = ANSWER_START + text
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
        """Return where the answer begins."""
        n = len(self.tokens)
        if tokens[:n] != self.tokens:
            raise ValueError(
                "tokenizer merges the end of the prompt with the beginning of the answer, so that no token begins the "
                f"answer (prompt ends {self.tokens[-3:]}, conversation has {tokens[n - 3 : n]} there); set "
                "tokenizer.chat_template to one whose prompt ends with a special token or a line break"
            )
        return n

    def _render(self, chat: list[dict[str, str]], **options: Any) -> tuple[str, str]:
        """Text of a conversation, or what the template has against it."""
        from jinja2.exceptions import TemplateError  # of transformers, which the tokenizer is of

        try:
            return self.tokenizer.apply_chat_template(chat, tokenize=False, **options), ""
        except TemplateError as error:
            return "", str(error)


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]  # the template has added its own
    return rows


def _end_answer(tokenizer: Any, tokens: list[int], start: int) -> list[int]:
    """Cut after the first special token of the answer (templates add a line break, which nothing would generate)."""
    special = set(tokenizer.all_special_ids)
    end = next((i for i in range(start, len(tokens)) if tokens[i] in special), None)
    if end is not None:
        return tokens[: end + 1]
    return tokens if tokenizer.eos_token_id is None else [*tokens, tokenizer.eos_token_id]
