"""What an oracle is and what is known of its error, labels that are known, and the step from names to indices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._validation import check_number
from egtmetrics.confusion import Confusion


class OracleErrorWarning(UserWarning):
    """More of what an oracle calls a group is not of it than its user allows."""


class GroupOracle(Protocol):
    """psi: samples -> names of groups ``(n,)``, each one of ``group_names``, or None where the oracle abstains.

    Every oracle of this package is an :class:`Oracle`, which has all of this.
    """

    @property
    def group_names(self) -> Sequence[str]:
        """Names of the groups it tells apart."""

    def warning_of(self, called: Any, /) -> str | None:
        """Say what users of ``called`` labels, or of so many by group, must know about their error; None if nothing."""

    def __call__(self, samples: Any, /) -> Sequence[str | None] | NDArray[np.object_]:
        """Label samples."""


class Oracle(ABC):
    """Base of the oracles: what is known of their error.

    Attributes
    ----------
    group_names
        Names of the groups it tells apart.
    confusion
        What it calls samples of each true group; None if that was not measured. See :meth:`measure_error`.
    max_contamination
        The largest share of a called group that may be of another one without a warning.
    """

    group_names: tuple[str, ...]
    confusion: Confusion | None = None
    max_contamination: float = 0.05

    @abstractmethod
    def __call__(self, samples: Any, /) -> NDArray[np.object_]:
        """Label samples: names of groups, None where the oracle abstains."""

    def measure_error(self, samples: Any, labels: Any) -> Confusion:
        """Call samples whose groups are known, and keep and return the confusion.

        Parameters
        ----------
        samples
            As for a call; like those that the oracle is for, best a random part of the generated ones.
        labels
            The true group of each, from a column or by hand; samples without one (None) are left out.

        Raises
        ------
        ValueError
            Labels that are no group, or of another number.

        Examples
        --------
        >>> from egtmetrics.oracles import PronounOracle
        >>> oracle = PronounOracle()
        >>> confusion = oracle.measure_error(["She wrote.", "He met her.", "He wrote."], ["female", "male", "male"])
        >>> confusion.counts.to_numpy().tolist()
        [[1, 0, 0], [0, 1, 1]]
        """
        called = self(samples)
        true = names_of(group_indices(labels, self.group_names, n=len(called), name="labels"), self.group_names)
        self.confusion = Confusion.of_labels(true, called, group_names=self.group_names)
        return self.confusion

    @property
    def warning(self) -> str | None:
        """What users must know, for groups in the proportions of the samples on which the error was measured."""
        return self.warning_of(None)

    def warning_of(self, called: Any, /) -> str | None:
        """Name the called groups of which too much is of another one, with the proportions of ``called`` labels.

        None if there are none or the error was not measured.
        """
        if self.confusion is None:
            return None
        return self.confusion.warning(called, max_contamination=self.max_contamination)


class ProbabilityOracle(Oracle):
    """Base of the oracles that have a probability of every group; they take the most probable one.

    Parameters
    ----------
    group_names
        Names of the groups.
    min_confidence
        Abstain where the largest probability is below this, where two groups have it, and where it is more probable
        that the sample is in no group.
    max_contamination
        See :class:`Oracle`.
    """

    def __init__(
        self, group_names: Sequence[str], *, min_confidence: float = 0.0, max_contamination: float = 0.05
    ) -> None:
        self.group_names = check_group_names(group_names)
        self.min_confidence = check_number(min_confidence, "min_confidence", minimum=0.0, below=1.0)
        self.max_contamination = check_number(max_contamination, "max_contamination", minimum=0.0)

    @abstractmethod
    def probabilities(self, samples: Any, /) -> NDArray[np.float64]:
        """Return the probability of every group, ``(n, G)``; what a row lacks of 1 is that of no group."""

    def __call__(self, samples: Any, /) -> NDArray[np.object_]:
        return names_of(self._decide(self.probabilities(samples)), self.group_names)

    def _decide(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the index of the most probable group, or -1 where it is not probable enough, or not the only one."""
        ordered = np.sort(probabilities, axis=1)
        others = np.maximum(ordered[:, -2], 1.0 - probabilities.sum(axis=1) - 1e-9)
        sure = (ordered[:, -1] >= self.min_confidence) & (ordered[:, -1] > others)
        return np.where(sure, probabilities.argmax(axis=1), -1)


class LabelOracle(Oracle):
    """Groups that are known: read from the samples instead of predicted.

    Parameters
    ----------
    group_names
        Names of the groups.
    read
        Function from samples to names ``(n,)``, None where there is none. By default the samples are the names
        themselves.

    Raises
    ------
    ValueError
        Names that are not different texts; from a call: a name that is not one of them.

    Examples
    --------
    Biographies by their pronoun, if they have one:

    >>> from egtmetrics.oracles import LabelOracle
    >>> def read(texts):
    ...     return ["female" if "she " in text else "male" if "he " in text else None for text in texts]
    >>> oracle = LabelOracle(["female", "male"], read)
    >>> oracle(["she wrote", "he wrote", "wrote"])
    array(['female', 'male', None], dtype=object)
    """

    def __init__(self, group_names: Sequence[str], read: Callable[[Any], Any] = lambda samples: samples) -> None:
        self.group_names = check_group_names(group_names)
        self.read = read

    def __call__(self, samples: Any, /) -> NDArray[np.object_]:
        return names_of(group_indices(self.read(samples), self.group_names), self.group_names)


def group_indices(
    groups: Any, group_names: Sequence[str], *, n: int | None = None, name: str = "the oracle's answer"
) -> NDArray[np.int64]:
    """Return the index of every sample's group in ``group_names``, ``(n,)``; -1 where it is missing.

    Raises
    ------
    ValueError
        ``groups`` (called ``name`` in the message) is not ``(n,)``, or holds something that is not in ``group_names``.

    Examples
    --------
    >>> group_indices(["male", None, "female"], ["female", "male"])
    array([ 1, -1,  0])
    """
    from egtmetrics.labels import label_columns  # which needs pandas

    _, columns = label_columns(groups, name, known=group_names)
    array = columns[0].astype(object)
    if len(columns) > 1 or array.ndim != 1 or (n is not None and len(array) != n):
        expected = f"({'n' if n is None else n},)"
        raise ValueError(
            f"{name} has shape {np.shape(groups)}, expected one name per sample, {expected}; give the name of each "
            "sample's group, or None"
        )
    index_of = {group: index for index, group in enumerate(group_names)}
    unknown = sorted({repr(group) for group in array if group is not None and group not in group_names})
    if unknown:
        expected = listed(map(repr, group_names)) or "names of groups"
        raise ValueError(
            f"{name} holds {listed(unknown)}, expected {expected}, or None for a sample in no group; correct it, or "
            "group_names"
        )
    return np.array([index_of.get(group, -1) for group in array], dtype=np.int64)


def names_of(indices: NDArray[np.int64], group_names: Sequence[str]) -> NDArray[np.object_]:
    """Return the names of groups with these indices; None for -1."""
    return np.array([*group_names, None], dtype=object)[indices]


def check_group_names(values: Any) -> tuple[str, ...]:
    """Return names of groups as a tuple; they must be different texts, one at least."""
    names = () if isinstance(values, str) else tuple(values)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(
            f"group_names holds {listed(map(repr, names)) or repr(values)}, expected different texts, one for each "
            "group, such as ['female', 'male']"
        )
    return tuple(map(str, names))
