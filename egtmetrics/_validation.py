"""Check shapes, dtypes and finiteness of features, numbers and texts.

Every message names the argument, what came, what was expected and what to do about it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops import Features, ShardedFeatures, device_tensor, take_rows, to_host

_LARGEST = 1e150
"""Above this, a squared distance overflows float64."""
_ROWS_BYTES = 1 << 24
_CHECKED: dict[int, weakref.ref[Any]] = {}
"""By ``id``: features that passed a check. Whoever receives them cannot change them any more."""


def keep_checked(features: Features) -> Features:
    """Return features that passed :func:`check_features` as a read-only view, which is not checked again.

    Several metrics see the same samples; without this, each would read all of them again. The view is an object of its
    own: what the caller holds is checked again, because its owner may write to it. A tensor cannot be read-only.
    """
    kept: Any = features
    if isinstance(kept, ShardedFeatures):
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
    """Whether ``values`` comes from :func:`keep_checked`."""
    known = _CHECKED.get(id(values))
    return known is not None and known() is values


def take_checked(features: Features, rows: NDArray[Any]) -> Features:
    """Copy rows of checked features; the copy needs no check either."""
    return keep_checked(take_rows(features, rows))


def as_array(values: Any, name: str) -> NDArray[Any]:
    if np.ma.is_masked(values):
        raise TypeError(f"{name} has masked values, which NumPy would read as data; remove those rows first")
    if hasattr(values, "detach"):  # a torch tensor: no copy on the CPU, and torch is never imported here
        values = values.detach()
        if values.device.type != "cpu":
            values = values.cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"{name} cannot be read as an array ({error}); pass an (n, d) array of numbers, all rows of the same length"
        ) from error


def check_features(values: Any, name: str, *, device: str | None = None) -> Features:
    """Return ``values`` as a finite, C-contiguous (n, d) float32 or float64 array, without a copy if it is one already.

    float16, bfloat16 and integers become float32 if that loses nothing, else float64. Other layouts (reversed,
    transposed, strided) are copied. With a ``device`` (see :class:`egtmetrics.ops.Backend`), the values must be on that
    device, and are returned as a tensor there. Features spread over ranks were checked when they were spread.
    """
    if isinstance(values, ShardedFeatures):
        return cast("Features", values)
    if is_checked(values) and isinstance(values, np.ndarray) == (device is None):
        return cast("Features", values)
    if is_checked(values) and device is None:
        return keep_checked(to_host(values))
    if device is not None:
        return _check_device_features(values, name, device)
    array = as_array(values, name)
    real_numbers = (
        np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    )
    _check_layout(array, name, real_numbers=real_numbers)
    if array.dtype not in (np.float32, np.float64):
        small = array.dtype == np.float16 or array.dtype == bool or array.dtype.itemsize <= 2
        array = array.astype(np.float32 if small else np.float64)
    array = np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    _check_finite(array, name)
    return array


def _check_finite(array: NDArray[Any], name: str) -> None:
    n, d = array.shape
    step = max(1, _ROWS_BYTES // (array.itemsize * d))
    for start in range(0, n, step):  # in blocks, because a memory-mapped array may not fit into memory
        block = array[start : start + step]
        largest = max(float(block.max()), -float(block.min()))
        if not largest < _LARGEST:
            finite = np.isfinite(block)
            if finite.all():
                raise ValueError(
                    f"{name} holds the value {largest:.3g}, whose squared distances overflow float64; rescale the "
                    f"features to at most {_LARGEST:g}"
                )
            row = start + int(np.argmin(finite.all(axis=1)))
            raise ValueError(
                f"{name} holds NaN or infinity (first in row {row}), expected finite numbers; remove such rows from "
                f"{name} and from its group labels, or repair the encoder"
            )


def _check_layout(array: Any, name: str, *, real_numbers: bool) -> None:
    if not real_numbers:
        raise TypeError(
            f"{name} has dtype {array.dtype}, expected real numbers; convert it, for example with "
            f"numpy.asarray({name}, dtype=numpy.float32)"
        )
    shape = tuple(array.shape)
    if len(shape) != 2:
        raise ValueError(
            f"{name} has shape {shape}, expected two dimensions (n_samples, n_features); flatten each sample, "
            f"for example with {name}.reshape(len({name}), -1)"
        )
    if 0 in shape:
        raise ValueError(f"{name} is empty, its shape is {shape}; pass at least one row and one column")


def _check_device_features(values: Any, name: str, device: str) -> Features:
    """The same on a device. Two numbers are copied to the host; all values only to say which one is wrong."""
    tensor: Any = device_tensor(values, name, device)
    _check_layout(tensor, name, real_numbers=not tensor.is_complex())
    if tensor.element_size() <= 2:
        tensor = tensor.float()
    elif not tensor.is_floating_point():
        tensor = tensor.double()
    tensor = tensor.contiguous()
    smallest, largest = (float(value) for value in tensor.aminmax())
    if not max(largest, -smallest) < _LARGEST:
        check_features(tensor.cpu(), name)
    return cast("Features", tensor)


def check_real_fake(real: Any, fake: Any, *, device: str | None = None) -> tuple[Features, Features]:
    """Check both sets, and that they have the same features; return both with the same dtype."""
    checked_real, checked_fake = (
        check_features(x, name, device=device) for x, name in ((real, "real"), (fake, "fake"))
    )
    if checked_real.shape[1] != checked_fake.shape[1]:
        raise ValueError(
            f"real has {checked_real.shape[1]} features and fake has {checked_fake.shape[1]}; both must come from the "
            "same encoder"
        )
    if checked_real.dtype == checked_fake.dtype:
        return checked_real, checked_fake
    return _as_float64(checked_real), _as_float64(checked_fake)


def _as_float64(features: Any) -> Features:
    if isinstance(features, np.ndarray):
        return features.astype(np.float64, copy=False)
    return cast("Features", features.double())


def check_n_neighbors(n_neighbors: Any, n_rows: int, name: str, *, itself: bool = True) -> int:
    """Check that every row of the set ``name`` has ``n_neighbors``; with ``itself``, a row is not its own neighbour."""
    k = check_positive_int(n_neighbors, "n_neighbors")
    if n_rows < k + itself:
        raise ValueError(
            f"{name} has {n_rows} rows, but n_neighbors={k} needs at least {k + itself}; add samples or lower "
            "n_neighbors"
        )
    return k


def check_texts(values: Any, name: str, *, allow_none: bool = False) -> Any:
    """Check a sequence of str, with ``allow_none`` also of None."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{name} is {type(values).__name__}, expected a sequence of str; pass a list")
    for i, value in enumerate(values):
        if not isinstance(value, str) and not (allow_none and value is None):
            raise TypeError(f"{name}[{i}] is {type(value).__name__}, expected str; leave it out or convert it")
    return values


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
