"""The only place that checks shapes, dtypes, finiteness and groups.

Every message names the argument, what came, what was expected and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops import Features, ShardedFeatures, device_tensor

if TYPE_CHECKING:
    import pandas as pd

_LARGEST = 1e150
"""Above it a squared distance overflows float64."""
_ROWS_BYTES = 1 << 24


def _as_array(values: Any, name: str) -> NDArray[Any]:
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
            f"{name} cannot be read as an array ({error}); pass an (n, d) array of numbers, every row of one length"
        ) from error


def check_features(values: Any, name: str, *, device: str | None = None) -> Features:
    """Return ``values`` as a finite, C-contiguous (n, d) float32 or float64 array, without a copy where it is one.

    float16, bfloat16 and integers become float32 where that loses nothing, else float64. Other layouts (reversed,
    transposed, strided) are copied. With a ``device`` (see :class:`egtmetrics.ops.Backend`) they must lie there, and
    come back as a tensor there. Features that are spread over ranks were checked when they were.
    """
    if isinstance(values, ShardedFeatures):
        return cast("Features", values)
    if device is not None:
        return _check_device_features(values, name, device)
    array = _as_array(values, name)
    real_numbers = (
        np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    )
    _check_layout(array, name, real_numbers=real_numbers)
    n, d = array.shape
    if array.dtype not in (np.float32, np.float64):
        small = array.dtype == np.float16 or array.dtype == bool or array.dtype.itemsize <= 2
        array = array.astype(np.float32 if small else np.float64)
    array = np.ascontiguousarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    step = max(1, _ROWS_BYTES // (array.itemsize * d))
    for start in range(0, n, step):  # in blocks, so that a memory-mapped array is never doubled in memory
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
                f"{name} holds NaN or infinity (first in row {row}); expected finite numbers: remove such rows from "
                f"{name} and from its group labels, or repair the encoder"
            )
    return array


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
        raise ValueError(f"{name} is empty: its shape is {shape}; pass at least one row and one column")


def _check_device_features(values: Any, name: str, device: str) -> Features:
    """The same on a device: two numbers come to the host, and all of them only to say what is wrong."""
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
    """Check both sets and that they live in one space; both come back in one dtype."""
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
    """Check that every row of the set called ``name`` has so many neighbours (``itself``: the row does not count)."""
    k = check_positive_int(n_neighbors, "n_neighbors")
    if n_rows < k + itself:
        raise ValueError(
            f"{name} has {n_rows} rows, but n_neighbors={k} needs at least {k + itself}; add samples or lower "
            "n_neighbors"
        )
    return k


def check_positive_int(value: Any, name: str, *, minimum: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{name}={value!r} is no integer of at least {minimum}; pass one")
    return int(value)


def check_number(
    value: Any, name: str, *, above: float = -np.inf, minimum: float = -np.inf, below: float = np.inf
) -> float:
    """Check ``minimum <= value``, ``above < value < below``; NaN lies nowhere."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not (above < value < below and value >= minimum):
        bounds = [f"of at least {minimum:g}"] * (minimum > -np.inf) + [f"above {above:g}"] * (above > -np.inf)
        bounds += [f"below {below:g}"] * (below < np.inf)
        raise ValueError(f"{name}={value!r} is no number {' and '.join(bounds)}; pass one")
    return float(value)


def check_group_labels(labels: Any, n: int | None, name: str) -> tuple[NDArray[np.int64], pd.Index[Any]]:
    """Return ``group_ids (n,)``, -1 for unassigned rows, and the sorted index of group labels they point into.

    ``labels`` is one sequence, or several (a DataFrame, a mapping of name to sequence, an (n, s) array) whose
    intersections are the groups, as a MultiIndex. A row with a None or NaN label in any feature is unassigned.
    ``n=None`` where no samples say how many labels there must be.
    """
    import pandas as pd  # takes longer to import than everything else here

    names, columns = label_columns(labels, name)
    if columns[0].ndim != 1 or len({column.shape for column in columns}) > 1:
        shapes = ", ".join(f"{key}: {column.shape}" for key, column in zip(names, columns, strict=True))
        raise ValueError(f"{name} has features of wrong or unlike shapes ({shapes}); pass one label per sample in each")
    n_labels = len(columns[0])
    if n is not None and n_labels != n:
        raise ValueError(f"{name} has {n_labels} labels for {n} samples; pass one label per sample, in the same order")
    frame = pd.DataFrame(dict(enumerate(columns)))
    assigned = frame.notna().all(axis=1).to_numpy()
    if not assigned.any():
        raise ValueError(f"{name} assigns none of {n_labels} samples to a group (labels None or NaN); check the labels")
    kept = frame[assigned]
    try:
        for key in kept:
            sorted(kept[key].unique())  # pandas would order 1 before "a" without a word
        if len(names) == 1:
            codes, unique = pd.factorize(kept[0], sort=True)
            group_index: pd.Index[Any] = pd.Index(unique, name=names[0], tupleize_cols=False)
        else:
            codes, combinations = pd.MultiIndex.from_frame(kept).factorize(sort=True)
            group_index = pd.MultiIndex.from_tuples(list(combinations), names=names)
    except TypeError as error:
        raise TypeError(f"{name} mixes labels that cannot be ordered ({error}); use labels of one type") from error
    if len(group_index) == np.count_nonzero(assigned) > 1:
        raise ValueError(
            f"{name} has {len(group_index)} different labels for as many samples, so every group has one sample; pass "
            "group labels, not a continuous feature or an identifier"
        )
    group_ids = np.full(n_labels, -1, dtype=np.int64)
    group_ids[assigned] = codes
    return group_ids, group_index


def label_columns(labels: Any, name: str) -> tuple[list[str], list[NDArray[Any]]]:
    """Split labels into named features."""
    import pandas as pd

    if isinstance(labels, pd.DataFrame | Mapping):
        names = [str(key) for key, _ in labels.items()]
        columns = [_label_array(column, name) for _, column in labels.items()]
    else:
        array = _label_array(labels, name)
        if array.ndim == 1:
            given = labels.name if isinstance(labels, pd.Series | pd.Index) else None
            return ["group" if given is None else str(given)], [array]
        if array.ndim != 2:
            raise ValueError(f"{name} has shape {array.shape}, expected one label per sample, (n,) or (n, features)")
        names = [f"sensitive_feature_{i}" for i in range(array.shape[1])]
        columns = list(array.T)
    if not columns:
        raise ValueError(f"{name} has no columns; pass one label per sample")
    if len(set(names)) < len(names):
        raise ValueError(f"{name} names a feature twice ({', '.join(names)}); rename or drop one")
    return names, columns


def _label_array(labels: Any, name: str) -> NDArray[Any]:
    import pandas as pd

    if hasattr(labels, "detach"):
        return _as_array(labels, name)
    if isinstance(labels, str | bytes) or not (isinstance(labels, Sequence) or hasattr(labels, "__array__")):
        raise TypeError(f"{name} is {type(labels).__name__}, expected a sequence with one label per sample")
    # as objects: NumPy would make floats of pandas' Int64, and strings of the NaN in ["a", nan] and the 1 in ["a", 1]
    if isinstance(labels, pd.Series | pd.Index):
        return labels.to_numpy(dtype=object)
    return np.asarray(labels) if hasattr(labels, "__array__") else np.asarray(labels, dtype=object)
