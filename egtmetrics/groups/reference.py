"""The real side of many evaluations, prepared: what depends on it alone is computed once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics import __version__
from egtmetrics._errors import listed
from egtmetrics._mapped import is_mapped
from egtmetrics._order import canonical_order
from egtmetrics._progress import tqdm
from egtmetrics._random import RandomState
from egtmetrics._validation import check_features, check_positive_int, is_checked, keep_checked, take_checked
from egtmetrics.groups._evaluation import Metrics, MetricSet, describe_metric, name_metrics, resolve_seed
from egtmetrics.groups._reference_file import read_values, write_values
from egtmetrics.labels import check_group_labels, group_text, label_columns
from egtmetrics.metrics.variance import own_variance
from egtmetrics.ops import (
    BackendName,
    Entry,
    Features,
    Memo,
    Prepared,
    ShardedFeatures,
    WithheldRows,
    common_device,
    memo_of,
    take_rows,
    to_host,
)

_MAX_BYTES = 1 << 32
_FEW_FAKES = 1024
"""Rows in the place of generated ones in :meth:`Reference.prepare`: enough for the metrics with their defaults."""


class Reference(Prepared):
    """Real samples that many sets of generated samples are compared with.

    Pass it as ``real`` to metrics, :class:`~egtmetrics.GenerativeMetricFrame`, ``compare_models`` and everything else
    that takes ``real``; frames take the labels from it, too. The results are the same, to the last bit. What depends on
    the real side alone is computed once: radii, bandwidths, densities, confidence bands, projected points, moments, and
    what intervals need of them, for all rows and for every group.

    Parameters
    ----------
    real
        Features ``(n, d)``, an array or tensor. They are copied, unless they lie in a file, so that later changes to
        them do not matter.
    sensitive_features
        One label per row, or several, as for :class:`~egtmetrics.GenerativeMetricFrame`; None for scores on all rows
        only.
    metrics
        What ``prepare`` computes for, as for :class:`~egtmetrics.GenerativeMetricFrame`. Other metrics, or the same
        with other options, may be evaluated with the reference, too; for these it remembers what the first evaluation
        computes.
    random_state
        The seed of ``prepare``. Evaluate with the same integer (attribute ``random_state``): TopP&R projects and draws
        by it, so what is known under one seed is of no use under another, and of none at all where an evaluation gets
        a Generator or None.
    backend, n_threads
        As for :class:`~egtmetrics.GenerativeMetricFrame`, for ``prepare``. Results of one backend, or of another kind
        of processor, are not taken for those of another.
    max_bytes
        How much memory results may take, besides the features. Where there is no room, what took the least time for its
        size goes first. Nothing of size n times the number of bootstrap replicates is kept.

    Attributes
    ----------
    features
        The rows, read-only.
    sensitive_features : DataFrame or None
        Their labels.
    random_state : int
    settings : dict
        ``metrics`` and ``random_state`` as they were given, for a reference from a file, too.

    Raises
    ------
    ValueError, TypeError
        If features or labels are invalid; for features that are spread over ranks. An evaluation of generated features
        of another dtype is refused, because it would compute with other real features, too.

    Notes
    -----
    Memory (``nbytes``): a copy of the features; for groups, one more; TopP&R remembers 256 bytes for each row and
    projection, and 8 for every other vector over the rows; FID d^2 numbers. So with the defaults 2.7 KB a row for all
    samples, and as much again for the groups.

    The bits are those of the process that computed them. NumPy rounds sums and matrix products, and so the Fréchet
    distance, differently on another machine or with another number of BLAS threads, with a reference as without.

    Threads may share a reference; what one of them computes, others wait for. Forked processes have what was computed
    before; those that are started anew get it by pickling, or better by ``load``, which maps the file.

    A metric that draws its rows from both sets, or clusters both together, has little or nothing that depends on one
    side alone: KID, MAUVE, PRD and the frontier integral gain nothing.

    Examples
    --------
    >>> from egtmetrics import GenerativeMetricFrame
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(["f", "m"], 300)
    >>> reference = Reference(rng.normal(size=(600, 2)), sensitive_features=groups, metrics="fid,prdc", random_state=0)
    >>> reference.prepare()
    >>> for step in range(2):  # the training loop
    ...     fake = rng.normal(size=(200, 2)) * (2 - step)
    ...     frame = GenerativeMetricFrame(metrics="fid,prdc", real=reference, fake=fake,
    ...                                   fake_sensitive_features=["f", "m"] * 100, random_state=0)
    ...     print(frame.by_group["fid"].round(1).tolist())
    [2.2, 2.5]
    [0.1, 0.0]
    """

    def __init__(
        self,
        real: Any,
        *,
        sensitive_features: Any = None,
        metrics: Metrics | None = None,
        random_state: RandomState = None,
        backend: BackendName = "auto",
        n_threads: int | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        check_positive_int(max_bytes, "max_bytes")
        if isinstance(real, ShardedFeatures):
            raise TypeError("real is spread over ranks, expected the rows of one process; pass it without a reference")
        self.random_state = resolve_seed(random_state)
        options: dict[str, Any] = {"random_state": self.random_state, "backend": backend, "n_threads": n_threads}
        given = {} if metrics is None else name_metrics(metrics)
        self._metrics = {name: MetricSet({name: metric}, **options) for name, metric in given.items()}
        described = {name: describe_metric(metric) for name, metric in given.items()}
        self.settings: dict[str, Any] = {"metrics": described, "random_state": self.random_state}
        checked: Any = check_features(real, "real", device=common_device(real))
        if memo_of(checked) is not None:  # the samples of another reference, which has a memo of its own
            checked = checked[:]
        elif not is_checked(checked) and not is_mapped(checked):
            checked = np.array(checked) if isinstance(checked, np.ndarray) else checked.clone()
        labels = None
        if sensitive_features is not None:
            names, columns = label_columns(sensitive_features, "sensitive_features")
            labels = pd.DataFrame(dict(zip(names, columns, strict=True)))
        self._set(keep_checked(checked), labels, max_bytes)

    def _set(self, features: Any, labels: pd.DataFrame | None, max_bytes: int) -> None:
        self.features, self.sensitive_features = features, labels
        self._sorted: Reference | None = None
        self._memo = Memo(features, max_bytes=max_bytes)
        self._groups: list[tuple[str, NDArray[np.int64]]] = []
        if labels is not None:
            ids, index = check_group_labels(labels, len(features), "sensitive_features")
            self._groups = [(group_text(label), np.flatnonzero(ids == number)) for number, label in enumerate(index)]
            for number, (_, rows) in enumerate(self._groups):
                self._memo.declare_subset(rows, f"group {number}")

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        n, d = self.features.shape
        groups = f"; groups: {listed(name for name, _ in self._groups)}" if self._groups else ""
        withheld = " (withheld)" if isinstance(self.features, WithheldRows) else ""
        return f"{type(self).__name__}: {n} samples, {d} features{withheld}{groups}; {self.nbytes / 1e6:.0f} MB"

    @property
    def nbytes(self) -> int:
        """Bytes of memory that features and results take; what is mapped from a file does not count."""
        return self._memo.nbytes + (0 if is_mapped(self.features) else int(self.features.nbytes))

    @property
    def seconds(self) -> float:
        """How long this process has computed what the reference did not hold, ``prepare`` included."""
        return self._memo.seconds

    def in_canonical_order(self) -> Reference:
        """Return a reference of the same samples in the order that depends on their values alone.

        Streams put rows in this order. If these samples have another one, that is a second reference, which is made
        once. It takes as much memory again and knows nothing of what this one holds.
        """
        if self._sorted is None:
            order = canonical_order(self.features)
            if np.array_equal(order, np.arange(len(self))):
                return self
            labels = self.sensitive_features
            found = object.__new__(type(self))
            found._metrics, found.random_state, found.settings = self._metrics, self.random_state, self.settings
            found._set(
                keep_checked(take_rows(self.features, order)),
                None if labels is None else labels.iloc[order].reset_index(drop=True),
                self._memo.max_bytes,
            )
            self._sorted = found
        return self._sorted

    def prepare(self, *, intervals: bool = False, progress: bool = False) -> None:
        """Compute now what evaluations of ``metrics`` need of the real side.

        Every metric is called on all rows and on every group, with a few of the same rows in the place of generated
        ones. If a metric refuses a group, evaluations will say so.

        Parameters
        ----------
        intervals
            Compute what intervals and tests need of every group, too. Else the first of them does.
        progress
            Show a progress bar that counts calls of metrics.

        Raises
        ------
        ValueError
            If the reference was made without ``metrics``, with ``intervals`` without ``sensitive_features``, or if a
            metric refuses all rows.

        Notes
        -----
        Cost: little more than one evaluation with few generated samples, or with ``intervals`` one to six more.
        Intervals remember one more copy of the features of every group, some 2 KB a row for metrics with neighbours,
        and for TopP&R 1.3 KB a row and projection. Only metrics with a variance estimator of their own need anything of
        the real side alone. Where samples come in clusters they are divided in another way, and nothing of this fits.
        """
        if not self._metrics:
            raise ValueError("this reference has no metrics to prepare for; pass metrics= when it is made")
        if intervals and not self._groups:
            raise ValueError(
                "intervals are of groups, and this reference has none; pass sensitive_features= when it is made"
            )
        sets = [("all samples", self.features, False)]
        sets += [(f"group {name!r}", take_checked(self.features, rows), intervals) for name, rows in self._groups]
        calls = [(*one, metric) for one in sets for metric in self._metrics.values()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of these few rows
            for where, real, with_intervals, metric in tqdm(calls, desc="preparing", unit="call", disable=not progress):
                error: ValueError | None = None
                for fake in _stand_ins(real):
                    try:
                        for name, result in metric.call(real, fake, where).items():
                            if with_intervals and own_variance(metric.bound[name], result) is not None:
                                metric.covariance(name, result, real, fake, where)
                    except ValueError as refusal:
                        error = refusal
                    else:
                        error = None
                        break
                if error is not None and real is self.features:
                    raise error

    def save(self, path: str | os.PathLike[str], *, features: bool = True) -> None:
        """Write everything to a file, whole or not at all.

        Parameters
        ----------
        path
            Of the file, for example ``real.egt``.
        features
            False leaves out the samples, everything that has a number for every sample, and their order, so that the
            file can be published where the samples cannot. It is good for ``fid`` alone, whose means and covariances it
            has; all other metrics need the samples. Of a small group these tell much about its samples, too.

        Raises
        ------
        OSError
            If the file cannot be written.
        TypeError
            If a label is neither text nor number.
        ValueError
            With ``features=False``, if nothing was computed yet that can do without the samples.
        """
        content = self._state()
        if not features:
            content |= self._without_samples()
        write_values(os.fspath(path), {"version": __version__, **content})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, max_bytes: int = _MAX_BYTES) -> Self:
        """Read a reference from a file, which stays mapped: processes on one machine share its memory.

        The file may be replaced while it is in use, but not shortened.

        Raises
        ------
        ValueError
            If the file is no reference, is damaged, or was made by another version of the library.
        OSError
            If it cannot be read.
        """
        path = os.fspath(path)
        content = read_values(path)
        if content["version"] != __version__:
            raise ValueError(
                f"{path}: was made by egtmetrics {content['version']}, and this is {__version__}, whose results may be "
                "other ones; make the reference again"
            )
        found = object.__new__(cls)
        found.__setstate__({**content, "metrics": {}, "max_bytes": max_bytes})
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self._state(), "metrics": self._metrics, "max_bytes": self._memo.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._metrics, self.settings = state["metrics"], state["settings"]
        self.random_state = self.settings["random_state"]
        features, labels = state["features"], None
        if state["labels"] is not None:
            labels = pd.DataFrame(
                {name: np.array([*known, None], object)[codes] for name, (codes, known) in state["labels"].items()}
            )
        self._set(
            features if isinstance(features, WithheldRows) else keep_checked(features), labels, state["max_bytes"]
        )
        for key, (value, seconds, is_summary) in state["entries"].items():
            self._memo.keep(str(key), Entry(value, seconds, is_summary))

    def _state(self) -> dict[str, Any]:
        """Return what a file holds: features, labels and entries."""
        labels = None
        if self.sensitive_features is not None:
            labels = {}
            for name, column in self.sensitive_features.items():
                codes, known = pd.factorize(column)
                labels[str(name)] = codes.astype(np.int32), list(known)
        return {
            "settings": self.settings,
            "features": to_host(self.features),
            "labels": labels,
            "entries": {
                key: (entry.value, entry.seconds, entry.is_summary)
                for key, entry in self._memo.entries().items()
                if entry.on_host
            },
        }

    def _without_samples(self) -> dict[str, Any]:
        """Return what takes the place of features, labels and entries in a file for others."""
        kept = {key: entry for key, entry in self._state()["entries"].items() if entry[-1]}
        if not kept:
            raise ValueError(
                "features=False keeps what can do without the samples, and nothing of that kind is known yet; make the "
                "reference with metrics='fid' and call prepare(). A covariance of fewer samples than features does not "
                "count, because the samples follow from it"
            )
        (n, d), dtype = self.features.shape, self.features.dtype
        for number, (_, rows) in enumerate(self._groups):
            kept[f"group {number}"] = WithheldRows((len(rows), d), dtype), 0.0, True
        labels = None
        if self.sensitive_features is not None:  # in the order of the groups, not of the samples
            in_groups = np.concatenate([rows for _, rows in self._groups])
            order = np.concatenate([in_groups, np.setdiff1d(np.arange(n), in_groups)])
            labels = {name: (codes[order], known) for name, (codes, known) in self._state()["labels"].items()}
        return {"features": WithheldRows((n, d), dtype), "labels": labels, "entries": kept}


def _stand_ins(real: Features) -> Iterator[Features]:
    """Yield rows in the place of generated ones: a few of the same, and then, for metrics that need more, all."""
    n = len(real)
    few = np.arange(0, n, max(1, n // _FEW_FAKES))
    yield keep_checked(take_rows(real, few))
    if len(few) < n:
        yield keep_checked(take_rows(real, np.arange(n)))
