"""The primitives on CUDA tensors, and the backend that lets the metrics run on them.

torch allocates the results and names the stream; the compiled module does not use torch, so it works with any version.
torch is imported by the first function that needs it, never by importing egtmetrics.

Calls queue their work on torch's current stream of the tensors' device, and return. A tensor that was allocated on that
stream may be freed as soon as the call returns: torch reuses its memory in the order of the stream, after the kernels
that read it. As for every torch operation, the caller synchronizes a tensor of another stream. If such a tensor may be
freed before the work is done, the caller also tells torch of its use here with ``record_stream``, which holds back the
reuse of its memory and does nothing else. Memory of other libraries must live until the work is done.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops._backend import Features, LocalBackend
from egtmetrics.ops._memo import bare
from egtmetrics.ops._native import cuda_module
from egtmetrics.ops._primitives import Primitive, Value, implements

if TYPE_CHECKING:
    import torch

_MOST_ROWS = 2**31 - 1024
_SAME_BITS = {"uint16": ["uint16", "int16"]}
"""Counts may come as either: torch before 2.3 knows no uint16."""
_DLPACK_CUDA = 2
"""The number of CUDA memory among the devices of DLPack."""
_OR_ON_HOST = "or take the features to the host and use backend='cpu'"


class NoDeviceError(RuntimeError):
    """The CUDA kernels are installed, but there is no device to run them on."""


class DeviceFallbackWarning(UserWarning):
    """Features lie on a CUDA device, but the CUDA kernels cannot run on them: they are copied for the CPU kernels."""


@cache  # once for the process
def _warn_fallback(reason: str) -> None:
    warnings.warn(
        f"features on a CUDA device are copied to the host for the CPU kernels: {reason}",
        DeviceFallbackWarning,
        stacklevel=5,
    )


class DeviceArrays:
    """Checks tensors on one type of device."""

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type

    def on_device(self, values: Any) -> torch.Tensor | None:
        """Return ``values`` as a tensor that shares its memory, or None where it does not lie on a device."""
        on_one = hasattr(values, "detach") and values.device.type == self.device_type
        return cast("torch.Tensor", values.detach()) if on_one else None

    def tensor(self, values: Any, name: str, device: str | None = None) -> torch.Tensor:
        """Return ``values``, the argument called ``name``, as :meth:`on_device` does, or raise if it lies elsewhere."""
        tensor = self.on_device(values)
        if tensor is None:
            kind = f"a tensor on {values.device}" if hasattr(values, "detach") else f"of type {type(values).__name__}"
            raise ValueError(
                f"{name} is {kind}, expected an array on a {self.device_type.upper()} device; move it there, for "
                f"example with torch.as_tensor({name}).{self.device_type}()"
            )
        if device is not None and str(tensor.device) != device:
            raise ValueError(
                f"{name} lies on {tensor.device}, expected {device}, where the other arrays are; move it there, for "
                f"example with torch.as_tensor({name}, device={device!r})"
            )
        return tensor

    def check(self, primitive: Primitive, values: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a primitive, arrays as tensors of the declared dtypes and shapes on one device."""
        checked: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        first: torch.Tensor | None = None
        for argument in primitive.arguments:
            name, value = argument.name, values[argument.name]
            if value is None and not argument.optional:
                raise TypeError(f"{name} is None, expected an array; to compare a set with itself, pass x again")
            if value is not None and argument.on_device:
                check = self._features if argument.is_features else self._array
                value = first = check(value, argument, lengths, first)
                lengths |= zip(argument.lengths, value.shape, strict=True)
            elif value is not None and argument.on_host:
                value = value.tolist() if hasattr(value, "tolist") else list(value)
            elif argument.is_features:
                lengths["m"] = lengths["n"]
            checked[name] = value
        _check_n_neighbors(primitive, checked)
        _check_which_radii(primitive, checked)
        return checked

    def _array(self, values: Any, argument: Value, lengths: dict[str, int], first: torch.Tensor | None) -> torch.Tensor:
        """Check an array of declared lengths; one that no earlier argument has fixed may be any positive number."""
        name, shape = argument.name, [lengths.get(length) for length in argument.lengths]
        tensor = self.tensor(values, name, None if first is None else str(first.device))
        dtypes = [f"torch.{dtype}" for dtype in _SAME_BITS.get(argument.dtype, [argument.dtype])]
        if str(tensor.dtype) not in dtypes:
            raise TypeError(
                f"{name} has dtype {tensor.dtype}, expected {' or '.join(dtypes)}; convert it with "
                f"{name}.to({dtypes[0]})"
            )
        fits = len(tensor.shape) == len(shape) and all(
            length == wanted if wanted is not None else length > 0
            for length, wanted in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected ({wanted}); pass such an array")
        return _check_contiguous(tensor, name)

    def _features(
        self, values: Any, argument: Value, lengths: dict[str, int], first: torch.Tensor | None
    ) -> torch.Tensor:
        name = argument.name
        tensor = self.tensor(values, name, None if first is None else str(first.device))
        if str(tensor.dtype) not in ("torch.float32", "torch.float64"):
            raise TypeError(
                f"{name} has dtype {tensor.dtype}, expected torch.float32 or torch.float64; convert it with "
                f"{name}.float()"
            )
        if tensor.ndim != 2 or 0 in tensor.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected (n, d) with at least one row and one column; "
                f"flatten each sample, for example with {name}.flatten(1)"
            )
        if max(tensor.shape) > _MOST_ROWS:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected at most {_MOST_ROWS} rows and columns; take fewer"
            )
        if first is not None and tensor.dtype != first.dtype:
            raise TypeError(f"x has dtype {first.dtype} and y {tensor.dtype}, expected one dtype; convert either")
        if tensor.shape[1] != lengths.get("d", tensor.shape[1]):
            raise ValueError(
                f"x has {lengths['d']} columns and y has {tensor.shape[1]}; both must be features from one encoder"
            )
        return _check_contiguous(tensor, name)


@implements(LocalBackend)
class DeviceKernels(DeviceArrays):
    """The compiled module on tensors: the primitives, with results that lie on the device of the arguments.

    The module takes the arguments in the order of their declaration. First, where there are features: their dtype, the
    address and number of rows of each set (0 and 0 for one not given), the number of columns. Then the others: an array
    as its address (0 where not given) and those of its lengths that have not been passed yet, an array that is read on
    the host as a list. Then the addresses of the results, the device and the stream.
    """

    def __init__(self, load: Callable[[], ModuleType], device_type: str) -> None:
        super().__init__(device_type)
        self._load = load
        self._sound: set[int] = set()

    def on_device(self, values: Any) -> torch.Tensor | None:
        """Return ``values`` as a tensor that shares its memory, or None where it does not lie on a device.

        Besides tensors that is all with DLPack or the CUDA array interface, such as arrays of CuPy, JAX and Numba.
        """
        values = bare(values)
        if hasattr(values, "detach"):
            return super().on_device(values)
        if _dlpack_device_type(values) == _DLPACK_CUDA:
            _require_torch()
            from torch.utils.dlpack import from_dlpack

            return from_dlpack(values)  # which makes the current stream wait for the array
        interface = getattr(values, "__cuda_array_interface__", None)
        if interface is None:
            return None
        module = self.module
        import torch

        address = interface["data"][0]  # 0 where the array is empty
        # The interface does not name the device, and torch copies an array that lies on another one than it is told.
        device = torch.device("cuda", module.device_of(address) if address else torch.cuda.current_device())
        if interface.get("stream") is not None:
            stream: Any = torch.cuda.ExternalStream
            torch.cuda.current_stream(device).wait_stream(stream(interface["stream"], device))
        return torch.as_tensor(values, device=device)

    @cached_property
    def module(self) -> Any:
        """The module, ready to run: else ImportError or NoDeviceError say what is missing."""
        try:
            module = self._load()
        except ImportError as error:
            raise ImportError(
                f"the CUDA kernels cannot be loaded ({error}); install egtmetrics where nvcc is found, so that they "
                f"are built, {_OR_ON_HOST}"
            ) from error
        reason = module.device_error()
        if reason:
            raise NoDeviceError(f"there is no CUDA device to run on ({reason}); check nvidia-smi, {_OR_ON_HOST}")
        if self.device_type == "cuda":
            _require_torch()
        return module

    def require(self, device: torch.device) -> None:
        """Raise NoDeviceError where the kernels hold no code that the device can run."""
        if device.type == "cuda" and device.index not in self._sound:
            module = self.module
            major, minor = module.device_info(device.index)["capability"]
            built = module.build_info()["architectures"]
            if not _runs(built, 10 * major + minor):
                raise NoDeviceError(
                    f"{device} has compute capability {major}.{minor}, and the CUDA kernels were built for {built}; "
                    f"install egtmetrics with EGTMETRICS_CUDA_ARCHITECTURES={10 * major + minor}, if its CUDA toolkit "
                    f"still compiles for that, {_OR_ON_HOST}"
                )
            self._sound.add(device.index)

    def current_device(self) -> torch.device:
        """Return where torch puts new tensors."""
        import torch

        return torch.device("cuda", torch.cuda.current_device()) if self.device_type == "cuda" else torch.device("cpu")

    def run(
        self, primitive: Primitive, values: dict[str, Any], device: torch.device | None = None
    ) -> list[torch.Tensor]:
        """Return the results of a primitive, one tensor each, on the device of its arguments.

        A primitive that takes no arrays runs on ``device``, or else on the current one.
        """
        checked = self.check(primitive, values)
        if primitive.takes_arrays:
            device = checked[primitive.arguments[0].name].device
        elif device is None:
            device = self.current_device()
        self.require(device)
        results = new_tensors(primitive, checked, device)
        self._call(primitive.name, device, *_passed(primitive, checked), *(one.data_ptr() for one in results))
        return results

    def _run(self, primitive: Primitive, values: dict[str, Any]) -> Any:
        return primitive.joined(self.run(primitive, values))

    def _call(self, function: str, device: torch.device, *arguments: Any) -> None:
        import torch

        module = self.module
        call, queue = getattr(module, function), current_queue(device)
        try:
            call(*arguments, *queue)
        except module.DeviceMemoryError:  # torch keeps memory that it no longer uses; the kernels need some for a while
            torch.cuda.empty_cache()
            call(*arguments, *queue)


KERNELS = DeviceKernels(cuda_module, "cuda")
"""The only instance; tests replace it by one that takes tensors in host memory for those on a device."""


def current_queue(device: torch.device) -> tuple[int, int]:
    """Index of a device and address of torch's current stream there, as the module takes them."""
    if device.type != "cuda":
        return 0, 0
    import torch

    return device.index, torch.cuda.current_stream(device).cuda_stream


def common_device(*features: Any) -> str | None:
    """Return the one device on which all ``features`` lie, if the kernels can run there, else None.

    Where some lie on a device in vain, a warning says why, once.

    >>> import numpy as np
    >>> common_device(np.zeros((3, 2)), np.zeros((4, 2))) is None
    True
    """
    try:
        places = _places(*features)
        if places <= {None}:
            return None
        if len(places) > 1:
            where = " and ".join(sorted("the host" if place is None else str(place) for place in places))
            _warn_fallback(f"all sets must lie on one device, and these lie on {where}; move all to one")
            return None
        (device,) = places
        _ = KERNELS.module
        KERNELS.require(cast("torch.device", device))
    except (ImportError, NoDeviceError) as error:
        _warn_fallback(str(error))
        return None
    return str(device)


def device_of(*features: Any) -> str | None:
    """Return the one device on which all ``features`` lie, whether or not the kernels can run there, else None.

    It is for what other libraries compute there.

    >>> import numpy as np
    >>> device_of(np.zeros((3, 2))) is None
    True
    """
    try:
        places = _places(*features)
    except (ImportError, NoDeviceError):
        return None
    (device,) = places if len(places) == 1 else (None,)
    return None if device is None else str(device)


def _places(*features: Any) -> set[torch.device | None]:
    """Return where the features lie; None stands for the host."""
    tensors = map(KERNELS.on_device, features)
    return {None if tensor is None else tensor.device for tensor in tensors}


def device_tensor(values: Any, name: str, device: str) -> torch.Tensor:
    """Return ``values`` as a tensor that shares its memory; ValueError if it does not lie on ``device``."""
    return KERNELS.tensor(values, name, device)


def to_device(features: NDArray[Any]) -> torch.Tensor:
    """Copy an array to the current device."""
    device = select_device()
    import torch

    return torch.tensor(features, device=device)


def select_device(*features: Any) -> str:
    """Return the device of the first of ``features`` that lies on one, else the current one; raise if none can run."""
    _ = KERNELS.module
    for values in features:
        tensor = KERNELS.on_device(values)
        if tensor is not None:
            KERNELS.require(tensor.device)
            return str(tensor.device)
    device = KERNELS.current_device()
    KERNELS.require(device)
    return str(device)


def to_host(features: Any) -> Features:
    """Return features of any backend as a NumPy array.

    >>> import numpy as np
    >>> to_host(np.zeros((1, 2)))
    array([[0., 0.]])
    """
    features = bare(features)
    if isinstance(features, np.ndarray):
        return features
    if hasattr(features, "take_rows"):  # spread over ranks: rows are fetched as they are asked for
        return cast("Features", features)
    return cast("Features", features.cpu().numpy())


def take_rows(features: Any, rows: NDArray[Any] | slice) -> Features:
    """Copy some rows, by number, by a mask or by a slice, to where the features are.

    Numbers that already lie there, a tensor, stay there.

    >>> import numpy as np
    >>> take_rows(np.arange(6.0).reshape(3, 2), np.array([2, 0]))
    array([[4., 5.],
           [0., 1.]])
    """
    if isinstance(features, np.ndarray):
        taken = features[rows]
        return cast("Features", np.ascontiguousarray(taken) if isinstance(rows, slice) else taken)
    if hasattr(features, "take_rows"):
        return cast("Features", features.take_rows(np.arange(len(features))[rows] if isinstance(rows, slice) else rows))
    if isinstance(rows, slice):
        return cast("Features", features[rows].contiguous())
    if hasattr(rows, "detach"):
        return cast("Features", features.index_select(0, rows))
    import torch

    numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
    return cast("Features", features.index_select(0, torch.tensor(numbers, device=features.device)))


def join_rows(x: Any, y: Any) -> Features:
    """Put the rows of y under those of x.

    >>> import numpy as np
    >>> join_rows(np.zeros((1, 2)), np.ones((1, 2)))
    array([[0., 0.],
           [1., 1.]])
    """
    if isinstance(x, np.ndarray):
        return np.concatenate([x, y])
    if hasattr(x, "join_rows"):
        return cast("Features", x.join_rows(y))
    import torch

    return cast("Features", torch.cat([x, y]))


def smallest_at(values: Any, ranks: Sequence[int]) -> NDArray[np.float64]:
    """Return the values that have these ranks in ascending order, from 0, on the host.

    >>> import numpy as np
    >>> smallest_at(np.array([3.0, 1.0, 2.0]), [0, 2])
    array([1., 3.])
    """
    if isinstance(values, np.ndarray):
        return cast("NDArray[np.float64]", np.partition(values, ranks)[ranks])
    import torch

    ordered = torch.sort(values).values
    return cast("NDArray[np.float64]", torch.stack([ordered[rank] for rank in ranks]).cpu().numpy())


def column_ranges(features: Any) -> tuple[Features, Features]:
    """Return the smallest and the largest value of every column, on the host.

    >>> import numpy as np
    >>> column_ranges(np.array([[1.0, 5.0], [3.0, 4.0]]))
    (array([1., 4.]), array([3., 5.]))
    """
    if isinstance(features, np.ndarray):
        return features.min(axis=0), features.max(axis=0)
    import torch

    low, high = torch.stack([features.amin(dim=0), features.amax(dim=0)]).cpu().numpy()
    return low, high


def n_true(*masks: Any) -> list[int]:
    """Count what is true in each mask.

    >>> import numpy as np
    >>> n_true(np.array([True, False, True]), np.array([False]))
    [2, 0]
    """
    if isinstance(masks[0], np.ndarray):
        return [int(np.count_nonzero(mask)) for mask in masks]
    import torch

    return cast("list[int]", torch.stack([mask.sum() for mask in masks]).tolist())


def device_order(x: torch.Tensor) -> torch.Tensor:
    """Order the rows of features by their bytes; equal rows keep their order.

    Further columns are looked at only for rows that are equal so far. The host waits once for each round of columns, to
    know how many rows are left.
    """
    import torch

    n, d = x.shape
    everyone = torch.arange(n, device=x.device)
    places = torch.zeros_like(everyone)
    tied = everyone
    start, width = 0, 2
    while start < d and len(tied):
        head = x[:, start : start + width]
        place = places[tied]
        columns = torch.column_stack([place, _in_order_of_bytes(head[tied] if start else head)])
        order = everyone[: len(tied)]
        for column in reversed(columns.unbind(dim=1)):  # stable sorts, the last column first
            order = order[torch.sort(column[order], stable=True).indices]
        columns, place = columns[order], place[order]
        first = torch.ones(1, dtype=torch.bool, device=x.device)
        new_class = torch.cat([first, place[1:] != place[:-1]])
        new_place = torch.cat([first, (columns[1:] != columns[:-1]).any(dim=1)])
        number = everyone[: len(tied)]
        before = (number * new_place).cummax(dim=0).values - (number * new_class).cummax(dim=0).values
        places[tied[order]] = place + before
        tied = tied[order][~(new_place & torch.cat([new_place[1:], first]))]
        start += width
        width *= 2
    return torch.sort(places, stable=True).indices


def _in_order_of_bytes(columns: torch.Tensor) -> torch.Tensor:
    """Return int64 numbers in the order of the bytes of floats, as they lie in memory."""
    import torch

    n, d = columns.shape
    bits = (columns + 0.0).contiguous().view(torch.uint8).reshape(n, d, -1)  # 0.0 makes -0.0 to 0.0
    # The first byte decides, so it becomes the highest one.
    wide: torch.dtype = torch.int32 if columns.element_size() == 4 else torch.int64
    numbers = bits.flip(2).contiguous().view(wide).reshape(n, d)
    lowest: int = torch.iinfo(wide).min
    return numbers.long() ^ lowest


@implements(LocalBackend)
class CudaBackend:
    """The CUDA kernels for the metrics: features stay on the device, and results do so or come to the host."""

    name = "cuda"

    def __init__(self, kernels: DeviceKernels, device: str, *, results_stay: bool = False) -> None:
        self._kernels = kernels
        self.device = device
        self._results_stay = results_stay
        self._uploaded: tuple[Any, Any] = (None, None)

    @property
    def arithmetic(self) -> str:
        """What the last digits of a result depend on, and where it lies."""
        return f"{self.device}{', results stay' if self._results_stay else ''}"

    def _run(self, primitive: Primitive, values: dict[str, Any]) -> Any:
        import torch

        for argument in primitive.arguments:
            value = values[argument.name]
            if value is not None and argument.on_device and not argument.is_features:
                values[argument.name] = self._upload(value)
        results = self._kernels.run(primitive, values, torch.device(self.device))
        pairs = zip(primitive.results, results, strict=True)
        stay = self._results_stay
        return primitive.joined([found if stay or result.stays else found.cpu().numpy() for result, found in pairs])

    def _upload(self, array: Any) -> torch.Tensor:
        import torch

        if hasattr(array, "detach"):  # a result that stayed
            return cast("torch.Tensor", array)
        before, tensor = self._uploaded
        if before is array:
            return cast("torch.Tensor", tensor)
        same_bits = array.view(np.int16) if array.dtype == np.uint16 else array  # old versions of torch know no uint16
        tensor = torch.tensor(np.ascontiguousarray(same_bits), device=self.device)
        if not array.flags.writeable:  # it may come again, as a projection does for the other set
            self._uploaded = array, tensor
        return tensor


def new_tensors(primitive: Primitive, values: dict[str, Any], device: torch.device) -> list[torch.Tensor]:
    """Return empty tensors for the results."""
    import torch

    def dtype(result: Value) -> torch.dtype:
        name = "float64" if result.is_features else _SAME_BITS.get(result.dtype, [result.dtype])[-1]
        return cast("torch.dtype", getattr(torch, name))

    return [torch.empty(shape, dtype=dtype(one), device=device) for one, shape in primitive.result_shapes(values)]


def _require_torch() -> None:
    """Raise ImportError or NoDeviceError where there is no torch that can use a CUDA device."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"the CUDA kernels need torch for the memory of the device ({error}); install a CUDA build of torch"
        ) from error
    if not torch.cuda.is_available():
        raise NoDeviceError(
            f"torch {torch.__version__} finds no CUDA device although there is one; install a CUDA build of torch"
        )


def _runs(architectures: str, capability: int) -> bool:
    """Whether code for these architectures, in CMake's notation, runs at a compute capability (90 for 9.0).

    Machine code (``real``) runs on later cards of one generation, PTX (``virtual``) on all later ones.

    >>> [_runs("75-real 80-real 90-virtual", capability) for capability in (61, 75, 89, 90, 120)]
    [False, True, True, True, True]
    >>> [_runs("80-real", capability) for capability in (86, 90)]
    [True, False]
    """
    found = re.findall(r"(\d+)[af]?(-real|-virtual)?", architectures)
    return any(
        int(number) <= capability and (kind != "-real" or int(number) // 10 == capability // 10)
        for number, kind in found
    )


def _passed(primitive: Primitive, checked: dict[str, Any]) -> list[Any]:
    """Return the arguments as the module takes them."""
    passed: list[Any] = []
    known = {"n", "m", "d"}
    sets = [checked[argument.name] for argument in primitive.arguments if argument.is_features]
    if sets:
        passed.append(str(sets[0].dtype).removeprefix("torch."))
        for one in sets:
            passed += (0, 0) if one is None else (one.data_ptr(), len(one))
        passed.append(sets[0].shape[1])
    for argument in primitive.arguments[len(sets) :]:
        value = checked[argument.name]
        if argument.on_device and value is not None:
            passed.append(value.data_ptr())
            passed += (size for length, size in zip(argument.lengths, value.shape, strict=True) if length not in known)
            known |= {*argument.lengths}
        else:
            passed.append(0 if argument.on_device else value)
    return passed


def _check_n_neighbors(primitive: Primitive, checked: dict[str, Any]) -> None:
    if primitive.name not in ("kth_neighbor", "neighbors"):
        return
    n_neighbors, within = checked["n_neighbors"], checked["y"] is None
    name, itself = ("x", ", itself left out") if within else ("y", "")
    n_rows = len(checked[name])
    if not 1 <= n_neighbors <= n_rows - within:
        raise ValueError(
            f"n_neighbors={n_neighbors}, expected 1 to {n_rows - within}: {name} has {n_rows} rows{itself}; pass fewer "
            "neighbours or more rows"
        )


def _check_which_radii(primitive: Primitive, checked: dict[str, Any]) -> None:
    if primitive.name != "ball_counts":
        return
    of_x, of_y = checked["x_sq_radii"] is not None, checked["y_sq_radii"] is not None
    if not (of_x or of_y) or (of_y and checked["y"] is None):
        raise ValueError("ball_counts needs x_sq_radii, y_sq_radii or both, and y_sq_radii needs y")


def _check_contiguous(tensor: torch.Tensor, name: str) -> torch.Tensor:
    if not tensor.is_contiguous():
        raise ValueError(
            f"{name} has the strides {tensor.stride()} for the shape {tuple(tensor.shape)}, expected rows one after "
            f"another; pass {name}.contiguous()"
        )
    return tensor


def _dlpack_device_type(values: Any) -> int | None:
    ask = getattr(values, "__dlpack_device__", None)
    try:
        return None if ask is None else int(ask()[0])
    except BufferError:  # an array spread over several devices
        return None
