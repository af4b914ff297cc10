"""Groups predicted from features, with a measured error for each group."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._validation import check_features, check_positive_int
from egtmetrics.confusion import Confusion
from egtmetrics.oracles.labels import OracleErrorWarning, ProbabilityOracle, group_indices, names_of

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV


class ClassifierOracle(ProbabilityOracle):
    r"""A calibrated logistic regression on features, with its error measured by cross-validation, group by group.

    The confusion of held-out samples, :attr:`confusion`, says what a group is called. Among the held-out samples of
    group a, :attr:`error_by_group` is the share of wrong labels among the labelled ones, :attr:`abstention_by_group`
    the share of samples without a label:

    .. math:: e_a = P(\psi(x) \ne a \mid a, \psi(x) \ne \text{None}), \quad P(\psi(x) = \text{None} \mid a).

    Parameters
    ----------
    features
        ``(n, d)`` finite numbers.
    groups
        ``(n,)`` names of groups; samples whose group is None are left out. Every group needs at least ``n_folds``
        samples in each training fold, so ``n_folds * n_folds / (n_folds - 1)`` in all.
    group_names
        Their order; by default the sorted names in ``groups``.
    encode
        Turns samples into features when the oracle is called; by default samples are features.
    clusters
        ``(n,)`` integers that near-duplicates share, for example all images of one person. Each cluster falls into one
        fold as a whole; otherwise the oracle would be tested on near-copies of samples that it was fitted on. By
        default every sample stands alone.
    min_confidence
        Abstain where the largest calibrated probability is below this.
    max_contamination
        If more of a called group is of another one, :attr:`warning` is set and OracleErrorWarning issued: now, for
        groups in the proportions of ``groups``, and again wherever the oracle is used, for the proportions there.
    n_folds
        Folds of the cross-validation, and of the calibration within each of its folds.
    random_state
        Seed of the division into folds.

    Raises
    ------
    ValueError
        Features, groups or clusters of wrong shapes or values, too few samples or clusters in a group, options out of
        range.

    Notes
    -----
    The error holds for samples like ``features``. On generated samples, which may be unlike any of them, it can be
    larger: label some of these by hand, and pass them to ``measure_error``.

    References
    ----------
    The paper's oracle psi (appendix B.3.3) is a fine-tuned DINOv2, whose error is not reported;
    :func:`egtmetrics.training.encoder.fine_tune_encoder` makes one with a measured error.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics.oracles import ClassifierOracle
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(["day", "night"], 100)
    >>> oracle = ClassifierOracle(rng.normal(size=(200, 2)) + 6.0 * (groups == "night")[:, None], groups)
    >>> oracle([[0.0, 0.0], [6.0, 6.0]])
    array(['day', 'night'], dtype=object)
    >>> oracle.error_by_group
    {'day': 0.0, 'night': 0.0}
    """

    def __init__(
        self,
        features: Any,
        groups: Any,
        *,
        group_names: Sequence[str] | None = None,
        encode: Callable[[Any], Any] | None = None,
        clusters: Any = None,
        min_confidence: float = 0.0,
        max_contamination: float = 0.05,
        n_folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.encode = encode
        n_folds = check_positive_int(n_folds, "n_folds", minimum=2)
        x = _to_features(features)
        if group_names is None:
            group_names = sorted({str(group) for group in groups if isinstance(group, str)})
        a = group_indices(groups, group_names, n=len(x), name="groups")
        super().__init__(group_names, min_confidence=min_confidence, max_contamination=max_contamination)
        c = None if clusters is None else _to_clusters(clusters, len(a))
        known, every = a >= 0, x
        x, a, c = x[known], a[known], None if c is None else c[known]
        counts = np.bincount(a, minlength=len(self.group_names))
        needed = -(-n_folds * n_folds // (n_folds - 1))
        if len(counts) < 2 or counts.min() < needed:
            found = listed(f"{n} of {name!r}" for name, n in zip(self.group_names, counts, strict=True))
            raise ValueError(
                f"groups has {found}, expected two groups or more with at least {needed} samples each for "
                f"n_folds={n_folds}; add samples, or lower n_folds"
            )
        probabilities = np.empty((len(x), len(counts)))
        for train, test in divide(a, c, n_folds, random_state):
            head = _fit(x[train], a[train], None if c is None else c[train], n_folds, random_state)
            probabilities[test] = head.predict_proba(x[test])
        held_out = self._decide(probabilities)
        labels = np.full(len(known), -1)
        labels[known] = held_out
        self.confusion: Confusion = Confusion.of_labels(
            names_of(a, self.group_names), names_of(held_out, self.group_names), group_names=self.group_names
        )
        """Held-out samples by true group (rows) and label (columns)."""
        self._head = _fit(x, a, c, n_folds, random_state)
        if not known.all():
            labels[~known] = self._decide(self._head.predict_proba(every[~known]))
        self.held_out_labels = names_of(labels, self.group_names)
        """``(n,)``: what ``features`` are called by classifiers that were not fitted on them. Against generated samples
        that this oracle calls, real groups by these labels make the errors of both sides alike."""
        if self.warning is not None:
            warnings.warn(self.warning, OracleErrorWarning, stacklevel=2)

    @property
    def error_by_group(self) -> dict[str, float]:
        """Share of wrong labels among a group's labelled samples; NaN where none was labelled."""
        return dict(zip(self.group_names, self.confusion.error_by_group.values(), strict=True))

    @property
    def abstention_by_group(self) -> dict[str, float]:
        """Share of a group's samples that were not labelled."""
        return dict(zip(self.group_names, self.confusion.abstention_by_group.values(), strict=True))

    def probabilities(self, samples: Any, /) -> NDArray[np.float64]:
        """Return the calibrated probability of every group, ``(n, G)``."""
        features = samples if self.encode is None else self.encode(samples)
        return np.asarray(self._head.predict_proba(_to_features(features)), dtype=np.float64)


def _fit(
    x: NDArray[np.float64], a: NDArray[np.int64], clusters: NDArray[Any] | None, n_folds: int, random_state: int
) -> CalibratedClassifierCV:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = divide(a, clusters, n_folds, random_state)
    return CalibratedClassifierCV(classifier, cv=folds, ensemble=False).fit(x, a)


def divide(
    a: NDArray[np.int64], clusters: NDArray[Any] | None, n_folds: int, random_state: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return rows to train on and to test on, with every group in all training parts; no cluster is in both."""
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
    return np.asarray(check_features(values, "features"), dtype=np.float64)


def _to_clusters(values: Any, n: int) -> NDArray[np.int64]:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"clusters has shape {array.shape} and dtype {array.dtype}, expected one integer per row of features, "
            f"({n},)"
        )
    return array.astype(np.int64)
