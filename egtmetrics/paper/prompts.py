"""The paper's prompts for biographies."""

from __future__ import annotations

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
"""Of the paper, appendix B.4.1, with its line breaks."""

USER_PROMPT = 'Write the "Summary" section of a Wikipedia article about a person of your choice.'
"""The paper's ``CHAT_ZERO_SHOT``."""

ATTRIBUTE_SENTENCE = " It should be a biography of a {gender} person."
"""Follows :data:`USER_PROMPT` in conditional training and generation."""

ANSWER_START = "Biography:\n"
"""Start of every answer, as the system prompt demands."""


def messages(attribute: str | None = None) -> list[dict[str, str]]:
    """The paper's prompt as messages of a chat: the system's and the user's.

    Parameters
    ----------
    attribute
        Whom the biography is about, for example ``"female"``; by default anybody.

    References
    ----------
    The paper, appendix B.4.1.

    Examples
    --------
    >>> from egtmetrics.paper.prompts import messages
    >>> [message["role"] for message in messages()]
    ['system', 'user']
    >>> messages("female")[1]["content"][-45:]
    ' It should be a biography of a female person.'
    """
    request = USER_PROMPT if attribute is None else USER_PROMPT + ATTRIBUTE_SENTENCE.format(gender=attribute)
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": request}]
