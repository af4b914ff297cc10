"""Self-BLEU: values by hand, and the definition text by text."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics.metrics import self_bleu


def test_values_by_hand() -> None:
    """a b c d: of 4 tokens all are in another text; of 3 pairs "a b" and "c d"; of 2 triples and 1 quadruple none,
    which count 0.1. b is 4. The second text has 2 tokens and 1 pair, all in the first; the nearest other length is 3.
    """
    found = self_bleu(["a b c d", "a b", "c d x", "c d x y"]).ravel()
    triples, quadruple = 0.1 / 2.0, 0.1 / 1.0
    assert found[0] == pytest.approx((1.0 * 2.0 / 3.0 * triples * quadruple) ** 0.25)
    # A text of two tokens has no triples: 0.1 of one.
    assert found[1] == pytest.approx(math.exp(1.0 - 3.0 / 2.0) * (1.0 * 1.0 * 0.1 * 0.1) ** 0.25)
    assert found[2] == pytest.approx((1.0 * 1.0 * 1.0 * 0.1) ** 0.25)
    assert found[3] == pytest.approx((3.0 / 4.0 * 2.0 / 3.0 * 1.0 / 2.0 * 0.1) ** 0.25)


def bleu(text: list[str], others: list[list[str]], max_order: int) -> float:
    """By definition."""
    logs = 0.0
    for order in range(1, max_order + 1):
        own, *counts = (
            Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1)) for tokens in [text, *others]
        )
        matches = sum(min(count, max(one[ngram] for one in counts)) for ngram, count in own.items())
        if matches == 0 and order == 1:
            return 0.0
        logs += math.log((matches or 0.1) / max(1, sum(own.values()))) / max_order
    nearest = min((len(other) for other in others), key=lambda length: (abs(length - len(text)), length))
    return math.exp(logs) * min(1.0, math.exp(1.0 - nearest / len(text)))


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), min_size=2, max_size=6),
    st.integers(1, 4),
)
def test_it_is_its_definition(rows: list[list[str]], max_order: int) -> None:
    expected = [bleu(row, rows[:i] + rows[i + 1 :], max_order) for i, row in enumerate(rows)]
    found = self_bleu([" ".join(row) for row in rows], max_order=max_order)
    assert found.shape == (len(rows), 1)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)


def test_texts_are_compared_within_their_group() -> None:
    texts = ["a b c d", "a b c d", "a b c d e", "x y z w", "a b c d"]
    found = self_bleu(texts, groups=["f", "f", "m", "m", None])
    np.testing.assert_array_equal(found[:2], self_bleu(texts[:2]))
    np.testing.assert_array_equal(found[2:4], self_bleu(texts[2:4]))
    assert found[0] == 1.0
    assert found[2] == 0.0
    assert math.isnan(found[4, 0])


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a"], {}, "texts has 1 text, and each is compared with others"),
        (["a", "b", "c"], {"groups": ["f", "f", "m"]}, "group 'm' of texts has 1 text"),
        (["a", " "], {}, r"texts\[1\] is empty"),
        (["a", "b"], {"groups": ["f"]}, "groups has 1 labels for 2 texts"),
        (["a", "b"], {"max_order": 0}, "max_order"),
    ],
)
def test_what_is_refused(texts: list[str], options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        self_bleu(texts, **options)
