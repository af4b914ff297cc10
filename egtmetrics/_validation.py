"""Check shapes, dtypes and finiteness of features, numbers and texts.

Every message names the argument, what came, what was expected and what to do about it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from egtmetrics._arrays import as_array, as_dtype, as_floats, is_real
from egtmetrics._errors import TooFewSamplesError
from egtmetrics._mapped import is_mapped, rows_in_file
from egtmetrics.ops import (
    Features,
    ShardedFeatures,
    bare,
    column_ranges,
    device_tensor,
    growing_part,
    memo_of,
    of_one_set,
    subset,
    take_rows,
    to_host,
)

_LARGEST, _SMALLEST = 1e100, 1e-100
"""Of the largest number of a set: far beyond these, squared distances overflow float64 or lose digits in it."""
_ROWS_BYTES = 1 << 24
_MOST_IN_MEMORY = 1 << 28
"""Of a part of a mapped file: groups of a small file are taken, and permuted, in memory."""
_CHECKED: dict[int, weakref.ref[Any]] = {}
"""By ``id``: features that passed a check. Whoever receives them cannot change them any more."""


def keep_checked(features: Features) -> Features:
    """Return features that passed :func:`check_features` as a read-only view, which is not checked again.

    Several metrics see the same samples; without this, each would read all of them again. The view is an object of its
    own: what the caller holds is checked again, because its owner may write to it. A tensor cannot be read-only.
    """
    kept: Any = features
    if isinstance(kept, ShardedFeatures) or is_checked(kept):
        return features
    if isinstance(kept, np.ndarray):
        kept = kept.view()
        kept.flags.writeable = False
    else:
        kept = kept.detach()
    key = id(kept)
    _CHECKED[key] = weakref.ref(kept, lambda _: _CHECKED.pop(key, None))
    return cast("Features", kept)


def is_checked(values: Any) -> bool:
    """Whether ``values`` comes from :func:`keep_checked`, or belongs to a prepared set."""
    known = _CHECKED.get(id(values))
    return (known is not None and known() is values) or memo_of(values) is not None


def take_checked(features: Features, rows: NDArray[Any]) -> Features:
    """Copy rows of checked features; the copy needs no check either. A large part of a mapped file becomes another.

    All rows in their order are the features themselves, and the rows of a group of a prepared set are copied once.
    """
    numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
    if len(numbers) == len(features) and np.array_equal(numbers, np.arange(len(features))):
        return features

    def take() -> Features:
        if is_mapped(features):
            row_bytes, width = features[:1].nbytes, features.shape[1]
            if len(numbers) * row_bytes > _MOST_IN_MEMORY:
                step = max(1, _ROWS_BYTES // row_bytes)
                blocks = (features[numbers[start : start + step]] for start in range(0, len(numbers), step))
                return keep_checked(rows_in_file(blocks, features.dtype, width))
        return keep_checked(take_rows(features, numbers))

    return growing_part(features, numbers, subset(features, numbers, take))


def check_features(values: Any, name: str, *, device: str | None = None) -> Features:
    """Return ``values`` as a finite, C-contiguous (n, d) float32 or float64 array, without a copy if it is one already.

    Numbers of at most 16 bits, such as float16 and bfloat16, become float32, which holds them; all others become
    float64, and integers that it cannot hold are refused. Other layouts (reversed, transposed, strided) are copied.
    What is converted of a mapped file is written to a temporary one, a block at a time, and mapped in turn. With a
    ``device`` (see :class:`egtmetrics.ops.Backend`), the values must be on that device, and are returned as a tensor
    there. Features spread over ranks were checked when they were spread, those of a reference when it was made.
    """
    values = bare(values)
    if isinstance(values, ShardedFeatures):
        return cast("Features", values)
    if is_checked(values) and isinstance(values, np.ndarray) == (device is None):
        return cast("Features", values)
    if is_checked(values) and device is None:
        return _host_copy(values)
    if device is not None:
        return _check_device_features(values, name, device)
    array = as_array(values, name)
    _check_layout(array, name, values)
    array = as_floats(array, name)
    _check_finite(array, name)
    return array


@of_one_set
def _host_copy(features: Any) -> Features:
    return keep_checked(to_host(features))


def is_empty(values: Any) -> bool:
    """Whether features have no rows: an empty sequence, or ``(0, d)``, which a filter leaves."""
    shape = getattr(values, "shape", None)
    return isinstance(values, Sequence) and len(values) == 0 if shape is None else tuple(shape)[:1] == (0,)


def _check_finite(array: NDArray[Any], name: str) -> None:
    n, d = array.shape
    step = max(1, _ROWS_BYTES // (array.itemsize * d))
    largest_of_all = 0.0
    for start in range(0, n, step):  # in blocks, because a memory-mapped array may not fit into memory
        block = array[start : start + step]
        largest = max(float(block.max()), -float(block.min()))
        largest_of_all = max(largest_of_all, largest)
        if not largest <= _LARGEST:
            finite = np.isfinite(block)
            if finite.all():
                raise ValueError(
                    f"{name} holds a number of size {largest:.3g}, and squared distances would overflow float64; "
                    f"rescale real and fake by one factor, to at most {_LARGEST:g}"
                )
            row = start + int(np.argmin(finite.all(axis=1)))
            raise ValueError(
                f"{name} holds NaN or infinity (first in row {row}), expected finite numbers; remove such rows from "
                f"{name} and from its group labels, or repair the encoder"
            )
    if 0.0 < largest_of_all < _SMALLEST:
        raise ValueError(
            f"{name} holds no number of a size above {largest_of_all:.3g}, and squared distances would vanish in "
            f"float64; rescale real and fake by one factor, to at least {_SMALLEST:g}"
        )


def _check_layout(array: Any, name: str, values: Any) -> None:
    """Check the dtype and shape of an array or tensor that was read from ``values``."""
    is_tensor = hasattr(values, "detach")
    if array.is_complex() if hasattr(array, "detach") else not is_real(array.dtype):
        raise TypeError(f"{name} {_no_numbers(array, name, values)}")
    shape = tuple(array.shape)
    if len(shape) != 2 and shape != (0,):  # an empty list
        remedy = "pass one row for each sample"
        if len(shape) == 1:
            one_column = f"{name}[:, None]" if is_tensor else f"numpy.reshape({name}, (-1, 1))"
            remedy = f"of a single feature pass one column, for example with {one_column}"
        elif len(shape) > 2:
            flat = f"{name}.flatten(1)" if is_tensor else f"numpy.reshape({name}, (len({name}), -1))"
            joined = f"{name}.flatten(0, 1)" if is_tensor else f"numpy.reshape({name}, (-1, {shape[2]}))"
            remedy = f"flatten each sample, for example with {flat}"
            remedy += f", or join batches, for example with {joined}" if len(shape) == 3 else ""
        raise ValueError(f"{name} has shape {shape}, expected two dimensions (n_samples, n_features); {remedy}")
    if 0 in shape:
        raise ValueError(f"{name} is empty, its shape is {shape}; pass at least one row and one column")


def _no_numbers(array: Any, name: str, values: Any) -> str:
    """Say what an array holds that is no real numbers, and what to do about it."""
    found = f"has dtype {array.dtype}, expected real numbers; "
    kind = "c" if hasattr(array, "detach") else array.dtype.kind
    if kind == "c":
        if hasattr(values, "detach"):
            return found + f"take both parts as features, for example with torch.view_as_real({name}).flatten(1)"
        return (
            found
            + f"take both parts as features, for example with numpy.hstack([numpy.real({name}), numpy.imag({name})])"
        )
    if kind == "m":
        return found + f"choose a unit, for example with numpy.asarray({name}) / numpy.timedelta64(1, 's')"
    if kind == "M":
        since = f"(numpy.asarray({name}) - numpy.datetime64(0, 's')) / numpy.timedelta64(1, 's')"
        return found + f"choose a unit and an origin, for example with {since}"
    if kind == "V" and array.dtype.names is None:
        return found + "numpy.save keeps no type of bfloat16 and its like; save float32 instead"
    if kind == "V":
        return found + f"join its fields, for example with numpy.lib.recfunctions.structured_to_unstructured({name})"
    if kind in "SUT":
        with contextlib.suppress(ValueError):
            array.astype(np.float64)
            return found + f"convert it, for example with numpy.asarray({name}, dtype=numpy.float64)"
        return found + "pass features of the texts, such as those of egtmetrics.encoders.TextEncoder"
    if array.ndim == 0:
        return f"is {type(values).__name__}, expected an (n, d) array of real numbers; pass one"
    return found + "convert it to numbers"


def _check_device_features(values: Any, name: str, device: str) -> Features:
    """The same on a device. The range of every column is copied to the host; all only to say which value is wrong."""
    tensor: Any = device_tensor(values, name, device)
    _check_layout(tensor, name, tensor)
    given = tensor
    if tensor.element_size() <= 2:
        tensor = tensor.float()
    elif not tensor.is_floating_point():
        tensor = tensor.double()
    tensor = tensor.contiguous()
    low, high = column_ranges(tensor)
    check_extremes(
        given, name, float(low.min()), float(high.max()), limit=_LARGEST if given.is_floating_point() else 2.0**53
    )
    return cast("Features", tensor)


def check_extremes(features: Any, name: str, smallest: float, largest: float, *, limit: float = _LARGEST) -> None:
    """Raise what :func:`check_features` raises, given the extreme values: only to say where, all are looked at."""
    size = max(largest, -smallest)
    if not (size >= _SMALLEST or size == 0.0) or not size <= limit:
        check_features(to_host(features), name)


def check_real_fake(
    real: Any, fake: Any, *, device: str | None = None, names: tuple[str, str] = ("real", "fake")
) -> tuple[Features, Features]:
    """Check both sets, and that they have the same features; return both with the same dtype."""
    checked_real, checked_fake = (
        check_features(x, name, device=device) for x, name in zip((real, fake), names, strict=True)
    )
    if checked_real.shape[1] != checked_fake.shape[1]:
        raise ValueError(
            f"{names[0]} has {checked_real.shape[1]} features and {names[1]} has {checked_fake.shape[1]}; both must "
            "come from the same encoder"
        )
    if checked_real.dtype == checked_fake.dtype:
        return checked_real, checked_fake
    pairs = (checked_real, checked_fake), (checked_fake, checked_real)
    for name, (one, other) in zip(names, pairs, strict=True):
        if memo_of(one) is not None:
            raise TypeError(
                f"{name} is a reference of {one.dtype} features and the other set is {other.dtype}, so nothing in the "
                f"reference would fit; convert the other set to {one.dtype}, or make a reference of {other.dtype}"
            )
    return _as_float64(checked_real, names[0]), _as_float64(checked_fake, names[1])


def _as_float64(features: Any, name: str) -> Features:
    if isinstance(features, np.ndarray):
        return as_dtype(features, np.float64, name)
    return cast("Features", features.double())


def check_n_neighbors(n_neighbors: Any, n_rows: int, name: str, *, itself: bool = True) -> int:
    """Check that every row of the set ``name`` has ``n_neighbors``; with ``itself``, a row is not its own neighbour."""
    k = check_positive_int(n_neighbors, "n_neighbors")
    if n_rows < k + itself:
        raise TooFewSamplesError(
            f"{name} has {n_rows} rows, but n_neighbors={k} needs at least {k + itself}; add samples or lower "
            "n_neighbors",
            needed=k + itself,
        )
    return k


def check_texts(values: Any, name: str, *, allow_none: bool = False) -> list[Any]:
    """Return a sequence or column of str as a list; with ``allow_none`` also of None, which NaN and NA become."""
    if hasattr(values, "to_pylist"):  # a column of pyarrow
        values = values.to_pylist()
    # Not a set, which has no order, nor a table, which gives the names of its columns.
    is_column = hasattr(values, "__array__") and np.ndim(values) == 1
    if isinstance(values, str | bytes) or not (isinstance(values, Sequence) or is_column):
        raise TypeError(f"{name} is {type(values).__name__}, expected a sequence of str; pass a list")
    texts = list(values)
    for i, value in enumerate(texts):
        if isinstance(value, str):
            continue
        missing = np.ndim(value) == 0 and _is_missing(value)
        if not (missing and allow_none):
            found = "missing" if missing else type(value).__name__
            remedy = "decode it" if isinstance(value, bytes) else "leave it out or convert it"
            raise TypeError(f"{name}[{i}] is {found}, expected str; {remedy}")
        texts[i] = None
    return texts


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))


def check_positive_int(value: Any, name: str, *, minimum: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{name}={value!r} is not an integer of at least {minimum}; pass one")
    return int(value)


def check_number(
    value: Any, name: str, *, above: float = -np.inf, minimum: float = -np.inf, below: float = np.inf
) -> float:
    """Check ``minimum <= value`` and ``above < value < below``; NaN is always refused."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not (above < value < below and value >= minimum):
        bounds = [f"of at least {minimum:g}"] * (minimum > -np.inf) + [f"above {above:g}"] * (above > -np.inf)
        bounds += [f"below {below:g}"] * (below < np.inf)
        raise ValueError(f"{name}={value!r} is not a number {' and '.join(bounds)}; pass one")
    return float(value)


def check_level(level: Any) -> float:
    """Check a confidence level."""
    if not isinstance(level, float | np.floating) or not 0.0 < level < 1.0:
        raise ValueError(f"level={level!r} is not a number strictly between 0 and 1; pass one, for example 0.95")
    return float(level)
