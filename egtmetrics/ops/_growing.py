"""Update what is known of a set to which rows are added, such as the generated samples of a model that goes on.

Such a *growing set* is declared anew, as another array, whenever it is to be looked at (:meth:`GrowingSet.look`). Its
array goes through the library as any other; what is known of its rows is found by the identity of that array. A metric
does not know that a set grows: :class:`UpdatingBackend` gives what the backend would have computed of all rows, to the
last bit, and :func:`merged_by` what a sum over all rows would be, up to rounding.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops._backend import ANY_RADIUS, BallCounts, Features, HostBackend, SqRange
from egtmetrics.ops._device import take_rows
from egtmetrics.ops._memo import array_digest
from egtmetrics.ops._primitives import WrappedBackend, implements

_P = ParamSpec("_P")
_R = TypeVar("_R")

_LISTED = 32
"""The nearest rows that are remembered of a row: 12 bytes each. More are counted anew."""
_NO_COUNTS = np.empty(0, dtype=np.int64)


class _Known(NamedTuple):
    n: int
    """It is known of the first ``n`` rows of the set."""
    other: Callable[[], Any]
    """Returns the set that they were compared with, while there is one."""
    by_row: tuple[NDArray[Any], ...]
    """What belongs to single rows, in the order in which they came."""
    total: Any


class GrowingSet:
    """What is known of the rows of a set, and of parts of it that grow as well."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Known] = {}
        self._earlier: dict[Hashable, _Known] = {}
        self._parts: dict[Hashable, GrowingSet] = {}

    def look(self, features: Features, arrival: NDArray[np.int64], parts: Mapping[Hashable, NDArray[np.int64]]) -> None:
        """Let an array be the set as it is now; nobody may write to it.

        ``arrival`` numbers its rows in the order in which they came, from 0: a row keeps its number in later arrays.
        ``parts`` has the rows of every part by its name, ascending. What was of no use since the last look is
        forgotten.
        """
        for one in (self, *self._parts.values()):
            one._earlier, one._known = one._known, {}
        named = {array_digest(rows): self._parts.setdefault(name, GrowingSet()) for name, rows in parts.items()}
        _Look(self, arrival, named).declare(features)

    def find(self, key: Hashable, n: int) -> _Known | None:
        """Return what is known of no more than the first ``n`` rows."""
        if key in self._earlier:
            self._known.setdefault(key, self._earlier.pop(key))
        found = self._known.get(key)
        return None if found is None or found.n > n else found

    def keep(self, key: Hashable, known: _Known) -> None:
        """Remember it, unless a later look knows more."""
        if key not in self._known or self._known[key].n <= known.n:
            self._known[key] = known


class _Look(NamedTuple):
    """One array of a growing set."""

    rows_of: GrowingSet
    arrival: NDArray[np.int64]
    parts: Mapping[str, GrowingSet]

    def declare(self, features: Features) -> None:
        key = id(features)
        _LOOKS[key] = weakref.ref(features, lambda _: _LOOKS.pop(key, None)), self

    def recall(self, key: Hashable, other: Any = None) -> tuple[NDArray[np.bool_], tuple[NDArray[Any], ...], Any]:
        """Return which rows something is known of, what belongs to each of them, and their total (None: of none)."""
        found = self.rows_of.find(key, len(self.arrival))
        if found is None or found.other() is not other:
            return np.zeros(len(self.arrival), dtype=np.bool_), (), None
        known = self.arrival < found.n
        return known, tuple(values[self.arrival[known]] for values in found.by_row), found.total

    def keep(self, key: Hashable, *by_row: NDArray[Any], total: Any = None, other: Any = None) -> None:
        """Remember what belongs to the rows of this array, and their total."""
        order = np.argsort(self.arrival)
        weak = _nothing if other is None else weakref.ref(other)
        self.rows_of.keep(key, _Known(len(order), weak, tuple(values[order] for values in by_row), total))


def _nothing() -> None:
    return None


_LOOKS: dict[int, tuple[weakref.ref[Any], _Look]] = {}
"""By ``id``: the arrays of growing sets."""


def _look_at(features: Any) -> _Look | None:
    found = _LOOKS.get(id(features))
    return None if found is None or found[0]() is not features else found[1]


def growing_part(features: Features, rows: NDArray[Any], taken: Features) -> Features:
    """Return ``taken``, which are ``rows`` of ``features``; where those are a part of a growing set, so is it now."""
    look = _look_at(features)
    part = None if look is None else look.parts.get(array_digest(rows))
    if look is not None and part is not None:
        _Look(part, np.argsort(np.argsort(look.arrival[rows])), {}).declare(taken)
    return taken


def _some(features: Features, rows: NDArray[np.bool_]) -> Features:
    """Copy some rows; all of them are there already, maybe in a file."""
    return features if rows.all() else take_rows(features, rows)


def merged_by(
    merge: Callable[[_R, _R], _R],
) -> Callable[[Callable[Concatenate[Features, _P], _R]], Callable[Concatenate[Features, _P], _R]]:
    """Mark a function of rows whose values for two sets ``merge`` makes the value for both together.

    Of a growing set it gets the new rows only. Its other arguments are arrays, passed by position.
    """

    def mark(function: Callable[Concatenate[Features, _P], _R]) -> Callable[Concatenate[Features, _P], _R]:
        @functools.wraps(function)
        def updating(x: Features, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            look = _look_at(x)
            if look is None or kwargs:
                return function(x, *args, **kwargs)
            key = function, x.dtype, *map(array_digest, args)  # type: ignore[arg-type]
            known, _, total = look.recall(key)
            if not known.all():
                new: _R = function(_some(x, ~known), *args, **kwargs)
                total = merge(total, new) if known.any() else new
                look.keep(key, total=total)
            return total  # type: ignore[no-any-return]

        return updating

    return mark


@implements(HostBackend)
class UpdatingBackend(WrappedBackend):
    """A backend that computes radii and memberships of a growing set from those of the rows that were there before."""

    def kth_neighbor(
        self, x: Features, y: Features | None = None, *, n_neighbors: int, sq_range: SqRange = ANY_RADIUS
    ) -> NDArray[np.float64]:
        """Offer the new rows to the old ones, whose nearest are among their nearest before and the new rows."""
        look, k = _look_at(x), n_neighbors
        if look is None or y is not None or sq_range != ANY_RADIUS or k > _LISTED:
            radii: NDArray[np.float64] = self._backend.kth_neighbor(x, y, n_neighbors=k, sq_range=sq_range)
            return radii
        key = "neighbors", self.arithmetic, x.dtype, k
        old, before, _ = look.recall(key)
        new = ~old
        if old.all():
            return np.array(before[0][:, -1])
        nearest: NDArray[np.float64] = np.empty((len(x), k))
        if 4 * new.sum() >= len(x):  # within one set each pair is computed once, between two sets twice
            nearest[:] = self._backend.neighbors(x, n_neighbors=k)[0]
        else:
            added = take_rows(x, new)
            radii = np.full(len(x), -1.0)
            radii[old] = before[0][:, -1]
            n_nearer = self._backend.ball_counts(x, added, x_sq_radii=radii, closed=False).x_ball_sizes
            nearer, n_offered = n_nearer > 0, min(k, n_nearer.max())
            nearest[old] = before[0]
            if n_offered:
                offered = self._backend.neighbors(take_rows(x, nearer), added, n_neighbors=int(n_offered))[0]
                nearest[nearer] = np.sort(np.concatenate([nearest[nearer], offered], axis=1), axis=1)[:, :k]
            # the nearest row is the row itself, or one that equals it
            nearest[new] = self._backend.neighbors(added, x, n_neighbors=k + 1)[0][:, 1:]
        look.keep(key, nearest)
        return np.array(nearest[:, -1])

    def ball_counts(
        self,
        x: Features,
        y: Features | None = None,
        *,
        x_sq_radii: NDArray[np.float64] | None = None,
        y_sq_radii: NDArray[np.float64] | None = None,
        closed: bool,
    ) -> BallCounts:
        """Balls around x keep their radii, so what new rows of y add to their counts is all that changes."""
        look = None if y is None else _look_at(y)
        if y is None or look is None:
            counts: BallCounts = self._backend.ball_counts(
                x, y, x_sq_radii=x_sq_radii, y_sq_radii=y_sq_radii, closed=closed
            )
            return counts
        x_ball_sizes = y_in_x_balls = _NO_COUNTS
        counted = np.zeros(len(y), dtype=np.bool_)
        y_ball_sizes, x_in_y_balls = np.zeros(len(y), dtype=np.int64), np.zeros(len(x), dtype=np.int64)
        if x_sq_radii is not None:
            key = "balls", self.arithmetic, array_digest(x_sq_radii), closed
            known, before, x_ball_sizes = look.recall(key, x)
            y_in_x_balls = np.zeros(len(y), dtype=np.int64)
            if known.any():
                y_in_x_balls[known] = before[0]
            else:
                x_ball_sizes = np.zeros(len(x), dtype=np.int64)
            counted = ~known
            if counted.any():
                own = None if y_sq_radii is None else y_sq_radii[counted]
                new = self._backend.ball_counts(
                    x, _some(y, counted), x_sq_radii=x_sq_radii, y_sq_radii=own, closed=closed
                )
                x_ball_sizes, y_in_x_balls[counted] = x_ball_sizes + new.x_ball_sizes, new.y_in_x_balls
                look.keep(key, y_in_x_balls, total=x_ball_sizes, other=x)
                if own is not None:
                    y_ball_sizes[counted], x_in_y_balls = new.y_ball_sizes, new.x_in_y_balls
        if y_sq_radii is None:
            return BallCounts(x_ball_sizes.copy(), y_in_x_balls, _NO_COUNTS, _NO_COUNTS)
        self._count_own_balls(look, x, y, y_sq_radii, closed, counted, y_ball_sizes, x_in_y_balls)
        return BallCounts(x_ball_sizes.copy(), y_in_x_balls, y_ball_sizes, x_in_y_balls)

    def _count_own_balls(
        self,
        look: _Look,
        x: Features,
        y: Features,
        y_sq_radii: NDArray[np.float64],
        closed: bool,
        counted: NDArray[np.bool_],
        y_ball_sizes: NDArray[np.int64],
        x_in_y_balls: NDArray[np.int64],
    ) -> None:
        """Add the balls of those rows of the growing set y that are not ``counted`` yet.

        The radii of these balls change with every new row, the distances do not. So a row keeps its nearest rows of x,
        as soon as its ball holds so few that they are all among these.
        """
        n_listed = min(_LISTED, len(x))
        distances = np.full((len(y), n_listed), -np.inf)  # of a row without a list, none is known to be outside
        rows = np.zeros((len(y), n_listed), dtype=np.int32)
        key = "nearest", self.arithmetic
        known, before, _ = look.recall(key, x)
        sizes = np.full(len(y), n_listed)
        if known.any():
            sizes[known], distances[known], rows[known] = before
        small = ~counted & (distances[:, -1] < 0.0) & (sizes < n_listed)
        if small.any():
            distances[small], rows[small] = self._backend.neighbors(_some(y, small), x, n_neighbors=n_listed)
        limits = y_sq_radii[:, None]
        inside = distances <= limits if closed else distances < limits
        listed = ~counted & ~inside[:, -1]
        y_ball_sizes[listed] = inside[listed].sum(axis=1)
        x_in_y_balls += np.bincount(rows[listed][inside[listed]], minlength=len(x))
        others = ~counted & ~listed
        if others.any():
            new = self._backend.ball_counts(x, _some(y, others), y_sq_radii=y_sq_radii[others], closed=closed)
            y_ball_sizes[others] = new.y_ball_sizes
            x_in_y_balls += new.x_in_y_balls
        look.keep(key, y_ball_sizes, distances, rows, other=x)
