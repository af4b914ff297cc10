"""Collect features batch by batch, then evaluate them by group."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._order import canonical_order
from egtmetrics._random import RandomState
from egtmetrics._validation import check_features, check_positive_int, label_columns
from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.groups._evaluation import (
    GroupEvaluation,
    Metric,
    MissingGroups,
    name_metrics,
    resolve_seed,
    scores_of,
)
from egtmetrics.groups.frame import describe_metric
from egtmetrics.ops import BackendName, select_backend
from egtmetrics.streaming._collected import Collected, priorities
from egtmetrics.streaming._spilled import Spilled, reordered_in_file, rows_in_file

Side: TypeAlias = Literal["real", "fake"]
Label: TypeAlias = tuple[Hashable, ...] | None
"""The labels of one row, one per sensitive feature; None for a row in no group."""

_SIDES: tuple[Side, ...] = get_args(Side)


class GenerativeMetricStream:
    """A :class:`GenerativeMetricFrame` whose samples come in batches, from one process or from several.

    Parameters
    ----------
    metrics, random_state, missing_groups, backend, n_threads
        As for :class:`GenerativeMetricFrame`. ``random_state`` is turned into one integer here, so that every
        ``compute`` uses the same. Streams that will be merged need the same integer.
    max_samples
        Keep at most so many rows of every group on either side, a uniform sample drawn without replacement; None
        keeps all. Scores by group are then computed on these samples, the overall scores on a uniform sample of
        ``max_samples`` rows of a side that exceeds it in some group. ``group_counts``, and with them mgo and ego, count
        every row that was seen.
    spill
        A folder to keep the rows in instead of memory, in files without a name, which are gone when ``reset`` or the
        end of the process, however it comes, leaves nobody to read them. Not together with ``max_samples``. Streams
        that are merged may differ in it.

    Notes
    -----
    *Streaming equals batch.* ``compute`` puts the rows into an order that depends on their values only. So the frame
    is the same, to the last bit, however the rows were cut into updates, in whatever order they came, whichever stream
    saw which row and in whatever order the streams were merged. It is the frame of the whole set in that order; a
    frame of the same rows in another order has the same scores where a metric does not look at the order of rows
    (TopP&R, precision and recall, density, coverage), scores up to rounding where it sums (FID), and other random
    draws where it draws rows (KID, MAUVE).

    With ``max_samples`` a row is kept or not by a keyed hash of its values and of its position among the rows of its
    group in its stream. The sample is then the same for every way to cut the rows of each stream into updates and for
    every order of merging, but not for every way to deal the rows out to streams. Rows of one group that are equal and
    stand at one position of two streams are kept or dropped together.

    *Memory*: the rows, or with ``max_samples`` up to twice as many rows of each group and side; ``compute`` copies the
    rows twice. With ``spill`` a batch, and in ``compute`` the rows of one group at a time, a few numbers for each row
    and what the metrics need beside their features, which then are memory-mapped; the frame is the same, to the last
    bit. ``compute`` needs twice as much room on disk again, and the frame keeps half of that.

    *Cost* of an update: linear; with ``max_samples`` a few microseconds per row for the hash. -0.0 becomes 0.0.
    Features on a device are copied to the host.

    A stream can be pickled where its metrics can; ``state_dict`` holds its data without the metrics. Pickling either
    brings rows that were spilled into memory.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> stream = GenerativeMetricStream(metrics=mean_gap)
    >>> stream.update([[0.0], [0.0], [1.0], [1.0]], real=True, sensitive_features=["f", "f", "m", "m"])
    >>> for value, group in [(0.5, "f"), (1.0, "m")]:
    ...     stream.update([[value], [value]], real=False, sensitive_features=[group, group])
    >>> stream.compute().by_group["mean_gap"].to_dict()
    {'f': 0.5, 'm': 0.0}
    """

    def __init__(
        self,
        *,
        metrics: Metric | Mapping[str, Metric],
        random_state: RandomState = None,
        missing_groups: MissingGroups = "raise",
        backend: BackendName = "auto",
        n_threads: int | None = None,
        max_samples: int | None = None,
        spill: str | os.PathLike[str] | None = None,
    ) -> None:
        if missing_groups not in get_args(MissingGroups):
            raise ValueError(f"missing_groups={missing_groups!r} is unknown; choose 'raise' or 'nan'")
        select_backend(backend, n_threads=n_threads)
        self._metrics = name_metrics(metrics)
        self._options: dict[str, Any] = {
            "random_state": resolve_seed(random_state),
            "missing_groups": missing_groups,
            "backend": backend,
            "n_threads": n_threads,
        }
        self._max_samples = None if max_samples is None else check_positive_int(max_samples, "max_samples")
        if spill is not None and max_samples is not None:
            raise ValueError(
                f"max_samples={max_samples} and spill={os.fspath(spill)!r} both bound memory; pass one of them"
            )
        self._spill = None if spill is None else os.fspath(spill)
        if self._spill is not None:
            Spilled(self._spill)  # complains about the folder now
        self._known: dict[str, Any] = {}
        self._rows: dict[Side, dict[Label, Collected]] = {"real": {}, "fake": {}}

    def __repr__(self) -> str:
        seen = " and ".join(f"{sum(part.n_seen for part in self._rows[side].values())} {side}" for side in _SIDES)
        return f"{type(self).__name__} ({seen} rows seen; metrics: {', '.join(self._metrics)})"

    @property
    def settings(self) -> dict[str, Any]:
        """What two streams must have in common to be merged."""
        metrics = {name: describe_metric(metric) for name, metric in self._metrics.items()}
        return {"metrics": metrics, **self._options, "max_samples": self._max_samples}

    def update(self, features: Any, *, real: bool, sensitive_features: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        features
            ``(n, d)``, an array or a tensor. It is copied.
        real
            Whether these are real samples (True) or generated ones (False).
        sensitive_features
            One label per row, or several, as for :class:`GenerativeMetricFrame`: under the same names, in the same
            order and of the same types in every update. None and NaN mean that the row belongs to no group.

        Raises
        ------
        ValueError, TypeError
            If features or labels are invalid, or unlike those of an earlier update. Nothing of the batch is added.
        OSError
            With ``spill``, if there is no room left. Nothing of the batch is added.
        """
        if not isinstance(real, bool | np.bool_):
            raise TypeError(f"real={real!r} is {type(real).__name__}, expected True for real or False for fake samples")
        side: Side = "real" if real else "fake"
        array: NDArray[Any] = np.add(
            check_features(features, "features"), 0.0
        )  # a copy without -0.0, whose bytes differ
        names, types, labels = _read_labels(sensitive_features, len(array))
        known = self._agree(
            {"n_features": array.shape[1], "sensitive_features": names, "label_types": types}, "this update"
        )
        members: dict[Label, list[int]] = {}
        for i, label in enumerate(labels):
            members.setdefault(label, []).append(i)
        parts = {label: array[positions] for label, positions in members.items()}
        drawn = {label: self._draw(side, label, rows) for label, rows in parts.items()}
        with self._all_or_nothing():
            self._known = known
            for label, rows in parts.items():
                self._collected(side, label).add(rows, drawn[label], n_seen=len(rows))

    def merge(self, other: GenerativeMetricStream) -> None:
        """Add everything that another stream has seen, which itself stays as it is.

        Raises
        ------
        ValueError
            If the streams differ in a setting, in the number of features or in the sensitive features. Nothing is
            added.
        TypeError
            If ``other`` is no stream.
        """
        if not isinstance(other, GenerativeMetricStream):
            raise TypeError(f"other is {type(other).__name__}, expected a GenerativeMetricStream")
        if other is self:
            raise ValueError("other is this stream itself, whose rows would count twice; merge another one")
        _check_same(self.settings, other.settings, "other")
        known = self._agree(other._known, "other")
        with self._all_or_nothing():
            self._known = known
            for side in _SIDES:
                for label, part in other._rows[side].items():
                    self._collected(side, label).merge(part)

    def reset(self, *, keep_real: bool = False) -> None:
        """Forget all rows, or all but the real ones, which then serve for the next evaluation as well."""
        self._rows["fake"] = {}
        if not keep_real:
            self._rows["real"] = {}
        if not self._rows["real"]:
            self._known = {}

    def compute(self) -> GenerativeMetricFrame:
        """Evaluate what has come in so far; the stream stays as it is.

        Returns
        -------
        GenerativeMetricFrame
            With ``max_samples``, also under ``settings["max_samples"]``, scores are those of the kept samples and
            ``group_counts`` and ``unassigned`` count all rows. The results say how many rows they are of.

        Raises
        ------
        ValueError
            If one side has no rows yet, or where :class:`GenerativeMetricFrame` does.
        """
        for side in _SIDES:
            if not self._rows[side]:
                raise ValueError(
                    f"no {side} samples have come in, and a score compares both sides; call "
                    f"update(features, real={side == 'real'}, sensitive_features=...) first"
                )
        real, real_labels, real_sample = self._side("real")
        fake, fake_labels, fake_sample = self._side("fake")
        arguments: dict[str, Any] = {
            "metrics": self._metrics,
            "real": real,
            "fake": fake,
            "real_sensitive_features": real_labels,
            "fake_sensitive_features": fake_labels,
            **self._options,
        }
        frame = GenerativeMetricFrame(**arguments)
        if self._max_samples is None:
            return frame
        frame.settings["max_samples"] = self._max_samples
        if len(real_sample) < len(real) or len(fake_sample) < len(fake):
            evaluation = GroupEvaluation(**arguments)
            evaluation.real, evaluation.fake = real[real_sample], fake[fake_sample]
            frame.overall_results = evaluation.overall()
            scores = [scores_of(result, name) for name, result in frame.overall_results.items()]
            values = [value for by_name in scores for value in by_name.values()]
            frame.overall = pd.Series(values, index=frame.overall.index, name=frame.overall.name, dtype=float)
        for side in _SIDES:
            seen = {label: part.n_seen for label, part in self._rows[side].items()}
            frame.unassigned[side] = seen.pop(None, 0)
            by_row = [seen.get(label if isinstance(label, tuple) else (label,), 0) for label in frame.by_group.index]
            frame.group_counts[f"n_{side}"] = by_row
            frame.group_counts[f"{side}_proportion"] = np.array(by_row) / sum(by_row)
        return frame

    def state_dict(self) -> dict[str, Any]:
        """Return the data and the settings, as built-in types and arrays, for a checkpoint or another process."""
        rows = {
            side: [(label, *part.kept(), part.n_seen) for label, part in self._rows[side].items()] for side in _SIDES
        }
        return {"settings": self.settings, "known": dict(self._known), "rows": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the data of ``state_dict`` in the place of what is here.

        Raises
        ------
        ValueError
            If it comes from a stream with other settings, or from none.
        """
        if not isinstance(state, Mapping) or set(state) != {"settings", "known", "rows"}:
            raise ValueError("state is not what GenerativeMetricStream.state_dict returned; pass that, whole")
        _check_same(self.settings, state["settings"], "state")
        with self._all_or_nothing():
            self._known = dict(state["known"])
            self._rows = {"real": {}, "fake": {}}
            for side in _SIDES:
                for label, rows, drawn, n_seen in state["rows"][side]:
                    self._collected(side, label).add(rows, drawn, n_seen=n_seen)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Go back to what was here before where a disk is full."""
        known, before = self._known, {side: list(self._rows[side].items()) for side in _SIDES}
        n_seen = {id(part): part.n_seen for side in _SIDES for _, part in before[side]}
        try:
            yield
        except OSError:
            self._known, self._rows = known, {side: dict(parts) for side, parts in before.items()}
            for side in _SIDES:
                for part in self._rows[side].values():
                    part.n_seen = n_seen[id(part)]
            raise

    def _collected(self, side: Side, label: Label) -> Collected:
        if label not in self._rows[side]:
            fresh = Collected(self._max_samples) if self._spill is None else Spilled(self._spill)
            self._rows[side][label] = fresh
        return self._rows[side][label]

    def _draw(self, side: Side, label: Label, rows: NDArray[Any]) -> NDArray[np.uint64]:
        if self._max_samples is None:
            return np.zeros(len(rows), dtype=np.uint64)
        part = self._rows[side].get(label)
        # the two sides draw apart: copies of real rows among the fake ones must not be kept together with them
        return priorities(rows, first=part.n_seen if part else 0, key=f"{self._options['random_state']} {side}")

    def _side(self, side: Side) -> tuple[NDArray[Any], pd.DataFrame, NDArray[np.int64]]:
        """Rows and labels in an order that depends on the set of rows only, and the rows of the overall scores."""
        parts = self._rows[side]
        kept = [part.kept() for part in parts.values()]
        blocks, draws = zip(*kept, strict=True)
        rows = np.concatenate(blocks) if self._spill is None else rows_in_file(list(blocks), self._spill)
        order = canonical_order(rows)
        group = np.repeat(np.arange(len(parts)), [len(part) for part, _ in kept])[order]
        labels = {}
        for i, name in enumerate(self._known["sensitive_features"]):
            column = np.empty(len(parts), dtype=object)
            column[:] = [None if label is None else label[i] for label in parts]
            labels[name] = column[group]
        overall = np.arange(len(rows))
        if any(part.is_sample for part in parts.values()):
            # each group holds its smallest draws, so the smallest of all are here: a uniform sample of all rows
            overall = np.sort(np.argsort(np.concatenate(draws)[order])[: self._max_samples])
        ordered = rows[order] if self._spill is None else reordered_in_file(rows, order, self._spill)
        return ordered, pd.DataFrame(labels), overall

    def _agree(self, new: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Return what is known of features and labels together with what is ``new``, which must not contradict it."""
        agreed = dict(self._known)
        for name, value in new.items():
            if value is None:  # all rows unassigned: labels of no type
                continue
            if agreed.setdefault(name, value) != value:
                expected, remedy = agreed[name], _REMEDIES[name]
                raise ValueError(f"{source} has {name}={value!r} where there was {expected!r} before; {remedy}")
        return agreed


_REMEDIES = {
    "n_features": "pass features of one encoder, or reset() before using another",
    "sensitive_features": "pass the same sensitive features, under the same names and in the same order, every time",
    "label_types": "convert the labels to one type",
}


def _check_same(settings: Mapping[str, Any], others: Mapping[str, Any], source: str) -> None:
    different = [name for name in settings if settings[name] != others.get(name)]
    if different:
        found = "; ".join(f"{name} is {others.get(name)!r} there and {settings[name]!r} here" for name in different)
        raise ValueError(f"{source} comes from a stream with other settings: {found}. Make both with the same")


def _read_labels(labels: Any, n: int) -> tuple[tuple[str, ...], tuple[str, ...] | None, list[Label]]:
    """Return the names of the sensitive features, the types of their labels, and the labels of every row."""
    names, columns = label_columns(labels, "sensitive_features")
    values, types = [], []
    for name, column in zip(names, columns, strict=True):
        if column.shape != (n,):
            raise ValueError(
                f"sensitive_features has the shape {column.shape} in {name!r} for {n} samples; pass one label per "
                "sample, in the same order"
            )
        series = pd.Series(column).astype(object)
        plain = [value.item() if isinstance(value, np.generic) else value for value in series]
        missing = series.isna().tolist()
        found = sorted({type(value).__name__ for value, none in zip(plain, missing, strict=True) if not none})
        if len(found) > 1:
            raise TypeError(
                f"sensitive_features mixes labels of the types {', '.join(found)} in {name!r}; convert them to one"
            )
        values.append([None if none else value for value, none in zip(plain, missing, strict=True)])
        types.extend(found)
    rows = [None if None in label else label for label in zip(*values, strict=True)]
    try:
        sorted({label for label in rows if label is not None})
    except TypeError as error:
        raise TypeError(
            f"sensitive_features holds labels that cannot be hashed or ordered ({error}); use text or integers"
        ) from error
    return tuple(names), tuple(types) if len(types) == len(names) else None, rows
