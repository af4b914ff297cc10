"""Collect features batch by batch, then evaluate them by group."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._arrays import as_dtype, is_empty
from egtmetrics._errors import listed
from egtmetrics._mapped import BLOCK_BYTES, rows_in_file
from egtmetrics._order import canonical_order
from egtmetrics._random import RandomState
from egtmetrics._validation import check_features, check_positive_int, keep_checked
from egtmetrics.groups import GenerativeMetricFrame, Reference
from egtmetrics.groups._evaluation import (
    Metrics,
    MissingGroups,
    check_missing_groups,
    describe_metric,
    name_metrics,
    resolve_seed,
)
from egtmetrics.labels import label_columns
from egtmetrics.ops import BackendName, Features, GrowingSet, digest, select_backend
from egtmetrics.samples import GroupedSamples
from egtmetrics.streaming._file_rows import FileRows
from egtmetrics.streaming._rows import Rows, priorities

Side: TypeAlias = Literal["real", "fake"]
Label: TypeAlias = tuple[Hashable, ...] | None
"""The labels of one row, one per sensitive feature; None for a row in no group."""

_SIDES: tuple[Side, ...] = get_args(Side)


class _Sorted(NamedTuple):
    """The rows of one side, sorted by their values."""

    rows: Features
    labels: pd.DataFrame
    overall: NDArray[np.int64] | None
    """The rows that overall scores use; None for all."""
    order: NDArray[np.int64]
    """Where each row was among those of all parts, one part after the other."""


class _Peeked:
    """What a peek leaves for the next one. A copy of a stream, or a stream from a file, begins without it."""

    def __init__(self) -> None:
        self.fake = GrowingSet()
        self.numbers: dict[Label, NDArray[np.int64]] = {}
        """By group: which of all fake rows these are, in the order in which peeks first saw them."""
        self.real: tuple[Any, Reference] | None = None
        """The real rows of the stream as a reference, and what would be different if there were others."""

    def __reduce__(self) -> tuple[type[_Peeked], tuple[()]]:
        return type(self), ()

    def without_fake(self) -> _Peeked:
        other = _Peeked()
        other.real = self.real
        return other


class GenerativeMetricStream:
    """A :class:`GenerativeMetricFrame` whose samples come in batches, from one process or from several.

    Parameters
    ----------
    metrics, random_state, missing_groups, strict, backend, n_threads
        As for :class:`GenerativeMetricFrame`. ``random_state`` is turned into one integer here, so that every
        ``compute`` uses the same. Streams that will be merged need the same integer.
    reference
        The real side, as a :class:`~egtmetrics.Reference` with labels. Then only fake rows are added. The frame is the
        same, to the last bit, as if its rows had been added, too. What is prepared should be its
        ``in_canonical_order()``, since a stream sorts rows.
    max_samples
        Keep at most this many rows of every group on either side, a uniform sample drawn without replacement; None
        keeps all. Scores by group are then those of these samples. The overall scores are those of a uniform sample of
        ``max_samples`` rows of a side on which some group has more. ``group_counts``, and with them mgo and ego, count
        every row that was seen. A ``reference`` is taken whole.
    spill
        A folder to keep the rows in instead of memory, in files without a name. The system deletes them after
        ``reset`` and when the process ends, even if it is killed. Not together with ``max_samples``. Merged streams may
        differ in it.

    Notes
    -----
    *Streaming equals batch.* ``compute`` sorts the rows by their values. So the frame is the same, to the last bit,
    however the rows were split into updates and streams, and in whatever order they came or the streams were merged. It
    is the frame of all rows in that order. A frame of the same rows in another order has the same scores where a metric
    does not depend on the order of rows (TopP&R, precision and recall, density, coverage), the same up to rounding
    where it sums over rows (FID), and other random draws where it draws rows (KID, MAUVE).

    With ``max_samples`` a keyed hash of a row's values and of its position in its group and stream decides whether the
    row is kept. The sample does not depend on how the rows of a stream were split into updates or on the order of
    merging, but on which stream saw which row. Equal rows of one group at one position of two streams are kept or
    dropped together.

    *While the model generates*: ``peek`` returns what ``compute`` would, and makes the next peek cheap.

    *Memory*: the rows; with ``max_samples`` up to twice that many rows of each group and side. ``compute`` copies the
    rows twice. With ``spill``: a batch, and in ``compute`` the rows of one group at a time, a few numbers for each row
    and what the metrics need besides their features, which are memory-mapped; the frame is the same, to the last bit.
    ``compute`` then needs twice the disk space again, and the frame keeps half of that.

    *Cost* of an update: linear; with ``max_samples`` a few microseconds per row for the hash. -0.0 becomes 0.0.
    Features on a device are copied to the host.

    A stream can be pickled if its metrics can; ``state_dict`` has its data without the metrics. Both bring spilled rows
    into memory.

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
        metrics: Metrics,
        random_state: RandomState = None,
        missing_groups: MissingGroups = "raise",
        strict: bool = False,
        backend: BackendName = "auto",
        n_threads: int | None = None,
        reference: Reference | None = None,
        max_samples: int | None = None,
        spill: str | os.PathLike[str] | None = None,
    ) -> None:
        check_missing_groups(missing_groups)
        select_backend(backend, n_threads=n_threads)
        self._metrics = name_metrics(metrics)
        self._options: dict[str, Any] = {
            "random_state": resolve_seed(random_state),
            "missing_groups": missing_groups,
            "strict": strict,
            "backend": backend,
            "n_threads": n_threads,
        }
        self._max_samples = None if max_samples is None else check_positive_int(max_samples, "max_samples")
        if spill is not None and max_samples is not None:
            raise ValueError(
                f"max_samples={max_samples} and spill={os.fspath(spill)!r} both limit memory; pass one of them"
            )
        self._spill = None if spill is None else os.fspath(spill)
        if self._spill is not None:
            FileRows(self._spill)  # raises now if the folder cannot be written to
        self._warned_words: set[str] = set()
        if not isinstance(reference, Reference | None):
            raise TypeError(
                f"reference is {type(reference).__name__}, expected a Reference; pass Reference(real, "
                "sensitive_features=...)"
            )
        if reference is not None and reference.sensitive_features is None:
            raise ValueError("reference has no labels; make it with sensitive_features")
        self._reference = None if reference is None else reference.in_canonical_order()
        self._reference_digest = None if self._reference is None else digest(self._reference.features)
        self._known = self._known_before()
        self._rows: dict[Side, dict[Label, Rows]] = {"real": {}, "fake": {}}
        self._peeked = _Peeked()

    def __repr__(self) -> str:
        seen = " and ".join(f"{sum(part.n_seen for part in self._rows[side].values())} {side}" for side in _SIDES)
        return f"{type(self).__name__} ({seen} rows seen; metrics: {', '.join(self._metrics)})"

    @property
    def settings(self) -> dict[str, Any]:
        """What two streams must have in common to be merged."""
        metrics = {name: describe_metric(metric) for name, metric in self._metrics.items()}
        return {
            "metrics": metrics,
            **self._options,
            "max_samples": self._max_samples,
            "reference": self._reference_digest,
        }

    def update(self, features: Any, *, real: bool, sensitive_features: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        features
            ``(n, d)``, an array or a tensor. It is copied. A batch without rows changes nothing.
        real
            Whether these are real samples (True) or generated ones (False).
        sensitive_features
            One label per row, or several, as for :class:`GenerativeMetricFrame`; the same names, order and types in
            every update. A missing label means that the row belongs to no group.

        Raises
        ------
        ValueError, TypeError
            If features or labels are invalid, or contradict an earlier update. Nothing of the batch is added.
        OSError
            With ``spill``, if the disk is full. Nothing of the batch is added.
        """
        if not isinstance(real, bool | np.bool_):
            raise TypeError(f"real={real!r} is {type(real).__name__}, expected True for real or False for fake samples")
        if real and self._reference is not None:
            raise ValueError("the real samples of this stream are those of its reference; add fake ones only")
        side: Side = "real" if real else "fake"
        if is_empty(features):
            _read_labels(sensitive_features, 0, self._warned_words)
            if len(shape := np.shape(features)) == 2:
                self._agree({"n_features": shape[1]}, "this update")
            return
        # a copy, in which -0.0 is 0.0: their bytes differ
        array: NDArray[Any] = np.add(check_features(features, "features"), 0.0)
        names, types, labels = _read_labels(sensitive_features, len(array), self._warned_words)
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
                self._group(side, label).add(rows, drawn[label], n_seen=len(rows))

    def merge(self, other: GenerativeMetricStream) -> None:
        """Add everything that another stream has seen; the other one is not changed.

        Raises
        ------
        ValueError
            If the streams differ in a setting, in the number of features or in the sensitive features. Nothing is
            added.
        TypeError
            If ``other`` is not a stream.
        """
        if not isinstance(other, GenerativeMetricStream):
            raise TypeError(f"other is {type(other).__name__}, expected a GenerativeMetricStream")
        if other is self:
            raise ValueError("other is this stream itself, so its rows would count twice; merge another one")
        _check_same(self.settings, other.settings, "other")
        known = self._agree(other._known, "other")
        with self._all_or_nothing():
            self._known = known
            for side in _SIDES:
                for label, part in other._rows[side].items():
                    self._group(side, label).merge(part)

    def reset(self, *, keep_real: bool = False) -> None:
        """Forget all rows, or with ``keep_real`` the fake ones, to evaluate others against the same real samples."""
        self._rows["fake"], self._peeked = {}, self._peeked.without_fake()
        if not keep_real:
            self._rows["real"], self._peeked = {}, _Peeked()
        if not self._rows["real"]:
            self._known = self._known_before()

    def compute(self) -> GenerativeMetricFrame:
        """Evaluate what was seen so far; the stream is not changed.

        Returns
        -------
        GenerativeMetricFrame
            With ``max_samples``, also under ``settings["max_samples"]``, scores are those of the kept samples;
            ``group_counts`` and ``unassigned`` count all rows. The results say how many rows they were computed on.

        Raises
        ------
        ValueError
            If one side has no rows yet, or where :class:`GenerativeMetricFrame` does.
        """
        self._check_both_sides()
        overall_real = None
        if self._reference is not None:
            real, real_labels = self._reference.features, self._reference.sensitive_features
        else:
            real, real_labels, overall_real, _ = self._sorted("real")
        fake, fake_labels, overall_fake, _ = self._sorted("fake")
        samples = GroupedSamples(
            real=real, fake=fake, real_sensitive_features=real_labels, fake_sensitive_features=fake_labels
        )
        if self._max_samples is not None:
            n_real = self._n_seen("real")
            if self._reference is not None:
                n_real = {**samples.counts()["n_real"].to_dict(), None: samples.unassigned()["real"]}
            samples = samples.sampled_from(
                max_samples=self._max_samples,
                n_real=n_real,
                n_fake=self._n_seen("fake"),
                overall=(overall_real, overall_fake),
            )
        return GenerativeMetricFrame(metrics=self._metrics, samples=samples, **self._options)

    def peek(self) -> GenerativeMetricFrame:
        """Evaluate what was seen so far, as ``compute`` does, and remember what the next peek can use.

        For a stream that gets batches while the model generates. The real side is prepared by the first peek, as by a
        :class:`~egtmetrics.Reference`, and computed anew only if real rows were added. Of the fake side, peeks update

        - radii up to 32 neighbours and memberships in balls (precision, recall, density, coverage, in all metrics):
          the new rows are compared with all others, and those old ones with the real rows whose own balls hold 32 real
          rows or more;
        - means and covariances (FID).

        TopP&R and P-precision compute their fake side anew, because its bandwidth or radius changes with every batch;
        KID, MAUVE and whatever else draws rows or clusters both sides compute everything.

        Returns
        -------
        GenerativeMetricFrame
            That of ``compute``, to the last bit; only FID is the same up to rounding, as for rows in another order.

        Raises
        ------
        ValueError, TypeError
            Where ``compute`` does.

        Notes
        -----
        *Memory* until the next ``reset``: what a reference takes for the real rows (:class:`~egtmetrics.Reference`,
        Notes; also with ``spill``), and for each fake row up to 900 bytes, of which 450 for the scores of its group;
        for FID d^2 numbers for each group and once more. With ``max_samples`` rows are dropped as well as added, so a
        peek remembers nothing and costs as much as ``compute``.

        *Cost* with n real, m fake and b new rows: O((n + m) b d) for the memberships and O(b d^2) for FID, where
        ``compute`` takes O((n + m)^2 d) and O((n + m) d^2); sorting the rows and the decompositions of FID, O(m d) and
        O(d^3), are done every time. A ball holds about k n / m real rows where both laws agree, so the first few
        batches save little.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> reference = Reference(rng.normal(size=(200, 2)), sensitive_features=["f", "m"] * 100)
        >>> stream = GenerativeMetricStream(metrics="prdc", reference=reference, random_state=0)
        >>> for _ in range(3):  # while the model generates
        ...     stream.update(rng.normal(size=(40, 2)), real=False, sensitive_features=["f", "m"] * 20)
        ...     print(stream.peek().by_group["prdc_coverage"].round(2).to_dict())
        {'f': 0.51, 'm': 0.58}
        {'f': 0.7, 'm': 0.74}
        {'f': 0.87, 'm': 0.9}
        >>> stream.peek().by_group.equals(stream.compute().by_group)
        True
        """
        self._check_both_sides()
        if self._max_samples is not None:
            return self.compute()
        side = self._sorted("fake")
        fake, reference = side.rows, self._reference
        if reference is None:
            fake, reference = self._in_one_dtype(fake)
        parts = self._rows["fake"]
        group = np.repeat(np.arange(len(parts)), [part.n_seen for part in parts.values()])[side.order]
        rows: dict[Hashable, NDArray[np.int64]] = {
            label: np.flatnonzero(group == number) for number, label in enumerate(parts)
        }
        self._peeked.fake.look(fake, self._arrival()[side.order], rows)
        samples = GroupedSamples(real=reference, fake=fake, fake_sensitive_features=side.labels)
        return GenerativeMetricFrame(metrics=self._metrics, samples=samples, **self._options)

    def _in_one_dtype(self, fake: Features) -> tuple[Features, Reference]:
        """Return the fake rows and the real ones of this stream, which are sorted again only if there are others."""
        parts = self._rows["real"]
        dtype = np.result_type(fake.dtype, *(part.kept()[0].dtype for part in parts.values()))
        state = dtype, {label: part.n_seen for label, part in parts.items()}
        if self._peeked.real is None or self._peeked.real[0] != state:
            side = self._sorted("real")
            real = keep_checked(as_dtype(side.rows, dtype, "real"))
            self._peeked.real = state, Reference(real, sensitive_features=side.labels)
        return keep_checked(as_dtype(fake, dtype, "fake")), self._peeked.real[1]

    def _arrival(self) -> NDArray[np.int64]:
        """Number the fake rows of all parts, one part after the other, in the order in which peeks first saw them."""
        numbers = self._peeked.numbers
        n_before = sum(map(len, numbers.values()))
        for label, part in self._rows["fake"].items():
            known = numbers.get(label, np.empty(0, dtype=np.int64))
            n_after = n_before + part.n_seen - len(known)
            numbers[label] = np.concatenate([known, np.arange(n_before, n_after)])
            n_before = n_after
        return np.concatenate([numbers[label] for label in self._rows["fake"]])

    def _check_both_sides(self) -> None:
        for side in _SIDES:
            if not self._rows[side] and (side == "fake" or self._reference is None):
                raise ValueError(
                    f"no {side} samples were added, and a score compares both sides; call "
                    f"update(features, real={side == 'real'}, sensitive_features=...) first"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return data and settings as built-in types and arrays, for a checkpoint or another process."""
        rows = {
            side: [(label, *part.kept(), part.n_seen) for label, part in self._rows[side].items()] for side in _SIDES
        }
        return {"settings": self.settings, "known": dict(self._known), "rows": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the data of this stream by that of a ``state_dict``.

        Raises
        ------
        ValueError
            If ``state`` comes from a stream with other settings, or is not such a state.
        """
        if not isinstance(state, Mapping) or set(state) != {"settings", "known", "rows"}:
            raise ValueError("state is not what GenerativeMetricStream.state_dict returned; pass all of that")
        _check_same(self.settings, state["settings"], "state")
        with self._all_or_nothing():
            self._known = dict(state["known"])
            self._rows, self._peeked = {"real": {}, "fake": {}}, _Peeked()
            for side in _SIDES:
                for label, rows, drawn, n_seen in state["rows"][side]:
                    self._group(side, label).add(rows, drawn, n_seen=n_seen)

    def _known_before(self) -> dict[str, Any]:
        """Return what is known of features and labels before any rows were added."""
        if self._reference is None:
            return {}
        features, labels = self._reference.features, self._reference.sensitive_features
        names, types, _ = _read_labels(labels, len(features), self._warned_words)
        known = {"n_features": features.shape[1], "sensitive_features": names, "label_types": types}
        return {name: value for name, value in known.items() if value is not None}

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Undo everything if the disk is full."""
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

    def _group(self, side: Side, label: Label) -> Rows:
        if label not in self._rows[side]:
            self._rows[side][label] = Rows(self._max_samples) if self._spill is None else FileRows(self._spill)
        return self._rows[side][label]

    def _draw(self, side: Side, label: Label, rows: NDArray[Any]) -> NDArray[np.uint64]:
        if self._max_samples is None:
            return np.zeros(len(rows), dtype=np.uint64)
        part = self._rows[side].get(label)
        # a key for each side: otherwise real rows and their copies among the fake ones would be kept together
        return priorities(rows, first=part.n_seen if part else 0, key=f"{self._options['random_state']} {side}")

    def _sorted(self, side: Side) -> _Sorted:
        parts = self._rows[side]
        blocks, draws = zip(*(part.kept() for part in parts.values()), strict=True)
        dtype, width = np.result_type(*(block.dtype for block in blocks)), self._known["n_features"]
        rows = np.concatenate(blocks) if self._spill is None else rows_in_file(blocks, dtype, width, self._spill)
        order = canonical_order(rows)
        group = np.repeat(np.arange(len(parts)), [len(block) for block in blocks])[order]
        labels = {}
        for i, name in enumerate(self._known["sensitive_features"]):
            column = np.empty(len(parts), dtype=object)
            column[:] = [None if label is None else label[i] for label in parts]
            labels[name] = column[group]
        overall = None
        if any(part.is_sample for part in parts.values()):
            # each group holds its smallest draws, so the smallest of all are here: a uniform sample of all rows
            overall = np.sort(np.argsort(np.concatenate(draws)[order])[: self._max_samples])
        if self._spill is None:
            ordered = rows[order]
        else:
            step = max(1, BLOCK_BYTES // rows[:1].nbytes)
            parts_in_order = (rows[order[start : start + step]] for start in range(0, len(rows), step))
            ordered = rows_in_file(parts_in_order, dtype, width, self._spill)
        features = keep_checked(np.asarray(ordered))  # update has checked every row
        return _Sorted(features, pd.DataFrame(labels), overall, order)

    def _n_seen(self, side: Side) -> dict[Hashable, int]:
        """Count the rows seen of each group, with the labels of a frame; the rows in no group are under None."""
        single = len(self._known["sensitive_features"]) == 1
        parts = self._rows[side].items()
        return {label[0] if label is not None and single else label: part.n_seen for label, part in parts}

    def _agree(self, new: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Return what is known of features and labels, and what is ``new``; raise ValueError if they differ."""
        agreed = dict(self._known)
        for name, value in new.items():
            if value is None:  # all rows unassigned: labels of no type
                continue
            if agreed.setdefault(name, value) != value:
                here, before = (listed(shown) if isinstance(shown, tuple) else shown for shown in (value, agreed[name]))
                raise ValueError(f"{source} has {name}={here} where there was {before} before; {_REMEDIES[name]}")
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


def _read_labels(labels: Any, n: int, warned: set[str]) -> tuple[tuple[str, ...], tuple[str, ...] | None, list[Label]]:
    """Return the names of the sensitive features, the types of their labels, and the labels of every row."""
    names, columns = label_columns(labels, "sensitive_features", warned=warned)
    types: list[str] = []
    for name, column in zip(names, columns, strict=True):
        if column.shape != (n,):
            raise ValueError(
                f"sensitive_features has the shape {column.shape} in {name!r} for {n} samples; pass one label per "
                "sample, in the same order"
            )
        kinds = set(map(type, column.tolist())) - {type(None)}
        # As in a frame, 1 and 1.0 are one label: some batches have whole floats only.
        found = sorted({"number" if kind in (int, float) else kind.__name__ for kind in kinds})
        if len(found) > 1:
            raise TypeError(
                f"sensitive_features mixes labels of the types {listed(sorted(kind.__name__ for kind in kinds))} in "
                f"{name!r}; convert them to one"
            )
        types.extend(found)
    rows = [None if None in label else label for label in zip(*(column.tolist() for column in columns), strict=True)]
    try:
        sorted({label for label in rows if label is not None})
    except TypeError as error:
        raise TypeError(
            f"sensitive_features has labels that cannot be hashed or ordered ({error}); use text or integers"
        ) from error
    return tuple(names), tuple(types) if len(types) == len(names) else None, rows
