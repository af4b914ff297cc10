"""Self-BLEU: how much each text repeats the others."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import TooFewSamplesError
from egtmetrics._validation import check_positive_int, check_texts

Tokens: TypeAlias = Sequence[str]

_FOR_NONE = 0.1
"""Matches counted where there are none, for n-grams longer than one token: method 1 of Chen and Cherry."""


def self_bleu(texts: Any, *, groups: Any = None, max_order: int = 4) -> NDArray[np.float64]:
    r"""BLEU of each text against all others, ``(n, 1)``: a number for each sample, 1 where it repeats another one.

    With c_j(w) how often the n-gram w is in text j, and b the length of the other text whose length is nearest to
    :math:`l_j` (the shorter one of two):

    .. math::

        \text{BLEU}_j = \min(1, e^{1 - b / l_j}) \prod_{n=1}^{N} p_{jn}^{1/N}, \qquad
        p_{jn} = \frac{\sum_w \min(c_j(w), \max_{i \ne j} c_i(w))}{\sum_w c_j(w)}.

    Where no n-gram of an order n > 1 is in another text, 0.1 takes the place of the count 0; where no token is, BLEU is
    0. The self-BLEU of Zhu et al. is the mean over all texts. Lower is more varied.

    Parameters
    ----------
    texts
        ``n`` texts, split at white space. Case counts; take off what should not, such as punctuation, beforehand.
    groups
        Labels ``(n,)``: a text is compared with those of its own group. None for one group. A text without a label
        (None) is NaN.
    max_order
        N, the longest n-grams.

    Raises
    ------
    TypeError, ValueError
        Something that is no text, an empty one, labels of another number, or a group with a single text.

    Notes
    -----
    Pass the result to the metric ``numbers`` in the place of features: its mean by group is the self-BLEU. **Intervals
    and tests do not hold then**: they take the numbers for independent, but every number depends on all texts of its
    group. The mean also grows with the number of texts, since more of them hold an n-gram; compare groups of equal size
    only, and take them before this is called.

    Exact, with two passes over all n-grams. Time and memory O(number of tokens times N).

    References
    ----------
    Zhu, Lu, Zheng, Guo, Zhang, Wang, Yu: Texygen, SIGIR 2018 (self-BLEU). Papineni, Roukos, Ward, Zhu: BLEU, ACL 2002.
    Chen, Cherry: A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU, WMT 2014.

    Examples
    --------
    The first two texts share "the cat", the third has nothing in common with them:

    >>> texts = ["the cat sat", "the cat ran", "a dog barked"]
    >>> self_bleu(texts, max_order=2).round(4).ravel().tolist()
    [0.5774, 0.5774, 0.0]

    By group:

    >>> from egtmetrics import GenerativeMetricFrame
    >>> groups = ["f", "f", "m", "m"]
    >>> real = ["she wrote books", "she led a team", "he wrote books", "he led a team"]
    >>> fake = ["she wrote books", "she wrote books", "he wrote books", "he led a team"]
    >>> frame = GenerativeMetricFrame(
    ...     metrics="numbers", real_sensitive_features=groups, fake_sensitive_features=groups,
    ...     real=self_bleu(real, groups=groups, max_order=2), fake=self_bleu(fake, groups=groups, max_order=2))
    >>> frame.by_group["numbers_mean"].round(2).tolist()
    [1.0, 0.09]
    """
    max_order = check_positive_int(max_order, "max_order")
    rows = [text.split() for text in check_texts(texts, "texts")]
    empty = next((i for i, tokens in enumerate(rows) if not tokens), None)
    if empty is not None:
        raise ValueError(f"texts[{empty}] is empty; leave it out, with its group, and count it")
    found = np.full((len(rows), 1), math.nan)
    for label, members in _members(groups, len(rows)).items():
        if len(members) < 2:
            where = "" if label is None else f"group {label!r} of "
            raise TooFewSamplesError(f"{where}texts has 1 text, and each is compared with others; add texts", needed=2)
        found[members, 0] = _bleus([rows[i] for i in members], max_order)
    return found


def _members(groups: Any, n: int) -> dict[Hashable, list[int]]:
    """Return the places of the texts of every group; None stands for all where there are no groups."""
    if groups is None:
        return {None: list(range(n))}
    from egtmetrics.labels import label_columns

    _, (labels,) = label_columns(groups, "groups")
    if len(labels) != n:
        raise ValueError(f"groups has {len(labels)} labels for {n} texts; pass one of each")
    members: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels.tolist()):
        if label is not None:
            members.setdefault(label, []).append(i)
    return members


def _bleus(rows: Sequence[Tokens], max_order: int) -> list[float]:
    logs = np.zeros(len(rows))
    for order in range(1, max_order + 1):
        counts = [Counter(zip(*(tokens[start:] for start in range(order)), strict=False)) for tokens in rows]
        most: dict[tuple[str, ...], tuple[int, int, int]] = {}  # the largest count, its text, and the next largest
        for i, own in enumerate(counts):
            for ngram, count in own.items():
                first, where, second = most.get(ngram, (0, -1, 0))
                most[ngram] = (count, i, first) if count > first else (first, where, max(second, count))
        for i, own in enumerate(counts):
            matches = 0
            for ngram, count in own.items():
                first, where, second = most[ngram]
                matches += min(count, second if where == i else first)
            if matches == 0 and order == 1:
                logs[i] = -math.inf
            else:
                logs[i] += math.log((matches or _FOR_NONE) / max(1, own.total())) / max_order
    lengths = sorted(map(len, rows))
    return [
        math.exp(log + min(0.0, 1.0 - _nearest(lengths, len(tokens)) / len(tokens)))
        for log, tokens in zip(logs.tolist(), rows, strict=True)
    ]


def _nearest(lengths: Sequence[int], own: int) -> int:
    """Return the length nearest to a text's own among those of the others; of two the shorter one."""
    place = bisect.bisect_left(lengths, own)
    if place + 1 < len(lengths) and lengths[place + 1] == own:
        return own
    others = [lengths[i] for i in (place - 1, place + 1) if 0 <= i < len(lengths)]
    return min(others, key=lambda length: (abs(length - own), length))
