"""Remember what depends on one set of rows alone, for a set that is compared with many others.

Such a *prepared* set has a :class:`Memo`. Its features go through the library as the array they are; the memo is found
by the identity of that array, which nobody can write to. Two doors lead to it: every primitive that sees one set only
(:class:`RememberingBackend`), and functions on the host that are marked :func:`of_one_set`. Neither a metric nor a
caller knows whether a set is prepared.

What is remembered goes by what was computed: the function and its arguments. An array that belongs to the prepared set
counts by its name there, any other one by its content, and a Generator by its state. So a result is found again where
the same bits would be computed again, and nowhere else. Arrays among the results get names in turn: the points that a
projection returned are known to the primitives that they are passed to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from egtmetrics._mapped import is_mapped
from egtmetrics.ops._backend import HostBackend
from egtmetrics.ops._primitives import Primitive, WrappedBackend, implements

_P = ParamSpec("_P")
_R = TypeVar("_R")

ROWS = "rows"
"""The name of the features of a prepared set."""
_ENTRY_BYTES = 512
"""Of an entry besides its arrays."""


class _Named(NamedTuple):
    array: weakref.ref[Any]
    memo: Callable[[], Memo | None]
    name: str


_NAMED: dict[int, _Named] = {}
"""By ``id``: the arrays of prepared sets. The features keep the memo alive, what was computed of them does not."""
_LOCK = threading.Lock()
"""Guards the bookkeeping of all memos; never held while something is computed."""
_RUNNING: dict[tuple[int, str], threading.Lock] = {}
"""What is being computed, by memo and key."""
_THREAD = threading.local()


def _in_child() -> None:
    """What other threads of the parent were computing, nobody computes in the child."""
    _RUNNING.clear()
    _LOCK.release()


os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_in_child)


@dataclasses.dataclass
class Entry:
    """Something that was computed."""

    value: Any
    """Arrays, which are read-only now, numbers, texts and None, in tuples and dictionaries."""
    seconds: float
    """What it took."""
    is_summary: bool = False
    """Whether it is a mean or the like, of more rows than it has numbers in any direction."""
    nbytes: int = _ENTRY_BYTES
    worth: float = 0.0

    @property
    def on_host(self) -> bool:
        return not any(hasattr(array, "detach") for array in arrays_in(self.value))


class Memo:
    """What was computed of one set of rows, up to a number of bytes.

    Where there is no room, what took the least time for its size goes first, and what was not asked for in a long time
    (the GreedyDual-Size algorithm, Cao and Irani 1997).
    """

    def __init__(self, features: Any, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.seconds = 0.0
        """Spent in computing what was not remembered."""
        self._entries: dict[str, Entry] = {}
        self._subsets: dict[str, str] = {}
        self._clock = 0.0
        _give_name(features, lambda: self, ROWS)

    def declare_subset(self, rows: NDArray[np.int64], name: str) -> None:
        """Let some of the rows be a set of its own, which is remembered; it is copied when it is first taken."""
        self._subsets[array_digest(rows)] = name

    def subset_named(self, rows: NDArray[np.int64]) -> str | None:
        """Return the name of these rows if they were declared."""
        return self._subsets.get(array_digest(rows))

    @property
    def nbytes(self) -> int:
        """Bytes in memory of all that is remembered."""
        return sum(entry.nbytes for entry in list(self._entries.values()))

    def entries(self) -> dict[str, Entry]:
        """Return all that is remembered, by key."""
        return dict(self._entries)

    def keep(self, key: str, entry: Entry) -> Entry:
        """Remember something, if there is room, and give its arrays names."""
        arrays = list(arrays_in(entry.value))
        if any(_named(array) is not None for array in arrays):  # an argument as it came, which is there already
            return entry
        for number, array in enumerate(arrays):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
            _give_name(array, weakref.ref(self), f"{key}.{number}")
        entry.nbytes = _ENTRY_BYTES + sum(array.nbytes for array in arrays if not is_mapped(array))
        if entry.nbytes <= self.max_bytes:
            with _LOCK:
                while self._entries and self.nbytes + entry.nbytes > self.max_bytes:
                    least = min(self._entries, key=lambda one: self._entries[one].worth)
                    self._clock = self._entries.pop(least).worth
                self._touch(entry)
                self._entries[key] = entry
        return entry

    def recall(self, key: str, compute: Callable[[], Any], *, n_summarized: int = 0) -> Any:
        """Return what is remembered under a key, else compute it; of several threads that ask, one computes.

        ``n_summarized`` is the number of rows of which the result is a summary; 0 if it is none.
        """
        entry = self._entries.get(key)
        if entry is None:
            own = id(self), key
            with _LOCK:
                running = _RUNNING.setdefault(own, threading.Lock())
            try:
                with running:
                    entry = self._entries.get(key)
                    if entry is None:
                        value, seconds = _timed(compute)
                        self.seconds += seconds
                        longest = max((max(array.shape, default=0) for array in arrays_in(value)), default=0)
                        entry = self.keep(key, Entry(value, seconds, is_summary=longest < n_summarized))
            finally:
                with _LOCK:
                    _RUNNING.pop(own, None)
        self._touch(entry)
        return entry.value

    def _touch(self, entry: Entry) -> None:
        entry.worth = self._clock + entry.seconds / entry.nbytes


class Prepared:
    """What stands for the rows of a prepared set where features are expected."""

    features: Any
    """The rows: an array or a tensor that has a memo, or :class:`WithheldRows`."""
    sensitive_features: Any = None
    """The labels of the rows, if they have any."""


class WithheldRows:
    """Stands for rows that are not there: only what is remembered of them is known."""

    ndim = 2

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.nbytes = 0

    def __len__(self) -> int:
        return self.shape[0]

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError(
            "the reference was saved without its samples, which this needs; evaluate the Fréchet distance ('fid'), "
            "which can do without, in the groups that the reference has, or take a reference with samples"
        )

    __array__ = __getitem__ = take_rows = join_rows = refuse


def bare(values: Any) -> Any:
    """Return the rows of a prepared set, or else ``values`` themselves."""
    return values.features if isinstance(values, Prepared) else values


def memo_of(values: Any) -> Memo | None:
    """Return the memo that an array belongs to."""
    found = _named(values)
    return None if found is None else found[0]


def subset(features: Any, rows: NDArray[Any], take: Callable[[], Any]) -> Any:
    """Return some rows of a set: those that were declared for a prepared set are taken once."""
    found = _named(features)
    if found is None or found[1] != ROWS:
        return take()
    name = found[0].subset_named(rows)
    return take() if name is None else found[0].recall(name, take)


def of_one_set(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Mark a function that sees one set of rows only: what it returns for a prepared set is remembered.

    The rows are its first argument that is an array, or holds one. Whatever else it depends on is among its arguments:
    arrays, numbers, texts, backends, dataclasses and sequences of these, and Generators. An argument of another kind,
    such as an iterator, is no obstacle, but nothing is remembered then. It returns arrays, numbers and texts, or tuples
    of them. The arrays are read-only.
    """
    return _remembering(function, is_summary=False)


def summary_of_one_set(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Mark such a function whose result may be published where the rows may not: means, covariances.

    A result with an array as long as the set has rows is taken for the rows in another form, and is none.
    """
    return _remembering(function, is_summary=True)


def _remembering(function: Callable[_P, _R], *, is_summary: bool) -> Callable[_P, _R]:
    signature = inspect.signature(function)
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def remembering(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        def compute() -> _R:
            return function(*args, **kwargs)

        if not _NAMED:
            return compute()
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return cast("_R", _remembered(name, list(bound.arguments.values()), compute, is_summary=is_summary))

    return remembering


@implements(HostBackend)
class RememberingBackend(WrappedBackend):
    """A backend that remembers what its primitives return for a prepared set alone."""

    def _run(self, primitive: Primitive, values: dict[str, Any]) -> Any:
        sets = [values[one.name] for one in primitive.arguments if one.is_features and values[one.name] is not None]

        def compute() -> Any:
            for one in sets:
                if isinstance(one, WithheldRows):
                    one.refuse()
            return primitive.call(self._backend, values)

        if len({memo_of(one) for one in sets}) != 1:  # no features, or two sets
            return primitive.joined(compute())
        return primitive.joined(_remembered(primitive.name, [self, *values.values()], compute))


def _remembered(name: str, arguments: Sequence[Any], compute: Callable[[], Any], *, is_summary: bool = False) -> Any:
    """Return ``compute()``, or what it returned before for these arguments.

    The first array among the arguments is the set. Inside of something that is being computed nothing is remembered:
    whoever needs it again needs the whole.
    """
    rows: Any = next(arrays_in(arguments), None)
    memo = memo_of(rows)
    if memo is None or _is_computing():
        return compute()
    generators: list[np.random.Generator] = []
    try:
        key = _key([name, *(_described(argument, memo, generators) for argument in arguments)])
    except _NotDescribedError:
        return compute()

    def with_states() -> Any:
        value = compute()
        return value, tuple(one.bit_generator.state for one in generators)

    value, states = memo.recall(key, with_states, n_summarized=len(rows) if is_summary else 0)
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state
    return value


def _timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    within, _THREAD.computing = _is_computing(), True
    start = time.perf_counter()
    try:
        return compute(), time.perf_counter() - start
    finally:
        _THREAD.computing = within


def _is_computing() -> bool:
    return getattr(_THREAD, "computing", False)


class _NotDescribedError(Exception):
    """An argument that no text can stand for."""


def _described(value: Any, memo: Memo, generators: list[np.random.Generator]) -> str:
    """Return a text that is the same for equal arguments only; ``generators`` gets the Generators that are found."""
    found = _named(value)
    if found is not None and found[0] is memo:
        return f"<{found[1]}>"
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return array_digest(value)
    if isinstance(value, RememberingBackend):
        return value.arithmetic
    if isinstance(value, np.random.Generator):
        generators.append(value)
        return _described(value.bit_generator.state, memo, [])
    if isinstance(value, Mapping):
        value = list(value.items())
    elif dataclasses.is_dataclass(value):
        value = [type(value).__qualname__, *(getattr(value, field.name) for field in dataclasses.fields(value))]
    if isinstance(value, list | tuple):
        return f"({', '.join(_described(one, memo, generators) for one in value)})"
    raise _NotDescribedError


def _key(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def array_digest(array: NDArray[Any]) -> str:
    """Return a text that is the same for arrays of the same dtype, shape and content only."""
    content = np.ascontiguousarray(array)
    found = hashlib.blake2b(content.reshape(-1).view(np.uint8).data, digest_size=16)
    # The order in memory counts: matrix products round differently for another one.
    return f"{array.dtype.str} {array.shape} {array.flags.c_contiguous} {found.hexdigest()}"


def arrays_in(value: Any) -> Iterator[Any]:
    """Yield the arrays and tensors in a value, or what stands for them."""
    if isinstance(value, Mapping):
        value = list(value.values())
    elif dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        for one in value:
            yield from arrays_in(one)
    elif isinstance(value, np.ndarray | WithheldRows) or hasattr(value, "detach"):
        yield value


def _give_name(array: Any, memo: Callable[[], Memo | None], name: str) -> None:
    key = id(array)
    if _named(array) is None:
        with contextlib.suppress(TypeError):  # what cannot be referred to weakly has no name
            _NAMED[key] = _Named(weakref.ref(array, lambda _: _NAMED.pop(key, None)), memo, name)


def _named(array: Any) -> tuple[Memo, str] | None:
    """Return the memo that an array belongs to, and its name there."""
    known = _NAMED.get(id(array))
    if known is None or known.array() is not array:
        return None
    memo = known.memo()
    return None if memo is None else (memo, known.name)
