"""Group oracles psi: which group a sample belongs to, with the right not to say, and a measured error."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from egtmetrics._validation import check_number, check_positive_int

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV

ABSTAINED = -1
"""What an oracle returns for a sample of which it cannot say the group."""


class OracleErrorWarning(UserWarning):
    """An oracle is wrong about a group more often than was asked for."""


class GroupOracle(Protocol):
    """psi: samples -> groups ``(n,)``, integers from 0 to ``n_groups - 1``, -1 where it abstains."""

    @property
    def n_groups(self) -> int:
        """Number of groups it tells apart."""

    @property
    def warning(self) -> str | None:
        """What a user of its labels has to know about their error; None if nothing. Passed on wherever it is used."""

    def __call__(self, samples: Any, /) -> NDArray[np.int64]:
        """Label samples."""


def call_oracle(oracle: GroupOracle, samples: Any, n: int) -> NDArray[np.int64]:
    """Return the oracle's ``(n,)`` checked labels."""
    labels = oracle(samples)
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu()
    array = np.asarray(labels)
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"oracle returned shape {array.shape} and dtype {array.dtype} for {n} samples, expected one integer each; "
            "return the group, or -1 to abstain"
        )
    if ((array < ABSTAINED) | (array >= oracle.n_groups)).any():
        raise ValueError(
            f"oracle returned labels from {array.min()} to {array.max()}, expected -1 (abstained) to "
            f"{oracle.n_groups - 1}; number the groups from 0, or correct its n_groups={oracle.n_groups}"
        )
    return array.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class LabelOracle:
    """Groups that are known: read off the samples instead of being predicted.

    Parameters
    ----------
    n_groups
        Number of groups.
    read
        Function from samples to labels ``(n,)``, -1 where there is none. By default the samples are the labels
        themselves.

    Examples
    --------
    Biographies by their pronoun, which some lack:

    >>> from egtmetrics.oracles import LabelOracle
    >>> oracle = LabelOracle(2, lambda texts: [0 if "she " in text else 1 if "he " in text else -1 for text in texts])
    >>> oracle(["she wrote", "he wrote", "wrote"])
    array([ 0,  1, -1])
    """

    n_groups: int
    read: Callable[[Any], Any] = lambda samples: samples

    def __post_init__(self) -> None:
        check_positive_int(self.n_groups, "n_groups")

    @property
    def warning(self) -> None:
        """Nothing is predicted, so there is no error to know."""
        return None

    def __call__(self, samples: Any, /) -> NDArray[np.int64]:
        labels = self.read(samples)
        return np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)


class ClassifierOracle:
    r"""A calibrated logistic regression on features, with its error measured by cross-validation, group by group.

    Of group a's samples among the folds' left-out ones, :attr:`error_by_group` is the share labelled as another group
    among those labelled at all, :attr:`abstention_by_group` the share not labelled:

    .. math:: e_a = P(\psi(x) \ne a \mid a, \psi(x) \ne -1), \quad P(\psi(x) = -1 \mid a).

    Parameters
    ----------
    features
        ``(n, d)`` finite numbers, of samples whose group is known.
    groups
        ``(n,)`` integers from 0; every group needs at least ``n_folds`` samples in each training fold, so
        ``n_folds * n_folds / (n_folds - 1)`` in all.
    encode
        What turns samples into features when the oracle is called; by default samples are features.
    min_confidence
        Abstain where the largest calibrated probability is below.
    clusters
        ``(n,)`` integers that near-duplicates share, for example all images of one person. Each then falls into one
        fold as a whole; else the error would be that of samples which the oracle has all but seen. By default every
        sample stands alone.
    max_error
        Level of ``error_by_group`` above which :attr:`warning` is set and OracleErrorWarning issued: here, and again
        wherever the oracle is used.
    n_folds
        Of the cross-validation, and of the calibration within each of its folds.
    random_state
        Seed of the division into folds.

    Raises
    ------
    ValueError
        Features, groups or clusters of wrong shapes or values, too few samples or clusters in a group, options out of
        range.

    Notes
    -----
    The error holds for samples like ``features``. On generated samples, which may lie off the data, it can be larger.

    References
    ----------
    The paper's oracle psi, appendix B.3.3, is a fine-tuned DINOv2 whose error is not given.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics.oracles import ClassifierOracle
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat([0, 1], 100)
    >>> oracle = ClassifierOracle(rng.normal(size=(200, 2)) + 6.0 * groups[:, None], groups)
    >>> oracle([[0.0, 0.0], [6.0, 6.0]]), oracle.error_by_group
    (array([0, 1]), array([0., 0.]))
    """

    def __init__(
        self,
        features: Any,
        groups: Any,
        *,
        encode: Callable[[Any], Any] | None = None,
        clusters: Any = None,
        min_confidence: float = 0.0,
        max_error: float = 0.05,
        n_folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.encode = encode
        self.min_confidence = check_number(min_confidence, "min_confidence", minimum=0.0, below=1.0)
        self.max_error = check_number(max_error, "max_error", minimum=0.0)
        n_folds = check_positive_int(n_folds, "n_folds", minimum=2)
        x, a = _to_features(features), _to_groups(groups)
        if len(x) != len(a):
            raise ValueError(f"groups has {len(a)} labels for {len(x)} rows of features; pass one per row")
        counts = np.bincount(a)
        needed = -(-n_folds * n_folds // (n_folds - 1))
        if len(counts) < 2 or counts.min() < needed:
            raise ValueError(
                f"groups has {counts.tolist()} samples in groups 0, 1, ..., expected two groups or more of at least "
                f"{needed} for n_folds={n_folds}; add samples, lower n_folds, or number the groups without gaps"
            )
        self.n_groups = len(counts)
        c = None if clusters is None else _to_clusters(clusters, len(a))
        probabilities = np.empty((len(x), self.n_groups))
        for train, test in _folds(a, c, n_folds, random_state):
            head = _fit(x[train], a[train], None if c is None else c[train], n_folds, random_state)
            probabilities[test] = head.predict_proba(x[test])
        held_out = self._decide(probabilities)
        table = np.zeros((self.n_groups, self.n_groups + 1), dtype=np.int64)
        np.add.at(table, (a, held_out), 1)
        self.confusion = table
        """Held-out samples by true group (rows) and label (columns); the last column counts abstentions."""
        labelled = table[:, :-1].sum(axis=1)
        with np.errstate(invalid="ignore"):
            self.error_by_group: NDArray[np.float64] = (labelled - table.diagonal()) / labelled
        """Share of wrong labels among a group's labelled samples; NaN where none was labelled."""
        self.abstention_by_group: NDArray[np.float64] = table[:, -1] / counts
        """Share of a group's samples that were not labelled."""
        self._head = _fit(x, a, c, n_folds, random_state)
        if self.warning is not None:
            warnings.warn(self.warning, OracleErrorWarning, stacklevel=2)

    @property
    def warning(self) -> str | None:
        """Says which groups have an error above ``max_error``, or none labelled at all; None if there are none."""
        bad = np.flatnonzero(~(self.error_by_group <= self.max_error))
        if not len(bad):
            return None
        listed = ", ".join(f"{self.error_by_group[a]:.1%} in group {a}" for a in bad)
        return (
            f"the oracle's cross-validated error is {listed}, above max_error={self.max_error:.1%}, so groups and "
            "their proportions are uncertain by as much; use better features, a larger min_confidence, or known labels"
        )

    def __call__(self, samples: Any, /) -> NDArray[np.int64]:
        features = samples if self.encode is None else self.encode(samples)
        return self._decide(self._head.predict_proba(_to_features(features)))

    def _decide(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        best = probabilities.argmax(axis=1)
        return np.where(probabilities.max(axis=1) >= self.min_confidence, best, ABSTAINED)


def _fit(
    x: NDArray[np.float64], a: NDArray[np.int64], clusters: NDArray[Any] | None, n_folds: int, random_state: int
) -> CalibratedClassifierCV:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = _folds(a, clusters, n_folds, random_state)
    return CalibratedClassifierCV(classifier, cv=folds, ensemble=False).fit(x, a)


def _folds(
    a: NDArray[np.int64], clusters: NDArray[Any] | None, n_folds: int, random_state: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to train on and to test with; none of a test's clusters is trained on."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if clusters is None else StratifiedGroupKFold
    try:
        folds = list(kind(n_folds, shuffle=True, random_state=random_state).split(a, a, clusters))
    except ValueError:  # fewer clusters than folds
        folds = []
    if not folds or any(len(test) == 0 or len(np.unique(a[train])) < len(np.unique(a)) for train, test in folds):
        raise ValueError(
            f"clusters are too few or too large to divide into n_folds={n_folds} folds with every group in each "
            "training part; lower n_folds, add samples, or leave clusters out"
        )
    return folds


def _to_features(values: Any) -> NDArray[np.float64]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().float()
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ValueError(f"features has shape {array.shape}, expected finite numbers (n, d); encode the samples first")
    return array


def _to_clusters(values: Any, n: int) -> NDArray[np.int64]:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"clusters has shape {array.shape} and dtype {array.dtype}, expected one integer per row of features, "
            f"({n},)"
        )
    return array.astype(np.int64)


def _to_groups(values: Any) -> NDArray[np.int64]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    array = np.asarray(values)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or (array < 0).any():
        raise ValueError(
            f"groups has shape {array.shape} and dtype {array.dtype}, expected integers from 0, (n,); leave out "
            "samples whose group is unknown"
        )
    return array.astype(np.int64)
