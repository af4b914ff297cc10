"""The primitives on CUDA tensors, and the backend that lets the metrics run on them.

torch allocates the results and names the stream; the compiled module itself knows nothing of torch, so it works with
any version. torch is imported by the first function that needs it, never by importing egtmetrics.

Calls queue their work on the stream that is current for torch on the tensors' device, and return. Inputs have to live
until the call returns and no longer: memory that torch takes back is handed out again in the order of that stream, so
after the kernels that read it, and ``record_stream`` is not needed. As for every torch operation, a tensor made on
another stream is the caller's to order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from egtmetrics.ops._backend import ANY_RADIUS, BallCounts, Divergences, Features, SqRange
from egtmetrics.ops._native import cuda_module

if TYPE_CHECKING:
    import torch

_MOST_ROWS = 2**31 - 1024
_DLPACK_CUDA = 2
"""The number of CUDA memory among the devices of DLPack."""


class NoDeviceError(RuntimeError):
    """The CUDA kernels are there, and no device to run them on."""


class Points(NamedTuple):
    """One set or two, checked."""

    x: torch.Tensor
    y: torch.Tensor | None

    @property
    def n_other(self) -> int:
        return len(self.x if self.y is None else self.y)

    @property
    def arguments(self) -> tuple[str, int, int, int, int, int]:
        """As the module takes them: dtype, x, n, y, m, d."""
        x, y = self.x, self.y
        second = (0, 0) if y is None else (y.data_ptr(), len(y))
        return str(x.dtype).removeprefix("torch."), x.data_ptr(), len(x), *second, x.shape[1]


class DeviceArrays:
    """Checks arrays on one type of device: torch tensors, or what shares its memory with one.

    That is everything that speaks DLPack or the CUDA array interface, such as arrays of CuPy, JAX and Numba.
    """

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type

    def on_device(self, values: Any) -> torch.Tensor | None:
        """Return ``values`` as a tensor that shares its memory, or None where it does not lie on a device."""
        if hasattr(values, "detach"):
            return cast("torch.Tensor", values.detach()) if values.device.type == self.device_type else None
        if _dlpack_device_type(values) == _DLPACK_CUDA:
            from torch.utils.dlpack import from_dlpack

            return from_dlpack(values)  # which makes the current stream wait for the array
        interface = getattr(values, "__cuda_array_interface__", None)
        if interface is None:
            return None
        import torch

        tensor = torch.as_tensor(values, device="cuda")
        if interface.get("stream") is not None:
            stream: Any = torch.cuda.ExternalStream
            torch.cuda.current_stream(tensor.device).wait_stream(stream(interface["stream"], tensor.device))
        return tensor

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
                f"example with {name}.to({device!r})"
            )
        return tensor

    def points(self, x: Any, y: Any) -> Points:
        """Check both sets; ``y`` may be None."""
        first = self._features(x, "x")
        if y is None:
            return Points(first, None)
        second = self._features(y, "y", str(first.device))
        if second.dtype != first.dtype:
            raise TypeError(f"x has dtype {first.dtype} and y {second.dtype}, expected one dtype; convert either")
        if second.shape[1] != first.shape[1]:
            raise ValueError(
                f"x has {first.shape[1]} columns and y has {second.shape[1]}; both must be features from one encoder"
            )
        return Points(first, second)

    def values(
        self,
        values: Any,
        name: str,
        dtypes: str | tuple[str, ...],
        shape: tuple[int | None, ...],
        other: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Check an array that is no features; None in ``shape`` stands for any positive length."""
        tensor = self.tensor(values, name, None if other is None else str(other.device))
        names = [f"torch.{dtype}" for dtype in ([dtypes] if isinstance(dtypes, str) else dtypes)]
        if str(tensor.dtype) not in names:
            raise TypeError(
                f"{name} has dtype {tensor.dtype}, expected {' or '.join(names)}; convert it with {name}.to({names[0]})"
            )
        fits = len(tensor.shape) == len(shape) and all(
            length == wanted if wanted is not None else length > 0
            for length, wanted in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected ({wanted}); pass such an array")
        return _check_contiguous(tensor, name)

    def _features(self, values: Any, name: str, device: str | None = None) -> torch.Tensor:
        tensor = self.tensor(values, name, device)
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
        return _check_contiguous(tensor, name)


class DeviceKernels(DeviceArrays):
    """The compiled module on tensors: results lie on the device of the arguments, and their names say what they are.

    Every method is that of :class:`egtmetrics.ops.Backend`.
    """

    def __init__(self, load: Callable[[], ModuleType], device_type: str) -> None:
        super().__init__(device_type)
        self._load = load

    @cached_property
    def module(self) -> Any:
        """The module, ready to run: else ImportError or NoDeviceError say what is missing."""
        try:
            module = self._load()
        except ImportError as error:
            raise ImportError(
                f"the CUDA kernels cannot be loaded ({error}); install egtmetrics where nvcc is found, so that they "
                "are built, or pass backend='cpu'"
            ) from error
        reason = module.device_error()
        if reason:
            raise NoDeviceError(f"there is no CUDA device to run on ({reason}); check nvidia-smi, or use backend='cpu'")
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                f"the CUDA kernels need torch for the memory of the device ({error}); install a CUDA build of torch"
            ) from error
        if self.device_type == "cuda" and not torch.cuda.is_available():
            raise NoDeviceError(
                f"torch {torch.__version__} sees no CUDA device although there is one; install a CUDA build of torch"
            )
        return module

    def kth_neighbor(self, x: Any, y: Any = None, *, n_neighbors: int, sq_range: SqRange = ANY_RADIUS) -> torch.Tensor:
        points = self.points(x, y)
        check_n_neighbors(n_neighbors, points)
        sq_radii = _new(points.x, (len(points.x),), "float64")
        self._call("kth_neighbor", points.x.device, *points.arguments, n_neighbors, *sq_range, sq_radii.data_ptr())
        return sq_radii

    def grouped_kth_neighbor(
        self,
        x: Any,
        y: Any = None,
        *,
        x_offsets: Sequence[int],
        y_offsets: Sequence[int] | None = None,
        n_neighbors: int,
    ) -> torch.Tensor:
        points = self.points(x, y)
        sq_radii = _new(points.x, (len(points.x),), "float64")
        offsets = [*x_offsets], None if y_offsets is None else [*y_offsets]
        self._call(
            "grouped_kth_neighbor", points.x.device, *points.arguments, *offsets, n_neighbors, sq_radii.data_ptr()
        )
        return sq_radii

    def neighbors(self, x: Any, y: Any = None, *, n_neighbors: int) -> tuple[torch.Tensor, torch.Tensor]:
        points = self.points(x, y)
        check_n_neighbors(n_neighbors, points)
        shape = (len(points.x), n_neighbors)
        sq_dists, rows = _new(points.x, shape, "float64"), _new(points.x, shape, "int64")
        results = sq_dists.data_ptr(), rows.data_ptr()
        self._call("neighbors", points.x.device, *points.arguments, n_neighbors, *results)
        return sq_dists, rows

    def ball_counts(
        self, x: Any, y: Any = None, *, x_sq_radii: Any = None, y_sq_radii: Any = None, closed: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        points = self.points(x, y)
        check_which_radii(points, x_sq_radii, y_sq_radii)
        n, m = len(points.x), points.n_other
        radii, counts = [], []
        for values, name, length, sizes in (
            (x_sq_radii, "x_sq_radii", n, (n, m)),
            (y_sq_radii, "y_sq_radii", m, (m, n)),
        ):
            given = values is not None
            radii.append(self.values(values, name, "float64", (length,), points.x) if given else None)
            counts += [_new(points.x, (size if given else 0,), "int64") for size in sizes]
        addresses = [0 if r is None else r.data_ptr() for r in radii]
        results = [c.data_ptr() for c in counts]
        self._call("ball_counts", points.x.device, *points.arguments, *addresses, closed, *results)
        return counts[0], counts[1], counts[2], counts[3]

    def kernel_density(self, x: Any, y: Any, *, bandwidth: float) -> torch.Tensor:
        points = self.points(x, _needed(y))
        density = _new(points.x, (len(points.x),), "float64")
        self._call("kernel_density", points.x.device, *points.arguments, float(bandwidth), 0, 0, density.data_ptr(), 0)
        return density

    def kernel_density_band(self, x: Any, counts: Any, *, bandwidth: float) -> tuple[torch.Tensor, torch.Tensor]:
        """``counts`` are 16 bits wide, ``torch.uint16`` or the same bits as ``torch.int16``."""
        points = self.points(x, x)
        n = len(points.x)
        draws = self.values(counts, "counts", ("uint16", "int16"), (n, None), points.x)
        density, deviation = _new(points.x, (n,), "float64"), _new(points.x, (draws.shape[1],), "float64")
        band = draws.data_ptr(), draws.shape[1], density.data_ptr(), deviation.data_ptr()
        self._call("kernel_density", points.x.device, *points.arguments, float(bandwidth), *band)
        return density, deviation

    def soft_ball_product(self, x: Any, y: Any, *, radius: float) -> torch.Tensor:
        points = self.points(x, _needed(y))
        product = _new(points.x, (len(points.x),), "float64")
        self._call("soft_ball_product", points.x.device, *points.arguments, float(radius), product.data_ptr())
        return product

    def project(self, x: Any, matrix: Any) -> torch.Tensor:
        points = self.points(x, None)
        rows = self.values(matrix, "matrix", "float64", (None, points.x.shape[1]), points.x)
        projected = _new(points.x, (len(points.x), len(rows)), "float64")
        dtype, address, n, _, _, d = points.arguments
        self._call("project", points.x.device, dtype, address, n, d, rows.data_ptr(), len(rows), projected.data_ptr())
        return projected

    def divergence_bootstrap(
        self,
        p_counts: Any,
        q_counts: Any,
        codes: Sequence[int],
        parameters: Sequence[float],
        *,
        smoothing: float = 0.0,
        n_replicates: int = 0,
        seed: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        p = self.values(p_counts, "p_counts", "int64", (None, None))
        q = self.values(q_counts, "q_counts", "int64", tuple(p.shape), p)
        n_groups, n_bins = p.shape
        shape = (n_groups, len(codes))
        values, replicates = _new(p, shape, "float64"), _new(p, (*shape, n_replicates), "float64")
        sizes, family = (n_groups, n_bins), ([*codes], [*parameters])
        draws, results = (float(smoothing), n_replicates, seed), (values.data_ptr(), replicates.data_ptr())
        self._call("divergence_bootstrap", p.device, p.data_ptr(), q.data_ptr(), *sizes, *family, *draws, *results)
        return values, replicates

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
"""The only instance; tests put another in its place, for which tensors in host memory play those on a device."""


def current_queue(device: torch.device) -> tuple[int, int]:
    """Index of a device and address of the stream that is current there for torch, as the module takes them."""
    if device.type != "cuda":
        return 0, 0
    import torch

    return device.index, torch.cuda.current_stream(device).cuda_stream


def common_device(*features: Any) -> str | None:
    """Return the one device on which all ``features`` lie, if the kernels can run there, else None.

    >>> import numpy as np
    >>> common_device(np.zeros((3, 2)), np.zeros((4, 2))) is None
    True
    """
    devices = set()
    try:
        for values in features:
            tensor = KERNELS.on_device(values)
            if tensor is None:
                return None
            devices.add(str(tensor.device))
        if len(devices) != 1:
            return None
        _ = KERNELS.module
    except (ImportError, NoDeviceError):
        return None
    return devices.pop()


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
            return str(tensor.device)
    if KERNELS.device_type != "cuda":
        return KERNELS.device_type
    import torch

    return f"cuda:{torch.cuda.current_device()}"


def to_host(features: Any) -> Features:
    """Return features of any backend as a NumPy array.

    >>> import numpy as np
    >>> to_host(np.zeros((1, 2)))
    array([[0., 0.]])
    """
    if isinstance(features, np.ndarray):
        return features
    if hasattr(features, "take_rows"):  # spread over ranks: rows are fetched as they are asked for
        return cast("Features", features)
    return cast("Features", features.cpu().numpy())


def take_rows(features: Any, rows: NDArray[Any]) -> Features:
    """Copy some rows, by number or by a mask, to where the features are.

    >>> import numpy as np
    >>> take_rows(np.arange(6.0).reshape(3, 2), np.array([2, 0]))
    array([[4., 5.],
           [0., 1.]])
    """
    if isinstance(features, np.ndarray):
        return cast("Features", features[rows])
    if hasattr(features, "take_rows"):
        return cast("Features", features.take_rows(rows))
    import torch

    numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
    return cast("Features", features.index_select(0, torch.from_numpy(numbers).to(features.device)))


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


class CudaBackend:
    """The kernels behind :class:`egtmetrics.ops.Backend`: features stay on the device, results come to the host."""

    name = "cuda"

    def __init__(self, kernels: DeviceKernels, device: str) -> None:
        self._kernels = kernels
        self.device = device

    def kth_neighbor(
        self, x: Any, y: Any = None, *, n_neighbors: int, sq_range: SqRange = ANY_RADIUS
    ) -> NDArray[np.float64]:
        return _numpy(self._kernels.kth_neighbor(x, y, n_neighbors=n_neighbors, sq_range=sq_range))

    def grouped_kth_neighbor(
        self,
        x: Any,
        y: Any = None,
        *,
        x_offsets: NDArray[np.int64],
        y_offsets: NDArray[np.int64] | None = None,
        n_neighbors: int,
    ) -> NDArray[np.float64]:
        y_list = None if y_offsets is None else y_offsets.tolist()
        return _numpy(
            self._kernels.grouped_kth_neighbor(
                x, y, x_offsets=x_offsets.tolist(), y_offsets=y_list, n_neighbors=n_neighbors
            )
        )

    def neighbors(self, x: Any, y: Any = None, *, n_neighbors: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        sq_dists, rows = self._kernels.neighbors(x, y, n_neighbors=n_neighbors)
        return _numpy(sq_dists), _numpy(rows)

    def ball_counts(
        self,
        x: Any,
        y: Any = None,
        *,
        x_sq_radii: NDArray[np.float64] | None = None,
        y_sq_radii: NDArray[np.float64] | None = None,
        closed: bool,
    ) -> BallCounts:
        counts = self._kernels.ball_counts(
            x,
            y,
            x_sq_radii=None if x_sq_radii is None else self._upload(x_sq_radii),
            y_sq_radii=None if y_sq_radii is None else self._upload(y_sq_radii),
            closed=closed,
        )
        return BallCounts(*map(_numpy, counts))

    def kernel_density(self, x: Any, y: Any, *, bandwidth: float) -> NDArray[np.float64]:
        return _numpy(self._kernels.kernel_density(x, y, bandwidth=bandwidth))

    def kernel_density_band(
        self, x: Any, counts: NDArray[np.uint16], *, bandwidth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        draws = self._upload(counts.view(np.int16))  # the same bits: old versions of torch know no uint16
        density, deviation = self._kernels.kernel_density_band(x, draws, bandwidth=bandwidth)
        return _numpy(density), _numpy(deviation)

    def soft_ball_product(self, x: Any, y: Any, *, radius: float) -> NDArray[np.float64]:
        return _numpy(self._kernels.soft_ball_product(x, y, radius=radius))

    def project(self, x: Any, matrix: NDArray[np.float64]) -> Features:
        return cast("Features", self._kernels.project(x, self._upload(matrix)))

    def divergence_bootstrap(
        self,
        p_counts: NDArray[np.int64],
        q_counts: NDArray[np.int64],
        divergences: Divergences,
        *,
        smoothing: float = 0.0,
        n_replicates: int = 0,
        seed: int = 0,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, replicates = self._kernels.divergence_bootstrap(
            self._upload(p_counts),
            self._upload(q_counts),
            divergences.codes.tolist(),
            divergences.parameters.tolist(),
            smoothing=smoothing,
            n_replicates=n_replicates,
            seed=seed,
        )
        return _numpy(values), _numpy(replicates)

    def _upload(self, array: NDArray[Any]) -> torch.Tensor:
        import torch

        return torch.tensor(np.ascontiguousarray(array), device=self.device)


def _numpy(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()


def _new(like: torch.Tensor, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    import torch

    return like.new_empty(shape, dtype=getattr(torch, dtype))


def check_n_neighbors(n_neighbors: int, points: Points) -> None:
    most = points.n_other - (points.y is None)
    if not 1 <= n_neighbors <= most:
        name, itself = ("x", ", itself left out") if points.y is None else ("y", "")
        raise ValueError(
            f"n_neighbors={n_neighbors}, expected 1 to {most}: {name} has {points.n_other} rows{itself}; pass fewer "
            "neighbours or more rows"
        )


def _needed(y: Any) -> Any:
    if y is None:
        raise TypeError("y is None, expected the second set of features; pass x again to compare a set with itself")
    return y


def check_which_radii(points: Points, x_sq_radii: Any, y_sq_radii: Any) -> None:
    if (x_sq_radii is None and y_sq_radii is None) or (points.y is None and y_sq_radii is not None):
        raise ValueError(
            "ball_counts needs x_sq_radii, y_sq_radii or both, and takes y_sq_radii with y only; pass them so"
        )


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
